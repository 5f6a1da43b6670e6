/*
 * The usage tap: what it reads, whatever the pieces it is fed in.
 *
 * Each stream is fed whole, cut in two at every byte, and byte by byte; the
 * results must be identical, and so must the boundaries at which a ping may
 * be inserted, which a second, simple reader of the text recomputes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>
#include <cmocka.h>

#include "policy/usage.h"
#include "shm/limits.h"

#define EVENT(name, data) "event: " name "\ndata: " data "\n\n"
#define TEXT_DELTA(text) EVENT("content_block_delta", "{\"type\":\"content_block_delta\",\"index\":0," \
	"\"delta\":{\"type\":\"text_delta\",\"text\":\"" text "\"}}")
#define MESSAGE_START EVENT("message_start", "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_01\"," \
	"\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\",\"content\":[]," \
	"\"stop_reason\":null,\"usage\":{\"input_tokens\":1000,\"cache_creation_input_tokens\":2500," \
	"\"cache_read_input_tokens\":10000,\"cache_creation\":{\"ephemeral_5m_input_tokens\":2000," \
	"\"ephemeral_1h_input_tokens\":500},\"output_tokens\":3,\"service_tier\":\"standard\"," \
	"\"inference_geo\":\"us\",\"speed\":\"fast\"}}}")
#define MESSAGE_DELTA(usage) EVENT("message_delta", "{\"type\":\"message_delta\"," \
	"\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":" usage "}")
#define MESSAGE_STOP EVENT("message_stop", "{\"type\":\"message_stop\"}")

static const char stream[] =
	MESSAGE_START
	EVENT("content_block_start", "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}")
	": a comment\n"
	EVENT("ping", "{\"type\":\"ping\"}")
	TEXT_DELTA("Hello") TEXT_DELTA(" \\\"usage\\\":{\\\"output_tokens\\\":99}\\n\\n")
	EVENT("content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}")
	EVENT("never_seen", "{\"usage\":{\"output_tokens\":77}}")
	MESSAGE_DELTA("{\"output_tokens\":800,\"input_tokens\":null,\"server_tool_use\":{\"web_search_requests\":2}}")
	MESSAGE_STOP;

struct seen {
	struct usage usage;
	uint64_t changes, events, content_bytes;
	bool started, finished, error;
	char error_type[64];
};

static struct seen
look(struct usage_tap *t)
{
	struct seen s = { .changes = usage_tap_changes(t), .events = usage_tap_events(t),
		.content_bytes = usage_tap_content_bytes(t), .started = usage_tap_message_started(t),
		.finished = usage_tap_finished(t) };
	struct slice type;

	const struct usage *u = usage_tap_usage(t);
	memcpy(&s.usage, u, offsetof(struct usage, iterations) + u->iterations_count * sizeof(u->iterations[0]));
	s.error = usage_tap_error(t, &type);
	snprintf(s.error_type, sizeof(s.error_type), "%.*s", SLICE_FMT(type));
	return s;
}

/* Fed in pieces of `piece` bytes, the first of `first` (0: as the others). */
static struct seen
fed(enum usage_tap_kind kind, const char *text, size_t n, size_t first, size_t piece)
{
	struct usage_tap *t = usage_tap_new(kind);

	for (size_t at = 0; at < n;) {
		size_t k = at == 0 && first ? first : piece;

		if (k > n - at)
			k = n - at;
		/* A copy of its own: reading past a piece is an error. */
		char *copy = test_malloc(k);
		memcpy(copy, text + at, k);
		usage_tap_feed(t, copy, k);
		test_free(copy);
		at += k;
	}
	usage_tap_end(t);
	struct seen s = look(t);
	usage_tap_free(t);
	return s;
}

static bool
same(const struct seen *a, const struct seen *b)
{
	return memcmp(&a->usage, &b->usage, offsetof(struct usage, iterations)) == 0 &&
	    memcmp(a->usage.iterations, b->usage.iterations,
	    a->usage.iterations_count * sizeof(a->usage.iterations[0])) == 0 &&
	    a->changes == b->changes && a->events == b->events && a->content_bytes == b->content_bytes &&
	    a->started == b->started && a->finished == b->finished && a->error == b->error &&
	    strcmp(a->error_type, b->error_type) == 0;
}

