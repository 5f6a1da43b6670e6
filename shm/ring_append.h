/*
 * shm/ring_append.h -- the writing side of ring.c. Private to shm/.
 *
 * ring_prepare() writes an item behind the ring's head, where nobody looks,
 * and needs no lock: a ring has one writer. ring_append(), within the step,
 * makes it part of the ring.
 */
#ifndef WEIR_SHM_RING_APPEND_H
#define WEIR_SHM_RING_APPEND_H

#include "shm/journal.h"

struct ring_draft {
	uint64_t head;			/* the ring's, once the item is in it */
	uint64_t sequence;
	struct ring_charge *charge;	/* room for the charges; fill in before the commit */
};

bool ring_prepare(struct arena *a, uint32_t worker, uint32_t charges, const char *record,
    uint32_t record_bytes, struct ring_draft *out) MUST_CHECK;
	/* false: no room until the keeper has made some. */
void ring_append(struct step *s, const struct ring_draft *d);

#endif
