/*
 * policy/price_book.h -- inside a price book: rows, rates, dates.
 *
 * For price.c, price_book.c and their test. Everybody else sees price.h.
 */
#ifndef WEIR_POLICY_PRICE_BOOK_H
#define WEIR_POLICY_PRICE_BOOK_H

#include "policy/price.h"

#define PRICE_STEPS_MAX 4		/* bands by prompt length; two exist */
#define PRICE_PUSD_MAX INT64_C(1000000000000)	/* a dollar a token, or a search: far above any price */
#define PRICE_PERMILLE_MAX 10000	/* ten times the list price */
#define PRICE_NAME_BYTES 112		/* model, "@", day */
#define PRICE_DAY_BYTES 12
#define PRICE_WINDOW_LIFTED 1000000	/* tokens: what the long-context beta lifts a window to */

struct price_rates {		/* pico-dollars, by token class */
	int64_t pusd[TOKENS_CLASSES];	/* of TOKENS_WEB_SEARCHES: a request */
};

struct price_step {
	int64_t above_prompt_tokens;
	struct price_rates rates;
};

struct price_model {
	char *provider, *id, *display_name, *family;
	uint64_t key;			/* of provider and id: a number is found faster than two texts */
	int64_t created_wall_ns;
	int64_t deprecated_wall_ns, retires_wall_ns;	/* INT64_MAX: no date is set */
	int64_t max_input_tokens, max_output_tokens;	/* 0: unknown */
	struct price_row *rows;		/* oldest first */
	uint32_t rows_count;
	bool override;			/* from the operator's document */
};

struct price_row {
	const struct price_model *model;
	char name[PRICE_NAME_BYTES];
	uint32_t name_bytes;
	int64_t from_wall_ns;
	bool confirmed;
	struct price_rates base;
	struct price_step steps[PRICE_STEPS_MAX];	/* by rising length */
	uint32_t steps_count;
	int32_t batch_permille;		/* of every token class */
	int32_t geo_us_permille;	/* 0: no price of its own */
	int32_t fast_permille;		/* 0: no price of its own */
	bool fast_confirmed;
};

struct price_book {
	struct price_model *models;	/* by key, provider, id; an operator's before the built-in one */
	uint32_t models_count;
};

/* The embedded document, made from deploy/prices.json at build time. */
extern const unsigned char prices_json[];
extern const unsigned long prices_json_size;

const struct price_row *price_dearest(const struct price_book *b, struct slice provider_type,
    int64_t wall_ns);
	/* Of the rows in force, the one whose output costs most; NULL: none. */
const struct price_rates *price_rates_of(const struct price_row *r, int64_t prompt_tokens);

#endif
