/*
 * Config objects that are refused: every way, with all that is said of it.
 */
#include "tests/unit/config_fixture.h"

#include <stdio.h>
#include <stdlib.h>

/* Refused, with exactly these lines. */
static void
refuse(const char *json, const char *lines)
{
	struct problems p;
	struct config *c = parse(json, &p);

	if (c)
		fail_msg("accepted: %s", json);
	if (!slice_eq(buf_slice(&p.text), slice_of(lines)))
		fail_msg("%s:\n%.*sbut expected:\n%s", json, SLICE_FMT(buf_slice(&p.text)), lines);
	problems_free(&p);
}

static void
all_refused(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		refuse(rows[i].json, rows[i].text);
}
static void
test_not_yet_supported(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"prompt_id\":\"x\"}", "prompt_id: not yet supported\n" },
		{ "{\"targets\":[{\"afterRequestHooks\":[{\"id\":\"x\",\"onFail\":{}}]}]}", "targets[0].afterRequestHooks: not yet supported\n" },
		{ "{\"azure_resource_name\":\"x\",\"vertexProjectId\":\"y\"}",
		    "azure_resource_name: not yet supported\nvertexProjectId: not yet supported\n" },
		{ "{\"options\":[{}]}", "options: This version of config is not supported in this route. Please migrate to the latest version\n" },
	};

	ALL(all_refused, rows);
}

#define SLUG_RULE "(1 to 64 of A-Z a-z 0-9 . _ -)\n"
#define MODE_RULE "must be \"single\", \"fallback\", \"loadbalance\" or \"conditional\", not \"sngle\"\n"

static void
test_values(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "", "not valid JSON at byte 1: expected a value\n" },
		{ "[]", "must be an object, not an array\n" },
		{ "\"pc-x\"", "must be an object, not a string\n" },
		{ "7", "must be an object, not a number\n" },
		{ "{\"overide_params\":{}}", "overide_params: unknown field; did you mean \"override_params\"?\n" },
		{ "{\"override_parms\":{},\"zzz\":1}",
		    "override_parms: unknown field; did you mean \"override_params\"?\nzzz: unknown field\n" },
		{ "{\"\":1}", "\"\": unknown field\n" },
		{ "{\"provider\":1}", "provider: must be a string, not a number\n" },
		{ "{\"provider\":null}", "provider: must be a string, not null\n" },
		{ "{\"provider\":\"@a b\"}", "provider: must be a provider's slug, such as \"@anthropic\" " SLUG_RULE },
		{ "{\"provider\":\"@\"}", "provider: must be a provider's slug, such as \"@anthropic\" " SLUG_RULE },
		{ "{\"virtual_key\":\"@a\"}", "virtual_key: must be a provider's slug " SLUG_RULE },
		{ "{\"api_key\":\"\"}", "api_key: must be 1 to 4096 characters of printable ASCII without spaces: it becomes a header\n" },
		{ "{\"api_key\":\"a\\r\\nx: y\"}", "api_key: must be 1 to 4096 characters of printable ASCII without spaces: it becomes a header\n" },
		{ "{\"passthrough\":1}", "passthrough: must be true or false, not a number\n" },
		{ "{\"name\":\"\"}", "name: must have 1 to 128 bytes, without control characters\n" },
		{ "{\"name\":\"a\\u0000\"}", "name: must have 1 to 128 bytes, without control characters\n" },
		{ "{\"request_timeout\":0}", "request_timeout: must be a whole number from 1 to 86400000\n" },
		{ "{\"request_timeout\":1.5}", "request_timeout: must be a whole number from 1 to 86400000\n" },
		{ "{\"request_timeout\":\"5\"}", "request_timeout: must be a number, not a string\n" },
		{ "{\"request_timeout\":1,\"requestTimeout\":2}", "requestTimeout: given twice\n" },
		{ "{\"override_params\":[]}", "override_params: must be an object, not an array\n" },
		{ "{\"override_params\":{\"a\":1,\"\\u0061\":2}}", "override_params.a: given twice\n" },
		{ "{\"override_params\":{\"model\":7}}", "override_params.model: must be a string, not a number\n" },
		{ "{\"default_params\":{\"model\":\"\"}}",
		    "default_params.model: must be a model's name of 1 to 256 bytes, such as \"@anthropic/claude-sonnet-4-5\"\n" },
		{ "{\"override_params\":{\"model\":\"@x/\"}}", "override_params.model: must be \"@slug/model\" where it begins with \"@\"\n" },
		{ "{\"override_params\":{\"model\":\"a\\nb\"}}", "override_params.model: must not contain control characters\n" },
		{ "{\"override_params\":{\"a\\u0000b\":1}}", "override_params: a name must have 1 to 128 bytes, none of them NUL\n" },
	};

	ALL(all_refused, rows);
}

