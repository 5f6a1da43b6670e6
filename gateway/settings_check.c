/*
 * gateway/settings_check.c -- what one value cannot say alone.
 *
 * Addresses and URLs are taken apart here; then come the rules between values:
 * slugs that are used twice or name nothing, TLS without a certificate, plain
 * http to a foreign host. (Limits are settings_limits.c's.) Pure: no file, no environment, no clock, so that the
 * same bundle gives the same settings in every process and at every restart.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"

#define PATH_BYTES 64		/* "configs[4095].config", "metadata.required[255]" */

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

/* ---- addresses and URLs ---- */

static bool
parse_port(struct slice text, uint16_t *out)
{
	int64_t n;

	if (text.n == 0 || text.n > 5 || text.p[0] == '-' || !slice_to_i64(text, &n) || n > 65535)
		return false;
	*out = (uint16_t)n;
	return true;
}

/* Is it an address in digits, of that family? */
static bool
numeric(struct slice host, int family)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr address;

	if (host.n == 0 || host.n >= sizeof(text))
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	return inet_pton(family, text, &address) == 1;
}

/* "host:port", "[v6]:port", "host": the host without its brackets. */
static bool
split_host(struct slice text, struct slice *host, struct slice *port)
{
	*port = SLICE_NONE;
	if (text.n > 0 && text.p[0] == '[') {
		const char *end = memchr(text.p, ']', text.n);

		if (!end)
			return false;
		*host = (struct slice){ text.p + 1, (size_t)(end - text.p) - 1 };
		text = (struct slice){ end + 1, text.n - host->n - 2 };
		if (!numeric(*host, AF_INET6) || (text.n > 0 && text.p[0] != ':'))
			return false;
	} else {
		const char *colon = memchr(text.p, ':', text.n);

		*host = (struct slice){ text.p, colon ? (size_t)(colon - text.p) : text.n };
		text = (struct slice){ text.p + host->n, text.n - host->n };
	}
	if (text.n > 0)
		*port = (struct slice){ text.p + 1, text.n - 1 };
	return host->n > 0;
}

bool
settings_parse_address(struct slice text, struct setting_listener *out)
{
	struct slice host, port;

	if (!split_host(text, &host, &port) || !parse_port(port, &out->port))
		return false;
	if (text.p[0] != '[' && !numeric(host, AF_INET))
		return false;
	out->host = copy(host);
	return true;
}

const char *
settings_parse_url(struct setting_provider *v)
{
	struct host_url url;
	const char *why;

	if (!host_split(slice_of(v->base_url), &url, &why))
		return why;
	if (url.path.n >= 3 && memcmp(url.path.p + url.path.n - 3, "/v1", 3) == 0)
		return "must not end with /v1: weir adds it";
	v->tls = url.tls;
	v->port = url.port;
	free(v->host);
	free(v->path_prefix);
	v->host = copy(url.host);
	v->path_prefix = copy(url.path);
	return NULL;
}

static bool
loopback(const char *host)
{
	struct slice h = slice_of(host);

	return slice_ieq(h, SLICE("localhost")) || slice_eq(h, SLICE("::1")) ||
	    (slice_starts(h, SLICE("127.")) && numeric(h, AF_INET));
}

/* ---- rules between values ---- */

static bool
same_socket(const struct setting_listener *a, const struct setting_listener *b)
{
	return a->port != 0 && a->port == b->port && strcmp(a->host, b->host) == 0;
}

static void
check_certificate(const struct settings_draft *d, bool wanted, const char *path, struct problems *p)
{
	bool certificate = d->s.tls_cert_pem || settings_unresolved(d, "tls.certificate");
	bool key = d->s.tls_key_pem || settings_unresolved(d, "tls.key");

	if (wanted && !certificate && !key)
		problem_add(p, path, "needs \"tls\": {\"certificate\": FILE, \"key\": FILE}");
	if (!wanted && certificate && !key)
		problem_add(p, "tls.key", "missing: a certificate needs its key");
	if (!wanted && key && !certificate)
		problem_add(p, "tls.certificate", "missing: a key needs its certificate");
}

