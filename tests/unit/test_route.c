/*
 * The walk over a config: every mode by a table, and random trees against a
 * recursive reference, which does what Portkey does: it runs a target, looks at
 * the status and returns it to the level above. (Loadbalance: test_route_choice.c.)
 */
#include "tests/unit/route_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What a walk does, by numbers of targets in the order of the document's nodes: "0 2 over". */
static void
walk_text(const struct config *c, const struct route_facts *f, const int *statuses, struct buf *out)
{
	struct route_walk w;
	enum route_step step = route_begin(&w, c, f);

	for (uint32_t i = 0; step == ROUTE_TARGET; i++) {
		bool more = statuses[i] && route_has_next(&w, f, statuses[i]);
		const struct config_target *here = w.target;

		assert_int_equal(w.steps, i);
		buf_printf(out, "%u ", here->number);
		if (!statuses[i])
			return;
		step = route_next(&w, f, statuses[i]);
		assert_int_equal(more, step == ROUTE_TARGET);
		if (step != ROUTE_TARGET)
			assert_ptr_equal(w.target, here);
	}
	if (step == ROUTE_NO_MATCH)
		buf_printf(out, "no match at %s", c->nodes[w.at].path.p);
	else
		buf_add_str(out, step == ROUTE_OVER ? "over" : "all out");
}

struct way {
	const char *json, *metadata;
	uint64_t out;
	int statuses[6];	/* of the targets, one after the other; 0: the end of the test */
	const char *text;
};

static void
check_ways(const struct way *ways, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct config *c = accept(ways[i].json);
		struct world world = { .out = { ways[i].out } };
		struct route_facts f = facts_of(&world);
		struct buf text;

		buf_init(&text, 4096);
		conditions.metadata = slice_of(ways[i].metadata ? ways[i].metadata : "{}");
		walk_text(c, &f, ways[i].statuses, &text);
		if (!slice_eq(buf_slice(&text), slice_of(ways[i].text)))
			fail_msg("row %zu, %s: \"%.*s\", but expected \"%s\"", i, ways[i].json, SLICE_FMT(buf_slice(&text)), ways[i].text);
		buf_free(&text);
		config_put(c);
	}
}

static void
test_single(void **state)
{
	(void)state;
	static const struct way ways[] = {
		{ "{}", NULL, 0, { 500 }, "0 over" },
		{ "{}", NULL, 1, { 500 }, "all out" },
		{ "{\"targets\":[{},{}]}", NULL, 0, { 500 }, "0 over" },
		{ "{\"targets\":[{},{}]}", NULL, 1, { 500 }, "all out" },		/* the second is never one's turn */
		{ "{\"strategy\":{\"mode\":\"single\"},\"targets\":[{\"targets\":[{}]}]}", NULL, 0, { 200 }, "0 over" },
	};

	check_ways(ways, sizeof(ways) / sizeof(ways[0]));
}

static void
test_fallback(void **state)
{
	(void)state;
	static const struct way ways[] = {
		/* Without a list: all but 2xx. */
		{ "{" FB "," THREE "}", NULL, 0, { 200 }, "0 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 246 }, "0 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 299 }, "0 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 199, 300, 400 }, "0 1 2 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 400, 200 }, "0 1 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 529, 503, 500 }, "0 1 2 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 408, 429, 412 }, "0 1 2 over" },
		{ "{" FB "," THREE "}", NULL, 0, { 999, 200 }, "0 1 over" },
		/* With one: these alone. */
		{ "{" ON("429,529") "," THREE "}", NULL, 0, { 500 }, "0 over" },
		{ "{" ON("429,529") "," THREE "}", NULL, 0, { 429, 529, 429 }, "0 1 2 over" },
		{ "{" ON("429,529") "," THREE "}", NULL, 0, { 429, 400 }, "0 1 over" },
		{ "{" ON("200") "," THREE "}", NULL, 0, { 200, 201 }, "0 1 over" },
		{ "{" ON("") "," THREE "}", NULL, 0, { 500 }, "0 over" },
		{ "{" ON("599,100") "," THREE "}", NULL, 0, { 599, 100, 599 }, "0 1 2 over" },
		{ "{" ON("599") "," THREE "}", NULL, 0, { 600 }, "0 over" },
		/* What cannot be used is passed over. */
		{ "{" FB "," THREE "}", NULL, 1, { 500, 500 }, "1 2 over" },
		{ "{" FB "," THREE "}", NULL, 2, { 500, 500 }, "0 2 over" },
		{ "{" FB "," THREE "}", NULL, 3, { 500 }, "2 over" },
		{ "{" FB "," THREE "}", NULL, 6, { 500 }, "0 over" },
		{ "{" FB "," THREE "}", NULL, 7, { 0 }, "all out" },
		{ "{" ON("") "," THREE "}", NULL, 1, { 500 }, "1 over" },
	};

	check_ways(ways, sizeof(ways) / sizeof(ways[0]));
}

