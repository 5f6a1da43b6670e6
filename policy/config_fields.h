/*
 * policy/config_fields.h -- the fields of a config object, as data.
 *
 * For config*.c. The tables in config_fields.c know every field of the schema
 * with its type; a walk over a document by these tables finds each mistake that
 * a value or an object has by itself. What stands between objects (names,
 * weights), and what has to be compiled to be known (conditions, paths, hosts),
 * is config_build.c's.
 */
#ifndef WEIR_POLICY_CONFIG_FIELDS_H
#define WEIR_POLICY_CONFIG_FIELDS_H

#include "policy/config.h"
#include "policy/json.h"

#define CONFIG_NAME_BYTES_MAX 128	/* of a target, of a body member, of a header */
#define CONFIG_MODEL_BYTES_MAX 256
#define CONFIG_API_KEY_BYTES_MAX 4096
#define CONFIG_WEIGHT_MAX 1000000000

enum level_field {		/* of a config object: the document, and each target */
	LEVEL_STRATEGY, LEVEL_TARGETS, LEVEL_NAME, LEVEL_WEIGHT, LEVEL_PROVIDER, LEVEL_VIRTUAL_KEY, LEVEL_API_KEY,
	LEVEL_PASSTHROUGH, LEVEL_OVERRIDE_PARAMS, LEVEL_DEFAULT_PARAMS, LEVEL_DROP_PARAMS, LEVEL_RETRY, LEVEL_CACHE,
	LEVEL_REQUEST_TIMEOUT, LEVEL_CUSTOM_HOST, LEVEL_FORWARD_HEADERS, LEVEL_STRICT, LEVEL_BREAKER,
	LEVEL_INTEGRATED_MODELS,
	LEVEL_FIELDS		/* those behind it are not done by this version */
};
enum strategy_field {
	STRATEGY_MODE, STRATEGY_STATUSES, STRATEGY_CONDITIONS, STRATEGY_DEFAULT, STRATEGY_STICKY, STRATEGY_BREAKER,
	STRATEGY_FIELDS
};
enum condition_field { CONDITION_QUERY, CONDITION_THEN, CONDITION_FIELDS };
enum sticky_field { STICKY_ENABLED, STICKY_HASH_FIELDS, STICKY_TTL, STICKY_FIELDS };
enum breaker_field {
	BREAKER_THRESHOLD, BREAKER_PERCENTAGE, BREAKER_MINIMUM, BREAKER_COOLDOWN, BREAKER_STATUSES, BREAKER_FIELDS
};
enum retry_field { RETRY_ATTEMPTS, RETRY_STATUSES, RETRY_AFTER_HEADERS, RETRY_AFTER_HEADER, RETRY_FIELDS };
enum cache_field { CACHE_MODE, CACHE_MAX_AGE, CACHE_FIELDS };

struct config_shape;		/* a kind of object */
extern const struct config_shape config_shape_level, config_shape_strategy, config_shape_condition,
    config_shape_sticky, config_shape_breaker, config_shape_retry, config_shape_cache;

uint32_t config_fields_check(struct slice json, const char *path, struct problems *p) MUST_CHECK;
	/* `json` is valid JSON. Unknown names (with the nearest known one),
	 * names given twice, types, bounds, what is missing, what does not go
	 * together, and what this version does not do. How many config objects
	 * there are; 0: it is not one, or has too many: nothing to be built. */
void config_fields_read(const struct config_shape *shape, struct slice object, struct slice *values);
	/* The members of an object, by the numbers above and in either spelling.
	 * One that is absent or not of its type is SLICE_NONE, so that what has
	 * other mistakes can be built as far as it goes. */
enum config_mode config_fields_mode(struct slice raw);
	/* CONFIG_LEAF: none of them. */

#endif
