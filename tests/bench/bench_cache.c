/*
 * What a hit of the response cache costs, among 1,000 entries and among many.
 *
 *	get	found, and let go again: LMDB's tree, and the entry's head
 *	miss	a key that is not there
 *	sent	found, and head and body written to a client by TCP
 *	bare	the same bytes written from a random place of the same file, nothing
 *		looked up: what the machine's memory takes for its part
 *	served	as a worker does it: a request is read from a client by TCP, the key of
 *		its body is made (policy/canon), the entry found and written
 *	first	found and every line of it read, for the first time by this process: the
 *		kernel maps its pages
 *
 * All entries are in the page cache and, apart from "first", mapped. Keys are drawn
 * from all entries; "same" draws from 1,000 of the many, so that what is left of
 * the ratio is the number of entries, and not that ten gigabytes lie in no
 * processor's cache. The few and the many are measured in turn, in one process.
 * Processor time of the worker's side, medians of rounds. Prints a line of JSON a
 * figure, and one of how each side was stored.
 *
 *	bench_cache FOLDER [MANY [BODY_BYTES [ROUNDS]]]
 *
 * FOLDER gets two data folders, which go again. 1,000,000 entries of 10,000 bytes are
 * 12.4 GB there, and want as much free memory; the default is 20,000.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/canon.h"
#include "store/cache.h"
#include "store/cache_writer.h"
#include "tests/bench/median.h"

#define FEW 1000
#define MANY 20000
#define MANY_MAX 100000000
#define BODY_BYTES 10000
#define BODY_BYTES_MAX (1 << 20)
#define ROUNDS 11
#define ROUNDS_MAX 101
#define LOOKS 20000		/* in a round */
#define SERVED 4000		/* likewise */
#define REQUEST_BYTES 4096	/* a short conversation; Claude Code sends ten times as much */
#define BATCH 64
#define NOW_NS (INT64_C(1795000000) * NS_PER_S)

struct side {
	char data_dir[4096];
	uint64_t entries;
	uint64_t drawn;		/* keys are drawn from so many of them */
	struct cache *cache;
	const char *file;	/* mapped as LMDB maps it, for "bare" */
	size_t file_bytes;
};

enum work { WORK_GET, WORK_MISS, WORK_SENT, WORK_BARE, WORK_SERVED };

static uint64_t random_state = 1;
static size_t body_bytes = BODY_BYTES;
static int client = -1;		/* a connection to somebody who reads */
static int asking[2];		/* to one who asks, and his connection */
static size_t answer_bytes;	/* of head and body */
static volatile uint64_t sink;	/* what was only made so that it is made */

static _Noreturn void
give_up(const char *why)
{
	fprintf(stderr, "bench_cache: %s\n", why);
	exit(1);
}

/* Which they are follows from their number; there is no table that would take part. */
static void
key_of(uint64_t number, uint64_t key[2])
{
	uint64_t x = number + 1;

	for (int i = 0; i < 2; i++) {
		x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
		key[i] = x ^= x >> 31;
	}
}

static uint64_t
draw(uint64_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint64_t)(((__extension__ (unsigned __int128)random_state) * below) >> 64);
}

static pid_t
child(void)
{
	pid_t pid = fork();

	if (pid < 0 || (pid == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0))
		give_up("no child");
	return pid;
}

/* ---- filling ---- */

static size_t
entry_make(uint64_t number, char *out)
{
	struct cache_entry e = {
		.fixed = { .status = 200, .created_wall_ns = NOW_NS, .expires_wall_ns = NOW_NS + 3600 * NS_PER_S },
		.content_type = SLICE("application/json"), .model = SLICE("claude-sonnet-5-5"), .provider = SLICE("anthropic"),
		.provider_request_id = SLICE("req_011CSHoEeqs5C35K2UUqR7Fy"),
	};
	uint32_t head;

	e.body = (struct slice){ "", body_bytes };
	head = cache_entry_head(&e, out);
	CHECK(head > 0);
	memset(out + head, (int)('a' + number % 26), body_bytes);
	return head + body_bytes;
}

