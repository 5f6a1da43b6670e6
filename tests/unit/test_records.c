/*
 * Rings into LMDB and back: nothing twice, nothing lost, whoever dies when.
 *
 * The writer and the readers meet a real arena and a real LMDB. A death at a
 * known point is made by putting back what had not been written yet at that
 * point: the arena's bytes, or the ledger's folder. Deaths at unknown points
 * are made by SIGKILL. The clock is the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/unit/store_fixture.h"

/* ---- tests ---- */

static void
records_and_levels_arrive(void **state)
{
	struct store *s = *state;
	uint32_t records = 7;

	open_writer(s);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), 0);
	assert_int_equal(records, 0);
	settle(s, 100);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), 0);
	assert_int_equal(records, 100);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), 0);
	assert_int_equal(records, 0);
	settle(s, 50);
	flush_all(s);
	assert_whole(s);
	assert_int_equal(read_levels(s).daily, s->spent);
}

static void
a_scan_seeks_and_stops(void **state)
{
	struct store *s = *state;
	uint64_t middle, last;
	struct found *f;

	open_writer(s);
	settle(s, 10);
	flush_all(s);
	clock_at_ns += 10 * NS_PER_S;
	middle = (uint64_t)clock_at_ns;
	settle(s, 20);
	flush_all(s);
	close_writer(s);
	f = read_store(s, middle, UINT64_MAX, 0);
	assert_int_equal(f->count, 20);
	assert_int_equal(f->first_id, middle);
	last = f->last_id;
	assert_int_equal(read_store(s, 0, middle, 0)->count, 10);
	assert_int_equal(read_store(s, middle + 1, middle + 4, 0)->count, 3);
	assert_int_equal(read_store(s, 0, UINT64_MAX, 5)->count, 5);
	assert_int_equal(read_store(s, last + 1, UINT64_MAX, 0)->count, 0);
}

static void
a_scan_longer_than_a_snapshot_is_whole(void **state)
{
	struct store *s = *state;

	open_writer(s);
	for (int i = 0; i < 20; i++) {
		settle(s, 1000);
		flush_all(s);
	}
	assert_whole(s);
}

static void
a_death_before_the_rings_advance_counts_nothing_twice(void **state)
{
	struct store *s = *state;
	void *arena = malloc(s->f.arena.bytes);

	open_writer(s);
	settle(s, 30);
	flush_all(s);
	settle(s, 40);
	memcpy(arena, s->f.arena.header, s->f.arena.bytes);
	flush_all(s);
	close_writer(s);
	memcpy(s->f.arena.header, arena, s->f.arena.bytes);
	open_writer(s);
	flush_all(s);
	settle(s, 5);
	flush_all(s);
	assert_whole(s);
	free(arena);
}

static void
a_death_between_records_and_ledger_is_carried_over(void **state)
{
	struct store *s = *state;
	void *arena = malloc(s->f.arena.bytes);
	char ledger[128], saved[128];

	store_file(s, "ledger/data.mdb", ledger);
	store_file(s, "saved", saved);
	open_writer(s);
	settle(s, 30);
	flush_all(s);
	settle(s, 40);
	memcpy(arena, s->f.arena.header, s->f.arena.bytes);
	close_writer(s);
	copy_file(ledger, saved);
	open_writer(s);
	flush_all(s);
	close_writer(s);
	copy_file(saved, ledger);
	memcpy(s->f.arena.header, arena, s->f.arena.bytes);
	assert_int_not_equal(read_levels(s).total, s->spent);

	open_writer(s);
	close_writer(s);
	assert_int_equal(read_levels(s).total, s->spent);	/* by the open alone */
	open_writer(s);
	flush_all(s);
	assert_whole(s);
	free(arena);
}

static void
a_lost_ledger_is_rebuilt_from_the_records(void **state)
{
	struct store *s = *state;
	char ledger[128];

	store_file(s, "ledger", ledger);
	open_writer(s);
	for (int day = 0; day < 3; day++) {
		settle(s, 200);
		flush_all(s);
		clock_at_ns += A_DAY_NS;
		s->f.now.wall_ns = clock_at_ns;
	}
	close_writer(s);
	int64_t daily = read_levels(s).daily;
	remove_tree(ledger);
	open_writer(s);
	assert_whole(s);
	assert_int_equal(read_levels(s).daily, daily);
}

