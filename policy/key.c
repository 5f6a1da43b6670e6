/*
 * policy/key.c -- see key.h.
 *
 * The document's members are read one by one from a table; strings are
 * unescaped into a scratch. At the end the key, its limits and its strings are
 * packed into one allocation of exactly the size, because a worker keeps many
 * of them.
 */
#include "policy/key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/digest.h"
#include "policy/json.h"
#include "shm/base/clock.h"
#include "shm/base/scratch.h"

#define COMPILE_BYTES_MAX 262144	/* scratch: a document is 64 KiB at the most */
#define USER_BYTES_MAX 256

struct build {
	struct key key;
	struct limit limits[LIMITS_MAX];
	struct slice rate_limits, usage_limits;
	struct scratch mem;
	const uint8_t *hash;
	bool hash_found;
	int64_t hash_expires_ns;
	const char *field;		/* at hand, for the sentence */
	const char *mistake;
	char limits_mistake[512];
};

void
key_secret_hash(struct slice secret, uint8_t hash[32])
{
	digest_sha256(secret, hash);
}

/* ---- values ---- */

static bool
wrong(struct build *b, const char *what)
{
	b->mistake = what;
	return false;
}

static bool
read_text(struct build *b, struct slice raw, size_t most, char **out)
{
	char *text;
	size_t n;

	if (raw.n < 2 || *raw.p != '"')
		return wrong(b, "is not a string");
	text = scratch_alloc(&b->mem, raw.n);
	if (!text)
		return wrong(b, "is too long");
	n = json_unescape(raw, text, raw.n);
	if (n >= raw.n || n > most || memchr(text, '\0', n))
		return wrong(b, "is too long or not a proper string");
	text[n] = '\0';
	*out = text;
	return true;
}

static bool
read_time(struct build *b, struct slice raw, int64_t *wall_ns)
{
	char *text;

	if (json_is_null(raw)) {
		*wall_ns = 0;
		return true;
	}
	if (!read_text(b, raw, 64, &text))
		return false;
	return clock_parse_utc(slice_of(text), wall_ns) || wrong(b, "is not a time (2026-12-31T00:00:00Z)");
}

static bool
read_name(struct build *b, struct slice raw, char **out)
{
	return read_text(b, raw, 64, out) && (**out != '\0' || wrong(b, "is empty"));
}

static bool
read_own_name(struct build *b, struct slice raw, struct slice *out)
{
	char *text;

	if (!read_name(b, raw, &text))
		return false;
	*out = slice_of(text);
	return true;
}

/* ---- members ---- */

static bool
member_id(struct build *b, struct slice raw)
{
	return read_own_name(b, raw, &b->key.id);
}

static bool
member_slug(struct build *b, struct slice raw)
{
	return read_own_name(b, raw, &b->key.slug);
}

static bool
member_workspace(struct build *b, struct slice raw)
{
	return read_own_name(b, raw, &b->key.workspace);
}

static bool
member_config(struct build *b, struct slice raw)
{
	return json_is_null(raw) || read_name(b, raw, &b->key.config);
}

static bool
member_user(struct build *b, struct slice raw)
{
	return json_is_null(raw) ||
	    (read_text(b, raw, USER_BYTES_MAX, &b->key.user) && (*b->key.user != '\0' || wrong(b, "is empty")));
}

static bool
member_override(struct build *b, struct slice raw)
{
	return json_to_bool(raw, &b->key.allow_config_override) || wrong(b, "is not true or false");
}

static bool
member_enabled(struct build *b, struct slice raw)
{
	return json_to_bool(raw, &b->key.enabled) || wrong(b, "is not true or false");
}

static bool
member_expires(struct build *b, struct slice raw)
{
	return read_time(b, raw, &b->key.expires_wall_ns);
}

static bool
member_metadata(struct build *b, struct slice raw)
{
	struct metadata_error why;

	return json_is_null(raw) || metadata_parse(raw, false, &b->mem, &b->key.metadata, &why) ||
	    wrong(b, "is not an object of short strings");
}

/* For people and tools; nothing is decided by it. */
static bool
member_ignored(struct build *b, struct slice raw)
{
	(void)b;
	(void)raw;
	return true;
}

