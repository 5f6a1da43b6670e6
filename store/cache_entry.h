/*
 * store/cache_entry.h -- an answer that is kept, and its encoding.
 *
 * A worker encodes it, the keeper stores the bytes as they are, and another
 * worker reads them in place. They are a fixed part (versioned, little-endian as
 * the machine's), strings with a 16-bit length each in the order of
 * CACHE_STRINGS, and then the body as it is to be sent. Nobody trusts them: a
 * worker parses bytes from the network. Pure: no I/O, no allocation.
 */
#ifndef WEIR_STORE_CACHE_ENTRY_H
#define WEIR_STORE_CACHE_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define CACHE_ENTRY_VERSION 1
#define CACHE_ENTRY_BYTES_MAX (UINT64_C(64) << 20)	/* all of it; the settings' bound is below */
#define CACHE_STRING_BYTES_MAX 1024	/* each; model names and ids have some dozens */

/* X(enum suffix) */
#define CACHE_FLAGS(X) \
	X(STREAM)	/* the body is an event stream */

enum cache_flag_bit {
#define X(name) CACHE_BIT_##name,
	CACHE_FLAGS(X)
#undef X
	CACHE_BIT_COUNT
};
#define CACHE_FLAG(name) (1u << CACHE_BIT_##name)

struct cache_fixed {
	uint16_t version;	/* cache_entry_head() sets it, */
	uint16_t status;	/* HTTP's */
	uint32_t flags;
	int64_t created_wall_ns, expires_wall_ns;
	int64_t tokens[8];	/* enum token_class: what the answer used when it was made */
	int64_t cost_nusd;	/* likewise */
	uint64_t body_bytes;	/* and this */
};
_Static_assert(sizeof(struct cache_fixed) == 104, "raise CACHE_ENTRY_VERSION");

/* X(member). They may become header lines: no control characters. */
#define CACHE_STRINGS(X) \
	X(content_type) \
	X(model)		/* that went upstream */ \
	X(provider)		/* slug of the account */ \
	X(provider_request_id)

struct cache_entry {
	struct cache_fixed fixed;
#define X(name) struct slice name;
	CACHE_STRINGS(X)
#undef X
	struct slice body;
};

#define X(name) + 2 + CACHE_STRING_BYTES_MAX
enum { CACHE_HEAD_BYTES_MAX = sizeof(struct cache_fixed) CACHE_STRINGS(X) };
#undef X

uint32_t cache_entry_head(const struct cache_entry *e, char out[CACHE_HEAD_BYTES_MAX]) MUST_CHECK;
	/* All but the body, which follows in the entry's bytes. How many they
	 * are; 0: cache_entry_decode() would not take it. */
bool cache_entry_decode(struct slice bytes, struct cache_entry *out) MUST_CHECK;
	/* Slices point into `bytes`. false: not an entry of this version, or a
	 * part of it that cannot be (a status, a time, a negative count). */

#endif
