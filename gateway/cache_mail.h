/*
 * gateway/cache_mail.h -- kept answers on their way from the workers to the keeper.
 *
 * One pair of datagram sockets, made by the master before it forks. It keeps both
 * ends, so either side may be killed and started again, and what is in between
 * waits. A message says what is under a key: an entry, in sealed memory whose
 * descriptor comes along, or nothing any more.
 *
 * Workers never wait for the keeper: when the queue is full, an answer is not kept.
 * The keeper trusts nothing of what comes: workers parse bytes from the network.
 */
#ifndef WEIR_GATEWAY_CACHE_MAIL_H
#define WEIR_GATEWAY_CACHE_MAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/base/buf.h"
#include "store/cache_entry.h"

/*
 * The kernel's room for messages, in its own terms: some 60 of them. Each may
 * hold an entry in memory, so a keeper that hangs costs that many at the most.
 */
#define CACHE_MAIL_QUEUE_BYTES 24576

int cache_mail_pair(int *workers_end, int *keepers_end) MUST_CHECK;
	/* Both non-blocking and close-on-exec. -1: errno says why. */

/* ---- a worker ---- */

bool cache_mail_put(int fd, const uint64_t key[2], const struct cache_entry *e, uint64_t entry_bytes_max,
    struct arena *a, uint32_t worker);
	/* Copies the entry. false: it will not be kept, and that is counted in the
	 * worker's metrics: too large, no entry at all, or no room in the queue. */
bool cache_mail_delete(int fd, const uint64_t key[2], struct arena *a, uint32_t worker);
	/* What is under the key goes. false (counted): it may stay. */

/* ---- the keeper ---- */

enum cache_mail_got {
	CACHE_MAIL_NOTHING,	/* now */
	CACHE_MAIL_ENTRY,
	CACHE_MAIL_DELETE,
	CACHE_MAIL_TOO_LARGE,
	CACHE_MAIL_MALFORMED,	/* a message that no worker of ours sends */
};

enum cache_mail_got cache_mail_receive(int fd, uint64_t key[2], struct buf *entry) MUST_CHECK;
	/* ENTRY: its bytes are in `entry`, whose maximum is that of an entry;
	 * whether they are one is left to store/cache_writer.h. No descriptor
	 * stays open, whatever came. */

#endif
