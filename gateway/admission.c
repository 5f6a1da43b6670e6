/*
 * gateway/admission.c -- see admission.h.
 */
#include "gateway/admission.h"

#include <stdio.h>

#include "gateway/limit_headers.h"
#include "gateway/limit_refusal.h"
#include "gateway/limits.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define THINKING_ROOM_TOKENS 1024	/* for the answer, above a fixed thinking budget */
#define PROMPT_SHARE 4		/* a prompt has at least this many bytes a token, if counting it is to help */
#define LOAD_ROUNDS_MAX (2 * CHARGES_MAX + 4)	/* each meter once, once more if it was evicted meanwhile */
#define ROOM_MS 5		/* between two looks at the queue */
#define ROOM_METERS_MAX 16	/* full meters that one look finds; the rest waits for the next */
#define SAY_NS (60 * NS_PER_S)	/* the same trouble is logged once a minute */

static void on_room(uv_timer_t *timer);

enum verdict {
	ADMITTED,	/* on to step_send() */
	PENDING,	/* it waits; the request is untouched otherwise */
	PASSED,		/* there is no room at this target, and another one is left */
	OVER,		/* it was refused, and is gone; or its prompt is being counted */
};

static bool
may_say(int64_t *last_mono_ns, int64_t now_mono_ns)
{
	if (*last_mono_ns && now_mono_ns - *last_mono_ns < SAY_NS)
		return false;
	*last_mono_ns = now_mono_ns;
	return true;
}

/* ---- price ---- */

static bool
body_has_text(const struct request *r, const char *member, const char *text)
{
	const struct body_member *m = body_find(r->at.scan, member);

	return m && json_string_eq(m->value, text);
}

/* Below its thinking budget a request is refused by the provider. */
static int64_t
floor_of(const struct request *r)
{
	const struct body_member *thinking = body_find(r->at.scan, "thinking");
	int64_t floor = r->plane->settings->clamp_floor, budget;
	struct slice type, tokens;

	if (thinking && json_get(thinking->value, "type", &type) && json_string_eq(type, "enabled") &&
	    json_get(thinking->value, "budget_tokens", &tokens) && slice_to_i64(tokens, &budget) &&
	    budget > floor - THINKING_ROOM_TOKENS)
		floor = budget < r->at.bound.output_tokens ? budget + THINKING_ROOM_TOKENS : r->at.bound.output_tokens;
	return floor < r->at.bound.output_tokens ? floor : r->at.bound.output_tokens;
}

static void
price_request(struct request *r)
{
	const struct settings *s = r->plane->settings;

	r->at.demand.share = s->clamp_share;
	if (r->cache.from_cache)
		return;		/* nobody is asked */
	r->at.price = price_find(s->prices, slice_of(r->at.provider->type), r->at.model, r->start_wall_ns);
	r->rec.fixed.held_nusd = 0;
	if (r->route == ROUTE_COUNT_TOKENS)
		return;		/* free of charge */
	r->at.floor_tokens = price_input_estimate(r->at.price, r->at.scan);
	if (r->at.price) {
		r->rec.price = price_row_name(r->at.price);
		r->at.floor_nusd = price_input_nusd(r->at.price, r->at.floor_tokens);
	} else {
		r->rec.fixed.flags |= RECORD_FLAG(UNPRICED);
		metrics_add(r->worker->arena, r->worker->index, COUNTER_UNPRICED, 1);
	}
	/* A workspace can be pinned to the US without the request saying so: a
	 * bound must allow for it. */
	r->at.bound = price_bound(r->at.price, r->at.scan, body_has_text(r, "speed", "fast"), true);
	r->rec.fixed.asked_tokens = r->at.bound.output_tokens;
	r->at.demand.most = r->at.bound.output_tokens;
	r->at.demand.floor = floor_of(r);
}

/* ---- the limits ---- */

static void
refuse_charges(struct request *r, int64_t now_mono_ns)
{
	static const struct refusal_words words = {
		.status = 500, .type = "api_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
	};
	struct worker *w = r->worker;

	metrics_add(w->arena, w->index, COUNTER_REFUSED_LIMITS, 1);
	if (may_say(&w->said_mono_ns.charges, now_mono_ns))
		log_error("more than %d limits apply to a request of key %s/%s at provider %s: it is refused", CHARGES_MAX,
		    r->key->workspace.p, r->key->slug.p, r->at.provider->slug);
	request_refuse(r, &words, "more than %d limits apply to this request", CHARGES_MAX);
}

