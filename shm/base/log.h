/*
 * shm/base/log.h -- the operator's log: one JSON object a line on stderr.
 *
 * {"time":"...","level":"info","process":"worker-1","pid":42,"msg":"..."}
 * It is for the life of the program (start, reload, restart, alarms). Requests
 * are not logged here: they are records in the store. Never pass a secret.
 */
#ifndef WEIR_SHM_BASE_LOG_H
#define WEIR_SHM_BASE_LOG_H

#include "shm/base/check.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_process(const char *name);
	/* "master", "worker-3", ...; copied, at most 31 bytes. */
void log_set_level(enum log_level least);
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
