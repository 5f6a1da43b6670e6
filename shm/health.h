/*
 * shm/health.h -- is a target worth asking? One answer for all workers.
 *
 * A *target* is whatever a request can be sent to and fail at: an account of a
 * provider, a leaf of a config. It is found by a 128-bit id. One that never failed
 * has no row in the table and is up; its first failure makes its row, a circuit
 * breaker:
 *
 *	UP		requests go to it. Failures in a row, their share of the
 *			requests in a window, or an answer that says so, eject it
 *	OUT		nothing is sent until its time is over
 *	PROBE_FREE	its time is over: one request may try it
 *	PROBE_BUSY	that one is under way. It succeeds: UP; it fails: OUT, for
 *			twice as long as the last time
 *
 * One word of the row says all of this and is changed by compare-and-swap, so over
 * all processes one at a time has the probe. A probe ends when its request reports
 * or drops it, when its worker has died (health_reclaim()), when the target is
 * ejected meanwhile, or after HEALTH_PROBE_NS. No row is out for ever: an ejection
 * is bounded, and behind it somebody may probe.
 *
 * Counts are kept beside that word without care: reports at the same moment may
 * lose one, and what a worker says of a row that is just being given to another
 * target may be counted there (it had not been used for a day).
 *
 * Time is monotonic nanoseconds and passed in, so that tests own it. The table
 * keeps milliseconds.
 */
#ifndef WEIR_SHM_HEALTH_H
#define WEIR_SHM_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/key128.h"

#define HEALTH_ROWS 4096	/* targets that failed within a day; 768 KiB. A power of two */
#define HEALTH_NAME_BYTES 128	/* what a target is called, with its NUL; longer names are cut */
#define HEALTH_NO_ROW UINT32_MAX

/* A probe that is silent for so long is given to another request. Shorter than the
 * time-out of a first byte (ten minutes): a target that hangs would else keep
 * everybody away for as long; longer than a target that works takes. Who reports
 * later is still believed, if the target was not ejected again meanwhile. */
#define HEALTH_PROBE_NS INT64_C(60000000000)
#define HEALTH_OUT_NS_MAX INT64_C(86400000000000)	/* a day: whatever a provider says, it is asked again then */
#define HEALTH_IDLE_NS INT64_C(86400000000000)		/* a row without reports for so long may be given to another target */
#define HEALTH_UNASKED_NS INT64_C(3600000000000)	/* a target without reports for so long is shown to nobody */

enum health_state { HEALTH_UP, HEALTH_OUT, HEALTH_PROBE_FREE, HEALTH_PROBE_BUSY };

/* Why a target is out: the latest reason. */
enum health_why {
	HEALTH_FAILURES,	/* in a row; or its probe failed */
	HEALTH_RATE,		/* their share of the requests */
	HEALTH_BUSY,		/* it told us to wait */
	HEALTH_MONEY,		/* the account cannot pay, or may not spend more */
	HEALTH_CREDENTIAL,	/* the account's credential was refused */
	HEALTH_WHYS,
};

/* When reported failures eject. From a config: given with each report, and the same
 * for all reports of a target (with another window its counts begin anew). */
struct health_rule {
	uint32_t failures;		/* in a row; 0: not by these */
	uint32_t share_permille;	/* of the window's requests; 0: not by these, and no window is kept */
	uint32_t requests_min;		/* in the window: of fewer, the share says nothing */
	int64_t window_ns;		/* kept as two halves: counts reach back between a half and a whole one */
	int64_t cooldown_ns;		/* of the first ejection; it doubles with each one until a success */
	int64_t cooldown_max_ns;	/* but not beyond this */
};

struct health_ref {
	struct key128 id;
	const char *name;	/* for people; UTF-8; copied when the row is made */
	uint32_t row;		/* where it was last time, at first HEALTH_NO_ROW; a hint, updated */
};

/* One try of a request at a target. */
struct health_try {
	uint32_t worker;
	int64_t began_mono_ns;	/* a failure of a try that began before the target came up again says nothing */
	uint64_t probe;		/* out of health_probe_take(); 0: it is no probe */
};

enum health_state health_look(const struct arena *a, struct health_ref *ref, int64_t now_mono_ns);
	/* Changes nothing but the hint. */
bool health_probe_take(struct arena *a, struct health_ref *ref, struct health_try *t, int64_t now_mono_ns) MUST_CHECK;
	/* When a look said PROBE_FREE. true: this try is the probe, and has to end by
	 * one of the four calls below. false: somebody was faster, or things changed;
	 * look again. */
void health_success(struct arena *a, struct health_ref *ref, const struct health_rule *rule,
    const struct health_try *t, int64_t now_mono_ns);
	/* A target without a row stays without one. A probe's closes the circuit; any
	 * other one's says nothing about a target that is out. */
void health_failure(struct arena *a, struct health_ref *ref, const struct health_rule *rule,
    const struct health_try *t, int64_t now_mono_ns);
	/* A probe's ejects again; any other one's is counted if the target is up. */
void health_eject(struct arena *a, struct health_ref *ref, const struct health_try *t, enum health_why why,
    int64_t for_ns, int64_t now_mono_ns);
	/* At once, for so long (a millisecond at the least, HEALTH_OUT_NS_MAX at the
	 * most). Never shortens: a target that is out for longer already stays so, with
	 * its reason. Ends a probe, whoever has it. */
void health_probe_drop(struct arena *a, struct health_ref *ref, const struct health_try *t);
	/* It came to nothing, which is not the target's fault (the client left): the
	 * next one may probe. Nothing happens if `t` is no probe, or not any more. */
uint32_t health_reclaim(struct arena *a, uint32_t worker);
	/* Master, after a worker's death and before its row is used again (and at an
	 * attach, for all rows): its probes are free again. Idempotent. How many these
	 * were. */

/* ---- looking ---- */

struct health_view {
	struct key128 id;
	enum health_state state;
	enum health_why why;		/* not UP */
	int64_t since_mono_ns;		/* it is out, over all ejections in a row; UP: up again, 0: never was out */
	int64_t over_in_ns;		/* OUT: its time; PROBE_BUSY: the probe's; else 0 */
	int64_t used_mono_ns;		/* last report, to the minute */
	uint32_t ejections;		/* in a row; 15 means that or more */
	uint32_t prober;		/* PROBE_BUSY: which worker */
	uint32_t failures_in_a_row;
	uint32_t window_failures, window_requests;	/* as of the last report */
	char name[HEALTH_NAME_BYTES];
};
bool health_at(const struct arena *a, uint32_t row, int64_t now_mono_ns, struct health_view *out);
	/* For each row below HEALTH_ROWS. false: it has no target; or one that nobody
	 * reports about any more (HEALTH_UNASKED_NS) and whose time is over, such as one
	 * that the settings do not name any more. */

struct health_counts {		/* since the arena was made */
	uint64_t ejected[HEALTH_WHYS];	/* failed probes too */
	uint64_t unkept;		/* reports for which no row was free: their targets count as healthy */
};
struct health_counts health_counts(const struct arena *a);
const char *health_why_name(enum health_why why);
	/* "failures", "rate", "busy", "money", "credential" */

#endif
