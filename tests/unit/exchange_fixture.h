/*
 * tests/unit/exchange_fixture.h -- a scripted provider on the loopback
 * interface, a caller that notes what it is told, and a stage for both, in one
 * loop. Time-outs are driven by upstream_tick() with a clock that runs ahead.
 */
#ifndef WEIR_TESTS_UNIT_EXCHANGE_FIXTURE_H
#define WEIR_TESTS_UNIT_EXCHANGE_FIXTURE_H

#include <stdlib.h>

#include "tests/unit/certificates.h"
#include "tests/unit/loop.h"
#include "upstream/exchange.h"
#include "upstream/wire/stream.h"
#include "upstream/wire/tls.h"

static struct pki pki;
static struct pair good;
static struct tls_ticket_keys keys;

/* ---- the provider ---- */

struct provider;

struct provider_conn {
	struct stream stream;
	struct http1 http;
	struct scratch mem;
	struct provider *provider;
	struct provider_conn *next;
	unsigned requests;	/* complete ones on this connection */
	bool closed, ended;
	int error;
	size_t body_bytes;
};

struct provider {
	struct test_loop *loop;
	uv_tcp_t listener;
	bool listening;
	uint16_t port;
	struct tls_context *tls;
	struct provider_conn *conns;	/* the newest first */
	unsigned accepted, requests, resumed, ended;
	bool pause_after_head;
	void (*serve)(struct provider_conn *c, unsigned nth);	/* a request is complete */
	const char *answer;	/* of serve_text() */
};

static inline void
say(struct provider_conn *c, const char *text)
{
	if (!c->closed)
		stream_write(&c->stream, slice_of(text));
}

static inline void
serve_text(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	say(c, c->provider->answer);
}

static inline void
provider_open(struct stream *s)
{
	struct provider_conn *c = s->owner;

	if (s->tls && tls_resumed(s->tls))
		c->provider->resumed++;
}

static inline void
provider_close(struct provider_conn *c, bool reset)
{
	c->closed = true;
	if (reset)
		stream_reset(&c->stream);
	else
		stream_close(&c->stream);
}

static inline void
provider_data(struct stream *s, const char *p, size_t n)
{
	struct provider_conn *c = s->owner;
	struct slice in = { p, n };

	while (!c->closed) {
		switch (http1_feed(&c->http, &in)) {
		case HTTP1_HEAD:
			if (c->provider->pause_after_head)
				stream_pause(s);
			continue;
		case HTTP1_BODY:
			c->body_bytes += c->http.span.n;
			continue;
		case HTTP1_DONE:
			http1_begin(&c->http, &c->mem, false);
			c->provider->requests++;
			c->provider->serve(c, ++c->requests);
			if (in.n > 0)
				continue;
			return;
		case HTTP1_ERROR:
			fail_msg("the provider got rubbish: %s", c->http.error);
			return;
		case HTTP1_MORE:
			return;
		}
	}
}

static inline void
provider_end(struct stream *s, int error, const char *text)
{
	struct provider_conn *c = s->owner;

	(void)text;
	c->ended = true;
	c->error = error;
	c->provider->ended++;
	provider_close(c, false);
}

static inline void
provider_drain(struct stream *s)
{
	(void)s;
}

static inline void
provider_closed(struct stream *s)
{
	struct provider_conn *c = s->owner, **at = &c->provider->conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	http1_free(&c->http);
	scratch_reset(&c->mem);
	free(c);
}

static const struct stream_callbacks provider_callbacks = {
	.on_open = provider_open, .on_data = provider_data, .on_end = provider_end, .on_drain = provider_drain,
	.on_closed = provider_closed,
};

static inline void
provider_accept(uv_stream_t *listener, int status)
{
	struct provider *v = listener->data;
	struct provider_conn *c = calloc(1, sizeof(*c));

	assert_int_equal(status, 0);
	c->provider = v;
	c->next = v->conns;
	v->conns = c;
	v->accepted++;
	scratch_init(&c->mem, 1u << 20);
	http1_init(&c->http, false, 65536);
	http1_begin(&c->http, &c->mem, false);
	assert_int_equal(stream_accept(&c->stream, listener, v->tls, &provider_callbacks, c), 0);
}

