/*
 * shm/layout.h -- the structs that lie in the arena. Private to shm/.
 *
 * Everything here is shared by processes of one build and survives their
 * death, so: no pointers, fixed sizes, explicit alignment, and each struct
 * says who writes it. arena.c folds the sizes and offsets into a hash that
 * the file carries: builds that differ refuse each other.
 *
 * A *word* is an _Atomic uint64_t. Words that a ledger step changes are
 * written by journal_set() alone (journal.h). Signed values are kept in words
 * by two's complement: (int64_t)word_get(w).
 *
 * Ordering: every store of a word is a release and every load an acquire.
 * That costs nothing on x86 and one instruction elsewhere, and it is all that
 * the two readers without a lock need: the keeper (ring.c) and the lookers
 * (meter.c).
 */
#ifndef WEIR_SHM_LAYOUT_H
#define WEIR_SHM_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/ledger.h"
#include "shm/metrics.h"
#include "shm/ring.h"

#define LAYOUT_VERSION 1	/* raise when a meaning changes and no size does */

static inline uint64_t
word_get(const _Atomic uint64_t *w)
{
	return atomic_load_explicit(w, memory_order_acquire);
}

static inline void
word_put(_Atomic uint64_t *w, uint64_t value)
{
	atomic_store_explicit(w, value, memory_order_release);
}

/*
 * The ledger's lock. Three lines of cache: who waits for the lock reads only
 * `sequence`, so it does not take the other two from the one who works.
 *
 *	mutex		all; robust and process-shared
 *	sequence	the lock's holder: odd while a step is under way
 *	meters_used	journalled
 */
struct shm_ledger {
	_Alignas(CACHE_LINE) pthread_mutex_t mutex;
	_Alignas(CACHE_LINE) _Atomic uint64_t sequence;
	_Alignas(CACHE_LINE) _Atomic uint64_t meters_used;	/* rows that are taken */
};

/* First in the file. Writer: the master, when it creates it. */
struct shm_header {
	char magic[8];
	uint64_t layout_hash;
	char boot_id[40];		/* text, NUL-terminated */
	uint64_t bytes;			/* of the whole file */
	uint64_t epoch;
	struct arena_sizes sizes;
	struct shm_sections {		/* offsets in bytes */
		uint64_t procs, workers, meters, index, pages, rings, metrics;
	} at;
	struct shm_ledger ledger;
};

/* A process: arena.h says who writes what. */
struct shm_proc {
	_Alignas(CACHE_LINE) _Atomic uint64_t pid;	/* 0: not running */
	_Atomic uint64_t started_wall_ns;		/* 0: the row was never in use */
	_Atomic uint64_t heartbeat_mono_ns;
	_Atomic uint64_t restarts;
};

/*
 * The undo journal: the words that the step under way has changed, with what
 * they were. count = 0 is the normal state. 16 charges that all create their
 * meter are 16 * 11 words and a few.
 */
#define JOURNAL_MAX 255

struct shm_undo {
	uint64_t offset;	/* of the word, from the header */
	uint64_t old;
};

struct shm_journal {
	_Alignas(CACHE_LINE) _Atomic uint64_t count;
	uint64_t pad;
	struct shm_undo undo[JOURNAL_MAX];
};

/*
 * A worker's part of the ledger. Writer: whoever acts for that worker (itself,
 * or the master after its death), under the lock; ring_tail: the keeper.
 *
 * Ring positions are bytes since the beginning of time; modulo ring_bytes they
 * are places in the ring. ring_head belongs to the step and may be rolled
 * back; ring_visible follows it after the commit, and is what the keeper sees.
 */
struct shm_worker {
	_Alignas(CACHE_LINE) _Atomic uint64_t ring_head;	/* journalled */
	_Atomic uint64_t ring_sequence;	/* journalled; of the last item */
	_Atomic uint64_t ring_visible;
	_Atomic uint64_t page_first;	/* journalled; free list: page number + 1, or 0 */
	_Atomic uint64_t page_fresh;	/* journalled; pages from here on were never used */
	_Atomic uint64_t inflight;	/* journalled; pages that are not free */
	_Alignas(CACHE_LINE) _Atomic uint64_t ring_tail;
	struct shm_journal journal;
};

/*
 * A meter: one line of cache. All words journalled. Rows are given out in order
 * and never given back: a row number stays true for as long as the arena lives.
 *
 * The index has INDEX_FACTOR words for each row, journalled too: 0, or the
 * upper half of the id's hash << 32 | row + 1.
 */
#define INDEX_FACTOR 2

struct shm_meter {
	_Alignas(CACHE_LINE) _Atomic uint64_t id_hi;	/* both 0: the row is free */
	_Atomic uint64_t id_lo;
	_Atomic uint64_t what;		/* enum meter_kind | enum meter_period << 8 */
	_Atomic uint64_t limit;		/* as of the last use, for those who look */
	_Atomic uint64_t window_ns;	/* likewise; bucket */
	_Atomic uint64_t level;		/* bucket: full again at this mono ns; budget: spent nusd */
	_Atomic uint64_t held;		/* budget: nusd */
	_Atomic uint64_t period_index;	/* budget: the period that `level` is of */
};

