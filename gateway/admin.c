/*
 * gateway/admin.c -- a small HTTP server on a loop of its own.
 *
 * A fixed table of visitors; when it is full, further connections wait in the
 * kernel. Each visitor has one deadline, moved on when it begins a request,
 * gets its answer, or has taken it; one timer a second looks at all of them
 * and tells the arena that this process lives. Answers are built whole, so a
 * visitor that reads slowly holds one answer and no lock. A request that comes
 * before the answer to the one before it was read ends the connection after
 * its turn: nobody needs pipelining here, and the memory stays bounded.
 */
#include "gateway/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "gateway/channel.h"
#include "gateway/master.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "upstream/wire/http1.h"
#include "upstream/wire/stream.h"
#include "upstream/wire/tls.h"

#define VISITORS_MAX 32			/* scrapers, probes, a person or two */
#define HEAD_BYTES_MAX 8192
#define BODY_BYTES_MAX 65536		/* nobody sends one; it is read and forgotten */
#define ANSWER_BYTES_MAX (8u << 20)	/* every series that the limits allow takes 4 MiB */
#define TICK_MS 1000
#define REQUEST_MS 10000		/* from its first byte to its last; and to take the answer */
#define KEEP_ALIVE_MS 75000		/* above the usual interval of scrapes */
#define WORKER_SILENT_NS (5 * NS_PER_S)	/* a worker's heart beats once a second */
#define KEEPER_SILENT_NS (30 * NS_PER_S)	/* a commit to a slow disk may take a while */

struct admin;

struct visitor {
	struct stream stream;
	struct http1 http;
	struct scratch mem;
	struct admin *admin;
	uint64_t deadline_ms;
	size_t body_bytes;
	bool used, in_request, ending;
};

struct admin {
	uv_loop_t loop;
	uv_tcp_t listener;
	uv_timer_t tick;
	uv_signal_t on_term;
	uv_poll_t control;
	struct arena *arena;
	struct settings *settings;
	int control_fd;
	bool connection_waits;	/* in the kernel, for a free visitor */
	bool stopping;
	struct visitor visitors[VISITORS_MAX];
};

struct answer {
	int status;
	const char *type;	/* of the content */
	const char *headers;	/* further lines, or "" */
	struct buf body;
};

/* ---- answers ---- */

static void
reason(struct buf *json, uint32_t *count, const char *text)
{
	if ((*count)++ > 0)
		buf_add_char(json, ',');
	buf_add_json(json, slice_of(text));
}

static void
process_reason(struct buf *json, uint32_t *count, const char *process, struct proc_view view, int64_t now, int64_t silent_ns)
{
	char text[128];
	int64_t silent = now - view.heartbeat_mono_ns;

	if (view.pid == 0)
		snprintf(text, sizeof(text), "%s is not running", process);
	else if (silent > silent_ns)
		snprintf(text, sizeof(text), "%s has been silent for %" PRId64 " s", process, silent / NS_PER_S);
	else
		return;
	reason(json, count, text);
}

bool
admin_ready(const struct arena *a, const struct settings *s, int64_t mono_ns, struct buf *json)
{
	uint32_t workers = arena_sizes(a).workers, reasons = 0;
	struct buf list;
	char name[24];

	buf_init(&list, 64 * 1024);
	for (uint32_t i = 0; i < workers; i++) {
		snprintf(name, sizeof(name), "worker-%u", i);
		process_reason(&list, &reasons, name, arena_proc(a, i), mono_ns, WORKER_SILENT_NS);
	}
	process_reason(&list, &reasons, "keeper", arena_proc(a, PROC_KEEPER), mono_ns, KEEPER_SILENT_NS);
	if (arena_store_failing(a))
		reason(&list, &reasons, "the store cannot be written");
	buf_printf(json, "{\"ready\":%s,\"version\":\"%s\",\"settings_version\":%" PRIu64 ",\"reasons\":[%.*s]}\n",
	    reasons ? "false" : "true", WEIR_VERSION, s->version, SLICE_FMT(buf_slice(&list)));
	buf_free(&list);
	return reasons == 0;
}

