/*
 * policy/condition_key.h -- what queries and sticky fields can name of a request.
 *
 * metadata.NAME is a pair of the metadata; all behind the first dot is its name.
 * params.NAME is a top-level member of the client's body; further names and
 * numbers go deeper (params.thinking.type, params.messages.0.role), the last
 * one of a name counting, as in JavaScript. url.pathname is the path. For
 * condition.c and session.c.
 */
#ifndef WEIR_POLICY_CONDITION_KEY_H
#define WEIR_POLICY_CONDITION_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/condition.h"

#define CONDITION_KEY_BYTES_MAX 256
#define CONDITION_SEGMENTS_MAX 16	/* names of a key */

enum condition_root { ROOT_METADATA, ROOT_PARAMS, ROOT_PATHNAME };

struct condition_segment {
	struct slice name;
	int64_t index;			/* of an array's element; -1: the name is no number */
};

struct condition_key {			/* compiled, and all texts of it behind the struct */
	enum condition_root root;
	struct slice written;
	struct slice pair;		/* of metadata: how its member begins, "NAME": */
	uint32_t segments_count;
	struct condition_segment segments[CONDITION_SEGMENTS_MAX];
};

struct condition_key *condition_key_compile(struct slice text, const char *path, struct problems *p) MUST_CHECK;
	/* NULL: a problem was added. One allocation; free() it. */

struct condition_value {
	struct slice text;		/* none: the request has no such value */
	bool json;			/* raw JSON inside of an object; else the text itself */
};

struct condition_value condition_key_find(const struct condition_key *k, const struct condition_facts *f);

#endif
