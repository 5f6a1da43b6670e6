/*
 * Custom hosts: what a URL may name, and what a name may turn out to be. Each
 * reserved range is tried at both of its ends and beside them, each spelling of
 * an address that somebody's resolver would take.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "policy/host.h"

static char *trusted_hosts[] = {
	(char[]){ "localhost" }, (char[]){ "127.0.0.1" }, (char[]){ "::1" }, (char[]){ "host.docker.internal" },
	(char[]){ "*.corp" }, (char[]){ "Plain.Example.com" }, (char[]){ "10.1.2.3" }, (char[]){ "FD00:0:0::0007" },
	(char[]){ "169.254.169.254" }, (char[]){ "metadata.google.internal" }, (char[]){ "fd00:ec2::254" }, (char[]){ "::ffff:10.9.9.9" },
};
static const struct host_trust trust = { trusted_hosts, sizeof(trusted_hosts) / sizeof(*trusted_hosts) };

#define FORM "must be scheme, host, port and path: no user, query or fragment"
#define SCHEME "must begin with https:// (or http://)"
#define HOST "has no valid host"
#define PORT "has no valid port"
#define PATH "has a path with characters that are not allowed there"
#define NUMBER "has a number for a host: write an IPv4 address as four decimal numbers"
#define PRIVATE "is a private or reserved host: only the setting custom_hosts.trusted can allow it"
#define NEVER "is a metadata service or no address at all: no request may go there"
#define PLAIN "would send credentials unencrypted: use https:// (the setting custom_hosts.trusted can allow it)"

static void
refuse(const char *url, const struct host_trust *t, const char *expected)
{
	struct host_url out;
	const char *why = NULL;

	if (host_check(slice_of(url), t, &out, &why))
		fail_msg("accepted: %s", url);
	if (strcmp(why, expected) != 0)
		fail_msg("%s: \"%s\", but expected: \"%s\"", url, why, expected);
}

static struct host_url
allow(const char *url, const struct host_trust *t)
{
	struct host_url out;
	const char *why = NULL;

	if (!host_check(slice_of(url), t, &out, &why))
		fail_msg("%s: %s", url, why);
	return out;
}

static void
test_parts(void **state)
{
	(void)state;
	static const struct { const char *url; bool tls; const char *host; int port; const char *path; } rows[] = {
		{ "https://llm.example.com", true, "llm.example.com", 443, "" },
		{ "https://llm.example.com/", true, "llm.example.com", 443, "" },
		{ "https://llm.example.com:8443/v1", true, "llm.example.com", 8443, "/v1" },
		{ "https://LLM.Example.COM/a/b-c_d.e~f:g/", true, "LLM.Example.COM", 443, "/a/b-c_d.e~f:g" },
		{ "https://8.8.8.8:1", true, "8.8.8.8", 1, "" },
		{ "https://[2606:4700::1111]:65535/x", true, "2606:4700::1111", 65535, "/x" },
		{ "https://a-1.b", true, "a-1.b", 443, "" },
		{ "https://single", true, "single", 443, "" },
		{ "https://1.2.3.4.example", true, "1.2.3.4.example", 443, "" },
		{ "https://xn--bcher-kva.example", true, "xn--bcher-kva.example", 443, "" },
		{ "https://0xabc.example", true, "0xabc.example", 443, "" },
		{ "https://l1.l2.l3.l4.l5.l6.l7.l8.l9.l10", true, "l1.l2.l3.l4.l5.l6.l7.l8.l9.l10", 443, "" },
		{ "http://plain.example.com", false, "plain.example.com", 80, "" },
		{ "http://localhost:11434/v1/", false, "localhost", 11434, "/v1" },
		{ "http://[::1]:9000", false, "::1", 9000, "" },
		{ "http://[0:0:0:0:0:0:0:1]", false, "0:0:0:0:0:0:0:1", 80, "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct host_url out = allow(rows[i].url, &trust);

		assert_int_equal(out.tls, rows[i].tls);
		assert_true(slice_eq(out.host, slice_of(rows[i].host)));
		assert_int_equal(out.port, rows[i].port);
		assert_true(slice_eq(out.path, slice_of(rows[i].path)));
		assert_int_equal(out.trusted, !rows[i].tls);
	}
}

static void
test_form(void **state)
{
	(void)state;
	static const struct { const char *url, *why; } rows[] = {
		{ "", SCHEME }, { "llm.example.com", SCHEME }, { "ftp://h", SCHEME }, { "HTTPS://h", SCHEME }, { "//h", SCHEME },
		{ "https:/h", SCHEME }, { "file:///etc/passwd", SCHEME }, { "javascript:x", SCHEME }, { " https://h", SCHEME },
		{ "https://", HOST }, { "https:///x", HOST }, { "https://:443", HOST }, { "https://.h", HOST }, { "https://h.", HOST },
		{ "https://h..x", HOST }, { "https://-h", HOST }, { "https://h-", HOST }, { "https://h.-x", HOST }, { "https://a_b", HOST },
		{ "https://h%2e", HOST }, { "https://b\xc3\xbc" "cher.example", HOST }, { "https://h,x", HOST }, { "https://h*", HOST },
		{ "https://a.b.c.d.e.f.g.h.i.j.k", HOST }, { "https://[::1", HOST }, { "https://[::1]x", HOST }, { "https://[]", HOST },
		{ "https://[1.2.3.4]", HOST }, { "https://[fe80::1%25eth0]", HOST }, { "https://[fe80::1%eth0]", HOST },
		{ "https://[::g]", HOST }, { "https://::1", HOST }, { "https://]", HOST },
		{ "https://llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll.x", HOST },
		{ "https://h:", PORT }, { "https://h:0", PORT }, { "https://h:65536", PORT }, { "https://h:-1", PORT }, { "https://h:1a", PORT },
		{ "https://h:000443", PORT }, { "https://h:80:80", PORT }, { "https://[::1]:", PORT },
		{ "https://u@h", FORM }, { "https://u:p@h", FORM }, { "https://h/@x", FORM }, { "https://h?x", FORM }, { "https://h/x?y=1", FORM },
		{ "https://h#x", FORM }, { "https://h\\x", FORM }, { "https://h x", FORM }, { "https://h/\nx", FORM }, { "https://h\t", FORM },
		{ "https://h\r\nx: y", FORM }, { "https://h\x7f", FORM }, { "https://h/\x01", FORM },
		{ "https://h//", PATH }, { "https://h/a//b", PATH }, { "https://h/../x", PATH }, { "https://h/./x", PATH }, { "https://h/.x", PATH },
		{ "https://h/%2e%2e/x", PATH }, { "https://h/a;b", PATH }, { "https://h/\xc3\xbc", PATH },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refuse(rows[i].url, &trust, rows[i].why);
}

static void
test_length(void **state)
{
	(void)state;
	char url[HOST_URL_BYTES_MAX + 2];

	memset(url, 'a', sizeof(url));
	memcpy(url, "https://h/", 10);
	url[HOST_URL_BYTES_MAX] = '\0';
	allow(url, NULL);
	url[HOST_URL_BYTES_MAX] = 'a';
	url[HOST_URL_BYTES_MAX + 1] = '\0';
	refuse(url, NULL, "is longer than 2048 bytes");

	struct host_url out;
	const char *why;
	assert_false(host_check((struct slice){ "https://a\0b", 11 }, NULL, &out, &why));
	assert_string_equal(why, FORM);
}

/* Whoever writes 127.0.0.1, or the metadata service, in another way. */
static void
test_odd_spellings(void **state)
{
	(void)state;
	static const char *const rows[] = {
		"https://2130706433", "https://0x7f000001", "https://0X7F000001", "https://017700000001", "https://0x7f.1", "https://127.1",
		"https://127.0.1", "https://0177.0.0.1", "https://0x7f.0x0.0x0.0x1", "https://127.0.0.01", "https://127.0.0.1.2", "https://256.1.1.1",
		"https://1.2.3.4.5", "https://a.1", "https://a.0x1", "https://0x", "https://x.0x", "https://0", "https://1.2.3.256", "https://00.0.0.0",
		"https://2852039166", "https://0xa9fea9fe", "https://0251.0376.0251.0376", "https://169.254.43518", "https://08.8.8.8",
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		refuse(rows[i], NULL, NUMBER);
		refuse(rows[i], &trust, NUMBER);
	}
}

