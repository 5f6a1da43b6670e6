/*
 * policy/limit_policy_parse.c -- a policy's document is compiled, or every
 * mistake in it is told.
 *
 * One allocation holds it all: the policy, its conditions and groups, a place
 * for each string of the document, and the strings. How large that is, is known
 * before anything is read: a text is never longer than its JSON. What the
 * values of a condition are made of ("@type/model", "workspace/slug") is taken
 * apart here.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy/decimal.h"
#include "policy/json.h"
#include "policy/limit_policy_parts.h"

#define PATH_BYTES 384
#define PART_PATH_BYTES (PATH_BYTES + 64)	/* with "[15].excludes[1023]" behind it */
#define NAME_BYTES_MAX 1020		/* Portkey has 255 characters */
#define DESCRIPTION_BYTES_MAX 2000	/* and 500 */

enum member {
	MEMBER_ID, MEMBER_NAME, MEMBER_DESCRIPTION, MEMBER_CONDITIONS, MEMBER_GROUP_BY, MEMBER_GROUPS_MAX,
	MEMBER_WORKSPACE, MEMBER_STATUS, MEMBER_TARGET,
	MEMBERS_COUNT
};

static const char *const members[MEMBERS_COUNT] = {
	"id", "name", "description", "conditions", "group_by", "groups_max", "workspace_id", "status", "target",
};

static const struct { const char *name; enum subject_key key; } keys[] = {
	{ "api_key", KEY_API_KEY }, { "workspace", KEY_WORKSPACE }, { "workspace_id", KEY_WORKSPACE }, { "user", KEY_USER },
	{ "provider", KEY_PROVIDER }, { "virtual_key", KEY_VIRTUAL_KEY }, { "config", KEY_CONFIG }, { "model", KEY_MODEL },
};
#define KEYS_COUNT (sizeof(keys) / sizeof(*keys))

/* What Portkey has and weir has not. */
static const struct { const char *name, *why; } foreign[] = {
	{ "organisation_id", "weir serves one organisation: leave it out" },
	{ "prompt", "weir keeps no prompts: leave it out" },
	{ "endpoint_type", "not yet supported" },
};

struct compile {
	struct limit_policy *lp;
	struct value *values;		/* next free place */
	char *texts;
	const char *path;
	struct problems *problems;
	struct slice value[MEMBERS_COUNT];	/* none: absent or null */
	uint32_t place;			/* of the condition at hand */
};

static const char *
at_member(const struct compile *c, const char *name, char out[PATH_BYTES])
{
	snprintf(out, PATH_BYTES, "%s%s%s", c->path, c->path[0] ? "." : "", name);
	return out;
}

/* A string's text, with a NUL behind it; none and a problem: it is not one of 1 to `most` bytes. */
static struct slice
text_take(struct compile *c, struct slice raw, size_t most, const char *path)
{
	struct slice text = SLICE_NONE;

	if (raw.p[0] == '"') {
		/* Without its quotes and with a NUL it is shorter than `raw`. */
		text = (struct slice){ c->texts, json_unescape(raw, c->texts, raw.n) };
		if (text.n > 0 && text.n <= most && !memchr(text.p, '\0', text.n)) {
			c->texts += text.n + 1;
			return text;
		}
	}
	problem_add(c->problems, path, "must be a string of 1 to %zu bytes, not %s", most, problem_name(raw).text);
	return SLICE_NONE;
}

/* ---- members ---- */

static uint32_t
member_of(struct slice raw_name)
{
	uint32_t m = 0;

	while (m < MEMBERS_COUNT && !json_string_eq(raw_name, members[m]))
		m++;
	return m;
}

