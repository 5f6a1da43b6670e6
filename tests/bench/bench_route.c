/*
 * tests/bench/bench_route.c -- what it costs to find a request's target.
 *
 * The config has three levels: twenty conditions of the kinds that people
 * write, of which the last one holds; a loadbalance by the conversation; a
 * fallback. One JSON line a figure, {"name", "value"} in nanoseconds: the
 * median of rounds of processor time, so that a busy machine does not decide.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy/route.h"
#include "tests/bench/median.h"

#define ROUNDS 15
#define WALKS_PER_ROUND 20000
#define PARSES_PER_ROUND 100
#define CONDITIONS 20

static void
write_config(struct buf *json)
{
	static const char *const queries[] = {
		"{\"metadata.team\":\"team-%d\"}",
		"{\"metadata.team\":{\"$in\":[\"a\",\"b\",\"c\",\"team-%d\"]},\"metadata.env\":\"prod\"}",
		"{\"params.model\":{\"$regex\":\"^claude-opus-%d\"}}",
		"{\"$and\":[{\"metadata.user\":{\"$eq\":\"user-%d\"}},{\"params.max_tokens\":{\"$gt\":1000}}]}",
		"{\"$or\":[{\"params.stream\":false},{\"metadata.cost_center\":\"cc-%d\"}]}",
	};

	buf_add_str(json, "{\"strategy\":{\"mode\":\"conditional\",\"conditions\":[");
	for (int i = 0; i < CONDITIONS - 1; i++) {
		buf_add_str(json, "{\"query\":");
		const char *query = queries[i % 5], *number = strstr(query, "%d");
		buf_printf(json, "%.*s%d%s", (int)(number - query), query, i, number + 2);
		buf_add_str(json, ",\"then\":\"other\"},");
	}
	buf_add_str(json, "{\"query\":{\"metadata.team\":\"eng\"},\"then\":\"pool\"}],\"default\":\"other\"},"
	    "\"targets\":[{\"name\":\"other\",\"provider\":\"@z\"},{\"name\":\"pool\",\"strategy\":{\"mode\":\"loadbalance\"},\"targets\":[");
	for (int i = 0; i < 3; i++)
		buf_printf(json, "%s{\"weight\":%d,\"strategy\":{\"mode\":\"fallback\"},\"targets\":[{\"provider\":\"@a%d\"},{\"provider\":\"@b%d\"},"
		    "{\"provider\":\"@c%d\"}]}", i ? "," : "", i + 1, i, i, i);
	buf_add_str(json, "]}]}");
}

static struct config *
make(struct slice json)
{
	const struct config_source from = { .slug = SLICE("bench"), .path = "" };
	struct problems p;

	problems_init(&p);
	struct config *c = config_parse_text(json, &from, &p);
	if (!c) {
		fprintf(stderr, "bench_route: %.*s", SLICE_FMT(buf_slice(&p.text)));
		exit(1);
	}
	problems_free(&p);
	return c;
}

static bool
usable(void *arg, const struct config_target *t)
{
	return !(*(const uint64_t *)arg >> t->number & 1);
}

/* One request: its first target, and `more` after it that fail. */
static uint32_t
walk(const struct config *c, const struct route_facts *f, int more)
{
	struct route_walk w;

	if (route_begin(&w, c, f) != ROUTE_TARGET)
		exit(1);
	for (int i = 0; i < more; i++)
		if (route_next(&w, f, 529) != ROUTE_TARGET)
			exit(1);
	return w.target->number;
}

static void
tell(const char *name, double values[ROUNDS])
{
	printf("{\"bench\":\"route\",\"name\":\"%s\",\"value\":%.0f}\n", name, median(values, ROUNDS));
}

static void
measure_walks(const char *name, const struct config *c, struct route_facts *f, int more)
{
	double ns[ROUNDS];
	uint64_t session[2] = { 1, 2 };
	volatile uint32_t sum = 0;	/* so that nothing is left out */

	f->session = session;
	for (int r = 0; r < ROUNDS; r++) {
		int64_t t = cpu_ns();

		for (int i = 0; i < WALKS_PER_ROUND; i++) {
			session[0] += 0x9e3779b97f4a7c15;
			sum += walk(c, f, more);
		}
		ns[r] = (double)(cpu_ns() - t) / WALKS_PER_ROUND;
	}
	tell(name, ns);
}

static void
measure_parse(struct slice json)
{
	double ns[ROUNDS];

	for (int r = 0; r < ROUNDS; r++) {
		int64_t t = cpu_ns();

		for (int i = 0; i < PARSES_PER_ROUND; i++)
			config_put(make(json));
		ns[r] = (double)(cpu_ns() - t) / PARSES_PER_ROUND;
	}
	tell("compile", ns);
}

int
main(void)
{
	const struct slice body = SLICE("{\"model\":\"claude-sonnet-5-5\",\"max_tokens\":32000,\"stream\":true,"
	    "\"messages\":[{\"role\":\"user\",\"content\":\"go\"}]}");
	uint64_t out = 0;
	struct body_scan scan;
	struct json_error why;
	struct buf json;

	if (!body_scan(body, &scan, &why))
		return 1;
	const struct condition_facts conditions = {
		.metadata = SLICE("{\"user\":\"alice\",\"team\":\"eng\",\"env\":\"prod\",\"cost_center\":\"cc-7\"}"), .params = &scan,
		.pathname = SLICE("/v1/messages"),
	};
	struct route_facts f = { .conditions = &conditions, .usable = usable, .arg = &out, .preferred = ROUTE_ANY };

	buf_init(&json, CONFIG_BYTES_MAX);
	write_config(&json);
	struct config *c = make(buf_slice(&json));
	measure_walks("none", config_none(), &f, 0);
	measure_walks("three_levels", c, &f, 0);
	measure_walks("three_levels_to_the_third", c, &f, 2);
	out = 0x1b6;	/* of each fallback two are out */
	measure_walks("three_levels_most_out", c, &f, 0);
	measure_parse(buf_slice(&json));
	config_put(c);
	buf_free(&json);
	return 0;
}
