/*
 * policy/config_build.c -- the tree of a config: nodes, and how each chooses.
 *
 * Level by level: a node takes the next free places for its children when it
 * is its turn, so they stand together and after it, and what it passes on is
 * known before they are looked at. No recursion; config_fields_check() has
 * counted the places.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition.h"
#include "policy/config_parts.h"
#include "policy/session.h"
#include "shm/base/siphash.h"

#define STICKY_TTL_S 3600
_Static_assert(CONFIG_HASH_FIELDS_MAX <= SESSION_FIELDS_MAX, "session_fields_compile() takes them all");

#define GUESSES_MAX 16		/* names that are looked for, ... */
#define GUESS_NAMES_MAX 100	/* ... among so many */

/* ---- children ---- */

static uint64_t
seed_of(uint64_t parent, uint64_t place, struct slice name)
{
	const uint64_t key[2] = { parent, place };

	return siphash128(key, name).lo;
}

static double
weight_of(struct slice raw)
{
	double weight = raw.p ? strtod(raw.p, NULL) : 1;

	return weight >= 0 && weight <= CONFIG_WEIGHT_MAX ? weight : 1;
}

/* A node's place: its values are read, and nothing else is known yet. */
static void
node_add(struct build *b, uint32_t parent, uint32_t index, struct slice object)
{
	uint32_t n = b->nodes_count++;
	struct slice *values = b->levels[n].values, above;
	char step[32];

	CHECK(n < b->nodes_max);
	config_fields_read(&config_shape_level, object, values);
	above = parent == CONFIG_NOWHERE ? SLICE("config") : b->nodes[parent].path;
	size_t more = parent == CONFIG_NOWHERE ? 0 : (size_t)snprintf(step, sizeof(step), ".targets[%u]", index);
	char *path = build_alloc(b, above.n + more + 1);
	memcpy(slice_copy(path, above), step, more);
	b->nodes[n] = (struct config_node){
		.path = { path, above.n + more }, .name = build_text(b, values[LEVEL_NAME]),
		.weight = weight_of(values[LEVEL_WEIGHT]), .parent = parent, .otherwise = CONFIG_NOWHERE,
		.level = parent == CONFIG_NOWHERE ? 0 : b->nodes[parent].level + 1,
		.seed = parent == CONFIG_NOWHERE ? seed_of(0, 0, b->config->slug) : 0,
	};
}

static void
children_add(struct build *b, uint32_t i, struct slice targets)
{
	struct slice none, value;
	struct json_iter it;

	CHECK(json_iter_array(&it, targets));
	b->nodes[i].first = b->nodes_count;
	for (uint32_t index = 0; json_next(&it, &none, &value); index++)
		if (value.p[0] == '{')
			node_add(b, i, index, value);
	b->nodes[i].count = b->nodes_count - b->nodes[i].first;
}

/* ---- loadbalance ---- */

/* A target that has a name keeps its sessions when others are put before it. */
static void
seeds_set(struct build *b, const struct config_node *node)
{
	for (uint32_t i = 0; i < node->count; i++) {
		struct config_node *child = &b->nodes[node->first + i];
		uint32_t place = i;

		if (child->name.p) {
			place = UINT32_MAX;	/* of those that have this name: the last, the last but one, ... */
			for (uint32_t j = 0; j < i; j++)
				place -= slice_eq(b->nodes[node->first + j].name, child->name);
		}
		child->seed = seed_of(node->seed, place, child->name);
	}
}

static void
hash_fields_set(struct build *b, uint32_t i, struct slice array)
{
	struct slice fields[CONFIG_HASH_FIELDS_MAX], none, value;
	struct json_iter it;
	uint32_t n = 0;

	if (!json_iter_array(&it, array))
		return;
	while (n < CONFIG_HASH_FIELDS_MAX && json_next(&it, &none, &value))
		if (value.p[0] == '"')
			fields[n++] = build_text(b, value);
	if (n == 0)
		return;		/* an empty list says as much as none */
	struct session_fields *compiled = session_fields_compile(fields, n, build_path(b, i, "strategy.sticky.hash_fields"), b->problems);
	if (compiled)
		build_own(b, (struct config_owned){ .fields = compiled });
	b->nodes[i].sticky.hash_fields = compiled;
}

