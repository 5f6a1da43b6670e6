/*
 * upstream/exchange.h -- one request to one provider endpoint.
 *
 * A *target* is an endpoint (host, port, TLS, CA) with its pool of idle
 * connections, its DNS cache and its saved TLS sessions, one a worker. An
 * *exchange* takes a connection (idle or new: all addresses raced as RFC 8305
 * says), sends head and body, and reports the answer as it comes. Nothing is
 * buffered here but what the head needs. Time-outs: connect, first byte, idle.
 *
 * An idle connection that turns out to have been dead (not one byte of the
 * request was acknowledged) is replaced by a fresh one, once, without telling
 * the caller. A request that the provider may have got is never sent twice.
 */
#ifndef WEIR_UPSTREAM_EXCHANGE_H
#define WEIR_UPSTREAM_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "shm/base/slice.h"
#include "upstream/wire/http1.h"

struct upstream;	/* one a worker: loop, timers, targets */
struct target;
struct exchange;

enum exchange_error {
	EXCHANGE_OK,
	EXCHANGE_RESOLVE,	/* the name has no address */
	EXCHANGE_FORBIDDEN,	/* it has only addresses that may not be asked: struct target_at */
	EXCHANGE_CONNECT,	/* refused, unreachable, or connect time-out */
	EXCHANGE_TLS,		/* handshake or certificate */
	EXCHANGE_TIMEOUT,	/* no first byte in time */
	EXCHANGE_IDLE,		/* silence in the middle of an answer */
	EXCHANGE_RESET,		/* connection lost before the end of the answer */
	EXCHANGE_PROTOCOL,	/* not HTTP, or ambiguous, or over a limit */
};

struct exchange_callbacks {
	void (*on_sent)(void *arg);
		/* The request's first byte is about to leave (once, also when a
		 * dead connection was replaced): the provider may bill it. */
	void (*on_head)(void *arg, const struct http1_head *head);
		/* Slices live until on_done or on_error has returned. 1xx are
		 * swallowed. */
	void (*on_body)(void *arg, const char *p, size_t n);
		/* The bytes stay where they are until on_read_end, on_done or
		 * on_error, whichever comes first, has returned. */
	void (*on_read_end)(void *arg);
		/* Head and spans of one read have been given: a good moment to write
		 * what was gathered to the client in one call. Not called where
		 * on_done or on_error follows in the same read. */
	void (*on_done)(void *arg);
		/* The whole answer has come. The exchange is gone after it. */
	void (*on_error)(void *arg, enum exchange_error e, const char *text);
		/* `text` names host and port and says what happened. The exchange
		 * is gone after it. */
};

struct exchange_request {
	const struct slice *pieces;	/* head and body, in order */
	size_t pieces_count;		/* all must live until on_done, on_error or cancel */
	bool head_request;
	struct scratch *mem;		/* gets the answer's head, and outlives the exchange;
					 * NULL: memory of the connection is used */
	uint32_t connect_ms;		/* name, connection and TLS handshake together */
	uint32_t first_byte_ms;		/* from the moment the request is written */
	uint32_t idle_ms;		/* between reads; also while a request is being written */
					/* 0: no limit */
};

struct upstream *upstream_new(uv_loop_t *loop);
void upstream_free(struct upstream *u);
	/* Closes idle connections; exchanges must be over. The loop must run on
	 * until its handles are closed, and the memory goes with the last target. */
void upstream_tick(struct upstream *u, uint64_t now_ms);
	/* From the worker's timer, about ten times a second, with uv_now():
	 * time-outs, idle connections past their age. */

/* Where a target is. */
struct target_at {
	const char *host;	/* a name, or an address without brackets */
	uint16_t port;
	bool tls;
	struct slice ca_pem;	/* none: the system's */
	bool (*allows)(const struct sockaddr *address);
		/* Of a host that somebody else has chosen: each address is asked about
		 * before it is connected to, so a name cannot lead to where it must
		 * not. NULL: all. */
};

struct target *upstream_target(struct upstream *u, const struct target_at *at, char *why, size_t why_size);
	/* The same endpoint gives the same target (counted); NULL: bad CA. */
void target_put(struct target *t);

struct exchange *exchange_start(struct target *t, const struct exchange_request *r,
    const struct exchange_callbacks *cb, void *arg);
	/* NULL only without memory. Of the callbacks only on_sent may come
	 * inside this call. */
void exchange_cancel(struct exchange *x);
	/* No callback follows. The connection is closed: the provider sees it. */
void exchange_pause(struct exchange *x);
	/* Back-pressure from the client: the connection is not read any more;
	 * spans of what has been read may still come. The idle time stands still. */
void exchange_resume(struct exchange *x);
bool exchange_sent(const struct exchange *x);
	/* All of the request is with the kernel: once an answer's head has come
	 * as well, its pieces are not read again. */
bool exchange_reused(const struct exchange *x);
	/* It runs on a connection that had served another one. */

struct upstream_stats { uint64_t connects, reuses, errors; uint32_t idle, busy; };
struct upstream_stats upstream_stats(const struct upstream *u);

#endif