static bool
member_models(struct build *b, struct slice raw)
{
	struct json_iter it;
	struct slice none, value;

	if (json_is_null(raw))
		return true;
	if (!json_iter_array(&it, raw))
		return wrong(b, "is not a list");
	while (json_next(&it, &none, &value)) {
		if (b->key.allowed_models_count == KEY_MODELS_MAX)
			return wrong(b, "has too many entries");
		char *text;
		if (!read_text(b, value, 256, &text))
			return false;
		b->key.allowed_models[b->key.allowed_models_count++] = slice_of(text);
	}
	/* An empty list would be read as "all". */
	return b->key.allowed_models_count > 0 || wrong(b, "is empty: null stands for all models");
}

/* All members of the object are among these two. */
static bool
only_members(struct slice object, const char *const names[2])
{
	struct slice name, value;
	struct json_iter it;

	if (!json_iter_object(&it, object))
		return false;
	while (json_next(&it, &name, &value)) {
		bool known = false;

		for (int i = 0; i < 2 && !known; i++)
			known = json_string_eq(name, names[i]);
		if (!known)
			return false;
	}
	return true;
}

static bool
member_rates(struct build *b, struct slice raw)
{
	b->rate_limits = raw;
	return true;
}

static bool
member_budgets(struct build *b, struct slice raw)
{
	b->usage_limits = raw;
	return true;
}

/* After the others: limits are named by the id and the slug. */
static bool
read_limits(struct build *b)
{
	struct limit_owner owner = { .kind = "key", .id = b->key.id };
	struct problems problems;
	char shown[160];
	bool ok;

	snprintf(shown, sizeof(shown), "%s/%s", b->key.workspace.p, b->key.slug.p);
	owner.shown = slice_of(shown);
	problems_init(&problems);
	ok = limits_parse(b->rate_limits, b->usage_limits, &owner, "", b->limits, &b->key.limits.count, &problems);
	if (!ok) {
		struct slice text = buf_slice(&problems.text);
		const char *end = memchr(text.p, '\n', text.n);

		snprintf(b->limits_mistake, sizeof(b->limits_mistake), "%.*s", end ? (int)(end - text.p) : (int)text.n, text.p);
	}
	problems_free(&problems);
	return ok;
}

static bool
each_of(struct build *b, struct slice raw, bool (*one)(struct build *, struct slice))
{
	struct json_iter it;
	struct slice none, value;

	if (json_is_null(raw))
		return true;
	if (!json_iter_array(&it, raw))
		return wrong(b, "is not a list");
	while (json_next(&it, &none, &value))
		if (!one(b, value))
			return false;
	return true;
}

