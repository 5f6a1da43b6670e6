/*
 * weir limits, limits reset, explain and top, as a shell runs them, against a
 * real arena and a real store. The test is the worker, the keeper and the
 * master of that weir; time is the machine's, because the tools' is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <termios.h>

#include <cjson/cJSON.h>

#include "gateway/commands.h"
#include "gateway/tool_arena.h"
#include "shm/base/clock.h"
#include "shm/health.h"
#include "shm/metrics.h"
#include "store/records.h"
#include "tests/unit/tool_fixture.h"

#define PATIENCE_NS (20 * NS_PER_S)
#define MODEL_NUSD 1000000

static char run_dir[96], arena_path[112], why[512];
static struct arena arena;
static struct writer *writer;

static void
arena_start(void)
{
	struct arena_sizes sizes = { .workers = 2, .inflight = 8, .ring_bytes = 1 << 20, .meters = 256 };
	enum arena_origin origin;

	if (arena_open(&arena, arena_path, &sizes, &origin, why, sizeof(why)) != 0)
		fail_msg("%s", why);
	arena_proc_start(&arena, 0, getpid());
	arena_proc_start(&arena, PROC_KEEPER, getpid());
	arena_proc_start(&arena, PROC_MASTER, getpid());
}

static void
arena_stop(void)
{
	arena_proc_stop(&arena, PROC_MASTER);
	arena_close(&arena);
}

static void
writer_again(void)
{
	writer = writer_open(data, why, sizeof(why));
	if (!writer)
		fail_msg("%s", why);
}

static void
weir_start(void)
{
	arena_start();
	writer_again();
}

static void
weir_stop(void)
{
	arena_stop();
	writer_close(writer);
	writer = NULL;
}

static int
open_weir(void **state)
{
	if (setup(state) != 0)
		return -1;
	snprintf(run_dir, sizeof(run_dir), "%s/run", folder);
	snprintf(arena_path, sizeof(arena_path), "%s/arena", run_dir);
	if (mkdir(run_dir, 0700) != 0)
		return -1;
	weir_start();
	return 0;
}

static int
close_weir(void **state)
{
	if (writer)
		weir_stop();
	return teardown(state);
}

#define LIMITS(...) run(cmd_limits, (const char *const[]){ "limits", __VA_ARGS__, "--run-dir", run_dir, NULL })
#define RESET(...) run(cmd_limits, (const char *const[]){ "limits", "reset", __VA_ARGS__, "--run-dir", run_dir, NULL })
#define EXPLAIN(...) run(cmd_explain, (const char *const[]){ "explain", __VA_ARGS__, "--run-dir", run_dir, NULL })
#define TOP(...) run(cmd_top, (const char *const[]){ "top", __VA_ARGS__, "--run-dir", run_dir, NULL })
#define KEY(...) run(cmd_key, (const char *const[]){ "key", __VA_ARGS__, NULL })

/* ---- requests ---- */

static struct charge
budget(uint64_t id, int64_t limit, const char *name)
{
	return (struct charge){ .id = { 7, id }, .kind = METER_BUDGET, .unit = UNIT_NUSD, .period = PERIOD_MONTHLY, .row = UINT32_MAX,
		.limit = limit, .fixed = MODEL_NUSD, .name = name };
}

static struct charge
bucket(uint64_t id, int64_t limit, const char *name)
{
	return (struct charge){ .id = { 8, id }, .kind = METER_BUCKET, .unit = UNIT_REQUESTS, .row = UINT32_MAX, .limit = limit,
		.window_ns = INT64_C(86400) * NS_PER_S, .fixed = 1, .name = name };
}

/* As a worker does it. The writer is closed meanwhile: a process must not open an
 * environment twice, and LMDB 0.9.31 ends the first one's locks with the second. */
static struct inflight *
admit(struct charge *c, uint32_t n)
{
	writer_close(writer);

	struct reader *reader = reader_open(data, why, sizeof(why));
	struct refusal refusal;
	struct inflight *e = NULL;
	struct level level;

	assert_non_null(reader);
	for (uint32_t tries = 0; tries <= 2 * n && !e; tries++) {
		enum ledger_verdict verdict = ledger_admit(&arena, 0, c, n, NULL, tool_now(), &e, &refusal);
		uint64_t evictions = ledger_evictions(&arena);

		assert_true(verdict == LEDGER_ADMITTED || verdict == LEDGER_UNKNOWN);
		if (verdict == LEDGER_ADMITTED)
			break;
		assert_int_equal(reader_level(reader, c[refusal.charge].id, &level), 0);
		assert_int_equal(ledger_load(&arena, 0, &c[refusal.charge], &level, evictions, tool_now()), LOAD_DONE);
	}
	reader_close(reader);
	writer_again();
	assert_non_null(e);
	return e;
}

