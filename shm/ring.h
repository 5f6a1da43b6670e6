/*
 * shm/ring.h -- finished requests on their way from a worker to the keeper.
 *
 * One ring a worker, and one for the tools. Items are appended by the ledger
 * alone, in the same step that books the money; the keeper reads them in order, stores them, and
 * only then moves the tail. The keeper may die at any point: it reads the same
 * items again, and (epoch, worker, sequence) tells the store what it has.
 */
#ifndef WEIR_SHM_RING_H
#define WEIR_SHM_RING_H

#include <stdint.h>

#include "shm/ledger.h"

/* One meter's part of a request: what had been held there, what was settled.
 * Of every meter that the request was charged on, so that "who paid what" can be
 * read from the record; those with money or units that must outlive the arena
 * are booked by the store as well. */
struct ring_charge {
	struct meter_id id;
	uint64_t what;		/* see meter_what(): the charge's mode, and the period that index and amount are of */
	int64_t period_index;	/* budget: the period that `amount` was booked in */
	int64_t held;		/* in the meter's unit */
	int64_t amount;		/* settled, in the meter's unit; 0 for a cancel; negative for a reset */
	int64_t full_wall_ns;	/* bucket: full again at this wall clock time, after the charge */
	uint64_t step;		/* number of the ledger's step: orders charges over all rings */
};

struct ring_item {
	uint64_t sequence;	/* 1, 2, 3, ... for each worker's ring */
	uint32_t charges;	/* CHARGES_MAX at the most */
	uint32_t record_bytes;
	const struct ring_charge *charge;	/* these two point into the ring ... */
	const char *record;			/* ... and live until ring_advance() */
};

struct ring_cursor {
	uint64_t at;		/* byte position; ring_begin() sets it */
};

struct ring_cursor ring_begin(const struct arena *a, uint32_t worker);
bool ring_next(const struct arena *a, uint32_t worker, struct ring_cursor *c, struct ring_item *out);
	/* false: no more now. An item never wraps: it is contiguous. */
void ring_advance(struct arena *a, uint32_t worker, struct ring_cursor c);
	/* Keeper, after its commit: all before the cursor is free again. */
uint32_t ring_fill_permille(const struct arena *a, uint32_t worker);

#endif
