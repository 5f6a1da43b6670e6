/*
 * gateway/steps_route.c -- the target: which one, and what it is asked.
 *
 * route_start() takes the walk (policy/route.h) to its first target and enters
 * it. A target whose outcome does not stand is left for the next one by
 * route_on(), from wherever that becomes known: before it was asked (it does not
 * offer the model, a limit of it has no room: STEP_PASS), or by its answer
 * (answer.c). What the request is there, provider, model, body, price, is made
 * anew from what the client sent; nothing of the last target is left.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/admission.h"
#include "gateway/answer.h"
#include "gateway/answer_cache.h"
#include "gateway/conversation.h"
#include "gateway/health_watch.h"
#include "gateway/model_names.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "policy/params.h"
#include "shm/base/clock.h"
#include "shm/metrics.h"

static const struct refusal_words invalid = {
	.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
};
static const struct refusal_words forbidden = {
	.status = 403, .type = "permission_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
};
static const struct refusal_words not_found = {
	.status = 404, .type = "not_found_error", .headers = "", .outcome = OUTCOME_INVALID,
};

#define REASONS_BYTES_MAX 2048	/* of an error's text */

/* ---- the walk ---- */

static bool
usable(void *arg, const struct config_target *t)
{
	return health_usable(arg, t) && conversation_fits(arg, t);
}

static bool
identify(void *arg, const struct config_sticky *s, uint64_t session[2])
{
	return conversation_by_fields(arg, s, session);
}

struct route_facts
route_facts_of(struct request *r)
{
	return (struct route_facts){
		.conditions = &r->conditions, .session = r->conversation.known ? r->conversation.session : NULL, .usable = usable,
		.identify = identify, .arg = r, .random = { r->random[0], r->random[1] }, .preferred = r->preferred,
	};
}

bool
route_may_have_more(struct request *r, int status)
{
	if (!r->config->several_targets)
		return false;
	const struct route_facts facts = route_facts_of(r);
	return route_has_next(&r->walk, &facts, status);
}

bool
route_has_more(struct request *r, int status)
{
	if (!r->config->several_targets)
		return false;
	conversation_look(r);
	return route_may_have_more(r, status);
}

/* ---- the target: provider ---- */

const struct setting_provider *
route_provider_asked(const struct request *r, struct slice from_model, struct slice *name)
{
	const struct settings *s = r->plane->settings;
	struct slice header = r->known.provider;

	if (header.n && header.p[0] == '@') {
		const char *slash = memchr(header.p, '/', header.n);
		*name = (struct slice){ header.p + 1, (slash ? (size_t)(slash - header.p) : header.n) - 1 };
	} else if (header.n) {
		*name = header;
		return settings_provider_named(s, header, true);
	} else {
		*name = SLICE_NONE;
	}
	if (!name->n)
		*name = r->known.virtual_key.n ? r->known.virtual_key : from_model;
	return name->n ? settings_provider(s, *name) : NULL;
}

/* In Portkey's order: the config's target, then what the client says, then the
 * default, then whoever offers the model. NULL: nobody; *unknown is a slug that the
 * client said, if that is why. */
static const struct setting_provider *
provider_of(const struct request *r, const struct plane_target *known, struct slice from_model, struct slice *unknown)
{
	const struct settings *s = r->plane->settings;
	const struct config_target *t = r->at.target;
	const struct setting_provider *p = known ? known->provider : t->provider.n ? settings_provider_of(s, t) : NULL;

	*unknown = SLICE_NONE;
	if (p || t->provider.n)
		return p;
	p = route_provider_asked(r, from_model, unknown);
	if (p)
		*unknown = SLICE_NONE;
	if (p || unknown->n)
		return p;
	return r->plane->default_provider ? r->plane->default_provider : model_provider(r, r->at.model);
}

