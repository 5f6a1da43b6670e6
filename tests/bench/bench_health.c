/*
 * What it costs to ask whether a target is worth asking, and what its neighbours
 * cost: one process, nothing contended, lines near.
 *
 *	look_absent		at targets that never failed, 1,000 of others have rows
 *	look_healthy		at one that has a row and is up again
 *	look_out		at one that is out
 *	success_healthy		the report of the usual case
 *	failure_and_success	the one report makes the streak, the other ends it
 *	claim			taken and dropped
 *	place_get, place_put	of 1,000 conversations
 *
 * Prints a line of JSON a figure: medians of nanoseconds of processor time a call,
 * without reading a clock: the time is passed in.
 *
 *	bench_health [ROUNDS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/claims.h"
#include "shm/health.h"
#include "shm/places.h"
#include "tests/bench/median.h"

#define ROUNDS_MAX 101
#define ROUNDS 11
#define CALLS 1000000		/* in a round */
#define MANY 1024		/* targets, keys, conversations: a power of two */

static const char path[] = "/dev/shm/weir-bench-health";
static const struct health_rule rule = { .failures = 5, .share_permille = 500, .requests_min = 10, .window_ns = 10 * NS_PER_S,
	.cooldown_ns = NS_PER_S, .cooldown_max_ns = 60 * NS_PER_S };

static struct arena arena;
static struct health_ref absent[MANY], healthy, out;
static struct key128 key[MANY];
static struct health_try try;
static int64_t now;
static volatile uint64_t sink;	/* so that no call is left out */

static void
give_up(const char *why)
{
	fprintf(stderr, "bench_health: %s\n", why);
	exit(1);
}

static struct key128
draw_key(void)
{
	static uint64_t random = 1;
	struct key128 k;

	k.hi = random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
	k.lo = random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
	k.lo ^= k.hi >> 32;
	return k;
}

static uint64_t
look_absent(uint32_t i)
{
	return health_look(&arena, &absent[i & (MANY - 1)], now);
}

static uint64_t
look_healthy(uint32_t i)
{
	return health_look(&arena, &healthy, now + i);
}

static uint64_t
look_out(uint32_t i)
{
	return health_look(&arena, &out, now + i);
}

static uint64_t
success_healthy(uint32_t i)
{
	health_success(&arena, &healthy, &rule, &try, now + i);
	return 0;
}

static uint64_t
failure_and_success(uint32_t i)
{
	const struct health_rule alone = { .failures = 5, .cooldown_ns = NS_PER_S, .cooldown_max_ns = NS_PER_S };

	health_failure(&arena, &healthy, &alone, &try, now + i);
	health_success(&arena, &healthy, &alone, &try, now + i);
	return 0;
}

static uint64_t
claim(uint32_t i)
{
	enum claim c = claim_take(&arena, key[i & (MANY - 1)], 0);

	claim_drop(&arena, key[i & (MANY - 1)], 0);
	return c;
}

static uint64_t
place_get(uint32_t i)
{
	uint32_t account = 0;

	return places_get(&arena, key[i & (MANY - 1)], 3600 * NS_PER_S, now, &account) + account;
}

static uint64_t
place_put(uint32_t i)
{
	places_put(&arena, key[i & (MANY - 1)], i, now);
	return 0;
}

static void
measure(const char *name, uint64_t (*call)(uint32_t), int rounds)
{
	double ns[ROUNDS_MAX];

	for (int r = 0; r < rounds; r++) {
		int64_t begin = cpu_ns();
		uint64_t sum = 0;

		for (uint32_t i = 0; i < CALLS; i++)
			sum += call(i);
		sink = sink + sum;
		ns[r] = (double)(cpu_ns() - begin) / CALLS;
	}
	printf("{\"bench\":\"health\",\"name\":\"%s\",\"unit\":\"ns\",\"value\":%.2f}\n", name, median(ns, rounds));
}

static void
prepare(void)
{
	for (uint32_t i = 0; i < MANY; i++) {
		struct health_ref other = { .id = draw_key(), .row = HEALTH_NO_ROW };

		absent[i] = (struct health_ref){ .id = draw_key(), .row = HEALTH_NO_ROW };
		key[i] = draw_key();
		if (i < 1000)
			health_failure(&arena, &other, &rule, &try, now);
	}
	healthy = (struct health_ref){ .id = draw_key(), .row = HEALTH_NO_ROW };
	out = (struct health_ref){ .id = draw_key(), .row = HEALTH_NO_ROW };
	health_failure(&arena, &healthy, &rule, &try, now);
	health_success(&arena, &healthy, &rule, &try, now);
	health_eject(&arena, &out, &try, HEALTH_BUSY, HEALTH_OUT_NS_MAX, now);
	now += 60 * NS_PER_S;		/* behind the window of that failure */
}

int
main(int argc, char **argv)
{
	const struct arena_sizes sizes = { .workers = 1, .inflight = 1, .ring_bytes = 65536, .meters = 64 };
	int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS;
	enum arena_origin origin;
	char why[256], lock[64];

	if (rounds < 1 || rounds > ROUNDS_MAX)
		give_up("ROUNDS: 1 to 101");
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(path);		/* of a run that was killed */
	if (arena_open(&arena, path, &sizes, &origin, why, sizeof(why)) != 0)
		give_up(why);
	unlink(path);
	unlink(lock);
	now = clock_mono_ns();
	prepare();
	measure("look_absent", look_absent, rounds);
	measure("look_healthy", look_healthy, rounds);
	measure("look_out", look_out, rounds);
	measure("success_healthy", success_healthy, rounds);
	measure("failure_and_success", failure_and_success, rounds);
	measure("claim", claim, rounds);
	measure("place_put", place_put, rounds);
	measure("place_get", place_get, rounds);
	arena_close(&arena);
	return 0;
}
