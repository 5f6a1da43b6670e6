/*
 * The response cache while its keeper and its workers are killed at random moments.
 *
 * Four workers send answers and read what others have sent; a real keeper takes
 * their mail. One of the five is killed every few milliseconds and followed by
 * another one. Now and then somebody deletes the cache under their hands, or
 * makes it look as if it was from before a start of the machine. All the while:
 *
 *	- what is read is whole, was sent under that key, and stays so as long as it
 *	  is held (every entry follows from its key and its version);
 *	- whenever the keeper is dead, the sums in the environment are those of its
 *	  entries, both indexes agree, and the bound is kept; and it is still the one
 *	  that it was, unless somebody did one of those things to it.
 *
 *	race_cache [SECONDS]
 */
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "gateway/cache_mail.h"
#include "gateway/channel.h"
#include "gateway/keeper.h"
#include "shm/metrics.h"
#include "tests/unit/arena_fixture.h"
#include "tests/unit/cache_fixture.h"

#define WORKERS 4
#define KEEPER WORKERS		/* a victim too */
#define VICTIMS (WORKERS + 1)
#define SECONDS 8
#define KILL_NS (8 * NS_PER_MS)	/* on average */
#define KEYS 300
#define CACHE_BYTES (2 << 20)	/* less than they send: entries leave all the time */
#define BODY_BYTES_MAX 200000
#define PATIENCE_NS (60 * NS_PER_S)

struct notes {
	_Atomic uint64_t sent[KEYS];	/* versions that somebody began to send */
	_Atomic uint64_t puts, deletes, hits, misses, held;
	_Atomic int stop;
};

struct race {
	struct fixture f;
	struct notes *notes;
	struct settings *settings;
	char folder[64];
	int mail, mail_keeper, control;
	pid_t pid[VICTIMS];
	uint64_t random, kills, keeper_kills, audits, deleted, boots, entries;
	uint64_t secret[2], made;	/* of the environment that was seen last, and how many there were */
};

static _Noreturn void
fail(const char *what, uint64_t have, uint64_t want)
{
	fprintf(stderr, "race_cache: %s: %llu, should be %llu\n", what, (unsigned long long)have, (unsigned long long)want);
	exit(1);
}

static pid_t
child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		fail("fork", 0, 1);
	if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
		_exit(1);
	return pid;
}

/* ---- a worker ---- */

static void
send_one(struct race *r, uint32_t worker, uint64_t *random)
{
	static char bytes[CACHE_HEAD_BYTES_MAX + BODY_BYTES_MAX];
	uint64_t number = cache_draw(random, KEYS), key[2] = { number, ~number };
	int64_t now = clock_wall_ns();
	struct cache_spec s = { .key = number, .created_wall_ns = now };
	struct cache_entry e;
	size_t n;

	if (cache_draw(random, 10) == 0) {
		atomic_fetch_add(&r->notes->deletes, cache_mail_delete(r->mail, key, &r->f.arena, worker));
		return;
	}
	s.version = atomic_fetch_add(&r->notes->sent[number], 1) + 1;
	s.body_bytes = cache_draw(random, 3) == 0 ? cache_draw(random, BODY_BYTES_MAX) : cache_draw(random, 3000);
	s.expires_wall_ns = now + 1 + (int64_t)cache_draw(random, 4) * NS_PER_S;
	n = cache_encode(&s, bytes);
	CHECK(cache_entry_decode((struct slice){ bytes, n }, &e));
	atomic_fetch_add(&r->notes->puts, cache_mail_put(r->mail, key, &e, BODY_BYTES_MAX * 2, &r->f.arena, worker));
}

static void
check_entry(struct race *r, uint64_t number, const struct cache_entry *e)
{
	uint64_t version = cache_version(number, e), most = atomic_load(&r->notes->sent[number]);

	if (version == 0 || version > most)
		fail("a version that was read", version, most);
}

