/*
 * store/record.c -- see record.h.
 *
 * Encoding cuts by a water level: when the strings do not fit, the level is the
 * longest length that all may have so that they do, and only what stands above
 * it is cut. Short identifiers so survive a long model name. Decoding trusts
 * nothing: the bytes may come from a file that another version wrote.
 */
#include "store/record.h"

#include <stdio.h>
#include <string.h>

#include "shm/base/buf.h"
#include "shm/base/clock.h"

#define STRING_BYTES_MAX UINT16_MAX	/* its length has 16 bits */
#define LENGTH_BYTES 2

enum record_string {
#define X(name) STRING_##name,
	RECORD_STRINGS(X)
#undef X
	STRINGS_COUNT
};

/* Version 2. */
#define FIXED_BYTES_2 offsetof(struct record_fixed, saved_nusd)
#define STRINGS_COUNT_2 (STRING_metadata + 1)

/* Where each string lies in struct record, in the order of the bytes. */
static const size_t string_offsets[STRINGS_COUNT] = {
#define X(name) offsetof(struct record, name),
	RECORD_STRINGS(X)
#undef X
};

static struct slice
string_get(const struct record *r, uint32_t i)
{
	struct slice s;

	memcpy(&s, (const char *)r + string_offsets[i], sizeof(s));
	return s;
}

static void
string_set(struct record *r, uint32_t i, struct slice s)
{
	memcpy((char *)r + string_offsets[i], &s, sizeof(s));
}

static size_t
bytes_at_level(const struct slice strings[STRINGS_COUNT], size_t level)
{
	size_t sum = 0;

	for (uint32_t i = 0; i < STRINGS_COUNT; i++)
		sum += strings[i].n < level ? strings[i].n : level;
	return sum;
}

