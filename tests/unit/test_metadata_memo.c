/*
 * The memo must never give one key's metadata to another, nor what older
 * settings made of a header; and it must go on when it is full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "gateway/metadata_memo.h"

static void
remembers_by_key_settings_and_text(void **state)
{
	struct metadata_memo *m = metadata_memo_new();
	struct slice header = SLICE("{\"team\":\"eng\"}"), json = SLICE("{\"team\":\"eng\",\"env\":\"prod\"}");

	(void)state;
	assert_null(metadata_memo_get(m, 1, 1, header).p);
	metadata_memo_put(m, 1, 1, header, json);
	assert_true(slice_eq(metadata_memo_get(m, 1, 1, header), json));
	assert_null(metadata_memo_get(m, 2, 1, header).p);
	assert_null(metadata_memo_get(m, 1, 2, header).p);
	assert_null(metadata_memo_get(m, 1, 1, SLICE("{\"team\":\"ops\"}")).p);
	metadata_memo_put(m, 3, 1, SLICE_NONE, SLICE("{}"));	/* no header at all */
	assert_true(slice_eq(metadata_memo_get(m, 3, 1, SLICE_NONE), SLICE("{}")));
	metadata_memo_free(m);
}

static void
many_headers_never_mix(void **state)
{
	struct metadata_memo *m = metadata_memo_new();
	char header[64], json[64];
	unsigned kept = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		int h = snprintf(header, sizeof(header), "{\"user\":\"u%u\"}", i);
		int j = snprintf(json, sizeof(json), "{\"user\":\"u%u\",\"k\":\"%u\"}", i, i % 7);
		metadata_memo_put(m, i % 7, 1, (struct slice){ header, (size_t)h }, (struct slice){ json, (size_t)j });
	}
	for (unsigned i = 0; i < 5000; i++) {
		int h = snprintf(header, sizeof(header), "{\"user\":\"u%u\"}", i);
		int j = snprintf(json, sizeof(json), "{\"user\":\"u%u\",\"k\":\"%u\"}", i, i % 7);
		struct slice got = metadata_memo_get(m, i % 7, 1, (struct slice){ header, (size_t)h });

		if (got.p) {
			kept++;
			assert_true(slice_eq(got, (struct slice){ json, (size_t)j }));
		}
	}
	assert_in_range(kept, 100, 256);
	metadata_memo_free(m);
}

static void
what_is_too_long_is_not_kept(void **state)
{
	static const char long_text[2000] = "x";
	struct metadata_memo *m = metadata_memo_new();
	struct slice big = { long_text, sizeof(long_text) };

	(void)state;
	metadata_memo_put(m, 1, 1, big, SLICE("{}"));
	assert_null(metadata_memo_get(m, 1, 1, big).p);
	metadata_memo_put(m, 1, 1, SLICE("{}"), big);
	assert_null(metadata_memo_get(m, 1, 1, SLICE("{}")).p);
	metadata_memo_free(m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembers_by_key_settings_and_text),
		cmocka_unit_test(many_headers_never_mix),
		cmocka_unit_test(what_is_too_long_is_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
