/*
 * shm/journal.h -- the ledger's lock, and steps that happen or do not.
 *
 *	struct step s = journal_begin(a, worker);
 *	journal_set(&s, &word, value);		any number of times
 *	journal_commit(&s);  or  journal_undo(&s);
 *	journal_end(&s);
 *
 * A process may die (SIGKILL) at any instruction of this. Before the commit,
 * the next one that takes the lock rolls the step back; after it, the step is
 * done. The commit is one store. Power loss is no concern here: the arena does
 * not survive it.
 *
 * Each worker has its own journal, so that its lines of cache stay with it; as
 * the lock is one, at most one journal is ever in use.
 */
#ifndef WEIR_SHM_JOURNAL_H
#define WEIR_SHM_JOURNAL_H

#include "shm/layout.h"

/* Between any two stores that matter stands a crash point. They do nothing,
 * except in the library that tests/race/race_crash.c is linked with. */
#ifdef LEDGER_CRASH_POINTS
void ledger_crash_point(void);
#define CRASH_POINT() ledger_crash_point()
#else
#define CRASH_POINT() ((void)0)
#endif

struct step {
	struct arena *a;
	struct shm_worker *worker;	/* for whom, and whose journal is used */
	uint64_t notes;			/* the journal's count, kept at hand */
	uint64_t sequence;		/* of this step: odd */
	uint64_t tick;			/* of the keeper, in this step */
};

int ledger_lock_init(struct shm_ledger *l) MUST_CHECK;
	/* 0, or an errno. Nobody else may be using the lock. */
void ledger_lock(struct arena *a);
	/* Repairs what a dead holder left. Spins a little before it sleeps. */
void ledger_unlock(struct arena *a);
void ledger_repair(struct arena *a);
	/* Rolls back a step that was left open. The lock is held, or the caller
	 * is alone. Counts in `repairs`: whoever looked at words without the lock
	 * may have seen some that are now undone. */

struct step journal_begin(struct arena *a, uint32_t row);
	/* `row`: a worker's, or one of those beside them. */
void journal_undo(struct step *s);
	/* All words are as journal_begin() found them; the step goes on. */
void journal_commit(struct step *s);
void journal_end(struct step *s);
	/* What was neither committed nor undone is a bug. */

static inline void
journal_set(struct step *s, _Atomic uint64_t *word, uint64_t value)
{
	struct shm_journal *j = &s->worker->journal;
	uint64_t n = s->notes;

	/* Each of the two word_put() is a release: the note is complete before
	 * it counts, and counts before the word changes. */
	CHECK(n < JOURNAL_MAX);
	j->undo[n].offset = (uint64_t)((char *)word - (char *)s->a->header);
	j->undo[n].old = word_get(word);
	CRASH_POINT();
	s->notes = n + 1;
	word_put(&j->count, n + 1);
	CRASH_POINT();
	word_put(word, value);
	CRASH_POINT();
}

static inline void
journal_set_if_new(struct step *s, _Atomic uint64_t *word, uint64_t value)
{
	if (word_get(word) != value)
		journal_set(s, word, value);
}

/* A word that nobody looks at yet: of a free row, a free page. Not noted. */
static inline void
word_put_hidden(_Atomic uint64_t *word, uint64_t value)
{
	word_put(word, value);
	CRASH_POINT();
}

#endif
