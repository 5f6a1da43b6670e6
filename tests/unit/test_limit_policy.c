/*
 * Policies: each rule of matching and grouping by a table, then random policies
 * and requests against an oracle that knows nothing of JSON or of compiling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/json.h"
#include "policy/limit_policy.h"

#define LIMIT ",\"type\":\"cost\",\"credit_limit\":5"

static struct problems problems;

static struct limit_policy *
parse(const char *json, const char *path)
{
	struct json_error why;

	problems_free(&problems);
	problems_init(&problems);
	if (!json_check(slice_of(json), &why))
		fail_msg("%s at %zu: %s", why.what, why.offset, json);
	return limit_policy_parse(slice_of(json), path, &problems);
}

static struct limit_policy *
accept(const char *json)
{
	struct limit_policy *lp = parse(json, "policies[0]");

	if (!lp)
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&problems.text)));
	return lp;
}

static void
refuse(const char *json, const char *lines)
{
	if (parse(json, "policies[3]"))
		fail_msg("taken: %s", json);
	if (!slice_eq(buf_slice(&problems.text), slice_of(lines)))
		fail_msg("%s:\n%.*sbut expected:\n%s", json, SLICE_FMT(buf_slice(&problems.text)), lines);
}

static int
free_problems(void **state)
{
	(void)state;
	problems_free(&problems);
	return 0;
}

/* ---- the table ---- */

#define METADATA "{\"team\":\"a b\",\"_user\":\"al\",\"user\":\"bo\",\"n\":\"7\",\"x.y\":\"z\",\"e\":\"\",\"q\\\"\":\"\\u00e4\\n\"}"

static const struct limit_subject alice = {
	.key_id = { "key_1", 5 }, .key_slug = { "ci", 2 }, .workspace = { "eng", 3 }, .user = { "alice", 5 },
	.provider = { "main", 4 }, .provider_type = { "anthropic", 9 }, .model = { "claude-opus-5-5", 15 },
	.config = { "pc-eng", 6 },
	.metadata = { METADATA, sizeof(METADATA) - 1 },
};

static void
conditions(void **state)
{
#define IF(key, rest) "{\"key\":\"" key "\"," rest "}"
#define ANY(key) IF(key, "\"value\":\"*\"")
#define IS(key, value) IF(key, "\"value\":\"" value "\"")
	static const struct { const char *conditions; bool with_all, with_none; } rows[] = {
		/* Without conditions it is for everybody. */
		{ "", true, true },
		/* Each key: its own value, another one, any present one. */
		{ IS("api_key", "key_1"), true, false }, { IS("api_key", "key_2"), false, false }, { ANY("api_key"), true, false },
		{ IS("api_key", "eng/ci"), true, false }, { IS("api_key", "ops/ci"), false, false }, { IS("api_key", "eng/c"), false, false },
		{ IS("api_key", "ci"), false, false },
		{ IS("workspace", "eng"), true, false }, { IS("workspace_id", "eng"), true, false }, { IS("workspace_id", "en"), false, false },
		{ ANY("workspace_id"), true, false },
		{ IS("user", "alice"), true, false }, { IS("user", "al"), false, false }, { ANY("user"), true, false },
		{ IS("provider", "anthropic"), true, false }, { IS("provider", "main"), false, false }, { ANY("provider"), true, false },
		{ IS("virtual_key", "main"), true, false }, { IS("virtual_key", "@main"), true, false }, { IS("virtual_key", "mai"), false, false },
		{ ANY("virtual_key"), true, false },
		{ IS("config", "pc-eng"), true, false }, { IS("config", "pc"), false, false }, { ANY("config"), true, false },
		{ IS("metadata.team", "a b"), true, false }, { IS("metadata.team", "a"), false, false }, { ANY("metadata.team"), true, false },
		{ IS("metadata.n", "7"), true, false }, { IS("metadata.x.y", "z"), true, false },
		{ IS("metadata.q\\\"", "\\u00e4\\n"), true, false }, { IS("metadata.q\\u0022", "\xc3\xa4\\u000a"), true, false },
		{ ANY("metadata.e"), true, false },	/* empty is present */
		{ ANY("metadata.none"), false, false },
		/* Models: provider type and name, with wildcards. */
		{ IS("model", "@anthropic/claude-opus-5-5"), true, false }, { IS("model", "@anthropic/*"), true, false },
		{ IS("model", "@*/claude-opus-*"), true, false }, { IS("model", "claude-*-5"), true, false }, { IS("model", "*opus*"), true, false },
		{ IS("model", "claude-opus-5-5"), true, false }, { IS("model", "claude-opus"), false, false },
		{ IS("model", "@openai/*"), false, false }, { IS("model", "@main/*"), false, false }, { IS("model", "anthropic/*"), false, false },
		{ ANY("model"), true, false }, { IS("model", "@anthropic/claude-haiku-*"), false, false },
		/* A "*" in other values is itself. */
		{ IS("workspace", "e*"), false, false }, { IS("metadata.team", "a*"), false, false }, { IS("user", "*e"), false, false },
		/* The values of a list are alternatives. */
		{ IF("workspace", "\"value\":[\"ops\",\"eng\"]"), true, false }, { IF("workspace", "\"value\":[\"ops\",\"hr\"]"), false, false },
		{ IF("workspace", "\"value\":[\"ops\",\"*\"]"), true, false },
		{ IF("model", "\"value\":[\"x\",\"@anthropic/claude-opus-*\"]"), true, false },
		/* All conditions must hold. */
		{ IS("workspace", "eng") "," ANY("model"), true, false }, { IS("workspace", "eng") "," IS("user", "bob"), false, false },
		/* Excludes are looked at first. */
		{ IF("user", "\"value\":\"*\",\"excludes\":\"alice\""), false, false },
		{ IF("user", "\"value\":\"alice\",\"excludes\":[\"bob\",\"alice\"]"), false, false },
		{ IF("user", "\"value\":\"*\",\"excludes\":[\"bob\"]"), true, false },
		{ IF("user", "\"excludes\":\"*\",\"value\":\"*\""), false, false },
		{ IF("model", "\"value\":\"*\",\"excludes\":\"@anthropic/*\""), false, false },
		{ IF("model", "\"value\":\"*\",\"excludes\":\"@anthropic/claude-haiku-*\""), true, false },
		{ IF("metadata.team", "\"value\":\"*\",\"excludes\":[\"a b\"]"), false, false },
		{ IF("api_key", "\"value\":\"*\",\"excludes\":\"eng/ci\""), false, false },
		/* Whoever has no such value is not excluded, and not meant either. */
		{ IF("metadata.none", "\"value\":\"*\",\"excludes\":\"x\""), false, false },
	};
	static const struct limit_subject nobody;
	char json[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		snprintf(json, sizeof(json), "{\"id\":\"p\",\"conditions\":[%s]" LIMIT "}", rows[i].conditions);
		struct limit_policy *lp = accept(json);
		if (limit_policy_matches(lp, &alice) != rows[i].with_all || limit_policy_matches(lp, &nobody) != rows[i].with_none)
			fail_msg("%s", rows[i].conditions);
		free(lp);
	}
	struct limit_policy *lp = accept("{\"id\":\"p\"" LIMIT "}");
	assert_true(limit_policy_matches(lp, &nobody));
	free(lp);
}

