/*
 * The ledger's borders: exactly at the limit and one over it, several charges
 * on one meter, the states of a request and what a reclaim makes of each.
 * Demands and modes are in test_ledger_demand.c, periods and clocks in
 * test_ledger_periods.c, meters that come and go in test_ledger_meters.c,
 * random traces in test_ledger_model.c, deaths in tests/race.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"

#define INFLIGHT 8

static int
setup_small(void **state)
{
	return setup_with(state, INFLIGHT);
}

/* ---- buckets ---- */

static void
a_bucket_holds_its_limit_and_refills(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 5, MINUTE, 1);

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 5; i++)
			settled(f, admitted(f, c), 0);
		struct refusal why = refused(f, c);
		assert_int_equal(why.limit, 5);
		assert_int_equal(why.spent, 5);
		assert_int_equal(why.wait_ns, MINUTE / 5);
		f->now.mono_ns += why.wait_ns - 1;
		assert_int_equal(refused(f, c).wait_ns, 1);
		f->now.mono_ns += 1;
		settled(f, admitted(f, c), 0);
		refused(f, c);
		f->now.mono_ns += 10 * MINUTE;	/* it does not save up more than its limit */
		assert_int_equal(view(f, c.id).tokens, 5);
	}
}

static void
an_amount_above_the_limit_never_fits(void **state)
{
	struct fixture *f = *state;
	struct inflight *e;
	struct refusal why;

	assert_int_equal(refused(f, bucket_charge(1, 100, MINUTE, 101)).wait_ns, -1);
	assert_int_equal(refused(f, bucket_charge(1, 100, MINUTE, INT64_MAX)).wait_ns, -1);
	assert_int_equal(refused(f, bucket_charge(1, 0, MINUTE, 0)).wait_ns, -1);
	assert_int_equal(refused(f, bucket_charge(1, -5, MINUTE, 1)).wait_ns, -1);
	assert_int_equal(view(f, (struct meter_id){ 1, 1 }).full_in_ns, 0);
	settled(f, admitted(f, bucket_charge(1, 100, MINUTE, 100)), 0);

	/* Two charges that fit alone and not together. */
	struct charge two[2] = { bucket_charge(2, 100, MINUTE, 60), bucket_charge(2, 100, MINUTE, 60) };
	assert_int_equal(admit(f, two, 2, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.charge, 1);
	assert_int_equal(why.wait_ns, -1);
	assert_int_equal(why.spent, 0);
	two[1].fixed = 40;
	assert_int_equal(admit(f, two, 2, &e, &why), LEDGER_ADMITTED);
	assert_int_equal(view(f, two[0].id).tokens, 0);
}

static void
a_refusal_names_the_longest_wait_of_its_kind(void **state)
{
	struct fixture *f = *state;
	struct inflight *e;
	struct refusal why;
	struct charge all[3] = { bucket_charge(1, 60, MINUTE, 60), bucket_charge(2, 10, 10 * MINUTE, 10),
		budget_charge(3, PERIOD_DAILY, 100, 100) };

	assert_int_equal(admit(f, all, 3, &e, &why), LEDGER_ADMITTED);
	all[0].fixed = 1;
	all[1].fixed = 2;
	assert_int_equal(admit(f, all, 3, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.charge, 0);
	assert_int_equal(why.spent, 60);
	assert_int_equal(why.wait_ns, 2 * MINUTE);
	assert_int_equal(admit(f, &all[2], 1, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.held, 100);
}

static void
amounts_and_windows_may_be_huge(void **state)
{
	struct fixture *f = *state;
	const int64_t week = 7 * DAY;

	/* amount * window is far beyond 64 bits. */
	settled(f, admitted(f, bucket_charge(1, INT64_MAX, week, INT64_MAX / 2)), 0);
	settled(f, admitted(f, bucket_charge(1, INT64_MAX, week, INT64_MAX / 2)), 0);
	struct refusal why = refused(f, bucket_charge(1, INT64_MAX, week, INT64_MAX / 2));
	assert_true(why.wait_ns > week / 2 - 10 && why.wait_ns <= week / 2);
	assert_int_equal(refused(f, bucket_charge(1, 3, week, INT64_MAX)).wait_ns, -1);
}

static void
a_lower_limit_counts_at_once(void **state)
{
	struct fixture *f = *state;

	settled(f, admitted(f, bucket_charge(1, 100, MINUTE, 90)), 0);	/* 54 s of refill */
	struct refusal why = refused(f, bucket_charge(1, 10, 10 * NS_PER_S, 1));
	assert_int_equal(why.wait_ns, 45 * NS_PER_S);
	assert_int_equal(view(f, (struct meter_id){ 1, 1 }).limit, 100);
	f->now.mono_ns += why.wait_ns;
	settled(f, admitted(f, bucket_charge(1, 10, 10 * NS_PER_S, 1)), 0);
	assert_int_equal(view(f, (struct meter_id){ 1, 1 }).limit, 10);
}

static void
a_cancel_gives_units_back(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 2, MINUTE, 1);
	struct inflight *first = admitted(f, c), *second = admitted(f, c);

	refused(f, c);
	assert_int_equal(ledger_cancel(&f->arena, 0, second, false, f->now), SETTLED);
	second = admitted(f, c);
	settled(f, first, 0);
	settled(f, second, 0);
	refused(f, c);
	assert_int_equal(ring_fill_permille(&f->arena, 0), 2 * 96 * 1000 / 65536);
}

/* ---- budgets ---- */

static void
a_budget_counts_what_is_held(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 400);
	struct inflight *a = admitted(f, c), *b = admitted(f, c);
	struct refusal why = refused(f, c);

	assert_int_equal(why.limit, 1000);
	assert_int_equal(why.spent, 0);
	assert_int_equal(why.held, 800);
	assert_int_equal(why.wait_ns, -1);
	c.fixed = 200;
	struct inflight *last = admitted(f, c);		/* exactly at the limit */
	c.fixed = 0;
	refused(f, c);
	settled(f, a, 100);
	settled(f, b, 400);
	struct meter_view v = view(f, c.id);
	assert_int_equal(v.spent, 500);
	assert_int_equal(v.held, 200);
	assert_int_equal(ledger_inflight_held(&f->arena), 200);
	assert_int_equal(ledger_cancel(&f->arena, 0, last, true, f->now), SETTLED);
	v = view(f, c.id);
	assert_int_equal(v.spent, 500);
	assert_int_equal(v.held, 0);
	assert_int_equal(v.reset_wall_ns, 0);
}

static void
an_amount_of_nothing_needs_something_left(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 0);
	struct inflight *e;
	struct refusal why;

	settled(f, admitted(f, c), 999);
	settled(f, admitted(f, c), 1);
	assert_int_equal(refused(f, c).spent, 1000);
	c.limit = 0;
	refused(f, c);
	/* Beside a charge that took the last of it, nothing more is needed. */
	struct charge two[2] = { budget_charge(2, PERIOD_TOTAL, 10, 10), budget_charge(2, PERIOD_TOTAL, 10, 0) };
	assert_int_equal(admit(f, two, 2, &e, &why), LEDGER_ADMITTED);
}

