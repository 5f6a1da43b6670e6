// Names of models: what the list says is what a request may name, no more and no
// less, whoever allows or forbids it; aliases, and models of one provider; what
// pickers of clients make of the list; and what a wrong name is answered with.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { World, messageBody, refused } from './harness.mjs';
import { HARDY, fallback, inline, isAnswerOf, recordOf, target, walk } from './routes.mjs';

const ALIASES = [
	{ id: 'claude-big', model: '@b/claude-opus-5-5' },
	{ id: 'quick', model: 'claude-haiku-5-5', family: 'haiku', display_name: 'The quick one' },
	{ id: 'claude-here', model: '@a/claude-haiku-5-5' },
	{ id: 'claude-nowhere', model: '@a/claude-opus-5-5' },	/* a does not offer it */
	{ id: 'claude-new', model: '@c/claude-sonnet-9-9', family: 'sonnet' },	/* which no list of prices knows */
	{ id: 'team/odd name', model: 'claude-haiku-4-5', family: 'haiku' },
];
const PROVIDERS = [{ slug: 'a', settings: { models: ['claude-haiku-*', 'claude-sonnet-*'] } }, { slug: 'b', settings: { models: ['claude-opus-*', 'claude-sonnet-5-5'] } },
	{ slug: 'c', settings: { models: ['claude-sonnet-9-9'] } }];
const SETTINGS = { ...HARDY, models: ALIASES, configs: [{ slug: 'pc-b', config: target('b') }, { slug: 'pc-any', config: fallback(['a', 'b']) }],
	workspaces: [{ slug: 'lab', allowed_models: ['claude-haiku-*', 'claude-opus-5-5'] }, { slug: 'routed', config: 'pc-b' }] };
let spread, fixed;	/* without a default provider, and with one */

before(async () => {
	spread = await World.open({ providers: PROVIDERS, settings: SETTINGS });
	fixed = await World.open({ providers: PROVIDERS, settings: { ...SETTINGS, default_provider: 'b' } });
});
after(async () => {
	try {
		await spread.close();
	} finally {
		await fixed.close();
	}
});

const get = (world, key, path = '/v1/models?limit=1000', headers = []) => world.ask({ key, method: 'GET', path, headers, body: '' });
async function listed(world, key, headers) {
	const answer = await get(world, key, undefined, headers);
	assert.equal(answer.status, 200, answer.body.toString());
	return JSON.parse(answer.body).data;
}
const ids = (models) => models.map((m) => m.id);
let made = 0;
const newKey = (world, ...args) => world.weir.key(`models-${++made}`, ...args);

/* Who asks, where: arguments of the key, headers of the request, and what must, and must not, be in the list. */
const ASKERS = [
	['a key without limits', () => spread, [], [], ['claude-haiku-5-5', 'claude-opus-5-5', 'claude-big', 'quick', 'claude-here', 'claude-new', 'team/odd name'], ['claude-nowhere', 'claude-mythos-5']],
	['a key with an allow-list', () => spread, ['--model', 'claude-opus-*', '--model', 'claude-sonnet-4-6'], [], ['claude-opus-5-5', 'claude-big', 'claude-sonnet-4-6'], ['claude-haiku-5-5', 'quick', 'claude-sonnet-5-5']],
	['a workspace with one', () => spread, ['--workspace', 'lab'], [], ['claude-haiku-5-5', 'quick', 'claude-opus-5-5', 'claude-big'], ['claude-opus-4-8', 'claude-sonnet-5-5', 'claude-new']],
	['both', () => spread, ['--workspace', 'lab', '--model', 'claude-opus-*'], [], ['claude-opus-5-5', 'claude-big'], ['claude-opus-4-8', 'claude-haiku-5-5', 'quick']],
	['a provider by header', () => spread, [], [['x-portkey-provider', '@b']], ['claude-opus-5-5', 'claude-sonnet-5-5', 'claude-big'], ['claude-haiku-5-5', 'claude-sonnet-4-6', 'quick']],
	['one by the old header', () => spread, [], [['x-portkey-virtual-key', 'a']], ['claude-haiku-5-5', 'quick'], ['claude-opus-5-5']],
	['a default provider', () => fixed, [], [], ['claude-opus-5-5', 'claude-sonnet-5-5', 'claude-big', 'claude-here'], ['claude-haiku-5-5', 'claude-sonnet-4-6', 'quick']],
	['a default provider and an allow-list', () => fixed, ['--model', '*-5-5'], [], ['claude-opus-5-5', 'claude-big', 'claude-here'], ['claude-opus-4-8', 'claude-haiku-5-5', 'quick']],
	['another provider than the default one', () => fixed, [], [['x-portkey-provider', '@a']], ['claude-haiku-5-5', 'quick'], ['claude-opus-5-5']],
];

