/*
 * The ledger against a reference that is too simple to be wrong
 * (reference_ledger.h), in random traces: admit, settle, cancel, deaths and
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

#include "tests/unit/arena_fixture.h"
#include "tests/unit/reference_ledger.h"

#define OPERATIONS 1200000
#define WORKERS 2
#define ROWS (64 - BALLAST)	/* fewer than there are meters: some have to go */
#define BALLAST 30		/* meters that a request of one more worker holds all the time */
#define BALLAST_WORKER WORKERS
#define TOOLS (WORKERS + 1)
#define OPEN_MAX 24		/* a worker's pages */
#define CHARGES 9
#define ITEMS_MAX 1024
#define TEXT_MAX 160
#define NEVER (-1)

struct spec {			/* how a meter is usually charged */
	struct charge c;
	int64_t usual_limit;
};

struct open_request {
	struct inflight *e;
	uint32_t worker;
	struct reference_request q;
};

struct expected {		/* an item that must come out of a ring */
	uint32_t parts, bytes;
	uint8_t letter;
	struct ring_charge booked[CHARGES_MAX];
};

struct queue {
	struct expected item[ITEMS_MAX];
	uint32_t first, count;
	uint64_t sequence;
};

static struct {
	struct fixture f;
	struct reference r;
	struct spec spec[REFERENCE_METERS_MAX];
	uint32_t specs;
	struct charge_group group[2];
	struct open_request open[WORKERS * OPEN_MAX + 1];
	uint32_t opened, opened_by[WORKERS];
	struct queue queue[TOOLS + 1];
	uint64_t random, seed, operation;
	const char *doing;
	struct {
		uint64_t admitted, refused, may_fit, waited, clamped, unknown, stale, overflowed, full;
		uint64_t settled, cancelled, reclaimed, resets, evicted, ring_full, changed;
	} count;
} w;

static uint64_t
draw(uint64_t below)
{
	w.random ^= w.random << 13;
	w.random ^= w.random >> 7;
	w.random ^= w.random << 17;
	return w.random % below;
}

static bool
once_in(uint64_t n)
{
	return draw(n) == 0;
}

static void
agree(const char *what, int64_t have, int64_t want)
{
	if (have != want)
		fail_msg("seed %" PRIu64 ", operation %" PRIu64 " (%s): %s: the ledger has %" PRId64 ", the reference %" PRId64,
		    w.seed, w.operation, w.doing, what, have, want);
}

/* ---- the meters ---- */

static void
list(struct meter_id id, enum meter_kind kind, enum meter_unit unit)
{
	w.r.meter[w.r.meters++] = (struct reference_meter){ .id = id, .kind = kind, .unit = unit, .group = REFERENCE_NONE };
}

static struct spec *
add(struct charge c, enum meter_kind kind, enum meter_unit unit, int64_t limit)
{
	static char name[REFERENCE_METERS_MAX][24];
	struct spec *s = &w.spec[w.specs];

	snprintf(name[w.specs], sizeof(name[0]), "meter %u", w.specs);
	c.id = (struct meter_id){ 77, w.specs + 1 };
	c.kind = kind;
	c.unit = unit;
	c.limit = limit;
	c.name = name[w.specs];
	*s = (struct spec){ c, limit };
	list(c.id, kind, unit);
	w.specs++;
	return s;
}

static void
add_group(uint32_t g, struct charge c, enum meter_kind kind, enum meter_unit unit, int64_t limit, uint32_t values)
{
	static const char *const names[2] = { "group 0", "group 1" }, *const others[2] = { "others 0", "others 1" };
	struct charge_group *group = &w.group[g];

	*group = (struct charge_group){ { 78, g + 1 }, { 79, g + 1 }, values / 2, names[g], others[g] };
	list(group->id, METER_GROUP, UNIT_REQUESTS);
	list(group->overflow, kind, unit);
	for (uint32_t i = 0; i < values; i++)
		add(c, kind, unit, limit)->c.group = group;
}

