/*
 * policy/price_book.c -- price documents: read, checked, searched.
 *
 * A document is checked with the care of a compiler, because a wrong price is
 * found out months later: unknown and doubled members, wrong types, floats
 * and impossible dates are errors that name their place ("models[3]
 * .prices[0].input"). What a row leaves out follows from its input price by
 * the provider's own multipliers.
 *
 * The operator's models stand beside the built-in ones of the same name, not
 * in their place: from the first day of the operator's rows on these count,
 * before it the built-in ones do.
 */
#include "policy/price_book.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/json.h"
#include "shm/base/clock.h"

#define MODELS_MAX 4096			/* of one document */
#define ROWS_MAX 64			/* of one model */
#define TEXT_BYTES_MAX 96		/* of a model's id and the like */
#define WEB_SEARCH_PUSD INT64_C(10000000000)	/* 10 USD for 1,000 */
#define BATCH_PERMILLE 500

/* A place in a document, and where the first complaint about it goes. */
struct place {
	char path[96];
	char *why;
	size_t why_size;
};

static bool
complain(const struct place *at, const char *member, const char *what)
{
	snprintf(at->why, at->why_size, "%s%s%s: %s", at->path,
	    at->path[0] && member[0] ? "." : "", member, what);
	return false;
}

static struct place
place_in(const struct place *at, const char *member, int index)
{
	struct place in = { .why = at->why, .why_size = at->why_size };

	snprintf(in.path, sizeof(in.path), "%.60s%s%s[%d]", at->path, at->path[0] ? "." : "", member, index);
	return in;
}

/* Only members of `known` (a list that NULL ends), each once. */
static bool
check_members(const struct place *at, const cJSON *object, const char *const *known)
{
	if (!cJSON_IsObject(object))
		return complain(at, "", "expected an object");
	for (const cJSON *m = object->child; m; m = m->next) {
		const char *const *k = known;

		while (*k && strcmp(*k, m->string) != 0)
			k++;
		if (!*k)
			return complain(at, m->string, "unknown member");
		if (cJSON_GetObjectItemCaseSensitive(object, m->string) != m)
			return complain(at, m->string, "this member is there twice");
	}
	return true;
}

/* An integer from 0 to max; absent leaves *out. */
static bool
read_integer(const struct place *at, const cJSON *object, const char *member, int64_t max, int64_t *out)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, member);

	if (!m)
		return true;
	/* Doubles hold integers up to 2^53, and max is far below. */
	if (!cJSON_IsNumber(m) || !(m->valuedouble >= 0) || m->valuedouble > 9e15 ||
	    m->valuedouble != (double)(int64_t)m->valuedouble)
		return complain(at, member, "expected an integer >= 0");
	if ((int64_t)m->valuedouble > max) {
		char what[64];

		snprintf(what, sizeof(what), "expected at most %lld", (long long)max);
		return complain(at, member, what);
	}
	*out = (int64_t)m->valuedouble;
	return true;
}

static bool
read_permille(const struct place *at, const cJSON *object, const char *member, int64_t max, int32_t *out)
{
	int64_t n = *out;

	if (!read_integer(at, object, member, max, &n))
		return false;
	*out = (int32_t)n;
	return true;
}

static bool
read_bool(const struct place *at, const cJSON *object, const char *member, bool *out)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, member);

	if (m && !cJSON_IsBool(m))
		return complain(at, member, "expected true or false");
	if (m)
		*out = cJSON_IsTrue(m);
	return true;
}

/* A text of 1 to TEXT_BYTES_MAX bytes; absent: NULL if it may be. */
static bool
read_text(const struct place *at, const cJSON *object, const char *member, bool required, const char **out)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, member);

	*out = NULL;
	if (!m && !required)
		return true;
	if (!cJSON_IsString(m) || m->valuestring[0] == '\0' || strlen(m->valuestring) > TEXT_BYTES_MAX)
		return complain(at, member, "expected a text of 1 to 96 bytes");
	*out = m->valuestring;
	return true;
}

