/*
 * The config object: what it becomes, and every way in which one is refused.
 * docs/configs.md is held to the parser by its own rows: each names a field, an
 * example, and whether it works now; the example must do what the row says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/config.h"
#include "policy/json.h"

static struct config *
parse(const char *json, struct problems *p)
{
	problems_init(p);
	return config_parse_text(slice_of(json), p);
}

static struct config *
accept(const char *json)
{
	struct problems p;
	struct config *c = parse(json, &p);

	if (!c)
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&p.text)));
	assert_int_equal(p.count, 0);
	problems_free(&p);
	return c;
}

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

static const char *
param(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->override_params_count; i++)
		if (strcmp(c->override_params[i].name, name) == 0)
			return c->override_params[i].raw;
	return NULL;
}

static void
test_model_prefix(void **state)
{
	(void)state;
	static const struct { const char *model, *slug, *bare; } rows[] = {
		{ "@anthropic/claude-opus-4-5", "anthropic", "claude-opus-4-5" },
		{ "@a.b_c-d/x/y", "a.b_c-d", "x/y" },
		{ "@cf/meta/llama", NULL, "@cf/meta/llama" },
		{ "@hf/x/y", NULL, "@hf/x/y" },
		{ "claude", NULL, "claude" },
		{ "a@b/c", NULL, "a@b/c" },
		{ "@alone", NULL, "@alone" },
		{ "@/x", NULL, "@/x" },
		{ "@slug/", NULL, "@slug/" },
		{ "@sl ug/x", NULL, "@sl ug/x" },
		{ "", NULL, "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct slice slug, bare;
		bool split = config_split_model(slice_of(rows[i].model), &slug, &bare);

		assert_int_equal(split, rows[i].slug != NULL);
		assert_true(slice_eq(slug, slice_of(rows[i].slug)));
		assert_true(slice_eq(bare, slice_of(rows[i].bare)));
	}
}

static void
test_empty(void **state)
{
	(void)state;
	struct config *c = accept(" {} ");

	assert_null(c->provider);
	assert_null(c->model);
	assert_null(c->slug);
	assert_int_equal(c->override_params_count, 0);
	assert_int_equal(c->request_timeout_ms, 0);
	config_free(c);
	config_free(NULL);
}

static void
test_overrides_keep_their_text(void **state)
{
	(void)state;
	struct config *c = accept("{\"override_params\":{\"temperature\":0.10000000000000000001, \"max_tokens\" : 9007199254740993,"
	    "\"thinking\":{\"type\" : \"enabled\",\"budget\\u005ftokens\":1e3},\"stop_sequences\":null,\"top\\u005fp\":1.0}}");

	assert_int_equal(c->override_params_count, 5);
	assert_string_equal(param(c, "temperature"), "0.10000000000000000001");
	assert_string_equal(param(c, "max_tokens"), "9007199254740993");
	assert_string_equal(param(c, "thinking"), "{\"type\" : \"enabled\",\"budget\\u005ftokens\":1e3}");
	assert_string_equal(param(c, "stop_sequences"), "null");
	assert_string_equal(param(c, "top_p"), "1.0");
	config_free(c);
}

static void
test_provider_and_model(void **state)
{
	(void)state;
	static const struct { const char *json, *provider, *model; } rows[] = {
		{ "{\"override_params\":{\"model\":\"@prod/claude-x\"}}", "prod", "claude-x" },
		{ "{\"overrideParams\":{\"model\":\"@prod/a/b\"}}", "prod", "a/b" },
		{ "{\"override_params\":{\"model\":\"claude-x\"}}", NULL, "claude-x" },
		{ "{\"override_params\":{\"model\":\"@cf/x\"}}", NULL, "@cf/x" },
		{ "{\"provider\":\"@prod\"}", "prod", NULL },
		{ "{\"provider\":\"anthropic\"}", "anthropic", NULL },
		{ "{\"virtual_key\":\"vk-1\"}", "vk-1", NULL },
		{ "{\"virtualKey\":\"vk-1\"}", "vk-1", NULL },
		{ "{\"provider\":\"@a\",\"virtual_key\":\"b\",\"override_params\":{\"model\":\"@c/m\"}}", "a", "m" },
		{ "{\"virtual_key\":\"b\",\"override_params\":{\"model\":\"@c/m\"}}", "b", "m" },
		{ "{\"strategy\":{\"mode\":\"single\"},\"targets\":[{\"provider\":\"@t\"}]}", "t", NULL },
		{ "{\"targets\":[{\"name\":\"x\",\"override_params\":{\"model\":\"@t/m\"}}]}", "t", "m" },
		{ "{\"override_params\":{\"model\":\"@root/m\"},\"targets\":[{}]}", "root", "m" },
		{ "{\"override_params\":{\"model\":\"@root/m\"},\"targets\":[{\"override_params\":{\"model\":\"n\"}}]}", NULL, "n" },
		{ "{\"targets\":[{\"targets\":[{\"provider\":\"deep\"}]}]}", "deep", NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config *c = accept(rows[i].json);

		assert_true(slice_eq(slice_of(c->provider), slice_of(rows[i].provider)));
		assert_true(slice_eq(slice_of(c->model), slice_of(rows[i].model)));
		assert_int_equal(c->override_params_count, 0);
		config_free(c);
	}
}

static void
test_inheritance(void **state)
{
	(void)state;
	struct config *c = accept("{\"request_timeout\":1000,\"override_params\":{\"a\":1,\"b\":{\"x\":1}},"
	    "\"targets\":[{\"override_params\":{\"b\":{\"y\":2},\"c\":3},\"targets\":[{\"requestTimeout\":2000}]}]}");

	assert_int_equal(c->request_timeout_ms, 2000);
	assert_int_equal(c->override_params_count, 3);
	assert_string_equal(param(c, "a"), "1");
	assert_string_equal(param(c, "b"), "{\"y\":2}");	/* whole: objects are not merged */
	assert_string_equal(param(c, "c"), "3");
	config_free(c);
}

