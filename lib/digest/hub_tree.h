/* SPDX-License-Identifier: MIT
 *
 * trees/COMMIT.json of huggingface_hub (formats/README.md 4.1): size and digest of every file of a
 * repository at a commit. */
#ifndef DIGEST_HUB_TREE_H
#define DIGEST_HUB_TREE_H

#include "digest/digest_list.h"

/* Entries are in file order; those of LFS files carry the SHA-256 of the content, others its git
 * blob SHA-1, all the size. Two entries with one name are an error. *out is to be freed in every
 * case. 0; -ENOTSUP when the format has another version than 1; -EINVAL with *error; -ENOMEM. */
int hub_tree_parse(const char *text, size_t length, const char *path, struct arena *arena,
                   struct digest_list *out, struct unshard_error *error);

#endif