/* "2026-09-22" -> days since 1970; false: no such day. */
static bool
parse_day(const char *text, int64_t *days)
{
	static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int year, month, day, used = 0;

	if (strlen(text) != 10 || strspn(text, "0123456789-") != 10 ||
	    sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &used) != 3 || used != 10)
		return false;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 ||
	    day > month_days[month - 1] + (leap && month == 2))
		return false;
	/* Days from the civil calendar: years begin in March, so that the leap
	 * day is their last; 719468 days lie between year 0's March and 1970. */
	int64_t y = month <= 2 ? year - 1 : year, m = (month + 9) % 12;
	*days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
	return true;
}

/* A day as wall time at its beginning; absent leaves *out. */
static bool
read_day(const struct place *at, const cJSON *object, const char *member, int64_t *wall_ns,
    char text[PRICE_DAY_BYTES])
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, member);
	int64_t days;

	if (!m)
		return true;
	if (!cJSON_IsString(m) || !parse_day(m->valuestring, &days))
		return complain(at, member, "expected a day as \"2026-09-22\"");
	*wall_ns = days * 86400 * NS_PER_S;
	if (text)
		snprintf(text, PRICE_DAY_BYTES, "%s", m->valuestring);
	return true;
}

/* The classes of one set of rates; what is absent follows from input. */
static bool
read_rates(const struct place *at, const cJSON *object, struct price_rates *r)
{
	static const struct { const char *name; enum token_class class; int64_t input_permille; } members[] = {
		{ "input", TOKENS_INPUT, 1000 },
		{ "output", TOKENS_OUTPUT, 0 },
		{ "cache_write_5m", TOKENS_CACHE_WRITE_5M, 1250 },
		{ "cache_write_1h", TOKENS_CACHE_WRITE_1H, 2000 },
		{ "cache_read", TOKENS_CACHE_READ, 100 },
	};

	for (int i = 0; i < 2; i++)
		if (!cJSON_GetObjectItemCaseSensitive(object, members[i].name))
			return complain(at, members[i].name, "expected an integer >= 0, it is required");
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		int64_t *pusd = &r->pusd[members[i].class];

		*pusd = r->pusd[TOKENS_INPUT] * members[i].input_permille / 1000;
		if (!read_integer(at, object, members[i].name, PRICE_PUSD_MAX, pusd))
			return false;
	}
	return true;
}

static bool
read_steps(const struct place *at, const cJSON *object, struct price_row *r)
{
	static const char *const known[] = { "above_prompt_tokens", "input", "output", "cache_write_5m",
		"cache_write_1h", "cache_read", NULL };
	const cJSON *steps = cJSON_GetObjectItemCaseSensitive(object, "steps"), *m;
	int64_t last = 0;

	if (steps && !cJSON_IsArray(steps))
		return complain(at, "steps", "expected an array");
	cJSON_ArrayForEach(m, steps) {
		struct place in = place_in(at, "steps", (int)r->steps_count);

		if (r->steps_count == PRICE_STEPS_MAX)
			return complain(&in, "", "too many steps");
		struct price_step *s = &r->steps[r->steps_count++];
		s->rates = r->base;	/* for the price of a search */
		if (!check_members(&in, m, known) || !read_rates(&in, m, &s->rates) ||
		    !read_integer(&in, m, "above_prompt_tokens", USAGE_TOKENS_MAX, &s->above_prompt_tokens))
			return false;
		if (s->above_prompt_tokens <= last)
			return complain(&in, "above_prompt_tokens", "expected an integer > 0, above the step before");
		last = s->above_prompt_tokens;
	}
	return true;
}

