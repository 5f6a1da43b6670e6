/*
 * store/carry.h -- records that the ledger lacks, carried into it.
 *
 * Inside store/ only. A flush commits a day's environment and then the ledger;
 * whoever died in between left records whose charges nobody booked. They are
 * found by the positions of both. Usually it is one batch of the newest day; if
 * the ledger was lost, it is everything.
 */
#ifndef WEIR_STORE_CARRY_H
#define WEIR_STORE_CARRY_H

#include "store/levels.h"

int carry_over(struct levels *l, const char *data_dir, size_t day_map_bytes, struct spending *carried) MUST_CHECK;
	/* Before the writer opens a day: an environment is open once only. What was
	 * booked is in `carried`, which is cleared first. */

#endif
