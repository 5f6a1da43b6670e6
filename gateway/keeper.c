/*
 * gateway/keeper.c -- see keeper.h.
 *
 * One loop: wait for the flush time, a signal or the master; write what the
 * rings have. Nobody wakes the keeper for a record: workers must not spend a
 * system call on it, and a flush a moment later is a larger commit. Mail for the
 * cache does wake it, because other requests may wait for what is in it; it is
 * taken in what time there is until the next flush.
 */
#include "gateway/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gateway/cache_intake.h"
#include "gateway/channel.h"
#include "gateway/limit_alert.h"
#include "gateway/master.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"
#include "store/catalog.h"
#include "store/records.h"
#include "upstream/wire/tls.h"

#define HEARTBEAT_NS NS_PER_S
#define RETRY_MS 500		/* between attempts while the store fails */
#define DRAIN_TRIES_MAX 20	/* at the end: 10 s for a disk to get room again */
#define MESSAGES_A_TURN 16
#define WHY_BYTES 512

/* Meters that are idle go when more than 7/8 of the rows are taken, until 3/4 are. */
#define TICK_MS 100
#define EVICT_PORTION 256		/* between two heartbeats */
#define EVICT_REST 10			/* a search that did not make room is followed by a rest so many times as long */
#define EVICT_WARN_NS (60 * NS_PER_S)
#define FULL_NS NS_PER_S		/* for so long without room: not just a burst */

static const uint32_t idle_ms[] = { 60000, 6000, 1000, 0 };

struct keeper {
	struct arena *arena;
	struct settings *settings;	/* counted: ours */
	struct writer *writer;		/* NULL: could not be opened yet */
	int signal_fd, control_fd;	/* control_fd -1: the master is gone */
	int64_t heartbeat_ns;		/* when the next one is due */
	int64_t tick_ns, evict_ns, warn_ns;	/* likewise */
	int64_t full_ns;		/* since when there is no room for meters; 0: there is */
	uint64_t tick, durable_tick;	/* what was charged before the latter is in the store */
	struct cache_intake cache;
	bool failing;			/* the store; has been logged */
	bool told_ready;
	bool stopping;
};

/* ---- the store ---- */

static void
note_failure(struct keeper *k, const char *why)
{
	if (!k->failing)
		log_error("the store fails, nothing new is admitted, records wait in memory: %s", why);
	k->failing = true;
	arena_store_failing_set(k->arena, true);
}

static void
note_success(struct keeper *k)
{
	if (k->failing)
		log_info("the store works again");
	k->failing = false;
	arena_store_failing_set(k->arena, false);
}

static struct writer *
writer_start(const char *data_dir, struct arena *a, char why[WHY_BYTES])
{
	struct writer *w = writer_open(data_dir, why, WHY_BYTES);

	if (w)
		writer_on_booked(w, limit_alert, a);
	return w;
}

/* One batch; false when the store fails. *records 0: the rings are empty. */
static bool
flush(struct keeper *k, uint32_t *records)
{
	char why[WHY_BYTES];

	*records = 0;
	if (!k->writer)
		k->writer = writer_start(k->settings->data_dir, k->arena, why);
	if (!k->writer || writer_flush(k->writer, k->arena, records, why, sizeof(why)) != 0) {
		note_failure(k, why);
		return false;
	}
	if (writer_drained(k->writer))
		k->durable_tick = k->tick;
	note_success(k);
	return true;
}

/* At the end: until the rings are empty, or the store has failed for long. */
static int
drain(struct keeper *k)
{
	uint32_t tries = 0, records = 1;

	while (records > 0 && tries < DRAIN_TRIES_MAX) {
		if (flush(k, &records))
			continue;
		records = 1;
		if (++tries < DRAIN_TRIES_MAX)
			poll(NULL, 0, RETRY_MS);
	}
	if (records > 0)
		log_error("records are left in memory; the next start on this boot stores them");
	return records > 0 ? 1 : 0;
}

/* ---- signals and the master ---- */

