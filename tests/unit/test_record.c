/*
 * A record's bytes: what goes in comes out, what does not fit is cut in the
 * right order, and bytes that are no record are refused. The JSON form is
 * checked by cJSON, so that it is valid whatever the strings hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "shm/base/buf.h"
#include "shm/limits.h"
#include "store/record.h"

#define STRINGS 23
#define LEAST (sizeof(struct record_fixed) + 2 * STRINGS)

static struct record
sample(void)
{
	struct record r = {
		.fixed = {
			.status = 200, .route = 1, .outcome = OUTCOME_OK, .attempts = 1,
			.flags = RECORD_FLAG(STREAM) | RECORD_FLAG(ESTIMATED) | RECORD_FLAG(CLAMPED) | RECORD_FLAG(WAITED),
			.start_wall_ns = INT64_C(1795457833042000000),
			.total_ns = 4, .upstream_ns = 3, .first_byte_ns = 2, .overhead_ns = 1,
			.tokens = { 10, 20, 30, 40, 50, 6 }, .cost_nusd = 38000000, .held_nusd = 40000000,
			.asked_tokens = 128000, .granted_tokens = 4096, .wait_ns = 250000000,
			.request_bytes = 600, .response_bytes = 1200, .cache = CACHE_HIT, .retries = -1, .saved_nusd = 5,
		},
		.request_id = SLICE("req_1"), .route_name = SLICE("messages"), .key_id = SLICE("key_0123456789abcdef"),
		.key = SLICE("alice"), .workspace = SLICE("team"), .config = SLICE("inline"),
		.provider = SLICE("anthropic"), .model_requested = SLICE("opus"), .model = SLICE("claude-opus-5-5"),
		.provider_request_id = SLICE("req_2"), .session_id = SLICE("s"), .trace_id = SLICE("t"),
		.client = SLICE("claude-code"), .client_version = SLICE("2.1.0"), .remote_address = SLICE("127.0.0.1"),
		.error_type = SLICE(""), .error_message = SLICE_NONE, .limit = SLICE("key rpm"),
		.price = SLICE("claude-opus-5-5@2026-09-22"), .metadata = SLICE("{\"team\":\"a\\\"b\",\"env\":\"\"}"),
		.config_version = SLICE("0123abcd"), .target = SLICE("config.targets[1]"),
	};

	return r;
}

static void
what_goes_in_comes_out(void **state)
{
	struct record in = sample(), out;
	char bytes[RECORD_BYTES_MAX];
	uint32_t n = record_encode(&in, bytes, sizeof(bytes));

	(void)state;
	assert_true(record_decode((struct slice){ bytes, n }, &out));
	in.fixed.version = RECORD_VERSION;
	assert_memory_equal(&in.fixed, &out.fixed, sizeof(in.fixed));
#define X(name) assert_true(slice_eq(in.name, out.name));
	RECORD_STRINGS(X)
#undef X
}

static void
the_longest_is_cut_first(void **state)
{
	struct record in = sample(), out;
	char bytes[LEAST + 400], model[3000];
	uint32_t n;

	(void)state;
	memset(model, 'm', sizeof(model));
	in.model_requested = (struct slice){ model, sizeof(model) };
	n = record_encode(&in, bytes, sizeof(bytes));
	assert_true(n <= sizeof(bytes));
	assert_true(record_decode((struct slice){ bytes, n }, &out));
	assert_true(out.fixed.flags & RECORD_FLAG(TRUNCATED));
	assert_true(out.model_requested.n > 50 && out.model_requested.n < 400);
	assert_true(slice_eq(out.key_id, in.key_id));
	assert_true(slice_eq(out.metadata, in.metadata));
}

static void
metadata_is_whole_or_empty(void **state)
{
	struct record in = sample(), out;
	char bytes[LEAST + 400], metadata[1000];
	uint32_t n;

	(void)state;
	memset(metadata, 'v', sizeof(metadata));
	memcpy(metadata, "{\"k\":\"", 6);
	memcpy(metadata + sizeof(metadata) - 2, "\"}", 2);
	in.metadata = (struct slice){ metadata, sizeof(metadata) };
	n = record_encode(&in, bytes, sizeof(bytes));
	assert_true(record_decode((struct slice){ bytes, n }, &out));
	assert_true(out.fixed.flags & RECORD_FLAG(TRUNCATED));
	assert_true(slice_eq(out.metadata, SLICE("{}")));
	assert_true(slice_eq(out.price, in.price));
}

static void
no_character_is_halved(void **state)
{
	struct record in = sample(), out;
	char bytes[LEAST + 300], text[999];
	uint32_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i += 3)
		memcpy(text + i, "\xe2\x82\xac", 3);
	for (uint32_t size = LEAST; size <= sizeof(bytes); size++) {
		in.error_message = (struct slice){ text, sizeof(text) };
		n = record_encode(&in, bytes, size);
		assert_true(n <= size);
		assert_true(record_decode((struct slice){ bytes, n }, &out));
		assert_int_equal(out.error_message.n % 3, 0);
	}
}

static void
strings_of_megabytes_are_cut_too(void **state)
{
	struct record in = sample(), out;
	size_t huge = 1 << 20;
	char *text = malloc(huge), bytes[RECORD_BYTES_MAX];
	uint32_t n;

	(void)state;
	memset(text, 'x', huge);
#define X(name) in.name = (struct slice){ text, huge };
	RECORD_STRINGS(X)
#undef X
	n = record_encode(&in, bytes, sizeof(bytes));
	assert_true(n <= sizeof(bytes) && n > sizeof(bytes) - STRINGS);
	assert_true(record_decode((struct slice){ bytes, n }, &out));
	free(text);
}

static void
other_bytes_are_no_record(void **state)
{
	struct record in = sample(), out;
	char bytes[RECORD_BYTES_MAX];
	uint32_t n = record_encode(&in, bytes, sizeof(bytes));

	(void)state;
	for (uint32_t cut = 0; cut < n; cut++)
		assert_false(record_decode((struct slice){ bytes, cut }, &out));
	bytes[n] = 0;
	assert_false(record_decode((struct slice){ bytes, n + 1 }, &out));
	bytes[0]++;	/* the version: a newer one, an older one */
	assert_false(record_decode((struct slice){ bytes, n }, &out));
	bytes[0] -= 3;
	assert_false(record_decode((struct slice){ bytes, n }, &out));
	bytes[0] += 2;
	bytes[offsetof(struct record_fixed, outcome)] = OUTCOME_COUNT;
	assert_false(record_decode((struct slice){ bytes, n }, &out));
	bytes[offsetof(struct record_fixed, outcome)] = OUTCOME_OK;
	bytes[offsetof(struct record_fixed, cache)] = CACHE_COUNT;
	assert_false(record_decode((struct slice){ bytes, n }, &out));
}

