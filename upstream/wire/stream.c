/*
 * upstream/wire/stream.c -- see stream.h.
 *
 * Writing: uv_try_write() first, so that an answer costs one system call and
 * no allocation. What the kernel does not take is copied to `writing` and goes
 * by uv_write() in slices; what comes meanwhile waits in `queue`. Both buffers
 * are freed when they run empty.
 *
 * Failures of writing are never reported inside a write. Where libuv has a
 * request in flight its callback tells; where it has not, stream_break() shuts
 * the socket down, and the read side wakes up and finds `broken`.
 *
 * With TLS one read of the socket is decrypted whole before its plaintext is
 * handed on, in one on_data: nothing decrypted is ever held back by a pause.
 */
#include "upstream/wire/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include "shm/limits.h"
#include "upstream/wire/tls.h"

#define IOV_AT_ONCE 64			/* pieces in one writev(); more take a second one */
#define WRITE_SLICE (128u << 10)	/* so that a slow reader's progress can be seen */
#define QUEUE_BYTES_MAX (256u << 20)	/* above any body that the settings allow */
#define CIPHER_KEPT_MAX (256u << 10)	/* of the shared buffer, between writes */

static void flush_queue(struct stream *s);

/* One of each a process: the loop runs one callback at a time. */
static char read_buffer[HTTP_READ_BYTES];
static struct buf cipher;

static void
process_init(void)
{
	static bool over;

	if (over)
		return;
	over = true;
	buf_init(&cipher, QUEUE_BYTES_MAX);
	signal(SIGPIPE, SIG_IGN);
}

static void
stream_init(struct stream *s, uv_loop_t *loop, const struct stream_callbacks *cb, void *owner)
{
	process_init();
	*s = (struct stream){ .cb = cb, .owner = owner };
	buf_init(&s->queue, QUEUE_BYTES_MAX);
	buf_init(&s->writing, QUEUE_BYTES_MAX);
	CHECK(uv_tcp_init(loop, &s->tcp) == 0);
	s->tcp.data = s;
}

/* ---- the end ---- */

static void
end(struct stream *s, int error, const char *text)
{
	if (s->ended || s->closing)
		return;
	s->ended = true;
	if (s->reading) {
		s->reading = false;
		uv_read_stop((uv_stream_t *)&s->tcp);
	}
	if (s->broken)	/* the cause, rather than what it led to */
		text = s->broken == STREAM_E_TLS ? tls_error(s->tls) : uv_strerror(s->broken);
	else
		s->broken = error;
	s->cb->on_end(s, s->broken, text);
}

static void on_read(uv_stream_t *tcp, ssize_t nread, const uv_buf_t *b);

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b)
{
	(void)handle, (void)suggested;
	*b = uv_buf_init(read_buffer, sizeof(read_buffer));
}

static int
start_reading(struct stream *s)
{
	if (s->reading || s->ended)
		return 0;
	int e = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
	s->reading = e == 0;
	return e;
}

/* Writing has failed where no request of libuv is in flight to say so. */
static void
stream_break(struct stream *s, int error)
{
	uv_os_fd_t fd;

	if (s->broken)
		return;
	s->broken = error;
	buf_free(&s->queue);
	if (uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0)
		shutdown(fd, SHUT_RDWR);
	/* A socket that libuv knows to be dead is told of by its own callback. */
	(void)start_reading(s);
}

/* ---- writing ---- */

static void
finish_shutdown(struct stream *s)
{
	uv_os_fd_t fd;

	if (s->shut_done || s->write_busy)
		return;
	s->shut_done = true;
	/* Not uv_shutdown(): nothing is queued, and a reset stays possible. */
	if (uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0)
		shutdown(fd, SHUT_WR);
}

static void
on_written(uv_write_t *req, int status)
{
	struct stream *s = req->handle->data;

	s->write_busy = false;
	if (s->closing)
		return;
	if (status < 0) {
		buf_free(&s->queue);
		buf_free(&s->writing);
		if (!s->broken)
			s->broken = status;
		end(s, s->broken, uv_strerror(s->broken));
		return;
	}
	s->writing_done += s->write_size;
	s->bytes_written += s->write_size;
	flush_queue(s);
	if (s->closing || s->write_busy)
		return;
	if (s->shut)
		finish_shutdown(s);
	if (s->drain_wanted && !s->broken) {
		s->drain_wanted = false;
		s->cb->on_drain(s);
	}
}

/* Gives the next slice of what waits to libuv; frees what is empty. */
static void
flush_queue(struct stream *s)
{
	if (s->write_busy)
		return;
	if (s->writing_done == s->writing.n) {
		struct buf empty = s->writing;

		s->writing = s->queue;
		s->queue = empty;
		s->writing_done = 0;
		buf_free(&s->queue);
		if (s->writing.n == 0) {
			buf_free(&s->writing);
			return;
		}
	}
	s->write_size = s->writing.n - s->writing_done;
	if (s->write_size > WRITE_SLICE)
		s->write_size = WRITE_SLICE;
	uv_buf_t b = uv_buf_init(s->writing.p + s->writing_done, (unsigned)s->write_size);
	int e = uv_write(&s->req.write, (uv_stream_t *)&s->tcp, &b, 1, on_written);
	if (e != 0)
		stream_break(s, e);
	else
		s->write_busy = true;
}

