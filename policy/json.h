/*
 * policy/json.h -- a bounded JSON reader over contiguous bytes, without a tree.
 *
 * For what comes from outside at high rate: request bodies, usage objects,
 * metadata. It validates strictly (RFC 8259: no trailing commas, no bare
 * control characters, lone surrogates are passed), finds values, and never
 * allocates. Strings are skipped at memory speed. (Configuration files and
 * the catalog's documents are read with cJSON.)
 */
#ifndef WEIR_POLICY_JSON_H
#define WEIR_POLICY_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

struct json_error {
	size_t offset;		/* of the first byte that cannot be */
	const char *what;	/* "expected ',' or '}'", static */
};

/* Walks the members of one object or the elements of one array. */
struct json_iter {
	const char *p, *end;
	const char *start;	/* for offsets in errors */
	char closer;		/* the bracket that ends it */
	char usual;		/* what stands before a member that is written as usual; 0: look closely */
	bool first;		/* p is at the opening bracket */
	bool escaped;		/* the last name has escapes in it */
	bool unread;		/* p is at a container, see json_lex.h */
	struct json_error error;	/* what == NULL: none */
};

bool json_check(struct slice text, struct json_error *why) MUST_CHECK;
	/* The whole text is one valid JSON value. */
bool json_iter_object(struct json_iter *it, struct slice value) MUST_CHECK;
bool json_iter_array(struct json_iter *it, struct slice value) MUST_CHECK;
	/* `value` begins at the bracket. false: it is something else. */
bool json_next(struct json_iter *it, struct slice *name, struct slice *value);
	/* name: raw string with quotes (arrays: none); value: raw span.
	 * false at the end or on an error: look at it->error.what. */
#define JSON_NAME_BYTES 64
struct slice json_name_decode(struct slice raw, char tmp[JSON_NAME_BYTES]);
static inline struct slice
json_name(const struct json_iter *it, struct slice raw, char tmp[JSON_NAME_BYTES])
{
	/* The text of the last name; one with escapes is decoded into tmp, and
	 * is "" if it does not fit. */
	return it->escaped ? json_name_decode(raw, tmp) : (struct slice){ raw.p + 1, raw.n - 2 };
}
bool json_get(struct slice object, const char *name, struct slice *value);
	/* First member of that name (compared unescaped); false: none. */
bool json_is_null(struct slice value);
bool json_to_i64(struct slice value, int64_t *out);
	/* Integers only: 1e3, 1.0 and overflow are false. */
bool json_to_bool(struct slice value, bool *out);
bool json_string_is(struct slice raw, struct slice text);
	/* Compares a raw JSON string (with quotes) with text, unescaping. */
static inline bool
json_string_eq(struct slice raw, const char *text)
{
	/* Inline, because an escape is longer than what it stands for, and so
	 * nearly every comparison ends with the lengths or the first byte. */
	size_t n = strlen(text);

	if (raw.n < n + 2 || (raw.p[1] != text[0] && raw.p[1] != '\\'))
		return n == 0 && slice_eq(raw, SLICE("\"\""));
	return json_string_is(raw, (struct slice){ text, n });
}
bool json_strings_same(struct slice a, struct slice b);
	/* Two valid raw strings that mean the same: "a" and "\\u0061". */
size_t json_unescape(struct slice raw, char *out, size_t size);
	/* Raw string with quotes -> UTF-8 bytes and a NUL; the length needed
	 * without it, as snprintf. Half a surrogate pair becomes U+FFFD.
	 * SIZE_MAX if `raw` is not a valid string. */
size_t json_escape(struct slice text, char *out, size_t size);
	/* Bytes -> a raw string with quotes, without a NUL; the length needed.
	 * Nothing is written past `size`; bytes >= 0x80 pass as they are. */

#endif
