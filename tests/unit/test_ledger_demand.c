/*
 * Demands: how far a charge that clamps lowers them, to the unit; what strict
 * and postpaid ones say; tokens that are settled up and down; requests in
 * flight as a limit; and what a refusal says about who is in the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"

static struct charge
sloped(uint64_t id, int64_t limit, int64_t fixed, int64_t slope_milli)
{
	struct charge c = budget_charge(id, PERIOD_TOTAL, limit, fixed);

	c.slope_milli = slope_milli;
	return c;
}

static struct charge
tokens_charge(uint64_t id, int64_t limit, int64_t fixed, int64_t slope_milli)
{
	struct charge c = bucket_charge(id, limit, MINUTE, fixed);

	c.unit = UNIT_TOKENS;
	c.slope_milli = slope_milli;
	return c;
}

/* ---- clamp ---- */

/* fixed 100 and 2 for each of the demand: 2,100 at 1,000, 200 at 50. */
static void
clamp_lowers_to_a_share_of_what_is_left(void **state)
{
	static const struct { int64_t limit, granted, taken; } cases[] = {
		{ 200, 50, 200 },	/* the floor, exactly */
		{ 1600, 50, 200 },	/* an eighth is as much as the floor */
		{ 1608, 50, 200 },	/* 201: half a unit more is none */
		{ 1616, 51, 202 },
		{ 8000, 450, 1000 },
		{ 16799, 999, 2098 },	/* one short of eight times the most */
		{ 16800, 1000, 2100 },
		{ INT64_MAX, 1000, 2100 },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct demand d = { .most = 1000, .floor = 50, .share = 8 };
		struct charge c = sloped(1, cases[i].limit, 100, 2000);
		struct inflight *e = admitted_all(f, &c, 1, &d);

		assert_int_equal(d.granted, cases[i].granted);
		assert_int_equal(d.lowered_by, cases[i].granted < 1000 ? 0 : 1);
		assert_int_equal(c.taken, cases[i].taken);
		assert_int_equal(view(f, c.id).held, cases[i].taken);
		assert_int_equal(charge_left(&c, f->now), cases[i].limit - cases[i].taken);
		cancelled(f, e);
	}
	struct demand d = { .most = 1000, .floor = 50, .share = 8 };
	struct charge c = sloped(1, 199, 100, 2000);
	struct refusal why = refused_all(f, &c, 1, &d);
	assert_int_equal(why.need, 200);
	assert_int_equal(why.limit, 199);
	assert_int_equal(why.wait_ns, -1);
	assert_false(why.may_fit);
}

static int64_t
amount_of(const struct charge *c, int64_t demand)
{
	return c->fixed + (c->slope_milli * demand + 999) / 1000;
}

/* By trying each one: the largest demand that takes no more than it may. */
static int64_t
granted_by_search(const struct charge *c, int64_t left, const struct demand *d)
{
	int64_t allowed = left / d->share > amount_of(c, d->floor) ? left / d->share : amount_of(c, d->floor);
	int64_t demand = d->most;

	if (amount_of(c, d->floor) > left)
		return -1;
	while (demand > d->floor && amount_of(c, demand) > allowed)
		demand--;
	return demand;
}

static void
clamp_is_exact(void **state)
{
	struct fixture *f = *state;
	uint64_t random = 7;

	for (int i = 0; i < 20000; i++) {
		int64_t drawn[6];
		for (int k = 0; k < 6; k++) {
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
			drawn[k] = (int64_t)(random >> 40);
		}
		struct demand d = { .most = drawn[0] % 300, .share = (uint32_t)(1 + drawn[2] % 9) };
		d.floor = drawn[1] % (d.most + 1);
		struct charge c = sloped(1, 1 + drawn[3] % 3000, drawn[4] % 200, 1 + drawn[5] % 9000);
		int64_t expected = granted_by_search(&c, c.limit, &d);

		if (expected < 0) {
			assert_int_equal(refused_all(f, &c, 1, &d).need, amount_of(&c, d.floor));
			continue;
		}
		if (amount_of(&c, expected) == 0)
			continue;
		cancelled(f, admitted_all(f, &c, 1, &d));
		assert_int_equal(d.granted, expected);
		assert_int_equal(c.taken, amount_of(&c, expected));
	}
}

