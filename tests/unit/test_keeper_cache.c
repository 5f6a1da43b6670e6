/*
 * The keeper and the response cache: mail is found by readers at once, not with
 * the next flush; records come first; and whatever is wrong with the cache, the
 * store does not notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "shm/metrics.h"
#include "store/cache.h"
#include "tests/unit/cache_fixture.h"
#include "tests/unit/keeper_fixture.h"

#define SMALL_CACHE ",\"cache\":{\"bytes\":8388608,\"entry_bytes\":4000000}"
#define NO_CACHE ",\"cache\":{\"bytes\":0}"
#define SLOW_FLUSH_MS 10000

static void
use_settings(struct world *w, int flush_ms, const char *more)
{
	struct problems problems;
	struct buf bundle;

	bundle_make_with(w, flush_ms, more, &bundle);
	problems_init(&problems);
	settings_put(w->settings);
	w->settings = settings_compile(buf_slice(&bundle), 1, &problems);
	assert_non_null(w->settings);
	problems_free(&problems);
	buf_free(&bundle);
}

static uint64_t
counted(struct world *w, enum metrics_counter c)
{
	static struct metrics_view v;

	metrics_sum(&w->f.arena, &v);
	return v.counter[c];
}

static struct metrics_view *
gauges(struct world *w)
{
	static struct metrics_view v;

	metrics_sum(&w->f.arena, &v);
	return &v;
}

/* Entry `number`, as a worker sends it. */
static bool
mail(struct world *w, uint64_t number, uint32_t body_bytes)
{
	static char bytes[CACHE_HEAD_BYTES_MAX + (4 << 20)];
	const int64_t now = clock_wall_ns();
	const struct cache_spec s = { number, number, body_bytes, now, now + CACHE_AGE_NS };
	const uint64_t key[2] = { number, ~number };
	size_t n = cache_encode(&s, bytes);
	struct cache_entry e;

	assert_true(cache_entry_decode((struct slice){ bytes, n }, &e));
	return cache_mail_put(w->mail, key, &e, w->settings->cache.entry_bytes, &w->f.arena, 0);
}

/* Is it there, and whole? */
static bool
found(struct cache *c, uint64_t number)
{
	const uint64_t key[2] = { number, ~number };
	struct cache_entry e;

	if (!cache_get(c, key, clock_wall_ns(), &e))
		return false;
	assert_int_equal(cache_version(number, &e), number);
	cache_done(c);
	return true;
}

static struct cache *
open_reader(struct world *w)
{
	struct cache *c = cache_open_read(w->settings->data_dir);
	uint64_t secret[2];

	assert_non_null(c);
	WAIT_FOR(cache_secret(c, secret));
	return c;
}

static void
end(struct world *w, struct cache *c)
{
	cache_close(c);
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	if (w->made > 0)
		assert_stored(w);
}

/* ---- tests ---- */

static void
mail_does_not_wait_for_a_flush(void **state)
{
	struct world *w = *state;
	int64_t begin, took, worst = 0, sum = 0;
	struct cache *c;

	use_settings(w, SLOW_FLUSH_MS, "");
	keeper_start(w);
	c = open_reader(w);
	for (uint64_t i = 1; i <= 200; i++) {
		begin = clock_mono_ns();
		assert_true(mail(w, i, 10000));
		WAIT_FOR(found(c, i));
		took = clock_mono_ns() - begin;
		sum += took;
		worst = took > worst ? took : worst;
	}
	print_message("from mail to found: %.3f ms on average, %.3f ms at worst\n", (double)sum / 200 / 1e6, (double)worst / 1e6);
	assert_true(sum < (int64_t)SLOW_FLUSH_MS * NS_PER_MS / 2);
	assert_true(cache_mail_delete(w->mail, (uint64_t[2]){ 3, ~UINT64_C(3) }, &w->f.arena, 0));
	WAIT_FOR(!found(c, 3));
	assert_true(found(c, 4));
	WAIT_FOR(counted(w, COUNTER_CACHE_STORED) == 200);
	WAIT_FOR(gauges(w)->cache_entries == 199);
	assert_int_equal(gauges(w)->cache_bytes, 199 * (int64_t)cache_room_of(10000));
	end(w, c);
	assert_int_equal(cache_audit(w->settings->data_dir).entries, 199);
}

