/*
 * The settings are described in three places: the table that drives the
 * reading, the JSON Schema in deploy/ and the page in docs/. Row by row, and in
 * both directions, they must say the same; and the page's examples must load.
 */
#include "settings_fixture.h"

#include <cjson/cJSON.h>
#include <inttypes.h>

static const char *
type_word(const struct setting_field *f)
{
	switch (f->kind) {
	case SETTING_SECTION: case SETTING_RAW_OBJECT: return "object";
	case SETTING_LIST: case SETTING_RAW_ARRAY: return "array of objects";
	case SETTING_LISTEN: return "array of addresses or objects";
	case SETTING_STRING: case SETTING_CHOICE: return "string";
	case SETTING_STRINGS: return "array of strings";
	case SETTING_SLUG: return "slug";
	case SETTING_BOOL: return "boolean";
	case SETTING_U32: case SETTING_U64: case SETTING_POWER2: return "integer";
	case SETTING_ADDRESS: return "address";
	case SETTING_DIR: return "folder";
	case SETTING_FILE: return "file";
	case SETTING_SECRET: return "secret";
	case SETTING_RAW_LIMITS: return "limits";
	}
	return NULL;
}

/* 1234567 -> 1,234,567 */
static const char *
grouped(int64_t n)
{
	static char text[4][32];
	static unsigned turn;
	char digits[24], *out = text[turn++ % 4];
	size_t length = (size_t)snprintf(digits, sizeof(digits), "%" PRId64, n), used = 0;

	for (size_t i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			out[used++] = ',';
		out[used++] = digits[i];
	}
	out[used] = '\0';
	return out;
}

static void
bounds_words(const struct setting_field *f, char *out, size_t size)
{
	*out = '\0';
	if (f->choices) {
		size_t n = 0;

		for (const char *at = f->choices; *at; at += strspn(at, "|")) {
			size_t length = strcspn(at, "|");
			n += (size_t)snprintf(out + n, size - n, "%s`%.*s`", n ? ", " : "", (int)length, at);
			at += length;
		}
	} else if (f->kind == SETTING_SLUG) {
		snprintf(out, size, "1 to %d of `A-Z a-z 0-9 . _ -`", CONFIG_SLUG_BYTES_MAX);
	} else if (f->kind == SETTING_FILE) {
		snprintf(out, size, "at most 1 MiB");
	} else if (f->kind == SETTING_LIST || f->kind == SETTING_LISTEN) {
		snprintf(out, size, "at most %s", grouped(f->max));
	} else if (f->kind == SETTING_STRINGS) {
		snprintf(out, size, "at most %d, each %s to %s bytes", SETTINGS_STRINGS_MAX, grouped(f->min), grouped(f->max));
	} else if (f->kind == SETTING_STRING || f->kind == SETTING_SECRET || f->kind == SETTING_DIR) {
		if (f->min > 0)
			snprintf(out, size, "%s to %s bytes", grouped(f->min), grouped(f->max));
		else
			snprintf(out, size, "at most %s bytes", grouped(f->max));
	} else if (f->max > 0) {
		snprintf(out, size, "%s to %s", grouped(f->min), grouped(f->max));
	}
}

struct doc_row { char *path, *type, *fallback, *bounds, *example; };

/* One cell of a table's row; backquotes around the whole of it are taken off. */
static char *
cell(char **at)
{
	char *end = strstr(*at, " |"), *start = *at;

	assert_non_null(end);
	*at = end + 2;
	*end = '\0';
	while (*start == ' ')
		start++;
	while (end > start && end[-1] == ' ')
		*--end = '\0';
	if (end - start >= 2 && *start == '`' && strchr(start + 1, '`') == end - 1) {
		end[-1] = '\0';
		start++;
	}
	return start;
}

/* Rows of the settings' table; `page` is cut up and must live as long. */
static size_t
doc_rows(char *page, struct doc_row *rows, size_t max)
{
	char *rest = strstr(page, "| setting |"), *line;
	size_t n = 0;

	assert_non_null(rest);
	while ((line = strsep(&rest, "\n"))) {
		if (strncmp(line, "| `", 3) != 0)
			continue;
		char *at = line + 1;
		assert_true(n < max);
		struct doc_row row = { .path = cell(&at) };
		row.type = cell(&at);
		row.fallback = cell(&at);
		row.bounds = cell(&at);
		cell(&at);	/* the meaning is for people */
		row.example = cell(&at);
		rows[n++] = row;
	}
	return n;
}

