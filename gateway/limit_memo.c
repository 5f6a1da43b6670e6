/*
 * gateway/limit_memo.c -- see limit_memo.h.
 *
 * A hash table and a list by last use. What is compared are 128 bits of a
 * SipHash that nobody outside can predict, so clients cannot make two of their
 * groups one. A policy is known by its address, which is its own for as long as
 * the settings of its version live; older settings' entries age out.
 */
#include "gateway/limit_memo.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "shm/base/siphash.h"

struct node {
	struct node *chain;		/* same bucket */
	struct node *newer, *older;	/* by last use */
	struct siphash tag;
	struct limit_memo_entry entry;
};

struct limit_memo {
	struct node **buckets;
	uint32_t buckets_count;		/* a power of two */
	struct node *nodes;
	uint32_t fresh, entries_max;	/* nodes from `fresh` on were never used: their memory is not touched */
	struct node *newest, *oldest;
	uint64_t secret[2];		/* of the SipHash */
};

struct limit_memo *
limit_memo_new(uint32_t entries_max)
{
	struct limit_memo *m = calloc(1, sizeof(*m));

	CHECK(entries_max >= CHARGES_MAX);
	if (!m)
		return NULL;
	m->entries_max = entries_max;
	for (m->buckets_count = 16; m->buckets_count < entries_max; m->buckets_count *= 2)
		;
	m->buckets = calloc(m->buckets_count, sizeof(struct node *));
	m->nodes = calloc(entries_max, sizeof(*m->nodes));
	if (!m->buckets || !m->nodes || getrandom(m->secret, sizeof(m->secret), 0) != (ssize_t)sizeof(m->secret)) {
		limit_memo_free(m);
		return NULL;
	}
	return m;
}

void
limit_memo_free(struct limit_memo *m)
{
	if (!m)
		return;
	free(m->buckets);
	free(m->nodes);
	free(m);
}

static struct siphash
tag_of(const struct limit_memo *m, uint64_t settings_version, const struct limit_policy *lp, struct slice group)
{
	char text[sizeof(settings_version) + sizeof(uintptr_t) + POLICY_GROUP_BYTES_MAX], *at = text;
	uintptr_t policy = (uintptr_t)lp;

	CHECK(group.n <= POLICY_GROUP_BYTES_MAX);
	memcpy(at, &settings_version, sizeof(settings_version));
	at += sizeof(settings_version);
	memcpy(at, &policy, sizeof(policy));
	at += sizeof(policy);
	memcpy(at, group.p, group.n);
	return siphash128(m->secret, (struct slice){ text, (size_t)(at - text) + group.n });
}

static struct node **
bucket(const struct limit_memo *m, struct siphash tag)
{
	return &m->buckets[tag.lo & (m->buckets_count - 1)];
}

static void
unlink_use(struct limit_memo *m, struct node *n)
{
	*(n->newer ? &n->newer->older : &m->newest) = n->older;
	*(n->older ? &n->older->newer : &m->oldest) = n->newer;
}

static void
link_newest(struct limit_memo *m, struct node *n)
{
	n->newer = NULL;
	n->older = m->newest;
	*(m->newest ? &m->newest->newer : &m->oldest) = n;
	m->newest = n;
}

/* One that is in no list: a fresh one, or the one that was not used for longest. */
static struct node *
spare(struct limit_memo *m)
{
	if (m->fresh < m->entries_max)
		return &m->nodes[m->fresh++];

	struct node *n = m->oldest, **at = bucket(m, n->tag);
	while (*at != n)
		at = &(*at)->chain;
	*at = n->chain;
	unlink_use(m, n);
	return n;
}

struct limit_memo_entry *
limit_memo_get(struct limit_memo *m, uint64_t settings_version, const struct limit_policy *lp, struct slice group)
{
	struct siphash tag = tag_of(m, settings_version, lp, group);
	struct node *n = *bucket(m, tag);

	while (n && (n->tag.lo != tag.lo || n->tag.hi != tag.hi))
		n = n->chain;
	if (!n) {
		struct node **head = bucket(m, tag);

		n = spare(m);
		n->tag = tag;
		n->chain = *head;
		*head = n;
		limit_policy_charge(lp, group, &n->entry.charge, n->entry.name);
		link_newest(m, n);
	} else if (m->newest != n) {
		unlink_use(m, n);
		link_newest(m, n);
	}
	return &n->entry;
}
