/*
 * store/catalog.h -- keys (and later every other entity) in LMDB.
 *
 * Environment <data>/catalog. Database `keys_by_hash`: SHA-256 of the secret
 * -> key id; `keys`: key id -> JSON document; `slugs`: "workspace/slug" -> id.
 * The secret itself is never stored. Writers are tools (`weir key ...`) and,
 * later, the admin process; LMDB's own lock orders them. Workers only read.
 *
 * The number of the last committed transaction is the catalog's generation: a
 * worker that sees it unchanged may trust what it compiled before, so a
 * revoked key is refused from the commit on. Open after fork, once a process.
 */
#ifndef WEIR_STORE_CATALOG_H
#define WEIR_STORE_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"

struct catalog;

#define KEY_HASH_BYTES 32
#define KEY_SECRET_PREFIX "weir_sk_"	/* recognisable for secret scanners */
#define KEY_NAME_BYTES_MAX 64		/* of a slug, of a workspace */
#define KEY_HASHES_MAX 8		/* secrets of one key that are valid at a time */
#define KEY_DOCUMENT_BYTES_MAX 65536

struct catalog *catalog_open(const char *data_dir, bool writable, char *why, size_t why_size);
	/* Creates the folder and environment when writable. NULL: see why. */
void catalog_close(struct catalog *c);
uint64_t catalog_generation(struct catalog *c);
	/* Cheap: no system call, no lock. Two equal answers: nothing was
	 * committed in between. 0: the catalog could not be read. */
bool catalog_key_by_hash(struct catalog *c, const uint8_t hash[KEY_HASH_BYTES], struct buf *json);
	/* The key's document into `json` (cleared first); false: no such key.
	 * Read-only, lock-free. Never older than a generation asked for before. */

/*
 * A key's document:
 * {"id":"key_<16 hex>","slug":"...","workspace":"...","name":"...",
 *  "config":"slug"|null, "allow_config_override":true, "metadata":{...},
 *  "user":"..."|null, "rate_limits":[...], "usage_limits":[...] (as in policy/limit.h),
 *  "allowed_models":["claude-*"]|null, "expires_at":"2026-12-31T00:00:00Z"|null,
 *  "enabled":true, "created_at":"...", "rotated_at":null,
 *  "hashes":[{"sha256":"<64 hex>","expires_at":null}]}
 * After a rotation two hashes may be valid for a while.
 */
enum catalog_result { CATALOG_OK, CATALOG_EXISTS, CATALOG_NOT_FOUND, CATALOG_FAILED };

enum catalog_result catalog_key_put(struct catalog *c, struct slice json, bool create,
    char *why, size_t why_size) MUST_CHECK;
	/* Inserts (create) or replaces; indexes follow in the same transaction. */
enum catalog_result catalog_key_get(struct catalog *c, struct slice id_or_slug, struct buf *json) MUST_CHECK;
	/* A slug is "workspace/slug", or one of workspace "default" alone. */
typedef bool catalog_change_fn(struct slice json, struct buf *changed, void *arg);
	/* Writes the new document; false: leave it as it is. */
enum catalog_result catalog_key_change(struct catalog *c, struct slice id_or_slug, catalog_change_fn *change,
    void *arg, char *why, size_t why_size) MUST_CHECK;
	/* Reads, changes and replaces in one transaction: of two tools at once
	 * neither undoes what the other did. */
typedef bool catalog_each_fn(struct slice json, void *arg);
void catalog_keys_each(struct catalog *c, catalog_each_fn *each, void *arg);
	/* In order of slug; stops when each() returns false. each() must not
	 * call the catalog. */

#endif
