/*
 * The settings file, from text to struct settings: what a whole file becomes,
 * references, layers, and every kind of mistake with the very lines that an
 * operator gets to see.
 */
#include "settings_fixture.h"

#include "gateway/commands.h"

/* ---- what a file becomes ---- */

static void
test_defaults(void **state)
{
	(void)state;
	struct loaded l = load_with(NULL, NULL);
	struct settings *s = l.s;
	char path[256];

	assert_non_null(s);
	assert_int_equal(s->listeners_count, 1);
	assert_string_equal(s->listeners[0].host, "127.0.0.1");
	assert_int_equal(s->listeners[0].port, 8080);
	assert_false(s->listeners[0].tls);
	assert_string_equal(s->admin.host, "127.0.0.1");
	assert_int_equal(s->admin.port, 9464);
	if (geteuid() == 0) {
		assert_string_equal(s->data_dir, "/var/lib/weir");
		assert_string_equal(s->run_dir, "/run/weir");
	} else {
		snprintf(path, sizeof(path), "%s/.local/state/weir", folder);
		assert_string_equal(s->data_dir, path);
		snprintf(path, sizeof(path), "%s/.local/state/weir/run", folder);
		assert_string_equal(s->run_dir, path);
	}
	assert_null(s->user);
	assert_in_range(s->workers, 1, WORKERS_MAX);
	assert_int_equal(s->arena.workers, s->workers);
	assert_int_equal(s->arena.meters, 65536);
	assert_int_equal(s->arena.inflight, 2048);
	assert_int_equal(s->arena.ring_bytes, 4194304);
	assert_int_equal(s->flush_ms, 100);
	assert_int_equal(s->drain_ms, 600000);
	assert_int_equal(s->cache.bytes, 1073741824);
	assert_int_equal(s->cache.entry_bytes, 4194304);
	assert_int_equal(s->cache.wait_ms, 60000);
	assert_string_equal(s->path_prefix, "");
	assert_int_equal(s->limit.body_bytes, 33554432);
	assert_int_equal(s->limit.head_ms, 10000);
	assert_int_equal(s->limit.body_ms, 60000);
	assert_int_equal(s->limit.idle_ms, 75000);
	assert_int_equal(s->limit.connect_ms, 5000);
	assert_int_equal(s->limit.first_byte_ms, 600000);
	assert_int_equal(s->limit.stream_idle_ms, 300000);
	assert_int_equal(s->limit.ping_ms, 15000);
	assert_in_range(s->limit.connections, 1, 20000);
	assert_int_equal(s->metadata.required_count, 0);
	assert_false(s->metadata.lenient);
	assert_int_equal(s->budget_style, BUDGET_STYLE_AUTO);
	assert_string_equal(s->budget_text, "");
	assert_int_equal(s->clamp_share, 8);
	assert_int_equal(s->clamp_floor, 4096);
	assert_int_equal(s->admission_wait_ms, 250);
	assert_int_equal(s->count_ms, 2000);
	assert_true(s->limit_headers);
	assert_int_equal(s->workspaces_count, 0);
	assert_int_equal(s->policies_count, 0);
	assert_int_equal(s->providers_count, 0);
	assert_int_equal(s->configs_count, 0);
	assert_null(s->default_provider);
	assert_non_null(s->prices);
	assert_int_equal(s->log_level, SETTING_LOG_INFO);
	assert_int_equal(s->version, 1);
	done(&l);
}

static void
test_no_file_but_a_key(void **state)
{
	(void)state;
	setenv("ANTHROPIC_API_KEY", "sk-\"quoted", 1);
	struct loaded l = load_with(NULL, NULL);
	unsetenv("ANTHROPIC_API_KEY");

	assert_non_null(l.s);
	assert_int_equal(l.s->providers_count, 1);
	assert_string_equal(l.s->providers[0].slug, "anthropic");
	assert_string_equal(l.s->providers[0].api_key, "sk-\"quoted");
	assert_string_equal(l.s->providers[0].base_url, "https://api.anthropic.com");
	assert_string_equal(l.s->default_provider, "anthropic");
	done(&l);
}

