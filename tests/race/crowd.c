/*
 * tests/race/crowd.c -- see crowd.h.
 */
#include "tests/race/crowd.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"
#include "shm/layout.h"

#define PROBE_MS (HEALTH_PROBE_NS / NS_PER_MS)
#define COOL_MAX_MS 8

const struct health_rule crowd_rule = { .failures = 3, .share_permille = 600, .requests_min = 5, .window_ns = 20 * NS_PER_MS,
	.cooldown_ns = NS_PER_MS, .cooldown_max_ns = COOL_MAX_MS * NS_PER_MS };

uint64_t
crowd_draw(uint64_t *random, uint64_t below)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random % below;
}

void
crowd_fail(const char *what, int64_t one, int64_t other)
{
	fprintf(stderr, "crowd: %s: %lld, %lld\n", what, (long long)one, (long long)other);
	abort();
}

/* ---- names ---- */

static uint64_t
mixed(uint64_t x)
{
	x = (x + 1) * UINT64_C(0x9e3779b97f4a7c15);
	x ^= x >> 29;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	return x ^ x >> 32;
}

struct key128
crowd_target_id(uint64_t number)
{
	return (struct key128){ mixed(number), number };
}

/* As long as a name may be, and of one piece: half of another one would show. */
const char *
crowd_target_name(uint64_t number, char out[HEALTH_NAME_BYTES])
{
	for (size_t i = 0; i < HEALTH_NAME_BYTES - 1; i++)
		out[i] = (char)('a' + (number >> i % 13 & 1) + i % 2 * 4);
	out[HEALTH_NAME_BYTES - 1] = '\0';
	return out;
}

struct key128
crowd_key(uint32_t number)
{
	uint32_t place = number < CROWD_KEYS * 2 / 3 ? number / 2 : number;

	return (struct key128){ mixed(number), place + CLAIMS * mixed(number) };
}

struct key128
crowd_session(uint32_t number)
{
	return (struct key128){ mixed(number), number % CROWD_SETS };
}

static int64_t
now_of(const struct crowd *c)
{
	return atomic_load(&c->clock_ms) * NS_PER_MS;
}

/* Most are quick; some hold what they have for so long that deaths fall there. */
static void
dawdle(struct crowd_member *m)
{
	uint64_t turns = crowd_draw(&m->random, 32) == 0 ? crowd_draw(&m->random, 20000) : crowd_draw(&m->random, 50);

	for (volatile uint64_t i = 0; i < turns; i++)
		;
}

/* ---- probes ---- */

/* What a probe is known by; its ejection's number stands in its word (health.c). */
static uint64_t
announcement(const struct crowd_member *m, const struct health_try *t)
{
	return (uint64_t)(t->began_mono_ns / NS_PER_MS) << 17 | (t->probe >> 15 & 511) << 8 | (m->worker + 1);
}

static void
probe_announce(struct crowd_member *m, uint32_t target, uint64_t mine)
{
	uint64_t other = atomic_exchange(&m->crowd->prober[target], mine);
	int64_t apart_ms = (int64_t)(other >> 17) - (int64_t)(mine >> 17);

	atomic_fetch_add(&m->crowd->probes, 1);
	if (other == 0)
		return;
	if (((other ^ mine) >> 8 & 511) == 0 && apart_ms < PROBE_MS && apart_ms > -PROBE_MS)
		crowd_fail("two probe a target: workers", (int64_t)(other & 0xff) - 1, m->worker);
	atomic_fetch_add(&m->crowd->late_probes, 1);
}

static void
probe(struct crowd_member *m, uint32_t target, struct health_try *t)
{
	struct health_ref *ref = &m->target[target];
	uint64_t how = crowd_draw(&m->random, 8), mine;

	if (!health_probe_take(m->arena, ref, t, t->began_mono_ns))
		return;
	mine = announcement(m, t);
	probe_announce(m, target, mine);
	dawdle(m);
	if (crowd_draw(&m->random, 500) == 0) {	/* it hangs */
		atomic_fetch_add(&m->crowd->clock_ms, PROBE_MS + 1);
		for (int i = 0; i < 4; i++)
			sched_yield();
	}
	atomic_compare_exchange_strong(&m->crowd->prober[target], &mine, 0);
	int64_t now_ns = now_of(m->crowd);
	if (how < 3) {
		health_success(m->arena, ref, &crowd_rule, t, now_ns);
		atomic_fetch_add(&m->crowd->closed, 1);
	} else if (how < 6) {
		health_failure(m->arena, ref, &crowd_rule, t, now_ns);
	} else {
		health_probe_drop(m->arena, ref, t);
		atomic_fetch_add(&m->crowd->drops, 1);
	}
}

