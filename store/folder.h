/*
 * store/folder.h -- the data folder: made, and refused if it is not ours.
 *
 * All of weir's durable state lies below one folder, mode 0700, files 0600. A
 * folder that belongs to another user is refused, also by root: files that
 * root left in it would lock its owner out. (Tools that root starts become the
 * owner first: gateway/args.h.)
 *
 * Its file `format` has the number of the form in which all below it is stored.
 * It is there before anything else is, so a store of another weir is refused
 * and not misread.
 */
#ifndef WEIR_STORE_FOLDER_H
#define WEIR_STORE_FOLDER_H

#include <stddef.h>

#include "shm/base/check.h"

int folder_make(const char *path, char *why, size_t why_size) MUST_CHECK;
	/* Makes the folder and what is missing above it, then folder_check();
	 * then its file `format`, if it has none. */
int folder_check(const char *path, char *why, size_t why_size) MUST_CHECK;
	/* 0 if it is a folder that belongs to this process's user, and what is in
	 * it has our format; -1 and a sentence that names it and the cure. */

#endif
