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

#include "shm/base/buf.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"

struct cJSON;

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

/* Collects every mistake of a document: "path: message" lines. */
struct problems {
	struct buf text;	/* lines; buf_init() with a maximum before use */
	uint32_t count;
};
void problem_add(struct problems *p, const char *path, const char *fmt, ...) PRINTF_LIKE(3, 4);

struct config *config_parse(const struct cJSON *json, const char *path, struct problems *p);
	/* `path` is the JSON path of this object in its document, "configs[2].config"
	 * or "" for an inline one. NULL if a problem was added. */
struct config *config_parse_text(struct slice json, struct problems *p);
	/* An inline x-portkey-config. */
void config_free(struct config *c);

bool config_split_model(struct slice model, struct slice *provider_slug, struct slice *bare);
	/* "@slug/a/b" -> slug, a/b. false: no "@slug/" prefix (@cf/ and @hf/
	 * are model names); then bare = model. */

#endif