static struct limit_subject
subject_of(const struct request *r)
{
	return (struct limit_subject){
		.key_id = r->key->id, .key_slug = r->key->slug, .workspace = r->key->workspace,
		.user = slice_of(r->key->user), .provider = slice_of(r->at.provider->slug),
		.provider_type = slice_of(r->at.provider->type), .model = r->at.model, .metadata = r->rec.metadata,
		.config = r->config->slug,
	};
}

static bool
collect(struct request *r, struct limit_set *set, int64_t now_mono_ns)
{
	const struct settings *s = r->plane->settings;
	struct limit_subject subject;
	const struct limit_sources from = {
		.key = r->key, .settings = s, .provider = r->at.provider, .model = r->at.model, .subject = &subject,
		.memo = r->worker->limit_memo, .free = r->route == ROUTE_COUNT_TOKENS || r->cache.from_cache, .own_only = r->cache.from_cache,
	};

	if (s->policies_count > 0)
		subject = subject_of(r);
	if (limits_collect(&from, &r->at.bound, set))
		return true;
	refuse_charges(r, now_mono_ns);
	return false;
}

static void
refuse_unpriced(struct request *r, const struct limit *limit)
{
	static const struct refusal_words invalid = {
		.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};

	r->rec.limit = slice_of(limit->label);
	request_refuse(r, &invalid, "model \"%.*s\" has no price, and there is a limit on its cost (%s): add to the "
	    "settings \"prices\": [{\"provider\": \"%s\", \"model\": \"%.*s\", \"prices\": [{\"valid_from\": "
	    "\"2026-01-01\", \"input\": 3000000, \"output\": 15000000}]}] (pico-dollars a token)",
	    SLICE_FMT(r->at.model), limit->label, r->at.provider->type, SLICE_FMT(r->at.model));
}

static void
refuse_full_table(struct request *r, int64_t now_mono_ns)
{
	static const struct refusal_words full = {
		.status = 503, .type = "api_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
	};
	struct worker *w = r->worker;

	metrics_add(w->arena, w->index, COUNTER_REFUSED_LIMITS, 1);
	if (may_say(&w->said_mono_ns.table, now_mono_ns))
		log_error("the table of limits is full: requests are refused; raise the setting ledger.meters");
	request_refuse(r, &full, "the table of limits is full: the setting ledger.meters must be raised");
}

/* What was spent is not known, so nothing may be spent. */
static void
refuse_unreadable(struct request *r, const struct limit_set *set, int64_t now_mono_ns)
{
	static const struct refusal_words cost = {
		.status = 429, .type = "billing_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
	};
	static const struct refusal_words other = {
		.status = 503, .type = "api_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	struct worker *w = r->worker;

	metrics_add(w->arena, w->index, COUNTER_REFUSED_LIMITS, 1);
	if (may_say(&w->said_mono_ns.levels, now_mono_ns))
		log_error("the level of a limit cannot be read from the store: requests under limits are refused");
	if (limits_of_cost(set))
		request_refuse(r, &cost, "spend limit unavailable");
	else
		request_refuse(r, &other, "a limit of this request is unavailable");
}

/* ---- admit ---- */

/* A meter that is not in memory, from the store. false: refused. */
static bool
load_level(struct request *r, struct limit_set *set, struct charge *c, struct now now)
{
	struct worker *w = r->worker;
	uint64_t evictions = ledger_evictions(w->arena);
	struct level level;

	if (reader_level(w->store, c->id, &level) != 0) {
		refuse_unreadable(r, set, now.mono_ns);
		return false;
	}
	bool overflowed = c->overflowed;
	if (ledger_load(w->arena, w->index, c, &level, evictions, now) == LOAD_FULL) {
		refuse_full_table(r, now.mono_ns);
		return false;
	}
	if (c->overflowed && !overflowed && may_say(&w->said_mono_ns.overflow, now.mono_ns))
		log_warn("%s: there are groups_max groups already; the meter of all further ones is used", c->name);
	return true;
}

/* LEDGER_ADMITTED or LEDGER_REFUSED; anything else: the request is gone. */
static enum ledger_verdict
ask_ledger(struct request *r, struct limit_set *set, struct refusal *why, struct now now)
{
	static const struct refusal_words busy = {
		.status = 529, .type = "overloaded_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	struct worker *w = r->worker;
	enum ledger_verdict verdict = LEDGER_UNKNOWN;

	for (int round = 0; round < LOAD_ROUNDS_MAX; round++) {
		/* At a further target it has a page already, with what it used so far. */
		if (r->page)
			verdict = ledger_move(w->arena, w->index, &r->page, &r->used.all, set->charge, set->count, &r->at.demand, now, why);
		else
			verdict = ledger_admit(w->arena, w->index, set->charge, set->count, &r->at.demand, now, &r->page, why);
		limits_remember(set);
		if (verdict == LEDGER_ADMITTED)
			return verdict;
		if (verdict != LEDGER_UNKNOWN)
			break;
		if (!load_level(r, set, &set->charge[why->charge], now))
			return LEDGER_UNKNOWN;
	}
	if (verdict != LEDGER_REFUSED)
		request_refuse(r, &busy, verdict == LEDGER_BUSY ? "too many requests are in flight"
		    : "the limits of this request are in too much demand");
	return verdict;
}

/* ---- admitted ---- */

static bool
lower_max_tokens(struct request *r)
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%lld", (long long)r->at.demand.granted);
	char *raw = scratch_dup(&r->body_mem, (struct slice){ digits, (size_t)n });

	r->rec.fixed.flags |= RECORD_FLAG(CLAMPED);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_CLAMPED, 1);
	return raw && body_set(r->at.scan, r->at.edits, "max_tokens", (struct slice){ raw, (size_t)n }, &r->body_mem);
}

