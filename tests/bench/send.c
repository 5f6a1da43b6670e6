/*
 * tests/bench/send.c -- try the socket first, queue the rest.
 *
 * libuv's uv_try_write() refuses while a queue exists, so order holds without
 * any state of ours. A queued piece is one allocation, freed by its callback.
 */
#include "tests/bench/send.h"

#include <stdlib.h>
#include <string.h>

struct queued {
	uv_write_t req;
	char bytes[];
};

static void
on_written(uv_write_t *req, int status)
{
	(void)status;	/* a broken connection also ends its reads, which close it */
	free(req->data);
}

bool
send_bytes(uv_stream_t *stream, const char *bytes, size_t size)
{
	uv_buf_t buf = { .base = (char *)(uintptr_t)bytes, .len = size };
	int sent = uv_try_write(stream, &buf, 1);
	if (sent < 0 && sent != UV_EAGAIN)
		return false;
	size_t done = sent < 0 ? 0 : (size_t)sent;
	if (done == size)
		return true;
	struct queued *rest = malloc(sizeof(*rest) + size - done);
	if (rest == NULL)
		return false;
	memcpy(rest->bytes, bytes + done, size - done);
	rest->req.data = rest;
	buf = uv_buf_init(rest->bytes, (unsigned int)(size - done));
	if (uv_write(&rest->req, stream, &buf, 1, on_written) == 0)
		return true;
	free(rest);
	return false;
}
