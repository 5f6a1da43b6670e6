/*
 * The keeper as a process: it stores what comes, drains at the end, survives a
 * store that fails, makes room for meters, tells of budgets that are used up,
 * and takes new settings. The test plays the master and the
 * workers; the keeper is a forked child with its log in a file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gateway/channel.h"
#include "gateway/keeper.h"
#include "shm/metrics.h"
#include "shm/ring.h"
#include "store/records.h"
#include "tests/unit/arena_fixture.h"
#include "upstream/wire/tls.h"

#define PATIENCE_NS (20 * NS_PER_S)

struct world {
	struct fixture f;
	char folder[64];
	struct settings *settings;
	pid_t keeper;
	int control;		/* the master's end */
	int lock;		/* what a rival holds the store by; -1 */
	uint32_t made;
	int64_t spent;
};

static char why[512];

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

/* A bundle with that flush time. */
static void
bundle_make(struct world *w, int flush_ms, struct buf *bundle)
{
	struct problems problems;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/weir.json", w->folder);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "{\"data_dir\":\"%s/data\",\"run_dir\":\"%s/run\",\"ledger\":{\"flush_ms\":%d}}", w->folder, w->folder, flush_ms);
	fclose(f);
	problems_init(&problems);
	buf_init(bundle, SETTINGS_BUNDLE_BYTES_MAX);
	if (!settings_load(path, bundle, &problems))
		fail_msg("%.*s", SLICE_FMT(buf_slice(&problems.text)));
	problems_free(&problems);
}

static int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct problems problems;
	struct buf bundle;

	w->lock = -1;
	fixture_open(&w->f, (struct arena_sizes){ .workers = 2, .inflight = 64, .ring_bytes = 65536, .meters = 64 });
	w->f.now = (struct now){ clock_mono_ns(), clock_wall_ns() };
	snprintf(w->folder, sizeof(w->folder), "/tmp/weir-keeper-XXXXXX");
	if (!mkdtemp(w->folder))
		return -1;
	bundle_make(w, 10, &bundle);
	problems_init(&problems);
	w->settings = settings_compile(buf_slice(&bundle), 1, &problems);
	problems_free(&problems);
	buf_free(&bundle);
	*state = w;
	return w->settings ? 0 : -1;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	if (w->keeper > 0) {
		kill(w->keeper, SIGKILL);
		waitpid(w->keeper, NULL, 0);
	}
	settings_put(w->settings);
	fixture_close(&w->f);
	nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

/* In a child: its stderr goes to the log. */
static void
log_to_file(struct world *w)
{
	char log[128];
	int fd;

	snprintf(log, sizeof(log), "%s/log", w->folder);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(99);
}

static void
keeper_start(struct world *w)
{
	int theirs;

	assert_int_equal(channel_pair(&w->control, &theirs), 0);
	w->keeper = fork();
	if (w->keeper == 0) {
		log_to_file(w);
		close(w->control);
		if (w->lock >= 0)
			close(w->lock);
		_exit(keeper_run(&w->f.arena, w->settings, theirs));
	}
	assert_true(w->keeper > 0);
	close(theirs);
}

static int
keeper_status(struct world *w)
{
	int status;

	assert_int_equal(waitpid(w->keeper, &status, 0), w->keeper);
	w->keeper = 0;
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct inflight *
admit(struct world *w, uint32_t worker, struct charge *c, uint32_t n)
{
	const struct level nothing = { .known = false };
	struct refusal refusal;
	struct inflight *e = NULL;

	for (uint32_t tries = 0; !e && tries < 2 * CHARGES_MAX; tries++) {
		uint64_t evictions = ledger_evictions(&w->f.arena);
		enum ledger_verdict v = ledger_admit(&w->f.arena, worker, c, n, NULL, w->f.now, &e, &refusal);

		if (v == LEDGER_ADMITTED)
			break;
		e = NULL;
		assert_int_equal(v, LEDGER_UNKNOWN);
		assert_int_not_equal(ledger_load(&w->f.arena, worker, &c[refusal.charge], &nothing, evictions, w->f.now), LOAD_FULL);
	}
	assert_non_null(e);
	return e;
}

static void
settle_charge(struct world *w, uint32_t worker, struct charge *c, int64_t cost_nusd)
{
	const struct settled used = { .cost_nusd = cost_nusd };
	struct record r = { .fixed = { .status = 200, .cost_nusd = cost_nusd } };
	struct inflight *e = admit(w, worker, c, 1);

	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	assert_int_equal(ledger_settle(&w->f.arena, worker, e, &used, w->f.now), SETTLED);
	w->made++;
	w->spent += cost_nusd;
}

static void
settle(struct world *w, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct charge c = budget_charge(1, PERIOD_TOTAL, INT64_MAX, 1);

		settle_charge(w, i % 2, &c, 7 + i);
	}
}

static bool
rings_empty(struct world *w)
{
	struct ring_item item;

	for (uint32_t i = 0; i < 2; i++) {
		struct ring_cursor c = ring_begin(&w->f.arena, i);

		if (ring_next(&w->f.arena, i, &c, &item))
			return false;
	}
	return true;
}

#define WAIT_FOR(cond) \
	do { \
		int64_t until_ns = clock_mono_ns() + PATIENCE_NS; \
		while (!(cond) && clock_mono_ns() < until_ns) \
			sched_yield(); \
		assert_true(cond); \
	} while (0)

static bool
count_one(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	(void)id;
	(void)r;
	(void)charges;
	(void)n;
	++*(uint32_t *)arg;
	return true;
}

static bool
add_level(const struct stored_meter *m, void *arg)
{
	*(int64_t *)arg += m->level.spent;
	return true;
}

static void
assert_stored(struct world *w)
{
	uint32_t count = 0;
	int64_t spent = 0;
	struct reader *r = reader_open(w->settings->data_dir, why, sizeof(why));

	assert_non_null(r);
	assert_int_equal(reader_scan(r, 0, UINT64_MAX, count_one, &count), 0);
	assert_int_equal(reader_meters(r, add_level, &spent), 0);
	reader_close(r);
	assert_int_equal(count, w->made);
	assert_int_equal(spent, w->spent);
}

/* Lines of the keeper's log that contain the text. */
static uint32_t
log_lines(struct world *w, const char *text)
{
	char path[128], line[2048];
	uint32_t count = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", w->folder);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		count += strstr(line, text) != NULL;
	fclose(f);
	return count;
}

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
send_settings(struct world *w, struct slice bundle, uint64_t version)
{
	struct channel_message m = { .word = CHANNEL_RELOAD, .version = version };
	struct pollfd p = { .fd = w->control, .events = POLLIN };
	struct tls_ticket_keys keys = { .previous_valid = false };
	struct buf content;
	int fd;

	buf_init(&content, 1 << 24);
	buf_add(&content, &keys, sizeof(keys));
	buf_add_slice(&content, bundle);
	fd = channel_memfd(buf_slice(&content));
	assert_true(fd >= 0);
	assert_int_equal(channel_send(w->control, &m, fd), 0);
	close(fd);
	buf_free(&content);
	assert_int_equal(poll(&p, 1, (int)(PATIENCE_NS / NS_PER_MS)), 1);
	assert_int_equal(channel_receive(w->control, &m, &fd), 1);
	assert_int_equal(m.word, CHANNEL_RELOADED);
	assert_int_equal(m.version, version);
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