static void
the_bound_is_that_of_the_settings(void **state)
{
	struct world *w = *state;
	struct cache *c;

	use_settings(w, 10, SMALL_CACHE);
	keeper_start(w);
	c = open_reader(w);
	for (uint64_t i = 1; i <= 10; i++) {
		WAIT_FOR(mail(w, i, 2000000));
		WAIT_FOR(found(c, i));
	}
	assert_false(mail(w, 11, 4000000));
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_LARGE), 1);
	WAIT_FOR(counted(w, COUNTER_CACHE_EVICTED) == 6);
	assert_true(gauges(w)->cache_bytes <= 8388608);
	assert_false(found(c, 6));
	for (uint64_t i = 7; i <= 10; i++)
		assert_true(found(c, i));
	end(w, c);
}

/* Somebody sends as fast as he can, and records are still stored in their time. */
static void
records_come_first(void **state)
{
	struct world *w = *state;
	int64_t worst = 0;
	struct cache *c;
	pid_t flood;

	use_settings(w, 20, SMALL_CACHE);
	keeper_start(w);
	c = open_reader(w);
	flood = fork();
	if (flood == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uint64_t i = 1;; i++)
			mail(w, 1 + i % 1000, 200000);
	}
	assert_true(flood > 0);
	WAIT_FOR(counted(w, COUNTER_CACHE_STORED) > 0);
	for (int i = 0; i < 50; i++) {
		int64_t begin = clock_mono_ns();

		settle(w, 2);
		WAIT_FOR(rings_empty(w));
		worst = clock_mono_ns() - begin > worst ? clock_mono_ns() - begin : worst;
	}
	kill(flood, SIGKILL);
	waitpid(flood, NULL, 0);
	print_message("%llu entries stored meanwhile, %llu had no room in the queue; a record waited %.1f ms at worst\n",
	    (unsigned long long)counted(w, COUNTER_CACHE_STORED), (unsigned long long)counted(w, COUNTER_CACHE_REFUSED_QUEUE),
	    (double)worst / 1e6);
	assert_true(counted(w, COUNTER_CACHE_STORED) > 10);
	end(w, c);
	cache_audit(w->settings->data_dir);
}

static void
what_is_sent_before_the_end_is_kept(void **state)
{
	struct world *w = *state;
	uint64_t sent = 0;

	use_settings(w, SLOW_FLUSH_MS, "");
	keeper_start(w);
	WAIT_FOR(arena_proc(&w->f.arena, PROC_KEEPER).heartbeat_mono_ns > 0);
	cache_close(open_reader(w));
	assert_int_equal(kill(w->keeper, SIGSTOP), 0);
	while (sent < 40 && mail(w, sent + 1, 300000))
		sent++;
	assert_int_equal(kill(w->keeper, SIGTERM), 0);
	assert_int_equal(kill(w->keeper, SIGCONT), 0);
	assert_int_equal(keeper_status(w), 0);
	close(w->control);
	assert_int_equal(cache_audit(w->settings->data_dir).entries, sent);
	assert_int_equal(sent, 40);
}

static void
a_killed_keeper_leaves_its_mail_to_the_next(void **state)
{
	struct world *w = *state;
	struct cache *c;

	keeper_start(w);
	c = open_reader(w);
	for (uint64_t round = 0; round < 5; round++) {
		assert_int_equal(kill(w->keeper, SIGKILL), 0);
		assert_int_equal(waitpid(w->keeper, NULL, 0), w->keeper);
		close(w->control);
		for (uint64_t i = 1; i <= 10; i++)
			assert_true(mail(w, round * 10 + i, 3000));
		keeper_start(w);
		for (uint64_t i = 1; i <= round * 10 + 10; i++)
			WAIT_FOR(found(c, i));
	}
	end(w, c);
	assert_int_equal(cache_audit(w->settings->data_dir).entries, 50);
}

static void
what_is_no_mail_is_counted(void **state)
{
	struct world *w = *state;
	struct cache *c;
	char bytes[24] = { 1 };
	int fd;

	keeper_start(w);
	c = open_reader(w);
	assert_int_equal(send(w->mail, bytes, 5, 0), 5);
	assert_int_equal(send(w->mail, bytes, 0, 0), 0);
	assert_int_equal(send(w->mail, bytes, sizeof(bytes), 0), sizeof(bytes));	/* an entry without memory */
	fd = channel_memfd("weir-test", (const struct slice[]){ SLICE("no entry") }, 1);
	assert_int_equal(channel_send_bytes(w->mail, (struct slice){ bytes, sizeof(bytes) }, fd), 0);
	close(fd);
	assert_true(mail(w, 1, 100));
	WAIT_FOR(found(c, 1));
	WAIT_FOR(counted(w, COUNTER_CACHE_REFUSED_MALFORMED) == 4);
	end(w, c);
}

static void
reload_with(struct world *w, const char *more, uint64_t version)
{
	struct buf bundle;

	bundle_make_with(w, 10, more, &bundle);
	send_settings(w, buf_slice(&bundle), version);
	buf_free(&bundle);
}

