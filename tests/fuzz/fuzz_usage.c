/*
 * tests/fuzz/fuzz_usage.c -- any bytes as a provider's answer.
 *
 * The first byte chooses the kind of answer and the pieces in which it comes.
 * What the tap sees must not depend on the pieces, nor on how lines end; an
 * answer that json_check() takes must be seen whole; no count may leave its
 * range.
 */
#include <string.h>

#include "policy/json.h"
#include "policy/usage.h"
#include "shm/base/buf.h"
#include "shm/base/check.h"
#include "tests/fuzz/target.h"

static void
check_tokens(const int64_t tokens[TOKENS_CLASSES])
{
	for (int c = 0; c < TOKENS_CLASSES; c++)
		CHECK(tokens[c] >= 0 && tokens[c] <= 2 * USAGE_TOKENS_MAX);
}

static struct usage_tap *
feed(enum usage_tap_kind kind, const char *p, size_t n, size_t piece)
{
	struct usage_tap *t = usage_tap_new(kind);
	uint64_t changes = 0;

	CHECK(t);
	for (size_t at = 0; at < n; at += piece) {
		usage_tap_feed(t, p + at, n - at < piece ? n - at : piece);
		CHECK(usage_tap_changes(t) >= changes);
		changes = usage_tap_changes(t);
	}
	return t;
}

static void
check_same(const struct usage_tap *a, const struct usage_tap *b)
{
	const struct usage *u = usage_tap_usage(a), *v = usage_tap_usage(b);
	struct slice s, t;

	CHECK(u->known == v->known && u->complete == v->complete && u->batch == v->batch && u->fast == v->fast);
	CHECK(u->geo_us == v->geo_us && u->unlisted == v->unlisted && u->iterations_count == v->iterations_count);
	CHECK(memcmp(u->tokens, v->tokens, sizeof(u->tokens)) == 0 && strcmp(u->model, v->model) == 0);
	check_tokens(u->tokens);
	CHECK(u->iterations_count <= USAGE_ITERATIONS_MAX);
	for (uint32_t i = 0; i < u->iterations_count; i++) {
		check_tokens(u->iterations[i].tokens);
		CHECK(strcmp(u->iterations[i].model, v->iterations[i].model) == 0);
	}
	CHECK(usage_tap_changes(a) == usage_tap_changes(b) && usage_tap_events(a) == usage_tap_events(b));
	CHECK(usage_tap_at_boundary(a) == usage_tap_at_boundary(b));
	CHECK(usage_tap_content_bytes(a) == usage_tap_content_bytes(b));
	CHECK(usage_tap_message_started(a) == usage_tap_message_started(b));
	CHECK(usage_tap_finished(a) == usage_tap_finished(b));
	CHECK(usage_tap_error(a, &s) == usage_tap_error(b, &t) && slice_eq(s, t));
}

/* A stream whose lines end with LF means the same with CRLF. */
static void
check_crlf(const struct usage_tap *lf, const char *p, size_t n)
{
	struct buf text;

	if (memchr(p, '\r', n))
		return;
	buf_init(&text, 2 * n + 1);
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n')
			buf_add_char(&text, '\r');
		buf_add_char(&text, p[i]);
	}
	struct usage_tap *crlf = feed(USAGE_SSE, text.p, text.n, 7);
	check_same(lf, crlf);
	usage_tap_free(crlf);
	buf_free(&text);
}

static void
check_answer(const struct usage_tap *t, const char *p, size_t n)
{
	struct slice text = { p, n }, usage;
	struct json_error why;
	struct json_iter it;

	if (!json_check(text, &why))
		return;
	while (strchr(" \t\r\n", *text.p)) {
		text.p++;
		text.n--;
	}
	if (*text.p != '{')
		return;
	CHECK(usage_tap_usage(t)->complete && usage_tap_finished(t));
	if (json_get(text, "usage", &usage) && json_iter_object(&it, usage))
		CHECK(usage_tap_usage(t)->known);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	enum usage_tap_kind kind = data[0] & 1 ? USAGE_JSON : USAGE_SSE;
	size_t piece = 1 + (data[0] >> 1) % 31;
	const char *p = (const char *)data + 1;
	struct usage_tap *whole = feed(kind, p, n - 1, n), *pieces = feed(kind, p, n - 1, piece);

	check_same(whole, pieces);
	if (kind == USAGE_SSE)
		check_crlf(whole, p, n - 1);
	else
		check_answer(whole, p, n - 1);
	usage_tap_end(whole);
	usage_tap_end(pieces);
	check_same(whole, pieces);
	usage_tap_free(whole);
	usage_tap_free(pieces);
	return 0;
}
