/*
 * tests/race/children.h -- processes that are there to be killed, at moments that are drawn.
 */
#ifndef WEIR_TESTS_RACE_CHILDREN_H
#define WEIR_TESTS_RACE_CHILDREN_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/clock.h"

/* A child does not outlive a parent that finds a fault. */
static inline pid_t
fork_or_exit(void)
{
	pid_t pid = fork();

	if (pid == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		_exit(1);
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

/* Until a moment that was drawn: it is not waited for anything. */
static inline void
linger_until(int64_t mono_ns)
{
	const struct timespec ts = { .tv_sec = mono_ns / NS_PER_S, .tv_nsec = mono_ns % NS_PER_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
		;
}

#endif
