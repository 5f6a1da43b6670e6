// Budgets and limits of every owner: what they lower, refuse, wait for, count,
// and what they say.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, messageBody, refused, until } from './harness.mjs';

const OPUS = 'claude-opus-5-5';	/* $4 and $20 a million tokens */
const BIG = 128000;
let world;

before(async () => {
	world = await World.open({ workers: 4, settings: { ledger: { meters: 4096 } } });
});
after(() => world.close());

const recordOf = (answer, w = world) => w.weir.record(answer.headers.get('x-weir-request-id'));
const counted = (request) => request.target.startsWith('/v1/messages/count_tokens');

/** A weir with these settings, for one test. */
async function within(options, job) {
	const w = await World.open(options);
	try {
		return await job(w);
	} finally {
		await w.close();
	}
}

describe('clamp, the default', () => {
	test('max_tokens is lowered to what the hold pays, nothing else of the body changes, and a header says so', async () => {
		const key = await world.weir.key('clamp', '--budget', '1', '--budget-period', 'monthly');
		const body = messageBody({ model: OPUS, max_tokens: BIG, temperature: 0.25, script: { usage: { input_tokens: 10, output_tokens: 500 } } });
		const answer = await world.ask({ key, body });
		assert.equal(answer.status, 200, answer.body.toString());
		const lowered = Number(answer.headers.get('x-weir-max-tokens'));
		assert.ok(lowered > 4096 && lowered < BIG, `${lowered}`);
		assert.equal(answer.headers.get('x-weir-clamped-by'), 'key monthly budget');
		const sent = (await world.provider.requests(50, true)).find((r) => r.id === answer.headers.get('request-id'));
		assert.equal(Buffer.from(sent.body_base64, 'base64').toString(), body.replace(`"max_tokens":${BIG}`, `"max_tokens":${lowered}`));
		const record = await recordOf(answer);
		assert.ok(record.flags.includes('clamped'));
		assert.equal(record.asked_tokens, BIG);
		assert.equal(record.granted_tokens, lowered);
		assert.ok(record.held_nusd <= 125_000_000, `an eighth of a dollar: ${record.held_nusd}`);
		assert.ok(record.held_nusd > 124_900_000, `and not much less: ${record.held_nusd}`);
		assert.equal(record.cost_nusd, 10 * 4000 + 500 * 20000);
	});

	test('what fits into a share passes untouched, to the byte', async () => {
		const key = await world.weir.key('fits', '--budget', '100');
		const body = messageBody({ model: OPUS, max_tokens: BIG });
		const answer = await world.ask({ key, body });
		assert.equal(answer.status, 200);
		assert.ok(!answer.headers.has('x-weir-max-tokens'));
		const sent = (await world.provider.requests(50, true)).find((r) => r.id === answer.headers.get('request-id'));
		assert.equal(Buffer.from(sent.body_base64, 'base64').toString(), body);
	});

	test('never below the floor, and refused when the floor does not fit', async () => {
		const key = await world.weir.key('floor', '--budget', '0.1');
		const answer = await world.ask({ key, body: messageBody({ model: OPUS, max_tokens: BIG }) });
		assert.equal(answer.status, 200, answer.body.toString());
		assert.equal(answer.headers.get('x-weir-max-tokens'), '4096');
		const poor = await world.weir.key('below-floor', '--budget', '0.08');
		refused(await world.ask({ key: poor, body: messageBody({ model: OPUS, max_tokens: BIG }) }), 429, 'billing_error');
		const small = await world.ask({ key: poor, body: messageBody({ model: OPUS, max_tokens: 1000 }) });
		assert.equal(small.status, 200, 'a request that asks for less than the floor is asked for that');
	});

	test('a fixed thinking budget is left room', async () => {
		const key = await world.weir.key('thinks', '--budget', '0.7');
		const body = messageBody({ model: OPUS, max_tokens: 64000, thinking: { type: 'enabled', budget_tokens: 20000 } });
		const answer = await world.ask({ key, body });
		assert.equal(answer.status, 200, answer.body.toString());	/* the provider refuses max_tokens <= budget_tokens */
		assert.ok(Number(answer.headers.get('x-weir-max-tokens')) > 20000);
	});
});

