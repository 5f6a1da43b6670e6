/*
 * tests/fuzz/fuzz_body.c -- any bytes as a request body.
 *
 * The scan must agree with json_check(), its spans must lie in the body and be
 * values, and whatever is edited must come out as JSON with the members that
 * were asked for. Which edits are made follows from the input's bytes. A walk
 * from member to member must find the same members, or the same mistake.
 */
#include <string.h>

#include "policy/body.h"
#include "shm/base/buf.h"
#include "shm/base/scratch.h"
#include "tests/fuzz/target.h"

static struct scratch memory = { .max = 1 << 20 };

static void
check_scan(const struct body_scan *s)
{
	struct json_error why;
	const char *end = s->body.p + s->body.n;

	CHECK(s->members_count <= SCAN_MEMBERS_MAX);
	CHECK(s->base64_bytes + s->text_bytes == s->body.n);
	CHECK(s->opaque_documents <= s->documents && s->server_tools <= s->typed_tools);
	for (uint32_t i = 0; i < s->members_count; i++) {
		const struct body_member *m = &s->members[i];

		CHECK(m->name.p >= s->body.p && m->value.p >= m->name.p + m->name.n && m->value.p + m->value.n < end);
		CHECK(json_check(m->name, &why) && json_check(m->value, &why));
		for (uint32_t k = 0; k < i; k++)
			CHECK(!json_strings_same(m->name, s->members[k].name));
	}
}

/* A member of the body, or a new name. */
static const char *
some_name(const struct body_scan *s, unsigned byte, char *name, size_t size)
{
	static const char *const fresh[] = { "model", "q\"\\\n", "", "stream" };
	struct slice raw;

	if (s->members_count == 0 || byte % 4 == 0)
		return fresh[byte / 4 % 4];
	raw = s->members[byte % s->members_count].name;
	/* A name with a NUL in it, or a long one, cannot be given as text. */
	size_t n = json_unescape(raw, name, size);
	return n >= size || memchr(name, '\0', n) ? "model" : name;
}

static void
check_edits(const struct body_scan *s)
{
	struct body_edits e = { .count = 0 };
	struct slice pieces[2 * SPLICES_MAX + 1];
	struct buf out;
	struct body_scan again;
	struct json_error why;
	char name[64];
	size_t steps = s->body.n < 12 ? s->body.n : 12;
	const char *last = NULL;

	for (size_t i = 0; i < steps; i++) {
		unsigned byte = (unsigned char)s->body.p[s->body.n - 1 - i] * 7u + (unsigned)i;

		last = some_name(s, byte, name, sizeof(name));
		CHECK(body_set(s, &e, last, SLICE("{\"set\":[1]}"), &memory));
	}
	buf_init(&out, 1 << 20);
	size_t count = body_pieces(s, &e, pieces, sizeof(pieces) / sizeof(pieces[0]));
	for (size_t i = 0; i < count; i++)
		buf_add_slice(&out, pieces[i]);
	CHECK(!out.overflow && out.n == body_edited_bytes(s, &e));
	if (body_scan(buf_slice(&out), &again, &why)) {
		const struct body_member *m = last ? body_find(&again, last) : NULL;
		CHECK(!last || (m && slice_eq(m->value, SLICE("{\"set\":[1]}"))));
	} else {
		CHECK(strcmp(why.what, "too many top-level members") == 0);
	}
	buf_free(&out);
	scratch_reset(&memory);
}

/* `s`: the scan of the same text, if it is a body. */
static void
check_walk(struct slice text, const struct body_scan *s, const struct json_error *why)
{
	struct json_iter it;
	struct slice name, value;
	uint32_t n = 0;

	if (!json_iter_object(&it, text)) {
		CHECK(!s || text.p[0] != '{');
		return;
	}
	for (; json_next(&it, &name, &value); n++)
		CHECK(!s || (name.p == s->members[n].name.p && name.n == s->members[n].name.n &&
		    value.p == s->members[n].value.p && value.n == s->members[n].value.n));
	CHECK(!s || (!it.error.what && n == s->members_count));
	/* Nothing may be nested deeper in a whole text than in a value of it. */
	if (it.error.what && strcmp(why->what, "nested too deep") != 0)
		CHECK(it.error.offset == why->offset && strcmp(it.error.what, why->what) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice text = { (const char *)data, n };
	struct body_scan s;
	struct json_error why, why_not = { 0 };
	bool valid = json_check(text, &why_not);

	if (body_scan(text, &s, &why)) {
		CHECK(valid);
		check_scan(&s);
		check_walk(text, &s, NULL);
		check_edits(&s);
	} else {
		CHECK(why.what && why.offset <= n);
		check_walk(text, NULL, &why_not);
		if (valid)	/* JSON, but no body */
			CHECK(strcmp(why.what, "expected an object") == 0 ||
			    strcmp(why.what, "too many top-level members") == 0 ||
			    strcmp(why.what, "this top-level member is there twice") == 0);
	}
	return 0;
}
