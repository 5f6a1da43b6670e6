/*
 * policy/route.h -- the walk over a config: which target is next.
 *
 * A walk stands at one target, and that is all its state: the way from the root
 * to it is its node's parents, and where a fallback is, is which child the way
 * goes through. So a step climbs from the target until an ancestor has another
 * child to offer, and goes down from there. No recursion, no allocation; bounded
 * by CONFIG_NODES_MAX.
 *
 *	single		its first child
 *	conditional	the child of the first condition that holds, else the default
 *	loadbalance	a child by weight; its failure is final for this node
 *	fallback	the children in order, as long as the outcome says so
 *
 * Targets that cannot be used now (`usable`) are left out: of a loadbalance the
 * rest share the weights, in a fallback they are passed over. A subtree can be
 * used if a target in it can that may be chosen there. A conditional chooses by
 * the request alone: it cannot be used if its choice cannot, or if nothing
 * matches and it has no default.
 *
 * A loadbalance gives a session the child with the best score, -ln(u) / weight
 * with u from a hash of the session and the child's place ("weighted rendezvous
 * hashing"). Over many sessions that draws by weight; one session finds the
 * same child again, in any worker, without anything stored; and when a child is
 * out, only its sessions move, spread by the other weights, and come back when
 * it does. Without a session the random numbers take its place.
 *
 * A conversation whose state is at one target (`preferred`) is led there: a
 * loadbalance chooses the child that it is in, a fallback asks that child first.
 *
 * Within a walk the facts must stay the same, but for what `usable` says.
 */
#ifndef WEIR_POLICY_ROUTE_H
#define WEIR_POLICY_ROUTE_H

#include "policy/condition.h"
#include "policy/config.h"

#define ROUTE_ANY UINT32_MAX		/* no target is preferred */
#define ROUTE_DECIDED_MAX 16		/* conditional nodes whose choice is remembered */

struct route_facts {
	const struct condition_facts *conditions;	/* may be NULL if !config.has_conditions */
	const uint64_t *session;	/* two words; NULL: none */
	uint64_t random[2];		/* if config.has_choice */
	bool (*usable)(void *arg, const struct config_target *t);	/* NULL: all are */
	bool (*identify)(void *arg, const struct config_sticky *s, uint64_t session[2]);
		/* The session by sticky.hash_fields. false, or no function: `session` is taken. */
	void *arg;			/* of both */
	uint32_t preferred;		/* number of a target that has the conversation's state, or ROUTE_ANY;
					 * it counts if it can be used */
};

enum route_step {
	ROUTE_TARGET,			/* walk.target is to be asked */
	ROUTE_OVER,			/* none is left: the last answer stands */
	ROUTE_ALL_OUT,			/* no target can be used */
	ROUTE_NO_MATCH,			/* no condition holds, and there is no default: walk.at says where */
};

struct route_walk {
	const struct config *config;
	const struct config_target *target;	/* the one at hand; NULL before the first */
	uint32_t at;			/* NO_MATCH: node of the conditional */
	uint32_t steps;			/* targets before this one */
	uint32_t home_first;		/* bits, by level: the fallback there began with the preferred target's child */
	struct { uint32_t node, child; } decided[ROUTE_DECIDED_MAX];	/* for route.c alone */
};

enum route_step route_begin(struct route_walk *w, const struct config *c, const struct route_facts *f) MUST_CHECK;
	/* The first target. TARGET, ALL_OUT or NO_MATCH. `c` must live as long as
	 * the walk. */
enum route_step route_next(struct route_walk *w, const struct route_facts *f, int status) MUST_CHECK;
	/* The target's outcome was `status`, an upstream's or what stands for it
	 * (408, 500, 503, 412, 429). TARGET or OVER; OVER leaves walk.target at the
	 * last one. */
enum route_step route_again(struct route_walk *w, const struct route_facts *f) MUST_CHECK;
	/* The target at hand cannot be used any more, and has not been asked: another
	 * one in its place, whatever the config says of outcomes. TARGET or OVER; OVER
	 * leaves walk.target. */
bool route_has_next(const struct route_walk *w, const struct route_facts *f, int status);
	/* Would route_next() find a target? No side effect. */
void route_describe(const struct route_walk *w, const struct route_facts *f, struct buf *out);
	/* The way to walk.target, a line a decision:
	 * "config: loadbalance: targets[1], weight 3 of 4, by the conversation" */

#endif
