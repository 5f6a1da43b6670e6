/*
 * gateway/limit_book.c -- see limit_book.h.
 *
 * The meter of a policy's group has an id that is a hash of the group's value.
 * It cannot be listed beforehand; but a meter's name ends in that value, and
 * the policy makes the same id of it again, or it is another's.
 */
#include "gateway/limit_book.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/key.h"

static void
add_charge(struct limit_book *b, const struct charge *c, const char *name)
{
	if (b->count == b->room) {
		size_t room = b->room ? b->room * 2 : 256;
		struct limit_entry *grown = reallocarray(b->entry, room, sizeof(*grown));

		if (!grown) {
			b->no_memory = true;
			return;
		}
		b->entry = grown;
		b->room = room;
	}
	b->entry[b->count].charge = *c;
	snprintf(b->entry[b->count++].name, METER_NAME_BYTES, "%s", name);
}

void
limit_book_add(struct limit_book *b, const struct limits *limits)
{
	for (uint32_t i = 0; i < limits->count; i++)
		add_charge(b, &limits->limit[i].charge, limits->limit[i].name);
}

static bool
add_key(struct slice json, void *arg)
{
	struct limit_book *b = arg;
	char why[256];
	struct key *k = key_compile(json, NULL, why, sizeof(why));

	if (k)
		limit_book_add(b, &k->limits);
	key_free(k);
	return !b->no_memory;
}

void
limit_book_add_keys(struct limit_book *b, struct catalog *c)
{
	catalog_keys_each(c, add_key, b);
}

void
limit_book_add_settings(struct limit_book *b, const struct settings *s)
{
	b->settings = s;
	for (uint32_t i = 0; i < s->workspaces_count; i++)
		limit_book_add(b, &s->workspaces[i].limits);
	for (uint32_t i = 0; i < s->providers_count; i++) {
		const struct setting_provider *p = &s->providers[i];

		limit_book_add(b, &p->limits);
		for (uint32_t m = 0; m < p->model_limits_count; m++)
			limit_book_add(b, &p->model_limits[m].limits);
	}
	for (uint32_t i = 0; i < s->policies_count; i++) {
		const struct limit *limit = limit_policy_limit(s->policies[i]);

		add_charge(b, &limit->charge, limit->name);
	}
}

void
limit_book_read(struct limit_book *b, const char *data_dir, const struct settings *s)
{
	char why[256];
	struct catalog *catalog = catalog_open(data_dir, false, why, sizeof(why));

	if (catalog)
		limit_book_add_keys(b, catalog);
	catalog_close(catalog);
	if (s)
		limit_book_add_settings(b, s);
	limit_book_sort(b);
}

static int
by_id(const void *pa, const void *pb)
{
	const struct limit_entry *a = pa, *b = pb;

	if (a->charge.id.hi != b->charge.id.hi)
		return a->charge.id.hi < b->charge.id.hi ? -1 : 1;
	return a->charge.id.lo < b->charge.id.lo ? -1 : a->charge.id.lo > b->charge.id.lo;
}

void
limit_book_sort(struct limit_book *b)
{
	if (b->count > 1)
		qsort(b->entry, b->count, sizeof(*b->entry), by_id);
}

/* "policy ID VALUE": the charge of that value, if it makes the same id; or that
 * of all values beyond groups_max. */
static bool
find_group(const struct settings *s, struct meter_id id, const char *name, struct charge *out, char out_name[METER_NAME_BYTES])
{
	static const char word[] = "policy ";

	if (!name || strncmp(name, word, sizeof(word) - 1) != 0)
		return false;
	name += sizeof(word) - 1;
	for (uint32_t i = 0; i < s->policies_count; i++) {
		const char *policy = limit_policy_id(s->policies[i]);
		size_t n = strlen(policy);

		if (strncmp(name, policy, n) != 0 || name[n] != ' ')
			continue;
		limit_policy_charge(s->policies[i], slice_of(name + n + 1), out, out_name);
		if (out->id.hi == id.hi && out->id.lo == id.lo)
			return true;
		if (!out->group || out->group->overflow.hi != id.hi || out->group->overflow.lo != id.lo)
			continue;
		out->id = id;
		snprintf(out_name, METER_NAME_BYTES, "%s", out->group->overflow_name);
		return true;
	}
	return false;
}

bool
limit_book_find(const struct limit_book *b, struct meter_id id, const char *name, struct charge *out, char out_name[METER_NAME_BYTES])
{
	struct limit_entry wanted = { .charge.id = id };
	const struct limit_entry *found = NULL;

	if (b->count > 0)
		found = bsearch(&wanted, b->entry, b->count, sizeof(*b->entry), by_id);
	if (!found)
		return b->settings && find_group(b->settings, id, name, out, out_name);
	*out = found->charge;
	snprintf(out_name, METER_NAME_BYTES, "%s", found->name);
	out->name = out_name;
	return true;
}

void
limit_book_free(struct limit_book *b)
{
	free(b->entry);
	*b = (struct limit_book){ .entry = NULL };
}
