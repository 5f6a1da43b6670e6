// A target that fails is left out, by all workers at once, until one request has
// tried it. What proves it is how often the accounts were asked.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { API_KEY, World, parallel, refused, until } from './harness.mjs';
import { fallback, inline, isAnswerOf, labelled, loadbalance, recordOf, saved, target, triesOf, walk } from './routes.mjs';

const WORKERS = 4, ROUNDING_MS = 5, FOREVER_MS = 3600000;
const FREED_MS = 30000;		/* a probe that nobody frees is given to another request after a minute */
const both = fallback(['a', 'b']);

/** A world of two accounts (or those), its key, and what it is asked through one config. */
async function within({ health, slugs = ['a', 'b'], settings = {}, config = both }, job) {
	const world = await World.open({ workers: WORKERS, providers: slugs.map((slug) => ({ slug })), settings: { health, ...settings } });
	try {
		const key = await world.weir.key('health');
		await job({ world, key, ...world.providers, ask: (rest = {}) => walk(world, { key, ...(rest.headers ? {} : { config }), ...rest }),
			asked: async (slug) => (await world.providers[slug].stats()).requests, up: async (slug) => targetUp(await world.weir.metrics(), slug) });
	} finally {
		await world.close();
	}
}

/** weir_target_up of an account, or undefined where it has none. */
function targetUp(metrics, slug) {
	const names = new RegExp(`\\b${slug}\\b`);
	return metrics.samples.find((s) => s.name === 'weir_target_up' && names.test(s.labels.target))?.value;
}

/** Requests on connections of their own, so that they reach all workers. */
const many = (count, job) => parallel(count, 8, job);

test('so many failures in a row take it out, for every worker; before that it is asked each time', () =>
	within({ health: { failures: 5, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ a, ask, asked, up }) => {
		await a.outage('internal');
		for (let i = 0; i < 40; i++) {
			const seen = await ask();
			isAnswerOf(seen, 'b');
			assert.equal(seen.route.index, 'config.targets[1]');
		}
		assert.equal(await asked('a'), 5);
		await many(40, async () => isAnswerOf(await ask(), 'b'));
		assert.equal(await asked('a'), 5);
		assert.equal(await up('a'), 0);
		assert.notEqual(await up('b'), 0);
	}));

test('weir explain sees what is out, and where a conversation is, without sending anything', () =>
	within({ health: { failures: 2, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ world, a, ask, asked }) => {
		const asking = { ...both, override_params: { model: 'claude-sonnet-5-5' } };
		const explain = async () => (await world.weir.command('explain', '--config', JSON.stringify(asking), '--key', 'health', '--settings', world.weir.configPath)).stdout;
		const before = await explain();
		assert.match(before, /^target {4}config\.targets\[0\]: provider a /m);
		assert.doesNotMatch(before, /^(out|note) /m);
		await a.outage('internal');
		for (let i = 0; i < 2; i++)
			isAnswerOf(await ask(), 'b');
		const requests = [await asked('a'), await asked('b')];
		const after = await explain();
		assert.match(after, /^target {4}config\.targets\[1\]: provider b /m);
		assert.match(after, /^out {7}config\.targets\[0\]: .+/m);
		assert.deepEqual([await asked('a'), await asked('b')], requests);
	}));

test('a success in between begins the count anew', () =>
	within({ health: { failures: 3, failure_percent: 0, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ a, ask, asked }) => {
		for (let round = 0; round < 5; round++) {
			await a.outage('overloaded');
			for (let i = 0; i < 2; i++)
				isAnswerOf(await ask(), 'b');
			await a.restore();
			isAnswerOf(await ask(), 'a');
		}
		assert.equal(await asked('a'), 15);
	}));

test('a share of failures takes it out, too', () =>
	within({ health: { failures: 0, failure_percent: 40, minimum_requests: 10, window_ms: FOREVER_MS, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ ask, asked }) => {
		for (let i = 0; i < 60; i++)
			await ask({ script: i % 2 ? { accounts: { a: { error: 'internal' } } } : {} });
		const before = await asked('a');
		assert.ok(before >= 10 && before < 20, `${before}`);
		await many(20, async () => isAnswerOf(await ask(), 'b'));
		assert.equal(await asked('a'), before);
	}));

