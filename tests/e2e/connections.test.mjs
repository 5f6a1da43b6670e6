// HTTP/1.1 as clients use it: kept connections, pipelining, Expect, and what
// becomes of a connection after a failure.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { sha256 } from '../fake/memory.mjs';
import { bodyState, chunked } from './client.mjs';
import { Client, World, messageBody, messageRequest, requestBytes, until } from './harness.mjs';

let world, key;

before(async () => {
	world = await World.open();
	key = await world.weir.key('connections');
});
after(() => world.close());

test('C59 one connection serves plain, streamed, refused and failed requests in turn', async () => {
	const client = await world.open();
	for (let round = 0; round < 5; round++)
		for (const [request, status] of [[{ key }, 200], [{ key, stream: true }, 200], [{ key, body: '{' }, 400], [{ key: 'nobody' }, 401],
			[{ key, script: { error: 'overloaded' } }, 529], [{ key, script: { error: 'overloaded' }, stream: true }, 529],
			[{ key, script: { fault: { kind: 'reset_before_head' } } }, 502], [{ key, path: '/v1/none' }, 404], [{ key, script: { framing: 'close' } }, 200],
			[{ key, headers: [['x-portkey-metadata', '{']] }, 400]]) {
			const answer = await client.exchange(messageRequest(request));
			assert.equal(answer.status, status, answer.body.toString());
			assert.ok(!answer.headers.has('connection'), `${status}: ${answer.headers.get('connection')}`);
			assert.equal(client.unread.length, 0);
		}
	assert.equal(client.ended, false);
	client.close();
});

test('C59 the provider\'s connections are used again after whole answers, and not after broken ones', async () => {
	await world.provider.reset();
	const client = await world.open();
	const begin = (await world.provider.stats()).opened;
	for (let i = 0; i < 50; i++)
		assert.equal((await client.exchange(messageRequest({ key, stream: i % 2 === 1, script: i % 5 === 4 ? { error: 'rate_limit' } : {} }))).status, i % 5 === 4 ? 429 : 200);
	const used = new Set((await world.provider.requests(50)).map((r) => r.connection));
	assert.equal(used.size, 1, `${[...used]} since ${begin}`);
	await client.exchange(messageRequest({ key, stream: true, script: { fault: { kind: 'bad_chunk', after_events: 3 } } }), { mayBreak: true });
	assert.equal((await world.ask({ key })).status, 200);
	const [broken, next] = await world.provider.requests(2);
	assert.notEqual(next.connection, broken.connection);
	client.close();
});

test('C59 a stream that the client abandons does not poison the next', async () => {
	for (let i = 0; i < 20; i++) {
		const client = await world.open();
		await client.send(messageRequest({ key, stream: true, script: { events: 100, delay_ms: 5 } }));
		const head = await client.head(), state = bodyState(head, 'POST');
		await client.part(state);
		client.close();
		const answer = await world.ask({ key, stream: true, script: { events: 2 } });
		const last = (await world.provider.requests(5)).find((r) => r.id === answer.headers.get('request-id'));
		assert.equal(sha256(answer.body), last.sent_sha256);
	}
});

test('a kept connection that the provider has closed is replaced without the client noticing', async () => {
	const client = await world.open();
	for (let i = 0; i < 10; i++) {
		assert.equal((await client.exchange(messageRequest({ key, script: { framing: 'length', headers: [['connection', 'close']] } }))).status, 200);
		assert.equal((await client.exchange(messageRequest({ key }))).status, 200);
	}
	client.close();
});

test('a kept connection that the provider closes unannounced does not fail the next request', async () => {
	const client = await world.open();
	let failed = 0;
	for (let i = 0; i < 30; i++) {
		const plain = await client.exchange(messageRequest({ key, script: { close_after: true } }));
		const streamed = await client.exchange(messageRequest({ key, stream: true, script: { close_after: i % 2 === 0 } }));
		failed += (plain.status !== 200) + (streamed.status !== 200);
	}
	/* A close that takes its time on a busy machine looks like one after the request was read. */
	assert.ok(failed <= 3, `${failed} of 60 failed`);
	client.close();
});

