/*
 * Six workers on one arena, killed at random moments for some seconds; so is
 * the one that reclaims. The parent is master and keeper. After each death the
 * books are read, at the end they are audited, and the arena is opened once
 * more as after a kill of all at once.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/race/books.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 6
#define RUN_NS (8 * NS_PER_S)
#define DAY_NS (86400 * NS_PER_S)

/* What the processes tell each other outside the arena. */
struct notes {
	_Atomic uint64_t ended[WORKERS][BOOK_NO_ROOM];	/* by enum booked, as far as one lived to say so */
	_Atomic int64_t days;			/* the wall clock */
	_Atomic int stop;
};

struct race {
	struct fixture f;
	struct notes *notes;
	struct book book;
	pid_t pid[WORKERS];
	uint64_t random, kills, reclaim_kills;
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
live(void)
{
	static uint64_t random = 1;
	uint64_t turns = book_draw(&random, 1000);

	for (volatile uint64_t i = 0; i < turns; i++)
		;
}

static _Noreturn void
work(struct race *r, uint32_t worker)
{
	struct booking b = { .arena = &r->f.arena, .worker = worker, .patient = true, .around = live };

	if (nice(10) < 0)	/* so that master and keeper get their turn on a small machine */
		_exit(1);
	b.random = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15) + worker + 1;
	while (!atomic_load(&r->notes->stop)) {
		b.now = race_now(r);
		atomic_fetch_add(&r->notes->ended[worker][book_request(&b)], 1);
	}
	_exit(0);
}

static pid_t
start(struct race *r, uint32_t worker)
{
	pid_t pid = fork();

	if (pid == 0)
		work(r, worker);
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

static void
wait_for(pid_t pid, bool killed)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) ||
	    (!killed && status != 0))
		book_fail("how a process ended", status, killed ? SIGKILL : 0);
}

/* Waits some microseconds, at random, in the way a busy machine does. */
static void
linger(struct race *r, uint64_t below_ns)
{
	int64_t until = clock_mono_ns() + (int64_t)book_draw(&r->random, below_ns);

	while (clock_mono_ns() < until) {
		book_glance(&r->book);
		book_read(&r->book);
	}
}

/* Ends what a dead worker had in flight; one reclaimer in four is killed too,
 * and then another one does it. */
static void
reclaim(struct race *r, uint32_t worker)
{
	if (book_draw(&r->random, 4) == 0) {
		pid_t pid = fork();

		if (pid == 0) {
			for (;;)
				if (ledger_reclaim(&r->f.arena, worker, book_orphan, NULL, race_now(r)) == 0)
					_exit(0);
		}
		linger(r, 150000);
		kill(pid, SIGKILL);
		wait_for(pid, true);
		r->reclaim_kills++;
	}
	while (ledger_reclaim(&r->f.arena, worker, book_orphan, NULL, race_now(r)) > 0)
		book_read(&r->book);
}

static void
kill_at_random(struct race *r)
{
	int64_t end = clock_mono_ns() + RUN_NS;

	while (clock_mono_ns() < end) {
		uint32_t worker = (uint32_t)book_draw(&r->random, WORKERS);

		linger(r, 4 * (uint64_t)NS_PER_MS);
		kill(r->pid[worker], SIGKILL);
		wait_for(r->pid[worker], true);
		r->kills++;
		reclaim(r, worker);
		if (book_draw(&r->random, 20) == 0)
			atomic_fetch_add(&r->notes->days, 1);
		r->pid[worker] = start(r, worker);
	}
}

/* All die at once; the next master finds the arena and puts it right. */
static void
kill_all_and_open_again(struct race *r)
{
	enum arena_origin origin;
	char why[256];

	for (uint32_t w = 0; w < WORKERS; w++)
		kill(r->pid[w], SIGKILL);
	for (uint32_t w = 0; w < WORKERS; w++)
		wait_for(r->pid[w], true);
	arena_close(&r->f.arena);
	if (arena_open(&r->f.arena, r->f.path, &r->sizes, &origin, why, sizeof(why)) != 0 || origin != ARENA_ATTACHED)
		book_fail(why, origin, ARENA_ATTACHED);
	book_audit(&r->book, false);
	for (uint32_t w = 0; w < WORKERS; w++)
		reclaim(r, w);
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
	printf("race_kill: %llu kills, %llu of them of reclaimers; %llu requests refused, %llu settled, %llu "
	    "cancelled, after a death %llu settled and %llu cancelled with a draft; %lld days; books balance\n",
	    (unsigned long long)(r->kills + r->reclaim_kills), (unsigned long long)r->reclaim_kills,
	    (unsigned long long)noted(r, BOOK_REFUSED), (unsigned long long)r->book.settled,
	    (unsigned long long)noted(r, BOOK_CANCELLED), (unsigned long long)r->book.orphans_settled,
	    (unsigned long long)r->book.orphans_cancelled, (long long)atomic_load(&r->notes->days));
}

int
main(void)
{
	static struct race r = { .sizes = { .workers = WORKERS, .inflight = 4, .ring_bytes = 1 << 20, .meters = 64 } };

	r.random = (uint64_t)clock_mono_ns() | 1;
	printf("seed %llu\n", (unsigned long long)r.random);
	fflush(stdout);
	fixture_open(&r.f, r.sizes);
	r.notes = mmap(NULL, sizeof(*r.notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r.notes == MAP_FAILED)
		return 1;
	book_open(&r.book, &r.f.arena, race_now(&r));
	for (uint32_t w = 0; w < WORKERS; w++)
		r.pid[w] = start(&r, w);
	kill_at_random(&r);
	kill_all_and_open_again(&r);
	book_audit(&r.book, true);
	/* Who lived to say that its request was settled has its record. */
	uint64_t settled = noted(&r, BOOK_SETTLED);
	if (r.book.settled < settled || r.book.settled > settled + r.kills + WORKERS)
		book_fail("records of settled requests", (int64_t)r.book.settled, (int64_t)settled);
	report(&r);
	fixture_close(&r.f);
	return 0;
}
