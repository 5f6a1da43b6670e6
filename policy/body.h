/*
 * policy/body.h -- request bodies: scanned once, changed by splices.
 *
 * The scan notes the spans of the top-level members and what routing,
 * limits and estimates need; everything else is validated and skipped. A
 * change is a splice: the bytes around it stay the client's. Target: 1 GB/s on
 * a body of 1 MB.
 */
#ifndef WEIR_POLICY_BODY_H
#define WEIR_POLICY_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/json.h"
#include "shm/limits.h"

struct body_member {
	struct slice name;	/* raw, with quotes */
	struct slice value;	/* raw */
};

struct body_scan {
	struct slice body;
	uint32_t members_count;
	bool names_escaped;	/* some member's name has escapes in it */
	uint64_t names_seen;	/* body_name_bit() of each name; all ones if one is escaped */
	struct slice model;	/* raw string with quotes; none if absent */
	bool model_is_string;
	bool stream;		/* "stream": true */
	bool stream_valid;	/* absent, true, false or null */
	bool has_max_tokens;
	int64_t max_tokens;	/* valid if has_max_tokens and >= 0; -1: not an integer or out of range */
	bool has_cache_control;	/* a "cache_control" member anywhere */
	bool has_cache_1h;	/* ... with "ttl":"1h" anywhere */
	uint32_t images;	/* blocks with type image */
	uint32_t documents;	/* blocks with type document */
	uint32_t opaque_documents;	/* ... whose text is not in the body as text: PDF, url, file */
	uint32_t remote_sources;	/* of images and documents that are not in the body at all: url, file */
	uint32_t typed_tools;	/* in "tools": the provider adds a prompt of its own for each */
	uint32_t server_tools;	/* ... that run at the provider, but for web search: their results join the prompt */
	uint32_t web_search_max_uses;	/* of server tools web_search_*: sum of max_uses; UINT32_MAX if unbounded */
	uint64_t base64_bytes;	/* in "data" members of the sources of images and documents that the
				 * provider decodes: not text. Elsewhere such a thing is text */
	uint64_t text_bytes;	/* the rest of the body: an upper bound of text */
	struct body_member members[SCAN_MEMBERS_MAX];	/* last: what is not used is not cleared */
};

bool body_scan(struct slice body, struct body_scan *out, struct json_error *why) MUST_CHECK;
	/* false: not one valid JSON object, or more than SCAN_MEMBERS_MAX
	 * members, or a top-level name twice. */
static inline uint64_t
body_name_bit(struct slice name)
{
	/* Most names that are looked up are absent; no two of the API's share a bit. */
	if (name.n == 0)
		return 1;
	unsigned middle = (unsigned char)name.p[name.n / 2], last = (unsigned char)name.p[name.n - 1];
	return UINT64_C(1) << ((9 * name.n + 10 * middle + last) & 63);
}
const struct body_member *body_find_name(const struct body_scan *s, struct slice name);
static inline const struct body_member *
body_find(const struct body_scan *s, const char *name)
{
	return s->names_seen & body_name_bit(slice_of(name)) ? body_find_name(s, slice_of(name)) : NULL;
}

/* Edits of top-level members; the result is a list of pieces for writev. */
struct body_edits {
	uint32_t count;
	struct body_edit {
		size_t offset, remove;	/* in the body */
		struct slice insert;	/* lives as long as the request */
		uint32_t member;	/* index of the member; members_count: a new one */
		struct slice added;	/* of a new member: ,"name":value */
	} edit[SPLICES_MAX];
};		/* = {0} before the first edit */

struct scratch;
bool body_set(const struct body_scan *s, struct body_edits *e, const char *name,
    struct slice raw_json, struct scratch *mem) MUST_CHECK;
	/* Replaces the member's value, or adds the member at the end of the
	 * object. A later set of the same name wins. `raw_json` must live
	 * as long as the request. false: out of room; the edits are as before. */
size_t body_pieces(const struct body_scan *s, struct body_edits *e, struct slice *out, size_t max);
	/* The edited body in order; sorts the edits. Number of pieces; 2 x
	 * SPLICES_MAX + 1 at the most. Without edits: one piece, the body. */
size_t body_edited_bytes(const struct body_scan *s, const struct body_edits *e);

#endif
