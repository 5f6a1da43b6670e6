/*
 * policy/config_fields.h -- the fields of a config object, as data.
 *
 * For config.c and its tests. The tables in config_fields.c know every field
 * of the schema with its type; a walk over a document by these tables finds
 * each mistake in it.
 */
#ifndef WEIR_POLICY_CONFIG_FIELDS_H
#define WEIR_POLICY_CONFIG_FIELDS_H

#include "policy/json.h"
#include "policy/problem.h"

#define CONFIG_TIMEOUT_MS_MAX 86400000	/* a day: more is a slip of the unit */
#define CONFIG_NAME_BYTES_MAX 128	/* of a body member that is overridden */
#define CONFIG_MODEL_BYTES_MAX 256

bool config_fields_check(struct slice json, const char *path, struct problems *p) MUST_CHECK;
	/* `json` is valid JSON. Unknown names (with the nearest known one),
	 * names given twice, types, bounds, and what this version does not do.
	 * false if a problem was added. */
bool config_fields_get(struct slice object, const char *name, struct slice *value) MUST_CHECK;
	/* A member of a checked object, by its snake_case name, in either
	 * spelling. false: absent. */

#endif
