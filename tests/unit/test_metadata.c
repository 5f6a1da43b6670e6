/*
 * Metadata: what a header becomes, what is refused and with which words, and
 * what the lenient form lets go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "policy/json.h"
#include "policy/metadata.h"
#include "shm/base/buf.h"
#include "shm/base/scratch.h"

static struct scratch memory = { .max = 1 << 20 };

static struct metadata
parsed(const char *header, bool lenient)
{
	struct metadata m;
	struct metadata_error why;

	if (!metadata_parse(slice_of(header), lenient, &memory, &m, &why))
		fail_msg("%s: %s", header, why.what);
	return m;
}

static void
has_value(const struct metadata *m, const char *key, const char *value)
{
	const struct slice *v = metadata_get(m, slice_of(key));

	if (!value) {
		assert_null(v);
		return;
	}
	assert_non_null(v);
	if (!slice_eq(*v, slice_of(value)))
		fail_msg("%s is %.*s, not %s", key, SLICE_FMT(*v), value);
}

static void
values_become_text(void **state)
{
	struct metadata m = parsed(" { \"team\":\"core\", \"n\" : -1.50e3, \"ok\":true,\"no\":false, \"nil\":null,"
	    "\"empty\":\"\", \"o\":{\"a\": [1]}, \"l\":[1, 2], \"e\\u0073c\":\"a\\n\\u00e9\\ud83d\\ude00\" }\t", false);

	(void)state;
	assert_int_equal(m.count, 8);
	has_value(&m, "team", "core");
	has_value(&m, "n", "-1.50e3");
	has_value(&m, "ok", "true");
	has_value(&m, "no", "false");
	has_value(&m, "nil", NULL);
	has_value(&m, "empty", "");
	has_value(&m, "o", "{\"a\": [1]}");
	has_value(&m, "l", "[1, 2]");
	has_value(&m, "esc", "a\n\xc3\xa9\xf0\x9f\x98\x80");
	m = parsed("{}", false);
	assert_int_equal(m.count, 0);
	scratch_reset(&memory);
}

static void
the_last_of_a_name_wins(void **state)
{
	struct metadata m = parsed("{\"a\":\"1\",\"b\":\"2\",\"\\u0061\":\"3\"}", false);

	(void)state;
	assert_int_equal(m.count, 2);
	has_value(&m, "a", "3");
	m = parsed("{\"a\":\"1\",\"b\":\"2\",\"a\":null}", false);
	assert_int_equal(m.count, 1);
	has_value(&m, "b", "2");
	scratch_reset(&memory);
}

static void
expect_refusal(const char *header, size_t offset, const char *what)
{
	struct metadata m;
	struct metadata_error why;

	if (metadata_parse(slice_of(header), false, &memory, &m, &why))
		fail_msg("taken: %s", header);
	assert_string_equal(why.what, what);
	assert_int_equal(why.offset, offset);
	/* The lenient form takes everything. */
	assert_true(metadata_parse(slice_of(header), true, &memory, &m, &why));
}

static void
mistakes_are_quoted(void **state)
{
	char text[512], x129[130];

	(void)state;
	expect_refusal("", 0, "expected a value at byte 0");
	expect_refusal("team=core", 0, "expected a value at byte 0, near 'team=core'");
	expect_refusal("{\"team\":\"core\" \"user\":\"ann\"}", 15,
	    "expected ',' or '}' at byte 15, near 'eam\":\"core\" \"user\":\"ann\"'");
	expect_refusal("{\"team\":\"core\"", 14, "expected ',' or '}' at byte 14, near 'team\":\"core\"'");
	expect_refusal("{\"team\":\"co\x01re\"}", 11, "control character in a string at byte 11, near '{\"team\":\"co?re\"}'");
	expect_refusal("  [1]", 2, "expected an object at byte 2, near '  [1]'");
	expect_refusal("\"x\"", 0, "expected an object at byte 0, near '\"x\"'");
	expect_refusal("{\"a\":1} {}", 8, "bytes behind the value at byte 8, near '{\"a\":1} {}'");
	expect_refusal("{\"user\":\"\xe9\"}", 1, "value of \"user\" is not UTF-8");
	expect_refusal("{\"us\xe9r\":1}", 1, "name \"us?r\" is not UTF-8");
	memset(x129, 'x', 129);
	x129[129] = '\0';
	snprintf(text, sizeof(text), "{\"a\":1,\"team\":\"%s\"}", x129);
	expect_refusal(text, 7, "value of \"team\" is longer than 128 characters");
	snprintf(text, sizeof(text), "{\"%s\":1}", x129);
	expect_refusal(text, 1, "name \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" is longer than 128 bytes");
	snprintf(text, sizeof(text), "{\"o\":{\"a\":\"%s\"}}", x129);
	expect_refusal(text, 1, "value of \"o\" is longer than 128 characters");
	/* What is not JSON is told first, wherever it stands. */
	text[strlen(text) - 1] = ',';
	expect_refusal(text, strlen(text), "expected a member's name in quotes at byte 143, near 'xxxxxxxxx\"},'");
	scratch_reset(&memory);
}

static void
characters_are_counted_not_bytes(void **state)
{
	struct buf text;

	(void)state;
	buf_init(&text, 1024);
	buf_add_str(&text, "{\"a\":\"");
	for (int i = 0; i < 128; i++)
		buf_add_str(&text, i % 2 ? "\xc3\xa9" : "\xe2\x82\xac");
	buf_add(&text, "\"}", 3);
	struct metadata m = parsed(text.p, false);
	assert_int_equal(metadata_get(&m, SLICE("a"))->n, 64 * 5);
	buf_free(&text);
	scratch_reset(&memory);
}

static void
invalid_utf8_is_found(void **state)
{
	static const char *const bad[] = { "\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x80\x80", "\xe2\x82", "\xed\xa0\x80",
		"\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3" "b" };
	static const char *const good[] = { "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
		"\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf" };
	char text[64];
	struct metadata m;
	struct metadata_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "{\"a\":\"%s\"}", bad[i]);
		assert_false(metadata_parse(slice_of(text), false, &memory, &m, &why));
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "{\"a\":\"%s\"}", good[i]);
		m = parsed(text, false);
		has_value(&m, "a", good[i]);
	}
	scratch_reset(&memory);
}

