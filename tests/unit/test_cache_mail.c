/*
 * Mail for the response cache: entries arrive as they were sent, a full queue is
 * no wait, whatever else a worker may send is refused, and no descriptor stays
 * open, whoever dies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "gateway/cache_mail.h"
#include "shm/metrics.h"
#include "tests/unit/arena_fixture.h"
#include "tests/unit/cache_fixture.h"

#define ENTRY_BYTES 100000
#define WORKER 1

struct mail_world {
	struct fixture f;
	int worker, keeper;	/* the ends */
	struct buf entry;
	int descriptors;	/* open before the test */
	char bytes[CACHE_HEAD_BYTES_MAX + ENTRY_BYTES];
};

static int
open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int
setup(void **state)
{
	struct mail_world *w = calloc(1, sizeof(*w));

	fixture_open(&w->f, (struct arena_sizes){ .workers = 2, .inflight = 1, .ring_bytes = 65536, .meters = 64 });
	buf_init(&w->entry, ENTRY_BYTES);
	*state = w;
	if (cache_mail_pair(&w->worker, &w->keeper) != 0)
		return -1;
	w->descriptors = open_descriptors();
	return 0;
}

static int
teardown(void **state)
{
	struct mail_world *w = *state;

	buf_free(&w->entry);
	assert_int_equal(open_descriptors(), w->descriptors);
	close(w->worker);
	close(w->keeper);
	fixture_close(&w->f);
	free(w);
	return 0;
}

static uint64_t
counted(struct mail_world *w, enum metrics_counter c)
{
	static struct metrics_view v;

	metrics_sum(&w->f.arena, &v);
	return v.counter[c];
}

/* Entry `number`, decoded from its bytes. */
static struct cache_entry
entry_of(struct mail_world *w, uint64_t number, uint32_t body_bytes)
{
	const struct cache_spec s = { number, number, body_bytes, CACHE_NOW_NS, CACHE_NOW_NS + CACHE_AGE_NS };
	size_t n = cache_encode(&s, w->bytes);
	struct cache_entry e;

	assert_true(cache_entry_decode((struct slice){ w->bytes, n }, &e));
	return e;
}

static bool
put(struct mail_world *w, uint64_t number, uint32_t body_bytes)
{
	const uint64_t key[2] = { number, ~number };
	struct cache_entry e = entry_of(w, number, body_bytes);

	return cache_mail_put(w->worker, key, &e, ENTRY_BYTES, &w->f.arena, WORKER);
}

static void
expect_entry(struct mail_world *w, uint64_t number)
{
	struct cache_entry e;
	uint64_t key[2];

	assert_int_equal(cache_mail_receive(w->keeper, key, &w->entry), CACHE_MAIL_ENTRY);
	assert_true(key[0] == number && key[1] == ~number);
	assert_true(cache_entry_decode(buf_slice(&w->entry), &e));
	assert_int_equal(cache_version(number, &e), number);
}

static void
expect(struct mail_world *w, enum cache_mail_got what)
{
	uint64_t key[2];

	assert_int_equal(cache_mail_receive(w->keeper, key, &w->entry), what);
	assert_int_equal(open_descriptors(), w->descriptors);
}

/* ---- what workers send ---- */

static void
entries_arrive_in_order(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 5000, 90000 };
	struct mail_world *w = *state;
	uint64_t key[2];

	assert_int_equal(fcntl(w->worker, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(w->keeper, F_GETFD), FD_CLOEXEC);
	expect(w, CACHE_MAIL_NOTHING);
	for (uint64_t i = 0; i < 4; i++) {
		assert_true(put(w, i, sizes[i]));
		assert_true(cache_mail_delete(w->worker, (uint64_t[2]){ i, 7 }, &w->f.arena, WORKER));
	}
	for (uint64_t i = 0; i < 4; i++) {
		expect_entry(w, i);
		assert_int_equal(cache_mail_receive(w->keeper, key, &w->entry), CACHE_MAIL_DELETE);
		assert_true(key[0] == i && key[1] == 7);
	}
	expect(w, CACHE_MAIL_NOTHING);
}

static void
what_is_too_large_or_no_entry_is_not_sent(void **state)
{
	const uint64_t key[2] = { 1, 2 };
	struct mail_world *w = *state;
	struct cache_entry e = entry_of(w, 1, 1000);
	char head[CACHE_HEAD_BYTES_MAX];
	uint64_t bytes = cache_entry_head(&e, head) + 1000;

	assert_false(cache_mail_put(w->worker, key, &e, bytes - 1, &w->f.arena, WORKER));
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_LARGE), 1);
	e.model = SLICE("two\nlines");
	assert_false(cache_mail_put(w->worker, key, &e, bytes, &w->f.arena, WORKER));
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_MALFORMED), 1);
	expect(w, CACHE_MAIL_NOTHING);
	e = entry_of(w, 1, 1000);
	assert_true(cache_mail_put(w->worker, key, &e, bytes, &w->f.arena, WORKER));
	assert_int_equal(cache_mail_receive(w->keeper, (uint64_t[2]){ 0 }, &w->entry), CACHE_MAIL_ENTRY);
	assert_int_equal(w->entry.n, bytes);
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_QUEUE), 0);
}

