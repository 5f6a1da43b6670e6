/*
 * TLS without sockets: client and server hand each other their bytes, in
 * pieces of any size. Counted: full and resumed handshakes, records.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/certificates.h"
#include "upstream/wire/tls.h"

#define WIRE_MAX (16u << 20)

static struct pki pki;
static struct pair good;
static struct tls_ticket_keys keys;

struct side {
	struct tls *tls;
	enum tls_state state;
	struct buf to_peer;	/* ciphertext on its way */
	struct buf plain;	/* what was received */
};

static void
take_plain(void *arg, const char *p, size_t n)
{
	buf_add(arg, p, n);
}

static void
side_init(struct side *s, struct tls_context *c, const char *host)
{
	s->tls = tls_new(c, host);
	assert_non_null(s->tls);
	s->state = TLS_HANDSHAKE;
	buf_init(&s->to_peer, WIRE_MAX);
	buf_init(&s->plain, WIRE_MAX);
	if (host)
		s->state = tls_start(s->tls, &s->to_peer);
}

static void
side_free(struct side *s)
{
	tls_free(s->tls);
	buf_free(&s->to_peer);
	buf_free(&s->plain);
}

/* Everything that is on its way arrives, `piece` bytes at a time. */
static bool
deliver(struct side *from, struct side *to, size_t piece)
{
	struct buf wire = from->to_peer;

	buf_init(&from->to_peer, WIRE_MAX);
	for (size_t at = 0; at < wire.n && (to->state == TLS_HANDSHAKE || to->state == TLS_OPEN); at += piece)
		to->state = tls_feed(to->tls, wire.p + at, wire.n - at < piece ? wire.n - at : piece, &to->to_peer,
		    take_plain, &to->plain);
	bool any = wire.n > 0;
	buf_free(&wire);
	return any;
}

static void
exchange_all(struct side *a, struct side *b, size_t piece)
{
	for (int turns = 0; turns < 50; turns++) {
		bool moved = deliver(a, b, piece);

		moved = deliver(b, a, piece) || moved;
		if (!moved)
			return;
	}
	fail_msg("the peers never come to rest");
}

static struct tls_context *
server_of(const struct pair *pair, const struct tls_ticket_keys *k)
{
	char why[200] = "";
	struct tls_context *c = tls_server_new(slice_of(pair->cert), slice_of(pair->key), k, why, sizeof(why));

	if (!c)
		fail_msg("%s", why);
	return c;
}

static struct tls_context *
client_of(const char *ca)
{
	char why[200] = "";
	struct tls_context *c = tls_client_new(slice_of(ca), why, sizeof(why));

	if (!c)
		fail_msg("%s", why);
	return c;
}

/* One connection from beginning to orderly end; was it a resumed one? */
static bool
connect_once(struct tls_context *client, struct tls_context *server, const char *host)
{
	struct side c, s;
	struct slice ping = SLICE("ping");

	side_init(&c, client, host);
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 1u << 16);
	assert_int_equal(c.state, TLS_OPEN);
	assert_int_equal(s.state, TLS_OPEN);
	assert_int_equal(tls_write(s.tls, &ping, 1, &s.to_peer), 0);
	exchange_all(&c, &s, 1u << 16);
	assert_int_equal(c.plain.n, 4);
	bool resumed = tls_resumed(c.tls);
	assert_int_equal(tls_resumed(s.tls), resumed);
	tls_close_notify(c.tls, &c.to_peer);
	exchange_all(&c, &s, 1u << 16);
	assert_int_equal(s.state, TLS_CLOSED);
	side_free(&c);
	side_free(&s);
	return resumed;
}