/* Values that look like members of the object that they are in. */
static void
metadata_cannot_be_forged(void **state)
{
	static const struct { const char *name, *metadata, *group; } rows[] = {
		{ "team", "{\"a\":\",\\\"team\\\":\\\"x\"}", NULL },
		{ "team", "{\"a\":\",\\\"team\\\":\\\"x\",\"team\":\"y\"}", "metadata.team:y" },
		{ "team", "{\"xteam\":\"1\",\"team\":\"y\\\\\"}", "metadata.team:y\\" },
		{ "team", "{\"x\\\"team\":\"1\"}", NULL }, { "team", "{\"x,\\\"team\":\"1\"}", NULL },
		{ "team", "{\"a\":\"team\"}", NULL }, { "team", "{}", NULL }, { "team", "{\"teams\":\"1\"}", NULL },
		{ ":", "{\"k,\":\":\",\"z\":\"forged\"}", NULL }, { ":", "{\"k,\":\":\",\":\":\"own\"}", "metadata.::own" },
		{ ",", "{\"a\":\"b\",\"c\":\"d\"}", NULL }, { ",", "{\",\":\"x\"}", "metadata.,:x" },
		{ "\\\"", "{\"a\\\"\":\"x\",\"\\\"\":\"y\"}", "metadata.\":y" },
		{ "a b", "{\"a b\":\"x\"}", "metadata.a b:x" }, { "\xc3\xa4", "{\"\xc3\xa4\":\"x\"}", "metadata.\xc3\xa4:x" },
	};
	char json[256], text[POLICY_GROUP_BYTES_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const struct limit_subject s = { .metadata = slice_of(rows[i].metadata) };

		snprintf(json, sizeof(json), "{\"id\":\"p\",\"group_by\":[{\"key\":\"metadata.%s\"}]" LIMIT "}", rows[i].name);
		struct limit_policy *lp = accept(json);
		struct slice group = limit_policy_group(lp, &s, text);
		if (!slice_eq(group, slice_of(rows[i].group)) || (group.p == NULL) != (rows[i].group == NULL))
			fail_msg("%s: %.*s", rows[i].metadata, SLICE_FMT(group));
		free(lp);
	}
}

static void
a_user_is_the_keys_or_the_metadatas(void **state)
{
	struct limit_policy *lp = accept("{\"id\":\"p\",\"group_by\":[{\"key\":\"user\"}]" LIMIT "}");
	struct limit_subject s = alice;
	char text[POLICY_GROUP_BYTES_MAX];

	(void)state;
	assert_true(slice_eq(limit_policy_group(lp, &s, text), SLICE("user:alice")));
	s.user = SLICE_NONE;
	assert_true(slice_eq(limit_policy_group(lp, &s, text), SLICE("user:al")));
	s.metadata = SLICE("{\"user\":\"b\\u006f\"}");
	assert_true(slice_eq(limit_policy_group(lp, &s, text), SLICE("user:bo")));
	s.metadata = SLICE("{\"User\":\"bo\"}");
	assert_null(limit_policy_group(lp, &s, text).p);
	s.metadata = SLICE_NONE;
	assert_null(limit_policy_group(lp, &s, text).p);
	free(lp);
}

