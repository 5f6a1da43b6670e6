/*
 * weir key and weir logs, as a shell runs them: arguments in, output and exit
 * status out. Each runs in a child with its output in files. The store is
 * filled through an arena, as by workers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <signal.h>

#include <cjson/cJSON.h>

#include "gateway/commands.h"
#include "policy/key.h"
#include "store/catalog.h"
#include "store/records.h"
#include "tests/unit/arena_fixture.h"
#include "tests/unit/tool_fixture.h"

static char why[512];

#define PATIENCE_NS (20 * NS_PER_S)
#define OTHER_UID 65534

#define KEY(...) run(cmd_key, (const char *const[]){ "key", __VA_ARGS__, NULL })
#define LOGS(...) run(cmd_logs, (const char *const[]){ "logs", __VA_ARGS__, NULL })

/* ---- keys ---- */

static void
text_member(const char *json, const char *name, char into[128])
{
	cJSON *tree = cJSON_Parse(json);
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, name));

	if (!text)
		fail_msg("no %s in %s", name, json);
	snprintf(into, 128, "%s", text ? text : "");
	cJSON_Delete(tree);
}

/* As a worker sees that secret; NULL: unknown. */
static struct key *
present(const char *secret)
{
	struct catalog *c = catalog_open(data, false, why, sizeof(why));
	struct key *k = NULL;
	uint8_t hash[32];
	struct buf json;

	assert_non_null(c);
	buf_init(&json, KEY_DOCUMENT_BYTES_MAX);
	key_secret_hash(slice_of(secret), hash);
	if (catalog_key_by_hash(c, hash, &json))
		k = key_compile(buf_slice(&json), hash, why, sizeof(why));
	buf_free(&json);
	catalog_close(c);
	return k;
}

static bool
known(const char *secret, bool enabled, int64_t ends_ns)
{
	struct key *k = present(secret);
	bool as_told = k && k->enabled == enabled && (k->expires_wall_ns != 0) == (ends_ns != 0) &&
	    k->expires_wall_ns <= ends_ns;

	key_free(k);
	return as_told;
}

static void
a_created_key_is_what_was_asked_for(void **state)
{
	char secret[128], id[128];
	struct key *k;

	(void)state;
	assert_int_equal(KEY("create", "--slug", "alice", "--workspace", "eng", "--rpm", "60", "--budget", "0.000000001",
	    "--budget-period", "weekly", "--metadata", "{\"team\":\"a b\"}", "--model", "claude-*", "--model", "gpt-4",
	    "--routing-config", "pc", "--lock-config", "--expires", "2261-01-01T00:00:00+02:00", "--json"), 0);
	text_member(out, "secret", secret);
	text_member(out, "id", id);
	assert_int_equal(strlen(secret), 8 + 43);
	assert_int_equal(strncmp(secret, "weir_sk_", 8), 0);
	assert_int_equal(strlen(id), 4 + 16);
	k = present(secret);
	assert_non_null(k);
	assert_string_equal(k->id.p, id);
	assert_string_equal(k->slug.p, "alice");
	assert_string_equal(k->workspace.p, "eng");
	assert_string_equal(k->config, "pc");
	assert_false(k->allow_config_override);
	assert_null(k->user);
	assert_int_equal(k->limits.count, 2);
	assert_int_equal(k->limits.limit[1].charge.limit, 1);
	assert_int_equal(k->limits.limit[1].charge.period, PERIOD_WEEKLY);
	assert_int_equal(k->limits.limit[1].charge.mode, MODE_CLAMP);
	assert_int_equal(k->allowed_models_count, 2);
	assert_int_equal(k->expires_wall_ns, INT64_C(9183103200000000000));
	assert_true(metadata_get(&k->metadata, SLICE("team")) != NULL);
	key_free(k);
}

