/*
 * Durable levels: periods that begin anew, limits that get another period,
 * buckets of several arenas, sums that are exact, and all or nothing with the
 * positions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/clock.h"
#include "store/levels.h"

#define EPOCH 77
#define FIRST_OF_NOVEMBER 20758	/* 2026-11-01, a Sunday, in days */

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

static uint64_t
budget_what(enum meter_period period, uint16_t days, uint16_t anchor)
{
	const struct charge c = {
		.kind = METER_BUDGET, .unit = UNIT_NUSD, .period = period, .days = days, .anchor = anchor,
	};

	return meter_what(&c);
}

static uint64_t
bucket_what(void)
{
	const struct charge c = { .kind = METER_BUCKET, .unit = UNIT_REQUESTS };

	return meter_what(&c);
}

/* One charge of an arena; the position moves with the step. */
static struct booking
book(struct levels *l, uint64_t epoch, struct ring_charge c)
{
	struct position p = { epoch, c.step, 5 };
	struct spending spending = { 0 };
	struct booking b;

	c.id = (struct meter_id){ 2, 2 };
	assert_int_equal(spending_add(&spending, epoch, 0, &c), 0);
	assert_int_equal(levels_book(l, &spending, &p, 1, NULL), 0);
	b = spending.count > 0 ? spending.booking[0] : (struct booking){ .booked = false };
	spending_free(&spending);
	return b;
}

static struct level
level_of(struct levels *l)
{
	struct level level;
	MDB_txn *txn;

	assert_int_equal(environment_begin(l->env, ENVIRONMENT_READ, &txn), 0);
	assert_int_equal(levels_get(l, txn, (struct meter_id){ 2, 2 }, &level), 0);
	mdb_txn_abort(txn);
	return level;
}

static void
periods_begin_anew_and_old_charges_stay_away(void **state)
{
	static const struct { int64_t index, amount, level_index, level, before; bool booked; } rows[] = {
		{ 10, 5, 10, 5, 0, true }, { 10, 6, 10, 11, 5, true }, { 11, 7, 11, 7, 0, true },
		{ 10, 8, 11, 7, 0, false }, { 11, 9, 11, 16, 7, true }, { 13, 1, 13, 1, 0, true },
	};

	assert_false(level_of(*state).known);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct booking b = book(*state, EPOCH, (struct ring_charge){
			.what = budget_what(PERIOD_DAILY, 0, 0), .period_index = rows[i].index,
			.amount = rows[i].amount, .step = i + 1,
		});

		assert_int_equal(b.booked, rows[i].booked);
		if (b.booked) {
			assert_int_equal(b.before, rows[i].before);
			assert_int_equal(b.after, rows[i].level);
		}
		assert_int_equal(level_of(*state).period_index, rows[i].level_index);
		assert_int_equal(level_of(*state).spent, rows[i].level);
	}
}

/* The day a charge was booked in, as an index of that period. */
static int64_t
index_of(enum meter_period period, uint16_t days, uint16_t anchor, int64_t day)
{
	return period_index((struct period){ period, days, anchor }, day * 86400 * NS_PER_S);
}

