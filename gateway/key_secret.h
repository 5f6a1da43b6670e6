/*
 * gateway/key_secret.h -- a key's secret: made, and shown once. And how the
 * commands about keys end.
 */
#ifndef WEIR_GATEWAY_KEY_SECRET_H
#define WEIR_GATEWAY_KEY_SECRET_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"
#include "store/catalog.h"

#define KEY_SECRET_BYTES (sizeof(KEY_SECRET_PREFIX) + 43)	/* base64url of 32 bytes, NUL */
#define KEY_SECRET_HEX_BYTES (2 * KEY_HASH_BYTES + 1)

struct key_secret {
	char text[KEY_SECRET_BYTES];
	char hex[KEY_SECRET_HEX_BYTES];		/* of its SHA-256 */
	uint8_t hash[KEY_HASH_BYTES];
};

bool key_secret_make(struct key_secret *s) MUST_CHECK;
	/* false: the system gave no random bytes; stderr says so. */
bool key_random_hex(uint32_t bytes, char *out) MUST_CHECK;
	/* Two digits a byte and a NUL; at most 32 bytes. */
int key_secret_print(struct slice document, const char *secret, bool as_json, const char *note) MUST_CHECK;
	/* The result of create and rotate on stdout; `note` is a line for people.
	 * The exit status: a secret that nobody saw is a failure. */
int key_failed(const char *command, const char *why);
	/* A line on stderr; exit status 1. */
int key_printed(const char *cure) MUST_CHECK;
	/* Has what was printed arrived? Exit status; `cure` is put behind the sentence. */

#endif