/* Whole, and the same for every cut. */
static struct seen
fed_every_way(enum usage_tap_kind kind, const char *text)
{
	size_t n = strlen(text);
	struct seen whole = fed(kind, text, n, 0, n);

	for (size_t cut = 1; cut <= n; cut++) {
		struct seen other = fed(kind, text, n, cut, n);
		if (!same(&whole, &other))
			fail_msg("cut at byte %zu changes what is seen", cut);
	}
	for (size_t piece = 1; piece < 8; piece++) {
		struct seen other = fed(kind, text, n, 0, piece);
		if (!same(&whole, &other))
			fail_msg("pieces of %zu bytes change what is seen", piece);
	}
	return whole;
}

static void
check_stream(const struct seen *s)
{
	static const int64_t tokens[TOKENS_CLASSES] = { [TOKENS_INPUT] = 1000, [TOKENS_OUTPUT] = 800,
		[TOKENS_CACHE_WRITE_5M] = 2000, [TOKENS_CACHE_WRITE_1H] = 500, [TOKENS_CACHE_READ] = 10000,
		[TOKENS_WEB_SEARCHES] = 2 };

	assert_memory_equal(s->usage.tokens, tokens, sizeof(tokens));
	assert_string_equal(s->usage.model, "claude-sonnet-5-5");
	assert_true(s->usage.known && s->usage.complete && s->usage.fast && s->usage.geo_us && !s->usage.batch);
	assert_true(s->started && s->finished && !s->error);
	assert_int_equal(s->changes, 2);
	assert_int_equal(s->events, 9);
	assert_int_equal(s->content_bytes, strlen("Hello") + strlen(" \\\"usage\\\":{\\\"output_tokens\\\":99}\\n\\n"));
}

static void
a_stream_is_metered_in_any_pieces(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, stream);

	(void)state;
	check_stream(&s);
}

/* The stream with other line ends, a byte order mark, spread data lines. */
static void
line_ends_do_not_matter(void **state)
{
	static const char *const ends[] = { "\r\n", "\r", "\n" };
	struct buf text;

	(void)state;
	buf_init(&text, 4 * sizeof(stream));
	for (int variant = 0; variant < 6; variant++) {
		buf_clear(&text);
		buf_add_str(&text, variant >= 3 ? "\xef\xbb\xbf" : "");
		for (const char *p = stream; *p; p++) {
			if (*p == '\n')
				buf_add_str(&text, ends[variant % 3]);
			else
				buf_add_char(&text, *p);
		}
		buf_add_char(&text, '\0');
		struct seen s = fed_every_way(USAGE_SSE, text.p);
		check_stream(&s);
	}
	buf_free(&text);
}

static void
events_come_in_odd_forms(void **state)
{
	(void)state;
	/* Known by data.type; data before the event line; several data lines;
	 * no space behind the colon; unknown fields; an end without blank line. */
	struct seen s = fed_every_way(USAGE_SSE,
	    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":5}}}\n\n"
	    "data:{\"type\":\"message_delta\",\n"
	    "id: 7\nretry\n:\n"
	    "data:\"usage\":\ndata\ndata: {\"output_tokens\":6}}\n"
	    "event:message_delta\n\n"
	    "\n\n"
	    "data: {\"type\":\"content_block_delta\",\"delta\":{}}\n\n"
	    "event: message_stop\ndata: {}");
	assert_true(s.usage.tokens[TOKENS_INPUT] == 5 && s.usage.tokens[TOKENS_OUTPUT] == 6);
	assert_string_equal(s.usage.model, "m");
	assert_true(s.started && s.finished && s.usage.complete);
	assert_int_equal(s.events, 4);

	/* A mark that is none makes the first line an unknown field. */
	s = fed_every_way(USAGE_SSE, "\xef\xbb" "event: message_stop\ndata: {}\n\n");
	assert_true(!s.finished && s.events == 1);
	/* A field's name has to be whole. */
	s = fed_every_way(USAGE_SSE, "xevent: message_stop\n\nevents: message_stop\n\n event: message_stop\n\n"
	    "event : message_stop\n\nEVENT: message_stop\n\nevent: message_stopp\ndata: {}\n\n"
	    "event: message_stop_and_a_very_long_name_that_goes_on\ndata: {}\n\n");
	assert_false(s.finished);
	/* What follows "event: " is the name, white space and all. */
	s = fed_every_way(USAGE_SSE, "event:  message_stop\ndata: {}\n\n");
	assert_false(s.finished);
	/* A later event line names the event; data passed before is gone. */
	s = fed_every_way(USAGE_SSE, "event: ping\ndata: {\"usage\":{\"output_tokens\":5}}\nevent: message_delta\n\n");
	assert_false(s.usage.known);
}

