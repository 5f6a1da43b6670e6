/*
 * gateway/settings_models.c -- aliases of models, and the configs of workspaces:
 * what they name has to be there.
 */
#include <stdio.h>

#include "gateway/settings_fields.h"

#define PATH_BYTES 64		/* "models[255].model" */

static const struct setting_provider *
provider_named(const struct settings *s, struct slice slug)
{
	for (uint32_t i = 0; i < s->providers_count; i++)
		if (s->providers[i].slug && slice_eq(slice_of(s->providers[i].slug), slug))
			return &s->providers[i];
	return NULL;
}

static void
check_target(const struct settings *s, const struct setting_model *m, const char *path, struct problems *p)
{
	struct problem_guess guess;
	struct slice slug, bare;

	if (config_split_model(slice_of(m->model), &slug, &bare) && !provider_named(s, slug)) {
		guess = (struct problem_guess){ .wanted = slug };
		for (uint32_t i = 0; i < s->providers_count; i++)
			if (s->providers[i].slug)
				problem_guess_try(&guess, s->providers[i].slug);
		problem_add_missing(p, path, "provider", &guess);
	}
	if (m->model[0] == '@' && !slug.n)
		problem_add(p, path, "must be \"model\" or \"@slug/model\"");
	if (settings_model(s, bare))
		problem_add(p, path, "\"%s\" is an alias too: name the model that is meant", problem_name(bare).text);
}

static void
check_aliases(const struct settings *s, struct problems *p)
{
	char path[PATH_BYTES];

	for (uint32_t i = 0; i < s->models_count; i++) {
		const struct setting_model *m = &s->models[i];

		snprintf(path, sizeof(path), "models[%u].id", i);
		if (m->id && m->id[0] == '@')
			problem_add(p, path, "must not begin with \"@\": that names a provider");
		for (uint32_t j = 0; m->id && j < i; j++)
			if (s->models[j].id && strcmp(s->models[j].id, m->id) == 0)
				problem_add(p, path, "\"%s\" is the id of models[%u] too", problem_name(slice_of(m->id)).text, j);
		snprintf(path, sizeof(path), "models[%u].model", i);
		if (m->id && m->model)
			check_target(s, m, path, p);
	}
}

static bool
config_exists(const struct settings_draft *d, const char *slug, struct problem_guess *guess)
{
	for (uint32_t i = 0; i < d->configs_count; i++) {
		const char *have = d->configs[i].slug;

		if (!have || strcmp(have, slug) == 0)
			return true;	/* one that could not be read may be the one that is meant */
		problem_guess_try(guess, have);
	}
	return false;
}

void
settings_check_models(struct settings_draft *d, struct problems *p)
{
	char path[PATH_BYTES];

	check_aliases(&d->s, p);
	for (uint32_t i = 0; i < d->workspaces_count; i++) {
		const char *config = d->workspaces[i].workspace.config;
		struct problem_guess guess = { .wanted = slice_of(config ? config : "") };

		if (!config || config_exists(d, config, &guess))
			continue;
		snprintf(path, sizeof(path), "workspaces[%u].config", i);
		problem_add_missing(p, path, "config", &guess);
	}
}
