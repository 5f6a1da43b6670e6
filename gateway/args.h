/*
 * gateway/args.h -- arguments of the commands.
 *
 * A command describes its options in a table; everything else is one line on
 * stderr that names the argument and what was expected, and exit status 2.
 */
#ifndef WEIR_GATEWAY_ARGS_H
#define WEIR_GATEWAY_ARGS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"

#define ARGS_MANY_MAX 64	/* how often one option may be given */
#define ARGS_GO (-1)		/* not an exit status: go on */
#define ARGS_MISTAKE 2

enum arg_kind {
	ARG_FLAG,	/* --json: bool */
	ARG_TEXT,	/* --slug S, --slug=S: const char *; at most once */
	ARG_MANY,	/* --where W ...: struct arg_many */
};

struct arg_many {
	const char *text[ARGS_MANY_MAX];
	uint32_t count;
};

struct arg {
	const char *name;	/* without the dashes */
	enum arg_kind kind;
	void *into;		/* as `kind` says; the caller has emptied it */
};

struct args {
	const char *command;	/* "key create" */
	const char *usage;	/* for --help */
	const struct arg *list;
	size_t count;
	const char **operand;	/* NULL: the command takes none */
};

int args_parse(const struct args *a, int argc, char **argv) MUST_CHECK;
	/* argv[0] is the command's last word. ARGS_GO, or an exit status: 0
	 * after --help, ARGS_MISTAKE after a line on stderr. */
int args_mistake(const char *command, const char *fmt, ...) PRINTF_LIKE(2, 3);
	/* "weir: <command>: ..." on stderr; returns ARGS_MISTAKE. */

bool args_count(const char *text, int64_t least, int64_t most, int64_t *out) MUST_CHECK;
bool args_usd(const char *text, int64_t *nusd) MUST_CHECK;
	/* Decimal dollars, up to nine decimals, exactly: "0.25", "$1000". */
bool args_duration(const char *text, int64_t *ns) MUST_CHECK;
	/* A whole number and s, m, h, d or w; "0". */
bool args_seconds(const char *text, int64_t least_ns, int64_t most_ns, int64_t *ns) MUST_CHECK;
	/* "2", "0.25" */

struct args_store {
	const char *config, *data_dir, *run_dir;	/* --config, ...; NULL: not given */
	char folder[PATH_MAX];		/* what they come to: of the store */
	char run_folder[PATH_MAX];	/* of the arena; args_run_find() alone fills it in */
};

struct settings;
int args_store_find(const char *command, struct args_store *s, struct settings **settings) MUST_CHECK;
	/*
	 * The data folder: --data-dir, else the settings', else the default.
	 * *settings: those of --config, counted; NULL if none was given. Root
	 * becomes the folder's owner for the rest of the process, so that no
	 * file in it is root's. ARGS_GO or an exit status.
	 */
int args_run_find(const char *command, struct args_store *s, struct settings **settings) MUST_CHECK;
	/* Both folders, as `weir serve` would find them by the same words. Root
	 * becomes the owner of run_folder. Otherwise as args_store_find(). */

#endif
