/*
 * shm/meter.h -- what a charge does to one meter. Private to shm/.
 *
 * Amounts are *raw* here: what stands in the meter's words. For a bucket that
 * is ns of refill, for all others it is the meter's unit.
 */
#ifndef WEIR_SHM_METER_H
#define WEIR_SHM_METER_H

#include "shm/charge.h"
#include "shm/period.h"
#include "shm/table.h"

/* The time of a request, with the periods it falls into: computed before the
 * lock is taken. */
struct moment {
	int64_t mono_ns, wall_ns, day;
	const int64_t *period;	/* index, by enum meter_period; this thread's */
};

struct moment moment_of(struct now now);

/* A meter at a moment: its period may be a new one, its limit another one. */
struct standing {
	int64_t capacity;
	int64_t used;		/* spent, taken or held */
	int64_t held;		/* the part of it that may come back */
	int64_t spent, period_index;	/* budget */
};

static inline int64_t
moment_period(const struct moment *at, uint64_t what)
{
	uint64_t kind = WHAT_PERIOD(what);

	return kind < PERIOD_DAYS ? at->period[kind] : period_of_day(meter_what_period(what), at->day);
}

int64_t budget_carried(uint64_t was, int64_t index, uint64_t what);
	/* The limit's period was changed, to that of `what`: its index in which
	 * counts what was spent. INT64_MIN: none. */

/* `what` has the period that counts, which is the meter's own unless the limit
 * was changed; now_index is where that one is now. */
static inline void
budget_standing(struct standing *st, const struct shm_meter *m, uint64_t what, int64_t now_index)
{
	uint64_t was = word_get(&m->what);

	st->spent = (int64_t)word_get(&m->level);
	st->period_index = (int64_t)word_get(&m->period_index);
	if (((was ^ what) & WHAT_PERIOD_MASK) != 0)
		st->period_index = budget_carried(was, st->period_index, what);
	if (st->period_index < now_index) {
		st->period_index = now_index;
		st->spent = 0;
	}
}

/* The tick changes once a flush and not once a request. */
static inline void
meter_set_what(struct step *s, struct shm_meter *m, uint64_t what)
{
	journal_set_if_new(s, &m->what, s->tick << WHAT_TICK_SHIFT | (uint32_t)what);
}

static inline void
meter_add_held(struct step *s, struct shm_meter *m, int64_t cost)
{
	if (cost > 0)
		journal_set(s, &m->held, (uint64_t)add_capped((int64_t)word_get(&m->held), cost));
}

void meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units,
    const struct moment *at, struct ring_charge *booked);
	/* The hold goes, so many units are spent. Not for buckets of requests.
	 * Completes what was booked with what only the meter knows. */
void meter_cancel(struct step *s, struct shm_meter *m, const struct shm_hold *h, const struct moment *at,
    struct ring_charge *booked);
	/* The hold goes, buckets have their units again. `booked` may be NULL. */
int64_t meter_close(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units,
    const struct moment *at);
	/* The hold becomes so many units, raw: what is held of them from now on. A
	 * bucket of requests keeps what it took. */
void meter_keep(struct step *s, struct shm_meter *m, const struct shm_hold *h);
	/* The hold goes on in another page: a use of the meter, and nothing else. */
void meter_clear(struct step *s, struct shm_meter *m, const struct moment *at, struct ring_charge *booked);
	/* Nothing is spent any more; holds stay. */
bool meter_is_idle(const struct shm_meter *m, uint32_t before_tick, uint32_t idle_ticks, struct now now);
	/* Nobody needs what stands in it, once all charges of ticks before
	 * `before_tick` are stored; pages are another matter. */

/* A bucket's level on the wall clock, which the store keeps, and back. */
int64_t bucket_to_wall_ns(int64_t full_mono_ns, struct now now);
int64_t bucket_to_mono_ns(int64_t full_wall_ns, int64_t window_ns, struct now now);
	/* No more than a window from now, whatever the wall clock did. */

#endif
