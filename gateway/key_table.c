/* gateway/key_table.c -- see key_table.h. */
#include "gateway/key_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/tool_text.h"
#include "policy/json.h"
#include "policy/key.h"
#include "shm/base/clock.h"
#include "store/catalog.h"
#include "store/records.h"

#define ROW_FORMAT "%-24s %-20s %-8s %-22s %-24s %-14s %-20s %s\n"
#define CELL_BYTES 512
#define TABLE_TIME_BYTES 32

struct noted {
	struct meter_id id;
	struct level level;
};

struct table {
	bool json, first;
	int64_t now_ns;
	struct noted *level;		/* ordered by id */
	size_t levels, room;
	bool no_memory;
};

/* ---- what was spent ---- */

static int
level_order(const void *pa, const void *pb)
{
	const struct noted *a = pa, *b = pb;

	if (a->id.hi != b->id.hi)
		return a->id.hi < b->id.hi ? -1 : 1;
	return a->id.lo < b->id.lo ? -1 : a->id.lo > b->id.lo;
}

static bool
note_level(const struct stored_meter *m, void *arg)
{
	struct table *t = arg;

	if (t->levels == t->room) {
		size_t room = t->room ? t->room * 2 : 256;
		struct noted *grown = reallocarray(t->level, room, sizeof(*grown));

		if (!grown) {
			t->no_memory = true;
			return false;
		}
		t->level = grown;
		t->room = room;
	}
	t->level[t->levels++] = (struct noted){ m->id, m->level };
	return true;
}

/* In the current period. One that was changed since the last booking counts
 * what the ledger will let it count. */
static int64_t
spent(const struct table *t, const struct charge *c)
{
	const struct period now = { c->period, c->days, c->anchor };
	struct noted wanted = { .id = c->id };
	const struct noted *found = NULL;

	if (t->levels > 0)
		found = bsearch(&wanted, t->level, t->levels, sizeof(*t->level), level_order);
	if (!found || !found->level.known)
		return 0;
	return period_contains(now, period_index(now, t->now_ns), meter_what_period(found->level.what),
	    found->level.period_index) ? found->level.spent : 0;
}

/* ---- cells ---- */

static const char *
status_of(const struct table *t, const struct key *k)
{
	if (!k)
		return "unreadable";
	if (!k->enabled)
		return "revoked";
	return k->expires_wall_ns && k->expires_wall_ns <= t->now_ns ? "expired" : "active";
}

/* "60 rpm", "30000 tokens rpm", "2 concurrency": the label's words behind "key". */
static void
add_rate(struct buf *rates, const struct limit *l)
{
	buf_printf(rates, "%s%lld %s", rates->n ? "," : "", (long long)l->charge.limit, l->label + sizeof("key"));
}

/* "$25.00 monthly", "20000 tokens daily strict". */
static void
add_budget(struct buf *budgets, const struct charge *c)
{
	static const char *const units[] = { [UNIT_REQUESTS] = " requests", [UNIT_TOKENS] = " tokens", [UNIT_NUSD] = "" };
	static const char *const modes[] = { [MODE_CLAMP] = "", [MODE_STRICT] = " strict", [MODE_POSTPAID] = " postpaid" };
	char amount[TOOL_AMOUNT_BYTES];

	buf_printf(budgets, "%s%s%s ", budgets->n ? "," : "", tool_amount(c->unit, c->limit, amount), units[c->unit]);
	if (c->period == PERIOD_DAYS)
		buf_printf(budgets, "%ud", c->days);
	else
		buf_add_str(budgets, limit_period_name(c->period));
	if (c->unit != UNIT_REQUESTS)
		buf_add_str(budgets, modes[c->mode]);
}

static void
add_limits(const struct table *t, const struct key *k, struct buf *rates, struct buf *budgets, struct buf *spents)
{
	for (uint32_t i = 0; k && i < k->limits.count; i++) {
		const struct charge *c = &k->limits.limit[i].charge;
		char amount[TOOL_AMOUNT_BYTES];

		if (c->kind != METER_BUDGET) {
			add_rate(rates, &k->limits.limit[i]);
			continue;
		}
		add_budget(budgets, c);
		buf_printf(spents, "%s%s", spents->n ? "," : "", tool_amount(c->unit, spent(t, c), amount));
	}
}

