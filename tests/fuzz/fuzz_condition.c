/*
 * tests/fuzz/fuzz_condition.c -- any bytes as a query, as the request that it is
 * held against, and as a pattern.
 *
 * A query must say the same alone, in an $and and in an $or, and its description
 * must be lines. Text before a line feed is a pattern for what is behind it: a
 * match must end, and a pattern without meaning in it is found as it stands.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/condition.h"
#include "policy/js.h"
#include "policy/json.h"
#include "policy/regex.h"
#include "tests/fuzz/target.h"

#define TEXT_BYTES 600		/* a room that is too small for some */

static void
check_lines(struct slice text, uint32_t least)
{
	uint32_t lines = 0;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		lines += c == '\n';
		CHECK(c >= 0x20 || c == '\n');
	}
	CHECK(lines >= least && (text.n == 0 || text.p[text.n - 1] == '\n'));
}

static struct condition *
compile_in(const char *before, struct slice query, const char *behind)
{
	struct problems p;
	struct buf b;

	buf_init(&b, 1 << 20);
	buf_add_str(&b, before);
	buf_add_slice(&b, query);
	buf_add_str(&b, behind);
	problems_init(&p);
	struct condition *c = condition_compile(buf_slice(&b), "q", &p);
	CHECK((c != NULL) == (p.count == 0));
	check_lines(buf_slice(&p.text), c || p.text.overflow ? 0 : 1);
	problems_free(&p);
	buf_free(&b);		/* nothing of it is kept */
	return c;
}

static void
try_query(struct slice text)
{
	struct body_scan body;
	struct json_error why;
	bool is_body = body_scan(text, &body, &why);
	struct condition_facts f[] = {
		{ .metadata = SLICE("{\"team\":\"support\",\"a\":\"\\\"\"}"), .params = is_body ? &body : NULL, .pathname = SLICE("/v1/messages") },
		{ .metadata = text },	/* it is not what it should be */
	};
	struct condition *alone = compile_in("", text, ""), *all = compile_in("{\"$and\":[", text, "]}"),
	    *any = compile_in("{\"metadata.team\":{\"$ne\":{}},\"$or\":[", text, "]}"), *one = compile_in("{\"$or\":[{\"metadata.team\":1},", text, "]}");

	CHECK(!any);		/* an object is never equal */
	for (size_t i = 0; alone && i < 2; i++) {
		bool holds = condition_holds(alone, &f[i]);
		struct buf lines;

		CHECK(!all || condition_holds(all, &f[i]) == holds);
		CHECK(!one || condition_holds(one, &f[i]) == holds);
		buf_init(&lines, 1 << 20);
		condition_describe(alone, &f[i], &lines);
		if (!lines.overflow)
			check_lines(buf_slice(&lines), 0);
		buf_free(&lines);
	}
	condition_free(alone);
	condition_free(all);
	condition_free(one);
}

static void
try_value(struct slice text)
{
	char room[TEXT_BYTES], large[8 * TEXT_BYTES];
	struct slice name, value;
	struct json_iter it;

	if (!json_iter_object(&it, text) && !json_iter_array(&it, text))
		return;
	while (json_next(&it, &name, &value)) {
		struct slice s = js_text(value, room, sizeof(room)), l = js_text(value, large, sizeof(large));
		double n = js_float(value);

		CHECK(!s.p || slice_eq(s, l));
		CHECK(!l.p || s.p || l.n >= sizeof(room));
		CHECK(s.p || memcmp(room, l.p ? l.p : large, sizeof(room) - 1) == 0);
		if (isnan(n))
			continue;
		size_t k = js_number_text(n, room);
		CHECK(k > 0 && k < JS_NUMBER_BYTES && (isinf(n) || strtod(room, NULL) == n));
	}
}

static bool
has_meaning(struct slice pattern)
{
	for (size_t i = 0; i < pattern.n; i++)
		if ((unsigned char)pattern.p[i] >= 0x80 || strchr("\\^$.*+?()[]{}|", pattern.p[i]))
			return true;
	return false;
}

static void
try_pattern(struct slice pattern, struct slice subject)
{
	struct regex_error why = { .offset = SIZE_MAX };
	struct regex *r = regex_compile(pattern, &why);

	if (!r) {
		CHECK(why.offset <= pattern.n && strlen(why.what) > 0);
		CHECK(has_meaning(pattern) || pattern.n > REGEX_PATTERN_BYTES_MAX);
		return;
	}
	enum regex_verdict v = regex_match(r, subject);
	CHECK(v == regex_match(r, subject));
	if (!has_meaning(pattern) && subject.n <= REGEX_SUBJECT_BYTES_MAX)
		CHECK(v == (slice_contains(subject, pattern) ? REGEX_YES : REGEX_NO));
	regex_free(r);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size };
	const char *line = memchr(text.p, '\n', text.n);
	size_t n = line ? (size_t)(line - text.p) : text.n;
	struct json_error why;

	try_pattern((struct slice){ text.p, n }, (struct slice){ text.p + n, text.n - n });
	if (!json_check(text, &why))
		return 0;
	while (strchr(" \t\r\n", text.p[0]))
		text = (struct slice){ text.p + 1, text.n - 1 };
	while (strchr(" \t\r\n", text.p[text.n - 1]))
		text.n--;
	try_query(text);
	try_value(text);
	return 0;
}
