// The bound of a prompt is a real one: what is held is never less than what the
// request could cost, whatever the language. Counted by the tokenizer that
// Anthropic published; newer ones differ, by less than the bound's margin (a
// token has a byte at least, and these have two to five).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { countTokens } from '@anthropic-ai/tokenizer';

import { World, figures } from './harness.mjs';

const ROW = { input: 2_000_000n, write_1h: 4_000_000n, output: 10_000_000n };	/* claude-sonnet-5-5, pico-dollars */
const MAX_TOKENS = 100n;
let world, key;

before(async () => {
	world = await World.open();
	key = await world.weir.key('corpus', '--budget', '100000', '--mode', 'strict');
});
after(() => world.close());

const source = readFileSync(new URL('../../shm/ledger.c', import.meta.url), 'utf8');
const page = readFileSync(new URL('../../docs/ledger.md', import.meta.url), 'utf8');

/** As many tools as Claude Code brings, with schemas as large as its own. */
function tools() {
	return Array.from({ length: 24 }, (_, i) => ({
		name: `tool_${i}_with_a_name`,
		description: `Reads, searches or changes files of the project. Use it when the user asks for ${i}. ${page.slice(i * 120, i * 120 + 1500)}`,
		input_schema: { type: 'object', additionalProperties: false, required: ['path'],
			properties: Object.fromEntries(Array.from({ length: 8 }, (_, j) => [`argument_${j}`, { type: j % 2 ? 'string' : 'number',
				description: 'An absolute path, or a pattern with **, never a relative one.', enum: j % 3 ? undefined : ['a', 'b', 'c'] }])) },
	}));
}

const texts = {
	'English prose': page,
	'C code': source,
	JSON: JSON.stringify(JSON.parse(readFileSync(new URL('../../deploy/prices.json', import.meta.url), 'utf8'))).slice(0, 20000),
	German: 'Das Wehr misst den Fluss: Überziehungsschutz für Haushaltsobergrenzen, Straßenbahnhaltestellenhäuschen, Größenverhältnisse. '.repeat(40),
	Chinese: '堰是一种低坝，用来测量河流的水量。预算不会超支，任何记录都不会丢失。'.repeat(60),
	Japanese: '堰は川の水量を測る低いダムです。予算を超えることはありません。'.repeat(60),
	Arabic: 'السد سد منخفض يقيس تدفق النهر ولا يمكن تجاوز الميزانية أبدا. '.repeat(50),
	emoji: '👩‍👩‍👧‍👦🏳️‍🌈🧑🏽‍💻🇩🇪🀄︎🜚𓀀'.repeat(80),
	'rare characters': Array.from({ length: 3000 }, (_, i) => String.fromCodePoint(0x1400 + i)).join(''),
	'one letter each': 'a b c d e f g h i j k l m n o p q r s t u v w x y z '.repeat(100),
	'digits and signs': '3.14159265358979 ∑∫√≠≤ {[()]} <<>> \\\\ \t\t\n\n\n ~~~ ___ '.repeat(80),
	controls: '\u0001\u0002\u001f\u007f\u0000'.repeat(500),
};

const bodies = [
	...Object.entries(texts).map(([name, text]) => ({ name, messages: [{ role: 'user', content: text }], text })),
	{ name: 'a tool list like Claude Code\'s', tools: tools(), messages: [{ role: 'user', content: 'go' }], text: JSON.stringify(tools()) + 'go' },
	{ name: 'many short turns', text: 'ok'.repeat(400),
		messages: Array.from({ length: 400 }, (_, i) => ({ role: i % 2 ? 'assistant' : 'user', content: 'ok' })) },
	{ name: 'cache markers', cached: true, text: page.slice(0, 8000) + 'go',
		system: [{ type: 'text', text: page.slice(0, 8000), cache_control: { type: 'ephemeral', ttl: '1h' } }], messages: [{ role: 'user', content: 'go' }] },
];
const FRAME_TOKENS = 8n;	/* a turn's own, generously */

for (const { name, text, cached, ...rest } of bodies)
	test(`what is held covers what is counted: ${name}`, async () => {
		const answer = await world.ask({ key, body: JSON.stringify({ model: 'claude-sonnet-5-5', max_tokens: Number(MAX_TOKENS), ...rest }) });
		assert.equal(answer.status, 200, answer.body.toString());
		const record = await world.weir.record(answer.headers.get('x-weir-request-id'));
		const counted = BigInt(countTokens(text)) + FRAME_TOKENS * BigInt(rest.messages.length);
		const least = (counted * (cached ? ROW.write_1h : ROW.input) + MAX_TOKENS * ROW.output) / 1000n;
		figures('bound', { text: name, counted_tokens: Number(counted), held_to_cost: Number(record.held_nusd) / Number(least) });
		assert.ok(BigInt(record.held_nusd) >= least, `held ${record.held_nusd}, could cost ${least}`);
	});
