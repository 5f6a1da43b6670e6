/*
 * upstream/wire/http1.c -- see http1.h.
 *
 * A message goes START -> HEAD -> one of the body states -> OVER. While a head
 * comes in, its line ends are looked at, no more; when it is whole it is
 * copied once into the scratch and llhttp parses the copy, so that every slice
 * is one piece, whatever the network did to it.
 *
 * llhttp judges the grammar. What it judges differently from version to
 * version, or not at all, is judged here, before (line ends, folding, empty
 * names, the HTTP version) and after (Host, the framing headers). Bodies of a
 * known length, and those that end with the connection, need no parser; only
 * chunks go through llhttp, which pauses after each span of body bytes.
 */
#include "upstream/wire/http1.h"

#include <string.h>

enum state { START, HEAD, BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_EOF, OVER, BROKEN };

static int on_field(llhttp_t *parser, const char *p, size_t n);
static int on_value(llhttp_t *parser, const char *p, size_t n);
static int on_headers_complete(llhttp_t *parser);
static int on_chunk_bytes(llhttp_t *parser, const char *p, size_t n);
static int on_message_complete(llhttp_t *parser);

static const llhttp_settings_t parser_settings = {
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_chunk_bytes,
	.on_message_complete = on_message_complete,
};

void
http1_init(struct http1 *h, bool response, uint32_t head_max)
{
	*h = (struct http1){ .response = response, .head_max = head_max, .state = OVER };
	buf_init(&h->partial, head_max);
}

void
http1_begin(struct http1 *h, struct scratch *mem, bool head_request)
{
	buf_free(&h->partial);
	h->mem = mem;
	h->head_request = head_request;
	h->head_done = h->message_done = false;
	h->start = h->line = h->lines = 0;
	h->overhead = 0;
	h->head = (struct http1_head){ .content_length = -1 };
	h->span = SLICE_NONE;
	h->error = NULL;
	h->error_status = 0;
	h->state = START;
}

void
http1_free(struct http1 *h)
{
	buf_free(&h->partial);
}

static enum http1_event
broken(struct http1 *h, int status, const char *why)
{
	h->state = BROKEN;
	h->error_status = status;
	h->error = why;
	h->head.keep_alive = false;
	buf_free(&h->partial);
	return HTTP1_ERROR;
}

/* ---- callbacks of llhttp ---- */

/* Header names are compared often and shown to nobody: lower case, in place. */
static void
lower_case(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];
		p[i] = (char)(c | (unsigned char)((unsigned char)(c - 'A') < 26 ? 0x20 : 0));
	}
}

static int
on_field(llhttp_t *parser, const char *p, size_t n)
{
	struct http1 *h = parser->data;
	struct http1_head *head = &h->head;

	if (h->head_done)
		return 0;	/* a trailer: framing, and nobody asked for it */
	CHECK(head->headers_count < h->headers_room);
	lower_case((char *)p, n);
	head->headers[head->headers_count++] = (struct http1_header){ { p, n }, { p + n, 0 } };
	return 0;
}

static int
on_value(llhttp_t *parser, const char *p, size_t n)
{
	struct http1 *h = parser->data;

	if (h->head_done)
		return 0;
	CHECK(h->head.headers_count > 0);
	struct slice *value = &h->head.headers[h->head.headers_count - 1].value;

	while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
		n--;
	if (value->n == 0)	/* else a further part of the same value */
		value->p = p;
	value->n = (size_t)(p + n - value->p);
	return 0;
}

static int
on_headers_complete(llhttp_t *parser)
{
	struct http1 *h = parser->data;

	h->head_done = true;
	parser->upgrade = 0;	/* we never change the protocol: the body is HTTP's */
	return (parser->flags & F_CHUNKED) ? 0 : HPE_PAUSED;
}

static int
on_chunk_bytes(llhttp_t *parser, const char *p, size_t n)
{
	struct http1 *h = parser->data;

	if (n == 0)
		return 0;
	h->span = (struct slice){ p, n };
	return HPE_PAUSED;
}

static int
on_message_complete(llhttp_t *parser)
{
	struct http1 *h = parser->data;

	h->message_done = true;
	return HPE_PAUSED;
}

