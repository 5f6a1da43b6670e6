/*
 * shm/claims.h -- one does the work, the others wait for its result.
 *
 * Several requests, in any workers, want the same thing made (an answer that will
 * be cached, a token that is fetched). Who takes the claim on its key makes it;
 * the others learn that somebody does. At any time a key has one holder at most,
 * over all processes: a claim is one word of a table, taken by compare-and-swap
 * from 0.
 *
 * The table is mapped directly: a key has one place. Two keys in one place are
 * told apart by 56 more bits; the second one is told COLLISION, and does its work
 * without a claim. A claim is held until it is dropped. Those of a dead worker are
 * dropped by the master.
 */
#ifndef WEIR_SHM_CLAIMS_H
#define WEIR_SHM_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/key128.h"

#define CLAIMS 65536	/* 512 KiB: of 1,000 that are held at a time, one in 65 meets a collision */

enum claim {
	CLAIM_TAKEN,		/* the caller has it, and must drop it */
	CLAIM_OTHERS,		/* somebody has this very key; it may be another request of this worker */
	CLAIM_COLLISION,	/* another key is in its place: do without */
};

enum claim claim_take(struct arena *a, struct key128 key, uint32_t worker) MUST_CHECK;
void claim_drop(struct arena *a, struct key128 key, uint32_t worker);
	/* Once, by the worker that took it: anything else is a bug, and ends the
	 * process. What the holder wrote before is seen by who takes the key next,
	 * and by who sees that it is not held any more. */
bool claim_held(const struct arena *a, struct key128 key);
uint32_t claim_reclaim(struct arena *a, uint32_t worker);
	/* Master, after a worker's death and before its row is used again (and at an
	 * attach, for all rows): drops what it held. Idempotent. How many these were. */

#endif
