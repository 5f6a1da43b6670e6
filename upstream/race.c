/*
 * upstream/race.c -- a new connection to a target, by whichever address
 * answers first (RFC 8305).
 *
 *	look-up -> attempts, each 250 ms after the last or as soon as one fails
 *	        -> the first that connects wins, the others are closed
 *	        -> TLS handshake, on the winner only -> done
 *
 * One deadline covers all of it; between attempts it is also the stagger.
 * What fails inside race_start() is told by the next tick, so that the caller
 * never hears of an exchange that it does not know yet.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "upstream/private.h"

struct race {
	struct target *target;
	race_done_fn *done;
	void *arg;
	struct deadline deadline;
	struct resolve_query query;
	struct conn *attempts[RACE_PARALLEL_MAX];
	uint32_t attempts_count;
	uint32_t next_address;
	uint64_t started_ms;
	uint32_t connect_ms;		/* 0: no limit */
	bool starting, resolving, secured;	/* secured: TLS handshake of attempts[0] */
	enum exchange_error error;	/* what `text` is about */
	char text[ERROR_TEXT_BYTES];
};

static void next_attempt(struct race *r);

static void
close_attempts(struct race *r, const struct conn *keep)
{
	for (uint32_t i = 0; i < r->attempts_count; i++)
		if (r->attempts[i] != keep)
			conn_reset(r->attempts[i]);
	r->attempts_count = 0;
}

static void
finish(struct race *r, struct conn *c)
{
	deadline_clear(&r->deadline);
	resolve_cancel(&r->query);
	close_attempts(r, c);
	r->done(r->arg, c, r->error, r->text);
	free(r);
}

static uint64_t
give_up_ms(const struct race *r)
{
	return r->connect_ms ? r->started_ms + r->connect_ms : UINT64_MAX;
}

static void
set_deadline(struct race *r, uint64_t at_ms)
{
	struct upstream *u = r->target->upstream;

	if (at_ms > give_up_ms(r))
		at_ms = give_up_ms(r);
	if (at_ms == UINT64_MAX)
		deadline_clear(&r->deadline);
	else
		deadline_set(&u->deadlines, &r->deadline, at_ms);
}

/* The race is lost, for the reason in r->text. */
static void
lose(struct race *r)
{
	if (r->starting)
		deadline_set(&r->target->upstream->deadlines, &r->deadline, 0);
	else
		finish(r, NULL);
}

static void
address_text(const union address *a, char *out, size_t size)
{
	out[0] = '\0';
	if (a->any.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->v4.sin_addr, out, (socklen_t)size);
	else
		inet_ntop(AF_INET6, &a->v6.sin6_addr, out, (socklen_t)size);
}

static void
note_failure(struct race *r, const char *words)
{
	char address[INET6_ADDRSTRLEN];
	uint32_t tried = r->next_address;

	address_text(&r->query.found.list[tried - 1], address, sizeof(address));
	r->error = EXCHANGE_CONNECT;
	if (tried == 1)
		snprintf(r->text, sizeof(r->text), "%s:%u: %s (%s)", r->target->host, r->target->port, words, address);
	else
		snprintf(r->text, sizeof(r->text), "%s:%u: %s (%u addresses tried, the last was %s)",
		    r->target->host, r->target->port, words, tried, address);
}

static void
on_attempt_open(struct stream *s)
{
	struct conn *c = s->owner;
	struct race *r = c->owner;
	struct target *t = r->target;

	if (!r->secured && t->trust) {
		close_attempts(r, c);
		r->attempts[0] = c;
		r->attempts_count = 1;
		r->secured = true;
		set_deadline(r, UINT64_MAX);
		if (stream_secure(s, t->trust->context, t->host) != 0) {
			r->error = EXCHANGE_TLS;
			snprintf(r->text, sizeof(r->text), "%s:%u: out of memory", t->host, t->port);
			finish(r, NULL);
		}
		return;
	}
	t->upstream->stats.connects++;
	r->error = EXCHANGE_OK;
	r->text[0] = '\0';
	finish(r, c);
}

static void
on_attempt_end(struct stream *s, int error, const char *text)
{
	struct conn *c = s->owner;
	struct race *r = c->owner;

	if (r->secured) {
		r->error = EXCHANGE_TLS;
		snprintf(r->text, sizeof(r->text), "%s:%u: %s%s", r->target->host, r->target->port,
		    error == STREAM_E_TLS ? "" : "the TLS handshake failed: ", text);
		finish(r, NULL);
		return;
	}
	for (uint32_t i = 0; i < r->attempts_count; i++)
		if (r->attempts[i] == c)
			r->attempts[i] = r->attempts[--r->attempts_count];
	conn_close(c);
	note_failure(r, text);
	next_attempt(r);
}

