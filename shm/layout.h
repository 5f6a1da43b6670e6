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
 * Ordering: every store of such a word is a release and every load an acquire.
 * That costs nothing on x86 and one instruction elsewhere, and it is all that
 * the readers without a lock need: the keeper (ring.c, evict.c) and those who
 * look (view.c).
 */
#ifndef WEIR_SHM_LAYOUT_H
#define WEIR_SHM_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/base/clock.h"
#include "shm/claims.h"
#include "shm/health.h"
#include "shm/ledger.h"
#include "shm/metrics.h"
#include "shm/places.h"
#include "shm/queue.h"
#include "shm/ring.h"

#define LAYOUT_VERSION 3	/* raise when a meaning changes and no size does */

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

/* Of words beside which nothing has an order: hints, and counts that may be late. */
static inline uint64_t
peek(const _Atomic uint64_t *w)
{
	return atomic_load_explicit(w, memory_order_relaxed);
}

static inline void
poke(_Atomic uint64_t *w, uint64_t value)
{
	atomic_store_explicit(w, value, memory_order_relaxed);
}

static inline void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/*
 * The ledger's lock. Who waits for the lock reads only the line of `sequence`,
 * so it does not take the others from the one who works. The last line changes
 * when meters come and go, and everybody reads it.
 *
 *	mutex		all; robust and process-shared
 *	sequence	the lock's holder: odd while a step is under way
 *	tick		keeper, under the lock: a coarse clock of flushes (evict.c)
 *	meters_fresh	journalled; rows from here on were never used
 *	meters_used	journalled; rows that are taken
 *	meters_free	journalled; list of rows that were given back: row + 1, or 0
 *	evictions	journalled; steps that took meters out
 *	repairs		the lock's holder: steps that were rolled back for the dead
 *	evict_row	keeper: where ledger_evict() goes on
 *	store_failing	keeper
 */
struct shm_ledger {
	_Alignas(CACHE_LINE) pthread_mutex_t mutex;
	_Alignas(CACHE_LINE) _Atomic uint64_t sequence;
	_Atomic uint64_t tick;
	_Alignas(CACHE_LINE) _Atomic uint64_t meters_fresh;
	_Atomic uint64_t meters_used;
	_Atomic uint64_t meters_free;
	_Atomic uint64_t evictions;
	_Atomic uint64_t repairs;
	_Atomic uint64_t evict_row;
	_Atomic uint64_t store_failing;
};

