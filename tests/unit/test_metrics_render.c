/*
 * The text that Prometheus reads: the exact lines for known counters, the
 * rules of the format for all of them, and promtool's opinion where it is
 * installed. docs/metrics.md must list each family, and nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/admin.h"
#include "gateway/routes.h"
#include "shm/base/clock.h"
#include "shm/health.h"
#include "shm/metrics.h"
#include "store/record.h"

#define NOW_NS (INT64_C(1000000) * NS_PER_S)	/* only targets have to do with it */

static char path[] = "/tmp/weir-test-metrics-XXXXXX";
static struct arena arena;
static struct setting_provider providers[2];
static struct settings settings = {
	.refs = 1, .version = 3, .providers = providers, .providers_count = 2,
};

static int
set_up(void **state)
{
	(void)state;
	struct arena_sizes want = { .workers = 2, .inflight = 16, .ring_bytes = 65536, .meters = 1024 };
	enum arena_origin origin;
	char why[256];
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	close(fd);
	unlink(path);
	if (arena_open(&arena, path, &want, &origin, why, sizeof(why)) != 0) {
		print_error("%s\n", why);
		return -1;
	}
	providers[0] = (struct setting_provider){ .slug = (char *)(uintptr_t)"anthropic", .index = 1 };
	providers[1] = (struct setting_provider){ .slug = (char *)(uintptr_t)"odd\"\\\n", .index = 2 };
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	char lock[64];

	arena_close(&arena);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	return unlink(path);
}

static struct buf
render(void)
{
	struct buf out;

	buf_init(&out, 8u << 20);
	metrics_render(&arena, &settings, NOW_NS, &out);
	assert_false(out.overflow);
	buf_add_char(&out, '\0');
	out.n--;
	return out;
}

static void
expect_line(const struct buf *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = text->p; (p = strstr(p, line)); p += n)
		if ((p == text->p || p[-1] == '\n') && p[n] == '\n')
			return;
	fail_msg("no line \"%s\" in:\n%s", line, text->p);
}

static void
expect_none(const struct buf *text, const char *words)
{
	if (strstr(text->p, words))
		fail_msg("\"%s\" in:\n%s", words, text->p);
}

static void
test_nothing_yet(void **state)
{
	(void)state;
	struct buf text = render();

	expect_none(&text, "weir_requests_total{");
	expect_line(&text, "# TYPE weir_requests_total counter");
	expect_line(&text, "weir_cost_dollars_total{provider=\"anthropic\"} 0");
	expect_line(&text, "weir_cost_dollars_total{provider=\"odd\\\"\\\\\\n\"} 0");
	expect_line(&text, "weir_request_duration_seconds_bucket{le=\"+Inf\"} 0");
	expect_line(&text, "weir_request_duration_seconds_sum 0");
	expect_line(&text, "weir_requests_in_flight 0");
	expect_line(&text, "weir_requests_in_flight_capacity 32");
	expect_line(&text, "weir_store_failing 0");
	expect_line(&text, "weir_arena_meters 0");
	expect_line(&text, "weir_arena_meters_capacity 1024");
	expect_line(&text, "weir_ring_fill_ratio{worker=\"1\"} 0");
	expect_line(&text, "weir_settings_version 3");
	expect_line(&text, "weir_build_info{version=\"" WEIR_VERSION "\"} 1");
	expect_none(&text, "process=\"");
	expect_none(&text, "target=\"");
	expect_line(&text, "weir_targets_ejected_total{reason=\"credential\"} 0");
	expect_line(&text, "weir_target_reports_lost_total 0");
	buf_free(&text);
}

