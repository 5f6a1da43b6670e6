// Where a request goes by its config: fallback, load balancing, conditions; what
// the target is then sent; and what the answer says of it. Tables: a row is a
// config, how the accounts are, and what must come of it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, messageBody, refused } from './harness.mjs';
import { HARDY, MODEL, billed, conditional, fallback, heal, inline, isAnswerOf, loadbalance, newLabel, outages, recordOf, saved, target, triesOf, walk } from './routes.mjs';

const SLUGS = ['a', 'b', 'c'];
const CONFIGS = [{ slug: 'pc-plain', config: target('b') }, { slug: 'pc-both', config: fallback(['a', 'b']) },
	{ slug: 'pc-model', config: fallback([target('a', { override_params: { model: 'claude-haiku-5-5' } }), { override_params: { model: '@b/claude-opus-5-5' } }]) }];
let world, key;

before(async () => {
	world = await World.open({ providers: SLUGS.map((slug) => ({ slug })), settings: { ...HARDY, configs: CONFIGS, default_provider: 'c' } });
	key = await world.weir.key('modes');
});
after(() => world.close());

const nested = fallback([fallback(['a', 'b']), 'c']);
const only = (mode, first) => loadbalance([target(first, { weight: 1 }), target('c', { weight: 0 })], {}, mode);

/* name, config, outages by account, who answers, where that is in the config, how often each was asked */
const WALKS = [
	['no targets: itself', target('b'), {}, 'b', 'config', { b: 1 }],
	['single: its first target', { strategy: { mode: 'single' }, targets: [target('b'), target('a')] }, {}, 'b', 'config.targets[0]', { b: 1 }],
	['fallback: the first that is well', fallback(['a', 'b']), {}, 'a', 'config.targets[0]', { a: 1 }],
	['fallback: a reset counts', fallback(['a', 'b']), { a: 'reset' }, 'b', 'config.targets[1]', { a: 1, b: 1 }],
	['fallback: an account that does not listen', fallback(['a', 'b']), { a: 'refused' }, 'b', 'config.targets[1]', { b: 1 }],
	['fallback: until one is well', fallback(['a', 'b', 'c']), { a: 'internal', b: 'overloaded' }, 'c', 'config.targets[2]', { a: 1, b: 1, c: 1 }],
	['fallback: the last answer stands', fallback(['a', 'b', 'c']), { a: 'internal', b: 'internal', c: 'overloaded' }, 'c', 'config.targets[2]', { a: 1, b: 1, c: 1 }],
	['fallback: a status of the list', fallback(['a', 'b'], { on_status_codes: [529] }), { a: 'overloaded' }, 'b', 'config.targets[1]', { a: 1, b: 1 }],
	['fallback: a status that is not in the list is final', fallback(['a', 'b'], { on_status_codes: [529] }), { a: 'internal' }, 'a', 'config.targets[0]', { a: 1 }],
	['fallback: an empty list never falls back', fallback(['a', 'b'], { on_status_codes: [] }), { a: 'overloaded' }, 'a', 'config.targets[0]', { a: 1 }],
	['fallback: success is in the list', fallback(['a', 'b'], { on_status_codes: [200] }), {}, 'b', 'config.targets[1]', { a: 1, b: 1 }],
	['fallback: names in camelCase', { strategy: { mode: 'fallback', onStatusCodes: [500] }, targets: [target('a'), target('b')] }, { a: 'internal' }, 'b', 'config.targets[1]', { a: 1, b: 1 }],
	['nested: the inner one helps itself', nested, { a: 'internal' }, 'b', 'config.targets[0].targets[1]', { a: 1, b: 1 }],
	['nested: all of it has failed', nested, { a: 'internal', b: 'overloaded' }, 'c', 'config.targets[1]', { a: 1, b: 1, c: 1 }],
	['nested: the inner list is the inner one\'s', fallback([fallback(['a', 'b'], { on_status_codes: [429] }), 'c']), { a: 'internal' }, 'c', 'config.targets[1]', { a: 1, c: 1 }],
	['load balancing: weight 0 is never drawn', only({}, 'a'), {}, 'a', 'config.targets[0]', { a: 1 }],
	['load balancing: a failure is final', only({}, 'a'), { a: 'overloaded' }, 'a', 'config.targets[0]', { a: 1 }],
	['load balancing: unless the target itself falls back', loadbalance([{ ...fallback(['a', 'b']), weight: 1 }]), { a: 'internal' }, 'b', 'config.targets[0].targets[1]', { a: 1, b: 1 }],
	['load balancing inside a fallback', fallback([only({}, 'a'), 'b']), { a: 'internal' }, 'b', 'config.targets[1]', { a: 1, b: 1 }],
	['conditions inside a fallback', fallback([conditional([target('a', { name: 'x' })], { conditions: [{ query: { 'metadata.none': 'x' }, then: 'x' }], default: 'x' }), 'b']), { a: 'internal' }, 'b', 'config.targets[1]', { a: 1, b: 1 }],
];

