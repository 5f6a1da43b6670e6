/*
 * upstream/wire/acked.h -- how much of what was sent the peer's kernel has taken.
 */
#ifndef WEIR_UPSTREAM_WIRE_ACKED_H
#define WEIR_UPSTREAM_WIRE_ACKED_H

#include <stdint.h>

int64_t socket_acked_bytes(int fd);
	/* Bytes of this TCP connection that were acknowledged since it began;
	 * -1 if the kernel does not say. */

#endif
