/*
 * upstream/exchange.c -- see exchange.h.
 *
 *	CONNECTING	a race runs; skipped with an idle connection
 *	SENDING		some of the request waits for the socket
 *	WAITING		all of it is written; no byte of an answer yet
 *	READING		the answer is coming (it may come while we still send)
 *
 * Every way out goes through leave(): the connection is taken off, the caller
 * is told, the struct is kept for the next exchange, and then the connection
 * goes to the pool or is closed. Callbacks may cancel the exchange, so after
 * each of them the connection is asked whose it is.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "upstream/private.h"
#include "upstream/wire/acked.h"

#define SEND_WINDOW_BYTES (256u << 10)	/* given to the stream at a time: bounds its queue */
#define SEND_PIECES 64			/* ... and the pieces, on the stack */
#define STALE_MS 100			/* a close that was on its way when we wrote is known by then */
#define INTERIM_MAX 16			/* 1xx answers before the real one */

struct exchange {
	struct target *target;
	struct exchange *spare;		/* the next unused one */
	struct conn *conn;
	struct race *race;
	struct exchange_request request;
	const struct exchange_callbacks *cb;
	void *arg;
	struct deadline deadline;
	size_t piece, offset;		/* what is to be sent next */
	uint64_t attached_ms;		/* when we got the connection */
	uint64_t written_before;	/* on a reused connection, when we got it */
	uint32_t interim;
	bool reused, announced, paused;
	bool sent;			/* all of the request is with the kernel */
	bool answered;			/* a byte of an answer has come */
	bool has_head;
};

static void connect_anew(struct exchange *x);
static void on_deadline(struct deadline *d, uint64_t now_ms);

/* ---- memory ---- */

static struct exchange *
exchange_new(struct target *t)
{
	struct upstream *u = t->upstream;
	struct exchange *x = u->spare;

	if (x) {
		u->spare = x->spare;
		u->spare_count--;
	} else if (!(x = malloc(sizeof(*x)))) {
		return NULL;
	}
	*x = (struct exchange){ .target = t };
	deadline_init(&x->deadline, on_deadline);
	target_hold(t);
	u->stats.busy++;
	return x;
}

static void
exchange_recycle(struct exchange *x)
{
	struct target *t = x->target;
	struct upstream *u = t->upstream;

	u->stats.busy--;
	x->target = NULL;
	if (u->spare_count < SPARE_EXCHANGES_MAX && !u->closing) {
		x->spare = u->spare;
		u->spare = x;
		u->spare_count++;
	} else {
		free(x);
	}
	target_release(t);
}

void
exchange_free_spares(struct upstream *u)
{
	while (u->spare) {
		struct exchange *x = u->spare;

		u->spare = x->spare;
		free(x);
	}
	u->spare_count = 0;
}

/* ---- the end ---- */

/* Takes the connection off; the exchange itself stays until it is recycled. */
static struct conn *
leave(struct exchange *x)
{
	struct conn *c = x->conn;

	deadline_clear(&x->deadline);
	x->conn = NULL;
	if (c)
		c->owner = NULL;
	return c;
}

static void
succeed(struct exchange *x, bool reusable)
{
	bool sent = x->sent;
	struct conn *c = leave(x);

	x->cb->on_done(x->arg);		/* the head's memory is the connection's: before it goes */
	exchange_recycle(x);
	if (reusable && sent && !c->stream.ended && !c->stream.broken)
		pool_put(c);
	else
		conn_close(c);
}

static void
fail(struct exchange *x, enum exchange_error e, const char *text)
{
	struct conn *c = leave(x);

	x->target->upstream->stats.errors++;
	x->cb->on_error(x->arg, e, text);
	exchange_recycle(x);
	if (c)
		conn_reset(c);
}

static void PRINTF_LIKE(3, 4)
fail_text(struct exchange *x, enum exchange_error e, const char *fmt, ...)
{
	char text[ERROR_TEXT_BYTES];
	int n = snprintf(text, sizeof(text), "%s:%u: ", x->target->host, x->target->port);
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, args);
	va_end(args);
	fail(x, e, text);
}

/* ---- time ---- */

static void
expect_within(struct exchange *x, uint32_t ms)
{
	struct upstream *u = x->target->upstream;

	if (ms == 0 || x->paused)
		deadline_clear(&x->deadline);
	else
		deadline_set(&u->deadlines, &x->deadline, uv_now(u->loop) + ms);
}