static void
store(void)
{
	uint32_t records = 1;

	while (records > 0)
		if (writer_flush(writer, &arena, &records, why, sizeof(why)) != 0)
			fail_msg("%s", why);
}

static void
settle(struct inflight *e, struct record *r, int64_t cost_nusd)
{
	const struct settled used = { .cost_nusd = cost_nusd, .tokens = 12 };

	r->fixed.start_wall_ns = clock_wall_ns();
	r->fixed.cost_nusd = cost_nusd;
	inflight_record_set(e, record_encode(r, inflight_record(e), RECORD_BYTES_MAX));
	assert_int_equal(ledger_settle(&arena, 0, e, &used, tool_now()), SETTLED);
}

static void
spend(struct charge c, int64_t cost_nusd)
{
	struct record r = { .fixed = { .status = 200 }, .request_id = SLICE("req_spend") };

	c.fixed = cost_nusd;
	settle(admit(&c, 1), &r, cost_nusd);
}

/* ---- what was printed ---- */

static cJSON *
parsed(void)
{
	cJSON *json = cJSON_Parse(out);

	if (!json)
		fail_msg("not JSON: %s", out);
	return json;
}

static int64_t
number(const cJSON *object, const char *name)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(object, name);

	if (!cJSON_IsNumber(n))
		fail_msg("no number %s in %s", name, out);
	return (int64_t)n->valuedouble;
}

static const char *
text(const cJSON *object, const char *name)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));

	if (!s)
		fail_msg("no text %s in %s", name, out);
	return s;
}

static void
expect(const char *words)
{
	if (!strstr(out, words))
		fail_msg("no \"%s\" in:\n%s", words, out);
}

static void
expect_mistake(const char *words)
{
	if (!strstr(err, words))
		fail_msg("no \"%s\" in:\n%s", words, err);
}

/* ---- limits ---- */

static void
limits_show_levels_fullest_first(void **state)
{
	struct charge held = budget(1, 10 * MODEL_NUSD, "key eng/ci cost");
	cJSON *json, *m;

	(void)state;
	spend(budget(2, 100 * MODEL_NUSD, "key eng/idle cost"), MODEL_NUSD);
	spend(budget(1, 10 * MODEL_NUSD, "key eng/ci cost"), 3 * MODEL_NUSD);
	(void)admit(&held, 1);
	assert_int_equal(LIMITS("--json"), 0);
	json = parsed();
	assert_int_equal(cJSON_GetArraySize(json), 2);
	m = cJSON_GetArrayItem(json, 0);
	assert_string_equal(text(m, "name"), "key eng/ci cost");
	assert_string_equal(text(m, "id"), "00000000000000070000000000000001");
	assert_string_equal(text(m, "mode"), "clamp");
	assert_string_equal(text(m, "source"), "arena");
	assert_non_null(strstr(text(m, "resets"), "-01T00:00:00Z"));
	assert_int_equal(number(m, "spent"), 3 * MODEL_NUSD);
	assert_int_equal(number(m, "held"), MODEL_NUSD);
	assert_int_equal(number(m, "limit"), 10 * MODEL_NUSD);
	assert_int_equal(number(m, "left"), 6 * MODEL_NUSD);
	assert_int_equal(number(m, "used_permille"), 400);
	cJSON_Delete(json);

	assert_int_equal(LIMITS("--rows", "1"), 0);
	assert_int_equal(lines(out), 2);
	expect("key eng/ci cost");
	expect("$0.003");
	expect(" 40% ");
	assert_int_equal(LIMITS("--where", "name=*idle*", "--where", "kind=budget", "--where", "unit=nusd", "--json"), 0);
	json = parsed();
	assert_int_equal(cJSON_GetArraySize(json), 1);
	cJSON_Delete(json);
	assert_int_equal(LIMITS("--where", "id=00000000000000070000000000000009", "--json"), 0);
	assert_string_equal(out, "[]\n");
}

