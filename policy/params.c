/*
 * policy/params.c -- see params.h.
 *
 * The body is gone through once, member by member, and copied as cut.h does.
 * Values that a path reaches into are walked, with the set of paths that lead
 * to each open container: a word of 64 bits a level, for no path has more levels
 * than PARAMS_SEGMENTS_MAX. What an override brings is walked like the client's
 * own: drops come last.
 */
#include "policy/params.h"

#include <stdio.h>
#include <stdlib.h>

#include "policy/config.h"
#include "policy/cut.h"
#include "policy/json_lex.h"

#define INDEX_ANY (-1)
#define INDEX_NAME (-2)			/* the segment is a member's name */

_Static_assert(PARAMS_DROPS_MAX <= 64, "paths are a 64-bit set");

struct segment {
	struct slice name;
	int32_t index;
};

struct params_path {			/* its names lie behind it */
	uint32_t count;
	struct segment segments[PARAMS_SEGMENTS_MAX];
};

/* ---- paths ---- */

static bool
segment_add(struct params_path *path, struct segment s)
{
	if (path->count == PARAMS_SEGMENTS_MAX)
		return false;
	path->segments[path->count++] = s;
	return true;
}

/* What is wrong at *at, or NULL at the end of the text. */
static const char *
parse(struct params_path *path, const char **at, const char *end)
{
	const char *p = *at, *start;
	struct segment s;

	while (p < end) {
		*at = p;
		if (path->count > 0 && *p == '[') {
			int64_t n = 0;

			s = (struct segment){ .index = INDEX_ANY };
			if (++p < end && *p == '*') {
				p++;
			} else {
				for (start = p; p < end && lex_is_digit(*p) && n <= PARAMS_INDEX_MAX; p++)
					n = n * 10 + (*p - '0');
				if (p == start || n > PARAMS_INDEX_MAX || (*start == '0' && p > start + 1))
					return "expected a number below 100000 or '*' in brackets";
				s.index = (int32_t)n;
			}
			if (p == end || *p++ != ']')
				return "expected ']'";
		} else {
			if (path->count > 0 && *p++ != '.')
				return "expected '.' or '['";
			for (start = p; p < end && !memchr(".[]", *p, 4); p++)	/* nor a NUL */
				;
			if (p == start)
				return "expected a name";
			s = (struct segment){ .name = { start, (size_t)(p - start) }, .index = INDEX_NAME };
		}
		if (!segment_add(path, s))
			return "more names and brackets than 16";
	}
	*at = p;
	return path->count > 0 ? NULL : "expected a name";
}

struct params_path *
params_path_compile(struct slice text, const char *path, struct problems *p)
{
	struct params_path *out;
	const char *start, *at, *mistake;

	if (text.n > PARAMS_PATH_BYTES_MAX) {
		problem_add(p, path, "a path has at most %d bytes", PARAMS_PATH_BYTES_MAX);
		return NULL;
	}
	out = malloc(sizeof(*out) + text.n);
	CHECK(out);
	out->count = 0;
	start = at = memcpy(out + 1, text.p, text.n);
	mistake = parse(out, &at, start + text.n);
	if (!mistake)
		return out;
	problem_add(p, path, "\"%s\" is no path such as a, a.b, a[0].b or a[*].b: %s at byte %zu", problem_name(text).text, mistake,
	    (size_t)(at - start) + 1);
	free(out);
	return NULL;
}

void
params_path_free(struct params_path *path)
{
	free(path);
}

/* ---- drops inside of a value ---- */

struct level {				/* an open container; those that no path leads to have no `paths` */
	uint64_t paths;
	struct cut_items items;
	bool array;
	uint32_t index;			/* of the next element */
	uint64_t here;			/* of the paths: those that lead to the item at hand */
};

struct walk {
	struct cut *cut;
	const struct params *params;
	struct level levels[PARAMS_SEGMENTS_MAX + 1];	/* by depth, from 1 */
};

static struct level *
level_of(struct walk *w, uint32_t depth)
{
	return depth > 0 && depth < PARAMS_SEGMENTS_MAX && w->levels[depth].paths ? &w->levels[depth] : NULL;
}

