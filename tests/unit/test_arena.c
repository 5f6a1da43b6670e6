/*
 * The arena's file: what is trusted, what is made anew, what is refused, and
 * who may be master of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shm/base/log.h"
#include "shm/journal.h"
#include "tests/unit/arena_fixture.h"

static const struct arena_sizes small = { .workers = 2, .inflight = 8, .ring_bytes = 65536, .meters = 64 };

static int
setup(void **state)
{
	struct fixture *f = malloc(sizeof(*f));

	fixture_open(f, small);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	fixture_close(*state);
	free(*state);
	return 0;
}

/* Changes bytes of the file while nobody has it open. */
static void
patch(const char *path, off_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, at), (ssize_t)n);
	close(fd);
}

static void
is_attached_again_with_what_it_holds(void **state)
{
	struct fixture *f = *state;
	struct arena_sizes other = { .workers = 1, .inflight = 1, .ring_bytes = 65536, .meters = 64 };
	struct charge c = budget_charge(1, PERIOD_DAILY, 1000, 10);
	uint64_t epoch = arena_epoch(&f->arena);
	enum arena_origin origin;
	struct inflight *e;
	struct refusal no;
	char why[256];

	assert_int_equal(fixture_admit(f, 0, &c, 1, NULL, &e, &no), LEDGER_ADMITTED);
	arena_close(&f->arena);
	assert_int_equal(arena_open(&f->arena, f->path, &other, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
	assert_int_equal(arena_epoch(&f->arena), epoch);
	assert_int_equal(arena_sizes(&f->arena).workers, small.workers);
	assert_int_equal(ledger_inflight_held(&f->arena), 10);
}

static void
file_is_private_and_complete(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, f->arena.bytes);
	assert_true((uint64_t)st.st_blocks * 512 >= f->arena.bytes);
	assert_int_not_equal(arena_epoch(&f->arena), 0);
	/* Where large pages would fit. */
	assert_int_equal((uintptr_t)f->arena.header % (2 << 20), 0);
}

static void
refuses_sizes_out_of_bounds(void **state)
{
	static const struct {
		struct arena_sizes sizes;
		const char *word;
	} bad[] = {
		{ { 0, 8, 65536, 64 }, "workers" },
		{ { WORKERS_MAX + 1, 8, 65536, 64 }, "workers" },
		{ { 1, 0, 65536, 64 }, "inflight" },
		{ { 1, 8, 65537, 64 }, "ring_bytes" },
		{ { 1, 8, 4096, 64 }, "ring_bytes" },
		{ { 1, 8, 65536, 65 }, "meters" },
		{ { 1, 8, 65536, 0 }, "meters" },
	};
	struct fixture *f = *state;
	char why[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why[0] = '\0';
		assert_int_equal(arena_replace(&f->arena, f->path, &bad[i].sizes, why, sizeof(why)), -1);
		assert_non_null(strstr(why, bad[i].word));
	}
	assert_int_equal(arena_sizes(&f->arena).meters, small.meters);
}

static void
another_master_is_refused_and_told_which_process(void **state)
{
	struct fixture *f = *state;
	struct arena second;
	enum arena_origin origin;
	char why[256], pid[24];

	assert_int_equal(arena_open(&second, f->path, &small, &origin, why, sizeof(why)), -1);
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(why, "already running"));
	assert_non_null(strstr(why, pid));
	assert_int_equal(second.lock_fd, -1);
}

