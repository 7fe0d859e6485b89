/* SPDX-License-Identifier: MIT
 * How many files this process may have open. */
#ifndef FS_HOST_DESCRIPTOR_LIMIT_H
#define FS_HOST_DESCRIPTOR_LIMIT_H

/* Raises the limit to what is allowed: the usual one is there for programs that use select(2),
 * which this one does not. Not thread-safe. */
void descriptor_limit_raise(void);
/* Makes it what it was, for a program of somebody else that is to take the place of this one. */
void descriptor_limit_restore(void);

#endif
