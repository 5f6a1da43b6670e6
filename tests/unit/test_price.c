/*
 * Prices: worked costs against the built-in document, rows by date, bounds
 * that no answer passes, and complaints that name their place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "policy/price.h"
#include "policy/price_book.h"
#include "shm/base/buf.h"
#include "shm/base/clock.h"

#define DAY_NS (86400 * NS_PER_S)
#define NOW INT64_C(1795456800000000000)	/* 2026-11-23T18:00Z */
#define ANTHROPIC SLICE("anthropic")

static struct price_book *book;

static int
make_book(void **state)
{
	char why[256] = "";

	(void)state;
	book = price_book_new(price_book_builtin(), SLICE_NONE, why, sizeof(why));
	if (!book)
		print_error("%s\n", why);
	return book ? 0 : -1;
}

static int
drop_book(void **state)
{
	(void)state;
	price_book_free(book);
	return 0;
}

static struct model_info
info(const struct price_book *b, const char *id)
{
	static struct model_info list[64];
	size_t n = price_book_models(b, ANTHROPIC, NOW, list, 64);

	for (size_t i = 0; i < n; i++)
		if (slice_eq(list[i].id, slice_of(id)))
			return list[i];
	fail_msg("%s is not in the list", id);
	return list[0];
}

static const struct price_row *
row(const char *model, int64_t wall_ns)
{
	const struct price_row *r = price_find(book, ANTHROPIC, slice_of(model), wall_ns);

	if (!r)
		fail_msg("no price of %s", model);
	return r;
}

static int64_t
cost(const char *model, const struct usage *u, bool *estimated)
{
	return price_cost_nusd(book, row(model, NOW), ANTHROPIC, u, NOW, estimated);
}

static void
worked_costs(void **state)
{
	struct usage u = { .tokens = { [TOKENS_INPUT] = 1000, [TOKENS_CACHE_WRITE_5M] = 2000, [TOKENS_CACHE_WRITE_1H] = 500,
		[TOKENS_CACHE_READ] = 10000, [TOKENS_OUTPUT] = 800, [TOKENS_WEB_SEARCHES] = 2 } };
	bool estimated;

	(void)state;
	assert_int_equal(cost("claude-sonnet-5-5", &u, &estimated), 38000000);
	assert_false(estimated);
	u.geo_us = true;
	assert_int_equal(cost("claude-sonnet-5-5", &u, &estimated), 39800000);
	assert_false(estimated);
	/* Two bands, by the whole prompt: at the limit is not above it. */
	u = (struct usage){ .tokens = { [TOKENS_INPUT] = 20000, [TOKENS_CACHE_READ] = 90000, [TOKENS_OUTPUT] = 1000 } };
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 17000000);
	u.tokens[TOKENS_CACHE_READ] = 80000;
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 3300000);
	u = (struct usage){ .tokens = { [TOKENS_INPUT] = 10000, [TOKENS_OUTPUT] = 2000 } };
	assert_int_equal(cost("claude-opus-5", &u, &estimated), 100000000);
}

static void
multipliers_apply_to_tokens_only(void **state)
{
	struct usage u = { .fast = true, .tokens = { [TOKENS_INPUT] = 1000, [TOKENS_OUTPUT] = 1000, [TOKENS_WEB_SEARCHES] = 1 } };
	bool estimated;

	(void)state;
	assert_int_equal(cost("claude-opus-5-5", &u, &estimated), 8000000 + 40000000 + 10000000);
	assert_false(estimated);
	u.geo_us = true;
	assert_int_equal(cost("claude-opus-5-5", &u, &estimated), 8800000 + 44000000 + 10000000);
	u.geo_us = u.fast = false;
	u.batch = true;
	assert_int_equal(cost("claude-opus-5-5", &u, &estimated), 2000000 + 10000000 + 10000000);
	assert_false(estimated);
	/* No fast mode of its own, or one that nobody confirmed. */
	u = (struct usage){ .fast = true, .tokens = { [TOKENS_INPUT] = 1000 } };
	cost("claude-sonnet-5-5", &u, &estimated);
	assert_true(estimated);
	assert_int_equal(cost("claude-opus-5", &u, &estimated), 10000000);
	assert_true(estimated);
	/* No US price: an estimate. */
	u = (struct usage){ .geo_us = true, .tokens = { [TOKENS_INPUT] = 1000 } };
	assert_int_equal(cost("claude-opus-4-5", &u, &estimated), 5500000);
	assert_true(estimated);
	/* Unconfirmed figures, and bills that follow a contract. */
	u.geo_us = false;
	cost("claude-fable-5-2", &u, &estimated);
	assert_true(estimated);
	cost("claude-mythos-5-2", &u, &estimated);
	assert_true(estimated);
	u.unlisted = true;
	cost("claude-opus-5-5", &u, &estimated);
	assert_true(estimated);
}

