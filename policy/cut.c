/* policy/cut.c -- see cut.h. */
#include "policy/cut.h"

#include <string.h>

#include "policy/json.h"

void
cut_begin(struct cut *c, const char *text, size_t room, struct scratch *mem)
{
	*c = (struct cut){ .mem = mem, .room = room, .from = text };
}

/* false: no memory. */
static bool
ready(struct cut *c)
{
	if (!c->out && !c->failed) {
		c->out = scratch_alloc(c->mem, c->room);
		c->failed = !c->out;
	}
	return !c->failed;
}

void
cut_put(struct cut *c, struct slice text)
{
	if (!ready(c))
		return;
	CHECK(text.n <= c->room - c->n);
	memcpy(c->out + c->n, text.p, text.n);
	c->n += text.n;
}

void
cut_put_quoted(struct cut *c, struct slice text)
{
	if (!ready(c))
		return;
	size_t n = json_escape(text, c->out + c->n, c->room - c->n);
	CHECK(n <= c->room - c->n);
	c->n += n;
}

void
cut_skip(struct cut *c, const char *begin, const char *end)
{
	cut_put(c, (struct slice){ c->from, (size_t)(begin - c->from) });
	c->from = end;
}

void
cut_item(struct cut *c, struct cut_items *i, const char *start)
{
	if (i->gap)
		cut_skip(c, i->gap, start);
	i->gap = NULL;
	i->start = start;
	i->from = c->from;
	i->n = c->n;
}

void
cut_keep(struct cut_items *i, const char *end)
{
	i->behind = end;
	i->kept = true;
}

void
cut_drop(struct cut *c, struct cut_items *i, const char *end)
{
	c->from = i->from;	/* its inside was copied for nothing */
	c->n = i->n;
	if (i->kept)
		cut_skip(c, i->behind, end);
	else
		i->gap = i->start;
	i->behind = end;
}

void
cut_close(struct cut *c, struct cut_items *i)
{
	if (i->gap)
		cut_skip(c, i->gap, i->behind);
	i->gap = NULL;
}

void
cut_switch(struct cut *c, const char *from)
{
	c->from = from;
}

bool
cut_end(struct cut *c, const char *end, struct slice *out)
{
	*out = SLICE_NONE;
	if (c->out)
		cut_put(c, (struct slice){ c->from, (size_t)(end - c->from) });
	if (c->out && !c->failed)
		*out = (struct slice){ c->out, c->n };
	return !c->failed;
}