/* The keeper's bound may be lower than the one of the worker that sent it. */
static void
the_keeper_has_a_bound_of_its_own(void **state)
{
	struct mail_world *w = *state;

	assert_true(put(w, 1, 5000));
	assert_true(put(w, 2, 500));
	buf_free(&w->entry);
	buf_init(&w->entry, 1000);
	expect(w, CACHE_MAIL_TOO_LARGE);
	expect_entry(w, 2);
}

static void
a_full_queue_is_no_wait(void **state)
{
	struct mail_world *w = *state;
	uint64_t sent = 0;

	while (sent < 1000 && put(w, sent, 100))
		sent++;
	print_message("the queue holds %llu messages\n", (unsigned long long)sent);
	assert_in_range(sent, 16, 200);
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_QUEUE), 1);
	assert_false(cache_mail_delete(w->worker, (uint64_t[2]){ 1, 2 }, &w->f.arena, WORKER));
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_QUEUE), 2);
	assert_int_equal(open_descriptors(), w->descriptors);
	expect_entry(w, 0);
	expect_entry(w, 1);
	assert_true(put(w, sent, 100));
	for (uint64_t i = 2; i <= sent; i++)
		expect_entry(w, i);
	expect(w, CACHE_MAIL_NOTHING);
}

/* ---- what else may come ---- */

static void
send_raw(struct mail_world *w, const void *bytes, size_t n, const int *fds, size_t fds_count)
{
	union { char bytes[CMSG_SPACE(sizeof(int) * 8)]; struct cmsghdr align; } control = { { 0 } };
	struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr head = { .msg_iov = &piece, .msg_iovlen = 1 };

	if (fds_count > 0) {
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&head);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_count);
	}
	assert_int_equal(sendmsg(w->worker, &head, 0), (ssize_t)n);
}

struct raw_mail { uint32_t word, reserved; uint64_t key[2]; };

/* It is refused, and the next one is taken. */
static void
assert_refused(struct mail_world *w, const void *bytes, size_t n, const int *fds, size_t fds_count, enum cache_mail_got as)
{
	send_raw(w, bytes, n, fds, fds_count);
	assert_true(put(w, 9, 100));
	assert_int_equal(cache_mail_receive(w->keeper, (uint64_t[2]){ 0 }, &w->entry), as);
	expect_entry(w, 9);
}

static void
odd_messages_are_refused(void **state)
{
	static const char bytes[4096] = { 1 };
	const struct raw_mail put_one = { .word = 1 }, delete_one = { .word = 2 }, other = { .word = 3 };
	struct mail_world *w = *state;
	int some[8];

	for (int i = 0; i < 8; i++)
		assert_true((some[i] = dup(w->worker)) >= 0);
	w->descriptors += 8;
	assert_refused(w, bytes, 0, NULL, 0, CACHE_MAIL_MALFORMED);
	assert_refused(w, bytes, 1, NULL, 0, CACHE_MAIL_MALFORMED);
	assert_refused(w, bytes, 23, some, 1, CACHE_MAIL_MALFORMED);
	assert_refused(w, bytes, 4096, some, 4, CACHE_MAIL_MALFORMED);
	assert_refused(w, bytes, 0, some, 1, CACHE_MAIL_MALFORMED);
	assert_refused(w, &put_one, sizeof(put_one), NULL, 0, CACHE_MAIL_MALFORMED);
	assert_refused(w, &put_one, sizeof(put_one), some, 8, CACHE_MAIL_MALFORMED);
	assert_refused(w, &delete_one, sizeof(delete_one), some, 1, CACHE_MAIL_MALFORMED);
	assert_refused(w, &delete_one, sizeof(delete_one), some, 3, CACHE_MAIL_MALFORMED);
	assert_refused(w, &other, sizeof(other), NULL, 0, CACHE_MAIL_MALFORMED);
	assert_refused(w, &other, sizeof(other), some, 1, CACHE_MAIL_MALFORMED);
	expect(w, CACHE_MAIL_NOTHING);
	for (int i = 0; i < 8; i++)
		close(some[i]);
	w->descriptors -= 8;
}

