/*
 * policy/json_lex.h -- the tokens of JSON, and the one walk over a value.
 *
 * For this folder only. json_walk() is the place that knows the grammar (RFC
 * 8259): json_check() walks with nothing to do, body_scan() with its notes;
 * each gets a copy compiled for it, so that an unused hook costs nothing.
 * There is no recursion: the open brackets are a stack of JSON_DEPTH_MAX
 * bytes. json_step() knows objects alone, for who reads some members; what it
 * takes is what the walk takes, and both are tested against each other.
 *
 * Strings are most of a request's bytes. A run of plain bytes (no quote, no
 * backslash, no control character) is skipped 64 and 16 at a time with SSE2,
 * which every x86-64 has, and 8 at a time in a plain word elsewhere.
 */
#ifndef WEIR_POLICY_JSON_LEX_H
#define WEIR_POLICY_JSON_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "policy/json.h"
#include "shm/limits.h"

#define LEX_INLINE static inline __attribute__((always_inline))

struct lex {
	const char *at, *what;	/* where the text stops being JSON, and why; what is NULL as long as it is */
	bool escaped;		/* the last string has an escape in it */
};

/* The hooks of a walk. Depth 1 is the outermost container. */
struct json_visitor {
	const char *(*name)(void *arg, uint32_t depth, struct slice raw, bool escaped);
		/* A member's name, with quotes; `escaped`: it has escapes in it.
		 * Not NULL: stop, with this complaint. */
	void (*open)(void *arg, uint32_t depth, const char *at);
		/* A bracket that begins the container of this depth. */
	void (*close)(void *arg, uint32_t depth, const char *end);
	void (*scalar)(void *arg, uint32_t depth, struct slice raw, bool escaped);
};

static inline const char *
lex_fail(struct lex *f, const char *at, const char *what)
{
	f->at = at;
	f->what = what;
	return NULL;
}

LEX_INLINE bool
lex_is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

const char *lex_space_any(const char *p, const char *end);

/* Between tokens there is mostly nothing, or a line feed and an indent. */
LEX_INLINE const char *
lex_space(const char *p, const char *end)
{
	return p < end && (unsigned char)*p > ' ' ? p : lex_space_any(p, end);
}

LEX_INLINE bool
lex_is_opener(char c)
{
	return c == '{' || c == '[';
}

#define LEX_ONES UINT64_C(0x0101010101010101)
#define LEX_HIGH UINT64_C(0x8080808080808080)

/* Not zero if one of 8 bytes is zero: the borrow reaches its top bit. */
LEX_INLINE uint64_t
lex_zero(uint64_t x)
{
	return (x - LEX_ONES) & ~x & LEX_HIGH;
}

#ifdef __SSE2__
LEX_INLINE __m128i
lex_load(const char *p)
{
	return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* All ones for each of 16 bytes that is a quote or a backslash. */
LEX_INLINE __m128i
lex_marks(__m128i v)
{
	return _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
}

/* ... that is a control character. */
LEX_INLINE __m128i
lex_controls(__m128i v)
{
	const __m128i last = _mm_set1_epi8(0x1f);

	return _mm_cmpeq_epi8(_mm_max_epu8(v, last), last);
}

/* A bit for each of 16 bytes that is not plain: quote, backslash, control. */
LEX_INLINE uint64_t
lex_special(const char *p)
{
	__m128i v = lex_load(p);

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(lex_marks(v), lex_controls(v)));
}

/* A bit for each of 64. */
LEX_INLINE uint64_t
lex_special64(const char *p)
{
	return lex_special(p) | lex_special(p + 16) << 16 | lex_special(p + 32) << 32 | lex_special(p + 48) << 48;
}

/* Whether there is none in 64 bytes. The least byte of each four tells of the
 * controls in all of them. */
