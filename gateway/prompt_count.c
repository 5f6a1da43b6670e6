/*
 * gateway/prompt_count.c -- see prompt_count.h.
 */
#include "gateway/prompt_count.h"

#include <stdlib.h>
#include <sys/random.h>

#include "gateway/admission.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/log.h"
#include "shm/base/siphash.h"
#include "shm/metrics.h"

#define REMEMBERED 4096		/* prompts; a power of two. A newer one takes the place of an older */
#define ANSWER_BYTES_MAX 4096	/* {"input_tokens":N}, and what betas add to it */
#define PAUSE_MS 10000		/* a provider that could not count is not asked again at once */

struct remembered {
	struct siphash tag;
	int64_t tokens;		/* -1: free */
};

struct prompt_counts {
	uint64_t secret[2];	/* of the SipHash */
	struct remembered at[REMEMBERED];
};

struct prompt_count {
	struct siphash tag;
	struct slice pieces[2];	/* head and body */
	int status;
	size_t answer_n;
	char answer[ANSWER_BYTES_MAX];
};

struct prompt_counts *
prompt_counts_new(void)
{
	struct prompt_counts *c = malloc(sizeof(*c));

	if (!c || getrandom(c->secret, sizeof(c->secret), 0) != (ssize_t)sizeof(c->secret)) {
		free(c);
		return NULL;
	}
	for (size_t i = 0; i < REMEMBERED; i++)
		c->at[i].tokens = -1;
	return c;
}

void
prompt_counts_free(struct prompt_counts *c)
{
	free(c);
}

static struct remembered *
place(struct prompt_counts *c, struct siphash tag)
{
	return &c->at[tag.lo & (REMEMBERED - 1)];
}

/* ---- what is asked ---- */

/* Members that make the prompt, in quotes as they stand in the body. */
static const char *const counted_members[] = {
	"\"messages\"", "\"output_config\"", "\"output_format\"", "\"system\"", "\"thinking\"", "\"tool_choice\"", "\"tools\"",
};
/* Members that add nothing to it. What edits a context only takes away from it. */
static const char *const other_members[] = {
	"\"cache_control\"", "\"context_management\"", "\"diagnostics\"", "\"inference_geo\"", "\"max_tokens\"", "\"metadata\"",
	"\"model\"", "\"service_tier\"", "\"speed\"", "\"stop_sequences\"", "\"stream\"", "\"temperature\"", "\"top_k\"", "\"top_p\"",
};

static bool
is_among(struct slice name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (slice_eq(name, slice_of(names[i])))
			return true;
	return false;
}

static bool
is_counted(struct slice name)
{
	return is_among(name, counted_members, sizeof(counted_members) / sizeof(counted_members[0]));
}

static bool
countable(const struct request *r)
{
	const struct body_scan *s = r->at.scan;

	if (r->route != ROUTE_MESSAGES || !r->at.price || r->plane->settings->count_ms == 0 || !price_prompt_countable(s))
		return false;
	if (r->at.endpoint == &r->own_endpoint)
		return false;	/* a host that the request brought could say any number, and holds would be as small */
	for (uint32_t i = 0; i < s->members_count; i++)
		if (!is_counted(s->members[i].name) && !is_among(s->members[i].name, other_members,
		    sizeof(other_members) / sizeof(other_members[0])))
			return false;
	return true;
}

/* {"model":"...","messages":[...],...}; false without memory. */
static bool
build_body(struct request *r, struct slice *out)
{
	const struct body_scan *s = r->at.scan;
	size_t room = sizeof("{\"model\":}") + 2 + 6 * r->at.model.n;
	struct buf model;
	struct text t;

	for (uint32_t i = 0; i < s->members_count; i++)
		room += s->members[i].name.n + s->members[i].value.n + 2;
	buf_init(&model, 4096);
	buf_add_json(&model, r->at.model);
	if (!text_begin(&t, &r->body_mem, room + model.n)) {
		buf_free(&model);
		return false;
	}
	text_add(&t, SLICE("{\"model\":"));
	text_add(&t, buf_slice(&model));
	buf_free(&model);
	for (uint32_t i = 0; i < s->members_count; i++) {
		if (!is_counted(s->members[i].name))
			continue;
		text_add(&t, SLICE(","));
		text_add(&t, s->members[i].name);
		text_add(&t, SLICE(":"));
		text_add(&t, s->members[i].value);
	}
	text_add(&t, SLICE("}"));
	CHECK(!t.overflow);
	*out = text_slice(&t);
	return true;
}

/* ---- the exchange ---- */