static bool
read_fast(const struct place *at, const cJSON *object, struct price_row *r)
{
	static const char *const known[] = { "permille", "confirmed", NULL };
	const cJSON *fast = cJSON_GetObjectItemCaseSensitive(object, "fast");
	struct place in = { .why = at->why, .why_size = at->why_size };

	r->fast_confirmed = true;
	if (!fast)
		return true;
	snprintf(in.path, sizeof(in.path), "%.80s.fast", at->path);
	if (!check_members(&in, fast, known) ||
	    !read_permille(&in, fast, "permille", PRICE_PERMILLE_MAX, &r->fast_permille) ||
	    !read_bool(&in, fast, "confirmed", &r->fast_confirmed))
		return false;
	return r->fast_permille > 0 || complain(&in, "permille", "expected an integer > 0");
}

static bool
read_row(const struct place *at, const cJSON *object, struct price_row *r)
{
	static const char *const known[] = { "valid_from", "source", "confirmed", "input", "output",
		"cache_write_5m", "cache_write_1h", "cache_read", "web_search", "batch_multiplier_permille",
		"geo_us_permille", "fast", "steps", NULL };
	char day[PRICE_DAY_BYTES] = "1970-01-01";
	const cJSON *source = cJSON_GetObjectItemCaseSensitive(object, "source");

	r->confirmed = true;
	r->batch_permille = BATCH_PERMILLE;
	r->base.pusd[TOKENS_WEB_SEARCHES] = WEB_SEARCH_PUSD;
	if (!check_members(at, object, known) || !read_rates(at, object, &r->base) ||
	    !read_integer(at, object, "web_search", PRICE_PUSD_MAX, &r->base.pusd[TOKENS_WEB_SEARCHES]) ||
	    !read_day(at, object, "valid_from", &r->from_wall_ns, day) ||
	    !read_bool(at, object, "confirmed", &r->confirmed) ||
	    /* Never dearer than list: bounds leave batch prices out. */
	    !read_permille(at, object, "batch_multiplier_permille", 1000, &r->batch_permille) ||
	    !read_permille(at, object, "geo_us_permille", PRICE_PERMILLE_MAX, &r->geo_us_permille) ||
	    !read_fast(at, object, r) || !read_steps(at, object, r))
		return false;
	if (source && !cJSON_IsString(source))
		return complain(at, "source", "expected a text");
	snprintf(r->name, sizeof(r->name), "%s@%s", r->model->id, day);
	r->name_bytes = (uint32_t)strlen(r->name);
	return true;
}

static bool
read_rows(const struct place *at, const cJSON *object, struct price_model *m)
{
	const cJSON *prices = cJSON_GetObjectItemCaseSensitive(object, "prices"), *row;
	int n = cJSON_GetArraySize(prices);

	if (!cJSON_IsArray(prices) || n == 0 || n > ROWS_MAX)
		return complain(at, "prices", "expected an array of 1 to 64 prices");
	m->rows = calloc((size_t)n, sizeof(*m->rows));
	if (!m->rows)
		return complain(at, "prices", "no memory");
	cJSON_ArrayForEach(row, prices) {
		struct place in = place_in(at, "prices", (int)m->rows_count);
		struct price_row *r = &m->rows[m->rows_count++];

		r->model = m;
		if (!read_row(&in, row, r))
			return false;
		if (r > m->rows && r->from_wall_ns <= r[-1].from_wall_ns)
			return complain(&in, "valid_from", "expected a later day than that of the price before");
	}
	return true;
}

/* The texts of a model, in one allocation. */
static bool
copy_texts(struct price_model *m, const char *const from[4])
{
	char **to[] = { &m->provider, &m->id, &m->display_name, &m->family };
	size_t n = 0;

	for (int i = 0; i < 4; i++)
		n += strlen(from[i]) + 1;
	char *p = malloc(n);
	if (!p)
		return false;
	for (int i = 0; i < 4; i++) {
		*to[i] = p;
		p = stpcpy(p, from[i]) + 1;
	}
	return true;
}