static bool
segment_is(const struct segment *s, const struct level *l, struct slice raw, bool escaped)
{
	if (l->array)
		return s->index == INDEX_ANY || s->index == (int32_t)l->index;
	if (s->index != INDEX_NAME)
		return false;
	return escaped ? json_string_is(raw, s->name) :
	    s->name.n + 2 == raw.n && memcmp(raw.p + 1, s->name.p, s->name.n) == 0;
}

/* An item of the container of this depth begins: which paths lead to it? */
static void
item_begin(struct walk *w, uint32_t depth, const char *start, struct slice raw, bool escaped)
{
	struct level *l = &w->levels[depth];

	cut_item(w->cut, &l->items, start);
	l->here = 0;
	for (uint64_t left = l->paths; left; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(left);

		if (segment_is(&w->params->drops[i]->segments[depth], l, raw, escaped))
			l->here |= UINT64_C(1) << i;
	}
	l->index++;
}

/* Of the paths that lead to an item at this depth: does one end there? */
static bool
ends_here(const struct params *params, uint64_t paths, uint32_t depth)
{
	for (; paths; paths &= paths - 1)
		if (params->drops[__builtin_ctzll(paths)]->count == depth + 1)
			return true;
	return false;
}

static void
item_end(struct walk *w, uint32_t depth, const char *end)
{
	struct level *l = &w->levels[depth];

	if (ends_here(w->params, l->here, depth))
		cut_drop(w->cut, &l->items, end);
	else
		cut_keep(&l->items, end);
}

static const char *
on_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	if (level_of(arg, depth))
		item_begin(arg, depth, raw.p, raw, escaped);
	return NULL;
}

static void
on_open(void *arg, uint32_t depth, const char *at)
{
	struct walk *w = arg;
	struct level *outer = level_of(w, depth - 1);
	uint64_t paths = 0;

	if (depth > PARAMS_SEGMENTS_MAX)
		return;
	if (outer) {
		if (outer->array)
			item_begin(w, depth - 1, at, SLICE_NONE, false);
		/* What is left out as a whole is left alone inside: of a path that ends there, nothing is left. */
		paths = ends_here(w->params, outer->here, depth - 1) ? 0 : outer->here;
	} else if (depth == 1) {
		paths = w->levels[0].paths;
	}
	w->levels[depth] = (struct level){ .paths = paths, .array = *at == '[' };
}

static void
on_close(void *arg, uint32_t depth, const char *end)
{
	struct walk *w = arg;
	struct level *l = level_of(w, depth);

	if (l)
		cut_close(w->cut, &l->items);
	if (level_of(w, depth - 1))
		item_end(w, depth - 1, end);
}

static void
on_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct walk *w = arg;
	struct level *l = level_of(w, depth);

	(void)escaped;
	if (!l)
		return;
	if (l->array)
		item_begin(w, depth, raw.p, SLICE_NONE, false);
	item_end(w, depth, raw.p + raw.n);
}

static const struct json_visitor visitor = {
	.name = on_name, .open = on_open, .close = on_close, .scalar = on_scalar,
};

/* Leaves out of a value, of the text at hand, what these paths say. */
static void
drop_inside(struct cut *cut, const struct params *params, uint64_t paths, struct slice value)
{
	struct walk w = { .cut = cut, .params = params };
	struct lex f = { .what = NULL };

	if (!paths || !lex_is_opener(value.p[0]))
		return;
	w.levels[0].paths = paths;
	CHECK(json_walk(value.p, value.p + value.n, &visitor, &w, &f));
}

/* ---- members ---- */

struct apply {
	const struct params *params;
	const struct config_param *override[SCAN_MEMBERS_MAX];	/* by member of the body; NULL: its own value */
	uint64_t paths[SCAN_MEMBERS_MAX];			/* that begin with its name */
	struct cut cut;
	struct cut_items members;
	const char *behind;		/* the last member of the body: there new ones come */
	uint32_t count;			/* of members, in the end */
};

static const struct config_param *
param_find(const struct config_param *list, uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(list[i].name, name) == 0)
			return &list[i];
	return NULL;
}

