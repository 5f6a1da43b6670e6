/*
 * The kill matrix: dies at every crash point of the ledger (shm/journal.h), one
 * after the other: of a worker that admits, loads meters, moves, settles, cancels,
 * is refused and finds its ring full; of a keeper that ticks, stores, frees room
 * and evicts; of a tool that resets. Then of the one that comes next and
 * repairs, and of the one that reclaims what was left. After each death the
 * books are audited.
 *
 * The library is built with LEDGER_CRASH_POINTS for this.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/journal.h"
#include "shm/ring.h"
#include "tests/race/books.h"
#include "tests/unit/arena_fixture.h"

#define REQUESTS 5	/* in a life */
#ifdef __SANITIZE_ADDRESS__	/* which makes a fork dear */
#define PASSES 2
#else
#define PASSES 4	/* with other requests each */
#endif
#define OFTEN 4		/* in the first pass one death in so many is followed by deaths in repair and reclaim */
#define SELDOM 16	/* in the others */
#define HOUR_NS (3600 * NS_PER_S)
#define PLACES_MAX 4096	/* a power of two */
#define MINUTE_NS (60 * NS_PER_S)

static uint64_t points_passed, die_at;	/* die_at: 0 is never */
static _Atomic uintptr_t *places;	/* in the program, at which somebody died */

/* All processes are forks of one, so an address means the same in each. */
static void
remember(uintptr_t place)
{
	for (uint32_t i = (uint32_t)(place * 2654435761u) % PLACES_MAX;; i = (i + 1) % PLACES_MAX) {
		uintptr_t there = 0;

		if (atomic_compare_exchange_strong(&places[i], &there, place) || there == place)
			return;
	}
}

void
ledger_crash_point(void)
{
	if (++points_passed != die_at)
		return;
	remember((uintptr_t)__builtin_return_address(0));
	kill(getpid(), SIGKILL);
}

typedef void act_fn(uint64_t seed);
typedef void prepare_fn(uint64_t seed);

struct round {
	const char *name;
	act_fn *act;
	prepare_fn *prepare;	/* by others, before it */
	bool new_arenas;	/* one for each death: all meters are made */
	bool full_ring;		/* the ring may be full while it is audited */
};

static struct {
	struct fixture f;
	struct book book;
	uint64_t repair_deaths, reclaim_deaths, records, closed, in_two_minds;
} test;

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
	return true;
}

/* ---- what they do ---- */

/* Between a request's calls the keeper ticks, and days go by. */
static void
time_passes(struct booking *b)
{
	if (book_draw(&b->random, 3) == 0)
		ledger_tick(b->arena);
	b->now.wall_ns += (int64_t)book_draw(&b->random, 8) * HOUR_NS;
}

static struct booking
booking(uint64_t seed)
{
	return (struct booking){ .arena = &test.f.arena, .store = test.book.store, .random = seed, .now = test.f.now };
}

static void
act_requests(uint64_t seed)
{
	struct booking b = booking(seed);

	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
}

static void
act_slow_requests(uint64_t seed)
{
	struct booking b = booking(seed);

	b.around = time_passes;
	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
}

static void
act_moves(uint64_t seed)
{
	struct booking b = booking(seed);

	b.restless = true;
	b.around = time_passes;
	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
}

static void
act_reclaim(uint64_t seed)
{
	(void)seed;
	ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now);
}

/* What the next one to come does. */
static void
act_repair(uint64_t seed)
{
	(void)seed;
	ledger_lock(&test.f.arena);
	ledger_unlock(&test.f.arena);
}

static void
act_keep(uint64_t seed)
{
	(void)seed;
	book_evict(&test.book, BOOK_METERS);
}

static void
act_reset(uint64_t seed)
{
	struct booking b = booking(seed);

	for (uint32_t meter = 0; meter < BOOK_GROUP; meter++)
		book_reset(&b, meter);
}

/* Nobody dies here, so that there is something to store, to evict, to reset. */
static void
prepare_requests(uint64_t seed)
{
	struct booking b = booking(seed);

	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
	while (book_request(&b) != BOOK_SETTLED)
		;
}

/* Then to evict, so that rows are free. */
static void
prepare_free_rows(uint64_t seed)
{
	prepare_requests(seed);
	act_keep(seed);
}

static void
prepare_reset(uint64_t seed)
{
	prepare_requests(seed);
	book_read(&test.book);
	ledger_tick(&test.f.arena);
}

/* Leaves so little room in the ring that the next record does not fit. */
static void
prepare_full_ring(uint64_t seed)
{
	struct booking b = booking(seed);

	while (book_request(&b) != BOOK_NO_ROOM)
		;
}

static const struct round rounds[] = {
	{ .name = "requests on new meters", .act = act_requests, .new_arenas = true },
	{ .name = "requests on meters that come back", .act = act_requests, .prepare = prepare_free_rows },
	{ .name = "requests for days, while the keeper ticks", .act = act_slow_requests },
	{ .name = "requests that move, for days", .act = act_moves },
	{ .name = "requests, a full ring", .act = act_requests, .prepare = prepare_full_ring, .full_ring = true },
	{ .name = "a keeper", .act = act_keep, .prepare = prepare_requests },
	{ .name = "resets", .act = act_reset, .prepare = prepare_reset },
};

/* ---- after a death ---- */

/* Repairs, dying at each point of it if that is wanted. */
static void
repair(bool hard)
{
	for (uint64_t point = 1; hard && dies(act_repair, 0, point); point++)
		test.repair_deaths++;
	act_repair(0);
}

static void
reclaim(bool hard)
{
	for (uint64_t point = 1; hard && dies(act_reclaim, 0, point); point++) {
		test.reclaim_deaths++;
		act_repair(0);
		book_audit(&test.book, false);
	}
	while (ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now) > 0)
		book_read(&test.book);
	book_audit(&test.book, true);
}

