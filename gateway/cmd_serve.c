/*
 * gateway/cmd_serve.c -- weir serve: arguments, then the master.
 */
#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/master.h"
#include "shm/limits.h"

static const char usage[] =
    "usage: weir serve [--config FILE] [--data-dir DIR] [--run-dir DIR] [--listen ADDRESS]\n"
    "                  [--admin-listen ADDRESS] [--workers N] [--user NAME]\n";

int
cmd_serve(int argc, char **argv)
{
	struct serve_options o = { .config = NULL };
	const char *workers = NULL;
	const struct arg list[] = {
		{ "config", ARG_TEXT, &o.config }, { "data-dir", ARG_TEXT, &o.over.data_dir },
		{ "run-dir", ARG_TEXT, &o.over.run_dir }, { "listen", ARG_TEXT, &o.over.listen },
		{ "admin-listen", ARG_TEXT, &o.over.admin_listen }, { "workers", ARG_TEXT, &workers },
		{ "user", ARG_TEXT, &o.over.user },
	};
	const struct args args = { .command = "serve", .usage = usage, .list = list, .count = sizeof(list) / sizeof(*list) };
	int64_t n;
	int status = args_parse(&args, argc, argv);

	if (status != ARGS_GO)
		return status;
	if (workers) {
		if (!args_count(workers, 1, WORKERS_MAX, &n))
			return args_mistake("serve", "--workers: a number from 1 to %d is expected, not \"%s\"", WORKERS_MAX, workers);
		o.over.workers = (uint32_t)n;
	}
	return master_run(&o);
}
