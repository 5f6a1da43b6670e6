/*
 * shm/ledger.h -- limits that hold: admit, move, settle, cancel, reclaim.
 *
 * A *meter* is a token bucket, a budget or a count of requests in flight, found
 * by a 128-bit id. A request names the *charges* it wants (which meter, what
 * limit, how much); admission takes all of them or none, and writes them as
 * *holds* into the request's page in the arena (struct inflight), which only
 * its worker writes. When the request ends, settling turns holds into what was
 * really used and appends the request's record to the worker's ring, in one
 * step. If it goes on at another target meanwhile, to which other limits apply,
 * its holds are changed in one step too.
 *
 * One step means: under the ledger's lock (a process-shared robust mutex),
 * every word that changes is first noted with its old value in an undo journal
 * in the arena; the step is over when the journal is emptied by one store. A
 * process that dies in the middle leaves a journal that the next locker rolls
 * back. So at every instant, for each budget that is not postpaid,
 *
 *	spent + held <= limit    (unless a settled cost exceeded its hold)
 *	held = sum of the holds in the pages of requests in flight
 *
 * Token buckets are kept as GCRA: one word, the time at which the bucket will
 * be full again. Capacity = limit, refill = limit per window.
 *
 * The amount of a charge may depend on one quantity that the ledger may lower
 * (for us: the output tokens that the request may use), see struct demand.
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

enum meter_kind {
	METER_BUCKET = 1,
	METER_BUDGET,
	METER_CONCURRENCY,	/* requests in flight */
	METER_GROUP,		/* how many meters of a group there are; see struct charge_group */
};

enum meter_unit { UNIT_REQUESTS = 0, UNIT_TOKENS, UNIT_NUSD };

enum meter_period {
	PERIOD_TOTAL = 0,	/* never resets */
	PERIOD_DAILY,		/* 00:00 UTC */
	PERIOD_WEEKLY,		/* Monday 00:00 UTC */
	PERIOD_MONTHLY,		/* the 1st, 00:00 UTC */
	PERIOD_DAYS,		/* every `days` days, 00:00 UTC; one begins at day `anchor` (mod days) */
};

/* When a budget, or a bucket of tokens, refuses. */
enum charge_mode {
	MODE_CLAMP = 0,		/* the demand is lowered to a share of what is left; refused if its floor does not fit */
	MODE_STRICT,		/* refused if the demand does not fit */
	MODE_POSTPAID,		/* nothing is held; refused once all is spent; may overshoot */
};

struct now {
	int64_t mono_ns;	/* buckets */
	int64_t wall_ns;	/* periods */
};

/* A quantity that several charges depend on and that may be lowered. */
struct demand {
	int64_t most;		/* what the request asks for */
	int64_t floor;		/* MODE_CLAMP lowers no further than this (nor above most) */
	uint32_t share;		/* MODE_CLAMP: at most 1/share of what is left; >= 1 */
	int64_t granted;	/* out: what was admitted; `most` where nothing is lowered */
	uint32_t lowered_by;	/* out: index of the charge that lowered it; n: none */
};

/* Meters that come into being by what clients send (a policy's group_by): how
 * many there may be. One more goes to the overflow meter that all of them share. */
struct charge_group {
	struct meter_id id;	/* of the METER_GROUP meter that counts them */
	struct meter_id overflow;
	int64_t most;
	const char *name, *overflow_name;
};

struct charge {
	struct meter_id id;
	enum meter_kind kind;
	enum meter_unit unit;
	enum meter_period period;	/* budgets */
	enum charge_mode mode;
	uint16_t days, anchor;	/* PERIOD_DAYS: 1..365, and 0..days-1 */
	uint32_t row;		/* where the meter was last time; a hint, updated */
	int64_t limit;		/* in its unit: bucket: a window; budget: a period; concurrency: at a time */
	int64_t window_ns;	/* bucket */
	int64_t alert;		/* budget: a level to warn at; 0: none */
	int64_t fixed;		/* amount = fixed + slope_milli * demand / 1000, rounded up */
	int64_t slope_milli;	/* thousandths of the unit for one of the demand; >= 0 */
	const char *name;	/* for people; copied when the meter is made */
	const struct charge_group *group;	/* NULL: none */
	bool overflowed;	/* out of ledger_load(): the group is full, id is now the overflow meter's */
	int64_t taken;		/* out: amount that is held, in its unit */
	int64_t after;		/* out, raw: for charge_left() and charge_reset_ns() */
};

