/*
 * Eight workers on one arena, with sets of meters that overlap, are killed at
 * random moments, one every ten milliseconds; so are the keeper, which stores,
 * evicts and resets, and the one that reclaims. The parent is the master. All
 * the while a process that takes no lock and is not killed looks: of each meter
 * spent and held are within the limit, and what meters hold is what pages hold.
 * At the end all die at once, the arena is opened again as by the next master,
 * and the books are audited.
 *
 *	race_kill [SECONDS]
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/race/books.h"
#include "tests/race/children.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 8
#define KEEPER WORKERS		/* a victim too */
#define VICTIMS (WORKERS + 1)
#define SECONDS 8
#define KILL_NS (10 * NS_PER_MS)	/* on average */
#define DAY_NS (86400 * NS_PER_S)

/* What the processes tell each other outside the arena. */
struct notes {
	_Atomic uint64_t ended[WORKERS][BOOK_NO_ROOM];	/* by enum booked, as far as one lived to say so */
	_Atomic uint64_t looks, glances, evicted, resets, moves;
	_Atomic int64_t days;			/* the wall clock */
	_Atomic int stop;
};

struct race {
	struct fixture f;
	struct notes *notes;
	struct book book;
	pid_t pid[VICTIMS], looker;
	uint64_t random, kills, keeper_kills, reclaim_kills;
	const struct arena_sizes sizes;
};

static struct now
race_now(const struct race *r)
{
	return (struct now){ FIXTURE_MONO_NS, FIXTURE_WALL_NS + atomic_load(&r->notes->days) * DAY_NS };
}

/* A request's life between its calls of the ledger, so that deaths fall there
 * too and the keeper keeps up. */
static void
live(struct booking *b)
{
	uint64_t turns = book_draw(&b->random, 1000);

	for (volatile uint64_t i = 0; i < turns; i++)
		;
}

static uint64_t
own_random(uint64_t number)
{
	return (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15) + number + 1;
}

static _Noreturn void
work(struct race *r, uint32_t worker)
{
	struct booking b = { .arena = &r->f.arena, .store = r->book.store, .worker = worker, .patient = true, .around = live };

	b.random = own_random(worker);
	while (!atomic_load(&r->notes->stop)) {
		b.now = race_now(r);
		atomic_fetch_add(&r->notes->ended[worker][book_request(&b)], 1);
		atomic_fetch_add(&r->notes->moves, b.moves);
		b.moves = 0;
	}
	_exit(0);
}

static _Noreturn void
keep(struct race *r)
{
	struct booking tool = { .arena = &r->f.arena, .store = r->book.store, .random = own_random(KEEPER) };

	while (!atomic_load(&r->notes->stop)) {
		uint64_t what = book_draw(&tool.random, 16);

		r->book.now = tool.now = race_now(r);
		if (what > 11)
			atomic_fetch_add(&r->notes->evicted, book_evict(&r->book, BOOK_METERS));
		else if (what == 0 && book_reset(&tool, BOOK_SMALL_BUDGET + (uint32_t)book_draw(&tool.random, 8)) == RESET_DONE)
			atomic_fetch_add(&r->notes->resets, 1);
		else
			book_read(&r->book);
		sched_yield();
	}
	_exit(0);
}

static _Noreturn void
look(struct race *r)
{
	while (!atomic_load(&r->notes->stop)) {
		r->book.now = race_now(r);
		book_glance(&r->book);
		atomic_fetch_add(&r->notes->glances, 1);
		for (int tries = 0; tries < 100; tries++)
			if (book_look(&r->book))
				atomic_fetch_add(&r->notes->looks, 1);
	}
	_exit(0);
}

static void
start(struct race *r, uint32_t victim)
{
	r->pid[victim] = fork_or_exit();
	if (r->pid[victim] != 0)
		return;
	if (victim == KEEPER)
		keep(r);
	work(r, victim);
}

static void
wait_for(pid_t pid, bool killed)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) ||
	    (!killed && status != 0))
		book_fail("how a process ended", status, killed ? SIGKILL : 0);
}

static void
end_by_force(pid_t pid)
{
	kill(pid, SIGKILL);
	wait_for(pid, true);
}

/* Ends what a dead worker had in flight; one reclaimer in four is killed too,
 * and then another one does it. */
static void
reclaim(struct race *r, uint32_t worker, bool keeper_lives)
{
	if (book_draw(&r->random, 4) == 0) {
		pid_t pid = fork_or_exit();

		if (pid == 0) {
			for (;;)
				if (ledger_reclaim(&r->f.arena, worker, book_orphan, NULL, race_now(r)) == 0)
					_exit(0);
		}
		linger_until(clock_mono_ns() + (int64_t)book_draw(&r->random, 150 * NS_PER_US));
		end_by_force(pid);
		r->reclaim_kills++;
	}
	while (ledger_reclaim(&r->f.arena, worker, book_orphan, NULL, race_now(r)) > 0)
		if (keeper_lives)
			sched_yield();
		else
			book_read(&r->book);
}

