/*
 * Health: what ejects a target and for how long, who may probe it, what the
 * outcome does, whose reports count, and rows: made, found, given away, shown.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shm/layout.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 4
#define COOL_NS (30 * NS_PER_S)
#define COOL_MAX_NS (200 * NS_PER_S)
#define WINDOW_NS (10 * NS_PER_S)

static const struct health_rule in_a_row = { .failures = 3, .cooldown_ns = COOL_NS, .cooldown_max_ns = COOL_MAX_NS };
static const struct health_rule by_share = { .share_permille = 500, .requests_min = 4, .window_ns = WINDOW_NS,
	.cooldown_ns = COOL_NS, .cooldown_max_ns = COOL_MAX_NS };

static struct fixture f;
static struct health_ref target;
static int64_t now;

static struct health_ref
target_of(uint64_t number, const char *name)
{
	return (struct health_ref){ .id = { 5, number }, .name = name, .row = HEALTH_NO_ROW };
}

static int
open_arena(void **state)
{
	(void)state;
	fixture_open(&f, (struct arena_sizes){ .workers = WORKERS, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	target = target_of(1, "provider anthropic");
	now = FIXTURE_MONO_NS;
	return 0;
}

static int
close_arena(void **state)
{
	(void)state;
	fixture_close(&f);
	return 0;
}

/* ---- words for what happens ---- */

static struct health_try
try_of(uint32_t worker)
{
	return (struct health_try){ .worker = worker, .began_mono_ns = now };
}

static enum health_state
look(void)
{
	return health_look(&f.arena, &target, now);
}

static void
fails(const struct health_rule *rule, int times)
{
	struct health_try t = try_of(0);

	for (int i = 0; i < times; i++)
		health_failure(&f.arena, &target, rule, &t, now);
}

static void
succeeds(const struct health_rule *rule, int times)
{
	struct health_try t = try_of(0);

	for (int i = 0; i < times; i++)
		health_success(&f.arena, &target, rule, &t, now);
}

static void
eject(enum health_why why, int64_t for_ns)
{
	struct health_try t = try_of(0);

	health_eject(&f.arena, &target, &t, why, for_ns, now);
}

/* This worker takes the probe, which must be free. */
static struct health_try
probe(uint32_t worker)
{
	struct health_try t = try_of(worker);

	assert_int_equal(look(), HEALTH_PROBE_FREE);
	assert_true(health_probe_take(&f.arena, &target, &t, now));
	assert_int_equal(look(), HEALTH_PROBE_BUSY);
	return t;
}

static void
nobody_can_probe(void)
{
	for (uint32_t worker = 0; worker < WORKERS; worker++) {
		struct health_try t = try_of(worker);

		assert_false(health_probe_take(&f.arena, &target, &t, now));
		assert_int_equal(t.probe, 0);
	}
}

static struct health_view
view(void)
{
	struct health_view v;

	assert_true(target.row < HEALTH_ROWS);
	assert_true(health_at(&f.arena, target.row, now, &v));
	assert_int_equal(v.id.lo, target.id.lo);
	assert_int_equal(v.id.hi, target.id.hi);
	return v;
}

/* It is out until `ns` from now, to the nanosecond. */
static void
is_out_for(int64_t ns)
{
	int64_t begin = now;

	assert_int_equal(look(), HEALTH_OUT);
	assert_int_equal(view().over_in_ns, ns);
	now = begin + ns - 1;
	assert_int_equal(look(), HEALTH_OUT);
	nobody_can_probe();
	now = begin + ns;
	assert_int_equal(look(), HEALTH_PROBE_FREE);
	now = begin;
}

