/*
 * The response cache: what is stored is found, whole and no longer than it may
 * be; the bound holds to the byte; and what it holds outlives its processes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/cache_fixture.h"

/* ---- what is stored ---- */

static void
what_is_put_is_found_as_it_was(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 700, 1800, 1950, 2100, 4000, 4096, 20000, 1 << 20, 3 << 20 };
	struct cache_world *w = *state;
	const uint64_t key[2] = { 1, ~UINT64_C(1) };
	struct cache_entry e;
	uint64_t version[11], secret[2];

	cache_begin(w);
	for (uint64_t i = 0; i < 11; i++)
		version[i] = cache_put(w, i, sizes[i]);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.stored, 11);
	assert_int_equal(w->told->changes.entries, 11);
	cache_secret_of(w, secret);
	for (uint64_t i = 0; i < 11; i++)
		assert_int_equal(cache_find(w, i), version[i]);
	assert_int_equal(cache_find(w, 11), 0);

	assert_true(cache_get(w->reader, key, CACHE_NOW_NS, &e));
	assert_int_equal(e.fixed.status, 200);
	assert_int_equal(e.fixed.flags, CACHE_FLAG(STREAM));
	assert_int_equal(e.fixed.created_wall_ns, CACHE_NOW_NS);
	assert_int_equal(e.fixed.tokens[1], 2);
	assert_int_equal(e.fixed.cost_nusd, version[1]);
	assert_true(slice_eq(e.content_type, SLICE("text/event-stream")));
	assert_true(slice_eq(e.model, SLICE("claude-sonnet-5-5")));
	assert_true(slice_eq(e.provider, SLICE("anthropic")));
	assert_int_equal(e.body.n, 1);
	cache_done(w->reader);
	cache_audit(w->data_dir);
}

static void
what_cannot_be_an_entry_is_not_encoded(void **state)
{
	const struct cache_entry good = {
		.fixed = { .status = 200, .created_wall_ns = 1, .expires_wall_ns = 2 }, .content_type = SLICE("text/plain"),
		.model = SLICE_NONE, .provider = SLICE("caf\xc3\xa9"), .body = SLICE("body"),
	};
	static char text[CACHE_STRING_BYTES_MAX + 1], head[CACHE_HEAD_BYTES_MAX];
	struct cache_entry bad[10];

	(void)state;
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < 10; i++)
		bad[i] = good;
	assert_int_equal(cache_entry_head(&good, head), sizeof(struct cache_fixed) + 4 * 2 + 10 + 5);
	bad[0].content_type = SLICE("text/plain\r\nset-cookie: a=b");
	bad[1].model = (struct slice){ text, sizeof(text) };
	bad[2].provider = SLICE("\0");
	bad[3].provider_request_id = SLICE("\x7f");
	bad[4].fixed.status = 99;
	bad[5].fixed.status = 600;
	bad[6].fixed.flags = 1u << CACHE_BIT_COUNT;
	bad[7].fixed.tokens[7] = -1;
	bad[8].fixed.cost_nusd = -1;
	bad[9].fixed.expires_wall_ns = 1;
	for (size_t i = 0; i < 10; i++)
		if (cache_entry_head(&bad[i], head) != 0)
			fail_msg("number %zu was taken", i);
	bad[1].model.n--;
	assert_int_equal(cache_entry_head(&bad[1], head), sizeof(struct cache_fixed) + 4 * 2 + 10 + 5 + CACHE_STRING_BYTES_MAX);
}

static void
the_newest_counts_until_it_is_deleted(void **state)
{
	struct cache_world *w = *state;
	uint64_t second, third;

	cache_begin_with_one(w);
	cache_begin(w);
	cache_put(w, 2, 100);
	cache_put(w, 1, 3000);
	second = cache_put(w, 1, 10);
	cache_commit_or_end(w);
	assert_int_equal(cache_find(w, 1), second);
	assert_int_equal(w->told->changes.entries, 2);
	assert_int_equal(w->told->changes.bytes, cache_room_of(100) + cache_room_of(10));

	cache_begin(w);
	cache_delete(w, 1);
	cache_delete(w, 7);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.removed, 1);
	assert_int_equal(cache_find(w, 1), 0);
	cache_begin(w);
	third = cache_put(w, 1, 10);
	cache_delete(w, 2);
	cache_commit_or_end(w);
	assert_int_equal(cache_find(w, 1), third);
	assert_int_equal(cache_find(w, 2), 0);
	cache_audit(w->data_dir);
}

