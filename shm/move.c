/*
 * shm/move.c -- a request goes on at another target.
 *
 * Its old page has the holds of the target that failed, its new charges are those
 * of the next one. By meters:
 *
 *	in both		released, and asked for anew, with what the request has
 *			used of it: one hold. A bucket is as if the new amount had
 *			been taken where the old one was, as at a request's end
 *	only old	nothing had left: given back, as by a cancel. Else *closed*:
 *			the hold becomes what was used while it was charged, is
 *			booked at that in the end, and goes on in the new page
 *	only new	its base is what was used before. The end's total less that is
 *			its part
 *
 * A closed hold whose meter is charged again is in both, and what it was closed at
 * is what the request has used of it. So in every case
 *
 *	base = used in all - used of this meter
 *
 * Units of requests are not used up by an exchange: a meter that counts requests
 * is charged once, and a closed one keeps its units.
 *
 * Every meter whose hold goes on is used in the step's tick, also where nothing
 * changes: the keeper, which looks at pages one after the other, may miss a
 * request that goes from one to the other meanwhile (evict.c).
 */
#include "shm/move.h"

#define RELEASE_NOTES 2		/* level, held */
#define CLOSE_NOTES 3		/* tick, level, held */
#define TAKE_NOTES 6		/* what, limit, window, period or the level once more, level, held */
#define PAGE_NOTES 6		/* the list of free pages, how many are not free, the page's status: twice each */

_Static_assert(RELEASE_NOTES <= CLOSE_NOTES, "a hold is released or closed");
_Static_assert(CHARGES_MAX * (CLOSE_NOTES + TAKE_NOTES) + PAGE_NOTES <= JOURNAL_MAX, "the longest step");

/* ---- before the lock ---- */

static bool
is_of(const struct shm_hold *h, const struct charge *c)
{
	return word_get(&h->id_lo) == c->id.lo && word_get(&h->id_hi) == c->id.hi;
}

static enum hold_fate
fate_of(const struct moving_hold *o, bool sent)
{
	uint64_t kind = WHAT_KIND(hold_what(o->hold));

	if (o->again || !sent || o->units == 0 || (kind != METER_BUCKET && kind != METER_BUDGET))
		return FATE_RELEASED;
	return hold_is_closed(o->hold) ? FATE_KEPT : FATE_CLOSED;
}

static void
look_at_old(struct moving *mv, const struct arena *a)
{
	const struct settled used = { mv->used->cost_nusd, mv->used->total_tokens };
	bool sent = inflight_state(mv->from) == INFLIGHT_SENT;

	CHECK(used.cost_nusd >= 0 && used.tokens >= 0);
	CHECK(sent || (inflight_state(mv->from) == INFLIGHT_ADMITTED && (used.cost_nusd | used.tokens) == 0));
	mv->olds = (uint32_t)word_get(&mv->from->holds);
	CHECK(mv->olds <= CHARGES_MAX);
	for (uint32_t i = 0; i < mv->olds; i++) {
		struct moving_hold *o = &mv->old[i];

		o->hold = &mv->from->hold[i];
		o->m = hold_meter(a, o->hold);
		__builtin_prefetch(o->m, 1);
		o->units = hold_used(o->hold, hold_word(o->hold), &used);
		o->again = false;
		CHECK(o->units >= 0);	/* what was used does not go down */
	}
}

/* The charge, the first on its meter, and what was used of that: the new hold's base. */
static int64_t
charge_again(struct moving *mv, struct charge *c, uint32_t place)
{
	int64_t before = 0, used;

	if (c->unit == UNIT_REQUESTS)
		used = 0;
	else
		used = c->unit == UNIT_TOKENS ? mv->used->total_tokens : mv->used->cost_nusd;
	for (uint32_t i = 0; i < mv->olds; i++) {
		struct moving_hold *o = &mv->old[i];

		if (!is_of(o->hold, c))
			continue;
		o->again = true;
		o->place = place;
		before = c->unit == UNIT_REQUESTS ? 0 : o->units;
		c->fixed = add_capped(c->fixed, before);
		break;
	}
	return used - before;
}

static bool
is_first_on_meter(const struct charge *charges, uint32_t i)
{
	for (uint32_t j = 0; j < i; j++)
		if (charges[j].id.lo == charges[i].id.lo && charges[j].id.hi == charges[i].id.hi)
			return false;
	return true;
}

/* Closed holds that a page with so many others has room for. A bucket of
 * requests, which keeps its units anyway, is the first that is left out. */
static bool
find_room(struct moving *mv, uint32_t holds)
{
	for (uint32_t i = 0; i < mv->olds; i++)
		holds += mv->old[i].fate != FATE_RELEASED && !hold_is_request_bucket(mv->old[i].hold);
	if (holds > CHARGES_MAX)
		return false;
	for (uint32_t i = 0; i < mv->olds; i++) {
		struct moving_hold *o = &mv->old[i];

		if (o->fate == FATE_RELEASED || !hold_is_request_bucket(o->hold))
			continue;
		if (holds == CHARGES_MAX)
			o->fate = FATE_DROPPED;
		else
			holds++;
	}
	return true;
}

