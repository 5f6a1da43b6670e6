/*
 * gateway/steps_serve.c -- the provider's request: a new head, the client's body.
 *
 * What the client says about the Anthropic API goes on untouched (every
 * anthropic-* line, as it came); what is between the client and weir
 * (credentials, x-portkey-*, hop-by-hop) never leaves.
 */
#include "gateway/reply.h"
#include "gateway/request.h"

#define HEAD_SLACK 1024		/* request line, host, our own lines */

/* Headers that reach the provider: by prefix, or whole. None of them is one
 * that HTTP itself keeps between two peers. */
static bool
header_passes(struct slice name)
{
	switch (name.p[0]) {
	case 'a':
		return slice_starts(name, SLICE("anthropic-")) || slice_eq(name, SLICE("accept"));
	case 'c':
		return slice_eq(name, SLICE("content-type"));
	case 't':
		return slice_eq(name, SLICE("traceparent")) || slice_eq(name, SLICE("tracestate"));
	case 'u':
		return slice_eq(name, SLICE("user-agent"));
	case 'x':
		return slice_starts(name, SLICE("x-stainless-")) || slice_starts(name, SLICE("x-claude-code-")) ||
		    slice_eq(name, SLICE("x-app"));
	default:
		return false;
	}
}

/* Named by the config, or by the request's own header: none of those that are
 * between the client and weir (config_header_kept()). */
bool
serve_forwards(const struct request *r, struct slice name)
{
	const struct config_target *t = r->at.target;

	for (uint32_t i = 0; i < t->forward_headers_count; i++)
		if (slice_eq(t->forward_headers[i], name))
			return true;
	return r->known.forward_headers.n && headers_listed(r->known.forward_headers, name);
}

static void
add_client_headers(struct text *t, const struct request *r)
{
	bool version = false, type = false, has_1m = false;
	bool forwards = r->at.target->forward_headers_count > 0 || r->known.forward_headers.n;

	for (uint32_t i = 0; i < r->head.headers_count; i++) {
		const struct http1_header *h = &r->head.headers[i];

		if ((!header_passes(h->name) && !(forwards && serve_forwards(r, h->name))) || http1_connection_names(&r->head, h->name))
			continue;
		version = version || slice_eq(h->name, SLICE("anthropic-version"));
		type = type || slice_eq(h->name, SLICE("content-type"));
		if (slice_eq(h->name, SLICE("anthropic-beta")))
			has_1m = has_1m || slice_contains(h->value, SLICE("context-1m-"));
		text_header(t, h->name, h->value);
	}
	if (!version)
		text_header(t, SLICE("anthropic-version"), SLICE("2023-06-01"));
	if (!type)
		text_header(t, SLICE("content-type"), SLICE("application/json"));
	if (r->at.beta_1m && !has_1m)
		text_header(t, SLICE("anthropic-beta"), SLICE("context-1m-2025-08-07"));
}

static size_t
head_room(const struct request *r)
{
	size_t room = HEAD_SLACK + r->query.n;

	for (uint32_t i = 0; i < r->head.headers_count; i++)
		room += r->head.headers[i].name.n + r->head.headers[i].value.n + 4;
	return room;
}

/* "/v1/messages"; a host of a config's own has its version in its prefix. */
static struct slice
path_of(const struct request *r, enum route route)
{
	struct slice path = route_rows[route].path;

	if (r->at.endpoint->whole_paths)
		return path;
	return (struct slice){ path.p + 3, path.n - 3 };	/* all begin with "/v1" */
}

bool
serve_head(struct request *r, enum route route, size_t body_bytes, struct text *t)
{
	struct slice prefix = r->at.endpoint->prefix, lines = buf_slice(&r->at.endpoint->lines);

	if (!text_begin(t, &r->body_mem, head_room(r) + prefix.n + lines.n))
		return false;
	text_add(t, SLICE("POST "));
	text_add(t, prefix);
	text_add(t, path_of(r, route));
	text_add(t, r->query);
	text_add(t, lines);
	text_int(t, (int64_t)body_bytes);
	text_add(t, SLICE("\r\n"));
	add_client_headers(t, r);
	text_add(t, SLICE("\r\n"));
	CHECK(!t->overflow);
	return true;
}

bool
serve_build(struct request *r)
{
	size_t most = r->at.edits->count ? 2 * SPLICES_MAX + 2 : 2;
	struct slice *pieces = scratch_alloc(&r->body_mem, most * sizeof(*pieces));
	struct text head;

	if (!pieces || !serve_head(r, r->route, body_edited_bytes(r->at.scan, r->at.edits), &head))
		return false;
	pieces[0] = text_slice(&head);
	r->at.pieces = pieces;
	r->at.pieces_count = 1 + body_pieces(r->at.scan, r->at.edits, pieces + 1, most - 1);
	return true;
}
