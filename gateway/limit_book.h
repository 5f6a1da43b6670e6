/*
 * gateway/limit_book.h -- every limit that keys and settings name, by its meter's id.
 */
#ifndef WEIR_GATEWAY_LIMIT_BOOK_H
#define WEIR_GATEWAY_LIMIT_BOOK_H

#include "gateway/settings.h"
#include "shm/ledger.h"
#include "store/catalog.h"

struct limit_book {
	struct limit_entry {
		struct charge charge;
		char name[METER_NAME_BYTES];
	} *entry;			/* by id, after limit_book_sort() */
	size_t count, room;
	const struct settings *settings;	/* for policies' groups; NULL: none */
	bool no_memory;
};

void limit_book_add(struct limit_book *b, const struct limits *limits);
void limit_book_add_keys(struct limit_book *b, struct catalog *c);
void limit_book_add_settings(struct limit_book *b, const struct settings *s);
	/* Which must outlive the book. */
void limit_book_read(struct limit_book *b, const char *data_dir, const struct settings *s);
	/* All keys of the store, if it has any; settings, unless NULL; sorted. */
void limit_book_sort(struct limit_book *b);
	/* Before limit_book_find(). */
bool limit_book_find(const struct limit_book *b, struct meter_id id, const char *name, struct charge *out, char out_name[METER_NAME_BYTES]);
	/* By id; a group of a policy by the name that its meter has. The name of
	 * `out` is out_name. */
void limit_book_free(struct limit_book *b);

#endif
