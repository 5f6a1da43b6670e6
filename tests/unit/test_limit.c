/*
 * Limits, from their JSON to charges: what each one becomes, the names and ids
 * of their meters, and for every kind of mistake the very line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "policy/json.h"
#include "policy/limit.h"

#define MINUTE INT64_C(60000000000)
#define DAY INT64_C(86400000000000)

static const struct limit_owner owner = { .kind = "key", .id = { "key_1", 5 }, .shown = { "eng/ci", 6 } };

static struct limit out[LIMITS_MAX];
static uint32_t count;
static struct problems problems;

static bool
parse(const char *rates, const char *usages, const struct limit_owner *of, const char *path)
{
	struct json_error why;

	problems_free(&problems);
	problems_init(&problems);
	if (rates && !json_check(slice_of(rates), &why))
		fail_msg("%s: %s", rates, why.what);
	if (usages && !json_check(slice_of(usages), &why))
		fail_msg("%s: %s", usages, why.what);
	return limits_parse(slice_of(rates), slice_of(usages), of, path, out, &count, &problems);
}

static const struct limit *
accept(const char *rates, const char *usages)
{
	if (!parse(rates, usages, &owner, ""))
		fail_msg("%s %s: %.*s", rates ? rates : "", usages ? usages : "", SLICE_FMT(buf_slice(&problems.text)));
	assert_int_equal(problems.count, 0);
	for (uint32_t i = 0; i < count; i++)
		assert_ptr_equal(out[i].charge.name, out[i].name);
	return out;
}

static void
refuse(const char *rates, const char *usages, const char *lines)
{
	if (parse(rates, usages, &owner, ""))
		fail_msg("taken: %s %s", rates ? rates : "", usages ? usages : "");
	if (!slice_eq(buf_slice(&problems.text), slice_of(lines)))
		fail_msg("%s %s:\n%.*sbut expected:\n%s", rates ? rates : "", usages ? usages : "",
		    SLICE_FMT(buf_slice(&problems.text)), lines);
}

static bool
same(struct meter_id a, struct meter_id b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

static int
free_problems(void **state)
{
	(void)state;
	problems_free(&problems);
	return 0;
}

/* ---- what they become ---- */

static void
no_limits_are_no_limits(void **state)
{
	(void)state;
	accept(NULL, NULL);
	assert_int_equal(count, 0);
	accept("null", "null");
	assert_int_equal(count, 0);
	accept("[]", "[]");
	assert_int_equal(count, 0);
}

static void
rates_become_buckets(void **state)
{
	static const struct { const char *unit; int64_t window_ns; } windows[] = {
		{ "rpm", MINUTE }, { "rph", 60 * MINUTE }, { "rpd", DAY }, { "rpw", 7 * DAY },
	};
	char json[128], name[64];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		snprintf(json, sizeof(json), "[{\"type\":\"requests\",\"unit\":\"%s\",\"value\":60}]", windows[i].unit);
		const struct limit *l = accept(json, NULL);
		assert_int_equal(count, 1);
		assert_int_equal(l->charge.kind, METER_BUCKET);
		assert_int_equal(l->charge.unit, UNIT_REQUESTS);
		assert_int_equal(l->charge.mode, MODE_STRICT);
		assert_int_equal(l->charge.limit, 60);
		assert_int_equal(l->charge.window_ns, windows[i].window_ns);
		snprintf(name, sizeof(name), "key eng/ci %s", windows[i].unit);
		assert_string_equal(l->name, name);
		snprintf(name, sizeof(name), "key %s", windows[i].unit);
		assert_string_equal(l->label, name);
		snprintf(name, sizeof(name), "requests:%s", windows[i].unit);
		assert_true(same(l->charge.id, meter_id_of("key", SLICE("key_1"), name)));
	}
	const struct limit *l = accept("{\"type\":\"tokens\",\"unit\":\"rpd\",\"value\":1e6,\"mode\":\"strict\"}", NULL);
	assert_int_equal(l->charge.unit, UNIT_TOKENS);
	assert_int_equal(l->charge.mode, MODE_STRICT);
	assert_int_equal(l->charge.limit, 1000000);
	assert_string_equal(l->name, "key eng/ci tokens rpd");
	assert_string_equal(l->label, "key tokens rpd");
	assert_true(same(l->charge.id, meter_id_of("key", SLICE("key_1"), "tokens:rpd")));
	l = accept("[{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":5}]", NULL);
	assert_int_equal(l->charge.mode, MODE_CLAMP);
	l = accept("[{\"type\":\"concurrency\",\"value\":5}]", NULL);
	assert_int_equal(l->charge.kind, METER_CONCURRENCY);
	assert_string_equal(l->name, "key eng/ci concurrency");
	assert_string_equal(l->label, "key concurrency");
	assert_true(same(l->charge.id, meter_id_of("key", SLICE("key_1"), "concurrency")));
	/* 0 admits nothing, and is said on purpose. */
	assert_int_equal(accept("[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":0}]", NULL)->charge.limit, 0);
	assert_int_equal(accept("[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1000000000000}]", NULL)->charge.limit, LIMIT_VALUE_MAX);
}

