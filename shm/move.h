/*
 * shm/move.h -- what becomes of a request's holds when it goes on at another
 * target. Private to shm/; in the order of calls, by admit.c.
 */
#ifndef WEIR_SHM_MOVE_H
#define WEIR_SHM_MOVE_H

#include "shm/inflight.h"
#include "shm/meter.h"

enum hold_fate {
	FATE_RELEASED,		/* given back; if it is charged again, before that asks */
	FATE_CLOSED,		/* becomes what was used of it */
	FATE_KEPT,		/* was closed before */
	FATE_DROPPED,		/* a bucket keeps what it took, the page has no room to say so */
};

struct moving {
	struct inflight *from, *to;
	const struct metered *used;
	struct charge asked[CHARGES_MAX];	/* the charges, with what was used of their meters already */
	uint32_t n;
	int64_t base[CHARGES_MAX];		/* by the order of meters, which is that of the new holds */
	struct moving_hold {
		const struct shm_hold *hold;
		struct shm_meter *m;
		enum hold_fate fate;
		bool again;			/* its meter is charged again ... */
		uint32_t place;			/* ... and the new hold is this one */
		int64_t units;			/* that were used of it */
		int64_t full_at;		/* a bucket that is charged again: its level without it */
	} old[CHARGES_MAX];
	uint32_t olds;
};

bool move_begin(struct moving *mv, const struct arena *a, struct inflight *from, struct inflight *to,
    const struct metered *used, const struct charge *charges, uint32_t n) MUST_CHECK;
	/* Before the lock: what becomes of the old holds, and the record's copy in
	 * `to`, which is the worker's next page. `used` lives as long as it. false:
	 * more holds than a page has room for. */
void move_release(struct step *s, struct moving *mv, const struct moment *at);
	/* What the request has of meters that it is charged on again. To be undone
	 * if that is refused. */
void move_end(struct step *s, struct moving *mv, const struct moment *at);
	/* After the charges were taken into `to`: the other old holds, then the
	 * pages. */

#endif
