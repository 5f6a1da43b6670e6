/*
 * Limits and policies in the settings file: where they land, which meters they
 * are, and the mistakes that only the whole file shows.
 */
#include "settings_fixture.h"

static const char whole[] = "{\"providers\":[\n"
    " {\"slug\":\"main\",\"api_key\":\"k\",\"rate_limits\":{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":4000},\n"
    "  \"usage_limits\":[{\"credit_limit\":20000,\"periodic_reset\":\"monthly\"}],\n"
    "  \"model_limits\":[{\"model\":\"claude-opus-*\",\"usage_limits\":{\"type\":\"tokens\",\"credit_limit\":7}},\n"
    "   {\"model\":\"*\",\"rate_limits\":[{\"type\":\"concurrency\",\"value\":9}]},{\"model\":\"x\"}]},\n"
    " {\"slug\":\"spare\",\"api_key\":\"k\"}],\n"
    "\"configs\":[{\"slug\":\"pc-eng\",\"config\":{}}],\n"
    "\"workspaces\":[{\"slug\":\"ops\",\"rate_limits\":[{\"type\":\"tokens\",\"unit\":\"rpd\",\"value\":5}]},\n"
    " {\"slug\":\"eng\",\"usage_limits\":[{\"credit_limit\":\"${WEIR_T_USD:-2500}\",\"alert_threshold\":2000,\"periodic_reset\":\"weekly\"}]},\n"
    " {\"slug\":\"en\"}],\n"
    "\"policies\":[{\"id\":\"per-user\",\"conditions\":[{\"key\":\"metadata.user\",\"value\":\"*\"},{\"key\":\"virtual_key\",\"value\":\"@main\"},\n"
    "  {\"key\":\"config\",\"value\":[\"pc-eng\",\"*\"]},{\"key\":\"model\",\"value\":\"@anthropic/claude-*\"},{\"key\":\"provider\",\"value\":\"anthropic\"},\n"
    "  {\"key\":\"api_key\",\"value\":\"key_ffffffffffffffff\"},{\"key\":\"workspace\",\"value\":\"no-limits-of-its-own\"}],\n"
    "  \"group_by\":[{\"key\":\"metadata.user\"}],\"type\":\"cost\",\"credit_limit\":5,\"periodic_reset\":\"daily\"},\n"
    " {\"id\":\"gone\",\"status\":\"archived\",\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1},\n"
    " {\"id\":\"calm\",\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1}]}\n";

static bool
is_meter(const struct charge *c, const char *kind, const char *id, const char *what)
{
	struct meter_id wanted = meter_id_of(kind, slice_of(id), what);

	return c->id.hi == wanted.hi && c->id.lo == wanted.lo;
}

static void
limits_of_every_owner(void **state)
{
	(void)state;
	struct loaded l = accepted(whole);
	const struct setting_provider *v = settings_provider(l.s, SLICE("main"));
	const struct setting_workspace *w;

	assert_int_equal(v->limits.count, 2);
	assert_string_equal(v->limits.limit[0].label, "provider rpm");
	assert_string_equal(v->limits.limit[1].name, "provider main cost");
	assert_ptr_equal(v->limits.limit[1].charge.name, v->limits.limit[1].name);
	assert_true(is_meter(&v->limits.limit[1].charge, "provider", "main", "cost"));
	assert_true(limit_charge_is_cost(&v->limits.limit[1].charge));
	assert_int_equal(v->model_limits_count, 3);
	assert_string_equal(v->model_limits[0].model, "claude-opus-*");
	assert_string_equal(v->model_limits[0].limits.limit[0].name, "model main/claude-opus-* tokens");
	assert_true(is_meter(&v->model_limits[0].limits.limit[0].charge, "model", "main/claude-opus-*", "tokens"));
	assert_false(limit_charge_is_cost(&v->model_limits[0].limits.limit[0].charge));
	assert_string_equal(v->model_limits[1].limits.limit[0].label, "model concurrency");
	assert_int_equal(v->model_limits[2].limits.count, 0);
	assert_int_equal(l.s->providers[1].limits.count, 0);

	w = settings_workspace(l.s, SLICE("eng"));
	assert_int_equal(w->limits.limit[0].charge.limit, INT64_C(2500000000000));
	assert_int_equal(w->limits.limit[0].charge.alert, INT64_C(2000000000000));
	assert_string_equal(w->limits.limit[0].label, "workspace weekly budget");
	assert_true(is_meter(&w->limits.limit[0].charge, "workspace", "eng", "cost"));
	assert_int_equal(settings_workspace(l.s, SLICE("ops"))->limits.limit[0].charge.limit, 5);
	assert_int_equal(settings_workspace(l.s, SLICE("en"))->limits.count, 0);
	assert_null(settings_workspace(l.s, SLICE("e")));
	assert_null(settings_workspace(l.s, SLICE("engl")));
	assert_null(settings_workspace(l.s, SLICE_NONE));

	assert_int_equal(l.s->policies_count, 2);	/* archived ones are for nobody */
	assert_string_equal(limit_policy_id(l.s->policies[0]), "per-user");
	assert_string_equal(limit_policy_id(l.s->policies[1]), "calm");
	done(&l);
}