static void
test_counted(void **state)
{
	(void)state;
	int64_t tokens[METRICS_TOKEN_CLASSES] = { 0 };

	metrics_request(&arena, 0, ROUTE_MESSAGES, 1, 200);
	metrics_request(&arena, 1, ROUTE_MESSAGES, 1, 200);
	metrics_request(&arena, 0, ROUTE_COUNT_TOKENS, 0, 429);
	metrics_request(&arena, 0, ROUTE_NONE, 0, 699);
	metrics_request(&arena, 0, ROUTE_MESSAGES, 5, 200);
	tokens[TOKENS_INPUT] = 1000;
	tokens[TOKENS_CACHE_READ] = 77;
	tokens[TOKENS_WEB_SEARCHES] = 2;
	metrics_tokens(&arena, 0, 1, tokens, INT64_C(12345678901234567));
	metrics_tokens(&arena, 1, 1, tokens, 1);
	metrics_observe(&arena, 0, HISTOGRAM_OVERHEAD, metrics_bounds_ns[0]);
	metrics_observe(&arena, 1, HISTOGRAM_OVERHEAD, metrics_bounds_ns[1]);
	metrics_observe(&arena, 1, HISTOGRAM_OVERHEAD, 3600 * NS_PER_S + 5);
	metrics_add(&arena, 0, COUNTER_REFUSED_RATE, 4);
	metrics_add(&arena, 1, COUNTER_PINGS, 9);
	metrics_add(&arena, 0, COUNTER_REFUSED_STORE, 2);
	metrics_add(&arena, 1, COUNTER_CLAMPED, 5);
	metrics_add(&arena, metrics_keeper_row(&arena), COUNTER_EVICTED, 6);
	metrics_add(&arena, metrics_keeper_row(&arena), COUNTER_ALERTS_THRESHOLD, 8);
	metrics_add(&arena, metrics_keeper_row(&arena), COUNTER_ALERTS_EXHAUSTED, 1);
	arena_store_failing_set(&arena, true);
	metrics_connections(&arena, 0, 3);
	metrics_connections(&arena, 1, 2);
	arena_proc_start(&arena, 1, 4242);
	arena_proc_start(&arena, PROC_KEEPER, 4243);
	arena_proc_stop(&arena, PROC_KEEPER);

	struct buf text = render();
	expect_line(&text, "weir_requests_total{route=\"messages\",status=\"200\",provider=\"anthropic\"} 2");
	expect_line(&text, "weir_requests_total{route=\"count_tokens\",status=\"429\",provider=\"none\"} 1");
	expect_line(&text, "weir_requests_total{route=\"none\",status=\"other\",provider=\"none\"} 1");
	expect_line(&text, "weir_requests_total{route=\"messages\",status=\"200\",provider=\"former_5\"} 1");
	expect_line(&text, "weir_tokens_total{provider=\"anthropic\",class=\"input\"} 2000");
	expect_line(&text, "weir_tokens_total{provider=\"anthropic\",class=\"cache_read\"} 154");
	expect_line(&text, "weir_tokens_total{provider=\"anthropic\",class=\"output\"} 0");
	expect_none(&text, "class=\"web_searches\"");
	expect_line(&text, "weir_web_searches_total{provider=\"anthropic\"} 4");
	expect_line(&text, "weir_cost_dollars_total{provider=\"anthropic\"} 12345678.901234568");
	expect_line(&text, "weir_overhead_seconds_bucket{le=\"+Inf\"} 3");
	expect_line(&text, "weir_overhead_seconds_count 3");
	expect_line(&text, "weir_refused_requests_total{reason=\"rate_limit\"} 4");
	expect_line(&text, "weir_refused_requests_total{reason=\"budget\"} 0");
	expect_line(&text, "weir_pings_total 9");
	expect_line(&text, "weir_refused_requests_total{reason=\"store\"} 2");
	expect_line(&text, "weir_refused_requests_total{reason=\"limits\"} 0");
	expect_line(&text, "weir_clamped_total 5");
	expect_line(&text, "weir_meters_evicted_total 6");
	expect_line(&text, "weir_limit_alerts_total{kind=\"threshold\"} 8");
	expect_line(&text, "weir_limit_alerts_total{kind=\"exhausted\"} 1");
	expect_line(&text, "weir_store_failing 1");
	expect_line(&text, "weir_connections 5");
	expect_line(&text, "weir_process_up{process=\"worker-1\"} 1");
	expect_line(&text, "weir_process_up{process=\"keeper\"} 0");
	expect_none(&text, "process=\"worker-0\"");
	expect_line(&text, "weir_process_restarts_total{process=\"keeper\"} 0");
	buf_free(&text);
}

static void
report(uint64_t number, const char *name, enum health_why why, bool succeeds, int64_t ago_ns)
{
	const struct health_rule rule = { .cooldown_ns = 1, .cooldown_max_ns = 1 };
	struct health_ref ref = { .id = { 9, number }, .name = name, .row = HEALTH_NO_ROW };
	struct health_try t = { .worker = 0 };
	int64_t now = NOW_NS - 10 * NS_PER_S - ago_ns;

	health_eject(&arena, &ref, &t, why, NS_PER_S, now);
	assert_int_equal(health_probe_take(&arena, &ref, &t, now + 2 * NS_PER_S), true);
	if (succeeds)
		health_success(&arena, &ref, &rule, &t, now + 2 * NS_PER_S);
}

static void
test_targets(void **state)
{
	(void)state;
	report(1, "provider anthropic", HEALTH_CREDENTIAL, false, 0);
	report(2, "config eng \"config\"", HEALTH_BUSY, true, 0);
	/* The config was changed: its target is another one now. */
	report(3, "config ops config", HEALTH_MONEY, false, 600 * NS_PER_S);
	report(4, "config ops config", HEALTH_BUSY, true, 0);
	report(5, "nobody asks for it any more", HEALTH_BUSY, false, HEALTH_UNASKED_NS + 3600 * NS_PER_S);
	struct buf text = render();
	expect_line(&text, "weir_target_up{target=\"provider anthropic\"} 0");
	expect_line(&text, "weir_target_out{target=\"provider anthropic\",reason=\"credential\"} 1");
	expect_line(&text, "weir_target_up{target=\"config eng \\\"config\\\"\"} 1");
	expect_none(&text, "weir_target_out{target=\"config");
	expect_line(&text, "weir_target_up{target=\"config ops config\"} 1");
	expect_none(&text, "weir_target_up{target=\"config ops config\"} 0");
	expect_none(&text, "nobody");
	expect_line(&text, "weir_targets_ejected_total{reason=\"busy\"} 3");
	expect_line(&text, "weir_targets_ejected_total{reason=\"credential\"} 1");
	expect_line(&text, "weir_targets_ejected_total{reason=\"failures\"} 0");
	buf_free(&text);
}

