/*
 * policy/config_fields.c -- see config_fields.h.
 *
 * A *shape* is a kind of object: a list of fields. The walk keeps a stack of
 * the objects and arrays it is in, bounded by the deepest document that the
 * shapes allow, and compares each member with its field. Names are compared in
 * snake_case; camelCase is converted first. Content that is not ours
 * (override_params, queries, checks, metadata) is never converted or walked.
 */
#include "policy/config_fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/decimal.h"

enum kind {
	BOOLEAN,
	INTEGER,	/* min..max */
	WEIGHT,		/* a number, see config.h */
	PERCENT,
	TEXT,		/* a string of 1 to CONFIG_NAME_BYTES_MAX bytes */
	STRING,		/* one that is read later */
	SECRET,		/* becomes a header's value */
	SLUG,		/* "pc-eng" */
	PROVIDER,	/* "@slug" or "slug" */
	MODE,		/* strategy.mode */
	CACHING,	/* cache.mode */
	HEADER,		/* name of one that may be forwarded */
	PARAMS,		/* body members: override_params */
	OPEN,		/* an object whose content is not ours */
	FREE,		/* string or object: an inline provider's setting, a guardrail */
	OBJECT,		/* of `shape` */
	ARRAY,		/* of `element`, up to `max` of them */
};

struct field {
	const char *name;
	enum kind kind;
	enum kind element;		/* ARRAY: of what ... */
	const struct config_shape *shape;	/* OBJECT, ARRAY of OBJECT */
	bool later;			/* known, but not done by this version */
	int64_t min, max;		/* INTEGER and elements that are; of other ARRAYs: how many (0: as they come) */
};

struct config_shape {
	const struct field *fields;
	uint32_t count;			/* of all, ... */
	uint32_t used;			/* ... of those that config_fields_read() gives */
};

#define FIELDS_MAX 64		/* of a shape: they are noted in one word */
#define GUESSES_MAX 32		/* so many mistakes are enough to look for what was meant */
#define SHAPE(list, used) { list, sizeof(list) / sizeof(list[0]), used }
#define LATER .later = true
#define STATUSES(called) { .name = called, .kind = ARRAY, .element = INTEGER, .min = STATUS_SET_FIRST, .max = STATUS_SET_LAST }

static const struct field condition_fields[] = {
	[CONDITION_QUERY] = { .name = "query", .kind = OPEN },
	[CONDITION_THEN] = { .name = "then", .kind = TEXT },
};
const struct config_shape config_shape_condition = SHAPE(condition_fields, CONDITION_FIELDS);

static const struct field sticky_fields[] = {
	[STICKY_ENABLED] = { .name = "enabled", .kind = BOOLEAN },
	[STICKY_HASH_FIELDS] = { .name = "hash_fields", .kind = ARRAY, .element = STRING, .max = CONFIG_HASH_FIELDS_MAX },
	[STICKY_TTL] = { .name = "ttl", .kind = INTEGER, .min = 1, .max = INT32_MAX },
};
const struct config_shape config_shape_sticky = SHAPE(sticky_fields, STICKY_FIELDS);

static const struct field breaker_fields[] = {
	[BREAKER_THRESHOLD] = { .name = "failure_threshold", .kind = INTEGER, .min = 1, .max = INT32_MAX },
	[BREAKER_PERCENTAGE] = { .name = "failure_threshold_percentage", .kind = PERCENT },
	[BREAKER_MINIMUM] = { .name = "minimum_requests", .kind = INTEGER, .min = 1, .max = INT32_MAX },
	[BREAKER_COOLDOWN] = { .name = "cooldown_interval", .kind = INTEGER, .min = 0, .max = CONFIG_TIMEOUT_MS_MAX },
	[BREAKER_STATUSES] = STATUSES("failure_status_codes"),
};
const struct config_shape config_shape_breaker = SHAPE(breaker_fields, BREAKER_FIELDS);

