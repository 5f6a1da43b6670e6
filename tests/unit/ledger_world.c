/*
 * tests/unit/ledger_world.c -- see ledger_world.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <string.h>

#include "tests/unit/ledger_world.h"

struct ledger_world world;

uint64_t
draw(uint64_t below)
{
	world.random ^= world.random << 13;
	world.random ^= world.random >> 7;
	world.random ^= world.random << 17;
	return world.random % below;
}

bool
once_in(uint64_t n)
{
	return draw(n) == 0;
}

void
agree(const char *what, int64_t have, int64_t want)
{
	if (have != want)
		fail_msg("seed %" PRIu64 ", operation %" PRIu64 " (%s): %s: the ledger has %" PRId64 ", the reference %" PRId64,
		    world.seed, world.operation, world.doing, what, have, want);
}

/* ---- the meters ---- */

static void
list(struct meter_id id, enum meter_kind kind, enum meter_unit unit)
{
	world.r.meter[world.r.meters++] = (struct reference_meter){ .id = id, .kind = kind, .unit = unit, .group = REFERENCE_NONE };
}

static struct spec *
add(struct charge c, enum meter_kind kind, enum meter_unit unit, int64_t limit)
{
	static char name[REFERENCE_METERS_MAX][24];
	struct spec *s = &world.spec[world.specs];

	snprintf(name[world.specs], sizeof(name[0]), "meter %u", world.specs);
	c.id = (struct meter_id){ SPEC_ID_HI, world.specs + 1 };
	c.kind = kind;
	c.unit = unit;
	c.limit = limit;
	c.name = name[world.specs];
	*s = (struct spec){ c, limit };
	list(c.id, kind, unit);
	world.specs++;
	return s;
}

static void
add_group(uint32_t g, struct charge c, enum meter_kind kind, enum meter_unit unit, int64_t limit, uint32_t values)
{
	static const char *const names[2] = { "group 0", "group 1" }, *const others[2] = { "others 0", "others 1" };
	struct charge_group *group = &world.group[g];

	*group = (struct charge_group){ { 78, g + 1 }, { 79, g + 1 }, values / 2, names[g], others[g] };
	list(group->id, METER_GROUP, UNIT_REQUESTS);
	list(group->overflow, kind, unit);
	for (uint32_t i = 0; i < values; i++)
		add(c, kind, unit, limit)->c.group = group;
}

void
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
	world.usual = world.specs;
	while (world.r.meters < REFERENCE_METERS_MAX)
		add(periods[world.specs % 6], METER_BUDGET, UNIT_REQUESTS, 100000);
}

void
take_rows(uint32_t first, uint32_t n)
{
	struct charge c[CHARGES_MAX];
	struct inflight *e;
	struct refusal why;

	for (uint32_t i = 0; i < n; i++)
		c[i] = concurrency_charge(first + i + 1, 1);
	assert_int_equal(fixture_admit(&world.f, BALLAST_WORKER, c, n, NULL, &e, &why), LEDGER_ADMITTED);
}

bool
may_be_lowered(const struct charge *c)
{
	return c->kind == METER_BUDGET || (c->kind == METER_BUCKET && c->unit == UNIT_TOKENS);
}

void
change_a_limit(void)
{
	struct spec *s = &world.spec[draw(world.specs)];
	struct charge *c = &s->c;

	world.doing = "a limit changes";
	world.count.changed++;
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
		world.group[draw(2)].most = (int64_t)draw(7);
}

/* ---- what both show ---- */

