/*
 * tests/fuzz/fuzz_canon.c -- any bytes as a JSON text of a canonical key.
 *
 * What is taken is what json_check() takes. The same text without its white
 * space and with its outermost members the other way round has the same key;
 * with a byte changed it has another one, if it is still JSON and the change is
 * more than white space.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/canon.h"
#include "shm/base/buf.h"
#include "shm/limits.h"
#include "tests/fuzz/target.h"

#define TEXT_BYTES_MAX (1u << 20)
#define MEMBERS_MAX 256

struct digest { uint64_t half[2]; };

static bool
take(struct slice text, struct digest *out, struct json_error *why)
{
	static const uint64_t secret[2] = { 1, 2 };
	struct canon_key k;
	bool valid;

	canon_begin(&k, secret);
	canon_add(&k, SLICE("before"));
	valid = canon_add_json(&k, text, why);
	canon_end(&k, out->half);
	return valid;
}

static bool
same(const struct digest *a, const struct digest *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* A valid text without white space between its tokens. */
static void
strip(struct slice text, struct buf *out)
{
	bool inside = false;

	for (size_t i = 0; i < text.n; i++) {
		if (inside && text.p[i] == '\\')
			buf_add_char(out, text.p[i++]);
		else if (text.p[i] == '"')
			inside = !inside;
		else if (!inside && is_space(text.p[i]))
			continue;
		buf_add_char(out, text.p[i]);
	}
}

/* The members of an object from the last to the first; false: it is none, or
 * has too many. */
static bool
turn_round(struct slice text, struct buf *out)
{
	struct slice name[MEMBERS_MAX], value[MEMBERS_MAX];
	struct json_iter it;
	size_t n = 0;

	if (!json_iter_object(&it, text))
		return false;
	while (n < MEMBERS_MAX && json_next(&it, &name[n], &value[n]))
		n++;
	/* A value may be nested as deep as a whole text may not. */
	if (n == MEMBERS_MAX || it.error.what)
		return false;
	buf_add_char(out, '{');
	for (size_t i = n; i > 0; i--) {
		buf_add_slice(out, name[i - 1]);
		buf_add_char(out, ':');
		buf_add_slice(out, value[i - 1]);
		if (i > 1)
			buf_add_char(out, ',');
	}
	buf_add_char(out, '}');
	return true;
}

static void
check_spellings(struct slice text, const struct digest *want, struct buf *stripped)
{
	struct json_error why;
	struct digest d;
	struct buf turned;

	strip(text, stripped);
	CHECK(!stripped->overflow && take(buf_slice(stripped), &d, &why) && same(&d, want));
	buf_init(&turned, TEXT_BYTES_MAX);
	if (turn_round(buf_slice(stripped), &turned))
		CHECK(!turned.overflow && take(buf_slice(&turned), &d, &why) && same(&d, want));
	buf_free(&turned);
}

/* Which byte is changed follows from the bytes. */
static void
check_change(struct slice text, const struct digest *want, const struct buf *stripped)
{
	char *copy = malloc(text.n);
	size_t at = (size_t)(want->half[0] % text.n);
	struct json_error why;
	struct digest d;
	struct buf again;

	CHECK(copy);
	memcpy(copy, text.p, text.n);
	copy[at] = (char)(copy[at] ^ (char)(1 + want->half[1] % 127));
	if (take((struct slice){ copy, text.n }, &d, &why)) {
		buf_init(&again, TEXT_BYTES_MAX);
		strip((struct slice){ copy, text.n }, &again);
		CHECK(slice_eq(buf_slice(&again), buf_slice(stripped)) == same(&d, want));
		buf_free(&again);
	}
	free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice text = { (const char *)data, n };
	struct json_error why = { 0 }, why_not = { 0 };
	struct digest d;
	struct buf stripped;
	bool valid = json_check(text, &why_not);

	CHECK(take(text, &d, &why) == valid);
	if (!valid) {
		CHECK(why.offset == why_not.offset && strcmp(why.what, why_not.what) == 0);
		return 0;
	}
	buf_init(&stripped, TEXT_BYTES_MAX);
	check_spellings(text, &d, &stripped);
	check_change(text, &d, &stripped);
	buf_free(&stripped);
	return 0;
}