static bool
read_model(const struct place *at, const cJSON *object, struct price_model *m)
{
	static const char *const known[] = { "provider", "model", "display_name", "family", "created_at",
		"deprecated_at", "retires_at", "max_input_tokens", "max_output_tokens", "prices", NULL };
	const char *provider, *id, *display_name, *family;

	m->deprecated_wall_ns = m->retires_wall_ns = INT64_MAX;
	if (!check_members(at, object, known) ||
	    !read_text(at, object, "provider", false, &provider) ||
	    !read_text(at, object, "model", true, &id) ||
	    !read_text(at, object, "display_name", false, &display_name) ||
	    !read_text(at, object, "family", false, &family) ||
	    !read_day(at, object, "created_at", &m->created_wall_ns, NULL) ||
	    !read_day(at, object, "deprecated_at", &m->deprecated_wall_ns, NULL) ||
	    !read_day(at, object, "retires_at", &m->retires_wall_ns, NULL) ||
	    !read_integer(at, object, "max_input_tokens", USAGE_TOKENS_MAX, &m->max_input_tokens) ||
	    !read_integer(at, object, "max_output_tokens", USAGE_TOKENS_MAX, &m->max_output_tokens))
		return false;
	const char *const texts[4] = { provider ? provider : "anthropic", id,
		display_name ? display_name : "", family ? family : "" };
	if (!copy_texts(m, texts))
		return complain(at, "", "no memory");
	return read_rows(at, object, m);
}

static bool
read_models(struct price_book *b, const cJSON *models, bool override, const struct place *at)
{
	const cJSON *m;
	int n = cJSON_GetArraySize(models), i = 0;

	if (!cJSON_IsArray(models) || n > MODELS_MAX)
		return complain(at, "models", "expected an array of at most 4096 models");
	struct price_model *grown = realloc(b->models, (b->models_count + (size_t)n + 1) * sizeof(*grown));
	if (!grown)
		return complain(at, "models", "no memory");
	b->models = grown;
	cJSON_ArrayForEach(m, models) {
		struct place in = place_in(at, "models", i++);
		struct price_model *to = &b->models[b->models_count++];

		*to = (struct price_model){ .override = override };
		if (!read_model(&in, m, to))
			return false;
		for (struct price_model *o = b->models; o < to; o++)
			if (o->override == override && strcmp(o->provider, to->provider) == 0 &&
			    strcmp(o->id, to->id) == 0)
				return complain(&in, "model", "this model is there twice");
	}
	return true;
}

static bool
read_document(struct price_book *b, const cJSON *doc, bool override, const struct place *at)
{
	static const char *const known[] = { "$schema", "version", "currency", "unit", "models", NULL };
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(doc, "version");
	const cJSON *currency = cJSON_GetObjectItemCaseSensitive(doc, "currency");
	const cJSON *unit = cJSON_GetObjectItemCaseSensitive(doc, "unit");

	if (!check_members(at, doc, known))
		return false;
	if (!cJSON_IsNumber(version) || version->valuedouble != 1)
		return complain(at, "version", "expected 1");
	if (currency && (!cJSON_IsString(currency) || strcmp(currency->valuestring, "USD") != 0))
		return complain(at, "currency", "expected \"USD\"");
	if (unit && (!cJSON_IsString(unit) || strcmp(unit->valuestring, "pico-dollars per token") != 0))
		return complain(at, "unit", "expected \"pico-dollars per token\"");
	return read_models(b, cJSON_GetObjectItemCaseSensitive(doc, "models"), override, at);
}

static bool
read_text_document(struct price_book *b, struct slice json, bool override, const struct place *at)
{
	struct json_error e;

	if (!json_check(json, &e)) {
		size_t line = 1;

		for (size_t i = 0; i < e.offset; i++)
			line += json.p[i] == '\n';
		snprintf(at->why, at->why_size, "line %zu (byte %zu): %s", line, e.offset, e.what);
		return false;
	}
	cJSON *doc = cJSON_ParseWithLength(json.p, json.n);
	if (!doc)
		return complain(at, "", "no memory");
	bool ok = read_document(b, doc, override, at);
	cJSON_Delete(doc);
	return ok;
}

