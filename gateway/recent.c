/* gateway/recent.c -- see recent.h. */
#include "gateway/recent.h"

#include <stdlib.h>
#include <sys/random.h>

#include "shm/base/check.h"

bool
recent_init(struct recent *r, uint32_t entries_max, size_t entry_bytes)
{
	CHECK(entries_max > 0 && entry_bytes >= sizeof(struct recent_entry));
	*r = (struct recent){ .entries_max = entries_max, .entry_bytes = entry_bytes };
	for (r->buckets_count = 16; r->buckets_count < entries_max; r->buckets_count *= 2)
		;
	r->buckets = calloc(r->buckets_count, sizeof(struct recent_entry *));
	r->entries = calloc(entries_max, entry_bytes);
	return r->buckets && r->entries && getrandom(r->secret, sizeof(r->secret), 0) == (ssize_t)sizeof(r->secret);
}

void
recent_free(struct recent *r)
{
	free(r->buckets);
	free(r->entries);
	*r = (struct recent){ .buckets = NULL };
}

static void
unlink_use(struct recent *r, struct recent_entry *e)
{
	*(e->newer ? &e->newer->older : &r->newest) = e->older;
	*(e->older ? &e->older->newer : &r->oldest) = e->newer;
}

static void
link_newest(struct recent *r, struct recent_entry *e)
{
	e->newer = NULL;
	e->older = r->newest;
	*(r->newest ? &r->newest->newer : &r->oldest) = e;
	r->newest = e;
}

void
recent_make_newest(struct recent *r, struct recent_entry *e)
{
	unlink_use(r, e);
	link_newest(r, e);
}

static struct recent_entry **
bucket(const struct recent *r, struct siphash tag)
{
	return &r->buckets[tag.lo & (r->buckets_count - 1)];
}

static void
take_out(struct recent *r, struct recent_entry *e)
{
	struct recent_entry **at = bucket(r, e->tag);

	while (*at != e)
		at = &(*at)->chain;
	*at = e->chain;
	unlink_use(r, e);
}

void
recent_drop(struct recent *r, struct recent_entry *e)
{
	take_out(r, e);
	e->chain = r->free;
	r->free = e;
}

struct recent_entry *
recent_add(struct recent *r, struct siphash tag, struct recent_entry **forgotten)
{
	struct recent_entry **head = bucket(r, tag), *e;

	*forgotten = NULL;
	if (r->fresh < r->entries_max) {
		e = (struct recent_entry *)(void *)(r->entries + r->fresh++ * r->entry_bytes);
	} else if (r->free) {
		e = r->free;
		r->free = e->chain;
	} else {
		*forgotten = e = r->oldest;
		take_out(r, e);
	}
	e->tag = tag;
	e->chain = *head;
	*head = e;
	link_newest(r, e);
	return e;
}