static void
rounding_happens_once_half_up(void **state)
{
	/* Haiku 5.5 reads a cached token for 10,000 pico-dollars: 10 nano-dollars.
	 * At 1.1 x and half price it is 5.5 of them. */
	struct usage u = { .geo_us = true, .batch = true, .tokens = { [TOKENS_CACHE_READ] = 1 } };
	bool estimated;

	(void)state;
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 6);
	u.tokens[TOKENS_CACHE_READ] = 2;
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 11);
	u.tokens[TOKENS_CACHE_READ] = 3;	/* 16.5 */
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 17);
	u = (struct usage){ .tokens = { [TOKENS_OUTPUT] = 0 } };
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 0);
}

static void
iterations_are_priced_each_by_its_model(void **state)
{
	struct usage u = { .tokens = { [TOKENS_INPUT] = 999999, [TOKENS_OUTPUT] = 999999, [TOKENS_WEB_SEARCHES] = 1 },
		.iterations_count = 2, .iterations = {
		{ .model = "", .tokens = { [TOKENS_INPUT] = 1000, [TOKENS_OUTPUT] = 100 } },
		{ .model = "claude-opus-5-5", .tokens = { [TOKENS_INPUT] = 1000, [TOKENS_OUTPUT] = 100 } } } };
	bool estimated;

	(void)state;
	assert_int_equal(cost("claude-sonnet-5-5", &u, &estimated), 2000000 + 1000000 + 4000000 + 2000000 + 10000000);
	assert_false(estimated);
	/* An unknown model is priced as the dearest. */
	snprintf(u.iterations[1].model, sizeof(u.iterations[1].model), "claude-unheard-of");
	assert_int_equal(cost("claude-sonnet-5-5", &u, &estimated), 3000000 + 25000000 + 12500000 + 10000000);
	assert_true(estimated);
	snprintf(u.iterations[1].model, sizeof(u.iterations[1].model), "claude-sonnet-5-5");
	u.iterations_overflow = true;
	cost("claude-sonnet-5-5", &u, &estimated);
	assert_true(estimated);
	/* The step is each iteration's own. */
	u = (struct usage){ .iterations_count = 2, .iterations = {
		{ .tokens = { [TOKENS_INPUT] = 60000 } }, { .tokens = { [TOKENS_INPUT] = 60000 } } } };
	assert_int_equal(cost("claude-haiku-5-5", &u, &estimated), 12000000);
}

static void
rows_are_found_by_name_and_day(void **state)
{
	int64_t change = INT64_C(20733) * DAY_NS;	/* 2026-10-07 */

	(void)state;
	assert_string_equal(price_row_name(row("claude-opus-5-5", NOW)).p, "claude-opus-5-5@2026-09-22");
	assert_string_equal(price_row_name(row("claude-sonnet-5-5", change)).p, "claude-sonnet-5-5@2026-10-07");
	assert_string_equal(price_row_name(row("claude-sonnet-5-5", change - 1)).p, "claude-sonnet-5-5@2026-09-28");
	assert_int_equal(row("claude-sonnet-5-5", change - 1)->base.pusd[TOKENS_CACHE_READ], 200000);
	assert_int_equal(row("claude-sonnet-5-5", change)->base.pusd[TOKENS_CACHE_READ], 100000);
	assert_string_equal(price_row_name(row("claude-haiku-4-5-20251001", NOW)).p, "claude-haiku-4-5@2025-10-01");
	assert_string_equal(price_row_name(row("claude-sonnet-4-5-20250929", NOW)).p, "claude-sonnet-4-5@2025-09-29");
	assert_int_equal(info(book, "claude-opus-5-5").max_input_tokens, 1000000);
	assert_int_equal(info(book, "claude-opus-5-5").max_tokens, 128000);
	/* Long prompts of the 4.6 generation cost more until 2026-03-13. */
	struct usage u = { .tokens = { [TOKENS_INPUT] = 300000 } };
	bool estimated;
	int64_t flat = INT64_C(20525) * DAY_NS;
	assert_int_equal(price_cost_nusd(book, row("claude-opus-4-6", flat - 1), ANTHROPIC, &u, flat - 1, &estimated), 3000000000);
	assert_int_equal(price_cost_nusd(book, row("claude-opus-4-6", flat), ANTHROPIC, &u, flat, &estimated), 1500000000);
	assert_int_equal(price_cost_nusd(book, row("claude-sonnet-4-6", flat - 1), ANTHROPIC, &u, flat, &estimated), 1800000000);

	static const char *const none[] = { "claude-opus", "claude-opus-5-5[1m]", "claude-opus-5-5-2025100", "gpt-6", "",
		"-20251001", "20251001", "claude-opus-5-5-202510011", "claude-haiku-4-5@20251001" };
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		if (price_find(book, ANTHROPIC, slice_of(none[i]), NOW))
			fail_msg("a price of %s", none[i]);
	assert_null(price_find(book, SLICE("bedrock"), SLICE("claude-opus-5-5"), NOW));
	assert_null(price_find(book, ANTHROPIC, SLICE("claude-opus-5-5"), 0));
	assert_null(price_find(book, ANTHROPIC, SLICE_NONE, NOW));
}

