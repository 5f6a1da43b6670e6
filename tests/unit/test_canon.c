/*
 * The canonical key: what counts and what does not, by hand and by chance.
 *
 * By chance: values are built from smaller ones, each in two spellings (other
 * white space, another order of members) and in a canonical one, which is made
 * here by sorting. Two keys must be the same exactly where the canonical
 * spellings are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/canon.h"
#include "shm/base/buf.h"
#include "shm/limits.h"

static const uint64_t secret[2] = { UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210) };

struct digest { uint64_t half[2]; };

static bool
same(struct digest a, struct digest b)
{
	return a.half[0] == b.half[0] && a.half[1] == b.half[1];
}

/* Of one JSON text, in memory of exactly its size. */
static bool
try_digest(struct slice text, struct digest *out)
{
	char *exact = test_malloc(text.n ? text.n : 1);
	struct json_error why;
	struct canon_key k;
	bool valid;

	memcpy(exact, text.p, text.n);
	canon_begin(&k, secret);
	valid = canon_add_json(&k, (struct slice){ exact, text.n }, &why);
	canon_end(&k, out->half);
	test_free(exact);
	return valid;
}

static struct digest
digest(struct slice text)
{
	struct digest d;

	if (!try_digest(text, &d))
		fail_msg("refused: %.*s", SLICE_FMT(text));
	return d;
}

/* ---- by hand ---- */

