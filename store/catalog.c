/*
 * store/catalog.c -- see catalog.h.
 *
 * A key is one document and its indexes: a slug and the hashes of its secrets.
 * A replacement takes away the indexes of the old document and writes those of
 * the new one in the same transaction, so an index never points to nothing.
 *
 * Look-ups renew one read transaction that is kept between them: that is a
 * few loads and stores in LMDB's reader table. The generation is the snapshot
 * of such a transaction and not mdb_env_info()'s last one: the meta page that
 * the latter reads is in memory before the commit's fsync is over, and a
 * look-up in that moment still gets the snapshot before it.
 */
#include "store/catalog.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/log.h"
#include "store/environment.h"
#include "store/folder.h"

#define CATALOG_MAP_BYTES ((size_t)4 << 30)	/* some four million keys, then it doubles */
#define SLUG_KEY_BYTES (2 * KEY_NAME_BYTES_MAX + 2)
#define DEFAULT_WORKSPACE "default"

struct catalog {
	MDB_env *env;
	MDB_dbi by_hash, keys, slugs;
	MDB_txn *look;		/* kept, renewed for each look-up; NULL before the first */
	bool failing;		/* has been logged */
};

/* Under which names a document is found. */
struct indexes {
	char id[KEY_NAME_BYTES_MAX + 1];
	char slug[SLUG_KEY_BYTES];	/* "workspace/slug" */
	uint8_t hash[KEY_HASHES_MAX][KEY_HASH_BYTES];
	uint32_t hashes;
};

static MDB_val
val(const void *p, size_t n)
{
	return (MDB_val){ n, (void *)(uintptr_t)p };
}

/* ---- opening ---- */

struct catalog *
catalog_open(const char *data_dir, bool writable, char *why, size_t why_size)
{
	static const char *const names[] = { "keys_by_hash", "keys", "slugs" };
	static const unsigned flags[] = { 0, 0, 0 };
	enum environment_mode mode = writable ? ENVIRONMENT_WRITE : ENVIRONMENT_READ;
	char path[PATH_MAX];
	struct catalog *c;
	MDB_dbi dbi[3];
	int rc;

	if ((writable ? folder_make : folder_check)(data_dir, why, why_size) != 0)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c) {
		environment_why(ENOMEM, "open the catalog in", data_dir, why, why_size);
		return NULL;
	}
	snprintf(path, sizeof(path), "%s/catalog", data_dir);
	rc = environment_open(&c->env, path, CATALOG_MAP_BYTES, mode);
	if (!rc)
		rc = environment_databases(c->env, mode, names, flags, dbi, 3);
	if (rc) {
		if (!writable && (rc == ENOENT || rc == MDB_NOTFOUND))
			snprintf(why, why_size, "there are no keys in %s yet (weir key create makes one)", data_dir);
		else
			environment_why(rc, "open the catalog", path, why, why_size);
		catalog_close(c);
		return NULL;
	}
	c->by_hash = dbi[0];
	c->keys = dbi[1];
	c->slugs = dbi[2];
	return c;
}

void
catalog_close(struct catalog *c)
{
	if (!c)
		return;
	if (c->look)
		mdb_txn_abort(c->look);
	if (c->env)
		mdb_env_close(c->env);
	free(c);
}

/* ---- look-ups ---- */

/* The kept transaction, at the newest snapshot; look_end() puts it to rest. */
static MDB_txn *
look_begin(struct catalog *c)
{
	int rc = c->look ? environment_renew(c->env, c->look) : environment_begin(c->env, ENVIRONMENT_READ, &c->look);

	if (!rc) {
		c->failing = false;
		return c->look;
	}
	if (c->look)
		mdb_txn_abort(c->look);
	c->look = NULL;
	if (!c->failing)
		log_error("cannot read the catalog: %s", mdb_strerror(rc));
	c->failing = true;
	return NULL;
}

static void
look_end(struct catalog *c)
{
	mdb_txn_reset(c->look);
}

uint64_t
catalog_generation(struct catalog *c)
{
	MDB_txn *txn = look_begin(c);
	uint64_t generation;

	if (!txn)
		return 0;
	generation = mdb_txn_id(txn);
	look_end(c);
	/* A catalog without a commit has number 0, which means failure here. */
	return generation + 1;
}

bool
catalog_key_by_hash(struct catalog *c, const uint8_t hash[KEY_HASH_BYTES], struct buf *json)
{
	MDB_val key = val(hash, KEY_HASH_BYTES), id, document;
	MDB_txn *txn = look_begin(c);
	bool found;

	buf_clear(json);
	if (!txn)
		return false;
	found = mdb_get(txn, c->by_hash, &key, &id) == 0 && mdb_get(txn, c->keys, &id, &document) == 0;
	if (found)
		buf_add(json, document.mv_data, document.mv_size);
	look_end(c);
	return found && !json->overflow;
}

