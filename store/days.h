/*
 * store/days.h -- <data>/records/YYYY-MM-DD: one environment a day.
 *
 * Inside store/ only. A record lies in the day of its id: the id is the wall
 * clock in ns, so the day is id / 86,400 s. `positions` here says which
 * records of each ring this day has; the ledger's say which are booked.
 */
#ifndef WEIR_STORE_DAYS_H
#define WEIR_STORE_DAYS_H

#include "shm/base/clock.h"
#include "shm/base/slice.h"
#include "store/layout.h"

#define DAY_NS (UINT64_C(86400) * NS_PER_S)
#define DAY_NONE (-1)

struct day {
	MDB_env *env;		/* NULL: none is open */
	MDB_dbi records, positions;
	int64_t number;		/* days since 1970-01-01 */
};

static inline int64_t
day_of(uint64_t id)
{
	return (int64_t)(id / DAY_NS);
}

int day_open(struct day *d, const char *data_dir, int64_t number, size_t map_bytes,
    enum environment_mode mode) MUST_CHECK;
	/* ENOENT or MDB_NOTFOUND unless in WRITE mode: nothing was stored there yet. */
void day_close(struct day *d);
int day_last_id(struct day *d, uint64_t *id) MUST_CHECK;
	/* 0 in *id if the day has no records. */

struct stored_item {
	uint64_t id;
	struct stored_head head;
	const char *charges;	/* head.charges times struct ring_charge, unaligned */
	struct slice record;
};
bool stored_item_read(const MDB_val *key, const MDB_val *value, struct stored_item *out) MUST_CHECK;

struct day_list {
	int64_t *number;	/* ascending */
	size_t count;
};
int day_list(struct day_list *l, const char *data_dir) MUST_CHECK;
	/* The days that have a folder; none if there is no records/ yet. */
void day_list_free(struct day_list *l);

#endif
