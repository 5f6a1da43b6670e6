/*
 * Any bytes as HTTP/1.1 messages. Beyond "no crash": the same bytes in one
 * piece and in many give the same messages, body spans lie in the input, and
 * header slices lie in memory that may be read.
 *
 * The first two bytes choose the direction and how the rest is cut.
 */
#include <stdint.h>
#include <stdlib.h>

#include "tests/fuzz/target.h"
#include "upstream/wire/http1.h"

#define HEAD_MAX 1024	/* small, so that limits are met */

struct outcome {
	struct http1 http;
	struct scratch mem;
	struct buf log;		/* what came out, without the borders of spans */
	bool head_request, over;
};

static void
note_head(struct outcome *o)
{
	const struct http1_head *head = &o->http.head;

	buf_printf(&o->log, "\n%d %d %lld %d%d%d ", head->status, head->minor, (long long)head->content_length,
	    head->chunked, head->keep_alive, head->expect_continue);
	buf_add_slice(&o->log, head->method);
	buf_add_slice(&o->log, head->target);
	CHECK(head->headers_count <= HTTP_HEADERS_MAX);
	for (uint32_t i = 0; i < head->headers_count; i++) {
		CHECK(head->headers[i].name.n > 0);
		CHECK(!memchr(head->headers[i].value.p, '\n', head->headers[i].value.n));
		buf_add_slice(&o->log, head->headers[i].name);
		buf_add_slice(&o->log, head->headers[i].value);
	}
	buf_add_char(&o->log, '\n');
}

static void
feed(struct outcome *o, const char *p, size_t n)
{
	struct slice in = { p, n };

	while (!o->over) {
		switch (http1_feed(&o->http, &in)) {
		case HTTP1_HEAD:
			note_head(o);
			continue;
		case HTTP1_BODY:
			CHECK(o->http.span.n > 0 && o->http.span.p >= p && o->http.span.p + o->http.span.n <= p + n);
			buf_add_slice(&o->log, o->http.span);
			continue;
		case HTTP1_DONE:
			CHECK(in.p >= p && in.p + in.n == p + n);
			buf_add_str(&o->log, "\nend");
			scratch_reset(&o->mem);
			http1_begin(&o->http, &o->mem, o->head_request);
			if (in.n > 0)
				continue;
			return;
		case HTTP1_ERROR:
			CHECK(o->http.error && o->http.error_status >= 400);
			buf_add_str(&o->log, "\nerror");
			o->over = true;
			return;
		case HTTP1_MORE:
			CHECK(in.n == 0);
			return;
		}
	}
}

static void
read_all(struct outcome *o, uint8_t flags, uint8_t step, const char *p, size_t n)
{
	*o = (struct outcome){ .head_request = flags & 2 };
	scratch_init(&o->mem, 1u << 20);
	buf_init(&o->log, 1u << 24);
	http1_init(&o->http, flags & 1, HEAD_MAX);
	http1_begin(&o->http, &o->mem, o->head_request);
	for (size_t at = 0, part; at < n; at += part) {
		part = step && step < n - at ? step : n - at;
		char *piece = malloc(part);	/* of its own size: a step too far is seen */

		CHECK(piece);
		memcpy(piece, p + at, part);
		feed(o, piece, part);
		free(piece);
	}
	if (!o->over)
		buf_printf(&o->log, "\neof %d", (int)http1_eof(&o->http));
}

static void
forget(struct outcome *o)
{
	http1_free(&o->http);
	scratch_reset(&o->mem);
	buf_free(&o->log);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;

	if (size < 2)
		return 0;
	const char *p = (const char *)data + 2;
	read_all(&whole, data[0], 0, p, size - 2);
	read_all(&pieces, data[0], (uint8_t)(1 + data[1] % 64), p, size - 2);
	CHECK(slice_eq(buf_slice(&whole.log), buf_slice(&pieces.log)));
	forget(&whole);
	forget(&pieces);
	return 0;
}
