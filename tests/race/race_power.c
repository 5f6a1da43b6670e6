/*
 * A loss of power at random moments: what is on the disk opens, is consistent,
 * and lacks at most what had not been flushed yet.
 *
 * A real keeper stores what two workers and a tool settle, as fast as it can.
 * Again and again it is stopped, in the middle of whatever it does; the data
 * folder is copied; and from the copy some of the writes are taken that nobody
 * had waited for (disk.h). Each copy is opened as after a new boot. Then:
 *
 *	- each ring's records are there without a gap and once, from the first to
 *	  at least the last one that the keeper had taken off the ring;
 *	- the level of each budget is the sum of its charges in these records, and
 *	  each bucket is as its newest charge left it.
 *
 * The making of a store is stopped likewise, as often.
 *
 *	race_power [COPIES]
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gateway/channel.h"
#include "gateway/keeper.h"
#include "store/records.h"
#include "tests/race/disk.h"
#include "tests/unit/arena_fixture.h"

#define COPIES 60
#define WORKERS 2
#define ROWS (WORKERS + 1)	/* and that of the tools */
#define BUDGETS 12
#define BUCKETS 4
#define METERS (BUDGETS + BUCKETS)
#define ROUND_RECORDS 300	/* of each worker, at most, between two copies */
#define MOMENT_NS (12 * NS_PER_MS)	/* a copy is made at a random moment of this */
#define BIRTH_NS (15 * NS_PER_MS)	/* likewise, of a store that is made */
#define PATIENCE_NS (60 * NS_PER_S)

/* What the processes tell each other outside the arena. */
struct notes {
	_Atomic uint64_t goal;		/* a worker pauses when it has made so many */
	_Atomic uint64_t made[ROWS];	/* settled */
	_Atomic int stop;
};

struct power {
	struct fixture f;
	char folder[64], copy[96];
	struct settings *settings;
	struct notes *notes;
	pid_t keeper, worker[WORKERS];
	int control;
	uint64_t random;
	uint64_t durable[ROWS];		/* when the keeper was stopped: last sequence off the ring, */
	uint64_t made[ROWS];		/* ... and last one in it */
	uint64_t lost_most, lost_pages, carried, records;
};

/* What the records of a copy say. */
struct account {
	uint64_t last[ROWS];		/* number of the last record */
	uint64_t records;
	int64_t spent[METERS];
	int64_t full_wall_ns[METERS];
	uint64_t step[METERS];
	uint32_t levels;
};

static const struct arena_sizes sizes = { .workers = WORKERS, .inflight = 8, .ring_bytes = 1 << 18, .meters = 64 };
static char why[512];

static _Noreturn void
fail(const char *what, long long have, long long want)
{
	fprintf(stderr, "race_power: %s: %lld, should be %lld\n", what, have, want);
	exit(1);
}

static uint64_t
draw(uint64_t *random, uint64_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (*random >> 33) % below;
}

/* As fork(), for a child that does not outlive a failed test. */
static pid_t
child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		fail("fork", errno, 0);
	if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
		_exit(1);
	return pid;
}

/* ---- the load ---- */

static struct charge
meter_charge(uint32_t i)
{
	struct charge c = i < BUDGETS ? budget_charge(i + 1, i % 3 ? PERIOD_TOTAL : PERIOD_MONTHLY, INT64_MAX, 10)
				      : bucket_charge(i + 1, 1000000, 60 * NS_PER_S, 3);

	if (i < BUDGETS)
		c.unit = i % 4 == 0 ? UNIT_TOKENS : UNIT_NUSD;
	return c;
}

static struct inflight *
admit(struct arena *a, uint32_t worker, struct charge *c, uint32_t n, struct now now)
{
	const struct level nothing = { .known = false };
	struct inflight *e;
	struct refusal refusal;

	for (int tries = 0; tries < 1000; tries++) {
		uint64_t evictions = ledger_evictions(a);

		switch (ledger_admit(a, worker, c, n, NULL, now, &e, &refusal)) {
		case LEDGER_ADMITTED:
			return e;
		case LEDGER_UNKNOWN:
			if (ledger_load(a, worker, &c[refusal.charge], &nothing, evictions, now) == LOAD_FULL)
				fail("a full table", 1, 0);
			break;
		case LEDGER_REFUSED:
		case LEDGER_BUSY:
		case LEDGER_CROWDED:
			return NULL;
		}
	}
	return NULL;
}

static void
record_write(struct inflight *e, char row, uint64_t number)
{
	struct record r = { .fixed = { .status = 200 } };
	char id[32];

	snprintf(id, sizeof(id), "%c%llu", row, (unsigned long long)number);
	r.request_id = slice_of(id);
	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
}