static void
what_has_expired_is_a_miss_and_goes(void **state)
{
	struct cache_world *w = *state;
	uint64_t secret[2];

	cache_begin(w);
	cache_put_aged(w, 1, 100, 1000);
	cache_put_aged(w, 2, 100, 2000);
	cache_put_aged(w, 3, 5000, 1000);
	cache_put_aged(w, 4, 5000, 3000);
	cache_commit_or_end(w);
	cache_secret_of(w, secret);
	w->told->now_wall_ns += 999;
	for (uint64_t key = 1; key <= 4; key++)
		assert_int_not_equal(cache_find(w, key), 0);
	w->told->now_wall_ns += 1;
	assert_int_equal(cache_find(w, 1), 0);
	assert_int_not_equal(cache_find(w, 2), 0);
	assert_int_equal(cache_find(w, 3), 0);

	cache_commit_or_end(w);		/* a look after things */
	assert_int_equal(w->told->changes.expired, 2);
	assert_int_equal(w->told->changes.entries, 2);
	w->told->now_wall_ns += 1000;
	cache_begin(w);
	cache_put_aged(w, 4, 100, 1);
	w->told->now_wall_ns += 1;
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.expired, 2);
	assert_int_equal(w->told->changes.stored, 0);
	assert_int_equal(cache_find(w, 4), 0);
	assert_int_equal(cache_audit(w->data_dir).entries, 0);
}

/* Those in the middle of the order too, a few at a time. */
static void
the_sweep_reaches_all(void **state)
{
	struct cache_world *w = *state;
	uint32_t looks = 0;

	for (uint64_t key = 0; key < 1000; key++) {
		if (key % CACHE_ITEMS_MAX == 0)
			cache_begin(w);
		cache_put_aged(w, key, 100, key % 3 == 0 ? 1000 : CACHE_AGE_NS);
		if (key % CACHE_ITEMS_MAX == CACHE_ITEMS_MAX - 1 || key == 999)
			cache_commit_or_end(w);
	}
	assert_int_equal(w->told->changes.entries, 1000);
	w->told->now_wall_ns += 1000;
	do
		cache_commit_or_end(w);
	while (w->told->changes.entries > 666 && looks++ < 40);
	assert_int_equal(w->told->changes.entries, 666);
	assert_int_equal(cache_audit(w->data_dir).bytes, 666 * cache_room_of(100));
}

/* ---- the bound ---- */

static void
the_bound_holds_to_the_byte(void **state)
{
	struct cache_world *w = *state;
	uint64_t room = cache_room_of(5000), small = cache_room_of(100), secret[2];

	w->told->bytes_max = 8 * room;
	cache_begin(w);
	for (uint64_t key = 0; key < 8; key++)
		cache_put(w, key, 5000);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.evicted, 0);
	assert_int_equal(w->told->changes.bytes, 8 * room);
	cache_secret_of(w, secret);

	cache_put(w, 8, 5000);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.evicted, 1);
	assert_int_equal(w->told->changes.bytes, 8 * room);
	assert_int_equal(cache_find(w, 0), 0);
	for (uint64_t key = 1; key <= 8; key++)
		assert_int_not_equal(cache_find(w, key), 0);

	/* One byte too many is one entry too many; what it leaves is room again. */
	w->told->bytes_max = 8 * room - 1;
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.evicted, 1);
	assert_int_equal(w->told->changes.bytes, 7 * room);
	w->told->bytes_max = 7 * room + small;
	cache_put(w, 9, 100);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.evicted, 0);
	cache_put(w, 3, 100);		/* no longer the oldest but one */
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.evicted, 0);
	cache_put(w, 10, 5000);
	cache_put(w, 11, 5000);
	cache_commit_or_end(w);
	assert_int_equal(cache_find(w, 2), 0);
	assert_int_not_equal(cache_find(w, 3), 0);
	assert_int_equal(cache_find(w, 4), 0);
	assert_int_not_equal(cache_find(w, 5), 0);
	cache_audit(w->data_dir);
}

static void
what_cannot_fit_is_refused(void **state)
{
	struct cache_world *w = *state;
	uint64_t room = cache_room_of(100000);

	cache_begin_with_one(w);
	w->told->bytes_max = room;
	cache_put(w, 2, 200000);
	cache_put(w, 1, 200000);	/* and what was there is no answer any more */
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.refused, 2);
	assert_int_equal(w->told->changes.stored, 0);
	assert_int_equal(w->told->changes.entries, 0);
	assert_int_equal(cache_find(w, 1), 0);
	cache_put(w, 3, 100000);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.stored, 1);
	assert_int_equal(w->told->changes.bytes, room);
}