static void
the_tightest_clamp_counts(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 1000, .floor = 10, .share = 4 };
	struct charge c[3] = { sloped(1, 4000, 0, 1000), sloped(2, 1200, 0, 1000), sloped(3, 8000, 0, 2000) };
	struct inflight *e = admitted_all(f, c, 3, &d);

	assert_int_equal(d.granted, 300);
	assert_int_equal(d.lowered_by, 1);
	assert_int_equal(c[0].taken, 300);
	assert_int_equal(c[1].taken, 300);
	assert_int_equal(c[2].taken, 600);
	cancelled(f, e);
	/* Its floor does not fit: it is named, though another one is asked first. */
	c[1].limit = 9;
	struct refusal why = refused_all(f, c, 3, &d);
	assert_int_equal(why.charge, 1);
	assert_int_equal(why.need, 10);
}

/* The first charge takes the meter's last units and lowers the demand to its
 * floor; the second one, of the same meter, needs none. */
static void
the_first_that_lowers_to_the_floor_is_named(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 10, .floor = 0, .share = 1 };
	struct charge c[2] = { sloped(1, 100, 100, 1000), sloped(1, 100, 0, 1000) };

	cancelled(f, admitted_all(f, c, 2, &d));
	assert_int_equal(d.granted, 0);
	assert_int_equal(d.lowered_by, 0);
}

/* A floor above the most is the most; no demand at all is 0. */
static void
demands_at_their_ends(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 5, .floor = 4096, .share = 8 };
	struct charge c = sloped(1, 6, 1, 1000);

	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 5);
	c.limit = 5;
	assert_int_equal(refused_all(f, &c, 1, &d).need, 6);
	d = (struct demand){ .most = 0, .floor = 0, .share = 8 };
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(c.taken, 1);
	cancelled(f, admitted_all(f, &c, 1, NULL));
	assert_int_equal(c.taken, 1);
	/* Rounded up, and only once. */
	d = (struct demand){ .most = 1001, .floor = 1, .share = 1 };
	c = sloped(1, 3, 1, 1);
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 1001);
	assert_int_equal(c.taken, 3);
	c.limit = 2;
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 1000);
}

static void
huge_amounts_are_exact_or_never_fit(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 99999999, .floor = 1, .share = 1 };
	struct charge c = sloped(1, INT64_MAX, 7, INT64_C(92233720368547));

	/* slope * most has 73 bits, an amount of 63 fits. */
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 99999999);
	assert_int_equal(c.taken, INT64_C(9223371944620979639));	/* rounded up */
	c.limit = INT64_C(4611686018427387900);
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 50000000);
	c.slope_milli = INT64_MAX;	/* beyond all bounds: INT64_MAX, which no limit below it admits */
	c.limit = INT64_MAX - 1;
	cancelled(f, admitted_all(f, &c, 1, &d));
	assert_int_equal(d.granted, 999);
	c.mode = MODE_STRICT;
	refused_all(f, &c, 1, &d);
}

static void
clamp_in_a_bucket_of_tokens(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 128000, .floor = 4096, .share = 8 };
	struct charge c = tokens_charge(1, 100000, 2000, 1000);
	struct inflight *e = admitted_all(f, &c, 1, &d);

	assert_int_equal(d.granted, 100000 / 8 - 2000);
	assert_int_equal(view(f, c.id).tokens, 87500);
	assert_int_equal(view(f, c.id).held, 12500);
	struct inflight *second = admitted_all(f, &c, 1, &d);
	assert_int_equal(d.granted, 87500 / 8 - 2000);
	settled_at(f, e, 0, 2500);
	assert_int_equal(view(f, c.id).tokens, 100000 - 2500 - 87500 / 8);
	settled_at(f, second, 0, 100);
	assert_int_equal(view(f, c.id).tokens, 100000 - 2600);
	assert_int_equal(view(f, c.id).held, 0);
}

