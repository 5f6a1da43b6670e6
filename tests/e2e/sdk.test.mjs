// The official SDKs, unmodified, over plain HTTP and over TLS.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import OpenAI from 'openai';

import { World, run } from './harness.mjs';

const SDKS = [{ name: '@anthropic-ai/sdk', version: '1.12.0', header: 'authorization', api: '2026-10-21' },
	{ name: 'anthropic-sdk-0', version: '0.137.0', header: 'x-api-key', api: '2023-06-01' }];
const PROGRAM = fileURLToPath(new URL('sdk-client.mjs', import.meta.url));
let world, key;

before(async () => {
	world = await World.open({ tls: true, upstreamTls: true });
	key = await world.weir.key('sdk');
});
after(() => world.close());

const params = (script, rest = {}) => ({ model: 'claude-sonnet-5-5', max_tokens: 16384,
	messages: [{ role: 'user', content: JSON.stringify({ fake: script }) }], ...rest });

async function drive(sdk, jobs, { tls = false, apiKey = key.secret } = {}) {
	const job = { sdk: sdk.name, apiKey, jobs, baseURL: tls ? `https://localhost:${world.weir.tlsPort}` : `http://127.0.0.1:${world.weir.port}` };
	const done = await run(process.execPath, [PROGRAM], { input: JSON.stringify(job), timeout: 180000,
		env: { NODE_EXTRA_CA_CERTS: world.authority.cert, ANTHROPIC_API_KEY: undefined, ANTHROPIC_AUTH_TOKEN: undefined, ANTHROPIC_BASE_URL: undefined } });
	assert.equal(done.code, 0, done.stderr);
	return JSON.parse(done.stdout);
}

