/*
 * policy/limit_policy.c -- whom a policy is for, and which meter is theirs.
 *
 * What was compiled (limit_policy_parse.c) is compared with a request's slices;
 * only metadata is looked up in JSON, by conditions that come last. Nothing is
 * allocated.
 *
 * Values come from clients. What they make of a group's meter is a SHA-256, so
 * nobody can choose to share, or to miss, another group's meter.
 */
#include "policy/limit_policy.h"

#include <stdio.h>

#include "policy/digest.h"
#include "policy/json.h"
#include "policy/limit_policy_parts.h"

#define PATH_BYTES 384
#define HASH_TEXT_BYTES 33		/* "#" and 16 bytes in hexadecimal */

/* ---- what a request has ---- */

struct found {
	struct slice text;		/* none: it has no such value */
	bool raw;			/* a JSON string with its quotes */
};

static struct found
metadata_of(const struct limit_subject *s, const char *name)
{
	struct found f = { .raw = true };

	if (s->metadata.n < 2 || !json_get(s->metadata, name, &f.text) || f.text.p[0] != '"')
		f.text = SLICE_NONE;
	return f;
}

static struct found
plain(struct slice text)
{
	return (struct found){ .text = text.n > 0 ? text : SLICE_NONE };
}

static struct found
find(const struct field *f, const struct limit_subject *s)
{
	struct found user;

	switch (f->key) {
	case KEY_API_KEY:
		return plain(s->key_id);
	case KEY_WORKSPACE:
		return plain(s->workspace);
	case KEY_USER:
		user = plain(s->user);
		if (!user.text.p)
			user = metadata_of(s, "_user");
		return user.text.p ? user : metadata_of(s, "user");
	case KEY_PROVIDER:
		return plain(s->provider_type);
	case KEY_VIRTUAL_KEY:
		return plain(s->provider);
	case KEY_CONFIG:
		return plain(s->config);
	case KEY_MODEL:
		return plain(s->model);
	case KEY_METADATA:
		break;
	}
	return metadata_of(s, f->metadata);
}

/* ---- matching ---- */

static bool
value_matches(enum subject_key key, const struct value *v, const struct found *f, const struct limit_subject *s)
{
	if (f->raw)
		return json_string_is(f->text, v->text);
	if (key == KEY_MODEL && v->first.p)
		return slice_glob(v->first, s->provider_type) && slice_glob(v->rest, f->text);
	if (key == KEY_MODEL)
		return slice_glob(v->text, f->text);
	if (key == KEY_API_KEY && v->first.p)
		return slice_eq(v->first, s->workspace) && slice_eq(v->rest, s->key_slug);
	return slice_eq(v->text, f->text);
}

static bool
values_match(enum subject_key key, const struct values *v, const struct found *f, const struct limit_subject *s)
{
	if (v->any)
		return true;
	for (uint32_t i = 0; i < v->count; i++)
		if (value_matches(key, &v->list[i], f, s))
			return true;
	return false;
}

bool
limit_policy_matches(const struct limit_policy *lp, const struct limit_subject *s)
{
	if (lp->workspace.p && !slice_eq(lp->workspace, s->workspace))
		return false;
	for (uint32_t i = 0; i < lp->conditions_count; i++) {
		const struct policy_condition *c = &lp->conditions[i];
		struct found f = find(&c->field, s);

		if (!f.text.p || values_match(c->field.key, &c->exclude, &f, s) ||
		    !values_match(c->field.key, &c->value, &f, s))
			return false;
	}
	return true;
}

/* ---- groups ---- */

/* Text of any length, of which the first bytes are kept. */
struct group_text {
	char *out;
	size_t n;
};

static void
group_add(struct group_text *t, struct slice s)
{
	size_t room = t->n < POLICY_GROUP_BYTES_MAX ? POLICY_GROUP_BYTES_MAX - t->n : 0;

	if (s.n > 0 && room > 0)
		memcpy(t->out + t->n, s.p, s.n < room ? s.n : room);
	t->n += s.n;
}

/* How often `key` stands between two groups' values, be it as a part of one. */
static uint32_t
separators(struct slice text, struct slice key)
{
	uint32_t n = 0;

	for (size_t i = 0; i + key.n + 2 <= text.n; i++)
		n += text.p[i] == '-' && memcmp(text.p + i + 1, key.p, key.n) == 0 && text.p[i + 1 + key.n] == ':';
	return n;
}

/* Could the text be made of other values too? */
static bool
group_is_ambiguous(const struct limit_policy *lp, struct slice text)
{
	for (uint32_t i = 1; i < lp->groups_count; i++)
		if (separators(text, lp->groups[i].written) != 1)
			return true;
	return false;
}

