#!/usr/bin/env node
// A provider that is not there: Anthropic's Messages API, simulated.
//
//	node provider.mjs [--host 127.0.0.1] [--port 0] [--api-key K] [--prefix /PATH]
//		[--tls --cert FILE --key FILE] [--prices FILE] [--with-parent]
//
// prints {"port":N} when it accepts connections. It is as strict about what it
// is sent as the real one, answers by a script (script.mjs, answer.mjs), and
// remembers everything, its bill to the nano-dollar included:
//
//	GET  /__bill		what was earned, in total and by request
//	GET  /__requests	?last=N&bodies=1: what came and what left
//	GET  /__violations	what a gateway must not send, and did
//	GET  /__stats		connections, requests in flight
//	POST /__script		{"behaviours":[script, ...]} for the next requests,
//				{"default":script} for all that say nothing,
//				{"counting":script} for count_tokens: what a prompt says
//				is about its answer, not about the count of it
//	POST /__release		{"gate":name}: streams held there go on
//	POST /__reset		forget requests, bill, violations, scripts

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { parseArgs } from 'node:util';

import { Sender, planAnswer } from './answer.mjs';
import { PriceList } from './bill.mjs';
import { Refusal, checkRequest, violationsOf } from './checks.mjs';
import { Connection } from './connection.mjs';
import { ERRORS, REASONS, envelope } from './errors.mjs';
import { Memory } from './memory.mjs';
import { scriptOf } from './script.mjs';
import { responseHead } from './wire.mjs';

const { values: options } = parseArgs({ options: {
	host: { type: 'string', default: '127.0.0.1' }, port: { type: 'string', default: '0' },
	'api-key': { type: 'string', default: 'sk-ant-simulated' }, prefix: { type: 'string', default: '' }, tls: { type: 'boolean', default: false },
	cert: { type: 'string' }, key: { type: 'string' },
	prices: { type: 'string', default: new URL('../../deploy/prices.json', import.meta.url).pathname },
	'with-parent': { type: 'boolean', default: false },
} });

const prices = new PriceList(JSON.parse(readFileSync(options.prices, 'utf8')));
const memory = new Memory();
const nonce = randomBytes(4).toString('hex');
let queue = [], standing = {}, counts = {};

const modelKnown = (model) => /^(claude|fake)-/.test(model);

function begin(connection, request) {
	request.nonce = nonce;
	memory.connections.requests_most = Math.max(memory.connections.requests_most, connection.requests);
	return memory.began(request, connection.id);
}

async function serve(connection, request) {
	if (request.target.startsWith('/__'))
		return control(connection, request);
	const entry = begin(connection, request);
	for (const text of violationsOf(request, options['api-key']))
		memory.violation(entry, text);
	let whole = false;
	try {
		const { body, counting } = checkRequest(request, options, modelKnown);
		const script = counting ? counts : queue.shift() ?? { ...standing, ...scriptOf(body) };
		const plan = planAnswer(script, body, counting, entry, request.body.length);
		whole = await new Sender(connection, entry, script, memory).send(plan);
	} catch (e) {
		if (!(e instanceof Refusal))
			throw e;
		entry.status = e.status;
		whole = await reply(connection, e.status, envelope(e.type, e.message, entry.id), entry);
	}
	if (entry.usage)
		entry.cost = prices.cost(entry.model, entry.usage, entry.began_ms);
	entry.peer_left_ms = connection.leftMs;
	memory.ended(entry, whole);
	return undefined;
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
		'GET /__requests': () => memory.list(Number(url.searchParams.get('last') ?? 1000), url.searchParams.has('bodies')),
		'GET /__violations': () => memory.violations,
		'GET /__stats': () => ({ ...memory.connections, requests: memory.requests.length, in_flight: memory.inFlight, held: memory.held }),
		'POST /__script': () => setScript(JSON.parse(request.body.toString('utf8'))),
		'POST /__release': () => { memory.release(JSON.parse(request.body.toString('utf8')).gate); return {}; },
		'POST /__reset': () => { memory.reset(); queue = []; standing = {}; counts = {}; return {}; },
	};
	const answer = answers[`${request.method} ${url.pathname}`];
	await reply(connection, answer ? 200 : 404, Buffer.from(JSON.stringify(answer ? answer() : { error: 'no such control' })));
}

/** A queued {"early": name} answers at the head, as an edge does with a body that is too large. */
function early(head) {
	const name = head.target.startsWith('/__') ? undefined : queue[0]?.early;
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

function accepted(socket, raw) {
	const c = memory.connections;
	const connection = new Connection(++c.opened, socket, raw, {
		serve, early, refused: (_, why) => memory.violation(null, `bad HTTP: ${why}`),
	});
	c.open++;
	raw.once('close', () => { c.open--; });
	return connection;
}

const secureContext = options.tls ? tls.createSecureContext({ cert: readFileSync(options.cert), key: readFileSync(options.key) }) : null;

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (raw) => {
	if (!options.tls)
		return accepted(raw, raw);
	const socket = new tls.TLSSocket(raw, { isServer: true, secureContext, ALPNProtocols: ['http/1.1'] });
	socket.on('secure', () => {
		memory.connections.resumed += socket.isSessionReused() ? 1 : 0;
		const protocol = socket.getProtocol();
		memory.connections.protocols[protocol] = (memory.connections.protocols[protocol] ?? 0) + 1;
	});
	return accepted(socket, raw);
});
server.listen({ host: options.host, port: Number(options.port), backlog: 4096 }, () => {
	process.stdout.write(JSON.stringify({ port: server.address().port }) + '\n');
});
for (const signal of ['SIGTERM', 'SIGINT'])
	process.on(signal, () => process.exit(0));
if (options['with-parent']) {	/* ends with who started it, even by SIGKILL */
	const parent = process.ppid;
	setInterval(() => { if (process.ppid !== parent) process.exit(0); }, 500);
}
