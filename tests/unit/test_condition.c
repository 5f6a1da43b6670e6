/*
 * Queries of conditional routing: each rule by a table, each mistake with its
 * place, and what is said for people. Random queries are compared with
 * JavaScript itself in tests/oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition.h"
#include "policy/json.h"
#include "policy/regex.h"

#define BODY "{\"model\":\"claude-opus-5-5\",\"max_tokens\":4096,\"temperature\":0.50,\"stream\":true,\"stop\":null,\"n\":\"7 apples\"," \
	"\"thinking\":{\"type\":\"adaptive\",\"type\":\"enabled\",\"a\":{\"b\":[1,{\"c\":\"deep\"}]}},\"tags\":[\"x\",2,[3]]," \
	"\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"\\u0065scaped\":\"\\u0061\"}"
#define METADATA "{\"teams\":\"x\",\"eam\":\"x\",\"team\":\"support\",\"env\":\"dev\",\"n\":\"5\",\"a.b\":\"dotted\",\"quote\":\"\\\"\"}"

static struct problems problems;
static struct body_scan body;

static struct condition_facts
facts(void)
{
	struct json_error why;

	assert_true(body_scan(SLICE(BODY), &body, &why));
	return (struct condition_facts){ .metadata = SLICE(METADATA), .params = &body, .pathname = SLICE("/v1/messages") };
}

static struct condition *
compile(const char *query, const char *path)
{
	struct json_error why;

	problems_free(&problems);
	problems_init(&problems);
	if (!json_check(slice_of(query), &why))
		fail_msg("%s at %zu: %s", why.what, why.offset, query);
	return condition_compile(slice_of(query), path, &problems);
}

static struct condition *
compiled(const char *query)
{
	struct condition *c = compile(query, "query");

	if (!c)
		fail_msg("%s: %.*s", query, SLICE_FMT(buf_slice(&problems.text)));
	return c;
}

static int
free_problems(void **state)
{
	(void)state;
	problems_free(&problems);
	return 0;
}

static void
each_rule_holds(void **state)
{
	static const struct { const char *query; bool holds; } cases[] = {
		/* A bare value: the same JSON type and value. */
		{ "{}", true }, { "{\"metadata.team\":\"support\"}", true }, { "{\"metadata.team\":\"sales\"}", false },
		{ "{\"metadata.n\":5}", false }, { "{\"metadata.n\":\"5\"}", true }, { "{\"params.max_tokens\":4096}", true },
		{ "{\"params.max_tokens\":4096.0}", true }, { "{\"params.max_tokens\":\"4096\"}", false }, { "{\"params.temperature\":5e-1}", true },
		{ "{\"params.stream\":true}", true }, { "{\"params.stream\":false}", false }, { "{\"params.stop\":null}", true },
		{ "{\"params.none\":null}", false }, { "{\"params.thinking\":null}", false }, { "{\"params.escaped\":\"a\"}", true },
		{ "{\"metadata.quote\":\"\\u0022\"}", true }, { "{\"url.pathname\":\"/v1/messages\"}", true }, { "{\"url.pathname\":\"/v1\"}", false },
		/* Several keys, several operators: all of them. */
		{ "{\"metadata.team\":\"support\",\"metadata.env\":\"dev\"}", true }, { "{\"metadata.team\":\"support\",\"metadata.env\":\"x\"}", false },
		{ "{\"params.max_tokens\":{\"$gt\":4000,\"$lt\":5000}}", true }, { "{\"params.max_tokens\":{\"$gt\":4000,\"$lt\":4001}}", false },
		/* $and, $or, and what stands beside them: all are looked at. */
		{ "{\"$and\":[{\"metadata.team\":\"support\"},{\"metadata.env\":\"dev\"}]}", true },
		{ "{\"$and\":[{\"metadata.team\":\"support\"},{\"metadata.env\":\"x\"}]}", false },
		{ "{\"$or\":[{\"metadata.team\":\"x\"},{\"metadata.env\":\"dev\"}]}", true },
		{ "{\"$or\":[{\"metadata.team\":\"x\"},{\"metadata.env\":\"x\"}]}", false },
		{ "{\"$or\":[{\"metadata.team\":\"support\"}],\"metadata.env\":\"x\"}", false },
		{ "{\"$or\":[{\"metadata.team\":\"support\"}],\"$and\":[{\"metadata.env\":\"x\"}]}", false },
		{ "{\"$and\":[{\"$or\":[{\"metadata.team\":\"x\"},{\"$and\":[{},{\"metadata.env\":\"dev\"}]}]},{\"params.stream\":true}]}", true },
		{ "{\"$or\":[{\"metadata.team\":\"x\"},{}]}", true },
		/* Equality by operators, and what is missing. */
		{ "{\"metadata.team\":{\"$eq\":\"support\"}}", true }, { "{\"metadata.team\":{\"$ne\":\"support\"}}", false },
		{ "{\"metadata.none\":{\"$eq\":\"x\"}}", false }, { "{\"metadata.none\":{\"$ne\":\"x\"}}", true },
		{ "{\"metadata.none\":{\"$in\":[\"x\",null]}}", false }, { "{\"metadata.none\":{\"$nin\":[\"x\"]}}", true },
		{ "{\"metadata.none\":{\"$gt\":0}}", false }, { "{\"metadata.none\":{\"$lte\":0}}", false },
		{ "{\"metadata.team\":{\"$in\":[\"sales\",\"support\"]}}", true }, { "{\"metadata.team\":{\"$in\":[]}}", false },
		{ "{\"metadata.team\":{\"$nin\":[\"sales\",\"support\"]}}", false }, { "{\"metadata.team\":{\"$nin\":[]}}", true },
		{ "{\"params.max_tokens\":{\"$in\":[\"4096\",4096]}}", true }, { "{\"params.max_tokens\":{\"$in\":[\"4096\",true]}}", false },
		{ "{\"params.tags\":{\"$ne\":\"x,2,3\"}}", true },
		/* Order: as parseFloat() reads both sides. */
		{ "{\"params.n\":{\"$gt\":6}}", true }, { "{\"params.n\":{\"$gte\":\"7 pears\"}}", true }, { "{\"params.n\":{\"$gt\":7}}", false },
		{ "{\"metadata.n\":{\"$lt\":5.5}}", true }, { "{\"metadata.n\":{\"$lte\":\"4.9\"}}", false }, { "{\"metadata.team\":{\"$gt\":0}}", false },
		{ "{\"metadata.n\":{\"$lt\":\"many\"}}", false }, { "{\"params.stream\":{\"$gte\":0}}", false }, { "{\"url.pathname\":{\"$gte\":0}}", false },
		/* Patterns: on the value's text. */
		{ "{\"params.model\":{\"$regex\":\"opus\"}}", true }, { "{\"params.model\":{\"$regex\":\"^opus\"}}", false },
		{ "{\"params.max_tokens\":{\"$regex\":\"^40\\\\d+$\"}}", true }, { "{\"params.temperature\":{\"$regex\":\"^0.5$\"}}", true },
		{ "{\"params.none\":{\"$regex\":\"^undefined$\"}}", true }, { "{\"params.stop\":{\"$regex\":\"^null$\"}}", true },
		{ "{\"params.tags\":{\"$regex\":\"^x,2,3$\"}}", true }, { "{\"params.thinking\":{\"$regex\":\"^.object Object.$\"}}", true },
		{ "{\"url.pathname\":{\"$regex\":\"/messages$\"}}", true }, { "{\"params.escaped\":{\"$regex\":\"^a$\"}}", true },
		/* It ends its object, but not what stands before it. */
		{ "{\"params.model\":{\"$regex\":\"opus\",\"$eq\":\"x\"}}", true }, { "{\"params.model\":{\"$eq\":\"x\",\"$regex\":\"opus\"}}", false },
		{ "{\"params.model\":{\"$regex\":\"opus\",\"$eq\":\"x\"},\"metadata.env\":\"x\"}", false },
		/* Deeper than two names. */
		{ "{\"params.thinking.type\":\"enabled\"}", true }, { "{\"params.messages.0.role\":\"user\"}", true },
		{ "{\"params.thinking.a.b.1.c\":\"deep\"}", true }, { "{\"params.tags.2.0\":3}", true }, { "{\"params.tags.1\":2}", true },
		{ "{\"params.tags.3\":{\"$ne\":1}}", true }, { "{\"params.tags.-1\":{\"$ne\":1}}", true }, { "{\"params.tags.01\":2}", false },
		{ "{\"params.tags.length\":3}", false }, { "{\"params.model.0\":\"c\"}", false }, { "{\"params.none.more.and.more\":{\"$ne\":1}}", true },
		{ "{\"metadata.a.b\":\"dotted\"}", true },
	};
	struct condition_facts f = facts();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct condition *c = compiled(cases[i].query);

		if (condition_holds(c, &f) != cases[i].holds)
			fail_msg("%s", cases[i].query);
		condition_free(c);
	}
}

