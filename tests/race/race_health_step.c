/*
 * Dies at every single instruction of the calls of health, claims and places: a child
 * is stepped through a call and killed behind the first, the second, ... instruction.
 * After each death the worker is buried as the master does it, and the tables are
 * audited (crowd.h): nothing is held, no row is half made, each target can be made,
 * ejected, probed and closed.
 *
 * And meets another one at every single instruction: the child stands still there, its
 * parent makes a whole call of its own about the same thing, and the child goes on to
 * its end. Then what both did has to go together.
 *
 * By default one instruction in STRIDE, beginning elsewhere in each run; with the
 * argument 1 all of them, but for the two calls that visit many rows, whose time would
 * grow with the square of these. Where ptrace is not permitted the test is skipped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/base/clock.h"
#include "shm/layout.h"
#include "tests/race/crowd.h"
#include "tests/race/stepped.h"
#include "tests/unit/arena_fixture.h"

/* Primes. A sanitizer makes several times as many instructions of a call. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 97
#else
#define STRIDE 23
#endif
#define MORTAL 1		/* the worker that dies; the parent is worker 0 */
#define DAY_MS (HEALTH_IDLE_NS / NS_PER_MS + 1)

static struct {
	struct fixture f;
	struct crowd crowd;
	struct crowd_member parent, child;
	uint64_t stride, deaths, meetings, instructions;
	struct health_ref owner;	/* of the row that a failure of target 0 takes, in a full table */
	char owner_name[HEALTH_NAME_BYTES];
	struct health_try taken;	/* the parent's probe */
	uint64_t unkept;
	bool *child_took;		/* in shared memory */
	bool parent_took;
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

/* All of that, and who owns the row that a failure of target 0 is going to take. */
static void
owner_is_known(void)
{
	static struct shm_health before;
	struct shm_health *h = layout_health(&test.f.arena);
	struct health_ref taker = test.parent.target[0];
	struct health_try t = try_of(&test.parent);

	table_is_full();
	memcpy(&before, h, sizeof(before));
	health_failure(&test.f.arena, &taker, &crowd_rule, &t, now_ns());
	memcpy(h, &before, sizeof(before));
	uint64_t number = atomic_load(&h->row[taker.row].id_lo);
	test.owner = (struct health_ref){ crowd_target_id(number), crowd_target_name(number, test.owner_name), HEALTH_NO_ROW };
}

static void
owner_is_out(void)
{
	struct health_try t = try_of(&test.parent);

	owner_is_known();
	health_eject(&test.f.arena, &test.owner, &t, HEALTH_BUSY, NS_PER_MS, now_ns());
	atomic_fetch_add(&test.crowd.clock_ms, DAY_MS);
}

/* What a reclaim of its worker has to free. */
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
eject_owner(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	health_eject(&test.f.arena, &test.owner, &t, HEALTH_BUSY, 8 * NS_PER_MS, now_ns());
	stepped_end();
}

static void
take_owners_probe(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	*test.child_took = health_probe_take(&test.f.arena, &test.owner, &t, now_ns());
	stepped_end();
}

/* Both may want it. */
static void
try_probe(uint64_t unused)
{
	struct health_try t = try_of(&test.child);

	(void)unused;
	stepped_begin();
	*test.child_took = health_probe_take(&test.f.arena, &test.child.target[0], &t, now_ns());
	stepped_end();
}

static void
try_claim(uint64_t drops)
{
	if (drops && claim_take(&test.f.arena, crowd_key(0), MORTAL) != CLAIM_TAKEN)
		crowd_fail("a claim that is free", 0, 0);
	stepped_begin();
	if (drops)
		claim_drop(&test.f.arena, crowd_key(0), MORTAL);
	else
		*test.child_took = claim_take(&test.f.arena, crowd_key(0), MORTAL) == CLAIM_TAKEN;
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

/* ---- meanwhile: by the parent, about the same thing ---- */

static void
fails_too(void)
{
	struct health_try t = try_of(&test.parent);

	health_failure(&test.f.arena, &test.parent.target[0], &crowd_rule, &t, now_ns());
}

static void
is_ejected(void)
{
	struct health_try t = try_of(&test.parent);

	health_eject(&test.f.arena, &test.parent.target[0], &t, HEALTH_CREDENTIAL, 8 * NS_PER_MS, now_ns());
}

static void
owner_is_ejected(void)
{
	struct health_try t = try_of(&test.parent);

	health_eject(&test.f.arena, &test.owner, &t, HEALTH_CREDENTIAL, 8 * NS_PER_MS, now_ns());
}

/* A day later, so that the owner's row is idle whatever the child has done. */
static void
row_is_taken(void)
{
	atomic_fetch_add(&test.crowd.clock_ms, 2 * DAY_MS);
	is_ejected();
}

static void
row_is_taken_by_one_that_is_up(void)
{
	atomic_fetch_add(&test.crowd.clock_ms, 2 * DAY_MS);
	fails_too();
}

static void
probe_is_taken(void)
{
	test.taken = try_of(&test.parent);
	test.parent_took = health_probe_take(&test.f.arena, &test.parent.target[0], &test.taken, now_ns());
}

/* When the child's has been silent for too long. */
static void
probe_is_taken_later(void)
{
	atomic_fetch_add(&test.crowd.clock_ms, HEALTH_PROBE_NS / NS_PER_MS + 1);
	probe_is_taken();
}

static void
claim_is_taken(void)
{
	test.parent_took = claim_take(&test.f.arena, crowd_key(0), 0) == CLAIM_TAKEN;
}

static void
place_of_another_is_told(void)
{
	uint32_t session = CROWD_SETS * (PLACES_WAYS + 1);

	places_put(&test.f.arena, crowd_session(session), session << 8 | 9, now_ns() + 2 * NS_PER_S);
}

static void
same_place_is_told(void)
{
	places_put(&test.f.arena, crowd_session(0), 9, now_ns() + 2 * NS_PER_S);
}

/* ---- after that ---- */

static struct health_view
view_of(struct health_ref *ref)
{
	struct health_view v;

	health_look(&test.f.arena, ref, now_ns());
	if (ref->row >= HEALTH_ROWS || !health_at(&test.f.arena, ref->row, now_ns(), &v) || v.id.lo != ref->id.lo)
		crowd_fail("a target without a row", (int64_t)ref->id.lo, ref->row);
	return v;
}

static void
both_failures_count(void)
{
	uint64_t lost = health_counts(&test.f.arena).unkept - test.unkept;
	uint32_t counted = view_of(&test.parent.target[0]).failures_in_a_row;

	if (counted + lost != 2)
		crowd_fail("failures that were counted, and lost", counted, (int64_t)lost);
}

static void
stays_ejected(struct health_ref *ref)
{
	if (health_counts(&test.f.arena).unkept > test.unkept)
		return;		/* the child was making a row */
	struct health_view v = view_of(ref);
	if (v.state != HEALTH_OUT || v.over_in_ns < 8 * NS_PER_MS)
		crowd_fail("an ejection that was undone: state, time", (int64_t)v.state, v.over_in_ns);
}

static void
target_stays_ejected(void)
{
	stays_ejected(&test.parent.target[0]);
}

/* Unless the child was making a row for the owner. */
static void
target_is_up(void)
{
	if (health_counts(&test.f.arena).unkept == test.unkept && view_of(&test.parent.target[0]).state != HEALTH_UP)
		crowd_fail("a target that another one's ejection has met", (int64_t)view_of(&test.parent.target[0]).state, 0);
}

static void
owner_stays_ejected(void)
{
	stays_ejected(&test.owner);
}

static void
one_has_it(void)
{
	if (test.parent_took + *test.child_took != 1)
		crowd_fail("how many have it: parent, child", test.parent_took, *test.child_took);
}

static void
parent_probes(void)
{
	struct health_view v = view_of(&test.parent.target[0]);

	if (!test.parent_took || v.state != HEALTH_PROBE_BUSY || v.prober != 0)
		crowd_fail("a probe that was taken away: state", (int64_t)v.state, test.parent_took);
}

static void
held_by_the_parent(void)
{
	if (claim_held(&test.f.arena, crowd_key(0)) != test.parent_took)
		crowd_fail("a claim that was dropped by another one", test.parent_took, 0);
}

static void
newer_place_is_known(void)
{
	uint32_t account;

	/* The child may have replaced it; but nothing is mixed (crowd_watch()). */
	if (places_get(&test.f.arena, crowd_session(0), INT64_MAX, now_ns(), &account) && account != 7 && account != 9)
		crowd_fail("a place that nobody told", account, 0);
}

static const struct meeting {
	struct act act;
	void (*meanwhile)(void);
	void (*after)(void);
} meetings[] = {
	{ { "two first failures", nothing, fail, 0, 1 }, fails_too, both_failures_count },
	{ { "a first failure, an ejection", nothing, fail, 0, 1 }, is_ejected, target_stays_ejected },
	{ { "a row is taken from one that is ejected", owner_is_known, fail, 0, 8 }, owner_is_ejected, owner_stays_ejected },
	{ { "a probe in a row that is taken away", owner_is_out, take_owners_probe, 0, 1 }, row_is_taken, target_stays_ejected },
	{ { "an ejection in a row that is taken away", owner_is_known, eject_owner, 0, 1 }, row_is_taken_by_one_that_is_up, target_is_up },
	{ { "two want to probe", target_is_out, try_probe, 0, 1 }, probe_is_taken, one_has_it },
	{ { "a probe succeeds, an ejection", target_is_out, end_probe, 0, 1 }, is_ejected, target_stays_ejected },
	{ { "a probe fails, an ejection", target_is_out, end_probe, 1, 1 }, is_ejected, target_stays_ejected },
	{ { "a probe is told to wait, an ejection", target_is_out, end_probe, 2, 1 }, is_ejected, target_stays_ejected },
	{ { "a probe is dropped, an ejection", target_is_out, end_probe, 3, 1 }, is_ejected, target_stays_ejected },
	{ { "a late probe is dropped", target_is_out, end_probe, 3, 1 }, probe_is_taken_later, parent_probes },
	{ { "a late probe is reclaimed", the_dead_hold_much, reclaim, 0, 256 }, probe_is_taken_later, parent_probes },
	{ { "two want a claim", nothing, try_claim, 0, 1 }, claim_is_taken, one_has_it },
	{ { "a claim is dropped and wanted", nothing, try_claim, 1, 1 }, claim_is_taken, held_by_the_parent },
	{ { "two places in one set", places_are_taken, tell_place, CROWD_SETS * PLACES_WAYS, 1 }, place_of_another_is_told, nothing },
	{ { "two places of one session", places_are_taken, tell_place, 0, 1 }, same_place_is_told, newer_place_is_known },
};

static void
begin_anew(void)
{
	memset(layout_health(&test.f.arena), 0, sizeof(struct shm_health));
	memset(layout_places(&test.f.arena), 0, PLACES_SETS * sizeof(struct shm_place_set));
	crowd_join(&test.parent);
	crowd_join(&test.child);
}

/* The last one that was told is the one that failed. */
static void
tell(const char *name)
{
	printf("%s\n", name);
	fflush(stdout);
}

static void
die_in(const struct act *act, uint64_t seed)
{
	uint64_t stride = test.stride * act->coarse;

	tell(act->name);
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
			return;
		}
		test.deaths++;
	}
}

