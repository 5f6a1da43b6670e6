/*
 * upstream/wire/tls_private.h -- what tls.c and tls_tickets.c share, and where
 * mbedTLS 2.28 and 3.6 are made one. Only these two files include it.
 *
 * No MBEDTLS_* configuration macro may be defined here: structs of the library
 * would then differ from those that its binary has.
 */
#ifndef WEIR_UPSTREAM_WIRE_TLS_PRIVATE_H
#define WEIR_UPSTREAM_WIRE_TLS_PRIVATE_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/gcm.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

#include "upstream/wire/tls.h"

#if MBEDTLS_VERSION_NUMBER < 0x03000000
/* 2.28 takes no random generator where a key is parsed or compared. */
#define compat_pk_parse(pk, p, n, rng, ctx) mbedtls_pk_parse_key(pk, p, n, NULL, 0)
#define compat_pk_check_pair(pub, prv, rng, ctx) mbedtls_pk_check_pair(pub, prv)
#define compat_min_tls12(conf) \
	mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3)
#else
#define compat_pk_parse(pk, p, n, rng, ctx) mbedtls_pk_parse_key(pk, p, n, NULL, 0, rng, ctx)
#define compat_pk_check_pair(pub, prv, rng, ctx) mbedtls_pk_check_pair(pub, prv, rng, ctx)
#define compat_min_tls12(conf) mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2)
#endif

#define TLS_TICKET_LIFETIME_S (12 * 3600)
#define TLS_SESSIONS_MAX 64	/* saved per client context, one a host; the oldest goes */

struct tls_session {		/* a client's, to be resumed */
	struct tls_session *next;
	mbedtls_ssl_session saved;
	char host[];
};

struct tls_context {
	uint32_t refs;
	bool server;
	mbedtls_ssl_config conf;
	mbedtls_x509_crt chain;		/* server: its own; client: whom to trust */
	mbedtls_pk_context key;
	struct tls_ticket_keys ticket_keys;
	struct tls_session *sessions;	/* the latest first */
	struct tls *current;		/* the connection whose handshake is running */
};

struct tls {
	struct tls_context *context;
	mbedtls_ssl_context ssl;
	struct slice in;		/* ciphertext not consumed yet */
	struct buf *out;
	bool fetched;			/* the library took input since we last looked */
	bool saw_certificate, ticket_taken, session_offered;
	bool alerted;
	enum tls_state state;
	char *host;			/* client */
	char error[160];
};

int tls_rng(void *unused, unsigned char *out, size_t n);
	/* This process's generator, in mbedTLS's form. */
void tls_tickets_use(struct tls_context *c, const struct tls_ticket_keys *keys);
	/* Server: seal sessions into tickets and open them again. */
void tls_session_save(struct tls *t);
void tls_session_offer(struct tls *t);
void tls_session_forget(struct tls *t);
void tls_sessions_free(struct tls_context *c);

#endif
