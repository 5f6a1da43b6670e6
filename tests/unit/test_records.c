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
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/levels.h"
#include "store/records.h"
#include "tests/unit/arena_fixture.h"

#define MANY 100000
#define DAY_BEGIN_NS (INT64_C(20780) * 86400 * NS_PER_S)	/* 2026-11-23 */

struct store {
	struct fixture f;
	char folder[64];
	struct writer *writer;
	uint32_t made;		/* records settled so far */
	int64_t spent;		/* of budget 1, all of them */
};

static int64_t clock_at_ns;
static char why[512];

static int64_t
test_clock(void)
{
	return clock_at_ns;
}

/* ---- files ---- */

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static void
remove_tree(const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		fail_msg("cannot remove %s", path);
}

static void
copy_file(const char *from, const char *to)
{
	char bytes[65536];
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	size_t n;

	assert_true(in && out);
	while ((n = fread(bytes, 1, sizeof(bytes), in)) > 0)
		assert_int_equal(fwrite(bytes, 1, n, out), n);
	fclose(in);
	assert_int_equal(fclose(out), 0);
}

static void
ledger_file(const struct store *s, const char *name, char out[128])
{
	snprintf(out, 128, "%s/%s", s->folder, name);
}

/* ---- set-up ---- */

static int
setup_with(void **state, uint32_t ring_bytes)
{
	struct store *s = calloc(1, sizeof(*s));

	fixture_open(&s->f, (struct arena_sizes){ .workers = 3, .inflight = 64, .ring_bytes = ring_bytes, .meters = 256 });
	snprintf(s->folder, sizeof(s->folder), "/tmp/weir-records-XXXXXX");
	clock_at_ns = DAY_BEGIN_NS + 3600 * NS_PER_S;
	s->f.now.wall_ns = clock_at_ns;
	*state = s;
	return mkdtemp(s->folder) ? 0 : -1;
}

static int
setup(void **state)
{
	return setup_with(state, 1 << 20);
}

/* Rings that are full after some 200 records each. */
static int
setup_small_rings(void **state)
{
	return setup_with(state, 65536);
}

static int
teardown(void **state)
{
	struct store *s = *state;

	writer_close(s->writer);
	fixture_close(&s->f);
	remove_tree(s->folder);
	free(s);
	return 0;
}

static void
open_writer_with(struct store *s, size_t map_bytes)
{
	const struct writer_options options = { test_clock, map_bytes };

	writer_close(s->writer);
	s->writer = writer_open_with(s->folder, &options, why, sizeof(why));
	if (!s->writer)
		fail_msg("%s", why);
}

static void
open_writer(struct store *s)
{
	open_writer_with(s, (size_t)1 << 30);
}

static void
close_writer(struct store *s)
{
	writer_close(s->writer);
	s->writer = NULL;
}

/* One finished request on a worker: cost on budget 1 and on a daily one. */
static bool
try_settle(struct store *s, uint32_t worker, int64_t cost_nusd)
{
	struct charge c[2] = {
		budget_charge(1, PERIOD_TOTAL, INT64_MAX, 1), budget_charge(2, PERIOD_DAILY, INT64_MAX, 1),
	};
	struct record r = { .fixed = { .status = 200, .cost_nusd = cost_nusd } };
	struct inflight *e;
	struct refusal refusal;
	char id[32];

	if (ledger_admit(&s->f.arena, worker, c, 2, s->f.now, &e, &refusal) != LEDGER_ADMITTED)
		return false;
	snprintf(id, sizeof(id), "r%u", s->made);
	r.request_id = slice_of(id);
	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	if (ledger_settle(&s->f.arena, worker, e, cost_nusd, s->f.now) != SETTLED) {
		/* No room: as if it had never been. */
		assert_int_equal(ledger_cancel(&s->f.arena, worker, e, false, s->f.now), SETTLED);
		return false;
	}
	s->made++;
	s->spent += cost_nusd;
	return true;
}

static void
settle(struct store *s, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		assert_true(try_settle(s, s->made % 3, 1000 + s->made));
}

static void
flush_all(struct store *s)
{
	uint32_t records = 1;

	while (records > 0)
		if (writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)) != 0)
			fail_msg("%s", why);
}

/* ---- what is in the store ---- */

struct found {
	uint32_t count, stop_after;
	uint64_t last_id, first_id;
	int64_t cost;
	uint8_t seen[MANY];
};

static bool
note_record(uint64_t id, const struct record *r, void *arg)
{
	struct found *f = arg;
	int64_t n;

	assert_true(id > f->last_id);
	assert_true(slice_to_i64((struct slice){ r->request_id.p + 1, r->request_id.n - 1 }, &n));
	assert_true(n >= 0 && n < MANY);
	assert_int_equal(f->seen[n], 0);
	f->seen[n] = 1;
	f->first_id = f->first_id ? f->first_id : id;
	f->last_id = id;
	f->cost += r->fixed.cost_nusd;
	return ++f->count != f->stop_after;
}