static void
without_a_body_or_metadata_all_is_missing(void **state)
{
	struct condition_facts f = { .pathname = SLICE_NONE };
	struct condition *c = compiled("{\"metadata.a\":{\"$ne\":1},\"params.a.b\":{\"$ne\":1},\"url.pathname\":{\"$regex\":\"^undefined$\"}}");

	(void)state;
	assert_true(condition_holds(c, &f));
	condition_free(c);
	condition_free(NULL);
}

static void
each_mistake_is_told_with_its_place(void **state)
{
	static const struct { const char *query, *lines; } cases[] = {
		{ "[]", "at: must be an object: a query\n" }, { "\"x\"", "at: must be an object: a query\n" },
		{ "{\"$and\":{}}", "at.$and: must be an array of queries\n" }, { "{\"$or\":[]}", "at.$or: must have a query\n" },
		{ "{\"$or\":[{},7,{\"$an\":[]}]}", "at.$or[1]: must be an object: a query\n"
		    "at.$or[2].$an: unknown operator; did you mean \"$and\"?\n" },
		{ "{\"$never\":{}}", "at.$never: unknown operator\n" },
		{ "{\"metadata.a\":{\"$equals\":1,\"$exists\":true}}", "at.metadata.a.$equals: unknown operator\n"
		    "at.metadata.a.$exists: unknown operator\n" },
		{ "{\"metadata.a\":{\"$regexp\":\"x\"}}", "at.metadata.a.$regexp: unknown operator; did you mean \"$regex\"?\n" },
		{ "{\"metadata.a\":{}}", "at.metadata.a: must have an operator\n" }, { "{\"metadata.a\":{ \n}}", "at.metadata.a: must have an operator\n" },
		{ "{\"metadata.a\":[1]}", "at.metadata.a: must be a value or an object of operators; one of several is {\"$in\": [...]}\n" },
		{ "{\"metadata.a\":{\"$in\":\"x\"}}", "at.metadata.a.$in: must be an array of values\n" },
		{ "{\"metadata.a\":{\"$nin\":[1,{}]}}", "at.metadata.a.$nin[1]: must be a string, a number, true, false or null: nothing else is ever equal\n" },
		{ "{\"metadata.a\":{\"$eq\":[]}}", "at.metadata.a.$eq: must be a string, a number, true, false or null: nothing else is ever equal\n" },
		{ "{\"metadata.a\":{\"$gt\":[1]}}", "at.metadata.a.$gt: must be a number\n" },
		{ "{\"metadata.a\":{\"$regex\":5}}", "at.metadata.a.$regex: must be a string: a pattern of JavaScript, without slashes and flags\n" },
		{ "{\"metadata.a\":{\"$regex\":\"\\u0061(b\"}}", "at.metadata.a.$regex: a '(' without its ')', at byte 4 of the pattern\n" },
		{ "{\"metadata.a\":1,\"metadat\\u0061.a\":2}", "at.metadat\\u0061.a: given twice\n" },
		{ "{\"metadata.a\":{\"$eq\":1,\"$eq\":2}}", "at.metadata.a.$eq: given twice\n" },
		{ "{\"$or\":[{}],\"$or\":[{}]}", "at.$or: given twice\n" },
	};
	static const char *const keys[] = { "", "team", "metadata", "metadata.", "params", "params.", "params.a..b", "params.a.", "params..a",
		"url", "url.path", "url.pathname.x", "headers.x", "Metadata.a", "params.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q" };
	char query[512], lines[512];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_null(compile(cases[i].query, "at"));
		if (!slice_eq(buf_slice(&problems.text), slice_of(cases[i].lines)))
			fail_msg("%s:\n%.*s", cases[i].query, SLICE_FMT(buf_slice(&problems.text)));
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		snprintf(query, sizeof(query), "{\"%s\":{\"$eq\":1,\"$foo\":2}}", keys[i]);
		snprintf(lines, sizeof(lines), "at.%s: must be metadata.NAME, params.NAME (or params.NAME.NAME and so on) or url.pathname, at most 256 bytes\n"
		    "at.%s.$foo: unknown operator\n", keys[i], keys[i]);
		assert_null(compile(query, "at"));
		assert_true(slice_eq(buf_slice(&problems.text), slice_of(lines)));
	}
	/* At the document's root a path has nothing before it. */
	assert_null(compile("{\"metadata.a\":{\"$foo\":1}}", ""));
	assert_true(slice_eq(buf_slice(&problems.text), SLICE("metadata.a.$foo: unknown operator\n")));
}

