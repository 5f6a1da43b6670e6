/*
 * shm/queue.c -- see queue.h.
 *
 * All words are relaxed: they order nothing. A place that two workers write at
 * the same time may mix what they said; that is corrected at the next look.
 */
#include "shm/queue.h"

#include "shm/layout.h"

static struct shm_place *
place_of(const struct arena *a, struct meter_id id)
{
	return &layout_queue(a)->place[id.lo & (QUEUE_PLACES - 1)];
}

static bool
is_fresh(const _Atomic uint64_t *seen, int64_t now_mono_ns)
{
	return now_mono_ns - (int64_t)peek(seen) < QUEUE_FRESH_NS;
}

static bool
is_about(const struct shm_place *p, struct meter_id id)
{
	return peek(&p->id_hi) == id.hi && peek(&p->id_lo) == id.lo;
}

void
queue_ask(struct arena *a, const struct waiting *w, int64_t now_mono_ns)
{
	struct shm_place *p = place_of(a, w->id);

	poke(&layout_queue(a)->seen_mono_ns, (uint64_t)now_mono_ns);
	if (is_fresh(&p->seen_mono_ns, now_mono_ns) &&
	    (!is_about(p, w->id) || (int64_t)peek(&p->since_mono_ns) < w->since_mono_ns))
		return;
	poke(&p->id_hi, w->id.hi);
	poke(&p->id_lo, w->id.lo);
	poke(&p->since_mono_ns, (uint64_t)w->since_mono_ns);
	poke(&p->need, (uint64_t)w->need);
	poke(&p->seen_mono_ns, (uint64_t)now_mono_ns);
}

void
queue_leave(struct arena *a, const struct waiting *w)
{
	struct shm_place *p = place_of(a, w->id);

	if (is_about(p, w->id) && (int64_t)peek(&p->since_mono_ns) == w->since_mono_ns)
		poke(&p->seen_mono_ns, 0);
}

bool
queue_anybody(const struct arena *a, int64_t now_mono_ns)
{
	return is_fresh(&layout_queue(a)->seen_mono_ns, now_mono_ns);
}

int64_t
queue_older(const struct arena *a, struct meter_id id, int64_t since_mono_ns, int64_t now_mono_ns)
{
	const struct shm_place *p = place_of(a, id);

	if (!is_fresh(&p->seen_mono_ns, now_mono_ns) || !is_about(p, id) || (int64_t)peek(&p->since_mono_ns) >= since_mono_ns)
		return -1;
	return (int64_t)peek(&p->need);
}
