/*
 * tests/race/books.c -- see books.h.
 *
 * A record is a struct written_record. Its owner writes it as a draft (fate
 * UNKNOWN) and again when the request ends; book_orphan() does what the
 * gateway does for a dead worker. Nothing costs more than was held for it, so
 * no limit is ever passed.
 *
 * What a request holds is a struct plan. Before it moves its draft has two, as it
 * is and as it would be: whoever dies in the move, the ring has one of them.
 */
#include "tests/race/books.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum fate { UNKNOWN, BOOKED, CANCELLED, ORPHAN_BOOKED, ORPHAN_CANCELLED, RESET };

/* By meter; sets are masks of bits. */
struct plan {
	uint32_t charged, closed;
	int32_t units[BOOK_METERS];	/* asked for; closed: to be paid */
	int32_t held[BOOK_METERS];	/* as the ring will say */
	int32_t base[BOOK_METERS];	/* used before it was charged */
};

struct written_record {
	uint64_t check;			/* of the rest: a torn record shows */
	uint64_t number;
	uint32_t worker, fate;
	int64_t cost_nusd, tokens;
	uint64_t plans;
	struct plan plan[2];
	char filler[96];
};

_Static_assert(sizeof(struct written_record) % 8 == 0, "summed by words");

#define MANY (INT64_MAX / 4)
#define LOADS_MAX 1000	/* rounds: others evict meanwhile */
#define MOVES_MAX 2	/* with one more before it was sent: all that it held has room in a page */

_Static_assert((MOVES_MAX + 1) * BOOK_CHARGES <= CHARGES_MAX, "what is closed, and what is charged");

/* Windows are multiples of limits, so that units add up exactly. */
const struct book_meter book_meter[BOOK_METERS] = {
	{ "rate 0", METER_BUCKET, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 5000 },
	{ "rate 1", METER_BUCKET, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 1000000000 },
	{ "rate 2", METER_BUCKET, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 2000000000 },
	{ "rate 3", METER_BUCKET, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 4000000000 },
	{ "tokens 0", METER_BUCKET, UNIT_TOKENS, MODE_CLAMP, PERIOD_TOTAL, 0, 4000000 },
	{ "tokens 1", METER_BUCKET, UNIT_TOKENS, MODE_STRICT, PERIOD_TOTAL, 0, 100000000000 },
	{ "budget 0", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, 3000000 },
	{ "budget 1", METER_BUDGET, UNIT_NUSD, MODE_CLAMP, PERIOD_TOTAL, 0, MANY },
	{ "budget of a day", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_DAILY, 0, MANY },
	{ "budget of three days", METER_BUDGET, UNIT_NUSD, MODE_CLAMP, PERIOD_DAYS, 3, MANY },
	{ "token budget 0", METER_BUDGET, UNIT_TOKENS, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "request budget", METER_BUDGET, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "budget, paid later", METER_BUDGET, UNIT_NUSD, MODE_POSTPAID, PERIOD_TOTAL, 0, MANY },
	{ "token budget 1", METER_BUDGET, UNIT_TOKENS, MODE_CLAMP, PERIOD_TOTAL, 0, 2000000 },
	{ "at a time 0", METER_CONCURRENCY, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 4 },
	{ "at a time 1", METER_CONCURRENCY, UNIT_REQUESTS, MODE_STRICT, PERIOD_TOTAL, 0, 1000 },
	{ "value 0", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "value 1", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "value 2", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "value 3", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "value 4", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "value 5", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "all other values", METER_BUDGET, UNIT_NUSD, MODE_STRICT, PERIOD_TOTAL, 0, MANY },
	{ "values", METER_GROUP, UNIT_REQUESTS, MODE_CLAMP, PERIOD_TOTAL, 0, BOOK_VALUES_MOST },
};

void
book_fail(const char *what, int64_t have, int64_t want)
{
	fprintf(stderr, "books do not balance: %s: have %lld, want %lld\n", what, (long long)have, (long long)want);
	abort();
}

void
book_equal(const char *what, int64_t have, int64_t want)
{
	if (have != want)
		book_fail(what, have, want);
}

/* Chosen so that many of these ids collide in an index of 128 entries. */
#define ID_HI 16131

struct meter_id
book_id(uint32_t meter)
{
	return (struct meter_id){ ID_HI, meter + 1 };
}

