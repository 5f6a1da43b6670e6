/*
 * store/writer.c -- see records.h: the keeper's side.
 *
 * A batch is what the rings have now, up to a bound. It goes through three
 * steps, each durable before the next begins:
 *
 *	1. the day's environment: records and positions
 *	2. the ledger: charges and positions
 *	3. the rings: the room is free again
 *
 * A death after 1 leaves charges that carry_over() books at the next open; a
 * death after 2 leaves items in the rings whose sequences the ledger's
 * positions know: they are skipped. After any failure nothing in memory is
 * trusted: the environments are closed, and opened again by the next flush.
 */
#include "store/records.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/ring.h"
#include "store/carry.h"
#include "store/days.h"
#include "store/folder.h"
#include "store/levels.h"

#define DAY_MAP_BYTES ((size_t)16 << 30)	/* twenty million records; valgrind has no room for much more */

struct writer {
	char *data_dir;
	struct writer_options options;
	int lock_fd;
	bool open;			/* the two environments below are usable */
	struct levels levels;
	struct day day;
	uint64_t last_id;		/* of all days */
	uint64_t epoch;			/* the arena that booked[] is about */
	bool epoch_known;
	bool drained;			/* by the last flush: see writer_drained() */
	uint64_t booked[RINGS_MAX];	/* last sequence that is stored and booked */
	struct spending spending, carried;
	writer_booked_fn *on_booked;	/* NULL: nobody asked yet */
	void *on_booked_arg;
};

/* The items at hand. */
struct batch {
	struct ring_cursor cursor[RINGS_MAX];
	uint64_t sequence[RINGS_MAX];	/* last one read; 0: none */
	uint32_t rings, items, stored;
	bool bounded;			/* there may be more in the rings */
	uint64_t next_id, end_id;	/* end_id: of the day, exclusive */
};

/* ---- opening ---- */

static int
lock_take(const char *data_dir, char *why, size_t why_size)
{
	char path[PATH_MAX], pid[24];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/writer.lock", data_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, ENVIRONMENT_FILE_MODE);
	if (fd < 0) {
		environment_why(errno, "open", path, why, why_size);
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		n = read(fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		snprintf(why, why_size, "the data folder %s is in use by another weir (process %s): stop it, or name another data_dir",
		    data_dir, pid);
		close(fd);
		return -1;
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
		environment_why(errno, "write", path, why, why_size);
		close(fd);
		return -1;
	}
	return fd;
}

/* Ids go on from the last record, however old it is. */
static int
find_last_id(struct writer *w)
{
	struct day_list days;
	int rc = day_list(&days, w->data_dir);

	w->last_id = 0;
	for (size_t i = days.count; i > 0 && w->last_id == 0 && !rc; i--) {
		struct day d = { .number = DAY_NONE };

		rc = day_open(&d, w->data_dir, days.number[i - 1], w->options.day_map_bytes, ENVIRONMENT_WRITE);
		if (!rc)
			rc = day_last_id(&d, &w->last_id);
		day_close(&d);
	}
	day_list_free(&days);
	return rc;
}

static void
environments_close(struct writer *w)
{
	day_close(&w->day);
	levels_close(&w->levels);
	w->open = false;
	w->epoch_known = false;
}

/* Tells what has become of budgets, once. */
static void
tell_booked(struct writer *w, struct spending *s)
{
	if (!w->on_booked)
		return;
	for (uint32_t i = 0; i < s->count; i++) {
		const struct booking *b = &s->booking[i];

		if (b->booked && b->before != b->after)
			w->on_booked(b->id, b->what, b->before, b->after, w->on_booked_arg);
	}
	spending_clear(s);
}

void
writer_on_booked(struct writer *w, writer_booked_fn *booked, void *arg)
{
	w->on_booked = booked;
	w->on_booked_arg = arg;
	tell_booked(w, &w->carried);
}

static int
environments_open(struct writer *w, char *why, size_t why_size)
{
	char path[PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), "%s/records", w->data_dir);
	rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : errno;
	if (!rc)
		rc = levels_open(&w->levels, w->data_dir, ENVIRONMENT_WRITE);
	if (!rc)
		rc = carry_over(&w->levels, w->data_dir, w->options.day_map_bytes, &w->carried);
	if (!rc)
		rc = find_last_id(w);
	if (rc) {
		environment_why(rc, "open the store", w->data_dir, why, why_size);
		environments_close(w);
		return -1;
	}
	w->open = true;
	tell_booked(w, &w->carried);
	return 0;
}

