/*
 * The spellings of a path: those that clients use reach their endpoint, and no
 * trick reaches anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/routes.h"
#include "shm/base/check.h"

struct row {
	const char *method, *target, *prefix;
	enum route_match match;
	enum route route;
	const char *path, *query, *id;	/* path NULL: not looked at */
};

static const struct row rows[] = {
	/* As clients write them. */
	{ "POST", "/v1/messages", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "/v1/messages?beta=true", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "?beta=true", NULL },
	{ "POST", "/v1/messages/count_tokens?beta=true", "", ROUTE_FOUND, ROUTE_COUNT_TOKENS,
	    "/v1/messages/count_tokens", "?beta=true", NULL },
	{ "GET", "/v1/models?limit=1000", "", ROUTE_FOUND, ROUTE_MODELS, "/v1/models", "?limit=1000", NULL },
	{ "GET", "/v1/models/claude-opus-4-5", "", ROUTE_FOUND, ROUTE_MODEL, NULL, "", "claude-opus-4-5" },
	{ "GET", "/v1/models/%40anthropic%2Fclaude-x?a", "", ROUTE_FOUND, ROUTE_MODEL, NULL, "?a",
	    "%40anthropic%2Fclaude-x" },
	{ "GET", "/", "", ROUTE_FOUND, ROUTE_ROOT, "/", "", NULL },
	{ "HEAD", "/", "", ROUTE_FOUND, ROUTE_ROOT, "/", "", NULL },
	{ "HEAD", "/api/hello", "", ROUTE_FOUND, ROUTE_HELLO, "/api/hello", "", NULL },
	{ "GET", "/healthz", "", ROUTE_FOUND, ROUTE_HEALTHZ, "/healthz", "", NULL },
	{ "HEAD", "/readyz?x", "", ROUTE_FOUND, ROUTE_READYZ, "/readyz", "?x", NULL },
	{ "HEAD", "/v1/models", "", ROUTE_FOUND, ROUTE_MODELS, "/v1/models", "", NULL },

	/* Base URLs with /v1, without it, with a slash at the end. */
	{ "POST", "/v1/v1/messages?beta=true", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "?beta=true", NULL },
	{ "POST", "/v1/v1/messages/count_tokens", "", ROUTE_FOUND, ROUTE_COUNT_TOKENS, NULL, "", NULL },
	{ "GET", "/v1/v1/models/m", "", ROUTE_FOUND, ROUTE_MODEL, NULL, "", "m" },
	{ "POST", "/messages", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "/messages/count_tokens", "", ROUTE_FOUND, ROUTE_COUNT_TOKENS, "/v1/messages/count_tokens", "", NULL },
	{ "GET", "/models", "", ROUTE_FOUND, ROUTE_MODELS, "/v1/models", "", NULL },
	{ "GET", "/models/m", "", ROUTE_FOUND, ROUTE_MODEL, NULL, "", "m" },
	{ "POST", "//v1/messages", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "//v1//messages", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "/v1/messages/", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "/v1/messages/?a=/b//c?d", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "?a=/b//c?d", NULL },
	{ "GET", "/v1/models/", "", ROUTE_FOUND, ROUTE_MODELS, "/v1/models", "", NULL },
	{ "POST", "http://weir:8080/v1/messages?q", "", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "?q", NULL },
	{ "GET", "https://weir", "", ROUTE_FOUND, ROUTE_ROOT, "/", "", NULL },
	{ "GET", "http://weir?x", "", ROUTE_FOUND, ROUTE_ROOT, "/", "?x", NULL },

	/* The operator's prefix, there or already taken away. */
	{ "POST", "/weir/v1/messages", "/weir", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "POST", "/weir//v1/v1/messages?x", "/weir", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "?x", NULL },
	{ "POST", "/a/b/v1/messages", "/a/b", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "HEAD", "/weir", "/weir", ROUTE_FOUND, ROUTE_ROOT, "/", "", NULL },
	{ "GET", "/weir/", "/weir", ROUTE_FOUND, ROUTE_ROOT, "/", "", NULL },
	{ "POST", "/v1/messages", "/weir", ROUTE_FOUND, ROUTE_MESSAGES, "/v1/messages", "", NULL },
	{ "GET", "/healthz", "/weir", ROUTE_FOUND, ROUTE_HEALTHZ, "/healthz", "", NULL },
	{ "POST", "/weirx/v1/messages", "/weir", ROUTE_UNKNOWN, ROUTE_NONE, "/weirx/v1/messages", "", NULL },
	{ "POST", "/weir/weir/v1/messages", "/weir", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/a/v1/messages", "/a/b", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },

	/* The path exists, the method does not. */
	{ "GET", "/v1/messages", "", ROUTE_METHOD, ROUTE_MESSAGES, NULL, "", NULL },
	{ "HEAD", "/v1/messages", "", ROUTE_METHOD, ROUTE_MESSAGES, NULL, "", NULL },
	{ "POST", "/v1/models", "", ROUTE_METHOD, ROUTE_MODELS, NULL, "", NULL },
	{ "DELETE", "/v1/models/m", "", ROUTE_METHOD, ROUTE_MODEL, NULL, "", "m" },
	{ "post", "/v1/messages", "", ROUTE_METHOD, ROUTE_MESSAGES, NULL, "", NULL },
	{ "OPTIONS", "/", "", ROUTE_METHOD, ROUTE_ROOT, NULL, "", NULL },

	/* Nothing. */
	{ "POST", "/v1/v1/v1/messages", "", ROUTE_UNKNOWN, ROUTE_NONE, "/v1/v1/v1/messages", "", NULL },
	{ "POST", "/v2/messages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/messages/batches", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/v1", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/hello", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/v1/healthz", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/metrics", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/%6dessages", "", ROUTE_UNKNOWN, ROUTE_NONE, "/v1/%6dessages", "", NULL },
	{ "POST", "/v1%2Fmessages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/x/../messages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/./messages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/messages%2fcount_tokens", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/V1/messages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/messages;a=b", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "/v1/messages#x", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "POST", "\\v1\\messages", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/v1/models/..", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/v1/models/.", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/v1/models/a/b", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "OPTIONS", "*", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "CONNECT", "example.com:443", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
	{ "GET", "/models/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", "", ROUTE_UNKNOWN, ROUTE_NONE, NULL, "", NULL },
};

static void
test_spellings(void **state)
{
	(void)state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		enum route route = ROUTE_COUNT;
		struct slice path, query, id;
		enum route_match match = route_find(slice_of(r->method), slice_of(r->target), slice_of(r->prefix),
		    &route, &path, &query, &id);

		if (match != r->match || route != r->route || (r->path && !slice_eq(path, slice_of(r->path))) ||
		    !slice_eq(query, slice_of(r->query)) || !slice_eq(id, slice_of(r->id)))
			fail_msg("%s %s (prefix \"%s\"): match %d, route %d, path \"%.*s\", query \"%.*s\", id \"%.*s\"",
			    r->method, r->target, r->prefix, (int)match, (int)route, SLICE_FMT(path), SLICE_FMT(query),
			    (int)id.n, id.n ? id.p : "");
	}
}

static void
test_table(void **state)
{
	(void)state;

	for (enum route i = ROUTE_NONE; i < ROUTE_COUNT; i++) {
		const struct route_row *row = &route_rows[i];

		assert_true(row->name.n > 0);
		/* Whoever reaches a provider has shown a key and passed the gate. */
		if (row->reaches_provider)
			assert_true(row->needs_key && row->governed);
		if (i == ROUTE_NONE)
			continue;
		enum route found;
		struct slice path, query, id;
		assert_int_equal(route_find(row->method, row->path, SLICE(""), &found, &path, &query, &id),
		    ROUTE_FOUND);
		assert_int_equal(found, i);
	}
}

static void
test_id(void **state)
{
	(void)state;
	static const struct { const char *raw, *decoded; } ids[] = {
		{ "claude-opus-4-5", "claude-opus-4-5" },
		{ "%40anthropic%2Fclaude-x", "@anthropic/claude-x" },
		{ "@anthropic%2fclaude-x", "@anthropic/claude-x" },
		{ "a%5B1m%5D", "a[1m]" },
		{ "100%25", "100%" },
		{ "%C3%A4", "\xc3\xa4" },
		{ "a+b", "a+b" },
		{ "%", NULL }, { "%4", NULL }, { "%zz", NULL }, { "%2", NULL }, { "a%00b", NULL },
		{ "%0a", NULL }, { "%7f", NULL },
		{ "123456789012345678901234567890123", NULL },
	};
	char room[32];
	struct slice decoded;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		bool ok = route_id_decode(slice_of(ids[i].raw), room, sizeof(room), &decoded);

		assert_int_equal(ok, ids[i].decoded != NULL);
		if (ok)
			assert_true(slice_eq(decoded, slice_of(ids[i].decoded)));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spellings),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
