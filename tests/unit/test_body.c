/*
 * Request bodies: what the scan finds and does not mistake for something
 * else, and edits that keep every byte they do not mean to change.
 *
 * The last test is a property: random bodies, random edits; an independent
 * model (a list of members, and the text between them) says what the result
 * must contain, and cJSON reads it back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cjson/cJSON.h>
#include <cmocka.h>

#include "policy/body.h"
#include "shm/base/buf.h"
#include "shm/base/scratch.h"

static struct body_scan
scanned(const char *text)
{
	struct body_scan s;
	struct json_error why;

	if (!body_scan(slice_of(text), &s, &why))
		fail_msg("%s at %zu: %s", why.what, why.offset, text);
	return s;
}

static void
top_level_members_are_noted(void **state)
{
	struct body_scan s = scanned(" {\"model\":\"claude-opus-5-5\", \"max_tokens\" : 128000,\n\"stream\":true,"
	    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"x\":null} ");

	(void)state;
	assert_int_equal(s.members_count, 5);
	assert_true(slice_eq(s.model, SLICE("\"claude-opus-5-5\"")) && s.model_is_string);
	assert_true(s.has_max_tokens && s.max_tokens == 128000);
	assert_true(s.stream && s.stream_valid);
	assert_true(slice_eq(body_find(&s, "messages")->value, SLICE("[{\"role\":\"user\",\"content\":\"hi\"}]")));
	assert_true(slice_eq(body_find(&s, "x")->value, SLICE("null")));
	assert_null(body_find(&s, "content"));
	assert_int_equal(s.text_bytes, s.body.n);
}

static void
odd_members_are_told_apart(void **state)
{
	struct body_scan s = scanned("{}");

	(void)state;
	assert_null(s.model.p);
	assert_true(!s.stream && s.stream_valid && !s.has_max_tokens);
	s = scanned("{\"model\":7,\"stream\":\"yes\",\"max_tokens\":1e3}");
	assert_true(!s.model_is_string && !s.stream && !s.stream_valid && s.has_max_tokens && s.max_tokens == -1);
	s = scanned("{\"stream\":null,\"max_tokens\":null}");
	assert_true(s.stream_valid && !s.has_max_tokens);
	s = scanned("{\"max_tokens\":-1}");
	assert_int_equal(s.max_tokens, -1);
	s = scanned("{\"max_tokens\":99999999999999999999}");
	assert_int_equal(s.max_tokens, -1);
	s = scanned("{\"max_tokens\":9223372036854775807,\"stream\":false}");
	assert_true(s.max_tokens == INT64_MAX && !s.stream && s.stream_valid);
	s = scanned("{\"mod\\u0065l\":\"m\"}");
	assert_true(slice_eq(s.model, SLICE("\"m\"")));
}

static void
bad_bodies_are_refused(void **state)
{
	static const struct { const char *text; size_t offset; const char *what; } cases[] = {
		{ "", 0, "expected an object" }, { "[]", 0, "expected an object" }, { "  null", 2, "expected an object" },
		{ "{}x", 2, "bytes behind the object" }, { "{} {}", 3, "bytes behind the object" },
		{ "{\"a\":1,\"a\":2}", 7, "this top-level member is there twice" },
		{ "{\"a\":1,\"b\":2,\"\\u0061\":2}", 13, "this top-level member is there twice" },
		{ "{\"a\":\"\n\"}", 6, "control character in a string" }, { "{\"a\":01}", 6, "expected ',' or '}'" },
		{ "{\"a\":[1,2}", 9, "expected ',' or ']'" },
	};
	struct body_scan s;
	struct json_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_false(body_scan(slice_of(cases[i].text), &s, &why));
		assert_string_equal(why.what, cases[i].what);
		assert_int_equal(why.offset, cases[i].offset);
	}
	/* Nested names may come twice: the provider decides. */
	s = scanned("{\"a\":{\"b\":1,\"b\":2}}");
	assert_int_equal(s.members_count, 1);
}

