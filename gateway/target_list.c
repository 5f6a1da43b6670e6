/* gateway/target_list.c -- see target_list.h. */
#include "gateway/target_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
target_list_init(struct target_list *l)
{
	*l = (struct target_list){ .row = calloc(HEALTH_ROWS, sizeof(*l->row)) };
	return l->row != NULL;
}

void
target_list_free(struct target_list *l)
{
	free(l->row);
}

/* By name, then the one that was used last. */
static int
compare(const void *a, const void *b)
{
	const struct health_view *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order != 0 ? order : (x->used_mono_ns < y->used_mono_ns) - (x->used_mono_ns > y->used_mono_ns);
}

void
target_list_read(struct target_list *l, const struct arena *a, int64_t now_mono_ns)
{
	size_t n = 0;

	for (uint32_t i = 0; i < HEALTH_ROWS; i++) {
		struct health_view *v = &l->row[n];

		if (!health_at(a, i, now_mono_ns, v))
			continue;
		if (v->name[0] == '\0')
			snprintf(v->name, sizeof(v->name), "%016" PRIx64 "%016" PRIx64, v->id.hi, v->id.lo);
		n++;
	}
	qsort(l->row, n, sizeof(*l->row), compare);
	l->count = 0;
	for (size_t i = 0; i < n; i++)
		if (l->count == 0 || strcmp(l->row[l->count - 1].name, l->row[i].name) != 0)
			l->row[l->count++] = l->row[i];
}
