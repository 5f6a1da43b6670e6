/* shm/base/log.c -- see log.h. */
#include "shm/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/base/buf.h"
#include "shm/base/clock.h"

#define LINE_MAX_BYTES 4096	/* one write(2): lines of several processes never mix */

static char process_name[32] = "weir";
static enum log_level least_level = LOG_INFO;

void
log_set_process(const char *name)
{
	snprintf(process_name, sizeof(process_name), "%s", name);
}

void
log_set_level(enum log_level least)
{
	least_level = least;
}

void
log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	char text[2048], when[32];
	struct buf line;
	va_list args;

	if (level < least_level)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	clock_format_utc(clock_wall_ns(), when, sizeof(when));

	buf_init(&line, LINE_MAX_BYTES * 4);
	buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"process\":\"%s\",\"pid\":%d,\"msg\":",
	    when, names[level], process_name, (int)getpid());
	buf_add_json(&line, slice_of(text));
	buf_add(&line, "}\n", 2);
	if (!line.overflow && write(STDERR_FILENO, line.p, line.n) < 0) {
		/* Nobody reads our log: there is no better place to say so. */
	}
	buf_free(&line);
}
