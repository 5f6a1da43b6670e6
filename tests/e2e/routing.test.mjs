// Which provider, which model, which parameters: configs, slugs and headers.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { parseEvents } from './client.mjs';
import { Provider, World, messageBody, messageRequest, refused, timely } from './harness.mjs';

const CONFIGS = [
	{ slug: 'pc-pin', config: { override_params: { model: '@second/claude-opus-5-5' } } },
	{ slug: 'pc-params', config: { override_params: { max_tokens: 77, stop_sequences: ['\u00fc"'], metadata: { user_id: 'u' } } } },
	{ slug: 'pc-target', config: { targets: [{ provider: '@second' }] } },
	{ slug: 'pc-hasty', config: { provider: '@anthropic', request_timeout: 400 } },
];
let world, second, key;

before(async () => {
	second = await Provider.start({ apiKey: 'sk-ant-second', prefix: '/deep/prefix' });
	world = await World.open({ start: false });
	const [first] = world.weir.settings.providers;
	world.weir.write({ ...world.weir.settings, default_provider: 'anthropic', configs: CONFIGS, providers: [{ ...first, models: ['claude-sonnet-*', 'claude-haiku-*'] },
		{ slug: 'second', type: 'anthropic', base_url: `${second.url}/deep/prefix`, api_key: 'sk-ant-second' }] });
	await world.weir.start();
	key = await world.weir.key('routing');
});
after(async () => {
	await world.close();
	await second.stop();
});

/** Asks with these headers; where the request went and with what body. */
async function route(headers, body = {}, who = key) {
	const before = [(await world.provider.stats()).requests, (await second.stats()).requests];
	const answer = await world.ask({ key: who, headers, body: typeof body === 'string' ? body : messageBody(body) });
	const now = [(await world.provider.stats()).requests, (await second.stats()).requests];
	const hit = now[0] > before[0] ? world.provider : now[1] > before[1] ? second : null;
	const last = await hit?.last();
	return { answer, to: hit === second ? 'second' : hit ? 'first' : null, last, sent: last && JSON.parse(last.body) };
}

test('without a word the default provider serves, as it was asked', async () => {
	const { answer, to } = await route([]);
	assert.equal(to, 'first');
	assert.equal(answer.headers.get('x-portkey-provider'), 'anthropic');
});

test('a provider by header, by the model\'s prefix, by a config: the path prefix of its base URL is kept', async () => {
	for (const [headers, body] of [[[['x-portkey-provider', '@second']], {}], [[['x-portkey-provider', 'second']], {}], [[], { model: '@second/claude-sonnet-5-5' }],
		[[['x-portkey-config', 'pc-target']], {}], [[['x-portkey-config', '{"provider":"@second"}']], {}], [[['x-portkey-virtual-key', 'second']], {}]]) {
		const { to, last, sent } = await route(headers, body);
		assert.equal(to, 'second', JSON.stringify([headers, body]));
		assert.equal(last.target, '/deep/prefix/v1/messages');
		assert.equal(sent.model, 'claude-sonnet-5-5');
	}
});

test('override_params.model picks provider and model, the answer keeps the client\'s name', async () => {
	for (const headers of [[['x-portkey-config', 'pc-pin']], [['x-portkey-config', '{"override_params":{"model":"@second/claude-opus-5-5"}}']],
		[['x-portkey-config', '{"overrideParams":{"model":"@second/claude-opus-5-5"}}']]]) {
		const { answer, to, sent } = await route(headers, { model: 'claude-haiku-5-5' });
		assert.equal(to, 'second');
		assert.equal(sent.model, 'claude-opus-5-5');
		assert.equal(JSON.parse(answer.body).model, 'claude-haiku-5-5');
	}
});

test('the client\'s name may be longer or shorter, also in a stream whose length was announced', async () => {
	const client = await world.open();
	try {
		for (const model of ['claude-opus-5-5', 'claude-sonnet-4-5-20250929', 'x', 'claude-haiku-5-5'])
			for (const script of [{ framing: 'length' }, { framing: 'chunked' }, { framing: 'length', cut: [20, 60, 300], gap_ms: 5 }]) {
				const answer = await client.exchange(messageRequest({ key, headers: [['x-portkey-config', 'pc-pin']], body: messageBody({ stream: true, model, script }) }));
				const events = parseEvents(answer.body);
				assert.equal(events[0].json.message.model, model);
				assert.equal(events.at(-1).event, 'message_stop');
				assert.ok(answer.body.toString().endsWith('\n\n'), 'the last event is whole');
			}
	} finally {
		client.close();
	}
});

