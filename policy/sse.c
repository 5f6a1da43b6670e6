/*
 * policy/sse.c -- see sse.h.
 *
 * A line may come in one piece or in a hundred; both go through line_bytes(),
 * which takes any part of a line, and line_end(). The field's name is looked
 * up as soon as its colon is there, and from then on the bytes are copied,
 * counted or ignored without being looked at. What is looked for in every
 * byte is only the end of the line, 16 bytes at a time.
 */
#include "policy/sse.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "shm/limits.h"

enum field {
	FIELD_NAME,		/* its name is coming; no byte yet: the line is blank so far */
	FIELD_IGNORED,		/* id, retry, what nobody knows */
	FIELD_COMMENT,
	FIELD_EVENT_SPACE,	/* one space behind the colon does not belong to the value */
	FIELD_EVENT,
	FIELD_DATA_SPACE,
	FIELD_DATA,
};

void
sse_init(struct sse *s)
{
	*s = (struct sse){ .kind = SSE_UNNAMED };
	buf_init(&s->data, SSE_EVENT_BYTES_MAX);
}

void
sse_free(struct sse *s)
{
	buf_free(&s->data);
}

static void
event_begin(struct sse *s)
{
	s->kind = SSE_UNNAMED;
	s->data_bytes = 0;
	s->data_lines = 0;
	s->open = s->lost = s->ended = false;
	buf_clear(&s->data);
}

enum sse_kind
sse_kind_of(struct slice name)
{
#define X(id, text, keep) \
	if (slice_eq(name, SLICE(text))) \
		return SSE_##id;
	SSE_KINDS(X)
#undef X
	return SSE_OTHER;
}

static bool
is_kept(enum sse_kind kind)
{
	switch (kind) {
#define X(id, text, keep) case SSE_##id: return keep;
	SSE_KINDS(X)
#undef X
	case SSE_UNNAMED:
		return true;
	case SSE_OTHER:
		break;
	}
	return false;
}

static const char *
line_break(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		unsigned mask = (unsigned)_mm_movemask_epi8(
		    _mm_or_si128(_mm_cmpeq_epi8(v, lf), _mm_cmpeq_epi8(v, cr)));
		if (mask)
			return p + __builtin_ctz(mask);
		p += 16;
	}
#endif
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	return p;
}

static void
data_bytes(struct sse *s, const char *p, size_t n)
{
	s->data_bytes += n;
	if (n == 0)
		return;
	if (!is_kept(s->kind) || s->lost) {
		s->lost = true;
		return;
	}
	buf_add(&s->data, p, n);
	if (s->data.overflow) {
		s->lost = true;
		buf_free(&s->data);	/* its memory too: nobody will read it */
	}
}

static void
data_line_begin(struct sse *s)
{
	s->field = FIELD_DATA_SPACE;
	if (s->data_lines++ > 0)
		data_bytes(s, "\n", 1);
}

/* The field's name is complete. */
static void
field_begin(struct sse *s)
{
	struct slice name = { s->name, s->name_n };

	if (slice_eq(name, SLICE("data")))
		data_line_begin(s);
	else if (slice_eq(name, SLICE("event")))
		s->field = FIELD_EVENT_SPACE;
	else
		s->field = name.n == 0 ? FIELD_COMMENT : FIELD_IGNORED;
	s->name_n = 0;
}

/* Takes bytes of the field's name and its colon; what it did not take. */
static const char *
name_bytes(struct sse *s, const char *p, const char *end)
{
	/* The two that matter, whole, as they come nearly always. */
	if (s->name_n == 0 && end - p > 6) {
		if (memcmp(p, "data:", 5) == 0) {
			data_line_begin(s);
			return p + 5;
		}
		if (memcmp(p, "event:", 6) == 0) {
			s->field = FIELD_EVENT_SPACE;
			return p + 6;
		}
	}
	while (p < end) {
		char c = *p++;

		if (c == ':') {
			field_begin(s);
			return p;
		}
		if (s->name_n == SSE_NAME_BYTES) {
			s->field = FIELD_IGNORED;
			s->name_n = 0;
			return end;
		}
		s->name[s->name_n++] = c;
	}
	return p;
}

static void
event_name_bytes(struct sse *s, const char *p, size_t n)
{
	size_t room = (size_t)(SSE_NAME_BYTES - s->name_n);

	/* A name that fills the room is longer than any that we know. */
	memcpy(s->name + s->name_n, p, n < room ? n : room);
	s->name_n = (uint8_t)(s->name_n + (n < room ? n : room));
}

