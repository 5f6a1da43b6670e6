/*
 * What an attempt that failed says of whom: of its account, of one model there, of
 * a target with a breaker, or of nobody; for how long; and who may probe.
 */
#include "tests/unit/routing_fixture.h"

#include "gateway/answer.h"
#include "gateway/target_list.h"

#define SECOND NS_PER_S
#define ACCOUNT (100 * SECOND)	/* health.account_ms */
#define COOLDOWN (20 * SECOND)
#define PAIR(one, two) "{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[" one "," two "]}"
#define SETTINGS "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"account\":\"acme\"},{\"slug\":\"b\",\"api_key\":\"k\"},{\"slug\":\"twin\",\"api_key\":\"k\",\"account\":\"acme\"}]," \
	"\"health\":{\"failures\":2,\"failure_percent\":0,\"cooldown_ms\":20000,\"cooldown_max_ms\":20000,\"account_ms\":100000},\"configs\":[" \
	"{\"slug\":\"pair\",\"config\":" PAIR("{\"provider\":\"@a\"}", "{\"provider\":\"@b\"}") "}," \
	"{\"slug\":\"twins\",\"config\":" PAIR("{\"provider\":\"@twin\"}", "{\"passthrough\":true}") "}," \
	"{\"slug\":\"own\",\"config\":" PAIR("{\"provider\":\"@a\",\"api_key\":\"o\"}", "{\"provider\":\"@b\"}") "}," \
	"{\"slug\":\"guarded\",\"config\":" PAIR("{\"provider\":\"@a\",\"cb_config\":{\"failure_threshold\":1,\"failure_status_codes\":[404,500],\"cooldown_interval\":50000}}", "{\"provider\":\"@b\"}") "}," \
	"{\"slug\":\"one\",\"config\":{\"provider\":\"@a\"}},{\"slug\":\"one-guarded\",\"config\":{\"provider\":\"@a\",\"cb_config\":{\"failure_threshold\":1}}}]}"

static struct routing world;
static struct target_list list;

static int
open_group(void **state)
{
	return set_up(state) == 0 && target_list_init(&list) ? 0 : -1;
}

static int
close_group(void **state)
{
	target_list_free(&list);
	return tear_down(state);
}

static int
open_world(void **state)
{
	(void)state;
	routing_open(&world, SETTINGS);
	return 0;
}

static int
close_world(void **state)
{
	(void)state;
	routing_close(&world);
	return 0;
}

static struct request *
at(const char *config, uint32_t target, const char *model)
{
	struct request *r = routing_ask(&world, config, "{\"model\":\"m\"}", NULL);

	r->model_named = slice_of(model);
	routing_at(r, target, model);
	return r;
}

/* So many attempts at the first target of a config, each of which ends so. */
static void
fails(const char *config, const struct attempt_end *end, int times)
{
	for (int i = 0; i < times; i++) {
		struct request *r = at(config, 0, "m");

		if (health_enter(r))
			health_begins(r);
		health_failed(r, end);
		health_leave(r);
		routing_forget(r);
	}
}

static bool
usable(const char *config, uint32_t target, const char *model)
{
	struct request *r = routing_ask(&world, config, "{\"model\":\"m\"}", NULL);

	r->model_named = slice_of(model);
	bool may = health_usable(r, routing_target(r, target));

	routing_forget(r);
	return may;
}

/* The one target that is out is called that, for that reason, and for about so long. */
static void
is_out(const char *name, enum health_why why, int64_t for_ns)
{
	const struct health_view *out = NULL;

	target_list_read(&list, world.worker.arena, clock_mono_ns());
	for (size_t i = 0; i < list.count; i++) {
		if (list.row[i].state != HEALTH_OUT)
			continue;
		if (out)
			fail_msg("%s and %s are out", out->name, list.row[i].name);
		out = &list.row[i];
	}
	if (!name) {
		if (out)
			fail_msg("%s is out", out->name);
		return;
	}
	if (!out)
		fail_msg("%s is not out", name);
	assert_string_equal(out->name, name);
	assert_string_equal(health_why_name(out->why), health_why_name(why));
	if (out->over_in_ns > for_ns + 2 * NS_PER_MS || out->over_in_ns < for_ns - 2 * SECOND)	/* it counts in milliseconds */
		fail_msg("%s is out for %lld ms", name, (long long)(out->over_in_ns / NS_PER_MS));
}

