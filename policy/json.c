/*
 * policy/json.c -- see json.h.
 *
 * A value is a span of the text that it came from; reading into it means
 * walking that span again, or, where that happens all the time (an answer's
 * usage), stepping into it. That is cheap for the short objects that are read
 * here (usage, metadata, an event), and needs no memory at all.
 */
#include "policy/json.h"

#include "policy/json_lex.h"

__attribute__((noinline)) const char *
lex_string_portable(const char *p, const char *end, struct lex *f)
{
	for (;;) {
		p = lex_plain(p, end);
		if (p == end)
			return lex_fail(f, p, "unterminated string");
		if (*p == '"')
			return p + 1;
		if (*p != '\\')
			return lex_fail(f, p, "control character in a string");
		f->escaped = true;
		p = lex_escape(p, end, f);
		if (!p)
			return NULL;
	}
}

#ifdef __SSE2__
/* The bytes from p to p + n, of which `special` tells: the byte behind the
 * string if it ends there, else NULL and in *next where it goes on, which is
 * NULL with a fault. The byte at p + n is looked at too. */
LEX_INLINE const char *
string_block(const char *p, int n, uint64_t special, const char *end, const char **next, struct lex *f)
{
	const char *at = p;

	while (special) {
		int plain = __builtin_ctzll(special);

		at += plain;
		if (*at != '\\') {
			if (*at == '"')
				return at + 1;
			*next = lex_fail(f, at, "control character in a string");
			return NULL;
		}
		f->escaped = true;
		special >>= plain;	/* at `at`; what is escaped is no end */
		if (lex_short_escape[(unsigned char)at[1]]) {
			special >>= 2;
			at += 2;
			continue;
		}
		at = lex_escape(at, end, f);
		if (!at) {
			*next = NULL;
			return NULL;
		}
		special >>= 6;
	}
	*next = at > p + n ? at : p + n;
	return NULL;
}
#endif