/* What a weir before this one has stored: a shorter fixed part, fewer strings. */
static void
records_of_version_2_are_read(void **state)
{
	struct record in = sample(), out;
	char bytes[RECORD_BYTES_MAX], old[RECORD_BYTES_MAX];
	const size_t fixed = sizeof(struct record_fixed), added = sizeof(in.fixed.saved_nusd);

	(void)state;
	in.fixed.cache = CACHE_DISABLED;
	in.fixed.retries = 0;
	in.config_version = in.target = SLICE_NONE;
	uint32_t n = record_encode(&in, bytes, sizeof(bytes)) - 3 * 2;	/* three strings that are not there */
	memcpy(old, bytes, fixed - added);
	memcpy(old + fixed - added, bytes + fixed, n - fixed);
	old[0] = 2;
	assert_true(record_decode((struct slice){ old, n - added }, &out));
	assert_int_equal(out.fixed.version, 2);
	assert_int_equal(out.fixed.saved_nusd, 0);
	assert_int_equal(out.fixed.response_bytes, 1200);
	assert_true(slice_eq(out.metadata, in.metadata));
	assert_int_equal(out.tries.n, 0);
	for (size_t cut = 0; cut < n - added; cut++)
		assert_false(record_decode((struct slice){ old, cut }, &out));
}

static void
tries_are_read_as_they_were_written(void **state)
{
	struct record_try in[] = {
		{ 529, 12, 0, SLICE("config.targets[0]"), SLICE("main"), SLICE("claude-opus-5-5"), SLICE("overloaded_error") },
		{ 0, 5000, 7, SLICE("config.targets[1]"), SLICE("other"), SLICE_NONE, SLICE("it could not be reached") },
	}, out;
	char text[RECORD_TRIES_BYTES], longest[400];
	uint32_t n = 0, one;

	(void)state;
	for (int i = 0; i < 2; i++) {
		one = record_try_add(text + n, sizeof(text) - n, &in[i]);
		assert_true(one > 0);
		assert_int_equal(record_try_add(text + n, one - 1, &in[i]), 0);
		n += one;
	}
	struct slice rest = { text, n };
	for (int i = 0; i < 2; i++) {
		assert_true(record_try_read(&rest, &out));
		assert_int_equal(out.status, in[i].status);
		assert_int_equal(out.ms, in[i].ms);
		assert_int_equal(out.cost_nusd, in[i].cost_nusd);
		assert_true(slice_eq(out.target, in[i].target) && slice_eq(out.provider, in[i].provider));
		assert_true(slice_eq(out.model, in[i].model) && slice_eq(out.error, in[i].error));
	}
	assert_int_equal(rest.n, 0);
	for (uint32_t cut = 0; cut < n; cut++) {
		rest = (struct slice){ text, cut };
		while (record_try_read(&rest, &out))
			;
	}
	memset(longest, 'x', sizeof(longest));
	in[0].error = (struct slice){ longest, sizeof(longest) };
	assert_true(record_try_add(text, sizeof(text), &in[0]) > 0);
	rest = (struct slice){ text, sizeof(text) };
	assert_true(record_try_read(&rest, &out));
	assert_int_equal(out.error.n, 255);
}

