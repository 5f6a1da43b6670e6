// Which config applies, which provider is asked, and which headers go along: what
// the request brings, what its key and its workspace have, and who goes first.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { World, messageBody, refused } from './harness.mjs';
import { HARDY, MODEL, fallback, inline, outages, saved, target, walk } from './routes.mjs';

const HAIKU = 'claude-haiku-5-5', OPUS = 'claude-opus-5-5';
const SETTINGS = { ...HARDY, default_provider: 'c', workspaces: [{ slug: 'routed', config: 'pc-b' }],
	configs: [{ slug: 'pc-a', config: target('a', { override_params: { max_tokens: 7 } }) }, { slug: 'pc-b', config: target('b') }] };
let world, key, made = 0;

before(async () => {
	world = await World.open({ providers: ['a', 'b', 'c'].map((slug) => ({ slug })), settings: SETTINGS });
	key = await world.weir.key('resolution');
});
after(() => world.close());

const newKey = (...args) => world.weir.key(`resolution-${++made}`, ...args);
/** It is what that account has answered; in it the model may have the client's name for it. */
function isFrom({ answer, at, hits }, slug) {
	assert.deepEqual(hits, { [slug]: 1 }, answer.body.toString());
	assert.deepEqual([answer.status, answer.headers.get('request-id')], [at[slug][0].status, at[slug][0].id]);
}
const provider = (value) => ['x-portkey-provider', value];

describe('which config', () => {
	/* Arguments of the key, headers; who answers, which config the answer names, max_tokens that it got. */
	const ROWS = [
		['none', [], [], 'c', null, 1024],
		['the key\'s', ['--routing-config', 'pc-a'], [], 'a', 'pc-a', 7],
		['the workspace\'s', ['--workspace', 'routed'], [], 'b', 'pc-b', 1024],
		['the key\'s before the workspace\'s', ['--workspace', 'routed', '--routing-config', 'pc-a'], [], 'a', 'pc-a', 7],
		['a saved one of the request\'s before the key\'s', ['--routing-config', 'pc-a'], [saved('pc-b')], 'b', 'pc-b', 1024],
		['its own before the key\'s, and nothing of that is left', ['--routing-config', 'pc-a'], [inline({ provider: '@b' })], 'b', 'inline', 1024],
		['its own before the workspace\'s', ['--workspace', 'routed'], [inline({ override_params: { max_tokens: 9 } })], 'c', 'inline', 9],
		['another workspace has none', ['--workspace', 'other'], [], 'c', null, 1024],
		['the locked one of the key', ['--routing-config', 'pc-a', '--lock-config'], [], 'a', 'pc-a', 7],
		['the locked one, whatever provider the request names', ['--routing-config', 'pc-a', '--lock-config'], [provider('@b')], 'a', 'pc-a', 7],
	];
	for (const [name, args, headers, slug, config, most] of ROWS)
		test(name, async () => {
			const seen = await walk(world, { key: await newKey(...args), headers });
			isFrom(seen, slug);
			assert.equal(seen.route.config?.split('@')[0] ?? null, config);
			assert.equal(JSON.parse((await world.providers[slug].last()).body).max_tokens, most);
		});

	test('a locked one cannot be replaced, not by itself either', async () => {
		const locked = await newKey('--routing-config', 'pc-a', '--lock-config');
		for (const header of [saved('pc-b'), saved('pc-a'), inline(target('b'))]) {
			const seen = await walk(world, { key: locked, headers: [header] });
			assert.match(refused(seen.answer, 400, 'invalid_request_error'), /does not allow another config/);
			assert.deepEqual(seen.hits, {});
		}
	});

	test('one that there is not is named', async () => {
		for (const [value, words] of [['pc-nobody', /there is no config "pc-nobody"/], ['nobody', /there is no config "nobody"/], ['{"provider":', /x-portkey-config: /], ['[{"provider":"@a"}]', /there is no config/]])
			assert.match(refused((await walk(world, { key, headers: [saved(value)] })).answer, 400, 'invalid_request_error'), words);
	});
});

