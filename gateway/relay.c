/*
 * gateway/relay.c -- the provider's answer on its way to the client.
 *
 * Bytes are the provider's; only the framing is ours. What one read of the
 * provider's socket brought is gathered as spans and leaves in one write. An
 * event stream passes at the borders of its events: the beginning of an event
 * that has not come whole is held back (up to SSE_TAIL_BYTES_MAX), so that a
 * ping or an error event can be put in at any time and a broken connection
 * never leaves half an event behind. The usage tap sees every byte first.
 *
 * If another model went upstream than the client asked for, the answer's model
 * is put back to the client's name: in message_start, or in the plain answer.
 */

#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define SPANS_MAX 64		/* pieces of one read; more are written in between */
#define HOLD_EVENTS_BYTES_MAX 262144	/* waiting for message_start of a remapped model */
#define PROGRESS_BYTES 4096	/* of content between two updates of the crash estimate */

/* ---- writing ---- */

static void
after_write(struct request *r, size_t queued)
{
	struct worker *w = r->worker;

	if (r->quiet.next)
		timepoint_touch(&w->quiet, &r->quiet, worker_now_ms(w));
	if (queued > STREAM_QUEUE_HIGH && r->exchange && !r->client->deadline.next) {
		exchange_pause(r->exchange);
		timepoint_touch(&w->stall, &r->client->deadline, worker_now_ms(w));
	}
}

/* The line ahead of a chunk: its size in hexadecimal. */
static struct slice
chunk_line(size_t bytes, char line[static 24])
{
	char *p = line + 22;

	memcpy(p, "\r\n", 2);
	do
		*--p = "0123456789abcdef"[bytes & 15];
	while ((bytes >>= 4) > 0);
	return (struct slice){ p, (size_t)(line + 24 - p) };
}

/* Head, spans and the end of the body, as far as they are there, in one write.
 * What the request cost is settled ahead of its last byte: a client that has
 * its answer may ask again at once, at any worker, and finds its hold gone. */
static void
flush(struct request *r, bool last)
{
	struct slice pieces[SPANS_MAX + 4];
	char size_line[24];
	size_t n = 0, bytes = 0;

	if (last)
		step_settle(r, r->rec.fixed.outcome);
	if (r->out_head.n) {
		pieces[n++] = r->out_head;
		r->out_head = SLICE_NONE;
		r->response_head_sent = true;
	}
	for (uint32_t i = 0; i < r->spans_count; i++)
		bytes += r->spans[i].n;
	if (bytes && r->chunked_out)
		pieces[n++] = chunk_line(bytes, size_line);
	for (uint32_t i = 0; i < r->spans_count; i++)
		pieces[n++] = r->spans[i];
	if (r->chunked_out && bytes)
		pieces[n++] = last ? SLICE("\r\n0\r\n\r\n") : SLICE("\r\n");
	else if (r->chunked_out && last)
		pieces[n++] = SLICE("0\r\n\r\n");
	r->spans_count = 0;
	if (n > 0)
		after_write(r, stream_writev(&r->client->stream, pieces, n));
}

static void
add_span(struct request *r, struct slice span)
{
	if (!span.n)
		return;
	if (r->spans_count == SPANS_MAX)
		flush(r, false);
	r->spans[r->spans_count++] = span;
	r->response_bytes += (int64_t)span.n;
}

/* ---- events ---- */

/* The end of the last complete event in s: behind its blank line. 0: none.
 * Lines end in LF, CR LF, or (in a stream that has no LF) CR. */
static size_t
events_end(struct slice s)
{
	int eol = memchr(s.p, '\n', s.n) ? '\n' : '\r';
	const char *p = s.p + s.n;

	while (p > s.p && (p = memrchr(s.p, eol, (size_t)(p - s.p)))) {
		const char *begin = eol == '\n' && p > s.p && p[-1] == '\r' ? p - 1 : p;

		if (begin > s.p && begin[-1] == eol)
			return (size_t)(p + 1 - s.p);
	}
	return 0;
}

