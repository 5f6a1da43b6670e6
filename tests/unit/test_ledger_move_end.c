/*
 * Requests that went on at another target, when something comes to its end: the
 * room of a page or of the journal, a worker, the ring, a meter's time in memory;
 * and a caller that breaks the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/move_fixture.h"

/* ---- as many as a page has room for ---- */

static uint32_t
many(struct charge *c, uint64_t first, uint32_t n, enum meter_kind kind)
{
	for (uint32_t i = 0; i < n; i++)
		c[i] = kind == METER_BUDGET ? budget(first + i, UNLIMITED, 10) : bucket_charge(first + i, 1000, MINUTE, 1);
	return n;
}

static void
a_page_has_room_for_so_many(void **state)
{
	static struct picture before;
	struct fixture *f = *state;
	struct charge a[CHARGES_MAX], b[CHARGES_MAX];
	struct ring_charge unused;
	struct refusal why;

	/* Closed budgets must be paid: one more has no room. */
	many(a, 1, CHARGES_MAX, METER_BUDGET);
	many(b, 101, CHARGES_MAX, METER_BUDGET);
	struct inflight *e = sent(f, a, CHARGES_MAX), *page = e;
	take_picture(f, &before);
	assert_int_equal(try_to_move(f, &e, 5, 0, b, 1, NULL, &why), LEDGER_CROWDED);
	assert_ptr_equal(e, page);
	assert_as_in(f, &before);
	b[0] = a[23];		/* 23 that are closed, and this one */
	moved(f, &e, 5, 0, b, 1);
	assert_int_equal(held(f, &a[0]), 5);
	assert_int_equal(held(f, &a[23]), 15);
	assert_int_equal(try_to_move(f, &e, 5, 0, b, 2, NULL, &why), LEDGER_CROWDED);
	settled(f, e, 7);
	assert_int_equal(charges_booked(f), CHARGES_MAX);
	drain(f);

	/* Buckets of requests make room: they keep their units, but are not told. */
	uint32_t n = many(a, 1, CHARGES_MAX - 4, METER_BUDGET);
	n += many(a + n, 201, 4, METER_BUCKET);
	e = sent(f, a, n);
	moved(f, &e, 5, 0, b, 3);
	for (int i = 20; i < 24; i++)
		assert_int_equal(view(f, a[i].id).tokens, 999);
	settled(f, e, 5);
	assert_int_equal(charges_booked(f), CHARGES_MAX);
	assert_booked(f, &a[20], 1, 1);
	for (int i = 21; i < 24; i++)
		assert_false(booked(f, &a[i], &unused));
}

/* The most words that a step can change: all holds closed or released, all
 * charges taken with other limits, alerts and periods. */
static void
the_longest_steps_fit_into_the_journal(void **state)
{
	struct fixture *f = *state;
	struct charge a[CHARGES_MAX], b[CHARGES_MAX];

	for (uint32_t i = 0; i < CHARGES_MAX; i++) {
		a[i] = i % 2 ? budget_charge(i, PERIOD_DAILY, UNLIMITED, 10) : tokens(i, UNLIMITED / 1000, 1000000000000);
		b[i] = budget_charge(100 + i, PERIOD_TOTAL, UNLIMITED, 10);
	}
	struct inflight *e = admitted_all(f, a, CHARGES_MAX, NULL);
	ledger_tick(&f->arena);
	moved(f, &e, 0, 0, b, CHARGES_MAX);
	moved(f, &e, 0, 0, a, CHARGES_MAX);
	inflight_sent(e);
	for (uint32_t i = 0; i < CHARGES_MAX; i++) {
		a[i].limit /= 3;
		a[i].alert = 17;
		a[i].window_ns *= 2;
		if (i % 2)
			a[i].period = PERIOD_MONTHLY;
	}
	ledger_tick(&f->arena);
	moved(f, &e, 7, 7, a, CHARGES_MAX);
	settled_at(f, e, 10, 10);
	for (uint32_t i = 0; i < CHARGES_MAX; i++)
		assert_int_equal(i % 2 ? spent(f, &a[i]) : held(f, &a[i]), i % 2 ? 10 : 0);
}

/* ---- deaths ---- */

struct orphan {
	uint32_t calls;
	enum inflight_state state;
	struct metered m;
	uint32_t bytes;
	char first;
};