static void
what_is_idle_is_read_from_the_store(void **state)
{
	cJSON *json, *m;

	(void)state;
	spend(budget(1, 10 * MODEL_NUSD, "key eng/ci cost"), 3 * MODEL_NUSD);
	store();
	assert_int_equal(LIMITS("--json"), 0);
	json = parsed();
	assert_int_equal(cJSON_GetArraySize(json), 1);	/* not once from each place */
	cJSON_Delete(json);

	/* Stopped: the same level, and it says from where. */
	weir_stop();
	assert_int_equal(LIMITS("--json"), 0);
	json = parsed();
	m = cJSON_GetArrayItem(json, 0);
	assert_string_equal(text(m, "source"), "store");
	assert_string_equal(text(m, "name"), "key eng/ci cost");
	assert_int_equal(number(m, "spent"), 3 * MODEL_NUSD);
	assert_true(cJSON_IsNull(cJSON_GetObjectItem(m, "limit")));
	cJSON_Delete(json);
	assert_int_equal(LIMITS("--rows", "9"), 0);
	expect("Levels are those of the store: no weir is running");

	/* A new arena, which has not met the meter yet. */
	assert_int_equal(unlink(arena_path), 0);
	weir_start();
	assert_int_equal(LIMITS("--json"), 0);
	json = parsed();
	assert_string_equal(text(cJSON_GetArrayItem(json, 0), "source"), "store");
	cJSON_Delete(json);
}

static void
a_key_shows_its_limits_unused_too(void **state)
{
	cJSON *json;

	(void)state;
	spend(budget(1, 10 * MODEL_NUSD, "key other cost"), MODEL_NUSD);
	assert_int_equal(KEY("create", "--slug", "ci", "--workspace", "eng", "--rpm", "60", "--budget", "12.5"), 0);
	assert_int_equal(LIMITS("--key", "eng/ci", "--json"), 0);
	json = parsed();
	assert_int_equal(cJSON_GetArraySize(json), 2);
	for (int i = 0; i < 2; i++) {
		const cJSON *m = cJSON_GetArrayItem(json, i);
		bool is_budget = strcmp(text(m, "kind"), "budget") == 0;

		assert_string_equal(text(m, "source"), "none");
		assert_int_equal(number(m, "spent"), 0);
		assert_int_equal(number(m, "left"), is_budget ? INT64_C(12500000000) : 60);
	}
	cJSON_Delete(json);
	assert_int_equal(LIMITS("--key", "eng/nobody"), 1);
	expect_mistake("eng/nobody");
}

static void
mistakes_are_one_line_and_status_2(void **state)
{
	static const char *const where[] = { "", "x=1", "name", "kind=x", "unit=usd", "id=12", "kind=" };

	(void)state;
	for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++) {
		assert_int_equal(LIMITS("--where", where[i]), 2);
		expect_mistake("--where");
	}
	assert_int_equal(LIMITS("--rows", "0"), 2);
	assert_int_equal(LIMITS("extra"), 2);
	assert_int_equal(LIMITS("--run-dir", "/tmp"), 2);	/* given twice */
	assert_int_equal(RESET("--yes"), 2);
	assert_int_equal(EXPLAIN("--json"), 2);
	assert_int_equal(EXPLAIN(""), 2);
	assert_int_equal(TOP("--interval", "0"), 2);
	assert_int_equal(TOP("--interval", "1s"), 2);
	expect_mistake("\"1s\"");
	assert_int_equal(TOP("--interval", "3601"), 2);
	assert_int_equal(TOP("--rows", "-1"), 2);
	assert_int_equal(TOP("x"), 2);
}

/* ---- reset ---- */

/* The keeper of a test: stores what comes until the tool has ended. */
static int
reset_with_keeper(const char *which)
{
	const char *const words[] = { "limits", "reset", which, "--yes", "--run-dir", run_dir, NULL };
	pid_t pid = start(cmd_limits, -1, -1, words);
	int64_t until = clock_mono_ns() + PATIENCE_NS;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		assert_true(clock_mono_ns() < until);
		store();
		sched_yield();
	}
	read_file(out_path, out, sizeof(out));
	read_file(err_path, err, sizeof(err));
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct meter_view
meter(uint64_t id)
{
	struct meter_view v;

	assert_true(ledger_meter(&arena, (struct meter_id){ 7, id }, tool_now(), &v));
	return v;
}

