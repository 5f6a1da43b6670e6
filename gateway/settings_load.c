/*
 * gateway/settings_load.c -- the settings file becomes a bundle.
 *
 * Everything that depends on this machine happens here and only here: the
 * file, the files that it names, the environment, the number of cores, the
 * limit of descriptors, the certificate's dates. What is compiled from the
 * bundle afterwards is the same in every process, now and after a restart.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"
#include "upstream/wire/tls.h"

#define SETTINGS_FILE_BYTES_MAX (4u << 20)
#define CONNECTIONS_DEFAULT 20000	/* a worker */
#define DESCRIPTORS_RESERVED 256	/* listeners, arena, LMDB, pipes, idle upstreams */

/* ---- what the machine offers ---- */

static uint32_t
cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (uint32_t)n;
}

/* A client's connection may need a second one, to its provider. */
static uint32_t
connections(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max == RLIM_INFINITY)
		return CONNECTIONS_DEFAULT;
	rlim_t room = limit.rlim_max > DESCRIPTORS_RESERVED ? (limit.rlim_max - DESCRIPTORS_RESERVED) / 2 : 1;
	return room < CONNECTIONS_DEFAULT ? (uint32_t)(room ? room : 1) : CONNECTIONS_DEFAULT;
}

static void
add_folder(struct buf *out, const char *name, const char *base, const char *rest)
{
	char path[PATH_MAX];

	if (!base || base[0] != '/' || (size_t)snprintf(path, sizeof(path), "%s%s", base, rest) >= sizeof(path))
		return;
	buf_printf(out, ",\"%s\":", name);
	buf_add_json(out, slice_of(path));
}

static void
add_host(struct buf *out)
{
	buf_printf(out, "{\"workers\":%u,\"limits\":{\"connections\":%u}", cores(), connections());
	if (geteuid() == 0) {
		add_folder(out, "data_dir", "/var/lib", "/weir");
		add_folder(out, "run_dir", "/run", "/weir");
	} else {
		const char *state = getenv("XDG_STATE_HOME");

		if (state && state[0] == '/')
			add_folder(out, "data_dir", state, "/weir");
		else
			add_folder(out, "data_dir", getenv("HOME"), "/.local/state/weir");
		add_folder(out, "run_dir", getenv("XDG_RUNTIME_DIR"), "/weir");
	}
	buf_add_char(out, '}');
}

/* ---- the command line ---- */

static void
add_member(struct buf *out, const char *before, const char *text, const char *after)
{
	if (out->p[out->n - 1] != '{')
		buf_add_char(out, ',');
	buf_add_str(out, before);
	buf_add_json(out, slice_of(text));
	buf_add_str(out, after);
}

static void
add_working_folder(struct buf *out, const char *before, const char *path)
{
	char here[PATH_MAX], whole[2 * PATH_MAX];

	if (!path)
		return;
	if (path[0] == '/' || path[0] == '\0' || !getcwd(here, sizeof(here)))
		snprintf(whole, sizeof(whole), "%s", path);
	else
		snprintf(whole, sizeof(whole), "%s/%s", here, path);
	add_member(out, before, whole, "");
}

static void
add_overrides(struct buf *out, const struct settings_overrides *o)
{
	buf_add_char(out, '{');
	if (o->listen)
		add_member(out, "\"listen\":[", o->listen, "]");
	if (o->admin_listen)
		add_member(out, "\"admin\":{\"listen\":", o->admin_listen, "}");
	add_working_folder(out, "\"data_dir\":", o->data_dir);
	add_working_folder(out, "\"run_dir\":", o->run_dir);
	if (o->user)
		add_member(out, "\"user\":", o->user, "");
	if (o->workers > 0)
		buf_printf(out, "%s\"workers\":%u", out->p[out->n - 1] == '{' ? "" : ",", o->workers);
	buf_add_char(out, '}');
}

/* ---- the file ---- */

/* Without a file: one provider, if its key is at hand. */
static void
add_no_file(struct buf *out)
{
	const char *key = getenv("ANTHROPIC_API_KEY");

	if (key && key[0]) {
		buf_add_str(out, "{\"providers\":[{\"slug\":\"anthropic\",\"api_key\":");
		buf_add_json(out, slice_of(key));
		buf_add_str(out, "}]}");
	} else {
		buf_add_str(out, "{}");
	}
}

/* Where people look for a byte: line and column, from 1; a character is one column. */
static void
syntax_problem(struct slice text, const struct json_error *why, struct problems *p)
{
	size_t line = 1, column = 1;

	for (size_t i = 0; i < why->offset && i < text.n; i++) {
		if (text.p[i] == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)text.p[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	problem_add(p, "", "line %zu, column %zu: %s", line, column, why->what);
}

/* The folder of a file, absolute. */
static bool
folder_of(const char *path, char *out, size_t size)
{
	char *whole = realpath(path, NULL);

	if (!whole)
		return false;
	char *slash = strrchr(whole, '/');
	*slash = '\0';
	bool fits = (size_t)snprintf(out, size, "%s", whole[0] ? whole : "/") < size;
	free(whole);
	return fits;
}

static bool
add_file(const char *path, struct buf *bundle, struct problems *p)
{
	struct buf content;
	struct json_error error;
	char folder[PATH_MAX];
	const char *why;
	bool ok = false;

	if (!settings_read_file(path, SETTINGS_FILE_BYTES_MAX, &content, &why)) {
		problem_add(p, "", "cannot read the settings: %s", why);
	} else if (!folder_of(path, folder, sizeof(folder))) {
		problem_add(p, "", "cannot read the settings: %s", strerror(errno));
	} else {
		struct slice text = buf_slice(&content);

		if (slice_starts(text, SLICE("\xef\xbb\xbf")))	/* some editors put it there */
			text = (struct slice){ text.p + 3, text.n - 3 };
		while (text.n > 0 && memchr(" \t\r\n", text.p[text.n - 1], 4))
			text.n--;
		if (!json_check(text, &error))
			syntax_problem(text, &error, p);
		else
			ok = settings_resolve(text, folder, bundle, p);
	}
	if (content.p)
		explicit_bzero(content.p, content.cap);
	buf_free(&content);
	return ok;
}

/* ---- checks that need the machine ---- */

static void
check_certificate(const struct settings *s, struct problems *p)
{
	char why[256];

	if (s->tls_cert_pem && tls_check_pair(slice_of(s->tls_cert_pem), slice_of(s->tls_key_pem), why, sizeof(why)) != 0)
		problem_add(p, "tls.certificate", "%s", why);
}

bool
settings_load_with(const char *path, const struct settings_overrides *o, struct buf *bundle, struct problems *p)
{
	static const struct settings_overrides none;
	uint32_t before = p->count;
	bool whole = true;

	buf_clear(bundle);
	buf_add_str(bundle, "{\"host\":");
	add_host(bundle);
	buf_add_str(bundle, ",\"file\":");
	if (path)
		whole = add_file(path, bundle, p);
	else
		add_no_file(bundle);
	if (!whole)
		return false;	/* nothing that could be looked at further */
	buf_add_str(bundle, ",\"command_line\":");
	add_overrides(bundle, o ? o : &none);
	buf_add_char(bundle, '}');

	struct settings *s = settings_compile(buf_slice(bundle), 0, p);
	if (s)
		check_certificate(s, p);
	settings_put(s);
	return p->count == before;
}

bool
settings_load(const char *path, struct buf *bundle, struct problems *p)
{
	return settings_load_with(path, NULL, bundle, p);
}
