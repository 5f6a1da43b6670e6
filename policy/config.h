/*
 * policy/config.h -- the routing config object (Portkey's schema), compiled.
 *
 * A config is a tree. Its inner nodes say how one of their children is chosen
 * (route.h walks them), its leaves are *targets*: where a request may go, and
 * all that holds for it there. What a level passes on to the levels below
 * (params, retry, cache, time-out, host, headers, breaker) has been passed on
 * here: a target is complete, nobody looks up from it.
 *
 * Parsed once from JSON into an immutable struct; walking it allocates
 * nothing. Every field of the schema is known here: what this version does not
 * do is refused by name ("not yet supported"), what the schema does not know is
 * refused as unknown. Nothing is ignored. camelCase spellings are accepted.
 */
#ifndef WEIR_POLICY_CONFIG_H
#define WEIR_POLICY_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/host.h"
#include "policy/problem.h"
#include "shm/base/scratch.h"
#include "shm/base/slice.h"

struct condition;
struct params_path;
struct session_fields;

#define CONFIG_BYTES_MAX 262144		/* a header's bound is lower still */
#define CONFIG_LEVELS_MAX 16		/* targets in targets */
#define CONFIG_NODES_MAX 2048		/* of all levels: the next bounds multiply to more */
#define CONFIG_TARGETS_MAX 100		/* Portkey's bounds: of the first level, ... */
#define CONFIG_TARGETS_CONDITIONAL_MAX 1000	/* ... if it is conditional, ... */
#define CONFIG_TARGETS_NESTED_MAX 50	/* ... and of a deeper one */
#define CONFIG_CONDITIONS_MAX 1000	/* of a node: as many as it may have targets */
#define CONFIG_PARAMS_MAX 24		/* overrides of a target, and as many defaults: they fit into an edited body */
#define CONFIG_DROPS_MAX 32
#define CONFIG_HEADERS_MAX 32		/* that are forwarded */
#define CONFIG_HASH_FIELDS_MAX 8
#define CONFIG_RETRIES_MAX 5
#define CONFIG_SLUG_BYTES_MAX 64
#define CONFIG_VERSION_DIGITS 8

#define CONFIG_CACHE_AGE_S 604800	/* a week, if nothing (valid) is said ... */
#define CONFIG_CACHE_AGE_MIN_S 60
#define CONFIG_CACHE_AGE_MAX_S 7776000	/* ... from a minute to 90 days */
#define CONFIG_TIMEOUT_MS_MAX 86400000	/* a day: more is a slip of the unit */
#define CONFIG_COOLDOWN_MIN_MS 30000	/* of a breaker: a shorter one is raised to it */

#define CONFIG_NOWHERE UINT32_MAX	/* no node */

enum config_mode { CONFIG_LEAF, CONFIG_SINGLE, CONFIG_FALLBACK, CONFIG_LOADBALANCE, CONFIG_CONDITIONAL };
enum config_cache_mode { CONFIG_CACHE_OFF, CONFIG_CACHE_SIMPLE, CONFIG_CACHE_SEMANTIC };

#define STATUS_SET_FIRST 100
#define STATUS_SET_LAST 599
struct status_set { uint64_t bits[8]; };	/* HTTP statuses */

static inline bool
status_set_has(const struct status_set *s, int status)
{
	unsigned bit = (unsigned)(status - STATUS_SET_FIRST);

	return bit <= STATUS_SET_LAST - STATUS_SET_FIRST && (s->bits[bit / 64] >> bit % 64 & 1);
}

struct config_param {		/* a member of the request's body */
	char *name;		/* top-level */
	char *raw;		/* its JSON text, as written by the operator */
};

struct config_retry {
	uint32_t attempts;		/* after the first one; 0: none */
	struct status_set on_status_codes;	/* also without a list: 429 500 502 503 504 529 */
	bool use_retry_after;
};

struct config_cache {
	enum config_cache_mode mode;
	uint32_t max_age_s;		/* 0: nothing is said: see config_cache_age() */
};

struct config_breaker {
	uint32_t failure_threshold;	/* consecutive failures; 0: not by these */
	uint32_t failure_permille;	/* share of failures; 0: not by it */
	uint32_t minimum_requests;	/* before the share counts */
	uint32_t cooldown_ms;
	struct status_set failure_status_codes;	/* also without a list: 500 to 599 */
};

