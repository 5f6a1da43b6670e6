/*
 * upstream/wire/http1.h -- HTTP/1.1 heads and bodies in bounds, by llhttp.
 *
 * One reader for both sides. A head is first collected whole (up to its
 * limit), copied, and then parsed in place, so all its slices point into one
 * piece of the owner's scratch. What llhttp of some versions lets pass (bare
 * LF, obs-fold, an empty header name) is refused with all of them. Body bytes are handed on
 * as spans of the caller's buffer, never copied. Anything ambiguous is an
 * error: both Content-Length and Transfer-Encoding, two lengths, bad chunk
 * sizes, a space before the colon (RFC 9112, sections 5 and 6).
 */
#ifndef WEIR_UPSTREAM_WIRE_HTTP1_H
#define WEIR_UPSTREAM_WIRE_HTTP1_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/buf.h"
#include "shm/base/scratch.h"
#include "shm/base/slice.h"
#include "shm/limits.h"

struct http1_header { struct slice name, value; };	/* name in lower case */

struct http1_head {
	struct slice method, target;	/* request */
	int status;			/* response */
	uint32_t headers_count;
	struct http1_header *headers;	/* in the scratch, in order */
	int64_t content_length;		/* -1: none */
	bool chunked;
	bool keep_alive;		/* the connection may be used again */
	bool expect_continue;
	bool upgrade;
	bool options;			/* Connection names more than close or keep-alive */
	uint8_t minor;			/* HTTP/1.<minor> */
};

enum http1_event {
	HTTP1_MORE,		/* all bytes taken; feed more */
	HTTP1_HEAD,		/* head complete: h->head is valid */
	HTTP1_BODY,		/* h->span: body bytes, in the caller's buffer */
	HTTP1_DONE,		/* message complete; *input is what follows it */
	HTTP1_ERROR,		/* h->error, h->error_status */
};

struct http1 {
	llhttp_t parser;
	bool response, head_request;
	bool message_done;	/* the last chunk has been read */
	uint8_t state;
	struct scratch *mem;
	struct buf partial;	/* a head that has not come whole */
	uint32_t head_max;
	uint32_t start, line;	/* of the head, and of its first unfinished line */
	uint32_t lines;		/* finished ones */
	uint8_t hosts, codings;	/* Host and Transfer-Encoding headers; more than one is an error */
	bool says_close, says_keep;	/* Connection */
	uint32_t overhead;	/* chunk framing bytes since the last body byte */
	uint64_t body_left;	/* of a body of known length */
	struct http1_head head;
	struct slice span;
	const char *error;	/* static text for people */
	int error_status;	/* 400, 431, 505, 501: for the answer to a request */
};

void http1_init(struct http1 *h, bool response, uint32_t head_max);
	/* Makes no allocation. */
void http1_begin(struct http1 *h, struct scratch *mem, bool head_request);
	/* Before each message. `mem` gets the head. head_request: the response
	 * to HEAD has no body whatever its headers say. */
enum http1_event http1_feed(struct http1 *h, struct slice *input);
	/*
	 * Takes from the front of *input and returns at each event; call again
	 * while it returns HEAD or BODY, or input is left. On DONE, *input is what
	 * follows the message (the next pipelined request).
	 */
enum http1_event http1_eof(struct http1 *h);
	/* The peer ended: DONE for a response that ends with the connection,
	 * MORE between messages, ERROR in the middle of one. */
void http1_free(struct http1 *h);

struct slice http1_find_name(const struct http1_head *head, struct slice name);
static inline struct slice
http1_find(const struct http1_head *head, const char *name)
{
	/* First header of that lower-case name; none if absent. */
	return http1_find_name(head, slice_of(name));
}

bool http1_option(const struct http1_head *head, struct slice name);
static inline bool
http1_connection_names(const struct http1_head *head, struct slice name)
{
	/* Connection names this header: it is between us and the peer. */
	return head->options && http1_option(head, name);
}

bool http1_hop_by_hop(const struct http1_head *head, struct slice name);
	/* connection, keep-alive, proxy-*, te, trailer, transfer-encoding,
	 * upgrade, and what Connection names. */
const char *http1_reason(int status);

#endif