static void
pass_events(struct request *r, struct slice span)
{
	size_t cut;

	if (r->tail.n == 0) {
		cut = events_end(span);
		if (cut)
			r->tail_passing = false;
		if (r->tail_passing || span.n - cut > SSE_TAIL_BYTES_MAX) {
			r->tail_passing = true;
			cut = span.n;
		}
		add_span(r, (struct slice){ span.p, cut });
		buf_add(&r->tail, span.p + cut, span.n - cut);
		return;
	}
	/* An unfinished event waits: what came now is appended to it, and what is
	 * complete leaves at once, because the buffer moves. */
	buf_add_slice(&r->tail, span);
	cut = events_end(buf_slice(&r->tail));
	if (r->tail.n - cut > SSE_TAIL_BYTES_MAX) {
		r->tail_passing = true;
		cut = r->tail.n;
	}
	if (cut) {
		add_span(r, (struct slice){ r->tail.p, cut });
		flush(r, false);
		buf_consume(&r->tail, cut);
	}
	if (r->tail.n == 0)
		buf_free(&r->tail);
}

void
relay_error_event(struct request *r, const char *type, struct slice message)
{
	struct buf event;

	buf_free(&r->tail);
	buf_init(&event, 65536);
	buf_add_str(&event, "event: error\ndata: ");
	reply_error_body(&event, r, type, message);
	buf_add_str(&event, "\n\n");
	if (r->tail_passing) {
		/* Half of a very long event is out: only a cut says the truth. */
		buf_free(&event);
		return;
	}
	add_span(r, buf_slice(&event));
	flush(r, true);
	buf_free(&event);
}

/* ---- a remapped model ---- */

/* Where the value of message.model, or of model, stands in a JSON text. */
static bool
find_model(struct slice json, bool in_message, struct slice *value)
{
	struct slice object = json;

	if (in_message && !json_get(json, "message", &object))
		return false;
	return json_get(object, "model", value) && value->n >= 2 && value->p[0] == '"';
}

/* The data of the message_start event in the held bytes. */
static bool
find_message_start(struct slice held, struct slice *value)
{
	const char *p = held.p, *end = held.p + held.n;

	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p);
		struct slice line = { p, n };

		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (slice_starts(line, SLICE("data:"))) {
			struct slice json = slice_trim((struct slice){ line.p + 5, line.n - 5 }), type;
			if (json_get(json, "type", &type) && json_string_eq(type, "message_start"))
				return find_model(json, true, value);
		}
		p += n + 1;
	}
	return false;
}

/* The held bytes with the client's own name for the model. */
static struct slice
with_requested_model(struct request *r)
{
	struct slice held = buf_slice(&r->held), value;
	struct buf out;
	bool found = r->sse ? find_message_start(held, &value) : find_model(held, false, &value);

	if (!found)
		return held;
	buf_init(&out, held.n + 4096);
	buf_add(&out, held.p, (size_t)(value.p - held.p));
	buf_add_json(&out, r->model_requested);
	buf_add(&out, value.p + value.n, held.n - (size_t)(value.p + value.n - held.p));
	if (out.overflow) {
		buf_free(&out);
		return held;
	}
	buf_free(&r->held);
	r->held = out;
	return buf_slice(&r->held);
}

static void
release_held_events(struct request *r)
{
	r->holding = false;
	pass_events(r, with_requested_model(r));
	flush(r, false);
	buf_free(&r->held);
}

/* ---- the answer's head ---- */

/* Lines of the provider that speak to weir's connection or account, not to
 * the client: limits of a shared account, other protocols of its host. */
static bool
response_header_passes(const struct http1_head *head, struct slice name)
{
	switch (name.p[0]) {
	case 'a':
		if (slice_starts(name, SLICE("anthropic-ratelimit-")) || slice_starts(name, SLICE("anthropic-priority-")) ||
		    slice_starts(name, SLICE("anthropic-fast-")) || slice_eq(name, SLICE("alt-svc")))
			return false;
		break;
	case 'c':
		if (slice_eq(name, SLICE("content-length")))
			return false;	/* ours is written anew */
		break;
	case 's':
		if (slice_eq(name, SLICE("strict-transport-security")))
			return false;
		break;
	}
	return !http1_hop_by_hop(head, name);
}

