// The same target again: how often, for what, after which pause; and when a
// request gives up. Pauses are lower bounds by the provider's clock.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';

import { parseEvents } from './client.mjs';
import { World, envelope, refused, timely, until } from './harness.mjs';
import { HARDY, fallback, heal, inline, isAnswerOf, newLabel, outages, recordOf, routeOf, target, triesOf, walk } from './routes.mjs';

const ROUNDING_MS = 5;	/* two clocks, each in whole milliseconds */
let world, key;

before(async () => {
	world = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, default_provider: 'a' } });
	key = await world.weir.key('retries');
});
after(() => world.close());

const retry = (attempts, more = {}) => target('a', { retry: { attempts, ...more } });
/** A script that fails with these errors, one a turn, and then is well. */
const failing = (...errors) => ({ in_turn: [...errors.map((e) => (typeof e === 'string' ? { error: e } : e)), {}] });
const limited = (...headers) => ({ status: 429, error_type: 'rate_limit_error', headers });
/** Milliseconds between the ends and beginnings of the requests that an account got. */
const pauses = (requests) => requests.slice(1).map((r, i) => r.began_ms - requests[i].ended_ms);

function waited(requests, ...least) {
	const got = pauses(requests);
	assert.equal(got.length, least.length, `${got}`);
	least.forEach((ms, i) => assert.ok(got[i] >= ms - ROUNDING_MS, `pause ${i} of ${got[i]} ms, at least ${ms}`));
}

describe('how often', { concurrency: true }, () => {
	test('until it is well: one second, two seconds; the count says so', async () => {
		const seen = await walk(world, { key, config: retry(3), script: failing('overloaded', 'internal') });
		isAnswerOf(seen, 'a');
		assert.deepEqual([seen.answer.status, seen.route.retries, seen.route.attempts, seen.route.index], [200, 2, 3, 'config']);
		waited(seen.at.a, 1000, 2000);
		const record = await recordOf(world, seen.answer);
		assert.deepEqual([record.retries, record.attempts, triesOf(record)], [2, 3, 'a 529, a 500, a 200']);
	});

	test('no more than it says: the last answer stands, the count is -1', async () => {
		for (const stream of [false, true]) {
			const seen = await walk(world, { key, config: retry(1), stream, script: { error: 'overloaded' } });
			assert.deepEqual([seen.answer.status, seen.route.retries, seen.hits.a], [529, -1, 2]);
			isAnswerOf(seen, 'a');
			assert.equal((await recordOf(world, seen.answer)).retries, -1);
		}
	});

	test('not at all without a word of it', async () => {
		for (const config of [target('a'), retry(0)]) {
			const seen = await walk(world, { key, config, script: { error: 'overloaded' } });
			assert.deepEqual([seen.answer.status, seen.hits.a], [529, 1]);
		}
	});

	test('at most five, and the number is needed', async () => {
		for (const [config, words] of [[retry(6), /retry\.attempts/], [target('a', { retry: { on_status_codes: [500] } }), /retry.*attempts/]]) {
			const seen = await walk(world, { key, config });
			assert.match(refused(seen.answer, 400, 'invalid_request_error'), words);
			assert.deepEqual(seen.hits, {});
		}
	});

	test('at each target of a fallback; the count is of the last one', async () => {
		const config = { ...fallback(['a', 'b']), retry: { attempts: 1 } };
		for (const [b, count, hits] of [[{}, 0, { a: 2, b: 1 }], [failing('internal'), 1, { a: 2, b: 2 }], [{ error: 'internal' }, -1, { a: 2, b: 2 }]]) {
			const seen = await walk(world, { key, config, script: { accounts: { a: { error: 'overloaded' }, b } } });
			isAnswerOf(seen, 'b');
			assert.deepEqual([seen.hits, seen.route.retries, seen.route.attempts, seen.route.index], [hits, count, hits.a + hits.b, 'config.targets[1]']);
			waited(seen.at.a, 1000);
		}
	});

	test('a target\'s own goes before what stands above it', async () => {
		const config = fallback([target('a', { retry: { attempts: 0 } }), 'b'], {}, { retry: { attempts: 1, on_status_codes: [500] } });
		const seen = await walk(world, { key, config, script: { error: 'internal' } });
		assert.deepEqual([seen.hits, seen.route.retries], [{ a: 1, b: 2 }, -1]);
	});
});

