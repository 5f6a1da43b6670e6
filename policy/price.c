/*
 * policy/price.c -- see price.h.
 *
 * All sums are exact: tokens times pico-dollars times the multipliers
 * (thousandths of geo, speed and batch), in 128 bits, with all divisions kept
 * for the end. The largest sum that can occur is 33 parts x 6 classes x 1e12
 * tokens x 1e12 pico-dollars x 1e11 (multipliers) = 2e37; there is room for
 * 1.7e38. What does not fit into 64 bits of nano-dollars saturates.
 *
 * A bound has to hold for every answer, so wherever the request leaves open
 * what will be billed, it takes the dearest: the class of a prompt token, the
 * step by length, the number of searches.
 */
#include "policy/price.h"

#include "policy/price_book.h"

__extension__ typedef __int128 wide;

/* Multipliers where a row has none of its own; the cost is then an estimate. */
#define GEO_US_PERMILLE 1100	/* what every model that has one charges */
#define FAST_PERMILLE 6000	/* the dearest that any model has charged */

#define PERMILLE3 INT64_C(1000000000)		/* three multipliers of 1000 */
#define SUM_PER_NUSD (1000 * (wide)PERMILLE3)	/* pico to nano, and the multipliers */

/* Parts of a prompt that are not the body's text. */
#define PROMPT_TOKENS 1024	/* the provider's own prompt around tools, and framing: under 900 seen */
#define TYPED_TOOL_TOKENS 4096	/* the prompt that a typed tool brings: under 1,000 documented, toolsets more */
#define SEARCHES_UNBOUNDED 20	/* of a tool without max_uses: a turn pauses after 10 rounds */
#define SEARCH_TOKENS 16384	/* results of one search */
#define WINDOW_UNKNOWN 2000000	/* twice the longest that a provider has */
#define OUTPUT_UNKNOWN 128000	/* the longest that a model answers outside of batches */

/* The provider calls its count an estimate. */
#define COUNTED_MARGIN_PERMILLE 20
#define COUNTED_MARGIN_TOKENS 64

/* Likely sizes, for an estimate. */
#define BYTES_A_TOKEN 4
#define IMAGE_TOKENS_LIKELY 1600
#define DOCUMENT_TOKENS_LIKELY 6000	/* a PDF of three pages */

static int64_t
nusd_of(wide sum, bool round_up)
{
	wide nusd = (sum + (round_up ? SUM_PER_NUSD - 1 : SUM_PER_NUSD / 2)) / SUM_PER_NUSD;

	return nusd > INT64_MAX ? INT64_MAX : (int64_t)nusd;
}

static int64_t
counted(int64_t tokens)
{
	return tokens < 0 ? 0 : tokens > USAGE_TOKENS_MAX ? USAGE_TOKENS_MAX : tokens;
}

/* Cost */

/* How an answer was served, as the product of its multipliers. */
static int64_t
multiplier(const struct price_row *r, const struct usage *u, bool *estimated)
{
	int64_t m = 1;

	if (u->geo_us) {
		*estimated |= r->geo_us_permille == 0;
		m *= r->geo_us_permille ? r->geo_us_permille : GEO_US_PERMILLE;
	} else {
		m *= 1000;
	}
	if (u->fast) {
		*estimated |= r->fast_permille == 0 || !r->fast_confirmed;
		m *= r->fast_permille ? r->fast_permille : FAST_PERMILLE;
	} else {
		m *= 1000;
	}
	return m * (u->batch ? r->batch_permille : 1000);
}

/* The step is chosen by the whole prompt, and holds for the output too. */
static wide
tokens_cost(const struct price_row *r, const struct usage *u, const int64_t tokens[TOKENS_CLASSES],
    bool *estimated)
{
	int64_t prompt = counted(tokens[TOKENS_INPUT]) + counted(tokens[TOKENS_CACHE_READ]) +
	    counted(tokens[TOKENS_CACHE_WRITE_5M]) + counted(tokens[TOKENS_CACHE_WRITE_1H]);
	const struct price_rates *rates = price_rates_of(r, prompt);
	wide pusd = 0;

	for (int c = 0; c < TOKENS_CLASSES; c++)
		if (c != TOKENS_WEB_SEARCHES)
			pusd += (wide)counted(tokens[c]) * rates->pusd[c];
	*estimated |= !r->confirmed;
	return pusd * multiplier(r, u, estimated);
}

