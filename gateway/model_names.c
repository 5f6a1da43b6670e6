/* gateway/model_names.c -- see model_names.h. */
#include "gateway/model_names.h"

#include "gateway/request.h"

#define NEAREST_SHOWN 5

static bool
matches_any(char *const *globs, uint32_t count, struct slice model)
{
	for (uint32_t i = 0; i < count; i++)
		if (slice_glob(slice_of(globs[i]), model))
			return true;
	return count == 0;
}

bool
model_allowed(const struct request *r, struct slice model)
{
	const struct settings *s = r->plane->settings;
	const struct setting_workspace *w;

	if (!key_model_allowed(r->key, model))
		return false;
	w = s->workspaces_count > 0 ? settings_workspace(s, r->key->workspace) : NULL;
	return !w || matches_any(w->allowed_models, w->allowed_models_count, model);
}

bool
model_offered(const struct setting_provider *p, struct slice model)
{
	return matches_any(p->models, p->models_count, model);
}

const struct setting_provider *
model_provider(const struct request *r, struct slice model)
{
	const struct settings *s = r->plane->settings;

	for (uint32_t i = 0; i < s->providers_count; i++)
		if (s->providers[i].models_count > 0 && model_offered(&s->providers[i], model))
			return &s->providers[i];
	for (uint32_t i = 0; i < s->providers_count; i++)
		if (s->providers[i].models_count == 0 &&
		    price_find(s->prices, slice_of(s->providers[i].type), model, r->start_wall_ns))
			return &s->providers[i];
	return NULL;
}

/* ---- all of them ---- */

static bool
is_named(const struct model_name *names, size_t n, struct slice id)
{
	for (size_t i = 0; i < n; i++)
		if (slice_eq(names[i].id, id))
			return true;
	return false;
}

static const struct model_info *
info_of(const struct model_info *infos, size_t n, struct slice id)
{
	for (size_t i = 0; i < n; i++)
		if (slice_eq(infos[i].id, id))
			return &infos[i];
	return NULL;
}

/* Where this request goes with a model that does not say so itself; NULL: to
 * whoever has it, or a config decides. */
static const struct setting_provider *
only_provider(const struct request *r)
{
	const struct settings *s = r->plane->settings;
	const struct setting_workspace *w = s->workspaces_count > 0 ? settings_workspace(s, r->key->workspace) : NULL;
	const struct setting_provider *asked;
	struct slice slug, bare;

	if (r->at.target && r->at.target->provider.n)
		return r->at.provider;
	config_split_model(r->model_named, &slug, &bare);
	asked = route_provider_asked(r, slug, &slug);
	if (slug.n)
		return asked;
	if (!r->at.target && (r->known.config.n || r->key->config || (w && w->config)))
		return NULL;
	return r->plane->default_provider;
}

/* Is there a provider that has it? An alias may say which. */
static bool
is_had(const struct request *r, struct slice slug, struct slice model)
{
	const struct settings *s = r->plane->settings;
	const struct setting_provider *p = slug.n ? settings_provider(s, slug) : only_provider(r);

	if (p)
		return model_offered(p, model);
	for (uint32_t i = 0; i < s->providers_count; i++)
		if (model_offered(&s->providers[i], model))
			return true;
	return false;
}

size_t
model_names(const struct request *r, struct model_info *infos, struct model_name *out)
{
	const struct settings *s = r->plane->settings;
	size_t known = 0, n = 0;

	/* Providers of one type know the same models. */
	for (uint32_t i = 0; i < s->providers_count; i++) {
		struct slice type = slice_of(s->providers[i].type);
		bool again = false;

		for (uint32_t j = 0; j < i; j++)
			again = again || slice_eq(slice_of(s->providers[j].type), type);
		if (!again)
			known += price_book_models(s->prices, type, r->start_wall_ns, infos + known, MODELS_MAX - known);
	}
	for (uint32_t i = 0; i < s->models_count && n < MODELS_MAX; i++) {
		const struct setting_model *m = &s->models[i];
		struct slice slug, bare;

		config_split_model(slice_of(m->model), &slug, &bare);
		if (model_allowed(r, bare) && is_had(r, slug, bare))
			out[n++] = (struct model_name){ slice_of(m->id), info_of(infos, known, bare), m };
	}
	for (size_t i = 0; i < known && n < MODELS_MAX; i++)
		if (!is_named(out, n, infos[i].id) && model_allowed(r, infos[i].id) && is_had(r, SLICE_NONE, infos[i].id))
			out[n++] = (struct model_name){ infos[i].id, &infos[i], NULL };
	return n;
}

/* ---- the nearest ---- */

/* The best ones, by how many letters they differ in. */
static void
list_nearest(struct request *r, struct buf *out)
{
	struct model_info *infos = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*infos));
	struct model_name *names = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*names));
	size_t n = infos && names ? model_names(r, infos, names) : 0;

	for (int shown = 0; shown < NEAREST_SHOWN && n > 0; shown++) {
		size_t best = 0;
		uint32_t least = UINT32_MAX;

		for (size_t i = 0; i < n; i++) {
			uint32_t distance = problem_distance(r->at.model, names[i].id);

			if (distance < least) {
				least = distance;
				best = i;
			}
		}
		buf_printf(out, "%s%.*s", shown ? ", " : "", SLICE_FMT(names[best].id));
		memmove(names + best, names + best + 1, (--n - best) * sizeof(*names));
	}
}

void
model_refuse(struct request *r, const struct refusal_words *w, const char *what)
{
	struct buf nearest;

	buf_init(&nearest, 2048);
	list_nearest(r, &nearest);
	request_refuse(r, w, "model \"%.*s\" %s%s%.*s", SLICE_FMT(r->at.model), what, nearest.n ? "; you can use: " : "; there is none that you can use",
	    SLICE_FMT(buf_slice(&nearest)));
	buf_free(&nearest);
}
