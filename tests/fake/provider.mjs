#!/usr/bin/env node
// A provider that is not there: Anthropic's Messages API, simulated.
//
//	node provider.mjs [--host 127.0.0.1] [--port 0] [--control 0] [--api-key K] [--account main]
//		[--prefix /PATH] [--tls --cert FILE --key FILE [--stranger-cert FILE --stranger-key FILE]]
//		[--prices FILE] [--with-parent]
//
// is one account of it, and prints {"port":N,"control":N} when it accepts
// connections. It is as strict about what it is sent as the real one, answers by
// a script (script.mjs, answer.mjs), and remembers everything, its bill to the
// nano-dollar included. Its second port is for the test, in plain HTTP, and
// answers whatever becomes of the first:
//
//	GET  /__bill		what was earned, in total and by request
//	GET  /__requests	?last=N&bodies=1&label=L: what came and what left
//	GET  /__violations	what a gateway must not send, and did
//	GET  /__stats		connections, requests in flight
//	POST /__script		{"behaviours":[script, ...]} for the next requests,
//				{"default":script} for all that say nothing,
//				{"counting":script} for count_tokens: what a prompt says
//				is about its answer, not about the count of it
//	POST /__outage		{"mode":name,"script":{...}}: it fails in that way (outage.mjs),
//				whatever prompts say; {"mode":null} ends it
//	POST /__release		{"gate":name}: streams held there go on
//	POST /__reset		forget requests, bill, violations, scripts

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { parseArgs } from 'node:util';

import { Account } from './account.mjs';
import { Sender, planAnswer } from './answer.mjs';
import { PriceList } from './bill.mjs';
import { checkRequest, violationsOf } from './checks.mjs';
import { Connection } from './connection.mjs';
import { ERRORS, REASONS, envelope } from './errors.mjs';
import { Memory } from './memory.mjs';
import { Outage } from './outage.mjs';
import { PromptCache } from './prompt-cache.mjs';
import { Refusal } from './refusal.mjs';
import { scriptOf } from './script.mjs';
import { responseHead } from './wire.mjs';

const { values: options } = parseArgs({ options: {
	host: { type: 'string', default: '127.0.0.1' }, port: { type: 'string', default: '0' }, control: { type: 'string', default: '0' },
	account: { type: 'string', default: 'main' }, 'stranger-cert': { type: 'string' }, 'stranger-key': { type: 'string' },
	'api-key': { type: 'string', default: 'sk-ant-simulated' }, prefix: { type: 'string', default: '' }, tls: { type: 'boolean', default: false },
	cert: { type: 'string' }, key: { type: 'string' },
	prices: { type: 'string', default: new URL('../../deploy/prices.json', import.meta.url).pathname },
	'with-parent': { type: 'boolean', default: false },
} });

const prices = new PriceList(JSON.parse(readFileSync(options.prices, 'utf8')));
const memory = new Memory(), outage = new Outage();
const makes = { account: new Account(options.account), promptCache: new PromptCache() };
const live = new Set();	/* connections */
const nonce = randomBytes(4).toString('hex');
let queue = [], standing = {}, counts = {};

const modelKnown = (model) => /^(claude|fake)-/.test(model);

function begin(connection, request) {
	request.nonce = nonce;
	memory.connections.requests_most = Math.max(memory.connections.requests_most, connection.requests);
	return memory.began(request, connection.id);
}

/** What is to become of this request: an outage goes first, then the queue, then the prompt over what stands. */
function scriptFor(asked, counting) {
	if (outage.script)
		return { ...asked, error: undefined, status: undefined, error_after: undefined, fault: undefined, ...outage.script };
	if (counting)
		return counts;
	if (queue.length > 0)
		return queue.shift();
	const own = { ...standing, ...asked, ...asked.accounts?.[options.account] };
	return own.in_turn ? { ...own, ...own.in_turn[Math.min(memory.turn(own.label), own.in_turn.length - 1)] } : own;
}

async function serve(connection, request) {
	const entry = begin(connection, request);
	for (const text of violationsOf(request, options['api-key']))
		memory.violation(entry, text);
	let whole = false;
	try {
		const { body, counting } = checkRequest(request, options, modelKnown), asked = scriptOf(body);
		entry.label = asked.label ?? null;
		makes.account.check(body);
		const script = scriptFor(asked, counting);
		const plan = planAnswer(script, body, counting, entry, request.body.length, makes);
		whole = await new Sender(connection, entry, script, memory).send(plan);
	} catch (e) {
		if (!(e instanceof Refusal))
			throw e;
		entry.status = e.status;
		whole = await reply(connection, e.status, envelope(e.type, e.message, entry.id, e.details), entry);
	}
	if (entry.usage)
		entry.cost = prices.cost(entry.model, entry.usage, entry.began_ms);
	entry.peer_left_ms = connection.leftMs;
	memory.ended(entry, whole);
}

