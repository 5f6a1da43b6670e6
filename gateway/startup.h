/*
 * gateway/startup.h -- what the master does before it forks: folders, user,
 * arena, sockets. Each function says one sentence on stderr when it fails.
 */
#ifndef WEIR_GATEWAY_STARTUP_H
#define WEIR_GATEWAY_STARTUP_H

#include <stdbool.h>
#include <sys/types.h>

#include "gateway/settings.h"
#include "shm/arena.h"
#include "shm/ledger.h"

struct identity {
	bool drop;		/* started as root, and children become uid:gid */
	uid_t uid;
	gid_t gid;
	char name[64];
};

void startup_complain(const char *fmt, ...) PRINTF_LIKE(1, 2);
	/* "weir: ..." on stderr. */
bool startup_identity(const struct settings *s, struct identity *id) MUST_CHECK;
bool startup_folders(const struct settings *s, const struct identity *id) MUST_CHECK;
	/* Makes data_dir and run_dir; refuses those of other users. */
bool startup_become(const struct identity *id) MUST_CHECK;
	/* In a child, after the fork: for good. */
bool startup_arena(struct arena *a, const struct settings *s, const struct identity *id) MUST_CHECK;
	/* Attaches or makes the arena; gives back what a previous run held,
	 * settles what it left in flight, drains its rings into the store. Levels are loaded by workers,
	 * when they meet a meter. */
bool startup_bind(const struct setting_listener *l, uint32_t copies, int *fds, uint16_t *port) MUST_CHECK;
	/* `copies` listening sockets on one address; port is the bound one. */

void orphan_finish(char *record, uint32_t *bytes, const struct metered *m, enum inflight_state state, void *arg);
	/* The record of a request whose worker died (a ledger_orphan_fn). */
uint32_t startup_reclaim(struct arena *a, uint32_t worker);
	/* Gives back all that a dead worker held: probes, claims, and by
	 * ledger_reclaim() its requests. How many of these are left for lack of room. */

#endif
