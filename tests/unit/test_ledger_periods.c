/*
 * Periods: the calendar, roll-over at the moment of use, a limit that is given
 * another period, and clocks that step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "tests/unit/ledger_fixture.h"

static int64_t
date(int year, int month, int day)
{
	struct tm tm = { .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day };

	return timegm(&tm) * NS_PER_S + 12 * 3600 * NS_PER_S;
}

/* ---- the calendar ---- */

static void
periods_follow_the_calendar(void **state)
{
	(void)state;
	for (int64_t day = -1000; day < 60000; day++) {
		time_t s = day * 86400 + day % 86400 * (day > 0);
		int64_t wall = (int64_t)s * NS_PER_S;
		struct tm tm;

		gmtime_r(&s, &tm);
		int64_t month = (tm.tm_year - 70) * 12 + tm.tm_mon;
		assert_int_equal(period_index(monthly, wall), month);
		struct tm next = { .tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1 };
		assert_int_equal(period_end_ns(monthly, wall), timegm(&next) * NS_PER_S);
		int64_t week = period_index(weekly, wall);
		int64_t end = period_end_ns(weekly, wall);
		assert_int_equal(end, (week * 7 + 11) * DAY);
		assert_true(wall < end && wall >= end - 7 * DAY);
		s = end / NS_PER_S;
		gmtime_r(&s, &tm);
		assert_int_equal(tm.tm_wday, 1);
		assert_int_equal(period_end_ns(daily, wall), (period_index(daily, wall) + 1) * DAY);
	}
	assert_int_equal(period_index(weekly, 4 * DAY), 0);
	assert_int_equal(period_index(weekly, 4 * DAY - 1), -1);
	assert_int_equal(period_index(total, FIXTURE_WALL_NS), 0);
	assert_int_equal(period_end_ns(total, FIXTURE_WALL_NS), 0);
}

static void
spans_of_days(void **state)
{
	(void)state;
	for (uint16_t days = 1; days <= 365; days += 13)
		for (uint16_t anchor = 0; anchor < days; anchor += 7) {
			struct period p = { PERIOD_DAYS, days, anchor };

			for (int64_t day = -3 * days; day < 3 * days; day++) {
				int64_t wall = day * DAY + 5, end = period_end_ns(p, wall), index = period_index(p, wall);

				assert_true(end > wall && end <= wall + days * DAY);
				assert_int_equal(end % DAY, 0);
				assert_int_equal(((end / DAY - anchor) % days + days) % days, 0);
				assert_int_equal(end, ((index + 1) * days + anchor) * DAY);
			}
		}
	assert_int_equal(period_index((struct period){ PERIOD_DAYS, 1, 0 }, date(2026, 11, 23)),
	    period_index(daily, date(2026, 11, 23)));
}

/* ---- roll-over, and steps of the clock ---- */

static void
a_period_rolls_over_when_it_is_used(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 600);
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;
	int64_t today = period_index(daily, f->now.wall_ns);
	int64_t midnight = period_end_ns(daily, f->now.wall_ns);

	settled(f, admitted(f, c), 600);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.charge[0].period_index, today);
	struct inflight *late = admitted(f, budget_charge(1, PERIOD_DAILY, 1000, 300));
	assert_int_equal(refused(f, c).wait_ns, midnight - f->now.wall_ns);
	c.fixed = 1001;
	assert_int_equal(refused(f, c).wait_ns, -1);
	c.fixed = 600;

	f->now.wall_ns = midnight - 1;
	refused(f, c);
	f->now.wall_ns = midnight;
	struct meter_view v = view(f, c.id);		/* nobody has used it yet */
	assert_int_equal(v.spent, 0);
	assert_int_equal(v.held, 300);			/* from yesterday, still held */
	assert_int_equal(v.period_index, today + 1);
	assert_int_equal(v.reset_wall_ns, midnight + DAY);
	struct inflight *e = admitted(f, c);
	settled(f, late, 250);				/* money of today, when it was spent */
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.charge[0].period_index, today + 1);
	settled(f, e, 600);
	assert_int_equal(view(f, c.id).spent, 850);
}

