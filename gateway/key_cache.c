/*
 * gateway/key_cache.c -- see key_cache.h.
 *
 * An entry is good for the generation at which it was looked up; in a later one
 * the document is read and compiled again.
 *
 * Entries are known by a SipHash of the secret (recent.h): a tenth of the cost of
 * the SHA-256 by which the store knows it, which is computed only when the store
 * is asked.
 */
#include "gateway/key_cache.h"

#include <stdlib.h>

#include "gateway/recent.h"
#include "shm/base/log.h"

#define SECRET_BYTES_MAX 256	/* longer is no secret of ours: not worth hashing */

struct entry {
	struct recent_entry recent;
	uint64_t generation;
	struct key *key;
};

struct key_cache {
	struct catalog *catalog;
	struct recent entries;
	struct buf document;
};

struct key_cache *
key_cache_new(struct catalog *c, uint32_t entries_max)
{
	struct key_cache *kc = calloc(1, sizeof(*kc));

	if (!kc)
		return NULL;
	kc->catalog = c;
	buf_init(&kc->document, KEY_DOCUMENT_BYTES_MAX);
	if (!recent_init(&kc->entries, entries_max, sizeof(struct entry))) {
		key_cache_free(kc);
		return NULL;
	}
	return kc;
}

void
key_cache_free(struct key_cache *kc)
{
	if (!kc)
		return;
	for (struct recent_entry *e = kc->entries.newest; e; e = e->older)
		key_cache_put(kc, ((struct entry *)e)->key);
	buf_free(&kc->document);
	recent_free(&kc->entries);
	free(kc);
}

static struct entry *
add(struct key_cache *kc, struct siphash tag, struct key *key)
{
	struct recent_entry *forgotten;
	struct entry *e = (struct entry *)recent_add(&kc->entries, tag, &forgotten);

	if (forgotten)
		key_cache_put(kc, e->key);
	e->key = key;
	return e;
}

/* What the catalog has now; NULL: no such key, or not one that we understand. */
static struct key *
look_up(struct key_cache *kc, struct slice secret)
{
	uint8_t hash[KEY_HASH_BYTES];
	char why[256];
	struct key *k;

	key_secret_hash(secret, hash);
	if (!catalog_key_by_hash(kc->catalog, hash, &kc->document))
		return NULL;
	k = key_compile(buf_slice(&kc->document), hash, why, sizeof(why));
	if (!k)
		log_error("a key is refused: %s", why);
	return k;
}

struct key *
key_cache_get(struct key_cache *kc, struct slice secret)
{
	uint64_t generation;
	struct siphash tag;
	struct entry *e;
	struct key *k;

	if (secret.n == 0 || secret.n > SECRET_BYTES_MAX)
		return NULL;
	tag = recent_tag(&kc->entries, secret);
	/* Read before the look-up: a commit in between makes the entry look
	 * older than it is, and it is only looked up once more. */
	generation = catalog_generation(kc->catalog);
	e = (struct entry *)recent_find(&kc->entries, tag);
	if (!e || e->generation != generation || generation == 0) {
		k = look_up(kc, secret);
		if (!k) {
			if (e) {
				key_cache_put(kc, e->key);
				recent_drop(&kc->entries, &e->recent);
			}
			return NULL;
		}
		if (e) {
			key_cache_put(kc, e->key);
			e->key = k;
		} else {
			e = add(kc, tag, k);
		}
		e->generation = generation;
	}
	recent_touch(&kc->entries, &e->recent);
	e->key->refs++;
	return e->key;
}

void
key_cache_put(struct key_cache *kc, struct key *k)
{
	(void)kc;
	CHECK(k->refs > 0);
	if (--k->refs == 0)
		key_free(k);
}
