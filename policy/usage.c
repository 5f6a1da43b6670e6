/*
 * policy/usage.c -- see usage.h.
 *
 * Bytes go to one of two readers, the event stream's (sse.h) or the plain
 * answer's (members.h), and what these hold up is read with json.h. Counts
 * are kept as they were reported, with "not reported" apart from zero, and
 * the token classes are derived from them anew after each change: the split
 * of cache writes comes with message_start, their final sum with a
 * message_delta.
 *
 * A text is read in one pass (json_step()), and what it says is taken only if
 * all of it could be read. A plain answer that comes in one piece is such a
 * text; its members are held up only if it does not.
 */
#include "policy/usage.h"

#include <stdlib.h>
#include <string.h>

#include "policy/json_lex.h"
#include "policy/members.h"
#include "policy/sse.h"
#include "shm/limits.h"

#define POOLED_MAX 256		/* taps kept for the next requests */
#define POOLED_BYTES_MAX 4096	/* of a pooled tap's buffer; larger ones are given back */
#define ERROR_TYPE_BYTES 64	/* "overloaded_error" and its like */

/* What stands around the text of a content_block_delta. */
#define DELTA_ENVELOPE_BYTES (sizeof("{\"type\":\"content_block_delta\",\"index\":0," \
    "\"delta\":{\"type\":\"text_delta\",\"text\":\"\"}}") - 1)

#define UNREPORTED (-1)

/* With a literal, this is a few instructions and no call. */
#define IS(text, literal) \
	((text).n == sizeof(literal) - 1 && memcmp((text).p, literal, sizeof(literal) - 1) == 0)

/* The members of a usage object that are counted. */
struct counts {
	int64_t input, output, cache_read, searches;
	int64_t cache_write;		/* all of them */
	int64_t cache_write_5m, cache_write_1h;	/* their split */
};

static const struct counts no_counts = {
	UNREPORTED, UNREPORTED, UNREPORTED, UNREPORTED, UNREPORTED, UNREPORTED, UNREPORTED,
};

/* What a usage object says, until its text has been read to the end. */
struct reading {
	bool known;			/* there was one */
	bool fast, batch, geo_us, unlisted;
	bool changed;
	struct counts counts;
	struct slice iterations;	/* raw: read last, into the usage itself */
};

struct usage_tap {
	struct usage_tap *next;		/* in the pool */
	enum usage_tap_kind kind;
	union {
		struct sse sse;
		struct members members;
	};
	struct counts counts;
	uint64_t changes, events, content_bytes;
	bool started, begun, finished, ended;
	bool stop_reason;		/* a message_delta had one that is not null */
	bool type_is_error, has_error;
	char error_type[ERROR_TYPE_BYTES];
	struct usage usage;		/* last: its tail is not cleared */
};

static struct {
	struct usage_tap *free;
	unsigned count;
} pool;

static const struct slice answer_members[] = {
	{ "type", 4 }, { "model", 5 }, { "usage", 5 }, { "error", 5 }, { NULL, 0 },
};

static struct buf *
tap_buf(struct usage_tap *t)
{
	return t->kind == USAGE_SSE ? &t->sse.data : &t->members.value;
}

struct usage_tap *
usage_tap_new(enum usage_tap_kind kind)
{
	struct usage_tap *t = pool.free;
	struct buf kept = { .p = NULL };

	if (t) {
		pool.free = t->next;
		pool.count--;
		kept = *tap_buf(t);
	} else {
		t = malloc(sizeof(*t));
		if (!t)
			return NULL;
	}
	/* Readers clear themselves; the iterations are written before they are counted. */
	const size_t from = offsetof(struct usage_tap, changes);
	const size_t to = offsetof(struct usage_tap, usage) + offsetof(struct usage, iterations);
	memset((char *)t + from, 0, to - from);
	t->kind = kind;
	t->counts = no_counts;
	if (kind == USAGE_SSE)
		sse_init(&t->sse);
	else
		members_init(&t->members, answer_members);
	if (kept.p) {
		*tap_buf(t) = kept;
		buf_clear(tap_buf(t));
	}
	return t;
}

