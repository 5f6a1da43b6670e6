/*
 * tests/unit/tool_fixture.h -- commands as a shell runs them: arguments in,
 * output and exit status out.
 *
 * Each runs in a child with its output in files. The store is in `data`, which
 * every command is told.
 */
#ifndef WEIR_TESTS_UNIT_TOOL_FIXTURE_H
#define WEIR_TESTS_UNIT_TOOL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], data[96], out_path[96], err_path[96];

/* What the last command said. */
static char out[65536], err[8192];

static inline int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static inline int
setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/weir-tools-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(data, sizeof(data), "%s/data", folder);
	snprintf(out_path, sizeof(out_path), "%s/out", folder);
	snprintf(err_path, sizeof(err_path), "%s/err", folder);
	return 0;
}

static inline int
teardown(void **state)
{
	(void)state;
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void
read_file(const char *path, char *into, size_t size)
{
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(into, 1, size - 1, f);
	into[n] = '\0';
	fclose(f);
}

/* not_yours: a descriptor that the child must not hold open; -1. */
static inline pid_t
start(int (*command)(int, char **), int stdout_fd, int not_yours, const char *const *words)
{
	char *argv[64];
	int argc = 0, fd;
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);	/* a follower of a test that failed would stay for ever */
	for (; *words; words++)
		argv[argc++] = strdup(*words);
	argv[argc++] = "--data-dir";
	argv[argc++] = data;
	argv[argc] = NULL;
	if (not_yours >= 0)
		close(not_yours);
	if (stdout_fd < 0)
		stdout_fd = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	fd = open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (dup2(stdout_fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(99);
	fd = command(argc, argv);
	fflush(stdout);
	_exit(fd);
}

static inline int
end(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static inline int
run(int (*command)(int, char **), const char *const *words)
{
	int status = end(start(command, -1, -1, words));

	read_file(out_path, out, sizeof(out));
	read_file(err_path, err, sizeof(err));
	/* A mistake is one line, and only a mistake says anything there. */
	assert_int_equal(status != 0, err[0] != '\0');
	if (err[0])
		assert_ptr_equal(strchr(err, '\n'), err + strlen(err) - 1);
	return status;
}

/* How many lines a text has. */
static inline int
lines(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

#endif