/* FNV-1a, eight bytes at a time. Equal names have equal keys; others may, and
 * are told apart then. */
static uint64_t
key_add(uint64_t key, struct slice text)
{
	const uint64_t prime = UINT64_C(0x100000001b3);
	uint64_t word;

	for (; text.n >= sizeof(word); text.p += sizeof(word), text.n -= sizeof(word)) {
		memcpy(&word, text.p, sizeof(word));
		key = (key ^ word) * prime;
		key ^= key >> 32;
	}
	for (size_t i = 0; i < text.n; i++)
		key = (key ^ (unsigned char)text.p[i]) * prime;
	return key;
}

static uint64_t
key_of(struct slice provider, struct slice id)
{
	return key_add(key_add(UINT64_C(0xcbf29ce484222325), provider), id);
}

static int
by_key(const void *x, const void *y)
{
	const struct price_model *a = x, *b = y;
	int order = (a->key > b->key) - (a->key < b->key);

	if (order == 0)
		order = strcmp(a->provider, b->provider);
	if (order == 0)
		order = strcmp(a->id, b->id);
	return order ? order : b->override - a->override;
}

/* The order is final: rows can point at their models, and an operator's
 * model takes over what only the built-in one says of itself. */
static void
link_models(struct price_book *b)
{
	for (uint32_t i = 0; i < b->models_count; i++)
		b->models[i].key = key_of(slice_of(b->models[i].provider), slice_of(b->models[i].id));
	qsort(b->models, b->models_count, sizeof(*b->models), by_key);
	for (uint32_t i = 0; i < b->models_count; i++) {
		struct price_model *m = &b->models[i];
		const struct price_model *builtin = m + 1;

		for (uint32_t k = 0; k < m->rows_count; k++)
			m->rows[k].model = m;
		if (!m->override || i + 1 == b->models_count || strcmp(builtin->id, m->id) != 0 ||
		    strcmp(builtin->provider, m->provider) != 0)
			continue;
		m->created_wall_ns = m->created_wall_ns ? m->created_wall_ns : builtin->created_wall_ns;
		if (m->deprecated_wall_ns == INT64_MAX)
			m->deprecated_wall_ns = builtin->deprecated_wall_ns;
		if (m->retires_wall_ns == INT64_MAX)
			m->retires_wall_ns = builtin->retires_wall_ns;
		m->max_input_tokens = m->max_input_tokens ? m->max_input_tokens : builtin->max_input_tokens;
		m->max_output_tokens = m->max_output_tokens ? m->max_output_tokens : builtin->max_output_tokens;
		m->display_name = m->display_name[0] ? m->display_name : builtin->display_name;
		m->family = m->family[0] ? m->family : builtin->family;
	}
}

struct price_book *
price_book_new(struct slice json, struct slice overrides, char *why, size_t why_size)
{
	struct price_book *b = calloc(1, sizeof(*b));
	struct place root = { .path = "", .why = why, .why_size = why_size };

	if (!b) {
		complain(&root, "", "no memory");
		return NULL;
	}
	if (!read_text_document(b, json, false, &root) ||
	    (overrides.p && !read_text_document(b, overrides, true, &root))) {
		price_book_free(b);
		return NULL;
	}
	link_models(b);
	return b;
}

void
price_book_free(struct price_book *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->models_count; i++) {
		free(b->models[i].provider);	/* the other texts stand behind it */
		free(b->models[i].rows);
	}
	free(b->models);
	free(b);
}

struct slice
price_book_builtin(void)
{
	return (struct slice){ (const char *)prices_json, prices_json_size };
}

static const struct price_row *
row_in_force(const struct price_model *m, int64_t wall_ns)
{
	for (uint32_t i = m->rows_count; i > 0; i--)
		if (m->rows[i - 1].from_wall_ns <= wall_ns)
			return &m->rows[i - 1];
	return NULL;
}

