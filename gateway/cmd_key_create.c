/*
 * gateway/cmd_key_create.c -- weir key create: from options to a key's document.
 *
 * The document is written as text, because a tree of doubles would round a
 * budget, and is compiled once before it is stored: what workers could not read
 * is not stored.
 */
#include "gateway/cmd_key_create.h"

#include <stdio.h>
#include <string.h>

#include "gateway/args.h"
#include "gateway/key_secret.h"
#include "gateway/settings.h"
#include "policy/json.h"
#include "policy/key.h"
#include "shm/base/clock.h"
#include "shm/base/scratch.h"
#include "store/catalog.h"
#include "store/record.h"

#define ID_BYTES 8		/* random, in the id */
#define TIME_BYTES 32
#define WHY_BYTES 512
#define DAY_NS (INT64_C(86400) * NS_PER_S)

const char cmd_key_create_usage[] =
    "usage: weir key create --slug SLUG [--workspace NAME] [--name TEXT] [--user NAME]\n"
    "           [--rpm N] [--rph N] [--rpd N] [--rpw N] [--tpm N] [--tph N] [--tpd N] [--tpw N] [--concurrency N]\n"
    "           [--budget USD] [--token-budget N] [--budget-period total|daily|weekly|monthly|Nd]\n"
    "           [--mode clamp|strict|postpaid] [--alert USD]\n"
    "           [--metadata JSON] [--model GLOB]... [--routing-config SLUG] [--lock-config]\n"
    "           [--expires TIME] [--json] [--config FILE | --data-dir DIR]\n"
    "Makes a key and prints its secret, once.\n"
    "  --workspace       \"default\" if it is not given\n"
    "  --user            whose key it is: policies can group by it\n"
    "  --rpm, --tpm ...  requests, tokens a minute, hour, day, week\n"
    "  --concurrency     requests in flight at a time\n"
    "  --budget          dollars, exact to nine decimals: 25, 0.25\n"
    "  --token-budget    tokens: input, cache reads and writes, output\n"
    "  --budget-period   when they begin anew (00:00 UTC); 30d: every 30 days from today;\n"
    "                    total, the default: never\n"
    "  --mode            what happens when a budget runs short: clamp, the default, lowers\n"
    "                    max_tokens; strict refuses; postpaid refuses only when all is spent\n"
    "  --alert           a line in the log when that much of --budget is spent\n"
    "  --model           models that may be used; \"*\" stands for anything\n"
    "  --lock-config     requests cannot name another config\n"
    "  --expires         2026-12-31T00:00:00Z\n";

/* Options that are a rate each. */
static const struct { const char *option, *type, *unit; } rates[] = {
	{ "rpm", "requests", "rpm" }, { "rph", "requests", "rph" }, { "rpd", "requests", "rpd" }, { "rpw", "requests", "rpw" },
	{ "tpm", "tokens", "rpm" }, { "tph", "tokens", "rph" }, { "tpd", "tokens", "rpd" }, { "tpw", "tokens", "rpw" },
	{ "concurrency", "concurrency", NULL },
};
#define RATES_COUNT (sizeof(rates) / sizeof(*rates))

struct create {
	struct args_store store;
	const char *slug, *workspace, *name, *user, *metadata, *config, *expires;
	const char *rates[RATES_COUNT], *budget, *tokens, *period, *mode, *alert;
	struct arg_many models;
	bool lock_config, json;
	int64_t expires_ns;
};

static int
create_parse(struct create *c, int argc, char **argv)
{
	struct arg list[32] = {
		{ "slug", ARG_TEXT, &c->slug }, { "workspace", ARG_TEXT, &c->workspace }, { "name", ARG_TEXT, &c->name },
		{ "user", ARG_TEXT, &c->user },
		{ "budget", ARG_TEXT, &c->budget }, { "token-budget", ARG_TEXT, &c->tokens },
		{ "budget-period", ARG_TEXT, &c->period }, { "mode", ARG_TEXT, &c->mode }, { "alert", ARG_TEXT, &c->alert },
		{ "metadata", ARG_TEXT, &c->metadata }, { "model", ARG_MANY, &c->models },
		{ "routing-config", ARG_TEXT, &c->config }, { "lock-config", ARG_FLAG, &c->lock_config },
		{ "expires", ARG_TEXT, &c->expires }, { "json", ARG_FLAG, &c->json },
		{ "config", ARG_TEXT, &c->store.config }, { "data-dir", ARG_TEXT, &c->store.data_dir },
	};
	struct args args = { "key create", cmd_key_create_usage, list, 0, NULL };

	while (list[args.count].name)
		args.count++;
	for (size_t i = 0; i < RATES_COUNT; i++)
		list[args.count++] = (struct arg){ rates[i].option, ARG_TEXT, &c->rates[i] };
	CHECK(args.count < sizeof(list) / sizeof(*list));
	return args_parse(&args, argc, argv);
}

