/*
 * Any bytes as a record, and as what the store keeps of one (with its charges):
 * reading looks at nothing outside them, and a record that is accepted encodes
 * to the same bytes again and prints as JSON.
 */
#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shm/base/buf.h"
#include "shm/limits.h"
#include "store/days.h"
#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_record(const char *data, size_t size)
{
	static char again[1 << 21];	/* two dozen strings of 64 KiB at the most */
	char small[RECORD_BYTES_MAX];
	struct record r, cut;
	struct buf json;
	cJSON *tree;
	uint32_t n;

	if (!record_decode((struct slice){ data, size }, &r))
		return;
	n = record_encode(&r, again, sizeof(again));
	CHECK(r.fixed.version != RECORD_VERSION || (n == size && memcmp(again, data, size) == 0));
	n = record_encode(&r, small, sizeof(small));
	CHECK(record_decode((struct slice){ small, n }, &cut));
	buf_init(&json, 1 << 24);
	record_to_json(&r, 1, &json);
	CHECK(!json.overflow);
	tree = cJSON_ParseWithLength(json.p, json.n);
	CHECK(tree);
	cJSON_Delete(tree);
	buf_free(&json);
}

static void
check_stored(const char *data, size_t size)
{
	uint8_t id[8] = { 1 };
	MDB_val key = { sizeof(id), id }, value = { size, (void *)(uintptr_t)data };
	struct ring_charge charges[CHARGES_MAX];
	struct stored_item item;

	if (!stored_item_read(&key, &value, &item))
		return;
	CHECK(item.head.charges <= CHARGES_MAX);
	CHECK(item.charges >= data && item.record.p + item.record.n == data + size);
	memcpy(charges, item.charges, item.head.charges * sizeof(*charges));
	check_record(item.record.p, item.record.n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_record((const char *)data, size);
	check_stored((const char *)data, size);
	return 0;
}
