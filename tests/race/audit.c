/*
 * tests/race/audit.c -- the auditor of books.h: sums against meters, pages,
 * the table of meters and the rings.
 */
#include <string.h>

#include "shm/layout.h"
#include "shm/table.h"
#include "tests/race/books.h"

/* A hold that a move closed holds what will be paid, of a request that was sent. */
static void
audit_closed(const struct inflight *e)
{
	uint64_t status = word_get(&e->status), holds = word_get(&e->holds);

	for (uint64_t i = 0; i < holds && i < CHARGES_MAX; i++) {
		const struct shm_hold *h = &e->hold[i];
		const struct book_meter *m = &book_meter[book_number((struct meter_id){ word_get(&h->id_hi), word_get(&h->id_lo) })];
		int64_t raw = m->kind == METER_BUCKET ? BOOK_WINDOW_NS / m->limit : 1;

		if (!(atomic_load(&h->what) & HOLD_CLOSED))
			continue;
		if ((status & INFLIGHT_STATE) == INFLIGHT_ADMITTED || status & INFLIGHT_CANCEL)
			book_fail("a closed hold of a request that was not sent", (int64_t)status, INFLIGHT_SENT);
		book_equal("held by a closed hold", (int64_t)word_get(&h->amount), (int64_t)word_get(&h->units) * raw);
		if (word_get(&h->units) == 0)
			book_fail("a closed hold of nothing", 0, 1);
	}
}

/* Each page is in use, in the free list, or was never used; none is lost. */
static void
audit_pages(const struct arena *a, uint32_t worker)
{
	const struct shm_worker *w = layout_worker(a, worker);
	const struct inflight *pages = layout_pages(a, worker);
	uint64_t fresh = word_get(&w->page_fresh), busy = 0, listed = 0;

	for (uint64_t i = 0; i < fresh; i++) {
		if ((word_get(&pages[i].status) & INFLIGHT_STATE) == INFLIGHT_FREE)
			continue;
		busy++;
		audit_closed(&pages[i]);
	}
	for (uint64_t at = word_get(&w->page_first); at != 0; at = pages[at - 1].next) {
		book_equal("state of a page in the free list", (int64_t)(word_get(&pages[at - 1].status) & INFLIGHT_STATE),
		    INFLIGHT_FREE);
		if (++listed > fresh)
			book_fail("the free list has a circle", (int64_t)listed, (int64_t)fresh);
	}
	book_equal("free pages", (int64_t)listed, (int64_t)(fresh - busy));
	book_equal("pages in flight", (int64_t)word_get(&w->inflight), (int64_t)busy);
}

static void
audit_rows_of_workers(const struct arena *a)
{
	for (uint32_t row = 0; row < layout_rows(a); row++) {
		const struct shm_worker *w = layout_worker(a, row);

		book_equal("journal", (int64_t)word_get(&w->journal.count), 0);
		book_equal("visible head", (int64_t)word_get(&w->ring_visible), (int64_t)word_get(&w->ring_head));
	}
}

/* ---- what requests in flight hold ---- */

struct held {
	int64_t amount[BOOK_METERS];	/* raw */
	int64_t money;
	uint32_t pages, astray;		/* holds whose meter is not in its row */
};

/* Nobody was in a step since. Until it is known, what was seen may be nonsense. */
static bool
stands_still(const struct arena *a, uint64_t sequence)
{
	return word_get(&a->header->ledger.sequence) == sequence;
}

static bool
add_hold(const struct arena *a, uint64_t sequence, const struct shm_hold *h, struct held *sum)
{
	struct meter_id id = { word_get(&h->id_hi), word_get(&h->id_lo) };
	uint32_t row = atomic_load(&h->row);
	int64_t amount = (int64_t)word_get(&h->amount);

	if (!stands_still(a, sequence))
		return false;
	const struct book_meter *m = &book_meter[book_number(id)];
	sum->amount[book_number(id)] += amount;
	if (m->kind == METER_BUDGET && m->unit == UNIT_NUSD)
		sum->money += amount;
	sum->astray += row >= arena_sizes(a).meters || !row_has_id(&layout_meters(a)[row], id);
	return true;
}

