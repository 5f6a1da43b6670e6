/*
 * store/cache_entry.c -- see cache_entry.h.
 */
#include "store/cache_entry.h"

#include <string.h>

#define LENGTH_BYTES 2
#define STATUS_MIN 100
#define STATUS_MAX 599
#define FLAGS_KNOWN ((1u << CACHE_BIT_COUNT) - 1)

static bool
text_valid(struct slice s)
{
	if (s.n > CACHE_STRING_BYTES_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

static bool
fixed_valid(const struct cache_fixed *f)
{
	if (f->status < STATUS_MIN || f->status > STATUS_MAX || (f->flags & ~FLAGS_KNOWN) || f->cost_nusd < 0)
		return false;
	for (size_t i = 0; i < sizeof(f->tokens) / sizeof(f->tokens[0]); i++)
		if (f->tokens[i] < 0)
			return false;
	return f->created_wall_ns >= 0 && f->expires_wall_ns > f->created_wall_ns;
}

uint32_t
cache_entry_head(const struct cache_entry *e, char out[CACHE_HEAD_BYTES_MAX])
{
	struct cache_fixed fixed = e->fixed;
	char *at = out + sizeof(fixed);

	fixed.version = CACHE_ENTRY_VERSION;
	fixed.body_bytes = e->body.n;
	if (!fixed_valid(&fixed))
		return 0;
	memcpy(out, &fixed, sizeof(fixed));
#define X(name) do { \
	uint16_t n = (uint16_t)e->name.n; \
	if (!text_valid(e->name)) \
		return 0; \
	memcpy(at, &n, LENGTH_BYTES); \
	at = n > 0 ? slice_copy(at + LENGTH_BYTES, e->name) : at + LENGTH_BYTES; \
} while (0);
	CACHE_STRINGS(X)
#undef X
	return (uint32_t)(at - out);
}

/* The string at *at, which moves behind it. */
static bool
take_text(struct slice bytes, size_t *at, struct slice *out)
{
	uint16_t n;

	if (bytes.n - *at < LENGTH_BYTES)
		return false;
	memcpy(&n, bytes.p + *at, LENGTH_BYTES);
	*at += LENGTH_BYTES;
	if (bytes.n - *at < n)
		return false;
	*out = (struct slice){ bytes.p + *at, n };
	*at += n;
	return text_valid(*out);
}

bool
cache_entry_decode(struct slice bytes, struct cache_entry *out)
{
	size_t at = sizeof(out->fixed);

	if (bytes.n < at)
		return false;
	memcpy(&out->fixed, bytes.p, sizeof(out->fixed));
	if (out->fixed.version != CACHE_ENTRY_VERSION || !fixed_valid(&out->fixed))
		return false;
#define X(name) \
	if (!take_text(bytes, &at, &out->name)) \
		return false;
	CACHE_STRINGS(X)
#undef X
	out->body = (struct slice){ bytes.p + at, bytes.n - at };
	return out->fixed.body_bytes == out->body.n;
}
