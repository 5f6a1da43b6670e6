/*
 * Keys in a real LMDB in a temporary folder. What a second process does is done
 * in a forked child that opens the catalog itself, as tools do beside workers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/catalog.h"

#define OTHER_UID 65534

static char folder[64];
static char why[512];

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static int
folder_new(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/weir-catalog-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int
folder_remove(void **state)
{
	(void)state;
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
hash_of(int n, uint8_t out[KEY_HASH_BYTES])
{
	memset(out, n, KEY_HASH_BYTES);
}

/* A document with the hashes first .. first + count - 1. */
static struct slice
document(int id, const char *slug, const char *extra, int first, int count)
{
	static char text[4096];
	int n = snprintf(text, sizeof(text), "{\"id\":\"key_%016d\",\"slug\":\"%s\",\"workspace\":\"default\",\"x\":\"%s\",\"hashes\":[",
	    id, slug, extra);

	for (int i = 0; i < count; i++) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%s{\"sha256\":\"", i ? "," : "");
		for (int k = 0; k < KEY_HASH_BYTES; k++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", first + i);
		n += snprintf(text + n, sizeof(text) - (size_t)n, "\",\"expires_at\":null}");
	}
	n += snprintf(text + n, sizeof(text) - (size_t)n, "]}");
	return (struct slice){ text, (size_t)n };
}

static struct catalog *
open_writable(void)
{
	struct catalog *c = catalog_open(folder, true, why, sizeof(why));

	if (!c)
		fail_msg("%s", why);
	return c;
}

static enum catalog_result
put(struct catalog *c, struct slice json, bool create)
{
	return catalog_key_put(c, json, create, why, sizeof(why));
}

static bool
has_hash(struct catalog *c, int n)
{
	uint8_t hash[KEY_HASH_BYTES];
	struct buf json;
	bool found;

	hash_of(n, hash);
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	found = catalog_key_by_hash(c, hash, &json);
	buf_free(&json);
	return found;
}

static void
a_key_is_found_by_hash_id_and_slug(void **state)
{
	struct catalog *c = open_writable();
	struct buf json;

	(void)state;
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	assert_int_equal(put(c, document(1, "alice", "", 1, 1), true), CATALOG_OK);
	assert_true(has_hash(c, 1));
	assert_false(has_hash(c, 2));
	assert_int_equal(catalog_key_get(c, SLICE("alice"), &json), CATALOG_OK);
	assert_true(slice_eq(buf_slice(&json), document(1, "alice", "", 1, 1)));
	assert_int_equal(catalog_key_get(c, SLICE("default/alice"), &json), CATALOG_OK);
	assert_int_equal(catalog_key_get(c, SLICE("key_0000000000000001"), &json), CATALOG_OK);
	assert_int_equal(catalog_key_get(c, SLICE("team/alice"), &json), CATALOG_NOT_FOUND);
	assert_int_equal(catalog_key_get(c, SLICE("ali"), &json), CATALOG_NOT_FOUND);
	assert_int_equal(catalog_key_get(c, SLICE(""), &json), CATALOG_NOT_FOUND);
	buf_free(&json);
	catalog_close(c);
}

static void
it_is_still_there_after_a_reopen(void **state)
{
	struct catalog *c = open_writable();

	(void)state;
	assert_int_equal(put(c, document(1, "alice", "", 1, 1), true), CATALOG_OK);
	catalog_close(c);
	c = catalog_open(folder, false, why, sizeof(why));
	assert_non_null(c);
	assert_true(has_hash(c, 1));
	catalog_close(c);
}

static void
names_and_secrets_are_unique(void **state)
{
	struct catalog *c = open_writable();

	(void)state;
	assert_int_equal(put(c, document(1, "alice", "", 1, 1), true), CATALOG_OK);
	assert_int_equal(put(c, document(2, "alice", "", 2, 1), true), CATALOG_EXISTS);
	assert_non_null(strstr(why, "default/alice"));
	assert_int_equal(put(c, document(1, "bob", "", 2, 1), true), CATALOG_EXISTS);
	assert_int_equal(put(c, document(2, "bob", "", 1, 1), true), CATALOG_EXISTS);
	assert_int_equal(put(c, document(2, "bob", "", 2, 1), false), CATALOG_NOT_FOUND);
	/* Nothing of the refused ones was left behind. */
	assert_false(has_hash(c, 2));
	assert_int_equal(put(c, document(2, "bob", "", 2, 1), true), CATALOG_OK);
	assert_true(has_hash(c, 1));
	catalog_close(c);
}