static void
bytes_in_any_pieces(void **state)
{
	static const size_t pieces[] = { 1, 2, 5, 77, 1400, 16384, 65536, 1u << 20 };
	struct tls_context *client = client_of(pki.ca), *server = server_of(&good, &keys);
	size_t n = 300000;
	char *bytes = malloc(n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		bytes[i] = (char)(i * 31 >> 3);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		const struct slice body[] = {
			{ bytes, 10 }, { bytes + 10, 0 }, { bytes + 10, 40000 }, { bytes + 40010, n - 40010 },
		};
		struct side c, s;

		side_init(&c, client, "localhost");
		side_init(&s, server, NULL);
		exchange_all(&c, &s, pieces[i]);
		assert_int_equal(tls_write(c.tls, body, 4, &c.to_peer), 0);
		assert_int_equal(tls_write(s.tls, body, 1, &s.to_peer), 0);
		exchange_all(&c, &s, pieces[i]);
		assert_int_equal(s.plain.n, n);
		assert_memory_equal(s.plain.p, bytes, n);
		assert_int_equal(c.plain.n, 10);
		side_free(&c);
		side_free(&s);
	}
	free(bytes);
	tls_context_put(client);
	tls_context_put(server);
}

static unsigned
count_records(struct slice wire)
{
	unsigned records = 0;

	while (wire.n >= 5) {
		size_t n = 5 + ((size_t)(unsigned char)wire.p[3] << 8) + (unsigned char)wire.p[4];

		assert_true(n <= wire.n);
		wire = (struct slice){ wire.p + n, wire.n - n };
		records++;
	}
	assert_int_equal(wire.n, 0);
	return records;
}

static void
small_pieces_share_a_record(void **state)
{
	struct tls_context *client = client_of(pki.ca), *server = server_of(&good, &keys);
	char *large = calloc(1, 40000);
	const struct slice small[] = { SLICE("6\r\n"), SLICE("data: "), SLICE("\r\n") };
	const struct slice mixed[] = { SLICE("head"), { large, 40000 } };
	struct side c, s;

	(void)state;
	side_init(&c, client, "localhost");
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 65536);
	assert_int_equal(tls_write(s.tls, small, 3, &s.to_peer), 0);
	assert_int_equal(count_records(buf_slice(&s.to_peer)), 1);
	buf_clear(&s.to_peer);
	assert_int_equal(tls_write(s.tls, mixed, 2, &s.to_peer), 0);
	assert_int_equal(count_records(buf_slice(&s.to_peer)), 3);
	side_free(&c);
	side_free(&s);
	free(large);
	tls_context_put(client);
	tls_context_put(server);
}

/* A client resumes at every worker that has the keys, and only there. */
static void
resumption(void **state)
{
	struct tls_ticket_keys rotated, foreign;
	struct tls_context *client = client_of(pki.ca);
	struct tls_context *worker1 = server_of(&good, &keys), *worker2 = server_of(&good, &keys);
	unsigned resumed = 0;

	(void)state;
	memset(&foreign, 7, sizeof(foreign));
	rotated = foreign;
	memcpy(rotated.name[1], keys.name[0], sizeof(keys.name[0]));
	memcpy(rotated.key[1], keys.key[0], sizeof(keys.key[0]));
	rotated.previous_valid = true;
	struct tls_context *after_rotation = server_of(&good, &rotated), *stranger = server_of(&good, NULL);

	assert_false(connect_once(client, worker1, "localhost"));
	for (int i = 0; i < 20; i++)
		resumed += connect_once(client, i % 2 ? worker1 : worker2, "localhost");
	assert_int_equal(resumed, 20);
	assert_true(connect_once(client, after_rotation, "localhost"));
	tls_context_put(client);
	client = client_of(pki.ca);
	assert_false(connect_once(client, after_rotation, "localhost"));
	/* That ticket is under the new key, which the old workers lack. */
	assert_false(connect_once(client, worker1, "localhost"));
	assert_true(connect_once(client, worker1, "localhost"));
	assert_false(connect_once(client, stranger, "localhost"));

	tls_context_put(client);
	tls_context_put(worker1);
	tls_context_put(worker2);
	tls_context_put(after_rotation);
	tls_context_put(stranger);
}

