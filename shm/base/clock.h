/*
 * shm/base/clock.h -- the two clocks, and what one of them counts from.
 *
 * Monotonic nanoseconds order things and time buckets on one boot; wall
 * nanoseconds (UTC, since 1970) name periods and stamp records. Neither is a
 * system call on Linux (vDSO).
 */
#ifndef WEIR_SHM_BASE_CLOCK_H
#define WEIR_SHM_BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

int64_t clock_mono_ns(void);
int64_t clock_wall_ns(void);
#define CLOCK_BOOT_BYTES 40	/* 36 characters, filled up with NULs */
bool clock_boot_id(char out[CLOCK_BOOT_BYTES]) MUST_CHECK;
	/* Tells one boot of the machine from the next. false: the kernel does not say. */
void clock_format_utc(int64_t wall_ns, char *out, size_t size);
	/* RFC 3339 with milliseconds: 2026-11-23T18:17:13.042Z (needs 25 bytes). */
bool clock_parse_utc(struct slice text, int64_t *wall_ns);
	/* RFC 3339, 2026-12-31T00:00:00Z: fractions and offsets (+01:00) too.
	 * false for anything else, and before 1970 or after 2261. */

#endif
