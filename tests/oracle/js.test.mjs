// Values: String() and parseFloat() of whatever JSON can say.
import test from 'node:test'
import assert from 'node:assert/strict'
import { Chance, ask } from './ask.mjs'

const VALUES = 20000
const chance = new Chance(11)

// JSON texts of numbers: any bits of a double, and any digits.
function numbers() {
	const list = ['0', '-0', '0.0', '1e999', '-1e999', '1e-999', '1.0', '1e21', '1e20', '123456789012345680000', '5e-324', '0.000001',
		'1e-7', '4.35', '0.1', '9007199254740993', '123456789012345', '1234567890123456', '-17', '00'.slice(1), '2.2250738585072014e-308']
	for (let e = -1074; e < 1024; e++)
		list.push(String(2 ** e))
	const view = new DataView(new ArrayBuffer(8))
	const digits = (n) => Array.from({ length: n }, () => chance.dice(10)).join('')
	while (list.length < VALUES) {
		view.setUint32(0, chance.dice(2 ** 32))
		view.setUint32(4, chance.dice(2 ** 32))
		const any = view.getFloat64(0)
		if (Number.isFinite(any))
			list.push(chance.once(2) ? String(any) : any.toExponential(chance.dice(21)))
		list.push(String(chance.dice(1e9) / 10 ** chance.dice(12)))
		list.push(`${chance.once(2) ? '-' : ''}${1 + chance.dice(9)}${digits(chance.dice(30))}.${digits(1 + chance.dice(30))}e${chance.dice(600) - 300}`)
	}
	return list
}

const spaces = [' ', '\t', '\n', '\v', '\f', '\r', '\u00a0', '\u1680', '\u2000', '\u2007', '\u200a', '\u200b', '\u2028', '\u2029',
	'\u202f', '\u205f', '\u3000', '\ufeff', '\u180e', '\u0085']
const parts = ['0', '1', '9', '12', '.', '-', '+', 'e', 'E', 'e5', 'e-3', 'Infinity', 'infinity', 'NaN', 'nan', 'inf', '0x10', 'x', '_', ',', 'a', ' ']

function text() {
	return chance.many(2, () => chance.pick(spaces)).join('') + chance.many(5, () => chance.pick(parts)).join('')
}

function value(depth) {
	const kind = chance.dice(depth > 0 ? 9 : 6)
	return kind < 2 ? text() : kind === 2 ? chance.dice(1000) / 8 : kind === 3 ? chance.pick([true, false, null]) :
		kind === 4 ? '\u0001"\\' + chance.pick(['\u00e9', '\u{1f600}', '/']) : kind === 5 ? chance.dice(100) :
		kind < 8 ? chance.many(3, () => value(depth - 1)) : { a: value(depth - 1) }
}

test('values print and parse as in JavaScript', async () => {
	const texts = [...numbers(), ...Array.from({ length: VALUES }, () => JSON.stringify(value(3)))]
	const answers = await ask(texts.map((t) => `{"ask":"js","value":${t}}`))

	texts.forEach((t, i) => {
		const v = JSON.parse(t)
		assert.equal(answers[i].text, String(v), t)
		assert.equal(answers[i].float, String(parseFloat(v)), t)
	})
	assert.ok(answers.filter((a) => a.float !== 'NaN').length > VALUES)
	assert.ok(answers.filter((a) => a.float === 'NaN').length > VALUES / 4)
})