static size_t
queued(const struct stream *s)
{
	return s->queue.n + s->writing.n - s->writing_done;
}

/* As many bytes as the kernel takes now. */
static size_t
try_write(struct stream *s, const struct slice *pieces, size_t n)
{
	size_t total = 0;

	while (n > 0) {
		uv_buf_t bufs[IOV_AT_ONCE];
		unsigned count = 0;
		size_t bytes = 0;

		for (; n > 0 && count < IOV_AT_ONCE; pieces++, n--) {
			if (pieces->n == 0)
				continue;
			bufs[count++] = (uv_buf_t){ .base = (char *)pieces->p, .len = pieces->n };
			bytes += pieces->n;
		}
		if (count == 0)
			break;
		int sent = uv_try_write((uv_stream_t *)&s->tcp, bufs, count);
		if (sent > 0)
			total += (size_t)sent;
		if (sent < 0 || (size_t)sent < bytes)
			break;
	}
	s->bytes_written += total;
	return total;
}

/* Bytes as they go over the wire. An error of the first try is not looked at:
 * the queued write meets it again, and reports it from the loop. */
static void
write_raw(struct stream *s, const struct slice *pieces, size_t n)
{
	size_t sent = s->write_busy ? 0 : try_write(s, pieces, n);

	for (size_t i = 0; i < n; i++) {
		size_t skip = sent < pieces[i].n ? sent : pieces[i].n;

		sent -= skip;
		buf_add(&s->queue, pieces[i].p + skip, pieces[i].n - skip);
	}
	if (s->queue.overflow)
		stream_break(s, UV_ENOBUFS);
	else if (s->queue.n > 0)
		flush_queue(s);
}

static void
write_buf(struct stream *s, struct buf *b)
{
	struct slice all = buf_slice(b);

	if (b->overflow)
		stream_break(s, UV_ENOBUFS);
	else if (b->n > 0)
		write_raw(s, &all, 1);
}

size_t
stream_writev(struct stream *s, const struct slice *pieces, size_t n)
{
	CHECK(s->open || s->ended || s->closing || s->broken);
	if (s->closing || s->broken || s->shut || !s->open)
		return 0;
	if (!s->tls) {
		write_raw(s, pieces, n);
	} else {
		if (tls_write(s->tls, pieces, n, &cipher) != 0)
			stream_break(s, STREAM_E_TLS);
		else
			write_buf(s, &cipher);
		if (cipher.cap > CIPHER_KEPT_MAX)
			buf_free(&cipher);
		buf_clear(&cipher);
	}
	if (s->broken)
		return 0;
	s->drain_wanted = s->drain_wanted || queued(s) > 0;
	return queued(s);
}

/* ---- reading ---- */

static void
opened(struct stream *s)
{
	s->open = true;
	s->cb->on_open(s);
}

static void
note_plain(void *arg, const char *p, size_t n)
{
	*(struct slice *)arg = (struct slice){ p, n };
}

static void
after_tls(struct stream *s, enum tls_state state, struct buf *out, struct slice plain)
{
	write_buf(s, out);	/* before any answer to the plaintext */
	buf_free(out);
	if (!s->open && (state == TLS_OPEN || state == TLS_CLOSED) && !s->broken)
		opened(s);
	if (plain.n > 0 && !s->closing && !s->broken)
		s->cb->on_data(s, plain.p, plain.n);
	if (state == TLS_CLOSED)
		end(s, 0, "");
	else if (state == TLS_FAILED)
		end(s, STREAM_E_TLS, tls_error(s->tls));
}

static void
read_cipher(struct stream *s, const char *p, size_t n)
{
	struct slice plain = SLICE_NONE;
	struct buf out;

	buf_init(&out, QUEUE_BYTES_MAX);
	enum tls_state state = tls_feed(s->tls, p, n, &out, note_plain, &plain);
	after_tls(s, state, &out, plain);
}

/* libuv takes a reset that comes together with the last bytes for an end. */
static int
what_ended(const struct stream *s)
{
	uv_os_fd_t fd;
	int error = 0;
	socklen_t size = sizeof(error);

	if (uv_fileno((const uv_handle_t *)&s->tcp, &fd) == 0 &&
	    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0)
		return uv_translate_sys_error(error);
	return UV_EOF;
}

static void
on_read(uv_stream_t *tcp, ssize_t nread, const uv_buf_t *b)
{
	struct stream *s = tcp->data;

	if (nread == 0)
		return;		/* EAGAIN */
	if (nread == UV_EOF)
		nread = what_ended(s);
	if (nread == UV_EOF && s->tls)
		end(s, STREAM_E_TLS, s->open ? "the connection ended without a TLS close"
		    : "the connection ended during the TLS handshake");
	else if (nread < 0)
		end(s, nread == UV_EOF ? 0 : (int)nread, nread == UV_EOF ? "" : uv_strerror((int)nread));
	if (nread < 0 || s->broken)
		return;
	s->bytes_read += (uint64_t)nread;
	if (s->tls)
		read_cipher(s, b->base, (size_t)nread);
	else
		s->cb->on_data(s, b->base, (size_t)nread);
}

