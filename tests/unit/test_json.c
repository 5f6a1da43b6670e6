/*
 * The JSON reader: what is JSON and what is not, to the byte, and the strings.
 *
 * Every string test runs at several distances from the text's end, because
 * the fast path reads 16 bytes at a time and the slow one the rest; texts lie
 * in memory of exactly their size, so that the sanitizer sees a byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "policy/json.h"
#include "policy/json_lex.h"

/* A copy without a spare byte behind it. */
static struct slice
exact(const char *text)
{
	size_t n = strlen(text);
	char *p = test_malloc(n ? n : 1);

	memcpy(p, text, n);
	return (struct slice){ p, n };
}

static void
exact_free(struct slice s)
{
	test_free((void *)(uintptr_t)s.p);
}

static bool
checks(const char *text)
{
	struct json_error why;
	struct slice s = exact(text);
	bool ok = json_check(s, &why);

	exact_free(s);
	return ok;
}

static void
valid_texts_pass(void **state)
{
	static const char *const texts[] = {
		"null", "true", "false", "0", "-0", "1", "-1", "10", "1.5", "-0.0", "1e5", "1E+5", "1e-5", "0e0",
		"123456789012345678901234567890", "\"\"", "\"a\"", "[]", "{}", "[ ]", "{ }", " [1 , 2]\n",
		"{\"a\":1}", "{\"a\":{\"b\":[1,{\"c\":null}]}}", "[[[]],{}]", "\t\r\n 1 ",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"", "\"\\ud800\"", "\"\xc3\xa9\"", "\"\xff\"",
		"\"0123456789abcdef0123456789abcdef\\\"0123456789abcdef\"", "{\"\":\"\"}",
		"\"0123456789abcde\\n\"", "\"0123456789abcde\\u0041x\"",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!checks(texts[i]))
			fail_msg("refused: %s", texts[i]);
}

static void
invalid_texts_are_refused(void **state)
{
	static const char *const texts[] = {
		"", " ", "nul", "nulll", "tru", "True", "01", "-", "-a", "+1", ".5", "1.", "1.e5", "1e", "1e+", "0x10",
		"1 2", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u\"", "'a'",
		"\"a\nb\"", "\"\t\"", "\"\x01\"", "\"\x1f\"", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1 2]",
		"{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{a:1}", "{\"a\" 1}", "{\"a\":}",
		"{1:2}", "[}", "{]", "[1}", "{\"a\":1]", "[]]", "{}x", "\"a\"\"b\"", "\xef\xbb\xbf{}", "[1,2]\v",
		"\"0123456789abcdef0123456789abcdef", "\"0123456789abcde\\", "\"0123456789abcdef\x01\"",
		"\"0123456789abcde\\u00\"", "nan", "Infinity", "{\"a\":1 \"b\":2}", "// 1\n1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (checks(texts[i]))
			fail_msg("taken: %s", texts[i]);
}

static void
errors_name_the_byte(void **state)
{
	static const struct { const char *text; size_t offset; const char *what; } cases[] = {
		{ "{\"a\":1 x}", 7, "expected ',' or '}'" },
		{ "[1 2]", 3, "expected ',' or ']'" },
		{ "{\"a\" 1}", 5, "expected ':'" },
		{ "{a:1}", 1, "expected a member's name in quotes" },
		{ "[1] 2", 4, "bytes behind the value" },
		{ "\"ab\x01\"", 3, "control character in a string" },
		{ "\"0123456789abcdef\\q\"", 18, "unknown escape in a string" },
		{ "\"\\u00G0\"", 5, "expected four hexadecimal digits after \\u" },
		{ "[\"a", 3, "unterminated string" },
		{ "[1e]", 3, "expected a digit" },
		{ "[tru]", 1, "expected a value" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct json_error why;

		assert_false(json_check(slice_of(cases[i].text), &why));
		assert_string_equal(why.what, cases[i].what);
		assert_int_equal(why.offset, cases[i].offset);
	}
}

/* The same string, of every length and with every byte at every place. */
static void
strings_end_where_they_end(void **state)
{
	char text[80];

	(void)state;
	for (size_t n = 0; n < 40; n++)
		for (size_t at = 0; at <= n; at++)
			for (int c = 1; c < 256; c++) {
				struct json_error why;

				memset(text, 'x', sizeof(text));
				text[0] = '"';
				text[1 + n] = '"';
				if (at < n)
					text[1 + at] = (char)c;
				else if (c > 1)
					continue;
				bool plain = at == n || (c >= 0x20 && c != '"' && c != '\\');
				assert_int_equal(json_check((struct slice){ text, n + 2 }, &why), plain);
				struct lex a = { .what = NULL }, b = { .what = NULL };
				assert_ptr_equal(lex_string(text + 1, text + n + 2, &a),
				    lex_string_portable(text + 1, text + n + 2, &b));
				assert_ptr_equal(a.at, b.at);
			}
}

/* Escapes, whole, wrong and cut short, over every border of the blocks that
 * are looked at at once, one alone and two in a row. */
static void
escapes_at_every_place(void **state)
{
	static const char *const pieces[] = {
		"\\n", "\\\"", "\\\\", "\\u00e9", "\\uD83D\\uDE00", "\\x", "\\u12g4", "\\u1", "\\", "\x01", "\"", "\\\\\"",
	};
	char text[160];

	(void)state;
	for (size_t n = 1; n < sizeof(text); n++)
		for (size_t at = 0; at < n; at++)
			for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++)
				for (size_t gap = 0; gap < 3; gap++) {
					struct lex a = { .what = NULL }, b = { .what = NULL };
					const size_t size = strlen(pieces[i]);

					memset(text, 'x', sizeof(text));
					text[n - 1] = '"';
					memcpy(text + at, pieces[i], size < n - at ? size : n - at);
					if (gap > 0 && at + size + gap < n - 1)
						memcpy(text + at + size + gap - 1, "\\\"", 2);
					assert_ptr_equal(lex_string(text, text + n, &a), lex_string_portable(text, text + n, &b));
					assert_ptr_equal(a.at, b.at);
					assert_ptr_equal(a.what, b.what);
					if (!a.what)
						assert_int_equal(a.escaped, b.escaped);
				}
}

