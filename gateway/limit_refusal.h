/*
 * gateway/limit_refusal.h -- what a client is told when a limit has no room.
 *
 * The text names the limit, how much of it is used, when there will be room, and
 * what would help. Rates and requests in flight are a 429 that clients try again;
 * a used-up budget is a 429 that they show and do not repeat, or Portkey's 412 to
 * clients that speak its dialect.
 */
#ifndef WEIR_GATEWAY_LIMIT_REFUSAL_H
#define WEIR_GATEWAY_LIMIT_REFUSAL_H

#include "gateway/limits.h"

struct request;

void limit_refuse(struct request *r, const struct limit_set *set, const struct refusal *why, struct now now);
	/* After LEDGER_REFUSED. The request is freed. */

#endif
