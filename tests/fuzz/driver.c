/*
 * tests/fuzz/driver.c -- runs a fuzz target without a fuzzer.
 *
 *	fuzz_<name> CORPUS [EXECUTIONS]
 *
 * Feeds each file of the corpus folder, then changes of them, made by chance
 * that is the same in every run: execution N is always the same bytes. The
 * work is done by a child; the input lies in memory shared with it, so that
 * the one that kills the child (a finding of a sanitizer, a failed CHECK, a
 * hang) can be written to a file and the run goes on behind it. The last line
 * counts: "fuzz_body: 100000 executions, 0 crashes".
 *
 * A target is the function that libFuzzer calls, so that the same file serves
 * both (option `fuzzer`, with clang).
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/target.h"

#define EXECUTIONS 100000
#define INPUT_BYTES_MAX 16384
#define SEEDS_MAX 256
#define CRASHES_MAX 10		/* then it gives up */
#define EXECUTION_S_MAX 20	/* a slower one hangs */

struct shared {
	uint64_t execution;	/* that is running */
	size_t n;
	unsigned char input[INPUT_BYTES_MAX];
};

struct seed {
	unsigned char *p;
	size_t n;
};

static struct seed seeds[SEEDS_MAX];
static size_t seeds_count;
static uint64_t chance;

static uint32_t
dice(uint64_t sides)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return (uint32_t)((chance >> 11) % (sides ? sides : 1));
}

static int
is_file(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void
load_seeds(const char *folder)
{
	struct dirent **names;
	int n = scandir(folder, &names, is_file, alphasort);

	for (int i = 0; i < n; i++) {
		char path[1024];
		struct seed s = { .p = malloc(INPUT_BYTES_MAX) };

		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		FILE *f = fopen(path, "rb");
		if (f && s.p && seeds_count < SEEDS_MAX) {
			s.n = fread(s.p, 1, INPUT_BYTES_MAX, f);
			seeds[seeds_count++] = s;
		} else {
			free(s.p);
		}
		if (f)
			fclose(f);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static void
insert(struct shared *x, size_t at, const void *p, size_t n)
{
	if (n > INPUT_BYTES_MAX - x->n)
		return;
	memmove(x->input + at + n, x->input + at, x->n - at);
	memcpy(x->input + at, p, n);
	x->n += n;
}

static void
cut_out(struct shared *x, size_t at, size_t n)
{
	memmove(x->input + at, x->input + at + n, x->n - at - n);
	x->n -= n;
}

/* One change of the input, of a kind that breaks texts in interesting ways. */
static void
mutate(struct shared *x)
{
	static const char *const words[] = { "\"", "\\", "{", "}", "[", "]", ",", ":", "\n", "\r", "\r\n", "\n\n", "\\u0000",
		"\\ud83d", "\\u0061", "null", "true", "-", "0", "1e9", "9223372036854775807", "99999999999999999999", "\xef\xbb\xbf",
		"\xff", "\xc3", "data:", "event: ", "\"type\":", "[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":" };
	static const unsigned char bytes[] = { 0, 1, 9, 10, 13, 31, 32, '"', '\\', '/', '0', '{', '}', 127, 128, 255 };
	const struct seed *other = &seeds[dice(seeds_count)];
	size_t at = dice(x->n + 1), n;

	switch (dice(8)) {
	case 0:
		if (at < x->n)
			x->input[at] ^= (unsigned char)(1u << dice(8));
		break;
	case 1:
		if (at < x->n)
			x->input[at] = bytes[dice(sizeof(bytes))];
		break;
	case 2: {
		const char *w = words[dice(sizeof(words) / sizeof(words[0]))];
		insert(x, at, w, strlen(w));
		break;
	}
	case 3:
		cut_out(x, at, dice((x->n - at < 32 ? x->n - at : 32) + 1));
		break;
	case 4: {	/* a part again, somewhere else */
		unsigned char part[64];
		size_t from = dice(x->n + 1);
		n = dice((x->n - from < sizeof(part) ? x->n - from : sizeof(part)) + 1);
		memcpy(part, x->input + from, n);
		insert(x, at, part, n);
		break;
	}
	case 5:		/* on with the end of another seed */
		x->n = at;
		n = dice(other->n + 1);
		insert(x, at, other->p + n, other->n - n);
		break;
	case 6:
		n = dice(other->n + 1);
		insert(x, at, other->p + n, dice(other->n - n + 1));
		break;
	case 7:
		x->n = at;
		break;
	}
}

static void
make_input(struct shared *x)
{
	/* splitmix64: the execution's own start of chance. */
	chance = (x->execution + 1) * UINT64_C(0x9e3779b97f4a7c15);
	chance = (chance ^ chance >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	chance = (chance ^ chance >> 27) | 1;
	const struct seed *s = &seeds[x->execution < seeds_count ? x->execution : dice(seeds_count)];
	memcpy(x->input, s->p, s->n);
	x->n = s->n;
	if (x->execution < seeds_count)
		return;
	for (uint32_t changes = 1 + dice(6); changes > 0; changes--)
		mutate(x);
}

/* The child: executions from x->execution to the last. */
static void
run(struct shared *x, uint64_t executions)
{
	for (; x->execution < executions; x->execution++) {
		make_input(x);
		/* Of exactly its size, so that a byte too many is noticed. */
		unsigned char *copy = malloc(x->n ? x->n : 1);
		if (!copy)
			exit(1);
		memcpy(copy, x->input, x->n);
		alarm(EXECUTION_S_MAX);
		LLVMFuzzerTestOneInput(copy, x->n);
		free(copy);
	}
	alarm(0);
	exit(0);	/* the sanitizer looks for leaks now */
}

static void
keep_input(const struct shared *x, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "crash-%s-%llu", name, (unsigned long long)x->execution);
	FILE *f = fopen(path, "wb");
	if (f) {
		fwrite(x->input, 1, x->n, f);
		fclose(f);
	}
	printf("%s: execution %llu: the input is in %s\n", name, (unsigned long long)x->execution, path);
}

int
main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	uint64_t executions = argc > 2 ? strtoull(argv[2], NULL, 10) : EXECUTIONS;
	struct shared *x = mmap(NULL, sizeof(*x), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned crashes = 0;

	if (argc > 1)
		load_seeds(argv[1]);
	if (x == MAP_FAILED || seeds_count == 0) {
		fprintf(stderr, "usage: %s CORPUS [EXECUTIONS]: a folder with at least one file\n", name);
		return 2;
	}
	x->execution = 0;
	while (x->execution < executions && crashes < CRASHES_MAX) {
		int status = 0;

		fflush(stdout);
		pid_t pid = fork();
		if (pid == 0)
			run(x, executions);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			perror(name);
			return 1;
		}
		if (status != 0) {
			crashes++;
			if (x->execution < executions)
				keep_input(x, name);
			else
				printf("%s: memory is left over at the end\n", name);
			x->execution++;
		}
	}
	printf("%s: %llu executions, %u crashes\n", name,
	    (unsigned long long)(x->execution < executions ? x->execution : executions), crashes);
	for (size_t i = 0; i < seeds_count; i++)
		free(seeds[i].p);
	return crashes > 0;
}
