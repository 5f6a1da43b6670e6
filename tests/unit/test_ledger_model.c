/*
 * The ledger against a reference that is too simple to be wrong
 * (reference_ledger.h), in random traces: admit, move, settle, cancel, deaths and
 * reclaims, resets, evictions and loads, limits, modes and periods that change,
 * clocks that jump over a period or step back. After each operation verdicts,
 * refusals, what was granted and what the meters show must agree exactly; so
 * must every item of the rings when it is read. A refusal by a bucket is put to
 * the test: a nanosecond before its time it stands, at its time it does not.
 *
 *	WEIR_MODEL_SEED=n WEIR_MODEL_OPERATIONS=n test_ledger_model
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <string.h>

#include "tests/unit/ledger_world.h"

#define OPERATIONS 1200000	/* in one world; its clock would leave 64 bits after four times as many */
#define TEXT_MAX 160
#define NEVER (-1)

/* ---- requests ---- */

static void
draw_amount(struct charge *c, bool with_slope)
{
	uint64_t size = (uint64_t)world.spec[c->id.lo - 1].usual_limit;

	c->slope_milli = 0;
	if (c->kind == METER_CONCURRENCY) {
		c->fixed = once_in(20) ? (int64_t)draw(3) : 1;
		return;
	}
	c->fixed = once_in(8) ? 0 : (int64_t)draw(size / 16 + 2);
	if (with_slope && may_be_lowered(c) && !once_in(4))
		c->slope_milli = (int64_t)draw(size / 8 + 2);
	if (once_in(300))
		c->fixed = c->limit + (int64_t)draw(3) - 1;
	if (once_in(1500) && c->mode != MODE_POSTPAID)
		c->fixed = INT64_MAX - (int64_t)draw(3);
	if (once_in(1500) && c->mode != MODE_POSTPAID && c->slope_milli > 0)
		c->slope_milli = INT64_MAX / (1 + (int64_t)draw(5000));
	if (c->fixed < 0)
		c->fixed = 0;
}

/* A meter that the request has, as often as not. */
static uint32_t
draw_spec(const struct reference_request *has)
{
	if (has && has->parts > 0 && once_in(2)) {
		struct meter_id id = world.r.meter[has->part[draw(has->parts)].meter].id;

		if (id.hi == SPEC_ID_HI)
			return (uint32_t)id.lo - 1;
	}
	return (uint32_t)draw(world.usual);
}

/* has: of a request that goes on, or NULL. */
static uint32_t
draw_charges(struct charge *c, const struct reference_request *has)
{
	bool many = once_in(16), with_slope = !many && !once_in(3);
	uint32_t n = (uint32_t)draw(many ? CHARGES_MAX + 1 : CHARGES);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t spec = many ? (uint32_t)draw(world.specs) : draw_spec(has);

		c[i] = world.spec[i > 0 && once_in(10) ? c[draw(i)].id.lo - 1 : spec].c;
		draw_amount(&c[i], with_slope);
		if (many)
			c[i].fixed = 1;		/* or they would seldom all fit */
		c[i].row = (uint32_t)draw(ROWS + 1);	/* a hint is only a hint */
	}
	return n;
}

static struct demand
draw_demand(void)
{
	static const uint32_t shares[] = { 1, 2, 8, 8, 8, 100 };
	struct demand d = { .most = (int64_t)draw(once_in(4) ? 20000 : 3000), .share = shares[draw(6)] };

	d.floor = (int64_t)draw(once_in(4) ? 5000 : 300);
	return d;
}

static void
compare_refusal(const struct refusal *have, const struct refusal *want)
{
	agree("which charge refuses", have->charge, want->charge);
	agree("limit", have->limit, want->limit);
	agree("spent, of a refusal", have->spent, want->spent);
	agree("held, of a refusal", have->held, want->held);
	agree("need", have->need, want->need);
	agree("wait", have->wait_ns, want->wait_ns);
	agree("may fit", have->may_fit, want->may_fit);
	world.count.may_fit += have->may_fit;
}

static bool
last_on_meter(const struct charge *c, uint32_t n, uint32_t i)
{
	for (uint32_t j = i + 1; j < n; j++)
		if (c[j].id.hi == c[i].id.hi && c[j].id.lo == c[i].id.lo)
			return false;
	return true;
}

static void
compare_admission(const struct charge *c, uint32_t n, const struct demand *d, const struct reference_answer *want)
{
	if (d) {
		agree("granted", d->granted, want->granted);
		agree("lowered by", d->lowered_by, want->lowered_by);
		world.count.clamped += d->granted < d->most;
	}
	for (uint32_t i = 0; i < n; i++) {
		agree("taken", c[i].taken, want->taken[i]);
		if (last_on_meter(c, n, i))
			agree("left", charge_left(&c[i], world.f.now), want->left[i]);
	}
}

