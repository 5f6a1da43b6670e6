/*
 * store/levels.c -- see levels.h.
 *
 * A charge names its period. One of a newer period than the stored level
 * starts the level again; one of an older period (rings are drained one by
 * one, so midnight may be met twice) changes nothing, because that period's
 * level is no longer asked for by anyone.
 */
#include "store/levels.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define LEVELS_MAP_BYTES ((size_t)1 << 30)	/* about ten million meters */
#define SPENDING_FIRST 256

static int
charge_order(const void *pa, const void *pb)
{
	const struct ring_charge *a = pa, *b = pb;

	if (a->id.hi != b->id.hi)
		return a->id.hi < b->id.hi ? -1 : 1;
	if (a->id.lo != b->id.lo)
		return a->id.lo < b->id.lo ? -1 : 1;
	if (a->period != b->period)
		return a->period < b->period ? -1 : 1;
	if (a->period_index != b->period_index)
		return a->period_index < b->period_index ? -1 : 1;
	return 0;
}

/* A level that would not fit into 64 bits stays at their end. */
static int64_t
sum_of(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return a < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

/* One sum for each meter and period, oldest period first. */
static void
spending_merge(struct spending *s)
{
	size_t kept = 0;

	if (s->count == 0)
		return;
	qsort(s->charge, s->count, sizeof(*s->charge), charge_order);
	for (size_t i = 1; i < s->count; i++) {
		struct ring_charge *last = &s->charge[kept];

		if (charge_order(last, &s->charge[i]) == 0)
			last->amount_nusd = sum_of(last->amount_nusd, s->charge[i].amount_nusd);
		else
			s->charge[++kept] = s->charge[i];
	}
	s->count = kept + 1;
}

int
spending_add(struct spending *s, const struct ring_charge *c)
{
	if (s->count == s->room) {
		spending_merge(s);
		/* Growing at half keeps the merges rare. */
		if (s->count >= s->room / 2) {
			size_t room = s->room ? s->room * 2 : SPENDING_FIRST;
			struct ring_charge *grown = reallocarray(s->charge, room, sizeof(*grown));

			if (!grown)
				return ENOMEM;
			s->charge = grown;
			s->room = room;
		}
	}
	s->charge[s->count++] = *c;
	return 0;
}

void
spending_free(struct spending *s)
{
	free(s->charge);
	*s = (struct spending){ 0 };
}

int
levels_open(struct levels *l, const char *data_dir, enum environment_mode mode)
{
	static const char *const names[] = { "meters", "positions" };
	static const unsigned flags[] = { 0, 0 };
	char path[PATH_MAX];
	MDB_dbi dbi[2];
	int rc;

	snprintf(path, sizeof(path), "%s/ledger", data_dir);
	rc = environment_open(&l->env, path, LEVELS_MAP_BYTES, mode);
	if (rc)
		return rc;
	rc = environment_databases(l->env, mode, names, flags, dbi, 2);
	if (rc) {
		levels_close(l);
		return rc;
	}
	l->meters = dbi[0];
	l->positions = dbi[1];
	return 0;
}

void
levels_close(struct levels *l)
{
	if (l->env)
		mdb_env_close(l->env);
	l->env = NULL;
}

int
levels_position(struct levels *l, uint64_t epoch, uint32_t worker, uint64_t *sequence)
{
	struct position_key pk = position_key(epoch, worker);
	MDB_val key = { sizeof(pk), &pk }, value;
	MDB_txn *txn;
	int rc = environment_begin(l->env, ENVIRONMENT_READ, &txn);

	if (rc)
		return rc;
	rc = mdb_get(txn, l->positions, &key, &value);
	if (!rc && value.mv_size == sizeof(*sequence))
		memcpy(sequence, value.mv_data, sizeof(*sequence));
	else if (!rc)
		rc = MDB_CORRUPTED;
	if (rc == MDB_NOTFOUND) {
		*sequence = 0;
		rc = 0;
	}
	mdb_txn_abort(txn);
	return rc;
}

static int
book_charge(struct levels *l, MDB_txn *txn, const struct ring_charge *c)
{
	struct stored_level level = { .period = c->period, .period_index = c->period_index };
	uint8_t id[16];
	MDB_val key = { sizeof(id), id }, value;
	int rc;

	be64_write(id, c->id.hi);
	be64_write(id + 8, c->id.lo);
	rc = mdb_get(txn, l->meters, &key, &value);
	if (rc && rc != MDB_NOTFOUND)
		return rc;
	if (!rc) {
		struct stored_level old;

		if (value.mv_size != sizeof(old))
			return MDB_CORRUPTED;
		memcpy(&old, value.mv_data, sizeof(old));
		if (old.period == c->period && old.period_index > c->period_index)
			return 0;
		if (old.period == c->period && old.period_index == c->period_index)
			level.spent_nusd = old.spent_nusd;
	}
	level.spent_nusd = sum_of(level.spent_nusd, c->amount_nusd);
	value = (MDB_val){ sizeof(level), &level };
	return mdb_put(txn, l->meters, &key, &value, 0);
}

static int
book(struct levels *l, const struct spending *s, const struct position *p, size_t n)
{
	MDB_txn *txn;
	int rc = environment_begin(l->env, ENVIRONMENT_WRITE, &txn);

	if (rc)
		return rc;
	for (size_t i = 0; i < s->count && !rc; i++)
		rc = book_charge(l, txn, &s->charge[i]);
	for (size_t i = 0; i < n && !rc; i++) {
		struct position_key pk = position_key(p[i].epoch, p[i].worker);
		uint64_t sequence = p[i].sequence;
		MDB_val key = { sizeof(pk), &pk }, value = { sizeof(sequence), &sequence };

		rc = mdb_put(txn, l->positions, &key, &value, 0);
	}
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int
levels_book(struct levels *l, struct spending *s, const struct position *p, size_t n)
{
	int rc;

	spending_merge(s);
	do
		rc = book(l, s, p, n);
	while (rc == MDB_MAP_FULL && environment_grow(l->env) == 0);
	return rc;
}

int
levels_each(struct levels *l, reader_meter_fn *each, void *arg)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	MDB_txn *txn;
	bool more = true;
	int rc = environment_begin(l->env, ENVIRONMENT_READ, &txn);

	if (rc)
		return rc;
	rc = mdb_cursor_open(txn, l->meters, &cursor);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	while (more && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		struct stored_level level;

		if (key.mv_size != 16 || value.mv_size != sizeof(level)) {
			rc = MDB_CORRUPTED;
			break;
		}
		memcpy(&level, value.mv_data, sizeof(level));
		more = each(be64_read(key.mv_data), be64_read((const char *)key.mv_data + 8), level.period,
		    level.period_index, level.spent_nusd, arg);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return rc == MDB_NOTFOUND ? 0 : rc;
}
