/*
 * Metrics: each event lands in its own cell, the bounds are inclusive, blocks
 * are summed and outlive their writers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shm/metrics.h"
#include "tests/unit/arena_fixture.h"

struct metrics_fixture {
	struct fixture base;
	struct metrics_view view;
};

static int
setup(void **state)
{
	struct metrics_fixture *f = malloc(sizeof(*f));

	fixture_open(&f->base, (struct arena_sizes){ .workers = 3, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct metrics_fixture *f = *state;

	fixture_close(&f->base);
	free(f);
	return 0;
}

static void
tables_are_in_order(void **state)
{
	(void)state;
	for (int i = 1; i < METRICS_BUCKETS; i++)
		assert_true(metrics_bounds_ns[i] > metrics_bounds_ns[i - 1]);
	for (int i = 1; i < STATUSES_MAX - 1; i++)
		assert_true(metrics_statuses[i] > metrics_statuses[i - 1]);
	assert_int_equal(metrics_statuses[STATUSES_MAX - 1], 0);
}

static void
each_status_has_its_column(void **state)
{
	struct metrics_fixture *f = *state;
	uint64_t other = 0;

	for (uint16_t status = 0; status < 1000; status++)
		metrics_request(&f->base.arena, status % 3, 1, 2, status);
	metrics_request(&f->base.arena, 0, ROUTES_MAX - 1, PROVIDERS_MAX - 1, 200);
	metrics_sum(&f->base.arena, &f->view);
	for (int i = 0; i < STATUSES_MAX - 1; i++)
		assert_int_equal(f->view.requests[1][2][i], 1);
	other = f->view.requests[1][2][STATUSES_MAX - 1];
	assert_int_equal(other, 1000 - (STATUSES_MAX - 1));
	assert_int_equal(f->view.requests[ROUTES_MAX - 1][PROVIDERS_MAX - 1][0], 1);
	assert_int_equal(f->view.requests[0][0][0], 0);
}

static void
bounds_are_inclusive(void **state)
{
	struct metrics_fixture *f = *state;
	int64_t sum = 0;

	for (int i = 0; i < METRICS_BUCKETS; i++) {
		metrics_observe(&f->base.arena, 0, HISTOGRAM_UPSTREAM, metrics_bounds_ns[i]);
		metrics_observe(&f->base.arena, 2, HISTOGRAM_UPSTREAM, metrics_bounds_ns[i] + 1);
		sum += 2 * metrics_bounds_ns[i] + 1;
	}
	metrics_observe(&f->base.arena, 1, HISTOGRAM_UPSTREAM, -5);
	metrics_sum(&f->base.arena, &f->view);

	const struct metrics_histogram_view *h = &f->view.histogram[HISTOGRAM_UPSTREAM];
	for (int i = 1; i < METRICS_BUCKETS; i++)
		assert_int_equal(h->bucket[i], 2);
	assert_int_equal(h->bucket[0], 2);	/* its bound, and the negative one */
	assert_int_equal(h->bucket[METRICS_BUCKETS], 1);
	assert_int_equal(h->count, 2 * METRICS_BUCKETS + 1);
	assert_int_equal(h->sum_ns, sum);
	assert_int_equal(f->view.histogram[HISTOGRAM_TOTAL].count, 0);
}

static void
workers_are_summed_and_outlived(void **state)
{
	struct metrics_fixture *f = *state;
	const int64_t tokens[METRICS_TOKEN_CLASSES] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	enum arena_origin origin;
	char why[256];

	for (uint32_t w = 0; w < 3; w++) {
		metrics_tokens(&f->base.arena, w, 5, tokens, 1000);
		metrics_add(&f->base.arena, w, COUNTER_PINGS, w + 1);
		metrics_connections(&f->base.arena, w, 10);
	}
	metrics_connections(&f->base.arena, 1, 0);
	arena_close(&f->base.arena);
	struct arena_sizes same = { 3, 1, 65536, 64 };
	assert_int_equal(arena_open(&f->base.arena, f->base.path, &same, &origin, why, sizeof(why)), 0);
	metrics_add(&f->base.arena, 0, COUNTER_PINGS, 1);
	metrics_sum(&f->base.arena, &f->view);
	for (int i = 0; i < METRICS_TOKEN_CLASSES; i++)
		assert_int_equal(f->view.tokens[5][i], 3 * (i + 1));
	assert_int_equal(f->view.cost_nusd[5], 3000);
	assert_int_equal(f->view.counter[COUNTER_PINGS], 7);
	assert_int_equal(f->view.connections, 20);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_in_order),
		TEST(each_status_has_its_column),
		TEST(bounds_are_inclusive),
		TEST(workers_are_summed_and_outlived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
