/*
 * gateway/limit_refusal.c -- see limit_refusal.h.
 *
 * A client waits as long as retry-after says if that is a minute at the most, and
 * gives up at once if it is more. So the true time is told where it is known; only
 * where requests in flight may make room earlier than that it is cut to a minute.
 */
#include "gateway/limit_refusal.h"

#include <stdio.h>

#include "gateway/request.h"
#include "gateway/tool_text.h"
#include "shm/base/clock.h"
#include "shm/metrics.h"

#define RETRY_S_MAX 60		/* clients that are told more do not try again */
#define AMOUNT_BYTES 48

/* One refusal on its way to its words. */
struct refused {
	struct request *request;
	const struct charge *charge;
	const struct limit_origin *origin;
	const struct refusal *why;
	const char *name;	/* of the limit */
	int64_t wall_ns;
};

/* ---- amounts ---- */

/* "$0.25", "1234 tokens" */
static void
amount(char out[AMOUNT_BYTES], enum meter_unit unit, int64_t value)
{
	static const char *const behind[] = { [UNIT_REQUESTS] = " requests", [UNIT_TOKENS] = " tokens", [UNIT_NUSD] = "" };
	char number[TOOL_AMOUNT_BYTES];

	snprintf(out, AMOUNT_BYTES, "%s%s", tool_amount(unit, value > 0 ? value : 0, number), behind[unit]);
}

/* Would less output help: does the rest of the request fit into so much? */
static const char *
advice(const struct charge *c, int64_t left)
{
	return c->slope_milli > 0 && c->fixed < left ? "; lower max_tokens" : "";
}

/* ---- rates ---- */

static int64_t
whole_seconds(int64_t ns)
{
	int64_t s = (ns + NS_PER_S - 1) / NS_PER_S;

	return s < 1 ? 1 : s;
}

static void
refuse_never(const struct refused *f)
{
	static const struct refusal_words words = {
		.status = 429, .type = "rate_limit_error", .headers = "x-should-retry: false\r\n", .outcome = OUTCOME_REFUSED,
	};
	char need[AMOUNT_BYTES], most[AMOUNT_BYTES];

	amount(need, f->charge->unit, f->why->need);
	amount(most, f->charge->unit, f->why->limit);
	if (f->charge->kind == METER_BUCKET && f->charge->unit == UNIT_TOKENS)
		request_refuse(f->request, &words, "rate limit reached (%s: %s): this request needs %s%s", f->name, most, need,
		    advice(f->charge, f->why->limit));
	else
		request_refuse(f->request, &words, "rate limit reached (%s: %s): nothing is admitted", f->name, most);
}

static void
refuse_bucket(const struct refused *f)
{
	int64_t seconds = whole_seconds(f->why->wait_ns);
	char headers[64];
	struct refusal_words words = {
		.status = 429, .type = "rate_limit_error", .headers = headers, .outcome = OUTCOME_REFUSED,
	};

	if (f->why->held > 0 && seconds > RETRY_S_MAX)
		seconds = RETRY_S_MAX;
	snprintf(headers, sizeof(headers), "retry-after: %lld\r\n", (long long)seconds);
	request_refuse(f->request, &words, "rate limit reached (%s: %lld); try again in %lld s", f->name,
	    (long long)f->why->limit, (long long)seconds);
}

