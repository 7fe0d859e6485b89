/* SPDX-License-Identifier: MIT
 *
 * Which file of a component each tensor is taken from. */
#ifndef TREE_TENSOR_OWNERS_H
#define TREE_TENSOR_OWNERS_H

#include "tree/discovery.h"

/* Settles it for a candidate of which all headers were read. Headers tell what is there; where a
 * tensor is in two files the index says which one is meant, and the other is taken out of that
 * file's set. What else index and headers disagree about is noted. 0; -EINVAL with *why when
 * nothing says which of two is meant; -ENOMEM. */
int tensor_owners_settle(struct discovery *discovery, struct candidate *candidate,
                         struct unshard_error *why);

#endif