/* A request that is no probe: its try may have begun a while ago. */
static void
report(struct crowd_member *m, uint32_t target, struct health_try *t, int64_t now_ns)
{
	struct health_ref *ref = &m->target[target];

	t->began_mono_ns = now_ns - (int64_t)crowd_draw(&m->random, 3) * NS_PER_MS;
	if (crowd_draw(&m->random, 16) == 0) {
		health_eject(m->arena, ref, t, (enum health_why)crowd_draw(&m->random, HEALTH_WHYS),
		    (int64_t)crowd_draw(&m->random, COOL_MAX_MS * NS_PER_MS), now_ns);
	} else if (crowd_draw(&m->random, 3) > 0) {
		health_failure(m->arena, ref, &crowd_rule, t, now_ns);
	} else {
		health_success(m->arena, ref, &crowd_rule, t, now_ns);
	}
}

static void
ask_target(struct crowd_member *m)
{
	uint32_t target = (uint32_t)crowd_draw(&m->random, CROWD_TARGETS);
	int64_t now_ns = now_of(m->crowd);
	struct health_try t = { .worker = m->worker, .began_mono_ns = now_ns };

	if (crowd_draw(&m->random, 64) == 0)
		m->target[target].row = (uint32_t)crowd_draw(&m->random, 2 * HEALTH_ROWS);	/* a hint, no more */
	switch (health_look(m->arena, &m->target[target], now_ns)) {
	case HEALTH_PROBE_FREE:
		probe(m, target, &t);
		break;
	case HEALTH_PROBE_BUSY:
	case HEALTH_OUT:
		if (crowd_draw(&m->random, 4) > 0)
			break;
		/* fall through */
	case HEALTH_UP:
		report(m, target, &t, now_ns);
		break;
	}
}

/* Rows are made, and those that were idle for long are given away. */
static void
ask_passing_target(struct crowd_member *m)
{
	char name[HEALTH_NAME_BYTES];
	uint64_t number = CROWD_TARGETS + crowd_draw(&m->random, CROWD_PASSING);
	struct health_ref ref = { crowd_target_id(number), crowd_target_name(number, name), HEALTH_NO_ROW };
	struct health_try t = { .worker = m->worker, .began_mono_ns = now_of(m->crowd) };

	if (health_look(m->arena, &ref, t.began_mono_ns) == HEALTH_PROBE_FREE &&
	    health_probe_take(m->arena, &ref, &t, t.began_mono_ns))
		health_success(m->arena, &ref, &crowd_rule, &t, now_of(m->crowd));
	else
		health_failure(m->arena, &ref, &crowd_rule, &t, t.began_mono_ns);
}

/* ---- claims ---- */

static void
ask_claim(struct crowd_member *m)
{
	uint32_t key = (uint32_t)crowd_draw(&m->random, CROWD_KEYS);
	uint64_t mine = m->worker + 1, other;

	switch (claim_take(m->arena, crowd_key(key), m->worker)) {
	case CLAIM_OTHERS:
		atomic_fetch_add(&m->crowd->others, 1);
		return;
	case CLAIM_COLLISION:
		if (key >= CROWD_KEYS * 2 / 3)
			crowd_fail("a collision of a key that stands alone", key, -1);
		atomic_fetch_add(&m->crowd->collisions, 1);
		return;
	case CLAIM_TAKEN:
		break;
	}
	other = atomic_exchange(&m->crowd->holder[key], mine);
	if (other != 0)
		crowd_fail("two hold a claim: workers", (int64_t)other - 1, m->worker);
	atomic_fetch_add(&m->crowd->claims, 1);
	dawdle(m);
	if (!claim_held(m->arena, crowd_key(key)))
		crowd_fail("a claim that is had is held by nobody", key, m->worker);
	if (!atomic_compare_exchange_strong(&m->crowd->holder[key], &mine, 0))
		crowd_fail("a claim was taken away: worker", (int64_t)mine - 1, m->worker);
	claim_drop(m->arena, crowd_key(key), m->worker);
}

