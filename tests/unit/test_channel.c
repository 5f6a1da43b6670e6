/*
 * Master and child over their socket pair: whole messages, descriptors that
 * arrive or are closed, ends that are noticed, memory files that cannot change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/channel.h"

struct pair { int master, child; };

static struct pair
pair(void)
{
	struct pair p;

	assert_int_equal(channel_pair(&p.master, &p.child), 0);
	return p;
}

static int
open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void
test_messages(void **state)
{
	(void)state;
	struct pair p = pair();
	struct channel_message m = { .word = CHANNEL_RELOAD, .version = 7 }, got;
	int fd;

	assert_int_equal(fcntl(p.child, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(p.master, F_GETFL) & O_NONBLOCK);
	assert_int_equal(channel_receive(p.child, &got, &fd), 0);
	assert_int_equal(channel_send(p.master, &m, -1), 0);
	m = (struct channel_message){ .word = CHANNEL_RELOADED, .version = 8 };
	assert_int_equal(channel_send(p.master, &m, -1), 0);

	assert_int_equal(channel_receive(p.child, &got, &fd), 1);
	assert_int_equal(got.word, CHANNEL_RELOAD);
	assert_int_equal(got.version, 7);
	assert_int_equal(fd, -1);
	assert_int_equal(channel_receive(p.child, &got, &fd), 1);
	assert_int_equal(got.version, 8);
	assert_int_equal(channel_receive(p.child, &got, &fd), 0);

	assert_int_equal(channel_send(p.child, &m, -1), 0);
	assert_int_equal(channel_receive(p.master, &got, &fd), 1);
	close(p.master);
	close(p.child);
}

static void
test_ends(void **state)
{
	(void)state;
	struct pair p = pair();
	struct channel_message m = { .word = CHANNEL_RELOAD }, got;
	int fd;

	assert_int_equal(channel_send(p.master, &m, -1), 0);
	close(p.master);
	assert_int_equal(channel_receive(p.child, &got, &fd), 1);	/* what was said is still heard */
	assert_int_equal(channel_receive(p.child, &got, &fd), -1);
	assert_int_equal(channel_send(p.child, &m, -1), -1);		/* and no signal */
	close(p.child);
}

static void
test_full_queue(void **state)
{
	(void)state;
	struct pair p = pair();
	struct channel_message m = { .word = CHANNEL_RELOAD }, got;
	int sent = 0, fd;

	while (sent < 100000 && channel_send(p.master, &m, -1) == 0)
		sent++;
	assert_in_range(sent, 1, 99999);
	assert_int_equal(channel_receive(p.child, &got, &fd), 1);
	close(p.master);
	close(p.child);
}

static void
test_descriptor(void **state)
{
	(void)state;
	int before = open_descriptors();
	struct pair p = pair();
	struct channel_message m = { .word = CHANNEL_RELOAD, .version = 3 }, got;
	struct buf text;
	int fd, memfd = channel_memfd("weir-test", (const struct slice[]){ SLICE("{\"workers\":2}") }, 1);

	assert_true(memfd >= 0);
	assert_int_equal(channel_send(p.master, &m, memfd), 0);
	close(memfd);
	assert_int_equal(channel_receive(p.child, &got, &fd), 1);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	buf_init(&text, 1024);
	assert_int_equal(channel_read_memfd(fd, &text), 0);
	assert_true(slice_eq(buf_slice(&text), SLICE("{\"workers\":2}")));
	assert_int_equal(channel_read_memfd(fd, &text), 0);	/* again: nothing was used up */
	assert_int_equal(text.n, 13);
	buf_free(&text);
	close(fd);
	close(p.master);
	close(p.child);
	assert_int_equal(open_descriptors(), before);
}

static void
test_memfd(void **state)
{
	(void)state;
	struct buf text;
	int fd = channel_memfd("weir-test", (const struct slice[]){ SLICE("") }, 1);

	buf_init(&text, 8);
	assert_true(fd >= 0);
	assert_int_equal(channel_read_memfd(fd, &text), 0);
	assert_int_equal(text.n, 0);
	close(fd);

	fd = channel_memfd("weir-test", (const struct slice[]){ SLICE("123456789") }, 1);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), -1);		/* sealed */
	assert_int_equal(ftruncate(fd, 1), -1);
	assert_int_equal(channel_read_memfd(fd, &text), -1);	/* more than its reader takes */
	close(fd);
	buf_free(&text);

	fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(channel_read_memfd(fd, &text), -1);	/* could still change */
	close(fd);
	assert_int_equal(channel_read_memfd(-1, &text), -1);
}

/* A message as channel_send() never makes it. */
static void
send_raw(int to, const void *bytes, size_t n, const int *fds, size_t fds_count)
{
	union { char bytes[CMSG_SPACE(sizeof(int) * 8)]; struct cmsghdr align; } control = { { 0 } };
	struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr head = { .msg_iov = &piece, .msg_iovlen = 1 };

	if (fds_count > 0) {
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&head);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_count);
	}
	assert_int_equal(sendmsg(to, &head, 0), (ssize_t)n);
}

static void
test_foreign_messages(void **state)
{
	(void)state;
	struct pair p = pair();
	struct channel_message got;
	char long_message[64] = { 0 };
	int some[8], fd, before;

	for (int i = 0; i < 8; i++)
		assert_true((some[i] = dup(p.master)) >= 0);
	before = open_descriptors();

	send_raw(p.master, "short", 5, NULL, 0);
	assert_int_equal(channel_receive(p.child, &got, &fd), -1);
	send_raw(p.master, long_message, sizeof(long_message), some, 1);
	assert_int_equal(channel_receive(p.child, &got, &fd), -1);
	assert_int_equal(fd, -1);
	send_raw(p.master, long_message, sizeof(got), some, 8);		/* more than there is room for */
	assert_int_equal(channel_receive(p.child, &got, &fd), -1);
	assert_int_equal(open_descriptors(), before);

	send_raw(p.master, long_message, sizeof(got), some, 3);		/* the first counts */
	assert_int_equal(channel_receive(p.child, &got, &fd), 1);
	assert_true(fd >= 0);
	assert_int_equal(open_descriptors(), before + 1);
	close(fd);
	for (int i = 0; i < 8; i++)
		close(some[i]);
	close(p.master);
	close(p.child);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_foreign_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