static void
open_books(void)
{
	struct arena_sizes sizes = { .workers = 1, .inflight = 8, .ring_bytes = 65536, .meters = 64 };

	fixture_open(&test.f, sizes);
	book_open(&test.book, &test.f.arena, test.f.now);
	test.book.around = ledger_crash_point;
}

static void
close_books(void)
{
	reclaim(false);
	test.records += book_now(&test.book)->records;
	test.closed += book_now(&test.book)->closed;
	test.in_two_minds += book_now(&test.book)->in_two_minds;
	book_close(&test.book);
	fixture_close(&test.f);
}

static uint64_t
die_everywhere(const struct round *r, uint64_t seed, bool first)
{
	uint64_t point = 1;
	bool died = true;

	for (open_books(); died; point++) {
		bool hard = (point + seed) % (first ? OFTEN : SELDOM) == 0;

		if (r->new_arenas) {
			close_books();
			open_books();
		}
		test.f.now.wall_ns += 13 * HOUR_NS;	/* days roll over in between */
		test.book.now = test.f.now;
		if (r->prepare)
			r->prepare(seed + point);
		died = dies(r->act, seed, point);
		/* Or the one that reclaims comes first, and has to repair. */
		if (hard || point % 2 == 0) {
			repair(hard);
			if (died && !r->full_ring)
				book_audit(&test.book, false);
		}
		reclaim(hard);
	}
	close_books();
	if (first)
		printf("race_crash: %s: %llu crash points\n", r->name, (unsigned long long)point - 2);
	return point - 2;
}

/* ---- a bucket that gains ---- */

/* Time stands still in the books. Here it does not: a request moves when its
 * buckets are full again but for what it holds. */
static struct {
	struct inflight *page;
	struct charge c[2];
} gaining;

static void
act_gaining(uint64_t seed)
{
	const struct metered nothing = { 0 };
	struct refusal why;

	(void)seed;
	book_equal("a move", ledger_move(&test.f.arena, 0, &gaining.page, &nothing, gaining.c, 2, NULL, test.f.now, &why),
	    LEDGER_ADMITTED);
}

static int64_t
level_of(const struct charge *c)
{
	return (int64_t)word_get(&layout_meters(&test.f.arena)[c->row].level) - FIXTURE_MONO_NS;
}

/* Three units of sixty a minute, of which the second bucket is then asked for
 * five. Fifteen seconds later. */
static void
begin_gaining(void)
{
	struct refusal why;

	open_books();
	gaining.c[0] = bucket_charge(1, 60, MINUTE_NS, 3);
	gaining.c[1] = bucket_charge(2, 60, MINUTE_NS, 3);
	gaining.c[1].unit = UNIT_TOKENS;
	if (fixture_admit(&test.f, 0, gaining.c, 2, NULL, &gaining.page, &why) != LEDGER_ADMITTED)
		book_fail("an admission", 1, 0);
	test.f.now.mono_ns += 15 * NS_PER_S;
	gaining.c[1].fixed = 5;
}

/* As before the move, or as after it. */
static void
audit_gaining(bool lived)
{
	int64_t second = level_of(&gaining.c[1]);
	bool moved = second != 3 * NS_PER_S;

	book_equal("a bucket that is asked for the same", level_of(&gaining.c[0]), 3 * NS_PER_S);
	if (moved || lived)	/* three have come back, and nothing can be added before now */
		book_equal("a bucket that is asked for more", second, (15 - 3 + 5) * NS_PER_S);
	book_equal("requests in flight", ledger_inflight_count(&test.f.arena, 0), 1);
	book_equal("left to reclaim", ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now), 0);
	book_equal("a bucket after a cancel", level_of(&gaining.c[0]), 0);
	book_equal("a bucket after a cancel", level_of(&gaining.c[1]), moved ? (15 - 3) * NS_PER_S : 0);
	book_equal("still in flight", ledger_inflight_count(&test.f.arena, 0), 0);
}

static uint64_t
die_gaining(void)
{
	uint64_t point = 0;
	bool died = true;

	while (died) {
		begin_gaining();
		died = dies(act_gaining, 0, ++point);
		act_repair(0);
		audit_gaining(!died);
		book_close(&test.book);
		fixture_close(&test.f);
	}
	printf("race_crash: a move of buckets that have gained: %llu crash points\n", (unsigned long long)point - 1);
	return point - 1;
}

static uint32_t
places_seen(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PLACES_MAX; i++)
		n += atomic_load(&places[i]) != 0;
	return n;
}

int
main(void)
{
	uint64_t points = 0, seed = 1;
	const size_t count = sizeof(rounds) / sizeof(rounds[0]);

	places = mmap(NULL, PLACES_MAX * sizeof(*places), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (places == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < PASSES * count; i++)
		points += die_everywhere(&rounds[i % count], seed++ * UINT64_C(0x9e3779b97f4a7c15), i < count);
	points += die_gaining();
	printf("race_crash: %llu crash points visited, at %u places of the code; %llu deaths in repairs, %llu in "
	    "reclaims; %llu records, %llu of requests that left meters to be paid, %llu of requests that died in a move or "
	    "right after it; books balance after each\n", (unsigned long long)points, places_seen(),
	    (unsigned long long)test.repair_deaths, (unsigned long long)test.reclaim_deaths,
	    (unsigned long long)test.records, (unsigned long long)test.closed, (unsigned long long)test.in_two_minds);
	return points > 1500 && test.repair_deaths > points && test.reclaim_deaths > points && test.closed > points &&
	    test.in_two_minds > points / 10 ? 0 : 1;
}
