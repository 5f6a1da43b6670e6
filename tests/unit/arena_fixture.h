/*
 * tests/unit/arena_fixture.h -- an arena in a folder of its own, and charges.
 *
 * For the tests of shm/, in tests/unit and tests/race. Time stands still
 * unless a test moves it.
 */
#ifndef WEIR_TESTS_UNIT_ARENA_FIXTURE_H
#define WEIR_TESTS_UNIT_ARENA_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/ledger.h"

#define FIXTURE_WALL_NS (INT64_C(1795000000) * NS_PER_S)	/* in November 2026 */
#define FIXTURE_MONO_NS (1000 * NS_PER_S)

struct fixture {
	char folder[64];
	char path[96];
	struct arena arena;
	struct now now;
};

static inline void
fixture_close(struct fixture *f)
{
	static const char *const names[] = { "", ".lock", ".old", ".new" };
	char name[128];

	arena_close(&f->arena);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", f->path, names[i]);
		unlink(name);
	}
	rmdir(f->folder);
}

/* Nothing works without it, so it ends the program when it fails. */
static inline void
fixture_open(struct fixture *f, struct arena_sizes sizes)
{
	enum arena_origin origin;
	char why[256] = "no folder can be made in /dev/shm";

	*f = (struct fixture){ .folder = "/dev/shm/weir-test-XXXXXX" };
	f->now = (struct now){ FIXTURE_MONO_NS, FIXTURE_WALL_NS };
	char *folder = mkdtemp(f->folder);
	snprintf(f->path, sizeof(f->path), "%s/arena", f->folder);
	if (!folder || arena_open(&f->arena, f->path, &sizes, &origin, why, sizeof(why)) != 0 ||
	    origin != ARENA_CREATED) {
		fprintf(stderr, "fixture: %s\n", why);
		exit(1);
	}
}

static inline struct charge
bucket_charge(uint64_t id, int64_t limit, int64_t window_ns, int64_t amount)
{
	return (struct charge){
		.id = { 1, id },
		.kind = METER_BUCKET,
		.row = UINT32_MAX,
		.limit = limit,
		.window_ns = window_ns,
		.fixed = amount,
	};
}

static inline struct charge
budget_charge(uint64_t id, enum meter_period period, int64_t limit, int64_t amount)
{
	return (struct charge){
		.id = { 2, id },
		.kind = METER_BUDGET,
		.unit = UNIT_NUSD,
		.period = period,
		.row = UINT32_MAX,
		.limit = limit,
		.fixed = amount,
	};
}

static inline struct charge
concurrency_charge(uint64_t id, int64_t limit)
{
	return (struct charge){
		.id = { 3, id },
		.kind = METER_CONCURRENCY,
		.row = UINT32_MAX,
		.limit = limit,
		.fixed = 1,
	};
}

/* Meters that are not in memory begin unused, as if the store knew none. */
static inline enum ledger_verdict
fixture_admit(struct fixture *f, uint32_t worker, struct charge *c, uint32_t n, struct demand *d,
    struct inflight **e, struct refusal *why)
{
	const struct level nothing = { .known = false };

	for (;;) {
		uint64_t evictions = ledger_evictions(&f->arena);
		enum ledger_verdict verdict = ledger_admit(&f->arena, worker, c, n, d, f->now, e, why);

		if (verdict != LEDGER_UNKNOWN)
			return verdict;
		if (ledger_load(&f->arena, worker, &c[why->charge], &nothing, evictions, f->now) == LOAD_FULL)
			return verdict;
	}
}

static inline enum ledger_verdict
fixture_move(struct fixture *f, uint32_t worker, struct inflight **e, const struct metered *used, struct charge *c,
    uint32_t n, struct demand *d, struct refusal *why)
{
	const struct level nothing = { .known = false };

	for (;;) {
		uint64_t evictions = ledger_evictions(&f->arena);
		enum ledger_verdict verdict = ledger_move(&f->arena, worker, e, used, c, n, d, f->now, why);

		if (verdict != LEDGER_UNKNOWN)
			return verdict;
		if (ledger_load(&f->arena, worker, &c[why->charge], &nothing, evictions, f->now) == LOAD_FULL)
			return verdict;
	}
}

#endif
