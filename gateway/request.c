/*
 * gateway/request.c -- see request.h: the life of a request and its one way out.
 */
#include "gateway/request.h"

#include <stdio.h>
#include <stdlib.h>

#include "gateway/admission.h"
#include "gateway/answer_cache.h"
#include "gateway/health_watch.h"
#include "gateway/limits.h"
#include "gateway/reply.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define KEPT_REQUESTS_MAX 1024		/* structs kept for reuse: about 2 MiB */
#define SCRATCH_MAX (1u << 20)	/* heads, decisions, records */

__extension__ typedef unsigned __int128 wide;	/* ISO C has no name for it */

static struct {
	struct request *free;
	unsigned count;
} pool;

/* "req_" and 22 characters of base 62, 128 bits: unique, not secret. */
static void
make_id(struct request *r)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	char *out = r->id + 4;

	memcpy(r->id, "req_", 4);
	for (int half = 0; half < 2; half++) {
		uint64_t z = worker_random(r->worker, half);

		/* The first digits of the fraction z / 2^64: eleven tell every z
		 * from its neighbours, and each takes one multiplication. */
		for (int i = 0; i < 11; i++) {
			wide product = (wide)z * 62;

			*out++ = digits[(uint64_t)(product >> 64)];
			z = (uint64_t)product;
		}
	}
	*out = '\0';
}

struct request *
request_new(struct client *c)
{
	struct request *r = pool.free;

	if (r) {
		pool.free = r->next;
		pool.count--;
	} else {
		r = malloc(sizeof(*r));
		if (!r)
			return NULL;
	}
	memset(r, 0, offsetof(struct request, known));
	r->client = c;
	r->worker = c->worker;
	r->plane = plane_get(c->worker->plane);

	uint64_t body_max = r->plane->settings->limit.body_bytes;
	scratch_init(&r->mem, SCRATCH_MAX);
	scratch_init(&r->body_mem, 2 * body_max + SCRATCH_MAX);	/* twice: an encoding of it is built to have its prompt counted */
	scratch_init(&r->target_mem, 3 * body_max + SCRATCH_MAX);	/* with its parameters, without state of another account */
	buf_init(&r->body_grown, body_max);
	buf_init(&r->held, body_max);
	buf_init(&r->tail, SSE_TAIL_BYTES_MAX + HTTP_READ_BYTES);
	buf_init(&r->late_error, 65536);
	r->start_mono_ns = clock_mono_ns();
	r->start_wall_ns = clock_wall_ns();
	r->head.content_length = -1;
	r->keep_alive = true;
	r->rec.fixed.version = RECORD_VERSION;
	r->rec.fixed.start_wall_ns = r->start_wall_ns;
	/* Its own copy: a record that waits for room outlives the connection. */
	struct slice address = { c->address, c->address_bytes };
	char *kept = scratch_dup(&r->mem, address);
	r->rec.remote_address = kept ? (struct slice){ kept, address.n } : SLICE_NONE;
	make_id(r);
	r->rec.request_id = (struct slice){ r->id, REQUEST_ID_BYTES - 1 };
	return r;
}

void
request_free(struct request *r)
{
	CHECK(r->page == NULL && r->exchange == NULL && r->admission == ADMISSION_OPEN);
	timepoint_remove(&r->quiet);
	if (r->attempt.tap)
		usage_tap_free(r->attempt.tap);
	if (r->own_endpoint.target)
		endpoint_close(&r->own_endpoint);
	if (r->key)
		key_cache_put(r->worker->keys, r->key);
	if (r->config_inline)
		config_put(r->config_inline);
	buf_free(&r->body_grown);
	buf_free(&r->held);
	buf_free(&r->tail);
	buf_free(&r->late_error);
	scratch_reset(&r->body_mem);
	scratch_reset(&r->target_mem);
	scratch_reset(&r->mem);
	plane_put(r->plane);
	if (pool.count < KEPT_REQUESTS_MAX) {
		r->next = pool.free;
		pool.free = r;
		pool.count++;
	} else {
		free(r);
	}
}

/* ---- what came ---- */

static const struct refusal_words not_found = {
	.status = 404, .type = "not_found_error", .headers = "", .outcome = OUTCOME_INVALID,
};

