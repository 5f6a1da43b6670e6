/*
 * shm/meter.h -- the table of meters, and what a charge does to one.
 *
 * Private to shm/. All functions but meter_prefetch() belong inside a step.
 */
#ifndef WEIR_SHM_METER_H
#define WEIR_SHM_METER_H

#include "shm/journal.h"

#define WAIT_NEVER (-1)

/* The time of a request, with the periods it falls into: computed before the
 * lock is taken. */
struct moment {
	int64_t mono_ns, wall_ns;
	int64_t period[PERIOD_MONTHLY + 1];	/* index, by enum meter_period */
};

struct moment moment_of(struct now now);

void meter_prefetch(const struct arena *a, const struct charge *c);
	/* So that the lines of a request's meters arrive together. */
struct shm_meter *meter_obtain(struct step *s, struct charge *c);
	/* The charge's meter, made if it is new; its row becomes the hint. NULL:
	 * the table is full. */

int64_t meter_take(struct step *s, struct shm_meter *m, const struct charge *c, struct shm_hold *h,
    const struct moment *at);
	/*
	 * Takes the charge from the meter and adds it to the hold, which has
	 * what earlier charges of the same request took from it. 0: there was
	 * room. Otherwise how long until there is (ns, or WAIT_NEVER); then the
	 * step has to be undone.
	 */
void meter_settle(struct step *s, struct shm_meter *m, const struct shm_hold *h, int64_t cost_nusd,
    const struct moment *at, struct ring_charge *booked);
	/* Budget: the hold goes, the cost is spent. Says what was booked. */
void meter_give_back(struct step *s, struct shm_meter *m, const struct shm_hold *h);
void meter_refusal(const struct shm_meter *m, const struct charge *c, const struct shm_hold *h,
    const struct moment *at, struct refusal *out);
	/* limit, spent and held of a meter without this request's own part,
	 * which is the hold. After meter_take(). */

#endif
