// Patterns: what JavaScript's RegExp takes, refuses and matches.
import test from 'node:test'
import assert from 'node:assert/strict'
import { Chance, ask } from './ask.mjs'

const PATTERNS = 30000

// What is known to differ (policy/regex.h): told apart by the pattern alone.
function differs(pattern, refused) {
	return /\(\?<[=!]/.test(pattern) && /fixed length|lookbehind/.test(refused)	// of any length in JavaScript
}

const letters = ['a', 'b', 'c', 'A', '1', '2', '_', '-', ' ', '\n', '\r', '\v', '\u00a0', '\u2028', '\ufeff', '\u00e9', '\u4e2d',
	'.', '$', '{', '}', ']', ',', ':', '/', '=', '!', '<', '>', '&', '#', '~', '"', "'", '\t', '\0', 'k', 'x', 'u', 'Q', 'E', 'K', 'R']
const escapes = ['\\d', '\\D', '\\w', '\\W', '\\s', '\\S', '\\b', '\\B', '\\n', '\\t', '\\v', '\\f', '\\r', '\\0', '\\.', '\\\\', '\\/',
	'\\-', '\\x41', '\\x4', '\\u0061', '\\u00e9', '\\u12', '\\cA', '\\c', '\\c1', '\\a', '\\e', '\\h', '\\z', '\\Z', '\\A', '\\G', '\\K',
	'\\Q', '\\E', '\\R', '\\X', '\\N', '\\p{L}', '\\g', '\\o{7}', '\\k', '\\_', '\\^', '\\$', '\\(', '\\[', '\\8', '\\07', '\\101', '\\777', '\\\u00e9']
const quantifiers = ['*', '+', '?', '*?', '+?', '??', '{2}', '{0}', '{1,}', '{1,2}', '{0,3}?', '{02}', '{', '{,2}', '{ 1}', '{1, 2}', '{a}', '{3,1}', '++', '*+', '{2}+']

class Patterns {
	constructor(chance) {
		this.chance = chance
	}

	make() {
		this.groups = 0
		this.captures = this.chance.once(4)	// and then no group is repeated
		let text = this.alternatives(3)
		if (this.captures)
			text += this.chance.pick(['\\1', '\\2', '\\3', '\\k<n1>', '\\1*', '\\12'])
		for (let n = this.chance.once(4) ? 1 + this.chance.dice(3) : 0; n > 0; n--)
			text = this.damage(text)
		return text
	}

	damage(text) {
		const at = this.chance.dice(text.length + 1)
		const wild = ['(', ')', '[', ']', '{', '}', '|', '*', '+', '?', '^', '$', '\\', '(?', '(?i)', '(?i:a)', '(?>a)', '(?#a)', '(?R)',
			'(?1)', '(?P<a>b)', '(?|a)', '(*ACCEPT)', '(*UTF)', '(?C1)', '[:alpha:]', '[[:alpha:]]', '&&', '--', '(?<', '(?<x', '(?<n1>a)']
		return this.chance.once(2) ? text.slice(0, at) + this.chance.pick(wild) + text.slice(at)
			: text.slice(0, at) + text.slice(at + 1)
	}

	alternatives(depth) {
		return Array.from({ length: this.chance.once(3) ? 2 : 1 }, () => this.terms(depth)).join('|')
	}

	terms(depth) {
		return this.chance.many(4, () => this.term(depth)).join('')
	}

	term(depth) {
		const kind = this.chance.dice(12)
		if (kind === 0)
			return this.chance.pick(['^', '$', '\\b', '\\B'])
		if (kind === 1 && depth > 0) {
			const opener = this.chance.pick(['(?:', '(?=', '(?!', '(?<=', '(?<!', '(', '(', `(?<n${++this.groups}>`])
			return opener + this.alternatives(depth - 1) + ')' + (this.captures ? '' : this.quantifier())
		}
		if (kind === 2)
			return this.set() + this.quantifier()
		if (kind === 3)
			return '.' + this.quantifier()
		return this.chance.pick(kind < 6 ? escapes : kind < 8 ? letters : ['a', 'b', 'c', '-', '1']) + this.quantifier()
	}

	quantifier() {
		return this.chance.once(3) ? this.chance.pick(quantifiers) : ''
	}

	set() {
		const atom = () => this.chance.pick(this.chance.once(3) ? escapes : letters)
		const parts = this.chance.many(4, () => (this.chance.once(3) ? `${atom()}-${atom()}` : atom()))
		return `[${this.chance.once(3) ? '^' : ''}${parts.join('')}${this.chance.once(6) ? '-' : ''}]`
	}
}

function expected(pattern, subject) {
	try {
		return { verdict: new RegExp(pattern).test(subject) ? 'yes' : 'no' }
	} catch {
		return { refused: true }
	}
}

test('patterns are taken, refused and matched as by RegExp', async () => {
	const chance = new Chance(7)
	const patterns = new Patterns(chance)
	const questions = Array.from({ length: PATTERNS }, () => ({
		ask: 'regex', pattern: patterns.make(), subject: chance.many(10, () => chance.pick(chance.once(2) ? letters : ['a', 'b', 'c', '-', '1'])).join(''),
	}))
	const answers = await ask(questions)
	const count = { yes: 0, no: 0, refused: 0, differs: 0 }

	questions.forEach(({ pattern, subject }, i) => {
		const wanted = expected(pattern, subject)
		const where = JSON.stringify({ pattern, subject, answer: answers[i], wanted })
		if (answers[i].refused && !wanted.refused && differs(pattern, answers[i].refused)) {
			count.differs++
			return
		}
		assert.equal(Boolean(answers[i].refused), Boolean(wanted.refused), where)
		if (wanted.refused) {
			assert.ok(answers[i].offset >= 0 && answers[i].offset <= Buffer.byteLength(pattern), where)
		} else {
			assert.equal(answers[i].verdict, wanted.verdict, where)
		}
		count[wanted.verdict ?? 'refused']++
	})
	// Each kind is tried often, or the patterns are made badly.
	assert.ok(count.yes > 3000 && count.no > 3000 && count.refused > 1000, JSON.stringify(count))
	assert.ok(count.differs < PATTERNS / 20, JSON.stringify(count))
	console.log(JSON.stringify(count))
})
