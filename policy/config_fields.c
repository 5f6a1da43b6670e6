/*
 * policy/config_fields.c -- see config_fields.h.
 *
 * A *shape* is a kind of object: a list of fields. The walk keeps a stack of
 * the objects and arrays it is in, bounded by the deepest document that the
 * shapes allow, and compares each member with its field. Names are compared in
 * snake_case; camelCase is converted first. Content that is not ours
 * (override_params, conditions, checks, metadata) is never converted or walked.
 */
#include "policy/config_fields.h"

#include <inttypes.h>
#include <stdio.h>

#include "policy/config.h"

enum kind {
	BOOLEAN,
	INTEGER,	/* min..max */
	NUMBER,
	STRING,
	SLUG,		/* "pc-eng" */
	PROVIDER,	/* "@slug" or "slug" */
	MODE,		/* strategy.mode */
	PARAMS,		/* body members: override_params */
	OPEN,		/* an object whose content is not ours */
	FREE,		/* string or object: an inline provider's setting, a guardrail */
	OBJECT,		/* of `shape` */
	ARRAY,		/* of `element` */
};

struct shape;

struct field {
	const char *name;
	enum kind kind;
	enum kind element;		/* ARRAY: of what ... */
	const struct shape *shape;	/* OBJECT, ARRAY of OBJECT */
	bool later;			/* known, but not done by this version */
	int64_t min, max;		/* INTEGER */
};

struct shape {
	const struct field *fields;
	uint32_t count;
};

#define FIELDS_MAX 64		/* of a shape: they are noted in one word */
#define SHAPE(list) { list, sizeof(list) / sizeof(list[0]) }
#define LATER .later = true
_Static_assert(CONFIG_PARAMS_MAX + 2 <= 32, "the model and max_tokens need splices too");

static const struct shape config_shape;

static const struct field condition_fields[] = {
	{ .name = "query", .kind = OPEN },
	{ .name = "then", .kind = STRING },
};
static const struct shape condition_shape = SHAPE(condition_fields);

static const struct field sticky_fields[] = {
	{ .name = "enabled", .kind = BOOLEAN },
	{ .name = "hash_fields", .kind = ARRAY, .element = STRING },
	{ .name = "ttl", .kind = INTEGER, .min = 1, .max = INT32_MAX },
};
static const struct shape sticky_shape = SHAPE(sticky_fields);

static const struct field breaker_fields[] = {
	{ .name = "failure_threshold", .kind = INTEGER, .min = 1, .max = INT32_MAX },
	{ .name = "failure_threshold_percentage", .kind = NUMBER },
	{ .name = "minimum_requests", .kind = INTEGER, .min = 1, .max = INT32_MAX },
	{ .name = "cooldown_interval", .kind = INTEGER, .min = 0, .max = INT32_MAX },
	{ .name = "failure_status_codes", .kind = ARRAY, .element = INTEGER, .min = 100, .max = 599 },
};
static const struct shape breaker_shape = SHAPE(breaker_fields);

static const struct field strategy_fields[] = {
	{ .name = "mode", .kind = MODE },
	{ .name = "on_status_codes", .kind = ARRAY, .element = INTEGER, .min = 100, .max = 599, LATER },
	{ .name = "conditions", .kind = ARRAY, .element = OBJECT, .shape = &condition_shape, LATER },
	{ .name = "default", .kind = STRING, LATER },
	{ .name = "sticky", .kind = OBJECT, .shape = &sticky_shape, LATER },
	{ .name = "cb_config", .kind = OBJECT, .shape = &breaker_shape, LATER },
};
static const struct shape strategy_shape = SHAPE(strategy_fields);

static const struct field retry_fields[] = {
	{ .name = "attempts", .kind = INTEGER, .min = 0, .max = 5 },
	{ .name = "on_status_codes", .kind = ARRAY, .element = INTEGER, .min = 100, .max = 599 },
	{ .name = "use_retry_after_headers", .kind = BOOLEAN },
	{ .name = "use_retry_after_header", .kind = BOOLEAN },
};
static const struct shape retry_shape = SHAPE(retry_fields);

static const struct field cache_fields[] = {
	{ .name = "mode", .kind = STRING },
	{ .name = "max_age", .kind = INTEGER, .min = 0, .max = INT32_MAX },
};
static const struct shape cache_shape = SHAPE(cache_fields);

