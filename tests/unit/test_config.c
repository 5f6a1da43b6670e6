/*
 * The config object: what it becomes. That is written out, node by node with
 * all that is not as it is without a config, and compared with a text.
 * docs/configs.md is held to the parser by its own rows: each names a field, an
 * example, and whether it works now; the example must do what the row says.
 * (How one is refused: test_config_mistakes.c.)
 */
#include "tests/unit/config_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "policy/json.h"

/* ---- written out ---- */

static void
add_statuses(struct buf *b, const struct status_set *set)
{
	const char *sep = "";

	for (int status = -1; status <= 1000; status++) {
		int last = status;

		if (!status_set_has(set, status))
			continue;
		while (status_set_has(set, last + 1))
			last++;
		buf_printf(b, last > status + 2 ? "%s%d-%d" : "%s%d", sep, status, last);
		sep = ",";
		status = last > status + 2 ? last : status;
	}
}

static void
add_params(struct buf *b, const char *what, const struct config_param *params, uint32_t n)
{
	struct json_error why;

	if (n > 0)
		buf_printf(b, " %s", what);
	for (uint32_t i = 0; i < n; i++) {
		assert_true(json_check(slice_of(params[i].raw), &why));
		buf_printf(b, "%s%s:%s", i ? "," : "=", params[i].name, params[i].raw);
	}
}

static void
add_target(struct buf *b, const struct config_target *t)
{
	const struct config_target *unset = config_none()->targets;

	if (t->provider.p)
		buf_printf(b, " provider=%s%s", t->provider_plain ? "" : "@", t->provider.p);
	if (t->model.p)
		buf_printf(b, " model=%s", t->model.p);
	if (t->default_model.p)
		buf_printf(b, " default_model=%s", t->default_model.p);
	if (t->api_key.p)
		buf_printf(b, " key=%s", t->api_key.p);
	add_params(b, "override", t->override_params, t->override_params_count);
	add_params(b, "default", t->default_params, t->default_params_count);
	if (t->drop_params_count > 0)
		buf_printf(b, " drops=%u", t->drop_params_count);
	assert_int_equal(t->edits_body, t->override_params_count + t->default_params_count + t->drop_params_count > 0);
	if (t->passthrough)
		buf_add_str(b, " passthrough");
	if (!t->strict_open_ai_compliance)
		buf_add_str(b, " lax");
	if (t->use_custom_host)
		buf_printf(b, " host=%d/%.*s:%d%.*s", t->custom_host.tls, SLICE_FMT(t->custom_host.host), t->custom_host.port,
		    SLICE_FMT(t->custom_host.path));
	if (t->retry.attempts || t->retry.use_retry_after ||
	    memcmp(&t->retry.on_status_codes, &unset->retry.on_status_codes, sizeof(struct status_set)) != 0) {
		buf_printf(b, " retry=%u(", t->retry.attempts);
		add_statuses(b, &t->retry.on_status_codes);
		buf_printf(b, ")%s", t->retry.use_retry_after ? "after" : "");
	}
	if (t->cache.mode != CONFIG_CACHE_OFF)
		buf_printf(b, " cache=%s:%u", t->cache.mode == CONFIG_CACHE_SIMPLE ? "simple" : "semantic", t->cache.max_age_s);
	if (t->request_timeout_ms)
		buf_printf(b, " timeout=%u", t->request_timeout_ms);
	for (uint32_t i = 0; i < t->forward_headers_count; i++)
		buf_printf(b, "%s%s", i ? "," : " forward=", t->forward_headers[i].p);
	if (t->breaker) {
		buf_printf(b, " breaker=%u/%u/%u/%u(", t->breaker->failure_threshold, t->breaker->failure_permille,
		    t->breaker->minimum_requests, t->breaker->cooldown_ms);
		add_statuses(b, &t->breaker->failure_status_codes);
		buf_add_char(b, ')');
	}
}

