/* store/folder.c -- see folder.h. */
#include "store/folder.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/environment.h"

#define FOLDER_MODE 0700
#define USER_NAME_BYTES 64

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
	return 0;
}

int
folder_make(const char *path, char *why, size_t why_size)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

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
	return folder_check(path, why, why_size);
}
