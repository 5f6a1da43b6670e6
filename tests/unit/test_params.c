/*
 * A target's changes of the body, byte by byte. Random ones are compared with
 * edited trees in tests/oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/config.h"
#include "policy/params.h"
#include "shm/base/scratch.h"

#define LIST_MAX 80

static struct scratch memory = { .max = 1 << 20 };
static struct problems problems;

static int
free_all(void **state)
{
	(void)state;
	problems_free(&problems);
	scratch_reset(&memory);
	return 0;
}

static struct params_path *
path_compiled(struct slice text)
{
	problems_free(&problems);
	problems_init(&problems);
	return params_path_compile(text, "drop_params[0]", &problems);
}

/* Parts of a text between line feeds. */
static uint32_t
parts(const char *text, char store[], char *out[LIST_MAX])
{
	uint32_t n = 0;

	memcpy(store, text, strlen(text) + 1);
	for (char *p = store; *p; n++) {
		assert_true(n < LIST_MAX);
		out[n] = p;
		p += strcspn(p, "\n");
		if (*p)
			*p++ = '\0';
	}
	return n;
}

/* "name=raw" a line. */
static uint32_t
params_of(const char *text, char store[], struct config_param out[LIST_MAX])
{
	char *lines[LIST_MAX];
	uint32_t n = parts(text, store, lines);

	for (uint32_t i = 0; i < n; i++) {
		out[i] = (struct config_param){ lines[i], strchr(lines[i], '=') + 1 };
		out[i].raw[-1] = '\0';
	}
	return n;
}

static struct slice
applied(const char *body, const char *defaults, const char *overrides, const char *drops, const char **why)
{
	static struct body_scan scan;
	static char store[3][4096];
	struct config_param d[LIST_MAX], o[LIST_MAX];
	struct params_path *paths[LIST_MAX];
	char *lines[LIST_MAX];
	struct json_error not;
	struct params p = {
		.defaults = d, .defaults_count = params_of(defaults, store[0], d),
		.overrides = o, .overrides_count = params_of(overrides, store[1], o),
		.drops = paths, .drops_count = parts(drops, store[2], lines),
	};
	struct slice out;

	if (!body_scan(slice_of(body), &scan, &not))
		fail_msg("%s: %s", not.what, body);
	for (uint32_t i = 0; i < p.drops_count; i++)
		assert_non_null(paths[i] = path_compiled(slice_of(lines[i])));
	if (!params_apply(&scan, &p, &memory, &out, why))
		out = SLICE_NONE;
	for (uint32_t i = 0; i < p.drops_count; i++)
		params_path_free(paths[i]);
	return out;
}

static void
becomes(const char *body, const char *defaults, const char *overrides, const char *drops, const char *wanted)
{
	const char *why;
	struct slice out = applied(body, defaults, overrides, drops, &why);

	if (!slice_eq(out, slice_of(wanted)))
		fail_msg("%s\nbecomes %.*s\nnot     %s", body, SLICE_FMT(out), wanted);
	assert_true((out.p == body) == (strcmp(body, wanted) == 0));
}

static void
defaults_fill_and_overrides_replace(void **state)
{
	(void)state;
	becomes("{\"a\":1}", "", "", "", "{\"a\":1}");
	becomes("{\"a\":1}", "a=2", "", "", "{\"a\":1}");
	becomes("{\"a\":null}", "a=2", "", "", "{\"a\":null}");
	becomes(" {\"a\" : 1 } ", "b=[2]\nc=\"x\"", "", "", " {\"a\" : 1,\"b\":[2],\"c\":\"x\" } ");
	becomes("{}", "b=2", "", "", "{\"b\":2}");
	becomes("{ }", "b=2", "c=3", "", "{\"b\":2,\"c\":3 }");
	becomes("{\"a\":{\"x\":1} ,\"b\":2}", "", "a={\"y\":2}", "", "{\"a\":{\"y\":2} ,\"b\":2}");
	becomes("{\"\\u0061\":1.50,\"b\":1e0}", "a=0", "b=1.00", "", "{\"\\u0061\":1.50,\"b\":1.00}");
	becomes("{\"a\":1}", "b=2\na=3", "b=4\na=5\nc=6", "", "{\"a\":5,\"b\":4,\"c\":6}");
	becomes("{\"a\":1}", "", "q\"\\=2", "", "{\"a\":1,\"q\\\"\\\\\":2}");
}