static void
settings_turn_it_off_and_on(void **state)
{
	struct world *w = *state;
	char path[128];
	struct cache *c;

	snprintf(path, sizeof(path), "%s/cache", w->settings->data_dir);
	keeper_start(w);
	c = open_reader(w);
	assert_true(mail(w, 1, 100));
	WAIT_FOR(found(c, 1));
	reload_with(w, NO_CACHE, 2);
	WAIT_FOR(access(path, F_OK) != 0);
	WAIT_FOR(!found(c, 1));
	WAIT_FOR(gauges(w)->cache_entries == 0);
	assert_int_equal(gauges(w)->cache_bytes, 0);
	reload_with(w, SMALL_CACHE, 3);
	WAIT_FOR(access(path, F_OK) == 0);
	assert_true(mail(w, 2, 100));
	WAIT_FOR(found(c, 2));
	assert_false(found(c, 1));
	reload_with(w, NO_CACHE, 4);
	WAIT_FOR(access(path, F_OK) != 0);
	end(w, c);
}

static void
file_in(struct world *w, const char *name, bool there)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", w->settings->data_dir, name);
	if (!there) {
		assert_int_equal(unlink(path), 0);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static void
folder_in(struct world *w, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", w->settings->data_dir, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

/* Something lies where the cache should be, and does not go away. */
static void
a_cache_that_cannot_be_made_harms_nobody(void **state)
{
	struct world *w = *state;
	struct cache *c;

	settle(w, 10);
	keeper_start(w);
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	folder_in(w, "cache.old");
	file_in(w, "cache.old/not ours", true);
	file_in(w, "cache.boot", true);
	file_in(w, "cache.boot", false);
	keeper_start(w);
	WAIT_FOR(log_lines(w, "answers are not kept") == 1);
	settle(w, 10);
	WAIT_FOR(rings_empty(w));
	assert_false(arena_store_failing(&w->f.arena));
	while (mail(w, 1, 100))
		;
	WAIT_FOR(counted(w, COUNTER_CACHE_REFUSED_STORE) > 32);	/* more than a batch: it was tried again */
	settle(w, 10);
	WAIT_FOR(rings_empty(w));
	assert_false(arena_store_failing(&w->f.arena));
	assert_int_equal(log_lines(w, "answers are not kept"), 1);
	assert_int_equal(log_lines(w, "the store fails"), 0);

	file_in(w, "cache.old/not ours", false);
	c = open_reader(w);		/* once it is gone, it works by itself */
	WAIT_FOR(mail(w, 2, 100));
	WAIT_FOR(found(c, 2));
	assert_int_equal(log_lines(w, "answers are kept again"), 1);
	end(w, c);
}

static off_t
bytes_of(struct world *w, const char *name)
{
	char path[160];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", w->settings->data_dir, name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* No room for the cache's file to grow; records have theirs. */
static void
a_cache_without_room_harms_nobody(void **state)
{
	struct world *w = *state;
	struct rlimit before, tight;
	struct cache *c;

	keeper_start(w);
	c = open_reader(w);
	assert_true(mail(w, 1, 3000000));
	WAIT_FOR(found(c, 1));
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, NULL, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)bytes_of(w, "cache/data.mdb");
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, &tight, NULL), 0);
	assert_true(mail(w, 2, 3000000));
	WAIT_FOR(counted(w, COUNTER_CACHE_REFUSED_STORE) == 1);
	WAIT_FOR(log_lines(w, "answers are not kept") == 1);
	settle(w, 100);
	WAIT_FOR(rings_empty(w));
	assert_false(arena_store_failing(&w->f.arena));
	assert_int_equal(log_lines(w, "make room"), 1);
	assert_true(found(c, 1));
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, &before, NULL), 0);
	WAIT_FOR(log_lines(w, "answers are kept again") == 1);
	assert_true(mail(w, 3, 3000000));
	WAIT_FOR(found(c, 3));
	assert_true(found(c, 1));
	end(w, c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mail_does_not_wait_for_a_flush),
		TEST(the_bound_is_that_of_the_settings),
		TEST(records_come_first),
		TEST(what_is_sent_before_the_end_is_kept),
		TEST(a_killed_keeper_leaves_its_mail_to_the_next),
		TEST(what_is_no_mail_is_counted),
		TEST(settings_turn_it_off_and_on),
		TEST(a_cache_that_cannot_be_made_harms_nobody),
		TEST(a_cache_without_room_harms_nobody),
	};

	return cmocka_run_group_tests_name("keeper_cache", tests, NULL, NULL);
}
