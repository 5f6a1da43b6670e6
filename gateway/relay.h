/*
 * gateway/relay.h -- bytes of an answer on their way to the client.
 *
 * Bytes are the provider's; only the framing is ours. What one read of the
 * provider's socket brought is gathered as spans and leaves in one write. An
 * event stream passes at the borders of its events: the beginning of an event
 * that has not come whole is held back (up to SSE_TAIL_BYTES_MAX), so that a
 * ping or an error event can be put in at any time and a broken connection
 * never leaves half an event behind.
 *
 * If another model went upstream than the client asked for, the answer's model
 * is put back to the client's name: in message_start, or in the plain answer.
 */
#ifndef WEIR_GATEWAY_RELAY_H
#define WEIR_GATEWAY_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

struct http1_head;
struct request;

bool relay_open(struct request *r) MUST_CHECK;
	/* Before anything else, once or more. false: no memory. */
bool relay_head(struct request *r, const struct http1_head *head, int64_t length) MUST_CHECK;
	/* The client's head, from the provider's; length -1: not known. It leaves
	 * with the first flush. false: no memory. */
void relay_span(struct request *r, struct slice span);
	/* Bytes that stay where they are until the next flush. */
void relay_events(struct request *r, struct slice span);
	/* Of an event stream: up to the last event that is complete. */
void relay_flush(struct request *r, bool last);
	/* What was gathered, in one write. `last`: the answer ends with it; what it
	 * cost is settled ahead of that. */
void relay_drop(struct request *r);
	/* What was gathered, and has not left because the head has not. */
void relay_error_event(struct request *r, const char *type, struct slice message, bool whole);
	/* One `event: error` in the envelope's form, after all that was sent. `whole`:
	 * the answer ends with it, and its connection can be used again. Else the
	 * answer has no end: the connection is to be closed behind it, and whoever
	 * looks at the framing sees that something is missing. (With an end, a client
	 * would send its next request into the closing.) */
struct slice relay_with_model(struct request *r);
	/* The held bytes, with the client's own name for the model. */

#endif
