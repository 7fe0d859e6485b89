/* SPDX-License-Identifier: MIT
 *
 * Where PyTorch files are shown as safetensors besides: the loaders' rules, and the one place that
 * decides by them. */
#ifndef TREE_ADDED_VIEWS_H
#define TREE_ADDED_VIEWS_H

#include "tree/discovery.h"

/* Drops the candidates of pickles for which nothing is to be added, with a note that says why:
 * their files are shown as they are on disk. What is damaged stays, and is failed. Needs the
 * headers. */
void added_views_settle(struct discovery *discovery);

#endif