#define PROVIDER(members) "{\"providers\":[{\"slug\":\"main\",\"api_key\":\"k\"," members "}]}"
#define POLICY(id, members) "{\"id\":\"" id "\",\"credit_limit\":1" members "}"

static void
mistakes_have_their_place(void **state)
{
	(void)state;
	refuse(PROVIDER("\"rate_limits\":7"), "providers[0].rate_limits: must be an array of limits, or one, not a number\n");
	refuse(PROVIDER("\"rate_limits\":null"), "providers[0].rate_limits: must not be null: leave it out\n");
	refuse(PROVIDER("\"usage_limits\":[{\"credit_limit\":-1}]"), "providers[0].usage_limits[0].credit_limit: must be dollars such as 25 or "
	    "0.5: more than 0, at most 1000000000, with at most nine decimals, not -1\n");
	refuse(PROVIDER("\"model_limits\":{}"), "providers[0].model_limits: must be an array, not an object\n");
	refuse(PROVIDER("\"model_limits\":[7]"), "providers[0].model_limits[0]: must be an object with a \"model\" and limits\n");
	refuse(PROVIDER("\"model_limits\":[{\"modle\":\"x\"}]"),
	    "providers[0].model_limits[0]: has no \"modle\": \"model\", \"rate_limits\" and \"usage_limits\" are expected\n"
	    "providers[0].model_limits[0]: needs \"model\": a name, in which \"*\" stands for anything\n");
	refuse(PROVIDER("\"model_limits\":[{\"model\":\"\"}]"),
	    "providers[0].model_limits[0]: \"model\" must be a string of 1 to 256 bytes, not \"\"\n");
	refuse(PROVIDER("\"model_limits\":[{\"model\":\"x\"},{\"model\":\"x\",\"rate_limits\":[{}]}]"),
	    "providers[0].model_limits[1]: \"x\" is listed twice: put its limits into one entry\n"
	    "providers[0].model_limits[1].rate_limits[0]: needs \"type\": \"requests\", \"tokens\" or \"concurrency\"\n"
	    "providers[0].model_limits[1].rate_limits[0]: needs \"value\"\n");
	refuse("{\"workspaces\":[{\"rate_limits\":[]}]}", "workspaces[0]: needs \"slug\"\n");
	refuse("{\"workspaces\":[{\"slug\":\"a\",\"rate_limit\":[]}]}", "workspaces[0].rate_limit: unknown field; did you mean \"rate_limits\"?\n");
	refuse("{\"workspaces\":[{\"slug\":\"a\",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rps\",\"value\":1}]}]}",
	    "workspaces[0].rate_limits[0].unit: must be \"rpm\", \"rph\", \"rpd\" or \"rpw\" (a minute, hour, day, week; for tokens too), not \"rps\"\n");
	refuse("{\"workspaces\":[{\"slug\":\"b\"},{\"slug\":\"a\"},{\"slug\":\"c\"},{\"slug\":\"a\"},{\"slug\":\"a\"}]}",
	    "workspaces[3].slug: \"a\" is the slug of workspaces[1] too\nworkspaces[4].slug: \"a\" is the slug of workspaces[3] too\n");
	refuse("{\"policies\":{}}", "policies: must be an array, not an object\n");
	refuse("{\"policies\":[7]}", "policies[0]: must be an object\n");
	refuse("{\"policies\":[" POLICY("a", "") "," POLICY("b", "") "," POLICY("a", ",\"status\":\"archived\"") "]}",
	    "policies[2].id: \"a\" is the id of policies[0] too\n");
}

static void
conditions_on_what_does_not_exist(void **state)
{
#define WHERE(key, value) "{\"providers\":[{\"slug\":\"main\",\"api_key\":\"k\"}],\"configs\":[{\"slug\":\"pc-eng\",\"config\":{}}],\"policies\":[" \
	POLICY("p", ",\"conditions\":[{\"key\":\"" key "\",\"value\":\"*\",\"excludes\":\"" value "\"}]") "]}"
#define AT "policies[0].conditions[0].excludes: "
	(void)state;
	refuse(WHERE("virtual_key", "man"), AT "there is no provider \"man\"; did you mean \"main\"?\n");
	refuse(WHERE("virtual_key", "elsewhere"), AT "there is no provider \"elsewhere\" in this file\n");
	refuse(WHERE("config", "pc-emg"), AT "there is no config \"pc-emg\"; did you mean \"pc-eng\"?\n");
	refuse(WHERE("provider", "antropic"), AT "there is no type of provider \"antropic\"; did you mean \"anthropic\"?\n");
	refuse(WHERE("model", "@main/claude-*"), AT "there is no type of provider \"main\" in this file\n");
	refuse(WHERE("user_id", "x"), "policies[0].conditions[0].key: there is no key \"user_id\"; did you mean \"user\"?\n");
	static const char *const good[] = {
		WHERE("model", "@*/claude-*"), WHERE("model", "main/claude"), WHERE("model", "@cf/x"), WHERE("api_key", "key_0"),
		WHERE("workspace", "nowhere"), WHERE("user", "nobody"), WHERE("metadata.x", "y"),
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct loaded l = accepted(good[i]);
		done(&l);
	}
	/* A provider or config whose slug could not be read may be the one that is meant. */
	refuse("{\"providers\":[{\"slug\":\"${WEIR_T_NONE}\",\"api_key\":\"k\"}],\"policies\":["
	    POLICY("p", ",\"conditions\":[{\"key\":\"virtual_key\",\"value\":\"x\"}]") "]}",
	    "providers[0].slug: the environment variable WEIR_T_NONE is not set: set it, or write ${WEIR_T_NONE:-default}\n");
}

