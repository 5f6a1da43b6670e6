/*
 * gateway/routes.h -- the endpoints, in one table.
 *
 * Each row says whether a key is needed and whether the request passes the
 * gate (admission, record). A route that reaches a provider without passing
 * the gate is a bug; a test walks this table.
 */
#ifndef WEIR_GATEWAY_ROUTES_H
#define WEIR_GATEWAY_ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/slice.h"

/* X(suffix, name, method, path, needs a key, governed, reaches a provider) */
#define ROUTES(X) \
	X(MESSAGES, "messages", "POST", "/v1/messages", true, true, true) \
	X(COUNT_TOKENS, "count_tokens", "POST", "/v1/messages/count_tokens", true, true, true) \
	X(MODELS, "models", "GET", "/v1/models", true, false, false) \
	X(MODEL, "model", "GET", "/v1/models/{id}", true, false, false) \
	X(ROOT, "root", "GET", "/", false, false, false) \
	X(HELLO, "hello", "GET", "/api/hello", false, false, false) \
	X(HEALTHZ, "healthz", "GET", "/healthz", false, false, false) \
	X(READYZ, "readyz", "GET", "/readyz", false, false, false)

enum route {
	ROUTE_NONE,		/* unknown path: 404 */
#define X(id, name, method, path, key, gate, provider) ROUTE_##id,
	ROUTES(X)
#undef X
	ROUTE_COUNT
};

struct route_row {
	struct slice name, method, path;	/* with a NUL behind them */
	bool needs_key, governed, reaches_provider;
};
extern const struct route_row route_rows[ROUTE_COUNT];

enum route_match { ROUTE_FOUND, ROUTE_UNKNOWN, ROUTE_METHOD };

enum route_match route_find(struct slice method, struct slice target, struct slice prefix,
    enum route *route, struct slice *path, struct slice *query, struct slice *id);
	/*
	 * `target` as on the request line. Takes the operator's prefix away (a
	 * path without it is fine too: a proxy may have removed it),
	 * collapses "//", reads "/v1/v1/x" and "/x" (messages, models) as
	 * "/v1/x", ignores one trailing slash, answers HEAD where GET is.
	 * `path` is then the row's own spelling; with an {id}, or unknown, the
	 * client's. `query` includes its "?"; `id` is the last segment of
	 * /v1/models/{id} as it stands: see route_id_decode().
	 * ROUTE_METHOD: the path exists (`route` says which), the method does
	 * not (405).
	 */

bool route_id_decode(struct slice id, char *out, size_t size, struct slice *decoded);
	/* Takes the percent-encoding off; `decoded` lies in `out`. false: a bad
	 * escape, a control character, or it does not fit. An encoded slash
	 * is part of the id: it has never been a separator. */

#endif
