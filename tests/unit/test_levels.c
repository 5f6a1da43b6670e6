/*
 * Durable budget levels: periods that begin anew, sums that are exact, and
 * all or nothing with the positions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/levels.h"

#define EPOCH 77

static char folder[64];

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static int
setup(void **state)
{
	static struct levels levels;

	snprintf(folder, sizeof(folder), "/tmp/weir-levels-XXXXXX");
	*state = &levels;
	return mkdtemp(folder) ? levels_open(&levels, folder, ENVIRONMENT_WRITE) : -1;
}

static int
teardown(void **state)
{
	levels_close(*state);
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
book_one(struct levels *l, enum meter_period period, int64_t index, int64_t amount_nusd, uint64_t sequence)
{
	struct ring_charge c = { { 2, 2 }, period, 0, index, amount_nusd };
	struct position p = { EPOCH, sequence, 5 };
	struct spending spending = { 0 };

	assert_int_equal(spending_add(&spending, &c), 0);
	assert_int_equal(levels_book(l, &spending, &p, 1), 0);
	spending_free(&spending);
}

struct level {
	uint32_t count, period;
	int64_t index, spent_nusd;
};

static bool
note(uint64_t hi, uint64_t lo, uint32_t period, int64_t index, int64_t spent_nusd, void *arg)
{
	struct level *level = arg;

	assert_true(hi == 2 && lo == 2);
	*level = (struct level){ level->count + 1, period, index, spent_nusd };
	return true;
}

static struct level
level_of(struct levels *l)
{
	struct level level = { 0 };

	assert_int_equal(levels_each(l, note, &level), 0);
	assert_int_equal(level.count, 1);
	return level;
}

static void
periods_begin_anew_and_old_charges_stay_away(void **state)
{
	static const struct { int64_t index, amount_nusd, level_index, level_nusd; } rows[] = {
		{ 10, 5, 10, 5 }, { 10, 6, 10, 11 }, { 11, 7, 11, 7 }, { 10, 8, 11, 7 }, { 11, 9, 11, 16 }, { 13, 1, 13, 1 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		book_one(*state, PERIOD_DAILY, rows[i].index, rows[i].amount_nusd, i + 1);
		assert_int_equal(level_of(*state).index, rows[i].level_index);
		assert_int_equal(level_of(*state).spent_nusd, rows[i].level_nusd);
	}
	/* Another kind of period: its indexes cannot be compared. */
	book_one(*state, PERIOD_MONTHLY, 3, 4, 100);
	assert_int_equal(level_of(*state).period, PERIOD_MONTHLY);
	assert_int_equal(level_of(*state).spent_nusd, 4);
}

static void
sums_stay_within_64_bits(void **state)
{
	book_one(*state, PERIOD_TOTAL, 0, INT64_MAX - 1, 1);
	book_one(*state, PERIOD_TOTAL, 0, 5, 2);
	assert_int_equal(level_of(*state).spent_nusd, INT64_MAX);
}

/* Many meters, each charged often, in an order that is none. */
static void
spending_is_summed_by_meter(void **state)
{
	struct spending spending = { 0 };
	int64_t sum[97] = { 0 };
	struct ring_charge c = { .period = PERIOD_TOTAL };

	(void)state;
	for (uint32_t i = 0; i < 50000; i++) {
		c.id.lo = i * 31 % 97;
		c.amount_nusd = i;
		sum[c.id.lo] += i;
		assert_int_equal(spending_add(&spending, &c), 0);
	}
	assert_true(spending.room <= 512);
	for (size_t i = 0; i < spending.count; i++)
		sum[spending.charge[i].id.lo] -= spending.charge[i].amount_nusd;
	for (size_t i = 0; i < 97; i++)
		assert_int_equal(sum[i], 0);
	spending_free(&spending);
}

static void
positions_are_by_arena_and_worker(void **state)
{
	uint64_t sequence = 9;

	assert_int_equal(levels_position(*state, EPOCH, 5, &sequence), 0);
	assert_int_equal(sequence, 0);
	book_one(*state, PERIOD_TOTAL, 0, 1, 42);
	assert_int_equal(levels_position(*state, EPOCH, 5, &sequence), 0);
	assert_int_equal(sequence, 42);
	assert_int_equal(levels_position(*state, EPOCH, 4, &sequence), 0);
	assert_int_equal(sequence, 0);
	assert_int_equal(levels_position(*state, EPOCH + 1, 5, &sequence), 0);
	assert_int_equal(sequence, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(periods_begin_anew_and_old_charges_stay_away),
		TEST(sums_stay_within_64_bits),
		TEST(spending_is_summed_by_meter),
		TEST(positions_are_by_arena_and_worker),
	};

	return cmocka_run_group_tests_name("levels", tests, NULL, NULL);
}