/* The row of one iteration. */
static const struct price_row *
part_row(const struct price_book *b, const struct price_row *r, struct slice provider_type,
    const struct usage_part *part, int64_t wall_ns, bool *estimated)
{
	const struct price_row *own;

	if (part->model[0] == '\0')
		return r;
	own = price_find(b, provider_type, slice_of(part->model), wall_ns);
	if (own)
		return own;
	*estimated = true;
	own = price_dearest(b, provider_type, wall_ns);
	return own ? own : r;
}

int64_t
price_cost_nusd(const struct price_book *b, const struct price_row *r,
    struct slice provider_type, const struct usage *u, int64_t wall_ns, bool *estimated)
{
	wide sum;

	CHECK(r && u->iterations_count <= USAGE_ITERATIONS_MAX);
	*estimated = u->unlisted || u->iterations_overflow;
	/* Searches are billed by the piece, at no multiplier. */
	sum = (wide)counted(u->tokens[TOKENS_WEB_SEARCHES]) * r->base.pusd[TOKENS_WEB_SEARCHES] * PERMILLE3;
	if (u->iterations_count == 0)
		return nusd_of(sum + tokens_cost(r, u, u->tokens, estimated), false);
	for (uint32_t i = 0; i < u->iterations_count; i++) {
		const struct usage_part *part = &u->iterations[i];

		sum += tokens_cost(part_row(b, r, provider_type, part, wall_ns, estimated), u, part->tokens, estimated);
	}
	return nusd_of(sum, false);
}

/* Bounds */

