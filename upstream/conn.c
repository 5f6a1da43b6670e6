/*
 * upstream/conn.c -- a connection to a target: made, and closed.
 *
 * The memory lives until libuv has closed the handle, whoever had it last.
 */
#include <stdlib.h>

#include "shm/limits.h"
#include "upstream/private.h"

struct conn *
conn_new(struct target *t)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->target = t;
	target_hold(t);
	link_init(&c->link);
	http1_init(&c->http, true, HTTP_UPSTREAM_HEAD_BYTES_MAX);
	/* A head, the places of its headers, and some interim answers before it. */
	scratch_init(&c->mem, 4 * HTTP_UPSTREAM_HEAD_BYTES_MAX);
	return c;
}

void
conn_closed(struct stream *s)
{
	struct conn *c = CONTAINER_OF(s, struct conn, stream);

	http1_free(&c->http);
	scratch_reset(&c->mem);
	target_release(c->target);
	free(c);
}

void
conn_close(struct conn *c)
{
	c->owner = NULL;
	stream_close(&c->stream);
}

void
conn_reset(struct conn *c)
{
	c->owner = NULL;
	stream_reset(&c->stream);
}
