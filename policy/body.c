/*
 * policy/body.c -- see body.h.
 *
 * The scan is one walk (json_lex.h) with a small machine beside it: each open
 * container has a frame that says what it is to the provider (a message, its
 * content, a block, a source, a tool), derived from its parent's role and the
 * member that it is the value of, and what has been seen in it. What a
 * container turned out to be is settled at its closing bracket, because its
 * "type" may come last.
 *
 * Two kinds of notes are taken. Those that can only raise an upper bound
 * (cache markers, images, searches) are taken anywhere, also where the
 * provider would not look. The one that lowers it, base64 that is no text, is
 * taken only on the path on which the provider decodes it: the same shape in
 * the input of a tool call is text that somebody pays for.
 *
 * Edits keep every byte that they do not mean to change.
 */
#include "policy/body.h"

#include "policy/json_lex.h"
#include "shm/base/scratch.h"

/* What a container is. Arrays hold what their name says. */
enum role {
	ROLE_OTHER, ROLE_ROOT, ROLE_MESSAGES, ROLE_MESSAGE, ROLE_CONTENT, ROLE_BLOCK,
	ROLE_SOURCE, ROLE_TOOLS, ROLE_TOOL, ROLE_CACHE,
};

/* Member names that mean something, at one depth or another. */
enum word {
	WORD_OTHER, WORD_TYPE, WORD_DATA, WORD_SOURCE, WORD_CONTENT, WORD_CACHE_CONTROL,
	WORD_TTL, WORD_MAX_USES, WORD_MESSAGES, WORD_SYSTEM, WORD_TOOLS,
	WORD_MODEL, WORD_STREAM, WORD_MAX_TOKENS,
};

/* Values of "type", as bits: a name may come twice, and then both count. */
#define TYPE_OTHER 1u
#define TYPE_IMAGE 2u
#define TYPE_DOCUMENT 4u
#define TYPE_BASE64 8u
#define TYPE_TEXTUAL 16u	/* of a source: its text is in the body */
#define TYPE_SEARCH 32u		/* web_search_20250305 and later */
#define TYPE_CLIENT_TOOL 64u	/* runs at the client: its results are in the next body */
#define TYPE_CUSTOM 128u

struct frame {
	uint8_t role, word, types;
	uint8_t source_types;	/* of a block: the types of its source */
	bool has_max_uses, max_uses_valid;
	uint32_t max_uses;
	uint64_t data_bytes;	/* of a source: its "data" */
	uint64_t base64_bytes;	/* of a block: what its source decodes */
};

struct scan {
	struct body_scan *out;
	const char *value;	/* where the value of the last top-level member begins */
	struct frame *top;	/* of the innermost open container; its parent's lies before it */
};

#define PLAIN_BYTES 64	/* no word or type that we know is longer */

/* A raw string without its quotes; one with escapes is decoded into `tmp`,
 * and is nothing that we know if it does not fit. */
static inline struct slice
plain_text(struct slice raw, bool escaped, char tmp[PLAIN_BYTES])
{
	if (__builtin_expect(!escaped, 1))
		return (struct slice){ raw.p + 1, raw.n - 2 };
	size_t n = json_unescape(raw, tmp, PLAIN_BYTES);
	return n < PLAIN_BYTES ? (struct slice){ tmp, n } : SLICE("");
}

/* Whether n bytes are the same; n is a constant from 3 to 16. Two loads that
 * may overlap, where memcmp() would be a call. */
LEX_INLINE bool
same_bytes(const char *a, const char *b, size_t n)
{
#define SAME_AS(type) do { \
	type x, y, v, w; \
	memcpy(&x, a, sizeof(x)); \
	memcpy(&y, b, sizeof(y)); \
	memcpy(&v, a + n - sizeof(v), sizeof(v)); \
	memcpy(&w, b + n - sizeof(w), sizeof(w)); \
	return ((x ^ y) | (v ^ w)) == 0; \
} while (0)

	if (n >= 8)
		SAME_AS(uint64_t);
	if (n >= 4)
		SAME_AS(uint32_t);
	SAME_AS(uint16_t);
#undef SAME_AS
}

