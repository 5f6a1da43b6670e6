/*
 * gateway/request.h -- one request, from its head to its record.
 *
 * The hot path, in the order of the files:
 *
 *	client.c	bytes in; head and body complete
 *	steps_admit.c	authenticate, resolve, scan, metadata
 *	admission.c	price, all limits in one decision; waits for room
 *	steps_serve.c	build the provider's request, send it
 *	relay.c		the provider's answer to the client, past the usage tap
 *	steps_account.c	settle, record, metrics
 *	reply.c		answers of weir's own
 *
 * A step that cannot go on calls request_refuse(); there is one way out,
 * request_finish(), which settles whatever was admitted. Memory of a request
 * is its scratch; the page in the arena is its reservation.
 */
#ifndef WEIR_GATEWAY_REQUEST_H
#define WEIR_GATEWAY_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "gateway/client.h"
#include "gateway/headers.h"
#include "gateway/routes.h"
#include "gateway/settings.h"
#include "gateway/worker.h"
#include "policy/body.h"
#include "policy/key.h"
#include "policy/metadata.h"
#include "policy/usage.h"
#include "shm/base/scratch.h"
#include "shm/queue.h"
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
	struct scratch body_mem;	/* body, scan, what is sent: until the provider answers */
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

	/* What was decided. */
	struct key *key;
	bool portkey_auth;		/* the key came in x-portkey-api-key */
	const struct config *config;	/* config_none() where none applies */
	struct config *config_inline;	/* owned: x-portkey-config held JSON */
	const struct config_target *target;	/* of the config: where the request goes */
	const struct setting_provider *provider;
	struct body_scan *scan;
	struct body_edits *edits;
	struct slice model_requested, model;	/* bare text */
	bool stream, model_remapped, beta_1m;
	const struct price_row *price;
	struct price_bound bound;	/* output_tokens: as granted */
	int64_t floor_nusd, floor_tokens;	/* likely ones of the input, if nothing is ever reported */
	struct demand demand;		/* output tokens: asked for, granted */
	struct inflight *page;
	uint32_t first_byte_ms;

	/* Admission that is not decided at once. */
	struct timepoint pending;	/* on the worker's `waiting` or `counting` */
	enum admission_state { ADMISSION_OPEN, ADMISSION_WAITING, ADMISSION_COUNTING } admission;
	struct waiting wait;		/* for what; since_mono_ns 0: it never waited for room */
	struct prompt_count *count;	/* in body_mem; NULL: nobody is asked */
	bool count_tried;
	struct slice limit_lines;	/* header lines of the answer: limits, clamping */

	/* What happens. */
	struct exchange *exchange;
	struct usage_tap *tap;
	uint64_t tap_seen, estimate_seen;
	int64_t sent_mono_ns, first_byte_mono_ns, upstream_end_mono_ns;
	int upstream_status;
	bool response_head_sent;	/* to the client */
	bool committed_early;		/* 200 was sent before the provider answered */
	bool chunked_out, sse;
	bool length_known;		/* content-length was announced: nothing can be put in */
	bool waited_out;		/* we left the provider, not the provider us */
	bool unrecorded;		/* over, but no page was free for its record */
	bool no_record;			/* refused because records cannot be kept */
	bool late;			/* the answer came after committed_early and is an error */
	bool holding;			/* a remapped model's answer waits in `held` ... */
	bool plain_held;		/* ... whole, with its head: plain_head */
	bool finished, settled, is_parked;
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
	struct http1_head plain_head;	/* with plain_held */
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
enum step { STEP_NEXT, STEP_STOP };	/* STOP: refused, finished or waiting */
enum step step_authenticate(struct request *r);
enum step step_resolve(struct request *r);
enum step step_admit(struct request *r);
	/* STOP may be a wait: then the request is sent, or refused, later. */
void step_send(struct request *r);
struct text;
void serve_head_lines(const struct setting_provider *p, struct buf *out);
	/* What all heads to a provider have in common: once, for the plane. */
bool serve_head(struct request *r, enum route route, size_t body_bytes, struct text *t) MUST_CHECK;
	/* The head of a request to the provider, in body_mem. false: no memory. */
void step_settle(struct request *r, enum record_outcome outcome);
	/* Money, record and metrics; the first call counts. Before the last byte
	 * of the answer is written. */
bool settle_retry(struct request *r);
	/* After a full ring: true when it is done. */
void account_progress(struct request *r);
	/* Usage so far into the request's page: what a crash would settle. */
void account_draft(struct request *r);
	/* The record as it stands, into the page. */

void request_refuse(struct request *r, const struct refusal_words *w, const char *fmt, ...) PRINTF_LIKE(3, 4);
	/* Answers in the Anthropic envelope, or, in a stream that has begun, by
	 * an error event; settles, records. The request is freed. */
void request_refuse_now(struct request *r, const struct refusal_words *w, struct slice message);
	/* The same with a ready text, whatever has come of the body. */
void request_reply(struct request *r, int status, const char *content_type, const char *headers, struct slice body);
	/* A whole answer of weir's own; then request_finish(). */
void request_finish(struct request *r, enum record_outcome outcome, bool complete);
	/* The one way out: settle, tell the client, free. `complete` false: the
	 * answer broke off and the connection must not look whole. */

/* ---- relay.c, shared with reply.c ---- */
void relay_start(struct request *r, struct target *t, const struct exchange_request *request);
void relay_error_event(struct request *r, const char *type, struct slice message);
	/* One `event: error` in the envelope's form, after all that was sent. */

void models_list(struct request *r);
void models_one(struct request *r);

void client_family(struct slice user_agent, struct slice *family, struct slice *version);

#endif