static void
sticky_set(struct build *b, uint32_t i, struct slice object)
{
	struct config_sticky *sticky = &b->nodes[i].sticky;
	struct slice values[STICKY_FIELDS];
	int64_t ttl;

	*sticky = (struct config_sticky){ .enabled = true, .ttl_s = STICKY_TTL_S };
	config_fields_read(&config_shape_sticky, object.p ? object : SLICE("{}"), values);
	if (values[STICKY_ENABLED].p)
		sticky->enabled = values[STICKY_ENABLED].p[0] == 't';
	if (values[STICKY_TTL].p && json_to_i64(values[STICKY_TTL], &ttl))
		sticky->ttl_s = (uint32_t)ttl;
	if (values[STICKY_HASH_FIELDS].p)
		hash_fields_set(b, i, values[STICKY_HASH_FIELDS]);
}

static void
loadbalance_set(struct build *b, uint32_t i, const struct slice *strategy)
{
	struct config_node *node = &b->nodes[i];
	double sum = 0;

	for (uint32_t child = node->first; child < node->first + node->count; child++) {
		sum += b->nodes[child].weight;
		b->levels[child].reachable = b->nodes[child].weight > 0;
	}
	if (sum <= 0 && node->count > 0)
		build_problem(b, i, "targets", "all weights are 0: none of them would ever be chosen");
	sticky_set(b, i, strategy[STRATEGY_STICKY]);
	seeds_set(b, node);
}

/* ---- conditional ---- */

struct named {
	struct slice name;
	uint32_t node;
};

static int
name_order(const void *a, const void *b)
{
	const struct slice x = ((const struct named *)a)->name, y = ((const struct named *)b)->name;
	int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);

	return order ? order : (x.n > y.n) - (x.n < y.n);
}

/* By name, then in the order of the document. */
static int
named_order(const void *a, const void *b)
{
	uint32_t x = ((const struct named *)a)->node, y = ((const struct named *)b)->node;
	int order = name_order(a, b);

	return order ? order : (x > y) - (x < y);
}

struct names {
	struct named *list;
	uint32_t count;
};

static void
names_take(struct build *b, const struct config_node *node, struct names *names)
{
	names->count = 0;
	names->list = calloc(node->count + 1, sizeof(*names->list));
	CHECK(names->list);
	for (uint32_t child = node->first; child < node->first + node->count; child++)
		if (b->nodes[child].name.n > 0)
			names->list[names->count++] = (struct named){ b->nodes[child].name, child };
	qsort(names->list, names->count, sizeof(*names->list), named_order);
	for (uint32_t i = 1; i < names->count; i++)
		if (slice_eq(names->list[i].name, names->list[i - 1].name))
			build_problem(b, names->list[i].node, "name", "\"%s\" is the name of %s too: a conditional needs to tell "
			    "them apart", problem_name(names->list[i].name).text, b->nodes[names->list[i - 1].node].path.p);
}

/* The node of that name; NOWHERE, and a problem: there is none. */
static uint32_t
name_find(struct build *b, uint32_t i, const struct names *names, struct slice name, const char *field)
{
	struct named wanted = { .name = name };
	struct problem_guess guess = { .wanted = name };

	if (name.n == 0)
		return CONFIG_NOWHERE;		/* that has been said */
	const struct named *found = bsearch(&wanted, names->list, names->count, sizeof(*names->list), name_order);
	if (found) {
		b->levels[found->node].reachable = true;
		return found->node;
	}
	if (names->count <= GUESS_NAMES_MAX && b->guesses++ < GUESSES_MAX)
		for (uint32_t n = 0; n < names->count; n++)
			problem_guess_try(&guess, names->list[n].name.p);
	const char *best = problem_guess_best(&guess);
	if (best)
		build_problem(b, i, field, "no target has the name \"%s\"; did you mean \"%s\"?", problem_name(name).text, best);
	else
		build_problem(b, i, field, "no target has the name \"%s\"", problem_name(name).text);
	return CONFIG_NOWHERE;
}

static bool
condition_set(struct build *b, uint32_t i, uint32_t place, struct slice object, const struct names *names,
    struct config_condition *out)
{
	struct slice values[CONDITION_FIELDS];
	char field[64];

	config_fields_read(&config_shape_condition, object, values);
	out->then = build_text(b, values[CONDITION_THEN]);
	snprintf(field, sizeof(field), "strategy.conditions[%u].then", place);
	out->child = name_find(b, i, names, out->then, field);
	if (!values[CONDITION_QUERY].p)
		return false;
	snprintf(field, sizeof(field), "strategy.conditions[%u].query", place);
	struct condition *query = condition_compile(values[CONDITION_QUERY], build_path(b, i, field), b->problems);
	if (!query)
		return false;
	build_own(b, (struct config_owned){ .condition = query });
	out->query = query;
	return out->child != CONFIG_NOWHERE;
}

