// The simulated provider itself: what it sends, what it refuses, what it bills.
// If this does not hold, no other test means anything.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import NewSdk from '@anthropic-ai/sdk';
import OldSdk from 'anthropic-sdk-0';

import { PriceList } from '../fake/bill.mjs';
import { ERRORS } from '../fake/errors.mjs';
import { sha256 } from '../fake/memory.mjs';
import { Client, chunked, parseEvents } from './client.mjs';
import { API_KEY, Provider, messageBody, messageRequest, requestBytes, until } from './harness.mjs';

let provider;

before(async () => { provider = await Provider.start(); });
after(() => provider.stop());

const open = () => Client.open({ port: provider.port });

async function ask(request) {
	const client = await open();
	const answer = await client.exchange(messageRequest({ key: API_KEY, ...request }), { mayBreak: true });
	client.close();
	return answer;
}

const GOLDEN = `event: message_start
data: {"type":"message_start","message":{"id":"msg_#","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"diagnostics":null,"usage":{"input_tokens":64,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens_details":{"thinking_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"service_tier":"standard","inference_geo":"global","speed":"standard","output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"step 0 of the thought; "}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"8K9qrPyuP0nOrApAVRZ6X6K65goQQmVpa6Pm91Xxsxs="}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"The weir"}}

event: ping
data: {"type":"ping"}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_01FakeToolUse","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\\"\\\\\\"\\"}"}}

event: ping
data: {"type":"ping"}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null,"stop_details":null,"container":null},"usage":{"input_tokens":64,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens_details":{"thinking_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0},"output_tokens":6}}

event: message_stop
data: {"type":"message_stop"}

`;

test('a stream is the golden transcript', async () => {
	const answer = await ask({ stream: true, script: { events: 1, text_bytes: 8, thinking: 1, ping_every: 3, tool: { name: 'f', pieces: 2, input: { a: '"' } } } });
	assert.equal(answer.body.toString().replace(/msg_fake_\w+/, 'msg_#'), GOLDEN);
	assert.equal((await provider.last()).sent_sha256, sha256(answer.body));
});

test('both SDKs read it, stream and plain, and get the same message', async () => {
	const params = { model: 'claude-opus-5-5', max_tokens: 4096, messages: [{ role: 'user', content: JSON.stringify({ fake: { thinking: 4, events: 20, tool: true } }) }] };
	for (const client of [new NewSdk({ baseURL: provider.url, apiKey: 'x', defaultHeaders: { authorization: null, 'x-api-key': API_KEY } }),
		new OldSdk({ baseURL: provider.url, apiKey: API_KEY })]) {
		const plain = await client.messages.create(params);
		const streamed = await client.messages.stream(params).finalMessage();
		assert.deepEqual(streamed.content.map((b) => b.type), ['thinking', 'text', 'tool_use']);
		assert.deepEqual(streamed.content[2].input, plain.content[2].input);
		assert.equal(streamed.content[1].text, plain.content[1].text);
		assert.equal(streamed.content[0].signature, plain.content[0].signature);
		assert.equal(streamed.usage.output_tokens, plain.usage.output_tokens);
		assert.equal((await client.messages.countTokens({ model: params.model, messages: params.messages })).input_tokens > 0, true);
		/* A thinking block that comes back unchanged is accepted, a changed one is not. */
		const turn = (block) => client.messages.create({ ...params, messages: [...params.messages, { role: 'assistant', content: [block] }, { role: 'user', content: 'on' }] });
		await turn(plain.content[0]);
		await assert.rejects(turn({ ...plain.content[0], thinking: 'other' }), /signature/);
	}
	assert.ok((await provider.violations()).every((v) => v.text.startsWith('accept-encoding') || v.text.startsWith('header authorization')));
	await provider.reset();
});

