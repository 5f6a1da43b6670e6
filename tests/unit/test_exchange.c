/*
 * Exchanges with a scripted provider on the loopback interface, in one loop.
 * Time-outs are driven by upstream_tick() with a clock that runs ahead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

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

static void
say(struct provider_conn *c, const char *text)
{
	if (!c->closed)
		stream_write(&c->stream, slice_of(text));
}

static void
serve_text(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	say(c, c->provider->answer);
}

static void
provider_open(struct stream *s)
{
	struct provider_conn *c = s->owner;

	if (s->tls && tls_resumed(s->tls))
		c->provider->resumed++;
}

static void
provider_close(struct provider_conn *c, bool reset)
{
	c->closed = true;
	if (reset)
		stream_reset(&c->stream);
	else
		stream_close(&c->stream);
}

static void
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

static void
provider_end(struct stream *s, int error, const char *text)
{
	struct provider_conn *c = s->owner;

	(void)text;
	c->ended = true;
	c->error = error;
	c->provider->ended++;
	provider_close(c, false);
}

static void
provider_drain(struct stream *s)
{
	(void)s;
}

static void
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

static void
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

static void
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

static void
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

static void
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

static bool
call_over(const struct call *c)
{
	return c->done || c->errors || c->cancelled;
}

static void
on_sent(void *arg)
{
	struct call *c = arg;

	assert_int_equal(c->heads + c->spans + c->done + c->errors, 0);
	c->sent++;
}

static void
call_cancel(struct call *c)
{
	c->cancelled = true;
	exchange_cancel(c->x);
}

static void
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

static void
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

static void
on_read_end(void *arg)
{
	struct call *c = arg;

	assert_false(call_over(c));
	assert_true(c->read_end_due);
	c->read_end_due = false;
	c->read_ends++;
}

static void
on_done(void *arg)
{
	struct call *c = arg;

	assert_false(call_over(c));
	assert_int_equal(c->heads, 1);
	c->done++;
	if (c->next)
		call_start(c->next, c->target, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
}

static void
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

static void
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

static struct target *
target_of(struct stage *s, const char *host, uint16_t port, bool tls, const char *ca)
{
	char why[200];
	struct target *t = upstream_target(s->upstream, host, port, tls, slice_of(ca), why, sizeof(why));

	if (!t)
		fail_msg("%s", why);
	return t;
}

static void
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

static void
stage_clear(struct stage *s)
{
	assert_int_equal(upstream_stats(s->upstream).busy, 0);
	target_put(s->target);
	upstream_free(s->upstream);
	provider_stop(&s->provider);
	tls_context_put(s->tls);
	test_loop_free(&s->loop);
}

static void
tick(struct stage *s, uint64_t ahead_ms)
{
	upstream_tick(s->upstream, uv_now(&s->loop.uv) + ahead_ms);
}

#define GET "GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n"

/* One call from beginning to end. */
static void
call_run(struct stage *s, struct call *c)
{
	call_start(c, s->target, GET);
	RUN_UNTIL(&s->loop, call_over(c));
}

static void
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

static void
expect_error(struct stage *s, enum exchange_error e, const char *words)
{
	struct call c = { .x = NULL };

	call_run(s, &c);
	if (c.error != e || !strstr(c.text, words))
		fail_msg("%d \"%s\" instead of %d \"%s\"", c.error, c.text, e, words);
	call_free(&c);
}

/* ---- answers ---- */

