// HTTP/1.1 as the simulated provider reads it: strictly, and keeping the bytes.
//
// A reader is fed with whatever the socket gave and hands out whole requests.
// Nothing is repaired on the way: a message that RFC 9112 calls ambiguous is an
// error, because a gateway that sends one would be answered 400 (or smuggled
// through) by the real provider.

const HEAD_BYTES_MAX = 65536;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const SINGLETONS = ['host', 'content-length', 'content-type', 'transfer-encoding', 'x-api-key', 'authorization',
	'anthropic-version', 'user-agent', 'expect', 'connection'];

export class WireError extends Error {}

export class RequestReader {
	#buffer = Buffer.alloc(0);
	#request = null;	// its head is complete, its body is coming
	#parts = [];
	#missing = 0;		// bytes of the body, or of the chunk, still to come
	#chunkState = 'size';

	/** Takes bytes; returns the requests that they completed. Throws WireError. */
	push(bytes) {
		const done = [];
		this.#buffer = this.#buffer.length ? Buffer.concat([this.#buffer, bytes]) : bytes;
		for (;;) {
			if (!this.#request && !this.#readHead())
				return done;
			if (!(this.#request.chunked ? this.#readChunks() : this.#readLength()))
				return done;
			this.#request.body = Buffer.concat(this.#parts);
			done.push(this.#request);
			this.#request = null;
			this.#parts = [];
		}
	}

	/** True between messages: an end of the connection here is a clean one. */
	get idle() {
		return !this.#request && this.#buffer.length === 0;
	}

	/** A head that is complete while its body is still coming, or null. */
	get waiting() {
		return this.#request;
	}

	/** True once for a head that asked to be told to go on. */
	takeExpectation() {
		if (!this.#request?.expects)
			return false;
		this.#request.expects = false;
		return true;
	}

	#readHead() {
		const end = this.#buffer.indexOf('\r\n\r\n');
		if (end < 0) {
			if (this.#buffer.length > HEAD_BYTES_MAX)
				throw new WireError('head is over 64 KiB');
			return false;
		}
		this.#request = parseHead(this.#buffer.subarray(0, end).toString('latin1'));
		this.#buffer = this.#buffer.subarray(end + 4);
		this.#missing = this.#request.contentLength;
		this.#chunkState = 'size';
		return true;
	}

	#readLength() {
		this.#take();
		return this.#missing === 0;
	}

	#take() {
		const n = Math.min(this.#missing, this.#buffer.length);
		if (n > 0)
			this.#parts.push(this.#buffer.subarray(0, n));
		this.#buffer = this.#buffer.subarray(n);
		this.#missing -= n;
	}

	#readChunks() {
		for (;;) {
			if (this.#chunkState === 'data') {
				this.#take();
				if (this.#missing > 0 || this.#buffer.length < 2)
					return false;
				if (this.#buffer[0] !== 13 || this.#buffer[1] !== 10)
					throw new WireError('chunk data is not followed by CRLF');
				this.#buffer = this.#buffer.subarray(2);
				this.#chunkState = 'size';
			}
			const end = this.#buffer.indexOf('\r\n');
			if (end < 0) {
				if (this.#buffer.length > 1024)
					throw new WireError('chunk size line is over 1 KiB');
				return false;
			}
			const line = this.#buffer.subarray(0, end).toString('latin1');
			this.#buffer = this.#buffer.subarray(end + 2);
			if (this.#chunkState === 'trailer') {
				if (line !== '')
					throw new WireError('trailers are not expected');
				return true;
			}
			if (!/^[0-9a-fA-F]{1,15}$/.test(line))
				throw new WireError(`chunk size "${line}"`);
			this.#missing = parseInt(line, 16);
			this.#chunkState = this.#missing === 0 ? 'trailer' : 'data';
		}
	}
}

function parseHead(text) {
	const lines = text.split('\r\n');
	const start = /^([A-Z]+) ([\x21-\x7e]+) HTTP\/1\.1$/.exec(lines[0]);
	if (!start)
		throw new WireError(`request line ${JSON.stringify(lines[0].slice(0, 80))}`);
	const headers = lines.slice(1).map(parseHeader);
	const all = (name) => headers.filter(([n]) => n.toLowerCase() === name).map(([, v]) => v);
	for (const name of SINGLETONS)
		if (all(name).length > 1)
			throw new WireError(`header ${name} came ${all(name).length} times`);
	if (all('host').length !== 1)
		throw new WireError('no host header');
	const length = all('content-length')[0], coding = all('transfer-encoding')[0];
	if (length !== undefined && coding !== undefined)
		throw new WireError('both content-length and transfer-encoding');
	if (length !== undefined && !/^[0-9]{1,15}$/.test(length))
		throw new WireError(`content-length "${length}"`);
	if (coding !== undefined && coding.toLowerCase() !== 'chunked')
		throw new WireError(`transfer-encoding "${coding}"`);
	return {
		method: start[1], target: start[2], lines: lines.slice(1), headers,
		header: (name) => all(name)[0], headerAll: all,
		chunked: coding !== undefined, contentLength: Number(length ?? 0),
		lengthKnown: length !== undefined || coding !== undefined,
		expects: all('expect')[0]?.toLowerCase() === '100-continue',
		keepAlive: !/\bclose\b/i.test(all('connection')[0] ?? ''),
	};
}

function parseHeader(line) {
	const colon = line.indexOf(':');
	const name = line.slice(0, colon), value = line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '');
	if (colon < 1 || !TOKEN.test(name))
		throw new WireError(`header line ${JSON.stringify(line.slice(0, 80))}`);
	if (!FIELD_VALUE.test(value))
		throw new WireError(`value of header ${name}`);
	return [name, value];
}

/** One HTTP chunk around the bytes. */
export function chunk(bytes) {
	return Buffer.concat([Buffer.from(bytes.length.toString(16) + '\r\n'), bytes, Buffer.from('\r\n')]);
}

export const LAST_CHUNK = Buffer.from('0\r\n\r\n');

/** `bytes` in pieces that end at the given offsets. */
export function cutAt(bytes, offsets) {
	const ends = [...new Set(offsets)].filter((o) => o > 0 && o < bytes.length).sort((a, b) => a - b);
	return [...ends, bytes.length].map((end, i) => bytes.subarray(i ? ends[i - 1] : 0, end));
}

export function responseHead(status, reason, headers) {
	return Buffer.from([`HTTP/1.1 ${status} ${reason}`, ...headers.map(([n, v]) => `${n}: ${v}`), '', ''].join('\r\n'), 'latin1');
}