static const char whole_file[] = "\xef\xbb\xbf{\n"
    "\"$schema\":\"weir.schema.json\",\n"
    "\"listen\":[\"[::1]:0\",{\"address\":\"0.0.0.0:8443\",\"tls\":true},{\"address\":\"127.0.0.1:81\"}],\n"
    "\"tls\":{\"certificate\":\"weir.pem\",\"key\":\"file:weir.key\"},\n"
    "\"admin\":{\"listen\":\"[::]:9000\"},\n"
    "\"data_dir\":\"data\",\"run_dir\":\"/run/w\",\"user\":\"nobody\",\"workers\":3,\n"
    "\"ledger\":{\"meters\":5000,\"inflight\":17,\"ring_bytes\":65537,\"flush_ms\":7},\n"
    "\"limits\":{\"body_bytes\":2048,\"drain_ms\":0,\"ping_ms\":20,\"connections\":11},\n"
    "\"cache\":{\"bytes\":10000,\"entry_bytes\":5000,\"wait_ms\":0},\n"
    "\"path_prefix\":\"/a/b/\",\n"
    "\"metadata\":{\"required\":[\"team\",\"${WEIR_T_FIELD:-project}\"],\"lenient\":true},\n"
    "\"budgets\":{\"style\":\"portkey\",\"share\":4,\"floor\":1,\"admission_wait_ms\":0,\"count_ms\":0,\"headers\":false,\"message\":\"Ask \\u00e4ny\\u006fne; $${x}.\"},\n"
    "\"providers\":[\n"
    " {\"slug\":\"one\",\"base_url\":\"http://localhost:81/x/\",\"api_key\":\"a-${WEIR_T_KEY}-z\"},\n"
    " {\"slug\":\"two\",\"type\":\"anthropic\",\"api_key\":\"file:secret\",\"ca_file\":\"ca.pem\",\"models\":[\"claude-*\",\"x\"]},\n"
    " {\"slug\":\"three\",\"base_url\":\"https://[2001:db8::1]:8443\",\"api_key\":\"k\"},\n"
    " {\"slug\":\"four\",\"base_url\":\"http://10.0.0.1\",\"api_key\":\"k\",\"allow_plain_http\":true}],\n"
    "\"default_provider\":\"two\",\n"
    "\"configs\":[{\"slug\":\"z\",\"config\":{\"provider\":\"@one\"}},\n"
    " {\"slug\":\"pc-eng\",\"config\":{\"override_params\":{\"model\":\"@two/claude-x\",\"temperature\":0.30000000000000000001,"
    "\"system\":\"${WEIR_T_FIELD:-hello}\"}}}],\n"
    "\"prices\":[{\"provider\":\"anthropic\",\"model\":\"house-1\",\"prices\":[{\"valid_from\":\"2026-01-01\",\"input\":1,"
    "\"output\":2,\"cache_write_5m\":3,\"cache_write_1h\":4,\"cache_read\":5}]}],\n"
    "\"log\":{\"level\":\"warn\"}}\n";

static void
whole_file_lists(const struct settings *s)
{
	assert_int_equal(s->listeners_count, 3);
	assert_string_equal(s->listeners[0].host, "::1");
	assert_int_equal(s->listeners[0].port, 0);
	assert_string_equal(s->listeners[1].host, "0.0.0.0");
	assert_true(s->listeners[1].tls);
	assert_false(s->listeners[2].tls);
	assert_int_equal(s->listeners[2].port, 81);
	assert_string_equal(s->admin.host, "::");
	assert_int_equal(s->providers_count, 4);
	const struct setting_provider *v = s->providers;
	assert_string_equal(v[0].host, "localhost");
	assert_int_equal(v[0].port, 81);
	assert_string_equal(v[0].path_prefix, "/x");
	assert_false(v[0].tls);
	assert_string_equal(v[0].api_key, "a-k1-z");
	assert_int_equal(v[0].index, 1);
	assert_ptr_equal(settings_provider(s, SLICE("two")), &v[1]);
	assert_null(settings_provider(s, SLICE("tw")));
	assert_string_equal(v[1].host, "api.anthropic.com");
	assert_int_equal(v[1].port, 443);
	assert_true(v[1].tls);
	assert_string_equal(v[1].path_prefix, "");
	assert_string_equal(v[1].api_key, "from-a-file");
	assert_int_equal(v[1].models_count, 2);
	assert_string_equal(v[1].models[1], "x");
	assert_non_null(strstr(v[1].ca_pem, "-----BEGIN CERTIFICATE-----"));
	assert_string_equal(v[2].host, "2001:db8::1");
	assert_int_equal(v[2].port, 8443);
	assert_int_equal(v[3].port, 80);
	assert_int_equal(v[3].index, 4);
}

