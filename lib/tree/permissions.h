/* SPDX-License-Identifier: MIT
 *
 * Owner, group and mode of what is made of several files. */
#ifndef UNSHARD_CHECKPOINT_PERMISSIONS_H
#define UNSHARD_CHECKPOINT_PERMISSIONS_H

#include "unshard.h"

#include <stdbool.h>
#include <sys/stat.h>

struct permissions {
    uid_t uid;
    gid_t gid;
    mode_t mode; /* the nine bits; others are ignored */
};

bool permissions_same(const struct permissions *a, const struct permissions *b);
/* Permissions that give a user nothing that not both give, whatever groups that user is in. Where
 * owners or groups differ they may give less than both do: who is in a group is not known. Of the
 * owners and groups that can be shown, those that let most users read. */
struct permissions permissions_of_both(const struct permissions *a, const struct permissions *b);
/* Whether a user may list such a directory, and search it. As for the kernel the first class that
 * he is in decides; root's powers are not looked at. */
bool permissions_let_list(const struct permissions *directory, const struct unshard_user *user);

#endif
