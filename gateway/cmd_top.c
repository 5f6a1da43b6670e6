/*
 * gateway/cmd_top.c -- weir top: a running weir, looked at again and again.
 *
 * Only the arena is read, without a lock and without a word to any process; so
 * it also shows a weir that answers nobody any more. When weir is started anew
 * the next look is at the new one.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/settings.h"
#include "gateway/terminal.h"
#include "gateway/tool_arena.h"
#include "gateway/top_view.h"
#include "shm/base/clock.h"

#define WHY_BYTES 512
#define TEXT_BYTES_MAX (1u << 20)
#define ROWS_DEFAULT 15
#define ROWS_MAX 1000
#define INTERVAL_NS_DEFAULT (2 * NS_PER_S)
#define INTERVAL_NS_MIN (10 * NS_PER_MS)
#define INTERVAL_NS_MAX (3600 * NS_PER_S)
#define FIRST_NS_MAX (500 * NS_PER_MS)	/* nobody looks at an empty screen for long */

static const char usage[] =
    "usage: weir top [--interval SECONDS] [--once] [--rows N] [--json]\n"
    "                [--config FILE | --data-dir DIR] [--run-dir DIR]\n"
    "A live view of a running weir: requests, spend, tokens, the fullest limits, processes. \"q\" ends it.\n"
    "  --interval  2 if it is not given; rates are those of the last interval\n"
    "  --once      one look, after one interval\n"
    "  --rows      how many limits; 15 if it is not given, 0: none\n"
    "  --json      one object a look, each on its line\n";

struct top {
	struct args_store store;
	const char *interval, *rows;
	bool once, json;
	int64_t interval_ns, rows_count;

	struct arena arena;
	bool attached;
	char why[WHY_BYTES];		/* not attached */
	struct top_view view;
	struct terminal terminal;
	struct buf text;
};

static int
top_parse(struct top *t, int argc, char **argv)
{
	const struct arg list[] = {
		{ "interval", ARG_TEXT, &t->interval }, { "once", ARG_FLAG, &t->once }, { "rows", ARG_TEXT, &t->rows },
		{ "json", ARG_FLAG, &t->json }, { "config", ARG_TEXT, &t->store.config },
		{ "data-dir", ARG_TEXT, &t->store.data_dir }, { "run-dir", ARG_TEXT, &t->store.run_dir },
	};
	const struct args args = { "top", usage, list, sizeof(list) / sizeof(*list), NULL };
	int status = args_parse(&args, argc, argv);

	t->interval_ns = INTERVAL_NS_DEFAULT;
	t->rows_count = ROWS_DEFAULT;
	if (status != ARGS_GO)
		return status;
	if (t->interval && !args_seconds(t->interval, INTERVAL_NS_MIN, INTERVAL_NS_MAX, &t->interval_ns))
		return args_mistake("top", "--interval: seconds from 0.01 to 3600 are expected, not \"%s\"", t->interval);
	if (t->rows && !args_count(t->rows, 0, ROWS_MAX, &t->rows_count))
		return args_mistake("top", "--rows: a whole number from 0 to %d is expected, not \"%s\"", ROWS_MAX, t->rows);
	return ARGS_GO;
}

/* The arena of the weir that runs now; false: none does. */
static bool
attach(struct top *t)
{
	if (t->attached && !tool_arena_replaced(&t->arena, t->store.run_folder) && tool_arena_runs(&t->arena))
		return true;
	if (t->attached)
		arena_close(&t->arena);
	t->attached = tool_arena_open(&t->arena, t->store.run_folder, false, t->why, sizeof(t->why));
	if (t->attached)
		top_view_begin(&t->view, &t->arena);
	return t->attached;
}

static bool
look(struct top *t)
{
	buf_clear(&t->text);
	if (!attach(t)) {
		/* It may come back; what reads objects waits for it. */
		if (!t->json)
			buf_printf(&t->text, "weir is not running: %s\n", t->why);
		return true;
	}
	if (!top_view_look(&t->view, &t->arena))
		return false;
	if (!t->json && !t->terminal.screen && t->terminal.shown > 0)
		buf_add_char(&t->text, '\n');
	if (t->json)
		top_view_json(&t->view, &t->text);
	else
		top_view_text(&t->view, &t->text);
	return true;
}

static int
failed(const char *why)
{
	fprintf(stderr, "weir: top: %s\n", why);
	return 1;
}

static int
watch(struct top *t)
{
	int64_t pause_ns = !t->once && t->interval_ns > FIRST_NS_MAX ? FIRST_NS_MAX : t->interval_ns;

	for (;; pause_ns = t->interval_ns) {
		int64_t until = clock_mono_ns() + pause_ns;
		enum terminal_event event;

		while ((event = terminal_wait(&t->terminal, until)) == TERMINAL_RESIZED)
			if (!terminal_show(&t->terminal, &t->text))
				return 0;
		if (event == TERMINAL_END)
			return 0;
		if (!look(t))
			return failed("not enough memory");
		if (t->once && !t->attached)
			return failed(t->why);
		if (!terminal_show(&t->terminal, &t->text))
			return errno == EPIPE ? 0 : failed("the output cannot be written");
		if (t->once)
			return 0;
	}
}

static int
run(struct top *t)
{
	int status;

	if (!top_view_init(&t->view, (size_t)t->rows_count))
		return failed("not enough memory");
	if (!attach(t))
		return failed(t->why);
	if (!terminal_open(&t->terminal, !t->once && !t->json))
		return failed(strerror(errno));
	buf_init(&t->text, TEXT_BYTES_MAX);
	status = watch(t);
	terminal_close(&t->terminal);
	buf_free(&t->text);
	return status;
}

int
cmd_top(int argc, char **argv)
{
	struct top t = { .attached = false };
	struct settings *settings = NULL;
	int status = top_parse(&t, argc, argv);

	if (status == ARGS_GO)
		status = args_run_find("top", &t.store, &settings);
	if (settings)
		settings_put(settings);
	if (status != ARGS_GO)
		return status;
	status = run(&t);
	if (t.attached)
		arena_close(&t.arena);
	top_view_free(&t.view);
	return status;
}
