/* SPDX-License-Identifier: MIT
 *
 * A list of digests or a manifest, parsed. One at the top of a source may be of thousands of
 * directories below it, so a large one is parsed once, where it is, and goes with what is inherited
 * from there. Immutable but for the number of who holds it. */
#ifndef TREE_PARSED_LIST_H
#define TREE_PARSED_LIST_H

#include "digest/digest_list.h"
#include "digest/list_name.h"
#include "digest/manifest.h"
#include "tree/scan.h"

#include <stdatomic.h>

struct parsed_list {
    atomic_uint holders;
    const char *path;
    uint64_t device, inode, size;
    int64_t mtime_ns, ctime_ns;
    bool is_manifest;
    int result; /* 0: it has one of these */
    struct digest_list list;
    struct manifest manifest;
    struct unshard_error error; /* else why it has not */
    struct arena arena;         /* of all that is here */
};

/* Parses what was read of the file that is called `name`; origin: what it is called in messages.
 * Result and error are those of the parsers (digest/). The caller holds what comes; NULL: no
 * memory. */
struct parsed_list *parsed_list_make(const struct scan_entry *entry, struct digest_list_name name,
                                     const char *origin, const char *text, size_t length);
/* Of what was inherited, that of this file as it is now, held once more; or NULL. */
struct parsed_list *parsed_list_find(const struct inherited *left, const struct scan_entry *entry);
/* Holds it for as long as the checkpoint is there, and hands it on to those below. 0 or -ENOMEM. */
int parsed_list_keep(struct parsed_list *list, struct inherited *by);
/* Both are thread-safe; the last one who gives it back frees it. NULL is nothing. */
void parsed_list_give_back(struct parsed_list *list);
/* All that was kept. */
void parsed_lists_free(struct inherited *by);

#endif
