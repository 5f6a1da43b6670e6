// The bytes are the provider's, and the client's: both ways, by hash.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ERRORS } from '../fake/errors.mjs';
import { sha256 } from '../fake/memory.mjs';
import { chunked, parseEvents } from './client.mjs';
import { World, messageBody, messageRequest, requestBytes } from './harness.mjs';

const STYLES = ['crlf', 'cr', 'tight', 'comments', 'nameless', 'bom', 'lines'];

/** What a Claude Code request looks like: odd numbers, escapes, unknown fields. */
const ODD_BODY = `{ "model" : "claude-sonnet-5-5",\n\t"messages":[{"role":"user","content":[{"type":"text","text":"a\\u00e9\\ud83d\\ude00\\/ \\u0000 é漢","cache_control":{"type":"ephemeral","ttl":"1h"}}]},
{"role":"assistant","content":"so"},{"role":"system","content":"mid","output_config":{"effort":"low"}},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"tool_reference","tool_name":"x"}]},{"type":"unheard_of","deep":[[[{}]]],"n":12345678901234567890}]}],
"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.295.abc; cc_entrypoint=cli;"},{"type":"text","text":"You are","cache_control":{"type":"ephemeral"}},{"type":"text","text":"prompt","cache_control":{"type":"ephemeral","ttl":"1h"}}],
"tools":[{"name":"f","input_schema":{"type":"object","properties":{"q":{"type":"number","minimum":1.0,"maximum":1e400}}},"strict":true,"defer_loading":false}],
"metadata":{"user_id":"{\\"device_id\\":\\"00\\",\\"account_uuid\\":\\"\\",\\"session_id\\":\\"s\\"}"},
"max_tokens":1024 , "thinking":{"type":"adaptive","display":"omitted"},"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},
"safeguards":[{"type":"dangerous_tool_use","classifier_context":{"a":1.50,"b":-0.0,"c":1E+2}}],"output_config":{"effort":"high"},"unknown":9007199254740993,"stream":false}\r\n`;

/** Asks, and compares what came with what the provider says it sent. */
async function same(world, client, request) {
	const answer = await client.exchange(request);
	const last = await world.provider.last();
	assert.equal(answer.status, last.status);
	assert.equal(sha256(answer.body), last.sent_sha256, `${answer.body.toString().slice(0, 300)} is not ${last.sent.toString().slice(0, 300)}`);
	return { answer, last };
}

for (const upstreamTls of [false, true])
	describe(`with ${upstreamTls ? 'TLS' : 'plain'} to the provider`, () => {
		let world, key;
		before(async () => {
			world = await World.open({ tls: true, upstreamTls });
			key = await world.weir.key('fidelity');
		});
		after(() => world.close());

		for (const tls of [false, true]) {
			const sides = `client ${tls ? 'TLS' : 'plain'}`;

			test(`C14 C17 C19 ${sides}: bodies and answers, plain and streamed, are the same bytes`, async () => {
				const client = await world.open({ tls });
				const { last } = await same(world, client, messageRequest({ key, body: ODD_BODY }));
				assert.equal(last.body_sha256, sha256(Buffer.from(ODD_BODY)));
				const streamed = ODD_BODY.replace('"stream":false', '"stream" :\ttrue');
				assert.equal((await same(world, client, messageRequest({ key, body: streamed }))).last.body_sha256, sha256(Buffer.from(streamed)));
				for (const script of [{ pretty: true }, { thinking: 5, tool: true }, { events: 400, ping_every: 7, unknown_every: 11 },
					{ framing: 'close' }, { framing: 'chunked' }, { trailers: true, framing: 'chunked' }, { http10: true, framing: 'close' },
					{ extra_message: { safeguard_results: [{ a: 1.0 }] }, extra_delta: { safeguard_results: [{ type: 'unavailable' }] } }, { events: 0 }])
					for (const stream of [false, true]) {
						const { answer } = await same(world, client.ended ? await world.open({ tls }) : client, messageRequest({ key, script, stream }));
						if (answer.headers.get('connection') === 'close')
							break;
					}
				client.close();
			});

			test(`C35 ${sides}: every recorded error keeps its status, its bytes and its advice`, async () => {
				const client = await world.open({ tls });
				assert.ok(Object.keys(ERRORS).length >= 20);
				for (const [name, error] of Object.entries(ERRORS))
					for (const stream of [false, true]) {
						const { answer, last } = await same(world, client, messageRequest({ key, script: { error: name }, stream }));
						assert.equal(answer.status, error.status, name);
						assert.equal(answer.body.toString(), error.body, name);
						assert.equal(answer.headers.get('request-id'), last.id, name);
						for (const [header, value] of error.headers)
							if (!header.startsWith('anthropic-ratelimit-'))
								assert.equal(answer.headers.get(header), value, `${name}: ${header}`);
					}
				client.close();
			});

			test(`C26 ${sides}: an event stream cut at every offset`, async () => cutEverywhere(world, key, tls, true, 'cut'));
			test(`C26 ${sides}: a plain answer cut at every offset`, async () => cutEverywhere(world, key, tls, false, 'cut'));
		}
	});