/* The lines that the answer's head will have about limits. They are a courtesy:
 * without memory there are none. */
static void
say_limits(struct request *r, const struct limit_tightest *tightest, int64_t wall_ns, const char *clamped_by)
{
	struct text t;

	if (!clamped_by && !tightest->requests.any && !tightest->tokens.any)
		return;
	if (!text_begin(&t, &r->mem, LIMIT_HEADERS_BYTES + LIMIT_LABEL_BYTES + 80))
		return;
	if (clamped_by) {
		text_add(&t, SLICE("x-weir-max-tokens: "));
		text_int(&t, r->at.demand.granted);
		text_add(&t, SLICE("\r\nx-weir-clamped-by: "));
		text_str(&t, clamped_by);
		text_add(&t, SLICE("\r\n"));
	}
	limit_headers_add(&t, tightest, wall_ns, r->portkey_auth);
	CHECK(!t.overflow);
	r->limit_lines = text_slice(&t);
}

static void
note_wait(struct request *r, int64_t now_mono_ns)
{
	if (r->wait.since_mono_ns)
		r->rec.fixed.wait_ns = now_mono_ns - r->wait.since_mono_ns;
}

static enum verdict
admitted(struct request *r, const struct limit_set *set, struct now now)
{
	static const struct refusal_words too_large = {
		.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	struct limit_tightest tightest = { .requests.any = false };
	struct worker *w = r->worker;
	bool clamped = r->at.demand.granted < r->at.demand.most;

	note_wait(r, now.mono_ns);
	for (uint32_t i = 0; i < set->count; i++) {
		const struct charge *c = &set->charge[i];

		if (limit_charge_is_cost(c) && c->taken > r->rec.fixed.held_nusd)
			r->rec.fixed.held_nusd = c->taken;
		if (c->overflowed)
			metrics_add(w->arena, w->index, COUNTER_GROUP_OVERFLOW, 1);
	}
	r->at.bound.output_tokens = r->rec.fixed.granted_tokens = r->at.demand.granted;
	if (clamped && !lower_max_tokens(r)) {
		request_refuse(r, &too_large, "the body with a lower max_tokens is too large");
		return OVER;
	}
	if (r->plane->settings->limit_headers)
		tightest = limit_tightest_admitted(set, now);
	say_limits(r, &tightest, now.wall_ns, clamped ? set->origin[r->at.demand.lowered_by].limit->label : NULL);
	account_draft(r);
	return ADMITTED;
}

/* ---- refused: count, wait, or say so ---- */

/* Is the bound of the prompt what does not fit: would it, if there were fewer
 * tokens than it has bytes? Others' holds are not looked at: a smaller one is
 * what helps against them too. */
static bool
counting_helps(const struct request *r, const struct charge *c, const struct refusal *why)
{
	int64_t output = c->mode == MODE_STRICT ? r->at.demand.most : r->at.demand.floor, milli, need;

	if (r->at.count_tried || c->mode == MODE_POSTPAID || c->slope_milli == 0)
		return false;
	return !__builtin_mul_overflow(output, c->slope_milli, &milli) &&
	    !__builtin_add_overflow(milli / 1000, c->fixed / PROMPT_SHARE, &need) && need <= why->limit - why->spent;
}

static void
use_count(struct request *r, int64_t tokens)
{
	r->at.bound = price_bound_counted(r->at.price, r->at.scan, body_has_text(r, "speed", "fast"), true, tokens);
	r->rec.fixed.flags |= RECORD_FLAG(COUNTED);
}

static bool
may_wait(const struct request *r, int64_t now_mono_ns)
{
	int64_t most_ns = r->plane->settings->admission_wait_ms * NS_PER_MS;

	return r->wait.since_mono_ns ? now_mono_ns - r->wait.since_mono_ns < most_ns : most_ns > 0;
}

static void
join_queue(struct request *r)
{
	struct worker *w = r->worker;

	r->admission = ADMISSION_WAITING;
	timepoint_touch(&w->waiting, &r->pending, worker_now_ms(w));
	metrics_waiting(w->arena, w->index, ++w->waiting_count);
	if (!uv_is_active((uv_handle_t *)&w->room))
		CHECK(uv_timer_start(&w->room, on_room, ROOM_MS, ROOM_MS) == 0);
}

static void
wait_for_room(struct request *r, struct meter_id blocked, int64_t need, int64_t now_mono_ns)
{
	struct worker *w = r->worker;

	r->wait.id = blocked;
	r->wait.need = need;
	if (!r->wait.since_mono_ns) {
		r->wait.since_mono_ns = now_mono_ns;
		r->rec.fixed.flags |= RECORD_FLAG(WAITED);
		metrics_add(w->arena, w->index, COUNTER_WAITED, 1);
	}
	queue_ask(w->arena, &r->wait, now_mono_ns);
	if (r->admission != ADMISSION_WAITING)
		join_queue(r);
}

/* Units that nobody has spent, holds or uses. */
static int64_t
room_in(const struct meter_view *v)
{
	return v->kind == METER_BUCKET ? v->tokens : v->limit - v->spent - v->held;
}

/* Somebody waits longer for one of the request's meters, and there is room for
 * it now: it will take it at its next look. The younger one queues up. */
static bool
yields(struct request *r, const struct limit_set *set, int64_t since_mono_ns, struct now now)
{
	struct arena *a = r->worker->arena;
	struct meter_view view;

	if (!queue_anybody(a, now.mono_ns) || !may_wait(r, now.mono_ns))
		return false;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct charge *c = &set->charge[i];
		int64_t need = queue_older(a, c->id, since_mono_ns, now.mono_ns);

		if (need < 0 || !ledger_meter(a, c->id, now, &view) || need > room_in(&view))
			continue;
		wait_for_room(r, c->id, need, now.mono_ns);
		return true;
	}
	return false;
}

