/*
 * gateway/master.c -- see master.h.
 *
 * The state of a child is: running (pid > 0), or waiting for its next start
 * (start_at_ms). A child that dies young is started again with a growing
 * pause; one that has lived for a while, at once. A worker is started again
 * only when ledger_reclaim() has settled all that its predecessor held.
 */
#include "gateway/master.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/admin.h"
#include "gateway/cache_mail.h"
#include "gateway/channel.h"
#include "gateway/keeper.h"
#include "gateway/startup.h"
#include "gateway/worker.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define YOUNG_MS 1000		/* a child that lived shorter than this failed to start */
#define PAUSE_FIRST_MS 20
#define PAUSE_MAX_MS 5000
#define RECLAIM_RETRY_MS 10	/* its ring is full: the keeper is making room */
#define STOP_OTHERS_MS 10000	/* keeper and admin, once the workers are gone */
#define TICKET_KEYS_MS (12 * 3600 * 1000)
#define CHILDREN_MAX PROC_COUNT

struct child {
	pid_t pid;
	int fd;			/* our end of its channel; -1 */
	int64_t started_ms, start_at_ms;
	uint32_t young_deaths;
	bool ready, reclaim;	/* reclaim: its row must be settled first */
	bool wanted;
};

struct master {
	const struct serve_options *options;
	struct buf bundle;
	struct settings *settings;	/* newest */
	struct setting_listener *listeners;	/* of the start: a reload keeps them */
	uint32_t listeners_count, workers;
	int *listen_fds;		/* [worker * listeners_count + listener] */
	int admin_fd, signal_fd;
	int cache_fd_workers, cache_fd_keeper;	/* cache_mail.h */
	char *run_dir;
	struct identity identity;
	struct arena arena;
	struct tls_ticket_keys keys;
	int64_t keys_made_ms;
	struct child child[CHILDREN_MAX];
	bool announced, stopping, failed;
	int64_t stop_by_ms;
	uint64_t version;
};

static int64_t
now_ms(void)
{
	return clock_mono_ns() / NS_PER_MS;
}

static const char *
child_name(uint32_t row, char *out, size_t size)
{
	if (row == PROC_KEEPER)
		snprintf(out, size, "keeper");
	else if (row == PROC_ADMIN)
		snprintf(out, size, "admin");
	else
		snprintf(out, size, "worker-%u", row);
	return out;
}

/* ---- settings ---- */

static void
print_problems(const struct master *m, const struct problems *p)
{
	const char *line = p->text.p, *end = p->text.p + p->text.n;

	while (line < end) {
		const char *eol = memchr(line, '\n', (size_t)(end - line));
		size_t n = (size_t)((eol ? eol : end) - line);
		if (n)
			startup_complain("%s: %.*s", m->options->config ? m->options->config : "settings", (int)n, line);
		line += n + 1;
	}
}

static char *
copy_of(const char *text)
{
	char *p = strdup(text);

	CHECK(p != NULL);
	return p;
}

static struct settings *
read_settings(struct master *m, struct buf *bundle)
{
	struct problems problems;
	struct settings *s = NULL;

	problems_init(&problems);
	buf_init(bundle, SETTINGS_BUNDLE_BYTES_MAX);
	if (settings_load_with(m->options->config, &m->options->over, bundle, &problems))
		s = settings_compile(buf_slice(bundle), ++m->version, &problems);
	if (!s) {
		print_problems(m, &problems);
		buf_free(bundle);
	}
	problems_free(&problems);
	return s;
}

/* ---- children ---- */

static void
close_inherited(struct master *m, uint32_t row)
{
	for (uint32_t i = 0; i < m->workers * m->listeners_count; i++)
		if (i / m->listeners_count != row && m->listen_fds[i] >= 0)
			close(m->listen_fds[i]);
	if (row != PROC_ADMIN && m->admin_fd >= 0)
		close(m->admin_fd);
	if (row >= m->workers)
		close(m->cache_fd_workers);
	if (row != PROC_KEEPER)
		close(m->cache_fd_keeper);
	for (uint32_t i = 0; i < CHILDREN_MAX; i++)
		if (m->child[i].fd >= 0)
			close(m->child[i].fd);
	close(m->signal_fd);
}

