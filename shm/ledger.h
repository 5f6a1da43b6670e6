/*
 * shm/ledger.h -- limits that hold: admit, settle, cancel, reclaim.
 *
 * A *meter* is a token bucket or a budget, found by a 128-bit id. A request
 * names the *charges* it wants (which meter, what limit, how much); admission
 * takes all of them or none, and writes them as *holds* into the request's
 * page in the arena (struct inflight), which only its worker writes. When the
 * request ends, settling turns holds into spend and appends the request's
 * record to the worker's ring, in one step.
 *
 * One step means: under the ledger's lock (a process-shared robust mutex),
 * every word that changes is first noted with its old value in an undo journal
 * in the arena; the step is over when the journal is emptied by one store. A
 * process that dies in the middle leaves a journal that the next locker rolls
 * back. So at every instant, for each budget,
 *
 *	spent + held <= limit    (unless a settled cost exceeded its hold)
 *	held = sum of the holds in the pages of requests in flight
 *
 * Token buckets are kept as GCRA: one word, the time at which the bucket will
 * be full again. Capacity = limit, refill = limit per window.
 *
 * Money is int64 nano-dollars. Time is passed in, so that tests own it.
 */
#ifndef WEIR_SHM_LEDGER_H
#define WEIR_SHM_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/base/slice.h"

struct meter_id {
	uint64_t hi, lo;	/* never both 0 */
};

enum meter_kind { METER_BUCKET = 1, METER_BUDGET = 2 };

enum meter_period {
	PERIOD_TOTAL = 0,	/* never resets */
	PERIOD_DAILY,		/* 00:00 UTC */
	PERIOD_WEEKLY,		/* Monday 00:00 UTC */
	PERIOD_MONTHLY,		/* the 1st, 00:00 UTC */
};

struct now {
	int64_t mono_ns;	/* buckets */
	int64_t wall_ns;	/* periods */
};

struct charge {
	struct meter_id id;
	enum meter_kind kind;
	enum meter_period period;	/* budgets */
	uint32_t row;		/* where the meter was last time; a hint, updated */
	int64_t limit;		/* bucket: units a window; budget: nano-dollars */
	int64_t window_ns;	/* bucket */
	int64_t amount;		/* units, or nano-dollars to hold */
};

enum ledger_verdict {
	LEDGER_ADMITTED,
	LEDGER_REFUSED,		/* see struct refusal */
	LEDGER_BUSY,		/* no free in-flight page: the worker is full */
	LEDGER_FULL,		/* meter table full: raise the setting `meters` */
};

struct refusal {
	uint32_t charge;	/* index of the first charge without room */
	int64_t limit, spent, held;	/* of that meter, in its unit, by others */
	int64_t wait_ns;	/* until there will be room if nobody else comes:
				 * for a budget, until it resets; -1: never */
};

/* What a request in flight has used so far; meaning is the caller's. */
struct metered {
	int64_t tokens[8];	/* by class, policy/usage.h */
	int64_t cost_nusd;
};

enum inflight_state {
	INFLIGHT_FREE = 0,
	INFLIGHT_ADMITTED,	/* charged, nothing has left for a provider */
	INFLIGHT_SENT,		/* a provider may bill it */
	INFLIGHT_DONE,		/* record complete, waits for room in the ring */
};

struct inflight;	/* a page in the arena: shm/layout.h */

enum ledger_verdict ledger_admit(struct arena *a, uint32_t worker, struct charge *charges,
    uint32_t n, struct now now, struct inflight **out, struct refusal *why) MUST_CHECK;
	/*
	 * n may be 0: the request is governed by no limit and still has a page.
	 * Fills `row` of each charge. On anything but ADMITTED nothing changed.
	 * Charges on the same meter add up; its cost is booked once.
	 *
	 * A limit of 0 admits nothing. A budget admits an amount that fits into
	 * what is neither spent nor held; an amount of 0 needs at least one
	 * nano-dollar of that, so that a used-up budget refuses it too.
	 *
	 * why->wait_ns covers all charges of the refused one's kind. For buckets
	 * it is exact: who waits that long is admitted if nobody else came. For
	 * a budget it ends when the period does, though requests in flight may
	 * make room earlier by costing less than they hold; it is -1 where the
	 * amount exceeds the limit or the period never ends.
	 */