test('a name with control characters is none: it would become a header', async () => {
	for (const model of ['a\r\nx-evil: 1', '@second/claude\nx-evil: 1', 'a\u0000b', 'a\u001fb', 'a\tb', 'a\u007fb']) {
		const { answer, to } = await route([], { model });
		assert.match(refused(answer, 400, 'invalid_request_error'), /^model: /);
		assert.deepEqual([to, answer.headers.get('x-evil') ?? null], [null, null]);
	}
});

test('override_params set what is there and add what is not; the rest keeps its bytes', async () => {
	const body = '{"model":"claude-sonnet-5-5", "max_tokens":  1024,"messages":[{"role":"user","content":"n 1.0 \\u00e9"}],"x":1e2 }';
	const { sent, last } = await route([['x-portkey-config', 'pc-params']], body);
	assert.equal(sent.max_tokens, 77);
	assert.deepEqual(sent.stop_sequences, ['\u00fc"']);
	assert.deepEqual(sent.metadata, { user_id: 'u' });
	assert.ok(last.body.toString().startsWith('{"model":"claude-sonnet-5-5", "max_tokens":  77,"messages":[{"role":"user","content":"n 1.0 \\u00e9"}],"x":1e2'));
});

test('request_timeout ends the wait with 408', async () => {
	const { answer } = await route([['x-portkey-config', 'pc-hasty']], { script: { delay_head_ms: 300000 } });
	assert.equal(answer.status, 408);
	await timely(async () => (await route([['x-portkey-config', 'pc-hasty']])).answer.status === 200, 'an answer within the timeout');
});

test('a model that the provider does not offer is 404, with its name', async () => {
	assert.match(refused((await route([], { model: 'claude-opus-5-5' })).answer, 404, 'not_found_error'), /claude-opus-5-5/);
	assert.equal((await route([['x-portkey-provider', '@second']], { model: 'claude-opus-5-5' })).to, 'second');
});

test('what a later version does is refused by name, what nobody knows too', async () => {
	for (const [config, words] of [['{"strategy":{"mode":"fallback"},"targets":[{"provider":"@second"},{"provider":"@nobody"}]}', /targets\[1\]: there is no provider "nobody"/],
		['{"retry":{"attempts":9}}', /retry\.attempts: must be a whole number from 0 to 5/], ['{"cache":{}}', /cache: needs "mode"/],
		['{"prompt_id":"p"}', /prompt_id: not yet supported/], ['{"custom_host":"http://127.0.0.1:1"}', /custom_host: Invalid custom host/],
		['{"strategy":{"mode":"conditional","conditions":[{"query":{"metadata.a":"b"},"then":"x"}]},"targets":[{"name":"y"}]}', /no target has the name "x"/],
		['{"strategy":{"mode":"conditional","conditions":[{"query":{"metadata.a":"b"},"then":"y"}]},"targets":[{"name":"y"}]}', /Query router did not resolve to any valid target/],
		['{"input_guardrails":["g"]}', /input_guardrails.*not yet supported/], ['{"colour":"red"}', /colour/], ['{"override_params":7}', /override_params/],
		['{"provider":"@nobody"}', /nobody/], ['{', /x-portkey-config/], ['[]', /./], ['pc-none', /pc-none/], ['{"request_timeout":"soon"}', /request_timeout/]]) {
		const { answer, to } = await route([['x-portkey-config', config]]);
		assert.match(refused(answer, 400, 'invalid_request_error'), words, config);
		assert.equal(to, null, config);
	}
});