static void
unknown_member(struct compile *c, struct slice raw_name)
{
	struct slice leaf = { raw_name.p + 1, raw_name.n - 2 };
	struct problem_guess guess = { .wanted = leaf };
	char path[PATH_BYTES];

	at_member(c, problem_name(leaf).text, path);
	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++)
		if (slice_eq(leaf, slice_of(foreign[i].name))) {
			problem_add(c->problems, path, "%s", foreign[i].why);
			return;
		}
	for (uint32_t m = 0; m < MEMBERS_COUNT; m++)
		problem_guess_try(&guess, members[m]);
	limit_members_guess(&guess);
	if (problem_guess_best(&guess))
		problem_add(c->problems, path, "unknown field; did you mean \"%s\"?", problem_guess_best(&guess));
	else
		problem_add(c->problems, path, "unknown field");
}

/* Notes the policy's own members. */
static void
collect(struct compile *c, struct slice json)
{
	bool given[MEMBERS_COUNT] = { false };
	struct slice name, value;
	char path[PATH_BYTES];
	struct json_iter it;

	if (!json_iter_object(&it, json))
		return;
	while (json_next(&it, &name, &value)) {
		uint32_t m = member_of(name);

		if (m == MEMBERS_COUNT) {
			if (!limit_member_known(name))
				unknown_member(c, name);
			continue;
		}
		if (given[m])
			problem_add(c->problems, at_member(c, members[m], path), "given twice");
		given[m] = true;
		if (!json_is_null(value))
			c->value[m] = value;
	}
}

static void
read_id(struct compile *c)
{
	char path[PATH_BYTES];

	if (!c->value[MEMBER_ID].p) {
		problem_add(c->problems, c->path, "needs \"id\": a name that never changes, because it names the meters");
		return;
	}
	struct slice id = text_take(c, c->value[MEMBER_ID], CONFIG_SLUG_BYTES_MAX, at_member(c, "id", path));

	if (id.p && !config_slug_valid(id))
		problem_add(c->problems, path, "must be 1 to %d of A-Z a-z 0-9 . _ -", CONFIG_SLUG_BYTES_MAX);
	c->lp->id = id.p;
}

/* Texts for people, which are checked and not kept. */
static void
read_words(struct compile *c, enum member m, size_t most)
{
	char path[PATH_BYTES];

	if (c->value[m].p && !(c->value[m].p[0] == '"' && json_unescape(c->value[m], NULL, 0) <= most))
		problem_add(c->problems, at_member(c, members[m], path), "must be a string of at most %zu bytes", most);
}

static void
read_rest(struct compile *c)
{
	int64_t most = POLICY_GROUPS_DEFAULT;
	char path[PATH_BYTES];

	if (c->value[MEMBER_GROUPS_MAX].p &&
	    (!decimal_parse(c->value[MEMBER_GROUPS_MAX], 0, POLICY_GROUPS_MAX, &most) || most < 1))
		problem_add(c->problems, at_member(c, "groups_max", path), "must be a whole number from 1 to %d, not %s",
		    POLICY_GROUPS_MAX, problem_name(c->value[MEMBER_GROUPS_MAX]).text);
	c->lp->group.most = most;
	if (c->value[MEMBER_WORKSPACE].p)
		c->lp->workspace = text_take(c, c->value[MEMBER_WORKSPACE], CONFIG_SLUG_BYTES_MAX,
		    at_member(c, "workspace_id", path));
	c->lp->active = !c->value[MEMBER_STATUS].p || !json_string_eq(c->value[MEMBER_STATUS], "archived");
	if (c->lp->active && c->value[MEMBER_STATUS].p && !json_string_eq(c->value[MEMBER_STATUS], "active"))
		problem_add(c->problems, at_member(c, "status", path), "must be \"active\" or \"archived\", not %s",
		    problem_name(c->value[MEMBER_STATUS]).text);
	if (c->value[MEMBER_TARGET].p && !json_string_eq(c->value[MEMBER_TARGET], "llm"))
		problem_add(c->problems, at_member(c, "target", path), "must be \"llm\", not %s: no other target is supported",
		    problem_name(c->value[MEMBER_TARGET]).text);
}

/* ---- conditions and groups ---- */

