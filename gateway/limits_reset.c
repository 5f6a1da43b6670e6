/*
 * gateway/limits_reset.c -- see limits_reset.h.
 *
 * A reset is a step of the ledger, made by this process in the arena of the
 * weir that runs: it takes effect with the next request, and its record goes
 * through the ring of the tools into the store like any other. The ring has
 * one writer at a time, which tools.lock sees to. If we die in the middle, the
 * next process to take the ledger's lock undoes or keeps the whole step.
 */
#include "gateway/limits_reset.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "gateway/args.h"
#include "gateway/meter_list.h"
#include "gateway/tool_arena.h"
#include "gateway/tool_text.h"
#include "shm/base/clock.h"
#include "shm/ring.h"
#include "store/record.h"

#define COMMAND "limits reset"
#define WHY_BYTES 512
#define USER_BYTES 64
#define METADATA_TEXT_BYTES 1024	/* a name of METER_NAME_BYTES and a user, every byte escaped */
#define STORED_WAIT_NS (10 * NS_PER_S)	/* a flush takes 100 ms, a busy disk some more */
#define STORED_LOOK_NS (5 * NS_PER_MS)
#define LOAD_TRIES 8			/* each is repeated only if meters were evicted meanwhile */

static const char usage[] =
    "usage: weir limits reset METER [--yes] [--config FILE | --data-dir DIR] [--run-dir DIR]\n"
    "Nothing is spent of this budget any more, this bucket is full. What requests in flight hold stays held.\n"
    "METER is an id of 32 digits, or a name, as weir limits shows them. weir must be running.\n";

struct reset {
	struct args_store store;
	struct settings *settings;
	const char *name;
	bool yes;
	char user[USER_BYTES];		/* who sits there, also behind sudo */
	int lock_fd;
	struct arena arena;
	bool attached;
	struct meter_row before;
};

static int failed(const char *fmt, ...) PRINTF_LIKE(1, 2);

static int
failed(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "weir: " COMMAND ": ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return 1;
}

/* ---- which meter ---- */

static void
find_user(struct reset *r)
{
	const char *sudo = getenv("SUDO_USER");
	const struct passwd *pw = sudo && *sudo ? NULL : getpwuid(getuid());

	if (sudo && *sudo)
		snprintf(r->user, sizeof(r->user), "%s", sudo);
	else if (pw)
		snprintf(r->user, sizeof(r->user), "%s", pw->pw_name);
	else
		snprintf(r->user, sizeof(r->user), "uid %u", (unsigned)getuid());
}

static int
one_of(struct reset *r, const struct meter_list *l)
{
	char first[TOOL_ID_BYTES], second[TOOL_ID_BYTES];

	if (l->count == 0)
		return failed("there is no meter \"%s\": weir limits shows all; one that was never used needs no reset", r->name);
	if (l->count > 1)
		return failed("%zu meters are called \"%s\": name one by its id, such as %s or %s", l->count, r->name,
		    tool_id(l->row[0].view.id, first), tool_id(l->row[1].view.id, second));
	r->before = l->row[0];
	if (r->before.view.kind == METER_CONCURRENCY)
		return failed("\"%s\" counts requests in flight: it goes down as they end", r->before.view.name);
	if (r->before.view.kind == METER_GROUP)
		return failed("\"%s\" counts the meters of a policy: it goes down as idle ones are forgotten", r->before.view.name);
	return ARGS_GO;
}

static int
find_meter(struct reset *r)
{
	struct meter_filter filter = { .by_id = true };
	struct meter_list list = { .filter = &filter, .filters = 1, .now = tool_now() };
	struct limit_book book = { .entry = NULL };
	char why[WHY_BYTES];
	struct reader *reader;
	int status;

	if (!tool_id_parse(r->name, &filter.id))
		filter = (struct meter_filter){ .whole_name = r->name };
	meter_list_arena(&list, &r->arena);
	limit_book_read(&book, r->store.folder, r->settings);
	reader = reader_open(r->store.folder, why, sizeof(why));
	if (!reader)
		status = failed("%s", why);
	else if (meter_list_store(&list, &r->arena, reader, &book) != 0 || list.no_memory)
		status = failed("the levels in %s cannot be read", r->store.folder);
	else
		status = one_of(r, &list);
	reader_close(reader);
	limit_book_free(&book);
	meter_list_free(&list);
	return status;
}

