/* upstream/upstream.c -- what a worker has of upstream/: see exchange.h. */
#include <stdlib.h>

#include "upstream/private.h"

struct upstream *
upstream_new(uv_loop_t *loop)
{
	struct upstream *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->resolver = resolver_new(loop);
	if (!u->resolver) {
		free(u);
		return NULL;
	}
	u->loop = loop;
	u->refs = 1;
	link_init(&u->targets);
	deadlines_init(&u->deadlines, uv_now(loop));
	return u;
}

void
upstream_release(struct upstream *u)
{
	if (--u->refs == 0)
		free(u);
}

static void
for_each_target(struct upstream *u, void (*f)(struct target *t, uint64_t now_ms), uint64_t now_ms)
{
	for (struct link *l = u->targets.next, *next; l != &u->targets; l = next) {
		next = l->next;
		f(CONTAINER_OF(l, struct target, link), now_ms);
	}
}

static void
close_idle(struct target *t, uint64_t now_ms)
{
	(void)now_ms;
	pool_close(t);
}

void
upstream_free(struct upstream *u)
{
	if (!u)
		return;
	CHECK(!u->closing && u->stats.busy == 0);
	u->closing = true;
	for_each_target(u, close_idle, 0);
	resolver_free(u->resolver);
	exchange_free_spares(u);
	upstream_release(u);
}

void
upstream_tick(struct upstream *u, uint64_t now_ms)
{
	deadlines_sweep(&u->deadlines, now_ms);
	for_each_target(u, pool_expire, now_ms);
}

struct upstream_stats
upstream_stats(const struct upstream *u)
{
	return u->stats;
}