static void
members_are_bounded(void **state)
{
	struct buf b;
	struct body_scan s;
	struct json_error why;

	(void)state;
	buf_init(&b, 1 << 16);
	for (int n = SCAN_MEMBERS_MAX; n <= SCAN_MEMBERS_MAX + 1; n++) {
		buf_clear(&b);
		for (int i = 0; i < n; i++)
			buf_printf(&b, "%s\"m%d\":%d", i ? "," : "{", i, i);
		buf_add_char(&b, '}');
		assert_int_equal(body_scan(buf_slice(&b), &s, &why), n == SCAN_MEMBERS_MAX);
	}
	assert_string_equal(why.what, "too many top-level members");
	buf_free(&b);
}

static void
cache_markers_are_found_anywhere(void **state)
{
	struct body_scan s = scanned("{\"system\":[{\"type\":\"text\",\"text\":\"cache_control\"}]}");

	(void)state;
	assert_false(s.has_cache_control);
	s = scanned("{\"cache_control\":{\"type\":\"ephemeral\"}}");
	assert_true(s.has_cache_control && !s.has_cache_1h);
	s = scanned("{\"system\":[{\"type\":\"text\",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"5m\"}}]}");
	assert_true(s.has_cache_control && !s.has_cache_1h);
	s = scanned("{\"messages\":[{\"content\":[{\"x\":[{\"cache_control\":{\"ttl\":\"1h\"}}]}]}]}");
	assert_true(s.has_cache_control && s.has_cache_1h);
	s = scanned("{\"tools\":[{\"ttl\":\"1h\",\"\\u0063ache_control\":{\"type\":\"ephemeral\"}}]}");
	assert_true(s.has_cache_control && !s.has_cache_1h);
	s = scanned("{\"a\":{\"\\u0063ache_control\":{\"tt\\u006c\":\"1\\u0068\"}}}");
	assert_true(s.has_cache_control && s.has_cache_1h);
}

#define MESSAGE(blocks) "{\"messages\":[{\"role\":\"user\",\"content\":[" blocks "]}]}"
#define IMAGE(data) "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"" data "\"}}"

static void
images_are_no_text(void **state)
{
	struct body_scan s = scanned(MESSAGE(IMAGE("AAAA") ",{\"type\":\"text\",\"text\":\"image\"}," IMAGE("BBBBBBBB")));

	(void)state;
	assert_int_equal(s.images, 2);
	assert_int_equal(s.base64_bytes, 12);
	assert_int_equal(s.text_bytes, s.body.n - 12);
	/* The type may come last, in the block and in the source. */
	s = scanned(MESSAGE("{\"source\":{\"data\":\"AAAA\",\"type\":\"base64\"},\"type\":\"image\"}"));
	assert_true(s.images == 1 && s.base64_bytes == 4);
	/* In the result of a tool, and in a document that is made of blocks. */
	s = scanned(MESSAGE("{\"type\":\"tool_result\",\"content\":[" IMAGE("AAAA") "]}"));
	assert_true(s.images == 1 && s.base64_bytes == 4);
	s = scanned(MESSAGE("{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":[" IMAGE("AAAA") "]}}"));
	assert_true(s.images == 1 && s.base64_bytes == 4 && s.documents == 1 && s.opaque_documents == 0);
	s = scanned(MESSAGE("{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x\"}}"));
	assert_true(s.images == 1 && s.base64_bytes == 0);
	/* A whole tool result as one block. */
	s = scanned(MESSAGE("{\"type\":\"web_fetch_tool_result\",\"content\":" IMAGE("AAAA") "}"));
	assert_true(s.images == 1 && s.base64_bytes == 4);
}