/* ---- heads ---- */

/*
 * Looks at the lines of p[0..n) from where it stopped the last time. Returns
 * the end of the head, 0 if it has not come whole, or -1 after broken().
 */
static int64_t
find_head_end(struct http1 *h, const char *p, size_t n)
{
	while (h->line < n) {
		const char *line = p + h->line;
		const char *lf = memchr(line, '\n', n - h->line);

		if (!lf)
			return 0;
		if (memchr(line, '\r', (size_t)(lf - line) + 1) != lf - 1) {
			broken(h, 400, "a line of the head does not end in CR LF, or has a CR inside");
			return -1;
		}
		h->line = (uint32_t)(lf + 1 - p);
		if (lf == line + 1) {
			if (h->lines > 0)
				return h->line;
			if (h->response) {
				broken(h, 400, "an empty line instead of a status line");
				return -1;
			}
			h->start = h->line;	/* RFC 9112, 2.2: ignored before a request */
			continue;
		}
		if (*line == ' ' || *line == '\t') {
			broken(h, 400, "a header is folded over two lines");
			return -1;
		}
		if (*line == ':') {
			broken(h, 400, "a header has no name");
			return -1;
		}
		h->lines++;
	}
	return 0;
}

static bool
is_token(struct slice s)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		    (c && strchr(others, c))))
			return false;
	}
	return s.n > 0;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "HTTP/1.0" or "HTTP/1.1"; another version is told apart from rubbish. */
static bool
read_version(struct http1 *h, struct slice s)
{
	if (s.n != 8 || memcmp(s.p, "HTTP/", 5) != 0 || !is_digit(s.p[5]) || s.p[6] != '.' || !is_digit(s.p[7])) {
		broken(h, 400, "the first line has no HTTP version");
		return false;
	}
	if (s.p[5] != '1' || s.p[7] > '1') {
		broken(h, 505, "the HTTP version is neither 1.0 nor 1.1");
		return false;
	}
	h->head.minor = (uint8_t)(s.p[7] - '0');
	return true;
}

static bool
read_request_line(struct http1 *h, struct slice line)
{
	const char *first = memchr(line.p, ' ', line.n);
	const char *last = memrchr(line.p, ' ', line.n);

	if (!first || first == last) {
		broken(h, 400, "the request line is not \"method target version\"");
		return false;
	}
	h->head.method = (struct slice){ line.p, (size_t)(first - line.p) };
	h->head.target = (struct slice){ first + 1, (size_t)(last - first - 1) };
	if (!read_version(h, (struct slice){ last + 1, (size_t)(line.p + line.n - last - 1) }))
		return false;
	if (h->head.target.n == 0 || memchr(h->head.target.p, ' ', h->head.target.n)) {
		broken(h, 400, "the request line has too many spaces");
		return false;
	}
	return true;
}

static bool
read_status_line(struct http1 *h, struct slice line)
{
	if (line.n < 12 || !read_version(h, (struct slice){ line.p, 8 })) {
		if (!h->error)
			broken(h, 400, "the status line is too short");
		return false;
	}
	if (line.p[8] != ' ' || line.p[9] < '1' || !is_digit(line.p[9]) || !is_digit(line.p[10]) ||
	    !is_digit(line.p[11]) || (line.n > 12 && line.p[12] != ' ')) {
		broken(h, 400, "the status line has no status of three digits");
		return false;
	}
	return true;
}

static bool
is_plain_host(struct slice host)
{
	for (size_t i = 0; i < host.n; i++)
		if ((unsigned char)host.p[i] <= ' ' || strchr(",/@?#\\", host.p[i]))
			return false;
	return true;
}