test('what the client has done wrong is no failure of the account', () =>
	within({ health: { failures: 2, failure_percent: 10, minimum_requests: 2, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ ask, asked }) => {
		for (const error of ['prompt_too_long', 'thinking_signature', 'extra_inputs', 'model_not_found', 'conflict', 'too_large', 'unprocessable'])
			isAnswerOf(await ask({ script: { accounts: { a: { error } } } }), 'b');
		assert.equal(await asked('a'), 7);
		isAnswerOf(await ask(), 'a');
	}));

test('after the cool-down one request tries it, the others of all workers do not wait; then it is back', () =>
	within({ health: { failures: 2, cooldown_ms: 300, cooldown_max_ms: 300 } }, async ({ a, ask, asked, up }) => {
		await a.outage('internal');
		for (let i = 0; i < 6; i++)
			isAnswerOf(await ask(), 'b');
		await a.restore();
		await a.byDefault({ hold: { before_head: true, gate: 'probe' } });
		const before = await asked('a'), probes = [];
		await until(async () => {
			probes.push(ask());
			return (await a.stats()).held === 1;
		}, 'one request tries it', undefined, 20);
		await many(60, async () => isAnswerOf(await ask(), 'b'));
		assert.equal(await asked('a'), before + 1, 'exactly one');
		assert.equal(await up('a'), 0, 'it is not back before it has answered');
		await a.byDefault({});
		await a.release('probe');
		const found = (await Promise.all(probes)).filter((s) => s.route.slug === 'a');
		assert.equal(found.length, 1);
		assert.equal(found[0].answer.status, 200);
		await many(40, async () => isAnswerOf(await ask(), 'a'));
		assert.notEqual(await up('a'), 0);
	}));

test('a probe that fails takes it out again, for longer; the client sees the other target', () =>
	within({ health: { failures: 2, failure_percent: 0, cooldown_ms: 200, cooldown_max_ms: 800 } }, async ({ a, ask }) => {
		await a.outage('internal');
		await until(async () => {
			isAnswerOf(await ask(), 'b');
			return (await a.stats()).requests >= 6;
		}, 'four probes', undefined, 5);
		const began = (await a.requests(6)).map((r) => r.began_ms), gaps = began.slice(2).map((ms, i) => ms - began[i + 1]);
		[200, 400, 800, 800].forEach((least, i) => assert.ok(gaps[i] >= least - ROUNDING_MS, `${gaps} for 200, 400, 800, 800`));
	}));

test('a probe whose client leaves is free for the next', () =>
	within({ health: { failures: 1, cooldown_ms: 100, cooldown_max_ms: 100 } }, async ({ world, key, a, ask, asked }) => {
		await a.outage('internal');
		isAnswerOf(await ask(), 'b');
		await a.restore();
		await a.byDefault({ hold: { before_head: true, gate: 'left' } });
		const clients = [];
		await until(async () => {
			const client = await world.open();
			clients.push(client);
			await client.send({ path: '/v1/messages', headers: [['content-type', 'application/json'], ['x-api-key', key.secret], inline(both)],
				body: JSON.stringify({ model: 'claude-sonnet-5-5', max_tokens: 10, messages: [{ role: 'user', content: 'x' }] }) });
			return (await a.stats()).held === 1;
		}, 'one tries it', undefined, 20);
		const before = await asked('a');
		clients.forEach((client) => client.close());
		await a.byDefault({});
		await until(async () => (await ask()).route.slug === 'a', 'another one tries it and it is back', FREED_MS, 20);
		assert.ok(await asked('a') > before);
	}));

test('a probe whose worker dies is free for the next', () =>
	within({ health: { failures: 1, cooldown_ms: 100, cooldown_max_ms: 100 } }, async ({ world, a, ask }) => {
		await a.outage('internal');
		isAnswerOf(await ask(), 'b');
		await a.restore();
		await a.byDefault({ hold: { before_head: true, gate: 'died' } });
		const probes = [];
		await until(async () => {
			probes.push(ask().catch(() => null));
			return (await a.stats()).held === 1;
		}, 'one tries it', undefined, 20);
		for (const pid of world.weir.children().filter((child) => world.weir.role(child) === 'worker'))
			process.kill(pid, 'SIGKILL');
		await Promise.all(probes);
		await a.byDefault({});
		await until(async () => (await ask().catch(() => null))?.route.slug === 'a', 'another one tries it and it is back', FREED_MS, 20);
	}));

