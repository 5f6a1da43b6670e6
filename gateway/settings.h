/*
 * gateway/settings.h -- the configuration file, read whole and checked whole.
 *
 * The master loads the file into a *bundle*: one JSON document in which
 * ${NAME} and file: references and certificate files are already resolved (so
 * that unprivileged workers need not read them). Every process compiles the
 * same bundle into a struct settings, immutable and counted: a request keeps
 * the one that it began with. Schema: deploy/weir.schema.json.
 */
#ifndef WEIR_GATEWAY_SETTINGS_H
#define WEIR_GATEWAY_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/config.h"
#include "policy/limit_policy.h"
#include "policy/price.h"
#include "shm/arena.h"
#include "shm/base/buf.h"

struct setting_listener {
	char *host;		/* numeric address */
	uint16_t port;		/* 0: the kernel chooses; printed at start */
	bool tls;
};

struct setting_provider {
	char *slug;
	char *type;		/* "anthropic" */
	char *base_url;		/* as given: "https://api.anthropic.com" */
	char *host;		/* of base_url; an IPv6 address without its brackets */
	uint16_t port;
	bool tls;
	char *path_prefix;	/* "" or "/x", without a slash at the end */
	char *api_key;		/* secret; NULL: the client's own (later) */
	char *ca_pem;		/* own CA bundle; NULL: the system's */
	bool allow_plain_http;	/* http:// to a host that is not this machine */
	char **models;		/* globs; none: all */
	uint32_t models_count;
	uint32_t index;		/* row in metrics: 1.. */
	char *account;		/* whose it is: conversations may move between providers of one account; NULL: it is its own */
	struct limits limits;	/* of the account */
	struct setting_model_limits *model_limits;	/* of models of this account: all that match apply */
	uint32_t model_limits_count;
};

struct setting_model_limits {
	char *model;		/* glob */
	struct limits limits;	/* one set of meters for all models that the glob matches */
};

struct setting_workspace {
	char *slug;
	char *config;		/* slug of the config that applies where neither request nor key names one; NULL: none */
	char **allowed_models;	/* globs; none: all */
	uint32_t allowed_models_count;
	struct limits limits;
};

/* A name that clients may ask for. */
struct setting_model {
	char *id;		/* "fast" */
	char *model;		/* what it stands for: "@slug/model", or "model" */
	char *display_name;	/* in lists; "": the model's own */
	char *family;		/* "sonnet", ...: where Claude Desktop puts it; NULL: the model's own */
};

struct settings {
	uint32_t refs;
	uint64_t version;	/* 1, 2, ... by reload */

	struct setting_listener *listeners;
	uint32_t listeners_count;
	struct setting_listener admin;	/* default 127.0.0.1:9464, plain */
	char *tls_cert_pem, *tls_key_pem;

	char *data_dir;		/* LMDB */
	char *run_dir;		/* arena, pid file */
	char *user;		/* NULL: "weir" if it exists and we are root */
	uint32_t workers;	/* 0 resolved to the number of cores */
	struct arena_sizes arena;
	uint32_t flush_ms;	/* 100 */
	uint32_t drain_ms;	/* 600,000: streams of ten minutes finish */
	char *path_prefix;	/* of the public base URL, "" by default */

	struct {
		uint64_t body_bytes;	/* 33,554,432 */
		uint32_t head_ms, body_ms, idle_ms;	/* 10 s, 60 s, 75 s. body: between two reads of a body */
		uint32_t connect_ms, first_byte_ms, stream_idle_ms;	/* 5 s, 600 s, 300 s */
		uint32_t ping_ms;	/* 15 s */
		uint32_t connections;	/* a worker: 20,000 or what the descriptor limit allows */
	} limit;

	struct {
		uint64_t bytes;		/* of all kept answers together; 0: none is kept */
		uint64_t entry_bytes;	/* of one */
		uint32_t wait_ms;	/* how long a request waits for another one that fetches the same */
	} cache;

	struct {
		char **required;	/* metadata fields that each request must have */
		uint32_t required_count;
		bool lenient;
	} metadata;