static void
broken_events_change_nothing(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, MESSAGE_START
	    EVENT("message_delta", "{\"usage\":{\"output_tokens\":5")
	    EVENT("message_delta", "") EVENT("message_delta", "null") EVENT("message_delta", "{\"usage\":7}")
	    EVENT("message_delta", "{\"usage\":{\"output_tokens\":\"12\",\"input_tokens\":-4,\"iterations\":7}}")
	    EVENT("message_start", "[]") EVENT("error", "{}"));

	(void)state;
	assert_int_equal(s.usage.tokens[TOKENS_OUTPUT], 3);
	assert_int_equal(s.usage.tokens[TOKENS_INPUT], 1000);
	assert_true(s.error && s.finished && !s.usage.complete);
	assert_string_equal(s.error_type, "");
}

static void
values_are_overwritten_never_added(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, MESSAGE_START
	    MESSAGE_DELTA("{\"output_tokens\":10}") MESSAGE_DELTA("{\"output_tokens\":20,\"input_tokens\":1200}")
	    MESSAGE_DELTA("{\"output_tokens\":20}") MESSAGE_DELTA("{\"output_tokens\":null}"));

	(void)state;
	assert_int_equal(s.usage.tokens[TOKENS_OUTPUT], 20);
	assert_int_equal(s.usage.tokens[TOKENS_INPUT], 1200);
	assert_int_equal(s.changes, 3);
	/* No message_stop, but a stop_reason and a clean end. */
	assert_true(s.usage.complete && !s.finished);
	s = fed_every_way(USAGE_SSE, MESSAGE_START TEXT_DELTA("cut"));
	assert_true(s.usage.known && !s.usage.complete);
	assert_int_equal(s.content_bytes, 3);
	s = fed_every_way(USAGE_SSE, MESSAGE_START EVENT("message_delta", "{\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":9}}"));
	assert_true(s.usage.tokens[TOKENS_OUTPUT] == 9 && !s.usage.complete);
}

static void
cache_writes_are_split(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, MESSAGE_START
	    MESSAGE_DELTA("{\"output_tokens\":1,\"cache_creation_input_tokens\":4000}"));

	(void)state;
	/* The sum grew after the split: the rest counts as 5 minutes. */
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_1H], 500);
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_5M], 3500);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"cache_creation_input_tokens\":40,\"cache_creation\":null}}");
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_5M], 40);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"cache_creation\":{\"ephemeral_1h_input_tokens\":7,\"ephemeral_5m_input_tokens\":3}}}");
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_1H], 7);
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_5M], 3);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"cache_creation_input_tokens\":5,\"cache_creation\":{\"ephemeral_1h_input_tokens\":7}}}");
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_1H], 5);
	assert_int_equal(s.usage.tokens[TOKENS_CACHE_WRITE_5M], 0);
}

