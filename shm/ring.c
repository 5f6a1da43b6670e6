/*
 * shm/ring.c -- see ring.h.
 *
 * Positions count bytes and never wrap; places are positions modulo the ring's
 * size. An item that would reach past the end starts at the beginning instead,
 * and an item header without a sequence says so. Three positions:
 *
 *	tail <= visible <= head
 *
 * The head belongs to the ledger's step, which may yet be rolled back; the
 * keeper must not store an item that then comes again with other content. So
 * it sees `visible`, which follows the head once the step is committed.
 */
#include "shm/ring_append.h"

static uint64_t
place_of(const struct arena *a, uint64_t position)
{
	return position & (a->header->sizes.ring_bytes - 1);
}

bool
ring_prepare(struct arena *a, uint32_t worker, uint32_t charges, const char *record,
    uint32_t record_bytes, struct ring_draft *out)
{
	struct shm_worker *w = layout_worker(a, worker);
	uint64_t ring_bytes = a->header->sizes.ring_bytes;
	uint64_t head = word_get(&w->ring_head);
	uint64_t bytes = sizeof(struct shm_item) + charges * sizeof(struct ring_charge) + record_bytes;
	uint64_t to_end = ring_bytes - place_of(a, head);

	CHECK(charges <= CHARGES_MAX && record_bytes <= RECORD_BYTES_MAX);
	bytes = (bytes + RING_ALIGN - 1) & ~(uint64_t)(RING_ALIGN - 1);
	uint64_t skip = to_end < bytes ? to_end : 0;
	if (head - word_get(&w->ring_tail) + skip + bytes > ring_bytes)
		return false;

	char *ring = layout_ring(a, worker);
	if (skip) {
		struct shm_item *end = (struct shm_item *)(ring + place_of(a, head));
		*end = (struct shm_item){ .bytes = skip };
	}
	struct shm_item *item = (struct shm_item *)(ring + place_of(a, head + skip));
	*out = (struct ring_draft){
		.head = head + skip + bytes,
		.sequence = word_get(&w->ring_sequence) + 1,
		.charge = (struct ring_charge *)(item + 1),
	};
	*item = (struct shm_item){
		.bytes = bytes,
		.sequence = out->sequence,
		.charges = charges,
		.record_bytes = record_bytes,
	};
	CRASH_POINT();
	memcpy(out->charge + charges, record, record_bytes);
	CRASH_POINT();
	return true;
}

void
ring_append(struct step *s, const struct ring_draft *d)
{
	journal_set(s, &s->worker->ring_sequence, d->sequence);
	journal_set(s, &s->worker->ring_head, d->head);
}

struct ring_cursor
ring_begin(const struct arena *a, uint32_t worker)
{
	return (struct ring_cursor){ .at = word_get(&layout_worker(a, worker)->ring_tail) };
}

bool
ring_next(const struct arena *a, uint32_t worker, struct ring_cursor *c, struct ring_item *out)
{
	uint64_t visible = word_get(&layout_worker(a, worker)->ring_visible);
	const char *ring = layout_ring(a, worker);

	while (c->at != visible) {
		const struct shm_item *item = (const struct shm_item *)(ring + place_of(a, c->at));

		CHECK(item->bytes >= RING_ALIGN && item->bytes <= visible - c->at);
		c->at += item->bytes;
		if (item->sequence == 0)
			continue;
		*out = (struct ring_item){
			.sequence = item->sequence,
			.charges = item->charges,
			.record_bytes = item->record_bytes,
			.charge = (const struct ring_charge *)(item + 1),
			.record = (const char *)((const struct ring_charge *)(item + 1) + item->charges),
		};
		return true;
	}
	return false;
}

void
ring_advance(struct arena *a, uint32_t worker, struct ring_cursor c)
{
	struct shm_worker *w = layout_worker(a, worker);
	uint64_t tail = word_get(&w->ring_tail);

	CHECK(c.at >= tail && c.at <= word_get(&w->ring_visible));
	word_put(&w->ring_tail, c.at);
}

uint32_t
ring_fill_permille(const struct arena *a, uint32_t worker)
{
	const struct shm_worker *w = layout_worker(a, worker);
	uint64_t tail = word_get(&w->ring_tail);

	return (uint32_t)((word_get(&w->ring_visible) - tail) * 1000 / a->header->sizes.ring_bytes);
}
