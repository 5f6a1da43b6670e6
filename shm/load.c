/*
 * shm/load.c -- meters come into memory when they are first used.
 *
 * A worker that meets a meter which is not in the table asks the store for its
 * level and brings it here. In between, another worker may have been faster,
 * have charged it, and the keeper may have taken it out again: then the level
 * in hand is too old. Meters that were taken out since it was asked for are
 * therefore counted, and it is asked for again.
 */
#include "shm/meter.h"
#include "shm/ring_append.h"

uint64_t
ledger_evictions(const struct arena *a)
{
	return word_get(&a->header->ledger.evictions);
}

/* What a store says is not taken on trust: it may be from another version. */
static bool
can_be_of(const struct level *l, uint64_t what)
{
	struct period p = meter_what_period(l->what);

	return l->known && ((l->what ^ what) & WHAT_TYPE_MASK) == 0 &&
	    (p.kind < PERIOD_DAYS || (p.kind == PERIOD_DAYS && p.days > 0));
}

/* How a meter begins: as the store knows it, or unused. */
static struct meter_words
first_words(const struct step *s, const struct charge *c, const struct level *l, struct now now)
{
	uint64_t what = meter_what(c);
	bool known = can_be_of(l, what);
	struct meter_words w = { .id = c->id, .limit = c->limit };

	if (c->kind == METER_BUCKET) {
		w.window_ns = c->window_ns;
		w.level = known ? bucket_to_mono_ns(l->full_wall_ns, c->window_ns, now) : now.mono_ns;
	} else if (c->kind == METER_BUDGET) {
		w.window_ns = c->alert;
		w.period_index = period_index(meter_what_period(what), now.wall_ns);
		if (known) {	/* the first charge carries it over if the period is another one */
			what = (what & ~WHAT_PERIOD_MASK) | (l->what & WHAT_PERIOD_MASK);
			w.period_index = l->period_index;
			w.level = larger(l->spent, 0);
		}
	}
	w.what = s->tick << WHAT_TICK_SHIFT | what;
	return w;
}

/* The row of the meter that counts a group's, made if it is not there. */
static uint32_t
group_row(struct step *s, const struct charge_group *g)
{
	uint32_t row = table_find(s->a, g->id);
	struct meter_words w = { .id = g->id, .limit = g->most };

	if (row != ROW_NONE)
		return row;
	w.what = s->tick << WHAT_TICK_SHIFT | METER_GROUP;
	return table_add(s, &w, g->name, ROW_NONE);
}

/* One more meter of the group, if there may be. */
static bool
group_join(struct step *s, uint32_t row, int64_t most)
{
	struct shm_meter *group = &layout_meters(s->a)[row];
	uint64_t meters = word_get(&group->level);

	CHECK(meter_what_kind(word_get(&group->what)) == METER_GROUP);
	journal_set_if_new(s, &group->what, s->tick << WHAT_TICK_SHIFT | METER_GROUP);
	journal_set_if_new(s, &group->limit, (uint64_t)most);
	if ((int64_t)meters >= most)
		return false;
	journal_set(s, &group->level, meters + 1);
	return true;
}

static enum load_result
load(struct step *s, struct charge *c, const struct level *l, uint64_t evictions, struct now now)
{
	bool counted = c->group != NULL && !c->overflowed;
	uint32_t group = ROW_NONE;

	c->row = table_find(s->a, c->id);
	if (c->row != ROW_NONE)
		return LOAD_DONE;
	if (ledger_evictions(s->a) != evictions)
		return LOAD_STALE;
	if (counted && (group = group_row(s, c->group)) == ROW_NONE)
		return LOAD_FULL;
	if (counted && !group_join(s, group, c->group->most)) {
		c->id = c->group->overflow;
		c->name = c->group->overflow_name;
		c->overflowed = true;
		c->row = table_find(s->a, c->id);
		return c->row != ROW_NONE ? LOAD_DONE : LOAD_STALE;
	}
	struct meter_words w = first_words(s, c, l, now);
	c->row = table_add(s, &w, c->name, group);
	return c->row != ROW_NONE ? LOAD_DONE : LOAD_FULL;
}

enum load_result
ledger_load(struct arena *a, uint32_t worker, struct charge *c, const struct level *l, uint64_t evictions,
    struct now now)
{
	struct step s = journal_begin(a, worker);
	enum load_result result = load(&s, c, l, evictions, now);

	if (result == LOAD_FULL)
		journal_undo(&s);	/* of a group's meter that would count nothing */
	journal_commit(&s);
	journal_end(&s);
	return result;
}

/* ---- set back by hand ---- */

uint32_t
ledger_tools_row(const struct arena *a)
{
	return a->header->sizes.workers;
}

/* NULL: there is none. How many meters a group has is not to be reset. */
static struct shm_meter *
meter_to_reset(const struct arena *a, struct meter_id id)
{
	uint32_t row = table_find(a, id);
	struct shm_meter *m = row == ROW_NONE ? NULL : &layout_meters(a)[row];

	return m && meter_what_kind(word_get(&m->what)) != METER_GROUP ? m : NULL;
}

enum reset_result
ledger_reset(struct arena *a, struct meter_id id, const char *record, uint32_t record_bytes, struct now now)
{
	enum reset_result result = RESET_UNKNOWN;
	struct moment at = moment_of(now);
	struct ring_draft item;

	struct step s = journal_begin(a, ledger_tools_row(a));
	struct shm_meter *m = meter_to_reset(a, id);
	if (m && !ring_prepare(a, ledger_tools_row(a), 1, record, record_bytes, &item)) {
		result = RESET_RING_FULL;
	} else if (m) {
		meter_clear(&s, m, &at, &item.charge[0]);
		ring_append(&s, &item);
		result = RESET_DONE;
	}
	journal_commit(&s);
	journal_end(&s);
	return result;
}