static void
add_all(void)
{
	static const int64_t rates[] = { 1, 60, 3000000 }, tokens[] = { 1000, 80000, 400000 };
	static const struct charge periods[] = {
		{ .period = PERIOD_TOTAL }, { .period = PERIOD_DAILY }, { .period = PERIOD_WEEKLY },
		{ .period = PERIOD_MONTHLY }, { .period = PERIOD_DAYS, .days = 3, .anchor = 1 },
		{ .period = PERIOD_DAYS, .days = 30, .anchor = 17 },
	};

	for (uint32_t i = 0; i < 3; i++)
		add((struct charge){ .window_ns = (i * 30 + 1) * NS_PER_S }, METER_BUCKET, UNIT_REQUESTS, rates[i]);
	for (uint32_t i = 0; i < 3; i++)
		add((struct charge){ .window_ns = (i * 20 + 1) * NS_PER_S, .mode = (enum charge_mode)i }, METER_BUCKET,
		    UNIT_TOKENS, tokens[i]);
	for (uint32_t i = 0; i < 9; i++) {
		struct charge c = periods[i % 6];

		c.mode = (enum charge_mode)(i % 3);
		add(c, METER_BUDGET, UNIT_NUSD, 40000 + 30000 * i);
	}
	for (uint32_t i = 0; i < 4; i++)
		add(periods[i], METER_BUDGET, i % 2 == 0 ? UNIT_TOKENS : UNIT_REQUESTS, i % 2 == 0 ? 90000 : 50);
	add((struct charge){ 0 }, METER_CONCURRENCY, UNIT_REQUESTS, 3);
	add((struct charge){ 0 }, METER_CONCURRENCY, UNIT_REQUESTS, 20);
	add_group(0, (struct charge){ .period = PERIOD_DAILY }, METER_BUDGET, UNIT_NUSD, 60000, 8);
	add_group(1, (struct charge){ .window_ns = 5 * NS_PER_S, .mode = MODE_STRICT }, METER_BUCKET, UNIT_TOKENS, 9000, 6);
}

/* The smallest arena has more rows than this test wants. */
static void
take_rows(uint32_t first, uint32_t n)
{
	struct charge c[CHARGES_MAX];
	struct inflight *e;
	struct refusal why;

	for (uint32_t i = 0; i < n; i++)
		c[i] = concurrency_charge(first + i + 1, 1);
	assert_int_equal(fixture_admit(&w.f, BALLAST_WORKER, c, n, NULL, &e, &why), LEDGER_ADMITTED);
}

static bool
may_be_lowered(const struct charge *c)
{
	return c->kind == METER_BUDGET || (c->kind == METER_BUCKET && c->unit == UNIT_TOKENS);
}

/* Somebody edits a limit. */
static void
change_a_limit(void)
{
	struct spec *s = &w.spec[draw(w.specs)];
	struct charge *c = &s->c;

	w.doing = "a limit changes";
	w.count.changed++;
	c->limit = once_in(12) ? 0 : s->usual_limit / 2 + 1 + (int64_t)draw((uint64_t)s->usual_limit * 2);
	if (c->kind == METER_BUDGET)
		c->alert = (int64_t)draw(2) * c->limit / 2;
	if (c->kind == METER_BUDGET && once_in(6)) {
		c->period = (enum meter_period)draw(PERIOD_DAYS + 1);
		c->days = c->period == PERIOD_DAYS ? (uint16_t)(1 + draw(10)) : 0;
		c->anchor = c->period == PERIOD_DAYS ? (uint16_t)draw(c->days) : 0;
	}
	if (c->kind == METER_BUCKET && once_in(6))
		c->window_ns = 1 + (int64_t)draw(60 * NS_PER_S);
	if (may_be_lowered(c) && once_in(3))
		c->mode = (enum charge_mode)draw(MODE_POSTPAID + 1);
	if (once_in(10))
		w.group[draw(2)].most = (int64_t)draw(7);
}

/* ---- what both show ---- */

static void
compare_meter(const struct reference_meter *m)
{
	struct meter_view v;

	agree("presence of a meter", ledger_meter(&w.f.arena, m->id, w.f.now, &v), m->here);
	if (!m->here)
		return;
	struct reference_view want = reference_look(m, w.f.now);
	agree("spent", v.spent, want.spent);
	agree("held", v.held, want.held);
	agree("tokens", v.tokens, want.tokens);
	agree("full in", v.full_in_ns, want.full_in_ns);
	agree("period index", v.period_index, want.period_index);
	agree("reset", v.reset_wall_ns, want.reset_wall_ns);
	agree("kind", v.kind, m->kind);
	agree("unit", v.unit, m->unit);
	agree("mode", v.mode, m->mode);
	agree("limit", v.limit, m->limit);
	agree("window", v.window_ns, m->kind == METER_BUCKET ? m->window_ns : 0);
	agree("alert", v.alert, m->kind == METER_BUDGET ? m->alert : 0);
	agree("period", v.period, m->kind == METER_BUDGET ? m->period.kind : 0);
	agree("days", v.days, m->kind == METER_BUDGET ? m->period.days : 0);
	agree("anchor", v.anchor, m->kind == METER_BUDGET ? m->period.anchor : 0);
	agree("name", strcmp(v.name, m->name), 0);
}

