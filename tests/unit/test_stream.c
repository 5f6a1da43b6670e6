/*
 * Streams over real sockets on the loopback interface: a listener and both
 * ends in one loop. What is checked is what owners rely on: callbacks in
 * order, on_end once and never inside a call, bytes complete under
 * back-pressure, memory gone only after on_closed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "tests/unit/certificates.h"
#include "tests/unit/loop.h"
#include "upstream/wire/stream.h"

static struct pki pki;
static struct pair good;
static struct tls_ticket_keys keys;
static struct tls_context *server_tls, *client_tls;

struct peer {
	struct stream stream;
	struct buf got;
	int opened, ended, drained, closed;
	int error;
	char text[200];
	bool inside;		/* in a call of ours: no callback may come */
	bool pause_on_data, close_on_open, close_on_data, reset_on_data, echo;
	int data_calls;
};

struct pair_of_peers {
	struct test_loop loop;
	uv_tcp_t listener;
	struct sockaddr_in address;
	struct tls_context *tls;
	struct peer server, client;
	int accept_error;
};

static void
on_open(struct stream *s)
{
	struct peer *p = s->owner;

	assert_int_equal(p->ended, 0);
	p->opened++;
	if (p->close_on_open)
		stream_close(s);
}

static void
on_data(struct stream *s, const char *bytes, size_t n)
{
	struct peer *p = s->owner;
	struct slice piece = { bytes, n };

	assert_false(p->inside);
	assert_true(n > 0);
	assert_int_equal(p->opened, 1);
	assert_int_equal(p->ended + p->closed, 0);
	assert_false(s->paused);
	buf_add(&p->got, bytes, n);
	p->data_calls++;
	if (p->echo)
		stream_write(s, piece);
	if (p->pause_on_data)
		stream_pause(s);
	if (p->close_on_data)
		stream_close(s);
	if (p->reset_on_data)
		stream_reset(s);
}

static void
on_end(struct stream *s, int error, const char *text)
{
	struct peer *p = s->owner;

	assert_false(p->inside);
	assert_int_equal(p->ended + p->closed, 0);
	p->ended++;
	p->error = error;
	snprintf(p->text, sizeof(p->text), "%s", text);
}

static void
on_drain(struct stream *s)
{
	struct peer *p = s->owner;

	assert_false(p->inside);
	assert_false(s->write_busy);
	p->drained++;
}

static void
on_closed(struct stream *s)
{
	struct peer *p = s->owner;

	assert_int_equal(p->closed, 0);
	p->closed++;
}

static const struct stream_callbacks callbacks = {
	.on_open = on_open, .on_data = on_data, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed,
};

static void
on_connection(uv_stream_t *listener, int status)
{
	struct pair_of_peers *t = listener->data;

	assert_int_equal(status, 0);
	t->accept_error = stream_accept(&t->server.stream, listener, t->tls, &callbacks, &t->server);
}

static void
peer_init(struct peer *p)
{
	*p = (struct peer){ .opened = 0 };
	buf_init(&p->got, 64u << 20);
}

static void
start(struct pair_of_peers *t, bool tls)
{
	int length = sizeof(t->address);

	test_loop_init(&t->loop);
	peer_init(&t->server);
	peer_init(&t->client);
	t->tls = tls ? server_tls : NULL;
	assert_int_equal(uv_tcp_init(&t->loop.uv, &t->listener), 0);
	t->listener.data = t;
	assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &t->address), 0);
	assert_int_equal(uv_tcp_bind(&t->listener, (struct sockaddr *)&t->address, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&t->listener, 8, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&t->listener, (struct sockaddr *)&t->address, &length), 0);
	assert_int_equal(stream_connect(&t->client.stream, &t->loop.uv, (struct sockaddr *)&t->address,
	    tls ? client_tls : NULL, "localhost", &callbacks, &t->client), 0);
}

static void
start_open(struct pair_of_peers *t, bool tls)
{
	start(t, tls);
	RUN_UNTIL(&t->loop, t->server.opened && t->client.opened);
}

static void
finish(struct pair_of_peers *t)
{
	stream_close(&t->server.stream);
	stream_close(&t->client.stream);
	RUN_UNTIL(&t->loop, t->server.closed && t->client.closed);
	uv_close((uv_handle_t *)&t->listener, NULL);
	test_loop_free(&t->loop);
	buf_free(&t->server.got);
	buf_free(&t->client.got);
}