static void
fill(const struct side *s)
{
	const size_t room = CACHE_HEAD_BYTES_MAX + body_bytes;
	struct cache_writer *w = cache_writer_new(s->data_dir);
	struct cache_item items[BATCH];
	struct cache_changes changes;
	char *bytes = malloc(BATCH * room), why[512];
	uint64_t bound = (s->entries + BATCH) * (2 * room + 8192);
	int64_t begin = clock_mono_ns(), worst = 0;

	CHECK(w && bytes);
	for (uint64_t at = 0; at < s->entries; at += BATCH) {
		int64_t t = clock_mono_ns();
		uint32_t n = 0;

		for (; n < BATCH && at + n < s->entries; n++) {
			key_of(at + n, items[n].key);
			items[n].entry = (struct slice){ bytes + n * room, entry_make(at + n, bytes + n * room) };
		}
		if (cache_writer_apply(w, bound, items, n, NOW_NS, &changes, why, sizeof(why)) != 0)
			give_up(why);
		t = clock_mono_ns() - t;
		worst = t > worst ? t : worst;
	}
	if (changes.entries != s->entries)
		give_up("not all entries were stored");
	printf("{\"bench\":\"cache\",\"name\":\"filled_%s\",\"entries\":%llu,\"gb\":%.3f,\"entries_per_s\":%.0f,\"worst_commit_ms\":%.1f}\n",
	    s->entries == FEW ? "few" : "many", (unsigned long long)changes.entries, (double)changes.bytes / 1e9,
	    (double)s->entries * 1e9 / (double)(clock_mono_ns() - begin), (double)worst / 1e6);
	fflush(stdout);
	cache_writer_free(w);
	free(bytes);
}

/* In a process of its own: LMDB wants an environment to be open once in each. */
static void
fill_apart(const struct side *s)
{
	int status;
	pid_t pid;

	if (mkdir(s->data_dir, 0700) != 0)
		give_up("FOLDER: no data folder can be made in it (of a run that was killed?)");
	pid = child();
	if (pid == 0) {
		fill(s);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		give_up("filling failed");
}

/* ---- clients ---- */

/* A child that has the other end of a connection, and works there until it ends. */
static int
client_open(void (*work)(int fd, int control), int *control)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, fd, pipe_fds[2];
	pid_t pid;

	if (bind(listener, (struct sockaddr *)&address, n) != 0 || listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &n) != 0 || pipe2(pipe_fds, O_CLOEXEC) != 0)
		give_up("no listener");
	pid = child();
	if (pid == 0) {
		close(pipe_fds[1]);
		fd = accept(listener, NULL, NULL);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		work(fd, pipe_fds[0]);
		_exit(0);
	}
	close(pipe_fds[0]);
	close(listener);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, n) != 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0)
		give_up("no connection");
	if (control)
		*control = pipe_fds[1];
	else
		close(pipe_fds[1]);
	return fd;
}

static void
read_all(int fd, int control)
{
	static char bytes[1 << 20];

	(void)control;
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

static void
read_exactly(int fd, char *out, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t got = read(fd, out + at, n - at);

		if (got <= 0)
			give_up("a connection ended");
		at += (size_t)got;
	}
}

/* A request with a number in it, always of the same length. */
static void
request_make(uint64_t which, char out[REQUEST_BYTES + 1])
{
	static const char text[] = "I will look at the file next, and then at what it includes. ";
	size_t n = (size_t)snprintf(out, REQUEST_BYTES + 1, "{\"which\":1%012llu,\"model\":\"claude-sonnet-5-5\",\"messages\":[",
	    (unsigned long long)which);

	while (n + 400 < REQUEST_BYTES)
		n += (size_t)snprintf(out + n, REQUEST_BYTES + 1 - n, "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"%s%s%s\"}]},",
		    text, text, text);
	n += (size_t)snprintf(out + n, REQUEST_BYTES + 1 - n, "{\"role\":\"user\",\"content\":\"");
	memset(out + n, 'x', REQUEST_BYTES - n - 4);
	memcpy(out + REQUEST_BYTES - 4, "\"}]}", 5);
}

struct task { uint64_t drawn; size_t answer_bytes; };

/* One request after the other, as long as there are tasks. */
static void
ask(int fd, int control)
{
	static char request[REQUEST_BYTES + 1], answer[BODY_BYTES_MAX + 4096];
	struct task t;

	while (read(control, &t, sizeof(t)) == sizeof(t)) {
		for (int i = 0; i < SERVED; i++) {
			request_make(draw(t.drawn), request);
			if (write(fd, request, REQUEST_BYTES) != REQUEST_BYTES)
				give_up("a request could not be sent");
			read_exactly(fd, answer, t.answer_bytes);
		}
	}
}

