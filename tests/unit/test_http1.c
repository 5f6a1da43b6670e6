/*
 * HTTP/1.1 messages: whatever way the network cuts them, the same comes out;
 * and what two parsers could read in two ways is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "upstream/wire/http1.h"

#define HEAD_MAX 4096

/* What came out of a connection's bytes, as one text to compare. */
struct reading {
	struct http1 http;
	struct scratch mem;
	struct buf log;
	bool head_request;
	bool ended;	/* by an error, or as asked */
	unsigned messages;
};

static void
reading_init(struct reading *r, bool response, bool head_request)
{
	*r = (struct reading){ .head_request = head_request };
	scratch_init(&r->mem, 1u << 20);
	buf_init(&r->log, 1u << 20);
	http1_init(&r->http, response, HEAD_MAX);
	http1_begin(&r->http, &r->mem, head_request);
}

static void
reading_free(struct reading *r)
{
	http1_free(&r->http);
	scratch_reset(&r->mem);
	buf_free(&r->log);
}

static void
log_head(struct reading *r)
{
	const struct http1_head *head = &r->http.head;

	if (r->http.response)
		buf_printf(&r->log, "<%d", head->status);
	else
		buf_printf(&r->log, "<%.*s %.*s", SLICE_FMT(head->method), SLICE_FMT(head->target));
	buf_printf(&r->log, " 1.%d cl=%lld%s%s%s%s", head->minor, (long long)head->content_length,
	    head->chunked ? " chunked" : "", head->keep_alive ? " keep" : "", head->expect_continue ? " expect" : "",
	    head->upgrade ? " upgrade" : "");
	for (uint32_t i = 0; i < head->headers_count; i++)
		buf_printf(&r->log, "|%.*s=%.*s", SLICE_FMT(head->headers[i].name), SLICE_FMT(head->headers[i].value));
	buf_add_str(&r->log, ">[");
}

/* All events of one piece of input; true while the connection can go on. */
static void
reading_feed(struct reading *r, struct slice in)
{
	char *copy = malloc(in.n + 1);	/* exactly as long, so that ASan sees a step too far */
	struct slice rest = { copy, in.n };

	memcpy(copy, in.p, in.n);
	while (!r->ended) {
		switch (http1_feed(&r->http, &rest)) {
		case HTTP1_HEAD:
			log_head(r);
			continue;
		case HTTP1_BODY:
			assert_true(r->http.span.n > 0);
			assert_true(r->http.span.p >= copy && r->http.span.p + r->http.span.n <= copy + in.n);
			buf_add_slice(&r->log, r->http.span);
			continue;
		case HTTP1_DONE:
			buf_add_str(&r->log, "]");
			r->messages++;
			http1_begin(&r->http, &r->mem, r->head_request);
			if (rest.n > 0)
				continue;
			break;
		case HTTP1_ERROR:
			assert_non_null(r->http.error);
			buf_printf(&r->log, "!%d", r->http.error_status);
			r->ended = true;
			break;
		case HTTP1_MORE:
			assert_int_equal(rest.n, 0);
			break;
		}
		break;
	}
	free(copy);
}

static void
reading_end(struct reading *r)
{
	if (r->ended)
		return;
	switch (http1_eof(&r->http)) {
	case HTTP1_DONE:
		buf_add_str(&r->log, "]eof");
		break;
	case HTTP1_MORE:
		buf_add_str(&r->log, ".");
		break;
	default:
		buf_add_str(&r->log, "!eof");
		break;
	}
}

static char *
text_of(struct reading *r)
{
	buf_add_char(&r->log, '\0');
	assert_false(r->log.overflow);
	return r->log.p;
}

static void
expect_cut(bool response, bool head_request, const char *input, size_t a, size_t b, const char *expected)
{
	struct slice all = slice_of(input);
	struct reading r;

	reading_init(&r, response, head_request);
	reading_feed(&r, (struct slice){ all.p, a });
	reading_feed(&r, (struct slice){ all.p + a, b - a });
	reading_feed(&r, (struct slice){ all.p + b, all.n - b });
	reading_end(&r);
	assert_string_equal(text_of(&r), expected);
	reading_free(&r);
}

