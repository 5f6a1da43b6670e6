/*
 * store/record.h -- what weir remembers of one request, and its encoding.
 *
 * The one place that knows a record's bytes: workers write them into the
 * arena, the keeper stores them, `weir logs` and the admin read them. A record
 * is a fixed part (record_fixed, little-endian as the machine's, versioned)
 * and strings, each with a 16-bit length, in the order of RECORD_STRINGS.
 * Strings that would not fit into RECORD_BYTES_MAX are cut and a flag says so.
 * Pure: no I/O, no allocation.
 */
#ifndef WEIR_STORE_RECORD_H
#define WEIR_STORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define RECORD_VERSION 3	/* 2, without what stands behind response_bytes and metadata, is still read */

/* Token classes; the order is that of struct metered.tokens and of metrics. */
enum token_class {
	TOKENS_INPUT,		/* uncached input */
	TOKENS_OUTPUT,		/* thinking included */
	TOKENS_CACHE_WRITE_5M,
	TOKENS_CACHE_WRITE_1H,
	TOKENS_CACHE_READ,
	TOKENS_WEB_SEARCHES,	/* requests, not tokens */
	TOKENS_CLASSES,		/* at most 8 */
};

/* How the request ended: X(enum suffix, name in logs and metrics). */
#define RECORD_OUTCOMES(X) \
	X(OK, "ok") \
	X(REFUSED, "refused")			/* by a limit or a rule of ours */ \
	X(PROVIDER_ERROR, "provider_error")	/* the provider answered >= 400, or an error event */ \
	X(UPSTREAM_FAILED, "upstream_failed")	/* no connection, time-out, broken protocol */ \
	X(CLIENT_GONE, "client_gone")		/* left before the end */ \
	X(WORKER_DIED, "worker_died")		/* settled by the master */ \
	X(INVALID, "invalid")			/* the client's mistake, 4xx of ours */

enum record_outcome {
#define X(name, text) OUTCOME_##name,
	RECORD_OUTCOMES(X)
#undef X
	OUTCOME_COUNT
};

/* X(enum suffix, JSON name, text) */
#define RECORD_FLAGS(X) \
	X(STREAM, "stream")			/* the answer was an event stream */ \
	X(ESTIMATED, "estimated")		/* cost or tokens are an estimate */ \
	X(PARTIAL, "partial")			/* the answer broke off; billed as far as known */ \
	X(UNPRICED, "unpriced")			/* no price for the model: cost is 0 and unknown */ \
	X(TRUNCATED, "truncated")		/* strings were cut to fit */ \
	X(MODEL_REMAPPED, "model_remapped")	/* another model than asked for went upstream */ \
	X(CLAMPED, "clamped")			/* max_tokens was lowered to what a budget pays */ \
	X(COUNTED, "counted")			/* the provider was asked for the prompt's exact size */ \
	X(WAITED, "waited")			/* for room in a budget */

enum record_flag_bit {
#define X(name, text) RECORD_BIT_##name,
	RECORD_FLAGS(X)
#undef X
	RECORD_BIT_COUNT
};
#define RECORD_FLAG(name) (1u << RECORD_BIT_##name)

struct record_fixed {
	uint16_t version;
	uint16_t status;	/* HTTP status that the client got; 0: none */
	uint8_t route;		/* enum route, gateway/routes.h */
	uint8_t outcome;
	uint8_t attempts;	/* requests sent upstream, over all targets */
	uint8_t cache;		/* enum record_cache */
	uint32_t flags;
	int32_t retries;	/* at the last target; -1: it failed all the same */
	int64_t start_wall_ns;
	int64_t total_ns;	/* first byte in to the end of the answer, which is then written */
	int64_t upstream_ns;	/* sent to last byte of the answer; 0: not sent */
	int64_t first_byte_ns;	/* sent to first byte of the answer */
	int64_t overhead_ns;
	int64_t tokens[8];	/* enum token_class */
	int64_t cost_nusd;
	int64_t held_nusd;	/* what had been reserved */
	int64_t asked_tokens;	/* max_tokens of the request, or the model's ceiling */
	int64_t granted_tokens;	/* ... that went upstream; less if clamped */
	int64_t wait_ns;	/* for room in a budget */
	int64_t request_bytes, response_bytes;	/* bodies */
	int64_t saved_nusd;	/* an answer from the cache: what it had cost when it was fetched */
};
_Static_assert(sizeof(struct record_fixed) == 184, "raise RECORD_VERSION");

