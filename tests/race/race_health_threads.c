/*
 * The same crowd (crowd.h) as threads of one process, so that ThreadSanitizer can
 * watch; one more only looks. Nobody dies; time is moved on by a day now and then,
 * so that rows are given away under those who use them.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/clock.h"
#include "tests/race/crowd.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 4
#define STEPS 1000000		/* each */
#define DAY_STEPS 50000		/* of the first one */
#define DAY_MS (HEALTH_IDLE_NS / NS_PER_MS + 1)

static struct {
	struct fixture f;
	struct crowd crowd;
	_Atomic int working;
} test;

static void *
work(void *arg)
{
	uint32_t worker = (uint32_t)(uintptr_t)arg;
	struct crowd_member m = { .arena = &test.f.arena, .crowd = &test.crowd, .worker = worker,
		.random = (uint64_t)clock_mono_ns() * UINT64_C(0x9e3779b97f4a7c15) + worker + 1 };

	crowd_join(&m);
	for (int i = 0; i < STEPS; i++) {
		crowd_step(&m);
		if (worker == 0 && i % DAY_STEPS == DAY_STEPS - 1)
			atomic_fetch_add(&test.crowd.clock_ms, DAY_MS);
	}
	atomic_fetch_sub(&test.working, 1);
	return NULL;
}

static void *
watch(void *arg)
{
	(void)arg;
	while (atomic_load(&test.working) > 0)
		crowd_watch(&test.f.arena, &test.crowd);
	return NULL;
}

int
main(void)
{
	pthread_t thread[WORKERS + 1];

	fixture_open(&test.f, (struct arena_sizes){ .workers = WORKERS, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	atomic_store(&test.working, WORKERS);
	for (uintptr_t w = 0; w <= WORKERS; w++)
		if (pthread_create(&thread[w], NULL, w < WORKERS ? work : watch, (void *)w) != 0)
			crowd_fail("a thread", (int64_t)w, 0);
	for (int i = 0; i <= WORKERS; i++)
		pthread_join(thread[i], NULL);
	crowd_audit(&test.f.arena, &test.crowd);
	printf("race_health_threads: %d steps by %d threads: %llu probes, %llu claims, %llu places known, looked at %llu rows; nothing "
	    "was had twice\n", WORKERS * STEPS, WORKERS, (unsigned long long)test.crowd.probes, (unsigned long long)test.crowd.claims,
	    (unsigned long long)test.crowd.known, (unsigned long long)test.crowd.rows_seen);
	fixture_close(&test.f);
	return test.crowd.probes > 0 && test.crowd.others > 0 && test.crowd.known > 0 && test.crowd.rows_seen > 0 ? 0 : 1;
}
