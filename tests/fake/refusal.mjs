/** An answer that the real provider would give: status, envelope type, message, and details of the error. */
export class Refusal extends Error {
	constructor(status, type, message, details) {
		super(message);
		Object.assign(this, { status, type, details });
	}
}
