/*
 * gateway/client.h -- a client's connection: requests in, answers out, in order.
 *
 * One request at a time is served; what a client sends ahead (pipelining)
 * waits, bounded. Deadlines: head, body, idle. A connection whose request was
 * refused before its body had come is not cut: the answer is sent, the rest is
 * read and dropped for a while (a reset would destroy the answer on its way).
 */
#ifndef WEIR_GATEWAY_CLIENT_H
#define WEIR_GATEWAY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/timeline.h"
#include "gateway/worker.h"
#include "upstream/wire/http1.h"
#include "upstream/wire/stream.h"

enum client_state {
	CLIENT_IDLE,		/* between requests */
	CLIENT_HEAD,		/* part of a head has come */
	CLIENT_BODY,		/* head is complete, body is coming */
	CLIENT_SERVING,		/* a request is being answered */
	CLIENT_LINGER,		/* answered and half-closed; input is dropped */
	CLIENT_CLOSED,		/* stream_close() was called */
};

struct client {
	struct stream stream;
	struct worker *worker;
	struct plane *plane;		/* its TLS context; requests take the newest */
	struct http1 http;
	struct request *request;	/* HEAD to SERVING */
	struct timepoint deadline;
	struct buf ahead;		/* pipelined bytes */
	enum client_state state;
	bool tls, paused, gone, feeding;
	uint32_t linger_bytes;
	size_t unrewarded;		/* body bytes since its deadline was moved */
	uint64_t written_seen;		/* progress of a slow reader */
	char address[46];		/* numeric, INET6_ADDRSTRLEN */
	uint8_t address_bytes;
};

void client_accept(struct listener *l);
void client_drain(struct client *c);
	/* The worker is stopping: an idle connection closes now. */
void client_expired(struct client *c);
	/* Its deadline is over. */

/* ---- for request.c ---- */
void client_answered(struct client *c, bool keep_alive);
	/* The request is over and its answer is written (or queued). The
	 * request is freed by the caller before this call. */
void client_abort(struct client *c);
	/* The answer cannot be completed: the connection is reset, so that the
	 * client does not take half an answer for a whole one. */
void client_refuse_early(struct client *c);
	/* The answer was written before the body had come: linger. */

#endif
