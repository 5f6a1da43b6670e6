/*
 * gateway/settings.c -- from a bundle to struct settings, without a look at
 * files or the environment.
 *
 * A bundle is {"host": {...}, "file": {...}, "command_line": {...}}: three
 * documents of the same shape, each laid over the one before (a list replaces
 * the list). Under them lie the defaults of settings_fields.c. One walk reads
 * them all: it keeps a stack of the objects and arrays that it is in, finds
 * the row of each value, and stores the value where the row says. What cannot
 * be said of one value alone is settings_check.c's.
 */
#include "gateway/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"

#define FRAMES_MAX 4	/* the document, a list, its element, and one to spare */

struct frame {
	struct json_iter it;
	const struct setting_field *row;	/* of the list or section; NULL: the document */
	void *base;				/* what the offsets of its members count from */
	bool array;
	uint32_t index;				/* of the next element */
	size_t path_n, generic_n;
	struct setting_rows seen;		/* rows that were given */
};

struct walk {
	struct settings_draft *draft;
	struct problems *problems;
	struct buf path;	/* "providers[2].slug", for people */
	struct buf generic;	/* "providers[].slug", for the table */
	uint32_t depth;
	struct frame frames[FRAMES_MAX];
};

static const char *
path_of(const struct walk *w)
{
	return w->path.p ? w->path.p : "";
}

static void
path_cut(struct buf *path, size_t n)
{
	if (!path->p)
		return;
	path->n = n;
	path->p[n] = '\0';
}

static void *
allocate(void *old, size_t n)
{
	void *p = realloc(old, n);

	CHECK(p);	/* settings are read at start and reload; there is no going on without */
	return p;
}

static const char *
type_name(struct slice value)
{
	switch (value.p[0]) {
	case '{': return "an object";
	case '[': return "an array";
	case '"': return "a string";
	case 't': return "true";
	case 'f': return "false";
	case 'n': return "null";
	default: return "a number";
	}
}

/* Is it of that type? `first` lists the bytes that such a value begins with. */
static bool
type_check(struct walk *w, struct slice value, const char *first, const char *wanted)
{
	if (strchr(first, value.p[0]))
		return true;
	problem_add(w->problems, path_of(w), "must be %s, not %s", wanted, type_name(value));
	return false;
}

/* ---- single values ---- */

/* A copy of a string value; NULL and a problem if it cannot be one. */
static char *
string_take(struct walk *w, struct slice value, int64_t min, int64_t max, bool any_byte)
{
	if (!type_check(w, value, "\"", "a string"))
		return NULL;
	char *text = allocate(NULL, value.n + 1);
	size_t n = json_unescape(value, text, value.n + 1);
	if (n > value.n) {
		problem_add(w->problems, path_of(w), "is not valid text");
		goto fail;
	}
	text[n] = '\0';
	if (max > 0 && ((int64_t)n < min || (int64_t)n > max)) {
		problem_add(w->problems, path_of(w), n == 0 ? "must not be empty" :
		    "must have %" PRId64 " to %" PRId64 " bytes, not %zu", min, max, n);
		goto fail;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c != 0 && (any_byte || (c >= 0x20 && c != 0x7f)))
			continue;
		problem_add(w->problems, path_of(w), "must not contain control characters");
		goto fail;
	}
	return text;
fail:
	free(text);
	return NULL;
}

/* The number of `text` in "a|b|c", or -1. */
static int
choice_index(const char *choices, const char *text)
{
	size_t n = strlen(text);
	int index = 0;

	for (const char *at = choices;; index++) {
		size_t length = strcspn(at, "|");

		if (length == n && memcmp(at, text, n) == 0)
			return index;
		if (at[length] == '\0')
			return -1;
		at += length + 1;
	}
}

static void
string_store(struct walk *w, const struct setting_field *f, char **at, struct slice value)
{
	char *text = string_take(w, value, f->min, f->max, f->kind == SETTING_FILE);

	if (!text)
		return;
	if (f->kind == SETTING_SLUG && !config_slug_valid(slice_of(text)))
		problem_add(w->problems, path_of(w), "must be 1 to %d of A-Z a-z 0-9 . _ -", CONFIG_SLUG_BYTES_MAX);
	if (f->kind == SETTING_DIR && text[0] != '/')
		problem_add(w->problems, path_of(w), "must be an absolute path");
	if (f->choices && choice_index(f->choices, text) < 0)
		problem_add(w->problems, path_of(w), "must be one of: %s", f->choices);
	free(*at);
	*at = text;
}