static void
test_more_values(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"drop_params\":\"a\"}", "drop_params: must be an array, not a string\n" },
		{ "{\"drop_params\":[1]}", "drop_params[0]: must be a string, not a number\n" },
		{ "{\"drop_params\":[\"model\"]}", "drop_params[0]: the model cannot be dropped: a request names one\n" },
		{ "{\"targets\":[]}", "targets: must have a target\n" },
		{ "{\"targets\":{}}", "targets: must be an array, not an object\n" },
		{ "{\"targets\":[1]}", "targets[0]: must be an object, not a number\n" },
		{ "{\"strategy\":{\"mode\":\"sngle\"},\"targets\":[{}]}", "strategy.mode: " MODE_RULE },
		{ "{\"strategy\":{\"mode\":7},\"targets\":[{}]}", "strategy.mode: must be a string, not a number\n" },
		{ "{\"strategy\":{\"mod\":\"single\"},\"targets\":[{}]}", "strategy.mod: unknown field; did you mean \"mode\"?\nstrategy: needs \"mode\"\n" },
		{ "{\"retry\":{\"atempts\":3}}", "retry.atempts: unknown field; did you mean \"attempts\"?\nretry: needs \"attempts\"\n" },
		{ "{\"retry\":{\"attempts\":6}}", "retry.attempts: must be a whole number from 0 to 5\n" },
		{ "{\"retry\":{\"attempts\":-1}}", "retry.attempts: must be a whole number from 0 to 5\n" },
		{ "{\"retry\":{\"attempts\":1,\"on_status_codes\":[99,600,\"429\"]}}",
		    "retry.on_status_codes[0]: must be a whole number from 100 to 599\nretry.on_status_codes[1]: must be a whole number from 100 to 599\n"
		    "retry.on_status_codes[2]: must be a number, not a string\n" },
		{ "{\"retry\":{\"attempts\":1,\"use_retry_after_header\":true,\"use_retry_after_headers\":true}}",
		    "retry.use_retry_after_header: given twice, in its two spellings\n" },
		{ "{\"cache\":{}}", "cache: needs \"mode\"\n" },
		{ "{\"cache\":{\"mode\":true}}", "cache.mode: must be a string, not true\n" },
		{ "{\"cache\":{\"mode\":\"smple\"}}", "cache.mode: must be \"simple\" or \"semantic\", not \"smple\"\n" },
		{ "{\"cache\":{\"mode\":\"simple\",\"max_age\":-1}}", "cache.max_age: must be a whole number, 0 or more\n" },
		{ "{\"targets\":[{\"weight\":\"1\"}]}", "targets[0].weight: must be a number, not a string\n" },
		{ "{\"targets\":[{\"weight\":-1},{\"weight\":-0},{\"weight\":1e400},{\"weight\":1000000001}]}",
		    "targets[0].weight: must be a number from 0 to 1000000000\ntargets[1].weight: must be a number from 0 to 1000000000\n"
		    "targets[2].weight: must be a number from 0 to 1000000000\ntargets[3].weight: must be a number from 0 to 1000000000\n" },
		{ "{\"cb_config\":{}}", "cb_config: needs \"failure_threshold\" or \"failure_threshold_percentage\"\n" },
		{ "{\"cb_config\":{\"failure_threshold\":0}}", "cb_config.failure_threshold: must be a whole number from 1 to 2147483647\n" },
		{ "{\"cb_config\":{\"failure_threshold_percentage\":100.1}}",
		    "cb_config.failure_threshold_percentage: must be more than 0 and at most 100, with one digit behind the point at most\n" },
		{ "{\"cb_config\":{\"failure_threshold_percentage\":0}}",
		    "cb_config.failure_threshold_percentage: must be more than 0 and at most 100, with one digit behind the point at most\n" },
		{ "{\"custom_host\":7}", "custom_host: must be a string, not a number\n" },
		{ "{\"custom_host\":\"https://u@h\"}",
		    "custom_host: Invalid custom host: it must be scheme, host, port and path: no user, query or fragment\n" },
		{ "{\"targets\":[{},{\"customHost\":\"http://169.254.169.254/latest\"}]}",
		    "targets[1].custom_host: Invalid custom host: it is a metadata service or no address at all: no request may go there\n" },
	};

	ALL(all_refused, rows);
}