/* The document against the table of list prices, in dollars a million. */
static void
list_prices_are_as_published(void **state)
{
	static const struct { const char *model; double in, w5, w1, read, out; } table[] = {
		{ "claude-fable-5-1", 10, 12.5, 20, 0.25, 50 }, { "claude-mythos-5-1", 10, 12.5, 20, 0.25, 50 },
		{ "claude-fable-5", 10, 12.5, 20, 1, 50 }, { "claude-mythos-5", 10, 12.5, 20, 1, 50 },
		{ "claude-opus-5-5", 4, 5, 8, 0.2, 20 }, { "claude-opus-5", 5, 6.25, 10, 0.5, 25 },
		{ "claude-opus-4-8", 5, 6.25, 10, 0.5, 25 }, { "claude-opus-4-7", 5, 6.25, 10, 0.5, 25 },
		{ "claude-opus-4-6", 5, 6.25, 10, 0.5, 25 }, { "claude-opus-4-5", 5, 6.25, 10, 0.5, 25 },
		{ "claude-opus-4-1", 15, 18.75, 30, 1.5, 75 }, { "claude-opus-4", 15, 18.75, 30, 1.5, 75 },
		{ "claude-sonnet-5-5", 2, 2.5, 4, 0.1, 10 }, { "claude-sonnet-5", 2, 2.5, 4, 0.2, 10 },
		{ "claude-sonnet-4-6", 3, 3.75, 6, 0.3, 15 }, { "claude-sonnet-4-5", 3, 3.75, 6, 0.3, 15 },
		{ "claude-sonnet-4", 3, 3.75, 6, 0.3, 15 }, { "claude-haiku-5-5", 0.1, 0.125, 0.2, 0.01, 0.5 },
		{ "claude-haiku-4-5", 1, 1.25, 2, 0.1, 5 }, { "claude-3-7-sonnet", 3, 3.75, 6, 0.3, 15 },
		{ "claude-3-5-sonnet", 3, 3.75, 6, 0.3, 15 }, { "claude-3-5-haiku", 0.8, 1, 1.6, 0.08, 4 },
		{ "claude-3-opus", 15, 18.75, 30, 1.5, 75 }, { "claude-3-haiku", 0.25, 0.3, 0.5, 0.03, 1.25 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const int64_t *pusd = row(table[i].model, NOW)->base.pusd;

		assert_int_equal(pusd[TOKENS_INPUT], (int64_t)(table[i].in * 1e6 + 0.5));
		assert_int_equal(pusd[TOKENS_CACHE_WRITE_5M], (int64_t)(table[i].w5 * 1e6 + 0.5));
		assert_int_equal(pusd[TOKENS_CACHE_WRITE_1H], (int64_t)(table[i].w1 * 1e6 + 0.5));
		assert_int_equal(pusd[TOKENS_CACHE_READ], (int64_t)(table[i].read * 1e6 + 0.5));
		assert_int_equal(pusd[TOKENS_OUTPUT], (int64_t)(table[i].out * 1e6 + 0.5));
		assert_int_equal(pusd[TOKENS_WEB_SEARCHES], INT64_C(10000000000));
	}
	static const struct { const char *model; int permille; } fast[] = { { "claude-opus-5-5", 2000 },
		{ "claude-opus-5", 2000 }, { "claude-opus-4-8", 2000 }, { "claude-opus-4-7", 6000 }, { "claude-opus-4-6", 6000 } };
	for (size_t i = 0; i < sizeof(fast) / sizeof(fast[0]); i++)
		assert_int_equal(row(fast[i].model, NOW)->fast_permille, fast[i].permille);
}

static void
models_are_listed_newest_first(void **state)
{
	struct model_info list[64];
	size_t n = price_book_models(book, ANTHROPIC, NOW, list, 64);
	bool sonnet_4_5 = false;

	(void)state;
	assert_true(n > 10);
	assert_true(slice_eq(list[0].family, SLICE("fable")));
	for (size_t i = 0; i < n; i++) {
		assert_true(i == 0 || list[i - 1].created_wall_ns >= list[i].created_wall_ns);
		assert_true(list[i].max_input_tokens >= 200000 && list[i].max_tokens >= 4096 && list[i].display_name.n > 0);
		assert_false(slice_eq(list[i].id, SLICE("claude-opus-4-1")));	/* retired */
		if (slice_eq(list[i].id, SLICE("claude-sonnet-4-5"))) {
			sonnet_4_5 = true;
			assert_true(list[i].deprecated);
		} else {
			assert_false(list[i].deprecated);
		}
	}
	assert_true(sonnet_4_5);
	assert_int_equal(price_book_models(book, ANTHROPIC, NOW, list, 3), 3);
	assert_int_equal(price_book_models(book, SLICE("openai"), NOW, list, 64), 0);
	/* A week later it is gone, and still has its price. */
	assert_int_equal(price_book_models(book, ANTHROPIC, NOW + 7 * DAY_NS, list, 64), n - 1);
	row("claude-sonnet-4-5", NOW + 7 * DAY_NS);
}

#define DOC(models) "{\"version\":1,\"models\":[" models "]}"

static void
the_operator_has_the_last_word(void **state)
{
	static const char overrides[] = DOC(
	    "{\"model\":\"claude-opus-5-5\",\"prices\":[{\"valid_from\":\"2026-11-01\",\"input\":3000000,\"output\":15000000}]},"
	    "{\"provider\":\"anthropic\",\"model\":\"claude-opus-9\",\"max_output_tokens\":1000,\"prices\":[{\"input\":1,\"output\":2}]}");
	char why[256];
	struct price_book *b = price_book_new(price_book_builtin(), slice_of(overrides), why, sizeof(why));
	struct model_info list[64];
	size_t n, plain = price_book_models(book, ANTHROPIC, NOW, list, 64);

	(void)state;
	assert_non_null(b);
	const struct price_row *r = price_find(b, ANTHROPIC, SLICE("claude-opus-5-5"), NOW);
	assert_string_equal(price_row_name(r).p, "claude-opus-5-5@2026-11-01");
	/* What a row leaves out follows from its input price. */
	assert_int_equal(r->base.pusd[TOKENS_CACHE_WRITE_5M], 3750000);
	assert_int_equal(r->base.pusd[TOKENS_CACHE_WRITE_1H], 6000000);
	assert_int_equal(r->base.pusd[TOKENS_CACHE_READ], 300000);
	assert_int_equal(info(b, "claude-opus-5-5").max_tokens, 128000);	/* of the built-in model */
	r = price_find(b, ANTHROPIC, SLICE("claude-opus-5-5"), NOW - 30 * DAY_NS);
	assert_string_equal(price_row_name(r).p, "claude-opus-5-5@2026-09-22");
	r = price_find(b, ANTHROPIC, SLICE("claude-opus-9"), 0);
	assert_string_equal(price_row_name(r).p, "claude-opus-9@1970-01-01");
	assert_int_equal(info(b, "claude-opus-9").max_tokens, 1000);
	n = price_book_models(b, ANTHROPIC, NOW, list, 64);
	assert_int_equal(n, plain + 1);
	for (size_t i = 0; i < n; i++)
		if (slice_eq(list[i].id, SLICE("claude-opus-5-5")))
			assert_true(slice_eq(list[i].display_name, SLICE("Claude Opus 5.5")) && list[i].created_wall_ns > 0);
	price_book_free(b);
}

static void
complaints_name_the_place(void **state)
{
#define PRICE(text) DOC("{\"model\":\"m\",\"prices\":[{\"input\":1,\"output\":2}," text "]}")
	static const struct { const char *doc, *why; } cases[] = {
		{ "{\"version\":1,\n\"models\":[}", "line 2 (byte 24): expected a value" },
		{ "[]", ": expected an object" }, { "{}", "version: expected 1" }, { "{\"version\":1}", "models: expected an array of at most 4096 models" },
		{ "{\"version\":1,\"models\":[],\"modles\":[]}", "modles: unknown member" },
		{ "{\"version\":1,\"currency\":\"EUR\",\"models\":[]}", "currency: expected \"USD\"" },
		{ "{\"version\":1,\"version\":1,\"models\":[]}", "version: this member is there twice" },
		{ DOC("7"), "models[0]: expected an object" }, { DOC("{}"), "models[0].model: expected a text of 1 to 96 bytes" },
		{ DOC("{\"model\":\"m\"}"), "models[0].prices: expected an array of 1 to 64 prices" },
		{ DOC("{\"model\":\"m\",\"prices\":[]}"), "models[0].prices: expected an array of 1 to 64 prices" },
		{ DOC("{\"model\":\"m\",\"prices\":[{\"input\":1}]}"), "models[0].prices[0].output: expected an integer >= 0, it is required" },
		{ PRICE("{\"input\":-1,\"output\":1}"), "models[0].prices[1].input: expected an integer >= 0" },
		{ PRICE("{\"input\":1.5,\"output\":1}"), "models[0].prices[1].input: expected an integer >= 0" },
		{ PRICE("{\"input\":\"1\",\"output\":1}"), "models[0].prices[1].input: expected an integer >= 0" },
		{ PRICE("{\"input\":1,\"output\":1e300}"), "models[0].prices[1].output: expected an integer >= 0" },
		{ PRICE("{\"input\":1,\"output\":1000000000001}"), "models[0].prices[1].output: expected at most 1000000000000" },
		{ PRICE("{\"input\":1,\"output\":1,\"cached\":1}"), "models[0].prices[1].cached: unknown member" },
		{ PRICE("{\"input\":1,\"output\":1,\"valid_from\":\"2026-02-29\"}"), "models[0].prices[1].valid_from: expected a day as \"2026-09-22\"" },
		{ PRICE("{\"input\":1,\"output\":1,\"valid_from\":\"2026-2-1\"}"), "models[0].prices[1].valid_from: expected a day as \"2026-09-22\"" },
		{ PRICE("{\"input\":1,\"output\":1,\"valid_from\":\"+026-02-01\"}"), "models[0].prices[1].valid_from: expected a day as \"2026-09-22\"" },
		{ PRICE("{\"input\":1,\"output\":1}"), "models[0].prices[1].valid_from: expected a later day than that of the price before" },
		{ PRICE("{\"valid_from\":\"2026-01-01\",\"input\":1,\"output\":1,\"batch_multiplier_permille\":1001}"), "models[0].prices[1].batch_multiplier_permille: expected at most 1000" },
		{ PRICE("{\"valid_from\":\"2026-01-01\",\"input\":1,\"output\":1,\"fast\":{}}"), "models[0].prices[1].fast.permille: expected an integer > 0" },
		{ PRICE("{\"valid_from\":\"2026-01-01\",\"input\":1,\"output\":1,\"confirmed\":1}"), "models[0].prices[1].confirmed: expected true or false" },
		{ PRICE("{\"valid_from\":\"2026-01-01\",\"input\":1,\"output\":1,\"steps\":[{\"input\":1,\"output\":1}]}"),
		    "models[0].prices[1].steps[0].above_prompt_tokens: expected an integer > 0, above the step before" },
		{ PRICE("{\"valid_from\":\"2026-01-01\",\"input\":1,\"output\":1,\"steps\":[{\"above_prompt_tokens\":5,\"input\":1}]}"),
		    "models[0].prices[1].steps[0].output: expected an integer >= 0, it is required" },
		{ DOC("{\"model\":\"m\",\"prices\":[{\"input\":1,\"output\":2}]},{\"provider\":\"anthropic\",\"model\":\"m\",\"prices\":[{\"input\":1,\"output\":2}]}"),
		    "models[1].model: this model is there twice" },
	};
	char why[256];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_null(price_book_new(slice_of(cases[i].doc), SLICE_NONE, why, sizeof(why)));
		assert_string_equal(why, cases[i].why);
		assert_null(price_book_new(price_book_builtin(), slice_of(cases[i].doc), why, sizeof(why)));
		assert_string_equal(why, cases[i].why);
	}
}