static void
sessions_are_kept_per_host_and_bounded(void **state)
{
	struct tls_context *client = client_of(pki.ca);
	struct pair other;

	(void)state;
	pki_issue(&pki, &other, "*.example.test", LONG_AGO, FAR_AWAY);
	struct tls_context *server = server_of(&good, &keys), *wild = server_of(&other, &keys);

	assert_false(connect_once(client, server, "localhost"));
	for (int i = 0; i < 80; i++) {
		char host[40];

		snprintf(host, sizeof(host), "h%d.example.test", i);
		assert_false(connect_once(client, wild, host));
	}
	assert_true(connect_once(client, wild, "h79.example.test"));
	assert_false(connect_once(client, server, "localhost"));	/* it was pushed out */
	tls_context_put(client);
	tls_context_put(server);
	tls_context_put(wild);
}

static void
expect_refused(const char *ca, const struct pair *pair, const char *host, const char *words)
{
	struct tls_context *client = client_of(ca), *server = server_of(pair, &keys);
	struct side c, s;

	side_init(&c, client, host);
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 65536);
	assert_int_equal(c.state, TLS_FAILED);
	if (!strstr(tls_error(c.tls), words))
		fail_msg("\"%s\" does not say \"%s\"", tls_error(c.tls), words);
	assert_int_equal(s.state, TLS_FAILED);
	/* By the alert that it was sent. mbedTLS 3.6 as a TLS 1.3 client sends
	 * that one under no key yet, so its server cannot read it. */
	if (strcmp(tls_version(c.tls), "TLSv1.3") != 0 && !strstr(tls_error(s.tls), "alert"))
		fail_msg("the server says \"%s\" and not that it got an alert", tls_error(s.tls));
	side_free(&c);
	side_free(&s);
	tls_context_put(client);
	tls_context_put(server);
}

static void
certificates_are_verified(void **state)
{
	struct pair expired, early;
	struct pki stranger;

	(void)state;
	pki_init(&stranger);
	pki_issue(&pki, &early, "localhost", FAR_AWAY, FARTHER_AWAY);
	pki_issue(&pki, &expired, "localhost", LONG_AGO, LAST_YEAR);
	expect_refused(pki.ca, &good, "example.org", "the certificate is for another name");
	expect_refused(pki.ca, &good, "localhost.example.org", "the certificate is for another name");
	expect_refused(stranger.ca, &good, "localhost", "the certificate is not trusted");
	expect_refused(pki.ca, &early, "localhost", "the certificate is not valid yet");

	expect_refused(pki.ca, &expired, "localhost", "the certificate has expired");
	expect_refused(pki.ca, &expired, "example.org", "has expired, the certificate is for another name");
	pki_free(&stranger);
}

static void
pairs_are_checked(void **state)
{
	struct pair other, expired;
	char why[200] = "";

	(void)state;
	pki_issue(&pki, &other, "localhost", LONG_AGO, FAR_AWAY);
	pki_issue(&pki, &expired, "localhost", LONG_AGO, LAST_YEAR);
	assert_int_equal(tls_check_pair(slice_of(good.cert), slice_of(good.key), why, sizeof(why)), 0);
	assert_int_equal(tls_check_pair(slice_of(good.cert), slice_of(other.key), why, sizeof(why)), -1);
	assert_string_equal(why, "the private key does not belong to the certificate");
	assert_int_equal(tls_check_pair(slice_of(expired.cert), slice_of(expired.key), why, sizeof(why)), -1);
	assert_string_equal(why, "the certificate has expired");
	assert_int_equal(tls_check_pair(SLICE("rubbish"), slice_of(good.key), why, sizeof(why)), -1);
	assert_non_null(strstr(why, "the certificate cannot be read"));
	assert_int_equal(tls_check_pair(slice_of(good.cert), SLICE("rubbish"), why, sizeof(why)), -1);
	assert_non_null(strstr(why, "the private key cannot be read"));
	assert_null(tls_client_new(SLICE("rubbish"), why, sizeof(why)));
	assert_non_null(strstr(why, "the CA certificates cannot be read"));
}

static void
rubbish_is_answered_with_an_alert(void **state)
{
	struct tls_context *server = server_of(&good, &keys);
	struct slice junk = SLICE("GET / HTTP/1.1\r\nHost: plain\r\n\r\n");
	struct side s;

	(void)state;
	side_init(&s, server, NULL);
	s.state = tls_feed(s.tls, junk.p, junk.n, &s.to_peer, take_plain, &s.plain);
	assert_int_equal(s.state, TLS_FAILED);
	assert_true(tls_error(s.tls)[0] != '\0');
	assert_int_equal(tls_write(s.tls, &junk, 1, &s.to_peer), -1);
	side_free(&s);
	tls_context_put(server);
}