static const struct field check_fields[] = {
	{ .name = "id", .kind = STRING },
	{ .name = "name", .kind = STRING },
	{ .name = "parameters", .kind = OPEN },
	{ .name = "is_enabled", .kind = BOOLEAN },
};
static const struct shape check_shape = SHAPE(check_fields);

static const struct field hook_fields[] = {
	{ .name = "id", .kind = STRING },
	{ .name = "type", .kind = STRING },
	{ .name = "checks", .kind = ARRAY, .element = OBJECT, .shape = &check_shape },
	{ .name = "deny", .kind = BOOLEAN },
	{ .name = "async", .kind = BOOLEAN },
	{ .name = "sequential", .kind = BOOLEAN },
	{ .name = "on_success", .kind = OPEN },
	{ .name = "on_fail", .kind = OPEN },
	{ .name = "guardrail_version_id", .kind = STRING },
};
static const struct shape hook_shape = SHAPE(hook_fields);

static const struct field config_fields[] = {
	{ .name = "strategy", .kind = OBJECT, .shape = &strategy_shape },
	{ .name = "targets", .kind = ARRAY, .element = OBJECT, .shape = &config_shape },
	{ .name = "provider", .kind = PROVIDER },
	{ .name = "virtual_key", .kind = SLUG },
	{ .name = "name", .kind = STRING },
	{ .name = "override_params", .kind = PARAMS },
	{ .name = "request_timeout", .kind = INTEGER, .min = 1, .max = CONFIG_TIMEOUT_MS_MAX },
	{ .name = "weight", .kind = NUMBER, LATER },
	{ .name = "api_key", .kind = STRING, LATER },
	{ .name = "passthrough", .kind = BOOLEAN, LATER },
	{ .name = "default_params", .kind = OPEN, LATER },
	{ .name = "drop_params", .kind = ARRAY, .element = STRING, LATER },
	{ .name = "retry", .kind = OBJECT, .shape = &retry_shape, LATER },
	{ .name = "cache", .kind = OBJECT, .shape = &cache_shape, LATER },
	{ .name = "custom_host", .kind = STRING, LATER },
	{ .name = "forward_headers", .kind = ARRAY, .element = STRING, LATER },
	{ .name = "strict_open_ai_compliance", .kind = BOOLEAN, LATER },
	{ .name = "cb_config", .kind = OBJECT, .shape = &breaker_shape, LATER },
	{ .name = "input_guardrails", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "output_guardrails", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "before_request_hooks", .kind = ARRAY, .element = OBJECT, .shape = &hook_shape, LATER },
	{ .name = "after_request_hooks", .kind = ARRAY, .element = OBJECT, .shape = &hook_shape, LATER },
	{ .name = "input_mutators", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "output_mutators", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "fetch_integrated_models", .kind = BOOLEAN, LATER },
	{ .name = "prompt_id", .kind = STRING, LATER },
};
static const struct shape config_shape = SHAPE(config_fields);
_Static_assert(sizeof(config_fields) / sizeof(config_fields[0]) <= FIELDS_MAX, "raise the type of frame.seen");

/* Settings of a provider that is named in the config itself. */
static const char *const inline_prefixes[] = {
	"amzn_", "anthropic_", "aws_", "azure_", "fireworks_", "huggingface_", "openai_",
	"oracle_", "snowflake_", "vertex_", "workers_ai_",
};
static const struct field inline_setting = { .name = "", .kind = FREE, LATER };

/*
 * One object or array that the walk is in. A level of targets takes two (the
 * array and the object); below the last level come at most four: hooks, a hook,
 * checks, a check.
 */
#define FRAMES_MAX (2 * CONFIG_LEVELS_MAX + 5)

struct frame {
	struct json_iter it;
	const struct shape *shape;	/* NULL: an array ... */
	const struct field *field;	/* ... of this field's elements */
	uint32_t index;			/* of the next element */
	size_t path_n;			/* path of the object or array itself */
	uint32_t level;			/* config objects around and including it */
	uint64_t seen;			/* fields of the shape that were given */
	bool later;			/* inside of something that is not done yet */
};

struct walk {
	struct problems *problems;
	struct buf path;		/* of the value at hand, NUL-terminated */
	uint32_t depth;
	struct frame frames[FRAMES_MAX];
};