/* Bounds */

/* What an answer of so many tokens can cost: input_nusd + ceil(output * slope / 1000). */
static int64_t
linear(const struct price_bound *b, int64_t output)
{
	__extension__ __int128 sum = output;

	sum = (sum * b->output_nusd_milli + 999) / 1000 + b->input_nusd;
	return sum > INT64_MAX ? INT64_MAX : (int64_t)sum;
}

static int64_t
total(struct price_bound b)
{
	return linear(&b, b.output_tokens);
}

static struct price_bound
bound_of(const char *model, const char *body, bool fast, bool geo_us)
{
	struct body_scan s;
	struct json_error why;

	if (!body_scan(slice_of(body), &s, &why))
		fail_msg("%s", why.what);
	return price_bound(row(model, NOW), &s, fast, geo_us);
}

static void
bounds_follow_the_request(void **state)
{
	static const char plain[] = "{\"model\":\"m\",\"max_tokens\":1000,\"messages\":[]}";
	struct price_bound b = bound_of("claude-opus-5-5", plain, false, false);

	(void)state;
	assert_int_equal(b.input_tokens, (int64_t)strlen(plain) + 1024);
	assert_int_equal(b.output_tokens, 1000);
	assert_int_equal(total(b), b.input_tokens * 4000 + 1000 * 20000);
	assert_int_equal(total(bound_of("claude-opus-5-5", plain, true, true)), total(b) * 22 / 10);
	/* Without max_tokens, or with nonsense: the model's ceiling. */
	assert_int_equal(bound_of("claude-opus-5-5", "{}", false, false).output_tokens, 128000);
	assert_int_equal(bound_of("claude-opus-5-5", "{\"max_tokens\":-7}", false, false).output_tokens, 128000);
	assert_int_equal(bound_of("claude-opus-5-5", "{\"max_tokens\":0}", false, false).output_tokens, 0);
	/* Cache writes are dearer; only where the request asks for them. */
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":0,\"cache_control\":{}}", false, false);
	assert_int_equal(total(b), b.input_tokens * 5000);
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":0,\"cache_control\":{\"ttl\":\"1h\"}}", false, false);
	assert_int_equal(total(b), b.input_tokens * 8000);
	/* Searches, by the piece and by what they add to the prompt. */
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":0,\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":3}]}", false, false);
	assert_int_equal(total(b), b.input_tokens * 4000 + 30000000);
	assert_true(b.input_tokens > 3 * 16384);
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":0,\"tools\":[{\"type\":\"web_search_20250305\"}]}", false, false);
	assert_int_equal(total(b), b.input_tokens * 4000 + 200000000);
	/* What the body does not hold is bounded by the window. */
	static const char *const open[] = { "{\"thread\":{\"type\":\"continue\"}}", "{\"mcp_servers\":[]}",
		"{\"messages\":[{\"content\":[{\"type\":\"document\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}]}]}",
		"{\"tools\":[{\"type\":\"web_fetch_20260309\"}]}", "{\"container\":\"c\"}" };
	for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
		assert_int_equal(bound_of("claude-opus-5-5", open[i], false, false).input_tokens, 1000000);
	/* A context that the provider sums up is paid twice. */
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":5,\"context_management\":{\"edits\":[{\"type\":\"compact_20260112\"}]}}", false, false);
	assert_int_equal(total(b), 2 * (b.input_tokens * 4000 + 5 * 20000));
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":5,\"context_management\":{\"edits\":[{\"type\":\"clear_thinking_20251015\"}]}}", false, false);
	assert_int_equal(total(b), b.input_tokens * 4000 + 5 * 20000);
}