static const struct field strategy_fields[] = {
	[STRATEGY_MODE] = { .name = "mode", .kind = MODE },
	[STRATEGY_STATUSES] = STATUSES("on_status_codes"),
	[STRATEGY_CONDITIONS] = { .name = "conditions", .kind = ARRAY, .element = OBJECT, .shape = &config_shape_condition,
	    .max = CONFIG_CONDITIONS_MAX },
	[STRATEGY_DEFAULT] = { .name = "default", .kind = TEXT },
	[STRATEGY_STICKY] = { .name = "sticky", .kind = OBJECT, .shape = &config_shape_sticky },
	[STRATEGY_BREAKER] = { .name = "cb_config", .kind = OBJECT, .shape = &config_shape_breaker },
};
const struct config_shape config_shape_strategy = SHAPE(strategy_fields, STRATEGY_FIELDS);

static const struct field retry_fields[] = {
	[RETRY_ATTEMPTS] = { .name = "attempts", .kind = INTEGER, .min = 0, .max = CONFIG_RETRIES_MAX },
	[RETRY_STATUSES] = STATUSES("on_status_codes"),
	[RETRY_AFTER_HEADERS] = { .name = "use_retry_after_headers", .kind = BOOLEAN },
	[RETRY_AFTER_HEADER] = { .name = "use_retry_after_header", .kind = BOOLEAN },
};
const struct config_shape config_shape_retry = SHAPE(retry_fields, RETRY_FIELDS);

static const struct field cache_fields[] = {
	[CACHE_MODE] = { .name = "mode", .kind = CACHING },
	[CACHE_MAX_AGE] = { .name = "max_age", .kind = INTEGER, .min = 0, .max = INT64_MAX },
};
const struct config_shape config_shape_cache = SHAPE(cache_fields, CACHE_FIELDS);

static const struct field check_fields[] = {
	{ .name = "id", .kind = STRING },
	{ .name = "name", .kind = STRING },
	{ .name = "parameters", .kind = OPEN },
	{ .name = "is_enabled", .kind = BOOLEAN },
};
static const struct config_shape check_shape = SHAPE(check_fields, 0);

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
static const struct config_shape hook_shape = SHAPE(hook_fields, 0);

static const struct field level_fields[] = {
	[LEVEL_STRATEGY] = { .name = "strategy", .kind = OBJECT, .shape = &config_shape_strategy },
	[LEVEL_TARGETS] = { .name = "targets", .kind = ARRAY, .element = OBJECT, .shape = &config_shape_level },
	[LEVEL_NAME] = { .name = "name", .kind = TEXT },
	[LEVEL_WEIGHT] = { .name = "weight", .kind = WEIGHT },
	[LEVEL_PROVIDER] = { .name = "provider", .kind = PROVIDER },
	[LEVEL_VIRTUAL_KEY] = { .name = "virtual_key", .kind = SLUG },
	[LEVEL_API_KEY] = { .name = "api_key", .kind = SECRET },
	[LEVEL_PASSTHROUGH] = { .name = "passthrough", .kind = BOOLEAN },
	[LEVEL_OVERRIDE_PARAMS] = { .name = "override_params", .kind = PARAMS },
	[LEVEL_DEFAULT_PARAMS] = { .name = "default_params", .kind = PARAMS },
	[LEVEL_DROP_PARAMS] = { .name = "drop_params", .kind = ARRAY, .element = STRING, .max = CONFIG_DROPS_MAX },
	[LEVEL_RETRY] = { .name = "retry", .kind = OBJECT, .shape = &config_shape_retry },
	[LEVEL_CACHE] = { .name = "cache", .kind = OBJECT, .shape = &config_shape_cache },
	[LEVEL_REQUEST_TIMEOUT] = { .name = "request_timeout", .kind = INTEGER, .min = 1, .max = CONFIG_TIMEOUT_MS_MAX },
	[LEVEL_CUSTOM_HOST] = { .name = "custom_host", .kind = STRING },
	[LEVEL_FORWARD_HEADERS] = { .name = "forward_headers", .kind = ARRAY, .element = HEADER, .max = CONFIG_HEADERS_MAX },
	[LEVEL_STRICT] = { .name = "strict_open_ai_compliance", .kind = BOOLEAN },
	[LEVEL_BREAKER] = { .name = "cb_config", .kind = OBJECT, .shape = &config_shape_breaker },
	[LEVEL_INTEGRATED_MODELS] = { .name = "fetch_integrated_models", .kind = BOOLEAN },
	{ .name = "input_guardrails", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "output_guardrails", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "before_request_hooks", .kind = ARRAY, .element = OBJECT, .shape = &hook_shape, LATER },
	{ .name = "after_request_hooks", .kind = ARRAY, .element = OBJECT, .shape = &hook_shape, LATER },
	{ .name = "input_mutators", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "output_mutators", .kind = ARRAY, .element = FREE, LATER },
	{ .name = "prompt_id", .kind = STRING, LATER },
};
const struct config_shape config_shape_level = SHAPE(level_fields, LEVEL_FIELDS);
_Static_assert(sizeof(level_fields) / sizeof(level_fields[0]) <= FIELDS_MAX, "raise the type of frame.seen");