LEX_INLINE bool
lex_plain64(const char *p)
{
	__m128i a = lex_load(p), b = lex_load(p + 16), c = lex_load(p + 32), d = lex_load(p + 48);
	__m128i least = _mm_min_epu8(_mm_min_epu8(a, b), _mm_min_epu8(c, d));
	__m128i marks = _mm_or_si128(_mm_or_si128(lex_marks(a), lex_marks(b)),
	    _mm_or_si128(lex_marks(c), lex_marks(d)));

	return _mm_movemask_epi8(_mm_or_si128(marks, lex_controls(least))) == 0;
}
#endif

/* The first byte from p on that ends a run of a string's plain bytes. */
LEX_INLINE const char *
lex_plain(const char *p, const char *end)
{
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		uint64_t special = lex_special(p);

		if (special)
			return p + __builtin_ctzll(special);
	}
#endif
	while (end - p >= 8) {
		uint64_t x;

		memcpy(&x, p, 8);
		uint64_t control = (x - 0x20 * LEX_ONES) & ~x & LEX_HIGH;
		if (control | lex_zero(x ^ ('"' * LEX_ONES)) | lex_zero(x ^ ('\\' * LEX_ONES)))
			break;
		p += 8;
	}
	while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
		p++;
	return p;
}

LEX_INLINE bool
lex_is_hex(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

LEX_INLINE bool
lex_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* By the byte behind a backslash: is it an escape of two bytes? */
static const bool lex_short_escape[256] = {
	['"'] = true, ['\\'] = true, ['/'] = true, ['b'] = true, ['f'] = true,
	['n'] = true, ['r'] = true, ['t'] = true,
};

/* p is at a backslash; the byte behind the escape comes back. */
LEX_INLINE const char *
lex_escape(const char *p, const char *end, struct lex *f)
{
	if (end - p < 2)
		return lex_fail(f, end, "unterminated string");
	if (lex_short_escape[(unsigned char)p[1]])
		return p + 2;
	if (p[1] != 'u')
		return lex_fail(f, p + 1, "unknown escape in a string");
	for (int i = 2; i < 6; i++) {
		if (p + i >= end)
			return lex_fail(f, end, "unterminated string");
		if (!lex_is_hex(p[i]))
			return lex_fail(f, p + i, "expected four hexadecimal digits after \\u");
	}
	return p + 6;
}

const char *lex_string_portable(const char *p, const char *end, struct lex *f);
	/* lex_string() one run at a time: without SSE2, and for the last bytes
	 * of a text with it. */
const char *lex_string_any(const char *p, const char *end, struct lex *f);
	/* lex_string(), for strings of all kinds. */

#define LEX_LOOK 16	/* bytes that lex_plain_string() looks at once */

/* The closing quote of a string without escapes, p behind its opening one, in
 * a text that begins at `start`. NULL: it is another one, or does not end, or
 * cannot be looked at at once. */
LEX_INLINE const char *
lex_plain_string(const char *p, const char *end, const char *start)
{
#ifdef __SSE2__
	uint64_t special;

	for (; end - p >= LEX_LOOK; p += LEX_LOOK) {
		special = lex_special(p);
		if (special)
			goto found;
	}
	special = end - start < LEX_LOOK ? 0 : lex_special(end - LEX_LOOK) >> (LEX_LOOK - (end - p));
	if (!special)
		return NULL;
found:
	p += __builtin_ctzll(special);
#else
	(void)start;
	p = lex_plain(p, end);
	if (p == end)
		return NULL;
#endif
	return *p == '"' ? p : NULL;
}

/* p is behind the opening quote; the byte behind the closing one comes back. */
LEX_INLINE const char *
lex_string(const char *p, const char *end, struct lex *f)
{
#ifdef __SSE2__
	/* Most strings are names, and end in the first bytes. */
	uint64_t special = end - p >= 16 ? lex_special(p) : 0;

	if (special && p[__builtin_ctzll(special)] == '"') {
		f->escaped = false;
		return p + __builtin_ctzll(special) + 1;
	}
#endif
	return lex_string_any(p, end, f);
}

/* The byte behind the container at p, by its quotes and brackets alone. */
LEX_INLINE const char *
lex_container(const char *p, const char *end, struct lex *f)
{
	size_t depth = 0;

	while (p < end) {
		char c = *p++;

		if (c == '"') {
			p = lex_string(p, end, f);
			if (!p)
				return NULL;
		} else if (lex_is_opener(c)) {
			depth++;
		} else if ((c == '}' || c == ']') && --depth == 0) {
			return p;
		}
	}
	return lex_fail(f, p, "unterminated object or array");
}

static inline const char *
lex_digits(const char *p, const char *end, struct lex *f)
{
	if (p == end || !lex_is_digit(*p))
		return lex_fail(f, p, "expected a digit");
	while (p < end && lex_is_digit(*p))
		p++;
	return p;
}

static inline const char *
lex_number(const char *p, const char *end, struct lex *f)
{
	if (*p == '-')
		p++;
	if (p < end && *p == '0')
		p++;
	else if (!(p = lex_digits(p, end, f)))
		return NULL;
	if (p < end && *p == '.' && !(p = lex_digits(p + 1, end, f)))
		return NULL;
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = lex_digits(p, end, f);
	}
	return p;
}