static void
text_cannot_pose_as_an_image(void **state)
{
	static const char *const texts[] = {
		/* Input of a tool call is text, whatever its shape. */
		MESSAGE("{\"type\":\"tool_use\",\"input\":" IMAGE("AAAA") "}"),
		MESSAGE("{\"type\":\"tool_use\",\"input\":{\"content\":[" IMAGE("AAAA") "]}}"),
		"{\"tools\":[{\"name\":\"t\",\"input_schema\":{\"content\":[" IMAGE("AAAA") "]}}]}",
		"{\"metadata\":{\"content\":[" IMAGE("AAAA") "]}}",
		/* Two types: which one counts is the provider's affair. */
		MESSAGE("{\"type\":\"image\",\"type\":\"text\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}"),
		MESSAGE("{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"type\":\"text\",\"data\":\"AAAA\"}}"),
		MESSAGE("{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"t\\u0079pe\":\"text\",\"data\":\"AAAA\"}}"),
		/* A text document's data is text. */
		MESSAGE("{\"type\":\"document\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"AAAA\"}}"),
		MESSAGE("{\"type\":\"redacted_thinking\",\"data\":\"AAAA\"}"),
		MESSAGE("{\"type\":\"text\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct body_scan s = scanned(texts[i]);

		if (s.base64_bytes != 0 || s.text_bytes != s.body.n)
			fail_msg("not text: %s", texts[i]);
	}
}

static void
documents_are_told_apart(void **state)
{
	struct body_scan s = scanned(MESSAGE(
	    "{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":\"application/pdf\",\"data\":\"JVBE\"}},"
	    "{\"type\":\"document\",\"source\":{\"type\":\"url\",\"url\":\"https://x\"}},"
	    "{\"type\":\"document\",\"source\":{\"type\":\"text\",\"data\":\"plain\"}},"
	    "{\"type\":\"document\"}"));

	(void)state;
	assert_int_equal(s.documents, 4);
	assert_int_equal(s.opaque_documents, 3);
	assert_int_equal(s.base64_bytes, 4);
}

static void
tools_are_told_apart(void **state)
{
	struct body_scan s = scanned("{\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":\"object\"}},"
	    "{\"type\":\"custom\",\"name\":\"b\"},{\"type\":\"bash_20250124\",\"name\":\"bash\"},"
	    "{\"type\":\"text_editor_20250728\"},{\"type\":\"computer_toolset_20260801\"},"
	    "{\"type\":\"web_fetch_20260309\"},{\"type\":\"code_execution_20260521\"},"
	    "{\"type\":\"web_search_20250305\",\"max_uses\":5}]}");

	(void)state;
	assert_int_equal(s.typed_tools, 6);
	assert_int_equal(s.server_tools, 2);
	assert_int_equal(s.web_search_max_uses, 5);
	s = scanned("{\"tools\":[{\"max_uses\":3,\"type\":\"web_search_20260318\"},{\"type\":\"web_search_20250305\",\"max_uses\":4}]}");
	assert_int_equal(s.web_search_max_uses, 7);
	static const char *const unbounded[] = { "", ",\"max_uses\":null", ",\"max_uses\":-1", ",\"max_uses\":1.5",
		",\"max_uses\":4294967295", ",\"max_uses\":1,\"max_uses\":9", ",\"max_uses\":\"3\"" };
	for (size_t i = 0; i < sizeof(unbounded) / sizeof(unbounded[0]); i++) {
		char text[160];

		snprintf(text, sizeof(text), "{\"tools\":[{\"type\":\"web_search_20250305\"%s},"
		    "{\"type\":\"web_search_20250305\",\"max_uses\":4}]}", unbounded[i]);
		s = scanned(text);
		if (s.web_search_max_uses != UINT32_MAX)
			fail_msg("bounded: %s", unbounded[i]);
	}
	s = scanned(MESSAGE("{\"type\":\"web_search_tool_result\",\"content\":[{\"type\":\"web_search_result\"}]}"));
	assert_int_equal(s.web_search_max_uses, 0);
}

static void
long_and_deep_bodies_are_scanned(void **state)
{
	struct buf b;
	struct body_scan s;
	struct json_error why;

	(void)state;
	buf_init(&b, 1 << 24);
	buf_add_str(&b, "{\"messages\":[");
	for (int i = 0; i < 100000; i++)
		buf_add_str(&b, i ? ",{\"role\":\"user\",\"content\":\"x\"}" : "{}");
	buf_add_str(&b, "]}");
	assert_true(body_scan(buf_slice(&b), &s, &why));
	for (int depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX; depth++) {
		buf_clear(&b);
		buf_add_str(&b, "{\"a\":");
		for (int i = 0; i < depth; i++)
			buf_add_str(&b, "[");
		for (int i = 0; i < depth; i++)
			buf_add_str(&b, "]");
		buf_add_str(&b, "}");
		assert_int_equal(body_scan(buf_slice(&b), &s, &why), depth < JSON_DEPTH_MAX);
	}
	buf_free(&b);
}

/* Edits */

static struct scratch memory = { .max = 1 << 20 };

static char *
edited(const struct body_scan *s, struct body_edits *e, char *out, size_t size)
{
	struct slice pieces[2 * SPLICES_MAX + 1];
	size_t count = body_pieces(s, e, pieces, sizeof(pieces) / sizeof(pieces[0])), n = 0;

	for (size_t i = 0; i < count; i++) {
		assert_true(n + pieces[i].n < size && pieces[i].n > 0);
		memcpy(out + n, pieces[i].p, pieces[i].n);
		n += pieces[i].n;
	}
	assert_int_equal(n, body_edited_bytes(s, e));
	out[n] = '\0';
	return out;
}

/* Applies edits, "name=json", with spaces between them. */
static void
expect_edit(const char *body, const char *edits, const char *expected)
{
	struct body_scan s = scanned(body);
	struct body_edits e = { .count = 0 };
	char copy[256], out[1024], *rest = copy;
	struct json_error why;

	snprintf(copy, sizeof(copy), "%s", edits);
	for (char *word; (word = strsep(&rest, " ")) != NULL;) {
		char *value = strchr(word, '=');

		if (!value)
			continue;
		*value = '\0';
		assert_true(body_set(&s, &e, word, slice_of(value + 1), &memory));
	}
	assert_string_equal(edited(&s, &e, out, sizeof(out)), expected);
	assert_true(json_check(slice_of(out), &why));
	scratch_reset(&memory);
}

static void
edits_keep_the_other_bytes(void **state)
{
	static const char body[] = "{ \"a\" : 1 , \"b\":[2] ,\n\"c\":\"3\" }";

	(void)state;
	expect_edit(body, "", body);
	expect_edit(body, "b=7", "{ \"a\" : 1 , \"b\":7 ,\n\"c\":\"3\" }");
	expect_edit(body, "a=7 c=8", "{ \"a\" : 7 , \"b\":[2] ,\n\"c\":8 }");
	expect_edit(body, "d=7", "{ \"a\" : 1 , \"b\":[2] ,\n\"c\":\"3\",\"d\":7 }");
	expect_edit(body, "d=7 e=8", "{ \"a\" : 1 , \"b\":[2] ,\n\"c\":\"3\",\"d\":7,\"e\":8 }");
	expect_edit(body, "d=7 d=8 a=1 a=2", "{ \"a\" : 2 , \"b\":[2] ,\n\"c\":\"3\",\"d\":8 }");
	expect_edit("{}", "d=7", "{\"d\":7}");
	expect_edit(" { } ", "d=7 e=8", " {\"d\":7,\"e\":8 } ");
	expect_edit("{}", "d=7 e=8 e=9 d=10", "{\"d\":10,\"e\":9}");
	expect_edit("{}", "q\"\\=7", "{\"q\\\"\\\\\":7}");
}

static void
edits_are_bounded(void **state)
{
	struct body_scan s = scanned("{\"a\":1}");
	struct body_edits e = { .count = 0 };
	char name[16], out[1024];
	struct json_error why;

	(void)state;
	for (int i = 0; i < SPLICES_MAX; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		assert_true(body_set(&s, &e, name, SLICE("true"), &memory));
	}
	assert_false(body_set(&s, &e, "a", SLICE("true"), &memory));
	assert_true(body_set(&s, &e, "m3", SLICE("null"), &memory));
	assert_true(json_check(slice_of(edited(&s, &e, out, sizeof(out))), &why));
	scratch_reset(&memory);

	struct scratch none = { .max = 4 };
	struct body_edits f = { .count = 0 };
	assert_false(body_set(&s, &f, "b", SLICE("true"), &none));
	assert_int_equal(f.count, 0);
	scratch_reset(&none);
}

static uint64_t seed = 88172645463325252u;

static uint32_t
dice(uint32_t sides)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed % sides);
}

