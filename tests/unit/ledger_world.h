/*
 * tests/unit/ledger_world.h -- a ledger and its reference side by side, for
 * test_ledger_model.c: meters of all kinds whose limits change, what both show
 * of them, the items that must come out of the rings, and loads.
 */
#ifndef WEIR_TESTS_UNIT_LEDGER_WORLD_H
#define WEIR_TESTS_UNIT_LEDGER_WORLD_H

#include "tests/unit/arena_fixture.h"
#include "tests/unit/reference_ledger.h"

#define WORKERS 2
#define ROWS (64 - BALLAST)	/* fewer than there are meters: some have to go */
#define BALLAST 20		/* meters that a request of one more worker holds all the time */
#define BALLAST_WORKER WORKERS
#define TOOLS (WORKERS + 1)
#define OPEN_MAX 24		/* a worker's pages */
#define CHARGES 9		/* of most requests, fewer than this */
#define ITEMS_MAX 1024
#define SPEC_ID_HI 77		/* of meters that charges are drawn from; the others are groups' */

struct spec {			/* how a meter is usually charged */
	struct charge c;
	int64_t usual_limit;
};

struct open_request {
	struct inflight *e;
	uint32_t worker;
	struct reference_request q;
	bool sent;
	struct settled used;	/* until its last move */
	struct metered metered;	/* what the page has: this, and the record */
	uint32_t bytes;
	uint8_t letter;
};

struct expected {		/* an item that must come out of a ring */
	uint32_t parts, bytes;
	uint8_t letter;
	struct ring_charge booked[CHARGES_MAX];
};

struct queue {
	struct expected item[ITEMS_MAX];
	uint32_t first, count;
	uint64_t sequence;
};

struct ledger_world {
	struct fixture f;
	struct reference r;
	struct spec spec[REFERENCE_METERS_MAX];
	uint32_t specs, usual;	/* those behind the usual ones seldom refuse: with them a page gets full */
	struct charge_group group[2];
	struct open_request open[WORKERS * OPEN_MAX + 1];
	uint32_t opened, opened_by[WORKERS];
	struct queue queue[TOOLS + 1];
	uint64_t random, seed, operation;
	const char *doing;
	struct ledger_count {
		uint64_t admitted, refused, may_fit, waited, clamped, unknown, stale, overflowed, full;
		uint64_t moved, closed, reopened, crowded, moves_refused;
		uint64_t settled, cancelled, reclaimed, resets, evicted, ring_full, changed;
	} count;		/* over all worlds */
};
extern struct ledger_world world;

uint64_t draw(uint64_t below);
bool once_in(uint64_t n);
void agree(const char *what, int64_t have, int64_t want);
	/* Or the test fails, and says where it was. */

void add_all(void);
	/* Lists all meters; none is in memory. */
void take_rows(uint32_t first, uint32_t n);
	/* The smallest arena has more rows than this test wants. */
bool may_be_lowered(const struct charge *c);
void change_a_limit(void);
	/* Somebody edits one. */
void compare(void);
	/* What both show of each meter, and of requests in flight. */
void expect(uint32_t row, uint32_t parts, const struct ring_charge *booked, uint32_t bytes, uint8_t letter);
	/* An item of that row's ring. */
void drain(void);
	/* All that was expected has come, and is stored. */
bool load(struct charge *c);
	/* Into both. false: there is no row for it. */
bool is_open(uint32_t meter);
	/* A request in flight has it. */

#endif