uint32_t
book_number(struct meter_id id)
{
	if (id.hi != ID_HI || id.lo - 1 >= BOOK_METERS)
		book_fail("id of a meter", (int64_t)id.lo, BOOK_METERS);
	return (uint32_t)id.lo - 1;
}

uint64_t
book_draw(uint64_t *random, uint64_t below)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random % below;
}

static uint64_t
checksum(const struct written_record *r)
{
	uint64_t word, sum = 1;

	for (size_t i = sizeof(r->check); i < sizeof(*r); i += sizeof(word)) {
		memcpy(&word, (const char *)r + i, sizeof(word));
		sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	}
	return sum;
}

/* ---- requests ---- */

static const struct charge_group groups[2] = {
	{ { ID_HI, BOOK_GROUP + 1 }, { ID_HI, BOOK_OVERFLOW + 1 }, BOOK_VALUES_MOST, "values", "all other values" },
	{ { ID_HI, BOOK_GROUP + 1 }, { ID_HI, BOOK_OVERFLOW + 1 }, BOOK_VALUES_MOST - 1, "values", "all other values" },
};

static struct charge
charge_on(uint32_t meter, int64_t amount)
{
	const struct book_meter *m = &book_meter[meter];

	return (struct charge){
		.id = book_id(meter),
		.kind = m->kind,
		.unit = m->unit,
		.mode = m->mode,
		.period = m->period,
		.days = m->days,
		.row = UINT32_MAX,
		.limit = m->limit,
		.window_ns = BOOK_WINDOW_NS,
		.fixed = amount,
		.slope_milli = m->mode == MODE_CLAMP ? 1000 : 0,
		.name = m->name,
		.group = meter >= BOOK_VALUES && meter < BOOK_OVERFLOW ? &groups[0] : NULL,
	};
}

/* Somebody edits a limit, in ways that change no sum. */
static void
edit(struct booking *b, struct charge *c)
{
	uint32_t meter = book_number(c->id);

	if (book_draw(&b->random, 2) == 0)
		return;
	if (book_meter[meter].limit == MANY) {
		c->limit--;
		c->alert = c->limit / 2;
	}
	if (c->kind == METER_BUCKET && c->unit == UNIT_REQUESTS && meter != BOOK_SMALL_RATE) {
		c->limit *= 2;
		c->window_ns *= 2;
	}
	if (c->group)
		c->group = &groups[1];
}

/* One to seven charges, now and then two on one meter; the small meters seldom,
 * or all would soon be refused. */
static uint32_t
choose(struct booking *b, struct charge *c)
{
	uint32_t n = 1 + (uint32_t)book_draw(&b->random, BOOK_CHARGES);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t meter = (uint32_t)book_draw(&b->random, BOOK_OVERFLOW);

		if (book_draw(&b->random, 6) == 0)
			meter = BOOK_DAILY + (uint32_t)book_draw(&b->random, 2);
		if ((meter == BOOK_SMALL_RATE || meter == BOOK_SMALL_BUDGET) && book_draw(&b->random, 8) != 0)
			meter++;
		bool few = book_meter[meter].unit == UNIT_REQUESTS;
		c[i] = charge_on(meter, 1 + (int64_t)book_draw(&b->random, few ? 3 : 1000));
		if (book_meter[meter].kind == METER_CONCURRENCY)
			c[i].fixed = 1;
		edit(b, &c[i]);
	}
	return n;
}

static void
around(struct booking *b)
{
	if (b->around)
		b->around(b);
}

/* As the store would be asked. */
static struct level
level_of(const struct book_store *s, const struct charge *c)
{
	uint32_t meter = book_number(c->id);

	for (;;) {
		uint64_t version = atomic_load(&s->version);
		const struct book_level *l = &s->copy[version & 1].level[meter];
		struct level level = {
			.known = atomic_load(&l->known) != 0,
			.what = meter_what(c),
			.period_index = atomic_load(&l->period_index),
			.spent = atomic_load(&l->spent),
			.full_wall_ns = atomic_load(&l->full_wall_ns),
		};

		if (atomic_load(&s->version) == version)
			return level;
	}
}

static void
load(struct booking *b, struct charge *c)
{
	uint64_t evictions = ledger_evictions(b->arena);
	struct level level = level_of(b->store, c);

	around(b);
	enum load_result result = ledger_load(b->arena, b->worker, c, &level, evictions, b->now);
	around(b);
	if (result == LOAD_FULL)
		book_fail("a load, as there are rows enough", result, LOAD_DONE);
}

