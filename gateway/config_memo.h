/*
 * gateway/config_memo.h -- inline configs that a worker has met.
 *
 * A client that brings its config in a header brings the same one with each
 * request. It is compiled once for a version of the settings (by which its
 * providers and hosts are judged) and kept while it is used; bounded, the one
 * that was not used for longest goes first (recent.h).
 */
#ifndef WEIR_GATEWAY_CONFIG_MEMO_H
#define WEIR_GATEWAY_CONFIG_MEMO_H

#include "gateway/settings.h"

struct config_memo;

struct config_memo *config_memo_new(void);
	/* NULL without memory. */
void config_memo_free(struct config_memo *m);

struct config *config_memo_get(struct config_memo *m, const struct settings *s, struct slice json, struct problems *p);
	/* Held for the caller: config_put(). NULL: it has mistakes, which are in p.
	 * Names of providers that are not in the settings are among these. */

#endif
