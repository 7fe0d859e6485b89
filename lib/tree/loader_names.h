/* SPDX-License-Identifier: MIT
 *
 * The names that loaders look for, whatever is in the files: what a format cannot know of its own.
 * Which loader looks for what, and where that is written, stands in added_views.c. Pure functions
 * on untrusted names, and thread-safe. */
#ifndef TREE_LOADER_NAMES_H
#define TREE_LOADER_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Extensions in the order in which loaders that take all files of a directory try them. Only files
 * of these two have indexes of which there are several spellings. */
#define LOADER_FIRST_EXTENSION "safetensors"
#define LOADER_SECOND_EXTENSION "bin"

/* The file of a component: what transformers looks for, and what diffusers does. */
#define LOADER_MODEL_FILE "model." LOADER_FIRST_EXTENSION
#define LOADER_DIFFUSION_FILE "diffusion_pytorch_model." LOADER_FIRST_EXTENSION

/* What says that a directory is a pipeline, and of which directories. */
#define LOADER_MODEL_INDEX "model_index.json"

/* Whether loaders look for files of this stem. */
bool loader_name_is_stem(const char *stem);

/* Of files with the first extension, that are called `stem`[.`variant`]: the file, or its index,
 * that loaders find by its name when they find neither those nor an index of theirs. False: they
 * find none, or its name is longer than the capacity. */
bool loader_name_rival(const char *stem, const char *variant, bool index, char *out,
                       size_t capacity);

/* Whether some loader takes a file called so for weights, by its extension. */
bool loader_name_may_be_weights(const char *name);
/* Whether a file called so goes with weights and holds none. */
bool loader_name_is_of_training(const char *name);
/* Whether a file called so says that its directory is a model of transformers or diffusers. */
bool loader_name_is_configuration(const char *name);
/* Whether something stands before that extension, given without its dot. */
bool loader_name_has_extension(const char *name, const char *extension);

#endif