static void
compare_answers(enum ledger_verdict have, const struct charge *c, uint32_t n, const struct demand *d,
    const struct refusal *why, const struct reference_answer *want)
{
	agree("verdict", have, want->verdict);
	if (have == LEDGER_REFUSED)
		compare_refusal(why, &want->why);
	if (have == LEDGER_UNKNOWN)
		agree("which charge is unknown", why->charge, want->why.charge);
	if (have == LEDGER_ADMITTED)
		compare_admission(c, n, d, want);
}

static enum ledger_verdict
admit(struct charge *c, uint32_t n, struct demand *d, struct refusal *why)
{
	struct open_request *o = &world.open[world.opened];
	uint32_t worker = (uint32_t)draw(WORKERS);
	struct reference_answer want = { .verdict = LEDGER_BUSY };

	if (world.opened_by[worker] < OPEN_MAX)
		want = reference_admit(&world.r, c, n, d, world.f.now);
	enum ledger_verdict have = ledger_admit(&world.f.arena, worker, c, n, d, world.f.now, &o->e, why);
	compare_answers(have, c, n, d, why, &want);
	world.count.refused += have == LEDGER_REFUSED;
	if (have == LEDGER_ADMITTED) {
		*o = (struct open_request){ .e = o->e, .worker = worker, .q = want.request };
		world.opened++;
		world.opened_by[worker]++;
		world.count.admitted++;
	}
	return have;
}

static void
count_parts(const struct reference_request *from, const struct reference_request *to)
{
	for (uint32_t i = 0; i < to->parts; i++)
		world.count.closed += to->part[i].closed;
	for (uint32_t i = 0; i < from->parts; i++)
		for (uint32_t j = 0; from->part[i].closed && j < to->parts; j++)
			world.count.reopened += to->part[j].meter == from->part[i].meter && !to->part[j].closed;
}

static enum ledger_verdict
move(struct open_request *o, struct charge *c, uint32_t n, struct demand *d, struct refusal *why)
{
	struct metered used = { { o->used.cost_nusd }, o->used.tokens, o->used.cost_nusd };
	struct reference_answer want = reference_move(&world.r, &o->q, o->sent, o->used, c, n, d, world.f.now);
	struct inflight *page = o->e;

	enum ledger_verdict have = ledger_move(&world.f.arena, o->worker, &o->e, &used, c, n, d, world.f.now, why);
	compare_answers(have, c, n, d, why, &want);
	agree("another page", o->e != page, have == LEDGER_ADMITTED);
	world.count.moves_refused += have == LEDGER_REFUSED;
	world.count.crowded += have == LEDGER_CROWDED;
	if (have == LEDGER_ADMITTED) {
		count_parts(&o->q, &want.request);
		o->q = want.request;
		o->metered = used;
		world.count.moved++;
	}
	return have;
}

/* One admission by both, or a move of the request that is named, with loads
 * until all meters are there. */
static enum ledger_verdict
ask(struct open_request *o, struct charge *c, uint32_t n, struct demand *d, struct refusal *why)
{
	for (uint32_t rounds = 0; rounds < 2 * CHARGES_MAX + 4; rounds++) {
		enum ledger_verdict have = o ? move(o, c, n, d, why) : admit(c, n, d, why);

		if (have != LEDGER_UNKNOWN || !load(&c[why->charge]))
			return have;
	}
	agree("rounds of loading", 1, 0);
	return LEDGER_BUSY;
}

/* Without a slope nothing but time changes what fits: the wait is exact. */
static void
try_the_wait(struct open_request *o, struct charge *c, uint32_t n, struct demand *d, const struct refusal *no)
{
	enum meter_kind kind = c[no->charge].kind;
	struct refusal why;

	for (uint32_t i = 0; i < n; i++)
		if (c[i].slope_milli > 0)
			return;
	if (kind != METER_BUCKET || no->wait_ns == NEVER)
		return;
	world.doing = "a wait for a bucket";
	world.f.now.mono_ns += no->wait_ns - 1;
	enum ledger_verdict early = ask(o, c, n, d, &why);
	if (early != LEDGER_BUSY)
		agree("a bucket refuses until its time", early, LEDGER_REFUSED);
	world.f.now.mono_ns += 1;
	if (early != LEDGER_BUSY && ask(o, c, n, d, &why) == LEDGER_REFUSED)
		agree("a bucket refuses at its time", c[why.charge].kind == METER_BUCKET, false);
	world.count.waited++;
}