describe('the list is what may be used', () => {
	for (const [name, where, args, headers, has, lacks] of ASKERS)
		test(`${name}: each name of it is answered, each other one is refused`, async () => {
			const world = where(), key = await newKey(world, ...args);
			const names = ids(await listed(world, key, headers)), all = [...new Set([...names, ...has, ...lacks, ...ALIASES.map((m) => m.id), 'claude-sonnet-5', 'claude-haiku-4-5'])];
			assert.equal(new Set(names).size, names.length, 'each once');
			for (const model of has)
				assert.ok(names.includes(model), `${model} is not in ${names}`);
			for (const model of lacks)
				assert.ok(!names.includes(model), `${model} is in ${names}`);
			/* An alias that names its provider goes where the header says all the same. */
			const elsewhere = (model) => headers.length > 0 && ALIASES.some((m) => m.id === model && m.model.startsWith('@'));
			for (const model of all.filter((m) => !elsewhere(m))) {
				const answer = await world.ask({ key, headers, body: messageBody({ model, script: { events: 0 } }) });
				assert.equal(answer.status === 200, names.includes(model), `${model}: ${answer.status} ${answer.body}`);
				assert.equal((await get(world, key, `/v1/models/${encodeURIComponent(model)}`, headers)).status, names.includes(model) ? 200 : 404, model);
			}
		});

	test('where a config says where requests go, all that some provider has is listed', async () => {
		for (const [args, headers] of [[['--routing-config', 'pc-any'], []], [['--workspace', 'routed'], []], [[], [['x-portkey-config', 'pc-b']]]]) {
			const names = ids(await listed(fixed, await newKey(fixed, ...args), headers));
			for (const model of ['claude-opus-5-5', 'claude-haiku-5-5', 'claude-big', 'quick'])
				assert.ok(names.includes(model), `${model} is not in ${names}`);
		}
	});

	test('who may use nothing has an empty list', async () => {
		const key = await newKey(spread, '--model', 'nothing-*');
		assert.deepEqual(JSON.parse((await get(spread, key)).body), { object: 'list', data: [], has_more: false, first_id: null, last_id: null, total: 0 });
	});
});

describe('names', () => {
	let key;
	before(async () => { key = await newKey(spread); });

	/* What the client asks for, who answers, and the model that it is asked. */
	const ROWS = [['claude-haiku-5-5', 'a', 'claude-haiku-5-5'], ['claude-opus-5-5', 'b', 'claude-opus-5-5'], ['claude-sonnet-5-5', 'a', 'claude-sonnet-5-5'],
		['@b/claude-sonnet-5-5', 'b', 'claude-sonnet-5-5'], ['@b/claude-opus-5-5', 'b', 'claude-opus-5-5'], ['claude-big', 'b', 'claude-opus-5-5'], ['quick', 'a', 'claude-haiku-5-5'],
		['claude-new', 'c', 'claude-sonnet-9-9'], ['team/odd name', 'a', 'claude-haiku-4-5']];
	for (const [model, slug, real] of ROWS)
		test(`${model}: ${real} at ${slug}; the answer and the record keep the client's name`, async () => {
			for (const stream of [false, true]) {
				const seen = await walk(spread, { key, stream, body: { model } });
				isModelOf(seen, slug, model, real, stream);
				const record = await recordOf(spread, seen.answer);
				assert.deepEqual([record.model_requested, record.model, record.provider], [model, real, slug]);
			}
			const counted = await spread.ask({ key, path: '/v1/messages/count_tokens', body: JSON.stringify({ model, messages: [{ role: 'user', content: 'x' }] }) });
			assert.equal(counted.status, 200, counted.body.toString());
			assert.equal(JSON.parse((await spread.providers[slug].last()).body).model, real);
		});

	function isModelOf({ answer, route, hits, at }, slug, model, real, stream) {
		assert.equal(answer.status, 200, answer.body.toString());
		assert.deepEqual(hits, { [slug]: 1 });
		assert.deepEqual([route.slug, route.model, at[slug][0].model], [slug, real, real]);
		const said = stream ? /"model":"([^"]*)"/.exec(answer.body.toString())[1] : JSON.parse(answer.body).model;
		assert.equal(said, model);
	}

	test('an allow-list is about the model behind the name', async () => {
		const narrow = await newKey(spread, '--model', 'claude-haiku-*');
		assert.equal((await walk(spread, { key: narrow, body: { model: 'quick' } })).answer.status, 200);
		const named = await newKey(spread, '--model', 'claude-big');
		for (const [who, model] of [[narrow, 'claude-big'], [narrow, '@b/claude-opus-5-5'], [named, 'claude-big']])
			refused((await walk(spread, { key: who, body: { model } })).answer, 403, 'permission_error');
	});
});

