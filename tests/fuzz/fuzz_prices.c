/*
 * tests/fuzz/fuzz_prices.c -- any bytes as a price document.
 *
 * A document that is taken must price: no row without a name, no bound below
 * a cost, no negative sum. One that is refused must say why.
 */
#include <string.h>

#include "policy/price.h"
#include "shm/base/check.h"
#include "tests/fuzz/target.h"

#define NOW INT64_C(1795456800000000000)	/* 2026-11-23T18:00Z */
#define MODELS 16

static void
check_row(const struct price_book *b, const struct price_row *r)
{
	struct usage u = { .geo_us = true, .fast = true, .tokens = { [TOKENS_INPUT] = 150, [TOKENS_OUTPUT] = 20 } };
	struct body_scan s;
	struct json_error why;
	bool estimated;

	CHECK(strchr(price_row_name(r).p, '@'));
	CHECK(body_scan(SLICE("{\"max_tokens\":20}"), &s, &why));
	struct price_bound bound = price_bound(r, &s, true, true);
	int64_t cost = price_cost_nusd(b, r, SLICE("anthropic"), &u, NOW, &estimated);
	__extension__ __int128 most = bound.output_tokens;
	most = (most * bound.output_nusd_milli + 999) / 1000 + bound.input_nusd;
	CHECK(cost >= 0 && (bound.input_tokens < 150 || cost <= most));
	CHECK(price_input_nusd(r, price_input_estimate(r, &s)) >= 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice doc = { (const char *)data, n };
	char why[200] = "";
	struct price_book *b = price_book_new(doc, SLICE_NONE, why, sizeof(why));
	struct model_info models[MODELS];

	CHECK((b != NULL) == (why[0] == '\0'));
	if (!b)
		return 0;
	size_t count = price_book_models(b, SLICE("anthropic"), NOW, models, MODELS);
	for (size_t i = 0; i < count; i++) {
		const struct price_row *r = price_find(b, SLICE("anthropic"), models[i].id, NOW);
		CHECK(r);
		check_row(b, r);
	}
	price_book_free(b);
	return 0;
}