for (const sdk of SDKS)
	describe(`${sdk.name} ${sdk.version}`, () => {
		test('is the version that this test speaks of', () => {
			const manifest = path.join(path.dirname(PROGRAM), '../node_modules', sdk.name, 'package.json');
			assert.equal(JSON.parse(readFileSync(manifest, 'utf8')).version, sdk.version);
		});

		for (const tls of [false, true])
			test(`C9 ${tls ? 'TLS' : 'plain'}: a message, a stream, the helper, tokens, models`, async () => {
				const script = { events: 4, thinking: 2, tool: true };
				const results = await drive(sdk, [{ kind: 'create', params: params(script) }, { kind: 'events', params: params(script) },
					{ kind: 'helper', params: params(script) }, { kind: 'count', params: { model: 'claude-sonnet-5-5', messages: [{ role: 'user', content: 'x' }] } },
					{ kind: 'models' }], { tls });
				for (const result of results)
					assert.equal(result.error, undefined, result.message);
				const [created, events, helped, counted, listed] = results;
				assert.deepEqual(created.message.content.map((b) => b.type), ['thinking', 'text', 'tool_use']);
				assert.match(created.requestId, /^req_fake_/);
				assert.equal(events.events.message_stop, 1);
				assert.equal(events.events.content_block_stop, 3);
				assert.deepEqual(helped.message.content[2].input, created.message.content[2].input);
				assert.deepEqual(helped.message.usage.output_tokens, created.message.usage.output_tokens);
				assert.ok(counted.input_tokens > 0);
				assert.ok(listed.ids.length > 5 && listed.one.id === listed.ids[0]);
				const request = (await world.provider.requests(4)).find((r) => r.target === '/v1/messages');
				assert.deepEqual(request.headers.filter(([n]) => n.toLowerCase() === 'anthropic-version').map(([, v]) => v), [sdk.api]);
				const [record] = await world.weir.records(1, `provider_request_id=${created.requestId}`);
				assert.equal(record.client, 'anthropic-sdk-js');
				assert.equal(record.client_version, sdk.version);
			});

		test('streams 2,000 events with thinking and a tool call, byte for byte', async () => {
			const script = { events: 1000, text_bytes: 40, thinking: 500, tool: { pieces: 500, input: { text: 'w"\\é'.repeat(2500) } }, ping_every: 100 };
			for (const tls of [false, true]) {
				const [events, helped] = await drive(sdk, [{ kind: 'events', params: params(script) }, { kind: 'helper', params: params(script) }], { tls });
				assert.equal(events.error, undefined, events.message);
				assert.ok(events.events.content_block_delta >= 2000, JSON.stringify(events.events));
				const [first, second] = await world.provider.requests(2);
				assert.equal(events.sha256, first.sent_sha256);
				assert.equal(helped.sha256, second.sent_sha256);
				assert.deepEqual(helped.message.content[2].input, { text: 'w"\\é'.repeat(2500) });
				assert.ok(helped.texts >= 1000 && helped.inputs >= 500 && helped.thoughts >= 500);
			}
		});

		test('C35 errors arrive as the classes that the SDK has for them, with its retries', async () => {
			const expected = [['prompt_too_long', 'BadRequestError', 400, 1], ['authentication', 'AuthenticationError', 401, 1],
				['permission', 'PermissionDeniedError', 403, 1], ['model_not_found', 'NotFoundError', 404, 1],
				/* details.error_code chooses a finer class where the SDK has one */
				['spend_cap', sdk.version.startsWith('1.') ? 'EnforcedSpendLimitReachedError' : 'RateLimitError', 429, 1]];
			const results = await drive(sdk, expected.map(([error]) => ({ kind: 'create', params: params({ error }) })));
			results.forEach((result, i) => {
				const [name, type, status, calls] = expected[i];
				assert.equal(result.error, type, name);
				assert.equal(result.status, status, name);
				assert.equal(result.calls, calls, name);
			});
		});

		test('C37 a rate limit is retried twice and then shown; a spent budget is not retried', async () => {
			const slow = await world.weir.key(`slow-${sdk.version}`, '--rpm', '1');
			const [first, second] = await drive(sdk, [{ kind: 'create', params: params({}) }, { kind: 'models' }], { apiKey: slow.secret });
			assert.equal(first.error, undefined, first.message);
			assert.equal(second.error, undefined, 'the list of models is not under the limit');
			const poor = await world.weir.key(`poor-${sdk.version}`, '--budget', '0.000001', '--budget-period', 'monthly');
			const [broke] = await drive(sdk, [{ kind: 'create', params: params({}) }], { apiKey: poor.secret });
			assert.equal(broke.error, 'RateLimitError');
			assert.equal(broke.calls, 1, 'x-should-retry: false');
			assert.equal(broke.type, 'billing_error');
			assert.match(broke.message, /spend limit reached \(monthly; resets \d{4}-\d\d-01 00:00 UTC\)/);
			assert.match(broke.requestId ?? '', /^req_/);

			/* The bucket is empty after a burst, and a token comes every second. */
			const brisk = await world.weir.key(`brisk-${sdk.version}`, '--rpm', '60');
			await Promise.all(Array.from({ length: 60 }, () => world.ask({ key: brisk, script: { events: 0 } })));
			const [waited] = await drive(sdk, [{ kind: 'create', params: params({}) }], { apiKey: brisk.secret });
			assert.equal(waited.error, undefined, waited.message);
		});

		test('an overloaded provider is retried by the SDK, and an error event throws', async () => {
			const [busy, broken] = await drive(sdk, [{ kind: 'create', params: params({ error: 'overloaded' }) },
				{ kind: 'events', params: params({ events: 5, error_after: 4 }) }]);
			assert.equal(busy.calls, 3);
			assert.equal(busy.status, 529);
			assert.match(broken.message, /overloaded_error/);
		});

		test('a revoked key is an AuthenticationError at once', async () => {
			const [result] = await drive(sdk, [{ kind: 'create', params: params({}) }], { apiKey: 'weir_sk_nobody' });
			assert.equal(result.error, 'AuthenticationError');
			assert.equal(result.calls, 1);
		});
	});

test('C44 the list of models serves the OpenAI SDK too', async () => {
	const client = new OpenAI({ baseURL: `http://127.0.0.1:${world.weir.port}/v1`, apiKey: key.secret });
	const ids = [];
	for await (const model of client.models.list()) {
		assert.equal(model.object, 'model');
		assert.ok(Number.isInteger(model.created));
		assert.equal(typeof model.owned_by, 'string');
		ids.push(model.id);
	}
	assert.ok(ids.includes('claude-sonnet-5-5'));
	assert.equal((await client.models.retrieve('claude-sonnet-5-5')).id, 'claude-sonnet-5-5');
});