static void
a_cost_may_exceed_its_hold_and_is_never_lost(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 10);

	settled(f, admitted(f, c), 5000);
	assert_int_equal(view(f, c.id).spent, 5000);
	refused(f, c);
	c.limit = INT64_MAX;
	settled(f, admitted(f, c), INT64_MAX);		/* capped, not wrapped around */
	assert_int_equal(view(f, c.id).spent, INT64_MAX);
	assert_int_equal(refused(f, c).wait_ns, -1);
}

static void
charges_on_one_budget_add_up_and_book_once(void **state)
{
	struct fixture *f = *state;
	struct charge two[2] = { budget_charge(1, PERIOD_TOTAL, 100, 60), budget_charge(1, PERIOD_TOTAL, 100, 40) };
	struct ring_cursor at;
	struct ring_item item;
	struct inflight *e;
	struct refusal why;

	two[1].fixed = 41;
	assert_int_equal(admit(f, two, 2, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.held, 0);
	two[1].fixed = 40;
	assert_int_equal(admit(f, two, 2, &e, &why), LEDGER_ADMITTED);
	assert_int_equal(view(f, two[0].id).held, 100);
	settled(f, e, 70);
	assert_int_equal(view(f, two[0].id).spent, 70);
	assert_int_equal(view(f, two[0].id).held, 0);
	at = ring_begin(&f->arena, 0);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.charges, 1);
}

/* ---- room ---- */

