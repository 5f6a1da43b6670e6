// The outage drill: 200 concurrent SDK streams over fallbacks of three accounts,
// while these fail, one at a time and in every way. Then
//
//	no client saw an error, unless content had been sent before
//	each attempt that failed stands in its request's record
//	bills of all accounts = records = ledger, to the nano-dollar (what is billed for
//	an answer that broke off is an estimate, and marked as one)
//
// and a table is printed of what each fault did.
//
//	WEIR_OUTAGE_SECONDS	how long (15; 60 is the long form)

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { OUTAGES } from '../fake/outage.mjs';
import { World, figures, until } from './harness.mjs';
import { bills, fallback, inline, labelled, newLabel, sdk, settled, target, triesOf, walk } from './routes.mjs';

const SECONDS = Number(process.env.WEIR_OUTAGE_SECONDS ?? 15);
const CLIENTS = 200, SLUGS = ['a', 'b', 'c'];
const ATTEMPT_MS = 5000;	/* longer than an account that is well needs, on a busy machine too */
const FELT_MIN = 10;		/* requests that began during a fault and would have gone to its account, on a busy machine too */
const AFTER_CONTENT = ['stalled', 'broken'];	/* faults in the middle of the text */
const UNHARMED = ['slow'];	/* and what is no fault to a client */
const SCRIPT = { events: 8, text_bytes: 40, delay_ms: 2, usage: { input_tokens: 200, output_tokens: 90 } };

/* Each client prefers another account, so that each account matters whichever fails. */
const ORDERS = SLUGS.map((_, i) => ({ slug: `pc-drill-${i}`, config: fallback(SLUGS.map((_, j) => SLUGS[(i + j) % SLUGS.length]), {}, { request_timeout: ATTEMPT_MS }) }));
const SETTINGS = {
	configs: ORDERS, limits: { stream_idle_ms: 2000 },
	health: { failures: 3, failure_percent: 0, cooldown_ms: 50, cooldown_max_ms: 200, account_ms: 200 },
};

const metadataOf = (label) => ['x-portkey-metadata', JSON.stringify({ label })];

const WARMING_UP = 'warming up';	/* hundreds of handshakes at once: not what this is about */

/** What happens now: a fault, or nothing; and what has happened. */
class Weather {
	going = true;
	past = [WARMING_UP];
	victim = null;
	get mode() { return this.past.at(-1); }

	turn(mode, victim = null) {
		this.past.push(mode);
		this.victim = victim;
	}
}

/** One request by the SDK; what its client saw, and in which weathers. */
async function once(client, order, now) {
	const label = newLabel(), from = now.past.length - 1;
	const seen = { label, mode: now.mode, victim: now.victim, preferred: SLUGS[order], begin: performance.now(), slug: null, content: false, error: null, firstMs: null };
	try {
		const { data: stream, response } = await client.messages.create(JSON.parse(labelled(label, { stream: true, script: SCRIPT })),
			{ headers: Object.fromEntries([['x-portkey-config', `pc-drill-${order}`], metadataOf(label)]) }).withResponse();
		seen.slug = response.headers.get('x-weir-provider');
		let stopped = false;
		for await (const event of stream) {
			if (event.type === 'content_block_delta') {
				seen.firstMs ??= performance.now() - seen.begin;
				seen.content = true;
			}
			stopped ||= event.type === 'message_stop';
		}
		if (!stopped)
			seen.error = 'the stream ended too early';
	} catch (error) {
		seen.error = error.message;
	}
	seen.modes = now.past.slice(from);
	return seen;
}

/** All clients, as long as `now.going`. */
const load = (world, key, now, seen) => Promise.all(Array.from({ length: CLIENTS }, async (_, i) => {
	const client = sdk(world, key);
	while (now.going)
		seen.push(await once(client, i % SLUGS.length, now));
}));

/** Waits for as long, and until enough requests of that kind have ended meanwhile. */
async function during(ms, seen, least, kind = () => true) {
	const begin = performance.now(), before = seen.length;
	await until(() => performance.now() - begin >= ms && seen.slice(before).filter(kind).length >= least, `${least} requests`, undefined, 50);
}

