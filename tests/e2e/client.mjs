// A client that sees every byte: raw sockets, plain or TLS, and a strict reader
// of answers. Tests of framing, order and fidelity use it; it never repairs.

import net from 'node:net';
import tls from 'node:tls';

const DEADLINE_MS = 60000;

/** Waits until `probe()` gives something other than undefined or false. */
export async function until(probe, what, ms = DEADLINE_MS, everyMs = 10) {
	const end = Date.now() + ms;
	for (;;) {
		const value = await probe();
		if (value !== undefined && value !== false)
			return value;
		if (Date.now() > end)
			throw new Error(`not within ${ms} ms: ${what}`);
		await new Promise((resolve) => setTimeout(resolve, everyMs));
	}
}

/**
 * A bound of time that a busy machine may miss: until one of several tries keeps
 * it. What waits for the wrong thing is late every time.
 */
export async function timely(attempt, what, tries = 8) {
	for (let i = 0; i < tries; i++) {
		const value = await attempt();
		if (value !== undefined && value !== false)
			return value;
	}
	throw new Error(`late in each of ${tries} tries: ${what}`);
}

export class Headers {
	constructor(lines) {
		this.lines = lines;
		this.list = lines.map((line) => {
			const colon = line.indexOf(':');
			if (colon < 1 || /[ \t]$/.test(line.slice(0, colon)))
				throw new Error(`bad header line ${JSON.stringify(line)}`);
			return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
		});
	}

	all(name) {
		return this.list.filter(([n]) => n === name).map(([, v]) => v);
	}

	get(name) {
		const found = this.all(name);
		if (found.length > 1)
			throw new Error(`header ${name} came ${found.length} times`);
		return found[0];
	}

	has(name) {
		return this.all(name).length > 0;
	}
}

/** The bytes of a request; `headers` are [name, value] pairs, as they go out. */
export function requestBytes({ method = 'POST', path = '/v1/messages', headers = [], body, version = '1.1' }) {
	const bytes = body === undefined ? null : Buffer.from(body);
	const lines = headers.map(([n, v]) => `${n}: ${v}`);
	if (!headers.some(([n]) => n.toLowerCase() === 'host'))
		lines.unshift('host: weir.test');
	if (bytes && !headers.some(([n]) => /^(content-length|transfer-encoding)$/i.test(n)))
		lines.push(`content-length: ${bytes.length}`);
	const head = Buffer.from([`${method} ${path} HTTP/${version}`, ...lines, '', ''].join('\r\n'), 'latin1');
	return bytes ? Buffer.concat([head, bytes]) : head;
}

/** A body in chunks that end at the given offsets. */
export function chunked(bytes, offsets = []) {
	const ends = [...offsets.filter((o) => o > 0 && o < bytes.length), bytes.length];
	const parts = ends.map((end, i) => bytes.subarray(i ? ends[i - 1] : 0, end));
	return Buffer.concat([...parts.flatMap((p) => [Buffer.from(`${p.length.toString(16)}\r\n`), p, Buffer.from('\r\n')]),
		Buffer.from('0\r\n\r\n')]);
}

export class Client {
	#buffer = Buffer.alloc(0);
	#wake = null;
	ended = false;		// the server closed in order
	error = null;		// or not
	received = 0;