/* ---- the step ---- */

/* A meter that is idle is in the store alone. */
static int
load(struct reset *r, struct reader *store)
{
	const struct meter_view *v = &r->before.view;
	struct charge c = { .id = v->id, .kind = v->kind, .unit = v->unit, .period = v->period, .mode = v->mode, .days = v->days,
		.anchor = v->anchor, .row = UINT32_MAX, .limit = v->limit, .window_ns = v->window_ns, .alert = v->alert, .name = v->name };
	struct level level;

	for (int i = 0; i < LOAD_TRIES; i++) {
		uint64_t evictions = ledger_evictions(&r->arena);

		if (reader_level(store, v->id, &level) != 0)
			return failed("the level of \"%s\" cannot be read from the store", v->name);
		switch (ledger_load(&r->arena, ledger_tools_row(&r->arena), &c, &level, evictions, tool_now())) {
		case LOAD_DONE:
			return ARGS_GO;
		case LOAD_STALE:
			break;
		case LOAD_FULL:
			return failed("no place is free for the meter \"%s\": the setting ledger.meters is too low", v->name);
		}
	}
	return failed("\"%s\" cannot be loaded, because meters are evicted all the time: try again", v->name);
}

static int
load_from_store(struct reset *r)
{
	char why[WHY_BYTES];
	struct reader *store = reader_open(r->store.folder, why, sizeof(why));
	int status = store ? load(r, store) : failed("%s", why);

	reader_close(store);
	return status;
}

static uint32_t
make_record(const struct reset *r, char bytes[RECORD_BYTES_MAX])
{
	struct record record = { .fixed = { .outcome = OUTCOME_OK, .start_wall_ns = clock_wall_ns() } };
	struct buf metadata;
	uint32_t n;

	buf_init(&metadata, METADATA_TEXT_BYTES);
	buf_add_str(&metadata, "{\"meter\":");
	buf_add_json(&metadata, slice_of(r->before.view.name));
	buf_add_str(&metadata, ",\"by\":");
	buf_add_json(&metadata, slice_of(r->user));
	buf_add_char(&metadata, '}');
	record.route_name = SLICE("limit_reset");
	record.metadata = buf_slice(&metadata);
	n = record_encode(&record, bytes, RECORD_BYTES_MAX);
	buf_free(&metadata);
	return n;
}

static int
apply(struct reset *r)
{
	char record[RECORD_BYTES_MAX];
	uint32_t bytes = make_record(r, record);

	for (int i = 0; i < LOAD_TRIES; i++) {
		switch (ledger_reset(&r->arena, r->before.view.id, record, bytes, tool_now())) {
		case RESET_DONE:
			return ARGS_GO;
		case RESET_RING_FULL:
			return failed("nothing was changed: too many resets wait to be stored; is the disk of %s full?", r->store.folder);
		case RESET_UNKNOWN:
			break;
		}
		int status = load_from_store(r);
		if (status != ARGS_GO)
			return status;
	}
	return failed("\"%s\" is evicted again and again: try again", r->before.view.name);
}

/* The tools' ring is empty again: this reset, its only item, is in the store. */
static bool
wait_until_stored(const struct reset *r)
{
	const struct timespec pause = { .tv_nsec = STORED_LOOK_NS };
	int64_t until = clock_mono_ns() + STORED_WAIT_NS;
	uint32_t row = ledger_tools_row(&r->arena);
	struct ring_item item;

	do {
		struct ring_cursor c = ring_begin(&r->arena, row);

		if (!ring_next(&r->arena, row, &c, &item))
			return true;
		nanosleep(&pause, NULL);
	} while (clock_mono_ns() < until);
	return false;
}