/* Whole, byte by byte, cut in two at every offset and in three at many. */
static void
expect(bool response, bool head_request, const char *input, const char *expected)
{
	struct slice all = slice_of(input);
	struct reading r;

	for (size_t a = 0; a <= all.n; a++) {
		expect_cut(response, head_request, input, a, all.n, expected);
		for (size_t b = a; b <= all.n; b += 7)
			expect_cut(response, head_request, input, a, b, expected);
	}
	reading_init(&r, response, head_request);
	for (size_t i = 0; i < all.n; i++)
		reading_feed(&r, (struct slice){ all.p + i, 1 });
	reading_end(&r);
	/* One by one an error can come before the messages that are behind it. */
	assert_string_equal(text_of(&r), expected);
	reading_free(&r);
}

static void
requests(void **state)
{
	(void)state;
	expect(false, false,
	    "GET /v1/models?limit=5 HTTP/1.1\r\nHost: a.example:8080\r\nX-Api-Key:  k \t\r\nEmpty:\r\n\r\n",
	    "<GET /v1/models?limit=5 1.1 cl=-1 keep|host=a.example:8080|x-api-key=k|empty=>[].");
	expect(false, false, "POST /v1/messages HTTP/1.1\r\nhost: a\r\nCONTENT-Length: 5\r\n\r\nhello",
	    "<POST /v1/messages 1.1 cl=5 keep|host=a|content-length=5>[hello].");
	expect(false, false, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	    "<POST / 1.1 cl=0|host=a|content-length=0|connection=close>[].");
	expect(false, false, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n"
	    "5;name=value\r\nhello\r\nA;flag\r\n, world 12\r\n0\r\nTrailer: dropped\r\n\r\n",
	    "<POST / 1.1 cl=-1 chunked keep expect|host=a|transfer-encoding=Chunked|expect=100-Continue>"
	    "[hello, world 12].");
	expect(false, false, "GET / HTTP/1.0\r\n\r\n", "<GET / 1.0 cl=-1>[].");
	expect(false, false, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	    "<GET / 1.0 cl=-1 keep|connection=keep-alive>[].");
	expect(false, false, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
	    "<GET / 1.1 cl=-1|host=a|connection=keep-alive, close>[].");
}

static void
pipelined_requests(void **state)
{
	(void)state;
	expect(false, false, "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
	    "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
	    "\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
	    "GET /4 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
	    "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\nGET /6",
	    "<GET /1 1.1 cl=-1 keep|host=a>[]<POST /2 1.1 cl=3 keep|host=a|content-length=3>[abc]"
	    "<POST /3 1.1 cl=-1 chunked keep|host=a|transfer-encoding=chunked>[x]"
	    "<GET /4 1.1 cl=-1 keep upgrade|host=a|upgrade=h2c|connection=upgrade>[]"
	    "<CONNECT b:443 1.1 cl=-1 keep|host=b:443>[]<GET /5 1.1 cl=-1 keep|host=a>[]!eof");
}