	/** {port, host, tls: {ca, servername, session, ...}} */
	static async open({ port, host = '127.0.0.1', tls: tlsOptions = null, deadlineMs = DEADLINE_MS }) {
		const client = new Client();
		client.deadlineMs = deadlineMs;
		const socket = tlsOptions
			? tls.connect({ host, port, servername: 'localhost', ALPNProtocols: ['http/1.1'], ...tlsOptions })
			: net.connect({ host, port });
		client.socket = socket;
		await new Promise((resolve, reject) => {
			socket.once(tlsOptions ? 'secureConnect' : 'connect', resolve);
			socket.once('error', reject);
		});
		socket.removeAllListeners('error');
		socket.setNoDelay(true);
		socket.on('data', (bytes) => client.#data(bytes));
		socket.on('end', () => { client.ended = true; client.#signal(); });
		socket.on('close', () => { client.closed = true; client.ended = true; client.#signal(); });
		socket.on('error', (error) => { client.error = error; client.#signal(); });
		return client;
	}

	#data(bytes) {
		this.received += bytes.length;
		this.#buffer = this.#buffer.length ? Buffer.concat([this.#buffer, bytes]) : bytes;
		this.#signal();
	}

	#signal() {
		this.#wake?.();
	}

	/** Resolves when `probe()` gives a value; null when the server is gone first. */
	async #wait(probe, what) {
		const end = Date.now() + this.deadlineMs;
		for (;;) {
			const value = probe();
			if (value !== undefined)
				return value;
			if (this.ended || this.error)
				return null;
			const left = end - Date.now();
			if (left <= 0)
				throw new Error(`no ${what} within ${this.deadlineMs} ms; have ${JSON.stringify(this.#buffer.subarray(0, 300).toString('latin1'))}`);
			await new Promise((resolve) => {
				const timer = setTimeout(resolve, left);
				this.#wake = () => { clearTimeout(timer); resolve(); };
			});
			this.#wake = null;
		}
	}

	write(bytes) {
		return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
	}

	send(request) {
		return this.write(requestBytes(request));
	}

	/** Half-closes: no more will be sent. */
	end() {
		this.socket.end();
	}

	/** Leaves without a word. */
	close() {
		this.socket.destroy();
	}

	reset() {
		this.socket.resetAndDestroy();
	}

	/** Stops reading, so that the kernel's buffers fill. */
	pause() {
		this.socket.pause();
	}

	resume() {
		this.socket.resume();
	}

	/** The next head, 1xx included: {status, headers}; null if the server is gone. */
	async head() {
		const text = await this.#wait(() => {
			const end = this.#buffer.indexOf('\r\n\r\n');
			if (end < 0)
				return undefined;
			const head = this.#buffer.subarray(0, end).toString('latin1');
			this.#buffer = this.#buffer.subarray(end + 4);
			return head;
		}, 'head');
		if (text === null)
			return null;
		const [start, ...lines] = text.split('\r\n');
		const match = /^HTTP\/1\.1 ([0-9]{3})(?: ([^\r\n]*))?$/.exec(start);
		if (!match)
			throw new Error(`bad status line ${JSON.stringify(start)}`);
		return { status: Number(match[1]), reason: match[2], headers: new Headers(lines), text };
	}

	/**
	 * The next piece of body as it came: a Buffer, or null at the end.
	 * `state` is what bodyState() made of the head.
	 */
	async part(state) {
		if (state.kind === 'none' || state.done)
			return null;
		if (state.kind === 'close')
			return this.#some(Infinity);
		if (state.left > 0) {
			const piece = await this.#some(state.left);
			if (piece === null)
				throw new Error('the answer was cut off');
			state.left -= piece.length;
			if (state.kind === 'chunked' && state.left === 0)
				await this.#line('');
			return piece;
		}
		if (state.kind === 'length')
			return null;
		const size = await this.#line();
		if (!/^[0-9a-f]+$/i.test(size))
			throw new Error(`bad chunk size ${JSON.stringify(size)}`);
		state.left = parseInt(size, 16);
		if (state.left > 0)
			return this.part(state);
		while (await this.#line() !== '')
			state.trailers = true;
		state.done = true;
		return null;
	}

	async #some(most) {
		const piece = await this.#wait(() => {
			if (this.#buffer.length === 0)
				return undefined;
			const taken = this.#buffer.subarray(0, most);
			this.#buffer = this.#buffer.subarray(taken.length);
			return taken;
		}, 'body');
		return piece;
	}

	async #line(expected) {
		const line = await this.#wait(() => {
			const end = this.#buffer.indexOf('\r\n');
			if (end < 0)
				return undefined;
			const text = this.#buffer.subarray(0, end).toString('latin1');
			this.#buffer = this.#buffer.subarray(end + 2);
			return text;
		}, 'line');
		if (line === null)
			throw new Error('the answer was cut off');
		if (expected !== undefined && line !== expected)
			throw new Error(`${JSON.stringify(line)} where ${JSON.stringify(expected)} belongs`);
		return line;
	}

	/** A whole answer. With `cut` allowed, {cut: true} says that it broke off. */
	async response({ method = 'POST', mayBreak = false } = {}) {
		let head = await this.head();
		const interim = [];
		while (head && head.status >= 100 && head.status < 200) {
			interim.push(head);
			head = await this.head();
		}
		if (!head) {
			if (mayBreak)
				return null;
			throw new Error(`the server closed without an answer${this.error ? ` (${this.error.code})` : ''}`);
		}
		const answer = { ...head, interim, parts: [], times: [], cut: false };
		const state = bodyState(head, method);
		try {
			for (let piece; (piece = await this.part(state)) !== null;) {
				answer.parts.push(piece);
				answer.times.push(Date.now());
			}
		} catch (e) {
			if (!mayBreak)
				throw e;
			answer.cut = true;
		}
		answer.body = Buffer.concat(answer.parts);
		answer.framing = state.kind;
		return answer;
	}

	/** Sends and reads: for tests that care about the answer, not the wire. */
	async exchange(request, options) {
		await this.send(request);
		return this.response({ method: request.method, ...options });
	}

	/** Everything until the server closes; how it closed is in .error. */
	async drain() {
		await this.#wait(() => undefined, 'end of the connection');
		return this.#buffer;
	}

	/** Bytes that came and nobody asked for. */
	get unread() {
		return this.#buffer;
	}
}

export function bodyState(head, method) {
	const length = head.headers.get('content-length'), coding = head.headers.get('transfer-encoding');
	if (length !== undefined && coding !== undefined)
		throw new Error('both content-length and transfer-encoding');
	if (method === 'HEAD' || head.status === 204 || head.status === 304)
		return { kind: 'none' };
	if (coding !== undefined) {
		if (coding !== 'chunked')
			throw new Error(`transfer-encoding ${coding}`);
		return { kind: 'chunked', left: 0 };
	}
	if (length !== undefined) {
		if (!/^[0-9]+$/.test(length))
			throw new Error(`content-length ${length}`);
		return { kind: 'length', left: Number(length) };
	}
	return { kind: 'close' };
}

const PING = 'event: ping\ndata: {"type":"ping"}\n\n';

/** How many pings stand in a stream. */
export function pingsIn(bytes) {
	return bytes.toString('latin1').split(PING).length - 1;
}

/** A stream without what weir may put into it: pings, and comments before the first event. */
export function withoutPings(bytes) {
	return Buffer.from(bytes.toString('latin1').replaceAll(PING, '').replace(/^(:[^\n]*\n\n)+/, ''), 'latin1');
}

/** The events of a stream: [{event, data, json}]. Comments are kept as such. */
export function parseEvents(bytes) {
	return bytes.toString('utf8').split('\n\n').filter((frame) => frame !== '').map((frame) => {
		const event = { comments: [] };
		for (const line of frame.split('\n')) {
			if (line.startsWith(':'))
				event.comments.push(line);
			else if (line.startsWith('event:'))
				event.event = line.slice(6).trim();
			else if (line.startsWith('data:'))
				event.data = (event.data === undefined ? '' : event.data + '\n') + line.slice(5).trim();
		}
		if (event.data !== undefined)
			event.json = JSON.parse(event.data);
		return event;
	});
}