/* What the cache had to do with it: X(enum suffix, Portkey's word). */
#define RECORD_CACHES(X) \
	X(DISABLED, "DISABLED")	/* nothing asks for it */ \
	X(MISS, "MISS") \
	X(HIT, "HIT") \
	X(REFRESH, "REFRESH")		/* x-portkey-cache-force-refresh */

enum record_cache {
#define X(name, text) CACHE_##name,
	RECORD_CACHES(X)
#undef X
	CACHE_COUNT
};

/* X(member); new ones stand at the end: older records lack them. */
#define RECORD_STRINGS(X) \
	X(request_id)		/* req_..., ours, in the response header */ \
	X(route_name)		/* "messages", "count_tokens", ... */ \
	X(key_id)		/* stable over rotation */ \
	X(key)			/* its slug */ \
	X(workspace) \
	X(config)		/* slug, or "inline" */ \
	X(provider)		/* slug of the account */ \
	X(model_requested) \
	X(model)		/* that went upstream */ \
	X(provider_request_id)	/* the provider's request-id */ \
	X(session_id)		/* x-claude-code-session-id */ \
	X(trace_id) \
	X(client)		/* from user-agent: "claude-desktop", "claude-code", "anthropic-sdk-js", ... */ \
	X(client_version) \
	X(remote_address) \
	X(error_type)		/* envelope type, for status >= 400 or an error event */ \
	X(error_message)	/* ours only; a provider's text is not kept here */ \
	X(limit)		/* which limit refused: "key rpm", "key monthly budget" */ \
	X(price)		/* row used: "claude-opus-5-5@2026-09-22" */ \
	X(metadata)		/* merged, compact JSON object */ \
	X(config_version)	/* eight hex digits */ \
	X(target)		/* whose answer this is: "config.targets[0]" */ \
	X(tries)		/* all that were made, if it was more than one or one failed: record_try_add() */

struct record {
	struct record_fixed fixed;
#define X(name) struct slice name;
	RECORD_STRINGS(X)
#undef X
};

/* One request to a provider, and how it ended. */
struct record_try {
	uint16_t status;	/* the provider's; 0: it did not answer */
	uint32_t ms;		/* from the beginning to its end */
	int64_t cost_nusd;
	struct slice target, provider, model;
	struct slice error;	/* envelope type, or what went wrong; "" if nothing did */
};
#define RECORD_TRIES_BYTES 1024		/* of all tries of a request: a dozen; what does not fit is counted by `attempts` only */
uint32_t record_try_add(char *at, uint32_t room, const struct record_try *t);
	/* Appends one to the bytes of `tries`. Texts longer than 255 bytes are cut.
	 * The bytes written; 0: there is no room. */
bool record_try_read(struct slice *rest, struct record_try *out) MUST_CHECK;
	/* Takes the first off the front. false: there is none that is whole. */

uint32_t record_encode(const struct record *r, char *out, uint32_t size);
	/* Bytes written, never more than size; size >= sizeof(record_fixed) +
	 * 2 bytes a string. The longest strings are cut first (metadata is cut
	 * to "{}": half an object is worse than none; so are tries). */
bool record_decode(struct slice bytes, struct record *out) MUST_CHECK;
	/* Slices point into `bytes`. false: not a record of a version we know. */
void record_fixed_read(const char *bytes, struct record_fixed *out);
void record_fixed_write(char *bytes, const struct record_fixed *in);
	/* In place, for the master that completes a dead worker's record. */

struct buf;
void record_to_json(const struct record *r, uint64_t id, struct buf *out);
	/*
	 * One line, without a line feed, always valid UTF-8. Members: id (a
	 * decimal string), time (of the start, RFC 3339), status, outcome,
	 * flags (array of names), route, the other strings under their own
	 * names ("" if absent), attempts, retries, cache_status, *_ns,
	 * asked_tokens, granted_tokens, tokens (object by class), cost_nusd
	 * (integer nano-dollars), cost_usd (decimal dollars, "0.038000000"),
	 * held_nusd, saved_nusd, *_bytes, tries (array), metadata (object).
	 */
#define RECORD_USD_BYTES 24	/* a sign, ten digits, a point, nine digits, NUL */
void record_format_usd(int64_t nusd, char *out, size_t size);
	/* Decimal dollars with nine digits; size >= RECORD_USD_BYTES. */
const char *record_outcome_name(enum record_outcome o);
const char *record_cache_name(enum record_cache c);
const char *token_class_name(enum token_class c);
	/* "input", "output", "cache_write_5m", "cache_write_1h", "cache_read", "web_searches" */

#endif
