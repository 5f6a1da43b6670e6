/*
 * shm/limits.h -- every upper bound of the program that is not a setting.
 *
 * Each has its reason. What an operator may want to change is a setting
 * (gateway/settings.h), not a line here.
 */
#ifndef WEIR_SHM_LIMITS_H
#define WEIR_SHM_LIMITS_H

#define CACHE_LINE 64			/* x86-64 and most arm64 */

/* Processes and the arena. */
#define WORKERS_MAX 128			/* slots in the arena; one a core is the default */
#define CHARGES_MAX 24			/* limits that one request touches; a dozen is usual */
#define METER_NAME_BYTES 112		/* what a meter is called, with its NUL; longer names are cut */
#define RECORD_BYTES_MAX 3072		/* a record incl. metadata */
#define INFLIGHT_ENTRY_BYTES 7552	/* a request in flight: two versions of its record, its holds */
#define PROVIDERS_MAX 16		/* rows of per-provider counters; 0 is "none" */
#define ROUTES_MAX 12			/* rows of per-route counters */
#define STATUSES_MAX 40			/* columns: see shm/metrics.h */

/* HTTP. */
#define HTTP_HEAD_BYTES_MAX 32768	/* as most servers; Claude Code sends 2 KB */
#define HTTP_HEADERS_MAX 128
#define HTTP_READ_BYTES 65536		/* the shared read buffer of a worker */
#define HTTP_PIPELINE_BYTES_MAX 65536	/* bytes kept of requests sent ahead of their turn */
#define HTTP_UPSTREAM_HEAD_BYTES_MAX 65536	/* providers send long header sets */

/* Bodies. */
#define JSON_DEPTH_MAX 512		/* tool schemas nest; the API's own bound is lower */
#define SCAN_MEMBERS_MAX 64		/* top-level members of a body: the API has about 30 */
#define SPLICES_MAX 32			/* edits of one body */
#define SSE_EVENT_BYTES_MAX (1u << 20)	/* of an event that is metered; others are not kept */

/* Metadata (x-portkey-metadata). */
#define METADATA_PAIRS_MAX 64
#define METADATA_KEY_BYTES_MAX 128
#define METADATA_VALUE_CHARS_MAX 128	/* Portkey's documented bound */
#define METADATA_BYTES_MAX 1536		/* merged object: it must fit into a record */

#endif