static void
order_of_members_and_white_space_do_not_count(void **state)
{
	static const char *const pairs[][2] = {
		{ "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}" },
		{ "{\"a\":1,\"b\":2,\"c\":[]}", " { \"c\" : [ ] ,\n\t\"b\":2, \"a\" :1 }\r\n" },
		{ "{\"a\":{\"x\":1,\"y\":{\"p\":1,\"q\":2}}}", "{\"a\":{\"y\":{\"q\":2,\"p\":1},\"x\":1}}" },
		{ "[{\"a\":1,\"b\":2},3]", "[{\"b\":2,\"a\":1},3]" },
		{ "[]", "[ ]" }, { "{}", "{\n}" }, { "1", " 1 " },
		{ "{\"a\":1,\"a\":1,\"b\":2}", "{\"a\":1,\"b\":2,\"a\":1}" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		if (!same(digest(slice_of(pairs[i][0])), digest(slice_of(pairs[i][1]))))
			fail_msg("differ: %s and %s", pairs[i][0], pairs[i][1]);
}

/* Each of these is another value than all the others. */
static void
everything_else_counts(void **state)
{
	static const char *const texts[] = {
		"null", "true", "false", "0", "-0", "1", "10", "1.0", "1e0", "1E0", "12345678", "123456789", "\"\"", "\"1\"",
		"\"null\"", "\"a\"", "\"A\"", "\"\\u0061\"", "\"a \"", "\" a\"", "\"abcdefg\"", "\"abcdefgh\"", "\"abcdefghi\"",
		"\"/\"", "\"\\/\"", "\"[]\"", "[]", "[[]]", "[[],[]]", "[[[]]]", "[{}]", "{}", "[1]", "[1,2]", "[2,1]", "[12]",
		"[[1],2]", "[1,[2]]", "[[1,2]]", "[[1],[2]]", "[1,1]", "[1,1,1]", "[\"1\",2]", "[\"1,2\"]",
		"{\"a\":1}", "{\"a\":\"1\"}", "{\"a\":2}", "{\"b\":1}", "{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":1}", "{\"a\":1,\"a\":1}",
		"{\"a\":1,\"a\":1,\"a\":1}", "{\"a\":{}}", "{\"a\":[]}", "{\"a\":null}", "{\"a\":[1]}", "{\"a\":[1,2]}", "{\"a\":[2,1]}",
		"{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1,\"b\":1}}", "{\"a.b\":1}", "{\"a\":{\"b\":{}}}", "{\"a\":{},\"b\":{}}",
		"{\"\\u0061\":1}", "{\"\":1}", "{\"\":{\"\":1}}", "{\"a\":\"b\"}", "{\"b\":\"a\"}", "[\"a\",\"b\"]",
		"[{\"a\":1},{\"b\":2}]", "[{\"b\":2},{\"a\":1}]", "[{\"a\":1,\"b\":2}]", "[{\"a\":1},{\"b\":2},{}]",
		"{\"a\":[{\"b\":1},{\"c\":1}]}", "{\"a\":[{\"b\":1,\"c\":1}]}", "{\"a\":[{\"b\":1}],\"c\":1}", "{\"a\":1,\"b\":{\"c\":2}}",
		"{\"a\":{\"b\":1},\"c\":{\"d\":2}}", "{\"a\":{\"d\":2},\"c\":{\"b\":1}}", "{\"a\":{\"b\":1,\"c\":{\"d\":2}}}",
	};
	const size_t n = sizeof(texts) / sizeof(texts[0]);
	struct digest all[sizeof(texts) / sizeof(texts[0])];

	(void)state;
	for (size_t i = 0; i < n; i++) {
		all[i] = digest(slice_of(texts[i]));
		for (size_t k = 0; k < i; k++)
			if (same(all[i], all[k]))
				fail_msg("the same: %s and %s", texts[i], texts[k]);
	}
}

/* Texts of zeros in all lengths, and of the same bytes cut in all places. */
static void
lengths_count(void **state)
{
	char zeros[40] = { 0 };
	struct digest all[80];
	size_t n = 0;

	(void)state;
	for (size_t length = 0; length < 40; length++) {
		struct canon_key k;

		canon_begin(&k, secret);
		canon_add(&k, (struct slice){ zeros, length });
		canon_end(&k, all[n++].half);
		if (length == 39)
			break;
		canon_begin(&k, secret);
		canon_add(&k, (struct slice){ zeros, length });
		canon_add(&k, (struct slice){ zeros, 39 - length });
		canon_end(&k, all[n++].half);
	}
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++)
			assert_false(same(all[i], all[k]));
}

static struct digest
of_parts(const uint64_t key[2], struct slice a, struct slice b, const char *json)
{
	struct json_error why;
	struct canon_key k;
	struct digest d;

	canon_begin(&k, key);
	canon_add(&k, a);
	canon_add(&k, b);
	if (json)
		assert_true(canon_add_json(&k, slice_of(json), &why));
	canon_end(&k, d.half);
	return d;
}

static void
parts_are_told_apart(void **state)
{
	const uint64_t other[2] = { secret[0], secret[1] ^ 1 };
	const struct digest all[] = {
		of_parts(secret, SLICE("ab"), SLICE("c"), NULL), of_parts(secret, SLICE("a"), SLICE("bc"), NULL),
		of_parts(secret, SLICE("c"), SLICE("ab"), NULL), of_parts(secret, SLICE("abc"), SLICE(""), NULL),
		of_parts(secret, SLICE(""), SLICE("abc"), NULL), of_parts(secret, SLICE_NONE, SLICE("abc"), NULL),
		of_parts(secret, SLICE("abc"), SLICE_NONE, NULL), of_parts(secret, SLICE_NONE, SLICE_NONE, NULL),
		of_parts(secret, SLICE(""), SLICE_NONE, NULL), of_parts(secret, SLICE(""), SLICE(""), NULL),
		of_parts(secret, SLICE("ab"), SLICE("c"), "1"), of_parts(secret, SLICE("ab"), SLICE("c"), "\"\""),
		of_parts(secret, SLICE("ab"), SLICE("c"), "\"c\""), of_parts(other, SLICE("ab"), SLICE("c"), NULL),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (size_t k = 0; k < i; k++)
			assert_false(same(all[i], all[k]));
	assert_true(same(all[0], of_parts(secret, SLICE("ab"), SLICE("c"), NULL)));
	assert_true(same(all[10], of_parts(secret, SLICE("ab"), SLICE("c"), " 1\n")));
}

/* Two texts in a row are not one, and what stands in front of them counts in each. */
static void
several_texts_make_one_key(void **state)
{
	static const char *const texts[][2] = {
		{ "[1]", "[2]" }, { "[2]", "[1]" }, { "[1,2]", "[]" }, { "[]", "[1,2]" }, { "{\"a\":1}", "{}" }, { "{}", "{\"a\":1}" },
	};
	struct digest all[6];

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		struct json_error why;
		struct canon_key k;

		canon_begin(&k, secret);
		assert_true(canon_add_json(&k, slice_of(texts[i][0]), &why));
		assert_true(canon_add_json(&k, slice_of(texts[i][1]), &why));
		canon_end(&k, all[i].half);
		for (size_t j = 0; j < i; j++)
			assert_false(same(all[i], all[j]));
	}
}

static void
what_is_not_json_leaves_the_key_alone(void **state)
{
	static const struct { const char *text; size_t offset; } wrong[] = {
		{ "", 0 }, { "{\"a\":1", 6 }, { "[1,2", 4 }, { "{\"a\":[1,{\"b\":2}]]", 16 }, { "1 2", 2 }, { "{\"a\":01}", 6 }, { "\"a", 2 },
	};
	struct json_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct canon_key k;
		struct digest d;

		canon_begin(&k, secret);
		canon_add(&k, SLICE("ab"));
		assert_false(canon_add_json(&k, slice_of(wrong[i].text), &why));
		assert_int_equal(why.offset, wrong[i].offset);
		assert_non_null(why.what);
		canon_add(&k, SLICE("c"));
		canon_end(&k, d.half);
		assert_true(same(d, of_parts(secret, SLICE("ab"), SLICE("c"), NULL)));
		assert_true(k.secret[0] == 0 && k.secret[1] == 0 && k.row.v0 == 0);
	}
}

