/* SPDX-License-Identifier: MIT
 *
 * What files and views are known by from one layout to the next. A directory is laid out anew when
 * anything in it has changed; what is the same in both layouts keeps its pages, and who has it open
 * notices nothing. The same goes for two directories that show the same files, as the revisions of
 * a hub cache do.
 *
 * A file that is shown as it is stays the same, whatever it holds: it is followed (its length, too)
 * as it changes in place. Of a file that views were planned from, size and time count as well, what
 * its header said, and which of its bytes are shown. What is known of its content beforehand counts
 * for both. ctime does not: it moves when somebody else gives the file one more name.
 */
#ifndef TREE_IDENTITY_H
#define TREE_IDENTITY_H

#include "base/xxh3.h"
#include "tree/model.h"

/* Fills in file_identities and view_identities of a layout that has everything else. 0 or -ENOMEM.
 */
int identities_make(struct unshard_checkpoint *layout);

#endif
