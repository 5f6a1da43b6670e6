/* shm/base/clock.c -- see clock.h. */
#include "shm/base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID_BYTES 36

static int64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t
clock_mono_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t
clock_wall_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

bool
clock_boot_id(char out[CLOCK_BOOT_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, BOOT_ID_BYTES);

	if (fd >= 0)
		close(fd);
	memset(out + BOOT_ID_BYTES, 0, CLOCK_BOOT_BYTES - BOOT_ID_BYTES);
	return n == BOOT_ID_BYTES;
}

void
clock_format_utc(int64_t wall_ns, char *out, size_t size)
{
	time_t s = (time_t)(wall_ns / NS_PER_S);
	struct tm tm;
	char date[24];

	gmtime_r(&s, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, size, "%s.%03dZ", date, (int)(wall_ns % NS_PER_S / NS_PER_MS));
}

/* `digits` digits at *at, within bounds; moves *at behind them. */
static bool
number(struct slice s, size_t *at, size_t digits, int least, int most, int *out)
{
	int value = 0;

	if (s.n - *at < digits)
		return false;
	for (size_t i = 0; i < digits; i++, (*at)++) {
		if (s.p[*at] < '0' || s.p[*at] > '9')
			return false;
		value = value * 10 + (s.p[*at] - '0');
	}
	*out = value;
	return value >= least && value <= most;
}

static bool
literal(struct slice s, size_t *at, char c)
{
	if (*at >= s.n || s.p[*at] != c)
		return false;
	(*at)++;
	return true;
}

/* ".042" in nanoseconds; what is finer is dropped. No point: 0. */
static bool
fraction(struct slice s, size_t *at, int64_t *ns)
{
	int64_t unit = NS_PER_S / 10;
	size_t first;

	*ns = 0;
	if (!literal(s, at, '.'))
		return true;
	for (first = *at; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9'; (*at)++, unit /= 10)
		*ns += unit * (s.p[*at] - '0');
	return *at > first;
}

/* "Z", "+01:00": seconds east of UTC. */
static bool
offset(struct slice s, size_t *at, int64_t *east)
{
	int hours, minutes, sign;

	*east = 0;
	if (literal(s, at, 'Z') || literal(s, at, 'z'))
		return true;
	sign = literal(s, at, '-') ? -1 : 1;
	if (sign > 0 && !literal(s, at, '+'))
		return false;
	if (!number(s, at, 2, 0, 23, &hours) || !literal(s, at, ':') || !number(s, at, 2, 0, 59, &minutes))
		return false;
	*east = sign * (hours * 3600 + minutes * 60);
	return true;
}

bool
clock_parse_utc(struct slice text, int64_t *wall_ns)
{
	struct tm tm = { 0 }, normal;
	int64_t ns, east;
	size_t at = 0;
	time_t seconds;

	if (!number(text, &at, 4, 1970, 2261, &tm.tm_year) || !literal(text, &at, '-') ||
	    !number(text, &at, 2, 1, 12, &tm.tm_mon) || !literal(text, &at, '-') ||
	    !number(text, &at, 2, 1, 31, &tm.tm_mday))
		return false;
	if (!literal(text, &at, 'T') && !literal(text, &at, 't') && !literal(text, &at, ' '))
		return false;
	if (!number(text, &at, 2, 0, 23, &tm.tm_hour) || !literal(text, &at, ':') ||
	    !number(text, &at, 2, 0, 59, &tm.tm_min) || !literal(text, &at, ':') ||
	    !number(text, &at, 2, 0, 60, &tm.tm_sec))	/* 60: a leap second */
		return false;
	if (!fraction(text, &at, &ns) || !offset(text, &at, &east) || at != text.n)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	normal = tm;
	seconds = timegm(&normal);
	/* timegm() makes 1 March of 30 February. */
	if (normal.tm_mon != tm.tm_mon && tm.tm_mday > 28)
		return false;
	seconds -= east;
	if (seconds < 0)
		return false;
	*wall_ns = (int64_t)seconds * NS_PER_S + ns;
	return true;
}
