// Certificates for the tests: a CA of our own and leaves under it, by openssl.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });

export function makeAuthority(dir, name = 'ca') {
	const key = path.join(dir, `${name}-key.pem`), cert = path.join(dir, `${name}.pem`);
	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30',
		'-subj', `/CN=weir test ${name}`, '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign',
		'-keyout', key, '-out', cert);
	return { key, cert, pem: readFileSync(cert, 'utf8') };
}

/** A leaf for 127.0.0.1 and localhost (or `names`), signed by the authority. */
export function makeCertificate(dir, authority, name, { names = 'IP:127.0.0.1,DNS:localhost', days = 30, rsa = false } = {}) {
	const key = path.join(dir, `${name}-key.pem`), cert = path.join(dir, `${name}.pem`);
	const request = path.join(dir, `${name}.csr`), extensions = path.join(dir, `${name}.ext`);
	writeFileSync(extensions, `subjectAltName=${names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n`);
	openssl('req', ...(rsa ? ['-newkey', 'rsa:2048'] : ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']), '-nodes',
		'-subj', `/CN=${name}`, '-keyout', key, '-out', request);
	openssl('x509', '-req', '-in', request, '-CA', authority.cert, '-CAkey', authority.key, '-CAcreateserial',
		'-days', String(days), '-extfile', extensions, '-out', cert);
	return { key, cert, pem: readFileSync(cert, 'utf8') };
}
