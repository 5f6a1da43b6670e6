/*
 * tests/fuzz/fuzz_cache_entry.c -- any bytes as an entry of the response cache.
 *
 * Reading looks at nothing outside them. What is taken has sane numbers and texts
 * without control characters, and its head encodes to the same bytes again.
 */
#include <string.h>

#include "store/cache_entry.h"
#include "tests/fuzz/target.h"

static void
check_text(struct slice whole, struct slice text)
{
	CHECK(text.n <= CACHE_STRING_BYTES_MAX && text.p >= whole.p && text.p + text.n <= whole.p + whole.n);
	for (size_t i = 0; i < text.n; i++)
		CHECK((unsigned char)text.p[i] >= ' ' && text.p[i] != 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char head[CACHE_HEAD_BYTES_MAX];
	struct slice bytes = { (const char *)data, n };
	struct cache_entry e;
	uint32_t head_bytes;

	if (!cache_entry_decode(bytes, &e))
		return 0;
	CHECK(e.fixed.status >= 100 && e.fixed.status < 600 && e.fixed.expires_wall_ns > e.fixed.created_wall_ns);
	CHECK(e.fixed.created_wall_ns >= 0 && e.fixed.cost_nusd >= 0);
	for (size_t i = 0; i < sizeof(e.fixed.tokens) / sizeof(e.fixed.tokens[0]); i++)
		CHECK(e.fixed.tokens[i] >= 0);
#define X(name) check_text(bytes, e.name);
	CACHE_STRINGS(X)
#undef X
	CHECK(e.body.p + e.body.n == bytes.p + bytes.n);
	head_bytes = cache_entry_head(&e, head);
	CHECK(head_bytes == n - e.body.n && memcmp(head, data, head_bytes) == 0);
	return 0;
}