static void
compare(void)
{
	uint32_t here = 0;
	big held = 0;

	for (uint32_t i = 0; i < w.r.meters; i++) {
		compare_meter(&w.r.meter[i]);
		here += w.r.meter[i].here;
	}
	agree("meters used", ledger_meters_used(&w.f.arena), here + BALLAST);
	for (uint32_t i = 0; i < WORKERS; i++)
		agree("requests in flight", ledger_inflight_count(&w.f.arena, i), w.opened_by[i]);
	for (uint32_t i = 0; i < w.opened; i++)
		for (uint32_t p = 0; p < w.open[i].q.parts; p++) {
			const struct reference_meter *m = &w.r.meter[w.open[i].q.part[p].meter];

			held += m->kind == METER_BUDGET && m->unit == UNIT_NUSD ? w.open[i].q.part[p].taken : 0;
		}
	agree("money held", ledger_inflight_held(&w.f.arena), (int64_t)held);
}

/* ---- the rings ---- */

static void
expect(uint32_t row, uint32_t parts, const struct ring_charge *booked, uint32_t bytes, uint8_t letter)
{
	struct queue *q = &w.queue[row];
	struct expected *x = &q->item[(q->first + q->count++) % ITEMS_MAX];

	assert_true(q->count <= ITEMS_MAX);
	x->parts = parts;
	x->bytes = bytes;
	x->letter = letter;
	memcpy(x->booked, booked, parts * sizeof(*booked));
}

static void
compare_item(const struct ring_item *item, const struct expected *x)
{
	agree("bytes of a record", item->record_bytes, x->bytes);
	for (uint32_t i = 0; i < x->bytes; i++)
		if ((uint8_t)item->record[i] != (uint8_t)(x->letter + i))
			agree("a byte of a record", (uint8_t)item->record[i], (uint8_t)(x->letter + i));
	agree("charges of an item", item->charges, x->parts);
	for (uint32_t i = 0; i < x->parts; i++) {
		const struct ring_charge *have = &item->charge[i], *want = &x->booked[i];

		agree("id of a charge", have->id.hi == want->id.hi && have->id.lo == want->id.lo, true);
		agree("what of a charge", (int64_t)have->what, (int64_t)want->what);
		agree("period of a charge", have->period_index, want->period_index);
		agree("held of a charge", have->held, want->held);
		agree("amount of a charge", have->amount, want->amount);
		agree("full_wall_ns of a charge", have->full_wall_ns, want->full_wall_ns);
	}
}

/* What was read, in the order of the steps, as it is booked by the store. */
static void
book_in_order(struct ring_charge *c, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++)
		for (uint32_t j = i; j > 0 && c[j - 1].step > c[j].step; j--) {
			struct ring_charge other = c[j];

			c[j] = c[j - 1];
			c[j - 1] = other;
		}
	for (uint32_t i = 0; i < n; i++)
		reference_store(&w.r, &c[i]);
}

static void
drain(void)
{
	static struct ring_charge all[(TOOLS + 1) * ITEMS_MAX * CHARGES];
	uint32_t n = 0;

	for (uint32_t row = 0; row <= TOOLS; row++) {
		struct ring_cursor at = ring_begin(&w.f.arena, row);
		struct queue *q = &w.queue[row];
		struct ring_item item;

		while (ring_next(&w.f.arena, row, &at, &item)) {
			assert_true(q->count > 0);
			agree("sequence of an item", (int64_t)item.sequence, (int64_t)++q->sequence);
			compare_item(&item, &q->item[q->first]);
			memcpy(&all[n], item.charge, item.charges * sizeof(all[0]));
			n += item.charges;
			q->first = (q->first + 1) % ITEMS_MAX;
			q->count--;
		}
		agree("items that did not come", q->count, 0);
		ring_advance(&w.f.arena, row, at);
	}
	book_in_order(all, n);
}

