/*
 * Rings: order, sequence, the end of the ring, a full one, a keeper that dies
 * between reading and advancing. Items are appended by settling requests, as
 * there is no other way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shm/ring.h"
#include "tests/unit/arena_fixture.h"

#define RING_BYTES 65536

static int
setup(void **state)
{
	struct fixture *f = malloc(sizeof(*f));

	fixture_open(f, (struct arena_sizes){ .workers = 2, .inflight = 64, .ring_bytes = RING_BYTES, .meters = 64 });
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	fixture_close(*state);
	free(*state);
	return 0;
}

/* A request with a record of n bytes, each of them `fill`. */
static enum settle_verdict
finish_one(struct fixture *f, uint32_t worker, uint32_t n, char fill, uint32_t budgets)
{
	const struct settled used = { .cost_nusd = 3 };
	struct charge c[CHARGES_MAX];
	struct inflight *e;
	struct refusal no;

	for (uint32_t i = 0; i < budgets; i++)
		c[i] = budget_charge(i + 1, PERIOD_TOTAL, INT64_MAX, 5);
	assert_int_equal(fixture_admit(f, worker, c, budgets, NULL, &e, &no), LEDGER_ADMITTED);
	memset(inflight_record(e), fill, n);
	inflight_record_set(e, n);
	return ledger_settle(&f->arena, worker, e, &used, f->now);
}

static uint64_t
drain(struct fixture *f, uint32_t worker)
{
	struct ring_cursor c = ring_begin(&f->arena, worker);
	struct ring_item item;
	uint64_t n = 0;

	while (ring_next(&f->arena, worker, &c, &item))
		n++;
	ring_advance(&f->arena, worker, c);
	return n;
}

static void
items_come_in_order_with_their_charges(void **state)
{
	struct fixture *f = *state;
	struct ring_cursor c;
	struct ring_item item;

	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(finish_one(f, 0, 100 + i, (char)('a' + i), i % 3), SETTLED);
	c = ring_begin(&f->arena, 0);
	for (uint32_t i = 0; i < 10; i++) {
		assert_true(ring_next(&f->arena, 0, &c, &item));
		assert_int_equal(item.sequence, i + 1);
		assert_int_equal(item.record_bytes, 100 + i);
		assert_int_equal(item.charges, i % 3);
		for (uint32_t j = 0; j < item.charges; j++) {
			assert_int_equal(item.charge[j].id.lo, j + 1);
			assert_int_equal(item.charge[j].amount, 3);
			assert_int_equal(item.charge[j].held, 5);
			assert_true(j == 0 || item.charge[j].step == item.charge[0].step);
		}
		for (uint32_t j = 0; j < item.record_bytes; j++)
			assert_int_equal(item.record[j], 'a' + (int)i);
	}
	assert_false(ring_next(&f->arena, 0, &c, &item));
	c = ring_begin(&f->arena, 1);
	assert_false(ring_next(&f->arena, 1, &c, &item));
}

static void
unread_until_advanced(void **state)
{
	struct fixture *f = *state;
	struct ring_cursor c;
	struct ring_item item;

	assert_int_equal(finish_one(f, 0, 10, 'x', 1), SETTLED);
	for (int keepers = 0; keepers < 3; keepers++) {		/* two of them die */
		c = ring_begin(&f->arena, 0);
		assert_true(ring_next(&f->arena, 0, &c, &item));
		assert_int_equal(item.sequence, 1);
	}
	assert_int_equal(finish_one(f, 0, 10, 'y', 1), SETTLED);
	ring_advance(&f->arena, 0, c);
	c = ring_begin(&f->arena, 0);
	assert_true(ring_next(&f->arena, 0, &c, &item));
	assert_int_equal(item.sequence, 2);
	assert_int_equal(item.record[0], 'y');
}

/* Records of every length, many rounds: each possible distance to the end. */
static void
an_item_never_wraps(void **state)
{
	struct fixture *f = *state;
	uint64_t expected = 0;

	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t n = i * 37 % (RECORD_BYTES_MAX + 1);
		struct ring_cursor c = ring_begin(&f->arena, 0);
		struct ring_item item;

		assert_int_equal(finish_one(f, 0, n, (char)i, i % 5), SETTLED);
		assert_true(ring_next(&f->arena, 0, &c, &item));
		assert_int_equal(item.sequence, ++expected);
		assert_int_equal(item.record_bytes, n);
		if (n > 0) {
			assert_int_equal(item.record[0], (char)i);
			assert_int_equal(item.record[n - 1], (char)i);
		}
		assert_false(ring_next(&f->arena, 0, &c, &item));
		ring_advance(&f->arena, 0, c);
	}
}

static void
full_means_wait_and_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, INT64_MAX, 5);
	const struct settled used = { .cost_nusd = 4 };
	struct meter_view before, after;
	struct inflight *e;
	struct refusal no;
	uint64_t n = 0;

	assert_int_equal(ring_fill_permille(&f->arena, 0), 0);
	while (ring_fill_permille(&f->arena, 0) < 990) {
		assert_int_equal(finish_one(f, 0, 500, 'x', 1), SETTLED);
		n++;
	}
	assert_int_equal(fixture_admit(f, 0, &c, 1, NULL, &e, &no), LEDGER_ADMITTED);
	memset(inflight_record(e), 'z', RECORD_BYTES_MAX);
	inflight_record_set(e, RECORD_BYTES_MAX);
	inflight_sent(e);
	assert_true(ledger_meter(&f->arena, c.id, f->now, &before));
	for (int i = 0; i < 3; i++)
		assert_int_equal(ledger_settle(&f->arena, 0, e, &used, f->now), SETTLE_RING_FULL);
	assert_true(ledger_meter(&f->arena, c.id, f->now, &after));
	assert_memory_equal(&before, &after, sizeof(before));
	assert_int_equal(ledger_inflight_count(&f->arena, 0), 1);

	assert_int_equal(drain(f, 0), n);
	assert_int_equal(ledger_settle(&f->arena, 0, e, &used, f->now), SETTLED);
	assert_true(ledger_meter(&f->arena, c.id, f->now, &after));
	assert_int_equal(after.spent, before.spent + 4);
	assert_int_equal(after.held, 0);
	struct ring_cursor at = ring_begin(&f->arena, 0);
	struct ring_item item;
	assert_true(ring_next(&f->arena, 0, &at, &item));
	assert_int_equal(item.sequence, n + 1);
	assert_int_equal(item.record_bytes, RECORD_BYTES_MAX);
	assert_int_equal(item.record[RECORD_BYTES_MAX - 1], 'z');
}

static void
the_largest_item_fits_wherever_an_empty_ring_stands(void **state)
{
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 3000; i++) {
		assert_int_equal(finish_one(f, 0, i % 97, 'a', 0), SETTLED);
		drain(f, 0);
		assert_int_equal(finish_one(f, 0, RECORD_BYTES_MAX, 'b', CHARGES_MAX), SETTLED);
		assert_int_equal(drain(f, 0), 1);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(items_come_in_order_with_their_charges),
		TEST(unread_until_advanced),
		TEST(an_item_never_wraps),
		TEST(full_means_wait_and_lose_nothing),
		TEST(the_largest_item_fits_wherever_an_empty_ring_stands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
