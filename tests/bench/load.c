/*
 * tests/bench/load.c -- the load generator: one prebuilt request, many times.
 *
 *	load --port N --path P --head FILE --body FILE
 *	     [--connections C] [--rate R] [--requests N] [--seconds S]
 *
 * Closed loop (no --rate): C keep-alive connections, each sends its next
 * request when the last answer is complete. An event stream is one long answer,
 * so C open streams are the same thing.
 *
 * Paced (--rate R): request i is due at start + i/R, whatever became of the
 * ones before it. Latency counts from that moment, not from the send, so a
 * stall is charged to every request that it held up (no coordinated omission).
 *
 * Each line on standard input ends an interval: its figures go to standard
 * output as one JSON line, and counting starts afresh. So whoever measures
 * takes processor times and counts at the same moment, and warm-up is an
 * interval thrown away. The last interval ends after --requests answers, after
 * --seconds, at SIGTERM or at the end of the input.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <llhttp.h>
#include <uv.h>

#include "tests/bench/histogram.h"
#include "tests/bench/send.h"

enum {
	READ_BYTES = 256 * 1024,
	CONNECTIONS_MAX = 20000,
	CONNECTING_MAX = 64,	/* at once: below every accept queue */
	FILE_BYTES_MAX = 8 * 1024 * 1024,
	RECONNECT_MAX = 1000,	/* then whatever is there is not a server */
};

struct conn {
	uv_tcp_t tcp;
	uv_connect_t connect;
	llhttp_t parser;
	struct conn *next_idle;
	uint64_t since_ns;	/* when the request in flight was due */
	bool busy;
	bool answering;		/* the head of its answer is here */
	bool after_newline;	/* the last byte of the body so far was one */
};

static struct options {
	const char *path, *head_file, *body_file;
	uint32_t port, connections, rate, seconds;
	uint64_t requests;
} options = { .connections = 1, .seconds = 60 };

static struct {
	uv_loop_t *loop;
	llhttp_settings_t callbacks;
	struct conn *conns;
	struct conn *idle;	/* paced: connections without a request */
	char *request;
	size_t request_size;
	uint32_t opened, connecting, reconnects;
	uint64_t issued, completed;
	uint64_t start_ns, period_ns;
	uv_poll_t pacer;
	int pacer_fd;
	uv_pipe_t input;
	uv_timer_t deadline;
	uv_signal_t term;
	char read_bytes[READ_BYTES], input_bytes[256];
} load;

static struct {
	uint64_t since_ns, requests, errors, events, bytes;
	struct histogram latency;
} interval;
static uint32_t open_answers;

static void conn_open(struct conn *c);
static void conn_lost(struct conn *c);

static void
interval_report(void)
{
	const struct histogram *h = &interval.latency;
	uint64_t now_ns = uv_hrtime();
	printf("{\"seconds\":%.6f,\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"events\":%" PRIu64 ",\"bytes\":%" PRIu64
	    ",\"open\":%" PRIu32 ",\"reconnects\":%" PRIu32, (double)(now_ns - interval.since_ns) / 1e9, interval.requests,
	    interval.errors, interval.events, interval.bytes, open_answers, load.reconnects);
	printf(",\"mean_us\":%.2f,\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"max_us\":%.2f}\n",
	    h->count == 0 ? 0.0 : (double)h->sum_ns / (double)h->count / 1e3, (double)histogram_quantile_ns(h, 0.5) / 1e3,
	    (double)histogram_quantile_ns(h, 0.9) / 1e3, (double)histogram_quantile_ns(h, 0.99) / 1e3, (double)h->max_ns / 1e3);
	fflush(stdout);
	memset(&interval, 0, sizeof(interval));
	interval.since_ns = uv_hrtime();
}

static bool
may_issue(void)
{
	return options.requests == 0 || load.issued < options.requests;
}

static void
conn_send(struct conn *c, uint64_t due_ns)
{
	load.issued++;
	c->busy = true;
	c->since_ns = due_ns;
	if (!send_bytes((uv_stream_t *)&c->tcp, load.request, load.request_size))
		conn_lost(c);
}

static uint64_t
due_ns(uint64_t number)
{
	return load.start_ns + number * load.period_ns;
}

/* What a connection does that has nothing to do. */
static void
conn_next(struct conn *c)
{
	if (options.rate == 0) {
		if (may_issue())
			conn_send(c, uv_hrtime());
	} else if (load.start_ns != 0 && may_issue() && due_ns(load.issued) <= uv_hrtime()) {
		conn_send(c, due_ns(load.issued));	/* one that waited for a connection */
	} else {
		c->next_idle = load.idle;
		load.idle = c;
	}
}

