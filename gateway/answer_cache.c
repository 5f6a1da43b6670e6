/*
 * gateway/answer_cache.c -- see answer_cache.h.
 *
 * The desk looks every few milliseconds, while somebody waits or an answer of ours
 * is on its way into the store. Of those who wait for one key the first is asked
 * for; the others follow if it was found.
 */
#include "gateway/answer_cache.h"

#include <stdlib.h>

#include "gateway/cache_mail.h"
#include "gateway/relay.h"
#include "gateway/request.h"
#include "policy/canon.h"
#include "shm/base/clock.h"
#include "shm/claims.h"
#include "shm/metrics.h"
#include "store/cache.h"

#define LOOK_MS 5		/* between two looks for those who wait */
#define SERVED_PER_LOOK 256	/* the rest waits for the next one: others have requests too */
#define MISSES_PER_LOOK 64	/* keys that one look finds nothing for */
#define SHOWING_MAX 256		/* answers on their way into the store */
#define SHOWING_MS 1000		/* the keeper stores them within a few milliseconds, or is gone */

struct cache_desk {
	struct worker *worker;
	struct cache *store;
	int mail_fd;		/* to the keeper */
	uv_timer_t look;
	struct timeline waits;		/* by when they began to */
	uint32_t waits_count;
	struct { uint64_t key[2]; uint64_t until_ms; } showing[SHOWING_MAX];
	uint32_t showing_count;
};

static void on_look(uv_timer_t *timer);

static struct key128
claim_of(const uint64_t key[2])
{
	return (struct key128){ key[0], key[1] };
}

/* ---- the desk ---- */

struct cache_desk *
cache_desk_open(struct worker *w, int mail_fd)
{
	struct cache_desk *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->worker = w;
	d->store = cache_open_read(w->plane->settings->data_dir);
	d->mail_fd = mail_fd;
	timeline_init(&d->waits, 0);
	d->look.data = d;
	if (!d->store || uv_timer_init(&w->loop, &d->look) != 0) {
		cache_desk_free(d);
		return NULL;
	}
	return d;
}

void
cache_desk_tick(struct cache_desk *d)
{
	cache_look(d->store);
}

void
cache_desk_stop(struct cache_desk *d)
{
	struct arena *a = d->worker->arena;

	for (uint32_t i = 0; i < d->showing_count; i++)
		claim_drop(a, claim_of(d->showing[i].key), d->worker->index);
	d->showing_count = 0;
	if (!uv_is_closing((uv_handle_t *)&d->look))
		uv_close((uv_handle_t *)&d->look, NULL);
}

void
cache_desk_free(struct cache_desk *d)
{
	if (!d)
		return;
	cache_close(d->store);
	free(d);
}

static void
look_soon(struct cache_desk *d)
{
	if (!uv_is_active((uv_handle_t *)&d->look))
		CHECK(uv_timer_start(&d->look, on_look, LOOK_MS, LOOK_MS) == 0);
}

/* ---- the key ---- */

static int64_t
max_age_ns(const struct request *r)
{
	const struct config_cache *c = &r->at.target->cache;
	struct slice control = r->known.cache_control;
	int64_t s = 0;

	if (!c->max_age_s && slice_starts(control, SLICE("max-age=")) &&
	    !slice_to_i64((struct slice){ control.p + 8, control.n - 8 }, &s))
		s = 0;
	return (int64_t)config_cache_age(c->max_age_s ? (int64_t)c->max_age_s : s) * NS_PER_S;
}

/* Those of the client that its provider looks at: versions and betas, of which
 * there may be several lines, and what was listed to be forwarded. */
static void
add_headers(struct canon_key *k, const struct request *r)
{
	for (uint32_t i = 0; i < r->head.headers_count; i++) {
		const struct http1_header *h = &r->head.headers[i];

		if (!slice_starts(h->name, SLICE("anthropic-")) && !serve_forwards(r, h->name))
			continue;
		canon_add(k, h->name);
		canon_add(k, h->value);
	}
	canon_add(k, SLICE_NONE);
}