static struct found *
read_store(struct store *s, uint64_t from_id, uint64_t to_id, uint32_t stop_after)
{
	static struct found found;
	struct reader *r = reader_open(s->folder, why, sizeof(why));

	found = (struct found){ .stop_after = stop_after };
	if (!r)
		fail_msg("%s", why);
	assert_int_equal(reader_scan(r, from_id, to_id, note_record, &found), 0);
	reader_close(r);
	return &found;
}

struct levels_found {
	int64_t total, daily, daily_index;
	uint32_t count;
};

static bool
note_level(uint64_t hi, uint64_t lo, uint32_t period, int64_t index, int64_t spent_nusd, void *arg)
{
	struct levels_found *l = arg;

	assert_int_equal(hi, 2);
	l->count++;
	if (lo == 1) {
		assert_int_equal(period, PERIOD_TOTAL);
		l->total = spent_nusd;
	} else if (lo == 2) {
		assert_int_equal(period, PERIOD_DAILY);
		l->daily = spent_nusd;
		l->daily_index = index;
	}
	return true;
}

static struct levels_found
read_levels(struct store *s)
{
	struct reader *r = reader_open(s->folder, why, sizeof(why));
	struct levels_found l = { 0 };

	assert_non_null(r);
	assert_int_equal(reader_meters(r, note_level, &l), 0);
	reader_close(r);
	return l;
}

/* Every record once, and the ledger says what they say. */
static void
assert_whole(struct store *s)
{
	struct found *f;

	close_writer(s);
	f = read_store(s, 0, UINT64_MAX, 0);
	assert_int_equal(f->count, s->made);
	assert_int_equal(f->cost, s->spent);
	for (uint32_t i = 0; i < s->made; i++)
		assert_int_equal(f->seen[i], 1);
	assert_int_equal(read_levels(s).total, s->spent);
}

static bool
day_exists(struct store *s, const char *day)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/records/%s/data.mdb", s->folder, day);
	return stat(path, &st) == 0;
}

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

	ledger_file(s, "ledger/data.mdb", ledger);
	ledger_file(s, "saved", saved);
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

	ledger_file(s, "ledger", ledger);
	open_writer(s);
	for (int day = 0; day < 3; day++) {
		settle(s, 200);
		flush_all(s);
		clock_at_ns += 86400 * NS_PER_S;
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
	clock_at_ns = DAY_BEGIN_NS + INT64_C(86400) * NS_PER_S - 3;
	settle(s, 10);
	flush_all(s);
	close_writer(s);
	assert_true(day_exists(s, "2026-11-23"));
	assert_true(day_exists(s, "2026-11-24"));
	assert_int_equal(read_store(s, 0, (uint64_t)(DAY_BEGIN_NS + INT64_C(86400) * NS_PER_S), 0)->count, 6);
	assert_int_equal(read_store(s, (uint64_t)(DAY_BEGIN_NS + INT64_C(86400) * NS_PER_S), UINT64_MAX, 0)->count, 7);
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
	clock_at_ns += 86400 * NS_PER_S;
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
	clock_at_ns += 86400 * NS_PER_S;
	settle(s, 10);
	flush_all(s);
	clock_at_ns -= 2 * 86400 * NS_PER_S;
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

	ledger_file(s, "ledger/data.mdb", ledger);
	ledger_file(s, "saved", saved);
	open_writer(s);
	for (int i = 0; i < 12; i++) {
		settle(s, 100);
		/* One ring is quiet on the second day. */
		assert_true(try_settle(s, i < 4 || i > 8 ? 2 : 1, 1));
		flush_all(s);
		if (i % 4 == 3)
			clock_at_ns += 86400 * NS_PER_S;
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
levels_are_loaded_into_a_new_arena(void **state)
{
	struct store *s = *state;
	struct fixture fresh;
	struct meter_view view;

	open_writer(s);
	settle(s, 20);
	flush_all(s);
	fixture_open(&fresh, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 });
	fresh.now = s->f.now;
	assert_int_equal(writer_load_meters(s->writer, &fresh.arena), 0);
	assert_true(ledger_meter(&fresh.arena, (struct meter_id){ 2, 1 }, fresh.now, &view));
	assert_int_equal(view.spent, s->spent);
	assert_true(ledger_meter(&fresh.arena, (struct meter_id){ 2, 2 }, fresh.now, &view));
	assert_int_equal(view.spent, s->spent);
	fixture_close(&fresh);

	/* Tomorrow the daily one is not worth a row. */
	clock_at_ns += 86400 * NS_PER_S;
	fixture_open(&fresh, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 });
	assert_int_equal(writer_load_meters(s->writer, &fresh.arena), 0);
	assert_true(ledger_meter(&fresh.arena, (struct meter_id){ 2, 1 }, fresh.now, &view));
	assert_false(ledger_meter(&fresh.arena, (struct meter_id){ 2, 2 }, fresh.now, &view));
	fixture_close(&fresh);
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

static off_t
day_file_bytes(struct store *s)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/records/2026-11-23/data.mdb", s->folder);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void
a_full_disk_is_survived(void **state)
{
	struct store *s = *state;
	struct rlimit before, tight;
	uint32_t records;

	signal(SIGXFSZ, SIG_IGN);
	open_writer(s);
	settle(s, 100);
	flush_all(s);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)day_file_bytes(s);
	settle(s, 1000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	for (int i = 0; i < 3; i++) {
		int rc = writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why));

		assert_int_equal(rc, -1);
		assert_int_equal(records, 0);
		assert_non_null(strstr(why, s->folder));
		assert_non_null(strstr(why, "make room"));
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	flush_all(s);
	assert_whole(s);
}

