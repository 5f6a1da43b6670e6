/*
 * gateway/terminal.h -- a screen that is drawn again and again.
 *
 * Plain ANSI: the alternate screen, so that what stood there comes back. Where
 * stdout is no terminal, what is shown is appended, and only signals end it.
 */
#ifndef WEIR_GATEWAY_TERMINAL_H
#define WEIR_GATEWAY_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <termios.h>

#include "shm/base/buf.h"
#include "shm/base/check.h"

struct terminal {
	bool screen;		/* stdout is a terminal, and is drawn on */
	bool keys;		/* stdin is, too: "q" ends */
	struct termios was;
	int signal_fd;
	unsigned shown;		/* pictures so far */
};

bool terminal_open(struct terminal *t, bool screen) MUST_CHECK;
	/* screen: draw, if stdout is a terminal. Takes SIGINT, SIGTERM, SIGHUP,
	 * SIGQUIT, SIGTSTP and SIGWINCH of this process. false: errno says why. */
void terminal_close(struct terminal *t);
	/* All is as it was before. */
bool terminal_show(struct terminal *t, const struct buf *text) MUST_CHECK;
	/* Lines, each with its line feed; cut to the screen. false: nobody sees it. */

enum terminal_event { TERMINAL_TIME, TERMINAL_RESIZED, TERMINAL_END };
enum terminal_event terminal_wait(struct terminal *t, int64_t until_mono_ns);
	/* END: "q", a signal, or the reader of stdout is gone. */

#endif
