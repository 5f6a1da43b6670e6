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

const DAY_MS = 86400000;
const stamp = (days) => new Date(Date.now() + days * DAY_MS).toISOString().replace(/[-:T]|\.\d+/g, '');

/** Signs a request, for any dates: "x509 -req" of newer OpenSSLs makes no expired certificate. */
function sign(dir, authority, name, request, extensions, cert, days) {
	const config = path.join(dir, `${name}.cnf`), index = path.join(dir, `${name}.index`);
	writeFileSync(index, '');
	writeFileSync(config, `[ca]\ndefault_ca=here\n[here]\ndatabase=${index}\nnew_certs_dir=${dir}\nrand_serial=yes\ndefault_md=sha256\n`
		+ 'policy=any\n[any]\ncommonName=supplied\n');
	openssl('ca', '-batch', '-notext', '-config', config, '-cert', authority.cert, '-keyfile', authority.key, '-in', request, '-out', cert,
		'-extfile', extensions, '-startdate', stamp(Math.min(days, 0) - 1), '-enddate', stamp(days));
}

/** A leaf for 127.0.0.1 and localhost (or `names`), signed by the authority. */
export function makeCertificate(dir, authority, name, { names = 'IP:127.0.0.1,DNS:localhost', days = 30, rsa = false } = {}) {
	const key = path.join(dir, `${name}-key.pem`), cert = path.join(dir, `${name}.pem`);
	const request = path.join(dir, `${name}.csr`), extensions = path.join(dir, `${name}.ext`);
	writeFileSync(extensions, `subjectAltName=${names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n`);
	openssl('req', ...(rsa ? ['-newkey', 'rsa:2048'] : ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']), '-nodes',
		'-subj', `/CN=${name}`, '-keyout', key, '-out', request);
	sign(dir, authority, name, request, extensions, cert, days);
	return { key, cert, pem: readFileSync(cert, 'utf8') };
}
