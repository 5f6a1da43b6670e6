/*
 * shm/base/slice.h -- a pointer and a length, for bytes that somebody else owns.
 *
 * A slice never owns and is never NUL-terminated. An absent value is
 * { NULL, 0 }; an empty one has a non-NULL pointer.
 */
#ifndef WEIR_SHM_BASE_SLICE_H
#define WEIR_SHM_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
	const char *p;
	size_t n;
};

#define SLICE(literal) ((struct slice){ "" literal, sizeof(literal) - 1 })
#define SLICE_NONE ((struct slice){ NULL, 0 })
#define SLICE_FMT(s) (int)(s).n, (s).p	/* for "%.*s" */

static inline struct slice
slice_of(const char *cstr)
{
	return cstr ? (struct slice){ cstr, strlen(cstr) } : SLICE_NONE;
}

static inline bool
slice_eq(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool
slice_starts(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

static inline char *
slice_copy(char *to, struct slice s)
{
	/* memcpy() without a call for what is short, as most texts are: two
	 * pieces that may overlap. The place behind the copy comes back. */
#define PIECES(bytes) do { \
	char head[bytes], tail[bytes]; \
	memcpy(head, s.p, bytes); \
	memcpy(tail, s.p + s.n - bytes, bytes); \
	memcpy(to, head, bytes); \
	memcpy(to + s.n - bytes, tail, bytes); \
} while (0)
	if (s.n > 32)
		memcpy(to, s.p, s.n);
	else if (s.n > 16)
		PIECES(16);
	else if (s.n >= 8)
		PIECES(8);
	else if (s.n >= 4)
		PIECES(4);
	else if (s.n >= 2)
		PIECES(2);
	else if (s.n == 1)
		*to = *s.p;
#undef PIECES
	return to + s.n;
}

bool slice_ieq(struct slice a, struct slice b);
	/* ASCII case is ignored. */
bool slice_contains(struct slice s, struct slice needle);
struct slice slice_trim(struct slice s);
	/* Spaces and tabs at both ends removed: HTTP's optional white space. */
bool slice_glob(struct slice pattern, struct slice s);
	/* "*" stands for any run of bytes; everything else for itself. */
bool slice_to_i64(struct slice s, int64_t *out);
	/* Decimal, optional minus; false for anything else or on overflow. */

#endif
