/*
 * gateway/keeper.h -- the keeper process: rings and meters into LMDB.
 *
 * Every flush_ms it drains the rings into the store in group commits. It can
 * die at any instant and be started again: nothing is lost or counted twice.
 * While the store fails it keeps trying, the rings hold the records, and the
 * arena says so: nothing new is admitted (arena_store_failing()).
 *
 * It also keeps the table of meters from filling up: those that nobody used
 * for a while, and whose state the store has, are taken out. And it takes the
 * workers' mail for the response cache (gateway/cache_intake.h).
 */
#ifndef WEIR_GATEWAY_KEEPER_H
#define WEIR_GATEWAY_KEEPER_H

#include "gateway/settings.h"
#include "shm/arena.h"

int keeper_run(struct arena *a, struct settings *s, int control_fd, int cache_fd);
	/* The process's main function. On SIGTERM it drains what is there and
	 * returns 0. control_fd: gateway/channel.h; end-of-file means that the
	 * master is gone: drain and return. cache_fd: the keeper's end of
	 * gateway/cache_mail.h. */
int keeper_recover(struct arena *a, const char *data_dir);
	/* A short-lived child at start, before any worker: makes the store, and
	 * drains what a previous run left in the rings until they are empty. Exit
	 * status. */

#endif
