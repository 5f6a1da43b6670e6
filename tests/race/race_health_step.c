/*
 * Dies at every single instruction of the calls of health, claims and places: a child
 * is stepped through a call and killed behind the first, the second, ... instruction.
 * After each death the worker is buried as the master does it, and the tables are
 * audited (crowd.h): nothing is held, no row is half made, each target can be made,
 * ejected, probed and closed.
 *
 * By default one instruction in STRIDE, beginning elsewhere in each run; with the
 * argument 1 all of them, but for the two calls that visit many rows, whose time would
 * grow with the square of these. Where ptrace is not permitted the test is skipped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"
#include "shm/layout.h"
#include "tests/race/crowd.h"
#include "tests/race/stepped.h"
#include "tests/unit/arena_fixture.h"

/* Primes. A sanitizer makes several times as many instructions of a call. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 97
#else
#define STRIDE 11
#endif
#define MORTAL 1		/* the worker that dies; the parent is worker 0 */
#define DAY_MS (HEALTH_IDLE_NS / NS_PER_MS + 1)

static struct {
	struct fixture f;
	struct crowd crowd;
	struct crowd_member parent, child;
	uint64_t stride, deaths, instructions;
} test;

static int64_t
now_ns(void)
{
	return atomic_load(&test.crowd.clock_ms) * NS_PER_MS;
}

static struct health_try
try_of(const struct crowd_member *m)
{
	return (struct health_try){ .worker = m->worker, .began_mono_ns = now_ns() };
}

/* ---- before: by the parent ---- */

static void
nothing(void)
{
}

static void
target_is_out(void)
{
	struct health_try t = try_of(&test.parent);

	health_eject(&test.f.arena, &test.parent.target[0], &t, HEALTH_BUSY, NS_PER_MS, now_ns());
	atomic_fetch_add(&test.crowd.clock_ms, 2);
}

static void
target_has_failed(void)
{
	struct health_try t = try_of(&test.parent);

	for (uint32_t i = 1; i < crowd_rule.failures; i++)
		health_failure(&test.f.arena, &test.parent.target[0], &crowd_rule, &t, now_ns());
}

/* All rows are taken, and have been idle for a day. */
static void
table_is_full(void)
{
	char name[HEALTH_NAME_BYTES];

	for (uint64_t i = CROWD_TARGETS; i < CROWD_TARGETS + CROWD_PASSING; i++) {
		struct health_ref ref = { crowd_target_id(i), crowd_target_name(i, name), HEALTH_NO_ROW };
		struct health_try t = try_of(&test.parent);

		health_failure(&test.f.arena, &ref, &crowd_rule, &t, now_ns());
	}
	atomic_fetch_add(&test.crowd.clock_ms, DAY_MS);
}

/* The dead one's successor is stepped: what is there to be freed. */
static void
the_dead_hold_much(void)
{
	struct health_try t = try_of(&test.child);

	target_is_out();
	t.began_mono_ns = now_ns();
	if (!health_probe_take(&test.f.arena, &test.child.target[0], &t, now_ns()) ||
	    claim_take(&test.f.arena, (struct key128){ 1 << 8, 0 }, MORTAL) != CLAIM_TAKEN ||
	    claim_take(&test.f.arena, (struct key128){ 2 << 8, 2 }, MORTAL) != CLAIM_TAKEN)
		crowd_fail("what the dead one should hold", 0, 0);
}

static void
places_are_taken(void)
{
	for (uint32_t i = 0; i < PLACES_WAYS; i++)
		places_put(&test.f.arena, crowd_session(i * CROWD_SETS), i * CROWD_SETS << 8, now_ns());
}

/* ---- the calls: by the child ---- */

static void
fail(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	health_failure(&test.f.arena, &test.child.target[0], &crowd_rule, &t, now_ns());
	stepped_end();
}

static void
eject(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	health_eject(&test.f.arena, &test.child.target[0], &t, HEALTH_MONEY, 8 * NS_PER_MS, now_ns());
	stepped_end();
}

static void
take_probe(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	if (!health_probe_take(&test.f.arena, &test.child.target[0], &t, now_ns()))
		crowd_fail("a probe that is free", 0, 0);
	stepped_end();
}

