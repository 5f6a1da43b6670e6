/*
 * What a worker makes of its settings: which target of which config goes to which
 * provider, by which connection, with which lines ahead of each request.
 */
#include "tests/unit/routing_fixture.h"

#define SETTINGS "{\"providers\":[" \
	"{\"slug\":\"main\",\"api_key\":\"sk-main\",\"base_url\":\"https://llm.example.com/deep/prefix\",\"account\":\"acme\"}," \
	"{\"slug\":\"spare\",\"api_key\":\"sk-ant-oat01-spare\",\"base_url\":\"http://[::1]:8080\"}," \
	"{\"slug\":\"twin\",\"api_key\":\"sk-main\",\"base_url\":\"https://llm.example.com/deep/prefix\"}]," \
	"\"default_provider\":\"spare\",\"custom_hosts\":{\"trusted\":[\"127.0.0.1\"]}," \
	"\"configs\":[{\"slug\":\"pc-z\",\"config\":{\"provider\":\"@main\"}}," \
	"{\"slug\":\"pc-a\",\"config\":{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{\"provider\":\"@spare\"},{\"provider\":\"anthropic\"}," \
		"{\"provider\":\"@main\",\"custom_host\":\"http://127.0.0.1:81/v1\"},{\"provider\":\"@main\",\"api_key\":\"sk-own\"}," \
		"{\"passthrough\":true,\"custom_host\":\"https://other.example.com\"},{}]}}," \
	"{\"slug\":\"pc-m\",\"config\":{\"override_params\":{\"model\":\"@twin/claude-x\"}}}]}"

static struct routing world;

static int
open_world(void **state)
{
	if (set_up(state) != 0)
		return -1;
	routing_open(&world, SETTINGS);
	return 0;
}

static int
close_world(void **state)
{
	routing_close(&world);
	return tear_down(state);
}

static const struct plane_target *
target(const char *slug, uint32_t number)
{
	const struct config *c = settings_config(world.plane->settings, slice_of(slug));

	assert_non_null(c);
	assert_true(number < c->targets_count);
	return plane_target_of(world.plane, c, &c->targets[number]);
}

static const struct plane_provider *
provider(const char *slug)
{
	const struct setting_provider *p = settings_provider(world.plane->settings, slice_of(slug));

	assert_non_null(p);
	return plane_provider(world.plane, p);
}

static void
lines_are(const struct endpoint *e, const char *text)
{
	if (!slice_eq(buf_slice(&e->lines), slice_of(text)))
		fail_msg("%.*s\nand not\n%s", SLICE_FMT(buf_slice(&e->lines)), text);
}

#define END "accept-encoding: identity\r\ncontent-length: "

static void
providers_have_their_lines(void **state)
{
	const struct plane_provider *p = provider("main");

	(void)state;
	assert_true(slice_eq(p->slug, SLICE("main")) && slice_eq(p->type, SLICE("anthropic")));
	assert_true(slice_eq(p->account, SLICE("acme")) && slice_eq(provider("spare")->account, SLICE("spare")));
	assert_true(slice_eq(buf_slice(&p->answer_lines), SLICE("x-portkey-provider: anthropic\r\nx-weir-provider: main\r\n")));
	assert_true(slice_eq(p->endpoint.prefix, SLICE("/deep/prefix")) && p->endpoint.whole_paths);
	lines_are(&p->endpoint, " HTTP/1.1\r\nhost: llm.example.com\r\nx-api-key: sk-main\r\n" END);
	/* A token of a subscription; an address of the other kind, with a port of its own. */
	lines_are(&provider("spare")->endpoint, " HTTP/1.1\r\nhost: [::1]:8080\r\nauthorization: Bearer sk-ant-oat01-spare\r\n" END);
	assert_true(slice_eq(provider("spare")->endpoint.prefix, SLICE("")));
	/* One place, one pool of connections. */
	assert_ptr_equal(p->endpoint.target, provider("twin")->endpoint.target);
	assert_ptr_not_equal(p->endpoint.target, provider("spare")->endpoint.target);
	assert_string_equal(world.plane->default_provider->slug, "spare");
}