static int
on_head(llhttp_t *parser)
{
	struct conn *c = parser->data;
	c->answering = true;
	c->after_newline = false;
	open_answers++;
	return 0;
}

/* Events are what blank lines end; JSON answers have none. */
static int
on_body(llhttp_t *parser, const char *at, size_t size)
{
	struct conn *c = parser->data;
	const char *end = at + size;
	interval.bytes += size;
	for (const char *p = at; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++) {
		bool blank = p == at ? c->after_newline : p[-1] == '\n';
		interval.events += blank;
	}
	c->after_newline = end[-1] == '\n';
	return 0;
}

static int
on_complete(llhttp_t *parser)
{
	struct conn *c = parser->data;
	if (parser->status_code == 100)
		return 0;
	open_answers -= c->answering;
	c->busy = c->answering = false;
	interval.requests++;
	interval.errors += parser->status_code != 200;
	histogram_add(&interval.latency, uv_hrtime() - c->since_ns);
	if (++load.completed == options.requests)
		uv_stop(load.loop);
	if (llhttp_should_keep_alive(parser))
		conn_next(c);
	return 0;
}

static void
on_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;
	if (load.reconnects++ < RECONNECT_MAX) {
		conn_open(c);
		return;
	}
	fprintf(stderr, "load: 127.0.0.1:%u closed %d connections; giving up\n", options.port, RECONNECT_MAX);
	exit(1);
}

static void
conn_lost(struct conn *c)
{
	if (uv_is_closing((uv_handle_t *)&c->tcp))
		return;
	if (c->busy) {
		interval.errors++;
		load.issued--;	/* to be asked again */
	}
	open_answers -= c->answering;
	c->busy = c->answering = false;
	for (struct conn **at = &load.idle; *at != NULL; at = &(*at)->next_idle)
		if (*at == c) {
			*at = c->next_idle;
			break;
		}
	uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	(void)handle;
	(void)suggested;
	*buf = uv_buf_init(load.read_bytes, sizeof(load.read_bytes));
}

static void
on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
	struct conn *c = stream->data;
	if (size < 0 || llhttp_execute(&c->parser, buf->base, (size_t)size) != HPE_OK)
		conn_lost(c);
}

