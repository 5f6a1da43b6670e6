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

#define SCRATCH_ALIGN 16

struct scratch {
	struct scratch_block *head;
	char *at;		/* the next piece of the head block ... */
	size_t left;		/* ... and whole pieces' bytes there, under the ceiling too */
	size_t used;		/* bytes handed out, for the ceiling */
	size_t max;
};

static inline void
scratch_init(struct scratch *s, size_t max)
{
	*s = (struct scratch){ .max = max };
}

void *scratch_alloc_block(struct scratch *s, size_t n) MUST_CHECK;
	/* scratch_alloc(), when the head block has no room. */
MUST_CHECK static inline void *
scratch_alloc(struct scratch *s, size_t n)
{
	/* 16-byte aligned, not zeroed. NULL over the ceiling or without memory. */
	char *p = s->at;

	if (n - 1 >= s->left)	/* none at all goes the long way too */
		return scratch_alloc_block(s, n);
	n = (n + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
	s->at += n;
	s->left -= n;
	s->used += n;
	return p;
}

char *scratch_dup(struct scratch *s, struct slice from) MUST_CHECK;
	/* A copy with a NUL behind it. */
void scratch_release(struct scratch *s);
	/* scratch_reset(), when there is some. */
static inline void
scratch_reset(struct scratch *s)
{
	/* All memory goes back; small blocks to the process's pool, large ones
	 * (a body of megabytes) to the system. */
	if (s->head)
		scratch_release(s);
}

#endif