describe('the walk', () => {
	for (const [name, config, modes, from, index, hits] of WALKS)
		test(name, async () => {
			for (const stream of [false, true]) {
				await outages(world, modes);
				const seen = await walk(world, { key, config, stream, script: { usage: { input_tokens: 100, output_tokens: 50 } } });
				if (modes.a === 'reset')	/* a kept connection that is reset is tried again on a new one */
					seen.hits.a = Math.min(seen.hits.a, hits.a);
				assert.deepEqual(seen.hits, hits, seen.answer.body.toString());
				isAnswerOf(seen, from);
				assert.equal(seen.route.index, index);
				assert.equal(seen.route.slug, from);
				assert.equal(seen.route.name, 'anthropic');
				assert.equal(seen.route.model, MODEL);
				assert.equal(seen.route.cache, 'DISABLED');
				if (seen.answer.status === 200)
					assert.equal(seen.route.retries, 0);
				const record = await recordOf(world, seen.answer);
				assert.deepEqual([record.provider, record.target, record.status], [from, index, seen.answer.status]);
				if (!record.flags.includes('estimated'))
					assert.equal(BigInt(record.cost_nusd), billed(seen.at), 'what was answered and not used is paid for, too');
				if (!['refused', 'reset'].includes(modes.a))
					assert.deepEqual([seen.route.attempts, record.attempts], Array(2).fill(Object.values(hits).reduce((n, m) => n + m)));
				await heal(world, key);
			}
		});

	test('each status but success falls back without a list', async () => {
		for (const error of ['prompt_too_long', 'authentication', 'billing', 'permission', 'model_not_found', 'conflict', 'too_large', 'unprocessable', 'tier_cap', 'spend_cap',
			'internal', 'bad_gateway', 'unavailable', 'timeout', 'overloaded']) {
			await world.providers.a.outage('internal', { error });
			const seen = await walk(world, { key, config: fallback(['a', 'b']) });
			assert.deepEqual(seen.hits, { a: 1, b: 1 }, error);
			isAnswerOf(seen, 'b');
			await heal(world, key);
		}
	});

	test('the last answer comes byte for byte, with its headers, whatever it is', async () => {
		for (const error of ['prompt_too_long', 'unicode', 'edge_forbidden', 'internal_empty', 'bad_gateway', 'rate_limit', 'overloaded'])
			for (const stream of [false, true]) {
				await world.providers.a.outage('internal');
				await world.providers.b.outage(...(error === 'rate_limit' ? [error] : ['internal', { error }]));
				const seen = await walk(world, { key, config: fallback(['a', 'b']), stream });
				isAnswerOf(seen, 'b');
				if (error === 'rate_limit')
					assert.equal(seen.answer.headers.get('retry-after'), '1');
				await heal(world, key);
			}
	});

	test('the record says what was tried: every target, how it ended, what it cost', async () => {
		await outages(world, { a: 'internal', b: 'reset' });
		const seen = await walk(world, { key, config: fallback([target('a', { override_params: { model: 'claude-haiku-5-5' } }), 'b', 'c']), stream: true });
		const record = await recordOf(world, seen.answer);
		await heal(world, key);
		assert.equal(triesOf(record), 'a 500, b 0, c 200');
		assert.deepEqual(record.tries.map((t) => t.target), ['config.targets[0]', 'config.targets[1]', 'config.targets[2]']);
		assert.deepEqual(record.tries.map((t) => t.model), ['claude-haiku-5-5', MODEL, MODEL]);
		assert.equal(record.tries[0].error, 'api_error');
		assert.ok(record.tries[1].error.length > 0 && record.tries[2].error === '', JSON.stringify(record.tries));
		assert.equal(record.tries.reduce((n, t) => n + t.cost_nusd, 0), record.cost_nusd);
		assert.ok(record.tries.every((t) => t.ms >= 0));
		assert.deepEqual([record.outcome, record.retries, record.cache_status, record.saved_nusd], ['ok', 0, 'DISABLED', 0]);
	});
});

