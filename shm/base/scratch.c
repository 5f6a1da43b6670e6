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

struct scratch_block {
	struct scratch_block *next;
	size_t size;	/* of data[] */
	_Alignas(SCRATCH_ALIGN) char data[];
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

/* The head block's room, as far as the ceiling lets it be used. */
static void
set_left(struct scratch *s, size_t room)
{
	size_t under = (s->max - s->used) & ~(size_t)(SCRATCH_ALIGN - 1);

	s->left = room < under ? room : under;
}

void *
scratch_alloc_block(struct scratch *s, size_t n)
{
	struct scratch_block *fresh;
	size_t room = s->head ? (size_t)(s->head->data + s->head->size - s->at) : 0;
	char *p = s->at;

	if (n > s->max - s->used)
		return NULL;
	n = (n + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
	if (s->head && n <= room) {
		s->at += n;
		room -= n;
	} else {
		if (!(fresh = block_new(n)))
			return NULL;
		p = fresh->data;
		/* A large block goes behind the head, so that the head's
		 * remaining room is still found by small requests. */
		if (s->head && fresh->size - n < room) {
			fresh->next = s->head->next;
			s->head->next = fresh;
		} else {
			fresh->next = s->head;
			s->head = fresh;
			s->at = p + n;
			room = fresh->size - n;
		}
	}
	s->used = s->used + n < s->max ? s->used + n : s->max;
	set_left(s, room);
	return p;
}

char *
scratch_dup(struct scratch *s, struct slice from)
{
	char *p = scratch_alloc(s, from.n + 1);

	if (!p)
		return NULL;
	*slice_copy(p, from) = '\0';
	return p;
}

void
scratch_release(struct scratch *s)
{
	for (struct scratch_block *b = s->head, *next; b; b = next) {
		next = b->next;
		block_free(b);
	}
	scratch_init(s, s->max);
}