/* ---- places ---- */

static void
place_check(const struct arena *a, struct crowd *c, uint32_t session)
{
	uint32_t account;

	if (!places_get(a, crowd_session(session), INT64_MAX, now_of(c), &account)) {
		atomic_fetch_add(&c->unknown, 1);
		return;
	}
	if (account >> 8 != session)
		crowd_fail("a place of another session", account >> 8, session);
	atomic_fetch_add(&c->known, 1);
}

static void
ask_place(struct crowd_member *m)
{
	uint32_t session = (uint32_t)crowd_draw(&m->random, CROWD_SESSIONS);

	if (crowd_draw(&m->random, 2))
		places_put(m->arena, crowd_session(session), session << 8 | (uint32_t)crowd_draw(&m->random, 256), now_of(m->crowd));
	else
		place_check(m->arena, m->crowd, session);
}

/* ---- members ---- */

static char target_names[CROWD_TARGETS][HEALTH_NAME_BYTES];

void
crowd_join(struct crowd_member *m)
{
	for (uint32_t i = 0; i < CROWD_TARGETS; i++)
		m->target[i] = (struct health_ref){ crowd_target_id(i), target_names[i], HEALTH_NO_ROW };
}

__attribute__((constructor)) static void
name_targets(void)
{
	for (uint32_t i = 0; i < CROWD_TARGETS; i++)
		crowd_target_name(i, target_names[i]);
}

void
crowd_step(struct crowd_member *m)
{
	uint64_t what = crowd_draw(&m->random, 64);

	if (crowd_draw(&m->random, 256) == 0)
		atomic_fetch_add(&m->crowd->clock_ms, 1);
	if (what < 36)
		ask_target(m);
	else if (what < 40)
		ask_passing_target(m);
	else if (what < 52)
		ask_claim(m);
	else
		ask_place(m);
}

/* ---- looking ---- */

static void
row_check(const struct health_view *v)
{
	char name[HEALTH_NAME_BYTES];
	struct key128 id = crowd_target_id(v->id.lo);

	if (id.hi != v->id.hi || v->id.lo >= CROWD_TARGETS + CROWD_PASSING)
		crowd_fail("a row of nobody", (int64_t)v->id.lo, (int64_t)v->id.hi);
	if (strcmp(v->name, crowd_target_name(v->id.lo, name)) != 0)
		crowd_fail("a row with another one's name", (int64_t)v->id.lo, 0);
	if (v->over_in_ns > (v->state == HEALTH_PROBE_BUSY ? HEALTH_PROBE_NS : COOL_MAX_MS * NS_PER_MS) + NS_PER_MS || v->over_in_ns < 0)
		crowd_fail("how long a target is out", v->over_in_ns, COOL_MAX_MS * NS_PER_MS);
	if (v->state == HEALTH_UP && v->ejections != 0)
		crowd_fail("ejections of one that is up", v->ejections, 0);
}

void
crowd_watch(const struct arena *a, struct crowd *c)
{
	struct health_view v;

	/* The clock first: what was said later ends later still, and is not too long. */
	for (uint32_t i = 0; i < HEALTH_ROWS; i++) {
		int64_t now_ns = now_of(c);

		if (!health_at(a, i, now_ns, &v))
			continue;
		v.over_in_ns -= now_of(c) - now_ns;	/* said meanwhile, at a later time */
		if (v.over_in_ns < 0)
			v.over_in_ns = 0;
		row_check(&v);
		atomic_fetch_add(&c->rows_seen, 1);
	}
	for (uint32_t i = 0; i < CROWD_SESSIONS; i++)
		place_check(a, c, i);
}

/* ---- after a death, and at the end ---- */