static void
add_choice(struct buf *b, const struct config *c, const struct config_node *n)
{
	if (n->has_statuses) {
		buf_add_str(b, " on=(");
		add_statuses(b, &n->on_status_codes);
		buf_add_char(b, ')');
	}
	for (uint32_t i = 0; i < n->conditions_count; i++) {
		assert_non_null(n->conditions[i].query);
		buf_printf(b, " then=%s:%u", n->conditions[i].then.p, n->conditions[i].child - n->first);
	}
	if (n->otherwise != CONFIG_NOWHERE)
		buf_printf(b, " default=%u", n->otherwise - n->first);
	if (n->mode != CONFIG_LOADBALANCE)
		return;
	if (!n->sticky.enabled)
		buf_add_str(b, " unsticky");
	if (n->sticky.hash_fields)
		buf_add_str(b, " hashed");
	if (n->sticky.ttl_s != 3600)
		buf_printf(b, " ttl=%u", n->sticky.ttl_s);
	for (uint32_t i = 0; i < n->count; i++)
		buf_printf(b, "%s%g", i ? "," : " weights=", c->nodes[n->first + i].weight);
}

/* The tree as it says that it is; its invariants are looked at on the way. */
static void
write_out(const struct config *c, struct buf *b)
{
	static const char *const modes[] = { "leaf", "single", "fallback", "loadbalance", "conditional" };
	uint32_t next = 1, leaves = 0;

	for (uint32_t i = 0; i < c->nodes_count; i++) {
		const struct config_node *n = &c->nodes[i];

		buf_printf(b, "%s", n->path.p);
		if (n->name.p)
			buf_printf(b, " \"%s\"", n->name.p);
		buf_printf(b, " %s", modes[n->mode]);
		assert_int_equal(n->path.n, strlen(n->path.p));
		assert_int_equal(n->mode == CONFIG_LEAF, n->target != NULL);
		if (n->mode != CONFIG_LEAF) {
			assert_int_equal(n->first, next);
			assert_true(n->count > 0);
			next += n->count;
			for (uint32_t k = n->first; k < next; k++) {
				assert_int_equal(c->nodes[k].parent, i);
				assert_int_equal(c->nodes[k].level, n->level + 1);
			}
			add_choice(b, c, n);
		} else {
			assert_ptr_equal(n->target, &c->targets[leaves]);
			assert_int_equal(n->target->number, leaves++);
			assert_int_equal(n->target->node, i);
			add_target(b, n->target);
		}
		buf_add_char(b, '\n');
	}
	assert_int_equal(next, c->nodes_count);
	assert_int_equal(leaves, c->targets_count);
	assert_int_equal(c->nodes[0].parent, CONFIG_NOWHERE);
}

static void
becomes(const char *json, const char *text)
{
	struct config *c = accept(json);
	struct buf b;

	buf_init(&b, 1u << 20);
	write_out(c, &b);
	if (!slice_eq(buf_slice(&b), slice_of(text)))
		fail_msg("%s:\n%.*sbut expected:\n%s", json, SLICE_FMT(buf_slice(&b)), text);
	buf_free(&b);
	config_put(c);
}

static void
all_become(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		becomes(rows[i].json, rows[i].text);
}

/* ---- what it becomes ---- */

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
test_none(void **state)
{
	(void)state;
	const struct config *none = config_none();
	struct buf b;

	buf_init(&b, 4096);
	write_out(none, &b);
	assert_true(slice_eq(buf_slice(&b), SLICE("config leaf\n")));
	assert_string_equal(none->version, "");
	assert_null(none->slug.p);
	assert_false(none->several_targets || none->has_conditions || none->has_choice);
	buf_clear(&b);
	add_statuses(&b, &none->targets[0].retry.on_status_codes);
	assert_true(slice_eq(buf_slice(&b), SLICE("429,500,502,503,504,529")));
	buf_free(&b);
	becomes(" {} ", "config leaf\n");
	config_put(NULL);
}

static void
test_params(void **state)
{
	(void)state;
	static const struct row rows[] = {
		/* The operator's text, to the digit. */
		{ "{\"override_params\":{\"temperature\":0.10000000000000000001, \"max_tokens\" : 9007199254740993,"
		    "\"thinking\":{\"type\" : \"enabled\",\"budget\\u005ftokens\":1e3},\"stop_sequences\":null,\"top\\u005fp\":1.0}}",
		    "config leaf override=temperature:0.10000000000000000001,max_tokens:9007199254740993,"
		    "thinking:{\"type\" : \"enabled\",\"budget\\u005ftokens\":1e3},stop_sequences:null,top_p:1.0\n" },
		{ "{\"default_params\":{\"max_tokens\":1024,\"model\":\"@a/m\"}}", "config leaf default_model=@a/m default=max_tokens:1024\n" },
		{ "{\"drop_params\":[\"a\",\"b.c\",\"d[0].e\",\"f[*].g[*].h\"]}", "config leaf drops=4\n" },
		{ "{\"drop_params\":[]}", "config leaf\n" },
		{ "{\"override_params\":{\"a\":1},\"default_params\":{\"a\":2},\"drop_params\":[\"a\"]}",
		    "config leaf override=a:1 default=a:2 drops=1\n" },
		{ "{\"override_params\":{\"model\":\"@cf/x\"}}", "config leaf model=@cf/x\n" },
	};

	ALL(all_become, rows);
}

