/*
 * gateway/master.h -- the process that owns the arena and the sockets.
 *
 * It reads the settings, opens the arena, binds one SO_REUSEPORT listener for
 * each worker (and keeps it open, so that a dead worker's queue passes to its
 * successor), forks, watches, and settles what a dead worker held before its
 * row is used again. It never sees a request and has no event loop of a
 * library: signals through a loop that forks would reach both sides.
 *
 * SIGHUP: new settings and certificates. SIGTERM, SIGINT: drain and stop (a
 * second one: stop now).
 */
#ifndef WEIR_GATEWAY_MASTER_H
#define WEIR_GATEWAY_MASTER_H

#include "gateway/settings.h"

#define RELOAD_BYTES_MAX (SETTINGS_BUNDLE_BYTES_MAX + 4096)
	/* CHANNEL_RELOAD's memfd: struct tls_ticket_keys, then the bundle. */

struct serve_options {
	const char *config;		/* NULL: the defaults */
	struct settings_overrides over;
};

int master_run(const struct serve_options *o);
	/* The exit status of `weir serve`. */

#endif
