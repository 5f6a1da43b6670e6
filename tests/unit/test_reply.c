/*
 * Numbers in heads: every length, and no byte behind the room.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>

#include "gateway/reply.h"

static void
expect_number(int64_t value)
{
	char wanted[32], room[32];
	int n = snprintf(wanted, sizeof(wanted), "<%" PRId64, value);
	struct text t = { .p = room, .room = (size_t)n };

	text_add(&t, SLICE("<"));
	text_int(&t, value);
	assert_false(t.overflow);
	assert_int_equal(t.n, n);
	assert_memory_equal(room, wanted, (size_t)n);

	/* One byte too few: nothing is written. */
	struct text small = { .p = room, .n = 1, .room = (size_t)n - 1 };
	memset(room, '#', sizeof(room));
	text_int(&small, value);
	assert_true(small.overflow);
	assert_int_equal(small.n, 1);
	for (size_t i = 0; i < sizeof(room); i++)
		assert_int_equal(room[i], '#');
}

static void
numbers_of_every_length(void **state)
{
	int64_t power = 1;

	(void)state;
	for (int digits = 1; digits <= 19; digits++) {
		expect_number(power - 1);
		expect_number(power);
		expect_number(power + 1);
		expect_number(digits < 19 ? power * 9 + power - 1 : INT64_MAX);
		power = digits < 19 ? power * 10 : power;
	}
	for (int bits = 0; bits < 63; bits++) {
		expect_number((INT64_C(1) << bits) - 1);
		expect_number(INT64_C(1) << bits);
	}
	expect_number(INT64_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_of_every_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