void
usage_tap_free(struct usage_tap *t)
{
	struct buf *b;

	if (!t)
		return;
	b = tap_buf(t);
	if (pool.count == POOLED_MAX) {
		buf_free(b);
		free(t);
		return;
	}
	if (b->cap > POOLED_BYTES_MAX)
		buf_free(b);
	t->next = pool.free;
	pool.free = t;
	pool.count++;
}

/* Reading usage objects. Each reader says whether something changed. */

/* Negative: the value is no count. */
static inline int64_t
count_of(struct slice value)
{
	int64_t n = 0, large;

	if (value.n > 15)
		return json_to_i64(value, &large) ? large : -1;
	for (const char *p = value.p, *end = p + value.n; p < end; p++) {
		unsigned digit = (unsigned char)*p - (unsigned)'0';

		if (digit > 9)
			return -1;
		n = n * 10 + digit;
	}
	return n;
}

static inline bool
read_count(int64_t *to, struct slice value)
{
	int64_t n = count_of(value);

	if (n > USAGE_TOKENS_MAX)
		n = USAGE_TOKENS_MAX;
	if (n < 0 || *to == n)
		return false;	/* null, and what is no count, changes nothing */
	*to = n;
	return true;
}

static bool
read_flag(bool *to, struct slice value, const char *text)
{
	bool was = *to;

	if (json_is_null(value))
		return false;
	*to = json_string_eq(value, text);
	return *to != was;
}

/* Of the member that the last step of `outer` has found. */
static bool
read_cache_split(struct counts *c, struct json_iter *outer)
{
	struct json_iter it;
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];
	bool changed = false;

	if (!json_enter_object(outer, &it))
		return false;	/* null */
	while (json_step(&it, &raw, &value)) {
		struct slice name = json_name(&it, raw, tmp);

		if (IS(name, "ephemeral_5m_input_tokens"))
			changed |= read_count(&c->cache_write_5m, value);
		else if (IS(name, "ephemeral_1h_input_tokens"))
			changed |= read_count(&c->cache_write_1h, value);
	}
	json_leave(outer, &it);
	return changed;
}

/* What an iteration has as well as the whole; NULL: no such count. */
static inline int64_t *
count_named(struct counts *c, struct slice name)
{
	if (IS(name, "input_tokens"))
		return &c->input;
	if (IS(name, "output_tokens"))
		return &c->output;
	if (IS(name, "cache_creation_input_tokens"))
		return &c->cache_write;
	if (IS(name, "cache_read_input_tokens"))
		return &c->cache_read;
	return NULL;
}

static int64_t
or_zero(int64_t n)
{
	return n == UNREPORTED ? 0 : n;
}

/* Cache writes are split by lifetime where the split is known. A sum that
 * differs from it is newer: what the split lacks counts as 5 minutes. */
static void
classes_of(const struct counts *c, int64_t tokens[TOKENS_CLASSES])
{
	int64_t long_lived = or_zero(c->cache_write_1h);
	int64_t all = c->cache_write;

	if (all == UNREPORTED)
		all = or_zero(c->cache_write_5m) + long_lived;
	if (long_lived > all)
		long_lived = all;
	tokens[TOKENS_INPUT] = or_zero(c->input);
	tokens[TOKENS_OUTPUT] = or_zero(c->output);
	tokens[TOKENS_CACHE_WRITE_1H] = long_lived;
	tokens[TOKENS_CACHE_WRITE_5M] = all - long_lived;
	tokens[TOKENS_CACHE_READ] = or_zero(c->cache_read);
	tokens[TOKENS_WEB_SEARCHES] = or_zero(c->searches);
}

/* An entry of the array that is walked. */
static void
read_iteration(struct usage_part *part, struct json_iter *array)
{
	struct counts c = no_counts;
	struct json_iter it;
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];

	part->model[0] = '\0';
	if (json_enter_object(array, &it)) {
		while (json_step(&it, &raw, &value)) {
			struct slice name = json_name(&it, raw, tmp);
			int64_t *count = count_named(&c, name);

			if (count)
				read_count(count, value);
			else if (IS(name, "cache_creation"))
				read_cache_split(&c, &it);
			else if (IS(name, "model") && !json_is_null(value))
				json_unescape(value, part->model, sizeof(part->model));
		}
		json_leave(array, &it);
	}
	classes_of(&c, part->tokens);
}