struct writer *
writer_open_with(const char *data_dir, const struct writer_options *options, char *why, size_t why_size)
{
	struct writer *w;

	if (folder_make(data_dir, why, why_size) != 0)
		return NULL;
	w = calloc(1, sizeof(*w));
	if (w)
		w->data_dir = strdup(data_dir);
	if (!w || !w->data_dir) {
		environment_why(ENOMEM, "open the store", data_dir, why, why_size);
		free(w);
		return NULL;
	}
	w->options = *options;
	w->day.number = DAY_NONE;
	w->lock_fd = lock_take(data_dir, why, why_size);
	if (w->lock_fd < 0 || environments_open(w, why, why_size) != 0) {
		writer_close(w);
		return NULL;
	}
	return w;
}

struct writer *
writer_open(const char *data_dir, char *why, size_t why_size)
{
	static const struct writer_options usual = { clock_wall_ns, DAY_MAP_BYTES };

	return writer_open_with(data_dir, &usual, why, why_size);
}

void
writer_close(struct writer *w)
{
	if (!w)
		return;
	environments_close(w);
	spending_free(&w->spending);
	spending_free(&w->carried);
	if (w->lock_fd >= 0)
		close(w->lock_fd);
	free(w->data_dir);
	free(w);
}

/* ---- a batch ---- */

/* The workers' and that of the tools. */
static uint32_t
rings_of(const struct arena *a)
{
	return ledger_tools_row(a) + 1;
}

static bool
rings_empty(const struct arena *a)
{
	struct ring_item item;

	for (uint32_t i = 0; i < rings_of(a); i++) {
		struct ring_cursor cursor = ring_begin(a, i);

		if (ring_next(a, i, &cursor, &item))
			return false;
	}
	return true;
}

static int
learn_epoch(struct writer *w, const struct arena *a)
{
	uint64_t epoch = arena_epoch(a);
	int rc = 0;

	if (w->epoch_known && w->epoch == epoch)
		return 0;
	for (uint32_t i = 0; i < RINGS_MAX && !rc; i++)
		rc = levels_position(&w->levels, epoch, i, &w->booked[i]);
	w->epoch = epoch;
	w->epoch_known = !rc;
	return rc;
}

/* The environment of the day in which the next id lies. */
static int
choose_day(struct writer *w, struct batch *b)
{
	uint64_t now = (uint64_t)w->options.wall_ns();
	int64_t number;

	b->next_id = now > w->last_id ? now : w->last_id + 1;
	number = day_of(b->next_id);
	b->end_id = ((uint64_t)number + 1) * DAY_NS;
	if (w->day.env && w->day.number == number)
		return 0;
	day_close(&w->day);
	return day_open(&w->day, w->data_dir, number, w->options.day_map_bytes, ENVIRONMENT_WRITE);
}

