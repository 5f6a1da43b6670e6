/*
 * shm/inflight.h -- pages of requests in flight: the part private to shm/.
 */
#ifndef WEIR_SHM_INFLIGHT_H
#define WEIR_SHM_INFLIGHT_H

#include "shm/journal.h"

struct inflight *inflight_take(struct step *s);
	/* A free page of the step's worker, still in state FREE: fill in its
	 * holds, then inflight_admit(). NULL: all are in use. */
void inflight_admit(struct step *s, struct inflight *e);
void inflight_release(struct step *s, struct inflight *e);
enum inflight_state inflight_state(const struct inflight *e);
bool inflight_is_cancel(const struct inflight *e);
void inflight_done(struct inflight *e, bool cancel, int64_t cost_nusd);
	/* The request is over and how is decided, but the ring is full. */
const char *inflight_text(const struct inflight *e, uint32_t *bytes);
	/* The valid version of the record. */

#endif
