/*
 * Conversations: what keeps their id from turn to turn, and what tells two apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/session.h"

static const uint64_t secret[2] = { 0x0123456789abcdef, 0xfedcba9876543210 };

static struct session
of_parts(const char *header, struct slice text, const char *key, const uint64_t with[2])
{
	static struct body_scan body;
	struct json_error why;

	if (text.p && !body_scan(text, &body, &why))
		fail_msg("%s at %zu: %.*s", why.what, why.offset, SLICE_FMT(text));
	return session_find(slice_of(header), text.p ? &body : NULL, slice_of(key), with);
}

static struct session
of(const char *body)
{
	return of_parts(NULL, slice_of(body), "key_1", secret);
}

static bool
same(struct session a, struct session b)
{
	return a.source == b.source && a.id[0] == b.id[0] && a.id[1] == b.id[1];
}

#define USER(content) "{\"role\":\"user\",\"content\":" content "}"
#define BODY(first, rest) "{\"model\":\"m\",\"system\":\"It is Monday.\",\"messages\":[" first rest "]}"
#define MARK ",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}"

static void
a_conversation_keeps_its_id(void **state)
{
	static const char *const turns[] = {
		BODY(USER("[{\"type\":\"text\",\"text\":\"hi \\u00e4\"" MARK "}]"), ""),
		BODY(USER("[{\"type\":\"text\",\"text\":\"hi \\u00e4\"}]"), ",{\"role\":\"assistant\",\"content\":\"x\"}," USER("\"more\"")),
		BODY(USER("\"hi \\u00e4\""), ",{\"role\":\"assistant\",\"content\":\"x\"}"),
		"{\"messages\":[{\"content\":[ {\"text\":\"hi \\u00e4\",\"type\" : \"text\"} ],\"role\":\"user\"}],\"model\":\"other\"}",
		BODY("{\"role\":\"system\",\"content\":\"today\"}," USER("\"hi \\u00e4\""), ""),
	};
	static const char *const others[] = {
		BODY(USER("\"hi \\u00e5\""), ""), BODY(USER("[{\"type\":\"text\",\"text\":\"hi \"},{\"type\":\"text\",\"text\":\"\\u00e4\"}]"), ""),
		BODY(USER("[{\"type\":\"thing\",\"text\":\"hi \\u00e4\"}]"), ""), BODY(USER("[]"), ""),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
		assert_int_equal(of(turns[i]).source, SESSION_BEGINNING);
		assert_true(same(of(turns[i]), of(turns[0])));
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		assert_int_equal(of(others[i]).source, SESSION_BEGINNING);
		assert_false(same(of(others[i]), of(turns[0])));
	}
}

static void
markers_inside_of_blocks_do_not_count(void **state)
{
#define IMAGE(mark, data) BODY(USER("[{\"type\":\"image\"" mark ",\"source\":{\"type\":\"base64\",\"data\":\"" data "\"}}," \
	"{\"type\":\"tool_result\",\"content\":[{\"type\":\"text\",\"text\":\"a\"" mark "}],\"x\":[1,{\"y\":null}]}]"), "")
	struct session s = of(IMAGE("", "AAAA"));

	(void)state;
	assert_true(same(s, of(IMAGE(MARK, "AAAA"))));
	assert_true(same(s, of(IMAGE(",\"cache_control\":null", "AAAA"))));
	assert_true(same(s, of(IMAGE(",\"cache_contro\\u006c\":[[1],{\"cache_control\":2}]", "AAAA"))));
	assert_false(same(s, of(IMAGE("", "AAAB"))));
	assert_false(same(s, of(IMAGE(",\"cached\":null", "AAAA"))));
	/* What is where counts. */
	assert_false(same(of(BODY(USER("[{\"a\":[1,2]}]"), "")), of(BODY(USER("[{\"a\":[1]},2]"), ""))));
	assert_false(same(of(BODY(USER("[{\"a\":\"b\"}]"), "")), of(BODY(USER("[[\"a\",\"b\"]]"), ""))));
	assert_false(same(of(BODY(USER("[{\"a\":1}]"), "")), of(BODY(USER("[{\"a\":\"1\"}]"), ""))));
}