static void
answer_error(struct answer *out, int status, const char *type, const char *message)
{
	out->status = status;
	out->type = "application/json";
	buf_clear(&out->body);
	buf_printf(&out->body, "{\"error\":{\"type\":\"%s\",\"message\":", type);
	buf_add_json(&out->body, slice_of(message));
	buf_add_str(&out->body, "}}\n");
}

static void
answer_build(struct admin *a, const struct http1_head *head, struct answer *out)
{
	const char *mark = memchr(head->target.p, '?', head->target.n);
	struct slice path = { head->target.p, mark ? (size_t)(mark - head->target.p) : head->target.n };
	bool metrics = slice_eq(path, SLICE("/metrics")), ready = slice_eq(path, SLICE("/readyz"));

	out->status = 200;
	out->type = "application/json";
	if (!metrics && !ready && !slice_eq(path, SLICE("/healthz"))) {
		answer_error(out, 404, "not_found", "here are /metrics, /healthz and /readyz");
	} else if (!slice_eq(head->method, SLICE("GET")) && !slice_eq(head->method, SLICE("HEAD"))) {
		answer_error(out, 405, "method_not_allowed", "only GET and HEAD");
		out->headers = "Allow: GET, HEAD\r\n";
	} else if (metrics) {
		out->type = "text/plain; version=0.0.4; charset=utf-8";
		metrics_render(a->arena, a->settings, clock_mono_ns(), &out->body);
		if (out->body.overflow)
			answer_error(out, 500, "too_large", "the metrics do not fit into an answer");
	} else if (ready) {
		out->status = admin_ready(a->arena, a->settings, clock_mono_ns(), &out->body) ? 200 : 503;
	} else {
		buf_printf(&out->body, "{\"status\":\"ok\",\"version\":\"%s\"}\n", WEIR_VERSION);
	}
}

static void
answer_send(struct visitor *v, struct answer *answer, bool with_body)
{
	char head[512];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
	    "Cache-Control: no-store\r\n%s%s\r\n", answer->status, http1_reason(answer->status), answer->type,
	    answer->body.n, answer->headers, v->ending ? "Connection: close\r\n" : "");
	CHECK(n > 0 && (size_t)n < sizeof(head));
	struct slice pieces[2] = { { head, (size_t)n }, buf_slice(&answer->body) };

	size_t queued = stream_writev(&v->stream, pieces, with_body ? 2 : 1);
	v->deadline_ms = uv_now(&v->admin->loop) + (queued || v->ending ? REQUEST_MS : KEEP_ALIVE_MS);
	if (v->ending)
		stream_shutdown(&v->stream);
	else if (queued > 0)
		stream_pause(&v->stream);	/* one answer at a time: see on_drain() */
}

static void
request_answer(struct visitor *v)
{
	const struct http1_head *head = &v->http.head;
	struct answer answer = { .headers = "" };

	buf_init(&answer.body, ANSWER_BYTES_MAX);
	answer_build(v->admin, head, &answer);
	answer_send(v, &answer, !slice_eq(head->method, SLICE("HEAD")));
	buf_free(&answer.body);
}

static void
request_refuse(struct visitor *v, int status, const char *message)
{
	struct answer answer = { .headers = "" };

	v->ending = true;
	buf_init(&answer.body, 4096);
	answer_error(&answer, status, "bad_request", message);
	answer_send(v, &answer, true);
	buf_free(&answer.body);
}

/* ---- visitors ---- */

static void
request_begin(struct visitor *v)
{
	scratch_reset(&v->mem);
	http1_begin(&v->http, &v->mem, false);
	v->in_request = false;
	v->body_bytes = 0;
}

/* A whole request has come; `rest` is what its sender did not wait with. */
static void
request_done(struct visitor *v, struct slice rest)
{
	v->ending = v->ending || rest.n > 0 || !v->http.head.keep_alive || v->admin->stopping;
	request_answer(v);
	request_begin(v);
}

