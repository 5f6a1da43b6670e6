/*
 * shm/table.c -- rows of meters, and the index that finds them.
 *
 * Rows are given out one after the other, so the meters of one request, made
 * together, lie side by side; those that were given back form a list that is
 * used first. A charge carries the row of its last use as a hint; without it
 * the index finds the row: open addressing with linear probing, half empty even
 * when all rows are taken.
 *
 * A meter's entry is taken out of the index by moving the entries behind it
 * back, so that there are no marks of what was deleted and a search is no
 * longer than if it had never been there. Where an entry would like to stand
 * follows from the upper half of its id's hash, which is in the entry itself:
 * no meter has to be read for it.
 */
#include "shm/table.h"

#include <string.h>

#define SHIFT_MAX 32	/* entries behind a removed one; so many are rare at half load */

_Static_assert(SHIFT_MAX + 8 <= TABLE_REMOVE_NOTES, "a removal's notes: entries, and five words");

/* Ids are hashes already; they are mixed because tests use small numbers. */
static uint64_t
tag_of(struct meter_id id)
{
	return ((id.hi ^ (id.lo * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xd6e8feb86659fd93)) >> 32;
}

static uint64_t
index_mask(const struct arena *a)
{
	return (uint64_t)a->header->sizes.meters * INDEX_FACTOR - 1;
}

/* The id's place in the index. Its word is 0 if there is no such meter. */
static _Atomic uint64_t *
place_of(const struct arena *a, struct meter_id id)
{
	const struct shm_meter *rows = layout_meters(a);
	_Atomic uint64_t *index = layout_index(a);
	uint64_t tag = tag_of(id), mask = index_mask(a);

	for (uint64_t at = tag & mask;; at = (at + 1) & mask) {
		uint64_t word = word_get(&index[at]);

		if (word == 0 || (word >> 32 == tag && row_has_id(&rows[(uint32_t)word - 1], id)))
			return &index[at];
	}
}

uint32_t
table_find(const struct arena *a, struct meter_id id)
{
	uint64_t word = word_get(place_of(a, id));

	return word != 0 ? (uint32_t)word - 1 : ROW_NONE;
}

void
ledger_prefetch(const struct arena *a, const struct charge *charges, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (charges[i].row < a->header->sizes.meters)
			__builtin_prefetch(&layout_meters(a)[charges[i].row]);
		else
			__builtin_prefetch(&layout_index(a)[tag_of(charges[i].id) & index_mask(a)]);
}

/* Everything of a free row but its id. */
static void
row_prepare(struct arena *a, uint32_t row, const struct meter_words *w, const char *name, uint32_t group_row)
{
	struct shm_meter *m = &layout_meters(a)[row];
	struct shm_name *n = &layout_names(a)[row];
	uint64_t text[METER_NAME_BYTES / 8] = { 0 };

	if (name)
		memcpy(text, name, strnlen(name, sizeof(text) - 1));
	for (size_t i = 0; i < METER_NAME_BYTES / 8; i++)
		word_put_hidden(&n->text[i], text[i]);
	word_put_hidden(&n->group, group_row == ROW_NONE ? 0 : (uint64_t)group_row + 1);
	word_put_hidden(&m->what, w->what);
	word_put_hidden(&m->limit, (uint64_t)w->limit);
	word_put_hidden(&m->window_ns, (uint64_t)w->window_ns);
	word_put_hidden(&m->level, (uint64_t)w->level);
	word_put_hidden(&m->held, (uint64_t)w->held);
	word_put_hidden(&m->period_index, (uint64_t)w->period_index);
}

uint32_t
table_add(struct step *s, const struct meter_words *w, const char *name, uint32_t group_row)
{
	struct shm_ledger *l = &s->a->header->ledger;
	uint64_t first = word_get(&l->meters_free), fresh = word_get(&l->meters_fresh);
	uint32_t row = (uint32_t)(first > 0 ? first - 1 : fresh);

	CHECK(w->id.hi != 0 || w->id.lo != 0);
	if (row == s->a->header->sizes.meters)
		return ROW_NONE;
	struct shm_meter *m = &layout_meters(s->a)[row];
	CHECK(row_has_id(m, (struct meter_id){ 0, 0 }));
	row_prepare(s->a, row, w, name, group_row);
	if (first > 0)
		journal_set(s, &l->meters_free, word_get(&layout_names(s->a)[row].next));
	else
		journal_set(s, &l->meters_fresh, fresh + 1);
	journal_set(s, &l->meters_used, word_get(&l->meters_used) + 1);
	_Atomic uint64_t *place = place_of(s->a, w->id);
	journal_set(s, &m->id_hi, w->id.hi);
	journal_set(s, &m->id_lo, w->id.lo);
	journal_set(s, place, tag_of(w->id) << 32 | ((uint64_t)row + 1));
	return row;
}

/* How many entries stand behind this one without a gap; SHIFT_MAX + 1: more
 * than may be moved. */
static uint64_t
entries_behind(const struct arena *a, uint64_t at)
{
	const _Atomic uint64_t *index = layout_index(a);
	uint64_t n = 0, mask = index_mask(a);

	while (n <= SHIFT_MAX && word_get(&index[(at + n + 1) & mask]) != 0)
		n++;
	return n;
}

bool
table_remove(struct step *s, uint32_t row)
{
	struct shm_ledger *l = &s->a->header->ledger;
	struct shm_meter *m = &layout_meters(s->a)[row];
	_Atomic uint64_t *index = layout_index(s->a);
	uint64_t mask = index_mask(s->a);
	uint64_t gap = (uint64_t)(place_of(s->a, (struct meter_id){ word_get(&m->id_hi), word_get(&m->id_lo) }) - index);
	uint64_t behind = entries_behind(s->a, gap);

	if (behind > SHIFT_MAX)
		return false;
	CHECK((uint32_t)word_get(&index[gap]) - 1 == row);
	for (uint64_t last = gap + behind, at = gap + 1; at <= last; at++) {
		uint64_t word = word_get(&index[at & mask]);

		/* It may stand in the gap if that is not before its own place. */
		if (((at - (word >> 32)) & mask) >= ((at - gap) & mask)) {
			journal_set(s, &index[gap & mask], word);
			gap = at;
		}
	}
	journal_set(s, &index[gap & mask], 0);
	journal_set(s, &m->id_hi, 0);
	journal_set(s, &m->id_lo, 0);
	/* `next` means nothing while the row is not in the list. */
	word_put_hidden(&layout_names(s->a)[row].next, word_get(&l->meters_free));
	journal_set(s, &l->meters_free, (uint64_t)row + 1);
	journal_set(s, &l->meters_used, word_get(&l->meters_used) - 1);
	return true;
}

uint32_t
table_group(const struct arena *a, uint32_t row)
{
	return (uint32_t)word_get(&layout_names(a)[row].group) - 1;
}
