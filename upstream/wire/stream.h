/*
 * upstream/wire/stream.h -- one TCP connection, plain or TLS, on a libuv loop.
 *
 * Used for both sides of the proxy. The owner embeds struct stream, sets the
 * callbacks, and never sees ciphertext. Reading uses one buffer a process
 * (the bytes given to on_data are valid only in the call); writing is tried at
 * once and only what the kernel does not take is copied and queued, so that an
 * idle connection holds no buffers.
 *
 * Life: stream_accept() or stream_connect() -> on_open -> on_data ... ->
 * on_end (peer finished or failed) -> stream_close() by the owner -> on_closed:
 * only then may the memory go. stream_close() may be called at any time, also
 * inside callbacks; no callback but on_closed follows it.
 *
 * A peer that is gone shows as an error, never as a signal: the first stream
 * of a process makes it ignore SIGPIPE.
 */
#ifndef WEIR_UPSTREAM_WIRE_STREAM_H
#define WEIR_UPSTREAM_WIRE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "shm/base/buf.h"
#include "shm/base/slice.h"

struct stream;
struct tls_context;	/* upstream/wire/tls.h */
struct tls;

struct stream_callbacks {
	void (*on_open)(struct stream *s);
		/* Connected, and the TLS handshake is done. */
	void (*on_data)(struct stream *s, const char *p, size_t n);
		/* All that one read of the socket gave, also with TLS. */
	void (*on_end)(struct stream *s, int error, const char *text);
		/* 0: orderly end of the peer's bytes, and we may still write;
		 * else a UV_E* code, or STREAM_E_TLS with words for people.
		 * Once, and never inside a call of ours. */
	void (*on_drain)(struct stream *s);
		/* The queue that stream_writev() had reported is empty. */
	void (*on_closed)(struct stream *s);
};

#define STREAM_E_TLS (-100001)

struct stream {
	uv_tcp_t tcp;
	const struct stream_callbacks *cb;
	void *owner;
	struct tls *tls;		/* NULL: plain */
	union {				/* a stream connects before it writes */
		uv_connect_t connect;
		uv_write_t write;
	} req;
	struct buf queue;		/* bytes that wait for the socket ... */
	struct buf writing;		/* ... and those that are being written */
	size_t writing_done;		/* of `writing`, taken by the kernel */
	size_t write_size;		/* of the write in flight */
	int broken;			/* writing failed: what on_end will say */
	bool write_busy, open, reading, paused, ended, closing;
	bool shut;			/* nothing is to be sent any more ... */
	bool shut_done;			/* ... and the FIN is out */
	bool drain_wanted;		/* stream_writev() has reported a queue */
	uint64_t bytes_read, bytes_written;	/* on the wire */
};

int stream_accept(struct stream *s, uv_stream_t *listener, struct tls_context *tls,
    const struct stream_callbacks *cb, void *owner) MUST_CHECK;
	/* TCP_NODELAY; starts reading and, with tls, the handshake. UV error or 0.
	 * Without tls on_open comes inside this call. After an error, too, the
	 * owner calls stream_close() and waits for on_closed. */
int stream_connect(struct stream *s, uv_loop_t *loop, const struct sockaddr *to,
    struct tls_context *tls, const char *host, const struct stream_callbacks *cb,
    void *owner) MUST_CHECK;
	/* `host` for SNI and verification; tls may be NULL. Errors of the
	 * attempt itself arrive by on_end; after an error that comes back at
	 * once, too, the owner closes. */
int stream_secure(struct stream *s, struct tls_context *tls, const char *host) MUST_CHECK;
	/* An open plain stream becomes a TLS client: on_open comes once more,
	 * after the handshake. UV_ENOMEM or 0. */

size_t stream_writev(struct stream *s, const struct slice *pieces, size_t n);
	/* Only between on_open and the end. Bytes that are queued afterwards: 0
	 * means all went out. Beyond STREAM_QUEUE_HIGH the caller should stop
	 * its source until on_drain. After a write error on_end follows, from
	 * the loop (none, if the peer's end had been told); the bytes are dropped. */
static inline size_t
stream_write(struct stream *s, struct slice piece)
{
	return stream_writev(s, &piece, 1);
}
#define STREAM_QUEUE_HIGH 65536

void stream_pause(struct stream *s);
	/* Stop reading: back-pressure. No on_data comes until stream_resume();
	 * an end of the connection may go unnoticed for as long. */
void stream_resume(struct stream *s);
void stream_shutdown(struct stream *s);
	/* Orderly end of our bytes (close_notify, FIN) after what is queued;
	 * reading goes on. */
void stream_close(struct stream *s);
	/* At once: what is still queued is lost. */
void stream_reset(struct stream *s);
	/* Close with RST: what we say when a peer must not take what it has
	 * got for a complete answer. */
bool stream_peer_name(const struct stream *s, char *out, size_t size);
	/* Numeric address of the peer, without the port. */

#endif
