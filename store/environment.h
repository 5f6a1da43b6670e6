/*
 * store/environment.h -- what all uses of LMDB here have in common.
 *
 * Inside store/ only. Rules of LMDB that the callers keep: an environment is
 * opened after the fork, once in a process; read transactions are short
 * (MDB_NOTLS: they belong to their owner, not to a thread). Commits are
 * durable when they return, except in mode WRITE_LOOSE. A new environment is
 * there as a whole, durable, or not at all.
 *
 * Maps are address space, not memory: generous at first, and doubled when a
 * writer fills one. Readers in other processes follow (environment_begin).
 */
#ifndef WEIR_STORE_ENVIRONMENT_H
#define WEIR_STORE_ENVIRONMENT_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"

#define ENVIRONMENT_READERS_MAX 512	/* workers, tools, and slots of the dead until they are swept */
#define ENVIRONMENT_DATABASES_MAX 4
#define ENVIRONMENT_FILE_MODE 0600
#define ENVIRONMENT_MAP_BYTES_MAX ((size_t)1 << 44)	/* 16 TiB: growth ends here */

enum environment_mode {
	ENVIRONMENT_READ,	/* here and there: without read-ahead */
	ENVIRONMENT_SCAN,	/* from one end to the other: with read-ahead */
	ENVIRONMENT_WRITE,
	ENVIRONMENT_WRITE_LOOSE,	/* likewise; what is committed outlives any process, but a loss of
					 * power may leave a file that nobody can read (MDB_NOSYNC) */
};

int environment_open(MDB_env **env, const char *folder, size_t map_bytes, enum environment_mode mode) MUST_CHECK;
	/* Writers make the folder itself (not those above it) and the files; several
	 * processes may do so at once. The others take the map's size from the file. Sweeps the reader slots of
	 * dead processes. 0, an errno value, or a code of LMDB's. */
int environment_databases(MDB_env *env, enum environment_mode mode, const char *const *names,
    const unsigned *flags, MDB_dbi *out, size_t n) MUST_CHECK;
	/* Opens (writers: makes) the named databases. MDB_NOTFOUND: not made yet. */
int environment_begin(MDB_env *env, enum environment_mode mode, MDB_txn **txn) MUST_CHECK;
	/* As mdb_txn_begin(); follows a map that another process has grown. */
int environment_renew(MDB_env *env, MDB_txn *txn) MUST_CHECK;
	/* As mdb_txn_renew() of a read transaction; follows a grown map. */
int environment_grow(MDB_env *env) MUST_CHECK;
	/* After MDB_MAP_FULL, without a transaction: doubles the map. */
int environment_discard(const char *folder) MUST_CHECK;
	/* Takes it out of its place and removes it. Who has it open reads on in what it was; who
	 * opens it at that moment gets both files of it or an error. Nobody may write it. */
int environment_sync_folder(const char *folder) MUST_CHECK;
	/* What was made or renamed in it survives a loss of power. 0 or errno. */
void environment_why(int rc, const char *doing, const char *path, char *why, size_t why_size);
	/* "cannot <doing> <path>: <reason>", with the cure where there is one. */

/* Integers in keys are big-endian, so that LMDB's order of bytes is theirs. */
static inline void
be64_write(uint8_t out[8], uint64_t v)
{
	v = __builtin_bswap64(v);
	__builtin_memcpy(out, &v, sizeof(v));
}

static inline uint64_t
be64_read(const void *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, sizeof(v));
	return __builtin_bswap64(v);
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are stored as the machine has them");

#endif