test('it is strict: each mistake has its status and says what', async () => {
	const cases = [
		[{ key: 'sk-wrong' }, 401, /invalid x-api-key/], [{ key: null }, 401, /x-api-key header is required/], [{ path: '/v1/complete' }, 404, /Not found/],
		[{ method: 'GET' }, 405, /Not Allowed/], [{ headers: [['anthropic-version', '2020-01-01']] }, 400, /anthropic-version/],
		[{ headers: [['content-type', 'text/plain']] }, 400, /content-type/], [{ headers: [['content-encoding', 'gzip']] }, 400, /content-encoding/],
		[{ body: '{' }, 400, /JSON/], [{ body: '[]' }, 400, /object/], [{ body: Buffer.from([0x7b, 0xff, 0x7d]) }, 400, /UTF-8/],
		[{ body: messageBody({ model: 7 }) }, 400, /model/], [{ body: messageBody({ model: 'gpt-9' }) }, 404, /model: gpt-9/],
		[{ body: messageBody({ max_tokens: undefined }) }, 400, /max_tokens: Field required/], [{ body: messageBody({ max_tokens: -1 }) }, 400, /max_tokens/],
		[{ body: messageBody({ max_tokens: 1.5 }) }, 400, /max_tokens/], [{ body: messageBody({ messages: [] }) }, 400, /messages/],
		[{ body: messageBody({ messages: [{ role: 'tool', content: '' }] }) }, 400, /role/], [{ body: messageBody({ messages: [{ role: 'user', content: 1 }] }) }, 400, /content/],
		[{ body: messageBody({ messages: [{ role: 'user', content: [{}] }] }) }, 400, /type: Field required/], [{ body: messageBody({ stream: 'yes' }) }, 400, /stream/],
		[{ body: messageBody({ system: 3 }) }, 400, /system/], [{ body: messageBody({ tools: [{}] }) }, 400, /tools/],
		[{ body: messageBody({ thinking: { type: 'enabled', budget_tokens: 10 } }) }, 400, /budget_tokens/],
		[{ body: messageBody({ metadata: { user_id: 1 } }) }, 400, /metadata/],
		[{ body: messageBody({ temperature: 1 }), headers: [['anthropic-version', '2026-10-21']] }, 400, /temperature/],
		[{ body: messageBody({ messages: [{ role: 'assistant', content: [{ type: 'document', source: {} }] }] }), headers: [['anthropic-version', '2026-10-21']] }, 400, /document/],
		[{ body: messageBody({ messages: [{ role: 'user', content: [{ type: 'text', text: 'x', citations: [1] }] }] }), headers: [['anthropic-version', '2026-10-21']] }, 400, /citations/],
		[{ path: '/v1/messages/count_tokens' }, 400, /Extra inputs/],
	];
	for (const [request, status, words] of cases) {
		const answer = await ask(request);
		assert.equal(answer.status, status, `${JSON.stringify(request)}: ${answer.body}`);
		assert.match(JSON.parse(answer.body).error.message, words);
		assert.match(JSON.parse(answer.body).request_id, /^req_fake_/);
	}
	const bare = await (await open()).exchange({ headers: [['x-api-key', API_KEY], ['content-type', 'application/json']], body: messageBody() });
	assert.match(JSON.parse(bare.body).error.message, /anthropic-version: header is required/);
	for (const body of [messageBody({ temperature: 1 }), messageBody({ max_tokens: 0 }), messageBody({ unknown_field: { x: [1] } }),
		messageBody({ messages: [{ role: 'user', content: [{ type: 'never_heard_of' }] }, { role: 'system', content: 'x' }] })])
		assert.equal((await ask({ body })).status, 200);
	await provider.reset();
});

test('what a gateway must not send is recorded', async () => {
	await ask({ headers: [['x-portkey-metadata', '{}'], ['authorization', 'Bearer weir_sk_x'], ['te', 'trailers'], ['connection', 'x-foo'], ['keep-alive', '1'],
		['cookie', 'a=b'], ['accept-encoding', 'gzip'], ['proxy-authorization', 'x']] });
	const seen = (await provider.violations()).map((v) => v.text).join('\n');
	for (const word of ['x-portkey-metadata', 'gateway key', 'authorization is', ' te ', 'connection: x-foo', 'keep-alive', 'cookie', 'accept-encoding', 'proxy-authorization'])
		assert.ok(seen.includes(word), word);
	await provider.reset();
	assert.deepEqual(await provider.violations(), []);
});