/* Brackets, one in the other. */
static bool
try_nested(size_t depth, const char *opener, const char *innermost, char closer, struct digest *out)
{
	char text[8 * (JSON_DEPTH_MAX + 1)];
	size_t n = 0;

	for (size_t i = 0; i < depth; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", i + 1 < depth ? opener : innermost);
	for (size_t i = 0; i < depth; i++)
		text[n++] = closer;
	return try_digest((struct slice){ text, n }, out);
}

static void
depth_is_bounded(void **state)
{
	struct digest objects, arrays, unused;

	(void)state;
	assert_true(try_nested(JSON_DEPTH_MAX, "{\"\":", "{", '}', &objects));
	assert_true(try_nested(JSON_DEPTH_MAX, "[", "[", ']', &arrays));
	assert_false(same(objects, arrays));
	assert_false(try_nested(JSON_DEPTH_MAX + 1, "{\"\":", "{", '}', &unused));
	assert_false(try_nested(JSON_DEPTH_MAX + 1, "[", "[", ']', &unused));
}

/* ---- to the word ---- */

/* The first words of things, as they stand in a row: four bits of kind, three of length. */
#define KEY (UINT64_C(1) << 59)
#define MEMBER (UINT64_C(2) << 59)
#define PART (UINT64_C(3) << 59)
#define ABSENT (UINT64_C(4) << 59)
#define JSON (UINT64_C(5) << 59)
#define NAME (UINT64_C(6) << 59)
#define STRING (UINT64_C(7) << 59)
#define PLAIN (UINT64_C(8) << 59)
#define OBJECT (UINT64_C(9) << 59)
#define ARRAY (UINT64_C(10) << 59)
#define ARRAY_END (UINT64_C(11) << 59)
#define SHORT(n) (UINT64_C(n) << 56)
#define LONG(n) (UINT64_C(1) << 63 | (n))

static uint64_t
eight(const char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, 8);
	return word;
}

static void
add_up(struct siphash *sum, struct siphash more)
{
	sum->lo += more.lo;
	sum->hi += more.hi + (sum->lo < more.lo);
}

#define ROW(words) siphash128(secret, (struct slice){ (const char *)(words), sizeof(words) })

/* The definition, by hand. Until the lower halves have a carry, so that both halves count. */
static void
a_key_is_what_its_definition_says(void **state)
{
	bool carried = false;

	(void)state;
	for (char digit = '0'; digit <= '9'; digit++) {
		const uint64_t first[] = { MEMBER, NAME | SHORT(1) | 'a', PLAIN | SHORT(1) | (uint64_t)digit };
		const uint64_t second[] = {
			MEMBER, LONG(11) | NAME, eight("eleven_b"), eight("yte\0\0\0\0"), ARRAY, STRING | SHORT(4) | 0x74786574,
			OBJECT, 0, 0, ARRAY_END,
		};
		struct siphash sum = { 0, 0 }, a = ROW(first), b = ROW(second), want;
		struct json_error why;
		struct canon_key k;
		uint64_t key[2];
		char text[64];

		add_up(&sum, a);
		add_up(&sum, b);
		carried |= sum.lo < a.lo;
		const uint64_t whole[] = { KEY, PART | SHORT(3) | 0x544547, ABSENT, JSON, OBJECT | 2, sum.lo, sum.hi };
		want = ROW(whole);

		snprintf(text, sizeof(text), "{\"eleven_byte\":[\"text\",{}],\"a\":%c}", digit);
		canon_begin(&k, secret);
		canon_add(&k, SLICE("GET"));
		canon_add(&k, SLICE_NONE);
		assert_true(canon_add_json(&k, slice_of(text), &why));
		canon_end(&k, key);
		assert_true(key[0] == want.lo && key[1] == want.hi);
	}
	assert_true(carried);
}

