/*
 * gateway/startup.c -- see startup.h.
 */
#include "gateway/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/keeper.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/claims.h"
#include "shm/health.h"
#include "store/record.h"

#define DEFAULT_USER "weir"
#define BACKLOG 4096
#define RECOVER_TURNS_MAX 64	/* rounds of reclaim and drain: each empties whole rings */
#define WALK_DESCRIPTORS 16

void
startup_complain(const char *fmt, ...)
{
	va_list args;

	fputs("weir: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

/* ---- user and folders ---- */

bool
startup_identity(const struct settings *s, struct identity *id)
{
	const char *wanted = s->user ? s->user : DEFAULT_USER;

	*id = (struct identity){ .uid = geteuid(), .gid = getegid() };
	if (geteuid() != 0) {
		struct passwd *self = getpwuid(geteuid());
		if (s->user && (!self || strcmp(self->pw_name, s->user) != 0)) {
			startup_complain("user: only root can run the workers as \"%s\"; leave the setting out", s->user);
			return false;
		}
		return true;
	}
	struct passwd *pw = getpwnam(wanted);
	if (!pw) {
		if (s->user) {
			startup_complain("user: there is no user \"%s\" on this machine; create it, or name another", s->user);
			return false;
		}
		log_warn("there is no user \"%s\": all processes run as root; create it, or use --user", DEFAULT_USER);
		return true;
	}
	id->drop = pw->pw_uid != 0;
	id->uid = pw->pw_uid;
	id->gid = pw->pw_gid;
	snprintf(id->name, sizeof(id->name), "%s", pw->pw_name);
	return true;
}

static bool
make_path(const char *path)
{
	char part[4096];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return false;
	for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			return false;
	}
	return mkdir(part, 0700) == 0 || errno == EEXIST;
}

static struct identity walk_identity;	/* nftw(3) has no argument for its callback */

static int
give_away(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)kind;
	(void)at;
	if (st->st_uid == 0 && lchown(path, walk_identity.uid, walk_identity.gid) != 0)
		return -1;
	return 0;
}

static bool
own_folder(const char *setting, const char *path, const struct identity *id)
{
	struct stat st;

	if (!make_path(path) || stat(path, &st) != 0) {
		startup_complain("%s: cannot make the folder %s: %s", setting, path, strerror(errno));
		return false;
	}
	if (!S_ISDIR(st.st_mode)) {
		startup_complain("%s: %s is not a folder", setting, path);
		return false;
	}
	if (st.st_uid != id->uid && !(geteuid() == 0 && st.st_uid == 0)) {
		struct passwd *pw = getpwuid(st.st_uid);
		startup_complain("%s: the folder %s belongs to another user (%s); choose another folder, or give it to %s",
		    setting, path, pw ? pw->pw_name : "unknown", id->name[0] ? id->name : "the user that runs weir");
		return false;
	}
	if (access(path, W_OK | X_OK) != 0) {
		startup_complain("%s: the folder %s is not writable", setting, path);
		return false;
	}
	if (!id->drop || st.st_uid == id->uid)
		return true;
	walk_identity = *id;
	if (nftw(path, give_away, WALK_DESCRIPTORS, FTW_PHYS) != 0) {
		startup_complain("%s: cannot give %s to user %s: %s", setting, path, id->name, strerror(errno));
		return false;
	}
	return true;
}

bool
startup_folders(const struct settings *s, const struct identity *id)
{
	return own_folder("data_dir", s->data_dir, id) && own_folder("run_dir", s->run_dir, id);
}

bool
startup_become(const struct identity *id)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return false;
	if (!id->drop)
		return true;
	return setgroups(0, NULL) == 0 && setresgid(id->gid, id->gid, id->gid) == 0 &&
	    setresuid(id->uid, id->uid, id->uid) == 0;
}

/* ---- the arena ---- */

void
orphan_finish(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg)
{
	struct record_fixed f;

	(void)arg;
	if (state == INFLIGHT_DONE || *bytes < sizeof(f))
		return;		/* its owner had finished it */
	record_fixed_read(record, &f);
	f.outcome = OUTCOME_WORKER_DIED;
	f.flags |= RECORD_FLAG(PARTIAL);
	if (state == INFLIGHT_SENT) {
		/* What the provider had reported when the worker died, or the
		 * likely size of the input: somebody was billed. */
		f.flags |= RECORD_FLAG(ESTIMATED);
		f.attempts = 1;
		f.cost_nusd = m->cost_nusd;
		memcpy(f.tokens, m->tokens, sizeof(f.tokens));
	}
	record_fixed_write(record, &f);
}