/* ---- strict and postpaid ---- */

static void
strict_is_asked_for_what_is_granted(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 1000, .floor = 10, .share = 8 };
	struct charge c[2] = { sloped(1, 500, 0, 1000), sloped(2, 4000, 0, 1000) };

	c[0].mode = MODE_STRICT;
	assert_int_equal(refused_all(f, c, 1, &d).need, 1000);
	cancelled(f, admitted_all(f, c, 2, &d));		/* 4000 / 8 fits into 500 */
	assert_int_equal(d.granted, 500);
	assert_int_equal(d.lowered_by, 1);
	c[0].limit = 499;
	struct refusal why = refused_all(f, c, 2, &d);
	assert_int_equal(why.charge, 0);
	assert_int_equal(why.need, 500);
	assert_false(why.may_fit);
}

static void
postpaid_holds_nothing_and_may_overshoot(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 1000, .floor = 1000, .share = 8 };
	struct charge c = sloped(1, 100, 50, 1000);
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	c.mode = MODE_POSTPAID;
	struct inflight *a = admitted_all(f, &c, 1, &d), *b = admitted_all(f, &c, 1, &d);
	assert_int_equal(d.granted, 1000);
	assert_int_equal(c.taken, 0);
	assert_int_equal(view(f, c.id).held, 0);
	settled_at(f, a, 99, 0);
	struct inflight *last = admitted_all(f, &c, 1, &d);	/* one is left */
	assert_int_equal(charge_left(&c, f->now), 1);
	settled_at(f, b, 1, 0);
	struct refusal why = refused_all(f, &c, 1, &d);
	assert_int_equal(why.need, 1);
	assert_int_equal(why.spent, 100);
	settled_at(f, last, 700, 0);
	assert_int_equal(view(f, c.id).spent, 800);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.charge[0].held, 0);
	assert_int_equal(item.charge[0].amount, 99);
}

static void
postpaid_tokens_are_paid_back_by_time(void **state)
{
	struct fixture *f = *state;
	struct charge c = tokens_charge(1, 60, 10, 0);

	c.mode = MODE_POSTPAID;
	settled_at(f, admitted_all(f, &c, 1, NULL), 0, 150);	/* 90 more than there are */
	struct refusal why = refused_all(f, &c, 1, NULL);
	assert_int_equal(why.need, 1);
	assert_int_equal(why.wait_ns, 91 * NS_PER_S);
	f->now.mono_ns += why.wait_ns - 1;
	assert_int_equal(refused_all(f, &c, 1, NULL).wait_ns, 1);
	f->now.mono_ns += 1;
	cancelled(f, admitted_all(f, &c, 1, NULL));
}

/* A request is counted beforehand, whatever the mode says. */
static void
requests_have_no_mode(void **state)
{
	struct fixture *f = *state;
	struct charge c[2] = { bucket_charge(1, 1, MINUTE, 1), concurrency_charge(2, 1) };

	c[0].mode = c[1].mode = MODE_POSTPAID;
	admitted_all(f, c, 2, NULL);
	assert_int_equal(refused_all(f, c, 1, NULL).wait_ns, MINUTE);
	assert_int_equal(refused_all(f, &c[1], 1, NULL).held, 1);
}

/* ---- tokens ---- */

