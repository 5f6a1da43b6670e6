/*
 * tests/unit/loop.h -- a libuv loop for tests: run until something is so.
 *
 * No test sleeps. A condition that does not come true within LOOP_PATIENCE_MS
 * fails the test; nothing waits longer.
 */
#ifndef WEIR_TESTS_UNIT_LOOP_H
#define WEIR_TESTS_UNIT_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "shm/base/check.h"

#define LOOP_PATIENCE_MS 20000

struct test_loop {
	uv_loop_t uv;
	uv_timer_t patience;
	bool impatient;
};

static inline void
test_loop_impatient(uv_timer_t *t)
{
	((struct test_loop *)t->data)->impatient = true;
}

static inline void
test_loop_init(struct test_loop *l)
{
	l->impatient = false;
	CHECK(uv_loop_init(&l->uv) == 0);
	CHECK(uv_timer_init(&l->uv, &l->patience) == 0);
	l->patience.data = l;
	uv_unref((uv_handle_t *)&l->patience);
}

/* One turn, which ends at the latest when the patience does. */
static inline bool
test_loop_turn(struct test_loop *l)
{
	uv_run(&l->uv, UV_RUN_ONCE);
	return !l->impatient;
}

#define RUN_UNTIL(l, condition) do { \
	(l)->impatient = false; \
	uv_timer_start(&(l)->patience, test_loop_impatient, LOOP_PATIENCE_MS, 0); \
	while (!(condition)) \
		if (!test_loop_turn(l)) \
			fail_msg("line %d: never came true: %s", __LINE__, #condition); \
	uv_timer_stop(&(l)->patience); \
} while (0)

static inline void
test_loop_free(struct test_loop *l)
{
	uv_close((uv_handle_t *)&l->patience, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	CHECK(uv_loop_close(&l->uv) == 0);	/* else a handle was left open */
}

#endif