/* false: there is no cache. */
static bool
make_key(struct request *r, uint64_t out[2])
{
	struct slice space = r->known.cache_namespace;
	struct canon_key k;
	struct json_error why;
	uint64_t secret[2];

	if (!cache_secret(r->worker->cache->store, secret))
		return false;
	canon_begin(&k, secret);
	canon_add(&k, r->rec.route_name);
	canon_add(&k, r->query);
	canon_add(&k, r->rec.workspace);
	/* Nobody sees another's answers unless they name a space that they share. */
	canon_add(&k, space.n ? SLICE_NONE : r->rec.key_id);
	canon_add(&k, space);
	if (!space.n && !canon_add_json(&k, r->rec.metadata, &why))
		return false;
	/* Not the version: texts with the same 32 bits of a digest are found in minutes. */
	canon_add(&k, r->config_inline ? r->known.config : r->rec.config);
	canon_add(&k, r->known.custom_host);
	add_headers(&k, r);
	canon_add(&k, r->at.model);
	if (!canon_add_json(&k, r->at.scan->body, &why))
		return false;
	canon_end(&k, out);
	return true;
}

/* ---- looking ---- */

static bool
is_there(struct cache_desk *d, const uint64_t key[2])
{
	struct cache_entry entry;
	bool found = cache_get(d->store, key, clock_wall_ns(), &entry);

	if (found)
		cache_done(d->store);
	return found;
}

/* NEXT: a hit, or a miss that this request fetches. STOP: somebody else does. */
static enum step
look_for(struct request *r)
{
	struct cache_desk *d = r->worker->cache;
	struct cache_part *c = &r->cache;
	struct arena *a = r->worker->arena;
	bool found;

	/* Again with the claim: it may have been stored between two looks. */
	for (int looks = 0; looks < 2; looks++) {
		found = is_there(d, c->key);
		if (found || looks > 0)
			break;
		switch (claim_take(a, claim_of(c->key), r->worker->index)) {
		case CLAIM_TAKEN:
			c->claimed = true;
			break;
		case CLAIM_OTHERS:
			return STEP_STOP;
		case CLAIM_COLLISION:
			looks = 1;
			break;
		}
	}
	if (found && c->claimed) {
		claim_drop(a, claim_of(c->key), r->worker->index);
		c->claimed = false;
	}
	c->from_cache = found;
	c->role = found ? CACHE_ASIDE : CACHE_FETCHES;
	r->rec.fixed.cache = found ? CACHE_HIT : CACHE_MISS;
	metrics_add(a, r->worker->index, found ? COUNTER_CACHE_HITS : COUNTER_CACHE_MISSES, 1);
	return STEP_NEXT;
}

/* x-portkey-debug: false asks for nothing to be kept of it. */
static bool
keeps(const struct request *r)
{
	return !slice_ieq(r->known.debug, SLICE("false"));
}

static enum step
refresh(struct request *r)
{
	struct worker *w = r->worker;

	/* Where that fails, what is there stays until the new answer replaces it. */
	(void)!cache_mail_delete(w->cache->mail_fd, r->cache.key, w->arena, w->index);
	r->cache.role = CACHE_FETCHES;
	r->rec.fixed.cache = CACHE_REFRESH;
	return STEP_NEXT;
}

/* Without a claim: what is not there is fetched, and not kept. */
static enum step
look_only(struct request *r)
{
	struct cache_desk *d = r->worker->cache;
	bool found = is_there(d, r->cache.key);

	r->cache.from_cache = found;
	r->rec.fixed.cache = found ? CACHE_HIT : CACHE_MISS;
	return STEP_NEXT;
}

static void
let_go(struct request *r)
{
	struct cache_part *c = &r->cache;

	if (c->claimed)
		claim_drop(r->worker->arena, claim_of(c->key), r->worker->index);
	if (c->role == CACHE_WAITS) {
		timepoint_remove(&c->waiting);
		r->worker->cache->waits_count--;
	}
	buf_free(&c->body);
	*c = (struct cache_part){ .role = CACHE_ASIDE };
}

static void
wait_for_other(struct request *r)
{
	struct cache_desk *d = r->worker->cache;

	r->cache.role = CACHE_WAITS;
	d->waits.timeout_ms = r->plane->settings->cache.wait_ms;
	d->waits_count++;
	timepoint_touch(&d->waits, &r->cache.waiting, worker_now_ms(r->worker));
	metrics_add(r->worker->arena, r->worker->index, COUNTER_CACHE_WAITS, 1);
	if (r->at.stream && !r->quiet.next)
		timepoint_touch(&r->worker->quiet, &r->quiet, worker_now_ms(r->worker));
	look_soon(d);
}

