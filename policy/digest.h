/*
 * policy/digest.h -- SHA-256: of secrets, and for ids that clients cannot steer.
 */
#ifndef WEIR_POLICY_DIGEST_H
#define WEIR_POLICY_DIGEST_H

#include <stdint.h>

#include "shm/base/slice.h"

#define DIGEST_BYTES 32
#define DIGEST_PARTS_MAX 32

void digest_sha256(struct slice s, uint8_t out[DIGEST_BYTES]);
void digest_sha256_parts(const struct slice *parts, uint32_t n, uint8_t out[DIGEST_BYTES]);
	/* Of up to DIGEST_PARTS_MAX parts, each with its length (64 bits, little
	 * endian) before it: no two lists of parts have the same bytes. */

#endif