describe('which provider', () => {
	/* The config, headers, the model that is asked for; who answers, and the model that it is asked. */
	const ROWS = [
		['nobody says', undefined, [], MODEL, 'c', MODEL],
		['the target', target('a'), [provider('@b')], `@c/${MODEL}`, 'a', MODEL],
		['its old spelling', { virtual_key: 'a' }, [provider('@b')], `@c/${MODEL}`, 'a', MODEL],
		['its model\'s prefix', { override_params: { model: `@a/${HAIKU}` } }, [provider('@b')], `@c/${MODEL}`, 'a', HAIKU],
		['the target before its model\'s prefix', target('a', { override_params: { model: `@b/${HAIKU}` } }), [], MODEL, 'a', HAIKU],
		['a model\'s prefix that is inherited', { override_params: { model: `@a/${HAIKU}` }, targets: [{}] }, [], MODEL, 'a', HAIKU],
		['the header', undefined, [provider('@a')], `@b/${MODEL}`, 'a', MODEL],
		['the header, with more behind the slug', undefined, [provider('@a/what/ever')], MODEL, 'a', MODEL],
		['the header, without the mark', undefined, [provider('a')], MODEL, 'a', MODEL],
		['the old header', undefined, [['x-portkey-virtual-key', 'a']], `@b/${MODEL}`, 'a', MODEL],
		['the header before the old one', undefined, [['x-portkey-virtual-key', 'b'], provider('@a')], MODEL, 'a', MODEL],
		['the model\'s prefix', undefined, [], `@a/${HAIKU}`, 'a', HAIKU],
		['the header, where the target is silent', { override_params: { max_tokens: 5 } }, [provider('@a')], MODEL, 'a', MODEL],
		['the model\'s prefix, where the target is silent', { override_params: { max_tokens: 5 } }, [], `@a/${MODEL}`, 'a', MODEL],
		['a model by default with a prefix', { default_params: { model: `@a/${HAIKU}` } }, [], undefined, 'a', HAIKU],
		['passthrough: the header', { targets: [{ passthrough: true, override_params: { model: `@b/${HAIKU}` } }] }, [provider('@a')], MODEL, 'a', HAIKU],
		['passthrough: the model\'s prefix', { targets: [{ passthrough: true }] }, [], `@a/${MODEL}`, 'a', MODEL],
		['a kind of provider: the default one is it', { provider: 'anthropic' }, [provider('@a')], MODEL, 'c', MODEL],
		['the same by header', undefined, [provider('anthropic')], MODEL, 'c', MODEL],
		['a model with a slash in its name', undefined, [], '@a/claude-5/sonnet', 'a', 'claude-5/sonnet'],
	];
	for (const [name, config, headers, model, slug, asked] of ROWS)
		test(`${name}: ${slug}`, async () => {
			const seen = await walk(world, { key, config, headers, body: { model } });
			isFrom(seen, slug);
			assert.deepEqual([seen.route.slug, seen.route.name], [slug, 'anthropic']);
			assert.equal(JSON.parse((await world.providers[slug].last()).body).model, asked);
		});

	test('what looks like a prefix and is none goes to the provider as it is', async () => {
		for (const model of ['@cf/meta/claude', '@hf/claude']) {
			const seen = await world.ask({ key, body: messageBody({ model }) });
			assert.deepEqual([seen.status, JSON.parse(seen.body).error.message], [404, `model: ${model}`]);
			assert.equal(JSON.parse((await world.providers.c.last()).body).model, model);
		}
	});

	test('each target decides for itself', async () => {
		await outages(world, { a: 'internal' });
		const config = fallback([target('a'), { override_params: { max_tokens: 5 } }]);
		try {
			for (const [way, slug] of [[{ headers: [provider('@b')] }, 'b'], [{ body: { model: `@b/${OPUS}` } }, 'b'], [{}, 'c']]) {
				const seen = await walk(world, { key, config, ...way });
				assert.deepEqual([seen.hits, seen.answer.status, seen.route.slug], [{ a: 1, [slug]: 1 }, 200, slug]);
			}
		} finally {
			await outages(world);
		}
	});

	test('one that does not offer the model is passed over, which counts as a fallback', async () => {
		const several = await World.open({ providers: [{ slug: 'a', settings: { models: [HAIKU] } }, { slug: 'b', settings: { models: [OPUS] } }], settings: HARDY });
		try {
			const seen = await walk(several, { key: await several.weir.key('passed'), config: fallback(['a', 'b']), body: { model: OPUS } });
			isFrom(seen, 'b');
			assert.equal((await several.weir.metrics()).sum('weir_fallbacks_total'), 1);
		} finally {
			await several.close();
		}
	});

	test('one that there is not is named, whoever names it', async () => {
		for (const way of [{ headers: [provider('@nobody')] }, { headers: [provider('nobody')] }, { headers: [['x-portkey-virtual-key', 'nobody']] }, { body: { model: `@nobody/${MODEL}` } },
			{ config: target('nobody') }, { config: { virtual_key: 'nobody' } }, { config: { override_params: { model: '@nobody/x' } } }, { config: fallback(['a', target('nobody')]) }]) {
			const seen = await walk(world, { key, ...way });
			assert.match(refused(seen.answer, 400, 'invalid_request_error'), /there is no provider "nobody"/);
			assert.deepEqual(seen.hits, {});
		}
	});

	test('where nobody says it and nobody has the model: 404 that tells how, and what there is; 403 where the key may not', async () => {
		const several = await World.open({ providers: [{ slug: 'a', settings: { models: [HAIKU] } }, { slug: 'b', settings: { models: [OPUS] } }], settings: HARDY });
		try {
			const own = await several.weir.key('nobody');
			isFrom(await walk(several, { key: own, body: { model: OPUS } }), 'b');
			const unknown = refused((await walk(several, { key: own })).answer, 404, 'not_found_error');
			assert.match(unknown, new RegExp(`"${MODEL}" is not known at any provider .*x-portkey-provider, a config, or "@provider/model".*you can use: .*claude`));
			const strict = await several.weir.key('strict', '--model', OPUS);
			const forbidden = refused((await walk(several, { key: strict })).answer, 403, 'permission_error');
			assert.match(forbidden, new RegExp(`"${MODEL}" is not allowed for this API key; you can use: ${OPUS}$`));
		} finally {
			await several.close();
		}
	});
});