static void
finish(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	struct orphan *o = arg;

	*o = (struct orphan){ o->calls + 1, state, *m, *bytes, *bytes > 0 ? record[0] : 0 };
}

static struct orphan
reclaimed(struct fixture *f)
{
	struct orphan o = { 0 };

	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 0);
	assert_int_equal(ledger_inflight_count(&f->arena, 0), 0);
	return o;
}

static void
write_record(struct inflight *e, char c, uint32_t bytes)
{
	memset(inflight_record(e), c, bytes);
	inflight_record_set(e, bytes);
}

static void
a_page_takes_everything_along(void **state)
{
	struct fixture *f = *state;
	struct charge a[2] = { budget(1, 1000, 100), budget(2, 1000, 100) }, b = budget(3, 1000, 100);
	struct inflight *e = sent(f, a, 2);
	struct metered floor = metered(60, 6);
	struct ring_item item;

	write_record(e, 'x', 10);
	write_record(e, 'd', RECORD_BYTES_MAX);		/* the second version */
	inflight_metered(e, &floor);
	moved(f, &e, 20, 2, &b, 1);
	assert_int_equal(inflight_metered_get(e).cost_nusd, 20);
	assert_int_equal(inflight_metered_get(e).tokens[0], 2);
	struct orphan o = reclaimed(f);
	assert_int_equal(o.calls, 1);
	assert_int_equal(o.state, INFLIGHT_SENT);
	assert_int_equal(o.m.cost_nusd, 20);
	assert_int_equal(o.m.total_tokens, 2);
	assert_int_equal(o.bytes, RECORD_BYTES_MAX);
	struct ring_cursor at = ring_begin(&f->arena, 0);
	assert_true(ring_next(&f->arena, 0, &at, &item));
	for (uint32_t i = 0; i < RECORD_BYTES_MAX; i++)
		assert_int_equal(item.record[i], 'd');
	assert_booked(f, &a[0], 20, 20);
	assert_booked(f, &b, 100, 0);
	assert_false(ring_next(&f->arena, 0, &at, &item));
}

static void
a_death_after_a_move_is_settled_at_what_was_metered(void **state)
{
	struct fixture *f = *state;
	struct charge key = budget(1, 1000, 100), a[2] = { key, budget(2, 1000, 100) }, b[2] = { key, budget(3, 1000, 100) };
	struct inflight *e = sent(f, a, 2);
	struct metered more = metered(90, 0);

	moved(f, &e, 20, 0, b, 2);
	write_record(e, 'm', 5);
	inflight_metered(e, &more);
	struct orphan o = reclaimed(f);
	assert_int_equal(o.first, 'm');
	assert_int_equal(spent(f, &key), 90);
	assert_int_equal(spent(f, &a[1]), 20);
	assert_int_equal(spent(f, &b[1]), 70);
	assert_int_equal(ledger_inflight_held(&f->arena), 0);
	drain(f);

	/* One that had not been sent is cancelled, wherever it is. */
	e = admitted_all(f, a, 2, NULL);
	moved(f, &e, 0, 0, b, 2);
	assert_int_equal(reclaimed(f).state, INFLIGHT_ADMITTED);
	assert_int_equal(spent(f, &b[1]), 70);

	/* A worker that forgot what was used before: the master ends it all the same. */
	struct metered less = metered(5, 0);
	e = sent(f, a, 2);
	moved(f, &e, 20, 0, b, 2);
	inflight_metered(e, &less);
	reclaimed(f);
	assert_int_equal(spent(f, &key), 95);
	assert_int_equal(spent(f, &a[1]), 40);
	assert_int_equal(spent(f, &b[1]), 70);
}