static void
on_data(struct stream *s, const char *p, size_t n)
{
	struct visitor *v = s->owner;
	struct slice input = { p, n };

	if (!v->in_request && !v->ending)
		v->deadline_ms = uv_now(&v->admin->loop) + REQUEST_MS;
	v->in_request = true;
	while (!v->ending) {
		switch (http1_feed(&v->http, &input)) {
		case HTTP1_MORE:
			return;
		case HTTP1_HEAD:
			if (!v->http.head.expect_continue)
				break;
			v->ending = true;	/* the body would not come: answer now */
			request_answer(v);
			break;
		case HTTP1_BODY:
			v->body_bytes += v->http.span.n;
			if (v->body_bytes > BODY_BYTES_MAX)
				request_refuse(v, 413, "no body is expected here");
			break;
		case HTTP1_DONE:
			request_done(v, input);
			return;
		case HTTP1_ERROR:
			request_refuse(v, v->http.error_status ? v->http.error_status : 400, v->http.error);
			break;
		}
	}
}

static void
on_end(struct stream *s, int error, const char *text)
{
	(void)error, (void)text;
	stream_close(s);
}

static void
on_drain(struct stream *s)
{
	struct visitor *v = s->owner;

	if (v->ending)
		return;
	v->deadline_ms = uv_now(&v->admin->loop) + KEEP_ALIVE_MS;
	stream_resume(s);
}

static void
on_open(struct stream *s)
{
	(void)s;
}

static void accept_next(struct admin *a);

static void
on_closed(struct stream *s)
{
	struct visitor *v = s->owner;

	http1_free(&v->http);
	scratch_reset(&v->mem);
	v->used = false;
	if (v->admin->connection_waits && !v->admin->stopping)
		accept_next(v->admin);
}

static const struct stream_callbacks visitor_callbacks = {
	.on_open = on_open, .on_data = on_data, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed,
};

static void
accept_next(struct admin *a)
{
	struct visitor *v = NULL;

	for (uint32_t i = 0; i < VISITORS_MAX && !v; i++)
		if (!a->visitors[i].used)
			v = &a->visitors[i];
	/* libuv takes no further connection until this one has been accepted. */
	a->connection_waits = v == NULL;
	if (!v)
		return;
	v->used = true;
	v->ending = false;
	v->admin = a;
	v->deadline_ms = uv_now(&a->loop) + REQUEST_MS;
	scratch_init(&v->mem, 4 * HEAD_BYTES_MAX);
	http1_init(&v->http, false, HEAD_BYTES_MAX);
	request_begin(v);
	if (stream_accept(&v->stream, (uv_stream_t *)&a->listener, NULL, &visitor_callbacks, v) != 0)
		stream_close(&v->stream);
}

static void
on_connection(uv_stream_t *listener, int status)
{
	struct admin *a = listener->data;

	if (status == 0 && !a->stopping)
		accept_next(a);
}

/* ---- the process ---- */

static void
stop(struct admin *a)
{
	if (a->stopping)
		return;
	a->stopping = true;
	for (uint32_t i = 0; i < VISITORS_MAX; i++)
		if (a->visitors[i].used)
			stream_close(&a->visitors[i].stream);
	uv_close((uv_handle_t *)&a->listener, NULL);
	uv_close((uv_handle_t *)&a->tick, NULL);
	uv_close((uv_handle_t *)&a->on_term, NULL);
	uv_close((uv_handle_t *)&a->control, NULL);
}

static void
on_term(uv_signal_t *s, int signum)
{
	(void)signum;
	stop(s->data);
}

static void
on_tick(uv_timer_t *t)
{
	struct admin *a = t->data;

	arena_heartbeat(a->arena, PROC_ADMIN, clock_mono_ns());
	for (uint32_t i = 0; i < VISITORS_MAX; i++)
		if (a->visitors[i].used && uv_now(&a->loop) >= a->visitors[i].deadline_ms)
			stream_close(&a->visitors[i].stream);
}

