/*
 * policy/regex_syntax.c -- see regex_syntax.h.
 *
 * One pass counts the groups and looks whether any is referred to; a second one
 * reads the pattern term by term and writes what PCRE2 takes it for. Characters
 * that could mean something are written as \x{..}, so that nothing is left for
 * another grammar to see in them. Groups that nobody refers to do not capture:
 * that makes what a match remembers small.
 *
 * A *run* is what is matched from a callout to the next. Terms that look at one
 * character each share one; behind a term that may move on by any number of
 * them, and where an alternative begins, another one begins. How much a run can
 * look at in vain (its characters, and the least that a quantifier demands) is
 * known at its end only, so the callout's number is written then.
 */
#include "policy/regex_syntax.h"

#include <stdio.h>
#include <string.h>

#include "policy/json_lex.h"

#define GROUPS_MAX 64		/* that are referred to, or have names */
#define NESTED_MAX 64		/* groups in one another */
#define COUNT_MAX 65535		/* of a quantifier, in PCRE2 */
#define TEXT_BYTES_MAX (160 * REGEX_PATTERN_BYTES_MAX)	/* \S in a class is written out */
#define CALLOUT "(?C000)"
#define CALLOUT_NUMBER 3	/* where its three digits are */

/* What JavaScript calls white space, and all else. */
#define SPACES "\\x{9}-\\x{d}\\x{20}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}\\x{feff}"
#define OTHERS "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
	"\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{fefe}\\x{ff00}-\\x{10ffff}"
#define ALL "\\x{0}-\\x{10ffff}"
#define NO_LINE_END "[^\\x{a}\\x{d}\\x{2028}\\x{2029}]"

struct name {
	struct slice text;
	uint32_t group;
};

struct translate {
	const char *start, *at, *end;	/* the pattern */
	struct regex_syntax *out;
	struct regex_error *why;
	size_t placed;			/* offsets whose place is known */
	uint32_t groups, names_count;	/* of the whole pattern */
	struct name names[GROUPS_MAX];
	bool captures;			/* some group is referred to */
	struct open {			/* a group, in the first one the whole pattern */
		bool repeats;		/* may a quantifier follow it? */
		uint64_t terms;		/* in it, as PCRE2 writes them out */
	} open[NESTED_MAX + 1];
	uint32_t depth;
	uint64_t last;			/* terms of the last term: more than one of a group */
	bool repeatable;		/* a quantifier may follow here ... */
	bool single;			/* ... on a term that looks at one character */
	bool in_run;
	size_t callout;			/* the run's number, in the text */
	uint32_t weight;		/* the characters that it may look at */
};

static bool
fail(struct translate *t, const char *at, const char *what)
{
	t->why->offset = (size_t)(at - t->start);
	snprintf(t->why->what, sizeof(t->why->what), "%s", what);
	return false;
}

static bool
next_is(const struct translate *t, const char *text)
{
	size_t n = strlen(text);

	return (size_t)(t->end - t->at) >= n && memcmp(t->at, text, n) == 0;
}

static bool
is_octal(char c)
{
	return c >= '0' && c <= '7';
}

