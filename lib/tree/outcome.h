/* SPDX-License-Identifier: MIT */
#ifndef TREE_OUTCOME_H
#define TREE_OUTCOME_H

#include "tree/discovery.h"

/* Decides what comes of each candidate, by the table in outcome.c, once the headers were read. What
 * is shown as it is on disk stops being a candidate; each of its files that is weights becomes one
 * of its own. The numbers of candidates are final afterwards. 0 or -ENOMEM. */
int outcomes_settle(struct discovery *discovery, struct unshard_error *error);

#endif