static void
answers_and_reuse(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		stage_set(&s, tls);
		for (int i = 0; i < 5; i++) {
			struct call c = { .x = NULL };

			call_start(&c, s.target, GET);
			assert_int_equal(exchange_reused(c.x), i > 0);
			RUN_UNTIL(&s.loop, call_over(&c));
			assert_int_equal(c.done, 1);
			assert_int_equal(c.sent, 1);
			assert_string_equal(c.head, "200 content-length=2");
			assert_true(slice_eq(buf_slice(&c.body), SLICE("{}")));
			assert_int_equal(c.read_ends, 0);	/* on_done has come instead */
			call_free(&c);
		}
		assert_int_equal(s.provider.accepted, 1);
		struct upstream_stats stats = upstream_stats(s.upstream);
		assert_int_equal(stats.connects, 1);
		assert_int_equal(stats.reuses, 4);
		assert_int_equal(stats.idle, 1);
		assert_int_equal(stats.errors, 0);
		stage_clear(&s);
	}
}

static void
kinds_of_answers(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
	    "HTTP/1.1 529 Overloaded\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n4\r\nbusy\r\n0\r\n\r\n";
	expect_done(&s, "529 transfer-encoding=chunked retry-after=7", "busy");
	s.provider.answer = "HTTP/1.1 204 No Content\r\n\r\n";
	expect_done(&s, "204", "");
	assert_int_equal(s.provider.accepted, 1);
	s.provider.answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
	expect_done(&s, "200 connection=close content-length=1", "x");
	s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy";	/* one byte too many */
	expect_done(&s, "200 content-length=1", "x");
	assert_int_equal(s.provider.accepted, 2);
	s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	expect_done(&s, "200 content-length=0", "");
	assert_int_equal(s.provider.accepted, 3);
	stage_clear(&s);
}

static void
head_request(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 1000, .head_request = true } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n";
	call_start(&c, s.target, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
	RUN_UNTIL(&s.loop, call_over(&c));
	assert_int_equal(c.done, 1);
	assert_int_equal(upstream_stats(s.upstream).idle, 1);
	call_free(&c);
	stage_clear(&s);
}

static void
serve_and_end(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	say(c, c->provider->answer);
	provider_close(c, false);
}

static void
answer_that_ends_with_the_connection(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		stage_set(&s, tls);
		s.provider.serve = serve_and_end;
		s.provider.answer = "HTTP/1.1 200 OK\r\n\r\nall there is";
		expect_done(&s, "200", "all there is");
		assert_int_equal(upstream_stats(s.upstream).idle, 0);
		stage_clear(&s);
	}
}

static void
serve_and_reset(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	say(c, c->provider->answer);
	provider_close(c, true);
}

/* Without a length the end of the connection is the end of the answer; a
 * reset is not. */
static void
reset_is_no_end(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		stage_set(&s, tls);
		s.provider.serve = serve_and_reset;
		s.provider.answer = "HTTP/1.1 200 OK\r\n\r\nhalf of what the";
		expect_error(&s, EXCHANGE_RESET, "");
		stage_clear(&s);
	}
}

/* Both parts in reads of their own: the loop turns between them. */
static void
answer_in_two(struct stage *s, struct call *c, const char *answer, size_t cut)
{
	struct slice all = slice_of(answer);

	s->provider.answer = "";
	call_start(c, s->target, GET);
	unsigned before = s->provider.requests;
	RUN_UNTIL(&s->loop, s->provider.requests > before);
	stream_write(&s->provider.conns->stream, (struct slice){ all.p, cut });
	for (int i = 0; i < 3; i++)
		uv_run(&s->loop.uv, UV_RUN_NOWAIT);
	assert_false(call_over(c) && cut < all.n);
	stream_write(&s->provider.conns->stream, (struct slice){ all.p + cut, all.n - cut });
}

static void
answers_cut_at_every_byte(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nTrailer: t\r\n\r\n",
	};
	struct stage s;

	(void)state;
	stage_set(&s, false);
	for (size_t i = 0; i < 2; i++)
		for (size_t cut = 0; cut <= strlen(answers[i]); cut++) {
			struct call c = { .x = NULL };

			answer_in_two(&s, &c, answers[i], cut);
			RUN_UNTIL(&s.loop, call_over(&c));
			assert_int_equal(c.done, 1);
			assert_true(slice_eq(buf_slice(&c.body), SLICE("hello world")));
			call_free(&c);
		}
	assert_int_equal(s.provider.accepted, 1);
	stage_clear(&s);
}

