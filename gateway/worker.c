/*
 * gateway/worker.c -- see worker.h: one loop, its listeners, its tick.
 */
#include "gateway/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "gateway/admission.h"
#include "gateway/channel.h"
#include "gateway/client.h"
#include "gateway/health_watch.h"
#include "gateway/master.h"
#include "gateway/request.h"
#include "shm/base/log.h"
#include "shm/metrics.h"

#define TICK_MS 100
#define HEARTBEAT_MS 1000
#define LINGER_MS 5000		/* a client that does not close after our FIN */
#define BACKLOG 4096
#define KEYS_CACHED_MAX 65536
#define GROUPS_KEPT_MAX 16384	/* of policies: about 5 MB, touched as they come */
#define DUE_PER_TICK 4096	/* things expired in one tick: the rest waits for the next */

/* ---- settings ---- */

static void
apply_timeouts(struct worker *w)
{
	const struct settings *s = w->plane->settings;

	w->idle.timeout_ms = s->limit.idle_ms;
	w->head.timeout_ms = s->limit.head_ms;
	w->body.timeout_ms = s->limit.body_ms;
	w->stall.timeout_ms = s->limit.stream_idle_ms;
	w->quiet.timeout_ms = s->limit.ping_ms;
	w->counting.timeout_ms = s->count_ms;
	w->linger.timeout_ms = LINGER_MS;
}

/* ---- accepting ---- */

static bool
may_accept(const struct worker *w)
{
	return !worker_intake_paused(w) && w->clients < w->plane->settings->limit.connections;
}

/* A connection that is not taken stays in the kernel's queue, and libuv stops
 * watching the listener until it is: that is how intake slows down. */
static void
on_connection(uv_stream_t *stream, int status)
{
	struct listener *l = stream->data;

	if (status < 0) {
		log_warn("accept: %s", uv_strerror(status));
		return;
	}
	if (may_accept(l->worker))
		client_accept(l);
	else
		l->waiting = true;
}

static void
accept_waiting(struct worker *w)
{
	for (uint32_t i = 0; i < w->listeners_count && may_accept(w); i++) {
		if (w->listeners[i].waiting) {
			w->listeners[i].waiting = false;
			client_accept(&w->listeners[i]);
		}
	}
}

static bool
open_listeners(struct worker *w, const struct worker_boot *boot)
{
	w->listeners_count = boot->listeners_count;
	w->listeners = calloc(w->listeners_count + 1, sizeof(*w->listeners));
	if (!w->listeners)
		return false;
	for (uint32_t i = 0; i < w->listeners_count; i++) {
		struct listener *l = &w->listeners[i];
		int e;

		l->worker = w;
		l->tls = boot->listeners[i].tls;
		l->tcp.data = l;
		if ((e = uv_tcp_init(&w->loop, &l->tcp)) != 0 || (e = uv_tcp_open(&l->tcp, boot->listen_fds[i])) != 0 ||
		    (e = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, on_connection)) != 0) {
			log_error("listener %u: %s", i, uv_strerror(e));
			return false;
		}
	}
	return true;
}

/* ---- stopping ---- */