static void
test_page(void **state)
{
	(void)state;
	char *page = read_text(WEIR_SOURCE_DIR "/docs/configuration.md");
	struct doc_row rows[128];
	size_t n = doc_rows(page, rows, 128);

	for (size_t i = 0; i < setting_fields_count; i++) {
		const struct setting_field *f = &setting_fields[i];
		const struct doc_row *row = NULL;
		char bounds[256];

		for (size_t j = 0; j < n; j++)
			if (strcmp(rows[j].path, f->path) == 0)
				row = &rows[j];
		if (!row)
			fail_msg("docs/configuration.md has no row for %s", f->path);
		assert_string_equal(row->type, type_word(f));
		if (f->required)
			assert_string_equal(row->fallback, "required");
		else if (f->fallback)
			assert_string_equal(row->fallback, f->fallback);
		else
			assert_true(row->fallback[0] == '\0' || strcmp(row->fallback, "computed") == 0);
		bounds_words(f, bounds, sizeof(bounds));
		if (f->choices && !strchr(f->choices, '|')) {	/* one choice: its backquotes are gone */
			assert_string_equal(row->bounds, f->choices);
			continue;
		}
		if (strcmp(row->bounds, bounds) != 0)
			fail_msg("docs/configuration.md, %s: bounds \"%s\", should be \"%s\"", f->path, row->bounds, bounds);
	}
	for (size_t j = 0; j < n; j++)
		if (!setting_field_find(slice_of(rows[j].path)))
			fail_msg("docs/configuration.md describes %s, which does not exist", rows[j].path);
	free(page);
}

static void
test_page_examples(void **state)
{
	(void)state;
	char *page = read_text(WEIR_SOURCE_DIR "/docs/configuration.md");
	struct doc_row rows[128];
	size_t n = doc_rows(page, rows, 128);

	assert_int_equal(n, setting_fields_count);
	for (size_t i = 0; i < n; i++) {
		char leaf[64];
		struct loaded l = accepted(rows[i].example);

		snprintf(leaf, sizeof(leaf), "\"%s\"", setting_field_leaf(setting_field_find(slice_of(rows[i].path))));
		if (!strstr(rows[i].example, leaf))
			fail_msg("the example of %s does not show it", rows[i].path);
		done(&l);
	}
	free(page);
}

/* The schema of "providers[].slug". */
static cJSON *
schema_node(cJSON *root, const char *path)
{
	cJSON *node = root;
	char part[64];

	for (const char *at = path; *at;) {
		size_t n = strcspn(at, ".");
		bool list = n > 2 && at[n - 1] == ']';

		snprintf(part, sizeof(part), "%.*s", (int)(list ? n - 2 : n), at);
		node = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItem(node, "properties"), part);
		if (list)
			node = cJSON_GetObjectItem(node, "items");
		if (list && cJSON_GetObjectItem(node, "anyOf"))
			node = cJSON_GetArrayItem(cJSON_GetObjectItem(node, "anyOf"), 1);
		if (!node)
			fail_msg("deploy/weir.schema.json has no %s", path);
		at += n + (at[n] == '.');
	}
	return node;
}

static int64_t
schema_number(const cJSON *node, const char *name)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(node, name);

	return cJSON_IsNumber(n) ? (int64_t)n->valuedouble : -1;
}

static const char *
schema_type(const struct setting_field *f)
{
	const char *word = type_word(f);

	if (strcmp(word, "boolean") == 0 || strcmp(word, "integer") == 0 || strcmp(word, "object") == 0)
		return word;
	return strncmp(word, "array", 5) == 0 ? "array" : "string";
}

static void
schema_bounds(const struct setting_field *f, const cJSON *node)
{
	switch (f->kind) {
	case SETTING_U32:
	case SETTING_U64:
	case SETTING_POWER2:
		assert_int_equal(schema_number(node, "minimum"), f->zero_is_default ? 0 : f->min);
		assert_int_equal(schema_number(node, "maximum"), f->max);
		break;
	case SETTING_STRING:
	case SETTING_SECRET:
	case SETTING_DIR:
		if (f->choices)
			break;
		assert_int_equal(schema_number(node, "maxLength"), f->max);
		assert_int_equal(schema_number(node, "minLength"), f->min ? f->min : -1);
		break;
	case SETTING_LIST:
	case SETTING_LISTEN:
		assert_int_equal(schema_number(node, "maxItems"), f->max);
		break;
	case SETTING_STRINGS:
		assert_int_equal(schema_number(node, "maxItems"), SETTINGS_STRINGS_MAX);
		node = cJSON_GetObjectItem(node, "items");
		assert_int_equal(schema_number(node, "minLength"), f->min);
		assert_int_equal(schema_number(node, "maxLength"), f->max);
		break;
	case SETTING_SLUG:
	case SETTING_ADDRESS:
		assert_true(cJSON_IsString(cJSON_GetObjectItem(node, "pattern")));
		break;
	case SETTING_SECTION:
		assert_true(cJSON_IsFalse(cJSON_GetObjectItem(node, "additionalProperties")));
		break;
	case SETTING_CHOICE:
	case SETTING_BOOL:
	case SETTING_FILE:
	case SETTING_RAW_OBJECT:
	case SETTING_RAW_ARRAY:
	case SETTING_RAW_LIMITS:
		break;
	}
}

