/*
 * tests/unit/reference_ledger.h -- a ledger that is too simple to be wrong.
 *
 * One thread, a plain list of meters, 128 bits, calendar dates from libc. It
 * looks at all charges first and takes afterwards, and it never forgets: what
 * the store would know of a meter is kept beside it. Written from the contract
 * in shm/ledger.h, not from the code; it shares no arithmetic with shm/.
 */
#ifndef WEIR_TESTS_UNIT_REFERENCE_LEDGER_H
#define WEIR_TESTS_UNIT_REFERENCE_LEDGER_H

#include "shm/ledger.h"
#include "shm/ring.h"

__extension__ typedef __int128 big;

#define REFERENCE_METERS_MAX 64
#define REFERENCE_NONE UINT32_MAX

struct reference_level {	/* of a meter, in the store */
	bool known;
	struct period period;
	int64_t index;
	big spent;
	int64_t full_wall_ns;
	uint64_t step;
};

struct reference_meter {
	bool here;		/* in memory */
	struct meter_id id;
	enum meter_kind kind;
	enum meter_unit unit;
	enum charge_mode mode;
	struct period period;
	int64_t limit, window_ns, alert;
	big full_at;		/* bucket */
	big spent;		/* budget; of a group: how many meters it has */
	big held;		/* ns for a bucket of tokens, else units */
	int64_t index;
	uint64_t used_at;	/* tick */
	uint32_t group;		/* the meter that counts this one, or NONE */
	const char *name;
	bool unbooked;		/* its period is another one than the store knows, until it is booked */
	bool apart;		/* and then was re-windowed: the store may count more */
	struct reference_level stored;
};

struct reference {
	struct reference_meter meter[REFERENCE_METERS_MAX];
	uint32_t meters;	/* in the list, in memory or not */
	uint64_t tick;
};

/* What a request has of a meter. */
struct reference_part {
	uint32_t meter;
	big taken;		/* raw: ns for a bucket; 0 if postpaid */
	int64_t units;
	enum charge_mode mode;
	big after;		/* bucket: its level behind the admission */
	bool closed;		/* it is not charged now */
	big paid, since;	/* used of it before it was closed last; of all, when it was charged last */
};

struct reference_request {
	uint32_t parts;
	struct reference_part part[CHARGES_MAX];
};

struct reference_answer {
	enum ledger_verdict verdict;
	struct refusal why;
	int64_t granted;
	uint32_t lowered_by;
	int64_t taken[CHARGES_MAX];
	int64_t left[CHARGES_MAX];	/* of the last charge on each meter */
	struct reference_request request;
};

/* What a meter says of itself. */
struct reference_view {
	int64_t spent, held, tokens, full_in_ns, period_index, reset_wall_ns;
};

int64_t reference_index(struct period p, int64_t wall_ns);
int64_t reference_end_ns(struct period p, int64_t index);
	/* Of the period with this index; not for PERIOD_TOTAL. */

uint32_t reference_find(const struct reference *r, struct meter_id id);
	/* Where it is in the list, or NONE. */
struct reference_answer reference_admit(struct reference *r, const struct charge *c, uint32_t n,
    const struct demand *d, struct now now);
	/* All meters are in the list. UNKNOWN if one is not in memory. */
struct reference_answer reference_move(struct reference *r, const struct reference_request *q, bool sent,
    struct settled used, const struct charge *c, uint32_t n, const struct demand *d, struct now now);
	/* The request goes on with these charges, having used so much. On anything
	 * but ADMITTED nothing changed. */
void reference_settle(struct reference *r, const struct reference_request *q, struct settled used,
    struct now now, struct ring_charge *booked);
	/* booked: as many as it has parts, without `step`. */
void reference_cancel(struct reference *r, const struct reference_request *q, struct now now,
    struct ring_charge *booked);
void reference_reset(struct reference *r, uint32_t meter, struct now now, struct ring_charge *booked);
void reference_store(struct reference *r, const struct ring_charge *booked);
	/* What the store makes of a booking; in the order of their steps. */
struct level reference_level(const struct reference_meter *m);
	/* As the store tells it. */
void reference_load(struct reference *r, uint32_t meter, const struct charge *c, struct now now);
	/* It comes into memory with the level that the store has. */
bool reference_idle(const struct reference *r, uint32_t meter, uint64_t durable_tick, uint64_t idle_ticks,
    struct now now);
	/* It may be evicted, if no request has it. */
struct reference_view reference_look(const struct reference_meter *m, struct now now);

#endif
