/*
 * policy/regex_syntax.h -- from JavaScript's patterns to PCRE2's.
 *
 * For regex.c. The grammar is ECMAScript's without flags, with what its Annex B
 * adds for the web: \q is a q, a brace that begins no quantifier is a brace.
 */
#ifndef WEIR_POLICY_REGEX_SYNTAX_H
#define WEIR_POLICY_REGEX_SYNTAX_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/regex.h"
#include "shm/base/buf.h"

#define REGEX_WEIGHT_REST 255		/* a callout: what follows may look at all of the rest */

struct regex_syntax {
	struct buf text;		/* for PCRE2, in UTF mode; freed by the caller */
	bool plain;			/* it is only ^, some text, $: no engine is needed */
	bool at_start, at_end;		/* ... with ^, with $ */
	struct buf literal;		/* ... the text; freed by the caller */
	uint32_t place[REGEX_PATTERN_BYTES_MAX + 1];	/* by offset in the pattern: where it begins in `text` */
};

bool regex_translate(struct slice pattern, struct regex_syntax *out, struct regex_error *why) MUST_CHECK;
	/*
	 * false: not a pattern of JavaScript, or too long. In `text`, callouts
	 * (?Cn) stand so that no work is done between two of them but: n times
	 * REGEX_STEP_BYTES characters, one look at each of these, and what moves
	 * the place in the subject.
	 */

#endif