#define IS(text, literal) same_bytes((text).p, literal, sizeof(literal) - 1)

static inline enum word
word_of(struct slice raw, bool escaped)
{
	char tmp[PLAIN_BYTES];
	struct slice s = plain_text(raw, escaped, tmp);

	switch (s.n) {
	case 3:
		return IS(s, "ttl") ? WORD_TTL : WORD_OTHER;
	case 4:
		return IS(s, "type") ? WORD_TYPE : IS(s, "data") ? WORD_DATA : WORD_OTHER;
	case 5:
		return IS(s, "tools") ? WORD_TOOLS : IS(s, "model") ? WORD_MODEL : WORD_OTHER;
	case 6:
		return IS(s, "source") ? WORD_SOURCE : IS(s, "system") ? WORD_SYSTEM :
		    IS(s, "stream") ? WORD_STREAM : WORD_OTHER;
	case 7:
		return IS(s, "content") ? WORD_CONTENT : WORD_OTHER;
	case 8:
		return IS(s, "messages") ? WORD_MESSAGES : IS(s, "max_uses") ? WORD_MAX_USES : WORD_OTHER;
	case 10:
		return IS(s, "max_tokens") ? WORD_MAX_TOKENS : WORD_OTHER;
	case 13:
		return IS(s, "cache_control") ? WORD_CACHE_CONTROL : WORD_OTHER;
	}
	return WORD_OTHER;
}

static uint8_t
type_of(struct slice raw, bool escaped)
{
	static const struct { struct slice prefix; uint8_t type; } prefixes[] = {
		{ { "web_search_2", 12 }, TYPE_SEARCH },	/* not web_search_tool_result */
		{ { "bash_2", 6 }, TYPE_CLIENT_TOOL },
		{ { "text_editor_2", 13 }, TYPE_CLIENT_TOOL },
		{ { "memory_2", 8 }, TYPE_CLIENT_TOOL },
		{ { "computer_", 9 }, TYPE_CLIENT_TOOL },
		{ { "browser_toolset_2", 17 }, TYPE_CLIENT_TOOL },
	};
	char tmp[PLAIN_BYTES];
	struct slice s = plain_text(raw, escaped, tmp);

	switch (s.n) {
	case 4:
		return IS(s, "text") ? TYPE_TEXTUAL : TYPE_OTHER;
	case 5:
		return IS(s, "image") ? TYPE_IMAGE : TYPE_OTHER;
	case 6:
		return IS(s, "base64") ? TYPE_BASE64 : IS(s, "custom") ? TYPE_CUSTOM : TYPE_OTHER;
	case 7:
		return IS(s, "content") ? TYPE_TEXTUAL : TYPE_OTHER;
	case 8:
		return IS(s, "document") ? TYPE_DOCUMENT : TYPE_OTHER;
	}
	if (s.n < 12)	/* every typed tool's name ends in eight digits */
		return TYPE_OTHER;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (slice_starts(s, prefixes[i].prefix))
			return prefixes[i].type;
	return TYPE_OTHER;
}

static enum role
role_of(const struct frame *parent, bool object)
{
	enum word w = (enum word)parent->word;

	if (object && w == WORD_CACHE_CONTROL)
		return ROLE_CACHE;
	switch ((enum role)parent->role) {
	case ROLE_ROOT:
		if (object)
			return ROLE_OTHER;
		return w == WORD_MESSAGES ? ROLE_MESSAGES : w == WORD_SYSTEM ? ROLE_CONTENT :
		    w == WORD_TOOLS ? ROLE_TOOLS : ROLE_OTHER;
	case ROLE_MESSAGES:
		return object ? ROLE_MESSAGE : ROLE_OTHER;
	case ROLE_CONTENT:
		return object ? ROLE_BLOCK : ROLE_OTHER;
	case ROLE_TOOLS:
		return object ? ROLE_TOOL : ROLE_OTHER;
	case ROLE_MESSAGE:
	case ROLE_SOURCE:
		return !object && w == WORD_CONTENT ? ROLE_CONTENT : ROLE_OTHER;
	case ROLE_BLOCK:
		if (w == WORD_CONTENT)
			return object ? ROLE_BLOCK : ROLE_CONTENT;
		return object && w == WORD_SOURCE ? ROLE_SOURCE : ROLE_OTHER;
	case ROLE_TOOL:
	case ROLE_CACHE:
	case ROLE_OTHER:
		break;
	}
	return ROLE_OTHER;
}

