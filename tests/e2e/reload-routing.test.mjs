// Configs are exchanged under load, again and again: every request sees one
// version of all of them, whole. Two versions take turns; in each, target, model,
// override, header and version belong together.
//
//	WEIR_RELOADS	how often (20; 100 is the long form)

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { World, figures, messageBody, until } from './harness.mjs';
import { HARDY, fallback, newLabel, outages, routeOf, saved, target } from './routes.mjs';

const RELOADS = Number(process.env.WEIR_RELOADS ?? 20);
const CLIENTS = 24;

/* What a version of all configs is. The first target of the fallback is an account that is never well. */
const VERSIONS = [{ slug: 'a', max_tokens: 111, model: 'claude-haiku-5-5' }, { slug: 'b', max_tokens: 222, model: 'claude-opus-5-5' }];
const configsOf = ({ slug, max_tokens, model }) => [
	{ slug: 'pc-plain', config: target(slug, { override_params: { max_tokens, model } }) },
	{ slug: 'pc-pinned', config: { override_params: { model: `@${slug}/${model}`, max_tokens } } },
	{ slug: 'pc-fallback', config: fallback([target('dead', { override_params: { stop_sequences: [slug] } }), target(slug, { override_params: { max_tokens, model } })]) },
];

test(`${RELOADS} reloads under load: no request sees half of two configs`, async () => {
	const world = await World.open({ workers: 4, providers: ['a', 'b', 'dead'].map((slug) => ({ slug })), settings: { ...HARDY, configs: configsOf(VERSIONS[0]) } });
	try {
		const key = await world.weir.key('reload-routing'), seen = [];
		await outages(world, { dead: 'overloaded' });
		let going = true;
		const load = Promise.all(Array.from({ length: CLIENTS }, async (_, i) => {
			const config = ['pc-plain', 'pc-pinned', 'pc-fallback'][i % 3], client = await world.open();
			while (going) {
				const label = newLabel(), stream = i % 2 === 0;
				const answer = await client.exchange({ path: '/v1/messages', headers: [['content-type', 'application/json'], ['x-api-key', key.secret], saved(config)],
					body: messageBody({ stream, script: { label, events: 4, delay_ms: i % 4 } }) });
				assert.equal(answer.status, 200, answer.body.toString());
				seen.push({ ...routeOf(answer), label, named: config });
			}
			client.close();
		}));
		try {
			for (let n = 1; n <= RELOADS; n++)
				await reload(world, VERSIONS[n % 2], seen);
		} finally {
			going = false;
			await load;
		}
		await check(world, seen);
	} finally {
		await world.close();
	}
});

/** New configs are in force, and some requests have seen them. */
async function reload(world, version, seen) {
	const before = (await world.weir.metrics()).sum('weir_settings_version'), begin = seen.length;
	world.weir.write({ ...world.weir.settings, configs: configsOf(version) });
	world.weir.signal('SIGHUP');
	await until(async () => (await world.weir.metrics()).sum('weir_settings_version') === before + 1, 'the new settings are in force');
	await until(() => seen.slice(begin).some((s) => s.slug === version.slug), 'a request sees them');
}

async function check(world, seen) {
	const arrived = new Map(), versions = new Map(), counts = { a: 0, b: 0 };
	for (const provider of Object.values(world.providers))
		for (const request of await provider.requests(1e6, true))
			arrived.set(request.label, [...arrived.get(request.label) ?? [], JSON.parse(Buffer.from(request.body_base64, 'base64'))]);
	const records = new Map((await world.weir.records(seen.length)).map((r) => [r.request_id, r]));
	for (const s of seen) {
		const { max_tokens, model } = VERSIONS.find((v) => v.slug === s.slug), bodies = arrived.get(s.label), last = bodies.find((b) => !b.stop_sequences);
		counts[s.slug]++;
		assert.deepEqual([last.max_tokens, last.model, s.model], [max_tokens, model, model], JSON.stringify(s));
		if (s.named === 'pc-fallback')
			assert.deepEqual(bodies.find((b) => b.stop_sequences).stop_sequences, [s.slug], 'the target before it was of the same version');
		const record = records.get(s.id);
		assert.deepEqual([record.provider, record.model, `${record.config}@${record.config_version}`], [s.slug, model, s.config], JSON.stringify(s));
		assert.ok(s.config.startsWith(`${s.named}@`), s.config);
		versions.set(s.config, new Set([...versions.get(s.config) ?? [], s.slug]));
	}
	assert.equal(versions.size, 6, `three configs, two versions each: ${[...versions.keys()]}`);
	for (const [version, slugs] of versions)
		assert.equal(slugs.size, 1, `${version} went to ${[...slugs]}`);
	assert.ok(counts.a > 0 && counts.b > 0);
	figures('reload-routing', { reloads: RELOADS, requests: seen.length, ...counts });
}
