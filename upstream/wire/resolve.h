/*
 * upstream/wire/resolve.h -- names to addresses, with a memory.
 *
 * getaddrinfo() in libuv's thread pool, one look-up a name at a time, however
 * many wait for it. Answers are kept RESOLVE_FRESH_MS; one that is older still
 * serves, up to RESOLVE_STALE_MS, when a new look-up fails: a resolver that is
 * down does not take the providers with it.
 */
#ifndef WEIR_UPSTREAM_WIRE_RESOLVE_H
#define WEIR_UPSTREAM_WIRE_RESOLVE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define RESOLVE_ADDRESSES_MAX 16	/* of one name; big services give 8 and 8 */
#define RESOLVE_NAMES_MAX 64		/* remembered; a worker has some dozen providers */
#define RESOLVE_FRESH_MS 30000
#define RESOLVE_STALE_MS 3600000

struct resolver;
struct resolve_entry;

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct addresses {		/* ordered for racing: the families take turns */
	uint32_t count;
	union address list[RESOLVE_ADDRESSES_MAX];
};

struct resolve_query {		/* embedded by who asks */
	struct resolve_query *next;
	struct resolve_entry *entry;	/* waiting for it; NULL: not waiting */
	uint16_t port;
	void (*done)(struct resolve_query *q, int error);
		/* q->found, or a UV_E* code. Not after resolve_cancel(). */
	struct addresses found;
};

enum resolve_result { RESOLVE_FOUND, RESOLVE_LATER, RESOLVE_NO_MEMORY };

struct resolver *resolver_new(uv_loop_t *loop);
void resolver_free(struct resolver *r);
	/* Queries must be over or cancelled; look-ups that run end by themselves,
	 * in the loop. */
enum resolve_result resolve_start(struct resolver *r, struct resolve_query *q, const char *host, uint16_t port)
	__attribute__((warn_unused_result));
	/* FOUND at once for a numeric address or a fresh answer; after LATER
	 * `done` is called. */
void resolve_cancel(struct resolve_query *q);

#endif
