/*
 * gateway/settings_fields.h -- the settings, as data.
 *
 * For settings*.c and their tests. One row a setting: its place in the file,
 * type, default, bounds, and where its value goes. Reading, defaults, unknown
 * names, the JSON Schema in deploy/ and the page in docs/ are all held to
 * these rows (tests/unit/test_settings.c).
 */
#ifndef WEIR_GATEWAY_SETTINGS_FIELDS_H
#define WEIR_GATEWAY_SETTINGS_FIELDS_H

#include <stddef.h>

#include "gateway/settings.h"

enum setting_kind {
	SETTING_SECTION,	/* an object of settings */
	SETTING_LIST,		/* an array of such objects; max: how many */
	SETTING_LISTEN,		/* an array of addresses or objects */
	SETTING_STRING,		/* min..max bytes, no control characters */
	SETTING_STRINGS,	/* an array of them, at most SETTINGS_STRINGS_MAX */
	SETTING_SLUG,
	SETTING_CHOICE,		/* one of `choices`, "a|b|c"; stored as its number */
	SETTING_BOOL,
	SETTING_U32,		/* min..max */
	SETTING_U64,
	SETTING_POWER2,		/* uint32_t, rounded up to a power of two */
	SETTING_ADDRESS,	/* "127.0.0.1:8080", into a struct setting_listener */
	SETTING_DIR,		/* path; relative to the file's folder */
	SETTING_FILE,		/* path of a PEM file; in a bundle: its content */
	SETTING_SECRET,		/* string or "file:PATH" */
	SETTING_RAW_OBJECT,	/* JSON that somebody else reads: a span */
	SETTING_RAW_ARRAY,
	SETTING_RAW_LIMITS,	/* limits: an array of them, or a single one */
};

#define SETTINGS_STRINGS_MAX 256
#define SETTINGS_ROWS_MAX 128
#define SETTINGS_MODEL_LIMITS_MAX 64	/* of a provider */

struct setting_field {
	const char *path;	/* "limits.body_bytes", "providers[].slug" */
	enum setting_kind kind;
	bool required;
	bool zero_is_default;	/* 0 stands for the value that would be computed */
	size_t offset;		/* in the draft, or in the element of the list */
	const char *fallback;	/* default as JSON; NULL: none, or computed */
	const char *choices;
	int64_t min, max;
};

extern const struct setting_field setting_fields[];
extern const size_t setting_fields_count;

const struct setting_field *setting_field_find(struct slice generic_path);
	/* "providers[].slug"; NULL: no such setting. */
const char *setting_field_leaf(const struct setting_field *f);
	/* "slug" */
bool setting_field_below(const struct setting_field *f, struct slice generic_parent);
	/* Is it a direct member of that object? "" is the document. */

/* A set of rows. */
struct setting_rows {
	uint64_t bits[SETTINGS_ROWS_MAX / 64];
};
static inline void
setting_rows_add(struct setting_rows *rows, const struct setting_field *row)
{
	rows->bits[(row - setting_fields) / 64] |= UINT64_C(1) << (row - setting_fields) % 64;
}
static inline bool
setting_rows_has(const struct setting_rows *rows, const struct setting_field *row)
{
	return rows->bits[(row - setting_fields) / 64] >> (row - setting_fields) % 64 & 1;
}

/* Settings while they are read; spans point into the bundle. */
struct draft_config {
	char *slug;
	struct slice raw;
};
struct draft_limits {
	struct slice rates, usages, models;
};
struct draft_provider {
	struct setting_provider provider;	/* first: offsets of rows are the same in both */
	struct draft_limits limits;
};
struct draft_workspace {
	struct setting_workspace workspace;	/* first: offsets of rows are the same in both */
	struct draft_limits limits;
};
struct settings_draft {
	struct settings s;	/* first: offsets of rows are the same in both */
	struct slice prices, policies;
	struct draft_provider *providers;	/* settings_check() moves them into s.providers */
	uint32_t providers_count;
	struct draft_workspace *workspaces;
	uint32_t workspaces_count;
	struct draft_config *configs;
	uint32_t configs_count;
	char *schema;		/* "$schema", for editors */
	uint32_t problems_before;	/* how many there were when reading began */
	struct setting_rows unresolved;	/* that are null: settings_load() has said why */
};

bool settings_unresolved(const struct settings_draft *d, const char *path);
	/* Then no follow-up mistake is to be made of its absence. */
bool settings_parse_address(struct slice text, struct setting_listener *out) MUST_CHECK;
	/* Sets host and port. false: not a numeric address with a port. */
const char *settings_parse_url(struct setting_provider *provider);
	/* Takes base_url apart into host, port, tls, path_prefix. NULL, or what
	 * is wrong with it. */
void settings_check(struct settings_draft *d, struct problems *p);
	/* What concerns more than one value; fills what follows from others:
	 * configs, prices, limits, policies, indexes, the default provider. */
void settings_check_limits(struct settings_draft *d, struct problems *p);
	/* Its part for limits and policies: after providers and configs are known. */
void settings_check_models(struct settings_draft *d, struct problems *p);
	/* Its part for aliases, and for configs of workspaces: before the
	 * workspaces leave the draft. */
bool settings_resolve(struct slice json, const char *folder, struct buf *out, struct problems *p) MUST_CHECK;
	/*
	 * Copies a valid JSON text into `out` with ${NAME}, file: and files
	 * replaced by what they stand for; a reference that fails becomes null
	 * and a problem. `folder` is absolute. false: nothing useful in `out`.
	 */
bool settings_read_file(const char *path, size_t max, struct buf *out, const char **why) MUST_CHECK;
	/* The whole file, at most `max` bytes; `out` is made by the call. */

#endif
