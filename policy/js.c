/*
 * policy/js.c -- see js.h.
 *
 * The C library reads and writes numbers exactly; what JavaScript adds is which
 * of the texts that stand for a number it chooses: the shortest, and of these
 * the nearest.
 */
#include "policy/js.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/json_lex.h"

#define DIGITS_MAX 17		/* tell any two doubles apart */
#define DIGITS_SURE 15		/* that many survive becoming a double */
#define COUNT_DIGITS_MAX 15	/* of an integer that needs no strtod() */

double
js_number(struct slice raw)
{
	double n = 0;

	if (raw.n > COUNT_DIGITS_MAX)
		return strtod(raw.p, NULL);
	for (size_t i = 0; i < raw.n; i++) {
		if (!lex_is_digit(raw.p[i]))
			return strtod(raw.p, NULL);
		n = n * 10 + (raw.p[i] - '0');
	}
	return n;
}

/* ---- parseFloat ---- */

/* Bytes of the white space at p; 0: none. */
static size_t
space_bytes(const char *p, const char *end)
{
	static const struct { const char *text; unsigned char last; } wide[] = {	/* up to this last byte */
		{ "\xc2\xa0", 0xa0 }, { "\xe1\x9a\x80", 0x80 }, { "\xe2\x80\x80", 0x8a }, { "\xe2\x80\xa8", 0xa9 },
		{ "\xe2\x80\xaf", 0xaf }, { "\xe2\x81\x9f", 0x9f }, { "\xe3\x80\x80", 0x80 }, { "\xef\xbb\xbf", 0xbf },
	};

	if (p == end || (unsigned char)*p < 0x80)
		return p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r'));
	for (size_t i = 0; i < sizeof(wide) / sizeof(*wide); i++) {
		size_t n = strlen(wide[i].text);

		if ((size_t)(end - p) >= n && memcmp(p, wide[i].text, n - 1) == 0 &&
		    (unsigned char)p[n - 1] >= (unsigned char)wide[i].text[n - 1] && (unsigned char)p[n - 1] <= wide[i].last)
			return n;
	}
	return 0;
}

/* `text` ends before a byte that belongs to no number. */
static double
parse_float(struct slice text)
{
	const char *p = text.p, *end = text.p + text.n, *number;

	for (size_t n; (n = space_bytes(p, end)) > 0;)
		p += n;
	number = p;
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	if (slice_starts((struct slice){ p, (size_t)(end - p) }, SLICE("Infinity")))
		return *number == '-' ? -INFINITY : INFINITY;
	if (end - p >= 2 && p[0] == '0' && (p[1] | 0x20) == 'x')
		return 0;	/* strtod() knows hexadecimal numbers */
	if (p < end && *p == '.')
		p++;
	return p < end && lex_is_digit(*p) ? strtod(number, NULL) : NAN;
}

double
js_float(struct slice raw)
{
	char room[JS_FLOAT_BYTES];
	struct slice text;

	switch (raw.p[0]) {
	case '"':
	case '[':
		text = js_text(raw, room, sizeof(room));
		return parse_float(text.p ? text : (struct slice){ room, sizeof(room) - 1 });
	case '{': case 't': case 'f': case 'n':
		return NAN;
	}
	return js_number(raw);
}

/* ---- String(number) ---- */

/* Does this text, digits and exponent, say the number? Of a power of two the
 * next text further from zero may, where the nearest one does not: numbers
 * above it lie twice as far apart. */
static bool
says(char *text, int digits, double number)
{
	char *last = text + (digits > 1 ? digits : 0);
	int exponent;

	if (strtod(text, NULL) == number)
		return true;
	if (frexp(number, &exponent) != 0.5 || *last == '9')
		return false;
	++*last;
	return strtod(text, NULL) == number;
}

/* The shortest digits of a positive number into `digits`, and its decimal
 * exponent: 0.digits times ten to the power of it. */
static int
shortest(double number, char digits[DIGITS_MAX + 1], int *exponent)
{
	char text[JS_NUMBER_BYTES];
	/* Fewer digits than are sure are the same with zeros behind them, but for
	 * numbers so small that they have not got as many. */
	int n = number < 1e-300 ? 1 : DIGITS_SURE;

	for (; n <= DIGITS_MAX; n++) {
		snprintf(text, sizeof(text), "%.*e", n - 1, number);
		if (says(text, n, number))
			break;
	}
	CHECK(n <= DIGITS_MAX);
	digits[0] = text[0];
	memcpy(digits + 1, text + 2, (size_t)n - 1);	/* behind the point */
	*exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1;
	while (n > 1 && digits[n - 1] == '0')
		n--;
	digits[n] = '\0';
	return n;
}

