/*
 * shm/charge.c -- how much a charge takes, and what a unit is worth.
 *
 * A bucket is one word, the time at which it will be full again (GCRA). With
 * limit L and window W a unit is worth W/L ns; n units cost floor(n*W/L), and
 * they fit if that time, moved by the cost, is no more than W ahead of now.
 */
#include "shm/charge.h"

#include "shm/period.h"

__extension__ typedef unsigned __int128 wide;	/* ISO C has no name for it */

/* slope * demand / 1000, rounded up, where the product is too large: it is taken
 * apart. The rest of slope / 1000 is small. */
int64_t
charge_large_amount(const struct charge *c, int64_t demand)
{
	int64_t whole, rest;

	if (__builtin_mul_overflow(c->slope_milli / MILLI, demand, &whole) ||
	    __builtin_mul_overflow(c->slope_milli % MILLI, demand, &rest))
		return INT64_MAX;
	return add_capped(c->fixed, add_capped(whole, rest / MILLI + (rest % MILLI > 0)));
}

int64_t
charge_demand(const struct charge *c, int64_t amount)
{
	int64_t room = amount - c->fixed, product;

	CHECK(c->slope_milli > 0 && room >= 0);
	if (!__builtin_mul_overflow(room, MILLI, &product))
		return product / c->slope_milli;
	wide demand = (wide)(uint64_t)room * MILLI / (uint64_t)c->slope_milli;
	return demand < INT64_MAX ? (int64_t)demand : INT64_MAX;
}

int64_t
bucket_cost(int64_t units, int64_t limit, int64_t window_ns)
{
	int64_t product;

	CHECK(units >= 0 && window_ns > 0);
	if (limit <= 0)
		return INT64_MAX;
	if (!__builtin_mul_overflow(units, window_ns, &product))
		return product / limit;
	wide cost = (wide)(uint64_t)units * (uint64_t)window_ns / (uint64_t)limit;
	return cost < INT64_MAX ? (int64_t)cost : INT64_MAX;
}

int64_t
bucket_units(int64_t room_ns, int64_t limit, int64_t window_ns)
{
	uint64_t product, n;

	if (limit <= 0 || window_ns <= 0 || room_ns < 0)
		return 0;
	if (!__builtin_mul_overflow((uint64_t)room_ns + 1, (uint64_t)limit, &product)) {
		n = (product - 1) / (uint64_t)window_ns;
	} else {
		wide exact = (((wide)(uint64_t)room_ns + 1) * (uint64_t)limit - 1) / (uint64_t)window_ns;
		n = exact < (uint64_t)limit ? (uint64_t)exact : (uint64_t)limit;
	}
	return n < (uint64_t)limit ? (int64_t)n : limit;
}

/* ---- what an admission left behind ---- */

int64_t
charge_left(const struct charge *c, struct now now)
{
	if (c->kind != METER_BUCKET)
		return larger(c->after, 0);
	return bucket_units(c->window_ns - larger(c->after - now.mono_ns, 0), c->limit, c->window_ns);
}

int64_t
charge_reset_ns(const struct charge *c, struct now now)
{
	struct period p = { c->period, c->days, c->anchor };

	if (c->kind == METER_BUCKET)
		return larger(c->after - now.mono_ns, 0);
	if (c->kind != METER_BUDGET || c->period == PERIOD_TOTAL)
		return 0;
	return period_end_ns(p, now.wall_ns) - now.wall_ns;
}

/* ---- what a charge is, in one word ---- */

uint64_t
meter_what(const struct charge *c)
{
	return charge_what(c);
}

enum meter_kind
meter_what_kind(uint64_t what)
{
	return (enum meter_kind)WHAT_KIND(what);
}

enum meter_unit
meter_what_unit(uint64_t what)
{
	return (enum meter_unit)WHAT_UNIT(what);
}

struct period
meter_what_period(uint64_t what)
{
	return (struct period){
		.kind = (enum meter_period)WHAT_PERIOD(what),
		.days = (uint16_t)WHAT_DAYS(what),
		.anchor = (uint16_t)WHAT_ANCHOR(what),
	};
}
