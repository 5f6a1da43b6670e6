/*
 * gateway/tool_text.h -- how tools write amounts, times and names for people.
 *
 * What a client or an operator chose is printed so that no terminal obeys it.
 */
#ifndef WEIR_GATEWAY_TOOL_TEXT_H
#define WEIR_GATEWAY_TOOL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/ledger.h"

#define TOOL_AMOUNT_BYTES 32
#define TOOL_TIME_BYTES 32
#define TOOL_ID_BYTES 33

void tool_cell(struct buf *out, struct slice s, size_t width);
	/* A column, filled with spaces, with one more behind it; "-" if empty, cut
	 * to fit. Control characters become "?". */
void tool_words(struct buf *out, struct slice s);
	/* The same without a width: nothing is cut, nothing is filled. */
void tool_number(struct buf *out, const char *text, size_t width);
	/* A column with the text at its right end, and a space. */
const char *tool_amount(enum meter_unit unit, int64_t amount, char out[TOOL_AMOUNT_BYTES]);
	/* "1234"; money exactly, in dollars without needless zeros: "$0.25" */
const char *tool_duration(int64_t ns, char out[TOOL_TIME_BYTES]);
	/* The two largest units: "3d4h", "12m5s", "1.2s", "250ms" */
const char *tool_time(int64_t wall_ns, char out[TOOL_TIME_BYTES]);
	/* "2026-12-01T00:00:00Z" */
const char *tool_id(struct meter_id id, char out[TOOL_ID_BYTES]);
	/* 32 hexadecimal digits */
bool tool_id_parse(const char *text, struct meter_id *id);
int tool_printed(const char *command);
	/* Exit status: 0 if all that was written to stdout has arrived, or if its
	 * reader wanted no more. */

#endif
