/*
 * shm/places.c -- see places.h.
 *
 * A session's set comes from one half of its hash. An entry is two words, the
 * value (account << 32 | second it was told in, + 1; 0: empty) and a check: the
 * hash's other half, xor a scrambled value. They are written one after the other,
 * without a lock, by whoever comes; the pair speaks for itself. If the value is of
 * one writer and the check of another, their xor is the half of neither: for any
 * session to take it for its own, 64 bits of a hash would have to meet by chance.
 * For the same session with two values, they would have to be one value, as
 * scrambling maps no two values to one.
 *
 * So all words are relaxed: they order nothing, and any mixture is harmless.
 */
#include "shm/places.h"

#include "shm/base/clock.h"
#include "shm/layout.h"

_Static_assert((PLACES_SETS & (PLACES_SETS - 1)) == 0, "sets are cut from a hash's bits");

static struct shm_place_entry *
set_of(const struct arena *a, struct key128 session)
{
	return layout_places(a)[session.lo & (PLACES_SETS - 1)].way;
}

/* One to one: each step can be undone. */
static uint64_t
scrambled(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	x *= UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 32;
}

static uint32_t
second_of(int64_t mono_ns)
{
	return (uint32_t)(mono_ns / NS_PER_S) + 1;
}

/* The value of an entry, if it is this session's; else 0. */
static uint64_t
value_for(const struct shm_place_entry *e, struct key128 session)
{
	uint64_t value = peek(&e->value);

	return value != 0 && (peek(&e->check) ^ scrambled(value)) == session.hi ? value : 0;
}

void
places_put(struct arena *a, struct key128 session, uint32_t account, int64_t now_mono_ns)
{
	struct shm_place_entry *set = set_of(a, session), *own = NULL, *oldest = set;
	uint64_t fresh = (uint64_t)account << 32 | second_of(now_mono_ns);

	for (struct shm_place_entry *e = set; e < set + PLACES_WAYS; e++) {
		if ((uint32_t)peek(&e->value) < (uint32_t)peek(&oldest->value))
			oldest = e;
		if (value_for(e, session) == 0)
			continue;
		if (own)	/* two workers had told of it at the same time */
			poke(&e->value, 0);
		else
			own = e;
	}
	if (own && peek(&own->value) == fresh)
		return;		/* the line stays where it is, in every worker's cache */
	if (!own)
		own = oldest;
	poke(&own->check, session.hi ^ scrambled(fresh));
	poke(&own->value, fresh);
}

bool
places_get(const struct arena *a, struct key128 session, int64_t age_max_ns, int64_t now_mono_ns, uint32_t *account)
{
	const struct shm_place_entry *set = set_of(a, session);
	uint64_t found = 0;

	for (int i = 0; i < PLACES_WAYS; i++) {
		uint64_t value = value_for(&set[i], session);

		if ((uint32_t)value > (uint32_t)found)
			found = value;
	}
	/* The teller's clock may have been read later than ours. */
	int64_t age_s = (int64_t)second_of(now_mono_ns) - (int64_t)(uint32_t)found;
	if (found == 0 || age_s > age_max_ns / NS_PER_S)
		return false;
	*account = (uint32_t)(found >> 32);
	return true;
}
