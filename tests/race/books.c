/*
 * tests/race/books.c -- see books.h.
 *
 * A record is a struct written_record. Its owner writes it as a draft (fate
 * UNKNOWN) and again when the request ends; book_orphan() does what the
 * gateway does for a dead worker.
 */
#include "tests/race/books.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/layout.h"
#include "shm/ring.h"

enum fate { UNKNOWN, BOOKED, CANCELLED, ORPHAN_BOOKED, ORPHAN_CANCELLED };

struct written_record {
	uint64_t check;			/* of the rest: a torn record shows */
	uint64_t number;
	uint32_t worker, fate;
	int64_t cost_nusd;
	int64_t unit_ns[BOOK_BUCKETS];
	uint32_t budgets;		/* bit set */
	uint32_t pad;
	char filler[304];		/* as large as a small real one */
};

_Static_assert(sizeof(struct written_record) % 8 == 0, "summed by words");

const int64_t book_limit[BOOK_METERS] = {
	5000, 1000000000, 2000000000, 4000000000,
	3000000, INT64_MAX / 2, INT64_MAX / 2, INT64_MAX / 2, INT64_MAX / 2,
};

static const enum meter_period book_period[BOOK_BUDGETS] = {
	PERIOD_TOTAL, PERIOD_TOTAL, PERIOD_DAILY, PERIOD_TOTAL, PERIOD_TOTAL,
};

#define DAILY 2		/* the budget that is daily */

void
book_fail(const char *what, int64_t have, int64_t want)
{
	fprintf(stderr, "books do not balance: %s: have %lld, want %lld\n", what, (long long)have, (long long)want);
	abort();
}

static void
equal(const char *what, int64_t have, int64_t want)
{
	if (have != want)
		book_fail(what, have, want);
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

static struct charge
charge_on(uint32_t meter, int64_t amount)
{
	bool bucket = meter < BOOK_BUCKETS;

	return (struct charge){
		.id = { 7, meter + 1 },
		.kind = bucket ? METER_BUCKET : METER_BUDGET,
		.period = bucket ? PERIOD_TOTAL : book_period[meter - BOOK_BUCKETS],
		.row = UINT32_MAX,
		.limit = book_limit[meter],
		.window_ns = BOOK_WINDOW_NS,
		.amount = amount,
	};
}

/* One to six charges, now and then two on one meter; the small meters seldom,
 * or all would soon be refused. */
static uint32_t
choose(struct booking *b, struct charge *c, struct written_record *r)
{
	uint32_t n = 1 + (uint32_t)book_draw(&b->random, 6);

	memset(r, 0, sizeof(*r));
	r->number = b->number++;
	r->worker = b->worker;
	memset(r->filler, (int)(r->number % 251), sizeof(r->filler));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t meter = (uint32_t)book_draw(&b->random, BOOK_METERS);
		int64_t amount = 1 + (int64_t)book_draw(&b->random, meter < BOOK_BUCKETS ? 3 : 1000);

		if ((meter == 0 || meter == BOOK_BUCKETS) && book_draw(&b->random, 8) != 0)
			meter++;
		c[i] = charge_on(meter, amount);
		if (meter < BOOK_BUCKETS)
			r->unit_ns[meter] += amount * BOOK_WINDOW_NS / book_limit[meter];
		else
			r->budgets |= 1u << (meter - BOOK_BUCKETS);
	}
	return n;
}

static void
around(const struct booking *b)
{
	if (b->around)
		b->around();
}

static void
write_record(struct booking *b, struct inflight *e, struct written_record *r, enum fate fate, int64_t cost_nusd)
{
	r->fate = fate;
	r->cost_nusd = cost_nusd;
	r->check = checksum(r);
	around(b);
	memcpy(inflight_record(e), r, sizeof(*r));
	inflight_record_set(e, sizeof(*r));
	around(b);
}

