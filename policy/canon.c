/*
 * policy/canon.c -- see canon.h.
 *
 * The words of a row. The top byte of the first one of each thing has its kind
 * in four bits. A text of up to seven bytes is in that word, with its length in
 * three bits of the top byte; of a longer one the word has LONG set and the
 * length, and the text follows in words, the last one filled up with zeros.
 *
 * Strings are hashed without their quotes, which the kind stands for.
 */
#include "policy/canon.h"

#include "policy/json_lex.h"

enum kind {
	KIND_KEY = 1,		/* begins a key */
	KIND_MEMBER,		/* begins a member's row */
	KIND_PART, KIND_ABSENT, KIND_JSON,
	KIND_NAME, KIND_STRING,
	KIND_PLAIN,		/* a number, true, false, null */
	KIND_OBJECT,		/* and how many members; two words with their sum follow */
	KIND_ARRAY, KIND_ARRAY_END,
};

#define KIND_SHIFT 59
#define LENGTH_SHIFT 56
#define LONG (UINT64_C(1) << 63)
#define SHORT_BYTES_MAX 7

_Static_assert(KIND_ARRAY_END < 16, "four bits, below LONG");

/* An object that is open. */
struct frame {
	struct siphash_stream outer;	/* the row that it stands in */
	struct siphash sum;
	uint64_t members;		/* begun; the last one is not in the sum yet */
};

struct walk {
	struct siphash_stream row;	/* where the next word goes */
	const uint64_t *secret;
	struct frame *top;		/* innermost object */
	struct frame frames[JSON_DEPTH_MAX + 1];	/* written before they are read; the first is none */
};

static inline uint64_t
mark(enum kind kind)
{
	return (uint64_t)kind << KIND_SHIFT;
}

/* 0 to 7 bytes as a number. */
static inline uint64_t
few_bytes(const char *p, size_t n)
{
	uint32_t low, high;

	if (n >= 4) {
		memcpy(&low, p, 4);
		memcpy(&high, p + n - 4, 4);
		return low | (uint64_t)high << (8 * (n - 4));
	}
	if (n == 0)
		return 0;
	return (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << (8 * (n / 2)) |
	    (uint64_t)(unsigned char)p[n - 1] << (8 * (n - 1));
}

LEX_INLINE void
add_text(struct siphash_stream *row, enum kind kind, struct slice text)
{
	struct siphash_stream s = *row;
	const char *p = text.p, *end = p + text.n;
	uint64_t word;

	if (text.n <= SHORT_BYTES_MAX) {
		siphash_word(&s, mark(kind) | (uint64_t)text.n << LENGTH_SHIFT | few_bytes(p, text.n));
	} else {
		siphash_word(&s, LONG | mark(kind) | text.n);
		for (; end - p >= 8; p += 8) {
			memcpy(&word, p, 8);
			siphash_word(&s, word);
		}
		if (p < end)
			siphash_word(&s, few_bytes(p, (size_t)(end - p)));
	}
	*row = s;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are hashed as the machine has them");

/* ---- one JSON text ---- */

LEX_INLINE void
end_member(struct walk *w)
{
	struct siphash h = siphash_end(&w->row);
	struct siphash *sum = &w->top->sum;

	sum->lo += h.lo;
	sum->hi += h.hi + (sum->lo < h.lo);
}

static const char *
on_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct walk *w = arg;

	(void)depth;
	(void)escaped;
	if (w->top->members++ > 0)
		end_member(w);
	siphash_begin(&w->row, w->secret);
	siphash_word(&w->row, mark(KIND_MEMBER));
	add_text(&w->row, KIND_NAME, (struct slice){ raw.p + 1, raw.n - 2 });
	return NULL;
}

static void
on_open(void *arg, uint32_t depth, const char *at)
{
	struct walk *w = arg;

	(void)depth;
	if (*at == '{')
		*++w->top = (struct frame){ .outer = w->row };
	else
		siphash_word(&w->row, mark(KIND_ARRAY));
}

static void
on_close(void *arg, uint32_t depth, const char *end)
{
	struct walk *w = arg;
	const struct frame *f = w->top;

	(void)depth;
	if (end[-1] == ']') {
		siphash_word(&w->row, mark(KIND_ARRAY_END));
		return;
	}
	if (f->members > 0)
		end_member(w);
	w->row = f->outer;
	siphash_word(&w->row, mark(KIND_OBJECT) | f->members);
	siphash_word(&w->row, f->sum.lo);
	siphash_word(&w->row, f->sum.hi);
	w->top--;
}

static void
on_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct walk *w = arg;

	(void)depth;
	(void)escaped;
	if (raw.p[0] == '"')
		add_text(&w->row, KIND_STRING, (struct slice){ raw.p + 1, raw.n - 2 });
	else
		add_text(&w->row, KIND_PLAIN, raw);
}

static const struct json_visitor visitor = {
	.name = on_name, .open = on_open, .close = on_close, .scalar = on_scalar,
};

bool
canon_add_json(struct canon_key *k, struct slice text, struct json_error *why)
{
	const char *end = text.p + text.n;
	struct lex f = { .what = NULL };
	struct walk w;
	const char *p;

	w.row = k->row;
	w.secret = k->secret;
	w.top = w.frames;
	siphash_word(&w.row, mark(KIND_JSON));
	p = json_walk(lex_space(text.p, end), end, &visitor, &w, &f);
	if (p) {
		p = lex_space(p, end);
		if (p < end)
			p = lex_fail(&f, p, "bytes behind the value");
	}
	if (!p) {
		*why = (struct json_error){ (size_t)(f.at - text.p), f.what };
		return false;
	}
	k->row = w.row;
	return true;
}

/* ---- a key ---- */

void
canon_begin(struct canon_key *k, const uint64_t secret[2])
{
	k->secret[0] = secret[0];
	k->secret[1] = secret[1];
	siphash_begin(&k->row, secret);
	siphash_word(&k->row, mark(KIND_KEY));
}

void
canon_add(struct canon_key *k, struct slice part)
{
	if (part.p)
		add_text(&k->row, KIND_PART, part);
	else
		siphash_word(&k->row, mark(KIND_ABSENT));
}

void
canon_end(struct canon_key *k, uint64_t out[2])
{
	struct siphash h = siphash_end(&k->row);

	out[0] = h.lo;
	out[1] = h.hi;
	explicit_bzero(k, sizeof(*k));
}