static void
test_provider_and_model(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"override_params\":{\"model\":\"@prod/claude-x\"}}", "config leaf provider=@prod model=claude-x\n" },
		{ "{\"overrideParams\":{\"model\":\"@prod/a/b\"}}", "config leaf provider=@prod model=a/b\n" },
		{ "{\"override_params\":{\"model\":\"claude-x\"}}", "config leaf model=claude-x\n" },
		{ "{\"provider\":\"@prod\"}", "config leaf provider=@prod\n" },
		{ "{\"provider\":\"anthropic\"}", "config leaf provider=anthropic\n" },
		{ "{\"provider\":\"anthropic\",\"api_key\":\"sk-1\"}", "config leaf provider=anthropic key=sk-1\n" },
		{ "{\"apiKey\":\"sk-\\u0031\"}", "config leaf key=sk-1\n" },
		{ "{\"virtual_key\":\"vk-1\"}", "config leaf provider=@vk-1\n" },
		{ "{\"virtualKey\":\"vk-1\"}", "config leaf provider=@vk-1\n" },
		{ "{\"provider\":\"@a\",\"virtual_key\":\"b\",\"override_params\":{\"model\":\"@c/m\"}}", "config leaf provider=@a model=m\n" },
		{ "{\"virtual_key\":\"b\",\"override_params\":{\"model\":\"@c/m\"}}", "config leaf provider=@b model=m\n" },
		{ "{\"passthrough\":true,\"override_params\":{\"model\":\"@c/m\"}}", "config leaf model=m passthrough\n" },
		{ "{\"passthrough\":false,\"provider\":\"@a\"}", "config leaf provider=@a\n" },
		{ "{\"strategy\":{\"mode\":\"single\"},\"targets\":[{\"provider\":\"@t\"}]}", "config single\nconfig.targets[0] leaf provider=@t\n" },
		{ "{\"targets\":[{\"name\":\"x\",\"override_params\":{\"model\":\"@t/m\"}}]}",
		    "config single\nconfig.targets[0] \"x\" leaf provider=@t model=m\n" },
		{ "{\"override_params\":{\"model\":\"@root/m\"},\"targets\":[{}]}", "config single\nconfig.targets[0] leaf provider=@root model=m\n" },
		{ "{\"override_params\":{\"model\":\"@root/m\"},\"targets\":[{\"override_params\":{\"model\":\"n\"}},{\"provider\":\"@x\"}]}",
		    "config single\nconfig.targets[0] leaf model=n\nconfig.targets[1] leaf provider=@x model=m\n" },
		{ "{\"targets\":[{\"targets\":[{\"provider\":\"deep\"}]}]}",
		    "config single\nconfig.targets[0] single\nconfig.targets[0].targets[0] leaf provider=deep\n" },
	};

	ALL(all_become, rows);
}

