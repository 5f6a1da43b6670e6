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
	X(content_encoding, "content-encoding") \
	X(config, "x-portkey-config") \
	X(portkey_api_key, "x-portkey-api-key") \
	X(metadata, "x-portkey-metadata") \
	X(provider, "x-portkey-provider") \
	X(trace_id, "x-portkey-trace-id") \
	X(virtual_key, "x-portkey-virtual-key") \
	X(session_id, "x-claude-code-session-id")

struct known_headers {
#define X(member, name) struct slice member;
	KNOWN_HEADERS(X)
#undef X
};

void headers_find(const struct http1_head *head, struct known_headers *out);
	/* Absent ones are SLICE_NONE. */

#endif
