// Configs that cannot be meant, or that are meant badly: a request that brings one
// gets a 400 that says what is wrong and where, a settings file that has one gets
// the same words with the whole path, and no request costs more time for it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, envelope, refused, timely } from './harness.mjs';
import { HARDY, conditional, fallback, inline, isAnswerOf, loadbalance, target, walk } from './routes.mjs';

let world, key;

before(async () => {
	world = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, default_provider: 'a' } });
	key = await world.weir.key('bad-configs');
});
after(() => world.close());

const nest = (depth) => Array.from({ length: depth }).reduce((inner) => fallback([inner]), target('a'));
const routed = (strategy, targets = [target('a', { name: 'x' }), target('b', { name: 'y' })]) => conditional(targets, strategy);
const always = { query: { 'metadata.team': 'x' }, then: 'x' };

/* What is wrong, the config, where it says so, in which words. */
const BAD = [
	['too deep', nest(40), /targets\[0\]/, /deep|levels/i],
	['no targets', { strategy: { mode: 'fallback' } }, /targets/, /./],
	['an empty list of targets', fallback([]), /targets/, /./],
	['too many targets', fallback(Array(101).fill('a')), /targets/, /100/],
	['too many nested targets', fallback([fallback(Array(51).fill('a'))]), /targets\[0\]\.targets/, /50/],
	['weights that are all zero', loadbalance([target('a', { weight: 0 }), target('b', { weight: 0 })]), /weight|targets/, /weight/],
	['a negative weight', loadbalance([target('a', { weight: -1 })]), /targets\[0\]\.weight/, /./],
	['a weight that is no number', loadbalance([target('a', { weight: 'much' })]), /targets\[0\]\.weight/, /./],
	['a provider that nobody has', fallback(['a', 'nobody']), /targets\[1\]/, /nobody/],
	['one in the model\'s prefix', { override_params: { model: '@nobody/x' } }, /./, /nobody/],
	['a mode that there is not', { strategy: { mode: 'race' }, targets: [target('a')] }, /strategy\.mode/, /"loadbalance"/],
	['no mode', { strategy: {}, targets: [target('a')] }, /strategy/, /mode/],
	['a target that no name has', routed({ conditions: [{ ...always, then: 'z' }], default: 'x' }), /conditions\[0\]\.then/, /"z"/],
	['a default that no name has', routed({ conditions: [always], default: 'z' }), /default/, /"z"/],
	['two targets of one name', routed({ conditions: [always] }, [target('a', { name: 'x' }), target('b', { name: 'x' })]), /targets\[1\]\.name/, /"x"/],
	['no conditions', routed({ default: 'x' }), /conditions/, /./],
	['an unknown operator', routed({ conditions: [{ query: { 'metadata.team': { $like: 'x' } }, then: 'x' }] }), /conditions\[0\]\.query/, /\$like/],
	['a list operator without a list', routed({ conditions: [{ query: { 'metadata.team': { $in: 'x' } }, then: 'x' }] }), /conditions\[0\]\.query/, /\$in/],
	['a key of nothing', routed({ conditions: [{ query: { 'header.x': 'x' }, then: 'x' }] }), /conditions\[0\]\.query/, /header\.x/],
	['a pattern that is none', routed({ conditions: [{ query: { 'params.model': { $regex: '(' } }, then: 'x' }] }), /conditions\[0\]\.query/, /\$?regex|pattern/i],
	['statuses that are none', fallback(['a'], { on_status_codes: [99, '500', 600] }), /on_status_codes\[0\]/, /./],
	['statuses outside a fallback', loadbalance(['a'], { on_status_codes: [500] }), /on_status_codes/, /./],
	['too many retries', target('a', { retry: { attempts: 6 } }), /retry\.attempts/, /5/],
	['retries without a number', target('a', { retry: {} }), /retry/, /attempts/],
	['a cache without a mode', target('a', { cache: { max_age: 100 } }), /cache/, /mode/],
	['a cache mode that there is not', target('a', { cache: { mode: 'clever' } }), /cache\.mode/, /"simple"/],
	['both spellings of a name', target('a', { override_params: { top_p: 1 }, overrideParams: { top_p: 1 } }), /override_?[pP]arams/, /./],
	['a path that is none', target('a', { drop_params: ['a..b'] }), /drop_params\[0\]/, /./],
	['parameters that are none', target('a', { override_params: [] }), /override_params/, /object/],
	['a credential to forward', target('a', { forward_headers: ['authorization'] }), /forward_headers\[0\]/, /authorization/],
	['the old list of options', { mode: 'fallback', options: [{ provider: 'a' }] }, /options|mode/, /./],
	['a field that nobody knows', target('a', { retires: { attempts: 1 } }), /retires/, /retr/],
	['what a later version does', target('a', { input_guardrails: ['g'] }), /input_guardrails/, /not yet supported/],
];

