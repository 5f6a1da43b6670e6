/* store/days.c -- see days.h. */
#include "store/days.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define DAY_NAME_BYTES 16
#define SECONDS_A_DAY 86400

static void
day_name(int64_t number, char out[DAY_NAME_BYTES])
{
	time_t seconds = (time_t)number * SECONDS_A_DAY;
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(out, DAY_NAME_BYTES, "%Y-%m-%d", &tm);
}

/* The day of a folder's name; DAY_NONE for any other name. */
static int64_t
day_number(const char *name)
{
	struct tm tm = { 0 };
	const char *end = strptime(name, "%Y-%m-%d", &tm);
	char again[DAY_NAME_BYTES];
	int64_t number;

	if (!end || *end != '\0')
		return DAY_NONE;
	number = timegm(&tm) / SECONDS_A_DAY;
	if (number < 0)
		return DAY_NONE;
	day_name(number, again);
	return strcmp(again, name) == 0 ? number : DAY_NONE;
}

int
day_open(struct day *d, const char *data_dir, int64_t number, size_t map_bytes, enum environment_mode mode)
{
	static const char *const names[] = { "records", "positions" };
	static const unsigned flags[] = { 0, 0 };
	char path[PATH_MAX], name[DAY_NAME_BYTES];
	MDB_dbi dbi[2];
	int rc;

	day_name(number, name);
	snprintf(path, sizeof(path), "%s/records/%s", data_dir, name);
	rc = environment_open(&d->env, path, map_bytes, mode);
	if (rc)
		return rc;
	rc = environment_databases(d->env, mode, names, flags, dbi, 2);
	if (rc) {
		day_close(d);
		return rc;
	}
	d->records = dbi[0];
	d->positions = dbi[1];
	d->number = number;
	return 0;
}

void
day_close(struct day *d)
{
	if (d->env)
		mdb_env_close(d->env);
	d->env = NULL;
	d->number = DAY_NONE;
}

int
day_last_id(struct day *d, uint64_t *id)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	MDB_txn *txn;
	int rc = environment_begin(d->env, ENVIRONMENT_READ, &txn);

	*id = 0;
	if (rc)
		return rc;
	rc = mdb_cursor_open(txn, d->records, &cursor);
	if (!rc) {
		rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
		if (!rc && key.mv_size == sizeof(*id))
			*id = be64_read(key.mv_data);
		else if (!rc)
			rc = MDB_CORRUPTED;
		mdb_cursor_close(cursor);
	}
	mdb_txn_abort(txn);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

bool
stored_item_read(const MDB_val *key, const MDB_val *value, struct stored_item *out)
{
	const char *p = value->mv_data;
	size_t n = value->mv_size, charges;

	if (key->mv_size != sizeof(uint64_t) || n < sizeof(out->head))
		return false;
	memcpy(&out->head, p, sizeof(out->head));
	charges = (size_t)out->head.charges * sizeof(struct ring_charge);
	if (out->head.charges > CHARGES_MAX || charges > n - sizeof(out->head))
		return false;
	out->id = be64_read(key->mv_data);
	out->charges = p + sizeof(out->head);
	out->record.p = out->charges + charges;
	out->record.n = n - sizeof(out->head) - charges;
	return true;
}

static int
number_order(const void *pa, const void *pb)
{
	const int64_t *a = pa, *b = pb;

	return *a < *b ? -1 : *a > *b;
}

int
day_list(struct day_list *l, const char *data_dir)
{
	char path[PATH_MAX];
	struct dirent *entry;
	size_t room = 0;
	DIR *dir;

	*l = (struct day_list){ 0 };
	snprintf(path, sizeof(path), "%s/records", data_dir);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : errno;
	while ((entry = readdir(dir)) != NULL) {
		int64_t number = day_number(entry->d_name);

		if (number == DAY_NONE)
			continue;
		if (l->count == room) {
			int64_t *grown = reallocarray(l->number, room + 64, sizeof(*grown));

			if (!grown) {
				closedir(dir);
				day_list_free(l);
				return ENOMEM;
			}
			l->number = grown;
			room += 64;
		}
		l->number[l->count++] = number;
	}
	closedir(dir);
	if (l->count > 1)
		qsort(l->number, l->count, sizeof(*l->number), number_order);
	return 0;
}

void
day_list_free(struct day_list *l)
{
	free(l->number);
	*l = (struct day_list){ 0 };
}