/* Of the secrets only the presented one matters: when it ends. */
static bool
one_hash(struct build *b, struct slice raw)
{
	static const char *const names[2] = { "sha256", "expires_at" };
	char hex[2 * DIGEST_BYTES + 1];
	struct slice value, expires;

	if (!only_members(raw, names) || !json_get(raw, "sha256", &value))
		return wrong(b, "has an entry that is not a sha256 and its expires_at");
	if (!b->hash || b->hash_found)
		return true;
	for (size_t i = 0; i < DIGEST_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", b->hash[i]);
	/* Both sides are hashes: how long the comparison takes says nothing
	 * about the secret behind them. */
	if (!json_string_eq(value, hex))
		return true;
	b->hash_found = true;
	return !json_get(raw, "expires_at", &expires) || read_time(b, expires, &b->hash_expires_ns);
}

static bool
member_hashes(struct build *b, struct slice raw)
{
	return each_of(b, raw, one_hash);
}

/* ---- the document ---- */

static const struct {
	const char *name;
	bool (*read)(struct build *b, struct slice raw);
	bool required;
} members[] = {
	{ "id", member_id, true },
	{ "slug", member_slug, true },
	{ "workspace", member_workspace, true },
	{ "name", member_ignored, false },
	{ "user", member_user, false },
	{ "config", member_config, false },
	{ "allow_config_override", member_override, false },
	{ "metadata", member_metadata, false },
	{ "rate_limits", member_rates, false },
	{ "usage_limits", member_budgets, false },
	{ "allowed_models", member_models, false },
	{ "expires_at", member_expires, false },
	{ "enabled", member_enabled, true },
	{ "created_at", member_ignored, false },
	{ "rotated_at", member_ignored, false },
	{ "hashes", member_hashes, true },
};
#define MEMBERS_COUNT (sizeof(members) / sizeof(*members))

/* Each member at most once, and none that is not in the table. */
static bool
collect(struct build *b, struct slice json, struct slice values[MEMBERS_COUNT])
{
	struct slice name, value;
	struct json_iter it;

	if (!json_iter_object(&it, json))
		return wrong(b, "is not an object");
	while (json_next(&it, &name, &value)) {
		size_t i = 0;

		while (i < MEMBERS_COUNT && !json_string_eq(name, members[i].name))
			i++;
		if (i == MEMBERS_COUNT)
			return wrong(b, "has a member that this version does not know");
		if (values[i].p)
			return wrong(b, "has a member twice");
		values[i] = value;
	}
	return true;
}

static bool
build_all(struct build *b, struct slice json)
{
	struct slice values[MEMBERS_COUNT] = { SLICE_NONE };
	struct json_error error;

	b->field = "the document";
	if (!json_check(json, &error))
		return wrong(b, error.what);
	if (!collect(b, json, values))
		return false;
	for (size_t i = 0; i < MEMBERS_COUNT; i++) {
		b->field = members[i].name;
		if (!values[i].p && members[i].required)
			return wrong(b, "is missing");
		if (values[i].p && !members[i].read(b, values[i]))
			return false;
	}
	if (!read_limits(b))
		return false;
	b->field = "hashes";
	return !b->hash || b->hash_found || wrong(b, "does not have the presented secret");
}

/* ---- packing ---- */

static size_t
text_bytes(const struct key *k)
{
	const char *const names[] = { k->id.p, k->slug.p, k->workspace.p, k->config, k->user };
	size_t n = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		n += names[i] ? strlen(names[i]) + 1 : 0;
	for (uint32_t i = 0; i < k->allowed_models_count; i++)
		n += k->allowed_models[i].n + 1;
	for (uint32_t i = 0; i < k->metadata.count; i++)
		n += k->metadata.pair[i].key.n + k->metadata.pair[i].value.n;
	return n;
}

static char *
move_bytes(char **at, struct slice s)
{
	char *p = *at;

	if (s.n > 0)
		memcpy(p, s.p, s.n);
	*at += s.n;
	return p;
}

static void
move_string(char **at, char **string)
{
	if (*string)
		*string = move_bytes(at, (struct slice){ *string, strlen(*string) + 1 });
}

static void
move_name(char **at, struct slice *name)
{
	name->p = move_bytes(at, (struct slice){ name->p, name->n + 1 });
}

static struct key *
pack(const struct key *from, const struct limit *limits)
{
	size_t limits_bytes = from->limits.count * sizeof(*limits);
	struct key *k = malloc(sizeof(*k) + limits_bytes + text_bytes(from));
	char *at;

	if (!k)
		return NULL;
	*k = *from;
	k->limits.limit = (struct limit *)(k + 1);
	limits_copy(k->limits.limit, limits, k->limits.count);
	at = (char *)(k + 1) + limits_bytes;
	move_name(&at, &k->id);
	move_name(&at, &k->slug);
	move_name(&at, &k->workspace);
	move_string(&at, &k->config);
	move_string(&at, &k->user);
	for (uint32_t i = 0; i < k->allowed_models_count; i++)
		move_name(&at, &k->allowed_models[i]);
	for (uint32_t i = 0; i < k->metadata.count; i++) {
		struct metadata_pair *pair = &k->metadata.pair[i];

		pair->key.p = move_bytes(&at, pair->key);
		pair->value.p = move_bytes(&at, pair->value);
	}
	return k;
}

struct key *
key_compile(struct slice json, const uint8_t hash[32], char *why, size_t why_size)
{
	static uint64_t serial;		/* a process compiles keys in one thread */
	struct build b = { .hash = hash, .key = { .refs = 1, .serial = ++serial, .allow_config_override = true } };
	struct key *k = NULL;

	scratch_init(&b.mem, COMPILE_BYTES_MAX);
	if (build_all(&b, json)) {
		/* The earlier of the key's end and the presented secret's. */
		if (b.hash_expires_ns && (!b.key.expires_wall_ns || b.hash_expires_ns < b.key.expires_wall_ns))
			b.key.expires_wall_ns = b.hash_expires_ns;
		k = pack(&b.key, b.limits);
		if (!k)
			snprintf(why, why_size, "no memory for a key");
	} else if (b.limits_mistake[0]) {
		snprintf(why, why_size, "a key's document: %s", b.limits_mistake);
	} else {
		snprintf(why, why_size, "a key's document: %s %s", b.field, b.mistake);
	}
	scratch_reset(&b.mem);
	return k;
}

void
key_free(struct key *k)
{
	free(k);
}

bool
key_model_allowed(const struct key *k, struct slice model)
{
	for (uint32_t i = 0; i < k->allowed_models_count; i++)
		if (slice_glob(k->allowed_models[i], model))
			return true;
	return k->allowed_models_count == 0;
}
