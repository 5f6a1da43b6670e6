/*
 * gateway/cmd_key.c -- weir key: list, rotate, revoke (and create: see
 * cmd_key_create.c).
 *
 * The catalog is changed directly, whether weir runs or not: LMDB orders the
 * writers, and workers see a commit with their next request. Documents are
 * changed as text, because a tree of doubles would round a budget.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/args.h"
#include "gateway/cmd_key_create.h"
#include "gateway/commands.h"
#include "gateway/key_secret.h"
#include "gateway/key_table.h"
#include "gateway/settings.h"
#include "policy/json.h"
#include "shm/base/clock.h"
#include "store/catalog.h"

#define TIME_BYTES 32
#define WHY_BYTES 512

static const char list_usage[] =
    "usage: weir key list [--json] [--config FILE | --data-dir DIR]\n";

static const char rotate_usage[] =
    "usage: weir key rotate SLUG|WORKSPACE/SLUG|ID [--grace DURATION] [--json] [--config FILE | --data-dir DIR]\n"
    "Gives a key a new secret and prints it, once.\n"
    "  --grace           how long the old secret stays valid: 10m, 24h, 7d; at once invalid if not given\n";

static const char revoke_usage[] =
    "usage: weir key revoke SLUG|WORKSPACE/SLUG|ID [--json] [--config FILE | --data-dir DIR]\n"
    "Every request with this key is refused from now on. Its records stay.\n";

/* ---- rotate and revoke ---- */

struct change {
	struct args_store store;
	const char *command, *name, *slug, *grace;
	bool json;
	struct key_secret secret;
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
		return key_failed(c->command, why);
	result = catalog_key_change(catalog, slice_of(c->name), change, c, why, sizeof(why));
	catalog_close(catalog);
	if (result != CATALOG_OK)
		return key_failed(c->command, why);
	if (c->refused)
		return key_failed(c->command, "the key is revoked: create a new one");
	return ARGS_GO;
}

static int
key_rotate(int argc, char **argv)
{
	struct change c = { .command = "key rotate" };
	char note[256] = "The secret is shown this once. The old one is no longer valid.";
	int status = change_parse(&c, rotate_usage, true, argc, argv);

	buf_init(&c.document, KEY_DOCUMENT_BYTES_MAX);
	if (status == ARGS_GO && !key_secret_make(&c.secret))
		status = 1;
	if (status == ARGS_GO)
		status = change_apply(&c, rotate_document);
	if (c.grace_ns > 0) {
		char time[TIME_BYTES];

		clock_format_utc(c.now_ns + c.grace_ns, time, sizeof(time));
		snprintf(note, sizeof(note), "The secret is shown this once. The old one is valid until %s.", time);
	}
	if (status == ARGS_GO)
		status = key_secret_print(buf_slice(&c.document), c.secret.text, c.json, note);
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
		status = key_printed("");
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
		return key_failed("key list", why);
	return key_printed("");
}

int
cmd_key(int argc, char **argv)
{
	static const struct {
		const char *word;
		int (*run)(int argc, char **argv);
	} words[] = {
		{ "create", cmd_key_create }, { "list", key_list }, { "rotate", key_rotate }, { "revoke", key_revoke },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words) && argc > 1; i++)
		if (strcmp(argv[1], words[i].word) == 0)
			return words[i].run(argc - 1, argv + 1);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		printf("%s\n%s\n%s\n%s", cmd_key_create_usage, list_usage, rotate_usage, revoke_usage);
		return 0;
	}
	if (argc > 1)
		return args_mistake("key", "there is no \"%s\": create, list, rotate or revoke is expected", argv[1]);
	return args_mistake("key", "create, list, rotate or revoke is expected");
}