/* A master that died leaves children; the next one waits until they are gone. */
static void
waits_for_children_of_a_dead_master(void **state)
{
	struct fixture *f = *state;
	enum arena_origin origin;
	char why[256], byte;
	int ready[2];

	arena_close(&f->arena);
	assert_int_equal(pipe(ready), 0);
	pid_t master = fork();
	if (master == 0) {
		if (arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)) != 0)
			_exit(1);
		if (fork() == 0) {
			struct timespec work = { .tv_nsec = 100 * NS_PER_MS };

			nanosleep(&work, NULL);	/* the request that it still serves */
			_exit(write(ready[1], "x", 1) != 1);
		}
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(master, &status, 0), master);
	assert_int_equal(status, 0);
	assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
	/* It is over: its byte is there without waiting. */
	assert_int_equal(fcntl(ready[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
}

static void
another_boot_starts_empty(void **state)
{
	struct fixture *f = *state;
	uint64_t epoch = arena_epoch(&f->arena);
	enum arena_origin origin;
	struct arena tool;
	char why[256];

	arena_close(&f->arena);
	patch(f->path, offsetof(struct shm_header, boot_id), "0", 1);
	patch(f->path, offsetof(struct shm_header, boot_id) + 1, "-", 1);
	assert_int_equal(arena_attach(&tool, f->path, false, why, sizeof(why)), -1);
	assert_non_null(strstr(why, "before the last boot"));
	assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_CREATED);
	assert_true(arena_epoch(&f->arena) != epoch);
}

static void
another_layout_is_kept_aside(void **state)
{
	struct fixture *f = *state;
	uint64_t foreign = 1;
	enum arena_origin origin;
	struct arena tool;
	char why[256], old[128];

	arena_close(&f->arena);
	patch(f->path, offsetof(struct shm_header, layout_hash), &foreign, sizeof(foreign));
	assert_int_equal(arena_attach(&tool, f->path, true, why, sizeof(why)), -1);
	assert_non_null(strstr(why, "another layout"));
	log_set_level(LOG_ERROR);
	assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), 0);
	log_set_level(LOG_INFO);
	assert_int_equal(origin, ARENA_CREATED);
	snprintf(old, sizeof(old), "%s.old", f->path);
	assert_int_equal(access(old, F_OK), 0);
}

static void
damaged_headers_are_not_believed(void **state)
{
	struct fixture *f = *state;
	enum arena_origin origin;
	uint64_t far = UINT64_C(1) << 40;
	uint32_t many = 1u << 20;
	char why[256];

	log_set_level(LOG_ERROR);
	for (int i = 0; i < 3; i++) {
		arena_close(&f->arena);
		if (i == 0)
			assert_int_equal(truncate(f->path, 8192), 0);
		else if (i == 1)
			patch(f->path, offsetof(struct shm_header, at.meters), &far, sizeof(far));
		else
			patch(f->path, offsetof(struct shm_header, sizes), &many, sizeof(many));
		assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), 0);
		assert_int_equal(origin, ARENA_CREATED);
	}
	log_set_level(LOG_INFO);
}

static void
somebody_elses_file_is_left_alone(void **state)
{
	struct fixture *f = *state;
	enum arena_origin origin;
	char why[256];
	struct stat st;

	arena_close(&f->arena);
	assert_int_equal(truncate(f->path, 0), 0);
	patch(f->path, 0, "a poem", 6);
	assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), -1);
	assert_non_null(strstr(why, "not an arena"));
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, 6);
}

static void
replacing_gives_an_empty_one_in_its_place(void **state)
{
	struct fixture *f = *state;
	struct arena_sizes more = { .workers = 3, .inflight = 16, .ring_bytes = 131072, .meters = 128 };
	uint64_t epoch = arena_epoch(&f->arena);
	struct arena second;
	enum arena_origin origin;
	char why[256];

	assert_int_equal(arena_replace(&f->arena, f->path, &more, why, sizeof(why)), 0);
	assert_int_equal(arena_sizes(&f->arena).workers, 3);
	assert_true(arena_epoch(&f->arena) != epoch);
	assert_int_equal(arena_open(&second, f->path, &more, &origin, why, sizeof(why)), -1);
	assert_int_equal(arena_attach(&second, f->path, false, why, sizeof(why)), 0);
	assert_int_equal(arena_epoch(&second), arena_epoch(&f->arena));
	arena_close(&second);
}

static void
a_place_that_cannot_be_written_is_named(void **state)
{
	struct fixture *f = *state;
	struct arena a;
	enum arena_origin origin;
	char why[256], path[128];

	snprintf(path, sizeof(path), "%s/no/arena", f->folder);
	assert_int_equal(arena_open(&a, path, &small, &origin, why, sizeof(why)), -1);
	assert_non_null(strstr(why, path));
	assert_int_equal(arena_attach(&a, path, false, why, sizeof(why)), -1);
	assert_non_null(strstr(why, "is weir running"));
}

