/*
 * Aliases of models, workspaces with a config and models of their own, and what
 * is wrong with them.
 */
#include "settings_fixture.h"

#define PROVIDERS "\"providers\":[{\"slug\":\"main\",\"api_key\":\"k\",\"account\":\"acme\"},{\"slug\":\"spare\",\"api_key\":\"k\"}],"

static void
names_and_workspaces(void **state)
{
	struct loaded l = accepted("{" PROVIDERS "\"models\":[{\"id\":\"claude-fast\",\"model\":\"@main/claude-haiku-5-5\",\"display_name\":\"Fast\"},"
	    "{\"id\":\"big\",\"model\":\"claude-opus-5-5\",\"family\":\"opus\"}],"
	    "\"configs\":[{\"slug\":\"pc-eng\",\"config\":{}}],"
	    "\"workspaces\":[{\"slug\":\"z\",\"config\":\"pc-eng\"},{\"slug\":\"a\",\"allowed_models\":[\"claude-*\",\"big\"]}],"
	    "\"custom_hosts\":{\"trusted\":[\"llm.example.com\",\"*.corp.example\"]},\"saved_configs_only\":true}");
	const struct setting_model *m = settings_model(l.s, SLICE("claude-fast"));
	const struct setting_workspace *w = settings_workspace(l.s, SLICE("z"));

	(void)state;
	assert_string_equal(l.s->providers[0].account, "acme");
	assert_null(l.s->providers[1].account);
	assert_non_null(m);
	assert_string_equal(m->model, "@main/claude-haiku-5-5");
	assert_string_equal(m->display_name, "Fast");
	assert_null(m->family);
	assert_string_equal(settings_model(l.s, SLICE("big"))->family, "opus");
	assert_null(settings_model(l.s, SLICE("claude-opus-5-5")));
	assert_string_equal(w->config, "pc-eng");
	assert_int_equal(w->allowed_models_count, 0);
	w = settings_workspace(l.s, SLICE("a"));
	assert_null(w->config);
	assert_int_equal(w->allowed_models_count, 2);
	assert_string_equal(w->allowed_models[1], "big");
	assert_int_equal(l.s->custom_hosts.count, 2);
	assert_true(l.s->saved_configs_only);
	assert_int_equal(l.s->routing.total_ms, 600000);
	assert_int_equal(l.s->health.failures, 5);
	done(&l);
}

static void
mistakes_have_their_place(void **state)
{
	(void)state;
	refuse("{\"models\":[{\"id\":\"a\"}]}", "models[0]: needs \"model\"\n");
	refuse("{\"models\":[{\"id\":\"\",\"model\":\"x\"}]}", "models[0].id: must not be empty\n");
	refuse("{\"models\":[{\"id\":\"@a/b\",\"model\":\"x\"}]}", "models[0].id: must not begin with \"@\": that names a provider\n");
	refuse("{" PROVIDERS "\"models\":[{\"id\":\"a\",\"model\":\"@mian/x\"}]}", "models[0].model: there is no provider \"mian\"; did you mean \"main\"?\n");
	refuse("{" PROVIDERS "\"models\":[{\"id\":\"a\",\"model\":\"@elsewhere/x\"}]}", "models[0].model: there is no provider \"elsewhere\" in this file\n");
	refuse("{" PROVIDERS "\"models\":[{\"id\":\"a\",\"model\":\"@main\"}]}", "models[0].model: must be \"model\" or \"@slug/model\"\n");
	refuse("{\"models\":[{\"id\":\"a\",\"model\":\"x\"},{\"id\":\"a\",\"model\":\"y\"}]}", "models[1].id: \"a\" is the id of models[0] too\n");
	refuse("{\"models\":[{\"id\":\"a\",\"model\":\"b\"},{\"id\":\"b\",\"model\":\"y\"}]}",
	    "models[0].model: \"b\" is an alias too: name the model that is meant\n");
	refuse("{\"models\":[{\"id\":\"a\",\"model\":\"x\",\"family\":\"gpt\"}]}", "models[0].family: must be one of: haiku|sonnet|opus|fable|mythos\n");
	refuse("{\"configs\":[{\"slug\":\"pc-eng\",\"config\":{}}],\"workspaces\":[{\"slug\":\"w\",\"config\":\"pc-egn\"}]}",
	    "workspaces[0].config: there is no config \"pc-egn\"; did you mean \"pc-eng\"?\n");
	refuse("{\"workspaces\":[{\"slug\":\"w\",\"allowed_models\":\"claude-*\"}]}",
	    "workspaces[0].allowed_models: must be an array of strings, not a string\n");
	refuse("{\"health\":{\"failures\":-1}}", "health.failures: must be a whole number from 0 to 1000000\n");
	refuse("{\"routing\":{\"total_ms\":1}}", "routing.total_ms: must be a whole number from 10 to 86400000\n");
}

static void
later_lists_replace_earlier_ones(void **state)
{
	struct loaded l = accepted("{\"workspaces\":[{\"slug\":\"b\",\"allowed_models\":[\"x\"]},{\"slug\":\"a\"}],\"models\":[{\"id\":\"m\",\"model\":\"n\"}]}");

	(void)state;
	/* A list that is read twice in one document is a mistake and leaks nothing. */
	refuse("{\"models\":[{\"id\":\"m\",\"model\":\"n\"}],\"models\":[]}", "models: given twice\n");
	refuse("{\"workspaces\":[{\"slug\":\"b\",\"allowed_models\":[\"x\"]}],\"workspaces\":[]}", "workspaces: given twice\n");
	done(&l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_workspaces),
		cmocka_unit_test(mistakes_have_their_place),
		cmocka_unit_test(later_lists_replace_earlier_ones),
	};

	return cmocka_run_group_tests_name("settings_models", tests, set_up, tear_down);
}