static void
schema_choices(const struct setting_field *f, const cJSON *node)
{
	char joined[256] = "";
	size_t n = 0;
	const cJSON *choice;

	cJSON_ArrayForEach(choice, cJSON_GetObjectItem(node, "enum"))
		n += (size_t)snprintf(joined + n, sizeof(joined) - n, "%s%s", n ? "|" : "", choice->valuestring);
	assert_string_equal(joined, f->choices ? f->choices : "");
}

static bool
schema_requires(cJSON *root, const struct setting_field *f)
{
	char parent[64];
	size_t n = (size_t)(setting_field_leaf(f) - f->path);
	const cJSON *name;

	snprintf(parent, sizeof(parent), "%.*s", n ? (int)n - 1 : 0, f->path);
	cJSON_ArrayForEach(name, cJSON_GetObjectItem(schema_node(root, parent), "required"))
		if (strcmp(name->valuestring, setting_field_leaf(f)) == 0)
			return true;
	return false;
}

/* Every object of the schema is closed, and has no member without a row. */
static size_t
schema_count(const cJSON *node)
{
	const cJSON *properties = cJSON_GetObjectItem(node, "properties"), *items = cJSON_GetObjectItem(node, "items");
	const cJSON *any = cJSON_GetObjectItem(items ? items : node, "anyOf"), *child;
	size_t n = 0;

	if (properties)
		assert_true(cJSON_IsFalse(cJSON_GetObjectItem(node, "additionalProperties")));
	cJSON_ArrayForEach(child, properties)
		n += 1 + schema_count(child);
	if (items)
		n += schema_count(items);
	else
		cJSON_ArrayForEach(child, any)
			n += schema_count(child);
	return n;
}

/* "rate_limits": the part behind "#/$defs/". */
static const char *
schema_limits(const cJSON *node)
{
	const char *reference = cJSON_GetStringValue(cJSON_GetObjectItem(node, "$ref"));

	assert_non_null(reference);
	assert_int_equal(strncmp(reference, "#/$defs/", 8), 0);
	return reference + 8;
}

static cJSON *
definition(cJSON *root, const char *name)
{
	cJSON *node = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "$defs"), name);

	if (!node)
		fail_msg("deploy/weir.schema.json defines no %s", name);
	assert_true(cJSON_IsFalse(cJSON_GetObjectItem(node, "additionalProperties")));
	return cJSON_GetObjectItem(node, "properties");
}

/* The schema's limits have the members that limits have, and no others. */
static void
test_schema_of_limits(void **state)
{
	(void)state;
	char *text = read_text(WEIR_SOURCE_DIR "/deploy/weir.schema.json"), raw[64];
	cJSON *root = cJSON_Parse(text), *member;
	static const char *const forms[] = { "rate_limit", "usage_limit" };
	int members = 0;

	for (size_t i = 0; i < 2; i++)
		cJSON_ArrayForEach(member, definition(root, forms[i])) {
			snprintf(raw, sizeof(raw), "\"%s\"", member->string);
			assert_true(limit_member_known(slice_of(raw)));
			assert_non_null(cJSON_GetObjectItem(definition(root, "policy"), member->string));
			members++;
		}
	assert_int_equal(members, 10 + 3);	/* type, mode and id are in both */
	assert_int_equal(cJSON_GetArraySize(definition(root, "policy")), 9 + 10 - 1);
	definition(root, "condition");
	definition(root, "group");
	definition(root, "model_limits");
	cJSON_Delete(root);
	free(text);
}

static void
test_schema(void **state)
{
	(void)state;
	char *text = read_text(WEIR_SOURCE_DIR "/deploy/weir.schema.json");
	cJSON *root = cJSON_Parse(text);

	assert_non_null(root);
	for (size_t i = 0; i < setting_fields_count; i++) {
		const struct setting_field *f = &setting_fields[i];
		cJSON *node = schema_node(root, f->path);
		cJSON *fallback = cJSON_GetObjectItem(node, "default");
		cJSON *expected = f->fallback ? cJSON_Parse(f->fallback) : NULL;

		if (f->kind == SETTING_RAW_LIMITS)
			assert_string_equal(schema_limits(node), setting_field_leaf(f));
		else
			assert_string_equal(cJSON_GetObjectItem(node, "type")->valuestring, schema_type(f));
		assert_true(cJSON_IsString(cJSON_GetObjectItem(node, "description")));
		if ((expected != NULL) != (fallback != NULL) || (expected && !cJSON_Compare(expected, fallback, true)))
			fail_msg("deploy/weir.schema.json, %s: the default is not %s", f->path, f->fallback);
		schema_bounds(f, node);
		schema_choices(f, node);
		assert_int_equal(schema_requires(root, f), f->required);
		cJSON_Delete(expected);
	}
	assert_int_equal(schema_count(root), setting_fields_count);
	cJSON_Delete(root);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page),
		cmocka_unit_test(test_page_examples),
		cmocka_unit_test(test_schema),
		cmocka_unit_test(test_schema_of_limits),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
