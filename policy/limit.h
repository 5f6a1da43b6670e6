/*
 * policy/limit.h -- limits as people write them, compiled into charges.
 *
 * The same two lists stand in a key's document, at a workspace, at a provider
 * and (one of them) in a policy; their form is Portkey's:
 *
 *	"rate_limits": [{"type":"requests|tokens|concurrency", "unit":"rpm|rph|rpd|rpw",
 *			 "value":N, "mode":"clamp|strict|postpaid", "id":"..."}]
 *	"usage_limits": [{"type":"cost|tokens|requests", "credit_limit":12.5, "alert_threshold":10,
 *			  "periodic_reset":"daily|weekly|monthly"|null, "periodic_reset_days":1..365,
 *			  "next_usage_reset_at":"2026-12-01T00:00:00Z", "mode":..., "id":"..."}]
 *
 * A cost is in US dollars, exact to the nano-dollar (read as text). `unit` does
 * not go with concurrency, `mode` only with what has tokens or money. One object
 * instead of a list is fine, as in Portkey. A value of 0 admits nothing.
 *
 * A limit's meter is named by its owner, its type and its unit, and, if the
 * owner has several of that kind, by its place among them, or by its "id": so a
 * changed value or period keeps the meter, and what was spent.
 */
#ifndef WEIR_POLICY_LIMIT_H
#define WEIR_POLICY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/problem.h"
#include "shm/ledger.h"

#define LIMITS_MAX 8			/* of one owner */
#define LIMIT_LABEL_BYTES 64
#define LIMIT_VALUE_MAX INT64_C(1000000000000)		/* requests or tokens */
#define LIMIT_NUSD_MAX INT64_C(1000000000000000000)	/* a billion dollars */

struct limit {
	struct charge charge;	/* template: fixed and slope are the request's; charge.name points to `name` */
	char label[LIMIT_LABEL_BYTES];	/* "key rpm", "workspace monthly budget": records, refusals */
	char name[METER_NAME_BYTES];	/* "key eng/ci rpm", "key eng/ci cost": of the meter, for `weir limits` */
};

struct limit_owner {
	const char *kind;	/* "key", "workspace", "provider", "model", "policy" */
	struct slice id;	/* never changes: names the meters */
	struct slice shown;	/* "eng/ci": for people */
};

struct limits {
	struct limit *limit;
	uint32_t count;
};

bool limits_parse(struct slice rate_limits, struct slice usage_limits, const struct limit_owner *owner,
    const char *path, struct limit out[LIMITS_MAX], uint32_t *count, struct problems *p) MUST_CHECK;
	/* Raw JSON, each may be none or null. `path`: of the object that has the
	 * two members, for messages ("workspaces[0]"; "" for a document). */
void limits_copy(struct limit *to, const struct limit *from, uint32_t count);
	/* A limit points into itself: it cannot be moved by memcpy() alone. */
struct meter_id meter_id_of(const char *kind, struct slice id, const char *what);
	/* First 128 bits of SHA-256("kind\0id\0what"). */
void limit_charge_fill(struct charge *c, int64_t requests, int64_t input_tokens, int64_t input_nusd,
    int64_t output_slope_nusd_milli);
	/* fixed and slope of a charge from its template's unit and kind: what a
	 * request with that prompt takes, by output token. */
const char *limit_period_name(enum meter_period period);
	/* "total", "daily", "weekly", "monthly", "days" */
bool limit_charge_is_cost(const struct charge *c);

/* One limit alone, for those whose object has other members too: a policy's. */
enum limit_form { LIMIT_RATE, LIMIT_USAGE };
#define LIMIT_WHAT_BYTES 24	/* "requests:rpm" */
bool limit_parse_within(struct slice object, enum limit_form form, const struct limit_owner *owner,
    const char *path, struct limit *out, char what[LIMIT_WHAT_BYTES], struct problems *p) MUST_CHECK;
	/* Members that no limit has, and "id", are the caller's. `what`: type and
	 * unit, as in the meter's id. */
bool limit_member_known(struct slice raw_name);
void limit_members_guess(struct problem_guess *g);
void limit_name_write(char out[METER_NAME_BYTES], const char *kind, struct slice shown, const char *what);
	/* "kind shown what", printable; of a `shown` that is too long, the end is left out. */

#endif
