/* SPDX-License-Identifier: MIT
 * What keeps a process from having namespaces of its own. */
#ifndef FS_HOST_NAMESPACE_REASON_H
#define FS_HOST_NAMESPACE_REASON_H

#include "unshard.h"

/* Fills *error with the setting that made a step fail with this (positive) errno, as far as can be
 * found out, and what to do. step: a user namespace, its numbers, a mount namespace or a mount, for
 * a person. Returns the negative errno. Reads /proc. */
int namespace_reason(const char *step, int number, struct unshard_error *error);
/* The same of opening /dev/fuse. */
int namespace_reason_device(int number, struct unshard_error *error);

#endif
