/*
 * gateway/request.h -- one request, from its head to its record.
 *
 * The hot path, in the order of the files:
 *
 *	client.c	bytes in; head and body complete
 *	steps_admit.c	authenticate, resolve: metadata, config, body
 *	steps_route.c	the target: which one, what it is asked; on to the next one
 *	admission.c	price, all limits in one decision; waits for room
 *	steps_serve.c	build the provider's request, send it
 *	answer.c	the provider's answer as it comes: pass it on, hold it, or try elsewhere
 *	relay.c		bytes to the client, past the usage tap
 *	steps_account.c	settle, record, metrics
 *	reply.c		answers of weir's own
 *
 * A request goes to one *target* of its config after the other, and to each of
 * them in one or more *attempts*, until an answer is on its way to the client:
 * then there is no way back. What holds for all of them, for the target at hand
 * and for the attempt under way stands apart in struct request.
 *
 * A step that cannot go on calls request_refuse(); there is one way out,
 * request_finish(), which settles whatever was admitted. Memory of a request
 * is its scratch; the page in the arena is its reservation.
 */
#ifndef WEIR_GATEWAY_REQUEST_H
#define WEIR_GATEWAY_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/answer_cache.h"
#include "gateway/client.h"
#include "gateway/conversation.h"
#include "gateway/endpoint.h"
#include "gateway/headers.h"
#include "gateway/health_watch.h"
#include "gateway/routes.h"
#include "gateway/settings.h"
#include "gateway/step.h"
#include "gateway/worker.h"
#include "policy/body.h"
#include "policy/key.h"
#include "policy/metadata.h"
#include "policy/route.h"
#include "policy/usage.h"
#include "shm/base/scratch.h"
#include "shm/queue.h"
#include "upstream/deadline.h"
#include "store/record.h"

#define SSE_TAIL_BYTES_MAX 16384	/* of an unfinished event that is held back */
#define REQUEST_ID_BYTES 27	/* "req_", 22 characters, and a NUL */

struct refusal_words {
	int status;
	const char *type;		/* envelope type */
	const char *headers;		/* whole lines with CRLF, or "" */
	enum record_outcome outcome;
};

struct request {
	struct client *client;		/* NULL once the client is gone */
	struct worker *worker;
	struct plane *plane;
	struct scratch mem;		/* until the end */
	struct scratch body_mem;	/* body, scan, what is sent: until an answer goes to the client */
	struct scratch target_mem;	/* a body that a target's parameters changed: as long as it is at the target */
	struct request *next;		/* parked or unsettled */
	struct timepoint quiet;		/* event streams: last byte to the client */

	/* What came. */
	struct http1_head head;
	enum route route;
	bool head_method;		/* HEAD: answered without a body */
	struct slice query, model_id;
	char *body;			/* in body_mem if its length was announced ... */
	size_t body_n, body_room;
	struct buf body_grown;		/* ... here if it came in chunks */
	bool keep_alive, body_complete;
	bool is_deferred;		/* refused; answered once its (small) body has been read */
	int64_t start_wall_ns, start_mono_ns;
	char id[REQUEST_ID_BYTES];

	/* What is asked, whoever answers. */
	struct key *key;
	bool portkey_auth;		/* the key came in x-portkey-api-key */
	const struct config *config;	/* config_none() where there is none */
	struct config *config_inline;	/* held: x-portkey-config had JSON in it */
	struct body_scan *asked;	/* the client's own body */
	struct slice model_requested;	/* bare text; none: the body names none */
	struct slice model_named;	/* what it stands for, if it is an alias; may have "@slug/" ahead */
	uint64_t random[2];		/* if the walk draws */
	uint32_t preferred;		/* number of a target, or ROUTE_ANY */
	uint64_t deadline_ms;		/* worker_now_ms(): no attempt begins later */
	struct inflight *page;