/* First in the file. Writer: the master, when it creates it. */
struct shm_header {
	char magic[8];
	uint64_t layout_hash;
	char boot_id[CLOCK_BOOT_BYTES];		/* text, NUL-terminated */
	uint64_t bytes;			/* of the whole file */
	uint64_t epoch;
	struct arena_sizes sizes;
	struct shm_sections {		/* offsets in bytes */
		uint64_t procs, workers, meters, index, names, pages, rings, metrics, queue;
		uint64_t health, claims, places;
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
 * they were. count = 0 is the normal state. The longest step is a move (move.c):
 * CHARGES_MAX holds are released or closed, 3 words each, as many charges are
 * taken, 6 words each, and a page takes the place of another, 6 words: 222.
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
 * Behind the workers' rows stand two more: that of the tools, with a ring, and
 * that of the keeper, of which only the journal is used.
 *
 * Ring positions are bytes since the beginning of time; modulo ring_bytes they
 * are places in the ring. ring_head belongs to the step and may be rolled
 * back; ring_visible follows it after the commit, and is what the keeper sees.
 */
#define ROWS_BESIDE 2

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
 * A meter: one line of cache. All words are journalled, except while its row is
 * free (both words of the id are 0): then they mean nothing, and who takes the
 * row writes them before the id. A row that is not free keeps its number.
 *
 * `what` has in its upper half the tick of the meter's last use, in its lower
 * half what WHAT_* say: ring_charge.what. Then, by kind:
 *
 *		limit		window_ns	level		held
 *	bucket	a window's	the window's ns	full at (mono)	holds, ns; 0 if of requests
 *	budget	a period's	the alert level	spent		holds
 *	concur.	at a time	0		0		in flight
 *	group	meters at most	0		meters		0
 *
 * period_index: the period that a budget's `level` is of.
 *
 * The index has INDEX_FACTOR words for each row, journalled too: 0, or the
 * upper half of the id's hash << 32 | row + 1.
 */
#define INDEX_FACTOR 2

#define WHAT_KIND(what) ((what) & 7)
#define WHAT_UNIT(what) ((what) >> 3 & 7)
#define WHAT_MODE(what) ((what) >> 6 & 7)
#define WHAT_PERIOD(what) ((what) >> 9 & 7)
#define WHAT_DAYS(what) ((what) >> 12 & 511)
#define WHAT_ANCHOR(what) ((what) >> 21 & 511)
#define WHAT_TYPE_MASK UINT64_C(0x3f)		/* kind and unit: never change */
#define WHAT_MODE_MASK UINT64_C(0x1c0)
#define WHAT_PERIOD_MASK UINT64_C(0x3ffffe00)	/* with days and anchor */
#define WHAT_TICK_SHIFT 32

struct shm_meter {
	_Alignas(CACHE_LINE) _Atomic uint64_t id_hi;
	_Atomic uint64_t id_lo;
	_Atomic uint64_t what;
	_Atomic uint64_t limit;		/* this and window_ns: as of the last use */
	_Atomic uint64_t window_ns;
	_Atomic uint64_t level;
	_Atomic uint64_t held;
	_Atomic uint64_t period_index;
};

/* Beside each meter, what is seldom needed. Written while the row is free. */
struct shm_name {
	_Alignas(CACHE_LINE) _Atomic uint64_t text[METER_NAME_BYTES / 8];	/* bytes, NUL-terminated */
	_Atomic uint64_t group;	/* row + 1 of the METER_GROUP that counts this one; 0: none */
	_Atomic uint64_t next;	/* in the list of free rows: row + 1, or 0 */
};

/*
 * What a request took from one meter. All that a settle of a request bucket
 * needs is here, so that it need not touch the meter.
 *
 *	amount	bucket: ns of refill; else units; postpaid: 0
 *	units	that were asked for; CLOSED: that will be paid
 *	mark	bucket of requests: its level behind that. Others, if LATER: their
 *		base, what the request had used before and they do not pay
 *	what	of the charge: lower half of shm_meter.what; and HOLD_*
 *
 * The mark has two meanings so that an admission, after which a request has
 * no base, has no word more to write.
 */
#define HOLD_CLOSED (UINT32_C(1) << 31)	/* the request went on without this meter: nothing more is used of it */
#define HOLD_LATER (UINT32_C(1) << 30)	/* something had been used before it was charged */
#define HOLD_MOVED (HOLD_CLOSED | HOLD_LATER)

struct shm_hold {
	_Atomic uint64_t id_hi, id_lo;
	_Atomic uint64_t amount;
	_Atomic uint64_t units;
	_Atomic uint64_t mark;
	_Atomic uint32_t row;		/* of the meter */
	_Atomic uint32_t what;
};

static inline uint32_t
hold_word(const struct shm_hold *h)
{
	return atomic_load_explicit(&h->what, memory_order_acquire);
}

static inline uint32_t
hold_what(const struct shm_hold *h)
{
	return hold_word(h) & ~HOLD_MOVED;
}

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
	_Atomic uint64_t cost_nusd;	/* this and tokens: in state DONE */
	_Atomic uint64_t tokens;
	_Atomic uint64_t holds;
	_Atomic uint64_t step;		/* `sequence` of its admission, or of its last move */
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

/* Counters of one worker, or of the keeper. Writer: that process. */
struct shm_metrics {
	_Alignas(CACHE_LINE) _Atomic uint64_t requests[ROUTES_MAX][PROVIDERS_MAX][STATUSES_MAX];
	_Atomic uint64_t tokens[PROVIDERS_MAX][METRICS_TOKEN_CLASSES];
	_Atomic uint64_t cost_nusd[PROVIDERS_MAX];
	_Atomic uint64_t bucket[HISTOGRAM_COUNT][METRICS_BUCKETS + 1];
	_Atomic uint64_t sum_ns[HISTOGRAM_COUNT];
	_Atomic uint64_t counter[COUNTER_COUNT];
	_Atomic uint64_t connections;
	_Atomic uint64_t waiting;
	_Atomic uint64_t cache_bytes, cache_entries;
};

/* Who waits for room: queue.h. Writers: all workers, without a lock. */
struct shm_queue {
	_Alignas(CACHE_LINE) _Atomic uint64_t seen_mono_ns;	/* when somebody was last refused, and waits */
	struct shm_place {
		_Alignas(CACHE_LINE) _Atomic uint64_t id_hi;
		_Atomic uint64_t id_lo;
		_Atomic uint64_t since_mono_ns;
		_Atomic uint64_t need;
		_Atomic uint64_t seen_mono_ns;			/* 0: nobody */
	} place[QUEUE_PLACES];
};

/*
 * Targets that failed: health.h. Writers: all workers, without a lock; `making` and
 * the probes of the dead: the master too.
 *
 *	making		worker + 1 that makes a row; 0: nobody. By compare-and-swap
 *	unkept		reports for which no row was free
 *	ejected		by reason
 *
 * A row, and the line beside it that is seldom needed. id and name are written by who
 * has `making`, while the circuit says that the row is free; every other word by
 * whoever reports. Only the circuit, changed by compare-and-swap, has to be right.
 *
 *	circuit		health.c
 *	streak		failures since the last success
 *	half, _before	of the window: number, failures and requests
 *	since_ms	when the target went out, or came up again; 0: never
 *	used_ms		last report, to the minute
 */
struct shm_target {
	_Alignas(CACHE_LINE) _Atomic uint64_t id_hi;
	_Atomic uint64_t id_lo;
	_Atomic uint64_t circuit;
	_Atomic uint64_t streak;
	_Atomic uint64_t half;
	_Atomic uint64_t half_before;
	_Atomic uint64_t since_ms;
	_Atomic uint64_t used_ms;
};

struct shm_target_name {
	_Alignas(CACHE_LINE) _Atomic uint64_t text[HEALTH_NAME_BYTES / 8];	/* bytes, NUL-terminated */
};

struct shm_health {
	_Alignas(CACHE_LINE) _Atomic uint64_t making;
	_Atomic uint64_t unkept;
	_Atomic uint64_t ejected[HEALTH_WHYS];
	struct shm_target row[HEALTH_ROWS];
	struct shm_target_name name[HEALTH_ROWS];
};

/* Where conversations were served: places.h. Writers: all workers, without a lock.
 * (Claims are words alone: claims.c.) */
struct shm_place_set {
	_Alignas(CACHE_LINE) struct shm_place_entry {
		_Atomic uint64_t check;
		_Atomic uint64_t value;		/* 0: empty */
	} way[PLACES_WAYS];
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words must work across processes");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "a word is its value");
_Static_assert(sizeof(struct shm_ledger) == 3 * CACHE_LINE, "three lines");
_Static_assert(sizeof(struct shm_meter) == CACHE_LINE, "one line a meter");
_Static_assert(sizeof(struct shm_queue) == (1 + QUEUE_PLACES) * CACHE_LINE, "one line a place");
_Static_assert(sizeof(struct shm_target) == CACHE_LINE, "one line a target");
_Static_assert(sizeof(struct shm_target_name) == 2 * CACHE_LINE, "two lines a name");
_Static_assert(offsetof(struct shm_health, row) == CACHE_LINE, "one line before the rows");
_Static_assert(sizeof(struct shm_place_set) == CACHE_LINE, "one line a set");
_Static_assert(sizeof(struct shm_proc) == CACHE_LINE, "one line a process");
_Static_assert(sizeof(struct shm_journal) == 4096, "a page");
_Static_assert(sizeof(struct inflight) == INFLIGHT_ENTRY_BYTES, "see limits.h");
_Static_assert(sizeof(struct shm_name) == 2 * CACHE_LINE, "two lines a name");
_Static_assert(sizeof(struct shm_hold) == 48, "no holes");
_Static_assert((HOLD_MOVED & (WHAT_TYPE_MASK | WHAT_MODE_MASK | WHAT_PERIOD_MASK)) == 0, "bits of their own");
_Static_assert(sizeof(struct shm_item) == RING_ALIGN, "fits before the end of a ring");
_Static_assert(sizeof(struct ring_charge) == 64, "in ring items");

/* Rows of struct shm_worker: the workers, the tools, the keeper. */
static inline uint32_t
layout_rows(const struct arena *a)
{
	return a->header->sizes.workers + ROWS_BESIDE;
}

static inline struct shm_worker *
layout_worker(const struct arena *a, uint32_t row)
{
	CHECK(row < layout_rows(a));
	return (struct shm_worker *)((char *)a->header + a->header->at.workers) + row;
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

static inline struct shm_name *
layout_names(const struct arena *a)
{
	return (struct shm_name *)((char *)a->header + a->header->at.names);
}

/* One more than a worker may have requests in flight: one that moves finds a
 * free one, however many there are. */
static inline uint32_t
layout_pages_each(const struct arena_sizes *s)
{
	return s->inflight + 1;
}

static inline struct inflight *
layout_pages(const struct arena *a, uint32_t worker)
{
	CHECK(worker < a->header->sizes.workers);
	return (struct inflight *)((char *)a->header + a->header->at.pages) +
	    (size_t)worker * layout_pages_each(&a->header->sizes);
}

/* Of a worker, or of the tools. */
static inline char *
layout_ring(const struct arena *a, uint32_t row)
{
	CHECK(row <= a->header->sizes.workers);
	return (char *)a->header + a->header->at.rings + (size_t)row * a->header->sizes.ring_bytes;
}

/* Of a worker, or of the keeper. */
static inline struct shm_metrics *
layout_metrics(const struct arena *a, uint32_t row)
{
	CHECK(row <= a->header->sizes.workers);
	return (struct shm_metrics *)((char *)a->header + a->header->at.metrics) + row;
}

static inline struct shm_queue *
layout_queue(const struct arena *a)
{
	return (struct shm_queue *)((char *)a->header + a->header->at.queue);
}

static inline struct shm_health *
layout_health(const struct arena *a)
{
	return (struct shm_health *)((char *)a->header + a->header->at.health);
}

static inline _Atomic uint64_t *
layout_claims(const struct arena *a)
{
	return (_Atomic uint64_t *)((char *)a->header + a->header->at.claims);
}

static inline struct shm_place_set *
layout_places(const struct arena *a)
{
	return (struct shm_place_set *)((char *)a->header + a->header->at.places);
}

static inline struct shm_proc *
layout_proc(const struct arena *a, uint32_t row)
{
	CHECK(row < PROC_COUNT);
	return (struct shm_proc *)((char *)a->header + a->header->at.procs) + row;
}

#endif
