/*
 * policy/limit.c -- see limit.h.
 *
 * A limit is read in two steps: its members are noted, each at most once and
 * none that is unknown, and are then judged in an order in which what comes
 * later may rely on what was found before (the type says what a value means).
 * Every mistake is a line of its own, with its place and what would be right.
 */
#include "policy/limit.h"

#include <inttypes.h>
#include <stdio.h>

#include "policy/config.h"
#include "policy/decimal.h"
#include "policy/digest.h"
#include "policy/json.h"
#include "shm/base/clock.h"

#define PATH_BYTES 320		/* "providers[14].model_limits[63].usage_limits[7].next_usage_reset_at" is 72 */
#define TEXT_BYTES 64		/* of a type, a unit, a mode, a time */
#define WORDS_BYTES 40		/* "365-day request budget" */
#define MARK_BYTES (CONFIG_SLUG_BYTES_MAX + 4)	/* ":=" and an id, " (" and an id and ")" */
#define DAY_NS (INT64_C(86400) * NS_PER_S)

/* ---- members ---- */

enum member {
	MEMBER_TYPE, MEMBER_MODE, MEMBER_ID,
	MEMBER_UNIT, MEMBER_VALUE,
	MEMBER_CREDIT, MEMBER_ALERT, MEMBER_RESET, MEMBER_DAYS, MEMBER_NEXT,
	MEMBERS_COUNT
};

#define IN_RATE (1u << LIMIT_RATE)
#define IN_USAGE (1u << LIMIT_USAGE)

static const struct { const char *name; uint32_t forms; } members[MEMBERS_COUNT] = {
	[MEMBER_TYPE] = { "type", IN_RATE | IN_USAGE },
	[MEMBER_MODE] = { "mode", IN_RATE | IN_USAGE },
	[MEMBER_ID] = { "id", IN_RATE | IN_USAGE },
	[MEMBER_UNIT] = { "unit", IN_RATE },
	[MEMBER_VALUE] = { "value", IN_RATE },
	[MEMBER_CREDIT] = { "credit_limit", IN_USAGE },
	[MEMBER_ALERT] = { "alert_threshold", IN_USAGE },
	[MEMBER_RESET] = { "periodic_reset", IN_USAGE },
	[MEMBER_DAYS] = { "periodic_reset_days", IN_USAGE },
	[MEMBER_NEXT] = { "next_usage_reset_at", IN_USAGE },
};

struct work {
	enum limit_form form;
	bool within;			/* other members are the caller's */
	const char *path;		/* of the object */
	struct problems *problems;
	struct slice value[MEMBERS_COUNT];	/* none: absent or null */
	struct charge *charge;		/* what it becomes */
	const char *unit;		/* of a rate, a name from `windows` */
	char id[CONFIG_SLUG_BYTES_MAX + 1];	/* "": none */
};

static struct slice
shown(struct problem_name *name, struct slice raw)
{
	*name = problem_name(raw);
	return slice_of(name->text);
}

/* A mistake of one member. `not` is what stands there instead; none: nothing. */
static void
wrong(struct work *w, enum member m, const char *what, struct slice instead)
{
	char path[PATH_BYTES];
	struct problem_name name;

	snprintf(path, sizeof(path), "%s%s%s", w->path, w->path[0] ? "." : "", members[m].name);
	if (instead.p)
		problem_add(w->problems, path, "%s, not %.*s", what, SLICE_FMT(shown(&name, instead)));
	else
		problem_add(w->problems, path, "%s", what);
}

static void
needs(struct work *w, enum member m, const char *why)
{
	problem_add(w->problems, w->path, "needs \"%s\"%s", members[m].name, why);
}

static enum member
member_of(struct slice raw_name)
{
	uint32_t m = 0;

	while (m < MEMBERS_COUNT && !json_string_eq(raw_name, members[m].name))
		m++;
	return m;
}

bool
limit_member_known(struct slice raw_name)
{
	return member_of(raw_name) < MEMBERS_COUNT;
}

void
limit_members_guess(struct problem_guess *g)
{
	for (uint32_t m = 0; m < MEMBERS_COUNT; m++)
		problem_guess_try(g, members[m].name);
}

