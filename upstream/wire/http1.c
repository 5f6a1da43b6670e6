/*
 * upstream/wire/http1.c -- see http1.h.
 *
 * A message goes START -> HEAD -> one of the body states -> OVER. While a head
 * comes in, its control bytes are looked at, no more: a line end is two of
 * them, and others there must not be. When it is whole it is copied once into
 * the scratch and read there, so that every slice is one piece, whatever the
 * network did to it.
 *
 * Header lines are split and judged here, by one table, alike with every
 * version of llhttp and at a fraction of its cost. llhttp takes chunks apart,
 * and judges request lines (method and target) but for the plainest. Bodies of
 * a known length, and those that end with the connection, need no parser.
 */
#include "upstream/wire/http1.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Where the lines of a whole head end: the places of their CRs. */
struct line_ends { uint32_t at[1 + HTTP_HEADERS_MAX]; };

enum state { START, HEAD, BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_EOF, OVER, BROKEN };

static int on_headers_complete(llhttp_t *parser);
static int on_chunk_bytes(llhttp_t *parser, const char *p, size_t n);
static int on_message_complete(llhttp_t *parser);

static const llhttp_settings_t parser_settings = {
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
	h->message_done = false;
	h->start = h->line = h->lines = 0;
	h->hosts = h->codings = 0;
	h->says_close = h->says_keep = false;
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

static int
on_headers_complete(llhttp_t *parser)
{
	parser->upgrade = 0;	/* we never change the protocol: the body is HTTP's */
	return 0;
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

/* The first control byte from `at` on, tabs aside; n: there is none. */
static inline size_t
next_control(const char *p, size_t at, size_t n)
{
#ifdef __SSE2__
	for (; n - at >= 16; at += 16) {
		__m128i c = _mm_loadu_si128((const __m128i *)(const void *)(p + at));
		__m128i low = _mm_cmpeq_epi8(_mm_min_epu8(c, _mm_set1_epi8(0x1f)), c);
		__m128i control = _mm_andnot_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8('\t')),
		    _mm_or_si128(low, _mm_cmpeq_epi8(c, _mm_set1_epi8(0x7f))));
		unsigned found = (unsigned)_mm_movemask_epi8(control);

		if (found)
			return at + (size_t)__builtin_ctz(found);
	}
#endif
	while (at < n && (((unsigned char)p[at] >= ' ' && p[at] != 0x7f) || p[at] == '\t'))
		at++;
	return at;
}

/*
 * Looks at p[0..n) from the line on where it stopped the last time; a head has
 * no control bytes but tabs and the CR LF of its lines. Returns the end of the
 * head, 0 if it has not come whole, or -1 after broken().
 */
static int64_t
find_head_end(struct http1 *h, const char *p, size_t n, struct line_ends *ends)
{
	size_t line = h->line, cr;
	uint32_t lines = h->lines;

	for (; (cr = next_control(p, line, n)) < n; line = cr + 2) {
		if (cr + 1 == n && p[cr] == '\r')
			break;		/* its LF may come */
		if (cr + 1 == n || memcmp(p + cr, "\r\n", 2) != 0) {
			broken(h, 400, p[cr] == '\n' ? "a line of the head does not end in CR LF"
			    : "a control byte in the head");
			return -1;
		}
		if (cr > line) {
			if (lines <= HTTP_HEADERS_MAX)
				ends->at[lines] = (uint32_t)cr;
			lines++;
		} else if (lines > 0) {
			h->lines = lines;
			return (int64_t)cr + 2;
		} else if (h->response) {
			broken(h, 400, "an empty line instead of a status line");
			return -1;
		} else {
			h->start = (uint32_t)cr + 2;	/* RFC 9112, 2.2: ignored before a request */
		}
	}
	h->line = (uint32_t)line;
	h->lines = lines;
	return 0;
}

/* Bytes of a token (RFC 9110, 5.6.2), letters in lower case; 0: not in one. */
#define SAME(c) [c] = (c)
#define BOTH(c) [c] = (c), [(c) - 32] = (c)
static const char token_bytes[256] = {
	SAME('!'), SAME('#'), SAME('$'), SAME('%'), SAME('&'), SAME('\''), SAME('*'), SAME('+'), SAME('-'), SAME('.'),
	SAME('^'), SAME('_'), SAME('`'), SAME('|'), SAME('~'), SAME('0'), SAME('1'), SAME('2'), SAME('3'), SAME('4'),
	SAME('5'), SAME('6'), SAME('7'), SAME('8'), SAME('9'), BOTH('a'), BOTH('b'), BOTH('c'), BOTH('d'), BOTH('e'),
	BOTH('f'), BOTH('g'), BOTH('h'), BOTH('i'), BOTH('j'), BOTH('k'), BOTH('l'), BOTH('m'), BOTH('n'), BOTH('o'),
	BOTH('p'), BOTH('q'), BOTH('r'), BOTH('s'), BOTH('t'), BOTH('u'), BOTH('v'), BOTH('w'), BOTH('x'), BOTH('y'),
	BOTH('z'),
};

