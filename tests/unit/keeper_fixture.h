/*
 * tests/unit/keeper_fixture.h -- a keeper as a process. The test plays the master
 * and the workers; the keeper is a forked child with its log in a file.
 */
#ifndef WEIR_TESTS_UNIT_KEEPER_FIXTURE_H
#define WEIR_TESTS_UNIT_KEEPER_FIXTURE_H

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gateway/cache_mail.h"
#include "gateway/channel.h"
#include "gateway/keeper.h"
#include "shm/ring.h"
#include "store/records.h"
#include "tests/unit/arena_fixture.h"
#include "upstream/wire/tls.h"

#define PATIENCE_NS (20 * NS_PER_S)

struct world {
	struct fixture f;
	char folder[64];
	struct settings *settings;
	pid_t keeper;
	int control;		/* the master's end */
	int lock;		/* what a rival holds the store by; -1 */
	int mail, mail_keeper;	/* the ends of cache_mail.h */
	uint32_t made;
	int64_t spent;
};

static char why[512];

static inline int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

/* A bundle with that flush time, and members more. */
static inline void
bundle_make_with(struct world *w, int flush_ms, const char *more, struct buf *bundle)
{
	struct problems problems;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/weir.json", w->folder);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "{\"data_dir\":\"%s/data\",\"run_dir\":\"%s/run\",\"ledger\":{\"flush_ms\":%d}%s}", w->folder, w->folder, flush_ms, more);
	fclose(f);
	problems_init(&problems);
	buf_init(bundle, SETTINGS_BUNDLE_BYTES_MAX);
	if (!settings_load(path, bundle, &problems))
		fail_msg("%.*s", SLICE_FMT(buf_slice(&problems.text)));
	problems_free(&problems);
}

static inline void
bundle_make(struct world *w, int flush_ms, struct buf *bundle)
{
	bundle_make_with(w, flush_ms, "", bundle);
}

static inline int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct problems problems;
	struct buf bundle;

	w->lock = -1;
	if (cache_mail_pair(&w->mail, &w->mail_keeper) != 0)
		return -1;
	fixture_open(&w->f, (struct arena_sizes){ .workers = 2, .inflight = 64, .ring_bytes = 65536, .meters = 64 });
	w->f.now = (struct now){ clock_mono_ns(), clock_wall_ns() };
	snprintf(w->folder, sizeof(w->folder), "/tmp/weir-keeper-XXXXXX");
	if (!mkdtemp(w->folder))
		return -1;
	bundle_make(w, 10, &bundle);
	problems_init(&problems);
	w->settings = settings_compile(buf_slice(&bundle), 1, &problems);
	problems_free(&problems);
	buf_free(&bundle);
	*state = w;
	return w->settings ? 0 : -1;
}

