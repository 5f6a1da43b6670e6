/*
 * gateway/cmd_key.c -- weir key: create, list, rotate, revoke.
 *
 * The catalog is changed directly, whether weir runs or not: LMDB orders the
 * writers, and workers see a commit with their next request. Documents are
 * written and changed as text, because a tree of doubles would round a budget.
 * The secret leaves this process once, on stdout; only its hash is stored.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/key_table.h"
#include "gateway/settings.h"
#include "policy/json.h"
#include "policy/key.h"
#include "shm/base/clock.h"
#include "shm/base/scratch.h"
#include "store/catalog.h"

#define SECRET_RANDOM_BYTES 32
#define SECRET_BYTES (sizeof(KEY_SECRET_PREFIX) + 43)	/* base64url of 32 bytes, NUL */
#define ID_BYTES 24
#define HEX_BYTES (2 * KEY_HASH_BYTES + 1)
#define TIME_BYTES 32
#define WHY_BYTES 512

static const char create_usage[] =
    "usage: weir key create --slug SLUG [--workspace NAME] [--name TEXT]\n"
    "           [--rpm N] [--rph N] [--rpd N]\n"
    "           [--budget USD] [--budget-period total|daily|weekly|monthly]\n"
    "           [--metadata JSON] [--model GLOB]... [--routing-config SLUG] [--lock-config]\n"
    "           [--expires TIME] [--json] [--config FILE | --data-dir DIR]\n"
    "Makes a key and prints its secret, once.\n"
    "  --workspace       \"default\" if it is not given\n"
    "  --budget          dollars, exact to nine decimals: 25, 0.25\n"
    "  --budget-period   when it begins anew (UTC); total, the default: never\n"
    "  --model           models that may be used; \"*\" stands for anything\n"
    "  --lock-config     requests cannot name another config\n"
    "  --expires         2026-12-31T00:00:00Z\n";

static const char list_usage[] =
    "usage: weir key list [--json] [--config FILE | --data-dir DIR]\n";

static const char rotate_usage[] =
    "usage: weir key rotate SLUG|WORKSPACE/SLUG|ID [--grace DURATION] [--json] [--config FILE | --data-dir DIR]\n"
    "Gives a key a new secret and prints it, once.\n"
    "  --grace           how long the old secret stays valid: 10m, 24h, 7d; at once invalid if not given\n";

static const char revoke_usage[] =
    "usage: weir key revoke SLUG|WORKSPACE/SLUG|ID [--json] [--config FILE | --data-dir DIR]\n"
    "Every request with this key is refused from now on. Its records stay.\n";

/* ---- secrets ---- */

struct secret {
	char text[SECRET_BYTES];
	char hex[HEX_BYTES];		/* of its SHA-256 */
	uint8_t hash[KEY_HASH_BYTES];
};

