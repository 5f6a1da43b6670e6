/*
 * gateway/prompt_count.h -- the exact size of a prompt, asked of its provider.
 *
 * A bound by bytes is several times too large for most text. Where it is what
 * does not fit into a budget, the provider's count_tokens is asked, which is free
 * of charge: with the members of the body that make the prompt and no others, in
 * an exchange of its own, within count_ms. Answers are remembered by a hash of
 * what was asked, in each worker.
 *
 * A body with a member that is not known here is not counted: the member might
 * belong to the prompt, and what is held must not be too little.
 */
#ifndef WEIR_GATEWAY_PROMPT_COUNT_H
#define WEIR_GATEWAY_PROMPT_COUNT_H

#include <stdbool.h>
#include <stdint.h>

struct request;
struct prompt_count;		/* one that is being asked for */
struct prompt_counts;		/* what a worker remembers */

struct prompt_counts *prompt_counts_new(void);
	/* NULL without memory. */
void prompt_counts_free(struct prompt_counts *c);

enum prompt_counting { PROMPT_KNOWN, PROMPT_ASKED, PROMPT_UNCOUNTED };

enum prompt_counting prompt_count(struct request *r, int64_t *tokens);
	/* KNOWN: *tokens was remembered. ASKED: admission_counted() follows, unless
	 * the request ends before (request_finish() cancels its exchange).
	 * UNCOUNTED: it cannot be counted, or its provider failed to a moment ago. */
void prompt_count_expired(struct request *r);
	/* count_ms are over. */

#endif
