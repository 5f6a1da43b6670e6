/*
 * upstream/deadline.h -- many deadlines, no timers.
 *
 * A wheel of slots, swept by upstream_tick(). Setting a deadline later than it
 * was, which is what every read of a stream does, is one store: the thing is
 * found in its old slot, seen to have time left, and moved on. A deadline
 * passes at most one slot late.
 */
#ifndef WEIR_UPSTREAM_DEADLINE_H
#define WEIR_UPSTREAM_DEADLINE_H

#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"

#define DEADLINE_SLOTS 256
#define DEADLINE_SLOT_MS 64	/* the wheel spans 16 s; what lies beyond goes round */

struct link {			/* of a doubly linked ring */
	struct link *prev, *next;
};

static inline void
link_init(struct link *l)
{
	l->prev = l->next = l;
}

static inline void
link_remove(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static inline void
link_add(struct link *head, struct link *l)	/* at the front */
{
	l->next = head->next;
	l->prev = head;
	head->next->prev = l;
	head->next = l;
}

struct deadline {
	struct link link;
	uint64_t at_ms;
	uint64_t tick;		/* when its slot is swept; 0: it is in none */
	void (*passed)(struct deadline *d, uint64_t now_ms);
};

struct deadlines {
	struct link slots[DEADLINE_SLOTS];
	uint64_t swept;		/* the last tick that is done with */
};

void deadlines_init(struct deadlines *all, uint64_t now_ms);
void deadlines_sweep(struct deadlines *all, uint64_t now_ms);
	/* Calls `passed` for each that is over; it is cleared before. */

static inline void
deadline_init(struct deadline *d, void (*passed)(struct deadline *d, uint64_t now_ms))
{
	link_init(&d->link);
	d->at_ms = d->tick = 0;
	d->passed = passed;
}

void deadline_set(struct deadlines *all, struct deadline *d, uint64_t at_ms);

static inline void
deadline_clear(struct deadline *d)
{
	link_remove(&d->link);
	d->tick = 0;
}

#endif
