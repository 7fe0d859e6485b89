/* SPDX-License-Identifier: MIT */
#ifndef FS_HOST_CLOSE_OTHERS_H
#define FS_HOST_CLOSE_OTHERS_H

/* For a new process: closes every descriptor from number `from` on but these two; a negative one is
 * none. */
void close_others(unsigned from, int first, int second);

#endif
