/*
 * policy/config.c -- a config object becomes what a request needs of it.
 *
 * config_fields.c has found every mistake before anything is built here, so
 * building takes the values as they are. This version follows one chain: the
 * object, its only target, the target of that, down to the last; overrides and
 * the time-out are inherited and the deeper one wins, a provider belongs to
 * the last alone.
 */
#include "policy/config.h"

#include <stdlib.h>

#include "policy/config_fields.h"
#include "policy/json.h"

bool
config_slug_valid(struct slice slug)
{
	if (slug.n == 0 || slug.n > CONFIG_SLUG_BYTES_MAX)
		return false;
	for (size_t i = 0; i < slug.n; i++) {
		char c = slug.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

bool
config_split_model(struct slice model, struct slice *provider_slug, struct slice *bare)
{
	*provider_slug = SLICE_NONE;
	*bare = model;
	if (model.n == 0 || model.p[0] != '@' || slice_starts(model, SLICE("@cf/")) ||
	    slice_starts(model, SLICE("@hf/")))
		return false;
	const char *slash = memchr(model.p, '/', model.n);
	if (!slash)
		return false;

	struct slice slug = { model.p + 1, (size_t)(slash - model.p) - 1 };
	struct slice rest = { slash + 1, model.n - slug.n - 2 };
	if (!config_slug_valid(slug) || rest.n == 0)
		return false;
	*provider_slug = slug;
	*bare = rest;
	return true;
}

static char *
copy(struct slice s)
{
	char *text = malloc(s.n + 1);

	CHECK(text);
	if (s.n > 0)
		memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	return text;
}

static char *
copy_unescaped(struct slice raw)
{
	char *text = malloc(raw.n + 1);		/* an escape is never shorter than its bytes */

	CHECK(text);
	size_t n = json_unescape(raw, text, raw.n + 1);
	CHECK(n <= raw.n);
	text[n] = '\0';
	return text;
}

static void
param_set(struct config *c, char *name, struct slice raw)
{
	for (uint32_t i = 0; i < c->override_params_count; i++) {
		struct config_param *param = &c->override_params[i];

		if (strcmp(param->name, name) != 0)
			continue;
		free(name);
		free(param->raw);
		param->raw = copy(raw);
		return;
	}
	c->override_params[c->override_params_count++] = (struct config_param){ name, copy(raw) };
}

/* The overrides of one level. `model` is kept whole: its prefix matters later. */
static void
params_take(struct config *c, struct slice object, char **model)
{
	struct json_iter it;
	struct slice name, value;

	if (!json_iter_object(&it, object))
		return;
	while (json_next(&it, &name, &value)) {
		if (json_string_eq(name, "model")) {
			free(*model);
			*model = copy_unescaped(value);
		} else {
			param_set(c, copy_unescaped(name), value);
		}
	}
}

static uint32_t
params_count(struct slice object)
{
	struct json_iter it;
	struct slice name, value;
	uint32_t n = 0;

	if (json_iter_object(&it, object))
		while (json_next(&it, &name, &value))
			n++;
	return n;
}

/* Provider and model of the last level: provider, else virtual_key, else "@slug/". */
static void
provider_take(struct config *c, struct slice level, char *model)
{
	struct slice value, slug = SLICE_NONE, bare = slice_of(model);

	if (model)
		config_split_model(slice_of(model), &slug, &bare);
	if (config_fields_get(level, "provider", &value) || config_fields_get(level, "virtual_key", &value)) {
		c->provider = copy_unescaped(value);
		if (c->provider[0] == '@')
			memmove(c->provider, c->provider + 1, strlen(c->provider));
	} else if (slug.p) {
		c->provider = copy(slug);
	}
	if (model)
		c->model = copy(bare);
	free(model);
}

static bool
level_next(struct slice level, struct slice *target)
{
	struct json_iter it;
	struct slice targets, name;

	return config_fields_get(level, "targets", &targets) && json_iter_array(&it, targets) &&
	    json_next(&it, &name, target);
}

struct config *
config_parse(struct slice json, const char *path, struct problems *p)
{
	struct slice level = json, value;
	char *model = NULL;

	if (!config_fields_check(json, path, p))
		return NULL;
	struct config *c = calloc(1, sizeof(*c));
	CHECK(c);
	for (;;) {	/* config_fields_check() has bounded the levels */
		if (config_fields_get(level, "override_params", &value)) {
			size_t room = c->override_params_count + params_count(value);

			c->override_params = realloc(c->override_params, (room + 1) * sizeof(*c->override_params));
			CHECK(c->override_params);
			params_take(c, value, &model);
		}
		if (config_fields_get(level, "request_timeout", &value))
			CHECK(json_to_i64(value, &c->request_timeout_ms));
		if (!level_next(level, &value))
			break;
		level = value;
	}
	provider_take(c, level, model);
	if (c->override_params_count > CONFIG_PARAMS_MAX) {
		problem_add(p, path, "more than %d override_params over all levels", CONFIG_PARAMS_MAX);
		config_free(c);
		return NULL;
	}
	return c;
}

struct config *
config_parse_text(struct slice json, struct problems *p)
{
	struct json_error why;

	if (json.n > CONFIG_BYTES_MAX) {
		problem_add(p, "", "a config has at most %d bytes", CONFIG_BYTES_MAX);
		return NULL;
	}
	if (!json_check(json, &why)) {
		problem_add(p, "", "not valid JSON at byte %zu: %s", why.offset + 1, why.what);
		return NULL;
	}
	while (json.n > 0 && strchr(" \t\r\n", json.p[0]))
		json = (struct slice){ json.p + 1, json.n - 1 };
	return config_parse(json, "", p);
}

void
config_free(struct config *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->override_params_count; i++) {
		free(c->override_params[i].name);
		free(c->override_params[i].raw);
	}
	free(c->override_params);
	free(c->slug);
	free(c->provider);
	free(c->model);
	free(c);
}