static void
unknown_member(struct work *w, struct slice raw_name)
{
	struct slice leaf = { raw_name.p + 1, raw_name.n - 2 };
	struct problem_guess guess = { .wanted = leaf };
	char path[PATH_BYTES];

	for (uint32_t m = 0; m < MEMBERS_COUNT; m++)
		if (members[m].forms & 1u << w->form)
			problem_guess_try(&guess, members[m].name);
	snprintf(path, sizeof(path), "%s%s%s", w->path, w->path[0] ? "." : "", problem_name(leaf).text);
	if (problem_guess_best(&guess))
		problem_add(w->problems, path, "unknown field; did you mean \"%s\"?", problem_guess_best(&guess));
	else
		problem_add(w->problems, path, "unknown field");
}

static void
collect(struct work *w, struct slice object)
{
	bool given[MEMBERS_COUNT] = { false };
	struct slice name, value;
	struct json_iter it;

	if (!json_iter_object(&it, object)) {
		problem_add(w->problems, w->path, "must be an object with a \"type\"");
		return;
	}
	while (json_next(&it, &name, &value)) {
		enum member m = member_of(name);

		if (m == MEMBERS_COUNT || (w->within && m == MEMBER_ID)) {
			if (!w->within)
				unknown_member(w, name);
			continue;
		}
		if (given[m])
			wrong(w, m, "given twice", SLICE_NONE);
		else if (!(members[m].forms & 1u << w->form))
			wrong(w, m, w->form == LIMIT_RATE ? "is of usage limits; a rate limit has \"unit\" and \"value\"" :
			    "is of rate limits; a usage limit has \"credit_limit\" and a period", SLICE_NONE);
		given[m] = true;
		if (!json_is_null(value))
			w->value[m] = value;
	}
}

/* ---- single values ---- */

/* The number of a member's text in a list of names; the list's length: none of them. */
static uint32_t
choice(const struct work *w, enum member m, const char *const *names, uint32_t count)
{
	uint32_t i = 0;

	while (i < count && (!w->value[m].p || !json_string_eq(w->value[m], names[i])))
		i++;
	return i;
}

/* Dollars may also be given as text, which no tool on the way can round. */
static struct slice
number_text(struct slice raw)
{
	if (raw.n > 2 && raw.p[0] == '"')
		return (struct slice){ raw.p + 1, raw.n - 2 };
	return raw;
}

/* What an amount has to be. */
static const char *
amount_words(const struct work *w, enum member m)
{
	if (m == MEMBER_VALUE)
		return "must be a whole number from 0 (nothing is admitted) to 1000000000000";
	switch (w->charge->unit) {
	case UNIT_REQUESTS:
		return "must be a whole number of requests from 1 to 1000000000000";
	case UNIT_TOKENS:
		return "must be a whole number of tokens from 1 to 1000000000000";
	case UNIT_NUSD:
		break;
	}
	return "must be dollars such as 25 or 0.5: more than 0, at most 1000000000, with at most nine decimals";
}

/* An amount in the charge's unit. A budget of 0 would be a slip: to admit
 * nothing is said by a rate of 0. */
static bool
amount(struct work *w, enum member m, int64_t *out)
{
	bool cost = w->charge->unit == UNIT_NUSD;
	struct slice text = cost ? number_text(w->value[m]) : w->value[m];

	if (decimal_parse(text, cost ? DECIMAL_NUSD : 0, cost ? LIMIT_NUSD_MAX : LIMIT_VALUE_MAX, out) &&
	    (*out > 0 || m == MEMBER_VALUE))
		return true;
	wrong(w, m, amount_words(w, m), w->value[m]);
	return false;
}

static bool
text_of(struct slice raw, char out[TEXT_BYTES])
{
	return raw.p[0] == '"' && json_unescape(raw, out, TEXT_BYTES) < TEXT_BYTES;
}

/* ---- what both forms have ---- */