static void
choice_store(struct walk *w, const struct setting_field *f, unsigned *at, struct slice value)
{
	char *text = string_take(w, value, 0, 0, false);

	if (!text)
		return;
	int index = choice_index(f->choices, text);
	if (index < 0)
		problem_add(w->problems, path_of(w), "must be one of: %s", f->choices);
	else
		*at = (unsigned)index;
	free(text);
}

static void
number_store(struct walk *w, const struct setting_field *f, void *at, struct slice value)
{
	int64_t n;

	if (!type_check(w, value, "-0123456789", "a number"))
		return;
	if (json_to_i64(value, &n) && n == 0 && f->zero_is_default)
		return;
	if (!json_to_i64(value, &n) || n < f->min || n > f->max) {
		problem_add(w->problems, path_of(w), "must be a whole number from %" PRId64 " to %" PRId64,
		    f->min, f->max);
		return;
	}
	if (f->kind == SETTING_POWER2) {
		int64_t power = 1;

		while (power < n)
			power *= 2;
		n = power;
	}
	if (f->kind == SETTING_U64)
		*(uint64_t *)at = (uint64_t)n;
	else
		*(uint32_t *)at = (uint32_t)n;
}

static void
address_store(struct walk *w, struct setting_listener *at, struct slice value)
{
	char *text = string_take(w, value, 0, 0, false);
	struct setting_listener parsed = { .host = NULL };

	if (!text)
		return;
	if (settings_parse_address(slice_of(text), &parsed)) {
		free(at->host);
		at->host = parsed.host;
		at->port = parsed.port;
	} else {
		problem_add(w->problems, path_of(w), "must be a numeric address and a port, such as "
		    "\"127.0.0.1:8080\", \"[::1]:8080\" or, for all addresses, \"0.0.0.0:8080\"; not \"%s\"",
		    problem_name(slice_of(text)).text);
	}
	free(text);
}