/* ---- talking ---- */

static void
say(const char *when, const struct meter_row *m)
{
	char used[TOOL_AMOUNT_BYTES], held[TOOL_AMOUNT_BYTES], limit[TOOL_AMOUNT_BYTES];
	enum meter_unit unit = m->view.unit;

	printf("%-7s %s used, %s held", when, tool_amount(unit, meter_row_used(m), used), tool_amount(unit, m->view.held, held));
	if (m->limit_known)
		printf(" of %s", tool_amount(unit, m->view.limit, limit));
	putchar('\n');
}

static int
confirm(const struct reset *r)
{
	char answer[16] = "";

	if (r->yes)
		return ARGS_GO;
	if (!isatty(STDIN_FILENO))
		return args_mistake(COMMAND, "--yes is needed where nobody can be asked");
	printf("Reset it? [y/N] ");
	fflush(stdout);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return ARGS_GO;
	return failed("nothing was changed");
}

static void
say_which(const struct reset *r)
{
	char id[TOOL_ID_BYTES];
	struct buf name;

	buf_init(&name, 2 * METER_NAME_BYTES);
	tool_words(&name, slice_of(r->before.view.name));
	printf("meter   %.*s (%s)\n", SLICE_FMT(buf_slice(&name)), tool_id(r->before.view.id, id));
	buf_free(&name);
}

static int
reset_meter(struct reset *r)
{
	struct meter_row after;
	int status = find_meter(r);

	if (status != ARGS_GO)
		return status;
	say_which(r);
	say("before", &r->before);
	status = confirm(r);
	if (status == ARGS_GO)
		status = apply(r);
	if (status != ARGS_GO)
		return status;
	after = (struct meter_row){ .source = METER_IN_ARENA, .limit_known = r->before.limit_known };
	if (ledger_meter(&r->arena, r->before.view.id, tool_now(), &after.view))
		say("after", &after);
	if (!wait_until_stored(r))
		return failed("the reset is in force but not stored yet: a crash of weir keeps it, a loss of power would not; "
		    "is the disk of %s full?", r->store.folder);
	return tool_printed(COMMAND);
}

static int
lock_tools(struct reset *r)
{
	char path[PATH_MAX + sizeof("/tools.lock")];

	snprintf(path, sizeof(path), "%s/tools.lock", r->store.run_folder);
	r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r->lock_fd >= 0 && flock(r->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return ARGS_GO;
	if (r->lock_fd >= 0 && errno == EWOULDBLOCK)
		return failed("another tool is changing limits (%s): try again", path);
	return failed("%s: %s", path, strerror(errno));
}

int
limits_reset(int argc, char **argv)
{
	struct reset r = { .lock_fd = -1 };
	const struct arg list[] = {
		{ "yes", ARG_FLAG, &r.yes }, { "config", ARG_TEXT, &r.store.config }, { "data-dir", ARG_TEXT, &r.store.data_dir },
		{ "run-dir", ARG_TEXT, &r.store.run_dir },
	};
	const struct args args = { COMMAND, usage, list, sizeof(list) / sizeof(*list), &r.name };
	char why[WHY_BYTES];
	int status = args_parse(&args, argc, argv);

	if (status == ARGS_GO && !r.name)
		status = args_mistake(COMMAND, "a meter is expected: its id or its name, as weir limits shows them");
	find_user(&r);
	if (status == ARGS_GO)
		status = args_run_find(COMMAND, &r.store, &r.settings);
	if (status == ARGS_GO) {
		r.attached = tool_arena_open(&r.arena, r.store.run_folder, true, why, sizeof(why));
		status = r.attached ? lock_tools(&r) : failed("%s", why);
	}
	if (status == ARGS_GO)
		status = reset_meter(&r);
	if (r.attached)
		arena_close(&r.arena);
	if (r.lock_fd >= 0)
		close(r.lock_fd);	/* and so unlocked */
	if (r.settings)
		settings_put(r.settings);
	return status;
}
