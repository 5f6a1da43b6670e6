/*
 * store/carry.c -- see carry.h.
 *
 * Days are walked from the newest back, as long as they have something that
 * the ledger lacks: the writer never begins a batch while it lacks an earlier
 * one, so behind the first complete day there is nothing to find. All that was
 * found is booked in one transaction; until then the ledger's positions are
 * those of before, so a death in here loses nothing either.
 */
#include "store/carry.h"

#include <errno.h>
#include <stdlib.h>

#include "store/days.h"

/* What a ring's records lack: those after `booked`, up to `stored`. */
struct gap {
	uint64_t epoch, booked, stored;
	uint32_t worker;
};

struct carry {
	struct levels *levels;
	struct spending *spending;
	uint64_t epoch;		/* the arena of the record at hand ... */
	uint32_t age;		/* ... and how many newer ones there are */
	bool epoch_known;
	struct gap *gap;
	size_t gaps, room;
	uint64_t missing;	/* records of the day at hand that are still to be found */
};

static struct gap *
gap_find(const struct carry *c, uint64_t epoch, uint32_t worker)
{
	for (size_t i = 0; i < c->gaps; i++)
		if (c->gap[i].epoch == epoch && c->gap[i].worker == worker)
			return &c->gap[i];
	return NULL;
}

/* A day says that it has the ring's records up to `stored`. */
static int
gap_note(struct carry *c, uint64_t epoch, uint32_t worker, uint64_t stored)
{
	struct gap *g = gap_find(c, epoch, worker);
	uint64_t booked;
	int rc;

	if (g) {
		/* A newer day has the ring's later records. */
		if (stored > g->booked)
			c->missing += stored - g->booked;
		return 0;
	}
	rc = levels_position(c->levels, epoch, worker, &booked);
	if (rc || stored <= booked)
		return rc;
	if (c->gaps == c->room) {
		struct gap *grown = reallocarray(c->gap, c->room + 64, sizeof(*grown));

		if (!grown)
			return ENOMEM;
		c->gap = grown;
		c->room += 64;
	}
	c->gap[c->gaps++] = (struct gap){ epoch, booked, stored, worker };
	c->missing += stored - booked;
	return 0;
}

static int
note_positions(struct carry *c, struct day *d, MDB_txn *txn)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc = mdb_cursor_open(txn, d->positions, &cursor);

	if (rc)
		return rc;
	while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		uint64_t stored;
		uint32_t worker;

		if (key.mv_size != sizeof(struct position_key) || value.mv_size != sizeof(stored)) {
			rc = MDB_CORRUPTED;
			break;
		}
		memcpy(&worker, (const char *)key.mv_data + 8, sizeof(worker));
		memcpy(&stored, value.mv_data, sizeof(stored));
		rc = gap_note(c, be64_read(key.mv_data), __builtin_bswap32(worker), stored);
		if (rc)
			break;
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
take_charges(struct carry *c, const struct stored_item *item)
{
	int rc = 0;

	if (c->epoch_known && c->epoch != item->head.epoch)
		c->age++;
	c->epoch = item->head.epoch;
	c->epoch_known = true;
	for (uint32_t i = 0; i < item->head.charges && !rc; i++) {
		struct ring_charge charge;

		memcpy(&charge, item->charges + i * sizeof(charge), sizeof(charge));
		rc = spending_add(c->spending, c->epoch, c->age, &charge);
	}
	return rc;
}

/*
 * From the newest record back. `missing` counts what the whole gaps hold, of
 * which an older day may have a part: then this ends at the day's beginning.
 */
static int
take_records(struct carry *c, struct day *d, MDB_txn *txn)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc = mdb_cursor_open(txn, d->records, &cursor);

	if (rc)
		return rc;
	while (c->missing > 0 && (rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)) == 0) {
		struct stored_item item;
		struct gap *g;

		if (!stored_item_read(&key, &value, &item)) {
			rc = MDB_CORRUPTED;
			break;
		}
		g = gap_find(c, item.head.epoch, item.head.worker);
		if (!g || item.head.sequence <= g->booked)
			continue;
		rc = take_charges(c, &item);
		if (rc)
			break;
		c->missing--;
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* *complete: the day has records, and the ledger lacks none of them. */
static int
carry_day(struct carry *c, struct day *d, bool *complete)
{
	MDB_stat records;
	MDB_txn *txn;
	int rc = environment_begin(d->env, ENVIRONMENT_READ, &txn);

	if (rc)
		return rc;
	c->missing = 0;
	rc = mdb_stat(txn, d->records, &records);
	if (!rc)
		rc = note_positions(c, d, txn);
	*complete = !rc && records.ms_entries > 0 && c->missing == 0;
	if (!rc)
		rc = take_records(c, d, txn);
	mdb_txn_abort(txn);
	return rc;
}

static int
book_all(struct carry *c)
{
	struct position *p;
	int rc;

	if (c->gaps == 0)
		return 0;
	p = calloc(c->gaps, sizeof(*p));
	if (!p)
		return ENOMEM;
	for (size_t i = 0; i < c->gaps; i++)
		p[i] = (struct position){ c->gap[i].epoch, c->gap[i].stored, c->gap[i].worker };
	rc = levels_book(c->levels, c->spending, p, c->gaps, NULL);
	free(p);
	return rc;
}

int
carry_over(struct levels *l, const char *data_dir, size_t day_map_bytes, struct spending *carried)
{
	struct carry c = { .levels = l, .spending = carried };
	struct day_list days;
	bool complete = false;
	int rc = day_list(&days, data_dir);

	spending_clear(carried);
	if (rc)
		return rc;
	for (size_t i = days.count; i > 0 && !complete && !rc; i--) {
		struct day d = { .number = DAY_NONE };

		rc = day_open(&d, data_dir, days.number[i - 1], day_map_bytes, ENVIRONMENT_WRITE);
		if (!rc)
			rc = carry_day(&c, &d, &complete);
		day_close(&d);
	}
	if (!rc)
		rc = book_all(&c);
	day_list_free(&days);
	if (rc)
		spending_clear(carried);
	free(c.gap);
	return rc;
}
