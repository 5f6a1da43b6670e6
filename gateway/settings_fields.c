/*
 * gateway/settings_fields.c -- see settings_fields.h.
 *
 * Bounds are there to catch slips (seconds for milliseconds, a missing zero)
 * and to keep sums in their types; within them the operator is right.
 */
#include "gateway/settings_fields.h"

#include "store/cache_entry.h"

#define ROOT(member) .offset = offsetof(struct settings, member)
#define DRAFT(member) .offset = offsetof(struct settings_draft, member)
#define LISTENER(member) .offset = offsetof(struct setting_listener, member)
#define PROVIDER(member) .offset = offsetof(struct setting_provider, member)
#define PROVIDER_LIMITS(member) .offset = offsetof(struct draft_provider, limits.member)
#define WORKSPACE(member) .offset = offsetof(struct setting_workspace, member)
#define WORKSPACE_LIMITS(member) .offset = offsetof(struct draft_workspace, limits.member)
#define MODEL(member) .offset = offsetof(struct setting_model, member)
#define CONFIG(member) .offset = offsetof(struct draft_config, member)
#define DAY_MS 86400000

/*
 * run_dir will hold sockets, whose paths have 107 bytes; 16 are left for their
 * names.
 */
#define RUN_DIR_BYTES_MAX 91
#define DATA_DIR_BYTES_MAX 1024		/* leaves room for names within PATH_MAX */