static void
unknown_key(struct compile *c, struct slice key, const char *path)
{
	struct problem_guess guess = { .wanted = key };

	for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++)
		if (slice_eq(key, slice_of(foreign[i].name))) {
			problem_add(c->problems, path, "\"%s\": %s", foreign[i].name, foreign[i].why);
			return;
		}
	for (size_t i = 0; i < KEYS_COUNT; i++)
		problem_guess_try(&guess, keys[i].name);
	if (problem_guess_best(&guess))
		problem_add(c->problems, path, "there is no key \"%s\"; did you mean \"%s\"?", problem_name(key).text,
		    problem_guess_best(&guess));
	else
		problem_add(c->problems, path, "there is no key \"%s\": api_key, workspace, user, provider, virtual_key, config, "
		    "model, or metadata.NAME for a field of the metadata", problem_name(key).text);
}

/* The "key" of a condition or group. */
static bool
read_key(struct compile *c, struct slice raw, const char *path, struct field *out)
{
	const size_t prefix = sizeof("metadata.") - 1;

	out->written = text_take(c, raw, METADATA_KEY_BYTES_MAX + prefix, path);
	if (!out->written.p)
		return false;
	if (slice_starts(out->written, SLICE("metadata.")) && out->written.n > prefix) {
		out->key = KEY_METADATA;
		out->metadata = out->written.p + prefix;
		return true;
	}
	for (size_t i = 0; i < KEYS_COUNT; i++)
		if (slice_eq(out->written, slice_of(keys[i].name))) {
			out->key = keys[i].key;
			return true;
		}
	unknown_key(c, out->written, path);
	return false;
}

/* What a value is made of. "@cf/..." and "@hf/..." are names of models. */
static void
value_split(enum subject_key key, struct value *v)
{
	struct slice s = v->text, provider, bare;
	const char *slash = memchr(s.p, '/', s.n);

	if (key == KEY_VIRTUAL_KEY && s.p[0] == '@' && s.n > 1)
		v->text = (struct slice){ s.p + 1, s.n - 1 };	/* as it is written in models */
	if (!slash || (key == KEY_MODEL && (s.p[0] != '@' || slice_starts(s, SLICE("@cf/")) || slice_starts(s, SLICE("@hf/")))))
		return;
	provider = (struct slice){ s.p, (size_t)(slash - s.p) };
	bare = (struct slice){ slash + 1, s.n - provider.n - 1 };
	if (key == KEY_MODEL)
		v->first = (struct slice){ provider.p + 1, provider.n - 1 };
	else if (key == KEY_API_KEY)
		v->first = provider;
	if (v->first.p)
		v->rest = bare;
}

/* One string of "value" or "excludes". */
static void
read_value(struct compile *c, struct slice raw, enum subject_key key, const char *path, struct values *out)
{
	struct slice text = text_take(c, raw, METADATA_BYTES_MAX, path);

	if (!text.p)
		return;
	if (slice_eq(text, SLICE("*"))) {
		out->any = true;
		return;
	}
	*c->values = (struct value){ .text = text };
	value_split(key, c->values++);
	out->count++;
}

/* "value" or "excludes": a string or a list of them. */
static void
read_values(struct compile *c, struct slice raw, enum subject_key key, const char *path, struct values *out)
{
	uint32_t before = c->problems->count, i = 0;
	struct slice none, one;
	struct json_iter it;
	char at[PART_PATH_BYTES];

	out->list = c->values;
	if (raw.p[0] == '"') {
		read_value(c, raw, key, path, out);
		return;
	}
	if (!json_iter_array(&it, raw)) {
		problem_add(c->problems, path, "must be a string or a list of strings, not %s", problem_name(raw).text);
		return;
	}
	for (; json_next(&it, &none, &one); i++) {
		if (i == POLICY_VALUES_MAX) {
			problem_add(c->problems, path, "has more than %d values", POLICY_VALUES_MAX);
			return;
		}
		snprintf(at, sizeof(at), "%s[%u]", path, i);
		read_value(c, one, key, at, out);
	}
	if (i == 0 && c->problems->count == before)
		problem_add(c->problems, path, "is an empty list: \"*\" stands for any value");
}