static void
write_metered(struct booking *b, struct inflight *e, int64_t cost)
{
	struct metered m = {
		.tokens = { cost, cost, cost, cost, cost, cost, cost, cost },
		.cost_nusd = cost,
	};

	around(b);
	inflight_metered(e, &m);
	around(b);
}

/* What can be spent without passing a limit: the smallest hold. */
static int64_t
smallest_hold(const struct charge *c, uint32_t n)
{
	int64_t least = 1000;

	for (uint32_t i = 0; i < n; i++)
		if (c[i].kind == METER_BUDGET && c[i].amount < least)
			least = c[i].amount;
	return least;
}

/* Ends it, with as much patience as the booking has. */
static enum booked
end(struct booking *b, struct inflight *e, bool settle, bool with_record, int64_t cost_nusd)
{
	enum settle_verdict v;

	for (;;) {
		around(b);
		v = settle ? ledger_settle(b->arena, b->worker, e, cost_nusd, b->now)
		    : ledger_cancel(b->arena, b->worker, e, with_record, b->now);
		around(b);
		if (v == SETTLED)
			return settle ? BOOK_SETTLED : BOOK_CANCELLED;
		if (!b->patient)
			return BOOK_NO_ROOM;
		sched_yield();
	}
}

enum booked
book_request(struct booking *b)
{
	struct written_record r;
	struct charge c[6];
	struct inflight *e;
	struct refusal why;
	uint32_t n = choose(b, c, &r);

	around(b);
	enum ledger_verdict verdict = ledger_admit(b->arena, b->worker, c, n, b->now, &e, &why);
	around(b);
	if (verdict == LEDGER_REFUSED)
		return BOOK_REFUSED;
	equal("admission, as neither pages nor rows can be missing", verdict, LEDGER_ADMITTED);
	write_record(b, e, &r, UNKNOWN, 0);
	if (book_draw(&b->random, 8) == 0) {
		bool with_record = book_draw(&b->random, 2) == 0;

		write_record(b, e, &r, CANCELLED, 0);
		return end(b, e, false, with_record, 0);
	}
	int64_t most = smallest_hold(c, n), cost = 0;
	around(b);
	inflight_sent(e);
	around(b);
	for (uint64_t i = book_draw(&b->random, 4); i > 0; i--) {
		cost += (int64_t)book_draw(&b->random, (uint64_t)(most - cost) + 1);
		write_metered(b, e, cost);
	}
	write_record(b, e, &r, BOOKED, cost);
	return end(b, e, true, true, cost);
}

void
book_orphan(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	struct written_record r;

	(void)arg;
	if (*bytes == 0) {
		equal("only an admitted request may lack a draft", state, INFLIGHT_ADMITTED);
		return;
	}
	equal("bytes of a draft", *bytes, sizeof(r));
	memcpy(&r, record, sizeof(r));
	if (r.check != checksum(&r))
		book_fail("a torn draft", (int64_t)r.check, (int64_t)checksum(&r));
	for (int i = 1; i < 8; i++)
		equal("a torn metering", m->tokens[i], m->cost_nusd);
	r.fate = state == INFLIGHT_ADMITTED ? ORPHAN_CANCELLED : ORPHAN_BOOKED;
	r.cost_nusd = state == INFLIGHT_ADMITTED ? 0 : m->cost_nusd;
	r.check = checksum(&r);
	memcpy(record, &r, sizeof(r));
}

/* ---- the auditor ---- */

void
book_open(struct book *b, struct arena *a, struct now now)
{
	*b = (struct book){ .arena = a, .now = now, .period_index = period_index(PERIOD_DAILY, now.wall_ns) };
}

