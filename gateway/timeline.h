/*
 * gateway/timeline.h -- deadlines without timers.
 *
 * A timeline is a list of things that share one time-out, ordered by when they
 * were last touched. Touching moves a thing to the end: two pointer writes, no
 * heap, no system call. The worker's tick looks at the front only.
 */
#ifndef WEIR_GATEWAY_TIMELINE_H
#define WEIR_GATEWAY_TIMELINE_H

#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"

struct timepoint {
	struct timepoint *prev, *next;	/* NULL: on no timeline */
	uint64_t at_ms;
};

struct timeline {
	struct timepoint ends;		/* ends.next is the oldest */
	uint64_t timeout_ms;
};

static inline void
timeline_init(struct timeline *t, uint64_t timeout_ms)
{
	t->ends.prev = t->ends.next = &t->ends;
	t->timeout_ms = timeout_ms;
}

static inline void
timepoint_remove(struct timepoint *p)
{
	if (!p->next)
		return;
	p->prev->next = p->next;
	p->next->prev = p->prev;
	p->prev = p->next = NULL;
}

static inline void
timepoint_touch(struct timeline *t, struct timepoint *p, uint64_t now_ms)
{
	timepoint_remove(p);
	p->at_ms = now_ms;
	p->prev = t->ends.prev;
	p->next = &t->ends;
	t->ends.prev->next = p;
	t->ends.prev = p;
}

/* The oldest whose time is over, or NULL. It stays on the list. */
static inline struct timepoint *
timeline_due(struct timeline *t, uint64_t now_ms)
{
	struct timepoint *p = t->ends.next;

	return p != &t->ends && now_ms - p->at_ms >= t->timeout_ms ? p : NULL;
}

#endif
