/*
 * gateway/key_table.h -- the keys of a store, as people and tools read them.
 *
 * Beside what each document says: whether the key is valid now, and what its
 * budgets have spent (as far as the keeper has written it: a moment ago).
 */
#ifndef WEIR_GATEWAY_KEY_TABLE_H
#define WEIR_GATEWAY_KEY_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "shm/base/check.h"

int key_table_print(const char *data_dir, bool json, char *why, size_t why_size) MUST_CHECK;
	/*
	 * On stdout: a table, or a JSON array of the documents without
	 * `hashes`, with "status" ("active", "revoked", "expired",
	 * "unreadable") and "spent", of each budget:
	 * [{"limit":"key monthly budget","period":"monthly","spent_nusd":N}],
	 * where it is not money "spent" instead of "spent_nusd".
	 */

#endif
