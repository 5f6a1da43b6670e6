/*
 * shm/inflight.h -- pages of requests in flight: the part private to shm/.
 */
#ifndef WEIR_SHM_INFLIGHT_H
#define WEIR_SHM_INFLIGHT_H

#include "shm/journal.h"

bool inflight_has_room(const struct arena *a, const struct shm_worker *w);
	/* inflight_take() will find a page. */
struct inflight *inflight_take(struct step *s);
	/* A free page of the step's worker, still in state FREE: fill in its
	 * holds, then inflight_admit(). */
void inflight_admit(struct step *s, struct inflight *e);
void inflight_release(struct step *s, struct inflight *e);
enum inflight_state inflight_state(const struct inflight *e);
bool inflight_is_cancel(const struct inflight *e);
void inflight_done(struct inflight *e, bool cancel, const struct settled *used);
	/* The request is over and how is decided, but the ring is full. */
struct settled inflight_used(const struct inflight *e);
	/* As inflight_done() was told. */
const char *inflight_text(const struct inflight *e, uint32_t *bytes);
	/* The valid version of the record. */

#endif
