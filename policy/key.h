/*
 * policy/key.h -- a caller's key: from its secret to what it may do.
 *
 * Compiled from the catalog's document (store/catalog.h) when a worker meets
 * it first, and kept in the worker's cache for as long as the catalog's
 * generation stands.
 */
#ifndef WEIR_POLICY_KEY_H
#define WEIR_POLICY_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/metadata.h"
#include "shm/base/slice.h"
#include "shm/ledger.h"

#define KEY_LIMITS_MAX 8
#define KEY_MODELS_MAX 64

struct key_limit {
	struct charge charge;	/* template: amount is filled in by the request */
	char name[48];		/* "key rpm", "key monthly budget": records, refusals */
};

struct key {
	uint64_t serial;		/* of this compilation: no other in this process has it */
	uint32_t refs;			/* of who shares it; 1 after key_compile() */
	char *id, *slug, *workspace;
	char *config;			/* slug or NULL */
	bool allow_config_override;
	bool enabled;
	int64_t expires_wall_ns;	/* 0: never. Of the key, or of the presented hash */
	struct metadata metadata;	/* its own defaults */
	struct key_limit limits[KEY_LIMITS_MAX];
	uint32_t limits_count;
	bool has_cost_budget;
	char *allowed_models[KEY_MODELS_MAX];	/* globs with "*"; none: all */
	uint32_t allowed_models_count;
};	/* the strings follow it in the same allocation */

struct key *key_compile(struct slice json, const uint8_t hash[32], char *why, size_t why_size);
	/* `hash`: which of its secrets was presented (its own expiry applies);
	 * NULL: none. NULL: a document that this version does not understand,
	 * wholly: a member that it does not know may be a limit. */
void key_free(struct key *k);
bool key_model_allowed(const struct key *k, struct slice model);

void key_secret_hash(struct slice secret, uint8_t hash[32]);
	/* SHA-256. The secret has 256 random bits: no salt or stretching needed. */
struct meter_id meter_id_of(const char *kind, struct slice id, const char *what);
	/* First 128 bits of SHA-256("kind\0id\0what"): "key", its id, "rpm". */
struct meter_id key_budget_id(struct slice key_id, enum meter_period period);
	/* Of a key's cost budget: meter_id_of("key", id, "cost:monthly"). */
const char *key_period_name(enum meter_period period);
	/* "total", "daily", "weekly", "monthly" */
bool key_period_of(struct slice name, enum meter_period *period);

#define KEY_RATE_MAX 1000000000			/* requests a window */
#define KEY_BUDGET_NUSD_MAX INT64_C(1000000000000000000)	/* a billion dollars */

#endif
