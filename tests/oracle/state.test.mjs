// State of an account: found and left out of random conversations, as of trees.
import test from 'node:test'
import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { Chance, ask, spell } from './ask.mjs'

const BODIES = 10000
const chance = new Chance(9)
const [THINKING, CONTAINER, FILE, THREAD, ENCRYPTED, CREDIT, DIAGNOSTICS] = [1, 2, 4, 8, 16, 32, 64]

// ---- bodies ----

const shuffle = (o) => Object.fromEntries(chance.once(3) ? Object.entries(o).reverse() : Object.entries(o))
const id = () => chance.pick(['x_1', 'x_2', '', null])
const rare = () => chance.once(12)

function block(depth) {
	const kind = chance.dice(12)
	const b = [{ type: 'text', text: 'thinking "file_id":"x"' }, { type: 'thinking', thinking: 'hm', signature: 'S==', ...(rare() ? { file_id: 'f', more: [{ encrypted_index: 'x' }] } : {}) }, { type: 'redacted_thinking', data: 'S==' },
		{ type: 'tool_use', id: 't', name: 'n', input: { file_id: 'f', deep: [{ type: 'thinking', encrypted_content: 'x' }] } },
		{ type: 'tool_result', tool_use_id: 't', content: depth > 0 && chance.once(2) ? chance.many(2, () => block(depth - 1)) : 'ok' }][kind] ??
		(rare() ? chance.pick([{ type: 'compaction', encrypted_content: id() }, { type: 'image', source: { type: 'file', file_id: id() } },
			{ type: 'container_upload', file_id: id() }, { type: 'web_search_tool_result', content: [{ encrypted_content: id() }] },
			{ type: 'text', text: '', citations: [{ encrypted_index: id(), file_id: id() }] }, { type: 'x', content: { encrypted_stdout: id() } },
			7, null, [], 'text']) : { type: 'text', text: 'a' })
	return b !== null && typeof b === 'object' && !Array.isArray(b) ? shuffle(b) : b
}

function message() {
	if (rare())
		return chance.pick([7, null, [], {}, { content: [block(1)] }])
	return shuffle({
		role: chance.pick(['user', 'assistant', 'assistant', 'user', 'system']),
		content: chance.once(4) ? 'words' : chance.many(4, () => block(1)),
		...(rare() ? { other: [{ type: 'thinking', file_id: 'f' }], output_config: { a: { b: { type: 'thinking' } } } } : {}),
	})
}

function body() {
	const b = { model: 'm', messages: chance.many(6, message) }
	if (!chance.once(3))
		b.thinking = chance.pick([{ type: 'enabled', budget_tokens: 1024 }, { type: 'adaptive' }, null])
	if (chance.once(2))
		b.context_management = { edits: chance.many(3, () => ({ type: chance.pick(['clear_thinking_20251015', 'clear_tool_uses_20250919']), keep: 1 })) }
	if (rare())
		b.container = chance.pick([id(), { id: id() }, { skills: [] }])
	if (rare())
		b.thread = chance.pick([{ type: 'create' }, { previous_message_id: id() }])
	if (chance.once(6))
		b.diagnostics = { previous_message_id: id() }
	if (chance.once(6))
		b.fallback_credit_token = chance.pick([id(), { token: id(), mode: 'x' }])
	return shuffle(b)
}

// ---- as trees ----

const isObject = (v) => v !== null && typeof v === 'object' && !Array.isArray(v)
const isId = (v) => typeof v === 'string' && v !== ''
const isThought = (b) => isObject(b) && (b.type === 'thinking' || b.type === 'redacted_thinking')
const blocks = (m) => (isObject(m) && Array.isArray(m.content) ? m.content : [])

function inside(b, kinds) {
	for (const [k, v] of Object.entries(b)) {
		kinds |= k === 'file_id' && isId(v) ? FILE : /^encrypted_(content|index|stdout)$/.test(k) && isId(v) ? ENCRYPTED : 0
		if (v !== null && typeof v === 'object')
			kinds = inside(v, kinds)
	}
	return kinds
}

