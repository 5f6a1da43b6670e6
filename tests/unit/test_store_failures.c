/*
 * A disk that is full, at each place where it can get full; folders that are
 * not ours; environments that were left half made. Nothing is lost, nothing is
 * stored twice, and what is wrong is said.
 *
 * A full disk is a small tmpfs in a mount namespace of this process, where the
 * machine allows one, and a limit of the size of files everywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "store/catalog.h"
#include "store/levels.h"
#include "tests/unit/small_disk.h"
#include "tests/unit/store_fixture.h"

#define DISK_BYTES (8 << 20)
#define MAKERS 4

/* ---- a limit of the size of files ---- */

static off_t
day_file_bytes(struct store *s)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/records/2026-11-23/data.mdb", s->folder);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void
assert_flush_fails(struct store *s)
{
	uint32_t records;

	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), -1);
	assert_int_equal(records, 0);
	assert_false(writer_drained(s->writer));
	assert_non_null(strstr(why, s->folder));
	assert_non_null(strstr(why, "make room"));
}

static void
files_that_may_not_grow_are_survived(void **state)
{
	struct store *s = *state;
	struct rlimit before, tight;

	signal(SIGXFSZ, SIG_IGN);
	open_writer(s);
	settle(s, 100);
	flush_all(s);
	assert_true(writer_drained(s->writer));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)day_file_bytes(s);
	settle(s, 1000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	for (int i = 0; i < 3; i++)
		assert_flush_fails(s);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	flush_all(s);
	assert_whole(s);
}

/* So large a ledger that its next commit needs more room than the day's. */
static void
fill_ledger(struct store *s)
{
	const struct charge monthly = budget_charge(1, PERIOD_MONTHLY, 1, 1);
	struct spending spending = { 0 };
	struct levels levels;

	assert_int_equal(levels_open(&levels, s->folder, ENVIRONMENT_WRITE), 0);
	for (uint32_t i = 0; i < 40000; i++) {
		struct ring_charge c = {
			.id = { 2, 1000 + i }, .what = meter_what(&monthly), .period_index = 1, .amount = 1, .step = i,
		};

		assert_int_equal(spending_add(&spending, 1, 0, &c), 0);
	}
	assert_int_equal(levels_book(&levels, &spending, NULL, 0, NULL), 0);
	levels_close(&levels);
	spending_free(&spending);
}

static void
a_ledger_that_fails_over_midnight_loses_nothing(void **state)
{
	struct store *s = *state;
	struct rlimit before, tight;
	uint32_t records;
	char ledger[128];
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	open_writer(s);
	close_writer(s);
	fill_ledger(s);
	open_writer(s);
	store_file(s, "ledger/data.mdb", ledger);
	assert_int_equal(stat(ledger, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)st.st_size;
	settle(s, 200);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), -1);
	assert_true(day_exists(s, "2026-11-23"));
	clock_at_ns += A_DAY_NS;
	settle(s, 20);
	assert_int_equal(writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)), -1);
	assert_false(day_exists(s, "2026-11-24"));	/* one batch after the other */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	flush_all(s);
	assert_true(day_exists(s, "2026-11-24"));
	close_writer(s);
	assert_int_equal(read_store(s, 0, (uint64_t)DAY_BEGIN_NS + UINT64_C(86400) * NS_PER_S, 0)->count, 200);
	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 220);
}

/* ---- a disk that is full ---- */

static bool
try_flush_all(struct store *s)
{
	uint32_t records = 1;

	while (records > 0)
		if (writer_flush(s->writer, &s->f.arena, &records, why, sizeof(why)) != 0)
			return false;
	return true;
}

static bool
try_open(struct store *s)
{
	const struct writer_options options = { test_clock, (size_t)1 << 30 };

	close_writer(s);
	s->writer = writer_open_with(s->folder, &options, why, sizeof(why));
	return s->writer != NULL;
}

static int
teardown_disk(void **state)
{
	struct store *s = *state;

	close_writer(s);
	small_disk_unmount(s->folder);
	return teardown(state);
}

/* Room comes back page by page, so each write that can fail does. Every other
 * time the keeper is a new one. */
static void
a_full_disk_is_survived_at_each_page(void **state)
{
	struct store *s = *state;
	bool stored = false;
	int failures = 0;
	off_t left;

	small_disk_mount(s->folder, DISK_BYTES);
	open_writer(s);
	settle(s, 100);
	flush_all(s);
	left = small_disk_fill(s->folder);
	settle(s, 500);
	clock_at_ns += A_DAY_NS;	/* and a new environment is needed, too */
	for (int i = 0; !stored && left > 0; i++) {
		stored = (i % 2 == 0 || try_open(s)) && s->writer && try_flush_all(s);
		if (stored)
			break;
		if (!strstr(why, "make room") || !strstr(why, s->folder))
			fail_msg("%s", why);
		failures++;
		left -= SMALL_DISK_PAGE_BYTES;
		small_disk_shrink(s->folder, left);
	}
	assert_true(stored);
	assert_true(failures > 20);
	assert_true(day_exists(s, "2026-11-24"));
	print_message("%d failures until there was room\n", failures);
	assert_whole(s);
}

