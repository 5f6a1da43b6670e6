/* store/environment.c -- see environment.h. */
#include "store/environment.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int
environment_open(MDB_env **env, const char *folder, size_t map_bytes, enum environment_mode mode)
{
	unsigned flags = MDB_NOTLS;
	int dead, rc;

	if (mode == ENVIRONMENT_WRITE && mkdir(folder, 0700) != 0 && errno != EEXIST)
		return errno;
	/* Read-ahead makes a cold scan ten times faster. Look-ups and the keeper
	 * would only fill memory with pages that nobody asked for. */
	if (mode != ENVIRONMENT_SCAN)
		flags |= MDB_NORDAHEAD;
	if (mode != ENVIRONMENT_WRITE)
		flags |= MDB_RDONLY;
	rc = mdb_env_create(env);
	if (rc)
		return rc;
	rc = mdb_env_set_maxdbs(*env, ENVIRONMENT_DATABASES_MAX);
	if (!rc)
		rc = mdb_env_set_maxreaders(*env, ENVIRONMENT_READERS_MAX);
	if (!rc && mode == ENVIRONMENT_WRITE)
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
environment_databases(MDB_env *env, enum environment_mode mode, const char *const *names, const unsigned *flags,
    MDB_dbi *out, size_t n)
{
	MDB_txn *txn;
	int rc = environment_begin(env, mode, &txn);

	if (rc)
		return rc;
	for (size_t i = 0; i < n && !rc; i++)
		rc = mdb_dbi_open(txn, names[i], flags[i] | (mode == ENVIRONMENT_WRITE ? MDB_CREATE : 0), &out[i]);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

int
environment_begin(MDB_env *env, enum environment_mode mode, MDB_txn **txn)
{
	unsigned flags = mode == ENVIRONMENT_WRITE ? 0 : MDB_RDONLY;
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
	else if (rc == EACCES || rc == EPERM)
		cure = " (run as the user that owns the data folder, or name another one)";
	else if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_VERSION_MISMATCH)
		cure = " (the file is damaged or not weir's: restore it, or name another data_dir)";
	else if (rc == MDB_PANIC)
		cure = " (an earlier write failed)";
	snprintf(why, why_size, "cannot %s %s: %s%s", doing, path, mdb_strerror(rc), cure);
}
