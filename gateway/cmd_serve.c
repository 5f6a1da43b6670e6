/*
 * gateway/cmd_serve.c -- weir serve: arguments, then the master.
 */
#include <getopt.h>
#include <stdio.h>

#include "gateway/commands.h"
#include "gateway/master.h"
#include "shm/base/slice.h"
#include "shm/limits.h"

static const char usage[] =
    "usage: weir serve [--config FILE] [--data-dir DIR] [--run-dir DIR] [--listen ADDRESS]\n"
    "                  [--admin-listen ADDRESS] [--workers N] [--user NAME]\n";

int
cmd_serve(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "data-dir", required_argument, NULL, 'd' },
		{ "run-dir", required_argument, NULL, 'r' }, { "listen", required_argument, NULL, 'l' },
		{ "admin-listen", required_argument, NULL, 'a' }, { "workers", required_argument, NULL, 'w' },
		{ "user", required_argument, NULL, 'u' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	struct serve_options o = { .config = NULL };
	int64_t workers;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c': o.config = optarg; break;
		case 'd': o.over.data_dir = optarg; break;
		case 'r': o.over.run_dir = optarg; break;
		case 'l': o.over.listen = optarg; break;
		case 'a': o.over.admin_listen = optarg; break;
		case 'u': o.over.user = optarg; break;
		case 'w':
			if (!slice_to_i64(slice_of(optarg), &workers) || workers < 1 || workers > WORKERS_MAX) {
				fprintf(stderr, "weir: --workers: a number from 1 to %d is expected, not \"%s\"\n", WORKERS_MAX, optarg);
				return 2;
			}
			o.over.workers = (uint32_t)workers;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "weir: serve: unexpected argument \"%s\"\n%s", argv[optind], usage);
		return 2;
	}
	return master_run(&o);
}
