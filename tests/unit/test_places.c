/*
 * Places: what was told is known, for as long as it may be; the oldest is
 * forgotten; half of an entry is nobody's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shm/layout.h"
#include "tests/unit/arena_fixture.h"

#define HOUR_NS (3600 * NS_PER_S)

static struct fixture f;

static int
open_arena(void **state)
{
	(void)state;
	fixture_open(&f, (struct arena_sizes){ .workers = 2, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	return 0;
}

static int
close_arena(void **state)
{
	(void)state;
	fixture_close(&f);
	return 0;
}

/* The n-th session of a set. */
static struct key128
session(uint64_t set, uint64_t n)
{
	return (struct key128){ (n + 1) * UINT64_C(0x9e3779b97f4a7c15), set };
}

static struct shm_place_entry *
way(uint64_t set, int n)
{
	return &layout_places(&f.arena)[set].way[n];
}

/* -1: unknown */
static int64_t
place(struct key128 s, int64_t age_ns, int64_t now_ns)
{
	uint32_t account = 77;

	if (places_get(&f.arena, s, age_ns, now_ns, &account))
		return account;
	assert_int_equal(account, 77);
	return -1;
}

static void
is_known_for_as_long_as_asked(void **state)
{
	int64_t now = FIXTURE_MONO_NS + 5;

	(void)state;
	assert_int_equal(place(session(1, 0), HOUR_NS, now), -1);
	places_put(&f.arena, session(1, 0), UINT32_MAX, now);
	places_put(&f.arena, session(1, 1), 0, now);
	assert_int_equal(place(session(1, 0), HOUR_NS, now), UINT32_MAX);
	assert_int_equal(place(session(1, 1), HOUR_NS, now), 0);
	assert_int_equal(place(session(1, 2), HOUR_NS, now), -1);
	assert_int_equal(place(session(2, 0), HOUR_NS, now), -1);	/* the same half, another set */
	assert_int_equal(place(session(1, 0), HOUR_NS, now - NS_PER_S), UINT32_MAX);	/* an earlier clock */
	assert_int_equal(place(session(1, 0), HOUR_NS, now + HOUR_NS), UINT32_MAX);
	assert_int_equal(place(session(1, 0), HOUR_NS, now + HOUR_NS + NS_PER_S), -1);
	places_put(&f.arena, session(1, 0), 5, now + HOUR_NS);
	assert_int_equal(place(session(1, 0), HOUR_NS, now + HOUR_NS + NS_PER_S), 5);
	assert_int_equal(place(session(1, 1), 2 * HOUR_NS, now + HOUR_NS), 0);
}

static void
works_from_the_boot_on(void **state)
{
	(void)state;
	assert_int_equal(place((struct key128){ 0, 0 }, HOUR_NS, 0), -1);	/* an empty entry is nobody's */
	places_put(&f.arena, (struct key128){ 0, 0 }, 0, 0);
	assert_int_equal(place((struct key128){ 0, 0 }, HOUR_NS, 0), 0);
	assert_int_equal(place((struct key128){ 0, 0 }, 0, 0), 0);
	assert_int_equal(place((struct key128){ 0, 0 }, 0, NS_PER_S), -1);
}

static void
the_oldest_is_forgotten(void **state)
{
	int64_t now = FIXTURE_MONO_NS;

	(void)state;
	for (uint32_t i = 0; i < PLACES_WAYS; i++)
		places_put(&f.arena, session(9, i), 100 + i, now + i * NS_PER_S);
	now += 10 * NS_PER_S;
	places_put(&f.arena, session(9, 0), 100, now);		/* is young again */
	places_put(&f.arena, session(9, 10), 110, now + NS_PER_S);
	for (uint32_t i = 0; i < PLACES_WAYS; i++)
		assert_int_equal(place(session(9, i), HOUR_NS, now), i == 1 ? -1 : 100 + (int64_t)i);
	assert_int_equal(place(session(9, 10), HOUR_NS, now), 110);
}

static void
the_same_again_stores_nothing(void **state)
{
	struct shm_place_entry before;

	(void)state;
	places_put(&f.arena, session(3, 0), 7, FIXTURE_MONO_NS);
	memcpy(&before, way(3, 0), sizeof(before));
	atomic_store(&way(3, 1)->value, 0);
	places_put(&f.arena, session(3, 0), 7, FIXTURE_MONO_NS + 1);
	assert_memory_equal(&before, way(3, 0), sizeof(before));
	assert_int_equal(atomic_load(&way(3, 1)->value), 0);
}