static void
another_period_keeps_what_it_contains(void **state)
{
	static const struct {
		enum meter_period from;
		uint16_t from_days;
		int64_t from_day;
		enum meter_period to;
		uint16_t to_days;
		int64_t to_day;
		int64_t level;		/* 100 was spent, 1 is */
	} rows[] = {
		{ PERIOD_DAILY, 0, FIRST_OF_NOVEMBER + 3, PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER + 9, 101 },
		{ PERIOD_DAILY, 0, FIRST_OF_NOVEMBER - 1, PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER, 1 },
		{ PERIOD_DAILY, 0, FIRST_OF_NOVEMBER, PERIOD_WEEKLY, 0, FIRST_OF_NOVEMBER + 1, 1 },
		{ PERIOD_DAILY, 0, FIRST_OF_NOVEMBER + 1, PERIOD_WEEKLY, 0, FIRST_OF_NOVEMBER + 7, 101 },
		{ PERIOD_WEEKLY, 0, FIRST_OF_NOVEMBER + 1, PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER + 7, 101 },
		{ PERIOD_WEEKLY, 0, FIRST_OF_NOVEMBER, PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER, 1 },
		{ PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER, PERIOD_DAILY, 0, FIRST_OF_NOVEMBER, 1 },
		{ PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER, PERIOD_TOTAL, 0, FIRST_OF_NOVEMBER, 101 },
		{ PERIOD_TOTAL, 0, FIRST_OF_NOVEMBER, PERIOD_MONTHLY, 0, FIRST_OF_NOVEMBER, 1 },
		{ PERIOD_DAYS, 1, FIRST_OF_NOVEMBER, PERIOD_DAYS, 2, FIRST_OF_NOVEMBER, 101 },
		{ PERIOD_DAYS, 2, FIRST_OF_NOVEMBER, PERIOD_DAYS, 1, FIRST_OF_NOVEMBER, 1 },
	};
	uint64_t step = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		uint64_t epoch = EPOCH + i;	/* each row has a history of its own */

		book(*state, epoch, (struct ring_charge){	/* a reset of sorts: nothing contains this */
			.what = budget_what(PERIOD_DAYS, 365, (uint16_t)i), .period_index = 1000, .amount = 1, .step = ++step,
		});
		book(*state, epoch, (struct ring_charge){
			.what = budget_what(rows[i].from, rows[i].from_days, 0), .amount = 100, .step = ++step,
			.period_index = index_of(rows[i].from, rows[i].from_days, 0, rows[i].from_day),
		});
		if (rows[i].from == PERIOD_TOTAL)	/* which does contain it */
			book(*state, epoch, (struct ring_charge){
				.what = budget_what(PERIOD_TOTAL, 0, 0), .amount = -1, .step = ++step,
			});
		assert_int_equal(level_of(*state).spent, 100);
		book(*state, epoch, (struct ring_charge){
			.what = budget_what(rows[i].to, rows[i].to_days, 0), .amount = 1, .step = ++step,
			.period_index = index_of(rows[i].to, rows[i].to_days, 0, rows[i].to_day),
		});
		if (level_of(*state).spent != rows[i].level)
			fail_msg("row %zu: %lld", i, (long long)level_of(*state).spent);
		assert_int_equal(meter_what_period(level_of(*state).what).kind, rows[i].to);
	}
}

/* A ring is read after another one, though its charge was made before. */
static void
a_late_charge_of_the_period_before_finds_its_place(void **state)
{
	const uint64_t daily = budget_what(PERIOD_DAILY, 0, 0), monthly = budget_what(PERIOD_MONTHLY, 0, 0);
	int64_t day = FIRST_OF_NOVEMBER + 3, month = index_of(PERIOD_MONTHLY, 0, 0, day);

	book(*state, EPOCH, (struct ring_charge){ .what = daily, .period_index = day, .amount = 10, .step = 1 });
	book(*state, EPOCH, (struct ring_charge){ .what = monthly, .period_index = month, .amount = 1, .step = 5 });
	book(*state, EPOCH, (struct ring_charge){ .what = daily, .period_index = day, .amount = 20, .step = 4 });
	assert_int_equal(level_of(*state).spent, 31);
	assert_int_equal(meter_what_period(level_of(*state).what).kind, PERIOD_MONTHLY);
	/* And the other way round there is none for it. */
	book(*state, EPOCH, (struct ring_charge){ .what = daily, .period_index = day, .amount = 2, .step = 9 });
	book(*state, EPOCH, (struct ring_charge){ .what = monthly, .period_index = month, .amount = 40, .step = 8 });
	assert_int_equal(level_of(*state).spent, 2);
	assert_int_equal(meter_what_period(level_of(*state).what).kind, PERIOD_DAILY);
}

static void
a_reset_subtracts_and_no_level_is_below_nothing(void **state)
{
	const uint64_t total = budget_what(PERIOD_TOTAL, 0, 0);
	struct booking b;

	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = 30, .step = 1 });
	/* The reset of step 3 is read before the charge of step 2. */
	b = book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = -37, .step = 3 });
	assert_true(b.before == 30 && b.after == 0);
	assert_int_equal(level_of(*state).spent, 0);
	b = book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = 7, .step = 2 });
	assert_true(b.before == 0 && b.after == 0);
	assert_int_equal(level_of(*state).spent, 0);
	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = 4, .step = 4 });
	assert_int_equal(level_of(*state).spent, 4);
	/* The charge that it was read before is lost with its arena. */
	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = -10, .step = 6 });
	book(*state, EPOCH + 1, (struct ring_charge){ .what = total, .amount = 3, .step = 1 });
	assert_int_equal(level_of(*state).spent, 3);
}

/* Days that had the spending were deleted, and then the ledger was lost. */
static void
a_reset_alone_leaves_no_debt(void **state)
{
	const uint64_t total = budget_what(PERIOD_TOTAL, 0, 0);

	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = -37, .step = 3 });
	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = 4, .step = 4 });
	assert_int_equal(level_of(*state).spent, 4);
}

