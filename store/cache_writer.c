/*
 * store/cache_writer.c -- see cache_writer.h.
 *
 * The map is as large as the file may get, so LMDB itself keeps the disk's bound:
 * a commit that would need more fails with MDB_MAP_FULL. Then the oldest entries
 * go in a commit of their own (their pages can be used by the next one), and
 * the batch is tried again. If there is not even room for that, the environment
 * is thrown away.
 *
 * After any other error nothing in memory is trusted: it is closed, and opened by
 * the next call. Where the error says that the file is damaged, it is made anew.
 */
#include "store/cache_writer.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/cache_entry.h"
#include "store/cache_layout.h"
#include "store/cache_stamp.h"

#define EVICT_ROWS_MAX 4096	/* in one commit: some ms */
#define SWEEP_ROWS 4		/* looked at for each item, whether they have expired */
#define SWEEP_ROWS_IDLE 64	/* ... when there is no item */
#define MAP_TRIES 3
#define MAP_FULL_SHARE 16	/* one part in so many goes when the map is full ... */
#define MAP_FULL_ROWS_MAX 256	/* ... and no more entries than this: their going needs pages, too */

struct cache_writer {
	char data_dir[PATH_MAX], folder[PATH_MAX + 8], data_path[PATH_MAX + 24];
	MDB_env *env;			/* NULL: not open */
	MDB_dbi table[CACHE_TABLES];
	uint64_t page_bytes, bytes_max, spare_bytes;
	dev_t device;			/* of the file that is open */
	ino_t inode;
	struct cache_about about;	/* as it was committed */
	uint64_t sweep_sequence;	/* where the search for what has expired goes on */
	bool damaged;			/* to be thrown away */
};

/* A transaction and what it does. */
struct batch {
	struct cache_writer *w;
	MDB_txn *txn;
	MDB_cursor *order;		/* over CACHE_ORDER */
	struct cache_about about;
	struct cache_changes changes;
	int64_t now_wall_ns;
	uint32_t rows_left;		/* of EVICT_ROWS_MAX */
	bool changed;
};

struct cache_writer *
cache_writer_new_with(const char *data_dir, uint64_t spare_bytes)
{
	struct cache_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	CHECK(snprintf(w->data_dir, sizeof(w->data_dir), "%s", data_dir) < (int)sizeof(w->data_dir));
	snprintf(w->folder, sizeof(w->folder), "%s/cache", data_dir);
	snprintf(w->data_path, sizeof(w->data_path), "%s/data.mdb", w->folder);
	w->spare_bytes = spare_bytes;
	return w;
}

struct cache_writer *
cache_writer_new(const char *data_dir)
{
	return cache_writer_new_with(data_dir, CACHE_SPARE_BYTES);
}

static void
close_it(struct cache_writer *w)
{
	if (w->env)
		mdb_env_close(w->env);
	w->env = NULL;
}

void
cache_writer_free(struct cache_writer *w)
{
	if (!w)
		return;
	close_it(w);
	explicit_bzero(&w->about, sizeof(w->about));
	free(w);
}

/* ---- opening ---- */

static MDB_val
about_key(void)
{
	return (MDB_val){ sizeof(CACHE_ABOUT) - 1, (void *)(uintptr_t)CACHE_ABOUT };
}

static int
about_write(struct cache_writer *w, MDB_txn *txn, const struct cache_about *about)
{
	MDB_val key = about_key(), value = { sizeof(*about), (void *)(uintptr_t)about };

	return mdb_put(txn, w->table[CACHE_ABOUT_TABLE], &key, &value, 0);
}

/* Reads what is said about the environment; writes it into one that is new. */
static int
about_open(struct cache_writer *w)
{
	MDB_val key = about_key(), value;
	MDB_txn *txn;
	int rc = environment_begin(w->env, ENVIRONMENT_WRITE_LOOSE, &txn);

	if (rc)
		return rc;
	rc = mdb_get(txn, w->table[CACHE_ABOUT_TABLE], &key, &value);
	if (rc == MDB_NOTFOUND) {
		w->about = (struct cache_about){ .format = CACHE_FORMAT };
		if (getrandom(w->about.secret, sizeof(w->about.secret), 0) == (ssize_t)sizeof(w->about.secret))
			rc = about_write(w, txn, &w->about);
	} else if (!rc && value.mv_size == sizeof(w->about)) {
		memcpy(&w->about, value.mv_data, sizeof(w->about));
	} else if (!rc) {
		rc = MDB_VERSION_MISMATCH;
	}
	if (!rc && w->about.format != CACHE_FORMAT)
		rc = MDB_VERSION_MISMATCH;
	if (!rc)
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return rc;
}

