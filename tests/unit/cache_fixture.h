/*
 * tests/unit/cache_fixture.h -- a cache, its writer in a process of its own, and
 * entries that say what they are.
 *
 * LMDB wants an environment to be open once in a process, so the writer is a
 * child that does what it is told. Items lie in memory that both share. Every
 * entry follows from its key and a version, so whoever reads one can tell whether
 * it is whole and what was stored there.
 */
#ifndef WEIR_TESTS_UNIT_CACHE_FIXTURE_H
#define WEIR_TESTS_UNIT_CACHE_FIXTURE_H

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/base/clock.h"
#include "store/cache.h"
#include "store/cache_layout.h"
#include "store/cache_writer.h"

#define CACHE_NOW_NS (INT64_C(1795000000) * NS_PER_S)
#define CACHE_AGE_NS (3600 * NS_PER_S)
#define CACHE_ITEMS_MAX 64
#define CACHE_ITEM_BYTES (4u << 20)	/* room for each, in memory that is touched only if it is used */
#define CACHE_PATIENCE_NS (20 * NS_PER_S)

/* ---- entries ---- */

/* What is under a key in a version: `body_bytes` bytes that nobody makes by chance. */
struct cache_spec {
	uint64_t key, version;
	uint32_t body_bytes;
	int64_t created_wall_ns, expires_wall_ns;
};