static void
test_not_yet_supported(void **state)
{
	(void)state;
	static const char *const modes[] = { "fallback", "loadbalance", "conditional" };
	char json[256], lines[256];

	for (size_t i = 0; i < 3; i++) {
		snprintf(json, sizeof(json), "{\"strategy\":{\"mode\":\"%s\"},\"targets\":[{},{}]}", modes[i]);
		snprintf(lines, sizeof(lines), "strategy.mode: \"%s\" is not yet supported\n"
		    "targets: more than one target is not yet supported\n", modes[i]);
		refuse(json, lines);
	}
	refuse("{\"retry\":{\"attempts\":3}}", "retry: not yet supported\n");
	refuse("{\"targets\":[{\"afterRequestHooks\":[{\"id\":\"x\",\"onFail\":{}}]}]}",
	    "targets[0].afterRequestHooks: not yet supported\n");
	refuse("{\"azure_resource_name\":\"x\",\"vertexProjectId\":\"y\"}",
	    "azure_resource_name: not yet supported\nvertexProjectId: not yet supported\n");
	refuse("{\"strategy\":{\"mode\":\"single\",\"onStatusCodes\":[429]}}",
	    "strategy.onStatusCodes: not yet supported\n");
	refuse("{\"options\":[{}]}",
	    "options: the old form of configs is not supported: use \"strategy\" and \"targets\"\n");
}