static void
drops_take_their_commas(void **state)
{
	(void)state;
	becomes("{\"a\":1, \"b\":2 ,\"c\":3}", "", "", "a", "{\"b\":2 ,\"c\":3}");
	becomes("{\"a\":1, \"b\":2 ,\"c\":3}", "", "", "b", "{\"a\":1 ,\"c\":3}");
	becomes("{\"a\":1, \"b\":2 ,\"c\":3 }", "", "", "c", "{\"a\":1, \"b\":2 }");
	becomes("{ \"a\":1, \"b\":2 ,\"c\":3}", "", "", "a\nb", "{ \"c\":3}");
	becomes("{\"a\":1, \"b\":2 ,\"c\":3}", "", "", "c\nb", "{\"a\":1}");
	becomes("{\"a\":1, \"b\":2 ,\"c\":3}", "", "", "a\nc", "{\"b\":2}");
	becomes("{ \"a\":1, \"b\":2 ,\"c\":3 }", "", "", "c\na\nb", "{  }");
	becomes("{\"a\":1}", "", "", "b\na.b\na[0]\na[*]\nb[*].c", "{\"a\":1}");
	becomes("{\"a\":[1, 2 ,3]}", "", "", "a[0]", "{\"a\":[2 ,3]}");
	becomes("{\"a\":[1, 2 ,3]}", "", "", "a[1]", "{\"a\":[1 ,3]}");
	becomes("{\"a\":[1, 2 ,3]}", "", "", "a[2]\na[3]", "{\"a\":[1, 2]}");
	becomes("{\"a\":[1, 2 ,3]}", "", "", "a[0]\na[1]", "{\"a\":[3]}");
	becomes("{\"a\":[1, 2 ,3]}", "", "", "a[*]", "{\"a\":[]}");
	becomes("{\"a\":[[1],[2]]}", "", "", "a[*][0]", "{\"a\":[[],[]]}");
}

static void
drops_reach_any_depth(void **state)
{
	(void)state;
	becomes("{\"a\":{\"b\":1,\"c\":2},\"d\":{\"b\":3}}", "", "", "a.b", "{\"a\":{\"c\":2},\"d\":{\"b\":3}}");
	becomes("{\"a\":{\"b\":1}}", "", "", "a.b", "{\"a\":{}}");
	becomes("{\"a\":{\"b\":1,\"x\":{\"b\":1},\"b\":2,\"\\u0062\":3}}", "", "", "a.b", "{\"a\":{\"x\":{\"b\":1}}}");
	becomes("{\"m\":[{\"c\":[{\"k\":1,\"t\":2},{\"t\":3,\"k\":{\"k\":[4]}}]},{\"c\":\"k\"},7,[{\"c\":[{\"k\":5}]}]]}", "", "", "m[*].c[*].k",
	    "{\"m\":[{\"c\":[{\"t\":2},{\"t\":3}]},{\"c\":\"k\"},7,[{\"c\":[{\"k\":5}]}]]}");
	becomes("{\"m\":[{\"k\":1},{\"k\":2},{\"k\":3}]}", "", "", "m[1].k", "{\"m\":[{\"k\":1},{},{\"k\":3}]}");
	becomes("{\"m\":{\"0\":1}}", "", "", "m[0]", "{\"m\":{\"0\":1}}");
	becomes("{\"m\":[1]}", "", "", "m.0", "{\"m\":[1]}");
	becomes("{\"m\":{\"0\":1}}", "", "", "m.0", "{\"m\":{}}");
	/* Several paths: the places are those of the body as it came. */
	becomes("{\"a\":[1,2,3],\"b\":{\"c\":1,\"d\":2}}", "", "", "a[0]\na[1]\nb.c\nb.d\nb.e", "{\"a\":[3],\"b\":{}}");
	becomes("{\"a\":{\"b\":{\"c\":1}},\"d\":2}", "", "", "a.b.c\na\na.b", "{\"d\":2}");
	becomes("{\"a\":{\"b\":{\"c\":1,\"d\":[1]},\"e\":2}}", "", "", "a.b.d[0]\na.b", "{\"a\":{\"e\":2}}");
}

static void
drops_come_last(void **state)
{
	(void)state;
	becomes("{\"a\":1}", "b=2", "a=3", "a\nb", "{}");
	becomes("{\"a\":1,\"x\":0}", "b={\"k\":1,\"l\":[1,2]}", "a=[{\"k\":1},{\"k\":2,\"l\":3}]", "a[*].k\nb.k\nb.l[0]",
	    "{\"a\":[{},{\"l\":3}],\"x\":0,\"b\":{\"l\":[2]}}");
	becomes("{\"a\":1}", "", "b=2\nc=3", "a\nb", "{\"c\":3}");
	becomes("{ \"a\":1, \"b\":2}", "", "c=3", "b", "{ \"a\":1,\"c\":3}");
	becomes("{ \"a\":1, \"b\":2 }", "", "c=3", "a\nb", "{ \"c\":3 }");
}