static int
create_check_names(struct create *c)
{
	if (!c->slug)
		return args_mistake("key create", "--slug is missing: a short name for the key");
	if (!config_slug_valid(slice_of(c->slug)) || strncmp(c->slug, "key_", 4) == 0)
		return args_mistake("key create", "--slug: 1 to %d letters, digits, \".\", \"_\" or \"-\" are expected, not beginning with \"key_\"",
		    CONFIG_SLUG_BYTES_MAX);
	if (!c->workspace)
		c->workspace = "default";
	if (!config_slug_valid(slice_of(c->workspace)))
		return args_mistake("key create", "--workspace: 1 to %d letters, digits, \".\", \"_\" or \"-\" are expected",
		    CONFIG_SLUG_BYTES_MAX);
	if (c->config && !config_slug_valid(slice_of(c->config)))
		return args_mistake("key create", "--routing-config: the slug of a config is expected, not \"%s\"", c->config);
	if (c->name && strlen(c->name) > 256)
		return args_mistake("key create", "--name: at most 256 bytes are expected");
	if (!c->name)
		c->name = c->slug;
	if (c->user && (c->user[0] == '\0' || strlen(c->user) > 256))
		return args_mistake("key create", "--user: a name of 1 to 256 bytes is expected");
	return ARGS_GO;
}

static int
create_check_rest(struct create *c)
{
	struct metadata metadata;
	struct metadata_error why;
	struct json_error json;
	struct scratch mem;
	bool ok;

	if (c->expires && !clock_parse_utc(slice_of(c->expires), &c->expires_ns))
		return args_mistake("key create", "--expires: a time such as 2026-12-31T00:00:00Z is expected, not \"%s\"", c->expires);
	if (c->expires && c->expires_ns <= clock_wall_ns())
		return args_mistake("key create", "--expires: %s is over", c->expires);
	if (c->period && !c->budget && !c->tokens)
		return args_mistake("key create", "--budget-period needs --budget or --token-budget");
	if (c->mode && !c->budget && !c->tokens)
		return args_mistake("key create", "--mode needs --budget or --token-budget");
	if (c->alert && !c->budget)
		return args_mistake("key create", "--alert needs --budget");
	if (!c->metadata)
		return ARGS_GO;
	if (!json_check(slice_of(c->metadata), &json))
		return args_mistake("key create", "--metadata: byte %zu: %s", json.offset, json.what);
	scratch_init(&mem, 1 << 20);
	ok = metadata_parse(slice_trim(slice_of(c->metadata)), false, &mem, &metadata, &why);
	scratch_reset(&mem);
	return ok ? ARGS_GO : args_mistake("key create", "--metadata: byte %zu: %s", why.offset, why.what);
}

static int
write_rates(const struct create *c, struct buf *out)
{
	const char *comma = "";
	int64_t value;

	buf_add_str(out, ",\"rate_limits\":[");
	for (size_t i = 0; i < RATES_COUNT; i++) {
		if (!c->rates[i])
			continue;
		if (!args_count(c->rates[i], 1, LIMIT_VALUE_MAX, &value))
			return args_mistake("key create", "--%s: a whole number from 1 to %lld is expected, not \"%s\"",
			    rates[i].option, (long long)LIMIT_VALUE_MAX, c->rates[i]);
		buf_printf(out, "%s{\"type\":\"%s\"", comma, rates[i].type);
		if (rates[i].unit)
			buf_printf(out, ",\"unit\":\"%s\"", rates[i].unit);
		buf_printf(out, ",\"value\":%lld}", (long long)value);
		comma = ",";
	}
	buf_add_char(out, ']');
	return ARGS_GO;
}