static void
a_changed_byte_fails_the_connection(void **state)
{
	struct tls_context *client = client_of(pki.ca), *server = server_of(&good, &keys);
	struct slice hello = SLICE("hello");
	struct side c, s;

	(void)state;
	side_init(&c, client, "localhost");
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 65536);
	assert_int_equal(tls_write(c.tls, &hello, 1, &c.to_peer), 0);
	c.to_peer.p[c.to_peer.n - 1] ^= 1;
	deliver(&c, &s, 65536);
	assert_int_equal(s.state, TLS_FAILED);
	assert_int_equal(s.plain.n, 0);
	side_free(&c);
	side_free(&s);
	tls_context_put(client);
	tls_context_put(server);
}

static void
data_and_close_in_one_read(void **state)
{
	struct tls_context *client = client_of(pki.ca), *server = server_of(&good, &keys);
	struct slice bye = SLICE("bye");
	struct side c, s;

	(void)state;
	side_init(&c, client, "localhost");
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 65536);
	assert_int_equal(tls_write(c.tls, &bye, 1, &c.to_peer), 0);
	tls_close_notify(c.tls, &c.to_peer);
	deliver(&c, &s, 65536);
	assert_int_equal(s.state, TLS_CLOSED);
	assert_int_equal(s.plain.n, 3);
	/* The other direction is still open. */
	assert_int_equal(tls_write(s.tls, &bye, 1, &s.to_peer), 0);
	deliver(&s, &c, 65536);
	assert_int_equal(c.plain.n, 3);
	side_free(&c);
	side_free(&s);
	tls_context_put(client);
	tls_context_put(server);
}

static void
children_have_their_own_random_bytes(void **state)
{
	unsigned char bytes[3][32];

	(void)state;
	assert_true(tls_random(bytes[0], 32));
	for (int i = 0; i < 2; i++) {
		int fds[2];

		assert_int_equal(pipe(fds), 0);
		pid_t pid = fork();
		if (pid == 0) {
			unsigned char own[32];
			_exit(tls_random(own, 32) && write(fds[1], own, 32) == 32 ? 0 : 1);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(read(fds[0], bytes[i + 1], 32), 32);
		close(fds[0]);
		close(fds[1]);
	}
	assert_memory_not_equal(bytes[0], bytes[1], 32);
	assert_memory_not_equal(bytes[1], bytes[2], 32);
	assert_true(tls_random(bytes[0], 32));
	assert_memory_not_equal(bytes[0], bytes[1], 32);
}

static void
versions(void **state)
{
	struct tls_context *client = client_of(pki.ca), *server = server_of(&good, &keys);
	struct side c, s;

	(void)state;
	side_init(&c, client, "localhost");
	side_init(&s, server, NULL);
	exchange_all(&c, &s, 65536);
	assert_string_equal(tls_version(c.tls), tls_version(s.tls));
	assert_string_equal(tls_version(c.tls),
	    MBEDTLS_VERSION_NUMBER < 0x03000000 ? "TLSv1.2" : "TLSv1.3");
	print_message("%s: %s\n", MBEDTLS_VERSION_STRING_FULL, tls_version(c.tls));
	side_free(&c);
	side_free(&s);
	tls_context_put(client);
	tls_context_put(server);
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
		cmocka_unit_test(versions),
		cmocka_unit_test(bytes_in_any_pieces),
		cmocka_unit_test(small_pieces_share_a_record),
		cmocka_unit_test(resumption),
		cmocka_unit_test(sessions_are_kept_per_host_and_bounded),
		cmocka_unit_test(certificates_are_verified),
		cmocka_unit_test(pairs_are_checked),
		cmocka_unit_test(rubbish_is_answered_with_an_alert),
		cmocka_unit_test(a_changed_byte_fails_the_connection),
		cmocka_unit_test(data_and_close_in_one_read),
		cmocka_unit_test(children_have_their_own_random_bytes),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