static void
on_open(void *arg, uint32_t depth, const char *at)
{
	struct scan *s = arg;
	enum role role = depth == 1 ? ROLE_ROOT : role_of(s->top, *at == '{');

	*++s->top = (struct frame){ .role = (uint8_t)role };
	if (depth == 2)
		s->value = at;
}

/* The member of this raw name; NULL: there is none yet. */
static inline const struct body_member *
find_raw(const struct body_scan *out, struct slice raw)
{
	const struct body_member *m = out->members, *end = m + out->members_count;
	const bool escaped = out->names_escaped;

	for (; m < end; m++)
		if (__builtin_expect(escaped, 0) ? json_strings_same(m->name, raw) :
		    m->name.n == raw.n && memcmp(m->name.p, raw.p, raw.n) == 0)
			return m;
	return NULL;
}

/* A top-level member begins. Its value follows; the walk says when it ends. */
static const char *
root_name(struct body_scan *out, struct slice raw, bool escaped)
{
	uint64_t bits = escaped ? UINT64_MAX : body_name_bit((struct slice){ raw.p + 1, raw.n - 2 });

	if (out->members_count == SCAN_MEMBERS_MAX)
		return "too many top-level members";
	out->names_escaped |= escaped;
	if ((out->names_seen & bits) && find_raw(out, raw))
		return "this top-level member is there twice";
	out->names_seen |= bits;
	out->members[out->members_count++].name = raw;
	return NULL;
}

static const char *
on_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct scan *s = arg;
	enum word w = word_of(raw, escaped);

	s->top->word = (uint8_t)w;
	if (w == WORD_CACHE_CONTROL)
		s->out->has_cache_control = true;
	return depth == 1 ? root_name(s->out, raw, escaped) : NULL;
}

/* The value of the last top-level member. Routing, limits and estimates ask for
 * some of them. */
static void
root_value(struct body_scan *out, enum word name, const char *start, const char *end)
{
	struct slice value = { start, (size_t)(end - start) };

	out->members[out->members_count - 1].value = value;
	switch (name) {
	case WORD_MODEL:
		out->model = value;
		out->model_is_string = *start == '"';
		break;
	case WORD_STREAM:
		out->stream_valid = json_is_null(value) || json_to_bool(value, &out->stream);
		break;
	case WORD_MAX_TOKENS:
		out->has_max_tokens = !json_is_null(value);
		if (out->has_max_tokens && (!json_to_i64(value, &out->max_tokens) || out->max_tokens < 0))
			out->max_tokens = -1;
		break;
	case WORD_OTHER: case WORD_TYPE: case WORD_DATA: case WORD_SOURCE: case WORD_CONTENT:
	case WORD_CACHE_CONTROL: case WORD_TTL: case WORD_MAX_USES: case WORD_MESSAGES: case WORD_SYSTEM:
	case WORD_TOOLS:
		break;
	}
}

static void
on_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct scan *s = arg;
	struct frame *f = s->top;
	int64_t n;

	if (depth == 1)
		root_value(s->out, (enum word)f->word, raw.p, raw.p + raw.n);
	if (f->word == WORD_OTHER)	/* most of them */
		return;
	switch ((enum word)f->word) {
	case WORD_TYPE:
		f->types |= raw.p[0] == '"' ? type_of(raw, escaped) : TYPE_OTHER;
		break;
	case WORD_DATA:
		if (raw.p[0] == '"')
			f->data_bytes += raw.n - 2;
		break;
	case WORD_TTL:
		if (f->role == ROLE_CACHE && json_string_eq(raw, "1h"))
			s->out->has_cache_1h = true;
		break;
	case WORD_MAX_USES:
		f->max_uses_valid = json_to_i64(raw, &n) && n >= 0 && n < UINT32_MAX &&
		    !f->has_max_uses;	/* there twice: trust neither */
		f->has_max_uses = true;
		f->max_uses = f->max_uses_valid ? (uint32_t)n : 0;
		break;
	case WORD_OTHER: case WORD_SOURCE: case WORD_CONTENT: case WORD_CACHE_CONTROL:
	case WORD_MESSAGES: case WORD_SYSTEM: case WORD_TOOLS:
	case WORD_MODEL: case WORD_STREAM: case WORD_MAX_TOKENS:
		break;
	}
}

