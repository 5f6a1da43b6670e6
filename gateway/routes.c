/*
 * gateway/routes.c -- see routes.h.
 *
 * A path is read as its segments; empty ones ("//", a slash at the end) do not
 * count. Nothing is decoded: "/v1/%6dessages" and "/v1/x/../messages" are
 * simply not in the table, so there is no spelling that weir and something in
 * front of it could understand differently.
 */
#include "gateway/routes.h"

#include "shm/limits.h"

#define SEGMENTS_MAX 16		/* prefix included; longer paths are not ours */

const struct route_row route_rows[ROUTE_COUNT] = {
#define TEXT(s) { s, sizeof(s) - 1 }
	[ROUTE_NONE] = { .name = TEXT("none"), .method = TEXT(""), .path = TEXT("") },
#define X(id, name, method, path, key, gate, provider) \
	[ROUTE_##id] = { TEXT(name), TEXT(method), TEXT(path), key, gate, provider },
	ROUTES(X)
#undef X
#undef TEXT
};
_Static_assert(ROUTE_COUNT <= ROUTES_MAX, "shm/limits.h: a row of counters a route");

struct segments {
	uint32_t count;
	struct slice at[SEGMENTS_MAX];
};

static bool
split(struct slice path, struct segments *out)
{
	out->count = 0;
	for (size_t i = 0; i < path.n; i++) {
		size_t start = i;

		while (i < path.n && path.p[i] != '/')
			i++;
		if (i == start)
			continue;
		if (out->count == SEGMENTS_MAX)
			return false;
		out->at[out->count++] = (struct slice){ path.p + start, i - start };
	}
	return true;
}

static void
drop_front(struct segments *s, uint32_t n)
{
	s->count -= n;
	memmove(s->at, s->at + n, s->count * sizeof(s->at[0]));
}

static bool
begins_with(const struct segments *s, const struct segments *front)
{
	if (s->count < front->count)
		return false;
	for (uint32_t i = 0; i < front->count; i++)
		if (!slice_eq(s->at[i], front->at[i]))
			return false;
	return true;
}

/* "/v1/v1/x" is "/v1/x"; "/x" too, where x is an endpoint of the API. */
static void
normalise_version(struct segments *s)
{
	if (s->count >= 2 && slice_eq(s->at[0], SLICE("v1")) && slice_eq(s->at[1], SLICE("v1"))) {
		drop_front(s, 1);
	} else if (s->count >= 1 && s->count < SEGMENTS_MAX &&
	    (slice_eq(s->at[0], SLICE("messages")) || slice_eq(s->at[0], SLICE("models")))) {
		memmove(s->at + 1, s->at, s->count * sizeof(s->at[0]));
		s->at[0] = SLICE("v1");
		s->count++;
	}
}

static bool
row_matches(const struct route_row *row, const struct segments *s, struct slice *id)
{
	struct segments pattern;

	if (!split(row->path, &pattern) || pattern.count != s->count)
		return false;
	*id = SLICE_NONE;
	for (uint32_t i = 0; i < s->count; i++) {
		if (slice_eq(pattern.at[i], SLICE("{id}"))) {
			if (slice_eq(s->at[i], SLICE(".")) || slice_eq(s->at[i], SLICE("..")))
				return false;
			*id = s->at[i];
		} else if (!slice_eq(pattern.at[i], s->at[i])) {
			return false;
		}
	}
	return true;
}

/* "http://host/path" is what a client sends to a proxy; it means "/path". */
static struct slice
without_authority(struct slice target)
{
	size_t scheme = slice_starts(target, SLICE("http://")) ? 7 : slice_starts(target, SLICE("https://")) ? 8 : 0;

	if (scheme == 0)
		return target;
	for (size_t i = scheme; i < target.n; i++)
		if (target.p[i] == '/' || target.p[i] == '?')
			return (struct slice){ target.p + i, target.n - i };
	return SLICE("/");
}

static enum route
find_row(struct slice path, struct slice prefix, struct slice *id)
{
	struct segments s, front;

	/* Nearly all requests, as the table has it: nothing to take apart. */
	if (prefix.n == 0 && slice_eq(path, route_rows[ROUTE_MESSAGES].path))
		return ROUTE_MESSAGES;
	if ((path.n > 0 && path.p[0] != '/') || !split(path, &s) || !split(prefix, &front))
		return ROUTE_NONE;
	if (begins_with(&s, &front))
		drop_front(&s, front.count);
	normalise_version(&s);
	for (enum route i = ROUTE_NONE + 1; i < ROUTE_COUNT; i++)
		if (row_matches(&route_rows[i], &s, id))
			return i;
	return ROUTE_NONE;
}

enum route_match
route_find(struct slice method, struct slice target, struct slice prefix,
    enum route *route, struct slice *path, struct slice *query, struct slice *id)
{
	bool get = slice_eq(method, SLICE("GET")) || slice_eq(method, SLICE("HEAD"));

	target = without_authority(target);
	const char *mark = memchr(target.p, '?', target.n);
	size_t n = mark ? (size_t)(mark - target.p) : target.n;
	*path = (struct slice){ target.p, n };
	*query = (struct slice){ target.p + n, target.n - n };
	*id = SLICE_NONE;
	*route = find_row(*path, prefix, id);
	if (*route == ROUTE_NONE) {
		*id = SLICE_NONE;
		return ROUTE_UNKNOWN;
	}

	const struct route_row *row = &route_rows[*route];
	if (!id->p)
		*path = row->path;
	bool allowed = slice_eq(row->method, SLICE("GET")) ? get : slice_eq(method, row->method);
	return allowed ? ROUTE_FOUND : ROUTE_METHOD;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
route_id_decode(struct slice id, char *out, size_t size, struct slice *decoded)
{
	size_t n = 0;

	for (size_t i = 0; i < id.n; i++) {
		int c = (unsigned char)id.p[i];

		if (c == '%') {
			if (id.n - i < 3 || hex_digit(id.p[i + 1]) < 0 || hex_digit(id.p[i + 2]) < 0)
				return false;
			c = hex_digit(id.p[i + 1]) << 4 | hex_digit(id.p[i + 2]);
			i += 2;
		}
		if (c < 0x20 || c == 0x7f || n == size)
			return false;
		out[n++] = (char)c;
	}
	*decoded = (struct slice){ out, n };
	return true;
}
