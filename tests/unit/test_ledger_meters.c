/*
 * Meters that come and go: loaded with what the store knows, evicted when it
 * knows all of them and nobody has them, counted in groups, set back by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "shm/inflight.h"
#include "tests/unit/ledger_fixture.h"

#define ALL UINT32_MAX		/* to evict */

static bool
in_memory(struct fixture *f, struct meter_id id)
{
	struct meter_view v;

	return ledger_meter(&f->arena, id, f->now, &v);
}

/* Everything that was charged so far is stored; meters that nobody used since
 * are taken out. */
static uint32_t
evicted(struct fixture *f, uint32_t most)
{
	return ledger_evict(&f->arena, ledger_tick(&f->arena), 1, most, f->now);
}

/* ---- loading ---- */

static void
an_unknown_meter_is_named_and_nothing_charged(void **state)
{
	struct fixture *f = *state;
	struct charge c[3] = { bucket_charge(1, 10, MINUTE, 1), budget_charge(2, PERIOD_DAILY, 100, 10),
		budget_charge(3, PERIOD_DAILY, 100, 10) };
	struct inflight *e = NULL;
	struct refusal why;

	assert_int_equal(load(f, &c[0], &nothing), LOAD_DONE);
	assert_int_equal(load(f, &c[2], &nothing), LOAD_DONE);
	c[0].row = c[1].row = c[2].row = 17;		/* hints are only hints */
	assert_int_equal(ledger_admit(&f->arena, 0, c, 3, NULL, f->now, &e, &why), LEDGER_UNKNOWN);
	assert_int_equal(why.charge, 1);
	assert_null(e);
	assert_int_equal(view(f, c[0].id).tokens, 10);
	assert_int_equal(ledger_meters_used(&f->arena), 2);
	assert_int_equal(load(f, &c[1], &nothing), LOAD_DONE);
	assert_int_equal(ledger_admit(&f->arena, 0, c, 3, NULL, f->now, &e, &why), LEDGER_ADMITTED);
	for (uint32_t hint = 0; hint < METERS + 2; hint++) {
		c[1].row = hint;
		ledger_prefetch(&f->arena, c, 3);
		assert_int_equal(ledger_admit(&f->arena, 0, &c[1], 0, NULL, f->now, &e, &why), LEDGER_ADMITTED);
		cancelled(f, e);
	}
}

static void
levels_come_from_the_store(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_MONTHLY, 1000, 300), d = budget_charge(2, PERIOD_MONTHLY, 1000, 300);
	int64_t month = period_index(monthly, f->now.wall_ns);
	struct level l = { .known = true, .what = meter_what(&c), .period_index = month, .spent = 800 };
	struct refusal why;
	struct inflight *e;

	c.name = "key eng/ci monthly budget";
	c.alert = 900;
	assert_int_equal(load(f, &c, &l), LOAD_DONE);
	assert_int_equal(fixture_admit(f, 0, &c, 1, NULL, &e, &why), LEDGER_REFUSED);
	assert_int_equal(why.spent, 800);
	struct meter_view v = view(f, c.id);
	assert_string_equal(v.name, "key eng/ci monthly budget");
	assert_int_equal(v.alert, 900);
	assert_int_equal(v.unit, UNIT_NUSD);
	/* Somebody else was faster: what is there stays. */
	l.spent = 5;
	assert_int_equal(load(f, &c, &l), LOAD_DONE);
	assert_int_equal(view(f, c.id).spent, 800);
	l.period_index = month - 1;
	l.spent = 900;
	assert_int_equal(load(f, &d, &l), LOAD_DONE);
	settled(f, admitted(f, d), 1);		/* that was last month */
	assert_int_equal(view(f, d.id).spent, 1);
}

