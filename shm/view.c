/*
 * shm/view.c -- looking at meters without the lock.
 *
 * Who looks may not disturb those who work, so it takes no lock: it reads
 * `sequence`, the meter, and `sequence` again, until no step came in between.
 * As words are stored by releases and loaded by acquires, a look that saw
 * anything of a step also sees that step's odd `sequence`, or a later one, when
 * it checks.
 */
#include <sched.h>
#include <string.h>

#include "shm/meter.h"
#include "shm/period.h"

#define LOOKS_MAX 10000		/* tries to see a meter between two steps */

struct copy {
	struct meter_words words;
	uint64_t name[METER_NAME_BYTES / 8];
};

static int64_t
signed_of(const _Atomic uint64_t *w)
{
	return (int64_t)word_get(w);
}

/* By id, or by row where id is NULL. */
static bool
copy_meter(const struct arena *a, const struct meter_id *id, uint32_t row, struct copy *out)
{
	if (id)
		row = table_find(a, *id);
	if (row == ROW_NONE)
		return false;
	const struct shm_meter *m = &layout_meters(a)[row];
	const struct shm_name *n = &layout_names(a)[row];
	out->words = (struct meter_words){
		.id = { word_get(&m->id_hi), word_get(&m->id_lo) },
		.what = word_get(&m->what),
		.limit = signed_of(&m->limit),
		.window_ns = signed_of(&m->window_ns),
		.level = signed_of(&m->level),
		.held = signed_of(&m->held),
		.period_index = signed_of(&m->period_index),
	};
	for (size_t i = 0; i < METER_NAME_BYTES / 8; i++)
		out->name[i] = word_get(&n->text[i]);
	return out->words.id.hi != 0 || out->words.id.lo != 0;
}

static bool
look(struct arena *a, const struct meter_id *id, uint32_t row, struct copy *out)
{
	const _Atomic uint64_t *sequence = &a->header->ledger.sequence;

	for (int i = 0; i < LOOKS_MAX; i++) {
		uint64_t before = word_get(sequence);

		if (!(before & 1)) {
			bool found = copy_meter(a, id, row, out);

			if (word_get(sequence) == before)
				return found;
		}
		if (i % 64 == 63)
			sched_yield();
	}
	if (!a->writable)
		return false;
	ledger_lock(a);
	bool found = copy_meter(a, id, row, out);
	ledger_unlock(a);
	return found;
}

static void
view_bucket(const struct meter_words *w, struct now now, struct meter_view *out)
{
	out->window_ns = w->window_ns;
	out->full_in_ns = larger(w->level - now.mono_ns, 0);
	out->tokens = bucket_units(w->window_ns - out->full_in_ns, w->limit, w->window_ns);
	out->held = bucket_units(w->window_ns - larger(out->full_in_ns - w->held, 0), w->limit, w->window_ns) -
	    out->tokens;
}

static void
view_budget(const struct meter_words *w, struct now now, struct meter_view *out)
{
	struct period p = meter_what_period(w->what);

	out->period = p.kind;
	out->days = p.days;
	out->anchor = p.anchor;
	out->alert = w->window_ns;
	out->held = w->held;
	out->period_index = period_index(p, now.wall_ns);
	if (out->period_index <= w->period_index) {
		out->period_index = w->period_index;
		out->spent = w->level;
	}
	if (p.kind != PERIOD_TOTAL)
		out->reset_wall_ns = period_begin_ns(p, out->period_index + 1);
}

static void
view_of(const struct copy *c, struct now now, struct meter_view *out)
{
	const struct meter_words *w = &c->words;

	*out = (struct meter_view){
		.id = w->id,
		.kind = meter_what_kind(w->what),
		.unit = meter_what_unit(w->what),
		.mode = (enum charge_mode)WHAT_MODE(w->what),
		.limit = w->limit,
	};
	memcpy(out->name, c->name, sizeof(out->name));
	switch (out->kind) {
	case METER_BUCKET:
		view_bucket(w, now, out);
		break;
	case METER_BUDGET:
		view_budget(w, now, out);
		break;
	case METER_CONCURRENCY:
		out->held = w->held;
		break;
	case METER_GROUP:
		out->spent = w->level;
		break;
	}
}

bool
ledger_meter(struct arena *a, struct meter_id id, struct now now, struct meter_view *out)
{
	struct copy c;

	if ((id.hi == 0 && id.lo == 0) || !look(a, &id, 0, &c))
		return false;
	view_of(&c, now, out);
	return true;
}

uint32_t
ledger_meter_rows(const struct arena *a)
{
	return (uint32_t)word_get(&a->header->ledger.meters_fresh);
}

uint32_t
ledger_meters_used(const struct arena *a)
{
	return (uint32_t)word_get(&a->header->ledger.meters_used);
}

bool
ledger_meter_at(struct arena *a, uint32_t row, struct now now, struct meter_view *out)
{
	struct copy c;

	CHECK(row < a->header->sizes.meters);
	if (row >= ledger_meter_rows(a) || !look(a, NULL, row, &c))
		return false;
	view_of(&c, now, out);
	return true;
}