enum ledger_verdict {
	LEDGER_ADMITTED,
	LEDGER_REFUSED,		/* see struct refusal */
	LEDGER_UNKNOWN,		/* refusal.charge names a meter that is not in memory: ledger_load() it, and again */
	LEDGER_BUSY,		/* no free in-flight page: the worker is full */
	LEDGER_CROWDED,		/* ledger_move(): the meters of before that must be paid and the new ones are too many */
};

struct refusal {
	uint32_t charge;	/* index of the first charge without room */
	int64_t limit, spent, held;	/* of that meter, in its unit, by others */
	int64_t need;		/* the least amount that had to fit, in its unit */
	int64_t wait_ns;	/* until there will be room if nobody else comes:
				 * for a budget, until it resets; -1: never */
	bool may_fit;		/* all would fit if no holds of others were in flight */
};

/* What a request in flight has used so far, over all targets. */
struct metered {
	int64_t tokens[8];	/* by class; meaning is the caller's */
	int64_t total_tokens;	/* what meters of tokens are to be charged */
	int64_t cost_nusd;
};

/* What a request has used in the end, over all targets. */
struct settled {
	int64_t cost_nusd;	/* >= 0 */
	int64_t tokens;		/* >= 0; input, cache reads and writes, output */
};

enum inflight_state {
	INFLIGHT_FREE = 0,
	INFLIGHT_ADMITTED,	/* charged, nothing has left for a provider */
	INFLIGHT_SENT,		/* a provider may bill it */
	INFLIGHT_DONE,		/* record complete, waits for room in the ring */
};

struct inflight;	/* a page in the arena: shm/layout.h */

void ledger_prefetch(const struct arena *a, const struct charge *charges, uint32_t n);
	/* So that the lines of the meters are near by the time of ledger_admit().
	 * Only a hint; cheap. */
enum ledger_verdict ledger_admit(struct arena *a, uint32_t worker, struct charge *charges,
    uint32_t n, struct demand *d, struct now now, struct inflight **out, struct refusal *why) MUST_CHECK;
	/*
	 * n may be 0: the request is governed by no limit and still has a page.
	 * `d` may be NULL if no charge has a slope. Fills the out fields of each
	 * charge. On anything but ADMITTED nothing changed (but hints).
	 * Charges on the same meter add up; its cost is booked once.
	 *
	 * A limit of 0 admits nothing. A budget admits an amount that fits into
	 * what is neither spent nor held. An amount of 0 needs at least one unit
	 * of what is left, so that a used-up meter refuses it too.
	 *
	 * Clamping: of every MODE_CLAMP charge with a slope, the amount at the
	 * floor has to fit into what is left. The amount is then at most left /
	 * share, or the amount at the floor if that is more. The demand that all
	 * such charges allow is granted, and is what STRICT ones are asked for too.
	 *
	 * A period that differs from the meter's last one (the limit was changed)
	 * re-windows it: a period that contains the old one keeps what was spent,
	 * any other begins anew, so that nobody is refused by spend of another window.
	 *
	 * why->wait_ns covers all charges of the refused one's kind. For buckets
	 * of requests it is exact: who waits that long is admitted if nobody else
	 * came. For a budget it ends when the period does, though requests in
	 * flight may make room earlier; it is -1 where the amount exceeds the
	 * limit or the period never ends. For concurrency it is 0: nobody knows.
	 */
int64_t charge_left(const struct charge *c, struct now now);
	/* Of an admitted charge: units that were left behind it. */
int64_t charge_reset_ns(const struct charge *c, struct now now);
	/* Nanoseconds until the bucket is full again, or the budget's period (that
	 * of now) ends; 0: never, or is now. */

