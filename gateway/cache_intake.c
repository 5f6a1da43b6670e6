/*
 * gateway/cache_intake.c -- see cache_intake.h.
 */
#include "gateway/cache_intake.h"

#include "gateway/cache_mail.h"
#include "shm/base/clock.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define BATCH_ITEMS 32
#define BATCH_BYTES (2u << 20)	/* and the entry that passes it: a commit of a ms or two */
#define DRAIN_BATCHES_MAX 64	/* several times what is in the queue */
#define LOOK_NS NS_PER_S
#define RETRY_NS NS_PER_S	/* between attempts while it fails */
#define SLOW_NS (10 * NS_PER_MS)
#define REST 4			/* times as long as a slow batch took */
#define WARN_NS (60 * NS_PER_S)
#define WHY_BYTES 512

void
cache_intake_init(struct cache_intake *in, struct arena *a, int fd)
{
	*in = (struct cache_intake){ .arena = a, .fd = fd };
}

void
cache_intake_free(struct cache_intake *in)
{
	cache_writer_free(in->writer);
	in->writer = NULL;
}

static void
count(struct cache_intake *in, enum metrics_counter c, uint64_t n)
{
	if (n > 0)
		metrics_add(in->arena, metrics_keeper_row(in->arena), c, n);
}

static void
note_failure(struct cache_intake *in, const char *why, int64_t now)
{
	in->ready_mono_ns = now + RETRY_NS;
	in->failing = true;
	if (now < in->warn_mono_ns)
		return;
	in->warn_mono_ns = now + WARN_NS;
	log_warn("answers are not kept: %s", why);
}

static void
note_success(struct cache_intake *in, const struct cache_changes *c, int64_t took_ns, int64_t now)
{
	if (in->failing)
		log_info("answers are kept again");
	in->failing = false;
	in->ready_mono_ns = took_ns > SLOW_NS ? now + REST * took_ns : 0;
	count(in, COUNTER_CACHE_STORED, c->stored);
	count(in, COUNTER_CACHE_REFUSED_STORE, c->refused);
	count(in, COUNTER_CACHE_REFUSED_MALFORMED, c->malformed);
	count(in, COUNTER_CACHE_EXPIRED, c->expired);
	count(in, COUNTER_CACHE_EVICTED, c->evicted);
	metrics_cache(in->arena, (int64_t)c->bytes, (int64_t)c->entries);
}

static void
apply(struct cache_intake *in, const struct settings *s, const struct cache_item *items, uint32_t n)
{
	struct cache_changes changes;
	int64_t begin = clock_mono_ns(), now;
	char why[WHY_BYTES];
	int rc = cache_writer_apply(in->writer, s->cache.bytes, items, n, clock_wall_ns(), &changes, why, sizeof(why));

	now = clock_mono_ns();
	in->look_mono_ns = now + LOOK_NS;
	if (rc == 0) {
		note_success(in, &changes, now - begin, now);
		return;
	}
	count(in, COUNTER_CACHE_REFUSED_STORE, n);
	note_failure(in, why, now);
}

static void
remove_it(struct cache_intake *in, int64_t now)
{
	char why[WHY_BYTES];

	in->look_mono_ns = now + LOOK_NS;
	if (in->removed)
		return;
	if (cache_writer_remove(in->writer, why, sizeof(why)) != 0) {
		note_failure(in, why, now);
		return;
	}
	in->removed = true;
	in->failing = false;
	metrics_cache(in->arena, 0, 0);
}

void
cache_intake_tend(struct cache_intake *in, const struct settings *s, int64_t now_mono_ns)
{
	if (now_mono_ns < in->look_mono_ns || now_mono_ns < in->ready_mono_ns)
		return;
	if (!in->writer)
		in->writer = cache_writer_new(s->data_dir);
	if (!in->writer)
		return;
	if (s->cache.bytes == 0) {
		remove_it(in, now_mono_ns);
		return;
	}
	in->removed = false;
	apply(in, s, NULL, 0);
}

bool
cache_intake_waits(const struct cache_intake *in, const struct settings *s, int64_t now_mono_ns, int64_t *until_mono_ns)
{
	*until_mono_ns = INT64_MAX;
	if (in->fd < 0 || !in->writer || s->cache.bytes == 0)
		return false;
	if (now_mono_ns >= in->ready_mono_ns)
		return true;
	*until_mono_ns = in->ready_mono_ns;
	return false;
}

/* A batch. Returns how many messages came. */
static uint32_t
take(struct cache_intake *in, const struct settings *s)
{
	struct cache_item items[BATCH_ITEMS];
	struct buf entries[BATCH_ITEMS];
	uint32_t n = 0, came = 0;
	uint64_t bytes = 0;

	for (; came < BATCH_ITEMS && bytes < BATCH_BYTES; came++) {
		enum cache_mail_got got;

		buf_init(&entries[n], s->cache.entry_bytes);
		got = cache_mail_receive(in->fd, items[n].key, &entries[n]);
		if (got == CACHE_MAIL_NOTHING)
			break;
		if (got == CACHE_MAIL_TOO_LARGE || got == CACHE_MAIL_MALFORMED) {
			count(in, got == CACHE_MAIL_TOO_LARGE ? COUNTER_CACHE_REFUSED_LARGE : COUNTER_CACHE_REFUSED_MALFORMED, 1);
			buf_free(&entries[n]);
			continue;
		}
		items[n].entry = got == CACHE_MAIL_ENTRY ? buf_slice(&entries[n]) : SLICE_NONE;
		bytes += items[n++].entry.n;
	}
	if (n > 0)
		apply(in, s, items, n);
	for (uint32_t i = 0; i < n; i++)
		buf_free(&entries[i]);
	return came;
}

void
cache_intake_take(struct cache_intake *in, const struct settings *s)
{
	take(in, s);
}

void
cache_intake_drain(struct cache_intake *in, const struct settings *s)
{
	int64_t until;

	for (int i = 0; i < DRAIN_BATCHES_MAX && cache_intake_waits(in, s, INT64_MAX, &until) && !in->failing; i++)
		if (take(in, s) == 0)
			return;
}