static enum ledger_verdict
admit(struct booking *b, struct charge *c, uint32_t n, struct demand *d, struct inflight **e)
{
	struct refusal why;

	for (uint32_t rounds = 0; rounds < LOADS_MAX; rounds++) {
		around(b);
		enum ledger_verdict verdict = ledger_admit(b->arena, b->worker, c, n, d, b->now, e, &why);
		around(b);
		if (verdict != LEDGER_UNKNOWN)
			return verdict;
		load(b, &c[why.charge]);
	}
	book_fail("rounds of loading", LOADS_MAX, 0);
}

/* A request that was admitted. */
struct running {
	struct inflight *e;
	struct charge c[BOOK_CHARGES];
	uint32_t n;
	int64_t money, tokens;		/* that may be used in all */
};

static void
plan_charge(struct plan *p, uint32_t meter, int64_t units)
{
	p->charged |= 1u << meter;
	p->units[meter] += (int32_t)units;
	p->held[meter] += book_meter[meter].mode == MODE_POSTPAID ? 0 : (int32_t)units;
}

static int64_t
units_of(const struct charge *c, int64_t demand)
{
	return c->fixed + (c->slope_milli > 0 ? demand : 0);
}

static void
describe(struct booking *b, const struct charge *c, uint32_t n, const struct demand *d, struct written_record *r)
{
	memset(r, 0, sizeof(*r));
	r->number = b->number++;
	r->worker = b->worker;
	r->plans = 1;
	memset(r->filler, (int)(r->number % 251), sizeof(r->filler));
	for (uint32_t i = 0; i < n; i++) {
		int64_t units = units_of(&c[i], d->granted);

		plan_charge(&r->plan[0], book_number(c[i].id), units);
		book_equal("what was taken", c[i].taken, c[i].mode == MODE_POSTPAID ? 0 : units);
	}
}

/* What is paid for a meter in the end, if that is when so much has been used. */
static int64_t
amount_of(const struct plan *p, uint32_t meter, int64_t cost_nusd, int64_t tokens)
{
	enum meter_unit unit = book_meter[meter].unit;

	if (p->closed >> meter & 1 || unit == UNIT_REQUESTS)
		return p->units[meter];
	return (unit == UNIT_NUSD ? cost_nusd : tokens) - p->base[meter];
}

/* With other charges from now on. */
static struct plan
plan_move(const struct written_record *r, bool sent, const struct charge *c, uint32_t n, int64_t demand)
{
	const struct plan *was = &r->plan[0];
	struct plan p = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		uint32_t meter = book_number(c[i].id);
		int64_t used = book_meter[meter].unit == UNIT_NUSD ? r->cost_nusd : r->tokens, already = 0;

		if (!(p.charged >> meter & 1) && book_meter[meter].unit != UNIT_REQUESTS) {
			if ((was->charged | was->closed) >> meter & 1)
				already = amount_of(was, meter, r->cost_nusd, r->tokens);
			p.base[meter] = (int32_t)(used - already);
		}
		plan_charge(&p, meter, already + units_of(&c[i], demand));
	}
	for (uint32_t meter = 0; sent && meter < BOOK_METERS; meter++) {
		int64_t amount = amount_of(was, meter, r->cost_nusd, r->tokens);

		if (!((was->charged | was->closed) >> meter & 1) || p.charged >> meter & 1 || amount == 0 ||
		    book_meter[meter].kind == METER_CONCURRENCY)
			continue;
		p.closed |= 1u << meter;
		p.units[meter] = p.held[meter] = (int32_t)amount;
	}
	return p;
}

static void
write_record(struct booking *b, struct inflight *e, struct written_record *r, enum fate fate)
{
	r->fate = fate;
	r->check = checksum(r);
	around(b);
	memcpy(inflight_record(e), r, sizeof(*r));
	inflight_record_set(e, sizeof(*r));
	around(b);
}

static struct metered
metered_of(int64_t cost, int64_t tokens)
{
	return (struct metered){
		.tokens = { cost, cost, cost, cost, cost, cost, cost, cost },
		.total_tokens = tokens,
		.cost_nusd = cost,
	};
}

static void
write_metered(struct booking *b, struct inflight *e, int64_t cost, int64_t tokens)
{
	struct metered m = metered_of(cost, tokens);

	around(b);
	inflight_metered(e, &m);
	around(b);
}