static void
strings_free(char **list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

/* All lists of strings are a pointer that is followed by its count. */
struct string_list { char **list; uint32_t count; };
_Static_assert(offsetof(struct setting_provider, models_count) ==
    offsetof(struct setting_provider, models) + offsetof(struct string_list, count), "struct string_list");
_Static_assert(offsetof(struct setting_workspace, allowed_models_count) ==
    offsetof(struct setting_workspace, allowed_models) + offsetof(struct string_list, count), "struct string_list");
_Static_assert(offsetof(struct settings, metadata.required_count) ==
    offsetof(struct settings, metadata.required) + offsetof(struct string_list, count), "struct string_list");
_Static_assert(offsetof(struct host_trust, count) == offsetof(struct string_list, count), "struct string_list");

static void
strings_store(struct walk *w, const struct setting_field *f, struct string_list *at, struct slice value)
{
	struct json_iter it;
	struct slice name, element;
	size_t here = w->path.n;

	if (!type_check(w, value, "[", "an array of strings") || !json_iter_array(&it, value))
		return;
	strings_free(at->list, at->count);
	*at = (struct string_list){ NULL, 0 };
	for (uint32_t i = 0; json_next(&it, &name, &element); i++) {
		if (i == SETTINGS_STRINGS_MAX) {
			problem_add(w->problems, path_of(w), "more than %d entries", SETTINGS_STRINGS_MAX);
			return;
		}
		buf_printf(&w->path, "[%u]", i);
		char *text = json_is_null(element) ? NULL : string_take(w, element, f->min, f->max, false);
		path_cut(&w->path, here);
		if (!text)
			continue;
		at->list = allocate(at->list, (at->count + 1) * sizeof(*at->list));
		at->list[at->count++] = text;
	}
}

static void
raw_store(struct walk *w, const struct setting_field *f, struct slice *at, struct slice value)
{
	bool object = f->kind == SETTING_RAW_OBJECT, limits = f->kind == SETTING_RAW_LIMITS;

	if (type_check(w, value, object ? "{" : limits ? "[{" : "[",
	    object ? "an object" : limits ? "an array of limits, or one" : "an array"))
		*at = value;
}

/* ---- lists ---- */

static void
provider_free(struct setting_provider *v)
{
	if (v->api_key)
		explicit_bzero(v->api_key, strlen(v->api_key));
	free(v->slug);
	free(v->type);
	free(v->base_url);
	free(v->host);
	free(v->path_prefix);
	free(v->api_key);
	free(v->ca_pem);
	free(v->account);
	strings_free(v->models, v->models_count);
	free(v->limits.limit);
	for (uint32_t i = 0; i < v->model_limits_count; i++) {
		free(v->model_limits[i].model);
		free(v->model_limits[i].limits.limit);
	}
	free(v->model_limits);
}

static void
draft_configs_free(struct settings_draft *d)
{
	for (uint32_t i = 0; i < d->configs_count; i++)
		free(d->configs[i].slug);
	free(d->configs);
	d->configs = NULL;
	d->configs_count = 0;
}

static void
draft_providers_free(struct settings_draft *d)
{
	for (uint32_t i = 0; i < d->providers_count; i++)
		provider_free(&d->providers[i].provider);
	free(d->providers);
	d->providers = NULL;
	d->providers_count = 0;
}

static void
workspace_free(struct setting_workspace *w)
{
	free(w->slug);
	free(w->config);
	strings_free(w->allowed_models, w->allowed_models_count);
	free(w->limits.limit);
}

static void
models_free(struct settings *s)
{
	for (uint32_t i = 0; i < s->models_count; i++) {
		free(s->models[i].id);
		free(s->models[i].model);
		free(s->models[i].display_name);
		free(s->models[i].family);
	}
	free(s->models);
	s->models = NULL;
	s->models_count = 0;
}

/* What settings_check_limits() has taken is not here any more. */
static void
draft_workspaces_free(struct settings_draft *d)
{
	for (uint32_t i = 0; i < d->workspaces_count; i++)
		workspace_free(&d->workspaces[i].workspace);
	free(d->workspaces);
	d->workspaces = NULL;
	d->workspaces_count = 0;
}

static void
listeners_free(struct settings *s)
{
	for (uint32_t i = 0; i < s->listeners_count; i++)
		free(s->listeners[i].host);
	free(s->listeners);
	s->listeners = NULL;
	s->listeners_count = 0;
}

/* A later document's list takes the place of an earlier one's. */
static void
list_reset(struct settings_draft *d, const struct setting_field *row)
{
	if (row->kind == SETTING_LISTEN)
		listeners_free(&d->s);
	else if (strcmp(row->path, "providers") == 0)
		draft_providers_free(d);
	else if (strcmp(row->path, "workspaces") == 0)
		draft_workspaces_free(d);
	else if (strcmp(row->path, "models") == 0)
		models_free(&d->s);
	else
		draft_configs_free(d);
}

static void *
append(void **list, uint32_t *count, size_t size)
{
	*list = allocate(*list, (*count + 1) * size);
	void *element = (char *)*list + *count * size;
	memset(element, 0, size);
	(*count)++;
	return element;
}

static void *
list_append(struct settings_draft *d, const struct setting_field *row)
{
	if (row->kind == SETTING_LISTEN)
		return append((void **)&d->s.listeners, &d->s.listeners_count, sizeof(*d->s.listeners));
	if (strcmp(row->path, "providers") == 0)
		return append((void **)&d->providers, &d->providers_count, sizeof(*d->providers));
	if (strcmp(row->path, "workspaces") == 0)
		return append((void **)&d->workspaces, &d->workspaces_count, sizeof(*d->workspaces));
	if (strcmp(row->path, "models") == 0)
		return append((void **)&d->s.models, &d->s.models_count, sizeof(*d->s.models));
	CHECK(strcmp(row->path, "configs") == 0);
	return append((void **)&d->configs, &d->configs_count, sizeof(*d->configs));
}

/* ---- the walk ---- */

static void
push(struct walk *w, const struct setting_field *row, void *base, struct slice value, bool array)
{
	struct frame frame = {
		.row = row, .base = base, .array = array, .path_n = w->path.n, .generic_n = w->generic.n,
	};
	bool opened = array ? json_iter_array(&frame.it, value) : json_iter_object(&frame.it, value);

	if (!opened) {
		type_check(w, value, "", array ? "an array" : "an object");
		return;
	}
	CHECK(w->depth < FRAMES_MAX);	/* by the table: lists are not within lists */
	w->frames[w->depth++] = frame;
}

static void
value_store(struct walk *w, const struct setting_field *f, void *base, struct slice value)
{
	void *at = (char *)base + f->offset;

	switch (f->kind) {
	case SETTING_SECTION:
		push(w, f, base, value, false);
		break;
	case SETTING_LIST:
	case SETTING_LISTEN:
		if (value.p[0] == '[')
			list_reset(w->draft, f);
		push(w, f, NULL, value, true);
		break;
	case SETTING_STRING:
	case SETTING_SLUG:
	case SETTING_DIR:
	case SETTING_FILE:
	case SETTING_SECRET:
		string_store(w, f, at, value);
		break;
	case SETTING_STRINGS:
		strings_store(w, f, at, value);
		break;
	case SETTING_CHOICE:
		choice_store(w, f, at, value);
		break;
	case SETTING_BOOL:
		if (type_check(w, value, "tf", "true or false"))
			*(bool *)at = value.p[0] == 't';
		break;
	case SETTING_U32:
	case SETTING_U64:
	case SETTING_POWER2:
		number_store(w, f, at, value);
		break;
	case SETTING_ADDRESS:
		address_store(w, at, value);
		break;
	case SETTING_RAW_OBJECT:
	case SETTING_RAW_ARRAY:
	case SETTING_RAW_LIMITS:
		raw_store(w, f, at, value);
		break;
	}
}

/* Defaults of the scalar members of one object. */
static void
defaults_store(struct walk *w, struct slice generic_parent, void *base)
{
	for (size_t i = 0; i < setting_fields_count; i++) {
		const struct setting_field *f = &setting_fields[i];

		if (f->fallback && f->kind != SETTING_LISTEN && setting_field_below(f, generic_parent))
			value_store(w, f, base, slice_of(f->fallback));
	}
}

static void
element_take(struct walk *w, struct frame *list, struct slice value)
{
	const struct setting_field *row = list->row;

	if (list->index == (uint32_t)row->max)
		problem_add(w->problems, path_of(w), "more than %" PRId64 " entries", row->max);
	buf_printf(&w->path, "[%u]", list->index++);
	buf_printf(&w->generic, "[]");	/* which leaves room for path_cut()'s NUL */
	if (list->index > (uint32_t)row->max || json_is_null(value))
		return;
	if (row->kind == SETTING_LISTEN && value.p[0] == '"') {
		address_store(w, list_append(w->draft, row), value);
	} else if (value.p[0] == '{') {
		void *element = list_append(w->draft, row);

		defaults_store(w, buf_slice(&w->generic), element);
		push(w, row, element, value, false);
	} else {
		type_check(w, value, "", row->kind == SETTING_LISTEN ? "a string or an object" : "an object");
	}
}

static void
unknown_field(struct walk *w, struct slice generic_parent, struct slice leaf)
{
	struct problem_guess guess = { .wanted = leaf };

	for (size_t i = 0; i < setting_fields_count; i++)
		if (setting_field_below(&setting_fields[i], generic_parent))
			problem_guess_try(&guess, setting_field_leaf(&setting_fields[i]));
	const char *best = problem_guess_best(&guess);
	if (best)
		problem_add(w->problems, path_of(w), "unknown field; did you mean \"%s\"?", best);
	else
		problem_add(w->problems, path_of(w), "unknown field");
}

static void
member_take(struct walk *w, struct frame *object, struct slice raw_name, struct slice value)
{
	struct slice parent = { w->generic.p ? w->generic.p : "", object->generic_n };
	struct slice leaf = { raw_name.p + 1, raw_name.n - 2 };	/* names of ours need no escapes */
	const struct setting_field *row = NULL;

	for (size_t i = 0; i < setting_fields_count && !row; i++)
		if (setting_field_below(&setting_fields[i], parent) &&
		    slice_eq(slice_of(setting_field_leaf(&setting_fields[i])), leaf))
			row = &setting_fields[i];
	buf_printf(&w->path, "%s%s", object->row ? "." : "", leaf.n > 0 ? problem_name(leaf).text : "\"\"");
	if (!row) {
		unknown_field(w, parent, leaf);
		return;
	}
	buf_printf(&w->generic, "%s%s", object->generic_n > 0 ? "." : "", setting_field_leaf(row));

	if (setting_rows_has(&object->seen, row))
		problem_add(w->problems, path_of(w), "given twice");
	setting_rows_add(&object->seen, row);
	if (json_is_null(value))
		setting_rows_add(&w->draft->unresolved, row);
	else
		value_store(w, row, object->base, value);
}

static void
object_end(struct walk *w, const struct frame *object)
{
	struct slice parent = { w->generic.p ? w->generic.p : "", object->generic_n };

	for (size_t i = 0; i < setting_fields_count; i++) {
		const struct setting_field *f = &setting_fields[i];

		if (!f->required || setting_rows_has(&object->seen, f) || !setting_field_below(f, parent))
			continue;
		problem_add(w->problems, path_of(w), "needs \"%s\"", setting_field_leaf(f));
	}
}

static void
walk_step(struct walk *w)
{
	struct frame *frame = &w->frames[w->depth - 1];
	struct slice name, value;

	path_cut(&w->path, frame->path_n);
	path_cut(&w->generic, frame->generic_n);
	if (!json_next(&frame->it, &name, &value)) {
		if (!frame->array)
			object_end(w, frame);
		w->depth--;
	} else if (frame->array) {
		element_take(w, frame, value);
	} else {
		member_take(w, frame, name, value);
	}
}

static void
walk_document(struct walk *w, struct slice document, const char *where)
{
	buf_clear(&w->path);
	buf_clear(&w->generic);
	buf_printf(&w->path, "%s", where);
	push(w, NULL, w->draft, document, false);
	while (w->depth > 0)
		walk_step(w);	/* bounded by the document's length */
}

static void
walk_bundle(struct walk *w, struct slice bundle)
{
	static const char *const layers[] = { "host", "file", "command_line" };
	const struct setting_field *listen = setting_field_find(SLICE("listen"));
	struct slice document;

	/* Sections have no defaults of their own: their members do. */
	for (size_t i = 0; i < setting_fields_count; i++)
		if (setting_fields[i].kind == SETTING_SECTION)
			defaults_store(w, slice_of(setting_fields[i].path), w->draft);
	defaults_store(w, SLICE(""), w->draft);
	buf_printf(&w->generic, "%s", listen->path);
	value_store(w, listen, w->draft, slice_of(listen->fallback));
	while (w->depth > 0)
		walk_step(w);
	for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
		if (!json_get(bundle, layers[i], &document))
			continue;
		walk_document(w, document, i == 2 ? "command line: " : "");
	}
}