static const char *
path_of(const struct walk *w)
{
	return w->path.p ? w->path.p : "";
}

static void
path_cut(struct walk *w, size_t n)
{
	if (!w->path.p)
		return;
	w->path.n = n;
	w->path.p[n] = '\0';
}

static void
path_add_name(struct walk *w, const char *name)
{
	buf_printf(&w->path, "%s%s", w->path.n > 0 ? "." : "", name[0] ? name : "\"\"");
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

static void
wrong_type(struct walk *w, const char *wanted, struct slice value)
{
	problem_add(w->problems, path_of(w), "must be %s, not %s", wanted, type_name(value));
}

/* A member's name in snake_case. false: too long to be one of ours. */
static bool
snake_name(struct slice raw, char *out, size_t size)
{
	char name[48];
	size_t n = json_unescape(raw, name, sizeof(name)), used = 0;

	if (n >= sizeof(name) || n == 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = name[i];

		if (used + 3 > size)
			return false;
		if (c >= 'A' && c <= 'Z') {
			if (i > 0)
				out[used++] = '_';
			c = (char)(c - 'A' + 'a');
		}
		out[used++] = c;
	}
	out[used] = '\0';
	return true;
}

static const struct field *
field_find(const struct shape *shape, const char *name)
{
	for (uint32_t i = 0; i < shape->count; i++)
		if (strcmp(shape->fields[i].name, name) == 0)
			return &shape->fields[i];
	if (shape != &config_shape)
		return NULL;
	for (size_t i = 0; i < sizeof(inline_prefixes) / sizeof(inline_prefixes[0]); i++)
		if (slice_starts(slice_of(name), slice_of(inline_prefixes[i])))
			return &inline_setting;
	return NULL;
}

static void
unknown_field(struct walk *w, const struct shape *shape, const char *name)
{
	struct problem_guess guess = { .wanted = slice_of(name) };

	if (shape == &config_shape && strcmp(name, "options") == 0) {
		problem_add(w->problems, path_of(w), "the old form of configs is not supported: "
		    "use \"strategy\" and \"targets\"");
		return;
	}
	for (uint32_t i = 0; i < shape->count; i++)
		problem_guess_try(&guess, shape->fields[i].name);
	const char *best = problem_guess_best(&guess);
	if (best)
		problem_add(w->problems, path_of(w), "unknown field; did you mean \"%s\"?", best);
	else
		problem_add(w->problems, path_of(w), "unknown field");
}

/* ---- values ---- */

static void
check_slug(struct walk *w, struct slice raw, bool at_allowed)
{
	char text[CONFIG_SLUG_BYTES_MAX + 2];
	size_t n = json_unescape(raw, text, sizeof(text));
	struct slice slug = { text, n };

	if (at_allowed && n > 0 && n < sizeof(text) && text[0] == '@')
		slug = (struct slice){ text + 1, n - 1 };
	if (n >= sizeof(text) || !config_slug_valid(slug))
		problem_add(w->problems, path_of(w), "must be a provider's slug%s (1 to %d of A-Z a-z 0-9 . _ -)",
		    at_allowed ? ", such as \"@anthropic\"" : "", CONFIG_SLUG_BYTES_MAX);
}

static void
check_mode(struct walk *w, struct slice raw)
{
	static const char *const later[] = { "fallback", "loadbalance", "conditional" };

	if (json_string_eq(raw, "single"))
		return;
	for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
		if (!json_string_eq(raw, later[i]))
			continue;
		problem_add(w->problems, path_of(w), "\"%s\" is not yet supported", later[i]);
		return;
	}
	problem_add(w->problems, path_of(w), "must be \"single\" (later versions: \"fallback\", "
	    "\"loadbalance\", \"conditional\")");
}