describe('a request that brings it', () => {
	for (const [what, config, where, words] of BAD)
		test(`${what}: 400, with its place`, async () => {
			const seen = await walk(world, { key, config });
			const message = refused(seen.answer, 400, 'invalid_request_error');
			assert.match(message, where);
			assert.match(message, words);
			assert.deepEqual(seen.hits, {});
		});

	test('what is no JSON object', async () => {
		for (const text of ['{', '[]', '7', '"pc"', 'null', '{"provider":"@a"} x', '{"provider":"@a",}', '{"provider":"\\ud800"}'])
			assert.equal((await world.ask({ key, headers: [['x-portkey-config', text]] })).status, 400, text);
		refused(await world.ask({ key, headers: [['x-portkey-config', 'pc-nobody']] }), 400, 'invalid_request_error');
	});

	test('all mistakes are named at once', async () => {
		const message = refused((await walk(world, { key, config: fallback([target('a', { weight: -1 }), target('nobody', { retry: { attempts: 9 } })]) })).answer, 400, 'invalid_request_error');
		for (const words of [/targets\[0\]\.weight/, /targets\[1\]/, /retry\.attempts/])
			assert.match(message, words);
	});

	test('one of 1 MB does no harm', async () => {
		for (const text of [JSON.stringify(target('a', { override_params: { x: 'y'.repeat(1 << 20) } })), '['.repeat(1 << 20), `{"targets":[${'{},'.repeat(300000)}{}]}`]) {
			const answer = await world.ask({ key, headers: [['x-portkey-config', text]], mayBreak: true });
			if (answer === null)	/* the head is over its bound, and the rest of it meets a closed door */
				continue;
			assert.ok([400, 413, 431].includes(answer.status), `${answer.status}`);
			envelope(answer);
		}
		assert.equal((await world.ask({ key })).status, 200);
	});
});

describe('a settings file that has it', () => {
	/** weir check of a file with that config: what it says. */
	async function check(config) {
		const { settings } = world.weir;
		world.weir.write({ ...settings, configs: [{ slug: 'pc-good', config: target('a') }, { slug: 'pc-bad', config }] });
		const checked = await world.weir.command('check', world.weir.configPath);
		world.weir.write(settings);
		return { code: checked.code, text: checked.stdout + checked.stderr };
	}

	for (const [what, config, where, words] of BAD)
		test(`${what}: the same, with the whole path`, async () => {
			const { code, text } = await check(config);
			assert.equal(code, 2, text);
			assert.match(text, /configs\[1\]\.config/);
			assert.match(text, where);
			assert.match(text, words);
		});

	test('one of 1 MB is too large', async () => {
		const { code, text } = await check(target('a', { override_params: { x: 'y'.repeat(1 << 20) } }));
		assert.equal(code, 2);
		assert.match(text, /configs\[1\]\.config.*bytes/);
	});

	test('one that is good passes', async () => assert.equal((await check(routed({ conditions: [always], default: 'y' }))).code, 0));
});

/* Each of these takes ages in an engine without bounds. */
const EXPLODING = [['^(a+)+$', `${'a'.repeat(60)}!`], ['^(a|aa)+$', `${'a'.repeat(60)}!`], ['(.*)*x$', 'a'.repeat(200)], ['^(([a-z])+.)+[A-Z]([a-z])+$', 'a'.repeat(60)]];

test('a pattern that explodes does not hold, and nobody waits for it', async () => {
	for (const [pattern, text] of EXPLODING) {
		const config = routed({ conditions: [{ query: { 'params.metadata.user_id': { $regex: pattern } }, then: 'x' }], default: 'y' });
		await timely(async () => {
			const begin = performance.now(), seen = await walk(world, { key, config, body: { metadata: { user_id: text } } });
			isAnswerOf(seen, 'b');
			return performance.now() - begin < 500;
		}, `${pattern} within half a second`);
	}
});

test('two hundred conditions are evaluated, to the last', async () => {
	const conditions = Array.from({ length: 200 }, (_, i) => ({ query: { $and: [{ 'params.model': { $regex: 'sonnet' } }, { 'metadata.n': String(i) }] }, then: 'x' }));
	for (const [n, from] of [['199', 'a'], ['200', 'b']])
		isAnswerOf(await walk(world, { key, headers: [['x-portkey-metadata', JSON.stringify({ n })], inline(routed({ conditions, default: 'y' }))] }), from);
});
