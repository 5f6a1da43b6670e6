/*
 * policy/cut.h -- a JSON text copied with parts of it left out, and others put in.
 *
 * Who walks a text tells where the items of its objects and arrays begin and end
 * and which are left out; commas come out right whatever these are. An item takes
 * the comma before it along. Where nothing is left before it, it takes the one
 * behind it, with the white space up to the next item, so that what follows
 * becomes the first. All other bytes are copied as they are, in one piece between
 * two changes; without a change nothing is copied and no memory is taken.
 */
#ifndef WEIR_POLICY_CUT_H
#define WEIR_POLICY_CUT_H

#include <stdbool.h>

#include "shm/base/scratch.h"
#include "shm/base/slice.h"

struct cut {
	struct scratch *mem;
	char *out;			/* NULL: nothing has changed yet */
	size_t n, room;			/* room: of all that will be copied and put in, at the most */
	const char *from;		/* the text at hand is copied up to here */
	bool failed;			/* no memory: from then on nothing is done */
};

struct cut_items {			/* of an open object or array; = {0} at its bracket */
	const char *behind;		/* the last item ends here; NULL: there was none */
	const char *start;		/* of the item at hand ... */
	const char *from;		/* ... and how far the copy was then */
	size_t n;
	const char *gap;		/* what is left out at the front begins here, and ends with the next item */
	bool kept;			/* some item is not left out */
};

void cut_begin(struct cut *c, const char *text, size_t room, struct scratch *mem);
void cut_item(struct cut *c, struct cut_items *i, const char *start);
	/* An item begins: a member's name, an element. */
void cut_keep(struct cut_items *i, const char *end);
void cut_drop(struct cut *c, struct cut_items *i, const char *end);
	/* It has ended, and stays or is left out, whatever has been changed in it. */
void cut_close(struct cut *c, struct cut_items *i);
	/* There are no more items. */
void cut_skip(struct cut *c, const char *begin, const char *end);
	/* These bytes are not copied: something else is put in their place. */
void cut_put(struct cut *c, struct slice text);
void cut_put_quoted(struct cut *c, struct slice text);
	/* As a JSON string. */
void cut_switch(struct cut *c, const char *from);
	/* Another text is copied from here on; the one before has been copied as
	 * far as it is wanted. */
bool cut_end(struct cut *c, const char *end, struct slice *out);
	/* The rest of the text, up to `end`. *out: the copy; none: nothing has
	 * changed. false: no memory. */

#endif