static void
bounds_are_linear_in_the_output(void **state)
{
	static const char plain[] = "{\"model\":\"m\",\"max_tokens\":1000,\"messages\":[]}";
	struct price_bound b = bound_of("claude-opus-5-5", plain, false, false);

	(void)state;
	assert_int_equal(b.output_nusd_milli, 20000000);
	assert_int_equal(b.input_nusd, b.input_tokens * 4000);
	b = bound_of("claude-opus-5-5", plain, true, true);
	assert_int_equal(b.output_nusd_milli, 44000000);
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":5,\"compaction\":{}}", false, false);
	assert_int_equal(b.output_nusd_milli, 40000000);
	b = bound_of("claude-opus-5-5", "{\"max_tokens\":7,\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":3}]}", false, false);
	assert_int_equal(b.input_nusd, b.input_tokens * 4000 + 30000000);
	assert_int_equal(total(b), b.input_tokens * 4000 + 30000000 + 7 * 20000);
}

static void
slopes_are_rounded_up(void **state)
{
	/* 1001 pico-dollars at 1.1 and 2 are 2202.2: a thousandth of a nano-dollar more for each token. */
	static const char overrides[] = DOC("{\"model\":\"odd\",\"max_output_tokens\":1000,\"prices\":[{\"input\":1,\"output\":1001,"
	    "\"geo_us_permille\":1100}]}");
	char why[256];
	struct price_book *b = price_book_new(price_book_builtin(), slice_of(overrides), why, sizeof(why));
	struct body_scan s;
	struct json_error error;

	(void)state;
	if (!b)
		fail_msg("%s", why);
	assert_true(body_scan(SLICE("{\"max_tokens\":10,\"compaction\":{}}"), &s, &error));
	struct price_bound bound = price_bound(price_find(b, ANTHROPIC, SLICE("odd"), NOW), &s, false, true);
	assert_int_equal(bound.output_nusd_milli, 2203);
	assert_int_equal(total(bound), bound.input_nusd + 23);
	price_book_free(b);
}

