/*
 * gateway/steps_account.c -- what it cost, who pays, what is remembered.
 *
 * Every governed request with a known key leaves exactly one record. The money
 * is settled in the same step of the ledger that hands the record to the
 * keeper (shm/ledger.h).
 */
#include "gateway/admission.h"
#include "gateway/request.h"
#include "shm/base/clock.h"
#include "shm/metrics.h"

/* A stream that broke off before its message_delta reported no output tokens
 * but those of message_start. A token has about four bytes of text in English
 * and fewer elsewhere: three err on the side of too many. */
#define CONTENT_BYTES_A_TOKEN 3

/* The usage so far: as reported, or, of an answer that was cut off, with an
 * estimate in `cut`, which must live as long as the result. */
static const struct usage *
usage_so_far(const struct request *r, struct usage *cut, bool *estimated)
{
	const struct usage *reported = usage_tap_usage(r->attempt.tap);

	if (reported->complete)
		return reported;
	int64_t content = (int64_t)(usage_tap_content_bytes(r->attempt.tap) / CONTENT_BYTES_A_TOKEN);
	if (content > r->at.bound.output_tokens && r->at.bound.output_tokens > 0)
		content = r->at.bound.output_tokens;
	if (content <= reported->tokens[TOKENS_OUTPUT])
		return reported;
	*cut = *reported;
	cut->tokens[TOKENS_OUTPUT] = content;
	*estimated = true;
	return cut;
}

int64_t
account_price(struct request *r, const struct usage *u, bool *estimated)
{
	bool unsure;
	int64_t cost_nusd;

	if (!r->at.price || r->route != ROUTE_MESSAGES)
		return 0;
	cost_nusd = price_cost_nusd(r->plane->settings->prices, r->at.price, slice_of(r->at.provider->type), u, r->start_wall_ns, &unsure);
	*estimated |= unsure;
	return cost_nusd;
}

static void
add_used(struct metered *to, int64_t cost_nusd, const int64_t tokens[TOKENS_CLASSES])
{
	to->cost_nusd += cost_nusd;
	for (int c = 0; c < TOKENS_CLASSES; c++) {
		to->tokens[c] += tokens[c];
		to->total_tokens += c == TOKENS_WEB_SEARCHES ? 0 : tokens[c];	/* what meters of tokens are charged */
	}
}

/* Of an attempt that a provider may have read and that reported nothing, on top of
 * what the attempts before it used. */
static struct metered
least(const struct request *r)
{
	struct metered m = r->used.all;

	m.cost_nusd += r->at.floor_nusd;
	m.total_tokens += r->at.floor_tokens;
	m.tokens[TOKENS_INPUT] += r->at.floor_tokens;
	return m;
}

void
account_progress(struct request *r)
{
	struct metered m = least(r);
	struct usage cut;
	bool estimated = false;

	if (!r->page || r->route != ROUTE_MESSAGES)
		return;
	const struct usage *u = r->attempt.tap ? usage_so_far(r, &cut, &estimated) : NULL;
	if (u && u->known) {
		m = r->used.all;
		add_used(&m, account_price(r, u, &estimated), u->tokens);
	}
	inflight_metered(r->page, &m);
}

void
account_draft(struct request *r)
{
	struct metered m = least(r);

	inflight_record_set(r->page, record_encode(&r->rec, inflight_record(r->page), RECORD_BYTES_MAX));
	inflight_metered(r->page, &m);
}

/* ---- an attempt ---- */

static int64_t
at_least(struct request *r, int64_t tokens[TOKENS_CLASSES])
{
	r->rec.fixed.flags |= RECORD_FLAG(ESTIMATED);
	tokens[TOKENS_INPUT] = r->at.floor_tokens;
	return r->at.floor_nusd;
}

/* What it cost, nano-dollars; its tokens are added to `tokens`, flags go into the record. */
static int64_t
cost_of(struct request *r, enum record_outcome outcome, bool last, int64_t tokens[TOKENS_CLASSES])
{
	const struct attempt *a = &r->attempt;
	const uint32_t partial = last ? RECORD_FLAG(PARTIAL) : 0;	/* says something of the answer that the client got */
	const struct usage *u = NULL;
	bool estimated = false;
	struct usage cut;
	int64_t cost_nusd;

	if (r->route != ROUTE_MESSAGES || !a->sent_mono_ns || a->status >= 400)
		return 0;		/* never billed */
	if (!a->status) {
		/* No answer. A provider that dropped the connection reported
		 * nothing; one that we left may have read the prompt. */
		r->rec.fixed.flags |= partial;
		return outcome == OUTCOME_UPSTREAM_FAILED && !a->waited_out ? 0 : at_least(r, tokens);
	}
	if (a->tap)
		u = usage_so_far(r, &cut, &estimated);
	if (!u || !u->known)
		return at_least(r, tokens);	/* 2xx without usage that we can read: never free */
	if (!u->complete)
		r->rec.fixed.flags |= partial;
	memcpy(tokens, u->tokens, sizeof(u->tokens));
	cost_nusd = account_price(r, u, &estimated);
	if (estimated)
		r->rec.fixed.flags |= RECORD_FLAG(ESTIMATED);
	return cost_nusd;
}