static void
what_is_no_entry_is_refused(void **state)
{
	struct cache_world *w = *state;
	struct cache_order_to *t = w->told;

	cache_begin_with_one(w);
	for (uint64_t key = 2; key < 7; key++)
		cache_put(w, key, 100);
	t->bytes[0][0] ^= 2;					/* another version */
	t->item[1].entry.n--;					/* cut */
	t->item[2].entry.n++;					/* more than it says */
	t->bytes[3][offsetof(struct cache_fixed, flags) + 3] = 1;	/* a flag that nobody knows */
	t->item[4].entry.n = 0;
	t->item[4].entry.p = t->bytes[4];
	cache_commit_or_end(w);
	assert_int_equal(t->changes.malformed, 5);
	assert_int_equal(t->changes.stored, 0);
	assert_int_equal(t->changes.entries, 1);
	for (uint64_t key = 2; key < 7; key++)
		assert_int_equal(cache_find(w, key), 0);
}

/* Thousands have to go for one: that takes several commits. */
static void
a_lowered_bound_is_reached_in_portions(void **state)
{
	struct cache_world *w = *state;
	uint64_t room = cache_room_of(10), entries = 10000;
	uint32_t commits = 0;

	for (uint64_t key = 0; key < entries; key++) {
		if (key % CACHE_ITEMS_MAX == 0)
			cache_begin(w);
		cache_put(w, key, 10);
		if (key % CACHE_ITEMS_MAX == CACHE_ITEMS_MAX - 1 || key == entries - 1)
			cache_commit_or_end(w);
	}
	assert_int_equal(w->told->changes.bytes, entries * room);
	w->told->bytes_max = 10 * room;
	cache_put(w, entries, 10);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.refused, 1);
	assert_int_equal(w->told->changes.evicted, 4096);
	do
		cache_commit_or_end(w);
	while (w->told->changes.bytes > 10 * room && commits++ < 10);
	assert_int_equal(w->told->changes.entries, 10);
	cache_put(w, entries, 10);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.stored, 1);
	cache_audit(w->data_dir);
}

/* ---- against a list ---- */

#define MODEL_KEYS 60
#define MODEL_ENTRIES_MAX 20000
#define MODEL_COMMITS 600

struct model_entry { uint64_t key, version, room; int64_t expires; bool there; };

struct model {
	struct model_entry entry[MODEL_ENTRIES_MAX];	/* by age */
	uint32_t count;
	uint64_t bytes, random;
};

static struct model_entry *
model_find(struct model *m, uint64_t key)
{
	for (uint32_t i = m->count; i > 0; i--)
		if (m->entry[i - 1].there && m->entry[i - 1].key == key)
			return &m->entry[i - 1];
	return NULL;
}

static void
model_drop(struct model *m, struct model_entry *e)
{
	if (!e)
		return;
	e->there = false;
	m->bytes -= e->room;
}

static void
model_fit(struct model *m, uint64_t more, uint64_t bytes_max)
{
	for (uint32_t i = 0; m->bytes + more > bytes_max && i < m->count; i++)
		if (m->entry[i].there)
			model_drop(m, &m->entry[i]);
}

static void
model_put(struct model *m, struct cache_world *w)
{
	static const uint32_t sizes[] = { 0, 100, 1500, 2100, 6000, 30000 };
	uint32_t body = sizes[cache_draw(&m->random, 6)];
	uint64_t key = cache_draw(&m->random, MODEL_KEYS), room = cache_room_of(body), version;

	version = cache_put(w, key, body);
	model_drop(m, model_find(m, key));
	model_fit(m, room, w->told->bytes_max);
	assert_true(m->count < MODEL_ENTRIES_MAX);
	m->entry[m->count++] = (struct model_entry){ key, version, room, w->told->now_wall_ns + CACHE_AGE_NS, true };
	m->bytes += room;
}

/* Once in a while another bound, another writer, or one that is killed. */
static void
model_disturb(struct model *m, struct cache_world *w)
{
	uint32_t what = cache_draw(&m->random, 30);

	if (what == 0)
		w->told->bytes_max = 200000 + cache_draw(&m->random, 300000);
	if (what == 1 || what == 2) {
		cache_writer_stop(w, what == 1);
		cache_writer_start(w);
	}
}

