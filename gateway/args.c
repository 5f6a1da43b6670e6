/* gateway/args.c -- see args.h. */
#include "gateway/args.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/settings.h"
#include "shm/base/clock.h"

#define DECIMALS 9	/* of a dollar, of a second: nanos */

int
args_mistake(const char *command, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "weir: %s: ", command);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return ARGS_MISTAKE;
}

/* The row for "name" or "name=value"; *value behind the "=", or NULL. */
static const struct arg *
find(const struct args *a, const char *word, const char **value)
{
	size_t n = strcspn(word, "=");

	*value = word[n] == '=' ? word + n + 1 : NULL;
	for (size_t i = 0; i < a->count; i++)
		if (strlen(a->list[i].name) == n && strncmp(a->list[i].name, word, n) == 0)
			return &a->list[i];
	return NULL;
}

static int
take(const struct args *a, const struct arg *arg, const char *value)
{
	struct arg_many *many = arg->into;

	switch (arg->kind) {
	case ARG_FLAG:
		*(bool *)arg->into = true;
		break;
	case ARG_TEXT:
		if (*(const char **)arg->into)
			return args_mistake(a->command, "--%s is given twice", arg->name);
		*(const char **)arg->into = value;
		break;
	case ARG_MANY:
		if (many->count == ARGS_MANY_MAX)
			return args_mistake(a->command, "--%s is given more than %d times", arg->name, ARGS_MANY_MAX);
		many->text[many->count++] = value;
		break;
	}
	return ARGS_GO;
}

int
args_parse(const struct args *a, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const struct arg *arg;
		const char *value;
		int status;

		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(a->usage, stdout);
			return 0;
		}
		if (argv[i][0] != '-') {
			if (!a->operand || *a->operand)
				return args_mistake(a->command, "unexpected argument \"%s\"; see: weir %s --help", argv[i], a->command);
			*a->operand = argv[i];
			continue;
		}
		arg = strncmp(argv[i], "--", 2) == 0 ? find(a, argv[i] + 2, &value) : NULL;
		if (!arg)
			return args_mistake(a->command, "there is no option %s; see: weir %s --help", argv[i], a->command);
		if (arg->kind == ARG_FLAG && value)
			return args_mistake(a->command, "--%s takes no value", arg->name);
		if (arg->kind != ARG_FLAG && !value) {
			if (++i == argc)
				return args_mistake(a->command, "--%s needs a value; see: weir %s --help", arg->name, a->command);
			value = argv[i];
		}
		status = take(a, arg, value);
		if (status != ARGS_GO)
			return status;
	}
	return ARGS_GO;
}

bool
args_count(const char *text, int64_t least, int64_t most, int64_t *out)
{
	return slice_to_i64(slice_of(text), out) && *out >= least && *out <= most;
}

/* Up to nine decimals, as nanos of the unit. */
static bool
decimal(const char *text, int64_t *nanos)
{
	int64_t value = 0;
	int decimals = -1;	/* -1: before the point */
	bool digits = false;

	for (const char *p = text; *p; p++) {
		if (*p == '.' && decimals < 0 && digits) {
			decimals = 0;
			continue;
		}
		if (*p < '0' || *p > '9' || decimals == DECIMALS)
			return false;
		digits = true;
		if (decimals >= 0)
			decimals++;
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p - '0', &value))
			return false;
	}
	if (!digits || decimals == 0)
		return false;
	for (int i = decimals < 0 ? 0 : decimals; i < DECIMALS; i++)
		if (__builtin_mul_overflow(value, 10, &value))
			return false;
	*nanos = value;
	return true;
}

bool
args_usd(const char *text, int64_t *nusd)
{
	return decimal(*text == '$' ? text + 1 : text, nusd);
}

bool
args_seconds(const char *text, int64_t least_ns, int64_t most_ns, int64_t *ns)
{
	return decimal(text, ns) && *ns >= least_ns && *ns <= most_ns;
}