test('a 429 keeps it out as long as it says, and not the account that did not say it', () =>
	within({ health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10, account_ms: FOREVER_MS } }, async ({ a, ask, asked, up }) => {
		await a.outage('rate_limit', { headers: [['retry-after', '2']] });
		isAnswerOf(await ask(), 'b');
		await a.restore();
		isAnswerOf(await ask(), 'b');
		assert.equal(await asked('a'), 1);
		assert.equal(await up('a'), 0);
		await until(async () => (await ask()).route.slug === 'a', 'it is back', undefined, 20);
		const [first, second] = await a.requests(2);
		assert.ok(second.began_ms - first.ended_ms >= 2000 - ROUNDING_MS, `${second.began_ms - first.ended_ms}`);
	}));

/* One such answer, and the account is out: somebody has to look at it. */
for (const mode of ['credential', 'billing', 'permission', 'tier_cap'])
	test(`${mode}: one is enough, for minutes, and it is told`, () =>
		within({ health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10, account_ms: FOREVER_MS } }, async ({ world, a, ask, asked, up }) => {
			await a.outage(mode);
			const first = await ask();
			isAnswerOf(first, 'b');
			await a.restore();
			await many(40, async () => isAnswerOf(await ask(), 'b'));
			assert.equal(await asked('a'), 1);
			assert.equal(await up('a'), 0);
			const metrics = await world.weir.metrics();
			assert.equal(metrics.sum('weir_targets_ejected_total'), 1);
			assert.ok(metrics.samples.some((s) => s.name === 'weir_targets_ejected_total' && s.value === 1 && Object.keys(s.labels).length > 0), 'with its reason');
		}));

test('a spend limit that a short wait does not cure is out for minutes, whatever its retry-after', () =>
	within({ health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10, account_ms: FOREVER_MS } }, async ({ a, ask, asked }) => {
		await a.outage('rate_limit', { error: 'spend_cap' });
		const first = await ask(), told = Date.now();
		isAnswerOf(first, 'b');
		assert.equal(first.at.a[0].status, 429);
		await a.restore();
		await until(() => Date.now() - told > 1000, 'as long as its retry-after says');
		await many(20, async () => isAnswerOf(await ask(), 'b'));
		assert.equal(await asked('a'), 1);
	}));

/* Rules by which three failures in a row take something out, and nothing comes back. */
const STRICT = { failures: 3, failure_percent: 0, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS, account_ms: FOREVER_MS };

test('a saved target\'s own credential is an account of its own', () =>
	within({ health: STRICT, settings: { configs: [{ slug: 'pc-own', config: fallback(['a', target('a', { api_key: `${API_KEY}-a` })]) }] } }, async ({ ask, asked }) => {
		const first = await ask({ headers: [saved('pc-own')], script: { in_turn: [{ error: 'billing' }, {}] } });
		assert.deepEqual([first.answer.status, first.hits, first.route.index], [200, { a: 2 }, 'config.targets[1]']);
		await many(20, async () => assert.equal((await ask({ headers: [saved('pc-own')] })).route.index, 'config.targets[1]'));
		assert.equal(await asked('a'), 22, 'the other one is out');
	}));

test('a saved target\'s own host takes nothing but itself out', () =>
	within({ health: STRICT, settings: { custom_hosts: { trusted: ['127.0.0.1'] }, configs: [{ slug: 'pc-hosted', config: fallback([target('a', { custom_host: 'http://127.0.0.1:1/v1' }), 'a']) }] } }, async ({ world, ask }) => {
		for (let i = 0; i < 8; i++) {
			const seen = await ask({ headers: [saved('pc-hosted')] });
			assert.deepEqual([seen.answer.status, seen.hits], [200, { a: 1 }], seen.answer.body.toString());
			assert.equal((await recordOf(world, seen.answer)).tries.length, i < 3 ? 2 : 0);
		}
	}));