struct shm_hold {
	_Atomic uint64_t amount;	/* bucket: ns of refill; budget: nusd */
	_Atomic uint32_t row;		/* of the meter */
	_Atomic uint32_t kind;
};

/*
 * A request in flight. Writer: its worker; after its death, the master.
 * `status` is journalled when it leaves or enters FREE; what else stands here
 * is written while it cannot matter, or in two copies with an index.
 *
 *	status	bits 0-7 enum inflight_state, bit 8 DONE means cancel,
 *		from bit 16 a count of admissions: a looker sees a page change
 *	record	bytes of the valid version | its place << 32
 */
#define INFLIGHT_STATE 0xffu
#define INFLIGHT_CANCEL 0x100u
#define INFLIGHT_GENERATION 0x10000u

struct inflight {
	_Alignas(CACHE_LINE) _Atomic uint64_t status;
	_Atomic uint64_t record;
	_Atomic uint64_t metered_at;	/* the valid copy */
	_Atomic uint64_t cost_nusd;	/* in state DONE */
	_Atomic uint64_t holds;
	uint64_t next;			/* free list: page number + 1, or 0 */
	struct shm_hold hold[CHARGES_MAX];
	struct metered metered[2];
	char text[2][RECORD_BYTES_MAX];
};

/* Ahead of each item in a ring; then the charges, then the record. Items
 * begin at multiples of RING_ALIGN, so there is room for this before the end. */
#define RING_ALIGN 32

struct shm_item {
	uint64_t bytes;		/* with this header, a multiple of RING_ALIGN */
	uint64_t sequence;	/* 0: nothing here, go on at the ring's beginning */
	uint32_t charges;
	uint32_t record_bytes;
	uint64_t pad;
};

/* Counters of one worker. Writer: that worker. */
struct shm_metrics {
	_Alignas(CACHE_LINE) _Atomic uint64_t requests[ROUTES_MAX][PROVIDERS_MAX][STATUSES_MAX];
	_Atomic uint64_t tokens[PROVIDERS_MAX][METRICS_TOKEN_CLASSES];
	_Atomic uint64_t cost_nusd[PROVIDERS_MAX];
	_Atomic uint64_t bucket[HISTOGRAM_COUNT][METRICS_BUCKETS + 1];
	_Atomic uint64_t sum_ns[HISTOGRAM_COUNT];
	_Atomic uint64_t counter[COUNTER_COUNT];
	_Atomic uint64_t connections;
	_Atomic uint64_t waiting;
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must work across processes");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "a word is its value");
_Static_assert(sizeof(struct shm_ledger) == 3 * CACHE_LINE, "three lines");
_Static_assert(sizeof(struct shm_meter) == CACHE_LINE, "one line a meter");
_Static_assert(sizeof(struct shm_proc) == CACHE_LINE, "one line a process");
_Static_assert(sizeof(struct shm_journal) == 4096, "a page");
_Static_assert(sizeof(struct inflight) == INFLIGHT_ENTRY_BYTES, "see limits.h");
_Static_assert(sizeof(struct shm_item) == RING_ALIGN, "fits before the end of a ring");
_Static_assert(sizeof(struct ring_charge) == 40, "in ring items");

static inline struct shm_worker *
layout_worker(const struct arena *a, uint32_t worker)
{
	CHECK(worker < a->header->sizes.workers);
	return (struct shm_worker *)((char *)a->header + a->header->at.workers) + worker;
}

static inline struct shm_meter *
layout_meters(const struct arena *a)
{
	return (struct shm_meter *)((char *)a->header + a->header->at.meters);
}

static inline _Atomic uint64_t *
layout_index(const struct arena *a)
{
	return (_Atomic uint64_t *)((char *)a->header + a->header->at.index);
}

static inline struct inflight *
layout_pages(const struct arena *a, uint32_t worker)
{
	return (struct inflight *)((char *)a->header + a->header->at.pages) +
	    (size_t)worker * a->header->sizes.inflight;
}

static inline char *
layout_ring(const struct arena *a, uint32_t worker)
{
	return (char *)a->header + a->header->at.rings + (size_t)worker * a->header->sizes.ring_bytes;
}

static inline struct shm_metrics *
layout_metrics(const struct arena *a, uint32_t worker)
{
	CHECK(worker < a->header->sizes.workers);
	return (struct shm_metrics *)((char *)a->header + a->header->at.metrics) + worker;
}

static inline struct shm_proc *
layout_proc(const struct arena *a, uint32_t row)
{
	CHECK(row < PROC_COUNT);
	return (struct shm_proc *)((char *)a->header + a->header->at.procs) + row;
}

#endif