/* Each field of a target, in both spellings. */
static void
test_fields(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"retry\":{\"attempts\":5}}", "config leaf retry=5(429,500,502,503,504,529)\n" },
		{ "{\"retry\":{\"attempts\":0}}", "config leaf\n" },
		{ "{\"retry\":{\"attempts\":1,\"on_status_codes\":[]}}", "config leaf retry=1()\n" },
		{ "{\"retry\":{\"attempts\":1,\"onStatusCodes\":[100,599,408]}}", "config leaf retry=1(100,408,599)\n" },
		{ "{\"retry\":{\"attempts\":1,\"use_retry_after_headers\":true}}", "config leaf retry=1(429,500,502,503,504,529)after\n" },
		{ "{\"retry\":{\"attempts\":1,\"use_retry_after_header\":true}}", "config leaf retry=1(429,500,502,503,504,529)after\n" },
		{ "{\"retry\":{\"attempts\":1,\"useRetryAfterHeader\":false}}", "config leaf retry=1(429,500,502,503,504,529)\n" },
		{ "{\"cache\":{\"mode\":\"simple\"}}", "config leaf cache=simple:0\n" },
		{ "{\"cache\":{\"mode\":\"semantic\",\"max_age\":60}}", "config leaf cache=semantic:60\n" },
		{ "{\"cache\":{\"mode\":\"simple\",\"maxAge\":7776000}}", "config leaf cache=simple:7776000\n" },
		{ "{\"cache\":{\"mode\":\"simple\",\"max_age\":59}}", "config leaf cache=simple:604800\n" },
		{ "{\"cache\":{\"mode\":\"simple\",\"max_age\":7776001}}", "config leaf cache=simple:604800\n" },
		{ "{\"cache\":{\"mode\":\"simple\",\"max_age\":4294967356}}", "config leaf cache=simple:604800\n" },
		{ "{\"request_timeout\":86400000}", "config leaf timeout=86400000\n" },
		{ "{\"custom_host\":\"https://llm.example.com/v1/\"}", "config leaf host=1/llm.example.com:443/v1\n" },
		{ "{\"customHost\":\"http://127.0.0.1:8080\"}", "config leaf host=0/127.0.0.1:8080\n" },
		{ "{\"forward_headers\":[\"X-Request-Source\",\"x-b\",\"anthropic-beta\"]}", "config leaf forward=x-request-source,x-b,anthropic-beta\n" },
		{ "{\"strict_open_ai_compliance\":false}", "config leaf lax\n" },
		{ "{\"strictOpenAiCompliance\":true}", "config leaf\n" },
		{ "{\"cb_config\":{\"failure_threshold\":3}}", "config leaf breaker=3/0/5/30000(500-599)\n" },
		{ "{\"cbConfig\":{\"failure_threshold_percentage\":12.5,\"minimumRequests\":10,\"cooldown_interval\":60000}}",
		    "config leaf breaker=0/125/10/60000(500-599)\n" },
		{ "{\"cb_config\":{\"failure_threshold\":1,\"failure_threshold_percentage\":100,\"cooldown_interval\":1,\"failure_status_codes\":[429,500]}}",
		    "config leaf breaker=1/1000/5/30000(429,500)\n" },
		{ "{\"name\":\"all\",\"weight\":3}", "config \"all\" leaf\n" },
	};

	ALL(all_become, rows);
	struct config *c = accept("{\"fetch_integrated_models\":true}");
	assert_true(c->fetch_integrated_models);
	config_put(c);
}

