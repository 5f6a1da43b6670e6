/*
 * tests/unit/settings_fixture.h -- a folder with certificates, and settings
 * loaded from a file in it.
 */
#ifndef WEIR_TESTS_UNIT_SETTINGS_FIXTURE_H
#define WEIR_TESTS_UNIT_SETTINGS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "certificates.h"
#include "gateway/settings_fields.h"

static char folder[] = "/tmp/weir-test-settings-XXXXXX";

static inline const char *
in_folder(const char *name)
{
	static char path[4][256];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
	return p;
}

static inline const char *
write_text(const char *name, const char *text)
{
	const char *path = in_folder(name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
	return path;
}

static inline char *
read_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1u << 20);

	if (!f)
		fail_msg("cannot open %s", path);
	assert_non_null(text);
	size_t n = fread(text, 1, (1u << 20) - 1, f);
	assert_true(n > 0);
	fclose(f);
	return text;
}

static inline void
run(const char *const argv[])
{
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int status;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	assert_int_equal(posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("%s: status %d", argv[0], status);
}

static inline void
write_certificate(struct pki *pki, const char *certificate, const char *key, const char *until)
{
	struct pair pair;

	pki_issue(pki, &pair, "localhost", LONG_AGO, until);
	write_text(certificate, pair.cert);
	write_text(key, pair.key);
}

static inline int
set_up(void **state)
{
	(void)state;
	struct pki pki;

	if (!mkdtemp(folder))
		return -1;
	pki_init(&pki);
	write_text("ca.pem", pki.ca);
	write_certificate(&pki, "weir.pem", "weir.key", FAR_AWAY);
	write_certificate(&pki, "other.pem", "other.key", FAR_AWAY);
	write_certificate(&pki, "old.pem", "old.key", LAST_YEAR);
	pki_free(&pki);
	setenv("HOME", folder, 1);
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("ANTHROPIC_API_KEY");
	return 0;
}

static inline int
tear_down(void **state)
{
	(void)state;
	const char *const argv[] = { "rm", "-rf", folder, NULL };

	run(argv);
	return 0;
}

struct loaded {
	struct buf bundle;
	struct problems problems;
	struct settings *s;	/* NULL: see problems */
};

static inline struct loaded
load_with(const char *path, const struct settings_overrides *o)
{
	struct loaded l;

	buf_init(&l.bundle, SETTINGS_BUNDLE_BYTES_MAX);
	problems_init(&l.problems);
	l.s = NULL;
	if (settings_load_with(path, o, &l.bundle, &l.problems)) {
		assert_int_equal(l.problems.count, 0);
		l.s = settings_compile(buf_slice(&l.bundle), 1, &l.problems);
		assert_non_null(l.s);	/* what was loaded has no mistakes any more */
	} else {
		assert_true(l.problems.count > 0);
	}
	return l;
}

static inline struct loaded
load(const char *json)
{
	return load_with(write_text("settings.json", json), NULL);
}

static inline void
done(struct loaded *l)
{
	settings_put(l->s);
	buf_free(&l->bundle);
	problems_free(&l->problems);
}

static inline struct loaded
accepted(const char *json)
{
	struct loaded l = load(json);

	if (!l.s)
		fail_msg("%s:\n%.*s", json, SLICE_FMT(buf_slice(&l.problems.text)));
	return l;
}

/* Refused, with exactly these lines; "%" stands for the test's folder. */
static inline void
refuse(const char *json, const char *lines)
{
	struct loaded l = load(json);
	char expected[4096];
	size_t n = 0;

	for (const char *p = lines; *p; p++)
		n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%.*s", *p == '%' ? (int)strlen(folder) : 1,
		    *p == '%' ? folder : p);
	if (l.s)
		fail_msg("accepted: %s", json);
	if (!slice_eq(buf_slice(&l.problems.text), (struct slice){ expected, n }))
		fail_msg("%s:\n%.*sbut expected:\n%s", json, SLICE_FMT(buf_slice(&l.problems.text)), expected);
	done(&l);
}

#endif
