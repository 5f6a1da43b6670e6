/*
 * Exchanges: answers of every kind, connections that are refused, reused,
 * replaced and resumed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/exchange_fixture.h"

#define STALE_MS 100		/* exchange.c: a close that comes within it may be older than the request */
#define QUICK_TRIES 50

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
	assert_null(upstream_target(s.upstream, &(struct target_at){ .host = "a", .port = 443, .tls = true, .ca_pem = SLICE("rubbish") }, why, sizeof(why)));
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

/* call_run(); false: so slow (the machine stood still) that the close may count
 * as an answer to the request. Then nothing is said, and all is played again. */
static bool
call_run_quickly(struct stage *s, struct call *c)
{
	uint64_t begin = uv_hrtime();

	uv_update_time(&s->loop.uv);
	call_run(s, c);
	return uv_hrtime() - begin < STALE_MS * 1000000;
}

static bool
dead_ones_are_replaced(bool tls)
{
	struct stage s;
	bool quick = true;

	stage_set(&s, tls);
	s.provider.serve = serve_once_then_close;
	for (unsigned i = 0; i < 6 && quick; i++) {
		struct call c = { .x = NULL };

		quick = call_run_quickly(&s, &c);
		if (quick) {
			assert_int_equal(c.done, 1);
			assert_int_equal(c.sent, 1);
		}
		call_free(&c);
	}
	if (quick) {
		assert_int_equal(s.provider.accepted, 6);
		assert_int_equal(s.provider.requests, 11);	/* all but the first were repeated */
		assert_int_equal(upstream_stats(s.upstream).errors, 0);
	}
	stage_clear(&s);
	return quick;
}

static void
dead_idle_connection_is_replaced(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		int tries = 1;

		while (!dead_ones_are_replaced(tls) && tries < QUICK_TRIES)
			tries++;
		assert_true(tries < QUICK_TRIES);
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

static bool
replaced_once(void)
{
	struct stage s;
	struct call c = { .x = NULL };

	stage_set(&s, false);
	s.provider.serve = serve_none_after_first;
	expect_done(&s, "200 content-length=2", "{}");
	bool quick = call_run_quickly(&s, &c);
	assert_int_equal(c.error, EXCHANGE_RESET);
	assert_non_null(strstr(c.text, "without an answer"));
	if (quick)
		assert_int_equal(s.provider.requests, 3);
	call_free(&c);
	stage_clear(&s);
	return quick;
}

static void
replaced_once_and_only_without_a_byte(void **state)
{
	struct stage s;
	int tries = 1;

	(void)state;
	stage_set(&s, false);
	s.provider.serve = serve_first_then_half;
	expect_done(&s, "200 content-length=2", "{}");
	expect_error(&s, EXCHANGE_RESET, "in the middle");
	assert_int_equal(s.provider.accepted, 1);
	stage_clear(&s);

	while (!replaced_once() && tries < QUICK_TRIES)
		tries++;
	assert_true(tries < QUICK_TRIES);
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
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
