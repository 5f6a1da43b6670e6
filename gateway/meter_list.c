/*
 * gateway/meter_list.c -- see meter_list.h.
 *
 * A list of the fullest N keeps twice as many rows and forgets the lower half
 * when it is full, so that a table of a million meters is one pass.
 */
#include "gateway/meter_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/tool_text.h"

#define FULL 1000000

__extension__ typedef unsigned __int128 wide;	/* ISO C has no name for it */

/* ---- numbers of a row ---- */

int64_t
meter_row_used(const struct meter_row *m)
{
	if (m->view.kind == METER_BUCKET)
		return m->limit_known ? m->view.limit - m->view.tokens - m->view.held : 0;
	return m->view.spent;
}

int64_t
meter_row_left(const struct meter_row *m)
{
	return m->view.limit - meter_row_used(m) - m->view.held;
}

int64_t
meter_row_fullness(const struct meter_row *m)
{
	int64_t used = meter_row_used(m) + m->view.held, limit = m->view.limit;

	if (!m->limit_known)
		return -1;
	if (limit <= 0)
		return FULL;	/* it admits nothing */
	if (used <= 0)
		return 0;
	wide millionths = (wide)used * FULL / (wide)limit;
	return millionths > INT64_MAX ? INT64_MAX : (int64_t)millionths;
}

int64_t
meter_row_resets_ns(const struct meter_row *m, struct now now)
{
	if (m->view.kind == METER_BUDGET)
		return m->view.reset_wall_ns;
	return m->view.kind == METER_BUCKET && m->view.full_in_ns > 0 ? now.wall_ns + m->view.full_in_ns : 0;
}

/* ---- words ---- */

const char *
meter_kind_name(enum meter_kind kind)
{
	switch (kind) {
	case METER_BUCKET:
		return "bucket";
	case METER_BUDGET:
		return "budget";
	case METER_CONCURRENCY:
		return "concurrency";
	case METER_GROUP:
		return "group";
	}
	return "unknown";	/* a word of the store that another version wrote */
}

const char *
meter_unit_name(enum meter_unit unit)
{
	switch (unit) {
	case UNIT_REQUESTS:
		return "requests";
	case UNIT_TOKENS:
		return "tokens";
	case UNIT_NUSD:
		return "nusd";
	}
	return "unknown";
}

const char *
meter_mode_name(const struct meter_row *m)
{
	if (!m->limit_known || m->view.unit == UNIT_REQUESTS)
		return "-";
	switch (m->view.mode) {
	case MODE_CLAMP:
		return "clamp";
	case MODE_STRICT:
		return "strict";
	case MODE_POSTPAID:
		return "postpaid";
	}
	return "-";
}

void
meter_period_text(const struct meter_view *v, char *out, size_t size)
{
	char window[TOOL_TIME_BYTES];

	if (v->kind == METER_BUCKET && v->window_ns > 0)
		snprintf(out, size, "%s", tool_duration(v->window_ns, window));
	else if (v->kind != METER_BUDGET)
		snprintf(out, size, "-");
	else if (v->period == PERIOD_DAYS)
		snprintf(out, size, "%u days", v->days);
	else
		snprintf(out, size, "%s", limit_period_name(v->period));
}

static void
add_known(struct buf *out, const char *name, bool known, int64_t value)
{
	if (known)
		buf_printf(out, ",\"%s\":%" PRId64, name, value);
	else
		buf_printf(out, ",\"%s\":null", name);
}

void
meter_row_json(const struct meter_row *m, struct now now, struct buf *out)
{
	static const char *const sources[] = { "arena", "store", "none" };
	const struct meter_view *v = &m->view;
	int64_t resets_ns = meter_row_resets_ns(m, now);
	char id[TOOL_ID_BYTES], time[TOOL_TIME_BYTES], period[TOOL_TIME_BYTES];
	bool has_mode = meter_mode_name(m)[0] != '-';

	meter_period_text(v, period, sizeof(period));
	buf_printf(out, "{\"id\":\"%s\",\"name\":", tool_id(v->id, id));
	buf_add_json(out, slice_of(v->name));
	buf_printf(out, ",\"kind\":\"%s\",\"unit\":\"%s\",\"period\":\"%s\",\"mode\":%s%s%s", meter_kind_name(v->kind),
	    meter_unit_name(v->unit), period, has_mode ? "\"" : "", has_mode ? meter_mode_name(m) : "null", has_mode ? "\"" : "");
	add_known(out, "limit", m->limit_known, v->limit);
	add_known(out, "spent", v->kind != METER_BUCKET || m->limit_known, meter_row_used(m));
	buf_printf(out, ",\"held\":%" PRId64, v->held);
	add_known(out, "left", m->limit_known, meter_row_left(m));
	add_known(out, "used_permille", m->limit_known, meter_row_fullness(m) / 1000);
	add_known(out, "alert", m->limit_known && v->alert > 0, v->alert);
	if (resets_ns)
		buf_printf(out, ",\"resets\":\"%s\"", tool_time(resets_ns, time));
	else
		buf_add_str(out, ",\"resets\":null");
	buf_printf(out, ",\"source\":\"%s\"}", sources[m->source]);
}

/* ---- lists ---- */

bool
meter_filter_holds(const struct meter_filter *f, const struct meter_view *v)
{
	struct charge unused;
	char name[METER_NAME_BYTES];

	return (!f->name || slice_glob(slice_of(f->name), slice_of(v->name))) &&
	    (!f->whole_name || strcmp(f->whole_name, v->name) == 0) &&
	    (!f->by_id || (f->id.hi == v->id.hi && f->id.lo == v->id.lo)) && (!f->by_kind || f->kind == v->kind) &&
	    (!f->by_unit || f->unit == v->unit) && (!f->only || limit_book_find(f->only, v->id, NULL, &unused, name));
}