static void
a_store_is_made_when_there_is_room_for_it(void **state)
{
	struct store *s = *state;
	int failures = 0;
	off_t left;

	small_disk_mount(s->folder, DISK_BYTES);
	left = small_disk_fill(s->folder);
	while (!try_open(s) && left > 0) {
		if (!strstr(why, "make room"))
			fail_msg("%s", why);
		failures++;
		left -= SMALL_DISK_PAGE_BYTES;
		small_disk_shrink(s->folder, left);
	}
	assert_true(failures > 10);
	small_disk_shrink(s->folder, 0);
	settle(s, 100);
	flush_all(s);
	assert_whole(s);
}

/* ---- what is in the folder ---- */

static void
write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void
readers_need_a_folder_and_no_more(void **state)
{
	struct store *s = *state;
	char path[128];

	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 0);
	assert_int_equal(read_levels(s).count, 0);
	open_writer(s);
	close_writer(s);
	store_file(s, "records/2026-11-23", path);
	assert_int_equal(mkdir(path, 0700), 0);
	store_file(s, "records/2026-13-99", path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(read_store(s, 0, UINT64_MAX, 0)->count, 0);
	store_file(s, "nothing", path);
	assert_null(reader_open(path, why, sizeof(why)));
	assert_non_null(strstr(why, path));
}

static void
assert_refused(struct store *s, const char *text)
{
	assert_null(writer_open(s->folder, why, sizeof(why)));
	assert_non_null(strstr(why, text));
	assert_null(catalog_open(s->folder, true, why, sizeof(why)));
	assert_non_null(strstr(why, text));
	assert_null(reader_open(s->folder, why, sizeof(why)));
	assert_non_null(strstr(why, text));
	assert_non_null(strstr(why, s->folder));
}

static void
a_store_of_another_weir_is_refused(void **state)
{
	struct store *s = *state;
	char format[128];

	store_file(s, "format", format);
	open_writer(s);
	settle(s, 10);
	flush_all(s);
	close_writer(s);
	write_text(format, "weir store 3\n");
	assert_refused(s, "newer weir (format 3");
	write_text(format, "weir store 1\n");
	assert_refused(s, "older weir");
	write_text(format, "");
	assert_refused(s, "older weir");
	assert_int_equal(unlink(format), 0);
	assert_refused(s, "older weir");
	write_text(format, "weir store 2\n");
	open_writer(s);
	assert_whole(s);
}

static void
what_a_dead_maker_left_is_in_nobodys_way(void **state)
{
	static const char *const left[] = { "catalog.new", "ledger.new", "records", "records/2026-11-23.new" };
	struct catalog *c;
	struct store *s = *state;
	char path[160], file[200];

	for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
		snprintf(path, sizeof(path), "%s/%s", s->folder, left[i]);
		if (i == 2)
			open_writer(s);		/* makes the format and records/ */
		else
			assert_int_equal(mkdir(path, 0700), 0);
		snprintf(file, sizeof(file), "%s/data.mdb", path);
		if (i != 2)
			write_text(file, "half a page");
	}
	settle(s, 10);
	flush_all(s);
	assert_whole(s);
	c = catalog_open(s->folder, true, why, sizeof(why));
	if (!c)
		fail_msg("%s", why);
	catalog_close(c);
}

/* Several processes that make the same folder at once are not in each other's way. */
static void
makers_at_once_agree(void **state)
{
	struct store *s = *state;
	pid_t pid[MAKERS];
	char folder[128];
	int status;

	for (int round = 0; round < 20; round++) {
		snprintf(folder, sizeof(folder), "%s/%d", s->folder, round);
		for (int i = 0; i < MAKERS; i++) {
			pid[i] = fork();
			if (pid[i] == 0) {
				struct catalog *c = catalog_open(folder, true, why, sizeof(why));

				if (!c)
					fprintf(stderr, "maker: %s\n", why);
				_exit(c ? 0 : 1);
			}
			assert_true(pid[i] > 0);
		}
		for (int i = 0; i < MAKERS; i++) {
			assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
			assert_int_equal(status, 0);
		}
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(files_that_may_not_grow_are_survived),
		TEST(a_ledger_that_fails_over_midnight_loses_nothing),
		TEST(readers_need_a_folder_and_no_more),
		TEST(a_store_of_another_weir_is_refused),
		TEST(what_a_dead_maker_left_is_in_nobodys_way),
		TEST(makers_at_once_agree),
		/* These stay in a namespace of their own, so they are the last ones. */
		cmocka_unit_test_setup_teardown(a_full_disk_is_survived_at_each_page, setup, teardown_disk),
		cmocka_unit_test_setup_teardown(a_store_is_made_when_there_is_room_for_it, setup, teardown_disk),
	};

	return cmocka_run_group_tests_name("store_failures", tests, NULL, NULL);
}
