/*
 * gateway/explain_route.c -- see explain_route.h.
 *
 * Nothing is sent and nothing is written. A request is made as a worker makes one,
 * and takes the worker's own way (steps_route.c) to its target, with the eyes of the
 * weir that runs: what is out there, and where a conversation is. If none runs it
 * looks at an arena in which nothing has happened yet.
 */
#include "gateway/explain_route.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/model_names.h"
#include "gateway/request.h"
#include "gateway/tool_arena.h"
#include "gateway/tool_text.h"
#include "store/catalog.h"

#define WHY_BYTES 512
#define TEXT_BYTES_MAX (1u << 20)
#define SETTINGS_FILE "/etc/weir/weir.json"	/* where the unit file has it */
#define READ_BYTES 65536
#define VALUE_BYTES_SHOWN 60

struct explainer {
	struct settings *settings;
	struct worker worker;
	struct arena arena;
	bool running;
	char folder[64];		/* of the arena that stands in for one; "": none was made */
	struct buf body;
	struct key nobody;		/* a key that forbids and adds nothing */
	struct request r;
	struct buf out;
};

/* ---- the request ---- */

static int
read_body(struct explainer *x, const char *name)
{
	int fd = strcmp(name, "-") == 0 ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	buf_init(&x->body, SETTINGS_BUNDLE_BYTES_MAX);
	while (fd >= 0 && buf_reserve(&x->body, READ_BYTES)) {
		n = read(fd, x->body.p + x->body.n, READ_BYTES);
		if (n <= 0 && !(n < 0 && errno == EINTR))
			break;
		x->body.n += n > 0 ? (size_t)n : 0;
	}
	if (n != 0)
		fprintf(stderr, "weir: explain: --body %s: %s\n", name, n < 0 ? strerror(errno) : "it is too large");
	if (fd > STDIN_FILENO)
		close(fd);
	return n == 0 ? ARGS_GO : 1;
}

static int
take_key(struct explainer *x, const struct explain_ask *ask)
{
	char why[WHY_BYTES] = "there is no such key";
	struct catalog *catalog;
	struct buf json;

	x->r.key = &x->nobody;
	if (!ask->key)
		return ARGS_GO;
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	catalog = catalog_open(ask->store.folder, false, why, sizeof(why));
	x->r.key = NULL;
	if (catalog && catalog_key_get(catalog, slice_of(ask->key), &json) == CATALOG_OK)
		x->r.key = key_compile(buf_slice(&json), NULL, why, sizeof(why));
	buf_free(&json);
	catalog_close(catalog);
	if (!x->r.key) {
		fprintf(stderr, "weir: explain: --key %s: %s (%s)\n", ask->key, why, ask->store.folder);
		return 1;
	}
	x->r.rec.key_id = x->r.key->id;
	return ARGS_GO;
}

static int
take_path(struct explainer *x, const char *path)
{
	struct slice unused;

	x->r.route = ROUTE_MESSAGES;
	if (path && (route_find(SLICE("POST"), slice_of(path), slice_of(x->settings->path_prefix), &x->r.route, &unused, &unused,
	    &unused) != ROUTE_FOUND || !route_rows[x->r.route].governed))
		return args_mistake("explain", "--path %s: POST to it is not routed; /v1/messages is", path);
	return ARGS_GO;
}

/* ---- the worker ---- */

static int
open_empty_arena(struct explainer *x)
{
	const struct arena_sizes least = { .workers = 1, .inflight = 1, .ring_bytes = 65536, .meters = 64 };
	static const char *const names[] = { "arena", "arena.lock" };
	char path[sizeof(x->folder) + 16], why[WHY_BYTES] = "no folder can be made in /tmp";
	enum arena_origin origin;
	bool ok;

	snprintf(x->folder, sizeof(x->folder), "/tmp/weir-explain-XXXXXX");
	if (!mkdtemp(x->folder))
		x->folder[0] = '\0';
	snprintf(path, sizeof(path), "%s/arena", x->folder);
	ok = x->folder[0] && arena_open(&x->arena, path, &least, &origin, why, sizeof(why)) == 0;
	for (size_t i = 0; x->folder[0] && i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", x->folder, names[i]);
		unlink(path);
	}
	if (x->folder[0])
		rmdir(x->folder);
	if (!ok)
		fprintf(stderr, "weir: explain: %s\n", why);
	return ok ? ARGS_GO : 1;
}