static void
midnight_begins_a_new_day(void **state)
{
	struct store *s = *state;

	open_writer(s);
	settle(s, 3);
	flush_all(s);
	/* Ten ids, three of which fit before midnight. */
	clock_at_ns = DAY_BEGIN_NS + A_DAY_NS - 3;
	settle(s, 10);
	flush_all(s);
	close_writer(s);
	assert_true(day_exists(s, "2026-11-23"));
	assert_true(day_exists(s, "2026-11-24"));
	assert_int_equal(read_store(s, 0, (uint64_t)(DAY_BEGIN_NS + A_DAY_NS), 0)->count, 6);
	assert_int_equal(read_store(s, (uint64_t)(DAY_BEGIN_NS + A_DAY_NS), UINT64_MAX, 0)->count, 7);
	assert_whole(s);
}

static void
a_replay_after_midnight_counts_nothing_twice(void **state)
{
	struct store *s = *state;
	void *arena = malloc(s->f.arena.bytes);

	open_writer(s);
	settle(s, 40);
	memcpy(arena, s->f.arena.header, s->f.arena.bytes);
	flush_all(s);
	close_writer(s);
	memcpy(s->f.arena.header, arena, s->f.arena.bytes);
	clock_at_ns += A_DAY_NS;
	open_writer(s);
	flush_all(s);
	settle(s, 1);
	flush_all(s);
	/* And once more, now that the newest day knows one worker only. */
	close_writer(s);
	memcpy(s->f.arena.header, arena, s->f.arena.bytes);
	open_writer(s);
	flush_all(s);
	assert_whole(s);
	free(arena);
}

static void
a_clock_that_steps_back_loses_no_order(void **state)
{
	struct store *s = *state;

	open_writer(s);
	clock_at_ns += A_DAY_NS;
	settle(s, 10);
	flush_all(s);
	clock_at_ns -= 2 * A_DAY_NS;
	settle(s, 10);
	flush_all(s);
	open_writer(s);
	settle(s, 10);
	flush_all(s);
	close_writer(s);
	assert_false(day_exists(s, "2026-11-22"));
	assert_false(day_exists(s, "2026-11-23"));
	assert_whole(s);
}

static void
a_restored_ledger_catches_up(void **state)
{
	struct store *s = *state;
	char ledger[128], saved[128];

	store_file(s, "ledger/data.mdb", ledger);
	store_file(s, "saved", saved);
	open_writer(s);
	for (int i = 0; i < 12; i++) {
		settle(s, 100);
		/* One ring is quiet on the second day. */
		assert_true(try_settle(s, i < 4 || i > 8 ? 2 : 1, 1));
		flush_all(s);
		if (i % 4 == 3)
			clock_at_ns += A_DAY_NS;
		if (i == 1) {
			close_writer(s);
			copy_file(ledger, saved);
			open_writer(s);
		}
	}
	close_writer(s);
	copy_file(saved, ledger);
	open_writer(s);
	assert_whole(s);
}

static void
levels_are_loaded_one_by_one(void **state)
{
	struct store *s = *state;
	struct reader *r;
	struct level level;

	/* Not yet made: that is no "nothing was spent". */
	r = reader_open(s->folder, why, sizeof(why));
	assert_non_null(r);
	assert_int_equal(reader_level(r, TOTAL_ID, &level), -1);
	open_writer(s);
	assert_int_equal(reader_level(r, TOTAL_ID, &level), 0);
	assert_false(level.known);
	for (int i = 0; i < 3; i++) {
		settle(s, 20);
		flush_all(s);
		assert_int_equal(reader_level(r, TOTAL_ID, &level), 0);
		assert_true(level.known);
		assert_int_equal(level.spent, s->spent);
		assert_int_equal(meter_what_period(level.what).kind, PERIOD_TOTAL);
		assert_int_equal(reader_level(r, (struct meter_id){ 2, 77 }, &level), 0);
		assert_false(level.known);
	}
	reader_close(r);
	assert_null(reader_open("/tmp/weir-no-such-folder", why, sizeof(why)));
	assert_non_null(strstr(why, "/tmp/weir-no-such-folder"));
}

