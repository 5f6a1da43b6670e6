/*
 * gateway/channel.h -- what the master says to its children over a socketpair.
 *
 * Messages are fixed-size (SOCK_SEQPACKET) and may carry one descriptor: a
 * sealed memfd with a new bundle of settings. A child that reads end-of-file
 * knows that the master is gone and drains.
 *
 * Below it are messages of any fixed size with a descriptor, and sealed memory:
 * gateway/cache_mail.h uses them too.
 */
#ifndef WEIR_GATEWAY_CHANNEL_H
#define WEIR_GATEWAY_CHANNEL_H

#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/check.h"

enum channel_word {
	CHANNEL_RELOAD = 1,	/* master -> child, with a memfd: gateway/master.h says what is in it */
	CHANNEL_RELOADED,	/* child -> master */
	CHANNEL_READY,		/* child -> master: it has come up, and does its work */
};

struct channel_message {
	uint32_t word;		/* enum channel_word */
	uint32_t reserved;
	uint64_t version;	/* of the settings */
};

int channel_pair(int *master_end, int *child_end) MUST_CHECK;
	/* Both non-blocking and close-on-exec. */
int channel_send(int fd, const struct channel_message *m, int attached_fd) MUST_CHECK;
	/* attached_fd -1: none. -1 when the peer is gone or its queue is full. */
int channel_receive(int fd, struct channel_message *m, int *attached_fd) MUST_CHECK;
	/* 1: a message; 0: nothing now; -1: the peer is gone. */

enum channel_got { CHANNEL_GONE = -1, CHANNEL_NOTHING, CHANNEL_MESSAGE, CHANNEL_FOREIGN };

int channel_send_bytes(int fd, struct slice message, int attached_fd) MUST_CHECK;
	/* As channel_send(). */
enum channel_got channel_receive_bytes(int fd, void *message, size_t n, int *attached_fd) MUST_CHECK;
	/* GONE: end-of-file, an error, or an empty message. FOREIGN: one of
	 * another size, or with more descriptors than one can take; none of
	 * them stays open. */
int channel_memfd(const char *name, const struct slice *pieces, uint32_t n) MUST_CHECK;
	/* Sealed memory with the pieces in a row; -1. The name is for /proc. */
int channel_read_memfd(int fd, struct buf *out) MUST_CHECK;
	/* Its content; -1: not sealed memory, or (out->overflow) more than fits. */

#endif
