/*
 * shm/inflight.h -- pages of requests in flight: the part private to shm/.
 */
#ifndef WEIR_SHM_INFLIGHT_H
#define WEIR_SHM_INFLIGHT_H

#include "shm/journal.h"

bool inflight_has_room(const struct arena *a, const struct shm_worker *w);
	/* inflight_take() will find a page. */
struct inflight *inflight_take(struct step *s);
	/* A free page of the step's worker, still in state FREE: fill in its
	 * holds, then inflight_admit(). */
void inflight_admit(struct step *s, struct inflight *e);
void inflight_release(struct step *s, struct inflight *e);

/* A request that goes on in another page. */
struct inflight *inflight_next(const struct arena *a, uint32_t worker);
	/* The page that the worker's next inflight_take() will find, or NULL. For
	 * the worker itself: nobody else takes its pages. */
void inflight_copy(struct inflight *to, const struct inflight *from);
	/* The record, as the first version of a page that nobody has taken yet. */
void inflight_replace(struct step *s, struct inflight *from, struct inflight *to, const struct metered *used);
	/* `to` was copied to, then taken, and has its holds: it is in the state of
	 * `from`, which is free. */

enum inflight_state inflight_state(const struct inflight *e);
bool inflight_is_cancel(const struct inflight *e);
void inflight_done(struct inflight *e, bool cancel, const struct settled *used);
	/* The request is over and how is decided, but the ring is full. */
struct settled inflight_used(const struct inflight *e);
	/* As inflight_done() was told. */
const char *inflight_text(const struct inflight *e, uint32_t *bytes);
	/* The valid version of the record. */

/* ---- holds ---- */

static inline struct shm_meter *
hold_meter(const struct arena *a, const struct shm_hold *h)
{
	uint32_t row = atomic_load_explicit(&h->row, memory_order_relaxed);

	CHECK(row < a->header->sizes.meters);
	return &layout_meters(a)[row];
}

static inline bool
hold_is_closed(const struct shm_hold *h)
{
	return (hold_word(h) & HOLD_CLOSED) != 0;
}

static inline bool
word_is_request_bucket(uint32_t word)
{
	return (word & WHAT_TYPE_MASK) == (METER_BUCKET | UNIT_REQUESTS << 3);
}

static inline bool
hold_is_request_bucket(const struct shm_hold *h)
{
	return word_is_request_bucket(hold_word(h));
}

/* What the request has used of the meter, in its unit, if `used` is what it has
 * used in all; below 0 if that went down. `word` is the hold's. */
static inline int64_t
hold_used(const struct shm_hold *h, uint32_t word, const struct settled *used)
{
	int64_t units = WHAT_UNIT(word) == UNIT_TOKENS ? used->tokens : used->cost_nusd;

	if (WHAT_UNIT(word) == UNIT_REQUESTS)
		return (int64_t)word_get(&h->units);
	if (word & HOLD_MOVED)
		return word & HOLD_CLOSED ? (int64_t)word_get(&h->units) : units - (int64_t)word_get(&h->mark);
	return units;
}

#endif
