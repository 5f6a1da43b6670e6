/*
 * gateway/endpoint.h -- where requests go, and what all heads to there have in common.
 *
 * Each provider has one for as long as the settings hold; so has a target of a
 * saved config that names its own host. What a request brings along (a host, a
 * credential) has one for as long as the request is at that target.
 */
#ifndef WEIR_GATEWAY_ENDPOINT_H
#define WEIR_GATEWAY_ENDPOINT_H

#include "gateway/settings.h"
#include "policy/host.h"
#include "shm/base/buf.h"
#include "upstream/exchange.h"

struct endpoint {
	struct target *target;	/* NULL: not open */
	struct buf lines;	/* of a head, from behind the request's target to the body's length; with the credential: secret */
	struct slice prefix;	/* of paths there */
	bool whole_paths;	/* they begin with "/v1"; a custom host has that in its prefix, or not */
};

bool endpoint_open(struct endpoint *e, struct upstream *u, const struct setting_provider *p, struct slice credential,
    const struct host_url *host, char *why, size_t why_size) MUST_CHECK;
	/* `credential` none: the provider's own. `host` NULL: the provider's; else
	 * it has passed host_check(), and its addresses are judged as they are
	 * connected to. Both must outlive the endpoint. */
void endpoint_close(struct endpoint *e);
	/* One that is not open is fine. */

#endif
