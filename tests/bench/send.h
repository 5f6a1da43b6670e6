/*
 * tests/bench/send.h -- writing to a socket at the price of one system call.
 *
 * Both ends of the bench share it: what the socket does not take at once is
 * copied and queued, so the caller's bytes need not live longer than the call.
 */
#ifndef WEIR_TESTS_BENCH_SEND_H
#define WEIR_TESTS_BENCH_SEND_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

bool send_bytes(uv_stream_t *stream, const char *bytes, size_t size);
	/* False: the connection is broken; close it. */

#endif
