/* store/folder.c -- see folder.h. */
#include "store/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/environment.h"

#define FOLDER_MODE 0700
#define USER_NAME_BYTES 64
#define FORMAT 2		/* raise when a weir could misread what an older one stored */
#define FORMAT_WORDS "weir store "
#define FORMAT_BYTES 64

static void
user_name(uid_t uid, char *out, size_t size)
{
	struct passwd entry, *found = NULL;
	char memory[1024];

	if (getpwuid_r(uid, &entry, memory, sizeof(memory), &found) == 0 && found)
		snprintf(out, size, "%s", entry.pw_name);
	else
		snprintf(out, size, "number %u", (unsigned)uid);
}

/* ---- the format ---- */

static bool
holds_something(const char *path)
{
	static const char *const names[] = { "catalog", "ledger", "records" };
	char name[PATH_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(name, sizeof(name), "%s/%s", path, names[i]);
		if (access(name, F_OK) == 0)
			return true;
	}
	return false;
}

/* 0: there is no such file, or it says something else. */
static unsigned long
format_read(const char *path)
{
	char name[PATH_MAX], text[FORMAT_BYTES];
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "%s/format", path);
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strncmp(text, FORMAT_WORDS, strlen(FORMAT_WORDS)) == 0 ? strtoul(text + strlen(FORMAT_WORDS), NULL, 10) : 0;
}

/*
 * What the folder holds is looked at before the format: another process that
 * makes the folder at the same time writes them the other way round.
 */
static int
format_check(const char *path, char *why, size_t why_size)
{
	bool filled = holds_something(path);
	unsigned long format = format_read(path);

	if (format == FORMAT || (format == 0 && !filled))
		return 0;
	if (format > FORMAT)
		snprintf(why, why_size,
		    "the data folder %s was written by a newer weir (format %lu, this one has %d): run that one, or name another data_dir",
		    path, format, FORMAT);
	else
		snprintf(why, why_size,
		    "the data folder %s was written by an older weir (this one has format %d; a restored folder needs its file \"format\" too): name another data_dir, or move it away",
		    path, FORMAT);
	return -1;
}

/* Under another name first: it is there as a whole or not at all. */
static int
format_write(const char *path)
{
	static const char text[] = FORMAT_WORDS "2\n";
	char name[PATH_MAX], draft[PATH_MAX];
	int fd, rc = 0;

	_Static_assert(FORMAT == 2, "as the text says");
	if (format_read(path) != 0)
		return 0;
	snprintf(name, sizeof(name), "%s/format", path);
	snprintf(draft, sizeof(draft), "%s/format.%d", path, (int)getpid());
	fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, ENVIRONMENT_FILE_MODE);
	if (fd < 0)
		return errno;
	errno = ENOSPC;		/* of a write that was cut short */
	if (write(fd, text, sizeof(text) - 1) != (ssize_t)(sizeof(text) - 1) || fsync(fd) != 0)
		rc = errno;
	close(fd);
	if (!rc && rename(draft, name) != 0)
		rc = errno;
	if (rc) {
		unlink(draft);
		return rc;
	}
	return environment_sync_folder(path);
}

/* ---- the folder ---- */

int
folder_check(const char *path, char *why, size_t why_size)
{
	struct stat st;

	if (stat(path, &st) != 0) {
		environment_why(errno, "open the folder", path, why, why_size);
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		snprintf(why, why_size, "%s is not a folder: name another data_dir, or move the file away", path);
		return -1;
	}
	if (st.st_uid != geteuid()) {
		char owner[USER_NAME_BYTES], ours[USER_NAME_BYTES];

		user_name(st.st_uid, owner, sizeof(owner));
		user_name(geteuid(), ours, sizeof(ours));
		snprintf(why, why_size,
		    "the data folder %s belongs to user %s, and weir runs as user %s: run it as %s, or name another data_dir",
		    path, owner, ours, owner);
		return -1;
	}
	return format_check(path, why, why_size);
}

int
folder_make(const char *path, char *why, size_t why_size)
{
	char part[PATH_MAX];
	size_t n = strlen(path);
	int rc;

	if (n == 0 || n >= sizeof(part)) {
		snprintf(why, why_size, "the name of the data folder is empty or longer than %d bytes", PATH_MAX - 1);
		return -1;
	}
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, FOLDER_MODE) != 0 && errno != EEXIST) {
			environment_why(errno, "make the folder", part, why, why_size);
			return -1;
		}
	}
	if (folder_check(path, why, why_size) != 0)
		return -1;
	rc = format_write(path);
	if (rc)
		environment_why(rc, "write the file \"format\" in", path, why, why_size);
	return rc ? -1 : 0;
}