/* When the budgets begin anew; "30d" counts from today. */
static int
write_period(const struct create *c, struct buf *out)
{
	static const char *const names[] = { "daily", "weekly", "monthly" };
	size_t n = c->period ? strlen(c->period) : 0;
	char days_text[8], time[TIME_BYTES];
	int64_t days;

	if (!c->period || strcmp(c->period, "total") == 0)
		return ARGS_GO;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(c->period, names[i]) == 0) {
			buf_printf(out, ",\"periodic_reset\":\"%s\"", names[i]);
			return ARGS_GO;
		}
	if (n > 1 && n <= sizeof(days_text) && c->period[n - 1] == 'd') {
		snprintf(days_text, sizeof(days_text), "%.*s", (int)n - 1, c->period);
		if (args_count(days_text, 1, 365, &days)) {
			int64_t now_ns = clock_wall_ns();

			clock_format_utc(now_ns - now_ns % DAY_NS + days * DAY_NS, time, sizeof(time));
			buf_printf(out, ",\"periodic_reset_days\":%lld,\"next_usage_reset_at\":\"%s\"", (long long)days, time);
			return ARGS_GO;
		}
	}
	return args_mistake("key create", "--budget-period: total, daily, weekly, monthly, or days such as 30d (1d to 365d) are expected, not \"%s\"",
	    c->period);
}

/* Dollars as they were given; `more`: what they must be less than. */
static int
write_usd(struct buf *out, const char *option, const char *member, const char *text, int64_t less_than)
{
	char usd[RECORD_USD_BYTES];
	int64_t nusd;

	if (!args_usd(text, &nusd) || nusd < 1 || nusd > LIMIT_NUSD_MAX)
		return args_mistake("key create", "--%s: dollars such as 25 or 0.25 are expected (more than 0, at most a billion, nine decimals), not \"%s\"",
		    option, text);
	if (nusd >= less_than)
		return args_mistake("key create", "--%s: less than the --budget is expected, not \"%s\"", option, text);
	record_format_usd(nusd, usd, sizeof(usd));
	buf_printf(out, ",\"%s\":%s", member, usd);
	return ARGS_GO;
}

static int
write_cost(const struct create *c, struct buf *out)
{
	int64_t budget;
	int status;

	buf_add_str(out, "{\"type\":\"cost\"");
	status = write_usd(out, "budget", "credit_limit", c->budget, INT64_MAX);
	if (status == ARGS_GO && c->alert)
		status = args_usd(c->budget, &budget) ? write_usd(out, "alert", "alert_threshold", c->alert, budget) : 1;
	return status;
}

static int
write_tokens(const struct create *c, struct buf *out)
{
	int64_t tokens;

	if (!args_count(c->tokens, 1, LIMIT_VALUE_MAX, &tokens))
		return args_mistake("key create", "--token-budget: a whole number from 1 to %lld is expected, not \"%s\"",
		    (long long)LIMIT_VALUE_MAX, c->tokens);
	buf_printf(out, "{\"type\":\"tokens\",\"credit_limit\":%lld", (long long)tokens);
	return ARGS_GO;
}

static int
write_budgets(const struct create *c, struct buf *out)
{
	int (*const writers[])(const struct create *, struct buf *) = { write_cost, write_tokens };
	const char *const given[] = { c->budget, c->tokens };
	const char *comma = "";

	if (c->mode && strcmp(c->mode, "clamp") != 0 && strcmp(c->mode, "strict") != 0 && strcmp(c->mode, "postpaid") != 0)
		return args_mistake("key create", "--mode: clamp, strict or postpaid is expected, not \"%s\"", c->mode);
	buf_add_str(out, ",\"usage_limits\":[");
	for (size_t i = 0; i < 2; i++) {
		int status;

		if (!given[i])
			continue;
		buf_add_str(out, comma);
		status = writers[i](c, out);
		if (status == ARGS_GO)
			status = write_period(c, out);
		if (status != ARGS_GO)
			return status;
		if (c->mode)
			buf_printf(out, ",\"mode\":\"%s\"", c->mode);
		buf_add_char(out, '}');
		comma = ",";
	}
	buf_add_char(out, ']');
	return ARGS_GO;
}