static void
unpriced_models_are_bounded_in_tokens(void **state)
{
	static const char body[] = "{\"max_tokens\":70,\"messages\":[]}";
	struct body_scan s;
	struct json_error why;

	(void)state;
	assert_true(body_scan(slice_of(body), &s, &why));
	struct price_bound b = price_bound(NULL, &s, true, true);
	assert_int_equal(b.input_tokens, (int64_t)strlen(body) + 1024);
	assert_int_equal(b.output_tokens, 70);
	assert_int_equal(total(b), 0);
	assert_int_equal(b.input_nusd, 0);
	assert_int_equal(b.output_nusd_milli, 0);
	assert_int_equal(price_input_estimate(NULL, &s), (int64_t)strlen(body) / 4);
	s.has_max_tokens = false;
	assert_int_equal(price_bound(NULL, &s, false, false).output_tokens, 128000);
	s.text_bytes = UINT64_MAX;
	assert_int_equal(price_bound(NULL, &s, false, false).input_tokens, 2000000);
	assert_int_equal(price_input_estimate(NULL, &s), 2000000);
}

static void
counted_prompts_have_a_margin(void **state)
{
	const struct price_row *r = row("claude-opus-5-5", NOW);
	struct body_scan s;
	struct json_error why;
	char body[5000];

	(void)state;
	snprintf(body, sizeof(body), "{\"max_tokens\":1000,\"system\":\"%04000d\"}", 0);
	assert_true(body_scan(slice_of(body), &s, &why));
	struct price_bound loose = price_bound(r, &s, false, false), b = price_bound_counted(r, &s, false, false, 1000);
	assert_int_equal(b.input_tokens, 1000 + 20 + 64);
	assert_int_equal(b.input_nusd, b.input_tokens * 4000);
	assert_int_equal(total(b), b.input_tokens * 4000 + 1000 * 20000);
	assert_int_equal(price_bound_counted(r, &s, false, false, 1001).input_tokens, 1001 + 21 + 64);
	assert_int_equal(price_bound_counted(r, &s, false, false, 0).input_tokens, 64);
	assert_int_equal(price_bound_counted(r, &s, false, false, -5).input_tokens, 64);
	/* The looser bound is one too. */
	assert_int_equal(price_bound_counted(r, &s, false, false, 1000000).input_tokens, loose.input_tokens);
	assert_int_equal(total(price_bound_counted(r, &s, false, false, INT64_MAX)), total(loose));
}

