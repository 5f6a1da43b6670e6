/*
 * gateway/health_watch.h -- what requests learn of the health of their targets.
 *
 * A target of a config stands on up to three rows of shm/health.h, which all
 * workers share: the provider's account (no money, a credential that is refused),
 * the provider's model (failures, overload, "wait so long": they concern one model),
 * and, where the config has a cb_config, a circuit breaker of its own, which then
 * decides about failures alone. It can be used if none of them is out.
 *
 * A saved target with a host or a credential of its own has rows of its own in place
 * of its provider's. Of hosts and credentials that come with a request nothing is
 * kept: they are nobody else's, and clients could fill the table with them.
 *
 * Rows are looked at and reported to only where that changes anything: in configs
 * with several targets, and for targets with a cb_config. A request that has no
 * other way goes to its provider, whatever is known of it.
 */
#ifndef WEIR_GATEWAY_HEALTH_WATCH_H
#define WEIR_GATEWAY_HEALTH_WATCH_H

#include <stdbool.h>

#include "shm/health.h"

struct attempt_end;
struct buf;
struct config_target;
struct plane;
struct request;

/* At the target at hand. */
struct health_watch {
	struct health_ref *account, *breaker;	/* the plane's, which know where they are; NULL: none */
	struct health_ref model;
	struct health_try at_account, at_model, at_breaker;
};

void health_watch_name(struct plane *p, const struct arena *a);
	/* Which rows the plane's accounts and breakers stand on. The same in all
	 * workers, and after a reload that keeps their names. */
bool health_usable(struct request *r, const struct config_target *t);
	/* May a request be sent there now? Takes nothing. */
bool health_enter(struct request *r) MUST_CHECK;
	/* The request is at a target: takes what probes there are to take. false: it
	 * cannot be used any more. */
void health_leave(struct request *r);
	/* Gives back probes that came to nothing. */
void health_begins(struct request *r);
	/* An attempt begins. */
void health_served(struct request *r);
void health_failed(struct request *r, const struct attempt_end *end);
	/* How an attempt ended; once for each. */
int64_t health_reason(struct request *r, const struct config_target *t, struct buf *out);
	/* Why nothing can be sent there now, in words, and for how many nanoseconds,
	 * as far as is known; nothing and 0 if it can. */

#endif
