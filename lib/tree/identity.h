/* SPDX-License-Identifier: MIT
 *
 * What files and views are known by from one layout to the next. A directory is laid out anew when
 * anything in it has changed; what is the same in both layouts keeps its pages, and who has it open
 * notices nothing. The same goes for two directories that show the same files, as the revisions of
 * a hub cache do.
 *
 * A file is known by device and inode, size and time: numbers of inodes are used again. Of one that
 * views were planned from, what its header said counts as well, and which of its bytes are shown;
 * and of all what is known of their content beforehand. ctime does not count: it moves when the
 * file gets one more name. Who has a file open that changes in place follows it, or gets errors
 * (engine/plain_file.c); who opens it then has another view.
 */
#ifndef TREE_IDENTITY_H
#define TREE_IDENTITY_H

#include "base/xxh3.h"
#include "tree/model.h"

/* Fills in file_identities and view_identities of a layout that has everything else. 0 or -ENOMEM.
 */
int identities_make(struct unshard_checkpoint *layout);

#endif
