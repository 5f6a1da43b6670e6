/*
 * The limits of a request, from a real key, real settings and real policies:
 * which apply, in which order, with which amounts; and the hints.
 */
#include "settings_fixture.h"

#include <string.h>

#include "gateway/limits.h"

#define SETTINGS "{" \
	"\"workspaces\":[{\"slug\":\"eng\",\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rph\",\"value\":100}]," \
		"\"usage_limits\":[{\"type\":\"cost\",\"credit_limit\":50,\"periodic_reset\":\"monthly\"}]}]," \
	"\"providers\":[{\"slug\":\"main\",\"type\":\"anthropic\",\"base_url\":\"http://127.0.0.1:9\",\"api_key\":\"sk\"," \
		"\"usage_limits\":[{\"type\":\"cost\",\"credit_limit\":500}]," \
		"\"model_limits\":[{\"model\":\"claude-opus-*\",\"rate_limits\":[{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":9000}]}]}]," \
	"\"policies\":[" \
		"{\"id\":\"per-user\",\"conditions\":[{\"key\":\"metadata.user\",\"value\":\"*\"}]," \
			"\"group_by\":[{\"key\":\"metadata.user\"}],\"type\":\"cost\",\"credit_limit\":5,\"periodic_reset\":\"daily\"}," \
		"{\"id\":\"no-bots\",\"conditions\":[{\"key\":\"metadata.user\",\"value\":\"bot\"}],\"type\":\"requests\",\"unit\":\"rpm\",\"value\":0}]" \
	"}"
