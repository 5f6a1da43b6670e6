/*
 * tests/unit/routing_fixture.h -- settings with all that a worker makes of them,
 * an arena, and requests that are at a target of a config: for what is decided
 * there without a network.
 */
#ifndef WEIR_TESTS_UNIT_ROUTING_FIXTURE_H
#define WEIR_TESTS_UNIT_ROUTING_FIXTURE_H

#include "tests/unit/arena_fixture.h"
#include "tests/unit/loop.h"
#include "tests/unit/settings_fixture.h"

#include "gateway/health_watch.h"
#include "gateway/plane.h"
#include "gateway/request.h"

struct routing {
	struct loaded loaded;
	struct test_loop loop;
	struct upstream *upstream;
	struct plane *plane;
	struct fixture shm;
	struct worker worker;
};

static inline void
routing_open(struct routing *w, const char *settings)
{
	memset(w, 0, sizeof(*w));
	w->loaded = accepted(settings);
	test_loop_init(&w->loop);
	w->upstream = upstream_new(&w->loop.uv);
	assert_non_null(w->upstream);
	w->plane = plane_new(w->upstream, w->loaded.s, NULL, false);
	assert_non_null(w->plane);
	fixture_open(&w->shm, (struct arena_sizes){ .workers = 2, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	w->worker.arena = &w->shm.arena;
	w->worker.plane = w->plane;
	health_watch_name(w->plane, w->worker.arena);
}

static inline void
routing_close(struct routing *w)
{
	plane_put(w->plane);
	upstream_free(w->upstream);
	test_loop_free(&w->loop);
	fixture_close(&w->shm);
	done(&w->loaded);
}

/* With a body, of a session that a header names; NULL: none. */
static inline struct request *
routing_ask(struct routing *w, const char *config, const char *body, const char *session)
{
	struct request *r = calloc(1, sizeof(*r));
	struct json_error why;

	assert_non_null(r);
	r->worker = &w->worker;
	r->plane = w->plane;
	r->route = ROUTE_MESSAGES;
	r->config = settings_config(w->plane->settings, slice_of(config));
	assert_non_null(r->config);
	r->rec.config = r->config->slug;
	r->rec.key_id = SLICE("key_1");
	r->known.session_id = session ? slice_of(session) : SLICE_NONE;
	r->start_mono_ns = clock_mono_ns();
	scratch_init(&r->body_mem, 16 << 20);
	scratch_init(&r->target_mem, 16 << 20);
	r->asked = scratch_alloc(&r->body_mem, sizeof(*r->asked));
	assert_non_null(r->asked);
	if (!body_scan(slice_of(body), r->asked, &why))
		fail_msg("%s at %zu: %s", why.what, why.offset, body);
	return r;
}

static inline const struct config_target *
routing_target(const struct request *r, uint32_t number)
{
	assert_true(number < r->config->targets_count);
	return &r->config->targets[number];
}

/* As target_enter() does it, so far as it is about where the request is. */
static inline void
routing_at(struct request *r, uint32_t number, const char *model)
{
	const struct config_target *t = routing_target(r, number);
	const struct plane_target *known = plane_target_of(r->plane, r->config, t);

	scratch_reset(&r->target_mem);
	r->at = (struct at_target){ .target = t, .provider = known->provider, .asked = r->asked, .model = slice_of(model) };
	r->at.endpoint = known->endpoint.target ? &known->endpoint : &plane_provider(r->plane, known->provider)->endpoint;
	r->rec.target = r->config->nodes[t->node].path;
	assert_non_null(r->at.provider);
}

static inline void
routing_forget(struct request *r)
{
	scratch_reset(&r->target_mem);
	scratch_reset(&r->body_mem);
	free(r);
}

#endif
