/*
 * store/cache_writer.h -- kept answers: the keeper's side.
 *
 * One process writes the cache, the one that has the store's lock
 * (writer_open()). What it holds is bounded in bytes; the oldest entries make room
 * for new ones, and what has expired goes as it is met. The sum is kept in the
 * environment itself, in the transactions that change it, so it is right after
 * any death.
 *
 * Losing all of it costs nothing, so commits do not wait for the disk, and what
 * cannot be opened, is of another format or was made before this boot of the
 * machine is thrown away and made anew. Workers find the new one by themselves
 * (store/cache.h). For the same reason somebody may delete the folder at any time.
 */
#ifndef WEIR_STORE_CACHE_WRITER_H
#define WEIR_STORE_CACHE_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

struct cache_writer;

/* The file may take half as much again, and this, before entries go for that reason:
 * LMDB copies pages before it changes them, and uses what is free in runs only. */
#define CACHE_SPARE_BYTES (UINT64_C(16) << 20)

struct cache_item {
	uint64_t key[2];
	struct slice entry;	/* cache_entry.h; SLICE_NONE: what is under the key goes */
};

struct cache_changes {
	uint32_t stored, removed;
	uint32_t refused;	/* no room for it, whatever goes */
	uint32_t malformed;
	uint32_t expired;	/* dropped, or not even taken */
	uint32_t evicted;	/* the oldest, for room */
	uint64_t bytes, entries;	/* that are there now */
};

struct cache_writer *cache_writer_new(const char *data_dir);
	/* Touches nothing yet. NULL: no memory. */
struct cache_writer *cache_writer_new_with(const char *data_dir, uint64_t spare_bytes);
	/* For tests of a full map: cache_writer_new() takes CACHE_SPARE_BYTES. */
void cache_writer_free(struct cache_writer *w);
int cache_writer_apply(struct cache_writer *w, uint64_t bytes_max, const struct cache_item *items, uint32_t n,
    int64_t now_wall_ns, struct cache_changes *out, char *why, size_t why_size) MUST_CHECK;
	/*
	 * The items in their order, all in one commit. Opens or makes what is not
	 * open. With n = 0 it is a look after things, for once a second: a bound
	 * that has become lower, a folder that is gone, what has expired. A
	 * lowered bound is reached in portions; until then nothing is stored.
	 * 0, or -1 and a sentence: nothing was changed, try again later.
	 */
int cache_writer_remove(struct cache_writer *w, char *why, size_t why_size) MUST_CHECK;
	/* The whole cache, from the disk. */

#endif