/* What the provider said; -1: not what was asked. */
static int64_t
tokens_of(const struct prompt_count *c)
{
	struct slice body = { c->answer, c->answer_n }, value;
	struct json_error why;
	int64_t tokens;

	if (c->status != 200 || !json_check(body, &why) || !json_get(body, "input_tokens", &value) ||
	    !slice_to_i64(value, &tokens) || tokens < 0)
		return -1;
	return tokens;
}

static void
counted(struct request *r, int64_t tokens)
{
	struct prompt_count *c = r->count;

	r->count = NULL;
	if (tokens >= 0)
		*place(r->worker->prompt_counts, c->tag) = (struct remembered){ .tag = c->tag, .tokens = tokens };
	admission_counted(r, tokens);
}

/* It cannot count at all, or not now. */
static void
stop_asking(struct request *r, const char *why)
{
	plane_provider(r->plane, r->at.provider)->count_again_ms = worker_now_ms(r->worker) + PAUSE_MS;
	log_warn("provider %s: prompts are not counted for %d s: %s", r->at.provider->slug, PAUSE_MS / 1000, why);
}

static void
on_sent(void *arg)
{
	(void)arg;
}

static void
on_head(void *arg, const struct http1_head *head)
{
	struct request *r = arg;

	r->count->status = head->status;
}

static void
on_body(void *arg, const char *p, size_t n)
{
	struct prompt_count *c = ((struct request *)arg)->count;

	if (n > sizeof(c->answer) - c->answer_n) {
		c->status = 0;		/* no count is that long */
		return;
	}
	memcpy(c->answer + c->answer_n, p, n);
	c->answer_n += n;
}

static void
on_read_end(void *arg)
{
	(void)arg;
}

static void
on_done(void *arg)
{
	struct request *r = arg;
	int64_t tokens = tokens_of(r->count);

	r->exchange = NULL;
	/* 400 and 413 are about this prompt; the request itself will tell. */
	if (tokens < 0 && r->count->status != 400 && r->count->status != 413)
		stop_asking(r, "count_tokens does not answer with a count");
	counted(r, tokens);
}

static void
on_error(void *arg, enum exchange_error e, const char *text)
{
	struct request *r = arg;

	(void)e;
	r->exchange = NULL;
	stop_asking(r, text);
	counted(r, -1);
}

static const struct exchange_callbacks callbacks = {
	.on_sent = on_sent, .on_head = on_head, .on_body = on_body, .on_read_end = on_read_end, .on_done = on_done,
	.on_error = on_error,
};

void
prompt_count_expired(struct request *r)
{
	exchange_cancel(r->exchange);
	r->exchange = NULL;
	stop_asking(r, "no answer in time");
	counted(r, -1);
}

static bool
ask(struct request *r, struct slice body)
{
	const struct settings *s = r->plane->settings;
	struct prompt_count *c = r->count;
	struct text head;

	if (!serve_head(r, ROUTE_COUNT_TOKENS, body.n, &head))
		return false;
	c->pieces[0] = text_slice(&head);
	c->pieces[1] = body;
	struct exchange_request request = {
		.pieces = c->pieces, .pieces_count = 2, .first_byte_ms = s->count_ms, .idle_ms = s->count_ms,
		.connect_ms = s->limit.connect_ms < s->count_ms ? s->limit.connect_ms : s->count_ms,
	};
	r->exchange = exchange_start(r->at.endpoint->target, &request, &callbacks, r);
	return r->exchange != NULL;
}

enum prompt_counting
prompt_count(struct request *r, int64_t *tokens)
{
	struct prompt_counts *known = r->worker->prompt_counts;
	struct slice body;

	if (!countable(r) || !build_body(r, &body))
		return PROMPT_UNCOUNTED;
	/* Each host counts for itself. */
	const uint64_t secret[2] = { known->secret[0] ^ (uint64_t)(uintptr_t)r->at.endpoint->target, known->secret[1] };
	struct siphash tag = siphash128(secret, body);
	const struct remembered *found = place(known, tag);
	if (found->tokens >= 0 && found->tag.lo == tag.lo && found->tag.hi == tag.hi) {
		*tokens = found->tokens;
		return PROMPT_KNOWN;
	}
	if (plane_provider(r->plane, r->at.provider)->count_again_ms > worker_now_ms(r->worker))
		return PROMPT_UNCOUNTED;
	r->count = scratch_alloc(&r->body_mem, sizeof(*r->count));
	if (!r->count)
		return PROMPT_UNCOUNTED;
	r->count->tag = tag;
	r->count->status = 0;
	r->count->answer_n = 0;
	if (!ask(r, body)) {
		r->count = NULL;
		return PROMPT_UNCOUNTED;
	}
	metrics_add(r->worker->arena, r->worker->index, COUNTER_COUNTED, 1);
	return PROMPT_ASKED;
}
