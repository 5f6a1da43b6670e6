/*
 * store/levels.h -- <data>/ledger: durable budget levels.
 *
 * Inside store/ only. `meters` has what each budget meter has spent in the
 * newest period that money was booked for; `positions` says up to which record
 * of each ring that is so. Both change in one transaction.
 */
#ifndef WEIR_STORE_LEVELS_H
#define WEIR_STORE_LEVELS_H

#include "store/layout.h"
#include "store/records.h"

/* Charges of many records, on their way to being one sum a meter. */
struct spending {
	struct ring_charge *charge;
	size_t count, room;
};

int spending_add(struct spending *s, const struct ring_charge *c) MUST_CHECK;
	/* Merges before it grows. ENOMEM. */
void spending_free(struct spending *s);

struct levels {
	MDB_env *env;		/* NULL: not open */
	MDB_dbi meters, positions;
};

int levels_open(struct levels *l, const char *data_dir, enum environment_mode mode) MUST_CHECK;
void levels_close(struct levels *l);
int levels_position(struct levels *l, uint64_t epoch, uint32_t worker, uint64_t *sequence) MUST_CHECK;
	/* 0 in *sequence if nothing of that ring was ever booked. */
int levels_book(struct levels *l, struct spending *s, const struct position *p, size_t n) MUST_CHECK;
	/* Adds the spending and moves the positions: all or nothing, durable. */
int levels_each(struct levels *l, reader_meter_fn *each, void *arg) MUST_CHECK;

#endif
