/*
 * gateway/model_names.h -- which models a request may name, and where they are had.
 *
 * A key can use what it, its workspace and the provider all allow. Models that are
 * in no list are still asked for where no list forbids them: providers bring out
 * new ones more often than gateways are updated.
 */
#ifndef WEIR_GATEWAY_MODEL_NAMES_H
#define WEIR_GATEWAY_MODEL_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "gateway/settings.h"
#include "policy/price.h"

struct refusal_words;
struct request;

#define MODELS_MAX 512		/* in a list: the built-in ones, and aliases */

struct model_name {
	struct slice id;		/* that a request may name */
	const struct model_info *info;	/* of the model that it stands for; NULL: an alias of one that is not known */
	const struct setting_model *alias;	/* NULL: it is its own name */
};

bool model_allowed(const struct request *r, struct slice model);
	/* By the key, and by its workspace. */
bool model_offered(const struct setting_provider *p, struct slice model);
const struct setting_provider *model_provider(const struct request *r, struct slice model);
	/* Who has it, where nothing says who is to be asked: the first provider that
	 * lists it, else the first that lists nothing and whose kind has such a model.
	 * NULL: nobody. */
size_t model_names(const struct request *r, struct model_info *infos, struct model_name *out);
	/* All that this key can use where the request goes, as far as it says that,
	 * each name once; room for MODELS_MAX of both. */
void model_refuse(struct request *r, const struct refusal_words *w, const char *what);
	/* The model at hand cannot be had here; says which ones are nearest. The
	 * request is freed. */

#endif
