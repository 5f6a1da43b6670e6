/*
 * upstream/wire/tls_tickets.c -- resumption, for both roles.
 *
 * Server: a ticket is the whole session, sealed with a key that all workers
 * have from the master, so that a client resumes at any of them and no worker
 * keeps anything:
 *
 *	name[16] nonce[12] sealed{ issued_s[8] session[] } tag[16]
 *
 * AES-256-GCM; `name` says which key and is authenticated with the rest. The
 * nonce is random: with the keys rotated and 96 bits, that is sound for more
 * tickets than a key ever seals.
 *
 * Client: the latest session of each host, in the context.
 */
#include "upstream/wire/tls_private.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_BYTES 16
#define NONCE_BYTES 12
#define STAMP_BYTES 8
#define TAG_BYTES 16
#define CLEAR_BYTES (NAME_BYTES + NONCE_BYTES)

/* ---- server ---- */

static int
gcm(const uint8_t *key, bool seal, unsigned char *ticket, size_t inside)
{
	unsigned char *nonce = ticket + NAME_BYTES, *text = ticket + CLEAR_BYTES;
	mbedtls_gcm_context gcm;

	mbedtls_gcm_init(&gcm);
	int e = mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, TLS_TICKET_KEY_BYTES * 8);
	if (e == 0 && seal)
		e = mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, inside, nonce, NONCE_BYTES, ticket,
		    NAME_BYTES, text, text, TAG_BYTES, text + inside);
	else if (e == 0)
		e = mbedtls_gcm_auth_decrypt(&gcm, inside, nonce, NONCE_BYTES, ticket, NAME_BYTES,
		    text + inside, TAG_BYTES, text, text);
	mbedtls_gcm_free(&gcm);
	return e;
}

static int
ticket_write(void *arg, const mbedtls_ssl_session *session, unsigned char *start, const unsigned char *end,
    size_t *length, uint32_t *lifetime_s)
{
	struct tls_context *c = arg;
	size_t overhead = CLEAR_BYTES + STAMP_BYTES + TAG_BYTES, n;
	uint64_t now_s = (uint64_t)time(NULL);
	int e;

	if ((size_t)(end - start) < overhead)
		return MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL;
	memcpy(start, c->ticket_keys.name[0], NAME_BYTES);
	if ((e = tls_rng(NULL, start + NAME_BYTES, NONCE_BYTES)) != 0)
		return e;
	memcpy(start + CLEAR_BYTES, &now_s, STAMP_BYTES);
	if ((e = mbedtls_ssl_session_save(session, start + CLEAR_BYTES + STAMP_BYTES,
	    (size_t)(end - start) - overhead, &n)) != 0)
		return e;
	if ((e = gcm(c->ticket_keys.key[0], true, start, STAMP_BYTES + n)) != 0)
		return e;
	*length = overhead + n;
	*lifetime_s = TLS_TICKET_LIFETIME_S;
	return 0;
}

static const uint8_t *
key_named(const struct tls_ticket_keys *keys, const unsigned char *name)
{
	for (int i = 0; i < 2; i++)
		if ((i == 0 || keys->previous_valid) && memcmp(keys->name[i], name, NAME_BYTES) == 0)
			return keys->key[i];
	return NULL;
}

/* A ticket that is not ours, or too old, is no error: a full handshake follows. */
static int
ticket_parse(void *arg, mbedtls_ssl_session *session, unsigned char *ticket, size_t n)
{
	struct tls_context *c = arg;
	uint64_t issued_s, now_s = (uint64_t)time(NULL);
	const uint8_t *key;

	if (n < CLEAR_BYTES + STAMP_BYTES + TAG_BYTES || !(key = key_named(&c->ticket_keys, ticket)))
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	size_t inside = n - CLEAR_BYTES - TAG_BYTES;
	if (gcm(key, false, ticket, inside) != 0)
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	memcpy(&issued_s, ticket + CLEAR_BYTES, STAMP_BYTES);
	if (issued_s > now_s || now_s - issued_s > TLS_TICKET_LIFETIME_S)
		return MBEDTLS_ERR_SSL_SESSION_TICKET_EXPIRED;
	int e = mbedtls_ssl_session_load(session, ticket + CLEAR_BYTES + STAMP_BYTES, inside - STAMP_BYTES);
	if (e == 0 && c->current)
		c->current->ticket_taken = true;
	return e;
}

void
tls_tickets_use(struct tls_context *c, const struct tls_ticket_keys *keys)
{
	c->ticket_keys = *keys;
	mbedtls_ssl_conf_session_tickets_cb(&c->conf, ticket_write, ticket_parse, c);
}

/* ---- client ---- */

/* The place that points to this host's session, or to the end of the list. */
static struct tls_session **
find(struct tls_context *c, const char *host)
{
	struct tls_session **at = &c->sessions;

	while (*at && strcmp((*at)->host, host) != 0)
		at = &(*at)->next;
	return at;
}

static void
drop(struct tls_session **at)
{
	struct tls_session *s = *at;

	*at = s->next;
	mbedtls_ssl_session_free(&s->saved);
	free(s);
}

void
tls_session_forget(struct tls *t)
{
	struct tls_session **at = find(t->context, t->host);

	if (*at)
		drop(at);
}

/* Without memory nothing is saved: the next handshake is a full one. */
void
tls_session_save(struct tls *t)
{
	struct tls_context *c = t->context;
	size_t n = strlen(t->host) + 1;
	struct tls_session *s = malloc(sizeof(*s) + n);

	if (!s)
		return;
	memcpy(s->host, t->host, n);
	mbedtls_ssl_session_init(&s->saved);
	if (mbedtls_ssl_get_session(&t->ssl, &s->saved) != 0) {
		mbedtls_ssl_session_free(&s->saved);
		free(s);
		return;
	}
	tls_session_forget(t);
	s->next = c->sessions;
	c->sessions = s;

	struct tls_session **at = &c->sessions;
	for (int kept = 0; *at && kept < TLS_SESSIONS_MAX; kept++)
		at = &(*at)->next;
	if (*at)
		drop(at);
}

void
tls_session_offer(struct tls *t)
{
	struct tls_session *s = *find(t->context, t->host);

	t->session_offered = s && mbedtls_ssl_set_session(&t->ssl, &s->saved) == 0;
}

void
tls_sessions_free(struct tls_context *c)
{
	while (c->sessions)
		drop(&c->sessions);
}