static void
test_whole_file(void **state)
{
	(void)state;
	char path[256];

	setenv("WEIR_T_KEY", "k1", 1);
	write_text("secret", "from-a-file \r\n\n");
	struct loaded l = load(whole_file);
	unsetenv("WEIR_T_KEY");
	if (!l.s)
		fail_msg("%.*s", SLICE_FMT(buf_slice(&l.problems.text)));
	struct settings *s = l.s;

	whole_file_lists(s);
	assert_non_null(strstr(s->tls_cert_pem, "-----BEGIN CERTIFICATE-----"));
	assert_non_null(strstr(s->tls_key_pem, "KEY-----"));
	snprintf(path, sizeof(path), "%s/data", folder);
	assert_string_equal(s->data_dir, path);
	assert_string_equal(s->run_dir, "/run/w");
	assert_string_equal(s->user, "nobody");
	assert_int_equal(s->workers, 3);
	assert_int_equal(s->arena.meters, 8192);
	assert_int_equal(s->arena.inflight, 17);
	assert_int_equal(s->arena.ring_bytes, 131072);
	assert_int_equal(s->flush_ms, 7);
	assert_int_equal(s->limit.body_bytes, 2048);
	assert_int_equal(s->limit.connections, 11);
	assert_int_equal(s->limit.ping_ms, 20);
	assert_int_equal(s->limit.head_ms, 10000);
	assert_int_equal(s->drain_ms, 0);
	assert_int_equal(s->cache.bytes, 10000);
	assert_int_equal(s->cache.entry_bytes, 5000);
	assert_int_equal(s->cache.wait_ms, 0);
	assert_string_equal(s->path_prefix, "/a/b");
	assert_int_equal(s->metadata.required_count, 2);
	assert_string_equal(s->metadata.required[1], "project");
	assert_true(s->metadata.lenient);
	assert_int_equal(s->budget_style, BUDGET_STYLE_PORTKEY);
	assert_string_equal(s->budget_text, "Ask \xc3\xa4nyone; ${x}.");
	assert_int_equal(s->clamp_share, 4);
	assert_int_equal(s->clamp_floor, 1);
	assert_int_equal(s->admission_wait_ms, 0);
	assert_int_equal(s->count_ms, 0);
	assert_false(s->limit_headers);
	assert_string_equal(s->default_provider, "two");
	assert_int_equal(s->configs_count, 2);
	const struct config *c = settings_config(s, SLICE("pc-eng"));
	assert_non_null(c);
	const struct config_target *t = &c->targets[0];
	assert_string_equal(t->provider.p, "two");
	assert_string_equal(t->model.p, "claude-x");
	assert_string_equal(t->override_params[0].raw, "0.30000000000000000001");
	assert_string_equal(t->override_params[1].raw, "\"hello\"");
	assert_non_null(settings_config(s, SLICE("z")));
	assert_null(settings_config(s, SLICE("pc-en")));
	assert_null(settings_config(s, SLICE("pc-eng2")));
	assert_null(settings_config(s, SLICE_NONE));
	assert_non_null(price_find(s->prices, SLICE("anthropic"), SLICE("house-1"), INT64_C(1800000000) * 1000000000));
	assert_int_equal(s->log_level, SETTING_LOG_WARN);
	done(&l);
}

static void
test_deterministic(void **state)
{
	(void)state;
	static const char json[] = "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"${WEIR_T_KEY}\"}]}";

	setenv("WEIR_T_KEY", "before", 1);
	struct loaded one = accepted(json), two = accepted(json);
	setenv("WEIR_T_KEY", "after", 1);

	assert_true(slice_eq(buf_slice(&one.bundle), buf_slice(&two.bundle)));
	/* Compiling looks at nothing but the bundle. */
	struct settings *again = settings_compile(buf_slice(&one.bundle), 9, &one.problems);
	assert_non_null(again);
	assert_int_equal(again->version, 9);
	assert_string_equal(again->providers[0].api_key, "before");

	assert_ptr_equal(settings_get(again), again);
	settings_put(again);
	assert_string_equal(again->default_provider, "a");
	settings_put(again);
	settings_put(NULL);
	unsetenv("WEIR_T_KEY");
	done(&one);
	done(&two);
}

static void
test_command_line(void **state)
{
	(void)state;
	const char *path = write_text("settings.json", "{\"listen\":[\"127.0.0.1:1\",\"127.0.0.1:2\"],\"workers\":2,"
	    "\"data_dir\":\"/x\",\"user\":\"u\",\"admin\":{\"listen\":\"127.0.0.1:3\"}}");
	struct settings_overrides o = {
		.data_dir = "/o/data", .run_dir = "rel/run", .user = "other", .listen = "127.0.0.1:0",
		.admin_listen = "[::1]:4", .workers = 5,
	};
	char here[512], run_dir[600];
	struct loaded l = load_with(path, &o);

	assert_non_null(l.s);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(run_dir, sizeof(run_dir), "%s/rel/run", here);
	assert_string_equal(l.s->data_dir, "/o/data");
	assert_string_equal(l.s->run_dir, run_dir);
	assert_string_equal(l.s->user, "other");
	assert_int_equal(l.s->listeners_count, 1);
	assert_int_equal(l.s->listeners[0].port, 0);
	assert_string_equal(l.s->admin.host, "::1");
	assert_int_equal(l.s->workers, 5);
	done(&l);

	o = (struct settings_overrides){ .listen = "localhost:80", .data_dir = "" };
	l = load_with(path, &o);
	assert_null(l.s);
	assert_true(slice_eq(buf_slice(&l.problems.text), SLICE(
	    "command line: listen[0]: must be a numeric address and a port, such as \"127.0.0.1:8080\", \"[::1]:8080\" or, "
	    "for all addresses, \"0.0.0.0:8080\"; not \"localhost:80\"\n"
	    "command line: data_dir: must not be empty\n")));
	done(&l);
}

static void
test_zero_workers(void **state)
{
	(void)state;
	struct loaded one = accepted("{\"workers\":0}"), other = accepted("{}");

	assert_int_equal(one.s->workers, other.s->workers);
	done(&one);
	done(&other);
}

/* ---- mistakes ---- */

static const char provider[] = "{\"slug\":\"a\",\"api_key\":\"k\"}";

