/*
 * policy/members.h -- chosen top-level members of a JSON object in pieces.
 *
 * For a plain answer of any size: the text is never held, only the raw value
 * of a member that somebody asked for, and at most SSE_EVENT_BYTES_MAX of it.
 * It finds the ends of values by brackets and quotes and does not check the
 * grammar inside; who reads a value does (json.h).
 */
#ifndef WEIR_POLICY_MEMBERS_H
#define WEIR_POLICY_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/buf.h"

#define MEMBER_NAME_BYTES 32	/* raw, with quotes; longer names are not asked for */

struct members {
	const struct slice *wanted;	/* names, none at the end */
	const struct slice *name;	/* of the member that is coming or has come; NULL: not asked for */
	struct buf value;	/* its raw value */
	bool ready;		/* name and value are complete: read them now */
	bool complete;		/* the object's closing bracket has come */
	bool broken;		/* not an object, or not JSON: nothing more is read */
	uint8_t state;		/* enum in members.c */
	bool in_string, escaped;
	uint64_t depth;		/* brackets open inside the value */
	char raw_name[MEMBER_NAME_BYTES];
	uint8_t raw_name_n;	/* MEMBER_NAME_BYTES + 1: too long */
};

void members_init(struct members *m, const struct slice *wanted);
void members_free(struct members *m);
const char *members_next(struct members *m, const char *p, const char *end);
	/* Reads on until a wanted member is complete (m->ready) or the bytes
	 * end. The byte behind what was read. */
bool members_untouched(const struct members *m);
	/* No byte has come. */
void members_close(struct members *m);
	/* The whole object has been read by other means: as if it had come, with
	 * nobody asking for its members. */

#endif
