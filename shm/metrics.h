/*
 * shm/metrics.h -- counters and histograms, one block a worker, summed on read.
 *
 * A block is written by its worker alone (relaxed stores, no lock, no shared
 * cache line) and outlives it: a restarted worker goes on counting where its
 * predecessor stopped, so counters never step back. The block behind the
 * workers' is the keeper's. What a row or column means (which route, which
 * provider) is said by the caller's name tables.
 */
#ifndef WEIR_SHM_METRICS_H
#define WEIR_SHM_METRICS_H

#include <stdint.h>

#include "shm/arena.h"

#define METRICS_TOKEN_CLASSES 8
#define METRICS_BUCKETS 20	/* upper bounds in metrics_bounds_ns[], then +Inf */

enum metrics_histogram {
	HISTOGRAM_TOTAL,	/* first byte in to last byte out */
	HISTOGRAM_UPSTREAM,	/* request sent to last byte of the answer */
	HISTOGRAM_FIRST_BYTE,	/* request sent to first byte of the answer */
	HISTOGRAM_OVERHEAD,	/* total less upstream: weir's own part */
	HISTOGRAM_COUNT,
};

enum metrics_counter {
	COUNTER_CONNECTIONS,		/* accepted */
	COUNTER_BAD_REQUESTS,		/* refused by the parser, no route known */
	COUNTER_REFUSED_RATE,
	COUNTER_REFUSED_BUDGET,
	COUNTER_REFUSED_AUTH,
	COUNTER_CLIENT_GONE,		/* left before the end of its answer */
	COUNTER_UPSTREAM_ERRORS,	/* connect, TLS, time-out, protocol */
	COUNTER_UPSTREAM_CONNECTS,	/* new connections; the rest were reused */
	COUNTER_PINGS,			/* keep-alive events that weir inserted */
	COUNTER_UNPRICED,		/* requests to a model without a price */
	COUNTER_BYTES_IN, COUNTER_BYTES_OUT,	/* bodies, client side */
	COUNTER_REFUSED_STORE,		/* the store cannot be written: nothing is admitted */
	COUNTER_REFUSED_LIMITS,		/* limits that could not be applied: too many, no row, level unreadable */
	COUNTER_CLAMPED,		/* max_tokens was lowered to what a budget pays */
	COUNTER_COUNTED,		/* prompts whose exact size a provider was asked for */
	COUNTER_WAITED,			/* for room in a budget */
	COUNTER_GROUP_OVERFLOW,		/* charged on the overflow meter: its group was full */
	COUNTER_RETRIES,		/* attempts at the same target, after one that failed */
	COUNTER_FALLBACKS,		/* requests that went on to another target */
	COUNTER_CACHE_HITS,		/* answers from the cache */
	COUNTER_CACHE_MISSES,		/* looked for, and not there */
	COUNTER_CACHE_WAITS,		/* requests that waited for another one to fetch the same */
	COUNTER_ALERTS_THRESHOLD,	/* budgets that passed their alert level; keeper */
	COUNTER_ALERTS_EXHAUSTED,	/* budgets that were used up; keeper */
	COUNTER_EVICTED,		/* meters that were taken out of memory; keeper */
	COUNTER_CACHE_STORED,		/* answers that were kept; keeper, as are the next five in part */
	COUNTER_CACHE_REFUSED_QUEUE,	/* not kept: the keeper had too many waiting; by a worker */
	COUNTER_CACHE_REFUSED_LARGE,	/* ... larger than cache.entry_bytes */
	COUNTER_CACHE_REFUSED_STORE,	/* ... the cache could not be written, or had no room */
	COUNTER_CACHE_REFUSED_MALFORMED,	/* ... what came was no entry */
	COUNTER_CACHE_EXPIRED,		/* kept answers that went because they were too old */
	COUNTER_CACHE_EVICTED,		/* ... for room */
	COUNTER_COUNT,
};

extern const int64_t metrics_bounds_ns[METRICS_BUCKETS];
extern const uint16_t metrics_statuses[STATUSES_MAX];
	/* HTTP statuses with a column of their own; the last is 0: any other. */

struct metrics_histogram_view {
	uint64_t bucket[METRICS_BUCKETS + 1];	/* not cumulative */
	uint64_t count;
	int64_t sum_ns;
};

struct metrics_view {		/* the sum over workers; large: allocate it */
	uint64_t requests[ROUTES_MAX][PROVIDERS_MAX][STATUSES_MAX];
	uint64_t tokens[PROVIDERS_MAX][METRICS_TOKEN_CLASSES];
	int64_t cost_nusd[PROVIDERS_MAX];
	struct metrics_histogram_view histogram[HISTOGRAM_COUNT];
	uint64_t counter[COUNTER_COUNT];
	int64_t connections;	/* open now */
	int64_t waiting;	/* for room in a limit, now */
	int64_t cache_bytes, cache_entries;	/* of kept answers, now */
};

uint32_t metrics_keeper_row(const struct arena *a);
	/* The block behind the workers'; the keeper alone counts there. */
void metrics_request(struct arena *a, uint32_t worker, uint32_t route, uint32_t provider,
    uint16_t status);
void metrics_tokens(struct arena *a, uint32_t worker, uint32_t provider,
    const int64_t tokens[METRICS_TOKEN_CLASSES], int64_t cost_nusd);
void metrics_observe(struct arena *a, uint32_t worker, enum metrics_histogram h, int64_t ns);
void metrics_add(struct arena *a, uint32_t worker, enum metrics_counter c, uint64_t n);
void metrics_connections(struct arena *a, uint32_t worker, int64_t open);
	/* A gauge: sets the number; the master sets 0 for a dead worker. */
void metrics_waiting(struct arena *a, uint32_t worker, int64_t requests);
	/* Likewise: requests that wait for room in a limit. */
void metrics_cache(struct arena *a, int64_t bytes, int64_t entries);
	/* Likewise, by the keeper: the answers that are kept. */
void metrics_sum(const struct arena *a, struct metrics_view *out);

#endif
