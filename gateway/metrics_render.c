/*
 * gateway/metrics_render.c -- the arena's counters as Prometheus text.
 *
 * Families come one after the other, each with HELP and TYPE and all of its
 * samples. Numbers are kept as integers up to the last step: dollars are
 * printed from nano-dollars and seconds from nanoseconds digit by digit, so
 * that a scrape shows exactly what the ledger holds. A status that no answer
 * had is not a series. docs/metrics.md lists all of it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/admin.h"
#include "gateway/process_list.h"
#include "gateway/routes.h"
#include "gateway/target_list.h"
#include "shm/base/clock.h"
#include "shm/ledger.h"
#include "shm/metrics.h"
#include "shm/ring.h"
#include "store/record.h"

#define LABEL_BYTES (2 * HEALTH_NAME_BYTES)	/* the longest name, every byte escaped, fits */

_Static_assert((int)TOKENS_CLASSES <= METRICS_TOKEN_CLASSES, "a column a class");

struct counter_row {
	enum metrics_counter counter;
	const char *name, *labels, *help;	/* help NULL: one more sample of the family above */
};

static const struct counter_row counter_rows[] = {
	{ COUNTER_CONNECTIONS, "weir_connections_accepted_total", "", "Client connections accepted." },
	{ COUNTER_REFUSED_AUTH, "weir_refused_requests_total", "{reason=\"authentication\"}",
	    "Requests that weir refused, by reason." },
	{ COUNTER_REFUSED_BUDGET, "weir_refused_requests_total", "{reason=\"budget\"}", NULL },
	{ COUNTER_REFUSED_RATE, "weir_refused_requests_total", "{reason=\"rate_limit\"}", NULL },
	{ COUNTER_BAD_REQUESTS, "weir_refused_requests_total", "{reason=\"malformed\"}", NULL },
	{ COUNTER_REFUSED_STORE, "weir_refused_requests_total", "{reason=\"store\"}", NULL },
	{ COUNTER_REFUSED_LIMITS, "weir_refused_requests_total", "{reason=\"limits\"}", NULL },
	{ COUNTER_CLAMPED, "weir_clamped_total", "", "Requests whose max_tokens was lowered to what a budget pays." },
	{ COUNTER_COUNTED, "weir_counted_total", "",
	    "Requests whose prompt a provider was asked to count, because its bound did not fit into a budget." },
	{ COUNTER_WAITED, "weir_admission_waited_total", "", "Requests that waited for room in a limit." },
	{ COUNTER_GROUP_OVERFLOW, "weir_group_overflow_total", "",
	    "Requests charged on a policy's overflow meter, because it has groups_max groups already." },
	{ COUNTER_ALERTS_THRESHOLD, "weir_limit_alerts_total", "{kind=\"threshold\"}",
	    "Budgets that passed their alert_threshold, and budgets that were used up." },
	{ COUNTER_ALERTS_EXHAUSTED, "weir_limit_alerts_total", "{kind=\"exhausted\"}", NULL },
	{ COUNTER_EVICTED, "weir_meters_evicted_total", "", "Idle meters that were taken out of the arena." },
	{ COUNTER_CLIENT_GONE, "weir_clients_gone_total", "",
	    "Requests whose client left before the end of its answer." },
	{ COUNTER_UPSTREAM_ERRORS, "weir_upstream_errors_total", "",
	    "Failed exchanges with providers: connection, TLS, time-out, protocol." },
	{ COUNTER_UPSTREAM_CONNECTS, "weir_upstream_connections_opened_total", "",
	    "New connections to providers; other requests reused one." },
	{ COUNTER_PINGS, "weir_pings_total", "", "Keep-alive events that weir put into silent streams." },
	{ COUNTER_UNPRICED, "weir_unpriced_requests_total", "",
	    "Requests to a model that has no price: their cost is not known." },
	{ COUNTER_BYTES_IN, "weir_request_body_bytes_total", "", "Bytes of request bodies from clients." },
	{ COUNTER_BYTES_OUT, "weir_response_body_bytes_total", "", "Bytes of response bodies to clients." },
};
_Static_assert(sizeof(counter_rows) / sizeof(counter_rows[0]) == COUNTER_COUNT, "every counter is shown");

