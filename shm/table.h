/*
 * shm/table.h -- which row a meter is in. Private to shm/.
 */
#ifndef WEIR_SHM_TABLE_H
#define WEIR_SHM_TABLE_H

#include "shm/journal.h"

#define ROW_NONE UINT32_MAX

/* A meter's words, as they were between two steps, or as they shall begin. */
struct meter_words {
	struct meter_id id;
	uint64_t what;
	int64_t limit, window_ns, level, held, period_index;
};

static inline bool
row_has_id(const struct shm_meter *m, struct meter_id id)
{
	return word_get(&m->id_lo) == id.lo && word_get(&m->id_hi) == id.hi;
}

uint32_t table_find(const struct arena *a, struct meter_id id);
	/* Its row, or ROW_NONE. Without the lock: the answer may be old. */
uint32_t table_add(struct step *s, const struct meter_words *m, const char *name, uint32_t group_row);
	/* A row for a meter that has none. ROW_NONE: all are taken. `name` may be
	 * NULL; group_row: ROW_NONE, or of the meter that counts this one. */
bool table_remove(struct step *s, uint32_t row);
	/* false, and nothing changed: too many entries of the index would have to
	 * move. At most TABLE_REMOVE_NOTES words change. */
#define TABLE_REMOVE_NOTES 40
uint32_t table_group(const struct arena *a, uint32_t row);
	/* The row of the group's meter, or ROW_NONE. */

#endif
