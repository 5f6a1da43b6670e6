// The whole ledger at once: 200 concurrent SDK clients of twenty users, four
// workers, budgets on the key, the workspace, the provider and each user, streams
// and plain answers, a provider that breaks off and errs, a worker killed every
// 200 ms. All the while somebody looks at every meter. At the end
//
//	max over time of (spent + held - limit) <= 0 on every meter that is not postpaid
//	bill = ledger = records, to the nano-dollar
//	no record lost or there twice, nothing held
//
//	WEIR_LEDGER_SECONDS	how long (15; 120 is the long form)
//	WEIR_LEDGER_SEED	which random numbers (printed)

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

import { World, until } from './harness.mjs';
import { random } from './random.mjs';

const SECONDS = Number(process.env.WEIR_LEDGER_SECONDS ?? 15);
const SEED = Number(process.env.WEIR_LEDGER_SEED ?? Math.floor(Math.random() * 1e9));
const CLIENTS = 200, USERS = 20;
const FINISHED_MIN = 50;
/* Money for a few hundred requests in each quarter of a minute: it shall run out. */
const SHARE = Math.max(1, SECONDS / 15);

/* What is billed for the prompt stays within what its bytes can hold, as a real bill does. */
const SCRIPTS = [
	{ events: 3, usage: { input_tokens: 300, output_tokens: 120 } },
	{ events: 20, delay_ms: 4, usage: { input_tokens: 100, output_tokens: 400, cache_read_input_tokens: 600 } },
	{ events: 10, delay_ms: 2, fault: { kind: 'reset', after_events: 6 }, usage: { input_tokens: 100, output_tokens: 50 } },
	{ error: 'overloaded' },
	{ events: 4, tool: true, thinking: 2, usage: { input_tokens: 200, output_tokens: 700 } },
];

/** One SDK client, as long as `going` says so; what it saw. */
async function load(world, key, number, going, seen) {
	const user = `user${number % USERS}`, pick = random(SEED + number);
	const client = new Anthropic({ baseURL: `http://127.0.0.1:${world.weir.port}`, apiKey: key.secret, maxRetries: 0, timeout: 60000,
		defaultHeaders: { 'x-portkey-metadata': JSON.stringify({ _user: user }) } });
	while (going()) {
		const params = { model: 'claude-sonnet-5-5', max_tokens: [500, 8000, 128000][Math.floor(pick() * 3)],
			messages: [{ role: 'user', content: JSON.stringify({ fake: SCRIPTS[Math.floor(pick() * SCRIPTS.length)] }) }] };
		try {
			if (pick() < 0.7) {
				const { data: stream, response } = await client.messages.create({ ...params, stream: true }).withResponse();
				let stopped = false;
				for await (const event of stream)
					stopped ||= event.type === 'message_stop';
				if (stopped)
					seen.finished.push({ id: response.headers.get('x-weir-request-id'), provider: response.headers.get('request-id') });
				else
					seen.broken++;
			} else {
				const { response } = await client.messages.create(params).withResponse();
				seen.finished.push({ id: response.headers.get('x-weir-request-id'), provider: response.headers.get('request-id') });
			}
		} catch (error) {
			if (error.status === 429)
				seen.refused++;
			else if (error.status !== undefined)
				seen.errors++;
			else
				seen.broken++;
			/* as a client that tries again: refusals must not spin */
			await new Promise((resolve) => setTimeout(resolve, error.status === 429 ? 100 : 20));
		}
	}
}

function killWorker(world, pick) {
	const workers = world.weir.children().filter((pid) => world.weir.role(pid) === 'worker');
	if (workers.length === 0)
		return 0;
	try {
		process.kill(workers[Math.floor(pick() * workers.length)], 'SIGKILL');
		return 1;
	} catch (error) {
		if (error.code !== 'ESRCH')
			throw error;
		return 0;
	}
}

const limitsOf = async (world) => {
	const shown = await world.weir.command('limits', '--config', world.weir.configPath, '--json');
	assert.equal(shown.code, 0, shown.stderr);
	return JSON.parse(shown.stdout);
};

