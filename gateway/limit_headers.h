/*
 * gateway/limit_headers.h -- what a client is told of its limits, in every answer.
 *
 *	anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}
 *
 * of the tightest limit of each unit: the one of which least is left, by its own
 * size. Reset is when it is whole again. Clients that speak Portkey's dialect get
 * the x-ratelimit-* lines that they know as well.
 */
#ifndef WEIR_GATEWAY_LIMIT_HEADERS_H
#define WEIR_GATEWAY_LIMIT_HEADERS_H

#include "gateway/limits.h"

#define LIMIT_HEADERS_BYTES 768		/* all lines, with numbers of 19 digits */

struct limit_tight {
	bool any;		/* the request is under such a limit */
	bool resets;		/* false: it is never whole again */
	int64_t limit, left, reset_ns;
};

struct limit_tightest {
	struct limit_tight requests, tokens;
};

struct text;

struct limit_tightest limit_tightest_admitted(const struct limit_set *set, struct now now);
	/* From what ledger_admit() left in the charges. */
struct limit_tightest limit_tightest_refused(struct arena *a, const struct limit_set *set, struct now now);
	/* Looks at the meters: a refusal leaves nothing in the charges. */
void limit_headers_add(struct text *t, const struct limit_tightest *tightest, int64_t wall_ns, bool portkey);

#endif
