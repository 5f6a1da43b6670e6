/*
 * policy/regex.c -- see regex.h.
 *
 * PCRE2 bounds how far a match may search from one beginning, not how often it
 * may begin, and it counts places to go back to, not bytes that are looked at.
 * So the translated pattern has callouts in it, and each charges what has been
 * done since the last one and what may be done until the next. A pattern that
 * explodes and one that reads the whole subject from each of its bytes meet the
 * same end.
 *
 * What a match works in belongs to the process and is made with its first
 * pattern: a match then finds it as large as it may ever be. Most patterns are
 * a piece of text, maybe at the start or the end; they need no engine.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "policy/regex.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/regex_syntax.h"

struct regex {
	pcre2_code *code;		/* NULL: `literal` says it all */
	bool at_start, at_end;
	struct slice literal;		/* behind the struct */
};

static struct {				/* of this process */
	pcre2_match_context *context;
	pcre2_match_data *data;
	uint32_t steps;			/* of the match at hand */
	size_t place;			/* in its subject, at the last callout */
} engine;

static int
charge(pcre2_callout_block *b, void *arg)
{
	size_t moved = b->current_position > engine.place ? b->current_position - engine.place :
	    engine.place - b->current_position;
	size_t ahead = b->callout_number < REGEX_WEIGHT_REST ? b->callout_number :
	    (b->subject_length - b->current_position) / REGEX_STEP_BYTES;

	(void)arg;
	engine.place = b->current_position;
	engine.steps += (uint32_t)(1 + moved / REGEX_STEP_BYTES + ahead);	/* both are below REGEX_SUBJECT_BYTES_MAX */
	return engine.steps > REGEX_STEPS_MAX ? PCRE2_ERROR_CALLOUT : 0;
}

static enum regex_verdict
search(const pcre2_code *code, struct slice subject)
{
	engine.steps = 0;
	engine.place = 0;
	int rc = pcre2_match(code, (PCRE2_SPTR)subject.p, subject.n, 0, 0, engine.data, engine.context);

	return rc >= 0 ? REGEX_YES : rc == PCRE2_ERROR_NOMATCH ? REGEX_NO : REGEX_GAVE_UP;
}

static pcre2_code *
engine_compile(const struct regex_syntax *syntax, size_t pattern_n, struct regex_error *why)
{
	static const uint32_t options = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_DOLLAR_ENDONLY |
	    PCRE2_MATCH_UNSET_BACKREF;
	struct slice text = buf_slice(&syntax->text);
	PCRE2_SIZE at;
	int error;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)text.p, text.n, options, &error, &at, NULL);

	if (code)
		return code;
	why->offset = 0;
	for (size_t i = 0; i <= pattern_n && syntax->place[i] <= at; i++)
		why->offset = i;
	pcre2_get_error_message(error, (PCRE2_UCHAR *)why->what, sizeof(why->what));
	return NULL;
}

/* A match that wants all the memory that one may have, and a little more: no
 * later one has to ask for any. */
static void
engine_fill(void)
{
	static const char pattern[] = "^(?:a|b)*[cd]";
	char *subject = malloc(REGEX_SUBJECT_BYTES_MAX);
	int error;
	PCRE2_SIZE at;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, sizeof(pattern) - 1, 0, &error, &at, NULL);

	CHECK(code && subject);
	memset(subject, 'a', REGEX_SUBJECT_BYTES_MAX);
	pcre2_set_heap_limit(engine.context, REGEX_HEAP_KIB + 1);
	CHECK(search(code, (struct slice){ subject, REGEX_SUBJECT_BYTES_MAX }) == REGEX_GAVE_UP);
	pcre2_set_heap_limit(engine.context, REGEX_HEAP_KIB);
	pcre2_code_free(code);
	free(subject);
}

static void
engine_make(void)
{
	if (engine.context)
		return;
	engine.context = pcre2_match_context_create(NULL);
	engine.data = pcre2_match_data_create(1, NULL);
	CHECK(engine.context && engine.data);
	pcre2_set_match_limit(engine.context, REGEX_MATCH_LIMIT);
	pcre2_set_callout(engine.context, charge, NULL);
	engine_fill();
}

struct regex *
regex_compile(struct slice pattern, struct regex_error *why)
{
	struct regex_syntax *syntax = malloc(sizeof(*syntax));
	struct regex *r = NULL;
	pcre2_code *code = NULL;

	CHECK(syntax);
	engine_make();
	if (regex_translate(pattern, syntax, why) && (syntax->plain || (code = engine_compile(syntax, pattern.n, why)))) {
		struct slice literal = buf_slice(&syntax->literal);

		r = malloc(sizeof(*r) + literal.n);
		CHECK(r);
		*r = (struct regex){ .code = code, .at_start = syntax->at_start, .at_end = syntax->at_end };
		r->literal = (struct slice){ (char *)(r + 1), literal.n };
		memcpy(r + 1, literal.p, literal.n);
	}
	buf_free(&syntax->text);
	buf_free(&syntax->literal);
	free(syntax);
	return r;
}

void
regex_free(struct regex *r)
{
	if (r && r->code)
		pcre2_code_free(r->code);
	free(r);
}

enum regex_verdict
regex_match(const struct regex *r, struct slice subject)
{
	struct slice text = r->literal;

	if (subject.n > REGEX_SUBJECT_BYTES_MAX)
		return REGEX_GAVE_UP;
	if (r->code)
		return search(r->code, subject);
	if (!r->at_start && !r->at_end)
		return slice_contains(subject, text) ? REGEX_YES : REGEX_NO;
	if (subject.n < text.n || (r->at_start && r->at_end && subject.n > text.n))
		return REGEX_NO;
	return memcmp(r->at_start ? subject.p : subject.p + subject.n - text.n, text.p, text.n) == 0 ? REGEX_YES : REGEX_NO;
}
