/*
 * gateway/channel.c -- see channel.h.
 *
 * SOCK_SEQPACKET keeps messages whole and shows the peer's end as an empty
 * read. A message of another size, or one whose descriptors the kernel had to
 * cut, comes from a peer that is not ours: the channel counts as gone.
 */
#include "gateway/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define DESCRIPTORS_MAX 4	/* one is ours; room to receive and close what is not */

union control {
	char bytes[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
	struct cmsghdr align;
};

int
channel_pair(int *master_end, int *child_end)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
		return -1;
	*master_end = fds[0];
	*child_end = fds[1];
	return 0;
}

int
channel_send_bytes(int fd, struct slice message, int attached_fd)
{
	struct iovec piece = { .iov_base = (void *)(uintptr_t)message.p, .iov_len = message.n };
	struct msghdr head = { .msg_iov = &piece, .msg_iovlen = 1 };
	union control control;
	ssize_t n;

	if (attached_fd >= 0) {
		memset(&control, 0, sizeof(control));
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&head);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &attached_fd, sizeof(int));
	}
	do
		n = sendmsg(fd, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)message.n ? 0 : -1;
}

int
channel_send(int fd, const struct channel_message *m, int attached_fd)
{
	return channel_send_bytes(fd, (struct slice){ (const char *)m, sizeof(*m) }, attached_fd);
}

/* Keeps the first descriptor, closes any other. */
static void
take_descriptors(struct msghdr *head, int *out)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*out < 0)
				*out = fd;
			else
				close(fd);
		}
	}
}

enum channel_got
channel_receive_bytes(int fd, void *message, size_t n, int *attached_fd)
{
	union control control;
	struct iovec piece = { .iov_base = message, .iov_len = n };
	struct msghdr head = {
		.msg_iov = &piece, .msg_iovlen = 1,
		.msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
	};
	ssize_t got;

	*attached_fd = -1;
	do
		got = recvmsg(fd, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? CHANNEL_NOTHING : CHANNEL_GONE;
	take_descriptors(&head, attached_fd);
	if (got == (ssize_t)n && !(head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return CHANNEL_MESSAGE;
	if (*attached_fd >= 0)
		close(*attached_fd);
	*attached_fd = -1;
	return got == 0 ? CHANNEL_GONE : CHANNEL_FOREIGN;
}

int
channel_receive(int fd, struct channel_message *m, int *attached_fd)
{
	enum channel_got got = channel_receive_bytes(fd, m, sizeof(*m), attached_fd);

	return got == CHANNEL_FOREIGN ? -1 : (int)got;
}

static bool
write_all(int fd, struct slice content)
{
	for (size_t done = 0; done < content.n;) {
		ssize_t n = write(fd, content.p + done, content.n - done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			return false;
	}
	return true;
}

int
channel_memfd(const char *name, const struct slice *pieces, uint32_t n)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	bool ok = fd >= 0;

	for (uint32_t i = 0; i < n && ok; i++)
		ok = write_all(fd, pieces[i]);
	if (ok && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

int
channel_read_memfd(int fd, struct buf *out)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	/* Only what can no longer change is read: its length stays true. */
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) != 0)
		return -1;
	buf_clear(out);
	if (!buf_reserve(out, (size_t)st.st_size))
		return -1;
	while (out->n < (size_t)st.st_size) {
		ssize_t n = pread(fd, out->p + out->n, (size_t)st.st_size - out->n, (off_t)out->n);

		if (n > 0)
			out->n += (size_t)n;
		else if (n == 0 || errno != EINTR)
			return -1;
	}
	return 0;
}
