/*
 * shm/meter.c -- buckets, budgets, counts of requests in flight.
 *
 * A bucket's level is the time at which it will be full again (charge.c); what
 * requests in flight hold is part of it, and `held` says how much of it that
 * is, where it may come back. A budget is what was spent in a period, and what
 * is held by requests in flight, whatever period they began in.
 *
 * The period changes when somebody looks at the clock and finds it changed. A
 * clock that steps back changes nothing: the later period stays, or else money
 * could be spent twice. Buckets know the monotonic clock only.
 *
 * The tick of the last use is written when it changed, once a flush and not
 * once a request (evict.c).
 */
#include "shm/meter.h"

#include "shm/period.h"

static int64_t
signed_of(const _Atomic uint64_t *w)
{
	return (int64_t)word_get(w);
}

static uint64_t
hold_what(const struct shm_hold *h)
{
	return atomic_load_explicit(&h->what, memory_order_relaxed);
}

/* ---- time ---- */

/* The calendar is asked once a day: each period begins at some midnight. */
struct moment
moment_of(struct now now)
{
	static _Thread_local struct moment today = { .day = INT64_MIN };
	int64_t day = period_day(now.wall_ns);

	if (today.day != day)
		for (int p = PERIOD_TOTAL; p <= PERIOD_MONTHLY; p++)
			today.period[p] = period_of_day((struct period){ .kind = (enum meter_period)p }, day);
	today.day = day;
	today.mono_ns = now.mono_ns;
	today.wall_ns = now.wall_ns;
	return today;
}

int64_t
moment_period(const struct moment *at, struct period p)
{
	return p.kind == PERIOD_DAYS ? period_of_day(p, at->day) : at->period[p.kind];
}

static struct now
now_of(const struct moment *at)
{
	return (struct now){ at->mono_ns, at->wall_ns };
}

int64_t
bucket_to_wall_ns(int64_t full_mono_ns, struct now now)
{
	return add_capped(now.wall_ns, full_mono_ns - now.mono_ns);
}

int64_t
bucket_to_mono_ns(int64_t full_wall_ns, int64_t window_ns, struct now now)
{
	int64_t ahead = full_wall_ns > now.wall_ns ? full_wall_ns - now.wall_ns : 0;

	return now.mono_ns + (ahead < window_ns ? ahead : window_ns);
}

/* ---- a budget's period ---- */

/* The limit's period was changed: the index, of the new one, of what was spent. */
static int64_t
carry_over(struct period from, int64_t index, struct period to)
{
	int64_t around = period_around(to, from, index);

	return period_contains(to, around, from, index) ? around : INT64_MIN;
}

/* `what` has the period that counts, which is the meter's own unless the limit
 * was changed; now_index is where that one is now. */
static void
budget_standing(struct standing *st, const struct shm_meter *m, uint64_t what, int64_t now_index)
{
	uint64_t was = word_get(&m->what);

	st->spent = signed_of(&m->level);
	st->period_index = signed_of(&m->period_index);
	if (((was ^ what) & WHAT_PERIOD_MASK) != 0)
		st->period_index = carry_over(meter_what_period(was), st->period_index, meter_what_period(what));
	if (st->period_index < now_index) {
		st->period_index = now_index;
		st->spent = 0;
	}
}

struct standing
meter_standing(const struct shm_meter *m, const struct charge *c, uint64_t what, int64_t period_index,
    const struct moment *at)
{
	struct standing st = { .capacity = larger(c->limit, 0), .held = signed_of(&m->held) };

	/* One id is one meter; policy/limit.c puts kind and unit into the id. */
	CHECK(((word_get(&m->what) ^ what) & WHAT_TYPE_MASK) == 0);
	switch (c->kind) {
	case METER_BUCKET:
		st.capacity = c->window_ns;
		st.used = larger(signed_of(&m->level) - at->mono_ns, 0);
		break;
	case METER_BUDGET:
		budget_standing(&st, m, what, period_index);
		st.used = add_capped(st.spent, st.held);
		break;
	case METER_CONCURRENCY:
		st.used = st.held;
		break;
	case METER_GROUP:
		check_failed("a group is not charged", __FILE__, __LINE__);
	}
	return st;
}

/* ---- taking and giving back ---- */

static void
set_what(struct step *s, struct shm_meter *m, uint64_t what)
{
	uint64_t tick = word_get(&s->a->header->ledger.tick);

	journal_set_if_new(s, &m->what, tick << WHAT_TICK_SHIFT | (uint32_t)what);
}

static void
add_held(struct step *s, struct shm_meter *m, int64_t cost)
{
	if (cost > 0)
		journal_set(s, &m->held, (uint64_t)add_capped(signed_of(&m->held), cost));
}

static void
drop_held(struct step *s, struct shm_meter *m, int64_t cost)
{
	CHECK(signed_of(&m->held) >= cost);
	if (cost > 0)
		journal_set(s, &m->held, (uint64_t)(signed_of(&m->held) - cost));
}

