// What the provider remembers: requests as they came, answers as they left, the
// bill, the violations, and its connections.
//
// Of every request the digest, the usage and the price are kept; of the last
// ones also the raw header lines and the bytes of bodies, in and out.

import { createHash } from 'node:crypto';

const DETAILED_MAX = 4000;
const BODY_KEPT_MAX = 4 * 1024 * 1024;

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

export class Memory {
	constructor() {
		this.connections = { opened: 0, open: 0, resumed: 0, protocols: {}, requests_most: 0 };
		this.held = 0;
		this.gates = new Map();
		this.reset();
	}

	/** A promise that release() fulfils: streams that are held at one gate. */
	gate(name) {
		if (!this.gates.has(name)) {
			const gate = {};
			gate.opened = new Promise((resolve) => { gate.open = resolve; });
			this.gates.set(name, gate);
		}
		return this.gates.get(name);
	}

	release(name) {
		this.gate(name).open();
		this.gates.delete(name);
	}

	/** Forgets requests; connections that are open stay counted. */
	reset() {
		this.requests = [];
		this.turns = new Map();
		this.violations = [];
		this.inFlight = 0;
		this.total = 0n;
	}

	began(request, connection) {
		const n = this.requests.length + 1;
		const entry = {
			n, id: `req_fake_${String(n).padStart(8, '0')}_${request.nonce}`, connection, method: request.method, target: request.target,
			lines: request.lines, headers: request.headers, body_bytes: request.body.length, body_sha256: sha256(request.body),
			body: request.body.length <= BODY_KEPT_MAX ? request.body : null, began_ms: Date.now(),
			status: null, sent_bytes: 0, events_sent: 0, hash: createHash('sha256'), sent: [], complete: false, ended_ms: null, peer_left_ms: null,
			label: null, usage: null, model: null, cost: 0n,
		};
		this.requests.push(entry);
		this.inFlight++;
		if (n > DETAILED_MAX)
			Object.assign(this.requests[n - 1 - DETAILED_MAX], { lines: null, headers: null, body: null, sent: [] });
		return entry;
	}

	/** How many requests with this label have had their turn; this one has it now. */
	turn(label) {
		const before = this.turns.get(label) ?? 0;
		this.turns.set(label, before + 1);
		return before;
	}

	/** Body bytes of an answer that have left. */
	sent(entry, bytes) {
		entry.hash.update(bytes);
		entry.sent_bytes += bytes.length;
		if (entry.sent_bytes <= BODY_KEPT_MAX)
			entry.sent.push(bytes);
	}

	ended(entry, complete) {
		if (entry.ended_ms !== null)
			return;
		entry.complete = complete;
		entry.ended_ms = Date.now();
		entry.sent_sha256 = entry.hash.digest('hex');
		entry.hash = null;
		this.total += entry.cost;
		this.inFlight--;
	}

	violation(entry, text) {
		this.violations.push({ request: entry?.n ?? null, text });
	}

	bill() {
		return {
			total_nusd: this.total.toString(),
			requests: this.requests.filter((r) => r.ended_ms !== null).map((r) => ({
				id: r.id, label: r.label, model: r.model, status: r.status, complete: r.complete, usage: r.usage, cost_nusd: r.cost.toString(),
			})),
		};
	}

	/** The last `count` requests in full, or those of one label; bodies as base64 if asked for. */
	list(count, bodies, label = null) {
		const wanted = label === null ? this.requests : this.requests.filter((r) => r.label === label);
		return wanted.slice(-count).map((r) => ({
			n: r.n, id: r.id, label: r.label, connection: r.connection, method: r.method, target: r.target, lines: r.lines, headers: r.headers,
			body_bytes: r.body_bytes, body_sha256: r.body_sha256, body_base64: bodies && r.body ? r.body.toString('base64') : undefined,
			status: r.status, sent_bytes: r.sent_bytes, sent_sha256: r.sent_sha256 ?? null, events_sent: r.events_sent,
			sent_base64: bodies && r.sent_bytes <= BODY_KEPT_MAX ? Buffer.concat(r.sent).toString('base64') : undefined,
			complete: r.complete, began_ms: r.began_ms, ended_ms: r.ended_ms, peer_left_ms: r.peer_left_ms,
			usage: r.usage, model: r.model, cost_nusd: r.cost.toString(),
		}));
	}
}
