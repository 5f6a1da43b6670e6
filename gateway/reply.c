/*
 * gateway/reply.c -- see reply.h; request_refuse() and request_reply() too.
 */
#include "gateway/reply.h"

#include <stdarg.h>
#include <stdio.h>

#include "gateway/relay.h"
#include "gateway/request.h"
#include "shm/metrics.h"

#define DEFER_BODY_BYTES_MAX 262144	/* a refused request's body that is still read to keep the connection */
#define MESSAGE_BYTES_MAX 1024
#define OWN_HEADERS_BYTES 1024	/* names, and what has a bound of its own */

/* How many decimal digits it has: 1233 / 4096 is a little more than log10(2). */
static size_t
digits_of(uint64_t value)
{
	static const uint64_t powers[] = {
		0, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000,
		1000000000000, 10000000000000, 100000000000000, 1000000000000000, 10000000000000000, 100000000000000000,
		1000000000000000000, UINT64_C(10000000000000000000),
	};
	size_t least = (size_t)(64 - __builtin_clzll(value | 1)) * 1233 / 4096;

	return least + (value >= powers[least]);
}

/* In place, two digits at a time: heads are full of numbers. */
void
text_number(struct text *t, int64_t value)
{
	static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
	    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
	uint64_t rest = (uint64_t)value;
	size_t digits = digits_of(rest);

	CHECK(value >= 0);
	if (digits > t->room - t->n) {
		t->overflow = true;
		return;
	}
	t->n += digits;
	char *p = t->p + t->n;
	for (; rest >= 100; rest /= 100)
		memcpy(p -= 2, pairs + 2 * (rest % 100), 2);
	if (rest >= 10)
		memcpy(p - 2, pairs + 2 * rest, 2);
	else
		p[-1] = (char)('0' + rest);
}

void
reply_status_line(struct text *t, int status)
{
	if (status == 200) {	/* nearly all, in one piece */
		text_add(t, SLICE("HTTP/1.1 200 OK\r\n"));
		return;
	}
	text_add(t, SLICE("HTTP/1.1 "));
	text_int(t, status);
	text_add(t, SLICE(" "));
	text_str(t, http1_reason(status));
	text_add(t, SLICE("\r\n"));
}

static void
add_course(struct text *t, const struct request *r)
{
	int32_t retries = account_retries(r);

	if (retries == 0 && r->rec.fixed.attempts == 1 && r->rec.fixed.cache == CACHE_DISABLED) {	/* nearly all, in one piece */
		text_add(t, SLICE("x-portkey-retry-attempt-count: 0\r\nx-weir-attempts: 1\r\nx-portkey-cache-status: DISABLED\r\n"));
		return;
	}
	text_add(t, retries < 0 ? SLICE("x-portkey-retry-attempt-count: -") : SLICE("x-portkey-retry-attempt-count: "));
	text_int(t, retries < 0 ? -retries : retries);
	text_add(t, SLICE("\r\nx-weir-attempts: "));
	text_int(t, r->rec.fixed.attempts);
	text_header(t, SLICE("\r\nx-portkey-cache-status"), slice_of(record_cache_name((enum record_cache)r->rec.fixed.cache)));
}

/* Which target's answer it is, and how it came to that. */
static void
add_target(struct text *t, const struct request *r)
{
	text_header(t, SLICE("x-portkey-last-used-option-index"), r->rec.target);
	add_course(t, r);
	if (r->at.provider) {
		text_add(t, buf_slice(&plane_provider(r->plane, r->at.provider)->answer_lines));
		text_header(t, SLICE("x-weir-model"), r->at.model);
	}
	if (!r->rec.config.n)
		return;
	text_add(t, SLICE("x-weir-config: "));
	text_add(t, r->rec.config);
	text_add(t, SLICE("@"));
	text_add(t, r->rec.config_version);
	text_add(t, SLICE("\r\n"));
}

size_t
reply_own_room(const struct request *r)
{
	return OWN_HEADERS_BYTES + r->rec.trace_id.n + r->limit_lines.n + r->rec.target.n + r->at.model.n + r->rec.config.n;
}

