/*
 * The admin process as its visitors see it: the real one, forked, on a port of
 * the kernel's choice. Readiness is also tested alone, with a clock of ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/admin.h"
#include "gateway/channel.h"
#include "shm/base/clock.h"
#include "upstream/wire/tls.h"

#define PATIENCE_MS 20000
#define ANSWER_MAX (1u << 20)

static char path[] = "/tmp/weir-test-admin-XXXXXX";
static struct arena arena;
static struct settings *settings;
static struct buf bundle;

struct admin_process {
	pid_t pid;
	int control;
	struct sockaddr_in address;
};

static int
set_up(void **state)
{
	(void)state;
	struct arena_sizes want = { .workers = 2, .inflight = 16, .ring_bytes = 65536, .meters = 1024 };
	enum arena_origin origin;
	struct problems problems;
	char why[256];
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	close(fd);
	unlink(path);
	if (arena_open(&arena, path, &want, &origin, why, sizeof(why)) != 0)
		return -1;
	setenv("HOME", "/nonexistent", 1);
	unsetenv("ANTHROPIC_API_KEY");
	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	problems_init(&problems);
	if (!settings_load(NULL, &bundle, &problems))
		return -1;
	settings = settings_compile(buf_slice(&bundle), 1, &problems);
	problems_free(&problems);
	return settings ? 0 : -1;
}

static int
tear_down(void **state)
{
	(void)state;
	settings_put(settings);
	buf_free(&bundle);
	char lock[64];

	arena_close(&arena);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	return unlink(path);
}

/* ---- one admin process ---- */

static struct channel_message
told(const struct admin_process *a)
{
	int64_t until = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
	struct channel_message m = { .word = 0 };
	int fd, result;

	while ((result = channel_receive(a->control, &m, &fd)) == 0 && clock_mono_ns() < until)
		poll(NULL, 0, 2);
	assert_int_equal(result, 1);
	return m;
}

static void
start(struct admin_process *a)
{
	socklen_t size = sizeof(a->address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), child_end;

	a->address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a->address, size), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a->address, &size), 0);
	assert_int_equal(listen(listener, 64), 0);
	assert_int_equal(channel_pair(&a->control, &child_end), 0);
	a->pid = fork();
	assert_true(a->pid >= 0);
	if (a->pid == 0) {
		close(a->control);
		_exit(admin_run(&arena, settings, listener, child_end));
	}
	close(listener);
	close(child_end);
	assert_int_equal(told(a).word, CHANNEL_READY);
}

static int
wait_for_end(struct admin_process *a)
{
	int64_t until = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
	int status;
	pid_t got;

	while ((got = waitpid(a->pid, &status, WNOHANG)) == 0 && clock_mono_ns() < until)
		poll(NULL, 0, 2);
	if (got == 0) {
		kill(a->pid, SIGKILL);
		waitpid(a->pid, &status, 0);
		fail_msg("the admin process does not end");
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void
stop(struct admin_process *a)
{
	kill(a->pid, SIGTERM);
	assert_int_equal(wait_for_end(a), 0);
	close(a->control);
}

static int
visit(const struct admin_process *a)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&a->address, sizeof(a->address)), 0);
	return fd;
}

static void
say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until `end` is in the text (NULL: until the peer ends); the text is NUL-terminated. */
static void
hear(int fd, struct buf *text, const char *end)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	buf_init(text, ANSWER_MAX);
	buf_reserve(text, 1);
	text->p[0] = '\0';
	while (!end || !strstr(text->p, end)) {
		if (poll(&p, 1, PATIENCE_MS) <= 0)
			fail_msg("no more came after:\n%s", text->p);
		assert_true(buf_reserve(text, 65537));
		ssize_t n = recv(fd, text->p + text->n, 65536, 0);
		if (n <= 0 && !end)
			break;
		assert_true(n > 0);
		text->n += (size_t)n;
		text->p[text->n] = '\0';
	}
}

/* One request on a connection of its own, which is closed after it. */
static struct buf
ask(const struct admin_process *a, const char *method, const char *target)
{
	char request[256];
	struct buf text;
	int fd = visit(a);

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, target);
	say(fd, request);
	hear(fd, &text, NULL);
	close(fd);
	return text;
}