static void
hex_write(const uint8_t *bytes, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* RFC 4648 section 5, without padding. */
static void
base64url(const uint8_t *bytes, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t bits = 0;
	int held = 0;

	for (size_t i = 0; i < n; i++) {
		bits = bits << 8 | bytes[i];
		for (held += 8; held >= 6; held -= 6)
			*out++ = digits[bits >> (held - 6) & 63];
	}
	if (held > 0)
		*out++ = digits[bits << (6 - held) & 63];
	*out = '\0';
}

static bool
random_fill(void *p, size_t n)
{
	if (getrandom(p, n, 0) == (ssize_t)n)
		return true;
	fprintf(stderr, "weir: key: no random bytes: %s\n", strerror(errno));
	return false;
}

static bool
secret_make(struct secret *s)
{
	uint8_t bytes[SECRET_RANDOM_BYTES];

	if (!random_fill(bytes, sizeof(bytes)))
		return false;
	memcpy(s->text, KEY_SECRET_PREFIX, sizeof(KEY_SECRET_PREFIX));
	base64url(bytes, sizeof(bytes), s->text + sizeof(KEY_SECRET_PREFIX) - 1);
	explicit_bzero(bytes, sizeof(bytes));
	key_secret_hash(slice_of(s->text), s->hash);
	hex_write(s->hash, sizeof(s->hash), s->hex);
	return true;
}

/* ---- output ---- */

/* What was printed has arrived, or the exit status says that it has not. */
static int
printed(const char *cure)
{
	if (fflush(stdout) == 0)
		return 0;
	fprintf(stderr, "weir: key: cannot write the output: %s%s\n", strerror(errno), cure);
	return 1;
}

static void
print_members(struct slice json, const char *const *names, size_t count)
{
	struct slice value;

	for (size_t i = 0; i < count; i++)
		if (json_get(json, names[i], &value))
			printf(",\"%s\":%.*s", names[i], SLICE_FMT(value));
}

/* The result of create and rotate; `note` is a line for people. */
static int
print_secret(struct slice json, const char *secret, bool as_json, const char *note)
{
	static const char *const names[] = { "workspace", "name", "expires_at", "created_at", "rotated_at" };
	struct slice id = SLICE_NONE, slug = SLICE_NONE;

	if (!json_get(json, "id", &id) || !json_get(json, "slug", &slug))
		return 1;
	if (as_json) {
		printf("{\"id\":%.*s,\"slug\":%.*s,\"secret\":\"%s\"", SLICE_FMT(id), SLICE_FMT(slug), secret);
		print_members(json, names, sizeof(names) / sizeof(*names));
		printf("}\n");
	} else {
		printf("key     %.*s (%.*s)\nsecret  %s\n%s\n", (int)slug.n - 2, slug.p + 1, (int)id.n - 2, id.p + 1, secret, note);
	}
	return printed(" (the key is made: weir key rotate gives it another secret)");
}

static int
failed(const char *command, const char *why)
{
	fprintf(stderr, "weir: %s: %s\n", command, why);
	return 1;
}

/* ---- create ---- */

struct create {
	struct args_store store;
	const char *slug, *workspace, *name, *rpm, *rph, *rpd, *budget, *period, *metadata, *config, *expires;
	struct arg_many models;
	bool lock_config, json;
	int64_t expires_ns;
};

static int
create_parse(struct create *c, int argc, char **argv)
{
	const struct arg list[] = {
		{ "slug", ARG_TEXT, &c->slug }, { "workspace", ARG_TEXT, &c->workspace }, { "name", ARG_TEXT, &c->name },
		{ "rpm", ARG_TEXT, &c->rpm }, { "rph", ARG_TEXT, &c->rph }, { "rpd", ARG_TEXT, &c->rpd },
		{ "budget", ARG_TEXT, &c->budget }, { "budget-period", ARG_TEXT, &c->period },
		{ "metadata", ARG_TEXT, &c->metadata }, { "model", ARG_MANY, &c->models },
		{ "routing-config", ARG_TEXT, &c->config }, { "lock-config", ARG_FLAG, &c->lock_config },
		{ "expires", ARG_TEXT, &c->expires }, { "json", ARG_FLAG, &c->json },
		{ "config", ARG_TEXT, &c->store.config }, { "data-dir", ARG_TEXT, &c->store.data_dir },
	};
	const struct args args = { "key create", create_usage, list, sizeof(list) / sizeof(*list), NULL };

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
	if (c->period && !c->budget)
		return args_mistake("key create", "--budget-period needs --budget");
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
	const struct { const char *unit, *text; } rates[] = { { "rpm", c->rpm }, { "rph", c->rph }, { "rpd", c->rpd } };
	const char *comma = "";
	int64_t value;

	buf_add_str(out, ",\"rate_limits\":[");
	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		if (!rates[i].text)
			continue;
		if (!args_count(rates[i].text, 1, KEY_RATE_MAX, &value))
			return args_mistake("key create", "--%s: a whole number from 1 to %d is expected, not \"%s\"",
			    rates[i].unit, KEY_RATE_MAX, rates[i].text);
		buf_printf(out, "%s{\"type\":\"requests\",\"unit\":\"%s\",\"value\":%lld}", comma, rates[i].unit, (long long)value);
		comma = ",";
	}
	buf_add_char(out, ']');
	return ARGS_GO;
}