static void
note_search(struct body_scan *out, const struct frame *f)
{
	uint32_t sum;

	if (!f->max_uses_valid || __builtin_add_overflow(out->web_search_max_uses, f->max_uses, &sum))
		sum = UINT32_MAX;
	out->web_search_max_uses = sum;
}

static void
on_close(void *arg, uint32_t depth, const char *end)
{
	struct scan *s = arg;
	struct body_scan *out = s->out;
	const struct frame *f = s->top--;

	if (depth == 2)
		root_value(out, (enum word)s->top->word, s->value, end);
	if (f->role == ROLE_SOURCE) {
		struct frame *block = s->top;

		block->source_types |= f->types ? f->types : TYPE_OTHER;
		if (f->types == TYPE_BASE64)
			block->base64_bytes += f->data_bytes;
	}
	if (f->role == ROLE_TOOL && f->types && f->types != TYPE_CUSTOM) {
		out->typed_tools++;
		if (f->types != TYPE_CLIENT_TOOL && f->types != TYPE_SEARCH)
			out->server_tools++;
	}
	if (!(f->types & (TYPE_IMAGE | TYPE_DOCUMENT | TYPE_SEARCH)))
		return;
	if (f->types & TYPE_SEARCH)
		note_search(out, f);
	if (f->types & TYPE_IMAGE)
		out->images++;
	if (f->types & TYPE_DOCUMENT) {
		out->documents++;
		if (f->source_types != TYPE_TEXTUAL)
			out->opaque_documents++;
	}
	if (f->types & (TYPE_IMAGE | TYPE_DOCUMENT))
		out->remote_sources += (f->source_types & (uint8_t)~(TYPE_BASE64 | TYPE_TEXTUAL)) != 0;
	if (f->role == ROLE_BLOCK && (f->types == TYPE_IMAGE || f->types == TYPE_DOCUMENT))
		out->base64_bytes += f->base64_bytes;
}

static const struct json_visitor visitor = {
	.name = on_name, .open = on_open, .close = on_close, .scalar = on_scalar,
};

bool
body_scan(struct slice body, struct body_scan *out, struct json_error *why)
{
	struct frame frames[JSON_DEPTH_MAX + 1];	/* written before they are read */
	struct scan s = { .out = out, .top = frames };
	struct lex f = { .what = NULL };
	const char *end = body.p + body.n;
	const char *p = lex_space(body.p, end);

	memset(out, 0, offsetof(struct body_scan, members));
	out->body = body;
	out->stream_valid = true;
	if (p == end || *p != '{')
		p = lex_fail(&f, p, "expected an object");
	else
		p = json_walk(p, end, &visitor, &s, &f);
	if (p) {
		p = lex_space(p, end);
		if (p < end)
			p = lex_fail(&f, p, "bytes behind the object");
	}
	if (!p) {
		*why = (struct json_error){ (size_t)(f.at - body.p), f.what };
		return false;
	}
	out->text_bytes = body.n - out->base64_bytes;
	return true;
}

const struct body_member *
body_find_name(const struct body_scan *s, struct slice name)
{
	const struct body_member *m = s->members, *end = m + s->members_count;
	const bool escaped = s->names_escaped;

	for (; m < end; m++)
		if (__builtin_expect(escaped, 0) ? json_string_is(m->name, name) :
		    m->name.n == name.n + 2 && memcmp(m->name.p + 1, name.p, name.n) == 0)
			return m;
	return NULL;
}

/* Edits */

static size_t
offset_of(const struct body_scan *s, const char *p)
{
	return (size_t)(p - s->body.p);
}

static size_t
value_end(const struct body_scan *s, uint32_t member)
{
	const struct slice *v = &s->members[member].value;

	return offset_of(s, v->p) + v->n;
}

