/*
 * tests/bench/upstream.c -- the fast upstream that both proxies forward to.
 *
 * It answers POST with a ready-made Anthropic message, or, where the body asks
 * for "stream":true, with a paced event stream: the opening events at once,
 * then <events> text deltas at <rate> a second, each in a chunk and a write of
 * its own, then the closing events with the usage. Streams are staggered at
 * random so that they do not beat in step. Everything that is sent is rendered
 * once at start: the upstream shares a core with the load generator, and what
 * it saves there is capacity to load the proxy.
 *
 *	upstream [--events N] [--rate R] [--headers all|few]
 *	GET /__pace?events=N&rate=R	changes the pace of streams opened later
 *	GET /__stats			{"requests":..,"streams":..,"events":..,"connections":..}
 *
 * It listens on a port of 127.0.0.1 that the kernel chooses, prints
 * {"port":N} and runs until SIGTERM or until its parent is gone.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <llhttp.h>
#include <uv.h>

#include "tests/bench/send.h"

enum {
	READ_BYTES = 256 * 1024,
	BODY_BYTES_MAX = 4 * 1024 * 1024,
	BODY_BYTES_FIRST = 2048,	/* a page of body a connection: 1,000 streams stay small */
	URL_BYTES = 128,
	BACKLOG = 4096,
	EVENTS_MAX = 1000000,
	RATE_MAX = 1000,	/* a timer ticks in whole milliseconds */
};

struct text {
	char bytes[4096];
	size_t size;
};

struct conn {
	uv_tcp_t tcp;
	uv_timer_t timer;	/* the pace of the open stream */
	llhttp_t parser;
	char *body;
	size_t body_size, body_room;
	char url[URL_BYTES];
	size_t url_size;
	uint32_t events_left;
	uint32_t handles;	/* not yet closed */
	bool streaming;
};

static struct {
	uv_loop_t *loop;
	llhttp_settings_t callbacks;
	uint32_t events, rate;
	uint64_t requests, streams, events_sent, connections;
	const char *headers;
	struct text message, opening, delta, closing;
	char input[READ_BYTES];
} server;

static const char few_headers[] =
	"request-id: req_011CVRLMk3cYqYb6v2c3Zr5a\r\n";

static const char all_headers[] =
	"date: Mon, 23 Nov 2026 18:17:13 GMT\r\n"
	"connection: keep-alive\r\n"
	"request-id: req_011CVRLMk3cYqYb6v2c3Zr5a\r\n"
	"anthropic-organization-id: 3f1f2a64-95a4-4f6c-8b9f-0d1c7fd5c1aa\r\n"
	"anthropic-ratelimit-requests-limit: 4000\r\n"
	"anthropic-ratelimit-requests-remaining: 3999\r\n"
	"anthropic-ratelimit-requests-reset: 2026-11-23T18:17:14Z\r\n"
	"anthropic-ratelimit-tokens-limit: 480000\r\n"
	"anthropic-ratelimit-tokens-remaining: 478000\r\n"
	"anthropic-ratelimit-tokens-reset: 2026-11-23T18:17:14Z\r\n"
	"server: cloudflare\r\n"
	"cf-ray: 9a3f5c2d1e0b7c44-FRA\r\n";

static const char usage[] =
	"\"usage\":{\"input_tokens\":12,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":1831,"
	"\"cache_creation\":{\"ephemeral_5m_input_tokens\":0,\"ephemeral_1h_input_tokens\":0},"
	"\"output_tokens\":%u,\"service_tier\":\"standard\",\"inference_geo\":\"global\"}";

static void
render_message(struct text *out)
{
	char tail[512], body[1024];
	snprintf(tail, sizeof(tail), usage, 57u);
	int size = snprintf(body, sizeof(body),
	    "{\"id\":\"msg_01XhT4m8QvYz9cK2nJ5rLw7B\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-5-5\","
	    "\"content\":[{\"type\":\"text\",\"text\":\"The function reads the whole file before it checks the size, so a large "
	    "file exhausts memory. Check the size first and read in pieces; I have marked the two lines.\"}],"
	    "\"stop_reason\":\"end_turn\",\"stop_sequence\":null,%s}", tail);
	out->size = (size_t)snprintf(out->bytes, sizeof(out->bytes),
	    "HTTP/1.1 200 OK\r\n%scontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", server.headers, size, body);
}

