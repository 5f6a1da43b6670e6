/*
 * gateway/limit_headers.c -- see limit_headers.h.
 */
#include "gateway/limit_headers.h"

#include <stdio.h>

#include "gateway/reply.h"
#include "shm/base/clock.h"

__extension__ typedef __int128 wide;

#define SECONDS_KEPT 64		/* more than the resets that a minute's buckets have at a time; a power of two */

/* Requests in flight are no quantity that comes back with time. */
static struct limit_tight *
slot_of(struct limit_tightest *t, const struct charge *c)
{
	if (c->kind != METER_BUCKET && c->kind != METER_BUDGET)
		return NULL;
	return c->unit == UNIT_REQUESTS ? &t->requests : c->unit == UNIT_TOKENS ? &t->tokens : NULL;
}

static void
consider(struct limit_tight *t, const struct charge *c, int64_t left, int64_t reset_ns)
{
	if (left < 0)
		left = 0;
	/* left / limit, without dividing; a limit of 0 is the tightest there is. */
	if (t->any && (t->limit == 0 || (c->limit > 0 && (wide)left * t->limit >= (wide)t->left * c->limit)))
		return;
	*t = (struct limit_tight){
		.any = true, .resets = c->kind == METER_BUCKET || reset_ns > 0, .limit = c->limit, .left = left,
		.reset_ns = reset_ns,
	};
}

struct limit_tightest
limit_tightest_admitted(const struct limit_set *set, struct now now)
{
	struct limit_tightest out = { .requests.any = false };

	for (uint32_t i = 0; i < set->count; i++) {
		const struct charge *c = &set->charge[i];
		struct limit_tight *t = slot_of(&out, c);

		if (t)
			consider(t, c, charge_left(c, now), charge_reset_ns(c, now));
	}
	return out;
}

struct limit_tightest
limit_tightest_refused(struct arena *a, const struct limit_set *set, struct now now)
{
	struct limit_tightest out = { .requests.any = false };

	for (uint32_t i = 0; i < set->count; i++) {
		const struct charge *c = &set->charge[i];
		struct limit_tight *t = slot_of(&out, c);
		struct meter_view view;

		if (!t || !ledger_meter(a, c->id, now, &view))
			continue;
		if (c->kind == METER_BUCKET)
			consider(t, c, view.tokens, view.full_in_ns);
		else
			consider(t, c, c->limit - view.spent - view.held, view.reset_wall_ns ? view.reset_wall_ns - now.wall_ns : 0);
	}
	return out;
}

/* A second as RFC 3339. Many answers name the same one. */
static struct slice
second_text(int64_t second)
{
	static struct kept {
		int64_t second;		/* 0: none, and no limit resets in 1970 */
		char text[32];
	} kept[SECONDS_KEPT];
	struct kept *k = &kept[second & (SECONDS_KEPT - 1)];

	if (k->second != second) {
		k->second = second;
		clock_format_utc(second * NS_PER_S, k->text, sizeof(k->text));
		memcpy(k->text + 19, "Z", 2);	/* instead of the milliseconds */
	}
	return (struct slice){ k->text, 20 };
}

/* The whole second that is not before it. */
static int64_t
second_of(int64_t ns)
{
	return (ns + NS_PER_S - 1) / NS_PER_S;
}

/* As OpenAI writes a duration, which is what readers of these lines parse. */
static void
add_duration(struct text *t, int64_t ns)
{
	int64_t s = second_of(ns);
	char out[64];

	if (ns < NS_PER_S)
		snprintf(out, sizeof(out), "%lldms", (long long)((ns + NS_PER_MS - 1) / NS_PER_MS));
	else if (s < 60)
		snprintf(out, sizeof(out), "%llds", (long long)s);
	else if (s < 3600)
		snprintf(out, sizeof(out), "%lldm%llds", (long long)(s / 60), (long long)(s % 60));
	else
		snprintf(out, sizeof(out), "%lldh%lldm%llds", (long long)(s / 3600), (long long)(s / 60 % 60),
		    (long long)(s % 60));
	text_str(t, out);
}

/* What stands before, between and behind the numbers of one limit. */
struct lines {
	struct slice limit, left, reset;
};
#define LINES(limit, left, reset) { \
	{ limit ": ", sizeof(limit ": ") - 1 }, \
	{ "\r\n" left ": ", sizeof("\r\n" left ": ") - 1 }, \
	{ "\r\n" reset ": ", sizeof("\r\n" reset ": ") - 1 } }

static void
add_lines(struct text *t, const struct lines *lines, const struct limit_tight *tight, int64_t wall_ns, bool duration)
{
	if (!tight->any)
		return;
	text_add(t, lines->limit);
	text_int(t, tight->limit);
	text_add(t, lines->left);
	text_int(t, tight->left);
	if (tight->resets) {
		text_add(t, lines->reset);
		if (duration)
			add_duration(t, tight->reset_ns);
		else
			text_add(t, second_text(second_of(wall_ns + tight->reset_ns)));
	}
	text_add(t, SLICE("\r\n"));
}

void
limit_headers_add(struct text *t, const struct limit_tightest *tightest, int64_t wall_ns, bool portkey)
{
	static const struct lines requests = LINES("anthropic-ratelimit-requests-limit",
	    "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset");
	static const struct lines tokens = LINES("anthropic-ratelimit-tokens-limit",
	    "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset");
	static const struct lines portkey_requests = LINES("x-ratelimit-limit-requests",
	    "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
	static const struct lines portkey_tokens = LINES("x-ratelimit-limit-tokens",
	    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");

	add_lines(t, &requests, &tightest->requests, wall_ns, false);
	add_lines(t, &tokens, &tightest->tokens, wall_ns, false);
	if (!portkey)
		return;
	add_lines(t, &portkey_requests, &tightest->requests, wall_ns, true);
	add_lines(t, &portkey_tokens, &tightest->tokens, wall_ns, true);
}
