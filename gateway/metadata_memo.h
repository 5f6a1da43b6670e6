/*
 * gateway/metadata_memo.h -- what a metadata header came to, the last times.
 *
 * Clients send the same x-portkey-metadata with every request. Parsing it,
 * merging the key's own over it and writing the result as JSON is remembered
 * by key and text, so that it is done once for a header and not for a request.
 * A worker's own; a table of fixed size, where a newer header takes the place
 * of an older one.
 */
#ifndef WEIR_GATEWAY_METADATA_MEMO_H
#define WEIR_GATEWAY_METADATA_MEMO_H

#include <stdint.h>

#include "shm/base/slice.h"

struct metadata_memo;

struct metadata_memo *metadata_memo_new(void);
	/* NULL without memory. */
void metadata_memo_free(struct metadata_memo *m);
struct slice metadata_memo_get(struct metadata_memo *m, uint64_t key_serial, uint64_t settings_version,
    struct slice header);
	/* The merged JSON, valid until the next metadata_memo_put(); none: not
	 * remembered. */
void metadata_memo_put(struct metadata_memo *m, uint64_t key_serial, uint64_t settings_version,
    struct slice header, struct slice json);
	/* Only what was accepted. A header or result that is too long to be
	 * remembered is not. */

#endif
