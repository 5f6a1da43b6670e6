/*
 * gateway/keeper.h -- the keeper process: rings and meters into LMDB.
 *
 * Every flush_ms it drains the rings into the store in group commits. It can
 * die at any instant and be started again: nothing is lost or counted twice.
 * While the store fails it keeps trying, and the rings hold the records.
 */
#ifndef WEIR_GATEWAY_KEEPER_H
#define WEIR_GATEWAY_KEEPER_H

#include "gateway/settings.h"
#include "shm/arena.h"

int keeper_run(struct arena *a, struct settings *s, int control_fd);
	/* The process's main function. On SIGTERM it drains what is there and
	 * returns 0. control_fd: gateway/channel.h; end-of-file means that the
	 * master is gone: drain and return. */
int keeper_recover(struct arena *a, const char *data_dir, bool load_meters);
	/* A short-lived child at start, before any worker: makes the store,
	 * drains what a previous run left in the rings until they are empty,
	 * and (load_meters) loads durable levels into a new arena. Exit status. */

#endif
