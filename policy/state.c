/*
 * policy/state.c -- see state.h.
 *
 * Both passes walk the messages and know where they are by the depth alone:
 * 1 the list, 2 a message, 3 its content, 4 a block. What is deeper is inside of a
 * block, and searched by name, but for the input of a tool: it is the model's own
 * text, and may have any names in it.
 */
#include "policy/state.h"

#include <stdio.h>

#include "policy/cut.h"
#include "policy/json_lex.h"

#define DEPTH_MESSAGES 1
#define DEPTH_MESSAGE 2
#define DEPTH_CONTENT 3
#define DEPTH_BLOCK 4
#define DISABLED "{\"type\":\"disabled\"}"

/* ---- the messages ---- */

enum word { WORD_OTHER, WORD_ROLE, WORD_CONTENT, WORD_TYPE, WORD_INPUT, WORD_FILE_ID, WORD_ENCRYPTED };
enum type { TYPE_OTHER, TYPE_THINKING, TYPE_TOOL_RESULT, TYPE_COMPACTION };

/* Where a walk over the messages is. */
struct place {
	const char *end;		/* of the text */
	enum word word;			/* of the member whose value comes next */
	const char *message;		/* the one at hand */
	bool assistant, role_known;	/* its role */
	bool content;			/* within its content, an array */
	enum type type;			/* of the block at hand */
};

static enum word
word_of(uint32_t depth, struct slice raw)
{
	switch (depth) {
	case DEPTH_MESSAGE:
		return json_string_eq(raw, "role") ? WORD_ROLE : json_string_eq(raw, "content") ? WORD_CONTENT : WORD_OTHER;
	case DEPTH_BLOCK:
		if (json_string_eq(raw, "type"))
			return WORD_TYPE;
		if (json_string_eq(raw, "input"))
			return WORD_INPUT;
		break;
	}
	if (json_string_eq(raw, "file_id"))
		return WORD_FILE_ID;
	return json_string_eq(raw, "encrypted_content") || json_string_eq(raw, "encrypted_index") ||
	    json_string_eq(raw, "encrypted_stdout") ? WORD_ENCRYPTED : WORD_OTHER;
}

static enum type
type_of(struct slice raw)
{
	if (json_string_eq(raw, "thinking") || json_string_eq(raw, "redacted_thinking"))
		return TYPE_THINKING;
	return json_string_eq(raw, "tool_result") ? TYPE_TOOL_RESULT : json_string_eq(raw, "compaction") ? TYPE_COMPACTION : TYPE_OTHER;
}

static void
place_open(struct place *p, uint32_t depth, const char *at)
{
	struct slice role;

	if (depth == DEPTH_MESSAGE) {
		p->message = at;
		p->assistant = p->role_known = false;
	} else if (depth == DEPTH_CONTENT) {
		p->content = *at == '[' && p->word == WORD_CONTENT && *p->message == '{';
		if (p->content && !p->role_known)	/* it stands behind the content */
			p->assistant = json_get((struct slice){ p->message, (size_t)(p->end - p->message) }, "role", &role) &&
			    json_string_eq(role, "assistant");
	} else if (depth == DEPTH_BLOCK) {
		p->type = TYPE_OTHER;
	}
	p->word = WORD_OTHER;
}

static void
place_scalar(struct place *p, uint32_t depth, struct slice raw)
{
	if (depth == DEPTH_MESSAGE && p->word == WORD_ROLE) {
		p->assistant = json_string_eq(raw, "assistant");
		p->role_known = true;
	} else if (depth == DEPTH_BLOCK && p->word == WORD_TYPE) {
		p->type = type_of(raw);
	}
	p->word = WORD_OTHER;
}

static void
place_close(struct place *p, uint32_t depth)
{
	if (depth == DEPTH_CONTENT)
		p->content = false;
}

/* A block of the assistant's thinking has ended. */
static bool
is_thought(const struct place *p)
{
	return p->assistant && p->type == TYPE_THINKING;
}

/* ---- finding ---- */

struct find {
	struct place place;
	struct state state;
	uint32_t opaque;		/* depth of a tool's input; 0: none */
	uint32_t block;			/* kinds in the block at hand: of a thought they go with it */
	bool result, thought;		/* the message at hand has a tool's, has thinking */
	bool answered;			/* something has come behind the assistant's last turn */
};

static const char *
find_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct find *f = arg;

	(void)escaped;
	if (!f->opaque)
		f->place.word = word_of(depth, raw);
	return NULL;
}

static void
find_open(void *arg, uint32_t depth, const char *at)
{
	struct find *f = arg;

	if (f->opaque)
		return;
	if (depth == DEPTH_BLOCK + 1 && f->place.content && f->place.word == WORD_INPUT)
		f->opaque = depth;
	if (depth == DEPTH_MESSAGE)
		f->result = f->thought = false;
	if (depth == DEPTH_BLOCK)
		f->block = 0;
	place_open(&f->place, depth, at);
}