/* ---- by chance ---- */

#define ROUNDS 150
#define VALUES 300
#define SCALARS 40
#define MEMBERS_MAX 5
#define TEXT_BYTES_MAX 4096

struct value {
	struct buf spelling[2], canonical;
	struct digest digest;
};

static uint64_t chance;

static uint32_t
dice(uint32_t sides)
{
	chance = chance * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)((chance >> 33) % sides);
}

static void
add_space(struct buf *b)
{
	static const char *const spaces[] = { "", "", "", " ", "\n", "\t ", "\r\n                    " };

	buf_add_str(b, spaces[dice(7)]);
}

static void
add_token(struct value *v, struct slice text)
{
	buf_add_slice(&v->spelling[0], text);
	buf_add_slice(&v->spelling[1], text);
	buf_add_slice(&v->canonical, text);
}

/* Few texts, so that equal values come about. */
static void
make_scalar(struct value *v)
{
	static const char *const texts[] = {
		"0", "1", "-1.5e3", "true", "null", "\"\"", "\"a\"", "\"a b\"", "\"1\"", "\"\\n\"", "\"{\\\"a\\\":1}\"", "1234567890123",
		"\"a text of more than a few bytes, with white space and [brackets]\"",
	};

	add_token(v, slice_of(texts[dice(sizeof(texts) / sizeof(texts[0]))]));
}

struct part { const struct value *value; const char *name; char text[TEXT_BYTES_MAX + 16]; };

static int
by_text(const void *a, const void *b)
{
	return strcmp((*(struct part *const *)a)->text, (*(struct part *const *)b)->text);
}

/* One spelling of an object or an array of these parts. */
static void
spell(struct buf *out, struct part *const *parts, uint32_t n, int spelling, const char *brackets)
{
	buf_add_char(out, brackets[0]);
	for (uint32_t i = 0; i < n; i++) {
		if (i > 0)
			buf_add_char(out, ',');
		add_space(out);
		if (parts[i]->name) {
			buf_add_str(out, parts[i]->name);
			add_space(out);
			buf_add_char(out, ':');
			add_space(out);
		}
		buf_add_slice(out, buf_slice(&parts[i]->value->spelling[spelling]));
		add_space(out);
	}
	buf_add_char(out, brackets[1]);
}

static void
shuffle(struct part **parts, uint32_t n)
{
	for (uint32_t i = n; i > 1; i--) {
		uint32_t k = dice(i);
		struct part *was = parts[i - 1];

		parts[i - 1] = parts[k];
		parts[k] = was;
	}
}

static void
make_container(struct value *v, const struct value *smaller, uint32_t count)
{
	static const char *const names[] = { "\"a\"", "\"b\"", "\"\"", "\"type\"", "\"a_longer_name\"", "\"\\u0061\"" };
	static struct part all[MEMBERS_MAX];
	struct part *parts[MEMBERS_MAX];
	bool object = dice(2);
	uint32_t n = dice(MEMBERS_MAX + 1);

	for (uint32_t i = 0; i < n; i++) {
		struct part *p = parts[i] = &all[i];

		p->value = &smaller[dice(count)];
		p->name = object ? names[dice(6)] : NULL;
		snprintf(p->text, sizeof(p->text), "%s%s%.*s", object ? p->name : "", object ? ":" : "",
		    SLICE_FMT(buf_slice(&p->value->canonical)));
	}
	for (int spelling = 0; spelling < 2; spelling++) {
		spell(&v->spelling[spelling], parts, n, spelling, object ? "{}" : "[]");
		if (object)
			shuffle(parts, n);
	}
	if (object)
		qsort(parts, n, sizeof(parts[0]), by_text);
	buf_add_char(&v->canonical, object ? '{' : '[');
	for (uint32_t i = 0; i < n; i++)
		buf_printf(&v->canonical, "%s%s", i > 0 ? "," : "", parts[i]->text);
	buf_add_char(&v->canonical, object ? '}' : ']');
}

/* The text without white space between its tokens. */
static void
strip(struct slice text, struct buf *out)
{
	bool inside = false;

	buf_clear(out);
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if (inside && c == '\\') {
			buf_add_char(out, c);
			c = text.p[++i];
		} else if (c == '"') {
			inside = !inside;
		} else if (!inside && (c == ' ' || c == '\n' || c == '\t' || c == '\r')) {
			continue;
		}
		buf_add_char(out, c);
	}
}

