/* gateway/top_view.c -- see top_view.h. */
#include "gateway/top_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/tool_arena.h"
#include "gateway/tool_text.h"
#include "shm/base/clock.h"
#include "shm/ring.h"
#include "store/record.h"

__extension__ typedef __int128 wide;	/* ISO C has no name for it */

static const struct { enum metrics_counter counter; const char *name; } refusals[] = {
	{ COUNTER_REFUSED_RATE, "rate_limit" }, { COUNTER_REFUSED_BUDGET, "budget" }, { COUNTER_REFUSED_AUTH, "authentication" },
	{ COUNTER_BAD_REQUESTS, "malformed" }, { COUNTER_REFUSED_STORE, "store" }, { COUNTER_REFUSED_LIMITS, "limits" },
};
#define TARGETS_SHOWN 20	/* in text: the processes behind them are to stay on the screen */
#define REFUSALS (sizeof(refusals) / sizeof(*refusals))

/* ---- looking ---- */

bool
top_view_init(struct top_view *v, size_t rows)
{
	*v = (struct top_view){ .fullest.most = rows };
	v->before = calloc(1, sizeof(*v->before));
	v->now = calloc(1, sizeof(*v->now));
	return v->before && v->now && target_list_init(&v->targets);
}

void
top_view_free(struct top_view *v)
{
	free(v->before);
	free(v->now);
	meter_list_free(&v->fullest);
	target_list_free(&v->targets);
}

void
top_view_begin(struct top_view *v, const struct arena *a)
{
	metrics_sum(a, v->now);
	v->at = tool_now();
}

bool
top_view_look(struct top_view *v, struct arena *a)
{
	struct metrics_view *last = v->before;
	struct arena_sizes sizes = arena_sizes(a);

	v->before = v->now;
	v->at_before = v->at;
	v->now = last;
	top_view_begin(v, a);
	v->fullest.count = 0;
	v->fullest.now = v->at;
	if (v->fullest.most > 0)
		meter_list_arena(&v->fullest, a);
	meter_list_sort(&v->fullest);
	v->meters = ledger_meters_used(a);
	v->meters_capacity = sizes.meters;
	v->inflight_capacity = sizes.inflight * sizes.workers;
	v->held_nusd = ledger_inflight_held(a);
	v->store_failing = arena_store_failing(a);
	target_list_read(&v->targets, a, v->at.mono_ns);
	v->processes = process_list(a, v->process);
	v->inflight = 0;
	for (uint32_t w = 0; w < sizes.workers; w++) {
		v->ring_permille[w] = ring_fill_permille(a, w);
		v->inflight_of[w] = ledger_inflight_count(a, w);
		v->inflight += v->inflight_of[w];
	}
	return !v->fullest.no_memory;
}

/* ---- rates ---- */

/* Thousandths a second. A counter that stepped back belongs to another arena. */
static int64_t
rate_milli(const struct top_view *v, uint64_t before, uint64_t now)
{
	int64_t ns = v->at.mono_ns - v->at_before.mono_ns;

	if (ns <= 0 || now <= before)
		return 0;
	return (int64_t)((wide)(now - before) * 1000 * NS_PER_S / ns);
}

static int64_t
counter_rate(const struct top_view *v, enum metrics_counter c)
{
	return rate_milli(v, v->before->counter[c], v->now->counter[c]);
}

static uint64_t
all_requests(const struct metrics_view *m)
{
	const uint64_t *cell = &m->requests[0][0][0];
	uint64_t sum = 0;

	for (size_t i = 0; i < sizeof(m->requests) / sizeof(*cell); i++)
		sum += cell[i];
	return sum;
}

static uint64_t
all_tokens(const struct metrics_view *m, enum token_class c)
{
	uint64_t sum = 0;

	for (uint32_t p = 0; p < PROVIDERS_MAX; p++)
		sum += m->tokens[p][c];
	return sum;
}

static uint64_t
all_cost(const struct metrics_view *m)
{
	int64_t sum = 0;

	for (uint32_t p = 0; p < PROVIDERS_MAX; p++)
		sum += m->cost_nusd[p];
	return sum > 0 ? (uint64_t)sum : 0;
}