/* The id behind an id or a slug. */
static int
find_id(struct catalog *c, MDB_txn *txn, struct slice name, MDB_val *id)
{
	char full[SLUG_KEY_BYTES];
	MDB_val key = val(name.p, name.n), document;
	int n;

	if (name.n == 0 || name.n >= sizeof(full))
		return MDB_NOTFOUND;
	if (mdb_get(txn, c->keys, &key, &document) == 0) {
		*id = key;
		return 0;
	}
	if (memchr(name.p, '/', name.n))
		return mdb_get(txn, c->slugs, &key, id);
	n = snprintf(full, sizeof(full), DEFAULT_WORKSPACE "/%.*s", SLICE_FMT(name));
	if (n < 0 || (size_t)n >= sizeof(full))
		return MDB_NOTFOUND;
	key = val(full, (size_t)n);
	return mdb_get(txn, c->slugs, &key, id);
}

static int
find_document(struct catalog *c, MDB_txn *txn, struct slice name, struct buf *json)
{
	MDB_val id, document;
	int rc = find_id(c, txn, name, &id);

	if (!rc)
		rc = mdb_get(txn, c->keys, &id, &document);
	if (rc)
		return rc;
	buf_add(json, document.mv_data, document.mv_size);
	return json->overflow ? ENOMEM : 0;
}

enum catalog_result
catalog_key_get(struct catalog *c, struct slice id_or_slug, struct buf *json)
{
	MDB_txn *txn = look_begin(c);
	int rc;

	buf_clear(json);
	if (!txn)
		return CATALOG_FAILED;
	rc = find_document(c, txn, id_or_slug, json);
	look_end(c);
	if (rc == MDB_NOTFOUND)
		return CATALOG_NOT_FOUND;
	return rc ? CATALOG_FAILED : CATALOG_OK;
}

void
catalog_keys_each(struct catalog *c, catalog_each_fn *each, void *arg)
{
	MDB_txn *txn = look_begin(c);
	MDB_val slug, id, document;
	MDB_cursor *cursor;
	bool more = true;

	if (!txn)
		return;
	if (mdb_cursor_open(txn, c->slugs, &cursor) == 0) {
		while (more && mdb_cursor_get(cursor, &slug, &id, MDB_NEXT) == 0)
			if (mdb_get(txn, c->keys, &id, &document) == 0)
				more = each((struct slice){ document.mv_data, document.mv_size }, arg);
		mdb_cursor_close(cursor);
	}
	look_end(c);
}

/* ---- changes ---- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
hash_read(const char *hex, uint8_t out[KEY_HASH_BYTES])
{
	if (!hex || strlen(hex) != 2 * KEY_HASH_BYTES)
		return false;
	for (size_t i = 0; i < KEY_HASH_BYTES; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* Names that may stand in "workspace/slug". */
static bool
name_fits(const char *s)
{
	return s && *s && strlen(s) <= KEY_NAME_BYTES_MAX && !strchr(s, '/');
}

static bool
hashes_read(const cJSON *hashes, struct indexes *ix)
{
	const cJSON *h;

	if (!cJSON_IsArray(hashes))
		return false;
	cJSON_ArrayForEach(h, hashes) {
		const char *hex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(h, "sha256"));

		if (ix->hashes == KEY_HASHES_MAX || !hash_read(hex, ix->hash[ix->hashes]))
			return false;
		ix->hashes++;
	}
	return true;
}

static bool
indexes_read(struct slice json, struct indexes *ix)
{
	cJSON *document = cJSON_ParseWithLength(json.p, json.n);
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "id"));
	const char *slug = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "slug"));
	const char *workspace = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "workspace"));
	bool ok = name_fits(id) && name_fits(slug) && name_fits(workspace);

	*ix = (struct indexes){ .hashes = 0 };
	if (ok) {
		snprintf(ix->id, sizeof(ix->id), "%s", id);
		snprintf(ix->slug, sizeof(ix->slug), "%s/%s", workspace, slug);
		ok = hashes_read(cJSON_GetObjectItemCaseSensitive(document, "hashes"), ix);
	}
	cJSON_Delete(document);
	return ok;
}

