/*
 * policy/config.c -- see config.h: made, held, freed, and what applies without one.
 *
 * A document is gone through twice. config_fields.c finds what is wrong with
 * values and objects by themselves; then the tree is built, which finds what is
 * wrong between them. Building takes from a document that has mistakes what is
 * well formed, so that one look shows them all.
 */
#include "policy/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition.h"
#include "policy/config_parts.h"
#include "policy/digest.h"
#include "policy/params.h"
#include "policy/session.h"

bool
config_slug_valid(struct slice slug)
{
	if (slug.n == 0 || slug.n > CONFIG_SLUG_BYTES_MAX)
		return false;
	for (size_t i = 0; i < slug.n; i++) {
		char c = slug.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

bool
config_split_model(struct slice model, struct slice *provider_slug, struct slice *bare)
{
	*provider_slug = SLICE_NONE;
	*bare = model;
	if (model.n == 0 || model.p[0] != '@' || slice_starts(model, SLICE("@cf/")) ||
	    slice_starts(model, SLICE("@hf/")))
		return false;
	const char *slash = memchr(model.p, '/', model.n);
	if (!slash)
		return false;

	struct slice slug = { model.p + 1, (size_t)(slash - model.p) - 1 };
	struct slice rest = { slash + 1, model.n - slug.n - 2 };
	if (!config_slug_valid(slug) || rest.n == 0)
		return false;
	*provider_slug = slug;
	*bare = rest;
	return true;
}

uint32_t
config_cache_age(int64_t s)
{
	return s < CONFIG_CACHE_AGE_MIN_S || s > CONFIG_CACHE_AGE_MAX_S ? CONFIG_CACHE_AGE_S : (uint32_t)s;
}

/* ---- none ---- */

const struct config_target config_target_unset = {
	.strict_open_ai_compliance = true, .retry = { .on_status_codes = CONFIG_RETRY_STATUSES },
};

const struct config *
config_none(void)
{
	static const struct config_node root = {
		.mode = CONFIG_LEAF, .path = { "config", 6 }, .weight = 1, .parent = CONFIG_NOWHERE,
		.otherwise = CONFIG_NOWHERE, .target = &config_target_unset,
	};
	static const struct config none = {
		.refs = 1, .nodes = &root, .nodes_count = 1, .targets = &config_target_unset, .targets_count = 1,
	};

	return &none;
}

/* ---- making one ---- */

static struct config *
config_new(const struct config_source *from, struct slice json)
{
	struct config *c = calloc(1, sizeof(*c));
	uint8_t digest[DIGEST_BYTES];

	CHECK(c);		/* bounded by CONFIG_BYTES_MAX, or made at start and reload */
	c->refs = 1;
	scratch_init(&c->mem, CONFIG_MEMORY_BYTES_MAX);
	if (from->slug.p) {
		c->slug = (struct slice){ scratch_dup(&c->mem, from->slug), from->slug.n };
		CHECK(c->slug.p);
	}
	digest_sha256(json, digest);
	for (unsigned i = 0; i < CONFIG_VERSION_DIGITS / 2; i++)
		snprintf(c->version + 2 * i, 3, "%02x", digest[i]);
	return c;
}

struct config *
config_parse(struct slice json, const struct config_source *from, struct problems *p)
{
	uint32_t before = p->count, levels;

	if (json.n > CONFIG_BYTES_MAX) {
		problem_add(p, from->path, "a config has at most %d bytes", CONFIG_BYTES_MAX);
		return NULL;
	}
	levels = config_fields_check(json, from->path, p);
	if (levels == 0)
		return NULL;
	struct build b = { .config = config_new(from, json), .from = from, .problems = p };
	buf_init(&b.where, 4096);
	b.levels = calloc(levels, sizeof(*b.levels));
	CHECK(b.levels);
	b.nodes = build_alloc(&b, levels * sizeof(*b.nodes));
	b.targets = build_alloc(&b, levels * sizeof(*b.targets));
	b.nodes_max = levels;
	config_build_tree(&b, json);
	free(b.levels);
	buf_free(&b.where);
	if (p->count == before)
		return b.config;
	config_put(b.config);
	return NULL;
}

struct config *
config_parse_text(struct slice json, const struct config_source *from, struct problems *p)
{
	struct json_error why;

	if (!json_check(json, &why)) {
		problem_add(p, from->path, "not valid JSON at byte %zu: %s", why.offset + 1, why.what);
		return NULL;
	}
	while (json.n > 0 && strchr(" \t\r\n", json.p[0]))
		json = (struct slice){ json.p + 1, json.n - 1 };
	return config_parse(json, from, p);
}

/* ---- holding one ---- */

struct config *
config_get(struct config *c)
{
	CHECK(c->refs > 0);
	c->refs++;
	return c;
}

void
config_put(struct config *c)
{
	if (!c)
		return;
	CHECK(c->refs > 0);
	if (--c->refs > 0)
		return;
	for (const struct config_owned *o = c->owned; o; o = o->next) {
		condition_free(o->condition);
		params_path_free(o->path);
		session_fields_free(o->fields);
	}
	for (uint32_t i = 0; i < c->targets_count; i++)
		if (c->targets[i].api_key.p)
			explicit_bzero((char *)(uintptr_t)c->targets[i].api_key.p, c->targets[i].api_key.n);
	scratch_reset(&c->mem);
	free(c);
}

/* ---- what the parts have in common ---- */

void *
build_alloc(struct build *b, size_t n)
{
	void *p = scratch_alloc(&b->config->mem, n);

	CHECK(p);		/* CONFIG_MEMORY_BYTES_MAX is out of reach */
	memset(p, 0, n);
	return p;
}

struct slice
build_text(struct build *b, struct slice raw)
{
	if (!raw.p)
		return SLICE_NONE;
	/* Without its quotes and with a NUL it is shorter than `raw`. */
	char *text = build_alloc(b, raw.n);
	size_t n = json_unescape(raw, text, raw.n);
	CHECK(n < raw.n);
	return (struct slice){ text, n };
}

void
build_lower(struct slice text)
{
	char *at = (char *)(uintptr_t)text.p;

	for (size_t i = 0; i < text.n; i++)
		if (at[i] >= 'A' && at[i] <= 'Z')
			at[i] = (char)(at[i] - 'A' + 'a');
}

void
build_own(struct build *b, struct config_owned what)
{
	struct config_owned *o = build_alloc(b, sizeof(*o));

	*o = what;
	o->next = b->config->owned;
	b->config->owned = o;
}

const char *
build_path(struct build *b, uint32_t node, const char *field)
{
	const char *below = b->nodes[node].path.p + sizeof("config") - 1;	/* ".targets[0]" */

	buf_clear(&b->where);
	buf_add_str(&b->where, b->from->path);
	if (*below)
		buf_add_str(&b->where, below + (b->where.n == 0));
	if (*field)
		buf_printf(&b->where, "%s%s", b->where.n > 0 ? "." : "", field);
	buf_add_char(&b->where, '\0');
	return b->where.p;
}

void
build_problem(struct build *b, uint32_t node, const char *field, const char *fmt, ...)
{
	char message[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	problem_add(b->problems, build_path(b, node, field), "%s", message);
}

void
build_statuses(struct status_set *set, struct slice array)
{
	struct slice none, value;
	struct json_iter it;
	int64_t status;

	*set = (struct status_set){ { 0 } };
	if (!json_iter_array(&it, array))
		return;
	while (json_next(&it, &none, &value))
		if (json_to_i64(value, &status) && status >= STATUS_SET_FIRST && status <= STATUS_SET_LAST)
			set->bits[STATUS_WORD(status)] |= STATUS_BIT(status);
}