describe('strict and postpaid', () => {
	test('strict refuses instead of lowering, and says what would help', async () => {
		const key = await world.weir.key('strictly', '--budget', '1', '--mode', 'strict');
		const message = refused(await world.ask({ key, body: messageBody({ model: OPUS, max_tokens: BIG }) }), 429, 'billing_error');
		assert.match(message, /max_tokens/);
		assert.equal((await world.ask({ key, body: messageBody({ model: OPUS, max_tokens: 4096 }) })).status, 200);
	});

	test('postpaid admits until all is spent, and may overshoot', async () => {
		const key = await world.weir.key('later', '--budget', '0.01', '--mode', 'postpaid');
		const body = messageBody({ model: OPUS, max_tokens: BIG, script: { usage: { input_tokens: 10, output_tokens: 2000 } } });
		const answer = await world.ask({ key, body });
		assert.equal(answer.status, 200, answer.body.toString());
		assert.ok(!answer.headers.has('x-weir-max-tokens'));
		const message = refused(await world.ask({ key, body }), 429, 'billing_error');
		assert.match(message, /spend limit reached/);
		await world.weir.spends(key, 10n * 4000n + 2000n * 20000n);
	});
});

describe('tokens, requests in flight', () => {
	test('a token budget holds, clamps and counts tokens', async () => {
		const key = await world.weir.key('tokens', '--token-budget', '20000', '--budget-period', 'daily');
		const script = { usage: { input_tokens: 100, output_tokens: 4000, cache_read_input_tokens: 900 } };
		let answered = 0, last;
		for (let i = 0; i < 10; i++) {
			last = await world.ask({ key, body: messageBody({ max_tokens: BIG, script }) });
			if (last.status !== 200)
				break;
			answered++;
		}
		assert.equal(answered, 4, 'four times 5,000');
		const message = refused(last, 429, 'billing_error');
		assert.match(message, /token/);
	});

	test('tokens a minute: the bucket gives back what was not used', async () => {
		const key = await world.weir.key('tpm', '--tpm', '30000');
		for (let i = 0; i < 4; i++) {
			const answer = await world.ask({ key, body: messageBody({ max_tokens: 8000, script: { usage: { input_tokens: 50, output_tokens: 50 } } }) });
			assert.equal(answer.status, 200, `request ${i}: ${answer.body}`);
			assert.equal(answer.headers.get('anthropic-ratelimit-tokens-limit'), '30000');
		}
		const used = await world.ask({ key, body: messageBody({ max_tokens: 8000, script: { usage: { input_tokens: 25000, output_tokens: 4000 } } }) });
		assert.equal(used.status, 200, used.body.toString());
		const answer = await world.ask({ key, body: messageBody({ max_tokens: 8000 }) });
		refused(answer, 429, 'rate_limit_error');
		assert.match(answer.headers.get('retry-after'), /^[1-9]\d?$/);
	});

	test('requests in flight: one more waits a moment, and is refused if nobody leaves', async () => {
		const key = await world.weir.key('two', '--concurrency', '2');
		const held = [1, 2].map(() => world.ask({ key, stream: true, script: { hold: { after_events: 2, gate: 'two' } } }));
		await world.provider.held(2);
		const third = await world.ask({ key });
		refused(third, 429, 'rate_limit_error');
		assert.equal(third.headers.get('retry-after'), '1');
		await world.provider.release('two');
		for (const h of held)
			assert.equal((await h).status, 200);
		assert.equal((await world.ask({ key })).status, 200);
	});

	test('who waits is admitted when one leaves', () => within({ workers: 1, settings: { budgets: { admission_wait_ms: 10000 } } }, async (w) => {
		const key = await w.weir.key('queue', '--concurrency', '1');
		const first = w.ask({ key, stream: true, script: { hold: { after_events: 2, gate: 'queue' } } });
		await w.provider.held(1);
		const second = w.ask({ key });
		await until(async () => JSON.parse((await w.weir.command('top', '--config', w.weir.configPath, '--once', '--json', '--interval', '0.05')).stdout || '{}').waiting === 1,
			'one waits');
		await w.provider.release('queue');
		assert.equal((await first).status, 200);
		const answer = await second;
		assert.equal(answer.status, 200, answer.body.toString());
		const record = await recordOf(answer, w);
		assert.ok(record.flags.includes('waited') && record.wait_ns > 0, JSON.stringify(record.flags));
		assert.equal((await w.weir.metrics()).sum('weir_admission_waited_total'), 1);
	}));
});

