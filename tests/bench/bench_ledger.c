/*
 * What the ledger costs: admit and settle over six meters (three buckets, three
 * budgets), with a record of 600 bytes, the rings being drained.
 *
 *	one process
 *	two processes, all on the same six meters, so that each waits for the other
 *	one process, a million meters of which each request takes other ones
 *	one process, refused (which rolls the step back)
 *
 * Prints nanoseconds of processor time a pair, waiting included, and the 99.9th
 * percentile of the time that a pair took by the clock.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/ring.h"

#define PAIRS 1000000
#define RECORD_BYTES 600
#define MANY 1000000
#define SLOT_NS 20			/* resolution of the percentile */
#define SLOTS 50000

static const char path[] = "/dev/shm/weir-bench-ledger";

struct result {
	_Atomic int ready;
	uint64_t cpu_ns[2];
	uint32_t slot[2][SLOTS + 1];
};

static struct arena arena;
static struct result *result;

static void
give_up(const char *why)
{
	fprintf(stderr, "bench_ledger: %s\n", why);
	exit(1);
}

static int64_t
cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void
make_charges(struct charge c[6], uint64_t set)
{
	for (uint64_t i = 0; i < 6; i++)
		c[i] = (struct charge){
			.id = { set + 1, i * UINT64_C(0x9e3779b97f4a7c15) },
			.kind = i < 3 ? METER_BUCKET : METER_BUDGET,
			.period = i < 3 ? PERIOD_TOTAL : (enum meter_period)(i - 2),
			.row = UINT32_MAX,
			.limit = INT64_C(1) << 52,
			.window_ns = 60 * NS_PER_S,
			.amount = 1000,
		};
}

static void
drain(uint32_t worker)
{
	struct ring_cursor at = ring_begin(&arena, worker);
	struct ring_item item;

	while (ring_next(&arena, worker, &at, &item))
		;
	ring_advance(&arena, worker, at);
}

static void
pair(uint32_t worker, struct charge *c, const char *record)
{
	struct now now = { clock_mono_ns(), clock_wall_ns() };
	struct inflight *e;
	struct refusal why;

	if (ledger_admit(&arena, worker, c, 6, now, &e, &why) != LEDGER_ADMITTED)
		return;
	memcpy(inflight_record(e), record, RECORD_BYTES);
	inflight_record_set(e, RECORD_BYTES);
	inflight_sent(e);
	if (ledger_settle(&arena, worker, e, 900, now) != SETTLED)
		give_up("the ring is full");
}

/* As authentication does some microseconds before a request is admitted: it
 * reads the key, where its charges are. */
static void
touch(const struct charge *c)
{
	for (size_t at = 0; at < 6 * sizeof(*c); at += CACHE_LINE)
		__builtin_prefetch((const char *)c + at);
}

/* PAIRS pairs over `sets` sets of six meters, with rows remembered. */
static void
run(uint32_t worker, int processes, uint64_t sets, bool refused)
{
	struct charge *c = calloc(sets, 6 * sizeof(*c));
	char record[RECORD_BYTES] = "";
	uint64_t set = 0, random = 1;

	if (!c)
		give_up("no memory");
	for (uint64_t i = 0; i < sets; i++)
		make_charges(&c[i * 6], i);
	if (refused)
		c[5].amount = c[5].limit + 1;
	for (uint64_t i = 0; i < sets; i++) {		/* makes the meters, warms up */
		pair(worker, &c[i * 6], record);
		drain(worker);
	}
	atomic_fetch_add(&result->ready, 1);
	while (atomic_load(&result->ready) < processes)
		;
	int64_t cpu = cpu_ns(), last = clock_mono_ns();
	for (int i = 0; i < PAIRS; i++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		uint64_t next = (random >> 32) % sets;

		touch(&c[next * 6]);
		pair(worker, &c[set * 6], record);
		set = next;
		int64_t now = clock_mono_ns(), took = (now - last) / SLOT_NS;
		result->slot[worker][took < SLOTS ? took : SLOTS]++;
		last = now;
		if (i % 64 == 63) {
			drain(worker);
			last = clock_mono_ns();
		}
	}
	result->cpu_ns[worker] = (uint64_t)(cpu_ns() - cpu);
	free(c);
}

static uint64_t
percentile_ns(int processes, uint64_t permille_of_permille)
{
	uint64_t want = (uint64_t)PAIRS * (uint64_t)processes / 1000000 * permille_of_permille, seen = 0;

	for (uint64_t i = 0; i <= SLOTS; i++) {
		seen += result->slot[0][i] + result->slot[1][i];
		if (seen >= want)
			return i * SLOT_NS;
	}
	return SLOTS * SLOT_NS;
}

static void
measure(const char *name, int processes, uint64_t sets, bool refused)
{
	int status = 0;

	memset(result, 0, sizeof(*result));
	pid_t other = processes == 2 ? fork() : -1;
	run(other == 0, processes, sets, refused);
	if (other == 0)
		_exit(0);
	if (other > 0 && (waitpid(other, &status, 0) != other || status != 0))
		give_up("the second process failed");
	uint64_t cpu = (result->cpu_ns[0] + result->cpu_ns[1]) / ((uint64_t)PAIRS * (uint64_t)processes);
	printf("%-34s %6llu ns cpu a pair, p50 %5llu ns, p99.9 %6llu ns\n", name, (unsigned long long)cpu,
	    (unsigned long long)percentile_ns(processes, 500000), (unsigned long long)percentile_ns(processes, 999000));
}

int
main(void)
{
	const struct arena_sizes sizes = { .workers = 2, .inflight = 64, .ring_bytes = 1 << 20, .meters = 1 << 21 };
	enum arena_origin origin;
	char why[256], lock[64];

	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (result == MAP_FAILED)
		give_up("no memory");
	if (arena_open(&arena, path, &sizes, &origin, why, sizeof(why)) != 0)
		give_up(why);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(path);
	unlink(lock);
	measure("one process", 1, 1, false);
	measure("two processes, the same meters", 2, 1, false);
	measure("a million meters", 1, MANY / 6, false);
	measure("refused", 1, 1, true);
	arena_close(&arena);
	return 0;
}
