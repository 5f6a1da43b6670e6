// A budget holds for all attempts of a request together: what one has cost is not
// there for the next, at the same target neither.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World } from './harness.mjs';
import { HARDY, fallback, target, walk } from './routes.mjs';

const INPUT = 20000, PRICE = 2000n;	/* nano-dollars a token; nobody is asked how many a prompt really has */
let world;
before(async () => { world = await World.open({ providers: [{ slug: 'a' }, { slug: 'b' }], settings: { ...HARDY, budgets: { count_ms: 0 } } }); });
after(() => world.close());

/* The dearest that a request of that many bytes can be: each byte a token. */
const long = { system: 'x'.repeat(INPUT) };
const dear = { usage: { input_tokens: INPUT, output_tokens: 1 } };
const again = (attempts) => target('a', { retry: { attempts } });

for (const mode of ['clamp', 'strict'])
	for (const [what, config] of [['the same target', again(3)], ['another one', fallback([again(2), 'b'])]])
		test(`${mode}: attempts at ${what} end with the budget`, async () => {
			const cents = 10, limit = BigInt(cents) * 10_000_000n;
			const key = await world.weir.key(`k-${mode}-${what.replaceAll(' ', '-')}`, '--budget', String(cents / 100), '--mode', mode);
			const seen = await walk(world, { key, config, stream: true, body: { ...long, max_tokens: 10 }, script: { ...dear, error_after: 1 } });
			const cost = Object.values(seen.at).flat().reduce((n, r) => n + BigInt(r.cost_nusd), 0n);
			assert.ok(cost >= BigInt(INPUT) * PRICE, 'an attempt costs something');
			assert.ok(cost <= limit, `${cost} of ${limit} were spent by ${JSON.stringify(seen.hits)}`);
			await world.weir.spends(key, cost);
		});
