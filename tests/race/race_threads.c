/*
 * Four workers as threads of one process, so that ThreadSanitizer can watch;
 * beside them a keeper that reads the rings and one that only looks. Here time
 * passes: a tight bucket has to admit exactly what refills, though all of them
 * ask it at once and read the clock before they have the lock.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/ring.h"
#include "tests/race/books.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 4
#define REQUESTS 20000		/* each, with accounts */
#define TICKS 40000		/* of the clock, for the bucket */
#define TICK_NS NS_PER_MS
#define BUCKET_LIMIT 50
#define BUCKET_WINDOW_NS NS_PER_S

static struct {
	struct fixture f;
	struct book book;
	_Atomic int64_t ticks;
	_Atomic uint64_t admitted, asked, looks, moves;
	_Atomic int working;
	uint64_t evicted;
	bool accounts;		/* all meters are those of the books */
} test;

static struct now
tick_now(void)
{
	return (struct now){ FIXTURE_MONO_NS + atomic_load(&test.ticks) * TICK_NS, FIXTURE_WALL_NS };
}

static void
ask_bucket(uint32_t worker)
{
	struct charge c = bucket_charge(1000, BUCKET_LIMIT, BUCKET_WINDOW_NS, 1);
	struct inflight *e;
	struct refusal why;

	atomic_fetch_add(&test.asked, 1);
	if (ledger_admit(&test.f.arena, worker, &c, 1, NULL, tick_now(), &e, &why) != LEDGER_ADMITTED)
		return;
	atomic_fetch_add(&test.admitted, 1);
	/* Without a record, but not cancelled: settled, and the record is empty. */
	const struct settled nothing = { 0 };
	while (ledger_settle(&test.f.arena, worker, e, &nothing, tick_now()) != SETTLED)
		;
}

static void
load_bucket(void)
{
	struct charge c = bucket_charge(1000, BUCKET_LIMIT, BUCKET_WINDOW_NS, 1);
	const struct level nothing = { .known = false };

	if (ledger_load(&test.f.arena, 0, &c, &nothing, ledger_evictions(&test.f.arena), tick_now()) != LOAD_DONE)
		book_fail("a load", 1, 0);
}

static void *
work_accounts(void *arg)
{
	uint32_t worker = (uint32_t)(uintptr_t)arg;
	struct booking b = { .arena = &test.f.arena, .store = test.book.store, .worker = worker, .random = worker + 77,
		.now = test.f.now, .patient = true };

	for (int i = 0; i < REQUESTS; i++)
		book_request(&b);
	atomic_fetch_add(&test.moves, b.moves);
	atomic_fetch_sub(&test.working, 1);
	return NULL;
}

static void *
work_bucket(void *arg)
{
	uint32_t worker = (uint32_t)(uintptr_t)arg;

	while (atomic_load(&test.ticks) < TICKS) {
		ask_bucket(worker);
		if (worker == 0)
			atomic_fetch_add(&test.ticks, 1);
	}
	for (int i = 0; i < BUCKET_LIMIT + 1; i++)	/* until it has nothing left */
		ask_bucket(worker);
	atomic_fetch_sub(&test.working, 1);
	return NULL;
}

static void *
look(void *arg)
{
	(void)arg;
	while (atomic_load(&test.working) > 0) {
		book_glance(&test.book);
		if (test.accounts && book_look(&test.book))
			atomic_fetch_add(&test.looks, 1);
		if (ledger_inflight_held(&test.f.arena) < 0)
			book_fail("held by pages", -1, 0);
	}
	return NULL;
}

static void
empty_rings(void)
{
	for (uint32_t w = 0; w < WORKERS; w++) {
		struct ring_cursor at = ring_begin(&test.f.arena, w);
		struct ring_item item;

		while (ring_next(&test.f.arena, w, &at, &item))
			;
		ring_advance(&test.f.arena, w, at);
	}
}

/* Runs the workers and the looker; reads the rings meanwhile. */
static void
run(void *(*work)(void *), void (*read_rings)(void))
{
	pthread_t thread[WORKERS + 1];

	atomic_store(&test.working, WORKERS);
	for (uintptr_t w = 0; w < WORKERS; w++)
		if (pthread_create(&thread[w], NULL, work, (void *)w) != 0)
			book_fail("a thread", 0, 1);
	if (pthread_create(&thread[WORKERS], NULL, look, NULL) != 0)
		book_fail("a thread", 0, 1);
	while (atomic_load(&test.working) > 0)
		read_rings();
	for (int i = 0; i <= WORKERS; i++)
		pthread_join(thread[i], NULL);
	read_rings();
}

static void
read_book(void)
{
	static uint64_t turn;

	if (turn++ % 16 == 0)
		test.evicted += book_evict(&test.book, 4);
	else
		book_read(&test.book);
}

int
main(void)
{
	fixture_open(&test.f, (struct arena_sizes){ .workers = WORKERS, .inflight = 4, .ring_bytes = 1 << 18,
	    .meters = 64 });
	book_open(&test.book, &test.f.arena, test.f.now);
	test.accounts = true;
	run(work_accounts, read_book);
	book_audit(&test.book, true);
	test.accounts = false;
	load_bucket();
	run(work_bucket, empty_rings);

	/* It was asked more often than it refills, so it was never full again:
	 * its content and what came in went to somebody. */
	uint64_t exact = BUCKET_LIMIT + TICKS * TICK_NS / (BUCKET_WINDOW_NS / BUCKET_LIMIT);
	if (atomic_load(&test.admitted) != exact)
		book_fail("admitted by the bucket", (int64_t)atomic_load(&test.admitted), (int64_t)exact);
	printf("race_threads: %d requests by %d threads, %llu settled, %llu moves; of %llu that asked one bucket %llu were "
	    "admitted, which is exact; %llu evictions, %llu looks at everything; books balance\n", WORKERS * REQUESTS, WORKERS,
	    (unsigned long long)book_now(&test.book)->settled, (unsigned long long)atomic_load(&test.moves), (unsigned long long)atomic_load(&test.asked),
	    (unsigned long long)exact, (unsigned long long)test.evicted, (unsigned long long)atomic_load(&test.looks));
	fixture_close(&test.f);
	return 0;
}
