/*
 * gateway/worker.h -- a worker process: the data plane.
 *
 * One libuv loop, its listeners, its client connections, its upstream pool.
 * Nothing here blocks, writes LMDB, or waits for another process. Everything
 * per process hangs on struct worker; there is one, made after the fork.
 */
#ifndef WEIR_GATEWAY_WORKER_H
#define WEIR_GATEWAY_WORKER_H

#include <stdint.h>
#include <uv.h>

#include "gateway/config_memo.h"
#include "gateway/key_cache.h"
#include "gateway/limit_memo.h"
#include "gateway/metadata_memo.h"
#include "gateway/plane.h"
#include "gateway/prompt_count.h"
#include "gateway/settings.h"
#include "gateway/timeline.h"
#include "shm/arena.h"
#include "shm/ledger.h"
#include "shm/base/clock.h"
#include "store/catalog.h"
#include "store/records.h"
#include "upstream/deadline.h"
#include "upstream/exchange.h"
#include "upstream/wire/tls.h"

struct client;
struct request;
struct worker;

#define UNSETTLED_MAX 64	/* requests whose records wait for room; with more, intake pauses */

struct listener {
	uv_tcp_t tcp;
	struct worker *worker;
	bool tls;
	bool waiting;		/* a connection waits in the kernel: intake is paused */
};

struct worker {
	uv_loop_t loop;
	uint32_t index;
	struct arena *arena;
	struct plane *plane;		/* of the newest settings */
	struct catalog *catalog;
	struct key_cache *keys;
	struct metadata_memo *memo;
	struct limit_memo *limit_memo;
	struct config_memo *config_memo;
	struct prompt_counts *prompt_counts;
	struct cache_desk *cache;	/* kept answers */
	struct reader *store;		/* for levels of meters that are not in memory */
	struct upstream *upstream;

	struct listener *listeners;
	uint32_t listeners_count;
	uv_timer_t tick;
	uv_signal_t on_term;
	uv_poll_t control;
	int control_fd;

	struct timeline idle, head, body, linger, stall;	/* client deadlines */
	struct timeline quiet;		/* event streams, by last byte to the client */
	struct timeline counting;	/* requests whose prompt a provider counts */
	struct deadlines timers;	/* of requests: pauses between attempts, answers that are late or held */
	struct timeline waiting;	/* requests that had no room in a limit; a queue, without a time-out */
	uint32_t waiting_count;
	uv_timer_t room;		/* tries them again; runs while somebody waits */
	bool room_soon;			/* ... at the next turn of the loop */
	struct {
		int64_t charges, table, levels, overflow;	/* when it was last said in the log */
	} said_mono_ns;
	uint32_t clients;		/* open connections */
	struct request *unsettled;	/* over, but there was no room for their records */
	uint32_t unsettled_count;
	struct request *parked;		/* ready to run, held back meanwhile (oldest first) */
	struct request *parked_last;
	bool draining;
	uint64_t heartbeat_ms;
	uint64_t random[2];		/* worker_random() */
};

struct worker_boot {		/* what the master hands down */
	struct arena *arena;
	uint32_t index;
	struct settings *settings;
	const struct tls_ticket_keys *ticket_keys;
	const struct setting_listener *listeners;	/* as bound at the start; a reload keeps them */
	uint32_t listeners_count;
	const int *listen_fds;		/* of this worker, in their order */
	int control_fd;
	int cache_fd;			/* the workers' end of cache_mail.h */
};

int worker_run(const struct worker_boot *boot);
	/* The process's main function: returns its exit status. */

static inline uint64_t
worker_now_ms(struct worker *w)
{
	return uv_now(&w->loop);
}

static inline struct now
worker_clock(void)
{
	return (struct now){ clock_mono_ns(), clock_wall_ns() };
}

static inline uint64_t
worker_random(struct worker *w, int which)
{
	/* splitmix64, two of them, seeded by the kernel: for choices and ids, not for secrets. */
	uint64_t z = (w->random[which] += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline bool
worker_intake_paused(const struct worker *w)
{
	return w->unsettled_count >= UNSETTLED_MAX;
}

void worker_client_closed(struct worker *w);
	/* One connection fewer; a draining worker without any ends. */

#endif
