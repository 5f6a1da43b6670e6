/*
 * shm/arena.h -- the memory that all processes of one weir share.
 *
 * One mapped file on a file system that outlives the processes. The master
 * creates or attaches it before it forks; command-line tools attach it to
 * look. It holds no pointers: offsets and row numbers only. Sections:
 *
 *	header		magic, layout hash, boot id, sizes, epoch
 *	processes	one row a process: pid, start, heartbeat, restarts
 *	workers		undo journal, free pages and ring of each; then of the tools
 *			(`weir limits reset`), then of the keeper
 *	meters		table, index and names: 128-bit id -> bucket, budget, count
 *	in flight	a page for each request that is being served, per worker
 *	rings		finished requests that wait for the keeper, per worker; of the tools
 *	metrics		counters and histograms, per worker; of the keeper (metrics.h)
 *	queue		who waits longest for room in a meter (queue.h)
 *	health		targets that failed, and whether they are asked (health.h)
 *	claims		who makes what others want too (claims.h)
 *	places		which account a conversation was served by (places.h)
 *
 * The file's blocks are allocated when it is made, so that a full disk fails
 * here and not by SIGBUS in the middle of a request.
 */
#ifndef WEIR_SHM_ARENA_H
#define WEIR_SHM_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/base/check.h"
#include "shm/limits.h"

struct arena_sizes {
	uint32_t workers;	/* 1..WORKERS_MAX */
	uint32_t inflight;	/* requests in flight a worker */
	uint32_t ring_bytes;	/* a worker; a power of two */
	uint32_t meters;	/* rows; a power of two */
};

enum arena_origin {
	ARENA_CREATED,	/* new and empty: levels must be loaded from the store */
	ARENA_ATTACHED,	/* as the processes of this boot left it */
};

struct shm_header;	/* shm/layout.h: the structs themselves */

struct arena {
	struct shm_header *header;
	size_t bytes;
	int fd;
	int lock_fd;		/* master and its children: holds <path>.lock; tools: -1 */
	bool writable;
};

int arena_open(struct arena *a, const char *path, const struct arena_sizes *want,
    enum arena_origin *origin, char *why, size_t why_size) MUST_CHECK;
	/*
	 * Master. Attaches `path` if it is an arena of this boot and this
	 * layout, whatever its sizes (look at arena_sizes()); creates it
	 * otherwise, mode 0600. An arena of this boot but another layout is
	 * kept as <path>.old, with a warning in the log. 0, or -1 with a
	 * sentence in `why`.
	 *
	 * The master and all its children hold <path>.lock. While any of them
	 * lives, another master is refused; it waits up to five seconds for
	 * children whose master is gone.
	 */
int arena_replace(struct arena *a, const char *path, const struct arena_sizes *want,
    char *why, size_t why_size) MUST_CHECK;
	/*
	 * Master, when the sizes changed and the old arena was drained into the
	 * store: makes a new, empty file in its place (atomically, by rename)
	 * and leaves `a` mapped to it. The old mapping is unmapped.
	 */
int arena_attach(struct arena *a, const char *path, bool writable,
    char *why, size_t why_size) MUST_CHECK;
	/* Tools. Never creates, never guesses at a foreign layout. Writable
	 * only while a weir runs on it: its next start renews the locks. */
void arena_close(struct arena *a);
struct arena_sizes arena_sizes(const struct arena *a);
uint64_t arena_epoch(const struct arena *a);
	/* Random at creation: (epoch, worker, sequence) names a record for ever. */
int arena_chown(struct arena *a, uid_t uid, gid_t gid) MUST_CHECK;
	/* So that an unprivileged weir of a later start can attach it. */

/* Rows of the process table: the workers, then these. */
enum { PROC_KEEPER = WORKERS_MAX, PROC_ADMIN, PROC_MASTER, PROC_COUNT };

void arena_proc_start(struct arena *a, uint32_t row, pid_t pid);
	/* By the master after fork: sets pid and start time; counts a restart
	 * when the row had been in use before. */
void arena_proc_stop(struct arena *a, uint32_t row);
	/* By the master after waitpid. */
void arena_heartbeat(struct arena *a, uint32_t row, int64_t mono_ns);
	/* By the process itself, about once a second. */
struct proc_view {
	pid_t pid;		/* 0: not running */
	int64_t started_wall_ns;
	int64_t heartbeat_mono_ns;
	uint64_t restarts;
};
struct proc_view arena_proc(const struct arena *a, uint32_t row);

/* While the store cannot be written, nothing new may be admitted: it could not
 * be made durable. Writer: the keeper. */
void arena_store_failing_set(struct arena *a, bool failing);
bool arena_store_failing(const struct arena *a);

#endif
