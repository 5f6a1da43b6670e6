// Queries: each random one against an evaluator that is JavaScript.
import test from 'node:test'
import assert from 'node:assert/strict'
import { Chance, ask, spell } from './ask.mjs'

const QUERIES = 30000
const chance = new Chance(5)

// ---- what is asked ----

const scalars = ['', '/v1/messages', 'a', 'b', 'opus', 'claude-opus-5-5', '1', '7 apples', '0x10', ' 12', '1e3', 'true', 'null', 'undefined', 'NaN', '\u00e9"\\', 0, 1, 7, -1,
	1.5, 1000, 1e21, 0.1, 1e-7, true, false, null]
const keys = ['metadata.team', 'metadata.env', 'metadata.a.b', 'params.model', 'params.max_tokens', 'params.temperature', 'params.stream', 'params.thinking',
	'params.thinking.type', 'params.messages', 'params.messages.0.role', 'params.messages.1.content.0.type', 'params.messages.01.role',
	'params.stop_sequences', 'params.stop_sequences.0', 'params.none', 'params.none.more', 'params.stop_sequences.length', 'params.toString', 'url.pathname']
const patterns = ['opus', '^claude-', '5$', '^undefined$', '^a|b$', '[0-9]+', '^(true|false)$', 'object', ',', '^$', '.', '^1e', '\\.', '\\s', '^null$', 'count', '(a)?,?\\1']

const scalar = () => chance.pick(scalars)

function operators() {
	const picked = {}
	for (let n = 1 + (chance.once(3) ? chance.dice(3) : 0); n > 0; n--) {
		const op = chance.pick(['$eq', '$ne', '$gt', '$gte', '$lt', '$lte', '$in', '$nin', '$regex'])
		picked[op] = op === '$in' || op === '$nin' ? chance.many(5, scalar) : op === '$regex' ? chance.pick(patterns) : scalar()
	}
	return picked
}

function query(depth) {
	const q = {}
	for (let n = chance.dice(10) ? 1 + (chance.once(3) ? chance.dice(3) : 0) : 0; n > 0; n--) {
		if (depth > 0 && chance.once(3))
			q[chance.pick(['$and', '$or'])] = [query(depth - 1), ...chance.many(2, () => query(depth - 1))]
		else
			q[chance.pick(keys)] = chance.once(3) ? scalar() : operators()
	}
	return q
}

function context() {
	const maybe = (o, k, make) => {
		if (!chance.once(4))
			o[k] = make()
	}
	const metadata = {}, params = {}
	for (const k of ['team', 'env', 'a.b'])
		maybe(metadata, k, () => String(scalar()))
	for (const k of ['model', 'max_tokens', 'temperature', 'stream'])
		maybe(params, k, scalar)
	maybe(params, 'thinking', () => (chance.once(3) ? scalar() : { type: scalar(), budget_tokens: scalar() }))
	maybe(params, 'stop_sequences', () => chance.many(3, () => (chance.once(5) ? [scalar(), [scalar()]] : scalar())))
	maybe(params, 'messages', () => chance.many(3, () => ({ role: chance.pick(['user', 'a']), content: chance.once(2) ? scalar() : [{ type: scalar() }] })))
	return { metadata, params: chance.once(10) ? undefined : params, pathname: chance.pick(['/v1/messages', '/v1/messages/count_tokens']) }
}

// ---- what Portkey does ----

const own = (o, k) => (o !== null && typeof o === 'object' && Object.hasOwn(o, k) && !(Array.isArray(o) && k === 'length') ? o[k] : undefined)

function valueOf(key, ctx) {
	if (key === 'url.pathname')
		return ctx.pathname
	const [root, ...path] = key.split('.')
	return root === 'metadata' ? own(ctx.metadata, path.join('.')) : path.reduce(own, ctx.params)
}

function compare(value, ops) {
	for (const [op, q] of Object.entries(ops)) {
		if (op === '$regex')
			return new RegExp(q).test(value)
		const holds = {
			$eq: () => value === q, $ne: () => value !== q, $in: () => q.includes(value), $nin: () => !q.includes(value),
			$gt: () => parseFloat(value) > parseFloat(q), $gte: () => parseFloat(value) >= parseFloat(q),
			$lt: () => parseFloat(value) < parseFloat(q), $lte: () => parseFloat(value) <= parseFloat(q),
		}[op]()
		if (!holds)
			return false
	}
	return true
}

const holds = (q, ctx) => Object.entries(q).every(([k, v]) => (k === '$and' ? v.every((x) => holds(x, ctx)) :
	k === '$or' ? v.some((x) => holds(x, ctx)) : v !== null && typeof v === 'object' ? compare(valueOf(k, ctx), v) : valueOf(k, ctx) === v))

const comparisons = (q) => Object.entries(q).reduce((n, [k, v]) => n + (k === '$and' || k === '$or' ? v.reduce((m, x) => m + comparisons(x), 0) :
	v !== null && typeof v === 'object' ? Object.keys(v).length : 1), 0)

test('queries hold as Portkey\'s do', async () => {
	const asked = Array.from({ length: QUERIES }, () => ({ q: query(3), ctx: context() }))
	const answers = await ask(asked.map(({ q, ctx }) => `{"ask":"condition","query":${spell(q, chance, -9).replaceAll('\n', ' ')},"metadata":${JSON.stringify(
		JSON.stringify(ctx.metadata))},${ctx.params ? `"body":${JSON.stringify(spell(ctx.params, chance))},` : ''}"pathname":${JSON.stringify(ctx.pathname)}}`))
	let yes = 0

	asked.forEach(({ q, ctx }, i) => {
		const { holds: held, gave_up, lines } = answers[i]
		const wanted = holds(q, ctx)
		if (held !== wanted || gave_up || lines.split('\n').filter((l) => /: (yes|no|not)/.test(l)).length !== comparisons(q))
			assert.fail(JSON.stringify({ q, ctx, wanted, answer: answers[i] }, null, 1))
		yes += wanted
	})
	assert.ok(yes > QUERIES / 5 && yes < QUERIES * 4 / 5, `${yes} hold`)
})
