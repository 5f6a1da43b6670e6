/*
 * shm/evict.c -- meters leave memory when nobody needs them there.
 *
 * A meter may go if all that it knows is in the store, and no request in flight
 * has its row. What the store has is told by *ticks*, a coarse clock that the
 * keeper moves before each look at the rings: a meter says in which tick it was
 * last used. Whatever was charged in an earlier one is in the rings by then,
 * and in the store after the commit.
 *
 * The pages are looked at without the lock, after the tick moved. Who is
 * admitted later uses the meter in the new tick, which is seen under the lock;
 * who was admitted earlier has a page that shows it, or has ended, and then its
 * budgets and token buckets were used in the new tick too (a bucket of requests
 * may go as soon as it is full, whatever was charged on it). Who moved to another
 * page meanwhile, so that we saw neither, used all meters of the new one in the
 * new tick (move.c). One thing could deceive us: a page that looked free because its owner was just settling, and
 * died, and was rolled back. So nothing is taken out if a step was rolled back
 * since we looked.
 */
#include <string.h>

#include "shm/meter.h"

#define CANDIDATES 64		/* for each look at the pages */
#define STEP_METERS 6		/* the lock is held so long */
#define ROWS_A_CALL 65536	/* 4 MiB of meters */

_Static_assert(STEP_METERS * (TABLE_REMOVE_NOTES + 1) + 1 <= JOURNAL_MAX, "a removal, its group; evictions");

uint64_t
ledger_tick(struct arena *a)
{
	_Atomic uint64_t *word = &a->header->ledger.tick;

	ledger_lock(a);
	uint64_t tick = word_get(word) + 1;
	word_put(word, tick);
	ledger_unlock(a);
	return tick;
}

struct sweep {
	struct arena *a;
	uint32_t durable_tick, idle_ticks;
	struct now now;
	uint32_t candidate[CANDIDATES];
	uint32_t count;
};

static bool
may_go(const struct sweep *w, uint32_t row)
{
	const struct shm_meter *m = &layout_meters(w->a)[row];

	return !row_has_id(m, (struct meter_id){ 0, 0 }) &&
	    meter_is_idle(m, w->durable_tick, w->idle_ticks, w->now);
}

/* Collects up to `most` rows from the place where the last sweep stopped. How
 * many were looked at. */
static uint32_t
collect(struct sweep *w, uint32_t most, uint32_t looks_max)
{
	struct shm_ledger *l = &w->a->header->ledger;
	uint32_t rows = ledger_meter_rows(w->a), looks = 0;
	uint32_t row = (uint32_t)word_get(&l->evict_row);

	if (most > CANDIDATES)
		most = CANDIDATES;
	for (w->count = 0; looks < looks_max && looks < rows && w->count < most; looks++) {
		if (row >= rows)
			row = 0;
		if (may_go(w, row))
			w->candidate[w->count++] = row;
		row++;
	}
	word_put(&l->evict_row, row);
	return looks;
}

static void
strike_out(struct sweep *w, uint32_t row)
{
	for (uint32_t i = 0; i < w->count; i++)
		if (w->candidate[i] == row) {
			w->candidate[i] = w->candidate[--w->count];
			return;
		}
}

/* Rows that a request in flight has are no candidates. */
static void
strike_out_held(struct sweep *w, uint32_t worker)
{
	const struct inflight *pages = layout_pages(w->a, worker);
	uint64_t used = word_get(&layout_worker(w->a, worker)->page_fresh);

	for (uint64_t i = 0; i < used; i++) {
		if ((word_get(&pages[i].status) & INFLIGHT_STATE) == INFLIGHT_FREE)
			continue;
		uint64_t holds = word_get(&pages[i].holds);
		for (uint64_t h = 0; h < holds && h < CHARGES_MAX; h++)
			strike_out(w, atomic_load_explicit(&pages[i].hold[h].row, memory_order_acquire));
	}
}

static bool
take_out(struct step *s, uint32_t row)
{
	uint32_t group = table_group(s->a, row);

	if (!table_remove(s, row))
		return false;
	if (group != ROW_NONE) {
		_Atomic uint64_t *meters = &layout_meters(s->a)[group].level;

		CHECK(word_get(meters) > 0);
		journal_set(s, meters, word_get(meters) - 1);
	}
	return true;
}

/* One step for a few candidates. What it took out, or UINT32_MAX: a step was
 * rolled back, the candidates are worth nothing. */
static uint32_t
take_out_some(struct sweep *w, uint32_t from, uint64_t repairs)
{
	struct shm_ledger *l = &w->a->header->ledger;
	uint32_t out = 0, to = from + STEP_METERS;

	struct step s = journal_begin(w->a, w->a->header->sizes.workers + 1);
	if (word_get(&l->repairs) != repairs) {
		out = UINT32_MAX;
	} else {
		for (uint32_t i = from; i < to && i < w->count; i++)
			if (may_go(w, w->candidate[i]) && take_out(&s, w->candidate[i]))
				out++;
		if (out > 0)
			journal_set(&s, &l->evictions, word_get(&l->evictions) + 1);
	}
	journal_commit(&s);
	journal_end(&s);
	return out;
}

uint32_t
ledger_evict(struct arena *a, uint64_t durable_tick, uint64_t idle_ticks, uint32_t most, struct now now)
{
	struct sweep w = { .a = a, .durable_tick = (uint32_t)durable_tick, .now = now };
	uint32_t looks = 0, out = 0;

	w.idle_ticks = idle_ticks < INT32_MAX ? (uint32_t)idle_ticks : INT32_MAX;
	while (out < most && looks < ROWS_A_CALL) {
		uint64_t repairs = word_get(&a->header->ledger.repairs);
		uint32_t looked = collect(&w, most - out, ROWS_A_CALL - looks);

		looks += looked;
		for (uint32_t worker = 0; w.count > 0 && worker < a->header->sizes.workers; worker++)
			strike_out_held(&w, worker);
		for (uint32_t from = 0; from < w.count; from += STEP_METERS) {
			uint32_t some = take_out_some(&w, from, repairs);

			if (some == UINT32_MAX)
				return out;
			out += some;
		}
		if (looked == 0 || looks >= ledger_meter_rows(a))
			break;
	}
	return out;
}