	/* What holds for the target that it is at; anew for each: target_enter(). */
	struct at_target {
		const struct config_target *target;	/* NULL: at none */
		const struct setting_provider *provider;
		const struct endpoint *endpoint;
		struct body_scan *asked;	/* the client's own, less what this account cannot understand */
		uint32_t account;		/* conversation.c's name for it, if there are several targets */
		struct body_scan *scan;		/* that, with the target's parameters */
		struct body_edits *edits;
		struct slice model;		/* bare text */
		bool stream, model_remapped, beta_1m;
		bool own_time;			/* first_byte_ms was said by the config or the request: connecting and sending are in it */
		const struct price_row *price;
		struct price_bound bound;	/* output_tokens: as granted */
		int64_t floor_nusd, floor_tokens;	/* likely ones of the input, if nothing is ever reported */
		struct demand demand;		/* output tokens: asked for, granted */
		bool count_tried;
		uint32_t first_byte_ms;
		const struct slice *pieces;	/* the provider's request; NULL: not built */
		size_t pieces_count;
		uint32_t retries;		/* attempts after the first */
		uint32_t retry_waited_ms;	/* because its answers said so */
		bool watched;			/* `health` is valid */
	} at;
	int passed_status;		/* with STEP_PASS */
	struct endpoint own_endpoint;	/* of a host or a credential that the request brought */
	struct used {			/* by all attempts that are over */
		struct metered all;
		int64_t upstream_ns;	/* from sending to the end of each */
		int64_t pause_ns;	/* between them */
	} used;
	bool sent;			/* something has left for a provider */

	/* Admission that is not decided at once. */
	struct timepoint pending;	/* on the worker's `waiting` or `counting` */
	enum admission_state { ADMISSION_OPEN, ADMISSION_WAITING, ADMISSION_COUNTING } admission;
	struct waiting wait;		/* for what; since_mono_ns 0: it never waited for room */
	struct prompt_count *count;	/* in body_mem; NULL: nobody is asked */
	struct slice limit_lines;	/* header lines of the answer: limits, clamping */

	/* The attempt; anew for each: attempt_begin(). */
	struct exchange *exchange;
	struct attempt {
		struct usage_tap *tap;
		uint64_t tap_seen, estimate_seen;
		uint64_t begin_ms;	/* worker_now_ms(); 0: none is under way */
		int64_t sent_mono_ns, first_byte_mono_ns, end_mono_ns;
		int status;
		bool waited_out;	/* we left the provider, not the provider us */
		bool accounted, reported;	/* once each */
		bool late;		/* the answer came after committed_early and is an error */
		bool accepted;		/* its answer is the client's: nothing else is tried */
		uint8_t holding;	/* enum hold: why its bytes wait in `held` */
		struct slice error;	/* what went wrong with it */
	} attempt;
	struct cache_part cache;

	/* What the client gets. */
	bool response_head_sent;
	bool committed_early;		/* 200 was sent before a provider answered */
	bool chunked_out, sse;
	bool length_known;		/* content-length was announced: nothing can be put in */
	bool unrecorded;		/* over, but no page was free for its record */
	bool no_record;			/* refused because records cannot be kept */
	bool finished, settled, is_parked;
	bool is_explained;		/* nobody sent it, nobody gets an answer: a refusal is noted in `rec`, and that is all */
	enum timer_of { TIMER_NONE, TIMER_PAUSE, TIMER_ANSWER, TIMER_HOLD } timer_of;
	struct deadline timer;
	struct slice out_head;		/* built, not written yet */
	struct slice *spans;		/* body bytes of this read, not written yet */
	uint32_t spans_count;
	struct buf held;
	struct buf tail;		/* an event that has not come whole */
	bool tail_passing;		/* ... that was too long to wait for */
	struct buf late_error;		/* an error body that must become an event */
	int64_t response_bytes;

	struct record rec;
	struct settled settled_at;
	bool settle_cancel;

	/* Last: written before they are read, so a new request has them uncleared. */
	struct known_headers known;	/* with the head */
	struct refusal_words deferred;	/* with is_deferred */
	struct slice deferred_message;
	struct conversation conversation;	/* if the config has a choice; known if it has several targets */
	struct health_watch health;	/* with at.watched */
	struct http1_head answer_head;	/* the provider's, with attempt.status */
	struct route_walk walk;		/* with target */
	struct condition_facts conditions;	/* with config */
};

struct request *request_new(struct client *c);
void request_free(struct request *r);

/* ---- client.c calls ---- */
void request_head(struct request *r);
	/* The head is in r->head: route, key, size. May refuse at once. */
bool request_body(struct request *r, const char *p, size_t n);
	/* false: refused (too large); the rest of the body is not wanted. */
void request_run(struct request *r);
	/* Complete: on to the answer. */
