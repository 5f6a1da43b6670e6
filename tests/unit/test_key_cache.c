/*
 * A worker's view of the keys: a commit by another process counts from the
 * next request on. The catalog is open once in this process, as in a worker;
 * what an admin does is done in children.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/key_cache.h"

static char folder[64], why[512];

struct world {
	struct catalog *catalog;
	struct key_cache *cache;
};

static struct slice
secret_of(int n, char text[32])
{
	snprintf(text, 32, "weir_sk_%d", n);
	return slice_of(text);
}

struct admin_word {
	int n;
	bool enabled, create, two_secrets;
};

static void
act(const struct admin_word *w)
{
	struct catalog *c = catalog_open(folder, true, why, sizeof(why));
	char json[1024], text[32], hex[2][65];
	uint8_t hash[32];

	for (int i = 0; i < 2; i++) {
		key_secret_hash(secret_of(w->n + 1000 * i, text), hash);
		for (size_t k = 0; k < 32; k++)
			snprintf(hex[i] + 2 * k, 3, "%02x", hash[k]);
	}
	snprintf(json, sizeof(json), "{\"id\":\"key_%016d\",\"slug\":\"k%d\",\"workspace\":\"default\",\"enabled\":%s,"
	    "\"hashes\":[{\"sha256\":\"%s\",\"expires_at\":null}%s%s%s]}", w->n, w->n, w->enabled ? "true" : "false",
	    hex[0], w->two_secrets ? ",{\"sha256\":\"" : "", w->two_secrets ? hex[1] : "", w->two_secrets ? "\"}" : "");
	if (!c || catalog_key_put(c, slice_of(json), w->create, why, sizeof(why)) != CATALOG_OK)
		_exit(1);
	catalog_close(c);
}

static void
admin(struct admin_word w)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		act(&w);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	snprintf(folder, sizeof(folder), "/tmp/weir-keys-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	for (int n = 1; n <= 6; n++)
		admin((struct admin_word){ .n = n, .enabled = true, .create = true });
	w->catalog = catalog_open(folder, false, why, sizeof(why));
	w->cache = key_cache_new(w->catalog, 4);
	*state = w;
	return w->catalog && w->cache ? 0 : -1;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	key_cache_free(w->cache);
	catalog_close(w->catalog);
	free(w);
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct key *
get(struct world *w, int n)
{
	char text[32];

	return key_cache_get(w->cache, secret_of(n, text));
}

static void
the_same_key_comes_again(void **state)
{
	struct world *w = *state;
	struct key *a = get(w, 1), *b = get(w, 1);

	assert_non_null(a);
	assert_ptr_equal(a, b);
	assert_string_equal(a->slug.p, "k1");
	key_cache_put(w->cache, a);
	key_cache_put(w->cache, b);
}

static void
unknown_secrets_are_nobody(void **state)
{
	struct world *w = *state;
	char longer[300];

	memset(longer, 'a', sizeof(longer));
	assert_null(get(w, 99));
	assert_null(get(w, 99));
	assert_null(key_cache_get(w->cache, SLICE("")));
	assert_null(key_cache_get(w->cache, SLICE_NONE));
	assert_null(key_cache_get(w->cache, (struct slice){ longer, sizeof(longer) }));
}

static void
a_revocation_counts_from_the_next_request_on(void **state)
{
	struct world *w = *state;
	struct key *before = get(w, 1), *after;

	assert_true(before->enabled);
	admin((struct admin_word){ .n = 1, .enabled = false });
	after = get(w, 1);
	assert_false(after->enabled);
	/* A request keeps the key that it began with. */
	assert_true(before->enabled);
	key_cache_put(w->cache, before);
	key_cache_put(w->cache, after);
}

static void
a_second_secret_comes_and_goes(void **state)
{
	struct world *w = *state;
	struct key *k;

	assert_null(get(w, 1001));
	admin((struct admin_word){ .n = 1, .enabled = true, .two_secrets = true });
	k = get(w, 1001);
	assert_non_null(k);
	assert_string_equal(k->slug.p, "k1");
	key_cache_put(w->cache, k);
	admin((struct admin_word){ .n = 1, .enabled = true });
	assert_null(get(w, 1001));
	k = get(w, 1);
	assert_non_null(k);
	key_cache_put(w->cache, k);
}

static void
a_small_cache_serves_many_keys(void **state)
{
	struct world *w = *state;
	struct key *held = get(w, 1);

	for (int round = 0; round < 5; round++) {
		for (int n = 1; n <= 6; n++) {
			struct key *k = get(w, n);
			char slug[8];

			assert_non_null(k);
			snprintf(slug, sizeof(slug), "k%d", n);
			assert_string_equal(k->slug.p, slug);
			key_cache_put(w->cache, k);
		}
	}
	/* Thrown out of the cache, but not from under its request. */
	assert_string_equal(held->slug.p, "k1");
	assert_int_equal(held->refs, 1);
	key_cache_put(w->cache, held);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_same_key_comes_again),
		TEST(unknown_secrets_are_nobody),
		TEST(a_revocation_counts_from_the_next_request_on),
		TEST(a_second_secret_comes_and_goes),
		TEST(a_small_cache_serves_many_keys),
	};

	return cmocka_run_group_tests_name("key_cache", tests, NULL, NULL);
}
