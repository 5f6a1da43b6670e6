/*
 * policy/decimal.c -- see decimal.h. The digits become one large integer and a
 * power of ten, which is then multiplied in, or divided out if nothing is lost.
 */
#include "policy/decimal.h"

#define EXPONENT_MAX 64		/* 1e64 is beyond all, and so is what follows */

__extension__ typedef unsigned __int128 wide;

#define DIGITS_MAX ((wide)INT64_MAX << 60)	/* one more digit still fits */

struct number {
	wide digits;
	int shift;		/* digits * 10^shift */
};

static bool
is_digit(struct slice s, size_t i)
{
	return i < s.n && s.p[i] >= '0' && s.p[i] <= '9';
}

/* Runs of digits from *at on; false: more than can matter. */
static bool
digits_take(struct slice s, size_t *at, bool fraction, struct number *n)
{
	for (; is_digit(s, *at); ++*at) {
		if (n->digits < DIGITS_MAX) {
			n->digits = n->digits * 10 + (unsigned)(s.p[*at] - '0');
			n->shift -= fraction;
		} else if (!fraction || s.p[*at] != '0') {
			return false;
		}
	}
	return true;
}

/* The rest: "", "e3", "E-2". */
static bool
exponent_take(struct slice s, size_t at, struct number *n)
{
	bool negative = false;
	int exponent = 0;

	if (at == s.n)
		return true;
	if (s.p[at] != 'e' && s.p[at] != 'E')
		return false;
	at++;
	if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
		negative = s.p[at++] == '-';
	if (at == s.n)
		return false;
	for (; is_digit(s, at); at++)
		exponent = exponent >= EXPONENT_MAX ? EXPONENT_MAX : exponent * 10 + (s.p[at] - '0');
	n->shift += negative ? -exponent : exponent;
	return at == s.n;
}

bool
decimal_parse(struct slice text, int scale, int64_t most, int64_t *out)
{
	struct number n = { .shift = scale };
	size_t at = 0;

	if (!is_digit(text, 0) || !digits_take(text, &at, false, &n))
		return false;
	if (at < text.n && text.p[at] == '.') {
		at++;
		if (!is_digit(text, at) || !digits_take(text, &at, true, &n))
			return false;
	}
	if (!exponent_take(text, at, &n))
		return false;
	for (; n.shift < 0 && n.digits > 0; n.shift++) {
		if (n.digits % 10 != 0)
			return false;
		n.digits /= 10;
	}
	for (; n.shift > 0 && n.digits > 0 && n.digits <= (wide)most; n.shift--)
		n.digits *= 10;
	*out = (int64_t)n.digits;
	return n.digits <= (wide)most;
}