static void
test_mistakes(void **state)
{
	(void)state;
	static const struct { const char *json, *lines; } rows[] = {
		{ "", "not valid JSON at byte 1: expected a value\n" },
		{ "[]", "must be an object, not an array\n" },
		{ "\"pc-x\"", "must be an object, not a string\n" },
		{ "{\"overide_params\":{}}", "overide_params: unknown field; did you mean \"override_params\"?\n" },
		{ "{\"override_parms\":{},\"zzz\":1}",
		    "override_parms: unknown field; did you mean \"override_params\"?\nzzz: unknown field\n" },
		{ "{\"\":1}", "\"\": unknown field\n" },
		{ "{\"provider\":1}", "provider: must be a string, not a number\n" },
		{ "{\"provider\":null}", "provider: must be a string, not null\n" },
		{ "{\"provider\":\"@a b\"}",
		    "provider: must be a provider's slug, such as \"@anthropic\" (1 to 64 of A-Z a-z 0-9 . _ -)\n" },
		{ "{\"provider\":\"@\"}",
		    "provider: must be a provider's slug, such as \"@anthropic\" (1 to 64 of A-Z a-z 0-9 . _ -)\n" },
		{ "{\"virtual_key\":\"@a\"}", "virtual_key: must be a provider's slug (1 to 64 of A-Z a-z 0-9 . _ -)\n" },
		{ "{\"request_timeout\":0}", "request_timeout: must be a whole number from 1 to 86400000\n" },
		{ "{\"request_timeout\":1.5}", "request_timeout: must be a whole number from 1 to 86400000\n" },
		{ "{\"request_timeout\":\"5\"}", "request_timeout: must be a number, not a string\n" },
		{ "{\"request_timeout\":1,\"requestTimeout\":2}", "requestTimeout: given twice\n" },
		{ "{\"override_params\":[]}", "override_params: must be an object, not an array\n" },
		{ "{\"override_params\":{\"a\":1,\"\\u0061\":2}}", "override_params.a: given twice\n" },
		{ "{\"override_params\":{\"model\":7}}", "override_params.model: must be a string, not a number\n" },
		{ "{\"override_params\":{\"model\":\"@x/\"}}",
		    "override_params.model: must be \"@slug/model\" where it begins with \"@\"\n" },
		{ "{\"override_params\":{\"model\":\"a\\nb\"}}",
		    "override_params.model: must not contain control characters\n" },
		{ "{\"override_params\":{\"a\\u0000b\":1}}",
		    "override_params: a name must have 1 to 128 bytes, none of them NUL\n" },
		{ "{\"targets\":[]}", "targets: must have a target\n" },
		{ "{\"targets\":{}}", "targets: must be an array, not an object\n" },
		{ "{\"targets\":[1]}", "targets[0]: must be an object, not a number\n" },
		{ "{\"provider\":\"@a\",\"targets\":[{}]}",
		    "provider: not inherited by targets: put it into the target\n" },
		{ "{\"strategy\":{\"mode\":\"sngle\"}}",
		    "strategy.mode: must be \"single\" (later versions: \"fallback\", \"loadbalance\", \"conditional\")\n" },
		{ "{\"strategy\":{\"mod\":\"single\"}}", "strategy.mod: unknown field; did you mean \"mode\"?\n" },
		{ "{\"retry\":{\"atempts\":3}}",
		    "retry: not yet supported\nretry.atempts: unknown field; did you mean \"attempts\"?\nretry: needs \"attempts\"\n" },
		{ "{\"cache\":{\"mode\":true}}", "cache: not yet supported\ncache.mode: must be a string, not true\n" },
		{ "{\"targets\":[{\"weight\":\"1\"}]}",
		    "targets[0].weight: not yet supported\ntargets[0].weight: must be a number, not a string\n" },
		{ "{\"strategy\":{\"conditions\":[{\"query\":{\"$and\":[]},\"than\":\"x\"}]}}",
		    "strategy.conditions: not yet supported\n"
		    "strategy.conditions[0].than: unknown field; did you mean \"then\"?\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refuse(rows[i].json, rows[i].lines);
}

static void
test_control_characters_stay_out_of_messages(void **state)
{
	(void)state;
	struct problems p;

	assert_null(parse("{\"a\\nb\x7f\":1}", &p));
	for (size_t i = 0; i + 1 < p.text.n; i++)
		assert_true((unsigned char)p.text.p[i] >= 0x20 && p.text.p[i] != 0x7f);
	problems_free(&p);
}

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
test_bounds(void **state)
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

	buf_init(&json, 1u << 20);
	buf_add_str(&json, "{\"name\":\"");
	while (json.n < CONFIG_BYTES_MAX)
		buf_add_char(&json, 'x');
	buf_add(&json, "\"}", 3);
	refuse(json.p, "a config has at most 262144 bytes\n");
	buf_free(&json);
}

static void
test_params_bound(void **state)
{
	(void)state;
	struct buf json;

	for (int extra = 0; extra < 2; extra++) {
		buf_init(&json, 1u << 20);
		buf_add_str(&json, "{\"override_params\":{\"model\":\"m\"");
		for (int i = 1; i < CONFIG_PARAMS_MAX + extra; i++)
			buf_printf(&json, ",\"p%d\":%d", i, i);
		buf_add(&json, "}}", 3);
		if (extra)
			refuse(json.p, "override_params: more than 24 members\n");
		else
			config_free(accept(json.p));
		buf_free(&json);
	}
}

static void
test_path_of_a_document(void **state)
{
	(void)state;
	struct problems p;

	problems_init(&p);
	assert_null(config_parse(SLICE("{\"targets\":[{\"x\":1}]}"), "configs[3].config", &p));
	assert_true(slice_eq(buf_slice(&p.text), SLICE("configs[3].config.targets[0].x: unknown field\n")));
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

static char *
read_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1u << 20);

	if (!f)
		fail_msg("cannot open %s", path);
	assert_non_null(text);
	size_t n = fread(text, 1, (1u << 20) - 1, f);
	assert_true(n > 0);
	fclose(f);
	return text;
}