describe('for what', { concurrency: true }, () => {
	/* What goes wrong once, the list, whether it is tried again. */
	const ROWS = [
		...['internal', 'bad_gateway', 'unavailable', 'timeout', 'overloaded'].map((error) => [{ error }, undefined, true]), [limited(), undefined, true],
		...['prompt_too_long', 'authentication', 'billing', 'permission', 'model_not_found', 'conflict', 'unprocessable'].map((error) => [{ error }, undefined, false]),
		[{ error: 'conflict' }, [409], true], [{ error: 'overloaded' }, [409], false], [{ error: 'internal' }, [], false],
	];
	for (const [error, codes, again] of ROWS)
		test(`${JSON.stringify(error)}, ${codes ? `listed are ${JSON.stringify(codes)}` : 'no list'}: ${again ? 'again' : 'final'}`, async () => {
			const seen = await walk(world, { key, config: retry(1, codes ? { on_status_codes: codes } : {}), script: failing(error) });
			isAnswerOf(seen, 'a');
			assert.deepEqual([seen.hits.a, seen.answer.status === 200], [again ? 2 : 1, again]);
			if (again)
				assert.equal(seen.route.retries, 1);
		});

	/* A kept connection that breaks is replaced once without being asked: two
	 * failures in a row are one attempt, or two. */
	for (const kind of ['reset_before_head', 'close_before_head', 'reset_in_head', 'garbage'])
		test(`${kind}: again, whatever is listed`, async () => {
			const script = failing({ fault: { kind } }, { fault: { kind } });
			for (const codes of [{}, { on_status_codes: [409] }])
				isAnswerOf(await walk(world, { key, config: retry(2, codes), script }), 'a');
			const lost = await walk(world, { key, config: target('a'), script: { fault: { kind } } });
			assert.ok(lost.answer.status >= 500, `${lost.answer.status}`);
			envelope(lost.answer);
		});

	test('an account that does not listen is tried again, and is found when it listens', async () => {
		const other = await World.open({ providers: [{ slug: 'a' }], settings: HARDY });
		try {
			const own = await other.weir.key('away');
			await other.provider.outage('refused');
			const lost = await other.ask({ key: own, headers: [inline(target('a'))] });
			assert.ok(lost.status >= 500, `${lost.status}`);
			envelope(lost);
			const answer = other.ask({ key: own, headers: [inline(retry(5))] });
			await until(async () => (await other.weir.metrics()).sum('weir_upstream_errors_total') >= 2, 'it has failed');
			await other.provider.restore();
			assert.equal((await answer).status, 200);
			assert.ok(routeOf(await answer).retries >= 1);
		} finally {
			await other.close();
		}
	});
});

describe('as long as the provider says', { concurrency: true }, () => {
	const patient = (attempts, name = 'use_retry_after_header') => retry(attempts, { [name]: true });

	for (const name of ['use_retry_after_header', 'use_retry_after_headers', 'useRetryAfterHeader'])
		test(`${name}: a short wait instead of a second`, () => timely(async () => {
			const seen = await walk(world, { key, config: patient(1, name), script: failing(limited(['retry-after-ms', '300'])) });
			isAnswerOf(seen, 'a');
			waited(seen.at.a, 300);
			return pauses(seen.at.a)[0] < 950;	/* which is less than the pause of its own */
		}, 'exactly that long'));

	test('a long wait instead of a second', async () => {
		const seen = await walk(world, { key, config: patient(1), script: failing(limited(['retry-after', '2'])) });
		assert.deepEqual([seen.answer.status, seen.route.retries], [200, 1]);
		waited(seen.at.a, 2000);
	});

	test('milliseconds go before seconds', async () => {
		const seen = await walk(world, { key, config: patient(1), script: failing(limited(['retry-after', '50'], ['retry-after-ms', '1500'])) });
		assert.equal(seen.answer.status, 200);
		waited(seen.at.a, 1500);
	});

	test('a minute or more is not waited for: the 429 comes at once', async () => {
		for (const headers of [[['retry-after', '60']], [['retry-after', '3600']], [['retry-after-ms', '60000']]]) {
			const seen = await walk(world, { key, config: patient(3), script: failing(limited(...headers)) });
			isAnswerOf(seen, 'a');
			assert.deepEqual([seen.answer.status, seen.hits.a, seen.route.retries], [429, 1, -1], JSON.stringify(headers));
			assert.equal(seen.answer.headers.get('retry-after'), headers[0][0] === 'retry-after' ? headers[0][1] : undefined, 'the client is told');
		}
	});

	test('nor more than a minute in all', async () => {
		const seen = await walk(world, { key, config: patient(3), script: failing(limited(['retry-after-ms', '1000']), limited(['retry-after-ms', '59500'])) });
		assert.deepEqual([seen.answer.status, seen.hits.a, seen.route.retries], [429, 2, -1]);
	});

	test('without a word of it, and for other statuses, the pause is its own', async () => {
		for (const [config, error] of [[retry(1), limited(['retry-after', '50'])], [patient(1), { status: 503, headers: [['retry-after', '50']] }], [patient(1), limited()]]) {
			const seen = await walk(world, { key, config, script: failing(error), deadlineMs: 40000 });
			assert.equal(seen.answer.status, 200);
			waited(seen.at.a, 1000);
		}
	});
});

