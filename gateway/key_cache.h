/*
 * gateway/key_cache.h -- a worker's compiled keys, by the hash of their secret.
 *
 * The catalog is asked on a miss and whenever its generation has moved: a key
 * that was revoked by a committed transaction is refused from the next request
 * on. Entries are counted, so a request keeps the key that it began with.
 */
#ifndef WEIR_GATEWAY_KEY_CACHE_H
#define WEIR_GATEWAY_KEY_CACHE_H

#include <stdint.h>

#include "policy/key.h"
#include "store/catalog.h"

struct key_cache;

struct key_cache *key_cache_new(struct catalog *c, uint32_t entries_max);
void key_cache_free(struct key_cache *kc);
struct key *key_cache_get(struct key_cache *kc, struct slice secret);
	/* NULL: no such key. Give it back with key_cache_put(). Keys that are
	 * disabled or expired are returned too: the caller says which it is.
	 * Unknown secrets are remembered for nobody: a flood of them costs a
	 * hash and a look-up each, no memory. */
void key_cache_put(struct key_cache *kc, struct key *k);

#endif