static void
test_forward_headers(void **state)
{
	(void)state;
	static const struct { const char *name, *why; } rows[] = {
		{ "Authorization", "is a credential between the client and weir" }, { "x-api-key", "is a credential between the client and weir" },
		{ "proxy-authorization", "is a credential between the client and weir" }, { "cookie", "is a credential between the client and weir" },
		{ "Connection", "belongs to the connection between two peers" }, { "keep-alive", "belongs to the connection between two peers" },
		{ "TE", "belongs to the connection between two peers" }, { "trailer", "belongs to the connection between two peers" },
		{ "transfer-encoding", "belongs to the connection between two peers" }, { "upgrade", "belongs to the connection between two peers" },
		{ "proxy-connection", "belongs to the connection between two peers" }, { "expect", "belongs to the connection between two peers" },
		{ "Host", "is written by weir for each request" }, { "content-length", "is written by weir for each request" },
		{ "accept-encoding", "is written by weir for each request" }, { "X-Portkey-Config", "is for weir alone" },
		{ "x-portkey-forward-headers", "is for weir alone" },
	};
	char json[256], lines[256];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(json, sizeof(json), "{\"forward_headers\":[\"x-fine\",\"%s\"]}", rows[i].name);
		snprintf(lines, sizeof(lines), "forward_headers[1]: \"%s\" %s, and is never forwarded\n", rows[i].name, rows[i].why);
		refuse(json, lines);
	}
	static const char *const names[] = { "", "a b", "a:", "\\u00fc", "a\\n", "(x)", "a\\u0000b" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(json, sizeof(json), "{\"forward_headers\":[\"%s\"]}", names[i]);
		refuse(json, "forward_headers[0]: must be a header's name of 1 to 128 bytes\n");
	}
}