static _Noreturn void
child_main(struct master *m, uint32_t row, int fd)
{
	char name[32];
	sigset_t blocked;
	int status;

	/* A stop may come before the keeper has its signalfd: it waits for that,
	 * because a keeper that dies of it stores nothing more. */
	sigemptyset(&blocked);
	if (row == PROC_KEEPER)
		sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	signal(SIGINT, SIG_IGN);	/* Ctrl-C reaches the whole group; the master decides */
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	log_set_process(child_name(row, name, sizeof(name)));
	close_inherited(m, row);
	if (!startup_become(&m->identity)) {
		log_error("cannot become user %s", m->identity.name);
		_exit(1);
	}
	if (row == PROC_KEEPER) {
		status = keeper_run(&m->arena, m->settings, fd, m->cache_fd_keeper);
	} else if (row == PROC_ADMIN) {
		status = admin_run(&m->arena, m->settings, m->admin_fd, fd);
	} else {
		struct worker_boot boot = {
			.arena = &m->arena, .index = row, .settings = m->settings, .ticket_keys = &m->keys,
			.listeners = m->listeners, .listeners_count = m->listeners_count,
			.listen_fds = &m->listen_fds[row * m->listeners_count], .control_fd = fd, .cache_fd = m->cache_fd_workers,
		};
		status = worker_run(&boot);
	}
	exit(status);
}

static void
start_child(struct master *m, uint32_t row)
{
	struct child *c = &m->child[row];
	char name[32];
	int theirs;

	if (channel_pair(&c->fd, &theirs) != 0) {
		c->fd = -1;
		c->start_at_ms = now_ms() + PAUSE_MAX_MS;
		log_error("%s: no channel: %s", child_name(row, name, sizeof(name)), strerror(errno));
		return;
	}
	pid_t pid = fork();
	if (pid == 0) {
		close(c->fd);
		c->fd = -1;
		child_main(m, row, theirs);
	}
	close(theirs);
	if (pid < 0) {
		close(c->fd);
		c->fd = -1;
		c->start_at_ms = now_ms() + PAUSE_MAX_MS;
		log_error("%s: fork: %s", child_name(row, name, sizeof(name)), strerror(errno));
		return;
	}
	c->pid = pid;
	c->ready = false;
	c->started_ms = now_ms();
	arena_proc_start(&m->arena, row, pid);
}

static uint32_t
workers_running(const struct master *m)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->workers; i++)
		n += m->child[i].pid > 0;
	return n;
}

static void
plan_restart(struct master *m, uint32_t row, bool killed, int64_t now)
{
	struct child *c = &m->child[row];
	int64_t pause = 0;

	/* kill -9 of one that had come up says nothing against the next one. */
	if (now - c->started_ms < YOUNG_MS && !(killed && c->ready)) {
		uint32_t doublings = c->young_deaths < 8 ? c->young_deaths : 8;
		c->young_deaths++;
		/* Two early deaths in a row may be chance (kill -9); more are a fault. */
		if (c->young_deaths > 2)
			pause = PAUSE_FIRST_MS << doublings;
		if (pause > PAUSE_MAX_MS)
			pause = PAUSE_MAX_MS;
	} else {
		c->young_deaths = 0;
	}
	c->start_at_ms = now + pause;
}

static void
child_died(struct master *m, uint32_t row, int status)
{
	struct child *c = &m->child[row];
	char name[32];

	child_name(row, name, sizeof(name));
	if (WIFSIGNALED(status))
		log_warn("%s (pid %d) was ended by signal %d (%s)", name, (int)c->pid, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0 || !m->stopping)
		log_warn("%s (pid %d) ended with status %d", name, (int)c->pid, WEXITSTATUS(status));
	c->pid = 0;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	arena_proc_stop(&m->arena, row);
	if (row < m->workers) {
		metrics_connections(&m->arena, row, 0);
		metrics_waiting(&m->arena, row, 0);
		c->reclaim = true;
	}
	if (!m->announced && !WIFSIGNALED(status) && WEXITSTATUS(status) != 0)
		m->failed = true;	/* it cannot even start: say so, do not try for ever */
	plan_restart(m, row, WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, now_ms());
}

static void
reap(struct master *m)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (uint32_t i = 0; i < CHILDREN_MAX; i++)
			if (m->child[i].pid == pid)
				child_died(m, i, status);
}

