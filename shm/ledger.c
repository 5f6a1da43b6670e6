/*
 * shm/ledger.c -- see ledger.h.
 *
 * Each function here is one step of journal.h over the whole of what it
 * changes: the meters, the request's page, the worker's ring. What is only
 * bytes that nobody looks at yet (the holds of a free page, an item behind the
 * ring's head) is written beforehand without being noted.
 *
 * Admission takes the charges in order, for real, and rolls all of them back
 * if one has no room. So several charges of one request on the same meter add
 * up by themselves; they share one hold, and a cost is booked there once.
 */
#include "shm/ledger.h"

#include "shm/inflight.h"
#include "shm/meter.h"
#include "shm/ring_append.h"

/* ---- admit ---- */

/* The hold for a meter's row: one that the request has already, or a new one. */
static struct shm_hold *
hold_of(struct inflight *e, uint32_t row, enum meter_kind kind)
{
	uint64_t holds = word_get(&e->holds);

	for (uint64_t i = 0; i < holds; i++)
		if (atomic_load_explicit(&e->hold[i].row, memory_order_relaxed) == row)
			return &e->hold[i];

	struct shm_hold *h = &e->hold[holds];
	word_put(&h->amount, 0);
	atomic_store_explicit(&h->row, row, memory_order_relaxed);
	atomic_store_explicit(&h->kind, kind, memory_order_release);
	word_put(&e->holds, holds + 1);
	return h;
}

/* A request that lacks room in several meters of one kind has to wait for the
 * last of them. */
static void
wait_longer(struct refusal *why, int64_t wait_ns)
{
	if (wait_ns == WAIT_NEVER)
		why->wait_ns = WAIT_NEVER;
	else if (why->wait_ns != WAIT_NEVER && wait_ns > why->wait_ns)
		why->wait_ns = wait_ns;
}

static enum ledger_verdict
take_all(struct step *s, struct inflight *e, struct charge *charges, uint32_t n,
    const struct moment *at, struct refusal *why)
{
	enum ledger_verdict verdict = LEDGER_ADMITTED;

	for (uint32_t i = 0; i < n; i++) {
		struct charge *c = &charges[i];
		struct shm_meter *m = meter_obtain(s, c);

		if (!m)
			return LEDGER_FULL;
		struct shm_hold *h = hold_of(e, c->row, c->kind);
		int64_t wait_ns = meter_take(s, m, c, h, at);
		if (wait_ns == 0)
			continue;
		if (verdict == LEDGER_ADMITTED) {
			verdict = LEDGER_REFUSED;
			meter_refusal(m, c, h, at, why);
			why->charge = i;
			why->wait_ns = wait_ns;
		} else if (c->kind == charges[why->charge].kind) {
			wait_longer(why, wait_ns);
		}
	}
	return verdict;
}

enum ledger_verdict
ledger_admit(struct arena *a, uint32_t worker, struct charge *charges, uint32_t n, struct now now,
    struct inflight **out, struct refusal *why)
{
	struct moment at = moment_of(now);
	enum ledger_verdict verdict = LEDGER_BUSY;

	CHECK(n <= CHARGES_MAX);
	for (uint32_t i = 0; i < n; i++)
		meter_prefetch(a, &charges[i]);

	struct step s = journal_begin(a, worker);
	struct inflight *e = inflight_take(&s);
	if (e)
		verdict = take_all(&s, e, charges, n, &at, why);
	if (verdict == LEDGER_ADMITTED) {
		inflight_admit(&s, e);
		journal_commit(&s);
		*out = e;
	} else {
		journal_undo(&s);
	}
	journal_end(&s);
	return verdict;
}

/* ---- the end of a request ---- */

/* How a request ends, with the record that says so. */
struct ending {
	bool cancel;
	bool with_record;
	int64_t cost_nusd;
	const char *record;
	uint32_t record_bytes;
};

static bool
is_budget(const struct shm_hold *h)
{
	return atomic_load_explicit(&h->kind, memory_order_relaxed) == METER_BUDGET;
}

static struct shm_meter *
meter_of(struct arena *a, const struct shm_hold *h)
{
	uint32_t row = atomic_load_explicit(&h->row, memory_order_relaxed);

	CHECK(row < a->header->sizes.meters);
	return &layout_meters(a)[row];
}