static void
check_listeners(const struct settings_draft *d, struct problems *p)
{
	const struct settings *s = &d->s;
	char path[PATH_BYTES];

	if (s->listeners_count == 0)
		problem_add(p, "listen", "must have an address");
	for (uint32_t i = 0; i < s->listeners_count; i++) {
		const struct setting_listener *l = &s->listeners[i];

		snprintf(path, sizeof(path), "listen[%u]", i);
		if (!l->host)
			continue;
		if (l->tls)
			check_certificate(d, true, path, p);
		if (s->admin.host && same_socket(l, &s->admin))
			problem_add(p, path, "is the address of admin.listen too");
		for (uint32_t j = 0; j < i; j++)
			if (s->listeners[j].host && same_socket(l, &s->listeners[j]))
				problem_add(p, path, "is the same address as listen[%u]", j);
	}
	check_certificate(d, false, "", p);
}

static void
check_url(struct setting_provider *v, const char *path, struct problems *p)
{
	char at[PATH_BYTES * 2];

	if (!v->base_url)
		return;
	const char *wrong = settings_parse_url(v);
	snprintf(at, sizeof(at), "%s.base_url", path);
	if (wrong)
		problem_add(p, at, "%s, such as \"https://api.anthropic.com\"", wrong);
	else if (!v->tls && !v->allow_plain_http && !loopback(v->host))
		problem_add(p, at, "would send the API key unencrypted to %s: use https://, or set "
		    "\"allow_plain_http\": true on this provider", v->host);
}

static void
check_provider(struct settings *s, uint32_t i, struct problems *p)
{
	struct setting_provider *v = &s->providers[i];
	char path[PATH_BYTES], at[PATH_BYTES * 2];

	snprintf(path, sizeof(path), "providers[%u]", i);
	v->index = i + 1;
	check_url(v, path, p);
	if (v->api_key)
		for (const char *c = v->api_key; *c; c++) {
			if (*c > ' ' && *c < 0x7f)
				continue;
			snprintf(at, sizeof(at), "%s.api_key", path);
			problem_add(p, at, "must be printable ASCII without spaces: it becomes a header");
			break;
		}
	if (v->ca_pem && !strstr(v->ca_pem, "-----BEGIN CERTIFICATE-----")) {
		snprintf(at, sizeof(at), "%s.ca_file", path);
		problem_add(p, at, "holds no PEM certificate");
	}
	for (uint32_t j = 0; v->slug && j < i; j++) {
		if (!s->providers[j].slug || strcmp(s->providers[j].slug, v->slug) != 0)
			continue;
		snprintf(at, sizeof(at), "%s.slug", path);
		problem_add(p, at, "\"%s\" is the slug of providers[%u] too", v->slug, j);
	}
}

/* A slug that names no provider. */
static void
unknown_provider(const struct settings *s, const char *path, struct slice slug, struct problems *p)
{
	struct problem_guess guess = { .wanted = slug };

	for (uint32_t i = 0; i < s->providers_count; i++)
		if (s->providers[i].slug)
			problem_guess_try(&guess, s->providers[i].slug);
	const char *best = problem_guess_best(&guess);
	if (best)
		problem_add(p, path, "there is no provider \"%.*s\"; did you mean \"%s\"?", SLICE_FMT(slug), best);
	else
		problem_add(p, path, "there is no provider \"%.*s\" among \"providers\"", SLICE_FMT(slug));
}

/* One whose slug could not be read may be the one that is meant. */
static bool
provider_may_exist(const struct settings *s, struct slice slug)
{
	for (uint32_t i = 0; i < s->providers_count; i++)
		if (!s->providers[i].slug || slice_eq(slice_of(s->providers[i].slug), slug))
			return true;
	return false;
}

static void
check_default_provider(struct settings *s, struct problems *p)
{
	if (s->default_provider && !provider_may_exist(s, slice_of(s->default_provider)))
		unknown_provider(s, "default_provider", slice_of(s->default_provider), p);
	if (!s->default_provider && s->providers_count == 1 && s->providers[0].slug)
		s->default_provider = copy(slice_of(s->providers[0].slug));
}

