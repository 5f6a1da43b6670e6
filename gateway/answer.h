/*
 * gateway/answer.h -- an attempt: what is sent to a provider, and what becomes of its answer.
 *
 *	accepted	it is the client's: its head leaves with its first bytes, and
 *			there is no way back
 *	held		its bytes wait: enum hold says for what
 *	failed		the same target is asked again after a pause, or the walk goes
 *			on to the next target, or the failure itself is the answer
 *
 * All attempts end in the record (its tries), in the health of their target, and,
 * with what they cost, in what the request has used.
 */
#ifndef WEIR_GATEWAY_ANSWER_H
#define WEIR_GATEWAY_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/slice.h"
#include "upstream/exchange.h"

struct request;

enum hold {
	HOLD_MODEL = 1,		/* an event stream, until message_start: another model's name is to be put back */
	HOLD_START = 2,		/* an event stream, until its first content: until then another attempt can take its place */
	HOLD_WHOLE = 4,		/* a plain answer: the same, and its length changes */
	HOLD_VERDICT = 8,	/* an answer that another attempt takes the place of, if there is one when it has come */
};

/* How an attempt ended that failed. */
struct attempt_end {
	int status;		/* the provider's, or what stands for it in lists of statuses */
	bool answered;		/* the provider said so itself */
	bool always_retried;	/* whatever the list says: the network failed */
	bool final;		/* nothing else may be tried: the client has some of it, or it is `ours` */
	bool ours;		/* the target was not asked, because it may not be */
	bool in_stream;		/* as an event, behind a 200 */
	int64_t retry_after_ms;	/* a day at the most; -1: it did not say */
	struct slice error;	/* envelope type, or words */
	struct slice body;	/* of an answer that was held; none */
};

void attempt_timer(struct request *r);
	/* A pause is over, a stream's beginning has been held long enough, or an
	 * answer has not come in time. */

#endif
