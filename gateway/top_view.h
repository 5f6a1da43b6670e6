/*
 * gateway/top_view.h -- one look at a running weir, as weir top shows it.
 *
 * Counters only rise, so what happens a second is the difference of two looks.
 * Nothing is asked of any process: all of it is read from the arena.
 */
#ifndef WEIR_GATEWAY_TOP_VIEW_H
#define WEIR_GATEWAY_TOP_VIEW_H

#include "gateway/meter_list.h"
#include "gateway/process_list.h"
#include "gateway/target_list.h"
#include "shm/base/buf.h"
#include "shm/metrics.h"

struct top_view {
	struct metrics_view *before, *now;	/* counters at the look before, and at this one */
	struct now at_before, at;
	struct meter_list fullest;
	uint32_t meters, meters_capacity;
	uint32_t inflight, inflight_capacity;
	int64_t held_nusd;
	bool store_failing;
	struct target_list targets;
	struct process process[PROC_COUNT];
	uint32_t processes;
	uint32_t ring_permille[WORKERS_MAX], inflight_of[WORKERS_MAX];
};

bool top_view_init(struct top_view *v, size_t rows) MUST_CHECK;
	/* rows: of the fullest meters; 0: none. false: no memory. */
void top_view_free(struct top_view *v);
void top_view_begin(struct top_view *v, const struct arena *a);
	/* The look to which the first one compares. */
bool top_view_look(struct top_view *v, struct arena *a) MUST_CHECK;
	/* false: no memory. */
void top_view_text(const struct top_view *v, struct buf *out);
	/* Lines for people. */
void top_view_json(const struct top_view *v, struct buf *out);
	/* One object, one line. */

#endif
