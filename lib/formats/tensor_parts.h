/* SPDX-License-Identifier: MIT
 *
 * From the parts of tensors that several files hold to whole tensors. Pure. */
#ifndef FORMATS_TENSOR_PARTS_H
#define FORMATS_TENSOR_PARTS_H

#include "formats/tensor_set.h"
#include "unshard.h"

/* Some tensor of the set is a part. */
bool tensor_parts_present(const struct tensor_set *set);

/* Puts the tensors of all sets, parts made whole, into the first set, in canonical order, and
 * leaves the others without tensors; metadata stays where it is. The parts of a tensor must have
 * one dtype and cover it exactly, each element once. Memory lives in the arena. component is for
 * messages. Codes: "duplicate-tensor" (of whole tensors), "malformed-parts", "unsupported-parts"
 * (-ENOTSUP), "no-memory". */
int tensor_parts_join(struct tensor_set *sets, size_t set_count, const char *component,
                      struct arena *arena, struct unshard_error *error);

#endif
