/* gateway/relay.c -- see relay.h. */
#include "gateway/relay.h"

#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/metrics.h"

#define SPANS_MAX 64		/* pieces of one read; more are written in between */

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
void
relay_flush(struct request *r, bool last)
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

bool
relay_open(struct request *r)
{
	if (!r->spans)
		r->spans = scratch_alloc(&r->mem, SPANS_MAX * sizeof(*r->spans));
	return r->spans != NULL;
}

void
relay_drop(struct request *r)
{
	r->out_head = SLICE_NONE;
	r->spans_count = 0;
	r->response_bytes = 0;
}

void
relay_span(struct request *r, struct slice span)
{
	if (!span.n)
		return;
	if (r->spans_count == SPANS_MAX)
		relay_flush(r, false);
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

void
relay_events(struct request *r, struct slice span)
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
		relay_span(r, (struct slice){ span.p, cut });
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
		relay_span(r, (struct slice){ r->tail.p, cut });
		relay_flush(r, false);
		buf_consume(&r->tail, cut);
	}
	if (r->tail.n == 0)
		buf_free(&r->tail);
}

void
relay_error_event(struct request *r, const char *type, struct slice message, bool whole)
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
	step_settle(r, r->rec.fixed.outcome);	/* who has read it may ask again at once */
	relay_span(r, buf_slice(&event));
	relay_flush(r, whole);
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
struct slice
relay_with_model(struct request *r)
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

/* ---- the answer's head ---- */

/* Lines of the provider that speak to weir's connection or account, not to
 * the client: limits of a shared account, other protocols of its host, and what
 * weir says itself, where the provider is a gateway too. */
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
	case 'x':
		if (slice_starts(name, SLICE("x-portkey-")) || slice_starts(name, SLICE("x-weir-")))
			return false;
		break;
	}
	return !http1_hop_by_hop(head, name);
}

bool
relay_head(struct request *r, const struct http1_head *head, int64_t length)
{
	size_t room = 512 + reply_own_room(r);
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

/* ---- back-pressure ---- */

void
request_client_drained(struct request *r)
{
	timepoint_remove(&r->client->deadline);
	if (r->exchange)
		exchange_resume(r->exchange);
}

/* ---- silence ---- */

/* Nothing has gone to the client yet (no provider has answered, or the beginning of
 * its answer is held) and it must hear something: from here on the answer is 200,
 * and an error will be an event. */
static void
commit_early(struct request *r)
{
	struct http1_header lines[] = {
		{ SLICE("content-type"), SLICE("text/event-stream; charset=utf-8") },
		{ SLICE("cache-control"), SLICE("no-cache") },
	};
	struct http1_head head = { .status = 200, .headers = lines, .headers_count = 2, .content_length = -1 };

	if (!relay_open(r) || !relay_head(r, &head, -1))
		return;
	r->committed_early = r->sse = true;
	r->rec.fixed.status = 200;
	relay_span(r, SLICE(": wait\n\n"));
	relay_flush(r, false);
}

void
request_quiet(struct request *r)
{
	struct worker *w = r->worker;

	timepoint_touch(&w->quiet, &r->quiet, worker_now_ms(w));
	if (!r->client || r->client->stream.write_busy || r->tail_passing || (r->sse && r->length_known))
		return;		/* bytes are on their way, or there is no room for ours */
	if (!r->response_head_sent) {
		commit_early(r);
	} else if (r->sse && !r->attempt.late && (!r->attempt.tap || !usage_tap_finished(r->attempt.tap))) {
		bool begun = r->attempt.tap && usage_tap_message_started(r->attempt.tap) && !r->attempt.holding;
		relay_span(r, begun ? SLICE("event: ping\ndata: {\"type\":\"ping\"}\n\n") : SLICE(": wait\n\n"));
		relay_flush(r, false);
	}
	metrics_add(w->arena, w->index, COUNTER_PINGS, 1);
}
