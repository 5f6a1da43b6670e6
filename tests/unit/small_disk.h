/*
 * tests/unit/small_disk.h -- a disk that gets full: a small tmpfs over a folder.
 *
 * In a mount namespace of this process (and of what it forks afterwards), so that
 * others see nothing of it. A test that needs one is skipped where the machine
 * allows none. The process stays in its namespace, so such tests come last.
 */
#ifndef WEIR_TESTS_UNIT_SMALL_DISK_H
#define WEIR_TESTS_UNIT_SMALL_DISK_H

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define SMALL_DISK_PAGE_BYTES 4096
#define SMALL_DISK_BYTES_MAX (1 << 30)

static inline bool
small_disk_says(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return written;
}

static inline bool
small_disk_namespace(void)
{
	static int entered = -1;
	char users[64], groups[64];

	snprintf(users, sizeof(users), "%u %u 1", (unsigned)getuid(), (unsigned)getuid());
	snprintf(groups, sizeof(groups), "%u %u 1", (unsigned)getgid(), (unsigned)getgid());
	if (entered >= 0)
		return entered;
	entered = unshare(CLONE_NEWNS) == 0;
	if (!entered && unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0)
		entered = small_disk_says("/proc/self/uid_map", users) && small_disk_says("/proc/self/setgroups", "deny") &&
		    small_disk_says("/proc/self/gid_map", groups);
	entered = entered && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return entered;
}

static inline void
small_disk_mount(const char *folder, int bytes)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%d,mode=0700", bytes);
	if (!small_disk_namespace() || mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, options) != 0) {
		print_message("no tmpfs can be mounted here: left to the limits of files\n");
		skip();
	}
}

static inline void
small_disk_unmount(const char *folder)
{
	umount2(folder, MNT_DETACH);
}

/* Takes all that is left of it, with a file "filler". How much that was. */
static inline off_t
small_disk_fill(const char *folder)
{
	static const char page[SMALL_DISK_PAGE_BYTES] = { 1 };
	off_t bytes = 0;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/filler", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	while (bytes <= SMALL_DISK_BYTES_MAX && write(fd, page, sizeof(page)) == sizeof(page))
		bytes += SMALL_DISK_PAGE_BYTES;
	close(fd);
	assert_true(bytes > 0 && bytes <= SMALL_DISK_BYTES_MAX);
	return bytes;
}

/* The filler becomes so small. */
static inline void
small_disk_shrink(const char *folder, off_t bytes)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/filler", folder);
	assert_int_equal(truncate(path, bytes), 0);
}

#endif