static inline void
provider_start(struct provider *v, struct test_loop *loop, struct tls_context *tls)
{
	struct sockaddr_in address;
	int length = sizeof(address);

	*v = (struct provider){ .loop = loop, .tls = tls, .serve = serve_text, .listening = true,
	    .answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" };
	assert_int_equal(uv_tcp_init(&loop->uv, &v->listener), 0);
	v->listener.data = v;
	assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
	assert_int_equal(uv_tcp_bind(&v->listener, (struct sockaddr *)&address, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&v->listener, 64, provider_accept), 0);
	assert_int_equal(uv_tcp_getsockname(&v->listener, (struct sockaddr *)&address, &length), 0);
	v->port = ntohs(address.sin_port);
}

static inline void
provider_stop(struct provider *v)
{
	if (v->listening)
		uv_close((uv_handle_t *)&v->listener, NULL);
	v->listening = false;
	for (struct provider_conn *c = v->conns; c; c = c->next)
		if (!c->closed)
			provider_close(c, false);
}

/* ---- the caller ---- */

struct call {
	struct buf body;
	struct slice pieces[4];
	char head[4096];	/* copied out of on_head: "status name=value ..." */
	int sent, heads, spans, read_ends, done, errors;
	enum exchange_error error;
	char text[400];
	bool pause_on_body, cancel_on_head, cancel_on_body, cancelled;
	struct exchange *x;
	struct exchange_request request;
	struct call *next;	/* started when this one is done */
	struct target *target;
	bool read_end_due;
};

static const struct exchange_callbacks call_callbacks;

static inline void
call_start(struct call *c, struct target *t, const char *request)
{
	struct exchange_request *r = &c->request;
	static const struct exchange_request defaults = {
		.connect_ms = 5000, .first_byte_ms = 60000, .idle_ms = 30000,
	};

	if (!r->connect_ms)
		*r = defaults;
	if (!r->pieces) {
		c->pieces[0] = slice_of(request);
		r->pieces = c->pieces;
		r->pieces_count = 1;
	}
	buf_init(&c->body, 64u << 20);
	c->target = t;
	c->x = exchange_start(t, r, &call_callbacks, c);
	assert_non_null(c->x);
	assert_int_equal(c->done + c->errors, 0);
}

static inline bool
call_over(const struct call *c)
{
	return c->done || c->errors || c->cancelled;
}

static inline void
on_sent(void *arg)
{
	struct call *c = arg;

	assert_int_equal(c->heads + c->spans + c->done + c->errors, 0);
	c->sent++;
}

static inline void
call_cancel(struct call *c)
{
	c->cancelled = true;
	exchange_cancel(c->x);
}

static inline void
on_head(void *arg, const struct http1_head *head)
{
	struct call *c = arg;
	int n = snprintf(c->head, sizeof(c->head), "%d", head->status);

	assert_false(call_over(c));
	assert_int_equal(c->sent, 1);
	assert_int_equal(c->heads++, 0);
	c->read_end_due = true;
	for (uint32_t i = 0; i < head->headers_count && n < 3500; i++)
		n += snprintf(c->head + n, sizeof(c->head) - (size_t)n, " %.*s=%.*s",
		    SLICE_FMT(head->headers[i].name), SLICE_FMT(head->headers[i].value));
	if (c->cancel_on_head)
		call_cancel(c);
}

static inline void
on_body(void *arg, const char *p, size_t n)
{
	struct call *c = arg;

	assert_false(call_over(c));
	assert_int_equal(c->heads, 1);
	buf_add(&c->body, p, n);
	c->spans++;
	c->read_end_due = true;
	if (c->pause_on_body)
		exchange_pause(c->x);
	if (c->cancel_on_body)
		call_cancel(c);
}

static inline void
on_read_end(void *arg)
{
	struct call *c = arg;

	assert_false(call_over(c));
	assert_true(c->read_end_due);
	c->read_end_due = false;
	c->read_ends++;
}

static inline void
on_done(void *arg)
{
	struct call *c = arg;

	assert_false(call_over(c));
	assert_int_equal(c->heads, 1);
	c->done++;
	if (c->next)
		call_start(c->next, c->target, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
}

static inline void
on_error(void *arg, enum exchange_error e, const char *text)
{
	struct call *c = arg;

	assert_false(call_over(c));
	c->errors++;
	c->error = e;
	snprintf(c->text, sizeof(c->text), "%s", text);
}

static const struct exchange_callbacks call_callbacks = {
	.on_sent = on_sent, .on_head = on_head, .on_body = on_body, .on_read_end = on_read_end,
	.on_done = on_done, .on_error = on_error,
};

static inline void
call_free(struct call *c)
{
	buf_free(&c->body);
	*c = (struct call){ .x = NULL };
}

/* ---- the stage ---- */

struct stage {
	struct test_loop loop;
	struct provider provider;
	struct upstream *upstream;
	struct target *target;
	struct tls_context *tls;
};

static inline struct target *
target_of(struct stage *s, const char *host, uint16_t port, bool tls, const char *ca)
{
	char why[200];
	struct target *t = upstream_target(s->upstream, &(struct target_at){ .host = host, .port = port, .tls = tls, .ca_pem = slice_of(ca) }, why, sizeof(why));

	if (!t)
		fail_msg("%s", why);
	return t;
}

static inline void
stage_set(struct stage *s, bool tls)
{
	char why[200];

	test_loop_init(&s->loop);
	s->tls = NULL;
	if (tls) {
		s->tls = tls_server_new(slice_of(good.cert), slice_of(good.key), &keys, why, sizeof(why));
		assert_non_null(s->tls);
	}
	provider_start(&s->provider, &s->loop, s->tls);
	s->upstream = upstream_new(&s->loop.uv);
	assert_non_null(s->upstream);
	s->target = target_of(s, tls ? "localhost" : "127.0.0.1", s->provider.port, tls, pki.ca);
}

static inline void
stage_clear(struct stage *s)
{
	assert_int_equal(upstream_stats(s->upstream).busy, 0);
	target_put(s->target);
	upstream_free(s->upstream);
	provider_stop(&s->provider);
	tls_context_put(s->tls);
	test_loop_free(&s->loop);
}

static inline void
tick(struct stage *s, uint64_t ahead_ms)
{
	upstream_tick(s->upstream, uv_now(&s->loop.uv) + ahead_ms);
}

#define GET "GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n"

/* One call from beginning to end. */
static inline void
call_run(struct stage *s, struct call *c)
{
	call_start(c, s->target, GET);
	RUN_UNTIL(&s->loop, call_over(c));
}

static inline void
expect_done(struct stage *s, const char *head, const char *body)
{
	struct call c = { .x = NULL };

	call_run(s, &c);
	if (!c.done)
		fail_msg("%s", c.text);
	assert_string_equal(c.head, head);
	assert_true(slice_eq(buf_slice(&c.body), slice_of(body)));
	call_free(&c);
}

static inline void
expect_error(struct stage *s, enum exchange_error e, const char *words)
{
	struct call c = { .x = NULL };

	call_run(s, &c);
	if (c.error != e || !strstr(c.text, words))
		fail_msg("%d \"%s\" instead of %d \"%s\"", c.error, c.text, e, words);
	call_free(&c);
}

static inline int
setup(void **state)
{
	(void)state;
	pki_init(&pki);
	pki_issue(&pki, &good, "localhost", LONG_AGO, FAR_AWAY);
	return tls_random(&keys.name, sizeof(keys.name)) && tls_random(&keys.key, sizeof(keys.key)) ? 0 : -1;
}

static inline int
teardown(void **state)
{
	(void)state;
	pki_free(&pki);
	return 0;
}

#endif
