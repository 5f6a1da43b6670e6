/*
 * shm/places.h -- which account a conversation was last served by.
 *
 * What an account's provider keeps of a conversation (its prompt cache, a signature
 * that only it understands) is lost at another one, so the next request of a
 * conversation had better go to the same. Workers tell each other by this table.
 *
 * A hint and no more: an entry that is lost, or that two workers wrote at the same
 * time, is unknown. It is never another conversation's: see places.c.
 */
#ifndef WEIR_SHM_PLACES_H
#define WEIR_SHM_PLACES_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/arena.h"
#include "shm/key128.h"

#define PLACES_SETS 16384	/* 1 MiB; with PLACES_WAYS, 65,536 conversations: an hour of some thousand people */
#define PLACES_WAYS 4		/* a set is a line of cache */

void places_put(struct arena *a, struct key128 session, uint32_t account, int64_t now_mono_ns);
	/* `account`: a hash of its name. In a set that is full, the one that was
	 * told longest ago is forgotten. */
bool places_get(const struct arena *a, struct key128 session, int64_t age_max_ns, int64_t now_mono_ns,
    uint32_t *account) MUST_CHECK;
	/* false: not known, or told longer ago than that, to the second. */

#endif