#define ANSWERED(code, ...) { .status = (code), .answered = true, .retry_after_ms = -1, __VA_ARGS__ }
#define BROKEN(code) { .status = (code), .retry_after_ms = -1 }
#define IN_ACCOUNT "provider acme"
#define IN_MODEL "provider a, model m"

static void
a_failure_is_of_account_or_model(void **state)
{
	static const struct {
		struct attempt_end end;
		int times;
		const char *out;	/* NULL: nobody is */
		enum health_why why;
		int64_t for_ns;
	} rows[] = {
		{ ANSWERED(402), 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },
		{ ANSWERED(400, .body = { "..Your credit balance is too low..", 34 }), 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },
		{ ANSWERED(429, .body = { "enforced_spend_limit_reached", 28 }), 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },
		{ { .status = 429, .answered = true, .retry_after_ms = 1000, .body = { "contract_spend_limit_reached", 28 } }, 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },
		{ { .status = 429, .answered = true, .retry_after_ms = 1000, .body = { "{ramp_limit_exceeded}", 21 } }, 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },
		{ ANSWERED(429), 1, IN_ACCOUNT, HEALTH_MONEY, ACCOUNT },	/* the cap of a tier does not say when it ends */
		{ ANSWERED(401), 1, IN_ACCOUNT, HEALTH_CREDENTIAL, ACCOUNT },
		{ ANSWERED(403), 1, IN_MODEL, HEALTH_CREDENTIAL, ACCOUNT },
		{ { .status = 429, .answered = true, .retry_after_ms = 7000 }, 1, IN_MODEL, HEALTH_BUSY, 7 * SECOND },
		{ { .status = 429, .answered = true, .retry_after_ms = 500000 }, 1, IN_MODEL, HEALTH_BUSY, 60 * SECOND },
		{ ANSWERED(429, .in_stream = true), 1, IN_MODEL, HEALTH_BUSY, 5 * SECOND },
		{ ANSWERED(500), 1, NULL, 0, 0 }, { ANSWERED(500), 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN },
		{ ANSWERED(529, .in_stream = true), 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN }, { BROKEN(503), 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN },
		{ BROKEN(408), 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN }, { BROKEN(500), 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN },
		/* What the client has done wrong shows that it works. */
		{ ANSWERED(400), 5, NULL, 0, 0 }, { ANSWERED(404), 5, NULL, 0, 0 }, { ANSWERED(413), 5, NULL, 0, 0 },
		{ ANSWERED(500, .body = { "credit balance", 14 }), 1, NULL, 0, 0 }, { ANSWERED(404, .body = { "spend limit", 11 }), 2, NULL, 0, 0 },
		/* Where it was not asked, that says nothing; where it broke off behind its first words, it does. */
		{ { .status = 500, .retry_after_ms = -1, .final = true, .ours = true }, 3, NULL, 0, 0 },
		{ { .status = 500, .retry_after_ms = -1, .final = true }, 2, IN_MODEL, HEALTH_FAILURES, COOLDOWN },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		fails("pair", &rows[i].end, rows[i].times);
		is_out(rows[i].out, rows[i].why, rows[i].for_ns);
		assert_int_equal(usable("pair", 0, "m"), !rows[i].out);
		/* Another model of it is out with the account alone; another account never is. */
		assert_int_equal(usable("pair", 0, "other"), !rows[i].out || strcmp(rows[i].out, IN_MODEL) == 0);
		assert_true(usable("pair", 1, "m"));
		/* A provider of the same account shares what is the account's, not the failures of
		 * one place. Where the request says it, nobody knows yet. */
		assert_int_equal(usable("twins", 0, "m"), !rows[i].out || strcmp(rows[i].out, IN_MODEL) == 0);
		assert_true(usable("twins", 1, "m"));
		close_world(state);
		open_world(state);
	}
}