/* As a worker loads it: a new arena has the level that the old one had. */
static void
buckets_are_stored_too(void **state)
{
	struct store *s = *state;
	struct charge c[STORE_CHARGES];
	struct meter_view before, after;
	struct reader *r;
	struct fixture fresh;
	struct level level;

	open_writer(s);
	settle(s, 30);
	flush_all(s);
	assert_true(ledger_meter(&s->f.arena, BUCKET_ID, s->f.now, &before));
	assert_int_equal(read_levels(s).full_wall_ns, s->f.now.wall_ns + before.full_in_ns);
	assert_int_equal(read_levels(s).named, 3);
	assert_int_equal(read_levels(s).count, 3);

	r = reader_open(s->folder, why, sizeof(why));
	assert_int_equal(reader_level(r, BUCKET_ID, &level), 0);
	reader_close(r);
	fixture_open(&fresh, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 });
	fresh.now = (struct now){ 5 * NS_PER_S, s->f.now.wall_ns };	/* another boot */
	store_charges(c);
	assert_int_equal(ledger_load(&fresh.arena, 0, &c[2], &level, ledger_evictions(&fresh.arena), fresh.now), LOAD_DONE);
	assert_true(ledger_meter(&fresh.arena, BUCKET_ID, fresh.now, &after));
	assert_int_equal(after.full_in_ns, before.full_in_ns);
	fixture_close(&fresh);
}

struct told {
	uint32_t calls;
	int64_t total, daily;
};

static void
note_booked(struct meter_id id, uint64_t what, int64_t before, int64_t after, void *arg)
{
	struct told *t = arg;
	int64_t *level = id.lo == 1 ? &t->total : &t->daily;

	assert_int_equal(id.hi, 2);
	assert_int_equal(meter_what_kind(what), METER_BUDGET);
	if (before != 0)
		assert_int_equal(before, *level);
	assert_true(after > before);
	*level = after;
	t->calls++;
}

static void
changes_of_budgets_are_told_once(void **state)
{
	struct store *s = *state;
	void *arena = malloc(s->f.arena.bytes);
	struct told told = { 0 };

	open_writer(s);
	writer_on_booked(s->writer, note_booked, &told);
	assert_int_equal(told.calls, 0);
	settle(s, 40);
	memcpy(arena, s->f.arena.header, s->f.arena.bytes);
	flush_all(s);
	assert_int_equal(told.calls, 2);
	assert_int_equal(told.total, s->spent);
	assert_int_equal(told.daily, s->spent);
	/* The rings once more, as after a death before they advanced. */
	memcpy(s->f.arena.header, arena, s->f.arena.bytes);
	open_writer(s);
	writer_on_booked(s->writer, note_booked, &told);
	flush_all(s);
	assert_int_equal(told.calls, 2);
	/* A new day begins at 0. */
	int64_t yesterday = s->spent;
	clock_at_ns += A_DAY_NS;
	s->f.now.wall_ns = clock_at_ns;
	settle(s, 1);
	flush_all(s);
	assert_int_equal(told.calls, 4);
	assert_int_equal(told.total, s->spent);
	assert_int_equal(told.daily, s->spent - yesterday);
	free(arena);
}

static void
what_a_dead_keeper_had_stored_is_told_too(void **state)
{
	struct store *s = *state;
	char ledger[128], saved[128];
	struct told told = { 0 };

	store_file(s, "ledger/data.mdb", ledger);
	store_file(s, "saved", saved);
	open_writer(s);
	close_writer(s);
	copy_file(ledger, saved);
	open_writer(s);
	settle(s, 40);
	flush_all(s);
	close_writer(s);
	copy_file(saved, ledger);
	open_writer(s);
	writer_on_booked(s->writer, note_booked, &told);
	assert_int_equal(told.calls, 2);
	assert_int_equal(told.total, s->spent);
	writer_on_booked(s->writer, note_booked, &told);
	assert_int_equal(told.calls, 2);
	/* Nobody knew names then; the next booking does. A process must not open
	 * an environment twice: the reader comes when the writer is gone. */
	close_writer(s);
	assert_int_equal(read_levels(s).named, 0);
	open_writer(s);
	settle(s, 1);
	flush_all(s);
	close_writer(s);
	assert_int_equal(read_levels(s).named, 3);
	assert_whole(s);
}

static bool
note_reset(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	int64_t *amount = arg;

	(void)id;
	if (slice_eq(r->request_id, SLICE("reset"))) {
		assert_int_equal(n, 1);
		*amount = charges[0].amount;
	}
	return true;
}

