/*
 * policy/key.c -- see key.h.
 *
 * The document's members are read one by one from a table; strings are
 * unescaped into a scratch. At the end the key and its strings are packed into
 * one allocation of exactly the size, because a worker keeps many of them.
 * Numbers are read as text: a tree of doubles would round a budget.
 */
#include "policy/key.h"

#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/json.h"
#include "shm/base/clock.h"
#include "shm/base/scratch.h"

#define HASH_BYTES 32
#define COMPILE_BYTES_MAX 262144	/* scratch: a document is 64 KiB at the most */

struct build {
	struct key key;
	struct scratch mem;
	const uint8_t *hash;
	bool hash_found;
	int64_t hash_expires_ns;
	const char *field;		/* at hand, for the sentence */
	const char *mistake;
};

/* ---- names and ids ---- */

static const char *const period_names[] = {
	[PERIOD_TOTAL] = "total",
	[PERIOD_DAILY] = "daily",
	[PERIOD_WEEKLY] = "weekly",
	[PERIOD_MONTHLY] = "monthly",
};

const char *
key_period_name(enum meter_period period)
{
	CHECK(period <= PERIOD_MONTHLY);
	return period_names[period];
}

bool
key_period_of(struct slice name, enum meter_period *period)
{
	for (uint32_t i = 0; i <= PERIOD_MONTHLY; i++) {
		if (slice_eq(name, slice_of(period_names[i]))) {
			*period = i;
			return true;
		}
	}
	return false;
}

static void
sha256(struct slice s, uint8_t out[HASH_BYTES])
{
#if MBEDTLS_VERSION_NUMBER < 0x03000000
	int rc = mbedtls_sha256_ret((const unsigned char *)s.p, s.n, out, 0);
#else
	int rc = mbedtls_sha256((const unsigned char *)s.p, s.n, out, 0);
#endif

	CHECK(rc == 0);		/* it fails only for a wrong last argument */
}

void
key_secret_hash(struct slice secret, uint8_t hash[32])
{
	sha256(secret, hash);
}

struct meter_id
meter_id_of(const char *kind, struct slice id, const char *what)
{
	char text[256];
	uint8_t hash[HASH_BYTES];
	struct meter_id out;
	int n = snprintf(text, sizeof(text), "%s%c%.*s%c%s", kind, '\0', SLICE_FMT(id), '\0', what);

	CHECK(n > 0 && (size_t)n < sizeof(text));
	sha256((struct slice){ text, (size_t)n }, hash);
	memcpy(&out.hi, hash, sizeof(out.hi));
	memcpy(&out.lo, hash + sizeof(out.hi), sizeof(out.lo));
	return out;
}

struct meter_id
key_budget_id(struct slice key_id, enum meter_period period)
{
	char what[24];

	snprintf(what, sizeof(what), "cost:%s", key_period_name(period));
	return meter_id_of("key", key_id, what);
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

/* ---- members ---- */

static bool
member_id(struct build *b, struct slice raw)
{
	return read_name(b, raw, &b->key.id);
}

static bool
member_slug(struct build *b, struct slice raw)
{
	return read_name(b, raw, &b->key.slug);
}

static bool
member_workspace(struct build *b, struct slice raw)
{
	return read_name(b, raw, &b->key.workspace);
}

static bool
member_config(struct build *b, struct slice raw)
{
	return json_is_null(raw) || read_name(b, raw, &b->key.config);
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
		if (!read_text(b, value, 256, &b->key.allowed_models[b->key.allowed_models_count]))
			return false;
		b->key.allowed_models_count++;
	}
	/* An empty list would be read as "all". */
	return b->key.allowed_models_count > 0 || wrong(b, "is empty: null stands for all models");
}

/* A place for one more limit, and no second one on the same meter. */
static struct key_limit *
limit_new(struct build *b, const struct charge *charge)
{
	struct key_limit *limit;

	for (uint32_t i = 0; i < b->key.limits_count; i++) {
		const struct meter_id *id = &b->key.limits[i].charge.id;

		if (id->hi == charge->id.hi && id->lo == charge->id.lo) {
			wrong(b, "has two limits of the same kind");
			return NULL;
		}
	}
	if (b->key.limits_count == KEY_LIMITS_MAX) {
		wrong(b, "has too many limits");
		return NULL;
	}
	limit = &b->key.limits[b->key.limits_count++];
	limit->charge = *charge;
	return limit;
}

static bool
member_is(struct slice object, const char *name, const char *text)
{
	struct slice value;

	return json_get(object, name, &value) && json_string_eq(value, text);
}

/* All members of the object are among these three; NULL ends the list early. */
static bool
only_members(struct slice object, const char *const names[3])
{
	struct slice name, value;
	struct json_iter it;

	if (!json_iter_object(&it, object))
		return false;
	while (json_next(&it, &name, &value)) {
		bool known = false;

		for (int i = 0; i < 3 && names[i] && !known; i++)
			known = json_string_eq(name, names[i]);
		if (!known)
			return false;
	}
	return true;
}