static void
every_limit_can_be_asked_for(void **state)
{
	static const struct { const char *label; int64_t limit; enum charge_mode mode; } expected[] = {
		{ "key rpm", 1, MODE_STRICT }, { "key rph", 2, MODE_STRICT }, { "key rpd", 3, MODE_STRICT }, { "key rpw", 4, MODE_STRICT },
		{ "key tokens rpm", 5, MODE_CLAMP }, { "key concurrency", INT64_C(1000000000000), MODE_STRICT },
		{ "key 30-day budget", INT64_C(12500000000), MODE_POSTPAID }, { "key 30-day token budget", 20000, MODE_POSTPAID },
	};
	char secret[128];
	struct key *k;

	(void)state;
	assert_int_equal(KEY("create", "--slug", "all", "--user", "al \"ice\"", "--rpm", "1", "--rph", "2", "--rpd", "3", "--rpw", "4", "--tpm", "5",
	    "--concurrency", "1000000000000", "--budget", "12.5", "--token-budget", "20000", "--budget-period", "30d", "--mode", "postpaid",
	    "--alert", "$12.499999999", "--json"), 0);
	text_member(out, "secret", secret);
	k = present(secret);
	assert_non_null(k);
	assert_string_equal(k->user, "al \"ice\"");
	assert_int_equal(k->limits.count, sizeof(expected) / sizeof(*expected));
	for (uint32_t i = 0; i < k->limits.count; i++) {
		const struct charge *c = &k->limits.limit[i].charge;

		assert_string_equal(k->limits.limit[i].label, expected[i].label);
		assert_int_equal(c->limit, expected[i].limit);
		assert_int_equal(c->mode, expected[i].mode);
		if (c->period != PERIOD_DAYS)
			continue;
		/* It counts from today: the first one is whole. */
		const struct period p = { c->period, c->days, c->anchor };
		int64_t left = period_end_ns(p, clock_wall_ns()) - clock_wall_ns();
		assert_in_range(left, INT64_C(86400) * 29 * NS_PER_S - NS_PER_S, INT64_C(86400) * 30 * NS_PER_S);
	}
	assert_int_equal(k->limits.limit[6].charge.alert, INT64_C(12499999999));
	assert_int_equal(k->limits.limit[7].charge.alert, 0);
	key_free(k);
	/* More than eight do not fit into one key. */
	assert_int_equal(KEY("create", "--slug", "more", "--rpm", "1", "--rph", "1", "--rpd", "1", "--rpw", "1", "--tpm", "1", "--tph", "1",
	    "--tpd", "1", "--tpw", "1", "--concurrency", "1"), 2);
	assert_non_null(strstr(err, "rate_limits[8]: is one more than the 8 limits"));
}

static void
the_secret_is_nowhere_in_the_store(void **state)
{
	static char bytes[1 << 20];
	char secret[128], path[128];
	FILE *f;
	size_t n;

	(void)state;
	assert_int_equal(KEY("create", "--slug", "alice", "--json"), 0);
	text_member(out, "secret", secret);
	snprintf(path, sizeof(path), "%s/catalog/data.mdb", data);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	assert_true(memmem(bytes, n, "alice", 5) != NULL);
	assert_null(memmem(bytes, n, secret + 8, 16));
	/* Without --json it is printed too, once. */
	assert_int_equal(KEY("create", "--slug", "bob"), 0);
	const char *first = strstr(out, "weir_sk_");
	assert_non_null(first);
	assert_null(strstr(first + 1, "weir_sk_"));
}

static void
a_secret_that_nobody_saw_is_told(void **state)
{
	const char *const words[] = { "key", "create", "--slug", "alice", NULL };
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_true(full >= 0);
	assert_int_equal(end(start(cmd_key, full, -1, words)), 1);
	close(full);
	read_file(err_path, err, sizeof(err));
	assert_non_null(strstr(err, "rotate"));
	assert_int_equal(KEY("rotate", "alice"), 0);
}

static void
rotation_and_revocation(void **state)
{
	char first[128], second[128], third[128], fourth[128];
	int64_t soon = clock_wall_ns() + INT64_C(2) * 3600 * NS_PER_S;

	(void)state;
	assert_int_equal(KEY("create", "--slug", "alice", "--json"), 0);
	text_member(out, "secret", first);
	assert_int_equal(KEY("rotate", "alice", "--grace", "1h", "--json"), 0);
	text_member(out, "secret", second);
	assert_true(known(first, true, soon));
	assert_true(known(second, true, 0));
	/* A longer grace does not lengthen what was promised before. */
	assert_int_equal(KEY("rotate", "default/alice", "--grace", "9w", "--json"), 0);
	text_member(out, "secret", third);
	assert_true(known(first, true, soon));
	assert_true(known(third, true, 0));
	assert_int_equal(KEY("rotate", "--slug", "alice", "--json"), 0);
	text_member(out, "secret", fourth);
	assert_false(known(first, true, INT64_MAX) || known(second, true, INT64_MAX) || known(third, true, INT64_MAX));
	assert_true(known(fourth, true, 0));
	assert_int_equal(KEY("revoke", "alice"), 0);
	assert_true(known(fourth, false, 0));
	assert_int_equal(KEY("revoke", "alice", "--json"), 0);
	assert_int_equal(KEY("rotate", "alice"), 1);
	assert_non_null(strstr(err, "revoked"));
	assert_int_equal(KEY("revoke", "eng/alice"), 1);
	assert_non_null(strstr(err, "eng/alice"));
}

