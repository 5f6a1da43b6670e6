/*
 * Names, addresses and the race between them. The system's resolver and its
 * clock are replaced in this program, so that answers are scripted, failures
 * happen on order, and half a minute passes at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netdb.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/loop.h"
#include "upstream/exchange.h"
#include "upstream/wire/resolve.h"
#include "upstream/wire/stream.h"

/* ---- the system, as it is here ---- */

static const char *_Atomic zone;	/* addresses of every name, with spaces between; NULL: none */
static _Atomic unsigned lookups;
static _Atomic int64_t ahead_s;
static uv_sem_t gate;			/* a look-up of "slow..." waits for it */

struct record {
	struct addrinfo info;
	union address address;
};

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo **at = out;
	const char *text = zone;
	char word[64];
	int used;

	(void)service, (void)hints;
	lookups++;
	*out = NULL;
	if (strncmp(name, "slow", 4) == 0)
		uv_sem_wait(&gate);
	if (!text)
		return EAI_AGAIN;
	for (; sscanf(text, "%63s%n", word, &used) == 1; text += used) {
		struct record *r = calloc(1, sizeof(*r));

		if (uv_ip4_addr(word, 0, &r->address.v4) != 0 && uv_ip6_addr(word, 0, &r->address.v6) != 0)
			abort();
		r->info.ai_family = r->address.any.sa_family;
		r->info.ai_addr = &r->address.any;
		r->info.ai_addrlen = sizeof(r->address);
		*at = &r->info;
		at = &r->info.ai_next;
	}
	return 0;
}

void
freeaddrinfo(struct addrinfo *list)
{
	for (struct addrinfo *next; list; list = next) {
		next = list->ai_next;
		free(list);	/* the record's first member */
	}
}

int
clock_gettime(clockid_t clock, struct timespec *out)
{
	int e = (int)syscall(SYS_clock_gettime, clock, out);

	out->tv_sec += ahead_s;
	return e;
}

/* ---- the resolver ---- */

static struct test_loop loop;

struct question {
	struct resolve_query query;
	struct question *cancels;
	int answers, error;
};

static void
on_answer(struct resolve_query *q, int error)
{
	struct question *a = (struct question *)q;

	a->answers++;
	a->error = error;
	if (a->cancels)
		resolve_cancel(&a->cancels->query);
}

static enum resolve_result
ask(struct resolver *r, struct question *a, const char *host)
{
	memset(a, 0, sizeof(*a));
	a->query.done = on_answer;
	return resolve_start(r, &a->query, host, 443);
}

static void
expect_list(const struct question *a, const char *expected)
{
	char text[1024] = "", word[64];

	for (uint32_t i = 0; i < a->query.found.count; i++) {
		const union address *at = &a->query.found.list[i];

		assert_int_equal(uv_ip_name(&at->any, word, sizeof(word)), 0);
		assert_int_equal(ntohs(at->any.sa_family == AF_INET ? at->v4.sin_port : at->v6.sin6_port), 443);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i ? " " : "", word);
	}
	assert_string_equal(text, expected);
}

static void
later(int64_t s)
{
	ahead_s += s;
	uv_update_time(&loop.uv);
}

static void
numbers_need_no_resolver(void **state)
{
	struct resolver *r = resolver_new(&loop.uv);
	struct question a;

	(void)state;
	lookups = 0;
	assert_int_equal(ask(r, &a, "192.0.2.7"), RESOLVE_FOUND);
	expect_list(&a, "192.0.2.7");
	assert_int_equal(ask(r, &a, "2001:db8::7"), RESOLVE_FOUND);
	expect_list(&a, "2001:db8::7");
	assert_int_equal(lookups, 0);
	resolver_free(r);
}