static bool
build_response_head(struct request *r, const struct http1_head *head, int64_t length)
{
	size_t room = 1024 + r->rec.trace_id.n + r->limit_lines.n;
	struct text t;
	bool named = false;

	for (uint32_t i = 0; i < head->headers_count; i++)
		room += head->headers[i].name.n + head->headers[i].value.n + 4;
	if (!text_begin(&t, &r->mem, room))
		return false;
	r->length_known = length >= 0;
	r->chunked_out = length < 0 && r->head.minor >= 1;
	if (length < 0 && r->head.minor == 0)
		r->keep_alive = false;	/* HTTP/1.0 knows no chunks: the end is the end of the connection */
	reply_status_line(&t, head->status);
	for (uint32_t i = 0; i < head->headers_count; i++) {
		const struct http1_header *h = &head->headers[i];

		if (!response_header_passes(head, h->name))
			continue;
		named = named || slice_eq(h->name, SLICE("request-id"));
		text_header(&t, h->name, h->value);
	}
	if (!named)
		text_header(&t, SLICE("request-id"), r->rec.request_id);
	if (length >= 0) {
		text_add(&t, SLICE("content-length: "));
		text_int(&t, length);
		text_add(&t, SLICE("\r\n"));
	} else if (r->chunked_out) {
		text_add(&t, SLICE("transfer-encoding: chunked\r\n"));
	}
	reply_own_headers(&t, r);
	text_add(&t, SLICE("\r\n"));
	CHECK(!t.overflow);
	r->out_head = text_slice(&t);
	return true;
}

static void
on_sent(void *arg)
{
	struct request *r = arg;

	if (r->sent_mono_ns)
		return;
	r->sent_mono_ns = clock_mono_ns();
	r->rec.fixed.attempts = 1;
	inflight_sent(r->page);
}

static void
give_up(struct request *r, const char *why)
{
	static const struct refusal_words words = {
		.status = 502, .type = "api_error", .headers = "", .outcome = OUTCOME_UPSTREAM_FAILED,
	};

	log_warn("%s: provider %s: %s", r->id, r->provider->slug, why);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_UPSTREAM_ERRORS, 1);
	request_refuse(r, &words, "provider \"%s\": %s", r->provider->slug, why);
}

/* Nothing can be sent again once an answer has begun: a prompt of megabytes
 * need not wait for the answer's end. */
static void
forget_prompt(struct request *r)
{
	scratch_reset(&r->body_mem);
	buf_free(&r->body_grown);
	r->body = NULL;
	r->scan = NULL;
	r->edits = NULL;
}

static void
on_head(void *arg, const struct http1_head *head)
{
	struct request *r = arg;
	struct slice type = http1_find(head, "content-type"), id = http1_find(head, "request-id");

	r->first_byte_mono_ns = clock_mono_ns();
	r->upstream_status = head->status;
	if (exchange_sent(r->exchange))
		forget_prompt(r);
	/* Kept: the exchange's memory ends before the record is written. */
	char *kept = id.n && id.n <= 256 ? scratch_dup(&r->mem, id) : NULL;
	r->rec.provider_request_id = kept ? (struct slice){ kept, id.n } : SLICE_NONE;
	bool sse = slice_starts(type, SLICE("text/event-stream"));
	if (r->committed_early) {
		if (!sse || head->status >= 300)
			r->late = true;		/* 200 has been said: the body must become an event */
	} else {
		r->rec.fixed.status = (uint16_t)head->status;
		r->sse = sse;
	}
	if (head->status < 300 || sse || slice_starts(type, SLICE("application/json")))
		r->tap = usage_tap_new(sse ? USAGE_SSE : USAGE_JSON);
	if (!r->sse)
		timepoint_remove(&r->quiet);
	else if (!r->quiet.next)
		timepoint_touch(&r->worker->quiet, &r->quiet, worker_now_ms(r->worker));
	r->holding = r->model_remapped && head->status < 300 && r->tap && !r->late;
	if (r->committed_early)
		return;

	/* A remapped plain answer changes its length: its head waits for it. */
	r->plain_held = r->holding && !r->sse;
	if (!build_response_head(r, head, r->plain_held ? 0 : head->content_length)) {
		give_up(r, "its answer's head does not fit into memory");
		return;
	}
	if (r->plain_held)
		r->plain_head = *head;
}

