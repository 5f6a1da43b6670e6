/*
 * shm/ledger.c -- the end of a request: settle, cancel, reclaim.
 *
 * Each function here is one step of journal.h over the whole of what it
 * changes: the meters, the request's page, the worker's ring. The item in the
 * ring is written beforehand, behind the ring's head, where nobody looks; only
 * what the meters have to say is added under the lock. (Admission: admit.c.)
 *
 * A bucket of requests keeps what it took, so its meter is not touched: what
 * the record says of it is how it stood after the admission. Holds that a move
 * closed are paid what they say (move.c); the others share in what was used
 * since they were taken.
 */
#include "shm/ledger.h"

#include "shm/inflight.h"
#include "shm/meter.h"
#include "shm/ring_append.h"

/* How a request ends, with the record that says so. */
struct ending {
	bool cancel;
	bool with_record;
	bool orphan;
	struct settled used;
	const char *record;
	uint32_t record_bytes;
};

/* What the request has used of the hold's meter, in its unit. */
static int64_t
units_used(const struct shm_hold *h, uint32_t word, const struct ending *end)
{
	if (end->cancel)
		return 0;
	int64_t units = hold_used(h, word, &end->used);
	if (word & HOLD_MOVED && units < 0) {
		/* Its worker forgot what had been used before a move. The master
		 * cannot mend that, and has to end the request all the same. */
		CHECK(end->orphan);
		units = 0;
	}
	return units;
}

/* Before the lock: all that is known without the meter. */
static void
book_hold(const struct inflight *e, const struct shm_hold *h, const struct ending *end, struct now now,
    struct ring_charge *out)
{
	uint32_t word = hold_word(h);

	*out = (struct ring_charge){
		.id = { word_get(&h->id_hi), word_get(&h->id_lo) },
		.what = word & ~HOLD_MOVED,
		.held = word_get(&h->amount) == 0 ? 0 : (int64_t)word_get(&h->units),
		.amount = units_used(h, word, end),
		.step = word_get(&e->step),
	};
	if (word_is_request_bucket(word))
		out->full_wall_ns = bucket_to_wall_ns((int64_t)word_get(&h->mark), now);
}

static void
end_hold(struct step *s, const struct shm_hold *h, const struct ending *end, const struct moment *at,
    struct ring_charge *booked)
{
	if (end->cancel) {
		CHECK(!hold_is_closed(h));
		meter_cancel(s, hold_meter(s->a, h), h, at, booked);
	} else if (!hold_is_request_bucket(h)) {
		meter_settle(s, hold_meter(s->a, h), h, booked->amount, at, booked);
	}
}

static enum settle_verdict
end_request(struct arena *a, uint32_t worker, struct inflight *e, const struct ending *end, struct now now)
{
	struct moment at = moment_of(now);
	uint32_t holds = (uint32_t)word_get(&e->holds);
	struct ring_draft item = { 0 };
	struct ring_charge unwritten[CHARGES_MAX];

	CHECK(inflight_state(e) != INFLIGHT_FREE && holds <= CHARGES_MAX);
	CHECK(end->used.cost_nusd >= 0 && end->used.tokens >= 0);
	if (end->with_record && !ring_prepare(a, worker, holds, end->record, end->record_bytes, &item))
		return SETTLE_RING_FULL;
	struct ring_charge *booked = end->with_record ? item.charge : unwritten;
	for (uint32_t i = 0; i < holds; i++) {
		if (end->cancel || !hold_is_request_bucket(&e->hold[i]))
			__builtin_prefetch(hold_meter(a, &e->hold[i]), 1);
		book_hold(e, &e->hold[i], end, now, &booked[i]);
	}

	struct step s = journal_begin(a, worker);
	for (uint32_t i = 0; i < holds; i++)
		end_hold(&s, &e->hold[i], end, &at, &booked[i]);
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
		inflight_done(e, end.cancel, &end.used);
	return verdict;
}

enum settle_verdict
ledger_settle(struct arena *a, uint32_t worker, struct inflight *e, const struct settled *used, struct now now)
{
	return end_own(a, worker, e, (struct ending){ .with_record = true, .used = *used }, now);
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
	struct ending end = { .with_record = true, .orphan = true };
	char record[RECORD_BYTES_MAX];

	end.record = inflight_text(e, &end.record_bytes);
	if (state == INFLIGHT_DONE) {
		end.cancel = inflight_is_cancel(e);
		end.used = inflight_used(e);
		return end_request(a, worker, e, &end, now);
	}
	memcpy(record, end.record, end.record_bytes);
	end.record = record;
	finish(record, &end.record_bytes, &m, state, arg);
	end.cancel = state == INFLIGHT_ADMITTED;
	if (!end.cancel)
		end.used = (struct settled){ m.cost_nusd, m.total_tokens };
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
