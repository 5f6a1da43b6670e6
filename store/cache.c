/*
 * store/cache.c -- see cache.h.
 *
 * The keeper throws the environment away by giving its folder another name. A
 * worker that has it open reads on in the old files, which is safe: both are
 * still the ones of each other, and nobody writes them. It looks now and then
 * whether another file has the name. To open, it holds the folder by a
 * descriptor and names the files through that: they are of one folder
 * whatever happens to its name meanwhile. (A lock file of one environment and
 * data of another would be a reader that its writer does not see.)
 */
#include "store/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/log.h"
#include "store/cache_layout.h"

struct cache {
	char folder[PATH_MAX], data_path[PATH_MAX + 16];
	MDB_env *env;		/* NULL: not open */
	MDB_dbi table[CACHE_TABLES];
	MDB_txn *txn;		/* kept and renewed; NULL before the first look-up */
	dev_t device;		/* of the file that is open */
	ino_t inode;
	uint64_t secret[2];
	int64_t look_mono_ns;	/* when the folder is looked at next */
	bool reading;		/* between cache_get() and cache_done() */
	bool failing;		/* has been logged */
};

struct cache *
cache_open_read(const char *data_dir)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	CHECK(snprintf(c->folder, sizeof(c->folder), "%s/cache", data_dir) < (int)sizeof(c->folder));
	snprintf(c->data_path, sizeof(c->data_path), "%s/data.mdb", c->folder);
	return c;
}

static void
forget(struct cache *c)
{
	if (c->txn)
		mdb_txn_abort(c->txn);
	c->txn = NULL;
	if (c->env)
		mdb_env_close(c->env);
	c->env = NULL;
}

void
cache_close(struct cache *c)
{
	if (!c)
		return;
	forget(c);
	explicit_bzero(c->secret, sizeof(c->secret));
	free(c);
}

static void
fail(struct cache *c, int rc)
{
	forget(c);
	if (!c->failing)
		log_warn("the response cache in %s cannot be read (%s): nothing is found in it until the keeper has put it right",
		    c->folder, mdb_strerror(rc));
	c->failing = true;
}

/* ---- which environment ---- */

static int
read_about(struct cache *c, MDB_txn *txn)
{
	MDB_val key = { sizeof(CACHE_ABOUT) - 1, (void *)(uintptr_t)CACHE_ABOUT }, value;
	struct cache_about about;
	int rc = mdb_get(txn, c->table[CACHE_ABOUT_TABLE], &key, &value);

	if (rc)
		return rc;
	if (value.mv_size != sizeof(about))
		return MDB_VERSION_MISMATCH;
	memcpy(&about, value.mv_data, sizeof(about));
	if (about.format != CACHE_FORMAT)
		return MDB_VERSION_MISMATCH;
	memcpy(c->secret, about.secret, sizeof(c->secret));
	return 0;
}

static int
open_in(struct cache *c, int folder_fd)
{
	static const char *const names[CACHE_TABLES] = CACHE_TABLE_NAMES;
	static const unsigned flags[CACHE_TABLES] = CACHE_TABLE_FLAGS;
	char path[64];
	struct stat st;
	MDB_txn *txn;
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", folder_fd);
	rc = environment_open(&c->env, path, 0, ENVIRONMENT_READ);
	if (!rc)
		rc = environment_databases(c->env, ENVIRONMENT_READ, names, flags, c->table, CACHE_TABLES);
	if (!rc)
		rc = environment_begin(c->env, ENVIRONMENT_READ, &txn);
	if (rc)
		return rc;
	rc = read_about(c, txn);
	mdb_txn_abort(txn);
	if (!rc)
		rc = mdb_env_get_fd(c->env, &fd);
	if (!rc && fstat(fd, &st) != 0)
		rc = errno;
	c->device = st.st_dev;
	c->inode = st.st_ino;
	return rc;
}

static void
open_it(struct cache *c)
{
	int fd = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 ? errno : open_in(c, fd);

	if (fd >= 0)
		close(fd);
	/* Not made yet, or by a weir before this one: the keeper is about to make it. */
	if (rc == ENOENT || rc == MDB_NOTFOUND || rc == MDB_VERSION_MISMATCH)
		forget(c);
	else if (rc)
		fail(c, rc);
}

/* Is there a cache? Now and then: is it still the one that is open? */
static bool
ready(struct cache *c)
{
	int64_t now = clock_mono_ns();
	struct stat st;

	CHECK(!c->reading);
	if (now < c->look_mono_ns)
		return c->env != NULL;
	c->look_mono_ns = now + CACHE_LOOK_NS;
	if (c->env && (stat(c->data_path, &st) != 0 || st.st_ino != c->inode || st.st_dev != c->device))
		forget(c);
	if (!c->env)
		open_it(c);
	return c->env != NULL;
}

bool
cache_secret(struct cache *c, uint64_t secret[2])
{
	if (!ready(c))
		return false;
	memcpy(secret, c->secret, sizeof(c->secret));
	return true;
}

/* ---- look-ups ---- */

static int
look_up(struct cache *c, const uint64_t key[2], MDB_val *value)
{
	MDB_val k = { 2 * sizeof(*key), (void *)(uintptr_t)key };
	int rc = c->txn ? environment_renew(c->env, c->txn) : environment_begin(c->env, ENVIRONMENT_READ, &c->txn);

	return rc ? rc : mdb_get(c->txn, c->table[CACHE_ENTRIES], &k, value);
}

bool
cache_get(struct cache *c, const uint64_t key[2], int64_t now_wall_ns, struct cache_entry *out)
{
	MDB_val value;
	int rc;

	if (!ready(c))
		return false;
	rc = look_up(c, key, &value);
	if (rc && rc != MDB_NOTFOUND) {
		fail(c, rc);
		return false;
	}
	c->failing = false;
	c->reading = rc == 0 && value.mv_size >= CACHE_SEQUENCE_BYTES &&
	    cache_entry_decode((struct slice){ (const char *)value.mv_data + CACHE_SEQUENCE_BYTES,
	    value.mv_size - CACHE_SEQUENCE_BYTES }, out) && out->fixed.expires_wall_ns > now_wall_ns;
	if (!c->reading)
		mdb_txn_reset(c->txn);
	return c->reading;
}

void
cache_done(struct cache *c)
{
	CHECK(c->reading);
	c->reading = false;
	mdb_txn_reset(c->txn);
}
