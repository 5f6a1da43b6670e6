/*
 * gateway/cmd_logs.c -- weir logs: the records of requests, from the store.
 *
 * Records are read in the order in which they were committed, which is the
 * order of their ids; --since and --follow seek by id. Nothing is asked of a
 * running weir: a reader of LMDB disturbs nobody.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/settings.h"
#include "gateway/tool_text.h"
#include "policy/json.h"
#include "shm/base/clock.h"
#include "store/records.h"

#define FOLLOW_MS 100
#define LIMIT_MAX 10000000
#define LINE_BYTES_MAX (1 << 20)
#define WHY_BYTES 512

static const char usage[] =
    "usage: weir logs [--since TIME] [--where NAME=VALUE]... [--limit N] [--follow | --sum] [--json]\n"
    "                 [--config FILE | --data-dir DIR]\n"
    "  --since    of the end of a request: 2026-11-23T18:00:00Z, or how long ago: 10m, 2h, 3d\n"
    "  --where    a field of the record, status, outcome, route, or metadata.NAME; several: all hold\n"
    "  --limit    the newest N of them\n"
    "  --follow   go on with records as they come\n"
    "  --sum      one JSON object: count, tokens by class, cost\n"
    "  --json     one JSON object a line\n";

/* ---- fields ---- */

/* What --where can name beside status, outcome and metadata.NAME. */
static const struct {
	const char *name;
	size_t offset;
} fields[] = {
#define X(name) { #name, offsetof(struct record, name) },
	RECORD_STRINGS(X)
#undef X
};
#define FIELDS_COUNT (sizeof(fields) / sizeof(*fields))

enum filter_kind { FILTER_STRING, FILTER_STATUS, FILTER_OUTCOME, FILTER_METADATA };

struct filter {
	enum filter_kind kind;
	size_t offset;			/* STRING */
	char name[METADATA_KEY_BYTES_MAX + 1];	/* METADATA */
	const char *value;
	int64_t number;			/* STATUS, OUTCOME */
};

/* "route_name" is "route" to people; metadata is asked for by its names. */
static const char *
field_name(size_t i)
{
	if (fields[i].offset == offsetof(struct record, metadata))
		return NULL;
	return fields[i].offset == offsetof(struct record, route_name) ? "route" : fields[i].name;
}

static int
unknown_field(struct slice name)
{
	struct buf known;
	int status;

	buf_init(&known, 4096);
	for (size_t i = 0; i < FIELDS_COUNT; i++)
		if (field_name(i))
			buf_printf(&known, "%s, ", field_name(i));
	status = args_mistake("logs", "--where: there is no field \"%.*s\"; there are: status, outcome, %.*smetadata.NAME",
	    SLICE_FMT(name), SLICE_FMT(buf_slice(&known)));
	buf_free(&known);
	return status;
}

static int
outcome_filter(struct filter *f)
{
	struct buf known;
	int status;

	for (uint32_t i = 0; i < OUTCOME_COUNT; i++) {
		if (strcmp(f->value, record_outcome_name(i)) == 0) {
			f->number = i;
			return ARGS_GO;
		}
	}
	buf_init(&known, 1024);
	for (uint32_t i = 0; i < OUTCOME_COUNT; i++)
		buf_printf(&known, "%s%s", i ? ", " : "", record_outcome_name(i));
	status = args_mistake("logs", "--where outcome: one of %.*s is expected, not \"%s\"",
	    SLICE_FMT(buf_slice(&known)), f->value);
	buf_free(&known);
	return status;
}

static int
filter_parse(const char *text, struct filter *f)
{
	static const struct slice metadata = { "metadata.", 9 };
	const char *equals = strchr(text, '=');
	struct slice name;

	if (!equals)
		return args_mistake("logs", "--where: NAME=VALUE is expected, not \"%s\"", text);
	name = (struct slice){ text, (size_t)(equals - text) };
	*f = (struct filter){ .value = equals + 1 };
	if (slice_eq(name, SLICE("status"))) {
		f->kind = FILTER_STATUS;
		return args_count(f->value, 0, 999, &f->number) ? ARGS_GO
		    : args_mistake("logs", "--where status: a number is expected, not \"%s\"", f->value);
	}
	if (slice_eq(name, SLICE("outcome"))) {
		f->kind = FILTER_OUTCOME;
		return outcome_filter(f);
	}
	if (slice_starts(name, metadata) && name.n > metadata.n && name.n - metadata.n < sizeof(f->name)) {
		f->kind = FILTER_METADATA;
		memcpy(f->name, name.p + metadata.n, name.n - metadata.n);
		return ARGS_GO;
	}
	f->kind = FILTER_STRING;
	for (size_t i = 0; i < FIELDS_COUNT; i++) {
		if (field_name(i) && slice_eq(name, slice_of(field_name(i)))) {
			f->offset = fields[i].offset;
			return ARGS_GO;
		}
	}
	return unknown_field(name);
}

