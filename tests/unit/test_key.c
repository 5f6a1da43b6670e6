/*
 * A key's document, compiled: every limit with its meter, every doubt refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "policy/key.h"

/* SHA-256 of "abc" and of nothing, from FIPS 180-4's examples. */
#define HASH_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define HASH_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

#define HEAD "{\"id\":\"key_0123456789abcdef\",\"slug\":\"alice\",\"workspace\":\"team\""
#define TAIL ",\"enabled\":true,\"hashes\":[{\"sha256\":\"" HASH_ABC "\",\"expires_at\":null}," \
	"{\"sha256\":\"" HASH_NOTHING "\",\"expires_at\":\"2026-06-01T00:00:00Z\"}]}"

static char why[256];

static struct key *
compile(const char *json)
{
	struct key *k = key_compile(slice_of(json), NULL, why, sizeof(why));

	if (!k)
		fail_msg("%s: %s", why, json);
	return k;
}

static const struct key_limit *
limit_named(const struct key *k, const char *name)
{
	for (uint32_t i = 0; i < k->limits_count; i++)
		if (strcmp(k->limits[i].name, name) == 0)
			return &k->limits[i];
	fail_msg("no limit %s", name);
	return NULL;
}

static void
hashes_are_sha_256(void **state)
{
	uint8_t hash[32];
	char hex[65];

	(void)state;
	key_secret_hash(SLICE("abc"), hash);
	for (size_t i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	assert_string_equal(hex, HASH_ABC);
	key_secret_hash(SLICE(""), hash);
	for (size_t i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", hash[i]);
	assert_string_equal(hex, HASH_NOTHING);
}

static void
meters_have_ids_of_their_own(void **state)
{
	struct meter_id a = meter_id_of("key", SLICE("k1"), "rpm"), b = meter_id_of("key", SLICE("k1"), "rpd"),
	    c = meter_id_of("key", SLICE("k"), "1rpm"), d = key_budget_id(SLICE("k1"), PERIOD_MONTHLY),
	    e = meter_id_of("key", SLICE("k1"), "cost:monthly"), again = meter_id_of("key", SLICE("k1"), "rpm");

	(void)state;
	assert_true(a.hi == again.hi && a.lo == again.lo);
	assert_true(a.hi != b.hi && a.hi != c.hi && a.lo != b.lo && a.hi != d.hi);
	assert_true(d.hi == e.hi && d.lo == e.lo);
}

static void
a_plain_key_may_do_all(void **state)
{
	struct key *k = compile(HEAD TAIL);

	(void)state;
	assert_string_equal(k->id, "key_0123456789abcdef");
	assert_string_equal(k->slug, "alice");
	assert_string_equal(k->workspace, "team");
	assert_null(k->config);
	assert_true(k->enabled && k->allow_config_override);
	assert_int_equal(k->limits_count, 0);
	assert_false(k->has_cost_budget);
	assert_int_equal(k->expires_wall_ns, 0);
	assert_true(key_model_allowed(k, SLICE("anything")));
	key_free(k);
}

static void
limits_become_charges(void **state)
{
	struct key *k = compile(HEAD
	    ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":60},{\"type\":\"requests\",\"unit\":\"rph\",\"value\":1000},"
	    "{\"type\":\"requests\",\"unit\":\"rpd\",\"value\":5000}],"
	    "\"usage_limits\":[{\"type\":\"cost\",\"credit_limit_nusd\":9007199254740993,\"period\":\"monthly\"},"
	    "{\"type\":\"cost\",\"credit_limit_nusd\":1,\"period\":\"total\"}]" TAIL);
	const struct charge *c;

	(void)state;
	assert_int_equal(k->limits_count, 5);
	c = &limit_named(k, "key rpm")->charge;
	assert_int_equal(c->kind, METER_BUCKET);
	assert_int_equal(c->limit, 60);
	assert_int_equal(c->window_ns, INT64_C(60000000000));
	assert_int_equal(c->amount, 1);
	assert_int_equal(c->id.hi, meter_id_of("key", SLICE("key_0123456789abcdef"), "rpm").hi);
	assert_int_equal(limit_named(k, "key rph")->charge.window_ns, INT64_C(3600000000000));
	assert_int_equal(limit_named(k, "key rpd")->charge.window_ns, INT64_C(86400000000000));
	c = &limit_named(k, "key monthly budget")->charge;
	assert_int_equal(c->kind, METER_BUDGET);
	assert_int_equal(c->period, PERIOD_MONTHLY);
	assert_int_equal(c->limit, INT64_C(9007199254740993));	/* no double has it */
	assert_int_equal(c->id.lo, key_budget_id(SLICE("key_0123456789abcdef"), PERIOD_MONTHLY).lo);
	assert_int_equal(limit_named(k, "key total budget")->charge.limit, 1);
	assert_true(k->has_cost_budget);
	key_free(k);
}

static void
strings_outlive_the_document(void **state)
{
	char json[1024];
	struct key *k;
	const struct slice *value;

	(void)state;
	snprintf(json, sizeof(json), "%s", HEAD ",\"name\":\"A\",\"config\":\"pc-eng\",\"allow_config_override\":false,"
	    "\"metadata\":{\"team\":\"caf\\u00e9\",\"env\":\"prod\"},\"allowed_models\":[\"claude-*\",\"x\"],"
	    "\"created_at\":\"2026-01-01T00:00:00Z\",\"rotated_at\":null" TAIL);
	k = compile(json);
	memset(json, 'x', sizeof(json));
	assert_string_equal(k->config, "pc-eng");
	assert_false(k->allow_config_override);
	assert_int_equal(k->metadata.count, 2);
	value = metadata_get(&k->metadata, SLICE("team"));
	assert_true(value && slice_eq(*value, SLICE("caf\xc3\xa9")));
	assert_string_equal(k->allowed_models[1], "x");
	key_free(k);
}

static void
models_are_globs(void **state)
{
	struct key *k = compile(HEAD ",\"allowed_models\":[\"claude-*-5\",\"gpt-4\"]" TAIL);

	(void)state;
	assert_true(key_model_allowed(k, SLICE("claude-opus-5")));
	assert_true(key_model_allowed(k, SLICE("gpt-4")));
	assert_false(key_model_allowed(k, SLICE("claude-opus-4")));
	assert_false(key_model_allowed(k, SLICE("gpt-4o")));
	assert_false(key_model_allowed(k, SLICE("")));
	key_free(k);
}

static struct key *
compile_presented(const char *json, const char *secret)
{
	uint8_t hash[32];

	key_secret_hash(slice_of(secret), hash);
	return key_compile(slice_of(json), hash, why, sizeof(why));
}

static void
the_presented_secret_has_its_own_end(void **state)
{
	struct key *k;

	(void)state;
	k = compile_presented(HEAD TAIL, "abc");
	assert_non_null(k);
	assert_int_equal(k->expires_wall_ns, 0);
	key_free(k);
	k = compile_presented(HEAD TAIL, "");
	assert_non_null(k);
	assert_int_equal(k->expires_wall_ns, INT64_C(1780272000000000000));
	key_free(k);
	/* The earlier of the two ends counts. */
	k = compile_presented(HEAD ",\"expires_at\":\"2027-01-01T00:00:00Z\"" TAIL, "");
	assert_int_equal(k->expires_wall_ns, INT64_C(1780272000000000000));
	key_free(k);
	k = compile_presented(HEAD ",\"expires_at\":\"2026-01-01T00:00:00Z\"" TAIL, "");
	assert_int_equal(k->expires_wall_ns, INT64_C(1767225600000000000));
	key_free(k);
	assert_null(compile_presented(HEAD TAIL, "another"));
	assert_non_null(strstr(why, "hashes"));
}

static void
what_is_not_understood_is_refused(void **state)
{
	static const struct { const char *json, *about; } rows[] = {
		{ "", "document" },
		{ "[]", "document" },
		{ "{\"slug\":\"a\"}", "id" },
		{ HEAD TAIL "x", "document" },
		{ HEAD ",\"allowed_ips\":[]" TAIL, "does not know" },
		{ HEAD ",\"slug\":\"b\"" TAIL, "twice" },
		{ HEAD ",\"config\":7" TAIL, "config" },
		{ HEAD ",\"allow_config_override\":\"yes\"" TAIL, "allow_config_override" },
		{ HEAD ",\"metadata\":[]" TAIL, "metadata" },
		{ HEAD ",\"expires_at\":\"soon\"" TAIL, "expires_at" },
		{ HEAD ",\"allowed_models\":[]" TAIL, "allowed_models" },
		{ HEAD ",\"allowed_models\":[1]" TAIL, "allowed_models" },
		{ HEAD ",\"allowed_models\":\"claude-*\"" TAIL, "allowed_models" },
		{ HEAD ",\"rate_limits\":{}" TAIL, "rate_limits" },
		{ HEAD ",\"rate_limits\":[1]" TAIL, "rate_limits" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1}]" TAIL, "rate_limits" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rps\",\"value\":1}]" TAIL, "unit" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":0}]" TAIL, "value" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1.5}]" TAIL, "value" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1,\"burst\":2}]" TAIL, "rate_limits" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1},"
		    "{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":2}]" TAIL, "two limits" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"cost\",\"credit_limit_nusd\":-1,\"period\":\"total\"}]" TAIL, "credit_limit" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"cost\",\"credit_limit_nusd\":1e9,\"period\":\"total\"}]" TAIL, "credit_limit" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"cost\",\"credit_limit_nusd\":1,\"period\":\"yearly\"}]" TAIL, "period" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"tokens\",\"credit_limit_nusd\":1,\"period\":\"total\"}]" TAIL, "usage_limits" },
		{ HEAD ",\"enabled\":1,\"hashes\":[]}", "enabled" },
		{ HEAD ",\"enabled\":true}", "hashes" },
		{ HEAD ",\"enabled\":true,\"hashes\":[{}]}", "hashes" },
		{ "{\"id\":\"\",\"slug\":\"a\",\"workspace\":\"b\"" TAIL, "id" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		if (key_compile(slice_of(rows[i].json), NULL, why, sizeof(why)))
			fail_msg("taken: %s", rows[i].json);
		if (!strstr(why, rows[i].about))
			fail_msg("\"%s\" does not name %s", why, rows[i].about);
	}
}