/* Nothing says who is asked, and nobody is known to have the model. */
static void
refuse_nowhere(struct request *r)
{
	if (!model_allowed(r, r->at.model))
		model_refuse(r, &forbidden, "is not allowed for this API key");
	else if (r->plane->settings->providers_count > 0)
		model_refuse(r, &not_found, "is not known at any provider (x-portkey-provider, a config, or \"@provider/model\" says which one to ask)");
	else
		request_refuse(r, &invalid, "no provider is configured");
}

static enum step
choose_provider(struct request *r, const struct plane_target *known, struct slice from_model)
{
	struct slice unknown;

	r->at.provider = provider_of(r, known, from_model, &unknown);
	if (unknown.n) {
		request_refuse(r, &invalid, "there is no provider \"%.*s\"", unknown.n > 100 ? 100 : (int)unknown.n, unknown.p);
		return STEP_STOP;
	}
	if (!r->at.provider) {
		refuse_nowhere(r);
		return STEP_STOP;
	}
	r->rec.provider = plane_provider(r->plane, r->at.provider)->slug;
	return STEP_NEXT;
}

/* A host from the request's own header, or from its own config, gets no
 * credential that is not its own, unless the operator trusts it: neither the
 * provider's nor that of a saved config. */
static enum step
open_own_endpoint(struct request *r, struct slice credential, const struct host_url *host, bool from_client)
{
	bool own_credential = credential.n > 0 && r->config_inline;
	char why[256];

	if (host && from_client && !host->trusted && !own_credential) {
		request_refuse(r, &invalid, "Invalid custom host: a stored credential goes to hosts that the operator trusts only "
		    "(setting custom_hosts.trusted); bring an api_key of your own");
		return STEP_STOP;
	}
	if (!endpoint_open(&r->own_endpoint, r->worker->upstream, r->at.provider, credential, host, why, sizeof(why))) {
		request_refuse(r, &invalid, "this target cannot be used: %s", why);
		return STEP_STOP;
	}
	r->at.endpoint = &r->own_endpoint;
	return STEP_NEXT;
}

static enum step
choose_endpoint(struct request *r, const struct plane_target *known)
{
	const struct settings *s = r->plane->settings;
	const struct config_target *t = r->at.target;
	struct host_url host;
	const char *why;

	if (r->known.custom_host.n) {
		if (!host_check(r->known.custom_host, &s->custom_hosts, &host, &why)) {
			request_refuse(r, &invalid, "Invalid custom host: x-portkey-custom-host: %s", why);
			return STEP_STOP;
		}
		return open_own_endpoint(r, t->api_key, &host, true);
	}
	if (known && known->endpoint.target)
		r->at.endpoint = &known->endpoint;
	else if (t->use_custom_host || t->api_key.n)	/* also of a saved config whose provider the request says */
		return open_own_endpoint(r, t->api_key, t->use_custom_host ? &t->custom_host : NULL, r->config_inline != NULL);
	else
		r->at.endpoint = &plane_provider(r->plane, r->at.provider)->endpoint;
	return STEP_NEXT;
}

/* ---- the target: body ---- */

/* Parameters may change what limits and prices look at (max_tokens, tools), so
 * the edited body is made and scanned like a client's own. */
static enum step
make_body(struct request *r)
{
	const struct config_target *t = r->at.target;
	struct json_error scan_why;
	struct slice edited;
	const char *why;

	r->at.edits = scratch_alloc(&r->body_mem, sizeof(*r->at.edits));
	if (!r->at.edits) {
		request_refuse(r, &invalid, "the request is too large");
		return STEP_STOP;
	}
	r->at.edits->count = 0;
	r->at.scan = r->at.asked;
	if (!t->edits_body)
		return STEP_NEXT;
	const struct params params = {
		.defaults = t->default_params, .defaults_count = t->default_params_count,
		.overrides = t->override_params, .overrides_count = t->override_params_count,
		.drops = t->drop_params, .drops_count = t->drop_params_count,
	};
	if (!params_apply(r->at.asked, &params, &r->target_mem, &edited, &why)) {
		request_refuse(r, &invalid, "the parameters of %.*s: %s", SLICE_FMT(r->rec.target), why);
		return STEP_STOP;
	}
	if (edited.p == r->at.asked->body.p)
		return STEP_NEXT;
	r->at.scan = scratch_alloc(&r->target_mem, sizeof(*r->at.scan));
	if (!r->at.scan || !body_scan(edited, r->at.scan, &scan_why)) {
		request_refuse(r, &invalid, "the body with the parameters of %.*s is too large", SLICE_FMT(r->rec.target));
		return STEP_STOP;
	}
	return STEP_NEXT;
}