describe('headers that go along', () => {
	const MINE = [['x-one', '1'], ['x-Two', '2 , b'], ['x-three', '3'], ['x-two', 'again']];
	/** What the account got of these: name -> values. */
	async function arrived(config, headers) {
		const seen = await walk(world, { key, config, headers: [...MINE, ...headers] });
		assert.equal(seen.answer.status, 200, seen.answer.body.toString());
		const got = (await world.providers.a.last()).headers;
		return Object.fromEntries(['x-one', 'x-two', 'x-three'].map((name) => [name, got.filter(([n]) => n.toLowerCase() === name).map(([, v]) => v)]));
	}
	const list = (value) => ['x-portkey-forward-headers', value];

	test('none that nobody names', async () => assert.deepEqual(await arrived(target('a'), []), { 'x-one': [], 'x-two': [], 'x-three': [] }));

	test('those that the config names, each as it came', async () => {
		assert.deepEqual(await arrived(target('a', { forward_headers: ['X-Two', 'x-absent'] }), []), { 'x-one': [], 'x-two': ['2 , b', 'again'], 'x-three': [] });
		assert.deepEqual(await arrived(fallback([target('a')], {}, { forwardHeaders: ['x-one'] }), []), { 'x-one': ['1'], 'x-two': [], 'x-three': [] });
		assert.deepEqual(await arrived(fallback([target('a', { forward_headers: ['x-three'] })], {}, { forward_headers: ['x-one'] }), []), { 'x-one': [], 'x-two': [], 'x-three': ['3'] });
	});

	test('those that the request names, in either form', async () => {
		for (const value of ['x-one, X-THREE', "['x-one','x-three']", '["X-One", "x-three"]'])
			assert.deepEqual(await arrived(target('a'), [list(value)]), { 'x-one': ['1'], 'x-two': [], 'x-three': ['3'] });
		assert.deepEqual(await arrived(target('a', { forward_headers: ['x-two'] }), [list('x-one')]), { 'x-one': ['1'], 'x-two': ['2 , b', 'again'], 'x-three': [] });
	});

	test('none that Connection names', async () => assert.deepEqual(await arrived(target('a'), [list('x-one, x-three'), ['connection', 'keep-alive, x-one']]), { 'x-one': [], 'x-two': [], 'x-three': ['3'] }));

	/* That are between the client and weir, or would change what is sent. */
	const KEPT = ['authorization', 'x-api-key', 'X-Api-Key', 'api-key', 'cookie', 'proxy-authorization', 'x-portkey-api-key', 'x-portkey-metadata', 'X-Portkey-Forward-Headers', 'host', 'content-length',
		'content-encoding', 'accept-encoding', 'transfer-encoding', 'connection', 'keep-alive', 'te', 'trailer', 'upgrade', 'expect', 'proxy-connection'];
	test('a credential, a header of the connection or of weir\'s own: 400 that names it, by the config and by the request', async () => {
		const theirs = [['cookie', 'a=b'], ['api-key', 'k'], ['x-portkey-metadata', '{"team":"x"}'], ['proxy-authorization', 'Basic eDp5'], ['accept-encoding', 'gzip']];
		for (const name of KEPT)
			for (const way of [{ config: target('a', { forward_headers: ['x-one', name] }) }, { config: target('a'), headers: [list(`x-one, ${name}`)] }, { headers: [list(`['${name}']`), provider('@a')] }]) {
				const seen = await walk(world, { key, ...way, headers: [...theirs, ...(way.headers ?? [])] });
				const message = refused(seen.answer, 400, 'invalid_request_error');
				assert.ok(message.toLowerCase().includes(`"${name.toLowerCase()}"`) && message.includes('never forwarded'), `${name}: ${message}`);
				assert.deepEqual(seen.hits, {});
			}
	});
});

