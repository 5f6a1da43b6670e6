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
headers_next(struct slice list, size_t *at, struct slice *name)
{
	size_t i = *at;

	while (i < list.n && !is_name_byte(list.p[i]))
		i++;
	if (i == list.n)
		return false;
	size_t from = i;
	while (i < list.n && is_name_byte(list.p[i]))
		i++;
	*at = i;
	*name = (struct slice){ list.p + from, i - from };
	return true;
}

bool
headers_listed(struct slice list, struct slice name)
{
	struct slice each;

	for (size_t at = 0; headers_next(list, &at, &each);)
		if (slice_ieq(each, name))
			return true;
	return false;
}
