/* gateway/tool_arena.c -- see tool_arena.h. */
#include "gateway/tool_arena.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "shm/base/clock.h"

/* The master's heart beats once a second. Its process number alone would not
 * do: after a death without a word it may be somebody else's. */
#define MASTER_SILENT_NS (60 * NS_PER_S)

struct now
tool_now(void)
{
	return (struct now){ clock_mono_ns(), clock_wall_ns() };
}

bool
tool_arena_runs(const struct arena *a)
{
	struct proc_view master = arena_proc(a, PROC_MASTER);

	return master.pid > 0 && (kill(master.pid, 0) == 0 || errno == EPERM) &&
	    clock_mono_ns() - master.heartbeat_mono_ns < MASTER_SILENT_NS;
}

bool
tool_arena_open(struct arena *a, const char *run_folder, bool writable, char *why, size_t why_size)
{
	char path[PATH_MAX + sizeof("/arena")];

	snprintf(path, sizeof(path), "%s/arena", run_folder);
	if (arena_attach(a, path, writable, why, why_size) != 0)
		return false;
	if (tool_arena_runs(a))
		return true;
	arena_close(a);
	snprintf(why, why_size, "no weir is running on %s", path);
	return false;
}

bool
tool_arena_replaced(const struct arena *a, const char *run_folder)
{
	char path[PATH_MAX + sizeof("/arena")];
	struct stat ours, there;

	snprintf(path, sizeof(path), "%s/arena", run_folder);
	return fstat(a->fd, &ours) != 0 || stat(path, &there) != 0 || ours.st_ino != there.st_ino ||
	    ours.st_dev != there.st_dev;
}