function reply(connection, status, body, entry) {
	if (entry)
		memory.sent(entry, body);
	return connection.write(Buffer.concat([responseHead(status, REASONS[status], [['content-type', 'application/json'],
		['content-length', body.length], ...(entry ? [['request-id', entry.id]] : [])]), body]));
}

async function control(connection, request) {
	const url = new URL(request.target, 'http://provider');
	const answers = {
		'GET /__bill': () => memory.bill(),
		'GET /__requests': () => memory.list(Number(url.searchParams.get('last') ?? 1000), url.searchParams.has('bodies'), url.searchParams.get('label')),
		'GET /__violations': () => memory.violations,
		'GET /__stats': () => ({ ...memory.connections, requests: memory.requests.length, in_flight: memory.inFlight, held: memory.held, outage: outage.mode }),
		'POST /__script': (words) => setScript(words),
		'POST /__outage': (words) => setOutage(words),
		'POST /__release': (words) => { memory.release(words.gate); return {}; },
		'POST /__reset': () => { memory.reset(); queue = []; standing = {}; counts = {}; return {}; },
	};
	const answer = answers[`${request.method} ${url.pathname}`];
	let status = answer ? 200 : 404, said = { error: 'no such control' };
	try {
		said = await answer?.(JSON.parse(request.body.toString('utf8') || '{}')) ?? said;
	} catch (e) {
		status = 400;
		said = { error: e.message };
	}
	await reply(connection, status, Buffer.from(JSON.stringify(said)));
}

/** A queued {"early": name} answers at the head, as an edge does with a body that is too large. */
function early(head) {
	const name = outage.script ? undefined : queue[0]?.early;
	if (name === undefined)
		return null;
	queue.shift();
	const { status, headers, body } = ERRORS[name];
	return Buffer.concat([responseHead(status, REASONS[status], [...headers, ['content-length', Buffer.byteLength(body)], ['connection', 'close']]), Buffer.from(body)]);
}

function setScript(words) {
	if (words.behaviours)
		queue.push(...words.behaviours);
	if (words.default)
		standing = words.default;
	if (words.counting)
		counts = words.counting;
	return { queued: queue.length };
}

/** Connections that wait for a request are ended when what they would reach has changed. */
async function setOutage(words) {
	const { closed = false, stranger = false } = outage.kind;
	if (words.mode === 'stranger' && !strangerContext)
		throw new Error('without --stranger-cert there is no other certificate');
	outage.set(words);
	const now = { closed: outage.kind.closed ?? false, stranger: outage.kind.stranger ?? false };
	if (now.closed && !closed)
		server.close();
	if (closed && !now.closed)
		await listening(server, port);
	if (now.closed !== closed || now.stranger !== stranger)
		live.forEach((connection) => connection.retire());
	return { mode: outage.mode };
}

function accepted(socket, raw) {
	const c = memory.connections;
	const connection = new Connection(++c.opened, socket, raw, {
		serve, early, refused: (_, why) => memory.violation(null, `bad HTTP: ${why}`),
	});
	c.open++;
	live.add(connection);
	raw.once('close', () => { c.open--; live.delete(connection); });
	return connection;
}

const contextOf = (cert, key) => tls.createSecureContext({ cert: readFileSync(cert), key: readFileSync(key) });
const secureContext = options.tls ? contextOf(options.cert, options.key) : null;
const strangerContext = options['stranger-cert'] ? contextOf(options['stranger-cert'], options['stranger-key']) : null;

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (raw) => {
	if (!options.tls)
		return accepted(raw, raw);
	const socket = new tls.TLSSocket(raw, { isServer: true, secureContext: outage.kind.stranger ? strangerContext : secureContext, ALPNProtocols: ['http/1.1'] });
	socket.on('secure', () => {
		memory.connections.resumed += socket.isSessionReused() ? 1 : 0;
		const protocol = socket.getProtocol();
		memory.connections.protocols[protocol] = (memory.connections.protocols[protocol] ?? 0) + 1;
	});
	return accepted(socket, raw);
});
const controls = net.createServer({ allowHalfOpen: true, noDelay: true }, (raw) =>
	new Connection(0, raw, raw, { serve: control, early: () => null, refused: (_, why) => { throw new Error(`the test speaks no HTTP: ${why}`); } }));

/** The port on which it listens. */
function listening(on, wanted) {
	return new Promise((resolve, reject) => {
		on.once('error', reject);
		on.listen({ host: options.host, port: wanted, backlog: 4096 }, () => {
			on.off('error', reject);
			resolve(on.address().port);
		});
	});
}

const port = await listening(server, Number(options.port));
process.stdout.write(JSON.stringify({ port, control: await listening(controls, Number(options.control)) }) + '\n');
for (const signal of ['SIGTERM', 'SIGINT'])
	process.on(signal, () => process.exit(0));
if (options['with-parent']) {	/* ends with who started it, even by SIGKILL */
	const parent = process.ppid;
	setInterval(() => { if (process.ppid !== parent) process.exit(0); }, 500);
}
