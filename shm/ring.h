/*
 * shm/ring.h -- finished requests on their way from a worker to the keeper.
 *
 * One ring a worker. Items are appended by ledger_settle() alone, in the same
 * step that books the money; the keeper reads them in order, stores them, and
 * only then moves the tail. The keeper may die at any point: it reads the same
 * items again, and (epoch, worker, sequence) tells the store what it has.
 */
#ifndef WEIR_SHM_RING_H
#define WEIR_SHM_RING_H

#include <stdint.h>

#include "shm/ledger.h"

struct ring_charge {	/* money that a settle booked */
	struct meter_id id;
	uint32_t period;	/* enum meter_period */
	uint32_t reserved;	/* 0 */
	int64_t period_index;
	int64_t amount_nusd;
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