static void
a_full_worker_is_busy_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 100, MINUTE, 1);
	struct inflight *e[INFLIGHT], *more;
	struct refusal why;

	for (int i = 0; i < INFLIGHT; i++)
		e[i] = admitted(f, c);
	assert_int_equal(admit(f, &c, 1, &more, &why), LEDGER_BUSY);
	assert_int_equal(view(f, c.id).tokens, 100 - INFLIGHT);
	assert_int_equal(ledger_inflight_count(&f->arena, 0), INFLIGHT);
	settled(f, e[3], 0);
	assert_ptr_equal(admitted(f, c), e[3]);		/* last in, first out */
	assert_int_equal(ledger_admit(&f->arena, 1, &c, 1, NULL, f->now, &more, &why), LEDGER_ADMITTED);
}

static void
hints_are_only_hints(void **state)
{
	struct fixture *f = *state;
	struct charge a = budget_charge(1, PERIOD_TOTAL, 100, 1), b = budget_charge(2, PERIOD_TOTAL, 100, 1);
	struct inflight *e;
	struct refusal why;

	assert_int_equal(admit(f, &a, 1, &e, &why), LEDGER_ADMITTED);
	assert_true(a.row < METERS);
	for (uint32_t hint = 0; hint < METERS + 2; hint++) {
		b.row = hint;
		assert_int_equal(admit(f, &b, 1, &e, &why), LEDGER_ADMITTED);
		assert_true(b.row < METERS && b.row != a.row);
		settled(f, e, 0);
	}
	assert_int_equal(view(f, a.id).held, 1);
}

static void
no_limits_at_all(void **state)
{
	struct fixture *f = *state;
	struct inflight *e;
	struct refusal why;
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	assert_int_equal(admit(f, NULL, 0, &e, &why), LEDGER_ADMITTED);
	memcpy(inflight_record(e), "rec", 3);
	inflight_record_set(e, 3);
	settled(f, e, 12345);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.charges, 0);
	assert_memory_equal(item.record, "rec", 3);
}

/* ---- pages and deaths ---- */

static void
a_page_keeps_whole_versions(void **state)
{
	struct fixture *f = *state;
	struct inflight *e = admitted(f, budget_charge(1, PERIOD_TOTAL, 100, 1));
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;

	for (int64_t i = 1; i < 10; i++) {
		struct metered m = { .tokens = { i, 2 * i }, .cost_nusd = 3 * i };

		inflight_metered(e, &m);
		assert_int_equal(inflight_metered_get(e).tokens[1], 2 * i);
		assert_int_equal(inflight_metered_get(e).cost_nusd, 3 * i);
	}
	memset(inflight_record(e), 'a', RECORD_BYTES_MAX);
	inflight_record_set(e, RECORD_BYTES_MAX);
	memset(inflight_record(e), 'b', 2000);		/* and here we die */
	settled(f, e, 1);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.record_bytes, RECORD_BYTES_MAX);
	assert_int_equal(item.record[0], 'a');
	e = admitted(f, budget_charge(1, PERIOD_TOTAL, 100, 1));
	assert_int_equal(inflight_metered_get(e).cost_nusd, 0);		/* of the new request */
	settled(f, e, 0);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.record_bytes, 0);
}

struct orphans {
	uint32_t calls, admitted, sent;
};

/* Completes a record by one byte. */
static void
finish(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	struct orphans *o = arg;

	o->calls++;
	o->admitted += state == INFLIGHT_ADMITTED;
	o->sent += state == INFLIGHT_SENT;
	assert_true(state == INFLIGHT_ADMITTED || state == INFLIGHT_SENT);
	if (*bytes > 0)
		record[(*bytes)++] = m->cost_nusd > 0 ? 'm' : 'c';
}

static void
draft(struct inflight *e, char c)
{
	memset(inflight_record(e), c, 10);
	inflight_record_set(e, 10);
}