static int
open_worker(struct explainer *x, const char *run_folder)
{
	struct worker *w = &x->worker;
	char unused[WHY_BYTES];

	CHECK(uv_loop_init(&w->loop) == 0);
	x->running = tool_arena_open(&x->arena, run_folder, false, unused, sizeof(unused));
	if (!x->running && open_empty_arena(x) != ARGS_GO)
		return 1;
	w->arena = &x->arena;
	w->random[0] = (uint64_t)clock_mono_ns();
	w->random[1] = (uint64_t)clock_wall_ns();
	w->upstream = upstream_new(&w->loop);
	w->memo = metadata_memo_new();
	w->config_memo = config_memo_new();
	CHECK(w->upstream && w->memo && w->config_memo);
	w->plane = plane_new(w->upstream, x->settings, NULL, false);
	if (!w->plane)
		return 1;	/* the log has said why */
	health_watch_name(w->plane, &x->arena);
	return ARGS_GO;
}

static void
close_all(struct explainer *x)
{
	struct worker *w = &x->worker;

	endpoint_close(&x->r.own_endpoint);
	config_put(x->r.config_inline);
	metadata_memo_free(w->memo);
	config_memo_free(w->config_memo);
	if (x->r.key != &x->nobody)
		key_free(x->r.key);
	scratch_release(&x->r.mem);
	scratch_release(&x->r.body_mem);
	scratch_release(&x->r.target_mem);
	plane_put(w->plane);
	if (w->upstream) {
		upstream_free(w->upstream);
		uv_run(&w->loop, UV_RUN_DEFAULT);
		uv_loop_close(&w->loop);
	}
	if (w->arena)
		arena_close(w->arena);
	if (x->settings)
		settings_put(x->settings);
	buf_free(&x->body);
	buf_free(&x->out);
	free(x);
}

/* ---- in words ---- */

static void
add_text(struct buf *out, const char *before, struct slice text)
{
	buf_add_str(out, before);
	tool_words(out, text);
}

/* Lines of `text`, each under the one before, behind the first one's title. */
static void
add_lines(struct buf *out, const char *title, struct slice text)
{
	while (text.n > 0) {
		const char *end = memchr(text.p, '\n', text.n);
		size_t n = end ? (size_t)(end - text.p) : text.n;

		buf_printf(out, "%-10s", title);
		add_text(out, "", (struct slice){ text.p, n });
		buf_add_char(out, '\n');
		text.p += end ? n + 1 : n;
		text.n -= end ? n + 1 : n;
		title = "";
	}
}

static void
add_request(struct explainer *x)
{
	const struct request *r = &x->r;
	struct buf *out = &x->out;

	if (r->rec.config_version.n) {
		add_text(out, "config    ", r->rec.config);
		add_text(out, " of version ", r->rec.config_version);
		buf_add_char(out, '\n');
	} else if (r->config) {
		buf_add_str(out, "config    none\n");
	}
	if (r->key != &x->nobody) {
		add_text(out, "key       ", r->key->slug);
		add_text(out, " of workspace ", r->key->workspace);
		buf_add_char(out, '\n');
	}
	add_lines(out, "metadata", r->rec.metadata);
	if (r->model_requested.n)
		add_text(out, "model     ", r->model_requested);
	if (r->model_named.p != r->model_requested.p)
		add_text(out, ", an alias of ", r->model_named);
	buf_add_str(out, r->model_requested.n ? "\n" : "");
}

/* Every comparison of the conditionals on the way. */
static void
add_conditions(struct explainer *x)
{
	const struct config *c = x->r.config;
	uint32_t up = x->r.walk.target->node;

	for (uint32_t level = c->nodes[up].level; level > 0; level--) {
		uint32_t child = up;

		up = c->nodes[up].parent;
		const struct config_node *node = &c->nodes[up];
		bool held = false;
		for (uint32_t i = 0; i < node->conditions_count && !held; i++) {
			struct buf text;

			held = condition_holds(node->conditions[i].query, &x->r.conditions);
			add_text(&x->out, "", node->path);
			buf_printf(&x->out, ": conditions[%u] ", i);
			if (held)
				buf_printf(&x->out, "holds: %s\n", c->nodes[child].path.p + node->path.n + 1);
			else
				buf_add_str(&x->out, "does not hold\n");
			buf_init(&text, TEXT_BYTES_MAX);
			condition_describe(node->conditions[i].query, &x->r.conditions, &text);
			add_lines(&x->out, "", buf_slice(&text));
			buf_free(&text);
		}
	}
}

