/*
 * gateway/process_list.h -- the processes of a weir, by name, as its arena has them.
 */
#ifndef WEIR_GATEWAY_PROCESS_LIST_H
#define WEIR_GATEWAY_PROCESS_LIST_H

#include "shm/arena.h"

struct process {
	char name[24];		/* "worker-0", "keeper", "admin", "master" */
	uint32_t row;		/* of the process table; a worker's is its number */
	struct proc_view view;
};

uint32_t process_list(const struct arena *a, struct process out[PROC_COUNT]);
	/* Those that run or ran, workers first; how many. */

#endif
