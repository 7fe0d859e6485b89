/* SPDX-License-Identifier: MIT
 *
 * Prefixes of tensor names that tell the components of a file that holds a whole pipeline, see
 * formats/README.md 2.5. Pure functions on untrusted names. */
#ifndef TREE_COMPONENT_PREFIX_H
#define TREE_COMPONENT_PREFIX_H

#include "formats/tensor_set.h"

#include <stdbool.h>

#define COMPONENT_PREFIX_CAPACITY 128 /* of every string, with its terminator */
#define COMPONENT_PREFIXES_MAX 32

struct component_prefix {
    char prefix[COMPONENT_PREFIX_CAPACITY]; /* with the dot at its end */
    size_t length;
    char directory[COMPONENT_PREFIX_CAPACITY]; /* in which the component is shown */
};

struct component_prefixes {
    struct component_prefix items[COMPONENT_PREFIXES_MAX]; /* in the order of their tensors */
    size_t count;
};

/* True when these tensors are those of a whole pipeline, with its components in *out, at least two
 * of them. Cautious: prefixes that other models use too count only beside one that they do not, or
 * where the metadata says that it is a pipeline (LTX-2: a "config" with "transformer" and "vae"),
 * and the plain names of visual_gen only when every tensor has one and one is a denoiser. So a
 * language model, whose prefix is "model." or "transformer.", is none. Two components may have the
 * same directory. False also when memory is short. */
bool component_prefixes_recognise(const struct tensor_set *sets, size_t set_count,
                                  struct component_prefixes *out);

/* The directory for a prefix that somebody named: the usual one of a known prefix, otherwise the
 * prefix with '_' for its dots. prefix ends with a dot and fits. */
void component_prefix_directory(const char *prefix, char out[COMPONENT_PREFIX_CAPACITY]);

/* The file name under which a loader looks in a directory of that name: transformers' for text and
 * image encoders, diffusers' for all others. */
const char *component_prefix_file(const char *directory);

#endif