static void
find_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct find *f = arg;

	(void)escaped;
	if (f->opaque)
		return;
	if (f->place.content && depth >= DEPTH_BLOCK && raw.p[0] == '"' && raw.n > 2)
		f->block |= f->place.word == WORD_FILE_ID ? STATE_FILE : f->place.word == WORD_ENCRYPTED ? STATE_ENCRYPTED : 0;
	place_scalar(&f->place, depth, raw);
}

/* A turn goes on if nothing has come behind it, or a tool's result has. */
static void
message_ends(struct find *f)
{
	if (f->place.assistant) {
		f->state.last_turn = f->state.messages;
		f->state.last_thought = f->thought;
		f->state.in_turn = true;
		f->answered = false;
		return;
	}
	f->state.in_turn = f->result || (f->answered && f->state.in_turn);
	f->answered = true;
}

static void
find_close(void *arg, uint32_t depth, const char *end)
{
	struct find *f = arg;

	(void)end;
	if (f->opaque == depth)
		f->opaque = 0;
	if (depth == DEPTH_BLOCK && f->place.content) {
		f->block |= f->place.type == TYPE_COMPACTION ? STATE_ENCRYPTED : 0;
		f->state.kinds |= is_thought(&f->place) ? STATE_THINKING : f->block;
		f->result |= f->place.type == TYPE_TOOL_RESULT;
		f->thought |= is_thought(&f->place);
	} else if (depth == DEPTH_MESSAGE) {
		message_ends(f);
		f->state.messages++;
	}
	place_close(&f->place, depth);
}

static const struct json_visitor finder = {
	.name = find_name, .open = find_open, .close = find_close, .scalar = find_scalar,
};

/* A string of an object, or of nothing. */
static bool
has_string(const struct body_member *m, const char *name)
{
	struct slice value;

	return m && json_get(m->value, name, &value) && value.p[0] == '"' && value.n > 2;
}

static bool
is_string(const struct body_member *m)
{
	return m && m->value.p[0] == '"' && m->value.n > 2;
}

struct state
state_find(const struct body_scan *body)
{
	const struct body_member *messages = body_find(body, "messages"), *container = body_find(body, "container");
	const struct body_member *credit = body_find(body, "fallback_credit_token");
	struct find f = { .place = { .end = body->body.p + body->body.n } };
	struct lex lex = { .what = NULL };

	if (messages && messages->value.p[0] == '[')
		CHECK(json_walk(messages->value.p, f.place.end, &finder, &f, &lex));
	if (is_string(container) || has_string(container, "id"))
		f.state.kinds |= STATE_CONTAINER;
	if (has_string(body_find(body, "thread"), "previous_message_id"))
		f.state.kinds |= STATE_THREAD;
	if (has_string(body_find(body, "diagnostics"), "previous_message_id"))
		f.state.kinds |= STATE_DIAGNOSTICS;
	if (is_string(credit) || has_string(credit, "token"))
		f.state.kinds |= STATE_CREDIT;
	return f.state;
}

uint32_t
state_can_drop(uint32_t kinds)
{
	return kinds & (STATE_THINKING | STATE_CREDIT | STATE_DIAGNOSTICS);
}

void
state_describe(uint32_t kinds, char out[STATE_WORDS_BYTES])
{
	static const struct { uint32_t kind; const char *words; } names[] = {
		{ STATE_THINKING, "signed thinking" }, { STATE_CONTAINER, "a container" }, { STATE_FILE, "an uploaded file" },
		{ STATE_THREAD, "a thread that the provider keeps" }, { STATE_ENCRYPTED, "encrypted results" },
		{ STATE_CREDIT, "a fallback credit" }, { STATE_DIAGNOSTICS, "the id of an earlier message for diagnosis" },
	};
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (kinds & names[i].kind)
			n += (size_t)snprintf(out + n, STATE_WORDS_BYTES - n, "%s%s", n > 0 ? ", " : "", names[i].words);
	CHECK(n < STATE_WORDS_BYTES);
}

/* ---- leaving out ---- */

struct strip {
	struct place place;
	struct cut *cut;
	struct cut_items messages, blocks;
	uint32_t before, message;	/* whose thinking goes; which is at hand */
	bool kept, dropped;		/* some block of the message at hand */
};

static const char *
strip_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct strip *s = arg;

	(void)escaped;
	if (depth <= DEPTH_BLOCK)
		s->place.word = word_of(depth, raw);
	return NULL;
}

static void
strip_open(void *arg, uint32_t depth, const char *at)
{
	struct strip *s = arg;

	place_open(&s->place, depth, at);
	if (depth == DEPTH_MESSAGE) {
		cut_item(s->cut, &s->messages, at);
		s->kept = s->dropped = false;
	} else if (depth == DEPTH_CONTENT) {
		s->blocks = (struct cut_items){ 0 };
	} else if (depth == DEPTH_BLOCK && s->place.content) {
		cut_item(s->cut, &s->blocks, at);
	}
}