describe('who carries limits', () => {
	const settings = {
		workspaces: [{ slug: 'eng', rate_limits: [{ type: 'requests', unit: 'rph', value: 3 }] }],
		policies: [
			{ id: 'per-user', conditions: [{ key: 'metadata._user', value: '*', excludes: ['root'] }], group_by: [{ key: 'metadata._user' }],
				type: 'cost', credit_limit: 0.05, periodic_reset: 'monthly', groups_max: 3 },
			{ id: 'no-haiku', conditions: [{ key: 'model', value: ['@anthropic/claude-haiku-*'] }], type: 'requests', unit: 'rpd', value: 0 },
			{ id: 'config-cap', conditions: [{ key: 'config', value: 'pc-capped' }], type: 'requests', unit: 'rpd', value: 1 },
		],
		configs: [{ slug: 'pc-capped', config: {} }],
	};
	const providerSettings = { rate_limits: [{ type: 'requests', unit: 'rpd', value: 1000 }],
		model_limits: [{ model: 'claude-opus-*', rate_limits: [{ type: 'requests', unit: 'rpd', value: 2 }] }] };
	const as = (user) => [['x-portkey-metadata', JSON.stringify({ _user: user })]];
	let w;

	before(async () => { w = await World.open({ workers: 2, settings, providerSettings }); });
	after(() => w.close());

	const limitOf = async (answer) => (await recordOf(answer, w)).limit;

	test('a workspace: all of its keys together', async () => {
		const keys = [await w.weir.key('one', '--workspace', 'eng'), await w.weir.key('two', '--workspace', 'eng')];
		for (let i = 0; i < 3; i++)
			assert.equal((await w.ask({ key: keys[i % 2] })).status, 200);
		const answer = await w.ask({ key: keys[1] });
		refused(answer, 429, 'rate_limit_error');
		assert.equal(await limitOf(answer), 'workspace rph');
	});

	test('a model of a provider', async () => {
		const key = await w.weir.key('opus');
		for (let i = 0; i < 2; i++)
			assert.equal((await w.ask({ key, body: messageBody({ model: OPUS }) })).status, 200);
		const answer = await w.ask({ key, body: messageBody({ model: OPUS }) });
		refused(answer, 429, 'rate_limit_error');
		assert.equal(await limitOf(answer), 'model rpd');
		assert.equal((await w.ask({ key })).status, 200, 'others are not meant');
	});

	test('a policy: each user has a budget of their own, and the excluded one has none', async () => {
		const key = await w.weir.key('users');
		const script = { usage: { input_tokens: 0, output_tokens: 4000 } };	/* $0.04 of $0.05 */
		const spend = (user) => w.ask({ key, headers: as(user), body: messageBody({ max_tokens: 4000, script }) });
		assert.equal((await spend('alice')).status, 200);
		const answer = await spend('alice');
		const message = refused(answer, 429, 'billing_error');
		assert.match(message, /per-user/);
		assert.equal(await limitOf(answer), 'policy per-user');
		assert.equal((await spend('bob')).status, 200);
		for (let i = 0; i < 3; i++)
			assert.equal((await spend('root')).status, 200, 'excluded');
		assert.equal((await w.ask({ key })).status, 200, 'without the field the policy does not apply');
	});

	test('more users than groups_max share one meter, and that is counted', async () => {
		const key = await w.weir.key('crowd');
		const script = { usage: { input_tokens: 0, output_tokens: 4000 } };	/* $0.04 of $0.05 */
		const spend = (user) => w.ask({ key, headers: as(user), body: messageBody({ max_tokens: 4000, script }) });
		await spend('alice');	/* alice and bob may have come before; carol is the third */
		await spend('bob');
		await spend('carol');
		assert.equal((await spend('dave')).status, 200, 'the shared meter is fresh');
		refused(await spend('erin'), 429, 'billing_error');
		assert.ok((await w.weir.metrics()).sum('weir_group_overflow_total') >= 1);
	});

	test('a limit of 0 blocks', async () => {
		const key = await w.weir.key('haiku');
		refused(await w.ask({ key, body: messageBody({ model: 'claude-haiku-5-5' }) }), 429, 'rate_limit_error');
	});

	test('a limit on a config is a policy', async () => {
		const key = await w.weir.key('capped', '--routing-config', 'pc-capped');
		assert.equal((await w.ask({ key })).status, 200);
		const answer = await w.ask({ key });
		refused(answer, 429, 'rate_limit_error');
		assert.equal(await limitOf(answer), 'policy config-cap');
	});

	test('a refusal by one limit uses nothing of the others', async () => {
		const key = await w.weir.key('unused', '--rpd', '2', '--routing-config', 'pc-capped');
		refused(await w.ask({ key }), 429, 'rate_limit_error');
		refused(await w.ask({ key }), 429, 'rate_limit_error');
		refused(await w.ask({ key }), 429, 'rate_limit_error');
		const listed = JSON.parse((await w.weir.command('limits', '--config', w.weir.configPath, '--key', key.id, '--json')).stdout);
		const own = listed.find((m) => m.name.startsWith('key '));
		assert.equal(own.left, 2, JSON.stringify(own));
	});
});