/* Some bytes of the line, no line break among them. */
static void
line_bytes(struct sse *s, const char *p, const char *end)
{
	if (s->field == FIELD_NAME)
		p = name_bytes(s, p, end);
	if (p == end)
		return;
	if (s->field == FIELD_DATA_SPACE || s->field == FIELD_EVENT_SPACE) {
		p += *p == ' ';
		s->field++;
	}
	if (s->field == FIELD_DATA)
		data_bytes(s, p, (size_t)(end - p));
	else if (s->field == FIELD_EVENT)
		event_name_bytes(s, p, (size_t)(end - p));
}

/* true: it was the blank line that ends an event. */
static bool
line_end(struct sse *s)
{
	bool blank = s->field == FIELD_NAME && s->name_n == 0;

	if (s->field == FIELD_NAME && !blank)
		field_begin(s);		/* a name without a colon has an empty value */
	if (s->field == FIELD_EVENT || s->field == FIELD_EVENT_SPACE)
		s->kind = s->name_n ? sse_kind_of((struct slice){ s->name, s->name_n }) : SSE_UNNAMED;
	if (!blank && s->field != FIELD_COMMENT)
		s->open = true;
	s->field = FIELD_NAME;
	s->name_n = 0;
	s->ended = blank && s->open;
	return s->ended;
}

/* The mark may stand before the first line. What only looked like it is a
 * part of that line. */
static const char *
byte_order_mark(struct sse *s, const char *p, const char *end)
{
	static const char mark[3] = { '\xef', '\xbb', '\xbf' };

	while (p < end && s->bom < 3) {
		if (*p != mark[s->bom]) {
			line_bytes(s, mark, mark + s->bom);
			s->bom = 3;
			break;
		}
		p++;
		s->bom++;
	}
	return p;
}

/* Nine events of ten are deltas, whole, in one form. Their end comes back;
 * NULL: this is none, or not all of it is here. What is noted is what the long
 * way would have noted. */
static const char *
whole_delta(struct sse *s, const char *p, const char *end)
{
	static const char head[] = "event: content_block_delta\ndata: ";
	const char *data = p + sizeof(head) - 1, *stop;

	if ((size_t)(end - p) < sizeof(head) || memcmp(p, head, sizeof(head) - 1) != 0)
		return NULL;
	stop = line_break(data, end);
	if (end - stop < 2 || stop[0] != '\n' || stop[1] != '\n')
		return NULL;
	s->kind = SSE_CONTENT_BLOCK_DELTA;
	s->data_bytes = (uint64_t)(stop - data);
	s->data_lines = 1;
	s->lost = stop > data;
	s->open = s->ended = true;
	s->lone_cr = false;
	return stop + 2;
}

/* At the first byte of an event's first line, and no half line break open. */
static bool
at_fresh_event(const struct sse *s)
{
	return !s->open && !s->after_cr && s->field == FIELD_NAME && s->name_n == 0 && s->data_lines == 0 && s->bom == 3;
}

const char *
sse_next(struct sse *s, const char *p, const char *end)
{
	const char *after;

	if (s->ended)
		event_begin(s);
	if (s->bom < 3)
		p = byte_order_mark(s, p, end);
	if (at_fresh_event(s) && (after = whole_delta(s, p, end)) != NULL)
		return after;
	while (p < end) {
		if (s->after_cr) {
			s->after_cr = false;
			s->lone_cr = *p != '\n';
			if (!s->lone_cr) {
				p++;
				continue;
			}
		}
		const char *stop = line_break(p, end);
		if (stop > p)
			line_bytes(s, p, stop);
		if (stop == end)
			return end;
		s->after_cr = *stop == '\r';
		s->lone_cr &= s->after_cr;
		p = stop + 1;
		if (line_end(s))
			return p;
	}
	return p;
}

bool
sse_end(struct sse *s)
{
	if (s->ended)
		return false;	/* it has been told */
	if (s->field != FIELD_NAME || s->name_n > 0)
		line_end(s);
	s->ended = s->open;
	return s->ended;
}

bool
sse_at_boundary(const struct sse *s)
{
	return (s->ended || !s->open) && s->field == FIELD_NAME && s->name_n == 0 &&
	    (s->bom == 0 || s->bom == 3) && (!s->after_cr || s->lone_cr);
}

bool
sse_data(const struct sse *s, struct slice *data)
{
	*data = buf_slice(&s->data);
	return !s->lost;
}