/* Settings of a provider that is named in the config itself. */
static const char *const inline_prefixes[] = {
	"amzn_", "anthropic_", "aws_", "azure_", "fireworks_", "huggingface_", "openai_",
	"oracle_", "snowflake_", "vertex_", "workers_ai_",
};
static const struct field inline_setting = { .name = "", .kind = FREE, LATER };

/* Headers that the client cannot have sent on, by whole names. */
static const struct { const char *name, *why; } kept_headers[] = {
#define HOP "belongs to the connection between two peers"
	{ "connection", HOP }, { "keep-alive", HOP }, { "proxy-connection", HOP }, { "proxy-authenticate", HOP },
	{ "te", HOP }, { "trailer", HOP }, { "transfer-encoding", HOP }, { "upgrade", HOP }, { "expect", HOP },
#undef HOP
#define CREDENTIAL "is a credential between the client and weir"
	{ "authorization", CREDENTIAL }, { "proxy-authorization", CREDENTIAL }, { "x-api-key", CREDENTIAL },
	{ "api-key", CREDENTIAL }, { "cookie", CREDENTIAL },
#undef CREDENTIAL
#define OWN "is written by weir for each request"
	{ "host", OWN }, { "content-length", OWN }, { "content-encoding", OWN }, { "accept-encoding", OWN },
#undef OWN
};

/*
 * One object or array that the walk is in. A level of targets takes two (the
 * array and the object); below the last level come at most four: hooks, a hook,
 * checks, a check.
 */
#define FRAMES_MAX (2 * CONFIG_LEVELS_MAX + 5)

struct frame {
	struct json_iter it;
	const struct config_shape *shape;	/* NULL: an array ... */
	const struct field *field;	/* ... of this field's elements; or the field that holds the object */
	uint32_t index;			/* of the next element */
	size_t path_n;			/* path of the object or array itself */
	uint32_t level;			/* config objects around and including it */
	uint64_t seen;			/* fields of the shape that were given */
	enum config_mode mode;		/* of a level and its strategy, as far as it is known */
	uint32_t targets;		/* of a level: how many */
	bool later;			/* inside of something that is not done yet */
};

