/* gateway/plane.c -- see plane.h. */
#include "gateway/plane.h"

#include <stdlib.h>

#include "shm/base/log.h"
#include "upstream/wire/tls.h"

static bool
open_providers(struct plane *p, struct upstream *u, char *why, size_t why_size)
{
	const struct settings *s = p->settings;

	for (uint32_t i = 0; i < s->providers_count; i++) {
		const struct setting_provider *v = &s->providers[i];

		p->providers[i].slug = slice_of(v->slug);
		p->providers[i].type = slice_of(v->type);
		p->providers[i].account = slice_of(v->account ? v->account : v->slug);
		buf_init(&p->providers[i].answer_lines, 1024);
		buf_printf(&p->providers[i].answer_lines, "x-portkey-provider: %s\r\nx-weir-provider: %s\r\n", v->type, v->slug);
		if (!endpoint_open(&p->providers[i].endpoint, u, v, SLICE_NONE, NULL, why, why_size))
			return false;
	}
	p->default_provider = s->default_provider ? settings_provider(s, slice_of(s->default_provider)) : NULL;
	return true;
}

static bool
open_target(struct plane *p, struct plane_target *to, const struct config_target *t, struct upstream *u, char *why,
    size_t why_size)
{
	to->provider = settings_provider_of(p->settings, t);
	if (!to->provider || (!t->api_key.n && !t->use_custom_host))
		return true;
	return endpoint_open(&to->endpoint, u, to->provider, t->api_key, t->use_custom_host ? &t->custom_host : NULL, why, why_size);
}

static bool
open_targets(struct plane *p, struct upstream *u, char *why, size_t why_size)
{
	const struct settings *s = p->settings;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->configs_count; i++) {
		const struct config *c = s->configs[i];

		p->first[i] = n;
		for (uint32_t j = 0; j < c->targets_count; j++)
			if (!open_target(p, &p->targets[n++], &c->targets[j], u, why, why_size))
				return false;
	}
	return true;
}

static bool
allocate(struct plane *p)
{
	const struct settings *s = p->settings;

	for (uint32_t i = 0; i < s->configs_count; i++)
		p->targets_count += s->configs[i]->targets_count;
	p->providers = calloc(s->providers_count + 1, sizeof(*p->providers));
	p->targets = calloc(p->targets_count + 1, sizeof(*p->targets));
	p->first = calloc(s->configs_count + 1, sizeof(*p->first));
	return p->providers && p->targets && p->first;
}

struct plane *
plane_new(struct upstream *u, struct settings *s, const struct tls_ticket_keys *keys, bool tls_wanted)
{
	struct plane *p = calloc(1, sizeof(*p));
	char why[256] = "out of memory";

	if (!p)
		return NULL;
	p->refs = 1;
	p->settings = settings_get(s);
	bool ok = allocate(p) && open_providers(p, u, why, sizeof(why)) && open_targets(p, u, why, sizeof(why));
	if (ok && tls_wanted) {
		p->tls = tls_server_new(slice_of(s->tls_cert_pem), slice_of(s->tls_key_pem), keys, why, sizeof(why));
		ok = p->tls != NULL;
	}
	if (!ok) {
		log_error("settings cannot be used: %s", why);
		plane_put(p);
		return NULL;
	}
	return p;
}

struct plane *
plane_get(struct plane *p)
{
	p->refs++;
	return p;
}

void
plane_put(struct plane *p)
{
	if (!p || --p->refs > 0)
		return;
	for (uint32_t i = 0; p->providers && i < p->settings->providers_count; i++) {
		endpoint_close(&p->providers[i].endpoint);
		buf_free(&p->providers[i].answer_lines);
	}
	for (uint32_t i = 0; p->targets && i < p->targets_count; i++)
		endpoint_close(&p->targets[i].endpoint);
	free(p->providers);
	free(p->targets);
	free(p->first);
	if (p->tls)
		tls_context_put(p->tls);
	settings_put(p->settings);
	free(p);
}
