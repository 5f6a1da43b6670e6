/*
 * The response cache where something is wrong: readers that hold on or die, a map
 * or a disk that is full, and whatever may lie in its place. It works, or it is
 * made anew; a reader gets whole entries or misses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/resource.h>

#include "tests/unit/cache_fixture.h"
#include "tests/unit/small_disk.h"

#define DISK_BYTES (8 << 20)

/* What a reader holds cannot be used again: the file gets no larger for it. */
static void
a_reader_that_holds_on_is_survived(void **state)
{
	const uint64_t key[2] = { 1, ~UINT64_C(1) };
	struct cache_world *w = *state;
	struct cache_entry e;
	uint64_t refused = 0, gone = 0, version;

	w->told->bytes_max = 4 << 20;
	version = cache_begin_with_one(w);
	assert_true(cache_get(w->reader, key, CACHE_NOW_NS, &e));
	for (uint64_t i = 0; i < 60; i++) {
		cache_put(w, 100 + i, 1 << 20);
		cache_commit_or_end(w);
		refused += w->told->changes.refused;
		gone += w->told->changes.evicted;
		assert_true(w->told->changes.bytes <= w->told->bytes_max);
		assert_int_equal(w->told->changes.entries, 1 + i + 1 - refused - gone);
		assert_int_equal(cache_version(1, &e), version);
	}
	assert_true(refused > 0);
	assert_true(cache_file_bytes(w) <= (4 << 20) + (2 << 20) + (16 << 20) + 4096);
	cache_done(w->reader);
	version = cache_put(w, 7, 1 << 20);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.stored, 1);
	CACHE_WAIT_FOR(cache_find(w, 7) == version);
	cache_audit(w->data_dir);
}

/* Entries of all sizes leave holes into which no large one fits; the file has no
 * room for that here. Then the oldest go before they would have to. */
static void
a_full_map_makes_room(void **state)
{
	struct cache_world *w = *state;
	uint64_t secret[2], after[2], stored = 0, gone = 0, refused = 0, early = 0;
	uint64_t random = 7;

	cache_writer_stop(w, false);
	w->spare_bytes = 0;
	w->told->bytes_max = 2 << 20;
	cache_writer_start(w);
	cache_commit_or_end(w);
	cache_secret_of(w, secret);
	for (uint64_t i = 0; i < 3000; i++) {
		uint32_t body = 100u << cache_draw(&random, 14);
		bool fits = w->told->changes.bytes + cache_room_of(body) <= w->told->bytes_max;

		cache_put(w, i, body);
		cache_commit_or_end(w);
		stored += w->told->changes.stored;
		gone += w->told->changes.evicted;
		refused += w->told->changes.refused;
		early += fits && w->told->changes.stored && w->told->changes.evicted;
		assert_int_equal(w->told->changes.entries, stored - gone);
		if (w->told->changes.stored)
			assert_int_equal(cache_find(w, i), w->versions);
	}
	print_message("%llu stored, %llu refused, %llu times early\n", (unsigned long long)stored, (unsigned long long)refused,
	    (unsigned long long)early);
	assert_true(early > 10);
	assert_int_equal(stored + refused, 3000);
	assert_true(refused < 300);
	assert_true(cache_file_bytes(w) <= (3 << 20) + 4096);
	cache_secret_of(w, after);
	assert_memory_equal(secret, after, sizeof(secret));	/* it is still the same one */
	cache_audit(w->data_dir);
}

/* Nor does one that was killed while it read. */
static void
a_dead_reader_holds_nothing(void **state)
{
	struct cache_world *w = *state;
	uint64_t refused = 0;
	int ready[2];
	char byte;
	pid_t pid;

	w->told->bytes_max = 4 << 20;
	cache_begin(w);
	cache_put(w, 1, 5000);
	cache_commit_or_end(w);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		const uint64_t key[2] = { 1, ~UINT64_C(1) };
		struct cache *c = cache_open_read(w->data_dir);
		struct cache_entry e;

		byte = (char)cache_get(c, key, CACHE_NOW_NS, &e);
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	for (uint64_t i = 0; i < 60; i++) {
		cache_put(w, 100 + i, 1 << 20);
		cache_commit_or_end(w);
		refused += w->told->changes.refused;
	}
	assert_int_equal(refused, 0);
	close(ready[0]);
	close(ready[1]);
}