/* A later array replaces an earlier one. */
static bool
read_iterations(struct usage *u, struct slice array)
{
	struct json_iter it;
	struct slice name, entry;
	uint32_t n = 0;

	if (!json_iter_array(&it, array))
		return false;
	u->iterations_overflow = false;
	while (json_step(&it, &name, &entry)) {
		if (n == USAGE_ITERATIONS_MAX) {
			u->iterations_overflow = true;
			break;
		}
		read_iteration(&u->iterations[n++], &it);
	}
	bool changed = n > 0 || u->iterations_count > 0;
	u->iterations_count = n;
	return changed;
}

/* The container that the last step has found. */
static struct slice
span_of(struct json_iter *it)
{
	struct slice value;

	return it->unread && json_span(it, &value) ? value : SLICE_NONE;
}

static bool
read_searches(struct counts *c, struct slice server_tool_use)
{
	struct slice n;

	return json_get(server_tool_use, "web_search_requests", &n) && read_count(&c->searches, n);
}

static bool
credit_redeemed(struct slice credit)
{
	struct slice status, type;

	return json_get(credit, "status", &status) && json_get(status, "type", &type) &&
	    json_string_eq(type, "redeemed");
}

static inline bool
read_usage_member(struct reading *r, struct slice name, struct slice value, struct json_iter *it)
{
	int64_t *count = count_named(&r->counts, name);

	if (count)
		return read_count(count, value);
	if (IS(name, "cache_creation"))
		return read_cache_split(&r->counts, it);
	if (IS(name, "service_tier")) {
		r->unlisted |= json_string_eq(value, "priority");
		return read_flag(&r->batch, value, "batch");
	}
	if (IS(name, "inference_geo"))
		return read_flag(&r->geo_us, value, "us");
	if (IS(name, "speed"))
		return read_flag(&r->fast, value, "fast");
	if (IS(name, "server_tool_use"))
		return read_searches(&r->counts, span_of(it));
	if (IS(name, "iterations"))
		r->iterations = span_of(it);
	else if (IS(name, "fallback_credit"))
		r->unlisted |= credit_redeemed(span_of(it));
	return false;
}

/* Inside of a usage object. */
static void
read_usage(struct reading *r, struct json_iter *it)
{
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];

	while (json_step(it, &raw, &value))
		r->changed |= read_usage_member(r, json_name(it, raw, tmp), value, it);
	r->known = true;
}

/* The member that the last step has found; null is none. */
static void
read_usage_in(struct reading *r, struct json_iter *outer)
{
	struct json_iter it;

	if (json_enter_object(outer, &it)) {
		read_usage(r, &it);
		json_leave(outer, &it);
	}
}

static struct reading
reading_begin(const struct usage_tap *t)
{
	const struct usage *u = &t->usage;

	return (struct reading){ .fast = u->fast, .batch = u->batch, .geo_us = u->geo_us,
		.unlisted = u->unlisted, .counts = t->counts };
}

/* All of its text could be read. */
static void
reading_take(struct usage_tap *t, const struct reading *r)
{
	struct usage *u = &t->usage;
	bool changed = r->changed || !u->known;

	if (!r->known)
		return;
	u->known = true;
	u->fast = r->fast;
	u->batch = r->batch;
	u->geo_us = r->geo_us;
	u->unlisted = r->unlisted;
	t->counts = r->counts;
	classes_of(&t->counts, u->tokens);
	if (r->iterations.p)
		changed |= read_iterations(u, r->iterations);
	t->changes += changed;
}

static void
read_model(struct usage_tap *t, struct slice value)
{
	if (!json_is_null(value))
		json_unescape(value, t->usage.model, sizeof(t->usage.model));
}

