/*
 * policy/usage.h -- what an Anthropic answer used: the tap of the stream.
 *
 * Fed with the bytes of the answer's body as they pass, in any pieces; it
 * keeps what it needs and delays nothing. For an event stream it follows the
 * events (LF, CR, CRLF, comments, several data lines, a BOM, an event without
 * an `event:` line is known by data.type), for a plain answer the top-level
 * members `model`, `usage`, `stop_reason`, `error`.
 *
 * Rules: usage of message_start, then each message_delta overwrites what it
 * has and is not null; nothing is ever added up. If usage.iterations is a
 * non-empty array, cost is the sum over its entries, each at its own model.
 */
#ifndef WEIR_POLICY_USAGE_H
#define WEIR_POLICY_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/slice.h"
#include "store/record.h"

#define USAGE_ITERATIONS_MAX 32
#define USAGE_MODEL_BYTES 96
#define USAGE_TOKENS_MAX INT64_C(1000000000000)	/* a count above it is a lie and is cut to it: sums cannot overflow */

struct usage_part {		/* one priced part of an answer */
	char model[USAGE_MODEL_BYTES];	/* "" = the answer's */
	int64_t tokens[TOKENS_CLASSES];
};

struct usage {
	bool known;		/* some usage was reported */
	bool complete;		/* final: message_stop, or a message_delta with a stop_reason and
				 * then the end, or a whole plain answer */
	bool batch;		/* service_tier "batch" */
	bool fast;		/* speed "fast" */
	bool geo_us;		/* inference_geo "us" */
	bool unlisted;		/* service_tier "priority" or a redeemed fallback credit: the bill
				 * follows a contract, list prices are an estimate */
	int64_t tokens[TOKENS_CLASSES];	/* top level */
	char model[USAGE_MODEL_BYTES];	/* that the answer names */
	uint32_t iterations_count;	/* 0: price `tokens` */
	bool iterations_overflow;	/* more than fit: cost is a lower bound */
	struct usage_part iterations[USAGE_ITERATIONS_MAX];
};

enum usage_tap_kind { USAGE_SSE, USAGE_JSON };

struct usage_tap;		/* about 5 KiB (the iterations) plus what an event needs */

struct usage_tap *usage_tap_new(enum usage_tap_kind kind);
	/* NULL without memory. One a request in flight; pooled per process. */
void usage_tap_free(struct usage_tap *t);
void usage_tap_feed(struct usage_tap *t, const char *p, size_t n);
void usage_tap_end(struct usage_tap *t);
	/* End of the body: a last event without its blank line still counts. */
const struct usage *usage_tap_usage(const struct usage_tap *t);
uint64_t usage_tap_changes(const struct usage_tap *t);
	/* Rises whenever usage changed: the caller then updates the arena. */
bool usage_tap_at_boundary(const struct usage_tap *t);
	/* SSE: the bytes so far end with a complete event (or nothing has come):
	 * a ping may be inserted here. */
uint64_t usage_tap_events(const struct usage_tap *t);
	/* Complete events seen. */
bool usage_tap_message_started(const struct usage_tap *t);
bool usage_tap_content_begun(const struct usage_tap *t);
	/* SSE: an event has come that is part of the answer itself: content, or
	 * what ends the message. Before it, another attempt's stream could still
	 * take this one's place. */
bool usage_tap_finished(const struct usage_tap *t);
	/* message_stop or an error event was seen; of a plain answer: its end. */
bool usage_tap_error(const struct usage_tap *t, struct slice *type);
	/* An error event, or {"type":"error"} in a plain answer. */
uint64_t usage_tap_content_bytes(const struct usage_tap *t);
	/* Bytes of content_block_delta data so far, without the JSON around the
	 * text: the base of an estimate when a stream breaks off before its
	 * message_delta. */

#endif