static void
what_joins_later_cannot_be_counted(void **state)
{
#define BLOCK(block) "{\"messages\":[{\"content\":[" block "]}]}"
	static const struct { const char *body; bool countable; } rows[] = {
		{ "{\"messages\":[]}", true },
		{ "{\"tools\":[{\"name\":\"t\",\"input_schema\":{}},{\"type\":\"bash_20250124\",\"name\":\"bash\"}]}", true },
		{ BLOCK("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}"), true },
		{ BLOCK("{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}"), true },
		{ BLOCK("{\"type\":\"document\",\"source\":{\"type\":\"text\",\"data\":\"AAAA\"}}"), true },
		{ "{\"context_management\":{\"edits\":[{\"type\":\"compact_20260112\"}]}}", true },
		{ BLOCK("{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}"), false },
		{ BLOCK("{\"type\":\"document\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}"), false },
		{ BLOCK("{\"type\":\"document\",\"source\":{\"file_id\":\"f\",\"type\":\"file\"}}"), false },
		{ BLOCK("{\"source\":{\"type\":\"file\",\"file_id\":\"f\"},\"type\":\"image\"}"), false },
		{ "{\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":1}]}", false },
		{ "{\"tools\":[{\"type\":\"web_search_20250305\"}]}", false },
		{ "{\"tools\":[{\"type\":\"web_fetch_20260309\"}]}", false },
		{ "{\"tools\":[{\"type\":\"code_execution_20250825\"}]}", false },
		{ "{\"thread\":{\"type\":\"continue\"}}", false },
		{ "{\"mcp_servers\":[]}", false },
		{ "{\"container\":\"c\"}", false },
	};
	struct body_scan s;
	struct json_error why;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(body_scan(slice_of(rows[i].body), &s, &why));
		if (price_prompt_countable(&s) != rows[i].countable)
			fail_msg("%s", rows[i].body);
	}
}

static void
long_prompts_are_bounded_at_the_dearer_step(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 22);
	buf_add_str(&b, "{\"max_tokens\":100,\"messages\":\"");
	for (int i = 0; i < 100000; i++)
		buf_add_char(&b, 'x');
	buf_add_str(&b, "\"}");
	buf_add_char(&b, '\0');
	struct price_bound bound = bound_of("claude-haiku-5-5", b.p, false, false);
	assert_int_equal(total(bound), bound.input_tokens * 500 + 100 * 2500);
	/* No prompt is longer than the window. */
	b.n -= 3;
	for (int i = 0; i < 2000000; i++)
		buf_add_char(&b, 'x');
	buf_add_str(&b, "\"}");
	buf_add_char(&b, '\0');
	assert_int_equal(bound_of("claude-haiku-5-5", b.p, false, false).input_tokens, 1000000);
	assert_int_equal(bound_of("claude-haiku-4-5", b.p, false, false).input_tokens, 200000);
	/* A beta lifts the window of this one. */
	assert_int_equal(bound_of("claude-sonnet-4-5", b.p, false, false).input_tokens, 1000000);
	buf_free(&b);
}

static void
absurd_numbers_saturate(void **state)
{
	struct price_bound b = bound_of("claude-opus-5-5", "{\"max_tokens\":9223372036854775807}", true, true);
	struct usage u;
	bool estimated;

	(void)state;
	assert_int_equal(b.output_tokens, INT64_MAX);
	assert_int_equal(total(b), INT64_MAX);
	memset(&u, 0x7f, sizeof(u));	/* INT64_MAX and the like everywhere */
	u.batch = u.fast = u.geo_us = u.unlisted = u.known = u.complete = u.iterations_overflow = true;
	u.iterations_count = USAGE_ITERATIONS_MAX;
	for (int i = 0; i < USAGE_ITERATIONS_MAX; i++)
		u.iterations[i].model[0] = '\0';
	assert_int_equal(cost("claude-opus-4-7", &u, &estimated), INT64_MAX);
	u.iterations_count = 0;
	for (int c = 0; c < TOKENS_CLASSES; c++)
		u.tokens[c] = -1;
	assert_int_equal(cost("claude-opus-4-7", &u, &estimated), 0);
}

static uint64_t seed = 88172645463325252u;

static uint32_t
dice(uint32_t sides)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed % sides);
}