/* ---- what may lie there ---- */

static void
write_at(struct cache_world *w, const char *name, off_t at, const char *text, size_t n)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", w->data_dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, n, at), (ssize_t)n);
	close(fd);
}

/* So that the next file cannot get its number. */
static int
hold_file(struct cache_world *w)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/cache/data.mdb", w->data_dir);
	fd = open(path, O_PATH | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* The writer is started; what was there is gone, and it works. */
static void
assert_made_anew(struct cache_world *w, const uint64_t old_secret[2])
{
	uint64_t version, fresh[2];

	cache_writer_start(w);
	cache_begin(w);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 0);
	version = cache_put(w, 3, 5000);
	cache_commit_or_end(w);
	CACHE_WAIT_FOR(cache_find(w, 3) == version);
	assert_int_equal(cache_find(w, 1), 0);
	cache_secret_of(w, fresh);
	assert_memory_not_equal(old_secret, fresh, sizeof(fresh));
	assert_int_equal(cache_audit(w->data_dir).entries, 1);
	cache_writer_stop(w, false);
	cache_writer_start(w);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 1);		/* and it stays */
}

static void
another_boot_makes_it_anew(void **state)
{
	struct cache_world *w = *state;
	uint64_t version = cache_begin_with_one(w), secret[2];

	cache_secret_of(w, secret);
	cache_writer_stop(w, true);
	write_at(w, "cache.boot", 5, "x", 1);
	assert_int_equal(cache_find(w, 1), version);	/* until the keeper has seen it */
	assert_made_anew(w, secret);
}

static void
without_a_stamp_it_is_made_anew(void **state)
{
	struct cache_world *w = *state;
	uint64_t secret[2];
	char path[128];

	cache_begin_with_one(w);
	cache_secret_of(w, secret);
	cache_writer_stop(w, true);
	snprintf(path, sizeof(path), "%s/cache.boot", w->data_dir);
	assert_int_equal(unlink(path), 0);
	assert_made_anew(w, secret);
}