static void
depth_is_bounded(void **state)
{
	char text[2 * JSON_DEPTH_MAX + 4];
	struct json_error why;

	(void)state;
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	assert_true(json_check((struct slice){ text, 2 * JSON_DEPTH_MAX }, &why));
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	assert_false(json_check((struct slice){ text, 2 * JSON_DEPTH_MAX + 2 }, &why));
	assert_string_equal(why.what, "nested too deep");
	assert_int_equal(why.offset, JSON_DEPTH_MAX);
}

static void
members_are_walked(void **state)
{
	struct json_iter it;
	struct slice name, value;

	(void)state;
	assert_true(json_iter_object(&it, SLICE("{ \"a\" : [1,{}] , \"b\":\"x\\\"y\" }")));
	assert_true(json_next(&it, &name, &value));
	assert_true(slice_eq(name, SLICE("\"a\"")) && slice_eq(value, SLICE("[1,{}]")));
	assert_true(json_next(&it, &name, &value));
	assert_true(slice_eq(name, SLICE("\"b\"")) && slice_eq(value, SLICE("\"x\\\"y\"")));
	assert_false(json_next(&it, &name, &value));
	assert_null(it.error.what);
	assert_false(json_next(&it, &name, &value));

	assert_true(json_iter_array(&it, SLICE("[1,[2],3")));
	for (int i = 0; i < 3; i++)
		assert_true(json_next(&it, &name, &value));
	assert_false(json_next(&it, &name, &value));
	assert_string_equal(it.error.what, "expected ',' or ']'");
	assert_int_equal(it.error.offset, 8);

	assert_false(json_iter_object(&it, SLICE("[1]")));
	assert_false(json_iter_array(&it, SLICE("{}")));
	assert_false(json_iter_array(&it, SLICE("")));
	assert_true(json_iter_array(&it, SLICE("[]")));
	assert_false(json_next(&it, &name, &value));
	assert_null(it.error.what);
	assert_true(json_iter_array(&it, SLICE("[1,]")));
	assert_true(json_next(&it, &name, &value));
	assert_false(json_next(&it, &name, &value));
	assert_non_null(it.error.what);
}

/* The walk along a text says what a check of it says, and of the same byte. */
static void
walk_as_checked(const char *text, size_t n)
{
	char *p = test_malloc(n);
	struct slice exact_text = { memcpy(p, text, n), n }, name, value;
	struct json_error why = { 0 };
	struct json_iter it;
	bool ok = json_check(exact_text, &why);

	if (json_iter_object(&it, exact_text)) {
		while (json_next(&it, &name, &value))
			assert_true(value.p >= p && value.p + value.n <= p + n && value.n > 0);
		if (it.error.what) {
			if (ok || it.error.offset != why.offset || strcmp(it.error.what, why.what) != 0)
				fail_msg("%zu: %s, checked %d %zu: %.*s", it.error.offset, it.error.what, ok,
				    why.offset, (int)n, text);
		} else if (!ok && strcmp(why.what, "bytes behind the value") != 0) {
			fail_msg("taken, but %s at %zu: %.*s", why.what, why.offset, (int)n, text);
		}
	}
	test_free(p);
}

