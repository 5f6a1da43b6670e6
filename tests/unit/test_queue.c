/*
 * Who waits longest goes first: what is said on the board, by whom it is
 * heard, and that the dead are forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "arena_fixture.h"
#include "shm/queue.h"

#define MS INT64_C(1000000)

static const struct meter_id one = { 1, 7 }, same_place = { 2, 7 + QUEUE_PLACES }, elsewhere = { 1, 8 };
static struct fixture f;

static struct waiting
waiting_for(struct meter_id id, int64_t since_mono_ns, int64_t need)
{
	return (struct waiting){ .id = id, .since_mono_ns = since_mono_ns, .need = need };
}

static int
open_arena(void **state)
{
	const struct arena_sizes sizes = { .workers = 2, .inflight = 8, .ring_bytes = 65536, .meters = 64 };

	(void)state;
	fixture_open(&f, sizes);
	return 0;
}

static int
close_arena(void **state)
{
	(void)state;
	fixture_close(&f);
	return 0;
}

static void
the_younger_hears_of_the_older(void **state)
{
	int64_t now = f.now.mono_ns;
	struct waiting old = waiting_for(one, now - 100 * MS, 500), young = waiting_for(one, now - 20 * MS, 300);

	(void)state;
	assert_false(queue_anybody(&f.arena, now));
	assert_int_equal(queue_older(&f.arena, one, now, now), -1);
	queue_ask(&f.arena, &young, now);
	assert_true(queue_anybody(&f.arena, now));
	assert_int_equal(queue_older(&f.arena, one, now, now), 300);
	assert_int_equal(queue_older(&f.arena, one, young.since_mono_ns, now), -1);	/* not of itself */
	queue_ask(&f.arena, &old, now);
	queue_ask(&f.arena, &young, now);	/* does not take the place of the older */
	assert_int_equal(queue_older(&f.arena, one, young.since_mono_ns, now), 500);
	assert_int_equal(queue_older(&f.arena, one, old.since_mono_ns, now), -1);
	assert_int_equal(queue_older(&f.arena, elsewhere, now, now), -1);
}

static void
who_leaves_is_not_waited_for(void **state)
{
	int64_t now = f.now.mono_ns;
	struct waiting old = waiting_for(one, now - 100 * MS, 500), young = waiting_for(one, now - 20 * MS, 300);

	(void)state;
	queue_ask(&f.arena, &old, now);
	queue_leave(&f.arena, &young);		/* was not on the board */
	assert_int_equal(queue_older(&f.arena, one, now, now), 500);
	queue_leave(&f.arena, &old);
	assert_int_equal(queue_older(&f.arena, one, now, now), -1);
	queue_ask(&f.arena, &young, now + 1);
	assert_int_equal(queue_older(&f.arena, one, now, now + 1), 300);
}

static void
the_dead_are_forgotten(void **state)
{
	int64_t now = f.now.mono_ns, later = now + QUEUE_FRESH_NS;
	struct waiting dead = waiting_for(one, now - 100 * MS, 500), young = waiting_for(one, now - 20 * MS, 300);

	(void)state;
	queue_ask(&f.arena, &dead, now);
	assert_int_equal(queue_older(&f.arena, one, now, later - 1), 500);
	assert_int_equal(queue_older(&f.arena, one, now, later), -1);
	assert_false(queue_anybody(&f.arena, later));
	queue_ask(&f.arena, &young, later);
	assert_int_equal(queue_older(&f.arena, one, now, later), 300);
}

static void
two_meters_in_one_place_are_not_mixed_up(void **state)
{
	int64_t now = f.now.mono_ns;
	struct waiting first = waiting_for(one, now - 10 * MS, 500), second = waiting_for(same_place, now - 50 * MS, 300);

	(void)state;
	queue_ask(&f.arena, &first, now);
	queue_ask(&f.arena, &second, now);
	assert_int_equal(queue_older(&f.arena, one, now, now), 500);
	assert_int_equal(queue_older(&f.arena, same_place, now, now), -1);
	queue_leave(&f.arena, &second);
	assert_int_equal(queue_older(&f.arena, one, now, now), 500);
	queue_leave(&f.arena, &first);
	queue_ask(&f.arena, &second, now);
	assert_int_equal(queue_older(&f.arena, same_place, now, now), 300);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_younger_hears_of_the_older, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(who_leaves_is_not_waited_for, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(the_dead_are_forgotten, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(two_meters_in_one_place_are_not_mixed_up, open_arena, close_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
