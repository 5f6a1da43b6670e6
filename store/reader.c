/*
 * store/reader.c -- see records.h: the readers' side.
 *
 * One day is open at a time, and stays open between scans, because whoever
 * follows the log asks for the newest day again and again. A scan gives its
 * snapshot back every few thousand records: a reader that writes to a slow
 * terminal must not make the keeper's file grow.
 *
 * A look-up of one level keeps its read transaction and renews it, so that it is
 * a few loads and stores in LMDB's reader table. After an error nothing is kept.
 */
#include "store/records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/log.h"
#include "store/days.h"
#include "store/folder.h"
#include "store/levels.h"

#define SNAPSHOT_RECORDS 4096

struct reader {
	char *data_dir;
	struct day day;
	struct levels levels;
	MDB_txn *level_txn;	/* of reader_level(), kept and renewed; NULL before the first look-up */
	bool failing;		/* the look-ups; has been logged */
};

struct scan {
	uint64_t next_id, to_id;
	reader_each_fn *each;
	void *arg;
	bool stopped;		/* each() has seen enough */
};

struct reader *
reader_open(const char *data_dir, char *why, size_t why_size)
{
	struct reader *r;

	if (folder_check(data_dir, why, why_size) != 0)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (r)
		r->data_dir = strdup(data_dir);
	if (!r || !r->data_dir) {
		environment_why(ENOMEM, "open the store", data_dir, why, why_size);
		free(r);
		return NULL;
	}
	r->day.number = DAY_NONE;
	return r;
}

/* The next look opens it again. */
static void
forget_levels(struct reader *r)
{
	if (r->level_txn)
		mdb_txn_abort(r->level_txn);
	r->level_txn = NULL;
	levels_close(&r->levels);
}

void
reader_close(struct reader *r)
{
	if (!r)
		return;
	day_close(&r->day);
	forget_levels(r);
	free(r->data_dir);
	free(r);
}

/* One snapshot's worth; *more: there may be further records in this day. */
static int
scan_snapshot(struct day *d, struct scan *s, bool *more)
{
	uint8_t from[8];
	MDB_val key = { sizeof(from), from }, value;
	MDB_cursor *cursor;
	MDB_txn *txn;
	uint32_t seen = 0;
	int rc = environment_begin(d->env, ENVIRONMENT_READ, &txn);

	*more = false;
	if (rc)
		return rc;
	rc = mdb_cursor_open(txn, d->records, &cursor);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	be64_write(from, s->next_id);
	for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); !rc;
	    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		struct ring_charge charges[CHARGES_MAX];
		struct stored_item item;
		struct record record;

		if (!stored_item_read(&key, &value, &item)) {
			rc = MDB_CORRUPTED;
			break;
		}
		if (item.id >= s->to_id || seen++ == SNAPSHOT_RECORDS) {
			*more = item.id < s->to_id;
			break;
		}
		s->next_id = item.id + 1;
		/* A worker that died before its draft leaves an empty record,
		 * a newer weir one that this version cannot read. */
		if (!record_decode(item.record, &record))
			continue;
		memcpy(charges, item.charges, item.head.charges * sizeof(*charges));
		if (!s->each(item.id, &record, charges, item.head.charges, s->arg)) {
			s->stopped = true;
			break;
		}
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
scan_day(struct reader *r, int64_t number, struct scan *s)
{
	bool more = true;
	int rc = 0;

	if (!r->day.env || r->day.number != number) {
		day_close(&r->day);
		rc = day_open(&r->day, r->data_dir, number, 0, ENVIRONMENT_SCAN);
		/* The keeper has made the folder and not yet what is in it. */
		if (rc == ENOENT || rc == MDB_NOTFOUND)
			return 0;
	}
	while (!rc && more && !s->stopped)
		rc = scan_snapshot(&r->day, s, &more);
	return rc;
}

int
reader_scan(struct reader *r, uint64_t from_id, uint64_t to_id, reader_each_fn *each, void *arg)
{
	struct scan s = { from_id, to_id, each, arg, false };
	struct day_list days;
	int rc = day_list(&days, r->data_dir);

	for (size_t i = 0; i < days.count && !rc && !s.stopped; i++)
		if (days.number[i] >= day_of(from_id) && (uint64_t)days.number[i] * DAY_NS < to_id)
			rc = scan_day(r, days.number[i], &s);
	day_list_free(&days);
	return rc ? -1 : 0;
}

int
reader_meters(struct reader *r, reader_meter_fn *each, void *arg)
{
	int rc;

	if (!r->levels.env) {
		rc = levels_open(&r->levels, r->data_dir, ENVIRONMENT_SCAN);
		if (rc == ENOENT || rc == MDB_NOTFOUND)
			return 0;
		if (rc)
			return -1;
	}
	return levels_each(&r->levels, each, arg) ? -1 : 0;
}

static int
look_up(struct reader *r, struct meter_id id, struct level *out)
{
	int rc = r->levels.env ? 0 : levels_open(&r->levels, r->data_dir, ENVIRONMENT_READ);

	if (!rc)
		rc = r->level_txn ? environment_renew(r->levels.env, r->level_txn)
				  : environment_begin(r->levels.env, ENVIRONMENT_READ, &r->level_txn);
	if (!rc)
		rc = levels_get(&r->levels, r->level_txn, id, out);
	if (!rc)
		mdb_txn_reset(r->level_txn);
	return rc;
}

int
reader_level(struct reader *r, struct meter_id id, struct level *out)
{
	char why[512];
	int rc = look_up(r, id, out);

	if (rc) {
		forget_levels(r);
		if (!r->failing) {
			environment_why(rc, "read the budget levels in", r->data_dir, why, sizeof(why));
			log_error("%s", why);
		}
	}
	r->failing = rc != 0;
	return rc ? -1 : 0;
}