static void
check_model(struct walk *w, struct slice raw)
{
	char text[CONFIG_MODEL_BYTES_MAX + 1];
	struct slice slug, bare;

	if (raw.p[0] != '"') {
		wrong_type(w, "a string", raw);
		return;
	}
	size_t n = json_unescape(raw, text, sizeof(text));
	if (n == 0 || n >= sizeof(text)) {
		problem_add(w->problems, path_of(w), "must be a model's name of 1 to %d bytes, such as "
		    "\"@anthropic/claude-sonnet-4-5\"", CONFIG_MODEL_BYTES_MAX);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)text[i] >= 0x20 && text[i] != 0x7f)
			continue;
		problem_add(w->problems, path_of(w), "must not contain control characters");
		return;
	}
	struct slice model = { text, n };
	bool prefixed = config_split_model(model, &slug, &bare);
	if (text[0] == '@' && !prefixed && !slice_starts(model, SLICE("@cf/")) &&
	    !slice_starts(model, SLICE("@hf/")))
		problem_add(w->problems, path_of(w), "must be \"@slug/model\" where it begins with \"@\"");
}

/* The members of override_params: names of body members, each once. */
static void
check_params(struct walk *w, struct slice object)
{
	struct slice names[CONFIG_PARAMS_MAX + 1], name, value;
	struct json_iter it;
	uint32_t n = 0;
	size_t here = w->path.n;

	if (!json_iter_object(&it, object)) {
		wrong_type(w, "an object", object);
		return;
	}
	while (json_next(&it, &name, &value)) {
		char text[CONFIG_NAME_BYTES_MAX + 1];
		size_t length = json_unescape(name, text, sizeof(text));

		if (length == 0 || length >= sizeof(text) || memchr(text, '\0', length)) {
			problem_add(w->problems, path_of(w), "a name must have 1 to %d bytes, none of them NUL",
			    CONFIG_NAME_BYTES_MAX);
			continue;
		}
		text[length] = '\0';
		path_add_name(w, problem_name((struct slice){ text, length }).text);
		for (uint32_t i = 0; i < n; i++)
			if (json_string_eq(names[i], text))
				problem_add(w->problems, path_of(w), "given twice");
		if (strcmp(text, "model") == 0)
			check_model(w, value);
		path_cut(w, here);
		if (n == CONFIG_PARAMS_MAX) {
			problem_add(w->problems, path_of(w), "more than %d members", CONFIG_PARAMS_MAX);
			return;
		}
		names[n++] = name;
	}
}

static void
check_integer(struct walk *w, const struct field *f, struct slice value)
{
	int64_t number;

	if (!json_to_i64(value, &number) || number < f->min || number > f->max)
		problem_add(w->problems, path_of(w), "must be a whole number from %" PRId64 " to %" PRId64,
		    f->min, f->max);
}

static void
check_scalar(struct walk *w, const struct field *f, enum kind kind, struct slice value)
{
	char first = value.p[0];
	bool number = first == '-' || (first >= '0' && first <= '9');

	switch (kind) {
	case BOOLEAN:
		if (first != 't' && first != 'f')
			wrong_type(w, "true or false", value);
		break;
	case INTEGER:
		if (!number)
			wrong_type(w, "a number", value);
		else
			check_integer(w, f, value);
		break;
	case NUMBER:
		if (!number)
			wrong_type(w, "a number", value);
		break;
	case OPEN:
		if (first != '{')
			wrong_type(w, "an object", value);
		break;
	case FREE:
		if (first != '{' && first != '"')
			wrong_type(w, "a string or an object", value);
		break;
	case PARAMS:
		check_params(w, value);
		break;
	case STRING:
	case SLUG:
	case PROVIDER:
	case MODE:
		if (first != '"')
			wrong_type(w, "a string", value);
		else if (kind == MODE)
			check_mode(w, value);
		else if (kind != STRING)
			check_slug(w, value, kind == PROVIDER);
		break;
	case OBJECT:
	case ARRAY:
		check_failed("containers are walked", __FILE__, __LINE__);
	}
}

/* ---- the walk ---- */

static void
push(struct walk *w, const struct shape *shape, const struct field *f, struct slice value, bool later)
{
	struct frame frame = { .shape = shape, .field = f, .path_n = w->path.n, .later = later };
	bool opened = shape ? json_iter_object(&frame.it, value) : json_iter_array(&frame.it, value);

	if (!opened) {
		wrong_type(w, shape ? "an object" : "an array", value);
		return;
	}
	if (w->depth > 0)
		frame.level = w->frames[w->depth - 1].level;
	if (shape == &config_shape && ++frame.level > CONFIG_LEVELS_MAX) {
		problem_add(w->problems, path_of(w), "targets nest deeper than %d levels", CONFIG_LEVELS_MAX);
		return;
	}
	CHECK(w->depth < FRAMES_MAX);
	w->frames[w->depth++] = frame;
}