static void
tokens_settle_up_and_down(void **state)
{
	struct fixture *f = *state;
	struct charge c = tokens_charge(1, 1000, 600, 0);
	struct inflight *e = admitted_all(f, &c, 1, NULL);

	assert_int_equal(view(f, c.id).tokens, 400);
	settled_at(f, e, 0, 100);
	assert_int_equal(view(f, c.id).tokens, 900);
	e = admitted_all(f, &c, 1, NULL);
	settled_at(f, e, 0, 850);
	assert_int_equal(view(f, c.id).tokens, 50);
	/* What refilled meanwhile is not counted twice: it is full, and stays so. */
	e = (f->now.mono_ns += 10 * MINUTE, admitted_all(f, &c, 1, NULL));
	f->now.mono_ns += 10 * MINUTE;
	assert_int_equal(view(f, c.id).tokens, 1000);
	settled_at(f, e, 0, 0);
	assert_int_equal(view(f, c.id).tokens, 1000);
	/* More than was held, of a bucket that is full again. */
	e = admitted_all(f, &c, 1, NULL);
	f->now.mono_ns += 10 * MINUTE;
	settled_at(f, e, 0, 700);
	assert_int_equal(view(f, c.id).tokens, 900);
}

/* The limit is another one by the time the request ends. */
static void
tokens_settle_by_the_limit_of_then(void **state)
{
	struct fixture *f = *state;
	struct charge c = tokens_charge(1, 1000, 500, 0), larger = tokens_charge(1, 2000, 0, 0);
	struct inflight *e = admitted_all(f, &c, 1, NULL);

	cancelled(f, admitted_all(f, &larger, 1, NULL));
	assert_int_equal(view(f, c.id).tokens, 1000);	/* half of a window is taken */
	settled_at(f, e, 0, 500);				/* which is now worth a quarter */
	assert_int_equal(view(f, c.id).tokens, 1500);
	assert_int_equal(view(f, c.id).held, 0);
}

static void
budgets_of_tokens_and_of_requests(void **state)
{
	struct fixture *f = *state;
	struct charge c[3] = { budget_charge(1, PERIOD_DAILY, 1000, 400), budget_charge(2, PERIOD_DAILY, 3, 1),
		budget_charge(3, PERIOD_DAILY, 3, 1) };

	c[0].unit = UNIT_TOKENS;
	c[1].unit = c[2].unit = UNIT_REQUESTS;
	c[2].mode = MODE_POSTPAID;
	struct inflight *e = admitted_all(f, c, 3, NULL);
	settled_at(f, e, 777777, 123);
	assert_int_equal(view(f, c[0].id).spent, 123);
	assert_int_equal(view(f, c[1].id).spent, 1);
	assert_int_equal(view(f, c[2].id).spent, 1);
	cancelled(f, admitted_all(f, c, 3, NULL));
	assert_int_equal(view(f, c[1].id).spent, 1);
	assert_int_equal(view(f, c[2].id).spent, 1);
	assert_int_equal(view(f, c[1].id).unit, UNIT_REQUESTS);
	assert_int_equal(view(f, c[2].id).mode, MODE_POSTPAID);
	e = admitted_all(f, c, 3, NULL);
	assert_int_equal(ledger_inflight_held(&f->arena), 0);	/* of money */
	cancelled(f, e);
}

/* ---- requests in flight ---- */

static void
so_many_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct charge c = concurrency_charge(1, 2);
	struct inflight *a = admitted_all(f, &c, 1, NULL), *b = admitted_all(f, &c, 1, NULL);

	assert_int_equal(charge_left(&c, f->now), 0);
	assert_int_equal(charge_reset_ns(&c, f->now), 0);
	struct refusal why = refused_all(f, &c, 1, NULL);
	assert_int_equal(why.held, 2);
	assert_int_equal(why.spent, 0);
	assert_int_equal(why.wait_ns, 0);
	assert_int_equal(why.need, 1);
	assert_true(why.may_fit);
	settled_at(f, a, 5, 5);
	a = admitted_all(f, &c, 1, NULL);
	cancelled(f, a);
	cancelled(f, b);
	assert_int_equal(view(f, c.id).held, 0);
	c.limit = 0;
	why = refused_all(f, &c, 1, NULL);
	assert_int_equal(why.wait_ns, -1);
	assert_false(why.may_fit);
}