static void
write_models(const struct create *c, struct buf *out)
{
	buf_add_str(out, ",\"allowed_models\":");
	if (c->models.count == 0) {
		buf_add_str(out, "null");
		return;
	}
	for (uint32_t i = 0; i < c->models.count; i++) {
		buf_add_char(out, i ? ',' : '[');
		buf_add_json(out, slice_of(c->models.text[i]));
	}
	buf_add_char(out, ']');
}

static void
write_time_or_null(struct buf *out, const char *name, int64_t wall_ns)
{
	char time[TIME_BYTES];

	if (wall_ns) {
		clock_format_utc(wall_ns, time, sizeof(time));
		buf_printf(out, ",\"%s\":\"%s\"", name, time);
	} else {
		buf_printf(out, ",\"%s\":null", name);
	}
}

/* The whole document; ARGS_GO or an exit status. */
static int
write_document(const struct create *c, const struct key_secret *secret, struct buf *out)
{
	char hex[2 * ID_BYTES + 1];
	int status;

	if (!key_random_hex(ID_BYTES, hex))
		return 1;
	buf_printf(out, "{\"id\":\"key_%s\",\"slug\":\"%s\",\"workspace\":\"%s\",\"name\":", hex, c->slug, c->workspace);
	buf_add_json(out, slice_of(c->name));
	buf_add_str(out, ",\"user\":");
	if (c->user)
		buf_add_json(out, slice_of(c->user));
	else
		buf_add_str(out, "null");
	if (c->config)
		buf_printf(out, ",\"config\":\"%s\"", c->config);
	else
		buf_add_str(out, ",\"config\":null");
	buf_printf(out, ",\"allow_config_override\":%s,\"metadata\":%s", c->lock_config ? "false" : "true",
	    c->metadata ? c->metadata : "{}");
	status = write_rates(c, out);
	if (status == ARGS_GO)
		status = write_budgets(c, out);
	if (status != ARGS_GO)
		return status;
	write_models(c, out);
	write_time_or_null(out, "expires_at", c->expires_ns);
	buf_add_str(out, ",\"enabled\":true");
	write_time_or_null(out, "created_at", clock_wall_ns());
	buf_printf(out, ",\"rotated_at\":null,\"hashes\":[{\"sha256\":\"%s\",\"expires_at\":null}]}", secret->hex);
	return ARGS_GO;
}

static int
create_store(const struct create *c, struct slice json, const struct key_secret *secret)
{
	struct catalog *catalog;
	char why[WHY_BYTES];
	struct key *key;
	enum catalog_result result;

	/* What workers could not read is not stored. */
	key = key_compile(json, secret->hash, why, sizeof(why));
	if (!key)
		return args_mistake("key create", "%s", why);
	key_free(key);
	catalog = catalog_open(c->store.folder, true, why, sizeof(why));
	if (!catalog)
		return key_failed("key create", why);
	result = catalog_key_put(catalog, json, true, why, sizeof(why));
	catalog_close(catalog);
	if (result != CATALOG_OK)
		return key_failed("key create", why);
	return key_secret_print(json, secret->text, c->json, "The secret is shown this once: keep it where secrets are kept.");
}

int
cmd_key_create(int argc, char **argv)
{
	struct create c = { .slug = NULL };
	struct settings *settings = NULL;
	struct key_secret secret;
	struct buf document;
	int status = create_parse(&c, argc, argv);

	if (status == ARGS_GO)
		status = create_check_names(&c);
	if (status == ARGS_GO)
		status = create_check_rest(&c);
	if (status == ARGS_GO)
		status = args_store_find("key create", &c.store, &settings);
	if (status != ARGS_GO)
		return status;
	if (settings && c.config && !settings_config(settings, slice_of(c.config)))
		status = args_mistake("key create", "--routing-config: there is no config \"%s\" in %s", c.config, c.store.config);
	if (settings)
		settings_put(settings);
	buf_init(&document, KEY_DOCUMENT_BYTES_MAX);
	if (status == ARGS_GO && !key_secret_make(&secret))
		status = 1;
	if (status == ARGS_GO)
		status = write_document(&c, &secret, &document);
	if (status == ARGS_GO)
		status = document.overflow ? key_failed("key create", "the document is too long: shorten the metadata or the models")
		    : create_store(&c, buf_slice(&document), &secret);
	explicit_bzero(&secret, sizeof(secret));
	buf_free(&document);
	return status;
}
