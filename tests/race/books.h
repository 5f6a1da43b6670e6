/*
 * tests/race/books.h -- requests that keep their own accounts, and an auditor.
 *
 * book_request() runs a random request against the ledger, which may move to other
 * meters on its way. Its record says what it took and how it ended, in the test's own words. The keeper's part is
 * book_read() and book_evict(); what they know is kept as a store keeps it:
 * two copies in shared memory and a number that says which one is valid, so
 * that a keeper may die as well. The auditor compares the sum of the records
 * with the meters, the pages, the table and the rings' charges. Whoever dies,
 * wherever: when the dead one's lock is repaired, the books balance.
 *
 * Time stands still for buckets, so that nothing refills and every unit can be
 * accounted for.
 */
#ifndef WEIR_TESTS_RACE_BOOKS_H
#define WEIR_TESTS_RACE_BOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/ledger.h"
#include "shm/ring.h"

#define BOOK_WINDOW_NS INT64_C(1000000000000)
#define BOOK_WORKERS_MAX 16
#define BOOK_CHARGES 7

/* Meters by number. Some limits are small: those are used up early, and from
 * then on refuse. */
enum {
	BOOK_SMALL_RATE = 0,
	BOOK_SMALL_BUDGET = 6,
	BOOK_DAILY = 8,
	BOOK_VALUES = 16,	/* meters of a group; fewer may be there at a time */
	BOOK_OVERFLOW = 22,	/* chargeable up to here */
	BOOK_GROUP,
	BOOK_METERS,
};
#define BOOK_VALUES_MOST 3	/* of the group */

struct book_meter {
	const char *name;
	enum meter_kind kind;
	enum meter_unit unit;
	enum charge_mode mode;
	enum meter_period period;
	uint16_t days;
	int64_t limit;
};
extern const struct book_meter book_meter[BOOK_METERS];

/* What the store has of a meter. */
struct book_level {
	_Atomic uint64_t known;
	_Atomic int64_t period_index, spent, full_wall_ns;
	_Atomic uint64_t step;
};

struct book_accounts {
	uint64_t sequence[BOOK_WORKERS_MAX + 1];	/* last seen in each ring */
	uint64_t records, settled, cancelled, orphans_settled, orphans_cancelled, resets;
	uint64_t closed, in_two_minds;	/* records of requests that left meters unpaid; that died in a move, or right after it */
	int64_t used[BOOK_METERS];	/* by the records, less what was reset; of buckets and totals */
	struct book_level level[BOOK_METERS];
};

struct book_store {		/* in memory that all processes share */
	_Atomic uint64_t version;
	struct book_accounts copy[2];
};

struct book {
	struct arena *arena;
	struct now now;
	struct book_store *store;
	void (*around)(void);	/* if set, called between the steps of a flush */
};

void book_open(struct book *b, struct arena *a, struct now now);
void book_close(struct book *b);
const struct book_accounts *book_now(const struct book *b);
	/* By the keeper, or when there is none. */

struct booking {		/* who asks, and for what is it random */
	struct arena *arena;
	const struct book_store *store;	/* where levels come from */
	uint32_t worker;
	uint64_t random;	/* not 0 */
	uint64_t number;	/* of the request; rising by one each */
	struct now now;
	bool patient;		/* waits for room in the ring */
	bool restless;		/* moves whenever it can, not only now and then */
	uint64_t moves;		/* out: how often requests moved */
	void (*around)(struct booking *);	/* if set, called before and after each call of the ledger */
};

enum booked { BOOK_REFUSED, BOOK_SETTLED, BOOK_CANCELLED, BOOK_NO_ROOM };

uint64_t book_draw(uint64_t *random, uint64_t below);
enum booked book_request(struct booking *b);
	/* One request from admission to its end. NO_ROOM: it is complete, and
	 * left to be reclaimed. */
ledger_orphan_fn book_orphan;
enum reset_result book_reset(struct booking *b, uint32_t meter);
	/* As a tool does. A bucket: only while nobody else is at work. */
void book_read(struct book *b);
	/* Keeper: stores what is in the rings and frees the room. */
uint32_t book_evict(struct book *b, uint32_t most);
	/* Keeper: ticks, reads, evicts. */

/* In audit.c. */
void book_audit(struct book *b, bool idle);
	/* Reads the rings. Ends the program with a message if anything does not
	 * balance. Nobody may be using the arena. idle: and no request is in flight. */
void book_glance(struct book *b);
	/* What must hold of each meter at every instant, while others work. */
bool book_look(struct book *b);
	/* What must hold of all meters and pages at every instant between two
	 * steps. false: somebody was in a step. */

uint32_t book_number(struct meter_id id);
	/* Of a meter; ends the program if there is no such one. */
struct meter_id book_id(uint32_t meter);
_Noreturn void book_fail(const char *what, int64_t have, int64_t want);
void book_equal(const char *what, int64_t have, int64_t want);

#endif
