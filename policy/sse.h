/*
 * policy/sse.h -- Anthropic's event stream, cut into events as it passes.
 *
 * Reads bytes in any pieces and stops at the end of each event. What a line
 * is follows the WHATWG text (LF, CR, CRLF, comments, several data lines, a
 * byte order mark). Only the data of events that somebody reads is kept, and
 * at most SSE_EVENT_BYTES_MAX of it; all else is counted and forgotten, so a
 * line without an end costs no memory.
 */
#ifndef WEIR_POLICY_SSE_H
#define WEIR_POLICY_SSE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/slice.h"

/* X(suffix, name on the `event:` line, is its data kept) */
#define SSE_KINDS(X) \
	X(CONTENT_BLOCK_DELTA, "content_block_delta", false)	/* most of them: compared first */ \
	X(CONTENT_BLOCK_START, "content_block_start", false) \
	X(CONTENT_BLOCK_STOP, "content_block_stop", false) \
	X(MESSAGE_START, "message_start", true) \
	X(MESSAGE_DELTA, "message_delta", true) \
	X(MESSAGE_STOP, "message_stop", false) \
	X(PING, "ping", false) \
	X(ERROR, "error", true)

enum sse_kind {
	SSE_UNNAMED,		/* no `event:` line: data.type tells. Its data is kept */
	SSE_OTHER,		/* a name that this version does not know */
#define X(id, name, keep) SSE_##id,
	SSE_KINDS(X)
#undef X
};

#define SSE_NAME_BYTES 24	/* the longest name of SSE_KINDS has 19 */

struct sse {
	/* The event that has just ended, or the one that is coming. */
	enum sse_kind kind;
	uint64_t data_bytes;	/* of its data lines, kept or not */
	struct buf data;	/* kept: the lines, joined by LF */
	bool open;		/* a line of it has ended */
	bool lost;		/* some of its data was not kept */
	bool ended;		/* it is complete: the next byte begins another */
	uint32_t data_lines;

	/* The line that is coming. */
	uint8_t field;		/* enum in sse.c */
	uint8_t name_n;
	char name[SSE_NAME_BYTES];	/* the field's name, then the event's */
	uint8_t bom;		/* bytes of the mark that have come; 3: no longer possible */
	bool after_cr;		/* the last byte was a CR: an LF would belong to it */
	bool lone_cr;		/* the line before ended with a CR alone */
};

void sse_init(struct sse *s);
void sse_free(struct sse *s);
const char *sse_next(struct sse *s, const char *p, const char *end);
	/* Reads on until an event ends (s->ended) or the bytes do. The byte
	 * behind what was read. */
bool sse_end(struct sse *s);
	/* No more bytes come. true: an event without its blank line is there. */
bool sse_at_boundary(const struct sse *s);
	/* Something may be inserted here: no event is half written. After a CR
	 * that may be half of a CRLF the answer is no, until the next byte. */
bool sse_data(const struct sse *s, struct slice *data);
	/* The ended event's data, whole (empty without a data line); false if it
	 * was not kept or came before its name. */
enum sse_kind sse_kind_of(struct slice name);

#endif