/* What was another kind of meter, or nonsense, is not taken for a level. */
static void
levels_of_something_else_are_not_used(void **state)
{
	struct fixture *f = *state;
	struct charge money = budget_charge(1, PERIOD_TOTAL, 1000, 1), tokens = money, days = money;
	struct level l = { .known = true, .what = meter_what(&money), .spent = 500 };

	tokens.id.lo = 2;
	tokens.unit = UNIT_TOKENS;
	assert_int_equal(load(f, &tokens, &l), LOAD_DONE);
	assert_int_equal(view(f, tokens.id).spent, 0);
	days.id.lo = 3;
	l.what |= PERIOD_DAYS << 9;		/* of no days */
	assert_int_equal(load(f, &days, &l), LOAD_DONE);
	assert_int_equal(view(f, days.id).spent, 0);
	l.what = meter_what(&money);
	l.spent = -7;
	assert_int_equal(load(f, &money, &l), LOAD_DONE);
	assert_int_equal(view(f, money.id).spent, 0);
}

static void
buckets_come_back_by_the_wall_clock(void **state)
{
	static const struct { int64_t full_in_ns, expected_ns; } cases[] = {
		{ -DAY, 0 }, { 0, 0 }, { 1, 1 }, { 30 * NS_PER_S, 30 * NS_PER_S }, { MINUTE, MINUTE },
		{ MINUTE + 1, MINUTE },
		{ 365 * DAY, MINUTE },		/* the clock was ahead, and is right now */
		{ INT64_MAX - FIXTURE_WALL_NS, MINUTE },
	};
	struct fixture *f = *state;

	for (uint64_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct charge c = bucket_charge(i + 1, 60, MINUTE, 1);
		struct level l = { .known = true, .what = meter_what(&c),
			.full_wall_ns = f->now.wall_ns + cases[i].full_in_ns };

		assert_int_equal(load(f, &c, &l), LOAD_DONE);
		assert_int_equal(view(f, c.id).full_in_ns, cases[i].expected_ns);
	}
}

static void
an_old_level_is_not_loaded(void **state)
{
	struct fixture *f = *state;
	struct charge other = bucket_charge(1, 10, MINUTE, 0), c = budget_charge(2, PERIOD_TOTAL, 100, 10);
	uint64_t before = ledger_evictions(&f->arena);

	assert_int_equal(load(f, &other, &nothing), LOAD_DONE);
	assert_int_equal(evicted(f, ALL), 1);
	assert_int_equal(ledger_load(&f->arena, 0, &c, &nothing, before, f->now), LOAD_STALE);
	assert_false(in_memory(f, c.id));
	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
	/* One that is there is not made again, and so is never too old. */
	assert_int_equal(ledger_load(&f->arena, 0, &c, &nothing, before, f->now), LOAD_DONE);
}

static void
a_full_table_says_so(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 100, MINUTE, 50), more = bucket_charge(999, 100, MINUTE, 1);
	struct charge_group group = { .id = { 5, 1 }, .overflow = { 5, 2 }, .most = 9, .name = "g", .overflow_name = "o" };
	struct meter_view v;
	uint32_t seen = 0;

	for (uint64_t id = 1; id <= METERS; id++) {
		c = bucket_charge(id, 100, MINUTE, 50);
		assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
		settled(f, admitted(f, c), 0);
		if (id == METERS - 1) {		/* one row: for the group, but not for its meter too */
			more.group = &group;
			assert_int_equal(load(f, &more, &nothing), LOAD_FULL);
			assert_false(in_memory(f, group.id));
			assert_int_equal(ledger_meters_used(&f->arena), METERS - 1);
			more.group = NULL;
		}
	}
	assert_int_equal(ledger_meters_used(&f->arena), METERS);
	assert_int_equal(load(f, &more, &nothing), LOAD_FULL);
	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);	/* that one is there */
	for (uint32_t row = 0; row < ledger_meter_rows(&f->arena); row++)
		seen += ledger_meter_at(&f->arena, row, f->now, &v);
	assert_int_equal(seen, METERS);
	f->now.mono_ns += MINUTE;
	assert_int_equal(evicted(f, 1), 1);
	assert_int_equal(load(f, &more, &nothing), LOAD_DONE);	/* there is room again */
	assert_int_equal(ledger_meter_rows(&f->arena), METERS);
}