/* Bytes of a path and a query (RFC 3986, 3.3 and 3.4); 0: not in one. */
static const char target_bytes[256] = {
	SAME('-'), SAME('.'), SAME('_'), SAME('~'), SAME('%'), SAME('!'), SAME('$'), SAME('&'), SAME('\''), SAME('('),
	SAME(')'), SAME('*'), SAME('+'), SAME(','), SAME(';'), SAME('='), SAME(':'), SAME('@'), SAME('/'), SAME('?'),
	SAME('0'), SAME('1'), SAME('2'), SAME('3'), SAME('4'), SAME('5'), SAME('6'), SAME('7'), SAME('8'), SAME('9'),
	BOTH('a'), BOTH('b'), BOTH('c'), BOTH('d'), BOTH('e'), BOTH('f'), BOTH('g'), BOTH('h'), BOTH('i'), BOTH('j'),
	BOTH('k'), BOTH('l'), BOTH('m'), BOTH('n'), BOTH('o'), BOTH('p'), BOTH('q'), BOTH('r'), BOTH('s'), BOTH('t'),
	BOTH('u'), BOTH('v'), BOTH('w'), BOTH('x'), BOTH('y'), BOTH('z'),
};
#undef SAME
#undef BOTH

static bool
is_token(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!token_bytes[(unsigned char)s.p[i]])
			return false;
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
	h->head.status = (line.p[9] - '0') * 100 + (line.p[10] - '0') * 10 + (line.p[11] - '0');
	return true;
}

/* The header's value, as it stands in its line: white space or a CR ends it. */
static bool
is_plain_host(struct slice host)
{
	static const bool elsewhere[256] = {
		[' '] = true, ['\t'] = true, [','] = true, ['/'] = true, ['@'] = true, ['?'] = true, ['#'] = true,
		['\\'] = true, ['\r'] = true,
	};
	const char *p = host.p;

	while (!elsewhere[(unsigned char)*p])
		p++;
	return p == host.p + host.n;
}

/* Decimal digits, nothing else, and no more than a signed number holds. */
static bool
read_length(struct slice s, int64_t *out)
{
	int64_t n = 0;

	for (const char *p = s.p, *end = p + s.n; p < end; p++) {
		unsigned digit = (unsigned char)*p - (unsigned)'0';

		if (digit > 9 || n > (INT64_MAX - 9) / 10)
			return false;
		n = n * 10 + digit;
	}
	*out = n;
	return s.n > 0;
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

/* What a header means for the message; a complaint, or NULL. */
static const char *
note_header(struct http1 *h, struct slice name, struct slice value)
{
	struct http1_head *head = &h->head;

	switch (name.n) {
	case 4:
		if (h->response || memcmp(name.p, "host", 4) != 0)
			break;
		if (h->hosts++ > 0)
			return "two Host headers";
		return is_plain_host(value) ? NULL : "the Host header names no host";
	case 6:
		if (memcmp(name.p, "expect", 6) == 0 && slice_ieq(value, SLICE("100-continue")))
			head->expect_continue = !h->response && head->minor == 1;
		break;
	case 7:
		if (memcmp(name.p, "upgrade", 7) == 0)
			head->upgrade = true;
		break;
	case 10:
		if (memcmp(name.p, "connection", 10) != 0)
			break;
		head->options = head->options ||
		    !(slice_ieq(value, SLICE("keep-alive")) || slice_ieq(value, SLICE("close")));
		h->says_close = h->says_close || list_names(value, SLICE("close"));
		h->says_keep = h->says_keep || list_names(value, SLICE("keep-alive"));
		break;
	case 14:
		if (memcmp(name.p, "content-length", 14) != 0)
			break;
		if (head->content_length >= 0)
			return "two Content-Length headers";
		return read_length(value, &head->content_length) ? NULL : "the Content-Length is not a number";
	case 17:
		if (memcmp(name.p, "transfer-encoding", 17) != 0)
			break;
		h->codings++;
		head->chunked = slice_ieq(value, SLICE("chunked"));
		break;
	}
	return NULL;
}

#ifdef __SSE2__
/* Sixteen bytes at a time over what usual names consist of, letters, digits
 * and '-'; letters become lower case. Returns the first byte that is another.
 * Reads a block beyond the name (the head's copy is padded) and leaves it as it is. */
static char *
usual_name(char *p)
{
	for (;;) {
		__m128i x = _mm_loadu_si128((const __m128i *)(void *)p);
		__m128i low = _mm_or_si128(x, _mm_set1_epi8(0x20));
		__m128i letter = _mm_and_si128(_mm_cmpgt_epi8(low, _mm_set1_epi8('a' - 1)),
		    _mm_cmplt_epi8(low, _mm_set1_epi8('z' + 1)));
		__m128i digit = _mm_and_si128(_mm_cmpgt_epi8(x, _mm_set1_epi8('0' - 1)),
		    _mm_cmplt_epi8(x, _mm_set1_epi8('9' + 1)));
		__m128i usual = _mm_or_si128(_mm_or_si128(letter, digit), _mm_cmpeq_epi8(x, _mm_set1_epi8('-')));
		unsigned n = (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(usual));
		unsigned as_is = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, low));

		for (unsigned upper = ~as_is & ((1u << n) - 1); upper; upper &= upper - 1)
			p[__builtin_ctz(upper)] |= 0x20;	/* digits and '-' have this bit */
		p += n;
		if (n < 16)
			return p;
	}
}
#else
static char *
usual_name(char *p)
{
	return p;
}
#endif