static void
budgets_have_units_and_periods(void **state)
{
	static const struct {
		const char *json, *name, *label, *what;
		enum meter_unit unit;
		enum meter_period period;
		enum charge_mode mode;
		uint16_t days, anchor;
		int64_t limit, alert;
	} rows[] = {
		{ "{\"credit_limit\":12.5}", "key eng/ci cost", "key total budget", "cost", UNIT_NUSD, PERIOD_TOTAL, MODE_CLAMP,
		    0, 0, INT64_C(12500000000), 0 },
		{ "{\"type\":\"cost\",\"credit_limit\":\"9007199.254740993\",\"periodic_reset\":\"monthly\",\"alert_threshold\":10}",
		    "key eng/ci cost", "key monthly budget", "cost", UNIT_NUSD, PERIOD_MONTHLY, MODE_CLAMP, 0, 0,
		    INT64_C(9007199254740993), INT64_C(10000000000) },
		{ "{\"type\":\"cost\",\"credit_limit\":1,\"periodic_reset\":\"daily\",\"mode\":\"postpaid\"}", "key eng/ci cost",
		    "key daily budget", "cost", UNIT_NUSD, PERIOD_DAILY, MODE_POSTPAID, 0, 0, 1000000000, 0 },
		{ "{\"type\":\"cost\",\"credit_limit\":1e9,\"periodic_reset\":\"weekly\",\"mode\":\"strict\"}", "key eng/ci cost",
		    "key weekly budget", "cost", UNIT_NUSD, PERIOD_WEEKLY, MODE_STRICT, 0, 0, LIMIT_NUSD_MAX, 0 },
		{ "{\"type\":\"tokens\",\"credit_limit\":20000,\"periodic_reset\":\"daily\",\"alert_threshold\":19999}",
		    "key eng/ci tokens", "key daily token budget", "tokens", UNIT_TOKENS, PERIOD_DAILY, MODE_CLAMP, 0, 0, 20000, 19999 },
		{ "{\"type\":\"requests\",\"credit_limit\":1,\"periodic_reset\":null,\"alert_threshold\":null,\"mode\":null}",
		    "key eng/ci requests", "key total request budget", "requests", UNIT_REQUESTS, PERIOD_TOTAL, MODE_STRICT, 0, 0, 1, 0 },
		{ "{\"type\":\"cost\",\"credit_limit\":1,\"periodic_reset_days\":30}", "key eng/ci cost", "key 30-day budget", "cost",
		    UNIT_NUSD, PERIOD_DAYS, MODE_CLAMP, 30, 0, 1000000000, 0 },
		/* 2026-12-01 is day 20788 since 1970: 28 behind a multiple of 30. */
		{ "{\"type\":\"cost\",\"credit_limit\":1,\"periodic_reset_days\":30,\"next_usage_reset_at\":\"2026-12-01T23:59:59Z\"}",
		    "key eng/ci cost", "key 30-day budget", "cost", UNIT_NUSD, PERIOD_DAYS, MODE_CLAMP, 30, 28, 1000000000, 0 },
		{ "{\"type\":\"tokens\",\"credit_limit\":1,\"periodic_reset_days\":365,\"next_usage_reset_at\":\"1970-01-01T00:00:00Z\"}",
		    "key eng/ci tokens", "key 365-day token budget", "tokens", UNIT_TOKENS, PERIOD_DAYS, MODE_CLAMP, 365, 0, 1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const struct limit *l = accept(NULL, rows[i].json);

		assert_int_equal(count, 1);
		assert_int_equal(l->charge.kind, METER_BUDGET);
		assert_int_equal(l->charge.unit, rows[i].unit);
		assert_int_equal(l->charge.period, rows[i].period);
		assert_int_equal(l->charge.mode, rows[i].mode);
		assert_int_equal(l->charge.days, rows[i].days);
		assert_int_equal(l->charge.anchor, rows[i].anchor);
		assert_int_equal(l->charge.limit, rows[i].limit);
		assert_int_equal(l->charge.alert, rows[i].alert);
		assert_string_equal(l->name, rows[i].name);
		assert_string_equal(l->label, rows[i].label);
		assert_true(same(l->charge.id, meter_id_of("key", SLICE("key_1"), rows[i].what)));
		assert_int_equal(limit_charge_is_cost(&l->charge), rows[i].unit == UNIT_NUSD);
		assert_int_equal(limit_charge_is_cost(&l[0].charge), rows[i].unit == UNIT_NUSD);
	}
}

static void
a_reset_that_was_asked_for_comes_on_that_day(void **state)
{
	const struct limit *l = accept(NULL,
	    "{\"credit_limit\":1,\"periodic_reset_days\":45,\"next_usage_reset_at\":\"2026-12-24T12:00:00+02:00\"}");
	const int64_t christmas_eve = INT64_C(1798070400) * 1000000000;
	const struct period p = { l->charge.period, l->charge.days, l->charge.anchor };

	(void)state;
	assert_int_equal(period_end_ns(p, christmas_eve - 1), christmas_eve);
	assert_int_equal(period_end_ns(p, christmas_eve), christmas_eve + 45 * DAY);
}

static void
several_of_a_kind_have_meters_of_their_own(void **state)
{
	static const char usages[] = "[{\"credit_limit\":1,\"periodic_reset\":\"daily\"},"
	    "{\"credit_limit\":5,\"periodic_reset\":\"weekly\"},"
	    "{\"credit_limit\":9,\"periodic_reset\":\"monthly\",\"id\":\"month\"},"
	    "{\"type\":\"tokens\",\"credit_limit\":9},{\"credit_limit\":20}]";
	static const char *const whats[] = { "requests:rpm", "cost", "cost:1", "cost:=month", "tokens", "cost:2" };
	const struct limit *l = accept("{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1}", usages);

	(void)state;
	assert_int_equal(count, 6);
	for (uint32_t i = 0; i < count; i++)
		assert_true(same(l[i].charge.id, meter_id_of("key", SLICE("key_1"), whats[i])));
	assert_string_equal(l[2].name, "key eng/ci cost 2");
	assert_string_equal(l[2].label, "key weekly budget 2");
	assert_string_equal(l[3].name, "key eng/ci cost (month)");
	assert_string_equal(l[3].label, "key monthly budget (month)");
	assert_string_equal(l[5].name, "key eng/ci cost 3");
	/* The value and the period are no part of the id: what was spent stays. */
	struct meter_id before = l[1].charge.id;
	assert_true(same(before, accept(NULL, "{\"credit_limit\":700,\"periodic_reset\":\"monthly\"}")->charge.id));
	/* An id keeps its meter wherever it stands in the list. */
	before = meter_id_of("key", SLICE("key_1"), "cost:=month");
	assert_true(same(before, accept(NULL, "{\"credit_limit\":9,\"id\":\"month\"}")->charge.id));
}

static void
meters_have_ids_of_their_own(void **state)
{
	struct meter_id a = meter_id_of("key", SLICE("k1"), "rpm"), b = meter_id_of("key", SLICE("k1"), "rpd"),
	    c = meter_id_of("key", SLICE("k"), "1rpm"), d = meter_id_of("keyk", SLICE("1"), "rpm"),
	    again = meter_id_of("key", SLICE("k1"), "rpm");

	(void)state;
	assert_true(same(a, again));
	assert_false(same(a, b) || same(a, c) || same(a, d) || same(b, c) || same(b, d) || same(c, d));
	/* Never to change: levels are stored by it. SHA-256("key\0k1\0rpm"). */
	assert_int_equal(a.hi, UINT64_C(0x5013e395f1054424));
	assert_int_equal(a.lo, UINT64_C(0xd176d14ada7c2420));
}

static void
names_fit_whoever_it_is(void **state)
{
	char long_name[200], label[LIMIT_LABEL_BYTES];
	struct limit_owner of = { .kind = "workspace", .id = SLICE("w"), .shown = { long_name, sizeof(long_name) } };

	(void)state;
	/* Two bytes a character: never cut in the middle of one. */
	for (size_t i = 0; i < sizeof(long_name); i += 2)
		memcpy(long_name + i, "\xc3\xa4", 2);
	for (size_t n = 80; n <= sizeof(long_name); n += 2) {
		of.shown.n = n;
		assert_true(parse(NULL, "{\"type\":\"tokens\",\"credit_limit\":1,\"periodic_reset_days\":365,\"id\":\"0123456789\"}", &of, ""));
		assert_in_range(strlen(out[0].name), 80, METER_NAME_BYTES - 1);
		assert_non_null(strstr(out[0].name, " tokens (0123456789)"));
		const char *dots = strstr(out[0].name, "...");
		assert_int_equal(dots != NULL, n > METER_NAME_BYTES - 1 - strlen("workspace  tokens (0123456789)"));
		if (dots)
			assert_int_equal((unsigned char)dots[-1], 0xa4);
	}
	of.shown = SLICE("a\033[2Jb\nc");
	assert_true(parse("{\"type\":\"concurrency\",\"value\":1}", NULL, &of, ""));
	assert_string_equal(out[0].name, "workspace a?[2Jb?c concurrency");
	/* A label is cut at its end. */
	assert_true(parse(NULL, "{\"type\":\"requests\",\"credit_limit\":1,\"periodic_reset_days\":365,\"id\":"
	    "\"0123456789012345678901234567890123456789012345678901234567890123\"}", &of, ""));
	memcpy(label, "workspace 365-day request budget (01234567890123456789012345678", sizeof(label));
	assert_memory_equal(out[0].label, label, sizeof(label) - 1);
	assert_int_equal(strlen(out[0].label), LIMIT_LABEL_BYTES - 1);
}

static void
moved_limits_point_into_themselves(void **state)
{
	struct limit copies[2];

	(void)state;
	accept("[{\"type\":\"concurrency\",\"value\":1},{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1}]", NULL);
	limits_copy(copies, out, 2);
	memset(out, 0, sizeof(out));
	assert_ptr_equal(copies[1].charge.name, copies[1].name);
	assert_string_equal(copies[1].charge.name, "key eng/ci tokens rpm");
	assert_false(limit_charge_is_cost(&copies[0].charge) || limit_charge_is_cost(&copies[1].charge));
}

static void
charges_are_filled_by_their_unit(void **state)
{
	static const char rates[] = "[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1},{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1},"
	    "{\"type\":\"concurrency\",\"value\":1}]";
	static const char usages[] = "[{\"type\":\"requests\",\"credit_limit\":1},{\"type\":\"tokens\",\"credit_limit\":1},{\"credit_limit\":1}]";
	static const struct { int64_t fixed, slope; } expected[] = { { 1, 0 }, { 70, 1000 }, { 1, 0 }, { 1, 0 }, { 70, 1000 }, { 800, 9 } };

	(void)state;
	accept(rates, usages);
	for (uint32_t i = 0; i < 6; i++) {
		limit_charge_fill(&out[i].charge, 1, 70, 800, 9);
		assert_int_equal(out[i].charge.fixed, expected[i].fixed);
		assert_int_equal(out[i].charge.slope_milli, expected[i].slope);
	}
}

static void
periods_have_names(void **state)
{
	static const char *const names[] = { "total", "daily", "weekly", "monthly", "days" };

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		assert_string_equal(limit_period_name(i), names[i]);
}

/* ---- mistakes ---- */

#define VALUE_WORDS "must be a whole number from 0 (nothing is admitted) to 1000000000000, not "
#define TOKENS_WORDS "must be a whole number of tokens from 1 to 1000000000000, not "
#define USD_WORDS "must be dollars such as 25 or 0.5: more than 0, at most 1000000000, with at most nine decimals, not "
#define RATE(members) "[{\"type\":\"requests\",\"unit\":\"rpm\"," members "}]"
#define COST(members) "[{\"type\":\"cost\"," members "}]"

static void
mistakes_in_rates(void **state)
{
	(void)state;
	refuse("7", NULL, "rate_limits: must be a list of limits, each an object with a \"type\"\n");
	refuse("[7]", NULL, "rate_limits[0]: must be an object with a \"type\"\n");
	refuse("[{}]", NULL, "rate_limits[0]: needs \"type\": \"requests\", \"tokens\" or \"concurrency\"\nrate_limits[0]: needs \"value\"\n");
	refuse("{}", NULL, "rate_limits: needs \"type\": \"requests\", \"tokens\" or \"concurrency\"\nrate_limits: needs \"value\"\n");
	refuse(RATE("\"value\":-1"), NULL, "rate_limits[0].value: " VALUE_WORDS "-1\n");
	refuse(RATE("\"value\":1.5"), NULL, "rate_limits[0].value: " VALUE_WORDS "1.5\n");
	refuse(RATE("\"value\":1000000000001"), NULL, "rate_limits[0].value: " VALUE_WORDS "1000000000001\n");
	refuse(RATE("\"value\":1e300"), NULL, "rate_limits[0].value: " VALUE_WORDS "1e300\n");
	refuse(RATE("\"value\":\"60\""), NULL, "rate_limits[0].value: " VALUE_WORDS "\"60\"\n");
	refuse(RATE("\"value\":[1]"), NULL, "rate_limits[0].value: " VALUE_WORDS "[1]\n");
	refuse(RATE("\"value\":true"), NULL, "rate_limits[0].value: " VALUE_WORDS "true\n");
	refuse(RATE("\"value\":1,\"valeu\":1"), NULL, "rate_limits[0].valeu: unknown field; did you mean \"value\"?\n");
	refuse(RATE("\"value\":1,\"burst\":1"), NULL, "rate_limits[0].burst: unknown field\n");
	refuse(RATE("\"value\":1,\"value\":2"), NULL, "rate_limits[0].value: given twice\n");
	refuse(RATE("\"value\":1,\"mode\":\"clamp\""), NULL,
	    "rate_limits[0].mode: goes with tokens and cost only: a request is one, and cannot be made smaller\n");
	refuse(RATE("\"value\":1,\"credit_limit\":1"), NULL,
	    "rate_limits[0].credit_limit: is of usage limits; a rate limit has \"unit\" and \"value\"\n");
	refuse(RATE("\"value\":1,\"id\":\"a b\""), NULL, "rate_limits[0].id: must be 1 to 64 of A-Z a-z 0-9 . _ -, not \"a b\"\n");
	refuse(RATE("\"value\":1,\"id\":\"\""), NULL, "rate_limits[0].id: must be 1 to 64 of A-Z a-z 0-9 . _ -, not \"\"\n");
	refuse(RATE("\"value\":1,\"id\":3"), NULL, "rate_limits[0].id: must be 1 to 64 of A-Z a-z 0-9 . _ -, not 3\n");
	refuse("[{\"type\":\"requests\",\"unit\":\"rps\",\"value\":1}]", NULL, "rate_limits[0].unit: must be \"rpm\", \"rph\", \"rpd\" or "
	    "\"rpw\" (a minute, hour, day, week; for tokens too), not \"rps\"\n");
	refuse("[{\"type\":\"tokens\",\"unit\":\"tpm\",\"value\":1}]", NULL, "rate_limits[0].unit: must be \"rpm\", \"rph\", \"rpd\" or "
	    "\"rpw\" (a minute, hour, day, week; for tokens too), not \"tpm\"\n");
	refuse("[{\"type\":\"tokens\",\"value\":1}]", NULL, "rate_limits[0]: needs \"unit\": \"rpm\", \"rph\", \"rpd\" or \"rpw\"\n");
	refuse("[{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1,\"mode\":\"soft\"}]", NULL,
	    "rate_limits[0].mode: must be \"clamp\", \"strict\" or \"postpaid\", not \"soft\"\n");
	refuse("[{\"type\":\"concurrency\",\"unit\":\"rpm\",\"value\":1}]", NULL,
	    "rate_limits[0].unit: does not go with concurrency, which counts requests in flight\n");
	refuse("[{\"type\":\"cost\",\"value\":1}]", NULL,
	    "rate_limits[0].type: must be \"requests\", \"tokens\" or \"concurrency\", not \"cost\"\n");
	refuse("[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1,\"id\":\"x\"},{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1,\"id\":\"x\"},"
	    "{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":2,\"id\":\"x\"}]", NULL,
	    "rate_limits[2].id: is the id of another limit of the same type and unit\n");
}

static void
mistakes_in_budgets(void **state)
{
	(void)state;
	refuse(NULL, "true", "usage_limits: must be a list of limits, each an object with a \"type\"\n");
	refuse(NULL, "{}", "usage_limits: needs \"credit_limit\": dollars\n");
	refuse(NULL, "[{\"type\":\"tokens\"}]", "usage_limits[0]: needs \"credit_limit\"\n");
	refuse(NULL, COST("\"credit_limit\":null"), "usage_limits[0]: needs \"credit_limit\": dollars\n");
	refuse(NULL, COST("\"credit_limit\":0"), "usage_limits[0].credit_limit: " USD_WORDS "0\n");
	refuse(NULL, COST("\"credit_limit\":-5"), "usage_limits[0].credit_limit: " USD_WORDS "-5\n");
	refuse(NULL, COST("\"credit_limit\":1e10"), "usage_limits[0].credit_limit: " USD_WORDS "1e10\n");
	refuse(NULL, COST("\"credit_limit\":0.0000000001"), "usage_limits[0].credit_limit: " USD_WORDS "0.0000000001\n");
	refuse(NULL, COST("\"credit_limit\":\"$5\""), "usage_limits[0].credit_limit: " USD_WORDS "\"$5\"\n");
	refuse(NULL, COST("\"credit_limit\":\"\""), "usage_limits[0].credit_limit: " USD_WORDS "\"\"\n");
	refuse(NULL, "[{\"type\":\"tokens\",\"credit_limit\":0.5}]", "usage_limits[0].credit_limit: " TOKENS_WORDS "0.5\n");
	refuse(NULL, "[{\"type\":\"tokens\",\"credit_limit\":\"5\"}]", "usage_limits[0].credit_limit: " TOKENS_WORDS "\"5\"\n");
	refuse(NULL, "[{\"type\":\"requests\",\"credit_limit\":0}]",
	    "usage_limits[0].credit_limit: must be a whole number of requests from 1 to 1000000000000, not 0\n");
	refuse(NULL, "[{\"type\":\"usd\",\"credit_limit\":1}]", "usage_limits[0].type: must be \"cost\", \"tokens\" or \"requests\", not \"usd\"\n");
	refuse(NULL, COST("\"credit_limit\":5,\"alert_threshold\":5"),
	    "usage_limits[0].alert_threshold: must be less than the credit_limit, 5, not 5\n");
	refuse(NULL, COST("\"credit_limit\":5,\"alert_threshold\":6.5"),
	    "usage_limits[0].alert_threshold: must be less than the credit_limit, 5, not 6.5\n");
	refuse(NULL, COST("\"credit_limit\":5,\"alert_threshold\":0"), "usage_limits[0].alert_threshold: " USD_WORDS "0\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset\":\"yearly\""), "usage_limits[0].periodic_reset: must be \"daily\", "
	    "\"weekly\", \"monthly\", or null (never); periodic_reset_days is for others, not \"yearly\"\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset\":\"monthly\",\"periodic_reset_days\":30"),
	    "usage_limits[0].periodic_reset_days: does not go with periodic_reset: give one of the two\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset_days\":0"),
	    "usage_limits[0].periodic_reset_days: must be a whole number of days from 1 to 365, not 0\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset_days\":366"),
	    "usage_limits[0].periodic_reset_days: must be a whole number of days from 1 to 365, not 366\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset_days\":1.5"),
	    "usage_limits[0].periodic_reset_days: must be a whole number of days from 1 to 365, not 1.5\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset_days\":7,\"next_usage_reset_at\":\"tomorrow\""),
	    "usage_limits[0].next_usage_reset_at: must be a time such as \"2026-12-01T00:00:00Z\", not \"tomorrow\"\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset_days\":7,\"next_usage_reset_at\":5"),
	    "usage_limits[0].next_usage_reset_at: must be a time such as \"2026-12-01T00:00:00Z\", not 5\n");
	refuse(NULL, COST("\"credit_limit\":5,\"periodic_reset\":\"weekly\",\"next_usage_reset_at\":\"2026-12-01T00:00:00Z\""),
	    "usage_limits[0].next_usage_reset_at: goes with periodic_reset_days only: the others reset at 00:00 UTC, every day, on "
	    "Mondays, or on the 1st\n");
	refuse(NULL, COST("\"value\":5"), "usage_limits[0].value: is of rate limits; a usage limit has \"credit_limit\" and a period\n"
	    "usage_limits[0]: needs \"credit_limit\": dollars\n");
	refuse(NULL, COST("\"credit_limit_nusd\":5"),
	    "usage_limits[0].credit_limit_nusd: unknown field; did you mean \"credit_limit\"?\nusage_limits[0]: needs \"credit_limit\": dollars\n");
	refuse(NULL, "[{\"type\":\"requests\",\"credit_limit\":5,\"mode\":\"strict\"}]",
	    "usage_limits[0].mode: goes with tokens and cost only: a request is one, and cannot be made smaller\n");
}

