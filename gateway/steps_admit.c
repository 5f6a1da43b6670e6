/*
 * gateway/steps_admit.c -- who asks, and for what.
 *
 * authenticate (at the head) -> resolve: config, body, model, provider,
 * metadata. Whether there is room for it: admission.c.
 */
#include "gateway/reply.h"
#include "gateway/request.h"
#include "policy/params.h"
#include "policy/route.h"
#include "shm/base/siphash.h"
#include "shm/metrics.h"

/* ---- authenticate ---- */

static const struct refusal_words unauthenticated = {
	.status = 401, .type = "authentication_error",
	.headers = "x-should-retry: false\r\nwww-authenticate: Bearer\r\n", .outcome = OUTCOME_INVALID,
};

static struct slice
bearer_token(struct slice value)
{

	if (value.n > 7 && slice_ieq((struct slice){ value.p, 7 }, SLICE("bearer ")))
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

/* ---- resolve ---- */

static const struct refusal_words invalid = {
	.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
};
static const struct refusal_words forbidden = {
	.status = 403, .type = "permission_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
};

static enum step
inline_config(struct request *r, struct slice json)
{
	const struct config_source from = { .path = "", .trust = &r->plane->settings->custom_hosts };
	struct problems problems;

	problems_init(&problems);
	r->config_inline = config_parse_text(json, &from, &problems);
	bool fine = r->config_inline && settings_check_targets(r->plane->settings, r->config_inline, "", &problems);
	if (!fine)
		request_refuse(r, &invalid, "x-portkey-config: %.*s", SLICE_FMT(buf_slice(&problems.text)));
	problems_free(&problems);
	if (!fine)
		return STEP_STOP;
	r->config = r->config_inline;
	r->rec.config = SLICE("inline");
	return STEP_NEXT;
}

static enum step
resolve_config(struct request *r)
{
	struct slice named = r->known.config;

	if (named.n && r->key->config && !r->key->allow_config_override) {
		request_refuse(r, &invalid, "this API key does not allow another config than its own");
		return STEP_STOP;
	}
	if (named.n && named.p[0] == '{')
		return inline_config(r, named);
	if (!named.n)
		named = slice_of(r->key->config);
	if (!named.n) {
		r->config = config_none();
		return STEP_NEXT;
	}
	r->config = settings_config(r->plane->settings, named);
	if (!r->config) {
		request_refuse(r, &invalid, "there is no config \"%.*s\"", named.n > 100 ? 100 : (int)named.n, named.p);
		return STEP_STOP;
	}
	r->rec.config = r->config->slug;
	return STEP_NEXT;
}

static enum step
choose_target(struct request *r)
{
	const struct condition_facts conditions = {
		.metadata = r->rec.metadata, .params = r->scan, .pathname = route_rows[r->route].path,
	};
	struct route_facts facts = { .conditions = &conditions, .preferred = ROUTE_ANY };
	struct route_walk walk;

	if (r->config->has_choice) {
		struct siphash random = siphash128((const uint64_t[2]){ 0 }, (struct slice){ r->id, REQUEST_ID_BYTES - 1 });

		facts.random[0] = random.lo;
		facts.random[1] = random.hi;
	}
	if (route_begin(&walk, r->config, &facts) != ROUTE_TARGET) {
		request_refuse(r, &invalid, "Query router did not resolve to any valid target");
		return STEP_STOP;
	}
	r->target = walk.target;
	return STEP_NEXT;
}

static enum step
scan(struct request *r, struct slice body)
{
	struct json_error why;

	if (!body_scan(body, r->scan, &why)) {
		request_refuse(r, &invalid, "the body is not a valid request: %s at byte %zu", why.what, why.offset);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* Params may change what limits and prices look at (max_tokens, tools), so the
 * edited body is made and scanned like a client's own. */
static enum step
apply_params(struct request *r)
{
	const struct config_target *t = r->target;
	const struct params params = {
		.defaults = t->default_params, .defaults_count = t->default_params_count,
		.overrides = t->override_params, .overrides_count = t->override_params_count,
		.drops = t->drop_params, .drops_count = t->drop_params_count,
	};
	struct slice edited;
	const char *why;

	if (!t->edits_body)
		return STEP_NEXT;
	if (!params_apply(r->scan, &params, &r->body_mem, &edited, &why)) {
		request_refuse(r, &invalid, "the config's params do not fit into this request: %s", why);
		return STEP_STOP;
	}
	return edited.p == r->scan->body.p ? STEP_NEXT : scan(r, edited);
}

static enum step
requested_model(struct request *r)
{
	struct slice raw = r->scan->model;

	if (!raw.n && r->target->default_model.n) {
		r->model_requested = r->target->default_model;
		r->rec.model_requested = r->model_requested;
		return STEP_NEXT;
	}
	if (!raw.n || !r->scan->model_is_string || raw.n <= 2) {
		request_refuse(r, &invalid, raw.n ? "model: a non-empty string is expected" : "model: field required");
		return STEP_STOP;
	}
	char *text = scratch_alloc(&r->mem, raw.n);
	size_t n = text ? json_unescape(raw, text, raw.n) : SIZE_MAX;
	if (n == SIZE_MAX || n > 256 || memchr(text, '\0', n)) {
		request_refuse(r, &invalid, "model: not a model's name");
		return STEP_STOP;
	}
	r->model_requested = (struct slice){ text, n };
	r->rec.model_requested = r->model_requested;
	return STEP_NEXT;
}

/* A request's provider, in Portkey's order: the config's target, the config's
 * model, then what the client says, then the default. */
static enum step
resolve_provider(struct request *r, struct slice from_model)
{
	struct slice slug = SLICE_NONE, header = r->known.provider;

	if (header.n && header.p[0] == '@') {
		const char *slash = memchr(header.p, '/', header.n);
		header = (struct slice){ header.p + 1, (slash ? (size_t)(slash - header.p) : header.n) - 1 };
	}
	if (!header.n)
		header = r->known.virtual_key;

	if (r->target->provider.n)
		slug = r->target->provider;	/* of its model's prefix too */
	else if (header.n)
		slug = header;
	else if (from_model.n)
		slug = from_model;
	else
		slug = slice_of(r->plane->settings->default_provider);

	r->provider = r->target->provider.n ? settings_provider_of(r->plane->settings, r->target) :
	    slug.n ? settings_provider(r->plane->settings, slug) : NULL;
	if (!r->provider) {
		if (slug.n)
			request_refuse(r, &invalid, "there is no provider \"%.*s\"", slug.n > 100 ? 100 : (int)slug.n, slug.p);
		else
			request_refuse(r, &invalid, "no provider is configured for this request: name one with "
			    "x-portkey-provider, a config, or a model \"@provider/model\"");
		return STEP_STOP;
	}
	r->rec.provider = slice_of(r->provider->slug);
	return STEP_NEXT;
}

static void
list_allowed(const struct request *r, struct buf *out)
{
	for (uint32_t i = 0; i < r->key->allowed_models_count && out->n < 400; i++)
		buf_printf(out, "%s%s", i ? ", " : "", r->key->allowed_models[i].p);
}

static enum step
check_model_allowed(struct request *r)
{
	struct buf names;

	if (!key_model_allowed(r->key, r->model)) {
		buf_init(&names, 1024);
		list_allowed(r, &names);
		request_refuse(r, &forbidden, "model \"%.*s\" is not allowed for this API key; allowed: %.*s",
		    SLICE_FMT(r->model), SLICE_FMT(buf_slice(&names)));
		buf_free(&names);
		return STEP_STOP;
	}
	bool served = r->provider->models_count == 0;
	for (uint32_t i = 0; i < r->provider->models_count && !served; i++)
		served = slice_glob(slice_of(r->provider->models[i]), r->model);
	if (!served) {
		static const struct refusal_words unknown = {
			.status = 404, .type = "not_found_error", .headers = "", .outcome = OUTCOME_INVALID,
		};
		request_refuse(r, &unknown, "model: %.*s (not offered by provider \"%s\")",
		    SLICE_FMT(r->model), r->provider->slug);
		return STEP_STOP;
	}
	return STEP_NEXT;
}

static enum step
resolve_model(struct request *r)
{
	struct slice slug = SLICE_NONE, bare = r->target->model;

	if (!bare.n)
		config_split_model(r->model_requested, &slug, &bare);
	/* Claude Code's mark for the long context; on the wire it is a beta. */
	if (bare.n > 4 && memcmp(bare.p + bare.n - 4, "[1m]", 4) == 0) {
		bare.n -= 4;
		r->beta_1m = true;
	}
	r->model = bare;
	r->rec.model = bare;
	if (resolve_provider(r, slug) == STEP_STOP || check_model_allowed(r) == STEP_STOP)
		return STEP_STOP;
	if (slice_eq(r->model, r->model_requested) && r->scan->model.n)
		return STEP_NEXT;

	struct buf quoted;
	buf_init(&quoted, 4096);
	buf_add_json(&quoted, r->model);
	char *raw = scratch_dup(&r->body_mem, buf_slice(&quoted));
	size_t n = quoted.n;
	buf_free(&quoted);
	if (!raw || !body_set(r->scan, r->edits, "model", (struct slice){ raw, n }, &r->body_mem)) {
		request_refuse(r, &invalid, "the body with its model is too large");
		return STEP_STOP;
	}
	r->model_remapped = true;
	r->rec.fixed.flags |= RECORD_FLAG(MODEL_REMAPPED);
	return STEP_NEXT;
}

static enum step
check_numbers(struct request *r)
{
	const struct body_scan *s = r->scan;

	if (!s->stream_valid) {
		request_refuse(r, &invalid, "stream: true or false is expected");
		return STEP_STOP;
	}
	/* Above any model's window, the number cannot be meant, and a hold for it
	 * would be absurd. What a model really allows is for its provider to say. */
	if (s->has_max_tokens && (s->max_tokens < 0 || s->max_tokens > 100000000)) {
		request_refuse(r, &invalid, "max_tokens: an integer from 0 to 100000000 is expected");
		return STEP_STOP;
	}
	r->stream = s->stream && r->route == ROUTE_MESSAGES;
	if (r->stream)
		r->rec.fixed.flags |= RECORD_FLAG(STREAM);
	return STEP_NEXT;
}

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
	r->scan = scratch_alloc(&r->body_mem, sizeof(*r->scan));
	r->edits = scratch_alloc(&r->body_mem, sizeof(*r->edits));
	if (!r->scan || !r->edits) {
		request_refuse(r, &invalid, "the request is too large");
		return STEP_STOP;
	}
	r->edits->count = 0;
	if (resolve_metadata(r) == STEP_STOP || resolve_config(r) == STEP_STOP ||
	    scan(r, (struct slice){ r->body, r->body_n }) == STEP_STOP ||
	    choose_target(r) == STEP_STOP || requested_model(r) == STEP_STOP || apply_params(r) == STEP_STOP ||
	    resolve_model(r) == STEP_STOP || check_numbers(r) == STEP_STOP)
		return STEP_STOP;
	r->first_byte_ms = r->target->request_timeout_ms ? r->target->request_timeout_ms :
	    r->plane->settings->limit.first_byte_ms;
	return STEP_NEXT;
}
