/*
 * gateway/settings_limits.c -- limits of workspaces, providers and models, and
 * policies: from their JSON to charges.
 *
 * What one limit may say is policy/limit.c's, what a policy may say is
 * limit_policy.c's. Here is what only the whole file knows: slugs and ids that
 * are there twice, and conditions on what does not exist, which would leave a
 * limit that never applies.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"

#define PATH_BYTES 64		/* "providers[14]" */
#define MODEL_BYTES_MAX 256

static const char *const provider_types[] = { "anthropic" };
#define PROVIDER_TYPES_COUNT (sizeof(provider_types) / sizeof(*provider_types))

static void *
allocate(size_t count, size_t size)
{
	void *p = calloc(count + 1, size);

	CHECK(p);	/* settings are read at start and reload; there is no going on without */
	return p;
}

/* ---- limits of one owner ---- */

static void
take_limits(const struct draft_limits *raw, const struct limit_owner *owner, const char *path, struct limits *out,
    struct problems *p)
{
	struct limit limits[LIMITS_MAX];
	uint32_t count;

	if (!limits_parse(raw->rates, raw->usages, owner, path, limits, &count, p) || count == 0)
		return;
	out->limit = allocate(count, sizeof(*out->limit));
	out->count = count;
	limits_copy(out->limit, limits, count);
}

/* ---- workspaces ---- */

static int
workspace_order(const void *pa, const void *pb)
{
	const struct draft_workspace *const *a = pa, *const *b = pb;
	int order = strcmp((*a)->workspace.slug, (*b)->workspace.slug);

	return order ? order : (*a > *b) - (*a < *b);
}

static void
take_workspaces(struct settings_draft *d, struct problems *p)
{
	struct draft_workspace **order = allocate(d->workspaces_count, sizeof(*order));
	struct settings *s = &d->s;
	char path[PATH_BYTES];
	uint32_t n = 0;

	for (uint32_t i = 0; i < d->workspaces_count; i++)
		if (d->workspaces[i].workspace.slug)
			order[n++] = &d->workspaces[i];
	qsort(order, n, sizeof(*order), workspace_order);
	s->workspaces = allocate(n, sizeof(*s->workspaces));
	for (uint32_t i = 0; i < n; i++) {
		const char *name = order[i]->workspace.slug;
		const struct slice slug = slice_of(name);
		const struct limit_owner owner = { .kind = "workspace", .id = slug, .shown = slug };
		struct setting_workspace *w = &s->workspaces[s->workspaces_count++];

		if (i > 0 && strcmp(name, s->workspaces[i - 1].slug) == 0) {
			snprintf(path, sizeof(path), "workspaces[%u].slug", (unsigned)(order[i] - d->workspaces));
			problem_add(p, path, "\"%s\" is the slug of workspaces[%u] too", name,
			    (unsigned)(order[i - 1] - d->workspaces));
		}
		snprintf(path, sizeof(path), "workspaces[%u]", (unsigned)(order[i] - d->workspaces));
		*w = order[i]->workspace;
		order[i]->workspace = (struct setting_workspace){ .slug = NULL };
		take_limits(&order[i]->limits, &owner, path, &w->limits, p);
	}
	free(order);
}

/* ---- providers and their models ---- */

struct model_limits {
	char model[MODEL_BYTES_MAX + 1];
	struct draft_limits limits;
};

/* The members of one element of model_limits. */
static bool
read_model_limits(struct slice object, const char *path, struct model_limits *out, struct problems *p)
{
	struct slice name, value, model = SLICE_NONE;
	uint32_t before = p->count;
	struct json_iter it;

	*out = (struct model_limits){ .model = "" };
	if (!json_iter_object(&it, object)) {
		problem_add(p, path, "must be an object with a \"model\" and limits");
		return false;
	}
	while (json_next(&it, &name, &value)) {
		struct slice *into = json_string_eq(name, "model") ? &model : json_string_eq(name, "rate_limits") ?
		    &out->limits.rates : json_string_eq(name, "usage_limits") ? &out->limits.usages : NULL;

		if (!into)
			problem_add(p, path, "has no \"%s\": \"model\", \"rate_limits\" and \"usage_limits\" are expected",
			    problem_name((struct slice){ name.p + 1, name.n - 2 }).text);
		else if (into->p)
			problem_add(p, path, "has a member twice");
		else
			*into = value;
	}
	if (!model.p)
		problem_add(p, path, "needs \"model\": a name, in which \"*\" stands for anything");
	else if (model.p[0] != '"' || json_unescape(model, out->model, sizeof(out->model)) >= sizeof(out->model) ||
	    out->model[0] == '\0')
		problem_add(p, path, "\"model\" must be a string of 1 to %d bytes, not %s", MODEL_BYTES_MAX, problem_name(model).text);
	return p->count == before;
}

