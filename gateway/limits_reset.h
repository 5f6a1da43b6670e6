/*
 * gateway/limits_reset.h -- weir limits reset: a meter begins anew.
 */
#ifndef WEIR_GATEWAY_LIMITS_RESET_H
#define WEIR_GATEWAY_LIMITS_RESET_H

int limits_reset(int argc, char **argv);
	/* argv from "reset" on; the exit status. */

#endif
