/*
 * Exchanges in time: silence and time-outs, bodies larger than any buffer,
 * back-pressure, cancelling, many at once. Times are long, so that what a busy
 * machine adds to the clock that runs ahead is nothing to them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/exchange_fixture.h"

/* ---- time ---- */

static void
no_first_byte(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 100000, .first_byte_ms = 300000, .idle_ms = 5000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "";
	call_start(&c, s.target, GET);
	tick(&s, 500);
	RUN_UNTIL(&s.loop, s.provider.requests == 1);
	tick(&s, 280000);
	assert_false(call_over(&c));
	tick(&s, 300100);
	assert_int_equal(c.error, EXCHANGE_TIMEOUT);
	assert_non_null(strstr(c.text, "no answer within 300000 ms"));
	RUN_UNTIL(&s.loop, s.provider.ended == 1);	/* the provider sees it */
	call_free(&c);
	stage_clear(&s);
}

static void
silence_in_the_middle(void **state)
{
	struct stage s;
	struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 500000 } };

	(void)state;
	stage_set(&s, false);
	s.provider.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
	call_start(&c, s.target, GET);
	RUN_UNTIL(&s.loop, c.body.n == 4);
	assert_true(c.read_ends >= 1);	/* the head may have come alone */
	assert_false(c.read_end_due);
	tick(&s, 480000);
	assert_false(call_over(&c));
	exchange_pause(c.x);
	tick(&s, 2000000);	/* it is the client who is slow */
	assert_false(call_over(&c));
	exchange_resume(c.x);
	tick(&s, 480000);
	assert_false(call_over(&c));
	tick(&s, 2500200);
	assert_int_equal(c.error, EXCHANGE_IDLE);
	assert_non_null(strstr(c.text, "no byte for 500000 ms"));
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
	struct call c = { .request = { .connect_ms = 300000 } };

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
	tick(&s, 280000);
	assert_false(call_over(&c));
	tick(&s, 300200);
	assert_int_equal(c.error, EXCHANGE_CONNECT);
	assert_non_null(strstr(c.text, "within 300000 ms"));
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
		struct call c = { .request = { .connect_ms = 1000, .first_byte_ms = 1000, .idle_ms = 500000 } };

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
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