describe('where only saved ones may be used', () => {
	let strict, own;
	before(async () => {
		strict = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, default_provider: 'a', saved_configs_only: true, configs: [{ slug: 'pc-b', config: target('b', { forward_headers: ['x-one'] }) }] } });
		own = await strict.weir.key('strict');
	});
	after(() => strict.close());

	for (const [code, header] of [['inline_config_blocked', inline(target('a'))], ['inline_provider_blocked', provider('anthropic')], ['inline_provider_blocked', provider('a')],
		['inline_custom_host_blocked', ['x-portkey-custom-host', 'https://llm.example.com']], ['inline_forward_headers_blocked', ['x-portkey-forward-headers', 'x-one']]])
		test(`${header.join(': ')}: ${code}`, async () => {
			for (const more of [[], [saved('pc-b')]].filter((m) => header[0] !== 'x-portkey-config' || m.length === 0)) {
				const seen = await walk(strict, { key: own, headers: [header, ...more] });
				const message = refused(seen.answer, 400, 'invalid_request_error');
				assert.ok(message.startsWith(`${header[0]} (${code}): `), message);
				assert.deepEqual(seen.hits, {});
			}
		});

	test('what is saved, and its names, may', async () => {
		for (const [way, slug] of [[{}, 'a'], [{ headers: [saved('pc-b')] }, 'b'], [{ headers: [provider('@b')] }, 'b'], [{ body: { model: `@b/${MODEL}` } }, 'b'], [{ headers: [['x-portkey-virtual-key', 'b']] }, 'b']])
			isFrom(await walk(strict, { key: own, ...way }), slug);
		await strict.ask({ key: own, headers: [saved('pc-b'), ['x-one', '1']], body: messageBody() });
		assert.deepEqual((await strict.providers.b.last()).headers.filter(([n]) => n === 'x-one'), [['x-one', '1']]);
	});
});