struct walk {
	struct problems *problems;
	struct buf path;		/* of the value at hand, NUL-terminated */
	uint32_t levels;		/* config objects so far */
	bool hopeless;			/* nothing is to be built of it */
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

/* A problem of a member of the object at hand, which may be absent. */
static void
member_problem(struct walk *w, const char *name, const char *what)
{
	size_t here = w->path.n;

	path_add_name(w, name);
	problem_add(w->problems, path_of(w), "%s", what);
	path_cut(w, here);
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

static const char *
kind_name(enum kind kind)
{
	switch (kind) {
	case BOOLEAN:
		return "true or false";
	case INTEGER:
	case WEIGHT:
	case PERCENT:
		return "a number";
	case PARAMS:
	case OPEN:
	case OBJECT:
		return "an object";
	case ARRAY:
		return "an array";
	case FREE:
		return "a string or an object";
	default:
		return "a string";
	}
}

static bool
has_type(enum kind kind, struct slice value)
{
	char first = value.p[0];

	switch (kind) {
	case BOOLEAN:
		return first == 't' || first == 'f';
	case INTEGER:
	case WEIGHT:
	case PERCENT:
		return first == '-' || (first >= '0' && first <= '9');
	case PARAMS:
	case OPEN:
	case OBJECT:
		return first == '{';
	case ARRAY:
		return first == '[';
	case FREE:
		return first == '{' || first == '"';
	default:
		return first == '"';
	}
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
field_find(const struct config_shape *shape, const char *name)
{
	for (uint32_t i = 0; i < shape->count; i++)
		if (strcmp(shape->fields[i].name, name) == 0)
			return &shape->fields[i];
	if (shape != &config_shape_level)
		return NULL;
	for (size_t i = 0; i < sizeof(inline_prefixes) / sizeof(inline_prefixes[0]); i++)
		if (slice_starts(slice_of(name), slice_of(inline_prefixes[i])))
			return &inline_setting;
	return NULL;
}

static void
unknown_field(struct walk *w, const struct config_shape *shape, const char *name)
{
	struct problem_guess guess = { .wanted = slice_of(name) };

	if (shape == &config_shape_level && strcmp(name, "options") == 0) {
		problem_add(w->problems, path_of(w), "This version of config is not supported in this route. Please migrate "
		    "to the latest version");
		return;
	}
	for (uint32_t i = 0; i < shape->count && w->problems->count < GUESSES_MAX; i++)
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

enum config_mode
config_fields_mode(struct slice raw)
{
	static const char *const names[] = {
		[CONFIG_SINGLE] = "single", [CONFIG_FALLBACK] = "fallback", [CONFIG_LOADBALANCE] = "loadbalance",
		[CONFIG_CONDITIONAL] = "conditional",
	};
	enum config_mode mode = CONFIG_CONDITIONAL;

	while (mode > CONFIG_LEAF && !json_string_eq(raw, names[mode]))
		mode--;
	return mode;
}

static void
check_mode(struct walk *w, struct slice raw)
{
	enum config_mode mode = config_fields_mode(raw);

	if (mode == CONFIG_LEAF)
		problem_add(w->problems, path_of(w), "must be \"single\", \"fallback\", \"loadbalance\" or \"conditional\", not %s",
		    problem_name(raw).text);
	/* Of the strategy, and of the level that it belongs to. */
	w->frames[w->depth - 1].mode = mode;
	w->frames[w->depth - 2].mode = mode;
}

static bool
has_control(struct slice text)
{
	for (size_t i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f)
			return true;
	return false;
}

static void
check_text(struct walk *w, struct slice raw)
{
	char text[CONFIG_NAME_BYTES_MAX + 1];
	size_t n = json_unescape(raw, text, sizeof(text));

	if (n == 0 || n >= sizeof(text) || has_control((struct slice){ text, n }))
		problem_add(w->problems, path_of(w), "must have 1 to %d bytes, without control characters", CONFIG_NAME_BYTES_MAX);
}

static void
check_secret(struct walk *w, struct slice raw)
{
	char text[CONFIG_API_KEY_BYTES_MAX + 1];
	size_t n = json_unescape(raw, text, sizeof(text));
	bool fine = n > 0 && n < sizeof(text);

	for (size_t i = 0; i < n && fine; i++)
		fine = text[i] > ' ' && text[i] < 0x7f;
	explicit_bzero(text, sizeof(text));
	if (!fine)
		problem_add(w->problems, path_of(w), "must be 1 to %d characters of printable ASCII without spaces: it becomes "
		    "a header", CONFIG_API_KEY_BYTES_MAX);
}

/* Bytes of HTTP's names. */
static bool
is_token(struct slice name)
{
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    (c && strchr("!#$%&'*+-.^_`|~", c))))
			return false;
	}
	return name.n > 0;
}

const char *
config_header_kept(struct slice name)
{
	if (name.n >= 10 && slice_ieq((struct slice){ name.p, 10 }, SLICE("x-portkey-")))
		return "is for weir alone";
	for (size_t i = 0; i < sizeof(kept_headers) / sizeof(kept_headers[0]); i++)
		if (slice_ieq(name, slice_of(kept_headers[i].name)))
			return kept_headers[i].why;
	return NULL;
}

static void
check_header(struct walk *w, struct slice raw)
{
	char text[CONFIG_NAME_BYTES_MAX + 1];
	struct slice name = { text, json_unescape(raw, text, sizeof(text)) };

	if (name.n >= sizeof(text) || !is_token(name)) {
		problem_add(w->problems, path_of(w), "must be a header's name of 1 to %d bytes", CONFIG_NAME_BYTES_MAX);
		return;
	}
	const char *why = config_header_kept(name);

	if (why)
		problem_add(w->problems, path_of(w), "\"%s\" %s, and is never forwarded", text, why);
}

static void
check_weight(struct walk *w, struct slice value)
{
	/* A number stands inside of an object: strtod() ends at what follows it. */
	double weight = strtod(value.p, NULL);

	if (!isfinite(weight) || weight < 0 || value.p[0] == '-' || weight > CONFIG_WEIGHT_MAX)
		problem_add(w->problems, path_of(w), "must be a number from 0 to %d", CONFIG_WEIGHT_MAX);
}

static void
check_percent(struct walk *w, struct slice value)
{
	int64_t permille;

	if (!decimal_parse(value, 1, 1000, &permille) || permille == 0)
		problem_add(w->problems, path_of(w), "must be more than 0 and at most 100, with one digit behind the point at most");
}

static void
check_model(struct walk *w, struct slice raw)
{
	char text[CONFIG_MODEL_BYTES_MAX + 1];
	struct slice slug, bare;

	if (raw.p[0] != '"') {
		problem_add(w->problems, path_of(w), "must be a string, not %s", type_name(raw));
		return;
	}
	size_t n = json_unescape(raw, text, sizeof(text));
	if (n == 0 || n >= sizeof(text)) {
		problem_add(w->problems, path_of(w), "must be a model's name of 1 to %d bytes, such as "
		    "\"@anthropic/claude-sonnet-4-5\"", CONFIG_MODEL_BYTES_MAX);
		return;
	}
	struct slice model = { text, n };
	if (has_control(model))
		problem_add(w->problems, path_of(w), "must not contain control characters");
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

	CHECK(json_iter_object(&it, object));
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

static bool
in_range(const struct field *f, struct slice value)
{
	int64_t number;

	return json_to_i64(value, &number) && number >= f->min && number <= f->max;
}

static void
check_integer(struct walk *w, const struct field *f, struct slice value)
{
	if (in_range(f, value))
		return;
	if (f->max == INT64_MAX)
		problem_add(w->problems, path_of(w), "must be a whole number, %" PRId64 " or more", f->min);
	else
		problem_add(w->problems, path_of(w), "must be a whole number from %" PRId64 " to %" PRId64, f->min, f->max);
}

static void
check_value(struct walk *w, const struct field *f, enum kind kind, struct slice value)
{
	if (kind == INTEGER)
		check_integer(w, f, value);
	else if (kind == WEIGHT)
		check_weight(w, value);
	else if (kind == PERCENT)
		check_percent(w, value);
	else if (kind == TEXT)
		check_text(w, value);
	else if (kind == SECRET)
		check_secret(w, value);
	else if (kind == SLUG || kind == PROVIDER)
		check_slug(w, value, kind == PROVIDER);
	else if (kind == MODE)
		check_mode(w, value);
	else if (kind == CACHING && !json_string_eq(value, "simple") && !json_string_eq(value, "semantic"))
		problem_add(w->problems, path_of(w), "must be \"simple\" or \"semantic\", not %s", problem_name(value).text);
	else if (kind == HEADER)
		check_header(w, value);
	else if (kind == PARAMS)
		check_params(w, value);
}

/* ---- the walk ---- */

static void
push(struct walk *w, const struct config_shape *shape, const struct field *f, struct slice value, bool later)
{
	struct frame frame = { .shape = shape, .field = f, .path_n = w->path.n, .later = later };

	CHECK(shape ? json_iter_object(&frame.it, value) : json_iter_array(&frame.it, value));
	if (w->depth > 0)
		frame.level = w->frames[w->depth - 1].level;
	if (shape == &config_shape_level) {
		if (++frame.level > CONFIG_LEVELS_MAX) {
			problem_add(w->problems, path_of(w), "targets nest deeper than %d levels", CONFIG_LEVELS_MAX);
			w->hopeless = true;
			return;
		}
		w->levels++;
	}
	CHECK(w->depth < FRAMES_MAX);
	w->frames[w->depth++] = frame;
}

static void
value_check(struct walk *w, const struct field *f, enum kind kind, struct slice value, bool later)
{
	if (!has_type(kind, value))
		problem_add(w->problems, path_of(w), "must be %s, not %s", kind_name(kind), type_name(value));
	else if (kind == OBJECT)
		push(w, f->shape, f, value, later);
	else if (kind == ARRAY)
		push(w, NULL, f, value, later);
	else
		check_value(w, f, kind, value);
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
seen(const struct frame *frame, uint32_t field)
{
	return frame->seen >> field & 1;
}

static void
level_end(struct walk *w, const struct frame *frame)
{
	static const uint32_t own_only[] = { LEVEL_PROVIDER, LEVEL_VIRTUAL_KEY, LEVEL_API_KEY, LEVEL_PASSTHROUGH };
	uint32_t most = frame->level > 1 ? CONFIG_TARGETS_NESTED_MAX :
	    frame->mode == CONFIG_CONDITIONAL ? CONFIG_TARGETS_CONDITIONAL_MAX : CONFIG_TARGETS_MAX;

	if (!seen(frame, LEVEL_TARGETS)) {
		if (seen(frame, LEVEL_STRATEGY))
			member_problem(w, "strategy", "has no \"targets\" beside it to choose from");
		return;
	}
	for (size_t i = 0; i < sizeof(own_only) / sizeof(own_only[0]); i++)
		if (seen(frame, own_only[i]))
			member_problem(w, level_fields[own_only[i]].name, "not inherited by targets: put it into the target");
	if (frame->targets <= most)
		return;
	path_add_name(w, "targets");
	problem_add(w->problems, path_of(w), "more than %u targets on this level", most);
	w->hopeless = true;
}

static void
strategy_end(struct walk *w, const struct frame *frame)
{
	static const struct { uint32_t field; enum config_mode mode; const char *what; } belongs[] = {
		{ STRATEGY_STATUSES, CONFIG_FALLBACK, "belongs to the mode \"fallback\"" },
		{ STRATEGY_CONDITIONS, CONFIG_CONDITIONAL, "belongs to the mode \"conditional\"" },
		{ STRATEGY_DEFAULT, CONFIG_CONDITIONAL, "belongs to the mode \"conditional\"" },
		{ STRATEGY_STICKY, CONFIG_LOADBALANCE, "belongs to the mode \"loadbalance\"" },
	};

	if (!seen(frame, STRATEGY_MODE))
		problem_add(w->problems, path_of(w), "needs \"mode\"");
	if (frame->mode == CONFIG_LEAF)
		return;			/* it is not known what fits */
	for (size_t i = 0; i < sizeof(belongs) / sizeof(belongs[0]); i++)
		if (seen(frame, belongs[i].field) && frame->mode != belongs[i].mode)
			member_problem(w, strategy_fields[belongs[i].field].name, belongs[i].what);
	if (frame->mode == CONFIG_CONDITIONAL && !seen(frame, STRATEGY_CONDITIONS))
		problem_add(w->problems, path_of(w), "needs \"conditions\"");
	if (frame->mode == CONFIG_CONDITIONAL && seen(frame, STRATEGY_BREAKER))
		member_problem(w, "cb_config", "is not passed on by a conditional: put it into the targets");
}

/* What can only be said of an object as a whole, once it has been walked. */
static void
object_end(struct walk *w, const struct frame *frame)
{
	static const struct { const struct config_shape *shape; uint32_t field, or; const char *what; } needs[] = {
		{ &config_shape_condition, CONDITION_QUERY, CONDITION_QUERY, "needs \"query\"" },
		{ &config_shape_condition, CONDITION_THEN, CONDITION_THEN, "needs \"then\"" },
		{ &config_shape_retry, RETRY_ATTEMPTS, RETRY_ATTEMPTS, "needs \"attempts\"" },
		{ &config_shape_cache, CACHE_MODE, CACHE_MODE, "needs \"mode\"" },
		{ &config_shape_breaker, BREAKER_THRESHOLD, BREAKER_PERCENTAGE,
		    "needs \"failure_threshold\" or \"failure_threshold_percentage\"" },
	};

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (frame->shape == needs[i].shape && !seen(frame, needs[i].field) && !seen(frame, needs[i].or))
			problem_add(w->problems, path_of(w), "%s", needs[i].what);
	if (frame->shape == &config_shape_retry && seen(frame, RETRY_AFTER_HEADERS) && seen(frame, RETRY_AFTER_HEADER))
		member_problem(w, "use_retry_after_header", "given twice, in its two spellings");
	if (frame->shape == &config_shape_level)
		level_end(w, frame);
	else if (frame->shape == &config_shape_strategy)
		strategy_end(w, frame);
}

static void
array_end(struct walk *w, const struct frame *frame)
{
	if (frame->field == &level_fields[LEVEL_TARGETS]) {
		w->frames[w->depth - 2].targets = frame->index;
		if (frame->index == 0)
			problem_add(w->problems, path_of(w), "must have a target");
	}
	if (frame->field == &strategy_fields[STRATEGY_CONDITIONS] && frame->index == 0)
		problem_add(w->problems, path_of(w), "must have a condition");
}

/* An element too many? Of targets it is known at the end of their level how many there may be. */
static bool
array_full(struct walk *w, const struct frame *frame)
{
	const struct field *f = frame->field;

	if (f == &level_fields[LEVEL_TARGETS] && w->levels == CONFIG_NODES_MAX) {
		if (!w->hopeless)
			problem_add(w->problems, path_of(w), "more than %d targets in all", CONFIG_NODES_MAX - 1);
		w->hopeless = true;
		return true;
	}
	if (f->element == INTEGER || f->max == 0 || frame->index < f->max)
		return false;
	problem_add(w->problems, path_of(w), "more than %" PRId64 " elements", f->max);
	w->hopeless = true;
	return true;
}

/* One member or element of the innermost frame, or its end. */
static void
walk_step(struct walk *w)
{
	struct frame *frame = &w->frames[w->depth - 1];
	struct slice name, value;

	path_cut(w, frame->path_n);
	if (!json_next(&frame->it, &name, &value)) {
		if (frame->shape)
			object_end(w, frame);
		else
			array_end(w, frame);
		w->depth--;
		return;
	}
	if (frame->shape) {
		member_check(w, frame, name, value);
		return;
	}
	if (array_full(w, frame)) {
		w->depth--;
		return;
	}
	buf_printf(&w->path, "[%u]", frame->index);
	frame->index++;
	value_check(w, frame->field, frame->field->element, value, frame->later);
}

uint32_t
config_fields_check(struct slice json, const char *path, struct problems *p)
{
	struct walk w = { .problems = p };
	static const struct field document = { .kind = OBJECT, .shape = &config_shape_level };

	buf_init(&w.path, 4096 + CONFIG_LEVELS_MAX * PROBLEM_NAME_BYTES);
	buf_printf(&w.path, "%s", path);
	value_check(&w, &document, OBJECT, json, false);
	while (w.depth > 0)
		walk_step(&w);		/* bounded by the document's length */
	buf_free(&w.path);
	return w.hopeless ? 0 : w.levels;
}

void
config_fields_read(const struct config_shape *shape, struct slice object, struct slice *values)
{
	struct json_iter it;
	struct slice raw, value;
	char name[64];

	for (uint32_t i = 0; i < shape->used; i++)
		values[i] = SLICE_NONE;
	if (!json_iter_object(&it, object))
		return;
	while (json_next(&it, &raw, &value)) {
		const struct field *f = snake_name(raw, name, sizeof(name)) ? field_find(shape, name) : NULL;

		if (!f || f == &inline_setting || f - shape->fields >= shape->used || !has_type(f->kind, value) ||
		    (f->kind == INTEGER && !in_range(f, value)))
			continue;
		values[f - shape->fields] = value;
	}
}