/* What a level passes on (the parent has it, the first child too, the second nothing, the third's child nothing). */
static void
test_inheritance(void **state)
{
	(void)state;
	static const struct { const char *parent, *child, *given, *absent; } rows[] = {
		{ "\"override_params\":{\"a\":1,\"b\":{\"x\":1}}", "\"override_params\":{\"b\":{\"y\":2},\"c\":3}",
		    " override=a:1,b:{\"y\":2},c:3", " override=a:1,b:{\"x\":1}" },
		{ "\"default_params\":{\"a\":1,\"b\":{\"x\":1}}", "\"default_params\":{\"b\":{\"y\":2},\"c\":3}",
		    " default=a:1,b:{\"y\":2},c:3", " default=a:1,b:{\"x\":1}" },
		{ "\"override_params\":{\"model\":\"@p/m\"}", "\"override_params\":{\"model\":\"n\"}", " model=n", " provider=@p model=m" },
		{ "\"default_params\":{\"model\":\"@p/m\"}", "\"default_params\":{\"model\":\"n\"}", " default_model=n", " default_model=@p/m" },
		{ "\"drop_params\":[\"a\",\"b\"]", "\"drop_params\":[\"c\"]", " drops=1", " drops=2" },
		{ "\"drop_params\":[\"a\",\"b\"]", "\"drop_params\":[]", "", " drops=2" },
		{ "\"retry\":{\"attempts\":2,\"on_status_codes\":[429]}", "\"retry\":{\"attempts\":1,\"use_retry_after_header\":true}",
		    " retry=1(429,500,502,503,504,529)after", " retry=2(429)" },
		{ "\"cache\":{\"mode\":\"semantic\",\"max_age\":100}", "\"cache\":{\"mode\":\"simple\"}", " cache=simple:0", " cache=semantic:100" },
		{ "\"request_timeout\":1000", "\"requestTimeout\":2000", " timeout=2000", " timeout=1000" },
		{ "\"custom_host\":\"https://a.example/x\"", "\"custom_host\":\"https://b.example\"", " host=1/b.example:443", " host=1/a.example:443/x" },
		{ "\"forward_headers\":[\"x-a\",\"x-b\"]", "\"forward_headers\":[\"x-c\"]", " forward=x-c", " forward=x-a,x-b" },
		{ "\"strict_open_ai_compliance\":false", "\"strict_open_ai_compliance\":true", "", " lax" },
		{ "\"cb_config\":{\"failure_threshold\":3}", "\"cb_config\":{\"failure_threshold\":4}",
		    " breaker=4/0/5/30000(500-599)", " breaker=3/0/5/30000(500-599)" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char json[1024], text[1024];

		snprintf(json, sizeof(json), "{\"targets\":[{%s},{},{\"targets\":[{},{%s}]}],%s}", rows[i].child, rows[i].child, rows[i].parent);
		snprintf(text, sizeof(text), "config single\nconfig.targets[0] leaf%s\nconfig.targets[1] leaf%s\nconfig.targets[2] single\n"
		    "config.targets[2].targets[0] leaf%s\nconfig.targets[2].targets[1] leaf%s\n", rows[i].given, rows[i].absent,
		    rows[i].absent, rows[i].given);
		becomes(json, text);
	}
}

/* A target's own: siblings and children know nothing of it. */
static void
test_not_inherited(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"strategy\":{\"mode\":\"fallback\",\"on_status_codes\":[500]},\"name\":\"r\",\"targets\":[{\"name\":\"n\",\"weight\":3,"
		    "\"provider\":\"@a\",\"api_key\":\"k\"},{\"weight\":2,\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{}]},{\"passthrough\":true}]}",
		    "config \"r\" fallback on=(500)\nconfig.targets[0] \"n\" leaf provider=@a key=k\nconfig.targets[1] fallback\n"
		    "config.targets[2] leaf passthrough\nconfig.targets[1].targets[0] leaf\n" },
		/* The strategy's breaker is its targets'. */
		{ "{\"strategy\":{\"mode\":\"fallback\",\"cb_config\":{\"failure_threshold\":1}},\"cb_config\":{\"failure_threshold\":2},"
		    "\"targets\":[{},{\"cb_config\":{\"failure_threshold\":3}},{\"strategy\":{\"mode\":\"conditional\",\"conditions\":"
		    "[{\"query\":{\"metadata.a\":\"b\"},\"then\":\"x\"}]},\"targets\":[{\"name\":\"x\"}]}]}",
		    "config fallback\nconfig.targets[0] leaf breaker=1/0/5/30000(500-599)\nconfig.targets[1] leaf breaker=3/0/5/30000(500-599)\n"
		    "config.targets[2] conditional then=x:0\nconfig.targets[2].targets[0] \"x\" leaf breaker=1/0/5/30000(500-599)\n" },
	};

	ALL(all_become, rows);
}