static void
judge_mode(struct work *w)
{
	static const char *const modes[] = {
		[MODE_CLAMP] = "clamp", [MODE_STRICT] = "strict", [MODE_POSTPAID] = "postpaid",
	};
	struct charge *c = w->charge;
	uint32_t mode = choice(w, MEMBER_MODE, modes, 3);

	c->mode = c->unit == UNIT_REQUESTS ? MODE_STRICT : MODE_CLAMP;
	if (!w->value[MEMBER_MODE].p)
		return;
	if (mode == 3)
		wrong(w, MEMBER_MODE, "must be \"clamp\", \"strict\" or \"postpaid\"", w->value[MEMBER_MODE]);
	else if (c->unit == UNIT_REQUESTS)
		wrong(w, MEMBER_MODE, "goes with tokens and cost only: a request is one, and cannot be made smaller", SLICE_NONE);
	else
		c->mode = mode;
}

static void
judge_id(struct work *w)
{
	struct slice raw = w->value[MEMBER_ID];

	w->id[0] = '\0';
	if (!raw.p)
		return;
	if (raw.p[0] == '"' && json_unescape(raw, w->id, sizeof(w->id)) < sizeof(w->id) &&
	    config_slug_valid(slice_of(w->id)))
		return;
	w->id[0] = '\0';
	wrong(w, MEMBER_ID, "must be 1 to 64 of A-Z a-z 0-9 . _ -", raw);
}

/* ---- rates ---- */

static const struct { const char *unit; int64_t window_ns; } windows[] = {
	{ "rpm", 60 * NS_PER_S }, { "rph", 3600 * NS_PER_S }, { "rpd", DAY_NS }, { "rpw", 7 * DAY_NS },
};
#define WINDOWS_COUNT (sizeof(windows) / sizeof(*windows))

static void
judge_unit(struct work *w)
{
	struct slice raw = w->value[MEMBER_UNIT];

	if (w->charge->kind == METER_CONCURRENCY) {
		if (raw.p)
			wrong(w, MEMBER_UNIT, "does not go with concurrency, which counts requests in flight", SLICE_NONE);
		return;
	}
	if (!raw.p) {
		needs(w, MEMBER_UNIT, ": \"rpm\", \"rph\", \"rpd\" or \"rpw\"");
		return;
	}
	for (size_t i = 0; i < WINDOWS_COUNT; i++)
		if (json_string_eq(raw, windows[i].unit)) {
			w->unit = windows[i].unit;
			w->charge->window_ns = windows[i].window_ns;
			return;
		}
	wrong(w, MEMBER_UNIT, "must be \"rpm\", \"rph\", \"rpd\" or \"rpw\" (a minute, hour, day, week; for tokens too)", raw);
}

static void
judge_rate(struct work *w)
{
	static const char *const types[] = { "requests", "tokens", "concurrency" };
	uint32_t type = choice(w, MEMBER_TYPE, types, 3);

	if (!w->value[MEMBER_TYPE].p)
		needs(w, MEMBER_TYPE, ": \"requests\", \"tokens\" or \"concurrency\"");
	else if (type == 3)
		wrong(w, MEMBER_TYPE, "must be \"requests\", \"tokens\" or \"concurrency\"", w->value[MEMBER_TYPE]);
	w->charge->kind = type == 2 ? METER_CONCURRENCY : METER_BUCKET;
	w->charge->unit = type == 1 ? UNIT_TOKENS : UNIT_REQUESTS;
	if (type < 3) {
		judge_unit(w);
		judge_mode(w);
	}
	if (!w->value[MEMBER_VALUE].p)
		needs(w, MEMBER_VALUE, "");
	else
		(void)amount(w, MEMBER_VALUE, &w->charge->limit);
}

/* ---- budgets ---- */

static const char *const period_names[] = {
	[PERIOD_TOTAL] = "total",
	[PERIOD_DAILY] = "daily",
	[PERIOD_WEEKLY] = "weekly",
	[PERIOD_MONTHLY] = "monthly",
	[PERIOD_DAYS] = "days",
};

const char *
limit_period_name(enum meter_period period)
{
	CHECK(period <= PERIOD_DAYS);
	return period_names[period];
}