static void
many_rotations_keep_the_newest(void **state)
{
	char secret[12][128];

	(void)state;
	assert_int_equal(KEY("create", "--slug", "alice", "--json"), 0);
	text_member(out, "secret", secret[0]);
	for (int i = 1; i < 12; i++) {
		assert_int_equal(KEY("rotate", "alice", "--grace", "1d", "--json"), 0);
		text_member(out, "secret", secret[i]);
	}
	for (int i = 0; i < 11; i++)
		assert_int_equal(known(secret[i], true, INT64_MAX), i >= 12 - KEY_HASHES_MAX);
	assert_true(known(secret[11], true, 0));
}

static void
the_list_has_all_but_secrets(void **state)
{
	cJSON *list;

	(void)state;
	assert_int_equal(KEY("list"), 1);	/* and makes nothing */
	assert_int_equal(access(data, F_OK), -1);
	assert_int_equal(KEY("create", "--slug", "bob", "--budget", "25", "--rpm", "7", "--tpd", "9", "--token-budget", "4",
	    "--mode", "strict"), 0);
	assert_int_equal(KEY("create", "--slug", "alice"), 0);
	assert_int_equal(KEY("revoke", "alice"), 0);
	assert_int_equal(KEY("list"), 0);
	assert_true(strstr(out, "default/alice") < strstr(out, "default/bob"));
	assert_non_null(strstr(out, "$25.00 total strict,4 tokens total strict"));
	assert_non_null(strstr(out, "7 rpm,9 tokens rpd"));
	assert_non_null(strstr(out, "$0.00,0"));
	assert_non_null(strstr(out, "revoked"));
	assert_int_equal(KEY("list", "--json"), 0);
	assert_null(strstr(out, "hash"));
	list = cJSON_Parse(out);
	assert_int_equal(cJSON_GetArraySize(list), 2);
	assert_string_equal(cJSON_GetObjectItem(cJSON_GetArrayItem(list, 1), "status")->valuestring, "active");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetArrayItem(list, 1), "spent")), 2);
	assert_non_null(strstr(out, "{\"limit\":\"key total budget\",\"period\":\"total\",\"spent_nusd\":0}"));
	assert_non_null(strstr(out, "{\"limit\":\"key total token budget\",\"period\":\"total\",\"spent\":0}"));
	cJSON_Delete(list);
}

/* Spends so much of all limits of a key, as a worker and the keeper do. */
static void
spend(const struct key *k, struct settled used)
{
	struct charge charge[LIMITS_MAX];
	struct demand demand = { .most = 1, .floor = 1, .share = 1 };
	struct fixture f;
	struct inflight *e;
	struct refusal refusal;
	uint32_t records;
	struct writer *w = writer_open(data, why, sizeof(why));

	if (!w)
		fail_msg("%s", why);
	fixture_open(&f, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 1 << 20, .meters = 64 });
	f.now.wall_ns = clock_wall_ns();
	for (uint32_t i = 0; i < k->limits.count; i++) {
		charge[i] = k->limits.limit[i].charge;
		limit_charge_fill(&charge[i], 1, 1, 1, 0);
	}
	assert_int_equal(fixture_admit(&f, 0, charge, k->limits.count, &demand, &e, &refusal), LEDGER_ADMITTED);
	struct record r = { .request_id = SLICE("req_1") };
	inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
	inflight_sent(e);
	assert_int_equal(ledger_settle(&f.arena, 0, e, &used, f.now), SETTLED);
	assert_int_equal(writer_flush(w, &f.arena, &records, why, sizeof(why)), 0);
	fixture_close(&f);
	writer_close(w);
}

