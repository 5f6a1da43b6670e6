// Sends one answer: in order, or with the fault that the script asks for.
//
// Every answer is a body (bytes, and at which offsets which event ends) and a
// framing. The provider's bill follows what left: `mark()` notes the usage of
// the last event whose bytes the kernel took.

import { gzipSync } from 'node:zlib';

import { ERRORS, REASONS, envelope } from './errors.mjs';
import { composeAnswer, countTokens, encodeEvent } from './script.mjs';
import { LAST_CHUNK, chunk, cutAt, responseHead } from './wire.mjs';

const ENDLESS_BYTES_MAX = 64 * 1024 * 1024;
const STALL_MS_MAX = 120000;
const BATCH = 32;	/* events that one write may carry when nothing delays them */

/** Headers that the provider puts on everything. */
function commonHeaders(entry) {
	return [
		['date', new Date().toUTCString()], ['request-id', entry.id], ['anthropic-organization-id', '6b1f0ad2-0000-4000-8000-00000000fake'],
		['anthropic-workspace-id', 'wrkspc_fake'], ['anthropic-ratelimit-requests-limit', '4000'], ['anthropic-ratelimit-requests-remaining', '3999'],
		['via', '1.1 edge'], ['server', 'simulated'], ['x-robots-tag', 'none'],
	];
}

/** {status, headers, body, marks}: what would be sent if nothing went wrong. `makes` are the account and its prompt cache. */
export function planAnswer(script, body, counting, entry, bodyBytes, makes) {
	if (script.error || script.status >= 400)
		return planError(script, entry);
	if (counting)
		return planWhole(200, 'application/json', Buffer.from(JSON.stringify({ input_tokens: countTokens(bodyBytes) })), entry, null);
	const answer = composeAnswer(script, body, bodyBytes, { name: `msg_${entry.id.slice(4)}`, ...makes });
	entry.model = answer.model;
	if (body.stream)
		return planStream(script, answer, entry);
	const text = script.pretty ? JSON.stringify(answer.message, null, 2) + '\n' : JSON.stringify(answer.message);
	return planWhole(200, 'application/json', Buffer.from(text), entry, answer.usage);
}

function planError(script, entry) {
	const known = ERRORS[script.error] ?? { status: script.status, headers: [['content-type', 'application/json']],
		body: script.body ?? envelope(script.error_type ?? 'api_error', 'scripted', entry.id) };
	return { status: known.status, headers: [...commonHeaders(entry), ...known.headers], body: Buffer.from(known.body), marks: [] };
}

function planWhole(status, type, bytes, entry, usage) {
	return { status, headers: [...commonHeaders(entry), ['content-type', type]], body: bytes, marks: usage ? [{ end: 1, usage }] : [] };
}

function planStream(script, answer, entry) {
	const pieces = answer.events.map((e, i) => encodeEvent(e, script.style, i === 0));
	if (script.fault?.kind === 'invalid_utf8')
		pieces.splice(2, 0, Buffer.concat([Buffer.from('event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'),
			Buffer.from([0xff, 0xfe, 0xc0, 0xaf]), Buffer.from('"}}\n\n')]));
	let end = 0;
	const ends = pieces.map((p) => (end += p.length));
	const events = script.fault?.kind === 'invalid_utf8' ? [...answer.events.slice(0, 2), answer.events[1], ...answer.events.slice(2)] : answer.events;
	return {
		status: 200, stream: true, body: Buffer.concat(pieces), ends,
		headers: [...commonHeaders(entry), ['content-type', 'text/event-stream; charset=utf-8'], ['cache-control', 'no-cache']],
		marks: events.map((e, i) => ({ end: ends[i], usage: e.usage, event: true })),
	};
}

export class Sender {
	constructor(connection, entry, script, memory) {
		Object.assign(this, { connection, entry, script, memory, offset: 0, marked: 0 });
	}

	/** Returns true if the whole answer left. */
	async send(plan) {
		const whole = await this.sendPlan(plan);
		if (whole && this.script.close_after)
			this.connection.close();
		return whole;
	}

	async sendPlan(plan) {
		const { script, connection } = this;
		this.entry.status = plan.status;
		this.plan = plan;
		if (script.gzip)
			this.compress(plan);
		this.pieces = this.cut(plan);
		if (script.hold?.before_head)
			await this.hold();
		if (script.delay_head_ms)
			await connection.pause(script.delay_head_ms);
		if (script.interim)
			await connection.write(Buffer.from(`HTTP/1.1 ${script.interim} Interim\r\nx-interim: 1\r\n\r\n`));
		const fault = HEAD_FAULTS[script.fault?.kind];
		if (fault) {
			await fault(this, plan);
			return false;
		}
		if (script.wire_cut)
			return this.sendWire(plan);
		if (!await connection.write(this.head(plan)))
			return false;
		return this.sendBody(plan);
	}

