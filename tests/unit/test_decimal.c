/*
 * Decimal numbers: every digit counts, and what cannot be exact is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "policy/decimal.h"

static void
numbers_are_exact(void **state)
{
	static const struct { const char *text; int scale; int64_t value; } rows[] = {
		{ "0", 9, 0 }, { "0", 0, 0 }, { "0.0", 0, 0 }, { "0e99999999999", 9, 0 }, { "0.000e-99", 9, 0 },
		{ "1", 9, 1000000000 }, { "12.5", 9, 12500000000 }, { "0.000000001", 9, 1 }, { "1e-9", 9, 1 },
		{ "123e-2", 9, 1230000000 }, { "1.5E+3", 0, 1500 }, { "1.50000", 1, 15 }, { "100e-2", 0, 1 },
		{ "9007199.254740993", 9, INT64_C(9007199254740993) },		/* no double has it */
		{ "9223372036.854775807", 9, INT64_MAX }, { "9223372036854775807", 0, INT64_MAX },
		{ "0.00000000100000000000000000000000000000000000000000", 9, 1 },
		{ "1.00000000000000000000000000000000000000000000000000e9", 0, 1000000000 },
		{ "00012", 0, 12 },	/* JSON has no such number; there is one meaning all the same */
	};
	int64_t value;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		value = -1;
		if (!decimal_parse(slice_of(rows[i].text), rows[i].scale, INT64_MAX, &value) || value != rows[i].value)
			fail_msg("%s: %lld", rows[i].text, (long long)value);
	}
	assert_true(decimal_parse(SLICE("10"), 0, 10, &value));
	assert_false(decimal_parse(SLICE("11"), 0, 10, &value));
	assert_false(decimal_parse(SLICE("1e1"), 1, 99, &value));
}

static void
the_rest_is_refused(void **state)
{
	static const char *const rows[] = {
		"", "-", "-1", "+1", "-0", ".5", "1.", "1.e3", "1e", "1e+", "e3", "1 ", " 1", "1x", "0x10", "1,5", "1_000", "$1", "NaN",
		"1e3x", "1.2.3", "0.0000000001", "1.0000000001", "1e-10", "9223372036.854775808", "1e10", "1e99999999999999999999",
		"99999999999999999999999999999999999999999999999999", "1e300",
		"0.00000000000000000000000000000000000000000000000001", "1.00000000000000000000000000000000000000000000000001",
	};
	int64_t value;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (decimal_parse(slice_of(rows[i]), 9, INT64_MAX, &value))
			fail_msg("taken: %s", rows[i]);
}

static void
what_is_printed_is_read_again(void **state)
{
	uint64_t x = 88172645463325252u;
	char text[40];
	int64_t value;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		int64_t nusd = (int64_t)(x >> 1) >> i % 63;

		snprintf(text, sizeof(text), "%lld.%09lld", (long long)(nusd / 1000000000), (long long)(nusd % 1000000000));
		assert_true(decimal_parse(slice_of(text), DECIMAL_NUSD, INT64_MAX, &value));
		assert_int_equal(value, nusd);
		snprintf(text, sizeof(text), "%llde-9", (long long)nusd);
		assert_true(decimal_parse(slice_of(text), DECIMAL_NUSD, INT64_MAX, &value));
		assert_int_equal(value, nusd);
		assert_false(nusd > 0 && decimal_parse(slice_of(text), DECIMAL_NUSD, nusd - 1, &value));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_exact),
		cmocka_unit_test(the_rest_is_refused),
		cmocka_unit_test(what_is_printed_is_read_again),
	};

	return cmocka_run_group_tests_name("decimal", tests, NULL, NULL);
}