static int64_t
a_minute(int64_t milli_a_second)
{
	return (int64_t)((wide)milli_a_second * 60 / 1000);
}

static int64_t
tokens_a_minute(const struct top_view *v, enum token_class c)
{
	return a_minute(rate_milli(v, all_tokens(v->before, c), all_tokens(v->now, c)));
}

/* Web searches are counted beside tokens but are none. */
static int64_t
all_tokens_a_minute(const struct top_view *v)
{
	int64_t sum = 0;

	for (int c = 0; c < TOKENS_CLASSES; c++)
		if (c != TOKENS_WEB_SEARCHES)
			sum += tokens_a_minute(v, (enum token_class)c);
	return sum;
}

static int64_t
spend_a_minute(const struct top_view *v)
{
	int64_t ns = v->at.mono_ns - v->at_before.mono_ns;
	uint64_t before = all_cost(v->before), now = all_cost(v->now);

	return ns <= 0 || now <= before ? 0 : (int64_t)((wide)(now - before) * 60 * NS_PER_S / ns);
}

/* ---- text ---- */

/* "12.5" from 12500 */
static void
add_rate(struct buf *out, const char *before, int64_t milli, const char *behind)
{
	buf_printf(out, "%s%" PRId64 ".%" PRId64 "%s", before, milli / 1000, milli % 1000 / 100, behind);
}

static void
text_summary(const struct top_view *v, struct buf *out)
{
	char amount[TOOL_AMOUNT_BYTES], time[TOOL_TIME_BYTES];

	buf_printf(out, "weir " WEIR_VERSION "   %s   store %s\n", tool_time(v->at.wall_ns, time),
	    v->store_failing ? "FAILING: nothing is admitted" : "ok");
	add_rate(out, "requests   ", rate_milli(v, all_requests(v->before), all_requests(v->now)), "/s");
	buf_printf(out, "   in flight %u of %u   waiting %" PRId64 "   connections %" PRId64 "\n", v->inflight, v->inflight_capacity,
	    v->now->waiting, v->now->connections);
	buf_printf(out, "spend      %s/min", tool_amount(UNIT_NUSD, spend_a_minute(v), amount));
	buf_printf(out, "   held %s\n", tool_amount(UNIT_NUSD, v->held_nusd, amount));
	buf_printf(out, "tokens     %" PRId64 "/min:", all_tokens_a_minute(v));
	for (int c = 0; c < TOKENS_CLASSES; c++)
		if (c != TOKENS_WEB_SEARCHES)
			buf_printf(out, " %s %" PRId64, token_class_name((enum token_class)c), tokens_a_minute(v, (enum token_class)c));
	buf_add_str(out, "\nrefused/s ");
	for (size_t i = 0; i < REFUSALS; i++) {
		buf_printf(out, " %s", refusals[i].name);
		add_rate(out, " ", counter_rate(v, refusals[i].counter), "");
	}
	add_rate(out, "\nlimits/s   clamped ", counter_rate(v, COUNTER_CLAMPED), "");
	add_rate(out, " waited ", counter_rate(v, COUNTER_WAITED), "");
	add_rate(out, " counted ", counter_rate(v, COUNTER_COUNTED), "");
	add_rate(out, " overflowed ", counter_rate(v, COUNTER_GROUP_OVERFLOW), "");
	buf_printf(out, "   meters %u of %u\n", v->meters, v->meters_capacity);
}