/* As a backup brings it back: the same bytes in another file. */
static void
a_copy_is_made_anew(void **state)
{
	struct cache_world *w = *state;
	char path[128], copy[128];
	uint64_t secret[2];
	struct stat st;
	char *bytes;
	int fd;

	cache_begin_with_one(w);
	cache_secret_of(w, secret);
	cache_writer_stop(w, false);
	snprintf(path, sizeof(path), "%s/cache/data.mdb", w->data_dir);
	snprintf(copy, sizeof(copy), "%s/cache/copy", w->data_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = test_malloc((size_t)st.st_size);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	write_at(w, "cache/copy", 0, bytes, (size_t)st.st_size);
	test_free(bytes);
	assert_int_equal(rename(copy, path), 0);
	assert_made_anew(w, secret);
}

/* Another program writes into the environment, which is open nowhere now. */
static void
write_row(struct cache_world *w, const char *table, MDB_val key, MDB_val value)
{
	int status;
	pid_t pid;

	cache_writer_stop(w, false);
	cache_close(w->reader);
	pid = fork();
	if (pid == 0) {
		char folder[128];
		MDB_env *env;
		MDB_txn *txn;
		MDB_dbi dbi;

		snprintf(folder, sizeof(folder), "%s/cache", w->data_dir);
		_exit(mdb_env_create(&env) || mdb_env_set_maxdbs(env, 4) || mdb_env_open(env, folder, 0, 0600) ||
		    mdb_txn_begin(env, NULL, 0, &txn) || mdb_dbi_open(txn, table, 0, &dbi) ||
		    mdb_put(txn, dbi, &key, &value, 0) || mdb_txn_commit(txn));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	w->reader = cache_open_read(w->data_dir);
}

static void
another_format_is_made_anew(void **state)
{
	struct cache_about about = { .format = CACHE_FORMAT + 1 };
	struct cache_world *w = *state;
	uint64_t secret[2];

	cache_begin_with_one(w);
	cache_secret_of(w, secret);
	write_row(w, "about", (MDB_val){ sizeof(CACHE_ABOUT) - 1, (void *)(uintptr_t)CACHE_ABOUT }, (MDB_val){ sizeof(about), &about });
	assert_int_equal(cache_find(w, 1), 0);
	assert_false(cache_secret(w->reader, (uint64_t[2]){ 0, 0 }));
	assert_made_anew(w, secret);
}

static void
garbage_is_made_anew(void **state)
{
	struct cache_world *w = *state;
	char garbage[3 * 4096];
	uint64_t secret[2];

	memset(garbage, 0xa5, sizeof(garbage));
	cache_begin_with_one(w);
	cache_secret_of(w, secret);
	cache_close(w->reader);
	cache_writer_stop(w, false);
	write_at(w, "cache/data.mdb", 0, garbage, sizeof(garbage));
	w->reader = cache_open_read(w->data_dir);
	assert_int_equal(cache_find(w, 1), 0);
	assert_int_equal(cache_find(w, 1), 0);
	assert_made_anew(w, secret);
}

/* All that is behind the first pages is zeros: it opens, and then it does not work. */
static void
a_damaged_file_is_made_anew(void **state)
{
	struct cache_world *w = *state;
	uint64_t secret[2], version;
	char zeros[4096] = { 0 };
	off_t bytes;

	int held;

	cache_begin_with_one(w);
	held = hold_file(w);
	for (uint64_t key = 10; key < 200; key++) {
		cache_begin(w);
		cache_put(w, key, 1000);
		cache_commit_or_end(w);
	}
	cache_secret_of(w, secret);
	bytes = cache_file_bytes(w);
	for (off_t at = 2 * 4096; at < bytes; at += 4096)
		write_at(w, "cache/data.mdb", at, zeros, sizeof(zeros));
	for (uint64_t key = 0; key < 200; key++)
		assert_int_equal(cache_find(w, key), 0);
	cache_begin(w);
	cache_put(w, 5, 100);
	assert_int_equal(cache_commit(w), -1);
	assert_non_null(strstr(w->told->why, w->data_dir));
	cache_begin(w);
	version = cache_put(w, 5, 100);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 1);
	CACHE_WAIT_FOR(cache_find(w, 5) == version);
	cache_writer_stop(w, false);
	cache_writer_start(w);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 1);		/* and it stays */
	close(held);
	cache_audit(w->data_dir);
}

/* It opens, but its oldest row is none. */
static void
an_index_that_lies_is_made_anew(void **state)
{
	struct cache_world *w = *state;
	uint8_t sequence[8] = { 0 };
	uint64_t secret[2];

	cache_begin_with_one(w);
	cache_put(w, 2, 100);		/* so that the first sequence is not the only one */
	cache_commit_or_end(w);
	cache_secret_of(w, secret);
	write_row(w, "order", (MDB_val){ sizeof(sequence), sequence }, (MDB_val){ 3, (void *)(uintptr_t)"row" });
	cache_writer_start(w);
	w->told->bytes_max = cache_room_of(5000);
	cache_begin(w);
	cache_put(w, 3, 5000);
	assert_int_equal(cache_commit(w), -1);
	assert_non_null(strstr(w->told->why, "made anew"));
	cache_writer_stop(w, true);
	cache_writer_start(w);		/* who comes next finds out, too */
	cache_begin(w);
	cache_put(w, 3, 5000);
	assert_int_equal(cache_commit(w), -1);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 0);
	cache_writer_stop(w, false);
	assert_made_anew(w, secret);
}

