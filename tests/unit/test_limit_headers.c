/*
 * What an answer says of limits, from meters of a real ledger: the tightest of
 * each unit, when it is whole again, and the same after a refusal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "arena_fixture.h"
#include "gateway/limit_headers.h"
#include "gateway/reply.h"

#define MINUTE_NS (60 * NS_PER_S)

static const struct arena_sizes sizes = { .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 };
static struct fixture f;
static uint32_t hints[CHARGES_MAX];

static void
add(struct limit_set *set, enum meter_kind kind, enum meter_unit unit, int64_t limit, int64_t window_ns, int64_t fixed)
{
	static const struct limit limit_of_nobody = { .label = "key" };
	uint32_t i = set->count++;

	set->charge[i] = (struct charge){
		.id = { 1, i + 1 }, .kind = kind, .unit = unit, .period = PERIOD_DAILY, .mode = MODE_STRICT, .row = UINT32_MAX,
		.limit = limit, .window_ns = window_ns, .fixed = fixed, .name = "meter",
	};
	set->origin[i] = (struct limit_origin){ .limit = &limit_of_nobody, .row = &hints[i] };
}

static enum ledger_verdict
admit(struct limit_set *set)
{
	struct inflight *page;
	struct refusal why;
	enum ledger_verdict v = LEDGER_UNKNOWN;

	for (uint32_t round = 0; round <= set->count && v == LEDGER_UNKNOWN; round++) {
		v = ledger_admit(&f.arena, 0, set->charge, set->count, NULL, f.now, &page, &why);
		if (v == LEDGER_UNKNOWN)
			assert_int_equal(ledger_load(&f.arena, 0, &set->charge[why.charge], &(struct level){ .known = false },
			    ledger_evictions(&f.arena), f.now), LOAD_DONE);
	}
	return v;
}

static const char *
lines_of(const struct limit_tightest *tightest, bool portkey)
{
	static char room[LIMIT_HEADERS_BYTES + 1];
	struct text t = { .p = room, .room = LIMIT_HEADERS_BYTES };

	limit_headers_add(&t, tightest, f.now.wall_ns, portkey);
	assert_false(t.overflow);
	room[t.n] = '\0';
	return room;
}

static int
open_arena(void **state)
{
	(void)state;
	fixture_open(&f, sizes);
	/* 2026-11-18T05:46:40Z, and a bit: what resets in between rounds up. */
	f.now.wall_ns = INT64_C(1794980800) * NS_PER_S + 1;
	return 0;
}

static int
close_arena(void **state)
{
	(void)state;
	fixture_close(&f);
	return 0;
}

static void
the_tightest_of_each_unit(void **state)
{
	struct limit_set set = { .count = 0 };

	(void)state;
	add(&set, METER_BUCKET, UNIT_REQUESTS, 100, MINUTE_NS, 1);	/* 99 of 100 left */
	add(&set, METER_BUCKET, UNIT_REQUESTS, 20, 60 * MINUTE_NS, 1);	/* 19 of 20 left: whole again in three minutes */
	add(&set, METER_CONCURRENCY, UNIT_REQUESTS, 1, 0, 1);		/* none left, but that is no rate */
	add(&set, METER_BUDGET, UNIT_TOKENS, 1000, 0, 400);		/* 600 of 1000, until midnight */
	add(&set, METER_BUCKET, UNIT_TOKENS, 10000, MINUTE_NS, 400);
	add(&set, METER_BUDGET, UNIT_NUSD, 1000, 0, 999);		/* money is nobody's business */
	assert_int_equal(admit(&set), LEDGER_ADMITTED);
	struct limit_tightest tightest = limit_tightest_admitted(&set, f.now);
	assert_string_equal(lines_of(&tightest, false),
	    "anthropic-ratelimit-requests-limit: 20\r\n"
	    "anthropic-ratelimit-requests-remaining: 19\r\n"
	    "anthropic-ratelimit-requests-reset: 2026-11-18T05:49:41Z\r\n"
	    "anthropic-ratelimit-tokens-limit: 1000\r\n"
	    "anthropic-ratelimit-tokens-remaining: 600\r\n"
	    "anthropic-ratelimit-tokens-reset: 2026-11-19T00:00:00Z\r\n");
	assert_non_null(strstr(lines_of(&tightest, true),
	    "x-ratelimit-limit-requests: 20\r\n"
	    "x-ratelimit-remaining-requests: 19\r\n"
	    "x-ratelimit-reset-requests: 3m0s\r\n"
	    "x-ratelimit-limit-tokens: 1000\r\n"
	    "x-ratelimit-remaining-tokens: 600\r\n"
	    "x-ratelimit-reset-tokens: 18h13m20s\r\n"));
}

static void
a_refusal_says_what_is_left(void **state)
{
	struct limit_set set = { .count = 0 };

	(void)state;
	add(&set, METER_BUCKET, UNIT_REQUESTS, 2, MINUTE_NS, 1);
	add(&set, METER_BUDGET, UNIT_TOKENS, 1000, 0, 100);
	assert_int_equal(admit(&set), LEDGER_ADMITTED);
	assert_int_equal(admit(&set), LEDGER_ADMITTED);
	assert_int_equal(admit(&set), LEDGER_REFUSED);
	struct limit_tightest tightest = limit_tightest_refused(&f.arena, &set, f.now);
	assert_string_equal(lines_of(&tightest, false),
	    "anthropic-ratelimit-requests-limit: 2\r\n"
	    "anthropic-ratelimit-requests-remaining: 0\r\n"
	    "anthropic-ratelimit-requests-reset: 2026-11-18T05:47:41Z\r\n"
	    "anthropic-ratelimit-tokens-limit: 1000\r\n"
	    "anthropic-ratelimit-tokens-remaining: 800\r\n"
	    "anthropic-ratelimit-tokens-reset: 2026-11-19T00:00:00Z\r\n");
}

static void
what_never_resets_names_no_time(void **state)
{
	struct limit_set set = { .count = 0 };

	(void)state;
	add(&set, METER_BUDGET, UNIT_REQUESTS, 10, 0, 1);
	set.charge[0].period = PERIOD_TOTAL;
	assert_int_equal(admit(&set), LEDGER_ADMITTED);
	struct limit_tightest tightest = limit_tightest_admitted(&set, f.now);
	assert_string_equal(lines_of(&tightest, false),
	    "anthropic-ratelimit-requests-limit: 10\r\nanthropic-ratelimit-requests-remaining: 9\r\n");
}

static void
nothing_without_limits(void **state)
{
	struct limit_set set = { .count = 0 };

	(void)state;
	add(&set, METER_BUDGET, UNIT_NUSD, 10, 0, 1);
	assert_int_equal(admit(&set), LEDGER_ADMITTED);
	struct limit_tightest tightest = limit_tightest_admitted(&set, f.now);
	assert_string_equal(lines_of(&tightest, true), "");
}

static void
the_longest_lines_fit(void **state)
{
	struct limit_tight tight = { .any = true, .resets = true, .limit = INT64_MAX, .left = INT64_MAX,
		.reset_ns = 366 * 24 * 60 * MINUTE_NS };
	struct limit_tightest tightest = { .requests = tight, .tokens = tight };

	(void)state;
	assert_true(strlen(lines_of(&tightest, true)) > 500);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_tightest_of_each_unit, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(a_refusal_says_what_is_left, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(what_never_resets_names_no_time, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(nothing_without_limits, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(the_longest_lines_fit, open_arena, close_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
