/*
 * Configs from clients and settings from operators. The same bytes are taken
 * for an inline config, for a bundle as it stands, and for a settings file:
 * resolved, put into a bundle, compiled. What is accepted must be accepted
 * again, hold what it promises, and be walked to an end: once where every
 * target fails, and once where some cannot be used.
 */
#include <stdint.h>
#include <stdlib.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"
#include "policy/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_params(const struct config_param *params, uint32_t n)
{
	struct json_error why;

	CHECK(n <= CONFIG_PARAMS_MAX);
	for (uint32_t i = 0; i < n; i++)
		CHECK(params[i].name[0] != '\0' && json_check(slice_of(params[i].raw), &why));
}

static void
check_target(const struct config *c, uint32_t number)
{
	const struct config_target *t = &c->targets[number];

	CHECK(t->number == number && t->node < c->nodes_count && c->nodes[t->node].target == t);
	CHECK(!t->provider.p || config_slug_valid(t->provider));
	CHECK(!t->model.p || (t->model.n > 0 && t->model.p[t->model.n] == '\0'));
	CHECK(!t->api_key.p || t->api_key.n == strlen(t->api_key.p));
	CHECK(!(t->passthrough && t->provider.p));
	check_params(t->override_params, t->override_params_count);
	check_params(t->default_params, t->default_params_count);
	CHECK(t->retry.attempts <= CONFIG_RETRIES_MAX && t->request_timeout_ms <= 86400000);
	CHECK(t->cache.max_age_s == 0 || config_cache_age(t->cache.max_age_s) == t->cache.max_age_s);
	CHECK(t->drop_params_count <= CONFIG_DROPS_MAX && t->forward_headers_count <= CONFIG_HEADERS_MAX);
	CHECK(!t->use_custom_host || (t->custom_host.host.n > 0 && t->custom_host.port > 0));
	CHECK(!t->breaker || t->breaker->failure_threshold > 0 || t->breaker->failure_permille > 0);
}

static void
check_node(const struct config *c, uint32_t i, uint32_t *next)
{
	const struct config_node *n = &c->nodes[i];
	double sum = 0;

	CHECK(n->level < CONFIG_LEVELS_MAX && n->path.n == strlen(n->path.p));
	CHECK((n->mode == CONFIG_LEAF) == (n->target != NULL));
	if (n->mode == CONFIG_LEAF)
		return;
	CHECK(n->count > 0 && n->first == *next && n->first + n->count <= c->nodes_count);
	*next += n->count;
	for (uint32_t k = n->first; k < *next; k++) {
		CHECK(c->nodes[k].parent == i && c->nodes[k].weight >= 0 && c->nodes[k].weight <= 1e9);
		sum += c->nodes[k].weight;
	}
	CHECK(n->mode != CONFIG_LOADBALANCE || sum > 0);
	CHECK((n->mode == CONFIG_CONDITIONAL) == (n->conditions_count > 0));
	for (uint32_t k = 0; k < n->conditions_count; k++)
		CHECK(n->conditions[k].query && n->conditions[k].child - n->first < n->count);
	CHECK(n->otherwise == CONFIG_NOWHERE || n->otherwise - n->first < n->count);
}

static bool
is_usable(void *arg, const struct config_target *t)
{
	return *(const uint64_t *)arg >> (t->number % 64) & 1;
}