static int
indexes_remove(struct catalog *c, MDB_txn *txn, const struct indexes *ix)
{
	MDB_val key = val(ix->slug, strlen(ix->slug));
	int rc = mdb_del(txn, c->slugs, &key, NULL);

	for (uint32_t i = 0; i < ix->hashes && (!rc || rc == MDB_NOTFOUND); i++) {
		key = val(ix->hash[i], KEY_HASH_BYTES);
		rc = mdb_del(txn, c->by_hash, &key, NULL);
	}
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* MDB_KEYEXIST: the slug or a hash is another key's. */
static int
indexes_add(struct catalog *c, MDB_txn *txn, const struct indexes *ix)
{
	MDB_val id = val(ix->id, strlen(ix->id)), key = val(ix->slug, strlen(ix->slug)), value = id;
	int rc = mdb_put(txn, c->slugs, &key, &value, MDB_NOOVERWRITE);

	for (uint32_t i = 0; i < ix->hashes && !rc; i++) {
		key = val(ix->hash[i], KEY_HASH_BYTES);
		value = id;
		rc = mdb_put(txn, c->by_hash, &key, &value, MDB_NOOVERWRITE);
	}
	return rc;
}

/* Takes the stored document's indexes away; MDB_NOTFOUND: there is none. */
static int
forget(struct catalog *c, MDB_txn *txn, MDB_val id)
{
	struct indexes old;
	MDB_val document;
	int rc = mdb_get(txn, c->keys, &id, &document);

	if (rc)
		return rc;
	if (!indexes_read((struct slice){ document.mv_data, document.mv_size }, &old))
		return MDB_CORRUPTED;
	return indexes_remove(c, txn, &old);
}

static int
put(struct catalog *c, MDB_txn *txn, struct slice json, const struct indexes *ix, bool create)
{
	MDB_val id = val(ix->id, strlen(ix->id)), document = val(json.p, json.n);
	int rc = forget(c, txn, id);

	if (create)
		rc = rc == MDB_NOTFOUND ? 0 : rc ? rc : MDB_KEYEXIST;
	if (!rc)
		rc = indexes_add(c, txn, ix);
	if (!rc)
		rc = mdb_put(txn, c->keys, &id, &document, 0);
	return rc;
}

static enum catalog_result
result_of(int rc, const char *doing, char *why, size_t why_size)
{
	switch (rc) {
	case 0:
		return CATALOG_OK;
	case MDB_KEYEXIST:
		return CATALOG_EXISTS;
	case MDB_NOTFOUND:
		return CATALOG_NOT_FOUND;
	default:
		environment_why(rc, doing, "the catalog", why, why_size);
		return CATALOG_FAILED;
	}
}

static int
finish(MDB_txn *txn, int rc)
{
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

enum catalog_result
catalog_key_put(struct catalog *c, struct slice json, bool create, char *why, size_t why_size)
{
	struct indexes ix;
	MDB_txn *txn;
	int rc;

	if (json.n > KEY_DOCUMENT_BYTES_MAX || !indexes_read(json, &ix)) {
		snprintf(why, why_size, "not a key's document: it needs id, slug, workspace and hashes (at most %d)",
		    KEY_HASHES_MAX);
		return CATALOG_FAILED;
	}
	do {
		rc = environment_begin(c->env, ENVIRONMENT_WRITE, &txn);
		if (!rc)
			rc = finish(txn, put(c, txn, json, &ix, create));
	} while (rc == MDB_MAP_FULL && environment_grow(c->env) == 0);
	if (rc == MDB_KEYEXIST)
		snprintf(why, why_size, "%s exists already", ix.slug);
	return result_of(rc, "write", why, why_size);
}

/* In the transaction: read, let the caller change, replace. */
static int
change_in(struct catalog *c, MDB_txn *txn, struct slice name, catalog_change_fn *change, void *arg)
{
	struct buf old, changed;
	struct indexes before, after;
	int rc;

	buf_init(&old, KEY_DOCUMENT_BYTES_MAX);
	buf_init(&changed, KEY_DOCUMENT_BYTES_MAX);
	rc = find_document(c, txn, name, &old);
	if (!rc && !indexes_read(buf_slice(&old), &before))
		rc = MDB_CORRUPTED;
	if (!rc && change(buf_slice(&old), &changed, arg)) {
		if (changed.overflow || !indexes_read(buf_slice(&changed), &after) || strcmp(before.id, after.id) != 0)
			rc = EINVAL;
		else
			rc = put(c, txn, buf_slice(&changed), &after, false);
	}
	buf_free(&old);
	buf_free(&changed);
	return rc;
}

enum catalog_result
catalog_key_change(struct catalog *c, struct slice id_or_slug, catalog_change_fn *change, void *arg, char *why,
    size_t why_size)
{
	MDB_txn *txn;
	int rc;

	do {
		rc = environment_begin(c->env, ENVIRONMENT_WRITE, &txn);
		if (!rc)
			rc = finish(txn, change_in(c, txn, id_or_slug, change, arg));
	} while (rc == MDB_MAP_FULL && environment_grow(c->env) == 0);
	if (rc == MDB_NOTFOUND && memchr(id_or_slug.p, '/', id_or_slug.n))
		snprintf(why, why_size, "there is no key %.*s", SLICE_FMT(id_or_slug));
	else if (rc == MDB_NOTFOUND)
		snprintf(why, why_size, "there is no key %.*s in workspace " DEFAULT_WORKSPACE
		    " (one of another workspace: WORKSPACE/SLUG)", SLICE_FMT(id_or_slug));
	return result_of(rc, "write", why, why_size);
}
