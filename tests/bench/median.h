/*
 * tests/bench/median.h -- processor time, and the middle of several rounds.
 *
 * Other work on the cores stretches the clock on the wall, and one round in
 * many; neither moves these.
 */
#ifndef WEIR_TESTS_BENCH_MEDIAN_H
#define WEIR_TESTS_BENCH_MEDIAN_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "shm/base/clock.h"

static inline int64_t
cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static inline int
by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts them. */
static inline double
median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof(*values), by_value);
	return values[n / 2];
}

#endif