/* The name that goes upstream, where the body says another one. */
static enum step
set_model(struct request *r)
{
	struct buf quoted;
	char *raw;

	if (r->at.scan->model.n && slice_eq(r->at.model, r->model_requested))
		return STEP_NEXT;
	buf_init(&quoted, 4096);
	buf_add_json(&quoted, r->at.model);
	raw = scratch_dup(&r->body_mem, buf_slice(&quoted));
	size_t n = quoted.n;
	buf_free(&quoted);
	if (!raw || !body_set(r->at.scan, r->at.edits, "model", (struct slice){ raw, n }, &r->body_mem)) {
		request_refuse(r, &invalid, "the body with its model is too large");
		return STEP_STOP;
	}
	if (r->model_requested.n && !slice_eq(r->at.model, r->model_requested)) {
		r->at.model_remapped = true;
		r->rec.fixed.flags |= RECORD_FLAG(MODEL_REMAPPED);
	}
	return STEP_NEXT;
}

static enum step
check_numbers(struct request *r)
{
	const struct body_scan *s = r->at.scan;

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
	r->at.stream = s->stream && r->route == ROUTE_MESSAGES;
	if (r->at.stream)
		r->rec.fixed.flags |= RECORD_FLAG(STREAM);
	return STEP_NEXT;
}

/* ---- the target: model ---- */

/* false: none is named anywhere. */
static bool
choose_model(struct request *r, struct slice *from_model)
{
	const struct config_target *t = r->at.target;
	struct slice named = t->model.n ? t->model : r->model_named.n ? r->model_named : t->default_model, bare;

	config_split_model(named, from_model, &bare);
	if (t->model.n)
		*from_model = SLICE_NONE;	/* its prefix is the target's provider */
	/* Claude Code's mark for the long context; on the wire it is a beta. */
	if (bare.n > 4 && memcmp(bare.p + bare.n - 4, "[1m]", 4) == 0) {
		bare.n -= 4;
		r->at.beta_1m = true;
	}
	r->at.model = r->rec.model = bare;
	return bare.n > 0;
}

/* Refuses unless another target may have it. */
static enum step
check_model(struct request *r)
{
	if (!model_allowed(r, r->at.model)) {
		model_refuse(r, &forbidden, "is not allowed for this API key");
		return STEP_STOP;
	}
	if (!r->at.provider->models_count || model_offered(r->at.provider, r->at.model))
		return STEP_NEXT;
	if (route_has_more(r, not_found.status)) {
		r->passed_status = not_found.status;
		return STEP_PASS;
	}
	model_refuse(r, &not_found, "is not offered by this provider");
	return STEP_STOP;
}

/* ---- the target as a whole ---- */

static void
choose_time(struct request *r)
{
	const struct settings *s = r->plane->settings;
	int64_t header_ms;

	r->at.own_time = true;
	if (r->known.request_timeout.n && slice_to_i64(r->known.request_timeout, &header_ms)) {	/* steps_admit.c has looked at it */
		r->at.first_byte_ms = (uint32_t)header_ms;
	} else if (r->at.target->request_timeout_ms) {
		r->at.first_byte_ms = r->at.target->request_timeout_ms;
	} else {
		r->at.first_byte_ms = s->limit.first_byte_ms;
		r->at.own_time = false;
	}
}