static void
the_ring_of_the_tools_is_drained(void **state)
{
	struct store *s = *state;
	struct record r = { .request_id = SLICE("reset") };
	char bytes[RECORD_BYTES_MAX];
	uint32_t n = record_encode(&r, bytes, sizeof(bytes));
	struct reader *reader;
	int64_t amount = 0;

	open_writer(s);
	settle(s, 12);
	int64_t before = s->spent;
	assert_int_equal(ledger_reset(&s->f.arena, TOTAL_ID, bytes, n, s->f.now), RESET_DONE);
	settle(s, 3);
	flush_all(s);
	assert_true(writer_drained(s->writer));
	assert_int_equal(read_levels(s).total, s->spent - before);
	assert_int_equal(read_levels(s).daily, s->spent);
	close_writer(s);
	reader = reader_open(s->folder, why, sizeof(why));
	assert_int_equal(reader_scan(reader, 0, UINT64_MAX, note_reset, &amount), 0);
	reader_close(reader);
	assert_int_equal(amount, -before);
}

static bool
note_charges(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	(void)id;
	(void)arg;
	assert_int_equal((uintptr_t)charges % _Alignof(struct ring_charge), 0);
	assert_int_equal(n, STORE_CHARGES);
	assert_int_equal(charges[0].held, 1);
	assert_int_equal(charges[0].amount, r->fixed.cost_nusd);
	assert_int_equal(charges[1].period_index, DAY_BEGIN_NS / A_DAY_NS);
	assert_int_equal(meter_what_kind(charges[2].what), METER_BUCKET);
	assert_true(charges[2].full_wall_ns > 0);
	assert_int_equal(meter_what_kind(charges[3].what), METER_CONCURRENCY);
	return true;
}

static void
charges_are_read_with_their_records(void **state)
{
	struct store *s = *state;
	struct reader *r;

	open_writer(s);
	settle(s, 10);
	flush_all(s);
	close_writer(s);
	r = reader_open(s->folder, why, sizeof(why));
	assert_int_equal(reader_scan(r, 0, UINT64_MAX, note_charges, NULL), 0);
	reader_close(r);
}

static void
a_new_arena_goes_on_beside_the_old_records(void **state)
{
	struct store *s = *state;

	open_writer(s);
	settle(s, 20);
	flush_all(s);
	fixture_close(&s->f);
	/* Same workers, same sequences, another epoch. */
	fixture_open(&s->f, (struct arena_sizes){ .workers = 3, .inflight = 64, .ring_bytes = 1 << 20, .meters = 256 });
	settle(s, 20);
	flush_all(s);
	assert_whole(s);
}

static void
a_full_map_grows(void **state)
{
	struct store *s = *state;

	open_writer_with(s, 131072);
	for (int i = 0; i < 10; i++) {
		settle(s, 500);
		flush_all(s);
	}
	open_writer_with(s, 131072);
	settle(s, 500);
	flush_all(s);
	assert_whole(s);
}

static void
a_second_writer_is_told_who_is_first(void **state)
{
	struct store *s = *state;
	char pid[32];

	open_writer(s);
	assert_null(writer_open(s->folder, why, sizeof(why)));
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(why, pid));
	assert_non_null(strstr(why, s->folder));
	close_writer(s);
	open_writer(s);
}

static void
what_is_no_record_hides_no_other(void **state)
{
	struct store *s = *state;
	const struct settled nothing = { 0 };
	struct inflight *e;

	open_writer(s);
	settle(s, 2);
	/* A worker that died before its draft. */
	e = admit(&s->f, 0, NULL, 0);
	assert_non_null(e);
	inflight_record_set(e, 0);
	assert_int_equal(ledger_settle(&s->f.arena, 0, e, &nothing, s->f.now), SETTLED);
	settle(s, 2);
	flush_all(s);
	assert_whole(s);
}

/* ---- a reader in a process of its own, beside the writer ---- */

struct follower {
	pid_t pid;
	int ask, answer;
};

static bool
count_only(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	uint64_t *next_id = arg;

	(void)r;
	(void)charges;
	(void)n;
	*next_id = id + 1;
	return true;
}

