/*
 * gateway/settings_resolve.c -- ${NAME}, file: and files become their contents.
 *
 * One pass over the text, which json_check() has found valid: everything is
 * copied as it stands (numbers keep their digits) except strings that refer to
 * something else. The pass keeps the path of each value, for messages and to
 * know from its row (settings_fields.c) whether a string is a file's name.
 *
 *	${NAME}			in any string: an environment variable
 *	${NAME:-words}		the same, or `words` if it is not set or empty
 *	$${			the two characters "${"
 *	file:PATH		api_key: the file's first line, without its end
 *	certificate, key, *_file	PEM files
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/settings_fields.h"
#include "policy/json.h"

#define DEPTH_MAX 64			/* our own nesting is 3; the rest is for override_params */
#define STRING_BYTES_MAX 65536		/* of a string with its variables put in */
#define SECRET_BYTES_MAX 65536		/* of a secret's file */
#define PEM_BYTES_MAX (1u << 20)	/* a system's CA bundle has about 220 KB */

struct nesting {
	bool object;
	uint32_t index;			/* of the element at hand */
	size_t path_n, generic_n;	/* lengths of the container's own paths */
};

struct resolver {
	const char *p, *end;
	const char *folder;
	struct buf *out;
	struct buf path, generic;	/* of the value at hand */
	struct problems *problems;
	uint32_t depth;
	struct nesting levels[DEPTH_MAX];
};

bool
settings_read_file(const char *path, size_t max, struct buf *out, const char **why)
{
	struct stat st;
	ssize_t n = 0;
	int fd = -1;

	/* Looked at before it is opened: to open a device may do something. */
	buf_init(out, max + 1);
	*why = NULL;
	if (stat(path, &st) != 0)
		*why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		*why = S_ISDIR(st.st_mode) ? "it is a folder" : "it is not a regular file";
	else if (st.st_size > (off_t)max)
		*why = "it is too large";
	else if ((fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)) < 0)
		*why = strerror(errno);
	else if (!buf_reserve(out, (size_t)st.st_size + 1))	/* grown, it would leave copies of a key behind */
		*why = "it does not fit into memory";
	while (!*why) {
		char piece[4096];

		n = read(fd, piece, sizeof(piece));
		if (n == 0)
			break;
		if (n < 0 && errno == EINTR)
			continue;
		if (n > 0)
			buf_add(out, piece, (size_t)n);
		if (n < 0)
			*why = strerror(errno);
		else if (out->overflow || out->n > max)
			*why = "it is too large";
		explicit_bzero(piece, sizeof(piece));	/* it may be a key */
	}
	if (fd >= 0)
		close(fd);
	return !*why;
}

/* ---- paths ---- */

static const char *
path_of(const struct resolver *r)
{
	return r->path.p ? r->path.p : "";
}

static void
path_cut(struct buf *path, size_t n)
{
	if (!path->p)
		return;
	path->n = n;
	path->p[n] = '\0';
}

static void
path_set(struct resolver *r, struct slice name)
{
	struct nesting *level = &r->levels[r->depth - 1];

	path_cut(&r->path, level->path_n);
	path_cut(&r->generic, level->generic_n);
	if (level->object) {
		buf_printf(&r->path, "%s%s", level->path_n ? "." : "", problem_name(name).text);
		buf_printf(&r->generic, "%s%.*s", level->generic_n ? "." : "", SLICE_FMT(name));
	} else {
		buf_printf(&r->path, "[%u]", level->index);
		buf_printf(&r->generic, "[]");	/* which leaves room for path_cut()'s NUL */
	}
}

/* ---- strings ---- */

