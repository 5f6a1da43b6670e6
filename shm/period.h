/*
 * shm/period.h -- the private part of period.c; the rest is in ledger.h.
 */
#ifndef WEIR_SHM_PERIOD_H
#define WEIR_SHM_PERIOD_H

#include "shm/ledger.h"

#define NS_PER_DAY (86400 * INT64_C(1000000000))

int64_t period_day(int64_t wall_ns);
	/* Days since 1970-01-01, UTC. */
int64_t period_of_day(struct period p, int64_t day);
	/* The index of the period that the day is in. */
int64_t period_begin_ns(struct period p, int64_t index);
	/* Wall clock; 0 for PERIOD_TOTAL. */
int64_t period_around(struct period outer, struct period inner, int64_t inner_index);
	/* The index of the outer period in which the inner one begins. */

#endif
