/*
 * tests/unit/ledger_fixture.h -- what the unit tests of the ledger share: an
 * arena for each test, and requests that must go one way or fail the test.
 * Meters that are not in memory begin unused.
 */
#ifndef WEIR_TESTS_UNIT_LEDGER_FIXTURE_H
#define WEIR_TESTS_UNIT_LEDGER_FIXTURE_H

#include "shm/ring.h"
#include "tests/unit/arena_fixture.h"

#define METERS 64
#define MINUTE (60 * NS_PER_S)
#define DAY (86400 * NS_PER_S)

static const struct period total = { .kind = PERIOD_TOTAL };
static const struct period daily = { .kind = PERIOD_DAILY };
static const struct period weekly = { .kind = PERIOD_WEEKLY };
static const struct period monthly = { .kind = PERIOD_MONTHLY };
static const struct level nothing = { .known = false };

static inline int
setup_with(void **state, uint32_t inflight)
{
	struct fixture *f = malloc(sizeof(*f));

	fixture_open(f, (struct arena_sizes){ .workers = 2, .inflight = inflight, .ring_bytes = 65536,
	    .meters = METERS });
	*state = f;
	return 0;
}

static inline int
setup(void **state)
{
	return setup_with(state, 64);
}

static inline int
teardown(void **state)
{
	fixture_close(*state);
	free(*state);
	return 0;
}

static inline enum ledger_verdict
admit(struct fixture *f, struct charge *c, uint32_t n, struct inflight **e, struct refusal *why)
{
	*why = (struct refusal){ .wait_ns = -99 };
	return fixture_admit(f, 0, c, n, NULL, e, why);
}

/* Admits, or fails the test. */
static inline struct inflight *
admitted_all(struct fixture *f, struct charge *c, uint32_t n, struct demand *d)
{
	struct refusal why;
	struct inflight *e;

	assert_int_equal(fixture_admit(f, 0, c, n, d, &e, &why), LEDGER_ADMITTED);
	return e;
}

static inline struct inflight *
admitted(struct fixture *f, struct charge c)
{
	return admitted_all(f, &c, 1, NULL);
}

/* Does not admit, or fails the test. */
static inline struct refusal
refused_all(struct fixture *f, struct charge *c, uint32_t n, struct demand *d)
{
	struct refusal why = { .wait_ns = -99 };
	struct inflight *e = NULL;

	assert_int_equal(fixture_admit(f, 0, c, n, d, &e, &why), LEDGER_REFUSED);
	assert_null(e);
	return why;
}

static inline struct refusal
refused(struct fixture *f, struct charge c)
{
	return refused_all(f, &c, 1, NULL);
}

static inline void
settled_at(struct fixture *f, struct inflight *e, int64_t cost, int64_t tokens)
{
	const struct settled used = { cost, tokens };

	assert_int_equal(ledger_settle(&f->arena, 0, e, &used, f->now), SETTLED);
}

static inline void
settled(struct fixture *f, struct inflight *e, int64_t cost)
{
	settled_at(f, e, cost, 0);
}

static inline void
cancelled(struct fixture *f, struct inflight *e)
{
	assert_int_equal(ledger_cancel(&f->arena, 0, e, false, f->now), SETTLED);
}

static inline struct meter_view
view(struct fixture *f, struct meter_id id)
{
	struct meter_view v;

	assert_true(ledger_meter(&f->arena, id, f->now, &v));
	return v;
}

static inline enum load_result
load(struct fixture *f, struct charge *c, const struct level *l)
{
	return ledger_load(&f->arena, 1, c, l, ledger_evictions(&f->arena), f->now);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
