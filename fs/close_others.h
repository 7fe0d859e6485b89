/* SPDX-License-Identifier: MIT */
#ifndef FS_CLOSE_OTHERS_H
#define FS_CLOSE_OTHERS_H

/* For a helper process: closes every descriptor from number `from` on but these two, which are
 * different ones and not below `from`. */
void close_others(unsigned from, int first, int second);

#endif