/* LMDB may leave the pages at the end unwritten that nobody needs. If somebody
 * has cut the file, what is missing is read as zeros now, and no SIGBUS. */
static int
file_extend(struct cache_writer *w)
{
	MDB_envinfo info;
	struct stat st;
	int fd, rc = mdb_env_get_fd(w->env, &fd);

	if (!rc)
		rc = mdb_env_info(w->env, &info);
	if (rc || fstat(fd, &st) != 0)
		return rc ? rc : errno;
	off_t want = (off_t)((info.me_last_pgno + 1) * w->page_bytes);
	if (st.st_size < want && ftruncate(fd, want) != 0)
		return errno;
	w->device = st.st_dev;
	w->inode = st.st_ino;
	return 0;
}

/* With a page more than is needed: LMDB never uses the last one. */
static size_t
map_bytes(const struct cache_writer *w, uint64_t bytes_max)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (size_t)((bytes_max + bytes_max / 2 + w->spare_bytes) / page * page + page);
}

static int
open_there(struct cache_writer *w)
{
	static const char *const names[CACHE_TABLES] = CACHE_TABLE_NAMES;
	static const unsigned flags[CACHE_TABLES] = CACHE_TABLE_FLAGS;
	bool fits = cache_stamp_fits(w->data_dir);
	MDB_stat stat;
	int rc = fits && !w->damaged ? 0 : environment_discard(w->folder);

	if (!rc)
		rc = environment_open(&w->env, w->folder, map_bytes(w, w->bytes_max), ENVIRONMENT_WRITE_LOOSE);
	if (!rc && (!fits || w->damaged))
		rc = cache_stamp_write(w->data_dir);
	if (!rc)
		rc = mdb_env_stat(w->env, &stat);
	if (!rc) {
		w->page_bytes = stat.ms_psize;
		rc = file_extend(w);
	}
	if (!rc)
		rc = environment_databases(w->env, ENVIRONMENT_WRITE_LOOSE, names, flags, w->table, CACHE_TABLES);
	if (!rc)
		rc = about_open(w);
	w->damaged = rc != 0;
	if (rc)
		close_it(w);
	return rc;
}

/* The file is larger than a bound that was lowered lets it be. LMDB never gives
 * back a page. */
static bool
too_large(struct cache_writer *w, uint64_t bytes_max)
{
	struct stat st;

	return stat(w->data_path, &st) == 0 && (uint64_t)st.st_size > map_bytes(w, bytes_max);
}

/* An environment is open, it is the one that has the name, and it has this bound. */
static int
make_ready(struct cache_writer *w, uint64_t bytes_max)
{
	bool bound_changed = w->bytes_max != bytes_max;
	struct stat st;
	int rc = 0;

	w->bytes_max = bytes_max;
	if (w->env && (stat(w->data_path, &st) != 0 || st.st_ino != w->inode || st.st_dev != w->device))
		close_it(w);
	if ((!w->env || bound_changed) && too_large(w, bytes_max)) {
		close_it(w);
		w->damaged = true;
	}
	if (w->env && bound_changed)
		rc = mdb_env_set_mapsize(w->env, map_bytes(w, bytes_max));
	if (w->env)
		return rc;
	rc = open_there(w);
	return rc ? open_there(w) : 0;	/* once more, without what cannot be opened */
}

/* ---- a batch ---- */

static MDB_val
entry_key(const uint64_t key[2])
{
	return (MDB_val){ 2 * sizeof(*key), (void *)(uintptr_t)key };
}

/* The row of `order` at hand, and its sequence. */
static bool
order_read(const MDB_val *key, const MDB_val *value, uint64_t *sequence, struct cache_order *row)
{
	if (key->mv_size != sizeof(*sequence) || value->mv_size != sizeof(*row))
		return false;
	*sequence = be64_read(key->mv_data);
	memcpy(row, value->mv_data, sizeof(*row));
	return true;
}