static void
long_names_are_cut(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 100, 10);
	char name[200], cut[METER_NAME_BYTES];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	memset(cut, 'n', sizeof(cut) - 1);
	cut[sizeof(cut) - 1] = '\0';
	c.name = name;
	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
	assert_string_equal(view(f, c.id).name, cut);
	assert_int_equal(evicted(f, ALL), 1);
	c.name = "short";			/* in the same row */
	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
	assert_string_equal(view(f, c.id).name, "short");
}

/* ---- eviction ---- */

static void
only_what_is_idle_and_stored_goes(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 10);
	uint64_t tick = ledger_tick(&f->arena);

	settled(f, admitted(f, c), 7);		/* in this tick: perhaps not in the store yet */
	assert_int_equal(ledger_evict(&f->arena, tick, 0, ALL, f->now), 0);
	tick = ledger_tick(&f->arena);
	assert_int_equal(ledger_evict(&f->arena, tick, 2, ALL, f->now), 0);	/* not idle for long enough */
	assert_int_equal(ledger_evict(&f->arena, tick - 1, 1, ALL, f->now), 0);
	assert_int_equal(ledger_evict(&f->arena, tick, 1, 0, f->now), 0);
	assert_int_equal(ledger_evict(&f->arena, tick, 1, ALL, f->now), 1);
	assert_false(in_memory(f, c.id));
	assert_int_equal(ledger_meters_used(&f->arena), 0);
	assert_int_equal(ledger_inflight_held(&f->arena), 0);

	/* A request that ends is a use of its budgets. */
	struct inflight *e = admitted(f, c);
	uint64_t old = ledger_tick(&f->arena);
	settled(f, e, 7);
	assert_int_equal(ledger_evict(&f->arena, old, 0, ALL, f->now), 0);
	assert_int_equal(evicted(f, ALL), 1);
}

/* Whether or not it holds anything there, and in whatever state it is. */
static void
a_request_in_flight_keeps_its_meters(void **state)
{
	struct fixture *f = *state;
	struct charge c[5] = { budget_charge(1, PERIOD_DAILY, 1000, 10), budget_charge(2, PERIOD_DAILY, 1000, 10),
		bucket_charge(3, 10, MINUTE, 1), bucket_charge(4, 1000, MINUTE, 10), concurrency_charge(5, 9) };
	struct ring_cursor at;
	struct ring_item item;
	struct inflight *e;
	struct refusal why;

	c[1].mode = MODE_POSTPAID;
	c[3].unit = UNIT_TOKENS;
	assert_int_equal(fixture_admit(f, 1, c, 5, NULL, &e, &why), LEDGER_ADMITTED);
	f->now.mono_ns += 10 * MINUTE;		/* the buckets are full again */
	assert_int_equal(evicted(f, ALL), 0);
	inflight_sent(e);
	assert_int_equal(evicted(f, ALL), 0);

	/* Another worker's meters go meanwhile, and their rows are used again. */
	for (uint64_t id = 10; id < 20; id++)
		cancelled(f, admitted(f, bucket_charge(id, 10, MINUTE, 1)));
	assert_int_equal(evicted(f, ALL), 10);
	cancelled(f, admitted(f, bucket_charge(77, 10, MINUTE, 1)));
	assert_int_equal(evicted(f, ALL), 1);

	/* Complete, but the ring is full. */
	memset(inflight_record(e), 'x', RECORD_BYTES_MAX);
	inflight_record_set(e, RECORD_BYTES_MAX);
	const struct settled used = { 5, 5 };
	uint32_t small = 0;
	while (ring_fill_permille(&f->arena, 1) < 960) {
		struct inflight *filler;
		assert_int_equal(ledger_admit(&f->arena, 1, NULL, 0, NULL, f->now, &filler, &why), LEDGER_ADMITTED);
		inflight_record_set(filler, 500);
		assert_int_equal(ledger_settle(&f->arena, 1, filler, &used, f->now), SETTLED);
		small++;
	}
	assert_int_equal(ledger_settle(&f->arena, 1, e, &used, f->now), SETTLE_RING_FULL);
	assert_int_equal(evicted(f, ALL), 0);
	for (at = ring_begin(&f->arena, 1); ring_next(&f->arena, 1, &at, &item); small--)
		;
	assert_int_equal(small, 0);
	ring_advance(&f->arena, 1, at);
	assert_int_equal(ledger_settle(&f->arena, 1, e, &used, f->now), SETTLED);
	assert_int_equal(evicted(f, ALL), 5);
}