static void
add_chunk(struct text *out, const char *event, const char *data)
{
	int size = snprintf(NULL, 0, "event: %s\ndata: %s\n\n", event, data);
	out->size += (size_t)snprintf(out->bytes + out->size, sizeof(out->bytes) - out->size,
	    "%x\r\nevent: %s\ndata: %s\n\n\r\n", (unsigned int)size, event, data);
}

static void
render_stream(void)
{
	char first[512], last[512], data[1024];
	snprintf(first, sizeof(first), usage, 1u);
	snprintf(last, sizeof(last), usage, server.events * 4);
	struct text *o = &server.opening, *d = &server.delta, *c = &server.closing;
	o->size = (size_t)snprintf(o->bytes, sizeof(o->bytes),
	    "HTTP/1.1 200 OK\r\n%scontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
	    "transfer-encoding: chunked\r\n\r\n", server.headers);
	snprintf(data, sizeof(data),
	    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_01XhT4m8QvYz9cK2nJ5rLw7B\",\"type\":\"message\",\"role\":\"assistant\","
	    "\"model\":\"claude-sonnet-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,%s}}", first);
	add_chunk(o, "message_start", data);
	add_chunk(o, "content_block_start", "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
	d->size = 0;
	add_chunk(d, "content_block_delta",
	    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" and then reads the\"}}");
	c->size = 0;
	add_chunk(c, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}");
	snprintf(data, sizeof(data),
	    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},%s}", last);
	add_chunk(c, "message_delta", data);
	add_chunk(c, "message_stop", "{\"type\":\"message_stop\"}");
	c->size += (size_t)snprintf(c->bytes + c->size, sizeof(c->bytes) - c->size, "0\r\n\r\n");
}

static void
on_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;
	if (--c->handles > 0)
		return;
	free(c->body);
	free(c);
	server.connections--;
}

static void
conn_close(struct conn *c)
{
	if (uv_is_closing((uv_handle_t *)&c->tcp))
		return;
	uv_close((uv_handle_t *)&c->tcp, on_closed);
	uv_close((uv_handle_t *)&c->timer, on_closed);
}

static void
conn_send(struct conn *c, const struct text *t)
{
	if (!send_bytes((uv_stream_t *)&c->tcp, t->bytes, t->size))
		conn_close(c);
}

static void
on_pace(uv_timer_t *timer)
{
	struct conn *c = timer->data;
	if (c->events_left > 0) {
		c->events_left--;
		server.events_sent++;
		conn_send(c, &server.delta);
		return;
	}
	uv_timer_stop(timer);
	c->streaming = false;
	conn_send(c, &server.closing);
}

static void
stream_start(struct conn *c)
{
	uint64_t period_ms = 1000 / server.rate;
	c->events_left = server.events;
	c->streaming = true;
	server.streams++;
	conn_send(c, &server.opening);
	uv_timer_start(&c->timer, on_pace, 1 + (uint64_t)random() % period_ms, period_ms);
}

static void
answer_json(struct conn *c, const char *body)
{
	struct text t;
	t.size = (size_t)snprintf(t.bytes, sizeof(t.bytes),
	    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);
	conn_send(c, &t);
}

static bool
pace_set(uint32_t events, uint32_t rate)
{
	if (events > EVENTS_MAX || rate < 1 || rate > RATE_MAX)
		return false;
	server.events = events;
	server.rate = rate;
	render_stream();
	return true;
}

static void
answer_control(struct conn *c)
{
	char body[256];
	uint32_t events, rate;
	if (strcmp(c->url, "/__stats") == 0)
		snprintf(body, sizeof(body), "{\"requests\":%" PRIu64 ",\"streams\":%" PRIu64 ",\"events\":%" PRIu64 ",\"connections\":%" PRIu64 "}",
		    server.requests, server.streams, server.events_sent, server.connections);
	else if (sscanf(c->url, "/__pace?events=%" SCNu32 "&rate=%" SCNu32, &events, &rate) == 2 && pace_set(events, rate))
		snprintf(body, sizeof(body), "{\"events\":%" PRIu32 ",\"rate\":%" PRIu32 "}", events, rate);
	else
		snprintf(body, sizeof(body), "{\"error\":\"unknown request\"}");
	answer_json(c, body);
}

static int
on_begin(llhttp_t *parser)
{
	struct conn *c = parser->data;
	c->body_size = c->url_size = 0;
	return c->streaming ? -1 : 0;	/* no pipelining behind an open stream */
}

static int
on_url(llhttp_t *parser, const char *at, size_t size)
{
	struct conn *c = parser->data;
	if (size >= sizeof(c->url) - c->url_size)
		return -1;
	memcpy(c->url + c->url_size, at, size);
	c->url_size += size;
	c->url[c->url_size] = '\0';
	return 0;
}

