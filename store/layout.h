/*
 * store/layout.h -- the bytes of keys and values in records/ and ledger/.
 *
 * Inside store/ only. LMDB aligns values to two bytes, so all are copied in
 * and out, never pointed at.
 */
#ifndef WEIR_STORE_LAYOUT_H
#define WEIR_STORE_LAYOUT_H

#include <stdint.h>
#include <string.h>

#include "shm/ring.h"
#include "store/environment.h"

/* A value of `records`: this, the charges, the record. */
struct stored_head {
	uint64_t epoch, sequence;
	uint32_t worker;
	uint32_t charges;
};
_Static_assert(sizeof(struct stored_head) == 24, "the stored form of a record");
_Static_assert(sizeof(struct ring_charge) == 64, "the stored form of a charge");

/* A key of `positions`. */
struct position_key {
	uint8_t bytes[12];
};

static inline struct position_key
position_key(uint64_t epoch, uint32_t worker)
{
	struct position_key k;
	uint32_t swapped = __builtin_bswap32(worker);

	be64_write(k.bytes, epoch);
	memcpy(k.bytes + 8, &swapped, sizeof(swapped));
	return k;
}

/* A key of `meters` is hi, lo. Its value is this, and what the meter is called. */
struct stored_level {
	uint64_t what;		/* of the newest charge */
	int64_t period_index;	/* budget: the newest period that something was booked in */
	int64_t spent;		/* budget: in that period; see levels.h for why it may be below 0 */
	int64_t full_wall_ns;	/* bucket */
	uint64_t epoch, step;	/* of the newest charge */
};
_Static_assert(sizeof(struct stored_level) == 48, "the stored form of a level");

#define RINGS_MAX (WORKERS_MAX + 1)	/* the workers', and that of the tools */

/* The last sequence of a ring, per arena. `worker` is its row. */
struct position {
	uint64_t epoch, sequence;
	uint32_t worker;
};

#endif
