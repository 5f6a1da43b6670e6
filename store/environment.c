/*
 * store/environment.c -- see environment.h.
 *
 * An environment is made under another name and renamed when its first pages
 * are on the disk. LMDB itself writes them in place and does not wait: a disk
 * that gets full in between, or a loss of power, would leave a file that it
 * refuses to open ever after.
 *
 * Its lock file is a map that is written to. Its blocks are reserved before it
 * is mapped: on a full disk that is an error, and the first write into a hole
 * would be a SIGBUS.
 */
#include "store/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAFT_MAP_BYTES ((size_t)1 << 20)	/* of one that is only made; whoever opens it says how large it may get */
#define LOCK_BYTES 40960	/* some 600 readers of 64 bytes; LMDB takes the number from the size */

static bool
writes(enum environment_mode mode)
{
	return mode == ENVIRONMENT_WRITE || mode == ENVIRONMENT_WRITE_LOOSE;
}

static int
lock_file_reserve(const char *folder)
{
	char path[PATH_MAX];
	struct stat st;
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/lock.mdb", folder);
	if (stat(path, &st) == 0 && st.st_size >= LOCK_BYTES)
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, ENVIRONMENT_FILE_MODE);
	if (fd < 0)
		return errno;
	rc = posix_fallocate(fd, 0, LOCK_BYTES);
	close(fd);
	return rc;
}

static int
open_there(MDB_env **env, const char *folder, size_t map_bytes, enum environment_mode mode)
{
	unsigned flags = MDB_NOTLS;
	int dead, rc;

	/* Read-ahead makes a cold scan ten times faster. Look-ups and the keeper
	 * would only fill memory with pages that nobody asked for. */
	if (mode != ENVIRONMENT_SCAN)
		flags |= MDB_NORDAHEAD;
	if (!writes(mode))
		flags |= MDB_RDONLY;
	if (mode == ENVIRONMENT_WRITE_LOOSE)
		flags |= MDB_NOSYNC;
	rc = writes(mode) ? lock_file_reserve(folder) : 0;
	if (rc)
		return rc;
	rc = mdb_env_create(env);
	if (rc)
		return rc;
	rc = mdb_env_set_maxdbs(*env, ENVIRONMENT_DATABASES_MAX);
	if (!rc)
		rc = mdb_env_set_maxreaders(*env, ENVIRONMENT_READERS_MAX);
	if (!rc && writes(mode))
		rc = mdb_env_set_mapsize(*env, map_bytes);
	if (!rc)
		rc = mdb_env_open(*env, folder, flags, ENVIRONMENT_FILE_MODE);
	if (!rc)
		rc = mdb_reader_check(*env, &dead);
	if (rc) {
		mdb_env_close(*env);
		*env = NULL;
	}
	return rc;
}

int
environment_sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd >= 0 && fsync(fd) == 0 ? 0 : errno;

	if (fd >= 0)
		close(fd);
	return rc;
}

static int
remove_if_there(const char *folder, const char *name)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR ? 0 : errno;
}

/* What a maker that died has left, or what lies there and is no environment. */
static int
leftover_remove(const char *folder)
{
	int rc = remove_if_there(folder, "data.mdb");

	if (!rc)
		rc = remove_if_there(folder, "lock.mdb");
	if (!rc && rmdir(folder) != 0 && errno != ENOENT && (errno != ENOTDIR || unlink(folder) != 0))
		rc = errno;
	return rc;
}

int
environment_discard(const char *folder)
{
	char old[PATH_MAX];
	int rc;

	if (snprintf(old, sizeof(old), "%s.old", folder) >= (int)sizeof(old))
		return ENAMETOOLONG;
	rc = leftover_remove(old);
	if (!rc && rename(folder, old) != 0 && errno != ENOENT)
		rc = errno;
	/* Who opens it at this moment may make a lock file anew: the next one removes that. */
	if (!rc && leftover_remove(old) == ENOTEMPTY)
		return 0;
	return rc;
}