/* lex_space() where there is some. */
const char *
lex_space_any(const char *p, const char *end)
{
#ifdef __SSE2__
	while (end - p >= 16) {
		__m128i v = lex_load(p);
		__m128i space = _mm_or_si128(
		    _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\n'))),
		    _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\r'))));
		unsigned other = ~(unsigned)_mm_movemask_epi8(space) & 0xffff;

		if (other)
			return p + __builtin_ctz(other);
		p += 16;
	}
#endif
	while (p < end && lex_is_space(*p))
		p++;
	return p;
}

const char *
lex_string_any(const char *p, const char *end, struct lex *f)
{
	f->escaped = false;
#ifdef __SSE2__
	const char *behind, *next;

	for (; end - p > 64; p = next) {
		uint64_t special = lex_special64(p);

		behind = string_block(p, 64, special, end, &next, f);
		if (behind || !next)
			return behind;
		while (!special && end - next >= 64 && lex_plain64(next))
			next += 64;	/* a long text, or a file in base64 */
	}
	for (; end - p > 16; p = next) {
		behind = string_block(p, 16, lex_special(p), end, &next, f);
		if (behind || !next)
			return behind;
	}
#endif
	return lex_string_portable(p, end, f);
}

static const struct json_visitor nothing;

/* The byte behind the value that begins at p. */
static const char *
json_skip(const char *p, const char *end, struct lex *f)
{
	return json_walk(p, end, &nothing, NULL, f);
}

bool
json_check(struct slice text, struct json_error *why)
{
	const char *end = text.p + text.n;
	struct lex f = { .what = NULL };
	const char *p = json_skip(lex_space(text.p, end), end, &f);

	if (p) {
		p = lex_space(p, end);
		if (p == end)
			return true;
		lex_fail(&f, p, "bytes behind the value");
	}
	*why = (struct json_error){ (size_t)(f.at - text.p), f.what };
	return false;
}

static void
iter_begin(struct json_iter *it, const char *p, const char *end, const char *start)
{
	*it = (struct json_iter){ .p = p, .end = end, .start = start, .closer = lex_closer(*p),
		.usual = *p == '{' ? '{' : '\0', .first = true };
}

static bool
iter_start(struct json_iter *it, struct slice value, char opener)
{
	*it = (struct json_iter){ .p = value.p, .end = value.p, .start = value.p };
	if (value.n == 0 || value.p[0] != opener)
		return false;
	iter_begin(it, value.p, value.p + value.n, value.p);
	return true;
}

bool
json_iter_object(struct json_iter *it, struct slice value)
{
	return iter_start(it, value, '{');
}

bool
json_iter_array(struct json_iter *it, struct slice value)
{
	return iter_start(it, value, '[');
}

static bool
iter_fail(struct json_iter *it, const struct lex *f)
{
	it->error = (struct json_error){ (size_t)(f->at - it->start), f->what };
	it->usual = '\0';
	return false;
}

/* The container ends before p. */
static bool
iter_behind(struct json_iter *it, const char *p)
{
	it->p = p;
	it->usual = it->closer == '}' ? ',' : '\0';
	it->unread = false;
	return true;
}

bool
json_span(struct json_iter *it, struct slice *value)
{
	struct lex f = { .what = NULL };
	const char *after = json_skip(it->p, it->end, &f);

	if (!after)
		return iter_fail(it, &f);
	*value = (struct slice){ it->p, (size_t)(after - it->p) };
	return iter_behind(it, after);
}

static bool
pass_over(struct json_iter *it)
{
	struct lex f = { .what = NULL };
	const char *after = lex_container(it->p, it->end, &f);

	return after ? iter_behind(it, after) : iter_fail(it, &f);
}

/* Behind the comma, if one has to be there; NULL at the end or with a fault. */
static inline const char *
next_begin(struct json_iter *it, struct lex *f)
{
	const char *p = lex_space(it->p + it->first, it->end);

	if (p < it->end && *p == it->closer) {
		it->p = p;	/* stays there: further calls say false too */
		it->first = false;
		it->usual = '\0';
		return NULL;
	}
	if (it->first)
		return p;
	if (p == it->end || *p != ',')
		return lex_fail(f, p, it->closer == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
	return lex_space(p + 1, it->end);
}

bool
json_step_any(struct json_iter *it, struct slice *name, struct slice *value)
{
	struct lex f = { .what = NULL };
	const char *p, *start;

	*name = SLICE_NONE;
	if (it->error.what)
		return false;
	if (it->unread)
		return pass_over(it) && json_step(it, name, value);
	p = next_begin(it, &f);
	if (p && it->closer == '}')
		p = lex_name(p, it->end, name, &f);
	it->escaped = f.escaped;
	start = p;
	if (p)
		p = p == it->end ? lex_fail(&f, p, "expected a value") :
		    lex_is_opener(*p) ? p + 1 : lex_scalar(p, it->end, &f);
	if (!p)
		return f.what ? iter_fail(it, &f) : false;
	it->first = false;
	json_step_to(it, value, start, p);
	if (it->closer == ']')
		it->usual = '\0';
	return true;
}

bool
json_next(struct json_iter *it, struct slice *name, struct slice *value)
{
	return json_step(it, name, value) && (!it->unread || json_span(it, value));
}

bool
json_enter_object(const struct json_iter *it, struct json_iter *inner)
{
	if (!it->unread || *it->p != '{')
		return false;
	iter_begin(inner, it->p, it->end, it->start);
	return true;
}

void
json_leave(struct json_iter *it, const struct json_iter *inner)
{
	it->error = inner->error;
	it->usual = '\0';
	if (!inner->error.what)
		iter_behind(it, inner->p + 1);
}

struct slice
json_name_decode(struct slice raw, char tmp[JSON_NAME_BYTES])
{
	size_t n = json_unescape(raw, tmp, JSON_NAME_BYTES);

	return n < JSON_NAME_BYTES ? (struct slice){ tmp, n } : SLICE("");
}

bool
json_get(struct slice object, const char *name, struct slice *value)
{
	struct json_iter it;
	struct slice member;

	if (!json_iter_object(&it, object))
		return false;
	while (json_next(&it, &member, value))
		if (json_string_eq(member, name))
			return true;
	return false;
}

bool
json_is_null(struct slice value)
{
	return slice_eq(value, SLICE("null"));
}

bool
json_to_i64(struct slice value, int64_t *out)
{
	size_t i = value.n > 0 && value.p[0] == '-' ? 1 : 0;
	int64_t n = 0;

	if (value.n > i + 1 && value.p[i] == '0')
		return false;
	if (value.n - i > 18)		/* it may overflow */
		return slice_to_i64(value, out);
	if (value.n == i)
		return false;
	for (const char *p = value.p + i; p < value.p + value.n; p++) {
		if (!lex_is_digit(*p))
			return false;
		n = n * 10 + (*p - '0');
	}
	*out = i ? -n : n;
	return true;
}

bool
json_to_bool(struct slice value, bool *out)
{
	*out = slice_eq(value, SLICE("true"));
	return *out || slice_eq(value, SLICE("false"));
}

/* Strings with escapes: read one character at a time. */

static uint32_t
hex4(const char *p)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++) {
		uint32_t c = (unsigned char)p[i];
		v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return v;
}

static size_t
utf8_put(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* The \u escape at *p, with its second half if it is a pair. A half on its
 * own becomes U+FFFD: what comes out is UTF-8. */
static uint32_t
take_unicode(const char **p, const char *end)
{
	uint32_t c = hex4(*p + 2);

	*p += 6;
	if (c < 0xd800 || c > 0xdfff)
		return c;
	if (c > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return 0xfffd;
	struct lex f;
	if (!lex_escape(*p, end, &f))
		return 0xfffd;
	uint32_t low = hex4(*p + 2);
	if (low < 0xdc00 || low > 0xdfff)
		return 0xfffd;
	*p += 6;
	return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
}

/* The next character's bytes; 0: not a valid string's inside. */
static size_t
take_char(const char **p, const char *end, char out[4])
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	struct lex f;

	if (**p != '\\') {
		if (**p == '"' || (unsigned char)**p < 0x20)
			return 0;
		out[0] = *(*p)++;
		return 1;
	}
	if (!lex_escape(*p, end, &f))
		return 0;
	if ((*p)[1] == 'u')
		return utf8_put(take_unicode(p, end), out);
	out[0] = to[strchr(from, (*p)[1]) - from];
	*p += 2;
	return 1;
}

/* The inside of a raw string; false: no quotes around it. */
static bool
string_inside(struct slice raw, const char **p, const char **end)
{
	if (raw.n < 2 || raw.p[0] != '"' || raw.p[raw.n - 1] != '"')
		return false;
	*p = raw.p + 1;
	*end = raw.p + raw.n - 1;
	return true;
}

bool
json_string_is(struct slice raw, struct slice text)
{
	const char *p, *end;
	size_t n = text.n;

	if (!string_inside(raw, &p, &end))
		return false;
	if ((size_t)(end - p) <= n)	/* an escape is longer than what it stands for */
		return (size_t)(end - p) == n && memcmp(p, text.p, n) == 0 && !memchr(p, '\\', n);
	if (!memchr(p, '\\', (size_t)(end - p)))
		return false;
	while (p < end) {
		char c[4];
		size_t k = take_char(&p, end, c);
		if (k == 0 || k > n || memcmp(c, text.p, k) != 0)
			return false;
		text.p += k;
		n -= k;
	}
	return n == 0;
}

bool
json_strings_same(struct slice a, struct slice b)
{
	const char *p, *q, *p_end, *q_end;

	if (!memchr(a.p, '\\', a.n) && !memchr(b.p, '\\', b.n))
		return slice_eq(a, b);
	if (!string_inside(a, &p, &p_end) || !string_inside(b, &q, &q_end))
		return false;
	/* A character of one side may be an escape and several plain bytes on
	 * the other, so bytes are compared as they come out. */
	char c[4], d[4];
	size_t c_n = 0, c_i = 0, d_n = 0, d_i = 0;
	for (;;) {
		if (c_i == c_n) {
			c_i = 0;
			c_n = p < p_end ? take_char(&p, p_end, c) : 0;
		}
		if (d_i == d_n) {
			d_i = 0;
			d_n = q < q_end ? take_char(&q, q_end, d) : 0;
		}
		if (c_n == 0 || d_n == 0)
			return c_n == d_n && p == p_end && q == q_end;
		if (c[c_i++] != d[d_i++])
			return false;
	}
}

/* Writes what fits; the place behind all of it comes back. */
static inline size_t
put_bytes(char *out, size_t size, size_t at, const char *p, size_t n)
{
	if (at < size)
		memcpy(out + at, p, n < size - at ? n : size - at);
	return at + n;
}

/* The inside of a string with escapes. */
static __attribute__((noinline)) size_t
unescape(const char *p, const char *end, char *out, size_t room)
{
	size_t n = 0;

	while (p < end) {
		const char *run = p;
		char c[4];

		p = lex_plain(p, end);
		n = put_bytes(out, room, n, run, (size_t)(p - run));
		if (p < end) {
			size_t k = take_char(&p, end, c);
			if (k == 0)
				return SIZE_MAX;
			n = put_bytes(out, room, n, c, k);
		}
	}
	return n;
}

size_t
json_unescape(struct slice raw, char *out, size_t size)
{
	const char *p, *end;
	size_t n, room = size > 0 ? size - 1 : 0;	/* the NUL has its own */

	if (!string_inside(raw, &p, &end))
		return SIZE_MAX;
	if (lex_plain(p, end) == end)
		n = put_bytes(out, room, 0, p, (size_t)(end - p));
	else
		n = unescape(p, end, out, room);
	if (size > 0 && n != SIZE_MAX)
		out[n < room ? n : room] = '\0';
	return n;
}

size_t
json_escape(struct slice text, char *out, size_t size)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

#define PUT(c) do { if (n < size) out[n] = (char)(c); n++; } while (0)
	PUT('"');
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c >= 0x20 && c != '"' && c != '\\') {
			PUT(c);
			continue;
		}
		PUT('\\');
		if (c == '"' || c == '\\') {
			PUT(c);
		} else if (c == '\n') {
			PUT('n');
		} else {
			PUT('u');
			PUT('0');
			PUT('0');
			PUT(hex[c >> 4]);
			PUT(hex[c & 15]);
		}
	}
	PUT('"');
#undef PUT
	return n;
}
