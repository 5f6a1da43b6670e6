/*
 * tests/bench/histogram.h -- latencies in fixed memory, within 0.4 %.
 *
 * Values below 256 ns have a bucket each; above, every power of two is cut
 * into 128 equal buckets. Nothing is sampled and nothing is dropped.
 */
#ifndef WEIR_TESTS_BENCH_HISTOGRAM_H
#define WEIR_TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
	HISTOGRAM_BITS = 8,
	HISTOGRAM_HALF = 1 << (HISTOGRAM_BITS - 1),
	HISTOGRAM_BUCKETS = (64 - HISTOGRAM_BITS + 2) * HISTOGRAM_HALF,
};

struct histogram {
	uint64_t count, sum_ns, max_ns;
	uint32_t bucket[HISTOGRAM_BUCKETS];
};

static inline uint32_t
histogram_index(uint64_t ns)
{
	if (ns < 2 * HISTOGRAM_HALF)
		return (uint32_t)ns;
	uint32_t shift = (uint32_t)(64 - HISTOGRAM_BITS - __builtin_clzll(ns));
	return shift * HISTOGRAM_HALF + (uint32_t)(ns >> shift);
}

static inline void
histogram_add(struct histogram *h, uint64_t ns)
{
	h->count++;
	h->sum_ns += ns;
	h->max_ns = ns > h->max_ns ? ns : h->max_ns;
	h->bucket[histogram_index(ns)]++;
}

static inline uint64_t
histogram_quantile_ns(const struct histogram *h, double q)
{
	uint64_t rank = (uint64_t)(q * (double)h->count), seen = 0;
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen <= rank)
			continue;
		if (i < 2 * HISTOGRAM_HALF)
			return i;
		uint32_t shift = i / HISTOGRAM_HALF - 1;
		return (uint64_t)(i - shift * HISTOGRAM_HALF) << shift;
	}
	return h->max_ns;
}

#endif