static void
on_body(void *arg, const char *p, size_t n)
{
	struct request *r = arg;
	struct slice span = { p, n };

	if (r->tap)
		usage_tap_feed(r->tap, p, n);
	if (r->late) {
		buf_add_slice(&r->late_error, span);
	} else if (r->holding) {
		buf_add_slice(&r->held, span);
		if (r->plain_held)
			return;
		if (usage_tap_message_started(r->tap) || r->held.n > HOLD_EVENTS_BYTES_MAX || r->held.overflow)
			release_held_events(r);
	} else if (r->sse) {
		pass_events(r, span);
	} else {
		add_span(r, span);
	}
}

static void
on_read_end(void *arg)
{
	struct request *r = arg;

	if (!r->holding && !r->late)
		flush(r, false);
	if (!r->tap)
		return;
	uint64_t content = usage_tap_content_bytes(r->tap);
	if (usage_tap_changes(r->tap) != r->tap_seen || content >= r->estimate_seen + PROGRESS_BYTES) {
		r->tap_seen = usage_tap_changes(r->tap);
		r->estimate_seen = content;
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

	r->keep_alive = false;
	r->rec.fixed.outcome = OUTCOME_PROVIDER_ERROR;
	if (json_check(body, &why) && json_get(body, "error", &error) && json_get(error, "type", &type) &&
	    json_get(error, "message", &message)) {
		char *text = scratch_alloc(&r->mem, message.n + 1);
		size_t n = text ? json_unescape(message, text, message.n + 1) : SIZE_MAX;

		if (json_unescape(type, type_text, sizeof(type_text)) >= sizeof(type_text))
			memcpy(type_text, "api_error", sizeof("api_error"));
		else
			type_text[json_unescape(type, type_text, sizeof(type_text))] = '\0';
		relay_error_event(r, type_text, n == SIZE_MAX ? fallback : (struct slice){ text, n });
	} else {
		relay_error_event(r, "api_error", fallback);
	}
	request_finish(r, OUTCOME_PROVIDER_ERROR, true);
}

static bool
finish_plain_held(struct request *r)
{
	r->holding = false;
	struct slice body = with_requested_model(r);

	if (r->held.overflow || !build_response_head(r, &r->plain_head, (int64_t)body.n))
		return false;
	add_span(r, body);
	return true;
}

static void
on_done(void *arg)
{
	struct request *r = arg;
	enum record_outcome outcome = r->upstream_status >= 400 ? OUTCOME_PROVIDER_ERROR : OUTCOME_OK;
	struct slice type;

	r->exchange = NULL;
	r->upstream_end_mono_ns = clock_mono_ns();
	if (r->tap) {
		usage_tap_end(r->tap);
		if (usage_tap_error(r->tap, &type)) {
			outcome = OUTCOME_PROVIDER_ERROR;
			r->rec.error_type = type;
		}
	}
	if (r->late) {
		finish_late(r);
		return;
	}
	if (r->plain_held) {
		if (!finish_plain_held(r)) {
			give_up(r, "its answer does not fit into memory");
			return;
		}
	} else if (r->holding) {
		release_held_events(r);
	}
	add_span(r, buf_slice(&r->tail));
	r->rec.fixed.outcome = (uint8_t)outcome;
	flush(r, true);
	request_finish(r, outcome, true);
}

static void
on_error(void *arg, enum exchange_error e, const char *text)
{
	static const struct {
		int status;
		const char *type, *words;
	} kinds[] = {
		[EXCHANGE_OK] = { 502, "api_error", "" },
		[EXCHANGE_RESOLVE] = { 502, "api_error", "its name could not be resolved" },
		[EXCHANGE_FORBIDDEN] = { 400, "invalid_request_error", "its host may not be asked" },
		[EXCHANGE_CONNECT] = { 502, "api_error", "it could not be reached" },
		[EXCHANGE_TLS] = { 502, "api_error", "the TLS connection failed" },
		[EXCHANGE_TIMEOUT] = { 504, "timeout_error", "no answer came in time" },
		[EXCHANGE_IDLE] = { 504, "timeout_error", "the answer stopped in the middle" },
		[EXCHANGE_RESET] = { 502, "api_error", "the connection broke before the answer was complete" },
		[EXCHANGE_PROTOCOL] = { 502, "api_error", "the answer was not valid HTTP" },
	};
	struct request *r = arg;
	struct refusal_words words = {
		.status = kinds[e].status, .type = kinds[e].type, .headers = "", .outcome = OUTCOME_UPSTREAM_FAILED,
	};

	r->exchange = NULL;
	r->waited_out = e == EXCHANGE_TIMEOUT || e == EXCHANGE_IDLE;
	r->upstream_end_mono_ns = r->sent_mono_ns ? clock_mono_ns() : 0;
	log_warn("%s: provider %s: %s", r->id, r->provider->slug, text);
	metrics_add(r->worker->arena, r->worker->index, COUNTER_UPSTREAM_ERRORS, 1);
	if (r->tap)
		usage_tap_end(r->tap);
	if (r->holding && r->sse && r->held.n)
		release_held_events(r);
	if (r->response_head_sent) {
		flush(r, false);	/* what came whole in the same read */
	} else {
		r->out_head = SLICE_NONE;
		r->spans_count = 0;
		r->response_bytes = 0;
	}
	if (e == EXCHANGE_TIMEOUT && r->target->request_timeout_ms) {
		words.status = 408;	/* Portkey's answer to a config's request_timeout */
		request_refuse(r, &words, "Request exceeded the timeout sent in the request: %ums", r->first_byte_ms);
		return;
	}
	request_refuse(r, &words, "provider \"%s\": %s", r->provider->slug, kinds[e].words);
}

static const struct exchange_callbacks relay_callbacks = {
	.on_sent = on_sent, .on_head = on_head, .on_body = on_body, .on_read_end = on_read_end,
	.on_done = on_done, .on_error = on_error,
};

void
relay_start(struct request *r, struct target *t, const struct exchange_request *request)
{
	r->spans = scratch_alloc(&r->mem, SPANS_MAX * sizeof(*r->spans));
	if (!r->spans) {
		give_up(r, "out of memory");
		return;
	}
	r->exchange = exchange_start(t, request, &relay_callbacks, r);
	if (!r->exchange)
		give_up(r, "out of memory");
}

void
request_client_drained(struct request *r)
{
	timepoint_remove(&r->client->deadline);
	if (r->exchange)
		exchange_resume(r->exchange);
}

/* ---- silence ---- */

/* The provider has not answered yet and the client must hear something: from
 * here on the answer is 200, and an error will be an event. */
static void
commit_early(struct request *r)
{
	struct http1_header lines[] = {
		{ SLICE("content-type"), SLICE("text/event-stream; charset=utf-8") },
		{ SLICE("cache-control"), SLICE("no-cache") },
	};
	struct http1_head head = { .status = 200, .headers = lines, .headers_count = 2, .content_length = -1 };

	if (!build_response_head(r, &head, -1))
		return;
	r->committed_early = r->sse = true;
	r->rec.fixed.status = 200;
	add_span(r, SLICE(": wait\n\n"));
	flush(r, false);
}

void
request_quiet(struct request *r)
{
	struct worker *w = r->worker;

	timepoint_touch(&w->quiet, &r->quiet, worker_now_ms(w));
	if (!r->client || r->client->stream.write_busy || r->tail_passing || (r->sse && r->length_known))
		return;		/* bytes are on their way, or there is no room for ours */
	if (!r->upstream_status && !r->committed_early) {
		commit_early(r);
	} else if (r->sse && !r->late && (!r->tap || !usage_tap_finished(r->tap))) {
		bool begun = r->tap && usage_tap_message_started(r->tap) && !r->holding;
		add_span(r, begun ? SLICE("event: ping\ndata: {\"type\":\"ping\"}\n\n") : SLICE(": wait\n\n"));
		flush(r, false);
	}
	metrics_add(w->arena, w->index, COUNTER_PINGS, 1);
}