/* Starts what is due. Returns how long the poll may wait. */
static int
tend_children(struct master *m)
{
	int64_t now = now_ms(), next = now + 60000;

	for (uint32_t i = 0; i < CHILDREN_MAX; i++) {
		struct child *c = &m->child[i];

		if (c->reclaim) {
			if (startup_reclaim(&m->arena, i) > 0) {
				next = now + RECLAIM_RETRY_MS;
				continue;
			}
			c->reclaim = false;
		}
		if (!c->wanted || c->pid > 0)
			continue;
		if (c->start_at_ms <= now)
			start_child(m, i);
		else if (c->start_at_ms < next)
			next = c->start_at_ms;
	}
	if (m->stopping && m->stop_by_ms < next)
		next = m->stop_by_ms;
	return next > now ? (int)(next - now) : 0;
}

/* ---- readiness ---- */

static void
add_address(struct buf *b, const struct setting_listener *l)
{
	bool v6 = strchr(l->host, ':') != NULL;

	buf_printf(b, "%s%s%s:%u", v6 ? "[" : "", l->host, v6 ? "]" : "", l->port);
}

static void
announce(struct master *m)
{
	char path[4200], part[4232];
	struct buf b;

	m->announced = true;
	buf_init(&b, 65536);
	buf_printf(&b, "{\"pid\":%d,\"listeners\":[", (int)getpid());
	for (uint32_t i = 0; i < m->listeners_count; i++) {
		buf_add_str(&b, i ? ",{\"address\":\"" : "{\"address\":\"");
		add_address(&b, &m->listeners[i]);
		buf_printf(&b, "\",\"tls\":%s}", m->listeners[i].tls ? "true" : "false");
	}
	buf_add_str(&b, "],\"admin\":\"");
	add_address(&b, &m->settings->admin);
	buf_printf(&b, "\",\"version\":\"%s\"}\n", WEIR_VERSION);

	snprintf(path, sizeof(path), "%s/weir.json", m->run_dir);
	snprintf(part, sizeof(part), "%s.part", path);
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, b.p, b.n) != (ssize_t)b.n || close(fd) != 0 || rename(part, path) != 0)
		log_warn("%s: %s", path, strerror(errno));
	log_info("weir %s is ready: %.*s", WEIR_VERSION, (int)b.n - 1, b.p);
	buf_free(&b);
}

static void
hear(struct master *m, uint32_t row)
{
	struct child *c = &m->child[row];
	struct channel_message message;
	int fd, got = 1;

	for (int turns = 0; turns < 16 && got > 0 && c->fd >= 0; turns++) {
		got = channel_receive(c->fd, &message, &fd);
		if (got > 0 && fd >= 0)
			close(fd);
		if (got > 0 && message.word == CHANNEL_READY)
			c->ready = true;
		if (got < 0) {	/* it is dying; waitpid will say more */
			close(c->fd);
			c->fd = -1;
		}
	}
	if (m->announced || m->stopping)
		return;
	for (uint32_t i = 0; i < m->workers; i++)
		if (!m->child[i].ready)
			return;
	announce(m);
}

/* ---- reload ---- */

static bool
make_ticket_keys(struct tls_ticket_keys *k)
{
	struct tls_ticket_keys fresh = { .previous_valid = false };

	if (getrandom(fresh.name[0], sizeof(fresh.name[0]), 0) != sizeof(fresh.name[0]) ||
	    getrandom(fresh.key[0], sizeof(fresh.key[0]), 0) != sizeof(fresh.key[0]))
		return false;
	memcpy(fresh.name[1], k->name[0], sizeof(fresh.name[1]));
	memcpy(fresh.key[1], k->key[0], sizeof(fresh.key[1]));
	fresh.previous_valid = true;
	*k = fresh;
	return true;
}

static void
tell_children(struct master *m)
{
	struct channel_message message = { .word = CHANNEL_RELOAD, .version = m->settings->version };
	struct buf content;
	char name[32];

	buf_init(&content, RELOAD_BYTES_MAX);
	buf_add(&content, &m->keys, sizeof(m->keys));
	buf_add_slice(&content, buf_slice(&m->bundle));
	const struct slice whole = buf_slice(&content);
	int fd = content.overflow ? -1 : channel_memfd("weir-settings", &whole, 1);
	for (uint32_t i = 0; i < CHILDREN_MAX && fd >= 0; i++)
		if (m->child[i].fd >= 0 && channel_send(m->child[i].fd, &message, fd) != 0)
			log_warn("%s did not take the new settings", child_name(i, name, sizeof(name)));
	if (fd >= 0)
		close(fd);
	else
		log_error("reload: %s", strerror(errno));
	buf_free(&content);
}