static void
families_take_turns(void **state)
{
	static const char *const cases[][2] = {
		{ "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2", "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2" },
		{ "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2 192.0.2.3" },
		{ "192.0.2.1", "192.0.2.1" },
		{ "1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 1.0.0.9 1.0.0.10 1.0.0.11 1.0.0.12 "
		    "1.0.0.13 1.0.0.14 1.0.0.15 1.0.0.16 1.0.0.17",
		    "1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 1.0.0.9 1.0.0.10 1.0.0.11 1.0.0.12 "
		    "1.0.0.13 1.0.0.14 1.0.0.15 1.0.0.16" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct resolver *r = resolver_new(&loop.uv);
		struct question a;

		zone = cases[i][0];
		assert_int_equal(ask(r, &a, "a.test"), RESOLVE_LATER);
		RUN_UNTIL(&loop, a.answers);
		assert_int_equal(a.error, 0);
		expect_list(&a, cases[i][1]);
		resolver_free(r);
	}
}

/* One look-up, however many wait; one of them is cancelled, one by another. */
static void
waiting_together(void **state)
{
	struct resolver *r = resolver_new(&loop.uv);
	struct question a[5];

	(void)state;
	zone = "192.0.2.1";
	lookups = 0;
	for (int i = 0; i < 5; i++)
		assert_int_equal(ask(r, &a[i], "slow.test"), RESOLVE_LATER);
	resolve_cancel(&a[1].query);
	a[2].cancels = &a[3];
	a[3].cancels = &a[2];
	uv_sem_post(&gate);
	RUN_UNTIL(&loop, a[0].answers && a[4].answers && (a[2].answers || a[3].answers));
	assert_int_equal(a[1].answers, 0);
	assert_int_equal(a[2].answers + a[3].answers, 1);
	assert_int_equal(lookups, 1);
	resolver_free(r);
}

static void
fresh_stale_and_too_old(void **state)
{
	struct resolver *r = resolver_new(&loop.uv);
	struct question a;

	(void)state;
	zone = "192.0.2.1";
	lookups = 0;
	assert_int_equal(ask(r, &a, "a.test"), RESOLVE_LATER);
	RUN_UNTIL(&loop, a.answers);
	later(29);
	zone = "192.0.2.2";
	assert_int_equal(ask(r, &a, "a.test"), RESOLVE_FOUND);
	expect_list(&a, "192.0.2.1");
	assert_int_equal(lookups, 1);

	later(2);
	assert_int_equal(ask(r, &a, "a.test"), RESOLVE_LATER);
	RUN_UNTIL(&loop, a.answers);
	expect_list(&a, "192.0.2.2");

	zone = NULL;		/* the resolver is down: what was known serves on */
	later(3500);
	assert_int_equal(ask(r, &a, "a.test"), RESOLVE_LATER);
	RUN_UNTIL(&loop, a.answers);
	assert_int_equal(a.error, 0);
	expect_list(&a, "192.0.2.2");
	later(200);
	assert_int_equal(ask(r, &a, "a.test"), RESOLVE_LATER);
	RUN_UNTIL(&loop, a.answers);
	assert_int_equal(a.error, UV_EAI_AGAIN);

	zone = "";		/* an answer without addresses is none */
	assert_int_equal(ask(r, &a, "b.test"), RESOLVE_LATER);
	RUN_UNTIL(&loop, a.answers);
	assert_int_equal(a.error, UV_EAI_NODATA);
	resolver_free(r);
}

static void
names_are_bounded(void **state)
{
	struct resolver *r = resolver_new(&loop.uv);
	struct question a;
	char name[32];

	(void)state;
	zone = "192.0.2.1";
	for (int i = 0; i < RESOLVE_NAMES_MAX + 1; i++) {
		snprintf(name, sizeof(name), "n%d.test", i);
		assert_int_equal(ask(r, &a, name), RESOLVE_LATER);
		RUN_UNTIL(&loop, a.answers);
		later(1);	/* so that one is the oldest */
	}
	assert_int_equal(ask(r, &a, name), RESOLVE_FOUND);
	assert_int_equal(ask(r, &a, "n0.test"), RESOLVE_LATER);	/* it had to go */
	RUN_UNTIL(&loop, a.answers);
	resolver_free(r);
}

static void
freed_while_a_lookup_runs(void **state)
{
	struct resolver *r = resolver_new(&loop.uv);
	struct question a;

	(void)state;
	zone = "192.0.2.1";
	lookups = 0;
	assert_int_equal(ask(r, &a, "slow.test"), RESOLVE_LATER);
	while (lookups == 0)	/* until the thread is at it */
		sched_yield();
	resolve_cancel(&a.query);
	resolver_free(r);
	uv_sem_post(&gate);
	/* The end of this program's loop waits for the thread; LSan for the memory. */
	assert_int_equal(a.answers, 0);
}

/* ---- the race ---- */

struct outcome {
	bool over;
	int status;
	enum exchange_error error;
	char text[400];
};

static void
ignore(void *arg)
{
	(void)arg;
}

static void
on_head(void *arg, const struct http1_head *head)
{
	((struct outcome *)arg)->status = head->status;
}

static void
on_body(void *arg, const char *p, size_t n)
{
	(void)arg, (void)p, (void)n;
}

static void
on_done(void *arg)
{
	((struct outcome *)arg)->over = true;
}

static void
on_error(void *arg, enum exchange_error e, const char *text)
{
	struct outcome *o = arg;

	o->over = true;
	o->error = e;
	snprintf(o->text, sizeof(o->text), "%s", text);
}

static const struct exchange_callbacks callbacks = {
	.on_sent = ignore, .on_head = on_head, .on_body = on_body, .on_read_end = ignore, .on_done = on_done,
	.on_error = on_error,
};

static void
serve(struct stream *s, const char *p, size_t n)
{
	(void)p, (void)n;
	stream_write(s, SLICE("HTTP/1.1 204 No Content\r\n\r\n"));
}

static void
nothing(struct stream *s)
{
	(void)s;
}

static void
ended(struct stream *s, int error, const char *text)
{
	(void)error, (void)text;
	stream_close(s);
}

static void
gone(struct stream *s)
{
	free(s);
}

static const struct stream_callbacks server_callbacks = {
	.on_open = nothing, .on_data = serve, .on_end = ended, .on_drain = nothing, .on_closed = gone,
};

static void
on_connection(uv_stream_t *listener, int status)
{
	struct stream *s = calloc(1, sizeof(*s));

	assert_int_equal(status, 0);
	assert_int_equal(stream_accept(s, listener, NULL, &server_callbacks, s), 0);
}

static uint16_t
listen_on(uv_tcp_t *listener, const char *address, uint16_t port)
{
	struct sockaddr_in at;
	int length = sizeof(at);

	assert_int_equal(uv_tcp_init(&loop.uv, listener), 0);
	assert_int_equal(uv_ip4_addr(address, port, &at), 0);
	assert_int_equal(uv_tcp_bind(listener, (struct sockaddr *)&at, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)listener, 8, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(listener, (struct sockaddr *)&at, &length), 0);
	return ntohs(at.sin_port);
}

/* An address that lets SYNs fall: its queue of connections is full. */
static void
black_hole(int fds[3], const char *address, uint16_t port)
{
	struct sockaddr_in at;

	assert_int_equal(uv_ip4_addr(address, port, &at), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fds[0], (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fds[0], 0), 0);
	for (int i = 1; i < 3; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(fds[i], (struct sockaddr *)&at, sizeof(at));
	}
}

static void
begin(struct target *t, struct outcome *o, uint32_t connect_ms)
{
	static const struct slice get = { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27 };
	const struct exchange_request r = { .pieces = &get, .pieces_count = 1, .connect_ms = connect_ms };

	memset(o, 0, sizeof(*o));
	assert_non_null(exchange_start(t, &r, &callbacks, o));
}

static void
turns(int n)
{
	for (int i = 0; i < n; i++)
		uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void
next_address_after_a_quarter_second(void **state)
{
	struct upstream *u = upstream_new(&loop.uv);
	struct outcome o;
	uv_tcp_t listener;
	char why[100];
	int fds[3];

	(void)state;
	uint16_t port = listen_on(&listener, "127.0.0.1", 0);
	black_hole(fds, "127.0.0.2", port);
	zone = "127.0.0.2 127.0.0.1";
	struct target *t = upstream_target(u, &(struct target_at){ .host = "two.test", .port = port, .tls = false }, why, sizeof(why));

	lookups = 0;
	begin(t, &o, 5000);
	RUN_UNTIL(&loop, lookups == 1);
	turns(20);
	upstream_tick(u, uv_now(&loop.uv) + 100);
	turns(5);
	assert_false(o.over);
	assert_int_equal(upstream_stats(u).connects, 0);
	upstream_tick(u, uv_now(&loop.uv) + 400);
	RUN_UNTIL(&loop, o.over);
	assert_int_equal(o.status, 204);
	assert_int_equal(upstream_stats(u).connects, 1);

	target_put(t);
	upstream_free(u);
	uv_close((uv_handle_t *)&listener, NULL);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	turns(5);
}

static void
next_address_at_once_after_a_refusal(void **state)
{
	struct upstream *u = upstream_new(&loop.uv);
	struct outcome o;
	uv_tcp_t listener;
	char why[100];

	(void)state;
	uint16_t port = listen_on(&listener, "127.0.0.1", 0);
	zone = "127.0.0.3 127.0.0.4 127.0.0.1";
	struct target *t = upstream_target(u, &(struct target_at){ .host = "three.test", .port = port, .tls = false }, why, sizeof(why));
	begin(t, &o, 5000);
	RUN_UNTIL(&loop, o.over);	/* without any tick */
	assert_int_equal(o.status, 204);
	target_put(t);

	zone = "127.0.0.3 127.0.0.4";
	t = upstream_target(u, &(struct target_at){ .host = "none.test", .port = port, .tls = false }, why, sizeof(why));
	begin(t, &o, 5000);
	RUN_UNTIL(&loop, o.over);
	assert_int_equal(o.error, EXCHANGE_CONNECT);
	assert_non_null(strstr(o.text, "none.test:"));
	assert_non_null(strstr(o.text, "connection refused (2 addresses tried, the last was 127.0.0.4)"));
	target_put(t);
	upstream_free(u);
	uv_close((uv_handle_t *)&listener, NULL);
	turns(5);
}

static bool
allows_most(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const void *)address;

	return address->sa_family == AF_INET && ntohl(v4->sin_addr.s_addr) != 0x7f000001;
}

/* A name that somebody else has chosen must not lead to each address. */
static void
addresses_that_may_not_be_asked(void **state)
{
	struct upstream *u = upstream_new(&loop.uv);
	struct outcome o;
	uv_tcp_t listener, forbidden;
	char why[100];

	(void)state;
	uint16_t port = listen_on(&listener, "127.0.0.5", 0);
	assert_int_equal(listen_on(&forbidden, "127.0.0.1", port), port);
	struct target_at at = { .host = "guarded.test", .port = port, .allows = allows_most };
	zone = "127.0.0.1 127.0.0.5";
	struct target *t = upstream_target(u, &at, why, sizeof(why));
	begin(t, &o, 5000);
	RUN_UNTIL(&loop, o.over);	/* by the one that is left */
	assert_int_equal(o.status, 204);
	target_put(t);

	zone = "127.0.0.1";
	at.host = "rebound.test";
	t = upstream_target(u, &at, why, sizeof(why));
	begin(t, &o, 5000);
	RUN_UNTIL(&loop, o.over);
	assert_int_equal(o.error, EXCHANGE_FORBIDDEN);
	assert_non_null(strstr(o.text, "rebound.test:"));
	assert_non_null(strstr(o.text, "this address may not be asked (127.0.0.1)"));
	/* Who may ask all has a target of its own. */
	at.allows = NULL;
	struct target *open = upstream_target(u, &at, why, sizeof(why));
	assert_ptr_not_equal(open, t);
	begin(open, &o, 5000);
	RUN_UNTIL(&loop, o.over);
	assert_int_equal(o.status, 204);
	target_put(t);
	target_put(open);

	/* Numbers too: they are not looked up, but asked about. */
	at = (struct target_at){ .host = "127.0.0.1", .port = port, .allows = allows_most };
	t = upstream_target(u, &at, why, sizeof(why));
	begin(t, &o, 5000);
	upstream_tick(u, uv_now(&loop.uv) + 100);	/* what fails at once is told by the tick */
	RUN_UNTIL(&loop, o.over);
	assert_int_equal(o.error, EXCHANGE_FORBIDDEN);
	target_put(t);
	upstream_free(u);
	uv_close((uv_handle_t *)&listener, NULL);
	uv_close((uv_handle_t *)&forbidden, NULL);
	turns(5);
}

static void
no_connection_in_time(void **state)
{
	struct upstream *u = upstream_new(&loop.uv);
	struct outcome o;
	uv_tcp_t listener;
	char why[100];
	int fds[3];

	(void)state;
	uint16_t port = listen_on(&listener, "127.0.0.1", 0);
	black_hole(fds, "127.0.0.2", port);
	struct target *t = upstream_target(u, &(struct target_at){ .host = "127.0.0.2", .port = port, .tls = false }, why, sizeof(why));
	begin(t, &o, 2000);
	turns(5);
	upstream_tick(u, uv_now(&loop.uv) + 1900);
	assert_false(o.over);
	upstream_tick(u, uv_now(&loop.uv) + 2200);
	assert_int_equal(o.error, EXCHANGE_CONNECT);
	assert_non_null(strstr(o.text, "no connection within 2000 ms"));
	target_put(t);

	zone = "127.0.0.1";
	t = upstream_target(u, &(struct target_at){ .host = "slow.test", .port = port, .tls = false }, why, sizeof(why));
	begin(t, &o, 2000);
	turns(5);
	upstream_tick(u, uv_now(&loop.uv) + 4400);
	assert_int_equal(o.error, EXCHANGE_RESOLVE);
	assert_non_null(strstr(o.text, "the name was not resolved within 2000 ms"));
	uv_sem_post(&gate);
	target_put(t);
	upstream_free(u);
	uv_close((uv_handle_t *)&listener, NULL);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	turns(5);
}

static int
setup(void **state)
{
	(void)state;
	test_loop_init(&loop);
	return uv_sem_init(&gate, 0);
}

static int
teardown(void **state)
{
	(void)state;
	test_loop_free(&loop);
	uv_sem_destroy(&gate);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_need_no_resolver),
		cmocka_unit_test(families_take_turns),
		cmocka_unit_test(waiting_together),
		cmocka_unit_test(fresh_stale_and_too_old),
		cmocka_unit_test(names_are_bounded),
		cmocka_unit_test(freed_while_a_lookup_runs),
		cmocka_unit_test(next_address_after_a_quarter_second),
		cmocka_unit_test(next_address_at_once_after_a_refusal),
		cmocka_unit_test(addresses_that_may_not_be_asked),
		cmocka_unit_test(no_connection_in_time),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
