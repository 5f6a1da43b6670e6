/*
 * What the ledger costs: admit and settle over six meters (a bucket of
 * requests, one of tokens, a count of requests in flight, a budget of tokens,
 * two of money), with a record of 600 bytes, the rings being drained.
 *
 *	alone		one process, on ten meters or so
 *	contended	two processes, all on the same six meters
 *	a million	one process, a million meters, each request on others
 *	refused		by the last of the six
 *	recovery	a worker is killed with 1,000 requests in flight, on other
 *			meters each, and reclaimed
 *
 * Requests are made as the gateway makes them: authentication reads the key,
 * in which the rows of its meters are remembered, copies the charges and asks
 * for the meters' lines (ledger_prefetch()); some requests later this one is
 * admitted. "Unfetched" leaves that out. A request is settled at once, or
 * ("late") when 64 others were admitted in between.
 *
 * Ten and a million are measured in turn, in one process, so what slows a whole
 * round cancels out of their ratio. Prints a line of JSON a figure: medians.
 *
 *	bench_ledger [ROUNDS]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "shm/ring.h"
#include "tests/bench/histogram.h"
#include "tests/bench/median.h"

#define ROUNDS_MAX 101
#define ROUNDS 11
#define PAIRS 100000		/* in a round */
#define METERS 6
#define FEW 2			/* sets of six meters */
#define MANY (1000000 / METERS)
#define AHEAD 4			/* requests between authentication and admission */
#define LATE 64			/* requests between admission and settlement, if late */
#define RECORD_BYTES 600
#define LOST 1000		/* requests in flight of a dead worker */
#define DEATHS 15

static const char path[] = "/dev/shm/weir-bench-ledger";

struct shared {
	_Atomic int ready, go;
	uint64_t other_cpu_ns;
	struct histogram other;
};

struct key {			/* what stays with a key: where its meters were last time */
	uint32_t row[METERS];
};

struct request {
	uint64_t set;
	struct charge c[METERS];
	struct inflight *e;
};

struct way {			/* of measuring */
	uint64_t sets;
	bool fetched, late, refused;
};

static struct arena arena;
static struct shared *shared;
static struct key *keys;
static char record[RECORD_BYTES];
static int rounds = ROUNDS;

static void
give_up(const char *why)
{
	fprintf(stderr, "bench_ledger: %s\n", why);
	exit(1);
}

static uint64_t
draw(uint64_t below)
{
	static uint64_t random = 1;

	random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (random >> 32) % below;
}

static struct now
now_of_day(void)
{
	return (struct now){ clock_mono_ns(), clock_wall_ns() };
}

/* ---- a request ---- */

static const struct charge like[METERS] = {
	{ .kind = METER_BUCKET, .unit = UNIT_REQUESTS, .window_ns = 60 * NS_PER_S, .fixed = 1 },
	{ .kind = METER_BUCKET, .unit = UNIT_TOKENS, .window_ns = 60 * NS_PER_S, .fixed = 900, .slope_milli = 1000 },
	{ .kind = METER_CONCURRENCY, .unit = UNIT_REQUESTS, .fixed = 1 },
	{ .kind = METER_BUDGET, .unit = UNIT_TOKENS, .period = PERIOD_DAILY, .fixed = 900, .slope_milli = 1000 },
	{ .kind = METER_BUDGET, .unit = UNIT_NUSD, .period = PERIOD_MONTHLY, .fixed = 2700000, .slope_milli = 15000000 },
	{ .kind = METER_BUDGET, .unit = UNIT_NUSD, .period = PERIOD_TOTAL, .fixed = 2700000, .slope_milli = 15000000 },
};

/* The key's own lines are near: authentication has just compared its hash. */
static void
request_choose(struct request *r, const struct way *w)
{
	r->set = draw(w->sets);
	__builtin_prefetch(&keys[r->set]);
}

static void
request_make(struct request *r, const struct way *w)
{
	for (uint32_t i = 0; i < METERS; i++) {
		r->c[i] = like[i];
		r->c[i].id = (struct meter_id){ r->set + 1, (i + 1) * UINT64_C(0x9e3779b97f4a7c15) };
		r->c[i].row = keys[r->set].row[i];
		r->c[i].limit = INT64_C(1) << 52;
	}
	if (w->refused)
		r->c[METERS - 1].limit = 1;
	if (w->fetched)
		ledger_prefetch(&arena, r->c, METERS);
}

static void
request_load(uint32_t worker, struct charge *c, struct now now)
{
	static const struct level nothing = { .known = false };

	if (ledger_load(&arena, worker, c, &nothing, ledger_evictions(&arena), now) != LOAD_DONE)
		give_up("a meter cannot be loaded");
}