/* What belongs together, and what does not. */
static void
test_objects(void **state)
{
	(void)state;
#define ONE "\"conditions\":[{\"query\":{\"metadata.a\":\"b\"},\"then\":\"x\"}]"
#define X "\"targets\":[{\"name\":\"x\"}]}"
	static const struct row rows[] = {
		{ "{\"strategy\":{\"mode\":\"single\"}}", "strategy: has no \"targets\" beside it to choose from\n" },
		{ "{\"strategy\":{},\"targets\":[{}]}", "strategy: needs \"mode\"\n" },
		{ "{\"provider\":\"@a\",\"api_key\":\"k\",\"virtualKey\":\"v\",\"passthrough\":true,\"targets\":[{}]}",
		    "provider: not inherited by targets: put it into the target\nvirtual_key: not inherited by targets: put it into the target\n"
		    "api_key: not inherited by targets: put it into the target\npassthrough: not inherited by targets: put it into the target\n" },
		{ "{\"passthrough\":true,\"provider\":\"@a\"}", "passthrough: takes the provider from the request: leave it away, or the provider\n" },
		{ "{\"targets\":[{\"fetch_integrated_models\":true}]}", "targets[0].fetch_integrated_models: belongs to the config as a whole\n" },
		/* Fields of another mode. */
		{ "{\"strategy\":{\"mode\":\"loadbalance\",\"on_status_codes\":[500]},\"targets\":[{}]}",
		    "strategy.on_status_codes: belongs to the mode \"fallback\"\n" },
		{ "{\"strategy\":{\"mode\":\"fallback\"," ONE ",\"default\":\"x\"}," X,
		    "strategy.conditions: belongs to the mode \"conditional\"\nstrategy.default: belongs to the mode \"conditional\"\n" },
		{ "{\"strategy\":{\"mode\":\"single\",\"sticky\":{}},\"targets\":[{}]}", "strategy.sticky: belongs to the mode \"loadbalance\"\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\"," ONE ",\"cb_config\":{\"failure_threshold\":1}}," X,
		    "strategy.cb_config: is not passed on by a conditional: put it into the targets\n" },
		/* Conditionals. */
		{ "{\"strategy\":{\"mode\":\"conditional\"},\"targets\":[{}]}", "strategy: needs \"conditions\"\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[]},\"targets\":[{}]}", "strategy.conditions: must have a condition\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[{\"query\":{\"metadata.a\":\"b\"},\"than\":\"x\"},{\"then\":\"x\"}]}," X,
		    "strategy.conditions[0].than: unknown field; did you mean \"then\"?\nstrategy.conditions[0]: needs \"then\"\n"
		    "strategy.conditions[1]: needs \"query\"\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\"," ONE ",\"default\":\"maim\"},\"targets\":[{\"name\":\"main\"},{\"name\":\"y\"}]}",
		    "strategy.conditions[0].then: no target has the name \"x\"\n"
		    "strategy.default: no target has the name \"maim\"; did you mean \"main\"?\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\"," ONE "},\"targets\":[{\"name\":\"x\"},{\"name\":\"y\"},{\"name\":\"\\u0078\"},{\"name\":\"x\"}]}",
		    "targets[2].name: \"x\" is the name of config.targets[0] too: a conditional needs to tell them apart\n"
		    "targets[3].name: \"x\" is the name of config.targets[2] too: a conditional needs to tell them apart\n" },
		/* A name further down is none of its targets'. */
		{ "{\"strategy\":{\"mode\":\"conditional\"," ONE "},\"targets\":[{\"targets\":[{\"name\":\"x\"}]}]}",
		    "strategy.conditions[0].then: no target has the name \"x\"\n" },
		/* Weights. */
		{ "{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[{\"weight\":0},{\"weight\":0.0}]}",
		    "targets: all weights are 0: none of them would ever be chosen\n" },
		{ "{\"targets\":[{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[{\"weight\":0}]}]}",
		    "targets[0].targets: all weights are 0: none of them would ever be chosen\n" },
		/* Values by themselves and between them, all at once. */
		{ "{\"strategy\":{\"mode\":\"conditional\"," ONE ",\"default\":\"y\"},\"targets\":[{\"name\":\"z\",\"custom_host\":\"x\",\"retry\":{\"attempts\":9}}]}",
		    "targets[0].retry.attempts: must be a whole number from 0 to 5\nstrategy.conditions[0].then: no target has the name \"x\"\n"
		    "strategy.default: no target has the name \"y\"\n"
		    "targets[0].custom_host: Invalid custom host: it must begin with https:// (or http://)\n" },
	};

	ALL(all_refused, rows);
	/* Under a conditional alone do names have to differ. */
	config_put(accept("{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{\"name\":\"x\"},{\"name\":\"x\"}]}"));
}

/* What is compiled elsewhere is told where it stands. */
static void
test_compiled_parts(void **state)
{
	(void)state;
	static const struct { const char *json, *begin; } rows[] = {
		{ "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[{\"query\":{\"metadata.a\":\"b\"},\"then\":\"x\"},"
		    "{\"query\":{\"metadata.a\":{\"$regex\":\"(\"}},\"then\":\"x\"}]}," X, "strategy.conditions[1].query" },
		{ "{\"targets\":[{},{\"drop_params\":[\"a\",\"b[\"]}]}", "targets[1].drop_params[1]: " },
		{ "{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"hash_fields\":[\"metadata.a\",\"header.x\"]}},\"targets\":[{}]}",
		    "strategy.sticky.hash_fields[1]: " },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct problems p;

		assert_null(parse(rows[i].json, &p));
		if (p.count != 1 || !slice_starts(buf_slice(&p.text), slice_of(rows[i].begin)))
			fail_msg("%s: %.*s", rows[i].json, SLICE_FMT(buf_slice(&p.text)));
		problems_free(&p);
	}
}

static void
test_control_characters_stay_out_of_messages(void **state)
{
	(void)state;
	static const char *const rows[] = {
		"{\"a\nb\x7f\":1}", "{\"a\\nb\x7f\":1}", "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[{\"query\":{\"metadata.a\":\"b\"},"
		"\"then\":\"a\\nb\"}]},\"targets\":[{\"name\":\"a\\nb\"},{\"name\":\"a\\nb\"}]}",
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct problems p;

		assert_null(parse(rows[i], &p));
		uint32_t lines = 0;
		for (size_t k = 0; k < p.text.n; k++) {
			lines += p.text.p[k] == '\n';
			assert_true(p.text.p[k] == '\n' || ((unsigned char)p.text.p[k] >= 0x20 && p.text.p[k] != 0x7f));
		}
		assert_int_equal(lines, p.count);
		problems_free(&p);
	}
}