static void
add_params(struct explainer *x, const char *title, const struct config_param *list, uint32_t count, bool if_absent)
{
	for (uint32_t i = 0; i < count; i++) {
		struct slice raw = slice_of(list[i].raw);
		bool cut = raw.n > VALUE_BYTES_SHOWN;

		add_text(&x->out, title, slice_of(list[i].name));
		add_text(&x->out, " = ", (struct slice){ raw.p, cut ? VALUE_BYTES_SHOWN : raw.n });
		buf_add_str(&x->out, cut ? " ...\n" : if_absent && body_find(x->r.asked, list[i].name) ? ", but the body has its own\n" : "\n");
	}
}

static void
add_cache(struct explainer *x, const struct config_target *t)
{
	char age[TOOL_TIME_BYTES];

	if (t->cache.mode == CONFIG_CACHE_OFF)
		return;
	int64_t age_s = t->cache.max_age_s ? t->cache.max_age_s : CONFIG_CACHE_AGE_S;
	buf_printf(&x->out, "cache     simple, an answer is kept for %s\n", tool_duration(age_s * NS_PER_S, age));
}

/* What the target does with the request. */
static void
add_target(struct explainer *x)
{
	const struct config_target *t = x->r.at.target;
	const struct setting_provider *p = x->r.at.provider;
	struct buf *out = &x->out;
	char time[TOOL_TIME_BYTES];

	add_text(out, "target    ", x->r.config->nodes[t->node].path);
	buf_printf(out, ": provider %s (%s)", p->slug, p->type);
	add_text(out, ", model ", x->r.at.model);
	buf_add_str(out, x->r.at.beta_1m ? " with the long context\n" : "\n");
	if (t->use_custom_host)
		buf_printf(out, "host      custom_host%s\n", t->api_key.n ? ", with the config's api_key" : "");
	add_params(x, "params    default_params: ", t->default_params, t->default_params_count, true);
	add_params(x, "params    override_params: ", t->override_params, t->override_params_count, false);
	if (t->drop_params_count)
		buf_printf(out, "params    drop_params: %u path%s\n", t->drop_params_count, t->drop_params_count > 1 ? "s" : "");
	add_cache(x, t);
	buf_printf(out, "attempts  %u, each with %s to its first byte", 1 + t->retry.attempts,
	    tool_duration(x->r.at.first_byte_ms * NS_PER_MS, time));
	buf_printf(out, "; %s for all\n", tool_duration(x->settings->routing.total_ms * NS_PER_MS, time));
}

/* ---- the walk ---- */

static void
list_after(struct explainer *x, int status, struct buf *out)
{
	const struct route_facts facts = route_facts_of(&x->r);
	struct route_walk ahead = x->r.walk;

	for (uint32_t n = 0; n < x->r.config->targets_count && route_next(&ahead, &facts, status) == ROUTE_TARGET; n++)
		add_text(out, n ? ", " : "", x->r.config->nodes[ahead.target->node].path);
	if (out->n == 0)
		buf_add_str(out, "nothing, that is the answer");
}

/* What a fallback would do: the targets behind this one, one after the other. */
static void
add_next(struct explainer *x)
{
	static const int statuses[] = { 400, 401, 429, 500, 529 };
	struct buf last, now;

	if (!x->r.config->several_targets)
		return;
	buf_init(&last, TEXT_BYTES_MAX);
	buf_init(&now, TEXT_BYTES_MAX);
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		buf_clear(&now);
		list_after(x, statuses[i], &now);
		if (i > 0 && slice_eq(buf_slice(&now), buf_slice(&last))) {
			buf_printf(&x->out, ", %d", statuses[i]);
			continue;
		}
		if (i > 0)
			buf_printf(&x->out, ": %.*s\n", SLICE_FMT(buf_slice(&last)));
		buf_printf(&x->out, "%-10safter %d", i ? "" : "then", statuses[i]);
		buf_clear(&last);
		buf_add_slice(&last, buf_slice(&now));
	}
	buf_printf(&x->out, ": %.*s\n", SLICE_FMT(buf_slice(&last)));
	buf_free(&last);
	buf_free(&now);
}

/* Targets that no request gets now. */
static void
add_out(struct explainer *x)
{
	const struct config *c = x->r.config;

	for (uint32_t i = 0; c->several_targets && i < c->targets_count; i++) {
		struct buf why;

		buf_init(&why, TEXT_BYTES_MAX);
		health_reason(&x->r, &c->targets[i], &why);
		if (why.n > 0) {
			add_text(&x->out, "out       ", c->nodes[c->targets[i].node].path);
			add_text(&x->out, ": ", buf_slice(&why));
			buf_add_char(&x->out, '\n');
		}
		buf_free(&why);
	}
	if (!x->running)
		buf_add_str(&x->out, "note      no weir runs here: all targets count as healthy, and no conversation has begun\n");
}