/* Of a new request, or of one that goes on. */
static void
request(struct open_request *o)
{
	struct charge c[CHARGES_MAX];
	struct demand d = draw_demand();
	struct refusal why;
	uint32_t n = draw_charges(c, o ? &o->q : NULL);
	bool slope = false;

	for (uint32_t i = 0; i < n; i++)
		slope |= c[i].slope_milli > 0;
	struct demand *demand = slope || once_in(2) ? &d : NULL;
	if (ask(o, c, n, demand, &why) == LEDGER_REFUSED)
		try_the_wait(o, c, n, demand, &why);
}

static struct open_request
take_open(uint32_t k)
{
	struct open_request o = world.open[k];

	world.open[k] = world.open[--world.opened];
	world.opened_by[o.worker]--;
	return o;
}

static struct settled
draw_used(void)
{
	return (struct settled){
		.cost_nusd = once_in(6) ? 0 : (int64_t)draw(once_in(10) ? 50000 : 3000),
		.tokens = once_in(6) ? 0 : (int64_t)draw(once_in(10) ? 30000 : 2000),
	};
}

static void
write_record(struct open_request *o, uint32_t bytes)
{
	char *text = inflight_record(o->e);

	o->bytes = bytes;
	o->letter = (uint8_t)draw(256);
	for (uint32_t i = 0; i < bytes; i++)
		text[i] = (char)(o->letter + i);
	inflight_record_set(o->e, bytes);
}

static void
meter(struct open_request *o, struct settled used)
{
	o->metered = (struct metered){ { used.cost_nusd }, used.tokens, used.cost_nusd };
	inflight_metered(o->e, &o->metered);
}

/* It has used something more. */
static struct settled
draw_more(const struct open_request *o)
{
	struct settled more = draw_used();

	return (struct settled){ o->used.cost_nusd + more.cost_nusd, o->used.tokens + more.tokens };
}

static void
move_a_request(void)
{
	/* One moves more than others, until its page is full of closed holds. */
	struct open_request *o = &world.open[once_in(2) ? draw(world.opened) : 0];

	world.doing = "a move";
	if (once_in(2))
		write_record(o, (uint32_t)draw(TEXT_MAX));
	if (!o->sent && once_in(2)) {
		inflight_sent(o->e);
		o->sent = true;
	}
	if (o->sent && once_in(2))
		meter(o, draw_more(o));		/* likely, but not what it will be */
	if (o->sent && once_in(2))
		o->used = draw_more(o);
	request(o);
}

static void
end_a_request(bool cancel)
{
	struct open_request o = take_open((uint32_t)draw(world.opened));
	struct settled used = draw_more(&o);
	struct ring_charge booked[CHARGES_MAX];

	cancel = cancel && !o.sent;
	bool with_record = !cancel || once_in(2);
	world.doing = cancel ? "a cancel" : "a settlement";
	if (!once_in(4))
		write_record(&o, (uint32_t)draw(once_in(4) ? TEXT_MAX : RECORD_BYTES_MAX));
	if (!cancel)
		inflight_sent(o.e);
	for (uint32_t tries = 0;; tries++) {
		enum settle_verdict v = cancel ? ledger_cancel(&world.f.arena, o.worker, o.e, with_record, world.f.now)
		    : ledger_settle(&world.f.arena, o.worker, o.e, &used, world.f.now);

		if (v == SETTLED)
			break;
		agree("a ring that stays full", tries, 0);
		world.count.ring_full++;
		drain();
	}
	if (cancel)
		reference_cancel(&world.r, &o.q, world.f.now, booked);
	else
		reference_settle(&world.r, &o.q, used, world.f.now, booked);
	if (with_record)
		expect(o.worker, o.q.parts, booked, o.bytes, o.letter);
	world.count.settled += !cancel;
	world.count.cancelled += cancel;
}

/* The record stays as the draft was. */
static void
finish(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	(void)record;
	(void)bytes;
	(void)arg;
	agree("state of an orphan", state == INFLIGHT_ADMITTED || state == INFLIGHT_SENT, true);
	agree("an orphan's metering", m->tokens[0], m->cost_nusd);
}

static void
reclaim_one(const struct open_request *o)
{
	struct settled used = { o->metered.cost_nusd, o->metered.total_tokens };
	struct ring_charge booked[CHARGES_MAX];

	if (o->sent)
		reference_settle(&world.r, &o->q, used, world.f.now, booked);
	else
		reference_cancel(&world.r, &o->q, world.f.now, booked);
	if (o->sent || o->bytes > 0)
		expect(o->worker, o->q.parts, booked, o->bytes, o->letter);
	world.count.reclaimed++;
}