static void
target_leave(struct request *r)
{
	health_leave(r);
	endpoint_close(&r->own_endpoint);
	scratch_reset(&r->target_mem);
	r->at = (struct at_target){ .target = NULL };
	r->rec.price = r->limit_lines = SLICE_NONE;
	r->rec.fixed.flags &= ~(RECORD_FLAG(STREAM) | RECORD_FLAG(MODEL_REMAPPED) | RECORD_FLAG(UNPRICED) | RECORD_FLAG(CLAMPED) |
	    RECORD_FLAG(COUNTED));
}

static enum step
enter_conversation(struct request *r)
{
	switch (conversation_enter(r)) {
	case CONVERSATION_ENTERS:
		return STEP_NEXT;
	case CONVERSATION_BOUND:
		return STEP_OUT;
	case CONVERSATION_NO_MEMORY:
		break;
	}
	request_refuse(r, &invalid, "the request is too large");
	return STEP_STOP;
}

enum step
target_choose(struct request *r, const struct config_target *t)
{
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);
	struct slice from_model;

	if (r->at.target)
		target_leave(r);
	r->at.target = t;
	r->rec.target = r->config->nodes[t->node].path;
	if (!choose_model(r, &from_model)) {
		request_refuse(r, &invalid, "model: field required");
		return STEP_STOP;
	}
	if (choose_provider(r, known, from_model) == STEP_STOP || choose_endpoint(r, known) == STEP_STOP)
		return STEP_STOP;
	return check_model(r);
}

enum step
target_make(struct request *r)
{
	enum step step;

	r->at.asked = r->asked;
	if (r->config->several_targets && (step = enter_conversation(r)) != STEP_NEXT)
		return step;
	if (make_body(r) == STEP_STOP || set_model(r) == STEP_STOP || check_numbers(r) == STEP_STOP)
		return STEP_STOP;
	choose_time(r);
	return STEP_NEXT;
}

static enum step
target_enter(struct request *r, const struct config_target *t)
{
	enum step step = target_choose(r, t);

	if (step != STEP_NEXT)
		return step;
	if ((t->breaker || r->config->several_targets) && !health_enter(r))
		return STEP_OUT;	/* somebody else probes it by now */
	if ((step = target_make(r)) != STEP_NEXT)
		return step;
	if ((t->cache.mode != CONFIG_CACHE_OFF || r->cache.role != CACHE_ASIDE) && (step = cache_step(r)) != STEP_NEXT)
		return step;
	return step_admit(r);
}

/* ---- from one to the next ---- */

static void
refuse_no_match(struct request *r)
{
	request_refuse(r, &invalid, "Query router did not resolve to any valid target (%.*s): no condition holds, and there is no default",
	    SLICE_FMT(r->config->nodes[r->walk.at].path));
}

/* Why this target cannot be used, and when it may be asked again; 0: not known. */
static int64_t
add_reason(struct request *r, const struct config_target *t, struct buf *out)
{
	struct slice path = r->config->nodes[t->node].path;
	int64_t over_in_ns = 0;
	struct buf reason;

	buf_init(&reason, REASONS_BYTES_MAX);
	if (!conversation_fits(r, t))
		conversation_reason(r, &reason);
	else
		over_in_ns = health_reason(r, t, &reason);
	if (reason.n > 0 && out->n + path.n + reason.n < REASONS_BYTES_MAX)
		buf_printf(out, "%s%.*s: %.*s", out->n ? "; " : "", SLICE_FMT(path), SLICE_FMT(buf_slice(&reason)));
	buf_free(&reason);
	return over_in_ns;
}

/* Who waits as long as he is told finds a target that is asked again; a conversation
 * that is bound to an account that the config does not have need not try. */
