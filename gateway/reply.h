/*
 * gateway/reply.h -- answers of weir's own, and the building of heads.
 */
#ifndef WEIR_GATEWAY_REPLY_H
#define WEIR_GATEWAY_REPLY_H

#include <stddef.h>

#include "shm/base/check.h"
#include "shm/base/scratch.h"
#include "shm/base/slice.h"

struct buf;
struct request;

/* A text of bounded size in a request's scratch, built piece by piece. */
struct text {
	char *p;
	size_t n, room;
	bool overflow;
};

MUST_CHECK static inline bool
text_begin(struct text *t, struct scratch *mem, size_t room)
{
	*t = (struct text){ .p = scratch_alloc(mem, room), .room = room };
	return t->p != NULL;
}

static inline void
text_add(struct text *t, struct slice s)
{
	if (s.n > t->room - t->n) {
		t->overflow = true;
		return;
	}
	slice_copy(t->p + t->n, s);
	t->n += s.n;
}

static inline void
text_str(struct text *t, const char *cstr)
{
	text_add(t, slice_of(cstr));
}

static inline void
text_header(struct text *t, struct slice name, struct slice value)
{
	/* "name: value", a whole line with one look at the room. */
	char *p = t->p + t->n;

	if (name.n + value.n + 4 > t->room - t->n) {
		t->overflow = true;
		return;
	}
	p = slice_copy(p, name);
	p = slice_copy(p, SLICE(": "));
	p = slice_copy(p, value);
	slice_copy(p, SLICE("\r\n"));
	t->n += name.n + value.n + 4;
}

void text_number(struct text *t, int64_t value);
	/* text_int(), of any size. */
static inline void
text_int(struct text *t, int64_t value)
{
	/* Decimal; not negative. */
	if ((uint64_t)value > 9 || t->n == t->room)
		text_number(t, value);
	else
		t->p[t->n++] = (char)('0' + value);
}

static inline struct slice
text_slice(const struct text *t)
{
	return (struct slice){ t->p, t->n };
}

void reply_status_line(struct text *t, int status);
void reply_own_headers(struct text *t, const struct request *r);
	/* Ids, the target and how it came to it (Portkey's headers, and weir's own),
	 * limits. */
size_t reply_own_room(const struct request *r);
	/* Bytes that are enough for them. */
void reply_error_body(struct buf *out, const struct request *r, const char *type, struct slice message);
	/* The Anthropic envelope. */

#endif