static int
write_budget(const struct create *c, struct buf *out)
{
	enum meter_period period = PERIOD_TOTAL;
	int64_t nusd;

	buf_add_str(out, ",\"usage_limits\":[");
	if (c->budget) {
		if (!args_usd(c->budget, &nusd) || nusd < 1 || nusd > KEY_BUDGET_NUSD_MAX)
			return args_mistake("key create", "--budget: dollars such as 25 or 0.25 are expected (more than 0, at most a billion, nine decimals), not \"%s\"",
			    c->budget);
		if (c->period && !key_period_of(slice_of(c->period), &period))
			return args_mistake("key create", "--budget-period: total, daily, weekly or monthly is expected, not \"%s\"", c->period);
		buf_printf(out, "{\"type\":\"cost\",\"credit_limit_nusd\":%lld,\"period\":\"%s\"}", (long long)nusd,
		    key_period_name(period));
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
write_document(const struct create *c, const struct secret *secret, struct buf *out)
{
	uint8_t id[8];
	char hex[2 * sizeof(id) + 1];
	int status;

	if (!random_fill(id, sizeof(id)))
		return 1;
	hex_write(id, sizeof(id), hex);
	buf_printf(out, "{\"id\":\"key_%s\",\"slug\":\"%s\",\"workspace\":\"%s\",\"name\":", hex, c->slug, c->workspace);
	buf_add_json(out, slice_of(c->name));
	if (c->config)
		buf_printf(out, ",\"config\":\"%s\"", c->config);
	else
		buf_add_str(out, ",\"config\":null");
	buf_printf(out, ",\"allow_config_override\":%s,\"metadata\":%s", c->lock_config ? "false" : "true",
	    c->metadata ? c->metadata : "{}");
	status = write_rates(c, out);
	if (status == ARGS_GO)
		status = write_budget(c, out);
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
create_store(const struct create *c, struct slice json, const struct secret *secret)
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
		return failed("key create", why);
	result = catalog_key_put(catalog, json, true, why, sizeof(why));
	catalog_close(catalog);
	if (result != CATALOG_OK)
		return failed("key create", why);
	return print_secret(json, secret->text, c->json, "The secret is shown this once: keep it where secrets are kept.");
}

static int
key_create(int argc, char **argv)
{
	struct create c = { .slug = NULL };
	struct settings *settings = NULL;
	struct secret secret;
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
	if (status == ARGS_GO && !secret_make(&secret))
		status = 1;
	if (status == ARGS_GO)
		status = write_document(&c, &secret, &document);
	if (status == ARGS_GO)
		status = document.overflow ? failed("key create", "the document is too long: shorten the metadata or the models")
		    : create_store(&c, buf_slice(&document), &secret);
	explicit_bzero(&secret, sizeof(secret));
	buf_free(&document);
	return status;
}

/* ---- rotate and revoke ---- */

struct change {
	struct args_store store;
	const char *command, *name, *slug, *grace;
	bool json;
	struct secret secret;
	int64_t now_ns, grace_ns;
	bool refused;			/* rotate: the key is revoked */
	struct buf document;		/* what was stored */
};

/* The document with some members' values replaced. */
static void
replace_members(struct slice json, struct buf *out, const char *const *names, const struct slice *values, size_t count)
{
	struct slice name, value;
	struct json_iter it;
	char comma = '{';

	if (!json_iter_object(&it, json))
		return;
	while (json_next(&it, &name, &value)) {
		for (size_t i = 0; i < count; i++)
			if (json_string_eq(name, names[i]))
				value = values[i];
		buf_add_char(out, comma);
		buf_add_slice(out, name);
		buf_add_char(out, ':');
		buf_add_slice(out, value);
		comma = ',';
	}
	buf_add_char(out, '}');
}

/* An old secret's entry with its end; false: it has ended, or ends now. */
static bool
keep_hash(const struct change *c, struct slice entry, struct buf *out)
{
	int64_t ends_ns = c->now_ns + c->grace_ns, had_ns;
	struct slice sha256, expires;
	char time[TIME_BYTES];

	if (c->grace_ns == 0 || !json_get(entry, "sha256", &sha256) || !json_get(entry, "expires_at", &expires))
		return false;
	if (json_unescape(expires, time, sizeof(time)) < sizeof(time) && clock_parse_utc(slice_of(time), &had_ns) &&
	    had_ns < ends_ns)
		ends_ns = had_ns;
	if (ends_ns <= c->now_ns)
		return false;
	clock_format_utc(ends_ns, time, sizeof(time));
	buf_printf(out, ",{\"sha256\":%.*s,\"expires_at\":\"%s\"}", SLICE_FMT(sha256), time);
	return true;
}

static bool
rotate_document(struct slice json, struct buf *changed, void *arg)
{
	static const char *const names[] = { "hashes", "rotated_at" };
	struct change *c = arg;
	struct slice hashes, entry, none, values[2];
	bool enabled;
	struct json_iter it;
	uint32_t count = 1;
	struct buf text;
	char time[TIME_BYTES], quoted[TIME_BYTES + 2];

	if (!json_get(json, "enabled", &values[0]) || !json_to_bool(values[0], &enabled) || !enabled) {
		c->refused = true;
		return false;
	}
	/* The newest first: if there are too many, the oldest end early. */
	buf_init(&text, KEY_DOCUMENT_BYTES_MAX);
	buf_printf(&text, "[{\"sha256\":\"%s\",\"expires_at\":null}", c->secret.hex);
	if (json_get(json, "hashes", &hashes) && json_iter_array(&it, hashes))
		while (count < KEY_HASHES_MAX && json_next(&it, &none, &entry))
			count += keep_hash(c, entry, &text);
	buf_add_char(&text, ']');
	clock_format_utc(c->now_ns, time, sizeof(time));
	snprintf(quoted, sizeof(quoted), "\"%s\"", time);
	values[0] = buf_slice(&text);
	values[1] = slice_of(quoted);
	replace_members(json, changed, names, values, 2);
	buf_free(&text);
	buf_clear(&c->document);
	buf_add_slice(&c->document, buf_slice(changed));
	return true;
}

static bool
revoke_document(struct slice json, struct buf *changed, void *arg)
{
	static const char *const names[] = { "enabled" };
	const struct slice values[] = { SLICE("false") };
	struct change *c = arg;

	replace_members(json, changed, names, values, 1);
	buf_clear(&c->document);
	buf_add_slice(&c->document, buf_slice(changed));
	return true;
}

static int
change_parse(struct change *c, const char *usage, bool with_grace, int argc, char **argv)
{
	const struct arg list[] = {
		{ "slug", ARG_TEXT, &c->slug }, { "json", ARG_FLAG, &c->json },
		{ "config", ARG_TEXT, &c->store.config }, { "data-dir", ARG_TEXT, &c->store.data_dir },
		{ "grace", ARG_TEXT, &c->grace },
	};
	const struct args args = { c->command, usage, list, sizeof(list) / sizeof(*list) - (with_grace ? 0 : 1), &c->name };
	struct settings *settings;
	int status = args_parse(&args, argc, argv);

	if (status != ARGS_GO)
		return status;
	if (!c->name == !c->slug)
		return args_mistake(c->command, "one key is expected: its slug, WORKSPACE/SLUG, or its id");
	if (!c->name)
		c->name = c->slug;
	c->now_ns = clock_wall_ns();
	if (c->grace && (!args_duration(c->grace, &c->grace_ns) || c->grace_ns > INT64_MAX - c->now_ns))
		return args_mistake(c->command, "--grace: a duration such as 10m, 24h or 7d is expected, not \"%s\"", c->grace);
	status = args_store_find(c->command, &c->store, &settings);
	if (settings)
		settings_put(settings);
	return status;
}

static int
change_apply(struct change *c, catalog_change_fn *change)
{
	struct catalog *catalog;
	char why[WHY_BYTES];
	enum catalog_result result;

	catalog = catalog_open(c->store.folder, true, why, sizeof(why));
	if (!catalog)
		return failed(c->command, why);
	result = catalog_key_change(catalog, slice_of(c->name), change, c, why, sizeof(why));
	catalog_close(catalog);
	if (result != CATALOG_OK)
		return failed(c->command, why);
	if (c->refused)
		return failed(c->command, "the key is revoked: create a new one");
	return ARGS_GO;
}

static int
key_rotate(int argc, char **argv)
{
	struct change c = { .command = "key rotate" };
	char note[256] = "The secret is shown this once. The old one is no longer valid.";
	int status = change_parse(&c, rotate_usage, true, argc, argv);

	buf_init(&c.document, KEY_DOCUMENT_BYTES_MAX);
	if (status == ARGS_GO && !secret_make(&c.secret))
		status = 1;
	if (status == ARGS_GO)
		status = change_apply(&c, rotate_document);
	if (c.grace_ns > 0) {
		char time[TIME_BYTES];

		clock_format_utc(c.now_ns + c.grace_ns, time, sizeof(time));
		snprintf(note, sizeof(note), "The secret is shown this once. The old one is valid until %s.", time);
	}
	if (status == ARGS_GO)
		status = print_secret(buf_slice(&c.document), c.secret.text, c.json, note);
	explicit_bzero(&c.secret, sizeof(c.secret));
	buf_free(&c.document);
	return status;
}

static int
key_revoke(int argc, char **argv)
{
	struct change c = { .command = "key revoke" };
	struct slice id, slug;
	int status = change_parse(&c, revoke_usage, false, argc, argv);

	buf_init(&c.document, KEY_DOCUMENT_BYTES_MAX);
	if (status == ARGS_GO)
		status = change_apply(&c, revoke_document);
	if (status == ARGS_GO && json_get(buf_slice(&c.document), "id", &id) &&
	    json_get(buf_slice(&c.document), "slug", &slug)) {
		if (c.json)
			printf("{\"id\":%.*s,\"slug\":%.*s,\"enabled\":false}\n", SLICE_FMT(id), SLICE_FMT(slug));
		else
			printf("revoked: %.*s (%.*s)\n", (int)slug.n - 2, slug.p + 1, (int)id.n - 2, id.p + 1);
		status = printed("");
	}
	buf_free(&c.document);
	return status;
}

/* ---- list ---- */

static int
key_list(int argc, char **argv)
{
	struct args_store store = { .config = NULL };
	struct settings *settings;
	char why[WHY_BYTES];
	bool json = false;
	const struct arg list[] = {
		{ "json", ARG_FLAG, &json }, { "config", ARG_TEXT, &store.config }, { "data-dir", ARG_TEXT, &store.data_dir },
	};
	const struct args args = { "key list", list_usage, list, sizeof(list) / sizeof(*list), NULL };
	int status = args_parse(&args, argc, argv);

	if (status == ARGS_GO)
		status = args_store_find("key list", &store, &settings);
	if (status != ARGS_GO)
		return status;
	if (settings)
		settings_put(settings);
	if (key_table_print(store.folder, json, why, sizeof(why)) != 0)
		return failed("key list", why);
	return printed("");
}

int
cmd_key(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(int argc, char **argv);
	} words[] = {
		{ "create", key_create }, { "list", key_list }, { "rotate", key_rotate }, { "revoke", key_revoke },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words) && argc > 1; i++)
		if (strcmp(argv[1], words[i].word) == 0)
			return words[i].run(argc - 1, argv + 1);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		printf("%s\n%s\n%s\n%s", create_usage, list_usage, rotate_usage, revoke_usage);
		return 0;
	}
	if (argc > 1)
		return args_mistake("key", "there is no \"%s\": create, list, rotate or revoke is expected", argv[1]);
	return args_mistake("key", "create, list, rotate or revoke is expected");
}
