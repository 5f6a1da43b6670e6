// One connection of a client (the gateway) to the provider: requests in, one
// answered after the other, and the moment at which the peer left.

import { LAST_CHUNK, RequestReader, WireError, responseHead } from './wire.mjs';
import { REASONS, envelope } from './errors.mjs';

const QUEUED_MAX = 64;

export class Connection {
	#reader = new RequestReader();
	#queue = [];
	#serving = false;
	#waiters = new Set();

	/**
	 * `socket` carries the bytes, `raw` is its TCP socket (the same one without
	 * TLS). `serve(connection, request)` answers one request, `early(head)` may
	 * give an answer (bytes) before the body has come, `refused` hears of bytes
	 * that are not HTTP.
	 */
	constructor(id, socket, raw, { serve, early, refused }) {
		Object.assign(this, { id, socket, raw, serve, early, refused, gone: false, leftMs: null, requests: 0, closing: false });
		raw.setNoDelay(true);
		socket.on('data', (bytes) => this.#data(bytes));
		for (const signal of ['end', 'close', 'error'])
			socket.on(signal, () => this.#left());
		if (raw !== socket)
			raw.on('error', () => this.#left());
	}

	#data(bytes) {
		if (this.closing)
			return;
		try {
			this.#queue.push(...this.#reader.push(bytes));
			if (this.#queue.length > QUEUED_MAX)
				throw new WireError('too many requests at once');
		} catch (e) {
			if (!(e instanceof WireError))
				throw e;
			this.#refuse(e.message);
			return;
		}
		const hasty = this.#reader.waiting && !this.#serving && this.early(this.#reader.waiting);
		if (hasty) {
			this.closing = true;
			this.socket.end(hasty);
			return;
		}
		if (this.#reader.takeExpectation())
			this.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
		this.#next();
	}

	async #next() {
		if (this.#serving || this.#queue.length === 0 || this.gone)
			return;
		this.#serving = true;
		this.requests++;
		const request = this.#queue.shift();
		await this.serve(this, request);
		this.#serving = false;
		if (this.gone)
			return;
		if (!request.keepAlive || this.closing)
			this.socket.end();
		else
			this.#next();
	}

	/** Bytes that are not HTTP: said so, noted, closed. */
	#refuse(why) {
		this.closing = true;
		this.refused(this, why);
		const body = envelope('invalid_request_error', `bad HTTP: ${why}`, null);
		this.socket.end(Buffer.concat([responseHead(400, REASONS[400],
			[['content-type', 'application/json'], ['content-length', body.length], ['connection', 'close']]), body]));
	}

	#left() {
		if (this.gone)
			return;
		this.gone = true;
		this.leftMs = Date.now();
		for (const wake of this.#waiters)
			wake();
		this.socket.destroy();
	}

	/** Resolves once the kernel has the bytes: true, or false when the peer is gone. */
	write(bytes) {
		if (this.gone)
			return Promise.resolve(false);
		return new Promise((resolve) => {
			const wake = () => { this.#waiters.delete(wake); resolve(false); };
			this.#waiters.add(wake);
			this.socket.write(bytes, (error) => {
				this.#waiters.delete(wake);
				resolve(!error && !this.gone);
			});
		});
	}

	/** A chunked body ends. */
	lastChunk() {
		return this.write(LAST_CHUNK);
	}

	/** Lets time pass, less if the peer leaves. */
	pause(ms) {
		if (this.gone)
			return Promise.resolve();
		return new Promise((resolve) => {
			const wake = () => { clearTimeout(timer); this.#waiters.delete(wake); resolve(); };
			const timer = setTimeout(wake, ms);
			this.#waiters.add(wake);
		});
	}

	/** Waits for a promise, less if the peer leaves. */
	await(promise) {
		if (this.gone)
			return Promise.resolve();
		return new Promise((resolve) => {
			const wake = () => { this.#waiters.delete(wake); resolve(); };
			this.#waiters.add(wake);
			promise.then(wake);
		});
	}

	/** One turn of the event loop, so that two writes are two segments. */
	turn() {
		return new Promise((resolve) => setImmediate(resolve));
	}

	/** Breaks the connection with a TCP reset. */
	reset() {
		this.closing = true;
		this.raw.resetAndDestroy();
		this.#left();
	}

	/** Ends the TCP connection under TLS, without TLS's word that this is the end. */
	truncate() {
		this.closing = true;
		this.raw.end();
		this.socket.removeAllListeners('data');
	}

	/** Ends it unannounced: at once if nothing is being served, else behind the answer. */
	retire() {
		this.closing = true;
		if (!this.#serving && this.#queue.length === 0)
			this.socket.end();
	}

	/** Ends it in order, whatever was promised. */
	close() {
		this.closing = true;
		this.socket.end();
	}
}