/* Other bytes, and so another value: what is canonical has the same bytes in
 * another order. Returns whether the change was still JSON, and told apart. */
static bool
change_one_byte(const struct value *v, struct buf *before, struct buf *after)
{
	static const char bytes[] = "0123456789abtn\"{}[],:. \\-e";
	char text[TEXT_BYTES_MAX];
	struct slice changed = { text, v->spelling[0].n };
	struct digest d;

	memcpy(text, v->spelling[0].p, changed.n);
	text[dice((uint32_t)changed.n)] = bytes[dice(sizeof(bytes) - 1)];
	if (!try_digest(changed, &d))
		return false;
	strip(buf_slice(&v->spelling[0]), before);
	strip(changed, after);
	if (slice_eq(buf_slice(before), buf_slice(after)) != same(d, v->digest))
		fail_msg("%.*s\nand\n%.*s", SLICE_FMT(buf_slice(&v->spelling[0])), SLICE_FMT(changed));
	return !same(d, v->digest);
}

static bool
fits(const struct value *v)
{
	return !v->spelling[0].overflow && !v->spelling[1].overflow && !v->canonical.overflow;
}

static void
make_values(struct value *values)
{
	for (uint32_t i = 0; i < VALUES; i++) {
		struct value *v = &values[i];

		do {
			buf_clear(&v->spelling[0]);
			buf_clear(&v->spelling[1]);
			buf_clear(&v->canonical);
			if (i < SCALARS)
				make_scalar(v);
			else
				make_container(v, values, i);
		} while (!fits(v));
		v->digest = digest(buf_slice(&v->spelling[0]));
		if (!same(v->digest, digest(buf_slice(&v->spelling[1]))))
			fail_msg("%.*s\nand\n%.*s", SLICE_FMT(buf_slice(&v->spelling[0])), SLICE_FMT(buf_slice(&v->spelling[1])));
	}
}

static void
keys_are_the_same_where_values_are(void **state)
{
	static struct value values[VALUES];
	struct buf before, after;
	uint64_t equal = 0, pairs = 0, changes = 0;

	(void)state;
	buf_init(&before, TEXT_BYTES_MAX);
	buf_init(&after, TEXT_BYTES_MAX);
	for (uint32_t i = 0; i < VALUES; i++) {
		buf_init(&values[i].spelling[0], TEXT_BYTES_MAX);
		buf_init(&values[i].spelling[1], TEXT_BYTES_MAX);
		buf_init(&values[i].canonical, TEXT_BYTES_MAX);
	}
	for (chance = 1; pairs < (uint64_t)ROUNDS * VALUES * (VALUES - 1) / 2;) {
		make_values(values);
		for (uint32_t i = 0; i < VALUES; i++) {
			for (uint32_t k = 0; k < i; k++, pairs++) {
				bool equals = slice_eq(buf_slice(&values[i].canonical), buf_slice(&values[k].canonical));

				if (equals != same(values[i].digest, values[k].digest))
					fail_msg("%.*s\nand\n%.*s", SLICE_FMT(buf_slice(&values[i].canonical)),
					    SLICE_FMT(buf_slice(&values[k].canonical)));
				equal += equals;
			}
			changes += change_one_byte(&values[i], &before, &after);
		}
	}
	print_message("%llu pairs, %llu of them equal; %llu changes of a byte\n", (unsigned long long)pairs,
	    (unsigned long long)equal, (unsigned long long)changes);
	assert_true(equal > 1000 && changes > 1000);
	for (uint32_t i = 0; i < VALUES; i++) {
		buf_free(&values[i].spelling[0]);
		buf_free(&values[i].spelling[1]);
		buf_free(&values[i].canonical);
	}
	buf_free(&before);
	buf_free(&after);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_of_members_and_white_space_do_not_count),
		cmocka_unit_test(everything_else_counts),
		cmocka_unit_test(lengths_count),
		cmocka_unit_test(parts_are_told_apart),
		cmocka_unit_test(several_texts_make_one_key),
		cmocka_unit_test(what_is_not_json_leaves_the_key_alone),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(a_key_is_what_its_definition_says),
		cmocka_unit_test(keys_are_the_same_where_values_are),
	};

	return cmocka_run_group_tests_name("canon", tests, NULL, NULL);
}