/* What the framing of the message depends on, and what must be there once. */
static bool
check_headers(struct http1 *h)
{
	struct http1_head *head = &h->head;
	unsigned hosts = 0, lengths = 0, codings = 0;

	for (uint32_t i = 0; i < head->headers_count; i++) {
		struct slice name = head->headers[i].name, value = head->headers[i].value;

		switch (name.n) {
		case 4:
			if (memcmp(name.p, "host", 4) == 0 && (++hosts > 1 || !is_plain_host(value)) && !h->response) {
				broken(h, 400, hosts > 1 ? "two Host headers" : "the Host header names no host");
				return false;
			}
			break;
		case 6:
			if (memcmp(name.p, "expect", 6) == 0 && slice_ieq(value, SLICE("100-continue")))
				head->expect_continue = !h->response && head->minor == 1;
			break;
		case 7:
			if (memcmp(name.p, "upgrade", 7) == 0)
				head->upgrade = true;
			break;
		case 14:
			if (memcmp(name.p, "content-length", 14) == 0)
				lengths++;
			break;
		case 17:
			if (memcmp(name.p, "transfer-encoding", 17) != 0)
				break;
			if (++codings > 1 || !slice_ieq(value, SLICE("chunked"))) {
				broken(h, 501, "a transfer coding other than chunked");
				return false;
			}
			break;
		}
	}
	if (codings && (lengths || head->minor == 0)) {
		broken(h, 400, lengths ? "both Content-Length and Transfer-Encoding"
		    : "Transfer-Encoding in an HTTP/1.0 message");
		return false;
	}
	if (!h->response && hosts == 0 && head->minor == 1) {
		broken(h, 400, "the Host header is missing");
		return false;
	}
	head->chunked = codings > 0;
	return true;
}

static bool
never_has_body(const struct http1 *h)
{
	int status = h->head.status;

	return h->response && (h->head_request || status / 100 == 1 || status == 204 || status == 304);
}

static enum http1_event
begin_body(struct http1 *h)
{
	struct http1_head *head = &h->head;
	const llhttp_t *parser = &h->parser;

	if (parser->flags & F_CONTENT_LENGTH) {
		if (parser->content_length > INT64_MAX)
			return broken(h, 400, "the Content-Length is too large");
		head->content_length = (int64_t)parser->content_length;
	}
	head->keep_alive = !(parser->flags & F_CONNECTION_CLOSE) &&
	    (head->minor == 1 || (parser->flags & F_CONNECTION_KEEP_ALIVE));

	if (never_has_body(h)) {
		h->state = BODY_NONE;
	} else if (head->chunked) {
		h->state = BODY_CHUNKED;
	} else if (head->content_length > 0) {
		h->state = BODY_LENGTH;
		h->body_left = (uint64_t)head->content_length;
	} else if (h->response && head->content_length < 0) {
		h->state = BODY_EOF;
		head->keep_alive = false;
	} else {
		h->state = BODY_NONE;
	}
	return HTTP1_HEAD;
}

/* llhttp has refused the head: in which way? */
static enum http1_event
refused(struct http1 *h, llhttp_errno_t e)
{
	const char *reason = llhttp_get_error_reason(&h->parser);

	if (e == HPE_INVALID_METHOD)
		return broken(h, 501, "an unknown method");
	if (e == HPE_INVALID_TRANSFER_ENCODING)
		return broken(h, 501, "a transfer coding other than chunked");
	return broken(h, 400, reason && *reason ? reason : "a malformed head");
}

static enum http1_event
parse_head(struct http1 *h, struct slice raw)
{
	size_t room = (h->lines - 1) * sizeof(*h->head.headers);
	char *p;

	if (h->lines - 1 > HTTP_HEADERS_MAX)
		return broken(h, 431, "too many headers");
	if (memchr(raw.p, '\0', raw.n))
		return broken(h, 400, "a NUL byte in the head");
	if (!(p = scratch_alloc(h->mem, raw.n)) || !(h->head.headers = scratch_alloc(h->mem, room)))
		return broken(h, 431, "the head does not fit into memory");
	memcpy(p, raw.p, raw.n);
	h->headers_room = h->lines - 1;
	buf_free(&h->partial);

	const char *lf = memchr(p, '\n', raw.n);
	struct slice first = { p, (size_t)(lf - 1 - p) };
	if (!(h->response ? read_status_line(h, first) : read_request_line(h, first)))
		return HTTP1_ERROR;
	if (!h->response && !is_token(h->head.method))
		return broken(h, 400, "the method is not a token");

	llhttp_init(&h->parser, h->response ? HTTP_RESPONSE : HTTP_REQUEST, &parser_settings);
	h->parser.data = h;
	llhttp_errno_t e = llhttp_execute(&h->parser, p, raw.n);
	if (!h->head_done)
		return refused(h, e);
	h->head.status = h->parser.status_code;
	if (!check_headers(h))
		return HTTP1_ERROR;
	/* A chunked message must have gone on into its body, any other paused. */
	if (e != (h->head.chunked ? HPE_OK : HPE_PAUSED))
		return refused(h, e);
	return begin_body(h);
}

