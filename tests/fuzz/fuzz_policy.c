/*
 * Limits from operators: the same bytes are taken for a policy, for a list of
 * limits of either form, for a key's document and for a request's metadata.
 * What is accepted must keep its bounds, and say the same again; what is not
 * must be told line by line.
 */
#include <stdlib.h>

#include "policy/json.h"
#include "policy/key.h"
#include "policy/limit_policy.h"
#include "tests/fuzz/target.h"

static void
check_problems(const struct problems *p)
{
	uint32_t lines = 0;

	for (size_t i = 0; i < p->text.n; i++) {
		unsigned char c = (unsigned char)p->text.p[i];

		lines += c == '\n';
		CHECK(c >= 0x20 || c == '\n');
	}
	CHECK(lines <= p->count && (lines == p->count || p->text.overflow));
}

static void
check_text(const char *text, size_t size)
{
	size_t n = strlen(text);

	CHECK(n > 0 && n < size);
	for (size_t i = 0; i < n; i++)
		CHECK((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
}

static void
check_limit(const struct limit *l)
{
	const struct charge *c = &l->charge;

	check_text(l->name, METER_NAME_BYTES);
	check_text(l->label, LIMIT_LABEL_BYTES);
	CHECK(c->name == l->name && (c->id.hi | c->id.lo) != 0);
	CHECK(c->limit >= 0 && c->limit <= (c->unit == UNIT_NUSD ? LIMIT_NUSD_MAX : LIMIT_VALUE_MAX));
	CHECK(c->alert >= 0 && (c->alert == 0 || c->alert < c->limit));
	CHECK((c->kind == METER_BUCKET) == (c->window_ns > 0));
	CHECK((c->period == PERIOD_DAYS) == (c->days > 0) && c->days <= 365);
	CHECK(c->anchor == 0 || c->anchor < c->days);
	CHECK(c->unit != UNIT_REQUESTS || c->mode == MODE_STRICT);
}

static void
try_limits(struct slice text, bool rates)
{
	static const struct limit_owner owner = { .kind = "key", .id = { "k", 1 }, .shown = { "a/b", 3 } };
	struct limit out[LIMITS_MAX], copies[LIMITS_MAX];
	struct problems p;
	uint32_t count;

	problems_init(&p);
	bool ok = limits_parse(rates ? text : SLICE_NONE, rates ? SLICE_NONE : text, &owner, "x", out, &count, &p);
	CHECK(ok == (p.count == 0) && count <= LIMITS_MAX);
	limits_copy(copies, out, count);
	for (uint32_t i = 0; i < count; i++) {
		check_limit(&copies[i]);
		for (uint32_t j = 0; j < i; j++)
			CHECK(out[i].charge.id.hi != out[j].charge.id.hi || out[i].charge.id.lo != out[j].charge.id.lo);
	}
	check_problems(&p);
	problems_free(&p);
}

static void
check_policy(const struct limit_policy *lp, struct slice metadata)
{
	const struct limit_subject full = {
		.key_id = SLICE("key_1"), .key_slug = SLICE("ci"), .workspace = SLICE("eng"), .user = SLICE("alice"), .provider = SLICE("main"),
		.provider_type = SLICE("anthropic"), .model = SLICE("claude-opus-5-5"), .config = SLICE("pc"), .metadata = metadata,
	}, bare = { .metadata = metadata };
	const struct limit_subject *const subjects[] = { &full, &bare };
	char text[POLICY_GROUP_BYTES_MAX], again[POLICY_GROUP_BYTES_MAX], name[METER_NAME_BYTES];
	struct charge c;

	check_limit(limit_policy_limit(lp));
	for (size_t i = 0; i < 2; i++) {
		CHECK(limit_policy_matches(lp, subjects[i]) == limit_policy_matches(lp, subjects[i]));
		struct slice g = limit_policy_group(lp, subjects[i], text), h = limit_policy_group(lp, subjects[i], again);
		CHECK(g.n <= POLICY_GROUP_BYTES_MAX && slice_eq(g, h) && (g.p != NULL) == (h.p != NULL));
		if (!g.p)
			continue;
		limit_policy_charge(lp, g, &c, name);
		check_text(name, METER_NAME_BYTES);
		CHECK(c.name == name && c.limit == limit_policy_limit(lp)->charge.limit);
		CHECK(!c.group || (c.group->most > 0 && c.group->name && c.group->overflow_name));
	}
}

static void
try_policy(struct slice text)
{
	struct problems p;

	problems_init(&p);
	struct limit_policy *lp = limit_policy_parse(text, "policies[0]", &p);
	CHECK((lp != NULL) == (p.count == 0));
	if (lp) {
		/* The policy is an object too: its own text serves as metadata. */
		check_policy(lp, text);
		check_policy(lp, SLICE("{\"user\":\"x-metadata.team:y\",\"team\":\"\\u00e4\",\"_user\":\"\"}"));
	}
	check_problems(&p);
	problems_free(&p);
	free(lp);
}

static void
try_key(struct slice text)
{
	char why[256] = "";
	struct key *k = key_compile(text, NULL, why, sizeof(why));

	CHECK((k == NULL) == (why[0] != '\0'));
	for (uint32_t i = 0; k && i < k->limits.count; i++)
		check_limit(&k->limits.limit[i]);
	key_free(k);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size };
	struct json_error why;

	try_key(text);
	if (!json_check(text, &why))
		return 0;
	while (text.n > 0 && strchr(" \t\r\n", text.p[0]))
		text = (struct slice){ text.p + 1, text.n - 1 };
	while (strchr(" \t\r\n", text.p[text.n - 1]))
		text.n--;
	try_policy(text);
	try_limits(text, true);
	try_limits(text, false);
	return 0;
}
