/* shm/base/slice.c -- see slice.h. */
#include "shm/base/slice.h"

#include <limits.h>

static inline char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool
slice_ieq(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return false;
	if (slice_eq(a, b))	/* most texts are written as they are meant */
		return true;
	for (size_t i = 0; i < a.n; i++)
		if (a.p[i] != b.p[i] && lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool
slice_contains(struct slice s, struct slice needle)
{
	return needle.n == 0 || (s.n >= needle.n && memmem(s.p, s.n, needle.p, needle.n) != NULL);
}

struct slice
slice_trim(struct slice s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

bool
slice_to_i64(struct slice s, int64_t *out)
{
	bool negative = s.n > 0 && s.p[0] == '-';
	size_t i = negative ? 1 : 0;
	int64_t value = 0;

	if (i == s.n)
		return false;
	/* Built downwards, because INT64_MIN has no positive twin. */
	for (; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_sub_overflow(value, s.p[i] - '0', &value))
			return false;
	}
	if (!negative) {
		if (value == INT64_MIN)
			return false;
		value = -value;
	}
	*out = value;
	return true;
}

bool
slice_glob(struct slice pattern, struct slice s)
{
	size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;

	/* Greedy with one step back: linear for one star, quadratic at worst. */
	while (i < s.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			if (p + 1 == pattern.n)
				return true;	/* "claude-*": whatever follows */
			star = p++;
			mark = i;
		} else if (p < pattern.n && pattern.p[p] == s.p[i]) {
			p++;
			i++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			i = ++mark;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}