static void
expect(const struct admin_process *a, const char *method, const char *target, const char *status, const char *words)
{
	struct buf text = ask(a, method, target);

	if (strncmp(text.p, status, strlen(status)) != 0 || !strstr(text.p, words))
		fail_msg("%s %s: expected %s and \"%s\" in:\n%s", method, target, status, words, text.p);
	buf_free(&text);
}

/* ---- tests ---- */

static void
test_ready(void **state)
{
	(void)state;
	struct buf json;
	int64_t now = 1000 * NS_PER_S;

	buf_init(&json, 4096);
	arena_proc_start(&arena, 0, 11);	/* with a first heartbeat, of the real clock */
	arena_heartbeat(&arena, 0, now);
	assert_false(admin_ready(&arena, settings, now, &json));
	assert_true(slice_contains(buf_slice(&json), SLICE("\"reasons\":[\"worker-1 is not running\",\"keeper is not running\"]")));

	arena_proc_start(&arena, 1, 12);
	arena_proc_start(&arena, PROC_KEEPER, 13);
	arena_heartbeat(&arena, PROC_KEEPER, now);
	arena_heartbeat(&arena, 1, now);
	buf_clear(&json);
	assert_true(admin_ready(&arena, settings, now, &json));
	assert_true(slice_contains(buf_slice(&json), SLICE("{\"ready\":true,")));
	assert_true(slice_contains(buf_slice(&json), SLICE("\"reasons\":[]")));

	arena_store_failing_set(&arena, true);
	buf_clear(&json);
	assert_false(admin_ready(&arena, settings, now, &json));
	assert_true(slice_contains(buf_slice(&json), SLICE("\"reasons\":[\"the store cannot be written\"]")));
	arena_store_failing_set(&arena, false);

	buf_clear(&json);
	assert_true(admin_ready(&arena, settings, now + 5 * NS_PER_S, &json));
	buf_clear(&json);
	assert_false(admin_ready(&arena, settings, now + 6 * NS_PER_S, &json));
	assert_true(slice_contains(buf_slice(&json), SLICE("\"worker-0 has been silent for 6 s\"")));
	assert_false(slice_contains(buf_slice(&json), SLICE("keeper")));
	buf_free(&json);
	arena_proc_stop(&arena, 0);
	arena_proc_stop(&arena, 1);
	arena_proc_stop(&arena, PROC_KEEPER);
}