static void
value_check(struct walk *w, const struct field *f, enum kind kind, struct slice value, bool later)
{
	if (kind == OBJECT)
		push(w, f->shape, f, value, later);
	else if (kind == ARRAY)
		push(w, NULL, f, value, later);
	else
		check_scalar(w, f, kind, value);
}

static void
member_check(struct walk *w, struct frame *frame, struct slice raw_name, struct slice value)
{
	char name[64];

	path_add_name(w, problem_name((struct slice){ raw_name.p + 1, raw_name.n - 2 }).text);
	if (!snake_name(raw_name, name, sizeof(name))) {
		problem_add(w->problems, path_of(w), "unknown field");
		return;
	}
	const struct field *f = field_find(frame->shape, name);
	if (!f) {
		unknown_field(w, frame->shape, name);
		return;
	}
	if (f != &inline_setting) {
		uint64_t bit = UINT64_C(1) << (f - frame->shape->fields);

		if (frame->seen & bit)
			problem_add(w->problems, path_of(w), "given twice");
		frame->seen |= bit;
	}
	if (f->later && !frame->later)
		problem_add(w->problems, path_of(w), "not yet supported");
	value_check(w, f, f->kind, value, frame->later || f->later);
}

static bool
seen(const struct frame *frame, const char *name)
{
	const struct field *f = field_find(frame->shape, name);

	return (frame->seen >> (f - frame->shape->fields)) & 1;
}

/* What can only be said of an object as a whole, once it has been walked. */
static void
frame_end(struct walk *w, const struct frame *frame)
{
	static const char *const own_only[] = { "provider", "virtual_key" };

	if (!frame->shape && frame->field->shape == &config_shape) {
		if (frame->index == 0)
			problem_add(w->problems, path_of(w), "must have a target");
		else if (frame->index > 1 && !frame->later)
			problem_add(w->problems, path_of(w), "more than one target is not yet supported");
	}
	if (frame->shape == &retry_shape && !seen(frame, "attempts"))
		problem_add(w->problems, path_of(w), "needs \"attempts\"");
	if (frame->shape == &cache_shape && !seen(frame, "mode"))
		problem_add(w->problems, path_of(w), "needs \"mode\"");
	if (frame->shape != &config_shape || !seen(frame, "targets"))
		return;
	for (size_t i = 0; i < sizeof(own_only) / sizeof(own_only[0]); i++) {
		if (!seen(frame, own_only[i]))
			continue;
		path_add_name(w, own_only[i]);
		problem_add(w->problems, path_of(w), "not inherited by targets: put it into the target");
		path_cut(w, frame->path_n);
	}
}

/* One member or element of the innermost frame, or its end. */
static void
walk_step(struct walk *w)
{
	struct frame *frame = &w->frames[w->depth - 1];
	struct slice name, value;

	path_cut(w, frame->path_n);
	if (!json_next(&frame->it, &name, &value)) {
		frame_end(w, frame);
		w->depth--;
		return;
	}
	if (frame->shape) {
		member_check(w, frame, name, value);
		return;
	}
	buf_printf(&w->path, "[%u]", frame->index);
	frame->index++;
	value_check(w, frame->field, frame->field->element, value, frame->later);
}

bool
config_fields_check(struct slice json, const char *path, struct problems *p)
{
	struct walk w = { .problems = p };
	uint32_t before = p->count;

	buf_init(&w.path, 4096 + CONFIG_LEVELS_MAX * PROBLEM_NAME_BYTES);
	buf_printf(&w.path, "%s", path);
	push(&w, &config_shape, NULL, json, false);
	while (w.depth > 0)
		walk_step(&w);		/* bounded by the document's length */
	buf_free(&w.path);
	return p->count == before;
}

bool
config_fields_get(struct slice object, const char *name, struct slice *value)
{
	struct json_iter it;
	struct slice raw;
	char snake[64];

	if (!json_iter_object(&it, object))
		return false;
	while (json_next(&it, &raw, value))
		if (snake_name(raw, snake, sizeof(snake)) && strcmp(snake, name) == 0)
			return true;
	*value = SLICE_NONE;
	return false;
}