static void
refuse_concurrency(const struct refused *f)
{
	static const struct refusal_words words = {
		.status = 429, .type = "rate_limit_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};

	request_refuse(f->request, &words, "too many requests are in flight (%s: %lld); try again in 1 s", f->name,
	    (long long)f->why->limit);
}

/* ---- budgets ---- */

/* "api_key" -> "ap********key": Portkey's way to name a thing in public. */
static void
masked(char *out, size_t size, struct slice s)
{
	snprintf(out, size, "%.*s********%.*s", s.n < 2 ? (int)s.n : 2, s.p, s.n < 3 ? (int)s.n : 3,
	    s.p + (s.n < 3 ? 0 : s.n - 3));
}

/* The messages, types and codes of Portkey's own gateway, by whose budget it was. */
static void
portkey_words(const struct refused *f, char *message, size_t size, const char **type, const char **code)
{
	const struct request *r = f->request;
	const char *label = f->origin->limit->label, *name = f->charge->name;
	char slug[80];

	*type = "invalid_request_error";
	*code = "04";
	switch (f->origin->source) {
	case LIMIT_OF_KEY:
		snprintf(message, size, "Portkey API Key Usage Limit Exceeded");
		break;
	case LIMIT_OF_WORKSPACE:
		snprintf(message, size, "Portkey Workspace Usage Limit Exceeded");
		*type = "workspace_exhaust_error";
		break;
	case LIMIT_OF_PROVIDER:
	case LIMIT_OF_MODEL:
		masked(slug, sizeof(slug), slice_of(r->at.provider->slug));
		snprintf(message, size, "Portkey Virtual Key %s Usage Limit Exceeded", slug);
		*type = "virtual_key_exhaust_error";
		break;
	case LIMIT_OF_POLICY: {
		size_t n = strlen(label);	/* "policy <id>", with which a group's name begins */

		snprintf(message, size, "Portkey Usage Limits Policy %s Exceeded for value key %s", label + strlen("policy "),
		    f->charge->group && strlen(name) > n ? name + n + 1 : "default");
		*type = "usage_limits_policy_exhaust_error";
		*code = "06";
		break;
	}
	}
}

static void
refuse_portkey(const struct refused *f)
{
	struct request *r = f->request;
	char message[METER_NAME_BYTES + LIMIT_LABEL_BYTES + 160], wrapped[sizeof(message) + 64];
	const char *type, *code;
	struct buf body;

	portkey_words(f, message, sizeof(message), &type, &code);
	buf_init(&body, 8192);
	if (f->origin->source == LIMIT_OF_KEY) {
		/* Keys are looked at with the credentials, whose errors have another frame. */
		snprintf(wrapped, sizeof(wrapped), "Portkey Error: %s. Error Code: %s", message, code);
		buf_add_str(&body, "{\"status\":\"failure\",\"type\":\"error\",\"message\":");
		buf_add_json(&body, slice_of(wrapped));
		buf_add_str(&body, ",\"error\":{\"type\":\"");
	} else {
		snprintf(wrapped, sizeof(wrapped), "%s", message);
		buf_add_str(&body, "{\"type\":\"error\",\"error\":{\"param\":null,\"type\":\"");
	}
	buf_add_str(&body, type);
	buf_add_str(&body, "\",\"message\":");
	buf_add_json(&body, slice_of(wrapped));
	buf_printf(&body, ",\"code\":\"%s\"},\"request_id\":\"%s\"}", code, r->id);
	r->rec.fixed.outcome = OUTCOME_REFUSED;
	r->rec.error_type = SLICE("billing_error");
	r->rec.error_message = SLICE("usage limit exceeded");
	request_reply(r, 412, "application/json;charset=UTF-8", "x-should-retry: false\r\n", buf_slice(&body));
	buf_free(&body);
}

/* It would fit once requests in flight have settled. */
static void
refuse_held(const struct refused *f)
{
	static const struct refusal_words words = {
		.status = 429, .type = "rate_limit_error", .headers = "retry-after: 1\r\n", .outcome = OUTCOME_REFUSED,
	};
	char left[AMOUNT_BYTES];

	amount(left, f->charge->unit, f->why->limit - f->why->spent);
	request_refuse(f->request, &words, "the rest of the %s (%s) is reserved by requests in flight; try again in 1 s",
	    f->name, left);
}

/* "monthly; resets 2026-12-01 00:00 UTC", and the headers that say the same. */
static void
say_period(const struct refused *f, char *headers, size_t headers_size, char *text, size_t text_size)
{
	const struct charge *c = f->charge;
	struct period period = { .kind = c->period, .days = c->days, .anchor = c->anchor };
	int64_t reset_ns = period_end_ns(period, f->wall_ns);
	char name[32], until[32];

	if (c->period == PERIOD_DAYS)
		snprintf(name, sizeof(name), "every %u days", c->days);
	else
		snprintf(name, sizeof(name), "%s", limit_period_name(c->period));
	if (!reset_ns) {
		snprintf(headers, headers_size, "x-should-retry: false\r\n");
		snprintf(text, text_size, "%s; never resets", name);
		return;
	}
	snprintf(headers, headers_size, "x-should-retry: false\r\nretry-after: %lld\r\n",
	    (long long)whole_seconds(reset_ns - f->wall_ns));
	clock_format_utc(reset_ns, until, sizeof(until));
	until[10] = ' ';
	snprintf(text, text_size, "%s; resets %.16s UTC", name, until);
}

static void
refuse_budget(const struct refused *f)
{
	static const char *const what[] = { [UNIT_REQUESTS] = "request", [UNIT_TOKENS] = "token", [UNIT_NUSD] = "spend" };
	const struct settings *s = f->request->plane->settings;
	const struct refusal *why = f->why;
	enum meter_unit unit = f->charge->unit;
	char headers[96], period[80], spent[AMOUNT_BYTES], limit[AMOUNT_BYTES], held[AMOUNT_BYTES], need[AMOUNT_BYTES];
	char rest[3 * AMOUNT_BYTES + 64] = "";
	struct refusal_words words = {
		.status = 429, .type = "billing_error", .headers = headers, .outcome = OUTCOME_REFUSED,
	};

	if (why->spent < why->limit && why->need <= why->limit - why->spent) {
		refuse_held(f);
		return;
	}
	if (s->budget_style == BUDGET_STYLE_PORTKEY || (s->budget_style == BUDGET_STYLE_AUTO && f->request->portkey_auth)) {
		refuse_portkey(f);
		return;
	}
	say_period(f, headers, sizeof(headers), period, sizeof(period));
	tool_amount(unit, why->spent, spent);
	amount(limit, unit, why->limit);
	amount(held, unit, why->held);
	amount(need, unit, why->need);
	if (why->spent < why->limit)
		snprintf(rest, sizeof(rest), "%s%s%s; this request needs %s%s", why->held > 0 ? ", " : "",
		    why->held > 0 ? held : "", why->held > 0 ? " reserved by requests in flight" : "", need,
		    advice(f->charge, why->limit - why->spent));
	request_refuse(f->request, &words, "%s limit reached (%s): %s, %s %s of %s%s%s%s", what[unit], period, f->name,
	    unit == UNIT_NUSD ? "spent" : "used", spent, limit, rest, *s->budget_text ? ". " : "", s->budget_text);
}

void
limit_refuse(struct request *r, const struct limit_set *set, const struct refusal *why, struct now now)
{
	const struct charge *c = &set->charge[why->charge];
	const struct limit_origin *origin = &set->origin[why->charge];
	struct refused f = {
		.request = r, .charge = c, .origin = origin, .why = why, .wall_ns = now.wall_ns,
		.name = c->group ? c->name : origin->limit->label,	/* the group's says whose it is */
	};

	r->rec.limit = slice_of(origin->limit->label);
	metrics_add(r->worker->arena, r->worker->index,
	    c->kind == METER_BUDGET ? COUNTER_REFUSED_BUDGET : COUNTER_REFUSED_RATE, 1);
	switch (c->kind) {
	case METER_BUCKET:
		if (why->wait_ns < 0)
			refuse_never(&f);
		else
			refuse_bucket(&f);
		break;
	case METER_CONCURRENCY:
		if (why->limit <= 0)
			refuse_never(&f);
		else
			refuse_concurrency(&f);
		break;
	case METER_BUDGET:
		refuse_budget(&f);
		break;
	case METER_GROUP:
		CHECK(!"a group's meter is no charge");
		break;
	}
}