static void
test_answers(void **state)
{
	(void)state;
	struct admin_process a;

	start(&a);
	expect(&a, "GET", "/healthz", "HTTP/1.1 200 OK\r\n", "{\"status\":\"ok\"");
	expect(&a, "GET", "/metrics", "HTTP/1.1 200 OK\r\n", "\r\n\r\n# HELP weir_requests_total ");
	expect(&a, "GET", "/metrics?x=y", "HTTP/1.1 200 OK\r\n",
	    "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
	expect(&a, "GET", "/readyz", "HTTP/1.1 503 Service Unavailable\r\n", "worker-0 is not running");
	expect(&a, "GET", "/", "HTTP/1.1 404 Not Found\r\n", "{\"error\":{\"type\":\"not_found\"");
	expect(&a, "GET", "/metrics/", "HTTP/1.1 404 Not Found\r\n", "\r\nContent-Type: application/json\r\n");
	expect(&a, "POST", "/metrics", "HTTP/1.1 405 Method Not Allowed\r\n", "\r\nAllow: GET, HEAD\r\n");

	struct buf head = ask(&a, "HEAD", "/healthz"), get = ask(&a, "GET", "/healthz");
	const char *blank = strstr(get.p, "\r\n\r\n");
	assert_non_null(blank);
	assert_int_equal(head.n, (size_t)(blank - get.p) + 4);	/* the same head, and nothing behind it */
	assert_memory_equal(head.p, get.p, head.n);
	buf_free(&head);
	buf_free(&get);
	stop(&a);
}

static void
test_keep_alive(void **state)
{
	(void)state;
	struct admin_process a;
	struct buf text;

	start(&a);
	int fd = visit(&a);
	for (int i = 0; i < 3; i++) {
		say(fd, "GET /healthz HTTP/1.1\r\nHo");
		say(fd, "st: x\r\nContent-Length: 3\r\n\r\nabc");
		hear(fd, &text, "}\n");
		assert_null(strstr(text.p, "Connection: close"));
		buf_free(&text);
	}
	/* Ahead of its turn: the first is answered, and that is the end. */
	say(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	hear(fd, &text, NULL);
	assert_non_null(strstr(text.p, "Connection: close"));
	assert_null(strstr(text.p, "weir_requests_total"));
	buf_free(&text);
	close(fd);

	fd = visit(&a);
	say(fd, "GET /healthz HTTP/1.0\r\n\r\n");
	hear(fd, &text, NULL);
	assert_true(strncmp(text.p, "HTTP/1.1 200", 12) == 0);
	buf_free(&text);
	close(fd);
	stop(&a);
}

static void
test_bad_visitors(void **state)
{
	(void)state;
	static const struct { const char *request, *status; } rows[] = {
		{ "GET /metrics\r\n\r\n", "HTTP/1.1 400" },
		{ "GET /metrics HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400" },
		{ "\x16\x03\x01\x02\r\n\r\n", "HTTP/1.1 400" },
		{ "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200" },
	};
	struct admin_process a;
	struct buf text;

	start(&a);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int fd = visit(&a);

		say(fd, rows[i].request);
		hear(fd, &text, NULL);
		if (strncmp(text.p, rows[i].status, strlen(rows[i].status)) != 0)
			fail_msg("%s:\n%s", rows[i].request, text.p);
		buf_free(&text);
		close(fd);
	}
	expect(&a, "GET", "/healthz", "HTTP/1.1 200 OK\r\n", "ok");
	stop(&a);
}

/* More visitors than places: the others wait in the kernel, and get their turn. */
static void
test_full_house(void **state)
{
	(void)state;
	struct admin_process a;
	struct buf text;
	int idle[40], last;

	start(&a);
	for (size_t i = 0; i < 40; i++) {
		idle[i] = visit(&a);
		say(idle[i], "GET /healthz HTTP/1.1\r\n");
	}
	last = visit(&a);
	say(last, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
	for (size_t i = 0; i < 40; i++)
		close(idle[i]);
	hear(last, &text, "}\n");
	assert_true(strncmp(text.p, "HTTP/1.1 200", 12) == 0);
	buf_free(&text);
	close(last);
	stop(&a);
}

static void
test_reload(void **state)
{
	(void)state;
	struct admin_process a;
	struct channel_message m = { .word = CHANNEL_RELOAD, .version = 7 }, got = { .word = 0 };
	struct tls_ticket_keys keys = { .previous_valid = false };
	struct buf content;

	start(&a);
	expect(&a, "GET", "/metrics", "HTTP/1.1 200", "\nweir_settings_version 1\n");
	buf_init(&content, SETTINGS_BUNDLE_BYTES_MAX);
	buf_add(&content, &keys, sizeof(keys));
	buf_add_slice(&content, buf_slice(&bundle));
	int memfd = channel_memfd("weir-test", (const struct slice[]){ buf_slice(&content) }, 1);
	assert_true(memfd >= 0);
	assert_int_equal(channel_send(a.control, &m, memfd), 0);
	close(memfd);
	buf_free(&content);
	got = told(&a);
	assert_int_equal(got.word, CHANNEL_RELOADED);
	assert_int_equal(got.version, 7);
	expect(&a, "GET", "/metrics", "HTTP/1.1 200", "\nweir_settings_version 7\n");

	/* Nonsense changes nothing. */
	m.version = 8;
	memfd = channel_memfd("weir-test", (const struct slice[]){ SLICE("{") }, 1);
	assert_int_equal(channel_send(a.control, &m, memfd), 0);
	close(memfd);
	(void)told(&a);
	expect(&a, "GET", "/metrics", "HTTP/1.1 200", "\nweir_settings_version 7\n");
	stop(&a);
}

static void
test_the_master_is_gone(void **state)
{
	(void)state;
	struct admin_process a;

	start(&a);
	int fd = visit(&a);
	say(fd, "GET /healthz HTTP/1.1\r\n");
	close(a.control);
	assert_int_equal(wait_for_end(&a), 0);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ready),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_keep_alive),
		cmocka_unit_test(test_bad_visitors),
		cmocka_unit_test(test_full_house),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_the_master_is_gone),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
