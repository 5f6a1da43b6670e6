/*
 * tests/fuzz/fuzz_params.c -- any bytes as paths of drop_params, and as a body.
 *
 * The first line has paths, separated by spaces; the rest is the body. What comes
 * out must be a body with the overrides in it, and a second time must change
 * nothing, if no path counts elements. Each byte of it is the client's, or of what
 * was put in.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/config.h"
#include "policy/params.h"
#include "shm/base/scratch.h"
#include "tests/fuzz/target.h"

#define PATHS_MAX 8
#define NAME_BYTES 32

static struct scratch memory = { .max = 1 << 20 };

struct paths {
	struct params_path *list[PATHS_MAX];
	uint32_t count;
	bool counting;			/* some path has a number in brackets */
};

static void
read_paths(struct slice line, struct paths *out)
{
	struct problems p;

	problems_init(&p);
	for (const char *at = line.p, *end = line.p + line.n; at < end && out->count < PATHS_MAX;) {
		const char *space = memchr(at, ' ', (size_t)(end - at));
		struct slice text = { at, (size_t)((space ? space : end) - at) };
		uint32_t before = p.count;

		out->list[out->count] = params_path_compile(text, "p", &p);
		CHECK((out->list[out->count] == NULL) == (p.count == before + 1));
		out->count += out->list[out->count] != NULL;
		for (size_t i = 1; i < text.n; i++)
			out->counting |= text.p[i - 1] == '[' && text.p[i] != '*';
		at = space ? space + 1 : end;
	}
	problems_free(&p);
}

static void
check_kept(const struct body_scan *body, struct slice out)
{
	size_t at = 0;

	/* Without anything put in, it is a part of the body. */
	for (size_t i = 0; i < out.n; i++) {
		const char *found = memchr(body->body.p + at, out.p[i], body->body.n - at);

		CHECK(found);
		at = (size_t)(found - body->body.p) + 1;
	}
}

static void
check_edits(const struct body_scan *body, struct paths *paths, bool puts)
{
	char name[NAME_BYTES] = "a", raw[] = "{\"a\":[1,{\"b\":2}],\"b\":{}}", new_name[] = "new", new_raw[] = "[{\"a\":1},{\"b\":[1,2]}]";
	struct config_param override = { name, raw }, fresh = { new_name, new_raw };
	struct params params = {
		.overrides = &override, .overrides_count = puts, .defaults = &fresh, .defaults_count = puts,
		.drops = paths->list, .drops_count = paths->count,
	};
	struct body_scan edited;
	struct slice out, again;
	struct json_error why;
	const char *no;

	/* The body's own name, as far as a C string can have it. */
	if (body->members_count > 0)
		json_unescape(body->members[0].name, name, sizeof(name));
	if (!params_apply(body, &params, &memory, &out, &no)) {
		CHECK(puts && body->members_count >= SCAN_MEMBERS_MAX - 1);
		return;
	}
	CHECK(body_scan(out, &edited, &why));
	if (!puts)
		check_kept(body, out);
	params.overrides_count = 0;
	params.defaults_count = 0;
	CHECK(params_apply(&edited, &params, &memory, &again, &no));
	CHECK(paths->counting || again.p == out.p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size };
	const char *line = memchr(text.p, '\n', text.n);
	size_t n = line ? (size_t)(line - text.p) : 0;
	struct paths paths = { .count = 0 };
	struct body_scan body;
	struct json_error why;

	read_paths((struct slice){ text.p, n }, &paths);
	if (body_scan((struct slice){ text.p + n, text.n - n }, &body, &why)) {
		check_edits(&body, &paths, false);
		check_edits(&body, &paths, true);
	}
	for (uint32_t i = 0; i < paths.count; i++)
		params_path_free(paths.list[i]);
	scratch_reset(&memory);
	return 0;
}