static void
test_names(void **state)
{
	(void)state;
	static const struct { const char *host; bool trusted; const char *why; } rows[] = {
		{ "localhost", true, PRIVATE }, { "LocalHost", true, PRIVATE }, { "x.localhost", false, PRIVATE }, { "host.docker.internal", true, PRIVATE },
		{ "x.internal", false, PRIVATE }, { "x.local", false, PRIVATE }, { "x.localdomain", false, PRIVATE }, { "x.intranet", false, PRIVATE },
		{ "x.lan", false, PRIVATE }, { "x.home", false, PRIVATE }, { "llm.corp", true, PRIVATE }, { "a.b.CORP", true, PRIVATE },
		{ "corp", false, PRIVATE }, { "x.test", false, PRIVATE }, { "x.invalid", false, PRIVATE }, { "x.onion", false, PRIVATE },
		{ "metadata", true, NEVER }, { "METADATA", true, NEVER }, { "metadata.google.internal", true, NEVER },
		{ "Metadata.Google.Internal", true, NEVER }, { "metadata.azure.com", true, NEVER }, { "instance-data", true, NEVER },
		{ "localhosts", false, NULL }, { "notlocalhost", false, NULL }, { "corp.example", false, NULL }, { "x-local", false, NULL },
		{ "metadata.example", false, NULL }, { "xcorp", false, NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char url[128];

		snprintf(url, sizeof(url), "https://%s/x", rows[i].host);
		if (rows[i].why)
			refuse(url, NULL, rows[i].why);
		else
			assert_false(allow(url, NULL).trusted);
		if (rows[i].why && strcmp(rows[i].why, NEVER) == 0)
			refuse(url, &trust, NEVER);
		else if (rows[i].trusted)
			assert_true(allow(url, &trust).trusted);
		else if (rows[i].why)
			refuse(url, &trust, rows[i].why);
	}
	refuse("http://llm.example.com", NULL, PLAIN);
	refuse("http://8.8.8.8", &trust, PLAIN);
	assert_true(allow("http://x.corp", &trust).trusted);
}

enum verdict { FREE, IF_TRUSTED, NEVER_AT_ALL };

static enum verdict
verdict_of(int family, const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	const struct sockaddr *address = family == AF_INET ? (const struct sockaddr *)&in : (const struct sockaddr *)&in6;

	if (inet_pton(family, text, family == AF_INET ? (void *)&in.sin_addr : (void *)&in6.sin6_addr) != 1)
		fail_msg("no address: %s", text);
	bool plain = host_address_allowed(address, false), trusted = host_address_allowed(address, true);
	assert_true(trusted || !plain);
	return plain ? FREE : trusted ? IF_TRUSTED : NEVER_AT_ALL;
}

static const struct { const char *address; enum verdict verdict; } rows4[] = {
	{ "0.0.0.0", NEVER_AT_ALL }, { "0.0.0.1", IF_TRUSTED }, { "0.255.255.255", IF_TRUSTED }, { "1.0.0.0", FREE }, { "8.8.8.8", FREE },
	{ "9.255.255.255", FREE }, { "10.0.0.0", IF_TRUSTED }, { "10.255.255.255", IF_TRUSTED }, { "11.0.0.0", FREE },
	{ "100.63.255.255", FREE }, { "100.64.0.0", IF_TRUSTED }, { "100.127.255.255", IF_TRUSTED }, { "100.128.0.0", FREE },
	{ "100.100.100.199", IF_TRUSTED }, { "100.100.100.200", NEVER_AT_ALL }, { "100.100.100.201", IF_TRUSTED },
	{ "126.255.255.255", FREE }, { "127.0.0.0", IF_TRUSTED }, { "127.0.0.1", IF_TRUSTED }, { "127.255.255.255", IF_TRUSTED }, { "128.0.0.0", FREE },
	{ "168.63.129.15", FREE }, { "168.63.129.16", NEVER_AT_ALL }, { "168.63.129.17", FREE },
	{ "169.253.255.255", FREE }, { "169.254.0.0", IF_TRUSTED }, { "169.254.168.255", IF_TRUSTED }, { "169.254.169.0", NEVER_AT_ALL },
	{ "169.254.169.254", NEVER_AT_ALL }, { "169.254.169.255", NEVER_AT_ALL }, { "169.254.170.0", IF_TRUSTED }, { "169.254.170.2", NEVER_AT_ALL },
	{ "169.254.170.3", IF_TRUSTED }, { "169.254.170.23", NEVER_AT_ALL }, { "169.254.255.255", IF_TRUSTED }, { "169.255.0.0", FREE },
	{ "172.15.255.255", FREE }, { "172.16.0.0", IF_TRUSTED }, { "172.31.255.255", IF_TRUSTED }, { "172.32.0.0", FREE },
	{ "191.255.255.255", FREE }, { "192.0.0.0", IF_TRUSTED }, { "192.0.0.192", NEVER_AT_ALL }, { "192.0.0.255", IF_TRUSTED }, { "192.0.1.0", FREE },
	{ "192.0.2.0", IF_TRUSTED }, { "192.0.2.255", IF_TRUSTED }, { "192.0.3.0", FREE },
	{ "192.88.98.255", FREE }, { "192.88.99.0", IF_TRUSTED }, { "192.88.99.255", IF_TRUSTED }, { "192.88.100.0", FREE },
	{ "192.167.255.255", FREE }, { "192.168.0.0", IF_TRUSTED }, { "192.168.255.255", IF_TRUSTED }, { "192.169.0.0", FREE },
	{ "198.17.255.255", FREE }, { "198.18.0.0", IF_TRUSTED }, { "198.19.255.255", IF_TRUSTED }, { "198.20.0.0", FREE },
	{ "198.51.99.255", FREE }, { "198.51.100.0", IF_TRUSTED }, { "198.51.100.255", IF_TRUSTED }, { "198.51.101.0", FREE },
	{ "203.0.112.255", FREE }, { "203.0.113.0", IF_TRUSTED }, { "203.0.113.255", IF_TRUSTED }, { "203.0.114.0", FREE },
	{ "223.255.255.255", FREE }, { "224.0.0.0", IF_TRUSTED }, { "239.255.255.255", IF_TRUSTED }, { "240.0.0.0", IF_TRUSTED }, { "255.255.255.255", IF_TRUSTED },
};

static void
test_ipv4(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows4) / sizeof(rows4[0]); i++) {
		char url[64];

		if (verdict_of(AF_INET, rows4[i].address) != rows4[i].verdict)
			fail_msg("%s: %d", rows4[i].address, verdict_of(AF_INET, rows4[i].address));
		snprintf(url, sizeof(url), "https://%s", rows4[i].address);
		if (rows4[i].verdict == FREE)
			allow(url, NULL);
		else
			refuse(url, NULL, rows4[i].verdict == IF_TRUSTED ? PRIVATE : NEVER);
	}
	assert_true(allow("http://10.1.2.3", &trust).trusted);
	refuse("https://10.1.2.4", &trust, PRIVATE);
	refuse("https://169.254.169.254", &trust, NEVER);
}

