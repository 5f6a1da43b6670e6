/*
 * upstream/target.c -- endpoints, and the trust they share.
 *
 * A target outlives its users as long as an exchange or a closing connection
 * needs it; one that is asked for again meanwhile is taken up again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/private.h"

/* ---- trust ---- */

struct trust *
trust_get(struct upstream *u, struct slice ca_pem, char *why, size_t why_size)
{
	struct trust *t;

	for (t = u->trusts; t; t = t->next)
		if (t->system == !ca_pem.p && slice_eq((struct slice){ t->ca, t->ca_n }, ca_pem)) {
			t->refs++;
			return t;
		}
	t = calloc(1, sizeof(*t) + ca_pem.n);
	if (!t) {
		snprintf(why, why_size, "out of memory");
		return NULL;
	}
	t->context = tls_client_new(ca_pem, why, why_size);
	if (!t->context) {
		free(t);
		return NULL;
	}
	t->refs = 1;
	t->system = !ca_pem.p;
	t->ca_n = ca_pem.n;
	if (ca_pem.n)
		memcpy(t->ca, ca_pem.p, ca_pem.n);
	t->next = u->trusts;
	u->trusts = t;
	return t;
}

void
trust_put(struct upstream *u, struct trust *t)
{
	if (!t || --t->refs > 0)
		return;
	struct trust **at = &u->trusts;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	tls_context_put(t->context);
	free(t);
}

/* ---- targets ---- */

static struct target *
find(struct upstream *u, const struct target_at *at, const struct trust *trust)
{
	for (struct link *l = u->targets.next; l != &u->targets; l = l->next) {
		struct target *t = CONTAINER_OF(l, struct target, link);

		if (t->port == at->port && t->trust == trust && t->allows == at->allows && strcmp(t->host, at->host) == 0)
			return t;
	}
	return NULL;
}

static struct target *
target_new(struct upstream *u, const struct target_at *at, struct trust *trust)
{
	size_t n = strlen(at->host) + 1;
	struct target *t = calloc(1, sizeof(*t) + n);

	if (!t)
		return NULL;
	t->upstream = u;
	u->refs++;
	t->trust = trust;
	t->port = at->port;
	t->allows = at->allows;
	memcpy(t->host, at->host, n);
	link_init(&t->idle);
	link_add(&u->targets, &t->link);
	return t;
}

struct target *
upstream_target(struct upstream *u, const struct target_at *at, char *why, size_t why_size)
{
	struct trust *trust = NULL;
	struct target *t;

	if (strlen(at->host) > HOST_BYTES_MAX) {
		snprintf(why, why_size, "the host name is too long");
		return NULL;
	}
	if (at->tls && !(trust = trust_get(u, at->ca_pem, why, why_size)))
		return NULL;
	t = find(u, at, trust);
	if (t) {
		trust_put(u, trust);	/* the target holds it already */
	} else if (!(t = target_new(u, at, trust))) {
		snprintf(why, why_size, "out of memory");
		trust_put(u, trust);
		return NULL;
	}
	t->users++;
	target_hold(t);
	return t;
}

void
target_hold(struct target *t)
{
	t->refs++;
}

void
target_release(struct target *t)
{
	struct upstream *u = t->upstream;

	if (--t->refs > 0)
		return;
	link_remove(&t->link);
	trust_put(u, t->trust);
	free(t);
	upstream_release(u);
}

void
target_put(struct target *t)
{
	if (!t)
		return;
	CHECK(t->users > 0);
	if (--t->users == 0)
		pool_close(t);
	target_release(t);
}