static void
end_probe(uint64_t how)
{
	struct health_ref *ref = &test.child.target[0];
	struct health_try t = try_of(&test.child);

	if (!health_probe_take(&test.f.arena, ref, &t, now_ns()))
		crowd_fail("a probe that is free", 0, 0);
	stepped_begin();
	if (how == 0)
		health_success(&test.f.arena, ref, &crowd_rule, &t, now_ns());
	else if (how == 1)
		health_failure(&test.f.arena, ref, &crowd_rule, &t, now_ns());
	else if (how == 2)
		health_eject(&test.f.arena, ref, &t, HEALTH_BUSY, NS_PER_MS, now_ns());
	else
		health_probe_drop(&test.f.arena, ref, &t);
	stepped_end();
}

static void
claim(uint64_t unused)
{
	(void)unused;
	stepped_begin();
	if (claim_take(&test.f.arena, crowd_key(0), MORTAL) != CLAIM_TAKEN)
		crowd_fail("a claim that is free", 0, 0);
	claim_drop(&test.f.arena, crowd_key(0), MORTAL);
	stepped_end();
}

static void
tell_place(uint64_t session)
{
	stepped_begin();
	places_put(&test.f.arena, crowd_session((uint32_t)session), (uint32_t)session << 8 | 7, now_ns() + NS_PER_S);
	stepped_end();
}

static void
reclaim(uint64_t unused)
{
	(void)unused;
	stepped_begin();
	health_reclaim(&test.f.arena, MORTAL);
	stepped_end();
}

static const struct act {
	const char *name;
	void (*before)(void);
	stepped_fn *call;
	uint64_t arg;
	uint64_t coarse;	/* its strides are longer by this */
} acts[] = {
	{ "a first failure", nothing, fail, 0, 1 },
	{ "a first failure in a full table", table_is_full, fail, 0, 8 },
	{ "a failure that ejects", target_has_failed, fail, 0, 1 },
	{ "an ejection", nothing, eject, 0, 1 },
	{ "a probe is taken", target_is_out, take_probe, 0, 1 },
	{ "a probe succeeds", target_is_out, end_probe, 0, 1 },
	{ "a probe fails", target_is_out, end_probe, 1, 1 },
	{ "a probe is told to wait", target_is_out, end_probe, 2, 1 },
	{ "a probe is dropped", target_is_out, end_probe, 3, 1 },
	{ "a claim", nothing, claim, 0, 1 },
	{ "a place of a session that has one", places_are_taken, tell_place, 0, 1 },
	{ "a place that another one loses", places_are_taken, tell_place, CROWD_SETS * PLACES_WAYS, 1 },
	{ "a reclaim of health", the_dead_hold_much, reclaim, 0, 256 },
};

static void
begin_anew(void)
{
	memset(layout_health(&test.f.arena), 0, sizeof(struct shm_health));
	memset(layout_places(&test.f.arena), 0, PLACES_SETS * sizeof(struct shm_place_set));
	crowd_join(&test.parent);
	crowd_join(&test.child);
}

static void
die_in(const struct act *act, uint64_t seed)
{
	uint64_t stride = test.stride * act->coarse;

	for (uint64_t n = 1 + seed % stride;; n += stride) {
		begin_anew();
		act->before();
		pid_t pid = stepped_start(act->call, act->arg);
		if (pid == 0)
			crowd_fail("a call that was not made", (int64_t)(act - acts), 0);
		bool inside = stepped_kill(pid, n);
		crowd_bury(&test.crowd, &test.f.arena, MORTAL);
		crowd_watch(&test.f.arena, &test.crowd);
		crowd_audit(&test.f.arena, &test.crowd);
		if (!inside) {
			test.instructions += n;
			printf("race_health_step: %s: %llu instructions or fewer\n", act->name, (unsigned long long)n);
			return;
		}
		test.deaths++;
	}
}

int
main(int argc, char **argv)
{
	uint64_t seed = (uint64_t)clock_mono_ns();

	test.stride = argc > 1 ? strtoull(argv[1], NULL, 10) : STRIDE;
	if (test.stride == 0)
		test.stride = 1;
	fixture_open(&test.f, (struct arena_sizes){ .workers = 2, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	test.parent = (struct crowd_member){ .arena = &test.f.arena, .crowd = &test.crowd, .worker = 0 };
	test.child = (struct crowd_member){ .arena = &test.f.arena, .crowd = &test.crowd, .worker = MORTAL };
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		die_in(&acts[i], seed + i);
	printf("race_health_step: %llu deaths in %zu calls of %llu instructions; nothing is left of the dead\n",
	    (unsigned long long)test.deaths, sizeof(acts) / sizeof(acts[0]), (unsigned long long)test.instructions);
	fixture_close(&test.f);
	return 0;
}