/* ---- who is in the way ---- */

static void
a_refusal_says_whether_holds_are_in_the_way(void **state)
{
	struct fixture *f = *state;
	struct charge money = budget_charge(1, PERIOD_TOTAL, 100, 60), tokens = tokens_charge(2, 1000, 600, 0);
	struct charge both[2] = { money, tokens }, rate = bucket_charge(3, 1, MINUTE, 1);
	struct inflight *e = admitted_all(f, both, 2, NULL);

	assert_true(refused_all(f, &money, 1, NULL).may_fit);
	struct refusal why = refused_all(f, &tokens, 1, NULL);
	assert_true(why.may_fit);
	assert_int_equal(why.spent, 0);
	assert_int_equal(why.held, 600);
	assert_int_equal(why.limit, 1000);

	/* A rate that is used up does not come back with a hold. */
	struct inflight *r = admitted_all(f, &rate, 1, NULL);
	struct charge mixed[2] = { money, rate };
	why = refused_all(f, mixed, 2, NULL);
	assert_int_equal(why.charge, 0);
	assert_false(why.may_fit);
	settled_at(f, r, 0, 0);

	settled_at(f, e, 60, 600);			/* now it is spent */
	assert_false(refused_all(f, &money, 1, NULL).may_fit);
	why = refused_all(f, &tokens, 1, NULL);
	assert_false(why.may_fit);
	assert_int_equal(why.spent, 600);
	assert_int_equal(why.held, 0);
	assert_int_equal(why.wait_ns, MINUTE / 5);
}

/* The floor fits once the others are done, though the most never would. */
static void
may_fit_at_the_floor(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 5000, .floor = 100, .share = 8 };
	struct charge c = sloped(1, 1000, 0, 1000), strict = sloped(1, 1000, 950, 0);
	struct inflight *e = admitted_all(f, &strict, 1, &d);
	struct refusal why = refused_all(f, &c, 1, &d);

	assert_int_equal(why.need, 100);
	assert_int_equal(why.held, 950);
	assert_true(why.may_fit);
	/* Alone it would be granted 125; a strict one beside it has only 110. */
	struct charge two[2] = { c, sloped(2, 110, 0, 1000) };
	two[1].mode = MODE_STRICT;
	assert_false(refused_all(f, two, 2, &d).may_fit);
	two[1].limit = 125;
	assert_true(refused_all(f, two, 2, &d).may_fit);
	settled_at(f, e, 901, 0);
	assert_false(refused_all(f, &c, 1, &d).may_fit);
}

static void
clamps_on_one_meter_add_up(void **state)
{
	struct fixture *f = *state;
	struct demand d = { .most = 1000, .floor = 10, .share = 2 };
	struct charge c[2] = { sloped(1, 1000, 0, 1000), sloped(1, 1000, 90, 1000) };

	/* First: 500. Second: (1000 - 10) / 2 = 495, less 90. */
	struct inflight *e = admitted_all(f, c, 2, &d);
	assert_int_equal(d.granted, 405);
	assert_int_equal(d.lowered_by, 1);
	assert_int_equal(view(f, c[0].id).held, 405 + 495);
	assert_int_equal(charge_left(&c[1], f->now), 100);
	settled_at(f, e, 300, 0);
	assert_int_equal(view(f, c[0].id).spent, 300);
	assert_int_equal(view(f, c[0].id).held, 0);
}

/* ---- what an admission leaves ---- */

