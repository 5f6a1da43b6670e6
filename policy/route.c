/*
 * policy/route.c -- see route.h.
 *
 * Both ways through the tree go without a stack, because a tree whose children
 * stand together can be left upwards: look() tries a subtree's targets in
 * order, until one can be used; enter() goes down to the one that is chosen.
 */
#include "policy/route.h"

#include <math.h>

enum outlook { OUTLOOK_USABLE, OUTLOOK_OUT, OUTLOOK_NO_MATCH };

static const struct config_node *
node_at(const struct route_walk *w, uint32_t n)
{
	return &w->config->nodes[n];
}

static bool
usable(const struct route_facts *f, const struct config_target *t)
{
	return !f->usable || f->usable(f->arg, t);
}

/* A conditional's child for this request; NOWHERE: nothing matches. */
static uint32_t
decide(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	const struct config_node *node = node_at(w, n);
	uint32_t slot = n % ROUTE_DECIDED_MAX, child = node->otherwise;

	if (w->decided[slot].node == n)
		return w->decided[slot].child;
	for (uint32_t i = 0; i < node->conditions_count; i++)
		if (condition_holds(node->conditions[i].query, f->conditions)) {
			child = node->conditions[i].child;
			break;
		}
	w->decided[slot].node = n;
	w->decided[slot].child = child;
	return child;
}

/* ---- what can be used ---- */

/* A child, from `from` on, that may be chosen at all; NOWHERE: none. */
static uint32_t
eligible(const struct route_walk *w, const struct config_node *node, uint32_t from)
{
	uint32_t end = node->first + node->count;

	while (node->mode == CONFIG_LOADBALANCE && from < end && node_at(w, from)->weight <= 0)
		from++;
	return from < end ? from : CONFIG_NOWHERE;
}

/* Is there a target below `top`, or is it one, that can be used? */
static enum outlook
look(struct route_walk *w, const struct route_facts *f, uint32_t top)
{
	enum outlook outlook = OUTLOOK_NO_MATCH;
	uint32_t n = top, next;

	for (;;) {	/* visits each node once at the most */
		const struct config_node *node = node_at(w, n);

		if (node->mode == CONFIG_LEAF) {
			if (usable(f, node->target))
				return OUTLOOK_USABLE;
			outlook = OUTLOOK_OUT;
			next = CONFIG_NOWHERE;
		} else if (node->mode == CONFIG_CONDITIONAL) {
			next = decide(w, f, n);
			if (next == CONFIG_NOWHERE)
				w->at = n;
		} else {
			next = eligible(w, node, node->first);
		}
		while (next == CONFIG_NOWHERE) {
			if (n == top)
				return outlook;
			const struct config_node *parent = node_at(w, node_at(w, n)->parent);
			if (parent->mode == CONFIG_FALLBACK || parent->mode == CONFIG_LOADBALANCE)
				next = eligible(w, parent, n + 1);
			if (next == CONFIG_NOWHERE)
				n = node_at(w, n)->parent;
		}
		n = next;
	}
}

/* ---- loadbalance ---- */

/* Every bit of the result depends on every bit of x (the finaliser of splitmix64). */
static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Whose choice it is. */
static uint64_t
chooser(const struct config_node *node, const struct route_facts *f)
{
	uint64_t id[2] = { f->random[0], f->random[1] };

	if (node->sticky.enabled && f->session)
		memcpy(id, f->session, sizeof(id));
	if (node->sticky.enabled && node->sticky.hash_fields && f->identify) {
		uint64_t fields[2];

		if (f->identify(f->arg, &node->sticky, fields))
			memcpy(id, fields, sizeof(id));
	}
	return mix(mix(id[0]) + id[1]);
}

/* The smaller, the better: an exponential distribution, and the least of several falls to each by its weight. */
static double
score(uint64_t chooser, const struct config_node *child)
{
	double u = ((double)(mix(chooser ^ child->seed) >> 11) + 0.5) * 0x1p-53;	/* 0 < u < 1 */

	return -log(u) / child->weight;
}

/* The child of `n` that the preferred target is in; NOWHERE: in none, or this request cannot come to it. */
static uint32_t
home_child(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	if (f->preferred >= w->config->targets_count)
		return CONFIG_NOWHERE;
	uint32_t child = w->config->targets[f->preferred].node, up;

	for (; (up = node_at(w, child)->parent) != CONFIG_NOWHERE; child = up) {
		const struct config_node *parent = node_at(w, up);

		if ((parent->mode == CONFIG_CONDITIONAL && decide(w, f, up) != child) ||
		    (parent->mode == CONFIG_LOADBALANCE && node_at(w, child)->weight <= 0) ||
		    (parent->mode == CONFIG_SINGLE && parent->first != child))
			return CONFIG_NOWHERE;
		if (up == n)
			return child;
	}
	return CONFIG_NOWHERE;
}