static void
the_list_shows_what_was_spent(void **state)
{
	char secret[128];

	(void)state;
	assert_int_equal(KEY("create", "--slug", "spender", "--rpm", "5", "--budget", "25", "--token-budget", "1000", "--budget-period", "monthly",
	    "--json"), 0);
	text_member(out, "secret", secret);
	struct key *k = present(secret);
	assert_non_null(k);
	spend(k, (struct settled){ .cost_nusd = 1250000001, .tokens = 300 });
	key_free(k);
	assert_int_equal(KEY("list", "--json"), 0);
	assert_non_null(strstr(out, "\"spent\":[{\"limit\":\"key monthly budget\",\"period\":\"monthly\",\"spent_nusd\":1250000001},"
	    "{\"limit\":\"key monthly token budget\",\"period\":\"monthly\",\"spent\":300}]"));
	assert_int_equal(KEY("list"), 0);
	assert_non_null(strstr(out, "$1.250000001,300"));
}

static void
mistakes_name_the_argument(void **state)
{
	static const struct { const char *option, *value; } rows[] = {
		{ "--rpm", "0" }, { "--rpd", "1e3" }, { "--tpm", "-1" }, { "--tpw", "1000000000001" }, { "--concurrency", "many" },
		{ "--token-budget", "0" }, { "--token-budget", "1.5" }, { "--mode", "strict" }, { "--alert", "1" }, { "--user", "" }, { "--budget", "0" }, { "--budget", "1.0000000001" },
		{ "--budget-period", "daily" }, { "--metadata", "[]" }, { "--metadata", "{\"a\":1,}" },
		{ "--expires", "2020-01-01T00:00:00Z" }, { "--expires", "tomorrow" }, { "--workspace", "a/b" },
		{ "--routing-config", "a b" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		assert_int_equal(KEY("create", "--slug", "x", rows[i].option, rows[i].value), 2);
		if (!strstr(err, rows[i].option))
			fail_msg("%s does not name %s", err, rows[i].option);
	}
	assert_int_equal(KEY("create"), 2);
	assert_int_equal(KEY("create", "--slug", "a/b"), 2);
	assert_int_equal(KEY("create", "--slug", "key_1"), 2);
	static const char *const periods[] = { "yearly", "0d", "366d", "d", "-1d", "30", "1.5d", "0000000001d" };
	for (size_t i = 0; i < sizeof(periods) / sizeof(*periods); i++) {
		assert_int_equal(KEY("create", "--slug", "x", "--budget", "1", "--budget-period", periods[i]), 2);
		assert_non_null(strstr(err, "--budget-period"));
	}
	assert_int_equal(KEY("create", "--slug", "x", "--budget", "1", "--mode", "soft"), 2);
	assert_non_null(strstr(err, "--mode"));
	assert_int_equal(KEY("create", "--slug", "x", "--budget", "1", "--alert", "1"), 2);
	assert_non_null(strstr(err, "--alert"));
	assert_int_equal(KEY("rotate"), 2);
	assert_int_equal(KEY("rotate", "x", "--slug", "y"), 2);
	assert_int_equal(KEY("rotate", "x", "--grace", "1"), 2);
	assert_int_equal(KEY("revoke", "x", "--grace", "1h"), 2);
	assert_int_equal(KEY("destroy"), 2);
	assert_int_equal(access(data, F_OK), -1);	/* none of them made a store */
	assert_int_equal(KEY("create", "--slug", "x"), 0);
	assert_int_equal(KEY("create", "--slug", "x"), 1);
	assert_non_null(strstr(err, "default/x exists already"));
}

static void
root_leaves_no_file_of_its_own(void **state)
{
	static const char *const names[] = { "catalog", "catalog/data.mdb", "catalog/lock.mdb" };
	char path[128];
	struct stat st;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(folder, 0755), 0);
	assert_int_equal(mkdir(data, 0700), 0);
	assert_int_equal(chown(data, OTHER_UID, OTHER_UID), 0);
	assert_int_equal(KEY("create", "--slug", "alice"), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", data, names[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_uid, OTHER_UID);
		assert_int_equal(st.st_gid, OTHER_UID);
	}
}

/* ---- logs ---- */

