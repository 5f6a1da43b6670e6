/*
 * tests/race/disk.h -- a disk that may forget what was not synced.
 *
 * The program's pwrite(), writev(), fsync() and fdatasync() stand before those
 * of the C library, also for LMDB. In a process that called disk_arm() each
 * write to a data.mdb is noted with what it replaces and what it puts there, in
 * memory that its parent shares, until the file is synced (or at once, if it is
 * open with O_DSYNC). Of a copy of the files, made while that process is
 * stopped, the parent can then make what a loss of power may have left: any of
 * the writes that nobody had waited for may be missing, page by page.
 */
#ifndef WEIR_TESTS_RACE_DISK_H
#define WEIR_TESTS_RACE_DISK_H

#include <stdbool.h>
#include <stdint.h>

enum disk_loss { DISK_KEEPS_ALL, DISK_LOSES_SOME, DISK_LOSES_ALL };

bool disk_open(void);
	/* Before the fork: the shared memory. false: there is none. */
void disk_arm(const char *folder);
	/* In the child: what is written below that folder is noted. */
void disk_forget(void);
	/* In the parent, when the child is dead: its files are of no interest. */
uint32_t disk_lose(const char *copy, enum disk_loss loss, uint64_t *random);
	/* In the parent, while the child is stopped and after the folder was
	 * copied: takes writes out of the copy. Returns how many pages. */

#endif