static const char *
random_space(void)
{
	static const char *const spaces[] = { "", "", " ", "\n", "\t ", "" };

	return spaces[dice(6)];
}

static void
random_edits_mean_what_they_say(void **state)
{
	static const char *const values[] = { "1", "\"x\"", "null", "[1, {\"a\":2}]", "{\"b\":[]}", "-1.5e3" };
	struct buf b;
	char out[4096], name[8];

	(void)state;
	buf_init(&b, 4096);
	for (int round = 0; round < 20000; round++) {
		const char *model[12] = { NULL };	/* of members m0..m11 */
		struct body_edits e = { .count = 0 };
		struct body_scan s;
		struct json_error why;
		uint32_t count = dice(7);

		buf_clear(&b);
		buf_printf(&b, "%s{%s", random_space(), random_space());
		for (uint32_t i = 0; i < count; i++) {
			model[i] = values[dice(6)];
			buf_printf(&b, "%s%s\"m%u\"%s:%s%s%s", i ? "," : "", random_space(), i, random_space(),
			    random_space(), model[i], random_space());
		}
		buf_printf(&b, "}%s", random_space());
		assert_true(body_scan(buf_slice(&b), &s, &why));
		for (uint32_t k = dice(9); k > 0; k--) {
			uint32_t i = dice(12);

			snprintf(name, sizeof(name), "m%u", i);
			model[i] = values[dice(6)];
			assert_true(body_set(&s, &e, name, slice_of(model[i]), &memory));
			if (dice(4) == 0)
				edited(&s, &e, out, sizeof(out));	/* looking changes nothing */
		}
		edited(&s, &e, out, sizeof(out));
		assert_true(json_check(slice_of(out), &why));
		cJSON *json = cJSON_Parse(out);
		int left = 0;
		for (uint32_t i = 0; i < 12; i++) {
			snprintf(name, sizeof(name), "m%u", i);
			const cJSON *m = cJSON_GetObjectItemCaseSensitive(json, name);
			cJSON *expected = model[i] ? cJSON_Parse(model[i]) : NULL;
			left += model[i] != NULL;
			if ((m == NULL) != (expected == NULL) || (m && !cJSON_Compare(m, expected, true)))
				fail_msg("%s is wrong in %s, from %.*s", name, out, SLICE_FMT(buf_slice(&b)));
			cJSON_Delete(expected);
		}
		assert_int_equal(cJSON_GetArraySize(json), left);
		cJSON_Delete(json);
		scratch_reset(&memory);
	}
	buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(top_level_members_are_noted),
		cmocka_unit_test(odd_members_are_told_apart),
		cmocka_unit_test(bad_bodies_are_refused),
		cmocka_unit_test(members_are_bounded),
		cmocka_unit_test(cache_markers_are_found_anywhere),
		cmocka_unit_test(images_are_no_text),
		cmocka_unit_test(text_cannot_pose_as_an_image),
		cmocka_unit_test(documents_are_told_apart),
		cmocka_unit_test(tools_are_told_apart),
		cmocka_unit_test(long_and_deep_bodies_are_scanned),
		cmocka_unit_test(edits_keep_the_other_bytes),
		cmocka_unit_test(edits_are_bounded),
		cmocka_unit_test(random_edits_mean_what_they_say),
	};

	return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