static bool
note_reset(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	char *metadata = arg;

	(void)id;
	(void)charges;
	(void)n;
	if (slice_eq(r->route_name, SLICE("limit_reset")))
		snprintf(metadata, 256, "%.*s", SLICE_FMT(r->metadata));
	return true;
}

static void
a_reset_takes_effect_and_is_recorded(void **state)
{
	struct charge held = budget(1, 10 * MODEL_NUSD, "key eng/ci cost");
	struct reader *r;
	char metadata[256] = "";

	(void)state;
	spend(held, 8 * MODEL_NUSD);
	(void)admit(&held, 1);
	assert_int_equal(reset_with_keeper("key eng/ci cost"), 0);
	expect("before  $0.008 used, $0.001 held of $0.01\n");
	expect("after   $0.00 used, $0.001 held of $0.01\n");
	assert_int_equal(meter(1).spent, 0);
	assert_int_equal(meter(1).held, MODEL_NUSD);
	r = reader_open(data, why, sizeof(why));
	assert_non_null(r);
	assert_int_equal(reader_scan(r, 0, UINT64_MAX, note_reset, metadata), 0);
	reader_close(r);
	assert_non_null(strstr(metadata, "\"meter\":\"key eng/ci cost\""));
	assert_non_null(strstr(metadata, "\"by\":\""));

	/* A meter that this arena has not met: after a restart of the machine. */
	spend(budget(2, 10 * MODEL_NUSD, "key eng/idle cost"), 5 * MODEL_NUSD);
	store();
	weir_stop();
	assert_int_equal(unlink(arena_path), 0);
	weir_start();
	assert_int_equal(reset_with_keeper("00000000000000070000000000000002"), 0);
	expect("before  $0.005 used");
	expect("after   $0.00 used");
	assert_int_equal(meter(2).spent, 0);
	assert_string_equal(meter(2).name, "key eng/idle cost");
}

static void
a_reset_that_cannot_be_says_why(void **state)
{
	struct charge running = { .id = { 9, 1 }, .kind = METER_CONCURRENCY, .unit = UNIT_REQUESTS, .row = UINT32_MAX, .limit = 4, .fixed = 1,
		.name = "key eng/ci concurrency" };
	char lock[128];
	int fd;

	(void)state;
	store();
	spend(budget(1, 10 * MODEL_NUSD, "twice"), MODEL_NUSD);
	spend(budget(2, 10 * MODEL_NUSD, "twice"), MODEL_NUSD);
	(void)admit(&running, 1);
	assert_int_equal(RESET("twice", "--yes"), 1);
	expect_mistake("2 meters are called \"twice\"");
	assert_int_equal(RESET("00000000000000070000000000000003", "--yes"), 1);
	expect_mistake("there is no meter");
	assert_int_equal(RESET("key eng/ci concurrency", "--yes"), 1);
	expect_mistake("goes down as they end");
	snprintf(lock, sizeof(lock), "%s/tools.lock", run_dir);
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(RESET("twice", "--yes"), 1);
	expect_mistake("another tool");
	close(fd);
	weir_stop();
	assert_int_equal(RESET("twice", "--yes"), 1);
	expect_mistake("no weir is running");
}

static void
nobody_is_taken_by_surprise(void **state)
{
	int silent = open("/dev/null", O_RDONLY | O_CLOEXEC), was = dup(STDIN_FILENO);

	(void)state;
	store();
	spend(budget(1, 10 * MODEL_NUSD, "key eng/ci cost"), MODEL_NUSD);
	assert_true(silent >= 0 && dup2(silent, STDIN_FILENO) == STDIN_FILENO);
	assert_int_equal(RESET("key eng/ci cost"), 2);
	assert_int_equal(dup2(was, STDIN_FILENO), STDIN_FILENO);
	close(was);
	close(silent);
	expect_mistake("--yes");
	assert_int_equal(meter(1).spent, MODEL_NUSD);
}

/* ---- explain ---- */

