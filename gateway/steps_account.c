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

_Static_assert(TOKENS_WEB_SEARCHES == TOKENS_CLASSES - 1, "total_of() sums what comes before it");

/* A stream that broke off before its message_delta reported no output tokens
 * but those of message_start. A token has about four bytes of text in English
 * and fewer elsewhere: three err on the side of too many. */
#define CONTENT_BYTES_A_TOKEN 3

/* The usage so far: as reported, or, of an answer that was cut off, with an
 * estimate in `cut`, which must live as long as the result. */
static const struct usage *
usage_so_far(const struct request *r, struct usage *cut, bool *estimated)
{
	const struct usage *reported = usage_tap_usage(r->tap);

	if (reported->complete)
		return reported;
	int64_t content = (int64_t)(usage_tap_content_bytes(r->tap) / CONTENT_BYTES_A_TOKEN);
	if (content > r->bound.output_tokens && r->bound.output_tokens > 0)
		content = r->bound.output_tokens;
	if (content <= reported->tokens[TOKENS_OUTPUT])
		return reported;
	*cut = *reported;
	cut->tokens[TOKENS_OUTPUT] = content;
	*estimated = true;
	return cut;
}

static int64_t
priced(struct request *r, const struct usage *u, bool *estimated)
{
	if (!r->price || r->route != ROUTE_MESSAGES)
		return 0;
	return price_cost_nusd(r->plane->settings->prices, r->price, slice_of(r->provider->type), u,
	    r->start_wall_ns, estimated);
}

/* What meters of tokens are charged: all but the searches. */
static int64_t
total_of(const int64_t tokens[TOKENS_CLASSES])
{
	int64_t total = 0;

	for (int c = 0; c < TOKENS_WEB_SEARCHES; c++)	/* the last class; each is at most USAGE_TOKENS_MAX */
		total += tokens[c];
	return total;
}

/* Of a request that a provider may have read and that reported nothing. */
static struct metered
least(const struct request *r)
{
	struct metered m = { .cost_nusd = r->floor_nusd, .total_tokens = r->floor_tokens };

	m.tokens[TOKENS_INPUT] = r->floor_tokens;
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
	const struct usage *u = usage_so_far(r, &cut, &estimated);
	if (u->known) {
		m.cost_nusd = priced(r, u, &estimated);
		m.total_tokens = total_of(u->tokens);
		memcpy(m.tokens, u->tokens, sizeof(u->tokens));
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

static struct settled
settle_at_least(struct request *r)
{
	struct record_fixed *f = &r->rec.fixed;

	f->flags |= RECORD_FLAG(ESTIMATED);
	f->tokens[TOKENS_INPUT] = r->floor_tokens;
	return (struct settled){ .cost_nusd = r->floor_nusd, .tokens = r->floor_tokens };
}

/* What the request used; its tokens and flags go into the record. */
static struct settled
used_by(struct request *r, enum record_outcome outcome)
{
	static const struct settled nothing;
	struct record_fixed *f = &r->rec.fixed;
	const struct usage *u = NULL;
	bool estimated = false;
	struct usage cut;

	if (r->route != ROUTE_MESSAGES || !r->sent_mono_ns || r->upstream_status >= 400)
		return nothing;		/* never billed */
	if (!r->upstream_status) {
		/* No answer. A provider that dropped the connection reported
		 * nothing; one that we left may have read the prompt. */
		f->flags |= RECORD_FLAG(PARTIAL);
		if (outcome == OUTCOME_UPSTREAM_FAILED && !r->waited_out)
			return nothing;
		return settle_at_least(r);
	}
	if (r->tap)
		u = usage_so_far(r, &cut, &estimated);
	if (!u || !u->known)
		return settle_at_least(r);	/* 2xx without usage that we can read: never free */
	if (!u->complete)
		f->flags |= RECORD_FLAG(PARTIAL);
	memcpy(f->tokens, u->tokens, sizeof(u->tokens));
	struct settled used = { .cost_nusd = priced(r, u, &estimated), .tokens = total_of(u->tokens) };
	if (estimated)
		f->flags |= RECORD_FLAG(ESTIMATED);
	return used;
}

static void
time_it(struct request *r)
{
	struct record_fixed *f = &r->rec.fixed;
	int64_t now = clock_mono_ns();

	f->total_ns = now - r->start_mono_ns;
	f->overhead_ns = f->total_ns;
	if (!r->sent_mono_ns)
		return;
	f->upstream_ns = (r->upstream_end_mono_ns ? r->upstream_end_mono_ns : now) - r->sent_mono_ns;
	f->overhead_ns = f->total_ns - f->upstream_ns;
	if (r->first_byte_mono_ns)
		f->first_byte_ns = r->first_byte_mono_ns - r->sent_mono_ns;
}

static void
count_it(const struct request *r)
{
	const struct record_fixed *f = &r->rec.fixed;
	struct arena *a = r->worker->arena;
	uint32_t w = r->worker->index, provider = r->provider ? r->provider->index : 0;

	metrics_request(a, w, r->route, provider, f->status);
	metrics_observe(a, w, HISTOGRAM_TOTAL, f->total_ns);
	metrics_add(a, w, COUNTER_BYTES_IN, (uint64_t)f->request_bytes);
	metrics_add(a, w, COUNTER_BYTES_OUT, (uint64_t)r->response_bytes);
	if (!r->sent_mono_ns)
		return;
	metrics_observe(a, w, HISTOGRAM_UPSTREAM, f->upstream_ns);
	metrics_observe(a, w, HISTOGRAM_OVERHEAD, f->overhead_ns);
	if (r->first_byte_mono_ns)
		metrics_observe(a, w, HISTOGRAM_FIRST_BYTE, f->first_byte_ns);
	metrics_tokens(a, w, provider, f->tokens, f->cost_nusd);
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

void
step_settle(struct request *r, enum record_outcome outcome)
{
	struct record_fixed *f = &r->rec.fixed;

	if (r->settled)
		return;
	r->settled = true;
	time_it(r);
	f->outcome = (uint8_t)outcome;
	f->response_bytes = r->response_bytes;
	r->settled_at = used_by(r, outcome);
	f->cost_nusd = r->settled_at.cost_nusd;
	count_it(r);
	if (!r->key || !route_rows[r->route].governed || r->no_record)
		return;
	r->settle_cancel = !r->sent_mono_ns;
	if (record_page(r))
		settle(r);
}