static void
targets_have_theirs(void **state)
{
	/* Its provider, and its lines if they are its own. */
	static const struct { const char *config; uint32_t number; const char *slug, *lines, *prefix; } rows[] = {
		{ "pc-z", 0, "main", NULL, NULL }, { "pc-m", 0, "twin", NULL, NULL }, { "pc-a", 0, "spare", NULL, NULL }, { "pc-a", 1, "spare", NULL, NULL },
		{ "pc-a", 2, "main", " HTTP/1.1\r\nhost: 127.0.0.1:81\r\nx-api-key: sk-main\r\n" END, "/v1" },
		{ "pc-a", 3, "main", " HTTP/1.1\r\nhost: llm.example.com\r\nx-api-key: sk-own\r\n" END, "/deep/prefix" },
		{ "pc-a", 4, NULL, NULL, NULL }, { "pc-a", 5, NULL, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const struct plane_target *t = target(rows[i].config, rows[i].number);

		if (!rows[i].slug)
			assert_null(t->provider);	/* the request says it, and only then is there a credential */
		else
			assert_string_equal(t->provider->slug, rows[i].slug);
		assert_int_equal(t->endpoint.target != NULL, rows[i].lines != NULL);
		if (!rows[i].lines)
			continue;
		lines_are(&t->endpoint, rows[i].lines);
		assert_true(slice_eq(t->endpoint.prefix, slice_of(rows[i].prefix)));
		assert_int_equal(t->endpoint.whole_paths, rows[i].number == 3);
	}
	assert_null(plane_target_of(world.plane, config_none(), &config_none()->targets[0]));
}

static void
a_host_of_a_config_has_its_own_connections(void **state)
{
	static const struct host_trust nobody = { NULL, 0 };
	const struct setting_provider *main_ = settings_provider(world.plane->settings, SLICE("main"));
	struct endpoint named, strange;
	struct host_url host;
	const char *why;
	char text[128];

	(void)state;
	/* The same host, but with addresses that are judged: not the provider's pool. */
	assert_true(host_check(SLICE("https://llm.example.com/v1"), &nobody, &host, &why));
	assert_true(endpoint_open(&named, world.upstream, main_, SLICE_NONE, &host, text, sizeof(text)));
	assert_ptr_not_equal(named.target, provider("main")->endpoint.target);
	assert_true(slice_eq(named.prefix, SLICE("/v1")) && !named.whole_paths);
	/* Nor is one that is trusted the same as one that is not. */
	host.trusted = true;
	assert_true(endpoint_open(&strange, world.upstream, main_, SLICE("sk-other"), &host, text, sizeof(text)));
	assert_ptr_not_equal(named.target, strange.target);
	lines_are(&strange, " HTTP/1.1\r\nhost: llm.example.com\r\nx-api-key: sk-other\r\n" END);
	endpoint_close(&named);
	endpoint_close(&strange);
	endpoint_close(&strange);	/* twice is fine */
	assert_null(strange.target);
	assert_int_equal(strange.lines.n, 0);
}

static void
who_holds_one_keeps_it(void **state)
{
	struct plane *p = plane_new(world.upstream, world.loaded.s, NULL, false);

	(void)state;
	assert_non_null(p);
	assert_int_equal(p->refs, 1);
	assert_ptr_equal(plane_get(p), p);
	plane_put(p);
	assert_true(slice_eq(p->providers[0].slug, SLICE("main")));
	plane_put(p);
	plane_put(NULL);
	assert_true(slice_eq(provider("main")->slug, SLICE("main")));
}

static void
rows_of_health_go_by_names(void **state)
{
	struct plane *again = plane_new(world.upstream, world.loaded.s, NULL, false);

	(void)state;
	health_watch_name(again, world.worker.arena);
	/* The same after a reload; each account and each place in a config has its own. */
	for (uint32_t i = 0; i < again->settings->providers_count; i++) {
		assert_memory_equal(&again->providers[i].health.id, &world.plane->providers[i].health.id, sizeof(struct key128));
		for (uint32_t j = 0; j < i; j++)
			assert_memory_not_equal(&again->providers[i].health.id, &again->providers[j].health.id, sizeof(struct key128));
	}
	for (uint32_t i = 0; i < again->targets_count; i++) {
		assert_memory_equal(&again->targets[i].breaker.id, &world.plane->targets[i].breaker.id, sizeof(struct key128));
		for (uint32_t j = 0; j < i; j++)
			assert_memory_not_equal(&again->targets[i].breaker.id, &again->targets[j].breaker.id, sizeof(struct key128));
	}
	plane_put(again);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(providers_have_their_lines),
		cmocka_unit_test(targets_have_theirs),
		cmocka_unit_test(a_host_of_a_config_has_its_own_connections),
		cmocka_unit_test(who_holds_one_keeps_it),
		cmocka_unit_test(rows_of_health_go_by_names),
	};

	return cmocka_run_group_tests(tests, open_world, close_world);
}