static void
a_policy_of_a_workspace_is_for_it_alone(void **state)
{
	struct limit_policy *lp = accept("{\"id\":\"p\",\"workspace_id\":\"eng\",\"conditions\":[{\"key\":\"user\",\"value\":\"*\"}]" LIMIT "}");
	struct limit_subject s = alice;

	(void)state;
	assert_true(limit_policy_matches(lp, &s));
	s.workspace = SLICE("ops");
	assert_false(limit_policy_matches(lp, &s));
	free(lp);
}

static void
groups(void **state)
{
#define BY(key) "{\"key\":\"" key "\"}"
	static const struct { const char *by, *group; } rows[] = {
		{ "", "default" },
		{ BY("api_key"), "api_key:key_1" }, { BY("workspace"), "workspace:eng" }, { BY("workspace_id"), "workspace_id:eng" },
		{ BY("user"), "user:alice" }, { BY("provider"), "provider:anthropic" }, { BY("virtual_key"), "virtual_key:main" },
		{ BY("config"), "config:pc-eng" }, { BY("model"), "model:anthropic.claude-opus-5-5" },
		{ BY("metadata.team"), "metadata.team:a b" }, { BY("metadata.q\\\""), "metadata.q\":\xc3\xa4\n" }, { BY("metadata.e"), "metadata.e:" },
		{ BY("metadata._user") "," BY("model"), "metadata._user:al-model:anthropic.claude-opus-5-5" },
		{ BY("model") "," BY("metadata._user"), "model:anthropic.claude-opus-5-5-metadata._user:al" },
		{ BY("metadata.none"), NULL }, { BY("metadata.team") "," BY("metadata.none"), NULL },
	};
	char json[1024], text[POLICY_GROUP_BYTES_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		snprintf(json, sizeof(json), "{\"id\":\"p\",\"group_by\":[%s]" LIMIT "}", rows[i].by);
		struct limit_policy *lp = accept(json);
		struct slice group = limit_policy_group(lp, &alice, text);
		if (!slice_eq(group, slice_of(rows[i].group)) || (group.p == NULL) != (rows[i].group == NULL))
			fail_msg("%s: %.*s", rows[i].by, SLICE_FMT(group));
		free(lp);
	}
}

/* The group of a request with these values of metadata "a" and "b". */
static struct slice
pair_group(const struct limit_policy *lp, const char *a, const char *b, char text[POLICY_GROUP_BYTES_MAX])
{
	char json[2048];
	struct limit_subject s = alice;
	size_t n = 0;

	n += (size_t)snprintf(json, sizeof(json), "{\"a\":");
	n += json_escape(slice_of(a), json + n, sizeof(json) - n);
	n += (size_t)snprintf(json + n, sizeof(json) - n, ",\"b\":");
	n += json_escape(slice_of(b), json + n, sizeof(json) - n);
	json[n++] = '}';
	assert_true(n < sizeof(json));
	s.metadata = (struct slice){ json, n };
	return limit_policy_group(lp, &s, text);
}

static void
groups_are_never_mistaken(void **state)
{
	struct limit_policy *lp = accept("{\"id\":\"p\",\"group_by\":[{\"key\":\"metadata.a\"},{\"key\":\"metadata.b\"}]" LIMIT "}");
	char one[POLICY_GROUP_BYTES_MAX], other[POLICY_GROUP_BYTES_MAX], long_a[601], long_b[601];
	struct slice g, h;

	(void)state;
	/* Both would read "metadata.a:x-metadata.b:y-metadata.b:z". */
	g = pair_group(lp, "x", "y-metadata.b:z", one);
	h = pair_group(lp, "x-metadata.b:y", "z", other);
	assert_false(slice_eq(g, h));
	assert_true(slice_starts(g, SLICE("metadata.a:x-metadata.b:y-metadata.b:z#")));
	assert_true(slice_starts(h, SLICE("metadata.a:x-metadata.b:y-metadata.b:z#")));
	/* "-" and ":" alone do no harm, and stay as they are. */
	g = pair_group(lp, "x-y:z-b:", ":-", one);
	assert_true(slice_eq(g, SLICE("metadata.a:x-y:z-b:-metadata.b::-")));
	/* Long ones differ by their ends too. */
	memset(long_a, 'a', sizeof(long_a) - 1);
	memset(long_b, 'a', sizeof(long_b) - 1);
	long_a[600] = long_b[600] = '\0';
	long_b[599] = 'b';
	g = pair_group(lp, long_a, "1", one);
	h = pair_group(lp, long_b, "1", other);
	assert_int_equal(g.n, POLICY_GROUP_BYTES_MAX);
	assert_int_equal(h.n, POLICY_GROUP_BYTES_MAX);
	assert_memory_equal(one, other, POLICY_GROUP_BYTES_MAX - 33);
	assert_false(slice_eq(g, h));
	/* Whoever writes another's hash into a value does not get its meter. */
	size_t prefix = strlen("metadata.a:");
	for (size_t cut = 0; cut < 4; cut++) {
		snprintf(long_b, sizeof(long_b), "%.*s", (int)(POLICY_GROUP_BYTES_MAX - prefix - cut), one + prefix);
		h = pair_group(lp, long_b, "", other);
		assert_false(slice_eq(g, h));
	}
	free(lp);
	lp = accept("{\"id\":\"p\",\"group_by\":[{\"key\":\"metadata.a\"}]" LIMIT "}");
	g = pair_group(lp, long_a, "", one);
	snprintf(long_b, sizeof(long_b), "%.*s", (int)(g.n - prefix), one + prefix);
	h = pair_group(lp, long_b, "", other);
	assert_int_equal(h.n, POLICY_GROUP_BYTES_MAX);
	assert_false(slice_eq(g, h));
	/* 255 bytes are whole, 256 are not. */
	snprintf(long_b, sizeof(long_b), "%.*s", (int)(255 - prefix), long_a);
	assert_int_equal(pair_group(lp, long_b, "", one).n, 255);
	assert_null(memchr(one, '#', 255));
	snprintf(long_b, sizeof(long_b), "%.*s", (int)(256 - prefix), long_a);
	assert_int_equal(pair_group(lp, long_b, "", one).n, 256);
	assert_int_equal(one[256 - 33], '#');
	free(lp);
}