static void
test_modes(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{\"provider\":\"@a\"},{\"provider\":\"@b\"}]}",
		    "config fallback\nconfig.targets[0] leaf provider=@a\nconfig.targets[1] leaf provider=@b\n" },
		{ "{\"strategy\":{\"mode\":\"fallback\",\"onStatusCodes\":[]},\"targets\":[{}]}", "config fallback on=()\nconfig.targets[0] leaf\n" },
		{ "{\"strategy\":{\"mode\":\"fallback\",\"on_status_codes\":[429,100,599,200]},\"targets\":[{}]}",
		    "config fallback on=(100,200,429,599)\nconfig.targets[0] leaf\n" },
		{ "{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[{},{\"weight\":0},{\"weight\":0.25},{\"weight\":1e3}]}",
		    "config loadbalance weights=1,0,0.25,1000\nconfig.targets[0] leaf\nconfig.targets[1] leaf\nconfig.targets[2] leaf\n"
		    "config.targets[3] leaf\n" },
		{ "{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"enabled\":false}},\"targets\":[{}]}",
		    "config loadbalance unsticky weights=1\nconfig.targets[0] leaf\n" },
		{ "{\"strategy\":{\"mode\":\"loadbalance\",\"sticky\":{\"hashFields\":[\"metadata.User\",\"params.x\",\"headers.X-Team\"],\"ttl\":60}},"
		    "\"targets\":[{}]}", "config loadbalance hashed ttl=60 weights=1\nconfig.targets[0] leaf\n" },
		{ "{\"targets\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"},{}],\"strategy\":{\"mode\":\"conditional\",\"conditions\":["
		    "{\"query\":{\"metadata.env\":{\"$eq\":\"dev\"}},\"then\":\"b\"},{\"query\":{\"params.model\":{\"$regex\":\"opus\"}},\"then\":\"a\"},"
		    "{\"then\":\"\\u0062\",\"query\":{\"$and\":[{\"metadata.env\":\"x\"}]}}],\"default\":\"c\"}}",
		    "config conditional then=b:1 then=a:0 then=b:1 default=2\nconfig.targets[0] \"a\" leaf\nconfig.targets[1] \"b\" leaf\n"
		    "config.targets[2] \"c\" leaf\nconfig.targets[3] leaf\n" },
		{ "{\"strategy\":{\"mode\":\"single\"},\"targets\":[{\"provider\":\"@a\"},{\"provider\":\"@b\"}]}",
		    "config single\nconfig.targets[0] leaf provider=@a\nconfig.targets[1] leaf provider=@b\n" },
		/* Nodes stand level by level, children together. */
		{ "{\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[{\"weight\":3,\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{},{\"targets\":[{}]}]},"
		    "{},{\"targets\":[{\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{\"name\":\"deep\"}]}]}]}",
		    "config loadbalance weights=3,1,1\nconfig.targets[0] fallback\nconfig.targets[1] leaf\nconfig.targets[2] single\n"
		    "config.targets[0].targets[0] leaf\nconfig.targets[0].targets[1] single\nconfig.targets[2].targets[0] fallback\n"
		    "config.targets[0].targets[1].targets[0] leaf\nconfig.targets[2].targets[0].targets[0] \"deep\" leaf\n" },
	};

	ALL(all_become, rows);
}

static void
test_what_it_needs(void **state)
{
	(void)state;
#define COND "\"strategy\":{\"mode\":\"conditional\",\"conditions\":[{\"query\":{\"metadata.a\":\"b\"},\"then\":\"x\"}]}"
#define LB "\"strategy\":{\"mode\":\"loadbalance\"}"
#define FB "\"strategy\":{\"mode\":\"fallback\"}"
	static const struct { const char *json; bool several, conditions, choice; } rows[] = {
		{ "{}", false, false, false },
		{ "{\"targets\":[{},{}]}", false, false, false },
		{ "{" FB ",\"targets\":[{}]}", false, false, false },
		{ "{" FB ",\"targets\":[{},{}]}", true, false, false },
		{ "{" LB ",\"targets\":[{},{}]}", true, false, true },
		{ "{" LB ",\"targets\":[{},{\"weight\":0}]}", false, false, true },
		{ "{" COND ",\"targets\":[{\"name\":\"x\"},{\"name\":\"y\"},{}]}", false, true, false },
		{ "{\"targets\":[{" FB ",\"targets\":[{},{}]},{}]}", true, false, false },
		{ "{\"targets\":[{},{" LB ",\"targets\":[{},{}]},{" COND ",\"targets\":[{\"name\":\"x\"}]}]}", false, false, false },
		{ "{" LB ",\"targets\":[{},{\"weight\":0," COND ",\"targets\":[{\"name\":\"x\"}]}]}", false, false, true },
		{ "{" FB ",\"targets\":[{" COND ",\"targets\":[{\"name\":\"x\"}]},{" LB ",\"targets\":[{}]}]}", true, true, true },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config *c = accept(rows[i].json);

		if (c->several_targets != rows[i].several || c->has_conditions != rows[i].conditions || c->has_choice != rows[i].choice)
			fail_msg("%s: %d %d %d", rows[i].json, c->several_targets, c->has_conditions, c->has_choice);
		config_put(c);
	}
}

static struct config *
saved(const char *slug, const char *json)
{
	const struct config_source from = { .slug = slice_of(slug), .path = "" };
	struct problems p;

	problems_init(&p);
	struct config *c = config_parse(slice_of(json), &from, &p);
	if (!c)
		fail_msg("%s: %.*s", json, SLICE_FMT(buf_slice(&p.text)));
	problems_free(&p);
	return c;
}

static void
test_identity(void **state)
{
	(void)state;
	struct config *c = saved("pc-x", "{}"), *other = saved("pc-x", "{ }"), *inline_one = accept("{}");

	assert_string_equal(c->slug.p, "pc-x");
	assert_string_equal(c->version, "44136fa3");		/* of the SHA-256 of {} */
	assert_string_equal(inline_one->version, c->version);
	assert_true(strcmp(other->version, c->version) != 0);
	assert_null(inline_one->slug.p);
	assert_ptr_equal(config_get(c), c);
	config_put(c);
	assert_string_equal(c->slug.p, "pc-x");
	config_put(c);
	config_put(other);
	config_put(inline_one);
}