static void
describe_caller(struct request *r)
{
	struct slice trace = r->known.trace_id;

	client_family(r->known.user_agent, &r->rec.client, &r->rec.client_version);
	r->rec.session_id = r->known.session_id;
	if (!trace.n) {
		/* W3C trace context: 00-<32 hex trace id>-<16 hex parent>-<flags>. */
		struct slice parent = r->known.traceparent;
		if (parent.n >= 55 && parent.p[2] == '-')
			trace = (struct slice){ parent.p + 3, 32 };
	}
	r->rec.trace_id = trace.n && trace.n <= 256 ? trace : r->rec.request_id;
}

static bool
head_is_acceptable(struct request *r)
{
	static const struct refusal_words draining = {
		.status = 503, .type = "api_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	static const struct refusal_words wrong_method = {
		.status = 405, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	struct slice path;

	enum route_match match = route_find(r->head.method, r->head.target,
	    slice_of(r->plane->settings->path_prefix), &r->route, &path, &r->query, &r->model_id);
	if (match == ROUTE_UNKNOWN) {
		request_refuse(r, &not_found, "there is no endpoint %.*s here",
		    path.n > 200 ? 200 : (int)path.n, path.n ? path.p : "");
		return false;
	}
	if (match == ROUTE_METHOD) {
		request_refuse(r, &wrong_method, "%.*s is not a method of this endpoint",
		    SLICE_FMT(r->head.method));
		return false;
	}
	r->rec.fixed.route = (uint8_t)r->route;
	r->rec.route_name = route_rows[r->route].name;
	if (r->worker->draining && route_rows[r->route].governed) {
		r->keep_alive = false;
		request_refuse(r, &draining, "this gateway is restarting; try again");
		return false;
	}
	return true;
}

static bool
body_is_acceptable(struct request *r)
{
	static const struct refusal_words invalid = {
		.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	static const struct refusal_words too_large = {
		.status = 413, .type = "request_too_large", .headers = "", .outcome = OUTCOME_INVALID,
	};
	struct slice encoding = r->known.content_encoding;
	struct slice type = r->known.content_type;
	uint64_t most = r->plane->settings->limit.body_bytes;

	if (encoding.n && !slice_ieq(encoding, SLICE("identity"))) {
		request_refuse(r, &invalid, "content-encoding \"%.*s\" is not supported: send the body uncompressed",
		    encoding.n > 40 ? 40 : (int)encoding.n, encoding.p);
		return false;
	}
	if (route_rows[r->route].reaches_provider && type.n &&
	    !(type.n >= 16 && slice_ieq((struct slice){ type.p, 16 }, SLICE("application/json")))) {
		request_refuse(r, &invalid, "content-type must be application/json, not \"%.*s\"",
		    type.n > 80 ? 80 : (int)type.n, type.p);
		return false;
	}
	if (r->head.content_length > 0 && (uint64_t)r->head.content_length > most) {
		r->keep_alive = false;
		request_refuse(r, &too_large, "the body has %lld bytes; the limit is %llu",
		    (long long)r->head.content_length, (unsigned long long)most);
		return false;
	}
	return true;
}

void
request_head(struct request *r)
{
	r->keep_alive = r->head.keep_alive;
	r->head_method = slice_eq(r->head.method, SLICE("HEAD"));
	headers_find(&r->head, &r->known);
	describe_caller(r);
	if (!head_is_acceptable(r))
		return;
	if (route_rows[r->route].needs_key && step_authenticate(r) == STEP_STOP)
		return;
	if (route_rows[r->route].governed)
		limits_prefetch(r->worker->arena, r->key);
	if (!body_is_acceptable(r))
		return;
	if (r->head.content_length > 0) {
		r->body_room = (size_t)r->head.content_length;
		r->body = scratch_alloc(&r->body_mem, r->body_room);
		if (!r->body) {
			static const struct refusal_words no_memory = {
				.status = 503, .type = "overloaded_error", .headers = "retry-after: 1\r\n",
				.outcome = OUTCOME_REFUSED,
			};
			request_refuse(r, &no_memory, "out of memory");
			return;
		}
	}
	if (r->head.expect_continue && r->head.content_length != 0)
		stream_write(&r->client->stream, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
}

bool
request_body(struct request *r, const char *p, size_t n)
{
	static const struct refusal_words too_large = {
		.status = 413, .type = "request_too_large", .headers = "", .outcome = OUTCOME_INVALID,
	};

	if (r->is_deferred)
		return true;
	if (r->body) {
		CHECK(n <= r->body_room - r->body_n);	/* the parser keeps to content-length */
		memcpy(r->body + r->body_n, p, n);
		r->body_n += n;
		return true;
	}
	buf_add(&r->body_grown, p, n);
	if (r->body_grown.overflow) {
		r->keep_alive = false;
		request_refuse(r, &too_large, "the body is longer than the limit of %llu bytes",
		    (unsigned long long)r->plane->settings->limit.body_bytes);
		return false;
	}
	return true;
}

/* ---- what is done ---- */

static void
serve_ready(struct request *r)
{
	/* Who takes no requests answers 503, so that balancers turn away. */
	if (r->worker->draining)
		request_reply(r, 503, "application/json", "", SLICE("{\"status\":\"draining\"}"));
	else if (arena_store_failing(r->worker->arena))
		request_reply(r, 503, "application/json", "", SLICE("{\"status\":\"the store cannot be written\"}"));
	else
		request_reply(r, 200, "application/json", "", SLICE("{\"status\":\"ready\"}"));
}

static void
serve_provider_route(struct request *r)
{
	struct worker *w = r->worker;

	if (admission_refuse_failing(r))
		return;
	if (worker_intake_paused(w)) {
		if (w->parked_last)
			w->parked_last->next = r;
		else
			w->parked = r;
		w->parked_last = r;
		r->is_parked = true;
		return;
	}
	if (step_resolve(r) == STEP_NEXT)
		route_start(r);
}

void
request_run(struct request *r)
{
	r->body_complete = true;
	r->is_parked = false;
	r->next = NULL;
	if (r->is_deferred) {
		request_refuse_now(r, &r->deferred, r->deferred_message);
		return;
	}
	if (!r->body) {
		r->body = r->body_grown.p;
		r->body_n = r->body_grown.n;
	}
	r->rec.fixed.request_bytes = (int64_t)r->body_n;
	switch (r->route) {
	case ROUTE_MESSAGES:
	case ROUTE_COUNT_TOKENS:
		serve_provider_route(r);
		break;
	case ROUTE_MODELS:
		models_list(r);
		break;
	case ROUTE_MODEL:
		models_one(r);
		break;
	case ROUTE_ROOT:
		/* The text that Portkey's own gateway answers: some probes look for it. */
		request_reply(r, 200, "text/plain", "", SLICE("AI Gateway says hey!"));
		break;
	case ROUTE_HELLO:
	case ROUTE_HEALTHZ:
		request_reply(r, 200, "application/json", "", SLICE("{\"status\":\"ok\"}"));
		break;
	case ROUTE_READYZ:
		serve_ready(r);
		break;
	case ROUTE_NONE:
	case ROUTE_COUNT:
		CHECK(!"a request without a route is refused at its head");
		break;
	}
}

static void
unpark(struct request *r)
{
	struct worker *w = r->worker;
	struct request **link = &w->parked, *last = NULL;

	for (; *link && *link != r; link = &(*link)->next)
		last = *link;
	CHECK(*link == r);
	*link = r->next;
	if (w->parked_last == r)
		w->parked_last = last;
	r->is_parked = false;
}

void
request_client_gone(struct request *r)
{
	if (r->is_parked)
		unpark(r);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_CLIENT_GONE, 1);
	r->client = NULL;
	request_finish(r, OUTCOME_CLIENT_GONE, false);
}

void
request_finish(struct request *r, enum record_outcome outcome, bool complete)
{
	struct client *c = r->client;
	bool keep_alive = r->keep_alive, body_complete = r->body_complete;

	CHECK(!r->finished);
	r->finished = true;
	if (r->exchange) {
		exchange_cancel(r->exchange);
		r->exchange = NULL;
	}
	timepoint_remove(&r->quiet);
	if (r->timer_of != TIMER_NONE)
		deadline_clear(&r->timer);
	if (r->admission != ADMISSION_OPEN)
		admission_leave(r);
	health_leave(r);
	cache_leave(r);
	r->client = NULL;
	step_settle(r, outcome);
	if (r->page || r->unrecorded) {		/* no room: the worker's tick goes on with it */
		r->next = r->worker->unsettled;
		r->worker->unsettled = r;
		r->worker->unsettled_count++;
	} else {
		request_free(r);
	}
	if (!c)
		return;
	if (!complete)
		client_abort(c);
	else if (!body_complete)
		client_refuse_early(c);
	else
		client_answered(c, keep_alive);
}