static void
unknown_part(struct compile *c, struct slice raw_name, const char *path, const char *known)
{
	problem_add(c->problems, path, "has no \"%s\": %s",
	    problem_name((struct slice){ raw_name.p + 1, raw_name.n - 2 }).text, known);
}

static void
read_condition(struct compile *c, struct slice object, const char *path)
{
	struct policy_condition *out = &c->lp->conditions[c->lp->conditions_count];
	struct slice name, value, key = SLICE_NONE, wanted = SLICE_NONE, excluded = SLICE_NONE;
	char at[PART_PATH_BYTES];
	struct json_iter it;

	if (!json_iter_object(&it, object)) {
		problem_add(c->problems, path, "must be an object with \"key\" and \"value\"");
		return;
	}
	while (json_next(&it, &name, &value)) {
		struct slice *into = json_string_eq(name, "key") ? &key : json_string_eq(name, "value") ? &wanted :
		    json_string_eq(name, "excludes") ? &excluded : NULL;

		if (!into)
			unknown_part(c, name, path, "a condition has \"key\", \"value\" and \"excludes\"");
		else if (into->p)
			problem_add(c->problems, path, "has a member twice");
		else if (!json_is_null(value))
			*into = value;
	}
	if (!key.p)
		problem_add(c->problems, path, "needs \"key\"");
	if (!wanted.p)
		problem_add(c->problems, path, "needs \"value\": \"*\" stands for any value");
	snprintf(at, sizeof(at), "%s.key", path);
	*out = (struct policy_condition){ .place = c->place };
	if (!key.p || !wanted.p || !read_key(c, key, at, &out->field))
		return;
	snprintf(at, sizeof(at), "%s.value", path);
	read_values(c, wanted, out->field.key, at, &out->value);
	snprintf(at, sizeof(at), "%s.excludes", path);
	if (excluded.p)
		read_values(c, excluded, out->field.key, at, &out->exclude);
	c->lp->conditions_count++;
}

static void
read_group(struct compile *c, struct slice object, const char *path)
{
	struct field *out = &c->lp->groups[c->lp->groups_count];
	struct slice name, value, key = SLICE_NONE;
	char at[PART_PATH_BYTES];
	struct json_iter it;

	if (!json_iter_object(&it, object)) {
		problem_add(c->problems, path, "must be an object with a \"key\"");
		return;
	}
	while (json_next(&it, &name, &value)) {
		if (!json_string_eq(name, "key"))
			unknown_part(c, name, path, "a group has a \"key\" only");
		else if (key.p)
			problem_add(c->problems, path, "has a member twice");
		else
			key = value;
	}
	snprintf(at, sizeof(at), "%s.key", path);
	if (!key.p)
		problem_add(c->problems, path, "needs \"key\"");
	if (!key.p || !read_key(c, key, at, out))
		return;
	for (uint32_t i = 0; i < c->lp->groups_count; i++)
		if (slice_eq(c->lp->groups[i].written, out->written))
			problem_add(c->problems, at, "\"%s\" is listed twice", out->written.p);
	c->lp->groups_count++;
}

static void
read_list(struct compile *c, enum member m, uint32_t most,
    void (*one)(struct compile *, struct slice, const char *))
{
	struct slice none, value;
	char path[PATH_BYTES], at[PATH_BYTES + 16];
	struct json_iter it;

	at_member(c, members[m], path);
	if (!c->value[m].p)
		return;
	if (!json_iter_array(&it, c->value[m])) {
		problem_add(c->problems, path, "must be a list of objects");
		return;
	}
	for (uint32_t i = 0; json_next(&it, &none, &value); i++) {
		if (i == most) {
			problem_add(c->problems, path, "has more than %u entries", most);
			return;
		}
		snprintf(at, sizeof(at), "%s[%u]", path, i);
		c->place = i;
		one(c, value, at);
	}
}