static void
judge_days(struct work *w)
{
	struct slice next = w->value[MEMBER_NEXT];
	char text[TEXT_BYTES];
	int64_t days, wall_ns;

	if (!decimal_parse(w->value[MEMBER_DAYS], 0, 365, &days) || days < 1) {
		wrong(w, MEMBER_DAYS, "must be a whole number of days from 1 to 365", w->value[MEMBER_DAYS]);
		return;
	}
	w->charge->period = PERIOD_DAYS;
	w->charge->days = (uint16_t)days;
	if (!next.p)
		return;
	if (text_of(next, text) && clock_parse_utc(slice_of(text), &wall_ns))
		w->charge->anchor = (uint16_t)(wall_ns / DAY_NS % days);
	else
		wrong(w, MEMBER_NEXT, "must be a time such as \"2026-12-01T00:00:00Z\"", next);
}

static void
judge_period(struct work *w)
{
	struct slice reset = w->value[MEMBER_RESET];

	if (reset.p && w->value[MEMBER_DAYS].p) {
		wrong(w, MEMBER_DAYS, "does not go with periodic_reset: give one of the two", SLICE_NONE);
		return;
	}
	if (w->value[MEMBER_DAYS].p) {
		judge_days(w);
		return;
	}
	if (w->value[MEMBER_NEXT].p)
		wrong(w, MEMBER_NEXT, "goes with periodic_reset_days only: the others reset at 00:00 UTC, every day, on "
		    "Mondays, or on the 1st", SLICE_NONE);
	if (!reset.p)
		return;
	for (enum meter_period p = PERIOD_DAILY; p <= PERIOD_MONTHLY; p++)
		if (json_string_eq(reset, period_names[p])) {
			w->charge->period = p;
			return;
		}
	wrong(w, MEMBER_RESET, "must be \"daily\", \"weekly\", \"monthly\", or null (never); periodic_reset_days is for others",
	    reset);
}

static void
judge_usage(struct work *w)
{
	static const char *const types[] = { "requests", "tokens", "cost" };
	struct charge *c = w->charge;
	uint32_t type = choice(w, MEMBER_TYPE, types, 3);
	bool limited = false;

	if (w->value[MEMBER_TYPE].p && type == 3)
		wrong(w, MEMBER_TYPE, "must be \"cost\", \"tokens\" or \"requests\"", w->value[MEMBER_TYPE]);
	c->kind = METER_BUDGET;
	c->unit = type == 0 ? UNIT_REQUESTS : type == 1 ? UNIT_TOKENS : UNIT_NUSD;
	judge_period(w);
	if (type == 3 && w->value[MEMBER_TYPE].p)
		return;		/* what an amount and a mode mean is not known */
	judge_mode(w);
	if (!w->value[MEMBER_CREDIT].p)
		needs(w, MEMBER_CREDIT, c->unit == UNIT_NUSD ? ": dollars" : "");
	else
		limited = amount(w, MEMBER_CREDIT, &c->limit);
	if (w->value[MEMBER_ALERT].p && amount(w, MEMBER_ALERT, &c->alert) && limited && c->alert >= c->limit) {
		struct problem_name name;
		char what[160];

		snprintf(what, sizeof(what), "must be less than the credit_limit, %s",
		    shown(&name, w->value[MEMBER_CREDIT]).p);
		wrong(w, MEMBER_ALERT, what, w->value[MEMBER_ALERT]);
	}
}

/* ---- names ---- */

struct meter_id
meter_id_of(const char *kind, struct slice id, const char *what)
{
	char text[1024];
	uint8_t hash[DIGEST_BYTES];
	struct meter_id out;
	int n = snprintf(text, sizeof(text), "%s%c%.*s%c%s", kind, '\0', SLICE_FMT(id), '\0', what);

	CHECK(n > 0 && (size_t)n < sizeof(text));
	digest_sha256((struct slice){ text, (size_t)n }, hash);
	memcpy(&out.hi, hash, sizeof(out.hi));
	memcpy(&out.lo, hash + sizeof(out.hi), sizeof(out.lo));
	return out;
}