static size_t
write_text(struct peer *p, const char *text)
{
	p->inside = true;
	size_t queued = stream_write(&p->stream, slice_of(text));
	p->inside = false;
	return queued;
}

static bool
has_got(const struct peer *p, const char *text)
{
	return slice_eq(buf_slice(&p->got), slice_of(text));
}

/* ---- the tests that hold for plain and for TLS ---- */

static void
words_both_ways(bool tls)
{
	struct pair_of_peers t;
	char name[64];

	start_open(&t, tls);
	assert_true(stream_peer_name(&t.server.stream, name, sizeof(name)));
	assert_string_equal(name, "127.0.0.1");
	assert_int_equal(write_text(&t.client, "hello"), 0);
	RUN_UNTIL(&t.loop, has_got(&t.server, "hello"));
	assert_int_equal(write_text(&t.server, "wel"), 0);
	assert_int_equal(write_text(&t.server, "come"), 0);
	RUN_UNTIL(&t.loop, has_got(&t.client, "welcome"));
	/* Nothing is held by a connection at rest. */
	assert_null(t.client.stream.queue.p);
	assert_null(t.client.stream.writing.p);
	assert_int_equal(t.client.stream.bytes_written, t.server.stream.bytes_read);
	finish(&t);
}

/* The peer's FIN is told at once, and we can still write. */
static void
half_close(bool tls)
{
	struct pair_of_peers t;

	start_open(&t, tls);
	write_text(&t.client, "question");
	stream_shutdown(&t.client.stream);
	RUN_UNTIL(&t.loop, t.server.ended);
	assert_int_equal(t.server.error, 0);
	assert_true(has_got(&t.server, "question"));
	write_text(&t.server, "answer");
	RUN_UNTIL(&t.loop, has_got(&t.client, "answer"));
	assert_int_equal(t.client.ended, 0);
	stream_shutdown(&t.server.stream);
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_int_equal(t.client.error, 0);
	finish(&t);
}

#define LARGE (12u << 20)

static void
check_pattern(const struct buf *got)
{
	assert_int_equal(got->n, LARGE);
	for (size_t i = 0; i < LARGE; i += 4099)
		assert_int_equal((unsigned char)got->p[i], (unsigned char)(i >> 4));
}

static char *
pattern(void)
{
	char *p = malloc(LARGE);

	for (size_t i = 0; i < LARGE; i++)
		p[i] = (char)(i >> 4);
	return p;
}

/* A reader that stops: the writer is told, nothing comes while it is paused,
 * and all of it comes after. */
static void
back_pressure(bool tls)
{
	struct pair_of_peers t;
	char *large = pattern();

	start_open(&t, tls);
	t.client.pause_on_data = true;
	t.server.inside = true;
	size_t queued = stream_write(&t.server.stream, (struct slice){ large, LARGE });
	t.server.inside = false;
	free(large);		/* what waits was copied */
	assert_true(queued > STREAM_QUEUE_HIGH);
	while (t.client.got.n < LARGE) {
		int calls = t.client.data_calls;

		stream_resume(&t.client.stream);
		RUN_UNTIL(&t.loop, t.client.data_calls > calls);
		assert_int_equal(t.client.data_calls, calls + 1);
	}
	RUN_UNTIL(&t.loop, t.server.drained);
	assert_int_equal(t.server.drained, 1);
	assert_null(t.server.stream.writing.p);
	check_pattern(&t.client.got);
	finish(&t);
}

/* An orderly end waits for what is queued. */
static void
shutdown_after_the_queue(bool tls)
{
	struct pair_of_peers t;
	char *large = pattern();

	start_open(&t, tls);
	stream_pause(&t.client.stream);
	assert_true(stream_write(&t.server.stream, (struct slice){ large, LARGE }) > 0);
	free(large);
	stream_shutdown(&t.server.stream);
	assert_int_equal(stream_write(&t.server.stream, SLICE("too late")), 0);
	stream_resume(&t.client.stream);
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_int_equal(t.client.error, 0);
	check_pattern(&t.client.got);
	finish(&t);
}

static void
many_pieces(bool tls)
{
	struct pair_of_peers t;
	struct slice pieces[300];

	start_open(&t, tls);
	for (size_t i = 0; i < 300; i++)
		pieces[i] = i % 3 ? SLICE("ab") : SLICE("");
	assert_int_equal(stream_writev(&t.client.stream, pieces, 300), 0);
	RUN_UNTIL(&t.loop, t.server.got.n == 400);
	finish(&t);
}