/** One fault after the other, at one account after the other, each time until it is back. */
async function drill(world, now, seen) {
	const modes = Object.keys(OUTAGES), ms = SECONDS * 1000 / (modes.length + 1);
	await during(0, seen, 3 * CLIENTS);	/* all connections are made */
	now.turn('none');
	await during(ms, seen, CLIENTS);	/* what the faults are measured against */
	for (const [i, mode] of modes.entries()) {
		const victim = SLUGS[i % SLUGS.length];
		now.turn(mode, victim);
		await world.providers[victim].outage(mode);
		await during(ms, seen, FELT_MIN, (s) => s.mode === mode && s.preferred === victim && (s.slug !== victim || s.error || UNHARMED.includes(mode)));
		await world.providers[victim].restore();
		now.turn('recovery');
		await during(0, seen, 1, (s) => s.mode === 'recovery' && s.slug === victim && !s.error);	/* it is asked again */
	}
}

const median = (list) => (list.length === 0 ? null : [...list].sort((x, y) => x - y)[list.length >> 1]);

/** A line a fault: requests, fell over, client errors, time until content beside that of requests that went straight meanwhile. */
function table(seen, records) {
	const rows = {}, firsts = (list) => median(list.filter((s) => s.firstMs !== null).map((s) => s.firstMs));
	for (const mode of ['none', ...Object.keys(OUTAGES)]) {
		const these = seen.filter((s) => s.mode === mode && (mode !== 'none' || s.modes.length === 1)), fell = these.filter((s) => records.get(s.label).tries.length > 1);
		const added = fell.length > 0 ? Math.round(firsts(fell) - firsts(these.filter((s) => !fell.includes(s)))) : null;
		rows[mode] = { requests: these.length, fell_over: fell.length, client_errors: these.filter((s) => s.error).length, added_ms_p50: added };
	}
	console.log('# fault               requests  fell over  client errors  added ms (p50)');
	for (const [mode, r] of Object.entries(rows))
		console.log(`# ${mode.padEnd(20)}${String(r.requests).padStart(8)}${String(r.fell_over).padStart(11)}${String(r.client_errors).padStart(15)}${String(r.added_ms_p50 ?? '-').padStart(16)}`);
	figures('outage', rows);
	return rows;
}

test(`${CLIENTS} SDK streams for ${SECONDS} s while accounts fail in turn`, async () => {
	const world = await World.open({ workers: 4, providers: SLUGS.map((slug) => ({ slug, tls: true, settings: { usage_limits: [{ type: 'cost', credit_limit: 100000 }] } })), settings: SETTINGS });
	try {
		const key = await world.weir.key('drill', '--budget', '100000', '--rpm', '1000000');
		const now = new Weather(), seen = [];
		const all = load(world, key, now, seen);
		try {
			await drill(world, now, seen);
		} finally {
			now.going = false;
			await all;
		}
		await settled(world);
		const records = await recordsOf(world, seen), bill = await bills(world);
		checkClients(seen, table(seen, records));
		checkTries(seen, records, bill);
		checkBills(records, bill);
		await checkLedger(world, key, [...records.values()]);
	} finally {
		await world.close();
	}
});

/** label -> record, one of each request. */
async function recordsOf(world, seen) {
	const list = await until(async () => {
		const found = await world.weir.logs();
		return found.length >= seen.length && found;
	}, 'every request has its record', undefined, 200);
	const records = new Map(list.map((r) => [r.metadata.label, r]));
	assert.deepEqual([list.length, records.size], [seen.length, seen.length], 'and only one');
	assert.ok(seen.every((s) => records.has(s.label)));
	return records;
}