/* Those that look into metadata come last: they cost more. */
static void
sort_conditions(struct limit_policy *lp)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < lp->conditions_count; i++) {
		struct policy_condition c = lp->conditions[i];

		if (c.field.key == KEY_METADATA || c.field.key == KEY_USER)
			continue;
		memmove(&lp->conditions[n + 1], &lp->conditions[n], (i - n) * sizeof(c));
		lp->conditions[n++] = c;
	}
}

/* ---- the whole ---- */

static void
read_limit(struct compile *c, struct slice json)
{
	struct limit_policy *lp = c->lp;
	struct slice id = slice_of(lp->id ? lp->id : ""), value;
	const struct limit_owner owner = { .kind = "policy", .id = id, .shown = id };
	enum limit_form form = json_get(json, "value", &value) || json_get(json, "unit", &value) ? LIMIT_RATE : LIMIT_USAGE;
	char what[LIMIT_WHAT_BYTES + 16];

	if (form == LIMIT_USAGE && !json_get(json, "credit_limit", &value)) {
		problem_add(c->problems, c->path, "needs a limit: \"credit_limit\" of a budget, or \"value\" of a rate");
		return;
	}
	if (!limit_parse_within(json, form, &owner, c->path, &lp->limit, lp->what, c->problems))
		return;
	/* There is one limit, so the policy's id says which. */
	snprintf(lp->words, sizeof(lp->words), "policy %.*s", SLICE_FMT(id));
	snprintf(lp->limit.label, sizeof(lp->limit.label), "%.*s", (int)sizeof(lp->limit.label) - 1, lp->words);
	limit_name_write(lp->limit.name, "policy", id, "");
	snprintf(what, sizeof(what), "%s:groups", lp->what);
	lp->group.id = meter_id_of("policy", id, what);
	snprintf(what, sizeof(what), "%s:overflow", lp->what);
	lp->group.overflow = meter_id_of("policy", id, what);
	limit_name_write(lp->group_name, "policy", id, "groups");
	limit_name_write(lp->overflow_name, "policy", id, "all others");
	lp->group.name = lp->group_name;
	lp->group.overflow_name = lp->overflow_name;
}

/* As much as a policy of that text can need. */
static struct limit_policy *
make(struct compile *c, struct slice json)
{
	struct policy_condition *conditions;
	struct field *groups;
	size_t strings = 0;

	for (size_t i = 0; i < json.n; i++)
		strings += json.p[i] == '"';
	strings /= 2;
	c->lp = calloc(1, sizeof(*c->lp) + POLICY_CONDITIONS_MAX * sizeof(*conditions) +
	    POLICY_GROUP_KEYS_MAX * sizeof(*groups) + strings * sizeof(*c->values) + json.n);
	CHECK(c->lp);		/* settings are read at start and reload */
	conditions = (struct policy_condition *)(c->lp + 1);
	groups = (struct field *)(conditions + POLICY_CONDITIONS_MAX);
	c->lp->conditions = conditions;
	c->lp->groups = groups;
	c->values = (struct value *)(groups + POLICY_GROUP_KEYS_MAX);
	c->texts = (char *)(c->values + strings);
	return c->lp;
}

struct limit_policy *
limit_policy_parse(struct slice json, const char *path, struct problems *p)
{
	struct compile c = { .path = path, .problems = p };
	uint32_t before = p->count;

	if (json.n == 0 || json.p[0] != '{') {
		problem_add(p, path, "must be an object");
		return NULL;
	}
	struct limit_policy *lp = make(&c, json);

	collect(&c, json);
	read_id(&c);
	read_words(&c, MEMBER_NAME, NAME_BYTES_MAX);
	read_words(&c, MEMBER_DESCRIPTION, DESCRIPTION_BYTES_MAX);
	read_rest(&c);
	read_list(&c, MEMBER_CONDITIONS, POLICY_CONDITIONS_MAX, read_condition);
	read_list(&c, MEMBER_GROUP_BY, POLICY_GROUP_KEYS_MAX, read_group);
	sort_conditions(lp);
	read_limit(&c, json);
	if (p->count == before)
		return lp;
	free(lp);
	return NULL;
}
