/*
 * policy/problem.c -- see problem.h. "Nearest" is the Levenshtein distance over
 * at most GUESS_BYTES_MAX bytes; a guess is offered up to a third of the
 * name's length away, because a wilder one misleads.
 */
#include "policy/problem.h"

#include <stdarg.h>
#include <stdio.h>

#define GUESS_BYTES_MAX 48	/* no field's name is longer */

void
problems_init(struct problems *p)
{
	*p = (struct problems){ .count = 0 };
	buf_init(&p->text, PROBLEMS_BYTES_MAX);
}

void
problems_free(struct problems *p)
{
	buf_free(&p->text);
	p->count = 0;
}

void
problem_add(struct problems *p, const char *path, const char *fmt, ...)
{
	char message[768];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	p->count++;

	size_t before = p->text.n;
	if (path[0] != '\0')
		buf_printf(&p->text, "%s: ", path);
	buf_printf(&p->text, "%s\n", message);
	if (p->text.overflow)
		p->text.n = before;
}

struct problem_name
problem_name(struct slice raw)
{
	struct problem_name name;
	size_t room = sizeof(name.text) - 1, n = raw.n;
	bool cut = n > room;

	if (cut) {
		n = room - 3;
		while (n > 0 && ((unsigned char)raw.p[n] & 0xc0) == 0x80)
			n--;	/* not in the middle of a character */
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)raw.p[i];

		name.text[i] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
	}
	snprintf(name.text + n, sizeof(name.text) - n, "%s", cut ? "..." : "");
	return name;
}

static unsigned char
lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

uint32_t
problem_distance(struct slice a, struct slice b)
{
	uint32_t row[GUESS_BYTES_MAX + 1];

	if (a.n > GUESS_BYTES_MAX || b.n > GUESS_BYTES_MAX)
		return UINT32_MAX;
	for (uint32_t j = 0; j <= b.n; j++)
		row[j] = j;
	for (uint32_t i = 1; i <= a.n; i++) {
		uint32_t diagonal = row[0];	/* of the row above */

		row[0] = i;
		for (uint32_t j = 1; j <= b.n; j++) {
			uint32_t best = diagonal + (lower(a.p[i - 1]) != lower(b.p[j - 1]));

			diagonal = row[j];
			if (diagonal + 1 < best)
				best = diagonal + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[b.n];
}

void
problem_guess_try(struct problem_guess *g, const char *candidate)
{
	uint32_t d = problem_distance(g->wanted, slice_of(candidate));

	if (d != UINT32_MAX && (!g->best || d < g->distance)) {
		g->best = candidate;
		g->distance = d;
	}
}

const char *
problem_guess_best(const struct problem_guess *g)
{
	if (!g->best)
		return NULL;
	size_t allowed = g->wanted.n / 3 + 1;
	return g->distance <= allowed && g->distance < g->wanted.n ? g->best : NULL;
}

void
problem_add_missing(struct problems *p, const char *path, const char *kind, const struct problem_guess *g)
{
	const char *best = problem_guess_best(g);

	if (best)
		problem_add(p, path, "there is no %s \"%s\"; did you mean \"%s\"?", kind, problem_name(g->wanted).text, best);
	else
		problem_add(p, path, "there is no %s \"%s\" in this file", kind, problem_name(g->wanted).text);
}
