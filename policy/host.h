/*
 * policy/host.h -- where a request may be sent because somebody wrote a URL.
 *
 * A custom_host comes from a config, and a config may come from a client. So
 * it must not reach what only this machine can reach: private networks, this
 * machine itself, and above all the metadata services of clouds, which give
 * credentials to whoever asks. It is judged twice: as written, when the config
 * is read, and by the address that its name has when it is connected to
 * (names change).
 *
 * Hosts that an operator trusts are exempt from the rules on private networks
 * and names. Nothing is exempt from those on metadata services.
 */
#ifndef WEIR_POLICY_HOST_H
#define WEIR_POLICY_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/check.h"
#include "shm/base/slice.h"

#define HOST_URL_BYTES_MAX 2048
#define HOST_NAME_BYTES_MAX 253
#define HOST_LABELS_MAX 10

struct sockaddr;

struct host_trust {		/* custom_hosts.trusted */
	char **hosts;		/* "llm.corp", "10.1.2.3", "::1", "*.example.com" */
	uint32_t count;
};

struct host_url {		/* slices of the URL */
	bool tls;
	bool trusted;		/* by host_check() */
	struct slice host;	/* an IPv6 address without its brackets */
	uint16_t port;
	struct slice path;	/* "" or "/x/y", without a slash at the end */
};

bool host_split(struct slice url, struct host_url *out, const char **why) MUST_CHECK;
	/* Scheme, host, port and path, taken apart and valid in form. false:
	 * `why` says what is wrong, as "has no valid port". */
bool host_check(struct slice url, const struct host_trust *trust, struct host_url *out, const char **why) MUST_CHECK;
	/* host_split(), and the host may be sent to. */
bool host_path_valid(struct slice path);
	/* Segments without tricks: none that begins with a dot or is empty, no
	 * escapes that hide a slash. */
bool host_trusted(struct slice host, const struct host_trust *trust);
bool host_pattern_valid(struct slice pattern);
	/* Of a host_trust: a name, an address, or "*." and a name. */
bool host_address_allowed(const struct sockaddr *address, bool trusted) MUST_CHECK;
	/* Of a name that host_check() has let pass: may it be connected to?
	 * IPv4 and IPv6; an IPv4 address inside an IPv6 one is judged by
	 * itself. */

#endif