function find(b) {
	let kinds = 0
	for (const m of b.messages)
		for (const x of blocks(m).filter((v) => v !== null && typeof v === 'object')) {
			const { input, ...rest } = x
			kinds |= isThought(x) && m.role === 'assistant' ? THINKING :
				inside(Array.isArray(x) ? x : rest, 0) | (x.type === 'compaction' ? ENCRYPTED : 0)
		}
	kinds |= isId(b.container) || isId(b.container?.id) ? CONTAINER : 0
	kinds |= isId(b.thread?.previous_message_id) ? THREAD : 0
	kinds |= isId(b.diagnostics?.previous_message_id) ? DIAGNOSTICS : 0
	kinds |= isId(b.fallback_credit_token) || isId(b.fallback_credit_token?.token) ? CREDIT : 0
	const said = b.messages.filter((m) => m !== null && typeof m === 'object')
	const since = said.slice(said.findLastIndex((m) => m.role === 'assistant') + 1)
	const inTurn = since.length === 0 ? said.length > 0 : since.some((m) => blocks(m).some((x) => isObject(x) && x.type === 'tool_result'))
	return { kinds, inTurn }
}

// Without the thinking of the messages before that one; of all of them (Infinity)
// the conversation leaves its account for good, and the other members go too.
function strip(b, { kinds, inTurn }, before) {
	const { diagnostics, fallback_credit_token, ...rest } = b
	const away = before === Infinity
	const out = { ...rest, ...(diagnostics !== undefined && !(away && kinds & DIAGNOSTICS) ? { diagnostics } : {}),
		...(fallback_credit_token !== undefined && !(away && kinds & CREDIT) ? { fallback_credit_token } : {}) }
	if (!(kinds & THINKING))
		return out
	const isMessage = (m) => m !== null && typeof m === 'object'
	const number = (i) => b.messages.slice(0, i).filter(isMessage).length
	out.messages = b.messages.map((m, i) => (blocks(m).length > 0 && m.role === 'assistant' && number(i) < before ? { ...m, content: m.content.filter((x) => !isThought(x)) } : m))
	const last = out.messages.findLast((m) => isMessage(m) && m.role === 'assistant')
	out.messages = out.messages.filter((m, i) => !(blocks(m).length === 0 && blocks(b.messages[i]).length > 0))
	if (inTurn && !blocks(last).some(isThought) && b.thinking?.type === 'enabled') {
		out.thinking = { type: 'disabled' }
		if (b.context_management)
			out.context_management = { edits: b.context_management.edits.filter((e) => e.type !== 'clear_thinking_20251015') }
	}
	return out
}

// ---- both ----

// Asks about random bodies, of which `whereOf` says up to where their thinking goes.
async function compare(whereOf) {
	const asked = Array.from({ length: BODIES }, body)
	const before = asked.map(whereOf)
	const texts = asked.map((b) => spell(b, chance, -99))
	const answers = await ask(texts.map((text, i) => ({ ask: 'state', body: text, ...(before[i] === Infinity ? {} : { before: before[i] }) })))
	const seen = new Map()
	const count = (what, is) => seen.set(what, (seen.get(what) ?? 0) + is)

	asked.forEach((b, i) => {
		const wanted = find(b)
		const stripped = strip(b, wanted, before[i])
		const answer = answers[i]
		if (answer.kinds !== wanted.kinds || answer.in_turn !== wanted.inTurn || answer.messages !== b.messages.filter((m) => m !== null && typeof m === 'object').length ||
			!isDeepStrictEqual(JSON.parse(answer.body), JSON.parse(JSON.stringify(stripped))))
			assert.fail(JSON.stringify({ text: texts[i], before: before[i], answer, wanted, stripped }))
		if (isDeepStrictEqual(b, stripped))
			assert.equal(answer.body, texts[i])
		const thoughts = (of) => of.messages.flatMap(blocks).filter(isThought).length
		for (let k = 1; k < 128; k *= 2)
			count(k, (wanted.kinds & k) !== 0)
		count('disabled', stripped.thinking?.type === 'disabled')
		count('gone', stripped.messages.length < b.messages.length)
		count('some left', thoughts(stripped) > 0 && thoughts(stripped) < thoughts(b))
	})
	return seen
}

test('state is found and left out as of a tree', async () => {
	for (const [what, n] of await compare(() => Infinity))
		if (what !== 'some left')	// but for those of no assistant
			assert.ok(n > BODIES / 100, `${what} is seen ${n} times`)
})

test('up to a message its thinking is left out, and nothing else', async () => {
	for (const [what, n] of await compare((b) => chance.dice(b.messages.length + 2)))
		assert.ok(n > BODIES / 100, `${what} is seen ${n} times`)
})
