/*
 * The meters that tools show, from a real arena and a real store; the words
 * and numbers that they are shown in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <inttypes.h>
#include <string.h>

#include "gateway/meter_list.h"
#include "gateway/tool_text.h"
#include "store/records.h"
#include "tests/unit/arena_fixture.h"

#define METERS 3000

static struct fixture f;
static char data[64], why[512];

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
	(void)state;
	fixture_open(&f, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 1 << 22, .meters = 4096 });
	snprintf(data, sizeof(data), "/tmp/weir-meters-XXXXXX");
	return mkdtemp(data) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	fixture_close(&f);
	return nftw(data, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct charge
budget(uint64_t id, int64_t limit, const char *name)
{
	return (struct charge){ .id = { 7, id }, .kind = METER_BUDGET, .unit = UNIT_NUSD, .period = PERIOD_MONTHLY, .mode = MODE_STRICT,
		.row = UINT32_MAX, .limit = limit, .alert = limit / 2, .name = name };
}

static struct charge
bucket(uint64_t id, int64_t limit, const char *name)
{
	return (struct charge){ .id = { 8, id }, .kind = METER_BUCKET, .unit = UNIT_REQUESTS, .row = UINT32_MAX, .limit = limit,
		.window_ns = 60 * NS_PER_S, .fixed = 1, .name = name };
}

/* Admitted, with meters that the store has never seen. */
static struct inflight *
admit(struct charge *c, uint32_t n)
{
	const struct level none = { .known = false };
	struct refusal refusal;
	struct inflight *e;

	for (uint32_t tries = 0; tries <= 2 * n; tries++) {
		enum ledger_verdict verdict = ledger_admit(&f.arena, 0, c, n, NULL, f.now, &e, &refusal);

		if (verdict == LEDGER_ADMITTED)
			return e;
		assert_int_equal(verdict, LEDGER_UNKNOWN);
		assert_int_equal(ledger_load(&f.arena, 0, &c[refusal.charge], &none, ledger_evictions(&f.arena), f.now), LOAD_DONE);
	}
	fail_msg("still unknown");
	return NULL;
}

static void
settle(struct inflight *e, int64_t cost_nusd)
{
	const struct settled used = { .cost_nusd = cost_nusd, .tokens = 0 };
	struct record r = { .fixed = { .status = 200, .start_wall_ns = f.now.wall_ns }, .request_id = SLICE("req_x") };

	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	assert_int_equal(ledger_settle(&f.arena, 0, e, &used, f.now), SETTLED);
}

static void
spend(struct charge c, int64_t cost_nusd)
{
	c.fixed = cost_nusd;
	settle(admit(&c, 1), cost_nusd);
}

static void
flush(void)
{
	struct writer *w = writer_open(data, why, sizeof(why));
	uint32_t records = 1;

	if (!w)
		fail_msg("%s", why);
	while (records > 0)
		assert_int_equal(writer_flush(w, &f.arena, &records, why, sizeof(why)), 0);
	writer_close(w);
}

/* ---- rows of the arena ---- */