static inline int
teardown(void **state)
{
	struct world *w = *state;

	if (w->keeper > 0) {
		kill(w->keeper, SIGKILL);
		waitpid(w->keeper, NULL, 0);
	}
	close(w->mail);
	close(w->mail_keeper);
	settings_put(w->settings);
	fixture_close(&w->f);
	nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

/* In a child: its stderr goes to the log. */
static inline void
log_to_file(struct world *w)
{
	char log[128];
	int fd;

	snprintf(log, sizeof(log), "%s/log", w->folder);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(99);
}

static inline void
keeper_start(struct world *w)
{
	int theirs;

	assert_int_equal(channel_pair(&w->control, &theirs), 0);
	w->keeper = fork();
	if (w->keeper == 0) {
		log_to_file(w);
		close(w->control);
		if (w->lock >= 0)
			close(w->lock);
		_exit(keeper_run(&w->f.arena, w->settings, theirs, w->mail_keeper));
	}
	assert_true(w->keeper > 0);
	close(theirs);
}

static inline int
keeper_status(struct world *w)
{
	int status;

	assert_int_equal(waitpid(w->keeper, &status, 0), w->keeper);
	w->keeper = 0;
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static inline struct inflight *
admit(struct world *w, uint32_t worker, struct charge *c, uint32_t n)
{
	const struct level nothing = { .known = false };
	struct refusal refusal;
	struct inflight *e = NULL;

	for (uint32_t tries = 0; !e && tries < 2 * CHARGES_MAX; tries++) {
		uint64_t evictions = ledger_evictions(&w->f.arena);
		enum ledger_verdict v = ledger_admit(&w->f.arena, worker, c, n, NULL, w->f.now, &e, &refusal);

		if (v == LEDGER_ADMITTED)
			break;
		e = NULL;
		assert_int_equal(v, LEDGER_UNKNOWN);
		assert_int_not_equal(ledger_load(&w->f.arena, worker, &c[refusal.charge], &nothing, evictions, w->f.now), LOAD_FULL);
	}
	assert_non_null(e);
	return e;
}

static inline void
settle_charge(struct world *w, uint32_t worker, struct charge *c, int64_t cost_nusd)
{
	const struct settled used = { .cost_nusd = cost_nusd };
	struct record r = { .fixed = { .status = 200, .cost_nusd = cost_nusd } };
	struct inflight *e = admit(w, worker, c, 1);

	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	assert_int_equal(ledger_settle(&w->f.arena, worker, e, &used, w->f.now), SETTLED);
	w->made++;
	w->spent += cost_nusd;
}

static inline void
settle(struct world *w, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct charge c = budget_charge(1, PERIOD_TOTAL, INT64_MAX, 1);

		settle_charge(w, i % 2, &c, 7 + i);
	}
}

static inline bool
rings_empty(struct world *w)
{
	struct ring_item item;

	for (uint32_t i = 0; i < 2; i++) {
		struct ring_cursor c = ring_begin(&w->f.arena, i);

		if (ring_next(&w->f.arena, i, &c, &item))
			return false;
	}
	return true;
}

#define WAIT_FOR(cond) \
	do { \
		int64_t until_ns = clock_mono_ns() + PATIENCE_NS; \
		while (!(cond) && clock_mono_ns() < until_ns) \
			sched_yield(); \
		assert_true(cond); \
	} while (0)

static inline bool
count_one(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	(void)id;
	(void)r;
	(void)charges;
	(void)n;
	++*(uint32_t *)arg;
	return true;
}

static inline bool
add_level(const struct stored_meter *m, void *arg)
{
	*(int64_t *)arg += m->level.spent;
	return true;
}

static inline void
assert_stored(struct world *w)
{
	uint32_t count = 0;
	int64_t spent = 0;
	struct reader *r = reader_open(w->settings->data_dir, why, sizeof(why));

	assert_non_null(r);
	assert_int_equal(reader_scan(r, 0, UINT64_MAX, count_one, &count), 0);
	assert_int_equal(reader_meters(r, add_level, &spent), 0);
	reader_close(r);
	assert_int_equal(count, w->made);
	assert_int_equal(spent, w->spent);
}

/* Lines of the keeper's log that contain the text. */
static inline uint32_t
log_lines(struct world *w, const char *text)
{
	char path[128], line[2048];
	uint32_t count = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", w->folder);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		count += strstr(line, text) != NULL;
	fclose(f);
	return count;
}

static inline void
send_settings(struct world *w, struct slice bundle, uint64_t version)
{
	struct channel_message m = { .word = CHANNEL_RELOAD, .version = version };
	struct pollfd p = { .fd = w->control, .events = POLLIN };
	struct tls_ticket_keys keys = { .previous_valid = false };
	struct buf content;
	int fd;

	buf_init(&content, 1 << 24);
	buf_add(&content, &keys, sizeof(keys));
	buf_add_slice(&content, bundle);
	fd = channel_memfd("weir-test", (const struct slice[]){ buf_slice(&content) }, 1);
	assert_true(fd >= 0);
	assert_int_equal(channel_send(w->control, &m, fd), 0);
	close(fd);
	buf_free(&content);
	do {	/* that it has come up, first */
		assert_int_equal(poll(&p, 1, (int)(PATIENCE_NS / NS_PER_MS)), 1);
		assert_int_equal(channel_receive(w->control, &m, &fd), 1);
	} while (m.word == CHANNEL_READY);
	assert_int_equal(m.word, CHANNEL_RELOADED);
	assert_int_equal(m.version, version);
}

#endif