test('a provider that answers before it has read the body is heard', async () => {
	const body = messageBody({ messages: [{ role: 'user', content: 'x'.repeat(8 << 20) }] });
	for (const early of ['too_large', 'edge_too_large', 'overloaded']) {
		await world.provider.script({ early });
		const answer = await world.ask({ key, body });
		assert.ok([413, 529, 502].includes(answer.status), `${answer.status}`);
		assert.equal((await world.ask({ key })).status, 200);
	}
});

test('a request that the provider has taken is not sent twice', async () => {
	await world.provider.reset();
	const client = await world.open();
	assert.equal((await client.exchange(messageRequest({ key }))).status, 200);
	const broken = await client.exchange(messageRequest({ key, script: { delay_head_ms: 300, fault: { kind: 'reset_before_head' } } }));
	assert.equal(broken.status, 502);
	assert.equal((await world.provider.stats()).requests, 2, 'one that was answered, one that was not');
	client.close();
});

test('pipelined requests are answered in order', async () => {
	const client = await world.open();
	const requests = Array.from({ length: 30 }, (_, i) => (i % 3 === 2 ? requestBytes({ method: 'GET', path: '/healthz' })
		: requestBytes(messageRequest({ key, stream: i % 2 === 0, body: messageBody({ stream: i % 2 === 0, script: { events: 1, delay_head_ms: i % 4 === 0 ? 15 : 0,
			usage: { output_tokens: i + 1 } } }) }))));
	await client.write(Buffer.concat(requests));
	for (let i = 0; i < 30; i++) {
		const answer = await client.response({ method: i % 3 === 2 ? 'GET' : 'POST' });
		assert.equal(answer.status, 200);
		if (i % 3 === 2)
			assert.equal(JSON.parse(answer.body).status, 'ok');
		else
			assert.ok(answer.body.toString().includes(`"output_tokens":${i + 1}`), `answer ${i}: ${answer.body.toString()}`);
	}
	assert.equal(client.unread.length, 0);
	client.close();
});

test('pipelined requests cut at every byte of their border', async () => {
	const first = requestBytes(messageRequest({ key, script: { events: 0 } })), second = requestBytes({ method: 'GET', path: '/healthz' });
	const both = Buffer.concat([first, second]);
	for (let offset = first.length - 3; offset < first.length + 10; offset++) {
		const client = await world.open();
		await client.write(both.subarray(0, offset));
		await new Promise((resolve) => setImmediate(resolve));
		client.write(both.subarray(offset));
		assert.equal((await client.response()).status, 200);
		assert.equal((await client.response({ method: 'GET' })).status, 200);
		client.close();
	}
});

test('a request sent ahead that is malformed is answered after the good one', async () => {
	const client = await world.open();
	await client.write(Buffer.concat([requestBytes(messageRequest({ key, stream: true, script: { events: 3, delay_ms: 10 } })), Buffer.from('BLAH\r\n\r\n')]));
	assert.equal((await client.response()).status, 200);
	assert.equal((await client.response()).status, 400);
	assert.equal((await client.drain()).length, 0);
	client.close();
});

test('C59 Expect: 100-continue is answered before the body comes', async () => {
	const client = await world.open();
	const request = messageRequest({ key, headers: [['Expect', '100-continue']] });
	const bytes = requestBytes(request), border = bytes.indexOf('\r\n\r\n') + 4;
	await client.write(bytes.subarray(0, border));
	const go = await client.head();
	assert.equal(go.status, 100);
	await client.write(bytes.subarray(border));
	assert.equal((await client.response()).status, 200);
	client.close();
});

test('C59 Expect with a key that is not valid is refused without asking for the body', async () => {
	const client = await world.open();
	const bytes = requestBytes(messageRequest({ key: 'nobody', headers: [['expect', '100-continue']] }));
	await client.write(bytes.subarray(0, bytes.indexOf('\r\n\r\n') + 4));
	assert.equal((await client.head()).status, 401);
	client.close();
});