/* false: a step came in between. */
static bool
sum_pages(const struct arena *a, uint64_t sequence, struct held *sum)
{
	struct arena_sizes sizes = arena_sizes(a);

	*sum = (struct held){ 0 };
	for (uint32_t w = 0; w < sizes.workers; w++) {
		const struct inflight *pages = layout_pages(a, w);

		for (uint32_t i = 0; i < layout_pages_each(&sizes); i++) {
			uint64_t status = word_get(&pages[i].status), holds = word_get(&pages[i].holds);

			if ((status & INFLIGHT_STATE) == INFLIGHT_FREE)
				continue;
			sum->pages++;
			for (uint64_t h = 0; h < holds && h < CHARGES_MAX; h++)
				if (!add_hold(a, sequence, &pages[i].hold[h], sum))
					return false;
		}
	}
	return stands_still(a, sequence);
}

/* ---- meters ---- */

static bool
keeps_what_it_took(const struct book_meter *m)
{
	return m->kind == METER_BUCKET && m->unit == UNIT_REQUESTS;
}

static void
audit_bucket(const struct book *b, uint32_t meter, const struct shm_meter *row, const struct held *held)
{
	int64_t level = (int64_t)word_get(&row->level);
	/* A bucket whose units all came back may stand at now, or before: full. */
	int64_t taken = level > b->now.mono_ns ? level - b->now.mono_ns : 0;
	int64_t unit_ns = BOOK_WINDOW_NS / book_meter[meter].limit;

	book_equal("units of a bucket", taken, book_now(b)->used[meter] * unit_ns + held->amount[meter]);
}

static void
audit_budget(const struct book *b, uint32_t meter, const struct shm_meter *row, const struct held *held)
{
	const struct book_level *l = &book_now(b)->level[meter];
	int64_t index = (int64_t)word_get(&row->period_index), spent = (int64_t)word_get(&row->level);

	if (l->known && index < l->period_index)
		book_fail("a budget is in a period that is over", index, l->period_index);
	/* An admission may have begun a day that nobody has paid in yet. */
	book_equal("spent of a budget", spent, l->known && index == l->period_index ? l->spent : 0);
	if (book_meter[meter].mode != MODE_POSTPAID && spent + held->amount[meter] > book_meter[meter].limit)
		book_fail("a budget is over its limit", spent + held->amount[meter], book_meter[meter].limit);
	if (book_meter[meter].period == PERIOD_TOTAL)
		book_equal("all that was ever booked", spent, book_now(b)->used[meter]);
}

static void
audit_meter(const struct book *b, uint32_t row, const struct held *held)
{
	const struct shm_meter *m = &layout_meters(b->arena)[row];
	uint32_t meter = book_number((struct meter_id){ word_get(&m->id_hi), word_get(&m->id_lo) });
	const struct book_meter *like = &book_meter[meter];
	const char *name = (const char *)layout_names(b->arena)[row].text;

	book_equal("a meter's kind", (int64_t)WHAT_KIND(word_get(&m->what)), like->kind);
	book_equal("a meter's unit", (int64_t)WHAT_UNIT(word_get(&m->what)), like->unit);
	book_equal("a meter's name", strncmp(name, like->name, METER_NAME_BYTES), 0);
	book_equal("held by a meter", (int64_t)word_get(&m->held), keeps_what_it_took(like) ? 0 : held->amount[meter]);
	switch (like->kind) {
	case METER_BUCKET:
		audit_bucket(b, meter, m, held);
		break;
	case METER_BUDGET:
		audit_budget(b, meter, m, held);
		break;
	case METER_CONCURRENCY:
		if (held->amount[meter] > like->limit)
			book_fail("more at a time than may be", held->amount[meter], like->limit);
		break;
	case METER_GROUP:
		break;
	}
}

/* ---- the table ---- */

/* Rows that are taken have one entry in the index each, by which they are
 * found; the others are in the free list, or were never used. */
