/*
 * gateway/commands.h -- the words of the command line, one function each.
 *
 * weir serve [--config FILE] ...	gateway/cmd_serve.c
 * weir check FILE			gateway/cmd_check.c
 * weir key create|list|rotate|revoke	gateway/cmd_key.c
 * weir logs [--follow] ...		gateway/cmd_logs.c
 * weir explain REQUEST-ID		gateway/cmd_explain.c
 * weir limits [--key KEY] ...		gateway/cmd_limits.c
 * weir limits reset METER		gateway/limits_reset.c
 * weir top [--once] ...		gateway/cmd_top.c
 * weir health [--ready]		gateway/cmd_health.c
 *
 * Each gets argv from its own word on and returns the exit status: 0, 1 for a
 * failure of the work, 2 for a mistake in arguments or configuration (with one
 * line on stderr that names the place and the cure).
 */
#ifndef WEIR_GATEWAY_COMMANDS_H
#define WEIR_GATEWAY_COMMANDS_H

int cmd_serve(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_limits(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_health(int argc, char **argv);

#endif
