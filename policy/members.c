/*
 * policy/members.c -- see members.h.
 *
 * Outside of strings one byte is one step of a small machine; inside, runs
 * are skipped as fast as elsewhere (json_lex.h). A value's end is its closing
 * quote or bracket, or, for numbers and literals, the byte behind it.
 */
#include "policy/members.h"

#include "policy/json_lex.h"

enum state {
	STATE_START,		/* the opening bracket is to come */
	STATE_NAME,		/* a name, or the end of the object */
	STATE_IN_NAME,
	STATE_COLON,
	STATE_VALUE,		/* its first byte */
	STATE_STRING,		/* in a value that is a string */
	STATE_NESTED,		/* in a value that is a container */
	STATE_BARE,		/* in a number or literal */
	STATE_COMMA,
	STATE_DONE,
};

void
members_init(struct members *m, const struct slice *wanted)
{
	*m = (struct members){ .wanted = wanted };
	buf_init(&m->value, SSE_EVENT_BYTES_MAX);
}

void
members_free(struct members *m)
{
	buf_free(&m->value);
}

static void
name_add(struct members *m, const char *p, size_t n)
{
	if (m->raw_name_n + n > MEMBER_NAME_BYTES) {
		m->raw_name_n = MEMBER_NAME_BYTES + 1;	/* and stays so */
		return;
	}
	memcpy(m->raw_name + m->raw_name_n, p, n);
	m->raw_name_n = (uint8_t)(m->raw_name_n + n);
}

static void
name_known(struct members *m)
{
	struct slice raw = { m->raw_name, m->raw_name_n };

	m->name = NULL;
	if (m->raw_name_n > MEMBER_NAME_BYTES)
		return;
	const bool escaped = memchr(raw.p, '\\', raw.n) != NULL;
	for (const struct slice *w = m->wanted; w->p && !m->name; w++)
		if (escaped ? json_string_is(raw, *w) :
		    raw.n == w->n + 2 && memcmp(raw.p + 1, w->p, w->n) == 0)
			m->name = w;
}

static void
value_add(struct members *m, const char *p, const char *end)
{
	if (!m->name)
		return;
	buf_add(&m->value, p, (size_t)(end - p));
	if (m->value.overflow) {	/* give it up, and its memory */
		m->name = NULL;
		buf_free(&m->value);
	}
}

static void
value_done(struct members *m)
{
	m->ready = m->name != NULL;
	m->state = STATE_COMMA;
}

/* In a string: on to its closing quote, or the end of the piece. */
static const char *
string_bytes(struct members *m, const char *p, const char *end)
{
	if (!m->escaped && end - p >= LEX_LOOK) {
		const char *quote = lex_plain_string(p, end, p);

		if (quote) {
			m->in_string = false;
			return quote + 1;
		}
	}
	while (p < end) {
		if (m->escaped) {
			m->escaped = false;
			p++;
			continue;
		}
		p = lex_plain(p, end);
		if (p == end)
			break;
		char c = *p++;
		m->escaped = c == '\\';
		if (c == '"') {
			m->in_string = false;
			break;
		}
	}
	return p;
}

static const char *
nested_bytes(struct members *m, const char *p, const char *end)
{
	uint64_t depth = m->depth;

	if (m->in_string)
		p = string_bytes(m, p, end);
	while (p < end && depth > 0) {
		char c = *p++;

		if (c == '"') {
			m->in_string = true;
			p = string_bytes(m, p, end);
		} else if (lex_is_opener(c)) {
			depth++;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	m->depth = depth;
	return p;
}

static const char *
value_begin(struct members *m, const char *p)
{
	buf_clear(&m->value);
	m->in_string = *p == '"';
	m->escaped = false;
	m->depth = 0;
	if (*p == '"') {
		m->state = STATE_STRING;
	} else if (*p == '{' || *p == '[') {
		m->state = STATE_NESTED;
		m->depth = 1;
	} else {
		m->state = STATE_BARE;
		return p;	/* may be a digit, or rubbish: STATE_BARE looks at it */
	}
	value_add(m, p, p + 1);
	return p + 1;
}

static const char *
value_bytes(struct members *m, const char *p, const char *end)
{
	const char *start = p;

	if (m->state == STATE_STRING) {
		p = string_bytes(m, p, end);
		value_add(m, start, p);
		if (!m->in_string)
			value_done(m);
	} else if (m->state == STATE_NESTED) {
		p = nested_bytes(m, p, end);
		value_add(m, start, p);
		if (m->depth == 0)
			value_done(m);
	} else {
		while (p < end && *p != ',' && *p != '}' && !lex_is_space(*p))
			p++;
		value_add(m, start, p);
		if (p < end)
			value_done(m);
	}
	return p;
}

/* One byte between values. */
static void
punctuation(struct members *m, char c)
{
	switch ((enum state)m->state) {
	case STATE_START:
		m->broken = c != '{';
		m->state = STATE_NAME;
		return;
	case STATE_NAME:
		m->raw_name_n = 0;
		if (c == '"') {
			name_add(m, &c, 1);
			m->in_string = true;
			m->state = STATE_IN_NAME;
			return;
		}
		m->complete = c == '}';
		m->broken = !m->complete;
		m->state = STATE_DONE;
		return;
	case STATE_COLON:
		m->broken = c != ':';
		m->state = STATE_VALUE;
		return;
	case STATE_COMMA:
		m->complete = c == '}';
		m->broken = c != '}' && c != ',';
		m->state = m->complete ? STATE_DONE : STATE_NAME;
		return;
	case STATE_DONE:
		m->broken = true;	/* bytes behind the object */
		return;
	case STATE_IN_NAME: case STATE_VALUE: case STATE_STRING: case STATE_NESTED: case STATE_BARE:
		break;
	}
	CHECK(false);	/* these are read elsewhere */
}

const char *
members_next(struct members *m, const char *p, const char *end)
{
	m->ready = false;
	while (p < end && !m->broken && !m->ready) {
		const char *start = p;

		switch ((enum state)m->state) {
		case STATE_IN_NAME:
			p = string_bytes(m, p, end);
			name_add(m, start, (size_t)(p - start));
			if (!m->in_string) {
				name_known(m);
				m->state = STATE_COLON;
			}
			break;
		case STATE_STRING: case STATE_NESTED: case STATE_BARE:
			p = value_bytes(m, p, end);
			break;
		case STATE_VALUE:
			p = lex_space(p, end);
			if (p < end)
				p = value_begin(m, p);
			break;
		case STATE_START: case STATE_NAME: case STATE_COLON: case STATE_COMMA: case STATE_DONE:
			p = lex_space(p, end);
			if (p < end)
				punctuation(m, *p++);
			break;
		}
	}
	return m->broken ? end : p;
}

bool
members_untouched(const struct members *m)
{
	return m->state == STATE_START && !m->broken;
}

void
members_close(struct members *m)
{
	m->complete = true;
	m->state = STATE_DONE;
}