static void
tools_look_and_cannot_write(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 10);
	struct meter_view view;
	struct inflight *e;
	struct refusal no;
	struct arena tool;
	char why[256];

	assert_int_equal(fixture_admit(f, 1, &c, 1, NULL, &e, &no), LEDGER_ADMITTED);
	assert_int_equal(arena_attach(&tool, f->path, false, why, sizeof(why)), 0);
	assert_false(tool.writable);
	assert_true(ledger_meter(&tool, c.id, f->now, &view));
	assert_int_equal(view.held, 10);
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		layout_worker(&tool, 0)->journal.pad = 1;
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(status != 0);
	arena_close(&tool);
}

/* As the out-of-memory killer may leave it: locked, and nobody marked it. */
static void
a_lock_that_nobody_holds_is_renewed(void **state)
{
	struct fixture *f = *state;
	struct charge c = budget_charge(1, PERIOD_TOTAL, 1000, 10);
	enum arena_origin origin;
	struct inflight *e;
	struct refusal no;
	pthread_mutex_t locked;
	char why[256];

	struct step s = journal_begin(&f->arena, 1);
	journal_set(&s, &layout_worker(&f->arena, 1)->page_fresh, 7);
	memcpy(&locked, &f->arena.header->ledger.mutex, sizeof(locked));
	ledger_unlock(&f->arena);
	arena_close(&f->arena);
	patch(f->path, offsetof(struct shm_header, ledger), &locked, sizeof(locked));

	assert_int_equal(arena_open(&f->arena, f->path, &small, &origin, why, sizeof(why)), 0);
	assert_int_equal(origin, ARENA_ATTACHED);
	assert_int_equal(word_get(&layout_worker(&f->arena, 1)->page_fresh), 0);
	assert_int_equal(fixture_admit(f, 1, &c, 1, NULL, &e, &no), LEDGER_ADMITTED);
}

static void
everybody_sees_a_failing_store(void **state)
{
	struct fixture *f = *state;
	struct arena tool;
	char why[256];

	assert_int_equal(arena_attach(&tool, f->path, false, why, sizeof(why)), 0);
	assert_false(arena_store_failing(&tool));
	arena_store_failing_set(&f->arena, true);
	assert_true(arena_store_failing(&tool));
	arena_store_failing_set(&f->arena, false);
	assert_false(arena_store_failing(&tool));
	arena_close(&tool);
}

static void
processes_are_listed(void **state)
{
	struct fixture *f = *state;
	struct proc_view v = arena_proc(&f->arena, PROC_KEEPER);

	assert_int_equal(v.pid, 0);
	arena_proc_start(&f->arena, PROC_KEEPER, 42);
	arena_heartbeat(&f->arena, PROC_KEEPER, 77);
	v = arena_proc(&f->arena, PROC_KEEPER);
	assert_int_equal(v.pid, 42);
	assert_int_equal(v.restarts, 0);
	assert_int_equal(v.heartbeat_mono_ns, 77);
	assert_true(v.started_wall_ns > 0);
	arena_proc_stop(&f->arena, PROC_KEEPER);
	assert_int_equal(arena_proc(&f->arena, PROC_KEEPER).pid, 0);
	arena_proc_start(&f->arena, PROC_KEEPER, 43);
	assert_int_equal(arena_proc(&f->arena, PROC_KEEPER).restarts, 1);
	assert_int_equal(arena_proc(&f->arena, 0).restarts, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(is_attached_again_with_what_it_holds),
		TEST(file_is_private_and_complete),
		TEST(refuses_sizes_out_of_bounds),
		TEST(another_master_is_refused_and_told_which_process),
		TEST(waits_for_children_of_a_dead_master),
		TEST(another_boot_starts_empty),
		TEST(another_layout_is_kept_aside),
		TEST(damaged_headers_are_not_believed),
		TEST(somebody_elses_file_is_left_alone),
		TEST(replacing_gives_an_empty_one_in_its_place),
		TEST(a_place_that_cannot_be_written_is_named),
		TEST(tools_look_and_cannot_write),
		TEST(a_lock_that_nobody_holds_is_renewed),
		TEST(everybody_sees_a_failing_store),
		TEST(processes_are_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
