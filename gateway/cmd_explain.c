/*
 * gateway/cmd_explain.c -- weir explain: one request, and what its limits made
 * of it. Of one that was never sent explain_route.c tells where it would go.
 *
 * Everything is in the record: who, what, the charges with what was held and
 * settled. Names of meters are not; those come from the arena of the weir that
 * runs, or from the store. Records are searched from the newest back, in spans
 * that grow, because what people ask about has mostly just happened.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/args.h"
#include "gateway/commands.h"
#include "gateway/explain_route.h"
#include "gateway/meter_list.h"
#include "gateway/tool_arena.h"
#include "gateway/tool_text.h"
#include "shm/base/clock.h"
#include "store/records.h"

#define WHY_BYTES 512
#define TEXT_BYTES_MAX (1u << 20)
#define FIRST_SPAN_NS (600 * NS_PER_S)
#define SPAN_GROWTH 6			/* ten minutes, an hour, six, a day and a half, ... */

static const char usage[] =
    "usage: weir explain REQUEST-ID [--json] [--config FILE | --data-dir DIR] [--run-dir DIR]\n"
    "What one request was: who sent it, which limits it was charged on, what was held and what was settled,\n"
    "what lowered, delayed or refused it.\n"
    "REQUEST-ID is weir's (header x-weir-request-id), or the provider's.\n"
    "\n"
    "       weir explain [--config SLUG|JSON] [--key KEY] [--metadata JSON] [--body FILE] [--session ID] [--path PATH]\n"
    "                    [--settings FILE] [--data-dir DIR] [--run-dir DIR]\n"
    "Where a request would go, and why; nothing is sent.\n"
    "  --config    slug of a config of the settings, or one's JSON; not given: the key's, or its workspace's\n"
    "  --key       whose request it is: SLUG, WORKSPACE/SLUG or id\n"
    "  --metadata  as x-portkey-metadata has it\n"
    "  --body      a file with the request's JSON; -: standard input\n"
    "  --session   as x-claude-code-session-id has it; where a conversation goes depends on its key, too\n"
    "  --path      /v1/messages if not given\n"
    "  --settings  what weir serve --config reads; /etc/weir/weir.json if not given\n";

struct explain {
	struct args_store store;
	const char *wanted;
	bool json;

	struct reader *reader;
	struct arena arena;
	bool running;

	uint64_t id;			/* what was found; 0: nothing */
	char *bytes;			/* of the strings of `record` */
	struct record record;
	struct ring_charge charge[CHARGES_MAX];
	char name[CHARGES_MAX][METER_NAME_BYTES];	/* "": not known */
	uint32_t charges;
	bool no_memory;
};

/* ---- finding it ---- */

/* The record outlives the call: its strings move into one allocation. */
static void
keep(struct explain *x, const struct record *r)
{
	static const size_t offsets[] = {
#define X(member) offsetof(struct record, member),
		RECORD_STRINGS(X)
#undef X
	};
	size_t count = sizeof(offsets) / sizeof(*offsets), total = 1, at = 0;
	struct slice s;

	x->record = *r;
	for (size_t i = 0; i < count; i++) {
		memcpy(&s, (const char *)r + offsets[i], sizeof(s));
		total += s.n;
	}
	x->bytes = malloc(total);
	x->no_memory = !x->bytes;
	for (size_t i = 0; i < count && x->bytes; i++) {
		memcpy(&s, (const char *)r + offsets[i], sizeof(s));
		if (s.n > 0)
			memcpy(x->bytes + at, s.p, s.n);
		s.p = x->bytes + at;
		at += s.n;
		memcpy((char *)&x->record + offsets[i], &s, sizeof(s));
	}
}

static bool
compare(uint64_t id, const struct record *r, const struct ring_charge *charges, uint32_t n, void *arg)
{
	struct explain *x = arg;
	struct slice wanted = slice_of(x->wanted);

	if (!slice_eq(r->request_id, wanted) && !slice_eq(r->provider_request_id, wanted))
		return true;
	x->id = id;
	x->charges = n < CHARGES_MAX ? n : CHARGES_MAX;
	memcpy(x->charge, charges, x->charges * sizeof(*charges));
	keep(x, r);
	return false;
}