static size_t
head_make(const struct cache_entry *e, char *out, size_t size)
{
	return (size_t)snprintf(out, size, "HTTP/1.1 %u OK\r\ncontent-type: %.*s\r\ncontent-length: %zu\r\nrequest-id: %.*s\r\n\r\n",
	    e->fixed.status, SLICE_FMT(e->content_type), e->body.n, SLICE_FMT(e->provider_request_id));
}

static void
send_to(int fd, const struct cache_entry *e)
{
	char head[256];
	struct iovec piece[2] = { { head, head_make(e, head, sizeof(head)) }, { (void *)(uintptr_t)e->body.p, e->body.n } };

	if (writev(fd, piece, 2) != (ssize_t)(piece[0].iov_len + piece[1].iov_len))
		give_up("the client does not read");
}

/* ---- measuring ---- */

static void
find(const struct side *s, uint64_t number, struct cache_entry *e)
{
	uint64_t key[2];

	key_of(number, key);
	if (!cache_get(s->cache, key, NOW_NS, e) || e->body.n != body_bytes)
		give_up("an entry is missing");
}

/* The key is made as it would be; which entry it is of, the request says itself. */
static void
serve(const struct side *s)
{
	static char request[REQUEST_BYTES];
	const uint64_t secret[2] = { 1, 2 };
	struct json_error why;
	struct cache_entry e;
	struct canon_key k;
	uint64_t key[2], number = 0;

	read_exactly(asking[1], request, sizeof(request));
	canon_begin(&k, secret);
	canon_add(&k, SLICE("POST"));
	canon_add(&k, SLICE("/v1/messages"));
	if (!canon_add_json(&k, (struct slice){ request, sizeof(request) }, &why))
		give_up(why.what);
	canon_end(&k, key);
	sink += key[0] ^ key[1];
	for (int i = 0; i < 12; i++)
		number = number * 10 + (uint64_t)(request[10 + i] - '0');
	find(s, number, &e);
	send_to(asking[1], &e);
	cache_done(s->cache);
}

static void
look(const struct side *s, enum work work)
{
	struct cache_entry e;
	uint64_t key[2];

	switch (work) {
	case WORK_SERVED:
		serve(s);
		return;
	case WORK_MISS:
		key_of(draw(s->drawn) + MANY_MAX, key);
		if (cache_get(s->cache, key, NOW_NS, &e))
			give_up("an entry that was never stored");
		return;
	case WORK_BARE:
		e = (struct cache_entry){
			.fixed.status = 200, .content_type = SLICE("application/json"), .provider_request_id = SLICE("req_011CSHoEeqs5C35K2UUqR7Fy"),
		};
		e.body = (struct slice){ s->file + draw(s->drawn) * ((s->file_bytes - body_bytes) / s->drawn), body_bytes };
		send_to(client, &e);
		return;
	case WORK_GET: case WORK_SENT:
		find(s, draw(s->drawn), &e);
		if (work == WORK_SENT)
			send_to(client, &e);
		cache_done(s->cache);
		return;
	}
}

static double
one_round(const struct side *s, enum work work)
{
	const struct task t = { s->drawn, answer_bytes };
	int n = work == WORK_SERVED ? SERVED : LOOKS;
	int64_t begin = cpu_ns();

	if (work == WORK_SERVED && write(asking[0], &t, sizeof(t)) != sizeof(t))
		give_up("nobody asks");
	for (int i = 0; i < n; i++)
		look(s, work);
	return (double)(cpu_ns() - begin) / n;
}

static void
tell(const char *name, const char *unit, double value)
{
	printf("{\"bench\":\"cache\",\"name\":\"%s\",\"unit\":\"%s\",\"value\":%.3f}\n", name, unit, value);
	fflush(stdout);
}

/* In turn, so what slows a whole round cancels out of the ratio. */
static void
compare(const char *name, const struct side *few, const struct side *many, enum work work, int rounds)
{
	double one[ROUNDS_MAX], other[ROUNDS_MAX], ratio[ROUNDS_MAX];
	char text[64];

	for (int i = 0; i < rounds; i++) {
		one[i] = one_round(few, work);
		other[i] = one_round(many, work);
		ratio[i] = other[i] / one[i];
	}
	snprintf(text, sizeof(text), "%s_few", name);
	tell(text, "ns", median(one, rounds));
	snprintf(text, sizeof(text), "%s_many", name);
	tell(text, "ns", median(other, rounds));
	snprintf(text, sizeof(text), "%s_ratio", name);
	tell(text, "", median(ratio, rounds));
}