/* ---- settings as a whole ---- */

static void
settings_free_members(struct settings *s)
{
	if (s->tls_key_pem)
		explicit_bzero(s->tls_key_pem, strlen(s->tls_key_pem));
	listeners_free(s);
	for (uint32_t i = 0; i < s->providers_count; i++)
		provider_free(&s->providers[i]);
	free(s->providers);
	for (uint32_t i = 0; i < s->workspaces_count; i++)
		workspace_free(&s->workspaces[i]);
	free(s->workspaces);
	models_free(s);
	for (uint32_t i = 0; i < s->policies_count; i++)
		free(s->policies[i]);
	free(s->policies);
	for (uint32_t i = 0; i < s->configs_count; i++)
		config_put(s->configs[i]);
	free(s->configs);
	strings_free(s->metadata.required, s->metadata.required_count);
	strings_free(s->custom_hosts.hosts, s->custom_hosts.count);
	price_book_free(s->prices);
	free(s->admin.host);
	free(s->tls_cert_pem);
	free(s->tls_key_pem);
	free(s->data_dir);
	free(s->run_dir);
	free(s->user);
	free(s->path_prefix);
	free(s->budget_text);
	free(s->default_provider);
}

struct settings *
settings_compile(struct slice bundle, uint64_t version, struct problems *p)
{
	struct settings_draft draft = { .s = { .refs = 1, .version = version }, .problems_before = p->count };
	struct walk w = { .draft = &draft, .problems = p };
	struct settings *s = NULL;
	struct json_error why;

	if (!json_check(bundle, &why)) {
		problem_add(p, "", "the bundle is not valid JSON at byte %zu: %s", why.offset + 1, why.what);
		return NULL;
	}
	buf_init(&w.path, 4096);
	buf_init(&w.generic, 4096);
	walk_bundle(&w, bundle);
	settings_check(&draft, p);
	if (p->count == draft.problems_before) {
		s = allocate(NULL, sizeof(*s));
		*s = draft.s;
	} else {
		settings_free_members(&draft.s);
	}
	draft_configs_free(&draft);
	draft_workspaces_free(&draft);
	free(draft.providers);	/* what they hold has moved */
	free(draft.schema);
	buf_free(&w.path);
	buf_free(&w.generic);
	return s;
}