/* The inner level's last answer is the outer one's. Targets: outer's own first, level by level. */
static void
test_nested(void **state)
{
	(void)state;
#define INNER(strategy) "{" strategy ",\"targets\":[{},{}]}"
	static const struct way ways[] = {
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 0, { 500, 500, 500 }, "1 2 0 over" },
		{ "{" FB ",\"targets\":[{}," INNER(FB) "]}", NULL, 0, { 500, 500, 500 }, "0 1 2 over" },
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 0, { 500, 200 }, "1 2 over" },
		{ "{" ON("529") ",\"targets\":[" INNER(ON("429")) ",{}]}", NULL, 0, { 529, 200 }, "1 0 over" },
		{ "{" ON("529") ",\"targets\":[" INNER(ON("429")) ",{}]}", NULL, 0, { 429, 529, 200 }, "1 2 0 over" },
		{ "{" ON("529") ",\"targets\":[" INNER(ON("429")) ",{}]}", NULL, 0, { 429, 429 }, "1 2 over" },
		{ "{" ON("200") ",\"targets\":[" INNER(FB) ",{}]}", NULL, 0, { 200, 200 }, "1 0 over" },
		{ "{" FB ",\"targets\":[" INNER("\"strategy\":{\"mode\":\"single\"}") ",{}]}", NULL, 0, { 500, 500 }, "1 0 over" },
		/* The whole inner level out, or a part of it. */
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 6, { 500 }, "0 over" },
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 2, { 500, 500 }, "2 0 over" },
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 1, { 500, 500 }, "1 2 over" },
		{ "{" FB ",\"targets\":[" INNER(FB) ",{}]}", NULL, 7, { 0 }, "all out" },
		/* A loadbalance's choice is final for it, and not for the fallback around it. */
		{ "{" FB ",\"targets\":[{" LB ",\"targets\":[{\"weight\":0},{}]},{}]}", NULL, 0, { 500, 500 }, "2 0 over" },
		{ "{" LB ",\"targets\":[{\"weight\":0},{" FB ",\"targets\":[{},{}]}]}", NULL, 0, { 500, 500 }, "1 2 over" },
		{ "{" LB ",\"targets\":[{},{}]}", NULL, 1, { 500 }, "1 over" },
		{ "{" LB ",\"targets\":[{},{}]}", NULL, 3, { 0 }, "all out" },
		{ "{" LB ",\"targets\":[{\"weight\":0},{}]}", NULL, 2, { 0 }, "all out" },	/* not even in need */
		{ "{" FB ",\"targets\":[{" LB ",\"targets\":[{\"weight\":0},{}]},{}]}", NULL, 4, { 500 }, "0 over" },
	};

	check_ways(ways, sizeof(ways) / sizeof(ways[0]));
}

