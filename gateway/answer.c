/* gateway/answer.c -- see answer.h. */
#include "gateway/answer.h"

#include "gateway/answer_cache.h"
#include "gateway/conversation.h"
#include "gateway/health_watch.h"
#include "gateway/relay.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define HELD_EVENTS_BYTES_MAX 262144	/* of a stream's beginning */
#define PROGRESS_BYTES 4096	/* of content between two updates of the crash estimate */
#define OVERLOADED 529		/* what an overloaded_error in a stream stands for */
#define PAUSE_MS 1000		/* before the first retry; twice as long before each further one */
#define PAUSE_JITTER 4		/* up to one part in so many is added: not all come back at once */
#define DAY_MS INT64_C(86400000)
#define RETRY_AFTER_MS_MAX 60000	/* a provider that asks for more is not waited for, in one go or in all */

static const struct exchange_callbacks callbacks;

/* ---- the timer ---- */

static void
timer_passed(struct deadline *d, uint64_t now_ms)
{
	(void)now_ms;
	attempt_timer(CONTAINER_OF(d, struct request, timer));
}

static void
timer_start(struct request *r, enum timer_of of, uint64_t ms)
{
	r->timer_of = of;
	deadline_init(&r->timer, timer_passed);
	deadline_set(&r->worker->timers, &r->timer, worker_now_ms(r->worker) + ms);
}

static void
timer_stop(struct request *r)
{
	if (r->timer_of != TIMER_NONE)
		deadline_clear(&r->timer);
	r->timer_of = TIMER_NONE;
}

/* ---- sending ---- */

static void
give_up(struct request *r, const char *why)
{
	static const struct refusal_words words = {
		.status = 502, .type = "api_error", .headers = "", .outcome = OUTCOME_UPSTREAM_FAILED,
	};

	log_warn("%s: provider %s: %s", r->id, r->at.provider->slug, why);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_UPSTREAM_ERRORS, 1);
	request_refuse(r, &words, "provider \"%s\": %s", r->at.provider->slug, why);
}

/* For further attempts; 0: there are none. */
static uint64_t
time_left_ms(const struct request *r)
{
	uint64_t now_ms = worker_now_ms(r->worker);

	return now_ms < r->deadline_ms ? r->deadline_ms - now_ms : 0;
}

/* It has waited until there was no time left: for room, for somebody else's answer. */
static void
refuse_late(struct request *r)
{
	static const struct refusal_words words = {
		.status = 504, .type = "timeout_error", .headers = "", .outcome = OUTCOME_REFUSED,
	};

	request_refuse(r, &words, "no attempt could begin within %u ms (routing.total_ms)", r->plane->settings->routing.total_ms);
}

static void
attempt_send(struct request *r)
{
	const struct settings *s = r->plane->settings;
	const uint64_t left_ms = time_left_ms(r);
	const uint32_t answer_ms = left_ms < r->at.first_byte_ms ? (uint32_t)left_ms : r->at.first_byte_ms;
	struct exchange_request request = {
		.pieces = r->at.pieces, .pieces_count = r->at.pieces_count, .mem = &r->mem, .connect_ms = s->limit.connect_ms,
		.first_byte_ms = answer_ms, .idle_ms = s->limit.stream_idle_ms,
	};

	if (!left_ms) {
		refuse_late(r);
		return;
	}
	r->attempt = (struct attempt){ .begin_ms = worker_now_ms(r->worker) };
	health_begins(r);
	r->exchange = exchange_start(r->at.endpoint->target, &request, &callbacks, r);
	if (!r->exchange) {
		give_up(r, "out of memory");
		return;
	}
	/* The exchange's time begins when the request has left. What the config says,
	 * or what is left for all attempts, has the connection and the sending in it. */
	if (r->at.own_time || answer_ms < s->limit.first_byte_ms)
		timer_start(r, TIMER_ANSWER, answer_ms);
}