static bool
filter_holds(const struct filter *f, const struct record *r)
{
	struct slice value;

	switch (f->kind) {
	case FILTER_STATUS:
		return r->fixed.status == f->number;
	case FILTER_OUTCOME:
		return r->fixed.outcome == f->number;
	case FILTER_METADATA:
		return json_get(r->metadata, f->name, &value) && json_string_eq(value, f->value);
	case FILTER_STRING:
		break;
	}
	memcpy(&value, (const char *)r + f->offset, sizeof(value));
	return slice_eq(value, slice_of(f->value));
}

/* ---- the command ---- */

struct logs {
	struct args_store store;
	const char *since, *limit;
	struct arg_many where;
	bool json, follow, sum;

	struct reader *reader;
	struct filter filter[ARGS_MANY_MAX];
	uint64_t from_id, to_id;
	int64_t limit_count;		/* 0: none */
	bool output_failed;
	int output_errno;
	struct buf line;

	uint64_t *tail;			/* ids of the newest matches, a ring of limit_count */
	uint64_t matches, next_id;	/* next_id: behind the last record that was seen */

	uint64_t count;			/* --sum */
	int64_t tokens[TOKENS_CLASSES], cost_nusd;
};

static int
logs_parse(struct logs *l, int argc, char **argv)
{
	const struct arg list[] = {
		{ "since", ARG_TEXT, &l->since }, { "where", ARG_MANY, &l->where }, { "limit", ARG_TEXT, &l->limit },
		{ "follow", ARG_FLAG, &l->follow }, { "sum", ARG_FLAG, &l->sum }, { "json", ARG_FLAG, &l->json },
		{ "config", ARG_TEXT, &l->store.config }, { "data-dir", ARG_TEXT, &l->store.data_dir },
	};
	const struct args args = { "logs", usage, list, sizeof(list) / sizeof(*list), NULL };
	int64_t ns;
	int status = args_parse(&args, argc, argv);

	for (uint32_t i = 0; i < l->where.count && status == ARGS_GO; i++)
		status = filter_parse(l->where.text[i], &l->filter[i]);
	if (status != ARGS_GO)
		return status;
	if (l->sum && l->follow)
		return args_mistake("logs", "--sum and --follow exclude each other");
	if (l->limit && !args_count(l->limit, 1, LIMIT_MAX, &l->limit_count))
		return args_mistake("logs", "--limit: a whole number from 1 to %d is expected, not \"%s\"", LIMIT_MAX, l->limit);
	if (!l->since)
		return ARGS_GO;
	if (args_duration(l->since, &ns))
		ns = clock_wall_ns() - ns;
	else if (!clock_parse_utc(slice_of(l->since), &ns))
		return args_mistake("logs", "--since: 2026-11-23T18:00:00Z, or 10m, 2h, 3d is expected, not \"%s\"", l->since);
	l->from_id = ns > 0 ? (uint64_t)ns : 0;
	return ARGS_GO;
}

static bool
matches(const struct logs *l, const struct record *r)
{
	for (uint32_t i = 0; i < l->where.count; i++)
		if (!filter_holds(&l->filter[i], r))
			return false;
	return true;
}

/* ---- output ---- */

static void
write_line(struct logs *l)
{
	buf_add_char(&l->line, '\n');
	if (fwrite(l->line.p, 1, l->line.n, stdout) != l->line.n) {
		l->output_failed = true;
		l->output_errno = errno;
	}
	buf_clear(&l->line);
}

static void
flush_output(struct logs *l)
{
	if (!l->output_failed && fflush(stdout) != 0) {
		l->output_failed = true;
		l->output_errno = errno;
	}
}

static void
add_row(struct buf *out, const struct record *r)
{
	const struct record_fixed *f = &r->fixed;
	int64_t in = f->tokens[TOKENS_INPUT] + f->tokens[TOKENS_CACHE_WRITE_5M] + f->tokens[TOKENS_CACHE_WRITE_1H] +
	    f->tokens[TOKENS_CACHE_READ];
	char time[32], usd[RECORD_USD_BYTES];

	clock_format_utc(f->start_wall_ns, time, sizeof(time));
	record_format_usd(f->cost_nusd, usd, sizeof(usd));
	buf_printf(out, "%-24s %6u ", time, f->status);
	tool_cell(out, r->key, 16);
	tool_cell(out, r->provider, 12);
	/* What is no request to a model says what else it is: "limit_reset". */
	tool_cell(out, r->model.n ? r->model : r->model_requested.n ? r->model_requested : r->route_name, 28);
	buf_printf(out, "%9lld %8lld %14s %8lld %s", (long long)in, (long long)f->tokens[TOKENS_OUTPUT], usd,
	    (long long)(f->total_ns / NS_PER_MS), record_outcome_name(f->outcome));
}

static bool
show(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct logs *l = arg;

	(void)charges;
	(void)n;
	l->next_id = id + 1;
	if (!matches(l, r))
		return true;
	if (l->json)
		record_to_json(r, id, &l->line);
	else
		add_row(&l->line, r);
	write_line(l);
	return !l->output_failed;
}

