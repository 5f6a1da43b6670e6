/*
 * gateway/client.c -- see client.h.
 *
 * Bytes arrive in on_data and go through client_feed(), a loop that takes
 * messages off the front. A request may be answered inside that loop (a probe,
 * a refusal) or long after it (a provider's answer); in the second case what
 * the client has sent ahead is kept in `ahead` and fed when the answer is out.
 */
#include "gateway/client.h"

#include <stdlib.h>

#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define LINGER_BYTES_MAX (64u << 20)	/* an upload that nobody wants any more */
#define BODY_PROGRESS_BYTES 1024	/* in body_ms: a client that trickles single bytes is cut */

static void client_feed(struct client *c, struct slice in);

static void
client_close(struct client *c)
{
	if (c->state == CLIENT_CLOSED)
		return;
	c->state = CLIENT_CLOSED;
	timepoint_remove(&c->deadline);
	stream_close(&c->stream);
}

/* Our part is done: send what is queued and FIN, then wait for the peer's. */
static void
client_linger(struct client *c)
{
	c->state = CLIENT_LINGER;
	c->linger_bytes = 0;
	stream_shutdown(&c->stream);
	if (c->gone) {
		client_close(c);
		return;
	}
	if (c->paused) {
		c->paused = false;
		stream_resume(&c->stream);
	}
	timepoint_touch(&c->worker->linger, &c->deadline, worker_now_ms(c->worker));
}

void
client_abort(struct client *c)
{
	c->request = NULL;
	if (c->state == CLIENT_CLOSED)
		return;
	c->state = CLIENT_CLOSED;
	timepoint_remove(&c->deadline);
	stream_reset(&c->stream);
}

void
client_refuse_early(struct client *c)
{
	c->request = NULL;
	client_linger(c);
}

void
client_answered(struct client *c, bool keep_alive)
{
	c->request = NULL;
	if (c->state == CLIENT_CLOSED)
		return;
	if (!keep_alive || c->gone || c->worker->draining) {
		client_linger(c);
		return;
	}
	c->state = CLIENT_IDLE;
	timepoint_touch(&c->worker->idle, &c->deadline, worker_now_ms(c->worker));
	if (c->feeding)
		return;		/* the loop below us goes on by itself */

	if (c->ahead.n > 0) {
		struct buf ahead = c->ahead;

		buf_init(&c->ahead, ahead.max);
		client_feed(c, buf_slice(&ahead));
		buf_free(&ahead);
	}
	if (c->paused && c->state != CLIENT_CLOSED && c->ahead.n == 0) {
		c->paused = false;
		stream_resume(&c->stream);
	}
}

