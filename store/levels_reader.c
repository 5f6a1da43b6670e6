/*
 * store/levels_reader.c -- see records.h: a worker's side.
 *
 * One read transaction is kept and renewed for each look-up, so that a look-up
 * is a few loads and stores in LMDB's reader table. After an error nothing is
 * kept: the next look-up opens the ledger again.
 */
#include <errno.h>
#include <stdlib.h>

#include "shm/base/log.h"
#include "store/folder.h"
#include "store/levels.h"

struct levels_reader {
	char *data_dir;
	struct levels levels;
	MDB_txn *txn;		/* NULL before the first look-up */
	bool failing;		/* has been logged */
};

struct levels_reader *
levels_reader_open(const char *data_dir, char *why, size_t why_size)
{
	struct levels_reader *r;

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
	return r;
}

static void
forget(struct levels_reader *r)
{
	if (r->txn)
		mdb_txn_abort(r->txn);
	r->txn = NULL;
	levels_close(&r->levels);
}

void
levels_reader_close(struct levels_reader *r)
{
	if (!r)
		return;
	forget(r);
	free(r->data_dir);
	free(r);
}

static int
look(struct levels_reader *r, struct meter_id id, struct level *out)
{
	int rc = r->levels.env ? 0 : levels_open(&r->levels, r->data_dir, ENVIRONMENT_READ);

	if (!rc)
		rc = r->txn ? environment_renew(r->levels.env, r->txn)
			    : environment_begin(r->levels.env, ENVIRONMENT_READ, &r->txn);
	if (!rc)
		rc = levels_get(&r->levels, r->txn, id, out);
	if (!rc)
		mdb_txn_reset(r->txn);
	return rc;
}

int
levels_reader_get(struct levels_reader *r, struct meter_id id, struct level *out)
{
	char why[512];
	int rc = look(r, id, out);

	if (rc) {
		forget(r);
		if (!r->failing) {
			environment_why(rc, "read the budget levels in", r->data_dir, why, sizeof(why));
			log_error("%s", why);
		}
	}
	r->failing = rc != 0;
	return rc ? -1 : 0;
}
