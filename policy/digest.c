/*
 * policy/digest.c -- see digest.h. mbedTLS 2.28 calls by other names what 3.x
 * has; both fail only for arguments that are wrong.
 */
#include "policy/digest.h"

#include <mbedtls/sha256.h>
#include <mbedtls/version.h>

#include "shm/base/check.h"

#if MBEDTLS_VERSION_NUMBER < 0x03000000
#define sha256_starts mbedtls_sha256_starts_ret
#define sha256_update mbedtls_sha256_update_ret
#define sha256_finish mbedtls_sha256_finish_ret
#define sha256_whole mbedtls_sha256_ret
#else
#define sha256_starts mbedtls_sha256_starts
#define sha256_update mbedtls_sha256_update
#define sha256_finish mbedtls_sha256_finish
#define sha256_whole mbedtls_sha256
#endif

static const unsigned char *
bytes_of(struct slice s)
{
	return (const unsigned char *)(s.n > 0 ? s.p : "");
}

void
digest_sha256(struct slice s, uint8_t out[DIGEST_BYTES])
{
	CHECK(sha256_whole(bytes_of(s), s.n, out, 0) == 0);
}

void
digest_sha256_parts(const struct slice *parts, uint32_t n, uint8_t out[DIGEST_BYTES])
{
	mbedtls_sha256_context context;

	CHECK(n <= DIGEST_PARTS_MAX);
	mbedtls_sha256_init(&context);
	CHECK(sha256_starts(&context, 0) == 0);
	for (uint32_t i = 0; i < n; i++) {
		uint8_t length[8];

		for (uint32_t j = 0; j < sizeof(length); j++)
			length[j] = (uint8_t)((uint64_t)parts[i].n >> 8 * j);
		CHECK(sha256_update(&context, length, sizeof(length)) == 0);
		CHECK(sha256_update(&context, bytes_of(parts[i]), parts[i].n) == 0);
	}
	CHECK(sha256_finish(&context, out) == 0);
	mbedtls_sha256_free(&context);
}
