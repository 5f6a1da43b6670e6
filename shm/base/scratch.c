/*
 * shm/base/scratch.c -- see scratch.h.
 *
 * Blocks of one size are kept in a per-process free list, bounded, because
 * each request takes one and gives it back. What does not fit into a block of
 * that size gets a block of its own from malloc.
 */
#include "shm/base/scratch.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 8192	/* a usual request's head, body and records fit in one */
#define POOLED_MAX 256		/* 2 MiB kept for the next requests, at the most */
#define ALIGN 16

struct scratch_block {
	struct scratch_block *next;
	size_t size, used;	/* of data[] */
	_Alignas(ALIGN) char data[];
};

static struct {
	struct scratch_block *free;
	unsigned count;
} pool;

static struct scratch_block *
block_new(size_t need)
{
	size_t room = BLOCK_BYTES - sizeof(struct scratch_block);
	struct scratch_block *b;

	if (need <= room && pool.free) {
		b = pool.free;
		pool.free = b->next;
		pool.count--;
	} else {
		if (need > room)
			room = need;
		b = malloc(sizeof(*b) + room);
		if (!b)
			return NULL;
		b->size = room;
	}
	b->used = 0;
	b->next = NULL;
	return b;
}

static void
block_free(struct scratch_block *b)
{
	if (b->size == BLOCK_BYTES - sizeof(*b) && pool.count < POOLED_MAX) {
		b->next = pool.free;
		pool.free = b;
		pool.count++;
	} else {
		free(b);
	}
}

void
scratch_init(struct scratch *s, size_t max)
{
	*s = (struct scratch){ .max = max };
}

void *
scratch_alloc(struct scratch *s, size_t n)
{
	struct scratch_block *b = s->head;

	if (n > s->max - s->used)
		return NULL;
	n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (!b || b->size - b->used < n) {
		struct scratch_block *fresh = block_new(n);
		if (!fresh)
			return NULL;
		/* A large block goes behind the head, so that the head's
		 * remaining room is still found by small requests. */
		if (b && fresh->size - n < b->size - b->used) {
			fresh->next = b->next;
			b->next = fresh;
		} else {
			fresh->next = b;
			s->head = fresh;
		}
		b = fresh;
	}
	void *p = b->data + b->used;
	b->used += n;
	s->used = s->used + n < s->max ? s->used + n : s->max;
	return p;
}

char *
scratch_dup(struct scratch *s, struct slice from)
{
	char *p = scratch_alloc(s, from.n + 1);

	if (!p)
		return NULL;
	if (from.n)
		memcpy(p, from.p, from.n);
	p[from.n] = '\0';
	return p;
}

void
scratch_reset(struct scratch *s)
{
	for (struct scratch_block *b = s->head, *next; b; b = next) {
		next = b->next;
		block_free(b);
	}
	s->head = NULL;
	s->used = 0;
}