/* Sets the deadline that fits what we wait for. */
static void
expect_progress(struct exchange *x)
{
	bool first = x->sent && !x->answered;

	expect_within(x, first ? x->request.first_byte_ms : x->request.idle_ms);
}

static void
on_deadline(struct deadline *d, uint64_t now_ms)
{
	struct exchange *x = CONTAINER_OF(d, struct exchange, deadline);

	(void)now_ms;
	if (!x->sent)
		fail_text(x, EXCHANGE_TIMEOUT, "the request was not taken: no progress for %u ms", x->request.idle_ms);
	else if (!x->answered)
		fail_text(x, EXCHANGE_TIMEOUT, "no answer within %u ms", x->request.first_byte_ms);
	else
		fail_text(x, EXCHANGE_IDLE, "the answer stopped: no byte for %u ms", x->request.idle_ms);
}

/* ---- sending ---- */

/* The next pieces, up to a window of bytes. */
static size_t
next_window(struct exchange *x, struct slice *window)
{
	const struct exchange_request *r = &x->request;
	size_t count = 0, left = SEND_WINDOW_BYTES;

	while (x->piece < r->pieces_count && count < SEND_PIECES && left > 0) {
		struct slice s = r->pieces[x->piece];

		s = (struct slice){ s.p + x->offset, s.n - x->offset };
		if (s.n > left) {
			s.n = left;
			x->offset += left;
		} else {
			x->piece++;
			x->offset = 0;
		}
		left -= s.n;
		window[count++] = s;
	}
	return count;
}

static void
send_more(struct exchange *x)
{
	struct slice window[SEND_PIECES];
	size_t count;

	while ((count = next_window(x, window)) > 0)
		if (stream_writev(&x->conn->stream, window, count) > 0)
			break;		/* on_drain goes on */
	x->sent = x->piece == x->request.pieces_count && !x->conn->stream.write_busy;
	expect_progress(x);
}

static void
on_drain(struct stream *s)
{
	struct conn *c = s->owner;

	if (c->owner)
		send_more(c->owner);
}

/* ---- reading ---- */

/* One event of the parser; *news: the caller was given something. false: nothing
 * more can be fed for this exchange. */
static bool
step(struct exchange *x, struct conn *c, struct slice *in, bool *news)
{
	switch (http1_feed(&c->http, in)) {
	case HTTP1_MORE:
		return false;
	case HTTP1_HEAD:
		if (c->http.head.status == 101) {
			fail_text(x, EXCHANGE_PROTOCOL, "it changes the protocol (101) without being asked");
			return false;
		}
		if (c->http.head.status < 200)
			return true;
		x->has_head = true;
		*news = true;
		x->cb->on_head(x->arg, &c->http.head);
		break;
	case HTTP1_BODY:
		*news = true;
		x->cb->on_body(x->arg, c->http.span.p, c->http.span.n);
		break;
	case HTTP1_DONE:
		if (x->has_head) {
			succeed(x, c->http.head.keep_alive && in->n == 0);
			return false;
		}
		if (++x->interim > INTERIM_MAX) {
			fail_text(x, EXCHANGE_PROTOCOL, "more than %d interim answers", INTERIM_MAX);
			return false;
		}
		http1_begin(&c->http, c->http.mem, x->request.head_request);
		return in->n > 0;
	case HTTP1_ERROR:
		fail_text(x, EXCHANGE_PROTOCOL, "the answer is not valid HTTP: %s", c->http.error);
		return false;
	}
	return c->owner == x;
}

static void
on_data(struct stream *s, const char *p, size_t n)
{
	struct conn *c = s->owner;
	struct exchange *x = c->owner;
	struct slice in = { p, n };
	bool news = false;

	x->answered = true;
	expect_progress(x);
	while (step(x, c, &in, &news))
		;
	if (news && c->owner == x)
		x->cb->on_read_end(x->arg);
}

/* Can the provider have got this request? Not if its kernel acknowledged no
 * byte of it (what was written on the connection before has been answered, so
 * it is acknowledged); and not if the end came as soon as it takes the news of
 * an earlier close to arrive. */
static bool
was_taken(struct exchange *x)
{
	uv_os_fd_t fd;
	int64_t acked;

	if (uv_now(x->target->upstream->loop) - x->attached_ms < STALE_MS)
		return false;
	acked = uv_fileno((uv_handle_t *)&x->conn->stream.tcp, &fd) == 0 ? socket_acked_bytes(fd) : -1;
	return acked < 0 || (uint64_t)acked > x->written_before;
}

