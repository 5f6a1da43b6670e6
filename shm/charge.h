/*
 * shm/charge.h -- the arithmetic of charges. Private to shm/; no shared memory.
 *
 * Everything is exact and saturates at INT64_MAX. A product that fits into 64
 * bits, as nearly all do, costs no division of 128 bits.
 */
#ifndef WEIR_SHM_CHARGE_H
#define WEIR_SHM_CHARGE_H

#include "shm/ledger.h"

#define WAIT_NEVER (-1)

static inline int64_t
add_capped(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

static inline int64_t
larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

int64_t charge_amount(const struct charge *c, int64_t demand);
	/* In the meter's unit. */
int64_t charge_demand(const struct charge *c, int64_t amount);
	/* The largest demand that takes no more. slope_milli > 0, amount >= fixed. */
int64_t bucket_cost(int64_t units, int64_t limit, int64_t window_ns);
	/* floor(units * window / limit): ns of refill that they are worth. */
int64_t bucket_units(int64_t room_ns, int64_t limit, int64_t window_ns);
	/* The largest number, no more than the limit, whose cost fits into the
	 * room; 0 if there is none. */

#endif
