/*
 * TLS with a library that is not ours: OpenSSL's command line tools as peers.
 * Skipped where there is no openssl.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/certificates.h"
#include "tests/unit/loop.h"
#include "upstream/exchange.h"
#include "upstream/wire/stream.h"
#include "upstream/wire/tls.h"

static struct pki pki;
static struct pair good;
static struct tls_ticket_keys keys;
static char folder[] = "/tmp/weir-interop-XXXXXX";
static struct test_loop loop;

/* ---- a child and what it says ---- */

struct child {
	uv_process_t process;
	uv_pipe_t out, in;
	struct buf said;
	bool exited, spawned;
	int open_handles;
	char room[4096];
};

static void
on_exit_of_child(uv_process_t *process, int64_t status, int signal)
{
	struct child *c = process->data;

	(void)status, (void)signal;
	c->exited = true;
}

static void
on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *b)
{
	struct child *c = handle->data;

	(void)suggested;
	*b = uv_buf_init(c->room, sizeof(c->room));
}

static void
on_said(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct child *c = stream->data;

	if (n > 0)
		buf_add(&c->said, b->base, (size_t)n);
	else if (n < 0)
		uv_read_stop(stream);
}

static bool
says(const struct child *c, const char *words)
{
	return slice_contains(buf_slice(&c->said), slice_of(words));
}

/* false: there is no such program. */
static bool
child_start(struct child *c, char **args)
{
	uv_stdio_container_t stdio[3] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&c->in },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->out },
		{ .flags = UV_IGNORE },
	};
	const uv_process_options_t options = {
		.file = args[0], .args = args, .exit_cb = on_exit_of_child, .stdio = stdio, .stdio_count = 3, .cwd = folder,
	};

	*c = (struct child){ .open_handles = 3 };
	buf_init(&c->said, 1u << 20);
	CHECK(uv_pipe_init(&loop.uv, &c->in, 0) == 0);
	CHECK(uv_pipe_init(&loop.uv, &c->out, 0) == 0);
	c->process.data = c->in.data = c->out.data = c;
	c->spawned = uv_spawn(&loop.uv, &c->process, &options) == 0;
	if (c->spawned)
		CHECK(uv_read_start((uv_stream_t *)&c->out, on_room, on_said) == 0);
	return c->spawned;
}

static void
on_child_handle_closed(uv_handle_t *handle)
{
	((struct child *)handle->data)->open_handles--;
}

static void
child_stop(struct child *c)
{
	if (c->spawned && !c->exited) {
		uv_process_kill(&c->process, SIGKILL);
		RUN_UNTIL(&loop, c->exited);
	}
	uv_close((uv_handle_t *)&c->in, on_child_handle_closed);
	uv_close((uv_handle_t *)&c->out, on_child_handle_closed);
	uv_close((uv_handle_t *)&c->process, on_child_handle_closed);
	RUN_UNTIL(&loop, c->open_handles == 0);
	buf_free(&c->said);
}