static void
tries_are_whole_or_not_there(void **state)
{
	struct record in = sample(), out;
	char bytes[LEAST + 400], tries[2000];

	(void)state;
	memset(tries, 'x', sizeof(tries));
	in.tries = (struct slice){ tries, sizeof(tries) };
	assert_true(record_decode((struct slice){ bytes, record_encode(&in, bytes, sizeof(bytes)) }, &out));
	assert_int_equal(out.tries.n, 0);
	assert_true(slice_eq(out.metadata, in.metadata));
}

static void
the_fixed_part_is_rewritten_in_place(void **state)
{
	struct record in = sample(), out;
	struct record_fixed fixed;
	char bytes[RECORD_BYTES_MAX];
	uint32_t n = record_encode(&in, bytes, sizeof(bytes));

	(void)state;
	record_fixed_read(bytes, &fixed);
	fixed.outcome = OUTCOME_WORKER_DIED;
	fixed.cost_nusd = 7;
	record_fixed_write(bytes, &fixed);
	assert_true(record_decode((struct slice){ bytes, n }, &out));
	assert_int_equal(out.fixed.outcome, OUTCOME_WORKER_DIED);
	assert_int_equal(out.fixed.cost_nusd, 7);
	assert_true(slice_eq(out.model, in.model));
}

static cJSON *
json_of(const struct record *r, uint64_t id)
{
	struct buf line;
	cJSON *json;

	buf_init(&line, 1 << 20);
	record_to_json(r, id, &line);
	assert_false(line.overflow);
	assert_null(memchr(line.p, '\n', line.n));
	json = cJSON_ParseWithLength(line.p, line.n);
	if (!json)
		fail_msg("not JSON: %.*s", SLICE_FMT(buf_slice(&line)));
	buf_free(&line);
	return json;
}

static void
assert_text(const cJSON *json, const char *name, const char *text)
{
	const char *got = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

	if (!got || strcmp(got, text) != 0)
		fail_msg("%s: \"%s\" instead of \"%s\"", name, got ? got : "(none)", text);
}

static void
json_has_all_that_people_ask_for(void **state)
{
	struct record r = sample();
	cJSON *json = json_of(&r, UINT64_MAX), *part;

	(void)state;
	assert_text(json, "id", "18446744073709551615");
	assert_text(json, "time", "2026-11-23T18:17:13.042Z");
	assert_text(json, "outcome", "ok");
	assert_text(json, "route", "messages");
	assert_text(json, "error_message", "");
	assert_text(json, "cost_usd", "0.038000000");
	assert_int_equal(cJSON_GetObjectItem(json, "cost_nusd")->valueint, 38000000);
	assert_int_equal(cJSON_GetObjectItem(json, "status")->valueint, 200);
	part = cJSON_GetObjectItem(json, "tokens");
	assert_int_equal(cJSON_GetObjectItem(part, "cache_read")->valueint, 50);
	assert_int_equal(cJSON_GetArraySize(part), TOKENS_CLASSES);
	part = cJSON_GetObjectItem(json, "flags");
	assert_int_equal(cJSON_GetArraySize(part), 4);
	assert_string_equal(cJSON_GetArrayItem(part, 1)->valuestring, "estimated");
	assert_string_equal(cJSON_GetArrayItem(part, 2)->valuestring, "clamped");
	assert_string_equal(cJSON_GetArrayItem(part, 3)->valuestring, "waited");
	assert_int_equal(cJSON_GetObjectItem(json, "asked_tokens")->valueint, 128000);
	assert_int_equal(cJSON_GetObjectItem(json, "granted_tokens")->valueint, 4096);
	assert_int_equal(cJSON_GetObjectItem(json, "wait_ns")->valueint, 250000000);
	assert_text(cJSON_GetObjectItem(json, "metadata"), "team", "a\"b");
	assert_text(json, "cache_status", "HIT");
	assert_text(json, "target", "config.targets[1]");
	assert_text(json, "config_version", "0123abcd");
	assert_int_equal(cJSON_GetObjectItem(json, "retries")->valueint, -1);
	assert_int_equal(cJSON_GetObjectItem(json, "saved_nusd")->valueint, 5);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "tries")), 0);
	cJSON_Delete(json);
}

