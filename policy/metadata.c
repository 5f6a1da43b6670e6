/*
 * policy/metadata.c -- see metadata.h.
 *
 * The header is walked once, member by member, and checked as a whole only
 * where something is wrong: a complaint then names the first byte that is not
 * JSON, with a few bytes around it, before it names a pair. Where a strict
 * parse complains, a lenient one leaves out: all of what is not a JSON object,
 * or the one pair that cannot be.
 *
 * Names and values are texts that end up in logs, labels and other systems:
 * they must be UTF-8, whatever a client sends.
 */
#include "policy/metadata.h"

#include <stdio.h>
#include <string.h>

#include "policy/json_lex.h"
#include "shm/base/scratch.h"

#define QUOTED_BEFORE 12	/* bytes shown around a mistake */
#define QUOTED_AFTER 12

/* Bytes of the UTF-8 character at p; 0: none starts here. */
static size_t
utf8_char(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	static const unsigned char least2[] = { [0xe0] = 0xa0, [0xf0] = 0x90, [0xff] = 0 };
	size_t len = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than need be, half of a surrogate pair, above U+10FFFF. */
	if (len > 2 && (u[1] < least2[u[0]] || (u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf4 && u[1] > 0x8f)))
		return 0;
	return len;
}

/* Counts characters; false: not UTF-8. *cut: bytes of the first `max` ones. */
static bool
utf8_count(struct slice s, size_t max, size_t *chars, size_t *cut)
{
	size_t i = 0;

	*chars = 0;
	*cut = s.n;
	while (i < s.n) {
		size_t len = utf8_char(s.p + i, s.n - i);

		if (len == 0)
			return false;
		if (*chars == max)
			*cut = i;
		i += len;
		(*chars)++;
	}
	return true;
}

/* What stands at a place of the header, as printable ASCII. */
static void
quote_place(struct slice header, size_t offset, char *out, size_t size)
{
	size_t from = offset > QUOTED_BEFORE ? offset - QUOTED_BEFORE : 0;
	size_t to = header.n - offset > QUOTED_AFTER ? offset + QUOTED_AFTER : header.n;
	size_t n = 0;

	for (size_t i = from; i < to && n + 1 < size; i++)
		out[n++] = header.p[i] >= 0x20 && header.p[i] < 0x7f ? header.p[i] : '?';
	out[n] = '\0';
}

static bool
refuse_place(struct metadata_error *why, struct slice header, size_t offset, const char *what)
{
	char near[QUOTED_BEFORE + QUOTED_AFTER + 1];

	quote_place(header, offset, near, sizeof(near));
	why->offset = offset;
	if (near[0])
		snprintf(why->what, sizeof(why->what), "%s at byte %zu, near '%s'", what, offset, near);
	else
		snprintf(why->what, sizeof(why->what), "%s at byte %zu", what, offset);
	return false;
}

static bool
refuse_pair(struct metadata_error *why, struct slice header, struct slice raw_name, const char *what)
{
	char name[49];
	size_t n = 0;

	for (; n < raw_name.n - 2 && n + 1 < sizeof(name); n++) {
		char c = raw_name.p[n + 1];
		name[n] = c >= 0x20 && c < 0x7f ? c : '?';
	}
	name[n] = '\0';
	why->offset = (size_t)(raw_name.p - header.p);
	snprintf(why->what, sizeof(why->what), what, name);
	return false;
}

/* A name or a value. */
struct text {
	struct slice s;
	size_t chars;
	size_t cut;		/* bytes of the first METADATA_VALUE_CHARS_MAX ones */
	bool utf8;
};

/* ASCII without escapes, as nearly all of them are. */
static inline bool
is_plain(struct slice s)
{
	size_t i = 0;

	for (uint64_t x; s.n - i >= 8; i += 8) {
		memcpy(&x, s.p + i, 8);
		if ((x & LEX_HIGH) | lex_zero(x ^ ('\\' * LEX_ONES)))
			return false;
	}
	for (; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80 || s.p[i] == '\\')
			return false;
	return true;
}

/* text_of() for what is not plain. */
static bool
decode(struct slice raw, struct scratch *mem, struct text *t)
{
	if (raw.p[0] == '"') {
		char *p = scratch_alloc(mem, raw.n);	/* a text is never longer than its escapes */
		if (!p)
			return false;
		t->s = (struct slice){ p, json_unescape(raw, p, raw.n) };
		CHECK(t->s.n < raw.n);		/* the walk has checked it */
	}
	t->utf8 = utf8_count(t->s, METADATA_VALUE_CHARS_MAX, &t->chars, &t->cut);
	return true;
}