/* A worker dies with all that it has in flight. The master ends that in the
 * order of the pages. */
static void
lose_a_worker(void)
{
	uint32_t worker = (uint32_t)draw(WORKERS), n = 0;
	struct open_request lost[OPEN_MAX];

	world.doing = "a reclaim";
	drain();
	for (uint32_t i = 0; i < world.opened;)
		if (world.open[i].worker == worker) {
			uint32_t at = n++;

			for (lost[at] = take_open(i); at > 0 && lost[at].e < lost[at - 1].e; at--) {
				struct open_request other = lost[at];

				lost[at] = lost[at - 1];
				lost[at - 1] = other;
			}
		} else {
			i++;
		}
	for (uint32_t i = 0; i < n; i++) {
		struct open_request *o = &lost[i];

		if (!once_in(4))
			write_record(o, 1 + (uint32_t)draw(TEXT_MAX));
		if (!o->sent && once_in(2)) {
			inflight_sent(o->e);
			o->sent = true;
		}
		if (o->sent && !once_in(3)) {
			meter(o, (struct settled){ o->used.cost_nusd + 1, o->used.tokens });
			meter(o, draw_more(o));
		}
		reclaim_one(o);
	}
	agree("requests that were not reclaimed", ledger_reclaim(&world.f.arena, worker, finish, NULL, world.f.now), 0);
}

/* A meter that left memory: was that right, and has the store what it knew? */
static void
gone(uint32_t meter)
{
	struct reference_meter *m = &world.r.meter[meter], stored = *m;

	m->here = false;
	if (m->group != REFERENCE_NONE)
		world.r.meter[m->group].spent--;
	if (m->kind != METER_BUDGET || m->unbooked)
		return;
	stored.period = m->stored.period;
	stored.index = m->stored.index;
	stored.spent = m->stored.known ? m->stored.spent : 0;
	int64_t spent = reference_look(m, world.f.now).spent;
	agree("what the store has of an evicted meter", m->stored.known ? reference_look(&stored, world.f.now).spent : 0, spent);
}

static void
evict(void)
{
	bool may[REFERENCE_METERS_MAX];
	uint64_t idle = draw(3), tick = ledger_tick(&world.f.arena);
	uint32_t most = once_in(3) ? 1 + (uint32_t)draw(8) : ROWS, out = 0, left = 0;

	agree("tick", (int64_t)tick, (int64_t)++world.r.tick);
	drain();
	for (uint64_t i = draw(4); i > 0; i--)	/* work goes on while the keeper commits */
		if (world.opened > 0 && once_in(2))
			end_a_request(once_in(4));
		else
			request(NULL);
	world.doing = "an eviction";
	for (uint32_t i = 0; i < world.r.meters; i++)
		may[i] = reference_idle(&world.r, i, tick, idle, world.f.now) && !is_open(i);
	uint32_t n = ledger_evict(&world.f.arena, tick, idle, most, world.f.now);
	for (uint32_t i = 0; i < world.r.meters; i++) {
		struct reference_meter *m = &world.r.meter[i];
		struct meter_view v;

		if (!m->here || ledger_meter(&world.f.arena, m->id, world.f.now, &v)) {
			left += may[i];
			continue;
		}
		if (m->kind != METER_GROUP)
			agree("an evicted meter was idle", may[i], true);
		out++;
		gone(i);
	}
	for (uint32_t i = 0; i < world.r.meters; i++)
		if (world.r.meter[i].kind == METER_GROUP && !world.r.meter[i].here)
			agree("meters of an evicted group", (int64_t)world.r.meter[i].spent, 0);
	agree("meters evicted", n, out);
	if (n < most)
		agree("idle meters that were left", left, 0);
	world.count.evicted += n;
}

static void
reset_a_meter(void)
{
	uint32_t meter = (uint32_t)draw(world.r.meters);
	struct reference_meter *m = &world.r.meter[meter];
	struct ring_charge booked;
	char record[16];

	world.doing = "a reset";
	for (uint32_t i = 0; i < sizeof(record); i++)
		record[i] = (char)(world.operation + i);
	bool may = m->here && m->kind != METER_GROUP;
	enum reset_result have = ledger_reset(&world.f.arena, m->id, record, sizeof(record), world.f.now);
	agree("a reset", have, may ? RESET_DONE : RESET_UNKNOWN);
	if (!may)
		return;
	reference_reset(&world.r, meter, world.f.now, &booked);
	expect(TOOLS, 1, &booked, sizeof(record), (uint8_t)world.operation);
	world.count.resets++;
}