static void
queries_are_bounded(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	for (int depth = CONDITION_DEPTH_MAX; depth <= CONDITION_DEPTH_MAX + 1; depth++) {
		buf_clear(&b);
		for (int i = 0; i < depth; i++)
			buf_add_str(&b, i % 2 ? "{\"$or\":[" : "{\"$and\":[");
		buf_add_str(&b, "{\"metadata.a\":1}");
		for (int i = 0; i < depth; i++)
			buf_add_str(&b, "]}");
		buf_add_char(&b, '\0');
		struct condition *c = compile(b.p, "q");
		assert_int_equal(c != NULL, depth == CONDITION_DEPTH_MAX);
		condition_free(c);
	}
	assert_true(slice_contains(buf_slice(&problems.text), SLICE("[0].$and: more than 16 of $and and $or in one another\n")));
	for (int n = CONDITION_NODES_MAX - 1; n <= CONDITION_NODES_MAX + 5; n++) {	/* the query itself is a node */
		buf_clear(&b);
		for (int i = 0; i < n; i++)
			buf_printf(&b, "%s\"metadata.m%d\":%d", i ? "," : "{", i, i);
		buf_add(&b, "}", 2);
		struct condition *c = compile(b.p, "q");
		assert_int_equal(c != NULL, n == CONDITION_NODES_MAX - 1);
		assert_int_equal(problems.count, n >= CONDITION_NODES_MAX);	/* told once */
		condition_free(c);
	}
	for (int n = CONDITION_VALUES_MAX; n <= CONDITION_VALUES_MAX + 1; n++) {
		buf_clear(&b);
		buf_add_str(&b, "{\"metadata.n\":{\"$in\":[");
		for (int i = 0; i < n; i++)
			buf_printf(&b, "%s\"%d\"", i ? "," : "", i);
		buf_add(&b, "]}}", 4);
		struct condition *c = compile(b.p, "q");
		struct condition_facts f = facts();
		assert_int_equal(c != NULL, n == CONDITION_VALUES_MAX);
		assert_true(!c || condition_holds(c, &f));
		condition_free(c);
	}
	assert_true(slice_eq(buf_slice(&problems.text), SLICE("q.metadata.n.$in: more than 1024 values\n")));
	buf_free(&b);
}