static enum http1_event
too_long(struct http1 *h)
{
	return broken(h, 431, "the head is too long");
}

/* The head is whole in what has come now: the usual case. */
static enum http1_event
feed_first(struct http1 *h, struct slice *input)
{
	int64_t end = find_head_end(h, input->p, input->n);

	if (end < 0)
		return HTTP1_ERROR;
	if (end > h->head_max || (end == 0 && input->n >= h->head_max))
		return too_long(h);
	if (end == 0) {
		buf_add_slice(&h->partial, *input);
		*input = (struct slice){ input->p + input->n, 0 };
		h->state = HEAD;
		return h->partial.overflow ? too_long(h) : HTTP1_MORE;
	}
	struct slice raw = { input->p + h->start, (size_t)end - h->start };
	*input = (struct slice){ input->p + end, input->n - (size_t)end };
	return parse_head(h, raw);
}

static enum http1_event
feed_more(struct http1 *h, struct slice *input)
{
	size_t before = h->partial.n, room = h->head_max - before;
	size_t n = input->n < room ? input->n : room;

	buf_add(&h->partial, input->p, n);
	if (h->partial.overflow)
		return too_long(h);
	int64_t end = find_head_end(h, h->partial.p, h->partial.n);
	if (end < 0)
		return HTTP1_ERROR;
	if (end == 0 && h->partial.n >= h->head_max)
		return too_long(h);
	if (end > 0)
		n = (size_t)end - before;
	*input = (struct slice){ input->p + n, input->n - n };
	if (end == 0)
		return HTTP1_MORE;
	return parse_head(h, (struct slice){ h->partial.p + h->start, (size_t)end - h->start });
}

/* ---- bodies ---- */

static enum http1_event
done(struct http1 *h)
{
	h->state = OVER;
	return HTTP1_DONE;
}

static enum http1_event
feed_length(struct http1 *h, struct slice *input)
{
	if (h->body_left == 0)
		return done(h);
	if (input->n == 0)
		return HTTP1_MORE;
	h->span = (struct slice){ input->p, input->n < h->body_left ? input->n : (size_t)h->body_left };
	h->body_left -= h->span.n;
	*input = (struct slice){ input->p + h->span.n, input->n - h->span.n };
	return HTTP1_BODY;
}

static enum http1_event
feed_chunks(struct http1 *h, struct slice *input)
{
	h->span = SLICE_NONE;
	while (input->n > 0) {
		llhttp_errno_t e = llhttp_execute(&h->parser, input->p, input->n);
		size_t taken = input->n;

		if (e == HPE_PAUSED) {
			taken = (size_t)(llhttp_get_error_pos(&h->parser) - input->p);
			llhttp_resume(&h->parser);
		} else if (e != HPE_OK) {
			const char *reason = llhttp_get_error_reason(&h->parser);
			return broken(h, 400, reason && *reason ? reason : "a malformed chunk");
		}
		CHECK(taken <= input->n);
		*input = (struct slice){ input->p + taken, input->n - taken };

		/* Extensions and trailers are dropped, but not without end. */
		h->overhead = h->span.n ? 0 : h->overhead + (uint32_t)taken;
		if (h->overhead > h->head_max)
			return broken(h, 431, "too many bytes of chunk extensions or trailers");
		if (h->message_done)
			return done(h);
		if (h->span.n)
			return HTTP1_BODY;
	}
	return HTTP1_MORE;
}