static const struct { const char *name, *help; } histogram_rows[HISTOGRAM_COUNT] = {
	[HISTOGRAM_TOTAL] = { "weir_request_duration_seconds",
	    "From a request's first byte in to its answer's last byte out." },
	[HISTOGRAM_UPSTREAM] = { "weir_upstream_duration_seconds",
	    "From the request to the provider to the last byte of its answer." },
	[HISTOGRAM_FIRST_BYTE] = { "weir_upstream_first_byte_seconds",
	    "From the request to the provider to the first byte of its answer." },
	[HISTOGRAM_OVERHEAD] = { "weir_overhead_seconds", "A request's duration less its provider's part." },
};

static void
family(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and line feed escaped, as the format says. */
static const char *
label(const char *value, char text[LABEL_BYTES])
{
	size_t n = 0;

	for (; *value && n + 3 < LABEL_BYTES; value++) {
		if (*value == '\\' || *value == '"' || *value == '\n')
			text[n++] = '\\';
		text[n++] = *value == '\n' ? 'n' : *value;
	}
	text[n] = '\0';
	return text;
}

/* Nanos of anything as a decimal of the unit, without needless zeros. */
static void
add_nanos(struct buf *out, int64_t nanos)
{
	uint64_t n = nanos < 0 ? 0 - (uint64_t)nanos : (uint64_t)nanos;
	char digits[10];

	snprintf(digits, sizeof(digits), "%09u", (unsigned)(n % 1000000000u));
	size_t length = 9;
	while (length > 0 && digits[length - 1] == '0')
		digits[--length] = '\0';
	buf_printf(out, "%s%" PRIu64 "%s%s", nanos < 0 ? "-" : "", n / 1000000000u, length ? "." : "", digits);
}

/* Row `index` of the per-provider counters. */
static const char *
provider_label(const struct settings *s, uint32_t index, char text[LABEL_BYTES])
{
	if (index == 0)
		return "none";
	if (index <= s->providers_count)
		return label(s->providers[index - 1].slug, text);
	snprintf(text, LABEL_BYTES, "former_%u", index);	/* the settings name fewer now */
	return text;
}

/* ---- families ---- */

static void
render_requests(const struct metrics_view *v, const struct settings *s, struct buf *out)
{
	char provider[LABEL_BYTES], status[8];

	family(out, "weir_requests_total", "counter", "Requests answered, by route, status and provider.");
	for (uint32_t r = 0; r < ROUTE_COUNT; r++)
		for (uint32_t p = 0; p < PROVIDERS_MAX; p++)
			for (uint32_t c = 0; c < STATUSES_MAX; c++) {
				if (v->requests[r][p][c] == 0)
					continue;
				snprintf(status, sizeof(status), "%u", metrics_statuses[c]);
				buf_printf(out, "weir_requests_total{route=\"%s\",status=\"%s\",provider=\"%s\"} %" PRIu64 "\n",
				    route_rows[r].name.p, metrics_statuses[c] ? status : "other",
				    provider_label(s, p, provider), v->requests[r][p][c]);
			}
}

static bool
provider_shown(const struct metrics_view *v, const struct settings *s, uint32_t p)
{
	if (p >= 1 && p <= s->providers_count)
		return true;
	for (uint32_t c = 0; c < TOKENS_CLASSES; c++)
		if (v->tokens[p][c] != 0)
			return true;
	return v->cost_nusd[p] != 0;
}

static void
render_usage(const struct metrics_view *v, const struct settings *s, struct buf *out)
{
	char provider[LABEL_BYTES];

	family(out, "weir_tokens_total", "counter", "Tokens that providers metered, by class.");
	for (uint32_t p = 0; p < PROVIDERS_MAX; p++)
		for (uint32_t c = 0; provider_shown(v, s, p) && c < TOKENS_CLASSES; c++)
			if (c != TOKENS_WEB_SEARCHES)
				buf_printf(out, "weir_tokens_total{provider=\"%s\",class=\"%s\"} %" PRIu64 "\n",
				    provider_label(s, p, provider), token_class_name((enum token_class)c), v->tokens[p][c]);
	family(out, "weir_web_searches_total", "counter", "Web searches that providers made and bill.");
	for (uint32_t p = 0; p < PROVIDERS_MAX; p++)
		if (provider_shown(v, s, p))
			buf_printf(out, "weir_web_searches_total{provider=\"%s\"} %" PRIu64 "\n",
			    provider_label(s, p, provider), v->tokens[p][TOKENS_WEB_SEARCHES]);
	family(out, "weir_cost_dollars_total", "counter", "Metered cost in US dollars.");
	for (uint32_t p = 0; p < PROVIDERS_MAX; p++) {
		if (!provider_shown(v, s, p))
			continue;
		buf_printf(out, "weir_cost_dollars_total{provider=\"%s\"} ", provider_label(s, p, provider));
		add_nanos(out, v->cost_nusd[p]);
		buf_add_char(out, '\n');
	}
}

static void
render_histograms(const struct metrics_view *v, struct buf *out)
{
	for (uint32_t h = 0; h < HISTOGRAM_COUNT; h++) {
		const struct metrics_histogram_view *view = &v->histogram[h];
		const char *name = histogram_rows[h].name;
		uint64_t below = 0;

		family(out, name, "histogram", histogram_rows[h].help);
		for (uint32_t b = 0; b < METRICS_BUCKETS; b++) {
			below += view->bucket[b];
			buf_printf(out, "%s_bucket{le=\"", name);
			add_nanos(out, metrics_bounds_ns[b]);
			buf_printf(out, "\"} %" PRIu64 "\n", below);
		}
		/* The sum over buckets, not `count`: a scrape between two stores of
		 * a worker must still add up. */
		below += view->bucket[METRICS_BUCKETS];
		buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", name, below, name);
		add_nanos(out, view->sum_ns);
		buf_printf(out, "\n%s_count %" PRIu64 "\n", name, below);
	}
}

static void
render_counters(const struct metrics_view *v, struct buf *out)
{
	for (size_t i = 0; i < sizeof(counter_rows) / sizeof(counter_rows[0]); i++) {
		const struct counter_row *row = &counter_rows[i];

		if (row->help)
			family(out, row->name, "counter", row->help);
		buf_printf(out, "%s%s %" PRIu64 "\n", row->name, row->labels, v->counter[row->counter]);
	}
}

static void
gauge(struct buf *out, const char *name, int64_t value, const char *help)
{
	family(out, name, "gauge", help);
	buf_printf(out, "%s %" PRId64 "\n", name, value);
}

static void
render_arena(const struct arena *a, const struct metrics_view *v, struct buf *out)
{
	struct arena_sizes sizes = arena_sizes(a);
	int64_t inflight = 0;

	for (uint32_t w = 0; w < sizes.workers; w++)
		inflight += ledger_inflight_count(a, w);
	gauge(out, "weir_connections", v->connections, "Client connections that are open.");
	gauge(out, "weir_admission_waiting", v->waiting, "Requests that wait for room in a limit.");
	gauge(out, "weir_requests_in_flight", inflight, "Admitted requests that are not settled yet.");
	gauge(out, "weir_requests_in_flight_capacity", (int64_t)sizes.inflight * sizes.workers,
	    "Requests that can be in flight at once (setting ledger.inflight, times workers).");
	family(out, "weir_budget_held_dollars", "gauge", "US dollars reserved by requests in flight, over all budgets.");
	buf_add_str(out, "weir_budget_held_dollars ");
	add_nanos(out, ledger_inflight_held(a));
	buf_add_char(out, '\n');
	gauge(out, "weir_store_failing", arena_store_failing(a),
	    "1 while the store cannot be written: no request is admitted.");
	gauge(out, "weir_arena_meters", ledger_meters_used(a), "Meters of limits in the arena.");
	gauge(out, "weir_arena_meters_capacity", sizes.meters,
	    "Meters for which there is room (setting ledger.meters).");
	gauge(out, "weir_arena_bytes", (int64_t)a->bytes, "Size of the shared memory of all processes.");
	family(out, "weir_ring_fill_ratio", "gauge",
	    "How full a worker's ring of finished requests is; at 1 its intake stops.");
	for (uint32_t w = 0; w < sizes.workers; w++) {
		buf_printf(out, "weir_ring_fill_ratio{worker=\"%u\"} ", w);
		add_nanos(out, (int64_t)ring_fill_permille(a, w) * 1000000);
		buf_add_char(out, '\n');
	}
}

/* ---- targets ---- */

static void
render_targets(const struct arena *a, int64_t mono_ns, struct buf *out)
{
	struct health_counts counts = health_counts(a);
	struct target_list targets;
	char name[LABEL_BYTES];

	CHECK(target_list_init(&targets));
	target_list_read(&targets, a, mono_ns);
	family(out, "weir_target_up", "gauge", "1 while requests go to the target, 0 while it is out, for those that failed lately.");
	for (size_t i = 0; i < targets.count; i++)
		buf_printf(out, "weir_target_up{target=\"%s\"} %d\n", label(targets.row[i].name, name), targets.row[i].state == HEALTH_UP);
	family(out, "weir_target_out", "gauge", "1 for each target that is out, with the reason.");
	for (size_t i = 0; i < targets.count; i++)
		if (targets.row[i].state != HEALTH_UP)
			buf_printf(out, "weir_target_out{target=\"%s\",reason=\"%s\"} 1\n", label(targets.row[i].name, name),
			    health_why_name(targets.row[i].why));
	target_list_free(&targets);
	family(out, "weir_targets_ejected_total", "counter", "Times that a target was taken out, by reason; failed probes too.");
	for (int why = 0; why < HEALTH_WHYS; why++)
		buf_printf(out, "weir_targets_ejected_total{reason=\"%s\"} %" PRIu64 "\n", health_why_name((enum health_why)why),
		    counts.ejected[why]);
	family(out, "weir_target_reports_lost_total", "counter", "Failures of targets for which the table had no room: they count as healthy.");
	buf_printf(out, "weir_target_reports_lost_total %" PRIu64 "\n", counts.unkept);
}

/* ---- processes ---- */

static void
render_processes(const struct arena *a, struct buf *out)
{
	struct process all[PROC_COUNT];
	uint32_t n = process_list(a, all);

	family(out, "weir_process_up", "gauge", "1 while the process runs.");
	for (uint32_t i = 0; i < n; i++)
		buf_printf(out, "weir_process_up{process=\"%s\"} %d\n", all[i].name, all[i].view.pid != 0);
	family(out, "weir_process_start_time_seconds", "gauge", "When the process started, since 1970.");
	for (uint32_t i = 0; i < n; i++) {
		buf_printf(out, "weir_process_start_time_seconds{process=\"%s\"} ", all[i].name);
		add_nanos(out, all[i].view.started_wall_ns);
		buf_add_char(out, '\n');
	}
	family(out, "weir_process_restarts_total", "counter", "Starts of the process after its first.");
	for (uint32_t i = 0; i < n; i++)
		buf_printf(out, "weir_process_restarts_total{process=\"%s\"} %" PRIu64 "\n", all[i].name,
		    all[i].view.restarts);
}

void
metrics_render(const struct arena *a, const struct settings *s, int64_t mono_ns, struct buf *out)
{
	struct metrics_view *v = calloc(1, sizeof(*v));	/* some 60 KiB */

	CHECK(v);
	metrics_sum(a, v);
	render_requests(v, s, out);
	render_usage(v, s, out);
	render_histograms(v, out);
	render_counters(v, out);
	render_arena(a, v, out);
	render_targets(a, mono_ns, out);
	render_processes(a, out);
	gauge(out, "weir_settings_version", (int64_t)s->version, "Which settings are in force: 1 at start, one more each reload.");
	family(out, "weir_build_info", "gauge", "Always 1; the version is in the label.");
	buf_printf(out, "weir_build_info{version=\"%s\"} 1\n", WEIR_VERSION);
	free(v);
}