static void
read_charges(struct book *b, const struct ring_item *item, const struct written_record *r)
{
	uint32_t seen = 0;

	for (uint32_t i = 0; i < item->charges; i++) {
		const struct ring_charge *c = &item->charge[i];
		uint64_t budget = c->id.lo - 1 - BOOK_BUCKETS;

		if (budget >= BOOK_BUDGETS || !(r->budgets >> budget & 1) || seen >> budget & 1)
			book_fail("a charge that the request did not make", (int64_t)budget, r->budgets);
		seen |= 1u << budget;
		equal("amount of a charge", c->amount_nusd, r->cost_nusd);
		equal("period of a charge", c->period, book_period[budget]);
		b->spent_nusd[budget] += c->amount_nusd;
		if (budget != DAILY)
			continue;
		if (c->period_index > b->period_index) {
			b->period_index = c->period_index;
			b->spent_today_nusd = 0;
		}
		if (c->period_index == b->period_index)
			b->spent_today_nusd += c->amount_nusd;
	}
	bool booked = r->fate == BOOKED || r->fate == ORPHAN_BOOKED;
	equal("charges of a record", seen, booked ? r->budgets : 0);
}

static void
read_item(struct book *b, uint32_t worker, const struct ring_item *item)
{
	struct written_record r;

	equal("sequence", (int64_t)item->sequence, (int64_t)++b->sequence[worker]);
	equal("bytes of a record", item->record_bytes, sizeof(r));
	memcpy(&r, item->record, sizeof(r));
	if (r.check != checksum(&r))
		book_fail("a torn record", (int64_t)r.check, (int64_t)checksum(&r));
	equal("worker of a record", r.worker, worker);
	b->records++;
	b->settled += r.fate == BOOKED;
	b->cancelled += r.fate == CANCELLED;
	b->orphans_settled += r.fate == ORPHAN_BOOKED;
	b->orphans_cancelled += r.fate == ORPHAN_CANCELLED;
	if (r.fate == UNKNOWN)
		book_fail("a draft in a ring", r.fate, BOOKED);
	read_charges(b, item, &r);
	if (r.fate == CANCELLED || r.fate == ORPHAN_CANCELLED)
		return;
	for (int i = 0; i < BOOK_BUCKETS; i++)
		b->units_ns[i] += r.unit_ns[i];
	for (int i = 0; i < BOOK_BUDGETS; i++)
		b->cost_nusd[i] += r.budgets >> i & 1 ? r.cost_nusd : 0;
}

void
book_read(struct book *b)
{
	for (uint32_t w = 0; w < arena_sizes(b->arena).workers; w++) {
		struct ring_cursor at = ring_begin(b->arena, w);
		struct ring_item item;

		while (ring_next(b->arena, w, &at, &item))
			read_item(b, w, &item);
		ring_advance(b->arena, w, at);
	}
}

/* Each page is in use, in the free list, or was never used; none is lost. */
static void
audit_pages(const struct arena *a, uint32_t worker)
{
	const struct shm_worker *w = layout_worker(a, worker);
	const struct inflight *pages = layout_pages(a, worker);
	uint64_t fresh = word_get(&w->page_fresh), busy = 0, listed = 0;

	for (uint64_t i = 0; i < fresh; i++)
		busy += (word_get(&pages[i].status) & INFLIGHT_STATE) != INFLIGHT_FREE;
	for (uint64_t at = word_get(&w->page_first); at != 0; at = pages[at - 1].next) {
		equal("state of a page in the free list", (int64_t)(word_get(&pages[at - 1].status) & INFLIGHT_STATE),
		    INFLIGHT_FREE);
		if (++listed > fresh)
			book_fail("the free list has a circle", (int64_t)listed, (int64_t)fresh);
	}
	equal("free pages", (int64_t)listed, (int64_t)(fresh - busy));
	equal("pages in flight", (int64_t)word_get(&w->inflight), (int64_t)busy);
	equal("journal", (int64_t)word_get(&w->journal.count), 0);
	equal("visible head", (int64_t)word_get(&w->ring_visible), (int64_t)word_get(&w->ring_head));
}

/* What requests in flight have taken from the meter in this row. */
static int64_t
in_pages(const struct arena *a, uint32_t row)
{
	struct arena_sizes sizes = arena_sizes(a);
	int64_t sum = 0;

	for (uint64_t i = 0; i < (uint64_t)sizes.workers * sizes.inflight; i++) {
		const struct inflight *e = &layout_pages(a, 0)[i];

		if ((word_get(&e->status) & INFLIGHT_STATE) == INFLIGHT_FREE)
			continue;
		for (uint64_t h = 0; h < word_get(&e->holds); h++)
			if (atomic_load(&e->hold[h].row) == row)
				sum += (int64_t)word_get(&e->hold[h].amount);
	}
	return sum;
}

