/*
 * store/cache_stamp.h -- <data>/cache.boot: whose writes the cache consists of.
 *
 * Inside store/ only. The cache's commits do not wait for the disk. What they
 * leave is whole as long as the kernel that took them runs, whoever dies; after
 * a loss of power it may be anything. So a file beside the cache says on which
 * boot it was made, and which file it is (a copy, made while weir ran, may be torn
 * as well). It is durable before the first such commit.
 */
#ifndef WEIR_STORE_CACHE_STAMP_H
#define WEIR_STORE_CACHE_STAMP_H

#include <stdbool.h>

#include "shm/base/check.h"

bool cache_stamp_fits(const char *data_dir);
	/* The cache that is there was made on this boot, in this place. */
int cache_stamp_write(const char *data_dir) MUST_CHECK;
	/* For the cache that is there. 0 or errno. */
int cache_stamp_remove(const char *data_dir) MUST_CHECK;

#endif