enum http1_event
http1_feed(struct http1 *h, struct slice *input)
{
	switch ((enum state)h->state) {
	case START:
		return input->n ? feed_first(h, input) : HTTP1_MORE;
	case HEAD:
		return input->n ? feed_more(h, input) : HTTP1_MORE;
	case BODY_NONE:
		return done(h);
	case BODY_LENGTH:
		return feed_length(h, input);
	case BODY_CHUNKED:
		return feed_chunks(h, input);
	case BODY_EOF:
		if (input->n == 0)
			return HTTP1_MORE;
		h->span = *input;
		*input = (struct slice){ input->p + input->n, 0 };
		return HTTP1_BODY;
	case OVER:
		CHECK(!"http1_begin() comes before each message");
		break;
	case BROKEN:
		break;
	}
	return HTTP1_ERROR;
}

enum http1_event
http1_eof(struct http1 *h)
{
	switch ((enum state)h->state) {
	case START:
	case OVER:
		return HTTP1_MORE;
	case BODY_NONE:
	case BODY_EOF:
		return done(h);
	case BODY_LENGTH:
		if (h->body_left == 0)
			return done(h);
		break;
	case HEAD:
	case BODY_CHUNKED:
		break;
	case BROKEN:
		return HTTP1_ERROR;
	}
	return broken(h, 400, h->state == HEAD ? "the connection ended in the middle of a head"
	    : "the connection ended in the middle of a body");
}

/* ---- reading heads ---- */

struct slice
http1_find(const struct http1_head *head, const char *name)
{
	size_t n = strlen(name);

	for (uint32_t i = 0; i < head->headers_count; i++)
		if (head->headers[i].name.n == n && memcmp(head->headers[i].name.p, name, n) == 0)
			return head->headers[i].value;
	return SLICE_NONE;
}

/* Is `name` an element of the comma-separated list? */
static bool
list_names(struct slice list, struct slice name)
{
	while (list.n > 0) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t n = comma ? (size_t)(comma - list.p) : list.n;

		if (slice_ieq(slice_trim((struct slice){ list.p, n }), name))
			return true;
		n += comma != NULL;
		list = (struct slice){ list.p + n, list.n - n };
	}
	return false;
}

bool
http1_hop_by_hop(const struct http1_head *head, struct slice name)
{
	static const struct slice fixed[] = {
		{ "connection", 10 }, { "keep-alive", 10 }, { "te", 2 }, { "trailer", 7 },
		{ "transfer-encoding", 17 }, { "upgrade", 7 },
	};

	if (slice_starts(name, SLICE("proxy-")))
		return true;
	for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		if (slice_eq(name, fixed[i]))
			return true;
	for (uint32_t i = 0; i < head->headers_count; i++)
		if (slice_eq(head->headers[i].name, SLICE("connection")) && list_names(head->headers[i].value, name))
			return true;
	return false;
}

const char *
http1_reason(int status)
{
	static const struct {
		int status;
		const char *words;
	} reasons[] = {
		{ 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" },
		{ 206, "Partial Content" }, { 301, "Moved Permanently" }, { 302, "Found" }, { 303, "See Other" },
		{ 304, "Not Modified" }, { 307, "Temporary Redirect" }, { 308, "Permanent Redirect" },
		{ 400, "Bad Request" }, { 401, "Unauthorized" }, { 402, "Payment Required" }, { 403, "Forbidden" },
		{ 404, "Not Found" }, { 405, "Method Not Allowed" }, { 406, "Not Acceptable" },
		{ 408, "Request Timeout" }, { 409, "Conflict" }, { 410, "Gone" }, { 411, "Length Required" },
		{ 412, "Precondition Failed" }, { 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" }, { 417, "Expectation Failed" }, { 422, "Unprocessable Content" },
		{ 424, "Failed Dependency" }, { 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" }, { 446, "Guardrail Denied" },
		{ 500, "Internal Server Error" }, { 501, "Not Implemented" }, { 502, "Bad Gateway" },
		{ 503, "Service Unavailable" }, { 504, "Gateway Timeout" }, { 505, "HTTP Version Not Supported" },
		{ 529, "Overloaded" },
	};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].words;
	return status < 200 ? "Informational" : status < 300 ? "Success" : status < 400 ? "Redirection"
	    : status < 500 ? "Client Error" : "Server Error";
}
