/*
 * policy/host.c -- see host.h.
 *
 * Every address falls into one of three: public, private (also: reserved, of
 * documentation, of multicast, ...), or never. For IPv6 only 2000::/3 is handed
 * out, so all else is private, and what must be known are the exceptions
 * inside it and the forms that carry an IPv4 address, which is then what
 * counts. A host that ends in a number is an IPv4 address or nothing: 2130706433,
 * 0x7f.1 and 017700000001 are all 127.0.0.1 to somebody.
 */
#include "policy/host.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum reach { REACH_PUBLIC, REACH_PRIVATE, REACH_NEVER };

struct net4 { uint32_t address; unsigned bits; };

#define IPV4(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static const struct net4 private4[] = {
	{ IPV4(0, 0, 0, 0), 8 },		/* this network */
	{ IPV4(10, 0, 0, 0), 8 },
	{ IPV4(100, 64, 0, 0), 10 },		/* carriers' NAT */
	{ IPV4(127, 0, 0, 0), 8 },
	{ IPV4(169, 254, 0, 0), 16 },		/* link-local */
	{ IPV4(172, 16, 0, 0), 12 },
	{ IPV4(192, 0, 0, 0), 24 },		/* IETF protocols */
	{ IPV4(192, 0, 2, 0), 24 },		/* documentation */
	{ IPV4(192, 88, 99, 0), 24 },		/* 6to4 relays */
	{ IPV4(192, 168, 0, 0), 16 },
	{ IPV4(198, 18, 0, 0), 15 },		/* benchmarks */
	{ IPV4(198, 51, 100, 0), 24 },		/* documentation */
	{ IPV4(203, 0, 113, 0), 24 },		/* documentation */
	{ IPV4(224, 0, 0, 0), 3 },		/* multicast, reserved, broadcast */
};

/* Services that give a machine its credentials, and what is no address. */
static const struct net4 never4[] = {
	{ IPV4(0, 0, 0, 0), 32 },
	{ IPV4(100, 100, 100, 200), 32 },	/* Alibaba */
	{ IPV4(168, 63, 129, 16), 32 },		/* Azure; a public address otherwise */
	{ IPV4(169, 254, 169, 0), 24 },		/* most clouds */
	{ IPV4(169, 254, 170, 2), 32 },		/* ECS */
	{ IPV4(169, 254, 170, 23), 32 },	/* EKS */
	{ IPV4(192, 0, 0, 192), 32 },		/* Oracle */
};

struct net6 {
	uint8_t address[16];
	unsigned bits;
	enum reach reach;	/* at least: what an IPv4 address in it says may be worse */
	unsigned ipv4_at;	/* byte where one begins; 0: none is in it */
};