static _Noreturn void
work(struct power *p, uint32_t worker)
{
	uint64_t random = worker + 99, made = 0;

	while (!atomic_load(&p->notes->stop)) {
		uint32_t n = 1 + (uint32_t)draw(&random, 6);
		struct settled used = { (int64_t)draw(&random, 1000), (int64_t)draw(&random, 50) };
		struct charge c[6];
		struct inflight *e;

		if (made >= atomic_load(&p->notes->goal)) {
			sched_yield();
			continue;
		}
		for (uint32_t i = 0; i < n; i++)
			c[i] = meter_charge((uint32_t)draw(&random, METERS));
		e = admit(&p->f.arena, worker, c, n, p->f.now);
		if (!e)
			continue;	/* a bucket is empty */
		record_write(e, (char)('a' + worker), made + 1);
		while (ledger_settle(&p->f.arena, worker, e, &used, p->f.now) != SETTLED)
			sched_yield();
		atomic_store(&p->notes->made[worker], ++made);
	}
	_exit(0);
}

/* Now and then somebody forgives a debt. */
static void
reset_one(struct power *p)
{
	uint64_t made = atomic_load(&p->notes->made[WORKERS]);
	uint32_t meter = (uint32_t)draw(&p->random, METERS);
	struct record r = { .fixed = { .status = 0 } };
	char id[32], bytes[512];
	uint32_t n;

	snprintf(id, sizeof(id), "%c%llu", 'a' + WORKERS, (unsigned long long)made + 1);
	r.request_id = slice_of(id);
	n = record_encode(&r, bytes, sizeof(bytes));
	if (ledger_reset(&p->f.arena, meter_charge(meter).id, bytes, n, p->f.now) == RESET_DONE)
		atomic_store(&p->notes->made[WORKERS], made + 1);
}

/* ---- files ---- */

static const struct power *copying;

static int
copy_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	char to[512], bytes[65536];
	int in, out;
	ssize_t n;

	(void)st;
	(void)at;
	snprintf(to, sizeof(to), "%s%s", copying->copy, path + strlen(copying->settings->data_dir));
	if (kind == FTW_D)
		return mkdir(to, 0700) == 0 || errno == EEXIST ? 0 : -1;
	in = open(path, O_RDONLY | O_CLOEXEC);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0)
		return -1;
	while ((n = read(in, bytes, sizeof(bytes))) > 0)
		if (write(out, bytes, (size_t)n) != n)
			return -1;
	close(in);
	close(out);
	return n < 0 ? -1 : 0;
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

/* ---- the processes ---- */

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
	if (!f)
		fail("a settings file", errno, 0);
	fprintf(f, "{\"data_dir\":\"%s/data\",\"run_dir\":\"%s/run\",\"ledger\":{\"flush_ms\":1}}", folder, folder);
	fclose(f);
	problems_init(&problems);
	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	s = settings_load(path, &bundle, &problems) ? settings_compile(buf_slice(&bundle), 1, &problems) : NULL;
	if (!s) {
		fprintf(stderr, "%.*s\n", SLICE_FMT(buf_slice(&problems.text)));
		exit(1);
	}
	problems_free(&problems);
	buf_free(&bundle);
	return s;
}

static void
start(struct power *p)
{
	int theirs;

	if (channel_pair(&p->control, &theirs) != 0)
		fail("a channel", errno, 0);
	p->keeper = child();
	if (p->keeper == 0) {
		close(p->control);
		disk_arm(p->settings->data_dir);
		_exit(keeper_run(&p->f.arena, p->settings, theirs));
	}
	close(theirs);
	for (uint32_t i = 0; i < WORKERS; i++) {
		p->worker[i] = child();
		if (p->worker[i] == 0) {
			close(p->control);
			work(p, i);
		}
	}
}

/* From its first moment on, whatever is in it already. */
static void
wait_for_folder(const char *folder)
{
	int64_t until = clock_mono_ns() + PATIENCE_NS;

	while (access(folder, F_OK) != 0) {
		if (clock_mono_ns() > until)
			fail("the data folder", errno, 0);
		sched_yield();
	}
}

static void
wait_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("how a process ended", status, 0);
}

/* ---- a copy ---- */

static void
note_durable(struct power *p)
{
	for (uint32_t i = 0; i < ROWS; i++) {
		struct ring_cursor c = ring_begin(&p->f.arena, i);
		struct ring_item item;
		uint64_t made = atomic_load(&p->notes->made[i]);

		p->made[i] = made;
		/* An empty ring: all that was ever in it, and settled before we looked, is stored. */
		if (ring_next(&p->f.arena, i, &c, &item))
			p->durable[i] = item.sequence - 1;
		else
			p->durable[i] = made;
	}
}