static void
pacer_start(void)
{
	struct itimerspec spec = { 0 };
	load.period_ns = UINT64_C(1000000000) / options.rate;
	load.start_ns = uv_hrtime() + load.period_ns;
	spec.it_value.tv_sec = (time_t)(load.start_ns / 1000000000);
	spec.it_value.tv_nsec = (long)(load.start_ns % 1000000000);
	spec.it_interval.tv_nsec = (long)load.period_ns;
	timerfd_settime(load.pacer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void
ramp_up(void)
{
	while (load.opened < options.connections && load.connecting < CONNECTING_MAX)
		conn_open(&load.conns[load.opened++]);
	if (options.rate > 0 && load.start_ns == 0 && load.connecting == 0)
		pacer_start();
}

static void
on_connect(uv_connect_t *req, int status)
{
	struct conn *c = req->data;
	load.connecting--;
	if (status != 0 || uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
		conn_lost(c);
	else
		conn_next(c);
	ramp_up();
}

static void
conn_open(struct conn *c)
{
	struct sockaddr_in address;
	uv_ip4_addr("127.0.0.1", (int)options.port, &address);
	uv_tcp_init(load.loop, &c->tcp);
	uv_tcp_nodelay(&c->tcp, 1);
	c->tcp.data = c->connect.data = c;
	llhttp_init(&c->parser, HTTP_RESPONSE, &load.callbacks);
	c->parser.data = c;
	load.connecting++;
	if (uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&address, on_connect) != 0) {
		load.connecting--;
		conn_lost(c);
	}
}

static void
on_pacer(uv_poll_t *poll, int status, int events)
{
	uint64_t expirations;
	(void)poll, (void)status, (void)events;
	if (read(load.pacer_fd, &expirations, sizeof(expirations)) != sizeof(expirations))
		return;
	while (load.idle != NULL && may_issue() && due_ns(load.issued) <= uv_hrtime()) {
		struct conn *c = load.idle;
		load.idle = c->next_idle;
		conn_send(c, due_ns(load.issued));
	}
}

static void
on_input_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	(void)handle;
	(void)suggested;
	*buf = uv_buf_init(load.input_bytes, sizeof(load.input_bytes));
}

static void
on_input(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
	if (size < 0)
		uv_stop(stream->loop);
	for (ssize_t i = 0; i < size; i++)
		if (buf->base[i] == '\n')
			interval_report();
}

static void
on_deadline(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void
on_term(uv_signal_t *signal, int number)
{
	(void)number;
	uv_stop(signal->loop);
}

static char *
file_read(const char *name, size_t *size)
{
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size > FILE_BYTES_MAX) {
		fprintf(stderr, "load: %s: cannot be read, or larger than %d bytes\n", name, FILE_BYTES_MAX);
		exit(2);
	}
	char *bytes = malloc((size_t)st.st_size + 1);
	if (bytes == NULL || read(fd, bytes, (size_t)st.st_size) != st.st_size)
		abort();
	close(fd);
	*size = (size_t)st.st_size;
	bytes[*size] = '\0';
	return bytes;
}

/* The head file holds header lines that end in CRLF; we add what depends on the run. */
static void
request_build(void)
{
	size_t head_size, body_size;
	char *head = file_read(options.head_file, &head_size), *body = file_read(options.body_file, &body_size);
	char *all = NULL;
	int size = asprintf(&all, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\n%scontent-length: %zu\r\n\r\n", options.path,
	    options.port, head, body_size);
	load.request = size < 0 ? NULL : realloc(all, (size_t)size + body_size);
	if (load.request == NULL)
		abort();
	memcpy(load.request + size, body, body_size);
	load.request_size = (size_t)size + body_size;
	free(head);
	free(body);
}

static bool
parse_arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];
		if (value == NULL)
			return false;
		if (strcmp(name, "--path") == 0)
			options.path = value;
		else if (strcmp(name, "--head") == 0)
			options.head_file = value;
		else if (strcmp(name, "--body") == 0)
			options.body_file = value;
		else if (strcmp(name, "--port") == 0)
			options.port = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(name, "--connections") == 0)
			options.connections = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(name, "--rate") == 0)
			options.rate = (uint32_t)strtoul(value, NULL, 10);
		else if (strcmp(name, "--requests") == 0)
			options.requests = strtoull(value, NULL, 10);
		else if (strcmp(name, "--seconds") == 0)
			options.seconds = (uint32_t)strtoul(value, NULL, 10);
		else
			return false;
	}
	return options.path != NULL && options.head_file != NULL && options.body_file != NULL && options.port > 0 &&
	    options.port < 65536 && options.connections > 0 && options.connections <= CONNECTIONS_MAX && options.seconds > 0 &&
	    options.rate != 1 && options.rate <= 1000000;	/* a period below one second */
}

static void
watch(void)
{
	uv_pipe_init(load.loop, &load.input, 0);
	if (uv_pipe_open(&load.input, STDIN_FILENO) == 0)
		uv_read_start((uv_stream_t *)&load.input, on_input_alloc, on_input);
	uv_timer_init(load.loop, &load.deadline);
	uv_timer_start(&load.deadline, on_deadline, options.seconds * UINT64_C(1000), 0);
	uv_signal_init(load.loop, &load.term);
	uv_signal_start(&load.term, on_term, SIGTERM);
	if (options.rate == 0)
		return;
	load.pacer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (load.pacer_fd < 0)
		abort();
	uv_poll_init(load.loop, &load.pacer, load.pacer_fd);
	uv_poll_start(&load.pacer, UV_READABLE, on_pacer);
}

int
main(int argc, char **argv)
{
	if (!parse_arguments(argc, argv)) {
		fprintf(stderr, "usage: load --port N --path P --head FILE --body FILE [--connections 1..%d] [--rate 2..1000000] "
		    "[--requests N] [--seconds S]\n", CONNECTIONS_MAX);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	request_build();
	llhttp_settings_init(&load.callbacks);
	load.callbacks.on_headers_complete = on_head;
	load.callbacks.on_body = on_body;
	load.callbacks.on_message_complete = on_complete;
	load.loop = uv_default_loop();
	load.conns = calloc(options.connections, sizeof(*load.conns));
	if (load.conns == NULL)
		abort();
	watch();
	interval.since_ns = uv_hrtime();
	ramp_up();
	uv_run(load.loop, UV_RUN_DEFAULT);
	interval_report();
	return 0;
}
