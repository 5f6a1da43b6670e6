/*
 * shm/queue.h -- who waits longest for room in a meter, over all workers.
 *
 * Workers wait each for itself and look again every few milliseconds. Without
 * more, the worker in which room appears would always be the first to take it,
 * and those who wait in another one would never see it. So who was refused says
 * here what it waits for, since when and how much it needs; and whoever is
 * younger lets it go first, as long as the room is enough for it.
 *
 * A hint and no more: the ledger alone decides, and nothing is wrong if a hint is
 * lost. Two meters may share a place; then the second is not heard while the
 * first waits. What was said is forgotten after QUEUE_FRESH_NS, so nobody waits
 * for the dead.
 */
#ifndef WEIR_SHM_QUEUE_H
#define WEIR_SHM_QUEUE_H

#include "shm/ledger.h"

#define QUEUE_PLACES 64			/* meters that are waited for at a time are few; a power of two */
#define QUEUE_FRESH_NS INT64_C(15000000)	/* three looks of those who wait */

struct waiting {
	struct meter_id id;
	int64_t since_mono_ns;
	int64_t need;		/* in the meter's unit */
};

void queue_ask(struct arena *a, const struct waiting *w, int64_t now_mono_ns);
	/* Says so, unless somebody who waits longer has said so. Again at each look. */
void queue_leave(struct arena *a, const struct waiting *w);
bool queue_anybody(const struct arena *a, int64_t now_mono_ns);
	/* Somebody waits for something: a look at one word. */
int64_t queue_older(const struct arena *a, struct meter_id id, int64_t since_mono_ns, int64_t now_mono_ns);
	/* What somebody needs who waits for this meter since before then; -1: nobody does. */

#endif