/* ---- charges ---- */

static bool
same(struct meter_id a, struct meter_id b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

static void
a_policys_limit(void **state)
{
	struct limit_policy *lp = accept("{\"id\":\"per-user\",\"name\":\"Per user\",\"description\":\"d\",\"status\":\"active\",\"target\":\"llm\","
	    "\"conditions\":[{\"key\":\"metadata.user\",\"value\":\"*\"}],\"group_by\":[{\"key\":\"metadata.user\"}],\"groups_max\":77,"
	    "\"type\":\"cost\",\"credit_limit\":5,\"alert_threshold\":4,\"periodic_reset\":\"daily\",\"mode\":\"strict\"}");
	const struct limit *l = limit_policy_limit(lp);
	struct charge a, b, again;
	char name[METER_NAME_BYTES], other[METER_NAME_BYTES];

	(void)state;
	assert_string_equal(limit_policy_id(lp), "per-user");
	assert_true(limit_policy_active(lp));
	assert_string_equal(l->label, "policy per-user");
	assert_string_equal(l->name, "policy per-user");
	assert_int_equal(l->charge.kind, METER_BUDGET);
	assert_int_equal(l->charge.mode, MODE_STRICT);
	assert_int_equal(l->charge.limit, INT64_C(5000000000));
	assert_int_equal(l->charge.alert, INT64_C(4000000000));
	assert_int_equal(l->charge.period, PERIOD_DAILY);
	assert_true(same(l->charge.id, meter_id_of("policy", SLICE("per-user"), "cost")));
	limit_policy_charge(lp, SLICE("metadata.user:alice"), &a, name);
	assert_ptr_equal(a.name, name);
	assert_string_equal(name, "policy per-user metadata.user:alice");
	assert_int_equal(a.limit, l->charge.limit);
	limit_policy_charge(lp, SLICE("metadata.user:bob"), &b, other);
	limit_policy_charge(lp, SLICE("metadata.user:alice"), &again, other);
	assert_true(same(a.id, again.id));
	assert_false(same(a.id, b.id) || same(a.id, l->charge.id) || same(b.id, l->charge.id));
	assert_non_null(a.group);
	assert_ptr_equal(a.group, b.group);
	assert_int_equal(a.group->most, 77);
	assert_true(same(a.group->id, meter_id_of("policy", SLICE("per-user"), "cost:groups")));
	assert_true(same(a.group->overflow, meter_id_of("policy", SLICE("per-user"), "cost:overflow")));
	assert_string_equal(a.group->name, "policy per-user groups");
	assert_string_equal(a.group->overflow_name, "policy per-user all others");
	limit_policy_charge(lp, SLICE("metadata.user:\033[2J"), &b, other);
	assert_string_equal(other, "policy per-user metadata.user:?[2J");
	free(lp);
}

static void
kinds_of_limits(void **state)
{
	static const struct { const char *json; enum meter_kind kind; enum meter_unit unit; } rows[] = {
		{ "{\"id\":\"p\",\"credit_limit\":1}", METER_BUDGET, UNIT_NUSD },
		{ "{\"id\":\"p\",\"type\":\"tokens\",\"credit_limit\":1}", METER_BUDGET, UNIT_TOKENS },
		{ "{\"id\":\"p\",\"type\":\"requests\",\"credit_limit\":1,\"periodic_reset_days\":3}", METER_BUDGET, UNIT_REQUESTS },
		{ "{\"id\":\"p\",\"type\":\"requests\",\"unit\":\"rpm\",\"value\":0}", METER_BUCKET, UNIT_REQUESTS },
		{ "{\"id\":\"p\",\"value\":9,\"unit\":\"rpw\",\"type\":\"tokens\"}", METER_BUCKET, UNIT_TOKENS },
		{ "{\"id\":\"p\",\"type\":\"concurrency\",\"value\":3}", METER_CONCURRENCY, UNIT_REQUESTS },
	};
	struct charge c;
	char name[METER_NAME_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct limit_policy *lp = accept(rows[i].json);

		limit_policy_charge(lp, SLICE("default"), &c, name);
		assert_int_equal(c.kind, rows[i].kind);
		assert_int_equal(c.unit, rows[i].unit);
		assert_null(c.group);
		assert_string_equal(name, "policy p");
		assert_true(same(c.id, limit_policy_limit(lp)->charge.id));
		free(lp);
	}
	struct limit_policy *lp = accept("{\"id\":\"p\",\"status\":\"archived\"" LIMIT "}");
	assert_false(limit_policy_active(lp));
	free(lp);
}

struct seen {
	char text[512];
	size_t n;
};

static void
see(const char *path, const char *key, struct slice value, void *arg)
{
	struct seen *s = arg;

	s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s %s=%.*s;", path, key, SLICE_FMT(value));
}

static void
values_can_be_looked_up(void **state)
{
	struct limit_policy *lp = accept("{\"id\":\"p\",\"conditions\":[{\"key\":\"metadata.a\",\"value\":\"x\"},"
	    "{\"key\":\"virtual_key\",\"value\":[\"*\",\"@m\"],\"excludes\":\"n\"},{\"key\":\"model\",\"value\":\"@a/b\"}]" LIMIT "}");
	struct seen s = { .n = 0 };

	(void)state;
	limit_policy_values(lp, "policies[5]", see, &s);
	assert_string_equal(s.text, "policies[5].conditions[1].value virtual_key=m;policies[5].conditions[1].excludes virtual_key=n;"
	    "policies[5].conditions[2].value model=@a/b;policies[5].conditions[0].value metadata.a=x;");
	free(lp);
}

/* ---- mistakes ---- */

#define POLICY(members) "{\"id\":\"p\"," members LIMIT "}"
#define CONDITION(members) POLICY("\"conditions\":[{" members "}]")

static void
mistakes_of_the_whole(void **state)
{
	(void)state;
	refuse("7", "policies[3]: must be an object\n");
	refuse("{}", "policies[3]: needs \"id\": a name that never changes, because it names the meters\n"
	    "policies[3]: needs a limit: \"credit_limit\" of a budget, or \"value\" of a rate\n");
	refuse("{\"id\":\"a b\",\"credit_limit\":1}", "policies[3].id: must be 1 to 64 of A-Z a-z 0-9 . _ -\n");
	refuse("{\"id\":\"\",\"credit_limit\":1}", "policies[3].id: must be a string of 1 to 64 bytes, not \"\"\n");
	refuse("{\"id\":5,\"credit_limit\":1}", "policies[3].id: must be a string of 1 to 64 bytes, not 5\n");
	refuse("{\"id\":\"p\",\"id\":\"q\",\"credit_limit\":1}", "policies[3].id: given twice\n");
	refuse(POLICY("\"conditons\":[]"), "policies[3].conditons: unknown field; did you mean \"conditions\"?\n");
	refuse(POLICY("\"colour\":1"), "policies[3].colour: unknown field\n");
	refuse(POLICY("\"organisation_id\":\"o\""), "policies[3].organisation_id: weir serves one organisation: leave it out\n");
	refuse(POLICY("\"status\":\"paused\""), "policies[3].status: must be \"active\" or \"archived\", not \"paused\"\n");
	refuse(POLICY("\"target\":\"mcp_tools\""), "policies[3].target: must be \"llm\", not \"mcp_tools\": no other target is supported\n");
	refuse(POLICY("\"name\":7"), "policies[3].name: must be a string of at most 1020 bytes\n");
	refuse(POLICY("\"description\":{}"), "policies[3].description: must be a string of at most 2000 bytes\n");
	refuse(POLICY("\"groups_max\":0"), "policies[3].groups_max: must be a whole number from 1 to 16777216, not 0\n");
	refuse(POLICY("\"groups_max\":-1"), "policies[3].groups_max: must be a whole number from 1 to 16777216, not -1\n");
	refuse(POLICY("\"groups_max\":16777217"), "policies[3].groups_max: must be a whole number from 1 to 16777216, not 16777217\n");
	refuse(POLICY("\"workspace_id\":[]"), "policies[3].workspace_id: must be a string of 1 to 64 bytes, not []\n");
}

static void
mistakes_of_the_limit(void **state)
{
	(void)state;
	refuse("{\"id\":\"p\",\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1,\"credit_limit\":1}",
	    "policies[3].credit_limit: is of usage limits; a rate limit has \"unit\" and \"value\"\n");
	refuse("{\"id\":\"p\",\"type\":\"requests\",\"value\":1}", "policies[3]: needs \"unit\": \"rpm\", \"rph\", \"rpd\" or \"rpw\"\n");
	refuse("{\"id\":\"p\",\"type\":\"cost\",\"credit_limit\":-1}", "policies[3].credit_limit: must be dollars such as 25 or 0.5: more than 0, "
	    "at most 1000000000, with at most nine decimals, not -1\n");
	refuse("{\"id\":\"p\",\"credit_limit\":1,\"periodic_reset\":\"daily\",\"periodic_reset_days\":2}",
	    "policies[3].periodic_reset_days: does not go with periodic_reset: give one of the two\n");
	refuse("{\"id\":\"p\",\"credit_limit\":1,\"alert_threshold\":1}",
	    "policies[3].alert_threshold: must be less than the credit_limit, 1, not 1\n");
}

static void
mistakes_of_conditions_and_groups(void **state)
{
	(void)state;
	refuse(POLICY("\"conditions\":{}"), "policies[3].conditions: must be a list of objects\n");
	refuse(POLICY("\"conditions\":[7]"), "policies[3].conditions[0]: must be an object with \"key\" and \"value\"\n");
	refuse(CONDITION(""), "policies[3].conditions[0]: needs \"key\"\npolicies[3].conditions[0]: needs \"value\": \"*\" stands for any value\n");
	refuse(CONDITION("\"key\":\"user\""), "policies[3].conditions[0]: needs \"value\": \"*\" stands for any value\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":\"*\",\"exclude\":\"x\""),
	    "policies[3].conditions[0]: has no \"exclude\": a condition has \"key\", \"value\" and \"excludes\"\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":\"*\",\"value\":\"x\""), "policies[3].conditions[0]: has a member twice\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":7"), "policies[3].conditions[0].value: must be a string or a list of strings, not 7\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":[]"), "policies[3].conditions[0].value: is an empty list: \"*\" stands for any value\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":[\"a\",7,\"\"]"),
	    "policies[3].conditions[0].value[1]: must be a string of 1 to 1536 bytes, not 7\n"
	    "policies[3].conditions[0].value[2]: must be a string of 1 to 1536 bytes, not \"\"\n");
	refuse(CONDITION("\"key\":\"user\",\"value\":\"a\\u0000b\""),
	    "policies[3].conditions[0].value: must be a string of 1 to 1536 bytes, not \"a\\u0000b\"\n");
	refuse(CONDITION("\"key\":\"apikey\",\"value\":\"*\""), "policies[3].conditions[0].key: there is no key \"apikey\"; did you mean \"api_key\"?\n");
	refuse(CONDITION("\"key\":\"models\",\"value\":\"*\""), "policies[3].conditions[0].key: there is no key \"models\"; did you mean \"model\"?\n");
	refuse(CONDITION("\"key\":\"department\",\"value\":\"*\""), "policies[3].conditions[0].key: there is no key \"department\": api_key, "
	    "workspace, user, provider, virtual_key, config, model, or metadata.NAME for a field of the metadata\n");
	refuse(CONDITION("\"key\":\"metadata.\",\"value\":\"*\""), "policies[3].conditions[0].key: there is no key \"metadata.\": api_key, "
	    "workspace, user, provider, virtual_key, config, model, or metadata.NAME for a field of the metadata\n");
	refuse(CONDITION("\"key\":\"prompt\",\"value\":\"*\""), "policies[3].conditions[0].key: \"prompt\": weir keeps no prompts: leave it out\n");
	refuse(POLICY("\"group_by\":[\"user\"]"), "policies[3].group_by[0]: must be an object with a \"key\"\n");
	refuse(POLICY("\"group_by\":[{}]"), "policies[3].group_by[0]: needs \"key\"\n");
	refuse(POLICY("\"group_by\":[{\"key\":\"user\"},{\"key\":\"model\"},{\"key\":\"user\"}]"),
	    "policies[3].group_by[2].key: \"user\" is listed twice\n");
	refuse(POLICY("\"group_by\":[{\"key\":\"usr\",\"value\":\"x\"}]"),
	    "policies[3].group_by[0]: has no \"value\": a group has a \"key\" only\n"
	    "policies[3].group_by[0].key: there is no key \"usr\"; did you mean \"user\"?\n");
}