describe('how long', { concurrency: true }, () => {
	const silent = { fault: { kind: 'stall_before_head' } };
	const hasty = (ms, more = {}) => target('a', { request_timeout: ms, ...more });

	test('request_timeout: 408 in the words for it, not tried again', async () => {
		const seen = await walk(world, { key, config: hasty(350, { retry: { attempts: 2 } }), script: silent });
		assert.equal(seen.answer.status, 408);
		const { error } = JSON.parse(seen.answer.body);
		assert.deepEqual([error.type, error.message], ['timeout_error', 'Request exceeded the timeout sent in the request: 350ms']);
		assert.equal(JSON.parse(seen.answer.body).type, 'error');
		assert.equal(seen.hits.a, 1);
		assert.ok(seen.at.a[0].ended_ms - seen.at.a[0].began_ms >= 350 - ROUNDING_MS);
	});

	test('unless 408 is listed, and the time is each attempt\'s', async () => {
		const seen = await walk(world, { key, config: hasty(350, { retry: { attempts: 1, on_status_codes: [408] } }), script: silent });
		assert.deepEqual([seen.answer.status, seen.hits.a, seen.route.retries], [408, 2, -1]);
		waited(seen.at.a, 1000);
		const fine = await walk(world, { key, config: hasty(5000, { retry: { attempts: 1, on_status_codes: [408] } }), script: { in_turn: [silent, {}] } });
		assert.deepEqual([fine.answer.status, fine.hits.a, fine.route.retries], [200, 2, 1]);
	});

	test('a target that is silent is left for the next', async () => {
		for (const stream of [false, true]) {
			const seen = await walk(world, { key, config: fallback([hasty(350), 'b']), stream, script: { accounts: { a: silent } } });
			isAnswerOf(seen, 'b');
			assert.deepEqual([seen.answer.status, seen.route.index], [200, 'config.targets[1]']);
			const record = await recordOf(world, seen.answer);
			assert.equal(record.tries.length, 2);
			assert.equal(record.tries[0].provider, 'a');
			assert.ok(record.tries[0].error.length > 0 && record.tries[0].ms >= 350 - ROUNDING_MS, JSON.stringify(record.tries[0]));
		}
	});

	test('the header goes before the config', async () => {
		const seen = await walk(world, { key, config: hasty(60000), headers: [['x-portkey-request-timeout', '350']], script: silent });
		assert.match(JSON.parse(seen.answer.body).error.message, /350ms/);
	});

	test('a time in the header that is none is refused', async () => {
		for (const time of ['0', '-1', '1.5', 'soon', '86400001', '99999999999999999999'])
			assert.match(refused((await walk(world, { key, headers: [['x-portkey-request-timeout', time]] })).answer, 400, 'invalid_request_error'), /^x-portkey-request-timeout: must be a whole number/, time);
	});

	test('connecting is in it, and in the time of all attempts', async () => {
		const sockets = [], mute = net.createServer((socket) => sockets.push(socket.on('error', () => {})));
		await new Promise((resolve) => mute.listen(0, '127.0.0.1', resolve));
		const deaf = (more) => target('a', { custom_host: `https://127.0.0.1:${mute.address().port}`, ...more });
		const impatient = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }],
			settings: { ...HARDY, routing: { total_ms: 1500 }, limits: { connect_ms: 60000 }, custom_hosts: { trusted: ['127.0.0.1'] } } });
		try {
			const own = await impatient.weir.key('impatient');
			const alone = await walk(impatient, { key: own, config: deaf({ request_timeout: 350 }) });
			assert.equal(alone.answer.status, 408, alone.answer.body.toString());
			assert.match(JSON.parse(alone.answer.body).error.message, /350ms/);
			const next = await walk(impatient, { key: own, config: fallback([deaf({ request_timeout: 350 }), 'b']) });
			assert.deepEqual([next.answer.status, next.hits], [200, { b: 1 }]);
			const begin = Date.now(), all = await walk(impatient, { key: own, config: deaf() });
			assert.equal(all.answer.status, 504, all.answer.body.toString());
			assert.ok(Date.now() - begin < 30000);
			for (const { answer } of [alone, next, all])
				assert.equal((await recordOf(impatient, answer)).attempts, answer === next.answer ? 1 : 0, 'it never left');
		} finally {
			await impatient.close();
			sockets.forEach((socket) => socket.destroy());
			await new Promise((resolve) => mute.close(resolve));
		}
	});

	test('it ends with the first header: a stream that has begun is not cut', async () => {
		const seen = await walk(world, { key, config: hasty(2000), stream: true, script: { events: 6, pause: { after_events: 3, ms: 3000 } } });
		isAnswerOf(seen, 'a');
		assert.equal(parseEvents(seen.answer.body).at(-1).event, 'message_stop');
	});
});

