/*
 * shm/metrics.c -- see metrics.h.
 *
 * As a block has one writer, counting is a load, an addition and a store: no
 * locked instruction. All of it is relaxed; a reader may see one counter of a
 * request and not yet the other, and a scrape is none the worse for it.
 */
#include "shm/metrics.h"

#include "shm/layout.h"

const int64_t metrics_bounds_ns[METRICS_BUCKETS] = {
	25000, 50000, 100000, 250000, 500000,				/* weir's own part */
	1000000, 2500000, 5000000, 10000000, 25000000, 50000000,	/* a near upstream */
	100000000, 250000000, 500000000, 1000000000, 2500000000,	/* a first token */
	5000000000, 15000000000, 60000000000, 300000000000,		/* whole answers */
};

/* Rising, so that they can be searched; what is not here shares the 0. */
const uint16_t metrics_statuses[STATUSES_MAX] = {
	200, 201, 202, 204, 206, 246, 301, 302, 303, 304, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 408, 409, 411, 412, 413, 414, 415, 417, 422, 424, 429, 431, 446, 499,
	500, 501, 502, 503, 504, 529, 0,
};

static void
bump(_Atomic uint64_t *word, uint64_t by)
{
	poke(word, peek(word) + by);
}

static uint32_t
status_column(uint16_t status)
{
	uint32_t low = 0, high = STATUSES_MAX - 1;	/* the last one stands outside the order */

	if (status == metrics_statuses[0])
		return 0;	/* nearly all */
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (metrics_statuses[middle] < status)
			low = middle + 1;
		else
			high = middle;
	}
	return metrics_statuses[low] == status ? low : STATUSES_MAX - 1;
}

/* The first bucket whose bound is not less than the value. The search begins at
 * the first one whose bound is not less than the value's highest bit: one or two
 * steps are left. */
static uint32_t
bucket_of(int64_t ns)
{
	static const uint8_t first[] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6,
		6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15, 16, 17, 18, 18, 19, 19, 19,
	};
	size_t bit = (size_t)(63 - __builtin_clzll((uint64_t)ns | 1));
	uint32_t i = bit < sizeof(first) ? first[bit] : METRICS_BUCKETS;

	while (i < METRICS_BUCKETS && metrics_bounds_ns[i] < ns)
		i++;
	return i;
}

uint32_t
metrics_keeper_row(const struct arena *a)
{
	return a->header->sizes.workers;
}

void
metrics_request(struct arena *a, uint32_t worker, uint32_t route, uint32_t provider, uint16_t status)
{
	CHECK(route < ROUTES_MAX && provider < PROVIDERS_MAX);
	bump(&layout_metrics(a, worker)->requests[route][provider][status_column(status)], 1);
}

void
metrics_tokens(struct arena *a, uint32_t worker, uint32_t provider,
    const int64_t tokens[METRICS_TOKEN_CLASSES], int64_t cost_nusd)
{
	struct shm_metrics *m = layout_metrics(a, worker);

	CHECK(provider < PROVIDERS_MAX);
	for (int i = 0; i < METRICS_TOKEN_CLASSES; i++)
		if (tokens[i] > 0)
			bump(&m->tokens[provider][i], (uint64_t)tokens[i]);
	bump(&m->cost_nusd[provider], (uint64_t)cost_nusd);
}

void
metrics_observe(struct arena *a, uint32_t worker, enum metrics_histogram h, int64_t ns)
{
	struct shm_metrics *m = layout_metrics(a, worker);

	CHECK(h < HISTOGRAM_COUNT);
	if (ns < 0)
		ns = 0;		/* two clocks were read in the wrong order */
	bump(&m->bucket[h][bucket_of(ns)], 1);
	bump(&m->sum_ns[h], (uint64_t)ns);
}

void
metrics_add(struct arena *a, uint32_t worker, enum metrics_counter c, uint64_t n)
{
	CHECK(c < COUNTER_COUNT);
	bump(&layout_metrics(a, worker)->counter[c], n);
}

void
metrics_connections(struct arena *a, uint32_t worker, int64_t open)
{
	atomic_store_explicit(&layout_metrics(a, worker)->connections, (uint64_t)open, memory_order_relaxed);
}

void
metrics_waiting(struct arena *a, uint32_t worker, int64_t requests)
{
	atomic_store_explicit(&layout_metrics(a, worker)->waiting, (uint64_t)requests, memory_order_relaxed);
}

void
metrics_cache(struct arena *a, int64_t bytes, int64_t entries)
{
	struct shm_metrics *m = layout_metrics(a, metrics_keeper_row(a));

	atomic_store_explicit(&m->cache_bytes, (uint64_t)bytes, memory_order_relaxed);
	atomic_store_explicit(&m->cache_entries, (uint64_t)entries, memory_order_relaxed);
}

static void
add_histograms(const struct shm_metrics *m, struct metrics_view *out)
{
	for (int h = 0; h < HISTOGRAM_COUNT; h++) {
		for (int b = 0; b <= METRICS_BUCKETS; b++) {
			uint64_t n = peek(&m->bucket[h][b]);

			out->histogram[h].bucket[b] += n;
			out->histogram[h].count += n;
		}
		out->histogram[h].sum_ns += (int64_t)peek(&m->sum_ns[h]);
	}
}

void
metrics_sum(const struct arena *a, struct metrics_view *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t w = 0; w <= metrics_keeper_row(a); w++) {
		const struct shm_metrics *m = layout_metrics(a, w);

		for (int r = 0; r < ROUTES_MAX; r++)
			for (int p = 0; p < PROVIDERS_MAX; p++)
				for (int s = 0; s < STATUSES_MAX; s++)
					out->requests[r][p][s] += peek(&m->requests[r][p][s]);
		for (int p = 0; p < PROVIDERS_MAX; p++) {
			for (int t = 0; t < METRICS_TOKEN_CLASSES; t++)
				out->tokens[p][t] += peek(&m->tokens[p][t]);
			out->cost_nusd[p] += (int64_t)peek(&m->cost_nusd[p]);
		}
		for (int c = 0; c < COUNTER_COUNT; c++)
			out->counter[c] += peek(&m->counter[c]);
		out->connections += (int64_t)peek(&m->connections);
		out->waiting += (int64_t)peek(&m->waiting);
		out->cache_bytes += (int64_t)peek(&m->cache_bytes);
		out->cache_entries += (int64_t)peek(&m->cache_entries);
		add_histograms(m, out);
	}
}
