/*
 * tests/race/crowd.h -- workers that use the tables of shm/ which have no lock:
 * health, claims, places.
 *
 * Each says, in memory outside the arena, what it believes to have alone: after it
 * has taken a probe or a claim it writes itself down, and before it gives it back it
 * strikes itself out. So what is written down lies within what is had, and whoever
 * finds another one there has found two at a time.
 *
 * A probe may be given to a second one while the first is under way: when its time
 * has passed, or of another ejection, when the first one's report counts no more. So
 * two of one ejection, less than that time apart, are one too many.
 *
 * Time is a counter that all share and that moves a millisecond now and then.
 */
#ifndef WEIR_TESTS_RACE_CROWD_H
#define WEIR_TESTS_RACE_CROWD_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/claims.h"
#include "shm/health.h"
#include "shm/places.h"

#define CROWD_TARGETS 8
#define CROWD_PASSING 6000	/* targets that fail now and then: more than there are rows */
#define CROWD_KEYS 48		/* of claims; two of them share a place, two, and so on; the last third stand alone */
#define CROWD_SESSIONS 64	/* in CROWD_SETS sets */
#define CROWD_SETS 4

struct crowd {			/* shared by all, outside the arena */
	_Atomic int64_t clock_ms;
	_Atomic uint64_t prober[CROWD_TARGETS];	/* since when, ms << 17 | ejection << 8 | worker + 1; 0: nobody */
	_Atomic uint64_t holder[CROWD_KEYS];	/* worker + 1; 0: nobody */
	_Atomic uint64_t probes, late_probes, drops, closed, claims, others, collisions, known, unknown, rows_seen;
	_Atomic int stop;
};

struct crowd_member {
	struct arena *arena;
	struct crowd *crowd;
	uint32_t worker;
	uint64_t random;			/* not 0 */
	struct health_ref target[CROWD_TARGETS];	/* crowd_join() */
};

extern const struct health_rule crowd_rule;

uint64_t crowd_draw(uint64_t *random, uint64_t below);
_Noreturn void crowd_fail(const char *what, int64_t one, int64_t other);

void crowd_join(struct crowd_member *m);
void crowd_step(struct crowd_member *m);
	/* One thing of one kind. Ends the program with a message if two have what one may have. */
void crowd_watch(const struct arena *a, struct crowd *c);
	/* What must hold of every row and every place at any instant. */
void crowd_bury(struct crowd *c, struct arena *a, uint32_t worker);
	/* What the master does after a death; and nothing of the dead one is left. */
void crowd_audit(struct arena *a, struct crowd *c);
	/* While nobody works and the dead are buried: nothing is held, no target has two
	 * rows, and each one comes back. */
struct key128 crowd_target_id(uint64_t number);
const char *crowd_target_name(uint64_t number, char out[HEALTH_NAME_BYTES]);
struct key128 crowd_key(uint32_t number);
struct key128 crowd_session(uint32_t number);

#endif