static int
store_item(struct writer *w, MDB_txn *txn, struct batch *b, uint32_t worker, const struct ring_item *item)
{
	struct stored_head head = { w->epoch, item->sequence, worker, item->charges };
	size_t charges = item->charges * sizeof(*item->charge);
	MDB_val key, value = { sizeof(head) + charges + item->record_bytes, NULL };
	uint8_t id[8];
	char *p;
	int rc;

	be64_write(id, b->next_id);
	key = (MDB_val){ sizeof(id), id };
	rc = mdb_put(txn, w->day.records, &key, &value, MDB_APPEND | MDB_RESERVE);
	if (rc)
		return rc;
	p = value.mv_data;
	memcpy(p, &head, sizeof(head));
	if (charges > 0)
		memcpy(p + sizeof(head), item->charge, charges);
	memcpy(p + sizeof(head) + charges, item->record, item->record_bytes);
	for (uint32_t i = 0; i < item->charges && !rc; i++)
		rc = spending_add(&w->spending, w->epoch, 0, &item->charge[i]);
	b->next_id++;
	b->stored++;
	return rc;
}

static int
store_ring(struct writer *w, MDB_txn *txn, struct batch *b, const struct arena *a, uint32_t worker)
{
	struct position_key pk = position_key(w->epoch, worker);
	MDB_val key = { sizeof(pk), &pk }, value = { sizeof(b->sequence[worker]), &b->sequence[worker] };
	struct ring_item item;
	uint32_t before = b->stored;
	int rc = 0;

	b->cursor[worker] = ring_begin(a, worker);
	while (!rc && !b->bounded && ring_next(a, worker, &b->cursor[worker], &item)) {
		b->items++;
		b->sequence[worker] = item.sequence;
		if (item.sequence > w->booked[worker])
			rc = store_item(w, txn, b, worker, &item);
		b->bounded = b->items == WRITER_BATCH_RECORDS || b->next_id == b->end_id;
	}
	if (rc || b->stored == before)
		return rc;
	return mdb_put(txn, w->day.positions, &key, &value, 0);
}

/* Step 1. */
static int
store_day(struct writer *w, struct arena *a, struct batch *b)
{
	MDB_txn *txn;
	int rc;

	*b = (struct batch){ .rings = rings_of(a) };
	spending_clear(&w->spending);
	rc = choose_day(w, b);
	if (!rc)
		rc = environment_begin(w->day.env, ENVIRONMENT_WRITE, &txn);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < b->rings && !rc; i++)
		rc = store_ring(w, txn, b, a, i);
	if (rc || b->stored == 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/* Step 2. */
static int
book_batch(struct writer *w, struct arena *a, const struct batch *b)
{
	struct position moved[RINGS_MAX];
	size_t n = 0;

	for (uint32_t i = 0; i < b->rings; i++)
		if (b->sequence[i] > w->booked[i])
			moved[n++] = (struct position){ w->epoch, b->sequence[i], i };
	return n > 0 ? levels_book(&w->levels, &w->spending, moved, n, a) : 0;
}

/* Step 3. */
static void
advance(struct writer *w, struct arena *a, const struct batch *b)
{
	for (uint32_t i = 0; i < b->rings; i++) {
		if (b->sequence[i] == 0)
			continue;
		ring_advance(a, i, b->cursor[i]);
		if (b->sequence[i] > w->booked[i])
			w->booked[i] = b->sequence[i];
	}
	if (b->stored > 0)
		w->last_id = b->next_id - 1;
}

int
writer_flush(struct writer *w, struct arena *a, uint32_t *records, char *why, size_t why_size)
{
	struct batch b;
	int rc;

	*records = 0;
	w->drained = rings_empty(a);
	if (w->drained)
		return 0;
	if (!w->open && environments_open(w, why, why_size) != 0)
		return -1;
	rc = learn_epoch(w, a);
	if (!rc) {
		do
			rc = store_day(w, a, &b);
		while (rc == MDB_MAP_FULL && environment_grow(w->day.env) == 0);
	}
	if (!rc)
		rc = book_batch(w, a, &b);
	if (rc) {
		environment_why(rc, "write records to", w->data_dir, why, why_size);
		environments_close(w);
		return -1;
	}
	tell_booked(w, &w->spending);
	advance(w, a, &b);
	w->drained = !b.bounded;
	*records = b.items;
	return 0;
}

bool
writer_drained(const struct writer *w)
{
	return w->drained;
}
