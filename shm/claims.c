/*
 * shm/claims.c -- see claims.h.
 *
 * A word is 0, or 56 bits of its key << 8 | the holder's worker + 1. Its place
 * comes from the key's other half. Two keys that agree in all of these 72 bits
 * would be taken for one, which does no more harm than that one of them waits for
 * nothing.
 *
 * Taking is an acquire, dropping a release: what the last holder did lies before
 * what the next one does.
 */
#include "shm/claims.h"

#include "shm/layout.h"

#define HOLDER UINT64_C(0xff)

_Static_assert((CLAIMS & (CLAIMS - 1)) == 0, "places are cut from a key's bits");
_Static_assert(WORKERS_MAX < HOLDER, "worker + 1 in 8 bits");

static _Atomic uint64_t *
place_of(const struct arena *a, struct key128 key)
{
	return &layout_claims(a)[key.lo & (CLAIMS - 1)];
}

static uint64_t
claim_word(struct key128 key, uint32_t worker)
{
	return (key.hi & ~HOLDER) | (worker + 1);
}

static bool
is_about(uint64_t word, struct key128 key)
{
	return word != 0 && ((word ^ key.hi) & ~HOLDER) == 0;
}

enum claim
claim_take(struct arena *a, struct key128 key, uint32_t worker)
{
	uint64_t seen = 0;

	CHECK(worker < a->header->sizes.workers);
	if (atomic_compare_exchange_strong_explicit(place_of(a, key), &seen, claim_word(key, worker),
	    memory_order_acq_rel, memory_order_acquire))
		return CLAIM_TAKEN;
	return is_about(seen, key) ? CLAIM_OTHERS : CLAIM_COLLISION;
}

void
claim_drop(struct arena *a, struct key128 key, uint32_t worker)
{
	uint64_t mine = claim_word(key, worker);

	CHECK(atomic_compare_exchange_strong_explicit(place_of(a, key), &mine, 0, memory_order_release,
	    memory_order_relaxed));
}

bool
claim_held(const struct arena *a, struct key128 key)
{
	return is_about(word_get(place_of(a, key)), key);
}

uint32_t
claim_reclaim(struct arena *a, uint32_t worker)
{
	_Atomic uint64_t *words = layout_claims(a);
	uint32_t dropped = 0;

	CHECK(worker < a->header->sizes.workers);
	for (uint32_t i = 0; i < CLAIMS; i++)
		/* Only its holder could change it, and that one is dead. */
		if ((word_get(&words[i]) & HOLDER) == worker + 1) {
			word_put(&words[i], 0);
			dropped++;
		}
	return dropped;
}