static void
close_handle(uv_handle_t *h)
{
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

static void
stop_when_empty(struct worker *w)
{
	if (!w->draining || w->clients > 0 || w->unsettled)
		return;
	close_handle((uv_handle_t *)&w->tick);
	close_handle((uv_handle_t *)&w->on_term);
	close_handle((uv_handle_t *)&w->control);
	admission_close(w);
	if (w->cache)
		cache_desk_stop(w->cache);
	if (w->upstream)
		upstream_free(w->upstream);
	w->upstream = NULL;
}

static void
drain(struct worker *w)
{
	if (w->draining)
		return;
	w->draining = true;
	log_info("draining: %u connections are open", w->clients);
	for (uint32_t i = 0; i < w->listeners_count; i++)
		close_handle((uv_handle_t *)&w->listeners[i].tcp);
	for (struct timepoint *p = w->idle.ends.next, *next; p != &w->idle.ends; p = next) {
		next = p->next;
		client_drain(CONTAINER_OF(p, struct client, deadline));
	}
	stop_when_empty(w);
}

void
worker_client_closed(struct worker *w)
{
	w->clients--;
	metrics_connections(w->arena, w->index, w->clients);
	accept_waiting(w);
	stop_when_empty(w);
}

static void
on_term(uv_signal_t *s, int signum)
{
	(void)signum;
	drain(s->data);
}

/* ---- the master's words ---- */

static struct plane *
make_plane(struct worker *w, struct settings *s, const struct tls_ticket_keys *keys, bool tls)
{
	struct plane *p = plane_new(w->upstream, s, keys, tls);

	if (p)
		health_watch_name(p, w->arena);
	return p;
}

static void
reload(struct worker *w, int memfd)
{
	struct problems problems;
	struct tls_ticket_keys keys;
	struct buf text;
	bool tls = false;

	buf_init(&text, RELOAD_BYTES_MAX);
	problems_init(&problems);
	for (uint32_t i = 0; i < w->listeners_count; i++)
		tls = tls || w->listeners[i].tls;
	if (channel_read_memfd(memfd, &text) == 0 && text.n > sizeof(keys)) {
		memcpy(&keys, text.p, sizeof(keys));
		struct slice bundle = { text.p + sizeof(keys), text.n - sizeof(keys) };
		struct settings *s = settings_compile(bundle, w->plane->settings->version + 1, &problems);
		struct plane *p = s ? make_plane(w, s, &keys, tls) : NULL;

		if (p) {
			plane_put(w->plane);
			w->plane = p;
			apply_timeouts(w);
		} else {
			log_error("reload: the old settings stay: %.*s", SLICE_FMT(buf_slice(&problems.text)));
		}
		if (s)
			settings_put(s);
	}
	problems_free(&problems);
	if (text.n > 0)
		explicit_bzero(text.p, text.n);	/* credentials and ticket keys */
	explicit_bzero(&keys, sizeof(keys));
	buf_free(&text);
}

static void
on_control(uv_poll_t *poll, int status, int events)
{
	struct worker *w = poll->data;
	struct channel_message m;
	int fd, got;

	(void)events;
	if (status < 0) {
		drain(w);
		return;
	}
	for (int turns = 0; turns < 16 && (got = channel_receive(w->control_fd, &m, &fd)) != 0; turns++) {
		if (got < 0) {	/* the master is gone: finish what is begun, and go */
			uv_poll_stop(poll);
			drain(w);
			return;
		}
		if (m.word == CHANNEL_RELOAD && fd >= 0) {
			struct channel_message done = { .word = CHANNEL_RELOADED, .version = m.version };
			reload(w, fd);
			if (channel_send(w->control_fd, &done, -1) != 0)
				log_warn("the master does not listen");
		}
		if (fd >= 0)
			close(fd);
	}
}

/* ---- the tick ---- */

static void
expire_clients(struct timeline *t, uint64_t now_ms)
{
	struct timepoint *p;

	for (int i = 0; i < DUE_PER_TICK && (p = timeline_due(t, now_ms)); i++) {
		timepoint_remove(p);
		client_expired(CONTAINER_OF(p, struct client, deadline));
	}
}

static void
settle_left_over(struct worker *w)
{
	struct request **link = &w->unsettled;

	while (*link) {
		struct request *r = *link;

		if (!settle_retry(r))
			return;
		*link = r->next;
		w->unsettled_count--;
		r->next = NULL;
		request_free(r);
	}
}

static void
run_parked(struct worker *w)
{
	while (w->parked && !worker_intake_paused(w)) {
		struct request *r = w->parked;

		w->parked = r->next;
		if (!w->parked)
			w->parked_last = NULL;
		request_run(r);
	}
}

static void
on_tick(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	uint64_t now = worker_now_ms(w);
	struct timepoint *p;

	if (now - w->heartbeat_ms >= HEARTBEAT_MS) {
		w->heartbeat_ms = now;
		arena_heartbeat(w->arena, w->index, clock_mono_ns());
		cache_desk_tick(w->cache);
	}
	if (w->upstream)
		upstream_tick(w->upstream, now);
	expire_clients(&w->idle, now);
	expire_clients(&w->head, now);
	expire_clients(&w->body, now);
	expire_clients(&w->linger, now);
	expire_clients(&w->stall, now);
	for (int i = 0; i < DUE_PER_TICK && (p = timeline_due(&w->quiet, now)); i++)
		request_quiet(CONTAINER_OF(p, struct request, quiet));
	for (int i = 0; i < DUE_PER_TICK && (p = timeline_due(&w->counting, now)); i++)
		prompt_count_expired(CONTAINER_OF(p, struct request, pending));
	deadlines_sweep(&w->timers, now);
	settle_left_over(w);
	run_parked(w);
	accept_waiting(w);
	stop_when_empty(w);
}

/* ---- life ---- */

static bool
open_all(struct worker *w, const struct worker_boot *boot)
{
	char why[256];
	bool tls = false;

	for (uint32_t i = 0; i < boot->listeners_count; i++)
		tls = tls || boot->listeners[i].tls;
	if (getrandom(w->random, sizeof(w->random), 0) != (ssize_t)sizeof(w->random))
		return false;
	w->catalog = catalog_open(boot->settings->data_dir, false, why, sizeof(why));
	if (!w->catalog) {
		log_error("%s", why);
		return false;
	}
	w->store = reader_open(boot->settings->data_dir, why, sizeof(why));
	if (!w->store) {
		log_error("%s", why);
		return false;
	}
	w->keys = key_cache_new(w->catalog, KEYS_CACHED_MAX);
	w->limit_memo = limit_memo_new(GROUPS_KEPT_MAX);
	w->config_memo = config_memo_new();
	w->prompt_counts = prompt_counts_new();
	w->upstream = upstream_new(&w->loop);
	w->memo = metadata_memo_new();
	if (!w->keys || !w->limit_memo || !w->config_memo || !w->prompt_counts || !w->upstream || !w->memo)
		return false;
	w->plane = make_plane(w, boot->settings, boot->ticket_keys, tls);
	w->cache = w->plane ? cache_desk_open(w, boot->cache_fd) : NULL;
	return w->cache != NULL;
}

static bool
start_watching(struct worker *w)
{
	w->tick.data = w->on_term.data = w->control.data = w;
	return admission_open(w) == 0 && uv_timer_init(&w->loop, &w->tick) == 0 && uv_timer_start(&w->tick, on_tick, TICK_MS, TICK_MS) == 0 &&
	    uv_signal_init(&w->loop, &w->on_term) == 0 && uv_signal_start(&w->on_term, on_term, SIGTERM) == 0 &&
	    uv_poll_init(&w->loop, &w->control, w->control_fd) == 0 &&
	    uv_poll_start(&w->control, UV_READABLE, on_control) == 0;
}

int
worker_run(const struct worker_boot *boot)
{
	static struct worker w;		/* one a process */
	struct channel_message ready = { .word = CHANNEL_READY };

	w.arena = boot->arena;
	w.index = boot->index;
	w.control_fd = boot->control_fd;
	timeline_init(&w.idle, 0);
	timeline_init(&w.head, 0);
	timeline_init(&w.body, 0);
	timeline_init(&w.linger, 0);
	timeline_init(&w.stall, 0);
	timeline_init(&w.quiet, 0);
	timeline_init(&w.counting, 0);
	timeline_init(&w.waiting, 0);
	if (uv_loop_init(&w.loop) != 0 || !open_all(&w, boot))
		return 1;
	deadlines_init(&w.timers, worker_now_ms(&w));
	apply_timeouts(&w);
	if (!start_watching(&w) || !open_listeners(&w, boot))
		return 1;
	arena_heartbeat(w.arena, w.index, clock_mono_ns());
	if (channel_send(w.control_fd, &ready, -1) != 0)
		return 1;

	uv_run(&w.loop, UV_RUN_DEFAULT);

	plane_put(w.plane);
	key_cache_free(w.keys);
	metadata_memo_free(w.memo);
	limit_memo_free(w.limit_memo);
	config_memo_free(w.config_memo);
	prompt_counts_free(w.prompt_counts);
	cache_desk_free(w.cache);
	reader_close(w.store);
	catalog_close(w.catalog);
	free(w.listeners);
	uv_loop_close(&w.loop);
	return 0;
}
