/*
 * tests/unit/route_fixture.h -- requests for walks over configs.
 */
#ifndef WEIR_TESTS_UNIT_ROUTE_FIXTURE_H
#define WEIR_TESTS_UNIT_ROUTE_FIXTURE_H

#include "policy/route.h"
#include "tests/unit/config_fixture.h"

struct world {
	uint64_t out[CONFIG_NODES_MAX / 64];	/* targets that cannot be used */
	uint32_t asked;				/* how often that was looked at */
	bool has_fields;
	uint64_t fields[2];			/* the session by hash_fields */
	const struct config_sticky *sticky;	/* asked for last */
};

static inline bool
usable(void *arg, const struct config_target *t)
{
	struct world *w = arg;

	w->asked++;
	return !(w->out[t->number / 64] >> t->number % 64 & 1);
}

static inline bool
identify(void *arg, const struct config_sticky *s, uint64_t session[2])
{
	struct world *w = arg;

	w->sticky = s;
	memcpy(session, w->fields, sizeof(w->fields));
	return w->has_fields;
}

static inline void
set_out(struct world *w, uint32_t number, bool out)
{
	uint64_t bit = UINT64_C(1) << number % 64;

	w->out[number / 64] = out ? w->out[number / 64] | bit : w->out[number / 64] & ~bit;
}

static struct condition_facts conditions;

static inline struct route_facts
facts_of(struct world *w)
{
	return (struct route_facts){
		.conditions = &conditions, .random = { 1, 2 }, .usable = usable, .identify = identify, .arg = w, .preferred = ROUTE_ANY,
	};
}

static uint64_t random_state = 88172645463325252;

static inline uint64_t
random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * UINT64_C(2685821657736338717);
}

/* Ids that differ in a bit, count up, or are hashes. */
static inline void
make_session(int kind, uint64_t i, uint64_t out[2])
{
	out[0] = kind == 0 ? i : kind == 1 ? 7 : kind == 2 ? i << 44 : random_u64();
	out[1] = kind == 0 ? 0 : kind == 1 ? i : kind == 2 ? i << 44 : random_u64();
}

#define FB "\"strategy\":{\"mode\":\"fallback\"}"
#define ON(list) "\"strategy\":{\"mode\":\"fallback\",\"on_status_codes\":[" list "]}"
#define LB "\"strategy\":{\"mode\":\"loadbalance\"}"
#define THREE "\"targets\":[{},{},{}]"
#define IS(name, value, then) "{\"query\":{\"metadata." name "\":\"" value "\"},\"then\":\"" then "\"}"
#define COND(...) "\"strategy\":{\"mode\":\"conditional\",\"conditions\":[" __VA_ARGS__ "]}"
#define COND_ELSE(default, ...) "\"strategy\":{\"mode\":\"conditional\",\"conditions\":[" __VA_ARGS__ "],\"default\":\"" default "\"}"
#define NAMED(name) "{\"name\":\"" name "\"}"

#endif
