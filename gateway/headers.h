/*
 * gateway/headers.h -- the request headers that weir itself reads, found in one pass.
 */
#ifndef WEIR_GATEWAY_HEADERS_H
#define WEIR_GATEWAY_HEADERS_H

#include "upstream/wire/http1.h"

/* X(member, name): the first of a name counts. Names of one length stand together. */
#define KNOWN_HEADERS(X) \
	X(api_key, "x-api-key") \
	X(user_agent, "user-agent") \
	X(traceparent, "traceparent") \
	X(content_type, "content-type") \
	X(authorization, "authorization") \
	X(cache_control, "cache-control") \
	X(beta, "anthropic-beta") \
	X(debug, "x-portkey-debug") \
	X(content_encoding, "content-encoding") \
	X(config, "x-portkey-config") \
	X(portkey_api_key, "x-portkey-api-key") \
	X(anthropic_version, "anthropic-version") \
	X(metadata, "x-portkey-metadata") \
	X(provider, "x-portkey-provider") \
	X(trace_id, "x-portkey-trace-id") \
	X(virtual_key, "x-portkey-virtual-key") \
	X(custom_host, "x-portkey-custom-host") \
	X(session_id, "x-claude-code-session-id") \
	X(cache_namespace, "x-portkey-cache-namespace") \
	X(request_timeout, "x-portkey-request-timeout") \
	X(forward_headers, "x-portkey-forward-headers") \
	X(cache_refresh, "x-portkey-cache-force-refresh")

struct known_headers {
#define X(member, name) struct slice member;
	KNOWN_HEADERS(X)
#undef X
};

void headers_find(const struct http1_head *head, struct known_headers *out);
	/* Absent ones are SLICE_NONE. */
bool headers_listed(struct slice list, struct slice name);
	/* Is that (lower-case) name in the text of a header that lists names, as
	 * "X-A, x-b" or "['x-a']"? */

#endif