bool
args_duration(const char *text, int64_t *ns)
{
	static const struct { char unit; int64_t seconds; } units[] = {
		{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 },
	};
	size_t n = strlen(text);
	int64_t count;

	*ns = 0;
	if (strcmp(text, "0") == 0)
		return true;
	if (n < 2 || !slice_to_i64((struct slice){ text, n - 1 }, &count) || count < 0)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (text[n - 1] == units[i].unit)
			return !__builtin_mul_overflow(count, units[i].seconds * NS_PER_S, ns);
	return false;
}

/* One line for all that is wrong with a settings file: the first mistake. */
static int
settings_mistake(const char *command, const char *config, const struct problems *p)
{
	struct slice text = buf_slice(&p->text);
	const char *end = memchr(text.p, '\n', text.n);

	if (end)
		text.n = (size_t)(end - text.p);
	if (p->count > 1)
		return args_mistake(command, "%s: %.*s (and %u more; see: weir check %s)", config ? config : "settings",
		    SLICE_FMT(text), p->count - 1, config ? config : "FILE");
	return args_mistake(command, "%s: %.*s", config ? config : "settings", SLICE_FMT(text));
}

static int
settings_read(const char *command, const struct args_store *s, struct settings **settings)
{
	struct settings_overrides overrides = { .data_dir = s->data_dir, .run_dir = s->run_dir };
	struct problems problems;
	struct buf bundle;
	int status = ARGS_GO;

	*settings = NULL;
	problems_init(&problems);
	buf_init(&bundle, SETTINGS_BUNDLE_BYTES_MAX);
	if (settings_load_with(s->config, &overrides, &bundle, &problems))
		*settings = settings_compile(buf_slice(&bundle), 1, &problems);
	if (!*settings)
		status = settings_mistake(command, s->config, &problems);
	if (bundle.n > 0)
		explicit_bzero(bundle.p, bundle.n);	/* it holds the providers' secrets */
	buf_free(&bundle);
	problems_free(&problems);
	return status;
}

static int
become_owner(const char *command, const char *folder)
{
	struct stat st;

	if (geteuid() != 0 || stat(folder, &st) != 0 || st.st_uid == 0)
		return ARGS_GO;
	if (setgroups(0, NULL) != 0 || setresgid(st.st_gid, st.st_gid, st.st_gid) != 0 ||
	    setresuid(st.st_uid, st.st_uid, st.st_uid) != 0) {
		fprintf(stderr, "weir: %s: cannot become the owner of %s: %s\n", command, folder, strerror(errno));
		return 1;
	}
	return ARGS_GO;
}

static int
folder_copy(const char *command, const char *option, const char *folder, char out[PATH_MAX])
{
	int n = snprintf(out, PATH_MAX, "%s", folder);

	return n > 0 && n < PATH_MAX ? ARGS_GO : args_mistake(command, "%s: the name of a folder is expected", option);
}

/* Settings are for who named a file of them. */
static void
settings_forget(const struct args_store *s, struct settings **settings)
{
	if (s->config || !*settings)
		return;
	settings_put(*settings);
	*settings = NULL;
}

int
args_store_find(const char *command, struct args_store *s, struct settings **settings)
{
	const char *folder = s->data_dir;
	int status = ARGS_GO;

	*settings = NULL;
	if (!folder || s->config) {
		status = settings_read(command, s, settings);
		if (status != ARGS_GO)
			return status;
		folder = (*settings)->data_dir;
	}
	status = folder_copy(command, "--data-dir", folder, s->folder);
	settings_forget(s, settings);
	return status == ARGS_GO ? become_owner(command, s->folder) : status;
}

int
args_run_find(const char *command, struct args_store *s, struct settings **settings)
{
	int status = settings_read(command, s, settings);

	if (status != ARGS_GO)
		return status;
	status = folder_copy(command, "--data-dir", (*settings)->data_dir, s->folder);
	if (status == ARGS_GO)
		status = folder_copy(command, "--run-dir", (*settings)->run_dir, s->run_folder);
	settings_forget(s, settings);
	if (status == ARGS_GO)
		status = become_owner(command, access(s->run_folder, F_OK) == 0 ? s->run_folder : s->folder);
	return status;
}