struct settings *
settings_get(struct settings *s)
{
	CHECK(s->refs > 0);
	s->refs++;
	return s;
}

void
settings_put(struct settings *s)
{
	if (!s)
		return;
	CHECK(s->refs > 0);
	if (--s->refs > 0)
		return;
	settings_free_members(s);
	free(s);
}

const struct setting_provider *
settings_provider(const struct settings *s, struct slice slug)
{
	for (uint32_t i = 0; i < s->providers_count; i++)
		if (slice_eq(slice_of(s->providers[i].slug), slug))
			return &s->providers[i];
	return NULL;
}

const struct setting_provider *
settings_provider_named(const struct settings *s, struct slice name, bool plain)
{
	const struct setting_provider *found = settings_provider(s, name);

	if (found || !plain)
		return found;
	for (uint32_t i = 0; i < s->providers_count; i++) {
		const struct setting_provider *p = &s->providers[i];

		if (!slice_eq(slice_of(p->type), name))
			continue;
		if (s->default_provider && strcmp(p->slug, s->default_provider) == 0)
			return p;
		found = found ? found : p;
	}
	return found;
}

const struct setting_provider *
settings_provider_of(const struct settings *s, const struct config_target *t)
{
	return t->provider.n ? settings_provider_named(s, t->provider, t->provider_plain) : NULL;
}