static bool
bad_name(struct http1 *h, const char *line, const char *p)
{
	broken(h, 400, p > line ? "a header's name has a byte that names cannot have" :
	    *line == ' ' || *line == '\t' ? "a header is folded over two lines" :
	    *line == ':' ? "a header has no name" : "a header's name has a byte that names cannot have");
	return false;
}

/* One line of the head's copy, up to its CR: the name goes to lower case in place. */
static bool
read_header(struct http1 *h, char *line, const char *cr)
{
	char *p = usual_name(line), c;

	while ((c = token_bytes[(unsigned char)*p]) != 0)
		*p++ = c;
	if (*p != ':' || p == line)
		return bad_name(h, line, p);
	struct slice name = { line, (size_t)(p - line) };
	const char *from = p + 1, *to = cr;
	while (*from == ' ' || *from == '\t')	/* the CR ends it */
		from++;
	while ((to[-1] == ' ' || to[-1] == '\t') && to > from)
		to--;
	struct slice value = { from, (size_t)(to - from) };
	h->head.headers[h->head.headers_count++] = (struct http1_header){ name, value };

	const char *why = note_header(h, name, value);
	if (why)
		broken(h, 400, why);
	return !why;
}

/* The lines of the head's copy at p after the first; then what they must say together. */
static bool
read_headers(struct http1 *h, char *p, const struct line_ends *ends)
{
	struct http1_head *head = &h->head;

	for (uint32_t i = 1; i < h->lines; i++)
		if (!read_header(h, p + (ends->at[i - 1] + 2 - h->start), p + (ends->at[i] - h->start)))
			return false;
	if (h->codings > 0 && (h->codings > 1 || !head->chunked))
		broken(h, 501, "a transfer coding other than chunked");
	else if (head->chunked && head->content_length >= 0)
		broken(h, 400, "both Content-Length and Transfer-Encoding");
	else if (head->chunked && head->minor == 0)
		broken(h, 400, "Transfer-Encoding in an HTTP/1.0 message");
	else if (!h->response && h->hosts == 0 && head->minor == 1)
		broken(h, 400, "the Host header is missing");
	return !h->error;
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

	head->keep_alive = !h->says_close && (head->minor == 1 || h->says_keep);
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

/* A request line that every version of llhttp takes: no need to ask it. A
 * space stands behind the target. */
static bool
is_plain_request(const struct http1_head *head)
{
	const char *p = head->target.p, *end = p + head->target.n;

	if (*p != '/' || !(slice_eq(head->method, SLICE("POST")) || slice_eq(head->method, SLICE("GET"))))
		return false;
	while (target_bytes[(unsigned char)*p])
		p++;
	return p == end;
}

/* llhttp judges a request line, and gets ready for chunks. */
static bool
start_parser(struct http1 *h, struct slice first_line)
{
	static const char chunked[] = "transfer-encoding: chunked\r\n\r\n";

	if (!h->head.chunked && (h->response || is_plain_request(&h->head)))
		return true;
	llhttp_init(&h->parser, h->response ? HTTP_RESPONSE : HTTP_REQUEST, &parser_settings);
	h->parser.data = h;
	llhttp_errno_t e = llhttp_execute(&h->parser, first_line.p, first_line.n);
	if (e == HPE_OK && h->head.chunked)
		e = llhttp_execute(&h->parser, chunked, sizeof(chunked) - 1);
	if (e == HPE_OK)
		return true;

	const char *reason = llhttp_get_error_reason(&h->parser);
	if (e == HPE_INVALID_METHOD && is_token(h->head.method))
		broken(h, 501, "an unknown method");
	else
		broken(h, 400, reason && *reason ? reason : "a malformed first line");
	return false;
}

#define NAME_BLOCK 16	/* what usual_name() reads beyond a name */

static enum http1_event
parse_head(struct http1 *h, struct slice raw, const struct line_ends *ends)
{
	size_t room = (h->lines - 1) * sizeof(*h->head.headers);
	char *p;

	if (h->lines - 1 > HTTP_HEADERS_MAX)
		return broken(h, 431, "too many headers");
	if (!(p = scratch_alloc(h->mem, raw.n + NAME_BLOCK)) || !(h->head.headers = scratch_alloc(h->mem, room)))
		return broken(h, 431, "the head does not fit into memory");
	memcpy(p, raw.p, raw.n);
	memset(p + raw.n, ' ', NAME_BLOCK);
	buf_free(&h->partial);

	size_t first = ends->at[0] - h->start;
	struct slice line = { p, first };
	if (!(h->response ? read_status_line(h, line) : read_request_line(h, line)) ||
	    !read_headers(h, p, ends) || !start_parser(h, (struct slice){ p, first + 2 }))
		return HTTP1_ERROR;
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
	struct line_ends ends;
	int64_t end = find_head_end(h, input->p, input->n, &ends);

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
	return parse_head(h, raw, &ends);
}

static enum http1_event
feed_more(struct http1 *h, struct slice *input)
{
	struct line_ends ends;
	size_t before = h->partial.n, room = h->head_max - before;
	size_t n = input->n < room ? input->n : room;

	buf_add(&h->partial, input->p, n);
	if (h->partial.overflow)
		return too_long(h);
	int64_t end = find_head_end(h, h->partial.p, h->partial.n, &ends);
	if (end < 0)
		return HTTP1_ERROR;
	if (end == 0 && h->partial.n >= h->head_max)
		return too_long(h);
	if (end > 0)
		n = (size_t)end - before;
	*input = (struct slice){ input->p + n, input->n - n };
	if (end == 0)
		return HTTP1_MORE;
	h->start = h->line = h->lines = 0;	/* once more: where did the lines of earlier pieces end? */
	end = find_head_end(h, h->partial.p, h->partial.n, &ends);
	return parse_head(h, (struct slice){ h->partial.p + h->start, (size_t)end - h->start }, &ends);
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
http1_find_name(const struct http1_head *head, struct slice name)
{
	for (uint32_t i = 0; i < head->headers_count; i++)
		if (slice_eq(head->headers[i].name, name))
			return head->headers[i].value;
	return SLICE_NONE;
}

static bool
fixed_hop_by_hop(struct slice name)
{
	switch (name.n) {
	case 2:
		return memcmp(name.p, "te", 2) == 0;
	case 7:
		return memcmp(name.p, "trailer", 7) == 0 || memcmp(name.p, "upgrade", 7) == 0;
	case 10:
		return memcmp(name.p, "connection", 10) == 0 || memcmp(name.p, "keep-alive", 10) == 0;
	case 17:
		return memcmp(name.p, "transfer-encoding", 17) == 0;
	default:
		return false;
	}
}

bool
http1_option(const struct http1_head *head, struct slice name)
{
	for (uint32_t i = 0; i < head->headers_count; i++)
		if (slice_eq(head->headers[i].name, SLICE("connection")) && list_names(head->headers[i].value, name))
			return true;
	return false;
}

bool
http1_hop_by_hop(const struct http1_head *head, struct slice name)
{
	return fixed_hop_by_hop(name) || slice_starts(name, SLICE("proxy-")) || http1_connection_names(head, name);
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
