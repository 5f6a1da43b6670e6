/*
 * gateway/answer_cache.h -- answers that were given before.
 *
 * Where a target's config says so, a request is looked for among kept answers
 * (store/cache.h) before it is admitted: exactly the same one, by a key over what
 * its provider would be sent and over who asks (policy/canon.h). A hit is held to
 * the rates of its key and workspace, costs nothing and is recorded. A miss is
 * fetched by one request at a time, over all workers (shm/claims.h); the others
 * wait for it, bounded by cache.wait_ms and routing.total_ms, and then do it
 * themselves.
 *
 * Kept is an answer that came whole, with status 200 and its usage, and that no
 * budget has shortened. It goes to the keeper by mail (cache_mail.h); its claim is
 * held until it can be found, so that nobody fetches it a second time meanwhile.
 */
#ifndef WEIR_GATEWAY_ANSWER_CACHE_H
#define WEIR_GATEWAY_ANSWER_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/step.h"
#include "gateway/timeline.h"
#include "shm/base/buf.h"
#include "store/record.h"

struct cache_desk;
struct http1_head;
struct request;
struct worker;

/* A request's part in it. */
struct cache_part {
	enum { CACHE_ASIDE, CACHE_FETCHES, CACHE_WAITS } role;
	bool claimed;			/* others wait for us */
	bool collects;			/* the answer is one that may be kept */
	bool from_cache;		/* it was a hit */
	uint64_t key[2];
	int64_t max_age_ns;
	struct timepoint waiting;	/* since when; on the desk's list */
	struct buf body;		/* of the answer so far */
};

struct cache_desk *cache_desk_open(struct worker *w, int mail_fd);
	/* What a worker has for it. NULL: no memory. */
void cache_desk_tick(struct cache_desk *d);
	/* Now and then. */
void cache_desk_stop(struct cache_desk *d);
	/* The loop ends: closes its timer. Nobody waits any more. */
void cache_desk_free(struct cache_desk *d);

enum step cache_step(struct request *r);
	/* At a target whose body is made. STOP: it waits. NEXT: go on to admission,
	 * from_cache says as what. */
bool cache_serve(struct request *r);
	/* Admitted, with from_cache: answers, and the request is gone. false: the
	 * answer is not there any more. */
void cache_answer_begins(struct request *r, const struct http1_head *head);
void cache_answer_more(struct request *r, struct slice span);
void cache_answer_failed(struct request *r);
	/* What came of it is not kept. */
void cache_answer_done(struct request *r, enum record_outcome outcome);
	/* Of one that fetches: its answer has come whole. */
void cache_leave(struct request *r);
	/* The request is over. */

#endif