describe('a name that is none', () => {
	const nearest = (message) => /; you can use: (.*)$/.exec(message)?.[1].split(', ');

	/* Arguments of the key, the name, status, type, words, the first of the nearest. */
	const ROWS = [
		[['--model', 'claude-opus-5-5', '--model', 'claude-haiku-5-5'], 'claude-opus-5.5', 403, 'permission_error', /"claude-opus-5\.5" is not allowed for this API key/, 'claude-opus-5-5'],
		[['--model', 'claude-opus-*'], 'claude-sonnet-5-5', 403, 'permission_error', /is not allowed for this API key/, undefined],
		[['--workspace', 'lab'], 'claude-opus-5-4', 403, 'permission_error', /"claude-opus-5-4" is not allowed for this API key/, 'claude-opus-5-5'],
		[[], 'claude-nowhere', 404, 'not_found_error', /"claude-opus-5-5" is not offered by this provider/, undefined],
		[[], '@b/claude-haiku-5-5', 404, 'not_found_error', /"claude-haiku-5-5" is not offered by this provider/, undefined],
		[[], '@a/claude-opus-5-5', 404, 'not_found_error', /"claude-opus-5-5" is not offered by this provider/, undefined],
	];
	for (const [args, model, status, type, words, first] of ROWS)
		test(`${model}, ${args.join(' ') || 'no limits'}: ${status}, with the nearest that may be used`, async () => {
			const key = await newKey(spread, ...args), seen = await walk(spread, { key, body: { model } });
			const message = refused(seen.answer, status, type), names = nearest(message);
			assert.match(message, words);
			assert.deepEqual(seen.hits, {});
			assert.ok(names.length > 0 && names.length <= 5, message);
			if (first)
				assert.equal(names[0], first);
			const wanted = /^model "([^"]*)"/.exec(message)[1], at = model === 'claude-nowhere' ? '@a' : /^@./.exec(model)?.[0];
			const usable = ids(await listed(spread, key, at ? [['x-portkey-provider', at]] : []));
			for (const name of names)
				assert.ok(usable.includes(name), `${name} of ${names} is not in ${usable}`);
			const far = usable.filter((m) => !names.includes(m)).map((m) => distance(m, wanted));
			assert.ok(names.every((m) => far.every((d) => distance(m, wanted) <= d)), `there are nearer ones than ${names}`);
		});

	test('who may use nothing is told so', async () => {
		const key = await newKey(spread, '--model', 'nothing-*');
		assert.match(refused((await walk(spread, { key })).answer, 403, 'permission_error'), /there is none that you can use$/);
	});

	test('a provider that there is not is named', async () => {
		assert.match(refused((await walk(spread, { key: await newKey(spread), body: { model: '@nobody/claude-opus-5-5' } })).answer, 400, 'invalid_request_error'), /there is no provider "nobody"/);
	});

	test('a target that does not offer it is passed over; if none does, the name is refused', async () => {
		const key = await newKey(spread), config = fallback(['a', 'b']);
		isAnswerOf(await walk(spread, { key, config, body: { model: 'claude-opus-5-5' } }), 'b');
		assert.match(refused((await walk(spread, { key, config, body: { model: 'claude-mythos-5' } })).answer, 404, 'not_found_error'), /"claude-mythos-5" is not offered/);
	});

	test('official clients of both kinds read why', async () => {
		const key = await newKey(spread, '--model', 'claude-opus-*'), baseURL = `http://127.0.0.1:${spread.weir.port}`;
		const ask = { model: 'claude-sonnet-5-5', max_tokens: 16, messages: [{ role: 'user', content: 'x' }] };
		await assert.rejects(new Anthropic({ baseURL, apiKey: key.secret, maxRetries: 3 }).messages.create(ask), (e) => {
			assert.ok(e instanceof Anthropic.PermissionDeniedError);
			assert.match(e.error.error.message, /you can use: claude-opus-/);
			return true;
		});
		const openai = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: key.secret, maxRetries: 3 });
		await assert.rejects(openai.post('/messages', { body: ask }), (e) => {
			assert.ok(e instanceof OpenAI.PermissionDeniedError);
			assert.match(e.message, /you can use: claude-opus-/);
			assert.equal(e.type, 'permission_error');
			return true;
		});
	});
});

