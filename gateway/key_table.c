/* gateway/key_table.c -- see key_table.h. */
#include "gateway/key_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/json.h"
#include "policy/key.h"
#include "shm/base/clock.h"
#include "store/catalog.h"
#include "store/records.h"

#define ROW_FORMAT "%-24s %-20s %-8s %-12s %-22s %-14s %-20s %s\n"
#define CELL_BYTES 256
#define TABLE_TIME_BYTES 32

struct level {
	struct meter_id id;
	int64_t period_index, spent_nusd;
};

struct table {
	bool json, first;
	int64_t now_ns;
	struct level *level;		/* ordered by id */
	size_t levels, room;
	bool no_memory;
};

/* ---- what was spent ---- */

static int
level_order(const void *pa, const void *pb)
{
	const struct level *a = pa, *b = pb;

	if (a->id.hi != b->id.hi)
		return a->id.hi < b->id.hi ? -1 : 1;
	return a->id.lo < b->id.lo ? -1 : a->id.lo > b->id.lo;
}

static bool
note_level(uint64_t hi, uint64_t lo, uint32_t period, int64_t index, int64_t spent_nusd, void *arg)
{
	struct table *t = arg;

	(void)period;
	if (t->levels == t->room) {
		size_t room = t->room ? t->room * 2 : 256;
		struct level *grown = reallocarray(t->level, room, sizeof(*grown));

		if (!grown) {
			t->no_memory = true;
			return false;
		}
		t->level = grown;
		t->room = room;
	}
	t->level[t->levels++] = (struct level){ { hi, lo }, index, spent_nusd };
	return true;
}

/* In the current period. */
static int64_t
spent(const struct table *t, const struct charge *c)
{
	struct level wanted = { .id = c->id };
	const struct level *found = NULL;

	if (t->levels > 0)
		found = bsearch(&wanted, t->level, t->levels, sizeof(*t->level), level_order);
	return found && found->period_index == period_index(c->period, t->now_ns) ? found->spent_nusd : 0;
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

/* Dollars without the zeros that say nothing: 25.00, 0.250001. */
static void
add_usd(struct buf *out, int64_t nusd)
{
	char text[RECORD_USD_BYTES];
	size_t n;

	record_format_usd(nusd, text, sizeof(text));
	n = strlen(text);
	while (text[n - 1] == '0' && text[n - 3] != '.')
		n--;
	buf_add(out, text, n);
}

static void
add_limits(const struct table *t, const struct key *k, struct buf *rates, struct buf *budgets, struct buf *spents)
{
	for (uint32_t i = 0; k && i < k->limits_count; i++) {
		const struct charge *c = &k->limits[i].charge;

		if (c->kind == METER_BUCKET) {
			/* "key rpm": the unit is the second word. */
			buf_printf(rates, "%s%lld %s", rates->n ? "," : "", (long long)c->limit, k->limits[i].name + sizeof("key"));
			continue;
		}
		buf_add_str(budgets, budgets->n ? "," : "");
		add_usd(budgets, c->limit);
		buf_printf(budgets, " %s", key_period_name(c->period));
		buf_add_str(spents, spents->n ? "," : "");
		add_usd(spents, spent(t, c));
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
	for (uint32_t i = 0; k && i < k->limits_count; i++) {
		const struct charge *c = &k->limits[i].charge;

		if (c->kind != METER_BUDGET)
			continue;
		printf("%s{\"period\":\"%s\",\"spent_nusd\":%lld}", comma, key_period_name(c->period), (long long)spent(t, c));
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
		snprintf(why, why_size, "cannot read the budget levels of %s", data_dir);
	else if (reader)
		rc = 0;
	reader_close(reader);
	if (rc == 0) {
		if (t.levels > 1)
			qsort(t.level, t.levels, sizeof(*t.level), level_order);
		if (json)
			printf("[");
		else
			printf(ROW_FORMAT, "KEY", "ID", "STATUS", "RATES", "BUDGET USD", "SPENT USD", "EXPIRES", "CONFIG");
		catalog_keys_each(catalog, print_key, &t);
		if (json)
			printf("]\n");
	}
	catalog_close(catalog);
	free(t.level);
	return rc;
}
