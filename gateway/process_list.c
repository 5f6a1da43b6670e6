/* gateway/process_list.c -- see process_list.h. */
#include "gateway/process_list.h"

#include <stdio.h>

static uint32_t
add(const struct arena *a, uint32_t row, const char *name, struct process *out)
{
	out->view = arena_proc(a, row);
	out->row = row;
	snprintf(out->name, sizeof(out->name), "%s", name);
	return out->view.started_wall_ns != 0;	/* a row that was never in use is no process */
}

uint32_t
process_list(const struct arena *a, struct process out[PROC_COUNT])
{
	static const struct { uint32_t row; const char *name; } others[] = {
		{ PROC_KEEPER, "keeper" }, { PROC_ADMIN, "admin" }, { PROC_MASTER, "master" },
	};
	uint32_t workers = arena_sizes(a).workers, n = 0;
	char name[24];

	for (uint32_t w = 0; w < workers; w++) {
		snprintf(name, sizeof(name), "worker-%u", w);
		n += add(a, w, name, &out[n]);
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		n += add(a, others[i].row, others[i].name, &out[n]);
	return n;
}