static void
read_one(struct race *r, struct cache *c, uint64_t *random)
{
	uint64_t number = cache_draw(random, KEYS), key[2] = { number, ~number };
	struct cache_entry e;

	if (!cache_get(c, key, clock_wall_ns(), &e)) {
		atomic_fetch_add(&r->notes->misses, 1);
		return;
	}
	check_entry(r, number, &e);
	if (cache_draw(random, 8) == 0) {	/* the keeper goes on meanwhile */
		int64_t until = clock_mono_ns() + (int64_t)cache_draw(random, 5000) * NS_PER_US;

		while (clock_mono_ns() < until)
			sched_yield();
		check_entry(r, number, &e);
		atomic_fetch_add(&r->notes->held, 1);
	}
	cache_done(c);
	atomic_fetch_add(&r->notes->hits, 1);
}

static _Noreturn void
work(struct race *r, uint32_t worker)
{
	uint64_t random = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15) + 1;
	struct cache *c = cache_open_read(r->settings->data_dir);

	CHECK(c);
	while (!atomic_load(&r->notes->stop)) {
		if (cache_draw(&random, 4) == 0)
			send_one(r, worker, &random);
		else
			read_one(r, c, &random);
	}
	cache_close(c);
	_exit(0);
}

/* ---- the master ---- */

static struct settings *
settings_make(const char *folder)
{
	struct settings *s;
	struct problems problems;
	struct buf bundle;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/weir.json", folder);
	f = fopen(path, "w");
	CHECK(f);
	fprintf(f, "{\"data_dir\":\"%s/data\",\"run_dir\":\"%s/run\",\"cache\":{\"bytes\":%d,\"entry_bytes\":%d}}", folder, folder,
	    CACHE_BYTES, BODY_BYTES_MAX * 2);
	fclose(f);
	problems_init(&problems);
	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	s = settings_load(path, &bundle, &problems) ? settings_compile(buf_slice(&bundle), 1, &problems) : NULL;
	CHECK(s);
	problems_free(&problems);
	buf_free(&bundle);
	return s;
}

static void
start(struct race *r, uint32_t victim)
{
	int theirs = -1;

	if (victim == KEEPER)
		CHECK(channel_pair(&r->control, &theirs) == 0);
	r->pid[victim] = child();
	if (r->pid[victim] == 0) {
		if (victim != KEEPER)
			work(r, victim);
		close(r->control);
		_exit(keeper_run(&r->f.arena, r->settings, theirs, r->mail_keeper));
	}
	if (theirs >= 0)
		close(theirs);
}

