/*
 * gateway/limits.h -- the limits that one request touches, as charges.
 *
 * They come from the key, its workspace, the provider's account, the account's
 * limits for models, and the policies that match, in this order: the first one
 * without room is the one that a refusal names.
 *
 * Where a meter was last time is a hint that saves a look-up. It is kept beside
 * the limit itself: in the compiled key, in the settings (which are otherwise
 * never written after they were compiled; each process has its own), and in the
 * memo of a policy's groups.
 */
#ifndef WEIR_GATEWAY_LIMITS_H
#define WEIR_GATEWAY_LIMITS_H

#include "gateway/limit_memo.h"
#include "gateway/settings.h"
#include "policy/key.h"
#include "policy/price.h"

enum limit_source { LIMIT_OF_KEY, LIMIT_OF_WORKSPACE, LIMIT_OF_PROVIDER, LIMIT_OF_MODEL, LIMIT_OF_POLICY };

struct limit_set {
	uint32_t count;
	struct charge charge[CHARGES_MAX];
	struct limit_origin {
		const struct limit *limit;	/* for its label */
		uint32_t *row;			/* where the hint is kept */
		enum limit_source source;
	} origin[CHARGES_MAX];			/* of the charge with the same index */
};

/* Whose limits. The pointers must outlive the set. */
struct limit_sources {
	const struct key *key;
	const struct settings *settings;
	const struct setting_provider *provider;
	struct slice model;			/* that goes upstream */
	const struct limit_subject *subject;	/* looked at if there are policies */
	struct limit_memo *memo;
	bool free;		/* the provider bills nothing: only requests and requests in flight are limited */
	bool own_only;		/* no provider is asked: limits of the key and its workspace */
};

bool limits_collect(const struct limit_sources *from, const struct price_bound *bound, struct limit_set *out) MUST_CHECK;
	/* false: more than CHARGES_MAX apply. The set points into
	 * its sources; of the memo, until the next set is collected. */
void limits_remember(const struct limit_set *set);
	/* The hints, after ledger_admit() or ledger_load(). */
const struct limit *limits_of_cost(const struct limit_set *set);
	/* The first budget of money; NULL: none. */
void limits_prefetch(const struct arena *a, const struct key *key);

#endif
