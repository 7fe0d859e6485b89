/* SPDX-License-Identifier: MIT
 *
 * Names of what programs leave beside the files of a checkpoint, or have not finished. */
#ifndef TREE_LEFTOVER_NAME_H
#define TREE_LEFTOVER_NAME_H

#include <stdbool.h>

/* By its name the file at a path is none of the checkpoint's: what macOS and Windows keep for
 * themselves (._NAME, .DS_Store, Thumbs.db), what editors do, and what is being written still, by
 * downloaders (NAME.incomplete, NAME.part, NAME.aria2), by rsync (.NAME.XXXXXX) or with a name of
 * its own (NAME.tmp). It comes, changes and goes: it is shown as it is, and not sealed. */
bool leftover_name(const char *path);

/* What a download is called that has not come to its end: the endings after the name of the file,
 * NULL-terminated. */
extern const char *const leftover_of_download[];

#endif