static void
a_costly_pattern_is_false_and_said(void **state)
{
	struct condition *c = compiled("{\"params.x\":{\"$regex\":\"(?:a+)+[yz]\"}}"), *other = compiled("{\"params.x\":{\"$regex\":\"z$\"}}");
	char text[REGEX_SUBJECT_BYTES_MAX + 64];
	struct condition_facts f = facts();
	struct json_error why;
	bool gave_up = false;
	struct buf lines;

	(void)state;
	buf_init(&lines, 4096);
	f.gave_up = &gave_up;
	for (size_t n = 30; n <= REGEX_SUBJECT_BYTES_MAX + 20; n += REGEX_SUBJECT_BYTES_MAX - 30) {
		memset(text, 'a', sizeof(text));
		memcpy(text, "{\"x\":\"", 6);
		memcpy(text + n, "\\n\"}", 4);
		assert_true(body_scan((struct slice){ text, n + 4 }, &body, &why));
		gave_up = false;
		assert_false(condition_holds(c, &f));
		assert_true(gave_up);
		gave_up = false;
		assert_false(condition_holds(other, &f));
		assert_false(gave_up);
	}
	condition_describe(c, &f, &lines);
	assert_true(slice_starts(buf_slice(&lines),
	    SLICE("params.x $regex \"(?:a+)+[yz]\": no: the pattern is too costly for this value, it is \"aaa")));
	f.gave_up = NULL;
	assert_false(condition_holds(c, &f));
	buf_free(&lines);
	condition_free(c);
	condition_free(other);
}

