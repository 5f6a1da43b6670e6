/*
 * gateway/plane.h -- what the settings of one version need at run time.
 *
 * A worker makes one from each version of the settings. It is counted: a request
 * keeps the one that it began with, so it never sees half of two.
 */
#ifndef WEIR_GATEWAY_PLANE_H
#define WEIR_GATEWAY_PLANE_H

#include "gateway/endpoint.h"
#include "gateway/settings.h"
#include "shm/health.h"

struct tls_context;
struct tls_ticket_keys;
struct upstream;

struct plane_provider {		/* of the setting with the same index */
	struct endpoint endpoint;
	struct slice slug, type;	/* the setting's, with their lengths */
	struct slice account;		/* whose state it knows: its own name, if none is set */
	struct buf answer_lines;	/* of its answers' heads: who it is */
	struct health_ref health;	/* of the account */
	uint64_t count_again_ms;	/* when it may be asked to count again; it failed to */
};

struct plane_target {		/* of a target of a saved config */
	const struct setting_provider *provider;	/* NULL: the request says which */
	struct endpoint endpoint;	/* of its own host or credential; else not open */
	struct health_ref account;	/* of that */
	struct health_ref breaker;	/* if the target has one */
};

struct plane {
	uint32_t refs;
	struct settings *settings;
	struct plane_provider *providers;
	const struct setting_provider *default_provider;	/* NULL: none */
	struct plane_target *targets;	/* of all configs ... */
	uint32_t *first;		/* ... from here on those of the config with that index */
	uint32_t targets_count;
	struct tls_context *tls;	/* NULL: no TLS listener */
};

struct plane *plane_new(struct upstream *u, struct settings *s, const struct tls_ticket_keys *keys, bool tls_wanted);
	/* refs 1; holds the settings. NULL, after words in the log. Rows of health
	 * are for health_watch_name() to name. */
struct plane *plane_get(struct plane *p);
void plane_put(struct plane *p);

static inline struct plane_provider *
plane_provider(const struct plane *p, const struct setting_provider *v)
{
	return &p->providers[v - p->settings->providers];
}

static inline const struct plane_target *
plane_target_of(const struct plane *p, const struct config *c, const struct config_target *t)
{
	/* NULL: the config is an inline one, or none. */
	return c->slug.n ? &p->targets[p->first[settings_config_index(p->settings, c)] + t->number] : NULL;
}

#endif
