/*
 * What a worker, or a whole weir, held when it died is given back: by the master
 * after a death, and by the next one before it forks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/startup.h"
#include "shm/base/clock.h"
#include "shm/claims.h"
#include "shm/health.h"
#include "shm/places.h"

static char folder[] = "/tmp/weir-startup-XXXXXX", data[64], run[64];
static struct settings settings = { .refs = 1, .arena = { .workers = 3, .inflight = 8, .ring_bytes = 65536, .meters = 64 } };
static const struct key128 session = { 3, 4 };
static struct identity identity;
static struct arena arena;
static struct health_ref target = { .id = { 1, 2 }, .name = "provider anthropic", .row = HEALTH_NO_ROW };

static int
set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(data, sizeof(data), "%s/data", folder);
	snprintf(run, sizeof(run), "%s/run", folder);
	settings.data_dir = data;
	settings.run_dir = run;
	identity = (struct identity){ .uid = geteuid(), .gid = getegid() };
	return startup_folders(&settings, &identity) ? 0 : -1;
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static int
tear_down(void **state)
{
	(void)state;
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct key128
key_of(uint32_t worker)
{
	return (struct key128){ 256, worker };
}

/* Each worker has a claim, and this one the probe. */
static void
take_all(uint32_t prober)
{
	struct health_try t = { .worker = prober };
	int64_t now = clock_mono_ns();

	for (uint32_t w = 0; w < settings.arena.workers; w++)
		assert_int_equal(claim_take(&arena, key_of(w), w), CLAIM_TAKEN);
	health_eject(&arena, &target, &t, HEALTH_BUSY, 1, now);
	assert_true(health_probe_take(&arena, &target, &t, now + NS_PER_S));
	assert_int_equal(health_look(&arena, &target, now + NS_PER_S), HEALTH_PROBE_BUSY);
}

static void
what_the_dead_held_is_given_back(void **state)
{
	uint32_t account = 0;
	int64_t now;

	(void)state;
	assert_true(startup_arena(&arena, &settings, &identity));
	take_all(1);
	now = clock_mono_ns() + 2 * NS_PER_S;
	assert_int_equal(startup_reclaim(&arena, 2), 0);
	assert_false(claim_held(&arena, key_of(2)));
	assert_true(claim_held(&arena, key_of(1)));
	assert_int_equal(health_look(&arena, &target, now), HEALTH_PROBE_BUSY);
	assert_int_equal(startup_reclaim(&arena, 1), 0);
	assert_false(claim_held(&arena, key_of(1)));
	assert_int_equal(health_look(&arena, &target, now), HEALTH_PROBE_FREE);
	assert_int_equal(startup_reclaim(&arena, 0), 0);
	/* All die, the master too. What they knew is still known. */
	take_all(2);
	places_put(&arena, session, 77, now);
	arena_close(&arena);
	assert_true(startup_arena(&arena, &settings, &identity));
	for (uint32_t w = 0; w < settings.arena.workers; w++)
		assert_false(claim_held(&arena, key_of(w)));
	assert_int_equal(health_look(&arena, &target, now), HEALTH_PROBE_FREE);
	assert_true(places_get(&arena, session, 3600 * NS_PER_S, now, &account));
	assert_int_equal(account, 77);
	arena_close(&arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_dead_held_is_given_back),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