static char truncated[400];

static void
answers_broken_off_at_every_byte(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	};
	struct stage s;

	(void)state;
	stage_set(&s, false);
	s.provider.answer = truncated;
	for (size_t i = 0; i < 4; i++)
		for (size_t n = 0; n < strlen(answers[i / 2]); n++) {
			snprintf(truncated, sizeof(truncated), "%.*s", (int)n, answers[i / 2]);
			s.provider.serve = i % 2 ? serve_and_end : serve_and_reset;
			expect_error(&s, EXCHANGE_RESET, n == 0 ? "was closed without an answer" : "was closed ");
		}
	assert_int_equal(upstream_stats(s.upstream).idle, 0);
	stage_clear(&s);
}

/* ---- failures ---- */

static void
not_http(void **state)
{
	static const struct {
		const char *answer, *words;
	} cases[] = {
		{ "SSH-2.0-OpenSSH_9.2\r\n\r\n", "not valid HTTP" },
		{ "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CR LF" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "not valid HTTP" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "not valid HTTP" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not valid HTTP" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer coding" },
		{ "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "101" },
		{ "HTTP/2.0 200 OK\r\n\r\n", "version" },
	};
	struct stage s;

	(void)state;
	stage_set(&s, false);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		s.provider.answer = cases[i].answer;
		expect_error(&s, EXCHANGE_PROTOCOL, cases[i].words);
	}
	assert_int_equal(upstream_stats(s.upstream).errors, sizeof(cases) / sizeof(*cases));
	stage_clear(&s);
}

static void
serve_endless_interim(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	for (int i = 0; i < 50; i++)
		say(c, "HTTP/1.1 102 Processing\r\n\r\n");
}

static void
serve_endless_head(struct provider_conn *c, unsigned nth)
{
	(void)nth;
	say(c, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 2000; i++)
		say(c, "X-Padding: 0123456789012345678901234567890123456789\r\n");
}

static void
endless_heads(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	s.provider.serve = serve_endless_interim;
	expect_error(&s, EXCHANGE_PROTOCOL, "interim");
	s.provider.serve = serve_endless_head;
	expect_error(&s, EXCHANGE_PROTOCOL, "too ");
	stage_clear(&s);
}

static void
refused(void **state)
{
	struct stage s;
	char place[64];

	(void)state;
	stage_set(&s, false);
	uv_close((uv_handle_t *)&s.provider.listener, NULL);
	s.provider.listening = false;
	snprintf(place, sizeof(place), "127.0.0.1:%u: connection refused (127.0.0.1)", s.provider.port);
	expect_error(&s, EXCHANGE_CONNECT, place);
	struct target *named = s.target;
	s.target = target_of(&s, "localhost", s.provider.port, false, NULL);
	expect_error(&s, EXCHANGE_CONNECT, "connection refused");
	target_put(named);
	stage_clear(&s);
}

/* localhost may be ::1 first, where nobody listens. */
static void
by_name(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	target_put(s.target);
	s.target = target_of(&s, "localhost", s.provider.port, false, NULL);
	expect_done(&s, "200 content-length=2", "{}");
	s.provider.answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
	expect_done(&s, "200 connection=close content-length=0", "");
	expect_done(&s, "200 connection=close content-length=0", "");	/* the name is remembered */
	stage_clear(&s);
}