static void
there_are_bounds(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	buf_add_str(&b, "{\"id\":\"p\",\"credit_limit\":1,\"conditions\":[{\"key\":\"user\",\"value\":[\"x\"");
	for (int i = 1; i < POLICY_VALUES_MAX; i++)
		buf_printf(&b, ",\"%d\"", i);
	size_t n = b.n;
	buf_add(&b, "]}]}", 5);
	struct limit_policy *lp = accept(b.p);
	struct limit_subject s = { .user = SLICE("1023") };
	assert_true(limit_policy_matches(lp, &s));
	free(lp);
	b.n = n;
	buf_add(&b, ",\"y\"]}]}", 9);
	refuse(b.p, "policies[3].conditions[0].value: has more than 1024 values\n");
	buf_clear(&b);
	buf_add_str(&b, "{\"id\":\"p\",\"credit_limit\":1,\"conditions\":[{\"key\":\"user\",\"value\":\"x\"}");
	for (int i = 0; i < POLICY_CONDITIONS_MAX; i++)
		buf_add_str(&b, ",{\"key\":\"user\",\"value\":\"x\"}");
	buf_add_str(&b, "],\"group_by\":[{\"key\":\"user\"}");
	for (int i = 0; i < POLICY_GROUP_KEYS_MAX; i++)
		buf_printf(&b, ",{\"key\":\"metadata.%d\"}", i);
	buf_add(&b, "]}", 3);
	refuse(b.p, "policies[3].conditions: has more than 16 entries\npolicies[3].group_by: has more than 8 entries\n");
	buf_free(&b);
}