/* ---- meters that are not in memory ---- */

uint64_t ledger_evictions(const struct arena *a);
	/* To be read before the store is asked for a level. */
struct level {		/* as stored */
	bool known;		/* false: the store has never seen it */
	uint64_t what;		/* ring_charge.what of the last booking */
	int64_t period_index, spent;	/* budget */
	int64_t full_wall_ns;	/* bucket */
};
enum load_result { LOAD_DONE, LOAD_STALE, LOAD_FULL };
enum load_result ledger_load(struct arena *a, uint32_t worker, struct charge *c, const struct level *l,
    uint64_t evictions, struct now now) MUST_CHECK;
	/*
	 * Makes the charge's meter with the level that the store has. DONE: it is
	 * there (somebody else may have been faster: then nothing changed). STALE:
	 * meters were evicted since `evictions` was read; ask the store again.
	 * FULL: no row is free (setting ledger.meters). With a group that is full,
	 * the charge's id becomes the overflow meter's, which is made if it is not
	 * there; `overflowed` says so, and the store has to be asked for that one
	 * (STALE is answered then, once).
	 */
uint64_t ledger_tick(struct arena *a);
	/* Keeper, before it looks at the rings. Afterwards, what was charged at an
	 * earlier tick is in the rings. The new tick. */
uint32_t ledger_evict(struct arena *a, uint64_t durable_tick, uint64_t idle_ticks, uint32_t most, struct now now);
	/*
	 * Keeper, after it committed all that was in the rings at `durable_tick`:
	 * takes out up to `most` meters that were not used for idle_ticks, that no
	 * request in flight holds, and whose state the store has (buckets: that are
	 * full). Goes on where the last call stopped. In steps of a few meters each.
	 */
enum reset_result { RESET_DONE, RESET_UNKNOWN, RESET_RING_FULL };
enum reset_result ledger_reset(struct arena *a, struct meter_id id, const char *record, uint32_t record_bytes,
    struct now now) MUST_CHECK;
	/* Nothing is spent of the meter any more (holds stay), a bucket is full. The
	 * record says who did it and goes to the ring of the tools
	 * (ledger_tools_row()), in the same step. One tool at a time: the caller
	 * holds a lock file. */
uint32_t ledger_tools_row(const struct arena *a);
	/* The row behind the workers': its ring is for tools. */

/* ---- a request in flight ---- */

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
	/* What would be settled if the owner died now: no less than ledger_move()
	 * was told. Two copies and an index: a reader after a crash sees the old or
	 * the new one, never half. */
struct metered inflight_metered_get(const struct inflight *e);
enum ledger_verdict ledger_move(struct arena *a, uint32_t worker, struct inflight **page, const struct metered *used,
    struct charge *charges, uint32_t n, struct demand *d, struct now now, struct refusal *why) MUST_CHECK;
	/*
	 * The request, ADMITTED or SENT, goes on at another target: `charges` are
	 * all that apply to it from now on, those that applied before included.
	 * `used` is what it has used until now, over all targets: nothing if it is
	 * ADMITTED, and never less than at the move before.
	 *
	 * On ADMITTED, *page is another page, in the old one's state, with its
	 * record, and with `used` as metered; the old one is free. It needs a free
	 * page for that (BUSY). On anything else nothing changed (but hints).
	 *
	 * A meter that was charged and is charged again: the old hold is gone
	 * before the new charge asks, for what a refusal says too. Requests are
	 * counted once. Of tokens and money the charge asks for its amount, at each
	 * demand, and what the request has used of this meter already; `taken` has
	 * both. Of several charges on one meter the first does. A bucket is then
	 * as if the new amount had been taken in the first place, not now.
	 *
	 * One that was not charged before is asked as by ledger_admit(), and pays
	 * in the end what is used from now on.
	 *
	 * One that is not charged any more: its hold goes, and a bucket has its
	 * units again, if nothing has left (ADMITTED), if nothing was used of it,
	 * and for requests in flight. Else it is closed: what was used while it was
	 * charged is held until the end and then booked, whatever the total; a
	 * bucket or budget of requests keeps what it took. If it is charged once
	 * more it goes on from there.
	 *
	 * The meters that are charged and those that stay closed may be CHARGES_MAX
	 * together, or CROWDED. Closed buckets of requests do not count: the page
	 * forgets them if there is no room, and then the record does not name them.
	 */