void
attempt_start(struct request *r)
{
	static const struct refusal_words no_memory = {
		.status = 503, .type = "overloaded_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};

	if (!relay_open(r)) {
		request_refuse(r, &no_memory, "out of memory");
		return;
	}
	if (r->cache.from_cache) {
		/* If it was thrown away since it was found, it is fetched after all. */
		if (!cache_serve(r))
			route_resume(r, step_admit(r));
		return;
	}
	if (!serve_build(r)) {
		request_refuse(r, &no_memory, "out of memory");
		return;
	}
	if (r->at.stream && !r->quiet.next)
		timepoint_touch(&r->worker->quiet, &r->quiet, worker_now_ms(r->worker));
	attempt_send(r);
}

static void
on_sent(void *arg)
{
	struct request *r = arg;

	if (r->attempt.sent_mono_ns)
		return;
	r->attempt.sent_mono_ns = clock_mono_ns();
	r->sent = true;
	if (r->rec.fixed.attempts++ > 0)
		account_progress(r);
	inflight_sent(r->page);
}

/* ---- again, or elsewhere ---- */

static bool
may_retry(const struct request *r, int status, bool always)
{
	const struct config_retry *retry = &r->at.target->retry;

	return r->at.retries < retry->attempts && (always || status_set_has(&retry->on_status_codes, status));
}

/* Whatever becomes of this attempt: nothing follows it. */
static bool
is_the_last(const struct request *r)
{
	return r->at.retries >= r->at.target->retry.attempts && !r->config->several_targets;
}

/* Could another attempt take the place of one with that outcome? */
static bool
may_go_on(struct request *r, int status)
{
	return !is_the_last(r) && (may_retry(r, status, false) || route_has_more(r, status)) && time_left_ms(r) > 0;
}

/* How long until the target is asked again; -1: it is not worth waiting. */
static int64_t
pause_ms(struct request *r, const struct attempt_end *end)
{
	int64_t ms = PAUSE_MS << r->at.retries;

	if (r->at.target->retry.use_retry_after && end->status == 429 && end->retry_after_ms >= 0) {
		ms = end->retry_after_ms;
		if (ms >= RETRY_AFTER_MS_MAX || r->at.retry_waited_ms + ms > RETRY_AFTER_MS_MAX)
			return -1;
		r->at.retry_waited_ms += (uint32_t)ms;
	} else {
		ms += (int64_t)(worker_random(r->worker, 0) % (uint64_t)(ms / PAUSE_JITTER + 1));
	}
	return (uint64_t)ms < time_left_ms(r) ? ms : -1;
}

/* Nothing of the attempt is left but what was written down of it. */
static void
attempt_clear(struct request *r)
{
	timer_stop(r);
	if (r->exchange)
		exchange_cancel(r->exchange);
	r->exchange = NULL;
	if (r->attempt.tap)
		usage_tap_free(r->attempt.tap);
	r->attempt = (struct attempt){ .accounted = true };
	cache_answer_failed(r);
	relay_drop(r);
	buf_free(&r->held);
	buf_free(&r->tail);
	buf_free(&r->late_error);
	r->rec.provider_request_id = r->rec.error_type = SLICE_NONE;
}

/* Once for each attempt. */
static void
report_failure(struct request *r, const struct attempt_end *end)
{
	if (r->attempt.reported)
		return;
	r->attempt.reported = true;
	r->attempt.error = end->error;
	health_failed(r, end);
}

/* false: the failure is the answer. Else the request is on its way again, and may
 * be gone. */
static bool
go_on(struct request *r, const struct attempt_end *end)
{
	report_failure(r, end);
	if (end->final || !time_left_ms(r))
		return false;
	int64_t ms = may_retry(r, end->status, end->always_retried) ? pause_ms(r, end) : -1;
	if (ms < 0 && !route_has_more(r, end->status))
		return false;
	account_attempt(r, end->answered ? OUTCOME_PROVIDER_ERROR : OUTCOME_UPSTREAM_FAILED, false);
	attempt_clear(r);
	if (ms < 0) {
		route_on(r, end->status);
		return true;
	}
	r->at.retries++;
	r->used.pause_ns += ms * NS_PER_MS;
	metrics_add(r->worker->arena, r->worker->index, COUNTER_RETRIES, 1);
	timer_start(r, TIMER_PAUSE, (uint64_t)ms);
	return true;
}

/* ---- what a failed answer says ---- */

static int64_t
at_most_a_day(int64_t ms)
{
	return ms < DAY_MS ? ms : DAY_MS;
}

/* Milliseconds; -1: it does not say, or not so that we understand. */
static int64_t
retry_after_ms(const struct http1_head *head)
{
	static const char *const in_ms[] = { "retry-after-ms", "x-ms-retry-after-ms" };
	struct slice value;
	int64_t n, at_ns;

	for (size_t i = 0; i < sizeof(in_ms) / sizeof(in_ms[0]); i++) {
		value = http1_find(head, in_ms[i]);
		if (value.n && slice_to_i64(value, &n) && n >= 0)
			return at_most_a_day(n);
	}
	value = http1_find(head, "retry-after");
	if (!value.n)
		return -1;
	if (slice_to_i64(value, &n))
		return n < 0 ? -1 : n < DAY_MS ? at_most_a_day(n * 1000) : DAY_MS;
	if (!clock_parse_http(value, &at_ns))
		return -1;
	at_ns -= clock_wall_ns();
	return at_ns > 0 ? at_most_a_day(at_ns / NS_PER_MS) : 0;
}

static int
status_of_type(struct slice type)
{
	static const struct { const char *type; int status; } rows[] = {
		{ "overloaded_error", OVERLOADED }, { "rate_limit_error", 429 }, { "api_error", 500 }, { "timeout_error", 504 },
		{ "authentication_error", 401 }, { "billing_error", 402 }, { "permission_error", 403 }, { "not_found_error", 404 },
		{ "request_too_large", 413 }, { "invalid_request_error", 400 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (slice_eq(type, slice_of(rows[i].type)))
			return rows[i].status;
	return 500;
}

/* An answer that failed, or an error in a stream or in an answer that said 200. */
static bool
has_failed(struct request *r, struct attempt_end *end)
{
	const int status = r->attempt.status;
	struct slice error = SLICE_NONE;
	bool said = r->attempt.tap && usage_tap_error(r->attempt.tap, &error);

	*end = (struct attempt_end){ .status = status, .answered = true, .retry_after_ms = -1, .error = error };
	if (!said && status < 400)
		return false;		/* but an attempt may be replaced whatever its status */
	if (status < 400) {
		end->status = status_of_type(error);
		end->in_stream = true;
	} else {
		end->retry_after_ms = retry_after_ms(&r->answer_head);
		end->body = buf_slice(&r->held);
	}
	return true;
}

/* A stream that said 200, and before any content that it failed. */
static bool
failed_at_start(struct request *r, struct attempt_end *end)
{
	return (r->attempt.holding & HOLD_START) && has_failed(r, end) && !usage_tap_content_begun(r->attempt.tap);
}

/* ---- accepting ---- */

/* Nothing can be sent again once an answer has begun: a prompt of megabytes
 * need not wait for the answer's end. */
static void
forget_prompt(struct request *r)
{
	scratch_reset(&r->body_mem);
	scratch_reset(&r->target_mem);
	buf_free(&r->body_grown);
	r->body = NULL;
	r->asked = NULL;
	r->conditions.params = NULL;
	r->at.scan = NULL;
	r->at.edits = NULL;
	r->at.pieces = NULL;
}

/* `length` of the body, -1: not known. false: there was no memory, and the request
 * is gone. */
static bool
accept_answer(struct request *r, const struct http1_head *head, int64_t length)
{
	timer_stop(r);
	r->attempt.accepted = true;
	if (!r->exchange || exchange_sent(r->exchange))
		forget_prompt(r);
	if (r->config->several_targets && head->status < 300)
		conversation_served(r);
	if (r->committed_early || relay_head(r, head, length))
		return true;
	give_up(r, "its answer's head does not fit into memory");
	return false;
}

/* false: there was no memory, and the request is gone. */
static bool
release_events(struct request *r)
{
	r->attempt.holding = 0;
	/* With another name in it, it is as long as it turns out to be. */
	if (!accept_answer(r, &r->answer_head, r->at.model_remapped ? -1 : r->answer_head.content_length))
		return false;
	relay_events(r, r->at.model_remapped ? relay_with_model(r) : buf_slice(&r->held));
	relay_flush(r, false);
	buf_free(&r->held);
	return true;
}

/* ---- the answer's head ---- */

static void
begin_events(struct request *r)
{
	if (!r->sse)
		timepoint_remove(&r->quiet);
	else if (!r->quiet.next)
		timepoint_touch(&r->worker->quiet, &r->quiet, worker_now_ms(r->worker));
}

/* What its bytes wait for. */
static unsigned
holds(struct request *r, bool sse)
{
	const uint32_t hold_ms = r->plane->settings->routing.hold_ms;
	unsigned hold = 0;

	if (r->attempt.status >= 300 || !r->attempt.tap || r->attempt.late)
		return 0;
	if (r->at.model_remapped)
		hold |= sse ? HOLD_MODEL : HOLD_WHOLE;
	if (sse && hold_ms > 0 && !is_the_last(r) && (may_retry(r, OVERLOADED, false) || route_may_have_more(r, OVERLOADED)) && time_left_ms(r) > 0) {
		hold |= HOLD_START;
		timer_start(r, TIMER_HOLD, hold_ms);
	}
	return hold;
}

static void
on_head(void *arg, const struct http1_head *head)
{
	struct request *r = arg;
	struct attempt *a = &r->attempt;
	struct slice type = http1_find(head, "content-type"), id = http1_find(head, "request-id");
	bool sse = slice_starts(type, SLICE("text/event-stream"));

	if (r->timer_of == TIMER_ANSWER)
		timer_stop(r);
	a->first_byte_mono_ns = clock_mono_ns();
	a->status = head->status;
	/* Kept: the exchange's memory ends before the record is written. */
	char *kept = id.n && id.n <= 256 ? scratch_dup(&r->mem, id) : NULL;
	r->rec.provider_request_id = kept ? (struct slice){ kept, id.n } : SLICE_NONE;
	if (head->status < 300 || sse || slice_starts(type, SLICE("application/json")))
		a->tap = usage_tap_new(sse ? USAGE_SSE : USAGE_JSON);
	r->answer_head = *head;
	if (may_go_on(r, head->status)) {
		a->holding = HOLD_VERDICT;
		return;
	}
	if (r->committed_early) {
		a->late = !sse || head->status >= 300;	/* 200 has been said: the body must become an event */
	} else {
		r->rec.fixed.status = (uint16_t)head->status;
		r->sse = sse;
	}
	begin_events(r);
	cache_answer_begins(r, head);
	a->holding = (uint8_t)holds(r, sse);
	if (!a->holding)
		accept_answer(r, head, head->content_length);
	else if (is_the_last(r) && exchange_sent(r->exchange))
		forget_prompt(r);
}

/* ---- the answer's body ---- */

static void
hold_more(struct request *r, struct slice span)
{
	struct attempt *a = &r->attempt;
	struct slice type;

	buf_add_slice(&r->held, span);
	if (a->holding & (HOLD_VERDICT | HOLD_WHOLE))
		return;
	bool enough = r->held.n > HELD_EVENTS_BYTES_MAX || r->held.overflow;
	if (enough || usage_tap_content_begun(a->tap))
		a->holding &= (uint8_t)~HOLD_START;
	if (enough || usage_tap_message_started(a->tap) || usage_tap_error(a->tap, &type))
		a->holding &= (uint8_t)~HOLD_MODEL;
	if (!a->holding)
		(void)release_events(r);
}

static void
on_body(void *arg, const char *p, size_t n)
{
	struct request *r = arg;
	struct slice span = { p, n };

	if (r->attempt.tap)
		usage_tap_feed(r->attempt.tap, p, n);
	cache_answer_more(r, span);
	if (r->attempt.late)
		buf_add_slice(&r->late_error, span);
	else if (r->attempt.holding)
		hold_more(r, span);
	else if (r->sse)
		relay_events(r, span);
	else
		relay_span(r, span);
}

static void
on_read_end(void *arg)
{
	struct request *r = arg;
	struct attempt *a = &r->attempt;
	struct attempt_end end;

	if (failed_at_start(r, &end)) {
		if (!go_on(r, &end))
			(void)release_events(r);	/* nobody takes its place: the client hears it */
		return;
	}
	if (!a->holding && !a->late)
		relay_flush(r, false);
	if (!a->tap)
		return;
	uint64_t content = usage_tap_content_bytes(a->tap);
	if (usage_tap_changes(a->tap) != a->tap_seen || content >= a->estimate_seen + PROGRESS_BYTES) {
		a->tap_seen = usage_tap_changes(a->tap);
		a->estimate_seen = content;
		account_progress(r);
	}
}

/* ---- the answer's end ---- */

static void
finish_late(struct request *r)
{
	const struct slice fallback = SLICE("the provider refused the request");
	struct slice body = buf_slice(&r->late_error), error, type, message;
	struct json_error why;
	char type_text[64] = "api_error";

	r->rec.fixed.outcome = OUTCOME_PROVIDER_ERROR;
	if (json_check(body, &why) && json_get(body, "error", &error) && json_get(error, "type", &type) &&
	    json_get(error, "message", &message)) {
		char *text = scratch_alloc(&r->mem, message.n + 1);
		size_t n = text ? json_unescape(message, text, message.n + 1) : SIZE_MAX;

		if (json_unescape(type, type_text, sizeof(type_text)) >= sizeof(type_text))
			memcpy(type_text, "api_error", sizeof("api_error"));
		else
			type_text[json_unescape(type, type_text, sizeof(type_text))] = '\0';
		relay_error_event(r, type_text, n == SIZE_MAX ? fallback : (struct slice){ text, n }, true);
	} else {
		relay_error_event(r, "api_error", fallback, true);
	}
	request_finish(r, OUTCOME_PROVIDER_ERROR, true);
}

/* A plain answer that has come whole. false: no memory; the request is gone. */
static bool
release_whole(struct request *r)
{
	struct slice body = r->at.model_remapped && r->attempt.status < 300 ? relay_with_model(r) : buf_slice(&r->held);

	r->attempt.holding = 0;
	if (r->held.overflow) {
		give_up(r, "its answer does not fit into memory");
		return false;
	}
	if (!accept_answer(r, &r->answer_head, (int64_t)body.n))
		return false;
	relay_span(r, body);
	return true;
}

/* It was to be replaced, and there is nothing that replaces it. false: the request
 * is gone. */
static bool
release_verdict(struct request *r)
{
	r->attempt.holding = 0;
	if (r->committed_early) {
		r->attempt.late = true;
		buf_add_slice(&r->late_error, buf_slice(&r->held));
		buf_free(&r->held);
		return true;
	}
	r->rec.fixed.status = (uint16_t)r->attempt.status;
	return release_whole(r);
}

static void
on_done(void *arg)
{
	struct request *r = arg;
	struct attempt *a = &r->attempt;
	struct attempt_end end;
	bool failed;

	r->exchange = NULL;
	a->end_mono_ns = clock_mono_ns();
	if (a->tap)
		usage_tap_end(a->tap);
	failed = has_failed(r, &end);
	if (failed)
		r->rec.error_type = end.error;
	if (a->holding & HOLD_VERDICT || (failed && failed_at_start(r, &end))) {
		if (go_on(r, &end))
			return;
		if ((a->holding & HOLD_VERDICT) && !release_verdict(r))
			return;
	} else if (failed) {
		report_failure(r, &end);
	} else if (r->at.watched) {
		health_served(r);
	}
	enum record_outcome outcome = failed ? OUTCOME_PROVIDER_ERROR : OUTCOME_OK;
	if (a->late) {
		finish_late(r);
		return;
	}
	if ((a->holding & HOLD_WHOLE) ? !release_whole(r) : a->holding && !release_events(r))
		return;
	relay_span(r, buf_slice(&r->tail));
	r->rec.fixed.outcome = (uint8_t)outcome;
	if (r->cache.role == CACHE_FETCHES)
		cache_answer_done(r, outcome);
	relay_flush(r, true);
	request_finish(r, outcome, true);
}

/* How a broken connection counts, for lists of statuses as Portkey writes them and
 * for the client. */
static const struct {
	int listed;	/* in lists */
	int status;	/* to the client */
	const char *type, *words;
	bool always;	/* retried */
} failures[] = {
	[EXCHANGE_OK] = { 500, 502, "api_error", "", false },
	[EXCHANGE_RESOLVE] = { 500, 502, "api_error", "its name could not be resolved", true },
	[EXCHANGE_FORBIDDEN] = { 400, 400, "invalid_request_error", "Invalid custom host: its address may not be asked", false },
	[EXCHANGE_CONNECT] = { 503, 502, "api_error", "it could not be reached", true },
	[EXCHANGE_TLS] = { 500, 502, "api_error", "the TLS connection failed", true },
	[EXCHANGE_TIMEOUT] = { 504, 504, "timeout_error", "no answer came in time", false },
	[EXCHANGE_IDLE] = { 504, 504, "timeout_error", "the answer stopped in the middle", false },
	[EXCHANGE_RESET] = { 500, 502, "api_error", "the connection broke before the answer was complete", true },
	[EXCHANGE_PROTOCOL] = { 500, 502, "api_error", "the answer was not valid HTTP", true },
};

static void
refuse_failure(struct request *r, enum exchange_error e)
{
	struct refusal_words words = {
		.status = failures[e].status, .type = failures[e].type, .headers = "", .outcome = OUTCOME_UPSTREAM_FAILED,
	};

	if (e == EXCHANGE_TIMEOUT && r->at.own_time) {
		words.status = 408;	/* Portkey's answer to a request_timeout */
		request_refuse(r, &words, "Request exceeded the timeout sent in the request: %ums", r->at.first_byte_ms);
		return;
	}
	request_refuse(r, &words, "provider \"%s\": %s", r->at.provider->slug, failures[e].words);
}

static void
on_error(void *arg, enum exchange_error e, const char *text)
{
	struct request *r = arg;
	struct attempt *a = &r->attempt;
	struct attempt_end end = {
		.status = e == EXCHANGE_TIMEOUT && r->at.own_time ? 408 : failures[e].listed, .always_retried = failures[e].always,
		.final = a->accepted || e == EXCHANGE_FORBIDDEN, .ours = e == EXCHANGE_FORBIDDEN, .retry_after_ms = -1, .error = slice_of(failures[e].words),
	};

	r->exchange = NULL;
	if (a->holding & HOLD_VERDICT) {	/* what it had said counts */
		end.status = a->status;
		end.answered = true;
	}
	a->waited_out = e == EXCHANGE_TIMEOUT || e == EXCHANGE_IDLE;
	a->end_mono_ns = a->sent_mono_ns ? clock_mono_ns() : 0;
	log_warn("%s: provider %s: %s", r->id, r->at.provider->slug, text);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_UPSTREAM_ERRORS, 1);
	if (a->tap)
		usage_tap_end(a->tap);
	if (go_on(r, &end))
		return;
	if (r->sse && a->holding && !(a->holding & HOLD_VERDICT) && r->held.n && !release_events(r))
		return;
	if (r->response_head_sent)
		relay_flush(r, false);	/* what came whole in the same read */
	else
		relay_drop(r);
	refuse_failure(r, e);
}

static const struct exchange_callbacks callbacks = {
	.on_sent = on_sent, .on_head = on_head, .on_body = on_body, .on_read_end = on_read_end,
	.on_done = on_done, .on_error = on_error,
};

/* ---- time ---- */

/* What the request holds is enough for one attempt. Where those before have used
 * of it, it has to be admitted anew, with that. */
static void
attempt_again(struct request *r)
{
	const struct metered *used = &r->used.all;

	if (used->cost_nusd == 0 && used->total_tokens == 0) {
		attempt_send(r);
		return;
	}
	r->at.count_tried = false;	/* its prompt's size is known, if it was asked for */
	route_resume(r, step_admit(r));
}

void
attempt_timer(struct request *r)
{
	enum timer_of of = r->timer_of;

	r->timer_of = TIMER_NONE;
	if (of == TIMER_PAUSE) {
		attempt_again(r);
		return;
	}
	if (of == TIMER_ANSWER) {
		exchange_cancel(r->exchange);
		on_error(r, EXCHANGE_TIMEOUT, "no answer in the time that the request has");
		return;
	}
	r->attempt.holding &= (uint8_t)~HOLD_START;
	if (!r->attempt.holding)
		(void)release_events(r);
}