static void
there_are_bounds(void **state)
{
	char json[32768];
	int n = snprintf(json, sizeof(json), "%s,\"allowed_models\":[", HEAD);

	(void)state;
	for (int i = 0; i <= KEY_MODELS_MAX; i++)
		n += snprintf(json + n, sizeof(json) - (size_t)n, "%s\"m%d\"", i ? "," : "", i);
	snprintf(json + n, sizeof(json) - (size_t)n, "]%s", TAIL);
	assert_null(key_compile(slice_of(json), NULL, why, sizeof(why)));
	n = snprintf(json, sizeof(json), "%s,\"config\":\"", HEAD);
	for (int i = 0; i < 65; i++)
		json[n++] = 'c';
	snprintf(json + n, sizeof(json) - (size_t)n, "\"%s", TAIL);
	assert_null(key_compile(slice_of(json), NULL, why, sizeof(why)));
}

static void
periods_have_names(void **state)
{
	enum meter_period p;

	(void)state;
	for (uint32_t i = 0; i <= PERIOD_MONTHLY; i++) {
		assert_true(key_period_of(slice_of(key_period_name(i)), &p));
		assert_int_equal(p, i);
	}
	assert_false(key_period_of(SLICE("hourly"), &p));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_are_sha_256),
		cmocka_unit_test(meters_have_ids_of_their_own),
		cmocka_unit_test(a_plain_key_may_do_all),
		cmocka_unit_test(limits_become_charges),
		cmocka_unit_test(strings_outlive_the_document),
		cmocka_unit_test(models_are_globs),
		cmocka_unit_test(the_presented_secret_has_its_own_end),
		cmocka_unit_test(what_is_not_understood_is_refused),
		cmocka_unit_test(there_are_bounds),
		cmocka_unit_test(periods_have_names),
	};

	return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