static void
test_syntax(void **state)
{
	(void)state;
	refuse("", "line 1, column 1: expected a value\n");
	refuse("{\n  \"listen\": [\n    \"127.0.0.1:80\",\n  ]\n}", "line 4, column 3: expected a value\n");
	refuse("{\"\xc3\xa4\": nope}", "line 1, column 7: expected a value\n");
	refuse("{} x", "line 1, column 4: bytes behind the value\n");
	refuse("[]", "must be an object, not an array\n");
	refuse("null", "must be an object, not null\n");

	struct loaded l = load_with("/nonexistent/weir.json", NULL);
	assert_true(slice_eq(buf_slice(&l.problems.text), SLICE("cannot read the settings: No such file or directory\n")));
	done(&l);
	l = load_with(folder, NULL);
	assert_true(slice_eq(buf_slice(&l.problems.text), SLICE("cannot read the settings: it is a folder\n")));
	done(&l);
}

static void
test_fields(void **state)
{
	(void)state;
	refuse("{\"lisen\":[]}", "lisen: unknown field; did you mean \"listen\"?\n");
	refuse("{\"limits\":{\"body_byte\":1}}", "limits.body_byte: unknown field; did you mean \"body_bytes\"?\n");
	refuse("{\"\":1,\"x y\":2}", "\"\": unknown field\nx y: unknown field\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"apikey\":\"k\"}]}",
	    "providers[0].apikey: unknown field; did you mean \"api_key\"?\nproviders[0]: needs \"api_key\"\n");
	refuse("{\"workers\":1,\"workers\":2}", "workers: given twice\n");
	refuse("{\"workers\":null}", "workers: must not be null: leave it out\n");
	refuse("{\"metadata\":{\"required\":[null]}}", "metadata.required[0]: must not be null: leave it out\n");
	refuse("{\"configs\":[{}]}", "configs[0]: needs \"slug\"\nconfigs[0]: needs \"config\"\n");
}

static void
test_types_and_bounds(void **state)
{
	(void)state;
	refuse("{\"workers\":\"4\"}", "workers: must be a number, not a string\n");
	refuse("{\"workers\":129}", "workers: must be a whole number from 1 to 128\n");
	refuse("{\"workers\":1.0}", "workers: must be a whole number from 1 to 128\n");
	refuse("{\"workers\":-1}", "workers: must be a whole number from 1 to 128\n");
	refuse("{\"limits\":{\"body_bytes\":99999999999999999999}}",
	    "limits.body_bytes: must be a whole number from 1024 to 1073741824\n");
	refuse("{\"ledger\":{\"meters\":0}}", "ledger.meters: must be a whole number from 1024 to 16777216\n");
	refuse("{\"limits\":[]}", "limits: must be an object, not an array\n");
	refuse("{\"listen\":\"127.0.0.1:80\"}", "listen: must be an array, not a string\n");
	refuse("{\"listen\":[80]}", "listen[0]: must be a string or an object, not a number\nlisten: must have an address\n");
	refuse("{\"providers\":[\"a\"]}", "providers[0]: must be an object, not a string\n");
	refuse("{\"metadata\":{\"lenient\":1}}", "metadata.lenient: must be true or false, not a number\n");
	refuse("{\"metadata\":{\"required\":\"team\"}}", "metadata.required: must be an array of strings, not a string\n");
	refuse("{\"metadata\":{\"required\":[\"a\",1,\"\",\"a\"]}}",
	    "metadata.required[1]: must be a string, not a number\nmetadata.required[2]: must not be empty\n"
	    "metadata.required[1]: \"a\" is listed twice\n");
	refuse("{\"budgets\":{\"share\":0,\"floor\":0,\"admission_wait_ms\":60001,\"count_ms\":-1,\"headers\":\"no\"}}",
	    "budgets.share: must be a whole number from 1 to 1000\nbudgets.floor: must be a whole number from 1 to 1000000\n"
	    "budgets.admission_wait_ms: must be a whole number from 0 to 60000\n"
	    "budgets.count_ms: must be a whole number from 0 to 60000\nbudgets.headers: must be true or false, not a string\n");
	refuse("{\"cache\":{\"bytes\":-1,\"entry_bytes\":67108865,\"wait_ms\":0.5}}",
	    "cache.bytes: must be a whole number from 0 to 8796093022208\n"
	    "cache.entry_bytes: must be a whole number from 4096 to 67108864\ncache.wait_ms: must be a whole number from 0 to 86400000\n");
	refuse("{\"health\":{\"cooldown_ms\":300001}}", "health.cooldown_max_ms: must be at least health.cooldown_ms (300001): it is 300000\n");
	refuse("{\"cache\":{\"bytes\":8388607}}", "cache.bytes: must be at least twice cache.entry_bytes (4194304), or 0 for no cache\n");
	refuse("{\"cache\":{\"entry_byte\":5000}}", "cache.entry_byte: unknown field; did you mean \"entry_bytes\"?\n");
	refuse("{\"budgets\":{\"style\":\"openai\"}}", "budgets.style: must be one of: auto|anthropic|portkey\n");
	refuse("{\"log\":{\"level\":\"warning\"}}", "log.level: must be one of: debug|info|warn|error\n");
	refuse("{\"budgets\":{\"message\":\"a\\nb\"}}", "budgets.message: must not contain control characters\n");
	refuse("{\"user\":\"a\\u0000b\"}", "user: must not contain control characters\n");
	refuse("{\"user\":\"\"}", "user: must not be empty\n");
	refuse("{\"configs\":[{\"slug\":\"a b\",\"config\":{}}]}", "configs[0].slug: must be 1 to 64 of A-Z a-z 0-9 . _ -\n");
	refuse("{\"configs\":[{\"slug\":\"a\",\"config\":[]}]}", "configs[0].config: must be an object, not an array\n");
}

