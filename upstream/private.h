/*
 * upstream/private.h -- the structs that the files of upstream/ share.
 *
 * Who holds whom: exchanges and connections hold their target, a target holds
 * the upstream. Each goes with the last of its holders, so that nothing
 * depends on the order in which libuv closes handles.
 *
 * A connection belongs to one of three at any time, and that one's callbacks
 * are set on its stream: a race (race.c, until it is open), an exchange
 * (exchange.c), the pool (pool.c). All end in conn_close().
 */
#ifndef WEIR_UPSTREAM_PRIVATE_H
#define WEIR_UPSTREAM_PRIVATE_H

#include "upstream/deadline.h"
#include "upstream/exchange.h"
#include "upstream/wire/resolve.h"
#include "upstream/wire/stream.h"
#include "upstream/wire/tls.h"

#define POOL_IDLE_MAX 512		/* connections a target; more are closed */
#define POOL_IDLE_MS 50000		/* below the 60 s at which most providers close */
#define RACE_STAGGER_MS 250		/* RFC 8305, section 8 */
#define RACE_PARALLEL_MAX 4		/* attempts at a time, for one exchange */
#define ERROR_TEXT_BYTES 384
#define SPARE_EXCHANGES_MAX 256		/* structs kept for the next ones */
#define HOST_BYTES_MAX 255		/* of a name, by the DNS */

struct trust {			/* a client TLS context, shared by targets of one CA */
	struct trust *next;
	uint32_t refs;
	struct tls_context *context;
	size_t ca_n;
	bool system;			/* the system's bundle: ca is empty */
	char ca[];
};

struct upstream {
	uv_loop_t *loop;
	uint32_t refs;
	bool closing;
	struct resolver *resolver;
	struct deadlines deadlines;
	struct link targets;
	struct trust *trusts;
	struct exchange *spare;
	uint32_t spare_count;
	struct upstream_stats stats;
};

struct target {
	struct link link;		/* upstream.targets */
	struct upstream *upstream;
	uint32_t refs;			/* users, exchanges, connections */
	uint32_t users;			/* upstream_target() without target_put() */
	struct trust *trust;		/* NULL: plain */
	struct link idle;		/* the last used first */
	uint32_t idle_count;
	bool (*allows)(const struct sockaddr *address);	/* NULL: all */
	uint16_t port;
	char host[];
};

struct conn {
	struct stream stream;
	struct http1 http;
	struct scratch mem;		/* of the answer's head, if its asker has none */
	struct target *target;
	void *owner;			/* its race or exchange; NULL: idle, or closing */
	struct link link;		/* target.idle */
	uint64_t idle_since_ms;
};

/* ---- target.c, upstream.c ---- */
void target_hold(struct target *t);
void target_release(struct target *t);
void upstream_release(struct upstream *u);
struct trust *trust_get(struct upstream *u, struct slice ca_pem, char *why, size_t why_size);
void trust_put(struct upstream *u, struct trust *t);

/* ---- conn.c ---- */
struct conn *conn_new(struct target *t);
void conn_close(struct conn *c);
void conn_reset(struct conn *c);
	/* Both: the owner hears nothing more; the memory goes by itself. */
void conn_closed(struct stream *s);

/* ---- pool.c ---- */
struct conn *pool_take(struct target *t);
	/* The idle connection that was used last, or NULL. */
void pool_put(struct conn *c);
void pool_expire(struct target *t, uint64_t now_ms);
void pool_close(struct target *t);

/* ---- race.c ---- */
struct race;
typedef void race_done_fn(void *arg, struct conn *c, enum exchange_error e, const char *text);
	/* A connection that is open, or NULL and why. The race is over. */
struct race *race_start(struct target *t, uint32_t connect_ms, race_done_fn *done, void *arg);
	/* NULL only without memory. `done` comes from the loop or the tick. */
void race_cancel(struct race *r);

/* ---- exchange.c ---- */
void exchange_free_spares(struct upstream *u);

#endif