/* ---- bounds ---- */

static void
nest(struct buf *json, uint32_t levels)
{
	buf_init(json, 1u << 20);
	for (uint32_t i = 1; i < levels; i++)
		buf_add_str(json, "{\"targets\":[");
	buf_add_str(json, "{\"before_request_hooks\":[{\"checks\":[{\"id\":\"x\"}]}]}");
	for (uint32_t i = 1; i < levels; i++)
		buf_add_str(json, "]}");
	buf_add_char(json, '\0');
}

static void
test_depth(void **state)
{
	(void)state;
	struct buf json;
	struct problems p;

	nest(&json, CONFIG_LEVELS_MAX);
	assert_null(parse(json.p, &p));
	assert_int_equal(p.count, 1);	/* the hooks alone: the deepest level is walked */
	assert_true(slice_contains(buf_slice(&p.text), SLICE("before_request_hooks: not yet")));
	problems_free(&p);
	buf_free(&json);

	nest(&json, CONFIG_LEVELS_MAX + 1);
	assert_null(parse(json.p, &p));
	assert_int_equal(p.count, 1);
	assert_true(slice_contains(buf_slice(&p.text), SLICE("targets nest deeper than 16 levels")));
	problems_free(&p);
	buf_free(&json);
}

static void
test_bytes(void **state)
{
	(void)state;
	struct buf json;

	buf_init(&json, 1u << 20);
	buf_add_str(&json, "{\"name\":\"");
	while (json.n < CONFIG_BYTES_MAX)
		buf_add_char(&json, 'x');
	buf_add(&json, "\"}", 3);
	refuse(json.p, "a config has at most 262144 bytes\n");
	buf_free(&json);
}

/* `n` of `element`, "%d" in it being its number. */
static void
repeat(struct buf *json, const char *begin, const char *element, uint32_t n, const char *end)
{
	buf_init(json, 1u << 20);
	buf_add_str(json, begin);
	for (uint32_t i = 0; i < n; i++) {
		const char *number = strstr(element, "%d");

		buf_add_str(json, i ? "," : "");
		if (number)
			buf_printf(json, "%.*s%u%s", (int)(number - element), element, i, number + 2);
		else
			buf_add_str(json, element);
	}
	buf_add_str(json, end);
	buf_add_char(json, '\0');
}

static void
test_how_many(void **state)
{
	(void)state;
#define CONDITIONAL "{\"strategy\":{\"mode\":\"conditional\"," ONE ",\"default\":\"x\"},\"targets\":[{\"name\":\"x\"},"
	static const struct { const char *begin, *element, *end; uint32_t most; const char *problem; } rows[] = {
		{ "{\"targets\":[", "{}", "]}", 100, "targets: more than 100 targets on this level\n" },
		{ "{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[", "{}", "]}", 100, "targets: more than 100 targets on this level\n" },
		{ CONDITIONAL, "{\"name\":\"n%d\"}", "]}", 999, "targets: more than 1000 targets on this level\n" },
		{ "{\"targets\":[{\"targets\":[", "{}", "]}]}", 50, "targets[0].targets: more than 50 targets on this level\n" },
		{ "{\"targets\":[" CONDITIONAL, "{}", "]}]}", 49, "targets[0].targets: more than 50 targets on this level\n" },
		{ "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[", "{\"query\":{\"metadata.a\":\"b\"},\"then\":\"x\"}",
		    "]},\"targets\":[{\"name\":\"x\"}]}", 1000, "strategy.conditions: more than 1000 elements\n" },
		{ "{\"override_params\":{", "\"p%d\":1", "}}", 24, "override_params: more than 24 members\n" },
		{ "{\"default_params\":{", "\"p%d\":1", "}}", 24, "default_params: more than 24 members\n" },
		{ "{\"override_params\":{\"x\":1,\"y\":2},\"targets\":[{\"override_params\":{\"x\":1,", "\"p%d\":1", "}}]}", 22,
		    "targets[0].override_params: more than 24 members over all levels\n" },
		{ "{\"drop_params\":[", "\"p%d\"", "]}", 32, "drop_params: more than 32 elements\n" },
		{ "{\"forward_headers\":[", "\"x-%d\"", "]}", 32, "forward_headers: more than 32 elements\n" },
		{ "{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"hash_fields\":[", "\"params.p%d\"", "]}},\"targets\":[{}]}", 8,
		    "strategy.sticky.hash_fields: more than 8 elements\n" },
	};
	struct buf json;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		repeat(&json, rows[i].begin, rows[i].element, rows[i].most, rows[i].end);
		config_put(accept(json.p));
		buf_free(&json);
		repeat(&json, rows[i].begin, rows[i].element, rows[i].most + 1, rows[i].end);
		refuse(json.p, rows[i].problem);
		buf_free(&json);
	}
}