static void
left_and_reset_of_each_kind(void **state)
{
	struct fixture *f = *state;
	struct charge c[3] = { bucket_charge(1, 60, MINUTE, 1), budget_charge(2, PERIOD_DAILY, 1000, 300),
		budget_charge(3, PERIOD_TOTAL, 1000, 300) };

	admitted_all(f, c, 3, NULL);
	assert_int_equal(charge_left(&c[0], f->now), 59);
	assert_int_equal(charge_reset_ns(&c[0], f->now), NS_PER_S);
	assert_int_equal(charge_left(&c[1], f->now), 700);
	assert_int_equal(charge_reset_ns(&c[1], f->now), DAY - f->now.wall_ns % DAY);
	assert_int_equal(charge_reset_ns(&c[2], f->now), 0);
	f->now.mono_ns += NS_PER_S;
	assert_int_equal(charge_left(&c[0], f->now), 60);
	assert_int_equal(charge_reset_ns(&c[0], f->now), 0);
}

/* A record has all that the request was charged on, in the meters' units. */
static void
a_record_has_all_charges(void **state)
{
	struct fixture *f = *state;
	struct charge c[4] = { bucket_charge(1, 60, MINUTE, 1), tokens_charge(2, 6000, 500, 0),
		concurrency_charge(3, 5), budget_charge(4, PERIOD_DAILY, 1000, 300) };
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item first, second;

	c[3].mode = MODE_STRICT;
	struct inflight *a = admitted_all(f, c, 4, NULL), *b = admitted_all(f, c, 4, NULL);
	settled_at(f, b, 77, 100);
	f->now.wall_ns += 5;
	assert_int_equal(ledger_cancel(&f->arena, 0, a, true, f->now), SETTLED);
	assert_true(ring_next(&f->arena, 0, &at, &first) && ring_next(&f->arena, 0, &at, &second));
	assert_int_equal(first.charges, 4);
	assert_int_equal(second.charges, 4);
	static const int64_t held[4] = { 1, 500, 1, 300 }, used[4] = { 1, 100, 1, 77 };
	for (int i = 0; i < 4; i++) {
		assert_int_equal(first.charge[i].what, meter_what(&c[i]));
		assert_true(first.charge[i].id.hi == c[i].id.hi && first.charge[i].id.lo == c[i].id.lo);
		assert_int_equal(first.charge[i].held, held[i]);
		assert_int_equal(first.charge[i].amount, used[i]);
		assert_int_equal(second.charge[i].held, held[i]);
		assert_int_equal(second.charge[i].amount, 0);
		assert_true(second.charge[i].step > first.charge[i].step);
	}
	assert_int_equal(first.charge[3].period_index, (f->now.wall_ns - 5) / DAY);
	/* Two were taken by then, one was given back behind that. */
	assert_int_equal(first.charge[0].full_wall_ns, f->now.wall_ns - 5 + 2 * NS_PER_S);
	assert_int_equal(second.charge[0].full_wall_ns, f->now.wall_ns + NS_PER_S);
	assert_int_equal(first.charge[1].full_wall_ns, f->now.wall_ns - 5 + 6 * NS_PER_S);
	assert_int_equal(second.charge[1].full_wall_ns, f->now.wall_ns + NS_PER_S);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(clamp_lowers_to_a_share_of_what_is_left),
		TEST(clamp_is_exact),
		TEST(the_tightest_clamp_counts),
		TEST(the_first_that_lowers_to_the_floor_is_named),
		TEST(demands_at_their_ends),
		TEST(huge_amounts_are_exact_or_never_fit),
		TEST(clamp_in_a_bucket_of_tokens),
		TEST(strict_is_asked_for_what_is_granted),
		TEST(postpaid_holds_nothing_and_may_overshoot),
		TEST(postpaid_tokens_are_paid_back_by_time),
		TEST(requests_have_no_mode),
		TEST(tokens_settle_up_and_down),
		TEST(tokens_settle_by_the_limit_of_then),
		TEST(budgets_of_tokens_and_of_requests),
		TEST(so_many_at_a_time),
		TEST(a_refusal_says_whether_holds_are_in_the_way),
		TEST(may_fit_at_the_floor),
		TEST(clamps_on_one_meter_add_up),
		TEST(left_and_reset_of_each_kind),
		TEST(a_record_has_all_charges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