/* Records first .. first + count - 1, as by a worker and the keeper. */
static void
store_records(uint32_t first, uint32_t count)
{
	struct writer *w = writer_open(data, why, sizeof(why));
	struct fixture f;
	uint32_t records;

	if (!w)
		fail_msg("%s", why);
	fixture_open(&f, (struct arena_sizes){ .workers = 1, .inflight = 8, .ring_bytes = 1 << 20, .meters = 64 });
	for (uint32_t i = first; i < first + count; i++) {
		struct record r = { .fixed = { .status = i % 2 ? 200 : 429, .outcome = i % 2 ? OUTCOME_OK : OUTCOME_REFUSED,
			.start_wall_ns = clock_wall_ns(), .tokens = { i, 2 * i }, .cost_nusd = 1000 + i } };
		char id[32], metadata[64];
		struct settled nothing = { 0, 0 };
		struct inflight *e;
		struct refusal refusal;

		snprintf(id, sizeof(id), "req_%u", i);
		snprintf(metadata, sizeof(metadata), "{\"team\":\"t%u\",\"q\":\"a\\\"b\"}", i % 3);
		r.request_id = slice_of(id);
		r.route_name = SLICE("messages");
		r.model = SLICE("bad\033[2Jmodel");
		r.metadata = slice_of(metadata);
		assert_int_equal(ledger_admit(&f.arena, 0, NULL, 0, NULL, f.now, &e, &refusal), LEDGER_ADMITTED);
		inflight_record_set(e, record_encode(&r, inflight_record(e), RECORD_BYTES_MAX));
		assert_int_equal(ledger_settle(&f.arena, 0, e, &nothing, f.now), SETTLED);
	}
	assert_int_equal(writer_flush(w, &f.arena, &records, why, sizeof(why)), 0);
	assert_int_equal(records, count);
	fixture_close(&f);
	writer_close(w);
}

static void
records_are_selected(void **state)
{
	(void)state;
	store_records(1, 12);
	assert_int_equal(LOGS("--json"), 0);
	assert_int_equal(lines(out), 12);
	for (const char *line = out, *next; *line; line = next + 1) {
		next = strchr(line, '\n');
		cJSON *json = cJSON_ParseWithLength(line, (size_t)(next - line));
		assert_non_null(json);
		cJSON_Delete(json);
	}
	assert_int_equal(LOGS("--json", "--where", "status=429"), 0);
	assert_int_equal(lines(out), 6);
	assert_int_equal(LOGS("--json", "--where", "outcome=ok", "--where", "metadata.team=t1"), 0);
	assert_int_equal(lines(out), 2);	/* 1 and 7 */
	assert_int_equal(LOGS("--json", "--where", "request_id=req_7", "--where", "route=messages"), 0);
	assert_int_equal(lines(out), 1);
	assert_int_equal(LOGS("--json", "--where", "metadata.q=a\"b"), 0);
	assert_int_equal(lines(out), 12);
	assert_int_equal(LOGS("--json", "--where", "metadata.none=x"), 0);
	assert_int_equal(lines(out), 0);
	assert_int_equal(LOGS("--json", "--where", "error_type="), 0);
	assert_int_equal(lines(out), 12);
	assert_int_equal(LOGS("--json", "--since", "1h"), 0);
	assert_int_equal(lines(out), 12);
	assert_int_equal(LOGS("--json", "--since", "2261-01-01T00:00:00Z"), 0);
	assert_int_equal(lines(out), 0);
}

static void
a_limit_takes_the_newest(void **state)
{
	(void)state;
	store_records(1, 12);
	assert_int_equal(LOGS("--json", "--limit", "3"), 0);
	assert_int_equal(lines(out), 3);
	assert_non_null(strstr(out, "req_10\""));
	assert_non_null(strstr(out, "req_12\""));
	assert_int_equal(LOGS("--json", "--limit", "2", "--where", "status=200"), 0);
	assert_int_equal(lines(out), 2);
	assert_non_null(strstr(out, "req_9\""));
	assert_int_equal(LOGS("--json", "--limit", "100"), 0);
	assert_int_equal(lines(out), 12);
	assert_int_equal(LOGS("--json", "--limit", "12"), 0);
	assert_int_equal(lines(out), 12);
}

static void
sums_are_exact(void **state)
{
	(void)state;
	store_records(1, 10);
	assert_int_equal(LOGS("--sum"), 0);
	assert_string_equal(out, "{\"count\":10,\"tokens\":{\"input\":55,\"output\":110,\"cache_write_5m\":0,\"cache_write_1h\":0,"
	    "\"cache_read\":0,\"web_searches\":0},\"cost_nusd\":10055,\"cost_usd\":\"0.000010055\"}\n");
	assert_int_equal(LOGS("--sum", "--where", "status=200", "--limit", "2"), 0);
	assert_non_null(strstr(out, "\"cost_nusd\":2016,"));
}