static void
reopen(void)
{
	enum arena_origin origin;
	char why[256];

	arena_close(&f.arena);
	assert_int_equal(arena_open(&f.arena, f.path, &(struct arena_sizes){ 1, 1, 65536, 64 }, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
}

/* ---- up ---- */

static void
one_that_never_failed_is_up_and_has_no_row(void **state)
{
	static struct shm_health before;

	(void)state;
	memcpy(&before, layout_health(&f.arena), sizeof(before));
	succeeds(&in_a_row, 3);
	succeeds(&by_share, 3);
	struct health_try t = try_of(0);
	health_probe_drop(&f.arena, &target, &t);
	nobody_can_probe();
	assert_int_equal(look(), HEALTH_UP);
	assert_int_equal(target.row, HEALTH_NO_ROW);
	assert_memory_equal(&before, layout_health(&f.arena), sizeof(before));
}

static void
failures_in_a_row_eject(void **state)
{
	(void)state;
	fails(&in_a_row, 2);
	succeeds(&in_a_row, 1);
	fails(&in_a_row, 2);
	assert_int_equal(look(), HEALTH_UP);
	assert_int_equal(view().failures_in_a_row, 2);
	assert_int_equal(view().state, HEALTH_UP);
	assert_int_equal(view().since_mono_ns, 0);
	fails(&in_a_row, 1);
	is_out_for(COOL_NS);
	assert_int_equal(view().why, HEALTH_FAILURES);
	assert_int_equal(view().since_mono_ns, now);
	assert_int_equal(view().ejections, 1);
	assert_string_equal(view().name, "provider anthropic");
	/* 0: not by these, nor by a share. */
	target = target_of(2, "other");
	fails(&(struct health_rule){ .cooldown_ns = 1, .cooldown_max_ns = 1 }, 1000);
	assert_int_equal(look(), HEALTH_UP);
}

static void
times_are_not_shortened_by_rounding(void **state)
{
	(void)state;
	now += 999999;
	eject(HEALTH_BUSY, 1);
	assert_int_equal(view().over_in_ns, NS_PER_MS + 1);	/* a millisecond at the least; up to the next */
	now += NS_PER_MS;
	assert_int_equal(look(), HEALTH_OUT);
	now++;
	assert_int_equal(look(), HEALTH_PROBE_FREE);
}

static void
the_share_of_failures_ejects(void **state)
{
	(void)state;
	succeeds(&by_share, 100);		/* before the first failure: not counted */
	fails(&by_share, 1);
	succeeds(&by_share, 1);
	fails(&by_share, 1);			/* two of three: too few */
	assert_int_equal(look(), HEALTH_UP);
	assert_int_equal(view().window_requests, 3);
	succeeds(&by_share, 2);			/* two of five: too small a share */
	assert_int_equal(look(), HEALTH_UP);
	fails(&by_share, 1);			/* three of six */
	is_out_for(COOL_NS);
	assert_int_equal(view().why, HEALTH_RATE);
	assert_int_equal(view().window_failures, 3);
	assert_int_equal(view().window_requests, 6);
}

static void
the_window_forgets(void **state)
{
	(void)state;
	now = 100 * WINDOW_NS;			/* where a half begins */
	fails(&by_share, 3);
	now += WINDOW_NS / 2;			/* the other half: both count */
	succeeds(&by_share, 2);
	assert_int_equal(view().window_failures, 3);
	assert_int_equal(view().window_requests, 5);
	now += WINDOW_NS / 2;			/* the failures are gone */
	fails(&by_share, 1);
	assert_int_equal(view().window_failures, 1);
	assert_int_equal(view().window_requests, 3);
	assert_int_equal(look(), HEALTH_UP);
	now -= WINDOW_NS / 2;			/* a worker whose clock was read earlier */
	fails(&by_share, 1);
	assert_int_equal(view().window_requests, 4);
	assert_int_equal(look(), HEALTH_OUT);	/* two of four */
}

static void
a_target_that_is_well_costs_no_store(void **state)
{
	static struct shm_health before;

	(void)state;
	now = 100 * WINDOW_NS;
	fails(&by_share, 1);
	succeeds(&by_share, 1);
	now += WINDOW_NS;			/* a half without failures begins, and is not begun */
	memcpy(&before, layout_health(&f.arena), sizeof(before));
	for (int i = 0; i < 5; i++) {
		succeeds(&by_share, 10);
		now += WINDOW_NS;
	}
	assert_memory_equal(&before, layout_health(&f.arena), sizeof(before));
	succeeds(&by_share, 1);			/* a minute later it says that it is used */
	assert_int_equal(view().used_mono_ns, now);
}

static void
counts_do_not_overflow(void **state)
{
	struct health_rule rule = by_share;

	(void)state;
	rule.share_permille = 250;
	rule.requests_min = 100;
	fails(&rule, 1);
	for (int i = 0; i < 100000; i++) {
		succeeds(&rule, 4);
		fails(&rule, 1);			/* one of five */
	}
	assert_int_equal(look(), HEALTH_UP);
	assert_in_range(view().window_requests, 32768, 65535);
	assert_in_range(view().window_failures * 1000 / view().window_requests, 198, 202);
	for (int i = 0; i < 65536 && look() == HEALTH_UP; i++) {
		succeeds(&rule, 2);
		fails(&rule, 1);			/* one of three */
	}
	assert_int_equal(look(), HEALTH_OUT);
}

/* ---- out ---- */

static void
cooldowns_double_until_a_success(void **state)
{
	static const int64_t wanted_s[] = { 30, 60, 120, 200, 200, 200 };

	(void)state;
	fails(&in_a_row, 3);
	for (size_t i = 0; i < sizeof(wanted_s) / sizeof(wanted_s[0]); i++) {
		assert_int_equal(view().ejections, i + 1);
		is_out_for(wanted_s[i] * NS_PER_S);
		now += wanted_s[i] * NS_PER_S;
		struct health_try t = probe(1);
		health_failure(&f.arena, &target, &in_a_row, &t, now);
	}
	assert_int_equal(view().since_mono_ns, FIXTURE_MONO_NS);	/* all the while */
	now += COOL_MAX_NS;
	struct health_try t = probe(1);
	health_success(&f.arena, &target, &in_a_row, &t, now);
	assert_int_equal(look(), HEALTH_UP);
	assert_int_equal(view().ejections, 0);
	assert_int_equal(view().since_mono_ns, now);
	fails(&in_a_row, 2);			/* counted from 0 */
	assert_int_equal(look(), HEALTH_UP);
	fails(&in_a_row, 1);
	is_out_for(COOL_NS);
	/* As often as you like. */
	struct health_rule endless = { .failures = 1, .cooldown_ns = 1, .cooldown_max_ns = INT64_MAX };
	for (int i = 0; i < 100; i++) {
		now += HEALTH_OUT_NS_MAX;
		t = probe(1);
		health_failure(&f.arena, &target, &endless, &t, now);
	}
	assert_int_equal(view().ejections, 15);
	assert_in_range(view().over_in_ns, 1, HEALTH_OUT_NS_MAX);
}

static void
one_at_a_time_may_probe(void **state)
{
	(void)state;
	eject(HEALTH_CREDENTIAL, COOL_NS);
	nobody_can_probe();
	now += COOL_NS;
	struct health_try first = probe(2);
	nobody_can_probe();
	assert_int_equal(view().prober, 2);
	assert_int_equal(view().why, HEALTH_CREDENTIAL);
	assert_int_equal(view().over_in_ns, HEALTH_PROBE_NS);
	now += HEALTH_PROBE_NS - 1;
	assert_int_equal(look(), HEALTH_PROBE_BUSY);
	nobody_can_probe();
	now++;					/* it is silent for too long */
	struct health_try second = probe(3);
	nobody_can_probe();
	health_probe_drop(&f.arena, &target, &first);	/* is not its own any more */
	assert_int_equal(look(), HEALTH_PROBE_BUSY);
	/* But what it says is news all the same. */
	health_success(&f.arena, &target, &in_a_row, &first, now);
	assert_int_equal(look(), HEALTH_UP);
	health_failure(&f.arena, &target, &in_a_row, &second, now);
	assert_int_equal(look(), HEALTH_UP);	/* one failure of a target that is up */
	assert_int_equal(view().failures_in_a_row, 1);
}

static void
a_probe_that_comes_to_nothing_is_free_again(void **state)
{
	(void)state;
	eject(HEALTH_BUSY, COOL_NS);
	now += COOL_NS;
	for (uint32_t worker = 0; worker < WORKERS; worker++) {
		struct health_try t = probe(worker);
		health_probe_drop(&f.arena, &target, &t);
		assert_int_equal(view().ejections, 1);
		assert_int_equal(view().why, HEALTH_BUSY);
	}
	/* Once more by one that has dropped it already: nothing. */
	struct health_try old = probe(0);
	health_probe_drop(&f.arena, &target, &old);
	now += NS_PER_MS;
	probe(0);
	health_probe_drop(&f.arena, &target, &old);
	assert_int_equal(look(), HEALTH_PROBE_BUSY);
}

static void
an_ejection_ends_a_probe(void **state)
{
	(void)state;
	eject(HEALTH_BUSY, COOL_NS);
	now += COOL_NS;
	struct health_try t = probe(1);
	eject(HEALTH_MONEY, 10 * NS_PER_S);	/* an answer to an older request */
	is_out_for(10 * NS_PER_S);
	health_success(&f.arena, &target, &in_a_row, &t, now);
	health_failure(&f.arena, &target, &in_a_row, &t, now);
	health_probe_drop(&f.arena, &target, &t);
	is_out_for(10 * NS_PER_S);
	assert_int_equal(view().why, HEALTH_MONEY);
	assert_int_equal(view().ejections, 2);
	now += 10 * NS_PER_S;
	t = probe(1);
	health_eject(&f.arena, &target, &t, HEALTH_BUSY, NS_PER_S, now);	/* its own answer */
	is_out_for(NS_PER_S);
	now += NS_PER_S;
	probe(2);
}

static void
an_ejection_never_shortens(void **state)
{
	(void)state;
	eject(HEALTH_MONEY, 100 * NS_PER_S);
	eject(HEALTH_BUSY, 99 * NS_PER_S);
	is_out_for(100 * NS_PER_S);
	assert_int_equal(view().why, HEALTH_MONEY);
	now += 50 * NS_PER_S;
	eject(HEALTH_BUSY, 60 * NS_PER_S);
	is_out_for(60 * NS_PER_S);
	assert_int_equal(view().why, HEALTH_BUSY);
	assert_int_equal(view().ejections, 1);	/* one, that became longer */
	assert_int_equal(view().since_mono_ns, now - 50 * NS_PER_S);
	eject(HEALTH_CREDENTIAL, INT64_MAX);
	is_out_for(HEALTH_OUT_NS_MAX);
	target = target_of(2, NULL);
	eject(HEALTH_BUSY, INT64_MIN);
	is_out_for(NS_PER_MS);
	assert_string_equal(view().name, "");
}

/* Requests that were under way when it went out. */
static void
others_say_nothing_of_a_target_that_is_out(void **state)
{
	(void)state;
	fails(&in_a_row, 3);
	fails(&in_a_row, 10);
	succeeds(&in_a_row, 10);
	is_out_for(COOL_NS);
	assert_int_equal(view().ejections, 1);
	now += COOL_NS;
	struct health_try late = try_of(3), t = probe(1);
	fails(&in_a_row, 10);
	succeeds(&in_a_row, 10);
	assert_int_equal(look(), HEALTH_PROBE_BUSY);
	now += NS_PER_S;
	health_success(&f.arena, &target, &in_a_row, &t, now);
	/* A failure of what began before that is old news. */
	for (int i = 0; i < 10; i++)
		health_failure(&f.arena, &target, &in_a_row, &late, now);
	assert_int_equal(view().failures_in_a_row, 0);
	late.began_mono_ns = now;
	for (int i = 0; i < 3; i++)
		health_failure(&f.arena, &target, &in_a_row, &late, now);
	assert_int_equal(look(), HEALTH_OUT);
}

static void
what_the_dead_probed_is_free_again(void **state)
{
	struct health_ref other = target_of(2, "other");
	struct health_try t = try_of(1);

	(void)state;
	health_eject(&f.arena, &other, &t, HEALTH_BUSY, COOL_NS, now);
	eject(HEALTH_BUSY, COOL_NS);
	now += COOL_NS;
	probe(0);
	assert_true(health_probe_take(&f.arena, &other, &t, now));
	assert_int_equal(health_reclaim(&f.arena, 2), 0);
	assert_int_equal(health_reclaim(&f.arena, 0), 1);
	assert_int_equal(health_reclaim(&f.arena, 0), 0);
	probe(3);
	assert_int_equal(health_look(&f.arena, &other, now), HEALTH_PROBE_BUSY);
	/* All die: the next master finds them. */
	reopen();
	for (uint32_t worker = 0; worker < WORKERS; worker++)
		assert_int_equal(health_reclaim(&f.arena, worker), worker == 1 || worker == 3);
	assert_int_equal(health_look(&f.arena, &other, now), HEALTH_PROBE_FREE);
	assert_int_equal(view().since_mono_ns, FIXTURE_MONO_NS);
	probe(0);
}

static void
works_from_the_boot_on(void **state)
{
	(void)state;
	now = 0;
	fails(&in_a_row, 2);
	succeeds(&by_share, 1);
	fails(&in_a_row, 3);
	is_out_for(COOL_NS);
	now = COOL_NS;
	struct health_try t = probe(0);
	health_success(&f.arena, &target, &in_a_row, &t, now);
	assert_int_equal(look(), HEALTH_UP);
	target = target_of(2, NULL);
	now = 0;
	eject(HEALTH_BUSY, 1);
	is_out_for(NS_PER_MS);
	assert_int_equal(view().since_mono_ns, 0);
}

static void
ejections_are_counted_by_reason(void **state)
{
	struct health_counts n;

	(void)state;
	fails(&in_a_row, 3);
	now += COOL_NS;
	struct health_try t = probe(0);
	health_failure(&f.arena, &target, &in_a_row, &t, now);
	eject(HEALTH_MONEY, COOL_MAX_NS);	/* it is out already */
	target = target_of(2, NULL);
	fails(&by_share, 4);
	target = target_of(3, NULL);
	eject(HEALTH_CREDENTIAL, 1);
	n = health_counts(&f.arena);
	assert_int_equal(n.ejected[HEALTH_FAILURES], 2);
	assert_int_equal(n.ejected[HEALTH_RATE], 1);
	assert_int_equal(n.ejected[HEALTH_BUSY], 0);
	assert_int_equal(n.ejected[HEALTH_MONEY], 0);
	assert_int_equal(n.ejected[HEALTH_CREDENTIAL], 1);
	assert_int_equal(n.unkept, 0);
	assert_string_equal(health_why_name(HEALTH_FAILURES), "failures");
	assert_string_equal(health_why_name(HEALTH_CREDENTIAL), "credential");
}

/* ---- rows ---- */

static void
rows_are_found_without_their_hint(void **state)
{
	enum { MANY = 2000 };

	(void)state;
	for (uint64_t i = 0; i < MANY; i++) {
		target = target_of(i, NULL);
		eject(HEALTH_BUSY, (int64_t)(i + 1) * NS_PER_MS);
	}
	for (uint64_t i = 0; i < MANY; i++) {
		target = target_of(i, NULL);
		assert_int_equal(look(), HEALTH_OUT);
		assert_int_equal(view().over_in_ns, (int64_t)(i + 1) * NS_PER_MS);
		target = target_of(i, NULL);
		target.row = (uint32_t)i;	/* most likely another's */
		assert_int_equal(look(), HEALTH_OUT);
		assert_int_equal(view().over_in_ns, (int64_t)(i + 1) * NS_PER_MS);
		target.id.hi = 6;
		assert_int_equal(look(), HEALTH_UP);
	}
	assert_int_equal(health_counts(&f.arena).unkept, 0);
}

static void
a_full_table_means_healthy(void **state)
{
	uint64_t kept = 0, n = 2 * HEALTH_ROWS;

	(void)state;
	for (uint64_t i = 0; i < n; i++) {
		target = target_of(i, NULL);
		eject(HEALTH_BUSY, NS_PER_S);
		kept += look() == HEALTH_OUT;
	}
	assert_in_range(kept, HEALTH_ROWS * 9 / 10, HEALTH_ROWS);
	assert_int_equal(health_counts(&f.arena).unkept, n - kept);
	succeeds(&in_a_row, 1);
	assert_int_equal(health_counts(&f.arena).unkept, n - kept);
	/* A day later their rows may be taken, but not one that is still out. */
	struct health_ref first = target_of(0, NULL), last = target_of(n, "new");
	struct health_try t = try_of(0);
	health_eject(&f.arena, &first, &t, HEALTH_MONEY, HEALTH_OUT_NS_MAX, now + 2 * NS_PER_S);
	now += HEALTH_IDLE_NS - 1;
	target = last;
	eject(HEALTH_BUSY, NS_PER_S);
	assert_int_equal(look(), HEALTH_UP);
	now += NS_PER_S;
	for (uint64_t i = 0; i < n; i++) {
		target = target_of(n + i, "new");
		fails(&in_a_row, 1);
	}
	assert_int_equal(health_look(&f.arena, &first, now), HEALTH_OUT);
	target = last;
	fails(&in_a_row, 1);
	assert_int_equal(view().failures_in_a_row, 2);
	assert_int_equal(view().why, 0);
	assert_string_equal(view().name, "new");
	/* A row with another target's hint is not taken for its own. */
	target.id.lo = 1;
	assert_int_equal(look(), HEALTH_UP);
}

/* A report about a target whose row was given away since it was looked up. */
static void
a_report_does_not_reach_the_next_owner(void **state)
{
	struct health_ref old, other;
	struct health_try t = try_of(0);

	(void)state;
	eject(HEALTH_BUSY, NS_PER_S);
	now += NS_PER_S;
	struct health_try held = probe(1);
	old = target;
	now += HEALTH_IDLE_NS + HEALTH_PROBE_NS;
	/* Until somebody gets its row. */
	for (uint64_t i = 100;; i++) {
		other = target_of(i, NULL);
		health_eject(&f.arena, &other, &t, HEALTH_BUSY, NS_PER_S, now);
		if (other.row == old.row)
			break;
	}
	now += NS_PER_S;
	assert_true(health_probe_take(&f.arena, &other, &t, now));
	target = old;
	assert_int_equal(look(), HEALTH_UP);
	health_success(&f.arena, &old, &in_a_row, &held, now);
	health_probe_drop(&f.arena, &old, &held);
	health_failure(&f.arena, &old, &in_a_row, &held, now);	/* makes another row */
	assert_int_not_equal(old.row, other.row);
	assert_int_equal(health_look(&f.arena, &other, now), HEALTH_PROBE_BUSY);
}

static void
who_dies_while_making_a_row_leaves_it_free(void **state)
{
	struct shm_health *h = layout_health(&f.arena);
	struct health_ref other;

	(void)state;
	eject(HEALTH_BUSY, NS_PER_S);
	uint32_t row = target.row;
	/* Worker 2 died when it had written its id into a fresh row ... */
	other = target_of(2, "other");
	atomic_store(&h->making, 3);
	struct health_ref dead = target;
	dead.id.hi = 99;
	atomic_store(&h->row[row + 1].id_hi, dead.id.hi);
	atomic_store(&h->row[row + 1].id_lo, dead.id.lo);
	dead.row = row + 1;
	assert_int_equal(health_look(&f.arena, &dead, now), HEALTH_UP);
	/* ... so nobody makes one, and a report is lost. */
	target = other;
	eject(HEALTH_BUSY, NS_PER_S);
	assert_int_equal(look(), HEALTH_UP);
	assert_int_equal(health_counts(&f.arena).unkept, 1);
	health_reclaim(&f.arena, 1);		/* not his */
	eject(HEALTH_BUSY, NS_PER_S);
	assert_int_equal(health_counts(&f.arena).unkept, 2);
	health_reclaim(&f.arena, 2);
	eject(HEALTH_BUSY, NS_PER_S);
	assert_int_equal(look(), HEALTH_OUT);
	/* Or when it had taken the row from another one: searches pass over it. */
	target = target_of(1, NULL);
	atomic_store(&h->row[row].circuit, 1);
	assert_int_equal(look(), HEALTH_UP);
	eject(HEALTH_MONEY, NS_PER_S);
	assert_int_equal(target.row, row);
	assert_int_equal(view().why, HEALTH_MONEY);
}

static void
names_are_cut_between_characters(void **state)
{
	char name[HEALTH_NAME_BYTES + 20];

	(void)state;
	memset(name, 'n', sizeof(name));
	memcpy(name + HEALTH_NAME_BYTES - 3, "\xe2\x82\xac and more", 12);
	target = target_of(1, name);
	fails(&in_a_row, 1);
	assert_int_equal(strlen(view().name), HEALTH_NAME_BYTES - 3);
	memcpy(name + HEALTH_NAME_BYTES - 4, "\xe2\x82\xac", 4);
	target = target_of(2, name);
	fails(&in_a_row, 1);
	assert_int_equal(strlen(view().name), HEALTH_NAME_BYTES - 1);
	assert_string_equal(view().name, name);
}

static void
what_nobody_asks_for_is_not_shown(void **state)
{
	struct health_view v;
	uint32_t shown = 0;

	(void)state;
	eject(HEALTH_MONEY, 2 * HEALTH_UNASKED_NS);
	for (uint32_t i = 0; i < HEALTH_ROWS; i++)
		shown += health_at(&f.arena, i, now, &v);
	assert_int_equal(shown, 1);
	now += 2 * HEALTH_UNASKED_NS - 1;
	assert_int_equal(view().state, HEALTH_OUT);
	now++;
	assert_false(health_at(&f.arena, target.row, now, &v));
	assert_int_equal(look(), HEALTH_PROBE_FREE);
	probe(0);
	assert_int_equal(view().state, HEALTH_PROBE_BUSY);
	now += HEALTH_PROBE_NS;
	assert_int_equal(view().state, HEALTH_PROBE_FREE);
	assert_int_equal(view().over_in_ns, 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
	const struct CMUnitTest tests[] = {
		TEST(one_that_never_failed_is_up_and_has_no_row), TEST(failures_in_a_row_eject),
		TEST(times_are_not_shortened_by_rounding), TEST(the_share_of_failures_ejects), TEST(the_window_forgets),
		TEST(a_target_that_is_well_costs_no_store), TEST(counts_do_not_overflow), TEST(cooldowns_double_until_a_success),
		TEST(one_at_a_time_may_probe), TEST(a_probe_that_comes_to_nothing_is_free_again), TEST(an_ejection_ends_a_probe),
		TEST(an_ejection_never_shortens), TEST(others_say_nothing_of_a_target_that_is_out),
		TEST(what_the_dead_probed_is_free_again), TEST(works_from_the_boot_on), TEST(ejections_are_counted_by_reason),
		TEST(rows_are_found_without_their_hint), TEST(a_full_table_means_healthy),
		TEST(a_report_does_not_reach_the_next_owner), TEST(who_dies_while_making_a_row_leaves_it_free),
		TEST(names_are_cut_between_characters), TEST(what_nobody_asks_for_is_not_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
