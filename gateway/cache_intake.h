/*
 * gateway/cache_intake.h -- the keeper's part in the response cache: mail in, LMDB out.
 *
 * It runs in the keeper's loop beside the flushes of records, which come first: mail
 * is taken in small batches between two flushes, and after a batch that was slow the
 * cache rests for several times as long, so that a disk that has too much to do is
 * left to the records. Whatever goes wrong here costs kept answers and no more.
 */
#ifndef WEIR_GATEWAY_CACHE_INTAKE_H
#define WEIR_GATEWAY_CACHE_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/settings.h"
#include "shm/arena.h"
#include "store/cache_writer.h"

struct cache_intake {
	struct arena *arena;
	int fd;				/* the keeper's end of cache_mail.h; -1: there is none */
	struct cache_writer *writer;	/* NULL: the store's lock is not ours yet */
	int64_t look_mono_ns;		/* when things are looked after next */
	int64_t ready_mono_ns;		/* no mail before that: it rests, or it failed */
	int64_t warn_mono_ns;		/* not more often than now and then */
	bool failing;			/* has been logged */
	bool removed;			/* the settings want no cache, and there is none */
};

void cache_intake_init(struct cache_intake *in, struct arena *a, int fd);
void cache_intake_free(struct cache_intake *in);
void cache_intake_tend(struct cache_intake *in, const struct settings *s, int64_t now_mono_ns);
	/* Once a turn, when this process has the store: makes the cache, or
	 * removes it; keeps its bound; drops what has expired. Does so once a
	 * second at the most. */
bool cache_intake_waits(const struct cache_intake *in, const struct settings *s, int64_t now_mono_ns, int64_t *until_mono_ns);
	/* Is `fd` to be watched now? false: at the earliest at *until, INT64_MAX
	 * for not before the next cache_intake_tend(). */
void cache_intake_take(struct cache_intake *in, const struct settings *s);
	/* One batch of mail. */
void cache_intake_drain(struct cache_intake *in, const struct settings *s);
	/* At the end: what is in the queue, unless the cache fails. */

#endif
