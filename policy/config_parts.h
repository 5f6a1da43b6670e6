/*
 * policy/config_parts.h -- a config while it is made.
 *
 * For config.c, config_build.c (the tree) and config_target.c (what a level
 * says about its targets).
 */
#ifndef WEIR_POLICY_CONFIG_PARTS_H
#define WEIR_POLICY_CONFIG_PARTS_H

#include "policy/config_fields.h"

#define CONFIG_MEMORY_BYTES_MAX (16u << 20)	/* of a compiled one: its nodes and its text bound it far below */

#define STATUS_WORD(status) (((status) - STATUS_SET_FIRST) / 64)
#define STATUS_BIT(status) (UINT64_C(1) << ((status) - STATUS_SET_FIRST) % 64)
#define CONFIG_RETRY_STATUSES { .bits = { \
	[STATUS_WORD(429)] = STATUS_BIT(429), \
	[STATUS_WORD(500)] = STATUS_BIT(500) | STATUS_BIT(502) | STATUS_BIT(503) | STATUS_BIT(504) | STATUS_BIT(529) } }

struct config_owned {		/* what the scratch does not hold */
	struct config_owned *next;
	struct condition *condition;	/* one of them */
	struct params_path *path;
	struct session_fields *fields;
};

struct level {			/* a config object */
	struct slice values[LEVEL_FIELDS];
	struct config_target target;	/* all that holds here; passed on, but for what is a target's own */
	struct slice model;	/* of override_params, with its prefix */
	bool reachable;
};

struct build {
	struct config *config;
	const struct config_source *from;
	struct problems *problems;
	struct buf where;	/* path of a problem */
	uint32_t guesses;	/* so far: they are dear */
	struct config_node *nodes;
	struct level *levels;	/* of each node */
	uint32_t nodes_count, nodes_max;
	struct config_target *targets;
};

void *build_alloc(struct build *b, size_t n);
	/* Zeroed; lives as long as the config. Never NULL. */
struct slice build_text(struct build *b, struct slice raw);
	/* The text of a raw JSON string, with a NUL behind it; none of none. */
void build_own(struct build *b, struct config_owned what);
	/* Freed with the config. */
void build_problem(struct build *b, uint32_t node, const char *field, const char *fmt, ...) PRINTF_LIKE(4, 5);
	/* `field` below the node: "strategy.default"; "": the node itself. */
const char *build_path(struct build *b, uint32_t node, const char *field);
	/* Of such a place; until the next call. */
void build_statuses(struct status_set *set, struct slice array);

const struct config_breaker *build_breaker(struct build *b, struct slice object);
void build_lower(struct slice text);
	/* Of build_text(): A-Z become a-z in place. */

void config_build_tree(struct build *b, struct slice json);
	/* All nodes. Problems are added, and what has one is left out. */
void config_build_level(struct build *b, uint32_t node);
	/* levels[node].target, from its values and from its parent's. */
void config_build_target(struct build *b, uint32_t node);
	/* The leaf's. */

extern const struct config_target config_target_unset;

#endif
