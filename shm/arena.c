/*
 * shm/arena.c -- see arena.h.
 *
 * A file is trusted when its magic, the hash of this build's layout, the boot
 * id and the sizes that follow from its header all agree; nothing in it is
 * read before. A new one is made beside its place and moved there when it is
 * complete, so that a name never leads to half an arena.
 *
 * Who may write is settled outside the file, by a lock on <path>.lock: the
 * master takes it before anything else and its children inherit it. So a
 * master that has the lock is alone, and can put right whatever it finds.
 */
#include "shm/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/journal.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* Linux 6.1; the C library's headers may be older */
#endif

#define MAGIC "WEIR-SHM"
#define PAGE_BYTES 4096
#define HUGE_BYTES ((size_t)2 << 20)	/* of x86-64, and of most arm64; elsewhere nothing is lost */
#define PATH_BYTES_MAX 4096

#define INFLIGHT_MAX 65536u
#define RING_BYTES_MIN 65536u
#define RING_BYTES_MAX (1u << 30)
#define METERS_MIN 64u
#define METERS_MAX (1u << 26)

#define ORPHAN_WAIT_NS (10 * NS_PER_MS)		/* for children of a dead master: 500 times */
#define ORPHAN_WAITS_MAX 500

static int fail(char *why, size_t why_size, const char *fmt, ...) PRINTF_LIKE(3, 4);

static int
fail(char *why, size_t why_size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, why_size, fmt, args);
	va_end(args);
	return -1;
}

/* ---- what an arena looks like ---- */

#define FIELD(s, f) offsetof(struct s, f), sizeof(((struct s *)0)->f)

/* FNV-1a over everything that two builds must agree on. */
static uint64_t
layout_hash(void)
{
	static const uint64_t facts[] = {
		LAYOUT_VERSION, CACHE_LINE, WORKERS_MAX, PROC_COUNT, CHARGES_MAX, JOURNAL_MAX, RING_ALIGN,
		sizeof(pthread_mutex_t), sizeof(struct arena_sizes),
		sizeof(struct shm_header), FIELD(shm_header, sizes), FIELD(shm_header, at),
		INDEX_FACTOR, FIELD(shm_header, ledger),
		sizeof(struct shm_ledger), FIELD(shm_ledger, sequence), FIELD(shm_ledger, tick),
		FIELD(shm_ledger, meters_fresh), FIELD(shm_ledger, store_failing), ROWS_BESIDE,
		sizeof(struct shm_proc), FIELD(shm_proc, restarts),
		sizeof(struct shm_undo), sizeof(struct shm_journal), FIELD(shm_journal, undo),
		sizeof(struct shm_worker), FIELD(shm_worker, inflight), FIELD(shm_worker, ring_tail),
		FIELD(shm_worker, journal),
		sizeof(struct shm_meter), FIELD(shm_meter, what), FIELD(shm_meter, level),
		FIELD(shm_meter, period_index),
		sizeof(struct shm_name), FIELD(shm_name, group), WHAT_TYPE_MASK, WHAT_PERIOD_MASK,
		sizeof(struct shm_hold), FIELD(shm_hold, mark), FIELD(shm_hold, row), HOLD_CLOSED, HOLD_LATER,
		sizeof(struct inflight),
		FIELD(inflight, hold), FIELD(inflight, metered), FIELD(inflight, text),
		sizeof(struct shm_item), FIELD(shm_item, record_bytes), sizeof(struct ring_charge),
		sizeof(struct shm_queue), sizeof(struct shm_metrics), ROUTES_MAX, PROVIDERS_MAX, STATUSES_MAX,
		FIELD(shm_metrics, tokens), FIELD(shm_metrics, cost_nusd), FIELD(shm_metrics, bucket),
		FIELD(shm_metrics, sum_ns), FIELD(shm_metrics, counter), FIELD(shm_metrics, connections),
		sizeof(struct shm_health), HEALTH_ROWS, HEALTH_WHYS, FIELD(shm_health, name), sizeof(struct shm_target),
		FIELD(shm_target, circuit), FIELD(shm_target, used_ms), CLAIMS, PLACES_SETS, sizeof(struct shm_place_set),
	};
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		for (int shift = 0; shift < 64; shift += 8)
			hash = (hash ^ (facts[i] >> shift & 0xff)) * UINT64_C(0x100000001b3);
	return hash;
}