describe('load balancing', () => {
	test('shares follow the weights', async () => {
		const config = loadbalance([target('a', { weight: 7 }), target('b', { weight: 2.5 }), target('c', { weight: 0.5 })]), count = 600;
		const slugs = [];
		for (let i = 0; i < count; i++)	/* each a conversation of its own: its beginning has its label */
			slugs.push((await world.ask({ key, headers: [inline(config)], body: messageBody({ script: { events: 0, label: newLabel() } }) })).headers.get('x-weir-provider'));
		for (const [slug, share] of [['a', 0.7], ['b', 0.25], ['c', 0.05]]) {
			const got = slugs.filter((s) => s === slug).length / count, bound = 5 * Math.sqrt(share * (1 - share) / count);	/* five deviations: one run in a million */
			assert.ok(Math.abs(got - share) <= bound, `${slug}: ${got} for ${share}, +-${bound.toFixed(3)}`);
		}
	});

	test('without stickiness requests of one conversation spread', async () => {
		const config = loadbalance(['a', 'b'], { sticky: { enabled: false } }), label = newLabel();
		for (let i = 0; i < 60; i++)
			await world.ask({ key, headers: [inline(config), ['x-claude-code-session-id', 'one']], body: messageBody({ script: { events: 0, label } }) });
		const { hits } = await walk(world, { key, config, label });
		assert.ok(hits.a > 5 && hits.b > 5, JSON.stringify(hits));
	});
});

/* query, what the request has (metadata, members of the body), whether it matches */
const CONDITIONS = [
	[{ 'metadata.team': 'support' }, { metadata: { team: 'support' } }, true],
	[{ 'metadata.team': 'support' }, { metadata: { team: 'sales' } }, false],
	[{ 'metadata.team': { $eq: 'support' } }, { metadata: { team: 'support' } }, true],
	[{ 'metadata.n': { $eq: 1 } }, { metadata: { n: '1' } }, false],
	[{ 'metadata.team': { $ne: 'support' } }, { metadata: { team: 'sales' } }, true],
	[{ 'metadata.team': { $ne: 'support' } }, {}, true],
	[{ 'metadata.team': { $eq: 'support' } }, {}, false],
	[{ 'metadata.team': { $in: ['support', 'sales'] } }, { metadata: { team: 'sales' } }, true],
	[{ 'metadata.team': { $nin: ['support', 'sales'] } }, { metadata: { team: 'sales' } }, false],
	[{ 'metadata.team': { $nin: ['support'] } }, {}, true],
	[{ 'metadata.age': { $gt: 17 } }, { metadata: { age: '18 years' } }, true],
	[{ 'metadata.age': { $gte: '18' } }, { metadata: { age: '18' } }, true],
	[{ 'metadata.age': { $lt: 18 } }, { metadata: { age: 'young' } }, false],
	[{ 'metadata.team': { $regex: '^sup' } }, { metadata: { team: 'support' } }, true],
	[{ 'metadata.team': { $regex: '^sup$' } }, { metadata: { team: 'support' } }, false],
	[{ 'metadata.team': { $regex: 'undefined' } }, {}, true],
	[{ 'params.model': { $regex: 'haiku' } }, { body: { model: 'claude-haiku-5-5' } }, true],
	[{ 'params.model': MODEL }, {}, true],
	[{ 'params.max_tokens': { $lte: 1024 } }, {}, true],
	[{ 'params.max_tokens': { $lte: 1023 } }, {}, false],
	[{ 'params.max_tokens': '1024' }, {}, false],
	[{ 'params.stream': true }, {}, false],
	[{ 'params.temperature': 0.5 }, { body: { temperature: 0.50 } }, true],
	[{ 'params.thinking.type': 'adaptive' }, { body: { thinking: { type: 'adaptive' } } }, true],
	[{ 'url.pathname': '/v1/messages' }, {}, true],
	[{ 'url.pathname': { $regex: 'count_tokens' } }, {}, false],
	[{ 'metadata.team': 'x', 'params.max_tokens': 1024 }, { metadata: { team: 'x' } }, true],
	[{ 'metadata.team': 'x', 'params.max_tokens': 1 }, { metadata: { team: 'x' } }, false],
	[{ 'metadata.age': { $gte: 18, $lt: 21 } }, { metadata: { age: '20' } }, true],
	[{ 'metadata.age': { $gte: 18, $lt: 20 } }, { metadata: { age: '20' } }, false],
	[{ $and: [{ 'metadata.team': 'x' }, { 'params.max_tokens': 1024 }] }, { metadata: { team: 'x' } }, true],
	[{ $or: [{ 'metadata.team': 'y' }, { 'metadata.team': 'x' }] }, { metadata: { team: 'x' } }, true],
	[{ $or: [{ 'metadata.team': 'y' }, { $and: [{ 'metadata.team': 'x' }, { 'params.max_tokens': 2 }] }] }, { metadata: { team: 'x' } }, false],
	[{ $or: [{ 'metadata.team': 'x' }], 'params.max_tokens': 2 }, { metadata: { team: 'x' } }, false],	/* siblings count */
];