static void
test_addresses(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", ":8080", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x",
		"localhost:80", "::1:80", "[::1]", "[::1]80", "[::1", "[127.0.0.1]:80", "[]:80", "256.0.0.1:80", "1.2.3:80",
		"127.0.0.1:080000",
	};
	struct setting_listener l = { .host = NULL };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (settings_parse_address(slice_of(bad[i]), &l))
			fail_msg("accepted: %s", bad[i]);
	assert_null(l.host);
	refuse("{\"listen\":[\"127.0.0.1:80\",{\"address\":\"127.0.0.1:80\"}]}", "listen[1]: is the same address as listen[0]\n");
	refuse("{\"listen\":[\"127.0.0.1:9464\"]}", "listen[0]: is the address of admin.listen too\n");
	struct loaded ok = accepted("{\"listen\":[\"127.0.0.1:0\",\"127.0.0.1:0\"],\"admin\":{\"listen\":\"127.0.0.1:0\"}}");
	done(&ok);
}

static void
test_urls(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "api.anthropic.com", "ftp://x", "https://", "https://:443", "https://u:p@h", "https://h?x", "https://h#x",
		"https://h:0", "https://h:65536", "https://h:x", "https://[::1", "https://[x]", "https://h/../x", "https://h/a//b",
		"https://h/%2f", "https://h/v1", "https://h/v1/", "https://h/x/v1", "https://h h", "https://-h", "https://h\\x",
		"HTTPS://h",
	};
	static const struct { const char *url, *host, *path; uint16_t port; bool tls; } good[] = {
		{ "https://h", "h", "", 443, true },
		{ "https://h/", "h", "", 443, true },
		{ "https://h.example:8443/a/b-c_d.e~f/", "h.example", "/a/b-c_d.e~f", 8443, true },
		{ "http://127.0.0.1:81", "127.0.0.1", "", 81, false },
		{ "http://[::1]", "::1", "", 80, false },
		{ "https://h/v1x", "h", "/v1x", 443, true },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct setting_provider v = { .base_url = (char *)(uintptr_t)bad[i] };

		if (!settings_parse_url(&v))
			fail_msg("accepted: %s", bad[i]);
		assert_null(v.host);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct setting_provider v = { .base_url = (char *)(uintptr_t)good[i].url };

		assert_null(settings_parse_url(&v));
		assert_string_equal(v.host, good[i].host);
		assert_string_equal(v.path_prefix, good[i].path);
		assert_int_equal(v.port, good[i].port);
		assert_int_equal(v.tls, good[i].tls);
		free(v.host);
		free(v.path_prefix);
	}
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"base_url\":\"http://llm.example.com\"}]}",
	    "providers[0].base_url: would send the API key unencrypted to llm.example.com: use https://, or set "
	    "\"allow_plain_http\": true on this provider\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"base_url\":\"https://h/v1\"}]}",
	    "providers[0].base_url: must not end with /v1: weir adds it, such as \"https://api.anthropic.com\"\n");
}

#define PATTERN "must be a host's name, an address, or \"*.\" and a name, such as \"llm.corp\", \"10.1.2.3\" or " \
    "\"*.example.com\"; "