enum settle_verdict { SETTLED, SETTLE_RING_FULL };

enum settle_verdict ledger_settle(struct arena *a, uint32_t worker, struct inflight *e,
    const struct settled *used, struct now now) MUST_CHECK;
	/*
	 * Budgets: the hold goes, what was used is spent (in the period of now).
	 * Buckets of requests keep what they took; buckets of tokens give back, or
	 * take, the difference. The record goes to the worker's ring with all
	 * charges, and the page is free. After moves each meter pays for what was
	 * used while it was charged.
	 * RING_FULL: nothing changed but the state, DONE; call again later with
	 * the same numbers (intake should pause meanwhile).
	 */
enum settle_verdict ledger_cancel(struct arena *a, uint32_t worker, struct inflight *e,
    bool with_record, struct now now) MUST_CHECK;
	/* The holds go and nothing is spent; buckets get their units back too.
	 * With a record of what happened, or without. RING_FULL as above. Not for
	 * a request that a move has closed meters of: it was sent. */

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

/* ---- looking, without a lock: a consistent view of one meter each ---- */

struct meter_view {
	struct meter_id id;
	enum meter_kind kind;
	enum meter_unit unit;
	enum meter_period period;
	enum charge_mode mode;	/* as of its last use, as is limit */
	uint16_t days, anchor;
	int64_t limit;
	int64_t window_ns;
	int64_t alert;
	int64_t spent, held;	/* budget, in the period of `now`; concurrency: held; group: spent = meters */
	int64_t tokens;		/* bucket: units left, rounded down */
	int64_t full_in_ns;	/* bucket: until it is full; 0: it is */
	int64_t period_index;	/* budget: which day, week or month */
	int64_t reset_wall_ns;	/* budget: 0 if never */
	char name[METER_NAME_BYTES];
};
bool ledger_meter(struct arena *a, struct meter_id id, struct now now, struct meter_view *out);
	/* false: no such meter (it was never used, or was evicted). Also false if no
	 * moment between two steps was found and the arena is attached read-only, as
	 * when all processes are dead and one of them died in a step. */
uint32_t ledger_meter_rows(const struct arena *a);
	/* Rows that were ever given out: an upper bound for ledger_meter_at(). */
uint32_t ledger_meters_used(const struct arena *a);
	/* How many of them are taken. */
bool ledger_meter_at(struct arena *a, uint32_t row, struct now now, struct meter_view *out);

uint32_t ledger_inflight_count(const struct arena *a, uint32_t worker);
int64_t ledger_inflight_held(const struct arena *a);
	/* Sum of all holds on cost budgets in pages of all workers, nano-dollars: 0 when idle. */

/* ---- periods ---- */

struct period {
	enum meter_period kind;
	uint16_t days, anchor;	/* PERIOD_DAYS */
};
int64_t period_index(struct period p, int64_t wall_ns);
	/* Days since 1970, weeks since Monday 1970-01-05, months since 1970-01,
	 * spans of `days` since day `anchor`; 0 for PERIOD_TOTAL. */
int64_t period_end_ns(struct period p, int64_t wall_ns);
	/* When the period of wall_ns ends; 0 for PERIOD_TOTAL. */
bool period_contains(struct period outer, int64_t outer_index, struct period inner, int64_t inner_index);
	/* Each day of the inner one is a day of the outer one: what was spent in
	 * the inner one counts in the outer one, if a limit's period was changed. */

/* ring_charge.what, level.what: a charge's kind, unit, period, days, anchor and mode in one word. */
uint64_t meter_what(const struct charge *c);
enum meter_kind meter_what_kind(uint64_t what);
enum meter_unit meter_what_unit(uint64_t what);
struct period meter_what_period(uint64_t what);

#endif