/* A child's seed is that of its place, or of its name; no two are the same. */
static void
test_seeds(void **state)
{
	(void)state;
	struct config *a = saved("s", "{" LB ",\"targets\":[{},{},{\"name\":\"n\"},{" LB ",\"targets\":[{},{}]},{\"name\":\"n\"}]}");
	struct config *b = saved("s", "{\"retry\":{\"attempts\":1}," LB ",\"targets\":[{\"weight\":5},{},{\"name\":\"m\"},{\"name\":\"n\"}]}");
	struct config *c = saved("t", "{" LB ",\"targets\":[{},{}]}");

	for (uint32_t i = 0; i < a->nodes_count; i++)
		for (uint32_t j = 0; j < i; j++)
			assert_true(a->nodes[i].seed != a->nodes[j].seed);
	assert_true(a->nodes[1].seed == b->nodes[1].seed && a->nodes[2].seed == b->nodes[2].seed);
	assert_true(a->nodes[3].seed == b->nodes[4].seed);	/* by its name */
	assert_true(a->nodes[3].seed != b->nodes[3].seed);
	assert_true(a->nodes[1].seed != c->nodes[1].seed);	/* of another config */
	config_put(a);
	config_put(b);
	config_put(c);
}

static void
test_keys_are_wiped(void **state)
{
	(void)state;
	struct config *c = accept("{\"targets\":[{\"api_key\":\"sk-secret-0\"},{},{\"api_key\":\"sk-secret-1\"}]}");
	const char *first = c->targets[0].api_key.p, *second = c->targets[2].api_key.p;

	assert_string_equal(first, "sk-secret-0");
	assert_string_equal(second, "sk-secret-1");
	config_put(c);
	/* The scratch's blocks are kept for the next one: they can still be looked at. */
	for (size_t i = 0; i < sizeof("sk-secret-0"); i++)
		assert_true(first[i] == '\0' && second[i] == '\0');
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

/* The page's longer examples. */
static void
test_documented_blocks(void **state)
{
	(void)state;
	char *page = read_text(WEIR_SOURCE_DIR "/docs/configs.md");
	int configs = 0;

	for (char *at = page; (at = strstr(at, "```json\n"));) {
		char *begin = at + 8, *end = strstr(begin, "\n```");

		assert_non_null(end);
		*end = '\0';
		/* The settings file is another document: of it, the configs. */
		char *c = strncmp(begin, "{\"strategy", 10) == 0 ? begin : strstr(begin, "\"config\": {");
		for (; c; c = strstr(c + 1, "\"config\": {"), configs++) {
			char *start = strchr(c, '{'), *stop = start, copy[2048];
			int open = 0;

			do {		/* no example has a brace in a string */
				open += *stop == '{' ? 1 : *stop == '}' ? -1 : 0;
				stop++;
			} while (open > 0);
			snprintf(copy, sizeof(copy), "%.*s", (int)(stop - start), start);
			config_put(accept(copy));
		}
		at = end + 1;
	}
	assert_int_equal(configs, 4);
	free(page);
}

static void
test_documentation(void **state)
{
	(void)state;
	char *page = read_text(WEIR_SOURCE_DIR "/docs/configs.md"), *fields = strstr(page, "\n## Fields\n");
	int now = 0, later = 0;

	assert_non_null(fields);
	for (char *rest = fields, *line; (line = strsep(&rest, "\n"));) {
		if (strncmp(line, "| `", 3) != 0)
			continue;
		char *at = line + 1;
		struct slice name = cell(&at), works = cell(&at), example = cell(&at);
		struct problems p;

		problems_init(&p);
		struct config *c = config_parse_text(example, &source, &p);
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
		config_put(c);
		problems_free(&p);
	}
	assert_true(now >= 29);
	assert_true(later >= 13);
	free(page);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_prefix),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_params),
		cmocka_unit_test(test_provider_and_model),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_inheritance),
		cmocka_unit_test(test_not_inherited),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_what_it_needs),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_keys_are_wiped),
		cmocka_unit_test(test_documented_blocks),
		cmocka_unit_test(test_documentation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