/* The first that fits decides. */
static const struct net6 nets6[] = {
	{ { 0xfd, 0x00, 0x0e, 0xc2 }, 96, REACH_NEVER, 0 },			/* AWS */
	{ { 0xfd, 0x20, 0x00, 0xce }, 96, REACH_NEVER, 0 },			/* Google */
	{ { 0xfd, 0x00, 0x00, 0xc1 }, 96, REACH_NEVER, 0 },			/* Oracle */
	{ { 0 }, 128, REACH_NEVER, 0 },						/* :: */
	{ { [15] = 1 }, 128, REACH_PRIVATE, 0 },				/* ::1 */
	{ { [10] = 0xff, 0xff }, 96, REACH_PUBLIC, 12 },			/* mapped */
	{ { [8] = 0xff, 0xff }, 96, REACH_PRIVATE, 12 },			/* translated */
	{ { 0 }, 96, REACH_PRIVATE, 12 },					/* compatible */
	{ { 0x00, 0x64, 0xff, 0x9b }, 96, REACH_PUBLIC, 12 },			/* NAT64 */
	{ { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48, REACH_PRIVATE, 12 },	/* NAT64, local */
	{ { 0x20, 0x01 }, 23, REACH_PRIVATE, 0 },				/* Teredo, ORCHID, benchmarks */
	{ { 0x20, 0x01, 0x0d, 0xb8 }, 32, REACH_PRIVATE, 0 },			/* documentation */
	{ { 0x20, 0x02 }, 16, REACH_PUBLIC, 2 },				/* 6to4 */
	{ { 0x3f, 0xff }, 20, REACH_PRIVATE, 0 },				/* documentation */
	{ { 0x20 }, 3, REACH_PUBLIC, 0 },
	{ { 0 }, 0, REACH_PRIVATE, 0 },
};

/* Names of metadata services. */
static const char *const never_names[] = {
	"metadata", "metadata.google.internal", "metadata.azure.com", "instance-data",
};

/* Names that mean something inside a network only. */
static const char *const private_names[] = {
	"local", "localdomain", "internal", "intranet", "lan", "home", "corp", "test", "invalid", "onion", "localhost",
};

/* ---- addresses ---- */

static bool
in_net4(uint32_t address, const struct net4 *nets, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if ((address ^ nets[i].address) >> (32 - nets[i].bits) == 0)
			return true;
	return false;
}

static enum reach
reach_of_ipv4(const uint8_t b[4])
{
	uint32_t address = IPV4(b[0], b[1], b[2], b[3]);

	if (in_net4(address, never4, sizeof(never4) / sizeof(*never4)))
		return REACH_NEVER;
	return in_net4(address, private4, sizeof(private4) / sizeof(*private4)) ? REACH_PRIVATE : REACH_PUBLIC;
}

static bool
in_net6(const uint8_t address[16], const struct net6 *net)
{
	unsigned whole = net->bits / 8, rest = net->bits % 8;

	return memcmp(address, net->address, whole) == 0 &&
	    (rest == 0 || (address[whole] ^ net->address[whole]) >> (8 - rest) == 0);
}

static enum reach
reach_of_ipv6(const uint8_t address[16])
{
	const struct net6 *net = nets6;

	while (!in_net6(address, net))
		net++;		/* the last one has all */
	enum reach inner = net->ipv4_at ? reach_of_ipv4(address + net->ipv4_at) : net->reach;
	return inner > net->reach ? inner : net->reach;
}

bool
host_address_allowed(const struct sockaddr *address, bool trusted)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	enum reach reach = REACH_NEVER;

	if (address->sa_family == AF_INET) {
		memcpy(&in, address, sizeof(in));
		reach = reach_of_ipv4((const uint8_t *)&in.sin_addr);
	} else if (address->sa_family == AF_INET6) {
		memcpy(&in6, address, sizeof(in6));
		reach = reach_of_ipv6(in6.sin6_addr.s6_addr);
	}
	return reach == REACH_PUBLIC || (trusted && reach == REACH_PRIVATE);
}

/* An address in digits. */
static bool
numeric(struct slice host, int family, uint8_t out[16])
{
	char text[INET6_ADDRSTRLEN];

	if (host.n == 0 || host.n >= sizeof(text))
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	return inet_pton(family, text, out) == 1;
}

/* ---- names ---- */

static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* A run of letters, digits, hyphens and dots. (Some have an underscore in them.) */
static bool
name_form(struct slice host)
{
	if (host.n == 0 || host.n > HOST_NAME_BYTES_MAX || host.p[0] == '-' || host.p[0] == '.')
		return false;
	for (size_t i = 0; i < host.n; i++)
		if (!is_alnum(host.p[i]) && host.p[i] != '.' && host.p[i] != '-' && host.p[i] != '_')
			return false;
	return true;
}