/* A label of 64 letters is no name: no server is asked. */
static void
no_such_name(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	target_put(s.target);
	s.target = target_of(&s, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.x", 80, false, NULL);
	expect_error(&s, EXCHANGE_RESOLVE, ".x:80: the name could not be resolved: ");

	struct call c = { .x = NULL };
	call_start(&c, s.target, GET);	/* cancelled while the look-up runs */
	call_cancel(&c);
	call_free(&c);
	stage_clear(&s);
}

static void
untrusted(void **state)
{
	struct stage s;
	struct pki stranger;

	(void)state;
	pki_init(&stranger);
	stage_set(&s, true);
	struct target *right = s.target;
	s.target = target_of(&s, "localhost", s.provider.port, true, stranger.ca);
	assert_ptr_not_equal(s.target, right);
	expect_error(&s, EXCHANGE_TLS, "the certificate is not trusted");
	target_put(s.target);
	s.target = target_of(&s, "127.0.0.1", s.provider.port, true, pki.ca);
	expect_error(&s, EXCHANGE_TLS, "127.0.0.1:");
	target_put(s.target);
	s.target = right;
	expect_done(&s, "200 content-length=2", "{}");
	assert_ptr_equal(target_of(&s, "localhost", s.provider.port, true, pki.ca), right);
	target_put(right);
	assert_int_equal(s.provider.requests, 1);	/* nothing was sent to the wrong ones */
	stage_clear(&s);
	pki_free(&stranger);
}

static void
bad_ca(void **state)
{
	struct stage s;
	char why[200];

	(void)state;
	stage_set(&s, false);
	assert_null(upstream_target(s.upstream, "a", 443, true, SLICE("rubbish"), why, sizeof(why)));
	assert_non_null(strstr(why, "CA certificates"));
	stage_clear(&s);
}

/* ---- idle connections ---- */

static void
serve_once_then_close(struct provider_conn *c, unsigned nth)
{
	if (nth == 1)
		say(c, c->provider->answer);
	else
		provider_close(c, c->provider->requests % 2);
}

static void
dead_idle_connection_is_replaced(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		stage_set(&s, tls);
		s.provider.serve = serve_once_then_close;
		for (unsigned i = 0; i < 6; i++) {
			struct call c = { .x = NULL };

			call_run(&s, &c);
			assert_int_equal(c.done, 1);
			assert_int_equal(c.sent, 1);
			call_free(&c);
		}
		assert_int_equal(s.provider.accepted, 6);
		assert_int_equal(s.provider.requests, 11);	/* all but the first were repeated */
		assert_int_equal(upstream_stats(s.upstream).errors, 0);
		stage_clear(&s);
	}
}

static void
serve_first_then_half(struct provider_conn *c, unsigned nth)
{
	say(c, nth == 1 ? c->provider->answer : "H");
	if (nth > 1)
		provider_close(c, false);
}

static void
serve_none_after_first(struct provider_conn *c, unsigned nth)
{
	if (c->provider->requests == 1)
		say(c, c->provider->answer);
	else
		provider_close(c, false);
	(void)nth;
}

static void
replaced_once_and_only_without_a_byte(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	s.provider.serve = serve_first_then_half;
	expect_done(&s, "200 content-length=2", "{}");
	expect_error(&s, EXCHANGE_RESET, "in the middle");
	assert_int_equal(s.provider.accepted, 1);
	stage_clear(&s);

	stage_set(&s, false);
	s.provider.serve = serve_none_after_first;
	expect_done(&s, "200 content-length=2", "{}");
	expect_error(&s, EXCHANGE_RESET, "without an answer");
	assert_int_equal(s.provider.requests, 3);
	stage_clear(&s);
}

static void
closed_while_idle(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	expect_done(&s, "200 content-length=2", "{}");
	provider_close(s.provider.conns, false);
	RUN_UNTIL(&s.loop, upstream_stats(s.upstream).idle == 0);
	expect_done(&s, "200 content-length=2", "{}");
	say(s.provider.conns, "HTTP/1.1 408 Request Timeout\r\n\r\n");	/* to nobody */
	RUN_UNTIL(&s.loop, upstream_stats(s.upstream).idle == 0);
	expect_done(&s, "200 content-length=2", "{}");
	assert_int_equal(s.provider.accepted, 3);
	stage_clear(&s);
}

