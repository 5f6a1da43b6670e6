/*
 * gateway/key_secret.c -- see key_secret.h. A secret leaves this process once,
 * on stdout; only its hash is stored.
 */
#include "gateway/key_secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "policy/json.h"
#include "policy/key.h"

#define SECRET_RANDOM_BYTES 32

static void
hex_write(const uint8_t *bytes, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* RFC 4648 section 5, without padding. */
static void
base64url(const uint8_t *bytes, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t bits = 0;
	int held = 0;

	for (size_t i = 0; i < n; i++) {
		bits = bits << 8 | bytes[i];
		for (held += 8; held >= 6; held -= 6)
			*out++ = digits[bits >> (held - 6) & 63];
	}
	if (held > 0)
		*out++ = digits[bits << (6 - held) & 63];
	*out = '\0';
}

static bool
random_fill(void *p, size_t n)
{
	if (getrandom(p, n, 0) == (ssize_t)n)
		return true;
	fprintf(stderr, "weir: key: no random bytes: %s\n", strerror(errno));
	return false;
}

bool
key_secret_make(struct key_secret *s)
{
	uint8_t bytes[SECRET_RANDOM_BYTES];

	if (!random_fill(bytes, sizeof(bytes)))
		return false;
	memcpy(s->text, KEY_SECRET_PREFIX, sizeof(KEY_SECRET_PREFIX));
	base64url(bytes, sizeof(bytes), s->text + sizeof(KEY_SECRET_PREFIX) - 1);
	explicit_bzero(bytes, sizeof(bytes));
	key_secret_hash(slice_of(s->text), s->hash);
	hex_write(s->hash, sizeof(s->hash), s->hex);
	return true;
}

bool
key_random_hex(uint32_t bytes, char *out)
{
	uint8_t random[SECRET_RANDOM_BYTES];

	CHECK(bytes <= sizeof(random));
	if (!random_fill(random, bytes))
		return false;
	hex_write(random, bytes, out);
	return true;
}

int
key_failed(const char *command, const char *why)
{
	fprintf(stderr, "weir: %s: %s\n", command, why);
	return 1;
}

int
key_printed(const char *cure)
{
	if (fflush(stdout) == 0)
		return 0;
	fprintf(stderr, "weir: key: cannot write the output: %s%s\n", strerror(errno), cure);
	return 1;
}

static void
print_members(struct slice json, const char *const *names, size_t count)
{
	struct slice value;

	for (size_t i = 0; i < count; i++)
		if (json_get(json, names[i], &value))
			printf(",\"%s\":%.*s", names[i], SLICE_FMT(value));
}

int
key_secret_print(struct slice document, const char *secret, bool as_json, const char *note)
{
	static const char *const names[] = { "workspace", "name", "expires_at", "created_at", "rotated_at" };
	struct slice id = SLICE_NONE, slug = SLICE_NONE;

	if (!json_get(document, "id", &id) || !json_get(document, "slug", &slug))
		return 1;
	if (as_json) {
		printf("{\"id\":%.*s,\"slug\":%.*s,\"secret\":\"%s\"", SLICE_FMT(id), SLICE_FMT(slug), secret);
		print_members(document, names, sizeof(names) / sizeof(*names));
		printf("}\n");
	} else {
		printf("key     %.*s (%.*s)\nsecret  %s\n%s\n", (int)slug.n - 2, slug.p + 1, (int)id.n - 2, id.p + 1, secret, note);
	}
	return key_printed(" (the key is made: weir key rotate gives it another secret)");
}