static void
refuse_all_out(struct request *r)
{
	struct refusal_words words = { .status = 503, .type = "api_error", .headers = "", .outcome = OUTCOME_REFUSED };
	int64_t first_ns = INT64_MAX;
	struct buf reasons;
	char wait[64];

	buf_init(&reasons, 2 * REASONS_BYTES_MAX);
	for (uint32_t i = 0; i < r->config->targets_count; i++) {
		int64_t over_in_ns = add_reason(r, &r->config->targets[i], &reasons);

		if (over_in_ns > 0 && over_in_ns < first_ns)
			first_ns = over_in_ns;
	}
	if (reasons.n == 0 && conversation_bound(r))	/* its targets' accounts are the request's to say */
		conversation_reason(r, &reasons);
	if (first_ns < INT64_MAX) {
		snprintf(wait, sizeof(wait), "retry-after: %lld\r\n", (long long)((first_ns + NS_PER_S - 1) / NS_PER_S));
		words.headers = wait;
	} else if (conversation_bound(r)) {
		words.headers = "x-should-retry: false\r\n";
	}
	request_refuse(r, &words, "no target of config \"%.*s\" can be used now: %.*s", SLICE_FMT(r->rec.config),
	    SLICE_FMT(buf_slice(&reasons)));
	buf_free(&reasons);
}

void
route_refuse(struct request *r, enum route_step step)
{
	if (step == ROUTE_NO_MATCH)
		refuse_no_match(r);
	else
		refuse_all_out(r);
}

/* From a target whose outcome was `status`. */
static enum route_step
leave_for_next(struct request *r, int status)
{
	const struct route_facts facts = route_facts_of(r);
	enum route_step step = route_next(&r->walk, &facts, status);

	if (step == ROUTE_TARGET)
		metrics_add(r->worker->arena, r->worker->index, COUNTER_FALLBACKS, 1);
	return step;
}

static enum route_step
take_another(struct request *r)
{
	const struct route_facts facts = route_facts_of(r);

	return route_again(&r->walk, &facts);
}

static void
walk_on(struct request *r, enum route_step step)
{
	/* Each turn enters another target, or finds that somebody else was faster. */
	for (uint32_t turns = 0; turns <= r->config->targets_count; turns++) {
		if (step != ROUTE_TARGET) {	/* OVER: it could have gone on a moment ago */
			route_refuse(r, step);
			return;
		}
		switch (target_enter(r, r->walk.target)) {
		case STEP_NEXT:
			attempt_start(r);
			return;
		case STEP_STOP:
			return;
		case STEP_PASS:
			step = leave_for_next(r, r->passed_status);
			break;
		case STEP_OUT:
			step = take_another(r);
			break;
		}
	}
	refuse_all_out(r);	/* they come and go faster than they can be taken */
}

void
route_resume(struct request *r, enum step entered)
{
	if (entered == STEP_NEXT)
		attempt_start(r);
	else if (entered == STEP_PASS)
		route_on(r, r->passed_status);
}

void
route_on(struct request *r, int status)
{
	walk_on(r, leave_for_next(r, status));
}

enum route_step
route_first(struct request *r)
{
	if (r->config->nodes_count == 1) {	/* there is no choice */
		r->walk.config = r->config;
		r->walk.target = &r->config->targets[0];
		r->walk.steps = 0;
		return ROUTE_TARGET;
	}
	r->conditions = (struct condition_facts){
		.metadata = r->rec.metadata, .params = r->asked, .pathname = route_rows[r->route].path,
	};
	r->preferred = ROUTE_ANY;
	if (r->config->has_choice) {
		r->random[0] = worker_random(r->worker, 0);
		r->random[1] = worker_random(r->worker, 1);
	}
	if (r->config->several_targets)
		conversation_begin(r);
	else	/* the walk asks about it all the same, and what is in there is an earlier request's */
		r->conversation = (struct conversation){ .known = false };
	const struct route_facts facts = route_facts_of(r);
	enum route_step step = route_begin(&r->walk, r->config, &facts);

	if (step != ROUTE_TARGET || !r->config->several_targets)
		return step;
	r->preferred = conversation_home(r, r->walk.target);
	if (r->preferred == ROUTE_ANY && !conversation_bound(r))
		return step;
	const struct route_facts bound = route_facts_of(r);
	return route_begin(&r->walk, r->config, &bound);
}

void
route_start(struct request *r)
{
	r->deadline_ms = worker_now_ms(r->worker) + r->plane->settings->routing.total_ms;
	walk_on(r, route_first(r));
}