/* ---- meters that are not in memory ---- */

static uint32_t
rows_taken(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w.r.meters; i++)
		n += w.r.meter[i].here;
	return n;
}

/* The reference joins the charge's group: DONE if there is room in it. */
static enum load_result
join(struct charge *c)
{
	struct reference_meter *g = &w.r.meter[reference_find(&w.r, c->group->id)];

	if (!g->here && rows_taken() == ROWS)
		return LOAD_FULL;
	if (!g->here && rows_taken() == ROWS - 1 && c->group->most > 0)
		return LOAD_FULL;	/* for the group, but not for the meter */
	g->here = true;
	g->name = c->group->name;
	g->limit = c->group->most;
	g->used_at = w.r.tick;
	if (g->spent < c->group->most)
		return LOAD_DONE;
	w.count.overflowed++;
	c->id = c->group->overflow;
	c->name = c->group->overflow_name;
	c->overflowed = true;
	return w.r.meter[reference_find(&w.r, c->id)].here ? LOAD_DONE : LOAD_STALE;
}

/* What a load must answer; on DONE the reference has the meter too. */
static enum load_result
reference_answers(struct charge *c)
{
	uint32_t meter = reference_find(&w.r, c->id);
	struct reference_meter *g = c->group && !c->overflowed ? &w.r.meter[reference_find(&w.r, c->group->id)] : NULL;
	struct reference_meter before = g ? *g : w.r.meter[meter];

	if (g) {
		enum load_result joined = join(c);

		if (joined != LOAD_DONE || c->overflowed)
			return joined;
	}
	if (rows_taken() == ROWS) {
		if (g)
			*g = before;
		return LOAD_FULL;
	}
	if (g)
		g->spent++;
	reference_load(&w.r, meter, c, w.f.now);
	w.r.meter[meter].name = c->name;
	w.r.meter[meter].group = g ? (uint32_t)(g - w.r.meter) : REFERENCE_NONE;
	return LOAD_DONE;
}

/* false: there is no row for it. */
static bool
load(struct charge *c)
{
	struct level level = reference_level(&w.r.meter[reference_find(&w.r, c->id)]);
	uint64_t evictions = ledger_evictions(&w.f.arena);
	struct charge copy = *c;
	uint32_t worker = (uint32_t)draw(WORKERS);

	w.count.unknown++;
	if (once_in(8)) {
		w.count.stale++;
		agree("a load with an old level", ledger_load(&w.f.arena, worker, c, &level, evictions - 1, w.f.now), LOAD_STALE);
	}
	enum load_result want = reference_answers(&copy);
	enum load_result have = ledger_load(&w.f.arena, worker, c, &level, evictions, w.f.now);
	agree("a load", have, want);
	agree("overflowed", c->overflowed, copy.overflowed);
	agree("id of a loaded charge", (int64_t)c->id.lo, (int64_t)copy.id.lo);
	w.count.full += have == LOAD_FULL;
	return have != LOAD_FULL;
}

static bool
is_open(uint32_t meter)
{
	for (uint32_t i = 0; i < w.opened; i++)
		for (uint32_t p = 0; p < w.open[i].q.parts; p++)
			if (w.open[i].q.part[p].meter == meter)
				return true;
	return false;
}

/* ---- requests ---- */