static void
who_says_it_first_is_believed(void **state)
{
	static const char *const with_user = "{\"metadata\":{\"user_id\":\"u-1\"},\"messages\":[" USER("\"hi\"") "]}";
	static const char *const none[] = { "{}", "{\"messages\":[]}", "{\"messages\":7}", "{\"messages\":[7,{\"role\":\"assistant\",\"content\":\"x\"}]}",
		"{\"messages\":[{\"role\":\"user\"}]}", "{\"metadata\":{\"user_id\":null}}", "{\"metadata\":{\"user_id\":\"\"}}", "{\"metadata\":7}" };
	struct session header = of_parts("s-1", slice_of(with_user), "key_1", secret), user = of(with_user);
	const uint64_t other_secret[2] = { secret[0], secret[1] + 1 };

	(void)state;
	assert_int_equal(header.source, SESSION_HEADER);
	assert_int_equal(user.source, SESSION_USER_ID);
	assert_true(same(header, of_parts("s-1", SLICE_NONE, "key_1", secret)));
	assert_false(same(header, of_parts("s-2", SLICE_NONE, "key_1", secret)));
	assert_false(same(header, of_parts("s-1", SLICE_NONE, "key_2", secret)));
	assert_false(same(header, of_parts("s-1", SLICE_NONE, "key_1", other_secret)));
	assert_true(same(user, of("{\"metadata\":{\"x\":1,\"user_id\":\"u-1\"}}")));
	assert_false(same(user, of("{\"metadata\":{\"user_id\":\"u-2\"}}")));
	/* The same text from another source is another conversation. */
	header = of_parts("u-1", SLICE_NONE, "key_1", secret);
	assert_true(header.id[0] != user.id[0] && header.id[1] != user.id[1]);
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		assert_int_equal(of(none[i]).source, SESSION_NONE);
	assert_int_equal(of_parts("", SLICE_NONE, "key_1", secret).source, SESSION_NONE);
}

