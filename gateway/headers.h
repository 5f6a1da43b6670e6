/*
 * gateway/headers.h -- the request headers that weir itself reads, found in one pass.
 */
#ifndef WEIR_GATEWAY_HEADERS_H
#define WEIR_GATEWAY_HEADERS_H

#include "upstream/wire/http1.h"

/* OF(length) heads the names that have it; X(member, name): the first of a name counts. */
#define KNOWN_HEADERS(OF, X) \
	OF(9) \
	X(api_key, "x-api-key") \
	OF(10) \
	X(user_agent, "user-agent") \
	OF(11) \
	X(traceparent, "traceparent") \
	OF(12) \
	X(content_type, "content-type") \
	OF(13) \
	X(authorization, "authorization") \
	X(cache_control, "cache-control") \
	OF(14) \
	X(beta, "anthropic-beta") \
	OF(15) \
	X(debug, "x-portkey-debug") \
	OF(16) \
	X(content_encoding, "content-encoding") \
	X(config, "x-portkey-config") \
	OF(17) \
	X(portkey_api_key, "x-portkey-api-key") \
	X(anthropic_version, "anthropic-version") \
	OF(18) \
	X(metadata, "x-portkey-metadata") \
	X(provider, "x-portkey-provider") \
	X(trace_id, "x-portkey-trace-id") \
	OF(21) \
	X(virtual_key, "x-portkey-virtual-key") \
	X(custom_host, "x-portkey-custom-host") \
	OF(24) \
	X(session_id, "x-claude-code-session-id") \
	OF(25) \
	X(cache_namespace, "x-portkey-cache-namespace") \
	X(request_timeout, "x-portkey-request-timeout") \
	X(forward_headers, "x-portkey-forward-headers") \
	OF(29) \
	X(cache_refresh, "x-portkey-cache-force-refresh")

struct known_headers {
#define OF(length)
#define X(member, name) struct slice member;
	KNOWN_HEADERS(OF, X)
#undef X
#undef OF
};

void headers_find(const struct http1_head *head, struct known_headers *out);
	/* Absent ones are SLICE_NONE. */
bool headers_next(struct slice list, size_t *at, struct slice *name);
	/* The names in the text of a header that lists some, as "X-A, x-b" or
	 * "['x-a']", one after the other; *at is 0 at first. false: no more. */
bool headers_listed(struct slice list, struct slice name);
	/* Is that (lower-case) name among them? */

#endif
