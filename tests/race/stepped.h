/*
 * tests/race/stepped.h -- a child that is stepped through a call, an instruction at a
 * time (ptrace), and killed behind the n-th.
 *
 * The child stands still before the call (stepped_begin()) and its parent steps it
 * from there until it says that the call is over (stepped_end()).
 */
#ifndef WEIR_TESTS_RACE_STEPPED_H
#define WEIR_TESTS_RACE_STEPPED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STEPPED_SKIPPED 77	/* what meson takes for "skipped" */

typedef void stepped_fn(uint64_t arg);

void stepped_begin(void);
void stepped_end(void);
	/* In the child, around the call. */
pid_t stepped_start(stepped_fn *act, uint64_t arg);
	/* A child that does `act` and stands before its call; 0: it made none, and is
	 * over. Ends the program as skipped where ptrace is not permitted. */
bool stepped_once(pid_t pid);
	/* One instruction. false: the call is over. */
bool stepped_kill(pid_t pid, uint64_t instructions);
	/* So many, and SIGKILL. false: the call had returned before. */
void stepped_end_by_force(pid_t pid);

#endif
