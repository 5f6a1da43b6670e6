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

#include "policy/limit.h"
#include "policy/metadata.h"
#include "shm/base/slice.h"
#include "shm/ledger.h"

#define KEY_MODELS_MAX 64

struct key {
	uint64_t serial;		/* of this compilation: no other in this process has it */
	uint32_t refs;			/* of who shares it; 1 after key_compile() */
	struct slice id, slug, workspace;	/* with a NUL behind them */
	char *config;			/* slug or NULL */
	bool allow_config_override;
	bool enabled;
	int64_t expires_wall_ns;	/* 0: never. Of the key, or of the presented hash */
	struct metadata metadata;	/* its own defaults */
	char *user;			/* whose key it is, or NULL */
	struct limits limits;		/* in the same allocation */
	struct slice allowed_models[KEY_MODELS_MAX];	/* globs with "*"; none: all */
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
#endif
