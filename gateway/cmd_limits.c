/*
 * gateway/cmd_limits.c -- weir limits: every meter with its level; and its
 * reset, which is in limits_reset.c.
 *
 * What a running weir has in memory is read from there; the rest, and
 * everything when none runs, from the store. Nothing is asked of a worker.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/limits_reset.h"
#include "gateway/meter_list.h"
#include "gateway/tool_arena.h"
#include "gateway/tool_text.h"
#include "policy/key.h"

#define WHY_BYTES 512
#define LINE_BYTES_MAX 4096
#define ROWS_MAX 10000000

static const char usage[] =
    "usage: weir limits [--key KEY] [--where NAME=VALUE]... [--rows N] [--json]\n"
    "                   [--config FILE | --data-dir DIR] [--run-dir DIR]\n"
    "       weir limits reset METER [--yes] [--config FILE | --data-dir DIR] [--run-dir DIR]\n"
    "Every meter, the fullest first: what is used, held by requests in flight, and left.\n"
    "  --key      the limits of this key, also those that were never used: SLUG, WORKSPACE/SLUG or id\n"
    "  --where    name=GLOB, kind=bucket|budget|concurrency|group, unit=requests|tokens|nusd, id=HEX; several: all hold\n"
    "  --rows     the fullest N of them\n"
    "  --json     one array of objects\n";

/* ---- arguments ---- */

struct limits_command {
	struct args_store store;
	const char *key, *rows;
	struct arg_many where;
	bool json;

	struct settings *settings;
	struct meter_filter filter[ARGS_MANY_MAX + 1];
	struct meter_list list;
	struct limit_book book;		/* all that is known */
	struct limit_book own;		/* --key */
	struct arena arena;
	bool running;
	char not_running[WHY_BYTES];
};

static int
filter_kind(const char *value, struct meter_filter *f)
{
	static const enum meter_kind kinds[] = { METER_BUCKET, METER_BUDGET, METER_CONCURRENCY, METER_GROUP };

	f->by_kind = true;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		f->kind = kinds[i];
		if (strcmp(value, meter_kind_name(f->kind)) == 0)
			return ARGS_GO;
	}
	return args_mistake("limits", "--where kind: bucket, budget, concurrency or group is expected, not \"%s\"", value);
}

static int
filter_unit(const char *value, struct meter_filter *f)
{
	static const enum meter_unit units[] = { UNIT_REQUESTS, UNIT_TOKENS, UNIT_NUSD };

	f->by_unit = true;
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		f->unit = units[i];
		if (strcmp(value, meter_unit_name(f->unit)) == 0)
			return ARGS_GO;
	}
	return args_mistake("limits", "--where unit: requests, tokens or nusd is expected, not \"%s\"", value);
}

static int
filter_parse(const char *text, struct meter_filter *f)
{
	const char *value = strchr(text, '=');
	struct slice name = { text, value ? (size_t)(value - text) : 0 };

	if (!value)
		return args_mistake("limits", "--where: NAME=VALUE is expected, not \"%s\"", text);
	value++;
	if (slice_eq(name, SLICE("name"))) {
		f->name = value;
		return ARGS_GO;
	}
	if (slice_eq(name, SLICE("kind")))
		return filter_kind(value, f);
	if (slice_eq(name, SLICE("unit")))
		return filter_unit(value, f);
	if (!slice_eq(name, SLICE("id")))
		return args_mistake("limits", "--where: name, kind, unit or id is expected, not \"%.*s\"", SLICE_FMT(name));
	f->by_id = true;
	if (tool_id_parse(value, &f->id))
		return ARGS_GO;
	return args_mistake("limits", "--where id: 32 hexadecimal digits are expected, not \"%s\"", value);
}

static int
limits_parse_arguments(struct limits_command *l, int argc, char **argv)
{
	const struct arg list[] = {
		{ "key", ARG_TEXT, &l->key }, { "where", ARG_MANY, &l->where }, { "rows", ARG_TEXT, &l->rows },
		{ "json", ARG_FLAG, &l->json }, { "config", ARG_TEXT, &l->store.config },
		{ "data-dir", ARG_TEXT, &l->store.data_dir }, { "run-dir", ARG_TEXT, &l->store.run_dir },
	};
	const struct args args = { "limits", usage, list, sizeof(list) / sizeof(*list), NULL };
	int64_t rows = 0;
	int status = args_parse(&args, argc, argv);

	for (uint32_t i = 0; i < l->where.count && status == ARGS_GO; i++)
		status = filter_parse(l->where.text[i], &l->filter[i]);
	if (status != ARGS_GO)
		return status;
	if (l->rows && !args_count(l->rows, 1, ROWS_MAX, &rows))
		return args_mistake("limits", "--rows: a whole number from 1 to %d is expected, not \"%s\"", ROWS_MAX, l->rows);
	l->list.most = (size_t)rows;
	l->list.filter = l->filter;
	l->list.filters = l->where.count;
	return ARGS_GO;
}

/* ---- reading ---- */

static int
failed(const char *what)
{
	fprintf(stderr, "weir: limits: %s\n", what);
	return 1;
}

/* The limits of the key that was asked for. */
static int
read_key(struct limits_command *l)
{
	char why[WHY_BYTES];
	struct catalog *catalog = catalog_open(l->store.folder, false, why, sizeof(why));
	struct key *k = NULL;
	int status = ARGS_GO;
	struct buf json;

	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	if (!catalog || catalog_key_get(catalog, slice_of(l->key), &json) != CATALOG_OK) {
		fprintf(stderr, "weir: limits: there is no key \"%s\" in %s\n", l->key, l->store.folder);
		status = 1;
	} else if (!(k = key_compile(buf_slice(&json), NULL, why, sizeof(why)))) {
		status = failed(why);
	} else {
		limit_book_add(&l->own, &k->limits);
		limit_book_sort(&l->own);
		l->filter[l->list.filters++] = (struct meter_filter){ .only = &l->own };
	}
	key_free(k);
	buf_free(&json);
	catalog_close(catalog);
	return status;
}