static void
test_cross_references(void **state)
{
	(void)state;
	char json[1024];

	snprintf(json, sizeof(json), "{\"providers\":[%s,%s]}", provider, provider);
	refuse(json, "providers[1].slug: \"a\" is the slug of providers[0] too\n");
	snprintf(json, sizeof(json), "{\"providers\":[%s],\"default_provider\":\"b\"}", provider);
	refuse(json, "default_provider: there is no provider \"b\" among \"providers\"\n");
	refuse("{\"providers\":[{\"slug\":\"anthropic\",\"api_key\":\"k\"}],\"default_provider\":\"antropic\"}",
	    "default_provider: there is no provider \"antropic\"; did you mean \"anthropic\"?\n");
	refuse("{\"configs\":[{\"slug\":\"c\",\"config\":{\"provider\":\"@x\"}}]}",
	    "configs[0].config: there is no provider \"x\" among \"providers\"\n");
	refuse("{\"configs\":[{\"slug\":\"c\",\"config\":{}},{\"slug\":\"c\",\"config\":{}}]}",
	    "configs: the slug \"c\" is used twice\n");
	refuse("{\"configs\":[{\"slug\":\"c\",\"config\":{\"prompt_id\":\"p\"}}]}",
	    "configs[0].config.prompt_id: not yet supported\n");
	snprintf(json, sizeof(json), "{\"providers\":[%s],\"configs\":[{\"slug\":\"c\",\"config\":{\"targets\":[{\"provider\":\"@a\"},"
	    "{\"targets\":[{\"virtual_key\":\"b\"}]},{\"provider\":\"@anthropic\"},{\"override_params\":{\"model\":\"@aa/m\"}}]}}]}", provider);
	refuse(json, "configs[0].config.targets[2]: there is no provider \"anthropic\" among \"providers\"\n"
	    "configs[0].config.targets[3]: there is no provider \"aa\"; did you mean \"a\"?\n"
	    "configs[0].config.targets[1].targets[0]: there is no provider \"b\" among \"providers\"\n");
	refuse("{\"custom_hosts\":{\"trusted\":[\"ok.example\",\"*.ok.example\",\"10.0.0.1\",\"::1\",\"*\",\"a_b\",\"0x7f.1\",\"https://x\",\"*.*.x\"]}}",
	    "custom_hosts.trusted[4]: " PATTERN "not \"*\"\ncustom_hosts.trusted[5]: " PATTERN "not \"a_b\"\n"
	    "custom_hosts.trusted[6]: " PATTERN "not \"0x7f.1\"\ncustom_hosts.trusted[7]: " PATTERN "not \"https://x\"\n"
	    "custom_hosts.trusted[8]: " PATTERN "not \"*.*.x\"\n");
	refuse("{\"listen\":[{\"address\":\"127.0.0.1:1\",\"tls\":true}]}",
	    "listen[0]: needs \"tls\": {\"certificate\": FILE, \"key\": FILE}\n");
	refuse("{\"tls\":{\"certificate\":\"weir.pem\"}}", "tls.key: missing: a certificate needs its key\n");
	refuse("{\"listen\":[{\"address\":\"127.0.0.1:1\",\"tls\":true}],\"tls\":{\"certificate\":\"weir.pem\"}}",
	    "tls.key: missing: a certificate needs its key\n");
	refuse("{\"listen\":[{\"address\":\"127.0.0.1:1\",\"tls\":true}],\"tls\":{\"certificate\":\"none\",\"key\":\"none\"}}",
	    "tls.certificate: cannot read %/none: No such file or directory\n"
	    "tls.key: cannot read %/none: No such file or directory\n");
	refuse("{\"providers\":[{\"slug\":\"${WEIR_T_NONE}\",\"api_key\":\"k\"}],\"default_provider\":\"x\"}",
	    "providers[0].slug: the environment variable WEIR_T_NONE is not set: set it, or write ${WEIR_T_NONE:-default}\n");
	refuse("{\"tls\":{\"key\":\"weir.key\"}}", "tls.certificate: missing: a key needs its certificate\n");
	refuse("{\"path_prefix\":\"weir\"}",
	    "path_prefix: must be a path such as \"/weir\", of letters, digits and . _ ~ - @ :\n");
	refuse("{\"run_dir\":\"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
	    "run_dir: must have 1 to 91 bytes, not 92\n");

	struct loaded l = load("{\"prices\":[{\"model\":\"x\"}]}");	/* the words are the price book's */
	assert_null(l.s);
	assert_int_equal(l.problems.count, 1);
	assert_true(slice_starts(buf_slice(&l.problems.text), SLICE("prices[0].")));
	done(&l);
}

/* A plain name is a slug, or else a type; "@" is always a slug. */
static void
test_provider_of_a_target(void **state)
{
	(void)state;
	static const char two[] = "{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\"},{\"slug\":\"b\",\"api_key\":\"k\"}],"
	    "\"default_provider\":\"b\",\"custom_hosts\":{\"trusted\":[\"10.0.0.7\"]},"
	    "\"configs\":[{\"slug\":\"c\",\"config\":{\"targets\":[{\"provider\":\"anthropic\"},{\"provider\":\"a\"},{\"provider\":\"@a\"},"
	    "{\"virtual_key\":\"b\"},{\"custom_host\":\"http://10.0.0.7:8000/v1\"}]}}]}";
	static const char *const expected[] = { "b", "a", "a", "b", NULL };
	struct loaded l = accepted(two);
	const struct config *c = settings_config(l.s, SLICE("c"));

	assert_int_equal(c->targets_count, 5);
	for (uint32_t i = 0; i < 5; i++) {
		const struct setting_provider *p = settings_provider_of(l.s, &c->targets[i]);

		assert_true(slice_eq(slice_of(p ? p->slug : NULL), slice_of(expected[i])));
	}
	assert_true(c->targets[4].use_custom_host && c->targets[4].custom_host.trusted);
	done(&l);
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\"}],\"configs\":[{\"slug\":\"c\",\"config\":{\"provider\":\"openai\"}}]}",
	    "configs[0].config: there is no provider \"openai\" among \"providers\"\n");
	refuse("{\"configs\":[{\"slug\":\"c\",\"config\":{\"custom_host\":\"http://10.0.0.7:8000/v1\"}}]}",
	    "configs[0].config.custom_host: Invalid custom host: it is a private or reserved host: only the setting "
	    "custom_hosts.trusted can allow it\n");
}