static void
it_agrees_with_a_list(void **state)
{
	static struct model m;
	struct cache_world *w = *state;
	uint64_t hits = 0, secret[2];

	m = (struct model){ .random = 1 };
	w->told->bytes_max = 400000;
	cache_commit_or_end(w);
	cache_secret_of(w, secret);
	for (int i = 0; i < MODEL_COMMITS; i++) {
		uint32_t n = cache_draw(&m.random, 12);

		model_disturb(&m, w);
		model_fit(&m, 0, w->told->bytes_max);
		cache_begin(w);
		for (uint32_t k = 0; k < n; k++) {
			if (cache_draw(&m.random, 8) == 0) {
				uint64_t key = cache_draw(&m.random, MODEL_KEYS);

				model_drop(&m, model_find(&m, key));
				cache_delete(w, key);
			} else {
				model_put(&m, w);
			}
		}
		cache_commit_or_end(w);
		assert_int_equal(w->told->changes.bytes, m.bytes);
		assert_true(m.bytes <= w->told->bytes_max);
		for (uint64_t key = 0; key < MODEL_KEYS; key++) {
			const struct model_entry *e = model_find(&m, key);

			assert_int_equal(cache_find(w, key), e ? e->version : 0);
			hits += e != NULL;
		}
	}
	assert_int_equal(cache_audit(w->data_dir).bytes, m.bytes);
	print_message("%d commits, %u entries, %llu hits\n", MODEL_COMMITS, m.count, (unsigned long long)hits);
	assert_true(hits > MODEL_COMMITS);
}

/* ---- the environment ---- */

static void
it_outlives_its_processes(void **state)
{
	struct cache_world *w = *state;
	uint64_t version = cache_begin_with_one(w), before[2], after[2];

	cache_secret_of(w, before);
	for (int i = 0; i < 4; i++) {
		cache_writer_stop(w, i % 2);
		assert_int_equal(cache_find(w, 1), version);
		cache_close(w->reader);
		w->reader = cache_open_read(w->data_dir);
		assert_int_equal(cache_find(w, 1), version);
		cache_writer_start(w);
		cache_commit_or_end(w);
		assert_int_equal(w->told->changes.bytes, cache_room_of(5000));
		cache_secret_of(w, after);
		assert_memory_equal(before, after, sizeof(before));
	}
	assert_true(before[0] != 0 && before[1] != 0 && before[0] != before[1]);
	assert_int_equal(cache_audit(w->data_dir).bytes, cache_room_of(5000));
}

static void
without_one_there_are_misses(void **state)
{
	struct cache_world *w = *state;
	uint64_t secret[2], version;

	assert_false(cache_secret(w->reader, secret));
	assert_int_equal(cache_find(w, 1), 0);
	cache_begin(w);
	version = cache_put(w, 1, 100);
	cache_commit_or_end(w);
	CACHE_WAIT_FOR(cache_find(w, 1) == version);	/* it is found by itself */
	assert_int_equal(cache_order(w, 'r'), 0);
	CACHE_WAIT_FOR(cache_find(w, 1) == 0);
	assert_false(cache_secret(w->reader, secret));
	assert_int_equal(cache_order(w, 'r'), 0);
}

/* A bound that was raised: the reader's map is too small then. */
static void
a_map_that_grows_is_followed(void **state)
{
	struct cache_world *w = *state;
	uint64_t version[24], first;

	w->told->bytes_max = 1 << 20;
	first = cache_begin_with_one(w);
	w->told->bytes_max = 128 << 20;
	for (uint64_t i = 0; i < 24; i++) {
		version[i] = cache_put(w, 100 + i, 3 << 20);
		cache_commit_or_end(w);
		assert_int_equal(cache_find(w, 100 + i), version[i]);
	}
	assert_true(cache_file_bytes(w) > (24 + 18) << 20);
	assert_int_equal(cache_find(w, 1), first);
	for (uint64_t i = 0; i < 24; i++)
		assert_int_equal(cache_find(w, 100 + i), version[i]);
	/* And lowered again, below what the file takes: it is made anew. */
	w->told->bytes_max = 1 << 20;
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 0);
	assert_true(cache_file_bytes(w) <= (1 << 20) + (1 << 19) + (16 << 20) + 4096);
	first = cache_put(w, 1, 100);
	cache_commit_or_end(w);
	CACHE_WAIT_FOR(cache_find(w, 1) == first);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_put_is_found_as_it_was),
		TEST(what_cannot_be_an_entry_is_not_encoded),
		TEST(the_newest_counts_until_it_is_deleted),
		TEST(what_has_expired_is_a_miss_and_goes),
		TEST(the_sweep_reaches_all),
		TEST(the_bound_holds_to_the_byte),
		TEST(what_cannot_fit_is_refused),
		TEST(what_is_no_entry_is_refused),
		TEST(a_lowered_bound_is_reached_in_portions),
		TEST(it_agrees_with_a_list),
		TEST(it_outlives_its_processes),
		TEST(without_one_there_are_misses),
		TEST(a_map_that_grows_is_followed),
	};

	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
