// Requests that are wrong, ambiguous, or slow on purpose: 4xx or closed, and
// the neighbours never notice.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { chunked, parseEvents } from './client.mjs';
import { World, messageBody, messageRequest, refused, requestBytes, until } from './harness.mjs';

let world, hasty, key, neighbour;

before(async () => {
	world = await World.open({ settings: { limits: { body_bytes: 4 << 20 } } });
	key = await world.weir.key('mallory');
	neighbour = await world.weir.key('neighbour');
	hasty = await World.open({ settings: { limits: { head_ms: 1200, body_ms: 1200, idle_ms: 2500 } } });
	hasty.mallory = await hasty.weir.key('mallory');
});
after(async () => {
	await hasty.close();
	await world.close();
});

const BODY = messageBody({ script: { events: 0 } });
const auth = (who) => `x-api-key: ${who.secret}\r\ncontent-type: application/json\r\nanthropic-version: 2023-06-01`;
const LENGTH = `content-length: ${BODY.length}`;

/** name -> bytes (latin1). All must be answered 4xx or 5xx of ours, or closed; none may reach the provider. */
const AMBIGUOUS = (who) => ({
	'CL and TE': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\ntransfer-encoding: chunked\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'TE and CL': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n${LENGTH}\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'two lengths, different': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\ncontent-length: 3\r\n\r\n${BODY}`,
	'two lengths, equal': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\n${LENGTH}\r\n\r\n${BODY}`,
	'a list of lengths': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: ${BODY.length}, ${BODY.length}\r\n\r\n${BODY}`,
	'length +5': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: +${BODY.length}\r\n\r\n${BODY}`,
	'length -1': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: -1\r\n\r\n${BODY}`,
	'length 0x10': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: 0x10\r\n\r\n${BODY}`,
	'length of 40 digits': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: ${'9'.repeat(40)}\r\n\r\n${BODY}`,
	'length empty': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length: \r\n\r\n${BODY}`,
	'TE xchunked': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: xchunked\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'TE chunked, gzip': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked, gzip\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'TE twice': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'TE with a vertical tab': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: \x0bchunked\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'TE in HTTP/1.0': `POST /v1/messages HTTP/1.0\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n${chunked(Buffer.from(BODY))}`,
	'obs-fold': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\nx-a: one\r\n two\r\n${LENGTH}\r\n\r\n${BODY}`,
	'obs-fold of a length': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length:\r\n ${BODY.length}\r\n\r\n${BODY}`,
	'bare LF lines': `POST /v1/messages HTTP/1.1\nhost: w\n${auth(who).replaceAll('\r\n', '\n')}\n${LENGTH}\n\n${BODY}`,
	'bare LF after the request line': `POST /v1/messages HTTP/1.1\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\n\r\n${BODY}`,
	'bare LF at the end': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\n\r\n${BODY}`,
	'bare CR in a value': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\nx-a: b\rc: d\r\n${LENGTH}\r\n\r\n${BODY}`,
	'NUL in a value': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\nx-a: b\0c\r\n${LENGTH}\r\n\r\n${BODY}`,
	'NUL in a name': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\nx\0a: b\r\n${LENGTH}\r\n\r\n${BODY}`,
	'NUL in the target': `POST /v1/mess\0ages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\n\r\n${BODY}`,
	'space before the colon': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ncontent-length : ${BODY.length}\r\n\r\n${BODY}`,
	'an empty header name': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n: x\r\n${LENGTH}\r\n\r\n${BODY}`,
	'a header without a colon': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\nx-a\r\n${LENGTH}\r\n\r\n${BODY}`,
	'a space in front of the first header': `POST /v1/messages HTTP/1.1\r\n x-a: b\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\n\r\n${BODY}`,
	'chunk size with a space': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nabcde\r\n0\r\n\r\n`,
	'chunk size 0x5': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n`,
	'chunk size -5': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n`,
	'chunk size that overflows': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabcde\r\n0\r\n\r\n`,
	'chunk size with LF': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n`,
	'chunk longer than its size': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcde\r\n0\r\n\r\n`,
	'chunk size empty': `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\ntransfer-encoding: chunked\r\n\r\n\r\nabcde\r\n0\r\n\r\n`,
	'HTTP/0.9': 'GET /\r\n\r\n',
	'HTTP/2 preface': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
	'HTTP/9.9': 'GET / HTTP/9.9\r\nhost: w\r\n\r\n',
	'a request line of nonsense': 'BLAH BLAH BLAH\r\n\r\n',
	'a method of lower case': `post /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(who)}\r\n${LENGTH}\r\n\r\n${BODY}`,
	'CONNECT': 'CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n',
	'a target with a space': 'GET /v1/ models HTTP/1.1\r\nhost: w\r\n\r\n',
	'binary': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + 'x'.repeat(200),
	'129 headers': `GET /healthz HTTP/1.1\r\nhost: w\r\n${Array.from({ length: 129 }, (_, i) => `x-${i}: y\r\n`).join('')}\r\n`,
	'a head of 40 KiB': `GET /healthz HTTP/1.1\r\nhost: w\r\nx-a: ${'y'.repeat(40960)}\r\n\r\n`,
	'a request line of 40 KiB': `GET /${'y'.repeat(40960)} HTTP/1.1\r\nhost: w\r\n\r\n`,
	'no host': 'GET /healthz HTTP/1.1\r\n\r\n',
	'two hosts': 'GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n',
});

test('ambiguous and broken heads are answered 4xx or closed, and never reach the provider', async () => {
	const before = (await hasty.provider.stats()).requests;
	for (const [name, bytes] of Object.entries(AMBIGUOUS(hasty.mallory))) {
		const client = await hasty.open();
		client.write(Buffer.from(bytes, 'latin1'));
		const answer = await client.response({ mayBreak: true });
		if (answer) {
			assert.ok(answer.status >= 400 && answer.status <= 505 && answer.status !== 500, `${name}: ${answer.status}`);
			refused(answer, answer.status, { 404: 'not_found_error', 408: 'timeout_error', 501: 'not_supported' }[answer.status] ?? 'invalid_request_error');
			if (answer.status !== 404)	/* an answer that ends the message also ends the connection */
				assert.equal(answer.headers.get('connection'), 'close', name);
		}
		client.end();
		await client.drain();
		assert.equal(client.unread.length, 0, `${name}: a second answer: ${client.unread.toString('latin1').slice(0, 200)}`);
		client.close();
	}
	assert.equal((await hasty.provider.stats()).requests, before);
	assert.equal((await hasty.ask({ key: hasty.mallory })).status, 200);
});

test('an ambiguous request cut at every byte is judged alike', async () => {
	const bytes = Buffer.from(AMBIGUOUS(key)['CL and TE'], 'latin1').subarray(0, 400);
	for (let offset = 1; offset < bytes.length; offset += 3) {
		const client = await world.open();
		await client.write(bytes.subarray(0, offset));
		await new Promise((resolve) => setImmediate(resolve));
		client.write(bytes.subarray(offset));
		const answer = await client.response({ mayBreak: true });
		assert.ok(answer === null || answer.status === 400, `${offset}: ${answer?.status}`);
		client.close();
	}
});

test('bodies that are not a request: 400 that says what and where, and a record', async () => {
	const who = await world.weir.key('bodies');
	const cases = [['', /body|JSON|empty/i], ['{', /byte/], ['[]', /object/], ['null', /object/], ['"x"', /object/], ['{}', /model/],
		['{"model":1}', /model/], ['{"model":""}', /model/], ['{"model":null,"max_tokens":1}', /model/], ['{"model":"a","model":"b"}', /twice|duplicate/i],
		['{"model":"claude-sonnet-5-5"} trailing', /byte/], ['{"model":"claude-sonnet-5-5",}', /byte/], ['{"model":"claude\\u0000","max_tokens":1}', /model/],
		['{"model":"claude-sonnet-5-5","stream":"yes"}', /stream/], ['{"model":"claude-sonnet-5-5","stream":1}', /stream/],
		['{"model":"claude-sonnet-5-5","x":"\x01"}', /byte/], ['{"model":"claude-sonnet-5-5","x":"\\q"}', /byte/], ['{"model":"claude-sonnet-5-5","x":01}', /byte/],
		['{"model":"claude-sonnet-5-5","x":NaN}', /byte/], [Buffer.from('{"model":"claude-sonnet-5-5","x":"\xff\xfe"}', 'latin1'), /UTF-8|byte/],
		['\ufeff{"model":"claude-sonnet-5-5"}', /byte/], [`{"model":"claude-sonnet-5-5","x":${'['.repeat(2000)}${']'.repeat(2000)}}`, /deep|nest/i],
		[`{"model":"${'m'.repeat(5000)}"}`, /model/]];
	for (const [body, words] of cases) {
		const answer = await world.ask({ key: who, body });
		const message = refused(answer, 400, 'invalid_request_error');
		assert.match(message, words, `${body.toString().slice(0, 60)} -> ${message}`);
	}
	const records = await world.weir.records(cases.length, `key_id=${who.id}`);
	assert.ok(records.every((r) => r.status === 400 && r.cost_nusd === 0));
	const judged = records.filter((r) => r.outcome !== 'invalid');	/* UTF-8 is for the provider to judge */
	assert.ok(judged.length <= 1 && judged.every((r) => r.outcome === 'provider_error'), JSON.stringify(judged));
});

test('absurd max_tokens: refused by weir, or by the provider in its words, and nothing is held', async () => {
	for (const value of ['-1', '1e99', '99999999999999999999', '1.5', '"12"', 'true', '[]', '2000000']) {
		const body = messageBody().replace('"max_tokens":1024', `"max_tokens":${value}`);
		const answer = await world.ask({ key, body });
		assert.equal(answer.status, 400, value);
		assert.match(JSON.parse(answer.body).error.message, /max_tokens/, value);
	}
	const poor = await world.weir.key('dime', '--budget', '0.10');
	const body = messageBody().replace('"max_tokens":1024', '"max_tokens":99999999');
	for (let i = 0; i < 3; i++)
		assert.ok([200, 400, 429].includes((await world.ask({ key: poor, body })).status), 'lowered, or refused');
	assert.equal((await world.ask({ key: poor })).status, 200, 'nothing of the absurd is still held');
});

test('wrong content types and compressed bodies are 400', async () => {
	for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonp', 'application/xml'])
		assert.match(refused(await world.ask({ key, headers: [['content-type', type]] }), 400, 'invalid_request_error'), /content-type/, type);
	for (const coding of ['gzip', 'br', 'zstd', 'deflate', 'gzip, identity', 'x'])
		assert.match(refused(await world.ask({ key, headers: [['content-encoding', coding]] }), 400, 'invalid_request_error'), /content-encoding/, coding);
	for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/json;charset=UTF-8'])
		assert.equal((await world.ask({ key, headers: [['content-type', type]] })).status, 200, type);
});

test('a client that trickles its head or its body gets 408 and nobody waits for it', async () => {
	const head = requestBytes(messageRequest({ key: hasty.mallory, body: BODY }));
	const cut = head.indexOf('\r\n\r\n') + 4;
	for (const [from, step] of [[20, 'head'], [cut + 20, 'body']]) {
		const client = await hasty.open();
		await client.write(head.subarray(0, from));
		const trickle = setInterval(() => client.write(head.subarray(from, from + 1)), step === 'head' ? 300 : 5000);
		const answer = await client.response({ mayBreak: true });
		clearInterval(trickle);
		if (answer)
			refused(answer, 408, 'timeout_error');
		client.close();
	}
});

test('an idle connection is closed, without a word', async () => {
	const client = await hasty.open();
	const begin = Date.now();
	assert.equal((await client.exchange({ method: 'GET', path: '/healthz' })).status, 200);
	assert.equal((await client.drain()).length, 0);
	assert.ok(Date.now() - begin >= 2400, `${Date.now() - begin} ms`);
	client.close();
});

test('hundreds of clients that say nothing cost the neighbour nothing', async () => {
	const mute = await World.open({ settings: { limits: { head_ms: 5000, body_ms: 5000 } } });
	try {
		const k = await mute.weir.key('k');
		const idle = await Promise.all(Array.from({ length: 300 }, () => mute.open()));
		await Promise.all(idle.map((c, i) => c.write(Buffer.from(i % 2 ? 'POST /v1/mess' : `POST /v1/messages HTTP/1.1\r\nhost: w\r\n${auth(k)}\r\ncontent-length: 50000\r\n\r\n{`))));
		const answer = await mute.ask({ key: k, stream: true, script: { events: 50 } });
		assert.equal(parseEvents(answer.body).at(-1).event, 'message_stop');
		assert.ok(idle.some((c) => !c.ended), 'it did not wait for their end');
		await until(() => idle.every((c) => c.ended), 'all of them are closed');
		idle.forEach((c) => c.close());
	} finally {
		await mute.close();
	}
});

test('a body that stops short, by a client that leaves, reaches nobody', async () => {
	const before = (await world.provider.stats()).requests;
	const head = requestBytes(messageRequest({ key, body: BODY }));
	for (const how of ['end', 'close', 'reset']) {
		const client = await world.open();
		await client.write(head.subarray(0, head.length - 5));
		client[how]();
	}
	assert.equal((await world.ask({ key: neighbour })).status, 200);
	assert.equal((await world.provider.stats()).requests, before + 1);
});