static int
fullest_first(const void *pa, const void *pb)
{
	const struct meter_row *a = pa, *b = pb;
	int64_t full_a = meter_row_fullness(a), full_b = meter_row_fullness(b);
	int order = full_a == full_b ? strcmp(a->view.name, b->view.name) : full_a > full_b ? -1 : 1;

	if (order == 0)
		order = memcmp(&a->view.id, &b->view.id, sizeof(a->view.id));
	return order;
}

void
meter_list_sort(struct meter_list *l)
{
	if (l->count > 1)
		qsort(l->row, l->count, sizeof(*l->row), fullest_first);
	if (l->most && l->count > l->most)
		l->count = l->most;
}

static bool
make_room(struct meter_list *l)
{
	size_t room = l->room ? l->room * 2 : 64;
	struct meter_row *grown;

	if (l->count < l->room)
		return true;
	if (l->most && l->count >= 2 * l->most) {
		meter_list_sort(l);
		return true;
	}
	grown = reallocarray(l->row, room, sizeof(*grown));
	if (!grown) {
		l->no_memory = true;
		return false;
	}
	l->row = grown;
	l->room = room;
	return true;
}

void
meter_list_add(struct meter_list *l, const struct meter_row *m)
{
	for (uint32_t i = 0; i < l->filters; i++)
		if (!meter_filter_holds(&l->filter[i], &m->view))
			return;
	if (make_room(l))
		l->row[l->count++] = *m;
}

void
meter_list_arena(struct meter_list *l, struct arena *a)
{
	uint32_t rows = ledger_meter_rows(a);
	struct meter_row m = { .source = METER_IN_ARENA, .limit_known = true };

	for (uint32_t row = 0; row < rows; row++)
		if (ledger_meter_at(a, row, l->now, &m.view))
			meter_list_add(l, &m);
}

/* What a bucket has lost that will be full again in that time. */
static int64_t
bucket_gone(int64_t limit, int64_t window_ns, int64_t full_in_ns)
{
	if (window_ns <= 0 || full_in_ns <= 0)
		return 0;
	wide gone = ((wide)full_in_ns * (wide)limit + (wide)window_ns - 1) / (wide)window_ns;
	return gone > (wide)limit ? limit : (int64_t)gone;
}

/* The limit as keys or settings have it now. */
static void
take_limit(struct meter_row *m, const struct charge *c)
{
	struct meter_view *v = &m->view;

	m->limit_known = true;
	v->limit = c->limit;
	v->window_ns = c->window_ns;
	v->mode = c->mode;
	v->alert = c->alert;
	if (v->kind == METER_BUCKET)
		v->tokens = c->limit - bucket_gone(c->limit, c->window_ns, v->full_in_ns);
}

struct store_pass {
	struct meter_list *list;
	struct arena *arena;
	const struct limit_book *book;
};

static bool
add_stored(const struct stored_meter *s, void *arg)
{
	struct store_pass *p = arg;
	struct now now = p->list->now;
	struct meter_row m = { .source = METER_IN_STORE };
	struct meter_view *v = &m.view, unused;
	struct period period = meter_what_period(s->level.what);
	char name[METER_NAME_BYTES];
	struct charge c;

	if (p->arena && ledger_meter(p->arena, s->id, now, &unused))
		return true;
	v->id = s->id;
	v->kind = meter_what_kind(s->level.what);
	v->unit = meter_what_unit(s->level.what);
	v->period = period.kind;
	v->days = period.days;
	v->anchor = period.anchor;
	v->period_index = s->level.period_index;
	snprintf(v->name, sizeof(v->name), "%.*s", SLICE_FMT(s->name));
	if (v->kind == METER_BUDGET) {
		v->reset_wall_ns = period_end_ns(period, now.wall_ns);
		v->spent = s->level.period_index >= period_index(period, now.wall_ns) ? s->level.spent : 0;
	} else if (s->level.full_wall_ns > now.wall_ns) {
		v->full_in_ns = s->level.full_wall_ns - now.wall_ns;
	}
	if (limit_book_find(p->book, s->id, v->name, &c, name) && c.kind == v->kind)
		take_limit(&m, &c);
	meter_list_add(p->list, &m);
	return !p->list->no_memory;
}

int
meter_list_store(struct meter_list *l, struct arena *a, struct reader *r, const struct limit_book *b)
{
	struct store_pass pass = { l, a, b };

	return reader_meters(r, add_stored, &pass);
}

void
meter_list_unused(struct meter_list *l, const struct limit_book *b)
{
	size_t had = l->count;

	for (size_t i = 0; i < b->count; i++) {
		const struct limit_entry *e = &b->entry[i];
		const struct charge *c = &e->charge;
		struct meter_row m = { .source = METER_NEVER_USED, .view = { .id = c->id, .kind = c->kind, .unit = c->unit,
			.period = c->period, .days = c->days, .anchor = c->anchor } };
		bool there = false;

		for (size_t row = 0; row < had && !there; row++)
			there = l->row[row].view.id.hi == c->id.hi && l->row[row].view.id.lo == c->id.lo;
		if (there)
			continue;
		if (c->kind == METER_BUDGET)
			m.view.reset_wall_ns = period_end_ns((struct period){ c->period, c->days, c->anchor }, l->now.wall_ns);
		snprintf(m.view.name, sizeof(m.view.name), "%s", e->name);
		take_limit(&m, c);
		meter_list_add(l, &m);
	}
}

void
meter_list_free(struct meter_list *l)
{
	free(l->row);
	l->row = NULL;
	l->count = l->room = 0;
}
