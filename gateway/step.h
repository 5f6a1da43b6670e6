/*
 * gateway/step.h -- what a step of a request says to the one that called it.
 */
#ifndef WEIR_GATEWAY_STEP_H
#define WEIR_GATEWAY_STEP_H

enum step {
	STEP_NEXT,
	STEP_STOP,	/* refused, answered, or waiting: the request may be gone */
	STEP_OUT,	/* this target cannot be used now, and has not been asked */
	STEP_PASS,	/* this target's outcome is passed_status, and there is another target */
};

#endif