struct config_target {		/* a leaf. Slices: absent is none; a NUL is behind their text */
	struct slice provider;	/* a slug, without "@"; of provider, virtual_key, or the model's prefix */
	bool provider_plain;	/* "anthropic", not "@anthropic": the slug, or else the type of a provider */
	struct slice model;	/* of override_params.model, "@slug/" removed */
	struct slice default_model;	/* of default_params.model, as written: stands for a client's that is absent */
	struct slice api_key;	/* SECRET: goes instead of the provider's own */
	const struct config_param *override_params;	/* without "model", as the next */
	const struct config_param *default_params;
	struct params_path *const *drop_params;
	uint32_t override_params_count, default_params_count, drop_params_count;
	bool edits_body;	/* any of the three */
	bool passthrough;	/* provider is none: the request's own decides, before a model's prefix */
	bool strict_open_ai_compliance;
	bool use_custom_host;
	struct host_url custom_host;	/* "/messages" is appended to its path */
	struct config_retry retry;
	struct config_cache cache;
	uint32_t request_timeout_ms;	/* to the first response header; 0: the setting's default */
	const struct slice *forward_headers;	/* lower case */
	uint32_t forward_headers_count;
	const struct config_breaker *breaker;	/* cb_config; NULL: none. For saved configs: an inline one has no state */
	uint32_t number;	/* in config.targets */
	uint32_t node;		/* in config.nodes */
};

struct config_sticky {		/* of a loadbalance */
	bool enabled;		/* unless "enabled": false */
	const struct session_fields *hash_fields;	/* what keeps requests together; NULL: the conversation */
	uint32_t ttl_s;		/* as written, 3600 if not: the place is computed and not stored, so it does not run out */
};

struct config_condition {	/* the first that holds decides */
	const struct condition *query;
	struct slice then;	/* name of the child */
	uint32_t child;		/* node */
};

struct config_node {
	enum config_mode mode;
	struct slice path;	/* "config", "config.targets[0].targets[1]": as x-portkey-last-used-option-index says it */
	struct slice name;
	double weight;		/* under a loadbalance: finite, not negative, 0: never drawn; 1 if not given */
	uint64_t seed;		/* of its place: the same after a reload that leaves the place as it was */
	uint32_t level;		/* 0: the root */
	uint32_t parent;	/* CONFIG_NOWHERE: the root's */
	uint32_t first, count;	/* children: nodes[first], ... They come after their parent */
	bool has_statuses;	/* fallback: on_status_codes is given (an empty list never falls back) */
	struct status_set on_status_codes;
	const struct config_condition *conditions;	/* conditional */
	uint32_t conditions_count;
	uint32_t otherwise;	/* strategy.default's child; CONFIG_NOWHERE: none */
	struct config_sticky sticky;
	const struct config_target *target;	/* of a leaf; else NULL */
};

struct config {
	uint32_t refs;
	uint32_t index;		/* of a saved one, among those of its settings: settings_config_index() */
	struct slice slug;	/* none: inline */
	char version[CONFIG_VERSION_DIGITS + 1];	/* begin of the SHA-256 of its text, in hex; "" of config_none() */
	const struct config_node *nodes;	/* nodes[0]: the root; level by level */
	uint32_t nodes_count;
	const struct config_target *targets;	/* in the order of their nodes */
	uint32_t targets_count;
	bool several_targets;	/* more than one can be reached */
	bool has_conditions;	/* the walk looks at metadata, params or the path */
	bool has_choice;	/* the walk looks at the session or at the random numbers */
	bool fetch_integrated_models;
	struct config_owned *owned;	/* what config_put() has to free by itself */
	struct scratch mem;	/* all the rest */
};

struct config_source {
	struct slice slug;	/* none: inline */
	const char *path;	/* of the object in its document: "configs[2].config"; "" for an inline one */
	const struct host_trust *trust;	/* hosts that custom_host may name although they are not public */
};

struct config *config_parse(struct slice json, const struct config_source *from, struct problems *p);
	/* `json` is a valid JSON text (json_check() has passed); it is not kept.
	 * refs 1. NULL: problems were added, all mistakes, each with its path.
	 * (Text and not a cJSON tree: a tree would round the operator's
	 * numbers.) */
struct config *config_parse_text(struct slice json, const struct config_source *from, struct problems *p);
	/* The same with bytes that nobody has checked: an inline x-portkey-config. */
struct config *config_get(struct config *c);
void config_put(struct config *c);
	/* The last one frees, and wipes the API keys in it. NULL is fine. */
const struct config *config_none(void);
	/* What applies where no config does: one target, nothing set. Nobody
	 * holds or frees it. */

uint32_t config_cache_age(int64_t s);
	/* How long an answer may be kept that was given `s` seconds: outside of
	 * CONFIG_CACHE_AGE_MIN_S to _MAX_S that is CONFIG_CACHE_AGE_S. */
bool config_split_model(struct slice model, struct slice *provider_slug, struct slice *bare);
	/* "@slug/a/b" -> slug, a/b. false: no "@slug/" prefix (@cf/ and @hf/
	 * are model names); then bare = model. */
const char *config_header_kept(struct slice name);
	/* Why that header of a client's never goes on to a provider ("is a
	 * credential between the client and weir"); NULL: it may, where forward_headers
	 * names it. */
bool config_slug_valid(struct slice slug);
	/* 1 to CONFIG_SLUG_BYTES_MAX of A-Z a-z 0-9 . _ - : slugs of configs,
	 * providers, and what stands behind an "@". */

#endif