/* So large a ledger that its next commit needs more room than the day's. */
static void
fill_ledger(struct store *s)
{
	struct spending spending = { 0 };
	struct levels levels;

	assert_int_equal(levels_open(&levels, s->folder, ENVIRONMENT_WRITE), 0);
	for (uint32_t i = 0; i < 40000; i++) {
		struct ring_charge c = { { 2, 1000 + i }, PERIOD_MONTHLY, 0, 1, 1 };

		assert_int_equal(spending_add(&spending, &c), 0);
	}
	assert_int_equal(levels_book(&levels, &spending, NULL, 0), 0);
	levels_close(&levels);
	spending_free(&spending);
}

static void
a_ledger_that_fails_over_midnight_loses_nothing(void **state)
{
	struct store *s = *state;
	struct rlimit before, tight;
	uint32_t records;
	char ledger[128];
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	fill_ledger(s);
	open_writer(s);
	ledger_file(s, "ledger/data.mdb", ledger);
	assert_int_equal(stat(ledger, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)st.st_size;
	settle(s, 200);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), -1);
	assert_true(day_exists(s, "2026-11-23"));
	clock_at_ns += 86400 * NS_PER_S;
	settle(s, 20);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), -1);
	assert_false(day_exists(s, "2026-11-24"));	/* one batch after the other */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	flush_all(s);
	assert_true(day_exists(s, "2026-11-24"));
	close_writer(s);
	assert_int_equal(read_store(s, 0, (uint64_t)DAY_BEGIN_NS + UINT64_C(86400) * NS_PER_S, 0)->count, 200);
	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 220);
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
readers_need_a_folder_and_no_more(void **state)
{
	struct store *s = *state;
	char path[128];

	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 0);
	assert_int_equal(read_levels(s).count, 0);
	/* The keeper died when it had made the day's folder. */
	snprintf(path, sizeof(path), "%s/records", s->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/records/2026-11-23", s->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/records/2026-13-99", s->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 0);
	snprintf(path, sizeof(path), "%s/nothing", s->folder);
	assert_null(reader_open(path, why, sizeof(why)));
	assert_non_null(strstr(why, path));
}

static void
what_is_no_record_hides_no_other(void **state)
{
	struct store *s = *state;
	struct inflight *e;
	struct refusal refusal;

	open_writer(s);
	settle(s, 2);
	/* A worker that died before its draft. */
	assert_int_equal(ledger_admit(&s->f.arena, 0, NULL, 0, s->f.now, &e, &refusal), LEDGER_ADMITTED);
	inflight_record_set(e, 0);
	assert_int_equal(ledger_settle(&s->f.arena, 0, e, 0, s->f.now), SETTLED);
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
count_only(uint64_t id, const struct record *r, void *arg)
{
	uint64_t *next_id = arg;

	(void)r;
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
		clock_at_ns += 86400 * NS_PER_S;
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
		TEST(levels_are_loaded_into_a_new_arena),
		TEST(a_new_arena_goes_on_beside_the_old_records),
		TEST(a_full_map_grows),
		TEST(a_full_disk_is_survived),
		TEST(a_ledger_that_fails_over_midnight_loses_nothing),
		TEST(a_second_writer_is_told_who_is_first),
		TEST(readers_need_a_folder_and_no_more),
		TEST(what_is_no_record_hides_no_other),
		TEST(a_reader_follows_over_growth_and_midnight),
		cmocka_unit_test_setup_teardown(kill_9_of_the_keeper_loses_and_doubles_nothing, setup_small_rings, teardown),
	};

	return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