describe('limits that change', () => {
	const policies = (limit) => ({ policies: [{ id: 'p', conditions: [], type: 'cost', ...limit }] });
	const spend = (w, key, output = 5000) => w.ask({ key, body: messageBody({ max_tokens: output, script: { usage: { input_tokens: 0, output_tokens: output } } }) });

	async function reload(w, settings) {
		const before = (await w.weir.metrics()).sum('weir_settings_version');
		w.weir.write({ ...w.weir.settings, ...settings });
		w.weir.signal('SIGHUP');
		await until(async () => (await w.weir.metrics()).sum('weir_settings_version') === before + 1, 'the new settings are in force');
	}

	test('a limit that is lowered below the spend refuses from now on and says so; raised, it admits at once', () => within(
		{ settings: policies({ credit_limit: 1, periodic_reset: 'monthly' }) }, async (w) => {
			const key = await w.weir.key('lowered');
			assert.equal((await spend(w, key)).status, 200);
			await reload(w, policies({ credit_limit: 0.02, periodic_reset: 'monthly' }));
			const message = refused(await spend(w, key), 429, 'billing_error');
			assert.match(message, /\$0\.05 of \$0\.02/);
			await reload(w, policies({ credit_limit: 2, periodic_reset: 'monthly' }));
			assert.equal((await spend(w, key)).status, 200);
		}));

	test('a shorter period begins anew: nobody is refused by what was spent in the longer one', () => within(
		{ settings: policies({ credit_limit: 1, periodic_reset: 'monthly' }) }, async (w) => {
			const key = await w.weir.key('shorter');
			for (let i = 0; i < 3; i++)
				assert.equal((await spend(w, key, 10000)).status, 200);
			await reload(w, policies({ credit_limit: 0.2, periodic_reset: 'daily' }));
			assert.equal((await spend(w, key)).status, 200);
		}));

	test('a longer period keeps what was spent, over a restart too', () => within(
		{ settings: policies({ credit_limit: 10, periodic_reset: 'daily' }) }, async (w) => {
			const key = await w.weir.key('longer');
			assert.equal((await spend(w, key, 50000)).status, 200);
			assert.equal(await w.weir.stop(), 0);
			w.weir.write({ ...w.weir.settings, ...policies({ credit_limit: 0.4, periodic_reset: 'monthly' }) });
			await w.weir.start();
			const message = refused(await spend(w, key), 429, 'billing_error');
			assert.match(message, /\$0\.50 of \$0\.40/);
		}));
});