static void
explain_tells_what_was_charged(void **state)
{
	struct charge c[2] = { budget(1, 100 * MODEL_NUSD, "key eng/ci cost"), bucket(1, 60, "key eng/ci rpd") };
	struct record r = { .fixed = { .status = 200, .attempts = 1, .flags = RECORD_FLAG(CLAMPED) | RECORD_FLAG(WAITED), .asked_tokens = 128000,
		.granted_tokens = 4096, .wait_ns = 12 * NS_PER_MS, .held_nusd = 4 * MODEL_NUSD, .tokens = { 7, 5 } },
		.request_id = SLICE("req_1"), .provider_request_id = SLICE("req_theirs"), .key = SLICE("ci"), .workspace = SLICE("eng"),
		.route_name = SLICE("messages"), .model = SLICE("m\033]"), .provider = SLICE("main") };
	cJSON *json, *charge;

	(void)state;
	c[0].fixed = 4 * MODEL_NUSD;
	settle(admit(c, 2), &r, MODEL_NUSD);
	for (int i = 0; i < 20; i++)
		spend(budget(2, 100 * MODEL_NUSD, "other"), 1);
	store();
	assert_int_equal(EXPLAIN("req_1"), 0);
	expect("request   req_1 at ");
	expect("key ci of workspace eng");
	expect("lowered from 128000 to 4096");
	expect("waited    12ms");
	expect("$0.001 of $0.004 that were held");
	expect("key eng/ci rpd");
	assert_null(strchr(out, '\033'));
	assert_int_equal(EXPLAIN("req_theirs", "--json"), 0);
	json = parsed();
	assert_string_equal(text(cJSON_GetObjectItem(json, "record"), "request_id"), "req_1");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "charges")), 2);
	charge = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "charges"), 0);
	assert_string_equal(text(charge, "name"), "key eng/ci cost");
	assert_string_equal(text(charge, "unit"), "nusd");
	assert_int_equal(number(charge, "held"), 4 * MODEL_NUSD);
	assert_int_equal(number(charge, "settled"), MODEL_NUSD);
	cJSON_Delete(json);

	/* Without the arena the names come from the store. */
	weir_stop();
	assert_int_equal(EXPLAIN("req_1"), 0);
	expect("key eng/ci cost");
	assert_int_equal(EXPLAIN("req_2"), 1);
	expect_mistake("there is no record of \"req_2\"");
}

static void
explain_tells_who_refused(void **state)
{
	struct record r = { .fixed = { .status = 429, .outcome = OUTCOME_REFUSED }, .request_id = SLICE("req_no"), .limit = SLICE("key rpm"),
		.error_type = SLICE("rate_limit_error"), .error_message = SLICE("60 requests a minute") };

	(void)state;
	settle(admit(NULL, 0), &r, 0);
	store();
	assert_int_equal(EXPLAIN("req_no"), 0);
	expect("refused, status 429");
	expect("by the limit \"key rpm\"");
	expect("60 requests a minute");
	expect("charged on no limit");
	assert_null(strstr(out, "cost"));
}

/* ---- top ---- */

static void
top_shows_rates_and_processes(void **state)
{
	const char *const words[] = { "top", "--json", "--interval", "0.05", "--run-dir", run_dir, NULL };
	int64_t tokens[METRICS_TOKEN_CLASSES] = { 100 }, until = clock_mono_ns() + PATIENCE_NS;
	bool seen = false;
	pid_t pid;

	(void)state;
	spend(budget(1, 10 * MODEL_NUSD, "key eng/ci cost"), 9 * MODEL_NUSD);
	pid = start(cmd_top, -1, -1, words);
	while (!seen && clock_mono_ns() < until) {
		metrics_request(&arena, 0, 1, 1, 200);
		metrics_tokens(&arena, 0, 1, tokens, MODEL_NUSD);
		metrics_add(&arena, 0, COUNTER_REFUSED_RATE, 1);
		sched_yield();
		if (access(out_path, F_OK) != 0)
			continue;
		read_file(out_path, out, sizeof(out));
		seen = lines(out) >= 3;
	}
	assert_int_equal(kill(pid, SIGINT), 0);
	assert_int_equal(end(pid), 0);
	assert_true(seen);
	char *line = strchr(out, '\n') + 1;
	*strchr(line, '\n') = '\0';
	cJSON *json = cJSON_Parse(line);
	assert_non_null(json);
	assert_true(number(json, "requests_per_second") > 0);
	assert_true(number(json, "spend_nusd_per_minute") > 0);
	assert_true(number(cJSON_GetObjectItem(json, "tokens_per_minute"), "input") > 0);
	assert_true(number(cJSON_GetObjectItem(json, "refused_per_second"), "rate_limit") > 0);
	assert_int_equal(number(cJSON_GetObjectItem(json, "refused_per_second"), "budget"), 0);
	assert_int_equal(number(json, "waiting"), 0);
	assert_int_equal(number(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "fullest"), 0), "used_permille"), 900);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "processes")), 3);
	assert_string_equal(text(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "processes"), 0), "name"), "worker-0");
	cJSON_Delete(json);
}