uint32_t
startup_reclaim(struct arena *a, uint32_t worker)
{
	struct now now = { clock_mono_ns(), clock_wall_ns() };

	health_reclaim(a, worker);
	claim_reclaim(a, worker);
	return ledger_reclaim(a, worker, orphan_finish, NULL, now);
}

/* LMDB must not be opened in a process that forks: a short-lived child does it. */
static int
run_recovery(struct arena *a, const struct settings *s, const struct identity *id)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		log_set_process("recovery");
		if (!startup_become(id))
			_exit(1);
		_exit(keeper_recover(a, s->data_dir));
	}
	if (pid < 0)
		return 1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* What a previous run of this boot left: settle it, and empty the rings. */
static bool
drain_previous(struct arena *a, const struct settings *s, const struct identity *id)
{
	uint32_t workers = arena_sizes(a).workers, left = 1;

	for (int turn = 0; turn < RECOVER_TURNS_MAX && left > 0; turn++) {
		left = 0;
		for (uint32_t w = 0; w < workers; w++)
			left += startup_reclaim(a, w);
		if (run_recovery(a, s, id) != 0)
			return false;
	}
	return left == 0;
}

static bool
same_sizes(struct arena_sizes a, struct arena_sizes b)
{
	return a.workers == b.workers && a.inflight == b.inflight && a.ring_bytes == b.ring_bytes && a.meters == b.meters;
}

/* Without a user to change to there is nothing to give, and under systemd's
 * system call filter not even the right to ask. */
static bool
give_arena(struct arena *a, const char *path, const struct identity *id)
{
	if (!id->drop || arena_chown(a, id->uid, id->gid) == 0)
		return true;
	startup_complain("%s: cannot be given to user %s: %s", path, id->name, strerror(errno));
	return false;
}

bool
startup_arena(struct arena *a, const struct settings *s, const struct identity *id)
{
	enum arena_origin origin;
	char path[4200], why[512];

	snprintf(path, sizeof(path), "%s/arena", s->run_dir);
	if (arena_open(a, path, &s->arena, &origin, why, sizeof(why)) != 0) {
		startup_complain("%s", why);
		return false;
	}
	if (origin == ARENA_ATTACHED) {
		if (!drain_previous(a, s, id)) {
			startup_complain("%s: what the last run left could not be stored in %s (see above)", path, s->data_dir);
			return false;
		}
		if (same_sizes(arena_sizes(a), s->arena))
			return give_arena(a, path, id);
		if (arena_replace(a, path, &s->arena, why, sizeof(why)) != 0) {
			startup_complain("%s", why);
			return false;
		}
	}
	if (!give_arena(a, path, id))
		return false;
	return run_recovery(a, s, id) == 0;
}

/* ---- sockets ---- */

static bool
address_of(const struct setting_listener *l, uint16_t port, struct sockaddr_storage *out, socklen_t *n)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, l->host, &in4->sin_addr) == 1) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(port);
		*n = sizeof(*in4);
		return true;
	}
	if (inet_pton(AF_INET6, l->host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		*n = sizeof(*in6);
		return true;
	}
	errno = EINVAL;
	return false;
}

static int
bind_one(const struct setting_listener *l, uint16_t port, bool shared)
{
	struct sockaddr_storage address;
	socklen_t n;
	int one = 1;

	if (!address_of(l, port, &address, &n))
		return -1;
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	bool ok = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    (!shared || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == 0) &&
	    (address.ss_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) == 0) &&
	    bind(fd, (struct sockaddr *)&address, n) == 0;
	if (!ok) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static uint16_t
port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t n = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &n) != 0)
		return 0;
	return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
	    : ((struct sockaddr_in *)&address)->sin_port);
}

bool
startup_bind(const struct setting_listener *l, uint32_t copies, int *fds, uint16_t *port)
{
	bool ok = true;

	*port = l->port;
	if (l->port != 0) {
		/* SO_REUSEPORT would let a second program of the same user share
		 * the port in silence; a first socket without it finds out. */
		int probe = bind_one(l, l->port, false);
		ok = probe >= 0;
		if (ok)
			close(probe);
	}
	for (uint32_t i = 0; i < copies && ok; i++) {
		fds[i] = bind_one(l, *port, true);
		ok = fds[i] >= 0 && listen(fds[i], BACKLOG) == 0;
		if (ok && *port == 0)
			*port = port_of(fds[i]);
	}
	if (ok)
		return true;
	if (errno == EADDRINUSE)
		startup_complain("listen: %s port %u is in use by another program; choose another port, or stop it", l->host,
		    l->port);
	else if (errno == EACCES)
		startup_complain("listen: %s port %u needs root or CAP_NET_BIND_SERVICE; choose a port above 1023", l->host,
		    l->port);
	else
		startup_complain("listen: %s port %u: %s", l->host, l->port, strerror(errno));
	return false;
}
