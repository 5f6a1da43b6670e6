/* gateway/tool_text.c -- see tool_text.h. */
#include "gateway/tool_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shm/base/clock.h"
#include "store/record.h"

/* ---- columns ---- */

static void
add_safe(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i], next = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;

		/* U+0080 to U+009F are controls that terminals obey too. */
		if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
			c = '?';
			i++;
		}
		buf_add_char(out, c < 0x20 || c == 0x7f ? '?' : (char)c);
	}
}

static bool
begins_character(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

void
tool_cell(struct buf *out, struct slice s, size_t width)
{
	size_t n = 0, columns = 0;

	/* A column a character: right for most names, and never too much text. */
	for (; n < s.n; n++) {
		if (!begins_character(s.p[n]))
			continue;
		if (columns == width)
			break;
		columns++;
	}
	add_safe(out, (struct slice){ s.p, n });
	if (n == 0) {
		buf_add_char(out, '-');
		columns = 1;
	}
	buf_printf(out, "%*s", (int)(width > columns ? width - columns : 0) + 1, "");
}

void
tool_words(struct buf *out, struct slice s)
{
	if (s.n == 0)
		buf_add_char(out, '-');
	add_safe(out, s);
}

void
tool_number(struct buf *out, const char *text, size_t width)
{
	buf_printf(out, "%*s ", (int)width, text);
}

/* ---- values ---- */

const char *
tool_amount(enum meter_unit unit, int64_t amount, char out[TOOL_AMOUNT_BYTES])
{
	char usd[RECORD_USD_BYTES];
	size_t n;

	if (unit != UNIT_NUSD) {
		snprintf(out, TOOL_AMOUNT_BYTES, "%" PRId64, amount);
		return out;
	}
	record_format_usd(amount, usd, sizeof(usd));
	for (n = strlen(usd); usd[n - 1] == '0' && usd[n - 3] != '.'; n--)
		usd[n - 1] = '\0';
	if (usd[0] == '-')
		snprintf(out, TOOL_AMOUNT_BYTES, "-$%s", usd + 1);
	else
		snprintf(out, TOOL_AMOUNT_BYTES, "$%s", usd);
	return out;
}

const char *
tool_duration(int64_t ns, char out[TOOL_TIME_BYTES])
{
	static const struct { int64_t seconds; char large, small; int64_t small_seconds; } steps[] = {
		{ 86400, 'd', 'h', 3600 }, { 3600, 'h', 'm', 60 }, { 60, 'm', 's', 1 },
	};
	int64_t seconds;

	if (ns < 0)
		ns = 0;
	seconds = ns / NS_PER_S;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		int64_t rest = seconds % steps[i].seconds / steps[i].small_seconds;

		if (seconds < steps[i].seconds)
			continue;
		if (rest)
			snprintf(out, TOOL_TIME_BYTES, "%" PRId64 "%c%" PRId64 "%c", seconds / steps[i].seconds,
			    steps[i].large, rest, steps[i].small);
		else
			snprintf(out, TOOL_TIME_BYTES, "%" PRId64 "%c", seconds / steps[i].seconds, steps[i].large);
		return out;
	}
	if (ns % NS_PER_S == 0)
		snprintf(out, TOOL_TIME_BYTES, "%" PRId64 "s", seconds);
	else if (seconds > 0)
		snprintf(out, TOOL_TIME_BYTES, "%" PRId64 ".%" PRId64 "s", seconds, ns % NS_PER_S / (100 * NS_PER_MS));
	else
		snprintf(out, TOOL_TIME_BYTES, "%" PRId64 "ms", (ns + NS_PER_MS - 1) / NS_PER_MS);
	return out;
}

const char *
tool_time(int64_t wall_ns, char out[TOOL_TIME_BYTES])
{
	clock_format_utc(wall_ns, out, TOOL_TIME_BYTES);
	snprintf(out + strcspn(out, "."), 2, "Z");
	return out;
}

const char *
tool_id(struct meter_id id, char out[TOOL_ID_BYTES])
{
	snprintf(out, TOOL_ID_BYTES, "%016" PRIx64 "%016" PRIx64, id.hi, id.lo);
	return out;
}

static bool
hex_value(const char *text, uint64_t *out)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";

	*out = 0;
	for (int i = 0; i < 16; i++) {
		const char *at = memchr(digits, text[i], sizeof(digits) - 1);

		if (!at)
			return false;
		*out = *out << 4 | (uint64_t)((at - digits) % 16);
	}
	return true;
}

bool
tool_id_parse(const char *text, struct meter_id *id)
{
	return strlen(text) == TOOL_ID_BYTES - 1 && hex_value(text, &id->hi) && hex_value(text + 16, &id->lo);
}

int
tool_printed(const char *command)
{
	/* `weir limits | head` has what it wanted. */
	if (fflush(stdout) == 0 || errno == EPIPE)
		return 0;
	fprintf(stderr, "weir: %s: cannot write the output: %s\n", command, strerror(errno));
	return 1;
}
