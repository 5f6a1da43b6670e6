/*
 * shm/meter.h -- what a charge does to one meter. Private to shm/.
 *
 * Amounts are *raw* here: what stands in the meter's words. For a bucket that
 * is ns of refill, for all others it is the meter's unit.
 */
#ifndef WEIR_SHM_METER_H
#define WEIR_SHM_METER_H

#include "shm/charge.h"
#include "shm/table.h"

/* The time of a request, with the periods it falls into: computed before the
 * lock is taken. */
struct moment {
	int64_t mono_ns, wall_ns, day;
	int64_t period[PERIOD_MONTHLY + 1];	/* index, by enum meter_period */
};

struct moment moment_of(struct now now);
int64_t moment_period(const struct moment *at, struct period p);

/* A meter at a moment: its period may be a new one, its limit another one. */
struct standing {
	int64_t capacity;
	int64_t used;		/* spent, taken or held */
	int64_t held;		/* the part of it that may come back */
	int64_t spent, period_index;	/* budget */
};

struct standing meter_standing(const struct shm_meter *m, const struct charge *c, uint64_t what,
    int64_t period_index, const struct moment *at);
	/* `what` and `period_index`: of the charge, at that moment. Writes nothing. */
void meter_take(struct step *s, struct shm_meter *m, const struct charge *c, uint64_t what,
    const struct standing *st, int64_t cost, const struct moment *at);
	/* `cost` is raw. */
void meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t units,
    const struct moment *at, struct ring_charge *booked);
	/* The hold goes, so many units are spent. Not for buckets of requests.
	 * Completes what was booked with what only the meter knows. */
void meter_cancel(struct step *s, struct shm_meter *m, const struct shm_hold *h, const struct moment *at,
    struct ring_charge *booked);
	/* The hold goes, buckets have their units again. `booked` may be NULL. */
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