static void
there_are_bounds(void **state)
{
	struct buf json;

	(void)state;
	buf_init(&json, 1 << 20);
	buf_add_str(&json, "{\"policies\":[" POLICY("p", ""));
	for (int i = 1; i < POLICIES_MAX; i++)
		buf_printf(&json, ",{\"id\":\"p%d\",\"credit_limit\":1}", i);
	size_t n = json.n;
	buf_add(&json, "]}", 3);
	struct loaded l = accepted(json.p);
	assert_int_equal(l.s->policies_count, POLICIES_MAX);
	done(&l);
	json.n = n;
	buf_add_str(&json, "," POLICY("q", ""));
	buf_add(&json, "]}", 3);
	refuse(json.p, "policies: more than 256 entries\n");
	buf_clear(&json);
	buf_add_str(&json, "{\"providers\":[{\"slug\":\"main\",\"api_key\":\"k\",\"model_limits\":[{\"model\":\"x\"}");
	for (int i = 0; i < SETTINGS_MODEL_LIMITS_MAX; i++)
		buf_printf(&json, ",{\"model\":\"m%d\"}", i);
	buf_add(&json, "]}]}", 5);
	refuse(json.p, "providers[0].model_limits[64]: is one more than the 64 that fit\n");
	buf_free(&json);
}

/* A later layer's list takes the place of an earlier one's, with all that is in it. */
static void
layers_replace_lists(void **state)
{
	static const char bundle[] = "{\"host\":{\"workers\":1,\"data_dir\":\"/d\",\"workspaces\":[{\"slug\":\"a\",\"rate_limits\":[]}],"
	    "\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"usage_limits\":{\"credit_limit\":1}}]},"
	    "\"file\":{\"workspaces\":[{\"slug\":\"b\"}],\"providers\":[{\"slug\":\"b\",\"api_key\":\"k\"}]}}";
	struct problems p;

	(void)state;
	problems_init(&p);
	struct settings *s = settings_compile(slice_of(bundle), 1, &p);
	assert_non_null(s);
	assert_null(settings_workspace(s, SLICE("a")));
	assert_non_null(settings_workspace(s, SLICE("b")));
	assert_int_equal(s->providers_count, 1);
	assert_string_equal(s->providers[0].slug, "b");
	assert_int_equal(s->providers[0].limits.count, 0);
	settings_put(s);
	problems_free(&p);
}

/* What stands in the page can be copied. */
static void
the_pages_examples_hold(void **state)
{
	char *page = read_text(WEIR_SOURCE_DIR "/docs/limits.md"), *at = page;
	struct buf json;
	int examples = 0;

	(void)state;
	setenv("ANTHROPIC_API_KEY", "k", 1);
	buf_init(&json, 1 << 16);
	while ((at = strstr(at, "```json\n"))) {
		at += strlen("```json\n");
		struct slice block = { at, (size_t)(strstr(at, "\n```") - at) };
		bool owner = !slice_contains(block, SLICE("\"slug\""));

		/* The first ones show what an owner has. */
		buf_clear(&json);
		buf_add_str(&json, owner ? "{\"workspaces\":[{\"slug\":\"x\"," : "{");
		buf_add_slice(&json, (struct slice){ block.p + 1, block.n - 1 });
		buf_add(&json, owner ? "]}" : "", owner ? 3 : 1);
		struct loaded l = accepted(json.p);
		assert_true(l.s->workspaces_count + l.s->policies_count > 0);
		done(&l);
		examples++;
	}
	unsetenv("ANTHROPIC_API_KEY");
	assert_int_equal(examples, 3);
	buf_free(&json);
	free(page);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_of_every_owner),
		cmocka_unit_test(mistakes_have_their_place),
		cmocka_unit_test(conditions_on_what_does_not_exist),
		cmocka_unit_test(there_are_bounds),
		cmocka_unit_test(layers_replace_lists),
		cmocka_unit_test(the_pages_examples_hold),
	};

	return cmocka_run_group_tests_name("settings_limits", tests, set_up, tear_down);
}