static void
reset_is_seen(bool tls)
{
	struct pair_of_peers t;

	start_open(&t, tls);
	write_text(&t.server, "half an ans");
	stream_reset(&t.server.stream);
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_int_equal(t.client.error, UV_ECONNRESET);
	assert_int_equal(write_text(&t.client, "into the void"), 0);
	finish(&t);
}

/* The write meets the error; the loop tells it, also to one who has paused. */
static void
write_error(bool tls, bool paused)
{
	struct pair_of_peers t;

	start_open(&t, tls);
	if (paused)
		stream_pause(&t.client.stream);
	stream_reset(&t.server.stream);
	RUN_UNTIL(&t.loop, t.server.closed);
	for (int i = 0; i < 3; i++)
		write_text(&t.client, "is anybody there?");
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_true(t.client.error == UV_ECONNRESET || t.client.error == UV_EPIPE);
	finish(&t);
}

static void
closing_inside_callbacks(bool tls)
{
	struct pair_of_peers t;

	start(&t, tls);
	t.client.close_on_open = true;
	RUN_UNTIL(&t.loop, t.client.closed && t.server.ended);
	finish(&t);

	start_open(&t, tls);
	t.server.close_on_data = true;
	write_text(&t.client, "a");
	RUN_UNTIL(&t.loop, t.server.closed && t.client.ended);
	assert_int_equal(t.client.error, 0);
	finish(&t);

	start_open(&t, tls);
	t.server.reset_on_data = true;
	write_text(&t.client, "a");
	RUN_UNTIL(&t.loop, t.server.closed && t.client.ended);
	assert_int_equal(t.client.error, UV_ECONNRESET);
	finish(&t);
}

/* Closed with bytes in the queue: they are lost, and so is no memory. */
static void
closing_with_a_queue(bool tls)
{
	struct pair_of_peers t;
	char *large = pattern();

	start_open(&t, tls);
	stream_pause(&t.client.stream);
	assert_true(stream_write(&t.server.stream, (struct slice){ large, LARGE }) > 0);
	write_text(&t.server, "and more");
	free(large);
	stream_close(&t.server.stream);
	stream_resume(&t.client.stream);
	RUN_UNTIL(&t.loop, t.server.closed && t.client.ended);
	assert_true(t.client.got.n < LARGE);
	finish(&t);
}

static void
plain_and_tls(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		words_both_ways(tls);
		half_close(tls);
		many_pieces(tls);
		reset_is_seen(tls);
		write_error(tls, false);
		write_error(tls, true);
		closing_inside_callbacks(tls);
		closing_with_a_queue(tls);
	}
}

static void
back_pressure_plain(void **state)
{
	(void)state;
	back_pressure(false);
	shutdown_after_the_queue(false);
}

static void
back_pressure_tls(void **state)
{
	(void)state;
	back_pressure(true);
	shutdown_after_the_queue(true);
}

/* Echoes of echoes while both queues fill: no byte is lost or swapped. */
static void
echo_under_load(void **state)
{
	struct pair_of_peers t;
	char *large = pattern();

	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		start_open(&t, tls);
		t.server.echo = true;
		stream_write(&t.client.stream, (struct slice){ large, LARGE });
		RUN_UNTIL(&t.loop, t.client.got.n == LARGE);
		check_pattern(&t.client.got);
		finish(&t);
	}
	free(large);
}

/* ---- one of them only ---- */

static void
refused(void **state)
{
	struct pair_of_peers t;

	(void)state;
	start_open(&t, false);
	stream_close(&t.client.stream);
	RUN_UNTIL(&t.loop, t.client.closed);
	uv_close((uv_handle_t *)&t.listener, NULL);
	stream_close(&t.server.stream);
	RUN_UNTIL(&t.loop, t.server.closed && !uv_is_active((uv_handle_t *)&t.listener));

	peer_init(&t.client);
	assert_int_equal(stream_connect(&t.client.stream, &t.loop.uv, (struct sockaddr *)&t.address, NULL, NULL,
	    &callbacks, &t.client), 0);
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_int_equal(t.client.error, UV_ECONNREFUSED);
	assert_int_equal(t.client.opened, 0);
	stream_close(&t.client.stream);
	RUN_UNTIL(&t.loop, t.client.closed);
	test_loop_free(&t.loop);
	buf_free(&t.server.got);
	buf_free(&t.client.got);
}