void
meter_take(struct step *s, struct shm_meter *m, const struct charge *c, uint64_t what,
    const struct standing *st, int64_t cost, const struct moment *at)
{
	int64_t second = c->kind == METER_BUDGET ? c->alert : c->window_ns;

	set_what(s, m, what);
	journal_set_if_new(s, &m->limit, (uint64_t)c->limit);
	journal_set_if_new(s, &m->window_ns, (uint64_t)second);
	if (c->kind == METER_BUCKET) {
		int64_t full_at = larger(signed_of(&m->level), at->mono_ns);

		journal_set_if_new(s, &m->level, (uint64_t)add_capped(full_at, cost));
		if (c->unit == UNIT_REQUESTS)
			return;
	} else if (c->kind == METER_BUDGET) {
		journal_set_if_new(s, &m->period_index, (uint64_t)st->period_index);
		journal_set_if_new(s, &m->level, (uint64_t)st->spent);
	}
	add_held(s, m, cost);
}

/* The meter's own period at that moment, written if it is another. */
static void
roll_over(struct step *s, struct shm_meter *m, const struct moment *at)
{
	uint64_t what = word_get(&m->what);
	struct standing st = { 0 };

	budget_standing(&st, m, what, moment_period(at, meter_what_period(what)));
	journal_set_if_new(s, &m->period_index, (uint64_t)st.period_index);
	journal_set_if_new(s, &m->level, (uint64_t)st.spent);
}

/* Says what a step did to the meter. */
static void
book(struct step *s, const struct shm_meter *m, const struct moment *at, struct ring_charge *booked)
{
	/* The mode is the charge's own: another request may have another one. */
	uint64_t what = word_get(&m->what) & ~WHAT_MODE_MASK;

	booked->what = (uint32_t)what | (booked->what & WHAT_MODE_MASK);
	booked->step = word_get(&s->a->header->ledger.sequence);
	if (WHAT_KIND(what) == METER_BUDGET)
		booked->period_index = signed_of(&m->period_index);
	else if (WHAT_KIND(what) == METER_BUCKET)
		booked->full_wall_ns = bucket_to_wall_ns(signed_of(&m->level), now_of(at));
}

static void
check_id(const struct shm_meter *m, const struct shm_hold *h)
{
	CHECK(row_has_id(m, (struct meter_id){ word_get(&h->id_hi), word_get(&h->id_lo) }));
}

void
meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units,
    const struct moment *at, struct ring_charge *booked)
{
	int64_t hold = signed_of(&h->amount);

	check_id(m, h);
	switch (meter_what_kind(hold_what(h))) {
	case METER_BUCKET:
		set_what(s, m, word_get(&m->what));
		/* What was taken at admission, and what should have been. */
		int64_t cost = bucket_cost(units, signed_of(&m->limit), signed_of(&m->window_ns));
		int64_t full_at = signed_of(&m->level);
		if (cost > hold)
			full_at = add_capped(larger(full_at, at->mono_ns), cost - hold);
		else
			full_at -= hold - cost;
		journal_set_if_new(s, &m->level, (uint64_t)full_at);
		break;
	case METER_BUDGET:
		set_what(s, m, word_get(&m->what));
		roll_over(s, m, at);
		journal_set_if_new(s, &m->level, (uint64_t)add_capped(signed_of(&m->level), units));
		break;
	case METER_CONCURRENCY:
	case METER_GROUP:
		break;
	}
	drop_held(s, m, hold);
	book(s, m, at, booked);
}

void
meter_cancel(struct step *s, struct shm_meter *m, const struct shm_hold *h, const struct moment *at,
    struct ring_charge *booked)
{
	uint64_t what = hold_what(h);
	int64_t hold = signed_of(&h->amount);
	bool bucket = meter_what_kind(what) == METER_BUCKET;

	check_id(m, h);
	if (bucket)
		journal_set_if_new(s, &m->level, (uint64_t)(signed_of(&m->level) - hold));
	if (!bucket || meter_what_unit(what) != UNIT_REQUESTS)
		drop_held(s, m, hold);
	if (booked)
		book(s, m, at, booked);
}

void
meter_clear(struct step *s, struct shm_meter *m, const struct moment *at, struct ring_charge *booked)
{
	uint64_t what = word_get(&m->what);

	booked->id = (struct meter_id){ word_get(&m->id_hi), word_get(&m->id_lo) };
	booked->what = what & WHAT_MODE_MASK;
	set_what(s, m, what);
	if (WHAT_KIND(what) == METER_BUDGET) {
		roll_over(s, m, at);
		booked->amount = -signed_of(&m->level);
		journal_set_if_new(s, &m->level, 0);
	} else if (WHAT_KIND(what) == METER_BUCKET) {
		int64_t full_at = add_capped(at->mono_ns, signed_of(&m->held));
		if (full_at < signed_of(&m->level))
			journal_set(s, &m->level, (uint64_t)full_at);
	}
	book(s, m, at, booked);
}

bool
meter_is_idle(const struct shm_meter *m, uint32_t before_tick, uint32_t idle_ticks, struct now now)
{
	uint64_t what = word_get(&m->what);
	int32_t idle = (int32_t)(before_tick - (uint32_t)(what >> WHAT_TICK_SHIFT));

	if (idle <= 0 || (uint32_t)idle < idle_ticks || word_get(&m->held) != 0)
		return false;
	switch (meter_what_kind(what)) {
	case METER_BUCKET:
		return signed_of(&m->level) <= now.mono_ns;
	case METER_GROUP:
		return word_get(&m->level) == 0;
	case METER_BUDGET:
	case METER_CONCURRENCY:
		break;
	}
	return true;
}
