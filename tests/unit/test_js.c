/*
 * Values as JavaScript sees them: the ends of buffers, and a few of each kind.
 * The many are compared with JavaScript itself in tests/oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "policy/js.h"

/* A value inside of an array, as the contract wants it. */
static struct slice
inside(const char *array)
{
	return (struct slice){ array + 1, strlen(array) - 2 };
}

static void
values_are_text(void **state)
{
	static const struct { const char *array, *text; } cases[] = {
		{ "[\"a\"]", "a" }, { "[\"\"]", "" }, { "[\"\\u00e4\\n\"]", "\xc3\xa4\n" }, { "[1]", "1" }, { "[-0]", "0" }, { "[1.50]", "1.5" },
		{ "[1e21]", "1e+21" }, { "[1e-7]", "1e-7" }, { "[1e999]", "Infinity" }, { "[true]", "true" }, { "[null]", "null" },
		{ "[{\"a\":[1]}]", "[object Object]" }, { "[[]]", "" }, { "[[1,[2,\"x\"],null,{\"a\":[5]},[]]]", "1,2,x,,[object Object]," },
	};
	char room[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (!slice_eq(js_text(inside(cases[i].array), room, sizeof(room)), slice_of(cases[i].text)))
			fail_msg("%s", cases[i].array);
}

static void
text_fits_or_its_beginning_is_there(void **state)
{
	static const char *const values[] = { "[\"abc\\u0064e\"]", "[[\"abc\",\"\\u0064\"]]", "[[\"abc\",[5]]]", "[12345]" };
	static const char *const texts[] = { "abcde", "abc,d", "abc,5", "12345" };
	char room[8];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (size_t size = 1; size <= 8; size++) {
			memset(room, '#', sizeof(room));
			struct slice s = js_text(inside(values[i]), room, size);

			if (size >= 6)
				assert_true(slice_eq(s, slice_of(texts[i])));
			else
				assert_null(s.p);
			size_t n = size - 1 < 5 ? size - 1 : 5;
			assert_memory_equal(room, texts[i], n);
			assert_true(room[n] == '\0' && (n == 7 || room[7] == '#'));
		}
}

static void
values_are_numbers(void **state)
{
	static const struct { const char *array; double number; } cases[] = {
		{ "[12]", 12 }, { "[-1.5e1]", -15 }, { "[123456789012345678]", 123456789012345678.0 }, { "[\" 12px\"]", 12 }, { "[\"\\u0031\"]", 1 },
		{ "[\"-.5\"]", -.5 }, { "[\"0x10\"]", 0 }, { "[\"Infinity\"]", INFINITY }, { "[\"-Infinity!\"]", -INFINITY }, { "[\"1e\"]", 1 },
		{ "[\"\xe2\x80\xaf""5\"]", 5 }, { "[[[7],8]]", 7 },
	};
	static const char *const none[] = {
		"[\"\"]", "[\"x1\"]", "[\"infinity\"]", "[\"nan\"]", "[\"- 1\"]", "[\".\"]", "[\"+\"]", "[true]", "[null]", "[{}]", "[[]]", "[\"\xe2\x80\x8b""5\"]",
	};
	char long_text[3 * JS_FLOAT_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (js_float(inside(cases[i].array)) != cases[i].number)
			fail_msg("%s", cases[i].array);
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		if (!isnan(js_float(inside(none[i]))))
			fail_msg("%s", none[i]);
	/* A long text is looked at as far as it was written. */
	memset(long_text, '1', sizeof(long_text));
	memcpy(long_text, "[\"\\u0031.", 9);
	memcpy(long_text + sizeof(long_text) - 3, "\"]", 3);
	assert_true(js_float(inside(long_text)) == 1 + 1.0 / 9);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_text), cmocka_unit_test(text_fits_or_its_beginning_is_there), cmocka_unit_test(values_are_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