/* HELP, TYPE, then samples of that family alone; names are not taken up again. */
static void
test_format(void **state)
{
	(void)state;
	struct buf text = render();
	char family[128] = "", seen[8192] = "\n", name[160];
	size_t families = 0;

	for (char *rest = text.p, *line; (line = strsep(&rest, "\n"));) {
		if (strncmp(line, "# HELP ", 7) == 0) {
			snprintf(family, sizeof(family), "%.*s", (int)strcspn(line + 7, " "), line + 7);
			assert_true(strncmp(family, "weir_", 5) == 0);
			snprintf(name, sizeof(name), "\n%s\n", family);
			assert_null(strstr(seen, name));
			size_t used = strlen(seen);
			snprintf(seen + used, sizeof(seen) - used, "%s\n", family);
			assert_true(strlen(line) > 7 + strlen(family) + 10);	/* it says something */
			families++;
		} else if (strncmp(line, "# TYPE ", 7) == 0) {
			assert_true(strncmp(line + 7, family, strlen(family)) == 0);
			bool counter = strstr(line, " counter") != NULL;
			bool total = strlen(family) > 6 && strcmp(family + strlen(family) - 6, "_total") == 0;
			assert_int_equal(counter, total);
		} else if (line[0] != '\0') {
			assert_true(strncmp(line, family, strlen(family)) == 0);
		}
	}
	assert_true(families > 25);
	buf_free(&text);
}

static void
test_histograms_rise(void **state)
{
	(void)state;
	struct buf text = render();
	unsigned long long last = 0, count;
	double bound, last_bound = -1;
	size_t buckets = 0;

	for (char *rest = text.p, *line; (line = strsep(&rest, "\n"));) {
		if (sscanf(line, "weir_overhead_seconds_bucket{le=\"%lf\"} %llu", &bound, &count) != 2)
			continue;
		assert_true(bound > last_bound && count >= last);
		last_bound = bound;
		last = count;
		buckets++;
	}
	assert_int_equal(buckets, METRICS_BUCKETS + 1);		/* +Inf is a number too */
	assert_int_equal(last, 3);
	buf_free(&text);
}

static void
test_promtool(void **state)
{
	(void)state;
	const char *const argv[] = { "promtool", "check", "metrics", NULL };
	posix_spawn_file_actions_t actions;
	char file[64], output[4096] = "";
	struct buf text = render();
	pid_t pid;
	int status;

	snprintf(file, sizeof(file), "%s.text", path);
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, text.p, text.n), (ssize_t)text.n);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	int out = open(file, O_RDWR | O_APPEND);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_adddup2(&actions, out, 2);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ) != 0) {
		print_message("promtool is not installed\n");
		status = 0;
	} else {
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	posix_spawn_file_actions_destroy(&actions);
	ssize_t n = pread(fd, output, sizeof(output) - 1, (off_t)text.n);
	assert_true(n >= 0);
	close(fd);
	close(out);
	unlink(file);
	if (status != 0 || n > 0)
		fail_msg("promtool check metrics: status %d: %s", status, output);
	buf_free(&text);
}

static void
test_page(void **state)
{
	(void)state;
	FILE *f = fopen(WEIR_SOURCE_DIR "/docs/metrics.md", "r");
	char *page = calloc(1, 1u << 18), family[128], row[160], type[16];
	struct buf text = render();
	size_t families = 0, rows = 0;

	assert_non_null(f);
	assert_non_null(page);
	assert_true(fread(page, 1, (1u << 18) - 1, f) > 0);
	fclose(f);
	for (char *rest = text.p, *line; (line = strsep(&rest, "\n"));) {
		if (sscanf(line, "# TYPE %127s %15s", family, type) != 2)
			continue;
		snprintf(row, sizeof(row), "\n| `%s` | %s |", family, type);
		if (!strstr(page, row))
			fail_msg("docs/metrics.md has no row for the %s %s", type, family);
		families++;
	}
	for (const char *p = page; (p = strstr(p, "\n| `weir_")); p++)
		rows++;
	assert_int_equal(rows, families);
	free(page);
	buf_free(&text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_yet),
		cmocka_unit_test(test_counted),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_histograms_rise),
		cmocka_unit_test(test_promtool),
		cmocka_unit_test(test_page),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
