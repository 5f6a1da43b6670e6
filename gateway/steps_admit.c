/*
 * gateway/steps_admit.c -- who asks, and for what.
 *
 * authenticate (at the head) -> resolve: metadata, config, body. That is all
 * that holds whoever answers; where the request goes is steps_route.c's, whether
 * there is room for it admission.c's.
 */
#include "gateway/config_memo.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/metrics.h"

#define MODEL_BYTES_MAX 256	/* of a name that a request gives */

/* ---- authenticate ---- */

static const struct refusal_words unauthenticated = {
	.status = 401, .type = "authentication_error",
	.headers = "x-should-retry: false\r\nwww-authenticate: Bearer\r\n", .outcome = OUTCOME_INVALID,
};

static struct slice
bearer_token(struct slice value)
{
	if (value.n > 7 && (slice_starts(value, SLICE("Bearer ")) ||	/* as everybody writes it */
	    slice_ieq((struct slice){ value.p, 7 }, SLICE("bearer "))))
		return slice_trim((struct slice){ value.p + 7, value.n - 7 });
	return SLICE_NONE;
}

/* Clients send one, or the same one twice, or ours beside a placeholder. */
static struct key *
find_key(struct request *r, bool *any)
{
	struct slice offered[3] = {
		r->known.portkey_api_key,
		bearer_token(r->known.authorization),
		r->known.api_key,
	};

	for (int i = 0; i < 3; i++) {
		if (!offered[i].n)
			continue;
		*any = true;
		struct key *k = key_cache_get(r->worker->keys, offered[i]);
		if (k) {
			r->portkey_auth = i == 0;
			return k;
		}
	}
	return NULL;
}