static void
read_error(struct usage_tap *t, struct slice error)
{
	struct slice type;

	t->has_error = true;
	if (json_get(error, "type", &type))
		json_unescape(type, t->error_type, sizeof(t->error_type));
}

/* A message, or the error that came in its place. */
struct answer {
	struct reading usage;
	struct slice type, model, error;
	bool twice;		/* a member is there again: only the long way knows what counts */
};

static void
read_answer(struct answer *a, struct json_iter *it)
{
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];

	while (json_step(it, &raw, &value)) {
		struct slice name = json_name(it, raw, tmp);

		if (IS(name, "type")) {
			a->type = value;
		} else if (IS(name, "model")) {
			a->twice |= a->model.p != NULL;
			a->model = value;
		} else if (IS(name, "usage")) {
			a->twice |= a->usage.known;
			read_usage_in(&a->usage, it);
		} else if (IS(name, "error")) {
			a->twice |= a->error.p != NULL;
			a->error = it->unread ? span_of(it) : value;
		}
	}
}

/* Event streams */

static void
on_message_start(struct usage_tap *t, struct slice data)
{
	struct answer a = { .usage = reading_begin(t) };
	struct json_iter it, message;
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];

	t->started = true;
	if (!json_iter_object(&it, data))
		return;
	while (json_step(&it, &raw, &value))
		if (IS(json_name(&it, raw, tmp), "message") && json_enter_object(&it, &message)) {
			read_answer(&a, &message);
			json_leave(&it, &message);
		}
	if (it.error.what)
		return;
	read_model(t, a.model);
	reading_take(t, &a.usage);
}

/* The member that the last step has found: has it a stop_reason? */
static bool
read_stop_reason(struct json_iter *outer)
{
	struct json_iter it;
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];
	bool stops = false;

	if (!json_enter_object(outer, &it))
		return false;
	while (json_step(&it, &raw, &value))
		stops |= IS(json_name(&it, raw, tmp), "stop_reason") && !json_is_null(value);
	json_leave(outer, &it);
	return stops;
}

static void
on_message_delta(struct usage_tap *t, struct slice data)
{
	struct reading usage = reading_begin(t);
	struct json_iter it;
	struct slice raw, value;
	char tmp[JSON_NAME_BYTES];
	bool stops = false;

	if (!json_iter_object(&it, data))
		return;
	while (json_step(&it, &raw, &value)) {
		struct slice name = json_name(&it, raw, tmp);

		if (IS(name, "usage"))
			read_usage_in(&usage, &it);
		else if (IS(name, "delta"))
			stops |= read_stop_reason(&it);
	}
	if (it.error.what)
		return;
	t->stop_reason |= stops;
	reading_take(t, &usage);
}

static void
on_error_event(struct usage_tap *t, struct slice data)
{
	struct slice error;

	t->finished = t->type_is_error = t->has_error = true;
	if (json_get(data, "error", &error))
		read_error(t, error);
}

static enum sse_kind
kind_in_data(struct slice data)
{
	struct slice type;
	char name[SSE_NAME_BYTES];
	size_t n;

	if (!json_get(data, "type", &type))
		return SSE_OTHER;
	n = json_unescape(type, name, sizeof(name));
	return n < sizeof(name) ? sse_kind_of((struct slice){ name, n }) : SSE_OTHER;
}

static void
on_event(struct usage_tap *t)
{
	enum sse_kind kind = t->sse.kind;
	struct slice data;
	bool whole = sse_data(&t->sse, &data);

	t->events++;
	if (kind == SSE_UNNAMED)
		kind = whole ? kind_in_data(data) : SSE_OTHER;
	switch (kind) {
	case SSE_CONTENT_BLOCK_START:
		t->begun = true;
		break;
	case SSE_CONTENT_BLOCK_DELTA:
		t->begun = true;
		if (t->sse.data_bytes > DELTA_ENVELOPE_BYTES)
			t->content_bytes += t->sse.data_bytes - DELTA_ENVELOPE_BYTES;
		break;
	case SSE_MESSAGE_START:
		if (whole)
			on_message_start(t, data);
		break;
	case SSE_MESSAGE_DELTA:
		t->begun = true;
		if (whole)
			on_message_delta(t, data);
		break;
	case SSE_MESSAGE_STOP:
		t->begun = t->finished = t->usage.complete = true;
		break;
	case SSE_ERROR:
		if (whole)
			on_error_event(t, data);
		break;
	case SSE_CONTENT_BLOCK_STOP: case SSE_PING:
	case SSE_UNNAMED: case SSE_OTHER:
		break;
	}
}