test('where two providers are one account, the place that fails is out and the other one is not', async () => {
	const world = await World.open({ workers: WORKERS, providers: [{ slug: 'a', account: 'one' }, { slug: 'b', account: 'one' }], settings: { health: STRICT } });
	try {
		const key = await world.weir.key('health');
		await world.providers.a.outage('internal');
		for (let i = 0; i < 8; i++)
			isAnswerOf(await walk(world, { key, config: both }), 'b');
		assert.equal((await world.providers.a.stats()).requests, 3);
	} finally {
		await world.close();
	}
});

test('what a request brings of its own says nothing of an account, and is not kept from anything', () =>
	within({ health: { ...STRICT, failures: 1 }, settings: { custom_hosts: { trusted: ['127.0.0.1'] } } }, async ({ a, ask, asked }) => {
		const dead = fallback([target('a', { custom_host: 'http://127.0.0.1:1/v1' }), target('b', { custom_host: 'http://127.0.0.1:1/v1' })]);
		for (const headers of [[inline(dead)], [inline(both), ['x-portkey-custom-host', 'http://127.0.0.1:1/v1']]])
			assert.equal((await ask({ headers })).answer.status, 502);
		isAnswerOf(await ask(), 'a');
		await a.outage('billing');
		isAnswerOf(await ask(), 'b');
		await a.restore();
		const own = await ask({ headers: [inline(fallback([target('a', { api_key: `${API_KEY}-a` }), 'b']))] });
		assert.equal(own.route.index, 'config.targets[0]');
		isAnswerOf(own, 'a');
		isAnswerOf(await ask(), 'b');
		assert.deepEqual([await asked('a'), await asked('b')], [3, 2], 'its answer has not brought the account back');
	}));

test('a stream that breaks off after its first words is a failure, too', () =>
	within({ health: STRICT }, async ({ ask, asked }) => {
		const broken = { events: 6, accounts: { a: { fault: { kind: 'reset', after_events: 5 } } } };
		for (let i = 0; i < 3; i++)
			assert.match((await ask({ stream: true, script: broken, mayBreak: true })).answer.body.toString(), /event: error/);
		isAnswerOf(await ask(), 'b');
		assert.equal(await asked('a'), 3);
	}));

test('words of a client that a refusal quotes take no account out', () =>
	within({ health: STRICT }, async ({ ask, asked }) => {
		const quote = (text) => ({ accounts: { a: { status: 400, body: JSON.stringify({ type: 'error', error: { type: 'invalid_request_error', message: `${text}: Extra inputs are not permitted` } }) } } });
		isAnswerOf(await ask({ body: { 'credit balance': 1 }, script: quote('credit balance') }), 'b');
		isAnswerOf(await ask({ text: labelled('quoted', { script: quote('credit balance') }).replace('"model"', '"credit\\u0020balance":1,"model"'), label: 'quoted' }), 'b');
		isAnswerOf(await ask(), 'a');
		isAnswerOf(await ask({ script: { accounts: { a: { error: 'credit' } } } }), 'b');
		isAnswerOf(await ask(), 'b');
		assert.equal(await asked('a'), 4, 'the provider\'s own do');
	}));

test('a retry-after that nobody can count is a long one', () =>
	within({ health: STRICT, slugs: ['a', 'b', 'c'] }, async ({ ask, asked }) => {
		const limited = (...headers) => ({ status: 429, error_type: 'rate_limit_error', headers });
		for (const [slug, header] of [['a', ['retry-after', '9007199254740991']], ['b', ['retry-after-ms', '9223372036854775807']]]) {
			await ask({ config: fallback([slug, 'c']), script: { accounts: { [slug]: limited(header) } } });
			await many(20, async () => isAnswerOf(await ask({ config: fallback([slug, 'c']) }), 'c'));
			assert.equal(await asked(slug), 1);
		}
	}));

