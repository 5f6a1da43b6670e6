/*
 * policy/metadata.h -- x-portkey-metadata: attribution and routing, never authority.
 *
 * A JSON object; strings, numbers and booleans are kept as text, null is left
 * out, nested objects and arrays become their JSON text. Values over 128
 * characters are refused (lenient: cut). Highest first: workspace default, key
 * default, request header: a key's own metadata cannot be overruled by its
 * user.
 */
#ifndef WEIR_POLICY_METADATA_H
#define WEIR_POLICY_METADATA_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"
#include "shm/limits.h"

struct scratch;

struct metadata {
	uint32_t count;
	struct metadata_pair { struct slice key, value; } pair[METADATA_PAIRS_MAX];
		/* unescaped UTF-8; without escapes, a part of the header */
};

struct metadata_error {
	size_t offset;		/* in the header's text */
	char what[160];		/* "value of \"team\" is longer than 128 characters" */
};

bool metadata_parse(struct slice header, bool lenient, struct scratch *mem,
    struct metadata *out, struct metadata_error *why) MUST_CHECK;
	/* lenient: what is malformed is left out, as Portkey does; never false
	 * except without memory. A duplicate name: the last one wins. */
bool metadata_merge(struct metadata *into, const struct metadata *higher) MUST_CHECK;
	/* Pairs of `higher` win. false: over METADATA_PAIRS_MAX. */
const struct slice *metadata_get(const struct metadata *m, struct slice key);
struct slice metadata_json(const struct metadata *m, struct scratch *mem);
	/* Compact JSON object in insertion order; none without memory or over
	 * METADATA_BYTES_MAX. */

#endif