static void
top_once_is_for_people_too(void **state)
{
	(void)state;
	spend(budget(1, 10 * MODEL_NUSD, "key eng/ci cost"), 9 * MODEL_NUSD);
	metrics_waiting(&arena, 0, 3);
	arena_store_failing_set(&arena, true);
	assert_int_equal(TOP("--once", "--interval", "0.01"), 0);
	assert_null(strchr(out, '\033'));
	expect("store FAILING");
	expect("waiting 3");
	expect("worker-0");
	expect("keeper");
	expect(" 90% key eng/ci cost");
	assert_int_equal(TOP("--once", "--interval", "0.01", "--rows", "0"), 0);
	assert_null(strstr(out, "key eng/ci"));
	weir_stop();
	assert_int_equal(TOP("--once", "--interval", "0.01"), 1);
	expect_mistake("no weir is running");
	assert_int_equal(unlink(arena_path), 0);
	assert_int_equal(TOP("--once", "--interval", "0.01"), 1);
	expect_mistake(arena_path);
}

/* As workers tell of them. */
static void
eject(uint64_t number, const char *name, enum health_why reason, int64_t for_ns, int64_t ago_ns)
{
	struct health_ref ref = { .id = { 9, number }, .name = name, .row = HEALTH_NO_ROW };
	struct health_try t = { .worker = 0 };

	health_eject(&arena, &ref, &t, reason, for_ns, clock_mono_ns() - ago_ns);
}

static void
top_shows_targets_that_are_out(void **state)
{
	const struct health_rule rule = { .failures = 2, .cooldown_ns = NS_PER_S, .cooldown_max_ns = NS_PER_S };
	struct health_ref ref = { .id = { 9, 1 }, .name = "provider well", .row = HEALTH_NO_ROW };
	struct health_try t = { .worker = 0 };

	(void)state;
	health_failure(&arena, &ref, &rule, &t, clock_mono_ns());
	assert_int_equal(TOP("--once", "--interval", "0.01"), 0);
	assert_null(strstr(out, "TARGET"));
	eject(2, "provider anthropic", HEALTH_CREDENTIAL, 5 * 3600 * NS_PER_S, 3 * NS_PER_S);
	eject(3, "config eng \033[2J config.targets[1]", HEALTH_BUSY, NS_PER_MS, 3 * NS_PER_S);
	eject(4, "", HEALTH_MONEY, 3600 * NS_PER_S, 0);
	assert_int_equal(TOP("--once", "--interval", "0.01"), 0);
	expect("TARGET THAT IS OUT");
	expect("provider anthropic                                  credential ");
	expect("s  in 4h59m\n");
	expect("config eng ?[2J config.targets[1]                   busy       ");
	expect("s  with the next request\n");
	expect("00000000000000090000000000000004                    money");
	assert_null(strstr(out, "provider well"));
	assert_int_equal(TOP("--once", "--interval", "0.01", "--json"), 0);
	cJSON *json = cJSON_Parse(out), *targets = cJSON_GetObjectItem(json, "targets_out"), *first = cJSON_GetArrayItem(targets, 2);
	assert_int_equal(cJSON_GetArraySize(targets), 3);
	assert_string_equal(text(first, "name"), "provider anthropic");
	assert_string_equal(text(first, "state"), "out");
	assert_string_equal(text(first, "reason"), "credential");
	assert_in_range((int64_t)number(first, "out_ms"), 3000, 3000 + 20000);
	assert_in_range((int64_t)number(first, "over_in_ms"), 18000000 - 3000 - 20000, 18000000 - 3000);
	assert_int_equal(number(first, "ejections"), 1);
	assert_string_equal(text(cJSON_GetArrayItem(targets, 1), "state"), "may_be_tried");
	cJSON_Delete(json);
	for (uint64_t i = 0; i < 25; i++) {
		char name[16];

		snprintf(name, sizeof(name), "account %02d", (int)i);
		eject(100 + i, name, HEALTH_BUSY, 3600 * NS_PER_S, 0);
	}
	assert_int_equal(TOP("--once", "--interval", "0.01"), 0);
	expect("account 18");
	assert_null(strstr(out, "account 19"));
	expect("and 8 more\n");
}