static void
reclaim_ends_each_state_as_it_should(void **state)
{
	struct fixture *f = *state;
	struct charge two[2] = { bucket_charge(1, 10, MINUTE, 1), budget_charge(2, PERIOD_TOTAL, 1000, 100) };
	struct metered m = { .cost_nusd = 7 };
	struct orphans o = { 0 };
	struct inflight *e[4];
	struct refusal why;

	for (int i = 0; i < 4; i++)
		assert_int_equal(admit(f, two, 2, &e[i], &why), LEDGER_ADMITTED);
	/* 0: no draft yet. 1: a draft. 2: sent. 3: sent and metered. */
	for (int i = 1; i < 4; i++)
		draft(e[i], (char)('0' + i));
	inflight_sent(e[2]);
	inflight_sent(e[3]);
	inflight_metered(e[3], &m);
	assert_int_equal(ledger_reclaim(&f->arena, 1, finish, &o, f->now), 0);
	assert_int_equal(o.calls, 0);			/* that was another worker */
	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 0);
	assert_int_equal(o.calls, 4);
	assert_int_equal(o.admitted, 2);
	assert_int_equal(o.sent, 2);
	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 0);
	assert_int_equal(o.calls, 4);
	assert_int_equal(view(f, two[0].id).tokens, 8);
	assert_int_equal(view(f, two[1].id).spent, 7);
	assert_int_equal(view(f, two[1].id).held, 0);
	assert_int_equal(ledger_inflight_count(&f->arena, 0), 0);

	static const struct { const char *text; int64_t cost; } expected[] = {
		{ "1111111111c", 0 }, { "2222222222c", 0 }, { "3333333333m", 7 },
	};
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;
	for (int i = 0; i < 3; i++) {
		assert_true(ring_next(&f->arena, 0, &at, &item));
		assert_int_equal(item.record_bytes, 11);
		assert_memory_equal(item.record, expected[i].text, 11);
		assert_int_equal(item.charges, 2);
		assert_int_equal(item.charge[1].held, 100);
		assert_int_equal(item.charge[1].amount, expected[i].cost);
	}
	assert_false(ring_next(&f->arena, 0, &at, &item));
}

/* Fills the ring so far that a record of 3,000 bytes does not fit. */
static void
fill_ring(struct fixture *f)
{
	while (ring_fill_permille(&f->arena, 0) < 960) {
		struct inflight *e = admitted(f, budget_charge(77, PERIOD_TOTAL, 1000, 0));

		memset(inflight_record(e), 'x', 500);
		inflight_record_set(e, 500);
		settled(f, e, 0);
	}
}

static void
reclaim_goes_on_when_there_is_room(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 100);
	struct orphans o = { 0 };
	struct inflight *done = admitted(f, c), *gone = admitted(f, c), *sent = admitted(f, c);
	struct inflight *all[3] = { done, gone, sent };
	struct ring_item item;

	for (int i = 0; i < 3; i++) {
		memset(inflight_record(all[i]), 'a' + i, 3000);
		inflight_record_set(all[i], 3000);
	}
	inflight_sent(sent);
	inflight_sent(done);
	fill_ring(f);
	assert_int_equal(ledger_settle(&f->arena, 0, done, &(struct settled){ 42, 17 }, f->now), SETTLE_RING_FULL);
	assert_int_equal(ledger_cancel(&f->arena, 0, gone, true, f->now), SETTLE_RING_FULL);
	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 3);
	assert_int_equal(view(f, c.id).held, 300);

	struct ring_cursor at = ring_begin(&f->arena, 0);
	while (ring_next(&f->arena, 0, &at, &item))
		;
	ring_advance(&f->arena, 0, at);
	o = (struct orphans){ 0 };
	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 0);
	assert_int_equal(o.calls, 1);			/* the other two were complete */
	assert_int_equal(view(f, c.id).held, 0);
	assert_int_equal(view(f, c.id).spent, 42);	/* done: as decided; gone: cancelled; sent: 0 metered */
	uint32_t items = 0;
	int64_t booked = 0;
	for (; ring_next(&f->arena, 0, &at, &item); items++) {
		assert_int_equal(item.charges, 1);
		booked += item.charge[0].amount;
	}
	assert_int_equal(items, 3);
	assert_int_equal(booked, 42);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_bucket_holds_its_limit_and_refills),
		TEST(an_amount_above_the_limit_never_fits),
		TEST(a_refusal_names_the_longest_wait_of_its_kind),
		TEST(amounts_and_windows_may_be_huge),
		TEST(a_lower_limit_counts_at_once),
		TEST(a_cancel_gives_units_back),
		TEST(a_budget_counts_what_is_held),
		TEST(an_amount_of_nothing_needs_something_left),
		TEST(a_cost_may_exceed_its_hold_and_is_never_lost),
		TEST(charges_on_one_budget_add_up_and_book_once),
		cmocka_unit_test_setup_teardown(a_full_worker_is_busy_and_changes_nothing, setup_small, teardown),
		TEST(hints_are_only_hints),
		TEST(no_limits_at_all),
		TEST(a_page_keeps_whole_versions),
		TEST(reclaim_ends_each_state_as_it_should),
		TEST(reclaim_goes_on_when_there_is_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
