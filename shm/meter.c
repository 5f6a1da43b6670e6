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
 * What an admission does with them is in admit.c.
 */
#include "shm/meter.h"

#include "shm/base/clock.h"
#include "shm/inflight.h"

static int64_t
signed_of(const _Atomic uint64_t *w)
{
	return (int64_t)word_get(w);
}

/* ---- time ---- */

/* The calendar is asked once a day: each period begins at some midnight. */
struct moment
moment_of(struct now now)
{
	static _Thread_local struct {
		int64_t begin_ns, day, period[PERIOD_MONTHLY + 1];
	} today = { .begin_ns = INT64_MIN / 2 };

	if (now.wall_ns < today.begin_ns || now.wall_ns - today.begin_ns >= NS_PER_DAY) {
		today.day = period_day(now.wall_ns);
		today.begin_ns = today.day * NS_PER_DAY;
		for (int p = PERIOD_TOTAL; p <= PERIOD_MONTHLY; p++)
			today.period[p] = period_of_day((struct period){ .kind = (enum meter_period)p }, today.day);
	}
	return (struct moment){ now.mono_ns, now.wall_ns, today.day, today.period };
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

int64_t
budget_carried(uint64_t was, int64_t index, uint64_t what)
{
	struct period from = meter_what_period(was), to = meter_what_period(what);
	int64_t around = period_around(to, from, index);

	return period_contains(to, around, from, index) ? around : INT64_MIN;
}

/* ---- giving back ---- */

static void
drop_held(struct step *s, struct shm_meter *m, int64_t cost)
{
	CHECK(signed_of(&m->held) >= cost);
	if (cost > 0)
		journal_set(s, &m->held, (uint64_t)(signed_of(&m->held) - cost));
}

/* The meter's own period at that moment, written if it is another. */
static void
roll_over(struct step *s, struct shm_meter *m, const struct moment *at)
{
	uint64_t what = word_get(&m->what);
	int64_t now_index = moment_period(at, what);

	if (signed_of(&m->period_index) < now_index) {
		journal_set(s, &m->period_index, (uint64_t)now_index);
		journal_set_if_new(s, &m->level, 0);
	}
}

/* Says what a step did to the meter. */
static void
book(struct step *s, const struct shm_meter *m, const struct moment *at, struct ring_charge *booked)
{
	/* The mode is the charge's own: another request may have another one. */
	uint64_t what = word_get(&m->what) & ~WHAT_MODE_MASK;

	booked->what = (uint32_t)what | (booked->what & WHAT_MODE_MASK);
	booked->step = s->sequence;
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

/* A bucket took `hold` at admission: it is as if so many units had been taken.
 * What those cost. */
static inline int64_t
correct_bucket(struct step *s, struct shm_meter *m, int64_t hold, int64_t units, const struct moment *at)
{
	int64_t cost = bucket_cost(units, signed_of(&m->limit), signed_of(&m->window_ns));
	int64_t full_at = signed_of(&m->level);

	if (cost > hold)
		full_at = add_capped(larger(full_at, at->mono_ns), cost - hold);
	else
		full_at -= hold - cost;
	journal_set_if_new(s, &m->level, (uint64_t)full_at);
	return cost;
}

void
meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units,
    const struct moment *at, struct ring_charge *booked)
{
	int64_t hold = signed_of(&h->amount);

	check_id(m, h);
	switch ((enum meter_kind)WHAT_KIND(hold_what(h))) {
	case METER_BUCKET:
		meter_set_what(s, m, word_get(&m->what));
		correct_bucket(s, m, hold, units, at);
		break;
	case METER_BUDGET:
		meter_set_what(s, m, word_get(&m->what));
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
	bool bucket = WHAT_KIND(what) == METER_BUCKET;

	check_id(m, h);
	if (bucket)
		journal_set_if_new(s, &m->level, (uint64_t)(signed_of(&m->level) - hold));
	if (!bucket || WHAT_UNIT(what) != UNIT_REQUESTS)
		drop_held(s, m, hold);
	if (booked)
		book(s, m, at, booked);
}

int64_t
meter_close(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units, const struct moment *at)
{
	int64_t hold = signed_of(&h->amount), amount = units;

	meter_keep(s, m, h);
	if (hold_is_request_bucket(h))
		return hold;
	if (WHAT_KIND(hold_what(h)) == METER_BUCKET)
		amount = correct_bucket(s, m, hold, units, at);
	int64_t others = signed_of(&m->held) - hold;
	CHECK(others >= 0);
	if (amount > INT64_MAX - others)
		amount = INT64_MAX - others;
	journal_set_if_new(s, &m->held, (uint64_t)(others + amount));
	return amount;
}

void
meter_keep(struct step *s, struct shm_meter *m, const struct shm_hold *h)
{
	check_id(m, h);
	meter_set_what(s, m, word_get(&m->what));
}

void
meter_clear(struct step *s, struct shm_meter *m, const struct moment *at, struct ring_charge *booked)
{
	uint64_t what = word_get(&m->what);

	*booked = (struct ring_charge){
		.id = { word_get(&m->id_hi), word_get(&m->id_lo) },
		.what = what & WHAT_MODE_MASK,
	};
	meter_set_what(s, m, what);
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
	switch ((enum meter_kind)WHAT_KIND(what)) {
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
