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

static const struct limit *
limit_labelled(const struct key *k, const char *label)
{
	for (uint32_t i = 0; i < k->limits.count; i++)
		if (strcmp(k->limits.limit[i].label, label) == 0)
			return &k->limits.limit[i];
	fail_msg("no limit %s", label);
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
a_plain_key_may_do_all(void **state)
{
	struct key *k = compile(HEAD TAIL);

	(void)state;
	assert_string_equal(k->id.p, "key_0123456789abcdef");
	assert_string_equal(k->slug.p, "alice");
	assert_string_equal(k->workspace.p, "team");
	assert_null(k->config);
	assert_true(k->enabled && k->allow_config_override);
	assert_null(k->user);
	assert_int_equal(k->limits.count, 0);
	assert_int_equal(k->expires_wall_ns, 0);
	assert_true(key_model_allowed(k, SLICE("anything")));
	key_free(k);
}

static void
limits_become_charges(void **state)
{
	/* Before the members that name them, and in one object instead of a list. */
	struct key *k = compile("{\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":60},{\"type\":\"tokens\",\"unit\":\"rpw\","
	    "\"value\":5000}],\"usage_limits\":{\"type\":\"cost\",\"credit_limit\":9007199.254740993,\"periodic_reset\":\"monthly\"},"
	    "\"id\":\"key_0123456789abcdef\",\"slug\":\"alice\",\"workspace\":\"team\"" TAIL);
	const struct limit *l;

	(void)state;
	assert_int_equal(k->limits.count, 3);
	l = limit_labelled(k, "key rpm");
	assert_int_equal(l->charge.kind, METER_BUCKET);
	assert_int_equal(l->charge.limit, 60);
	assert_int_equal(l->charge.id.hi, meter_id_of("key", SLICE("key_0123456789abcdef"), "requests:rpm").hi);
	assert_string_equal(l->name, "key team/alice rpm");
	assert_ptr_equal(l->charge.name, l->name);
	assert_int_equal(limit_labelled(k, "key tokens rpw")->charge.unit, UNIT_TOKENS);
	l = limit_labelled(k, "key monthly budget");
	assert_int_equal(l->charge.period, PERIOD_MONTHLY);
	assert_int_equal(l->charge.limit, INT64_C(9007199254740993));	/* no double has it */
	assert_string_equal(l->name, "key team/alice cost");
	assert_ptr_equal(l->charge.name, l->name);
	assert_true(limit_charge_is_cost(&l->charge));
	key_free(k);
	k = compile(HEAD ",\"usage_limits\":[{\"type\":\"tokens\",\"credit_limit\":7}]" TAIL);
	assert_false(limit_charge_is_cost(&k->limits.limit[0].charge));
	key_free(k);
}

static void
strings_outlive_the_document(void **state)
{
	char json[1024];
	struct key *k;
	const struct slice *value;

	(void)state;
	snprintf(json, sizeof(json), "%s", HEAD ",\"name\":\"A\",\"user\":\"al\\u0069ce\",\"config\":\"pc-eng\",\"allow_config_override\":false,"
	    "\"metadata\":{\"team\":\"caf\\u00e9\",\"env\":\"prod\"},\"allowed_models\":[\"claude-*\",\"x\"],"
	    "\"created_at\":\"2026-01-01T00:00:00Z\",\"rotated_at\":null" TAIL);
	k = compile(json);
	memset(json, 'x', sizeof(json));
	/* Nor in the memory that the next one is compiled in. */
	key_free(compile(HEAD ",\"name\":\"B\",\"user\":\"other one\",\"config\":\"other\",\"metadata\":{\"team\":\"xxxx\",\"env\":\"yyyy\"},"
	    "\"allowed_models\":[\"other-*\",\"y\"]" TAIL));
	assert_string_equal(k->config, "pc-eng");
	assert_string_equal(k->user, "alice");
	assert_false(k->allow_config_override);
	assert_int_equal(k->metadata.count, 2);
	value = metadata_get(&k->metadata, SLICE("team"));
	assert_true(value && slice_eq(*value, SLICE("caf\xc3\xa9")));
	assert_string_equal(k->allowed_models[1].p, "x");
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
		{ HEAD ",\"user\":\"\"" TAIL, "user is empty" },
		{ HEAD ",\"user\":7" TAIL, "user is not a string" },
		{ HEAD ",\"rate_limits\":7" TAIL, "a key's document: rate_limits: must be a list" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rps\",\"value\":1}]" TAIL, "a key's document: rate_limits[0].unit: must be" },
		{ HEAD ",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1,\"burst\":2}]" TAIL, "rate_limits[0].burst: unknown field" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"cost\",\"credit_limit\":-1}]" TAIL, "usage_limits[0].credit_limit: must be dollars" },
		{ HEAD ",\"usage_limits\":[{\"type\":\"cost\",\"credit_limit_nusd\":1,\"period\":\"total\"}]" TAIL, "credit_limit_nusd: unknown" },
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_are_sha_256),
		cmocka_unit_test(a_plain_key_may_do_all),
		cmocka_unit_test(limits_become_charges),
		cmocka_unit_test(strings_outlive_the_document),
		cmocka_unit_test(models_are_globs),
		cmocka_unit_test(the_presented_secret_has_its_own_end),
		cmocka_unit_test(what_is_not_understood_is_refused),
		cmocka_unit_test(there_are_bounds),
	};

	return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