static void
a_bucket_goes_when_it_is_full(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 6, MINUTE, 1);

	settled(f, admitted(f, c), 0);
	f->now.mono_ns += 10 * NS_PER_S - 1;
	f->now.wall_ns += DAY;			/* that clock means nothing */
	assert_int_equal(evicted(f, ALL), 0);
	f->now.mono_ns += 1;
	assert_int_equal(evicted(f, ALL), 1);
}

/* A worker dies in the step that ends its request. The keeper looks at its page
 * in that moment and sees a free one, which its own next step takes back. */
static void
what_is_rolled_back_was_never_free(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 10);
	int status;

	c.mode = MODE_POSTPAID;			/* so only the page tells of it */
	struct inflight *e = admitted(f, c);
	uint64_t tick = ledger_tick(&f->arena);
	pid_t pid = fork();
	if (pid == 0) {
		struct step s = journal_begin(&f->arena, 0);

		inflight_release(&s, e);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(word_get(&e->status) & INFLIGHT_STATE, INFLIGHT_FREE);
	assert_int_equal(ledger_evict(&f->arena, tick, 1, ALL, f->now), 0);
	assert_int_equal(word_get(&e->status) & INFLIGHT_STATE, INFLIGHT_ADMITTED);
	assert_int_equal(ledger_evict(&f->arena, tick, 1, ALL, f->now), 0);
	settled(f, e, 3);
	assert_int_equal(view(f, c.id).spent, 3);
}

/* ---- the index, as meters come and go ---- */

struct reference {
	struct fixture *f;
	uint64_t random;
	bool there[4 * METERS];		/* by id.lo - 1 */
	struct inflight *pin[4 * METERS];
	uint32_t count;
};

static uint64_t
draw(struct reference *r, uint64_t below)
{
	r->random ^= r->random << 13;
	r->random ^= r->random >> 7;
	r->random ^= r->random << 17;
	return r->random % below;
}

static void
check_table(struct reference *r)
{
	struct meter_view v;
	uint32_t rows = 0;

	for (uint64_t i = 0; i < 4 * METERS; i++)
		assert_int_equal(in_memory(r->f, (struct meter_id){ 1, i + 1 }), r->there[i]);
	for (uint32_t row = 0; row < ledger_meter_rows(&r->f->arena); row++)
		rows += ledger_meter_at(&r->f->arena, row, r->f->now, &v);
	assert_int_equal(rows, r->count);
	assert_int_equal(ledger_meters_used(&r->f->arena), r->count);
}

static void
load_or_pin(struct reference *r, uint64_t i)
{
	struct charge c = bucket_charge(i + 1, 1000, MINUTE, 1);

	if (!r->there[i]) {
		enum load_result result = load(r->f, &c, &nothing);

		assert_int_equal(result, r->count < METERS ? LOAD_DONE : LOAD_FULL);
		r->count += result == LOAD_DONE;
		r->there[i] = result == LOAD_DONE;
	} else if (r->pin[i]) {
		cancelled(r->f, r->pin[i]);
		r->pin[i] = NULL;
	} else {
		r->pin[i] = admitted(r->f, c);
	}
}

