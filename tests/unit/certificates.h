/*
 * tests/unit/certificates.h -- certificates for TLS tests, made on the spot:
 * none lies in the tree, none runs out.
 *
 * Names are common names without alternative ones, which all clients still
 * accept where there is nothing else.
 */
#ifndef WEIR_TESTS_UNIT_CERTIFICATES_H
#define WEIR_TESTS_UNIT_CERTIFICATES_H

#include <stdio.h>
#include <mbedtls/ecp.h>
#include <mbedtls/pk.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#include "shm/base/check.h"
#include "upstream/wire/tls.h"

#define LONG_AGO "20200101000000"
#define LAST_YEAR "20210101000000"
#define FAR_AWAY "20900101000000"
#define FARTHER_AWAY "20910101000000"

struct pki {
	mbedtls_pk_context ca_key;
	char ca[2048];		/* PEM */
};

struct pair {
	char cert[2048], key[1024];
};

static inline int
pki_random(void *unused, unsigned char *out, size_t n)
{
	(void)unused;
	return tls_random(out, n) ? 0 : -1;
}

static inline void
pki_key(mbedtls_pk_context *key)
{
	mbedtls_pk_init(key);
	CHECK(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0);
	CHECK(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), pki_random, NULL) == 0);
}

/* mbedTLS 3.6 wants the number's bytes and warns of the other form. */
static inline void
pki_number(mbedtls_x509write_cert *w, unsigned char number)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03040000
	CHECK(mbedtls_x509write_crt_set_serial_raw(w, &number, 1) == 0);
#else
	mbedtls_mpi serial;

	mbedtls_mpi_init(&serial);
	CHECK(mbedtls_mpi_lset(&serial, number) == 0);
	CHECK(mbedtls_x509write_crt_set_serial(w, &serial) == 0);
	mbedtls_mpi_free(&serial);
#endif
}

static inline void
pki_sign(mbedtls_pk_context *ca_key, mbedtls_pk_context *key, const char *cn, bool ca, const char *from,
    const char *to, char *out, size_t size)
{
	mbedtls_x509write_cert w;
	unsigned char number;
	char name[128];

	CHECK(tls_random(&number, 1));
	mbedtls_x509write_crt_init(&w);
	snprintf(name, sizeof(name), "CN=%s", cn);
	mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(&w, key);
	mbedtls_x509write_crt_set_issuer_key(&w, ca_key);
	CHECK(mbedtls_x509write_crt_set_subject_name(&w, name) == 0);
	CHECK(mbedtls_x509write_crt_set_issuer_name(&w, "CN=weir test CA") == 0);
	pki_number(&w, (unsigned char)(number % 127 + 1));	/* one byte, positive */
	CHECK(mbedtls_x509write_crt_set_validity(&w, from, to) == 0);
	CHECK(mbedtls_x509write_crt_set_basic_constraints(&w, ca, -1) == 0);
	CHECK(mbedtls_x509write_crt_pem(&w, (unsigned char *)out, size, pki_random, NULL) == 0);
	mbedtls_x509write_crt_free(&w);
}

static inline void
pki_init(struct pki *p)
{
	pki_key(&p->ca_key);
	pki_sign(&p->ca_key, &p->ca_key, "weir test CA", true, LONG_AGO, FARTHER_AWAY, p->ca, sizeof(p->ca));
}

static inline void
pki_issue(struct pki *p, struct pair *out, const char *cn, const char *from, const char *to)
{
	mbedtls_pk_context key;

	pki_key(&key);
	pki_sign(&p->ca_key, &key, cn, false, from, to, out->cert, sizeof(out->cert));
	CHECK(mbedtls_pk_write_key_pem(&key, (unsigned char *)out->key, sizeof(out->key)) == 0);
	mbedtls_pk_free(&key);
}

static inline void
pki_free(struct pki *p)
{
	mbedtls_pk_free(&p->ca_key);
}

#endif
