/*
 * tests/oracle/oracle.c -- what policy/ says, for tests that know it otherwise.
 *
 *	oracle < questions > answers
 *
 * A question is a line with a JSON object, {"ask": "regex", ...}; its answer is a
 * line with one. The tests (*.test.mjs) make questions by the ten thousand, and
 * their own answers by JavaScript itself: RegExp, ===, parseFloat(), objects that
 * are edited as trees. Texts that must keep their bytes (bodies, patterns) come
 * and go as strings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/condition.h"
#include "policy/js.h"
#include "policy/json.h"
#include "policy/regex.h"
#include "shm/base/buf.h"

#define TEXTS_MAX 8
#define ANSWER_BYTES_MAX (1 << 20)

static char *texts[TEXTS_MAX];		/* of the question at hand */
static size_t texts_count;

/* A string of the question, unescaped; none: absent. */
static struct slice
text_of(struct slice question, const char *name)
{
	struct slice raw;

	if (!json_get(question, name, &raw) || raw.p[0] != '"')
		return SLICE_NONE;
	CHECK(texts_count < TEXTS_MAX);
	char *text = malloc(raw.n);
	CHECK(text);
	texts[texts_count++] = text;
	return (struct slice){ text, json_unescape(raw, text, raw.n) };
}

static void
ask_regex(struct slice question, struct buf *answer)
{
	static const char *const verdicts[] = { "no", "yes", "gave up" };
	struct regex_error why;
	struct regex *r = regex_compile(text_of(question, "pattern"), &why);

	if (!r) {
		buf_printf(answer, "\"refused\":");
		buf_add_json(answer, slice_of(why.what));
		buf_printf(answer, ",\"offset\":%zu", why.offset);
		return;
	}
	buf_printf(answer, "\"verdict\":\"%s\"", verdicts[regex_match(r, text_of(question, "subject"))]);
	regex_free(r);
}

/* The body of the question, scanned; NULL: it has none. */
static const struct body_scan *
body_of(struct slice question, struct body_scan *scan)
{
	struct slice body = text_of(question, "body");
	struct json_error why;

	if (!body.p)
		return NULL;
	CHECK(body_scan(body, scan, &why));
	return scan;
}

static void
add_problems(struct buf *answer, const struct problems *p)
{
	buf_add_str(answer, "\"refused\":");
	buf_add_json(answer, buf_slice(&p->text));
}

static void
ask_condition(struct slice question, struct buf *answer)
{
	static struct body_scan scan;
	bool gave_up = false;
	struct condition_facts f = {
		.metadata = text_of(question, "metadata"), .params = body_of(question, &scan),
		.pathname = text_of(question, "pathname"), .gave_up = &gave_up,
	};
	struct problems problems;
	struct slice query;
	struct buf lines;

	problems_init(&problems);
	buf_init(&lines, ANSWER_BYTES_MAX);
	CHECK(json_get(question, "query", &query));
	struct condition *c = condition_compile(query, "query", &problems);
	if (c) {
		buf_printf(answer, "\"holds\":%s,", condition_holds(c, &f) ? "true" : "false");
		condition_describe(c, &f, &lines);
		buf_printf(answer, "\"gave_up\":%s,\"lines\":", gave_up ? "true" : "false");
		buf_add_json(answer, buf_slice(&lines));
	} else {
		add_problems(answer, &problems);
	}
	condition_free(c);
	buf_free(&lines);
	problems_free(&problems);
}

static void
ask_js(struct slice question, struct buf *answer)
{
	char room[4096], number[JS_NUMBER_BYTES];
	struct slice value, text;

	CHECK(json_get(question, "value", &value));
	text = js_text(value, room, sizeof(room));
	CHECK(text.p);
	buf_add_str(answer, "\"text\":");
	buf_add_json(answer, text);
	double n = js_float(value);
	if (n == n)
		js_number_text(n, number);
	buf_printf(answer, ",\"float\":\"%s\"", n == n ? number : "NaN");
}

static const struct {
	const char *name;
	void (*answer)(struct slice question, struct buf *answer);
} asks[] = {
	{ "condition", ask_condition }, { "js", ask_js }, { "regex", ask_regex },
};

static void
answer(struct slice question)
{
	struct json_error why;
	struct buf out;
	struct slice ask;
	size_t i = 0;

	if (!json_check(question, &why) || !json_get(question, "ask", &ask)) {
		fprintf(stderr, "oracle: no question: %.*s\n", SLICE_FMT(question));
		exit(2);
	}
	while (i < sizeof(asks) / sizeof(*asks) && !json_string_eq(ask, asks[i].name))
		i++;
	CHECK(i < sizeof(asks) / sizeof(*asks));
	buf_init(&out, ANSWER_BYTES_MAX);
	buf_add_char(&out, '{');
	asks[i].answer(question, &out);
	buf_add_str(&out, "}\n");
	CHECK(!out.overflow);
	fwrite(out.p, 1, out.n, stdout);
	buf_free(&out);
	while (texts_count > 0)
		free(texts[--texts_count]);
}

int
main(void)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	while ((n = getline(&line, &room, stdin)) > 0)
		answer((struct slice){ line, (size_t)n - (line[n - 1] == '\n') });
	free(line);
	return 0;
}
