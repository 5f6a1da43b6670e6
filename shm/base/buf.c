/* shm/base/buf.c -- see buf.h. */
#include "shm/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST 256	/* most texts are short; doubling does the rest */

void
buf_clear(struct buf *b)
{
	b->n = 0;
	b->overflow = false;
}

bool
buf_reserve(struct buf *b, size_t more)
{
	if (b->overflow)
		return false;
	if (more <= b->cap - b->n)
		return true;
	if (more > b->max - b->n) {
		b->overflow = true;
		return false;
	}

	size_t want = b->cap ? b->cap : BUF_FIRST;
	while (want - b->n < more)
		want *= 2;
	if (want > b->max)
		want = b->max;
	char *grown = realloc(b->p, want);
	if (!grown) {
		b->overflow = true;
		return false;
	}
	b->p = grown;
	b->cap = want;
	return true;
}

void
buf_add(struct buf *b, const void *p, size_t n)
{
	if (n == 0 || !buf_reserve(b, n))
		return;
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

void
buf_add_slice(struct buf *b, struct slice s)
{
	buf_add(b, s.p, s.n);
}

void
buf_add_str(struct buf *b, const char *cstr)
{
	buf_add(b, cstr, strlen(cstr));
}

void
buf_add_char(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	CHECK(n >= 0);
	if (!buf_reserve(b, (size_t)n + 1))
		return;
	va_start(args, fmt);
	vsnprintf(b->p + b->n, (size_t)n + 1, fmt, args);
	va_end(args);
	b->n += (size_t)n;
}

void
buf_add_json(struct buf *b, struct slice s)
{
	static const char hex[] = "0123456789abcdef";

	buf_add_char(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\') {
			buf_add_char(b, '\\');
			buf_add_char(b, (char)c);
		} else if (c == '\n') {
			buf_add(b, "\\n", 2);
		} else if (c < 0x20 || c == 0x7f) {
			char escape[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };
			buf_add(b, escape, sizeof(escape));
		} else {
			buf_add_char(b, (char)c);
		}
	}
	buf_add_char(b, '"');
}

void
buf_consume(struct buf *b, size_t n)
{
	CHECK(n <= b->n);
	b->n -= n;
	if (b->n > 0)
		memmove(b->p, b->p + n, b->n);
}
