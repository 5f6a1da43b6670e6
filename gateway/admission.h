/*
 * gateway/admission.h -- is there room for the request in all of its limits?
 *
 *	price		what it can cost at the most; its limits, as charges
 *	admit		one decision of the ledger, all or none ...
 *	  load		... after the levels of meters that were not in memory
 *	  count		the bound of the prompt is what does not fit: ask for its size
 *	  wait		what does not fit is held by others: until one of them settles
 *	send, or refuse
 *
 * A request that waits is in its worker's queue, the oldest first, for at most
 * admission_wait_ms. The queue is tried again when a request of this worker
 * settles, and every few milliseconds because others' workers settle too. Of
 * those who wait for one meter the oldest is tried, and who is younger lets it go
 * first if there is room for it, in other workers too (shm/queue.h); where there
 * is not, a smaller request may pass a larger one.
 */
#ifndef WEIR_GATEWAY_ADMISSION_H
#define WEIR_GATEWAY_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

struct request;
struct worker;

int admission_open(struct worker *w);
	/* 0, or an error of libuv. */
void admission_close(struct worker *w);
	/* Nobody waits any more: closes the timer. */
bool admission_refuse_failing(struct request *r);
	/* While the store cannot be written: refuses the request, without a record. */
void admission_counted(struct request *r, int64_t tokens);
	/* The provider counted the prompt; -1: it did not. */
void admission_leave(struct request *r);
	/* The request is over: it does not wait any more. */
void admission_room(struct worker *w);
	/* A hold is gone: who waits is tried at the next turn of the loop. */

#endif
