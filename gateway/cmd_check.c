/*
 * gateway/cmd_check.c -- `weir check FILE`: every mistake of a settings file,
 * one line each, before a running weir gets to see it.
 */
#include "gateway/commands.h"

#include <stdio.h>
#include <string.h>

#include "gateway/settings.h"

static int
usage(const char *mistake)
{
	fprintf(stderr, "weir check: %s; usage: weir check FILE\n", mistake);
	return 2;
}

static void
print_problems(const char *file, const struct problems *p)
{
	const char *at = p->text.p, *end = p->text.p ? p->text.p + p->text.n : NULL;
	uint32_t shown = 0;

	while (at < end) {
		const char *eol = memchr(at, '\n', (size_t)(end - at));

		fprintf(stderr, "%s: %.*s\n", file, (int)(eol - at), at);
		at = eol + 1;
		shown++;
	}
	if (shown < p->count)
		fprintf(stderr, "%s: and %u more\n", file, p->count - shown);
}

int
cmd_check(int argc, char **argv)
{
	struct buf bundle;
	struct problems problems;

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		printf("usage: weir check FILE\n\nReads a settings file as `weir serve --config FILE` would and "
		    "prints every mistake.\nExit status: 0 no mistake, 2 mistakes.\n");
		return 0;
	}
	if (argc < 2)
		return usage("needs a settings file");
	if (argc > 2)
		return usage("takes one settings file");
	if (argv[1][0] == '-')
		return usage("unknown option");

	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	problems_init(&problems);
	bool ok = settings_load(argv[1], &bundle, &problems);
	if (ok)
		printf("%s: ok\n", argv[1]);
	else
		print_problems(argv[1], &problems);
	if (bundle.p)
		explicit_bzero(bundle.p, bundle.cap);
	buf_free(&bundle);
	problems_free(&problems);
	return ok ? 0 : 2;
}
