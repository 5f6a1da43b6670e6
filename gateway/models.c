/*
 * gateway/models.c -- GET /v1/models and /v1/models/{id}: what this key can use.
 *
 * One body serves Anthropic's and OpenAI's clients, because each ignores the
 * other's fields; the extra fields are those that Claude Desktop's model picker
 * reads.
 */
#include "gateway/model_names.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "shm/base/clock.h"

#define LONG_CONTEXT_TOKENS 1000000

struct page {
	int64_t limit;
	struct slice after, before;
};

struct list {
	size_t n;
	struct model_name *names;
};

static bool
collect(struct request *r, struct list *out)
{
	struct model_info *infos = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*infos));

	out->names = scratch_alloc(&r->mem, MODELS_MAX * sizeof(*out->names));
	if (!infos || !out->names)
		return false;
	out->n = model_names(r, infos, out->names);
	return true;
}

static struct slice
family_of(const struct model_name *m)
{
	if (m->alias && m->alias->family)
		return slice_of(m->alias->family);
	return m->info ? m->info->family : SLICE_NONE;
}

static struct slice
display_name_of(const struct model_name *m)
{
	if (m->alias && m->alias->display_name[0])
		return slice_of(m->alias->display_name);
	return m->info && !m->alias ? m->info->display_name : m->id;
}

/* The newest of its family; of an alias nobody says so. */
static bool
is_family_default(const struct model_name *m, const struct list *all)
{
	if (m->alias || !m->info)
		return false;
	for (size_t i = 0; i < all->n; i++) {
		const struct model_info *o = all->names[i].info;

		if (!all->names[i].alias && o && slice_eq(o->family, m->info->family) && o->created_wall_ns > m->info->created_wall_ns)
			return false;
	}
	return true;
}

static void
write_model(struct buf *b, const struct model_name *m, const struct list *all)
{
	static const struct model_info unknown = { .max_input_tokens = 0 };
	const struct model_info *info = m->info ? m->info : &unknown;
	struct slice family = family_of(m);
	char created[32];

	clock_format_utc(info->created_wall_ns, created, sizeof(created));
	buf_add_str(b, "{\"type\":\"model\",\"object\":\"model\",\"id\":");
	buf_add_json(b, m->id);
	buf_add_str(b, ",\"display_name\":");
	buf_add_json(b, display_name_of(m));
	buf_printf(b, ",\"created_at\":\"%.19sZ\",\"created\":%lld,\"owned_by\":\"anthropic\"", created,
	    (long long)(info->created_wall_ns / NS_PER_S));
	buf_printf(b, ",\"lifecycle\":\"%s\",\"line\":", info->deprecated ? "deprecated" : "active");
	if (family.n) {
		buf_add_json(b, family);
		buf_add_str(b, ",\"anthropic_family_tier\":");
		buf_add_json(b, family);
	} else {
		buf_add_str(b, "null");
	}
	buf_printf(b, ",\"is_family_default\":%s", is_family_default(m, all) ? "true" : "false");
	if (m->info)
		buf_printf(b, ",\"max_input_tokens\":%lld,\"max_tokens\":%lld", (long long)info->max_input_tokens, (long long)info->max_tokens);
	buf_printf(b, ",\"supports_1m\":%s}", info->max_input_tokens >= LONG_CONTEXT_TOKENS ? "true" : "false");
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
index_of(const struct list *l, struct slice id, size_t fallback)
{
	for (size_t i = 0; i < l->n; i++)
		if (slice_eq(l->names[i].id, id))
			return i;
	return fallback;
}

static void
write_list(struct buf *b, const struct list *l, const struct page *page)
{
	size_t from = page->after.n && l->n ? index_of(l, page->after, l->n - 1) + 1 : 0;
	size_t to = page->before.n ? index_of(l, page->before, 0) : l->n;
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
		write_model(b, &l->names[i], l);
	}
	buf_printf(b, "],\"has_more\":%s,\"first_id\":", more ? "true" : "false");
	if (to > from) {
		buf_add_json(b, l->names[from].id);
		buf_add_str(b, ",\"last_id\":");
		buf_add_json(b, l->names[to - 1].id);
	} else {
		buf_add_str(b, "null,\"last_id\":null");
	}
	buf_printf(b, ",\"total\":%zu}", l->n);
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
	struct page page;
	struct list l;
	struct buf b;

	if (!parse_page(r->query, &page)) {
		request_refuse(r, &invalid, "limit: an integer from 1 to 1000 is expected");
		return;
	}
	buf_init(&b, 1u << 20);
	if (collect(r, &l))
		write_list(&b, &l, &page);
	else
		b.overflow = true;
	reply_json(r, &b);
}

void
models_one(struct request *r)
{
	static const struct refusal_words not_found = {
		.status = 404, .type = "not_found_error", .headers = "", .outcome = OUTCOME_INVALID,
	};
	char text[256];
	struct slice id;
	struct list l = { .n = 0 };
	struct buf b;
	size_t at;

	if (!collect(r, &l) || !route_id_decode(r->model_id, text, sizeof(text), &id) || (at = index_of(&l, id, l.n)) == l.n) {
		request_refuse(r, &not_found, "model: %.*s", r->model_id.n > 200 ? 200 : (int)r->model_id.n,
		    r->model_id.n ? r->model_id.p : "");
		return;
	}
	buf_init(&b, 65536);
	write_model(&b, &l.names[at], &l);
	reply_json(r, &b);
}