void
limit_name_write(char out[METER_NAME_BYTES], const char *kind, struct slice who, const char *what)
{
	size_t rest = strlen(kind) + 1 + (what[0] ? strlen(what) + 1 : 0);
	size_t room = METER_NAME_BYTES - 1 - (rest < METER_NAME_BYTES - 1 ? rest : METER_NAME_BYTES - 1);
	size_t n = who.n;
	bool cut = n > room;

	if (cut) {
		n = room > 3 ? room - 3 : 0;
		while (n > 0 && ((unsigned char)who.p[n] & 0xc0) == 0x80)
			n--;	/* not in the middle of a character */
	}
	snprintf(out, METER_NAME_BYTES, "%s %.*s%s%s%s", kind, (int)n, who.p, cut ? "..." : "", what[0] ? " " : "", what);
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

static void
what_write(const struct work *w, char out[LIMIT_WHAT_BYTES])
{
	const struct charge *c = w->charge;
	static const char *const units[] = { [UNIT_REQUESTS] = "requests", [UNIT_TOKENS] = "tokens", [UNIT_NUSD] = "cost" };

	if (c->kind == METER_CONCURRENCY)
		snprintf(out, LIMIT_WHAT_BYTES, "concurrency");
	else if (c->kind == METER_BUCKET)
		snprintf(out, LIMIT_WHAT_BYTES, "%s:%s", units[c->unit], w->unit);
	else
		snprintf(out, LIMIT_WHAT_BYTES, "%s", units[c->unit]);
}

/* What tells it from the owner's other ones, for people: of the meter's name, of the label. */
static void
words_write(const struct work *w, char name[WORDS_BYTES], char label[WORDS_BYTES])
{
	static const char *const kinds[] = { [UNIT_REQUESTS] = "request ", [UNIT_TOKENS] = "token ", [UNIT_NUSD] = "" };
	const struct charge *c = w->charge;

	if (c->kind == METER_BUDGET) {
		what_write(w, name);
		if (c->period == PERIOD_DAYS)
			snprintf(label, WORDS_BYTES, "%u-day %sbudget", c->days, kinds[c->unit]);
		else
			snprintf(label, WORDS_BYTES, "%s %sbudget", period_names[c->period], kinds[c->unit]);
		return;
	}
	if (c->kind == METER_CONCURRENCY)
		snprintf(name, WORDS_BYTES, "concurrency");
	else
		snprintf(name, WORDS_BYTES, "%s%s", c->unit == UNIT_TOKENS ? "tokens " : "", w->unit);
	memcpy(label, name, WORDS_BYTES);
}

/* How many of the owner's limits before it are of its kind and have no id. */
static uint32_t
place_of(const struct limit *all, uint32_t before, const bool *named)
{
	const struct charge *c = &all[before].charge;
	uint32_t n = 0;

	for (uint32_t i = 0; i < before; i++)
		n += !named[i] && all[i].charge.kind == c->kind && all[i].charge.unit == c->unit &&
		    all[i].charge.window_ns == c->window_ns;
	return n;
}

static void
name_limit(struct work *w, const struct limit_owner *owner, struct limit *out, uint32_t place)
{
	char what[LIMIT_WHAT_BYTES + MARK_BYTES], name[WORDS_BYTES], label[WORDS_BYTES], mark[MARK_BYTES] = "",
	    text[2 * WORDS_BYTES + MARK_BYTES];

	what_write(w, what);
	words_write(w, name, label);
	if (w->id[0]) {
		snprintf(what + strlen(what), MARK_BYTES, ":=%s", w->id);
		snprintf(mark, sizeof(mark), " (%s)", w->id);
	} else if (place > 0) {
		snprintf(what + strlen(what), MARK_BYTES, ":%u", place);
		snprintf(mark, sizeof(mark), " %u", place + 1);
	}
	out->charge.id = meter_id_of(owner->kind, owner->id, what);
	snprintf(text, sizeof(text), "%s%s", name, mark);
	limit_name_write(out->name, owner->kind, owner->shown, text);
	snprintf(text, sizeof(text), "%s %s%s", owner->kind, label, mark);
	snprintf(out->label, sizeof(out->label), "%.*s", (int)sizeof(out->label) - 1, text);
	out->charge.name = out->name;
}

/* ---- lists ---- */

/* Reads one limit, not yet its names. false: problems were added. */
static bool
limit_read(struct work *w, struct slice object, struct limit *out)
{
	uint32_t before = w->problems->count;

	*out = (struct limit){ .charge = { .row = UINT32_MAX } };	/* no hint yet */
	w->charge = &out->charge;
	collect(w, object);
	if (w->problems->count != before && object.p[0] != '{')
		return false;
	judge_id(w);
	if (w->form == LIMIT_RATE)
		judge_rate(w);
	else
		judge_usage(w);
	return w->problems->count == before;
}

bool
limit_parse_within(struct slice object, enum limit_form form, const struct limit_owner *owner,
    const char *path, struct limit *out, char what[LIMIT_WHAT_BYTES], struct problems *p)
{
	struct work w = { .form = form, .within = true, .path = path, .problems = p };

	if (!limit_read(&w, object, out))
		return false;
	what_write(&w, what);
	name_limit(&w, owner, out, 0);
	return true;
}

struct list {
	const struct limit_owner *owner;
	struct problems *problems;
	struct limit *out;
	uint32_t *count;
	bool named[LIMITS_MAX];		/* has an id of its own */
};

static void
list_take(struct list *l, enum limit_form form, struct slice object, const char *path)
{
	struct work w = { .form = form, .path = path, .problems = l->problems };
	struct limit *limit = &l->out[*l->count];

	if (!limit_read(&w, object, limit))
		return;
	name_limit(&w, l->owner, limit, place_of(l->out, *l->count, l->named));
	for (uint32_t i = 0; i < *l->count; i++)
		if (l->out[i].charge.id.hi == limit->charge.id.hi && l->out[i].charge.id.lo == limit->charge.id.lo) {
			wrong(&w, MEMBER_ID, "is the id of another limit of the same type and unit", SLICE_NONE);
			return;
		}
	l->named[*l->count] = w.id[0] != '\0';
	(*l->count)++;
}

static bool
room_for_one(const struct list *l, const char *path)
{
	if (*l->count < LIMITS_MAX)
		return true;
	problem_add(l->problems, path, "is one more than the %d limits, of both kinds together, that fit", LIMITS_MAX);
	return false;
}

static void
list_read(struct list *l, enum limit_form form, struct slice raw, const char *path)
{
	struct slice none, value;
	char at[PATH_BYTES];
	struct json_iter it;

	if (!raw.p || json_is_null(raw))
		return;
	if (raw.p[0] == '{') {
		if (room_for_one(l, path))
			list_take(l, form, raw, path);
		return;
	}
	if (!json_iter_array(&it, raw)) {
		problem_add(l->problems, path, "must be a list of limits, each an object with a \"type\"");
		return;
	}
	for (uint32_t i = 0; json_next(&it, &none, &value); i++) {
		snprintf(at, sizeof(at), "%s[%u]", path, i);
		if (!room_for_one(l, at))
			return;
		list_take(l, form, value, at);
	}
}

bool
limits_parse(struct slice rate_limits, struct slice usage_limits, const struct limit_owner *owner,
    const char *path, struct limit out[LIMITS_MAX], uint32_t *count, struct problems *p)
{
	struct list l = { .owner = owner, .problems = p, .out = out, .count = count };
	uint32_t before = p->count;
	const char *dot = path[0] ? "." : "";
	char at[PATH_BYTES];

	*count = 0;
	snprintf(at, sizeof(at), "%s%srate_limits", path, dot);
	list_read(&l, LIMIT_RATE, rate_limits, at);
	snprintf(at, sizeof(at), "%s%susage_limits", path, dot);
	list_read(&l, LIMIT_USAGE, usage_limits, at);
	return p->count == before;
}

/* ---- charges ---- */

bool
limit_charge_is_cost(const struct charge *c)
{
	return c->kind == METER_BUDGET && c->unit == UNIT_NUSD;
}

void
limits_copy(struct limit *to, const struct limit *from, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		to[i] = from[i];
		to[i].charge.name = to[i].name;
	}
}

void
limit_charge_fill(struct charge *c, int64_t requests, int64_t input_tokens, int64_t input_nusd,
    int64_t output_slope_nusd_milli)
{
	switch (c->unit) {
	case UNIT_REQUESTS:
		c->fixed = requests;
		c->slope_milli = 0;
		break;
	case UNIT_TOKENS:
		c->fixed = input_tokens;
		c->slope_milli = 1000;
		break;
	case UNIT_NUSD:
		c->fixed = input_nusd;
		c->slope_milli = output_slope_nusd_milli;
		break;
	}
}