test('the first target of each mode: by order, by the request, by weight', async () => {
	const to = async (config, body) => (await route([['x-portkey-config', JSON.stringify(config)], ['x-portkey-metadata', '{"env":"dev"}']], body)).to;
	const both = [{ name: 'a', provider: '@second' }, { name: 'b', provider: '@anthropic' }];
	const rules = [{ query: { 'metadata.env': 'prod' }, then: 'a' }, { query: { 'params.model': { $regex: '^claude-haiku' } }, then: 'a' }];
	assert.equal(await to({ strategy: { mode: 'fallback' }, targets: both }), 'second');
	assert.equal(await to({ targets: both }), 'second');
	assert.equal(await to({ strategy: { mode: 'conditional', conditions: rules, default: 'b' }, targets: both }, { model: 'claude-haiku-5-5' }), 'second');
	assert.equal(await to({ strategy: { mode: 'conditional', conditions: rules, default: 'b' }, targets: both }, { model: 'claude-sonnet-5-5' }), 'first');
	assert.equal(await to({ strategy: { mode: 'loadbalance' }, targets: [{ ...both[0], weight: 0 }, { ...both[1], weight: 3 }] }), 'first');
	assert.equal(await to({ provider: 'anthropic' }), 'first');
});

test('a target\'s defaults, overrides and drops, in this order; a model that the client leaves out', async () => {
	const config = { provider: '@second', default_params: { model: 'claude-opus-5-5', max_tokens: 5, top_k: 7 }, override_params: { temperature: 0.5 },
		drop_params: ['metadata.user_id', 'stop_sequences[*]'] };
	const body = '{"messages":[{"role":"user","content":"hi"}],"max_tokens": 1024,"metadata":{"user_id":"u","x":1},"stop_sequences":["a","b"]}';
	const { answer, sent } = await route([['x-portkey-config', JSON.stringify(config)]], body);
	assert.equal(answer.status, 200);
	assert.deepEqual(sent, { messages: [{ role: 'user', content: 'hi' }], max_tokens: 1024, metadata: { x: 1 }, stop_sequences: [], top_k: 7, temperature: 0.5,
		model: 'claude-opus-5-5' });
});

test('a key\'s config applies, and a locked one cannot be replaced', async () => {
	const bound = await world.weir.key('bound', '--routing-config', 'pc-pin'), locked = await world.weir.key('locked', '--routing-config', 'pc-pin', '--lock-config');
	assert.equal((await route([], {}, bound)).to, 'second');
	assert.equal((await route([['x-portkey-config', 'pc-params']], {}, bound)).to, 'first');
	const { answer, to } = await route([['x-portkey-config', 'pc-params']], {}, locked);
	refused(answer, 400, 'invalid_request_error');
	assert.equal(to, null);
	assert.equal((await route([], {}, locked)).to, 'second');
});

test('the allow-list of a key looks at the model that goes out', async () => {
	const haiku = await world.weir.key('haiku', '--model', 'claude-haiku-*'), pinned = await world.weir.key('pinned', '--model', 'claude-haiku-*', '--routing-config', 'pc-pin');
	assert.equal((await route([], { model: 'claude-haiku-5-5' }, haiku)).to, 'first');
	for (const [who, body] of [[haiku, { model: 'claude-sonnet-5-5' }], [haiku, { model: '@second/claude-opus-5-5' }], [pinned, { model: 'claude-haiku-5-5' }]])
		assert.match(refused((await route([], body, who)).answer, 403, 'permission_error'), /not allowed for this API key; you can use: claude-haiku-/);
});

test('records name config, provider, models, trace and client', async () => {
	const { answer } = await route([['x-portkey-config', 'pc-pin'], ['x-portkey-trace-id', 'trace-77'], ['user-agent', 'claude-cli/2.1.295 (external, cli)'],
		['x-claude-code-session-id', 's-1']], { model: 'claude-haiku-5-5' });
	assert.equal(answer.headers.get('x-portkey-trace-id'), 'trace-77');
	const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
	for (const [name, value] of Object.entries({ config: 'pc-pin', provider: 'second', model_requested: 'claude-haiku-5-5', model: 'claude-opus-5-5', trace_id: 'trace-77',
		client: 'claude-code', client_version: '2.1.295', session_id: 's-1', key: 'routing', workspace: 'default', route: 'messages', attempts: 1, status: 200, outcome: 'ok' }))
		assert.equal(record[name], value, name);
	assert.match(record.price, /^claude-opus-5-5@/);
	assert.ok(record.total_ns > 0 && record.upstream_ns > 0 && record.first_byte_ns > 0 && record.overhead_ns >= 0 && record.upstream_ns <= record.total_ns);
});
