/*
 * store/levels.c -- see levels.h.
 *
 * A booking names its period. One of a newer period than the stored level
 * starts the level again; one of an older period (rings are drained one by
 * one, so midnight may be met twice) changes nothing, because that period's
 * level is no longer asked for by anyone. Where the limit has got another kind
 * of period, the ledger's rule holds: what was spent is kept if the newer
 * period contains the older one.
 */
#include "store/levels.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define LEVELS_MAP_BYTES ((size_t)1 << 30)	/* some five million meters */
#define ID_BYTES 16

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

/* ---- a meter's entry ---- */

static void
id_write(uint8_t out[ID_BYTES], struct meter_id id)
{
	be64_write(out, id.hi);
	be64_write(out + 8, id.lo);
}

static bool
entry_read(const MDB_val *value, struct stored_level *out, struct slice *name)
{
	if (value->mv_size < sizeof(*out) || value->mv_size >= sizeof(*out) + METER_NAME_BYTES)
		return false;
	memcpy(out, value->mv_data, sizeof(*out));
	*name = (struct slice){ (const char *)value->mv_data + sizeof(*out), value->mv_size - sizeof(*out) };
	return true;
}

static int64_t
shown(int64_t spent)
{
	return spent > 0 ? spent : 0;
}

static struct level
level_of(const struct stored_level *s)
{
	return (struct level){
		.known = true,
		.what = s->what,
		.period_index = s->period_index,
		.spent = shown(s->spent),
		.full_wall_ns = s->full_wall_ns,
	};
}

int
levels_get(struct levels *l, MDB_txn *txn, struct meter_id id, struct level *out)
{
	uint8_t bytes[ID_BYTES];
	MDB_val key = { sizeof(bytes), bytes }, value;
	struct stored_level stored;
	struct slice name;
	int rc;

	*out = (struct level){ .known = false };
	id_write(bytes, id);
	rc = mdb_get(txn, l->meters, &key, &value);
	if (rc)
		return rc == MDB_NOTFOUND ? 0 : rc;
	if (!entry_read(&value, &stored, &name))
		return MDB_CORRUPTED;
	*out = level_of(&stored);
	return 0;
}

/* ---- booking ---- */

/* Is it of a later step than all that the level has? */
static bool
is_newer(const struct stored_level *l, const struct booking *b)
{
	return b->epoch != l->epoch || b->step >= l->step;
}

static void
book_budget(struct stored_level *l, struct booking *b)
{
	struct period was = meter_what_period(l->what), is = meter_what_period(b->what);
	bool newer = is_newer(l, b);

	/* What would have made up for it went with the arena before. */
	if (b->epoch != l->epoch)
		l->spent = shown(l->spent);
	if (spending_same_kind(l->what, b->what)) {
		if (b->period_index < l->period_index)
			return;
		if (b->period_index > l->period_index)
			l->spent = 0;
		l->period_index = b->period_index;
	} else if (newer) {
		if (!period_contains(is, b->period_index, was, l->period_index))
			l->spent = 0;
		l->period_index = b->period_index;
	} else if (!period_contains(was, l->period_index, is, b->period_index)) {
		return;
	}
	b->before = shown(l->spent);
	l->spent = spending_sum(l->spent, b->amount);
	b->after = shown(l->spent);
	b->booked = true;
	if (newer) {
		l->what = b->what;
		l->epoch = b->epoch;
		l->step = b->step;
	}
}

static void
book_bucket(struct stored_level *l, const struct booking *b)
{
	if (!is_newer(l, b))
		return;
	l->what = b->what;
	l->full_wall_ns = b->full_wall_ns;
	l->epoch = b->epoch;
	l->step = b->step;
}

/* The name that the meter has in memory now; it is looked up when the stored
 * one may be of another time, not at each booking. */
static struct slice
name_now(struct arena *names, const struct booking *b, const struct stored_level *l, struct slice stored,
    struct meter_view *view)
{
	if (!names || (stored.n > 0 && l->epoch == b->epoch))
		return stored;
	if (!ledger_meter(names, b->id, (struct now){ 0 }, view) || view->name[0] == '\0')
		return stored;
	return slice_of(view->name);
}

/* Bookings come in the order of the entries, which is what a cursor is good at. */
static int
book_one(MDB_cursor *meters, struct booking *b, struct arena *names)
{
	struct { struct stored_level level; char name[METER_NAME_BYTES]; } entry;
	struct stored_level level = { .what = b->what, .period_index = b->period_index };
	struct slice name = SLICE_NONE;
	struct meter_view view;
	uint8_t id[ID_BYTES];
	MDB_val key = { sizeof(id), id }, value;
	bool fresh;
	int rc;

	b->booked = false;
	id_write(id, b->id);
	rc = mdb_cursor_get(meters, &key, &value, MDB_SET);
	fresh = rc == MDB_NOTFOUND;
	if (rc && !fresh)
		return rc;
	if (!fresh && !entry_read(&value, &level, &name))
		return MDB_CORRUPTED;
	name = name_now(names, b, &level, name, &view);
	if (meter_what_kind(b->what) == METER_BUCKET)
		book_bucket(&level, b);
	else
		book_budget(&level, b);
	if (fresh && !names)
		level.spent = shown(level.spent);
	entry.level = level;
	if (name.n > 0)
		memcpy(entry.name, name.p, name.n);
	value = (MDB_val){ sizeof(level) + name.n, &entry };
	return mdb_cursor_put(meters, &key, &value, fresh ? 0 : MDB_CURRENT);
}

static int
book_meters(struct levels *l, MDB_txn *txn, const struct spending *s, struct arena *names)
{
	MDB_cursor *meters;
	int rc = mdb_cursor_open(txn, l->meters, &meters);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < s->count && !rc; i++)
		rc = book_one(meters, &s->booking[i], names);
	mdb_cursor_close(meters);
	return rc;
}

static int
book(struct levels *l, const struct spending *s, const struct position *p, size_t n, struct arena *names)
{
	MDB_txn *txn;
	int rc = environment_begin(l->env, ENVIRONMENT_WRITE, &txn);

	if (rc)
		return rc;
	rc = book_meters(l, txn, s, names);
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
levels_book(struct levels *l, struct spending *s, const struct position *p, size_t n, struct arena *names)
{
	int rc;

	spending_order(s);
	do
		rc = book(l, s, p, n, names);
	while (rc == MDB_MAP_FULL && environment_grow(l->env) == 0);
	return rc;
}

/* ---- reading ---- */

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
		struct stored_meter m;

		if (key.mv_size != ID_BYTES || !entry_read(&value, &level, &m.name)) {
			rc = MDB_CORRUPTED;
			break;
		}
		m.id = (struct meter_id){ be64_read(key.mv_data), be64_read((const char *)key.mv_data + 8) };
		m.level = level_of(&level);
		more = each(&m, arg);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return rc == MDB_NOTFOUND ? 0 : rc;
}
