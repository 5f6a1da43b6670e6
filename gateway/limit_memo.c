/*
 * gateway/limit_memo.c -- see limit_memo.h.
 *
 * A policy is known by its address, which is its own for as long as the settings
 * of its version live; older settings' entries age out.
 */
#include "gateway/limit_memo.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/recent.h"

struct node {
	struct recent_entry recent;
	struct limit_memo_entry entry;
};

struct limit_memo {
	struct recent nodes;
};

struct limit_memo *
limit_memo_new(uint32_t entries_max)
{
	struct limit_memo *m = calloc(1, sizeof(*m));

	CHECK(entries_max >= CHARGES_MAX);
	if (m && !recent_init(&m->nodes, entries_max, sizeof(struct node))) {
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
	recent_free(&m->nodes);
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
	return recent_tag(&m->nodes, (struct slice){ text, (size_t)(at - text) + group.n });
}

struct limit_memo_entry *
limit_memo_get(struct limit_memo *m, uint64_t settings_version, const struct limit_policy *lp, struct slice group)
{
	struct siphash tag = tag_of(m, settings_version, lp, group);
	struct recent_entry *e = recent_find(&m->nodes, tag), *forgotten;
	struct node *n = (struct node *)e;

	if (n) {
		recent_touch(&m->nodes, e);
	} else {
		n = (struct node *)recent_add(&m->nodes, tag, &forgotten);
		limit_policy_charge(lp, group, &n->entry.charge, n->entry.name);
	}
	return &n->entry;
}