/* Every line of every entry, so that it is in memory and mapped. What that took an entry. */
static double
touch_all(const struct side *s)
{
	int64_t begin = cpu_ns();

	for (uint64_t i = 0; i < s->entries; i++) {
		struct cache_entry e;
		uint64_t word, sum = 0;

		find(s, i, &e);
		if (e.body.p[body_bytes / 2] != (char)('a' + i % 26))
			give_up("an entry is not what was stored");
		for (size_t at = 0; at + 8 <= e.body.n; at += 64) {
			memcpy(&word, e.body.p + at, 8);
			sum += word;
		}
		sink += sum;
		cache_done(s->cache);
	}
	return (double)(cpu_ns() - begin) / (double)s->entries;
}

static void
open_side(struct side *s)
{
	uint64_t secret[2];
	struct stat st;
	char path[5000];
	int fd;

	s->cache = cache_open_read(s->data_dir);
	if (!s->cache || !cache_secret(s->cache, secret))
		give_up("the cache cannot be opened");
	snprintf(path, sizeof(path), "%s/cache/data.mdb", s->data_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		give_up("the cache's file cannot be opened");
	s->file_bytes = (size_t)st.st_size;
	s->file = mmap(NULL, s->file_bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (s->file == MAP_FAILED || madvise((void *)(uintptr_t)s->file, s->file_bytes, MADV_RANDOM) != 0)
		give_up("the cache's file cannot be mapped");
	for (size_t at = 0; at < s->file_bytes; at += 4096)
		*(const volatile char *)(s->file + at);
}

static void
measure(struct side *few, struct side *many, int rounds)
{
	struct cache_entry e;
	struct side same;
	char head[256];

	client = client_open(read_all, NULL);
	asking[1] = client_open(ask, &asking[0]);
	open_side(few);
	open_side(many);
	tell("first_few", "ns", touch_all(few));
	tell("first_many", "ns", touch_all(many));
	find(few, 0, &e);
	answer_bytes = head_make(&e, head, sizeof(head)) + body_bytes;
	cache_done(few->cache);
	same = *many;
	same.drawn = FEW;
	compare("get", few, many, WORK_GET, rounds);
	compare("get_same", few, &same, WORK_GET, rounds);
	compare("miss", few, many, WORK_MISS, rounds);
	compare("sent", few, many, WORK_SENT, rounds);
	compare("sent_same", few, &same, WORK_SENT, rounds);
	compare("bare", few, many, WORK_BARE, rounds);
	compare("served", few, many, WORK_SERVED, rounds);
	compare("served_same", few, &same, WORK_SERVED, rounds);
	cache_close(few->cache);
	cache_close(many->cache);
}

/* ---- the program ---- */

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static uint64_t
number(const char *text, uint64_t least, uint64_t most, const char *wrong)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (*end || n < least || n > most)
		give_up(wrong);
	return n;
}

int
main(int argc, char **argv)
{
	struct side few = { .entries = FEW, .drawn = FEW }, many = { .entries = MANY };
	int rounds = ROUNDS, status;
	pid_t pid;

	if (argc < 2)
		give_up("FOLDER [MANY [BODY_BYTES [ROUNDS]]]");
	if (argc > 2)
		many.entries = number(argv[2], FEW + 1, MANY_MAX, "MANY: 1,001 to 100,000,000");
	if (argc > 3)
		body_bytes = number(argv[3], 100, BODY_BYTES_MAX, "BODY_BYTES: 100 to 1,048,576");
	if (argc > 4)
		rounds = (int)number(argv[4], 1, ROUNDS_MAX, "ROUNDS: 1 to 101");
	many.drawn = many.entries;
	snprintf(few.data_dir, sizeof(few.data_dir), "%s/weir-bench-cache-few", argv[1]);
	snprintf(many.data_dir, sizeof(many.data_dir), "%s/weir-bench-cache-many", argv[1]);
	fill_apart(&few);
	fill_apart(&many);
	pid = child();
	if (pid == 0) {
		measure(&few, &many, rounds);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		status = 1;
	nftw(few.data_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	nftw(many.data_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return status == 0 ? 0 : 1;
}