static void
closing_while_connecting(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct pair_of_peers t;

		start(&t, tls);
		stream_close(&t.client.stream);
		RUN_UNTIL(&t.loop, t.client.closed);
		assert_int_equal(t.client.opened + t.client.ended, 0);
		uv_close((uv_handle_t *)&t.listener, NULL);
		if (t.server.stream.owner) {	/* the kernel may have accepted it before */
			stream_close(&t.server.stream);
			RUN_UNTIL(&t.loop, t.server.closed);
		}
		test_loop_free(&t.loop);
		buf_free(&t.server.got);
	}
}

/* A handshake on a connection that had begun without one. */
static void
securing_an_open_stream(void **state)
{
	struct pair_of_peers t;

	(void)state;
	start(&t, false);
	t.tls = server_tls;
	RUN_UNTIL(&t.loop, t.client.opened);
	t.client.opened = 0;
	assert_int_equal(stream_secure(&t.client.stream, client_tls, "localhost"), 0);
	RUN_UNTIL(&t.loop, t.client.opened && t.server.opened);
	write_text(&t.client, "secret");
	RUN_UNTIL(&t.loop, has_got(&t.server, "secret"));
	finish(&t);
}

static void
untrusted_server(void **state)
{
	struct pair_of_peers t;
	struct pki stranger;
	char why[200];

	(void)state;
	pki_init(&stranger);
	struct tls_context *mine = client_tls, *other = tls_client_new(slice_of(stranger.ca), why, sizeof(why));
	assert_non_null(other);
	client_tls = other;
	start(&t, true);
	RUN_UNTIL(&t.loop, t.client.ended && t.server.ended);
	assert_int_equal(t.client.error, STREAM_E_TLS);
	assert_string_equal(t.client.text, "the certificate is not trusted (unknown issuer)");
	assert_int_equal(t.server.error, STREAM_E_TLS);
	assert_int_equal(t.client.opened + t.server.opened, 0);
	finish(&t);
	client_tls = mine;
	tls_context_put(other);
	pki_free(&stranger);
}

/* A cut is not an end: without close_notify the peer is told so. */
static void
tls_cut_off(void **state)
{
	struct pair_of_peers t;
	uv_os_fd_t fd;

	(void)state;
	start_open(&t, true);
	write_text(&t.server, "half");
	assert_int_equal(uv_fileno((uv_handle_t *)&t.server.stream.tcp, &fd), 0);
	shutdown(fd, SHUT_WR);
	RUN_UNTIL(&t.loop, t.client.ended);
	assert_true(has_got(&t.client, "half"));
	assert_int_equal(t.client.error, STREAM_E_TLS);
	assert_string_equal(t.client.text, "the connection ended without a TLS close");
	finish(&t);
}

static void
plain_words_to_a_tls_server(void **state)
{
	struct pair_of_peers t;

	(void)state;
	start(&t, false);
	t.tls = server_tls;
	RUN_UNTIL(&t.loop, t.client.opened);
	write_text(&t.client, "GET / HTTP/1.1\r\n\r\n");
	RUN_UNTIL(&t.loop, t.server.ended);
	assert_int_equal(t.server.error, STREAM_E_TLS);
	assert_int_equal(t.server.opened, 0);
	finish(&t);
}

static int
setup(void **state)
{
	char why[200];

	(void)state;
	pki_init(&pki);
	pki_issue(&pki, &good, "localhost", LONG_AGO, FAR_AWAY);
	CHECK(tls_random(&keys.name, sizeof(keys.name)) && tls_random(&keys.key, sizeof(keys.key)));
	server_tls = tls_server_new(slice_of(good.cert), slice_of(good.key), &keys, why, sizeof(why));
	client_tls = tls_client_new(slice_of(pki.ca), why, sizeof(why));
	return server_tls && client_tls ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	tls_context_put(server_tls);
	tls_context_put(client_tls);
	pki_free(&pki);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_and_tls),
		cmocka_unit_test(back_pressure_plain),
		cmocka_unit_test(back_pressure_tls),
		cmocka_unit_test(echo_under_load),
		cmocka_unit_test(refused),
		cmocka_unit_test(closing_while_connecting),
		cmocka_unit_test(securing_an_open_stream),
		cmocka_unit_test(untrusted_server),
		cmocka_unit_test(tls_cut_off),
		cmocka_unit_test(plain_words_to_a_tls_server),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