describe('in all', () => {
	let brief, own;
	before(async () => {
		brief = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, routing: { total_ms: 2500 } } });
		own = await brief.weir.key('brief');
	});
	after(() => brief.close());
	const ask = (config, script, stream = false) => walk(brief, { key: own, config, script, stream });

	test('no attempt begins after routing.total_ms: the last answer stands', async () => {
		const begin = Date.now(), seen = await ask(retry(5), { error: 'overloaded' });
		assert.ok(Date.now() - begin < 20000, 'five pauses are half a minute');
		isAnswerOf(seen, 'a');
		assert.deepEqual([seen.answer.status, seen.hits.a, seen.route.retries], [529, 2, -1], 'the second pause of two seconds does not fit');
	});

	test('a provider that is silent that long is left, and there is no further one', async () => {
		const begin = Date.now(), seen = await ask(fallback(['a', 'b']), { accounts: { a: { fault: { kind: 'stall_before_head' } } } });
		assert.ok(Date.now() - begin >= 2500 - ROUNDING_MS && Date.now() - begin < 30000);
		assert.ok(seen.answer.status >= 400, `${seen.answer.status}`);
		envelope(seen.answer);
		assert.deepEqual(seen.hits, { a: 1 });
	});

	test('waiting for what another request fetches is in it, and nothing is sent after it', async () => {
		const config = target('a', { cache: { mode: 'simple' } }), script = { hold: { before_head: true, gate: 'total' } }, label = newLabel();
		await until(async () => (await ask(config)).route.cache === 'MISS', 'there is a cache');
		const first = walk(brief, { key: own, config, script, label });
		await brief.providers.a.held(1);
		const begin = Date.now(), second = await walk(brief, { key: own, config, script, label });
		assert.equal(second.answer.status, 504);
		assert.match(refused(second.answer, 504, 'timeout_error'), /routing\.total_ms/);
		assert.ok(Date.now() - begin < 30000, 'the cache\'s own time is a minute');
		await brief.providers.a.release('total');
		assert.ok([200, 504].includes((await first).answer.status));
		assert.equal((await brief.providers.a.labelled(label)).length, 1);
	});

	test('an answer that has begun may take longer', async () => {
		const seen = await ask(fallback(['a', 'b']), { events: 4, pause: { after_events: 4, ms: 4000 } }, true);
		isAnswerOf(seen, 'a');
		assert.equal(parseEvents(seen.answer.body).at(-1).event, 'message_stop');
	});
});

test('the record\'s own error is that of the answer, not of an attempt before it', async () => {
	for (const [config, script] of [[fallback(['a', 'b']), { accounts: { a: { error: 'overloaded' } } }], [fallback(['a', 'b']), { accounts: { a: { error_after: 0 } } }], [retry(1), failing('overloaded')]]) {
		const seen = await walk(world, { key, config, script, stream: true }), record = await recordOf(world, seen.answer);
		assert.equal(seen.answer.status, 200, seen.answer.body.toString());
		assert.deepEqual([record.outcome, record.error_type, record.error_message, record.tries.length], ['ok', '', '', 2]);
	}
	const failed = await recordOf(world, (await walk(world, { key, config: fallback(['a', 'b']), script: { accounts: { a: { error: 'overloaded' }, b: { error: 'internal' } } } })).answer);
	assert.deepEqual([failed.error_type, failed.tries.map((t) => t.error)], ['api_error', ['overloaded_error', 'api_error']]);
});

test('what was paid for in attempts that failed is in the record', async () => {
	await outages(world, {});
	await heal(world, key);
	const usage = { input_tokens: 1000, output_tokens: 100 };
	const seen = await walk(world, { key, config: fallback(['a', 'b']), stream: true, script: { usage, accounts: { a: { error_after: 1 } } } });
	isAnswerOf(seen, 'b');
	const record = await recordOf(world, seen.answer);
	assert.deepEqual(record.tries.map((t) => t.cost_nusd), [seen.at.a, seen.at.b].map(([r]) => Number(r.cost_nusd)));
	assert.equal(record.cost_nusd, 1000 * 2000 + 10000 + 1000 * 2000 + 100 * 10000);
});