/* As the name system has them, and no more labels than anybody needs. */
static bool
name_strict(struct slice host)
{
	uint32_t labels = 1;
	size_t begin = 0;

	if (!name_form(host) || memchr(host.p, '_', host.n))
		return false;
	for (size_t i = 0; i <= host.n; i++) {
		if (i < host.n && host.p[i] != '.')
			continue;
		if (i == begin || i - begin > 63 || host.p[begin] == '-' || host.p[i - 1] == '-')
			return false;
		begin = i + 1;
		labels += i < host.n;
	}
	return labels <= HOST_LABELS_MAX;
}

static struct slice
last_label(struct slice host)
{
	size_t at = host.n;

	while (at > 0 && host.p[at - 1] != '.')
		at--;
	return (struct slice){ host.p + at, host.n - at };
}

/* Resolvers take such a name for an IPv4 address: "1", "0x7f000001", "127.0.0.08". */
static bool
ends_in_number(struct slice host)
{
	struct slice last = last_label(host);
	bool hex = last.n >= 2 && last.p[0] == '0' && (last.p[1] == 'x' || last.p[1] == 'X');

	for (size_t i = hex ? 2 : 0; i < last.n; i++) {
		char c = last.p[i];

		if (!(c >= '0' && c <= '9') && !(hex && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))))
			return false;
	}
	return true;
}

static bool
ends_with(struct slice s, struct slice tail)
{
	return s.n >= tail.n && slice_ieq((struct slice){ s.p + s.n - tail.n, tail.n }, tail);
}

static bool
named_never(struct slice host)
{
	for (size_t i = 0; i < sizeof(never_names) / sizeof(*never_names); i++)
		if (slice_ieq(host, slice_of(never_names[i])))
			return true;
	return false;
}

static bool
named_private(struct slice host)
{
	struct slice last = last_label(host);

	for (size_t i = 0; i < sizeof(private_names) / sizeof(*private_names); i++)
		if (slice_ieq(last, slice_of(private_names[i])))
			return true;
	return false;
}

/* ---- trust ---- */

bool
host_pattern_valid(struct slice pattern)
{
	uint8_t address[16];

	if (numeric(pattern, AF_INET6, address))
		return true;
	if (slice_starts(pattern, SLICE("*.")))
		pattern = (struct slice){ pattern.p + 2, pattern.n - 2 };
	return name_strict(pattern) && (!ends_in_number(pattern) || numeric(pattern, AF_INET, address));
}

bool
host_trusted(struct slice host, const struct host_trust *trust)
{
	uint8_t mine[16], theirs[16];
	bool v6 = numeric(host, AF_INET6, mine);

	for (uint32_t i = 0; trust && i < trust->count; i++) {
		struct slice pattern = slice_of(trust->hosts[i]);

		if (slice_ieq(host, pattern))
			return true;
		if (v6 && numeric(pattern, AF_INET6, theirs) && memcmp(mine, theirs, sizeof(mine)) == 0)
			return true;
		if (slice_starts(pattern, SLICE("*.")) && ends_with(host, (struct slice){ pattern.p + 1, pattern.n - 1 }))
			return true;
	}
	return false;
}

/* ---- URLs ---- */

static bool
fail(const char **why, const char *what)
{
	*why = what;
	return false;
}

static bool
port_take(struct slice text, uint16_t *out)
{
	int64_t n;

	if (text.n == 0 || text.n > 5 || text.p[0] == '-' || !slice_to_i64(text, &n) || n < 1 || n > 65535)
		return false;
	*out = (uint16_t)n;
	return true;
}

/* "name", "name:port", "[v6]:port". */
static bool
authority_take(struct slice text, struct host_url *out, const char **why)
{
	const char *end;
	uint8_t address[16];

	if (text.n > 0 && text.p[0] == '[') {
		end = memchr(text.p, ']', text.n);
		out->host = (struct slice){ text.p + 1, end ? (size_t)(end - text.p) - 1 : 0 };
		if (!end || !numeric(out->host, AF_INET6, address))
			return fail(why, "has no valid host");
		end++;
	} else {
		end = memchr(text.p, ':', text.n);
		end = end ? end : text.p + text.n;
		out->host = (struct slice){ text.p, (size_t)(end - text.p) };
		if (!name_form(out->host))
			return fail(why, "has no valid host");
	}
	struct slice rest = { end, (size_t)(text.p + text.n - end) };
	if (rest.n == 0)
		return true;
	if (rest.p[0] != ':')
		return fail(why, "has no valid host");
	if (!port_take((struct slice){ rest.p + 1, rest.n - 1 }, &out->port))
		return fail(why, "has no valid port");
	return true;
}