/** One request for each offset of the answer's body; all answers alike. */
async function cutEverywhere(world, key, tls, stream, member) {
	const client = await world.open({ tls });
	const script = { events: 1, text_bytes: 8 };
	const whole = await client.exchange(messageRequest({ key, script: { ...script, every: 1 }, stream }));
	const length = whole.body.length;
	assert.ok(length > 400 && length < 4000, `${length}`);
	const got = new Map([[whole.headers.get('request-id'), sha256(whole.body)]]);
	for (let offset = 1; offset < length; offset++) {
		const answer = await client.exchange(messageRequest({ key, stream, script: { ...script, [member]: [offset] } }));
		assert.equal(answer.status, 200);
		got.set(answer.headers.get('request-id'), sha256(answer.body));
	}
	client.close();
	const sent = (await world.provider.requests(length)).filter((r) => got.has(r.id));
	assert.equal(sent.length, length);
	for (const request of sent)
		assert.equal(got.get(request.id), request.sent_sha256, request.lines?.join('\n'));
}

describe('plain on both sides', () => {
	let world, key;
	before(async () => {
		world = await World.open();
		key = await world.weir.key('fidelity');
	});
	after(() => world.close());

	test('C26 an answer whose very wire is cut at every offset, head and framing included', async () => {
		const client = await world.open();
		for (const [stream, most] of [[true, 2400], [false, 1400]])
			for (let offset = 1; offset < most; offset += 3) {
				const answer = await client.exchange(messageRequest({ key, stream, script: { events: 1, text_bytes: 8, wire_cut: [offset, offset + 1, offset + 2] } }));
				assert.equal(answer.status, 200);
			}
		client.close();
	});

	test('C26 10,000 events of a tool call, whole and in slivers', async () => {
		const client = await world.open();
		for (const every of [undefined, 61]) {
			const { answer, last } = await same(world, client, messageRequest({ key, stream: true,
				script: { events: 3000, text_bytes: 5, thinking: 1000, tool: { pieces: 6000, input: { text: 'a'.repeat(20000) } }, every } }));
			assert.ok(last.events_sent >= 10000, `${last.events_sent}`);
			const json = parseEvents(answer.body).filter((e) => e.json.delta?.type === 'input_json_delta').map((e) => e.json.delta.partial_json).join('');
			assert.deepEqual(JSON.parse(json), { text: 'a'.repeat(20000) });
		}
		client.close();
	});

	test('every spelling of the event stream format passes untouched', async () => {
		const client = await world.open();
		for (const style of STYLES)
			for (const every of [undefined, 1])
				await same(world, client, messageRequest({ key, stream: true, script: { style, thinking: 2, tool: true, every } }));
		client.close();
	});

	test('C14 a request body in chunks cut at every offset arrives whole', async () => {
		const client = await world.open();
		const body = Buffer.from(messageBody({ script: { events: 0 } }));
		for (let offset = 1; offset < body.length; offset++) {
			const request = messageRequest({ key, body });
			await client.write(requestBytes({ ...request, body: chunked(body, [offset]),
				headers: [...request.headers, ['transfer-encoding', 'chunked']] }));
			assert.equal((await client.response()).status, 200);
		}
		for (const request of await world.provider.requests(body.length - 1))
			assert.equal(request.body_sha256, sha256(body));
		client.close();
	});

	test('C14 a request sent in two segments, cut at every offset', async () => {
		const client = await world.open();
		const bytes = requestBytes(messageRequest({ key, script: { events: 0 } }));
		for (let offset = 1; offset < bytes.length; offset++) {
			await client.write(bytes.subarray(0, offset));
			await new Promise((resolve) => setImmediate(resolve));
			await client.write(bytes.subarray(offset));
			assert.equal((await client.response()).status, 200, `cut at ${offset}`);
		}
		client.close();
	});

	test('C14 bodies of many sizes, up to 20 MB', async () => {
		const client = await world.open();
		for (const size of [1, 1000, 4095, 4096, 65535, 65536, 65537, 1 << 20, 20 << 20]) {
			const body = messageBody({ messages: [{ role: 'user', content: 'é'.repeat(size >> 1) }] });
			const answer = await client.exchange(messageRequest({ key, body }));
			assert.equal(answer.status, 200);
			const [last] = await world.provider.requests(1);
			assert.equal(last.body_sha256, sha256(Buffer.from(body)), `${size}`);
		}
		client.close();
	});

	test('C58 prompts of markup and script pass unchanged', async () => {
		const text = '<script>alert(1)</script> <!DOCTYPE html> SELECT * FROM x; -- ../../etc/passwd %00 ${jndi:ldap://x} <?xml version="1.0"?><!ENTITY x SYSTEM "file:///"> {{7*7}}';
		const body = messageBody({ system: text, messages: [{ role: 'user', content: text }] });
		assert.equal((await world.ask({ key, body })).status, 200);
		assert.equal((await world.provider.last()).body.toString(), body);
	});

	test('C15 versions, betas and other anthropic headers arrive as they were sent', async () => {
		for (const version of ['2023-06-01', '2026-10-21']) {
			await world.ask({ key, headers: [['anthropic-version', version], ['anthropic-beta', 'context-1m-2025-08-07,  what-ever-2031-01-01 ,x'],
				['Anthropic-Beta', 'second-line-2026-01-01'], ['anthropic-workspace-id', 'wrkspc_1'], ['anthropic-new-thing', 'a;b="c"'],
				['anthropic-dangerous-direct-browser-access', 'true']] });
			const { lines } = await world.provider.last();
			const values = (name) => lines.filter((l) => l.toLowerCase().startsWith(name + ':')).map((l) => l.slice(name.length + 1).trim());
			assert.deepEqual(values('anthropic-version'), [version]);
			assert.deepEqual(values('anthropic-beta'), ['context-1m-2025-08-07,  what-ever-2031-01-01 ,x', 'second-line-2026-01-01']);
			assert.deepEqual(values('anthropic-workspace-id'), ['wrkspc_1']);
			assert.deepEqual(values('anthropic-new-thing'), ['a;b="c"']);
		}
		const client = await world.open();
		const bare = await client.exchange({ path: '/v1/messages', headers: [['x-api-key', key.secret], ['content-type', 'application/json']], body: messageBody() });
		assert.equal(bare.status, 200, 'a missing anthropic-version is supplied');
		assert.ok((await world.provider.last()).lines.includes('anthropic-version: 2023-06-01'));
		client.close();
	});

	test('C16 a second identical turn has the same prefix, and its cache reads come through', async () => {
		const script = { usage: { input_tokens: 5, cache_read_input_tokens: 30000, output_tokens: 7 } };
		const first = await world.ask({ key, script }), second = await world.ask({ key, script });
		const requests = await world.provider.requests(2);
		assert.equal(requests[0].body_sha256, requests[1].body_sha256);
		for (const answer of [first, second])
			assert.equal(JSON.parse(answer.body).usage.cache_read_input_tokens, 30000);
		assert.equal((await world.weir.record(second.headers.get('x-weir-request-id'))).tokens.cache_read, 30000);
	});

	test('C18 unknown and telemetry headers never cause a rejection', async () => {
		const headers = [['x-stainless-lang', 'js'], ['x-stainless-retry-count', '0'], ['x-stainless-timeout', '600'], ['x-app', 'cli'],
			['x-claude-code-session-id', 'f00d'], ['x-claude-code-request-class', 'main'], ['x-claude-code-prev-tool-durations', 'Bash=742;Read=9'],
			['x-whatever', '\u00e9'], ['accept-encoding', 'gzip, deflate, br, zstd'], ['accept-language', '*'], ['priority', 'u=1'],
			['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'], ['baggage', 'a=b'], ['origin', 'null'], ['dnt', '1']];
		const answer = await world.ask({ key, headers });
		assert.equal(answer.status, 200, answer.body.toString());
		assert.equal(answer.headers.get('content-encoding'), undefined);
		const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
		assert.equal(record.session_id, 'f00d');
		assert.equal(record.trace_id, '0af7651916cd43dd8448eb211c80319c');
	});

	test('C23 the provider\'s headers pass, another hop\'s and the shared account\'s do not', async () => {
		const answer = await world.ask({ key, script: { error: 'rate_limit', headers: [['connection', 'x-hop'], ['x-hop', '1'],
			['keep-alive', 'timeout=65'], ['proxy-authenticate', 'Basic'], ['upgrade', 'h2c'], ['anthropic-ratelimit-unified-status', 'allowed'],
			['anthropic-future', 'yes'], ['set-cookie', 'edge=1'], ['x-should-retry', 'true']] } });
		const last = await world.provider.last();
		assert.equal(answer.headers.get('request-id'), last.id);
		assert.equal(answer.headers.get('retry-after'), '17');
		assert.equal(answer.headers.get('x-should-retry'), 'true');
		assert.equal(answer.headers.get('anthropic-workspace-id'), 'wrkspc_fake');
		assert.equal(answer.headers.get('anthropic-future'), 'yes');
		for (const name of ['x-hop', 'keep-alive', 'proxy-authenticate', 'upgrade'])
			assert.ok(!answer.headers.has(name), name);
		assert.ok(!answer.headers.list.some(([n]) => n.startsWith('anthropic-ratelimit-')), answer.text);
	});
});

