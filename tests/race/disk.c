/*
 * tests/race/disk.c -- see disk.h.
 *
 * A note is complete before its write begins and is crossed out after the sync
 * has returned. A stop in between is on the safe side: a write that was not yet
 * made is taken back to what is there, and one that was synced a moment ago is
 * one that nobody relies on yet.
 */
/* The symbols have to be those that LMDB calls: pwrite, and pwrite64. */
#undef _FILE_OFFSET_BITS
#include "tests/race/disk.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NOTES_MAX 16384
#define PAGE_BYTES 4096
#define NAME_BYTES 96

struct note {
	_Atomic bool pending;
	char name[NAME_BYTES];		/* below the folder */
	off_t at;
	uint32_t bytes;
	char before[PAGE_BYTES], after[PAGE_BYTES];
};

struct disk {
	_Atomic uint32_t notes;
	_Atomic bool overflow;		/* this time there were too many to lose some */
	struct note note[NOTES_MAX];
};

static struct disk *disk;
static char watched[PATH_MAX];		/* armed if not empty */

bool
disk_open(void)
{
	void *p = mmap(NULL, sizeof(*disk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	disk = p == MAP_FAILED ? NULL : p;
	return disk != NULL;
}

void
disk_arm(const char *folder)
{
	snprintf(watched, sizeof(watched), "%s/", folder);
}

void
disk_forget(void)
{
	atomic_store(&disk->notes, 0);
	atomic_store(&disk->overflow, false);
}

/* Its name below the folder; false if it is no file of ours. */
static bool
file_name(int fd, char name[NAME_BYTES])
{
	char link[64], path[PATH_MAX];
	size_t prefix = strlen(watched);
	ssize_t n;

	if (prefix == 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	if (strncmp(path, watched, prefix) != 0 || !strstr(path, "/data.mdb"))
		return false;
	snprintf(name, NAME_BYTES, "%s", path + prefix);
	return true;
}

static void
note_page(const char *name, const char *bytes, uint32_t n, off_t at)
{
	uint32_t number = atomic_load(&disk->notes);
	struct note *note = &disk->note[number];
	char path[PATH_MAX + NAME_BYTES];
	ssize_t had;
	int reader;

	if (number == NOTES_MAX) {
		atomic_store(&disk->overflow, true);
		return;
	}
	snprintf(path, sizeof(path), "%s%s", watched, name);
	reader = open(path, O_RDONLY | O_CLOEXEC);	/* the writer's descriptor may not be able to */
	had = reader >= 0 ? pread(reader, note->before, n, at) : -1;
	if (reader >= 0)
		close(reader);
	if (had < 0)
		abort();
	memset(note->before + had, 0, n - (size_t)had);
	memcpy(note->after, bytes, n);
	snprintf(note->name, sizeof(note->name), "%s", name);
	note->at = at;
	note->bytes = n;
	atomic_store(&note->pending, true);
	atomic_store(&disk->notes, number + 1);
}

static void
note_write(const char *name, const char *bytes, size_t n, off_t at)
{
	while (n > 0) {
		uint32_t part = n < PAGE_BYTES ? (uint32_t)n : PAGE_BYTES;

		note_page(name, bytes, part, at);
		bytes += part;
		at += part;
		n -= part;
	}
}

static void
note_synced(const char *name)
{
	uint32_t notes = atomic_load(&disk->notes);
	bool any = false;

	for (uint32_t i = 0; i < notes; i++) {
		if (strcmp(disk->note[i].name, name) == 0)
			atomic_store(&disk->note[i].pending, false);
		any = any || atomic_load(&disk->note[i].pending);
	}
	if (!any) {
		atomic_store(&disk->notes, 0);
		atomic_store(&disk->overflow, false);
	}
}

/* ---- in front of the C library ---- */

typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);
typedef ssize_t writev_fn(int, const struct iovec *, int);
typedef int sync_fn(int);

/* What stands behind ours. ISO C has no cast from an object to a function. */
static void
find_next(const char *symbol, void *function)
{
	void *found = dlsym(RTLD_NEXT, symbol);

	if (!found)
		abort();
	memcpy(function, &found, sizeof(found));
}

static ssize_t
watched_pwrite(const char *symbol, int fd, const void *bytes, size_t n, off_t at)
{
	char name[NAME_BYTES];
	bool ours = file_name(fd, name);
	pwrite_fn *next;
	ssize_t written;

	find_next(symbol, &next);
	if (ours)
		note_write(name, bytes, n, at);
	written = next(fd, bytes, n, at);
	if (ours && (fcntl(fd, F_GETFL) & O_DSYNC))
		note_synced(name);
	return written;
}

ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	return watched_pwrite("pwrite", fd, bytes, n, at);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	return watched_pwrite("pwrite64", fd, bytes, n, at);
}

ssize_t
writev(int fd, const struct iovec *parts, int n)
{
	char name[NAME_BYTES];
	writev_fn *next;

	find_next("writev", &next);
	if (file_name(fd, name)) {
		off_t at = lseek(fd, 0, SEEK_CUR);

		for (int i = 0; i < n; i++) {
			note_write(name, parts[i].iov_base, parts[i].iov_len, at);
			at += (off_t)parts[i].iov_len;
		}
	}
	return next(fd, parts, n);
}

static int
watched_sync(const char *symbol, int fd)
{
	char name[NAME_BYTES];
	sync_fn *next;
	int rc;

	find_next(symbol, &next);
	rc = next(fd);
	if (rc == 0 && file_name(fd, name))
		note_synced(name);
	return rc;
}

int
fdatasync(int fd)
{
	return watched_sync("fdatasync", fd);
}

int
fsync(int fd)
{
	return watched_sync("fsync", fd);
}

/* ---- after the loss ---- */

static void
put(const char *folder, const struct note *note, const char *bytes)
{
	char path[PATH_MAX + NAME_BYTES];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, note->name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;		/* its folder has got another name since: it was synced before */
	if (pwrite(fd, bytes, note->bytes, note->at) != (ssize_t)note->bytes)
		abort();
	close(fd);
}

uint32_t
disk_lose(const char *copy, enum disk_loss loss, uint64_t *random)
{
	uint32_t notes = atomic_load(&disk->notes), lost = 0;

	if (loss == DISK_KEEPS_ALL || atomic_load(&disk->overflow))
		return 0;
	/* Back to what was synced, and then forward with those that had luck. */
	for (uint32_t i = notes; i > 0; i--)
		if (atomic_load(&disk->note[i - 1].pending))
			put(copy, &disk->note[i - 1], disk->note[i - 1].before);
	for (uint32_t i = 0; i < notes; i++) {
		if (!atomic_load(&disk->note[i].pending))
			continue;
		*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407;
		if (loss == DISK_LOSES_SOME && (*random >> 63))
			put(copy, &disk->note[i], disk->note[i].after);
		else
			lost++;
	}
	return lost;
}