/* Plain answers */

/* The whole answer in the first piece, as nearly always. false: it is not,
 * or not one object; nothing has been noted then. */
static bool
answer_at_once(struct usage_tap *t, struct slice text)
{
	struct answer a = { .usage = reading_begin(t) };
	struct json_iter it;
	const char *end = text.p + text.n;

	if ((end[-1] != '}' && end[-1] != '\n') || text.n > SSE_EVENT_BYTES_MAX || !json_iter_object(&it, text))
		return false;
	read_answer(&a, &it);
	if (it.error.what || a.twice || lex_space(it.p + 1, end) < end)
		return false;
	t->type_is_error = json_string_eq(a.type, "error");
	read_model(t, a.model);
	reading_take(t, &a.usage);
	if (a.error.p)
		read_error(t, a.error);
	members_close(&t->members);
	return true;
}

static void
on_member(struct usage_tap *t)
{
	struct slice name = *t->members.name, value = buf_slice(&t->members.value);
	struct json_iter it;

	if (IS(name, "type")) {
		t->type_is_error = json_string_eq(value, "error");
	} else if (IS(name, "model")) {
		read_model(t, value);
	} else if (IS(name, "error")) {
		read_error(t, value);
	} else if (json_iter_object(&it, value)) {
		struct reading usage = reading_begin(t);

		read_usage(&usage, &it);
		if (!it.error.what)
			reading_take(t, &usage);
	}
}

static void
feed_stream(struct usage_tap *t, const char *p, const char *end)
{
	while (p < end) {
		p = sse_next(&t->sse, p, end);
		if (t->sse.ended)
			on_event(t);
	}
}

static void
feed_answer(struct usage_tap *t, const char *p, const char *end)
{
	if (members_untouched(&t->members) && answer_at_once(t, (struct slice){ p, (size_t)(end - p) }))
		p = end;
	while (p < end) {
		p = members_next(&t->members, p, end);
		if (t->members.ready)
			on_member(t);
	}
	t->finished = t->usage.complete = t->members.complete && !t->members.broken;
}

void
usage_tap_feed(struct usage_tap *t, const char *p, size_t n)
{
	if (t->ended || n == 0)
		return;
	if (t->kind == USAGE_SSE)
		feed_stream(t, p, p + n);
	else
		feed_answer(t, p, p + n);
}

void
usage_tap_end(struct usage_tap *t)
{
	if (t->ended)
		return;
	t->ended = true;
	if (t->kind == USAGE_SSE) {
		if (sse_end(&t->sse))
			on_event(t);
		t->usage.complete |= t->stop_reason;
	}
}

const struct usage *
usage_tap_usage(const struct usage_tap *t)
{
	return &t->usage;
}

uint64_t
usage_tap_changes(const struct usage_tap *t)
{
	return t->changes;
}

bool
usage_tap_at_boundary(const struct usage_tap *t)
{
	return t->kind == USAGE_SSE && sse_at_boundary(&t->sse);
}

uint64_t
usage_tap_events(const struct usage_tap *t)
{
	return t->events;
}

bool
usage_tap_message_started(const struct usage_tap *t)
{
	return t->started;
}

bool
usage_tap_content_begun(const struct usage_tap *t)
{
	return t->begun;
}

bool
usage_tap_finished(const struct usage_tap *t)
{
	return t->finished;
}

bool
usage_tap_error(const struct usage_tap *t, struct slice *type)
{
	bool error = t->type_is_error && t->has_error;

	*type = error ? slice_of(t->error_type) : SLICE_NONE;
	return error;
}

uint64_t
usage_tap_content_bytes(const struct usage_tap *t)
{
	return t->content_bytes;
}