static int64_t
add(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t
saturate(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

/* No prompt is longer. A step above the window shows that a beta lifts it. */
static int64_t
window(const struct price_row *r)
{
	int64_t w = r ? r->model->max_input_tokens : 0;

	if (w == 0)
		return WINDOW_UNKNOWN;
	for (uint32_t i = 0; i < r->steps_count; i++)
		if (r->steps[i].above_prompt_tokens >= w && w < PRICE_WINDOW_LIFTED)
			return PRICE_WINDOW_LIFTED;
	return w;
}

static int64_t
searches_max(const struct body_scan *s)
{
	return s->web_search_max_uses == UINT32_MAX ? SEARCHES_UNBOUNDED : s->web_search_max_uses;
}

/* Parts of the prompt come from elsewhere, and their size is not in the body. */
static bool
prompt_is_open(const struct body_scan *s)
{
	return s->opaque_documents > 0 || s->server_tools > 0 || body_find(s, "thread") ||
	    body_find(s, "mcp_servers") || body_find(s, "container");
}

static int64_t
prompt_max(const struct price_row *r, const struct body_scan *s)
{
	int64_t n = add(saturate(s->text_bytes), PROMPT_TOKENS);

	n = add(n, (int64_t)s->images * PRICE_IMAGE_TOKENS);
	n = add(n, (int64_t)s->typed_tools * TYPED_TOOL_TOKENS);
	n = add(n, searches_max(s) * SEARCH_TOKENS);
	return prompt_is_open(s) || n > window(r) ? window(r) : n;
}

/* The provider may sum the conversation up first, which is a call of its own. */
static bool
may_compact(const struct body_scan *s)
{
	const struct body_member *m = body_find(s, "context_management");

	return body_find(s, "compaction") || (m && slice_contains(m->value, SLICE("compact_")));
}

static int64_t
output_max(const struct price_row *r, const struct body_scan *s)
{
	if (s->has_max_tokens && s->max_tokens >= 0)
		return s->max_tokens;
	return r && r->model->max_output_tokens ? r->model->max_output_tokens : OUTPUT_UNKNOWN;
}

static int64_t
max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* The dearest that a token of the prompt can be. Caches are written only
 * where the request asks for it. */
static int64_t
input_pusd(const struct price_rates *rates, const struct body_scan *s)
{
	int64_t pusd = max64(rates->pusd[TOKENS_INPUT], rates->pusd[TOKENS_CACHE_READ]);

	if (s->has_cache_control)
		pusd = max64(pusd, rates->pusd[TOKENS_CACHE_WRITE_5M]);
	if (s->has_cache_1h)
		pusd = max64(pusd, rates->pusd[TOKENS_CACHE_WRITE_1H]);
	return pusd;
}

static int64_t
saturate_wide(wide n)
{
	return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

/* What a token can be multiplied by: 1e9 is once. */
static wide
multiplier_max(const struct price_row *r, const struct body_scan *s, bool fast, bool geo_us)
{
	wide m = 1000;		/* batches are not bounded here: they are cheaper */

	/* A multiplier below list price may or may not apply. */
	m *= geo_us ? max64(1000, r->geo_us_permille ? r->geo_us_permille : GEO_US_PERMILLE) : 1000;
	m *= fast ? max64(1000, r->fast_permille ? r->fast_permille : FAST_PERMILLE) : 1000;
	return may_compact(s) ? 2 * m : m;
}

/* The price is linear in the output, so a limit can say how much of that it
 * pays: both parts are rounded up, each for itself. */
static struct price_bound
bound_of(const struct price_row *r, const struct body_scan *s, bool fast, bool geo_us, int64_t prompt_tokens)
{
	struct price_bound bound = { .input_tokens = prompt_tokens, .output_tokens = output_max(r, s) };
	int64_t input, output;
	wide m, sum;

	if (!r)
		return bound;
	m = multiplier_max(r, s, fast, geo_us);
	input = input_pusd(&r->base, s);
	output = r->base.pusd[TOKENS_OUTPUT];
	for (uint32_t i = 0; i < r->steps_count; i++)
		if (bound.input_tokens > r->steps[i].above_prompt_tokens) {
			input = max64(input, input_pusd(&r->steps[i].rates, s));
			output = max64(output, r->steps[i].rates.pusd[TOKENS_OUTPUT]);
		}
	sum = (wide)counted(bound.input_tokens) * input * m;
	sum += (wide)searches_max(s) * r->base.pusd[TOKENS_WEB_SEARCHES] * PERMILLE3;
	bound.input_nusd = nusd_of(sum, true);
	bound.output_nusd_milli = saturate_wide((output * m + PERMILLE3 - 1) / PERMILLE3);
	return bound;
}

struct price_bound
price_bound(const struct price_row *r, const struct body_scan *s, bool fast, bool geo_us)
{
	return bound_of(r, s, fast, geo_us, prompt_max(r, s));
}

bool
price_prompt_countable(const struct body_scan *s)
{
	return s->remote_sources == 0 && s->server_tools == 0 && s->web_search_max_uses == 0 && !body_find(s, "thread") &&
	    !body_find(s, "mcp_servers") && !body_find(s, "container");
}

struct price_bound
price_bound_counted(const struct price_row *r, const struct body_scan *s, bool fast, bool geo_us, int64_t prompt_tokens)
{
	wide n = (wide)counted(prompt_tokens) * (1000 + COUNTED_MARGIN_PERMILLE);
	int64_t tokens = saturate_wide((n + 999) / 1000 + COUNTED_MARGIN_TOKENS), most = prompt_max(r, s);

	return bound_of(r, s, fast, geo_us, tokens < most ? tokens : most);
}

int64_t
price_input_estimate(const struct price_row *r, const struct body_scan *s)
{
	int64_t n = saturate(s->text_bytes) / BYTES_A_TOKEN;

	n = add(n, (int64_t)s->images * IMAGE_TOKENS_LIKELY);
	n = add(n, (int64_t)s->opaque_documents * DOCUMENT_TOKENS_LIKELY);
	return n > window(r) ? window(r) : n;
}

int64_t
price_input_nusd(const struct price_row *r, int64_t tokens)
{
	return nusd_of((wide)tokens * price_rates_of(r, tokens)->pusd[TOKENS_INPUT] * PERMILLE3, false);
}