static void
the_index_finds_what_is_there_and_nothing_else(void **state)
{
	struct reference *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->f = *state;
	r->random = 99;
	for (int round = 0; round < 4000; round++) {
		for (uint64_t k = draw(r, 40); k > 0; k--)
			load_or_pin(r, draw(r, 4 * METERS));
		if (draw(r, 3) == 0) {
			uint32_t most = (uint32_t)draw(r, METERS), out = evicted(r->f, most);

			assert_true(out <= most);
			for (uint64_t i = 0; i < 4 * METERS && out > 0; i++)
				if (r->there[i] && !in_memory(r->f, (struct meter_id){ 1, i + 1 })) {
					assert_null(r->pin[i]);
					r->there[i] = false;
					r->count--;
					out--;
				}
			assert_int_equal(out, 0);
		}
		check_table(r);
	}
	free(r);
}

/* The tag that stands in the index for a meter that is in memory. */
static uint64_t
tag_in_index(struct fixture *f, uint32_t row)
{
	for (uint32_t at = 0; at < METERS * INDEX_FACTOR; at++) {
		uint64_t word = word_get(&layout_index(&f->arena)[at]);

		if ((uint32_t)word == row + 1)
			return word >> 32;
	}
	fail_msg("row %u is not in the index", row);
	return 0;
}

/* Half of the table wants to stand in one place: too many for one step to move,
 * so the first ones stay until those behind them are gone. */
static void
a_crowd_in_the_index_goes_from_its_end(void **state)
{
	struct fixture *f = *state;
	struct inflight *pin[METERS];
	uint64_t id[METERS];
	uint32_t crowd = 0;

	for (uint64_t next = 1; crowd < 50; next++) {
		struct charge c = bucket_charge(next, 10, MINUTE, 1);

		assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
		if ((tag_in_index(f, c.row) & (METERS * INDEX_FACTOR - 1)) < 4) {
			pin[crowd] = admitted(f, c);
			id[crowd++] = next;
		} else {
			evicted(f, ALL);
		}
	}
	for (uint32_t i = 0; i < crowd; i++)
		cancelled(f, pin[i]);
	uint32_t used = ledger_meters_used(&f->arena), out = evicted(f, ALL);
	assert_true(out > 0 && out < used);
	for (int rounds = 0; out < used && rounds < METERS; rounds++) {
		uint32_t there = 0;

		for (uint32_t i = 0; i < crowd; i++)
			there += in_memory(f, (struct meter_id){ 1, id[i] });
		assert_true(there <= used - out);
		assert_int_equal(ledger_meters_used(&f->arena), used - out);
		out += evicted(f, ALL);
	}
	assert_int_equal(out, used);
	assert_int_equal(ledger_meters_used(&f->arena), 0);
}

/* ---- groups ---- */

static const struct charge_group team = {
	.id = { 8, 1 }, .overflow = { 8, 2 }, .most = 3,
	.name = "policy per-user", .overflow_name = "policy per-user: all others",
};

static struct charge
member(uint64_t id)
{
	struct charge c = budget_charge(id, PERIOD_DAILY, 1000, 10);

	c.group = &team;
	c.name = "policy per-user metadata.user:somebody";
	return c;
}

