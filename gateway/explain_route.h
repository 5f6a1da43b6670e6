/*
 * gateway/explain_route.h -- weir explain --config: where a request would go, and why.
 */
#ifndef WEIR_GATEWAY_EXPLAIN_ROUTE_H
#define WEIR_GATEWAY_EXPLAIN_ROUTE_H

#include "gateway/args.h"

struct explain_ask {		/* the command's words; NULL: not given */
	struct args_store store;	/* .config: the file of settings */
	const char *config;	/* a slug, or a config's JSON; NULL: the key's, the workspace's, or none */
	const char *key;
	const char *metadata, *body, *session, *path;	/* `body`: a file's name, "-" for standard input */
};

int explain_route(struct explain_ask *ask);
	/* Prints it. An exit status: 0, also where it would be refused; 1 if
	 * something cannot be read; 2 for a mistake in the words. */

#endif