static void
take_model_limits(struct setting_provider *v, struct slice raw, const char *path, struct problems *p)
{
	char shown[CONFIG_SLUG_BYTES_MAX + MODEL_BYTES_MAX + 2], at[2 * PATH_BYTES];
	struct model_limits draft;
	struct slice none, value;
	struct json_iter it;

	if (!raw.p || !json_iter_array(&it, raw))
		return;
	v->model_limits = allocate(SETTINGS_MODEL_LIMITS_MAX, sizeof(*v->model_limits));
	for (uint32_t i = 0; json_next(&it, &none, &value); i++) {
		snprintf(at, sizeof(at), "%s.model_limits[%u]", path, i);
		if (i == SETTINGS_MODEL_LIMITS_MAX) {
			problem_add(p, at, "is one more than the %d that fit", SETTINGS_MODEL_LIMITS_MAX);
			return;
		}
		if (!read_model_limits(value, at, &draft, p))
			continue;
		for (uint32_t j = 0; j < v->model_limits_count; j++)
			if (strcmp(v->model_limits[j].model, draft.model) == 0)
				problem_add(p, at, "\"%s\" is listed twice: put its limits into one entry", problem_name(slice_of(draft.model)).text);
		snprintf(shown, sizeof(shown), "%s/%s", v->slug, draft.model);
		struct setting_model_limits *m = &v->model_limits[v->model_limits_count++];
		const struct limit_owner owner = { .kind = "model", .id = slice_of(shown), .shown = slice_of(shown) };

		m->model = strdup(draft.model);
		CHECK(m->model);
		take_limits(&draft.limits, &owner, at, &m->limits, p);
	}
}

static void
take_provider_limits(struct settings_draft *d, uint32_t i, struct problems *p)
{
	struct setting_provider *v = &d->s.providers[i];
	const struct slice slug = slice_of(v->slug ? v->slug : "");
	const struct limit_owner owner = { .kind = "provider", .id = slug, .shown = slug };
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "providers[%u]", i);
	take_limits(&d->providers[i].limits, &owner, path, &v->limits, p);
	take_model_limits(v, d->providers[i].limits.models, path, p);
}

/* ---- policies ---- */

struct existence {
	const struct settings_draft *d;
	struct problems *p;
};

static void
find_provider(const struct existence *e, const char *path, struct slice slug)
{
	struct problem_guess guess = { .wanted = slug };

	for (uint32_t i = 0; i < e->d->s.providers_count; i++) {
		const char *have = e->d->s.providers[i].slug;

		if (!have || slice_eq(slice_of(have), slug))
			return;		/* one that could not be read may be the one that is meant */
		problem_guess_try(&guess, have);
	}
	problem_add_missing(e->p, path, "provider", &guess);
}

static void
find_config(const struct existence *e, const char *path, struct slice slug)
{
	struct problem_guess guess = { .wanted = slug };

	for (uint32_t i = 0; i < e->d->configs_count; i++) {
		const char *have = e->d->configs[i].slug;

		if (!have || slice_eq(slice_of(have), slug))
			return;
		problem_guess_try(&guess, have);
	}
	problem_add_missing(e->p, path, "config", &guess);
}

static void
find_type(const struct existence *e, const char *path, struct slice type)
{
	struct problem_guess guess = { .wanted = type };

	for (size_t i = 0; i < PROVIDER_TYPES_COUNT; i++) {
		if (slice_glob(type, slice_of(provider_types[i])))
			return;
		problem_guess_try(&guess, provider_types[i]);
	}
	problem_add_missing(e->p, path, "type of provider", &guess);
}

/* Keys, users and metadata are not the file's: anything may be. */
static void
check_value(const char *path, const char *key, struct slice value, void *arg)
{
	const struct existence *e = arg;
	const char *slash = memchr(value.p, '/', value.n);

	if (strcmp(key, "virtual_key") == 0)
		find_provider(e, path, value);
	else if (strcmp(key, "config") == 0)
		find_config(e, path, value);
	else if (strcmp(key, "provider") == 0)
		find_type(e, path, value);
	else if (strcmp(key, "model") == 0 && value.p[0] == '@' && slash && !slice_starts(value, SLICE("@cf/")) &&
	    !slice_starts(value, SLICE("@hf/")))
		find_type(e, path, (struct slice){ value.p + 1, (size_t)(slash - value.p) - 1 });
}

static void
take_policy(struct settings_draft *d, struct slice value, uint32_t place, const char **ids, struct problems *p)
{
	struct existence e = { d, p };
	struct settings *s = &d->s;
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "policies[%u]", place);
	struct limit_policy *lp = limit_policy_parse(value, path, p);
	if (!lp)
		return;
	limit_policy_values(lp, path, check_value, &e);
	ids[place] = limit_policy_id(lp);
	for (uint32_t i = 0; i < place; i++)
		if (ids[i] && strcmp(ids[i], ids[place]) == 0) {
			snprintf(path, sizeof(path), "policies[%u].id", place);
			problem_add(p, path, "\"%s\" is the id of policies[%u] too", ids[place], i);
			break;
		}
	s->policies[s->policies_count++] = lp;
}

/* Archived ones were checked as the others, and go. */
static void
drop_archived(struct settings *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->policies_count; i++)
		if (limit_policy_active(s->policies[i]))
			s->policies[n++] = s->policies[i];
		else
			free(s->policies[i]);
	s->policies_count = n;
}

static void
take_policies(struct settings_draft *d, struct problems *p)
{
	const char *ids[POLICIES_MAX] = { NULL };
	struct slice none, value;
	struct json_iter it;

	if (!d->policies.p || !json_iter_array(&it, d->policies))
		return;
	d->s.policies = allocate(POLICIES_MAX, sizeof(*d->s.policies));
	for (uint32_t i = 0; json_next(&it, &none, &value); i++) {
		if (i == POLICIES_MAX) {
			problem_add(p, "policies", "more than %d entries", POLICIES_MAX);
			break;
		}
		take_policy(d, value, i, ids, p);
	}
	drop_archived(&d->s);
}

void
settings_check_limits(struct settings_draft *d, struct problems *p)
{
	for (uint32_t i = 0; i < d->s.providers_count; i++)
		take_provider_limits(d, i, p);
	take_workspaces(d, p);
	take_policies(d, p);
}
