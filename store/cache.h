/*
 * store/cache.h -- kept answers: a worker's side.
 *
 * <data>/cache is one LMDB environment that the keeper alone writes
 * (store/cache_writer.h) and may throw away at any time. So nothing here is an
 * error to a request: what cannot be read is a miss. That it cannot is logged
 * once, until it can again.
 *
 * A hit is a few loads in LMDB's table of readers and pages of its tree, without
 * a lock and, apart from a look at the folder every CACHE_LOOK_NS, without a
 * system call. The entry is read where it lies. While one is held its pages are
 * not used again, so hold it for a turn of the loop and not until a slow client
 * has taken it.
 */
#ifndef WEIR_STORE_CACHE_H
#define WEIR_STORE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/clock.h"
#include "store/cache_entry.h"

struct cache;

#define CACHE_LOOK_NS (100 * NS_PER_MS)	/* a cache that was made anew is found after that */

struct cache *cache_open_read(const char *data_dir);
	/* After the fork, once a process (LMDB's rule). There need not be a cache
	 * yet, nor the folder. NULL: no memory. */
void cache_close(struct cache *c);
bool cache_secret(struct cache *c, uint64_t secret[2]);
	/* What keys are made under (policy/canon.h): random, and the same for all
	 * workers and restarts until the cache is made anew. So ask for each key.
	 * false: there is no cache, and nothing can be found. */
bool cache_get(struct cache *c, const uint64_t key[2], int64_t now_wall_ns, struct cache_entry *out);
	/* false: a miss; that includes what has expired. true: `out` points into
	 * the map until cache_done(), which must come before the next call. */
void cache_done(struct cache *c);

#endif