static void
strip_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct strip *s = arg;
	struct cut_items *items = depth == DEPTH_MESSAGES ? &s->messages : depth == DEPTH_CONTENT && s->place.content ? &s->blocks : NULL;

	(void)escaped;
	place_scalar(&s->place, depth, raw);
	if (!items)
		return;
	cut_item(s->cut, items, raw.p);		/* a message or a block that is none */
	cut_keep(items, raw.p + raw.n);
	s->kept = true;
}

static void
strip_close(void *arg, uint32_t depth, const char *end)
{
	struct strip *s = arg;

	if (depth == DEPTH_BLOCK && s->place.content) {
		if (is_thought(&s->place) && s->message < s->before) {
			cut_drop(s->cut, &s->blocks, end);
			s->dropped = true;
		} else {
			cut_keep(&s->blocks, end);
			s->kept = true;
		}
	} else if (depth == DEPTH_CONTENT && s->place.content) {
		cut_close(s->cut, &s->blocks);
	} else if (depth == DEPTH_MESSAGE) {
		if (s->dropped && !s->kept)
			cut_drop(s->cut, &s->messages, end);
		else
			cut_keep(&s->messages, end);
		s->message++;
	} else if (depth == DEPTH_MESSAGES) {
		cut_close(s->cut, &s->messages);
	}
	place_close(&s->place, depth);
}

static const struct json_visitor stripper = {
	.name = strip_name, .open = strip_open, .close = strip_close, .scalar = strip_scalar,
};

static void
strip_messages(struct cut *cut, const struct body_scan *body, struct slice messages, uint32_t before)
{
	struct strip s = { .place = { .end = body->body.p + body->body.n }, .cut = cut, .before = before };
	struct lex lex = { .what = NULL };

	CHECK(json_walk(messages.p, s.place.end, &stripper, &s, &lex));
}

/* Edits that need thinking to be on. */
static void
strip_edits(struct cut *cut, struct slice context_management)
{
	struct cut_items items = { 0 };
	struct slice edits, name, edit, type;
	struct json_iter it;

	if (!json_get(context_management, "edits", &edits) || !json_iter_array(&it, edits))
		return;
	while (json_next(&it, &name, &edit)) {
		cut_item(cut, &items, edit.p);
		if (json_get(edit, "type", &type) && json_string_eq(type, "clear_thinking_20251015"))
			cut_drop(cut, &items, edit.p + edit.n);
		else
			cut_keep(&items, edit.p + edit.n);
	}
	cut_close(cut, &items);
}

static void
strip_member(struct cut *cut, struct cut_items *members, const struct body_scan *body, const struct body_member *m,
    uint32_t kinds, uint32_t before, bool disable)
{
	const char *end = m->value.p + m->value.n;

	cut_item(cut, members, m->name.p);
	if (((kinds & STATE_CREDIT) && json_string_eq(m->name, "fallback_credit_token")) ||
	    ((kinds & STATE_DIAGNOSTICS) && json_string_eq(m->name, "diagnostics"))) {
		cut_drop(cut, members, end);
		return;
	}
	if ((kinds & STATE_THINKING) && json_string_eq(m->name, "messages")) {
		strip_messages(cut, body, m->value, before);
	} else if (disable && json_string_eq(m->name, "thinking")) {
		cut_skip(cut, m->value.p, end);
		cut_put(cut, SLICE(DISABLED));
	} else if (disable && json_string_eq(m->name, "context_management")) {
		strip_edits(cut, m->value);
	}
	cut_keep(members, end);
}

bool
state_strip(const struct body_scan *body, const struct state *state, uint32_t before, struct scratch *mem, struct slice *out)
{
	const struct body_member *thinking = body_find(body, "thinking");
	uint32_t kinds = state_can_drop(state->kinds) & (before == STATE_ALL ? UINT32_MAX : STATE_THINKING);
	bool disable = (kinds & STATE_THINKING) && state->in_turn && (state->last_turn < before || !state->last_thought);
	struct cut_items members = { 0 };
	struct slice type;
	struct cut cut;

	disable = disable && thinking && json_get(thinking->value, "type", &type) && json_string_eq(type, "enabled");
	cut_begin(&cut, body->body.p, body->body.n + sizeof(DISABLED), mem);
	for (uint32_t i = 0; i < body->members_count; i++)
		strip_member(&cut, &members, body, &body->members[i], kinds, before, disable);
	cut_close(&cut, &members);
	if (!cut_end(&cut, body->body.p + body->body.n, out))
		return false;
	if (!out->p)
		*out = body->body;
	return true;
}