enum step
cache_step(struct request *r)
{
	struct cache_part *c = &r->cache;
	uint64_t key[2];

	if (r->at.target->cache.mode == CONFIG_CACHE_OFF || r->route != ROUTE_MESSAGES || !r->plane->settings->cache.bytes ||
	    !make_key(r, key)) {
		if (c->role != CACHE_ASIDE)
			let_go(r);
		return STEP_NEXT;
	}
	/* Another target, and the same question: it is still ours to fetch. */
	if (c->role == CACHE_FETCHES && c->key[0] == key[0] && c->key[1] == key[1])
		return STEP_NEXT;
	let_go(r);
	memcpy(c->key, key, sizeof(key));
	c->max_age_ns = max_age_ns(r);
	if (!keeps(r))
		return look_only(r);
	if (slice_ieq(r->known.cache_refresh, SLICE("true")))
		return refresh(r);
	enum step step = look_for(r);
	if (step == STEP_STOP)
		wait_for_other(r);
	return step;
}

/* ---- a hit ---- */

/* It was found, and cannot be served all the same. */
static bool
fetch_after_all(struct request *r)
{
	r->cache.from_cache = false;
	r->rec.fixed.cache = CACHE_MISS;
	buf_free(&r->held);
	return false;
}

/* Its body as this client gets it. false: its model has another name here, and there
 * is no room to put that in. */
static bool
body_of(struct request *r, const struct cache_entry *entry, struct slice *body)
{
	*body = entry->body;
	if (!r->at.model_remapped)
		return true;
	buf_add_slice(&r->held, entry->body);
	if (r->held.overflow)
		return false;
	*body = relay_with_model(r);
	return true;
}

static bool
serve(struct request *r, const struct cache_entry *entry)
{
	struct http1_header lines[] = {
		{ SLICE("content-type"), entry->content_type },
		{ SLICE("cache-control"), SLICE("no-cache") },
	};
	bool stream = entry->fixed.flags & CACHE_FLAG(STREAM);
	struct http1_head head = { .status = entry->fixed.status, .headers = lines, .headers_count = stream ? 2 : 1 };
	struct slice body;

	r->sse = stream;
	if (!body_of(r, entry, &body))
		return false;
	if (!r->committed_early) {
		r->rec.fixed.status = entry->fixed.status;
		if (!relay_head(r, &head, (int64_t)body.n))
			return false;
	}
	r->rec.fixed.saved_nusd = entry->fixed.cost_nusd;
	r->rec.fixed.outcome = OUTCOME_OK;
	relay_span(r, body);
	relay_flush(r, true);
	return true;
}

bool
cache_serve(struct request *r)
{
	struct cache_desk *d = r->worker->cache;
	struct cache_entry entry;

	if (!cache_get(d->store, r->cache.key, clock_wall_ns(), &entry))
		return fetch_after_all(r);
	bool served = serve(r, &entry);
	cache_done(d->store);
	if (!served)
		return fetch_after_all(r);
	request_finish(r, OUTCOME_OK, true);
	return true;
}

/* ---- a miss, as it is fetched ---- */

void
cache_answer_begins(struct request *r, const struct http1_head *head)
{
	struct cache_part *c = &r->cache;

	if (c->role != CACHE_FETCHES)
		return;
	c->collects = head->status == 200 && !r->attempt.late;
	buf_init(&c->body, r->plane->settings->cache.entry_bytes);
}

void
cache_answer_more(struct request *r, struct slice span)
{
	if (r->cache.collects)
		buf_add_slice(&r->cache.body, span);
}

void
cache_answer_failed(struct request *r)
{
	r->cache.collects = false;
	buf_free(&r->cache.body);
}

static bool
may_be_kept(const struct request *r, enum record_outcome outcome)
{
	const struct usage *u = r->attempt.tap ? usage_tap_usage(r->attempt.tap) : NULL;

	return r->cache.collects && outcome == OUTCOME_OK && u && u->known && u->complete && !(r->rec.fixed.flags & RECORD_FLAG(CLAMPED));
}