static void
request_admit(uint32_t worker, struct request *r, struct now now)
{
	struct demand d = { .most = 32000, .floor = 4096, .share = 8 };
	struct refusal why;
	enum ledger_verdict v;

	while ((v = ledger_admit(&arena, worker, r->c, METERS, &d, now, &r->e, &why)) == LEDGER_UNKNOWN)
		request_load(worker, &r->c[why.charge], now);
	if (v == LEDGER_BUSY)
		give_up("the worker is full");
	for (uint32_t i = 0; i < METERS; i++)
		if (keys[r->set].row[i] != r->c[i].row)
			keys[r->set].row[i] = r->c[i].row;
	if (v != LEDGER_ADMITTED) {
		r->e = NULL;
		return;
	}
	memcpy(inflight_record(r->e), record, RECORD_BYTES);
	inflight_record_set(r->e, RECORD_BYTES);
	inflight_sent(r->e);
}

static void
request_settle(uint32_t worker, struct request *r, struct now now)
{
	const struct settled used = { .cost_nusd = 9000000, .tokens = 1300 };

	if (r->e && ledger_settle(&arena, worker, r->e, &used, now) != SETTLED)
		give_up("the ring is full");
	r->e = NULL;
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

/* ---- a round ---- */

/* Processor time a pair. `h` takes what a pair took by the clock, if it is given. */
static double
run(uint32_t worker, const struct way *w, struct histogram *h)
{
	static struct request r[2 * AHEAD + LATE + 1];
	const uint64_t slots = sizeof(r) / sizeof(r[0]), late = w->late ? LATE : 0;
	int64_t last = clock_mono_ns(), cpu = cpu_ns();

	memset(r, 0, sizeof(r));
	for (uint64_t i = 0; i < 2 * AHEAD; i++)
		request_choose(&r[i], w);
	for (uint64_t i = 0; i < AHEAD; i++)
		request_make(&r[i], w);
	for (uint64_t i = 0; i < PAIRS + late; i++) {
		struct now now = now_of_day();

		if (i < PAIRS)
			request_admit(worker, &r[i % slots], now);
		if (i >= late)
			request_settle(worker, &r[(i - late) % slots], now);
		if (h)
			histogram_add(h, (uint64_t)(now.mono_ns - last));
		last = now.mono_ns;
		request_make(&r[(i + AHEAD) % slots], w);
		request_choose(&r[(i + 2 * AHEAD) % slots], w);
		if (i % 64 == 63) {
			drain(worker);
			last = clock_mono_ns();
		}
	}
	return (double)(cpu_ns() - cpu) / PAIRS;
}

static void
tell(const char *name, const char *unit, double value)
{
	printf("{\"bench\":\"ledger\",\"name\":\"%s\",\"unit\":\"%s\",\"value\":%.3f}\n", name, unit, value);
}

/* Few and many in turn. */
static void
compare(const char *name, bool fetched, bool late)
{
	const struct way few = { FEW, fetched, late, false }, many = { MANY, fetched, late, false };
	double cpu_few[ROUNDS_MAX], cpu_many[ROUNDS_MAX], ratio[ROUNDS_MAX];
	char text[64];

	for (int i = 0; i < rounds; i++) {
		cpu_few[i] = run(0, &few, NULL);
		cpu_many[i] = run(0, &many, NULL);
		ratio[i] = cpu_many[i] / cpu_few[i];
	}
	snprintf(text, sizeof(text), "ten_meters%s", name);
	tell(text, "ns", median(cpu_few, (size_t)rounds));
	snprintf(text, sizeof(text), "million_meters%s", name);
	tell(text, "ns", median(cpu_many, (size_t)rounds));
	snprintf(text, sizeof(text), "million_ratio%s", name);
	tell(text, "ratio", median(ratio, (size_t)rounds));
}

static void
alone(const char *name, bool refused)
{
	const struct way w = { 1, true, false, refused };
	static struct histogram h;
	double cpu[ROUNDS_MAX], slow[ROUNDS_MAX];
	char text[64];

	for (int i = 0; i < rounds; i++) {
		memset(&h, 0, sizeof(h));
		cpu[i] = run(0, &w, &h);
		slow[i] = (double)histogram_quantile_ns(&h, 0.999) / 1000;
	}
	tell(name, "ns", median(cpu, (size_t)rounds));
	snprintf(text, sizeof(text), "%s_p999", name);
	tell(text, "us", median(slow, (size_t)rounds));
}

/* The other one of two: a round each time it is told to. */
static _Noreturn void
contend(const struct way *w)
{
	for (int i = 1; i <= rounds; i++) {
		atomic_store(&shared->ready, i);
		while (atomic_load(&shared->go) < i)
			;
		memset(&shared->other, 0, sizeof(shared->other));
		shared->other_cpu_ns = (uint64_t)run(1, w, &shared->other);
	}
	atomic_store(&shared->ready, rounds + 1);
	_exit(0);
}

static void
contended(void)
{
	const struct way w = { 1, true, false, false };
	static struct histogram h;
	double cpu[ROUNDS_MAX], slow[ROUNDS_MAX];
	int status;
	pid_t other = fork();

	if (other == 0)
		contend(&w);
	for (int i = 1; i <= rounds; i++) {
		while (atomic_load(&shared->ready) < i)
			;
		memset(&h, 0, sizeof(h));
		atomic_store(&shared->go, i);
		cpu[i - 1] = run(0, &w, &h);
		while (atomic_load(&shared->ready) < i + 1)
			;
		cpu[i - 1] = (cpu[i - 1] + (double)shared->other_cpu_ns) / 2;
		double own = (double)histogram_quantile_ns(&h, 0.999), others = (double)histogram_quantile_ns(&shared->other, 0.999);
		slow[i - 1] = (own > others ? own : others) / 1000;
	}
	if (other < 0 || waitpid(other, &status, 0) != other || status != 0)
		give_up("the second process failed");
	tell("contended", "ns", median(cpu, (size_t)rounds));
	tell("contended_p999", "us", median(slow, (size_t)rounds));
}

/* ---- recovery ---- */

static void
finish(char *text, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	(void)state;
	(void)arg;
	snprintf(text + *bytes - 32, 32, "%lld", (long long)m->cost_nusd);
}

/* Dies with LOST requests in flight, three of four of them sent and metered. */
static _Noreturn void
die(void)
{
	const struct way w = { MANY, true, false, false };
	const struct metered m = { .total_tokens = 1000, .cost_nusd = 5000000 };
	struct request r;

	for (int i = 0; i < LOST; i++) {
		request_choose(&r, &w);
		request_make(&r, &w);
		request_admit(1, &r, now_of_day());
		if (i % 4 != 0)
			inflight_metered(r.e, &m);
	}
	kill(getpid(), SIGKILL);
	_exit(1);
}

static void
recovery(void)
{
	double took_ms[DEATHS];

	for (int i = 0; i < DEATHS; i++) {
		int status;
		pid_t pid = fork();

		draw(2);	/* other requests each time */
		if (pid == 0)
			die();
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
			give_up("the one that should die");
		if (ledger_inflight_count(&arena, 1) != LOST)
			give_up("requests of the dead worker are missing");
		int64_t begin = clock_mono_ns();
		uint32_t left = ledger_reclaim(&arena, 1, finish, NULL, now_of_day());
		took_ms[i] = (double)(clock_mono_ns() - begin) / 1e6;
		if (left != 0 || ledger_inflight_count(&arena, 1) != 0 || ledger_inflight_held(&arena) != 0)
			give_up("not all was reclaimed");
		drain(1);
	}
	tell("recovery_of_1000", "ms", median(took_ms, DEATHS));
	tell("recovery_of_1000_worst", "ms", took_ms[DEATHS - 1]);
}

/* Makes all meters, set by set, as their first requests do. */
static void
make_meters(void)
{
	const struct way w = { 1, false, false, false };
	struct request r;

	for (uint64_t set = 0; set < MANY; set++) {
		for (uint32_t i = 0; i < METERS; i++)
			keys[set].row[i] = UINT32_MAX;
		r.set = set;
		request_make(&r, &w);
		struct now now = now_of_day();
		request_admit(0, &r, now);
		request_settle(0, &r, now);
		drain(0);
	}
}

int
main(int argc, char **argv)
{
	const struct arena_sizes sizes = { .workers = 2, .inflight = 1024, .ring_bytes = 1 << 22, .meters = 1 << 21 };
	enum arena_origin origin;
	char why[256], lock[64];

	if (argc > 1)
		rounds = (int)strtol(argv[1], NULL, 10);
	if (rounds < 1 || rounds > ROUNDS_MAX)
		give_up("ROUNDS: 1 to 101");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	keys = calloc(MANY, sizeof(*keys));
	if (shared == MAP_FAILED || !keys)
		give_up("no memory");
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(path);		/* of a run that was killed */
	if (arena_open(&arena, path, &sizes, &origin, why, sizeof(why)) != 0)
		give_up(why);
	unlink(path);
	unlink(lock);
	make_meters();
	alone("alone", false);
	alone("refused", true);
	compare("", true, false);
	compare("_unfetched", false, false);
	compare("_late", true, true);
	recovery();
	contended();	/* last: its second process inherits all */
	arena_close(&arena);
	free(keys);
	return 0;
}
