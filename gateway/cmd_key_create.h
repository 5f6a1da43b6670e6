/*
 * gateway/cmd_key_create.h -- weir key create, for cmd_key.c.
 */
#ifndef WEIR_GATEWAY_CMD_KEY_CREATE_H
#define WEIR_GATEWAY_CMD_KEY_CREATE_H

extern const char cmd_key_create_usage[];

int cmd_key_create(int argc, char **argv);
	/* argv[0] is "create". The exit status. */

#endif