static void
the_table_is_safe_for_a_terminal(void **state)
{
	(void)state;
	store_records(1, 2);
	assert_int_equal(LOGS("--limit", "1"), 0);
	assert_int_equal(lines(out), 2);
	assert_null(strchr(out, '\033'));
	assert_non_null(strstr(out, "bad?[2Jmodel"));
	assert_non_null(strstr(out, "0.000001002"));
	assert_non_null(strstr(out, "refused"));
}

static void
wrong_questions_are_told_the_right_ones(void **state)
{
	(void)state;
	assert_int_equal(LOGS("--json"), 1);
	assert_non_null(strstr(err, data));
	assert_int_equal(LOGS("--where", "colour=red"), 2);
	assert_non_null(strstr(err, "colour"));
	assert_non_null(strstr(err, "request_id, route, "));
	assert_non_null(strstr(err, "metadata.NAME"));
	assert_int_equal(LOGS("--where", "route_name=x"), 2);
	assert_int_equal(LOGS("--where", "metadata=x"), 2);
	assert_int_equal(LOGS("--where", "metadata.=x"), 2);
	assert_int_equal(LOGS("--where", "status"), 2);
	assert_int_equal(LOGS("--where", "status=2xx"), 2);
	assert_int_equal(LOGS("--where", "outcome=fine"), 2);
	assert_non_null(strstr(err, "provider_error"));
	assert_int_equal(LOGS("--since", "yesterday"), 2);
	assert_int_equal(LOGS("--limit", "0"), 2);
	assert_int_equal(LOGS("--sum", "--follow"), 2);
}

/* Waits until the follower has printed that many lines. */
static bool
has_lines(int wanted)
{
	for (int64_t until = clock_mono_ns() + PATIENCE_NS; clock_mono_ns() < until; sched_yield()) {
		if (access(out_path, F_OK) != 0)
			continue;
		read_file(out_path, out, sizeof(out));
		if (lines(out) >= wanted)
			return lines(out) == wanted;
	}
	return false;
}

static void
a_follower_sees_what_comes(void **state)
{
	static const int signals[] = { SIGTERM, SIGINT };
	const char *const words[] = { "logs", "--json", "--follow", "--limit", "2", NULL };

	(void)state;
	store_records(1, 5);
	for (size_t i = 0; i < 2; i++) {
		pid_t pid;

		unlink(out_path);
		pid = start(cmd_logs, -1, -1, words);
		assert_true(has_lines(2));
		store_records(6, 3);
		assert_true(has_lines(5));
		store_records(9, 1);
		assert_true(has_lines(6));
		assert_int_equal(kill(pid, signals[i]), 0);
		assert_int_equal(end(pid), 0);
	}
}

static void
a_follower_ends_with_its_reader(void **state)
{
	const char *const words[] = { "logs", "--json", "--follow", NULL };
	int fds[2];
	pid_t pid;
	char c;

	(void)state;
	store_records(1, 1);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = start(cmd_logs, fds[1], fds[0], words);
	close(fds[1]);
	assert_int_equal(read(fds[0], &c, 1), 1);
	close(fds[0]);
	assert_int_equal(end(pid), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_created_key_is_what_was_asked_for),
		TEST(every_limit_can_be_asked_for),
		TEST(the_secret_is_nowhere_in_the_store),
		TEST(a_secret_that_nobody_saw_is_told),
		TEST(rotation_and_revocation),
		TEST(many_rotations_keep_the_newest),
		TEST(the_list_has_all_but_secrets),
		TEST(the_list_shows_what_was_spent),
		TEST(mistakes_name_the_argument),
		TEST(root_leaves_no_file_of_its_own),
		TEST(records_are_selected),
		TEST(a_limit_takes_the_newest),
		TEST(sums_are_exact),
		TEST(the_table_is_safe_for_a_terminal),
		TEST(wrong_questions_are_told_the_right_ones),
		TEST(a_follower_sees_what_comes),
		TEST(a_follower_ends_with_its_reader),
	};

	return cmocka_run_group_tests_name("tools", tests, NULL, NULL);
}