static int
make_there(const char *folder)
{
	MDB_env *env;
	int rc = mkdir(folder, 0700) == 0 ? 0 : errno;

	if (!rc)
		rc = open_there(&env, folder, DRAFT_MAP_BYTES, ENVIRONMENT_WRITE);
	if (rc)
		return rc;
	rc = mdb_env_sync(env, 1);
	mdb_env_close(env);
	return rc ? rc : environment_sync_folder(folder);
}

/* One maker at a time: they hold a lock on the folder above. */
static int
environment_make(const char *folder)
{
	char above[PATH_MAX], draft[PATH_MAX];
	const char *parent;
	int fd, rc = 0;

	snprintf(above, sizeof(above), "%s", folder);
	parent = dirname(above);
	if (snprintf(draft, sizeof(draft), "%s.new", folder) >= (int)sizeof(draft))
		return ENAMETOOLONG;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (flock(fd, LOCK_EX) != 0)
		rc = errno;
	if (!rc && access(folder, F_OK) != 0) {
		rc = leftover_remove(draft);
		if (!rc)
			rc = make_there(draft);
		if (!rc && rename(draft, folder) != 0)
			rc = errno;
		if (!rc)
			rc = environment_sync_folder(parent);
	}
	close(fd);
	return rc;
}

int
environment_open(MDB_env **env, const char *folder, size_t map_bytes, enum environment_mode mode)
{
	int rc = 0;

	if (writes(mode) && access(folder, F_OK) != 0)
		rc = environment_make(folder);
	return rc ? rc : open_there(env, folder, map_bytes, mode);
}

int
environment_databases(MDB_env *env, enum environment_mode mode, const char *const *names, const unsigned *flags,
    MDB_dbi *out, size_t n)
{
	MDB_txn *txn;
	int rc = environment_begin(env, mode, &txn);

	if (rc)
		return rc;
	for (size_t i = 0; i < n && !rc; i++)
		rc = mdb_dbi_open(txn, names[i], flags[i] | (writes(mode) ? MDB_CREATE : 0), &out[i]);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int
environment_begin(MDB_env *env, enum environment_mode mode, MDB_txn **txn)
{
	unsigned flags = writes(mode) ? 0 : MDB_RDONLY;
	int rc = mdb_txn_begin(env, NULL, flags, txn);

	if (rc == MDB_MAP_RESIZED) {
		rc = mdb_env_set_mapsize(env, 0);
		if (!rc)
			rc = mdb_txn_begin(env, NULL, flags, txn);
	}
	return rc;
}

int
environment_renew(MDB_env *env, MDB_txn *txn)
{
	int rc = mdb_txn_renew(txn);

	if (rc == MDB_MAP_RESIZED) {
		rc = mdb_env_set_mapsize(env, 0);
		if (!rc)
			rc = mdb_txn_renew(txn);
	}
	return rc;
}

int
environment_grow(MDB_env *env)
{
	MDB_envinfo info;
	int rc = mdb_env_info(env, &info);

	if (rc)
		return rc;
	if (info.me_mapsize > ENVIRONMENT_MAP_BYTES_MAX / 2)
		return MDB_MAP_FULL;
	return mdb_env_set_mapsize(env, info.me_mapsize * 2);
}

void
environment_why(int rc, const char *doing, const char *path, char *why, size_t why_size)
{
	const char *cure = "";

	if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG)
		cure = " (make room on that disk)";
	else if (rc == EIO)	/* LMDB's word for a write that was cut short, too */
		cure = " (make room on that disk; if it has room, it is damaged)";
	else if (rc == EACCES || rc == EPERM)
		cure = " (run as the user that owns the data folder, or name another one)";
	else if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_VERSION_MISMATCH)
		cure = " (the file is damaged or not weir's: restore it, or name another data_dir)";
	else if (rc == MDB_PANIC)
		cure = " (an earlier write failed)";
	snprintf(why, why_size, "cannot %s %s: %s%s", doing, path, mdb_strerror(rc), cure);
}