/** Letters to change, add or take away. */
function distance(a, b) {
	let row = Array.from({ length: b.length + 1 }, (_, i) => i);
	for (let i = 1; i <= a.length; i++) {
		const next = [i];
		for (let j = 1; j <= b.length; j++)
			next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
		row = next;
	}
	return row[b.length];
}

/* What the pickers keep, by their makers' words. */
const byClaudeCode = (m) => /claude|anthropic/i.test(m.id);
const FAMILIES = /claude|sonnet|opus|haiku|fable|mythos|anthropic/, OTHERS = /gpt|gemini|gemma|llama|mistral|mixtral|qwen|deepseek|grok|glm|kimi|openai|codex|nova-|devstral/;
const byClaudeDesktop = (m) => (FAMILIES.test(m.id.toLowerCase()) && !OTHERS.test(m.id.toLowerCase())) || /^(sonnet|opus|haiku|fable|mythos)$/.test(m.anthropic_family_tier ?? '');

describe('what clients make of the list', () => {
	let models, key;
	before(async () => {
		key = await newKey(spread);
		models = await listed(spread, key);
	});
	const one = (id) => models.find((m) => m.id === id);

	test('C45 Claude Desktop shows all of them, Claude Code those with the name', () => {
		assert.deepEqual(ids(models.filter((m) => !byClaudeDesktop(m))), []);
		assert.deepEqual(ids(models.filter((m) => !byClaudeCode(m))), ['quick', 'team/odd name']);
		for (const [id, tier] of [['quick', 'haiku'], ['claude-big', 'opus'], ['claude-new', 'sonnet'], ['team/odd name', 'haiku'], ['claude-haiku-5-5', 'haiku']])
			assert.equal(one(id).anthropic_family_tier, tier, id);
	});

	test('an alias has its own name, and what its model can do', () => {
		const real = one('claude-haiku-5-5'), alias = one('quick');
		assert.equal(alias.display_name, 'The quick one');
		assert.equal(one('claude-big').display_name, 'claude-big');
		for (const same of ['max_input_tokens', 'max_tokens', 'supports_1m', 'created_at', 'lifecycle'])
			assert.equal(alias[same], real[same], same);
		assert.equal(alias.is_family_default, false, 'the model itself is');
		assert.ok(models.some((m) => m.is_family_default));
		assert.ok(!('max_input_tokens' in one('claude-new')), 'nothing is made up');
	});

	test('one list for clients of Anthropic\'s and of OpenAI\'s', async () => {
		const baseURL = `http://127.0.0.1:${spread.weir.port}`;
		const anthropic = new Anthropic({ baseURL, apiKey: key.secret, maxRetries: 0 }), openai = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: key.secret, maxRetries: 0 });
		const paged = [];
		for await (const model of anthropic.models.list({ limit: 4 }))
			paged.push(model.id);
		assert.deepEqual(paged, ids(models));
		assert.deepEqual(ids(await openai.models.list({ query: { limit: 1000 } }).then((page) => page.data)), ids(models));
		for (const id of ['claude-haiku-5-5', 'quick', 'team/odd name']) {
			assert.deepEqual(JSON.parse(JSON.stringify(await anthropic.models.retrieve(id))), one(id));
			const { object, created, owned_by } = await openai.models.retrieve(id);
			assert.deepEqual([object, created, owned_by], ['model', Date.parse(one(id).created_at) / 1000, 'anthropic'], id);
		}
	});

	test('C46 pages from both ends, whatever stands at their border', async () => {
		const page = async (query) => JSON.parse((await get(spread, key, `/v1/models?${query}`)).body), all = ids(models);
		const forward = await page(`limit=2&after_id=${all[1]}`);
		assert.deepEqual([ids(forward.data), forward.has_more, forward.first_id, forward.last_id], [all.slice(2, 4), true, all[2], all[3]]);
		const last = await page(`limit=1000&after_id=${all.at(-2)}`);
		assert.deepEqual([ids(last.data), last.has_more], [[all.at(-1)], false]);
		assert.deepEqual((await page(`after_id=${all.at(-1)}`)).data, []);
		const backward = await page(`limit=1000&before_id=${all[2]}`);
		assert.deepEqual([ids(backward.data), backward.has_more], [all.slice(0, 2), false]);
		assert.equal((await page('limit=1000')).total, all.length);
	});

	test('a config in the headers does not change what is listed, an empty query neither', async () => {
		for (const [path, headers] of [['/v1/models?', []], ['/v1/models?limit=1000&x=y', [inline(target('a'))]]])
			assert.deepEqual(ids(JSON.parse((await get(spread, key, path, headers)).body).data), ids(models).slice(0, path.includes('1000') ? undefined : 20));
	});
});