static void
a_file_that_was_cut_is_survived(void **state)
{
	struct cache_world *w = *state;
	uint64_t version = 0;
	char path[128];

	cache_begin_with_one(w);
	cache_begin(w);
	for (uint64_t key = 10; key < 50; key++)
		cache_put(w, key, 10000);
	cache_commit_or_end(w);
	cache_writer_stop(w, true);
	cache_close(w->reader);
	snprintf(path, sizeof(path), "%s/cache/data.mdb", w->data_dir);
	assert_int_equal(truncate(path, cache_file_bytes(w) / 2), 0);
	cache_writer_start(w);
	w->reader = cache_open_read(w->data_dir);
	cache_begin(w);
	cache_put(w, 3, 100);
	for (int tries = 0; tries < 3 && cache_commit(w) != 0; tries++) {
		cache_begin(w);
		cache_put(w, 3, 100);
	}
	CACHE_WAIT_FOR((version = cache_find(w, 3)) != 0);
	for (uint64_t key = 10; key < 50; key++)
		cache_find(w, key);	/* whole, or a miss */
}

static void
what_is_no_environment_goes_out_of_the_way(void **state)
{
	static const uint64_t none[2] = { 0, 0 };
	struct cache_world *w = *state;
	char path[128];

	cache_writer_stop(w, false);
	write_at(w, "cache", 0, "a file", 6);
	assert_int_equal(cache_find(w, 1), 0);
	assert_made_anew(w, none);
	/* What those who died have left. */
	cache_writer_stop(w, false);
	snprintf(path, sizeof(path), "%s/cache.old", w->data_dir);
	assert_int_equal(mkdir(path, 0700), 0);
	write_at(w, "cache.old/lock.mdb", 0, "x", 1);
	snprintf(path, sizeof(path), "%s/cache.new", w->data_dir);
	assert_int_equal(mkdir(path, 0700), 0);
	write_at(w, "cache.new/data.mdb", 0, "half a page", 11);
	write_at(w, "cache.boot", 0, "nonsense", 8);
	assert_made_anew(w, none);
}