static void
json_shows_each_try(void **state)
{
	const struct record_try one = { 529, 12, 3, SLICE("config.targets[0]"), SLICE("main"), SLICE("m\"\xff"), SLICE("overloaded_error") };
	struct record r = sample();
	char text[RECORD_TRIES_BYTES];
	uint32_t n = record_try_add(text, sizeof(text), &one);

	(void)state;
	n += record_try_add(text + n, sizeof(text) - n, &one);
	r.tries = (struct slice){ text, n - 1 };	/* the second one is cut: it is left out */
	cJSON *json = json_of(&r, 1), *tries = cJSON_GetObjectItem(json, "tries");
	assert_int_equal(cJSON_GetArraySize(tries), 1);
	tries = cJSON_GetArrayItem(tries, 0);
	assert_int_equal(cJSON_GetObjectItem(tries, "status")->valueint, 529);
	assert_int_equal(cJSON_GetObjectItem(tries, "ms")->valueint, 12);
	assert_int_equal(cJSON_GetObjectItem(tries, "cost_nusd")->valueint, 3);
	assert_text(tries, "model", "m\"\xef\xbf\xbd");
	assert_text(tries, "error", "overloaded_error");
	cJSON_Delete(json);
}

static void
json_is_valid_whatever_the_strings_hold(void **state)
{
	static const char *const metadata[] = {
		"", "{", "{}}", "[]", "{\"a\":1}", "{\"a\":\"b\"", "{\"a\":\"b\",}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\\\"}", "{\"a\":\"\xff\"}", "{\"a\":\"\x01\"}", "{\"a\" :\"b\"}", "{\"a\":{\"b\":\"c\"}}", "{\"\\u12}",
	};
	struct record r = sample();

	(void)state;
	r.client = SLICE("caf\xe9 \xf0\x9f\x98\x80 \xed\xa0\x80 \x01\"\\\n\0end\xc3");
	for (size_t i = 0; i < sizeof(metadata) / sizeof(*metadata); i++) {
		r.metadata = slice_of(metadata[i]);
		cJSON *json = json_of(&r, 1);
		assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "metadata")), 0);
		cJSON_Delete(json);
	}

	struct buf line;
	buf_init(&line, 1 << 20);
	record_to_json(&r, 1, &line);
	assert_true(slice_contains(buf_slice(&line), SLICE("caf\xef\xbf\xbd \xf0\x9f\x98\x80 ")));
	assert_true(slice_contains(buf_slice(&line), SLICE("end\xef\xbf\xbd\"")));
	buf_free(&line);
}

static void
dollars_are_exact(void **state)
{
	static const struct { int64_t nusd; const char *text; } rows[] = {
		{ 0, "0.000000000" }, { 1, "0.000000001" }, { -1, "-0.000000001" }, { 1250000000, "1.250000000" },
		{ INT64_MAX, "9223372036.854775807" }, { INT64_MIN, "-9223372036.854775808" },
	};
	char text[RECORD_USD_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		record_format_usd(rows[i].nusd, text, sizeof(text));
		assert_string_equal(text, rows[i].text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_goes_in_comes_out),
		cmocka_unit_test(the_longest_is_cut_first),
		cmocka_unit_test(metadata_is_whole_or_empty),
		cmocka_unit_test(no_character_is_halved),
		cmocka_unit_test(strings_of_megabytes_are_cut_too),
		cmocka_unit_test(other_bytes_are_no_record),
		cmocka_unit_test(records_of_version_2_are_read),
		cmocka_unit_test(tries_are_read_as_they_were_written),
		cmocka_unit_test(tries_are_whole_or_not_there),
		cmocka_unit_test(json_shows_each_try),
		cmocka_unit_test(the_fixed_part_is_rewritten_in_place),
		cmocka_unit_test(json_has_all_that_people_ask_for),
		cmocka_unit_test(json_is_valid_whatever_the_strings_hold),
		cmocka_unit_test(dollars_are_exact),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