static void
kill_at_random(struct race *r, int64_t seconds)
{
	int64_t now = clock_mono_ns(), next = now, until = now + seconds * NS_PER_S;

	while ((now = clock_mono_ns()) < until) {
		uint32_t victim = (uint32_t)book_draw(&r->random, VICTIMS);

		/* A busy machine is late; it does not get longer for that. */
		next = (now > next + 10 * KILL_NS ? now : next) + (int64_t)book_draw(&r->random, 2 * KILL_NS);
		linger_until(next);
		end_by_force(r->pid[victim]);
		r->kills++;
		if (victim == KEEPER)
			r->keeper_kills++;
		else
			reclaim(r, victim, true);
		if (book_draw(&r->random, 20) == 0)
			atomic_fetch_add(&r->notes->days, 1);
		start(r, victim);
		if (waitpid(r->looker, NULL, WNOHANG) != 0)
			book_fail("the one that looks has ended", 1, 0);
	}
}

/* All die at once; the next master finds the arena and puts it right. */
static void
kill_all_and_open_again(struct race *r)
{
	enum arena_origin origin;
	char why[256];

	for (uint32_t v = 0; v < VICTIMS; v++)
		kill(r->pid[v], SIGKILL);
	for (uint32_t v = 0; v < VICTIMS; v++)
		wait_for(r->pid[v], true);
	atomic_store(&r->notes->stop, 1);
	wait_for(r->looker, false);
	arena_close(&r->f.arena);
	if (arena_open(&r->f.arena, r->f.path, &r->sizes, &origin, why, sizeof(why)) != 0 || origin != ARENA_ATTACHED)
		book_fail(why, origin, ARENA_ATTACHED);
	r->book.now = race_now(r);
	book_audit(&r->book, false);
	for (uint32_t w = 0; w < WORKERS; w++)
		reclaim(r, w, false);
	book_audit(&r->book, true);
}

static uint64_t
noted(const struct race *r, enum booked how)
{
	uint64_t sum = 0;

	for (uint32_t w = 0; w < WORKERS; w++)
		sum += atomic_load(&r->notes->ended[w][how]);
	return sum;
}

static void
report(const struct race *r)
{
	const struct book_accounts *n = book_now(&r->book);

	printf("race_kill: %llu kills of workers, %llu of keepers, %llu of reclaimers; %llu requests refused, %llu settled, "
	    "%llu cancelled, %llu moves, after a death %llu settled and %llu cancelled with a draft; %llu evictions, %llu resets, %lld "
	    "days\n", (unsigned long long)(r->kills - r->keeper_kills), (unsigned long long)r->keeper_kills,
	    (unsigned long long)r->reclaim_kills, (unsigned long long)noted(r, BOOK_REFUSED),
	    (unsigned long long)n->settled, (unsigned long long)noted(r, BOOK_CANCELLED),
	    (unsigned long long)atomic_load(&r->notes->moves),
	    (unsigned long long)n->orphans_settled, (unsigned long long)n->orphans_cancelled,
	    (unsigned long long)atomic_load(&r->notes->evicted), (unsigned long long)n->resets,
	    (long long)atomic_load(&r->notes->days));
	printf("race_kill: looked %llu times at each meter and %llu times at all meters and pages between two steps; books "
	    "balance\n", (unsigned long long)atomic_load(&r->notes->glances),
	    (unsigned long long)atomic_load(&r->notes->looks));
}

int
main(int argc, char **argv)
{
	static struct race r = { .sizes = { .workers = WORKERS, .inflight = 4, .ring_bytes = 1 << 20, .meters = 64 } };
	long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : SECONDS;

	r.random = (uint64_t)clock_mono_ns() | 1;
	printf("seed %llu\n", (unsigned long long)r.random);
	fflush(stdout);
	fixture_open(&r.f, r.sizes);
	r.notes = mmap(NULL, sizeof(*r.notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r.notes == MAP_FAILED)
		return 1;
	book_open(&r.book, &r.f.arena, race_now(&r));
	r.looker = fork_or_exit();
	if (r.looker == 0)
		look(&r);
	for (uint32_t v = 0; v < VICTIMS; v++)
		start(&r, v);
	kill_at_random(&r, seconds > 0 ? seconds : SECONDS);
	kill_all_and_open_again(&r);
	/* Who lived to say that its request was settled has its record. */
	uint64_t settled = noted(&r, BOOK_SETTLED), records = book_now(&r.book)->settled;
	if (records < settled || records > settled + r.kills + WORKERS)
		book_fail("records of settled requests", (int64_t)records, (int64_t)settled);
	report(&r);
	fixture_close(&r.f);
	return atomic_load(&r.notes->looks) > 0 && atomic_load(&r.notes->evicted) > 0 && atomic_load(&r.notes->moves) > 0 ? 0 : 1;
}
