/*
 * tests/bench/bench_policy.c -- what routing's decisions cost: conditions, patterns,
 * changes of a body of 1 MB.
 *
 * One JSON line a figure, {"name", "value"}; the unit stands in the name. The
 * median of rounds of processor time, so that a busy machine does not decide. The
 * patterns are those that explode, read a subject again from each of its bytes, or
 * compare where nobody counts; of all of them the worst is told.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition.h"
#include "policy/config.h"
#include "policy/json.h"
#include "policy/params.h"
#include "policy/regex.h"
#include "policy/session.h"
#include "policy/state.h"
#include "shm/base/buf.h"
#include "shm/base/scratch.h"
#include "tests/bench/median.h"

#define ROUNDS 11
#define BODY_BYTES 1000000

static void
tell(const char *name, double value)
{
	printf("{\"bench\":\"policy\",\"name\":\"%s\",\"value\":%.1f}\n", name, value);
}

/* Median of the nanoseconds that one call takes. */
static double
median_ns(void (*call)(void *arg), void *arg, int calls)
{
	double ns[ROUNDS];

	for (int r = 0; r < ROUNDS; r++) {
		int64_t t = cpu_ns();

		for (int i = 0; i < calls; i++)
			call(arg);
		ns[r] = (double)(cpu_ns() - t) / calls;
	}
	return median(ns, ROUNDS);
}

/* ---- conditions ---- */

/* As in a company's config: the one that holds is the last. */
static const char *const queries[] = {
	"{\"metadata.team\":\"legal\"}", "{\"metadata.team\":{\"$in\":[\"sales\",\"marketing\"]}}", "{\"metadata.env\":{\"$eq\":\"staging\"}}",
	"{\"params.model\":\"claude-haiku-4-5\"}", "{\"params.model\":{\"$regex\":\"haiku\"}}", "{\"params.model\":{\"$regex\":\"^claude-(3|4)\"}}",
	"{\"params.max_tokens\":{\"$lt\":1024}}", "{\"params.stream\":false}", "{\"params.thinking.type\":\"disabled\"}",
	"{\"$and\":[{\"metadata.env\":\"prod\"},{\"params.model\":{\"$regex\":\"sonnet\"}}]}",
	"{\"$or\":[{\"metadata.team\":\"ops\"},{\"metadata.user\":\"bot\"}]}", "{\"metadata.user\":{\"$regex\":\"@example\\\\.org$\"}}",
	"{\"metadata.cost_center\":{\"$nin\":[\"4711\",\"4712\"]},\"metadata.team\":\"x\"}", "{\"url.pathname\":\"/v1/messages/count_tokens\"}",
	"{\"params.temperature\":{\"$gt\":0.5}}", "{\"params.tool_choice\":{\"$regex\":\"any\"}}",
	"{\"metadata.region\":{\"$eq\":\"eu\"},\"params.max_tokens\":{\"$gte\":64000}}", "{\"params.service_tier\":\"standard_only\"}",
	"{\"params.output_config.effort\":\"max\"}", "{\"metadata.team\":{\"$eq\":\"platform\"},\"params.model\":{\"$regex\":\"opus\"}}",
};
#define QUERIES (sizeof(queries) / sizeof(*queries))

struct routing {
	struct condition *conditions[QUERIES];
	struct condition_facts facts;
};

static void
choose(void *arg)
{
	const struct routing *r = arg;
	size_t i = 0;

	while (i < QUERIES && !condition_holds(r->conditions[i], &r->facts))
		i++;
	CHECK(i == QUERIES - 1);
}

static void
conditions(void)
{
	static struct body_scan body;
	struct routing r = { .facts = {
		.metadata = SLICE("{\"team\":\"platform\",\"env\":\"prod\",\"user\":\"alice@example.com\",\"cost_center\":\"4711\"}"),
		.params = &body, .pathname = SLICE("/v1/messages"),
	} };
	struct json_error why;
	struct problems p;

	CHECK(body_scan(SLICE("{\"model\":\"claude-opus-5-5\",\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],\"system\":[],\"tools\":[],"
	    "\"metadata\":{\"user_id\":\"u\"},\"max_tokens\":32000,\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"high\"},"
	    "\"stream\":true}"), &body, &why));
	problems_init(&p);
	for (size_t i = 0; i < QUERIES; i++) {
		r.conditions[i] = condition_compile(slice_of(queries[i]), "", &p);
		CHECK(r.conditions[i]);
	}
	tell("conditions_20_ns", median_ns(choose, &r, 20000));
	for (size_t i = 0; i < QUERIES; i++)
		condition_free(r.conditions[i]);
	problems_free(&p);
}

/* ---- patterns ---- */

struct matching {
	struct regex *pattern;
	struct slice subject;
};

static void
match_once(void *arg)
{
	const struct matching *m = arg;
	static volatile enum regex_verdict verdict;

	verdict = regex_match(m->pattern, m->subject);
	(void)verdict;
}