static void
idle_connections_age(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, false);
	expect_done(&s, "200 content-length=2", "{}");
	tick(&s, 40000);
	assert_int_equal(upstream_stats(s.upstream).idle, 1);
	tick(&s, 60000);
	assert_int_equal(upstream_stats(s.upstream).idle, 0);
	RUN_UNTIL(&s.loop, s.provider.ended == 1);
	stage_clear(&s);
}

static void
last_used_first(void **state)
{
	struct stage s;
	struct call a = { .x = NULL }, b = { .x = NULL };

	(void)state;
	stage_set(&s, false);
	call_start(&a, s.target, GET);
	call_start(&b, s.target, GET);
	RUN_UNTIL(&s.loop, call_over(&a) && call_over(&b));
	assert_int_equal(upstream_stats(s.upstream).idle, 2);
	for (int i = 0; i < 4; i++)
		expect_done(&s, "200 content-length=2", "{}");
	unsigned most = 0;
	for (struct provider_conn *c = s.provider.conns; c; c = c->next)
		most = c->requests > most ? c->requests : most;
	assert_int_equal(most, 5);
	call_free(&a);
	call_free(&b);
	stage_clear(&s);
}

static void
target_without_users_closes_its_connections(void **state)
{
	struct stage s;
	struct call c = { .x = NULL };

	(void)state;
	stage_set(&s, false);
	expect_done(&s, "200 content-length=2", "{}");
	struct target *again = target_of(&s, "127.0.0.1", s.provider.port, false, NULL);
	assert_ptr_equal(again, s.target);
	target_put(again);
	assert_int_equal(upstream_stats(s.upstream).idle, 1);

	call_start(&c, s.target, GET);	/* it may still end, on its own connection */
	target_put(s.target);
	RUN_UNTIL(&s.loop, call_over(&c));
	assert_int_equal(c.done, 1);
	assert_int_equal(upstream_stats(s.upstream).idle, 0);
	s.target = NULL;
	call_free(&c);
	stage_clear(&s);
}

static void
upstream_tls_resumes(void **state)
{
	struct stage s;

	(void)state;
	stage_set(&s, true);
	for (int i = 0; i < 10; i++) {
		expect_done(&s, "200 content-length=2", "{}");
		tick(&s, 60000);	/* the idle connection is closed */
	}
	assert_int_equal(s.provider.accepted, 10);
	assert_int_equal(s.provider.resumed, 9);
	stage_clear(&s);
}

/* ---- time ---- */

static void
no_first_byte(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 30000, .idle_ms = 5000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "";
	call_start(&c, s.target, GET);
	tick(&s, 500);
	RUN_UNTIL(&s.loop, s.provider.requests == 1);
	tick(&s, 29000);
	assert_false(call_over(&c));
	tick(&s, 30100);
	assert_int_equal(c.error, EXCHANGE_TIMEOUT);
	assert_non_null(strstr(c.text, "no answer within 30000 ms"));
	RUN_UNTIL(&s.loop, s.provider.ended == 1);	/* the provider sees it */
	call_free(&c);
	stage_clear(&s);
}

static void
silence_in_the_middle(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 50000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
	call_start(&c, s.target, GET);
	RUN_UNTIL(&s.loop, c.body.n == 4);
	assert_true(c.read_ends >= 1);	/* the head may have come alone */
	assert_false(c.read_end_due);
	tick(&s, 49000);
	assert_false(call_over(&c));
	exchange_pause(c.x);
	tick(&s, 200000);	/* it is the client who is slow */
	assert_false(call_over(&c));
	exchange_resume(c.x);
	tick(&s, 49000);
	assert_false(call_over(&c));
	tick(&s, 250200);
	assert_int_equal(c.error, EXCHANGE_IDLE);
	assert_non_null(strstr(c.text, "no byte for 50000 ms"));
	call_free(&c);
	stage_clear(&s);
}