static int
signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return -1;
	/* A file-size limit is a full disk to us: an error, not a death. */
	signal(SIGXFSZ, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void
reload(struct keeper *k, int memfd, uint64_t version)
{
	struct settings *fresh = NULL;
	struct problems problems;
	struct buf text;

	problems_init(&problems);
	buf_init(&text, RELOAD_BYTES_MAX);
	if (channel_read_memfd(memfd, &text) == 0 && text.n > sizeof(struct tls_ticket_keys)) {
		struct slice bundle = { text.p + sizeof(struct tls_ticket_keys), text.n - sizeof(struct tls_ticket_keys) };

		fresh = settings_compile(bundle, version, &problems);
	}
	if (fresh) {
		settings_put(k->settings);
		k->settings = fresh;
	} else {
		log_error("reload: the old settings stay: %.*s", SLICE_FMT(buf_slice(&problems.text)));
	}
	if (text.n > 0)
		explicit_bzero(text.p, text.n);
	buf_free(&text);
	problems_free(&problems);
}

static void
hear(struct keeper *k)
{
	struct channel_message m;
	int fd, got;

	for (int turns = 0; turns < MESSAGES_A_TURN && (got = channel_receive(k->control_fd, &m, &fd)) != 0; turns++) {
		if (got < 0) {
			k->control_fd = -1;
			k->stopping = true;
			return;
		}
		if (m.word == CHANNEL_RELOAD && fd >= 0) {
			struct channel_message done = { .word = CHANNEL_RELOADED, .version = m.version };

			reload(k, fd, m.version);
			if (channel_send(k->control_fd, &done, -1) != 0)
				log_warn("the master does not listen");
		}
		if (fd >= 0)
			close(fd);
	}
}

static int
ms_until(int64_t mono_ns, int64_t now)
{
	return mono_ns > now ? (int)((mono_ns - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

/* Takes mail until then; something else ends it at once. */
static void
wait_until(struct keeper *k, int64_t mono_ns)
{
	int64_t now = clock_mono_ns(), rest_ns;
	bool else_to_do = false;

	do {
		bool mail = cache_intake_waits(&k->cache, k->settings, now, &rest_ns);
		struct pollfd fds[3] = {
			{ .fd = k->signal_fd, .events = POLLIN },
			{ .fd = k->control_fd, .events = POLLIN },
			{ .fd = mail ? k->cache.fd : -1, .events = POLLIN },
		};
		struct signalfd_siginfo info;
		int ready = poll(fds, 3, ms_until(!mail && rest_ns < mono_ns ? rest_ns : mono_ns, now));

		if (ready > 0 && fds[0].revents && read(k->signal_fd, &info, sizeof(info)) == sizeof(info))
			k->stopping = true;
		if (ready > 0 && fds[1].revents)
			hear(k);
		if (ready > 0 && fds[2].revents)
			cache_intake_take(&k->cache, k->settings);
		else_to_do = ready < 0 || (ready > 0 && (fds[0].revents || fds[1].revents));
		now = clock_mono_ns();
	} while (!else_to_do && now < mono_ns);
}

static void
heartbeat(struct keeper *k)
{
	int64_t now = clock_mono_ns();

	if (now < k->heartbeat_ns)
		return;
	arena_heartbeat(k->arena, PROC_KEEPER, now);
	k->heartbeat_ns = now + HEARTBEAT_NS;
}

/* Once, when the store has been written. */
static void
tell_ready(struct keeper *k)
{
	const struct channel_message ready = { .word = CHANNEL_READY };

	if (k->told_ready || k->control_fd < 0)
		return;
	k->told_ready = true;
	if (channel_send(k->control_fd, &ready, -1) != 0)
		log_warn("keeper: the master does not hear: %s", strerror(errno));
}

/* ---- the table of meters ---- */

/* Before a flush, so that what was charged before is in the rings that it reads. */
static void
tick(struct keeper *k)
{
	int64_t now = clock_mono_ns();

	if (now < k->tick_ns)
		return;
	k->tick = ledger_tick(k->arena);
	k->tick_ns = now + TICK_MS * NS_PER_MS;
}

static uint32_t
meters_at(const struct keeper *k, uint32_t eighths)
{
	return (uint32_t)((uint64_t)arena_sizes(k->arena).meters * eighths / 8);
}

/* Until there is room, or all that are idle for so long are out. */
static void
evict_idle(struct keeper *k, uint64_t idle_ticks)
{
	uint32_t out = EVICT_PORTION;

	while (out == EVICT_PORTION && ledger_meters_used(k->arena) > meters_at(k, 6)) {
		const struct now now = { clock_mono_ns(), clock_wall_ns() };

		out = ledger_evict(k->arena, k->durable_tick, idle_ticks, EVICT_PORTION, now);
		if (out > 0)
			metrics_add(k->arena, metrics_keeper_row(k->arena), COUNTER_EVICTED, out);
		heartbeat(k);
	}
}

static bool
meters_full(struct keeper *k)
{
	bool full = ledger_meters_used(k->arena) > meters_at(k, 7);

	if (!full)
		k->full_ns = 0;
	return full;
}

static void
evict(struct keeper *k)
{
	uint32_t tick_ms = k->settings->flush_ms > TICK_MS ? k->settings->flush_ms : TICK_MS;
	int64_t began = clock_mono_ns(), now;

	if (!meters_full(k) || began < k->evict_ns)
		return;
	for (size_t i = 0; i < sizeof(idle_ms) / sizeof(*idle_ms); i++)
		evict_idle(k, idle_ms[i] / tick_ms);
	if (!meters_full(k))
		return;
	now = clock_mono_ns();
	k->evict_ns = now + EVICT_REST * (now - began);
	if (k->full_ns == 0)
		k->full_ns = now;
	if (now - k->full_ns < FULL_NS || now < k->warn_ns)
		return;
	k->warn_ns = now + EVICT_WARN_NS;
	log_warn("%u of %u rows for limits are taken and in use: raise ledger.meters, or requests that need another one are refused",
	    ledger_meters_used(k->arena), arena_sizes(k->arena).meters);
}

int
keeper_run(struct arena *a, struct settings *s, int control_fd, int cache_fd)
{
	struct keeper k = { .arena = a, .settings = settings_get(s), .control_fd = control_fd };
	uint32_t records;
	int status;

	cache_intake_init(&k.cache, a, cache_fd);
	k.signal_fd = signals_open();
	if (k.signal_fd < 0) {
		log_error("keeper: no signalfd: %s", strerror(errno));
		settings_put(k.settings);
		return 1;
	}
	while (!k.stopping) {
		bool works;

		tick(&k);
		works = flush(&k, &records);
		if (works)
			tell_ready(&k);
		evict(&k);
		heartbeat(&k);
		if (k.writer)		/* nobody else has the store */
			cache_intake_tend(&k.cache, k.settings, clock_mono_ns());
		/* A full batch is followed by the next one at once. */
		int64_t wait_ms = !works ? RETRY_MS : records >= WRITER_BATCH_RECORDS ? 0 : k.settings->flush_ms;
		wait_until(&k, clock_mono_ns() + wait_ms * NS_PER_MS);
	}
	status = drain(&k);
	cache_intake_drain(&k.cache, k.settings);
	cache_intake_free(&k.cache);
	writer_close(k.writer);
	close(k.signal_fd);
	settings_put(k.settings);
	return status;
}

/* ---- at the start ---- */

static int
complain(const char *what)
{
	fprintf(stderr, "weir: %s\n", what);
	return 2;
}

int
keeper_recover(struct arena *a, const char *data_dir)
{
	uint32_t records = 1;
	struct catalog *catalog;
	struct writer *writer;
	char why[WHY_BYTES];
	int status = 0;

	signal(SIGXFSZ, SIG_IGN);
	writer = writer_start(data_dir, a, why);
	if (!writer)
		return complain(why);
	catalog = catalog_open(data_dir, true, why, sizeof(why));
	if (!catalog) {
		writer_close(writer);
		return complain(why);
	}
	catalog_close(catalog);
	while (records > 0 && status == 0) {
		if (writer_flush(writer, a, &records, why, sizeof(why)) != 0) {
			complain(why);
			status = 1;
		}
	}
	writer_close(writer);
	return status;
}