bool
host_path_valid(struct slice path)
{
	for (size_t i = 0; i < path.n; i++)
		if (!is_alnum(path.p[i]) && !memchr("/._~-@:", path.p[i], 7))
			return false;
	return !slice_contains(path, SLICE("//")) && !slice_contains(path, SLICE("/."));
}

bool
host_split(struct slice url, struct host_url *out, const char **why)
{
	*out = (struct host_url){ .tls = slice_starts(url, SLICE("https://")) };
	if (!out->tls && !slice_starts(url, SLICE("http://")))
		return fail(why, "must begin with https:// (or http://)");
	if (url.n > HOST_URL_BYTES_MAX)
		return fail(why, "is longer than 2048 bytes");

	size_t scheme = out->tls ? 8 : 7;
	struct slice rest = { url.p + scheme, url.n - scheme };
	for (size_t i = 0; i < rest.n; i++)
		if ((unsigned char)rest.p[i] <= ' ' || memchr("?#@\\\x7f", rest.p[i], 5))
			return fail(why, "must be scheme, host, port and path: no user, query or fragment");
	const char *slash = memchr(rest.p, '/', rest.n);
	struct slice authority = { rest.p, slash ? (size_t)(slash - rest.p) : rest.n };
	out->port = out->tls ? 443 : 80;
	if (!authority_take(authority, out, why))
		return false;
	out->path = (struct slice){ rest.p + authority.n, rest.n - authority.n };
	if (!host_path_valid(out->path))
		return fail(why, "has a path with characters that are not allowed there");
	if (out->path.n > 0 && out->path.p[out->path.n - 1] == '/')
		out->path.n--;
	return true;
}

/* How far the host as it is written reaches. */
static bool
reach_of_host(struct slice host, enum reach *out, const char **why)
{
	uint8_t address[16];

	if (numeric(host, AF_INET6, address)) {
		*out = reach_of_ipv6(address);
		if (*out == REACH_PUBLIC && in_net6(address, &(struct net6){ { [10] = 0xff, 0xff }, 96, REACH_PUBLIC, 12 }))
			*out = REACH_PRIVATE;	/* nobody needs to write one like this */
		return true;
	}
	if (!name_strict(host))
		return fail(why, "has no valid host");
	if (ends_in_number(host)) {
		if (!numeric(host, AF_INET, address))
			return fail(why, "has a number for a host: write an IPv4 address as four decimal numbers");
		*out = reach_of_ipv4(address);
		return true;
	}
	*out = named_never(host) ? REACH_NEVER : named_private(host) ? REACH_PRIVATE : REACH_PUBLIC;
	return true;
}

bool
host_check(struct slice url, const struct host_trust *trust, struct host_url *out, const char **why)
{
	enum reach reach;

	if (!host_split(url, out, why) || !reach_of_host(out->host, &reach, why))
		return false;
	if (reach == REACH_NEVER)
		return fail(why, "is a metadata service or no address at all: no request may go there");
	out->trusted = host_trusted(out->host, trust);
	if (out->trusted)
		return true;
	if (reach == REACH_PRIVATE)
		return fail(why, "is a private or reserved host: only the setting custom_hosts.trusted can allow it");
	if (!out->tls)
		return fail(why, "would send credentials unencrypted: use https:// (the setting custom_hosts.trusted can allow it)");
	return true;
}