static void
rows_have_all_that_is_known(void **state)
{
	struct meter_list l = { .now = f.now };
	struct charge held[2] = { budget(1, 1000, "key a cost"), bucket(1, 10, "key a rpm") };
	struct buf json;

	(void)state;
	held[0].fixed = 300;
	spend(budget(1, 1000, "key a cost"), 500);
	(void)admit(held, 2);
	meter_list_arena(&l, &f.arena);
	meter_list_sort(&l);
	assert_int_equal(l.count, 2);
	const struct meter_row *m = &l.row[0];
	assert_string_equal(m->view.name, "key a cost");
	assert_int_equal(m->source, METER_IN_ARENA);
	assert_int_equal(meter_row_used(m), 500);
	assert_int_equal(m->view.held, 300);
	assert_int_equal(meter_row_left(m), 200);
	assert_int_equal(meter_row_fullness(m), 800000);
	assert_string_equal(meter_mode_name(m), "strict");
	assert_int_equal(meter_row_resets_ns(m, f.now), period_end_ns((struct period){ PERIOD_MONTHLY, 0, 0 }, f.now.wall_ns));
	assert_int_equal(meter_row_used(&l.row[1]) + l.row[1].view.held, 1);
	assert_int_equal(meter_row_left(&l.row[1]), 9);
	assert_int_equal(meter_row_fullness(&l.row[1]), 100000);
	assert_string_equal(meter_mode_name(&l.row[1]), "-");
	assert_int_equal(meter_row_resets_ns(&l.row[1], f.now), f.now.wall_ns + 6 * NS_PER_S);

	buf_init(&json, 4096);
	meter_row_json(m, f.now, &json);
	buf_add_char(&json, '\0');
	assert_string_equal(json.p, "{\"id\":\"00000000000000070000000000000001\",\"name\":\"key a cost\",\"kind\":\"budget\",\"unit\":\"nusd\","
	    "\"period\":\"monthly\",\"mode\":\"strict\",\"limit\":1000,\"spent\":500,\"held\":300,\"left\":200,\"used_permille\":800,"
	    "\"alert\":500,\"resets\":\"2026-12-01T00:00:00Z\",\"source\":\"arena\"}");
	buf_free(&json);
	meter_list_free(&l);
}