static int
find(struct explain *x)
{
	int64_t now = clock_wall_ns(), span = FIRST_SPAN_NS;
	uint64_t to = UINT64_MAX;

	while (to > 0 && x->id == 0) {
		uint64_t from = span < now ? (uint64_t)(now - span) : 0;

		if (reader_scan(x->reader, from, to, compare, x) != 0)
			return -1;
		to = from;
		if (__builtin_mul_overflow(span, SPAN_GROWTH, &span))
			span = INT64_MAX;
	}
	return 0;
}

/* ---- the names of its meters ---- */

static bool
name_stored(const struct stored_meter *m, void *arg)
{
	struct explain *x = arg;
	bool missing = false;

	for (uint32_t i = 0; i < x->charges; i++) {
		if (x->charge[i].id.hi == m->id.hi && x->charge[i].id.lo == m->id.lo && x->name[i][0] == '\0')
			snprintf(x->name[i], METER_NAME_BYTES, "%.*s", SLICE_FMT(m->name));
		missing = missing || x->name[i][0] == '\0';
	}
	return missing;
}

static void
find_names(struct explain *x)
{
	struct meter_view view;
	bool missing = false;

	for (uint32_t i = 0; i < x->charges; i++) {
		if (x->running && ledger_meter(&x->arena, x->charge[i].id, tool_now(), &view))
			snprintf(x->name[i], METER_NAME_BYTES, "%s", view.name);
		missing = missing || x->name[i][0] == '\0';
	}
	/* A store that cannot be read any more leaves the ids, which is no failure. */
	if (missing)
		(void)!reader_meters(x->reader, name_stored, x);
}

static const char *
name_of(const struct explain *x, uint32_t i, char id[TOOL_ID_BYTES])
{
	return x->name[i][0] ? x->name[i] : tool_id(x->charge[i].id, id);
}

static void
period_of(const struct ring_charge *c, char *out, size_t size)
{
	struct period period = meter_what_period(c->what);
	struct meter_view v = { .kind = meter_what_kind(c->what), .period = period.kind, .days = period.days };

	meter_period_text(&v, out, size);
}

/* ---- for programs ---- */

static void
add_json_charge(const struct explain *x, uint32_t i, struct buf *out)
{
	const struct ring_charge *c = &x->charge[i];
	char id[TOOL_ID_BYTES], period[TOOL_TIME_BYTES];

	period_of(c, period, sizeof(period));
	buf_printf(out, "%s{\"id\":\"%s\",\"name\":", i ? "," : "", tool_id(c->id, id));
	buf_add_json(out, slice_of(name_of(x, i, id)));
	buf_printf(out, ",\"kind\":\"%s\",\"unit\":\"%s\",\"period\":\"%s\",\"held\":%" PRId64 ",\"settled\":%" PRId64 "}",
	    meter_kind_name(meter_what_kind(c->what)), meter_unit_name(meter_what_unit(c->what)), period, c->held, c->amount);
}

static void
add_json(const struct explain *x, struct buf *out)
{
	buf_add_str(out, "{\"record\":");
	record_to_json(&x->record, x->id, out);
	buf_add_str(out, ",\"charges\":[");
	for (uint32_t i = 0; i < x->charges; i++)
		add_json_charge(x, i, out);
	buf_add_str(out, "]}\n");
}

/* ---- for people ---- */

static void
add_pair(struct buf *out, const char *before, struct slice value)
{
	if (value.n == 0)
		return;
	buf_add_str(out, before);
	tool_words(out, value);
}

