/*
 * upstream/pool.c -- idle connections of a target, the last used on top.
 *
 * An idle connection goes on being read: an end is noticed when it comes, not
 * when the next request fails, and it costs no system call to begin and end
 * reading around each request. TLS session tickets that arrive meanwhile are
 * taken by the TLS layer; bytes of HTTP that nobody asked for close it.
 */
#include "upstream/private.h"

static void
leave(struct conn *c)
{
	link_remove(&c->link);
	c->target->idle_count--;
	c->target->upstream->stats.idle--;
}

static void
on_idle_data(struct stream *s, const char *p, size_t n)
{
	struct conn *c = s->owner;

	(void)p, (void)n;
	leave(c);
	conn_close(c);
}

static void
on_idle_end(struct stream *s, int error, const char *text)
{
	struct conn *c = s->owner;

	(void)error, (void)text;
	leave(c);
	conn_close(c);
}

static void
on_idle_event(struct stream *s)
{
	(void)s;	/* it is open, and nothing is queued */
}

static const struct stream_callbacks idle_callbacks = {
	.on_open = on_idle_event, .on_data = on_idle_data, .on_end = on_idle_end, .on_drain = on_idle_event,
	.on_closed = conn_closed,
};

struct conn *
pool_take(struct target *t)
{
	if (t->idle.next == &t->idle)
		return NULL;
	struct conn *c = CONTAINER_OF(t->idle.next, struct conn, link);
	leave(c);
	return c;
}

void
pool_put(struct conn *c)
{
	struct target *t = c->target;

	if (t->upstream->closing || t->users == 0) {
		conn_close(c);
		return;
	}
	if (t->idle_count >= POOL_IDLE_MAX) {
		struct conn *oldest = CONTAINER_OF(t->idle.prev, struct conn, link);
		leave(oldest);
		conn_close(oldest);
	}
	scratch_reset(&c->mem);
	c->owner = NULL;
	c->stream.cb = &idle_callbacks;
	c->stream.owner = c;
	c->idle_since_ms = uv_now(t->upstream->loop);
	link_add(&t->idle, &c->link);
	t->idle_count++;
	t->upstream->stats.idle++;
	stream_resume(&c->stream);
}

static void
close_from(struct target *t, uint64_t before_ms)
{
	while (t->idle.prev != &t->idle) {
		struct conn *c = CONTAINER_OF(t->idle.prev, struct conn, link);

		if (c->idle_since_ms > before_ms)
			break;
		leave(c);
		conn_close(c);
	}
}

void
pool_expire(struct target *t, uint64_t now_ms)
{
	if (now_ms >= POOL_IDLE_MS)
		close_from(t, now_ms - POOL_IDLE_MS);
}

void
pool_close(struct target *t)
{
	close_from(t, UINT64_MAX);
}