/* ---- the oracle ---- */

#define TEXTS 4			/* values of a condition */
#define KEYS 4			/* of the policy's conditions, and of its groups */

struct rule {
	const char *key;
	const char *value[TEXTS], *exclude[TEXTS];
	uint32_t values, excludes;
};

struct random_policy {
	struct rule rule[KEYS];
	const char *group[KEYS];
	uint32_t rules, groups;
};

struct random_request {
	const char *key_id, *workspace, *user, *type, *account, *config, *model, *team, *app;	/* NULL: absent */
};

static uint64_t seed = 88172645463325252u;

static uint32_t
dice(uint32_t sides)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed % sides);
}

static const char *const words[] = {
	"a", "b", "ab", "a-b", "*", "a*", "*b", "@a/b", "@a/*", "@*/b", "a/b", "@cf/a", "-metadata.team:", "x-metadata.app:a", ":", "-", "a.b", "#",
	"\xc3\xa4", "\"", "\\", "\n", "x-model:a.b", "a:b-metadata.team:ab",
	"\",\"team\":\"b", "{\"team\":\"a\"}", ",\"app\":\"a\\", "\\\"",
};
#define WORDS (sizeof(words) / sizeof(*words))
static const char *const key_names[] = {
	"api_key", "workspace", "workspace_id", "user", "provider", "virtual_key", "config", "model", "metadata.team", "metadata.app",
};