#define KEY "{\"id\":\"key_0123456789abcdef\",\"slug\":\"ci\",\"workspace\":\"eng\",\"enabled\":true,\"hashes\":[]," \
	"\"rate_limits\":[{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":60},{\"type\":\"concurrency\",\"value\":4}]," \
	"\"usage_limits\":[{\"type\":\"cost\",\"credit_limit\":\"1.5\",\"periodic_reset\":\"weekly\",\"mode\":\"strict\"}," \
		"{\"type\":\"tokens\",\"credit_limit\":100000},{\"type\":\"requests\",\"credit_limit\":10}]}"

static const struct price_bound bound = {
	.input_tokens = 1000, .input_nusd = 2000000, .output_nusd_milli = 10000000, .output_tokens = 500,
};

struct world {
	struct loaded loaded;
	struct key *key;
	struct limit_memo *memo;
	struct limit_subject subject;
	struct limit_sources from;
};

static struct key *
key_of(const char *json)
{
	char why[256];
	struct key *k = key_compile(slice_of(json), NULL, why, sizeof(why));

	if (!k)
		fail_msg("%s", why);
	return k;
}

static void
world_open(struct world *w, const char *settings, const char *key)
{
	w->loaded = accepted(settings);
	w->key = key_of(key);
	w->memo = limit_memo_new(1024);
	w->subject = (struct limit_subject){
		.key_id = w->key->id, .key_slug = w->key->slug, .workspace = w->key->workspace,
		.provider = SLICE("main"), .provider_type = SLICE("anthropic"), .model = SLICE("claude-opus-5-5"),
		.metadata = SLICE("{\"user\":\"alice\"}"),
	};
	w->from = (struct limit_sources){
		.key = w->key, .settings = w->loaded.s, .provider = settings_provider(w->loaded.s, SLICE("main")),
		.model = w->subject.model, .subject = &w->subject, .memo = w->memo,
	};
	assert_non_null(w->from.provider);
}

static void
world_close(struct world *w)
{
	key_free(w->key);
	limit_memo_free(w->memo);
	done(&w->loaded);
}

static void
expect_labels(const struct limit_set *set, const char *const *labels, uint32_t count)
{
	for (uint32_t i = 0; i < set->count && i < count; i++)
		assert_string_equal(set->origin[i].limit->label, labels[i]);
	assert_int_equal(set->count, count);
}

static void
all_that_apply_in_their_order(void **state)
{
	static const char *const labels[] = {
		"key rpm", "key concurrency", "key weekly budget", "key total token budget", "key total request budget", "workspace rph",
		"workspace monthly budget", "provider total budget", "model tokens rpm", "policy per-user",
	};
	static const enum limit_source sources[] = {
		LIMIT_OF_KEY, LIMIT_OF_KEY, LIMIT_OF_KEY, LIMIT_OF_KEY, LIMIT_OF_KEY, LIMIT_OF_WORKSPACE, LIMIT_OF_WORKSPACE,
		LIMIT_OF_PROVIDER, LIMIT_OF_MODEL, LIMIT_OF_POLICY,
	};
	struct limit_set set;
	struct world w;

	(void)state;
	world_open(&w, SETTINGS, KEY);
	assert_true(limits_collect(&w.from, &bound, &set));
	for (uint32_t i = 0; i < set.count; i++)
		assert_int_equal(set.origin[i].source, sources[i]);
	expect_labels(&set, labels, sizeof(labels) / sizeof(labels[0]));

	/* What the request takes of each, by its unit. */
	assert_true(set.charge[0].fixed == 1 && set.charge[0].slope_milli == 0);
	assert_true(set.charge[1].fixed == 1 && set.charge[1].slope_milli == 0);
	assert_true(set.charge[2].fixed == 2000000 && set.charge[2].slope_milli == 10000000);
	assert_true(set.charge[2].mode == MODE_STRICT && set.charge[2].limit == 1500000000);
	assert_true(set.charge[3].fixed == 1000 && set.charge[3].slope_milli == 1000);
	assert_true(set.charge[4].fixed == 1 && set.charge[4].slope_milli == 0);
	assert_string_equal(set.charge[9].name, "policy per-user metadata.user:alice");
	assert_string_equal(limits_of_cost(&set)->label, "key weekly budget");
	world_close(&w);
}

static void
what_is_free_of_charge_is_counted_and_no_more(void **state)
{
	static const char *const labels[] = { "key rpm", "key concurrency", "workspace rph" };
	struct limit_set set;
	struct world w;

	(void)state;
	world_open(&w, SETTINGS, KEY);
	w.from.free = true;
	assert_true(limits_collect(&w.from, &bound, &set));
	expect_labels(&set, labels, 3);
	assert_null(limits_of_cost(&set));
	world_close(&w);
}

static void
others_are_not_meant(void **state)
{
	static const char *const labels[] = { "provider total budget" };
	struct limit_set set;
	struct world w;

	(void)state;
	world_open(&w, SETTINGS, "{\"id\":\"key_1123456789abcdef\",\"slug\":\"x\",\"workspace\":\"ops\",\"enabled\":true,\"hashes\":[]}");
	w.from.model = w.subject.model = SLICE("claude-haiku-5-5");
	w.subject.metadata = SLICE("{}");
	assert_true(limits_collect(&w.from, &bound, &set));
	expect_labels(&set, labels, 1);
	world_close(&w);
}

static void
hints_are_kept_for_the_next_request(void **state)
{
	struct limit_set set, next;
	struct world w;

	(void)state;
	world_open(&w, SETTINGS, KEY);
	assert_true(limits_collect(&w.from, &bound, &set));
	for (uint32_t i = 0; i < set.count; i++)
		set.charge[i].row = 100 + i;
	limits_remember(&set);
	assert_true(limits_collect(&w.from, &bound, &next));
	for (uint32_t i = 0; i < next.count; i++)
		assert_int_equal(next.charge[i].row, 100 + i);

	/* Of the shared meter nothing is remembered under a group's name. */
	set.charge[9].overflowed = true;
	set.charge[9].row = 4711;
	limits_remember(&set);
	assert_true(limits_collect(&w.from, &bound, &next));
	assert_int_equal(next.charge[9].row, 109);

	/* Nor of one user under another's. */
	w.subject.metadata = SLICE("{\"user\":\"bob\"}");
	assert_true(limits_collect(&w.from, &bound, &next));
	assert_int_not_equal(next.charge[9].row, 109);
	assert_true(next.charge[9].id.hi != set.charge[9].id.hi);
	assert_int_equal(next.charge[0].row, 100);
	world_close(&w);
}

/* Eight of one owner are allowed; 24 in all. */
#define EIGHT_RATES "\"rate_limits\":[" \
	"{\"type\":\"requests\",\"unit\":\"rpm\",\"value\":1},{\"type\":\"requests\",\"unit\":\"rph\",\"value\":1}," \
	"{\"type\":\"requests\",\"unit\":\"rpd\",\"value\":1},{\"type\":\"requests\",\"unit\":\"rpw\",\"value\":1}," \
	"{\"type\":\"tokens\",\"unit\":\"rpm\",\"value\":1},{\"type\":\"tokens\",\"unit\":\"rph\",\"value\":1}," \
	"{\"type\":\"tokens\",\"unit\":\"rpd\",\"value\":1},{\"type\":\"tokens\",\"unit\":\"rpw\",\"value\":1}]"

static void
more_than_there_is_room_for_is_an_error(void **state)
{
	static const char format[] = "{\"workspaces\":[{\"slug\":\"eng\"," EIGHT_RATES "}]," \
	    "\"providers\":[{\"slug\":\"main\",\"type\":\"anthropic\",\"base_url\":\"http://127.0.0.1:9\",\"api_key\":\"sk\"," EIGHT_RATES "}]," \
	    "\"policies\":[{\"id\":\"one-more\",\"conditions\":[{\"key\":\"metadata.user\",\"value\":\"*\"}],\"type\":\"requests\"," \
	    "\"unit\":\"rpm\",\"value\":9}]}";
	struct limit_set set;
	struct world w;

	(void)state;
	world_open(&w, format, "{\"id\":\"key_0123456789abcdef\",\"slug\":\"ci\",\"workspace\":\"eng\",\"enabled\":true,\"hashes\":[],"
	    EIGHT_RATES "}");
	assert_false(limits_collect(&w.from, &bound, &set));
	w.from.free = true;	/* half of them are of tokens */
	assert_true(limits_collect(&w.from, &bound, &set));
	assert_int_equal(set.count, 13);
	w.from.free = false;
	w.subject.metadata = SLICE("{}");
	assert_true(limits_collect(&w.from, &bound, &set));
	assert_int_equal(set.count, CHARGES_MAX);
	world_close(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_apply_in_their_order),
		cmocka_unit_test(what_is_free_of_charge_is_counted_and_no_more),
		cmocka_unit_test(others_are_not_meant),
		cmocka_unit_test(hints_are_kept_for_the_next_request),
		cmocka_unit_test(more_than_there_is_room_for_is_an_error),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