size_t
js_number_text(double number, char out[JS_NUMBER_BYTES])
{
	static const char zeros[] = "000000000000000000000";	/* 21 */
	const char *sign = number < 0 ? "-" : "";
	char digits[DIGITS_MAX + 1];
	int n, exponent, written;

	if (isinf(number)) {
		written = snprintf(out, JS_NUMBER_BYTES, "%sInfinity", sign);
	} else if (fabs(number) < 0x1p53 && number == rint(number)) {
		written = snprintf(out, JS_NUMBER_BYTES, "%lld", (long long)number);	/* -0 is 0 */
	} else {
		n = shortest(fabs(number), digits, &exponent);
		if (n <= exponent && exponent <= 21)
			written = snprintf(out, JS_NUMBER_BYTES, "%s%s%.*s", sign, digits, exponent - n, zeros);
		else if (exponent > 0 && exponent <= 21)
			written = snprintf(out, JS_NUMBER_BYTES, "%s%.*s.%s", sign, exponent, digits, digits + exponent);
		else if (exponent > -6 && exponent <= 0)
			written = snprintf(out, JS_NUMBER_BYTES, "%s0.%.*s%s", sign, -exponent, zeros, digits);
		else
			written = snprintf(out, JS_NUMBER_BYTES, "%s%c%s%se%+d", sign, digits[0], n > 1 ? "." : "", digits + 1,
			    exponent - 1);
	}
	CHECK(written > 0 && written < JS_NUMBER_BYTES);
	return (size_t)written;
}

/* ---- String(value) ---- */

/* A value that is being written. */
struct writing {
	char *room;
	size_t n, size;			/* n: bytes of the whole text, without its NUL */
	bool begun[JSON_DEPTH_MAX + 1];	/* by depth of an array: has it an element already? */
	uint32_t object;		/* depth of the object whose inside is passed over; 0: none */
};

static void
write_bytes(struct writing *w, const char *p, size_t n)
{
	size_t left = w->n < w->size ? w->size - w->n - 1 : 0;

	memcpy(w->room + (left ? w->n : 0), p, n < left ? n : left);
	w->n += n;
}

static void
write_scalar(struct writing *w, struct slice raw)
{
	char number[JS_NUMBER_BYTES];

	if (raw.p[0] == '"')
		w->n += w->n < w->size ? json_unescape(raw, w->room + w->n, w->size - w->n) : json_unescape(raw, NULL, 0);
	else if (raw.p[0] == '-' || lex_is_digit(raw.p[0]))
		write_bytes(w, number, js_number_text(js_number(raw), number));
	else
		write_bytes(w, raw.p, raw.n);
}

/* An array's elements are separated by commas, those of arrays in it too. */
static void
element(struct writing *w, uint32_t depth)
{
	if (w->begun[depth])
		write_bytes(w, ",", 1);
	w->begun[depth] = true;
}

static void
on_open(void *arg, uint32_t depth, const char *at)
{
	struct writing *w = arg;

	if (w->object)
		return;
	if (depth > 1)
		element(w, depth - 1);
	w->begun[depth] = false;
	if (*at == '{') {
		w->object = depth;
		write_bytes(w, "[object Object]", 15);
	}
}

static void
on_close(void *arg, uint32_t depth, const char *end)
{
	struct writing *w = arg;

	(void)end;
	if (w->object == depth)
		w->object = 0;
}

static void
on_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct writing *w = arg;

	(void)escaped;
	if (w->object)
		return;
	element(w, depth);
	if (!json_is_null(raw))
		write_scalar(w, raw);
}

static const struct json_visitor visitor = { .open = on_open, .close = on_close, .scalar = on_scalar };

struct slice
js_text(struct slice raw, char *room, size_t size)
{
	struct writing w = { .room = room, .size = size };
	struct lex f = { .what = NULL };

	if (raw.p[0] == '"' && !memchr(raw.p, '\\', raw.n))
		return (struct slice){ raw.p + 1, raw.n - 2 };
	if (raw.p[0] == '{')
		return SLICE("[object Object]");
	if (raw.p[0] == '[')
		CHECK(json_walk(raw.p, raw.p + raw.n, &visitor, &w, &f));
	else
		write_scalar(&w, raw);
	room[w.n < size ? w.n : size - 1] = '\0';
	return w.n < size ? (struct slice){ room, w.n } : SLICE_NONE;
}
