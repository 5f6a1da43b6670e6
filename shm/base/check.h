/*
 * shm/base/check.h -- assertions about ourselves.
 *
 * Three kinds of "no" exist in weir. A *bug* is an inside state that cannot
 * be: CHECK() aborts this process, the master notes it and restarts it; it is
 * never compiled out. An *operating error* (disk full, peer gone) is a return
 * value that the caller must look at. A *refusal* (limit, unknown key) is an
 * ordinary result. Never CHECK() bytes that came from outside.
 */
#ifndef WEIR_SHM_BASE_CHECK_H
#define WEIR_SHM_BASE_CHECK_H

#include <stddef.h>

#define CHECK(cond) \
	((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))

_Noreturn void check_failed(const char *what, const char *file, int line);
	/* Writes one line to stderr and aborts. Async-signal-safe. */

/* The struct that a member is in. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#endif