static void
test_certificate_pair(void **state)
{
	(void)state;
	struct loaded l = load("{\"tls\":{\"certificate\":\"weir.pem\",\"key\":\"other.key\"}}");

	assert_null(l.s);
	assert_int_equal(l.problems.count, 1);
	assert_true(slice_starts(buf_slice(&l.problems.text), SLICE("tls.certificate: ")));
	done(&l);

	/* One that has run out is no reason for a restarted worker to stay down. */
	l = load("{\"tls\":{\"certificate\":\"old.pem\",\"key\":\"old.key\"}}");
	assert_null(l.s);
	assert_int_equal(l.problems.count, 1);
	assert_true(slice_contains(buf_slice(&l.problems.text), SLICE("expired")));
	l.problems.count = 0;
	l.s = settings_compile(buf_slice(&l.bundle), 1, &l.problems);
	assert_non_null(l.s);
	done(&l);

	l = load("{\"tls\":{\"certificate\":\"weir.key\",\"key\":\"weir.key\"}}");
	assert_null(l.s);
	assert_int_equal(l.problems.count, 1);
	done(&l);
}

static void
test_references(void **state)
{
	(void)state;
	refuse("{\"user\":\"${WEIR_T_NONE}\"}",
	    "user: the environment variable WEIR_T_NONE is not set: set it, or write ${WEIR_T_NONE:-default}\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"${WEIR_T_NONE}\"}]}",
	    "providers[0].api_key: the environment variable WEIR_T_NONE is not set: set it, or write ${WEIR_T_NONE:-default}\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"${WEIR_T_NONE:-}\"}]}", "providers[0].api_key: must not be empty\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"a b\"}]}",
	    "providers[0].api_key: must be printable ASCII without spaces: it becomes a header\n");
	refuse("{\"user\":\"${}\"}",
	    "user: a reference must be ${NAME} or ${NAME:-default}; write $${ for the characters \"${\"\n");
	refuse("{\"user\":\"${A\"}",
	    "user: a reference must be ${NAME} or ${NAME:-default}; write $${ for the characters \"${\"\n");
	refuse("{\"user\":\"${A-b}\"}",
	    "user: a reference must be ${NAME} or ${NAME:-default}; write $${ for the characters \"${\"\n");
	refuse("{\"configs\":[{\"slug\":\"c\",\"config\":{\"override_params\":{\"system\":[\"${WEIR_T_NONE}\"]}}}]}",
	    "configs[0].config.override_params.system[0]: the environment variable WEIR_T_NONE is not set: set it, or write "
	    "${WEIR_T_NONE:-default}\n");
	refuse("{\"tls\":{\"certificate\":\"none.pem\",\"key\":\"\"}}",
	    "tls.certificate: cannot read %/none.pem: No such file or directory\ntls.key: must name a file\n");
	write_text("empty", "");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"file:empty\"}]}", "providers[0].api_key: %/empty is empty\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"ca_file\":\"weir.key\"}]}",
	    "providers[0].ca_file: holds no PEM certificate\n");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"k\",\"ca_file\":\".\"}]}",
	    "providers[0].ca_file: cannot read %/.: it is a folder\n");

	write_text("text", "k\xc3\xbc");
	refuse("{\"providers\":[{\"slug\":\"a\",\"api_key\":\"file:text\"}]}",
	    "providers[0].api_key: must be printable ASCII without spaces: it becomes a header\n");
	setenv("WEIR_T_SET", "", 1);
	struct loaded l = accepted("{\"budgets\":{\"message\":\"<${WEIR_T_SET}|${WEIR_T_SET:-x y}|${HOME:-z}|$HOME|$$>\"}}");
	char expected[256];
	snprintf(expected, sizeof(expected), "<|x y|%s|$HOME|$$>", folder);
	assert_string_equal(l.s->budget_text, expected);
	unsetenv("WEIR_T_SET");
	done(&l);
}

static void
test_all_mistakes_at_once(void **state)
{
	(void)state;
	refuse("{\"listen\":[\"x\"],\"limits\":{\"zzz\":1,\"head_ms\":1},\"providers\":[{\"slug\":\"a b\",\"api_key\":\"file:none\"}],"
	    "\"configs\":[{\"slug\":\"c\",\"config\":{\"cache\":{}}}]}",
	    "providers[0].api_key: cannot read %/none: No such file or directory\n"
	    "listen[0]: must be a numeric address and a port, such as \"127.0.0.1:8080\", \"[::1]:8080\" or, for all addresses, "
	    "\"0.0.0.0:8080\"; not \"x\"\n"
	    "limits.zzz: unknown field\n"
	    "limits.head_ms: must be a whole number from 10 to 86400000\n"
	    "providers[0].slug: must be 1 to 64 of A-Z a-z 0-9 . _ -\n"
	    "configs[0].config.cache: needs \"mode\"\n");
}