/* What the cursor is at goes, from both tables and from the sums. */
static int
drop(struct batch *b, const struct cache_order *row)
{
	MDB_val key = entry_key(row->key);
	int rc;

	if (row->bytes > b->about.bytes || b->about.entries == 0)
		return MDB_CORRUPTED;
	b->about.bytes -= row->bytes;
	b->about.entries--;
	b->changed = true;
	rc = mdb_cursor_del(b->order, 0);
	if (!rc)
		rc = mdb_del(b->txn, b->w->table[CACHE_ENTRIES], &key, NULL);
	return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int
drop_oldest(struct batch *b)
{
	struct cache_order row;
	uint64_t sequence;
	MDB_val key, value;
	int rc = mdb_cursor_get(b->order, &key, &value, MDB_FIRST);

	if (!rc && !order_read(&key, &value, &sequence, &row))
		rc = MDB_CORRUPTED;
	if (rc)
		return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
	if (row.expires_wall_ns <= b->now_wall_ns)
		b->changes.expired++;
	else
		b->changes.evicted++;
	b->rows_left--;
	return drop(b, &row);
}

/* Until `more` bytes fit below the bound; false in *fits if that takes too long. */
static int
make_room(struct batch *b, uint64_t more, uint64_t bytes_max, bool *fits)
{
	int rc = 0;

	*fits = more <= bytes_max;
	if (!*fits)
		more = 0;
	while (!rc && b->about.bytes + more > bytes_max && b->rows_left > 0)
		rc = drop_oldest(b);
	*fits = *fits && b->about.bytes + more <= bytes_max;
	return rc;
}

/* What is under the key, if anything. */
static int
drop_key(struct batch *b, const uint64_t key[2], bool *found)
{
	MDB_val k = entry_key(key), value;
	struct cache_order row;
	uint64_t sequence, at;
	int rc = mdb_get(b->txn, b->w->table[CACHE_ENTRIES], &k, &value);

	*found = false;
	if (rc)
		return rc == MDB_NOTFOUND ? 0 : rc;
	if (value.mv_size < sizeof(sequence))
		return MDB_CORRUPTED;
	memcpy(&sequence, value.mv_data, sizeof(sequence));
	k = (MDB_val){ sizeof(at), &at };
	be64_write((uint8_t *)&at, sequence);
	rc = mdb_cursor_get(b->order, &k, &value, MDB_SET_KEY);
	if (rc)
		return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
	if (!order_read(&k, &value, &sequence, &row) || memcmp(row.key, key, sizeof(row.key)) != 0)
		return MDB_CORRUPTED;
	*found = true;
	return drop(b, &row);
}

static int
add(struct batch *b, const struct cache_item *item, int64_t expires_wall_ns, uint64_t room)
{
	const struct cache_order row = { { item->key[0], item->key[1] }, expires_wall_ns, room };
	MDB_val key = entry_key(item->key), value = { CACHE_SEQUENCE_BYTES + item->entry.n, NULL };
	uint64_t sequence = b->about.next_sequence++, at;
	int rc = mdb_put(b->txn, b->w->table[CACHE_ENTRIES], &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);

	if (rc)
		return rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc;
	memcpy(value.mv_data, &sequence, sizeof(sequence));
	memcpy((char *)value.mv_data + CACHE_SEQUENCE_BYTES, item->entry.p, item->entry.n);
	be64_write((uint8_t *)&at, sequence);
	key = (MDB_val){ sizeof(at), &at };
	value = (MDB_val){ sizeof(row), (void *)(uintptr_t)&row };
	rc = mdb_put(b->txn, b->w->table[CACHE_ORDER], &key, &value, MDB_APPEND);
	b->about.bytes += room;
	b->about.entries++;
	b->changed = true;
	b->changes.stored++;
	return rc;
}

static int
put(struct batch *b, const struct cache_item *item)
{
	uint64_t room = cache_room(item->entry.n, b->w->page_bytes);
	struct cache_entry e;
	bool found, fits;
	int rc;

	if (item->entry.n > CACHE_ENTRY_BYTES_MAX || !cache_entry_decode(item->entry, &e)) {
		b->changes.malformed++;
		return 0;
	}
	rc = drop_key(b, item->key, &found);	/* the newest one counts, also where it cannot be kept */
	if (rc)
		return rc;
	if (e.fixed.expires_wall_ns <= b->now_wall_ns) {
		b->changes.expired++;
		return 0;
	}
	rc = make_room(b, room, b->w->bytes_max, &fits);
	if (rc)
		return rc;
	if (fits)
		return add(b, item, e.fixed.expires_wall_ns, room);
	b->changes.refused++;
	return 0;
}

/* Looks at the next rows, whether they have expired. */
static int
sweep(struct batch *b, uint32_t rows)
{
	struct cache_order row;
	uint64_t at, *next = &b->w->sweep_sequence;
	int rc = 0;

	for (; rows > 0 && !rc; rows--) {
		MDB_val key = { sizeof(at), &at }, value;

		be64_write((uint8_t *)&at, *next);
		rc = mdb_cursor_get(b->order, &key, &value, MDB_SET_RANGE);
		if (rc == MDB_NOTFOUND) {	/* at the end: from the oldest on, next time */
			*next = 0;
			return 0;
		}
		if (!rc && !order_read(&key, &value, next, &row))
			rc = MDB_CORRUPTED;
		++*next;
		if (rc || row.expires_wall_ns > b->now_wall_ns)
			continue;
		b->changes.expired++;
		rc = drop(b, &row);
	}
	return rc;
}

static int
begin(struct cache_writer *w, int64_t now_wall_ns, struct batch *b)
{
	int rc;

	*b = (struct batch){ .w = w, .about = w->about, .now_wall_ns = now_wall_ns, .rows_left = EVICT_ROWS_MAX };
	rc = environment_begin(w->env, ENVIRONMENT_WRITE_LOOSE, &b->txn);
	if (rc)
		return rc;
	rc = mdb_cursor_open(b->txn, w->table[CACHE_ORDER], &b->order);
	if (rc)
		mdb_txn_abort(b->txn);
	return rc;
}

/* Commits if `rc` is 0. */
static int
end(struct batch *b, int rc)
{
	mdb_cursor_close(b->order);
	if (!rc && b->changed)
		rc = about_write(b->w, b->txn, &b->about);
	if (rc || !b->changed) {
		mdb_txn_abort(b->txn);
		return rc;
	}
	rc = mdb_txn_commit(b->txn);
	if (!rc)
		b->w->about = b->about;
	return rc;
}

static int
try_apply(struct cache_writer *w, const struct cache_item *items, uint32_t n, int64_t now_wall_ns,
    struct cache_changes *out)
{
	struct batch b;
	bool found;
	int rc = begin(w, now_wall_ns, &b);

	if (rc)
		return rc;
	rc = make_room(&b, 0, w->bytes_max, &found);
	for (uint32_t i = 0; i < n && !rc; i++) {
		if (items[i].entry.p) {
			rc = put(&b, &items[i]);
		} else {
			rc = drop_key(&b, items[i].key, &found);
			b.changes.removed += found;
		}
	}
	if (!rc)
		rc = sweep(&b, n > 0 ? n * SWEEP_ROWS : SWEEP_ROWS_IDLE);
	rc = end(&b, rc);
	if (!rc) {
		b.changes.evicted += out->evicted;
		*out = b.changes;
	}
	return rc;
}

/* The map is full although the entries are within their bound: pages that are
 * not full, or that a reader holds back. */
static int
shrink(struct cache_writer *w, int64_t now_wall_ns, struct cache_changes *out)
{
	uint64_t less = w->bytes_max / MAP_FULL_SHARE;
	struct batch b;
	bool fits;
	int rc = begin(w, now_wall_ns, &b);

	if (rc)
		return rc;
	b.rows_left = MAP_FULL_ROWS_MAX;
	rc = make_room(&b, 0, w->about.bytes > less ? w->about.bytes - less : 0, &fits);
	rc = end(&b, rc);
	if (!rc)
		out->evicted += b.changes.evicted + b.changes.expired;
	return rc;
}

/* LMDB's own codes speak of a file that cannot be as it is, apart from these. (Those of
 * the disk and of memory are the system's.) */
static bool
is_damage(int rc)
{
	return rc < 0 && rc != MDB_MAP_FULL && rc != MDB_TXN_FULL && rc != MDB_READERS_FULL && rc != MDB_MAP_RESIZED && rc != MDB_PANIC;
}

int
cache_writer_apply(struct cache_writer *w, uint64_t bytes_max, const struct cache_item *items, uint32_t n,
    int64_t now_wall_ns, struct cache_changes *out, char *why, size_t why_size)
{
	int dead, rc = make_ready(w, bytes_max);

	*out = (struct cache_changes){ .stored = 0 };
	if (!rc)
		rc = mdb_reader_check(w->env, &dead);	/* a reader that was killed holds back pages */
	for (int tries = 0; !rc && tries < MAP_TRIES; tries++) {
		rc = try_apply(w, items, n, now_wall_ns, out);
		if (rc != MDB_MAP_FULL || tries + 1 == MAP_TRIES)
			break;
		rc = shrink(w, now_wall_ns, out);
		w->damaged = rc == MDB_MAP_FULL;
	}
	if (rc == MDB_MAP_FULL && w->env && !w->damaged) {
		out->refused = n;
		rc = 0;
	}
	out->bytes = w->about.bytes;
	out->entries = w->about.entries;
	if (!rc)
		return 0;
	w->damaged = w->damaged || is_damage(rc);
	close_it(w);
	if (is_damage(rc) || rc == MDB_MAP_FULL)
		snprintf(why, why_size, "the response cache in %s cannot be used (%s): it is made anew", w->folder, mdb_strerror(rc));
	else
		environment_why(rc, "write the response cache in", w->folder, why, why_size);
	return -1;
}

int
cache_writer_remove(struct cache_writer *w, char *why, size_t why_size)
{
	int rc;

	close_it(w);
	rc = environment_discard(w->folder);
	if (!rc)
		rc = cache_stamp_remove(w->data_dir);
	if (rc)
		environment_why(rc, "remove the response cache in", w->folder, why, why_size);
	return rc ? -1 : 0;
}