/* One cell of a table's row, without its spaces and backquotes. */
static struct slice
cell(char **at)
{
	char *end = strstr(*at, " |");

	assert_non_null(end);
	struct slice s = slice_trim((struct slice){ *at, (size_t)(end - *at) });
	if (s.n >= 2 && s.p[0] == '`' && s.p[s.n - 1] == '`')
		s = (struct slice){ s.p + 1, s.n - 2 };
	*at = end + 2;
	return s;
}

static void
test_documentation(void **state)
{
	(void)state;
	char *page = read_text(WEIR_SOURCE_DIR "/docs/configs.md");
	int now = 0, later = 0;

	for (char *rest = page, *line; (line = strsep(&rest, "\n"));) {
		if (strncmp(line, "| `", 3) != 0)
			continue;
		char *at = line + 1;
		struct slice name = cell(&at), works = cell(&at), example = cell(&at);
		struct problems p;

		problems_init(&p);
		struct config *c = config_parse_text(example, &p);
		if (slice_eq(works, SLICE("now"))) {
			now++;
			if (!c)
				fail_msg("%.*s works now, says the page, but: %.*s", SLICE_FMT(name), SLICE_FMT(buf_slice(&p.text)));
		} else {
			later++;
			assert_true(slice_eq(works, SLICE("later")));
			if (c || p.count != 1 || !slice_contains(buf_slice(&p.text), SLICE("not yet supported")))
				fail_msg("%.*s comes later, says the page, but: %.*s", SLICE_FMT(name), SLICE_FMT(buf_slice(&p.text)));
		}
		config_free(c);
		problems_free(&p);
	}
	assert_true(now >= 7);
	assert_true(later >= 30);
	free(page);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_prefix),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_overrides_keep_their_text),
		cmocka_unit_test(test_provider_and_model),
		cmocka_unit_test(test_inheritance),
		cmocka_unit_test(test_not_yet_supported),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_control_characters_stay_out_of_messages),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_params_bound),
		cmocka_unit_test(test_path_of_a_document),
		cmocka_unit_test(test_problems_overflow),
		cmocka_unit_test(test_documentation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
