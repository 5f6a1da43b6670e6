/*
 * policy/price.h -- tokens to nano-dollars.
 *
 * Prices are dated rows in pico-dollars a token (1e-12 USD; 5 USD per million
 * tokens = 5,000,000), from deploy/prices.json, which is built into the
 * program, with the operator's own rows laid over it. The sum is exact in
 * pico-dollars and rounded half up to nano-dollars once a request.
 */
#ifndef WEIR_POLICY_PRICE_H
#define WEIR_POLICY_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/body.h"
#include "policy/usage.h"

struct price_book;
struct price_row;		/* one model from one day on, with its length steps */

struct price_book *price_book_new(struct slice json, struct slice overrides, char *why, size_t why_size);
	/* Both are documents of deploy/prices.schema.json; overrides may be
	 * none. Errors name the JSON path. */
void price_book_free(struct price_book *b);
struct slice price_book_builtin(void);
	/* The embedded deploy/prices.json. */

const struct price_row *price_find(const struct price_book *b, struct slice provider_type,
    struct slice model, int64_t wall_ns);
	/* The row in force at that time; one of the operator's hides the built-in
	 * ones. A dated id (-20251001) falls back to its undated row; "[1m]" must
	 * be stripped before. NULL: unpriced. */
struct slice price_row_name(const struct price_row *r);	/* with a NUL behind it */
	/* "claude-opus-5-5@2026-09-22", for the record. */

int64_t price_cost_nusd(const struct price_book *b, const struct price_row *r,
    struct slice provider_type, const struct usage *u, int64_t wall_ns, bool *estimated);
	/* The whole answer: iterations, steps by prompt length, geo, speed,
	 * batch, searches. `r`: of the model that was sent; not NULL. Parts of
	 * other models are priced by their own rows at that time, those without
	 * one by the provider's dearest. estimated: a part had no confirmed
	 * price of its own, or the bill is known to differ from list. */

#define PRICE_IMAGE_TOKENS 5000	/* an image has at most 4,784: it is scaled down to 2,576 pixels */

/* No answer to the request can cost more than input_nusd + output_tokens *
 * output_nusd_milli / 1000, rounded up. */
struct price_bound {
	int64_t input_nusd;	/* all but the output: prompt at its dearest, searches */
	int64_t output_nusd_milli;	/* of one output token, thousandths of a nano-dollar (= pico-dollars), rounded up */
	int64_t input_tokens;	/* upper bound of the prompt */
	int64_t output_tokens;	/* max_tokens, or the model's ceiling */
};
struct price_bound price_bound(const struct price_row *r, const struct body_scan *s,
    bool fast, bool geo_us);
	/*
	 * Input at the dearest class that can apply, output, searches; absurd
	 * numbers saturate. r NULL (unpriced): tokens, and no money. `fast`,
	 * `geo_us`: the answer may say so (a workspace can be pinned to the US
	 * without the request asking for it).
	 *
	 * A prompt has at most a token a byte of text, and PRICE_IMAGE_TOKENS an
	 * image. What is not in the body (a PDF's compressed text, url and file
	 * sources, server tools, MCP servers, a thread at the provider) is bounded
	 * by the context window only; a server that compacts the context counts
	 * it twice. Not covered, because the provider sets no bound: rounds of a
	 * server tool's loop, each billing the prompt again, and models other
	 * than r's (fallbacks, advisor).
	 */
bool price_prompt_countable(const struct body_scan *s);
	/* The provider's count_tokens can say the exact prompt: nothing joins it
	 * later (server tools, containers, threads, url sources are what cannot). */
struct price_bound price_bound_counted(const struct price_row *r, const struct body_scan *s,
    bool fast, bool geo_us, int64_t prompt_tokens);
	/* The same with the prompt as the provider counted it, which is documented
	 * as an estimate: a margin of 2 % and 64 tokens is added here. */
int64_t price_input_estimate(const struct price_row *r, const struct body_scan *s);
	/* The prompt's likely tokens (about 4 bytes each), for an answer that never
	 * reported usage. r may be NULL (unpriced). */
int64_t price_input_nusd(const struct price_row *r, int64_t tokens);
	/* What so many uncached tokens cost. */

/* Models, for GET /v1/models: rows of the book, newest first. */
struct model_info {
	struct slice id, display_name, family;	/* family: opus, sonnet, haiku, fable, mythos */
	int64_t created_wall_ns;
	int64_t max_input_tokens, max_tokens;
	bool deprecated;
};
size_t price_book_models(const struct price_book *b, struct slice provider_type, int64_t wall_ns,
    struct model_info *out, size_t max);

#endif