static bool
add_up(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct logs *l = arg;

	(void)id;
	(void)charges;
	(void)n;
	if (!matches(l, r))
		return true;
	l->count++;
	for (uint32_t i = 0; i < TOKENS_CLASSES; i++)
		l->tokens[i] += r->fixed.tokens[i];
	l->cost_nusd += r->fixed.cost_nusd;
	return true;
}

static void
print_sum(struct logs *l)
{
	char usd[RECORD_USD_BYTES];

	record_format_usd(l->cost_nusd, usd, sizeof(usd));
	buf_printf(&l->line, "{\"count\":%llu,\"tokens\":{", (unsigned long long)l->count);
	for (uint32_t i = 0; i < TOKENS_CLASSES; i++)
		buf_printf(&l->line, "%s\"%s\":%lld", i ? "," : "", token_class_name(i), (long long)l->tokens[i]);
	buf_printf(&l->line, "},\"cost_nusd\":%lld,\"cost_usd\":\"%s\"}", (long long)l->cost_nusd, usd);
	write_line(l);
}

/* ---- selection ---- */

static bool
note_tail(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct logs *l = arg;

	(void)charges;
	(void)n;
	l->next_id = id + 1;
	if (matches(l, r))
		l->tail[l->matches++ % (uint64_t)l->limit_count] = id;
	return true;
}

/* --limit: a first pass finds where the newest N begin. */
static int
apply_limit(struct logs *l)
{
	uint64_t limit = (uint64_t)l->limit_count;
	int rc;

	l->tail = calloc(limit, sizeof(*l->tail));
	if (!l->tail)
		return -1;
	l->next_id = l->from_id;
	rc = reader_scan(l->reader, l->from_id, l->to_id, note_tail, l);
	l->to_id = l->next_id;
	if (l->matches > limit)
		l->from_id = l->tail[l->matches % limit];
	else if (l->matches > 0)
		l->from_id = l->tail[0];
	free(l->tail);
	return rc;
}

/* true: SIGINT, SIGTERM, or nobody reads our output any more. */
static bool
wait_for_more(int signal_fd)
{
	struct pollfd fds[2] = { { .fd = signal_fd, .events = POLLIN }, { .fd = STDOUT_FILENO, .events = 0 } };

	return poll(fds, 2, FOLLOW_MS) > 0 && (fds[0].revents || fds[1].revents);
}

static int
follow(struct logs *l)
{
	sigset_t set;
	int fd, rc = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || (fd = signalfd(-1, &set, SFD_CLOEXEC)) < 0)
		return -1;
	do {
		rc = reader_scan(l->reader, l->next_id, UINT64_MAX, show, l);
		flush_output(l);
	} while (!rc && !l->output_failed && !wait_for_more(fd));
	close(fd);
	return rc;
}

static int
run(struct logs *l)
{
	int rc = l->limit_count ? apply_limit(l) : 0;

	l->next_id = l->from_id;
	if (rc)
		return rc;
	if (l->sum) {
		rc = reader_scan(l->reader, l->from_id, l->to_id, add_up, l);
		print_sum(l);
		return rc;
	}
	if (!l->json)
		printf("%-24s %6s %-16s %-12s %-28s %9s %8s %14s %8s %s\n", "TIME", "STATUS", "KEY", "PROVIDER", "MODEL",
		    "IN", "OUT", "COST USD", "MS", "OUTCOME");
	rc = reader_scan(l->reader, l->from_id, l->to_id, show, l);
	if (!rc && l->follow && !l->output_failed) {
		/* The limit was on what there was. */
		if (l->next_id < l->to_id && l->to_id != UINT64_MAX)
			l->next_id = l->to_id;
		rc = follow(l);
	}
	return rc;
}

int
cmd_logs(int argc, char **argv)
{
	struct logs l = { .to_id = UINT64_MAX };
	struct settings *settings = NULL;
	char why[WHY_BYTES];
	int status = logs_parse(&l, argc, argv);

	if (status == ARGS_GO)
		status = args_store_find("logs", &l.store, &settings);
	if (settings)
		settings_put(settings);
	if (status != ARGS_GO)
		return status;
	l.reader = reader_open(l.store.folder, why, sizeof(why));
	if (!l.reader) {
		fprintf(stderr, "weir: logs: %s\n", why);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	buf_init(&l.line, LINE_BYTES_MAX);
	status = run(&l) ? 1 : 0;
	if (status)
		fprintf(stderr, "weir: logs: cannot read the records in %s\n", l.store.folder);
	flush_output(&l);
	/* `weir logs | head` has what it wanted. */
	if (l.output_failed && l.output_errno != EPIPE) {
		fprintf(stderr, "weir: logs: cannot write the output: %s\n", strerror(l.output_errno));
		status = 1;
	}
	buf_free(&l.line);
	reader_close(l.reader);
	return status;
}