/* What can be used without passing a limit: the smallest amount in that unit. */
static int64_t
smallest_amount(const struct charge *c, uint32_t n, enum meter_unit unit, int64_t demand)
{
	int64_t least = 1000;

	for (uint32_t i = 0; i < n; i++)
		if (c[i].unit == unit && c[i].mode != MODE_POSTPAID && units_of(&c[i], demand) < least)
			least = units_of(&c[i], demand);
	return least;
}

/* Ends it, with as much patience as the booking has. */
static enum booked
end(struct booking *b, struct inflight *e, bool settle, bool with_record, const struct written_record *r)
{
	struct settled used = { r->cost_nusd, r->tokens };
	enum settle_verdict v;

	for (;;) {
		around(b);
		v = settle ? ledger_settle(b->arena, b->worker, e, &used, b->now)
		    : ledger_cancel(b->arena, b->worker, e, with_record, b->now);
		around(b);
		if (v == SETTLED)
			return settle ? BOOK_SETTLED : BOOK_CANCELLED;
		if (!b->patient)
			return BOOK_NO_ROOM;
		sched_yield();
	}
}

/* At another target: with some charges of before, and others. If that has no room
 * it goes on where it is. */
static void
move(struct booking *b, struct written_record *r, bool sent, struct running *run)
{
	struct metered used = metered_of(r->cost_nusd, r->tokens);
	struct charge c[BOOK_CHARGES];
	uint32_t n = choose(b, c), kept = (uint32_t)book_draw(&b->random, run->n + 1);
	struct demand d = { .most = 1 + (int64_t)book_draw(&b->random, 100), .share = 1 };
	enum ledger_verdict verdict = LEDGER_UNKNOWN;
	struct refusal why;

	d.floor = d.most;	/* not lowered: what it will hold must be known before */
	for (uint32_t i = 0; i < n && i < kept; i++)
		c[i] = run->c[i];
	for (uint32_t rounds = 0; verdict == LEDGER_UNKNOWN; rounds++) {
		r->plan[1] = plan_move(r, sent, c, n, d.most);
		r->plans = 2;
		write_record(b, run->e, r, UNKNOWN);
		around(b);
		verdict = ledger_move(b->arena, b->worker, &run->e, &used, c, n, &d, b->now, &why);
		around(b);
		if (verdict == LEDGER_UNKNOWN)
			load(b, &c[why.charge]);
		if (rounds == LOADS_MAX)
			book_fail("rounds of loading", rounds, 0);
	}
	r->plans = 1;
	if (verdict == LEDGER_REFUSED)
		return;
	book_equal("a move, as neither pages nor rows can be missing", verdict, LEDGER_ADMITTED);
	r->plan[0] = r->plan[1];
	write_record(b, run->e, r, UNKNOWN);
	memcpy(run->c, c, sizeof(c));
	run->n = n;
	run->money = r->cost_nusd + smallest_amount(c, n, UNIT_NUSD, d.most);
	run->tokens = r->tokens + smallest_amount(c, n, UNIT_TOKENS, d.most);
	b->moves++;
}

/* Something is used; nothing, now and then. */
static void
use(struct booking *b, struct written_record *r, const struct running *run)
{
	for (uint64_t i = book_draw(&b->random, 3); i > 0; i--) {
		r->cost_nusd += (int64_t)book_draw(&b->random, (uint64_t)(run->money - r->cost_nusd) + 1);
		r->tokens += (int64_t)book_draw(&b->random, (uint64_t)(run->tokens - r->tokens) + 1);
		write_metered(b, run->e, r->cost_nusd, r->tokens);
	}
}

static bool
wants_to_move(struct booking *b)
{
	return b->restless || book_draw(&b->random, 4) == 0;
}

static enum booked
run(struct booking *b, struct running *run, struct written_record *r)
{
	write_record(b, run->e, r, UNKNOWN);
	if (book_draw(&b->random, 2) == 0 && wants_to_move(b))
		move(b, r, false, run);
	if (book_draw(&b->random, 8) == 0) {
		bool with_record = book_draw(&b->random, 2) == 0;

		write_record(b, run->e, r, CANCELLED);
		return end(b, run->e, false, with_record, r);
	}
	around(b);
	inflight_sent(run->e);
	around(b);
	use(b, r, run);
	for (int i = 0; i < MOVES_MAX && wants_to_move(b); i++) {
		move(b, r, true, run);
		use(b, r, run);
	}
	write_record(b, run->e, r, BOOKED);
	return end(b, run->e, true, true, r);
}

