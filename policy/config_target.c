/*
 * policy/config_target.c -- what a level of a config says about its targets.
 *
 * A level begins with what its parent passes on and puts its own on top: params
 * member by member, everything else as a whole. Lists that a level leaves
 * alone are its parent's, not copies. At a leaf comes what is a target's own:
 * the provider and its key.
 */
#include <stdio.h>

#include "policy/config_parts.h"
#include "policy/decimal.h"
#include "policy/params.h"

#define BREAKER_REQUESTS 5	/* minimum_requests */
_Static_assert(CONFIG_DROPS_MAX <= PARAMS_DROPS_MAX, "params_apply() takes them all");

/* ---- parameters of the body ---- */

struct param_list {
	struct config_param *list;
	uint32_t count;
};

static char *
raw_copy(struct build *b, struct slice raw)
{
	char *copy = build_alloc(b, raw.n + 1);

	memcpy(copy, raw.p, raw.n);
	return copy;
}

static void
param_set(struct build *b, struct param_list *params, struct slice raw_name, struct slice value)
{
	uint32_t i = 0;

	while (i < params->count && !json_string_eq(raw_name, params->list[i].name))
		i++;
	if (i == params->count) {
		char *name = build_alloc(b, raw_name.n);

		CHECK(json_unescape(raw_name, name, raw_name.n) < raw_name.n);
		params->list[params->count++].name = name;
	}
	params->list[i].raw = raw_copy(b, value);
}

/* The members of `object` on top of those that are passed on; `model` is kept apart, its prefix matters later. */
static void
params_take(struct build *b, uint32_t node, const char *field, struct slice object, const struct config_param **list,
    uint32_t *count, struct slice *model)
{
	struct param_list params = { .count = *count };
	struct json_iter it;
	struct slice name, value;

	CHECK(json_iter_object(&it, object));
	params.list = build_alloc(b, 2 * CONFIG_PARAMS_MAX * sizeof(*params.list));
	if (*count > 0)
		memcpy(params.list, *list, *count * sizeof(*params.list));
	for (uint32_t i = 0; i < CONFIG_PARAMS_MAX && json_next(&it, &name, &value); i++) {	/* more: that has been said */
		if (!json_string_eq(name, "model"))
			param_set(b, &params, name, value);
		else if (value.p[0] == '"')
			*model = build_text(b, value);
	}
	if (params.count > CONFIG_PARAMS_MAX) {
		build_problem(b, node, field, "more than %d members over all levels", CONFIG_PARAMS_MAX);
		params.count = CONFIG_PARAMS_MAX;
	}
	*list = params.list;
	*count = params.count;
}

static void
drops_take(struct build *b, uint32_t node, struct slice array, struct config_target *t)
{
	struct params_path **paths = build_alloc(b, CONFIG_DROPS_MAX * sizeof(*paths));
	struct slice none, value;
	struct json_iter it;
	char field[32];

	CHECK(json_iter_array(&it, array));
	t->drop_params = paths;
	t->drop_params_count = 0;
	for (uint32_t i = 0; json_next(&it, &none, &value); i++) {
		snprintf(field, sizeof(field), "drop_params[%u]", i);
		struct slice text = value.p[0] == '"' ? build_text(b, value) : SLICE_NONE;
		if (slice_eq(text, SLICE("model")))
			build_problem(b, node, field, "the model cannot be dropped: a request names one");
		struct params_path *path = text.p ? params_path_compile(text, build_path(b, node, field), b->problems) : NULL;

		if (!path)
			continue;
		build_own(b, (struct config_owned){ .path = path });
		paths[t->drop_params_count++] = path;
	}
}

/* ---- objects ---- */

static uint32_t
number_of(struct slice raw, uint32_t fallback)
{
	int64_t n;

	return raw.p && json_to_i64(raw, &n) ? (uint32_t)n : fallback;	/* config_fields_read() gives what is in range */
}

static void
retry_take(struct slice object, struct config_retry *retry)
{
	struct slice values[RETRY_FIELDS];

	config_fields_read(&config_shape_retry, object, values);
	*retry = config_target_unset.retry;
	retry->attempts = number_of(values[RETRY_ATTEMPTS], 0);
	if (values[RETRY_STATUSES].p)
		build_statuses(&retry->on_status_codes, values[RETRY_STATUSES]);
	for (uint32_t i = RETRY_AFTER_HEADERS; i <= RETRY_AFTER_HEADER; i++)
		if (values[i].p)
			retry->use_retry_after = values[i].p[0] == 't';
}

static void
cache_take(struct slice object, struct config_cache *cache)
{
	struct slice values[CACHE_FIELDS];
	int64_t age;

	config_fields_read(&config_shape_cache, object, values);
	*cache = (struct config_cache){ .mode = CONFIG_CACHE_OFF };
	if (values[CACHE_MODE].p)
		cache->mode = json_string_eq(values[CACHE_MODE], "semantic") ? CONFIG_CACHE_SEMANTIC : CONFIG_CACHE_SIMPLE;
	if (values[CACHE_MAX_AGE].p && json_to_i64(values[CACHE_MAX_AGE], &age))
		cache->max_age_s = config_cache_age(age);
}