static int
read_meters(struct limits_command *l)
{
	char why[WHY_BYTES];
	struct reader *reader;
	size_t most = l->list.most;
	int status = ARGS_GO;

	if (l->key)
		l->list.most = 0;	/* a few; see meter_list_unused() */
	if (l->running)
		meter_list_arena(&l->list, &l->arena);
	reader = reader_open(l->store.folder, why, sizeof(why));
	/* A weir that has just begun has no store yet. */
	if (!reader && !l->running)
		status = failed(why);
	else if (reader && meter_list_store(&l->list, l->running ? &l->arena : NULL, reader, &l->book) != 0)
		status = failed("the levels in the store cannot be read");
	reader_close(reader);
	if (l->key)
		meter_list_unused(&l->list, &l->own);
	l->list.most = most;
	if (l->list.no_memory || l->book.no_memory)
		status = failed("not enough memory for all meters: ask for fewer with --rows or --where");
	meter_list_sort(&l->list);
	return status;
}

/* ---- output ---- */

static void
add_row(struct buf *out, const struct meter_row *m, struct now now)
{
	char amount[TOOL_AMOUNT_BYTES], period[TOOL_TIME_BYTES], time[TOOL_TIME_BYTES], id[TOOL_ID_BYTES];
	int64_t resets_ns = meter_row_resets_ns(m, now), full = meter_row_fullness(m);
	enum meter_unit unit = m->view.unit;

	tool_cell(out, slice_of(m->view.name), 40);
	tool_cell(out, slice_of(meter_kind_name(m->view.kind)), 11);
	meter_period_text(&m->view, period, sizeof(period));
	tool_cell(out, slice_of(period), 8);
	tool_cell(out, slice_of(unit == UNIT_NUSD ? "dollars" : meter_unit_name(unit)), 8);
	tool_cell(out, slice_of(meter_mode_name(m)), 8);
	tool_number(out, m->view.kind == METER_BUCKET && !m->limit_known ? "?" : tool_amount(unit, meter_row_used(m), amount), 14);
	tool_number(out, tool_amount(unit, m->view.held, amount), 12);
	tool_number(out, m->limit_known ? tool_amount(unit, m->view.limit, amount) : "?", 14);
	tool_number(out, m->limit_known ? tool_amount(unit, meter_row_left(m), amount) : "?", 14);
	if (full >= 0)
		buf_printf(out, "%5lld%% ", (long long)(full / 10000));
	else
		tool_number(out, "?", 6);
	tool_cell(out, resets_ns ? slice_of(tool_time(resets_ns, time)) : SLICE_NONE, 20);
	buf_add_str(out, tool_id(m->view.id, id));
}

static void
print_table(const struct limits_command *l, struct buf *line)
{
	printf("%-40s %-11s %-8s %-8s %-8s %14s %12s %14s %14s %6s %-20s %s\n", "METER", "KIND", "PERIOD", "UNIT", "MODE", "USED", "HELD",
	    "LIMIT", "LEFT", "FULL", "RESETS", "ID");
	for (size_t i = 0; i < l->list.count; i++) {
		buf_clear(line);
		add_row(line, &l->list.row[i], l->list.now);
		printf("%.*s\n", SLICE_FMT(buf_slice(line)));
	}
	if (!l->running)
		printf("Levels are those of the store: %s.\n", l->not_running);
}

static void
print_json(const struct limits_command *l, struct buf *line)
{
	putchar('[');
	for (size_t i = 0; i < l->list.count; i++) {
		buf_clear(line);
		meter_row_json(&l->list.row[i], l->list.now, line);
		printf("%s%.*s", i ? ",\n" : "", SLICE_FMT(buf_slice(line)));
	}
	puts("]");
}

static int
limits_show(struct limits_command *l)
{
	struct buf line;
	int status;

	l->list.now = tool_now();
	l->running = tool_arena_open(&l->arena, l->store.run_folder, false, l->not_running, sizeof(l->not_running));
	limit_book_read(&l->book, l->store.folder, l->settings);
	status = l->key ? read_key(l) : ARGS_GO;
	if (status == ARGS_GO)
		status = read_meters(l);
	if (status == ARGS_GO) {
		signal(SIGPIPE, SIG_IGN);
		buf_init(&line, LINE_BYTES_MAX);
		if (l->json)
			print_json(l, &line);
		else
			print_table(l, &line);
		buf_free(&line);
		status = tool_printed("limits");
	}
	if (l->running)
		arena_close(&l->arena);
	return status;
}

int
cmd_limits(int argc, char **argv)
{
	struct limits_command l = { .key = NULL };
	int status;

	if (argc > 1 && strcmp(argv[1], "reset") == 0)
		return limits_reset(argc - 1, argv + 1);
	status = limits_parse_arguments(&l, argc, argv);
	if (status == ARGS_GO)
		status = args_run_find("limits", &l.store, &l.settings);
	if (status == ARGS_GO)
		status = limits_show(&l);
	meter_list_free(&l.list);
	limit_book_free(&l.book);
	limit_book_free(&l.own);
	if (l.settings)
		settings_put(l.settings);
	return status;
}