static void
audit_table(const struct arena *a)
{
	const struct shm_ledger *l = &a->header->ledger;
	const struct shm_meter *meters = layout_meters(a);
	uint32_t rows = arena_sizes(a).meters, fresh = ledger_meter_rows(a), used = 0, free_rows = 0, entries = 0;

	for (uint32_t row = 0; row < rows; row++) {
		struct meter_id id = { word_get(&meters[row].id_hi), word_get(&meters[row].id_lo) };

		if (id.hi == 0 && id.lo == 0)
			continue;
		used++;
		if (row >= fresh)
			book_fail("a meter in a row that was never given out", row, fresh);
		book_equal("the row that the index has for a meter", table_find(a, id), row);
	}
	for (uint64_t at = word_get(&l->meters_free); at != 0; at = word_get(&layout_names(a)[at - 1].next)) {
		book_equal("a row in the free list is free", row_has_id(&meters[at - 1], (struct meter_id){ 0, 0 }), true);
		if (++free_rows > fresh)
			book_fail("the list of free rows has a circle", free_rows, fresh);
	}
	for (uint32_t i = 0; i < rows * INDEX_FACTOR; i++)
		entries += word_get(&layout_index(a)[i]) != 0;
	book_equal("rows in use", ledger_meters_used(a), used);
	book_equal("free rows", free_rows, fresh - used);
	book_equal("entries of the index", entries, used);
}

static void
audit_group(const struct arena *a)
{
	uint32_t group = table_find(a, book_id(BOOK_GROUP)), members = 0;

	for (uint32_t meter = BOOK_VALUES; meter < BOOK_OVERFLOW; meter++) {
		uint32_t row = table_find(a, book_id(meter));

		if (row == ROW_NONE)
			continue;
		members++;
		book_equal("the group of a meter", table_group(a, row), group);
	}
	if (group == ROW_NONE) {
		book_equal("meters without their group", members, 0);
		return;
	}
	book_equal("meters of a group", (int64_t)word_get(&layout_meters(a)[group].level), members);
	if (members > BOOK_VALUES_MOST)
		book_fail("more meters than the group may have", members, BOOK_VALUES_MOST);
}

void
book_audit(struct book *b, bool idle)
{
	const struct arena *a = b->arena;
	uint64_t sequence = word_get(&a->header->ledger.sequence);
	struct held held;

	book_read(b);
	book_equal("sequence of the lock is odd", (int64_t)(sequence & 1), 0);
	audit_rows_of_workers(a);
	for (uint32_t w = 0; w < arena_sizes(a).workers; w++)
		audit_pages(a, w);
	book_equal("nobody uses the arena", sum_pages(a, sequence, &held), true);
	book_equal("money held", ledger_inflight_held(a), held.money);
	book_equal("holds whose meter is not in its row", held.astray, 0);
	if (idle)
		book_equal("requests in flight", held.pages, 0);
	audit_table(a);
	audit_group(a);
	for (uint32_t row = 0; row < ledger_meter_rows(a); row++)
		if (!row_has_id(&layout_meters(a)[row], (struct meter_id){ 0, 0 }))
			audit_meter(b, row, &held);
}

/* ---- while others work ---- */

void
book_glance(struct book *b)
{
	for (uint32_t meter = 0; meter < BOOK_METERS; meter++) {
		const struct book_meter *like = &book_meter[meter];
		struct meter_view v;

		if (!ledger_meter(b->arena, book_id(meter), b->now, &v))
			continue;
		if (v.kind == METER_BUCKET && (v.tokens < 0 || v.held < 0 || v.tokens + v.held > v.limit))
			book_fail("units left", v.tokens, like->limit);
		if (v.kind != METER_BUCKET && (v.held < 0 || v.spent < 0))
			book_fail("less than nothing", v.held, v.spent);
		if (v.kind != METER_BUCKET && like->mode != MODE_POSTPAID && v.spent + v.held > like->limit)
			book_fail("a meter passed its limit", v.spent + v.held, like->limit);
	}
}

bool
book_look(struct book *b)
{
	const struct arena *a = b->arena;
	uint64_t sequence = word_get(&a->header->ledger.sequence);
	int64_t have[BOOK_METERS];
	struct held held;

	if (sequence & 1 || !sum_pages(a, sequence, &held))
		return false;
	for (uint32_t meter = 0; meter < BOOK_METERS; meter++) {
		uint32_t row = table_find(a, book_id(meter));

		have[meter] = row == ROW_NONE ? 0 : (int64_t)word_get(&layout_meters(a)[row].held);
	}
	if (!stands_still(a, sequence))
		return false;
	book_equal("holds whose meter is not in its row, while others work", held.astray, 0);
	for (uint32_t meter = 0; meter < BOOK_METERS; meter++)
		book_equal("held, while others work", have[meter],
		    keeps_what_it_took(&book_meter[meter]) ? 0 : held.amount[meter]);
	return true;
}