static void
check_custom_hosts(const struct settings *s, struct problems *p)
{
	char path[PATH_BYTES];

	for (uint32_t i = 0; i < s->custom_hosts.count; i++) {
		if (host_pattern_valid(slice_of(s->custom_hosts.hosts[i])))
			continue;
		snprintf(path, sizeof(path), "custom_hosts.trusted[%u]", i);
		problem_add(p, path, "must be a host's name, an address, or \"*.\" and a name, such as \"llm.corp\", \"10.1.2.3\" "
		    "or \"*.example.com\"; not \"%s\"", problem_name(slice_of(s->custom_hosts.hosts[i])).text);
	}
}

bool
settings_check_targets(const struct settings *s, const struct config *c, const char *path, struct problems *p)
{
	char at[PATH_BYTES + CONFIG_LEVELS_MAX * sizeof(".targets[1000]")];
	uint32_t before = p->count;

	for (uint32_t i = 0; i < c->targets_count; i++) {
		const struct config_target *t = &c->targets[i];
		const char *below = c->nodes[t->node].path.p + sizeof("config") - 1;	/* ".targets[0]" */

		if (!t->provider.p || provider_may_exist(s, t->provider) || settings_provider_of(s, t))
			continue;
		snprintf(at, sizeof(at), "%s%s", path, path[0] || !below[0] ? below : below + 1);
		unknown_provider(s, at, t->provider, p);
	}
	return p->count == before;
}

struct config *
settings_inline_config(const struct settings *s, struct slice json, struct problems *p)
{
	const struct config_source from = { .path = "", .trust = &s->custom_hosts };
	struct config *c = config_parse_text(json, &from, p);

	if (!c || settings_check_targets(s, c, "", p))
		return c;
	config_put(c);
	return NULL;
}

static int
config_order(const void *a, const void *b)
{
	return strcmp((*(struct config *const *)a)->slug.p, (*(struct config *const *)b)->slug.p);
}

static void
check_configs(struct settings_draft *d, struct problems *p)
{
	struct settings *s = &d->s;
	char path[PATH_BYTES];

	s->configs = calloc(d->configs_count + 1, sizeof(*s->configs));
	CHECK(s->configs);
	for (uint32_t i = 0; i < d->configs_count; i++) {
		struct draft_config *draft = &d->configs[i];
		struct config_source from = {
			.slug = slice_of(draft->slug ? draft->slug : ""), .path = path, .trust = &s->custom_hosts,
		};

		snprintf(path, sizeof(path), "configs[%u].config", i);
		struct config *c = draft->raw.p ? config_parse(draft->raw, &from, p) : NULL;
		if (!c)
			continue;
		settings_check_targets(s, c, path, p);
		s->configs[s->configs_count++] = c;
	}
	qsort(s->configs, s->configs_count, sizeof(*s->configs), config_order);
	for (uint32_t i = 0; i < s->configs_count; i++)
		s->configs[i]->index = i;
	for (uint32_t i = 1; i < s->configs_count; i++)
		if (s->configs[i]->slug.n > 0 && slice_eq(s->configs[i]->slug, s->configs[i - 1]->slug))
			problem_add(p, "configs", "the slug \"%s\" is used twice", s->configs[i]->slug.p);
}

/* "" or "/x/y": one slash in front, none behind. */
static void
check_path_prefix(struct settings *s, struct problems *p)
{
	char *prefix = s->path_prefix;
	size_t n = prefix ? strlen(prefix) : 0;

	if (n == 0)
		return;
	if (prefix[n - 1] == '/')
		prefix[--n] = '\0';
	if (n > 0 && (prefix[0] != '/' || !host_path_valid((struct slice){ prefix, n })))
		problem_add(p, "path_prefix", "must be a path such as \"/weir\", of letters, digits and . _ ~ - @ :");
}

static void
check_folders(struct settings_draft *d, struct problems *p)
{
	struct settings *s = &d->s;
	const struct setting_field *run = setting_field_find(SLICE("run_dir"));

	if (!s->data_dir) {
		if (!settings_unresolved(d, "data_dir"))
			problem_add(p, "data_dir", "missing, and $HOME is not set to choose one: name a folder");
		return;
	}
	if (!s->run_dir) {
		size_t n = strlen(s->data_dir) + sizeof("/run");

		s->run_dir = malloc(n);
		CHECK(s->run_dir);
		snprintf(s->run_dir, n, "%s/run", s->data_dir);
	}
	if (strlen(s->run_dir) > (size_t)run->max)
		problem_add(p, "run_dir", "\"%s\" has more than %d bytes: name a shorter folder", s->run_dir, (int)run->max);
}

