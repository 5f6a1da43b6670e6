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
#include "policy/config.h"
#include "policy/js.h"
#include "policy/json.h"
#include "policy/params.h"
#include "policy/regex.h"
#include "policy/state.h"
#include "shm/base/buf.h"
#include "shm/base/scratch.h"

#define TEXTS_MAX 128
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

/* The members of an object of the question. */
static uint32_t
params_of(struct slice question, const char *name, struct config_param out[CONFIG_PARAMS_MAX])
{
	struct slice object, key, value;
	struct json_iter it;
	uint32_t n = 0;

	CHECK(json_get(question, name, &object) && json_iter_object(&it, object));
	for (; json_next(&it, &key, &value); n++) {
		CHECK(n < CONFIG_PARAMS_MAX && texts_count + 2 <= TEXTS_MAX);
		char *plain = malloc(key.n), *raw = malloc(value.n + 1);
		CHECK(plain && raw);
		json_unescape(key, plain, key.n);
		memcpy(raw, value.p, value.n);
		raw[value.n] = '\0';
		texts[texts_count++] = plain;
		texts[texts_count++] = raw;
		out[n] = (struct config_param){ plain, raw };
	}
	return n;
}

static uint32_t
paths_of(struct slice question, struct params_path *out[PARAMS_DROPS_MAX], struct problems *p)
{
	struct slice list, name, raw;
	struct json_iter it;
	uint32_t n = 0;

	CHECK(json_get(question, "drops", &list) && json_iter_array(&it, list));
	while (json_next(&it, &name, &raw)) {
		char text[512];
		size_t text_n = json_unescape(raw, text, sizeof(text));

		CHECK(text_n < sizeof(text) && n < PARAMS_DROPS_MAX);
		out[n] = params_path_compile((struct slice){ text, text_n }, "drop", p);
		n += out[n] != NULL;
	}
	return n;
}

static void
ask_params(struct slice question, struct buf *answer)
{
	static struct body_scan scan;
	struct config_param defaults[CONFIG_PARAMS_MAX], overrides[CONFIG_PARAMS_MAX];
	struct params_path *drops[PARAMS_DROPS_MAX];
	struct scratch memory = { .max = ANSWER_BYTES_MAX };
	struct problems problems;
	struct slice out;
	const char *why;

	problems_init(&problems);
	struct params params = {
		.defaults = defaults, .defaults_count = params_of(question, "defaults", defaults),
		.overrides = overrides, .overrides_count = params_of(question, "overrides", overrides),
		.drops = drops, .drops_count = paths_of(question, drops, &problems),
	};
	const struct body_scan *body = body_of(question, &scan);
	if (problems.count > 0) {
		add_problems(answer, &problems);
	} else if (!params_apply(body, &params, &memory, &out, &why)) {
		buf_add_str(answer, "\"refused\":");
		buf_add_json(answer, slice_of(why));
	} else {
		buf_add_str(answer, "\"body\":");
		buf_add_json(answer, out);
	}
	for (uint32_t i = 0; i < params.drops_count; i++)
		params_path_free(drops[i]);
	scratch_reset(&memory);
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

static void
ask_state(struct slice question, struct buf *answer)
{
	static struct body_scan scan;
	struct scratch memory = { .max = ANSWER_BYTES_MAX };
	const struct body_scan *body = body_of(question, &scan);
	struct state state = state_find(body);
	int64_t before = STATE_ALL;
	struct slice number, out;

	if (json_get(question, "before", &number))
		CHECK(slice_to_i64(number, &before));
	CHECK(state_strip(body, &state, (uint32_t)before, &memory, &out));
	buf_printf(answer, "\"kinds\":%u,\"in_turn\":%s,\"messages\":%u,\"body\":", state.kinds, state.in_turn ? "true" : "false", state.messages);
	buf_add_json(answer, out);
	scratch_reset(&memory);
}

static const struct {
	const char *name;
	void (*answer)(struct slice question, struct buf *answer);
} asks[] = {
	{ "condition", ask_condition }, { "js", ask_js }, { "params", ask_params }, { "regex", ask_regex }, { "state", ask_state },
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
