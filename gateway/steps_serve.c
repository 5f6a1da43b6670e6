/*
 * gateway/steps_serve.c -- the provider's request: a new head, the client's body.
 *
 * What the client says about the Anthropic API goes on untouched (every
 * anthropic-* line, as it came); what is between the client and weir
 * (credentials, x-portkey-*, hop-by-hop) never leaves.
 */
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"

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

static void
add_client_headers(struct text *t, const struct request *r)
{
	bool version = false, type = false, has_1m = false;

	for (uint32_t i = 0; i < r->head.headers_count; i++) {
		const struct http1_header *h = &r->head.headers[i];

		if (!header_passes(h->name) || http1_connection_names(&r->head, h->name))
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
	if (r->beta_1m && !has_1m)
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

/* From behind the target up to the body's length. */
void
serve_head_lines(const struct setting_provider *p, struct buf *out)
{
	/* At once, as a buffer that grows leaves copies behind. */
	if (!buf_reserve(out, strlen(p->host) + (p->api_key ? strlen(p->api_key) : 0) + HEAD_SLACK))
		return;
	buf_printf(out, " HTTP/1.1\r\nhost: %s", p->host);
	if (p->port != (p->tls ? 443 : 80))
		buf_printf(out, ":%u", p->port);
	buf_add_str(out, "\r\n");
	if (p->api_key) {
		buf_add_str(out, "x-api-key: ");
		buf_add_str(out, p->api_key);
		buf_add_str(out, "\r\n");
	}
	/* A compressed answer could not be metered, and event streams must not be. */
	buf_add_str(out, "accept-encoding: identity\r\ncontent-length: ");
}

bool
serve_head(struct request *r, enum route route, size_t body_bytes, struct text *t)
{
	struct slice prefix = slice_of(r->provider->path_prefix);
	struct slice lines = buf_slice(&r->plane->heads[r->provider - r->plane->settings->providers]);

	if (!text_begin(t, &r->body_mem, head_room(r) + prefix.n + lines.n))
		return false;
	text_add(t, SLICE("POST "));
	text_add(t, prefix);
	text_add(t, route_rows[route].path);
	text_add(t, r->query);
	text_add(t, lines);
	text_int(t, (int64_t)body_bytes);
	text_add(t, SLICE("\r\n"));
	add_client_headers(t, r);
	text_add(t, SLICE("\r\n"));
	CHECK(!t->overflow);
	return true;
}

void
step_send(struct request *r)
{
	static const struct refusal_words no_memory = {
		.status = 503, .type = "overloaded_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	const struct settings *s = r->plane->settings;
	struct target *target = r->plane->targets[r->provider - s->providers];
	size_t most = 2 * SPLICES_MAX + 2;
	struct slice *pieces = scratch_alloc(&r->body_mem, (r->edits->count ? most : 2) * sizeof(*pieces));
	struct text head;

	if (!pieces || !serve_head(r, r->route, body_edited_bytes(r->scan, r->edits), &head)) {
		request_refuse(r, &no_memory, "out of memory");
		return;
	}
	pieces[0] = text_slice(&head);
	size_t count = 1 + body_pieces(r->scan, r->edits, pieces + 1, r->edits->count ? most - 1 : 1);

	struct exchange_request request = {
		.pieces = pieces, .pieces_count = count, .mem = &r->mem, .connect_ms = s->limit.connect_ms,
		.first_byte_ms = r->first_byte_ms, .idle_ms = s->limit.stream_idle_ms,
	};
	if (r->stream)
		timepoint_touch(&r->worker->quiet, &r->quiet, worker_now_ms(r->worker));
	relay_start(r, target, &request);
}
