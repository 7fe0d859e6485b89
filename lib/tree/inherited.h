/* SPDX-License-Identifier: MIT
 *
 * What is to be known of the directories above one that is laid out by itself: where digests of its
 * files may stand, and which of them are shards of what lies above. Everything else that concerns a
 * directory lies in it, or is asked for by its path (a download's metadata, model_index.json). */
#ifndef TREE_INHERITED_H
#define TREE_INHERITED_H

#include "tree/discovery.h"

/* Of a directory that has been scanned, what the one above leaves to it: its entries are claimed,
 * and the lists are looked at. With a scan of the whole nothing. */
void inherited_apply(struct discovery *discovery);
/* What the directory above leaves; of the whole, and of the source itself, that is nothing. */
const struct inherited *inherited_left(const struct discovery *discovery);
/* Fills in what is left to those below, once outcomes are settled. 0 or -ENOMEM. */
int inherited_make(struct discovery *discovery);

#endif
