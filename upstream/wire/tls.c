/*
 * upstream/wire/tls.c -- see tls.h.
 *
 * mbedTLS pulls and pushes bytes through two callbacks; ours take ciphertext
 * from the slice that tls_feed() was given and add what is to be sent to the
 * caller's buffer. So the library never waits, and MBEDTLS_ERR_SSL_WANT_READ
 * means: everything is consumed. Not quite everything: after a record that is
 * not application data (a session ticket) it says so although more is
 * buffered, hence "ask again as long as it took input" in the loops below.
 *
 * The random generator belongs to the process. A child that inherits a seeded
 * one would produce its parent's bytes, so fork() marks it unseeded.
 */
#include "upstream/wire/tls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/limits.h"
#include "upstream/wire/tls_private.h"

#define SYSTEM_BUNDLE "/etc/ssl/certs/ca-certificates.crt"
#define PEM_BYTES_MAX (4u << 20)	/* the system's bundle has a quarter of a MiB */
#define TLS_RECORD_BYTES 16384		/* of plaintext, by the protocol */

/* Of the whole process: plaintext of one read, which may finish a record that
 * had begun before; and small pieces on their way into one record. */
static char plain_buffer[HTTP_READ_BYTES + 2 * TLS_RECORD_BYTES];
static unsigned char join_buffer[TLS_RECORD_BYTES];

/* ---- the random generator ---- */

static struct {
	bool watched, made, seeded;
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context drbg;
} rng;

static void
forked(void)
{
	rng.seeded = false;
}

static bool
rng_seed(void)
{
	static const unsigned char purpose[] = "weir";

	if (!rng.watched) {
		if (pthread_atfork(NULL, NULL, forked) != 0)
			return false;
		rng.watched = true;
	}
	if (rng.made) {
		mbedtls_ctr_drbg_free(&rng.drbg);
		mbedtls_entropy_free(&rng.entropy);
	}
	mbedtls_entropy_init(&rng.entropy);
	mbedtls_ctr_drbg_init(&rng.drbg);
	rng.made = true;
	rng.seeded = mbedtls_ctr_drbg_seed(&rng.drbg, mbedtls_entropy_func, &rng.entropy, purpose,
	    sizeof(purpose) - 1) == 0;
	return rng.seeded;
}

int
tls_rng(void *unused, unsigned char *out, size_t n)
{
	(void)unused;
	while (n > 0) {
		size_t part = n < MBEDTLS_CTR_DRBG_MAX_REQUEST ? n : MBEDTLS_CTR_DRBG_MAX_REQUEST;

		if (!rng.seeded && !rng_seed())
			return MBEDTLS_ERR_CTR_DRBG_ENTROPY_SOURCE_FAILED;
		int e = mbedtls_ctr_drbg_random(&rng.drbg, out, part);
		if (e != 0)
			return e;
		out += part;
		n -= part;
	}
	return 0;
}

bool
tls_random(void *out, size_t n)
{
	return tls_rng(NULL, out, n) == 0;
}

/* ---- certificates and keys ---- */

static void
say(char *why, size_t size, const char *what, int e)
{
	char words[128];

	mbedtls_strerror(e, words, sizeof(words));
	snprintf(why, size, "%s: %s", what, words);
}

/* mbedTLS wants PEM with a NUL behind it, and counts the NUL. */
static char *
pem_text(struct slice pem)
{
	char *text = pem.n <= PEM_BYTES_MAX ? malloc(pem.n + 1) : NULL;

	if (text) {
		memcpy(text, pem.p, pem.n);
		text[pem.n] = '\0';
	}
	return text;
}

static void
wipe_text(char *text, size_t n)
{
	if (!text)
		return;
	explicit_bzero(text, n);
	free(text);
}

/* Both parsed and belonging together; or -1 and a sentence. */
static int
parse_pair(struct slice cert_pem, struct slice key_pem, mbedtls_x509_crt *chain, mbedtls_pk_context *key,
    int (*random)(void *, unsigned char *, size_t), void *random_arg, char *why, size_t why_size)
{
	char *cert = pem_text(cert_pem), *secret = pem_text(key_pem);
	int e, result = -1;

	(void)random, (void)random_arg;		/* 2.28 does without */
	if (!cert || !secret) {
		snprintf(why, why_size, "the certificate or its key is too large");
	} else if ((e = mbedtls_x509_crt_parse(chain, (unsigned char *)cert, cert_pem.n + 1)) != 0) {
		if (e > 0)
			snprintf(why, why_size, "%d of the certificates in the file cannot be read", e);
		else
			say(why, why_size, "the certificate cannot be read", e);
	} else if ((e = compat_pk_parse(key, (unsigned char *)secret, key_pem.n + 1, random, random_arg)) != 0) {
		say(why, why_size, "the private key cannot be read", e);
	} else if (compat_pk_check_pair(&chain->pk, key, random, random_arg) != 0) {
		snprintf(why, why_size, "the private key does not belong to the certificate");
	} else {
		result = 0;
	}
	wipe_text(cert, cert_pem.n);
	wipe_text(secret, key_pem.n);
	return result;
}

