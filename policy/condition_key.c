/*
 * policy/condition_key.c -- see condition_key.h.
 *
 * A key is split once; finding its value compares names. Metadata is our own
 * text, without spaces, with one spelling of each name and strings alone, so a
 * pair is found by its bytes.
 */
#include "policy/condition_key.h"

#include <stdlib.h>

#include "policy/json_lex.h"

#define INDEX_DIGITS_MAX 9
#define NAME_BYTES(n) (6 * (n) + 3)	/* n bytes as \\u00xx, their quotes, and a colon */

/* A number as JavaScript writes an index: without leading zeros. */
static int64_t
index_of(struct slice name)
{
	int64_t n = 0;

	if (name.n == 0 || name.n > INDEX_DIGITS_MAX || (name.n > 1 && name.p[0] == '0'))
		return -1;
	for (size_t i = 0; i < name.n; i++) {
		if (!lex_is_digit(name.p[i]))
			return -1;
		n = n * 10 + (name.p[i] - '0');
	}
	return n;
}

/* The segments behind "params."; false: some are empty, or there are too many. */
static bool
split(struct condition_key *k, struct slice rest)
{
	for (;;) {
		const char *dot = memchr(rest.p, '.', rest.n);
		struct slice name = { rest.p, dot ? (size_t)(dot - rest.p) : rest.n };

		if (name.n == 0 || k->segments_count == CONDITION_SEGMENTS_MAX)
			return false;
		k->segments[k->segments_count++] = (struct condition_segment){ name, index_of(name) };
		if (!dot)
			return true;
		rest = (struct slice){ dot + 1, rest.n - name.n - 1 };
	}
}

static void
metadata_pair(struct condition_key *k, struct slice name, char *room)
{
	size_t n = json_escape(name, room, NAME_BYTES(name.n));

	room[n++] = ':';
	k->pair = (struct slice){ room, n };
}

struct condition_key *
condition_key_compile(struct slice text, const char *path, struct problems *p)
{
	static const struct slice metadata = { "metadata.", 9 }, params = { "params.", 7 };
	struct condition_key *k = malloc(sizeof(*k) + text.n + NAME_BYTES(text.n));
	bool known = true;

	CHECK(k);
	memcpy(k + 1, text.p, text.n);
	text.p = (char *)(k + 1);
	*k = (struct condition_key){ .written = text };
	if (text.n > CONDITION_KEY_BYTES_MAX) {
		known = false;
	} else if (slice_starts(text, metadata) && text.n > metadata.n) {
		k->root = ROOT_METADATA;
		metadata_pair(k, (struct slice){ text.p + metadata.n, text.n - metadata.n }, (char *)(k + 1) + text.n);
	} else if (slice_starts(text, params)) {
		k->root = ROOT_PARAMS;
		known = split(k, (struct slice){ text.p + params.n, text.n - params.n });
	} else {
		k->root = ROOT_PATHNAME;
		known = slice_eq(text, SLICE("url.pathname"));
	}
	if (known)
		return k;
	problem_add(p, path, "must be metadata.NAME, params.NAME (or params.NAME.NAME and so on) or url.pathname, "
	    "at most %d bytes", CONDITION_KEY_BYTES_MAX);
	free(k);
	return NULL;
}

static struct slice
pair_of(struct slice metadata, struct slice pair)
{
	const char *p = metadata.p + 1, *end = metadata.p + metadata.n, *behind;
	struct lex f;

	for (; metadata.n > 0 && p < end && *p == '"'; p = behind + 1) {	/* behind a brace or a comma */
		bool found = (size_t)(end - p) > pair.n && p[1] == pair.p[1] && memcmp(p, pair.p, pair.n) == 0;

		p = found ? p + pair.n : lex_string(p + 1, end, &f);
		if (p && !found && p < end)
			p++;		/* its colon */
		behind = p && p < end && *p == '"' ? lex_string(p + 1, end, &f) : NULL;
		if (found || !behind)
			return behind ? (struct slice){ p, (size_t)(behind - p) } : SLICE_NONE;
	}
	return SLICE_NONE;
}

/* The last member of that name. */
static struct slice
member_of(struct slice object, struct slice wanted)
{
	struct slice found = SLICE_NONE, name, value;
	struct json_iter it;

	if (json_iter_object(&it, object))
		while (json_next(&it, &name, &value))
			if (it.escaped ? json_string_is(name, wanted) :
			    name.n == wanted.n + 2 && memcmp(name.p + 1, wanted.p, wanted.n) == 0)
				found = value;
	return found;
}

static struct slice
element_of(struct slice array, int64_t index)
{
	struct slice name, value;
	struct json_iter it;

	if (index < 0 || !json_iter_array(&it, array))
		return SLICE_NONE;
	while (json_next(&it, &name, &value))
		if (index-- == 0)
			return value;
	return SLICE_NONE;
}

static struct slice
param_of(const struct condition_key *k, const struct body_scan *body)
{
	const struct condition_segment *s = k->segments;
	const struct body_member *m;
	struct slice at;

	if (!body || !(body->names_seen & body_name_bit(s->name)) || !(m = body_find_name(body, s->name)))
		return SLICE_NONE;
	at = m->value;
	for (uint32_t i = 1; i < k->segments_count && at.p; i++)
		at = at.p[0] == '[' ? element_of(at, s[i].index) : member_of(at, s[i].name);
	return at;
}

struct condition_value
condition_key_find(const struct condition_key *k, const struct condition_facts *f)
{
	switch (k->root) {
	case ROOT_METADATA:
		return (struct condition_value){ pair_of(f->metadata, k->pair), true };
	case ROOT_PARAMS:
		return (struct condition_value){ param_of(k, f->params), true };
	case ROOT_PATHNAME:
		break;
	}
	return (struct condition_value){ f->pathname, false };
}