void
stream_pause(struct stream *s)
{
	s->paused = true;
	if (s->reading && !s->broken) {
		s->reading = false;
		uv_read_stop((uv_stream_t *)&s->tcp);
	}
}

void
stream_resume(struct stream *s)
{
	if (!s->paused)
		return;
	s->paused = false;
	if (s->closing || s->ended)
		return;
	int e = start_reading(s);
	if (e != 0)
		stream_break(s, e);
}

/* ---- beginning ---- */

int
stream_accept(struct stream *s, uv_stream_t *listener, struct tls_context *tls,
    const struct stream_callbacks *cb, void *owner)
{
	int e;

	stream_init(s, listener->loop, cb, owner);
	if ((e = uv_accept(listener, (uv_stream_t *)&s->tcp)) != 0)
		return e;
	uv_tcp_nodelay(&s->tcp, 1);	/* a speed-up: without it we work too */
	if (tls && !(s->tls = tls_new(tls, NULL)))
		return UV_ENOMEM;
	if ((e = start_reading(s)) != 0)
		return e;
	if (!tls)
		opened(s);
	return 0;
}

static void
on_connected(uv_connect_t *req, int status)
{
	struct stream *s = req->handle->data;

	if (s->closing)
		return;
	if (status < 0) {
		end(s, status, uv_strerror(status));
		return;
	}
	uv_tcp_nodelay(&s->tcp, 1);
	if (!s->paused && (status = start_reading(s)) != 0) {
		end(s, status, uv_strerror(status));
		return;
	}
	if (!s->tls) {
		opened(s);
		return;
	}
	struct buf out;

	buf_init(&out, QUEUE_BYTES_MAX);
	enum tls_state state = tls_start(s->tls, &out);
	after_tls(s, state, &out, SLICE_NONE);
}

int
stream_connect(struct stream *s, uv_loop_t *loop, const struct sockaddr *to, struct tls_context *tls,
    const char *host, const struct stream_callbacks *cb, void *owner)
{
	stream_init(s, loop, cb, owner);
	if (tls && !(s->tls = tls_new(tls, host)))
		return UV_ENOMEM;
	return uv_tcp_connect(&s->req.connect, &s->tcp, to, on_connected);
}

int
stream_secure(struct stream *s, struct tls_context *tls, const char *host)
{
	struct buf out;

	CHECK(s->open && !s->tls && queued(s) == 0);
	if (!(s->tls = tls_new(tls, host)))
		return UV_ENOMEM;
	s->open = false;
	buf_init(&out, QUEUE_BYTES_MAX);
	if (tls_start(s->tls, &out) == TLS_FAILED)
		stream_break(s, STREAM_E_TLS);
	else
		write_buf(s, &out);
	buf_free(&out);
	return 0;
}

/* ---- closing ---- */

void
stream_shutdown(struct stream *s)
{
	struct buf out;

	if (s->shut || s->closing || s->broken)
		return;
	if (s->tls && s->open) {
		buf_init(&out, QUEUE_BYTES_MAX);
		tls_close_notify(s->tls, &out);
		write_buf(s, &out);
		buf_free(&out);
	}
	s->shut = true;
	finish_shutdown(s);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	struct stream *s = handle->data;

	buf_free(&s->queue);
	buf_free(&s->writing);
	tls_free(s->tls);
	s->tls = NULL;
	s->cb->on_closed(s);
}

void
stream_close(struct stream *s)
{
	if (s->closing)
		return;
	/* Best effort: a TLS peer can tell our end from a cut. */
	if (s->tls && s->open && !s->broken && !s->shut && !s->write_busy)
		stream_shutdown(s);
	s->closing = true;
	uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
}

void
stream_reset(struct stream *s)
{
	if (s->closing)
		return;
	s->closing = true;
	if (uv_tcp_close_reset(&s->tcp, on_handle_closed) != 0)
		uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
}

bool
stream_peer_name(const struct stream *s, char *out, size_t size)
{
	struct sockaddr_storage peer;
	int length = sizeof(peer);
	const char *text;

	if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&peer, &length) != 0)
		return false;
	if (peer.ss_family == AF_INET6) {
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&peer)->sin6_addr;

		if (IN6_IS_ADDR_V4MAPPED(v6))
			text = inet_ntop(AF_INET, v6->s6_addr + 12, out, (socklen_t)size);
		else
			text = inet_ntop(AF_INET6, v6, out, (socklen_t)size);
	} else {
		text = inet_ntop(AF_INET, &((const struct sockaddr_in *)&peer)->sin_addr, out, (socklen_t)size);
	}
	return text != NULL;
}
