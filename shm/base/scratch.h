/*
 * shm/base/scratch.h -- the memory of one request.
 *
 * A bump allocator over blocks that are recycled by a per-process pool. What
 * lives as long as a request is allocated here, nothing is freed singly, and
 * scratch_reset() gives all of it back at once. Overflow of the ceiling
 * returns NULL; callers answer 413 or 431, they do not crash.
 */
#ifndef WEIR_SHM_BASE_SCRATCH_H
#define WEIR_SHM_BASE_SCRATCH_H

#include <stddef.h>
#include "shm/base/check.h"
#include "shm/base/slice.h"

struct scratch_block;

struct scratch {
	struct scratch_block *head;
	size_t used;		/* bytes handed out, for the ceiling */
	size_t max;
};

void scratch_init(struct scratch *s, size_t max);
void *scratch_alloc(struct scratch *s, size_t n) MUST_CHECK;
	/* 16-byte aligned, not zeroed. NULL over the ceiling or without memory. */
char *scratch_dup(struct scratch *s, struct slice from) MUST_CHECK;
	/* A copy with a NUL behind it. */
void scratch_reset(struct scratch *s);
	/* All memory goes back; small blocks to the process's pool, large ones
	 * (a body of megabytes) to the system. */

#endif