static bool
rate_limit(struct build *b, struct slice raw)
{
	static const char *const names[3] = { "type", "unit", "value" };
	static const struct { const char *unit; int64_t window_ns; } units[] = {
		{ "rpm", 60 * NS_PER_S }, { "rph", 3600 * NS_PER_S }, { "rpd", 86400 * NS_PER_S },
	};
	struct charge charge = { .kind = METER_BUCKET, .amount = 1 };
	const char *unit = NULL;
	struct key_limit *limit;
	struct slice value;

	if (!only_members(raw, names) || !member_is(raw, "type", "requests"))
		return wrong(b, "has a limit that is not of type requests with a unit and a value");
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (member_is(raw, "unit", units[i].unit)) {
			unit = units[i].unit;
			charge.window_ns = units[i].window_ns;
		}
	}
	if (!unit)
		return wrong(b, "has a unit that is not rpm, rph or rpd");
	if (!json_get(raw, "value", &value) || !json_to_i64(value, &charge.limit) || charge.limit < 1 ||
	    charge.limit > KEY_RATE_MAX)
		return wrong(b, "has a value that is not a whole number from 1 to 1000000000");
	charge.id = meter_id_of("key", slice_of(b->key.id), unit);
	limit = limit_new(b, &charge);
	if (!limit)
		return false;
	snprintf(limit->name, sizeof(limit->name), "key %s", unit);
	return true;
}

static bool
usage_limit(struct build *b, struct slice raw)
{
	static const char *const names[3] = { "type", "credit_limit_nusd", "period" };
	struct charge charge = { .kind = METER_BUDGET };
	char *period = NULL;
	struct key_limit *limit;
	struct slice value;

	if (!only_members(raw, names) || !member_is(raw, "type", "cost"))
		return wrong(b, "has a limit that is not of type cost with credit_limit_nusd and a period");
	if (!json_get(raw, "period", &value) || !read_text(b, value, 16, &period) ||
	    !key_period_of(slice_of(period), &charge.period))
		return wrong(b, "has a period that is not total, daily, weekly or monthly");
	if (!json_get(raw, "credit_limit_nusd", &value) || !json_to_i64(value, &charge.limit) || charge.limit < 1 ||
	    charge.limit > KEY_BUDGET_NUSD_MAX)
		return wrong(b, "has a credit_limit_nusd that is not a whole number from 1 to 1000000000000000000");
	charge.id = key_budget_id(slice_of(b->key.id), charge.period);
	limit = limit_new(b, &charge);
	if (!limit)
		return false;
	snprintf(limit->name, sizeof(limit->name), "key %s budget", period);
	b->key.has_cost_budget = true;
	return true;
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

static bool
member_rates(struct build *b, struct slice raw)
{
	return each_of(b, raw, rate_limit);
}

static bool
member_budgets(struct build *b, struct slice raw)
{
	return each_of(b, raw, usage_limit);
}

/* Of the secrets only the presented one matters: when it ends. */
static bool
one_hash(struct build *b, struct slice raw)
{
	static const char *const names[3] = { "sha256", "expires_at", NULL };
	char hex[2 * HASH_BYTES + 1];
	struct slice value, expires;

	if (!only_members(raw, names) || !json_get(raw, "sha256", &value))
		return wrong(b, "has an entry that is not a sha256 and its expires_at");
	if (!b->hash || b->hash_found)
		return true;
	for (size_t i = 0; i < HASH_BYTES; i++)
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

/* The id comes first: meters are named by it. */
static const struct {
	const char *name;
	bool (*read)(struct build *b, struct slice raw);
	bool required;
} members[] = {
	{ "id", member_id, true },
	{ "slug", member_slug, true },
	{ "workspace", member_workspace, true },
	{ "name", member_ignored, false },
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
	b->field = "hashes";
	return !b->hash || b->hash_found || wrong(b, "does not have the presented secret");
}

/* ---- packing ---- */

static size_t
text_bytes(const struct key *k)
{
	const char *const names[] = { k->id, k->slug, k->workspace, k->config };
	size_t n = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		n += names[i] ? strlen(names[i]) + 1 : 0;
	for (uint32_t i = 0; i < k->allowed_models_count; i++)
		n += strlen(k->allowed_models[i]) + 1;
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

static struct key *
pack(const struct key *from)
{
	struct key *k = malloc(sizeof(*k) + text_bytes(from));
	char *at = (char *)(k + 1);

	if (!k)
		return NULL;
	*k = *from;
	move_string(&at, &k->id);
	move_string(&at, &k->slug);
	move_string(&at, &k->workspace);
	move_string(&at, &k->config);
	for (uint32_t i = 0; i < k->allowed_models_count; i++)
		move_string(&at, &k->allowed_models[i]);
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
		k = pack(&b.key);
		if (!k)
			snprintf(why, why_size, "no memory for a key");
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
		if (slice_glob(slice_of(k->allowed_models[i]), model))
			return true;
	return k->allowed_models_count == 0;
}
