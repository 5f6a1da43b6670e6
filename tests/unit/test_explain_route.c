/*
 * weir explain --config, as a shell runs it: where a request would go. No weir runs
 * here; what one makes visible is in tests/e2e/health.test.mjs.
 */
#include <stdbool.h>

#include "gateway/commands.h"
#include "tests/unit/tool_fixture.h"

static char settings_path[96], body_path[96], run_dir[96];

#define EXPLAIN(...) run(cmd_explain, (const char *const[]){ "explain", "--settings", settings_path, "--run-dir", run_dir, __VA_ARGS__, NULL })
#define KEY(...) run(cmd_key, (const char *const[]){ "key", "create", __VA_ARGS__, NULL })

static const char settings[] =
    "{\"providers\":["
    "{\"slug\":\"main\",\"type\":\"anthropic\",\"base_url\":\"http://127.0.0.1:9\",\"api_key\":\"sk-secret-main\"},"
    "{\"slug\":\"opus\",\"type\":\"anthropic\",\"base_url\":\"http://127.0.0.1:9\",\"api_key\":\"sk-secret-opus\",\"models\":[\"claude-opus-*\"]}],"
    "\"default_provider\":\"main\","
    "\"models\":[{\"id\":\"fast\",\"model\":\"@main/claude-haiku-4-5\"}],"
    "\"workspaces\":[{\"slug\":\"design\",\"config\":\"even\"}],"
    "\"configs\":["
    "{\"slug\":\"by-team\",\"config\":{\"strategy\":{\"mode\":\"conditional\",\"conditions\":["
	"{\"query\":{\"metadata.team\":{\"$in\":[\"x\",\"y\"]}},\"then\":\"first\"},"
	"{\"query\":{\"params.max_tokens\":{\"$gt\":100}},\"then\":\"second\"}]},"
	"\"targets\":[{\"name\":\"first\",\"strategy\":{\"mode\":\"fallback\"},\"targets\":["
	"{\"provider\":\"@opus\"},"
	"{\"provider\":\"@main\",\"override_params\":{\"max_tokens\":100},\"default_params\":{\"temperature\":1},\"drop_params\":[\"metadata.user_id\"],"
	"\"retry\":{\"attempts\":3},\"cache\":{\"mode\":\"simple\",\"max_age\":120},\"request_timeout\":30000}]},"
	"{\"name\":\"second\",\"provider\":\"@main\"}]}},"
    "{\"slug\":\"even\",\"config\":{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[{\"provider\":\"@main\"},{\"provider\":\"@opus\"}]}},"
    "{\"slug\":\"chain\",\"config\":{\"strategy\":{\"mode\":\"fallback\",\"on_status_codes\":[429,529]},"
	"\"targets\":[{\"provider\":\"@main\"},{\"provider\":\"@opus\"},{\"provider\":\"@main\"}]}}]}";

static void
write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

static int
setup_settings(void **state)
{
	if (setup(state) != 0)
		return -1;
	snprintf(settings_path, sizeof(settings_path), "%s/weir.json", folder);
	snprintf(body_path, sizeof(body_path), "%s/body.json", folder);
	snprintf(run_dir, sizeof(run_dir), "%s/run", folder);
	write_file(settings_path, settings);
	return 0;
}

static void
body(const char *text)
{
	write_file(body_path, text);
}

static void
said(const char *text)
{
	if (!strstr(out, text))
		fail_msg("\"%s\" is not in:\n%s", text, out);
}

static void
mistake(const char *text)
{
	if (!strstr(err, text))
		fail_msg("\"%s\" is not in: %s", text, err);
	assert_string_equal(out, "");
}

static void
conditions_are_told_one_by_one(void **state)
{
	(void)state;
	body("{\"model\":\"claude-opus-4-8\",\"max_tokens\":500,\"messages\":[]}");
	assert_int_equal(EXPLAIN("--config", "by-team", "--metadata", "{\"team\":\"z\"}", "--body", body_path), 0);
	said("config    by-team of version ");
	said("conditions[0] does not hold\n");
	said("metadata.team $in [\"x\",\"y\"]: no, it is \"z\"");
	said("conditions[1] holds: targets[1]\n");
	said("params.max_tokens $gt 100: yes, it is 500");
	said("target    config.targets[1]: provider main (anthropic), model claude-opus-4-8\n");

	assert_int_equal(EXPLAIN("--config", "by-team", "--metadata", "{\"team\":\"y\"}", "--body", body_path), 0);
	said("config.targets[0]: fallback: targets[0], 1 of 2");
	said("target    config.targets[0].targets[0]: provider opus");
	said("then      after 400, 401, 429, 500, 529: config.targets[0].targets[1]\n");
	assert_null(strstr(out, "conditions[1]"));	/* the first that holds decides */
	assert_null(strstr(out, "sk-secret"));

	body("{\"model\":\"claude-opus-4-8\",\"max_tokens\":50}");
	assert_int_equal(EXPLAIN("--config", "by-team", "--body", body_path), 0);
	said("refused   400: Query router did not resolve to any valid target (config): no condition holds, and there is no default\n");
}

static void
a_target_is_told_with_all_it_does(void **state)
{
	(void)state;
	body("{\"model\":\"fast\",\"temperature\":0}");
	assert_int_equal(EXPLAIN("--config", "by-team", "--metadata", "{\"team\":\"x\"}", "--body", body_path), 0);
	said("model     fast, an alias of @main/claude-haiku-4-5\n");
	said("passed    config.targets[0].targets[0]: provider opus does not offer the model\n");
	said("target    config.targets[0].targets[1]: provider main (anthropic), model claude-haiku-4-5\n");
	said("override_params: max_tokens = 100\n");
	said("default_params: temperature = 1, but the body has its own\n");
	said("drop_params: 1 path");
	said("cache     simple, an answer is kept for 2m\n");
	said("attempts  4, each with 30s to its first byte; 10m for all\n");
	said("then      after 400, 401, 429, 500, 529: nothing, that is the answer\n");
	said("note      no weir runs here");
}