static void
somebody_may_remove_it_while_it_is_open(void **state)
{
	struct cache_world *w = *state;
	uint64_t version = cache_begin_with_one(w);
	char path[128];

	snprintf(path, sizeof(path), "%s/cache", w->data_dir);
	assert_int_equal(nftw(path, cache_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	CACHE_WAIT_FOR(cache_find(w, 1) == 0);
	cache_begin(w);
	version = cache_put(w, 2, 100);
	cache_commit_or_end(w);
	assert_int_equal(w->told->changes.entries, 1);
	CACHE_WAIT_FOR(cache_find(w, 2) == version);
	cache_audit(w->data_dir);
}

/* Does the test's process have such a file mapped that has no name any more? */
static bool
holds_old_file(void)
{
	char line[512];
	bool found = false;
	FILE *f = fopen("/proc/self/maps", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found = found || (strstr(line, "data.mdb") && strstr(line, "(deleted)"));
	fclose(f);
	return found;
}

static bool
looked_and_holds(struct cache_world *w)
{
	cache_look(w->reader);
	return holds_old_file();
}

static void
who_looks_lets_go_of_an_old_one(void **state)
{
	struct cache_world *w = *state;

	cache_begin_with_one(w);
	assert_false(holds_old_file());
	assert_int_equal(cache_order(w, 'r'), 0);
	assert_true(holds_old_file());
	CACHE_WAIT_FOR(!looked_and_holds(w));
}

/* ---- a disk that is full ---- */

static void
a_file_that_may_not_grow_is_survived(void **state)
{
	struct cache_world *w = *state;
	uint64_t version = cache_begin_with_one(w), secret[2], after[2];
	struct rlimit before, tight;

	cache_secret_of(w, secret);
	assert_int_equal(prlimit(w->writer, RLIMIT_FSIZE, NULL, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)cache_file_bytes(w);
	assert_int_equal(prlimit(w->writer, RLIMIT_FSIZE, &tight, NULL), 0);
	for (int i = 0; i < 3; i++) {
		cache_begin(w);
		cache_put(w, 2, 1 << 20);
		assert_int_equal(cache_commit(w), -1);
		assert_non_null(strstr(w->told->why, "make room"));
		assert_int_equal(cache_find(w, 1), version);
	}
	assert_int_equal(prlimit(w->writer, RLIMIT_FSIZE, &before, NULL), 0);
	cache_begin(w);
	version = cache_put(w, 2, 1 << 20);
	cache_commit_or_end(w);
	assert_int_equal(cache_find(w, 2), version);
	assert_int_not_equal(cache_find(w, 1), 0);
	cache_secret_of(w, after);
	assert_memory_equal(secret, after, sizeof(secret));	/* nothing was thrown away for that */
	cache_audit(w->data_dir);
}

static int
teardown_disk(void **state)
{
	struct cache_world *w = *state;

	cache_writer_stop(w, false);
	cache_close(w->reader);
	w->reader = NULL;
	small_disk_unmount(w->data_dir);
	return cache_teardown(state);
}

/* Room comes back page by page: each write that can fail does. */
static void
a_full_disk_is_survived_at_each_page(void **state)
{
	struct cache_world *w = *state;
	uint64_t version, old;
	int failures = 0;
	off_t left;

	cache_writer_stop(w, false);	/* its folder is about to get another content */
	small_disk_mount(w->data_dir, DISK_BYTES);
	cache_writer_start(w);
	old = cache_begin_with_one(w);
	left = small_disk_fill(w->data_dir);
	for (;;) {
		cache_begin(w);
		version = cache_put(w, 2, 300000);
		if (cache_commit(w) == 0)
			break;
		if (!strstr(w->told->why, "make room"))
			fail_msg("%s", w->told->why);
		assert_int_equal(cache_find(w, 1), old);
		assert_int_equal(cache_find(w, 2), 0);
		if (failures++ % 2) {
			cache_writer_stop(w, failures % 4 == 0);
			cache_writer_start(w);
		}
		left -= SMALL_DISK_PAGE_BYTES;
		assert_true(left > 0);
		small_disk_shrink(w->data_dir, left);
	}
	print_message("%d failures until there was room\n", failures);
	assert_true(failures > 20);
	assert_int_equal(cache_find(w, 1), old);
	assert_int_equal(cache_find(w, 2), version);
	assert_int_equal(cache_audit(w->data_dir).entries, 2);
}

static void
it_is_made_when_there_is_room_for_it(void **state)
{
	struct cache_world *w = *state;
	int failures = 0;
	uint64_t version;
	off_t left;

	cache_writer_stop(w, false);
	small_disk_mount(w->data_dir, DISK_BYTES);
	left = small_disk_fill(w->data_dir);
	cache_writer_start(w);
	for (;;) {
		cache_begin(w);
		version = cache_put(w, 1, 5000);
		if (cache_commit(w) == 0)
			break;
		if (!strstr(w->told->why, "make room"))
			fail_msg("%s", w->told->why);
		failures++;
		left -= SMALL_DISK_PAGE_BYTES;
		assert_true(left > 0);
		small_disk_shrink(w->data_dir, left);
	}
	assert_true(failures > 10);
	CACHE_WAIT_FOR(cache_find(w, 1) == version);
	cache_audit(w->data_dir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, cache_setup, cache_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_reader_that_holds_on_is_survived),
		TEST(a_full_map_makes_room),
		TEST(a_dead_reader_holds_nothing),
		TEST(another_boot_makes_it_anew),
		TEST(without_a_stamp_it_is_made_anew),
		TEST(a_copy_is_made_anew),
		TEST(another_format_is_made_anew),
		TEST(garbage_is_made_anew),
		TEST(a_damaged_file_is_made_anew),
		TEST(an_index_that_lies_is_made_anew),
		TEST(a_file_that_was_cut_is_survived),
		TEST(what_is_no_environment_goes_out_of_the_way),
		TEST(somebody_may_remove_it_while_it_is_open),
		TEST(who_looks_lets_go_of_an_old_one),
		TEST(a_file_that_may_not_grow_is_survived),
		/* These stay in a namespace of their own, so they are the last ones. */
		cmocka_unit_test_setup_teardown(a_full_disk_is_survived_at_each_page, cache_setup, teardown_disk),
		cmocka_unit_test_setup_teardown(it_is_made_when_there_is_room_for_it, cache_setup, teardown_disk),
	};

	return cmocka_run_group_tests_name("cache_failures", tests, NULL, NULL);
}