static bool
is_letter(char c)
{
	return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* Bytes that belong to the character at p. Whether they are UTF-8 is looked at by PCRE2. */
static size_t
char_bytes(const char *p, const char *end)
{
	size_t n = 1;

	while ((unsigned char)*p >= 0x80 && p + n < end && ((unsigned char)p[n] & 0xc0) == 0x80)
		n++;
	return n;
}

/* A decimal number at *p; COUNT_MAX + 1 if it is larger. */
static uint32_t
take_number(const char **p, const char *end)
{
	uint32_t n = 0;

	for (; *p < end && lex_is_digit(**p); (*p)++) {
		n = n * 10 + (uint32_t)(**p - '0');
		if (n > COUNT_MAX)
			n = COUNT_MAX + 1;
	}
	return n;
}

/* ---- groups and who refers to them ---- */

static bool
note_name(struct translate *t, const char *p)
{
	const char *end = memchr(p, '>', (size_t)(t->end - p));
	struct slice name = { p, end ? (size_t)(end - p) : 0 };

	for (size_t i = 0; i < name.n; i++)
		if (!(is_letter(p[i]) || p[i] == '_' || p[i] == '$' || (unsigned char)p[i] >= 0x80 ||
		    (i > 0 && lex_is_digit(p[i]))))
			return fail(t, p + i, "invalid name of a group");
	if (name.n == 0)
		return fail(t, p, "a group needs a name and '>'");
	for (uint32_t i = 0; i < t->names_count; i++)
		if (slice_eq(t->names[i].text, name))
			return fail(t, p, "two groups have this name");
	if (t->names_count == GROUPS_MAX)
		return fail(t, p, "too many groups have names");
	t->names[t->names_count++] = (struct name){ name, t->groups };
	return true;
}

static bool
count_groups(struct translate *t)
{
	uint32_t least = UINT32_MAX;	/* of the numbers behind a backslash */
	bool in_class = false, by_name = false;

	for (const char *p = t->start; p < t->end; p++) {
		if (*p == '\\' && p + 1 < t->end) {
			const char *digits = ++p;
			uint32_t n = !in_class && *p > '0' && *p <= '9' ? take_number(&digits, t->end) : UINT32_MAX;

			least = n < least ? n : least;
			by_name |= *p == 'k' && !in_class;
		} else if (*p == '[' || *p == ']') {
			in_class = *p == '[';
		} else if (*p == '(' && !in_class) {
			bool named = t->end - p >= 3 && p[1] == '?' && p[2] == '<' &&
			    (p + 3 == t->end || (p[3] != '=' && p[3] != '!'));

			if (!named && p + 1 < t->end && p[1] == '?')
				continue;
			t->groups++;
			if (named && !note_name(t, p + 3))
				return false;
		}
	}
	t->captures = least <= t->groups || (by_name && t->names_count > 0);
	if (t->captures && t->groups > GROUPS_MAX)
		return fail(t, t->start, "too many groups, and some are referred to");
	return true;
}

/* ---- what is written ---- */

static void
put(struct translate *t, const char *text)
{
	buf_add_str(&t->out->text, text);
}

static void
put_code(struct translate *t, uint32_t code)
{
	if (code < 0x80 && (is_letter((char)code) || lex_is_digit((char)code)))
		buf_add_char(&t->out->text, (char)code);
	else
		buf_printf(&t->out->text, "\\x{%x}", code);
}

static void
put_char(struct translate *t)
{
	size_t n = char_bytes(t->at, t->end);

	if (n == 1 && (unsigned char)*t->at < 0x80)
		put_code(t, (unsigned char)*t->at);
	else
		buf_add(&t->out->text, t->at, n);
	t->at += n;
}

static void
run_end(struct translate *t)
{
	uint32_t number = t->weight / REGEX_STEP_BYTES;
	char digits[4];

	if (!t->in_run)
		return;
	t->in_run = false;
	if (t->out->text.overflow)
		return;
	snprintf(digits, sizeof(digits), "%03u", number < REGEX_WEIGHT_REST ? number : REGEX_WEIGHT_REST);
	memcpy(t->out->text.p + t->callout, digits, 3);
}

static void
run_begin(struct translate *t)
{
	if (t->in_run)
		return;
	t->callout = t->out->text.n + CALLOUT_NUMBER;
	put(t, CALLOUT);
	t->in_run = true;
	t->weight = 0;
}

static void
add_terms(struct translate *t, uint64_t n)
{
	t->open[t->depth].terms += n;
	t->last = n;
}

/* A term that looks at one character, or at none and only here. */
static void
term_begin(struct translate *t, bool repeatable)
{
	run_begin(t);
	add_terms(t, 1);
	t->weight++;
	t->repeatable = repeatable;
	t->single = repeatable;
}

static void
not_plain(struct translate *t)
{
	t->out->plain = false;
}

/* ---- escapes ---- */

static int
hex_digit(char c)
{
	return lex_is_digit(c) ? c - '0' : lex_is_hex(c) ? (c | 0x20) - 'a' + 10 : -1;
}

/* n hexadecimal digits behind the letter at p; false: they are not there. */
static bool
hex_number(const struct translate *t, const char *p, int n, uint32_t *code)
{
	*code = 0;
	for (int i = 1; i <= n; i++) {
		if (p + i >= t->end || hex_digit(p[i]) < 0)
			return false;
		*code = *code << 4 | (uint32_t)hex_digit(p[i]);
	}
	return true;
}

static uint32_t
octal_number(struct translate *t)
{
	const char *p = t->at;
	uint32_t code = (uint32_t)(*p++ - '0');
	int more = *t->at <= '3' ? 2 : 1;

	if (!is_octal(*t->at)) {	/* \8 is an 8 */
		t->at++;
		return (unsigned char)t->at[-1];
	}
	for (; more > 0 && p < t->end && is_octal(*p); more--)
		code = code * 8 + (uint32_t)(*p++ - '0');
	t->at = p;
	return code;
}

/* \u and four digits, or both halves of a pair. */
static bool
unicode_number(struct translate *t, uint32_t *code)
{
	uint32_t low;

	if (!hex_number(t, t->at, 4, code)) {
		*code = 'u';
		t->at++;
		return true;
	}
	t->at += 5;
	if (*code < 0xd800 || *code > 0xdfff)
		return true;
	if (*code > 0xdbff || !next_is(t, "\\u") || !hex_number(t, t->at + 1, 4, &low) || low < 0xdc00 || low > 0xdfff)
		return fail(t, t->at - 6, "half of a surrogate pair: no text has one");
	*code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
	t->at += 6;
	return true;
}

/* \cA; else the backslash is one, and the c is read again. */
static uint32_t
control_number(struct translate *t, bool in_class)
{
	char c = t->at + 1 < t->end ? t->at[1] : '\0';

	if (is_letter(c) || (in_class && (lex_is_digit(c) || c == '_'))) {
		t->at += 2;
		return (uint32_t)c & 31;
	}
	return '\\';
}

/* Behind a backslash that begins a single character: which one. */
static bool
take_code(struct translate *t, bool in_class, uint32_t *code)
{
	static const char from[] = "fnrtv", to[] = "\f\n\r\t\v";
	char c = *t->at;
	const char *known = strchr(from, c);

	if (c == 'k' && t->names_count > 0)	/* of a class; take_escape() has taken the others */
		return fail(t, t->at, "\\k in a class");
	if (lex_is_digit(c)) {
		*code = octal_number(t);
	} else if (c == 'u') {
		return unicode_number(t, code);
	} else if (c == 'c') {
		*code = control_number(t, in_class);
	} else if (c == 'x' && hex_number(t, t->at, 2, code)) {
		t->at += 3;
	} else {
		*code = (unsigned char)(c && known ? to[known - from] : in_class && c == 'b' ? '\b' : c);
		t->at++;
	}
	return true;
}

/* ---- classes ---- */

/* A class in a word: \d. None: it is a single character. */
static const char *
set_text(char letter, bool in_class)
{
	switch (letter) {
	case 'd':
		return "\\d";
	case 'D':
		return "\\D";
	case 'w':
		return "\\w";
	case 'W':
		return "\\W";
	case 's':
		return in_class ? SPACES : "[" SPACES "]";
	case 'S':
		return in_class ? OTHERS : "[^" SPACES "]";
	}
	return NULL;
}

static bool
next_is_set(const struct translate *t)
{
	return t->end - t->at >= 2 && *t->at == '\\' && set_text(t->at[1], true);
}

/* A character of a class, or a set in it. */
static bool
class_atom(struct translate *t)
{
	uint32_t code;

	if (next_is_set(t)) {
		put(t, set_text(t->at[1], true));
		t->at += 2;
		return true;
	}
	if (*t->at == '\\') {
		if (++t->at == t->end)
			return fail(t, t->at, "the pattern ends in a class");
		if ((unsigned char)*t->at < 0x80) {
			if (!take_code(t, true, &code))
				return false;
			put_code(t, code);
			return true;
		}
	}
	put_char(t);
	return true;
}

static bool
take_class(struct translate *t)
{
	const char *start = t->at++;

	term_begin(t, true);
	not_plain(t);
	if (next_is(t, "]") || next_is(t, "^]")) {	/* none, and any; PCRE2 does not repeat its own none */
		put(t, *t->at == '^' ? "[" ALL "]" : "[^" ALL "]");
		t->at += *t->at == '^' ? 2 : 1;
		return true;
	}
	put(t, "[");
	if (next_is(t, "^")) {
		put(t, "^");
		t->at++;
	}
	while (t->at < t->end && *t->at != ']') {
		bool set = next_is_set(t);

		if (!class_atom(t))
			return false;
		if (!next_is(t, "-") || t->end - t->at < 2 || t->at[1] == ']')
			continue;
		t->at++;
		/* With a set at one side it is no range, and a hyphen. */
		put(t, set || next_is_set(t) ? "\\x{2d}" : "-");
		if (!class_atom(t))
			return false;
	}
	if (t->at == t->end)
		return fail(t, start, "a class without its ']'");
	put(t, "]");
	t->at++;
	return true;
}

/* ---- terms ---- */

/* It compares as much as the group has matched: a run of its own. */
static void
put_reference(struct translate *t, uint32_t group)
{
	run_end(t);
	not_plain(t);
	buf_printf(&t->out->text, "(?C%d)\\g{%u}", REGEX_WEIGHT_REST, group);
	add_terms(t, 1);
	t->repeatable = true;
	t->single = false;
}

static bool
take_name(struct translate *t)
{
	const char *start = t->at + 2, *end;

	end = next_is(t, "k<") ? memchr(start, '>', (size_t)(t->end - start)) : NULL;
	for (uint32_t i = 0; end && i < t->names_count; i++)
		if (slice_eq(t->names[i].text, (struct slice){ start, (size_t)(end - start) })) {
			put_reference(t, t->names[i].group);
			t->at = end + 1;
			return true;
		}
	return fail(t, t->at, "\\k wants <name>, of a group that there is");
}

static bool
take_escape(struct translate *t)
{
	const char *digits = ++t->at, *set;
	uint32_t n, code;

	if (t->at == t->end)
		return fail(t, t->at, "the pattern ends with a backslash");
	if (*t->at > '0' && *t->at <= '9' && (n = take_number(&digits, t->end)) <= t->groups) {
		put_reference(t, n);
		t->at = digits;
		return true;
	}
	if (*t->at == 'k' && t->names_count > 0)
		return take_name(t);
	if (*t->at == 'b' || *t->at == 'B') {
		term_begin(t, false);
		not_plain(t);
		put(t, *t->at++ == 'b' ? "\\b" : "\\B");
		return true;
	}
	term_begin(t, true);
	set = set_text(*t->at, false);
	if (set || (unsigned char)*t->at >= 0x80)
		not_plain(t);
	if (set) {
		put(t, set);
		t->at++;
	} else if ((unsigned char)*t->at >= 0x80) {
		put_char(t);
	} else {
		if (!take_code(t, false, &code))
			return false;
		put_code(t, code);
		if (code < 0x80)
			buf_add_char(&t->out->literal, (char)code);
		else
			not_plain(t);
	}
	return true;
}

/* An alternative begins, and may be empty. */
static void
alternative(struct translate *t)
{
	run_begin(t);
	add_terms(t, 1);
	t->repeatable = false;
}

static bool
take_group(struct translate *t)
{
	static const struct { const char *text; bool repeats; } kinds[] = {
		{ "(?:", true }, { "(?=", true }, { "(?!", true }, { "(?<=", false }, { "(?<!", false },
	};
	const char *written = t->captures ? "(" : "(?:";
	bool repeats = true;
	size_t i = 0;

	if (t->depth == NESTED_MAX)
		return fail(t, t->at, "too many groups in one another");
	while (i < sizeof(kinds) / sizeof(*kinds) && !next_is(t, kinds[i].text))
		i++;
	if (i < sizeof(kinds) / sizeof(*kinds)) {
		written = kinds[i].text;
		repeats = kinds[i].repeats;
		t->at += strlen(written);
	} else if (next_is(t, "(?<")) {
		t->at = (const char *)memchr(t->at, '>', (size_t)(t->end - t->at)) + 1;	/* note_name() has seen it */
	} else if (next_is(t, "(?")) {
		return fail(t, t->at, "JavaScript knows no such group, nor flags inside of a pattern");
	} else {
		t->at++;
	}
	run_end(t);
	not_plain(t);
	put(t, written);
	t->open[++t->depth] = (struct open){ .repeats = repeats };
	alternative(t);
	return true;
}

static bool
close_group(struct translate *t)
{
	const struct open *group = &t->open[t->depth];

	if (t->depth == 0)
		return fail(t, t->at, "a ')' without its '('");
	run_end(t);
	put(t, ")");
	t->depth--;
	add_terms(t, group->terms);
	t->repeatable = group->repeats;
	t->single = false;
	t->at++;
	return true;
}

/* {2}, {2,} or {2,3} at p; the byte behind it. NULL: none, and the brace is a brace. */
static const char *
count_at(const struct translate *t, const char *p, uint32_t *least, uint32_t *most)
{
	const char *digits = ++p;

	*least = *most = take_number(&p, t->end);
	if (p == digits)
		return NULL;
	if (p < t->end && *p == ',') {
		digits = ++p;
		*most = take_number(&p, t->end);
		if (p == digits)
			*most = UINT32_MAX;
	}
	return p < t->end && *p == '}' ? p + 1 : NULL;
}

static bool
take_quantifier(struct translate *t, const char *behind, uint32_t least, uint32_t most)
{
	if (!t->repeatable)
		return fail(t, t->at, "nothing to repeat");
	if (least > most)
		return fail(t, t->at, "the numbers of a quantifier are out of order");
	if (least > COUNT_MAX || (most > COUNT_MAX && most != UINT32_MAX))
		return fail(t, t->at, "a quantifier of more than 65535");
	if (*t->at != '{')
		buf_add_char(&t->out->text, *t->at);
	else if (most == UINT32_MAX)
		buf_printf(&t->out->text, "{%u,}", least);
	else
		buf_printf(&t->out->text, "{%u,%u}", least, most);
	t->at = behind;
	if (next_is(t, "?")) {
		put(t, "?");
		t->at++;
	}
	uint64_t copies = most < UINT32_MAX ? most : least;
	if (t->single)
		t->weight += least;
	else if (copies > 1)
		add_terms(t, t->last * (copies - 1));
	run_end(t);
	not_plain(t);
	t->repeatable = false;
	return true;
}

static bool
take_literal(struct translate *t)
{
	term_begin(t, true);
	if ((unsigned char)*t->at < 0x80)
		buf_add_char(&t->out->literal, *t->at);
	else
		not_plain(t);
	put_char(t);
	return true;
}

static bool
take_anchor(struct translate *t)
{
	bool first = t->at == t->start, last = t->at + 1 == t->end;
	const char text[] = { *t->at, '\0' };

	if (*t->at == '^' ? !first : !last)
		not_plain(t);
	t->out->at_start |= *t->at == '^';
	t->out->at_end |= *t->at == '$';
	term_begin(t, false);
	put(t, text);
	t->at++;
	return true;
}

static bool
take_term(struct translate *t)
{
	uint32_t least, most;
	const char *behind;

	switch (*t->at) {
	case '\\':
		return take_escape(t);
	case '[':
		return take_class(t);
	case '(':
		return take_group(t);
	case ')':
		return close_group(t);
	case '^':
	case '$':
		return take_anchor(t);
	case '|':
		run_end(t);
		not_plain(t);
		put(t, "|");
		alternative(t);
		t->at++;
		return true;
	case '.':
		term_begin(t, true);
		not_plain(t);
		put(t, NO_LINE_END);
		t->at++;
		return true;
	case '*':
		return take_quantifier(t, t->at + 1, 0, UINT32_MAX);
	case '+':
		return take_quantifier(t, t->at + 1, 1, UINT32_MAX);
	case '?':
		return take_quantifier(t, t->at + 1, 0, 1);
	case '{':
		behind = count_at(t, t->at, &least, &most);
		return behind ? take_quantifier(t, behind, least, most) : take_literal(t);
	}
	return take_literal(t);
}

static void
places_until(struct translate *t, const char *at)
{
	while (t->placed <= (size_t)(at - t->start))
		t->out->place[t->placed++] = (uint32_t)t->out->text.n;
}

bool
regex_translate(struct slice pattern, struct regex_syntax *out, struct regex_error *why)
{
	struct translate t = {
		.start = pattern.p, .at = pattern.p, .end = pattern.p + pattern.n, .out = out, .why = why,
	};

	buf_init(&out->text, TEXT_BYTES_MAX);
	buf_init(&out->literal, REGEX_PATTERN_BYTES_MAX);
	out->plain = true;
	out->at_start = out->at_end = false;
	if (pattern.n > REGEX_PATTERN_BYTES_MAX)
		return fail(&t, t.start + REGEX_PATTERN_BYTES_MAX, "longer than 1024 bytes");
	if (!count_groups(&t))
		return false;
	alternative(&t);
	while (t.at < t.end) {
		places_until(&t, t.at);
		const char *term = t.at;
		if (!take_term(&t))
			return false;
		if (t.open[t.depth].terms > REGEX_TERMS_MAX)
			return fail(&t, term, "too large: repeated groups are written out");
	}
	run_end(&t);
	places_until(&t, t.end);
	if (t.depth > 0)
		return fail(&t, t.end, "a '(' without its ')'");
	CHECK(!out->text.overflow && !out->literal.overflow);
	return true;
}