/* The longest length that all strings may have and still fit into room. */
static size_t
water_level(const struct slice strings[STRINGS_COUNT], size_t room)
{
	size_t low = 0, high = STRING_BYTES_MAX;

	while (low < high) {
		size_t middle = (low + high + 1) / 2;

		if (bytes_at_level(strings, middle) <= room)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

/* At most n bytes, without half a UTF-8 character at the end. */
static struct slice
cut(struct slice s, size_t n)
{
	if (s.n <= n)
		return s;
	while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	return (struct slice){ s.p, n };
}

/* Makes the strings fit into room. */
static void
fit(struct record *r, size_t room)
{
	struct slice strings[STRINGS_COUNT];
	size_t level;

	for (uint32_t i = 0; i < STRINGS_COUNT; i++)
		strings[i] = string_get(r, i);
	level = water_level(strings, room);
	if (strings[STRING_tries].n > level) {
		strings[STRING_tries] = SLICE_NONE;
		level = water_level(strings, room);
	}
	if (strings[STRING_metadata].n > level) {
		strings[STRING_metadata] = level >= 2 ? SLICE("{}") : SLICE_NONE;
		level = water_level(strings, room);
	}
	for (uint32_t i = 0; i < STRINGS_COUNT; i++)
		string_set(r, i, cut(strings[i], level));
	r->fixed.flags |= RECORD_FLAG(TRUNCATED);
}

static bool
has_endless_string(const struct record *r)
{
	for (uint32_t i = 0; i < STRINGS_COUNT; i++)
		if (string_get(r, i).n > STRING_BYTES_MAX)
			return true;
	return false;
}

static inline char *
string_write(char *at, struct slice s)
{
	uint16_t n = (uint16_t)s.n;

	memcpy(at, &n, LENGTH_BYTES);
	at += LENGTH_BYTES;
	return n == 0 ? at : slice_copy(at, s);	/* most are absent */
}

uint32_t
record_encode(const struct record *r, char *out, uint32_t size)
{
	const size_t least = sizeof(struct record_fixed) + LENGTH_BYTES * STRINGS_COUNT;
	const uint16_t version = RECORD_VERSION;
	struct record shorter;
	size_t strings = 0;
	char *at = out + sizeof(r->fixed);

	CHECK(size >= least);
#define X(name) strings += r->name.n;
	RECORD_STRINGS(X)
#undef X
	if (strings > size - least || (strings > STRING_BYTES_MAX && has_endless_string(r))) {
		shorter = *r;
		fit(&shorter, size - least);
		r = &shorter;
	}
	record_fixed_write(out, &r->fixed);
	memcpy(out + offsetof(struct record_fixed, version), &version, sizeof(version));
#define X(name) at = string_write(at, r->name);
	RECORD_STRINGS(X)
#undef X
	CHECK(at <= out + size);
	return (uint32_t)(at - out);
}

bool
record_decode(struct slice bytes, struct record *out)
{
	uint32_t strings = STRINGS_COUNT;
	size_t at = sizeof(struct record_fixed);
	uint16_t version;

	if (bytes.n < FIXED_BYTES_2)
		return false;
	memcpy(&version, bytes.p, sizeof(version));
	if (version == 2) {
		strings = STRINGS_COUNT_2;
		at = FIXED_BYTES_2;
	} else if (version != RECORD_VERSION || bytes.n < at) {
		return false;
	}
	*out = (struct record){ .fixed.version = version };
	memcpy(&out->fixed, bytes.p, at);
	if (out->fixed.outcome >= OUTCOME_COUNT || out->fixed.cache >= CACHE_COUNT)
		return false;
	for (uint32_t i = 0; i < strings; i++) {
		uint16_t n;

		if (bytes.n - at < LENGTH_BYTES)
			return false;
		memcpy(&n, bytes.p + at, LENGTH_BYTES);
		at += LENGTH_BYTES;
		if (bytes.n - at < n)
			return false;
		string_set(out, i, (struct slice){ bytes.p + at, n });
		at += n;
	}
	return at == bytes.n;
}

void
record_fixed_read(const char *bytes, struct record_fixed *out)
{
	memcpy(out, bytes, sizeof(*out));
}

void
record_fixed_write(char *bytes, const struct record_fixed *in)
{
	memcpy(bytes, in, sizeof(*in));
}

const char *
record_outcome_name(enum record_outcome o)
{
	static const char *const names[OUTCOME_COUNT] = {
#define X(name, text) text,
		RECORD_OUTCOMES(X)
#undef X
	};

	CHECK(o < OUTCOME_COUNT);
	return names[o];
}

const char *
record_cache_name(enum record_cache c)
{
	static const char *const names[CACHE_COUNT] = {
#define X(name, text) text,
		RECORD_CACHES(X)
#undef X
	};

	CHECK(c < CACHE_COUNT);
	return names[c];
}

/* ---- tries ---- */

#define TRY_FIXED_BYTES (sizeof(uint16_t) + sizeof(uint32_t) + sizeof(int64_t))
#define TRY_TEXTS 4
#define TRY_TEXT_BYTES_MAX UINT8_MAX	/* a length has 8 bits */

uint32_t
record_try_add(char *at, uint32_t room, const struct record_try *t)
{
	struct slice texts[TRY_TEXTS] = { t->target, t->provider, t->model, t->error };
	char *p = at;
	size_t bytes = TRY_FIXED_BYTES;

	for (int i = 0; i < TRY_TEXTS; i++) {
		texts[i] = cut(texts[i], TRY_TEXT_BYTES_MAX);
		bytes += 1 + texts[i].n;
	}
	if (bytes > room)
		return 0;
	memcpy(p, &t->status, sizeof(t->status));
	p += sizeof(t->status);
	memcpy(p, &t->ms, sizeof(t->ms));
	p += sizeof(t->ms);
	memcpy(p, &t->cost_nusd, sizeof(t->cost_nusd));
	p += sizeof(t->cost_nusd);
	for (int i = 0; i < TRY_TEXTS; i++) {
		*p++ = (char)texts[i].n;
		p = slice_copy(p, texts[i]);
	}
	return (uint32_t)bytes;
}

bool
record_try_read(struct slice *rest, struct record_try *out)
{
	struct slice *const texts[TRY_TEXTS] = { &out->target, &out->provider, &out->model, &out->error };
	struct slice s = *rest;

	if (s.n < TRY_FIXED_BYTES)
		return false;
	memcpy(&out->status, s.p, sizeof(out->status));
	memcpy(&out->ms, s.p + sizeof(out->status), sizeof(out->ms));
	memcpy(&out->cost_nusd, s.p + sizeof(out->status) + sizeof(out->ms), sizeof(out->cost_nusd));
	s = (struct slice){ s.p + TRY_FIXED_BYTES, s.n - TRY_FIXED_BYTES };
	for (int i = 0; i < TRY_TEXTS; i++) {
		size_t n = s.n ? (unsigned char)*s.p : 0;

		if (s.n < 1 + n)
			return false;
		*texts[i] = (struct slice){ s.p + 1, n };
		s = (struct slice){ s.p + 1 + n, s.n - 1 - n };
	}
	*rest = s;
	return true;
}

const char *
token_class_name(enum token_class c)
{
	static const char *const names[TOKENS_CLASSES] = {
		[TOKENS_INPUT] = "input",
		[TOKENS_OUTPUT] = "output",
		[TOKENS_CACHE_WRITE_5M] = "cache_write_5m",
		[TOKENS_CACHE_WRITE_1H] = "cache_write_1h",
		[TOKENS_CACHE_READ] = "cache_read",
		[TOKENS_WEB_SEARCHES] = "web_searches",
	};

	CHECK(c < TOKENS_CLASSES);
	return names[c];
}

void
record_format_usd(int64_t nusd, char *out, size_t size)
{
	uint64_t magnitude = nusd < 0 ? 0 - (uint64_t)nusd : (uint64_t)nusd;

	CHECK(size >= RECORD_USD_BYTES);
	snprintf(out, size, "%s%llu.%09llu", nusd < 0 ? "-" : "",
	    (unsigned long long)(magnitude / 1000000000), (unsigned long long)(magnitude % 1000000000));
}

/* Bytes of the UTF-8 character at s; 0 if there is none (RFC 3629). */
static size_t
utf8_bytes(struct slice s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	unsigned char low = 0x80, high = 0xbf;	/* of the second byte */
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		n = 3;
		low = p[0] == 0xe0 ? 0xa0 : 0x80;
		high = p[0] == 0xed ? 0x9f : 0xbf;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		low = p[0] == 0xf0 ? 0x90 : 0x80;
		high = p[0] == 0xf4 ? 0x8f : 0xbf;
	} else {
		return 0;
	}
	if (s.n < n || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Header values may be Latin-1; JSON must be UTF-8. */
static void
add_text(struct buf *out, struct slice s)
{
	struct buf clean;
	size_t at = 0, n = 1;

	while (at < s.n && (n = utf8_bytes((struct slice){ s.p + at, s.n - at })) > 0)
		at += n;
	if (at == s.n) {
		buf_add_json(out, s);
		return;
	}
	buf_init(&clean, 3 * s.n);
	for (at = 0; at < s.n; at += n > 0 ? n : 1) {
		n = utf8_bytes((struct slice){ s.p + at, s.n - at });
		if (n > 0)
			buf_add(&clean, s.p + at, n);
		else
			buf_add_str(&clean, "\xef\xbf\xbd");	/* U+FFFD */
	}
	buf_add_json(out, buf_slice(&clean));
	buf_free(&clean);
}

/* Bytes of the escape that begins at s; 0 if it is none of JSON's. */
static size_t
escape_bytes(struct slice s)
{
	static const char simple[] = "\"\\/bfnrt";

	if (s.n >= 2 && memchr(simple, s.p[1], sizeof(simple) - 1))
		return 2;
	if (s.n < 6 || s.p[1] != 'u')
		return 0;
	for (size_t i = 2; i < 6; i++) {
		unsigned char lower = (unsigned char)s.p[i] | 0x20;

		if (!(s.p[i] >= '0' && s.p[i] <= '9') && !(lower >= 'a' && lower <= 'f'))
			return 0;
	}
	return 6;
}

/* Past a JSON string that begins at `at`; 0 if there is none. */
static size_t
skip_string(struct slice s, size_t at)
{
	if (at >= s.n || s.p[at] != '"')
		return 0;
	for (at++; at < s.n && s.p[at] != '"';) {
		struct slice rest = { s.p + at, s.n - at };
		size_t n = *rest.p == '\\' ? escape_bytes(rest) : utf8_bytes(rest);

		if (n == 0 || (unsigned char)*rest.p < 0x20)
			return 0;
		at += n;
	}
	return at < s.n ? at + 1 : 0;
}

/* What metadata_json() writes: {"name":"text",...}, without white space. */
static bool
flat_object(struct slice s)
{
	size_t at = 1;

	if (s.n < 2 || s.p[0] != '{' || s.p[s.n - 1] != '}')
		return false;
	if (s.n == 2)
		return true;
	for (;;) {
		at = skip_string(s, at);
		if (at == 0 || at >= s.n || s.p[at] != ':')
			return false;
		at = skip_string(s, at + 1);
		if (at == 0 || at >= s.n)
			return false;
		if (s.p[at] == '}')
			return at + 1 == s.n;
		if (s.p[at++] != ',')
			return false;
	}
}

static void
add_flags(struct buf *out, uint32_t flags)
{
	static const char *const names[RECORD_BIT_COUNT] = {
#define X(name, text) text,
		RECORD_FLAGS(X)
#undef X
	};
	const char *comma = "";

	buf_add_str(out, ",\"flags\":[");
	for (uint32_t i = 0; i < RECORD_BIT_COUNT; i++) {
		if (flags & (1u << i)) {
			buf_printf(out, "%s\"%s\"", comma, names[i]);
			comma = ",";
		}
	}
	buf_add_char(out, ']');
}

static void
add_tries(struct buf *out, struct slice tries)
{
	const char *comma = "";
	struct record_try t;

	buf_add_str(out, ",\"tries\":[");
	while (record_try_read(&tries, &t)) {
		buf_printf(out, "%s{\"target\":", comma);
		add_text(out, t.target);
		buf_add_str(out, ",\"provider\":");
		add_text(out, t.provider);
		buf_add_str(out, ",\"model\":");
		add_text(out, t.model);
		buf_printf(out, ",\"status\":%u,\"error\":", t.status);
		add_text(out, t.error);
		buf_printf(out, ",\"ms\":%u,\"cost_nusd\":%lld}", t.ms, (long long)t.cost_nusd);
		comma = ",";
	}
	buf_add_char(out, ']');
}

static void
add_numbers(struct buf *out, const struct record_fixed *f)
{
	char usd[RECORD_USD_BYTES];

	buf_printf(out, ",\"attempts\":%u,\"retries\":%d,\"cache_status\":\"%s\",\"total_ns\":%lld,\"upstream_ns\":%lld,\"first_byte_ns\":%lld,\"overhead_ns\":%lld,"
	    "\"wait_ns\":%lld,\"asked_tokens\":%lld,\"granted_tokens\":%lld",
	    f->attempts, f->retries, record_cache_name(f->cache), (long long)f->total_ns, (long long)f->upstream_ns, (long long)f->first_byte_ns,
	    (long long)f->overhead_ns, (long long)f->wait_ns, (long long)f->asked_tokens, (long long)f->granted_tokens);
	buf_add_str(out, ",\"tokens\":{");
	for (uint32_t i = 0; i < TOKENS_CLASSES; i++)
		buf_printf(out, "%s\"%s\":%lld", i > 0 ? "," : "", token_class_name(i), (long long)f->tokens[i]);
	record_format_usd(f->cost_nusd, usd, sizeof(usd));
	buf_printf(out, "},\"cost_nusd\":%lld,\"cost_usd\":\"%s\",\"held_nusd\":%lld,\"saved_nusd\":%lld,\"request_bytes\":%lld,"
	    "\"response_bytes\":%lld",
	    (long long)f->cost_nusd, usd, (long long)f->held_nusd, (long long)f->saved_nusd, (long long)f->request_bytes,
	    (long long)f->response_bytes);
}

void
record_to_json(const struct record *r, uint64_t id, struct buf *out)
{
	static const char *const names[STRINGS_COUNT] = {
#define X(name) #name,
		RECORD_STRINGS(X)
#undef X
	};
	char time[32];

	clock_format_utc(r->fixed.start_wall_ns, time, sizeof(time));
	buf_printf(out, "{\"id\":\"%llu\",\"time\":\"%s\",\"status\":%u,\"outcome\":\"%s\"", (unsigned long long)id,
	    time, r->fixed.status, record_outcome_name(r->fixed.outcome));
	add_flags(out, r->fixed.flags);
	for (uint32_t i = 0; i < STRINGS_COUNT; i++) {
		if (i == STRING_metadata || i == STRING_tries)
			continue;
		buf_printf(out, ",\"%s\":", i == STRING_route_name ? "route" : names[i]);
		add_text(out, string_get(r, i));
	}
	add_numbers(out, &r->fixed);
	add_tries(out, r->tries);
	buf_add_str(out, ",\"metadata\":");
	buf_add_slice(out, flat_object(r->metadata) ? r->metadata : SLICE("{}"));
	buf_add_char(out, '}');
}
