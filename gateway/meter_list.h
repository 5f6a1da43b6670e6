/*
 * gateway/meter_list.h -- the meters of a weir, as tools show them.
 *
 * A meter that was used lately is in the arena, with its limit as of its last
 * use. One that is idle may be in the store alone, which has levels but no
 * limits: those are looked up among what keys and settings say
 * (limit_book.h). A limit that was never used has no meter yet.
 */
#ifndef WEIR_GATEWAY_METER_LIST_H
#define WEIR_GATEWAY_METER_LIST_H

#include "gateway/limit_book.h"
#include "store/records.h"

enum meter_source { METER_IN_ARENA, METER_IN_STORE, METER_NEVER_USED };

struct meter_row {
	struct meter_view view;
	enum meter_source source;
	bool limit_known;	/* else the view's limit, mode, window, alert and tokens mean nothing */
};

int64_t meter_row_used(const struct meter_row *m);
	/* Spent, or gone from the bucket, beside what is held. */
int64_t meter_row_left(const struct meter_row *m);
	/* Less than 0: a limit that was lowered, or a cost above its hold. */
int64_t meter_row_fullness(const struct meter_row *m);
	/* Millionths of the limit that are used or held; -1 if it is not known. */
int64_t meter_row_resets_ns(const struct meter_row *m, struct now now);
	/* Wall clock: the budget's period ends, or the bucket is full; 0: never, or it is. */
const char *meter_kind_name(enum meter_kind kind);
const char *meter_unit_name(enum meter_unit unit);
	/* "requests", "tokens", "nusd" */
const char *meter_mode_name(const struct meter_row *m);
	/* "clamp", "strict", "postpaid"; "-" where there is none */
void meter_period_text(const struct meter_view *v, char *out, size_t size);
	/* "monthly", "7 days", "1m" for a bucket of a minute; "-" */
void meter_row_json(const struct meter_row *m, struct now now, struct buf *out);

/* ---- which ---- */

struct meter_filter {
	const char *name;	/* glob; NULL: any */
	const char *whole_name;	/* exactly; NULL: any */
	bool by_id, by_kind, by_unit;
	struct meter_id id;
	enum meter_kind kind;
	enum meter_unit unit;
	const struct limit_book *only;	/* NULL: any */
};
bool meter_filter_holds(const struct meter_filter *f, const struct meter_view *v);

struct meter_list {
	struct meter_row *row;
	size_t count, room, most;	/* most: the fullest only; 0: all */
	const struct meter_filter *filter;
	uint32_t filters;		/* all hold */
	struct now now;
	bool no_memory;
};

void meter_list_add(struct meter_list *l, const struct meter_row *m);
	/* If the filters hold. */
void meter_list_arena(struct meter_list *l, struct arena *a);
int meter_list_store(struct meter_list *l, struct arena *a, struct reader *r, const struct limit_book *b) MUST_CHECK;
	/* Those that are not in the arena; a: NULL for all. -1: cannot be read. */
void meter_list_unused(struct meter_list *l, const struct limit_book *b);
	/* What is in the book and not yet in the list, which must be whole (most = 0). */
void meter_list_sort(struct meter_list *l);
	/* The fullest first, then by name. */
void meter_list_free(struct meter_list *l);

#endif