static int
slug_compare(struct slice want, const char *have)
{
	size_t n = strlen(have);
	int order = memcmp(want.p, have, want.n < n ? want.n : n);

	return order ? order : (want.n > n) - (want.n < n);
}

static int
config_compare(const void *slug, const void *config)
{
	return slug_compare(*(const struct slice *)slug, (*(struct config *const *)config)->slug.p);
}

const struct config *
settings_config(const struct settings *s, struct slice slug)
{
	if (slug.n == 0 || s->configs_count == 0)
		return NULL;
	struct config **found = bsearch(&slug, s->configs, s->configs_count, sizeof(*s->configs), config_compare);
	return found ? *found : NULL;	/* sorted by settings_check() */
}

static int
workspace_compare(const void *slug, const void *workspace)
{
	return slug_compare(*(const struct slice *)slug, ((const struct setting_workspace *)workspace)->slug);
}

const struct setting_workspace *
settings_workspace(const struct settings *s, struct slice slug)
{
	if (slug.n == 0 || s->workspaces_count == 0)
		return NULL;
	/* Sorted by settings_check_limits(). */
	return bsearch(&slug, s->workspaces, s->workspaces_count, sizeof(*s->workspaces), workspace_compare);
}

const struct setting_model *
settings_model(const struct settings *s, struct slice id)
{
	for (uint32_t i = 0; i < s->models_count; i++)
		if (slice_eq(slice_of(s->models[i].id), id))
			return &s->models[i];
	return NULL;
}
