/*
 * gateway/key_cache.c -- see key_cache.h.
 *
 * A hash table and a list by last use for eviction. An entry is good for the
 * generation at which it was looked up; in a later one the document is read
 * and compiled again.
 *
 * The table is by a SipHash of the secret under a key of this process: a
 * tenth of the cost of the SHA-256 by which the store knows the secret, which
 * is computed only when the store is asked. What is compared are 128 bits that
 * nobody outside can predict, so the time says nothing of the secrets.
 */
#include "gateway/key_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "shm/base/log.h"
#include "shm/base/siphash.h"

#define SECRET_BYTES_MAX 256	/* longer is no secret of ours: not worth hashing */

struct entry {
	struct entry *chain;		/* same bucket; free list */
	struct entry *newer, *older;	/* by last use */
	uint64_t generation;
	struct siphash tag;
	struct key *key;
};

struct key_cache {
	struct catalog *catalog;
	struct entry **buckets;
	uint32_t buckets_count;		/* a power of two */
	struct entry *entries, *free;
	uint32_t fresh, entries_max;	/* entries from `fresh` on were never used: their memory is not touched */
	uint64_t secret[2];		/* of the SipHash */
	struct entry *newest, *oldest;
	struct buf document;
};

struct key_cache *
key_cache_new(struct catalog *c, uint32_t entries_max)
{
	struct key_cache *kc = calloc(1, sizeof(*kc));

	CHECK(entries_max > 0);
	if (!kc)
		return NULL;
	kc->catalog = c;
	buf_init(&kc->document, KEY_DOCUMENT_BYTES_MAX);
	for (kc->buckets_count = 16; kc->buckets_count < entries_max; kc->buckets_count *= 2)
		;
	kc->buckets = calloc(kc->buckets_count, sizeof(*kc->buckets));
	kc->entries = calloc(entries_max, sizeof(*kc->entries));
	if (!kc->buckets || !kc->entries ||
	    getrandom(kc->secret, sizeof(kc->secret), 0) != (ssize_t)sizeof(kc->secret)) {
		key_cache_free(kc);
		return NULL;
	}
	kc->entries_max = entries_max;
	return kc;
}

void
key_cache_free(struct key_cache *kc)
{
	if (!kc)
		return;
	for (struct entry *e = kc->newest; e; e = e->older)
		key_cache_put(kc, e->key);
	buf_free(&kc->document);
	free(kc->buckets);
	free(kc->entries);
	free(kc);
}

static struct entry **
bucket(struct key_cache *kc, struct siphash tag)
{
	return &kc->buckets[tag.lo & (kc->buckets_count - 1)];
}

static struct entry *
find(struct key_cache *kc, struct siphash tag)
{
	struct entry *e = *bucket(kc, tag);

	while (e && (e->tag.lo != tag.lo || e->tag.hi != tag.hi))
		e = e->chain;
	return e;
}

static void
unlink_use(struct key_cache *kc, struct entry *e)
{
	*(e->newer ? &e->newer->older : &kc->newest) = e->older;
	*(e->older ? &e->older->newer : &kc->oldest) = e->newer;
}

static void
link_newest(struct key_cache *kc, struct entry *e)
{
	e->newer = NULL;
	e->older = kc->newest;
	*(kc->newest ? &kc->newest->newer : &kc->oldest) = e;
	kc->newest = e;
}

static void
drop(struct key_cache *kc, struct entry *e)
{
	struct entry **at = bucket(kc, e->tag);

	while (*at != e)
		at = &(*at)->chain;
	*at = e->chain;
	unlink_use(kc, e);
	key_cache_put(kc, e->key);
	e->chain = kc->free;
	kc->free = e;
}

static struct entry *
spare(struct key_cache *kc)
{
	struct entry *e;

	if (kc->fresh < kc->entries_max)
		return &kc->entries[kc->fresh++];
	if (!kc->free)
		drop(kc, kc->oldest);
	e = kc->free;
	kc->free = e->chain;
	return e;
}

static struct entry *
add(struct key_cache *kc, struct siphash tag, struct key *key)
{
	struct entry *e = spare(kc), **head = bucket(kc, tag);

	*e = (struct entry){ .chain = *head, .tag = tag, .key = key };
	*head = e;
	link_newest(kc, e);
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
	tag = siphash128(kc->secret, secret);
	/* Read before the look-up: a commit in between makes the entry look
	 * older than it is, and it is only looked up once more. */
	generation = catalog_generation(kc->catalog);
	e = find(kc, tag);
	if (!e || e->generation != generation || generation == 0) {
		k = look_up(kc, secret);
		if (!k) {
			if (e)
				drop(kc, e);
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
	if (kc->newest != e) {
		unlink_use(kc, e);
		link_newest(kc, e);
	}
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