/* Each level within its bound, and too much in all. */
static void
test_how_many_in_all(void **state)
{
	(void)state;
	struct buf inner, json;
	struct problems p;

	repeat(&inner, "{\"targets\":[", "{}", 50, "]}");
	repeat(&json, "{\"targets\":[{},{},{},{},{},{},{},", inner.p, 40, "]}");	/* 1 + 7 + 40 + 2000 */
	config_put(accept(json.p));
	buf_free(&json);
	repeat(&json, "{\"targets\":[{},{},{},{},{},{},{},", inner.p, 40, ",{}]}");
	refuse(json.p, "targets: more than 2047 targets in all\n");
	buf_free(&json);
	repeat(&json, "{\"targets\":[", inner.p, 100, "]}");
	assert_null(parse(json.p, &p));
	assert_int_equal(p.count, 1);
	assert_true(slice_eq(buf_slice(&p.text), SLICE("targets[40].targets: more than 2047 targets in all\n")));
	problems_free(&p);
	buf_free(&json);
	buf_free(&inner);
}

/* Many wrong names: looking for what was meant is dear, so it is not done for all. */
static void
test_many_mistakes(void **state)
{
	(void)state;
	struct buf json;
	struct problems p;

	repeat(&json, "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[",
	    "{\"query\":{\"metadata.a\":\"b\"},\"then\":\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn%d\"}", 1000,
	    "]},\"targets\":[{\"name\":\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnx\"}]}");
	assert_null(parse(json.p, &p));
	assert_int_equal(p.count, 1000);
	uint32_t guesses = 0;
	for (size_t i = 0; i + 8 < p.text.n; i++)
		guesses += memcmp(p.text.p + i, "did you", 7) == 0;
	assert_int_equal(guesses, 16);
	problems_free(&p);
	buf_free(&json);
}

static void
test_path_of_a_document(void **state)
{
	(void)state;
	const struct config_source from = { .slug = SLICE("s"), .path = "configs[3].config" };
	struct problems p;

	problems_init(&p);
	assert_null(config_parse(SLICE("{\"targets\":[{\"x\":1,\"custom_host\":\"x\"}],\"custom_host\":\"y\"}"), &from, &p));
	assert_true(slice_eq(buf_slice(&p.text), SLICE("configs[3].config.targets[0].x: unknown field\n"
	    "configs[3].config.custom_host: Invalid custom host: it must begin with https:// (or http://)\n"
	    "configs[3].config.targets[0].custom_host: Invalid custom host: it must begin with https:// (or http://)\n")));
	problems_free(&p);
}

static void
test_problems_overflow(void **state)
{
	(void)state;
	struct problems p;

	problems_init(&p);
	p.text.max = 64;
	for (int i = 0; i < 10; i++)
		problem_add(&p, "path", "message number %d", i);
	assert_int_equal(p.count, 10);
	assert_true(p.text.n <= 64);
	assert_int_equal(p.text.p[p.text.n - 1], '\n');	/* whole lines only */
	problems_free(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_yet_supported),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_more_values),
		cmocka_unit_test(test_forward_headers),
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_compiled_parts),
		cmocka_unit_test(test_control_characters_stay_out_of_messages),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_how_many),
		cmocka_unit_test(test_how_many_in_all),
		cmocka_unit_test(test_many_mistakes),
		cmocka_unit_test(test_path_of_a_document),
		cmocka_unit_test(test_problems_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
