/*
 * gateway/tool_arena.h -- the arena of a weir that may be running, for a tool.
 */
#ifndef WEIR_GATEWAY_TOOL_ARENA_H
#define WEIR_GATEWAY_TOOL_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "shm/arena.h"
#include "shm/ledger.h"

struct now tool_now(void);
bool tool_arena_open(struct arena *a, const char *run_folder, bool writable, char *why, size_t why_size) MUST_CHECK;
	/* true: attached, and its weir runs. false: not attached; `why` is a
	 * sentence. A weir that died without a word counts as stopped. */
bool tool_arena_runs(const struct arena *a);
	/* Its master lives. */
bool tool_arena_replaced(const struct arena *a, const char *run_folder);
	/* Another arena has taken its place: weir was started anew. */

#endif