void request_client_gone(struct request *r);
	/* Cancels, settles at what was used, frees. */
void request_client_drained(struct request *r);
	/* The client took what was queued: the provider may go on. */
void request_quiet(struct request *r);
	/* Nothing was sent for ping_ms: keep the stream alive. */

/* ---- between the steps ---- */
enum step step_authenticate(struct request *r);
enum step step_resolve(struct request *r);
void route_start(struct request *r);
	/* To the first target of its config, and so on. */
void route_resume(struct request *r, enum step entered);
	/* A target was being entered, and waited. */
void route_on(struct request *r, int status);
	/* The target's outcome was `status`: to the next one. Where there is none
	 * (route_has_more() has said that there is) it is refused. */
bool route_has_more(struct request *r, int status);
	/* Would there be another target for that outcome? */
bool route_may_have_more(struct request *r, int status);
	/* The same without a look at what binds the conversation to its account:
	 * true where the other says false. */
enum route_step route_first(struct request *r);
	/* The walk's beginning: the target that the config chooses, unless the
	 * conversation has to go on elsewhere. Asks nobody. */
struct route_facts route_facts_of(struct request *r);
	/* For steps of r->walk. */
void route_refuse(struct request *r, enum route_step step);
	/* The walk has no target: why, in words. */
enum step target_choose(struct request *r, const struct config_target *t);
	/* At that target: which model, who is asked for it and where. Asks nobody, and
	 * takes nothing. PASS: it is not offered there. */
enum step target_make(struct request *r);
	/* What it is asked, at the target that was chosen: body, time. OUT: the
	 * conversation cannot go on there. */
const struct setting_provider *route_provider_asked(const struct request *r, struct slice from_model, struct slice *name);
	/* The provider that the request itself names, by a header or ahead of its
	 * model; *name none: it names none. NULL, too, if there is none of that name. */
enum step step_admit(struct request *r);
	/* STOP may be a wait: then route_resume() follows. */
void attempt_start(struct request *r);
	/* Admitted: builds the provider's request, and sends it. */
struct text;
bool serve_head(struct request *r, enum route route, size_t body_bytes, struct text *t) MUST_CHECK;
	/* The head of a request to the provider, in body_mem. false: no memory. */
bool serve_forwards(const struct request *r, struct slice name);
	/* Does a header of that name go on to the provider at hand because the config
	 * or the request lists it? */
bool serve_build(struct request *r) MUST_CHECK;
	/* Head and body of the provider's request, into at.pieces. false: no memory. */
void step_settle(struct request *r, enum record_outcome outcome);
	/* Money, record and metrics; the first call counts. Before the last byte
	 * of the answer is written. */
bool settle_retry(struct request *r);
	/* After a full ring: true when it is done. */
void account_attempt(struct request *r, enum record_outcome outcome, bool last);
	/* The attempt is over: what it used joins what the request has used, and if
	 * it is not the only one, it joins the record's tries. Once. */
int64_t account_price(struct request *r, const struct usage *u, bool *estimated);
	/* What that usage costs at the target at hand, nano-dollars. estimated is
	 * set if that is not sure, and never cleared. */
int32_t account_retries(const struct request *r);
	/* At the target at hand; -1: it fails all the same. */
void account_progress(struct request *r);
	/* Usage so far into the request's page: what a crash would settle. */
void account_draft(struct request *r);
	/* The record as it stands, into the page. */

void request_refuse(struct request *r, const struct refusal_words *w, const char *fmt, ...) PRINTF_LIKE(3, 4);
	/* Answers in the Anthropic envelope, or, in a stream that has begun, by
	 * an error event; settles, records. The request is freed, unless
	 * is_explained. */
void request_refuse_now(struct request *r, const struct refusal_words *w, struct slice message);
	/* The same with a ready text, whatever has come of the body. */
void request_reply(struct request *r, int status, const char *content_type, const char *headers, struct slice body);
	/* A whole answer of weir's own; then request_finish(). */
void request_finish(struct request *r, enum record_outcome outcome, bool complete);
	/* The one way out: settle, tell the client, free. `complete` false: the
	 * answer broke off and the connection must not look whole. */

void models_list(struct request *r);
void models_one(struct request *r);

void client_family(struct slice user_agent, struct slice *family, struct slice *version);

#endif
