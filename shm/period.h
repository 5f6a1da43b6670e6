/*
 * shm/period.h -- the private part of period.c; the rest is in ledger.h.
 */
#ifndef WEIR_SHM_PERIOD_H
#define WEIR_SHM_PERIOD_H

#include "shm/ledger.h"

int64_t period_begin_ns(enum meter_period p, int64_t index);
	/* Wall clock; 0 for PERIOD_TOTAL. */

#endif