static void
audit_meter(struct book *b, uint32_t row)
{
	const struct shm_meter *m = &layout_meters(b->arena)[row];
	uint64_t number = word_get(&m->id_lo) - 1;
	int64_t pages = in_pages(b->arena, row), level = (int64_t)word_get(&m->level);

	equal("a meter's kind", (int64_t)(word_get(&m->what) & 0xff), number < BOOK_BUCKETS ? METER_BUCKET : METER_BUDGET);
	if (number < BOOK_BUCKETS) {
		/* A bucket whose units all came back may stand at now, or
		 * nowhere yet: both are full. */
		int64_t taken = level > b->now.mono_ns ? level - b->now.mono_ns : 0;

		equal("units of a bucket", taken, b->units_ns[number] + pages);
		return;
	}
	uint64_t budget = number - BOOK_BUCKETS;
	equal("held by a budget", (int64_t)word_get(&m->held), pages);
	equal("booked by records", b->cost_nusd[budget], b->spent_nusd[budget]);
	int64_t spent = b->spent_nusd[budget];
	if (budget == DAILY)	/* an admission may have begun a day that nobody has paid in yet */
		spent = (int64_t)word_get(&m->period_index) == b->period_index ? b->spent_today_nusd : 0;
	equal("spent of a budget", level, spent);
	if (level + pages > book_limit[number])
		book_fail("a budget is over its limit", level + pages, book_limit[number]);
}

/* Each row that is taken has one entry in the index, and there are no others. */
static void
audit_index(const struct arena *a)
{
	const _Atomic uint64_t *index = layout_index(a);
	uint32_t used = ledger_meters_used(a), entries = 0;

	for (uint32_t i = 0; i < arena_sizes(a).meters * INDEX_FACTOR; i++) {
		uint64_t word = word_get(&index[i]);

		entries += word != 0;
		if (word != 0 && (uint32_t)word > used)
			book_fail("a row in the index that is free", (uint32_t)word - 1, used);
	}
	equal("entries of the index", entries, used);
}

void
book_audit(struct book *b, bool idle)
{
	const struct arena *a = b->arena;
	uint32_t used = 0;

	book_read(b);
	equal("sequence of the lock is odd", (int64_t)(word_get(&a->header->ledger.sequence) & 1), 0);
	for (uint32_t w = 0; w < arena_sizes(a).workers; w++) {
		audit_pages(a, w);
		if (idle)
			equal("requests in flight", ledger_inflight_count(a, w), 0);
	}
	for (uint32_t row = 0; row < arena_sizes(a).meters; row++) {
		const struct shm_meter *m = &layout_meters(a)[row];

		if (word_get(&m->id_hi) == 0 && word_get(&m->id_lo) == 0)
			continue;
		used++;
		audit_meter(b, row);
	}
	equal("rows in use", (int64_t)ledger_meters_used(a), used);
	audit_index(a);
	if (idle)
		equal("held when idle", ledger_inflight_held(a), 0);
}

void
book_glance(struct book *b)
{
	for (uint32_t meter = 0; meter < BOOK_METERS; meter++) {
		struct charge c = charge_on(meter, 0);
		struct meter_view v;

		if (!ledger_meter(b->arena, c.id, b->now, &v))
			continue;
		if (v.kind == METER_BUCKET && (v.tokens < 0 || v.tokens > book_limit[meter]))
			book_fail("units left", v.tokens, book_limit[meter]);
		if (v.kind == METER_BUDGET && (v.held < 0 || v.spent < 0 || v.spent + v.held > book_limit[meter]))
			book_fail("a budget passed its limit", v.spent + v.held, book_limit[meter]);
	}
}