/* false: no memory for it. */
static inline bool
text_of(struct slice raw, struct scratch *mem, struct text *t)
{
	/* Else a number, a boolean, or the JSON of something nested. */
	t->s = raw.p[0] == '"' ? (struct slice){ raw.p + 1, raw.n - 2 } : raw;
	if (!is_plain(t->s))
		return decode(raw, mem, t);
	t->utf8 = true;
	t->chars = t->s.n;
	t->cut = t->s.n < METADATA_VALUE_CHARS_MAX ? t->s.n : METADATA_VALUE_CHARS_MAX;
	return true;
}

static bool
put_pair(struct metadata *m, struct slice key, struct slice value)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (slice_eq(m->pair[i].key, key)) {
			m->pair[i].value = value;
			return true;
		}
	if (m->count == METADATA_PAIRS_MAX)
		return false;
	m->pair[m->count++] = (struct metadata_pair){ key, value };
	return true;
}

static void
take_back(struct metadata *m, struct slice key)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (slice_eq(m->pair[i].key, key)) {
			memmove(&m->pair[i], &m->pair[i + 1], (m->count - i - 1) * sizeof(m->pair[0]));
			m->count--;
			return;
		}
}

/* One pair: kept, left out (true as well), or a reason to refuse. */
static bool
take_pair(struct slice header, struct slice raw_name, struct slice raw_value, bool lenient,
    struct scratch *mem, struct metadata *out, struct metadata_error *why, bool *no_memory)
{
	struct text key, value;

	*no_memory = !text_of(raw_name, mem, &key) || !text_of(raw_value, mem, &value);
	if (*no_memory)
		return true;
	if (!key.utf8)
		return lenient || refuse_pair(why, header, raw_name, "name \"%s\" is not UTF-8");
	if (key.s.n > METADATA_KEY_BYTES_MAX)
		return lenient || refuse_pair(why, header, raw_name, "name \"%s...\" is longer than 128 bytes");
	if (json_is_null(raw_value)) {
		take_back(out, key.s);	/* the last one wins, and it says: none */
		return true;
	}
	if (!value.utf8)
		return lenient || refuse_pair(why, header, raw_name, "value of \"%s\" is not UTF-8");
	if (value.chars > METADATA_VALUE_CHARS_MAX && !lenient)
		return refuse_pair(why, header, raw_name, "value of \"%s\" is longer than 128 characters");
	value.s.n = value.cut;
	if (!put_pair(out, key.s, value.s) && !lenient)
		return refuse_pair(why, header, raw_name, "\"%s\" is one more than the 64 names allowed");
	return true;
}

/* Complains if the text is no JSON object. */
static void
refuse_text(struct metadata_error *why, struct slice header, struct slice text)
{
	struct json_error e = { 0, "expected an object" };

	if (!json_check(text, &e) || text.p[0] != '{')
		refuse_place(why, header, (size_t)(text.p - header.p) + e.offset, e.what);
}

bool
metadata_parse(struct slice header, bool lenient, struct scratch *mem,
    struct metadata *out, struct metadata_error *why)
{
	struct slice text = slice_trim(header), name, value;
	struct json_iter it;
	bool no_memory = false, object = json_iter_object(&it, text);

	out->count = 0;
	while (object && json_next(&it, &name, &value)) {
		if (!take_pair(header, name, value, lenient, mem, out, why, &no_memory)) {
			refuse_text(why, header, text);
			return false;
		}
		if (no_memory) {
			why->offset = 0;
			snprintf(why->what, sizeof(why->what), "no memory for it");
			return false;
		}
	}
	if (object && !it.error.what && lex_space(it.p + 1, it.end) == it.end)
		return true;
	out->count = 0;
	if (!lenient)
		refuse_text(why, header, text);
	return lenient;
}

bool
metadata_merge(struct metadata *into, const struct metadata *higher)
{
	for (uint32_t i = 0; i < higher->count; i++)
		if (!put_pair(into, higher->pair[i].key, higher->pair[i].value))
			return false;
	return true;
}

const struct slice *
metadata_get(const struct metadata *m, struct slice key)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (slice_eq(m->pair[i].key, key))
			return &m->pair[i].value;
	return NULL;
}

struct slice
metadata_json(const struct metadata *m, struct scratch *mem)
{
	char json[METADATA_BYTES_MAX];
	size_t n = 0;

	json[n++] = '{';
	for (uint32_t i = 0; i < m->count; i++) {
		const struct metadata_pair *pair = &m->pair[i];

		if (i > 0 && n < sizeof(json))
			json[n++] = ',';
		n += json_escape(pair->key, json + n, sizeof(json) - n);
		if (n >= sizeof(json))
			return SLICE_NONE;
		json[n++] = ':';
		n += json_escape(pair->value, json + n, sizeof(json) - n);
		if (n >= sizeof(json))
			return SLICE_NONE;
	}
	json[n++] = '}';
	const char *p = scratch_dup(mem, (struct slice){ json, n });
	return p ? (struct slice){ p, n } : SLICE_NONE;
}