void
crowd_bury(struct crowd *c, struct arena *a, uint32_t worker)
{
	struct health_view v;

	/* What was written down lies within what was had: it goes first. */
	for (uint32_t i = 0; i < CROWD_TARGETS; i++) {
		uint64_t seen = atomic_load(&c->prober[i]);

		if ((seen & 0xff) == worker + 1)
			atomic_compare_exchange_strong(&c->prober[i], &seen, 0);
	}
	for (uint32_t i = 0; i < CROWD_KEYS; i++)
		if (atomic_load(&c->holder[i]) == worker + 1)
			atomic_store(&c->holder[i], 0);
	health_reclaim(a, worker);
	claim_reclaim(a, worker);
	for (uint32_t i = 0; i < HEALTH_ROWS; i++)
		if (health_at(a, i, now_of(c), &v) && v.state == HEALTH_PROBE_BUSY && v.prober == worker)
			crowd_fail("a dead worker probes", worker, (int64_t)v.id.lo);
	if (word_get(&layout_health(a)->making) == worker + 1)
		crowd_fail("a dead worker makes rows", worker, 0);
	for (uint32_t i = 0; i < CLAIMS; i++)
		if ((word_get(&layout_claims(a)[i]) & 0xff) == worker + 1)
			crowd_fail("a dead worker has a claim", worker, i);
	if (health_reclaim(a, worker) + claim_reclaim(a, worker) != 0)
		crowd_fail("left by a reclaim", 1, 0);
}

/* Ejected, probed, up again: by its row, which there is once. */
static void
target_comes_back(struct arena *a, struct crowd *c, uint64_t number)
{
	char name[HEALTH_NAME_BYTES];
	struct health_ref ref = { crowd_target_id(number), crowd_target_name(number, name), HEALTH_NO_ROW };
	struct health_try t = { .worker = 0, .began_mono_ns = now_of(c) };

	/* All times of before are over by now. */
	enum health_state state = health_look(a, &ref, now_of(c));
	if (state != HEALTH_UP && state != HEALTH_PROBE_FREE)
		crowd_fail("a target that stays out", (int64_t)number, (int64_t)state);
	uint64_t unkept = health_counts(a).unkept;
	health_eject(a, &ref, &t, HEALTH_MONEY, COOL_MAX_MS * NS_PER_MS, now_of(c));
	if (health_counts(a).unkept > unkept)
		return;		/* there is no room for it */
	if (health_look(a, &ref, now_of(c)) != HEALTH_OUT)
		crowd_fail("an ejection that does nothing", (int64_t)number, 0);
	int64_t later = now_of(c) + COOL_MAX_MS * NS_PER_MS;
	if (!health_probe_take(a, &ref, &t, later))
		crowd_fail("a target that cannot be probed", (int64_t)number, 0);
	health_success(a, &ref, &crowd_rule, &t, later);
	if (health_look(a, &ref, later) != HEALTH_UP)
		crowd_fail("a target that does not come back", (int64_t)number, 0);
}

void
crowd_audit(struct arena *a, struct crowd *c)
{
	static uint8_t seen[CROWD_TARGETS + CROWD_PASSING];
	const struct shm_health *h = layout_health(a);

	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < HEALTH_ROWS; i++) {
		uint64_t number = word_get(&h->row[i].id_lo);

		if ((word_get(&h->row[i].circuit) & 7) > 1 && seen[number]++ > 0)
			crowd_fail("two rows for a target", (int64_t)number, i);
	}
	for (uint32_t i = 0; i < CROWD_TARGETS; i++)
		if (atomic_load(&c->prober[i]) != 0)
			crowd_fail("who probes, in the end", (int64_t)atomic_load(&c->prober[i]), i);
	for (uint32_t i = 0; i < CLAIMS; i++)
		if (word_get(&layout_claims(a)[i]) != 0)
			crowd_fail("a claim, in the end", (int64_t)word_get(&layout_claims(a)[i]), i);
	atomic_fetch_add(&c->clock_ms, PROBE_MS + COOL_MAX_MS + 1);
	for (uint64_t number = 0; number < CROWD_TARGETS + CROWD_PASSING; number++)
		target_comes_back(a, c, number);
	crowd_watch(a, c);
}
