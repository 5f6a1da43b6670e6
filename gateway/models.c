/*
 * gateway/models.c -- GET /v1/models and /v1/models/{id}: what this key can use.
 *
 * Built from the price book: every model in force of a provider's type that
 * the provider offers and the key allows. One body serves Anthropic's and
 * OpenAI's clients, because each ignores the other's fields; the extra fields
 * are those that Claude Desktop's model picker reads.
 */
#include <stdlib.h>

#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"

#define MODELS_MAX 256
#define LONG_CONTEXT_TOKENS 1000000

struct page {
	int64_t limit;
	struct slice after, before;
};

static bool
offered(const struct request *r, const struct setting_provider *p, struct slice id)
{
	bool served = p->models_count == 0;

	for (uint32_t i = 0; i < p->models_count && !served; i++)
		served = slice_glob(slice_of(p->models[i]), id);
	return served && key_model_allowed(r->key, id);
}

/* All models that this key can reach, each once. */
static size_t
collect(const struct request *r, struct model_info *out)
{
	const struct settings *s = r->plane->settings;
	struct model_info *found = calloc(MODELS_MAX, sizeof(*found));
	size_t n = 0;

	for (uint32_t i = 0; found && i < s->providers_count; i++) {
		const struct setting_provider *p = &s->providers[i];
		size_t count = price_book_models(s->prices, slice_of(p->type), r->start_wall_ns, found, MODELS_MAX);

		for (size_t k = 0; k < count && n < MODELS_MAX; k++) {
			bool known = !offered(r, p, found[k].id);
			for (size_t j = 0; j < n && !known; j++)
				known = slice_eq(out[j].id, found[k].id);
			if (!known)
				out[n++] = found[k];
		}
	}
	free(found);
	return n;
}

static void
write_model(struct buf *b, const struct model_info *m, const struct model_info *all, size_t n)
{
	char created[32];
	bool default_of_family = true;

	for (const struct model_info *o = all; o < all + n && default_of_family; o++)
		if (slice_eq(o->family, m->family) && o->created_wall_ns > m->created_wall_ns)
			default_of_family = false;
	clock_format_utc(m->created_wall_ns, created, sizeof(created));
	buf_add_str(b, "{\"type\":\"model\",\"object\":\"model\",\"id\":");
	buf_add_json(b, m->id);
	buf_add_str(b, ",\"display_name\":");
	buf_add_json(b, m->display_name);
	buf_printf(b, ",\"created_at\":\"%.19sZ\",\"created\":%lld,\"owned_by\":\"anthropic\"", created,
	    (long long)(m->created_wall_ns / NS_PER_S));
	buf_printf(b, ",\"lifecycle\":\"%s\",\"line\":", m->deprecated ? "deprecated" : "active");
	buf_add_json(b, m->family);
	buf_add_str(b, ",\"anthropic_family_tier\":");
	buf_add_json(b, m->family);
	buf_printf(b, ",\"is_family_default\":%s,\"max_input_tokens\":%lld,\"max_tokens\":%lld,\"supports_1m\":%s}",
	    default_of_family ? "true" : "false", (long long)m->max_input_tokens, (long long)m->max_tokens,
	    m->max_input_tokens >= LONG_CONTEXT_TOKENS ? "true" : "false");
}

/* ?limit=20&after_id=x&before_id=y; ids have no characters that need escapes. */
static bool
parse_page(struct slice query, struct page *page)
{
	*page = (struct page){ .limit = 20 };
	if (query.n && query.p[0] == '?')
		query = (struct slice){ query.p + 1, query.n - 1 };
	while (query.n) {
		const char *amp = memchr(query.p, '&', query.n);
		struct slice pair = { query.p, amp ? (size_t)(amp - query.p) : query.n };
		size_t used = pair.n + (amp ? 1 : 0);

		if (slice_starts(pair, SLICE("limit="))) {
			if (!slice_to_i64((struct slice){ pair.p + 6, pair.n - 6 }, &page->limit) ||
			    page->limit < 1 || page->limit > 1000)
				return false;
		} else if (slice_starts(pair, SLICE("after_id="))) {
			page->after = (struct slice){ pair.p + 9, pair.n - 9 };
		} else if (slice_starts(pair, SLICE("before_id="))) {
			page->before = (struct slice){ pair.p + 10, pair.n - 10 };
		}
		query = (struct slice){ query.p + used, query.n - used };
	}
	return true;
}

static size_t
index_of(const struct model_info *m, size_t n, struct slice id, size_t fallback)
{
	for (size_t i = 0; i < n; i++)
		if (slice_eq(m[i].id, id))
			return i;
	return fallback;
}

static void
write_list(struct buf *b, const struct model_info *m, size_t n, const struct page *page)
{
	size_t from = page->after.n ? index_of(m, n, page->after, n - 1) + 1 : 0;
	size_t to = page->before.n ? index_of(m, n, page->before, 0) : n;
	bool more = false;

	if (from > to)
		from = to;
	if (to - from > (size_t)page->limit) {
		more = true;
		if (page->before.n && !page->after.n)
			from = to - (size_t)page->limit;	/* the page just before it */
		else
			to = from + (size_t)page->limit;
	}
	buf_add_str(b, "{\"object\":\"list\",\"data\":[");
	for (size_t i = from; i < to; i++) {
		if (i > from)
			buf_add_char(b, ',');
		write_model(b, &m[i], m, n);
	}
	buf_printf(b, "],\"has_more\":%s,\"first_id\":", more ? "true" : "false");
	if (to > from) {
		buf_add_json(b, m[from].id);
		buf_add_str(b, ",\"last_id\":");
		buf_add_json(b, m[to - 1].id);
	} else {
		buf_add_str(b, "null,\"last_id\":null");
	}
	buf_printf(b, ",\"total\":%zu}", n);
}

static void
reply_json(struct request *r, struct buf *b)
{
	static const struct refusal_words too_big = {
		.status = 500, .type = "api_error", .headers = "", .outcome = OUTCOME_INVALID,
	};

	if (b->overflow)
		request_refuse(r, &too_big, "out of memory");
	else
		request_reply(r, 200, "application/json", "", buf_slice(b));
	buf_free(b);
}

void
models_list(struct request *r)
{
	static const struct refusal_words invalid = {
		.status = 400, .type = "invalid_request_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	struct model_info *m = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*m));
	struct page page;
	struct buf b;

	if (!m || !parse_page(r->query, &page)) {
		request_refuse(r, &invalid, "limit: an integer from 1 to 1000 is expected");
		return;
	}
	buf_init(&b, 1u << 20);
	write_list(&b, m, collect(r, m), &page);
	reply_json(r, &b);
}

void
models_one(struct request *r)
{
	static const struct refusal_words not_found = {
		.status = 404, .type = "not_found_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	struct model_info *m = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*m));
	size_t n = m ? collect(r, m) : 0, at = n;
	char text[256];
	struct slice id;
	struct buf b;

	if (route_id_decode(r->model_id, text, sizeof(text), &id))
		at = index_of(m, n, id, n);
	if (at == n) {
		request_refuse(r, &not_found, "model: %.*s", r->model_id.n > 200 ? 200 : (int)r->model_id.n,
		    r->model_id.n ? r->model_id.p : "");
		return;
	}
	buf_init(&b, 65536);
	write_model(&b, &m[at], m, n);
	reply_json(r, &b);
}
