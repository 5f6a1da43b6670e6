/*
 * Arguments of the tools: every form that is taken, and one line for each that
 * is not. Amounts are exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "gateway/args.h"

struct options {
	bool json;
	const char *slug, *operand;
	struct arg_many where;
};

static int
parse(struct options *o, const char *const *words)
{
	const struct arg list[] = {
		{ "json", ARG_FLAG, &o->json }, { "slug", ARG_TEXT, &o->slug }, { "where", ARG_MANY, &o->where },
	};
	const struct args args = { "key test", "", list, 3, &o->operand };
	char *argv[ARGS_MANY_MAX * 2 + 8] = { "test" };
	int argc = 1;

	*o = (struct options){ .json = false };
	for (; *words; words++)
		argv[argc++] = (char *)(uintptr_t)*words;
	return args_parse(&args, argc, argv);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void
options_come_in_any_order(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(parse(&o, WORDS("name", "--where", "a=b", "--json", "--slug=x=y", "--where=c")), ARGS_GO);
	assert_true(o.json);
	assert_string_equal(o.slug, "x=y");
	assert_string_equal(o.operand, "name");
	assert_int_equal(o.where.count, 2);
	assert_string_equal(o.where.text[0], "a=b");
	assert_string_equal(o.where.text[1], "c");
	assert_int_equal(parse(&o, WORDS("--slug", "--json")), ARGS_GO);
	assert_string_equal(o.slug, "--json");
	assert_int_equal(parse(&o, WORDS("--slug=")), ARGS_GO);
	assert_string_equal(o.slug, "");
	assert_int_equal(parse(&o, WORDS("--help", "--nonsense")), 0);
}

static void
mistakes_are_status_2(void **state)
{
	const char *many[2 * ARGS_MANY_MAX + 4] = { NULL };
	struct options o;

	(void)state;
	assert_int_equal(parse(&o, WORDS("--nonsense")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("--slugs", "x")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("--slu", "x")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("-slug", "x")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("--slug")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("--slug", "a", "--slug", "b")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("--json=yes")), ARGS_MISTAKE);
	assert_int_equal(parse(&o, WORDS("one", "two")), ARGS_MISTAKE);
	for (int i = 0; i <= ARGS_MANY_MAX; i++)
		many[i] = "--where=x";
	assert_int_equal(parse(&o, many), ARGS_MISTAKE);
}

static void
dollars_are_exact(void **state)
{
	static const struct { const char *text; int64_t nusd; } rows[] = {
		{ "1", 1000000000 }, { "0.25", 250000000 }, { "$25", INT64_C(25000000000) }, { "0.000000001", 1 },
		{ "0", 0 }, { "007.10", INT64_C(7100000000) }, { "9223372036.854775807", INT64_MAX },
		{ "9007199.254740993", INT64_C(9007199254740993) },
	};
	static const char *const wrong[] = {
		"", "$", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", "0x1", "1 ", " 1", "1.0000000000", "1..2", "1.2.3",
		"9223372036.854775808", "99999999999999999999", "1USD", "$$1",
	};
	int64_t nusd;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		assert_true(args_usd(rows[i].text, &nusd));
		assert_int_equal(nusd, rows[i].nusd);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (args_usd(wrong[i], &nusd))
			fail_msg("taken: %s", wrong[i]);
}

static void
durations_have_units(void **state)
{
	static const char *const wrong[] = { "", "m", "10", "10 m", "10ms", "-1m", "1.5h", "99999999999999d", "1y" };
	int64_t ns;

	(void)state;
	assert_true(args_duration("0", &ns) && ns == 0);
	assert_true(args_duration("90s", &ns) && ns == INT64_C(90000000000));
	assert_true(args_duration("10m", &ns) && ns == INT64_C(600000000000));
	assert_true(args_duration("2h", &ns) && ns == INT64_C(7200000000000));
	assert_true(args_duration("3d", &ns) && ns == INT64_C(259200000000000));
	assert_true(args_duration("1w", &ns) && ns == INT64_C(604800000000000));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (args_duration(wrong[i], &ns))
			fail_msg("taken: %s", wrong[i]);
}

static void
counts_have_bounds(void **state)
{
	int64_t n;

	(void)state;
	assert_true(args_count("1", 1, 10, &n) && n == 1);
	assert_true(args_count("10", 1, 10, &n) && n == 10);
	assert_false(args_count("0", 1, 10, &n));
	assert_false(args_count("11", 1, 10, &n));
	assert_false(args_count("1x", 1, 10, &n));
	assert_false(args_count("", 1, 10, &n));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_come_in_any_order),
		cmocka_unit_test(mistakes_are_status_2),
		cmocka_unit_test(dollars_are_exact),
		cmocka_unit_test(durations_have_units),
		cmocka_unit_test(counts_have_bounds),
	};

	return cmocka_run_group_tests_name("args", tests, NULL, NULL);
}