static void
add_way(struct explainer *x)
{
	const struct route_facts facts = route_facts_of(&x->r);
	struct buf way;

	if (x->r.config->nodes_count == 1)
		return;
	buf_init(&way, TEXT_BYTES_MAX);
	route_describe(&x->r.walk, &facts, &way);
	add_lines(&x->out, "way", buf_slice(&way));
	buf_free(&way);
	add_conditions(x);
}

static void
add_refusal(struct explainer *x)
{
	const struct record *rec = &x->r.rec;

	buf_printf(&x->out, "refused   %u", rec->fixed.status);
	add_text(&x->out, ": ", rec->error_message);
	buf_add_char(&x->out, '\n');
}

static void
add_passed(struct explainer *x)
{
	add_text(&x->out, "passed    ", x->r.rec.target);
	add_text(&x->out, ": provider ", x->r.rec.provider);
	buf_add_str(&x->out, " does not offer the model\n");
}

/* As walk_on() of steps_route.c, but for what takes something: probes, kept answers,
 * limits. */
static void
walk(struct explainer *x)
{
	struct request *r = &x->r;
	enum route_step step = route_first(r);
	enum step entered = STEP_OUT;

	for (uint32_t turns = 0; turns <= r->config->targets_count && step == ROUTE_TARGET; turns++) {
		const struct route_facts facts = route_facts_of(r);

		entered = target_choose(r, r->walk.target);
		if (entered == STEP_NEXT)
			entered = target_make(r);
		if (entered == STEP_NEXT || entered == STEP_STOP) {
			add_way(x);
			break;
		}
		if (entered == STEP_PASS)
			add_passed(x);
		step = entered == STEP_PASS ? route_next(&r->walk, &facts, r->passed_status) : route_again(&r->walk, &facts);
	}
	if (step == ROUTE_TARGET && entered == STEP_NEXT) {
		add_target(x);
		add_next(x);
		add_out(x);
		return;
	}
	add_out(x);
	if (step != ROUTE_TARGET || entered != STEP_STOP)
		route_refuse(r, step);
	add_refusal(x);
}

/* ---- the command ---- */

static int
prepare(struct explainer *x, struct explain_ask *ask)
{
	struct request *r = &x->r;
	int status = ask->body ? read_body(x, ask->body) : ARGS_GO;

	scratch_init(&r->mem, SETTINGS_BUNDLE_BYTES_MAX);
	scratch_init(&r->body_mem, SETTINGS_BUNDLE_BYTES_MAX);
	scratch_init(&r->target_mem, SETTINGS_BUNDLE_BYTES_MAX);
	r->worker = &x->worker;
	r->start_mono_ns = clock_mono_ns();
	r->start_wall_ns = clock_wall_ns();
	r->is_explained = true;
	r->known.config = slice_of(ask->config);
	r->known.metadata = slice_of(ask->metadata);
	r->known.session_id = slice_of(ask->session);
	if (!ask->store.config && access(SETTINGS_FILE, R_OK) == 0)
		ask->store.config = SETTINGS_FILE;
	if (status == ARGS_GO)
		status = args_run_find("explain", &ask->store, &x->settings);
	if (status == ARGS_GO && !x->settings)
		status = args_mistake("explain", "--settings: the file is expected that weir serve --config reads (there is no " SETTINGS_FILE ")");
	if (status == ARGS_GO)
		status = take_key(x, ask);
	if (status == ARGS_GO)
		status = take_path(x, ask->path);
	r->body = ask->body ? x->body.p : (char *)(uintptr_t)"{}";
	r->body_n = ask->body ? x->body.n : 2;
	return status == ARGS_GO ? open_worker(x, ask->store.run_folder) : status;
}

int
explain_route(struct explain_ask *ask)
{
	struct explainer *x = calloc(1, sizeof(*x));
	int status;

	CHECK(x);
	x->nobody.enabled = true;
	x->r.key = &x->nobody;
	buf_init(&x->out, TEXT_BYTES_MAX);
	status = prepare(x, ask);
	if (status == ARGS_GO) {
		x->r.plane = x->worker.plane;
		enum step resolved = step_resolve(&x->r);
		add_request(x);
		if (resolved == STEP_NEXT)
			walk(x);
		else
			add_refusal(x);
		signal(SIGPIPE, SIG_IGN);
		fwrite(x->out.p, 1, x->out.n, stdout);	/* tool_printed() looks whether it has arrived */
		status = tool_printed("explain");
	}
	close_all(x);
	return status;
}
