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