enum booked
book_request(struct booking *b)
{
	struct running now;
	struct demand d = { .most = 1 + (int64_t)book_draw(&b->random, 1000), .share = 8 };
	struct written_record r;

	now.n = choose(b, now.c);
	d.floor = (int64_t)book_draw(&b->random, 200);
	enum ledger_verdict verdict = admit(b, now.c, now.n, &d, &now.e);
	if (verdict == LEDGER_REFUSED)
		return BOOK_REFUSED;
	book_equal("admission, as neither pages nor rows can be missing", verdict, LEDGER_ADMITTED);
	describe(b, now.c, now.n, &d, &r);
	now.money = smallest_amount(now.c, now.n, UNIT_NUSD, d.granted);
	now.tokens = smallest_amount(now.c, now.n, UNIT_TOKENS, d.granted);
	return run(b, &now, &r);
}

void
book_orphan(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	struct written_record r;

	(void)arg;
	if (*bytes == 0) {
		book_equal("only an admitted request may lack a draft", state, INFLIGHT_ADMITTED);
		return;
	}
	book_equal("bytes of a draft", *bytes, sizeof(r));
	memcpy(&r, record, sizeof(r));
	if (r.check != checksum(&r))
		book_fail("a torn draft", (int64_t)r.check, (int64_t)checksum(&r));
	for (int i = 1; i < 8; i++)
		book_equal("a torn metering", m->tokens[i], m->cost_nusd);
	r.fate = state == INFLIGHT_ADMITTED ? ORPHAN_CANCELLED : ORPHAN_BOOKED;
	r.cost_nusd = state == INFLIGHT_ADMITTED ? 0 : m->cost_nusd;
	r.tokens = state == INFLIGHT_ADMITTED ? 0 : m->total_tokens;
	r.check = checksum(&r);
	memcpy(record, &r, sizeof(r));
}

enum reset_result
book_reset(struct booking *b, uint32_t meter)
{
	struct written_record r = { .number = b->number++, .worker = b->worker, .fate = RESET, .plans = 1 };

	r.plan[0].charged = 1u << meter;
	r.check = checksum(&r);
	return ledger_reset(b->arena, book_id(meter), (const char *)&r, sizeof(r), b->now);
}

/* ---- the keeper, and what it stores ---- */

void
book_open(struct book *b, struct arena *a, struct now now)
{
	*b = (struct book){ .arena = a, .now = now };
	b->store = mmap(NULL, sizeof(*b->store), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->store == MAP_FAILED)
		book_fail("memory", 0, 1);
}

void
book_close(struct book *b)
{
	munmap(b->store, sizeof(*b->store));
	b->store = NULL;
}

const struct book_accounts *
book_now(const struct book *b)
{
	return &b->store->copy[atomic_load(&b->store->version) & 1];
}

/* What the ring must say of a meter, if the record says this. */
static int64_t
booked_of(const struct written_record *r, const struct plan *p, uint32_t meter)
{
	return r->fate == BOOKED || r->fate == ORPHAN_BOOKED ? amount_of(p, meter, r->cost_nusd, r->tokens) : 0;
}

static void
book_charge(struct book_accounts *to, uint32_t meter, const struct ring_charge *c, bool reset)
{
	struct book_level *l = &to->level[meter];

	if (reset && book_meter[meter].kind == METER_BUCKET)
		to->used[meter] = 0;
	to->used[meter] += c->amount;
	if (book_meter[meter].kind == METER_BUCKET && c->step >= l->step) {
		l->known = 1;
		l->step = c->step;
		l->full_wall_ns = c->full_wall_ns;
	}
	if (book_meter[meter].kind != METER_BUDGET || c->amount == 0)
		return;
	if (!l->known || c->period_index > l->period_index) {
		l->period_index = c->period_index;
		l->spent = 0;
	}
	l->known = 1;
	if (c->period_index == l->period_index)
		l->spent += c->amount;
}

/* Whether the request ended as planned. */
static bool
is_by_plan(const struct ring_item *item, const struct written_record *r, const struct plan *p)
{
	uint32_t seen = 0;

	for (uint32_t i = 0; i < item->charges; i++) {
		uint32_t meter = book_number(item->charge[i].id);

		if (item->charge[i].held != p->held[meter] || item->charge[i].amount != booked_of(r, p, meter))
			return false;
		seen |= 1u << meter;
	}
	return seen == (p->charged | p->closed);
}