/* The first failure begins the list; a request that was answered at once has none. */
static void
note_try(struct request *r, int64_t cost_nusd)
{
	const struct attempt *a = &r->attempt;
	char *p = (char *)(uintptr_t)r->rec.tries.p;

	if (!p && !a->error.n && a->status < 400)
		return;
	const struct record_try one = {
		.status = (uint16_t)a->status, .ms = (uint32_t)(worker_now_ms(r->worker) - a->begin_ms), .cost_nusd = cost_nusd,
		.target = r->rec.target, .provider = r->rec.provider, .model = r->at.model, .error = a->error,
	};
	if (!p) {
		p = scratch_alloc(&r->mem, RECORD_TRIES_BYTES);
		if (!p)
			return;
		r->rec.tries = (struct slice){ p, 0 };
	}
	r->rec.tries.n += record_try_add(p + r->rec.tries.n, (uint32_t)(RECORD_TRIES_BYTES - r->rec.tries.n), &one);
}

void
account_attempt(struct request *r, enum record_outcome outcome, bool last)
{
	struct attempt *a = &r->attempt;
	int64_t tokens[METRICS_TOKEN_CLASSES] = { 0 }, cost_nusd;
	uint32_t provider = r->at.provider ? r->at.provider->index : 0;

	if (a->accounted || !a->begin_ms)
		return;
	a->accounted = true;
	cost_nusd = cost_of(r, outcome, last, tokens);
	note_try(r, cost_nusd);
	if (!a->sent_mono_ns)
		return;
	add_used(&r->used.all, cost_nusd, tokens);
	r->used.upstream_ns += (a->end_mono_ns ? a->end_mono_ns : clock_mono_ns()) - a->sent_mono_ns;
	if (a->first_byte_mono_ns)
		r->rec.fixed.first_byte_ns = a->first_byte_mono_ns - a->sent_mono_ns;
	metrics_tokens(r->worker->arena, r->worker->index, provider, tokens, cost_nusd);
}

/* ---- the request ---- */

static void
time_it(struct request *r)
{
	struct record_fixed *f = &r->rec.fixed;

	f->total_ns = clock_mono_ns() - r->start_mono_ns;
	f->upstream_ns = r->used.upstream_ns;
	f->overhead_ns = f->total_ns - r->used.upstream_ns - r->used.pause_ns;
}

static void
count_it(const struct request *r)
{
	const struct record_fixed *f = &r->rec.fixed;
	struct arena *a = r->worker->arena;
	uint32_t w = r->worker->index, provider = r->at.provider ? r->at.provider->index : 0;

	metrics_request(a, w, r->route, provider, f->status);
	metrics_observe(a, w, HISTOGRAM_TOTAL, f->total_ns);
	metrics_add(a, w, COUNTER_BYTES_IN, (uint64_t)f->request_bytes);
	metrics_add(a, w, COUNTER_BYTES_OUT, (uint64_t)r->response_bytes);
	if (!r->sent)
		return;
	metrics_observe(a, w, HISTOGRAM_UPSTREAM, f->upstream_ns);
	metrics_observe(a, w, HISTOGRAM_OVERHEAD, f->overhead_ns);
	if (f->first_byte_ns)
		metrics_observe(a, w, HISTOGRAM_FIRST_BYTE, f->first_byte_ns);
}

static bool
settle(struct request *r)
{
	struct worker *w = r->worker;
	enum settle_verdict v = r->settle_cancel
	    ? ledger_cancel(w->arena, w->index, r->page, true, worker_clock())
	    : ledger_settle(w->arena, w->index, r->page, &r->settled_at, worker_clock());

	if (v == SETTLE_RING_FULL)
		return false;
	r->page = NULL;
	if (w->waiting_count > 0)
		admission_room(w);
	return true;
}

/* A refusal has no page yet; its record takes one for a moment. */
static bool
record_page(struct request *r)
{
	struct refusal why;

	r->unrecorded = !r->page && ledger_admit(r->worker->arena, r->worker->index, NULL, 0, NULL, worker_clock(),
	    &r->page, &why) != LEDGER_ADMITTED;
	if (r->unrecorded) {
		r->page = NULL;
		return false;
	}
	inflight_record_set(r->page, record_encode(&r->rec, inflight_record(r->page), RECORD_BYTES_MAX));
	return true;
}

bool
settle_retry(struct request *r)
{
	return (!r->unrecorded || record_page(r)) && settle(r);
}

/* How it went at the last target: Portkey's count, -1 if it failed all the same. */
int32_t
account_retries(const struct request *r)
{
	const struct config_retry *retry = r->at.target ? &r->at.target->retry : NULL;

	if (!retry || !retry->attempts)
		return 0;
	/* An answer that would be tried again, or an attempt that ended without one; not
	 * where none was made (a hit, a refusal of weir's), or none has ended yet. */
	bool failed = r->attempt.status ? status_set_has(&retry->on_status_codes, r->attempt.status) : r->attempt.reported;
	return failed ? -1 : (int32_t)r->at.retries;
}

void
step_settle(struct request *r, enum record_outcome outcome)
{
	struct record_fixed *f = &r->rec.fixed;

	if (r->settled)
		return;
	r->settled = true;
	f->retries = account_retries(r);
	account_attempt(r, outcome, true);
	time_it(r);
	f->outcome = (uint8_t)outcome;
	f->response_bytes = r->response_bytes;
	memcpy(f->tokens, r->used.all.tokens, sizeof(f->tokens));
	r->settled_at = (struct settled){ .cost_nusd = r->used.all.cost_nusd, .tokens = r->used.all.total_tokens };
	f->cost_nusd = r->settled_at.cost_nusd;
	count_it(r);
	if (!r->key || !route_rows[r->route].governed || r->no_record)
		return;
	/* A hit from the cache uses its key's rates. */
	r->settle_cancel = !r->sent && !(r->cache.from_cache && outcome == OUTCOME_OK);
	if (record_page(r))
		settle(r);
}