	compress(plan) {
		plan.body = gzipSync(plan.body);
		plan.headers.push(['content-encoding', 'gzip']);
		plan.marks = plan.marks.map((m) => ({ ...m, end: plan.body.length }));
		plan.ends = [plan.body.length];
	}

	/** The body in the pieces that are sent one by one. */
	cut(plan) {
		const { cut, every } = this.script;
		if (plan.body.length === 0)
			return [];
		if (cut)
			return cutAt(plan.body, cut);
		if (every)
			return cutAt(plan.body, Array.from({ length: Math.ceil(plan.body.length / every) }, (_, i) => i * every));
		return cutAt(plan.body, plan.ends ?? []);
	}

	framing() {
		return this.script.framing ?? (this.plan.stream || this.script.cut || this.script.every ? 'chunked' : 'length');
	}

	head(plan) {
		const headers = [...plan.headers, ...(this.script.headers ?? [])];
		const framing = this.framing();
		if (framing === 'length')
			headers.push(['content-length', plan.body.length]);
		if (framing === 'chunked')
			headers.push(['transfer-encoding', 'chunked']);
		if (framing === 'close') {
			headers.push(['connection', 'close']);
			this.connection.closing = true;
		}
		const head = responseHead(plan.status, REASONS[plan.status] ?? 'Status', headers);
		return this.script.http10 ? Buffer.from(head.toString('latin1').replace('HTTP/1.1', 'HTTP/1.0'), 'latin1') : head;
	}

	frame(bytes) {
		return this.framing() === 'chunked' ? chunk(bytes) : bytes;
	}

	async sendBody(plan) {
		const { script, connection } = this;
		const fault = BODY_FAULTS[script.fault?.kind];
		const stop = fault ? this.faultOffset(plan) : Infinity;
		if (script.delay_first_ms)
			await connection.pause(script.delay_first_ms);
		for (let i = 0; i < this.pieces.length && this.offset < stop;) {
			const batch = this.batch(i, stop);
			if (!await connection.write(Buffer.concat(batch.map((b) => this.frame(b)))))
				return false;
			batch.forEach((b) => this.mark(b));
			i += batch.length;
			if (i < this.pieces.length || fault || script.pause || script.hold)
				await this.between();
			if (connection.gone)
				return false;
		}
		if (fault) {
			await fault(this);
			return false;
		}
		if (this.framing() === 'chunked')
			return connection.write(script.trailers ? Buffer.from('0\r\nx-checksum: abc\r\n\r\n') : LAST_CHUNK);
		return true;
	}

	/** Pieces from i on that may leave in one write. */
	batch(i, stop) {
		const { delay_ms, cut, every, pause, hold } = this.script;
		const alone = delay_ms !== undefined || cut || every || pause || hold;
		const batch = this.pieces.slice(i, alone ? i + 1 : i + BATCH);
		let offset = this.offset;
		return batch.map((b) => {
			const kept = b.subarray(0, Math.max(0, stop - offset));
			offset += b.length;
			return kept;
		}).filter((b) => b.length > 0);
	}

	/** Silence until the gate of the script is opened. */
	async hold() {
		this.paused = true;
		this.memory.held++;
		await this.connection.await(this.memory.gate(this.script.hold.gate).opened);
		this.memory.held--;
	}

	async between() {
		const { delay_ms, gap_ms, pause, hold, cut, every } = this.script;
		if (hold && this.entry.events_sent === hold.after_events && !this.paused)
			await this.hold();
		if (pause && this.entry.events_sent === pause.after_events && !this.paused) {
			this.paused = true;
			await this.connection.pause(pause.ms);
		}
		const ms = delay_ms ?? gap_ms;
		if (ms !== undefined)
			await this.connection.pause(ms);
		else if (cut || every)
			await this.connection.turn();
	}

	/** These bytes of the body have left. */
	mark(bytes) {
		this.offset += bytes.length;
		this.memory.sent(this.entry, bytes);
		const { marks } = this.plan;
		for (; this.marked < marks.length && marks[this.marked].end <= this.offset; this.marked++) {
			this.entry.usage = marks[this.marked].usage;
			if (marks[this.marked].event)
				this.entry.events_sent++;
		}
	}

	/** Head and body as one stretch of bytes, cut anywhere. */
	async sendWire(plan) {
		const wire = Buffer.concat([this.head(plan), ...this.pieces.map((p) => this.frame(p)),
			this.framing() === 'chunked' ? LAST_CHUNK : Buffer.alloc(0)]);
		for (const piece of cutAt(wire, this.script.wire_cut)) {
			if (!await this.connection.write(piece))
				return false;
			await (this.script.gap_ms ? this.connection.pause(this.script.gap_ms) : this.connection.turn());
		}
		this.mark(plan.body);
		return true;
	}