function checkClients(seen, rows) {
	const harmed = seen.filter((s) => s.error && !s.content && s.mode !== WARMING_UP);
	assert.deepEqual(harmed.slice(0, 5).map((s) => [s.mode, s.victim, s.preferred, s.error]), [], `${harmed.length} clients saw an error although two accounts were well`);
	for (const s of seen.filter((one) => one.error))
		assert.ok(s.modes.some((mode) => AFTER_CONTENT.includes(mode) || mode === WARMING_UP), `${s.modes}: ${s.error}`);
	for (const mode of Object.keys(OUTAGES)) {
		if (AFTER_CONTENT.includes(mode))
			assert.ok(rows[mode].client_errors > 0, `${mode}: it was not felt`);
		else if (!UNHARMED.includes(mode))
			assert.ok(rows[mode].fell_over > 0, `${mode}: nobody fell over`);
	}
	assert.deepEqual([rows.none.fell_over, rows.none.client_errors], [0, 0], 'on good days');
}

/** Whoever was asked stands in the record; who failed with an error, too. */
function checkTries(seen, records, bill) {
	for (const s of seen) {
		const record = records.get(s.label), asked = new Set((bill.get(s.label)?.requests ?? []).map((r) => r.slug));
		const told = new Set(record.tries.length > 0 ? record.tries.map((t) => t.provider) : [record.provider]);
		for (const slug of asked)
			assert.ok(told.has(slug), `${slug} was asked: ${triesOf(record)}`);
		for (const t of record.tries.slice(0, -1))
			assert.ok(t.error.length > 0 || t.status >= 400, JSON.stringify(t));
		if (!s.error) {
			assert.deepEqual([record.status, record.outcome], [200, 'ok'], JSON.stringify(record));
			assert.deepEqual([record.tries.at(-1)?.provider ?? record.provider, record.tries.at(-1)?.status ?? 200], [record.provider, 200]);
		}
	}
}

function checkBills(records, bill) {
	let exact = 0, estimated = 0;
	for (const [label, record] of records) {
		if (record.flags.includes('estimated')) {
			estimated++;
			continue;
		}
		assert.equal(BigInt(record.cost_nusd), bill.get(label)?.cost ?? 0n, `${label}: ${JSON.stringify(record.tries)}, billed ${JSON.stringify(bill.get(label)?.requests.map((r) => [r.slug, r.status, r.cost_nusd]))}`);
		exact++;
	}
	console.log(`# ${exact} requests cost what was billed to the nano-dollar, ${estimated} are estimates`);
	assert.ok(exact > estimated, 'most requests are whole');
}

async function checkLedger(world, key, records) {
	await world.weir.spends(key, records.reduce((n, r) => n + BigInt(r.cost_nusd), 0n));
	const shown = JSON.parse((await world.weir.command('limits', '--config', world.weir.configPath, '--json')).stdout);
	for (const slug of SLUGS) {
		const parts = records.flatMap((r) => (r.tries.length > 0 ? r.tries : [{ provider: r.provider, cost_nusd: r.cost_nusd }]));
		const sum = parts.filter((p) => p.provider === slug).reduce((n, p) => n + p.cost_nusd, 0);
		const [meter] = shown.filter((m) => m.name.startsWith(`provider ${slug}`) && m.unit === 'nusd');
		assert.equal(meter.spent, sum, `the budget of account ${slug} = what was used there`);
		assert.equal(meter.held, 0);
	}
}

test('an account that goes away and comes back in the middle of a burst is lost to nobody', async () => {
	const world = await World.open({ workers: 2, providers: ['a', 'b'].map((slug) => ({ slug })), settings: { health: SETTINGS.health } });
	try {
		const key = await world.weir.key('burst');
		const ask = () => walk(world, { key, config: fallback([target('a'), target('b')]), stream: true, script: { events: 3 } });
		for (let round = 0; round < 5; round++) {
			const first = Array.from({ length: 40 }, ask);
			await world.providers.a.outage('refused');
			const second = Array.from({ length: 40 }, ask);
			await world.providers.a.restore();
			for (const seen of await Promise.all([...first, ...second]))
				assert.equal(seen.answer.status, 200, seen.answer.body.toString());
		}
		assert.equal((await world.ask({ key, headers: [inline(target('a'))] })).status, 200);
	} finally {
		await world.close();
	}
});
