/*
 * Dies at every single instruction of the ledger's calls: a child that makes a
 * request is stepped through one of its calls, an instruction at a time
 * (ptrace), and killed after the first, the second, ... until the call returns.
 * So for each call of a request, for the reclaim of what is left of one, and for a
 * keeper that evicts.
 * After each death the books are audited.
 *
 * And once between the two halves of giving the lock back, when it is free and who
 * sleeps for it has not been woken: somebody else takes the lock, so the kernel
 * wakes nobody either. The sleeper must come to it all the same.
 *
 * By default one instruction in STRIDE, beginning elsewhere in each run; with
 * the argument 1 all of them. Where ptrace is not permitted the test is
 * skipped.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/journal.h"
#include "tests/race/books.h"
#include "tests/race/stepped.h"
#include "tests/unit/arena_fixture.h"

/* Primes. A sanitizer makes several times as many instructions of a call, and the
 * time grows with their square. */
#ifdef __SANITIZE_ADDRESS__
#define STRIDE 499
#else
#define STRIDE 37
#endif
#define REQUESTS 5	/* of different kinds, and each reclaimed */

static struct {
	struct fixture f;
	struct book book;
	uint64_t stride, calls, instructions, deaths, reclaim_deaths, keeper_deaths;
} test;

/* In the child: stops before its n-th call, and again after it. */
static uint64_t call_wanted, calls_seen;

static void
stop(void)
{
	uint64_t n = calls_seen++;

	if (n == 2 * call_wanted)
		stepped_begin();
	else if (n == 2 * call_wanted + 1)
		stepped_end();
}

static void
around(struct booking *b)
{
	(void)b;
	stop();
}

static void
request(uint64_t seed)
{
	struct booking b = { .arena = &test.f.arena, .store = test.book.store, .random = seed, .now = test.f.now,
		.around = around };

	book_request(&b);
}

/* The keeper's own steps: it ticks, stores, frees room and evicts. */
static void
keep(uint64_t seed)
{
	(void)seed;
	stop();
	book_evict(&test.book, BOOK_METERS);
	stop();
}

static void
reclaim(uint64_t seed)
{
	(void)seed;
	stop();
	ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now);
	stop();
}

/* A child that stands before its n-th call; 0: it makes fewer, and is over. */
static pid_t
start(stepped_fn *act, uint64_t seed, uint64_t call)
{
	call_wanted = call;
	return stepped_start(act, seed);
}

/* Steps a child so far and kills it. false: the call had returned before. */
static bool
kill_after(pid_t pid, uint64_t instructions)
{
	bool inside = stepped_kill(pid, instructions);

	book_read(&test.book);		/* the keeper may be faster than a repair */
	ledger_lock(&test.f.arena);	/* what the next one to come does */
	ledger_unlock(&test.f.arena);
	book_audit(&test.book, false);
	return inside;
}

static void
end_all(void)
{
	ledger_reclaim(&test.f.arena, 0, book_orphan, NULL, test.f.now);
	book_audit(&test.book, true);
}

/* Each call of a request; false when there is no such call. */
static bool
die_in_call(uint64_t seed, uint64_t call)
{
	for (uint64_t n = 1 + (seed + call) % test.stride;; n += test.stride) {
		pid_t pid = start(request, seed, call);
		bool died = pid != 0 && kill_after(pid, n);

		end_all();
		if (pid == 0)
			return false;
		if (!died) {
			test.instructions += n;
			test.calls++;
			return true;
		}
		test.deaths++;
	}
}

/* The reclaim of a request that died between two of its calls. */
static void
die_in_reclaim(uint64_t seed, uint64_t call)
{
	for (uint64_t n = 1 + seed % test.stride;; n += test.stride) {
		pid_t pid = start(request, seed, call);

		if (pid == 0)
			break;
		kill_after(pid, 0);
		pid = start(reclaim, 0, 0);
		if (pid == 0)
			book_fail("a reclaim that does nothing", 0, 1);
		if (!kill_after(pid, n))
			break;
		end_all();
		test.reclaim_deaths++;
	}
	end_all();
}