static void
lenient_leaves_out_what_cannot_be(void **state)
{
	char text[512], x200[201];

	(void)state;
	memset(x200, 'x', 200);
	x200[200] = '\0';
	snprintf(text, sizeof(text), "{\"a\":\"%s\",\"%s\":1,\"b\":\"\xff\",\"c\":\"3\"}", x200, x200);
	struct metadata m = parsed(text, true);
	assert_int_equal(m.count, 2);
	assert_int_equal(metadata_get(&m, SLICE("a"))->n, 128);
	has_value(&m, "c", "3");
	m = parsed("{\"a\":\"1\",oops", true);	/* as Portkey: nothing of it */
	assert_int_equal(m.count, 0);
	/* A cut never splits a character. */
	snprintf(text, sizeof(text), "{\"a\":\"%.127s\xc3\xa9\xc3\xa9\"}", x200);
	m = parsed(text, true);
	assert_int_equal(metadata_get(&m, SLICE("a"))->n, 129);
	scratch_reset(&memory);
}

static void
names_are_bounded(void **state)
{
	struct buf b;
	struct metadata m;
	struct metadata_error why;

	(void)state;
	buf_init(&b, 1 << 16);
	for (int n = METADATA_PAIRS_MAX; n <= METADATA_PAIRS_MAX + 1; n++) {
		buf_clear(&b);
		for (int i = 0; i < n; i++)
			buf_printf(&b, "%s\"k%d\":%d", i ? "," : "{", i, i);
		buf_add_char(&b, '}');
		assert_int_equal(metadata_parse(buf_slice(&b), false, &memory, &m, &why), n == METADATA_PAIRS_MAX);
		assert_true(metadata_parse(buf_slice(&b), true, &memory, &m, &why));
		assert_int_equal(m.count, METADATA_PAIRS_MAX);
	}
	assert_string_equal(why.what, "\"k64\" is one more than the 64 names allowed");
	buf_free(&b);
	scratch_reset(&memory);
	struct scratch none = { .max = 8 };
	assert_false(metadata_parse(SLICE("{\"a\":\"012\\n3456789\"}"), true, &none, &m, &why));
	scratch_reset(&none);
}

static void
the_higher_wins(void **state)
{
	struct metadata m = parsed("{\"team\":\"mine\",\"env\":\"dev\"}", false);
	struct metadata key = parsed("{\"team\":\"core\",\"cost\":\"7\"}", false);
	struct buf many;

	(void)state;
	assert_true(metadata_merge(&m, &key));
	assert_int_equal(m.count, 3);
	has_value(&m, "team", "core");
	struct slice json = metadata_json(&m, &memory);
	assert_true(slice_eq(json, SLICE("{\"team\":\"core\",\"env\":\"dev\",\"cost\":\"7\"}")));

	buf_init(&many, 2048);
	for (int i = 0; i < METADATA_PAIRS_MAX; i++)
		buf_printf(&many, "%s\"k%d\":\"\"", i ? "," : "{", i);
	buf_add(&many, "}", 2);
	m = parsed(many.p, false);
	assert_false(metadata_merge(&m, &key));
	buf_free(&many);
	scratch_reset(&memory);
}

static void
json_is_compact_valid_and_bounded(void **state)
{
	struct metadata m = parsed("{\"a\\\"\":\"\\n\\u0001\\\\\xc3\xa9\", \"b\" : 12}", false);
	struct json_error why;
	struct slice json = metadata_json(&m, &memory);

	(void)state;
	assert_true(slice_eq(json, SLICE("{\"a\\\"\":\"\\n\\u0001\\\\\xc3\xa9\",\"b\":\"12\"}")));
	assert_true(json_check(json, &why));
	m.count = 0;
	assert_true(slice_eq(metadata_json(&m, &memory), SLICE("{}")));

	/* Exactly the bound passes, one byte more does not. */
	char value[METADATA_BYTES_MAX];
	memset(value, 'v', sizeof(value));
	m.count = 1;
	m.pair[0].key = SLICE("k");
	for (size_t n = METADATA_BYTES_MAX - 40; n <= METADATA_BYTES_MAX - 1; n++) {
		m.pair[0].value = (struct slice){ value, n };
		json = metadata_json(&m, &memory);
		assert_int_equal(json.p != NULL, n + strlen("{\"k\":\"\"}") <= METADATA_BYTES_MAX);
		assert_true(!json.p || json.n == n + 8);
	}
	scratch_reset(&memory);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_become_text),
		cmocka_unit_test(the_last_of_a_name_wins),
		cmocka_unit_test(mistakes_are_quoted),
		cmocka_unit_test(characters_are_counted_not_bytes),
		cmocka_unit_test(invalid_utf8_is_found),
		cmocka_unit_test(lenient_leaves_out_what_cannot_be),
		cmocka_unit_test(names_are_bounded),
		cmocka_unit_test(the_higher_wins),
		cmocka_unit_test(json_is_compact_valid_and_bounded),
	};

	return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