enum step
step_authenticate(struct request *r)
{
	bool any = false;

	r->key = find_key(r, &any);
	if (!r->key) {
		metrics_add(r->worker->arena, r->worker->index, COUNTER_REFUSED_AUTH, 1);
		request_refuse(r, &unauthenticated, any ? "the API key is not valid" : "an API key is required: "
		    "send it as \"Authorization: Bearer\" or \"x-api-key\"");
		return STEP_STOP;
	}
	r->rec.key_id = r->key->id;
	r->rec.key = r->key->slug;
	r->rec.workspace = r->key->workspace;
	bool expired = r->key->expires_wall_ns && r->key->expires_wall_ns <= r->start_wall_ns;
	if (!r->key->enabled || expired) {
		metrics_add(r->worker->arena, r->worker->index, COUNTER_REFUSED_AUTH, 1);
		request_refuse(r, &unauthenticated, expired ? "the API key has expired" : "the API key has been revoked");
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* ---- resolve: the config ---- */

static const struct refusal_words invalid = {
	.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
};

static enum step
inline_config(struct request *r, struct slice json)
{
	struct problems problems;

	problems_init(&problems);
	r->config_inline = config_memo_get(r->worker->config_memo, r->plane->settings, json, &problems);
	if (!r->config_inline)
		request_refuse(r, &invalid, "x-portkey-config: %.*s", SLICE_FMT(buf_slice(&problems.text)));
	problems_free(&problems);
	r->config = r->config_inline;
	r->rec.config = SLICE("inline");
	return r->config ? STEP_NEXT : STEP_STOP;
}

static enum step
named_config(struct request *r, struct slice slug)
{
	r->config = settings_config(r->plane->settings, slug);
	if (!r->config) {
		request_refuse(r, &invalid, "there is no config \"%.*s\"", slug.n > 100 ? 100 : (int)slug.n, slug.p);
		return STEP_STOP;
	}
	r->rec.config = r->config->slug;
	return STEP_NEXT;
}

/* The first that is there applies alone: the request's, the key's, the workspace's. */
static enum step
choose_config(struct request *r)
{
	const struct settings *s = r->plane->settings;
	struct slice header = r->known.config;
	const struct setting_workspace *w;

	if (header.n && r->key->config && !r->key->allow_config_override) {
		request_refuse(r, &invalid, "this API key does not allow another config than its own");
		return STEP_STOP;
	}
	if (header.n && header.p[0] == '{')
		return inline_config(r, header);
	if (header.n)
		return named_config(r, header);
	if (r->key->config)
		return named_config(r, slice_of(r->key->config));
	if (s->workspaces_count > 0 && (w = settings_workspace(s, r->key->workspace)) && w->config)
		return named_config(r, slice_of(w->config));
	r->config = config_none();
	return STEP_NEXT;
}

/* What Portkey calls "block inline config": its codes, and which header is meant. */
static enum step
forbid_inline(struct request *r)
{
	const struct known_headers *k = &r->known;

	if (!r->plane->settings->saved_configs_only)
		return STEP_NEXT;
	const struct { bool here; const char *code, *field, *what; } rows[] = {
		{ k->config.n && k->config.p[0] == '{', "inline_config_blocked", "x-portkey-config", "a config of your own" },
		{ k->provider.n && k->provider.p[0] != '@', "inline_provider_blocked", "x-portkey-provider", "a provider without \"@\"" },
		{ k->custom_host.n > 0, "inline_custom_host_blocked", "x-portkey-custom-host", "a host of your own" },
		{ k->forward_headers.n > 0, "inline_forward_headers_blocked", "x-portkey-forward-headers", "headers to forward" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!rows[i].here)
			continue;
		request_refuse(r, &invalid, "%s (%s): this gateway takes saved configs and providers only, not %s", rows[i].field, rows[i].code,
		    rows[i].what);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* What a config may not forward, the request's own header may not either. */
static enum step
check_forwarded(struct request *r)
{
	struct slice name;

	for (size_t at = 0; headers_next(r->known.forward_headers, &at, &name);) {
		const char *why = config_header_kept(name);

		if (!why)
			continue;
		request_refuse(r, &invalid, "x-portkey-forward-headers: \"%.*s\" %s, and is never forwarded", SLICE_FMT(name), why);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* As a config's request_timeout. */
static enum step
check_time(struct request *r)
{
	int64_t ms;

	if (slice_to_i64(r->known.request_timeout, &ms) && ms >= 1 && ms <= CONFIG_TIMEOUT_MS_MAX)
		return STEP_NEXT;
	request_refuse(r, &invalid, "x-portkey-request-timeout: must be a whole number from 1 to %d (milliseconds)", CONFIG_TIMEOUT_MS_MAX);
	return STEP_STOP;
}

static enum step
resolve_config(struct request *r)
{
	if (forbid_inline(r) == STEP_STOP || (r->known.forward_headers.n && check_forwarded(r) == STEP_STOP) ||
	    (r->known.request_timeout.n && check_time(r) == STEP_STOP) || choose_config(r) == STEP_STOP)
		return STEP_STOP;
	r->rec.config_version = slice_of(r->config->version);
	return STEP_NEXT;
}

/* ---- resolve: the body ---- */

static enum step
scan_body(struct request *r)
{
	struct json_error why;

	r->asked = scratch_alloc(&r->body_mem, sizeof(*r->asked));
	if (!r->asked) {
		request_refuse(r, &invalid, "the request is too large");
		return STEP_STOP;
	}
	if (!body_scan((struct slice){ r->body, r->body_n }, r->asked, &why)) {
		request_refuse(r, &invalid, "the body is not a valid request: %s at byte %zu", why.what, why.offset);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* It becomes a header's value. In JSON control characters are escaped, but for DEL,
 * so that of a usual name only that has to be looked for. */
static bool
has_control(struct slice text, bool escaped)
{
	for (size_t i = 0; escaped && i < text.n; i++)
		if ((unsigned char)text.p[i] < ' ')
			return true;
	return memchr(text.p, '\x7f', text.n) != NULL;
}

/* A body without a model may be one that the config has a model for. */
static enum step
requested_model(struct request *r)
{
	struct slice raw = r->asked->model;
	const struct setting_model *alias;

	if (!raw.n)
		return STEP_NEXT;
	if (!r->asked->model_is_string || raw.n <= 2) {
		request_refuse(r, &invalid, "model: a non-empty string is expected");
		return STEP_STOP;
	}
	char *text = scratch_alloc(&r->mem, raw.n);
	size_t n = text ? json_unescape(raw, text, raw.n) : SIZE_MAX;
	if (n == SIZE_MAX || n > MODEL_BYTES_MAX || has_control((struct slice){ text, n }, n < raw.n - 2)) {
		request_refuse(r, &invalid, "model: not a model's name");
		return STEP_STOP;
	}
	r->model_requested = r->model_named = r->rec.model_requested = (struct slice){ text, n };
	if (r->plane->settings->models_count > 0 && (alias = settings_model(r->plane->settings, r->model_requested)))
		r->model_named = slice_of(alias->model);
	return STEP_NEXT;
}

/* ---- resolve: metadata ---- */

static enum step
read_metadata(struct request *r, struct slice header)
{
	const struct settings *s = r->plane->settings;
	struct metadata *m = scratch_alloc(&r->body_mem, sizeof(*m));
	struct metadata_error why;

	if (!m) {
		request_refuse(r, &invalid, "the request is too large");
		return STEP_STOP;
	}
	m->count = 0;
	if (header.n && !metadata_parse(header, s->metadata.lenient, &r->body_mem, m, &why)) {
		request_refuse(r, &invalid, "x-portkey-metadata: %s", why.what);	/* it names the place */
		return STEP_STOP;
	}
	if (!metadata_merge(m, &r->key->metadata)) {
		request_refuse(r, &invalid, "x-portkey-metadata: more than %d fields", METADATA_PAIRS_MAX);
		return STEP_STOP;
	}
	for (uint32_t i = 0; i < s->metadata.required_count; i++) {
		if (!metadata_get(m, slice_of(s->metadata.required[i]))) {
			request_refuse(r, &invalid, "x-portkey-metadata: the field \"%s\" is required here",
			    s->metadata.required[i]);
			return STEP_STOP;
		}
	}
	r->rec.metadata = metadata_json(m, &r->mem);
	if (!r->rec.metadata.p) {
		request_refuse(r, &invalid, "x-portkey-metadata: longer than %d bytes", METADATA_BYTES_MAX);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

static enum step
resolve_metadata(struct request *r)
{
	struct metadata_memo *memo = r->worker->memo;
	uint64_t serial = r->key->serial, version = r->plane->settings->version;
	struct slice header = r->known.metadata, known = metadata_memo_get(memo, serial, version, header);

	if (!known.p) {
		if (read_metadata(r, header) == STEP_STOP)
			return STEP_STOP;
		metadata_memo_put(memo, serial, version, header, r->rec.metadata);
		return STEP_NEXT;
	}
	char *copy = scratch_dup(&r->mem, known);
	if (!copy) {
		request_refuse(r, &invalid, "the request is too large");
		return STEP_STOP;
	}
	r->rec.metadata = (struct slice){ copy, known.n };
	return STEP_NEXT;
}

enum step
step_resolve(struct request *r)
{
	if (resolve_metadata(r) == STEP_STOP || resolve_config(r) == STEP_STOP || scan_body(r) == STEP_STOP ||
	    requested_model(r) == STEP_STOP)
		return STEP_STOP;
	return STEP_NEXT;
}