static void
patterns(void)
{
	static const char *const exploding[] = {
		"(?:a+)+[yz]", "(a*)*[yz]", "(?:a|a)*[yz]", "(?:a|aa)+[yz]", "(?:a|ab|b)*[yz]", ".*.*.*.*[yz]", "(.*)(.*)(.*)(.*)[yz]", "a*[yz]",
		"(a*)\\1\\1\\1[yz]", "(?=(a+))\\1*[yz]", "(?:(?=a*)|(?=a*a)|(?=a*aa))x?[yz]", "(?:a?){50}a{50}[yz]", "a{500,}[yz]",
		"(?:a{255}|a{254}|a{253}|a{252})[yz]", "((a*)*)*\\1[yz]", "(?:a*?)*?[yz]", "[^yz]*[yz]", "\\s*\\S*[yz]", "(?<!b)a*[yz]",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa[yz]",
		"(?:[ab]*x|[ab]*y|[ab]*z)", "(x)?(y)?(a*)(b*)\\3\\4[yz]", "(?:\\b|a)*[yz]", "\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b\\b[yz]",
	};
	static char subject[REGEX_SUBJECT_BYTES_MAX];
	double worst = 0;

	for (size_t i = 0; i < sizeof(exploding) / sizeof(*exploding); i++) {
		struct regex_error why;
		struct matching m = { .pattern = regex_compile(slice_of(exploding[i]), &why) };

		CHECK(m.pattern);
		for (size_t n = 64; n <= sizeof(subject); n *= 8)
			for (size_t kind = 0; kind < 2; kind++) {
				for (size_t k = 0; k < n; k++)
					subject[k] = kind && k % 2 ? 'b' : 'a';
				m.subject = (struct slice){ subject, n };
				double us = median_ns(match_once, &m, 3) / 1000;
				worst = us > worst ? us : worst;
			}
		regex_free(m.pattern);
	}
	tell("pattern_worst_us", worst);
}

/* ---- bodies ---- */

static struct scratch memory = { .max = 8 * BODY_BYTES };

struct editing {
	struct body_scan body;
	struct params params;
	uint64_t secret[2];
};

static void
apply_params(void *arg)
{
	const struct editing *e = arg;
	struct slice out;
	const char *why;

	CHECK(params_apply(&e->body, &e->params, &memory, &out, &why) && out.p != e->body.body.p);
	scratch_reset(&memory);
}

static void
find_state(void *arg)
{
	const struct editing *e = arg;

	CHECK(state_find(&e->body).kinds == STATE_THINKING);
}

static void
strip_state(void *arg)
{
	const struct editing *e = arg;
	const struct state s = { .kinds = STATE_THINKING };
	struct slice out;

	CHECK(state_strip(&e->body, &s, STATE_ALL, &memory, &out) && out.n < e->body.body.n);
	scratch_reset(&memory);
}

static void
find_session(void *arg)
{
	const struct editing *e = arg;

	CHECK(session_find(SLICE_NONE, &e->body, SLICE("key_1"), e->secret).source == SESSION_BEGINNING);
}

/* A long conversation of Claude Code. */
static void
conversation(struct buf *b)
{
	buf_add_str(b, "{\"model\":\"claude-opus-4-5\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"");
	for (int i = 0; i < 200; i++)
		buf_add_str(b, "These are the rules of this project. Follow them.\\n");
	buf_add_str(b, "\"}]}");
	while (b->n < BODY_BYTES) {
		buf_add_str(b, ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"I will look at the file next.\","
		    "\"signature\":\"EqQBCkYIBxgCKkD0ZfLJ5s3mXn0o2p7t8Q1vY6k4Wc9uRb3aHdGeSjTiMxNyOz\"},{\"type\":\"tool_use\",\"id\":\"toolu_01\","
		    "\"name\":\"Read\",\"input\":{\"file_path\":\"/srv/project/src/main.c\",\"limit\":200}}]},{\"role\":\"user\",\"content\":"
		    "[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_01\",\"content\":\"");
		for (int i = 0; i < 7; i++)
			buf_add_str(b, "     1\\tint main(void)\\n     2\\t{ return 0; } ");
		buf_add_str(b, "\",\"cache_control\":{\"type\":\"ephemeral\"}}]}");
	}
	buf_add_str(b, "],\"max_tokens\":32000,\"stream\":true}");
}

static void
bodies(void)
{
	static struct editing e = { .secret = { 1, 2 } };
	char name[] = "max_tokens", raw[] = "4096";
	const struct config_param override = { name, raw };
	struct json_error why;
	struct params_path *drop;
	struct problems p;
	struct buf b;

	buf_init(&b, 2 * BODY_BYTES);
	conversation(&b);
	CHECK(body_scan(buf_slice(&b), &e.body, &why));
	problems_init(&p);
	drop = params_path_compile(SLICE("messages[*].content[*].cache_control"), "", &p);
	CHECK(drop);
	e.params = (struct params){ .overrides = &override, .overrides_count = 1 };
	tell("override_1mb_us", median_ns(apply_params, &e, 20) / 1000);
	e.params = (struct params){ .drops = &drop, .drops_count = 1 };
	tell("deep_drop_1mb_us", median_ns(apply_params, &e, 20) / 1000);
	tell("state_find_1mb_us", median_ns(find_state, &e, 20) / 1000);
	tell("state_strip_1mb_us", median_ns(strip_state, &e, 20) / 1000);
	tell("session_beginning_us", median_ns(find_session, &e, 200) / 1000);
	params_path_free(drop);
	problems_free(&p);
	buf_free(&b);
}

int
main(void)
{
	conditions();
	patterns();
	bodies();
	return 0;
}