/* Settings that a running program cannot change keep their value; say so. */
static void
warn_of_fixed(const struct settings *old, const struct settings *s)
{
	if (s->workers != old->workers || s->arena.meters != old->arena.meters ||
	    s->arena.inflight != old->arena.inflight || s->arena.ring_bytes != old->arena.ring_bytes)
		log_warn("reload: workers and ledger sizes change only with a restart");
	if (strcmp(s->data_dir, old->data_dir) != 0 || strcmp(s->run_dir, old->run_dir) != 0)
		log_warn("reload: data_dir and run_dir change only with a restart");
	bool same = s->listeners_count == old->listeners_count;
	for (uint32_t i = 0; same && i < s->listeners_count; i++)
		same = strcmp(s->listeners[i].host, old->listeners[i].host) == 0 &&
		    s->listeners[i].tls == old->listeners[i].tls && s->listeners[i].port == old->listeners[i].port;
	if (!same)
		log_warn("reload: listeners change only with a restart");
}

static void
reload(struct master *m)
{
	struct buf bundle;
	struct settings *s = read_settings(m, &bundle);
	bool tls = false;

	for (uint32_t i = 0; i < m->listeners_count; i++)
		tls = tls || m->listeners[i].tls;
	if (s && tls && (!s->tls_cert_pem || !s->tls_key_pem)) {
		startup_complain("tls: a listener with TLS is open, and the new settings have no certificate");
		settings_put(s);
		buf_free(&bundle);
		s = NULL;
	}
	if (!s) {
		log_error("reload: the new settings have mistakes; the old ones stay in force");
		return;
	}
	warn_of_fixed(m->settings, s);
	buf_free(&m->bundle);
	m->bundle = bundle;
	settings_put(m->settings);
	m->settings = s;
	tell_children(m);
	log_info("reload: settings version %llu are in force", (unsigned long long)s->version);
}

/* ---- stop ---- */

static void
signal_children(struct master *m, uint32_t from, uint32_t to, int signum)
{
	for (uint32_t i = from; i < to; i++)
		if (m->child[i].pid > 0)
			kill(m->child[i].pid, signum);
}

static void
begin_stop(struct master *m)
{
	char path[4200];

	if (m->stopping) {	/* asked twice: now */
		signal_children(m, 0, m->workers, SIGKILL);
		return;
	}
	m->stopping = true;
	m->stop_by_ms = now_ms() + m->settings->drain_ms;
	log_info("stopping: requests in flight may take up to %u s", m->settings->drain_ms / 1000);
	snprintf(path, sizeof(path), "%s/weir.json", m->run_dir);
	if (unlink(path) != 0 && errno != ENOENT)
		log_warn("%s: %s", path, strerror(errno));
	for (uint32_t i = 0; i < m->workers * m->listeners_count; i++) {
		close(m->listen_fds[i]);
		m->listen_fds[i] = -1;
	}
	for (uint32_t i = 0; i < m->workers; i++)
		m->child[i].wanted = false;
	signal_children(m, 0, m->workers, SIGTERM);
}

/* true: all is down. Workers first, then the keeper, which stores the rest. */
static bool
continue_stop(struct master *m)
{
	struct child *keeper = &m->child[PROC_KEEPER], *admin = &m->child[PROC_ADMIN];
	bool late = now_ms() >= m->stop_by_ms;

	if (workers_running(m) > 0) {
		if (late) {
			log_warn("stopping: %u workers did not drain in time", workers_running(m));
			signal_children(m, 0, m->workers, SIGKILL);
			m->stop_by_ms = now_ms() + STOP_OTHERS_MS;
		}
		return false;
	}
	for (uint32_t i = 0; i < m->workers; i++)
		if (m->child[i].reclaim)
			return false;
	if (keeper->wanted) {
		keeper->wanted = admin->wanted = false;
		m->stop_by_ms = now_ms() + STOP_OTHERS_MS;
		signal_children(m, PROC_KEEPER, PROC_ADMIN + 1, SIGTERM);
	} else if (late) {
		signal_children(m, PROC_KEEPER, PROC_ADMIN + 1, SIGKILL);
		m->stop_by_ms = now_ms() + STOP_OTHERS_MS;
	}
	return keeper->pid == 0 && admin->pid == 0;
}

/* ---- the loop ---- */

static void
take_signals(struct master *m)
{
	struct signalfd_siginfo info;

	while (read(m->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD:
			break;		/* reaped below, whatever woke us */
		case SIGHUP:
			if (!m->stopping)
				reload(m);
			break;
		case SIGTERM:
		case SIGINT:
			begin_stop(m);
			break;
		}
	}
	reap(m);
}