void
admission_leave(struct request *r)
{
	struct worker *w = r->worker;

	if (r->admission == ADMISSION_WAITING) {
		metrics_waiting(w->arena, w->index, --w->waiting_count);
		queue_leave(w->arena, &r->wait);
		note_wait(r, clock_mono_ns());
	}
	timepoint_remove(&r->pending);
	r->admission = ADMISSION_OPEN;
}

/* PROMPT_KNOWN: the bound is smaller now. */
static enum prompt_counting
count(struct request *r)
{
	int64_t tokens;
	enum prompt_counting how = prompt_count(r, &tokens);

	r->at.count_tried = true;
	if (how == PROMPT_KNOWN) {
		use_count(r, tokens);
	} else if (how == PROMPT_ASKED) {
		admission_leave(r);
		r->admission = ADMISSION_COUNTING;
		timepoint_touch(&r->worker->counting, &r->pending, worker_now_ms(r->worker));
	}
	return how;
}

/* Limits of one account, or of policies that may be about it, leave others to be
 * asked: those of the key and the workspace hold everywhere. Portkey's statuses. */
static bool
passes_on(struct request *r, const struct limit_set *set, const struct refusal *why)
{
	int status = set->charge[why->charge].kind == METER_BUDGET ? 412 : 429;

	switch (set->origin[why->charge].source) {
	case LIMIT_OF_KEY:
	case LIMIT_OF_WORKSPACE:
		return false;
	case LIMIT_OF_PROVIDER:
	case LIMIT_OF_MODEL:
	case LIMIT_OF_POLICY:
		break;
	}
	if (!route_has_more(r, status))
		return false;
	r->passed_status = status;
	return true;
}