test('C59 names of headers in any case, odd but legal spacing, an absolute target', async () => {
	const body = messageBody({ script: { events: 0 } });
	const client = await world.open();
	await client.write(Buffer.from(`POST /v1/messages HTTP/1.1\r\nHOST:w\r\nX-API-KEY:   ${key.secret}\t \r\nCoNtEnT-tYpE:application/json\r\nCONTENT-LENGTH:${body.length}\r\n\r\n${body}`));
	assert.equal((await client.response()).status, 200);
	const absolute = messageRequest({ key, path: `http://127.0.0.1:${world.weir.port}/v1/messages?beta=true` });
	const answer = await client.exchange(absolute);
	assert.ok([200, 400, 404].includes(answer.status), 'judged, not crashed');
	client.close();
});

test('connection: close and HTTP/1.0 are honoured', async () => {
	const closing = await world.open();
	const answer = await closing.exchange(messageRequest({ key, headers: [['connection', 'close']] }));
	assert.equal(answer.status, 200);
	assert.equal(answer.headers.get('connection'), 'close');
	assert.equal((await closing.drain()).length, 0);
	const old = await world.open();
	const plain = await old.exchange({ ...messageRequest({ key }), version: '1.0' });
	assert.equal(plain.status, 200);
	const stream = await world.open();
	const streamed = await stream.exchange({ ...messageRequest({ key, stream: true }), version: '1.0' });
	assert.equal(streamed.framing, 'close', 'HTTP/1.0 knows no chunks');
	assert.equal(sha256(streamed.body), (await world.provider.last()).sent_sha256);
	[closing, old, stream].forEach((c) => c.close());
});

test('chunk extensions and trailers of a request are read and dropped', async () => {
	const client = await world.open();
	const body = messageBody({ script: { events: 0 } });
	const request = messageRequest({ key });
	const head = requestBytes({ ...request, body: undefined, headers: [...request.headers, ['transfer-encoding', 'chunked'], ['trailer', 'x-sum']] });
	await client.write(Buffer.concat([head, Buffer.from(`${body.length.toString(16)};name=value\r\n${body}\r\n0\r\nx-sum: 1\r\n\r\n`)]));
	assert.equal((await client.response()).status, 200);
	const last = await world.provider.last();
	assert.equal(last.body_sha256, sha256(Buffer.from(body)));
	assert.ok(!last.lines.some((l) => /^(trailer|x-sum|transfer-encoding)/i.test(l)), last.lines.join('\n'));
	await client.write(requestBytes({ ...request, headers: [...request.headers, ['transfer-encoding', 'chunked']], body: chunked(Buffer.from(body)) }));
	assert.equal((await client.response()).status, 200);
	client.close();
});

test('a listener of IPv6', async () => {
	const six = await World.open({ settings: { listen: ['[::1]:0', '127.0.0.1:0'] } });
	try {
		const k = await six.weir.key('six');
		const client = await Client.open({ host: '::1', port: six.weir.listeners[0].port });
		const answer = await client.exchange(messageRequest({ key: k }));
		assert.equal(answer.status, 200);
		assert.equal((await six.weir.record(answer.headers.get('x-weir-request-id'))).remote_address, '::1');
		client.close();
	} finally {
		await six.close();
	}
});

test('2,000 connections are held open and each still works', async () => {
	const clients = [];
	for (let i = 0; i < 2000; i += 100)
		clients.push(...await Promise.all(Array.from({ length: 100 }, () => world.open())));
	await until(async () => (await world.weir.metrics()).sum('weir_connections') >= 2000, 'all of them are accepted');
	for (let i = 0; i < clients.length; i += 100)
		for (const answer of await Promise.all(clients.slice(i, i + 100).map((c) => c.exchange({ method: 'GET', path: '/healthz' }))))
			assert.equal(answer.status, 200);
	clients.forEach((c) => c.close());
	await until(async () => (await world.weir.metrics()).sum('weir_connections') < 50, 'they are gone');
});
