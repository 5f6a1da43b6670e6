/*
 * gateway/headers.c -- see headers.h.
 *
 * A request brings some twenty headers and weir looks for a dozen: one walk
 * that compares only where the length fits, instead of a dozen. Many are of a
 * length that no known one has.
 */
#include "gateway/headers.h"

#include <string.h>

#define X(member, text) UINT32_C(1) << (sizeof(text) - 1) |
static const uint32_t known_lengths = KNOWN_HEADERS(X) 0;
#undef X

void
headers_find(const struct http1_head *head, struct known_headers *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < head->headers_count; i++) {
		const struct http1_header *h = &head->headers[i];

		if (h->name.n >= 32 || !(known_lengths >> h->name.n & 1))
			continue;
#define X(member, text) \
		if (h->name.n == sizeof(text) - 1 && memcmp(h->name.p, text, sizeof(text) - 1) == 0) { \
			if (!out->member.p) \
				out->member = h->value; \
			continue; \
		}
		KNOWN_HEADERS(X)
#undef X
	}
}

static bool
is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool
headers_listed(struct slice list, struct slice name)
{
	for (size_t i = 0; i < list.n;) {
		size_t from = i;

		while (i < list.n && is_name_byte(list.p[i]))
			i++;
		if (i > from && slice_ieq((struct slice){ list.p + from, i - from }, name))
			return true;
		i += i == from;
	}
	return false;
}
