/*
 * upstream/wire/tls.h -- mbedTLS 2.28 and 3.6 behind one small face.
 *
 * The only file (with tls.c) that knows the TLS library. Contexts are made
 * after the fork (the random generator must not be shared). Server side:
 * TLS >= 1.2, ALPN http/1.1, session tickets whose keys come from the caller
 * so that a client resumes at any worker. Client side: certificate
 * verification always, SNI, session resumption per host.
 */
#ifndef WEIR_UPSTREAM_WIRE_TLS_H
#define WEIR_UPSTREAM_WIRE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"

struct tls_context;
struct tls;

#define TLS_TICKET_KEY_BYTES 32
struct tls_ticket_keys {	/* set by the master, the same in all workers */
	uint8_t name[2][16];	/* [0] is used to seal, both to open */
	uint8_t key[2][TLS_TICKET_KEY_BYTES];
	bool previous_valid;
};

int tls_check_pair(struct slice cert_pem, struct slice key_pem, char *why, size_t why_size) MUST_CHECK;
	/* Parses both and checks that they belong together and that the
	 * certificate has not expired. 0, or -1 and a sentence. No RNG state
	 * survives: the master may call it before it forks. */
struct tls_context *tls_server_new(struct slice cert_pem, struct slice key_pem,
    const struct tls_ticket_keys *keys, char *why, size_t why_size);
	/* An expired certificate is served: to stop would help nobody. The keys
	 * are copied. NULL keys: no tickets, clients do not resume. */
struct tls_context *tls_client_new(struct slice ca_pem, char *why, size_t why_size);
	/* ca_pem none: the system's bundle, /etc/ssl/certs/ca-certificates.crt. */
void tls_context_put(struct tls_context *c);
	/* Counted: connections hold their context over a reload. */
bool tls_random(void *out, size_t n);
	/* From this process's generator; false if it failed. */

/* ---- used by stream.c ---- */
struct tls *tls_new(struct tls_context *c, const char *host);
	/* host NULL on the server side. A saved session of `host` is offered. */
void tls_free(struct tls *t);

enum tls_state { TLS_HANDSHAKE, TLS_OPEN, TLS_CLOSED, TLS_FAILED };

typedef void tls_plain_fn(void *arg, const char *p, size_t n);
enum tls_state tls_feed(struct tls *t, const char *cipher, size_t n, struct buf *out,
    tls_plain_fn *plain, void *arg);
	/* All n bytes from the peer are taken. Bytes for the peer are added to
	 * `out`, also when the answer is FAILED (an alert). What was decrypted
	 * goes to `plain`, in one call for up to HTTP_READ_BYTES of input, and
	 * stays valid until the next tls_feed() of any connection. */
enum tls_state tls_start(struct tls *t, struct buf *out);
	/* Client: the first message of the handshake. */
int tls_write(struct tls *t, const struct slice *pieces, size_t n, struct buf *out) MUST_CHECK;
	/* Only when open. Small pieces are joined into one record. -1: failed. */
void tls_close_notify(struct tls *t, struct buf *out);
const char *tls_error(const struct tls *t);
	/* For people, after FAILED: "the certificate has expired". */
const char *tls_version(const struct tls *t);	/* "TLSv1.3" */
bool tls_resumed(const struct tls *t);
	/* The handshake was a short one, from a session of before. */

#endif