static void
names_may_be_odd(void **state)
{
	(void)state;
	becomes("{\"x-y\":{\"$a b\":1,\"\xc3\xa4\":2,\"\\u00e4\":3,\"*\":4},\"q\\\"\":1}", "", "", "x-y.$a b\nx-y.\xc3\xa4\nx-y.*\nq\"", "{\"x-y\":{}}");
}

static void
paths_that_are_none_are_told(void **state)
{
#define SAYS(path, what) { path, "drop_params[0]: \"" path "\" is no path such as a, a.b, a[0].b or a[*].b: " what "\n" }
	static const struct { const char *path, *line; } cases[] = {
		SAYS("", "expected a name at byte 1"), SAYS(".a", "expected a name at byte 1"), SAYS("a.", "expected a name at byte 2"),
		SAYS("a..b", "expected a name at byte 2"), SAYS("[0].a", "expected a name at byte 1"), SAYS("a]", "expected '.' or '[' at byte 2"),
		SAYS("a[0]b", "expected '.' or '[' at byte 5"), SAYS("a.[0]", "expected a name at byte 2"),
		SAYS("a[", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[]", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[-1]", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[01]", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[100000]", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[99999999999999999999]", "expected a number below 100000 or '*' in brackets at byte 2"),
		SAYS("a[0", "expected ']' at byte 2"), SAYS("a[*b]", "expected ']' at byte 2"),
		SAYS("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", "more names and brackets than 16 at byte 32"),
	};
	char long_path[PARAMS_PATH_BYTES_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_null(path_compiled(slice_of(cases[i].path)));
		if (!slice_eq(buf_slice(&problems.text), slice_of(cases[i].line)))
			fail_msg("%.*s", SLICE_FMT(buf_slice(&problems.text)));
	}
	assert_null(path_compiled(SLICE("a\0b")));
	memset(long_path, 'a', sizeof(long_path));
	assert_null(path_compiled((struct slice){ long_path, sizeof(long_path) }));
	assert_true(slice_eq(buf_slice(&problems.text), SLICE("drop_params[0]: a path has at most 256 bytes\n")));
	struct params_path *p = path_compiled((struct slice){ long_path, sizeof(long_path) - 1 });
	assert_non_null(p);
	params_path_free(p);
	params_path_free(NULL);
}

static void
what_does_not_fit_is_said(void **state)
{
	const char *why = NULL;
	struct buf body, drops;
	struct slice out;

	(void)state;
	scratch_reset(&memory);
	memory.max = 64;
	assert_null(applied("{\"a\":1}", "", "b=\"0123456789012345678901234567890123456789012345678901234567890123456789\"", "", &why).p);
	assert_string_equal(why, "with the config's parameters it is too large");
	scratch_reset(&memory);
	memory.max = 1 << 20;
	buf_init(&body, 1 << 16);
	buf_init(&drops, 1 << 16);
	for (int i = 0; i < SCAN_MEMBERS_MAX; i++) {
		buf_printf(&body, "%s\"m%d\":{\"k\":0,\"x\":1}", i ? "," : "{", i);
		buf_printf(&drops, "m%d.k\n", i);
	}
	buf_add(&body, "}", 2);
	buf_add_char(&drops, '\0');
	assert_null(applied(body.p, "n=1", "", "", &why).p);
	assert_string_equal(why, "with the config's parameters it has too many members");
	assert_non_null(applied(body.p, "n=1", "", "m0", &why).p);
	/* As many paths as there may be. */
	out = applied(body.p, "", "m1={\"k\":[]}", drops.p, &why);
	assert_non_null(out.p);
	assert_false(slice_contains(out, SLICE("\"k\"")));
	assert_true(slice_starts(out, SLICE("{\"m0\":{\"x\":1},\"m1\":{},\"m2\":{\"x\":1},")));
	buf_free(&body);
	buf_free(&drops);
}

static void
deep_values_are_passed(void **state)
{
	char body[2048];
	size_t n = 0, deep = 500;

	(void)state;
	memcpy(body, "{\"a\":", 5);
	n = 5;
	for (size_t i = 0; i < deep; i++)
		body[n++] = '[';
	for (size_t i = 0; i < deep; i++)
		body[n++] = ']';
	body[n++] = '}';
	body[n] = '\0';
	becomes(body, "", "", "a[*][*][*][*][*][*][*][*][*][*][*][*][*][*][*]", "{\"a\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}");
	becomes(body, "", "", "a[*][*].x", body);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_fill_and_overrides_replace), cmocka_unit_test(drops_take_their_commas),
		cmocka_unit_test(drops_reach_any_depth), cmocka_unit_test(drops_come_last), cmocka_unit_test(names_may_be_odd),
		cmocka_unit_test(paths_that_are_none_are_told), cmocka_unit_test(what_does_not_fit_is_said),
		cmocka_unit_test(deep_values_are_passed),
	};

	return cmocka_run_group_tests(tests, NULL, free_all);
}