static void
read_charges(struct book_accounts *to, const struct ring_item *item, const struct written_record *r)
{
	const struct plan *p = &r->plan[r->plans == 2 && !is_by_plan(item, r, &r->plan[0])];
	uint32_t seen = 0, want = p->charged | p->closed;

	to->in_two_minds += r->plans == 2;
	to->closed += p->closed != 0;
	for (uint32_t i = 0; i < item->charges; i++) {
		const struct ring_charge *c = &item->charge[i];
		uint32_t meter = book_number(c->id);
		struct charge like = charge_on(meter, 0);

		if (!(want >> meter & 1) || seen >> meter & 1)
			book_fail("a charge that the request did not make", meter, want);
		seen |= 1u << meter;
		book_equal("what a charge is", (int64_t)c->what, (int64_t)meter_what(&like));
		book_equal("held by a charge", c->held, p->held[meter]);
		if (r->fate != RESET)
			book_equal("amount of a charge", c->amount, booked_of(r, p, meter));
		else if (c->amount > 0)
			book_fail("amount of a reset", c->amount, 0);
		book_charge(to, meter, c, r->fate == RESET);
	}
	book_equal("charges of a record", seen, want);
}

static void
read_item(struct book_accounts *to, uint32_t row, uint32_t tools, const struct ring_item *item)
{
	struct written_record r;

	if (item->sequence <= to->sequence[row])
		return;		/* a keeper before us has stored it and died */
	book_equal("sequence", (int64_t)item->sequence, (int64_t)++to->sequence[row]);
	book_equal("bytes of a record", item->record_bytes, sizeof(r));
	memcpy(&r, item->record, sizeof(r));
	if (r.check != checksum(&r))
		book_fail("a torn record", (int64_t)r.check, (int64_t)checksum(&r));
	book_equal("a reset is in the ring of the tools", row == tools, r.fate == RESET);
	if (row != tools)
		book_equal("worker of a record", r.worker, row);
	to->records++;
	to->settled += r.fate == BOOKED;
	to->cancelled += r.fate == CANCELLED;
	to->orphans_settled += r.fate == ORPHAN_BOOKED;
	to->orphans_cancelled += r.fate == ORPHAN_CANCELLED;
	to->resets += r.fate == RESET;
	if (r.fate == UNKNOWN)
		book_fail("a draft in a ring", r.fate, BOOKED);
	read_charges(to, item, &r);
}

static void
copy_accounts(struct book_accounts *to, const struct book_accounts *from)
{
	memcpy(to, from, offsetof(struct book_accounts, level));
	for (uint32_t i = 0; i < BOOK_METERS; i++) {	/* others may be looking at old ones */
		atomic_store(&to->level[i].known, from->level[i].known);
		atomic_store(&to->level[i].period_index, from->level[i].period_index);
		atomic_store(&to->level[i].spent, from->level[i].spent);
		atomic_store(&to->level[i].full_wall_ns, from->level[i].full_wall_ns);
		atomic_store(&to->level[i].step, from->level[i].step);
	}
}

static void
between(const struct book *b)
{
	if (b->around)
		b->around();
}

void
book_read(struct book *b)
{
	uint64_t version = atomic_load(&b->store->version);
	struct book_accounts *to = &b->store->copy[!(version & 1)];
	struct ring_cursor at[BOOK_WORKERS_MAX + 1];
	uint32_t tools = ledger_tools_row(b->arena);
	bool any = false;

	copy_accounts(to, &b->store->copy[version & 1]);
	for (uint32_t row = 0; row <= tools; row++) {
		struct ring_item item;

		at[row] = ring_begin(b->arena, row);
		while (ring_next(b->arena, row, &at[row], &item)) {
			read_item(to, row, tools, &item);
			between(b);
			any = true;
		}
	}
	if (!any)
		return;
	atomic_store(&b->store->version, version + 1);	/* the commit */
	for (uint32_t row = 0; row <= tools; row++) {
		between(b);
		ring_advance(b->arena, row, at[row]);
	}
	between(b);
}

uint32_t
book_evict(struct book *b, uint32_t most)
{
	uint64_t tick = ledger_tick(b->arena);

	between(b);
	book_read(b);
	return ledger_evict(b->arena, tick, 0, most, b->now);
}
