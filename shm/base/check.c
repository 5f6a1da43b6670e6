/* shm/base/check.c -- see check.h. */
#include "shm/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
check_failed(const char *what, const char *file, int line)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "weir: bug: %s:%d: %s\n", file, line, what);

	if (n > 0) {
		size_t len = (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
		if (write(STDERR_FILENO, text, len) < 0)
			abort();
	}
	abort();
}