/* Answers each byte with the id behind the last record that it sees. */
static struct follower
follower_start(struct store *s)
{
	int ask[2], answer[2];
	struct follower f;

	assert_int_equal(pipe(ask), 0);
	assert_int_equal(pipe(answer), 0);
	f = (struct follower){ fork(), ask[1], answer[0] };
	if (f.pid == 0) {
		struct reader *r = reader_open(s->folder, why, sizeof(why));
		uint64_t next_id = 0;
		char c;

		close(ask[1]);
		while (r && read(ask[0], &c, 1) == 1)
			if (reader_scan(r, next_id, UINT64_MAX, count_only, &next_id) != 0 ||
			    write(answer[1], &next_id, sizeof(next_id)) != sizeof(next_id))
				_exit(1);
		_exit(r ? 0 : 1);
	}
	close(ask[0]);
	close(answer[1]);
	return f;
}

static uint64_t
follower_ask(const struct follower *f)
{
	uint64_t next_id = 0;

	assert_int_equal(write(f->ask, "?", 1), 1);
	assert_int_equal(read(f->answer, &next_id, sizeof(next_id)), sizeof(next_id));
	return next_id;
}

static void
a_reader_follows_over_growth_and_midnight(void **state)
{
	struct store *s = *state;
	struct follower f = follower_start(s);
	int status;

	open_writer_with(s, 131072);
	assert_int_equal(follower_ask(&f), 0);
	for (int day = 0; day < 2; day++) {
		settle(s, 1);
		flush_all(s);
		assert_int_equal(follower_ask(&f), clock_at_ns + 1);
		for (int i = 0; i < 5; i++) {
			clock_at_ns += NS_PER_S;
			settle(s, 600);
			flush_all(s);
			assert_int_equal(follower_ask(&f), clock_at_ns + 600);
		}
		clock_at_ns += A_DAY_NS;
	}
	close(f.ask);
	close(f.answer);
	assert_int_equal(waitpid(f.pid, &status, 0), f.pid);
	assert_int_equal(status, 0);
}

/* ---- SIGKILL at moments that nobody chose ---- */

static pid_t
keeper_start(struct store *s)
{
	pid_t pid = fork();

	if (pid == 0) {
		const struct writer_options options = { clock_wall_ns, (size_t)1 << 30 };
		struct writer *w = writer_open_with(s->folder, &options, why, sizeof(why));
		uint32_t records;

		if (!w)
			fprintf(stderr, "keeper: %s\n", why);
		while (w && writer_flush(w, &s->f.arena, &records, why, sizeof(why)) == 0)
			;
		_exit(1);
	}
	assert_true(pid > 0);
	return pid;
}

static void
kill_9_of_the_keeper_loses_and_doubles_nothing(void **state)
{
	struct store *s = *state;
	unsigned seed = 4711;

	for (int round = 0; round < 60; round++) {
		pid_t pid = keeper_start(s);
		uint32_t goal = s->made + 500 + (uint32_t)rand_r(&seed) % 1200;
		int status;

		/* More than the rings hold: the keeper is at work when it dies. */
		for (int64_t until = clock_mono_ns() + 20 * NS_PER_S; s->made < goal && clock_mono_ns() < until;)
			try_settle(s, s->made % 3, 1 + rand_r(&seed) % 1000);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_true(s->made >= goal);
	}
	clock_at_ns = clock_wall_ns();
	open_writer(s);
	flush_all(s);
	assert_whole(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(records_and_levels_arrive),
		TEST(a_scan_seeks_and_stops),
		TEST(a_scan_longer_than_a_snapshot_is_whole),
		TEST(a_death_before_the_rings_advance_counts_nothing_twice),
		TEST(a_death_between_records_and_ledger_is_carried_over),
		TEST(a_lost_ledger_is_rebuilt_from_the_records),
		TEST(midnight_begins_a_new_day),
		TEST(a_replay_after_midnight_counts_nothing_twice),
		TEST(a_clock_that_steps_back_loses_no_order),
		TEST(a_restored_ledger_catches_up),
		TEST(levels_are_loaded_one_by_one),
		TEST(buckets_are_stored_too),
		TEST(changes_of_budgets_are_told_once),
		TEST(what_a_dead_keeper_had_stored_is_told_too),
		TEST(the_ring_of_the_tools_is_drained),
		TEST(charges_are_read_with_their_records),
		TEST(a_new_arena_goes_on_beside_the_old_records),
		TEST(a_full_map_grows),
		TEST(a_second_writer_is_told_who_is_first),
		TEST(what_is_no_record_hides_no_other),
		TEST(a_reader_follows_over_growth_and_midnight),
		cmocka_unit_test_setup_teardown(kill_9_of_the_keeper_loses_and_doubles_nothing, setup_small_rings, teardown),
	};

	return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