LEX_INLINE const char *
lex_literal(const char *p, const char *end, const char *word, size_t n, struct lex *f)
{
	if ((size_t)(end - p) < n || memcmp(p, word, n) != 0)
		return lex_fail(f, p, "expected a value");
	return p + n;
}

/* A string, number, true, false or null that begins at p. */
LEX_INLINE const char *
lex_scalar(const char *p, const char *end, struct lex *f)
{
	if (*p == '"')
		return lex_string(p + 1, end, f);
	switch (*p) {
	case 't':
		return lex_literal(p, end, "true", 4, f);
	case 'f':
		return lex_literal(p, end, "false", 5, f);
	case 'n':
		return lex_literal(p, end, "null", 4, f);
	case '-': case '0': case '1': case '2': case '3': case '4':
	case '5': case '6': case '7': case '8': case '9':
		return lex_number(p, end, f);
	}
	return lex_fail(f, p, "expected a value");
}

/* The bracket that closes what this one opens. ASCII: '{' + 2 is '}', '[' + 2 is ']'. */
LEX_INLINE char
lex_closer(char opener)
{
	return (char)(opener + 2);
}

/* p is at a member's name; the first byte of its value comes back. */
LEX_INLINE const char *
lex_name(const char *p, const char *end, struct slice *raw, struct lex *f)
{
	const char *start = p;

	if (p == end || *p != '"')
		return lex_fail(f, p, "expected a member's name in quotes");
	p = lex_string(p + 1, end, f);
	if (!p)
		return NULL;
	*raw = (struct slice){ start, (size_t)(p - start) };
	p = lex_space(p, end);
	if (p == end || *p != ':')
		return lex_fail(f, p, "expected ':'");
	return lex_space(p + 1, end);
}

/*
 * Walks the value that begins at p (no white space before it) and calls the
 * hooks. The byte behind the value comes back, or NULL with the fault.
 */
