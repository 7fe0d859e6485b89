/* SPDX-License-Identifier: MIT
 * A mount namespace of one's own: what is mounted in it nobody else sees, and it ends with the last
 * process in it. */
#ifndef FS_HOST_NAMESPACE_H
#define FS_HOST_NAMESPACE_H

#include <stdbool.h>

#include "unshard.h"

/* How this process has come into its namespace. */
struct namespace_entry {
    bool mapped;         /* in a user namespace of its own, too */
    bool own_alone;      /* which knows the caller's own user and first group, and no others */
    int user_namespace;  /* a descriptor of that, closed on exec; -1: there is none */
    uint64_t capability; /* those that it could have had before, a bit each */
};

/* Moves this process into a mount namespace of its own, to which mounts from outside come still,
 * and none of its own go out. Who may not mount gets a user namespace as well, in which all users
 * and groups keep their numbers where that is allowed, and else the caller's alone do; the
 * caller's rights on files stay what they are. Only with a single thread; forks for a moment. 0, or
 * a negative errno with what forbids it and what to do in *error. */
int namespace_enter(struct namespace_entry *entry, struct unshard_error *error);

/* Mounts a connection of /dev/fuse, read-only and for all users, at a canonical path of such a
 * namespace; fsname is what mount(8) shows as its device. Nothing answers it yet: the path is not
 * to be looked into. 0 and a descriptor of /dev/fuse, closed on exec, and one (O_PATH) of what is
 * mounted, or a negative errno with *error. */
int namespace_mount(const char *path, const char *fsname, int *device, int *root,
                    struct unshard_error *error);

/* Gives up all that the namespace gives and the caller did not have, for a program that takes the
 * place of this one. */
void namespace_restrict(struct namespace_entry *entry);

/* Whether namespace_enter works for this user, tried by another process. 0, or a negative errno and
 * *error. Blocks for a moment. */
int namespace_check(struct unshard_error *error);

#endif