/* Each byte gives the whole time anew; none is needed where there is no limit. */
static void
slow_but_alive(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 0, .idle_ms = 0 } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "";
	call_start(&c, s.target, GET);
	RUN_UNTIL(&s.loop, s.provider.requests == 1);
	tick(&s, 1000000000);
	assert_false(call_over(&c));
	say(s.provider.conns, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
	RUN_UNTIL(&s.loop, c.body.n == 1);
	tick(&s, 2000000000);
	say(s.provider.conns, "b");
	RUN_UNTIL(&s.loop, call_over(&c));
	assert_int_equal(c.done, 1);
	call_free(&c);
	stage_clear(&s);
}

/* Accepts, and says nothing to the TLS hello. */
static void
handshake_that_never_ends(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 3000 } };

	(void)state;
	stage_set(&s, true);
	uv_close((uv_handle_t *)&s.provider.listener, NULL);
	s.provider.listening = false;
	/* A listener that nobody accepts from: the kernel connects all the same. */
	uv_tcp_t mute;
	struct sockaddr_in address;
	int length = sizeof(address);
	assert_int_equal(uv_tcp_init(&s.loop.uv, &mute), 0);
	uv_ip4_addr("127.0.0.1", 0, &address);
	assert_int_equal(uv_tcp_bind(&mute, (struct sockaddr *)&address, 0), 0);
	uv_os_fd_t fd;
	assert_int_equal(uv_fileno((uv_handle_t *)&mute, &fd), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(uv_tcp_getsockname(&mute, (struct sockaddr *)&address, &length), 0);
	target_put(s.target);
	s.target = target_of(&s, "127.0.0.1", ntohs(address.sin_port), true, pki.ca);

	call_start(&c, s.target, GET);
	for (int i = 0; i < 5; i++)
		uv_run(&s.loop.uv, UV_RUN_NOWAIT);
	tick(&s, 2900);
	assert_false(call_over(&c));
	tick(&s, 3200);
	assert_int_equal(c.error, EXCHANGE_CONNECT);
	assert_non_null(strstr(c.text, "within 3000 ms"));
	assert_int_equal(c.sent, 0);
	uv_close((uv_handle_t *)&mute, NULL);
	call_free(&c);
	stage_clear(&s);
}

/* ---- large ones ---- */

#define LARGE (6u << 20)

static void
large_request_to_a_slow_reader(void **state)
{
	struct stage s;
	char *body = calloc(1, LARGE);

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 5000 } };

		stage_set(&s, tls);
		s.provider.pause_after_head = true;
		c.pieces[0] = SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6291456\r\n\r\n");
		c.pieces[1] = (struct slice){ body, 1000000 };
		c.pieces[2] = SLICE("");
		c.pieces[3] = (struct slice){ body + 1000000, LARGE - 1000000 };
		c.request.pieces = c.pieces;
		c.request.pieces_count = 4;
		call_start(&c, s.target, NULL);
		RUN_UNTIL(&s.loop, s.provider.conns && s.provider.conns->stream.paused);
		tick(&s, 4000);		/* first_byte_ms has not begun */
		assert_false(call_over(&c));
		stream_resume(&s.provider.conns->stream);
		RUN_UNTIL(&s.loop, call_over(&c));
		assert_int_equal(c.done, 1);
		assert_int_equal(s.provider.conns->body_bytes, LARGE);
		assert_int_equal(upstream_stats(s.upstream).idle, 1);
		call_free(&c);
		stage_clear(&s);
	}
	free(body);
}

