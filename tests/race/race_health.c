/*
 * Eight workers on the tables that have no lock (health, claims, places) are killed
 * at random moments, one every few milliseconds, and buried by the parent, which is
 * their master. What must be alone is alone all the while (crowd.h), and a process
 * that is not killed looks at every row and place.
 *
 * Several times all die at once: the arena is opened again as by the next master, all
 * are buried, and the tables are audited.
 *
 *	race_health [SECONDS]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/race/children.h"
#include "tests/race/crowd.h"
#include "tests/unit/arena_fixture.h"

#define WORKERS 8
#define SECONDS 6
#define ROUNDS 4
#define KILL_NS (5 * NS_PER_MS)		/* on average */
#define DAY_MS (HEALTH_IDLE_NS / NS_PER_MS + 1)

struct race {
	struct fixture f;
	struct crowd *crowd;
	pid_t pid[WORKERS], watcher;
	uint64_t random, kills, days;
	const struct arena_sizes sizes;
};

static _Noreturn void
work(struct race *r, uint32_t worker)
{
	struct crowd_member m = { .arena = &r->f.arena, .crowd = r->crowd, .worker = worker,
		.random = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15) + worker + 1 };

	crowd_join(&m);
	for (;;)
		crowd_step(&m);
}

static _Noreturn void
watch(struct race *r)
{
	while (!atomic_load(&r->crowd->stop))
		crowd_watch(&r->f.arena, r->crowd);
	_exit(0);
}

static void
start(struct race *r, uint32_t worker)
{
	r->pid[worker] = fork_or_exit();
	if (r->pid[worker] == 0)
		work(r, worker);
}

static void
end_by_force(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		crowd_fail("how a worker ended", status, SIGKILL);
}

static void
kill_at_random(struct race *r, int64_t for_ns)
{
	int64_t now = clock_mono_ns(), next = now, until = now + for_ns;

	while ((now = clock_mono_ns()) < until) {
		uint32_t victim = (uint32_t)crowd_draw(&r->random, WORKERS);

		/* A busy machine is late; it does not get longer for that. */
		next = (now > next + 10 * KILL_NS ? now : next) + (int64_t)crowd_draw(&r->random, 2 * KILL_NS);
		linger_until(next);
		end_by_force(r->pid[victim]);
		r->kills++;
		crowd_bury(r->crowd, &r->f.arena, victim);
		if (crowd_draw(&r->random, 20) == 0) {
			atomic_fetch_add(&r->crowd->clock_ms, DAY_MS);
			r->days++;
		}
		start(r, victim);
		if (waitpid(r->watcher, NULL, WNOHANG) != 0)
			crowd_fail("the one that looks has ended", 0, 0);
	}
}

static void
watcher_ends(struct race *r)
{
	int status;

	atomic_store(&r->crowd->stop, 1);
	if (waitpid(r->watcher, &status, 0) != r->watcher || status != 0)
		crowd_fail("how the one that looks ended", status, 0);
	atomic_store(&r->crowd->stop, 0);
}

/* All die at once; the next master finds the arena and puts it right. */
static void
kill_all_and_open_again(struct race *r)
{
	enum arena_origin origin;
	char why[256];

	for (uint32_t w = 0; w < WORKERS; w++)
		end_by_force(r->pid[w]);
	watcher_ends(r);
	arena_close(&r->f.arena);
	if (arena_open(&r->f.arena, r->f.path, &r->sizes, &origin, why, sizeof(why)) != 0 || origin != ARENA_ATTACHED)
		crowd_fail(why, origin, ARENA_ATTACHED);
	for (uint32_t w = 0; w < WORKERS; w++)
		crowd_bury(r->crowd, &r->f.arena, w);
	crowd_audit(&r->f.arena, r->crowd);
}

static bool
report(const struct race *r)
{
	const struct crowd *c = r->crowd;
	struct health_counts n = health_counts(&r->f.arena);
	uint64_t ejected = 0;

	for (int i = 0; i < HEALTH_WHYS; i++)
		ejected += n.ejected[i];
	printf("race_health: %llu kills, %llu days; %llu ejections, %llu probes: %llu closed, %llu dropped, %llu beside one of "
	    "before; %llu reports without a row\n", (unsigned long long)r->kills, (unsigned long long)r->days,
	    (unsigned long long)ejected, (unsigned long long)c->probes, (unsigned long long)c->closed, (unsigned long long)c->drops,
	    (unsigned long long)c->late_probes, (unsigned long long)n.unkept);
	printf("race_health: %llu claims, %llu times somebody had it, %llu collisions; %llu places known, %llu unknown; looked at "
	    "%llu rows; nothing was had twice\n", (unsigned long long)c->claims, (unsigned long long)c->others,
	    (unsigned long long)c->collisions, (unsigned long long)c->known, (unsigned long long)c->unknown,
	    (unsigned long long)c->rows_seen);
	return r->kills > 0 && c->closed > 0 && c->drops > 0 && c->late_probes > 0 && c->others > 0 && c->collisions > 0 &&
	    c->known > 0 && c->rows_seen > 0 && n.unkept > 0;
}

int
main(int argc, char **argv)
{
	static struct race r = { .sizes = { .workers = WORKERS, .inflight = 1, .ring_bytes = 65536, .meters = 64 } };
	long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : SECONDS;

	r.random = (uint64_t)clock_mono_ns() | 1;
	printf("seed %llu\n", (unsigned long long)r.random);
	fflush(stdout);
	fixture_open(&r.f, r.sizes);
	r.crowd = mmap(NULL, sizeof(*r.crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r.crowd == MAP_FAILED)
		return 1;
	for (int round = 0; round < ROUNDS; round++) {
		r.watcher = fork_or_exit();
		if (r.watcher == 0)
			watch(&r);
		for (uint32_t w = 0; w < WORKERS; w++)
			start(&r, w);
		kill_at_random(&r, (seconds > 0 ? seconds : SECONDS) * NS_PER_S / ROUNDS);
		kill_all_and_open_again(&r);
	}
	bool enough = report(&r);
	fixture_close(&r.f);
	return enough ? 0 : 1;
}
