/*
 * policy/session.c -- see session.h.
 *
 * What is hashed is a list of parts, each with a letter that says what it is and
 * its length before it, so that no two lists have the same bytes. SipHash wants
 * its input in one piece: it gets blocks, each with the hash of those before it
 * at its front.
 */
#include "policy/session.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy/condition_key.h"
#include "policy/json_lex.h"
#include "shm/base/siphash.h"

#define BLOCK_BYTES 1024
#define PATH_BYTES 1024
#define HEADERS "headers."

/* ---- hashing ---- */

struct hash {
	const uint64_t *secret;
	size_t left;			/* bytes of texts that still count */
	size_t n;
	char block[BLOCK_BYTES];
};

static void
hash_begin(struct hash *h, const uint64_t secret[2])
{
	h->secret = secret;
	h->left = SESSION_BYTES_MAX;
	h->n = 0;
}

static void
hash_bytes(struct hash *h, const char *p, size_t n)
{
	while (n > 0) {
		size_t k = n < BLOCK_BYTES - h->n ? n : BLOCK_BYTES - h->n;

		memcpy(h->block + h->n, p, k);
		h->n += k;
		p += k;
		n -= k;
		if (h->n == BLOCK_BYTES) {
			struct siphash before = siphash128(h->secret, (struct slice){ h->block, h->n });

			memcpy(h->block, &before, sizeof(before));
			h->n = sizeof(before);
		}
	}
}

static void
hash_part(struct hash *h, char kind, struct slice text)
{
	uint64_t length = htole64(text.n);
	size_t n = text.n < h->left ? text.n : h->left;

	hash_bytes(h, &kind, 1);
	hash_bytes(h, (const char *)&length, sizeof(length));
	hash_bytes(h, text.p, n);
	h->left -= n;
}

static void
hash_end(struct hash *h, uint64_t id[2])
{
	struct siphash end = siphash128(h->secret, (struct slice){ h->block, h->n });

	id[0] = end.lo;
	id[1] = end.hi;
}

/* The inside of a raw string. */
static struct slice
inside(struct slice raw)
{
	return (struct slice){ raw.p + 1, raw.n - 2 };
}

/* ---- the beginning of a conversation ---- */

/* A value but for what is called cache_control in it. */
struct tokens {
	struct hash *hash;
	bool marker;			/* the value of cache_control comes next */
	uint32_t passing;		/* depth of the container that is its value; 0: none */
};

static const char *
on_name(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct tokens *t = arg;

	(void)depth;
	(void)escaped;
	if (t->passing)
		return NULL;
	t->marker = json_string_eq(raw, "cache_control");
	if (!t->marker)
		hash_part(t->hash, 'n', inside(raw));
	return NULL;
}

static void
on_open(void *arg, uint32_t depth, const char *at)
{
	struct tokens *t = arg;

	if (t->marker)
		t->passing = depth;
	t->marker = false;
	if (!t->passing)
		hash_bytes(t->hash, at, 1);
}

static void
on_close(void *arg, uint32_t depth, const char *end)
{
	struct tokens *t = arg;

	if (!t->passing)
		hash_bytes(t->hash, end - 1, 1);
	else if (t->passing == depth)
		t->passing = 0;
}

static void
on_scalar(void *arg, uint32_t depth, struct slice raw, bool escaped)
{
	struct tokens *t = arg;

	(void)depth;
	(void)escaped;
	if (!t->passing && !t->marker)
		hash_part(t->hash, 's', raw);
	t->marker = false;
}

static const struct json_visitor visitor = {
	.name = on_name, .open = on_open, .close = on_close, .scalar = on_scalar,
};

/* Text is text, however it is wrapped. */
static void
hash_block(struct hash *h, struct slice block)
{
	struct tokens t = { .hash = h };
	struct lex f = { .what = NULL };
	struct slice type, text;

	if (block.p[0] == '{' && json_get(block, "type", &type) && json_string_eq(type, "text") && json_get(block, "text", &text) &&
	    text.p[0] == '"')
		hash_part(h, 't', inside(text));
	else
		CHECK(json_walk(block.p, block.p + block.n, &visitor, &t, &f));
}

static void
hash_content(struct hash *h, struct slice content)
{
	struct slice name, block;
	struct json_iter it;

	if (content.p[0] == '"')
		hash_part(h, 't', inside(content));
	else if (json_iter_array(&it, content))
		while (json_next(&it, &name, &block) && h->left > 0)
			hash_block(h, block);
}

/* Content of the first message of the user. */
static bool
beginning(const struct body_scan *body, struct slice *content)
{
	const struct body_member *messages = body_find(body, "messages");
	struct slice name, message, role;
	struct json_iter it;

	if (!messages || !json_iter_array(&it, messages->value))
		return false;
	while (json_next(&it, &name, &message))
		if (json_get(message, "role", &role) && json_string_eq(role, "user"))
			return json_get(message, "content", content);
	return false;
}

