/*
 * Dies at every crash point of the ledger (shm/journal.h), one after the other:
 * of a worker that admits, settles, cancels, is refused and finds its ring
 * full, and for each of these deaths of the one that reclaims what was left.
 * After each death the books are audited.
 *
 * The library is built with LEDGER_CRASH_POINTS for this.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/journal.h"
#include "shm/ring.h"
#include "tests/race/books.h"
#include "tests/unit/arena_fixture.h"

#define REQUESTS 6	/* in a round */

enum round {
	NEW_ARENAS,	/* one for each death: meters are made */
	ONE_ARENA,
	FULL_RING,
	ROUNDS,
};

static uint64_t points_passed, die_at;	/* die_at: 0 is never */

void
ledger_crash_point(void)
{
	if (++points_passed == die_at)
		kill(getpid(), SIGKILL);
}

static struct {
	struct fixture f;
	struct book book;
	uint64_t reclaim_deaths, records;
} test;

typedef void act_fn(uint64_t seed);

/* A child acts and dies at a point. false: it lived, there are fewer points. */
static bool
dies(act_fn *act, uint64_t seed, uint64_t point)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		points_passed = 0;
		die_at = point;
		act(seed);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		book_fail("a child", pid, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		book_fail("how a child ended", status, SIGKILL);
	book_read(&test.book);		/* the keeper may be faster than a repair */
	ledger_lock(&test.f.arena);	/* what the next one to come does */
	ledger_unlock(&test.f.arena);
	return true;
}

static void
act_requests(uint64_t seed)
{
	struct booking b = { .arena = &test.f.arena, .random = seed, .now = test.f.now };

	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
}

static void
act_reclaim(uint64_t seed)
{
	(void)seed;
	ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now);
}

/* Reclaims, dying at each point of it. */
static void
reclaim_hard(void)
{
	for (uint64_t point = 1; dies(act_reclaim, 0, point); point++) {
		test.reclaim_deaths++;
		book_audit(&test.book, false);
	}
}

static void
reclaim_until_idle(void)
{
	while (ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now) > 0)
		book_read(&test.book);
	book_audit(&test.book, true);
}

/* Leaves so little room in the ring that the next record does not fit. */
static void
fill_ring(uint64_t seed)
{
	struct booking b = { .arena = &test.f.arena, .random = seed, .now = test.f.now };

	while (book_request(&b) != BOOK_NO_ROOM)
		;
}

static void
open_books(void)
{
	struct arena_sizes sizes = { .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 };

	fixture_open(&test.f, sizes);
	book_open(&test.book, &test.f.arena, test.f.now);
}

static void
close_books(void)
{
	reclaim_until_idle();
	test.records += test.book.records;
	fixture_close(&test.f);
}

static uint64_t
die_everywhere(uint64_t seed, enum round round)
{
	uint64_t point = 1;
	bool died = true;

	for (open_books(); died; point++) {
		if (round == NEW_ARENAS) {
			close_books();
			open_books();
		}
		test.f.now.wall_ns += 3600 * NS_PER_S;	/* days roll over in between */
		test.book.now = test.f.now;
		if (round == FULL_RING)
			fill_ring(seed + point);
		died = dies(act_requests, seed, point);
		if (died && round != FULL_RING)
			book_audit(&test.book, false);
		reclaim_hard();
		reclaim_until_idle();
	}
	close_books();
	return point - 2;
}

int
main(void)
{
	uint64_t points = 0;

	for (uint64_t round = 0; round < ROUNDS; round++)
		points += die_everywhere((round + 1) * UINT64_C(0x9e3779b97f4a7c15), (enum round)round);
	printf("race_crash: %llu crash points of workers visited, and for each all of its reclaim: %llu; %llu "
	    "records; books balance after each\n", (unsigned long long)points,
	    (unsigned long long)test.reclaim_deaths, (unsigned long long)test.records);
	return points > 500 && test.reclaim_deaths > points ? 0 : 1;
}
