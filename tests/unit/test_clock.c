/*
 * Times as people and documents write them. The instants were computed by
 * date(1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "shm/base/clock.h"

static void
reads_rfc_3339(void **state)
{
	static const struct { const char *text; int64_t wall_ns; } rows[] = {
		{ "1970-01-01T00:00:00Z", 0 },
		{ "2026-12-31T00:00:00Z", INT64_C(1798675200000000000) },
		{ "2026-11-23T18:17:13.042Z", INT64_C(1795457833042000000) },
		{ "2026-11-23t18:17:13.042z", INT64_C(1795457833042000000) },
		{ "2026-11-23 18:17:13.0420000009Z", INT64_C(1795457833042000000) },
		{ "2026-11-23T19:17:13.042+01:00", INT64_C(1795457833042000000) },
		{ "2026-11-23T13:47:13.042-04:30", INT64_C(1795457833042000000) },
		{ "2016-12-31T23:59:60Z", INT64_C(1483228800000000000) },
		{ "2024-02-29T00:00:00Z", INT64_C(1709164800000000000) },
		{ "2261-12-31T23:59:59.999999999Z", INT64_C(9214646399999999999) },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		int64_t wall_ns = -1;

		if (!clock_parse_utc(slice_of(rows[i].text), &wall_ns) || wall_ns != rows[i].wall_ns)
			fail_msg("%s: %lld", rows[i].text, (long long)wall_ns);
	}
}

static void
refuses_what_is_no_time(void **state)
{
	static const char *const rows[] = {
		"", "2026", "2026-12-31", "2026-12-31T00:00:00", "2026-12-31T00:00Z", "2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z", "2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z", "2026-12-31T24:00:00Z",
		"2026-12-31T00:60:00Z", "2026-12-31T00:00:00.Z", "2026-12-31T00:00:00+0100", "2026-12-31T00:00:00+25:00",
		"2026-12-31T00:00:00Zx", " 2026-12-31T00:00:00Z", "1969-12-31T23:59:59Z", "2262-01-01T00:00:00Z",
		"1970-01-01T00:00:00+01:00", "+026-12-31T00:00:00Z", "2026-12-31T00:00:0",
	};
	int64_t wall_ns;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (clock_parse_utc(slice_of(rows[i]), &wall_ns))
			fail_msg("taken: %s", rows[i]);
}

static void
reads_dates_of_http(void **state)
{
	static const struct { const char *text; int64_t s; } rows[] = {
		{ "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 },
		{ "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
		{ "Mon, 30 Nov 2026 23:59:60 GMT", 1796083200 },
		{ "Thu, 29 Feb 2024 00:00:00 GMT", 1709164800 },
	};
	static const char *const wrong[] = {
		"", "Sun", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 CET",
		"Sun, 06 nov 1994 08:49:37 GMT", "Sun, 30 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
		"Sun, 06 Nov 1969 08:49:37 GMT", "Sun; 06 Nov 1994 08:49:37 GMT", "Sun, 6  Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 08:49:37 GMT ", "120",
	};
	int64_t wall_ns;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (!clock_parse_http(slice_of(rows[i].text), &wall_ns) || wall_ns != rows[i].s * NS_PER_S)
			fail_msg("%s: %lld", rows[i].text, (long long)wall_ns);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (clock_parse_http(slice_of(wrong[i]), &wall_ns))
			fail_msg("taken: %s", wrong[i]);
}

static void
what_is_written_is_read(void **state)
{
	char text[32];
	int64_t wall_ns;

	(void)state;
	for (int64_t ns = 0; ns < INT64_C(4000000000) * NS_PER_S; ns += INT64_C(86399123) * NS_PER_S) {
		clock_format_utc(ns, text, sizeof(text));
		assert_true(clock_parse_utc(slice_of(text), &wall_ns));
		assert_int_equal(wall_ns, ns);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_rfc_3339),
		cmocka_unit_test(refuses_what_is_no_time),
		cmocka_unit_test(reads_dates_of_http),
		cmocka_unit_test(what_is_written_is_read),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