static void
iterations_are_read(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, MESSAGE_START MESSAGE_DELTA("{\"output_tokens\":9,\"iterations\":["
	    "{\"type\":\"compaction\",\"input_tokens\":100,\"output_tokens\":20,\"model\":null},"
	    "{\"type\":\"advisor_message\",\"model\":\"claude-opus-5-5\",\"input_tokens\":7,\"output_tokens\":8,"
	    "\"cache_read_input_tokens\":3,\"cache_creation_input_tokens\":4,\"cache_creation\":{\"ephemeral_1h_input_tokens\":1}}"
	    "]}"));
	const struct usage_part *part = s.usage.iterations;

	(void)state;
	assert_int_equal(s.usage.iterations_count, 2);
	assert_string_equal(part[0].model, "");
	assert_true(part[0].tokens[TOKENS_INPUT] == 100 && part[0].tokens[TOKENS_OUTPUT] == 20);
	assert_string_equal(part[1].model, "claude-opus-5-5");
	assert_true(part[1].tokens[TOKENS_CACHE_READ] == 3 && part[1].tokens[TOKENS_CACHE_WRITE_1H] == 1 &&
	    part[1].tokens[TOKENS_CACHE_WRITE_5M] == 3);
	assert_int_equal(s.usage.tokens[TOKENS_OUTPUT], 9);

	struct buf text;
	buf_init(&text, 8192);
	buf_add_str(&text, "{\"usage\":{\"iterations\":[{\"input_tokens\":1}");
	for (int i = 0; i < USAGE_ITERATIONS_MAX; i++)
		buf_add_str(&text, ",{\"input_tokens\":2}");
	buf_add_str(&text, "]}}");
	s = fed(USAGE_JSON, text.p, text.n, 0, 100);
	buf_free(&text);
	assert_true(s.usage.iterations_count == USAGE_ITERATIONS_MAX && s.usage.iterations_overflow);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"iterations\":[]}}");
	assert_int_equal(s.usage.iterations_count, 0);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"iterations\":null}}");
	assert_int_equal(s.usage.iterations_count, 0);
}

static void
plain_answers_are_metered(void **state)
{
	struct seen s = fed_every_way(USAGE_JSON,
	    " {\"id\":\"msg_01\",\"type\":\"message\",\"model\":\"claude-haiku-5-5\",\"content\":[{\"type\":\"text\","
	    "\"text\":\"\\\"usage\\\": {\\\\\",\"usage\":{\"output_tokens\":1}}],\"stop_reason\":\"end_turn\","
	    "\"a_name_that_is_longer_than_any_that_is_asked_for\":{\"usage\":{}},\"us\\u0061ge\" : {\"input_tokens\":12,"
	    "\"output_tokens\":5,\"service_tier\":\"batch\"},\"x\":-1.5e3} \n");

	(void)state;
	assert_true(s.usage.known && s.usage.complete && s.finished && s.usage.batch && !s.error);
	assert_true(s.usage.tokens[TOKENS_INPUT] == 12 && s.usage.tokens[TOKENS_OUTPUT] == 5);
	assert_string_equal(s.usage.model, "claude-haiku-5-5");
	/* Cut short: what came counts, and it is not whole. */
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":12},\"content\":[");
	assert_true(s.usage.known && !s.usage.complete && !s.finished);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":12");
	assert_true(!s.usage.known);
	static const char *const rubbish[] = { "<html>", "", "[{\"usage\":{\"input_tokens\":1}}]", "\"usage\"", "{1:2}",
		"{\"a\"}", "{]", "{\"a\":1 2}", "{}{\"usage\":{\"input_tokens\":1}}", "\xff\xfe", "{\"usage\":}" };
	for (size_t i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
		s = fed_every_way(USAGE_JSON, rubbish[i]);
		if (s.usage.known)
			fail_msg("usage in %s", rubbish[i]);
	}
}

static void
errors_are_seen(void **state)
{
	struct seen s = fed_every_way(USAGE_SSE, MESSAGE_START EVENT("error",
	    "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}"));

	(void)state;
	assert_true(s.error && s.finished && s.usage.known && !s.usage.complete);
	assert_string_equal(s.error_type, "overloaded_error");
	s = fed_every_way(USAGE_SSE, "data: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n\n");
	assert_true(s.error);
	s = fed_every_way(USAGE_JSON, "{\"error\":{\"message\":\"m\",\"type\":\"rate_limit_error\"},\"type\":\"error\"}");
	assert_true(s.error && s.finished);
	assert_string_equal(s.error_type, "rate_limit_error");
	s = fed_every_way(USAGE_JSON, "{\"type\":\"message\",\"error\":null}");
	assert_false(s.error);
}