static void
add_who(const struct record *r, struct buf *out)
{
	buf_add_str(out, "who       ");
	add_pair(out, "key ", r->key);
	if (r->key.n == 0)
		buf_add_str(out, "nobody that weir knows");
	add_pair(out, " of workspace ", r->workspace);
	add_pair(out, " (", r->key_id);
	buf_add_str(out, r->key_id.n ? ")" : "");
	add_pair(out, ", ", r->client);
	add_pair(out, " ", r->client_version);
	add_pair(out, ", from ", r->remote_address);
	add_pair(out, "\nmetadata  ", r->metadata);
	add_pair(out, "\nsession   ", r->session_id);
}

static void
add_what(const struct record *r, struct buf *out)
{
	buf_add_str(out, "\nwhat      ");
	tool_words(out, r->route_name);
	add_pair(out, ", model ", r->model.n ? r->model : r->model_requested);
	if (r->model.n && r->model_requested.n && !slice_eq(r->model, r->model_requested))
		add_pair(out, ", asked for as ", r->model_requested);
	add_pair(out, ", to ", r->provider);
	add_pair(out, ", the provider's id ", r->provider_request_id);
	add_pair(out, "\nrouted    by config ", r->config);
	add_pair(out, " of version ", r->config_version);
	add_pair(out, r->config.n ? ", target " : "\nrouted    to ", r->target);
}

/* One line for each that was made; the last of them gave the answer. */
static void
add_tries(const struct record *r, struct buf *out)
{
	struct slice rest = r->tries;
	char time[TOOL_TIME_BYTES];
	struct record_try t;

	for (uint32_t n = 1; record_try_read(&rest, &t); n++) {
		buf_printf(out, "\nattempt %u ", n);
		add_pair(out, "", t.target);
		add_pair(out, ", provider ", t.provider);
		add_pair(out, ", model ", t.model);
		if (t.status)
			buf_printf(out, ": status %u", t.status);
		else
			buf_add_str(out, ": no answer");
		add_pair(out, ", ", t.error);
		buf_printf(out, ", after %s", tool_duration((int64_t)t.ms * NS_PER_MS, time));
		if (t.cost_nusd > 0) {
			char amount[TOOL_AMOUNT_BYTES];
			buf_printf(out, ", cost %s", tool_amount(UNIT_NUSD, t.cost_nusd, amount));
		}
	}
}

static void
add_cache(const struct record *r, struct buf *out)
{
	char amount[TOOL_AMOUNT_BYTES];

	switch ((enum record_cache)r->fixed.cache) {
	case CACHE_HIT:
		buf_printf(out, "\ncache     a hit: the answer was there, and saved %s", tool_amount(UNIT_NUSD, r->fixed.saved_nusd, amount));
		break;
	case CACHE_MISS:
		buf_add_str(out, "\ncache     a miss: the answer was not there");
		break;
	case CACHE_REFRESH:
		buf_add_str(out, "\ncache     passed by: the request asked for a new answer");
		break;
	case CACHE_DISABLED:
	case CACHE_COUNT:
		break;
	}
}

static void
add_answer(const struct record *r, struct buf *out)
{
	const struct record_fixed *f = &r->fixed;
	char time[TOOL_TIME_BYTES];

	buf_printf(out, "\nanswer    %s, status %u after %s", record_outcome_name(f->outcome), f->status, tool_duration(f->total_ns, time));
	if (f->upstream_ns > 0)
		buf_printf(out, " (the provider: %s)", tool_duration(f->upstream_ns, time));
	if (f->attempts > 1)
		buf_printf(out, ", %u attempts", f->attempts);
	add_pair(out, ", ", r->error_type);
	add_pair(out, ": ", r->error_message);
	if (f->outcome == OUTCOME_REFUSED && r->limit.n > 0) {
		buf_add_str(out, "\nrefused   by the limit \"");
		tool_words(out, r->limit);
		buf_add_str(out, "\"; a request that is refused uses nothing of any limit");
	}
}