static uint64_t
paths_of(const struct params *params, struct slice name)
{
	uint64_t paths = 0;

	for (uint32_t i = 0; i < params->drops_count; i++)
		if (slice_eq(params->drops[i]->segments[0].name, name))
			paths |= UINT64_C(1) << i;
	return paths;
}

/* An operator's value, with what is dropped from it. */
static void
put_value(struct apply *a, struct slice raw, uint64_t paths)
{
	const char *from = a->cut.from;

	cut_switch(&a->cut, raw.p);
	drop_inside(&a->cut, a->params, paths, raw);
	cut_skip(&a->cut, raw.p + raw.n, from);
}

static void
put_member(struct apply *a, const struct config_param *param)
{
	struct slice name = slice_of(param->name);
	uint64_t paths = paths_of(a->params, name);

	if (ends_here(a->params, paths, 0))
		return;
	cut_skip(&a->cut, a->behind, a->behind);	/* as far as that */
	cut_put(&a->cut, a->members.kept ? SLICE(",") : SLICE(""));
	cut_put_quoted(&a->cut, name);
	cut_put(&a->cut, SLICE(":"));
	put_value(a, slice_of(param->raw), paths);
	a->members.kept = true;
	a->count++;
}

/* Adds those of a list that neither the body nor the other list has. */
static void
put_new(struct apply *a, const struct body_scan *body, const struct config_param *list, uint32_t count,
    const struct config_param *but, uint32_t but_count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!body_find(body, list[i].name) && !param_find(but, but_count, list[i].name))
			put_member(a, &list[i]);
}

static void
find_changes(struct apply *a, const struct body_scan *body)
{
	const struct params *params = a->params;
	const struct body_member *m;

	for (uint32_t i = 0; i < params->overrides_count; i++)
		if ((m = body_find(body, params->overrides[i].name)) != NULL)
			a->override[m - body->members] = &params->overrides[i];
	for (uint32_t i = 0; i < params->drops_count; i++)
		if ((m = body_find_name(body, params->drops[i]->segments[0].name)) != NULL)
			a->paths[m - body->members] |= UINT64_C(1) << i;
}

static size_t
room_for(const struct config_param *list, uint32_t count)
{
	size_t n = 0;

	for (uint32_t i = 0; i < count; i++)
		n += json_escape(slice_of(list[i].name), NULL, 0) + strlen(list[i].raw) + 2;
	return n;
}

static void
go_through(struct apply *a, const struct body_scan *body)
{
	for (uint32_t i = 0; i < body->members_count; i++) {
		const struct body_member *m = &body->members[i];
		const char *end = m->value.p + m->value.n;

		cut_item(&a->cut, &a->members, m->name.p);
		if (ends_here(a->params, a->paths[i], 0)) {
			cut_drop(&a->cut, &a->members, end);
			continue;
		}
		if (a->override[i]) {
			cut_skip(&a->cut, m->value.p, end);
			put_value(a, slice_of(a->override[i]->raw), a->paths[i]);
		} else {
			drop_inside(&a->cut, a->params, a->paths[i], m->value);
		}
		cut_keep(&a->members, end);
		a->count++;
	}
	cut_close(&a->cut, &a->members);
	a->behind = a->members.behind ? a->members.behind : (const char *)memchr(body->body.p, '{', body->body.n) + 1;
}

bool
params_apply(const struct body_scan *body, const struct params *params, struct scratch *mem, struct slice *out,
    const char **why)
{
	struct apply a = { .params = params };

	CHECK(params->drops_count <= PARAMS_DROPS_MAX);
	find_changes(&a, body);
	cut_begin(&a.cut, body->body.p, body->body.n + room_for(params->overrides, params->overrides_count) +
	    room_for(params->defaults, params->defaults_count), mem);
	go_through(&a, body);
	put_new(&a, body, params->defaults, params->defaults_count, params->overrides, params->overrides_count);
	put_new(&a, body, params->overrides, params->overrides_count, NULL, 0);
	if (!cut_end(&a.cut, body->body.p + body->body.n, out)) {
		*why = "with the config's parameters it is too large";
		return false;
	}
	if (a.count > SCAN_MEMBERS_MAX) {
		*why = "with the config's parameters it has too many members";
		return false;
	}
	if (!out->p)
		*out = body->body;
	return true;
}
