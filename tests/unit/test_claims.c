/*
 * Claims: one holder a key, two keys in one place, and what the dead held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "shm/layout.h"
#include "tests/unit/arena_fixture.h"

static const struct key128 one = { UINT64_C(0xabcdef0123456789), 7 };
static const struct key128 same_place = { UINT64_C(0x1bcdef0123456789), 7 + CLAIMS };
static const struct key128 elsewhere = { UINT64_C(0xabcdef0123456789), 8 };
static struct fixture f;

static int
open_arena(void **state)
{
	(void)state;
	fixture_open(&f, (struct arena_sizes){ .workers = WORKERS_MAX, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
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
a_key_has_one_holder(void **state)
{
	(void)state;
	assert_false(claim_held(&f.arena, one));
	assert_int_equal(claim_take(&f.arena, one, 0), CLAIM_TAKEN);
	assert_true(claim_held(&f.arena, one));
	assert_int_equal(claim_take(&f.arena, one, 1), CLAIM_OTHERS);
	assert_int_equal(claim_take(&f.arena, one, 0), CLAIM_OTHERS);	/* another request of the same worker */
	assert_false(claim_held(&f.arena, elsewhere));
	assert_int_equal(claim_take(&f.arena, elsewhere, 1), CLAIM_TAKEN);
	claim_drop(&f.arena, one, 0);
	assert_false(claim_held(&f.arena, one));
	assert_true(claim_held(&f.arena, elsewhere));
	assert_int_equal(claim_take(&f.arena, one, WORKERS_MAX - 1), CLAIM_TAKEN);
	claim_drop(&f.arena, one, WORKERS_MAX - 1);
	claim_drop(&f.arena, elsewhere, 1);
}

static void
two_keys_in_one_place_are_told_apart(void **state)
{
	(void)state;
	assert_int_equal(claim_take(&f.arena, one, 0), CLAIM_TAKEN);
	assert_int_equal(claim_take(&f.arena, same_place, 1), CLAIM_COLLISION);
	assert_false(claim_held(&f.arena, same_place));
	claim_drop(&f.arena, one, 0);
	assert_int_equal(claim_take(&f.arena, same_place, 1), CLAIM_TAKEN);
	assert_int_equal(claim_take(&f.arena, one, 0), CLAIM_COLLISION);
}

/* Every bit of the upper half that is compared, and every place. */
static void
each_bit_counts(void **state)
{
	(void)state;
	assert_int_equal(claim_take(&f.arena, one, 0), CLAIM_TAKEN);
	for (int bit = 8; bit < 64; bit++)
		assert_int_equal(claim_take(&f.arena, (struct key128){ one.hi ^ UINT64_C(1) << bit, one.lo }, 1), CLAIM_COLLISION);
	for (uint64_t lo = 0; lo < CLAIMS; lo++)
		assert_int_equal(claim_take(&f.arena, (struct key128){ 0, lo }, 1), lo == one.lo ? CLAIM_COLLISION : CLAIM_TAKEN);
	assert_int_equal(claim_reclaim(&f.arena, 1), CLAIMS - 1);
}

static void
those_of_the_dead_are_free_again(void **state)
{
	enum arena_origin origin;
	char why[256];

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(claim_take(&f.arena, (struct key128){ i << 8, i }, (uint32_t)(i % 2)), CLAIM_TAKEN);
	assert_int_equal(claim_reclaim(&f.arena, 2), 0);
	assert_int_equal(claim_reclaim(&f.arena, 0), 50);
	assert_int_equal(claim_reclaim(&f.arena, 0), 0);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(claim_held(&f.arena, (struct key128){ i << 8, i }), i % 2);
	/* All die: the next master finds them. */
	arena_close(&f.arena);
	assert_int_equal(arena_open(&f.arena, f.path, &(struct arena_sizes){ 1, 1, 65536, 64 }, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
	assert_int_equal(claim_reclaim(&f.arena, 1), 50);
}

/* How a process ends that drops what it does not hold. */
static int
status_of_drop(struct key128 key, uint32_t worker)
{
	const struct rlimit none = { 0, 0 };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		claim_drop(&f.arena, key, worker);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void
only_its_holder_drops_it(void **state)
{
	(void)state;
	assert_int_equal(claim_take(&f.arena, one, 3), CLAIM_TAKEN);
	assert_true(WIFSIGNALED(status_of_drop(one, 2)));
	assert_true(WIFSIGNALED(status_of_drop(same_place, 3)));
	assert_true(claim_held(&f.arena, one));
	assert_int_equal(status_of_drop(one, 3), 0);
	assert_false(claim_held(&f.arena, one));
	assert_true(WIFSIGNALED(status_of_drop(one, 3)));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_key_has_one_holder, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(two_keys_in_one_place_are_told_apart, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(each_bit_counts, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(those_of_the_dead_are_free_again, open_arena, close_arena),
		cmocka_unit_test_setup_teardown(only_its_holder_drops_it, open_arena, close_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