static void
a_fallback_is_told_by_status(void **state)
{
	(void)state;
	body("{\"model\":\"claude-opus-4-8\"}");
	assert_int_equal(EXPLAIN("--config", "chain", "--body", body_path), 0);
	said("then      after 400, 401: nothing, that is the answer\n"
	     "          after 429: config.targets[1], config.targets[2]\n"
	     "          after 500: nothing, that is the answer\n"
	     "          after 529: config.targets[1], config.targets[2]\n");
}

/* A session goes where it goes, as often as it is asked. */
static void
sessions_are_told_apart(void **state)
{
	int main_first = 0, opus_first = 0;

	(void)state;
	body("{\"model\":\"claude-opus-4-8\"}");
	for (int i = 0; i < 24; i++) {
		bool at_main = false;
		char session[16];

		snprintf(session, sizeof(session), "session-%d", i);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(EXPLAIN("--config", "even", "--session", session, "--body", body_path), 0);
			said("weight 1 of 2, by the conversation");
			if (again)
				assert_int_equal(strstr(out, "provider main (") != NULL, at_main);
			at_main = strstr(out, "provider main (") != NULL;
		}
		*(at_main ? &main_first : &opus_first) += 1;
	}
	assert_true(main_first > 0 && opus_first > 0);
}

static void
a_key_brings_its_own(void **state)
{
	(void)state;
	assert_int_equal(KEY("--slug", "team", "--model", "claude-haiku-*", "--metadata", "{\"team\":\"x\"}"), 0);
	assert_int_equal(KEY("--slug", "drawing", "--workspace", "design"), 0);
	assert_int_equal(KEY("--slug", "bound", "--routing-config", "chain", "--lock-config"), 0);
	body("{\"model\":\"fast\"}");
	assert_int_equal(EXPLAIN("--key", "team", "--config", "by-team", "--body", body_path), 0);
	said("key       team of workspace default\n");
	said("metadata  {\"team\":\"x\"}\n");
	said("target    config.targets[0].targets[1]");
	body("{\"model\":\"claude-opus-4-8\"}");
	assert_int_equal(EXPLAIN("--key", "team", "--body", body_path), 0);
	said("config    none\n");
	said("refused   403: model \"claude-opus-4-8\" is not allowed for this API key; you can use: ");
	assert_int_equal(EXPLAIN("--key", "design/drawing", "--body", body_path), 0);
	said("config    even of version ");
	assert_int_equal(EXPLAIN("--key", "bound", "--body", body_path), 0);
	said("config    chain of version ");
	assert_int_equal(EXPLAIN("--key", "bound", "--config", "even", "--body", body_path), 0);
	said("refused   400: this API key does not allow another config than its own\n");
	assert_int_equal(EXPLAIN("--key", "nobody", "--body", body_path), 1);
	mistake("--key nobody: there is no such key");
}

static void
an_inline_config_is_read(void **state)
{
	(void)state;
	assert_int_equal(EXPLAIN("--config", "{\"provider\":\"@opus\",\"override_params\":{\"model\":\"claude-opus-4-8[1m]\"}}"), 0);
	said("config    inline of version ");
	said("target    config: provider opus (anthropic), model claude-opus-4-8 with the long context\n");
	assert_int_equal(EXPLAIN("--config", "{\"provider\":\"@opus\"}"), 0);
	said("refused   400: model: field required\n");
	assert_int_equal(EXPLAIN("--config", "{\"provider\":\"@opus\",\"override_params\":{\"model\":\"claude-haiku-4-5\"}}"), 0);
	said("refused   404: model \"claude-haiku-4-5\" is not offered by this provider; you can use: ");
	assert_int_equal(EXPLAIN("--config", "{\"retry\":{\"attempts\":9}}"), 0);
	said("refused   400: x-portkey-config: retry.attempts: ");
}

static void
mistakes_are_named(void **state)
{
	(void)state;
	assert_int_equal(EXPLAIN("--config", "nothing"), 0);
	said("refused   400: there is no config \"nothing\"\n");
	assert_int_equal(EXPLAIN("--config", "even", "--metadata", "{\"team\""), 0);
	said("refused   400: x-portkey-metadata: ");
	assert_int_equal(EXPLAIN("--config", "even", "--body", "/nowhere/body"), 1);
	mistake("--body /nowhere/body: No such file");
	body("{\"model\":");
	assert_int_equal(EXPLAIN("--config", "even", "--body", body_path), 0);
	said("refused   400: the body is not a valid request: ");
	body("{\"model\":7}");
	assert_int_equal(EXPLAIN("--config", "even", "--body", body_path), 0);
	said("refused   400: model: a non-empty string is expected\n");
	assert_int_equal(EXPLAIN("--config", "even", "--path", "/v1/chat"), 2);
	mistake("--path /v1/chat: ");
	assert_int_equal(EXPLAIN("--config", "even", "--json"), 2);
	mistake("--json is for what was");
	assert_int_equal(EXPLAIN("req_1"), 2);
	mistake("--settings is for what would be");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_settings, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(conditions_are_told_one_by_one),
		TEST(a_target_is_told_with_all_it_does),
		TEST(a_fallback_is_told_by_status),
		TEST(sessions_are_told_apart),
		TEST(a_key_brings_its_own),
		TEST(an_inline_config_is_read),
		TEST(mistakes_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