bool
move_begin(struct moving *mv, const struct arena *a, struct inflight *from, struct inflight *to,
    const struct metered *used, const struct charge *charges, uint32_t n)
{
	bool sent = inflight_state(from) == INFLIGHT_SENT;
	uint32_t meters = 0;

	CHECK(n <= CHARGES_MAX);
	mv->from = from;
	mv->to = to;
	mv->used = used;
	look_at_old(mv, a);
	mv->n = n;
	for (uint32_t i = 0; i < n; i++) {
		mv->asked[i] = charges[i];
		if (!is_first_on_meter(charges, i))
			continue;
		mv->base[meters] = charge_again(mv, &mv->asked[i], meters);
		meters++;
	}
	for (uint32_t i = 0; i < mv->olds; i++)
		mv->old[i].fate = fate_of(&mv->old[i], sent);
	if (!find_room(mv, meters))
		return false;
	inflight_copy(to, from);
	return true;
}

/* ---- in the step ---- */

void
move_release(struct step *s, struct moving *mv, const struct moment *at)
{
	for (uint32_t i = 0; i < mv->olds; i++) {
		struct moving_hold *o = &mv->old[i];

		if (!o->again)
			continue;
		meter_cancel(s, o->m, o->hold, at, NULL);
		o->full_at = (int64_t)word_get(&o->m->level);
	}
}

/*
 * A bucket gave back what the old hold took, and the new one was taken as of now.
 * If it has gained meanwhile, and is fuller without the old hold than a bucket can
 * be, the new one is moved to where the old one was, as far as that reaches.
 */
static void
correct_again(struct step *s, struct moving *mv, const struct moving_hold *o, const struct moment *at)
{
	struct shm_hold *h = &mv->to->hold[o->place];
	int64_t was = (int64_t)word_get(&o->hold->amount), is = (int64_t)word_get(&h->amount);
	int64_t gained = at->mono_ns - o->full_at;

	if (is > was && gained > was)
		gained = was;
	if (gained <= 0)
		return;
	journal_set(s, &o->m->level, word_get(&o->m->level) - (uint64_t)gained);
	if (hold_is_request_bucket(h))
		word_put_hidden(&h->mark, word_get(&o->m->level));
	for (uint32_t i = 0; i < mv->n; i++)
		if (is_of(o->hold, &mv->asked[i]))
			mv->asked[i].after -= gained;
}

/* Into a page that is still free. */
static void
write_closed(struct shm_hold *to, const struct moving_hold *o, int64_t amount)
{
	const struct shm_hold *h = o->hold;
	uint32_t row = atomic_load_explicit(&h->row, memory_order_relaxed);

	word_put(&to->id_hi, word_get(&h->id_hi));
	word_put(&to->id_lo, word_get(&h->id_lo));
	word_put(&to->amount, (uint64_t)amount);
	word_put(&to->units, (uint64_t)o->units);
	/* As of this step, whose number the record will have. */
	word_put(&to->mark, word_get(&o->m->level));
	atomic_store_explicit(&to->row, row, memory_order_release);
	atomic_store_explicit(&to->what, hold_what(h) | HOLD_CLOSED, memory_order_release);
	CRASH_POINT();
}

static void
put_bases(const struct moving *mv, uint32_t holds)
{
	for (uint32_t i = 0; i < holds; i++) {
		struct shm_hold *h = &mv->to->hold[i];

		if (mv->base[i] == 0)
			continue;
		word_put(&h->mark, (uint64_t)mv->base[i]);
		atomic_store_explicit(&h->what, hold_what(h) | HOLD_LATER, memory_order_release);
		CRASH_POINT();
	}
}

void
move_end(struct step *s, struct moving *mv, const struct moment *at)
{
	uint32_t holds = (uint32_t)word_get(&mv->to->holds);

	put_bases(mv, holds);
	for (uint32_t i = 0; i < mv->olds; i++) {
		const struct moving_hold *o = &mv->old[i];
		int64_t amount = (int64_t)word_get(&o->hold->amount);

		switch (o->fate) {
		case FATE_RELEASED:
			if (!o->again)
				meter_cancel(s, o->m, o->hold, at, NULL);
			else if (WHAT_KIND(hold_what(o->hold)) == METER_BUCKET)
				correct_again(s, mv, o, at);
			continue;
		case FATE_CLOSED:
			amount = meter_close(s, o->m, o->hold, o->units, at);
			break;
		case FATE_KEPT:
			meter_keep(s, o->m, o->hold);
			break;
		case FATE_DROPPED:
			continue;
		}
		CHECK(holds < CHARGES_MAX);
		write_closed(&mv->to->hold[holds++], o, amount);
	}
	word_put_hidden(&mv->to->holds, holds);
	inflight_replace(s, mv->from, mv->to, mv->used);
}