static void
meet_in(const struct meeting *m, uint64_t seed)
{
	uint64_t stride = test.stride * m->act.coarse;
	bool inside = true;

	tell(m->act.name);
	for (uint64_t n = 1 + seed % stride; inside; n += stride) {
		begin_anew();
		*test.child_took = test.parent_took = false;
		m->act.before();
		test.unkept = health_counts(&test.f.arena).unkept;
		pid_t pid = stepped_start(m->act.call, m->act.arg);
		if (pid == 0)
			crowd_fail("a call that was not made", (int64_t)(m - meetings), 1);
		for (uint64_t i = 0; i < n && inside; i++)
			inside = stepped_once(pid);
		m->meanwhile();
		if (inside)
			stepped_finish(pid);
		else
			stepped_end_by_force(pid);
		m->after();
		crowd_watch(&test.f.arena, &test.crowd);
		crowd_bury(&test.crowd, &test.f.arena, MORTAL);
		crowd_bury(&test.crowd, &test.f.arena, 0);
		crowd_audit(&test.f.arena, &test.crowd);
		test.meetings++;
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
	test.child_took = mmap(NULL, sizeof(*test.child_took), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (test.child_took == MAP_FAILED)
		return 1;
	test.parent = (struct crowd_member){ .arena = &test.f.arena, .crowd = &test.crowd, .worker = 0 };
	test.child = (struct crowd_member){ .arena = &test.f.arena, .crowd = &test.crowd, .worker = MORTAL };
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		die_in(&acts[i], seed + i);
	for (size_t i = 0; i < sizeof(meetings) / sizeof(meetings[0]); i++)
		meet_in(&meetings[i], seed + i);
	printf("race_health_step: %llu deaths in %zu calls of %llu instructions, nothing is left of the dead; %llu meetings of %zu "
	    "kinds\n", (unsigned long long)test.deaths, sizeof(acts) / sizeof(acts[0]), (unsigned long long)test.instructions,
	    (unsigned long long)test.meetings, sizeof(meetings) / sizeof(meetings[0]));
	fixture_close(&test.f);
	return 0;
}
