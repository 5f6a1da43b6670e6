/*
 * gateway/recent.h -- what a worker remembers, by a hash, up to a bound.
 *
 * A hash table and a list by last use; when all entries are taken, the one that
 * was not used for longest goes. Entries are known by a SipHash of what they are
 * about, under a key of this process: what is compared are 128 bits that nobody
 * outside can predict, so nobody can make two things one, and the time that a
 * comparison takes says nothing of them.
 *
 * An entry is the caller's struct with a struct recent_entry first.
 */
#ifndef WEIR_GATEWAY_RECENT_H
#define WEIR_GATEWAY_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/siphash.h"

struct recent_entry {
	struct recent_entry *chain;		/* same bucket, or free */
	struct recent_entry *newer, *older;	/* by last use */
	struct siphash tag;
};

struct recent {
	struct recent_entry **buckets;
	uint32_t buckets_count;		/* a power of two */
	char *entries;
	size_t entry_bytes;
	uint32_t fresh, entries_max;	/* entries from `fresh` on were never used: their memory is not touched */
	struct recent_entry *free, *newest, *oldest;
	uint64_t secret[2];
};

bool recent_init(struct recent *r, uint32_t entries_max, size_t entry_bytes);
	/* false: out of memory, or no random bytes; recent_free() is due anyway. */
void recent_free(struct recent *r);
	/* Not what entries refer to: walk from `newest` to `older` before. */
struct recent_entry *recent_add(struct recent *r, struct siphash tag, struct recent_entry **forgotten);
	/* The newest entry from now on; all but its first member is undefined, or
	 * what it was before: *forgotten is the same entry if it was taken from its
	 * earlier owner, to let go of what it refers to, else NULL. */
void recent_drop(struct recent *r, struct recent_entry *e);
void recent_make_newest(struct recent *r, struct recent_entry *e);

static inline struct siphash
recent_tag(const struct recent *r, struct slice about)
{
	return siphash128(r->secret, about);
}

static inline struct recent_entry *
recent_find(const struct recent *r, struct siphash tag)
{
	struct recent_entry *e = r->buckets[tag.lo & (r->buckets_count - 1)];

	while (e && (e->tag.lo != tag.lo || e->tag.hi != tag.hi))
		e = e->chain;
	return e;
}

static inline void
recent_touch(struct recent *r, struct recent_entry *e)
{
	if (r->newest != e)
		recent_make_newest(r, e);
}

#endif