/* An IPv4 address inside of an IPv6 one is what counts. */
static void
test_embedded(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows4) / sizeof(rows4[0]); i++) {
		struct in_addr a;
		char text[80], url[96];
		enum verdict v = rows4[i].verdict, at_least = v > IF_TRUSTED ? v : IF_TRUSTED;

		assert_int_equal(inet_pton(AF_INET, rows4[i].address, &a), 1);
		uint32_t n = ntohl(a.s_addr);
		snprintf(text, sizeof(text), "::ffff:%s", rows4[i].address);
		assert_int_equal(verdict_of(AF_INET6, text), v);
		snprintf(url, sizeof(url), "https://[%s]", text);
		refuse(url, NULL, v == NEVER_AT_ALL ? NEVER : PRIVATE);	/* as it is written, none is let pass */
		snprintf(text, sizeof(text), "64:ff9b::%s", rows4[i].address);
		assert_int_equal(verdict_of(AF_INET6, text), v);
		snprintf(text, sizeof(text), "2002:%x:%x::1", n >> 16, n & 0xffff);
		assert_int_equal(verdict_of(AF_INET6, text), v);
		snprintf(text, sizeof(text), "::ffff:0:%s", rows4[i].address);
		assert_int_equal(verdict_of(AF_INET6, text), at_least);
		snprintf(text, sizeof(text), "64:ff9b:1::%s", rows4[i].address);
		assert_int_equal(verdict_of(AF_INET6, text), at_least);
		if (n > 1) {
			snprintf(text, sizeof(text), "::%s", rows4[i].address);
			assert_int_equal(verdict_of(AF_INET6, text), at_least);
		}
	}
	assert_true(allow("https://[::ffff:10.9.9.9]", &trust).trusted);
}