/* One entry must not be most of the cache, nor more than all of it. */
static void
check_cache(const struct settings_draft *d, struct problems *p)
{
	uint64_t bytes = d->s.cache.bytes, entry = d->s.cache.entry_bytes;

	if (bytes == 0 || settings_unresolved(d, "cache.bytes") || settings_unresolved(d, "cache.entry_bytes") || entry <= bytes / 2)
		return;
	problem_add(p, "cache.bytes", "must be at least twice cache.entry_bytes (%llu), or 0 for no cache", (unsigned long long)entry);
}

static void
check_health(const struct settings_draft *d, struct problems *p)
{
	uint32_t first = d->s.health.cooldown_ms, most = d->s.health.cooldown_max_ms;

	if (most >= first || settings_unresolved(d, "health.cooldown_ms") || settings_unresolved(d, "health.cooldown_max_ms"))
		return;
	problem_add(p, "health.cooldown_max_ms", "must be at least health.cooldown_ms (%u): it is %u", first, most);
}

static void
check_metadata(struct settings *s, struct problems *p)
{
	char path[PATH_BYTES];

	for (uint32_t i = 0; i < s->metadata.required_count; i++)
		for (uint32_t j = 0; j < i; j++) {
			if (strcmp(s->metadata.required[i], s->metadata.required[j]) != 0)
				continue;
			snprintf(path, sizeof(path), "metadata.required[%u]", i);
			problem_add(p, path, "\"%s\" is listed twice", s->metadata.required[i]);
		}
}

/* The price book speaks of its document's "models[0]"; here that is "prices[0]". */
static void
price_problem(const char *why, struct problems *p)
{
	char path[PATH_BYTES * 2];
	const char *end = strstr(why, ": ");

	if (strncmp(why, "models", 6) != 0 || !end) {
		problem_add(p, "prices", "%s", why);
		return;
	}
	snprintf(path, sizeof(path), "prices%.*s", (int)(end - why) - 6, why + 6);
	problem_add(p, path, "%s", end + 2);
}

static void
check_prices(struct settings_draft *d, struct problems *p)
{
	struct buf overrides;
	char why[512];

	if (!d->prices.p && p->count > d->problems_before)
		return;		/* the built-in ones have no mistakes, and nobody will use them */
	buf_init(&overrides, d->prices.n + 64);
	if (d->prices.p)
		buf_printf(&overrides, "{\"version\":1,\"models\":%.*s}", SLICE_FMT(d->prices));
	d->s.prices = price_book_new(price_book_builtin(), d->prices.p ? buf_slice(&overrides) : SLICE_NONE,
	    why, sizeof(why));
	if (!d->s.prices)
		price_problem(why, p);
	buf_free(&overrides);
}

/* The last layer has been read: these are the providers. */
static void
take_providers(struct settings_draft *d)
{
	struct settings *s = &d->s;

	s->providers = calloc(d->providers_count + 1, sizeof(*s->providers));
	CHECK(s->providers);
	for (uint32_t i = 0; i < d->providers_count; i++)
		s->providers[s->providers_count++] = d->providers[i].provider;
}

void
settings_check(struct settings_draft *d, struct problems *p)
{
	struct settings *s = &d->s;

	take_providers(d);
	s->arena.workers = s->workers;
	if (s->workers == 0)
		problem_add(p, "workers", "missing: how many processes serve requests");
	check_listeners(d, p);
	check_folders(d, p);
	check_path_prefix(s, p);
	check_cache(d, p);
	check_health(d, p);
	check_metadata(s, p);
	for (uint32_t i = 0; i < s->providers_count; i++)
		check_provider(s, i, p);
	check_default_provider(s, p);
	check_custom_hosts(s, p);
	check_configs(d, p);
	settings_check_models(d, p);
	settings_check_limits(d, p);
	check_prices(d, p);
}