char *inflight_record(struct inflight *e);
	/* RECORD_BYTES_MAX bytes for a version of the record; what is in them is
	 * not the previous version. The owner writes a draft before
	 * inflight_sent(), and the complete record before ledger_settle(). */
void inflight_record_set(struct inflight *e, uint32_t bytes);
	/* The version that was written there is the record from now on. A death
	 * before this leaves the previous one whole. */
void inflight_sent(struct inflight *e);
	/* ADMITTED -> SENT, before the first byte leaves. */
void inflight_metered(struct inflight *e, const struct metered *m);
	/* What would be settled if the owner died now. Two copies and an index:
	 * a reader after a crash sees the old or the new one, never half. */
struct metered inflight_metered_get(const struct inflight *e);

enum settle_verdict { SETTLED, SETTLE_RING_FULL };

enum settle_verdict ledger_settle(struct arena *a, uint32_t worker, struct inflight *e,
    int64_t cost_nusd, struct now now) MUST_CHECK;
	/*
	 * Budgets: the hold goes, cost_nusd is spent (in the period of now).
	 * Buckets keep what they took. The record goes to the worker's ring
	 * with the budget charges that were made, and the page is free.
	 * RING_FULL: nothing changed but the state, DONE; call again later with
	 * the same cost (intake should pause meanwhile).
	 */
enum settle_verdict ledger_cancel(struct arena *a, uint32_t worker, struct inflight *e,
    bool with_record, struct now now) MUST_CHECK;
	/* The holds go and nothing is spent; buckets get their units back too.
	 * With a record of what happened, or without. RING_FULL as above. */

typedef void ledger_orphan_fn(char *record, uint32_t *bytes, const struct metered *m,
    enum inflight_state state, void *arg);
	/* Completes the record of a request whose process died, in state ADMITTED
	 * or SENT. *bytes is 0 if it died before its draft. Pure: it may be called
	 * again for the same request after another death. */
uint32_t ledger_reclaim(struct arena *a, uint32_t worker, ledger_orphan_fn *finish, void *arg,
    struct now now);
	/*
	 * Master, after a worker's death and before its row is used again (and
	 * at an attach, for all rows): ADMITTED pages are cancelled with a
	 * record, SENT ones settled at what had been metered, DONE ones settled.
	 * Idempotent. Returns how many are left because the ring was full:
	 * call again once the keeper has made room.
	 */

/* Looking, without a lock: a consistent view of one meter each. */
struct meter_view {
	struct meter_id id;
	enum meter_kind kind;
	enum meter_period period;
	int64_t limit;		/* as of its last use */
	int64_t window_ns;
	int64_t spent, held;	/* budget, in the period of `now` */
	int64_t tokens;		/* bucket: units left, rounded down */
	int64_t period_index;	/* budget: which day, week or month */
	int64_t reset_wall_ns;	/* budget: 0 if never */
};
bool ledger_meter(struct arena *a, struct meter_id id, struct now now, struct meter_view *out);
	/* false: no such meter (it was never used). Also false if no moment
	 * between two steps was found and the arena is attached read-only, as
	 * when all processes are dead and one of them died in a step. */
uint32_t ledger_meter_rows(const struct arena *a);
uint32_t ledger_meters_used(const struct arena *a);
	/* How many of them are taken. */
bool ledger_meter_at(struct arena *a, uint32_t row, struct now now, struct meter_view *out);

int ledger_load(struct arena *a, struct meter_id id, enum meter_period period,
    int64_t period_index, int64_t spent) MUST_CHECK;
	/* At the start from the store, before any worker runs. -1: table full. */
uint32_t ledger_inflight_count(const struct arena *a, uint32_t worker);
int64_t ledger_inflight_held(const struct arena *a);
	/* Sum of all budget holds in pages of all workers: 0 when idle. */

int64_t period_index(enum meter_period p, int64_t wall_ns);
	/* Days since 1970, weeks since Monday 1970-01-05, months since 1970-01;
	 * 0 for PERIOD_TOTAL. */
int64_t period_end_ns(enum meter_period p, int64_t wall_ns);
	/* When the period of wall_ns ends; 0 for PERIOD_TOTAL. */

#endif
