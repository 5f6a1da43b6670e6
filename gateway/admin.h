/*
 * gateway/admin.h -- the admin process: /metrics, /healthz, /readyz for people
 * and scrapers.
 *
 * It has its own libuv loop and reads the arena; it is never on the path of a
 * request, and nothing that it does can delay one.
 */
#ifndef WEIR_GATEWAY_ADMIN_H
#define WEIR_GATEWAY_ADMIN_H

#include "gateway/settings.h"
#include "shm/arena.h"
#include "shm/base/buf.h"

int admin_run(struct arena *a, struct settings *s, int listen_fd, int control_fd);
	/* The process's main function: returns its exit status after SIGTERM.
	 * control_fd: new bundles from the master (gateway/channel.h). */
bool admin_ready(const struct arena *a, const struct settings *s, int64_t mono_ns, struct buf *json);
	/* Do all workers and the keeper live and move? `json` says it with
	 * reasons: {"ready":false,"reasons":["worker-1 is not running"]}. */
void metrics_render(const struct arena *a, const struct settings *s, int64_t mono_ns, struct buf *out);
	/* Prometheus text format 0.0.4; all names begin with weir_, base units. */

#endif
