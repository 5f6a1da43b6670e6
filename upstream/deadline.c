/* upstream/deadline.c -- see deadline.h. */
#include "upstream/deadline.h"

void
deadlines_init(struct deadlines *all, uint64_t now_ms)
{
	for (unsigned i = 0; i < DEADLINE_SLOTS; i++)
		link_init(&all->slots[i]);
	all->swept = now_ms / DEADLINE_SLOT_MS;
}

/* Into the first slot that is swept when d is over, or the farthest there is. */
static void
put(struct deadlines *all, struct deadline *d, uint64_t swept)
{
	uint64_t tick = d->at_ms / DEADLINE_SLOT_MS + 1;

	if (tick <= swept)
		tick = swept + 1;
	if (tick > swept + DEADLINE_SLOTS - 1)
		tick = swept + DEADLINE_SLOTS - 1;
	d->tick = tick;
	link_add(&all->slots[tick % DEADLINE_SLOTS], &d->link);
}

void
deadline_set(struct deadlines *all, struct deadline *d, uint64_t at_ms)
{
	d->at_ms = at_ms;
	if (d->tick != 0 && d->tick <= at_ms / DEADLINE_SLOT_MS + 1)
		return;		/* it is looked at early enough where it is */
	link_remove(&d->link);
	put(all, d, all->swept);
}

void
deadlines_sweep(struct deadlines *all, uint64_t now_ms)
{
	uint64_t now = now_ms / DEADLINE_SLOT_MS;

	/* After a long sleep of the machine each slot is swept once. */
	if (now > all->swept + DEADLINE_SLOTS)
		all->swept = now - DEADLINE_SLOTS;
	while (all->swept < now) {
		struct link *slot = &all->slots[(all->swept + 1) % DEADLINE_SLOTS];

		while (slot->next != slot) {
			struct deadline *d = CONTAINER_OF(slot->next, struct deadline, link);

			deadline_clear(d);
			if (d->at_ms <= now_ms)
				d->passed(d, now_ms);
			else
				put(all, d, all->swept + 1);
		}
		all->swept++;
	}
}