static void
a_full_group_shares_one_meter(void **state)
{
	struct fixture *f = *state;
	struct level stored = { .known = true, .spent = 40 };
	struct charge c;

	for (uint64_t id = 1; id <= 3; id++) {
		c = member(id);
		assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
		assert_false(c.overflowed);
	}
	assert_int_equal(view(f, team.id).kind, METER_GROUP);
	assert_int_equal(view(f, team.id).spent, 3);
	assert_int_equal(view(f, team.id).limit, 3);
	assert_string_equal(view(f, team.id).name, "policy per-user");

	c = member(4);
	assert_int_equal(load(f, &c, &nothing), LOAD_STALE);	/* that was not the overflow's level */
	assert_true(c.overflowed);
	assert_true(c.id.hi == 8 && c.id.lo == 2);
	stored.what = meter_what(&c);
	stored.period_index = f->now.wall_ns / DAY;
	assert_int_equal(load(f, &c, &stored), LOAD_DONE);
	assert_int_equal(view(f, team.overflow).spent, 40);
	assert_string_equal(view(f, team.overflow).name, "policy per-user: all others");
	assert_int_equal(view(f, team.id).spent, 3);		/* it is none of them */
	settled(f, admitted(f, c), 5);
	struct charge fifth = member(5);
	assert_int_equal(load(f, &fifth, &nothing), LOAD_DONE);	/* it is there already */
	assert_true(fifth.overflowed);
	assert_int_equal(fifth.row, c.row);
	settled(f, admitted(f, fifth), 5);
	assert_int_equal(view(f, team.overflow).spent, 50);
	assert_false(in_memory(f, (struct meter_id){ 2, 4 }));
}

static void
an_evicted_member_makes_room_in_its_group(void **state)
{
	struct fixture *f = *state;
	struct charge c;

	for (uint64_t id = 1; id <= 3; id++)
		settled(f, admitted(f, member(id)), 1);
	struct inflight *e = admitted(f, member(2));
	assert_int_equal(evicted(f, ALL), 2);			/* not the one in flight, nor the group */
	assert_int_equal(view(f, team.id).spent, 1);
	for (uint64_t id = 4; id <= 5; id++) {
		c = member(id);
		assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
		assert_false(c.overflowed);
	}
	c = member(6);
	assert_int_equal(load(f, &c, &nothing), LOAD_STALE);
	cancelled(f, e);
	assert_int_equal(evicted(f, ALL), 3);
	assert_int_equal(view(f, team.id).spent, 0);
	assert_int_equal(evicted(f, ALL), 1);			/* nobody needs to be counted */
	assert_int_equal(ledger_meters_used(&f->arena), 0);
}

/* A setting that was lowered: nobody is thrown out, nobody comes in. */
static void
a_smaller_group_takes_no_more(void **state)
{
	struct fixture *f = *state;
	struct charge_group smaller = team;
	struct charge c = member(1);

	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
	c = member(2);
	assert_int_equal(load(f, &c, &nothing), LOAD_DONE);
	smaller.most = 1;
	c = member(3);
	c.group = &smaller;
	assert_int_equal(load(f, &c, &nothing), LOAD_STALE);
	assert_true(c.overflowed);
	assert_int_equal(view(f, team.id).spent, 2);
}

/* ---- set back by hand ---- */

static void
reset_forgets_what_was_spent_and_keeps_holds(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 100);
	uint32_t row = ledger_tools_row(&f->arena);
	struct ring_cursor at = ring_begin(&f->arena, row);
	struct ring_item item;

	settled(f, admitted(f, c), 700);
	struct inflight *e = admitted(f, c);
	assert_int_equal(ledger_reset(&f->arena, c.id, "by me", 5, f->now), RESET_DONE);
	assert_int_equal(view(f, c.id).spent, 0);
	assert_int_equal(view(f, c.id).held, 100);
	assert_true(ring_next(&f->arena, row, &at, &item));
	assert_int_equal(item.sequence, 1);
	assert_memory_equal(item.record, "by me", 5);
	assert_int_equal(item.charges, 1);
	assert_int_equal(item.charge[0].amount, -700);
	assert_int_equal(item.charge[0].held, 0);
	assert_int_equal(item.charge[0].period_index, f->now.wall_ns / DAY);
	assert_int_equal(item.charge[0].what, meter_what(&c));
	assert_false(ring_next(&f->arena, row, &at, &item));
	settled(f, e, 100);
	assert_int_equal(view(f, c.id).spent, 100);

	/* Of a day that is over there is nothing left to forget. */
	f->now.wall_ns += DAY;
	assert_int_equal(ledger_reset(&f->arena, c.id, "", 0, f->now), RESET_DONE);
	assert_true(ring_next(&f->arena, row, &at, &item));
	assert_int_equal(item.charge[0].amount, 0);
	assert_int_equal(item.charge[0].period_index, f->now.wall_ns / DAY);
	/* It was used: what the store has of it is not all yet. */
	assert_int_equal(ledger_evict(&f->arena, word_get(&f->arena.header->ledger.tick), 0, ALL, f->now), 0);
}

