/*
 * policy/condition.h -- the queries of conditional routing, compiled.
 *
 * Portkey's language: {"params.model": "x"} is equality, {"metadata.team":
 * {"$in": ["a", "b"]}} an operator, several keys or operators are an AND, and
 * "$and" and "$or" hold lists of queries. Values are those of JavaScript:
 * equality is ===, order is that of parseFloat(), and a pattern is matched
 * against String(value).
 *
 * Keys: metadata.NAME, params.NAME (a top-level member of the client's own
 * body), url.pathname. weir reaches deeper too: params.thinking.type,
 * params.messages.0.role.
 *
 * A query is compiled once into a list of comparisons that jump; holding it
 * against a request allocates nothing.
 */
#ifndef WEIR_POLICY_CONDITION_H
#define WEIR_POLICY_CONDITION_H

#include <stdbool.h>

#include "policy/body.h"
#include "policy/problem.h"
#include "shm/base/buf.h"

#define CONDITION_NODES_MAX 512		/* comparisons, and lists of queries, in one query */
#define CONDITION_DEPTH_MAX 16		/* $and and $or in one another */
#define CONDITION_VALUES_MAX 1024	/* of one $in or $nin */

struct condition;			/* a compiled query */

struct condition_facts {		/* a request, as queries see it */
	struct slice metadata;		/* merged, as metadata_json() writes it; none: there is none */
	const struct body_scan *params;	/* of the client's own body, before overrides; NULL: there is none */
	struct slice pathname;		/* "/v1/messages", without the query string */
	bool *gave_up;			/* set to true where a pattern was too costly for its subject, and so
					 * did not match; NULL: nobody asks */
};

struct condition *condition_compile(struct slice query, const char *path, struct problems *p) MUST_CHECK;
	/* `query` is valid JSON (json_check() has passed), `path` its place in
	 * the document, for problems. Every mistake is told: unknown operators and
	 * keys, operands of the wrong type, patterns that do not compile, names
	 * given twice, too deep, too many. NULL: problems were added. Nothing of
	 * `query` is kept. condition_free() it. */
void condition_free(struct condition *c);
	/* NULL is fine. */
bool condition_holds(const struct condition *c, const struct condition_facts *f);
	/* Not by two threads at once (see regex.h). */
void condition_describe(const struct condition *c, const struct condition_facts *f, struct buf *out);
	/* For people: a line for each comparison, with what was found, what it
	 * was compared with and how it came out; lists of alternatives are
	 * indented. Values are cut to a readable length. */

#endif