static bool
post(struct request *r)
{
	struct worker *w = r->worker;
	int64_t now_ns = clock_wall_ns();
	bool estimated = false;
	struct cache_entry entry = {
		.fixed = {
			.status = 200, .flags = r->sse ? CACHE_FLAG(STREAM) : 0, .created_wall_ns = now_ns,
			.expires_wall_ns = now_ns + r->cache.max_age_ns,
		},
		.content_type = http1_find(&r->answer_head, "content-type"), .model = r->at.model, .provider = r->rec.provider,
		.provider_request_id = r->rec.provider_request_id, .body = buf_slice(&r->cache.body),
	};
	const struct usage *u = usage_tap_usage(r->attempt.tap);

	if (r->cache.body.overflow) {
		metrics_add(w->arena, w->index, COUNTER_CACHE_REFUSED_LARGE, 1);
		return false;
	}
	memcpy(entry.fixed.tokens, u->tokens, sizeof(u->tokens));
	entry.fixed.cost_nusd = account_price(r, u, &estimated);
	return cache_mail_put(w->cache->mail_fd, r->cache.key, &entry, r->plane->settings->cache.entry_bytes, w->arena, w->index);
}

void
cache_answer_done(struct request *r, enum record_outcome outcome)
{
	struct cache_desk *d = r->worker->cache;
	struct cache_part *c = &r->cache;

	if (may_be_kept(r, outcome) && post(r) && c->claimed && d->showing_count < SHOWING_MAX) {
		memcpy(d->showing[d->showing_count].key, c->key, sizeof(c->key));
		d->showing[d->showing_count++].until_ms = worker_now_ms(r->worker) + SHOWING_MS;
		c->claimed = false;	/* the desk's, until it can be found */
		look_soon(d);
	}
	let_go(r);
}

void
cache_leave(struct request *r)
{
	if (r->cache.role != CACHE_ASIDE)
		let_go(r);
}

/* ---- those who wait ---- */

static void
look_at_showing(struct cache_desk *d)
{
	uint64_t now_ms = worker_now_ms(d->worker);

	for (uint32_t i = 0; i < d->showing_count;) {
		bool found = is_there(d, d->showing[i].key);

		if (!found && now_ms < d->showing[i].until_ms) {
			i++;
			continue;
		}
		claim_drop(d->worker->arena, claim_of(d->showing[i].key), d->worker->index);
		d->showing[i] = d->showing[--d->showing_count];
	}
}

static bool
is_missed(uint64_t (*missed)[2], uint32_t count, const uint64_t key[2])
{
	for (uint32_t i = 0; i < count; i++)
		if (missed[i][0] == key[0] && missed[i][1] == key[1])
			return true;
	return false;
}

static void
go_without(struct request *r)
{
	r->cache.role = CACHE_FETCHES;
	r->rec.fixed.cache = CACHE_MISS;
	metrics_add(r->worker->arena, r->worker->index, COUNTER_CACHE_MISSES, 1);
}

/* The oldest first. */
static void
look_at_waits(struct cache_desk *d)
{
	uint64_t missed[MISSES_PER_LOOK][2], now_ms = worker_now_ms(d->worker);
	uint32_t missed_count = 0, served = 0;
	struct timepoint *next;

	for (struct timepoint *p = d->waits.ends.next; p != &d->waits.ends && served < SERVED_PER_LOOK; p = next) {
		struct request *r = CONTAINER_OF(p, struct request, cache.waiting);
		bool over = now_ms - p->at_ms >= d->waits.timeout_ms || now_ms >= r->deadline_ms;

		next = p->next;
		if (!over && (missed_count == MISSES_PER_LOOK || is_missed(missed, missed_count, r->cache.key)))
			continue;
		if (!over && look_for(r) == STEP_STOP) {
			memcpy(missed[missed_count++], r->cache.key, sizeof(r->cache.key));
			continue;
		}
		timepoint_remove(p);
		d->waits_count--;
		if (over)
			go_without(r);
		served++;
		route_resume(r, step_admit(r));
		/* That may have ended others, but it puts nobody in front of them. */
		if (next != &d->waits.ends && !next->next)
			break;
	}
}

static void
on_look(uv_timer_t *timer)
{
	struct cache_desk *d = timer->data;

	look_at_showing(d);
	look_at_waits(d);
	if (d->waits_count == 0 && d->showing_count == 0)
		uv_timer_stop(&d->look);
}
