/*
 * shm/charge.h -- the arithmetic of charges. Private to shm/; looks at no memory but the charge.
 *
 * Everything is exact and saturates at INT64_MAX. A product that fits into 64
 * bits, as nearly all do, costs no division of 128 bits.
 */
#ifndef WEIR_SHM_CHARGE_H
#define WEIR_SHM_CHARGE_H

#include "shm/layout.h"

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

/* meter_what(), where it matters how long it takes. */
static inline uint64_t
charge_what(const struct charge *c)
{
	uint64_t what = (uint64_t)c->kind | (uint64_t)c->unit << 3 | (uint64_t)c->mode << 6;

	if (c->kind != METER_BUDGET)
		return what;
	what |= (uint64_t)c->period << 9;
	return c->period == PERIOD_DAYS ? what | (uint64_t)c->days << 12 | (uint64_t)c->anchor << 21 : what;
}

#define MILLI 1000

int64_t charge_large_amount(const struct charge *c, int64_t demand);

/* In the meter's unit. */
static inline int64_t
charge_amount(const struct charge *c, int64_t demand)
{
	int64_t product;

	CHECK((c->fixed | c->slope_milli | demand) >= 0);
	if (c->slope_milli == 0)
		return c->fixed;
	if (__builtin_mul_overflow(c->slope_milli, demand, &product) || product > INT64_MAX - MILLI)
		return charge_large_amount(c, demand);
	return add_capped(c->fixed, (product + MILLI - 1) / MILLI);
}

int64_t charge_demand(const struct charge *c, int64_t amount);
	/* The largest demand that takes no more. slope_milli > 0, amount >= fixed. */
int64_t bucket_cost(int64_t units, int64_t limit, int64_t window_ns);
	/* floor(units * window / limit): ns of refill that they are worth. */
int64_t bucket_units(int64_t room_ns, int64_t limit, int64_t window_ns);
	/* The largest number, no more than the limit, whose cost fits into the
	 * room; 0 if there is none. */

#endif