static void
client_bad_message(struct client *c)
{
	struct request *r = c->request;
	const struct refusal_words words = {
		.status = c->http.error_status, .type = c->http.error_status == 501 ? "not_supported"
		    : "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};

	metrics_add(c->worker->arena, c->worker->index, COUNTER_BAD_REQUESTS, 1);
	r->keep_alive = false;
	request_refuse(r, &words, "%s", c->http.error);
}

/* One event of the parser. false: nothing more can be fed now. */
static bool
client_step(struct client *c, struct slice *in)
{
	struct worker *w = c->worker;

	if (c->state == CLIENT_IDLE) {
		c->request = request_new(c);
		if (!c->request) {
			client_close(c);
			return false;
		}
		http1_begin(&c->http, &c->request->mem, false);
		c->state = CLIENT_HEAD;
		timepoint_touch(&w->head, &c->deadline, worker_now_ms(w));
	}

	switch (http1_feed(&c->http, in)) {
	case HTTP1_MORE:
		return false;
	case HTTP1_HEAD:
		c->state = CLIENT_BODY;
		c->unrewarded = 0;
		timepoint_touch(&w->body, &c->deadline, worker_now_ms(w));
		c->request->head = c->http.head;
		request_head(c->request);
		break;
	case HTTP1_BODY:
		request_body(c->request, c->http.span.p, c->http.span.n);
		break;
	case HTTP1_DONE:
		c->state = CLIENT_SERVING;
		timepoint_remove(&c->deadline);
		request_run(c->request);
		break;
	case HTTP1_ERROR:
		client_bad_message(c);
		return false;
	}
	return c->state == CLIENT_IDLE || c->state == CLIENT_BODY;
}

static void
client_feed(struct client *c, struct slice in)
{
	c->feeding = true;
	do {
		if (!client_step(c, &in))
			break;
	} while (in.n > 0 || c->state == CLIENT_BODY);
	c->feeding = false;

	if (c->state == CLIENT_SERVING && in.n > 0) {
		buf_add(&c->ahead, in.p, in.n);
		if (c->ahead.overflow)
			client_abort(c);
	}
}

static void
on_data(struct stream *s, const char *p, size_t n)
{
	struct client *c = s->owner;

	switch (c->state) {
	case CLIENT_BODY:
		c->unrewarded += n;
		if (c->unrewarded >= BODY_PROGRESS_BYTES) {
			c->unrewarded = 0;
			timepoint_touch(&c->worker->body, &c->deadline, worker_now_ms(c->worker));
		}
		client_feed(c, (struct slice){ p, n });
		break;
	case CLIENT_IDLE:
	case CLIENT_HEAD:
		client_feed(c, (struct slice){ p, n });
		break;
	case CLIENT_SERVING:
		buf_add(&c->ahead, p, n);
		if (c->ahead.n >= HTTP_PIPELINE_BYTES_MAX && !c->paused) {
			c->paused = true;
			stream_pause(&c->stream);
		}
		break;
	case CLIENT_LINGER:
		c->linger_bytes += (uint32_t)n;
		if (c->linger_bytes > LINGER_BYTES_MAX)
			client_close(c);
		break;
	case CLIENT_CLOSED:
		break;
	}
}

/* The client is gone, or said that it will send nothing more; a client that
 * shuts its sending side down while it waits for an answer counts as gone. */
static void
on_end(struct stream *s, int error, const char *text)
{
	struct client *c = s->owner;

	c->gone = true;
	if (error == STREAM_E_TLS)
		log_debug("%s: %s", c->address, text);
	if (c->request && c->state == CLIENT_SERVING)
		request_client_gone(c->request);
	else if (c->request)
		request_free(c->request);
	c->request = NULL;
	client_close(c);
}

static void
on_drain(struct stream *s)
{
	struct client *c = s->owner;

	if (c->request && c->state == CLIENT_SERVING)
		request_client_drained(c->request);
}

static void
on_open(struct stream *s)
{
	struct client *c = s->owner;

	timepoint_touch(&c->worker->idle, &c->deadline, worker_now_ms(c->worker));
}

static void
on_closed(struct stream *s)
{
	struct client *c = s->owner;
	struct worker *w = c->worker;

	CHECK(c->request == NULL);
	http1_free(&c->http);
	buf_free(&c->ahead);
	plane_put(c->plane);
	free(c);
	worker_client_closed(w);
}

static const struct stream_callbacks client_callbacks = {
	.on_open = on_open, .on_data = on_data, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed,
};

void
client_accept(struct listener *l)
{
	struct worker *w = l->worker;
	struct client *c = calloc(1, sizeof(*c));

	if (!c) {
		log_error("out of memory: a connection was not accepted");
		return;
	}
	c->worker = w;
	c->plane = plane_get(w->plane);
	c->tls = l->tls;
	http1_init(&c->http, false, HTTP_HEAD_BYTES_MAX);
	buf_init(&c->ahead, HTTP_PIPELINE_BYTES_MAX + HTTP_READ_BYTES);
	c->state = CLIENT_IDLE;
	w->clients++;
	metrics_add(w->arena, w->index, COUNTER_CONNECTIONS, 1);
	/* Until it is open (a handshake may never end) the head's deadline holds. */
	timepoint_touch(&w->head, &c->deadline, worker_now_ms(w));

	int e = stream_accept(&c->stream, (uv_stream_t *)&l->tcp, l->tls ? w->plane->tls : NULL,
	    &client_callbacks, c);
	if (e != 0) {
		log_debug("accept: %s", uv_strerror(e));
		client_close(c);
		return;
	}
	if (!stream_peer_name(&c->stream, c->address, sizeof(c->address)))
		c->address[0] = '\0';
	c->address_bytes = (uint8_t)strlen(c->address);
	metrics_connections(w->arena, w->index, w->clients);
}

void
client_drain(struct client *c)
{
	if (c->state == CLIENT_IDLE)
		client_linger(c);
}

void
client_expired(struct client *c)
{
	static const struct refusal_words too_slow = {
		.status = 408, .type = "timeout_error", .headers = "", .outcome = OUTCOME_INVALID,
	};

	switch (c->state) {
	case CLIENT_HEAD:
	case CLIENT_BODY:
		c->request->keep_alive = false;
		request_refuse(c->request, &too_slow, "the request did not arrive in time (its %s)",
		    c->state == CLIENT_HEAD ? "head" : "body");
		break;
	case CLIENT_SERVING:	/* it takes nothing of its answer */
		c->gone = true;
		request_client_gone(c->request);
		c->request = NULL;
		client_abort(c);
		break;
	case CLIENT_IDLE:
		if (c->stream.write_busy && c->stream.bytes_written != c->written_seen) {
			/* Still taking its last answer: give it another turn. */
			c->written_seen = c->stream.bytes_written;
			timepoint_touch(&c->worker->idle, &c->deadline, worker_now_ms(c->worker));
			break;
		}
		client_close(c);
		break;
	case CLIENT_LINGER:
		if (c->stream.write_busy && c->stream.bytes_written != c->written_seen) {
			c->written_seen = c->stream.bytes_written;
			timepoint_touch(&c->worker->linger, &c->deadline, worker_now_ms(c->worker));
			break;
		}
		client_close(c);
		break;
	case CLIENT_CLOSED:
		break;
	}
}