static bool
name_byte(char c, bool first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* One ${...} at *at, which is moved behind it. false: a problem was added. */
static bool
variable_take(struct resolver *r, const char **at, struct buf *out)
{
	const char *name = *at + 2, *p = name;
	char text[128];

	while (name_byte(*p, p == name))
		p++;
	size_t n = (size_t)(p - name);
	const char *close = strchr(p, '}');
	bool fallback = p[0] == ':' && p[1] == '-';
	if (n == 0 || n >= sizeof(text) || !close || (!fallback && p != close)) {
		problem_add(r->problems, path_of(r), "a reference must be ${NAME} or ${NAME:-default}; "
		    "write $${ for the characters \"${\"");
		return false;
	}
	memcpy(text, name, n);
	text[n] = '\0';
	*at = close + 1;

	const char *value = getenv(text);
	if (value && (value[0] || !fallback)) {
		buf_add_str(out, value);
	} else if (fallback) {
		buf_add(out, p + 2, (size_t)(close - p) - 2);
	} else {
		problem_add(r->problems, path_of(r), "the environment variable %s is not set: set it, or write "
		    "${%s:-default}", text, text);
		return false;
	}
	return true;
}

/* `text` with its variables put in. false: a problem was added. */
static bool
expand(struct resolver *r, const char *text, struct buf *out)
{
	for (const char *p = text; *p;) {
		if (p[0] == '$' && p[1] == '$' && p[2] == '{') {
			buf_add(out, "${", 2);
			p += 3;
		} else if (p[0] == '$' && p[1] == '{') {
			if (!variable_take(r, &p, out))
				return false;
		} else {
			buf_add_char(out, *p++);
		}
	}
	buf_add_char(out, '\0');
	if (!out->overflow)
		return true;
	problem_add(r->problems, path_of(r), "more than %d bytes", STRING_BYTES_MAX);
	return false;
}

static bool
file_take(struct resolver *r, const char *name, size_t max, struct buf *content)
{
	char path[4096];
	const char *why;
	int n = snprintf(path, sizeof(path), "%s%s%s", name[0] == '/' ? "" : r->folder, name[0] == '/' ? "" : "/", name);

	if (name[0] == '\0' || n >= (int)sizeof(path)) {
		buf_init(content, 0);
		problem_add(r->problems, path_of(r), name[0] ? "the path is too long" : "must name a file");
		return false;
	}
	if (!settings_read_file(path, max, content, &why)) {
		problem_add(r->problems, path_of(r), "cannot read %s: %s", path, why);
		return false;
	}
	if (content->n == 0 || memchr(content->p, '\0', content->n)) {
		problem_add(r->problems, path_of(r), "%s %s", path, content->n ? "is not a text file" : "is empty");
		return false;
	}
	return true;
}

/* file:PATH of a secret: what editors put behind it is not part of it. */
static bool
secret_add(struct resolver *r, const char *name)
{
	struct buf content;
	bool ok = file_take(r, name, SECRET_BYTES_MAX, &content);

	if (ok) {
		struct slice s = buf_slice(&content);

		while (s.n > 0 && strchr(" \t\r\n", s.p[s.n - 1]))
			s.n--;
		buf_add_json(r->out, s);
	}
	if (content.p)
		explicit_bzero(content.p, content.cap);
	buf_free(&content);
	return ok;
}

/* PEM is ASCII; what else a file holds are comments, of any encoding. */
static bool
pem_add(struct resolver *r, const char *name)
{
	struct buf content;
	bool ok = file_take(r, name, PEM_BYTES_MAX, &content);

	if (ok) {
		for (size_t i = 0; i < content.n; i++)
			if ((unsigned char)content.p[i] >= 0x7f)
				content.p[i] = '?';
		buf_add_json(r->out, buf_slice(&content));
	}
	if (content.p)
		explicit_bzero(content.p, content.cap);
	buf_free(&content);
	return ok;
}

static bool
string_add(struct resolver *r, const struct setting_field *row, const char *text)
{
	enum setting_kind kind = row ? row->kind : SETTING_STRING;

	if (kind == SETTING_SECRET && strncmp(text, "file:", 5) == 0)
		return secret_add(r, text + 5);
	if (kind == SETTING_FILE)
		return pem_add(r, strncmp(text, "file:", 5) == 0 ? text + 5 : text);
	if (kind == SETTING_DIR && text[0] != '/' && text[0] != '\0') {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", r->folder, text);
		buf_add_json(r->out, slice_of(path));
		return true;
	}
	buf_add_json(r->out, slice_of(text));
	return true;
}

static void
string_resolve(struct resolver *r, struct slice raw)
{
	const struct setting_field *row = setting_field_find(buf_slice(&r->generic));
	bool refers = row && (row->kind == SETTING_SECRET || row->kind == SETTING_FILE || row->kind == SETTING_DIR);
	char *text = malloc(raw.n + 1);
	struct buf expanded;

	CHECK(text);
	size_t n = json_unescape(raw, text, raw.n + 1);
	bool whole = n <= raw.n && !memchr(text, '\0', n);	/* else: settings_compile() says what is wrong */
	buf_init(&expanded, STRING_BYTES_MAX);
	if (!whole || (!refers && !strstr(text, "${")))
		buf_add_slice(r->out, raw);
	else if (!expand(r, text, &expanded) || !string_add(r, row, expanded.p))
		buf_add_str(r->out, "null");
	explicit_bzero(text, raw.n + 1);
	free(text);
	if (expanded.p)
		explicit_bzero(expanded.p, expanded.cap);
	buf_free(&expanded);
}

/* ---- the pass ---- */

static struct slice
string_span(struct resolver *r)
{
	const char *start = r->p++;

	while (*r->p != '"')
		r->p += *r->p == '\\' ? 2 : 1;
	r->p++;
	return (struct slice){ start, (size_t)(r->p - start) };
}

static bool
container_open(struct resolver *r)
{
	if (r->depth == DEPTH_MAX) {
		problem_add(r->problems, path_of(r), "nested deeper than %d levels", DEPTH_MAX);
		return false;
	}
	r->levels[r->depth++] = (struct nesting){ *r->p == '{', 0, r->path.n, r->generic.n };
	buf_add_char(r->out, *r->p++);
	if (!r->levels[r->depth - 1].object)
		path_set(r, SLICE_NONE);
	return true;
}

/* Within prices and configs null may have a meaning; ours have none. */
static void
null_take(struct resolver *r)
{
	struct slice path = buf_slice(&r->generic);

	if (!r->levels[r->depth - 1].object)
		path.n = r->levels[r->depth - 1].generic_n;	/* an element: its list decides */
	if (setting_field_find(path))
		problem_add(r->problems, path_of(r), "must not be null: leave it out");
}

/* The next piece of the text. false: no use in going on. */
static bool
piece(struct resolver *r, bool *name_next)
{
	struct nesting *level = r->depth > 0 ? &r->levels[r->depth - 1] : NULL;
	char c = *r->p;

	if (c == '"' && level && level->object && *name_next) {
		struct slice raw = string_span(r);

		buf_add_slice(r->out, raw);
		path_set(r, (struct slice){ raw.p + 1, raw.n - 2 });
		*name_next = false;
		return true;
	}
	if (c == '"') {
		string_resolve(r, string_span(r));
		return true;
	}
	if (c == '{' || c == '[') {
		*name_next = c == '{';
		return container_open(r);
	}
	if (c == '}' || c == ']') {
		path_cut(&r->path, level->path_n);
		path_cut(&r->generic, level->generic_n);
		r->depth--;
	} else if (c == ',') {
		*name_next = level->object;
		level->index++;
		if (!level->object)
			path_set(r, SLICE_NONE);
	} else if (c == 'n') {
		if (level)
			null_take(r);
		buf_add_str(r->out, "null");
		r->p += 4;
		return true;
	}
	if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
		buf_add_char(r->out, c);
	r->p++;
	return true;
}

bool
settings_resolve(struct slice json, const char *folder, struct buf *out, struct problems *p)
{
	struct resolver r = { .p = json.p, .end = json.p + json.n, .folder = folder, .out = out, .problems = p };
	bool name_next = false, ok = true;

	buf_init(&r.path, 16384);
	buf_init(&r.generic, json.n + 4 * DEPTH_MAX);
	while (ok && r.p < r.end)
		ok = piece(&r, &name_next);
	buf_free(&r.path);
	buf_free(&r.generic);
	if (out->overflow) {
		problem_add(p, "", "with the files that it names, it has more than %zu bytes", out->max);
		ok = false;
	}
	return ok;
}