static void
responses(void **state)
{
	(void)state;
	expect(true, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRequest-Id: req_1\r\n\r\n{}",
	    "<200 1.1 cl=2 keep|content-length=2|request-id=req_1>[{}].");
	expect(true, false, "HTTP/1.1 429\r\nContent-Length: 0\r\n\r\n", "<429 1.1 cl=0 keep|content-length=0>[].");
	expect(true, false, "HTTP/1.1 529 \r\nContent-Length: 0\r\n\r\n", "<529 1.1 cl=0 keep|content-length=0>[].");
	expect(true, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n1\r\n1\r\n0\r\n\r\n",
	    "<200 1.1 cl=-1 chunked keep|transfer-encoding=chunked>[data: 1].");
	expect(true, false, "HTTP/1.1 200 OK\r\nServer: x\r\n\r\nuntil the end",
	    "<200 1.1 cl=-1|server=x>[until the end]eof");
	expect(true, false, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "<200 1.0 cl=1|content-length=1>[x].");
	expect(true, false, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"
	    "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
	    "<100 1.1 cl=-1 keep>[]<103 1.1 cl=-1 keep|link=</a>>[]<204 1.1 cl=-1 keep>[]"
	    "<304 1.1 cl=9 keep|content-length=9>[].");
	expect(true, true, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nHTTP/1.1 200 OK\r\n"
	    "Transfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	    "<200 1.1 cl=900 keep|content-length=900>[]<200 1.1 cl=-1 chunked keep|transfer-encoding=chunked>[]"
	    "<200 1.1 cl=-1 keep>[].");
	expect(true, false, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
	    "<200 1.1 cl=10 keep|content-length=10>[half!eof");
	expect(true, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata",
	    "<200 1.1 cl=-1 chunked keep|transfer-encoding=chunked>[data!eof");
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

static const struct {
	const char *input;
	int status;
} refused[] = {
	/* framing */
	{ POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400 },
	{ POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400 },
	{ POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400 },
	{ POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400 },
	{ POST "Content-Length: 5, 5\r\n\r\nhello", 400 },
	{ POST "Content-Length: +5\r\n\r\nhello", 400 },
	{ POST "Content-Length: -5\r\n\r\nhello", 400 },
	{ POST "Content-Length: 0x5\r\n\r\nhello", 400 },
	{ POST "Content-Length: 5 5\r\n\r\nhello", 400 },
	{ POST "Content-Length:\r\n\r\nhello", 400 },
	{ POST "Content-Length: 18446744073709551616\r\n\r\n", 400 },
	{ POST "Content-Length: 9223372036854775808\r\n\r\n", 400 },
	{ POST "Transfer-Encoding: gzip\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: xchunked\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: chunked, gzip\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: identity\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501 },
	{ POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 501 },
	{ "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400 },
	/* lines */
	{ "GET / HTTP/1.1\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: a\n\r\n", 400 },
	{ GET "X: 1\n\n", 400 },
	{ GET "X: 1\rY: 2\r\n\r\n", 400 },
	{ GET "X: 1\r\r\n\r\n", 400 },
	{ GET "X: 1\r\n folded\r\n\r\n", 400 },
	{ GET "X: 1\r\n\tfolded\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400 },
	{ GET ": no name\r\n\r\n", 400 },
	{ GET "no colon\r\n\r\n", 400 },
	{ GET "Space : before\r\n\r\n", 400 },
	{ GET "Sp ace: inside\r\n\r\n", 400 },
	{ GET "Tab\t: before\r\n\r\n", 400 },
	{ GET "\x80: high\r\n\r\n", 400 },
	{ GET "X: \x01\r\n\r\n", 400 },
	/* the request line */
	{ "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400 },
	{ "GET /\r\nHost: a\r\n\r\n", 400 },
	{ "GET\r\n\r\n", 400 },
	{ "GET / http/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTP/1\r\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTPS/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	{ " / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	{ "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505 },
	{ "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505 },
	{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505 },
	{ "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505 },
	{ "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501 },
	{ "get / HTTP/1.1\r\nHost: a\r\n\r\n", 501 },
	/* Host */
	{ "GET / HTTP/1.1\r\nX: 1\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400 },
	{ "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400 },
};

static void
refused_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		char expected[16];

		snprintf(expected, sizeof(expected), "!%d", refused[i].status);
		for (size_t cut = 0; cut <= strlen(refused[i].input); cut++) {
			struct reading r;
			struct slice all = slice_of(refused[i].input);

			reading_init(&r, false, false);
			reading_feed(&r, (struct slice){ all.p, cut });
			reading_feed(&r, (struct slice){ all.p + cut, all.n - cut });
			if (strcmp(text_of(&r), expected) != 0)
				fail_msg("%s\ncut at %zu: %s instead of %s (%s)", refused[i].input, cut, r.log.p, expected,
				    r.http.error ? r.http.error : "no error");
			reading_free(&r);
		}
	}
}

/* What llhttp says of a target. It is always asked where the body is chunked,
 * and not about the plainest requests else: their answers must be the same. */
static void
targets_are_judged_alike(void **state)
{
	static const char *const around[][2] = { { "/", "" }, { "/a", "b" }, { "/?", "" }, { "/a?b", "c" }, { "", "" } };

	(void)state;
	for (size_t i = 0; i < sizeof(around) / sizeof(*around); i++)
		for (int c = 1; c < 256; c++) {
			const char *bodies[] = { "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" };
			struct reading r[2];

			for (int k = 0; k < 2; k++) {
				char input[128];

				snprintf(input, sizeof(input), "POST %s%c%s HTTP/1.1\r\nHost: a\r\n%s", around[i][0], c,
				    around[i][1], bodies[k]);
				reading_init(&r[k], false, false);
				reading_feed(&r[k], slice_of(input));
			}
			if (r[0].messages != r[1].messages || r[0].http.error_status != r[1].http.error_status)
				fail_msg("\"%s\", byte %d, \"%s\": %s and %s", around[i][0], c, around[i][1], text_of(&r[0]),
				    text_of(&r[1]));
			reading_free(&r[0]);
			reading_free(&r[1]);
		}
}

#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static void
refused_chunks(void **state)
{
	static const char *const cases[] = {
		"x\r\n", "\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n",
		"-5\r\nhello", "+5\r\nhello", "5\rhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n",
		"5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "10000000000000000\r\n", "fffffffffffffffff\r\n",
		"5;a\nhello\r\n0\r\n\r\n", "0\r\nbad name: x\r\n\r\n", "0\r\nX\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct slice head = SLICE(CHUNKED), all = slice_of(cases[i]);

		for (size_t cut = 0; cut <= all.n; cut++) {
			struct reading r;

			reading_init(&r, false, false);
			reading_feed(&r, head);
			reading_feed(&r, (struct slice){ all.p, cut });
			reading_feed(&r, (struct slice){ all.p + cut, all.n - cut });
			if (!r.ended || r.http.error_status != 400)
				fail_msg("chunk %s cut at %zu passes: %s", cases[i], cut, text_of(&r));
			reading_free(&r);
		}
	}
}

static void
refused_responses(void **state)
{
	static const char *const cases[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/2 200\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\nX: a\n\n", "SSH-2.0-OpenSSH_9.2\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct reading r;

		reading_init(&r, true, false);
		reading_feed(&r, slice_of(cases[i]));
		if (!r.ended)
			fail_msg("passes: %s", cases[i]);
		reading_free(&r);
	}
}

static void
nul_bytes(void **state)
{
	static const char head[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
	struct reading r;

	(void)state;
	reading_init(&r, false, false);
	reading_feed(&r, (struct slice){ head, sizeof(head) - 1 });
	assert_string_equal(text_of(&r), "!400");
	reading_free(&r);
}

/* A head of exactly the limit passes, one byte more is 431, in any pieces. */
static void
head_limit(void **state)
{
	(void)state;
	for (size_t total = HEAD_MAX - 1; total <= HEAD_MAX + 1; total++) {
		for (size_t piece = 1; piece < 2 * HEAD_MAX; piece = piece * 3 + 1) {
			struct reading r;
			struct buf in;

			buf_init(&in, 3 * HEAD_MAX);
			buf_add_str(&in, GET "X: ");
			while (in.n < total - 4)
				buf_add_char(&in, 'x');
			buf_add_str(&in, "\r\n\r\n");
			reading_init(&r, false, false);
			for (size_t at = 0; at < in.n; at += piece)
				reading_feed(&r, (struct slice){ in.p + at, in.n - at < piece ? in.n - at : piece });
			assert_int_equal(r.messages, total <= HEAD_MAX);
			if (total > HEAD_MAX)
				assert_string_equal(text_of(&r), "!431");
			reading_free(&r);
			buf_free(&in);
		}
	}
}

static void
header_count_limit(void **state)
{
	(void)state;
	for (int count = HTTP_HEADERS_MAX - 1; count <= HTTP_HEADERS_MAX + 1; count++) {
		struct reading r;
		struct buf in;

		buf_init(&in, HEAD_MAX);
		buf_add_str(&in, GET);
		for (int i = 1; i < count; i++)
			buf_printf(&in, "X%d: 1\r\n", i);
		buf_add_str(&in, "\r\n");
		reading_init(&r, false, false);
		reading_feed(&r, buf_slice(&in));
		assert_int_equal(r.messages, count <= HTTP_HEADERS_MAX);
		if (count > HTTP_HEADERS_MAX)
			assert_string_equal(text_of(&r), "!431");
		reading_free(&r);
		buf_free(&in);
	}
}

/* Neither an endless chunk extension nor endless trailers are read for ever. */
static void
chunk_overhead_limit(void **state)
{
	static const char *const endless[] = { "5;", "0\r\nX: " };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct slice junk = SLICE("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
		struct reading r;
		size_t fed = 0;

		reading_init(&r, false, false);
		reading_feed(&r, SLICE(CHUNKED));
		reading_feed(&r, slice_of(endless[i]));
		for (; !r.ended && fed < 4 * HEAD_MAX; fed += junk.n)
			reading_feed(&r, junk);
		assert_true(r.ended);
		assert_int_equal(r.http.error_status, 431);
		reading_free(&r);
	}
}

static void
many_small_chunks_pass(void **state)
{
	struct reading r;

	(void)state;
	reading_init(&r, false, false);
	reading_feed(&r, SLICE(CHUNKED));
	for (int i = 0; i < HEAD_MAX; i++)
		reading_feed(&r, SLICE("1\r\nx\r\n"));
	reading_feed(&r, SLICE("0\r\n\r\n"));
	assert_false(r.ended);
	assert_int_equal(r.messages, 1);
	reading_free(&r);
}

/* The first error stays; an idle connection holds no memory. */
static void
errors_stay(void **state)
{
	struct reading r;
	struct slice more = SLICE(GET "\r\n");

	(void)state;
	reading_init(&r, false, false);
	reading_feed(&r, SLICE("GET / HTTP/1.1\n"));
	assert_int_equal(http1_feed(&r.http, &more), HTTP1_ERROR);
	assert_int_equal(http1_eof(&r.http), HTTP1_ERROR);
	assert_null(r.http.partial.p);
	reading_free(&r);
}

static void
no_room_for_the_head(void **state)
{
	struct slice in = SLICE(GET "\r\n");
	struct scratch mem;
	struct http1 h;

	(void)state;
	scratch_init(&mem, 16);
	http1_init(&h, false, HEAD_MAX);
	http1_begin(&h, &mem, false);
	assert_int_equal(http1_feed(&h, &in), HTTP1_ERROR);
	assert_int_equal(h.error_status, 431);
	http1_free(&h);
	scratch_reset(&mem);
}

static void
finding_headers(void **state)
{
	struct slice in = SLICE(GET "Accept: 1\r\nX-Empty: \r\naccept: 2\r\nConnection: Close, X-Own ,te\r\n"
	    "Connection: x-more\r\n\r\n");
	struct scratch mem;
	struct http1 h;

	(void)state;
	scratch_init(&mem, 65536);
	http1_init(&h, false, HEAD_MAX);
	http1_begin(&h, &mem, false);
	assert_int_equal(http1_feed(&h, &in), HTTP1_HEAD);
	assert_true(slice_eq(http1_find(&h.head, "accept"), SLICE("1")));
	assert_non_null(http1_find(&h.head, "x-empty").p);
	assert_int_equal(http1_find(&h.head, "x-empty").n, 0);
	assert_null(http1_find(&h.head, "x-none").p);

	assert_true(http1_hop_by_hop(&h.head, SLICE("connection")));
	assert_true(http1_hop_by_hop(&h.head, SLICE("proxy-authorization")));
	assert_true(http1_hop_by_hop(&h.head, SLICE("transfer-encoding")));
	assert_true(http1_hop_by_hop(&h.head, SLICE("x-own")));
	assert_true(http1_hop_by_hop(&h.head, SLICE("x-more")));
	assert_false(http1_hop_by_hop(&h.head, SLICE("x-ow")));
	assert_false(http1_hop_by_hop(&h.head, SLICE("accept")));
	assert_string_equal(http1_reason(429), "Too Many Requests");
	assert_string_equal(http1_reason(499), "Client Error");
	http1_free(&h);
	scratch_reset(&mem);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(pipelined_requests),
		cmocka_unit_test(responses),
		cmocka_unit_test(refused_requests),
		cmocka_unit_test(targets_are_judged_alike),
		cmocka_unit_test(refused_chunks),
		cmocka_unit_test(refused_responses),
		cmocka_unit_test(nul_bytes),
		cmocka_unit_test(head_limit),
		cmocka_unit_test(header_count_limit),
		cmocka_unit_test(chunk_overhead_limit),
		cmocka_unit_test(many_small_chunks_pass),
		cmocka_unit_test(errors_stay),
		cmocka_unit_test(no_room_for_the_head),
		cmocka_unit_test(finding_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
