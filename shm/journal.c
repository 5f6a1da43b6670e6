/*
 * shm/journal.c -- see journal.h.
 *
 * The lock is a robust mutex: when its holder dies, the kernel marks it, and
 * the next one to take it learns so (EOWNERDEAD) and repairs:
 *
 *	1. the journal that is not empty is applied backwards, which restores
 *	   the oldest value of a word that changed twice;
 *	2. one store empties it. Dying in between is harmless: the old values
 *	   are absolute, so that a second repair does the same again;
 *	3. what follows a commit (a ring's visible head) is done for all rings,
 *	   because the holder may have died between the two.
 *
 * Before that it counts the repair, for ledger_evict(), which looks at pages
 * without the lock and must not believe what is then taken back.
 *
 * Nobody sleeps for the lock without an end. A holder gives it back and then wakes
 * one of those who sleep; it can be killed in between, and so can the one that it
 * woke. The kernel wakes the next one then only if nobody has taken the lock
 * meanwhile, and who takes a free lock does not know of the sleepers. So they look
 * again by themselves.
 *
 * `sequence` is odd during a step. It lets those who look without the lock
 * see that they looked at the wrong moment, and those who wait for the lock
 * wait without touching the line that it is in.
 */
#include "shm/journal.h"

#include <errno.h>
#include <time.h>

#include "shm/base/clock.h"

/* A step takes a tenth of a microsecond; longer than some of them in a row
 * means that the holder is not running, and so should we not. */
#define SPINS_MAX 200
#define SLEEP_NS (5 * NS_PER_MS)	/* then a sleeper looks again, in case that it was forgotten */

int
ledger_lock_init(struct shm_ledger *l)
{
	pthread_mutexattr_t attr;
	int rc = pthread_mutexattr_init(&attr);

	if (rc != 0)
		return rc;
	rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	if (rc == 0)
		rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (rc == 0)
		rc = pthread_mutex_init(&l->mutex, &attr);
	pthread_mutexattr_destroy(&attr);
	return rc;
}

/* Applies a journal backwards and empties it. */
static void
roll_back(struct arena *a, struct shm_journal *j)
{
	uint64_t n = word_get(&j->count);

	CHECK(n <= JOURNAL_MAX);
	while (n-- > 0) {
		CHECK(j->undo[n].offset <= a->header->bytes - sizeof(uint64_t));
		word_put((_Atomic uint64_t *)((char *)a->header + j->undo[n].offset), j->undo[n].old);
		CRASH_POINT();
	}
	word_put(&j->count, 0);
	CRASH_POINT();
}

void
ledger_repair(struct arena *a)
{
	struct shm_ledger *l = &a->header->ledger;
	uint64_t sequence = word_get(&l->sequence);

	word_put(&l->repairs, word_get(&l->repairs) + 1);
	CRASH_POINT();
	for (uint32_t i = 0; i < layout_rows(a); i++) {
		struct shm_worker *w = layout_worker(a, i);

		if (word_get(&w->journal.count) > 0)
			roll_back(a, &w->journal);
		word_put(&w->ring_visible, word_get(&w->ring_head));
		CRASH_POINT();
	}
	if (sequence & 1)
		word_put(&l->sequence, sequence + 1);
	CRASH_POINT();
}

/* Sleeps until it has the lock, or may repair what its holder left. */
static int
lock_sleeping(pthread_mutex_t *mutex)
{
	struct timespec until;
	int rc;

	do {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += SLEEP_NS;
		if (until.tv_nsec >= NS_PER_S) {
			until.tv_nsec -= NS_PER_S;
			until.tv_sec++;
		}
		rc = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
	} while (rc == ETIMEDOUT);
	return rc;
}

void
ledger_lock(struct arena *a)
{
	struct shm_ledger *l = &a->header->ledger;
	int rc = EBUSY;

	for (int spins = 0; spins < SPINS_MAX; spins++) {
		if (!(word_get(&l->sequence) & 1) && (rc = pthread_mutex_trylock(&l->mutex)) != EBUSY)
			break;
		cpu_relax();
	}
	if (rc == EBUSY)
		rc = lock_sleeping(&l->mutex);
	CRASH_POINT();
	if (rc == EOWNERDEAD) {
		ledger_repair(a);
		rc = pthread_mutex_consistent(&l->mutex);
	}
	CHECK(rc == 0);
}

void
ledger_unlock(struct arena *a)
{
	CRASH_POINT();
	CHECK(pthread_mutex_unlock(&a->header->ledger.mutex) == 0);
	CRASH_POINT();
}

struct step
journal_begin(struct arena *a, uint32_t row)
{
	struct step s = { .a = a, .worker = layout_worker(a, row) };
	struct shm_ledger *l = &a->header->ledger;

	ledger_lock(a);
	s.sequence = word_get(&l->sequence) + 1;
	s.tick = word_get(&l->tick);
	word_put(&l->sequence, s.sequence);
	CRASH_POINT();
	return s;
}

void
journal_undo(struct step *s)
{
	roll_back(s->a, &s->worker->journal);
	s->notes = 0;
}

void
journal_commit(struct step *s)
{
	CRASH_POINT();
	word_put(&s->worker->journal.count, 0);
	s->notes = 0;
	CRASH_POINT();
}

void
journal_end(struct step *s)
{
	struct shm_ledger *l = &s->a->header->ledger;

	CHECK(s->notes == 0);
	word_put(&s->worker->ring_visible, word_get(&s->worker->ring_head));
	CRASH_POINT();
	word_put(&l->sequence, s->sequence + 1);
	ledger_unlock(s->a);
}
