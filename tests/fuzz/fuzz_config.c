/*
 * Configs from clients and settings from operators. The same bytes are taken
 * for an inline config, for a bundle as it stands, and for a settings file:
 * resolved, put into a bundle, compiled. What is accepted must be accepted
 * again and hold what it promises.
 */
#include <stdint.h>
#include <stdlib.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_config(const struct config *c)
{
	struct json_error why;

	CHECK(c->override_params_count <= CONFIG_PARAMS_MAX);
	CHECK(c->request_timeout_ms >= 0);
	CHECK(!c->provider || config_slug_valid(slice_of(c->provider)));
	CHECK(!c->model || c->model[0] != '\0');
	for (uint32_t i = 0; i < c->override_params_count; i++)
		CHECK(json_check(slice_of(c->override_params[i].raw), &why));
}

static void
try_config(struct slice text)
{
	struct problems p;

	problems_init(&p);
	struct config *c = config_parse_text(text, &p);
	CHECK((c != NULL) == (p.count == 0));
	if (c)
		check_config(c);
	config_free(c);
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
		CHECK(s->listeners_count > 0 && s->workers > 0 && s->data_dir && s->run_dir && s->prices);
		for (uint32_t i = 0; i < s->providers_count; i++)
			CHECK(s->providers[i].host && settings_provider(s, slice_of(s->providers[i].slug)));
		for (uint32_t i = 0; i < s->workspaces_count; i++)
			CHECK(settings_workspace(s, slice_of(s->workspaces[i].slug)) == &s->workspaces[i]);
		for (uint32_t i = 0; i < s->policies_count; i++)
			CHECK(limit_policy_active(s->policies[i]));
		for (uint32_t i = 0; i < s->configs_count; i++)
			check_config(settings_config(s, slice_of(s->configs[i]->slug)));
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