static void
a_success_ends_a_row_of_failures(void **state)
{
	const struct attempt_end end = ANSWERED(500);
	struct request *r;

	(void)state;
	for (int i = 0; i < 5; i++) {
		fails("pair", &end, 1);
		r = at("pair", 0, "m");
		assert_true(health_enter(r));
		health_served(r);
		health_leave(r);
		routing_forget(r);
	}
	is_out(NULL, 0, 0);
}

static void
a_breaker_decides_for_its_target_alone(void **state)
{
	const struct attempt_end good = ANSWERED(400), listed = ANSWERED(404), not_listed = ANSWERED(503), broken = BROKEN(500), money = ANSWERED(402);

	fails("guarded", &good, 5);
	fails("guarded", &not_listed, 5);	/* neither by its own rule nor by the settings' */
	is_out(NULL, 0, 0);
	fails("guarded", &listed, 1);
	is_out("config guarded config.targets[0]", HEALTH_FAILURES, 50 * SECOND);
	assert_false(usable("guarded", 0, "m"));
	assert_false(usable("guarded", 0, "other"));
	assert_true(usable("pair", 0, "m"));	/* the same account, by another way */
	close_world(state);
	open_world(state);
	fails("guarded", &broken, 1);
	is_out("config guarded config.targets[0]", HEALTH_FAILURES, 50 * SECOND);
	close_world(state);
	open_world(state);
	fails("guarded", &money, 1);	/* which all have lost */
	is_out(IN_ACCOUNT, HEALTH_MONEY, ACCOUNT);
	assert_false(usable("pair", 0, "m"));
}

static void
a_credential_of_its_own_says_nothing_of_the_account(void **state)
{
	static const struct attempt_end ends[] = { ANSWERED(401), ANSWERED(402), ANSWERED(403), ANSWERED(429), ANSWERED(500), BROKEN(503) };

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		fails("own", &ends[i], 5);
		assert_false(usable("own", 0, "m"));
		assert_true(usable("pair", 0, "m"));
		close_world(state);
		open_world(state);
	}
}

static void
who_has_no_other_way_does_not_look(void **state)
{
	const struct attempt_end money = ANSWERED(402), bad = ANSWERED(500);
	struct request *r;

	(void)state;
	fails("one", &money, 3);
	is_out(NULL, 0, 0);
	fails("pair", &money, 1);
	assert_false(usable("pair", 0, "m"));
	assert_true(usable("one", 0, "m"));
	r = at("one", 0, "m");
	assert_true(health_enter(r));
	assert_false(r->at.watched);
	routing_forget(r);
	/* But a breaker is looked at, though it stands alone. */
	assert_false(usable("one-guarded", 0, "m"));
	close_world(state);
	open_world(state);
	fails("one-guarded", &bad, 1);
	assert_false(usable("one-guarded", 0, "m"));
	assert_true(usable("one", 0, "m"));
}

static void
long_names_of_models_are_one_another(void **state)
{
	const struct attempt_end bad = ANSWERED(403);
	char name[400];
	struct request *r;

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	r = at("pair", 0, name);
	assert_true(health_enter(r));
	health_failed(r, &bad);
	health_leave(r);
	routing_forget(r);
	assert_false(usable("pair", 0, name));
	name[300] = 'y';	/* behind what is told apart */
	assert_false(usable("pair", 0, name));
	name[200] = 'y';
	assert_true(usable("pair", 0, name));
}

/* ---- probes ---- */

/* Out, and its time is over: nobody waits for real. */
static void
let_time_pass(struct health_ref *ref, int64_t ns)
{
	struct health_try t = { .worker = 0, .began_mono_ns = clock_mono_ns() - 2 * ns };

	ref->name = "test";
	health_eject(world.worker.arena, ref, &t, HEALTH_BUSY, ns, clock_mono_ns() - 2 * ns);
	ref->name = NULL;
}