static void
text_meters(const struct top_view *v, struct buf *out)
{
	char amount[TOOL_AMOUNT_BYTES], time[TOOL_TIME_BYTES];

	if (v->fullest.count == 0)
		return;
	buf_printf(out, "\n%6s %-44s %14s %14s %14s %s\n", "FULL", "METER", "USED", "HELD", "LIMIT", "RESETS IN");
	for (size_t i = 0; i < v->fullest.count; i++) {
		const struct meter_row *m = &v->fullest.row[i];
		int64_t resets_ns = meter_row_resets_ns(m, v->at);

		buf_printf(out, "%5" PRId64 "%% ", meter_row_fullness(m) / 10000);
		tool_cell(out, slice_of(m->view.name), 44);
		tool_number(out, tool_amount(m->view.unit, meter_row_used(m), amount), 14);
		tool_number(out, tool_amount(m->view.unit, m->view.held, amount), 14);
		tool_number(out, tool_amount(m->view.unit, m->view.limit, amount), 14);
		buf_printf(out, "%s\n", resets_ns ? tool_duration(resets_ns - v->at.wall_ns, time) : "-");
	}
}

static void
text_targets(const struct top_view *v, struct buf *out)
{
	char since[TOOL_TIME_BYTES], next[TOOL_TIME_BYTES];
	uint32_t shown = 0, more = 0;

	for (size_t i = 0; i < v->targets.count; i++) {
		const struct health_view *t = &v->targets.row[i];

		if (t->state == HEALTH_UP)
			continue;
		if (shown == TARGETS_SHOWN) {
			more++;
			continue;
		}
		if (shown++ == 0)
			buf_printf(out, "\n%-51s %-11s %10s  %s\n", "TARGET THAT IS OUT", "REASON", "FOR", "IS TRIED AGAIN");
		tool_cell(out, slice_of(t->name), 51);
		buf_printf(out, "%-11s %10s  ", health_why_name(t->why), tool_duration(v->at.mono_ns - t->since_mono_ns, since));
		if (t->state == HEALTH_OUT)
			buf_printf(out, "in %s\n", tool_duration(t->over_in_ns, next));
		else
			buf_add_str(out, t->state == HEALTH_PROBE_BUSY ? "now\n" : "with the next request\n");
	}
	if (more > 0)
		buf_printf(out, "and %u more\n", more);
}

static void
text_processes(const struct top_view *v, struct buf *out)
{
	char up[TOOL_TIME_BYTES], beat[TOOL_TIME_BYTES];

	buf_printf(out, "\n%-12s %9s %10s %11s %9s %10s %6s\n", "PROCESS", "PID", "UP", "HEARTBEAT", "RESTARTS", "IN FLIGHT", "RING");
	for (uint32_t i = 0; i < v->processes; i++) {
		const struct process *p = &v->process[i];

		buf_printf(out, "%-12s ", p->name);
		if (p->view.pid)
			buf_printf(out, "%9d %10s %11s ", (int)p->view.pid, tool_duration((v->at.wall_ns - p->view.started_wall_ns) / NS_PER_S * NS_PER_S, up),
			    tool_duration(v->at.mono_ns - p->view.heartbeat_mono_ns, beat));
		else
			buf_printf(out, "%9s %10s %11s ", "down", "-", "-");
		buf_printf(out, "%9" PRIu64, p->view.restarts);
		if (p->row < WORKERS_MAX)
			buf_printf(out, " %10u %5u%%", v->inflight_of[p->row], v->ring_permille[p->row] / 10);
		buf_add_char(out, '\n');
	}
}

void
top_view_text(const struct top_view *v, struct buf *out)
{
	text_summary(v, out);
	text_meters(v, out);
	text_targets(v, out);
	text_processes(v, out);
}

/* ---- JSON ---- */

static void
json_rate(struct buf *out, const char *name, int64_t milli)
{
	buf_printf(out, "\"%s\":%" PRId64 ".%03" PRId64, name, milli / 1000, milli % 1000);
}