static void
test_too_many(void **state)
{
	(void)state;
	struct buf json;

	buf_init(&json, 1u << 20);
	buf_add_str(&json, "{\"providers\":[");
	for (int i = 0; i < PROVIDERS_MAX + 3; i++)
		buf_printf(&json, "%s{\"slug\":\"p%d\",\"api_key\":\"k\"}", i ? "," : "", i);
	buf_add(&json, "]}", 3);
	refuse(json.p, "providers: more than 15 entries\n");
	buf_free(&json);

	buf_init(&json, 1u << 20);
	buf_add_str(&json, "{\"configs\":[{\"slug\":\"c\",\"config\":{\"override_params\":{\"x\":");
	for (int i = 0; i < 80; i++)
		buf_add_char(&json, '[');
	for (int i = 0; i < 80; i++)
		buf_add_char(&json, ']');
	buf_add(&json, "}}}]}", 6);
	struct loaded l = load(json.p);
	assert_null(l.s);
	assert_int_equal(l.problems.count, 1);
	assert_true(slice_contains(buf_slice(&l.problems.text), SLICE("nested deeper than 64 levels")));
	done(&l);
	buf_free(&json);
}

/* Paths that end just before, at and behind the end of a buffer that doubles. */
static void
test_long_names(void **state)
{
	(void)state;
	char json[2048], name[1025];

	for (size_t size = 256; size <= 1024; size *= 2)
		for (size_t n = size - 8; n <= size; n++) {
			memset(name, 'n', n);
			name[n] = '\0';
			snprintf(json, sizeof(json), "{\"%s\":[[0,1],{\"a\":[2]}]}", name);
			struct loaded l = load(json);
			assert_null(l.s);
			assert_int_equal(l.problems.count, 1);
			done(&l);
		}
}

static void
test_compile_of_foreign_bytes(void **state)
{
	(void)state;
	static const char *const bundles[] = { "", "{", "[]", "{}", "{\"file\":[]}", "{\"file\":{\"listen\":[]}}", "null" };
	struct problems p;

	for (size_t i = 0; i < sizeof(bundles) / sizeof(bundles[0]); i++) {
		problems_init(&p);
		assert_null(settings_compile(slice_of(bundles[i]), 1, &p));
		assert_true(p.count > 0);
		problems_free(&p);
	}
}

/* ---- weir check ---- */

/* Runs `weir check` in a child; what it wrote is in `text`. */
static int
check(int argc, char **argv, char *text, size_t size)
{
	const char *path = in_folder("output");
	int status;

	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

		dup2(fd, 1);
		dup2(fd, 2);
		status = cmd_check(argc, argv);
		fflush(NULL);
		_exit(status);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, size - 1);
	assert_true(n >= 0);
	text[n] = '\0';
	close(fd);
	return WEXITSTATUS(status);
}

static void
test_check(void **state)
{
	(void)state;
	char text[4096], expected[4096], path[256];
	char *argv[] = { "check", path, "more", NULL };

	snprintf(path, sizeof(path), "%s", write_text("good.json", "{}"));
	assert_int_equal(check(2, argv, text, sizeof(text)), 0);
	snprintf(expected, sizeof(expected), "%s: ok\n", path);
	assert_string_equal(text, expected);

	snprintf(path, sizeof(path), "%s", write_text("bad.json", "{\"workers\":0.5,\"zzz\":1}"));
	assert_int_equal(check(2, argv, text, sizeof(text)), 2);
	snprintf(expected, sizeof(expected), "%s: workers: must be a whole number from 1 to 128\n%s: zzz: unknown field\n",
	    path, path);
	assert_string_equal(text, expected);

	assert_int_equal(check(1, argv, text, sizeof(text)), 2);
	assert_non_null(strstr(text, "usage: weir check FILE"));
	assert_int_equal(check(3, argv, text, sizeof(text)), 2);
	snprintf(path, sizeof(path), "--hlep");
	assert_int_equal(check(2, argv, text, sizeof(text)), 2);
	snprintf(path, sizeof(path), "--help");
	assert_int_equal(check(2, argv, text, sizeof(text)), 0);
}

static void
test_deployed_examples(void **state)
{
	(void)state;
	char *text = read_text(WEIR_SOURCE_DIR "/deploy/weir.example.json");

	/* Its certificate lies on the operator's machine: everything else holds. */
	setenv("ANTHROPIC_API_KEY", "k", 1);
	struct loaded l = load(text);
	unsetenv("ANTHROPIC_API_KEY");
	for (const char *line = l.problems.text.p; line && line < l.problems.text.p + l.problems.text.n;
	    line = strchr(line, '\n') + 1)
		if (!slice_starts(slice_of(line), SLICE("tls.")))
			fail_msg("deploy/weir.example.json: %.*s", SLICE_FMT(buf_slice(&l.problems.text)));
	done(&l);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_no_file_but_a_key),
		cmocka_unit_test(test_whole_file),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_command_line),
		cmocka_unit_test(test_zero_workers),
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_types_and_bounds),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_cross_references),
		cmocka_unit_test(test_provider_of_a_target),
		cmocka_unit_test(test_certificate_pair),
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_all_mistakes_at_once),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_compile_of_foreign_bytes),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_deployed_examples),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
