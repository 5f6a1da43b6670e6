/*
 * The keeper as a process: it stores what comes, drains at the end, survives a
 * store that fails, makes room for meters, tells of budgets that are used up,
 * and takes new settings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/file.h>
#include <sys/resource.h>

#include "shm/metrics.h"
#include "tests/unit/keeper_fixture.h"

/* ---- tests ---- */

static void
records_are_stored_while_it_runs(void **state)
{
	struct world *w = *state;

	keeper_start(w);
	for (int i = 0; i < 3; i++) {
		settle(w, 20);
		WAIT_FOR(rings_empty(w));
	}
	WAIT_FOR(arena_proc(&w->f.arena, PROC_KEEPER).heartbeat_mono_ns > 0);
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_stored(w);
}

static void
sigterm_drains_first(void **state)
{
	struct world *w = *state;

	settle(w, 100);
	keeper_start(w);
	WAIT_FOR(rings_empty(w));	/* it is up: the signal is blocked */
	settle(w, 100);
	assert_int_equal(kill(w->keeper, SIGTERM), 0);
	assert_int_equal(keeper_status(w), 0);
	close(w->control);
	assert_true(rings_empty(w));
	assert_stored(w);
}

static void
a_lost_master_drains_too(void **state)
{
	struct world *w = *state;

	settle(w, 100);
	keeper_start(w);
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_stored(w);
}

static void
a_killed_keeper_is_followed_by_another(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 5; i++) {
		keeper_start(w);
		settle(w, 50);
		assert_int_equal(kill(w->keeper, SIGKILL), 0);
		assert_int_equal(waitpid(w->keeper, NULL, 0), w->keeper);
		close(w->control);
	}
	keeper_start(w);
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_stored(w);
}

static void
a_store_that_fails_is_tried_again_and_told_once(void **state)
{
	struct world *w = *state;
	char path[128];

	/* Somebody else has the store: as good a failure as a full disk. */
	assert_int_equal(mkdir(w->settings->data_dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/writer.lock", w->settings->data_dir);
	w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(w->lock >= 0);
	assert_int_equal(flock(w->lock, LOCK_EX), 0);
	settle(w, 10);
	keeper_start(w);
	WAIT_FOR(log_lines(w, "the store fails") == 1);
	assert_true(arena_store_failing(&w->f.arena));
	int64_t beat = arena_proc(&w->f.arena, PROC_KEEPER).heartbeat_mono_ns;
	WAIT_FOR(arena_proc(&w->f.arena, PROC_KEEPER).heartbeat_mono_ns > beat);
	assert_false(rings_empty(w));
	close(w->lock);
	WAIT_FOR(rings_empty(w));
	WAIT_FOR(!arena_store_failing(&w->f.arena));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_int_equal(log_lines(w, "the store fails"), 1);
	assert_int_equal(log_lines(w, "the store works again"), 1);
	assert_stored(w);
}

static off_t largest_file;

static int
note_size(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)path;
	(void)at;
	if (kind == FTW_F && st->st_size > largest_file)
		largest_file = st->st_size;
	return 0;
}

/* No file may grow: as a disk without room. */
static void
a_full_disk_stops_admission_until_there_is_room(void **state)
{
	struct world *w = *state;
	struct rlimit before, tight;

	keeper_start(w);
	settle(w, 20);
	WAIT_FOR(rings_empty(w));
	assert_false(arena_store_failing(&w->f.arena));
	largest_file = 0;
	assert_int_equal(nftw(w->settings->data_dir, note_size, 16, FTW_PHYS), 0);
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, NULL, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)largest_file;
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, &tight, NULL), 0);
	for (int i = 0; i < 3; i++) {
		/* Those in flight end, and wait in memory. */
		settle(w, 80);
		WAIT_FOR(arena_store_failing(&w->f.arena));
		assert_false(rings_empty(w));
	}
	assert_int_equal(log_lines(w, "make room on that disk"), 1);
	assert_int_equal(prlimit(w->keeper, RLIMIT_FSIZE, &before, NULL), 0);
	WAIT_FOR(!arena_store_failing(&w->f.arena));
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_int_equal(log_lines(w, "the store works again"), 1);
	assert_stored(w);
}

static uint64_t
counter(struct world *w, enum metrics_counter c)
{
	struct metrics_view *view = malloc(sizeof(*view));
	uint64_t n;

	assert_non_null(view);
	metrics_sum(&w->f.arena, view);
	n = view->counter[c];
	free(view);
	return n;
}