static void
add_usage(const struct record *r, struct buf *out)
{
	const struct record_fixed *f = &r->fixed;
	char amount[TOOL_AMOUNT_BYTES];
	bool any = false;

	buf_add_str(out, "\nused      ");
	for (int c = 0; c < TOKENS_CLASSES; c++) {
		if (f->tokens[c] == 0)
			continue;
		buf_printf(out, "%s%s %" PRId64, any ? ", " : "", token_class_name((enum token_class)c), f->tokens[c]);
		any = true;
	}
	buf_add_str(out, any ? "" : "nothing");
	if (f->attempts == 0 && f->cost_nusd == 0)
		return;		/* it never left: a price would say nothing */
	buf_printf(out, "\ncost      %s", tool_amount(UNIT_NUSD, f->cost_nusd, amount));
	buf_printf(out, " of %s that were held", tool_amount(UNIT_NUSD, f->held_nusd, amount));
	add_pair(out, ", by the price ", r->price);
}

/* What the flags mean for who wonders about a number. */
static void
add_notes(const struct record *r, struct buf *out)
{
	const struct record_fixed *f = &r->fixed;
	char time[TOOL_TIME_BYTES];

	if (f->flags & RECORD_FLAG(CLAMPED))
		buf_printf(out, "\nclamped   max_tokens was lowered from %" PRId64 " to %" PRId64 ", which is what a budget pays", f->asked_tokens,
		    f->granted_tokens);
	if (f->flags & RECORD_FLAG(COUNTED))
		buf_add_str(out, "\ncounted   the provider was asked for the exact size of the prompt, because its upper bound did not fit");
	if (f->flags & RECORD_FLAG(WAITED))
		buf_printf(out, "\nwaited    %s for room", tool_duration(f->wait_ns, time));
	if (f->outcome == OUTCOME_WORKER_DIED)
		buf_add_str(out, "\nnote      its worker died; it was settled at what had been metered until then");
	if (f->flags & RECORD_FLAG(ESTIMATED))
		buf_add_str(out, "\nnote      cost or tokens are an estimate: the provider did not say");
	if (f->flags & RECORD_FLAG(PARTIAL))
		buf_add_str(out, "\nnote      the answer broke off; it is billed as far as is known");
	if (f->flags & RECORD_FLAG(UNPRICED))
		buf_add_str(out, "\nnote      the model has no price: the cost is not known and not in any budget");
}

static void
add_charges(const struct explain *x, struct buf *out)
{
	char amount[TOOL_AMOUNT_BYTES], period[TOOL_TIME_BYTES], id[TOOL_ID_BYTES];

	if (x->charges == 0) {
		buf_add_str(out, "\n\nIt was charged on no limit.\n");
		return;
	}
	buf_printf(out, "\n\n%-44s %-11s %-8s %-8s %14s %14s\n", "CHARGED ON", "KIND", "PERIOD", "UNIT", "HELD", "SETTLED");
	for (uint32_t i = 0; i < x->charges; i++) {
		const struct ring_charge *c = &x->charge[i];
		enum meter_unit unit = meter_what_unit(c->what);

		period_of(c, period, sizeof(period));
		tool_cell(out, slice_of(name_of(x, i, id)), 44);
		tool_cell(out, slice_of(meter_kind_name(meter_what_kind(c->what))), 11);
		tool_cell(out, slice_of(period), 8);
		tool_cell(out, slice_of(unit == UNIT_NUSD ? "dollars" : meter_unit_name(unit)), 8);
		tool_number(out, tool_amount(unit, c->held, amount), 14);
		buf_printf(out, "%14s\n", tool_amount(unit, c->amount, amount));
	}
}

static void
add_text(const struct explain *x, struct buf *out)
{
	const struct record *r = &x->record;
	char time[TOOL_TIME_BYTES];

	buf_add_str(out, "request   ");
	tool_words(out, r->request_id);
	buf_printf(out, " at %s\n", tool_time(r->fixed.start_wall_ns, time));
	add_who(r, out);
	add_what(r, out);
	add_tries(r, out);
	add_answer(r, out);
	add_cache(r, out);
	add_usage(r, out);
	add_notes(r, out);
	add_charges(x, out);
}