static void
a_clock_that_steps_back_gives_no_money(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 1000);
	int64_t today = period_index(daily, f->now.wall_ns);

	settled(f, admitted(f, c), 1000);
	f->now.wall_ns -= 2 * DAY;
	struct refusal why = refused(f, c);
	assert_int_equal(why.spent, 1000);
	assert_int_equal(f->now.wall_ns + why.wait_ns, (today + 1) * DAY);
	assert_int_equal(view(f, c.id).period_index, today);
	f->now.wall_ns += 3 * DAY;
	settled(f, admitted(f, c), 1);
}

static void
clocks_that_step(void **state)
{
	struct fixture *f = *state;
	struct charge rate = bucket_charge(1, 2, MINUTE, 1), money = budget_charge(2, PERIOD_DAILY, 1000, 1000);
	struct refusal why;
	struct inflight *e;

	settled(f, admitted(f, rate), 0);
	settled(f, admitted(f, rate), 0);
	settled(f, admitted(f, money), 1000);
	/* Forwards: a bucket does not refill, a new day begins once. */
	f->now.wall_ns += 40 * DAY;
	assert_int_equal(fixture_admit(f, 0, &rate, 1, NULL, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.wait_ns, MINUTE / 2);
	settled(f, admitted(f, money), 1000);
	/* Backwards, by any way: nothing of what was spent comes back. */
	for (int64_t back = 0; back < 45; back++) {
		f->now.wall_ns -= DAY;
		assert_int_equal(fixture_admit(f, 0, &money, 1, NULL, &e, &why), LEDGER_REFUSED);
		assert_int_equal(why.spent, 1000);
		assert_int_equal(f->now.wall_ns + why.wait_ns, (view(f, money.id).period_index + 1) * DAY);
		assert_int_equal(fixture_admit(f, 0, &rate, 1, NULL, &e, &why), LEDGER_REFUSED);
	}
	/* And the same day again is the same day. */
	f->now.wall_ns += 45 * DAY;
	assert_int_equal(fixture_admit(f, 0, &money, 1, NULL, &e, &why), LEDGER_REFUSED);
	f->now.wall_ns += DAY;
	settled(f, admitted(f, money), 0);
}

/* ---- another period ---- */

/* 2026-11-23 is a Monday, day 20,780: day 0 of a span of 4 days at anchor 0. */
#define D(y, m, d) { y, m, d }

static void
a_changed_period_keeps_what_lies_in_it(void **state)
{
	static const struct {
		struct period from;
		int spent_on[3];
		struct period to;
		int changed_on[3];
		bool kept;
	} cases[] = {
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 23), { .kind = PERIOD_MONTHLY }, D(2026, 11, 23), true },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 23), { .kind = PERIOD_MONTHLY }, D(2026, 11, 30), true },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 23), { .kind = PERIOD_MONTHLY }, D(2026, 12, 1), false },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 23), { .kind = PERIOD_WEEKLY }, D(2026, 11, 29), true },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 22), { .kind = PERIOD_WEEKLY }, D(2026, 11, 23), false },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 23), { .kind = PERIOD_TOTAL }, D(2027, 3, 1), true },
		{ { .kind = PERIOD_WEEKLY }, D(2026, 11, 24), { .kind = PERIOD_MONTHLY }, D(2026, 11, 25), true },
		{ { .kind = PERIOD_WEEKLY }, D(2026, 11, 30), { .kind = PERIOD_MONTHLY }, D(2026, 11, 30), false },
		{ { .kind = PERIOD_WEEKLY }, D(2026, 12, 2), { .kind = PERIOD_MONTHLY }, D(2026, 12, 2), false },
		{ { .kind = PERIOD_WEEKLY }, D(2026, 11, 24), { .kind = PERIOD_DAILY }, D(2026, 11, 24), false },
		{ { .kind = PERIOD_MONTHLY }, D(2026, 11, 1), { .kind = PERIOD_WEEKLY }, D(2026, 11, 1), false },
		{ { .kind = PERIOD_MONTHLY }, D(2026, 11, 1), { .kind = PERIOD_DAILY }, D(2026, 11, 1), false },
		{ { .kind = PERIOD_MONTHLY }, D(2026, 11, 1), { .kind = PERIOD_TOTAL }, D(2026, 11, 1), true },
		{ { .kind = PERIOD_TOTAL }, D(2026, 11, 1), { .kind = PERIOD_MONTHLY }, D(2026, 11, 1), false },
		{ { .kind = PERIOD_TOTAL }, D(2026, 11, 1), { PERIOD_DAYS, 30, 5 }, D(2026, 11, 1), false },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 26), { PERIOD_DAYS, 4, 0 }, D(2026, 11, 26), true },
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 26), { PERIOD_DAYS, 4, 0 }, D(2026, 11, 27), false },
		{ { PERIOD_DAYS, 2, 0 }, D(2026, 11, 23), { PERIOD_DAYS, 4, 0 }, D(2026, 11, 26), true },
		{ { PERIOD_DAYS, 2, 1 }, D(2026, 11, 25), { PERIOD_DAYS, 4, 0 }, D(2026, 11, 25), true },
		{ { PERIOD_DAYS, 2, 1 }, D(2026, 11, 26), { PERIOD_DAYS, 4, 0 }, D(2026, 11, 26), false },
		{ { PERIOD_DAYS, 4, 0 }, D(2026, 11, 23), { PERIOD_DAYS, 4, 1 }, D(2026, 11, 23), false },
		{ { PERIOD_DAYS, 1, 0 }, D(2026, 11, 23), { .kind = PERIOD_DAILY }, D(2026, 11, 23), true },
		{ { PERIOD_DAYS, 7, 4 }, D(2026, 11, 23), { .kind = PERIOD_WEEKLY }, D(2026, 11, 23), true },
		/* The clock was ahead when it was spent: the later window stays. */
		{ { .kind = PERIOD_DAILY }, D(2026, 11, 25), { .kind = PERIOD_WEEKLY }, D(2026, 11, 23), true },
		{ { .kind = PERIOD_DAILY }, D(2026, 12, 2), { .kind = PERIOD_MONTHLY }, D(2026, 11, 23), true },
	};
	struct fixture *f = *state;

	for (uint64_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct charge c = budget_charge(i + 1, cases[i].from.kind, 1000, 10);
		const int *on = cases[i].spent_on;

		c.days = cases[i].from.days;
		c.anchor = cases[i].from.anchor;
		f->now.wall_ns = date(on[0], on[1], on[2]);
		settled(f, admitted(f, c), 600);
		on = cases[i].changed_on;
		f->now.wall_ns = date(on[0], on[1], on[2]);
		c.period = cases[i].to.kind;
		c.days = cases[i].to.days;
		c.anchor = cases[i].to.anchor;
		struct inflight *e = admitted(f, c);
		struct meter_view v = view(f, c.id);
		if (v.spent != (cases[i].kept ? 600 : 0))
			fail_msg("case %u: spent is %lld", (unsigned)i, (long long)v.spent);
		assert_int_equal(v.period, c.period);
		assert_int_equal(v.days, c.days);
		settled(f, e, 7);
		assert_int_equal(view(f, c.id).spent, cases[i].kept ? 607 : 7);
	}
}

/* The same through the store: it was evicted under the old period. */
static void
a_stored_level_is_carried_over_too(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_MONTHLY, 1000, 10), old = budget_charge(1, PERIOD_DAILY, 1000, 10);
	struct level l = { .known = true, .what = meter_what(&old), .spent = 995 };
	struct refusal why;
	struct inflight *e;

	f->now.wall_ns = date(2026, 11, 24);
	l.period_index = f->now.wall_ns / DAY - 1;
	assert_int_equal(load(f, &c, &l), LOAD_DONE);
	assert_int_equal(fixture_admit(f, 0, &c, 1, NULL, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.spent, 995);
	assert_int_equal(why.wait_ns, date(2026, 12, 1) - 12 * 3600 * NS_PER_S - f->now.wall_ns);
	settled(f, admitted(f, old), 1);	/* a day later, and still daily: it begins anew */
	assert_int_equal(view(f, c.id).spent, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(periods_follow_the_calendar),
		cmocka_unit_test(spans_of_days),
		TEST(a_period_rolls_over_when_it_is_used),
		TEST(a_clock_that_steps_back_gives_no_money),
		TEST(clocks_that_step),
		TEST(a_changed_period_keeps_what_lies_in_it),
		TEST(a_stored_level_is_carried_over_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
