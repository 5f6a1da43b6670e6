/*
 * gateway/metadata_memo.c -- see metadata_memo.h.
 */
#include "gateway/metadata_memo.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES 256		/* headers in use at a time in one worker; a power of two */
#define HEADER_BYTES 512	/* a team's template has about a hundred */
#define JSON_BYTES 1024

struct entry {
	uint64_t key_serial, settings_version;
	uint16_t header_n, json_n;	/* json_n 0: free, as the shortest result is {} */
	char header[HEADER_BYTES], json[JSON_BYTES];
};

struct metadata_memo {
	struct entry entry[ENTRIES];
};

struct metadata_memo *
metadata_memo_new(void)
{
	return calloc(1, sizeof(struct metadata_memo));
}

void
metadata_memo_free(struct metadata_memo *m)
{
	free(m);
}

/* A place, no proof: entries are compared whole. */
static struct entry *
place(struct metadata_memo *m, uint64_t key_serial, struct slice header)
{
	uint64_t mix = key_serial * UINT64_C(0x9e3779b97f4a7c15) ^ header.n, word;

	for (size_t i = 0; i + 8 <= header.n; i += 8) {
		memcpy(&word, header.p + i, 8);
		mix = (mix ^ word) * UINT64_C(0xd6e8feb86659fd93);
		mix ^= mix >> 32;
	}
	return &m->entry[mix & (ENTRIES - 1)];
}

struct slice
metadata_memo_get(struct metadata_memo *m, uint64_t key_serial, uint64_t settings_version, struct slice header)
{
	const struct entry *e = place(m, key_serial, header);

	if (e->json_n == 0 || e->key_serial != key_serial || e->settings_version != settings_version ||
	    e->header_n != header.n || (header.n && memcmp(e->header, header.p, header.n) != 0))
		return SLICE_NONE;
	return (struct slice){ e->json, e->json_n };
}

void
metadata_memo_put(struct metadata_memo *m, uint64_t key_serial, uint64_t settings_version, struct slice header,
    struct slice json)
{
	struct entry *e = place(m, key_serial, header);

	if (header.n > HEADER_BYTES || json.n > JSON_BYTES)
		return;
	e->key_serial = key_serial;
	e->settings_version = settings_version;
	e->header_n = (uint16_t)header.n;
	e->json_n = (uint16_t)json.n;
	if (header.n)
		memcpy(e->header, header.p, header.n);
	memcpy(e->json, json.p, json.n);
}