/* Number of charges that the ring item will have: money was booked on them. */
static uint32_t
charges_booked(const struct inflight *e, const struct ending *end)
{
	uint64_t holds = word_get(&e->holds);
	uint32_t n = 0;

	for (uint64_t i = 0; i < holds && !end->cancel; i++)
		n += is_budget(&e->hold[i]);
	return n;
}

static enum settle_verdict
end_request(struct arena *a, uint32_t worker, struct inflight *e, const struct ending *end, struct now now)
{
	struct moment at = moment_of(now);
	uint64_t holds = word_get(&e->holds);
	struct ring_draft item = { 0 };
	uint32_t booked = 0;

	CHECK(inflight_state(e) != INFLIGHT_FREE && end->cost_nusd >= 0 && holds <= CHARGES_MAX);
	if (end->with_record && !ring_prepare(a, worker, charges_booked(e, end), end->record,
	    end->record_bytes, &item))
		return SETTLE_RING_FULL;
	for (uint64_t i = 0; i < holds; i++)
		__builtin_prefetch(meter_of(a, &e->hold[i]), 1);

	struct step s = journal_begin(a, worker);
	for (uint64_t i = 0; i < holds; i++) {
		struct shm_hold *h = &e->hold[i];

		if (end->cancel)
			meter_give_back(&s, meter_of(a, h), h);
		else if (is_budget(h))
			meter_settle(&s, meter_of(a, h), h, end->cost_nusd, &at, &item.charge[booked++]);
	}
	if (end->with_record)
		ring_append(&s, &item);
	inflight_release(&s, e);
	journal_commit(&s);
	journal_end(&s);
	return SETTLED;
}

/* By the worker itself. If there is no room, the page remembers how it ends. */
static enum settle_verdict
end_own(struct arena *a, uint32_t worker, struct inflight *e, struct ending end, struct now now)
{
	end.record = inflight_text(e, &end.record_bytes);
	enum settle_verdict verdict = end_request(a, worker, e, &end, now);
	if (verdict == SETTLE_RING_FULL)
		inflight_done(e, end.cancel, end.cost_nusd);
	return verdict;
}

enum settle_verdict
ledger_settle(struct arena *a, uint32_t worker, struct inflight *e, int64_t cost_nusd, struct now now)
{
	return end_own(a, worker, e, (struct ending){ .with_record = true, .cost_nusd = cost_nusd }, now);
}

enum settle_verdict
ledger_cancel(struct arena *a, uint32_t worker, struct inflight *e, bool with_record, struct now now)
{
	return end_own(a, worker, e, (struct ending){ .cancel = true, .with_record = with_record }, now);
}

/* ---- after a death ---- */

/*
 * Ends a request whose worker is dead. `finish` works on a copy, so that the
 * page still has the draft if we die in here and another has to do it again.
 */
static enum settle_verdict
end_orphan(struct arena *a, uint32_t worker, struct inflight *e, ledger_orphan_fn *finish, void *arg,
    struct now now)
{
	enum inflight_state state = inflight_state(e);
	struct metered m = inflight_metered_get(e);
	struct ending end = { .with_record = true };
	char record[RECORD_BYTES_MAX];

	end.record = inflight_text(e, &end.record_bytes);
	if (state == INFLIGHT_DONE) {
		end.cancel = inflight_is_cancel(e);
		end.cost_nusd = (int64_t)word_get(&e->cost_nusd);
		return end_request(a, worker, e, &end, now);
	}
	memcpy(record, end.record, end.record_bytes);
	end.record = record;
	finish(record, &end.record_bytes, &m, state, arg);
	end.cancel = state == INFLIGHT_ADMITTED;
	end.cost_nusd = end.cancel ? 0 : m.cost_nusd;
	/* Dead before its draft was written: nothing left, nothing to tell. */
	end.with_record = !end.cancel || end.record_bytes > 0;
	return end_request(a, worker, e, &end, now);
}

uint32_t
ledger_reclaim(struct arena *a, uint32_t worker, ledger_orphan_fn *finish, void *arg, struct now now)
{
	struct inflight *pages = layout_pages(a, worker);
	uint32_t left = 0;

	ledger_lock(a);
	ledger_unlock(a);	/* the dead one's last step is now done or undone */
	uint64_t used = word_get(&layout_worker(a, worker)->page_fresh);
	for (uint64_t i = 0; i < used; i++)
		if (inflight_state(&pages[i]) != INFLIGHT_FREE &&
		    end_orphan(a, worker, &pages[i], finish, arg, now) != SETTLED)
			left++;
	return left;
}