static void
compare_meter(const struct reference_meter *m)
{
	struct meter_view v;

	agree("presence of a meter", ledger_meter(&world.f.arena, m->id, world.f.now, &v), m->here);
	if (!m->here)
		return;
	struct reference_view want = reference_look(m, world.f.now);
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

void
compare(void)
{
	uint32_t here = 0;
	big held = 0;

	for (uint32_t i = 0; i < world.r.meters; i++) {
		compare_meter(&world.r.meter[i]);
		here += world.r.meter[i].here;
	}
	agree("meters used", ledger_meters_used(&world.f.arena), here + BALLAST);
	for (uint32_t i = 0; i < WORKERS; i++)
		agree("requests in flight", ledger_inflight_count(&world.f.arena, i), world.opened_by[i]);
	for (uint32_t i = 0; i < world.opened; i++)
		for (uint32_t p = 0; p < world.open[i].q.parts; p++) {
			const struct reference_meter *m = &world.r.meter[world.open[i].q.part[p].meter];

			held += m->kind == METER_BUDGET && m->unit == UNIT_NUSD ? world.open[i].q.part[p].taken : 0;
		}
	agree("money held", ledger_inflight_held(&world.f.arena), (int64_t)held);
}

/* ---- the rings ---- */

void
expect(uint32_t row, uint32_t parts, const struct ring_charge *booked, uint32_t bytes, uint8_t letter)
{
	struct queue *q = &world.queue[row];
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
		reference_store(&world.r, &c[i]);
}

void
drain(void)
{
	static struct ring_charge all[(TOOLS + 1) * ITEMS_MAX * CHARGES];
	uint32_t n = 0;

	for (uint32_t row = 0; row <= TOOLS; row++) {
		struct ring_cursor at = ring_begin(&world.f.arena, row);
		struct queue *q = &world.queue[row];
		struct ring_item item;

		while (ring_next(&world.f.arena, row, &at, &item)) {
			assert_true(q->count > 0);
			agree("sequence of an item", (int64_t)item.sequence, (int64_t)++q->sequence);
			compare_item(&item, &q->item[q->first]);
			memcpy(&all[n], item.charge, item.charges * sizeof(all[0]));
			n += item.charges;
			q->first = (q->first + 1) % ITEMS_MAX;
			q->count--;
		}
		agree("items that did not come", q->count, 0);
		ring_advance(&world.f.arena, row, at);
	}
	book_in_order(all, n);
}

/* ---- meters that are not in memory ---- */

static uint32_t
rows_taken(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < world.r.meters; i++)
		n += world.r.meter[i].here;
	return n;
}

/* The reference joins the charge's group: DONE if there is room in it. */
static enum load_result
join(struct charge *c)
{
	struct reference_meter *g = &world.r.meter[reference_find(&world.r, c->group->id)];

	if (!g->here && rows_taken() == ROWS)
		return LOAD_FULL;
	if (!g->here && rows_taken() == ROWS - 1 && c->group->most > 0)
		return LOAD_FULL;	/* for the group, but not for the meter */
	g->here = true;
	g->name = c->group->name;
	g->limit = c->group->most;
	g->used_at = world.r.tick;
	if (g->spent < c->group->most)
		return LOAD_DONE;
	world.count.overflowed++;
	c->id = c->group->overflow;
	c->name = c->group->overflow_name;
	c->overflowed = true;
	return world.r.meter[reference_find(&world.r, c->id)].here ? LOAD_DONE : LOAD_STALE;
}

/* What a load must answer; on DONE the reference has the meter too. */
static enum load_result
reference_answers(struct charge *c)
{
	uint32_t meter = reference_find(&world.r, c->id);
	struct reference_meter *g = c->group && !c->overflowed ? &world.r.meter[reference_find(&world.r, c->group->id)] : NULL;
	struct reference_meter before = g ? *g : world.r.meter[meter];

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
	reference_load(&world.r, meter, c, world.f.now);
	world.r.meter[meter].name = c->name;
	world.r.meter[meter].group = g ? (uint32_t)(g - world.r.meter) : REFERENCE_NONE;
	return LOAD_DONE;
}

bool
load(struct charge *c)
{
	struct level level = reference_level(&world.r.meter[reference_find(&world.r, c->id)]);
	uint64_t evictions = ledger_evictions(&world.f.arena);
	struct charge copy = *c;
	uint32_t worker = (uint32_t)draw(WORKERS);

	world.count.unknown++;
	if (once_in(8)) {
		world.count.stale++;
		agree("a load with an old level", ledger_load(&world.f.arena, worker, c, &level, evictions - 1, world.f.now), LOAD_STALE);
	}
	enum load_result want = reference_answers(&copy);
	enum load_result have = ledger_load(&world.f.arena, worker, c, &level, evictions, world.f.now);
	agree("a load", have, want);
	agree("overflowed", c->overflowed, copy.overflowed);
	agree("id of a loaded charge", (int64_t)c->id.lo, (int64_t)copy.id.lo);
	world.count.full += have == LOAD_FULL;
	return have != LOAD_FULL;
}

bool
is_open(uint32_t meter)
{
	for (uint32_t i = 0; i < world.opened; i++)
		for (uint32_t p = 0; p < world.open[i].q.parts; p++)
			if (world.open[i].q.part[p].meter == meter)
				return true;
	return false;
}
