/*
 * upstream/wire/acked.c -- see acked.h.
 *
 * A file of its own, because the kernel's struct tcp_info and the C library's
 * shorter one cannot be included together.
 */
#include "upstream/wire/acked.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

int64_t
socket_acked_bytes(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0 ||
	    n < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
		return -1;
	/* The SYN counts as one. */
	return info.tcpi_bytes_acked > 0 ? (int64_t)info.tcpi_bytes_acked - 1 : 0;
}
