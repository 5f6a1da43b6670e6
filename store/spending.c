/* store/spending.c -- see spending.h. */
#include "store/spending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 256
#define ROOM_MAX (UINT32_C(1) << 28)	/* more meters than any ledger has */

bool
spending_same_kind(uint64_t a, uint64_t b)
{
	struct period pa, pb;

	if (a == b)
		return true;
	pa = meter_what_period(a);
	pb = meter_what_period(b);
	return meter_what_kind(a) == meter_what_kind(b) && meter_what_unit(a) == meter_what_unit(b) &&
	    pa.kind == pb.kind && pa.days == pb.days && pa.anchor == pb.anchor;
}

int64_t
spending_sum(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return a < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

/* ---- the index ---- */

/* Ids are hashes already; tests use small numbers. */
static uint32_t
hash_of(struct meter_id id)
{
	uint64_t h = (id.hi ^ id.lo * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);

	return (uint32_t)(h >> 32);
}

static bool
belongs(const struct booking *b, uint64_t epoch, const struct ring_charge *c)
{
	return b->id.lo == c->id.lo && b->id.hi == c->id.hi && b->epoch == epoch &&
	    b->period_index == c->period_index && spending_same_kind(b->what, c->what);
}

/* The charge's place: that of its booking, or the free one where it would go. */
static uint32_t *
place_of(const struct spending *s, uint64_t epoch, const struct ring_charge *c)
{
	uint32_t mask = 2 * s->room - 1;

	for (uint32_t at = hash_of(c->id) & mask;; at = (at + 1) & mask)
		if (s->index[at] == 0 || belongs(&s->booking[s->index[at] - 1], epoch, c))
			return &s->index[at];
}

static int
grow(struct spending *s)
{
	uint32_t room = s->room ? s->room * 2 : ROOM_FIRST, mask = 2 * room - 1;
	struct booking *booking;
	uint32_t *index;

	if (room > ROOM_MAX)
		return ENOMEM;
	booking = reallocarray(s->booking, room, sizeof(*booking));
	if (!booking)
		return ENOMEM;
	s->booking = booking;
	index = calloc((size_t)room * 2, sizeof(*index));
	if (!index)
		return ENOMEM;
	for (uint32_t i = 0; i < s->count; i++) {
		uint32_t at = hash_of(booking[i].id) & mask;

		while (index[at] != 0)
			at = (at + 1) & mask;
		index[at] = i + 1;
	}
	free(s->index);
	s->index = index;
	s->room = room;
	return 0;
}

/* ---- charges ---- */

int
spending_add(struct spending *s, uint64_t epoch, uint32_t age, const struct ring_charge *c)
{
	enum meter_kind kind = meter_what_kind(c->what);
	struct booking *b;
	uint32_t *place;
	int rc;

	if (kind != METER_BUCKET && (kind != METER_BUDGET || c->amount == 0))
		return 0;
	if (s->count == s->room && (rc = grow(s)) != 0)
		return rc;
	place = place_of(s, epoch, c);
	if (*place == 0) {
		s->booking[s->count] = (struct booking){
			.id = c->id, .what = c->what, .epoch = epoch, .age = age, .period_index = c->period_index,
		};
		*place = ++s->count;
	}
	b = &s->booking[*place - 1];
	b->amount = spending_sum(b->amount, c->amount);
	if (c->step >= b->step) {
		b->step = c->step;
		b->what = c->what;
		b->full_wall_ns = c->full_wall_ns;
	}
	return 0;
}

static int
booking_order(const void *pa, const void *pb)
{
	const struct booking *a = pa, *b = pb;

	if (a->id.hi != b->id.hi)
		return a->id.hi < b->id.hi ? -1 : 1;
	if (a->id.lo != b->id.lo)
		return a->id.lo < b->id.lo ? -1 : 1;
	if (a->age != b->age)
		return a->age > b->age ? -1 : 1;
	if (a->step != b->step)
		return a->step < b->step ? -1 : 1;
	return 0;
}

void
spending_order(struct spending *s)
{
	if (s->count > 1)
		qsort(s->booking, s->count, sizeof(*s->booking), booking_order);
}

void
spending_clear(struct spending *s)
{
	if (s->count > 0)
		memset(s->index, 0, (size_t)s->room * 2 * sizeof(*s->index));
	s->count = 0;
}

void
spending_free(struct spending *s)
{
	free(s->booking);
	free(s->index);
	*s = (struct spending){ 0 };
}