/* A member's text, as it is printed on a terminal. */
static void
cell(struct slice json, const char *member, char out[CELL_BYTES])
{
	struct slice value;

	out[0] = '\0';
	if (!json_get(json, member, &value) || json_unescape(value, out, CELL_BYTES) == SIZE_MAX)
		return;
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

static void
print_row(const struct table *t, struct slice json, const struct key *k)
{
	char slug[CELL_BYTES], workspace[CELL_BYTES], id[CELL_BYTES], name[2 * CELL_BYTES], expires[TABLE_TIME_BYTES] = "-";
	struct buf rates, budgets, spents;

	buf_init(&rates, CELL_BYTES);
	buf_init(&budgets, CELL_BYTES);
	buf_init(&spents, CELL_BYTES);
	cell(json, "slug", slug);
	cell(json, "workspace", workspace);
	cell(json, "id", id);
	if (k && k->expires_wall_ns)
		clock_format_utc(k->expires_wall_ns, expires, sizeof(expires));
	expires[strcspn(expires, ".")] = '\0';
	snprintf(name, sizeof(name), "%s/%s", workspace, slug);
	add_limits(t, k, &rates, &budgets, &spents);
	buf_add_char(&rates, '\0');
	buf_add_char(&budgets, '\0');
	buf_add_char(&spents, '\0');
	printf(ROW_FORMAT, name, id, status_of(t, k), rates.n > 1 ? rates.p : "-", budgets.n > 1 ? budgets.p : "-",
	    spents.n > 1 ? spents.p : "-", expires, k && k->config ? k->config : "-");
	buf_free(&rates);
	buf_free(&budgets);
	buf_free(&spents);
}

static void
print_object(struct table *t, struct slice json, const struct key *k)
{
	struct slice name, value;
	struct json_iter it;
	const char *comma = "";

	printf("%s{", t->first ? "" : ",");
	t->first = false;
	if (json_iter_object(&it, json)) {
		while (json_next(&it, &name, &value)) {
			if (json_string_eq(name, "hashes"))
				continue;
			printf("%s%.*s:%.*s", comma, SLICE_FMT(name), SLICE_FMT(value));
			comma = ",";
		}
	}
	printf("%s\"status\":\"%s\",\"spent\":[", comma, status_of(t, k));
	comma = "";
	for (uint32_t i = 0; k && i < k->limits.count; i++) {
		const struct charge *c = &k->limits.limit[i].charge;

		if (c->kind != METER_BUDGET)
			continue;
		printf("%s{\"limit\":\"%s\",\"period\":\"%s\",\"%s\":%lld}", comma, k->limits.limit[i].label,
		    limit_period_name(c->period), c->unit == UNIT_NUSD ? "spent_nusd" : "spent", (long long)spent(t, c));
		comma = ",";
	}
	printf("]}");
}

static bool
print_key(struct slice json, void *arg)
{
	struct table *t = arg;
	char why[256];
	struct key *k = key_compile(json, NULL, why, sizeof(why));

	if (t->json)
		print_object(t, json, k);
	else
		print_row(t, json, k);
	key_free(k);
	return true;
}

int
key_table_print(const char *data_dir, bool json, char *why, size_t why_size)
{
	struct table t = { .json = json, .first = true, .now_ns = clock_wall_ns() };
	struct catalog *catalog = catalog_open(data_dir, false, why, why_size);
	struct reader *reader = catalog ? reader_open(data_dir, why, why_size) : NULL;
	int rc = -1;

	if (reader && (reader_meters(reader, note_level, &t) != 0 || t.no_memory))
		snprintf(why, why_size, "cannot read the levels of %s", data_dir);
	else if (reader)
		rc = 0;
	reader_close(reader);
	if (rc == 0) {
		if (t.levels > 1)
			qsort(t.level, t.levels, sizeof(*t.level), level_order);
		if (json)
			printf("[");
		else
			printf(ROW_FORMAT, "KEY", "ID", "STATUS", "RATES", "BUDGETS", "SPENT", "EXPIRES", "CONFIG");
		catalog_keys_each(catalog, print_key, &t);
		if (json)
			printf("]\n");
	}
	catalog_close(catalog);
	free(t.level);
	return rc;
}