static void
pass_time(void)
{
	world.doing = "time";
	world.f.now.mono_ns += (int64_t)draw(3 * NS_PER_S);
	switch (draw(200)) {
	case 0:			/* a clock is set back by up to three days */
		world.f.now.wall_ns -= (int64_t)draw(3 * 86400) * NS_PER_S;
		break;
	case 1:			/* nobody came for up to forty days */
		world.f.now.wall_ns += (int64_t)draw(40 * 86400) * NS_PER_S;
		break;
	default:
		world.f.now.wall_ns += (int64_t)draw(1200 * NS_PER_S);
	}
}

static void
operate(void)
{
	uint64_t what = draw(1000);

	world.doing = "an admission";
	if (what < 460)
		request(NULL);
	else if (what < 600 && world.opened > 0)
		move_a_request();
	else if (what < 760 && world.opened > 0)
		end_a_request(false);
	else if (what < 820 && world.opened > 0)
		end_a_request(true);
	else if (what < 965)
		pass_time();
	else if (what < 985)
		change_a_limit();
	else if (what < 990)
		reset_a_meter();
	else if (what < 996)
		lose_a_worker();
	else
		evict();
}

static uint64_t
from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void
report(uint64_t operations)
{
	print_message("model: %" PRIu64 " operations; %" PRIu64 " admitted (%" PRIu64 " lowered), %" PRIu64 " refused (%" PRIu64
	    " may fit, %" PRIu64 " waits tried), %" PRIu64 " moved (%" PRIu64 " refused, %" PRIu64 " crowded; %" PRIu64 " holds closed, %" PRIu64
	    " charged again), %" PRIu64 " settled, %" PRIu64 " cancelled, %" PRIu64 " reclaimed, %" PRIu64
	    " resets; %" PRIu64 " loads (%" PRIu64 " stale, %" PRIu64 " overflowed, %" PRIu64 " without a row), %" PRIu64
	    " evicted; %" PRIu64 " full rings; %" PRIu64 " limits changed\n", operations, world.count.admitted, world.count.clamped,
	    world.count.refused, world.count.may_fit, world.count.waited, world.count.moved, world.count.moves_refused,
	    world.count.crowded, world.count.closed, world.count.reopened, world.count.settled, world.count.cancelled, world.count.reclaimed,
	    world.count.resets, world.count.unknown, world.count.stale, world.count.overflowed, world.count.full, world.count.evicted,
	    world.count.ring_full, world.count.changed);
}

/* In a world of its own, from its first day until all its requests are over. */
static void
live(uint64_t operations)
{
	static struct ledger_world fresh;

	fresh.seed = world.seed;
	fresh.random = world.random;
	fresh.operation = world.operation;
	fresh.count = world.count;
	world = fresh;
	fixture_open(&world.f, (struct arena_sizes){ .workers = WORKERS + 1, .inflight = OPEN_MAX, .ring_bytes = 65536,
	    .meters = ROWS + BALLAST });
	take_rows(0, BALLAST / 2);
	take_rows(BALLAST / 2, BALLAST / 2);
	add_all();
	world.r.tick = ledger_tick(&world.f.arena);
	for (uint64_t until = world.operation + operations; world.operation < until; world.operation++) {
		operate();
		compare();
	}
	while (world.opened > 0)
		end_a_request(false);
	drain();
	compare();
	agree("held when idle", ledger_inflight_held(&world.f.arena), 0);
	fixture_close(&world.f);
}

static void
agrees_with_the_reference(void **state)
{
	uint64_t operations = from_environment("WEIR_MODEL_OPERATIONS", OPERATIONS);

	(void)state;
	world.seed = world.random = from_environment("WEIR_MODEL_SEED", (uint64_t)clock_mono_ns()) | 1;
	print_message("model: WEIR_MODEL_SEED=%" PRIu64 "\n", world.seed);
	while (world.operation < operations)
		live(operations - world.operation < OPERATIONS ? operations - world.operation : OPERATIONS);
	report(operations);
	if (operations >= OPERATIONS) {
		assert_true(world.count.admitted > 100000 && world.count.clamped > 10000 && world.count.refused > 100000);
		assert_true(world.count.may_fit > 1000 && world.count.waited > 1000 && world.count.reclaimed > 5000);
		assert_true(world.count.moved > 20000 && world.count.moves_refused > 20000 && world.count.closed > 20000);
		assert_true(world.count.reopened > 1000 && world.count.crowded > 3);
		assert_true(world.count.evicted > 1000 && world.count.overflowed > 100 && world.count.full > 10 && world.count.ring_full > 10);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_the_reference) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
