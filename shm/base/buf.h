/*
 * shm/base/buf.h -- a growing byte buffer with a ceiling.
 *
 * A buffer cannot be made without its maximum. Growth past it, or a failed
 * allocation, sets `overflow` and leaves the content as it was; it sticks, so
 * a writer of twenty pieces checks once, at the end.
 */
#ifndef WEIR_SHM_BASE_BUF_H
#define WEIR_SHM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include "shm/base/check.h"
#include "shm/base/slice.h"

struct buf {
	char *p;
	size_t n, cap, max;
	bool overflow;
};

static inline void
buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };	/* no allocation is made before the first byte */
}

static inline void
buf_free(struct buf *b)
{
	/* Frees the memory and keeps the maximum: the buffer is empty again. */
	if (b->p)
		free(b->p);
	buf_init(b, b->max);
}

void buf_clear(struct buf *b);
	/* Empties, keeps the memory, forgets an overflow. */
bool buf_reserve(struct buf *b, size_t more);
	/* Room for `more` bytes after n, or overflow is set and false comes back. */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_slice(struct buf *b, struct slice s);
void buf_add_str(struct buf *b, const char *cstr);
void buf_add_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_add_json(struct buf *b, struct slice s);
	/* As a JSON string, with its quotes; bytes >= 0x80 pass as they are. */
void buf_consume(struct buf *b, size_t n);
	/* Drops the first n bytes. */
static inline struct slice
buf_slice(const struct buf *b)
{
	return (struct slice){ b->p ? b->p : "", b->n };
}

#endif