static void
draw_amount(struct charge *c, bool with_slope)
{
	uint64_t size = (uint64_t)w.spec[c->id.lo - 1].usual_limit;

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

static uint32_t
draw_charges(struct charge *c)
{
	uint32_t n = (uint32_t)draw(CHARGES);
	bool with_slope = !once_in(3);

	for (uint32_t i = 0; i < n; i++) {
		c[i] = i > 0 && once_in(10) ? w.spec[c[draw(i)].id.lo - 1].c : w.spec[draw(w.specs)].c;
		draw_amount(&c[i], with_slope);
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
	w.count.refused++;
	w.count.may_fit += have->may_fit;
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
	w.count.admitted++;
	if (d) {
		agree("granted", d->granted, want->granted);
		agree("lowered by", d->lowered_by, want->lowered_by);
		w.count.clamped += d->granted < d->most;
	}
	for (uint32_t i = 0; i < n; i++) {
		agree("taken", c[i].taken, want->taken[i]);
		if (last_on_meter(c, n, i))
			agree("left", charge_left(&c[i], w.f.now), want->left[i]);
	}
}

/* One admission by both, with loads until all meters are there. */
static enum ledger_verdict
admit(struct charge *c, uint32_t n, struct demand *d, struct refusal *why)
{
	struct open_request *o = &w.open[w.opened];
	uint32_t worker = (uint32_t)draw(WORKERS);

	for (uint32_t rounds = 0; rounds < 2 * CHARGES_MAX + 4; rounds++) {
		struct reference_answer want = { .verdict = LEDGER_BUSY };

		if (w.opened_by[worker] < OPEN_MAX)
			want = reference_admit(&w.r, c, n, d, w.f.now);
		enum ledger_verdict have = ledger_admit(&w.f.arena, worker, c, n, d, w.f.now, &o->e, why);
		agree("verdict", have, want.verdict);
		if (have == LEDGER_REFUSED)
			compare_refusal(why, &want.why);
		if (have == LEDGER_UNKNOWN)
			agree("which charge is unknown", why->charge, want.why.charge);
		if (have == LEDGER_ADMITTED) {
			compare_admission(c, n, d, &want);
			o->worker = worker;
			o->q = want.request;
			w.opened++;
			w.opened_by[worker]++;
		}
		if (have != LEDGER_UNKNOWN || !load(&c[why->charge]))
			return have;
	}
	agree("rounds of loading", 1, 0);
	return LEDGER_BUSY;
}

/* Without a slope nothing but time changes what fits: the wait is exact. */
static void
try_the_wait(struct charge *c, uint32_t n, struct demand *d, const struct refusal *no)
{
	enum meter_kind kind = c[no->charge].kind;
	struct refusal why;

	for (uint32_t i = 0; i < n; i++)
		if (c[i].slope_milli > 0)
			return;
	if (kind != METER_BUCKET || no->wait_ns == NEVER)
		return;
	w.doing = "a wait for a bucket";
	w.f.now.mono_ns += no->wait_ns - 1;
	enum ledger_verdict early = admit(c, n, d, &why);
	if (early != LEDGER_BUSY)
		agree("a bucket refuses until its time", early, LEDGER_REFUSED);
	w.f.now.mono_ns += 1;
	if (early != LEDGER_BUSY && admit(c, n, d, &why) == LEDGER_REFUSED)
		agree("a bucket refuses at its time", c[why.charge].kind == METER_BUCKET, false);
	w.count.waited++;
}

static void
request(void)
{
	struct charge c[CHARGES];
	struct demand d = draw_demand();
	struct refusal why;
	uint32_t n = draw_charges(c);
	bool slope = false;

	w.doing = "an admission";
	for (uint32_t i = 0; i < n; i++)
		slope |= c[i].slope_milli > 0;
	struct demand *demand = slope || once_in(2) ? &d : NULL;
	if (admit(c, n, demand, &why) == LEDGER_REFUSED)
		try_the_wait(c, n, demand, &why);
}

static struct open_request
take_open(uint32_t k)
{
	struct open_request o = w.open[k];

	w.open[k] = w.open[--w.opened];
	w.opened_by[o.worker]--;
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
write_record(struct inflight *e, uint32_t bytes, uint8_t letter)
{
	char *text = inflight_record(e);

	for (uint32_t i = 0; i < bytes; i++)
		text[i] = (char)(letter + i);
	inflight_record_set(e, bytes);
}

static void
end_a_request(bool cancel)
{
	struct open_request o = take_open((uint32_t)draw(w.opened));
	struct settled used = draw_used();
	struct ring_charge booked[CHARGES_MAX];
	bool with_record = !cancel || once_in(2);
	uint32_t bytes = (uint32_t)draw(once_in(2) ? RECORD_BYTES_MAX : TEXT_MAX);
	uint8_t letter = (uint8_t)draw(256);

	w.doing = cancel ? "a cancel" : "a settlement";
	write_record(o.e, bytes, letter);
	if (!cancel)
		inflight_sent(o.e);
	for (uint32_t tries = 0;; tries++) {
		enum settle_verdict v = cancel ? ledger_cancel(&w.f.arena, o.worker, o.e, with_record, w.f.now)
		    : ledger_settle(&w.f.arena, o.worker, o.e, &used, w.f.now);

		if (v == SETTLED)
			break;
		agree("a ring that stays full", tries, 0);
		w.count.ring_full++;
		drain();
	}
	if (cancel)
		reference_cancel(&w.r, &o.q, w.f.now, booked);
	else
		reference_settle(&w.r, &o.q, used, w.f.now, booked);
	if (with_record)
		expect(o.worker, o.q.parts, booked, bytes, letter);
	w.count.settled += !cancel;
	w.count.cancelled += cancel;
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
reclaim_one(struct open_request o, uint32_t bytes, uint8_t letter, bool sent, const struct metered *m)
{
	struct ring_charge booked[CHARGES_MAX];

	if (sent)
		reference_settle(&w.r, &o.q, (struct settled){ m->cost_nusd, m->total_tokens }, w.f.now, booked);
	else
		reference_cancel(&w.r, &o.q, w.f.now, booked);
	if (sent || bytes > 0)
		expect(o.worker, o.q.parts, booked, bytes, letter);
	w.count.reclaimed++;
}

/* A worker dies with all that it has in flight. The master ends that in the
 * order of the pages. */
static void
lose_a_worker(void)
{
	uint32_t worker = (uint32_t)draw(WORKERS), n = 0;
	struct open_request lost[OPEN_MAX];

	w.doing = "a reclaim";
	drain();
	for (uint32_t i = 0; i < w.opened;)
		if (w.open[i].worker == worker) {
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
		struct settled used = draw_used();
		struct metered m = { .tokens = { used.cost_nusd }, .total_tokens = used.tokens, .cost_nusd = used.cost_nusd };
		uint32_t bytes = once_in(4) ? 0 : 1 + (uint32_t)draw(TEXT_MAX);
		uint8_t letter = (uint8_t)draw(256);
		bool sent = once_in(2);

		if (bytes > 0)
			write_record(lost[i].e, bytes, letter);
		if (sent) {
			inflight_sent(lost[i].e);
			inflight_metered(lost[i].e, &(struct metered){ .cost_nusd = 1, .tokens = { 1 } });
			inflight_metered(lost[i].e, &m);
		}
		reclaim_one(lost[i], bytes, letter, sent, &m);
	}
	agree("requests that were not reclaimed", ledger_reclaim(&w.f.arena, worker, finish, NULL, w.f.now), 0);
}

/* A meter that left memory: was that right, and has the store what it knew? */
static void
gone(uint32_t meter)
{
	struct reference_meter *m = &w.r.meter[meter], stored = *m;

	m->here = false;
	if (m->group != REFERENCE_NONE)
		w.r.meter[m->group].spent--;
	if (m->kind != METER_BUDGET || m->unbooked)
		return;
	stored.period = m->stored.period;
	stored.index = m->stored.index;
	stored.spent = m->stored.known ? m->stored.spent : 0;
	int64_t spent = reference_look(m, w.f.now).spent;
	agree("what the store has of an evicted meter", m->stored.known ? reference_look(&stored, w.f.now).spent : 0, spent);
}

static void
evict(void)
{
	bool may[REFERENCE_METERS_MAX];
	uint64_t idle = draw(3), tick = ledger_tick(&w.f.arena);
	uint32_t most = once_in(3) ? 1 + (uint32_t)draw(8) : ROWS, out = 0, left = 0;

	agree("tick", (int64_t)tick, (int64_t)++w.r.tick);
	drain();
	for (uint64_t i = draw(4); i > 0; i--)	/* work goes on while the keeper commits */
		if (w.opened > 0 && once_in(2))
			end_a_request(once_in(4));
		else
			request();
	w.doing = "an eviction";
	for (uint32_t i = 0; i < w.r.meters; i++)
		may[i] = reference_idle(&w.r, i, tick, idle, w.f.now) && !is_open(i);
	uint32_t n = ledger_evict(&w.f.arena, tick, idle, most, w.f.now);
	for (uint32_t i = 0; i < w.r.meters; i++) {
		struct reference_meter *m = &w.r.meter[i];
		struct meter_view v;

		if (!m->here || ledger_meter(&w.f.arena, m->id, w.f.now, &v)) {
			left += may[i];
			continue;
		}
		if (m->kind != METER_GROUP)
			agree("an evicted meter was idle", may[i], true);
		out++;
		gone(i);
	}
	for (uint32_t i = 0; i < w.r.meters; i++)
		if (w.r.meter[i].kind == METER_GROUP && !w.r.meter[i].here)
			agree("meters of an evicted group", (int64_t)w.r.meter[i].spent, 0);
	agree("meters evicted", n, out);
	if (n < most)
		agree("idle meters that were left", left, 0);
	w.count.evicted += n;
}

static void
reset_a_meter(void)
{
	uint32_t meter = (uint32_t)draw(w.r.meters);
	struct reference_meter *m = &w.r.meter[meter];
	struct ring_charge booked;
	char record[16];

	w.doing = "a reset";
	for (uint32_t i = 0; i < sizeof(record); i++)
		record[i] = (char)(w.operation + i);
	bool may = m->here && m->kind != METER_GROUP;
	enum reset_result have = ledger_reset(&w.f.arena, m->id, record, sizeof(record), w.f.now);
	agree("a reset", have, may ? RESET_DONE : RESET_UNKNOWN);
	if (!may)
		return;
	reference_reset(&w.r, meter, w.f.now, &booked);
	expect(TOOLS, 1, &booked, sizeof(record), (uint8_t)w.operation);
	w.count.resets++;
}

static void
pass_time(void)
{
	w.doing = "time";
	w.f.now.mono_ns += (int64_t)draw(3 * NS_PER_S);
	switch (draw(200)) {
	case 0:			/* a clock is set back by up to three days */
		w.f.now.wall_ns -= (int64_t)draw(3 * 86400) * NS_PER_S;
		break;
	case 1:			/* nobody came for up to forty days */
		w.f.now.wall_ns += (int64_t)draw(40 * 86400) * NS_PER_S;
		break;
	default:
		w.f.now.wall_ns += (int64_t)draw(1200 * NS_PER_S);
	}
}

static void
operate(void)
{
	uint64_t what = draw(1000);

	if (what < 560)
		request();
	else if (what < 760 && w.opened > 0)
		end_a_request(false);
	else if (what < 820 && w.opened > 0)
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
	    " may fit, %" PRIu64 " waits tried), %" PRIu64 " settled, %" PRIu64 " cancelled, %" PRIu64 " reclaimed, %" PRIu64
	    " resets; %" PRIu64 " loads (%" PRIu64 " stale, %" PRIu64 " overflowed, %" PRIu64 " without a row), %" PRIu64
	    " evicted; %" PRIu64 " full rings; %" PRIu64 " limits changed\n", operations, w.count.admitted, w.count.clamped,
	    w.count.refused, w.count.may_fit, w.count.waited, w.count.settled, w.count.cancelled, w.count.reclaimed,
	    w.count.resets, w.count.unknown, w.count.stale, w.count.overflowed, w.count.full, w.count.evicted,
	    w.count.ring_full, w.count.changed);
}

static void
agrees_with_the_reference(void **state)
{
	uint64_t operations = from_environment("WEIR_MODEL_OPERATIONS", OPERATIONS);

	(void)state;
	w.seed = w.random = from_environment("WEIR_MODEL_SEED", (uint64_t)clock_mono_ns()) | 1;
	print_message("model: WEIR_MODEL_SEED=%" PRIu64 "\n", w.seed);
	fixture_open(&w.f, (struct arena_sizes){ .workers = WORKERS + 1, .inflight = OPEN_MAX, .ring_bytes = 65536,
	    .meters = ROWS + BALLAST });
	take_rows(0, BALLAST / 2);
	take_rows(BALLAST / 2, BALLAST / 2);
	add_all();
	w.r.tick = ledger_tick(&w.f.arena);
	for (w.operation = 0; w.operation < operations; w.operation++) {
		operate();
		compare();
	}
	while (w.opened > 0)
		end_a_request(false);
	drain();
	compare();
	agree("held when idle", ledger_inflight_held(&w.f.arena), 0);
	report(operations);
	if (operations >= OPERATIONS) {
		assert_true(w.count.admitted > 100000 && w.count.clamped > 10000 && w.count.refused > 100000);
		assert_true(w.count.may_fit > 1000 && w.count.waited > 1000 && w.count.reclaimed > 5000);
		assert_true(w.count.evicted > 1000 && w.count.overflowed > 100 && w.count.full > 10 && w.count.ring_full > 10);
	}
	fixture_close(&w.f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_the_reference) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