/* Stops that process at a random moment; false: it has ended before. */
static bool
stop_at_random(struct power *p, pid_t pid, uint64_t within_ns)
{
	int64_t until = clock_mono_ns() + (int64_t)draw(&p->random, within_ns);
	int status;

	while (clock_mono_ns() < until)
		sched_yield();
	kill(pid, SIGSTOP);
	if (waitpid(pid, &status, WUNTRACED) != pid)
		fail("waiting for a process that stops", errno, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	if (!WIFSTOPPED(status))
		fail("a process that stops", status, SIGSTOP);
	return true;
}

static void
copy_take(struct power *p, enum disk_loss loss)
{
	copying = p;
	if (nftw(p->settings->data_dir, copy_one, 16, FTW_PHYS) != 0)
		fail("a copy", errno, 0);
	p->lost_pages += disk_lose(p->copy, loss, &p->random);
}

static void
remove_folder(const char *folder)
{
	if (access(folder, F_OK) == 0 && nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		fail("a folder to remove", errno, 0);
}

static void
add_charge(struct account *a, const struct ring_charge *c)
{
	uint64_t i = c->id.lo - 1;

	if (i >= METERS)
		fail("a meter that nobody charged", (long long)i, METERS);
	if (meter_what_kind(c->what) == METER_BUDGET)
		a->spent[i] += c->amount;
	else if (c->step >= a->step[i]) {
		a->step[i] = c->step;
		a->full_wall_ns[i] = c->full_wall_ns;
	}
}

static bool
add_record(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct account *a = arg;
	int64_t number;
	uint32_t row;

	(void)id;
	if (r->request_id.n < 2 || !slice_to_i64((struct slice){ r->request_id.p + 1, r->request_id.n - 1 }, &number))
		fail("a record's name", 0, 1);
	row = (uint32_t)(r->request_id.p[0] - 'a');
	if (row >= ROWS)
		fail("a record's row", row, ROWS);
	if ((uint64_t)number != a->last[row] + 1)
		fail("a record that is missing or there twice", number, (long long)a->last[row] + 1);
	a->last[row]++;
	a->records++;
	for (uint32_t i = 0; i < n; i++)
		add_charge(a, &charges[i]);
	return true;
}

static bool
check_level(const struct stored_meter *m, void *arg)
{
	struct account *a = arg;
	uint64_t i = m->id.lo - 1;

	if (i >= METERS)
		fail("a level of no meter", (long long)i, METERS);
	if (meter_what_kind(m->level.what) == METER_BUDGET) {
		int64_t want = a->spent[i] > 0 ? a->spent[i] : 0;

		if (m->level.spent != want)
			fail("a level", m->level.spent, want);
	} else if (m->level.full_wall_ns != a->full_wall_ns[i]) {
		fail("a bucket", m->level.full_wall_ns, a->full_wall_ns[i]);
	}
	a->spent[i] = a->full_wall_ns[i] = 0;	/* seen */
	a->levels++;
	return true;
}

static void
note_carried(struct meter_id id, uint64_t what, int64_t before, int64_t after, void *arg)
{
	(void)id;
	(void)what;
	(void)before;
	(void)after;
	++*(uint64_t *)arg;
}

/* As a start after the loss does it, and then by what anybody can read. */
static void
check_folder(struct power *p, const char *folder)
{
	struct writer *w = writer_open(folder, why, sizeof(why));
	struct account a = { .records = 0 };
	struct reader *r;

	if (!w) {
		fprintf(stderr, "race_power: %s\n", why);
		exit(1);
	}
	writer_on_booked(w, note_carried, &p->carried);
	writer_close(w);
	r = reader_open(folder, why, sizeof(why));
	if (!r || reader_scan(r, 0, UINT64_MAX, add_record, &a) != 0 || reader_meters(r, check_level, &a) != 0)
		fail("a copy that can be read", 0, 1);
	reader_close(r);
	for (uint32_t i = 0; i < METERS; i++)
		if (a.spent[i] > 0 || a.full_wall_ns[i] != 0)
			fail("a meter without a level", i, -1);
	for (uint32_t i = 0; i < ROWS; i++) {
		if (a.last[i] < p->durable[i])
			fail("records that were durable", (long long)a.last[i], (long long)p->durable[i]);
		if (p->made[i] > a.last[i] && p->made[i] - a.last[i] > p->lost_most)
			p->lost_most = p->made[i] - a.last[i];
	}
}

static void
make_store(struct power *p)
{
	struct writer *w;
	uint32_t records;

	disk_arm(p->settings->data_dir);
	w = writer_open(p->settings->data_dir, why, sizeof(why));
	if (!w || writer_flush(w, &p->f.arena, &records, why, sizeof(why)) != 0)
		_exit(1);
	writer_close(w);
	_exit(0);
}

/* Two records that wait for a store. */
static void
settle_two(struct power *p)
{
	for (uint64_t i = 1; i <= 2; i++) {
		const struct settled used = { 1, 1 };
		struct charge c = meter_charge(0);
		struct inflight *e = admit(&p->f.arena, 0, &c, 1, p->f.now);

		record_write(e, 'a', i);
		if (ledger_settle(&p->f.arena, 0, e, &used, p->f.now) != SETTLED)
			fail("a ring with room", 0, 1);
		atomic_store(&p->notes->made[0], i);
	}
}

/* The first moments of a store. */
static uint32_t
check_births(struct power *p, int births)
{
	uint32_t stopped = 0;

	for (int i = 0; i < births; i++) {
		pid_t pid;

		fixture_open(&p->f, sizes);
		settle_two(p);
		pid = child();
		if (pid == 0)
			make_store(p);
		if (stop_at_random(p, pid, BIRTH_NS)) {
			stopped++;
			note_durable(p);
			if (access(p->settings->data_dir, F_OK) == 0)
				copy_take(p, (enum disk_loss)(i % 3));
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			check_folder(p, p->copy);
		}
		remove_folder(p->copy);
		remove_folder(p->settings->data_dir);
		fixture_close(&p->f);
		disk_forget();
	}
	return stopped;
}

static void
check_load(struct power *p, int copies)
{
	for (int i = 0; i < copies; i++) {
		uint64_t made = 0;

		/* Nothing to store makes no test: each round has records on their way. */
		for (uint32_t row = 0; row < WORKERS; row++)
			made = made < atomic_load(&p->notes->made[row]) ? atomic_load(&p->notes->made[row]) : made;
		atomic_store(&p->notes->goal, made + ROUND_RECORDS);
		if (draw(&p->random, 3) == 0)
			reset_one(p);
		if (!stop_at_random(p, p->keeper, MOMENT_NS))
			fail("a keeper that goes on", 0, 1);
		note_durable(p);
		copy_take(p, (enum disk_loss)(i % 3));
		kill(p->keeper, SIGCONT);
		check_folder(p, p->copy);
		remove_folder(p->copy);
	}
}

static void
finish(struct power *p)
{
	atomic_store(&p->notes->stop, 1);
	for (uint32_t i = 0; i < WORKERS; i++)
		wait_end(p->worker[i]);
	close(p->control);
	wait_end(p->keeper);
	for (uint32_t i = 0; i < ROWS; i++)
		p->durable[i] = p->made[i] = atomic_load(&p->notes->made[i]);
	check_folder(p, p->settings->data_dir);
	for (uint32_t i = 0; i < ROWS; i++)
		p->records += p->made[i];
}

/* A store from its making on. Each has a short life, so that copies stay small. */
static uint32_t
check_life(struct power *p, int copies)
{
	uint32_t births;

	*p->notes = (struct notes){ 0 };
	births = check_births(p, copies);
	*p->notes = (struct notes){ 0 };
	fixture_open(&p->f, sizes);
	start(p);
	wait_for_folder(p->settings->data_dir);
	check_load(p, copies);
	finish(p);
	fixture_close(&p->f);
	remove_folder(p->settings->data_dir);
	disk_forget();
	return births;
}

int
main(int argc, char **argv)
{
	int copies = argc > 1 ? (int)strtol(argv[1], NULL, 10) : COPIES;
	struct power p = { .random = 4711 };
	uint64_t births = 0;

	snprintf(p.folder, sizeof(p.folder), "/tmp/weir-power-XXXXXX");
	if (!mkdtemp(p.folder) || !disk_open())
		fail("a folder", errno, 0);
	snprintf(p.copy, sizeof(p.copy), "%s/copy", p.folder);
	p.settings = settings_make(p.folder);
	p.notes = mmap(NULL, sizeof(*p.notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p.notes == MAP_FAILED)
		fail("shared memory", errno, 0);
	for (int done = 0; done < copies; done += COPIES)
		births += check_life(&p, copies - done < COPIES ? copies - done : COPIES);
	if (copies >= COPIES && (p.lost_pages == 0 || p.carried == 0 || births == 0))
		fail("copies that were taken in the middle of a flush", 0, 1);
	printf("%d copies under load, %llu of a store in the making: all opened; %llu unsynced pages lost, %llu levels carried over, at most %llu records of a worker lost; %llu records\n",
	    copies, (unsigned long long)births, (unsigned long long)p.lost_pages, (unsigned long long)p.carried,
	    (unsigned long long)p.lost_most, (unsigned long long)p.records);
	settings_put(p.settings);
	remove_folder(p.folder);
	return 0;
}