/* ---- the command ---- */

static int
show(struct explain *x)
{
	struct buf out;

	find_names(x);
	buf_init(&out, TEXT_BYTES_MAX);
	if (x->json)
		add_json(x, &out);
	else
		add_text(x, &out);
	signal(SIGPIPE, SIG_IGN);
	fwrite(out.p, 1, out.n, stdout);	/* tool_printed() looks whether it has arrived */
	buf_free(&out);
	return tool_printed("explain");
}

static int
explain(struct explain *x)
{
	char why[WHY_BYTES], unused[WHY_BYTES];
	int status = 1;

	x->reader = reader_open(x->store.folder, why, sizeof(why));
	if (!x->reader) {
		fprintf(stderr, "weir: explain: %s\n", why);
		return 1;
	}
	x->running = tool_arena_open(&x->arena, x->store.run_folder, false, unused, sizeof(unused));
	if (find(x) != 0)
		fprintf(stderr, "weir: explain: the records in %s cannot be read\n", x->store.folder);
	else if (x->no_memory)
		fprintf(stderr, "weir: explain: not enough memory\n");
	else if (x->id == 0)
		fprintf(stderr, "weir: explain: there is no record of \"%s\" in %s; one is written when its request has ended\n",
		    x->wanted, x->store.folder);
	else
		status = show(x);
	if (x->running)
		arena_close(&x->arena);
	reader_close(x->reader);
	free(x->bytes);
	return status;
}

/* Which of the two is asked, and whether all words belong to it. */
static int
check_words(const struct explain *x, const struct explain_ask *ask, const char *settings)
{
	const struct { const char *name; bool given; } of_routes[] = {
		{ "key", ask->key }, { "metadata", ask->metadata }, { "body", ask->body }, { "session", ask->session },
		{ "path", ask->path }, { "settings", settings },
	};

	if (!x->wanted)
		return x->json ? args_mistake("explain", "--json is for what was: with the id of a request") : ARGS_GO;
	for (size_t i = 0; i < sizeof(of_routes) / sizeof(*of_routes); i++)
		if (of_routes[i].given)
			return args_mistake("explain", "--%s is for what would be: without the id of a request", of_routes[i].name);
	return *x->wanted ? ARGS_GO : args_mistake("explain", "the id of a request is expected");
}

int
cmd_explain(int argc, char **argv)
{
	struct explain x = { .wanted = NULL };
	struct explain_ask ask = { .config = NULL };
	struct settings *settings = NULL;
	const char *settings_file = NULL;
	const struct arg list[] = {
		{ "json", ARG_FLAG, &x.json }, { "config", ARG_TEXT, &ask.config }, { "data-dir", ARG_TEXT, &x.store.data_dir },
		{ "run-dir", ARG_TEXT, &x.store.run_dir }, { "key", ARG_TEXT, &ask.key }, { "metadata", ARG_TEXT, &ask.metadata },
		{ "body", ARG_TEXT, &ask.body }, { "session", ARG_TEXT, &ask.session }, { "path", ARG_TEXT, &ask.path },
		{ "settings", ARG_TEXT, &settings_file },
	};
	const struct args args = { "explain", usage, list, sizeof(list) / sizeof(*list), &x.wanted };
	int status = args_parse(&args, argc, argv);

	if (status == ARGS_GO && !x.wanted && !ask.config && !ask.key)
		status = args_mistake("explain", "the id of a request is expected: header x-weir-request-id, or weir logs --json; "
		    "or --config or --key of one that is yet to come");
	if (status == ARGS_GO)
		status = check_words(&x, &ask, settings_file);
	if (status == ARGS_GO && !x.wanted) {
		ask.store = x.store;
		ask.store.config = settings_file;
		return explain_route(&ask);
	}
	x.store.config = ask.config;
	if (status == ARGS_GO)
		status = args_run_find("explain", &x.store, &settings);
	if (settings)
		settings_put(settings);
	return status == ARGS_GO ? explain(&x) : status;
}