static uint32_t
elements(struct slice array)
{
	struct slice none, value;
	struct json_iter it;
	uint32_t n = 0;

	if (json_iter_array(&it, array))
		while (json_next(&it, &none, &value))
			n++;
	return n;
}

static void
conditional_set(struct build *b, uint32_t i, const struct slice *strategy)
{
	struct slice array = strategy[STRATEGY_CONDITIONS], none, value;
	struct config_node *node = &b->nodes[i];
	struct config_condition *list;
	struct names names;
	struct json_iter it;

	names_take(b, node, &names);
	if (array.p && json_iter_array(&it, array)) {
		list = build_alloc(b, (elements(array) + 1) * sizeof(*list));
		for (uint32_t place = 0; json_next(&it, &none, &value); place++)
			if (value.p[0] == '{')
				node->conditions_count += condition_set(b, i, place, value, &names, &list[node->conditions_count]);
		node->conditions = list;
	}
	if (strategy[STRATEGY_DEFAULT].p)
		node->otherwise = name_find(b, i, &names, build_text(b, strategy[STRATEGY_DEFAULT]), "strategy.default");
	free(names.list);
}

/* ---- nodes ---- */

/* What a node that has targets does with them. */
static void
strategy_set(struct build *b, uint32_t i)
{
	struct config_node *node = &b->nodes[i];
	struct slice object = b->levels[i].values[LEVEL_STRATEGY], strategy[STRATEGY_FIELDS];

	config_fields_read(&config_shape_strategy, object.p ? object : SLICE("{}"), strategy);
	if (strategy[STRATEGY_MODE].p)
		node->mode = config_fields_mode(strategy[STRATEGY_MODE]);
	if (node->mode == CONFIG_LEAF)
		node->mode = CONFIG_SINGLE;
	if (strategy[STRATEGY_BREAKER].p)
		b->levels[i].target.breaker = build_breaker(b, strategy[STRATEGY_BREAKER]);
	if (node->mode == CONFIG_CONDITIONAL) {
		conditional_set(b, i, strategy);
	} else if (node->mode == CONFIG_LOADBALANCE) {
		loadbalance_set(b, i, strategy);
	} else if (node->mode == CONFIG_FALLBACK) {
		node->has_statuses = strategy[STRATEGY_STATUSES].p;
		if (node->has_statuses)
			build_statuses(&node->on_status_codes, strategy[STRATEGY_STATUSES]);
		for (uint32_t child = node->first; child < node->first + node->count; child++)
			b->levels[child].reachable = true;
	} else if (node->count > 0) {
		b->levels[node->first].reachable = true;
	}
}

static void
node_build(struct build *b, uint32_t i, uint32_t *reachable_targets)
{
	struct config_node *node = &b->nodes[i];
	const struct slice *values = b->levels[i].values;
	struct level *above = node->parent == CONFIG_NOWHERE ? NULL : &b->levels[node->parent];

	b->levels[i].reachable = !above || (b->levels[i].reachable && above->reachable);
	config_build_level(b, i);
	if (values[LEVEL_INTEGRATED_MODELS].p) {
		if (above)
			build_problem(b, i, "fetch_integrated_models", "belongs to the config as a whole");
		b->config->fetch_integrated_models = values[LEVEL_INTEGRATED_MODELS].p[0] == 't';
	}
	if (values[LEVEL_TARGETS].p) {
		children_add(b, i, values[LEVEL_TARGETS]);
		strategy_set(b, i);
		b->config->has_conditions |= node->mode == CONFIG_CONDITIONAL && b->levels[i].reachable;
		b->config->has_choice |= node->mode == CONFIG_LOADBALANCE && b->levels[i].reachable;
	} else {
		config_build_target(b, i);
		*reachable_targets += b->levels[i].reachable;
	}
}

void
config_build_tree(struct build *b, struct slice json)
{
	struct config *c = b->config;
	uint32_t reachable_targets = 0;

	c->nodes = b->nodes;
	c->targets = b->targets;
	node_add(b, CONFIG_NOWHERE, 0, json);
	for (uint32_t i = 0; i < b->nodes_count; i++)
		node_build(b, i, &reachable_targets);
	c->nodes_count = b->nodes_count;
	c->several_targets = reachable_targets > 1;
}