static void
the_fullest_are_kept(void **state)
{
	struct meter_list l = { .now = f.now, .most = 10 };
	char name[32];

	(void)state;
	/* In an order in which each part of the table has some of the fullest. */
	for (uint64_t i = 0; i < METERS; i++) {
		uint64_t level = i * 1237 % METERS + 1;

		snprintf(name, sizeof(name), "m%" PRIu64, level);
		spend(budget(i + 1, METERS, name), (int64_t)level);
	}
	meter_list_arena(&l, &f.arena);
	meter_list_sort(&l);
	assert_int_equal(l.count, 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(l.row[i].view.spent, METERS - (int64_t)i);
	assert_true(l.room < 100);
	meter_list_free(&l);
}

static void
filters_all_hold(void **state)
{
	struct meter_filter filter[2] = { { .name = "key*" }, { .by_kind = true, .kind = METER_BUDGET } };
	struct meter_list l = { .now = f.now, .filter = filter, .filters = 2 };
	struct charge c = bucket(1, 10, "key a rpm");

	(void)state;
	spend(budget(1, 1000, "key a cost"), 5);
	spend(budget(2, 1000, "workspace a cost"), 5);
	settle(admit(&c, 1), 0);
	meter_list_arena(&l, &f.arena);
	assert_int_equal(l.count, 1);
	assert_string_equal(l.row[0].view.name, "key a cost");
	meter_list_free(&l);
	filter[0] = (struct meter_filter){ .by_id = true, .id = { 8, 1 } };
	filter[1] = (struct meter_filter){ .by_unit = true, .unit = UNIT_REQUESTS };
	meter_list_arena(&l, &f.arena);
	assert_int_equal(l.count, 1);
	filter[1].unit = UNIT_TOKENS;
	meter_list_free(&l);
	meter_list_arena(&l, &f.arena);
	assert_int_equal(l.count, 0);
	filter[0] = filter[1] = (struct meter_filter){ .whole_name = "key*" };
	meter_list_arena(&l, &f.arena);
	assert_int_equal(l.count, 0);
	meter_list_free(&l);
}

/* ---- rows of the store ---- */

static size_t
from_store(struct meter_list *l, struct arena *a, const struct limit_book *book)
{
	struct reader *r = reader_open(data, why, sizeof(why));

	if (!r)
		fail_msg("%s", why);
	l->count = 0;
	assert_int_equal(meter_list_store(l, a, r, book), 0);
	reader_close(r);
	meter_list_sort(l);
	return l->count;
}

static void
the_store_has_levels_and_the_book_limits(void **state)
{
	struct meter_list l = { .now = f.now };
	struct limit_book empty = { .entry = NULL }, book = { .entry = NULL };
	struct limit limit[2] = { { .charge = budget(1, 1000, "x"), .name = "key a cost" }, { .charge = bucket(1, 10, "x"), .name = "key a rpm" } };
	const struct limits limits = { .limit = limit, .count = 2 };
	struct charge c[2] = { budget(1, 1000, "key a cost"), bucket(1, 10, "key a rpm") };

	(void)state;
	c[0].fixed = 700;
	settle(admit(c, 2), 600);
	flush();
	assert_int_equal(from_store(&l, &f.arena, &empty), 0);	/* all of them are in the arena */
	assert_int_equal(from_store(&l, NULL, &empty), 2);
	assert_false(l.row[0].limit_known || l.row[1].limit_known);
	assert_int_equal(meter_row_fullness(&l.row[0]), -1);

	limit_book_add(&book, &limits);
	limit_book_sort(&book);
	assert_int_equal(from_store(&l, NULL, &book), 2);
	assert_string_equal(l.row[0].view.name, "key a cost");
	assert_int_equal(l.row[0].source, METER_IN_STORE);
	assert_int_equal(meter_row_used(&l.row[0]), 600);
	assert_int_equal(meter_row_left(&l.row[0]), 400);
	assert_string_equal(l.row[1].view.name, "key a rpm");
	assert_int_equal(meter_row_left(&l.row[1]), 9);
	assert_string_equal(meter_mode_name(&l.row[0]), "strict");

	/* The month after, and when the bucket is full again. */
	l.now.wall_ns += INT64_C(31) * 86400 * NS_PER_S;
	assert_int_equal(from_store(&l, NULL, &book), 2);
	assert_int_equal(meter_row_fullness(&l.row[0]) + meter_row_fullness(&l.row[1]), 0);
	meter_list_free(&l);
	limit_book_free(&book);
}

static void
limits_without_a_meter_are_listed(void **state)
{
	struct meter_list l = { .now = f.now };
	struct limit_book book = { .entry = NULL };
	struct limit limit[3] = { { .charge = budget(1, 1000, "x"), .name = "used" }, { .charge = budget(2, 0, "x"), .name = "nothing" },
		{ .charge = bucket(1, 10, "x"), .name = "new" } };
	const struct limits limits = { .limit = limit, .count = 3 };

	(void)state;
	spend(budget(1, 1000, "used"), 5);
	limit_book_add(&book, &limits);
	limit_book_sort(&book);
	meter_list_arena(&l, &f.arena);
	meter_list_unused(&l, &book);
	meter_list_sort(&l);
	assert_int_equal(l.count, 3);
	/* A limit of 0 admits nothing: it is full. */
	assert_string_equal(l.row[0].view.name, "nothing");
	assert_int_equal(meter_row_fullness(&l.row[0]), 1000000);
	assert_string_equal(l.row[1].view.name, "used");
	assert_string_equal(l.row[2].view.name, "new");
	assert_int_equal(l.row[2].source, METER_NEVER_USED);
	assert_int_equal(meter_row_left(&l.row[2]), 10);
	meter_list_free(&l);
	limit_book_free(&book);
}

/* A group's id is a hash; its name leads back to its policy. */
static void
groups_of_policies_are_found_by_name(void **state)
{
	static const char text[] = "{\"id\":\"per-user\",\"conditions\":[],\"group_by\":[{\"key\":\"metadata.user\"}],\"type\":\"cost\",\"credit_limit\":5}";
	struct problems problems;
	struct limit_policy *policy;
	struct settings settings = { .policies = &policy, .policies_count = 1 };
	struct limit_book book = { .entry = NULL };
	struct charge c, found;
	char name[METER_NAME_BYTES], found_name[METER_NAME_BYTES];

	(void)state;
	problems_init(&problems);
	policy = limit_policy_parse(slice_of(text), "policies[0]", &problems);
	if (!policy)
		fail_msg("%.*s", SLICE_FMT(buf_slice(&problems.text)));
	problems_free(&problems);
	limit_book_add_settings(&book, &settings);
	limit_book_sort(&book);
	limit_policy_charge(policy, SLICE("metadata.user:alice"), &c, name);
	assert_true(limit_book_find(&book, c.id, name, &found, found_name));
	assert_int_equal(found.limit, 5 * INT64_C(1000000000));
	assert_string_equal(found_name, name);
	/* Not by a name alone that somebody else's meter has. */
	assert_false(limit_book_find(&book, (struct meter_id){ 1, 1 }, name, &found, found_name));
	assert_false(limit_book_find(&book, c.id, "policy per-use metadata.user:alice", &found, found_name));
	assert_false(limit_book_find(&book, c.id, NULL, &found, found_name));
	assert_true(limit_book_find(&book, c.group->overflow, c.group->overflow_name, &found, found_name));
	assert_int_equal(found.limit, 5 * INT64_C(1000000000));
	limit_book_free(&book);
	free(policy);
}

/* ---- words and numbers ---- */

static void
amounts_and_times(void **state)
{
	static const struct { int64_t ns; const char *text; } durations[] = {
		{ -5, "0s" }, { 0, "0s" }, { 1, "1ms" }, { 250 * NS_PER_MS, "250ms" }, { NS_PER_S, "1s" }, { 1200 * NS_PER_MS, "1.2s" },
		{ 60 * NS_PER_S, "1m" }, { 725 * NS_PER_S, "12m5s" }, { 3600 * NS_PER_S, "1h" }, { 3599 * NS_PER_S, "59m59s" },
		{ 86400 * NS_PER_S, "1d" }, { (3 * 86400 + 4 * 3600 + 59) * NS_PER_S, "3d4h" }, { 604800 * NS_PER_S, "7d" },
	};
	char text[TOOL_AMOUNT_BYTES], time[TOOL_TIME_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(durations) / sizeof(*durations); i++)
		assert_string_equal(tool_duration(durations[i].ns, time), durations[i].text);
	assert_string_equal(tool_amount(UNIT_NUSD, INT64_C(12500000000), text), "$12.50");
	assert_string_equal(tool_amount(UNIT_NUSD, 1, text), "$0.000000001");
	assert_string_equal(tool_amount(UNIT_NUSD, -250000000, text), "-$0.25");
	assert_string_equal(tool_amount(UNIT_NUSD, INT64_MIN, text), "-$9223372036.854775808");
	assert_string_equal(tool_amount(UNIT_TOKENS, INT64_MIN, text), "-9223372036854775808");
	assert_string_equal(tool_time(FIXTURE_WALL_NS, time), "2026-11-18T11:06:40Z");
}

static void
ids_are_exact(void **state)
{
	static const char *const bad[] = { "", "1", "0000000000000007000000000000000g", "000000000000000700000000000000011",
		"0000000000000007000000000000000\x11", " 000000000000007000000000000000a1" };
	struct meter_id id;
	char text[TOOL_ID_BYTES];

	(void)state;
	assert_true(tool_id_parse("0123456789abcdefFEDCBA9876543210", &id));
	assert_true(id.hi == UINT64_C(0x0123456789abcdef) && id.lo == UINT64_C(0xfedcba9876543210));
	assert_string_equal(tool_id(id, text), "0123456789abcdeffedcba9876543210");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_false(tool_id_parse(bad[i], &id));
}

static void
cells_are_safe_and_straight(void **state)
{
	static const struct { const char *text, *cell; } rows[] = {
		{ "", "-    " }, { "ab", "ab   " }, { "abcd", "abcd " }, { "abcde", "abcd " }, { "\033[2J", "?[2J " },
		{ "\xc3\xa9t\xc3\xa9s!", "\xc3\xa9t\xc3\xa9s " }, { "a\xc2\x9b" "b", "a?b  " }, { "\xc2\xa3" "5", "\xc2\xa3" "5   " },
	};
	struct buf out;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		buf_init(&out, 64);
		tool_cell(&out, slice_of(rows[i].text), 4);
		buf_add_char(&out, '\0');
		assert_string_equal(out.p, rows[i].cell);
		buf_free(&out);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_have_all_that_is_known),
		TEST(the_fullest_are_kept),
		TEST(filters_all_hold),
		TEST(the_store_has_levels_and_the_book_limits),
		TEST(limits_without_a_meter_are_listed),
		TEST(groups_of_policies_are_found_by_name),
		TEST(amounts_and_times),
		TEST(ids_are_exact),
		TEST(cells_are_safe_and_straight),
	};

	return cmocka_run_group_tests_name("meter_list", tests, NULL, NULL);
}