static void
put_file(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	FILE *f = fopen(path, "w");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* ---- OpenSSL is the provider ---- */

struct answer {
	struct buf body;
	bool over;
	char error[300];
};

static void
ignore(void *arg)
{
	(void)arg;
}

static void
on_head(void *arg, const struct http1_head *head)
{
	(void)arg;
	assert_int_equal(head->status, 200);
}

static void
on_body(void *arg, const char *p, size_t n)
{
	buf_add(&((struct answer *)arg)->body, p, n);
}

static void
on_done(void *arg)
{
	((struct answer *)arg)->over = true;
}

static void
on_error(void *arg, enum exchange_error e, const char *text)
{
	struct answer *a = arg;

	(void)e;
	snprintf(a->error, sizeof(a->error), "%s", text);
	a->over = true;
}

static const struct exchange_callbacks callbacks = {
	.on_sent = ignore, .on_head = on_head, .on_body = on_body, .on_read_end = ignore, .on_done = on_done,
	.on_error = on_error,
};

/* The status page of s_server says whether the session was a new one. */
static void
ask(struct target *t, const char *expected, const char *expected_error)
{
	const struct slice get = SLICE("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
	const struct exchange_request r = { .pieces = &get, .pieces_count = 1, .connect_ms = 10000 };
	struct answer a = { .over = false };

	buf_init(&a.body, 1u << 20);
	assert_non_null(exchange_start(t, &r, &callbacks, &a));
	RUN_UNTIL(&loop, a.over);
	if (!strstr(a.error, expected_error) || (a.error[0] && !expected_error[0]))
		fail_msg("%s", a.error);
	if (!slice_contains(buf_slice(&a.body), slice_of(expected)))
		fail_msg("\"%s\" is not in %.*s", expected, SLICE_FMT(buf_slice(&a.body)));
	buf_free(&a.body);
}

static uint16_t
port_of(const struct child *c)
{
	struct slice said = buf_slice(&c->said);
	const char *line = memmem(said.p, said.n, "ACCEPT ", 7);
	const char *colon = line ? memchr(line, ':', (size_t)(said.p + said.n - line)) : NULL;

	return colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 0;
}

static void
talk_to_openssl(char *version)
{
	char *args[] = { "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem", "-www",
	    version, NULL };
	struct upstream *u = upstream_new(&loop.uv);
	struct child server;
	char why[200];

	if (!child_start(&server, args)) {
		child_stop(&server);
		upstream_free(u);
		skip();
	}
	RUN_UNTIL(&loop, says(&server, "ACCEPT ") && says(&server, "\n"));
	assert_int_not_equal(port_of(&server), 0);
	struct target *t = upstream_target(u, &(struct target_at){ .host = "localhost", .port = port_of(&server), .tls = true, .ca_pem = slice_of(pki.ca) }, why, sizeof(why));
	assert_non_null(t);
	ask(t, "New, TLSv1", "");
	for (int i = 0; i < 3; i++)
		ask(t, "Reused, TLSv1", "");
	target_put(t);
	t = upstream_target(u, &(struct target_at){ .host = "127.0.0.1", .port = port_of(&server), .tls = true, .ca_pem = slice_of(pki.ca) }, why, sizeof(why));
	ask(t, "", "127.0.0.1:");	/* a name that the certificate does not have */
	target_put(t);
	upstream_free(u);
	child_stop(&server);
}

static void
openssl_as_provider(void **state)
{
	(void)state;
	talk_to_openssl("-tls1_2");
	talk_to_openssl(NULL);	/* whatever both sides can */
}

/* ---- OpenSSL is the client ---- */

struct host {
	uv_tcp_t listener;
	struct stream stream;
	struct tls_context *tls;
	unsigned accepted, resumed, closed;
	bool stopped;
};

static void
host_open(struct stream *s)
{
	struct host *h = s->owner;

	h->resumed += tls_resumed(s->tls);
}

static void
host_data(struct stream *s, const char *p, size_t n)
{
	stream_write(s, (struct slice){ p, n });
}

static void
host_end(struct stream *s, int error, const char *text)
{
	(void)error, (void)text;
	stream_close(s);
}

static void
host_drain(struct stream *s)
{
	(void)s;
}

static void
host_closed(struct stream *s)
{
	((struct host *)s->owner)->closed++;
}

static const struct stream_callbacks host_callbacks = {
	.on_open = host_open, .on_data = host_data, .on_end = host_end, .on_drain = host_drain, .on_closed = host_closed,
};

static void
host_accept(uv_stream_t *listener, int status)
{
	struct host *h = listener->data;

	assert_int_equal(status, 0);
	h->accepted++;
	assert_int_equal(stream_accept(&h->stream, listener, h->tls, &host_callbacks, h), 0);
}

static void
host_start(struct host *h, char *place, size_t size)
{
	struct sockaddr_in address;
	int length = sizeof(address);
	char why[200];

	*h = (struct host){ .accepted = 0 };
	h->tls = tls_server_new(slice_of(good.cert), slice_of(good.key), &keys, why, sizeof(why));
	assert_non_null(h->tls);
	CHECK(uv_tcp_init(&loop.uv, &h->listener) == 0);
	h->listener.data = h;
	CHECK(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
	CHECK(uv_tcp_bind(&h->listener, (struct sockaddr *)&address, 0) == 0);
	CHECK(uv_listen((uv_stream_t *)&h->listener, 8, host_accept) == 0);
	CHECK(uv_tcp_getsockname(&h->listener, (struct sockaddr *)&address, &length) == 0);
	snprintf(place, size, "127.0.0.1:%u", ntohs(address.sin_port));
}

static void
on_host_stopped(uv_handle_t *listener)
{
	((struct host *)listener->data)->stopped = true;
}

static void
host_stop(struct host *h)
{
	uv_close((uv_handle_t *)&h->listener, on_host_stopped);
	RUN_UNTIL(&loop, h->stopped);
	tls_context_put(h->tls);
}

/* Sends a line and waits for its echo, then ends. */
static void
one_visit(struct host *h, char **args, const char *session)
{
	uv_buf_t line = uv_buf_init("echo this\n", 10);
	struct child client;
	unsigned closed = h->closed;

	if (!child_start(&client, args)) {
		child_stop(&client);
		skip();
	}
	RUN_UNTIL(&loop, says(&client, "Verify return code:"));
	assert_true(says(&client, session));
	assert_true(says(&client, "Verification: OK"));
	assert_true(says(&client, "ALPN protocol: http/1.1"));
	assert_int_equal(uv_try_write((uv_stream_t *)&client.in, &line, 1), 10);
	RUN_UNTIL(&loop, says(&client, "echo this"));
	uv_buf_t quit = uv_buf_init("Q\n", 2);
	assert_int_equal(uv_try_write((uv_stream_t *)&client.in, &quit, 1), 2);
	RUN_UNTIL(&loop, client.exited && h->closed > closed);
	child_stop(&client);
}

static void
openssl_as_client(void **state)
{
	struct host h;
	char place[64];
	char *first[] = { "openssl", "s_client", "-connect", place, "-CAfile", "ca.pem", "-servername", "localhost",
	    "-verify_hostname", "localhost", "-alpn", "h2,http/1.1", "-sess_out", "session.pem", NULL };
	char *again[] = { "openssl", "s_client", "-connect", place, "-CAfile", "ca.pem", "-servername", "localhost",
	    "-verify_hostname", "localhost", "-alpn", "h2,http/1.1", "-sess_in", "session.pem", NULL };

	(void)state;
	host_start(&h, place, sizeof(place));
	one_visit(&h, first, "New, TLSv1");
	for (int i = 0; i < 3; i++)
		one_visit(&h, again, "Reused, TLSv1");
	assert_int_equal(h.accepted, 4);
	assert_int_equal(h.resumed, 3);
	host_stop(&h);
}

/* TLS 1.1 is not spoken, even to one who would take any cipher. */
static void
old_versions_are_refused(void **state)
{
	struct host h;
	char place[64];
	char *args[] = { "openssl", "s_client", "-connect", place, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", NULL };
	struct child client;

	(void)state;
	host_start(&h, place, sizeof(place));
	if (!child_start(&client, args)) {
		child_stop(&client);
		skip();
	}
	RUN_UNTIL(&loop, client.exited && h.closed == 1);
	assert_int_equal(h.resumed, 0);
	assert_false(h.stream.open);
	child_stop(&client);
	host_stop(&h);
}

static int
setup(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	pki_init(&pki);
	pki_issue(&pki, &good, "localhost", LONG_AGO, FAR_AWAY);
	put_file("ca.pem", pki.ca);
	put_file("cert.pem", good.cert);
	put_file("key.pem", good.key);
	test_loop_init(&loop);
	return tls_random(&keys.name, sizeof(keys.name)) && tls_random(&keys.key, sizeof(keys.key)) ? 0 : -1;
}

static int
teardown(void **state)
{
	static const char *const files[] = { "ca.pem", "cert.pem", "key.pem", "session.pem" };

	(void)state;
	test_loop_free(&loop);
	pki_free(&pki);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		unlink(path);
	}
	return rmdir(folder);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_as_provider),
		cmocka_unit_test(openssl_as_client),
		cmocka_unit_test(old_versions_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