static void
every_mistake_is_told_with_its_place(void **state)
{
	(void)state;
	assert_false(parse(RATE("\"value\":-1,\"x\\u001by\":1"), COST("\"credit_limit\":0,\"mode\":1"), &owner, "providers[1].model_limits[2]"));
	assert_true(slice_eq(buf_slice(&problems.text), SLICE(
	    "providers[1].model_limits[2].rate_limits[0].x\\u001by: unknown field\n"
	    "providers[1].model_limits[2].rate_limits[0].value: " VALUE_WORDS "-1\n"
	    "providers[1].model_limits[2].usage_limits[0].mode: must be \"clamp\", \"strict\" or \"postpaid\", not 1\n"
	    "providers[1].model_limits[2].usage_limits[0].credit_limit: " USD_WORDS "0\n")));
}

static void
there_are_at_most_eight(void **state)
{
	static const char nine[] = "[{\"credit_limit\":1},{\"credit_limit\":1},{\"credit_limit\":1},{\"credit_limit\":1},{\"credit_limit\":1},"
	    "{\"credit_limit\":1},{\"credit_limit\":1},{\"credit_limit\":1},{\"credit_limit\":1}]";
	char eight[sizeof(nine)];

	(void)state;
	refuse(NULL, nine, "usage_limits[8]: is one more than the 8 limits, of both kinds together, that fit\n");
	snprintf(eight, sizeof(eight), "[%s", nine + sizeof("{\"credit_limit\":1},"));
	accept(NULL, eight);
	assert_int_equal(count, LIMITS_MAX);
	refuse("{\"type\":\"concurrency\",\"value\":1}", eight, "usage_limits[7]: is one more than the 8 limits, of both kinds together, that fit\n");
	refuse("[{\"type\":\"concurrency\",\"value\":1},{\"type\":\"concurrency\",\"value\":1},{\"type\":\"concurrency\",\"value\":1},"
	    "{\"type\":\"concurrency\",\"value\":1},{\"type\":\"concurrency\",\"value\":1},{\"type\":\"concurrency\",\"value\":1},"
	    "{\"type\":\"concurrency\",\"value\":1},{\"type\":\"concurrency\",\"value\":1}]", "{\"credit_limit\":1}",
	    "usage_limits: is one more than the 8 limits, of both kinds together, that fit\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_limits_are_no_limits),
		cmocka_unit_test(rates_become_buckets),
		cmocka_unit_test(budgets_have_units_and_periods),
		cmocka_unit_test(a_reset_that_was_asked_for_comes_on_that_day),
		cmocka_unit_test(several_of_a_kind_have_meters_of_their_own),
		cmocka_unit_test(meters_have_ids_of_their_own),
		cmocka_unit_test(names_fit_whoever_it_is),
		cmocka_unit_test(moved_limits_point_into_themselves),
		cmocka_unit_test(charges_are_filled_by_their_unit),
		cmocka_unit_test(periods_have_names),
		cmocka_unit_test(mistakes_in_rates),
		cmocka_unit_test(mistakes_in_budgets),
		cmocka_unit_test(every_mistake_is_told_with_its_place),
		cmocka_unit_test(there_are_at_most_eight),
	};

	return cmocka_run_group_tests_name("limit", tests, NULL, free_problems);
}
