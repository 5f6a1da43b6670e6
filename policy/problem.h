/*
 * policy/problem.h -- every mistake of a document, each with its place.
 *
 * Whoever reads a document of an operator or a client adds a line for each
 * mistake and goes on, so that one look shows them all. Names that come from
 * the document are shown with their control characters replaced and cut to a
 * readable length: a line stays a line.
 */
#ifndef WEIR_POLICY_PROBLEM_H
#define WEIR_POLICY_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/check.h"
#include "shm/base/slice.h"

#define PROBLEMS_BYTES_MAX 65536	/* a few hundred lines: more help nobody */

/* Collects every mistake of a document: "path: message" lines. */
struct problems {
	struct buf text;	/* lines; buf_init() with a maximum before use */
	uint32_t count;		/* also counts lines that found no room in `text` */
};

void problems_init(struct problems *p);
	/* With PROBLEMS_BYTES_MAX. */
void problems_free(struct problems *p);
void problem_add(struct problems *p, const char *path, const char *fmt, ...) PRINTF_LIKE(3, 4);
	/* path "": the document as a whole; the line is the message alone. A
	 * line is added whole or not at all. */

#define PROBLEM_NAME_BYTES 80
struct problem_name { char text[PROBLEM_NAME_BYTES]; };
struct problem_name problem_name(struct slice raw);
	/* Text from the document, safe to print: no control characters, cut
	 * with "..." */

/* Looks for the known name that is nearest to an unknown one. */
struct problem_guess {
	struct slice wanted;
	const char *best;
	uint32_t distance;
};
uint32_t problem_distance(struct slice a, struct slice b);
	/* Bytes to insert, delete or replace, so that one becomes the other, without
	 * regard to case; UINT32_MAX if one is longer than a name is. */
void problem_guess_try(struct problem_guess *g, const char *candidate);
	/* `candidate` must outlive the guess. Case does not count. */
const char *problem_guess_best(const struct problem_guess *g);
	/* NULL if nothing is near enough to be what was meant. */
void problem_add_missing(struct problems *p, const char *path, const char *kind, const struct problem_guess *g);
	/* "there is no <kind> "..." in this file", or what was meant instead. */

#endif