static void
reset_fills_a_bucket(void **state)
{
	struct fixture *f = *state;
	struct charge c = bucket_charge(1, 1000, MINUTE, 600), old = c;
	struct ring_cursor at = ring_begin(&f->arena, 2);
	struct ring_item item;

	c.unit = old.unit = UNIT_TOKENS;
	old.fixed = 300;
	struct inflight *e = admitted(f, c);
	settled_at(f, admitted(f, old), 0, 300);
	assert_int_equal(view(f, c.id).tokens, 100);
	assert_int_equal(ledger_reset(&f->arena, c.id, "", 0, f->now), RESET_DONE);
	assert_int_equal(view(f, c.id).tokens, 400);	/* what is held is held */
	assert_true(ring_next(&f->arena, 2, &at, &item));
	assert_int_equal(item.charge[0].amount, 0);
	assert_int_equal(item.charge[0].full_wall_ns, f->now.wall_ns + 36 * NS_PER_S);
	f->now.mono_ns += MINUTE / 2;			/* it holds less than it refilled */
	assert_int_equal(ledger_reset(&f->arena, c.id, "", 0, f->now), RESET_DONE);
	assert_int_equal(view(f, c.id).tokens, 900);	/* and a reset takes nothing */
	settled_at(f, e, 0, 600);
}

static void
reset_of_what_is_not_there(void **state)
{
	struct fixture *f = *state;
	struct charge c = member(1);
	char record[RECORD_BYTES_MAX] = "";

	assert_int_equal(ledger_reset(&f->arena, c.id, "", 0, f->now), RESET_UNKNOWN);
	settled(f, admitted(f, c), 5);
	assert_int_equal(ledger_reset(&f->arena, team.id, "", 0, f->now), RESET_UNKNOWN);
	assert_int_equal(view(f, team.id).spent, 1);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ledger_reset(&f->arena, c.id, record, sizeof(record), f->now), RESET_DONE);
	settled(f, admitted(f, c), 5);
	assert_int_equal(ledger_reset(&f->arena, c.id, record, sizeof(record), f->now), RESET_RING_FULL);
	assert_int_equal(view(f, c.id).spent, 5);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_unknown_meter_is_named_and_nothing_charged),
		TEST(levels_come_from_the_store),
		TEST(levels_of_something_else_are_not_used),
		TEST(buckets_come_back_by_the_wall_clock),
		TEST(an_old_level_is_not_loaded),
		TEST(a_full_table_says_so),
		TEST(long_names_are_cut),
		TEST(only_what_is_idle_and_stored_goes),
		TEST(a_request_in_flight_keeps_its_meters),
		TEST(a_bucket_goes_when_it_is_full),
		TEST(what_is_rolled_back_was_never_free),
		TEST(the_index_finds_what_is_there_and_nothing_else),
		TEST(a_crowd_in_the_index_goes_from_its_end),
		TEST(a_full_group_shares_one_meter),
		TEST(an_evicted_member_makes_room_in_its_group),
		TEST(a_smaller_group_takes_no_more),
		TEST(reset_forgets_what_was_spent_and_keeps_holds),
		TEST(reset_fills_a_bucket),
		TEST(reset_of_what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