/* A value of one writer beside the check of another. */
static void
half_of_an_entry_is_nobodys(void **state)
{
	int64_t now = FIXTURE_MONO_NS;
	uint64_t check[2], value[2];

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		places_put(&f.arena, session(4, i), 1 + i, now + i * NS_PER_S);
		check[i] = atomic_load(&way(4, (int)i)->check);
		value[i] = atomic_load(&way(4, (int)i)->value);
	}
	atomic_store(&way(4, 1)->value, 0);
	for (int i = 0; i < 2; i++) {
		atomic_store(&way(4, 0)->check, check[i]);
		atomic_store(&way(4, 0)->value, value[!i]);
		for (uint32_t n = 0; n < 1000; n++)
			assert_int_equal(place(session(4, n), HOUR_NS, now), -1);
	}
	/* Of the same session, with another account or time. */
	places_put(&f.arena, session(5, 0), 1, now);
	for (int bit = 0; bit < 64; bit++) {
		uint64_t whole = atomic_load(&way(5, 0)->value);

		atomic_store(&way(5, 0)->value, whole ^ UINT64_C(1) << bit);
		assert_int_equal(place(session(5, 0), INT64_MAX, now), -1);
		atomic_store(&way(5, 0)->value, whole);
	}
	assert_int_equal(place(session(5, 0), HOUR_NS, now), 1);
}

/* Two workers told of one session at the same time, in two ways. */
static void
of_two_entries_the_newer_is_right(void **state)
{
	int64_t now = FIXTURE_MONO_NS;
	struct shm_place_entry old;

	(void)state;
	places_put(&f.arena, session(6, 0), 1, now);
	memcpy(&old, way(6, 0), sizeof(old));
	places_put(&f.arena, session(6, 0), 2, now + NS_PER_S);
	memcpy(way(6, 2), &old, sizeof(old));
	assert_int_equal(place(session(6, 0), HOUR_NS, now), 2);
	memcpy(way(6, 2), way(6, 0), sizeof(old));
	memcpy(way(6, 0), &old, sizeof(old));
	assert_int_equal(place(session(6, 0), HOUR_NS, now), 2);
	places_put(&f.arena, session(6, 0), 3, now + 2 * NS_PER_S);
	assert_int_equal(place(session(6, 0), HOUR_NS, now), 3);
	assert_int_equal(atomic_load(&way(6, 2)->value), 0);
}

static void
many_are_kept(void **state)
{
	uint32_t kept = 0, n = PLACES_SETS * PLACES_WAYS / 2;
	uint64_t random = 1;

	(void)state;
	for (int pass = 0; pass < 2; pass++) {
		random = 1;
		for (uint32_t i = 0; i < n; i++) {
			struct key128 s;

			s.hi = random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
			random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
			s.lo = random >> 32;
			if (pass == 0)
				places_put(&f.arena, s, i, FIXTURE_MONO_NS + i);
			else if (place(s, HOUR_NS, FIXTURE_MONO_NS) >= 0) {
				assert_int_equal(place(s, HOUR_NS, FIXTURE_MONO_NS), i);
				kept++;
			}
		}
	}
	/* Half full, and sets fill by chance: nearly all are there. */
	assert_true(kept > n * 9 / 10 && kept < n);
}

static void
outlives_the_processes(void **state)
{
	enum arena_origin origin;
	char why[256];

	(void)state;
	places_put(&f.arena, session(1, 0), 42, FIXTURE_MONO_NS);
	arena_close(&f.arena);
	assert_int_equal(arena_open(&f.arena, f.path, &(struct arena_sizes){ 1, 1, 65536, 64 }, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
	assert_int_equal(place(session(1, 0), HOUR_NS, FIXTURE_MONO_NS), 42);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(is_known_for_as_long_as_asked, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(works_from_the_boot_on, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(the_oldest_is_forgotten, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(the_same_again_stores_nothing, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(half_of_an_entry_is_nobodys, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(of_two_entries_the_newer_is_right, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(many_are_kept, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(outlives_the_processes, open_arena, close_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