/* A keeper that has meters to evict. */
static void
die_in_keeper(uint64_t seed)
{
	for (uint64_t n = 1 + seed % test.stride;; n += test.stride) {
		struct booking b = { .arena = &test.f.arena, .store = test.book.store, .random = seed, .now = test.f.now };

		while (book_request(&b) != BOOK_SETTLED)
			;
		pid_t pid = start(keep, 0, 0);
		if (pid == 0)
			book_fail("a keeper that does nothing", 0, 1);
		if (!kill_after(pid, n))
			break;
		test.keeper_deaths++;
	}
	book_audit(&test.book, true);
}

/* ---- who sleeps for the lock ---- */

static void
hold_and_give_back(uint64_t seed)
{
	(void)seed;
	ledger_lock(&test.f.arena);
	stop();
	ledger_unlock(&test.f.arena);
	stop();
}

/* glibc's: the owner's thread id, and the kernel's bit for "somebody sleeps". */
static uint32_t
lock_word(void)
{
	return (uint32_t)__atomic_load_n(&test.f.arena.header->ledger.mutex.__data.__lock, __ATOMIC_SEQ_CST);
}

static bool
is_asleep(pid_t pid)
{
	char path[64], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		book_fail("the state of a process", errno, 0);
	fclose(f);
	return state == 'S';
}

static void
wait_until_over(pid_t pid)
{
	const int64_t until = clock_mono_ns() + 20 * NS_PER_S;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (clock_mono_ns() > until)
			book_fail("a sleeper was forgotten: the lock is free, and it does not get it", (int64_t)lock_word(), 0);
		sched_yield();
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		book_fail("how the sleeper ended", status, 0);
}

static void
die_before_waking(void)
{
	pid_t holder = start(hold_and_give_back, 0, 0), sleeper = fork();

	if (sleeper == 0) {
		ledger_lock(&test.f.arena);
		ledger_unlock(&test.f.arena);
		_exit(0);
	}
	if (holder == 0 || sleeper < 0)
		book_fail("fork", errno, 0);
	while (!(lock_word() & FUTEX_WAITERS) || !is_asleep(sleeper))
		sched_yield();
	while (lock_word() != 0)
		if (!stepped_once(holder))
			book_fail("a holder that gives the lock back", (int64_t)lock_word(), 0);
	ledger_lock(&test.f.arena);
	stepped_end_by_force(holder);
	ledger_unlock(&test.f.arena);
	wait_until_over(sleeper);
}

int
main(int argc, char **argv)
{
	uint64_t seed = (uint64_t)clock_mono_ns() | 1;

	test.stride = argc > 1 ? strtoull(argv[1], NULL, 10) : STRIDE;
	if (test.stride == 0)
		test.stride = 1;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	fixture_open(&test.f, (struct arena_sizes){ .workers = 1, .inflight = 4, .ring_bytes = 65536, .meters = 64 });
	book_open(&test.book, &test.f.arena, test.f.now);
	for (uint64_t i = 0; i < REQUESTS; i++) {
		for (uint64_t call = 0; die_in_call(seed + 2 * i, call); call++)
			;
		die_in_reclaim(seed + 2 * i, 1);	/* admitted */
		die_in_reclaim(seed + 2 * i, 4);	/* most often sent */
	}
	die_in_keeper(seed);
	die_before_waking();
	printf("race_step: %llu deaths in %llu calls of %llu instructions, %llu in reclaims, %llu in "
	    "keepers; %llu records; books balance after each\n", (unsigned long long)test.deaths, (unsigned long long)test.calls,
	    (unsigned long long)test.instructions, (unsigned long long)test.reclaim_deaths,
	    (unsigned long long)test.keeper_deaths, (unsigned long long)book_now(&test.book)->records);
	fixture_close(&test.f);
	return 0;
}