static int
on_body(llhttp_t *parser, const char *at, size_t size)
{
	struct conn *c = parser->data;
	size_t needed = c->body_size + size;
	if (needed > BODY_BYTES_MAX)
		return -1;
	if (needed > c->body_room) {
		size_t room = c->body_room == 0 ? BODY_BYTES_FIRST : c->body_room;
		while (room < needed)
			room *= 2;
		char *grown = realloc(c->body, room);
		if (grown == NULL)
			return -1;
		c->body = grown;
		c->body_room = room;
	}
	memcpy(c->body + c->body_size, at, size);
	c->body_size = needed;
	return 0;
}

static int
on_complete(llhttp_t *parser)
{
	static const char wanted[] = "\"stream\":true";
	struct conn *c = parser->data;
	if (c->parser.method != HTTP_POST) {
		answer_control(c);
		return 0;
	}
	server.requests++;
	if (c->body_size > 0 && memmem(c->body, c->body_size, wanted, sizeof(wanted) - 1) != NULL)
		stream_start(c);
	else
		conn_send(c, &server.message);
	return 0;
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	(void)handle;
	(void)suggested;
	*buf = uv_buf_init(server.input, sizeof(server.input));	/* parsed before the next read */
}

static void
on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
	struct conn *c = stream->data;
	if (size < 0 || llhttp_execute(&c->parser, buf->base, (size_t)size) != HPE_OK)
		conn_close(c);
}

static void
on_connection(uv_stream_t *listener, int status)
{
	if (status < 0)
		return;
	struct conn *c = calloc(1, sizeof(*c));
	if (c == NULL)
		abort();
	uv_tcp_init(server.loop, &c->tcp);
	uv_timer_init(server.loop, &c->timer);
	c->handles = 2;
	c->tcp.data = c->timer.data = c;
	server.connections++;
	llhttp_init(&c->parser, HTTP_REQUEST, &server.callbacks);
	c->parser.data = c;
	if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0 || uv_tcp_nodelay(&c->tcp, 1) != 0 ||
	    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
		conn_close(c);
}

static void
on_term(uv_signal_t *signal, int number)
{
	(void)number;
	uv_stop(signal->loop);
}

static int
listen_any(uv_tcp_t *listener)
{
	struct sockaddr_in address;
	int size = sizeof(address);
	uv_ip4_addr("127.0.0.1", 0, &address);
	uv_tcp_init(server.loop, listener);
	int err = uv_tcp_bind(listener, (struct sockaddr *)&address, 0);
	if (err == 0)
		err = uv_listen((uv_stream_t *)listener, BACKLOG, on_connection);
	if (err == 0)
		err = uv_tcp_getsockname(listener, (struct sockaddr *)&address, &size);
	if (err != 0) {
		fprintf(stderr, "upstream: 127.0.0.1: %s\n", uv_strerror(err));
		return 1;
	}
	printf("{\"port\":%u}\n", (unsigned int)ntohs(address.sin_port));
	fflush(stdout);
	return 0;
}

static bool
parse_arguments(int argc, char **argv)
{
	uint32_t events = 100, rate = 50;
	server.headers = all_headers;
	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			return false;
		if (strcmp(argv[i], "--events") == 0)
			events = (uint32_t)strtoul(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--rate") == 0)
			rate = (uint32_t)strtoul(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--headers") == 0)
			server.headers = strcmp(argv[i + 1], "few") == 0 ? few_headers : all_headers;
		else
			return false;
	}
	return pace_set(events, rate);
}

int
main(int argc, char **argv)
{
	uv_tcp_t listener;
	uv_signal_t term;
	if (!parse_arguments(argc, argv)) {
		fprintf(stderr, "usage: upstream [--events N] [--rate 1..%d] [--headers all|few]\n", RATE_MAX);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	render_message(&server.message);
	llhttp_settings_init(&server.callbacks);
	server.callbacks.on_message_begin = on_begin;
	server.callbacks.on_url = on_url;
	server.callbacks.on_body = on_body;
	server.callbacks.on_message_complete = on_complete;
	server.loop = uv_default_loop();
	if (listen_any(&listener) != 0)
		return 1;
	uv_signal_init(server.loop, &term);
	uv_signal_start(&term, on_term, SIGTERM);
	uv_run(server.loop, UV_RUN_DEFAULT);
	return 0;
}
