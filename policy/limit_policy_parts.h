/*
 * policy/limit_policy_parts.h -- inside a compiled policy.
 *
 * For limit_policy.c, which matches, and limit_policy_parse.c, which compiles.
 */
#ifndef WEIR_POLICY_LIMIT_POLICY_PARTS_H
#define WEIR_POLICY_LIMIT_POLICY_PARTS_H

#include "policy/config.h"
#include "policy/limit_policy.h"

enum subject_key {
	KEY_API_KEY, KEY_WORKSPACE, KEY_USER, KEY_PROVIDER, KEY_VIRTUAL_KEY, KEY_CONFIG, KEY_MODEL, KEY_METADATA,
};

struct field {
	enum subject_key key;
	struct slice written;		/* "workspace_id", "metadata.team": in group values; a NUL is behind it */
	const char *metadata;		/* the name behind "metadata." */
};

struct value {
	struct slice text;
	struct slice first, rest;	/* of "@first/rest" and "first/rest"; none: it is one name */
};

struct values {
	struct value *list;
	uint32_t count;
	bool any;			/* "*" is among them */
};

struct policy_condition {
	struct field field;
	struct values value, exclude;
	uint32_t place;			/* in the document */
};

#define POLICY_WORDS_BYTES (CONFIG_SLUG_BYTES_MAX + 8)	/* "policy " and an id */

struct limit_policy {
	struct limit limit;
	struct charge_group group;
	char what[LIMIT_WHAT_BYTES];
	char words[POLICY_WORDS_BYTES];	/* "policy per-user" */
	char group_name[METER_NAME_BYTES], overflow_name[METER_NAME_BYTES];
	const char *id;
	bool active;
	struct slice workspace;		/* its only one; none: all */
	struct policy_condition *conditions;	/* those on metadata last */
	uint32_t conditions_count;
	struct field *groups;
	uint32_t groups_count;
};	/* lists and texts follow it in the same allocation */

#endif
