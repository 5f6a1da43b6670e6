/*
 * gateway/limits.c -- see limits.h.
 */
#include "gateway/limits.h"

struct collector {
	const struct limit_sources *from;
	const struct price_bound *bound;
	struct limit_set *set;
};

/* A count of tokens costs nothing and is never in the way of a budget. */
static bool
holds_for_free(const struct charge *c)
{
	return c->kind == METER_CONCURRENCY || (c->kind == METER_BUCKET && c->unit == UNIT_REQUESTS);
}

static bool
add(struct collector *k, const struct charge *c, const struct limit *limit, uint32_t *row, enum limit_source source)
{
	struct limit_set *set = k->set;

	if (k->from->free && !holds_for_free(c))
		return true;
	if (set->count == CHARGES_MAX)
		return false;
	struct charge *to = &set->charge[set->count];
	*to = *c;
	limit_charge_fill(to, 1, k->bound->input_tokens, k->bound->input_nusd, k->bound->output_nusd_milli);
	set->origin[set->count++] = (struct limit_origin){ .limit = limit, .row = row, .source = source };
	return true;
}

static bool
add_all(struct collector *k, const struct limits *limits, enum limit_source source)
{
	for (uint32_t i = 0; i < limits->count; i++) {
		struct limit *l = &limits->limit[i];

		if (!add(k, &l->charge, l, &l->charge.row, source))
			return false;
	}
	return true;
}

static bool
add_models(struct collector *k)
{
	const struct setting_provider *p = k->from->provider;

	for (uint32_t i = 0; i < p->model_limits_count; i++) {
		const struct setting_model_limits *m = &p->model_limits[i];

		if (slice_glob(slice_of(m->model), k->from->model) && !add_all(k, &m->limits, LIMIT_OF_MODEL))
			return false;
	}
	return true;
}

static bool
add_policies(struct collector *k)
{
	const struct limit_sources *from = k->from;
	char text[POLICY_GROUP_BYTES_MAX];

	for (uint32_t i = 0; i < from->settings->policies_count; i++) {
		const struct limit_policy *lp = from->settings->policies[i];

		if (!limit_policy_matches(lp, from->subject))
			continue;
		struct slice group = limit_policy_group(lp, from->subject, text);
		if (!group.p)
			continue;
		struct limit_memo_entry *e = limit_memo_get(from->memo, from->settings->version, lp, group);
		if (!add(k, &e->charge, limit_policy_limit(lp), &e->charge.row, LIMIT_OF_POLICY))
			return false;
	}
	return true;
}

bool
limits_collect(const struct limit_sources *from, const struct price_bound *bound, struct limit_set *out)
{
	struct collector k = { .from = from, .bound = bound, .set = out };
	const struct setting_workspace *w = NULL;

	out->count = 0;
	if (from->settings->workspaces_count > 0)
		w = settings_workspace(from->settings, from->key->workspace);
	if (!add_all(&k, &from->key->limits, LIMIT_OF_KEY) || (w && !add_all(&k, &w->limits, LIMIT_OF_WORKSPACE)))
		return false;
	return from->own_only || (add_all(&k, &from->provider->limits, LIMIT_OF_PROVIDER) && add_models(&k) && add_policies(&k));
}

void
limits_remember(const struct limit_set *set)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (!set->charge[i].overflowed)		/* that row is the shared meter's */
			*set->origin[i].row = set->charge[i].row;
}

const struct limit *
limits_of_cost(const struct limit_set *set)
{
	for (uint32_t i = 0; i < set->count; i++)
		if (limit_charge_is_cost(&set->charge[i]))
			return set->origin[i].limit;
	return NULL;
}

void
limits_prefetch(const struct arena *a, const struct key *key)
{
	for (uint32_t i = 0; i < key->limits.count; i++)
		ledger_prefetch(a, &key->limits.limit[i].charge, 1);
}
