/*
 * tests/race/stepped.c -- see stepped.h.
 */
#include "tests/race/stepped.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void
give_up(const char *what, int status)
{
	fprintf(stderr, "stepped: %s: status %#x, %s\n", what, (unsigned)status, strerror(errno));
	abort();
}

static int
wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		give_up("waitpid", 0);
	return status;
}

void
stepped_begin(void)
{
	raise(SIGSTOP);
}

void
stepped_end(void)
{
	raise(SIGUSR1);
}

pid_t
stepped_start(stepped_fn *act, uint64_t arg)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(STEPPED_SKIPPED);
		act(arg);
		_exit(0);
	}
	if (pid < 0)
		give_up("fork", 0);
	int status = wait_for(pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == STEPPED_SKIPPED) {
		printf("ptrace is not permitted here\n");
		exit(STEPPED_SKIPPED);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		give_up("how a child stopped", status);
	return pid;
}

bool
stepped_once(pid_t pid)
{
	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0)
		give_up("ptrace", 0);
	int status = wait_for(pid);
	if (!WIFSTOPPED(status) || (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGUSR1))
		give_up("how a child stopped", status);
	return WSTOPSIG(status) != SIGUSR1;
}

void
stepped_end_by_force(pid_t pid)
{
	kill(pid, SIGKILL);
	wait_for(pid);
}

bool
stepped_kill(pid_t pid, uint64_t instructions)
{
	bool inside = true;

	for (uint64_t i = 0; i < instructions && inside; i++)
		inside = stepped_once(pid);
	stepped_end_by_force(pid);
	return inside;
}