static void
budgets_that_are_used_up_are_told_once(void **state)
{
	struct world *w = *state;
	struct charge c = budget_charge(9, PERIOD_MONTHLY, 1000, 1);

	c.unit = UNIT_NUSD;
	c.alert = 600;
	c.name = "key eng/ci cost";
	keeper_start(w);
	settle_charge(w, 0, &c, 599);
	WAIT_FOR(rings_empty(w));
	settle_charge(w, 0, &c, 1);
	WAIT_FOR(log_lines(w, "key eng/ci cost (monthly) has passed its alert level of $0.0000006: $0.0000006 of $0.000001") == 1);
	assert_int_equal(log_lines(w, "used up"), 0);
	settle_charge(w, 0, &c, 450);
	WAIT_FOR(log_lines(w, "key eng/ci cost (monthly) is used up: $0.00000105 of $0.000001") == 1);
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	/* Another keeper has nothing new to tell. */
	keeper_start(w);
	settle(w, 5);
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_int_equal(log_lines(w, "limit: "), 2);
	assert_int_equal(counter(w, COUNTER_ALERTS_THRESHOLD), 1);
	assert_int_equal(counter(w, COUNTER_ALERTS_EXHAUSTED), 1);
	assert_stored(w);
}

static void
idle_meters_make_room(void **state)
{
	struct world *w = *state;
	struct charge busy = budget_charge(99, PERIOD_TOTAL, INT64_MAX, 1);
	struct inflight *e = admit(w, 0, &busy, 1);
	struct meter_view view;

	keeper_start(w);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 57; i++) {
			struct charge c = budget_charge(1000 + i + 100 * (uint64_t)round, PERIOD_TOTAL, INT64_MAX, 1);

			WAIT_FOR(ledger_meters_used(&w->f.arena) < 64);
			settle_charge(w, 0, &c, 3);
		}
		WAIT_FOR(ledger_meters_used(&w->f.arena) <= 48);
	}
	assert_true(ledger_meter(&w->f.arena, busy.id, w->f.now, &view));
	assert_int_equal(view.held, 1);
	assert_true(counter(w, COUNTER_EVICTED) >= 3 * 57 + 1 - 64);
	assert_int_equal(ledger_cancel(&w->f.arena, 0, e, false, w->f.now), SETTLED);
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_int_equal(log_lines(w, "ledger.meters"), 0);
	assert_stored(w);	/* the levels of all, also of those that are out */
}

static void
a_table_that_stays_full_is_told(void **state)
{
	struct world *w = *state;
	struct charge c[3][20];

	for (uint32_t i = 0; i < 3; i++) {
		for (uint32_t j = 0; j < 20; j++)
			c[i][j] = budget_charge(100 * i + j + 1, PERIOD_TOTAL, INT64_MAX, 1);
		admit(w, 0, c[i], 20);
	}
	keeper_start(w);
	WAIT_FOR(log_lines(w, "60 of 64 rows for limits are taken and in use: raise ledger.meters") == 1);
	assert_int_equal(ledger_meters_used(&w->f.arena), 60);
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
}

static void
new_settings_are_taken(void **state)
{
	struct world *w = *state;
	struct buf bundle;

	keeper_start(w);
	bundle_make(w, 1000, &bundle);
	send_settings(w, buf_slice(&bundle), 2);
	buf_free(&bundle);
	/* A thousand ms between flushes: records wait, and wait no longer than that. */
	settle(w, 5);
	WAIT_FOR(rings_empty(w));
	send_settings(w, SLICE("{\"nonsense\":1}"), 3);
	assert_int_equal(log_lines(w, "the old settings stay"), 1);
	settle(w, 5);
	WAIT_FOR(rings_empty(w));
	close(w->control);
	assert_int_equal(keeper_status(w), 0);
	assert_stored(w);
}

/* ---- at the start ---- */

static int
recover(struct world *w, struct arena *a)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		log_to_file(w);
		_exit(keeper_recover(a, w->settings->data_dir));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
recovery_drains(void **state)
{
	struct world *w = *state;

	settle(w, 100);
	assert_int_equal(recover(w, &w->f.arena), 0);
	assert_true(rings_empty(w));
	assert_stored(w);
}

static void
recovery_says_what_is_in_its_way(void **state)
{
	struct world *w = *state;
	FILE *f = fopen(w->settings->data_dir, "w");

	assert_non_null(f);
	fclose(f);
	assert_int_equal(recover(w, &w->f.arena), 2);
	assert_int_equal(log_lines(w, "not a folder"), 1);
	assert_int_equal(unlink(w->settings->data_dir), 0);
	assert_int_equal(recover(w, &w->f.arena), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(records_are_stored_while_it_runs),
		TEST(sigterm_drains_first),
		TEST(a_lost_master_drains_too),
		TEST(a_killed_keeper_is_followed_by_another),
		TEST(a_store_that_fails_is_tried_again_and_told_once),
		TEST(a_full_disk_stops_admission_until_there_is_room),
		TEST(budgets_that_are_used_up_are_told_once),
		TEST(idle_meters_make_room),
		TEST(a_table_that_stays_full_is_told),
		TEST(new_settings_are_taken),
		TEST(recovery_drains),
		TEST(recovery_says_what_is_in_its_way),
	};

	return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