static void
reload(struct admin *a, int memfd, uint64_t version)
{
	struct problems problems;
	struct buf text;
	struct settings *s = NULL;

	buf_init(&text, RELOAD_BYTES_MAX);
	problems_init(&problems);
	if (channel_read_memfd(memfd, &text) == 0 && text.n > sizeof(struct tls_ticket_keys)) {
		struct slice bundle = buf_slice(&text);

		bundle.p += sizeof(struct tls_ticket_keys);	/* the workers' part */
		bundle.n -= sizeof(struct tls_ticket_keys);
		s = settings_compile(bundle, version, &problems);
	} else {
		problem_add(&problems, "", "they could not be read");
	}
	if (s) {
		settings_put(a->settings);
		a->settings = s;
	} else {
		struct slice lines = buf_slice(&problems.text);

		log_error("reload: the old settings stay: %.*s", (int)(lines.n - (lines.n > 0)), lines.p);
	}
	if (text.p)
		explicit_bzero(text.p, text.cap);
	buf_free(&text);
	problems_free(&problems);
}

static void
on_control(uv_poll_t *poll, int status, int events)
{
	struct admin *a = poll->data;
	struct channel_message m;
	int fd, got = status < 0 ? -1 : 1;

	(void)events;
	while (got > 0 && (got = channel_receive(a->control_fd, &m, &fd)) > 0) {
		if (m.word == CHANNEL_RELOAD && fd >= 0) {
			struct channel_message done = { .word = CHANNEL_RELOADED, .version = m.version };

			reload(a, fd, m.version);
			if (channel_send(a->control_fd, &done, -1) != 0)
				log_warn("reload: the master did not hear that it is done");
		}
		if (fd >= 0)
			close(fd);
	}
	if (got < 0)	/* the master is gone: nobody is left to watch over */
		stop(a);
}

static bool
start(struct admin *a, int listen_fd)
{
	const char *what = "the listener";
	int e;

	CHECK(uv_loop_init(&a->loop) == 0);
	CHECK(uv_timer_init(&a->loop, &a->tick) == 0);
	CHECK(uv_signal_init(&a->loop, &a->on_term) == 0);
	CHECK(uv_tcp_init(&a->loop, &a->listener) == 0);
	CHECK(uv_poll_init(&a->loop, &a->control, a->control_fd) == 0);
	a->listener.data = a->tick.data = a->on_term.data = a->control.data = a;

	e = uv_tcp_open(&a->listener, listen_fd);
	if (e == 0)
		e = uv_listen((uv_stream_t *)&a->listener, 64, on_connection);
	if (e == 0) {
		what = "the loop";
		e = uv_timer_start(&a->tick, on_tick, TICK_MS, TICK_MS);
	}
	if (e == 0)
		e = uv_signal_start(&a->on_term, on_term, SIGTERM);
	if (e == 0)
		e = uv_poll_start(&a->control, UV_READABLE, on_control);
	if (e != 0)
		log_error("admin: %s: %s", what, uv_strerror(e));
	return e == 0;
}

int
admin_run(struct arena *a, struct settings *s, int listen_fd, int control_fd)
{
	struct admin *admin = calloc(1, sizeof(*admin));

	CHECK(admin);
	admin->arena = a;
	admin->settings = settings_get(s);
	admin->control_fd = control_fd;
	const struct channel_message ready = { .word = CHANNEL_READY };
	bool ok = start(admin, listen_fd) && channel_send(control_fd, &ready, -1) == 0;
	if (!ok)
		stop(admin);
	arena_heartbeat(a, PROC_ADMIN, clock_mono_ns());
	uv_run(&admin->loop, UV_RUN_DEFAULT);
	CHECK(uv_loop_close(&admin->loop) == 0);
	settings_put(admin->settings);
	free(admin);
	return ok ? 0 : 1;
}
