/*
 * policy/limit_policy.h -- limits for whoever matches: conditions and group_by.
 *
 * Portkey's usage-limit and rate-limit policies. All conditions must match; the
 * values of one are alternatives; "excludes" is looked at first. With group_by
 * each combination of values has a meter of its own.
 *
 *	{"id":"per-user", "name":"...", "conditions":[{"key":"metadata.user","value":"*","excludes":["bot"]}],
 *	 "group_by":[{"key":"metadata.user"}], "groups_max":10000,
 *	 and one limit: "type":"cost","credit_limit":5,"periodic_reset":"daily","mode":"clamp", ...
 *		    or: "type":"requests","unit":"rpm","value":60}
 *
 * Keys of conditions and groups: api_key (id, or "workspace/slug"), workspace
 * (also workspace_id), metadata.NAME, user (of the key, else metadata "_user",
 * else "user"), provider (type), virtual_key (the account's slug), config, model
 * ("@provider-type/model" or a bare name; a "*" in it stands for anything).
 */
#ifndef WEIR_POLICY_LIMIT_POLICY_H
#define WEIR_POLICY_LIMIT_POLICY_H

#include "policy/limit.h"

#define POLICIES_MAX 256
#define POLICY_CONDITIONS_MAX 16
#define POLICY_GROUP_KEYS_MAX 8
#define POLICY_VALUES_MAX 1024		/* of one condition */
#define POLICY_GROUP_BYTES_MAX 256	/* "metadata.user:alice-model:anthropic.claude-opus-5-5" */
#define POLICY_GROUPS_DEFAULT 10000
#define POLICY_GROUPS_MAX 16777216	/* as many as there can be meters */

struct limit_policy;			/* compiled */

struct limit_subject {			/* a request, as policies see it; none: absent */
	struct slice key_id, key_slug, workspace, user, provider, provider_type, model, config;
	struct slice metadata;		/* merged, as metadata_json() writes it */
};

struct limit_policy *limit_policy_parse(struct slice json, const char *path, struct problems *p);
	/* `json` is valid JSON (json_check() has passed). NULL: problems were
	 * added. One allocation; free() it. */
const char *limit_policy_id(const struct limit_policy *lp);
bool limit_policy_active(const struct limit_policy *lp);
	/* false: its status is "archived". It is checked, and applies to nobody. */
typedef void limit_policy_value_fn(const char *path, const char *key, struct slice value, void *arg);
void limit_policy_values(const struct limit_policy *lp, const char *path, limit_policy_value_fn *each, void *arg);
	/* The values and excludes of its conditions, but for "*", with the name of
	 * the condition's key and the JSON path: for whoever knows which of them
	 * exist. `path`: of the policy. */
bool limit_policy_matches(const struct limit_policy *lp, const struct limit_subject *s);
struct slice limit_policy_group(const struct limit_policy *lp, const struct limit_subject *s,
    char out[POLICY_GROUP_BYTES_MAX]);
	/*
	 * Of a subject that matches: the group's value key, "default" without
	 * group_by; none if a value is missing (then the policy does not apply).
	 * "k1:v1-k2:v2" as in Portkey. No two groups of a policy have the same
	 * one: where values make that ambiguous, and where it is too long, it ends
	 * in "#" and a hash of the values.
	 */
const struct limit *limit_policy_limit(const struct limit_policy *lp);
	/* The template. Its charge.id is that of the whole policy. */
void limit_policy_charge(const struct limit_policy *lp, struct slice group, struct charge *out, char name[METER_NAME_BYTES]);
	/* The charge of that group: own id, name and the policy's charge_group. A
	 * SHA-256: to be remembered by the caller (gateway/limit_memo.h). `name` must
	 * live as long as `out`. */

#endif