const struct setting_field setting_fields[] = {
	{ .path = "$schema", .kind = SETTING_STRING, DRAFT(schema), .max = 1024 },
	{ .path = "listen", .kind = SETTING_LISTEN, .fallback = "[\"127.0.0.1:8080\"]", .max = 16 },
	{ .path = "listen[].address", .kind = SETTING_ADDRESS, .required = true, .offset = 0 },
	{ .path = "listen[].tls", .kind = SETTING_BOOL, LISTENER(tls), .fallback = "false" },
	{ .path = "tls", .kind = SETTING_SECTION },
	{ .path = "tls.certificate", .kind = SETTING_FILE, ROOT(tls_cert_pem) },
	{ .path = "tls.key", .kind = SETTING_FILE, ROOT(tls_key_pem) },
	{ .path = "admin", .kind = SETTING_SECTION },
	{ .path = "admin.listen", .kind = SETTING_ADDRESS, ROOT(admin), .fallback = "\"127.0.0.1:9464\"" },
	{ .path = "data_dir", .kind = SETTING_DIR, ROOT(data_dir), .min = 1, .max = DATA_DIR_BYTES_MAX },
	{ .path = "run_dir", .kind = SETTING_DIR, ROOT(run_dir), .min = 1, .max = RUN_DIR_BYTES_MAX },
	{ .path = "user", .kind = SETTING_STRING, ROOT(user), .min = 1, .max = 32 },
	{ .path = "workers", .kind = SETTING_U32, ROOT(workers), .zero_is_default = true, .min = 1, .max = WORKERS_MAX },

	{ .path = "ledger", .kind = SETTING_SECTION },
	{ .path = "ledger.meters", .kind = SETTING_POWER2, ROOT(arena.meters), .fallback = "65536", .min = 1024, .max = 16777216 },
	{ .path = "ledger.inflight", .kind = SETTING_U32, ROOT(arena.inflight), .fallback = "2048", .min = 16, .max = 65536 },
	{ .path = "ledger.ring_bytes", .kind = SETTING_POWER2, ROOT(arena.ring_bytes), .fallback = "4194304",
	    .min = 65536, .max = 1073741824 },
	{ .path = "ledger.flush_ms", .kind = SETTING_U32, ROOT(flush_ms), .fallback = "100", .min = 1, .max = 10000 },

	{ .path = "limits", .kind = SETTING_SECTION },
	{ .path = "limits.body_bytes", .kind = SETTING_U64, ROOT(limit.body_bytes), .fallback = "33554432",
	    .min = 1024, .max = 1073741824 },
	{ .path = "limits.head_ms", .kind = SETTING_U32, ROOT(limit.head_ms), .fallback = "10000", .min = 10, .max = DAY_MS },
	{ .path = "limits.body_ms", .kind = SETTING_U32, ROOT(limit.body_ms), .fallback = "60000", .min = 10, .max = DAY_MS },
	{ .path = "limits.idle_ms", .kind = SETTING_U32, ROOT(limit.idle_ms), .fallback = "75000", .min = 10, .max = DAY_MS },
	{ .path = "limits.connect_ms", .kind = SETTING_U32, ROOT(limit.connect_ms), .fallback = "5000", .min = 10, .max = DAY_MS },
	{ .path = "limits.first_byte_ms", .kind = SETTING_U32, ROOT(limit.first_byte_ms), .fallback = "600000",
	    .min = 10, .max = DAY_MS },
	{ .path = "limits.stream_idle_ms", .kind = SETTING_U32, ROOT(limit.stream_idle_ms), .fallback = "300000",
	    .min = 10, .max = DAY_MS },
	{ .path = "limits.ping_ms", .kind = SETTING_U32, ROOT(limit.ping_ms), .fallback = "15000", .min = 10, .max = DAY_MS },
	{ .path = "limits.connections", .kind = SETTING_U32, ROOT(limit.connections), .min = 1, .max = 1000000 },
	{ .path = "limits.drain_ms", .kind = SETTING_U32, ROOT(drain_ms), .fallback = "600000", .min = 0, .max = DAY_MS },

	{ .path = "cache", .kind = SETTING_SECTION },
	{ .path = "cache.bytes", .kind = SETTING_U64, ROOT(cache.bytes), .fallback = "1073741824", .min = 0, .max = INT64_C(1) << 43 },
	{ .path = "cache.entry_bytes", .kind = SETTING_U64, ROOT(cache.entry_bytes), .fallback = "4194304",
	    .min = 4096, .max = CACHE_ENTRY_BYTES_MAX },
	{ .path = "cache.wait_ms", .kind = SETTING_U32, ROOT(cache.wait_ms), .fallback = "60000", .min = 0, .max = DAY_MS },

	{ .path = "path_prefix", .kind = SETTING_STRING, ROOT(path_prefix), .fallback = "\"\"", .max = 256 },
	{ .path = "metadata", .kind = SETTING_SECTION },
	{ .path = "metadata.required", .kind = SETTING_STRINGS, ROOT(metadata.required), .fallback = "[]",
	    .min = 1, .max = METADATA_KEY_BYTES_MAX },
	{ .path = "metadata.lenient", .kind = SETTING_BOOL, ROOT(metadata.lenient), .fallback = "false" },
	{ .path = "routing", .kind = SETTING_SECTION },
	{ .path = "routing.total_ms", .kind = SETTING_U32, ROOT(routing.total_ms), .fallback = "600000", .min = 10, .max = DAY_MS },
	{ .path = "routing.hold_ms", .kind = SETTING_U32, ROOT(routing.hold_ms), .fallback = "2000", .min = 0, .max = 60000 },
	{ .path = "health", .kind = SETTING_SECTION },
	{ .path = "health.failures", .kind = SETTING_U32, ROOT(health.failures), .fallback = "5", .min = 0, .max = 1000000 },
	{ .path = "health.failure_percent", .kind = SETTING_U32, ROOT(health.failure_percent), .fallback = "50", .min = 0, .max = 100 },
	{ .path = "health.minimum_requests", .kind = SETTING_U32, ROOT(health.minimum_requests), .fallback = "20", .min = 1, .max = 1000000 },
	{ .path = "health.window_ms", .kind = SETTING_U32, ROOT(health.window_ms), .fallback = "60000", .min = 1000, .max = DAY_MS },
	{ .path = "health.cooldown_ms", .kind = SETTING_U32, ROOT(health.cooldown_ms), .fallback = "10000", .min = 10, .max = DAY_MS },
	{ .path = "health.cooldown_max_ms", .kind = SETTING_U32, ROOT(health.cooldown_max_ms), .fallback = "300000", .min = 10, .max = DAY_MS },
	{ .path = "health.account_ms", .kind = SETTING_U32, ROOT(health.account_ms), .fallback = "300000", .min = 10, .max = DAY_MS },
	{ .path = "custom_hosts", .kind = SETTING_SECTION },
	{ .path = "custom_hosts.trusted", .kind = SETTING_STRINGS, ROOT(custom_hosts.hosts), .fallback = "[]",
	    .min = 1, .max = HOST_NAME_BYTES_MAX },
	{ .path = "saved_configs_only", .kind = SETTING_BOOL, ROOT(saved_configs_only), .fallback = "false" },
	{ .path = "budgets", .kind = SETTING_SECTION },
	{ .path = "budgets.style", .kind = SETTING_CHOICE, ROOT(budget_style), .fallback = "\"auto\"",
	    .choices = "auto|anthropic|portkey" },
	{ .path = "budgets.message", .kind = SETTING_STRING, ROOT(budget_text), .fallback = "\"\"", .max = 500 },
	{ .path = "budgets.share", .kind = SETTING_U32, ROOT(clamp_share), .fallback = "8", .min = 1, .max = 1000 },
	{ .path = "budgets.floor", .kind = SETTING_U32, ROOT(clamp_floor), .fallback = "4096", .min = 1, .max = 1000000 },
	{ .path = "budgets.admission_wait_ms", .kind = SETTING_U32, ROOT(admission_wait_ms), .fallback = "250", .min = 0, .max = 60000 },
	{ .path = "budgets.count_ms", .kind = SETTING_U32, ROOT(count_ms), .fallback = "2000", .min = 0, .max = 60000 },
	{ .path = "budgets.headers", .kind = SETTING_BOOL, ROOT(limit_headers), .fallback = "true" },

	{ .path = "providers", .kind = SETTING_LIST, .max = PROVIDERS_MAX - 1 },
	{ .path = "providers[].slug", .kind = SETTING_SLUG, PROVIDER(slug), .required = true },
	{ .path = "providers[].type", .kind = SETTING_STRING, PROVIDER(type), .fallback = "\"anthropic\"", .choices = "anthropic",
	    .max = 32 },
	{ .path = "providers[].base_url", .kind = SETTING_STRING, PROVIDER(base_url),
	    .fallback = "\"https://api.anthropic.com\"", .min = 1, .max = 2048 },
	{ .path = "providers[].api_key", .kind = SETTING_SECRET, PROVIDER(api_key), .required = true, .min = 1, .max = 4096 },
	{ .path = "providers[].ca_file", .kind = SETTING_FILE, PROVIDER(ca_pem) },
	{ .path = "providers[].models", .kind = SETTING_STRINGS, PROVIDER(models), .fallback = "[]", .min = 1, .max = 256 },
	{ .path = "providers[].allow_plain_http", .kind = SETTING_BOOL, PROVIDER(allow_plain_http), .fallback = "false" },
	{ .path = "providers[].account", .kind = SETTING_SLUG, PROVIDER(account) },
	{ .path = "providers[].rate_limits", .kind = SETTING_RAW_LIMITS, PROVIDER_LIMITS(rates) },
	{ .path = "providers[].usage_limits", .kind = SETTING_RAW_LIMITS, PROVIDER_LIMITS(usages) },
	{ .path = "providers[].model_limits", .kind = SETTING_RAW_ARRAY, PROVIDER_LIMITS(models) },
	{ .path = "default_provider", .kind = SETTING_SLUG, ROOT(default_provider) },
	{ .path = "workspaces", .kind = SETTING_LIST, .max = 4096 },
	{ .path = "workspaces[].slug", .kind = SETTING_SLUG, WORKSPACE(slug), .required = true },
	{ .path = "workspaces[].config", .kind = SETTING_SLUG, WORKSPACE(config) },
	{ .path = "workspaces[].allowed_models", .kind = SETTING_STRINGS, WORKSPACE(allowed_models), .fallback = "[]", .min = 1, .max = 256 },
	{ .path = "workspaces[].rate_limits", .kind = SETTING_RAW_LIMITS, WORKSPACE_LIMITS(rates) },
	{ .path = "workspaces[].usage_limits", .kind = SETTING_RAW_LIMITS, WORKSPACE_LIMITS(usages) },
	{ .path = "models", .kind = SETTING_LIST, .max = 256 },
	{ .path = "models[].id", .kind = SETTING_STRING, MODEL(id), .required = true, .min = 1, .max = 256 },
	{ .path = "models[].model", .kind = SETTING_STRING, MODEL(model), .required = true, .min = 1, .max = 256 },
	{ .path = "models[].display_name", .kind = SETTING_STRING, MODEL(display_name), .fallback = "\"\"", .max = 128 },
	{ .path = "models[].family", .kind = SETTING_STRING, MODEL(family), .choices = "haiku|sonnet|opus|fable|mythos",
	    .max = 32 },
	{ .path = "policies", .kind = SETTING_RAW_ARRAY, DRAFT(policies) },

	{ .path = "configs", .kind = SETTING_LIST, .max = 4096 },
	{ .path = "configs[].slug", .kind = SETTING_SLUG, CONFIG(slug), .required = true },
	{ .path = "configs[].config", .kind = SETTING_RAW_OBJECT, CONFIG(raw), .required = true },
	{ .path = "prices", .kind = SETTING_RAW_ARRAY, DRAFT(prices) },
	{ .path = "log", .kind = SETTING_SECTION },
	{ .path = "log.level", .kind = SETTING_CHOICE, ROOT(log_level), .fallback = "\"info\"", .choices = "debug|info|warn|error" },
};
const size_t setting_fields_count = sizeof(setting_fields) / sizeof(setting_fields[0]);
_Static_assert(sizeof(setting_fields) / sizeof(setting_fields[0]) <= SETTINGS_ROWS_MAX, "struct setting_rows");
_Static_assert(offsetof(struct settings_draft, s) == 0, "rows serve both");
_Static_assert(offsetof(struct draft_provider, provider) == 0, "rows serve both");
_Static_assert(offsetof(struct draft_workspace, workspace) == 0, "rows serve both");

const struct setting_field *
setting_field_find(struct slice generic_path)
{
	for (size_t i = 0; i < setting_fields_count; i++)
		if (slice_eq(slice_of(setting_fields[i].path), generic_path))
			return &setting_fields[i];
	return NULL;
}

const char *
setting_field_leaf(const struct setting_field *f)
{
	const char *dot = strrchr(f->path, '.');

	return dot ? dot + 1 : f->path;
}

bool
setting_field_below(const struct setting_field *f, struct slice generic_parent)
{
	size_t parent = (size_t)(setting_field_leaf(f) - f->path);

	if (parent > 0)
		parent--;	/* the dot */
	return slice_eq((struct slice){ f->path, parent }, generic_parent);
}

bool
settings_unresolved(const struct settings_draft *d, const char *path)
{
	return setting_rows_has(&d->unresolved, setting_field_find(slice_of(path)));
}
