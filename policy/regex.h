/*
 * policy/regex.h -- patterns of users, written for JavaScript, in bounded time.
 *
 * A pattern is a text for new RegExp(pattern), without flags: it may stand
 * anywhere in the subject, a dot is no line end, $ is the very end, \d and \w
 * are ASCII. What JavaScript does not know (inline flags, recursion, verbs) is
 * refused, and what it reads otherwise than PCRE2 is translated
 * (regex_syntax.h). Three differences remain: a character is a character, where
 * JavaScript counts UTF-16 units; a capture in a repeated group keeps its last
 * text; and what stands behind (?<= has a fixed length.
 *
 * Who writes a pattern need not mean well. A match is charged for each step and
 * each byte that it passes, over all places where it may begin, and gives up at
 * REGEX_STEPS_MAX, a third of a millisecond at the worst (tests/bench/bench_condition.c
 * tries the patterns that explode). So does a compilation: repeated groups are
 * written out, to REGEX_TERMS_MAX terms and no further.
 */
#ifndef WEIR_POLICY_REGEX_H
#define WEIR_POLICY_REGEX_H

#include <stddef.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define REGEX_PATTERN_BYTES_MAX 1024
#define REGEX_SUBJECT_BYTES_MAX 32768	/* a system prompt; longer ones are given up */
#define REGEX_TERMS_MAX 2000		/* characters, classes, groups, each as often as it may be repeated */
#define REGEX_STEPS_MAX 5000
#define REGEX_STEP_BYTES 16		/* passed by a match that cost as much as a step */
#define REGEX_MATCH_LIMIT 20000		/* PCRE2's own count, from one beginning: steps end before it */
#define REGEX_HEAP_KIB 256		/* of a process, for the places to go back to: their depth */

struct regex;				/* a compiled pattern */

struct regex_error {
	size_t offset;			/* in the pattern, in bytes */
	char what[128];
};

enum regex_verdict { REGEX_NO, REGEX_YES, REGEX_GAVE_UP };

struct regex *regex_compile(struct slice pattern, struct regex_error *why) MUST_CHECK;
	/* NULL: it is no such pattern, or too large. Nothing of `pattern` is
	 * kept. regex_free() it. */
void regex_free(struct regex *r);
	/* NULL is fine. */
enum regex_verdict regex_match(const struct regex *r, struct slice subject) MUST_CHECK;
	/* Allocates nothing. Bytes that are no UTF-8 match nothing. All patterns
	 * of a process share the memory that a match works in, so no two threads
	 * may match at once. */

#endif