static inline uint64_t
cache_noise(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static inline void
cache_body(const struct cache_spec *s, char *out)
{
	uint64_t x = (s->key * UINT64_C(0x9e3779b97f4a7c15) ^ s->version * UINT64_C(0xbf58476d1ce4e5b9)) | 1, word;

	for (size_t at = 0; at < s->body_bytes; at += 8) {
		word = cache_noise(&x);
		memcpy(out + at, &word, s->body_bytes - at < 8 ? s->body_bytes - at : 8);
	}
}

/* Its bytes; how many. */
static inline size_t
cache_encode(const struct cache_spec *s, char *out)
{
	char id[64];
	struct cache_entry e = {
		.fixed = {
			.status = 200, .flags = s->key % 2 ? CACHE_FLAG(STREAM) : 0, .created_wall_ns = s->created_wall_ns,
			.expires_wall_ns = s->expires_wall_ns, .tokens = { (int64_t)s->key & 0xffff, 2, 3 },
			.cost_nusd = (int64_t)(s->version & 0xffffff),
		},
		.content_type = SLICE("text/event-stream"), .model = SLICE("claude-sonnet-5-5"), .provider = SLICE("anthropic"),
	};
	uint32_t n;

	snprintf(id, sizeof(id), "%020llu %010u", (unsigned long long)s->version, s->body_bytes);
	e.provider_request_id = slice_of(id);
	e.body = (struct slice){ "", s->body_bytes };	/* only its length is looked at */
	n = cache_entry_head(&e, out);
	CHECK(n > 0);
	cache_body(s, out + n);
	return n + s->body_bytes;
}

/* The version of what was read under the key; 0: it is not whole, or another key's. */
static inline uint64_t
cache_version(uint64_t key, const struct cache_entry *e)
{
	struct cache_spec s = {
		.key = key, .created_wall_ns = e->fixed.created_wall_ns, .expires_wall_ns = e->fixed.expires_wall_ns,
	};
	unsigned long long version;
	char id[64], *want;
	size_t head, n;
	bool whole;

	if (e->provider_request_id.n >= sizeof(id))
		return 0;
	snprintf(id, sizeof(id), "%.*s", SLICE_FMT(e->provider_request_id));
	if (sscanf(id, "%llu %u", &version, &s.body_bytes) != 2 || s.body_bytes != e->body.n)
		return 0;
	s.version = version;
	want = malloc(CACHE_HEAD_BYTES_MAX + s.body_bytes);
	CHECK(want);
	n = cache_encode(&s, want);
	head = n - s.body_bytes;
	/* The head is in front of the body, in the same bytes. */
	whole = memcmp(e->body.p - head, want, n) == 0;
	free(want);
	return whole ? s.version : 0;
}

static inline uint64_t
cache_room_of(uint32_t body_bytes)
{
	struct cache_spec s = { 1, 1, body_bytes, 1, 2 };
	char *bytes = malloc(CACHE_HEAD_BYTES_MAX + body_bytes);
	size_t n;

	CHECK(bytes);
	n = cache_encode(&s, bytes);
	free(bytes);
	return cache_room(n, (uint64_t)sysconf(_SC_PAGESIZE));
}

/* ---- the writer's process ---- */

struct cache_order_to {		/* in shared memory */
	uint64_t bytes_max;
	int64_t now_wall_ns;
	uint32_t n;
	struct cache_item item[CACHE_ITEMS_MAX];	/* entries lie in bytes[] */
	struct cache_changes changes;
	int rc;
	char why[512];
	char bytes[CACHE_ITEMS_MAX][CACHE_ITEM_BYTES];
};

struct cache_world {
	char data_dir[64];
	struct cache_order_to *told;
	pid_t writer;		/* 0: none */
	int to, from;		/* pipes: a byte for each order */
	struct cache *reader;	/* NULL: not open */
	uint64_t versions;
	uint64_t spare_bytes;	/* of a writer that is started */
};

static inline _Noreturn void
cache_writer_process(struct cache_world *w, int from, int to)
{
	struct cache_writer *writer = cache_writer_new_with(w->data_dir, w->spare_bytes);
	struct cache_order_to *t = w->told;
	char order;

	signal(SIGXFSZ, SIG_IGN);
	CHECK(writer);
	while (read(from, &order, 1) == 1) {
		if (order == 'r')
			t->rc = cache_writer_remove(writer, t->why, sizeof(t->why));
		else
			t->rc = cache_writer_apply(writer, t->bytes_max, t->item, t->n, t->now_wall_ns, &t->changes, t->why,
			    sizeof(t->why));
		if (write(to, &order, 1) != 1)
			break;
	}
	cache_writer_free(writer);
	_exit(0);
}

static inline void
cache_writer_start(struct cache_world *w)
{
	pid_t parent = getpid();
	int there[2], back[2];

	CHECK(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
	w->writer = fork();
	CHECK(w->writer >= 0);
	if (w->writer == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
			_exit(1);
		close(there[1]);
		close(back[0]);
		cache_writer_process(w, there[0], back[1]);
	}
	close(there[0]);
	close(back[1]);
	w->to = there[1];
	w->from = back[0];
}

/* It closes what it has open, and ends; or it is killed. */
static inline void
cache_writer_stop(struct cache_world *w, bool kill_it)
{
	int status;

	if (w->writer == 0)
		return;
	if (kill_it)
		kill(w->writer, SIGKILL);
	close(w->to);
	CHECK(waitpid(w->writer, &status, 0) == w->writer);
	CHECK(kill_it ? WIFSIGNALED(status) : status == 0);
	close(w->from);
	w->writer = 0;
}

static inline int
cache_order(struct cache_world *w, char order)
{
	char done;

	CHECK(write(w->to, &order, 1) == 1 && read(w->from, &done, 1) == 1);
	return w->told->rc;
}

/* ---- what is told ---- */

static inline void
cache_begin(struct cache_world *w)
{
	w->told->n = 0;
}

/* Another version under the key; which one. */
static inline uint64_t
cache_put_aged(struct cache_world *w, uint64_t key, uint32_t body_bytes, int64_t age_ns)
{
	struct cache_order_to *t = w->told;
	struct cache_spec s = { key, ++w->versions, body_bytes, t->now_wall_ns, t->now_wall_ns + age_ns };
	uint32_t i = t->n++;

	CHECK(i < CACHE_ITEMS_MAX && CACHE_HEAD_BYTES_MAX + body_bytes <= CACHE_ITEM_BYTES);
	t->item[i].key[0] = key;
	t->item[i].key[1] = ~key;
	t->item[i].entry = (struct slice){ t->bytes[i], cache_encode(&s, t->bytes[i]) };
	return s.version;
}

static inline uint64_t
cache_put(struct cache_world *w, uint64_t key, uint32_t body_bytes)
{
	return cache_put_aged(w, key, body_bytes, CACHE_AGE_NS);
}

static inline void
cache_delete(struct cache_world *w, uint64_t key)
{
	w->told->item[w->told->n++] = (struct cache_item){ .key = { key, ~key }, .entry = SLICE_NONE };
}

static inline int
cache_commit(struct cache_world *w)
{
	int rc = cache_order(w, 'a');

	w->told->n = 0;
	return rc;
}

/* ... which has to work. */
static inline void
cache_commit_or_end(struct cache_world *w)
{
	int rc = cache_commit(w);

	if (rc != 0)
		fprintf(stderr, "%s\n", w->told->why);
	CHECK(rc == 0);
}

/* The version that is under the key; 0: a miss. */
static inline uint64_t
cache_find(struct cache_world *w, uint64_t key)
{
	const uint64_t k[2] = { key, ~key };
	struct cache_entry e;
	uint64_t version;

	if (!cache_get(w->reader, k, w->told->now_wall_ns, &e))
		return 0;
	version = cache_version(key, &e);
	CHECK(version != 0);
	cache_done(w->reader);
	return version;
}

/* ---- a second opinion ---- */

static inline int
cache_audit_environment(MDB_env *env, struct cache_about *about)
{
	static const char *const names[CACHE_TABLES] = CACHE_TABLE_NAMES;
	MDB_dbi table[CACHE_TABLES];
	MDB_val key = { sizeof(CACHE_ABOUT) - 1, (void *)(uintptr_t)CACHE_ABOUT }, value;
	uint64_t bytes = 0, entries = 0;
	MDB_cursor *cursor;
	MDB_stat stat;
	MDB_txn *txn;
	int rc;

	CHECK(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0);
	for (int i = 0; i < CACHE_TABLES; i++) {
		rc = mdb_dbi_open(txn, names[i], 0, &table[i]);
		if (rc == MDB_NOTFOUND)
			return 0;	/* its maker died before that */
		CHECK(rc == 0);
	}
	if (mdb_get(txn, table[CACHE_ABOUT_TABLE], &key, &value) == MDB_NOTFOUND)
		return 0;
	CHECK(mdb_get(txn, table[CACHE_ABOUT_TABLE], &key, &value) == 0 && value.mv_size == sizeof(*about));
	memcpy(about, value.mv_data, sizeof(*about));
	CHECK(mdb_cursor_open(txn, table[CACHE_ORDER], &cursor) == 0);
	for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		struct cache_order row;
		struct cache_entry e;
		uint64_t sequence;
		MDB_val found, of;

		CHECK(value.mv_size == sizeof(row));
		memcpy(&row, value.mv_data, sizeof(row));
		of = (MDB_val){ sizeof(row.key), row.key };
		CHECK(mdb_get(txn, table[CACHE_ENTRIES], &of, &found) == 0);
		memcpy(&sequence, found.mv_data, sizeof(sequence));
		CHECK(sequence == be64_read(key.mv_data) && sequence < about->next_sequence);
		CHECK(cache_entry_decode((struct slice){ (char *)found.mv_data + 8, found.mv_size - 8 }, &e));
		CHECK(e.fixed.expires_wall_ns == row.expires_wall_ns && cache_version(row.key[0], &e) != 0);
		CHECK(row.bytes == cache_room(found.mv_size - 8, (uint64_t)sysconf(_SC_PAGESIZE)));
		bytes += row.bytes;
		entries++;
	}
	CHECK(rc == MDB_NOTFOUND && mdb_stat(txn, table[CACHE_ENTRIES], &stat) == 0);
	CHECK(stat.ms_entries == entries && about->entries == entries && about->bytes == bytes);
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return 0;
}

/* Reads the whole environment by LMDB's own means, in a process of its own: sums,
 * indexes and entries agree. Gives what it says of itself; zeros if there is none. */
static inline struct cache_about
cache_audit(const char *data_dir)
{
	struct cache_about *about = mmap(NULL, sizeof(*about), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), copy;
	char folder[128];
	int status;
	pid_t pid;

	CHECK(about != MAP_FAILED);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		MDB_env *env;

		snprintf(folder, sizeof(folder), "%s/cache", data_dir);
		CHECK(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 4) == 0);
		if (access(folder, F_OK) != 0)
			_exit(0);
		CHECK(mdb_env_open(env, folder, MDB_RDONLY | MDB_NOTLS, 0600) == 0);
		_exit(cache_audit_environment(env, about));
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	copy = *about;
	munmap(about, sizeof(*about));
	return copy;
}