static void
json_rates(const struct top_view *v, struct buf *out)
{
	json_rate(out, "requests_per_second", rate_milli(v, all_requests(v->before), all_requests(v->now)));
	buf_printf(out, ",\"spend_nusd_per_minute\":%" PRId64 ",\"tokens_per_minute\":{", spend_a_minute(v));
	for (int c = 0; c < TOKENS_CLASSES; c++)
		if (c != TOKENS_WEB_SEARCHES)
			buf_printf(out, "%s\"%s\":%" PRId64, c ? "," : "", token_class_name((enum token_class)c),
			    tokens_a_minute(v, (enum token_class)c));
	buf_add_str(out, "},\"refused_per_second\":{");
	for (size_t i = 0; i < REFUSALS; i++) {
		buf_add_str(out, i ? "," : "");
		json_rate(out, refusals[i].name, counter_rate(v, refusals[i].counter));
	}
	buf_add_str(out, "},");
	json_rate(out, "clamped_per_second", counter_rate(v, COUNTER_CLAMPED));
	buf_add_char(out, ',');
	json_rate(out, "waited_per_second", counter_rate(v, COUNTER_WAITED));
	buf_add_char(out, ',');
	json_rate(out, "counted_per_second", counter_rate(v, COUNTER_COUNTED));
	buf_add_char(out, ',');
	json_rate(out, "overflowed_per_second", counter_rate(v, COUNTER_GROUP_OVERFLOW));
}

static void
json_targets(const struct top_view *v, struct buf *out)
{
	static const char *const states[] = { [HEALTH_OUT] = "out", [HEALTH_PROBE_FREE] = "may_be_tried", [HEALTH_PROBE_BUSY] = "is_tried" };
	const char *comma = "";

	for (size_t i = 0; i < v->targets.count; i++) {
		const struct health_view *t = &v->targets.row[i];

		if (t->state == HEALTH_UP)
			continue;
		buf_printf(out, "%s{\"name\":", comma);
		buf_add_json(out, slice_of(t->name));
		buf_printf(out, ",\"state\":\"%s\",\"reason\":\"%s\",\"out_ms\":%" PRId64 ",\"over_in_ms\":%" PRId64 ",\"ejections\":%u}",
		    states[t->state], health_why_name(t->why), (v->at.mono_ns - t->since_mono_ns) / NS_PER_MS, t->over_in_ns / NS_PER_MS,
		    t->ejections);
		comma = ",";
	}
}

static void
json_process(const struct top_view *v, const struct process *p, struct buf *out)
{
	char started[TOOL_TIME_BYTES];

	buf_printf(out, "{\"name\":\"%s\",\"pid\":%d,\"started\":\"%s\",\"heartbeat_age_ms\":%" PRId64 ",\"restarts\":%" PRIu64, p->name,
	    (int)p->view.pid, tool_time(p->view.started_wall_ns, started), (v->at.mono_ns - p->view.heartbeat_mono_ns) / NS_PER_MS,
	    p->view.restarts);
	if (p->row < WORKERS_MAX)
		buf_printf(out, ",\"in_flight\":%u,\"ring_permille\":%u", v->inflight_of[p->row], v->ring_permille[p->row]);
	buf_add_char(out, '}');
}

void
top_view_json(const struct top_view *v, struct buf *out)
{
	char time[TOOL_TIME_BYTES];

	buf_printf(out, "{\"time\":\"%s\",\"version\":\"" WEIR_VERSION "\",\"store_failing\":%s,\"interval_ms\":%" PRId64 ",",
	    tool_time(v->at.wall_ns, time), v->store_failing ? "true" : "false", (v->at.mono_ns - v->at_before.mono_ns) / NS_PER_MS);
	json_rates(v, out);
	buf_printf(out, ",\"in_flight\":%u,\"in_flight_capacity\":%u,\"waiting\":%" PRId64 ",\"connections\":%" PRId64
	    ",\"held_nusd\":%" PRId64 ",\"meters\":%u,\"meters_capacity\":%u,\"fullest\":[", v->inflight, v->inflight_capacity,
	    v->now->waiting, v->now->connections, v->held_nusd, v->meters, v->meters_capacity);
	for (size_t i = 0; i < v->fullest.count; i++) {
		buf_add_str(out, i ? "," : "");
		meter_row_json(&v->fullest.row[i], v->at, out);
	}
	buf_add_str(out, "],\"targets_out\":[");
	json_targets(v, out);
	buf_add_str(out, "],\"processes\":[");
	for (uint32_t i = 0; i < v->processes; i++) {
		buf_add_str(out, i ? "," : "");
		json_process(v, &v->process[i], out);
	}
	buf_add_str(out, "]}\n");
}