/* Reads the terminal until the words are there. */
static bool
terminal_says(int fd, const char *words)
{
	static char seen[65536];
	size_t n = 0;

	for (int64_t until = clock_mono_ns() + PATIENCE_NS; clock_mono_ns() < until && n < sizeof(seen) - 1;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t got = poll(&p, 1, 100) > 0 ? read(fd, seen + n, sizeof(seen) - 1 - n) : 0;

		if (got < 0)
			return false;
		n += (size_t)got;
		seen[n] = '\0';
		if (strstr(seen, words))
			return true;
	}
	return false;
}

static pid_t
start_on_terminal(int terminal)
{
	const char *const words[] = { "top", "--interval", "0.02", "--run-dir", run_dir, NULL };
	int was = dup(STDIN_FILENO);
	pid_t pid;

	assert_int_equal(dup2(terminal, STDIN_FILENO), STDIN_FILENO);
	pid = start(cmd_top, terminal, -1, words);
	assert_int_equal(dup2(was, STDIN_FILENO), STDIN_FILENO);
	close(was);
	return pid;
}

static void
top_gives_the_terminal_back(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	struct termios before, after;

	(void)state;
	assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	assert_int_equal(tcgetattr(slave, &before), 0);
	for (int i = 0; i < 2; i++) {
		pid_t pid = start_on_terminal(slave);

		assert_true(terminal_says(master, "\033[?1049h"));
		assert_true(terminal_says(master, "worker-0"));
		assert_true(terminal_says(master, "\033[H"));	/* and it draws again */
		if (i == 0)
			assert_int_equal(write(master, "q", 1), 1);
		else
			assert_int_equal(kill(pid, SIGTERM), 0);
		assert_true(terminal_says(master, "\033[?1049l"));
		assert_int_equal(end(pid), 0);
		assert_int_equal(tcgetattr(slave, &after), 0);
		assert_int_equal(before.c_lflag, after.c_lflag);
	}
	close(slave);
	close(master);
}

/* Started anew with another arena: the view goes on with that. */
static void
top_follows_a_restart(void **state)
{
	const char *const words[] = { "top", "--interval", "0.02", "--run-dir", run_dir, NULL };
	/* The arena's lock is not the child's: it would keep us from starting again. */
	pid_t pid = start(cmd_top, -1, arena.lock_fd, words);
	bool stopped = false, gone = false, back = false;

	(void)state;
	for (int64_t until = clock_mono_ns() + PATIENCE_NS; !back && clock_mono_ns() < until; sched_yield()) {
		if (access(out_path, F_OK) != 0)
			continue;
		read_file(out_path, out, sizeof(out));
		if (!stopped && strstr(out, "worker-0")) {
			arena_stop();
			assert_int_equal(unlink(arena_path), 0);
			stopped = true;
		}
		if (!gone && strstr(out, "weir is not running")) {
			gone = true;
			arena_start();
			metrics_waiting(&arena, 0, 77);
		}
		back = gone && strstr(out, "waiting 77");
	}
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(end(pid), 0);
	assert_true(back);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_weir, close_weir)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(limits_show_levels_fullest_first),
		TEST(what_is_idle_is_read_from_the_store),
		TEST(a_key_shows_its_limits_unused_too),
		TEST(mistakes_are_one_line_and_status_2),
		TEST(a_reset_takes_effect_and_is_recorded),
		TEST(a_reset_that_cannot_be_says_why),
		TEST(nobody_is_taken_by_surprise),
		TEST(explain_tells_what_was_charged),
		TEST(explain_tells_who_refused),
		TEST(top_shows_rates_and_processes),
		TEST(top_once_is_for_people_too),
		TEST(top_shows_targets_that_are_out),
		TEST(top_gives_the_terminal_back),
		TEST(top_follows_a_restart),
	};

	return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