/* ---- set-up ---- */

static inline int
cache_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static inline void
cache_world_open(struct cache_world *w)
{
	*w = (struct cache_world){ .data_dir = "/tmp/weir-cache-XXXXXX", .spare_bytes = CACHE_SPARE_BYTES };
	CHECK(mkdtemp(w->data_dir));
	w->told = mmap(NULL, sizeof(*w->told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(w->told != MAP_FAILED);
	w->told->bytes_max = 64 << 20;
	w->told->now_wall_ns = CACHE_NOW_NS;
	cache_writer_start(w);
	w->reader = cache_open_read(w->data_dir);
	CHECK(w->reader);
}

static inline void
cache_world_close(struct cache_world *w)
{
	cache_writer_stop(w, false);
	cache_close(w->reader);
	munmap(w->told, sizeof(*w->told));
	nftw(w->data_dir, cache_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The reader looks at the folder now and then only. */
#define CACHE_WAIT_FOR(cond) \
	do { \
		int64_t until_ns = clock_mono_ns() + CACHE_PATIENCE_NS; \
		while (!(cond) && clock_mono_ns() < until_ns) \
			sched_yield(); \
		CHECK(cond); \
	} while (0)

/* The reader has found the environment that the writer has. Its secret. */
static inline void
cache_secret_of(struct cache_world *w, uint64_t secret[2])
{
	CACHE_WAIT_FOR(cache_secret(w->reader, secret));
}

/* A cache with something in it under key 1, and a reader that has it open. */
static inline uint64_t
cache_begin_with_one(struct cache_world *w)
{
	uint64_t version, secret[2];

	cache_begin(w);
	version = cache_put(w, 1, 5000);
	cache_commit_or_end(w);
	cache_secret_of(w, secret);
	CHECK(cache_find(w, 1) == version);
	return version;
}

static inline off_t
cache_file_bytes(struct cache_world *w)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/cache/data.mdb", w->data_dir);
	return stat(path, &st) == 0 ? st.st_size : -1;
}

static inline uint32_t
cache_draw(uint64_t *random, uint32_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)((*random >> 33) % below);
}

static inline int
cache_setup(void **state)
{
	struct cache_world *w = calloc(1, sizeof(*w));

	cache_world_open(w);
	*state = w;
	return 0;
}

static inline int
cache_teardown(void **state)
{
	cache_world_close(*state);
	free(*state);
	return 0;
}

#endif