describe('conditions', () => {
	const config = (conditions, otherwise = 'no') => conditional([target('a', { name: 'no' }), target('b', { name: 'yes' })], { conditions, ...(otherwise ? { default: otherwise } : {}) });
	const metadataOf = (metadata) => (metadata ? [['x-portkey-metadata', JSON.stringify(metadata)]] : []);

	for (const [query, { metadata, body }, matches] of CONDITIONS)
		test(`${JSON.stringify(query)} ${matches ? 'holds' : 'does not hold'} for ${JSON.stringify({ ...metadata, ...body })}`, async () => {
			const seen = await walk(world, { key, config: config([{ query, then: 'yes' }]), headers: metadataOf(metadata), body, path: '/v1/messages?beta=true' });
			isAnswerOf(seen, matches ? 'b' : 'a');
			assert.equal(seen.route.index, matches ? 'config.targets[1]' : 'config.targets[0]');
		});

	test('the first that holds decides', async () => {
		const both = [{ query: { 'metadata.team': 'x' }, then: 'no' }, { query: { 'metadata.team': 'x' }, then: 'yes' }];
		assert.equal((await walk(world, { key, config: config(both, null), headers: metadataOf({ team: 'x' }) })).route.slug, 'a');
	});

	test('nothing holds and there is no default: 400 that says so, and nobody is asked', async () => {
		const seen = await walk(world, { key, config: config([{ query: { 'metadata.team': 'x' }, then: 'yes' }], null) });
		assert.match(refused(seen.answer, 400, 'invalid_request_error'), /did not resolve to any valid target/);
		assert.deepEqual(seen.hits, {});
	});

	test('conditions see the body that the client sent, not what a config makes of it', async () => {
		const deep = { ...config([{ query: { 'params.model': MODEL, 'params.max_tokens': 1024 }, then: 'yes' }]), override_params: { model: 'claude-haiku-5-5', max_tokens: 5 } };
		const seen = await walk(world, { key, config: deep });
		assert.deepEqual([seen.route.slug, seen.route.model], ['b', 'claude-haiku-5-5']);
	});

	test('the key\'s metadata counts like the request\'s, and goes before it', async () => {
		const own = await world.weir.key('own-metadata', '--metadata', '{"team":"x"}');
		for (const headers of [[], metadataOf({ team: 'other' })])
			assert.equal((await walk(world, { key: own, config: config([{ query: { 'metadata.team': 'x' }, then: 'yes' }]), headers })).route.slug, 'b');
	});
});

const ODD = '{"model":"claude-sonnet-5-5", "max_tokens":  1024,"metadata": {"user_id":"u","x":1.0},"messages":[{"role":"user","content":[{"type":"text","text":"n 1.0 \\u00e9","a":1},{"type":"text","text":"t","a":2}]}],"top_k":1e1 }';

/* members of the config, and the body (as data) that the account must get for ODD */
const PARAMS = [
	['defaults fill what is missing', { default_params: { max_tokens: 5, top_p: 0.5, stop_sequences: ['x'] } }, (b) => ({ ...b, top_p: 0.5, stop_sequences: ['x'] })],
	['overrides replace whole members and add others', { override_params: { metadata: { user_id: 'v' }, temperature: 0.25 } }, (b) => ({ ...b, metadata: { user_id: 'v' }, temperature: 0.25 })],
	['an override goes before a default', { default_params: { top_p: 1 }, override_params: { top_p: 0.5 } }, (b) => ({ ...b, top_p: 0.5 })],
	['drops take members away', { drop_params: ['top_k', 'metadata'] }, ({ top_k, metadata, ...b }) => b],
	['drops go deep', { drop_params: ['metadata.x', 'messages[0].content[1].a'] }, (b) => edit(b, (c) => { delete c.metadata.x; delete c.messages[0].content[1].a; })],
	['drops go through all elements', { drop_params: ['messages[*].content[*].a'] }, (b) => edit(b, (c) => c.messages[0].content.forEach((x) => { delete x.a; }))],
	['a path that leads nowhere is no mistake', { drop_params: ['nothing.here', 'messages[7].x', 'metadata.user_id.y'] }, (b) => b],
	['drops come last', { default_params: { top_p: 1 }, override_params: { temperature: 1 }, drop_params: ['top_p', 'temperature', 'top_k'] }, ({ top_k, ...b }) => b],
	['names in camelCase', { dropParams: ['top_k'], defaultParams: { top_p: 1 } }, ({ top_k, ...b }) => ({ ...b, top_p: 1 })],
];
function edit(body, change) {
	const copy = structuredClone(body);
	change(copy);
	return copy;
}