static void
absurd_counts_cannot_overflow(void **state)
{
	struct seen s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":9223372036854775807,"
	    "\"output_tokens\":99999999999999999999,\"cache_read_input_tokens\":1e300,"
	    "\"cache_creation\":{\"ephemeral_5m_input_tokens\":9223372036854775807,\"ephemeral_1h_input_tokens\":9223372036854775807}}}");

	(void)state;
	assert_true(s.usage.tokens[TOKENS_INPUT] == USAGE_TOKENS_MAX && s.usage.tokens[TOKENS_OUTPUT] == 0);
	assert_true(s.usage.tokens[TOKENS_CACHE_WRITE_1H] == USAGE_TOKENS_MAX);
}

static void
contracts_mark_the_cost(void **state)
{
	struct seen s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":1,\"service_tier\":\"priority\"}}");

	(void)state;
	assert_true(s.usage.unlisted && !s.usage.batch);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":1,\"fallback_credit\":{\"status\":{\"type\":\"redeemed\"}}}}");
	assert_true(s.usage.unlisted);
	s = fed_every_way(USAGE_JSON, "{\"usage\":{\"input_tokens\":1,\"fallback_credit\":null,\"speed\":\"standard\"}}");
	assert_true(!s.usage.unlisted && !s.usage.fast);
}

/* Boundaries, recomputed: a position is one if no event is half written. A CR
 * may be half of a CRLF unless the line before ended with a CR alone. */
static bool
is_boundary(const char *text, size_t n)
{
	bool open = false, lone = false;
	size_t at = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0, start = at;

	if (at == 0 && n > 0 && n < 3 && memcmp(text, "\xef\xbb\xbf", n) == 0)
		return false;
	while (at < n) {
		if (text[at] != '\n' && text[at] != '\r') {
			at++;
			continue;
		}
		bool cr = text[at] == '\r', crlf = cr && at + 1 < n && text[at + 1] == '\n';
		if (at > start)
			open |= text[start] != ':';
		else
			open = false;
		if (cr && !crlf && at + 1 == n)
			return !open && lone;
		lone = cr && !crlf;
		at += crlf ? 2 : 1;
		start = at;
	}
	return start == n && !open;
}

static void
boundaries_are_exact(void **state)
{
	static const char *const texts[] = {
		stream, "\n\n", "event: ping\r\ndata: {}\r\n\r\n: c\r\n\r\nevent: x\r\n\r\n",
		"event: ping\rdata: {}\r\r: c\revent: x\r\rdata: y", "\xef\xbb\xbf" "data: 1\n\ndata: 2\n\n",
		"\xef\xbb" "data: 1\n\n", "data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\n\n", "\r\r\n\n\r", "id: 7\n\n: x\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct usage_tap *t = usage_tap_new(USAGE_SSE);
		size_t n = strlen(texts[i]);

		assert_true(usage_tap_at_boundary(t));
		for (size_t at = 1; at <= n; at++) {
			usage_tap_feed(t, texts[i] + at - 1, 1);
			struct usage_tap *whole = usage_tap_new(USAGE_SSE);
			usage_tap_feed(whole, texts[i], at);
			bool expected = is_boundary(texts[i], at);
			if (usage_tap_at_boundary(t) != expected || usage_tap_at_boundary(whole) != expected)
				fail_msg("text %zu at %zu: %d, %d, expected %d", i, at, usage_tap_at_boundary(t),
				    usage_tap_at_boundary(whole), expected);
			usage_tap_free(whole);
		}
		usage_tap_free(t);
	}
}

