/*
 * gateway/cache_mail.c -- see cache_mail.h.
 *
 * Datagrams, because they know no end-of-file that a worker could bring about
 * for all of them (the socket is one for all workers). Memory that is not sealed
 * is refused before it is read: its size could change under the keeper's hands.
 */
#include "gateway/cache_mail.h"

#include <sys/socket.h>
#include <unistd.h>

#include "gateway/channel.h"
#include "shm/metrics.h"

enum mail_word { MAIL_PUT = 1, MAIL_DELETE };

struct mail {
	uint32_t word;		/* enum mail_word */
	uint32_t reserved;
	uint64_t key[2];
};

int
cache_mail_pair(int *workers_end, int *keepers_end)
{
	const int room = CACHE_MAIL_QUEUE_BYTES;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
		return -1;
	if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) != 0) {
		close(fds[0]);
		close(fds[1]);
		return -1;
	}
	*workers_end = fds[0];
	*keepers_end = fds[1];
	return 0;
}

/* ---- a worker ---- */

static bool
post(int fd, enum mail_word word, const uint64_t key[2], int memfd)
{
	const struct mail m = { .word = word, .key = { key[0], key[1] } };

	return channel_send_bytes(fd, (struct slice){ (const char *)&m, sizeof(m) }, memfd) == 0;
}

bool
cache_mail_put(int fd, const uint64_t key[2], const struct cache_entry *e, uint64_t entry_bytes_max,
    struct arena *a, uint32_t worker)
{
	char head[CACHE_HEAD_BYTES_MAX];
	struct slice pieces[2] = { { head, cache_entry_head(e, head) }, e->body };
	enum metrics_counter refused = COUNTER_CACHE_REFUSED_QUEUE;
	bool sent = false;
	int memfd;

	if (pieces[0].n == 0) {
		refused = COUNTER_CACHE_REFUSED_MALFORMED;
	} else if (pieces[0].n + e->body.n > entry_bytes_max) {
		refused = COUNTER_CACHE_REFUSED_LARGE;
	} else {
		memfd = channel_memfd("weir-cache-entry", pieces, 2);
		sent = memfd >= 0 && post(fd, MAIL_PUT, key, memfd);
		if (memfd >= 0)
			close(memfd);
	}
	if (!sent)
		metrics_add(a, worker, refused, 1);
	return sent;
}

bool
cache_mail_delete(int fd, const uint64_t key[2], struct arena *a, uint32_t worker)
{
	bool sent = post(fd, MAIL_DELETE, key, -1);

	if (!sent)
		metrics_add(a, worker, COUNTER_CACHE_REFUSED_QUEUE, 1);
	return sent;
}

/* ---- the keeper ---- */

enum cache_mail_got
cache_mail_receive(int fd, uint64_t key[2], struct buf *entry)
{
	enum cache_mail_got got = CACHE_MAIL_MALFORMED;
	struct mail m;
	int memfd;

	switch (channel_receive_bytes(fd, &m, sizeof(m), &memfd)) {
	case CHANNEL_NOTHING:
		return CACHE_MAIL_NOTHING;
	case CHANNEL_GONE: case CHANNEL_FOREIGN:	/* an empty message, one of another size */
		return CACHE_MAIL_MALFORMED;
	case CHANNEL_MESSAGE:
		break;
	}
	key[0] = m.key[0];
	key[1] = m.key[1];
	if (m.word == MAIL_DELETE && memfd < 0)
		return CACHE_MAIL_DELETE;
	if (m.word == MAIL_PUT && memfd >= 0) {
		if (channel_read_memfd(memfd, entry) == 0)
			got = CACHE_MAIL_ENTRY;
		else if (entry->overflow)
			got = CACHE_MAIL_TOO_LARGE;
	}
	if (memfd >= 0)
		close(memfd);
	return got;
}