static void
a_walk_takes_what_a_check_takes(void **state)
{
	static const char text[] = "{\"id\":\"msg_01XhT4m8QvYz9cK2nJ5rLw7B\",\"n\":120,\"zero\":0,\"none\":null,"
	    "\"inner\":{\"a_name_of_more_than_sixteen_bytes\":1831,\"list\":[1,\"two\",{}]},\"yes\":true,\"r\":-1.5e3 ,"
	    " \"es\\u0063aped\":\"\\n and text of more than sixteen bytes\",\"last\":7}";
	static const char bytes[] = "{}[]\",:\\ 0x-n\n\x01";
	char changed[sizeof(text)];

	(void)state;
	for (size_t n = 1; n < sizeof(text); n++)
		walk_as_checked(text, n);
	for (size_t at = 0; at + 1 < sizeof(text); at++)
		for (size_t i = 0; i + 1 < sizeof(bytes); i++) {
			memcpy(changed, text, sizeof(text));
			changed[at] = bytes[i];
			walk_as_checked(changed, sizeof(text) - 1);
		}
}

static void
inner_objects_are_walked_in_one_pass(void **state)
{
	struct json_iter it, inner;
	struct slice name, value;
	char tmp[JSON_NAME_BYTES];

	(void)state;
	assert_true(json_iter_object(&it, SLICE("{\"\\u0061\":{\"b\":{\"c\":1},\"d\":2 },\"e\":[3],\"f\":[{}],"
	    "\"passed over, whatever is in it\":{1:[}},\"g\":\"h\"}")));
	assert_true(json_step(&it, &name, &value) && slice_eq(value, SLICE("{")));
	assert_true(slice_eq(json_name(&it, name, tmp), SLICE("a")));
	assert_true(json_enter_object(&it, &inner));
	assert_true(json_step(&inner, &name, &value) && slice_eq(json_name(&inner, name, tmp), SLICE("b")));
	assert_true(json_step(&inner, &name, &value) && slice_eq(value, SLICE("2")));
	assert_false(json_step(&inner, &name, &value));
	assert_false(json_step(&inner, &name, &value));
	json_leave(&it, &inner);
	assert_true(json_step(&it, &name, &value) && slice_eq(value, SLICE("[")));
	assert_false(json_enter_object(&it, &inner));
	assert_true(json_step(&it, &name, &value) && slice_eq(json_name(&it, name, tmp), SLICE("f")));
	assert_true(json_span(&it, &value) && slice_eq(value, SLICE("[{}]")));
	assert_true(json_step(&it, &name, &value) && json_step(&it, &name, &value));
	assert_true(slice_eq(json_name(&it, name, tmp), SLICE("g")) && slice_eq(value, SLICE("\"h\"")));
	assert_false(json_step(&it, &name, &value));
	assert_null(it.error.what);

	/* An error inside ends the walk outside; so does an end that is missing. */
	assert_true(json_iter_object(&it, SLICE("{\"a\":{\"b\":1 x},\"c\":2}")) && json_step(&it, &name, &value));
	assert_true(json_enter_object(&it, &inner) && json_step(&inner, &name, &value) && !json_step(&inner, &name, &value));
	json_leave(&it, &inner);
	assert_false(json_step(&it, &name, &value));
	assert_string_equal(it.error.what, "expected ',' or '}'");
	assert_int_equal(it.error.offset, 12);
	assert_true(json_iter_object(&it, SLICE("{\"a\":{\"b\":[\"}\"")) && json_step(&it, &name, &value));
	assert_false(json_step(&it, &name, &value));
	assert_non_null(it.error.what);
}

static void
members_are_found(void **state)
{
	struct slice v;
	struct slice o = SLICE("{\"usage\":{\"n\":12},\"\\u0061b\":true,\"usage\":2}");

	(void)state;
	assert_true(json_get(o, "usage", &v) && slice_eq(v, SLICE("{\"n\":12}")));
	assert_true(json_get(o, "ab", &v) && slice_eq(v, SLICE("true")));
	assert_false(json_get(o, "n", &v));
	assert_false(json_get(SLICE("[1]"), "n", &v));
	assert_false(json_get(SLICE(""), "n", &v));
}