/* "#" and a hash of the values in place of what does not fit. */
static struct slice
group_hash(struct group_text *t, const struct slice *parts, uint32_t n)
{
	uint8_t hash[DIGEST_BYTES];
	char text[HASH_TEXT_BYTES + 1] = "#";

	digest_sha256_parts(parts, n, hash);
	for (uint32_t i = 0; i < (HASH_TEXT_BYTES - 1) / 2; i++)
		snprintf(text + 1 + 2 * i, 3, "%02x", hash[i]);
	if (t->n > POLICY_GROUP_BYTES_MAX - HASH_TEXT_BYTES)
		t->n = POLICY_GROUP_BYTES_MAX - HASH_TEXT_BYTES;
	group_add(t, (struct slice){ text, HASH_TEXT_BYTES });
	return (struct slice){ t->out, t->n };
}

/* The value of one key in a group. A model is "provider.model"; metadata is
 * unescaped into `decoded`, of which *used bytes are taken. */
static bool
group_value(const struct field *field, const struct limit_subject *s, char decoded[METADATA_BYTES_MAX], size_t *used,
    struct slice part[3])
{
	struct found f = find(field, s);
	size_t room = METADATA_BYTES_MAX - *used, n;

	part[0] = part[1] = SLICE_NONE;
	part[2] = f.text;
	if (!f.text.p)
		return false;
	if (field->key == KEY_MODEL) {
		part[0] = s->provider_type;
		part[1] = SLICE(".");
		return s->provider_type.n > 0;
	}
	if (!f.raw)
		return true;
	n = json_unescape(f.text, decoded + *used, room);
	if (n < room) {		/* else, which no metadata of ours does, its JSON serves as well */
		part[2] = (struct slice){ decoded + *used, n };
		*used += n + 1;
	}
	return true;
}

struct slice
limit_policy_group(const struct limit_policy *lp, const struct limit_subject *s, char out[POLICY_GROUP_BYTES_MAX])
{
	struct slice parts[3 * POLICY_GROUP_KEYS_MAX];
	struct group_text text = { .out = out };
	char decoded[METADATA_BYTES_MAX];
	size_t used = 0;

	if (lp->groups_count == 0)
		return SLICE("default");
	for (uint32_t i = 0; i < lp->groups_count; i++) {
		if (!group_value(&lp->groups[i], s, decoded, &used, parts + 3 * i))
			return SLICE_NONE;
		if (i > 0)
			group_add(&text, SLICE("-"));
		group_add(&text, lp->groups[i].written);
		group_add(&text, SLICE(":"));
		for (uint32_t j = 0; j < 3; j++)
			group_add(&text, parts[3 * i + j]);
	}
	/* A whole one is shorter than any that was cut; one that is not
	 * ambiguous is no other one with its hash. */
	if (text.n >= POLICY_GROUP_BYTES_MAX || group_is_ambiguous(lp, (struct slice){ out, text.n }))
		return group_hash(&text, parts, 3 * lp->groups_count);
	return (struct slice){ out, text.n };
}

const struct limit *
limit_policy_limit(const struct limit_policy *lp)
{
	return &lp->limit;
}

const char *
limit_policy_id(const struct limit_policy *lp)
{
	return lp->id;
}

bool
limit_policy_active(const struct limit_policy *lp)
{
	return lp->active;
}

void
limit_policy_charge(const struct limit_policy *lp, struct slice group, struct charge *out, char name[METER_NAME_BYTES])
{
	*out = lp->limit.charge;
	out->name = name;
	if (lp->groups_count == 0) {
		memcpy(name, lp->limit.name, METER_NAME_BYTES);
		return;
	}
	const struct slice parts[] = { SLICE("policy group"), slice_of(lp->id), slice_of(lp->what), group };
	uint8_t hash[DIGEST_BYTES];

	digest_sha256_parts(parts, sizeof(parts) / sizeof(*parts), hash);
	memcpy(&out->id.hi, hash, sizeof(out->id.hi));
	memcpy(&out->id.lo, hash + sizeof(out->id.hi), sizeof(out->id.lo));
	out->group = &lp->group;
	limit_name_write(name, lp->words, group, "");
}

void
limit_policy_values(const struct limit_policy *lp, const char *path, limit_policy_value_fn *each, void *arg)
{
	static const char *const lists[] = { "value", "excludes" };
	char at[PATH_BYTES];

	for (uint32_t i = 0; i < lp->conditions_count; i++) {
		const struct policy_condition *c = &lp->conditions[i];
		const struct values *values[] = { &c->value, &c->exclude };

		for (uint32_t j = 0; j < 2; j++) {
			snprintf(at, sizeof(at), "%s.conditions[%u].%s", path, c->place, lists[j]);
			for (uint32_t k = 0; k < values[j]->count; k++)
				each(at, c->field.written.p, values[j]->list[k].text, arg);
		}
	}
}
