/*
 * gateway/client_family.c -- which program is asking, from its user-agent.
 *
 * For logs only; never for a decision. Claude Desktop's engine calls itself
 * claude-cli too, with the surface in brackets, so surfaces are looked at
 * first: "claude-cli/2.1.295 (external, claude-desktop-3p)".
 */
#include "gateway/request.h"

static struct slice
version_after(struct slice agent, size_t at)
{
	size_t n = 0;

	if (at > agent.n)
		return SLICE_NONE;
	while (at + n < agent.n && agent.p[at + n] != ' ' && agent.p[at + n] != ';')
		n++;
	return (struct slice){ agent.p + at, n };
}

void
client_family(struct slice agent, struct slice *family, struct slice *version)
{
	static const struct { struct slice prefix, family; } known[] = {
		{ { "claude-cli/", 11 }, { "claude-code", 11 } },
		{ { "Anthropic/JS ", 13 }, { "anthropic-sdk-js", 16 } },
		{ { "Anthropic/Python ", 17 }, { "anthropic-sdk-python", 20 } },
		{ { "AsyncAnthropic/Python ", 22 }, { "anthropic-sdk-python", 20 } },
		{ { "OpenAI/JS ", 10 }, { "openai-sdk-js", 13 } },
		{ { "OpenAI/Python ", 14 }, { "openai-sdk-python", 17 } },
		{ { "AsyncOpenAI/Python ", 19 }, { "openai-sdk-python", 17 } },
		{ { "curl/", 5 }, { "curl", 4 } },
	};

	*family = *version = SLICE_NONE;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (slice_starts(agent, known[i].prefix)) {
			*family = known[i].family;
			*version = version_after(agent, known[i].prefix.n);
			break;
		}
	}
	if (slice_eq(*family, SLICE("claude-code")) &&
	    (slice_contains(agent, SLICE("claude-desktop-3p")) || slice_contains(agent, SLICE("local-agent"))))
		*family = SLICE("claude-desktop");
	else if (!family->p && agent.n)
		*family = SLICE("other");
}
