/*
 * gateway/headers.c -- see headers.h.
 *
 * A request brings some twenty headers and weir looks for as many others: one walk
 * that compares only with those of the same length, instead of a walk for each.
 */
#include "gateway/headers.h"

#include <string.h>

void
headers_find(const struct http1_head *head, struct known_headers *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < head->headers_count; i++) {
		const struct http1_header *h = &head->headers[i];

		switch (h->name.n) {
		case 0:
#define OF(length) \
			break; \
		case length:
#define X(member, text) \
			if (memcmp(h->name.p, text, sizeof(text) - 1) == 0) { \
				if (!out->member.p) \
					out->member = h->value; \
				break; \
			}
		KNOWN_HEADERS(OF, X)
#undef X
#undef OF
		}
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
