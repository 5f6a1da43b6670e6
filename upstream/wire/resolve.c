/*
 * upstream/wire/resolve.c -- see resolve.h.
 *
 * The resolver is counted: its owner and each running look-up hold it, since
 * a thread that is in getaddrinfo() cannot be stopped.
 */
#include "upstream/wire/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "shm/base/check.h"

struct resolve_entry {
	struct resolver *resolver;
	struct resolve_entry *next;
	struct resolve_query *waiting;		/* for the look-up that runs */
	struct resolve_query *answering;	/* being called back, one by one */
	uv_getaddrinfo_t req;
	bool running, calling;
	uint64_t fetched_ms;		/* of `known` */
	struct addresses known;
	char host[];
};

struct resolver {
	uv_loop_t *loop;
	uint32_t refs;
	uint32_t count;
	struct resolve_entry *entries;
};

struct resolver *
resolver_new(uv_loop_t *loop)
{
	struct resolver *r = calloc(1, sizeof(*r));

	if (r) {
		r->loop = loop;
		r->refs = 1;
	}
	return r;
}

static void
resolver_put(struct resolver *r)
{
	if (--r->refs > 0)
		return;
	for (struct resolve_entry *e = r->entries, *next; e; e = next) {
		next = e->next;
		free(e);
	}
	free(r);
}

void
resolver_free(struct resolver *r)
{
	for (struct resolve_entry *e = r->entries; e; e = e->next) {
		CHECK(!e->waiting);
		if (e->running)	/* if it has not begun yet, it need not */
			uv_cancel((uv_req_t *)&e->req);
	}
	resolver_put(r);
}

static bool
read_address(const struct sockaddr *from, union address *to)
{
	if (from->sa_family == AF_INET)
		memcpy(&to->v4, from, sizeof(to->v4));
	else if (from->sa_family == AF_INET6)
		memcpy(&to->v6, from, sizeof(to->v6));
	else
		return false;
	return true;
}

/*
 * RFC 8305, section 4: the system has sorted the addresses by preference; we
 * keep that order within a family and let the families take turns, beginning
 * with the one that the system put first.
 */
static void
read_list(const struct addrinfo *list, struct addresses *out)
{
	const struct addrinfo *at[2] = { list, list };
	int family[2] = { list ? list->ai_family : AF_INET6, AF_INET6 };
	int turn = 0;

	if (family[0] == AF_INET6)
		family[1] = AF_INET;
	out->count = 0;
	while (out->count < RESOLVE_ADDRESSES_MAX && (at[0] || at[1])) {
		while (at[turn] && at[turn]->ai_family != family[turn])
			at[turn] = at[turn]->ai_next;
		if (at[turn]) {
			if (read_address(at[turn]->ai_addr, &out->list[out->count]))
				out->count++;
			at[turn] = at[turn]->ai_next;
		}
		turn = !turn;
	}
}

static void
answer(struct resolve_query *q, const struct addresses *known)
{
	q->found = *known;
	for (uint32_t i = 0; i < q->found.count; i++) {
		if (q->found.list[i].any.sa_family == AF_INET)
			q->found.list[i].v4.sin_port = htons(q->port);
		else
			q->found.list[i].v6.sin6_port = htons(q->port);
	}
}

static void
on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct resolve_entry *e = req->data;
	uint64_t now_ms = uv_now(e->resolver->loop);
	struct addresses fresh = { .count = 0 };

	e->running = false;
	if (status == 0)
		read_list(list, &fresh);
	uv_freeaddrinfo(list);
	if (status == 0 && fresh.count == 0)
		status = UV_EAI_NODATA;
	if (status == 0) {
		e->known = fresh;
		e->fetched_ms = now_ms;
	} else if (e->known.count > 0 && now_ms - e->fetched_ms <= RESOLVE_STALE_MS) {
		status = 0;
	}

	/* Only those who wait now: whoever asks in a callback starts anew. */
	e->answering = e->waiting;
	e->waiting = NULL;
	e->calling = true;
	for (struct resolve_query *q; (q = e->answering) != NULL;) {
		e->answering = q->next;
		q->entry = NULL;
		if (status == 0)
			answer(q, &e->known);
		q->done(q, status);
	}
	e->calling = false;
	resolver_put(e->resolver);
}

static bool
start_lookup(struct resolve_entry *e)
{
	static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC };

	e->req.data = e;
	if (uv_getaddrinfo(e->resolver->loop, &e->req, on_resolved, e->host, NULL, &hints) != 0)
		return false;
	e->running = true;
	e->resolver->refs++;
	return true;
}

/* Makes room for one more name: the one whose answer is the oldest goes. */
static void
forget_one(struct resolver *r)
{
	struct resolve_entry **oldest = NULL;

	for (struct resolve_entry **at = &r->entries; *at; at = &(*at)->next)
		if (!(*at)->running && !(*at)->calling && (!oldest || (*at)->fetched_ms < (*oldest)->fetched_ms))
			oldest = at;
	if (oldest) {
		struct resolve_entry *e = *oldest;
		*oldest = e->next;
		free(e);
		r->count--;
	}
}

static struct resolve_entry *
entry_of(struct resolver *r, const char *host)
{
	struct resolve_entry *e;

	for (e = r->entries; e; e = e->next)
		if (strcmp(e->host, host) == 0)
			return e;
	if (r->count >= RESOLVE_NAMES_MAX)
		forget_one(r);
	e = calloc(1, sizeof(*e) + strlen(host) + 1);
	if (!e)
		return NULL;
	memcpy(e->host, host, strlen(host) + 1);
	e->resolver = r;
	e->next = r->entries;
	r->entries = e;
	r->count++;
	return e;
}

enum resolve_result
resolve_start(struct resolver *r, struct resolve_query *q, const char *host, uint16_t port)
{
	struct addresses numeric = { .count = 1 };
	struct resolve_entry *e;

	q->port = port;
	q->entry = NULL;
	if (uv_ip4_addr(host, port, &numeric.list[0].v4) == 0 || uv_ip6_addr(host, port, &numeric.list[0].v6) == 0) {
		answer(q, &numeric);
		return RESOLVE_FOUND;
	}
	if (!(e = entry_of(r, host)))
		return RESOLVE_NO_MEMORY;
	if (e->known.count > 0 && uv_now(r->loop) - e->fetched_ms < RESOLVE_FRESH_MS) {
		answer(q, &e->known);
		return RESOLVE_FOUND;
	}
	if (!e->running && !start_lookup(e))
		return RESOLVE_NO_MEMORY;
	q->entry = e;
	q->next = e->waiting;
	e->waiting = q;
	return RESOLVE_LATER;
}

static bool
unlink_query(struct resolve_query **at, struct resolve_query *q)
{
	for (; *at; at = &(*at)->next)
		if (*at == q) {
			*at = q->next;
			return true;
		}
	return false;
}

void
resolve_cancel(struct resolve_query *q)
{
	if (q->entry)
		CHECK(unlink_query(&q->entry->waiting, q) || unlink_query(&q->entry->answering, q));
	q->entry = NULL;
}