static void
one_request_probes(void **state)
{
	struct health_ref *account = &world.plane->providers[0].health;
	struct request *first, *other;

	(void)state;
	let_time_pass(account, SECOND);
	assert_true(usable("pair", 0, "m"));
	first = at("pair", 0, "m");
	assert_true(health_enter(first));
	assert_false(usable("pair", 0, "m"));
	other = at("pair", 0, "m");
	assert_false(health_enter(other));
	health_leave(other);		/* which had taken nothing */
	assert_false(usable("pair", 0, "m"));
	health_leave(first);		/* it came to nothing: the next one may */
	assert_true(usable("pair", 0, "m"));
	assert_true(health_enter(other));
	health_served(other);
	health_leave(other);
	assert_int_equal(health_look(world.worker.arena, account, clock_mono_ns()), HEALTH_UP);
	routing_forget(first);
	routing_forget(other);
}

static void
a_probe_of_the_account_ends_with_any_answer(void **state)
{
	static const struct { struct attempt_end end; enum health_state then; } rows[] = {
		{ ANSWERED(500), HEALTH_UP }, { ANSWERED(404), HEALTH_UP }, { ANSWERED(403), HEALTH_UP },
		{ BROKEN(503), HEALTH_PROBE_FREE }, { ANSWERED(401), HEALTH_OUT }, { ANSWERED(402), HEALTH_OUT },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct health_ref *account = &world.plane->providers[0].health;

		let_time_pass(account, SECOND);
		fails("pair", &rows[i].end, 1);
		enum health_state now = health_look(world.worker.arena, account, clock_mono_ns());
		if (now != rows[i].then)
			fail_msg("after %d: %d", rows[i].end.status, (int)now);
		close_world(state);
		open_world(state);
	}
}

/* ---- words ---- */

static void
reasons_name_who_is_out(void **state)
{
	const struct attempt_end money = ANSWERED(402), busy = { .status = 429, .answered = true, .retry_after_ms = 30000 }, listed = ANSWERED(404);
	const struct { const char *config; const struct attempt_end *end; const char *words; long seconds; } rows[] = {
		{ "pair", NULL, NULL, 0 }, { "pair", &money, "provider acme is out (money, for ", 100 }, { "pair", &busy, "provider a, model m is out (busy, for ", 30 },
		{ "guarded", &listed, "config guarded config.targets[0] is out (failures, for ", 50 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct request *r;
		struct buf out;

		if (rows[i].end)
			fails(rows[i].config, rows[i].end, 1);
		r = at(rows[i].config, 0, "m");
		buf_init(&out, 4096);
		health_reason(r, routing_target(r, 0), &out);
		buf_add_char(&out, '\0');
		char *rest = out.p;
		if (rows[i].words) {
			assert_int_equal(strncmp(out.p, rows[i].words, strlen(rows[i].words)), 0);
			long seconds = strtol(out.p + strlen(rows[i].words), &rest, 10);
			assert_in_range(seconds, rows[i].seconds - 1, rows[i].seconds + 1);
		}
		assert_string_equal(rest, rows[i].words ? " s more)" : "");
		buf_free(&out);
		routing_forget(r);
		close_world(state);
		open_world(state);
	}
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
	const struct CMUnitTest tests[] = {
		TEST(a_failure_is_of_account_or_model), TEST(a_success_ends_a_row_of_failures), TEST(a_breaker_decides_for_its_target_alone),
		TEST(a_credential_of_its_own_says_nothing_of_the_account), TEST(who_has_no_other_way_does_not_look),
		TEST(long_names_of_models_are_one_another), TEST(one_request_probes), TEST(a_probe_of_the_account_ends_with_any_answer),
		TEST(reasons_name_who_is_out),
	};

	return cmocka_run_group_tests(tests, open_group, close_group);
}