static void
on_attempt_data(struct stream *s, const char *p, size_t n)
{
	(void)s, (void)p, (void)n;	/* an attempt becomes an exchange's before it is read */
}

static void
on_attempt_drain(struct stream *s)
{
	(void)s;
}

static const struct stream_callbacks attempt_callbacks = {
	.on_open = on_attempt_open, .on_data = on_attempt_data, .on_end = on_attempt_end,
	.on_drain = on_attempt_drain, .on_closed = conn_closed,
};

/* false: this address cannot even be tried; r->text says why. */
static bool
start_attempt(struct race *r)
{
	const union address *to = &r->query.found.list[r->next_address++];

	if (r->target->allows && !r->target->allows(&to->any)) {
		note_failure(r, "this address may not be asked");
		r->error = EXCHANGE_FORBIDDEN;
		return false;
	}
	struct conn *c = conn_new(r->target);
	if (!c) {
		note_failure(r, "out of memory");
		return false;
	}
	int e = stream_connect(&c->stream, r->target->upstream->loop, &to->any, NULL, NULL, &attempt_callbacks, c);
	if (e != 0) {
		conn_close(c);
		note_failure(r, uv_strerror(e));
		return false;
	}
	c->owner = r;
	r->attempts[r->attempts_count++] = c;
	return true;
}

static void
next_attempt(struct race *r)
{
	uint64_t now_ms = uv_now(r->target->upstream->loop);
	bool more = true;

	while (r->attempts_count < RACE_PARALLEL_MAX && (more = r->next_address < r->query.found.count) &&
	    !start_attempt(r))
		;
	if (r->attempts_count == 0) {
		lose(r);
		return;
	}
	more = r->next_address < r->query.found.count && r->attempts_count < RACE_PARALLEL_MAX;
	set_deadline(r, more ? now_ms + RACE_STAGGER_MS : UINT64_MAX);
}

static void
on_resolved(struct resolve_query *q, int error)
{
	struct race *r = CONTAINER_OF(q, struct race, query);

	r->resolving = false;
	if (error != 0) {
		r->error = EXCHANGE_RESOLVE;
		snprintf(r->text, sizeof(r->text), "%s:%u: the name could not be resolved: %s", r->target->host,
		    r->target->port, uv_strerror(error));
		lose(r);
		return;
	}
	next_attempt(r);
}

static void
on_deadline(struct deadline *d, uint64_t now_ms)
{
	struct race *r = CONTAINER_OF(d, struct race, deadline);

	if (d->at_ms == 0) {	/* lost before race_start() had returned */
		finish(r, NULL);
		return;
	}
	if (now_ms < give_up_ms(r)) {
		next_attempt(r);
		return;
	}
	r->error = r->resolving ? EXCHANGE_RESOLVE : EXCHANGE_CONNECT;
	snprintf(r->text, sizeof(r->text), "%s:%u: %s within %u ms", r->target->host, r->target->port,
	    r->resolving ? "the name was not resolved" : r->secured ? "the TLS handshake did not finish"
	    : "no connection", r->connect_ms);
	finish(r, NULL);
}

struct race *
race_start(struct target *t, uint32_t connect_ms, race_done_fn *done, void *arg)
{
	struct race *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->target = t;
	r->done = done;
	r->arg = arg;
	r->connect_ms = connect_ms;
	r->started_ms = uv_now(t->upstream->loop);
	r->query.done = on_resolved;
	deadline_init(&r->deadline, on_deadline);

	r->starting = true;
	switch (resolve_start(t->upstream->resolver, &r->query, t->host, t->port)) {
	case RESOLVE_FOUND:
		next_attempt(r);
		break;
	case RESOLVE_LATER:
		r->resolving = true;
		set_deadline(r, UINT64_MAX);
		break;
	case RESOLVE_NO_MEMORY:
		on_resolved(&r->query, UV_ENOMEM);
		break;
	}
	r->starting = false;
	return r;
}

void
race_cancel(struct race *r)
{
	if (!r)
		return;
	deadline_clear(&r->deadline);
	resolve_cancel(&r->query);
	close_attempts(r, NULL);
	free(r);
}