	/** Where in the body the fault strikes. */
	faultOffset(plan) {
		const { at, after_events, plus = 0 } = this.script.fault;
		if (after_events !== undefined)
			return (after_events > 0 ? plan.ends?.[after_events - 1] ?? plan.body.length >> 1 : 0) + plus;	/* a plain answer has no events: its middle */
		return at ?? Math.floor(plan.body.length / 2);
	}
}

const write = (sender, text) => sender.connection.write(Buffer.from(text, 'latin1'));

/** The head with one line more, then the body unframed; a lie about its length. */
async function lyingHead(sender, plan, lines) {
	const head = responseHead(plan.status, 'OK', [...plan.headers, ...lines]);
	await sender.connection.write(Buffer.concat([head, plan.body]));
	sender.connection.close();
}

async function brokenHead(sender, text) {
	await write(sender, text);
	sender.connection.close();
}

async function stall(sender) {
	await sender.connection.pause(STALL_MS_MAX);
	sender.connection.reset();
}

const HEAD_FAULTS = {
	reset_before_head: (s) => s.connection.reset(),
	close_before_head: (s) => s.connection.close(),
	stall_before_head: stall,
	reset_in_head: async (s, plan) => {
		await s.connection.write(s.head(plan).subarray(0, 60));
		await s.connection.turn();
		s.connection.reset();
	},
	close_in_head: async (s, plan) => {
		await s.connection.write(s.head(plan).subarray(0, 60));
		s.connection.close();
	},
	garbage: (s) => brokenHead(s, '\x00\x01\x02SSH-2.0-nonsense\r\n\r\n{}'),
	two_lengths: (s, plan) => lyingHead(s, plan, [['content-length', plan.body.length], ['content-length', plan.body.length - 7]]),
	length_and_chunked: (s, plan) => lyingHead(s, plan, [['content-length', plan.body.length], ['transfer-encoding', 'chunked']]),
	bad_length: (s, plan) => lyingHead(s, plan, [['content-length', '12abc']]),
	negative_length: (s, plan) => lyingHead(s, plan, [['content-length', '-5']]),
	obs_fold: (s) => brokenHead(s, 'HTTP/1.1 200 OK\r\nx-a: one\r\n two\r\ncontent-length: 2\r\n\r\n{}'),
	bare_lf: (s) => brokenHead(s, 'HTTP/1.1 200 OK\ncontent-length: 2\n\n{}'),
	nul_in_head: (s) => brokenHead(s, 'HTTP/1.1 200 OK\r\nx-a: o\x00e\r\ncontent-length: 2\r\n\r\n{}'),
	space_before_colon: (s) => brokenHead(s, 'HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n{}'),
	switching: (s) => brokenHead(s, 'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello'),
	long_header: (s) => brokenHead(s, `HTTP/1.1 200 OK\r\nx-a: ${'a'.repeat(200000)}\r\ncontent-length: 2\r\n\r\n{}`),
	endless_head: async (s) => {
		let sent = 0;
		await write(s, 'HTTP/1.1 200 OK\r\n');
		const line = Buffer.from(`x-more: ${'b'.repeat(1000)}\r\n`.repeat(16));
		while (sent < ENDLESS_BYTES_MAX && await s.connection.write(line))
			sent += line.length;
		s.connection.reset();
	},
	long_body: async (s, plan) => {
		/* More than was announced; the connection stays open. */
		const head = responseHead(plan.status, 'OK', [...plan.headers, ['content-length', plan.body.length]]);
		await s.connection.write(Buffer.concat([head, plan.body, Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled')]));
		s.mark(plan.body);
	},
	short_body: async (s, plan) => {
		const head = responseHead(plan.status, 'OK', [...plan.headers, ['content-length', plan.body.length + 1000]]);
		await s.connection.write(Buffer.concat([head, plan.body]));
		s.mark(plan.body);
		s.connection.close();
	},
	huge_line: async (s, plan) => {
		await s.connection.write(s.head(plan));
		const piece = Buffer.alloc(1 << 20, 'a');
		const megabytes = s.script.fault.megabytes ?? 100;
		let whole = await s.connection.write(chunk(Buffer.from('event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"')));
		for (let i = 0; i < megabytes && whole; i++) {
			whole = await s.connection.write(chunk(piece));
			s.memory.sent(s.entry, piece);
		}
		if (whole)
			await s.connection.write(Buffer.concat([chunk(Buffer.from('"}}\n\n')), LAST_CHUNK]));
	},
};

const BODY_FAULTS = {
	reset: async (s) => {
		await s.connection.turn();
		s.connection.reset();
	},
	close: (s) => s.connection.close(),
	truncate: (s) => s.connection.truncate(),
	stall,
	bad_chunk: async (s) => {
		await write(s, 'zz\r\nnot a size\r\n');
		s.connection.close();
	},
	chunk_overrun: async (s) => {
		await write(s, '5\r\nabcdefgh\r\n0\r\n\r\n');
		s.connection.close();
	},
	huge_chunk: async (s) => {
		await write(s, 'fffffffffffffffff\r\nx');
		s.connection.close();
	},
};