/* The same, if the target can be used now. */
static uint32_t
preferred_child(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	uint32_t child = home_child(w, f, n);

	return child != CONFIG_NOWHERE && usable(f, &w->config->targets[f->preferred]) ? child : CONFIG_NOWHERE;
}

static uint32_t
choose(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	const struct config_node *node = node_at(w, n);
	uint32_t best = CONFIG_NOWHERE, child;
	double best_score = 0;

	best = preferred_child(w, f, n);
	if (best != CONFIG_NOWHERE)
		return best;
	uint64_t who = chooser(node, f);
	for (child = eligible(w, node, node->first); child != CONFIG_NOWHERE; child = eligible(w, node, child + 1)) {
		double s = score(who, node_at(w, child));

		if (best != CONFIG_NOWHERE && s >= best_score)
			continue;
		if (look(w, f, child) != OUTLOOK_USABLE)
			continue;
		best = child;
		best_score = s;
	}
	return best;
}

/* ---- the walk ---- */

/* The child of a fallback that is asked first. */
static uint32_t
first_usable(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	const struct config_node *node = node_at(w, n);
	uint32_t home = preferred_child(w, f, n);

	w->home_first &= ~(UINT32_C(1) << node->level);
	if (home != CONFIG_NOWHERE) {
		w->home_first |= UINT32_C(1) << node->level;
		return home;
	}
	for (uint32_t child = node->first; child < node->first + node->count; child++)
		if (look(w, f, child) == OUTLOOK_USABLE)
			return child;
	return CONFIG_NOWHERE;
}

/* Down to the target that is chosen below `n`. */
static enum route_step
enter(struct route_walk *w, const struct route_facts *f, uint32_t n)
{
	enum outlook outlook = look(w, f, n);

	if (outlook != OUTLOOK_USABLE)
		return outlook == OUTLOOK_OUT ? ROUTE_ALL_OUT : ROUTE_NO_MATCH;
	while (node_at(w, n)->mode != CONFIG_LEAF) {	/* CONFIG_LEVELS_MAX at the most */
		const struct config_node *node = node_at(w, n);

		if (node->mode == CONFIG_CONDITIONAL)
			n = decide(w, f, n);
		else if (node->mode == CONFIG_LOADBALANCE)
			n = choose(w, f, n);
		else if (node->mode == CONFIG_FALLBACK)
			n = first_usable(w, f, n);
		else
			n = node->first;
		if (n == CONFIG_NOWHERE)
			return ROUTE_ALL_OUT;	/* since the look at it */
	}
	w->target = node_at(w, n)->target;
	return ROUTE_TARGET;
}

/* To the next child of the fallback `up`, after `n`. */
static bool
enter_next(struct route_walk *w, const struct route_facts *f, uint32_t up, uint32_t n)
{
	const struct config_node *parent = node_at(w, up);
	uint32_t home = CONFIG_NOWHERE, child = n + 1;

	if (w->home_first >> parent->level & 1)
		home = home_child(w, f, up);
	if (n == home)
		child = parent->first;
	for (; child < parent->first + parent->count; child++)
		if (child != home && enter(w, f, child) == ROUTE_TARGET)
			return true;
	return false;
}

enum route_step
route_begin(struct route_walk *w, const struct config *c, const struct route_facts *f)
{
	w->config = c;
	w->target = NULL;
	w->at = CONFIG_NOWHERE;
	w->steps = w->home_first = 0;
	for (uint32_t i = 0; i < ROUTE_DECIDED_MAX; i++)
		w->decided[i].node = CONFIG_NOWHERE;
	return enter(w, f, 0);
}

static bool
falls_over(const struct config_node *fallback, int status)
{
	if (fallback->has_statuses)
		return status_set_has(&fallback->on_status_codes, status);
	return status < 200 || status > 299;
}

enum route_step
route_next(struct route_walk *w, const struct route_facts *f, int status)
{
	uint32_t n = w->target->node, up;

	for (; n != 0; n = up) {
		up = node_at(w, n)->parent;
		const struct config_node *parent = node_at(w, up);

		if (parent->mode != CONFIG_FALLBACK || !falls_over(parent, status))
			continue;
		if (enter_next(w, f, up, n)) {
			w->steps++;
			return ROUTE_TARGET;
		}
	}
	return ROUTE_OVER;
}