/* A body whose first text has n bytes, of which the one at `at` is another one. */
static struct session
of_long(size_t n, size_t at)
{
	static char text[SESSION_BYTES_MAX * 3];
	static const char before[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"", behind[] = "\"}]}";
	size_t k = sizeof(before) - 1;

	memcpy(text, before, k);
	memset(text + k, 'a', n);
	if (at < n)
		text[k + at] = 'b';
	memcpy(text + k + n, behind, sizeof(behind));
	return of(text);
}

static void
long_texts_count_as_far_as_is_said(void **state)
{
	struct session s = of_long(2 * SESSION_BYTES_MAX, SIZE_MAX);

	(void)state;
	for (size_t at = 0; at < SESSION_BYTES_MAX - 100; at += 97)
		assert_false(same(s, of_long(2 * SESSION_BYTES_MAX, at)));
	assert_true(same(s, of_long(2 * SESSION_BYTES_MAX, SESSION_BYTES_MAX)));
	assert_false(same(s, of_long(2 * SESSION_BYTES_MAX + 1, SIZE_MAX)));
	/* Every length up to some blocks is a conversation of its own. */
	static struct session all[3000];
	for (size_t n = 0; n < 3000; n++)
		all[n] = of_long(n, SIZE_MAX);
	for (size_t n = 0; n < 3000; n++)
		for (size_t i = 0; i < n; i++)
			if (same(all[n], all[i]))
				fail_msg("%zu and %zu bytes are the same", i, n);
}

/* ---- fields ---- */

static struct slice
header_of(void *arg, struct slice name)
{
	return slice_eq(name, SLICE("x-team")) ? slice_of(arg) : SLICE_NONE;
}

static struct session_fields *
fields_of(const char *const *names, uint32_t count, const char *problems)
{
	struct slice list[SESSION_FIELDS_MAX + 1];
	struct session_fields *f;
	struct problems p;

	for (uint32_t i = 0; i < count; i++)
		list[i] = slice_of(names[i]);
	problems_init(&p);
	f = session_fields_compile(list, count, "sticky.hash_fields", &p);
	if (!slice_eq(buf_slice(&p.text), slice_of(problems)))
		fail_msg("%.*s", SLICE_FMT(buf_slice(&p.text)));
	problems_free(&p);
	return f;
}

static bool
fields_id(const struct session_fields *f, const char *metadata, const char *body, char *header, uint64_t id[2])
{
	static struct body_scan scan;
	struct json_error why;
	struct condition_facts request = { .metadata = slice_of(metadata), .params = &scan };
	const struct session_facts facts = { &request, header_of, header };

	assert_true(body_scan(slice_of(body), &scan, &why));
	return session_fields_find(f, &facts, SLICE("key_1"), secret, id);
}

static void
fields_keep_requests_together(void **state)
{
	static const char *const names[] = { "metadata.user", "params.thinking.type", "headers.X-Team" };
	static const struct { const char *metadata, *body, *header; } cases[] = {
		{ "{\"user\":\"a\"}", "{\"thinking\":{\"type\":\"x\"}}", "t" }, { "{\"user\":\"b\"}", "{\"thinking\":{\"type\":\"x\"}}", "t" },
		{ "{\"user\":\"a\"}", "{\"thinking\":{\"type\":\"y\"}}", "t" }, { "{\"user\":\"a\"}", "{\"thinking\":{\"type\":\"x\"}}", "u" },
		{ "{}", "{\"thinking\":{\"type\":\"x\"}}", "t" }, { "{\"user\":\"a\"}", "{}", "t" }, { "{\"user\":\"a\"}", "{\"thinking\":{\"type\":\"x\"}}", NULL },
		{ "{\"user\":\"a\"}", "{\"thinking\":{\"type\":[\"x\"]}}", "t" }, { "{\"user\":\"ax\"}", "{\"thinking\":{\"type\":\"\"}}", "t" },
		{ "{\"user\":\"\"}", "{\"thinking\":{\"type\":\"x\"}}", "t" },
	};
	struct session_fields *f = fields_of(names, 3, "");
	uint64_t ids[16][2], id[2];
	size_t count = sizeof(cases) / sizeof(*cases);
	char header[8];

	(void)state;
	for (size_t i = 0; i < count; i++) {
		snprintf(header, sizeof(header), "%s", cases[i].header ? cases[i].header : "");
		assert_true(fields_id(f, cases[i].metadata, cases[i].body, cases[i].header ? header : NULL, ids[i]));
		for (size_t k = 0; k < i; k++)
			assert_true(ids[i][0] != ids[k][0] && ids[i][1] != ids[k][1]);
	}
	/* Which field it is that is missing counts. */
	static const char *const two[] = { "metadata.a", "metadata.b" };
	struct session_fields *g = fields_of(two, 2, "");
	assert_true(fields_id(g, "{\"a\":\"x\"}", "{}", NULL, id) && fields_id(g, "{\"b\":\"x\"}", "{}", NULL, ids[0]));
	assert_true(id[0] != ids[0][0] && id[1] != ids[0][1]);
	session_fields_free(g);
	/* The rest of a request does not count. */
	snprintf(header, sizeof(header), "t");
	assert_true(fields_id(f, cases[0].metadata, cases[0].body, header, ids[0]));
	assert_true(fields_id(f, "{\"x\":\"y\",\"user\":\"a\"}", "{\"a\":1,\"thinking\":{\"b\":2,\"type\":\"x\"},\"stream\":true}", header, id));
	assert_memory_equal(id, ids[0], sizeof(id));
	assert_false(fields_id(f, "{}", "{}", NULL, id));
	session_fields_free(f);
	session_fields_free(NULL);
}

static void
fields_that_are_none_are_told(void **state)
{
#define WORDS "must be metadata.NAME, params.NAME or headers.NAME, at most 256 bytes\n"
	static const char *const names[] = { "user", "metadata.ok", "headers.", "headers.a b", "url.pathname", "params." };
	const char *many[SESSION_FIELDS_MAX + 1];

	(void)state;
	for (size_t i = 0; i <= SESSION_FIELDS_MAX; i++)
		many[i] = "metadata.a";
	assert_null(fields_of(names, 6, "sticky.hash_fields[0]: " WORDS "sticky.hash_fields[2]: " WORDS "sticky.hash_fields[3]: " WORDS
	    "sticky.hash_fields[4]: " WORDS "sticky.hash_fields[5]: must be metadata.NAME, params.NAME (or params.NAME.NAME and so on) or "
	    "url.pathname, at most 256 bytes\n"));
	assert_null(fields_of(names, 0, "sticky.hash_fields: must have 1 to 16 fields\n"));
	assert_null(fields_of(many, SESSION_FIELDS_MAX + 1, "sticky.hash_fields: must have 1 to 16 fields\n"));
	session_fields_free(fields_of(many, SESSION_FIELDS_MAX, ""));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_conversation_keeps_its_id), cmocka_unit_test(markers_inside_of_blocks_do_not_count),
		cmocka_unit_test(who_says_it_first_is_believed), cmocka_unit_test(long_texts_count_as_far_as_is_said),
		cmocka_unit_test(fields_keep_requests_together), cmocka_unit_test(fields_that_are_none_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
