/*
 * store/cache_layout.h -- the bytes of keys and values in cache/.
 *
 * Inside store/ only. `entries`: key of 128 bits -> sequence, then the entry as
 * cache_entry.h has it. `order`: sequence (big-endian) -> whose it is, so that the
 * oldest comes first. `about`: one row, CACHE_ABOUT.
 */
#ifndef WEIR_STORE_CACHE_LAYOUT_H
#define WEIR_STORE_CACHE_LAYOUT_H

#include <stdint.h>

#include "store/environment.h"

#define CACHE_FORMAT 1		/* raise when these bytes or those of an entry change */

enum { CACHE_ENTRIES, CACHE_ORDER, CACHE_ABOUT_TABLE, CACHE_TABLES };
#define CACHE_TABLE_NAMES { "entries", "order", "about" }
#define CACHE_TABLE_FLAGS { 0, 0, 0 }

#define CACHE_ABOUT "about"

struct cache_about {
	uint64_t format;
	uint64_t secret[2];	/* of this environment's keys */
	uint64_t bytes, entries;	/* what is in it: sums over `order` */
	uint64_t next_sequence;
};
_Static_assert(sizeof(struct cache_about) == 48, "raise CACHE_FORMAT");

/* A value of `entries` begins with its sequence. */
#define CACHE_SEQUENCE_BYTES 8

/* A value of `order`. */
struct cache_order {
	uint64_t key[2];
	int64_t expires_wall_ns;
	uint64_t bytes;		/* cache_room() of the entry */
};
_Static_assert(sizeof(struct cache_order) == 32, "raise CACHE_FORMAT");

/*
 * What an entry takes on the disk. A value that does not fit twice into a page
 * gets whole pages of its own; the others share pages, of which half may be
 * empty. The last part is for its rows in the indexes.
 */
#define CACHE_ROW_BYTES 128
#define CACHE_PAGE_HEAD_BYTES 16

static inline uint64_t
cache_room(uint64_t entry_bytes, uint64_t page_bytes)
{
	uint64_t value = CACHE_SEQUENCE_BYTES + entry_bytes;

	if (2 * value <= page_bytes)
		return 2 * value + CACHE_ROW_BYTES;
	return (CACHE_PAGE_HEAD_BYTES + value + page_bytes - 1) / page_bytes * page_bytes + CACHE_ROW_BYTES;
}

#endif