static void
scalars_are_read(void **state)
{
	int64_t n;
	bool b;

	(void)state;
	assert_true(json_to_i64(SLICE("-12"), &n) && n == -12);
	assert_true(json_to_i64(SLICE("0"), &n) && n == 0);
	assert_true(json_to_i64(SLICE("9223372036854775807"), &n) && n == INT64_MAX);
	assert_true(json_to_i64(SLICE("-9223372036854775808"), &n) && n == INT64_MIN);
	static const char *const not_integers[] = { "9223372036854775808", "1e3", "1.0", "01", "-01", "", "-",
		"\"1\"", "null", "true", " 1" };
	for (size_t i = 0; i < sizeof(not_integers) / sizeof(not_integers[0]); i++)
		if (json_to_i64(slice_of(not_integers[i]), &n))
			fail_msg("taken: %s", not_integers[i]);
	assert_true(json_to_bool(SLICE("true"), &b) && b);
	assert_true(json_to_bool(SLICE("false"), &b) && !b);
	assert_false(json_to_bool(SLICE("null"), &b));
	assert_true(json_is_null(SLICE("null")));
	assert_false(json_is_null(SLICE("\"null\"")));
}

static void
strings_are_unescaped(void **state)
{
	static const struct { const char *raw, *text; } cases[] = {
		{ "\"\"", "" }, { "\"abc\"", "abc" }, { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
		{ "\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac" }, { "\"\\uD83D\\uDE00\"", "\xf0\x9f\x98\x80" },
		{ "\"\\ud83d\"", "\xef\xbf\xbd" }, { "\"\\ude00x\"", "\xef\xbf\xbdx" },
		{ "\"\\ud83d\\u0041\"", "\xef\xbf\xbd""A" }, { "\"\\ud83d\\n\"", "\xef\xbf\xbd\n" },
		{ "\"\\ud83d\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
	};
	char out[32];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct slice raw = exact(cases[i].raw);

		assert_int_equal(json_unescape(raw, out, sizeof(out)), strlen(cases[i].text));
		assert_string_equal(out, cases[i].text);
		assert_true(json_string_eq(raw, cases[i].text));
		assert_false(json_string_eq(raw, "something else"));
		exact_free(raw);
	}
	assert_int_equal(json_unescape(SLICE("\"abcdef\""), out, 4), 6);
	assert_string_equal(out, "abc");
	assert_int_equal(json_unescape(SLICE("\"abcdef\""), NULL, 0), 6);
	assert_int_equal(json_unescape(SLICE("abc"), out, sizeof(out)), SIZE_MAX);
	assert_int_equal(json_unescape(SLICE("\""), out, sizeof(out)), SIZE_MAX);
	assert_int_equal(json_unescape(SLICE("\"\\x\""), out, sizeof(out)), SIZE_MAX);
	assert_int_equal(json_unescape(SLICE("\"a\"b\""), out, sizeof(out)), SIZE_MAX);
	assert_false(json_string_eq(SLICE("12"), "12"));
	assert_false(json_string_eq(SLICE("\"a\\n\""), "a\\n"));
}

static void
raw_strings_are_compared_by_meaning(void **state)
{
	(void)state;
	assert_true(json_strings_same(SLICE("\"a\""), SLICE("\"a\"")));
	assert_true(json_strings_same(SLICE("\"a\""), SLICE("\"\\u0061\"")));
	assert_true(json_strings_same(SLICE("\"\\n\\u00e9\""), SLICE("\"\\u000a\xc3\xa9\"")));
	assert_true(json_strings_same(SLICE("\"\\u0000\""), SLICE("\"\\u0000\"")));
	assert_false(json_strings_same(SLICE("\"a\""), SLICE("\"a\\u0000\"")));
	assert_false(json_strings_same(SLICE("\"\\u0061b\""), SLICE("\"a\"")));
	assert_false(json_strings_same(SLICE("\"\\u0061\""), SLICE("\"ab\"")));
	assert_false(json_strings_same(SLICE("\"a\""), SLICE("\"b\"")));
}

static void
escaping_is_the_reverse(void **state)
{
	char all[255], raw[1024], back[1024];
	struct json_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (char)(i + 1);
	size_t n = json_escape((struct slice){ all, sizeof(all) }, NULL, 0);
	assert_int_equal(json_escape((struct slice){ all, sizeof(all) }, raw, n), n);
	assert_true(json_check((struct slice){ raw, n }, &why));
	assert_int_equal(json_unescape((struct slice){ raw, n }, back, sizeof(back)), sizeof(all));
	assert_memory_equal(back, all, sizeof(all));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_texts_pass),
		cmocka_unit_test(invalid_texts_are_refused),
		cmocka_unit_test(errors_name_the_byte),
		cmocka_unit_test(strings_end_where_they_end),
		cmocka_unit_test(escapes_at_every_place),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(members_are_walked),
		cmocka_unit_test(a_walk_takes_what_a_check_takes),
		cmocka_unit_test(inner_objects_are_walked_in_one_pass),
		cmocka_unit_test(members_are_found),
		cmocka_unit_test(scalars_are_read),
		cmocka_unit_test(strings_are_unescaped),
		cmocka_unit_test(raw_strings_are_compared_by_meaning),
		cmocka_unit_test(escaping_is_the_reverse),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