	struct {
		uint32_t total_ms;	/* 600,000: from the request to the first byte of the answer that is passed on */
		uint32_t hold_ms;	/* 2,000: how long the beginning of a stream may be held back, while another target is left */
	} routing;
	struct {
		uint32_t failures;	/* 5 in a row take a target out; 0: never */
		uint32_t failure_percent;	/* 50: or so many of the requests in a window; 0: never */
		uint32_t minimum_requests;	/* 20, in that window */
		uint32_t window_ms;	/* 60,000 */
		uint32_t cooldown_ms, cooldown_max_ms;	/* 10,000 the first time, twice as long each time after; 300,000 */
		uint32_t account_ms;	/* 300,000: an account that has no money, or whose credential is refused */
	} health;
	struct host_trust custom_hosts;	/* custom_hosts.trusted */
	bool saved_configs_only;	/* false. true: requests can name configs and providers, and bring nothing of their own */

	enum { BUDGET_STYLE_AUTO, BUDGET_STYLE_ANTHROPIC, BUDGET_STYLE_PORTKEY } budget_style;
		/* AUTO: 429 billing_error, or Portkey's 412 where the key came
		 * in x-portkey-api-key */
	char *budget_text;	/* the operator's words behind a spent-budget message; "" */
	uint32_t clamp_share;	/* budgets.share, 8: a hold takes at most one eighth of what is left */
	uint32_t clamp_floor;	/* budgets.floor, 4096 output tokens */
	uint32_t admission_wait_ms;	/* budgets.admission_wait_ms, 250; 0: refuse at once */
	uint32_t count_ms;	/* budgets.count_ms, 2,000: how long the provider may take to count a prompt; 0: never asked */
	bool limit_headers;	/* budgets.headers, true: anthropic-ratelimit-* of the tightest limits */

	struct setting_provider *providers;
	uint32_t providers_count;
	struct setting_workspace *workspaces;	/* those that have something of their own */
	uint32_t workspaces_count;
	struct limit_policy **policies;		/* active ones */
	uint32_t policies_count;
	struct setting_model *models;	/* aliases */
	uint32_t models_count;
	struct config **configs;
	uint32_t configs_count;
	char *default_provider;	/* slug; NULL: the only one, or none */
	struct price_book *prices;
	enum log_level_setting { SETTING_LOG_DEBUG, SETTING_LOG_INFO, SETTING_LOG_WARN, SETTING_LOG_ERROR } log_level;
};

/* The command line's words, which win over the file. NULL or 0: not given. */
struct settings_overrides {
	const char *data_dir, *run_dir, *user;
	const char *listen, *admin_listen;	/* "address:port"; `listen` replaces all plain and TLS listeners */
	uint32_t workers;
};

bool settings_load(const char *path, struct buf *bundle, struct problems *p) MUST_CHECK;
	/* path NULL: the defaults (and ANTHROPIC_API_KEY, if set). Reads files
	 * and the environment; every mistake is in `p` with its JSON path. What
	 * compiles from a loaded bundle has no mistakes any more. */
bool settings_load_with(const char *path, const struct settings_overrides *o,
    struct buf *bundle, struct problems *p) MUST_CHECK;
#define SETTINGS_BUNDLE_BYTES_MAX (16u << 20)	/* for buf_init() of a bundle */
struct settings *settings_compile(struct slice bundle, uint64_t version, struct problems *p);
	/* refs 1; NULL if problems were added. */
struct settings *settings_get(struct settings *s);
void settings_put(struct settings *s);

const struct setting_provider *settings_provider(const struct settings *s, struct slice slug);
const struct setting_provider *settings_provider_named(const struct settings *s, struct slice name, bool plain);
	/* `plain`: written without "@". One that is no slug is then a type: the
	 * default provider if it is of it, else the first that is. NULL: there is
	 * none. */
const struct setting_provider *settings_provider_of(const struct settings *s, const struct config_target *t);
	/* The one that a target names. NULL: it names none, or there is none. */
bool settings_check_targets(const struct settings *s, const struct config *c, const char *path, struct problems *p);
	/* Does each provider that a config names exist? `path` is the config's; a
	 * problem names the target in it. */
struct config *settings_inline_config(const struct settings *s, struct slice json, struct problems *p);
	/* Of a request's header. For config_put(); NULL: problems were added. */
const struct setting_workspace *settings_workspace(const struct settings *s, struct slice slug);
	/* NULL: it has nothing of its own. */
const struct setting_model *settings_model(const struct settings *s, struct slice id);
	/* An alias; NULL: the name means itself. */
const struct config *settings_config(const struct settings *s, struct slice slug);
static inline uint32_t
settings_config_index(const struct settings *s, const struct config *c)
{
	/* In s->configs, which it is one of. */
	uint32_t i = c->index;

	CHECK(i < s->configs_count && s->configs[i] == c);
	return i;
}

#endif