test('all are out: 503 at once that names them and why; when the time is over they are asked again', () =>
	within({ health: { failures: 1, failure_percent: 0, cooldown_ms: 2000, cooldown_max_ms: 2000, account_ms: FOREVER_MS } }, async ({ a, b, ask, asked }) => {
		await a.outage('credential');
		await b.outage('internal');
		const last = await ask();
		isAnswerOf(last, 'b');
		assert.deepEqual(last.hits, { a: 1, b: 1 });
		for (const stream of [false, true]) {
			const begin = Date.now(), seen = await ask({ stream });
			if (Date.now() - begin < 1500) {	/* else b's time may be over */
				const message = refused(seen.answer, 503, 'api_error');
				assert.match(message, /\ba\b.*\bb\b/s, message);
				assert.match(message, /credential|refused|401/i);
				assert.match(message, /fail/i);
				assert.match(seen.answer.headers.get('retry-after'), /^[12]$/, 'who waits so long finds b');
			}
		}
		assert.deepEqual([await asked('a'), await asked('b')], [1, 1]);
		await b.restore();
		await until(async () => (await ask()).route?.slug === 'b', 'b is back', undefined, 50);
		assert.equal(await asked('a'), 1);
	}));

test('load balancing leaves it out, and its share goes to the others', () =>
	within({ slugs: ['a', 'b', 'c'], health: { failures: 1, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS }, config: loadbalance(['a', 'b', 'c']) }, async ({ a, ask, asked }) => {
		await a.outage('internal');
		await until(async () => (await ask()).route.slug === 'a', 'a is drawn, and fails');
		const before = [await asked('b'), await asked('c')];
		for (let i = 0; i < 60; i++)
			assert.equal((await ask()).answer.status, 200);
		assert.equal(await asked('a'), 1);
		const now = [await asked('b'), await asked('c')];
		assert.ok(now[0] - before[0] > 8 && now[1] - before[1] > 8, `${now} after ${before}`);
	}));

test('a request that names its account is not kept from it', () =>
	within({ health: { failures: 1, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS, account_ms: FOREVER_MS } }, async ({ a, ask, asked }) => {
		await a.outage('credential');
		for (let i = 0; i < 3; i++)
			isAnswerOf(await ask({ headers: [['x-portkey-provider', '@a']] }), 'a');
		assert.equal(await asked('a'), 3);
	}));

const BREAKER = { failure_threshold: 2, cooldown_interval: 30000, failure_status_codes: [404, 500] };

test('cb_config of a saved config: its own rule, for its own target', () =>
	within({ health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10 }, settings: { configs: [{ slug: 'pc-breaker', config: fallback(['a', 'b'], { cb_config: BREAKER }) },
		{ slug: 'pc-other', config: both }, { slug: 'pc-target', config: fallback([target('a', { cb_config: BREAKER }), 'b']) }] } }, async ({ a, ask, asked }) => {
		for (const slug of ['pc-breaker', 'pc-target']) {
			const before = await asked('a');
			await a.outage('internal', { error: 'model_not_found' });
			for (let i = 0; i < 6; i++)
				isAnswerOf(await ask({ headers: [saved(slug)] }), 'b');
			assert.equal(await asked('a'), before + 2, slug);
			for (let i = 0; i < 3; i++)
				isAnswerOf(await ask({ headers: [saved('pc-other')] }), 'b');
			assert.equal(await asked('a'), before + 5, 'another config still asks it');
			await a.restore();
			const seen = await ask({ headers: [saved(slug)] });
			isAnswerOf(seen, 'b');
			assert.equal(seen.route.index, 'config.targets[1]', 'the place in the config is the written one');
		}
	}));

test('cb_config of an inline config does not count: nobody else could close it', () =>
	within({ health: { failures: 0, failure_percent: 0, cooldown_ms: 10, cooldown_max_ms: 10 }, config: fallback(['a', 'b'], { cb_config: BREAKER }) }, async ({ a, ask, asked }) => {
		await a.outage('internal');
		for (let i = 0; i < 5; i++)
			isAnswerOf(await ask(), 'b');
		assert.equal(await asked('a'), 5);
	}));

test('a target that is out is not in the record\'s tries', () =>
	within({ health: { failures: 1, cooldown_ms: FOREVER_MS, cooldown_max_ms: FOREVER_MS } }, async ({ world, a, ask }) => {
		await a.outage('internal');
		const first = await ask(), second = await ask();
		const record = (seen) => world.weir.record(seen.answer.headers.get('x-weir-request-id'));
		assert.equal(triesOf(await record(first)), 'a 500, b 200');
		const { attempts, tries, target: at } = await record(second);
		assert.deepEqual([attempts, tries, at], [1, [], 'config.targets[1]']);
	}));