static enum verdict
decide(struct request *r)
{
	struct limit_set set;
	struct refusal why;
	struct now now = worker_clock();

	for (;;) {	/* twice at the most: a prompt is counted once */
		if (!collect(r, &set, now.mono_ns))
			return OVER;
		const struct limit *cost = !r->at.price && r->route == ROUTE_MESSAGES && !r->cache.from_cache ? limits_of_cost(&set) : NULL;
		if (cost) {
			refuse_unpriced(r, cost);
			return OVER;
		}
		if (yields(r, &set, r->wait.since_mono_ns ? r->wait.since_mono_ns : now.mono_ns, now))
			return PENDING;
		enum ledger_verdict verdict = ask_ledger(r, &set, &why, now);
		if (verdict == LEDGER_ADMITTED)
			return admitted(r, &set, now);
		if (verdict != LEDGER_REFUSED)
			return OVER;
		if (!counting_helps(r, &set.charge[why.charge], &why))
			break;
		enum prompt_counting how = count(r);
		if (how == PROMPT_ASKED)
			return OVER;
		if (how == PROMPT_UNCOUNTED)
			break;
	}
	if (passes_on(r, &set, &why)) {
		admission_leave(r);
		return PASSED;
	}
	if (why.may_fit && may_wait(r, now.mono_ns)) {
		wait_for_room(r, set.charge[why.charge].id, why.need, now.mono_ns);
		return PENDING;
	}
	note_wait(r, now.mono_ns);
	if (r->plane->settings->limit_headers) {
		struct limit_tightest tightest = limit_tightest_refused(r->worker->arena, &set, now);
		say_limits(r, &tightest, now.wall_ns, NULL);
	}
	limit_refuse(r, &set, &why, now);
	return OVER;
}

enum step
step_admit(struct request *r)
{
	price_request(r);
	switch (decide(r)) {
	case ADMITTED:
		return STEP_NEXT;
	case PASSED:
		return STEP_PASS;
	case PENDING:
	case OVER:
		break;
	}
	return STEP_STOP;
}

bool
admission_refuse_failing(struct request *r)
{
	static const struct refusal_words failing = {
		.status = 503, .type = "api_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	struct worker *w = r->worker;

	if (!arena_store_failing(w->arena))
		return false;
	r->no_record = true;
	metrics_add(w->arena, w->index, COUNTER_REFUSED_STORE, 1);
	request_refuse(r, &failing, "spend limit unavailable: the store cannot be written");
	return true;
}

/* ---- later ---- */

void
admission_counted(struct request *r, int64_t tokens)
{
	if (tokens >= 0)
		use_count(r, tokens);
	/* Not here: the connection that brought the count is free at the next turn. */
	timepoint_remove(&r->pending);
	join_queue(r);
	admission_room(r->worker);
}

static bool
is_refused(const struct meter_id *meters, uint32_t count, struct meter_id id)
{
	for (uint32_t i = 0; i < count; i++)
		if (meters[i].hi == id.hi && meters[i].lo == id.lo)
			return true;
	return false;
}

/* The queue, the oldest first. Of those who wait for one full meter only the
 * oldest is asked, and who has waited long enough. */
static void
on_room(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	struct meter_id refused[ROOM_METERS_MAX];
	int64_t now_mono_ns = clock_mono_ns();
	uint32_t refused_count = 0, turns = w->waiting_count;
	struct timepoint *next;

	w->room_soon = false;
	for (struct timepoint *p = w->waiting.ends.next; p != &w->waiting.ends && turns-- > 0; p = next) {
		struct request *r = CONTAINER_OF(p, struct request, pending);
		bool last = r->wait.since_mono_ns && !may_wait(r, now_mono_ns);

		next = p->next;
		if (admission_refuse_failing(r))
			continue;
		if (!last && (refused_count == ROOM_METERS_MAX || is_refused(refused, refused_count, r->wait.id)))
			continue;
		enum verdict v = decide(r);
		if (v == PENDING && refused_count < ROOM_METERS_MAX) {
			refused[refused_count++] = r->wait.id;
		} else if (v == ADMITTED) {
			admission_leave(r);
			route_resume(r, STEP_NEXT);
		} else if (v == PASSED) {
			route_resume(r, STEP_PASS);
		}
	}
	if (w->waiting_count == 0)
		uv_timer_stop(&w->room);
}

void
admission_room(struct worker *w)
{
	if (w->waiting_count == 0 || w->room_soon)
		return;
	w->room_soon = true;
	CHECK(uv_timer_start(&w->room, on_room, 0, ROOM_MS) == 0);
}

int
admission_open(struct worker *w)
{
	w->room.data = w;
	return uv_timer_init(&w->loop, &w->room);
}

void
admission_close(struct worker *w)
{
	if (!uv_is_closing((uv_handle_t *)&w->room))
		uv_close((uv_handle_t *)&w->room, NULL);
}
