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
_Static_assert(sizeof(struct ring_charge) == 40, "the stored form of a charge");

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

/* A key of `meters` is hi, lo. Its value: */
struct stored_level {
	uint32_t period;	/* enum meter_period */
	uint32_t reserved;
	int64_t period_index;
	int64_t spent_nusd;
};
_Static_assert(sizeof(struct stored_level) == 24, "the stored form of a level");

/* The last sequence of a worker's ring, per arena. */
struct position {
	uint64_t epoch, sequence;
	uint32_t worker;
};

#endif
