/*
 * gateway/limit_memo.h -- what a worker remembers about groups of policies.
 *
 * (policy, group value) -> the meter's id, its name, and the row where it was
 * last. Bounded; the one that was not used for longest goes first (recent.h).
 */
#ifndef WEIR_GATEWAY_LIMIT_MEMO_H
#define WEIR_GATEWAY_LIMIT_MEMO_H

#include "policy/limit_policy.h"

struct limit_memo;
struct limit_memo_entry {
	struct charge charge;		/* template of that group; `row` is updated by the caller */
	char name[METER_NAME_BYTES];
};

struct limit_memo *limit_memo_new(uint32_t entries_max);
	/* At least CHARGES_MAX. NULL: out of memory. */
void limit_memo_free(struct limit_memo *m);
struct limit_memo_entry *limit_memo_get(struct limit_memo *m, uint64_t settings_version,
    const struct limit_policy *lp, struct slice group);
	/* Made if it is new. Valid until entries_max others were asked for: those
	 * of one request stay together. */

#endif