test(`${CLIENTS} SDK clients for ${SECONDS} s, workers dying: no budget is passed, nothing is lost (seed ${SEED})`, async () => {
	http.globalAgent.maxSockets = Infinity;
	const world = await World.open({ workers: 4, providerSettings: { usage_limits: [{ type: 'cost', credit_limit: 40 * SHARE, periodic_reset: 'monthly' }] },
		settings: { workspaces: [{ slug: 'lab', usage_limits: [{ type: 'cost', credit_limit: 30 * SHARE, periodic_reset: 'weekly', mode: 'strict' }] }],
			policies: [{ id: 'per-user', conditions: [{ key: 'metadata._user', value: '*' }], group_by: [{ key: 'metadata._user' }], type: 'cost', credit_limit: 0.2 * SHARE,
				periodic_reset: 'daily' }] } });
	try {
		const key = await world.weir.key('ledger', '--workspace', 'lab', '--budget', (2 * SHARE).toFixed(2), '--budget-period', 'monthly');
		const seen = { finished: [], broken: 0, refused: 0, errors: 0 }, pick = random(SEED);
		let killed = 0, looks = 0, most = -Infinity, over = null;
		/* A busy machine takes longer for as much. */
		const begin = Date.now(), enough = () => looks >= SECONDS / 3 && killed >= SECONDS && seen.finished.length >= FINISHED_MIN;
		const going = () => Date.now() < begin + SECONDS * 1000 || (!enough() && Date.now() < begin + SECONDS * 8000);
		const killer = setInterval(() => { killed += going() ? killWorker(world, pick) : 0; }, 200);
		const looker = (async () => {
			while (going()) {
				for (const meter of await limitsOf(world)) {
					if (meter.kind !== 'budget' || meter.mode === 'postpaid')
						continue;
					const excess = meter.spent + meter.held - meter.limit;
					most = Math.max(most, excess);
					if (excess > 0)
						over ??= meter;
				}
				looks++;
			}
		})();
		try {
			await Promise.all([looker, ...Array.from({ length: CLIENTS }, (_, i) => load(world, key, i, going, seen))]);
		} finally {
			clearInterval(killer);
		}
		console.log(`# ${seen.finished.length} finished, ${seen.broken} broken, ${seen.refused} refused, ${seen.errors} errors; ${killed} workers killed; ` +
			`${looks} looks, max(spent + held - limit) = ${most} nano-dollars`);
		assert.equal(over, null, JSON.stringify(over));
		assert.ok(enough(), JSON.stringify({ looks, killed }));

		await until(async () => (await world.provider.stats()).in_flight === 0, 'the provider is idle', 60000);
		await until(async () => {
			const now = await world.weir.metrics().catch(() => null);
			return now && now.sum('weir_requests_in_flight') === 0;
		}, 'nothing is in flight', 60000, 100);
		await reconcile(world, key, seen);
	} finally {
		await world.close();
	}
});

async function reconcile(world, key, seen) {
	const billed = new Map((await world.provider.bill()).requests.map((r) => [r.id, r]));
	const ids = new Set(seen.finished.map((f) => f.id));
	const records = await until(async () => {
		const found = await world.weir.logs(`key_id=${key.id}`);
		const stored = new Set(found.map((r) => r.request_id));
		return [...ids].every((id) => stored.has(id)) && found;
	}, 'every finished request has a record', 30000, 200);
	assert.equal(new Set(records.map((r) => r.request_id)).size, records.length, 'a request was recorded twice');

	const byId = new Map(records.map((r) => [r.request_id, r]));
	for (const f of seen.finished)
		if (byId.get(f.id).outcome === 'ok')
			assert.equal(String(byId.get(f.id).cost_nusd), String(billed.get(f.provider).cost_nusd), 'the bill of a finished request');
	const sum = records.reduce((n, r) => n + r.cost_nusd, 0);
	const meters = await until(async () => {
		const all = await limitsOf(world);
		return all.every((m) => m.held === 0 || m.kind !== 'budget') && all;
	}, 'nothing is held', 10000, 100);
	const spent = (name) => meters.filter((m) => m.name.startsWith(name) && m.unit === 'nusd').reduce((n, m) => n + m.spent, 0);
	assert.equal(spent('key lab/ledger'), sum, 'the key\'s budget = its records');
	assert.equal(spent('workspace lab'), sum, 'the workspace\'s');
	assert.equal(spent('provider anthropic'), sum, 'the provider\'s');
	assert.equal(spent('policy per-user'), sum, 'the users\' together');
	for (let user = 0; user < USERS; user++) {
		const own = records.filter((r) => r.metadata._user === `user${user}`).reduce((n, r) => n + r.cost_nusd, 0);
		const [meter] = meters.filter((m) => m.name === `policy per-user metadata._user:user${user}`);
		assert.equal(meter?.spent ?? 0, own, `user${user}`);
	}
	await world.weir.spends(key, BigInt(sum));
}
