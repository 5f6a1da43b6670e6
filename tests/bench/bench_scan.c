/*
 * tests/bench/bench_scan.c -- how fast a request body is scanned, and how fast
 * its canonical digest is made.
 *
 * Bodies of about 1 MB in the shapes that occur: a long conversation of short
 * text blocks, one large string, code with many escapes, an image in base64,
 * many tools, and the same tools pretty-printed. The body is in the cache, as
 * it is when it has just been received. Two JSON lines a shape: the medians of
 * rounds of processor time, so that a busy machine does not decide.
 */
#include <stdio.h>
#include <stdlib.h>

#include "policy/body.h"
#include "policy/canon.h"
#include "shm/base/buf.h"
#include "tests/bench/median.h"

#define BODY_BYTES 1000000
#define ROUNDS 15
#define SCANS_PER_ROUND 40

static void
begin(struct buf *b)
{
	buf_clear(b);
	buf_add_str(b, "{\"model\":\"claude-sonnet-5-5\",\"max_tokens\":32000,\"stream\":true,");
}

static void
add_filler(struct buf *b, size_t n, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < n; i += len)
		buf_add(b, text, len);
}

static void
small_blocks(struct buf *b)
{
	begin(b);
	buf_add_str(b, "\"messages\":[{\"role\":\"user\",\"content\":\"go\"}");
	while (b->n < BODY_BYTES) {
		buf_add_str(b, ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"");
		add_filler(b, 120, "I will look at the file next. ");
		buf_add_str(b, "\"},{\"type\":\"tool_use\",\"id\":\"toolu_01A09q90qw90lq917835lq9\",\"name\":\"Read\","
		    "\"input\":{\"file_path\":\"/srv/project/src/main.c\",\"limit\":200}}]},"
		    "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
		    "\"tool_use_id\":\"toolu_01A09q90qw90lq917835lq9\",\"content\":\"");
		add_filler(b, 300, "     1\\tint main(void)\\n     2\\t{ return 0; } ");
		buf_add_str(b, "\",\"cache_control\":{\"type\":\"ephemeral\"}}]}");
	}
	buf_add_str(b, "]}");
}

static void
large_string(struct buf *b)
{
	begin(b);
	buf_add_str(b, "\"messages\":[{\"role\":\"user\",\"content\":\"");
	add_filler(b, BODY_BYTES, "The quick brown fox jumps over the lazy dog, again and again. ");
	buf_add_str(b, "\"}]}");
}

static void
escaped_code(struct buf *b)
{
	begin(b);
	buf_add_str(b, "\"messages\":[{\"role\":\"user\",\"content\":\"");
	add_filler(b, BODY_BYTES, "\\tif (name == \\\"a\\\")\\n\\t\\treturn fail(\\\"not that\\\");\\n");
	buf_add_str(b, "\"}]}");
}

static void
base64_image(struct buf *b)
{
	begin(b);
	buf_add_str(b, "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\","
	    "\"media_type\":\"image/png\",\"data\":\"");
	add_filler(b, BODY_BYTES, "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AA");
	buf_add_str(b, "\"}},{\"type\":\"text\",\"text\":\"What is this?\"}]}]}");
}

static void
tools_with(struct buf *b, const char *nl)
{
	begin(b);
	buf_add_str(b, "\"messages\":[{\"role\":\"user\",\"content\":\"go\"}],\"tools\":[");
	for (int i = 0; b->n < BODY_BYTES; i++) {
		buf_printf(b, "%s{%s\"name\":%s\"tool_%d\",%s\"description\":\"", i ? "," : "", nl, *nl ? " " : "", i, nl);
		add_filler(b, 400, "Reads a file from the local file system. ");
		buf_printf(b, "\",%s\"input_schema\":{%s\"type\":\"object\",%s\"properties\":{", nl, nl, nl);
		for (int k = 0; k < 6; k++)
			buf_printf(b, "%s%s\"param_%d\":{%s\"type\":\"string\",%s\"description\":\"The absolute path"
			    " to the file that is to be read, %d\"}", k ? "," : "", nl, k, nl, nl, k);
		buf_printf(b, "},%s\"required\":[\"param_1\",\"param_2\"],%s\"additionalProperties\":false}}", nl, nl);
	}
	buf_add_str(b, "]}");
}

static void
many_tools(struct buf *b)
{
	tools_with(b, "");
}

static void
indented_tools(struct buf *b)
{
	tools_with(b, "\n            ");
}

static bool
scan(struct slice body, struct json_error *why)
{
	struct body_scan s;

	return body_scan(body, &s, why);
}

static bool
canon(struct slice body, struct json_error *why)
{
	const uint64_t secret[2] = { 1, 2 };
	struct canon_key k;
	uint64_t key[2];
	bool valid;

	canon_begin(&k, secret);
	canon_add(&k, SLICE("POST"));
	canon_add(&k, SLICE("/v1/messages"));
	valid = canon_add_json(&k, body, why);
	canon_end(&k, key);
	return valid;
}

/* Median of GB/s. */
static double
measure(const struct buf *b, bool (*work)(struct slice body, struct json_error *why))
{
	double gb_per_s[ROUNDS];
	struct json_error why;

	for (int r = 0; r < ROUNDS; r++) {
		int64_t t = cpu_ns();

		for (int i = 0; i < SCANS_PER_ROUND; i++)
			if (!work(buf_slice(b), &why)) {
				fprintf(stderr, "bench_scan: %s at byte %zu\n", why.what, why.offset);
				exit(1);
			}
		gb_per_s[r] = (double)b->n * SCANS_PER_ROUND / (double)(cpu_ns() - t);
	}
	return median(gb_per_s, ROUNDS);
}

int
main(void)
{
	static const struct {
		const char *name;
		void (*fill)(struct buf *);
	} shapes[] = {
		{ "small_blocks", small_blocks }, { "large_string", large_string },
		{ "escaped_code", escaped_code }, { "base64_image", base64_image },
		{ "many_tools", many_tools }, { "indented_tools", indented_tools },
	};
	static const struct {
		const char *name;
		bool (*work)(struct slice body, struct json_error *why);
	} benches[] = { { "scan", scan }, { "canon", canon } };
	struct buf b;

	buf_init(&b, 2 * BODY_BYTES);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		shapes[i].fill(&b);
		for (size_t k = 0; k < sizeof(benches) / sizeof(benches[0]); k++)
			printf("{\"bench\":\"%s\",\"shape\":\"%s\",\"bytes\":%zu,\"gb_per_s\":%.2f}\n", benches[k].name,
			    shapes[i].name, b.n, measure(&b, benches[k].work));
	}
	buf_free(&b);
	return 0;
}
