// The program `oracle`, and chance that is the same in every run.
import { spawn } from 'node:child_process'
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'

const program = process.env.ORACLE ?? fileURLToPath(new URL('../../build/tests/oracle/oracle', import.meta.url))

// Answers in the order of the questions: objects, or JSON texts whose spelling matters.
export async function ask(questions) {
	const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] })
	const chunks = []
	const ended = new Promise((resolve, reject) => {
		child.on('error', reject)
		child.on('close', resolve)
	})
	child.stdout.on('data', (chunk) => chunks.push(chunk))
	child.stdin.on('error', () => {})	// it has died: its exit status says so
	child.stdin.end(questions.map((q) => (typeof q === 'string' ? q : JSON.stringify(q)) + '\n').join(''))
	assert.equal(await ended, 0, 'the oracle ends well')
	const answers = Buffer.concat(chunks).toString().split('\n').slice(0, -1).map((line) => JSON.parse(line))
	assert.equal(answers.length, questions.length)
	return answers
}

export class Chance {
	constructor(seed) {
		this.state = seed >>> 0
	}

	// 0 .. sides - 1
	dice(sides) {
		this.state = (this.state + 0x9e3779b9) >>> 0
		let x = this.state
		x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
		x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
		return ((x ^ (x >>> 16)) >>> 0) % sides
	}

	pick(list) {
		return list[this.dice(list.length)]
	}

	// One in `of`.
	once(of) {
		return this.dice(of) === 0
	}

	many(most, make) {
		return Array.from({ length: this.dice(most + 1) }, make)
	}
}

// JSON of a value in one of its many spellings: white space, escapes, numbers, and
// in inner objects names that come twice, of which the last counts.
export function spell(value, chance, depth = 0) {
	const space = () => (chance.once(12) ? chance.pick([' ', '\n', '\t ', '  ']) : '')
	const text = (s) => {
		const plain = JSON.stringify(s)
		return chance.once(6) ? `"${Array.from({ length: s.length }, (_, i) => `\\u${s.charCodeAt(i).toString(16).padStart(4, '0')}`).join('')}"` : plain
	}
	if (typeof value === 'string')
		return text(value)
	if (typeof value === 'number')
		return chance.once(4) && Number.isFinite(value) ? value.toExponential().replace('e+', 'E') : String(value)
	if (value === null || typeof value !== 'object')
		return JSON.stringify(value)
	if (Array.isArray(value))
		return `[${value.map((v) => space() + spell(v, chance, depth + 1) + space()).join(',')}]`
	const members = Object.entries(value).map(([k, v]) => `${space()}${text(k)}${space()}:${space()}${spell(v, chance, depth + 1)}${space()}`)
	if (depth > 0 && members.length > 0 && chance.once(10))
		members.unshift(`${JSON.stringify(Object.keys(value)[0])}:"first"`)
	return `{${members.join(',')}}`
}