/* ---- sessions ---- */

static struct slice
user_id_of(const struct body_scan *body)
{
	const struct body_member *metadata = body_find(body, "metadata");
	struct slice id;

	return metadata && json_get(metadata->value, "user_id", &id) && id.p[0] == '"' ? inside(id) : SLICE_NONE;
}

struct session
session_find(struct slice header, const struct body_scan *body, struct slice key_id, const uint64_t secret[2])
{
	struct session s = { .source = SESSION_NONE };
	struct slice user_id = body ? user_id_of(body) : SLICE_NONE, content;
	struct hash h;

	hash_begin(&h, secret);
	hash_part(&h, 'k', key_id);
	if (header.n > 0) {
		s.source = SESSION_HEADER;
		hash_part(&h, 'h', header);
	} else if (user_id.n > 0) {
		s.source = SESSION_USER_ID;
		hash_part(&h, 'u', user_id);
	} else if (body && beginning(body, &content)) {
		s.source = SESSION_BEGINNING;
		hash_bytes(&h, "b", 1);
		hash_content(&h, content);
	} else {
		return s;
	}
	hash_end(&h, s.id);
	return s;
}

/* ---- fields ---- */

struct field {
	struct condition_key *key;	/* NULL: a header */
	char *header;			/* in lower case */
};

struct session_fields {
	uint32_t count;
	struct field fields[SESSION_FIELDS_MAX];
};

static bool
is_header_name(struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c))
			return false;
	}
	return s.n > 0;
}

static char *
lower_case(struct slice s)
{
	char *text = malloc(s.n + 1);

	CHECK(text);
	for (size_t i = 0; i < s.n; i++)
		text[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 0x20 : s.p[i]);
	text[s.n] = '\0';
	return text;
}

static void
field_compile(struct session_fields *f, struct slice text, const char *path, struct problems *p)
{
	struct field *field = &f->fields[f->count++];
	struct slice name = { text.p + sizeof(HEADERS) - 1, text.n - (sizeof(HEADERS) - 1) };

	if (slice_starts(text, SLICE("metadata.")) || slice_starts(text, SLICE("params.")))
		field->key = condition_key_compile(text, path, p);
	else if (slice_starts(text, SLICE(HEADERS)) && text.n <= SESSION_FIELD_BYTES_MAX && is_header_name(name))
		field->header = lower_case(name);
	else
		problem_add(p, path, "must be metadata.NAME, params.NAME or headers.NAME, at most %d bytes", SESSION_FIELD_BYTES_MAX);
}

struct session_fields *
session_fields_compile(const struct slice *fields, uint32_t count, const char *path, struct problems *p)
{
	struct session_fields *f = calloc(1, sizeof(*f));
	uint32_t before = p->count;
	char at[PATH_BYTES];

	CHECK(f);
	if (count == 0 || count > SESSION_FIELDS_MAX)
		problem_add(p, path, "must have 1 to %d fields", SESSION_FIELDS_MAX);
	for (uint32_t i = 0; i < count && i < SESSION_FIELDS_MAX; i++) {
		snprintf(at, sizeof(at), "%s[%u]", path, i);
		field_compile(f, fields[i], at, p);
	}
	if (p->count == before)
		return f;
	session_fields_free(f);
	return NULL;
}

void
session_fields_free(struct session_fields *fields)
{
	for (uint32_t i = 0; fields && i < fields->count; i++) {
		free(fields->fields[i].key);
		free(fields->fields[i].header);
	}
	free(fields);
}

/* false: the request has no such field. A string is a string, be it of JSON or of a header. */
static bool
hash_field(struct hash *h, const struct field *field, const struct session_facts *facts)
{
	struct condition_value v = { SLICE_NONE, false };

	if (field->key)
		v = condition_key_find(field->key, facts->request);
	else
		v.text = facts->header(facts->arg, slice_of(field->header));
	if (!v.text.p)
		hash_bytes(h, "m", 1);
	else if (v.json && v.text.p[0] == '"')
		hash_part(h, 't', inside(v.text));
	else
		hash_part(h, v.json ? 'j' : 't', v.text);
	return v.text.p != NULL;
}

bool
session_fields_find(const struct session_fields *fields, const struct session_facts *facts, struct slice key_id,
    const uint64_t secret[2], uint64_t id[2])
{
	struct hash h;
	bool any = false;

	hash_begin(&h, secret);
	hash_part(&h, 'k', key_id);
	hash_bytes(&h, "f", 1);
	for (uint32_t i = 0; i < fields->count; i++)
		any |= hash_field(&h, &fields->fields[i], facts);
	hash_end(&h, id);
	return any;
}