static void
the_newest_bucket_wins_and_a_new_arena_does(void **state)
{
	static const struct { uint64_t epoch, step; int64_t full, level; } rows[] = {
		{ EPOCH, 5, 500, 500 }, { EPOCH, 7, 400, 400 }, { EPOCH, 6, 900, 400 },	/* read late */
		{ EPOCH + 1, 1, 100, 100 }, { EPOCH + 1, 2, 150, 150 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct booking b = book(*state, rows[i].epoch, (struct ring_charge){
			.what = bucket_what(), .full_wall_ns = rows[i].full, .step = rows[i].step,
		});

		assert_false(b.booked);
		assert_true(level_of(*state).known);
		assert_int_equal(level_of(*state).full_wall_ns, rows[i].level);
	}
}

static void
sums_stay_within_64_bits(void **state)
{
	const uint64_t total = budget_what(PERIOD_TOTAL, 0, 0);

	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = INT64_MAX - 1, .step = 1 });
	book(*state, EPOCH, (struct ring_charge){ .what = total, .amount = 5, .step = 2 });
	assert_int_equal(level_of(*state).spent, INT64_MAX);
}

/* Many meters, each charged often, in an order that is none. */
static void
spending_is_summed_by_meter(void **state)
{
	struct spending spending = { 0 };
	int64_t sum[97] = { 0 }, full[97] = { 0 };
	struct ring_charge c = { .what = budget_what(PERIOD_TOTAL, 0, 0) };

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 50000; i++) {
			bool bucket = i % 3 == 0;

			c.id.lo = i * 31 % 97;
			c.id.hi = bucket;
			c.what = bucket ? bucket_what() : budget_what(PERIOD_TOTAL, 0, 0);
			c.amount = i + 1;
			c.step = i;
			c.full_wall_ns = i;
			if (bucket)
				full[c.id.lo] = i;
			else
				sum[c.id.lo] += i + 1;
			assert_int_equal(spending_add(&spending, EPOCH, 0, &c), 0);
		}
		assert_int_equal(spending.count, 2 * 97);
		assert_true(spending.room <= 256);
		for (uint32_t i = 0; i < spending.count; i++) {
			const struct booking *b = &spending.booking[i];

			if (b->id.hi)
				assert_int_equal(b->full_wall_ns, full[b->id.lo]);
			else
				sum[b->id.lo] -= b->amount;
		}
		for (size_t i = 0; i < 97; i++)
			assert_int_equal(sum[i], 0);
		spending_clear(&spending);
	}
	spending_free(&spending);
}

static void
what_need_not_last_is_left_out(void **state)
{
	const struct charge concurrency = { .kind = METER_CONCURRENCY };
	const struct charge group = { .kind = METER_GROUP };
	struct ring_charge c[] = {
		{ .id = { 2, 1 }, .what = meter_what(&concurrency), .amount = 1 },
		{ .id = { 2, 2 }, .what = meter_what(&group), .amount = 1 },
		{ .id = { 2, 3 }, .what = budget_what(PERIOD_DAILY, 0, 0), .held = 9 },	/* a cancelled request */
	};
	struct spending spending = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++)
		assert_int_equal(spending_add(&spending, EPOCH, 0, &c[i]), 0);
	assert_int_equal(spending.count, 0);
	spending_clear(&spending);
	spending_free(&spending);
}

static void
positions_are_by_arena_and_worker(void **state)
{
	uint64_t sequence = 9;

	assert_int_equal(levels_position(*state, EPOCH, 5, &sequence), 0);
	assert_int_equal(sequence, 0);
	book(*state, EPOCH, (struct ring_charge){ .what = budget_what(PERIOD_TOTAL, 0, 0), .amount = 1, .step = 42 });
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
		TEST(another_period_keeps_what_it_contains),
		TEST(a_late_charge_of_the_period_before_finds_its_place),
		TEST(a_reset_subtracts_and_no_level_is_below_nothing),
		TEST(a_reset_alone_leaves_no_debt),
		TEST(the_newest_bucket_wins_and_a_new_arena_does),
		TEST(sums_stay_within_64_bits),
		TEST(spending_is_summed_by_meter),
		TEST(what_need_not_last_is_left_out),
		TEST(positions_are_by_arena_and_worker),
	};

	return cmocka_run_group_tests_name("levels", tests, NULL, NULL);
}