LEX_INLINE const char *
json_walk(const char *p, const char *end, const struct json_visitor *v, void *arg,
    struct lex *f)
{
	char closer[JSON_DEPTH_MAX + 1];
	uint32_t depth = 0;
	struct slice name;
	const char *start;

value:
	if (p == end)
		return lex_fail(f, p, "expected a value");
	if (!lex_is_opener(*p)) {
		start = p;
		p = lex_scalar(p, end, f);
		if (!p)
			return NULL;
		if (v->scalar)
			v->scalar(arg, depth, (struct slice){ start, (size_t)(p - start) }, f->escaped);
		if (depth == 0)
			return p;
	} else {
		if (depth == JSON_DEPTH_MAX)
			return lex_fail(f, p, "nested too deep");
		closer[++depth] = lex_closer(*p);
		if (v->open)
			v->open(arg, depth, p);
		p = lex_space(p + 1, end);
		if (p == end || *p != closer[depth]) {
			if (closer[depth] == ']')
				goto value;
			goto member;
		}
	}
	/* Behind a value, or at the bracket of an empty container. */
	for (p = lex_space(p, end); p < end && *p == closer[depth]; p = lex_space(p, end)) {
		p++;
		if (v->close)
			v->close(arg, depth, p);
		if (--depth == 0)
			return p;
	}
	if (p == end || *p != ',')
		return lex_fail(f, p, closer[depth] == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
	p = lex_space(p + 1, end);
	if (closer[depth] == ']')
		goto value;
member:
	start = p;
	p = lex_name(p, end, &name, f);
	if (!p)
		return NULL;
	if (v->name) {
		const char *complaint = v->name(arg, depth, name, f->escaped);
		if (complaint)
			return lex_fail(f, start, complaint);
	}
	goto value;
}

/*
 * One pass over an object and what is inside of it: json_next() for who reads
 * inner containers too. Of a container json_step() gives the bracket only. It
 * can then be entered and left, or spanned; if it is not, the next step passes
 * over it, and sees of its grammar only where it ends.
 */
bool json_step_any(struct json_iter *it, struct slice *name, struct slice *value);
	/* json_step() however the text is written. */
bool json_enter_object(const struct json_iter *it, struct json_iter *inner) MUST_CHECK;
	/* Walks the object that the last step has found; false: it was none. */
void json_leave(struct json_iter *it, const struct json_iter *inner);
	/* Goes on behind it; json_step() has said false there. An error inside
	 * is the outer walk's error as well. */
bool json_span(struct json_iter *it, struct slice *value);
	/* The raw span of the container that the last step has found, checked. */

/* The byte behind a string, a count, null or an opening bracket; NULL for all
 * else, and for what is not written as usual. */
LEX_INLINE const char *
json_usual_value(const char *p, const char *end, const char *start)
{
	const char *q = p + 1;

	if (lex_is_digit(*p)) {
		while (q < end && lex_is_digit(*q))
			q++;
		return q < end && (*q == ',' || *q == '}') && (*p != '0' || q == p + 1) ? q : NULL;
	}
	if (*p == '"') {
		q = lex_plain_string(q, end, start);
		return q ? q + 1 : NULL;
	}
	return lex_is_opener(*p) ? q : end - p >= 4 && memcmp(p, "null", 4) == 0 ? p + 4 : NULL;
}

/* The value from p to `after` has been found; of a container, its bracket. */
LEX_INLINE bool
json_step_to(struct json_iter *it, struct slice *value, const char *p, const char *after)
{
	*value = (struct slice){ p, (size_t)(after - p) };
	it->p = after;
	it->usual = ',';
	if (lex_is_opener(*p)) {
		it->p = p;
		it->usual = '\0';
		it->unread = true;
	}
	return true;
}

/* json_step_any(), with places of its own: those of json_step()'s caller can
 * stay in registers then. */
LEX_INLINE bool
json_step_slowly(struct json_iter *it, struct slice *name, struct slice *value)
{
	struct slice n, v = SLICE_NONE;
	bool more = json_step_any(it, &n, &v);

	*name = n;
	*value = v;
	return more;
}

LEX_INLINE bool
json_step(struct json_iter *it, struct slice *name, struct slice *value)
{
	const char *p = it->p, *end = it->end, *q, *after;

	/* Nearly all members are ,"name":value without a space or an escape. */
	if (end - p < 2 || *p != it->usual || p[1] != '"') {
		if (p == end || *p != '}' || it->usual != ',')
			return json_step_slowly(it, name, value);
		*name = *value = SLICE_NONE;
		return false;
	}
	q = lex_plain_string(p + 2, end, it->start);
	if (!q || end - q < 3 || q[1] != ':')
		return json_step_slowly(it, name, value);
	after = json_usual_value(q + 2, end, it->start);
	if (!after)
		return json_step_slowly(it, name, value);
	*name = (struct slice){ p + 1, (size_t)(q - p) };
	it->first = it->escaped = false;
	return json_step_to(it, value, q + 2, after);
}

#endif
