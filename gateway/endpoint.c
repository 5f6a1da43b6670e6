/* gateway/endpoint.c -- see endpoint.h. */
#include "gateway/endpoint.h"

#include <stdio.h>

#define HOST_TEXT_BYTES (HOST_NAME_BYTES_MAX + 1)
#define LINES_BYTES_MAX 65536	/* a host, a credential */
#define LINES_SLACK 160		/* what stands between them */

static bool
allows_public(const struct sockaddr *address)
{
	return host_address_allowed(address, false);
}

static bool
allows_trusted(const struct sockaddr *address)
{
	return host_address_allowed(address, true);
}

/* Tokens of a subscription say by whose rule they go. */
static void
add_credential(struct buf *out, struct slice credential)
{
	buf_add_str(out, slice_starts(credential, SLICE("sk-ant-oat")) ? "authorization: Bearer " : "x-api-key: ");
	buf_add_slice(out, credential);
	buf_add_str(out, "\r\n");
}

static void
write_lines(struct buf *out, const struct target_at *at, struct slice credential)
{
	/* At once, as a buffer that grows leaves copies behind. */
	if (!buf_reserve(out, strlen(at->host) + credential.n + LINES_SLACK))
		return;
	buf_printf(out, strchr(at->host, ':') ? " HTTP/1.1\r\nhost: [%s]" : " HTTP/1.1\r\nhost: %s", at->host);
	if (at->port != (at->tls ? 443 : 80))
		buf_printf(out, ":%u", at->port);
	buf_add_str(out, "\r\n");
	if (credential.n)
		add_credential(out, credential);
	/* A compressed answer could not be metered, and event streams must not be. */
	buf_add_str(out, "accept-encoding: identity\r\ncontent-length: ");
}

bool
endpoint_open(struct endpoint *e, struct upstream *u, const struct setting_provider *p, struct slice credential,
    const struct host_url *host, char *why, size_t why_size)
{
	struct target_at at = { .host = p->host, .port = p->port, .tls = p->tls, .ca_pem = slice_of(p->ca_pem) };
	char name[HOST_TEXT_BYTES];

	*e = (struct endpoint){ .prefix = slice_of(p->path_prefix), .whole_paths = true };
	buf_init(&e->lines, LINES_BYTES_MAX);
	if (host) {
		CHECK(host->host.n < sizeof(name));
		snprintf(name, sizeof(name), "%.*s", SLICE_FMT(host->host));
		at = (struct target_at){
			.host = name, .port = host->port, .tls = host->tls, .allows = host->trusted ? allows_trusted : allows_public,
		};
		e->prefix = host->path;
		e->whole_paths = false;
	}
	write_lines(&e->lines, &at, credential.n ? credential : slice_of(p->api_key));
	if (e->lines.overflow) {
		snprintf(why, why_size, "out of memory");
		endpoint_close(e);
		return false;
	}
	e->target = upstream_target(u, &at, why, why_size);
	if (!e->target)
		endpoint_close(e);
	return e->target != NULL;
}

void
endpoint_close(struct endpoint *e)
{
	if (e->target)
		target_put(e->target);
	if (e->lines.n > 0)
		explicit_bzero(e->lines.p, e->lines.n);
	buf_free(&e->lines);
	e->target = NULL;
}