static void
kill_one(struct race *r, uint32_t victim)
{
	int status;

	kill(r->pid[victim], SIGKILL);
	if (waitpid(r->pid[victim], &status, 0) != r->pid[victim] || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail("how a process ended", (uint64_t)status, SIGKILL);
	if (victim == KEEPER)
		close(r->control);
}

static void
audit(struct race *r)
{
	struct cache_about about = cache_audit(r->settings->data_dir);

	if (about.bytes > CACHE_BYTES)
		fail("the bytes of the cache", about.bytes, CACHE_BYTES);
	if (about.format != 0 && memcmp(r->secret, about.secret, sizeof(r->secret)) != 0) {
		memcpy(r->secret, about.secret, sizeof(r->secret));
		r->made++;
	}
	if (r->made > r->deleted + r->boots + 1)
		fail("how often it was made", r->made, r->deleted + r->boots + 1);
	r->entries = about.entries > r->entries ? about.entries : r->entries;
	r->audits++;
}

/* While nobody writes it, or while somebody does. */
static void
disturb(struct race *r)
{
	char path[128];
	int fd;

	if (cache_draw(&r->random, 2) == 0) {
		snprintf(path, sizeof(path), "%s/cache", r->settings->data_dir);
		if (access(path, F_OK) == 0 && nftw(path, cache_remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0)
			r->deleted++;
		return;
	}
	snprintf(path, sizeof(path), "%s/cache.boot", r->settings->data_dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && pwrite(fd, "x", 1, 5) == 1)
		r->boots++;
	if (fd >= 0)
		close(fd);
}

static void
linger_until(int64_t mono_ns)
{
	const struct timespec ts = { .tv_sec = mono_ns / NS_PER_S, .tv_nsec = mono_ns % NS_PER_S };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
		;
}

static void
kill_at_random(struct race *r, int64_t seconds)
{
	int64_t now = clock_mono_ns(), next = now, until = now + seconds * NS_PER_S;

	while ((now = clock_mono_ns()) < until) {
		uint32_t victim = cache_draw(&r->random, VICTIMS);

		/* A busy machine is late; it does not get longer for that. */
		next = (now > next + 10 * KILL_NS ? now : next) + (int64_t)cache_draw(&r->random, 2 * KILL_NS);
		linger_until(next);
		kill_one(r, victim);
		r->kills++;
		if (victim == KEEPER) {
			r->keeper_kills++;
			audit(r);
		}
		if (cache_draw(&r->random, 60) == 0)
			disturb(r);
		start(r, victim);
	}
}

/* Nobody is killed any more: all end by themselves, and it works. */
static void
finish(struct race *r)
{
	uint64_t hits = atomic_load(&r->notes->hits);
	int64_t until = clock_mono_ns() + PATIENCE_NS;
	int status;

	while (atomic_load(&r->notes->hits) < hits + 100) {
		if (clock_mono_ns() > until)
			fail("hits at the end", atomic_load(&r->notes->hits) - hits, 100);
		sched_yield();
	}
	atomic_store(&r->notes->stop, 1);
	for (uint32_t v = 0; v < WORKERS; v++)
		if (waitpid(r->pid[v], &status, 0) != r->pid[v] || status != 0)
			fail("how a worker ended", (uint64_t)status, 0);
	close(r->control);
	if (waitpid(r->pid[KEEPER], &status, 0) != r->pid[KEEPER] || status != 0)
		fail("how the keeper ended", (uint64_t)status, 0);
	audit(r);
}

static void
report(struct race *r)
{
	struct metrics_view *v = malloc(sizeof(*v));
	struct notes *n = r->notes;

	CHECK(v);
	metrics_sum(&r->f.arena, v);
	printf("race_cache: %llu kills of workers, %llu of keepers; %llu entries sent and %llu deletions, %llu had no room; %llu stored, "
	    "%llu left for room, %llu expired\n", (unsigned long long)(r->kills - r->keeper_kills), (unsigned long long)r->keeper_kills,
	    (unsigned long long)atomic_load(&n->puts), (unsigned long long)atomic_load(&n->deletes),
	    (unsigned long long)v->counter[COUNTER_CACHE_REFUSED_QUEUE], (unsigned long long)v->counter[COUNTER_CACHE_STORED],
	    (unsigned long long)v->counter[COUNTER_CACHE_EVICTED], (unsigned long long)v->counter[COUNTER_CACHE_EXPIRED]);
	printf("race_cache: %llu hits, all whole, %llu of them held for a while, %llu misses; deleted %llu times, %llu times of another boot; "
	    "made %llu times; %llu audits, %llu entries at most\n", (unsigned long long)atomic_load(&n->hits), (unsigned long long)atomic_load(&n->held),
	    (unsigned long long)atomic_load(&n->misses), (unsigned long long)r->deleted, (unsigned long long)r->boots,
	    (unsigned long long)r->made, (unsigned long long)r->audits, (unsigned long long)r->entries);
	if (v->counter[COUNTER_CACHE_REFUSED_MALFORMED] != 0)
		fail("malformed mail", v->counter[COUNTER_CACHE_REFUSED_MALFORMED], 0);
	if (v->counter[COUNTER_CACHE_EVICTED] == 0 || atomic_load(&n->held) == 0 || r->keeper_kills == 0)
		fail("that what is to be tested happens", 0, 1);
	free(v);
}

int
main(int argc, char **argv)
{
	static struct race r = { .folder = "/tmp/weir-race-cache-XXXXXX" };
	long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : SECONDS;

	r.random = (uint64_t)clock_mono_ns() | 1;
	printf("seed %llu\n", (unsigned long long)r.random);
	fflush(stdout);
	fixture_open(&r.f, (struct arena_sizes){ .workers = WORKERS, .inflight = 4, .ring_bytes = 65536, .meters = 64 });
	CHECK(mkdtemp(r.folder) && cache_mail_pair(&r.mail, &r.mail_keeper) == 0);
	r.notes = mmap(NULL, sizeof(*r.notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(r.notes != MAP_FAILED);
	r.settings = settings_make(r.folder);
	for (uint32_t v = 0; v < VICTIMS; v++)
		start(&r, v);
	kill_at_random(&r, seconds > 0 ? seconds : SECONDS);
	finish(&r);
	report(&r);
	settings_put(r.settings);
	fixture_close(&r.f);
	nftw(r.folder, cache_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
