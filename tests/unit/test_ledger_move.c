/*
 * A request goes on at another target: what each meter holds, and what it is paid
 * in the end, whether it was charged before, after, or both; and what a refusal
 * leaves as it was. Random courses are in test_ledger_model.c, deaths at every
 * store in tests/race, other ends in test_ledger_move_end.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/move_fixture.h"

/* ---- in both sets ---- */

static void
requests_are_counted_once(void **state)
{
	struct fixture *f = *state;
	struct charge c[3] = { bucket_charge(1, 1, MINUTE, 1), requests(2, 1, 1), concurrency_charge(3, 1) };
	struct inflight *e = sent(f, c, 3);

	for (int i = 0; i < 5; i++) {
		f->now.mono_ns += NS_PER_S;
		moved(f, &e, 0, 0, c, 3);
		assert_int_equal(view(f, c[0].id).full_in_ns, MINUTE - (i + 1) * NS_PER_S);
		assert_int_equal(held(f, &c[1]), 1);
		assert_int_equal(held(f, &c[2]), 1);
		assert_int_equal(charge_left(&c[0], f->now), 0);
		assert_int_equal(ledger_inflight_count(&f->arena, 0), 1);
		for (int k = 0; k < 3; k++)
			refused(f, c[k]);
	}
	f->now.mono_ns += MINUTE;		/* it has refilled, and what it takes was taken then */
	moved(f, &e, 0, 0, c, 3);
	assert_int_equal(charge_left(&c[0], f->now), 1);
	assert_int_equal(view(f, c[0].id).full_in_ns, 0);
	settled(f, e, 7);
	assert_int_equal(view(f, c[0].id).tokens, 1);
	assert_int_equal(spent(f, &c[1]), 1);
	assert_int_equal(held(f, &c[1]) + held(f, &c[2]), 0);
	assert_int_equal(charges_booked(f), 3);
	assert_booked(f, &c[0], 1, 1);
	assert_booked(f, &c[1], 1, 1);
	assert_booked(f, &c[2], 1, 1);
}