int
tls_check_pair(struct slice cert_pem, struct slice key_pem, char *why, size_t why_size)
{
	/* A generator of its own: the caller may fork after this. */
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context drbg;
	mbedtls_x509_crt chain;
	mbedtls_pk_context key;
	int result = -1;

	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&drbg);
	mbedtls_x509_crt_init(&chain);
	mbedtls_pk_init(&key);
	if (mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0) != 0)
		snprintf(why, why_size, "the system gives no random bytes");
	else
		result = parse_pair(cert_pem, key_pem, &chain, &key, mbedtls_ctr_drbg_random, &drbg, why, why_size);
	if (result == 0 && mbedtls_x509_time_is_past(&chain.valid_to)) {
		snprintf(why, why_size, "the certificate has expired");
		result = -1;
	}
	mbedtls_pk_free(&key);
	mbedtls_x509_crt_free(&chain);
	mbedtls_ctr_drbg_free(&drbg);
	mbedtls_entropy_free(&entropy);
	return result;
}

/* ---- contexts ---- */

static const char *alpn[] = { "http/1.1", NULL };	/* the configuration points to it */

static struct tls_context *
context_new(bool server, char *why, size_t why_size)
{
	struct tls_context *c = calloc(1, sizeof(*c));

	if (!c) {
		snprintf(why, why_size, "out of memory");
		return NULL;
	}
	c->refs = 1;
	c->server = server;
	mbedtls_ssl_config_init(&c->conf);
	mbedtls_x509_crt_init(&c->chain);
	mbedtls_pk_init(&c->key);
	int e = psa_crypto_init() == PSA_SUCCESS ? 0 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
	if (e == 0)
		e = mbedtls_ssl_config_defaults(&c->conf, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
		    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
	if (e == 0)
		e = mbedtls_ssl_conf_alpn_protocols(&c->conf, alpn);
	if (e != 0) {
		say(why, why_size, "TLS cannot be set up", e);
		tls_context_put(c);
		return NULL;
	}
	compat_min_tls12(&c->conf);
	mbedtls_ssl_conf_rng(&c->conf, tls_rng, NULL);
	mbedtls_ssl_conf_renegotiation(&c->conf, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
	return c;
}

struct tls_context *
tls_server_new(struct slice cert_pem, struct slice key_pem, const struct tls_ticket_keys *keys, char *why,
    size_t why_size)
{
	struct tls_context *c = context_new(true, why, why_size);

	if (!c)
		return NULL;
	int e = parse_pair(cert_pem, key_pem, &c->chain, &c->key, tls_rng, NULL, why, why_size);
	if (e == 0 && (e = mbedtls_ssl_conf_own_cert(&c->conf, &c->chain, &c->key)) != 0)
		say(why, why_size, "the certificate cannot be used", e);
	if (e != 0) {
		tls_context_put(c);
		return NULL;
	}
	if (keys)
		tls_tickets_use(c, keys);
	return c;
}

/* Called for each certificate of a full handshake, never in a short one. */
static int
note_certificate(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
	struct tls_context *c = arg;

	(void)crt, (void)depth, (void)flags;
	if (c->current)
		c->current->saw_certificate = true;
	return 0;
}

/* Some certificates of a bundle may be of a kind that the library does not
 * know (a positive answer): the others count. */
static int
parse_bundle(struct tls_context *c, struct slice ca_pem, char *why, size_t why_size)
{
	int e;

	if (!ca_pem.p) {
		e = mbedtls_x509_crt_parse_file(&c->chain, SYSTEM_BUNDLE);
	} else {
		char *text = pem_text(ca_pem);
		if (!text) {
			snprintf(why, why_size, "the CA file is too large");
			return -1;
		}
		e = mbedtls_x509_crt_parse(&c->chain, (unsigned char *)text, ca_pem.n + 1);
		free(text);
	}
	if (e < 0 || c->chain.raw.len == 0) {
		say(why, why_size, ca_pem.p ? "the CA certificates cannot be read"
		    : "the system's CA certificates (" SYSTEM_BUNDLE ") cannot be read", e);
		return -1;
	}
	return 0;
}

struct tls_context *
tls_client_new(struct slice ca_pem, char *why, size_t why_size)
{
	struct tls_context *c = context_new(false, why, why_size);

	if (!c)
		return NULL;
	if (parse_bundle(c, ca_pem, why, why_size) != 0) {
		tls_context_put(c);
		return NULL;
	}
	mbedtls_ssl_conf_ca_chain(&c->conf, &c->chain, NULL);
	mbedtls_ssl_conf_authmode(&c->conf, MBEDTLS_SSL_VERIFY_REQUIRED);
	mbedtls_ssl_conf_verify(&c->conf, note_certificate, c);
#ifdef MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED
	mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(&c->conf,
	    MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#endif
	return c;
}

void
tls_context_put(struct tls_context *c)
{
	if (!c || --c->refs > 0)
		return;
	tls_sessions_free(c);
	mbedtls_ssl_config_free(&c->conf);
	mbedtls_x509_crt_free(&c->chain);
	mbedtls_pk_free(&c->key);
	explicit_bzero(&c->ticket_keys, sizeof(c->ticket_keys));
	free(c);
}

/* ---- connections ---- */

static int
give(void *arg, const unsigned char *p, size_t n)
{
	struct tls *t = arg;

	buf_add(t->out, p, n);
	return t->out->overflow ? MBEDTLS_ERR_SSL_ALLOC_FAILED : (int)n;
}

static int
take(void *arg, unsigned char *p, size_t n)
{
	struct tls *t = arg;

	if (t->in.n == 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if (n > t->in.n)
		n = t->in.n;
	memcpy(p, t->in.p, n);
	t->in = (struct slice){ t->in.p + n, t->in.n - n };
	t->fetched = true;
	return (int)n;
}

struct tls *
tls_new(struct tls_context *c, const char *host)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	CHECK(c->server == !host);
	t->context = c;
	t->state = TLS_HANDSHAKE;
	c->refs++;
	mbedtls_ssl_init(&t->ssl);
	if (mbedtls_ssl_setup(&t->ssl, &c->conf) != 0 ||
	    (host && (!(t->host = strdup(host)) || mbedtls_ssl_set_hostname(&t->ssl, host) != 0))) {
		tls_free(t);
		return NULL;
	}
	mbedtls_ssl_set_bio(&t->ssl, t, give, take, NULL);
	if (host)
		tls_session_offer(t);
	return t;
}

void
tls_free(struct tls *t)
{
	if (!t)
		return;
	mbedtls_ssl_free(&t->ssl);
	tls_context_put(t->context);
	free(t->host);
	free(t);
}

/* Why the certificate was refused, in words. */
static void
explain_certificate(struct tls *t)
{
	static const struct {
		uint32_t flag;
		const char *words;
	} reasons[] = {
		{ MBEDTLS_X509_BADCERT_EXPIRED, "the certificate has expired" },
		{ MBEDTLS_X509_BADCERT_FUTURE, "the certificate is not valid yet" },
		{ MBEDTLS_X509_BADCERT_CN_MISMATCH, "the certificate is for another name" },
		{ MBEDTLS_X509_BADCERT_NOT_TRUSTED, "the certificate is not trusted (unknown issuer)" },
	};
	uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);
	size_t n = 0;

	if (flags == (uint32_t)-1)
		flags = 0;	/* it did not come to a judgement */
	for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++)
		if ((flags & reasons[i].flag) && n < sizeof(t->error)) {
			n += (size_t)snprintf(t->error + n, sizeof(t->error) - n, "%s%s", n ? ", " : "", reasons[i].words);
			flags &= ~reasons[i].flag;
		}
	if (n == 0) {
		char words[128];
		int got = mbedtls_x509_crt_verify_info(words, sizeof(words), "", flags);

		words[strcspn(words, "\n")] = '\0';
		snprintf(t->error, sizeof(t->error), "the certificate was refused%s%s", got > 0 ? ": " : "",
		    got > 0 ? words : "");
	}
}

static enum tls_state
fail(struct tls *t, int e)
{
	bool in_handshake = t->state == TLS_HANDSHAKE;

	t->state = TLS_FAILED;
	if (e == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED)
		explain_certificate(t);
	else if (e == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
		snprintf(t->error, sizeof(t->error), "the peer ended the TLS handshake");
	else
		say(t->error, sizeof(t->error), in_handshake ? "the TLS handshake failed" : "TLS failed", e);
	if (in_handshake && t->session_offered)
		tls_session_forget(t);	/* it may be the reason: the next one is full */
	return t->state;
}

static enum tls_state
handshake(struct tls *t)
{
	int e;

	t->context->current = t;
	do {
		t->fetched = false;
		e = mbedtls_ssl_handshake(&t->ssl);
	} while (e == MBEDTLS_ERR_SSL_WANT_READ && t->fetched);
	t->context->current = NULL;

	if (e == MBEDTLS_ERR_SSL_WANT_READ)
		return t->state;
	if (e != 0)
		return fail(t, e);
	t->state = TLS_OPEN;
	/* Under TLS 1.3 the session comes later, with a ticket. */
	if (t->host && strcmp(tls_version(t), "TLSv1.3") != 0)
		tls_session_save(t);
	return t->state;
}

/* Decrypts what is there. The plaintext is given in one piece. */
static enum tls_state
read_records(struct tls *t, tls_plain_fn *plain, void *arg)
{
	size_t n = 0;

	for (;;) {
		CHECK(n < sizeof(plain_buffer));
		t->fetched = false;
		int got = mbedtls_ssl_read(&t->ssl, (unsigned char *)plain_buffer + n, sizeof(plain_buffer) - n);

		if (got > 0) {
			n += (size_t)got;
		} else if (got == MBEDTLS_ERR_SSL_WANT_READ) {
			if (!t->fetched)
				break;
#ifdef MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET
		} else if (got == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
			tls_session_save(t);
#endif
		} else if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
			t->state = TLS_CLOSED;
			break;
		} else {
			fail(t, got);
			break;
		}
	}
	if (n > 0)
		plain(arg, plain_buffer, n);
	return t->state;
}

enum tls_state
tls_feed(struct tls *t, const char *p, size_t n, struct buf *out, tls_plain_fn *plain, void *arg)
{
	t->out = out;
	while (n > 0) {
		size_t part = n < HTTP_READ_BYTES ? n : HTTP_READ_BYTES;

		t->in = (struct slice){ p, part };
		if (t->state == TLS_HANDSHAKE)
			handshake(t);
		if (t->state == TLS_OPEN)
			read_records(t, plain, arg);
		p += part;
		n -= part;
	}
	t->in = SLICE_NONE;
	t->out = NULL;
	return t->state;
}

enum tls_state
tls_start(struct tls *t, struct buf *out)
{
	t->out = out;
	handshake(t);
	t->out = NULL;
	return t->state;
}

/* What fits into one record of this connection: a little less under TLS 1.3,
 * which has a type and a padding inside. */
static size_t
record_room(const struct tls *t)
{
	int room = mbedtls_ssl_get_max_out_record_payload(&t->ssl);

	return room > 0 && room < TLS_RECORD_BYTES ? (size_t)room : TLS_RECORD_BYTES;
}

static int
write_record(struct tls *t, const unsigned char *p, size_t n)
{
	while (n > 0) {
		int e = mbedtls_ssl_write(&t->ssl, p, n);

		if (e <= 0) {
			fail(t, e);
			return -1;
		}
		p += e;
		n -= (size_t)e;
	}
	return 0;
}

int
tls_write(struct tls *t, const struct slice *pieces, size_t n, struct buf *out)
{
	size_t joined = 0;
	int e = 0;

	if (t->state == TLS_FAILED)
		return -1;
	CHECK(t->state != TLS_HANDSHAKE);
	t->out = out;
	size_t record = record_room(t);
	for (size_t i = 0; i < n && e == 0; i++) {
		struct slice s = pieces[i];

		while (s.n > 0 && e == 0) {
			size_t room = record - joined, part = s.n < room ? s.n : room;

			if (part == record) {	/* a full record: no need to gather it */
				e = write_record(t, (const unsigned char *)s.p, part);
			} else {
				memcpy(join_buffer + joined, s.p, part);
				joined += part;
				if (joined == record) {
					e = write_record(t, join_buffer, joined);
					joined = 0;
				}
			}
			s = (struct slice){ s.p + part, s.n - part };
		}
	}
	if (joined > 0 && e == 0)
		e = write_record(t, join_buffer, joined);
	t->out = NULL;
	return e;
}

void
tls_close_notify(struct tls *t, struct buf *out)
{
	if (t->state == TLS_HANDSHAKE || t->state == TLS_FAILED || t->alerted)
		return;
	t->alerted = true;
	t->out = out;
	/* The connection ends with or without it: nothing can be done about an error. */
	(void)mbedtls_ssl_close_notify(&t->ssl);
	t->out = NULL;
}

const char *
tls_error(const struct tls *t)
{
	return t->error;
}

const char *
tls_version(const struct tls *t)
{
	return mbedtls_ssl_get_version(&t->ssl);
}

bool
tls_resumed(const struct tls *t)
{
	return t->context->server ? t->ticket_taken : t->session_offered && !t->saw_certificate;
}