describe('a model that is sent elsewhere', () => {
	let world, key;
	before(async () => {
		world = await World.open({ settings: { configs: [{ slug: 'pc-pin', config: { override_params: { model: '@anthropic/claude-sonnet-5-5', max_tokens: 512 } } }] } });
		key = await world.weir.key('pinned', '--routing-config', 'pc-pin');
	});
	after(() => world.close());

	test('C14 C22 only the model and the overridden field change on the way, and the answer names the model asked for', async () => {
		for (const stream of [false, true])
			for (const every of [undefined, 1]) {
				const asked = messageBody({ stream, script: { thinking: 2, tool: true, every }, model: 'claude-opus-5', top: { model: 'inner', n: 1.0 } });
				const answer = await world.ask({ key, body: asked });
				assert.equal(answer.status, 200, answer.body.toString());
				const last = await world.provider.last();
				assert.equal(last.body.toString(), asked.replace('"claude-opus-5"', '"claude-sonnet-5-5"').replace('"max_tokens":1024', '"max_tokens":512'));
				const sent = last.sent.toString();
				assert.equal(answer.body.toString(), sent.replace('"model":"claude-sonnet-5-5"', '"model":"claude-opus-5"'));
				assert.match(answer.body.toString(), /"model":"claude-opus-5"/);
				const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
				assert.equal(record.model_requested, 'claude-opus-5');
				assert.equal(record.model, 'claude-sonnet-5-5');
				assert.equal(record.config, 'pc-pin');
			}
	});

	test('C22 errors of a remapped model pass byte for byte', async () => {
		for (const name of ['prompt_too_long', 'unicode', 'overloaded', 'edge_forbidden']) {
			const answer = await world.ask({ key, script: { error: name }, stream: true });
			assert.equal(answer.body.toString(), ERRORS[name].body);
		}
	});
});

test('C21 the [1m] mark leaves the model and becomes its beta', async () => {
	const world = await World.open();
	try {
		const key = await world.weir.key('long');
		const answer = await world.ask({ key, body: messageBody({ model: 'claude-sonnet-4-5[1m]', stream: true }) });
		assert.equal(answer.status, 200, answer.body.toString());
		const last = await world.provider.last();
		assert.equal(JSON.parse(last.body).model, 'claude-sonnet-4-5');
		assert.ok(last.lines.some((l) => /^anthropic-beta: .*context-1m-/i.test(l)), last.lines.join('\n'));
		assert.match(answer.body.toString(), /"model":"claude-sonnet-4-5\[1m\]"/);
	} finally {
		await world.close();
	}
});