static void
test_conditional(void **state)
{
	(void)state;
#define TWO_RULES IS("team", "a", "one") "," IS("env", "dev", "two")
	static const struct way ways[] = {
		{ "{" COND(TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "]}", "{\"team\":\"a\"}", 0, { 500 }, "1 over" },
		{ "{" COND(TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "]}", "{\"env\":\"dev\"}", 0, { 500 }, "0 over" },
		{ "{" COND(TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "]}", "{\"env\":\"dev\",\"team\":\"a\"}", 0, { 200 }, "1 over" },
		{ "{" COND(TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "]}", "{\"team\":\"b\"}", 0, { 0 }, "no match at config" },
		{ "{" COND_ELSE("main", TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "," NAMED("main") "]}", "{\"team\":\"b\"}", 0, { 0 }, "2 " },
		{ "{" COND_ELSE("main", TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "," NAMED("main") "]}", "{\"team\":\"a\"}", 0, { 0 }, "1 " },
		/* Its choice is for the request, not for what is up. */
		{ "{" COND_ELSE("two", TWO_RULES) ",\"targets\":[" NAMED("two") "," NAMED("one") "]}", "{\"team\":\"a\"}", 2, { 0 }, "all out" },
		/* In a fallback: passed over when its choice is out, or if it has none. */
		{ "{" FB ",\"targets\":[{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]},{}]}", "{\"team\":\"a\"}", 0, { 500, 500 }, "1 0 over" },
		{ "{" FB ",\"targets\":[{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]},{}]}", "{\"team\":\"a\"}", 2, { 500 }, "0 over" },
		{ "{" FB ",\"targets\":[{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]},{}]}", "{}", 0, { 500 }, "0 over" },
		{ "{" FB ",\"targets\":[{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]},{}]}", "{}", 1, { 0 }, "all out" },
		{ "{" FB ",\"targets\":[{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]}]}", "{}", 0, { 0 }, "no match at config.targets[0]" },
		{ "{" FB ",\"targets\":[{},{" COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]}]}", "{}", 0, { 500 }, "0 over" },
		/* In a loadbalance. */
		{ "{" LB ",\"targets\":[{\"weight\":1000000," COND(TWO_RULES) ",\"targets\":[" NAMED("one") "," NAMED("two") "]},{}]}", "{}", 0, { 500 }, "0 over" },
		/* Inside of another one. */
		{ "{" COND_ELSE("x", IS("team", "a", "x")) ",\"targets\":[{\"name\":\"x\"," COND(IS("env", "dev", "y")) ",\"targets\":[" NAMED("z") "," NAMED("y") "]}]}",
		    "{\"env\":\"dev\"}", 0, { 500 }, "1 over" },
		{ "{" COND_ELSE("x", IS("team", "a", "x")) ",\"targets\":[{\"name\":\"x\"," COND(IS("env", "dev", "y")) ",\"targets\":[" NAMED("z") "," NAMED("y") "]}]}",
		    "{}", 0, { 0 }, "no match at config.targets[0]" },
	};

	check_ways(ways, sizeof(ways) / sizeof(ways[0]));
}

/* An outcome that is the gateway's own fault ends it, whatever the config says. */
/* The target at hand is out, and has not been asked: another one in its place. */
static void
test_again(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		int status;		/* of the first target; 0: that one is out */
		const char *text;	/* the targets, each of which is found to be out but for those with a status */
	} rows[] = {
		{ "{}", 0, "0 over" },
		{ "{\"targets\":[{},{}]}", 0, "0 over" },
		/* Whatever may be fallen back for. */
		{ "{" FB "," THREE "}", 0, "0 1 2 over" },
		{ "{" ON("429") "," THREE "}", 0, "0 1 2 over" },
		{ "{" ON("") "," THREE "}", 0, "0 1 2 over" },
		{ "{" ON("429") "," THREE "}", 429, "0 1 2 over" },
		/* A choice is made anew among what is left. */
		{ "{" LB ",\"targets\":[{\"weight\":1},{\"weight\":0},{\"weight\":0}]}", 0, "0 over" },
		{ "{" ON("") ",\"targets\":[{" LB ",\"targets\":[{\"weight\":1e6},{\"weight\":1e-9}]},{}]}", 0, "1 2 0 over" },
		{ "{" FB ",\"targets\":[{},{" LB ",\"targets\":[{\"weight\":1e6},{\"weight\":1e-9}]}]}", 500, "0 1 2 over" },
		/* But not what has been asked: its answer was the choice's. */
		{ "{" LB ",\"targets\":[{\"weight\":1e6," FB ",\"targets\":[{},{}]},{\"weight\":1e-9}]}", 0, "1 2 0 over" },
		{ "{" LB ",\"targets\":[{\"weight\":1e6," FB ",\"targets\":[{},{}]},{\"weight\":1e-9}]}", 500, "1 2 over" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config *c = accept(rows[i].json);
		struct world world = { .asked = 0 };
		struct route_facts f = facts_of(&world);
		struct route_walk w;
		struct buf text;

		buf_init(&text, 4096);
		enum route_step step = route_begin(&w, c, &f);
		for (uint32_t n = 0; step == ROUTE_TARGET; n++) {
			assert_true(n < 8);
			buf_printf(&text, "%u ", w.target->number);
			if (n == 0 && rows[i].status) {
				step = route_next(&w, &f, rows[i].status);
				continue;
			}
			set_out(&world, w.target->number, true);
			step = route_again(&w, &f);
		}
		assert_int_equal(step, ROUTE_OVER);
		buf_add_str(&text, "over");
		if (!slice_eq(buf_slice(&text), slice_of(rows[i].text)))
			fail_msg("row %zu, %s: \"%.*s\", but expected \"%s\"", i, rows[i].json, SLICE_FMT(buf_slice(&text)), rows[i].text);
		buf_free(&text);
		config_put(c);
	}
}

static void
test_without_a_config(void **state)
{
	(void)state;
	const struct route_facts f = { .preferred = ROUTE_ANY };
	struct route_walk w;

	assert_int_equal(route_begin(&w, config_none(), &f), ROUTE_TARGET);
	assert_ptr_equal(w.target, config_none()->targets);
	assert_false(route_has_next(&w, &f, 500));
	assert_int_equal(route_next(&w, &f, 500), ROUTE_OVER);
}

/* ---- against a recursive reference ---- */

struct reference {
	const struct config *c;
	const struct world *world;
	const struct route_facts *f;
	const int *outcome;	/* of each target */
	struct buf text;
};

enum view { CAN, OUT, NO_WAY };

static const struct config_node *
chosen_by_condition(const struct reference *r, const struct config_node *n)
{
	for (uint32_t i = 0; i < n->conditions_count; i++)
		if (condition_holds(n->conditions[i].query, r->f->conditions))
			return &r->c->nodes[n->conditions[i].child];
	return n->otherwise == CONFIG_NOWHERE ? NULL : &r->c->nodes[n->otherwise];
}

static enum view
view_of(const struct reference *r, const struct config_node *n)
{
	const struct config_node *one = NULL;
	enum view view = NO_WAY;

	if (n->mode == CONFIG_LEAF)
		return r->world->out[n->target->number / 64] >> n->target->number % 64 & 1 ? OUT : CAN;
	if (n->mode == CONFIG_CONDITIONAL || n->mode == CONFIG_SINGLE) {
		one = n->mode == CONFIG_SINGLE ? &r->c->nodes[n->first] : chosen_by_condition(r, n);
		return one ? view_of(r, one) : NO_WAY;
	}
	for (uint32_t i = 0; i < n->count; i++) {
		const struct config_node *child = &r->c->nodes[n->first + i];

		if (n->mode == CONFIG_LOADBALANCE && child->weight == 0)
			continue;
		enum view v = view_of(r, child);
		if (v == CAN)
			return CAN;
		if (v == OUT)
			view = OUT;
	}
	return view;
}

static uint64_t
spread(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Can this request come to the preferred target, from here? */
static bool
leads_home(const struct reference *r, const struct config_node *n)
{
	const struct config_node *one;

	if (n->mode == CONFIG_LEAF)
		return n->target->number == r->f->preferred;
	if (n->mode == CONFIG_CONDITIONAL || n->mode == CONFIG_SINGLE) {
		one = n->mode == CONFIG_SINGLE ? &r->c->nodes[n->first] : chosen_by_condition(r, n);
		return one && leads_home(r, one);
	}
	for (uint32_t i = 0; i < n->count; i++) {
		const struct config_node *child = &r->c->nodes[n->first + i];

		if ((n->mode != CONFIG_LOADBALANCE || child->weight > 0) && leads_home(r, child))
			return true;
	}
	return false;
}

static bool
home_is_up(const struct reference *r)
{
	uint32_t home = r->f->preferred;

	return home != ROUTE_ANY && !(r->world->out[home / 64] >> home % 64 & 1);
}

static const struct config_node *
chosen_by_weight(const struct reference *r, const struct config_node *n)
{
	const uint64_t *id = n->sticky.enabled && r->f->session ? r->f->session : r->f->random;
	const struct config_node *best = NULL;
	double most = 0;

	for (uint32_t i = 0; i < n->count; i++) {
		const struct config_node *child = &r->c->nodes[n->first + i];

		if (child->weight == 0 || view_of(r, child) != CAN)
			continue;
		if (home_is_up(r) && leads_home(r, child))
			return child;
		/* u^(1/w), the largest: the same order by another way. */
		double u = ((double)(spread(spread(spread(id[0]) + id[1]) ^ child->seed) >> 11) + 0.5) / 9007199254740992.0;
		double key = log(u) / child->weight;
		if (!best || key > most) {
			best = child;
			most = key;
		}
	}
	assert_non_null(best);
	return best;
}

static int
run(struct reference *r, const struct config_node *n)
{
	int status = 0;

	switch (n->mode) {
	case CONFIG_LEAF:
		buf_printf(&r->text, "%u ", n->target->number);
		return r->outcome[n->target->number];
	case CONFIG_SINGLE:
		return run(r, &r->c->nodes[n->first]);
	case CONFIG_CONDITIONAL:
		return run(r, chosen_by_condition(r, n));
	case CONFIG_LOADBALANCE:
		return run(r, chosen_by_weight(r, n));
	case CONFIG_FALLBACK:
		break;
	}
	/* Twice over the children: home, then the others. */
	for (uint32_t i = 0; i < 2 * n->count; i++) {
		const struct config_node *child = &r->c->nodes[n->first + i % n->count];
		bool home = home_is_up(r) && leads_home(r, child);

		if (home != (i < n->count) || view_of(r, child) != CAN)
			continue;
		status = run(r, child);
		if (n->has_statuses ? !status_set_has(&n->on_status_codes, status) : status / 100 == 2)
			break;
	}
	return status;
}

/* A random tree, as JSON. */
static void
grow(struct buf *json, uint32_t levels)
{
	static const char *const lists[] = { "", "200", "429", "429,529", "500,429,529", "200,429,500,529" };
	uint32_t kind = (uint32_t)random_u64() % 8, children = 1 + (uint32_t)random_u64() % 4;

	if (levels == 0 || kind == 0)
		return;
	if (kind == 1) {
		buf_add_str(json, ",\"strategy\":{\"mode\":\"single\"}");
	} else if (kind <= 3) {
		buf_add_str(json, ",\"strategy\":{\"mode\":\"fallback\"");
		if (random_u64() % 2)
			buf_printf(json, ",\"on_status_codes\":[%s]", lists[random_u64() % 6]);
		buf_add_char(json, '}');
	} else if (kind <= 5) {
		buf_printf(json, ",\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"enabled\":%s}}", random_u64() % 4 ? "true" : "false");
	} else {
		buf_add_str(json, ",\"strategy\":{\"mode\":\"conditional\",\"conditions\":[");
		for (uint32_t i = 0; i < 1 + random_u64() % 3; i++)
			buf_printf(json, "%s{\"query\":{\"metadata.%c\":\"%u\"},\"then\":\"n%u\"}", i ? "," : "", 'a' + (char)(random_u64() % 3),
			    (uint32_t)random_u64() % 2, (uint32_t)random_u64() % children);
		buf_printf(json, "]%s", random_u64() % 2 ? ",\"default\":\"n0\"}" : "}");
	}
	buf_add_str(json, ",\"targets\":[");
	for (uint32_t i = 0; i < children; i++) {
		buf_printf(json, "%s{\"name\":\"n%u\",\"weight\":%u", i ? "," : "", i, i == 0 ? 1 : (uint32_t)random_u64() % 4);
		grow(json, levels - 1);
		buf_add_char(json, '}');
	}
	buf_add_char(json, ']');
}

struct tally { uint32_t over, all_out, no_match, steps; };

static void
compare(const struct config *c, const char *json, struct tally *tally)
{
	static const int statuses[] = { 200, 429, 500, 529 };
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	struct reference r = { .c = c, .world = &world, .f = &f };
	int outcome[CONFIG_NODES_MAX];
	char metadata[64];
	struct route_walk w;
	struct buf text;
	uint64_t session[2];

	make_session(3, 0, session);
	make_session(3, 0, f.random);
	f.session = random_u64() % 4 ? session : NULL;
	f.preferred = random_u64() % 2 ? (uint32_t)random_u64() % c->targets_count : ROUTE_ANY;
	for (uint32_t i = 0; i < c->targets_count; i++) {
		outcome[i] = statuses[random_u64() % 4];
		set_out(&world, i, random_u64() % 10 < 3);
	}
	r.outcome = outcome;
	snprintf(metadata, sizeof(metadata), "{\"a\":\"%u\",\"b\":\"%u\"}", (uint32_t)random_u64() % 2, (uint32_t)random_u64() % 2);
	conditions.metadata = slice_of(metadata);
	buf_init(&text, 65536);
	buf_init(&r.text, 65536);

	enum view view = view_of(&r, &c->nodes[0]);
	enum route_step step = route_begin(&w, c, &f);
	assert_int_equal(step, view == CAN ? ROUTE_TARGET : view == OUT ? ROUTE_ALL_OUT : ROUTE_NO_MATCH);
	if (view == CAN)
		run(&r, &c->nodes[0]);
	for (; step == ROUTE_TARGET; tally->steps++) {
		buf_printf(&text, "%u ", w.target->number);
		bool more = route_has_next(&w, &f, outcome[w.target->number]);
		step = route_next(&w, &f, outcome[w.target->number]);
		assert_int_equal(more, step == ROUTE_TARGET);
	}
	if (!slice_eq(buf_slice(&text), buf_slice(&r.text)))
		fail_msg("%s with %s: %.*s, but expected %.*s", json, metadata, SLICE_FMT(buf_slice(&text)), SLICE_FMT(buf_slice(&r.text)));
	tally->over += step == ROUTE_OVER;
	tally->all_out += step == ROUTE_ALL_OUT;
	tally->no_match += step == ROUTE_NO_MATCH;
	buf_free(&text);
	buf_free(&r.text);
}

static void
test_reference(void **state)
{
	(void)state;
	struct tally tally = { 0 };
	struct buf json;

	buf_init(&json, 1u << 20);
	for (int i = 0; i < 20000; i++) {
		buf_clear(&json);
		buf_add_str(&json, "{\"name\":\"root\"");
		grow(&json, 1 + (uint32_t)i % 5);
		buf_add(&json, "}", 2);
		struct config *c = accept(json.p);
		for (int k = 0; k < 10; k++)
			compare(c, json.p, &tally);
		config_put(c);
	}
	buf_free(&json);
	/* Not one of the ends has been missed. */
	printf("# 200,000 walks: %u over, %u all out, %u without a match, %u targets\n", tally.over, tally.all_out, tally.no_match, tally.steps);
	assert_true(tally.over > 100000 && tally.all_out > 10000 && tally.no_match > 1000 && tally.steps > 150000);
}

/* ---- bounds, words ---- */

/* The widest tree, all out but the last: each step of each walk looks at each target a bounded number of times. */
static void
test_wide(void **state)
{
	(void)state;
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	struct route_walk w;
	struct buf json;

	buf_init(&json, 1u << 20);
	buf_add_str(&json, "{" FB ",\"targets\":[");
	for (int i = 0; i < 40; i++) {
		buf_printf(&json, "%s{" FB ",\"targets\":[", i ? "," : "");
		for (int k = 0; k < 50; k++)
			buf_add_str(&json, k ? ",{}" : "{}");
		buf_add_str(&json, "]}");
	}
	buf_add(&json, "]}", 3);
	struct config *c = accept(json.p);
	assert_int_equal(c->targets_count, 2000);
	for (uint32_t i = 0; i < 1999; i++)
		set_out(&world, i, true);
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	assert_int_equal(w.target->number, 1999);
	assert_true(world.asked <= 3 * 2000);
	assert_int_equal(route_next(&w, &f, 500), ROUTE_OVER);
	/* All work, and all fail: each gets its turn. */
	memset(&world, 0, sizeof(world));
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	for (uint32_t i = 1; i < 2000; i++) {
		assert_int_equal(route_next(&w, &f, 500), ROUTE_TARGET);
		assert_int_equal(w.target->number, i);
	}
	assert_int_equal(route_next(&w, &f, 500), ROUTE_OVER);
	assert_true(world.asked <= 10 * 2000);
	config_put(c);
	buf_free(&json);
}

/* The deepest one: fallbacks in loadbalances in conditionals. */
static void
test_deep(void **state)
{
	(void)state;
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	struct route_walk w;
	struct buf json;

	buf_init(&json, 1u << 20);
	for (int level = 1; level < CONFIG_LEVELS_MAX; level++) {
		static const char *const begins[] = { "{\"name\":\"n\"," FB ",\"targets\":[", "{\"name\":\"n\"," LB ",\"targets\":[",
		    "{\"name\":\"n\"," COND(IS("a", "1", "n")) ",\"targets\":[" };

		buf_add_str(&json, begins[level % 3]);
	}
	buf_add_str(&json, "{\"name\":\"n\"}");
	for (int level = 1; level < CONFIG_LEVELS_MAX; level++)
		buf_add_str(&json, level == CONFIG_LEVELS_MAX - 1 ? "]}" : "]},{}");
	buf_add_char(&json, '\0');
	struct config *c = accept(json.p);
	conditions.metadata = SLICE("{\"a\":\"1\"}");
	assert_int_equal(c->nodes[c->nodes_count - 1].level, CONFIG_LEVELS_MAX - 1);
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	for (uint32_t i = 0; i + 1 < c->targets_count; i++)
		set_out(&world, i, true);
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	assert_int_equal(w.target->node, c->nodes_count - 1);
	struct buf out;
	buf_init(&out, 65536);
	route_describe(&w, &f, &out);
	uint32_t lines = 0;
	for (size_t i = 0; i < out.n; i++)
		lines += out.p[i] == '\n';
	assert_int_equal(lines, CONFIG_LEVELS_MAX);
	buf_free(&out);
	config_put(c);
	buf_free(&json);
}

static void
test_describe(void **state)
{
	(void)state;
	struct config *c = accept("{" COND_ELSE("rest", IS("team", "a", "big")) ",\"targets\":[{\"name\":\"big\"," LB ",\"targets\":[{\"weight\":0.5},"
	    "{\"weight\":1.5," FB ",\"targets\":[{},{\"override_params\":{\"model\":\"@eu/claude-x\"}}]}]},{\"name\":\"rest\",\"provider\":\"@us\"}]}");
	struct world world = { .asked = 0 };
	struct route_facts f = facts_of(&world);
	const uint64_t session[2] = { 1, 1 };
	struct route_walk w;
	struct buf out;

	buf_init(&out, 65536);
	conditions.metadata = SLICE("{\"team\":\"a\"}");
	set_out(&world, 1, true);	/* "weight": 0.5 */
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	assert_int_equal(route_next(&w, &f, 500), ROUTE_TARGET);
	route_describe(&w, &f, &out);
	buf_add_char(&out, '\0');
	assert_string_equal(out.p, "config: conditional: targets[0] \"big\", conditions[0] holds\n"
	    "config.targets[0]: loadbalance: targets[1], weight 1.5 of 1.5 (1 left out), by chance\n"
	    "config.targets[0].targets[1]: fallback: targets[1], 2 of 2\n"
	    "config.targets[0].targets[1].targets[1]: the target, provider \"eu\", model \"claude-x\"\n");
	buf_clear(&out);
	set_out(&world, 1, false);
	f.session = session;
	f.preferred = 3;
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	route_describe(&w, &f, &out);
	buf_add_char(&out, '\0');
	assert_string_equal(out.p, "config: conditional: targets[0] \"big\", conditions[0] holds\n"
	    "config.targets[0]: loadbalance: targets[1], weight 1.5 of 2, where the conversation's state is\n"
	    "config.targets[0].targets[1]: fallback: targets[1], 2 of 2, where the conversation's state is\n"
	    "config.targets[0].targets[1].targets[1]: the target, provider \"eu\", model \"claude-x\"\n");
	buf_clear(&out);
	conditions.metadata = SLICE("{}");
	assert_int_equal(route_begin(&w, c, &f), ROUTE_TARGET);
	route_describe(&w, &f, &out);
	buf_add_char(&out, '\0');
	assert_string_equal(out.p, "config: conditional: targets[1] \"rest\", the default: no condition holds\n"
	    "config.targets[1]: the target, provider \"us\"\n");
	buf_free(&out);
	config_put(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single),
		cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_conditional),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_without_a_config),
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_wide),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
