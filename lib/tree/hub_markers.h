/* SPDX-License-Identifier: MIT
 *
 * What the hub's library remembers of names that a repository does not have. */
#ifndef TREE_HUB_MARKERS_H
#define TREE_HUB_MARKERS_H

#include "tree/discovery.h"

/* Hides the markers of names that the mount adds. Needs all that is added. 0 or -ENOMEM. */
int hub_markers_hide(struct discovery *discovery);

#endif