const struct config_breaker *
build_breaker(struct build *b, struct slice object)
{
	struct config_breaker *breaker = build_alloc(b, sizeof(*breaker));
	struct slice values[BREAKER_FIELDS];
	int64_t permille;

	config_fields_read(&config_shape_breaker, object, values);
	breaker->failure_threshold = number_of(values[BREAKER_THRESHOLD], 0);
	if (values[BREAKER_PERCENTAGE].p && decimal_parse(values[BREAKER_PERCENTAGE], 1, 1000, &permille))
		breaker->failure_permille = (uint32_t)permille;
	breaker->minimum_requests = number_of(values[BREAKER_MINIMUM], BREAKER_REQUESTS);
	breaker->cooldown_ms = number_of(values[BREAKER_COOLDOWN], CONFIG_COOLDOWN_MIN_MS);
	if (breaker->cooldown_ms < CONFIG_COOLDOWN_MIN_MS)
		breaker->cooldown_ms = CONFIG_COOLDOWN_MIN_MS;
	if (values[BREAKER_STATUSES].p)
		build_statuses(&breaker->failure_status_codes, values[BREAKER_STATUSES]);
	else
		for (int status = 500; status <= STATUS_SET_LAST; status++)
			breaker->failure_status_codes.bits[STATUS_WORD(status)] |= STATUS_BIT(status);
	return breaker;
}

static void
headers_take(struct build *b, struct slice array, struct config_target *t)
{
	struct slice *names = build_alloc(b, CONFIG_HEADERS_MAX * sizeof(*names)), none, value;
	struct json_iter it;

	CHECK(json_iter_array(&it, array));
	t->forward_headers = names;
	t->forward_headers_count = 0;
	while (json_next(&it, &none, &value)) {
		if (value.p[0] != '"')
			continue;
		names[t->forward_headers_count] = build_text(b, value);
		build_lower(names[t->forward_headers_count++]);
	}
}

static void
host_take(struct build *b, uint32_t node, struct slice raw, struct config_target *t)
{
	const char *why;

	t->use_custom_host = host_check(build_text(b, raw), b->from->trust, &t->custom_host, &why);
	if (!t->use_custom_host)
		build_problem(b, node, "custom_host", "Invalid custom host: it %s", why);
}

/* ---- a level, and its end in a target ---- */

void
config_build_level(struct build *b, uint32_t node)
{
	struct level *level = &b->levels[node];
	const struct slice *values = level->values;
	uint32_t parent = b->nodes[node].parent;
	struct config_target *t = &level->target;

	*t = parent == CONFIG_NOWHERE ? config_target_unset : b->levels[parent].target;
	level->model = parent == CONFIG_NOWHERE ? SLICE_NONE : b->levels[parent].model;
	if (values[LEVEL_OVERRIDE_PARAMS].p)
		params_take(b, node, "override_params", values[LEVEL_OVERRIDE_PARAMS], &t->override_params,
		    &t->override_params_count, &level->model);
	if (values[LEVEL_DEFAULT_PARAMS].p)
		params_take(b, node, "default_params", values[LEVEL_DEFAULT_PARAMS], &t->default_params,
		    &t->default_params_count, &t->default_model);
	if (values[LEVEL_DROP_PARAMS].p)
		drops_take(b, node, values[LEVEL_DROP_PARAMS], t);
	if (values[LEVEL_RETRY].p)
		retry_take(values[LEVEL_RETRY], &t->retry);
	if (values[LEVEL_CACHE].p)
		cache_take(values[LEVEL_CACHE], &t->cache);
	if (values[LEVEL_CUSTOM_HOST].p)
		host_take(b, node, values[LEVEL_CUSTOM_HOST], t);
	if (values[LEVEL_FORWARD_HEADERS].p)
		headers_take(b, values[LEVEL_FORWARD_HEADERS], t);
	if (values[LEVEL_STRICT].p)
		t->strict_open_ai_compliance = values[LEVEL_STRICT].p[0] == 't';
	if (values[LEVEL_BREAKER].p)
		t->breaker = build_breaker(b, values[LEVEL_BREAKER]);
	t->request_timeout_ms = number_of(values[LEVEL_REQUEST_TIMEOUT], t->request_timeout_ms);
}

/* provider, else virtual_key, else the prefix of the model. */
static void
provider_take(struct build *b, const struct slice *values, struct slice of_model, struct config_target *t)
{
	if (values[LEVEL_PROVIDER].p) {
		t->provider = build_text(b, values[LEVEL_PROVIDER]);
		t->provider_plain = t->provider.n == 0 || t->provider.p[0] != '@';
		if (!t->provider_plain)
			t->provider = (struct slice){ t->provider.p + 1, t->provider.n - 1 };
	} else if (values[LEVEL_VIRTUAL_KEY].p) {
		t->provider = build_text(b, values[LEVEL_VIRTUAL_KEY]);
	} else if (of_model.p && !t->passthrough) {
		char *slug = build_alloc(b, of_model.n + 1);

		slice_copy(slug, of_model);
		t->provider = (struct slice){ slug, of_model.n };
	}
}

void
config_build_target(struct build *b, uint32_t node)
{
	const struct level *level = &b->levels[node];
	uint32_t number = b->config->targets_count++;
	struct config_target *t = &b->targets[number];
	struct slice of_model;

	*t = level->target;
	t->number = number;
	t->node = node;
	b->nodes[node].target = t;
	t->passthrough = level->values[LEVEL_PASSTHROUGH].p && level->values[LEVEL_PASSTHROUGH].p[0] == 't';
	if (t->passthrough && (level->values[LEVEL_PROVIDER].p || level->values[LEVEL_VIRTUAL_KEY].p))
		build_problem(b, node, "passthrough", "takes the provider from the request: leave it away, or the provider");
	t->api_key = build_text(b, level->values[LEVEL_API_KEY]);
	config_split_model(level->model, &of_model, &t->model);
	provider_take(b, level->values, of_model, t);
	t->edits_body = t->override_params_count + t->default_params_count + t->drop_params_count > 0;
}
