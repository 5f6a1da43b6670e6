/*
 * tests/fuzz/fuzz_metadata.c -- any bytes as a metadata header.
 *
 * What is kept must be within its bounds, survive being written as JSON and
 * read again, and a refusal must name a place in the header in plain ASCII.
 */
#include <string.h>

#include "policy/json.h"
#include "policy/metadata.h"
#include "shm/base/scratch.h"
#include "tests/fuzz/target.h"

static struct scratch memory = { .max = 1 << 20 };

static void
check_kept(const struct metadata *m)
{
	struct metadata again, merged = { .count = 0 };
	struct metadata_error why;
	struct json_error not_json;
	struct slice json = metadata_json(m, &memory);

	CHECK(m->count <= METADATA_PAIRS_MAX);
	for (uint32_t i = 0; i < m->count; i++) {
		CHECK(m->pair[i].key.n <= METADATA_KEY_BYTES_MAX);
		CHECK(m->pair[i].value.n <= 4 * METADATA_VALUE_CHARS_MAX);
		CHECK(metadata_get(m, m->pair[i].key) == &m->pair[i].value);
	}
	CHECK(metadata_merge(&merged, m) && merged.count == m->count);
	if (!json.p)
		return;		/* too long for a record */
	CHECK(json.n <= METADATA_BYTES_MAX && json_check(json, &not_json));
	CHECK(metadata_parse(json, false, &memory, &again, &why) && again.count == m->count);
	for (uint32_t i = 0; i < m->count; i++)
		CHECK(slice_eq(again.pair[i].key, m->pair[i].key) && slice_eq(again.pair[i].value, m->pair[i].value));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice header = { (const char *)data, n };
	struct metadata strict, lenient;
	struct metadata_error why;

	CHECK(metadata_parse(header, true, &memory, &lenient, &why));
	check_kept(&lenient);
	if (metadata_parse(header, false, &memory, &strict, &why)) {
		check_kept(&strict);
		CHECK(strict.count == lenient.count);
	} else {
		CHECK(why.offset <= n && memchr(why.what, '\0', sizeof(why.what)));
		for (const char *c = why.what; *c; c++)
			CHECK(*c >= 0x20 && *c < 0x7f);
	}
	scratch_reset(&memory);
	return 0;
}
