/*
 * store/cache_stamp.c -- see cache_stamp.h.
 */
#include "store/cache_stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "store/environment.h"

#define STAMP_BYTES 128

/* What it has to say: "boot 6f1c...-... file 1a:2b". 0 or errno. */
static int
stamp_make(const char *data_dir, char out[STAMP_BYTES])
{
	char path[PATH_MAX], boot[CLOCK_BOOT_BYTES];
	struct stat st;

	if (snprintf(path, sizeof(path), "%s/cache/data.mdb", data_dir) >= (int)sizeof(path))
		return ENAMETOOLONG;
	if (!clock_boot_id(boot))
		return EIO;
	if (stat(path, &st) != 0)
		return errno;
	snprintf(out, STAMP_BYTES, "boot %s file %llx:%llx\n", boot, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return 0;
}

bool
cache_stamp_fits(const char *data_dir)
{
	char path[PATH_MAX], want[STAMP_BYTES], have[STAMP_BYTES];
	ssize_t n;
	int fd;

	if (stamp_make(data_dir, want) != 0)
		return false;
	snprintf(path, sizeof(path), "%s/cache.boot", data_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	n = read(fd, have, sizeof(have));
	close(fd);
	return n == (ssize_t)strlen(want) && memcmp(have, want, (size_t)n) == 0;
}

/* Under another name first: a part of it might fit by chance. */
int
cache_stamp_write(const char *data_dir)
{
	char path[PATH_MAX], draft[PATH_MAX], text[STAMP_BYTES];
	int fd, rc = stamp_make(data_dir, text);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/cache.boot", data_dir);
	snprintf(draft, sizeof(draft), "%s/cache.boot.new", data_dir);
	fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, ENVIRONMENT_FILE_MODE);
	if (fd < 0)
		return errno;
	errno = ENOSPC;		/* of a write that was cut short */
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) != 0)
		rc = errno;
	close(fd);
	if (!rc && rename(draft, path) != 0)
		rc = errno;
	return rc ? rc : environment_sync_folder(data_dir);
}

int
cache_stamp_remove(const char *data_dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cache.boot", data_dir);
	return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
}
