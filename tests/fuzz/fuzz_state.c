/*
 * tests/fuzz/fuzz_state.c -- any bytes as a conversation: whose it is, and what
 * of it one account alone understands.
 *
 * What is left of a body must be one, must have nothing more that could go, and
 * must not change again. The conversation is the same with and without it.
 */
#include <string.h>

#include "policy/session.h"
#include "policy/state.h"
#include "shm/base/scratch.h"
#include "tests/fuzz/target.h"

static struct scratch memory = { .max = 1 << 20 };
static const uint64_t secret[2] = { 1, 2 };

static struct slice
no_header(void *arg, struct slice name)
{
	(void)arg;
	return name;
}

static void
check_session(const struct body_scan *body, const struct body_scan *stripped)
{
	struct session s = session_find(SLICE_NONE, body, SLICE("k"), secret), t = session_find(SLICE_NONE, stripped, SLICE("k"), secret);

	CHECK(s.source <= SESSION_BEGINNING && s.source != SESSION_HEADER);
	/* A user's message is never touched. */
	CHECK(s.source == t.source && (s.source == SESSION_NONE || memcmp(s.id, t.id, sizeof(s.id)) == 0));
	s = session_find(SLICE("h"), body, SLICE("k"), secret);
	CHECK(s.source == SESSION_HEADER);
}

static void
check_fields(const struct body_scan *body)
{
	struct slice fields[SESSION_FIELDS_MAX];
	uint32_t count = 0;
	struct problems p;
	uint64_t id[2], again[2];

	/* Names of the body serve as fields. */
	for (uint32_t i = 0; i < body->members_count && count < SESSION_FIELDS_MAX; i++)
		fields[count++] = (struct slice){ body->members[i].name.p + 1, body->members[i].name.n - 2 };
	problems_init(&p);
	struct session_fields *f = session_fields_compile(fields, count, "f", &p);
	CHECK((f != NULL) == (p.count == 0));
	if (f) {
		const struct condition_facts request = { .metadata = body->body, .params = body };
		const struct session_facts facts = { &request, no_header, NULL };
		bool any = session_fields_find(f, &facts, SLICE("k"), secret, id);

		CHECK(any == session_fields_find(f, &facts, SLICE("k"), secret, again) && memcmp(id, again, sizeof(id)) == 0);
	}
	session_fields_free(f);
	problems_free(&p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size }, out, again;
	struct body_scan body, stripped;
	struct json_error why;
	char words[STATE_WORDS_BYTES];

	if (!body_scan(text, &body, &why))
		return 0;
	struct state s = state_find(&body);
	state_describe(s.kinds, words);
	CHECK((words[0] == '\0') == (s.kinds == 0));
	CHECK(state_strip(&body, &s, &memory, &out));
	CHECK((out.p == text.p) == (state_can_drop(s.kinds) == 0));
	CHECK(body_scan(out, &stripped, &why));
	struct state t = state_find(&stripped);
	CHECK(t.kinds == (s.kinds & ~state_can_drop(s.kinds)));
	CHECK(state_strip(&stripped, &t, &memory, &again) && again.p == out.p);
	check_session(&body, &stripped);
	check_fields(&body);
	scratch_reset(&memory);
	return 0;
}
