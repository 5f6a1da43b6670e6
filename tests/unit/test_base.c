/*
 * The base library: slices, buffers with a ceiling, the memory of a request,
 * lines of the log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/base/buf.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/base/scratch.h"
#include "shm/base/siphash.h"
#include "shm/base/slice.h"

static void
slices_compare(void **state)
{
	(void)state;
	assert_true(slice_eq(SLICE("abc"), slice_of("abc")));
	assert_false(slice_eq(SLICE("abc"), SLICE("abd")));
	assert_false(slice_eq(SLICE("abc"), SLICE("ab")));
	assert_true(slice_eq(SLICE_NONE, SLICE("")));
	assert_true(slice_ieq(SLICE("X-Api-KEY"), SLICE("x-api-key")));
	assert_false(slice_ieq(SLICE("x@"), SLICE("x`")));	/* differ by 0x20, are no letters */
	assert_true(slice_starts(SLICE("weir_sk_1"), SLICE("weir_sk_")));
	assert_false(slice_starts(SLICE("we"), SLICE("weir")));
	assert_true(slice_contains(SLICE("a\0b"), SLICE("\0b")));
	assert_true(slice_contains(SLICE_NONE, SLICE("")));
	assert_false(slice_contains(SLICE_NONE, SLICE("a")));
	assert_true(slice_eq(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")));
	assert_int_equal(slice_trim(SLICE(" \t ")).n, 0);
	assert_null(slice_of(NULL).p);
}

/* The first two of the authors' published vectors: key 00 01 ... 0f. */
static void
siphash_is_the_published_one(void **state)
{
	const uint64_t key[2] = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
	struct siphash none = siphash128(key, SLICE("")), zero = siphash128(key, SLICE("\0"));

	(void)state;
	assert_true(none.lo == UINT64_C(0xe6a825ba047f81a3) && none.hi == UINT64_C(0x930255c71472f66d));
	assert_true(zero.lo == UINT64_C(0x44af996bd8c187da) && zero.hi == UINT64_C(0x45fc229b11597634));
}

/* Words as they come are hashed as their bytes in a row. */
static void
a_siphash_of_words_is_that_of_their_bytes(void **state)
{
	const uint64_t key[2] = { 7, UINT64_C(0x8000000000000001) };
	uint64_t words[70];
	struct siphash_stream s;

	(void)state;
	for (uint64_t i = 0; i < 70; i++)
		words[i] = i * UINT64_C(0x9e3779b97f4a7c15);
	for (size_t n = 0; n <= 70; n++) {
		struct siphash whole = siphash128(key, (struct slice){ (const char *)words, 8 * n }), pieces;

		siphash_begin(&s, key);
		for (size_t i = 0; i < n; i++)
			siphash_word(&s, words[i]);
		pieces = siphash_end(&s);
		assert_true(pieces.lo == whole.lo && pieces.hi == whole.hi);
	}
}

static void
numbers_are_whole_and_in_range(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t value;
	} rows[] = {
		{ "0", true, 0 }, { "-0", true, 0 }, { "007", true, 7 }, { "-12", true, -12 },
		{ "9223372036854775807", true, INT64_MAX }, { "-9223372036854775808", true, INT64_MIN },
		{ "9223372036854775808", false, 0 }, { "-9223372036854775809", false, 0 },
		{ "99999999999999999999999", false, 0 }, { "", false, 0 }, { "-", false, 0 },
		{ "+1", false, 0 }, { "1 ", false, 0 }, { "0x1", false, 0 }, { "1e3", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t value = 0;

		assert_int_equal(slice_to_i64(slice_of(rows[i].text), &value), rows[i].ok);
		if (rows[i].ok)
			assert_int_equal(value, rows[i].value);
	}
}

static void
a_buffer_keeps_its_ceiling(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	assert_int_equal(buf_slice(&b).n, 0);
	assert_non_null(buf_slice(&b).p);
	for (int i = 0; i < 100; i++)
		buf_add(&b, "0123456789", 10);
	assert_false(b.overflow);
	assert_int_equal(b.n, 1000);
	buf_add_char(&b, 'x');
	assert_true(b.overflow);
	assert_int_equal(b.n, 1000);
	buf_consume(&b, 995);
	assert_memory_equal(b.p, "56789", 5);
	buf_add_char(&b, 'x');		/* there is room now, but it sticks */
	assert_int_equal(b.n, 5);
	buf_clear(&b);
	buf_printf(&b, "%d-%s", 7, "seven");
	assert_memory_equal(b.p, "7-seven", 7);
	buf_free(&b);
	assert_int_equal(b.max, 1000);
	assert_null(b.p);
}

static void
json_strings_are_escaped(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	buf_add_json(&b, SLICE("a\"b\\c\nd\x01" "e\x7f" "\xc3\xa9\0z"));
	const char expected[] = "\"a\\\"b\\\\c\\nd\\u0001e\\u007f\xc3\xa9\\u0000z\"";
	assert_int_equal(b.n, sizeof(expected) - 1);
	assert_memory_equal(b.p, expected, b.n);
	buf_free(&b);
}

/* Of every length, and not a byte beside it. */
static void
slices_are_copied(void **state)
{
	char from[80], to[82], expected[82];

	(void)state;
	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (char)('a' + i % 26);
	for (size_t n = 0; n <= sizeof(from); n++) {
		struct slice s = { malloc(n ? n : 1), n };	/* of its own, so that ASan sees a step too far */

		memcpy((char *)s.p, from, n);
		memset(to, '#', sizeof(to));
		memset(expected, '#', sizeof(expected));
		memcpy(expected + 1, from, n);
		assert_ptr_equal(slice_copy(to + 1, s), to + 1 + n);
		assert_memory_equal(to, expected, sizeof(to));
		free((char *)s.p);
	}
	assert_ptr_equal(slice_copy(to, SLICE_NONE), to);
}

/* Pieces of all sizes: aligned, apart from each other, within the ceiling. */
static void
scratch_hands_out_what_it_may(void **state)
{
	struct scratch s;
	size_t handed = 0;
	char *piece[400];

	(void)state;
	for (int round = 0; round < 3; round++) {
		scratch_init(&s, 1u << 20);
		handed = 0;
		for (size_t i = 0; i < 400; i++) {
			size_t n = i * 131 % 5000;

			piece[i] = scratch_alloc(&s, n);
			assert_non_null(piece[i]);
			assert_int_equal((uintptr_t)piece[i] % 16, 0);
			memset(piece[i], (int)i, n);
			handed += n;
		}
		assert_true(s.used >= handed);
		for (size_t i = 0; i < 400; i++)
			for (size_t j = 0; j < i * 131 % 5000; j++)
				assert_int_equal((unsigned char)piece[i][j], i & 0xff);
		scratch_reset(&s);
		assert_int_equal(s.used, 0);
	}
	char *copy = scratch_dup(&s, SLICE("text"));
	assert_string_equal(copy, "text");
	assert_null(scratch_alloc(&s, 1u << 20));
	assert_null(scratch_alloc(&s, SIZE_MAX));
	assert_non_null(scratch_alloc(&s, (1u << 20) - 16));
	assert_null(scratch_alloc(&s, 1));
	scratch_reset(&s);
}

static void
clocks_go_on_and_are_written(void **state)
{
	char text[32];
	int64_t before = clock_mono_ns();

	(void)state;
	assert_true(clock_mono_ns() >= before);
	clock_format_utc(INT64_C(1795457833042000000), text, sizeof(text));
	assert_string_equal(text, "2026-11-23T18:17:13.042Z");
	clock_format_utc(0, text, sizeof(text));
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
}

/* Runs a piece of the program with stderr going into a pipe. */
static size_t
log_lines(char *out, size_t size)
{
	int ends[2], kept = dup(STDERR_FILENO);

	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	log_set_process("worker-3");
	log_debug("not this");
	log_warn("a \"quoted\" %s", "word\n");
	log_set_level(LOG_ERROR);
	log_warn("nor this");
	log_set_level(LOG_INFO);
	dup2(kept, STDERR_FILENO);
	close(kept);
	close(ends[1]);
	ssize_t n = read(ends[0], out, size - 1);
	close(ends[0]);
	assert_true(n > 0);
	out[n] = '\0';
	return (size_t)n;
}

static void
the_log_is_a_json_object_a_line(void **state)
{
	char text[1024], expected[128];
	size_t n = log_lines(text, sizeof(text));

	(void)state;
	snprintf(expected, sizeof(expected),
	    "\"level\":\"warn\",\"process\":\"worker-3\",\"pid\":%d,\"msg\":\"a \\\"quoted\\\" word\\n\"}\n",
	    (int)getpid());
	assert_int_equal(strncmp(text, "{\"time\":\"2", 10), 0);
	assert_non_null(strstr(text, expected));
	assert_int_equal(strchr(text, '\n') - text, n - 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slices_compare),
		cmocka_unit_test(siphash_is_the_published_one),
		cmocka_unit_test(a_siphash_of_words_is_that_of_their_bytes),
		cmocka_unit_test(numbers_are_whole_and_in_range),
		cmocka_unit_test(a_buffer_keeps_its_ceiling),
		cmocka_unit_test(json_strings_are_escaped),
		cmocka_unit_test(slices_are_copied),
		cmocka_unit_test(scratch_hands_out_what_it_may),
		cmocka_unit_test(clocks_go_on_and_are_written),
		cmocka_unit_test(the_log_is_a_json_object_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