describe('counting a prompt', () => {
	const TEXT = 'word '.repeat(60000);	/* 300 KB: 300,000 tokens at the most, 75,000 as the provider counts */

	test('where the loose bound does not fit, the provider is asked, once for the same prompt', async () => {
		const key = await world.weir.key('counting', '--budget', '0.6');
		const body = messageBody({ max_tokens: 2000, messages: [{ role: 'user', content: TEXT }], stop_sequences: ['x'], metadata: { user_id: 'u' },
			system: 'be brief', tools: [{ name: 't', input_schema: { type: 'object' } }] });
		for (let i = 0; i < 2; i++) {
			const answer = await world.ask({ key, body });
			assert.equal(answer.status, 200, answer.body.toString());
			const record = await recordOf(answer);
			assert.ok(record.flags.includes('counted'));
			assert.ok(record.held_nusd < 300_000_000, `${record.held_nusd}`);
			assert.ok(record.held_nusd >= record.cost_nusd);
		}
		const asked = (await world.provider.requests(50, true)).filter((r) => counted(r) && r.body_base64.length > TEXT.length);
		assert.ok(asked.length >= 1 && asked.length <= 2, 'at most once a worker');
		assert.deepEqual(Object.keys(JSON.parse(Buffer.from(asked[0].body_base64, 'base64'))).sort(), ['messages', 'model', 'system', 'tools']);
		assert.ok((await world.weir.metrics()).sum('weir_counted_total') >= 1);
	});

	test('a prompt that is too dear even when counted is refused, and nobody is asked for what fits', async () => {
		const key = await world.weir.key('too-dear', '--budget', '0.05');
		refused(await world.ask({ key, body: messageBody({ max_tokens: 2000, messages: [{ role: 'user', content: TEXT }] }) }), 429, 'billing_error');
		const before = (await world.provider.requests(1e6)).filter(counted).length;
		assert.equal((await world.ask({ key, body: messageBody({ max_tokens: 1000 }) })).status, 200);
		assert.equal((await world.provider.requests(1e6)).filter(counted).length, before);
	});

	test('count_tokens is never billed and never blocked by a spent budget', async () => {
		const key = await world.weir.key('spent', '--budget', '0.000001', '--token-budget', '1');
		const answer = await world.ask({ key, path: '/v1/messages/count_tokens', body: JSON.stringify({ model: OPUS, messages: [{ role: 'user', content: 'x' }] }) });
		assert.equal(answer.status, 200, answer.body.toString());
		await world.weir.spends(key, 0n);
	});
});

