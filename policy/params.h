/*
 * policy/params.h -- a target's changes of the body: defaults, overrides, drops.
 *
 * In this order, each time from the client's own body: default_params adds a
 * top-level member where there is none, override_params replaces or adds one,
 * drop_params removes members and elements at any depth. All paths of drops
 * mean places of the body as it is before the first drop. Bytes that nothing
 * means stay as they are.
 *
 * Paths: a, a.b, a[0].b, a[*].b[*].c; a name is any text without dots and
 * brackets. A path that leads nowhere in a body is fine.
 */
#ifndef WEIR_POLICY_PARAMS_H
#define WEIR_POLICY_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/body.h"
#include "policy/problem.h"

#define PARAMS_DROPS_MAX 64		/* paths of one target: they are noted in one word */
#define PARAMS_PATH_BYTES_MAX 256
#define PARAMS_SEGMENTS_MAX 16		/* names and brackets of a path */
#define PARAMS_INDEX_MAX 99999		/* in brackets: the API takes 100,000 messages */

struct params_path;			/* compiled */

struct params_path *params_path_compile(struct slice text, const char *path, struct problems *p) MUST_CHECK;
	/* `text` as people write it (of JSON: unescaped), `path` its place in
	 * the document, for problems. NULL: a problem was added. Nothing of
	 * `text` is kept. params_path_free() it. */
void params_path_free(struct params_path *path);
	/* NULL is fine. */

struct config_param;			/* policy/config.h: name, and JSON text */
struct params {				/* of a target, with all that it inherits */
	const struct config_param *defaults, *overrides;
	uint32_t defaults_count, overrides_count;	/* each at most CONFIG_PARAMS_MAX */
	struct params_path *const *drops;
	uint32_t drops_count;		/* at most PARAMS_DROPS_MAX */
};		/* in a list no name comes twice */

struct scratch;
bool params_apply(const struct body_scan *body, const struct params *params, struct scratch *mem,
    struct slice *out, const char **why) MUST_CHECK;
	/* The edited body in *out: one text in `mem`, to be scanned like a
	 * client's own (it has no more than SCAN_MEMBERS_MAX members); or the body itself (out->p == body->body.p), when nothing
	 * changes. false: it does not fit, and *why says so (static). */

#endif