static void
walk(const struct config *c, uint64_t mask)
{
	const struct slice body = SLICE("{\"model\":\"claude-x\",\"max_tokens\":1}");
	const uint64_t session[2] = { mask, c->nodes_count };
	struct body_scan scan;
	struct json_error why;
	struct route_walk w;
	struct buf words;
	uint32_t steps = 0;

	CHECK(body_scan(body, &scan, &why));
	const struct condition_facts conditions = {
		.metadata = SLICE("{\"env\":\"dev\",\"team\":\"a\"}"), .params = &scan, .pathname = SLICE("/v1/messages"),
	};
	const struct route_facts f = {
		.conditions = &conditions, .session = session, .usable = is_usable, .arg = &mask, .preferred = c->nodes_count / 2,
	};
	enum route_step step = route_begin(&w, c, &f);
	for (; step == ROUTE_TARGET; steps++) {
		CHECK(steps < c->targets_count && is_usable(&mask, w.target));
		bool more = route_has_next(&w, &f, 529);
		step = route_next(&w, &f, 529);
		CHECK(more == (step == ROUTE_TARGET));
	}
	CHECK(step != ROUTE_NO_MATCH || (c->has_conditions && c->nodes[w.at].mode == CONFIG_CONDITIONAL));
	CHECK((step == ROUTE_OVER) == (steps > 0) && (steps <= 1 || c->several_targets));
	if (steps == 0)
		return;
	buf_init(&words, 1u << 20);
	route_describe(&w, &f, &words);
	CHECK(words.n > 0 && words.p[words.n - 1] == '\n');
	buf_free(&words);
}

static void
check_config(const struct config *c)
{
	uint32_t next = 1;

	CHECK(c->nodes_count > 0 && c->targets_count > 0 && c->nodes_count <= CONFIG_NODES_MAX);
	for (uint32_t i = 0; i < c->nodes_count; i++)
		check_node(c, i, &next);
	CHECK(next == c->nodes_count);
	for (uint32_t i = 0; i < c->targets_count; i++)
		check_target(c, i);
	walk(c, UINT64_MAX);
	walk(c, UINT64_C(0x5555333311110f0e));
}

static void
try_config(struct slice text)
{
	static char address[] = "127.0.0.1", below[] = "*.corp", *trusted[] = { address, below };
	static const struct host_trust trust = { trusted, 2 };
	const struct config_source from = { .path = "", .trust = &trust };
	struct problems p;

	problems_init(&p);
	struct config *c = config_parse_text(text, &from, &p);
	CHECK((c != NULL) == (p.count == 0));
	if (c)
		check_config(c);
	config_put(c);
	problems_free(&p);
}

static void
try_bundle(struct slice bundle)
{
	struct problems p;

	problems_init(&p);
	struct settings *s = settings_compile(bundle, 1, &p);
	CHECK((s != NULL) == (p.count == 0));
	if (s) {
		CHECK(s->listeners_count > 0 && s->workers > 0 && s->prices);
		/* null is what the loader could not resolve: the mistake has been told there. */
		CHECK((s->data_dir && s->run_dir) || slice_contains(bundle, SLICE("null")));
		for (uint32_t i = 0; i < s->providers_count; i++)
			CHECK(s->providers[i].host && settings_provider(s, slice_of(s->providers[i].slug)));
		for (uint32_t i = 0; i < s->workspaces_count; i++)
			CHECK(settings_workspace(s, slice_of(s->workspaces[i].slug)) == &s->workspaces[i]);
		for (uint32_t i = 0; i < s->policies_count; i++)
			CHECK(limit_policy_active(s->policies[i]));
		for (uint32_t i = 0; i < s->configs_count; i++)
			check_config(settings_config(s, s->configs[i]->slug));
	}
	settings_put(s);
	problems_free(&p);
}

static void
try_file(struct slice text)
{
	struct json_error why;
	struct problems p;
	struct buf bundle;

	if (!json_check(text, &why))
		return;
	problems_init(&p);
	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	buf_add_str(&bundle, "{\"host\":{\"workers\":2,\"data_dir\":\"/d\"},\"file\":");
	if (settings_resolve(text, "/nonexistent", &bundle, &p)) {
		buf_add_char(&bundle, '}');
		CHECK(json_check(buf_slice(&bundle), &why));
		try_bundle(buf_slice(&bundle));
	}
	buf_free(&bundle);
	problems_free(&p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size };

	try_config(text);
	try_bundle(text);
	try_file(text);
	return 0;
}
