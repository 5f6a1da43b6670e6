/*
 * weir health: is the weir of this machine alive, or ready?
 *
 * For health checks of containers and unit files, where no curl is at hand:
 * one GET to the admin listener, with one deadline over all of it. /healthz
 * says that the admin process answers; --ready asks /readyz, which is refused
 * while weir starts, drains or has lost its store.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/commands.h"
#include "shm/base/clock.h"

#define HEALTH_DEADLINE_NS (3 * NS_PER_S)	/* container runtimes give a check some seconds */
#define HEALTH_STATUS_LINE_BYTES 64	/* "HTTP/1.1 200 OK" is what is looked at */

static const char usage[] = "usage: weir health [--admin ADDRESS:PORT] [--ready]\n"
	"exit status: 0 healthy, 1 not, 2 a mistake in the arguments\n";

/* Numeric "127.0.0.1:9464" or "[::1]:9464". NULL: it is neither. */
static struct addrinfo *
address_parse(const char *text)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *colon = strrchr(text, ':');
	struct addrinfo *found = NULL;
	char host[64];
	size_t n;

	if (!colon || colon == text)
		return NULL;
	n = (size_t)(colon - text);
	if (text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n >= sizeof(host))
		return NULL;
	memcpy(host, text, n);
	host[n] = '\0';
	return getaddrinfo(host, colon + 1, &hints, &found) == 0 ? found : NULL;
}

/* Waits for `events`; false when the deadline has passed. */
static bool
wait_for(int fd, short events, int64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left_ns = deadline_ns - clock_mono_ns();
		int ready = left_ns > 0 ? poll(&p, 1, (int)(left_ns / NS_PER_MS + 1)) : 0;

		if (ready > 0)
			return true;
		if (ready == 0)
			errno = ETIMEDOUT;
		if (ready == 0 || errno != EINTR)
			return false;
	}
}

static bool
connect_by(int fd, const struct addrinfo *to, int64_t deadline_ns)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
		return true;
	if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline_ns))
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0)
		errno = error;
	return errno == 0;
}

/* The answer's status, or -1 with errno. */
static int
ask(int fd, const struct addrinfo *to, const char *path)
{
	int64_t deadline_ns = clock_mono_ns() + HEALTH_DEADLINE_NS;
	char text[HEALTH_STATUS_LINE_BYTES];
	size_t n = 0;
	ssize_t got;
	int length, status;

	if (!connect_by(fd, to, deadline_ns))
		return -1;
	length = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n", path);
	if (send(fd, text, (size_t)length, MSG_NOSIGNAL) != length)
		return -1;
	while (n < sizeof("HTTP/1.1 200")) {
		if (!wait_for(fd, POLLIN, deadline_ns))
			return -1;
		got = recv(fd, text + n, sizeof(text) - 1 - n, 0);
		if (got < 0 && errno == EAGAIN)
			continue;
		if (got <= 0) {
			errno = got == 0 ? ECONNRESET : errno;
			return -1;
		}
		n += (size_t)got;
	}
	text[n] = '\0';
	if (sscanf(text, "HTTP/1.%*1d %3d", &status) == 1)
		return status;
	errno = EPROTO;
	return -1;
}

static int
health(const char *address, const char *path)
{
	struct addrinfo *to = address_parse(address);
	int fd, status;

	if (!to) {
		fprintf(stderr, "weir health: --admin %s: expected a numeric address and a port, like 127.0.0.1:9464\n", address);
		return 2;
	}
	fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	status = fd < 0 ? -1 : ask(fd, to, path);
	if (status < 0)
		fprintf(stderr, "weir health: %s: no answer: %s\n", address, strerror(errno));
	else
		printf("%s%s: %d\n", address, path, status);
	if (fd >= 0)
		close(fd);
	freeaddrinfo(to);
	return status == 200 ? 0 : 1;
}

int
cmd_health(int argc, char **argv)
{
	static const struct option options[] = {
		{ "admin", required_argument, NULL, 'a' },
		{ "ready", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *address = "127.0.0.1:9464", *path = "/healthz";
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			address = optarg;
			break;
		case 'r':
			path = "/readyz";
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return 2;
	}
	return health(address, path);
}