static void
a_replacement_moves_the_indexes(void **state)
{
	struct catalog *c = open_writable();
	struct buf json;

	(void)state;
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	assert_int_equal(put(c, document(1, "alice", "", 1, 2), true), CATALOG_OK);
	assert_int_equal(put(c, document(1, "carol", "", 2, 2), false), CATALOG_OK);
	assert_false(has_hash(c, 1));
	assert_true(has_hash(c, 2));
	assert_true(has_hash(c, 3));
	assert_int_equal(catalog_key_get(c, SLICE("alice"), &json), CATALOG_NOT_FOUND);
	assert_int_equal(catalog_key_get(c, SLICE("carol"), &json), CATALOG_OK);
	buf_free(&json);
	catalog_close(c);
}

static void
what_is_no_key_is_refused(void **state)
{
	struct catalog *c = open_writable();
	static const char *const rows[] = {
		"", "{}", "[]", "{\"id\":\"a\",\"slug\":\"b\",\"workspace\":\"c\"}",
		"{\"id\":\"a\",\"slug\":\"b/c\",\"workspace\":\"c\",\"hashes\":[]}",
		"{\"id\":\"a\",\"slug\":\"\",\"workspace\":\"c\",\"hashes\":[]}",
		"{\"id\":\"a\",\"slug\":\"b\",\"workspace\":\"c\",\"hashes\":[{\"sha256\":\"00\"}]}",
		"{\"id\":\"a\",\"slug\":\"b\",\"workspace\":\"c\",\"hashes\":[1]}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		assert_int_equal(put(c, slice_of(rows[i]), true), CATALOG_FAILED);
	assert_int_equal(put(c, document(1, "a", "", 1, KEY_HASHES_MAX + 1), true), CATALOG_FAILED);
	catalog_close(c);
}

static bool
note_slug(struct slice json, void *arg)
{
	struct buf *order = arg;
	const char *slug = strstr(json.p, "\"slug\":\"");

	buf_add(order, slug + 8, 1);
	return order->n < 3;
}

static void
keys_come_in_order_of_slug(void **state)
{
	struct catalog *c = open_writable();
	struct buf order;

	(void)state;
	buf_init(&order, 64);
	assert_int_equal(put(c, document(1, "d", "", 1, 1), true), CATALOG_OK);
	assert_int_equal(put(c, document(2, "b", "", 2, 1), true), CATALOG_OK);
	assert_int_equal(put(c, document(3, "a", "", 3, 1), true), CATALOG_OK);
	assert_int_equal(put(c, document(4, "c", "", 4, 1), true), CATALOG_OK);
	catalog_keys_each(c, note_slug, &order);
	assert_true(slice_eq(buf_slice(&order), SLICE("abc")));	/* and stops when told */
	buf_free(&order);
	catalog_close(c);
}

static bool
add_a_letter(struct slice json, struct buf *changed, void *arg)
{
	const char *x = strstr(json.p, "\"x\":\"") + 5;

	(void)arg;
	buf_add(changed, json.p, (size_t)(x - json.p));
	buf_add_char(changed, 'y');
	buf_add(changed, x, json.n - (size_t)(x - json.p));
	return true;
}

static bool
leave_alone(struct slice json, struct buf *changed, void *arg)
{
	(void)json;
	(void)changed;
	*(bool *)arg = true;
	return false;
}

/* Runs `work` in a process of its own. */
static void
in_child(void (*work)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		work();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void
change_100_times(void)
{
	struct catalog *c = catalog_open(folder, true, why, sizeof(why));

	for (int i = 0; i < 100; i++)
		if (!c || catalog_key_change(c, SLICE("alice"), add_a_letter, NULL, why, sizeof(why)) != CATALOG_OK)
			_exit(1);
	catalog_close(c);
}

static void
changes_by_two_processes_add_up(void **state)
{
	struct catalog *c = open_writable();
	pid_t pid[2];
	bool called = false;
	struct buf json;
	int status;

	(void)state;
	assert_int_equal(put(c, document(1, "alice", "", 1, 1), true), CATALOG_OK);
	catalog_close(c);
	for (int i = 0; i < 2; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			change_100_times();
			_exit(0);
		}
		assert_true(pid[i] > 0);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(status, 0);
	}
	c = open_writable();
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	assert_int_equal(catalog_key_get(c, SLICE("alice"), &json), CATALOG_OK);
	assert_int_equal(json.n, document(1, "alice", "", 1, 1).n + 200);
	assert_int_equal(catalog_key_change(c, SLICE("alice"), leave_alone, &called, why, sizeof(why)), CATALOG_OK);
	assert_true(called);
	assert_int_equal(catalog_key_change(c, SLICE("bob"), add_a_letter, NULL, why, sizeof(why)), CATALOG_NOT_FOUND);
	buf_free(&json);
	catalog_close(c);
}

static void
add_bob(void)
{
	struct catalog *c = catalog_open(folder, true, why, sizeof(why));

	if (!c || put(c, document(2, "bob", "", 2, 1), true) != CATALOG_OK)
		_exit(1);
	catalog_close(c);
}

static void
a_commit_elsewhere_moves_the_generation(void **state)
{
	struct catalog *c;
	uint64_t before;

	(void)state;
	c = open_writable();
	assert_int_equal(put(c, document(1, "alice", "", 1, 1), true), CATALOG_OK);
	catalog_close(c);
	c = catalog_open(folder, false, why, sizeof(why));
	assert_non_null(c);
	before = catalog_generation(c);
	assert_true(before > 0);
	assert_int_equal(catalog_generation(c), before);
	assert_false(has_hash(c, 2));
	in_child(add_bob);
	assert_true(catalog_generation(c) > before);
	assert_true(has_hash(c, 2));
	catalog_close(c);
}

static void
files_are_private(void **state)
{
	static const char *const names[] = { "catalog/data.mdb", "catalog/lock.mdb" };
	struct catalog *c = open_writable();
	char path[128];
	struct stat st;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	snprintf(path, sizeof(path), "%s/catalog", folder);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	catalog_close(c);
}

static void
a_missing_store_is_made_by_writers_only(void **state)
{
	char deep[128], file[128];
	struct catalog *c;
	FILE *f;

	(void)state;
	snprintf(deep, sizeof(deep), "%s/a/b/c", folder);
	assert_null(catalog_open(deep, false, why, sizeof(why)));
	assert_non_null(strstr(why, deep));
	c = catalog_open(deep, true, why, sizeof(why));
	assert_non_null(c);
	catalog_close(c);
	/* A folder without a catalog in it. */
	snprintf(deep, sizeof(deep), "%s/a/b", folder);
	assert_null(catalog_open(deep, false, why, sizeof(why)));
	/* A file where a folder should be. */
	snprintf(file, sizeof(file), "%s/file", folder);
	f = fopen(file, "w");
	assert_non_null(f);
	fclose(f);
	assert_null(catalog_open(file, true, why, sizeof(why)));
	assert_non_null(strstr(why, "not a folder"));
}

static void
a_damaged_file_is_named(void **state)
{
	char path[128];
	FILE *f;

	(void)state;
	catalog_close(open_writable());
	snprintf(path, sizeof(path), "%s/catalog/data.mdb", folder);
	f = fopen(path, "r+");
	assert_non_null(f);
	for (int i = 0; i < 8192; i++)
		fputc('x', f);
	fclose(f);
	assert_null(catalog_open(folder, false, why, sizeof(why)));
	assert_non_null(strstr(why, "damaged"));
}

static void
another_users_folder_is_refused(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chown(folder, OTHER_UID, OTHER_UID), 0);
	assert_null(catalog_open(folder, true, why, sizeof(why)));
	assert_non_null(strstr(why, "belongs to user"));
	assert_non_null(strstr(why, folder));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_new, folder_remove)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_key_is_found_by_hash_id_and_slug),
		TEST(it_is_still_there_after_a_reopen),
		TEST(names_and_secrets_are_unique),
		TEST(a_replacement_moves_the_indexes),
		TEST(what_is_no_key_is_refused),
		TEST(keys_come_in_order_of_slug),
		TEST(changes_by_two_processes_add_up),
		TEST(a_commit_elsewhere_moves_the_generation),
		TEST(files_are_private),
		TEST(a_missing_store_is_made_by_writers_only),
		TEST(a_damaged_file_is_named),
		TEST(another_users_folder_is_refused),
	};

	return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