static void
endless_lines_cost_no_memory(void **state)
{
	static const char *const starts[] = { "data: ", "event: message_delta\ndata: ", "event: ping\ndata: ",
		"event: ", ":", "x", "{\"content\":\"", "{\"usage\":{\"a\":\"", "{\"", "{\"usage\":1" };
	static char mega[1 << 20];
	struct usage_tap *t;

	(void)state;
	memset(mega, '1', sizeof(mega));
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		t = usage_tap_new(starts[i][0] == '{' ? USAGE_JSON : USAGE_SSE);
		usage_tap_feed(t, starts[i], strlen(starts[i]));
		size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
		for (int k = 0; k < 100; k++)
			usage_tap_feed(t, mega, sizeof(mega));
		size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
		assert_true(after <= before + SSE_EVENT_BYTES_MAX);
		usage_tap_free(t);
	}
	/* An event that is too long is as if it had not come; the next one counts. */
	t = usage_tap_new(USAGE_SSE);
	usage_tap_feed(t, "event: message_start\ndata: ", 27);
	usage_tap_feed(t, mega, sizeof(mega));
	usage_tap_feed(t, "1\n\n", 3);
	assert_true(!usage_tap_message_started(t) && usage_tap_at_boundary(t) && usage_tap_events(t) == 1);
	usage_tap_feed(t, stream, sizeof(stream) - 1);
	assert_true(usage_tap_usage(t)->complete && usage_tap_usage(t)->tokens[TOKENS_OUTPUT] == 800);
	usage_tap_free(t);
}

/* Until then another answer may take this one's place. */
static void
content_begins_with_the_first_block(void **state)
{
	static const struct { const char *event; bool begun; } rows[] = {
		{ "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n", false },
		{ "event: ping\ndata: {\"type\":\"ping\"}\n\n", false },
		{ "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n", false },
		{ "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0}\n\n", true },
		{ "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0}\n\n", true },
		{ "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"}}\n\n", true },
		{ "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true },
		{ "data: {\"type\":\"content_block_start\",\"index\":0}\n\n", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct usage_tap *t = usage_tap_new(USAGE_SSE);

		usage_tap_feed(t, rows[i].event, strlen(rows[i].event) - 1);
		assert_false(usage_tap_content_begun(t));
		usage_tap_feed(t, "\n", 1);
		if (usage_tap_content_begun(t) != rows[i].begun)
			fail_msg("%s", rows[i].event);
		usage_tap_free(t);
	}
}

static void
taps_are_pooled(void **state)
{
	struct usage_tap *taps[300];

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 300; i++) {
			taps[i] = usage_tap_new(i % 2 ? USAGE_SSE : USAGE_JSON);
			const struct usage *u = usage_tap_usage(taps[i]);
			assert_true(!u->known && !u->complete && u->iterations_count == 0 && u->model[0] == '\0');
			assert_true(usage_tap_changes(taps[i]) == 0 && usage_tap_events(taps[i]) == 0);
			if (i % 2)
				usage_tap_feed(taps[i], stream, sizeof(stream) - 1 - (size_t)i);
			else
				usage_tap_feed(taps[i], "{\"usage\":{\"input_tokens\":3},\"mod", 30);
		}
		for (int i = 0; i < 300; i++)
			usage_tap_free(taps[i]);
	}
	usage_tap_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_is_metered_in_any_pieces),
		cmocka_unit_test(line_ends_do_not_matter),
		cmocka_unit_test(events_come_in_odd_forms),
		cmocka_unit_test(broken_events_change_nothing),
		cmocka_unit_test(values_are_overwritten_never_added),
		cmocka_unit_test(cache_writes_are_split),
		cmocka_unit_test(iterations_are_read),
		cmocka_unit_test(plain_answers_are_metered),
		cmocka_unit_test(errors_are_seen),
		cmocka_unit_test(absurd_counts_cannot_overflow),
		cmocka_unit_test(contracts_mark_the_cost),
		cmocka_unit_test(boundaries_are_exact),
		cmocka_unit_test(endless_lines_cost_no_memory),
		cmocka_unit_test(content_begins_with_the_first_block),
		cmocka_unit_test(taps_are_pooled),
	};

	return cmocka_run_group_tests_name("usage", tests, NULL, NULL);
}
