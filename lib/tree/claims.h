/* SPDX-License-Identifier: MIT
 *
 * What somebody says about the content of source files, gathered from everywhere and then brought
 * down to one expectation a file. */
#ifndef TREE_CLAIMS_H
#define TREE_CLAIMS_H

#include "tree/model.h"

/* Whose word counts more, most first, because of what each is bound to (formats/README.md 4.6). */
enum claim_rank {
    CLAIM_MANIFEST, /* unshard-manifest.json */
    CLAIM_BLOB,     /* the name of a blob in the hub's cache */
    CLAIM_METADATA, /* the ETag noted at the download of the file, unchanged since */
    CLAIM_TREE,     /* the listing of the repository at the commit */
    CLAIM_LIST      /* SHA256SUMS and its kin */
};

struct claim {
    uint32_t file; /* source file */
    enum claim_rank rank;
    struct digest digest;                 /* DIGEST_NONE: of the size alone */
    const struct expected_chunks *chunks; /* or NULL */
    const char *origin;                   /* in the arena of the checkpoint */
    bool has_size;
    uint64_t size;
};

struct claim_list {
    struct claim *items; /* malloc'd */
    size_t count, capacity;
};

/* 0 or -ENOMEM. */
int claim_add(struct claim_list *claims, const struct claim *claim);
/* What claims of a rank say of a file holds for every name of the same file (device and inode) of
 * which no claim of that rank says anything. 0 or -ENOMEM. */
int claims_share(struct claim_list *claims, enum claim_rank rank,
                 const struct unshard_checkpoint *checkpoint);
/* Sets the expectation of every source file that a claim is about; sorts the list. Two claims about
 * one file that cannot both be true make its expectation contradict. 0 or -ENOMEM. */
int claims_settle(struct claim_list *claims, struct unshard_checkpoint *checkpoint);
void claims_free(struct claim_list *claims);

#endif