describe('parameters', () => {
	/** The bodies that arrived at an account for this config, as texts. */
	async function arrives(config, text = ODD) {
		await walk(world, { key, config, text });
		return Object.fromEntries(await Promise.all(SLUGS.map(async (slug) => [slug, (await world.providers[slug].last())?.body.toString()])));
	}

	for (const [name, members, expected] of PARAMS)
		test(name, async () => {
			const { a } = await arrives(target('a', members));
			assert.deepEqual(JSON.parse(a), expected(JSON.parse(ODD)));
			assert.ok(a.includes('"n 1.0 \\u00e9"') && a.includes('"max_tokens":  1024'), `what is not meant keeps its bytes: ${a}`);
		});

	test('a config that changes nothing leaves every byte', async () => {
		for (const config of [target('a'), fallback(['a', 'b']), target('a', { drop_params: ['nothing'], default_params: { max_tokens: 1 } })])
			assert.equal((await arrives(config)).a, ODD);
	});

	test('what a config says holds below it, member by member; the target\'s own goes before', async () => {
		const config = fallback([target('a', { override_params: { top_p: 0.25 }, default_params: { stop_sequences: ['own'] } })], {},
			{ override_params: { top_p: 0.75, temperature: 0.5 }, default_params: { stop_sequences: ['outer'], service_tier: 'auto' }, drop_params: ['top_k'] });
		const { a } = await arrives(config);
		const { top_k, ...rest } = JSON.parse(ODD);
		assert.deepEqual(JSON.parse(a), { ...rest, top_p: 0.25, temperature: 0.5, stop_sequences: ['own'], service_tier: 'auto' });
	});

	test('each target begins with the client\'s body: nothing of the one that failed is left', async () => {
		await outages(world, { a: 'internal' });
		const { a, b } = await arrives(fallback([target('a', { override_params: { temperature: 1, model: 'claude-haiku-5-5' }, drop_params: ['top_k'] }), target('b', { default_params: { top_p: 1 } })]));
		await heal(world, key);
		assert.deepEqual([JSON.parse(a).temperature, JSON.parse(a).model, 'top_k' in JSON.parse(a)], [1, 'claude-haiku-5-5', false]);
		assert.deepEqual(JSON.parse(b), { ...JSON.parse(ODD), top_p: 1 });
	});
});

describe('what an answer says of its way', () => {
	test('a saved config by its slug and version, a provider without a config by its slug', async () => {
		const seen = await walk(world, { key, headers: [saved('pc-both')] });
		assert.match(seen.route.config, /^pc-both@[0-9a-f]{8}$/);
		const record = await recordOf(world, seen.answer);
		assert.equal(`${record.config}@${record.config_version}`, seen.route.config);
		const plain = await walk(world, { key, headers: [['x-portkey-provider', '@b']] });
		assert.deepEqual([plain.route.index, plain.route.slug, plain.route.attempts, plain.route.config], ['config', 'b', 1, null]);
		assert.equal((await walk(world, { key })).route.slug, 'c', 'the default provider');
		const other = await walk(world, { key, headers: [saved('pc-plain')] });
		assert.notEqual(other.route.config.split('@')[1], seen.route.config.split('@')[1], 'versions are of the text');
	});

	test('the model that answered, while the body keeps the name that was asked for', async () => {
		for (const [modes, slug, model] of [[{}, 'a', 'claude-haiku-5-5'], [{ a: 'overloaded' }, 'b', 'claude-opus-5-5']]) {
			await outages(world, modes);
			const seen = await walk(world, { key, headers: [saved('pc-model')] });
			assert.deepEqual([seen.route.slug, seen.route.model], [slug, model]);
			assert.equal(JSON.parse(seen.answer.body).model, MODEL);
			assert.equal(seen.at[slug].at(-1).model, model);
			await heal(world, key);
		}
	});

	test('what was refused before it was routed says nothing of targets', async () => {
		const { answer } = await walk(world, { key: 'weir_sk_nobody', headers: [saved('pc-both')] });
		assert.equal(answer.status, 401);
		for (const name of ['x-portkey-last-used-option-index', 'x-weir-provider', 'x-weir-attempts'])
			assert.ok(!answer.headers.has(name), name);
	});
});