static void
comparisons_are_described(void **state)
{
	struct condition *c = compiled("{\"metadata.team\":\"sales\",\"$or\":[{\"params.model\":{\"$regex\":\"opus\",\"$ne\":1}},"
	    "{\"params.thinking.type\":{\"$in\":[\"enabled\"]},\"params.none\":{\"$gt\":5}},{}],\"url.pathname\":{\"$eq\":\"/\"}}");
	struct condition_facts f = facts();
	struct buf lines;

	(void)state;
	buf_init(&lines, 4096);
	condition_describe(c, &f, &lines);
	buf_add_char(&lines, '\0');
	assert_string_equal(lines.p,
	    "metadata.team $eq \"sales\": no, it is \"support\"\n"
	    "one of:\n"
	    "  all of:\n"
	    "    params.model $regex \"opus\": yes, it is \"claude-opus-5-5\"\n"
	    "    params.model $ne 1: not looked at, behind $regex\n"
	    "  all of:\n"
	    "    params.thinking.type $in [\"enabled\"]: yes, it is \"enabled\"\n"
	    "    params.none $gt 5: no, it is missing\n"
	    "  all of:\n"
	    "url.pathname $eq \"/\": no, it is \"/v1/messages\"\n");
	buf_free(&lines);
	condition_free(c);
}

static void
holding_needs_no_memory(void **state)
{
	struct condition *c = compiled("{\"$or\":[{\"params.escaped\":{\"$regex\":\"^(b|c)\"}},{\"params.tags\":{\"$regex\":\",9\"}},"
	    "{\"metadata.team\":{\"$in\":[\"a\",\"b\"]}},{\"params.n\":{\"$gt\":\"1e3\"}},{\"params.thinking.a.b.0\":2}]}");
	struct condition_facts f = facts();
	size_t before = mallinfo2().uordblks;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_false(condition_holds(c, &f));
	assert_int_equal(mallinfo2().uordblks, before);
	condition_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule_holds), cmocka_unit_test(without_a_body_or_metadata_all_is_missing),
		cmocka_unit_test(each_mistake_is_told_with_its_place), cmocka_unit_test(queries_are_bounded),
		cmocka_unit_test(a_costly_pattern_is_false_and_said), cmocka_unit_test(comparisons_are_described),
		cmocka_unit_test(holding_needs_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, free_problems);
}