/* Refused by its head: the answer comes while we still send. */
static void
answer_before_the_request_is_sent(void **state)
{
	struct stage s;
	char *body = calloc(1, LARGE);
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 5000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.pause_after_head = true;
	c.pieces[0] = SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6291456\r\n\r\n");
	c.pieces[1] = (struct slice){ body, LARGE };
	c.request.pieces = c.pieces;
	c.request.pieces_count = 2;
	call_start(&c, s.target, NULL);
	RUN_UNTIL(&s.loop, s.provider.conns && s.provider.conns->stream.paused);
	say(s.provider.conns, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch");
	RUN_UNTIL(&s.loop, call_over(&c));
	assert_int_equal(c.done, 1);
	assert_string_equal(c.head, "413 content-length=4");
	assert_int_equal(upstream_stats(s.upstream).idle, 0);
	call_free(&c);
	free(body);
	stage_clear(&s);
}

static void
request_that_is_not_taken(void **state)
{
	struct stage s;
	char *body = calloc(1, LARGE);
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 5000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.pause_after_head = true;
	c.pieces[0] = SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6291456\r\n\r\n");
	c.pieces[1] = (struct slice){ body, LARGE };
	c.request.pieces = c.pieces;
	c.request.pieces_count = 2;
	call_start(&c, s.target, NULL);
	RUN_UNTIL(&s.loop, s.provider.conns && s.provider.conns->stream.paused);
	tick(&s, 6000);
	assert_int_equal(c.error, EXCHANGE_TIMEOUT);
	assert_non_null(strstr(c.text, "not taken"));
	call_free(&c);
	free(body);
	stage_clear(&s);
}

static void
serve_large(struct provider_conn *c, unsigned nth)
{
	char *body = malloc(LARGE);

	(void)nth;
	memset(body, 'x', LARGE);
	say(c, "HTTP/1.1 200 OK\r\nContent-Length: 6291456\r\n\r\n");
	stream_write(&c->stream, (struct slice){ body, LARGE });
	free(body);
}

/* A client that takes one read at a time: nothing more is read meanwhile. */
static void
back_pressure(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct call c = { .pause_on_body = true };
		unsigned steps = 0;

		stage_set(&s, tls);
		s.provider.serve = serve_large;
		call_start(&c, s.target, GET);
		while (!call_over(&c)) {
			size_t before = c.body.n;

			RUN_UNTIL(&s.loop, c.body.n > before || call_over(&c));
			assert_true(c.body.n - before <= 65536 + 16384);
			for (int i = 0; i < 2; i++)
				uv_run(&s.loop.uv, UV_RUN_NOWAIT);
			assert_true(c.body.n - before <= 65536 + 16384);
			if (!call_over(&c))
				exchange_resume(c.x);
			steps++;
		}
		assert_int_equal(c.done, 1);
		assert_int_equal(c.body.n, LARGE);
		assert_true(steps >= LARGE / (65536 + 16384));
		assert_int_equal(upstream_stats(s.upstream).idle, 1);
		s.provider.serve = serve_text;
		expect_done(&s, "200 content-length=2", "{}");	/* the connection reads again */
		call_free(&c);
		stage_clear(&s);
	}
}

/* ---- cancelling ---- */

static void
cancelled_at_every_stage(void **state)
{
	struct stage s;

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct call c = { .x = NULL };

		stage_set(&s, tls);
		call_start(&c, s.target, GET);
		call_cancel(&c);			/* while it connects */
		call_free(&c);

		s.provider.answer = "";
		call_start(&c, s.target, GET);
		RUN_UNTIL(&s.loop, s.provider.requests == 1);
		unsigned ended = s.provider.ended;
		call_cancel(&c);			/* while it waits */
		RUN_UNTIL(&s.loop, s.provider.ended > ended);
		call_free(&c);

		s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
		c.cancel_on_head = true;
		call_run(&s, &c);
		assert_int_equal(c.spans, 0);
		call_free(&c);

		c.cancel_on_body = true;
		call_run(&s, &c);
		assert_int_equal(c.spans, 1);
		assert_int_equal(c.read_ends, 0);
		call_free(&c);

		call_start(&c, s.target, GET);
		RUN_UNTIL(&s.loop, c.body.n == 4);
		exchange_pause(c.x);
		call_cancel(&c);
		call_free(&c);
		assert_int_equal(upstream_stats(s.upstream).idle, 0);
		stage_clear(&s);
	}
}