enum route_step
route_again(struct route_walk *w, const struct route_facts *f)
{
	bool asked = false;	/* something below, maybe: it must not be chosen again */

	for (uint32_t n = w->target->node, up; n != 0; n = up) {
		up = node_at(w, n)->parent;
		enum config_mode mode = node_at(w, up)->mode;

		if ((mode == CONFIG_FALLBACK && enter_next(w, f, up, n)) ||
		    (mode == CONFIG_LOADBALANCE && !asked && enter(w, f, up) == ROUTE_TARGET))
			return ROUTE_TARGET;
		asked = asked || (mode == CONFIG_FALLBACK && w->steps > 0);
	}
	return ROUTE_OVER;
}

bool
route_has_next(const struct route_walk *w, const struct route_facts *f, int status)
{
	struct route_walk ahead = *w;

	return route_next(&ahead, f, status) == ROUTE_TARGET;
}

/* ---- in words ---- */

/* "targets[1]", or with its name. */
static void
describe_child(const struct route_walk *w, const struct config_node *node, uint32_t child, struct buf *out)
{
	const struct config_node *c = node_at(w, child);

	buf_add_str(out, c->path.p + node->path.n + 1);
	if (c->name.n > 0)
		buf_printf(out, " \"%s\"", problem_name(c->name).text);
}

static void
describe_choice(struct route_walk *w, const struct route_facts *f, const struct config_node *node, uint32_t child, struct buf *out)
{
	uint64_t fields[2];
	uint32_t left_out = 0;
	double sum = 0;

	for (uint32_t i = node->first; i < node->first + node->count; i++) {
		if (node_at(w, i)->weight <= 0)
			continue;
		if (look(w, f, i) == OUTLOOK_USABLE)
			sum += node_at(w, i)->weight;
		else
			left_out++;
	}
	buf_printf(out, ", weight %g of %g", node_at(w, child)->weight, sum);
	if (left_out > 0)
		buf_printf(out, " (%u left out)", left_out);
	if (f->preferred < w->config->targets_count && preferred_child(w, f, node_at(w, child)->parent) == child)
		buf_add_str(out, ", where the conversation's state is");
	else if (!node->sticky.enabled || (!f->session && !node->sticky.hash_fields))
		buf_add_str(out, ", by chance");
	else if (node->sticky.hash_fields && f->identify && f->identify(f->arg, &node->sticky, fields))
		buf_add_str(out, ", by its hash_fields");
	else
		buf_add_str(out, f->session ? ", by the conversation" : ", by chance");
}

static void
describe_condition(const struct route_facts *f, const struct config_node *node, struct buf *out)
{
	for (uint32_t i = 0; i < node->conditions_count; i++)
		if (condition_holds(node->conditions[i].query, f->conditions)) {
			buf_printf(out, ", conditions[%u] holds", i);
			return;
		}
	buf_add_str(out, ", the default: no condition holds");
}

static void
describe_turn(struct route_walk *w, const struct route_facts *f, uint32_t n, uint32_t child, struct buf *out)
{
	const struct config_node *node = node_at(w, n);

	buf_printf(out, ", %u of %u", child - node->first + 1, node->count);
	if ((w->home_first >> node->level & 1) && child == home_child(w, f, n))
		buf_add_str(out, ", where the conversation's state is");
}

static void
describe_node(struct route_walk *w, const struct route_facts *f, uint32_t n, uint32_t child, struct buf *out)
{
	static const char *const modes[] = {
		[CONFIG_SINGLE] = "single", [CONFIG_FALLBACK] = "fallback", [CONFIG_LOADBALANCE] = "loadbalance",
		[CONFIG_CONDITIONAL] = "conditional",
	};
	const struct config_node *node = node_at(w, n);

	buf_printf(out, "%s: %s: ", node->path.p, modes[node->mode]);
	describe_child(w, node, child, out);
	if (node->mode == CONFIG_LOADBALANCE)
		describe_choice(w, f, node, child, out);
	else if (node->mode == CONFIG_CONDITIONAL)
		describe_condition(f, node, out);
	else if (node->mode == CONFIG_FALLBACK)
		describe_turn(w, f, n, child, out);
	buf_add_char(out, '\n');
}

void
route_describe(const struct route_walk *w, const struct route_facts *f, struct buf *out)
{
	struct route_walk ahead = *w;
	uint32_t way[CONFIG_LEVELS_MAX + 1], n = w->target->node, level = node_at(w, n)->level;

	way[level] = n;
	for (uint32_t i = level; i > 0; i--)
		way[i - 1] = node_at(w, way[i])->parent;
	for (uint32_t i = 0; i < level; i++)
		describe_node(&ahead, f, way[i], way[i + 1], out);
	buf_printf(out, "%s: the target", node_at(w, n)->path.p);
	if (w->target->provider.p)
		buf_printf(out, ", provider \"%s\"", w->target->provider.p);
	if (w->target->model.p)
		buf_printf(out, ", model \"%s\"", w->target->model.p);
	buf_add_char(out, '\n');
}
