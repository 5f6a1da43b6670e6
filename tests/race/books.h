/*
 * tests/race/books.h -- requests that keep their own accounts, and an auditor.
 *
 * book_request() runs a random request against the ledger. Its record says
 * what it took and how it ended, in the test's own words. The auditor reads
 * the rings as the keeper would, adds up the records, and compares them with
 * the meters, the pages and the rings' charges. Whoever dies, wherever: when
 * the dead one's lock is repaired, the books balance.
 *
 * Time stands still for buckets, so that nothing refills and every unit can be
 * accounted for.
 */
#ifndef WEIR_TESTS_RACE_BOOKS_H
#define WEIR_TESTS_RACE_BOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/ledger.h"

#define BOOK_BUCKETS 4
#define BOOK_BUDGETS 5
#define BOOK_METERS (BOOK_BUCKETS + BOOK_BUDGETS)
#define BOOK_WINDOW_NS INT64_C(1000000000000)

/* Meters in the order of their numbers. The first bucket and the first budget
 * are small: they are used up early, and from then on refuse. */
extern const int64_t book_limit[BOOK_METERS];

struct book {
	struct arena *arena;
	struct now now;
	uint64_t sequence[WORKERS_MAX];		/* last seen in each ring */
	uint64_t records, settled, cancelled, orphans_settled, orphans_cancelled;
	int64_t units_ns[BOOK_BUCKETS];		/* taken for good, by the records */
	int64_t spent_nusd[BOOK_BUDGETS];	/* by the rings' charges */
	int64_t cost_nusd[BOOK_BUDGETS];	/* by the records */
	int64_t period_index;			/* of the daily budget, the last one seen */
	int64_t spent_today_nusd;
};

void book_open(struct book *b, struct arena *a, struct now now);

struct booking {		/* who asks, and for what is it random */
	struct arena *arena;
	uint32_t worker;
	uint64_t random;	/* not 0 */
	uint64_t number;	/* of the request; rising by one each */
	struct now now;
	bool patient;		/* waits for room in the ring */
	void (*around)(void);	/* if set, called before and after each call of the ledger */
};

enum booked { BOOK_REFUSED, BOOK_SETTLED, BOOK_CANCELLED, BOOK_NO_ROOM };

uint64_t book_draw(uint64_t *random, uint64_t below);
enum booked book_request(struct booking *b);
	/* One request from admission to its end. NO_ROOM: it is complete, and
	 * left to be reclaimed. */
ledger_orphan_fn book_orphan;
void book_read(struct book *b);
	/* Reads the rings to their ends and frees the room. */
void book_audit(struct book *b, bool idle);
	/* Ends the program with a message if anything does not balance. Nobody
	 * may be using the arena. idle: and no request is in flight. */
void book_glance(struct book *b);
	/* What must hold at every instant, while others work. */

_Noreturn void book_fail(const char *what, int64_t have, int64_t want);

#endif