static int
watch(struct master *m)
{
	struct pollfd fds[CHILDREN_MAX + 1];
	uint32_t rows[CHILDREN_MAX + 1];

	for (;;) {
		int wait_ms = tend_children(m);
		nfds_t n = 1;

		if (m->failed) {
			startup_complain("a process could not start (see above)");
			signal_children(m, 0, CHILDREN_MAX, SIGTERM);
			return 1;
		}
		if (m->stopping && continue_stop(m))
			return 0;
		if (now_ms() - m->keys_made_ms >= TICKET_KEYS_MS && make_ticket_keys(&m->keys)) {
			m->keys_made_ms = now_ms();
			tell_children(m);
		}
		arena_heartbeat(&m->arena, PROC_MASTER, clock_mono_ns());
		fds[0] = (struct pollfd){ .fd = m->signal_fd, .events = POLLIN };
		for (uint32_t i = 0; i < CHILDREN_MAX; i++) {
			if (m->child[i].fd < 0)
				continue;
			rows[n] = i;
			fds[n++] = (struct pollfd){ .fd = m->child[i].fd, .events = POLLIN };
		}
		if (poll(fds, n, wait_ms) < 0 && errno != EINTR) {
			log_error("poll: %s", strerror(errno));
			return 1;
		}
		for (nfds_t i = 1; i < n; i++)
			if (fds[i].revents)
				hear(m, rows[i]);
		if (fds[0].revents)
			take_signals(m);
	}
}

/* ---- the start ---- */

static bool
open_signals(struct master *m)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return false;
	m->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return m->signal_fd >= 0;
}

static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			log_warn("the limit of open files stays low: %s", strerror(errno));
	}
}

static bool
bind_all(struct master *m)
{
	struct settings *s = m->settings;
	int *of_one = calloc(s->workers, sizeof(*of_one));
	bool ok;

	m->listeners = calloc(s->listeners_count + 1, sizeof(*m->listeners));
	m->listen_fds = calloc(s->workers * s->listeners_count + 1, sizeof(*m->listen_fds));
	ok = of_one && m->listeners && m->listen_fds;
	m->listeners_count = s->listeners_count;
	for (uint32_t i = 0; i < s->listeners_count && ok; i++) {
		m->listeners[i] = (struct setting_listener){
			.host = copy_of(s->listeners[i].host), .port = s->listeners[i].port, .tls = s->listeners[i].tls,
		};
		ok = startup_bind(&m->listeners[i], s->workers, of_one, &m->listeners[i].port);
		for (uint32_t w = 0; w < s->workers && ok; w++)
			m->listen_fds[w * s->listeners_count + i] = of_one[w];
	}
	free(of_one);
	return ok && startup_bind(&s->admin, 1, &m->admin_fd, &s->admin.port);
}

static bool
prepare(struct master *m)
{
	struct settings *s = m->settings;

	m->workers = s->workers;
	m->run_dir = copy_of(s->run_dir);
	log_set_level((enum log_level)s->log_level);
	raise_descriptor_limit();
	return startup_identity(s, &m->identity) && startup_folders(s, &m->identity) && bind_all(m) &&
	    startup_arena(&m->arena, s, &m->identity);
}

int
master_run(const struct serve_options *o)
{
	static struct master m;		/* one a program */

	log_set_process("master");
	m.options = o;
	m.admin_fd = m.signal_fd = -1;
	for (uint32_t i = 0; i < CHILDREN_MAX; i++)
		m.child[i].fd = -1;
	m.settings = read_settings(&m, &m.bundle);
	if (!m.settings)
		return 2;
	if (!prepare(&m))
		return 2;
	if (!open_signals(&m) || !make_ticket_keys(&m.keys) || cache_mail_pair(&m.cache_fd_workers, &m.cache_fd_keeper) != 0) {
		startup_complain("start: %s", strerror(errno));
		return 1;
	}
	m.keys.previous_valid = false;
	m.keys_made_ms = now_ms();
	arena_proc_start(&m.arena, PROC_MASTER, getpid());
	m.child[PROC_KEEPER].wanted = m.child[PROC_ADMIN].wanted = true;
	for (uint32_t i = 0; i < m.workers; i++)
		m.child[i].wanted = true;

	int status = watch(&m);
	arena_proc_stop(&m.arena, PROC_MASTER);
	arena_close(&m.arena);
	log_info("stopped");
	return status;
}
