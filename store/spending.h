/*
 * store/spending.h -- charges of many records, summed by meter and period.
 *
 * Inside store/ only. A batch has thousands of charges on dozens of meters:
 * they are merged in memory, so that the store sees each meter once. Sums do
 * not depend on the order in which rings are read. Where order matters (which
 * level of a bucket is the newest, which period came after which), the number
 * of the ledger's step decides, and between arenas their age.
 */
#ifndef WEIR_STORE_SPENDING_H
#define WEIR_STORE_SPENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/ring.h"

/* What one meter got: a budget in one period, a bucket at all. */
struct booking {
	struct meter_id id;
	uint64_t what;		/* of the newest charge, as are: */
	uint64_t epoch, step;
	int64_t full_wall_ns;	/* bucket */
	int64_t period_index;	/* budget */
	int64_t amount;		/* budget: the sum */
	uint32_t age;		/* of the arena: 0 is the newest, the next older one is 1 */
	bool booked;		/* budget: levels_book() changed what is spent in the period ... */
	int64_t before, after;	/* ... from this to this */
};

struct spending {
	struct booking *booking;
	uint32_t count, room;
	uint32_t *index;	/* open addressing, two words for each of `room`: number + 1, or 0 */
};

int spending_add(struct spending *s, uint64_t epoch, uint32_t age, const struct ring_charge *c) MUST_CHECK;
	/* Charges that need not outlive the arena (requests in flight, groups;
	 * nothing on a budget) are left out. 0 or ENOMEM. */
void spending_order(struct spending *s);
	/* By id, and for one id the older before the newer. Nothing can be added
	 * afterwards. */
void spending_clear(struct spending *s);
	/* Empty, and ready to be used again. */
void spending_free(struct spending *s);
bool spending_same_kind(uint64_t a, uint64_t b);
	/* Do these two words say the same but for the mode: kind, unit, period? */
int64_t spending_sum(int64_t a, int64_t b);
	/* A sum that would not fit into 64 bits stays at their end. */

#endif