void
reply_own_headers(struct text *t, const struct request *r)
{
	text_header(t, SLICE("x-weir-request-id"), r->rec.request_id);
	if (r->rec.trace_id.n)
		text_header(t, SLICE("x-portkey-trace-id"), r->rec.trace_id);
	if (r->at.target)
		add_target(t, r);
	text_add(t, r->limit_lines);
	if (!r->keep_alive)
		text_add(t, SLICE("connection: close\r\n"));
}

void
reply_error_body(struct buf *out, const struct request *r, const char *type, struct slice message)
{
	buf_add_str(out, "{\"type\":\"error\",\"error\":{\"type\":");
	buf_add_json(out, slice_of(type));
	buf_add_str(out, ",\"message\":");
	buf_add_json(out, message);
	buf_add_str(out, "},\"request_id\":");
	buf_add_json(out, slice_of(r->id));
	buf_add_str(out, "}");
}

void
request_reply(struct request *r, int status, const char *content_type, const char *headers, struct slice body)
{
	struct text t;

	if (!r->body_complete)
		r->keep_alive = false;
	if (!r->client || !text_begin(&t, &r->mem, 512 + strlen(headers) + reply_own_room(r))) {
		request_finish(r, r->rec.fixed.outcome, false);
		return;
	}
	r->rec.fixed.status = (uint16_t)status;
	reply_status_line(&t, status);
	text_add(&t, SLICE("content-type: "));
	text_str(&t, content_type);
	text_add(&t, SLICE("\r\ncontent-length: "));
	text_int(&t, (int64_t)body.n);
	text_add(&t, SLICE("\r\nrequest-id: "));
	text_str(&t, r->id);
	text_add(&t, SLICE("\r\n"));
	text_str(&t, headers);
	reply_own_headers(&t, r);
	text_add(&t, SLICE("\r\n"));
	CHECK(!t.overflow);

	struct slice pieces[2] = { text_slice(&t), body };
	r->response_head_sent = true;
	if (!r->head_method)
		r->response_bytes += (int64_t)body.n;
	step_settle(r, r->rec.fixed.outcome);
	stream_writev(&r->client->stream, pieces, r->head_method ? 1 : 2);
	request_finish(r, r->rec.fixed.outcome, true);
}

/* Headers are out already: the refusal must become an event of the stream. */
static void
refuse_in_stream(struct request *r, const struct refusal_words *w, struct slice message)
{
	if (r->sse) {
		bool whole = !r->attempt.accepted;	/* nothing of a provider's answer is there */

		relay_error_event(r, w->type, message, whole);
		r->keep_alive = r->keep_alive && whole;
		request_finish(r, w->outcome, true);
	} else {
		request_finish(r, w->outcome, false);
	}
}

void
request_refuse(struct request *r, const struct refusal_words *w, const char *fmt, ...)
{
	char text[MESSAGE_BYTES_MAX];
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	size_t len = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
	char *kept = scratch_dup(&r->mem, (struct slice){ text, len });
	struct slice message = kept ? (struct slice){ kept, len } : SLICE("out of memory");

	r->rec.fixed.outcome = (uint8_t)w->outcome;
	r->rec.error_type = slice_of(w->type);
	r->rec.error_message = message;
	if (r->response_head_sent) {	/* whose status stands */
		refuse_in_stream(r, w, message);
		return;
	}
	r->rec.fixed.status = (uint16_t)w->status;
	if (r->is_explained)
		return;
	/* The body has not come whole. If it is small, read it first: then the
	 * connection stays usable. */
	if (!r->body_complete && r->keep_alive && !r->head.expect_continue && !r->head.chunked &&
	    r->head.content_length <= DEFER_BODY_BYTES_MAX && r->client && r->client->state == CLIENT_BODY) {
		r->deferred = *w;
		r->deferred_message = message;
		r->is_deferred = true;
		return;
	}
	request_refuse_now(r, w, message);
}

void
request_refuse_now(struct request *r, const struct refusal_words *w, struct slice message)
{
	struct buf body;

	buf_init(&body, 16384);
	reply_error_body(&body, r, w->type, message);
	request_reply(r, w->status, "application/json", w->headers, buf_slice(&body));
	buf_free(&body);
}