/* "*" stands for any run: the definition, without a thought for speed. */
static bool
glob(const char *pattern, const char *text)
{
	if (*pattern == '\0')
		return *text == '\0';
	if (*pattern == '*')
		return glob(pattern + 1, text) || (*text && glob(pattern, text + 1));
	return *pattern == *text && glob(pattern + 1, text + 1);
}

static const char *
value_of(const struct random_request *r, const char *key)
{
	const struct { const char *key, *value; } all[] = {
		{ "api_key", r->key_id }, { "workspace", r->workspace }, { "workspace_id", r->workspace }, { "user", r->user },
		{ "provider", r->type }, { "virtual_key", r->account }, { "config", r->config }, { "model", r->model },
		{ "metadata.team", r->team }, { "metadata.app", r->app },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (strcmp(all[i].key, key) == 0)
			return all[i].value;
	return NULL;
}

static bool
oracle_value(const struct random_request *r, const char *key, const char *wanted, const char *has)
{
	char both[256];

	if (strcmp(wanted, "*") == 0)
		return true;
	if (strcmp(key, "model") == 0 && wanted[0] == '@' && strchr(wanted, '/') && strncmp(wanted, "@cf/", 4) != 0) {
		char type[64];

		snprintf(type, sizeof(type), "%.*s", (int)(strchr(wanted, '/') - wanted) - 1, wanted + 1);
		return glob(type, r->type ? r->type : "") && glob(strchr(wanted, '/') + 1, has);
	}
	if (strcmp(key, "model") == 0)
		return glob(wanted, has);
	if (strcmp(key, "api_key") == 0 && strchr(wanted, '/')) {
		snprintf(both, sizeof(both), "%s/b", r->workspace ? r->workspace : "");	/* each key's slug is "b" */
		return strcmp(wanted, both) == 0;
	}
	if (strcmp(key, "virtual_key") == 0 && wanted[0] == '@' && wanted[1])
		wanted++;
	return strcmp(wanted, has) == 0;
}

static bool
oracle_matches(const struct random_policy *p, const struct random_request *r)
{
	for (uint32_t i = 0; i < p->rules; i++) {
		const struct rule *rule = &p->rule[i];
		const char *has = value_of(r, rule->key);
		bool any = false;

		if (!has)
			return false;
		for (uint32_t j = 0; j < rule->excludes; j++)
			if (oracle_value(r, rule->key, rule->exclude[j], has))
				return false;
		for (uint32_t j = 0; j < rule->values; j++)
			any |= oracle_value(r, rule->key, rule->value[j], has);
		if (!any)
			return false;
	}
	return true;
}

/* The readable form; and the tuple itself, with lengths. false: a value is missing. */
static bool
oracle_group(const struct random_policy *p, const struct random_request *r, char *readable, char *tuple)
{
	*readable = *tuple = '\0';
	if (p->groups == 0)
		snprintf(readable, 512, "default");
	for (uint32_t i = 0; i < p->groups; i++) {
		const char *has = value_of(r, p->group[i]);
		bool model = strcmp(p->group[i], "model") == 0;

		if (!has || (model && !r->type))
			return false;
		snprintf(readable + strlen(readable), 512 - strlen(readable), "%s%s:%s%s%s", i ? "-" : "", p->group[i], model ? r->type : "",
		    model ? "." : "", has);
		snprintf(tuple + strlen(tuple), 512 - strlen(tuple), "%zu,%s,%s;", strlen(has), has, model ? r->type : "");
	}
	return true;
}

static const char *
word(void)
{
	return words[dice(WORDS)];
}

static void
add_texts(struct buf *b, const char *const *texts, uint32_t n)
{
	if (n == 1 && dice(2)) {
		buf_add_json(b, slice_of(texts[0]));
		return;
	}
	buf_add_char(b, '[');
	for (uint32_t i = 0; i < n; i++) {
		buf_add_str(b, i ? "," : "");
		buf_add_json(b, slice_of(texts[i]));
	}
	buf_add_char(b, ']');
}

static struct limit_policy *
random_policy(struct random_policy *p)
{
	struct limit_policy *lp;
	struct buf b;

	*p = (struct random_policy){ .rules = dice(KEYS), .groups = dice(KEYS) };
	buf_init(&b, 1 << 16);
	buf_add_str(&b, "{\"id\":\"p\",\"credit_limit\":1,\"conditions\":[");
	for (uint32_t i = 0; i < p->rules; i++) {
		struct rule *rule = &p->rule[i];

		*rule = (struct rule){ .key = key_names[dice(10)], .values = 1 + dice(TEXTS), .excludes = dice(2) ? 0 : dice(TEXTS + 1) };
		for (uint32_t j = 0; j < TEXTS; j++) {
			rule->value[j] = dice(3) ? word() : "*";
			rule->exclude[j] = word();
		}
		buf_printf(&b, "%s{\"key\":\"%s\",\"value\":", i ? "," : "", rule->key);
		add_texts(&b, rule->value, rule->values);
		if (rule->excludes) {
			buf_add_str(&b, ",\"excludes\":");
			add_texts(&b, rule->exclude, rule->excludes);
		}
		buf_add_char(&b, '}');
	}
	buf_add_str(&b, "],\"group_by\":[");
	for (uint32_t i = 0; i < p->groups; i++) {
		p->group[i] = key_names[(dice(3) + 3 * i) % 10];	/* each one once */
		buf_printf(&b, "%s{\"key\":\"%s\"}", i ? "," : "", p->group[i]);
	}
	buf_add(&b, "]}", 3);
	lp = accept(b.p);
	buf_free(&b);
	return lp;
}

static void
random_request(struct random_request *r)
{
	const char **const fields[] = { &r->key_id, &r->workspace, &r->user, &r->type, &r->account, &r->config, &r->model, &r->team, &r->app };

	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		*fields[i] = dice(5) ? word() : NULL;
}

static struct limit_subject
subject_of(const struct random_request *r, struct buf *metadata)
{
	buf_clear(metadata);
	buf_add_str(metadata, "{\"other\":\"1\"");
	if (r->team) {
		buf_add_str(metadata, ",\"team\":");
		buf_add_json(metadata, slice_of(r->team));
	}
	if (r->app) {
		buf_add_str(metadata, ",\"app\":");
		buf_add_json(metadata, slice_of(r->app));
	}
	buf_add_char(metadata, '}');
	return (struct limit_subject){
		.key_id = slice_of(r->key_id), .key_slug = SLICE("b"), .workspace = slice_of(r->workspace), .user = slice_of(r->user),
		.provider = slice_of(r->account), .provider_type = slice_of(r->type), .model = slice_of(r->model),
		.config = slice_of(r->config), .metadata = buf_slice(metadata),
	};
}

#define REQUESTS 200		/* of a policy: all of their groups are compared with each other */

static void
random_policies_do_what_the_oracle_says(void **state)
{
	static struct { char tuple[512], group[POLICY_GROUP_BYTES_MAX]; size_t n; } had[REQUESTS];
	uint32_t matched = 0, grouped = 0, hashed = 0;
	struct buf metadata;

	(void)state;
	buf_init(&metadata, 4096);
	for (int round = 0; round < 1000; round++) {
		struct random_policy p;
		struct limit_policy *lp = random_policy(&p);
		uint32_t n = 0;

		for (int i = 0; i < REQUESTS; i++) {
			struct random_request r;
			char readable[512];

			random_request(&r);
			struct limit_subject s = subject_of(&r, &metadata);
			bool matches = oracle_matches(&p, &r);
			assert_int_equal(limit_policy_matches(lp, &s), matches);
			matched += matches;
			struct slice g = limit_policy_group(lp, &s, had[n].group);
			bool whole = oracle_group(&p, &r, readable, had[n].tuple);
			assert_int_equal(g.p != NULL, whole);
			if (!whole)
				continue;
			grouped++;
			hashed += g.n != strlen(readable);
			assert_true(slice_starts(g, slice_of(readable)));
			assert_true(g.n == strlen(readable) || g.n == strlen(readable) + 33);
			had[n].n = g.n;
			/* The same values, the same group; others, another one. */
			for (uint32_t j = 0; j < n && p.groups > 0; j++)
				assert_int_equal(strcmp(had[j].tuple, had[n].tuple) == 0,
				    had[j].n == g.n && memcmp(had[j].group, g.p, g.n) == 0);
			n++;
		}
		free(lp);
	}
	buf_free(&metadata);
	/* It was no empty exercise. */
	assert_in_range(matched, 20000, 180000);
	assert_in_range(grouped, 50000, 199000);
	assert_in_range(hashed, 1000, 50000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conditions),
		cmocka_unit_test(metadata_cannot_be_forged),
		cmocka_unit_test(a_user_is_the_keys_or_the_metadatas),
		cmocka_unit_test(a_policy_of_a_workspace_is_for_it_alone),
		cmocka_unit_test(groups),
		cmocka_unit_test(groups_are_never_mistaken),
		cmocka_unit_test(a_policys_limit),
		cmocka_unit_test(kinds_of_limits),
		cmocka_unit_test(values_can_be_looked_up),
		cmocka_unit_test(mistakes_of_the_whole),
		cmocka_unit_test(mistakes_of_the_limit),
		cmocka_unit_test(mistakes_of_conditions_and_groups),
		cmocka_unit_test(there_are_bounds),
		cmocka_unit_test(random_policies_do_what_the_oracle_says),
	};

	return cmocka_run_group_tests_name("limit_policy", tests, NULL, free_problems);
}
