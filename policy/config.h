/*
 * policy/config.h -- the routing config object (Portkey's schema), compiled.
 *
 * Parsed once from JSON into an immutable struct; walking it allocates
 * nothing. Every field of the schema is known here: what this version does not
 * do yet is refused by name ("strategy.mode \"fallback\" is not yet
 * supported"), what the schema does not know is refused as unknown. Nothing is
 * ignored. camelCase spellings are accepted.
 */
#ifndef WEIR_POLICY_CONFIG_H
#define WEIR_POLICY_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/problem.h"
#include "shm/base/slice.h"

#define CONFIG_BYTES_MAX 262144		/* of an inline config; a header's bound is lower still */
#define CONFIG_LEVELS_MAX 16		/* targets in targets */
#define CONFIG_PARAMS_MAX 24		/* overrides: with our own edits they fit SPLICES_MAX */
#define CONFIG_SLUG_BYTES_MAX 64

struct config_param {		/* one override */
	char *name;		/* top-level body member */
	char *raw;		/* its JSON text, as written by the operator */
};

struct config {
	char *slug;		/* NULL: inline */
	char *provider;		/* provider slug without "@"; NULL: resolved elsewhere */
	char *model;		/* from override_params.model, "@slug/" removed; NULL: the client's */
	struct config_param *override_params;	/* without "model" */
	uint32_t override_params_count;
	int64_t request_timeout_ms;	/* to the first response header; 0: the setting's default */
};

struct config *config_parse(struct slice json, const char *path, struct problems *p);
	/* `json` is a valid JSON text (json_check() has passed), `path` the JSON
	 * path of this object in its document, "configs[2].config" or "" for an
	 * inline one. NULL if a problem was added. (Text and not a cJSON tree:
	 * a tree would round the operator's numbers.) */
struct config *config_parse_text(struct slice json, struct problems *p);
	/* An inline x-portkey-config: not yet checked bytes. */
void config_free(struct config *c);

bool config_split_model(struct slice model, struct slice *provider_slug, struct slice *bare);
	/* "@slug/a/b" -> slug, a/b. false: no "@slug/" prefix (@cf/ and @hf/
	 * are model names); then bare = model. */
bool config_slug_valid(struct slice slug);
	/* 1 to CONFIG_SLUG_BYTES_MAX of A-Z a-z 0-9 . _ - : slugs of configs,
	 * providers, and what stands behind an "@". */

#endif