/* Any answer that the request allows costs at most the bound. */
static void
no_answer_passes_its_bound(void **state)
{
	static const char *const bodies[] = {
		"{\"max_tokens\":4096,\"messages\":[{\"role\":\"user\",\"content\":\"hello, how are you today?\"}]}",
		"{\"max_tokens\":100000,\"system\":[{\"type\":\"text\",\"text\":\"x\",\"cache_control\":{\"type\":\"ephemeral\"}}]}",
		"{\"max_tokens\":1,\"system\":[{\"type\":\"text\",\"text\":\"x\",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}],"
		    "\"tools\":[{\"type\":\"web_search_20250305\",\"max_uses\":4}]}",
		"{\"messages\":[{\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}},"
		    "{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"data\":\"AAAA\"}}]}]}",
	};
	struct model_info list[64];
	size_t n = price_book_models(book, ANTHROPIC, NOW, list, 64);

	(void)state;
	for (int round = 0; round < 200000; round++) {
		const char *body = bodies[dice(4)];
		const struct price_row *r = price_find(book, ANTHROPIC, list[dice((uint32_t)n)].id, NOW);
		struct body_scan s;
		struct json_error why;
		bool fast = dice(2), geo = dice(2), estimated;

		assert_true(body_scan(slice_of(body), &s, &why));
		struct price_bound b = price_bound(r, &s, fast, geo);
		struct usage u = { .fast = fast && dice(2), .geo_us = geo && dice(2), .batch = dice(4) == 0 };
		/* All of the prompt in one class, or shared out by chance. */
		int64_t left = dice(3) ? b.input_tokens : dice((uint32_t)b.input_tokens + 1);
		static const enum token_class classes[] = { TOKENS_INPUT, TOKENS_CACHE_READ, TOKENS_CACHE_WRITE_5M, TOKENS_CACHE_WRITE_1H };
		uint32_t allowed = s.has_cache_1h ? 4 : s.has_cache_control ? 3 : 2;
		for (uint32_t k = 0; k < 4 && left > 0; k++) {
			int64_t part = dice(2) ? left : dice((uint32_t)left + 1);
			u.tokens[classes[dice(allowed)]] += part;
			left -= part;
		}
		u.tokens[TOKENS_OUTPUT] = dice(2) ? b.output_tokens : dice((uint32_t)b.output_tokens + 1);
		u.tokens[TOKENS_WEB_SEARCHES] = s.web_search_max_uses ? dice(s.web_search_max_uses + 1) : 0;
		int64_t c = price_cost_nusd(book, r, ANTHROPIC, &u, NOW, &estimated);
		/* An answer within a lower max_tokens: what a limit would have held for it. */
		if (c > total(b) || c > linear(&b, u.tokens[TOKENS_OUTPUT]))
			fail_msg("%s: cost %lld above the bound %lld", price_row_name(r).p, (long long)c, (long long)total(b));
	}
}

static int64_t
likely_nusd(const struct body_scan *s)
{
	const struct price_row *r = row("claude-opus-5-5", NOW);

	return price_input_nusd(r, price_input_estimate(r, s));
}

static void
input_is_estimated_by_its_size(void **state)
{
	static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"0123456789012345678901234567890123456789\"}]}";
	struct body_scan s;
	struct json_error why;

	(void)state;
	assert_true(body_scan(slice_of(body), &s, &why));
	assert_int_equal(likely_nusd(&s), (int64_t)(strlen(body) / 4) * 4000);
	assert_true(likely_nusd(&s) < total(price_bound(row("claude-opus-5-5", NOW), &s, false, false)));
	s.images = UINT32_MAX;
	s.text_bytes = UINT64_MAX;
	assert_int_equal(likely_nusd(&s), INT64_C(4000) * 1000000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worked_costs),
		cmocka_unit_test(multipliers_apply_to_tokens_only),
		cmocka_unit_test(rounding_happens_once_half_up),
		cmocka_unit_test(iterations_are_priced_each_by_its_model),
		cmocka_unit_test(rows_are_found_by_name_and_day),
		cmocka_unit_test(list_prices_are_as_published),
		cmocka_unit_test(models_are_listed_newest_first),
		cmocka_unit_test(the_operator_has_the_last_word),
		cmocka_unit_test(complaints_name_the_place),
		cmocka_unit_test(bounds_follow_the_request),
		cmocka_unit_test(bounds_are_linear_in_the_output),
		cmocka_unit_test(slopes_are_rounded_up),
		cmocka_unit_test(unpriced_models_are_bounded_in_tokens),
		cmocka_unit_test(counted_prompts_have_a_margin),
		cmocka_unit_test(what_joins_later_cannot_be_counted),
		cmocka_unit_test(long_prompts_are_bounded_at_the_dearer_step),
		cmocka_unit_test(absurd_numbers_saturate),
		cmocka_unit_test(no_answer_passes_its_bound),
		cmocka_unit_test(input_is_estimated_by_its_size),
	};

	return cmocka_run_group_tests_name("price", tests, make_book, drop_book);
}
