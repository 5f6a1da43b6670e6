/*
 * gateway/main.c -- the program: its first argument names a command.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/commands.h"

static int
cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("weir " WEIR_VERSION);
	return 0;
}

static int cmd_help(int argc, char **argv);

static const struct {
	const char *word;
	int (*run)(int argc, char **argv);
	const char *text;
} commands[] = {
	{ "serve", cmd_serve, "run the gateway" },
	{ "check", cmd_check, "check a settings file" },
	{ "key", cmd_key, "create, list, rotate and revoke API keys" },
	{ "logs", cmd_logs, "read the records of requests" },
	{ "explain", cmd_explain, "tell what one request was charged, and who refused it" },
	{ "limits", cmd_limits, "show every limit and its level; reset one" },
	{ "top", cmd_top, "watch a running weir" },
	{ "health", cmd_health, "ask a running weir whether it is ready" },
	{ "version", cmd_version, "print the version" },
	{ "help", cmd_help, "print this" },
};

static int
cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("usage: weir COMMAND [--help] ...\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		printf("  weir %-8s %s\n", commands[i].word, commands[i].text);
	return 0;
}

int
main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "help";

	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		word = "help";
	if (strcmp(word, "--version") == 0)
		word = "version";
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(word, commands[i].word) == 0)
			return commands[i].run(argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv);
	fprintf(stderr, "weir: there is no command \"%s\"; see: weir help\n", word);
	return 2;
}