/* New members follow the last value; without members, the opening bracket. */
static size_t
end_of_members(const struct body_scan *s)
{
	if (s->members_count > 0)
		return value_end(s, s->members_count - 1);
	return offset_of(s, memchr(s->body.p, '{', s->body.n)) + 1;
}

static bool
added_has_name(const struct body_edit *x, const char *name)
{
	struct lex f;
	const char *start = x->added.p + 1;	/* behind the comma */
	const char *end = lex_string(start + 1, x->added.p + x->added.n, &f);

	CHECK(end);	/* we wrote it */
	return json_string_eq((struct slice){ start, (size_t)(end - start) }, name);
}

/* The edit that already concerns this member, if any. */
static struct body_edit *
edit_find(const struct body_scan *s, struct body_edits *e, const struct body_member *m, const char *name)
{
	for (uint32_t i = 0; i < e->count; i++) {
		struct body_edit *x = &e->edit[i];

		if (m ? x->member == (uint32_t)(m - s->members) :
		    x->member == s->members_count && added_has_name(x, name))
			return x;
	}
	return NULL;
}

/* ,"name":value in the request's memory; none without room. */
static struct slice
added_text(const char *name, struct slice value, struct scratch *mem)
{
	struct slice plain = slice_of(name);
	size_t quoted = json_escape(plain, NULL, 0);
	size_t n = 1 + quoted + 1 + value.n;
	char *p = scratch_alloc(mem, n);

	if (!p)
		return SLICE_NONE;
	p[0] = ',';
	json_escape(plain, p + 1, quoted);
	p[1 + quoted] = ':';
	memcpy(p + 2 + quoted, value.p, value.n);
	return (struct slice){ p, n };
}

bool
body_set(const struct body_scan *s, struct body_edits *e, const char *name,
    struct slice raw_json, struct scratch *mem)
{
	const struct body_member *m = body_find(s, name);
	struct body_edit *x = edit_find(s, e, m, name);
	struct body_edit edit = { .member = s->members_count };

	if (!x && e->count == SPLICES_MAX)
		return false;
	if (m) {
		edit.member = (uint32_t)(m - s->members);
		edit.offset = offset_of(s, m->value.p);
		edit.remove = m->value.n;
		edit.insert = raw_json;
	} else {
		edit.added = edit.insert = added_text(name, raw_json, mem);
		if (!edit.added.p)
			return false;
		edit.offset = end_of_members(s);
		if (s->members_count == 0 && (x ? x == e->edit : e->count == 0)) {	/* the first of all: no comma */
			edit.insert.p++;
			edit.insert.n--;
		}
	}
	if (!x)
		x = &e->edit[e->count++];
	*x = edit;
	return true;
}

/* By place in the body. Stable: new members stay in the order of their commas. */
static void
sort_edits(struct body_edits *e)
{
	for (uint32_t i = 1; i < e->count; i++) {
		struct body_edit x = e->edit[i];
		uint32_t k = i;

		for (; k > 0 && e->edit[k - 1].offset > x.offset; k--)
			e->edit[k] = e->edit[k - 1];
		e->edit[k] = x;
	}
}

size_t
body_pieces(const struct body_scan *s, struct body_edits *e, struct slice *out, size_t max)
{
	size_t n = 0, at = 0;

	sort_edits(e);
	for (uint32_t i = 0; i < e->count; i++) {
		const struct body_edit *x = &e->edit[i];

		CHECK(x->offset >= at && n + 2 < max);
		if (x->offset > at)
			out[n++] = (struct slice){ s->body.p + at, x->offset - at };
		if (x->insert.n > 0)
			out[n++] = x->insert;
		at = x->offset + x->remove;
	}
	CHECK(n < max);
	out[n++] = (struct slice){ s->body.p + at, s->body.n - at };	/* never empty: a bracket */
	return n;
}

size_t
body_edited_bytes(const struct body_scan *s, const struct body_edits *e)
{
	size_t n = s->body.n;

	for (uint32_t i = 0; i < e->count; i++)
		n = n - e->edit[i].remove + e->edit[i].insert.n;
	return n;
}