static void
test_ipv6(void **state)
{
	(void)state;
	static const struct { const char *address; enum verdict verdict; } rows[] = {
		{ "::", NEVER_AT_ALL }, { "::1", IF_TRUSTED }, { "100::1", IF_TRUSTED }, { "1fff:ffff::1", IF_TRUSTED }, { "2000::1", FREE },
		{ "2001::1", IF_TRUSTED }, { "2001:0:53aa:64c::1", IF_TRUSTED }, { "2001:1ff:ffff::1", IF_TRUSTED }, { "2001:200::1", FREE },
		{ "2001:db7:ffff::1", FREE }, { "2001:db8::1", IF_TRUSTED }, { "2001:db8:ffff::1", IF_TRUSTED }, { "2001:db9::1", FREE },
		{ "2001:4860:4860::8888", FREE }, { "2606:4700::1111", FREE }, { "3ffe:ffff::1", FREE }, { "3fff::1", IF_TRUSTED }, { "3fff:fff::1", IF_TRUSTED },
		{ "3fff:1000::1", FREE }, { "4000::1", IF_TRUSTED }, { "5f00::1", IF_TRUSTED }, { "fbff::1", IF_TRUSTED }, { "fc00::1", IF_TRUSTED },
		{ "fd00::1", IF_TRUSTED }, { "fd00:ec1:ffff::1", IF_TRUSTED }, { "fd00:ec2::", NEVER_AT_ALL }, { "fd00:ec2::254", NEVER_AT_ALL },
		{ "fd00:ec2::23", NEVER_AT_ALL }, { "fd00:ec2::ffff:ffff", NEVER_AT_ALL }, { "fd00:ec2::1:0:0", IF_TRUSTED }, { "fd20:ce::254", NEVER_AT_ALL },
		{ "fd00:c1::a9fe:a9fe", NEVER_AT_ALL }, { "fe80::1", IF_TRUSTED }, { "febf::1", IF_TRUSTED }, { "fec0::1", IF_TRUSTED }, { "ff02::1", IF_TRUSTED },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", IF_TRUSTED },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char url[64];

		if (verdict_of(AF_INET6, rows[i].address) != rows[i].verdict)
			fail_msg("%s: %d", rows[i].address, verdict_of(AF_INET6, rows[i].address));
		snprintf(url, sizeof(url), "https://[%s]:8443/x", rows[i].address);
		if (rows[i].verdict == FREE)
			allow(url, NULL);
		else
			refuse(url, NULL, rows[i].verdict == IF_TRUSTED ? PRIVATE : NEVER);
	}
	assert_true(allow("http://[fd00::7]", &trust).trusted);	/* written otherwise in the list */
	refuse("https://[fd00::8]", &trust, PRIVATE);
	refuse("https://[fd00:ec2::254]", &trust, NEVER);
}

static void
test_other_families(void **state)
{
	(void)state;
	struct sockaddr_storage none = { .ss_family = AF_UNIX };

	assert_false(host_address_allowed((const struct sockaddr *)&none, true));
	none.ss_family = AF_UNSPEC;
	assert_false(host_address_allowed((const struct sockaddr *)&none, true));
}

static void
test_patterns(void **state)
{
	(void)state;
	static const char *const good[] = { "h", "a.b.c", "*.a", "*.a.b", "10.0.0.1", "::1", "fd00::1", "A-b.C" };
	static const char *const bad[] = { "", "*", "*.", "*a", "a.*", "*.*.a", "a_b", "-a", "a.", ".a", "10.0.0.1:80", "[::1]", "https://a", "127.1", "0x1", "a b" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(host_pattern_valid(slice_of(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (host_pattern_valid(slice_of(bad[i])))
			fail_msg("\"%s\"", bad[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_odd_spellings),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_ipv4),
		cmocka_unit_test(test_embedded),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_other_families),
		cmocka_unit_test(test_patterns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