/* An idle connection can have died while nobody looked. The request is
 * repeated, once, on a connection of its own, but only if the provider cannot
 * have got any of it: a prompt must not be billed twice. */
static bool
replace(struct exchange *x)
{
	if (!x->reused || x->answered || was_taken(x))
		return false;
	conn_close(leave(x));
	x->reused = false;
	x->piece = x->offset = 0;
	x->sent = false;
	connect_anew(x);
	return true;
}

static void
on_end(struct stream *s, int error, const char *text)
{
	struct conn *c = s->owner;
	struct exchange *x = c->owner;

	if (replace(x))
		return;
	/* Silence or garbage in TLS must not pass for the end of an answer
	 * that has no other mark. */
	if (error == 0 && x->has_head && http1_eof(&c->http) == HTTP1_DONE)
		succeed(x, false);
	else if (!x->answered)
		fail_text(x, EXCHANGE_RESET, "the connection was closed without an answer%s%s", error ? ": " : "", text);
	else
		fail_text(x, EXCHANGE_RESET, "the connection was closed in the middle of the answer%s%s",
		    error ? ": " : "", text);
}

static void
on_open(struct stream *s)
{
	(void)s;	/* it was, when we got it */
}

static const struct stream_callbacks conn_callbacks = {
	.on_open = on_open, .on_data = on_data, .on_end = on_end, .on_drain = on_drain, .on_closed = conn_closed,
};

/* ---- beginning ---- */

static void
attach(struct exchange *x, struct conn *c)
{
	x->conn = c;
	x->attached_ms = uv_now(x->target->upstream->loop);
	x->written_before = c->stream.bytes_written;
	c->owner = x;
	c->stream.cb = &conn_callbacks;
	c->stream.owner = c;
	http1_begin(&c->http, x->request.mem ? x->request.mem : &c->mem, x->request.head_request);
	if (x->paused)
		stream_pause(&c->stream);
	if (!x->announced) {
		x->announced = true;
		x->cb->on_sent(x->arg);
		if (c->owner != x)
			return;
	}
	send_more(x);
}

static void
on_race_done(void *arg, struct conn *c, enum exchange_error e, const char *text)
{
	struct exchange *x = arg;

	x->race = NULL;
	if (c)
		attach(x, c);
	else
		fail(x, e, text);
}

static void
out_of_memory(struct deadline *d, uint64_t now_ms)
{
	(void)now_ms;
	fail_text(CONTAINER_OF(d, struct exchange, deadline), EXCHANGE_CONNECT, "out of memory");
}

static void
connect_anew(struct exchange *x)
{
	x->race = race_start(x->target, x->request.connect_ms, on_race_done, x);
	if (!x->race) {
		x->deadline.passed = out_of_memory;	/* not here: by the next tick */
		deadline_set(&x->target->upstream->deadlines, &x->deadline, 0);
	}
}

struct exchange *
exchange_start(struct target *t, const struct exchange_request *r, const struct exchange_callbacks *cb, void *arg)
{
	struct exchange *x = exchange_new(t);
	struct conn *c;

	if (!x)
		return NULL;
	x->request = *r;
	x->cb = cb;
	x->arg = arg;
	c = pool_take(t);
	if (c) {
		t->upstream->stats.reuses++;
		x->reused = true;
		attach(x, c);
	} else {
		connect_anew(x);
	}
	return x;
}

void
exchange_cancel(struct exchange *x)
{
	struct conn *c = leave(x);

	race_cancel(x->race);
	x->race = NULL;
	exchange_recycle(x);
	if (c)
		conn_reset(c);
}

void
exchange_pause(struct exchange *x)
{
	x->paused = true;
	if (!x->conn)
		return;
	stream_pause(&x->conn->stream);
	deadline_clear(&x->deadline);
}

void
exchange_resume(struct exchange *x)
{
	if (!x->paused)
		return;
	x->paused = false;
	if (!x->conn)
		return;
	stream_resume(&x->conn->stream);
	expect_progress(x);
}

bool
exchange_sent(const struct exchange *x)
{
	return x->sent;
}

bool
exchange_reused(const struct exchange *x)
{
	return x->reused;
}
