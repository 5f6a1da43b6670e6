/*
 * gateway/target_list.h -- the targets that failed lately, as people see them.
 *
 * A name is there once. A target of a config that was changed may have two rows, as
 * its id is another one now: the one that was reported of last speaks for it.
 */
#ifndef WEIR_GATEWAY_TARGET_LIST_H
#define WEIR_GATEWAY_TARGET_LIST_H

#include "shm/health.h"

struct target_list {
	struct health_view *row;	/* by name; who has none is called by its id */
	size_t count;
};

bool target_list_init(struct target_list *l) MUST_CHECK;
	/* Room for all rows of the table, some 900 KiB. false: no memory. */
void target_list_free(struct target_list *l);
void target_list_read(struct target_list *l, const struct arena *a, int64_t now_mono_ns);

#endif
