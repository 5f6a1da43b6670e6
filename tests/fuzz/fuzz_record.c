/*
 * Any bytes as a stored record: decoding reads nothing outside them, and what
 * it accepts encodes to the same bytes again and prints as JSON.
 */
#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shm/base/buf.h"
#include "shm/limits.h"
#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char again[1 << 21];	/* twenty strings of 64 KiB at the most */
	char small[RECORD_BYTES_MAX];
	struct record r, cut;
	struct buf json;
	cJSON *tree;
	uint32_t n;

	if (!record_decode((struct slice){ (const char *)data, size }, &r))
		return 0;
	n = record_encode(&r, again, sizeof(again));
	CHECK(n == size && memcmp(again, data, size) == 0);
	n = record_encode(&r, small, sizeof(small));
	CHECK(record_decode((struct slice){ small, n }, &cut));
	buf_init(&json, 1 << 24);
	record_to_json(&r, 1, &json);
	CHECK(!json.overflow);
	tree = cJSON_ParseWithLength(json.p, json.n);
	CHECK(tree);
	cJSON_Delete(tree);
	buf_free(&json);
	return 0;
}