static void
a_full_ring_waits_with_closed_holds(void **state)
{
	struct fixture *f = *state;
	struct charge a[2] = { budget(1, UNLIMITED, 100), bucket_charge(2, 1000, MINUTE, 1) }, b = budget(3, UNLIMITED, 100);
	struct settled used = { 50, 0 };
	enum settle_verdict v = SETTLED;
	uint32_t items = 0;
	struct inflight *e = NULL;

	for (; v == SETTLED; items++) {
		e = sent(f, a, 2);
		write_record(e, 'r', RECORD_BYTES_MAX);
		moved(f, &e, 20, 0, &b, 1);
		v = ledger_settle(&f->arena, 0, e, &used, f->now);
	}
	assert_int_equal(v, SETTLE_RING_FULL);
	assert_int_equal(held(f, &a[0]), 20);
	struct orphan o = { 0 };
	assert_int_equal(ledger_reclaim(&f->arena, 0, finish, &o, f->now), 1);
	drain(f);
	assert_int_equal(ledger_settle(&f->arena, 0, e, &used, f->now), SETTLED);
	assert_booked(f, &a[0], 20, 20);
	assert_booked(f, &b, 100, 30);
	assert_booked(f, &a[1], 1, 1);
	assert_int_equal(o.calls, 0);
	assert_int_equal(spent(f, &a[0]), 20 * (int64_t)items);
	assert_int_equal(spent(f, &b), 30 * (int64_t)items);
}

/* ---- eviction ---- */

/* The keeper may look at the new page before a move and at the old one after
 * it. So each meter of the new page is in the present tick, and stays. */
static void
meters_of_a_request_that_moves_stay(void **state)
{
	struct fixture *f = *state;
	struct charge a[4] = { bucket_charge(1, 1000000000, MINUTE, 1), budget(2, 1000, 10), tokens(3, 1000, 10),
		budget(4, 1000, 10) };
	struct charge b = budget(5, 1000, 10);
	struct inflight *e;

	a[3].mode = MODE_POSTPAID;
	e = sent(f, a, 4);
	for (int round = 0; round < 3; round++) {
		uint64_t tick = ledger_tick(&f->arena);

		f->now.mono_ns += MINUTE;	/* buckets are full */
		moved(f, &e, 7, 7, &b, 1);
		for (uint32_t i = 0; i < word_get(&e->holds); i++)
			assert_int_equal(word_get(&hold_meter(&f->arena, &e->hold[i])->what) >> WHAT_TICK_SHIFT, tick);
		assert_int_equal(word_get(&e->holds), 5);
		assert_int_equal(ledger_evict(&f->arena, ledger_tick(&f->arena), 0, METERS, f->now), 0);
	}
	settled_at(f, e, 7, 7);
	drain(f);
	f->now.mono_ns += 10 * MINUTE;
	assert_int_equal(ledger_evict(&f->arena, ledger_tick(&f->arena), 0, METERS, f->now), 5);
}

/* ---- bugs ---- */

enum bug { CANCEL_AFTER_SENT, USED_GOES_DOWN, SETTLED_BELOW, USED_BEFORE_SENT, NEGATIVE, BUGS };

static void
do_wrong(struct fixture *f, enum bug bug)
{
	struct charge a = budget(1, 1000, 100), b = budget(2, 1000, 100);
	struct inflight *e = bug == USED_BEFORE_SENT ? admitted(f, a) : sent(f, &a, 1);
	struct settled less = { 19, 0 };

	moved(f, &e, bug == NEGATIVE ? -1 : 20, 0, &b, 1);
	if (bug == CANCEL_AFTER_SENT && ledger_cancel(&f->arena, 0, e, true, f->now) != SETTLED)
		_exit(1);
	if (bug == USED_GOES_DOWN)
		moved(f, &e, 19, 0, &b, 1);
	if (bug == SETTLED_BELOW && ledger_settle(&f->arena, 0, e, &less, f->now) != SETTLED)
		_exit(1);
}

static void
bugs_end_the_process(void **state)
{
	const struct rlimit no_core = { 0, 0 };

	for (enum bug bug = 0; bug < BUGS; bug++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0) {
			setrlimit(RLIMIT_CORE, &no_core);
			signal(SIGABRT, SIG_DFL);
			do_wrong(*state, bug);
			_exit(0);
		}
		assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
		reclaimed(*state);		/* in whatever step it was */
		drain(*state);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_page_has_room_for_so_many, setup_small, teardown),
		TEST(the_longest_steps_fit_into_the_journal),
		TEST(a_page_takes_everything_along),
		TEST(a_death_after_a_move_is_settled_at_what_was_metered),
		TEST(a_full_ring_waits_with_closed_holds),
		TEST(meters_of_a_request_that_moves_stay),
		TEST(bugs_end_the_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