static void
money_is_asked_for_with_what_was_used(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget(1, 1000, 400);
	struct inflight *e = sent(f, &c, 1), *other = admitted(f, budget(1, 1000, 200));
	struct refusal why;

	c.fixed = 501;		/* and 300 that were used, beside 200 of another request */
	assert_int_equal(try_to_move(f, &e, 300, 0, &c, 1, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.need, 801);
	assert_int_equal(why.held, 200);
	assert_int_equal(why.spent, 0);
	assert_int_equal(why.limit, 1000);
	assert_int_equal(why.wait_ns, -1);
	assert_true(why.may_fit);
	assert_int_equal(held(f, &c), 600);
	c.fixed = 500;
	moved(f, &e, 300, 0, &c, 1);
	assert_int_equal(c.taken, 800);
	assert_int_equal(c.fixed, 500);
	assert_int_equal(charge_left(&c, f->now), 0);
	assert_int_equal(held(f, &c), 1000);
	assert_int_equal(ledger_inflight_held(&f->arena), 1000);
	c.fixed = 1;
	refused(f, c);
	c.fixed = 10;		/* a cheaper one: what is not needed any more is free at once */
	moved(f, &e, 350, 0, &c, 1);
	assert_int_equal(held(f, &c), 560);
	settled(f, e, 355);
	assert_int_equal(spent(f, &c), 355);
	assert_int_equal(held(f, &c), 200);
	assert_booked(f, &c, 360, 355);
	c.fixed = 646;
	assert_int_equal(try_to_move(f, &other, 0, 0, &c, 1, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.spent, 355);
	assert_int_equal(why.held, 0);
	assert_false(why.may_fit);
	c.fixed = 645;
	moved(f, &other, 0, 0, &c, 1);
}

/* A bucket is corrected, not charged anew: what it has gained since stays. */
static void
a_bucket_gains_while_a_request_moves(void **state)
{
	struct fixture *f = *state;
	struct charge c = tokens(1, 60, 20), r = bucket_charge(2, 60, MINUTE, 3), both[2] = { c, c };
	struct inflight *e = sent(f, &c, 1), *e2 = sent(f, &r, 1);

	f->now.mono_ns += 15 * NS_PER_S;
	c.fixed = 25;
	moved(f, &e, 0, 5, &c, 1);		/* 30 in all, 15 of them have come back */
	assert_int_equal(view(f, c.id).full_in_ns, 15 * NS_PER_S);
	assert_int_equal(charge_left(&c, f->now), 45);
	c.fixed = 2;
	moved(f, &e, 0, 5, &c, 1);		/* 7: all have */
	assert_int_equal(view(f, c.id).full_in_ns, 0);
	assert_int_equal(charge_left(&c, f->now), 60);
	both[0].fixed = 5;
	both[1].fixed = 20;
	moved(f, &e, 0, 5, both, 2);		/* 30 again, in two charges: the 23 more are taken now */
	assert_int_equal(view(f, c.id).full_in_ns, 23 * NS_PER_S);
	assert_int_equal(charge_left(&both[1], f->now), 37);
	both[0].fixed = 56;			/* no more than it can ever have */
	both[1].fixed = 0;
	struct refusal why;
	assert_int_equal(try_to_move(f, &e, 0, 5, both, 2, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.wait_ns, -1);
	settled_at(f, e, 0, 33);
	assert_int_equal(view(f, c.id).full_in_ns, 26 * NS_PER_S);
	drain(f);
	/* Also of one that has a base. */
	struct charge late = tokens(3, 60, 20);
	struct inflight *e3 = sent(f, NULL, 0);
	moved(f, &e3, 0, 500, &late, 1);
	f->now.mono_ns += 15 * NS_PER_S;
	moved(f, &e3, 0, 505, &late, 1);
	assert_int_equal(view(f, late.id).full_in_ns, 10 * NS_PER_S);
	settled_at(f, e3, 0, 520);
	assert_int_equal(view(f, late.id).full_in_ns, 5 * NS_PER_S);
	assert_booked(f, &late, 25, 20);
	drain(f);
	r.fixed = 5;
	moved(f, &e2, 0, 0, &r, 1);
	assert_int_equal(view(f, r.id).full_in_ns, 2 * NS_PER_S);
	r.fixed = 1;
	moved(f, &e2, 0, 0, &r, 1);
	assert_int_equal(view(f, r.id).full_in_ns, 0);
	settled(f, e2, 0);
	assert_booked(f, &r, 1, 1);
}

/* ---- only in the new one ---- */

static void
a_new_meter_pays_what_comes_after(void **state)
{
	struct fixture *f = *state;
	struct charge c[3] = { budget(1, 1000, 100), budget(2, 1000, 100), tokens(3, 1000, 50) };
	struct inflight *e = sent(f, c, 1);

	moved(f, &e, 30, 12, c, 3);
	assert_int_equal(c[0].taken, 130);
	assert_int_equal(c[1].taken, 100);
	assert_int_equal(c[2].taken, 50);
	moved(f, &e, 45, 20, c, 3);		/* its base is still that of the first move */
	assert_int_equal(c[1].taken, 115);
	assert_int_equal(c[2].taken, 58);
	settled_at(f, e, 70, 32);
	assert_int_equal(spent(f, &c[0]), 70);
	assert_int_equal(spent(f, &c[1]), 40);
	assert_int_equal(view(f, c[2].id).full_in_ns, MINUTE / 1000 * 20);
	assert_int_equal(view(f, c[2].id).held, 0);
	assert_booked(f, &c[0], 145, 70);
	assert_booked(f, &c[1], 115, 40);
	assert_booked(f, &c[2], 58, 20);
}

/* ---- only in the old one ---- */

static void
what_was_used_is_closed_and_paid_in_the_end(void **state)
{
	struct fixture *f = *state;
	struct charge a[4] = { budget(1, 1000, 100), budget(2, 1000, 500), tokens(3, 600, 60), requests(4, 10, 2) };
	struct charge b[2] = { budget(1, 1000, 100), budget(9, 1000, 300) };
	struct inflight *e = sent(f, a, 4);

	moved(f, &e, 40, 15, b, 2);
	assert_int_equal(held(f, &a[1]), 40);
	assert_int_equal(spent(f, &a[1]), 0);
	assert_int_equal(view(f, a[2].id).full_in_ns, 15 * MINUTE / 600);
	assert_int_equal(held(f, &a[2]), 15);
	assert_int_equal(held(f, &a[3]), 2);
	assert_int_equal(held(f, &b[0]), 140);
	assert_int_equal(ledger_inflight_held(&f->arena), 140 + 40 + 300);
	a[1].fixed = 961;
	assert_int_equal(refused(f, a[1]).held, 40);
	settled_at(f, e, 90, 99);
	assert_int_equal(spent(f, &a[0]), 90);
	assert_int_equal(spent(f, &a[1]), 40);
	assert_int_equal(view(f, a[2].id).full_in_ns, 15 * MINUTE / 600);
	assert_int_equal(spent(f, &a[3]), 2);
	assert_int_equal(spent(f, &b[1]), 50);
	for (int i = 0; i < 4; i++)
		assert_int_equal(held(f, &a[i]), 0);
	assert_int_equal(charges_booked(f), 5);
	assert_booked(f, &a[0], 140, 90);
	assert_booked(f, &a[1], 40, 40);
	assert_booked(f, &a[2], 15, 15);
	assert_booked(f, &a[3], 2, 2);
	assert_booked(f, &b[1], 300, 50);
}

static void
what_nothing_was_used_of_is_free_at_once(void **state)
{
	struct fixture *f = *state;
	struct charge a[5] = { budget(1, 1000, 500), tokens(2, 600, 60), concurrency_charge(3, 1),
		bucket_charge(4, 10, MINUTE, 1), requests(5, 10, 0) };
	struct charge b = budget(9, 1000, 300);
	struct ring_charge unused;
	struct inflight *e = sent(f, a, 5);

	moved(f, &e, 0, 0, &b, 1);
	for (int i = 0; i < 5; i++)
		assert_int_equal(held(f, &a[i]), 0);
	assert_int_equal(view(f, a[1].id).full_in_ns, 0);
	assert_int_equal(view(f, a[3].id).tokens, 9);	/* a request was made */
	settled_at(f, e, 20, 20);
	assert_int_equal(spent(f, &a[0]), 0);
	assert_int_equal(view(f, a[1].id).full_in_ns, 0);
	assert_int_equal(view(f, a[3].id).tokens, 9);
	assert_int_equal(spent(f, &b), 20);
	assert_int_equal(charges_booked(f), 2);
	assert_booked(f, &a[3], 1, 1);
	assert_false(booked(f, &a[0], &unused));
}

static void
before_it_was_sent_all_goes_back(void **state)
{
	struct fixture *f = *state;
	struct charge a[5] = { budget(1, 1000, 500), tokens(2, 600, 60), concurrency_charge(3, 1),
		bucket_charge(4, 10, MINUTE, 1), requests(5, 10, 2) };
	struct charge b = budget(9, 1000, 300);
	struct inflight *e = admitted_all(f, a, 5, NULL);

	moved(f, &e, 0, 0, &b, 1);
	assert_int_equal(inflight_state(e), INFLIGHT_ADMITTED);
	for (int i = 0; i < 5; i++)
		assert_int_equal(held(f, &a[i]), 0);
	assert_int_equal(view(f, a[1].id).full_in_ns, 0);
	assert_int_equal(view(f, a[3].id).full_in_ns, 0);
	moved(f, &e, 0, 0, a, 5);
	assert_int_equal(held(f, &b), 0);
	assert_int_equal(held(f, &a[0]), 500);
	assert_int_equal(ledger_cancel(&f->arena, 0, e, true, f->now), SETTLED);
	assert_int_equal(charges_booked(f), 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(held(f, &a[i]) + spent(f, &a[i]), 0);
	assert_int_equal(view(f, a[3].id).tokens, 10);
}

/* A closed bucket of requests says how the bucket stands at the move: the
 * record will have the move's number, and others charged it in between. */
static void
a_closed_bucket_of_requests_is_booked_as_it_stood(void **state)
{
	struct fixture *f = *state;
	struct charge a = bucket_charge(1, 60, MINUTE, 1), b = budget(2, 1000, 1);
	struct ring_charge first, other, second;
	struct inflight *e = sent(f, &a, 1);

	settled(f, admitted(f, a), 0);
	assert_true(booked(f, &a, &other));
	assert_int_equal(other.full_wall_ns, f->now.wall_ns + 2 * NS_PER_S);
	drain(f);
	moved(f, &e, 0, 0, &b, 1);
	struct inflight *again = sent(f, &a, 1);
	moved(f, &e, 0, 0, &b, 1);
	settled(f, e, 0);
	assert_true(booked(f, &a, &first));
	assert_int_equal(first.full_wall_ns, f->now.wall_ns + 3 * NS_PER_S);
	assert_true(first.step > other.step);
	drain(f);
	settled(f, again, 0);
	assert_true(booked(f, &a, &second));
	assert_int_equal(second.full_wall_ns, first.full_wall_ns);
}

/* ---- several moves ---- */

static void
a_meter_that_comes_back_goes_on_where_it_stood(void **state)
{
	struct fixture *f = *state;
	struct charge key = budget(1, 1000, 100);
	struct charge a[3] = { key, budget(2, 1000, 100), bucket_charge(3, 10, MINUTE, 1) }, b[2] = { key, budget(4, 1000, 100) };
	struct charge t[2] = { tokens(5, 1000, 100), tokens(6, 1000, 100) };
	struct inflight *e = sent(f, a, 3), *e2 = sent(f, &t[0], 1);

	moved(f, &e, 10, 0, b, 2);		/* 10 at A */
	moved(f, &e, 17, 0, a, 3);		/* 7 at B */
	assert_int_equal(a[0].taken, 117);
	assert_int_equal(a[1].taken, 110);
	assert_int_equal(held(f, &b[1]), 7);
	assert_int_equal(view(f, a[2].id).tokens, 9);
	moved(f, &e, 22, 0, b, 2);		/* 5 more at A */
	assert_int_equal(held(f, &a[1]), 15);
	assert_int_equal(b[1].taken, 107);
	settled(f, e, 52);			/* 30 more at B */
	assert_int_equal(spent(f, &key), 52);
	assert_int_equal(spent(f, &a[1]), 15);
	assert_int_equal(spent(f, &b[1]), 37);
	assert_booked(f, &key, 122, 52);
	assert_booked(f, &a[1], 15, 15);
	assert_booked(f, &b[1], 107, 37);
	assert_booked(f, &a[2], 1, 1);
	assert_int_equal(ledger_inflight_held(&f->arena), 0);

	moved(f, &e2, 0, 10, &t[1], 1);
	moved(f, &e2, 0, 17, &t[0], 1);
	moved(f, &e2, 0, 22, &t[1], 1);
	assert_int_equal(view(f, t[1].id).full_in_ns, 107 * MINUTE / 1000);
	settled_at(f, e2, 0, 52);
	assert_int_equal(view(f, t[0].id).full_in_ns, 15 * MINUTE / 1000);
	assert_int_equal(view(f, t[1].id).full_in_ns, 37 * MINUTE / 1000);
}

/* Not charged on anything, then on a meter, then on none again. */
static void
a_request_may_have_no_limits(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget(1, 100, 50);
	struct inflight *e = sent(f, NULL, 0);

	moved(f, &e, 1000, 0, &c, 1);
	assert_int_equal(c.taken, 50);
	moved(f, &e, 1020, 0, NULL, 0);
	assert_int_equal(held(f, &c), 20);
	moved(f, &e, 5000, 0, NULL, 0);
	settled(f, e, 9000);
	assert_int_equal(spent(f, &c), 20);
	assert_int_equal(charges_booked(f), 1);
}

/* ---- refusals ---- */

static void
what_does_not_move_changes_nothing(void **state)
{
	static struct picture before;
	struct fixture *f = *state;
	struct charge a[5] = { budget(1, 1000, 100), budget(2, 1000, 100), tokens(3, 1000, 100),
		bucket_charge(4, 10, MINUTE, 1), concurrency_charge(5, 4) };
	struct charge b[4] = { budget(1, 1000, 100), tokens(3, 500, 10), bucket_charge(4, 20, MINUTE, 1), budget(9, 10, 11) };
	struct inflight *e = sent(f, a, 5), *page = e, *more[INFLIGHT];
	struct metered used = metered(20, 20);
	struct refusal why;

	memset(inflight_record(e), 'd', 100);
	inflight_record_set(e, 100);
	take_picture(f, &before);
	assert_int_equal(ledger_move(&f->arena, 0, &e, &used, b, 4, NULL, f->now, &why), LEDGER_UNKNOWN);
	assert_int_equal(why.charge, 3);
	assert_as_in(f, &before);
	assert_int_equal(load(f, &b[3], &nothing), LOAD_DONE);
	take_picture(f, &before);
	f->now.mono_ns += NS_PER_S;
	ledger_tick(&f->arena);
	assert_int_equal(ledger_move(&f->arena, 0, &e, &used, b, 4, NULL, f->now, &why), LEDGER_REFUSED);
	assert_int_equal(why.charge, 3);
	assert_as_in(f, &before);
	b[3].fixed = 1;
	for (int i = 0; i < INFLIGHT - 1; i++)
		more[i] = admitted_all(f, NULL, 0, NULL);
	take_picture(f, &before);
	assert_int_equal(ledger_move(&f->arena, 0, &e, &used, b, 4, NULL, f->now, &why), LEDGER_BUSY);
	assert_as_in(f, &before);
	assert_ptr_equal(e, page);
	assert_int_equal(b[0].taken, 0);
	for (int i = 0; i < INFLIGHT - 1; i++)
		cancelled(f, more[i]);
	moved(f, &e, 20, 20, b, 4);
	settled(f, e, 20);
}

/* The wait is what it would be if the request had nothing. */
static void
a_bucket_refuses_with_the_old_hold_gone(void **state)
{
	struct fixture *f = *state;
	struct charge a = tokens(1, 60, 30);
	struct inflight *e = sent(f, &a, 1), *other = admitted(f, tokens(1, 60, 25));
	struct refusal why;

	a.fixed = 31;		/* and 10: 41 of 35 */
	assert_int_equal(try_to_move(f, &e, 0, 10, &a, 1, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.held, 25);
	assert_int_equal(why.spent, 0);
	assert_int_equal(why.need, 41);
	assert_int_equal(why.wait_ns, 6 * NS_PER_S);
	f->now.mono_ns += why.wait_ns - 1;
	assert_int_equal(try_to_move(f, &e, 0, 10, &a, 1, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.wait_ns, 1);
	f->now.mono_ns += 1;
	moved(f, &e, 0, 10, &a, 1);
	settled_at(f, e, 0, 41);
	settled_at(f, other, 0, 25);
	assert_int_equal(view(f, a.id).full_in_ns, 60 * NS_PER_S);
}

/* ---- demands ---- */

static void
a_demand_is_lowered_by_what_was_used_too(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget(1, 8000, 100);
	struct demand d = { .most = 10000, .floor = 50, .share = 8 };
	struct refusal why;

	c.slope_milli = 2000;
	struct inflight *e = admitted_all(f, &c, 1, &d);
	assert_int_equal(d.granted, 450);	/* an eighth of 8000 */
	inflight_sent(e);
	/* The old hold is gone: again an eighth, of which 300 are used up. */
	assert_int_equal(try_to_move(f, &e, 300, 0, &c, 1, &d, &why), LEDGER_ADMITTED);
	assert_int_equal(d.granted, 300);
	assert_int_equal(d.lowered_by, 0);
	assert_int_equal(c.taken, 1000);
	assert_int_equal(held(f, &c), 1000);
	/* The floor always fits, if there is so much: 900 + 100 + 2 * 50. */
	assert_int_equal(try_to_move(f, &e, 900, 0, &c, 1, &d, &why), LEDGER_ADMITTED);
	assert_int_equal(d.granted, 50);
	assert_int_equal(c.taken, 1100);
	struct inflight *other = admitted(f, budget(1, 8000, 6801));
	d.granted = -7;
	assert_int_equal(try_to_move(f, &e, 1000, 0, &c, 1, &d, &why), LEDGER_REFUSED);
	assert_int_equal(why.need, 1200);
	assert_int_equal(why.held, 6801);
	assert_true(why.may_fit);
	assert_int_equal(d.granted, -7);
	cancelled(f, other);
	settled(f, e, 1100);
	assert_int_equal(spent(f, &c), 1100);
}

/* ---- time ---- */

static void
periods_roll_over_in_between(void **state)
{
	struct fixture *f = *state;
	struct charge a[2] = { budget_charge(1, PERIOD_DAILY, 1000, 600), budget_charge(2, PERIOD_DAILY, 1000, 600) };
	struct inflight *first = admitted_all(f, a, 2, NULL), *e;

	settled(f, first, 300);			/* of today */
	drain(f);
	e = sent(f, a, 2);
	f->now.wall_ns += DAY;
	moved(f, &e, 150, 0, a, 1);		/* tomorrow nothing is spent: 750 fit */
	assert_int_equal(a[0].taken, 750);
	assert_int_equal(spent(f, &a[0]), 0);
	assert_int_equal(held(f, &a[1]), 150);
	f->now.wall_ns += DAY;
	settled(f, e, 200);			/* paid by the day in which it ends, all of it */
	int64_t day = period_index(daily, f->now.wall_ns);
	for (int i = 0; i < 2; i++) {
		struct ring_charge b;

		assert_true(booked(f, &a[i], &b));
		assert_int_equal(b.period_index, day);
		assert_int_equal(spent(f, &a[i]), i == 0 ? 200 : 150);
		assert_int_equal(view(f, a[i].id).period_index, day);
	}
}

static void
a_bucket_of_tokens_whose_limit_was_changed(void **state)
{
	struct fixture *f = *state;
	struct charge small = tokens(1, 600, 60), big = small, other = budget(2, UNLIMITED, 1);
	struct inflight *e = sent(f, &small, 1);

	assert_int_equal(view(f, small.id).full_in_ns, MINUTE / 10);
	big.limit = 6000;			/* a token is worth a tenth */
	moved(f, &e, 0, 20, &big, 1);		/* 60 and 20 */
	assert_int_equal(view(f, small.id).full_in_ns, 80 * MINUTE / 6000);
	assert_int_equal(view(f, small.id).held, 80);
	moved(f, &e, 0, 30, &small, 1);
	assert_int_equal(view(f, small.id).full_in_ns, 90 * MINUTE / 600);
	moved(f, &e, 0, 45, &other, 1);		/* closed at 45 */
	assert_int_equal(view(f, small.id).full_in_ns, 45 * MINUTE / 600);
	settled_at(f, admitted(f, big), 0, 0);	/* others find it with another limit */
	moved(f, &e, 0, 99, &other, 1);
	assert_int_equal(view(f, small.id).full_in_ns, 45 * MINUTE / 600);
	settled_at(f, e, 0, 100);		/* 45 tokens, at what they are worth now */
	assert_int_equal(view(f, small.id).full_in_ns, 45 * MINUTE / 6000);
	assert_int_equal(view(f, small.id).held, 0);
}

/* ---- costs above holds ---- */

static void
what_is_closed_may_exceed_its_hold(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget(1, 1000, 100), t = tokens(2, 600, 60), later = budget(3, 50, 100), none = budget(4, 10, 1);
	struct charge all[3] = { c, t, later };

	all[2].mode = later.mode = MODE_POSTPAID;
	struct inflight *e = sent(f, all, 3);
	assert_int_equal(held(f, &later), 0);
	moved(f, &e, 5000, 900, &none, 1);
	assert_int_equal(held(f, &c), 5000);
	assert_int_equal(view(f, t.id).full_in_ns, 900 * MINUTE / 600);
	assert_int_equal(held(f, &later), 5000);	/* it is known that this is spent */
	refused(f, c);
	refused(f, later);
	settled_at(f, e, 5000, 900);
	assert_int_equal(spent(f, &c), 5000);
	assert_int_equal(spent(f, &later), 5000);
	assert_int_equal(view(f, t.id).full_in_ns, 900 * MINUTE / 600);
	assert_booked(f, &later, 5000, 5000);
	drain(f);
	/* All the money there is, twice: capped, and nothing is lost of the other's hold. */
	struct charge huge = budget(5, INT64_MAX, 10);
	struct inflight *x = sent(f, &huge, 1), *y = sent(f, &huge, 1), *z = admitted(f, huge);
	moved(f, &x, INT64_MAX, 0, NULL, 0);
	moved(f, &y, INT64_MAX, 0, NULL, 0);
	assert_int_equal(held(f, &huge), INT64_MAX);
	cancelled(f, z);
	settled(f, x, INT64_MAX);
	settled(f, y, INT64_MAX);
	assert_int_equal(spent(f, &huge), INT64_MAX);
	assert_int_equal(held(f, &huge), 0);
}

static void
a_postpaid_charge_holds_nothing_of_what_was_used(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget(1, 1000, 100), strict = c;

	c.mode = MODE_POSTPAID;
	struct inflight *e = sent(f, &c, 1);
	moved(f, &e, 700, 0, &c, 1);
	assert_int_equal(c.taken, 0);
	assert_int_equal(held(f, &c), 0);
	strict.mode = MODE_STRICT;		/* an editor changed it: now it is held */
	moved(f, &e, 800, 0, &strict, 1);
	assert_int_equal(strict.taken, 900);
	assert_int_equal(held(f, &c), 900);
	moved(f, &e, 800, 0, &c, 1);
	assert_int_equal(held(f, &c), 0);
	settled(f, e, 850);
	assert_int_equal(spent(f, &c), 850);
}

/* ---- several charges on one meter ---- */

static void
charges_on_one_meter_ask_once_for_what_was_used(void **state)
{
	struct fixture *f = *state;
	struct charge two[3] = { budget(1, 1000, 100), budget(1, 1000, 50), budget(2, 1000, 10) };
	struct inflight *e = sent(f, two, 3);
	struct refusal why;

	assert_int_equal(held(f, &two[0]), 150);
	two[0].fixed = 400;
	two[1].fixed = 501;		/* 400 + 100 + 501 */
	assert_int_equal(try_to_move(f, &e, 100, 0, two, 2, NULL, &why), LEDGER_REFUSED);
	assert_int_equal(why.charge, 1);
	two[1].fixed = 500;
	moved(f, &e, 100, 0, two, 2);
	assert_int_equal(two[0].taken, 500);
	assert_int_equal(two[1].taken, 500);
	assert_int_equal(held(f, &two[0]), 1000);
	moved(f, &e, 130, 0, &two[2], 1);	/* the two are one hold */
	assert_int_equal(held(f, &two[0]), 130);
	settled(f, e, 140);
	assert_int_equal(spent(f, &two[0]), 130);
	assert_int_equal(spent(f, &two[2]), 110);	/* 100, and 10 after it came back */
	assert_int_equal(charges_booked(f), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(requests_are_counted_once),
		TEST(money_is_asked_for_with_what_was_used),
		TEST(a_bucket_gains_while_a_request_moves),
		TEST(a_new_meter_pays_what_comes_after),
		TEST(what_was_used_is_closed_and_paid_in_the_end),
		TEST(what_nothing_was_used_of_is_free_at_once),
		TEST(before_it_was_sent_all_goes_back),
		TEST(a_closed_bucket_of_requests_is_booked_as_it_stood),
		TEST(a_meter_that_comes_back_goes_on_where_it_stood),
		TEST(a_request_may_have_no_limits),
		cmocka_unit_test_setup_teardown(what_does_not_move_changes_nothing, setup_small, teardown),
		TEST(a_bucket_refuses_with_the_old_hold_gone),
		TEST(a_demand_is_lowered_by_what_was_used_too),
		TEST(periods_roll_over_in_between),
		TEST(a_bucket_of_tokens_whose_limit_was_changed),
		TEST(what_is_closed_may_exceed_its_hold),
		TEST(a_postpaid_charge_holds_nothing_of_what_was_used),
		TEST(charges_on_one_meter_ask_once_for_what_was_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