static int
boot_id(char out[static CLOCK_BOOT_BYTES], char *why, size_t why_size)
{
	if (!clock_boot_id(out))
		return fail(why, why_size, "the kernel does not tell one boot from the next (/proc/sys/kernel/random/boot_id)");
	return 0;
}

static bool
is_power_of_two(uint32_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static int
sizes_check(const struct arena_sizes *s, char *why, size_t why_size)
{
	if (s->workers < 1 || s->workers > WORKERS_MAX)
		return fail(why, why_size, "workers must be 1 to %d", WORKERS_MAX);
	if (s->inflight < 1 || s->inflight > INFLIGHT_MAX)
		return fail(why, why_size, "ledger.inflight must be 1 to %u", INFLIGHT_MAX);
	if (!is_power_of_two(s->ring_bytes) || s->ring_bytes < RING_BYTES_MIN || s->ring_bytes > RING_BYTES_MAX)
		return fail(why, why_size, "ledger.ring_bytes must be a power of two from %u to %u",
		    RING_BYTES_MIN, RING_BYTES_MAX);
	if (!is_power_of_two(s->meters) || s->meters < METERS_MIN || s->meters > METERS_MAX)
		return fail(why, why_size, "ledger.meters must be a power of two from %u to %u",
		    METERS_MIN, METERS_MAX);
	return 0;
}

static uint64_t
section(uint64_t *end, uint64_t count, uint64_t bytes)
{
	uint64_t at = (*end + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);

	*end = at + count * bytes;
	return at;
}

/* Fills in the sizes and where the sections are. */
static void
header_plan(struct shm_header *h, const struct arena_sizes *s)
{
	uint64_t end = sizeof(*h);

	h->sizes = *s;
	h->at.procs = section(&end, PROC_COUNT, sizeof(struct shm_proc));
	h->at.workers = section(&end, s->workers + ROWS_BESIDE, sizeof(struct shm_worker));
	h->at.meters = section(&end, s->meters, sizeof(struct shm_meter));
	h->at.index = section(&end, (uint64_t)s->meters * INDEX_FACTOR, sizeof(uint64_t));
	h->at.names = section(&end, s->meters, sizeof(struct shm_name));
	h->at.pages = section(&end, (uint64_t)s->workers * s->inflight, sizeof(struct inflight));
	h->at.rings = section(&end, s->workers + 1, s->ring_bytes);
	h->at.metrics = section(&end, s->workers + 1, sizeof(struct shm_metrics));
	h->at.queue = section(&end, 1, sizeof(struct shm_queue));
	h->at.health = section(&end, 1, sizeof(struct shm_health));
	h->at.claims = section(&end, CLAIMS, sizeof(uint64_t));
	h->at.places = section(&end, PLACES_SETS, sizeof(struct shm_place_set));
	h->bytes = section(&end, 0, 0);
}

/* ---- what a file is ---- */

enum trust {
	TRUSTED,
	NO_ARENA,	/* somebody else's file */
	OLD_BOOT,	/* an arena that nobody can be using */
	FOREIGN,	/* of this boot, of another build; or damaged */
};

static enum trust
file_trust(int fd, const char *boot, struct shm_header *h)
{
	char unused[64];
	struct shm_header plan = { 0 };
	struct stat st;

	if (fstat(fd, &st) < 0 || pread(fd, h, sizeof(*h), 0) != (ssize_t)sizeof(*h) ||
	    memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return NO_ARENA;
	/* magic, hash and boot id stand where they stand in every layout. */
	if (memcmp(h->boot_id, boot, sizeof(h->boot_id)) != 0)
		return OLD_BOOT;
	if (h->layout_hash != layout_hash() || sizes_check(&h->sizes, unused, sizeof(unused)) < 0)
		return FOREIGN;
	header_plan(&plan, &h->sizes);
	return h->bytes == plan.bytes && (uint64_t)st.st_size == plan.bytes &&
	    memcmp(&h->at, &plan.at, sizeof(plan.at)) == 0 ? TRUSTED : FOREIGN;
}

/* At an address where the kernel can use large pages for it: with a million
 * meters, most of the time of an admission would else go into finding out where
 * its pages are. */
static void *
map_aligned(int fd, size_t bytes, int prot)
{
	char *room = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return MAP_FAILED;
	size_t before = HUGE_BYTES - ((uintptr_t)room & (HUGE_BYTES - 1));
	char *at = room + before;
	munmap(room, before);
	if (before < HUGE_BYTES)
		munmap(at + bytes, HUGE_BYTES - before);
	void *p = mmap(at, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED)
		munmap(at, bytes);
	return p;
}

/* Asks for large pages where the meters are. They are only faster: an old
 * kernel, a file that is not in memory or memory in small pieces do no harm. */
static void
prefer_huge_pages(const struct arena *a)
{
	char *base = (char *)a->header;
	size_t from = a->header->at.meters & ~(HUGE_BYTES - 1);
	size_t to = (a->header->at.names + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);

	if ((size_t)a->header->sizes.meters * sizeof(struct shm_meter) >= HUGE_BYTES && to <= a->bytes)
		(void)madvise(base + from, to - from, MADV_COLLAPSE);
}

static int
map_file(struct arena *a, int fd, uint64_t bytes, bool writable)
{
	void *p = map_aligned(fd, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ);

	if (p == MAP_FAILED)
		return -1;
	a->header = p;
	a->bytes = bytes;
	a->fd = fd;
	a->writable = writable;
	return 0;
}

/* ---- making one ---- */

static int
header_init(struct shm_header *h, const struct arena_sizes *sizes, char *why, size_t why_size)
{
	memcpy(h->magic, MAGIC, sizeof(h->magic));
	h->layout_hash = layout_hash();
	header_plan(h, sizes);
	if (getrandom(&h->epoch, sizeof(h->epoch), 0) != (ssize_t)sizeof(h->epoch))
		return fail(why, why_size, "the system has no random numbers: %s", strerror(errno));
	if (ledger_lock_init(&h->ledger) != 0)
		return fail(why, why_size, "this system has no robust locks between processes");
	return boot_id(h->boot_id, why, why_size);
}

/* Makes the file at `path` in full and maps it. */
static int
file_create(struct arena *a, const char *path, const struct arena_sizes *sizes, char *why, size_t why_size)
{
	struct shm_header plan = { 0 };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return fail(why, why_size, "cannot create %s: %s", path, strerror(errno));
	header_plan(&plan, sizes);
	rc = posix_fallocate(fd, 0, (off_t)plan.bytes);
	if (rc != 0) {
		fail(why, why_size, "no room for the arena %s, which needs %llu MiB: %s; free some, "
		    "or lower ledger.inflight, ledger.ring_bytes or ledger.meters", path,
		    (unsigned long long)(plan.bytes >> 20), strerror(rc));
		close(fd);
		return -1;
	}
	if (map_file(a, fd, plan.bytes, true) < 0) {
		fail(why, why_size, "cannot map %s: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	if (header_init(a->header, sizes, why, why_size) < 0)
		return -1;
	prefer_huge_pages(a);
	return 0;
}

static void
unmap(struct arena *a)
{
	if (a->header)
		munmap(a->header, a->bytes);
	if (a->fd >= 0)
		close(a->fd);
	a->header = NULL;
	a->fd = -1;
}

int
arena_replace(struct arena *a, const char *path, const struct arena_sizes *want, char *why, size_t why_size)
{
	struct arena fresh = { .fd = -1, .lock_fd = a->lock_fd };
	char beside[PATH_BYTES_MAX];

	if (sizes_check(want, why, why_size) < 0)
		return -1;
	if (snprintf(beside, sizeof(beside), "%s.new", path) >= (int)sizeof(beside))
		return fail(why, why_size, "the path of the arena is too long");
	if (file_create(&fresh, beside, want, why, why_size) < 0)
		goto failed;
	if (rename(beside, path) < 0) {
		fail(why, why_size, "cannot rename %s to %s: %s", beside, path, strerror(errno));
		goto failed;
	}
	unmap(a);
	*a = fresh;
	return 0;
failed:
	unmap(&fresh);
	unlink(beside);
	return -1;
}

/* ---- being the only one ---- */

static pid_t
lock_owner(int fd)
{
	char text[16] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

static bool
is_alive(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

static int
lock_wait(int fd, const char *path, char *why, size_t why_size)
{
	const struct timespec pause = { .tv_nsec = ORPHAN_WAIT_NS };

	for (int waits = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waits++) {
		pid_t owner = lock_owner(fd);

		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(why, why_size, "cannot lock %s.lock: %s", path, strerror(errno));
		if (is_alive(owner))
			return fail(why, why_size, "a weir is already running on %s (process %d): "
			    "stop it, or give this one another run_dir", path, (int)owner);
		if (waits == ORPHAN_WAITS_MAX)
			return fail(why, why_size, "%s is in use by processes of a weir whose master "
			    "(process %d) is gone: end them, or use another run_dir", path, (int)owner);
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The lock file's descriptor, or -1. */
static int
lock_take(const char *path, char *why, size_t why_size)
{
	char lock_path[PATH_BYTES_MAX], pid[16];
	int fd;

	if (snprintf(lock_path, sizeof(lock_path), "%s.lock", path) >= (int)sizeof(lock_path))
		return fail(why, why_size, "the path of the arena is too long");
	fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(why, why_size, "cannot open %s: %s; run_dir must be a folder that this user "
		    "can write to", lock_path, strerror(errno));
	int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (lock_wait(fd, path, why, why_size) < 0) {
		close(fd);
		return -1;
	}
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
		fail(why, why_size, "cannot write %s: %s", lock_path, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- opening ---- */

/*
 * We are alone with an arena whose users died, perhaps in the middle of a step
 * and perhaps without the kernel marking their lock (the out-of-memory killer
 * can take the list of locks away before it is read). So the repair does not
 * depend on the mark, and the lock is made anew.
 */
static int
adopt(struct arena *a, int fd, const struct shm_header *h, const char *path, char *why, size_t why_size)
{
	if (map_file(a, fd, h->bytes, true) < 0) {
		fail(why, why_size, "cannot map %s: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	prefer_huge_pages(a);
	ledger_repair(a);
	if (ledger_lock_init(&a->header->ledger) != 0)
		return fail(why, why_size, "this system has no robust locks between processes");
	return 0;
}

static int
keep_aside(const char *path, char *why, size_t why_size)
{
	char aside[PATH_BYTES_MAX];

	if (snprintf(aside, sizeof(aside), "%s.old", path) >= (int)sizeof(aside) || rename(path, aside) < 0)
		return fail(why, why_size, "%s belongs to another version of weir and cannot be moved out of "
		    "the way: %s", path, strerror(errno));
	log_warn("%s belongs to another version of weir: kept as %s; what it had not stored when it was "
	    "killed is only there", path, aside);
	return 0;
}

/* 1: attached; 0: there is none, or none that is of use; -1: see why. */
static int
attach_own(struct arena *a, const char *path, char *why, size_t why_size)
{
	struct shm_header h;
	char boot[CLOCK_BOOT_BYTES];
	int fd;

	if (boot_id(boot, why, why_size) < 0)
		return -1;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(why, why_size, "cannot open the arena %s: %s; does it belong "
		    "to the weir of another user?", path, strerror(errno));
	switch (file_trust(fd, boot, &h)) {
	case TRUSTED:
		return adopt(a, fd, &h, path, why, why_size) < 0 ? -1 : 1;
	case NO_ARENA:
		close(fd);
		return fail(why, why_size, "%s is not an arena of weir: remove it, or use another run_dir", path);
	case OLD_BOOT:
		close(fd);
		return 0;
	case FOREIGN:
		close(fd);
		return keep_aside(path, why, why_size);
	}
	check_failed("no such trust", __FILE__, __LINE__);
}

int
arena_open(struct arena *a, const char *path, const struct arena_sizes *want, enum arena_origin *origin,
    char *why, size_t why_size)
{
	*a = (struct arena){ .fd = -1, .lock_fd = -1 };
	if (sizes_check(want, why, why_size) < 0)
		return -1;
	a->lock_fd = lock_take(path, why, why_size);
	if (a->lock_fd < 0)
		return -1;
	int found = attach_own(a, path, why, why_size);
	*origin = found == 1 ? ARENA_ATTACHED : ARENA_CREATED;
	if (found < 0 || (found == 0 && arena_replace(a, path, want, why, why_size) < 0)) {
		arena_close(a);
		return -1;
	}
	return 0;
}

int
arena_attach(struct arena *a, const char *path, bool writable, char *why, size_t why_size)
{
	struct shm_header h;
	char boot[CLOCK_BOOT_BYTES];

	*a = (struct arena){ .fd = -1, .lock_fd = -1 };
	if (boot_id(boot, why, why_size) < 0)
		return -1;
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return fail(why, why_size, "cannot open the arena %s: %s; is weir running with this run_dir?",
		    path, strerror(errno));
	switch (file_trust(fd, boot, &h)) {
	case TRUSTED:
		if (map_file(a, fd, h.bytes, writable) == 0)
			return 0;
		fail(why, why_size, "cannot map %s: %s", path, strerror(errno));
		break;
	case NO_ARENA:
		fail(why, why_size, "%s is not an arena of weir", path);
		break;
	case OLD_BOOT:
		fail(why, why_size, "arena %s is from before the last boot: start weir first", path);
		break;
	case FOREIGN:
		fail(why, why_size, "arena %s belongs to another layout: use the command of the same version as "
		    "the weir that runs", path);
		break;
	}
	close(fd);
	return -1;
}

void
arena_close(struct arena *a)
{
	unmap(a);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	a->lock_fd = -1;
}

struct arena_sizes
arena_sizes(const struct arena *a)
{
	return a->header->sizes;
}

uint64_t
arena_epoch(const struct arena *a)
{
	return a->header->epoch;
}

int
arena_chown(struct arena *a, uid_t uid, gid_t gid)
{
	if (fchown(a->fd, uid, gid) < 0)
		return -1;
	return a->lock_fd < 0 ? 0 : fchown(a->lock_fd, uid, gid);
}

void
arena_store_failing_set(struct arena *a, bool failing)
{
	word_put(&a->header->ledger.store_failing, failing);
}

bool
arena_store_failing(const struct arena *a)
{
	return word_get(&a->header->ledger.store_failing) != 0;
}

/* ---- the process table ---- */

void
arena_proc_start(struct arena *a, uint32_t row, pid_t pid)
{
	struct shm_proc *p = layout_proc(a, row);

	if (word_get(&p->started_wall_ns) != 0)
		word_put(&p->restarts, word_get(&p->restarts) + 1);
	word_put(&p->started_wall_ns, (uint64_t)clock_wall_ns());
	word_put(&p->heartbeat_mono_ns, (uint64_t)clock_mono_ns());
	word_put(&p->pid, (uint64_t)pid);
}

void
arena_proc_stop(struct arena *a, uint32_t row)
{
	word_put(&layout_proc(a, row)->pid, 0);
}

void
arena_heartbeat(struct arena *a, uint32_t row, int64_t mono_ns)
{
	word_put(&layout_proc(a, row)->heartbeat_mono_ns, (uint64_t)mono_ns);
}

struct proc_view
arena_proc(const struct arena *a, uint32_t row)
{
	const struct shm_proc *p = layout_proc(a, row);

	return (struct proc_view){
		.pid = (pid_t)word_get(&p->pid),
		.started_wall_ns = (int64_t)word_get(&p->started_wall_ns),
		.heartbeat_mono_ns = (int64_t)word_get(&p->heartbeat_mono_ns),
		.restarts = word_get(&p->restarts),
	};
}