test('bytes that are not strict HTTP are refused and recorded', async () => {
	const head = `POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: ${API_KEY}\r\n`;
	for (const text of ['GET /\r\n\r\n', `${head}content-length: 2\r\ncontent-length: 2\r\n\r\n{}`, `${head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
		`${head}x y: 1\r\n\r\n`, `${head}x-api-key: again\r\n\r\n`, `${head}transfer-encoding: chunked\r\n\r\nzz\r\n`, `${head}content-length: +2\r\n\r\n{}`]) {
		const client = await open();
		await client.write(Buffer.from(text));
		assert.equal((await client.response()).status, 400, text);
		await client.drain();
	}
	assert.equal((await provider.violations()).length, 7);
	await provider.reset();
});

test('requests are kept as they came: lines, bytes, digest', async () => {
	const body = Buffer.from(messageBody({ script: { events: 1 } }));
	const client = await open();
	await client.write(requestBytes({ path: '/v1/messages?beta=true', headers: [['X-Api-Key', API_KEY], ['Anthropic-Version', '2023-06-01'],
		['CONTENT-TYPE', 'application/json'], ['transfer-encoding', 'chunked']], body: chunked(body, [10, 11]) }));
	assert.equal((await client.response()).status, 200);
	const last = await provider.last();
	assert.ok(last.body.equals(body));
	assert.equal(last.body_sha256, sha256(body));
	assert.ok(last.lines.includes(`X-Api-Key: ${API_KEY}`));
	assert.equal(last.target, '/v1/messages?beta=true');
	client.close();
});

test('every recorded error is sent as it is written', async () => {
	for (const [name, error] of Object.entries(ERRORS)) {
		const answer = await ask({ script: { error: name } });
		assert.equal(answer.status, error.status);
		assert.equal(answer.body.toString(), error.body);
	}
	assert.equal(new Set(Object.values(ERRORS).map((e) => e.status)).size >= 12, true);
});

test('the bill is the worked examples', async () => {
	const prices = new PriceList(JSON.parse(readFileSync(new URL('../../deploy/prices.json', import.meta.url), 'utf8')));
	const at = Date.parse('2026-11-23T12:00:00Z');
	const first = { input_tokens: 1000, output_tokens: 800, cache_read_input_tokens: 10000, server_tool_use: { web_search_requests: 2 },
		cache_creation_input_tokens: 2500, cache_creation: { ephemeral_5m_input_tokens: 2000, ephemeral_1h_input_tokens: 500 } };
	assert.equal(prices.cost('claude-sonnet-5-5', first, at), 38000000n);
	assert.equal(prices.cost('claude-sonnet-5-5', { ...first, inference_geo: 'us' }, at), 39800000n);
	assert.equal(prices.cost('claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 90000, output_tokens: 1000 }, at), 17000000n);
	assert.equal(prices.cost('claude-haiku-5-5', { input_tokens: 20000, cache_read_input_tokens: 80000, output_tokens: 1000 }, at), 3300000n);
	assert.equal(prices.cost('claude-sonnet-5-5', { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 1000 }, Date.parse('2026-10-06T23:59:59Z')), 200000n);
	assert.equal(prices.cost('claude-sonnet-5-5', { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 1000 }, Date.parse('2026-10-07T00:00:00Z')), 100000n);
	assert.equal(prices.cost('claude-haiku-5-5', { input_tokens: 1, output_tokens: 0, service_tier: 'batch' }, at), 50n);
	assert.equal(prices.cost('nobody-1', first, at), 0n);
});

test('what left is billed: whole, in part, not at all', async () => {
	const usage = { input_tokens: 1000, output_tokens: 400 };
	await ask({ stream: true, script: { events: 40, usage } });
	const whole = await provider.last();
	assert.equal(whole.cost_nusd, String(1000 * 2000 + 400 * 10000));
	assert.ok(whole.complete);
	const answer = await ask({ stream: true, script: { events: 40, usage, fault: { kind: 'reset', after_events: 12, plus: 5 } } });
	assert.ok(answer.cut);
	const part = await provider.last();
	assert.equal(part.events_sent, 12);
	assert.equal(part.complete, false);
	assert.equal(part.usage.output_tokens, 100);
	assert.equal(part.cost_nusd, String(1000 * 2000 + 100 * 10000));
	await ask({ script: { error: 'overloaded' } });
	assert.equal((await provider.last()).cost_nusd, '0');
	const before = BigInt((await provider.bill()).total_nusd);
	await ask({ script: { usage } });
	assert.equal(BigInt((await provider.bill()).total_nusd) - before, 6000000n);
});

test('a peer that leaves is noticed, and what it got is billed', async () => {
	const client = await open();
	await client.send(messageRequest({ key: API_KEY, stream: true, script: { events: 1000, delay_ms: 10 } }));
	await client.head();
	await until(async () => (await provider.last()).events_sent > 5, 'some events left');
	const left = Date.now();
	client.close();
	const last = await until(async () => { const r = await provider.last(); return r.peer_left_ms && r; }, 'the departure is noted');
	assert.ok(last.peer_left_ms >= left);
	assert.ok(last.events_sent < 1000 && Number(last.cost_nusd) > 0 && !last.complete);
});

test('faults are the faults that they are called', async () => {
	const seen = async (kind, rest = {}) => {
		const client = await open();
		if (kind === 'endless_head')
			client.deadlineMs = 1000;
		await client.send(messageRequest({ key: API_KEY, stream: true, script: { events: 10, fault: { kind, ...rest } } }));
		try {
			const answer = await client.response({ mayBreak: true });
			await client.drain().catch(() => {});
			return answer === null ? 'no answer' : answer.cut ? 'cut' : 'whole';
		} catch (error) {
			return error.message;
		} finally {
			client.close();
		}
	};
	for (const kind of ['reset_before_head', 'close_before_head', 'reset_in_head', 'close_in_head', 'bare_lf'])
		assert.equal(await seen(kind), 'no answer', kind);
	for (const kind of ['reset', 'close', 'bad_chunk', 'chunk_overrun', 'huge_chunk'])
		assert.equal(await seen(kind), 'cut', kind);
	assert.match(await seen('two_lengths'), /content-length came 2 times/);
	assert.match(await seen('length_and_chunked'), /both/);
	assert.match(await seen('garbage'), /bad status line/);
	assert.match(await seen('bad_length'), /12abc/);
	assert.match(await seen('endless_head'), /no head within/);
	const overloaded = await ask({ stream: true, script: { error_after: 0 } });
	assert.equal(parseEvents(overloaded.body)[0].json.error.type, 'overloaded_error');
});

test('a body cut anywhere is still that body', async () => {
	const script = { events: 2, text_bytes: 12 };
	const whole = await ask({ stream: true, script });
	for (const extra of [{ every: 1 }, { cut: [1, 100, whole.body.length - 1] }, { wire_cut: [1, 2, 300] }, { framing: 'close' }, { framing: 'length' }, { trailers: true }]) {
		const answer = await ask({ stream: true, script: { ...script, ...extra } });
		assert.equal(parseEvents(answer.body).length, parseEvents(whole.body).length, JSON.stringify(extra));
		assert.equal(sha256(answer.body), (await provider.last()).sent_sha256);
	}
});

test('scripts can wait in a queue, and a default can stand', async () => {
	await provider.script({ error: 'conflict' }, {});
	assert.equal((await ask({})).status, 409);
	assert.equal((await ask({ script: { error: 'overloaded' } })).status, 200, 'the queue comes first');
	await provider.byDefault({ error: 'timeout' });
	assert.equal((await ask({ body: messageBody({ messages: [{ role: 'user', content: 'hello' }] }) })).status, 504);
	await provider.reset();
	assert.equal((await ask({ body: messageBody({ messages: [{ role: 'user', content: 'hello' }] }) })).status, 200);
});