static int
memory(size_t bytes, int seals)
{
	int fd = memfd_create("weir-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void
only_sealed_memory_is_read(void **state)
{
	static const int all[] = { F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE };
	const int sealed = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	const struct raw_mail m = { .word = 1 };
	char path[] = "/tmp/weir-mail-XXXXXX", shared[] = "/dev/shm/weir-mail-XXXXXX";
	struct mail_world *w = *state;
	int fds[12], ends[2], n = 0;

	for (size_t i = 0; i < 4; i++)		/* one seal is missing */
		fds[n++] = memory(1000, sealed & ~all[i]);
	fds[n++] = mkstemp(path);
	fds[n++] = mkstemp(shared);		/* a file in memory, that others can open */
	unlink(path);
	unlink(shared);
	fds[n++] = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	fds[n++] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fds[n++] = ends[0];
	fds[n++] = ends[1];
	fds[n++] = dup(w->keeper);
	w->descriptors += n;
	for (int i = 0; i < n; i++) {
		assert_true(fds[i] >= 0);
		assert_refused(w, &m, sizeof(m), &fds[i], 1, CACHE_MAIL_MALFORMED);
	}
	for (int i = 0; i < n; i++)
		close(fds[i]);
	w->descriptors -= n;
	expect(w, CACHE_MAIL_NOTHING);
}

static void
sealed_memory_alone_is_no_entry(void **state)
{
	const struct raw_mail m = { .word = 3 };
	struct mail_world *w = *state;
	int fd = memory(1000, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);

	w->descriptors++;
	assert_refused(w, &m, sizeof(m), &fd, 1, CACHE_MAIL_MALFORMED);
	close(fd);
	w->descriptors--;
}

/* Memory that says that it is larger than what there is: nothing is allocated for it. */
static void
sizes_are_looked_at_first(void **state)
{
	static const size_t sizes[] = { ENTRY_BYTES + 1, (size_t)1 << 30, (size_t)1 << 40, (size_t)INT64_MAX };
	const int sealed = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	const struct raw_mail m = { .word = 1 };
	struct mail_world *w = *state;
	uint64_t key[2];
	int fd;

	for (size_t i = 0; i < 4; i++) {
		fd = memory(sizes[i], sealed);
		w->descriptors++;
		assert_refused(w, &m, sizeof(m), &fd, 1, CACHE_MAIL_TOO_LARGE);
		close(fd);
		w->descriptors--;
		assert_true(w->entry.cap <= ENTRY_BYTES);
	}
	/* What fits is read, whatever it is: others decide whether it is an entry. */
	fd = memory(ENTRY_BYTES, sealed);
	send_raw(w, &m, sizeof(m), &fd, 1);
	close(fd);
	assert_int_equal(cache_mail_receive(w->keeper, key, &w->entry), CACHE_MAIL_ENTRY);
	assert_int_equal(w->entry.n, ENTRY_BYTES);
	fd = memory(0, sealed);
	send_raw(w, &m, sizeof(m), &fd, 1);
	close(fd);
	assert_int_equal(cache_mail_receive(w->keeper, key, &w->entry), CACHE_MAIL_ENTRY);
	assert_int_equal(w->entry.n, 0);
}

/* It is one socket for all workers. One that shuts it down harms them, but not the keeper. */
static void
a_shut_socket_wakes_nobody(void **state)
{
	struct mail_world *w = *state;
	struct pollfd p = { .fd = w->keeper, .events = POLLIN };

	assert_true(put(w, 1, 10));
	assert_int_equal(shutdown(w->worker, SHUT_RDWR), 0);
	assert_false(put(w, 2, 10));
	assert_int_equal(counted(w, COUNTER_CACHE_REFUSED_QUEUE), 1);
	expect_entry(w, 1);
	expect(w, CACHE_MAIL_NOTHING);
	assert_int_equal(poll(&p, 1, 0), 0);
}

/* ---- deaths ---- */

static void
mail_outlives_its_sender(void **state)
{
	struct mail_world *w = *state;

	for (uint64_t i = 1; i <= 5; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			put(w, i, 2000);
			raise(SIGKILL);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WTERMSIG(status), SIGKILL);
	}
	for (uint64_t i = 1; i <= 5; i++)
		expect_entry(w, i);
	expect(w, CACHE_MAIL_NOTHING);
}

static void
mail_outlives_its_reader(void **state)
{
	struct mail_world *w = *state;

	for (uint64_t i = 1; i <= 6; i++)
		assert_true(put(w, i, 2000));
	for (uint64_t i = 1; i <= 3; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {		/* it dies with one message in its hands */
			expect_entry(w, i);
			raise(SIGKILL);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WTERMSIG(status), SIGKILL);
	}
	assert_true(put(w, 7, 2000));
	for (uint64_t i = 4; i <= 7; i++)
		expect_entry(w, i);
	expect(w, CACHE_MAIL_NOTHING);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(entries_arrive_in_order),
		TEST(what_is_too_large_or_no_entry_is_not_sent),
		TEST(the_keeper_has_a_bound_of_its_own),
		TEST(a_full_queue_is_no_wait),
		TEST(odd_messages_are_refused),
		TEST(only_sealed_memory_is_read),
		TEST(sealed_memory_alone_is_no_entry),
		TEST(sizes_are_looked_at_first),
		TEST(a_shut_socket_wakes_nobody),
		TEST(mail_outlives_its_sender),
		TEST(mail_outlives_its_reader),
	};

	return cmocka_run_group_tests_name("cache_mail", tests, NULL, NULL);
}