describe('what is said', () => {
	test('the tightest limits stand in the answer', async () => {
		const key = await world.weir.key('headers', '--rpm', '100', '--rph', '20', '--tpm', '1000000');
		const answer = await world.ask({ key });
		assert.equal(answer.headers.get('anthropic-ratelimit-requests-limit'), '20');
		assert.equal(answer.headers.get('anthropic-ratelimit-requests-remaining'), '19');
		const reset = Date.parse(answer.headers.get('anthropic-ratelimit-requests-reset')) - Date.now();
		assert.ok(reset > 120_000 && reset < 200_000, `one of 20 an hour comes back in three minutes: ${reset}`);
		assert.equal(answer.headers.get('anthropic-ratelimit-tokens-limit'), '1000000');
		const plain = await world.weir.key('no-headers');
		assert.ok(!(await world.ask({ key: plain })).headers.list.some(([n]) => n.startsWith('anthropic-ratelimit-')), 'and the account\'s own do not pass');
	});

	test('retry-after is right: who waits that long is admitted', async () => {
		const key = await world.weir.key('patient', '--rpm', '60');
		const burst = await Promise.all(Array.from({ length: 70 }, () => world.ask({ key, script: { events: 0 } })));
		const late = burst.filter((a) => a.status === 429);
		assert.ok(late.length > 0);
		const seconds = Number(late.at(-1).headers.get('retry-after'));
		assert.ok(seconds >= 1 && seconds <= 60);
		await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
		assert.equal((await world.ask({ key })).status, 200);
	});

	test('weir explain tells what was reserved, settled, and who refused', async () => {
		const key = await world.weir.key('explained', '--rpm', '2', '--budget', '1', '--budget-period', 'weekly', '--token-budget', '1000000');
		const answer = await world.ask({ key, body: messageBody({ model: OPUS, max_tokens: BIG, script: { usage: { input_tokens: 7, output_tokens: 11 } } }) });
		const record = await recordOf(answer);
		const told = JSON.parse((await world.weir.command('explain', record.request_id, '--config', world.weir.configPath, '--json')).stdout);
		const by = (name) => told.charges.find((c) => c.name.endsWith(name));
		assert.equal(told.charges.length, 3, JSON.stringify(told.charges));
		assert.equal(by('rpm').settled, 1);
		assert.equal(by('cost').settled, 7 * 4000 + 11 * 20000);
		assert.equal(by('cost').held, record.held_nusd);
		assert.equal(by('tokens').settled, 18);
		await world.ask({ key });
		const refusedOne = await world.ask({ key });
		refused(refusedOne, 429, 'rate_limit_error');
		const id = (await recordOf(refusedOne)).request_id;
		const text = (await world.weir.command('explain', id, '--config', world.weir.configPath)).stdout;
		assert.match(text, /key rpm/);
		assert.match(text, /refused/);
		assert.equal((await world.weir.command('explain', 'req_nobody', '--config', world.weir.configPath)).code, 1);
	});

	test('weir limits shows levels, and reset takes effect at once and for good', async () => {
		const key = await world.weir.key('resettable', '--budget', '0.02', '--budget-period', 'monthly');
		const body = messageBody({ model: OPUS, max_tokens: 600, script: { usage: { input_tokens: 0, output_tokens: 1000 } } });
		assert.equal((await world.ask({ key, body })).status, 200);
		refused(await world.ask({ key, body }), 429, 'billing_error');
		const list = async () => JSON.parse((await world.weir.command('limits', '--config', world.weir.configPath, '--key', key.id, '--json')).stdout);
		const [meter] = await list();
		assert.equal(meter.spent, 12_000_000);	/* 600 tokens, whatever the script says */
		assert.equal(meter.limit, 20_000_000);
		assert.equal(meter.held, 0);
		assert.match(meter.resets, /^\d{4}-\d\d-01T00:00:00/);
		const reset = await world.weir.command('limits', 'reset', meter.id, '--yes', '--config', world.weir.configPath);
		assert.equal(reset.code, 0, reset.stderr);
		assert.equal((await list())[0].spent, 0);
		await world.weir.spends(key, 0n);
		assert.equal((await world.ask({ key, body })).status, 200);
		const unknown = await world.weir.command('limits', 'reset', '00000000000000000000000000000001', '--yes', '--config', world.weir.configPath);
		assert.notEqual(unknown.code, 0);
	});

	test('weir top shows one snapshot', async () => {
		const shown = await world.weir.command('top', '--config', world.weir.configPath, '--once', '--interval', '0.1');
		assert.equal(shown.code, 0, shown.stderr);
		assert.match(shown.stdout, /worker/);
		assert.match(shown.stdout, /keeper/);
	});
});