static bool
is_text(struct slice a, const char *b)
{
	return slice_eq(a, slice_of(b));
}

static const struct price_row *
find_exactly(const struct price_book *b, struct slice provider, struct slice id, int64_t wall_ns)
{
	const uint64_t key = key_of(provider, id);
	const struct price_row *r = NULL;
	uint32_t low = 0, high = b->models_count;

	while (low < high) {	/* the first that is not before it */
		uint32_t mid = low + (high - low) / 2;

		if (b->models[mid].key < key)
			low = mid + 1;
		else
			high = mid;
	}
	for (; !r && low < b->models_count && b->models[low].key == key; low++) {
		const struct price_model *m = &b->models[low];

		if (is_text(id, m->id) && is_text(provider, m->provider))
			r = row_in_force(m, wall_ns);
	}
	return r;
}

const struct price_row *
price_find(const struct price_book *b, struct slice provider_type, struct slice model, int64_t wall_ns)
{
	const struct price_row *r;
	size_t digits = 0;

	if (!model.p || !provider_type.p)
		return NULL;
	r = find_exactly(b, provider_type, model, wall_ns);
	while (digits < model.n && model.p[model.n - 1 - digits] >= '0' && model.p[model.n - 1 - digits] <= '9')
		digits++;
	if (r || digits != 8 || model.n < 10 || model.p[model.n - 9] != '-')
		return r;
	model.n -= 9;
	return find_exactly(b, provider_type, model, wall_ns);
}

const struct price_row *
price_dearest(const struct price_book *b, struct slice provider_type, int64_t wall_ns)
{
	const struct price_row *dearest = NULL;

	for (uint32_t i = 0; i < b->models_count; i++) {
		const struct price_row *r = row_in_force(&b->models[i], wall_ns);

		if (r && is_text(provider_type, b->models[i].provider) &&
		    (!dearest || r->base.pusd[TOKENS_OUTPUT] > dearest->base.pusd[TOKENS_OUTPUT]))
			dearest = r;
	}
	return dearest;
}

const struct price_rates *
price_rates_of(const struct price_row *r, int64_t prompt_tokens)
{
	const struct price_rates *rates = &r->base;

	for (uint32_t i = 0; i < r->steps_count; i++)
		if (prompt_tokens > r->steps[i].above_prompt_tokens)
			rates = &r->steps[i].rates;
	return rates;
}

struct slice
price_row_name(const struct price_row *r)
{
	return (struct slice){ r->name, r->name_bytes };
}

static int
newest_first(const void *x, const void *y)
{
	const struct model_info *a = x, *b = y;

	if (a->created_wall_ns != b->created_wall_ns)
		return a->created_wall_ns < b->created_wall_ns ? 1 : -1;
	return strcmp(a->id.p, b->id.p);	/* both are a model's own text */
}

size_t
price_book_models(const struct price_book *b, struct slice provider_type, int64_t wall_ns,
    struct model_info *out, size_t max)
{
	size_t n = 0;

	for (uint32_t i = 0; i < b->models_count && n < max; i++) {
		const struct price_model *m = &b->models[i];

		if (!is_text(provider_type, m->provider) || wall_ns >= m->retires_wall_ns ||
		    !row_in_force(m, wall_ns))
			continue;
		struct slice id = slice_of(m->id);
		if (n > 0 && slice_eq(out[n - 1].id, id))
			continue;	/* the built-in one of an operator's model */
		out[n++] = (struct model_info){
			.id = id,
			.display_name = slice_of(m->display_name[0] ? m->display_name : m->id),
			.family = slice_of(m->family),
			.created_wall_ns = m->created_wall_ns,
			.max_input_tokens = m->max_input_tokens,
			.max_tokens = m->max_output_tokens,
			.deprecated = wall_ns >= m->deprecated_wall_ns,
		};
	}
	qsort(out, n, sizeof(*out), newest_first);
	return n;
}