/* A retry is started in on_done. */
static void
one_after_the_other(void **state)
{
	struct stage s;
	struct call b = { .x = NULL }, a = { .next = &b };

	(void)state;
	stage_set(&s, false);
	call_start(&a, s.target, GET);
	RUN_UNTIL(&s.loop, call_over(&a) && call_over(&b));
	assert_int_equal(b.done, 1);
	call_free(&a);
	call_free(&b);
	stage_clear(&s);
}

static void
head_in_the_callers_memory(void **state)
{
	struct stage s;
	struct scratch mem;
	struct call c = { .request = { .connect_ms = 1000, .mem = &mem } };

	(void)state;
	scratch_init(&mem, 65536);
	stage_set(&s, false);
	call_run(&s, &c);
	assert_int_equal(c.done, 1);
	assert_true(mem.used > 0);
	call_free(&c);
	stage_clear(&s);
	scratch_reset(&mem);
}

static void
many_at_a_time(void **state)
{
	enum { CALLS = 200 };
	struct call *calls = calloc(CALLS, sizeof(*calls));
	struct stage s;

	(void)state;
	stage_set(&s, false);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CALLS; i++)
			call_start(&calls[i], s.target, GET);
		assert_int_equal(upstream_stats(s.upstream).busy, CALLS);
		for (int i = 0; i < CALLS; i++) {
			RUN_UNTIL(&s.loop, call_over(&calls[i]));
			assert_int_equal(calls[i].done, 1);
			call_free(&calls[i]);
		}
		assert_int_equal(upstream_stats(s.upstream).idle, CALLS);
	}
	assert_int_equal(s.provider.accepted, CALLS);
	free(calls);
	stage_clear(&s);
}

static int
setup(void **state)
{
	(void)state;
	pki_init(&pki);
	pki_issue(&pki, &good, "localhost", LONG_AGO, FAR_AWAY);
	return tls_random(&keys.name, sizeof(keys.name)) && tls_random(&keys.key, sizeof(keys.key)) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	pki_free(&pki);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_reuse),
		cmocka_unit_test(kinds_of_answers),
		cmocka_unit_test(head_request),
		cmocka_unit_test(answer_that_ends_with_the_connection),
		cmocka_unit_test(reset_is_no_end),
		cmocka_unit_test(answers_cut_at_every_byte),
		cmocka_unit_test(answers_broken_off_at_every_byte),
		cmocka_unit_test(not_http),
		cmocka_unit_test(endless_heads),
		cmocka_unit_test(refused),
		cmocka_unit_test(by_name),
		cmocka_unit_test(no_such_name),
		cmocka_unit_test(untrusted),
		cmocka_unit_test(bad_ca),
		cmocka_unit_test(dead_idle_connection_is_replaced),
		cmocka_unit_test(replaced_once_and_only_without_a_byte),
		cmocka_unit_test(closed_while_idle),
		cmocka_unit_test(idle_connections_age),
		cmocka_unit_test(last_used_first),
		cmocka_unit_test(target_without_users_closes_its_connections),
		cmocka_unit_test(upstream_tls_resumes),
		cmocka_unit_test(no_first_byte),
		cmocka_unit_test(silence_in_the_middle),
		cmocka_unit_test(slow_but_alive),
		cmocka_unit_test(handshake_that_never_ends),
		cmocka_unit_test(large_request_to_a_slow_reader),
		cmocka_unit_test(answer_before_the_request_is_sent),
		cmocka_unit_test(request_that_is_not_taken),
		cmocka_unit_test(back_pressure),
		cmocka_unit_test(cancelled_at_every_stage),
		cmocka_unit_test(one_after_the_other),
		cmocka_unit_test(head_in_the_callers_memory),
		cmocka_unit_test(many_at_a_time),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
