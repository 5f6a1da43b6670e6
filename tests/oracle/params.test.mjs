// Defaults, overrides and drops: each random edit of a text against the same edit of a tree.
import test from 'node:test'
import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { Chance, ask, spell } from './ask.mjs'

const EDITS = 20000
const chance = new Chance(3)
const names = ['a', 'b', 'c', 'x-y', '\u00e9', '0', '*', '$ref', 'q"']

function value(depth) {
	const kind = chance.dice(depth > 0 ? 6 : 2)
	return kind === 0 ? chance.pick([1, -0.5, 1e21, true, null, 'text', '', 'a,b}]"']) : kind === 1 ? chance.dice(100) :
		kind < 4 ? chance.many(4, () => value(depth - 1)) : object(depth - 1)
}

function object(depth) {
	return Object.fromEntries(chance.many(5, () => [chance.pick(names), value(depth)]))
}

// As parts: a name, a number, or null for [*].
function path() {
	const parts = [chance.pick(names)]
	while (!chance.once(3))
		parts.push(chance.once(2) ? chance.pick(names) : chance.once(2) ? null : chance.dice(4))
	return parts.slice(0, 6)
}

const written = (parts) => parts.map((p, i) => (typeof p === 'string' ? (i ? '.' : '') + p : `[${p ?? '*'}]`)).join('')

// All places are found before anything is removed.
function drop(tree, paths) {
	const gone = new Map()	// container -> keys
	for (const parts of paths) {
		let at = [tree]
		for (const p of parts.slice(0, -1))
			at = at.flatMap((v) => under(v, p).map((k) => v[k]))
		for (const v of at)
			for (const k of under(v, parts.at(-1)))
				gone.set(v, (gone.get(v) ?? new Set()).add(String(k)))
	}
	const copy = (v) => (v === null || typeof v !== 'object' ? v : Array.isArray(v) ? v.filter((_, i) => !gone.get(v)?.has(String(i))).map(copy) :
		Object.fromEntries(Object.entries(v).filter(([k]) => !gone.get(v)?.has(k)).map(([k, x]) => [k, copy(x)])))
	return copy(tree)
}

function under(v, part) {
	if (v === null || typeof v !== 'object')
		return []
	if (typeof part === 'string')
		return !Array.isArray(v) && Object.hasOwn(v, part) ? [part] : []
	return Array.isArray(v) ? v.map((_, i) => i).filter((i) => part === null || part === i) : []
}

test('texts are edited as trees are', async () => {
	const asked = Array.from({ length: EDITS }, () => ({ body: object(4), defaults: object(2), overrides: object(2), paths: chance.many(5, path) }))
	const answers = await ask(asked.map((e) => {
		e.text = spell(e.body, chance)
		return { ask: 'params', body: e.text, defaults: e.defaults, overrides: e.overrides, drops: e.paths.map(written) }
	}))
	let changed = 0

	asked.forEach((e, i) => {
		const wanted = drop({ ...e.body, ...Object.fromEntries(Object.entries(e.defaults).filter(([k]) => !Object.hasOwn(e.body, k))), ...e.overrides }, e.paths)
		if (!answers[i].body || !isDeepStrictEqual(JSON.parse(answers[i].body), wanted))
			assert.fail(JSON.stringify({ ...e, answer: answers[i], wanted }))
		changed += answers[i].body !== e.text
		// An edit that says nothing is none, to the byte.
		if (!Object.keys(e.overrides).length && Object.keys(e.defaults).every((k) => Object.hasOwn(e.body, k)) && !e.paths.length)
			assert.equal(answers[i].body, e.text)
	})
	assert.ok(changed > EDITS / 2, `${changed} changed`)
})

test('only what a drop means is missing', async () => {
	const asked = Array.from({ length: EDITS / 4 }, () => ({ text: spell(object(4), chance), paths: chance.many(3, path) }))
	const answers = await ask(asked.map((e) => ({ ask: 'params', body: e.text, defaults: {}, overrides: {}, drops: e.paths.map(written) })))

	asked.forEach((e, i) => {
		// What is left stands in the text in the same order.
		let at = 0
		for (const c of answers[i].body) {
			at = e.text.indexOf(c, at) + 1
			if (at === 0)
				assert.fail(JSON.stringify({ ...e, answer: answers[i] }))
		}
		if (JSON.stringify(JSON.parse(e.text)) === JSON.stringify(JSON.parse(answers[i].body)) && !/"first"/.test(e.text))
			assert.equal(answers[i].body, e.text)
	})
})
