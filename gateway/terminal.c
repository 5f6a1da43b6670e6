/* gateway/terminal.c -- see terminal.h. */
#include "gateway/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "shm/base/clock.h"

#define SCREEN_BYTES_MAX (1u << 20)
#define ROWS_DEFAULT 24
#define COLUMNS_DEFAULT 80

/* Alternate screen, cursor hidden; and both back. */
#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[?25h\033[?1049l"
#define HOME "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_BELOW "\033[J"

static bool
write_all(const char *p, size_t n)
{
	while (n > 0) {
		ssize_t done = write(STDOUT_FILENO, p, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

static void
screen_take(struct terminal *t)
{
	struct termios raw;

	t->keys = tcgetattr(STDIN_FILENO, &t->was) == 0;
	if (t->keys) {
		raw = t->was;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);	/* keys at once; ^C is still a signal */
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		t->keys = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	}
	(void)!write_all(ENTER, sizeof(ENTER) - 1);	/* if it fails, the first picture fails too */
}

static void
screen_give(struct terminal *t)
{
	(void)!write_all(LEAVE, sizeof(LEAVE) - 1);	/* a terminal that is gone needs nothing */
	if (t->keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->was);
}

bool
terminal_open(struct terminal *t, bool screen)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH };
	sigset_t set;

	*t = (struct terminal){ .screen = screen && isatty(STDOUT_FILENO) };
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		if (signals[i] != SIGTSTP || t->screen)
			sigaddset(&set, signals[i]);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || (t->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
		return false;
	if (t->screen)
		screen_take(t);
	return true;
}

void
terminal_close(struct terminal *t)
{
	if (t->screen)
		screen_give(t);
	close(t->signal_fd);
}

/* ---- pictures ---- */

/* As many bytes as take that many columns; a character takes one. */
static size_t
fit(const char *p, size_t n, unsigned columns)
{
	unsigned used = 0;

	for (size_t i = 0; i < n; i++)
		if (((unsigned char)p[i] & 0xc0) != 0x80 && used++ == columns)
			return i;
	return n;
}

static void
draw(const struct buf *text, struct buf *out)
{
	struct winsize size = { .ws_row = 0 };
	const char *p = text->p, *end = p + text->n;
	unsigned rows = ROWS_DEFAULT, columns = COLUMNS_DEFAULT;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
		rows = size.ws_row;
		columns = size.ws_col;
	}
	buf_add_str(out, HOME);
	for (unsigned row = 0; row < rows && p < end; row++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((eol ? eol : end) - p);

		/* Not behind the last line, or the screen would roll. */
		buf_add_str(out, row ? "\r\n" : "");
		buf_add(out, p, fit(p, n, columns));
		buf_add_str(out, CLEAR_LINE);
		p += n + 1;
	}
	buf_add_str(out, CLEAR_BELOW);
}

bool
terminal_show(struct terminal *t, const struct buf *text)
{
	struct buf out;
	bool ok;

	if (text->n == 0)
		return true;
	buf_init(&out, SCREEN_BYTES_MAX);
	if (t->screen)
		draw(text, &out);
	else
		buf_add_slice(&out, buf_slice(text));
	ok = !out.overflow && write_all(out.p, out.n);
	buf_free(&out);
	t->shown++;
	return ok;
}

/* ---- waiting ---- */

/* ^Z: the shell gets its screen back, and we ours when it lets us go on. */
static void
suspend(struct terminal *t)
{
	screen_give(t);
	raise(SIGSTOP);
	screen_take(t);
}

static enum terminal_event
take_signal(struct terminal *t)
{
	struct signalfd_siginfo info;

	if (read(t->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return TERMINAL_TIME;
	if (info.ssi_signo == SIGWINCH)
		return TERMINAL_RESIZED;
	if (info.ssi_signo != SIGTSTP)
		return TERMINAL_END;
	suspend(t);
	return TERMINAL_RESIZED;	/* it has to be drawn anew */
}

/* true: "q", or there are no keys to come any more. */
static bool
take_keys(void)
{
	char keys[64];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	return n <= 0 || memchr(keys, 'q', (size_t)n) || memchr(keys, 'Q', (size_t)n);
}

enum terminal_event
terminal_wait(struct terminal *t, int64_t until_mono_ns)
{
	struct pollfd fds[3] = { { .fd = t->signal_fd, .events = POLLIN }, { .fd = STDOUT_FILENO, .events = 0 },
		{ .fd = t->keys ? STDIN_FILENO : -1, .events = POLLIN } };

	for (;;) {
		int64_t left_ns = until_mono_ns - clock_mono_ns();

		if (left_ns <= 0)
			return TERMINAL_TIME;
		if (poll(fds, 3, (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS)) <= 0)
			continue;
		if (fds[1].revents || (fds[2].revents && take_keys()))
			return TERMINAL_END;
		if (fds[0].revents) {
			enum terminal_event event = take_signal(t);

			if (event == TERMINAL_END || (event == TERMINAL_RESIZED && t->screen))
				return event;
		}
	}
}
