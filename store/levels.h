/*
 * store/levels.h -- <data>/ledger: durable levels.
 *
 * Inside store/ only. `meters` has what each budget has spent in the newest
 * period that something was booked in, when each bucket is full again, and what
 * the meter is called; `positions` says up to which record of each ring that
 * is so. Both change in one transaction.
 *
 * A reset is a charge with what had been spent as a negative amount. Rings are
 * read one by one, so it may be booked a flush before some of that spending:
 * the stored sum is then below 0 for so long, and a level is never shown so.
 */
#ifndef WEIR_STORE_LEVELS_H
#define WEIR_STORE_LEVELS_H

#include "store/layout.h"
#include "store/records.h"
#include "store/spending.h"

struct levels {
	MDB_env *env;		/* NULL: not open */
	MDB_dbi meters, positions;
};

int levels_open(struct levels *l, const char *data_dir, enum environment_mode mode) MUST_CHECK;
void levels_close(struct levels *l);
int levels_position(struct levels *l, uint64_t epoch, uint32_t worker, uint64_t *sequence) MUST_CHECK;
	/* 0 in *sequence if nothing of that ring was ever booked. */
int levels_get(struct levels *l, MDB_txn *txn, struct meter_id id, struct level *out) MUST_CHECK;
int levels_book(struct levels *l, struct spending *s, const struct position *p, size_t n, struct arena *names) MUST_CHECK;
	/*
	 * Adds the spending and moves the positions: all or nothing, durable. The
	 * bookings then say what became of each budget (before, after).
	 * `names`: where the meters are called something. NULL: records are
	 * carried over; one that is new begins at 0 if only a reset is left of it.
	 */
int levels_each(struct levels *l, reader_meter_fn *each, void *arg) MUST_CHECK;

#endif
